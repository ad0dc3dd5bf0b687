//! What every reader of a shard does, however its records come: hands them on once and in order, keeps
//! its place, and deals with failures.
//!
//! The position moves only when records have been handed on, and whatever is asked for again starts right
//! after it; so what fails in between comes once. How records come is in `polling` and `subscription`.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::framing::{ChunkEvent, ResumePoint, ShardPlace, SourceRecord};

use super::budget::Reservation;
use super::feed::{Feed, Hangup, pieces, weight};
use super::lineage::{Shard, ShardId};
use super::pulse::Pulse;
use super::retry::{Backoff, Failure, FailureKind, jitter};
use super::sequence::SequenceNumber;
use super::settings::{Moment, StartPosition};
use super::shared::Shared;

/// Least time between two notices that a shard is alive but silent.
const IDLE_NOTICE_INTERVAL: Duration = Duration::from_secs(1);
/// How far before its own start a reader at the tip goes back when it loses its place before it saw a
/// record: clocks of this machine and of the service may differ by as much.
pub(super) const LATEST_MARGIN_MS: i64 = 10_000;
/// Refused signatures before a reader gives up: the first may only show that clocks differ, which the SDK
/// then makes up for.
pub(super) const SIGNATURE_TRIES_MAX: u32 = 3;

/// Why a reader stopped.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The shard was read to its end; the service may have named its children.
    Ended(Vec<Shard>),
    /// The service does not know the shard any more.
    Missing(String),
    /// The service refused for good; the text says what.
    Refused(String),
    /// A stop was requested.
    Stopped,
    /// The pipeline takes no more.
    HungUp,
}

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Before anything was read.
    Start(StartPosition),
    /// After this record, or after as much of the shard as this number stands for.
    After(SequenceNumber),
}

impl Position {
    /// Where a shard is read from, by where it was or is to be begun.
    pub(super) fn of(point: &ResumePoint) -> Self {
        match point.position.as_shard() {
            Some(ShardPlace::After(number)) => Self::After(SequenceNumber(Arc::clone(number))),
            Some(ShardPlace::Moment(unix_ms)) => {
                Self::Start(StartPosition::AtTimestamp(Moment { unix_ms: *unix_ms }))
            }
            Some(ShardPlace::Oldest) | None => Self::Start(StartPosition::TrimHorizon),
        }
    }

    /// In the words of the service: type, sequence number, moment.
    pub(super) fn in_request(&self) -> (ShardIteratorType, Option<&str>, Option<DateTime>) {
        match self {
            Self::Start(StartPosition::TrimHorizon) => (ShardIteratorType::TrimHorizon, None, None),
            Self::Start(StartPosition::Latest) => (ShardIteratorType::Latest, None, None),
            Self::Start(StartPosition::AtTimestamp(moment)) => {
                let moment = DateTime::from_millis(moment.unix_ms);
                (ShardIteratorType::AtTimestamp, None, Some(moment))
            }
            Self::After(number) => (ShardIteratorType::AfterSequenceNumber, Some(&*number.0), None),
        }
    }
}

/// What interrupts reading; the reader's outcome follows from it.
#[derive(Debug)]
pub(super) enum Break {
    /// A stop was requested.
    Stopped,
    /// The pipeline takes no more.
    HungUp,
    /// The service does not know the shard.
    Missing(String),
    /// The service refused for good.
    Refused(String),
}

impl From<Hangup> for Break {
    fn from(_: Hangup) -> Self {
        Self::HungUp
    }
}

impl From<Result<Vec<Shard>, Break>> for Outcome {
    fn from(read: Result<Vec<Shard>, Break>) -> Self {
        match read {
            Ok(children) => Self::Ended(children),
            Err(Break::Stopped) => Self::Stopped,
            Err(Break::HungUp) => Self::HungUp,
            Err(Break::Missing(message)) => Self::Missing(message),
            Err(Break::Refused(message)) => Self::Refused(message),
        }
    }
}

