//! Parts of an object: fetched a few at a time, paid for in memory, handed over in order.
//!
//! Whoever holds memory waits for more only if others need not wait for it: an object is either paid for as a whole, or
//! its parts are used up one after the other whatever becomes of the next.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::object::{Library, S3Object};
use super::store::{NoAnswer, Stage};

/// How much one request asks for: enough that its way costs little, few enough that it is soon repeated.
pub(super) const PART_BYTES: u64 = 8 << 20;
/// Parts of one object that are fetched at a time, if its memory is reserved already, and else.
const PAID_PARTS_AHEAD: usize = 4;
const PARTS_AHEAD: usize = 2;
/// Bytes of one permit of the budget.
const PERMIT_BYTES: u64 = 1 << 10;

/// Memory for bytes of objects that are fetched and not yet parsed.
pub(super) struct Budget {
    permits: Arc<Semaphore>,
    permits_max: u32,
}

impl Budget {
    pub(super) fn new(bytes_max: u64) -> Self {
        let permits_max = u32::try_from(bytes_max / PERMIT_BYTES).unwrap_or(u32::MAX);
        Self { permits: Arc::new(Semaphore::new(permits_max as usize)), permits_max }
    }

    /// Waits for memory; a wish beyond the budget gets all of it.
    pub(super) async fn reserve(&self, bytes: u64) -> OwnedSemaphorePermit {
        let permits = Arc::clone(&self.permits).acquire_many_owned(self.permits_for(bytes));
        permits.await.expect("the budget is never closed")
    }

    fn reserve_now(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_many_owned(self.permits_for(bytes)).ok()
    }

    fn permits_for(&self, bytes: u64) -> u32 {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        permits.min(self.permits_max)
    }
}

/// Bytes that give their memory back to the budget when nobody has them any more.
pub(super) fn held(bytes: Bytes, permit: OwnedSemaphorePermit) -> Bytes {
    struct Held {
        bytes: Bytes,
        _permit: OwnedSemaphorePermit,
    }
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    Bytes::from_owner(Held { bytes, _permit: permit })
}

/// The parts of an object in order, of which a few are fetched side by side.
pub(super) struct Parts {
    library: Arc<Library>,
    object: Arc<S3Object>,
    left: Range<u64>,
    /// Whether the memory of all parts is reserved already.
    is_paid: bool,
    stage: Stage,
    under_way: VecDeque<JoinHandle<Result<Bytes, NoAnswer>>>,
}

impl Parts {
    pub(super) fn new(library: Arc<Library>, object: S3Object, range: Range<u64>) -> Self {
        let (object, under_way) = (Arc::new(object), VecDeque::new());
        Self { library, object, left: range, is_paid: false, stage: Stage::Before, under_way }
    }

    /// Of an object whose memory is reserved already.
    pub(super) const fn paid(mut self, stage: Stage) -> Self {
        (self.is_paid, self.stage) = (true, stage);
        self
    }

    /// From now on something of the object is handed on.
    pub(super) const fn within(&mut self) {
        self.stage = Stage::Within;
    }

    /// The next part; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, NoAnswer>> {
        let ahead = if self.is_paid { PAID_PARTS_AHEAD } else { PARTS_AHEAD };
        while self.under_way.len() < ahead && !self.left.is_empty() {
            let end = self.left.end.min(self.left.start + PART_BYTES);
            let range = std::mem::replace(&mut self.left.start, end)..end;
            let (library, object) = (Arc::clone(&self.library), Arc::clone(&self.object));
            // Memory is asked for in the order of the parts: the first of them is never waited for by the next.
            let permit = if self.is_paid {
                None
            } else if self.under_way.is_empty() {
                Some(library.budget.reserve(range.end - range.start).await)
            } else {
                let Some(permit) = library.budget.reserve_now(range.end - range.start) else {
                    self.left.start = range.start;
                    break;
                };
                Some(permit)
            };
            let stage = self.stage;
            self.under_way.push_back(tokio::spawn(async move {
                let bytes = library.store.range(&object, range, stage).await?;
                Ok(match permit {
                    Some(permit) => held(bytes, permit),
                    None => bytes,
                })
            }));
        }
        let part = self.under_way.pop_front()?;
        Some(part.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.under_way.iter().for_each(JoinHandle::abort);
    }
}

/// Parts as they come, to read from.
pub(super) struct PartStream {
    parts: mpsc::Receiver<Result<Bytes, NoAnswer>>,
    part: Bytes,
}

impl PartStream {
    pub(super) const fn new(parts: mpsc::Receiver<Result<Bytes, NoAnswer>>) -> Self {
        Self { parts, part: Bytes::new() }
    }
}

impl Read for PartStream {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                None => return Ok(0),
                Some(Ok(part)) => self.part = part,
                Some(Err(NoAnswer::Failed(failure))) => {
                    return Err(io::Error::other(failure.message));
                }
                Some(Err(NoAnswer::Stopped)) => return Err(io::Error::other("it was stopped")),
            }
        }
        let taken = out.len().min(self.part.len());
        self.part.copy_to_slice(&mut out[..taken]);
        Ok(taken)
    }
}
