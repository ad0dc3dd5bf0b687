//! Reads objects a few at a time, each once, and tells when their records are safe.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use tokio::task::JoinSet;

use super::failure::Failure;
use super::feed::Feed;
use super::object::{ReadEnd, S3Object};
use super::{Desk, Fatal};
use crate::recent::{RecentHashes, name_hash};
use crate::source::Receipt;

/// Names of objects that were read and are remembered, as many as the engine remembers over runs: an object that is
/// told of again after so many others would be read again. About 50 bytes each.
pub(super) const REMEMBERED_MAX: usize = 1 << 20;

/// The readers of a source.
pub(super) struct Readers {
    desk: Arc<Desk>,
    waiting: VecDeque<(Arc<str>, S3Object)>,
    /// Objects that wait, are read, or are not safe yet.
    under_way: HashSet<Arc<str>>,
    done: RecentHashes,
    reading_count: usize,
    tasks: JoinSet<Step>,
}

/// Where an object stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// All of it is safe, in this run or an earlier one.
    Safe,
    /// It was told of before, and is not safe yet.
    UnderWay,
    /// It will be read.
    New,
}

/// What became of an object.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its records are safe.
    Safe,
    /// Nothing of it could be had.
    Unavailable(Failure),
    /// The run is to stop.
    Stopped,
}

enum Step {
    Read(Arc<str>, ReadEnd, Option<Receipt>),
    Safe(Arc<str>),
}

impl Readers {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self {
            desk,
            waiting: VecDeque::new(),
            under_way: HashSet::new(),
            done: RecentHashes::new(REMEMBERED_MAX),
            reading_count: 0,
            tasks: JoinSet::new(),
        }
    }

    /// Takes an object to be read, unless it was.
    pub(super) fn add(&mut self, object: S3Object) -> Standing {
        let name = object.name();
        if self.desk.positions.is_finished(&name) || self.done.contains(name_hash(name.as_bytes()))
        {
            self.desk.counters.repeated.add(1);
            return Standing::Safe;
        }
        if !self.under_way.insert(Arc::clone(&name)) {
            self.desk.counters.repeated.add(1);
            return Standing::UnderWay;
        }
        self.waiting.push_back((name, object));
        self.start();
        Standing::New
    }

    /// How many objects wait to be read.
    pub(super) fn waiting_count(&self) -> usize {
        self.waiting.len()
    }

    /// Whether no object waits, is read, or waits to be safe.
    pub(super) fn is_idle(&self) -> bool {
        self.tasks.is_empty() && self.waiting.is_empty()
    }

    /// How many objects are read at this moment.
    pub(super) const fn reading_count(&self) -> usize {
        self.reading_count
    }

    /// Starts no more readers.
    pub(super) fn give_up_waiting(&mut self) {
        self.waiting.clear();
    }

    /// The next object of which something is known; waits for ever if there is none. May be dropped while it waits.
    pub(super) async fn next(&mut self) -> Result<(Arc<str>, Outcome), Fatal> {
        loop {
            if let Some(end) = self.step().await? {
                return Ok(end);
            }
        }
    }

    /// As [`Self::next`], but gives `None` also when an object is read that is not safe yet.
    pub(super) async fn step(&mut self) -> Result<Option<(Arc<str>, Outcome)>, Fatal> {
        let Some(step) = self.tasks.join_next().await else {
            return std::future::pending().await;
        };
        self.take(step.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
    }

    fn take(&mut self, step: Step) -> Result<Option<(Arc<str>, Outcome)>, Fatal> {
        let (name, outcome) = match step {
            Step::Safe(name) => (name, Outcome::Safe),
            Step::Read(name, end, receipt) => {
                self.reading_count -= 1;
                self.start();
                match (end, receipt) {
                    (ReadEnd::Closed { event_count }, Some(receipt)) => {
                        self.desk.counters.objects.add(1);
                        self.tasks.spawn(async move {
                            receipt.at_least(event_count).await;
                            Step::Safe(name)
                        });
                        return Ok(None);
                    }
                    // Nobody says what is safe, so nothing is: who only takes a look must not delete messages.
                    (ReadEnd::Closed { .. }, None) => {
                        self.desk.counters.objects.add(1);
                        return Ok(None);
                    }
                    (ReadEnd::Unavailable(failure), _) => (name, Outcome::Unavailable(failure)),
                    (ReadEnd::Stopped, _) => (name, Outcome::Stopped),
                    (ReadEnd::HungUp, _) => return Err(Fatal::HungUp),
                }
            }
        };
        self.under_way.remove(&name);
        if matches!(outcome, Outcome::Safe) {
            self.done.insert(name_hash(name.as_bytes()));
        }
        Ok(Some((name, outcome)))
    }

    fn start(&mut self) {
        while self.reading_count < self.desk.parallel
            && let Some((name, object)) = self.waiting.pop_front()
        {
            self.reading_count += 1;
            let desk = Arc::clone(&self.desk);
            let input = desk.inputs.next();
            let receipt = desk.settled.as_ref().map(|settled| settled.watch(input));
            self.tasks.spawn(async move {
                let feed = Feed::new(input, desk.to.clone());
                let info = desk.info(&name);
                let end = desk.library.read(&object, info, feed).await;
                Step::Read(name, end, receipt)
            });
        }
    }
}