/// A reader of one shard, as far as it does not matter how records come.
pub(super) struct Reader {
    pub(super) shared: Arc<Shared>,
    pub(super) shard: Shard,
    pub(super) pulse: Arc<Pulse>,
    pub(super) position: Position,
    pub(super) backoff: Backoff,
    feed: Feed,
    stop: watch::Receiver<bool>,
    /// The last record that was handed on. It stays when the position falls back to the oldest
    /// record, so that nothing is handed on twice.
    last_read: Option<SequenceNumber>,
    last_notice: Option<Instant>,
    signatures_refused: u32,
}

/// What came in one answer or event.
pub(super) struct Arrived {
    pub(super) records: Vec<SourceRecord>,
    /// How far the last of them is from the tip of the shard.
    pub(super) behind_ms: u64,
}

impl Reader {
    /// A reader of a shard whose input has been opened; it goes on after what `feed` has sent, else it
    /// begins at `position`.
    pub(super) fn new(
        shared: Arc<Shared>,
        shard: Shard,
        position: Position,
        feed: Feed,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let position = feed.last().map_or(position, Position::After);
        let last_read = match &position {
            Position::After(number) => Some(number.clone()),
            Position::Start(_) => None,
        };
        let pulse = Arc::new(Pulse::new());
        shared.counters.watch(&shard.id, &pulse);
        Self {
            shared,
            shard,
            pulse,
            position,
            backoff: Backoff::default(),
            feed,
            stop,
            last_read,
            last_notice: None,
            signatures_refused: 0,
        }
    }

    /// The range that the aggregates of a record have to lie in. An aggregate lies outside its shard when
    /// the stream was resharded while it was made; its producer sees that and puts it again. In a shard
    /// without parents that can't have happened, and dropping what some other producer aggregated its own
    /// way would lose it.
    pub(super) fn hash_key_range(&self) -> Option<(u128, u128)> {
        let is_child = !self.shard.parents.is_empty();
        self.shard.hash_key_range.filter(|_| is_child)
    }

    /// Hands on what came, however long that takes: a stop does not cut it. `reservation` holds at least
    /// the weight of the records.
    pub(super) async fn hand_on(
        &mut self,
        arrived: Arrived,
        mut reservation: Reservation,
    ) -> Result<(), Break> {
        self.backoff.reset();
        self.signatures_refused = 0;
        self.pulse.answered(arrived.behind_ms);
        self.shared.counters.answers.add(1);
        let is_empty = arrived.records.is_empty();
        for piece in pieces(self.not_yet_read(arrived.records)) {
            let last = piece.last().expect("pieces are not empty");
            let last = SequenceNumber(Arc::clone(&last.sequence_number));
            let piece_records = piece.len() as u64;
            let piece_bytes = piece.iter().map(|record| record.data.len() as u64).sum();
            let part = reservation.split(piece.iter().map(weight).sum());
            let held_back = self.pulse.hold_back();
            self.feed.put(piece, part).await?;
            drop(held_back);
            self.shared.counters.records.add(piece_records);
            self.shared.counters.bytes.add(piece_bytes);
            self.position = Position::After(last.clone());
            self.last_read = Some(last);
        }
        if is_empty {
            self.notice_idle().await?;
        }
        Ok(())
    }

    /// Leaves out what was handed on before. Records of a shard come in order, so that normally one
    /// comparison says that all of them are new.
    fn not_yet_read(&self, mut records: Vec<SourceRecord>) -> Vec<SourceRecord> {
        if let Some(last_read) = &self.last_read {
            let repeated = records
                .iter()
                .take_while(|record| {
                    SequenceNumber(Arc::clone(&record.sequence_number)) <= *last_read
                })
                .count();
            records.drain(..repeated);
        }
        records
    }

