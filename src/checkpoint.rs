//! STUB, replaced at the merge.
use crate::codec::{Decoder, DecodeError, Encoder};
use crate::finding::Finding;
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub u64);
impl Epoch { pub const FIRST: Self = Self(1); #[must_use] pub const fn next(self) -> Self { Self(self.0 + 1) } }
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct StoreError;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct JournalError;
pub struct SnapshotStore;
impl SnapshotStore { pub fn write(&mut self, _: Epoch, _: &[(String, Vec<Vec<u8>>)]) -> Result<(), StoreError> { Ok(()) } }
pub struct Snapshot { pub epoch: Epoch, pub parts: std::collections::BTreeMap<String, Vec<u8>> }
#[derive(Clone, Copy, Debug)]
pub struct JournalPosition;
impl JournalPosition { pub fn save(&self, _: &mut Encoder) {} pub fn load(_: &mut Decoder<'_>) -> Result<Self, DecodeError> { Ok(Self) } }
pub struct Journal;
impl Journal {
    pub fn append(&mut self, _: &[Finding]) -> Result<(), JournalError> { Ok(()) }
    pub fn sync(&mut self) -> Result<(), JournalError> { Ok(()) }
    pub fn position(&self) -> JournalPosition { JournalPosition }
    pub fn forget_before(&mut self, _: JournalPosition) {}
}
