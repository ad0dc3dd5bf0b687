//! Places in the journal, as snapshots and sinks keep them.

use serde::{Deserialize, Serialize};

use crate::checkpoint::line_log::Place;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::FindingId;

/// No journal comes to a file of a greater number.
const FILES_MAX: u64 = 1_000_000_000_000_000;

/// No journal comes to a finding of a greater number.
pub(super) const FINDINGS_MAX: u64 = 1 << 62;

/// A place in the journal, between two findings.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(deny_unknown_fields)]
pub struct JournalPosition {
    /// The number of the file.
    pub file: u64,
    /// Bytes before it in the file.
    pub offset_bytes: u64,
    /// Findings that were ever written before it.
    pub findings: u64,
}

/// What a snapshot keeps of the journal: its end, and findings before it that a restart from this
/// snapshot makes again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalMark {
    /// Behind the last finding that was durable.
    pub position: JournalPosition,
    /// Numbers in the journal, identities and revisions, in order.
    pub pending: Vec<(u64, (FindingId, u32))>,
}

impl JournalPosition {
    pub(super) const fn place(self) -> Place {
        Place { file: self.file, offset_bytes: self.offset_bytes }
    }
}

impl JournalMark {
    /// Writes it to a snapshot.
    pub fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.position.file);
        out.u64(self.position.offset_bytes);
        out.u64(self.position.findings);
        out.count(self.pending.len());
        for (seq, (id, revision)) in &self.pending {
            out.u64(*seq);
            out.u128(id.bits());
            out.u32(*revision);
        }
    }

    /// Reads it back.
    ///
    /// # Errors
    /// If it is not what [`Self::save`] wrote.
    pub fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("journal mark", 1..=1)?;
        let position =
            JournalPosition { file: from.u64()?, offset_bytes: from.u64()?, findings: from.u64()? };
        if position.file > FILES_MAX || position.findings > FINDINGS_MAX {
            return Err(DecodeError::Invalid("journal position"));
        }
        let count = from.count(8 + 16 + 4)?;
        let mut pending = Vec::with_capacity(count);
        for _ in 0..count {
            let seq = from.u64()?;
            let finding = (seq, (FindingId::from_bits(from.u128()?), from.u32()?));
            if seq >= position.findings || pending.last().is_some_and(|last| *last >= finding) {
                return Err(DecodeError::Invalid("number of a finding"));
            }
            pending.push(finding);
        }
        Ok(Self { position, pending })
    }
}