    async fn notice_idle(&mut self) -> Result<(), Break> {
        let now = Instant::now();
        if self.last_notice.is_none_or(|last| now - last >= IDLE_NOTICE_INTERVAL) {
            self.last_notice = Some(now);
            let _held_back = self.pulse.hold_back();
            self.feed.tell(ChunkEvent::Idle).await?;
        }
        Ok(())
    }

    /// Asked again, LATEST would skip what arrives in between: once it was asked for, the place is a moment
    /// before that.
    pub(super) fn pin_latest(&mut self, asked_at_ms: i64) {
        if self.position == Position::Start(StartPosition::Latest) {
            let unix_ms = asked_at_ms.saturating_sub(LATEST_MARGIN_MS);
            self.position = Position::Start(StartPosition::AtTimestamp(Moment { unix_ms }));
        }
    }

    /// A sequence number is refused when the stream has already deleted its record: what comes after
    /// it may be lost, and the oldest record there is comes next.
    pub(super) fn refused_position(&mut self, failure: &Failure) -> Result<(), Break> {
        match &self.position {
            Position::After(sequence) => {
                self.shared.counters.losses.add(1);
                tracing::error!(
                    source = &*self.shared.source_name,
                    shard = &*self.shard.id,
                    sequence_number = &*sequence.0,
                    error = failure.message,
                    "records were lost: the stream no longer holds the position of the reader; \
                     reading goes on at its oldest record"
                );
                self.position = Position::Start(StartPosition::TrimHorizon);
                Ok(())
            }
            Position::Start(_) => Err(Break::Refused(format!(
                "the start position was refused for {}: {}; check `start`",
                self.shard.id, failure.message
            ))),
        }
    }

    /// Counts a failure of a call that is to be made again, and waits as long as it asks for. `actions`
    /// are what has to be allowed if it is denied.
    pub(super) async fn recover(&mut self, failure: Failure, actions: &str) -> Result<(), Break> {
        let counters = &self.shared.counters;
        match failure.kind {
            FailureKind::NotFound => return Err(Break::Missing(failure.message)),
            // Permissions that were there and are gone may come back; those that never were don't.
            FailureKind::Denied if counters.answers.get() == 0 => {
                return Err(Break::Refused(denied(&failure, actions)));
            }
            FailureKind::Signature => {
                self.signatures_refused += 1;
                let is_final = self.signatures_refused >= SIGNATURE_TRIES_MAX;
                if is_final && counters.answers.get() == 0 {
                    return Err(Break::Refused(denied(&failure, actions)));
                }
                counters.denied.add(1);
            }
            FailureKind::Throttled => counters.throttled.add(1),
            FailureKind::Denied | FailureKind::Key => counters.denied.add(1),
            FailureKind::InUse => counters.subscriptions_in_use.add(1),
            FailureKind::IteratorExpired | FailureKind::Argument => {
                counters.iterators_replaced.add(1);
            }
            FailureKind::PageExpired | FailureKind::Transient => counters.retried.add(1),
        }
        let delay = self.backoff.delay(failure.kind, jitter());
        self.shared.trouble.note(failure.message);
        tracing::debug!(
            source = &*self.shared.source_name,
            shard = &*self.shard.id,
            kind = ?failure.kind,
            failures_in_a_row = self.backoff.failures_in_a_row(),
            delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "a call failed and is made again"
        );
        self.unless_stopped(sleep(delay)).await
    }

    /// Does the work, or gives it up when a stop is requested.
    pub(super) async fn unless_stopped<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, Break> {
        tokio::select! {
            biased;
            // An error means that the supervisor is gone, which is a stop as well.
            _ = self.stop.wait_for(|stop| *stop) => Err(Break::Stopped),
            done = work => Ok(done),
        }
    }

    /// Its shard.
    pub(super) fn id(&self) -> &ShardId {
        &self.shard.id
    }
}

fn denied(failure: &Failure, actions: &str) -> String {
    format!("{}; check the credentials, and allow {actions}", failure.message)
}
