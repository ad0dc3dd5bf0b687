//! Makes requests durable, many with one sync, and only then has them answered and handed on.
//!
//! It runs on a thread of its own, because it waits for the disk. What it hands on is in the order in which it
//! was written, so that offsets in the spool are positions of the input.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::budget::Reservation;
use super::counters::FirehoseCounters;
use super::frame::Frame;
use super::refusal::Refusal;
use super::spool::{Spool, SpoolError};
use crate::recent::RecentHashes;
use crate::source::Receipt;

/// How often the spool is looked at when nothing comes.
const TRIM_INTERVAL: Duration = Duration::from_secs(1);

/// Requests that share a sync at most, and their bytes.
const BATCH_REQUESTS_MAX: usize = 1_024;
const BATCH_BYTES_MAX: usize = 64 << 20;

/// Ids that are remembered without a spool.
const KNOWN_REQUESTS_MAX: usize = 1 << 18;

/// Told to who waits for an answer.
pub(super) type Answer = oneshot::Sender<Result<Taken, Refusal>>;

/// How a request was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    New,
    /// It was taken before.
    Repeated,
}

/// A request on its way to the spool.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) request_hash: u128,
    pub(super) frames: Vec<Frame>,
    pub(super) reservation: Reservation,
    pub(super) answer: Answer,
}

/// A request on its way to the pipeline: its frames, and the offset behind each.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) frames: Vec<(Frame, u64)>,
    pub(super) reservation: Reservation,
    /// Who waits until it is handed on.
    pub(super) answer: Option<Answer>,
}

/// Up to where the events of the input have come in the spool.
#[derive(Debug)]
pub(super) struct Progress {
    receipt: Receipt,
    /// Numbers of events and the offsets behind them, that are not known to be safe.
    emitted: Mutex<VecDeque<(u64, u64)>>,
}

impl Progress {
    pub(super) const fn new(receipt: Receipt) -> Self {
        Self { receipt, emitted: Mutex::new(VecDeque::new()) }
    }

    /// With so many events everything before `end` is emitted.
    pub(super) fn note(&self, event_count: u64, end: u64) {
        let mut emitted = self.emitted.lock().unwrap_or_else(PoisonError::into_inner);
        emitted.push_back((event_count, end));
    }

    /// Up to where everything is safe, if that is more than before.
    fn take_safe_end(&self) -> Option<u64> {
        let safe_count = self.receipt.event_count();
        let mut emitted = self.emitted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut safe_end = None;
        while let Some((_, end)) = emitted.pop_front_if(|(count, _)| *count <= safe_count) {
            safe_end = Some(end);
        }
        safe_end
    }
}

/// Where requests are kept until they are safe.
pub(super) enum Store {
    Spool(Box<Spool>),
    /// In memory alone: they are answered when they are handed on.
    Memory {
        known: RecentHashes,
        end: u64,
    },
}

impl Store {
    pub(super) fn memory() -> Self {
        Self::Memory { known: RecentHashes::new(KNOWN_REQUESTS_MAX), end: 0 }
    }
}

/// The stage without its thread.
pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) submissions: mpsc::Receiver<Submission>,
    pub(super) outgoing: mpsc::Sender<Outgoing>,
    pub(super) progress: Arc<Progress>,
    pub(super) counters: Arc<FirehoseCounters>,
    /// Told when there is no more room on the disk.
    pub(super) is_full: Arc<AtomicBool>,
}

impl Writer {
    /// Works until nobody submits any more, or nobody takes what is handed on.
    pub(super) fn run(mut self, runtime: &Handle) {
        loop {
            match runtime.block_on(timeout(TRIM_INTERVAL, self.submissions.recv())) {
                Ok(None) => return,
                Ok(Some(first)) => {
                    let batch = self.batch(first);
                    self.commit(batch);
                    if self.outgoing.is_closed() {
                        return;
                    }
                }
                Err(_) => {}
            }
            if let Store::Spool(spool) = &mut self.store {
                if let Some(safe_end) = self.progress.take_safe_end() {
                    spool.trim(safe_end);
                }
                self.is_full.store(!spool.has_room(), Ordering::Relaxed);
            } else {
                self.progress.take_safe_end();
            }
        }
    }

    /// What came while the last sync took its time.
    fn batch(&mut self, first: Submission) -> Vec<Submission> {
        let bytes_of = |submission: &Submission| {
            submission.frames.iter().map(|frame| frame.bytes().len()).sum::<usize>()
        };
        let mut bytes = bytes_of(&first);
        let mut batch = vec![first];
        while batch.len() < BATCH_REQUESTS_MAX && bytes < BATCH_BYTES_MAX {
            let Ok(next) = self.submissions.try_recv() else { break };
            bytes += bytes_of(&next);
            batch.push(next);
        }
        batch
    }

    fn commit(&mut self, batch: Vec<Submission>) {
        match &mut self.store {
            Store::Memory { .. } => batch.into_iter().for_each(|one| self.hand_on_unwritten(one)),
            Store::Spool(spool) => {
                let mut written = Written::default();
                let outcome = written.write(spool, batch);
                if let Err(error) = outcome {
                    spool.abandon();
                    self.counters.unwritten.add(written.answers() as u64);
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "requests could not be written to the spool and are refused; Firehose sends them again"
                    );
                    written.refuse();
                    return;
                }
                written.new.iter().for_each(|(one, _)| spool.remember(one.request_hash));
                self.hand_on(written);
            }
        }
    }

    fn hand_on(&mut self, written: Written) {
        for (Submission { frames, reservation, answer, .. }, ends) in written.new {
            let frames = frames.into_iter().zip(ends).collect();
            let outgoing = Outgoing { frames, reservation, answer: None };
            // If nobody reads any more, the spool is read in the next run.
            let _is_read = self.outgoing.blocking_send(outgoing).is_ok();
            tell(answer, Ok(Taken::New));
        }
        written.repeated.into_iter().for_each(|answer| tell(answer, Ok(Taken::Repeated)));
    }

    fn hand_on_unwritten(&mut self, submission: Submission) {
        let Store::Memory { known, end } = &mut self.store else {
            unreachable!("what has a spool is written")
        };
        let Submission { request_hash, frames, reservation, answer } = submission;
        if !known.insert(request_hash) {
            return tell(answer, Ok(Taken::Repeated));
        }
        let with_end = |frame: Frame| {
            *end += frame.bytes().len() as u64;
            (frame, *end)
        };
        let frames = frames.into_iter().map(with_end).collect();
        let outgoing = Outgoing { frames, reservation, answer: Some(answer) };
        // Who waits for the answer sees that it is gone.
        let _is_read = self.outgoing.blocking_send(outgoing).is_ok();
    }
}

/// Who waits may be gone: then nobody is told.
pub(super) fn tell(answer: Answer, outcome: Result<Taken, Refusal>) {
    let _is_heard = answer.send(outcome).is_ok();
}

/// A batch on its way to the disk.
#[derive(Default)]
struct Written {
    new: Vec<(Submission, Vec<u64>)>,
    repeated: Vec<Answer>,
    /// Not written, because what came before could not be.
    left: Vec<Answer>,
}

impl Written {
    /// Writes and syncs all that is new, as far as there is room.
    fn write(&mut self, spool: &mut Spool, batch: Vec<Submission>) -> Result<(), SpoolError> {
        let mut in_batch = HashSet::new();
        let mut failure = None;
        for submission in batch {
            let hash = submission.request_hash;
            if failure.is_some() {
                self.left.push(submission.answer);
            } else if spool.knows(hash) || !in_batch.insert(hash) {
                self.repeated.push(submission.answer);
            } else if !spool.has_room() {
                in_batch.remove(&hash);
                tell(submission.answer, Err(Refusal::SpoolFull));
            } else {
                match spool.write(&submission.frames) {
                    Ok(ends) => self.new.push((submission, ends)),
                    Err(error) => {
                        failure = Some(error);
                        self.left.push(submission.answer);
                    }
                }
            }
        }
        failure.map_or_else(|| spool.sync(), Err)
    }

    fn answers(&self) -> usize {
        self.new.len() + self.repeated.len() + self.left.len()
    }

    /// Refuses everything, also what was written before the error: a repeated one may be of this batch.
    fn refuse(self) {
        let new = self.new.into_iter().map(|(submission, _)| submission.answer);
        for answer in new.chain(self.repeated).chain(self.left) {
            tell(answer, Err(Refusal::Unwritten));
        }
    }
}
