//! One shard's reader: from an iterator, answer by answer, to the shard's end.
//!
//! The position moves only when records have been handed on, and every new iterator starts right
//! after it; whatever fails in between is asked for again and comes once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::ShardIteratorType;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::framing::{ChunkEvent, ShardPlace, SourceRecord};

use super::budget::Reservation;
use super::discovery;
use super::feed::{Feed, Hangup, pieces, source_record, weight};
use super::lineage::{Begin, Shard, ShardId};
use super::pacing::{Answer, Pace};
use super::retry::{Backoff, Failure, FailureKind, jitter};
use super::sequence::SequenceNumber;
use super::settings::{Moment, StartPosition};
use super::supervisor::Shared;

/// Least time between two notices that a shard is alive but silent.
const IDLE_NOTICE_INTERVAL: Duration = Duration::from_secs(1);
/// How far before its own start a reader at the tip goes back when its first iterator is lost
/// before it saw a record: clocks of this machine and of the service may differ by as much.
pub(super) const LATEST_MARGIN_MS: i64 = 10_000;

/// Why a reader stopped, with everything that goes on without it.
#[derive(Debug)]
pub(super) struct ReaderEnd {
    /// The shard.
    pub(super) id: ShardId,
    /// Where the input's close event is sent.
    pub(super) feed: Feed,
    /// Why.
    pub(super) outcome: Outcome,
}

/// Why a reader stopped.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The shard was read to its end; the service may have named its children.
    Ended(Vec<Shard>),
    /// The service does not know the shard any more.
    Gone(String),
    /// The service refused for good; the text says what.
    Refused(String),
    /// A stop was requested.
    Stopped,
    /// The pipeline takes no more.
    HungUp,
}

/// Where to go on.
#[derive(Clone, Debug)]
enum Position {
    /// Before anything was read.
    Start(StartPosition),
    /// After this record.
    After(SequenceNumber),
}

/// A reader of one shard.
pub(super) struct ShardReader {
    shared: Arc<Shared>,
    shard: Shard,
    feed: Feed,
    stop: watch::Receiver<bool>,
    position: Position,
    /// The last record that was handed on. It stays when the position falls back to the oldest
    /// record, so that nothing is handed on twice.
    last_read: Option<SequenceNumber>,
    pace: Pace,
    backoff: Backoff,
    /// Iterators refused since the last answer.
    iterators_refused: u32,
    next_call: Instant,
    last_call: Instant,
    last_notice: Option<Instant>,
}

/// What interrupts reading; the reader's outcome follows from it.
enum Break {
    Stopped,
    HungUp,
    Gone(String),
    Refused(String),
}

impl From<Hangup> for Break {
    fn from(_: Hangup) -> Self {
        Self::HungUp
    }
}

impl ShardReader {
    /// A reader for a shard whose input has been opened.
    pub(super) fn new(
        shared: Arc<Shared>,
        shard: Shard,
        begin: Begin,
        feed: Feed,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let position = match begin {
            Begin::Configured => Position::Start(shared.settings.start),
            Begin::FirstRecord => Position::Start(StartPosition::TrimHorizon),
            Begin::Resumed(point) => match point.position.as_shard() {
                Some(ShardPlace::After(number)) => {
                    Position::After(SequenceNumber(Arc::clone(number)))
                }
                Some(ShardPlace::Moment(unix_ms)) => {
                    let moment = Moment { unix_ms: *unix_ms };
                    Position::Start(StartPosition::AtTimestamp(moment))
                }
                Some(ShardPlace::Oldest) | None => Position::Start(StartPosition::TrimHorizon),
            },
        };
        let last_read = match &position {
            Position::After(number) => Some(number.clone()),
            Position::Start(_) => None,
        };
        let pace = Pace::new(shared.settings.poll_interval);
        let now = Instant::now();
        Self {
            shared,
            shard,
            feed,
            stop,
            position,
            last_read,
            pace,
            backoff: Backoff::default(),
            iterators_refused: 0,
            next_call: now,
            last_call: now,
            last_notice: None,
        }
    }

    /// Reads until the shard ends, a stop is requested or nothing more can be done.
    pub(super) async fn run(mut self) -> ReaderEnd {
        let outcome = match self.read().await {
            Ok(children) => Outcome::Ended(children),
            Err(Break::Stopped) => Outcome::Stopped,
            Err(Break::HungUp) => Outcome::HungUp,
            Err(Break::Gone(message)) => Outcome::Gone(message),
            Err(Break::Refused(message)) => Outcome::Refused(message),
        };
        ReaderEnd { id: self.shard.id, feed: self.feed, outcome }
    }

    /// The children that the service named at the shard's end.
    async fn read(&mut self) -> Result<Vec<Shard>, Break> {
        let mut iterator = None;
        loop {
            let current = match iterator.take() {
                Some(current) => current,
                None => self.new_iterator().await?,
            };
            let next_call = self.next_call;
            self.unless_stopped(sleep_until(next_call)).await?;
            let reserve_bytes = self.pace.reserve_bytes(self.last_call.elapsed());
            let budget = Arc::clone(&self.shared.budget);
            let reservation = self.unless_stopped(budget.reserve(reserve_bytes)).await?;
            match self.get_records(&current).await? {
                Ok(answer) => {
                    let at_end = answer.next_shard_iterator.is_none();
                    iterator.clone_from(&answer.next_shard_iterator);
                    let children = answer.child_shards.clone().unwrap_or_default();
                    self.take(answer, reservation).await?;
                    if at_end {
                        return Ok(children.into_iter().map(discovery::child).collect());
                    }
                }
                Err(failure) => {
                    drop(reservation);
                    if self.recover(failure).await? == AfterFailure::SameIterator {
                        iterator = Some(current);
                    }
                }
            }
        }
    }

    async fn get_records(
        &mut self,
        iterator: &str,
    ) -> Result<Result<GetRecordsOutput, Failure>, Break> {
        let shared = Arc::clone(&self.shared);
        let call = async {
            let _slot = shared.calls.acquire().await.expect("the semaphore is never closed");
            let started = Instant::now();
            let request = shared
                .client
                .get_records()
                .shard_iterator(iterator)
                .limit(i32::from(shared.settings.records_per_call_max))
                .set_stream_arn(shared.settings.stream.request_arn());
            (started, request.send().await.map_err(Failure::from))
        };
        let (started, answer) = self.unless_stopped(call).await?;
        self.last_call = started;
        self.next_call = started + self.shared.settings.poll_interval;
        Ok(answer)
    }

    /// Hands an answer on, however long that takes: a stop does not cut it.
    async fn take(
        &mut self,
        answer: GetRecordsOutput,
        mut reservation: Reservation,
    ) -> Result<(), Break> {
        self.backoff.reset();
        self.iterators_refused = 0;
        // An aggregate lies outside its shard when the stream was resharded while it was made; its
        // producer sees that and puts it again. In a shard without parents that can't have happened,
        // and dropping what some other producer aggregated its own way would lose it.
        let is_child = !self.shard.parents.is_empty();
        let range = self.shard.hash_key_range.filter(|_| is_child);
        let records: Vec<SourceRecord> =
            answer.records.into_iter().map(|record| source_record(record, range)).collect();
        let bytes = records.iter().map(|record| record.data.len() as u64).sum();
        let behind_ms = answer.millis_behind_latest.unwrap_or(0).max(0);
        let empty = records.is_empty();
        self.next_call = self.last_call + self.pace.after(Answer { bytes, behind_ms, empty });
        reservation.settle(records.iter().map(weight).sum());

        let counters = &self.shared.counters;
        counters.answers.add(1);
        for piece in pieces(self.not_yet_read(records)) {
            let last = piece.last().expect("pieces are not empty");
            let last = SequenceNumber(Arc::clone(&last.sequence_number));
            let piece_records = piece.len() as u64;
            let piece_bytes = piece.iter().map(|record| record.data.len() as u64).sum();
            let part = reservation.split(piece.iter().map(weight).sum());
            self.feed.put(piece, part).await?;
            self.shared.counters.records.add(piece_records);
            self.shared.counters.bytes.add(piece_bytes);
            self.position = Position::After(last.clone());
            self.last_read = Some(last);
        }
        if empty {
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
            self.feed.tell(ChunkEvent::Idle).await?;
        }
        Ok(())
    }

    async fn new_iterator(&mut self) -> Result<String, Break> {
        loop {
            let asked_at_ms = self.shared.clock.now().0.saturating_mul(1000);
            match self.get_shard_iterator().await? {
                Ok(iterator) => {
                    if let Position::Start(StartPosition::Latest) = self.position {
                        // Asked again, LATEST would skip what arrives in between.
                        let unix_ms = asked_at_ms.saturating_sub(LATEST_MARGIN_MS);
                        let pinned = Moment { unix_ms };
                        self.position = Position::Start(StartPosition::AtTimestamp(pinned));
                    }
                    return Ok(iterator);
                }
                Err(failure) if failure.kind == FailureKind::Argument => {
                    self.refused_position(&failure)?;
                }
                Err(failure) => {
                    self.recover(failure).await?;
                }
            }
        }
    }

    async fn get_shard_iterator(&mut self) -> Result<Result<String, Failure>, Break> {
        let shared = Arc::clone(&self.shared);
        let stream = &shared.settings.stream;
        let request = shared
            .client
            .get_shard_iterator()
            .set_stream_name(stream.request_name())
            .set_stream_arn(stream.request_arn())
            .shard_id(&*self.shard.id);
        let request = match &self.position {
            Position::Start(StartPosition::TrimHorizon) => {
                request.shard_iterator_type(ShardIteratorType::TrimHorizon)
            }
            Position::Start(StartPosition::Latest) => {
                request.shard_iterator_type(ShardIteratorType::Latest)
            }
            Position::Start(StartPosition::AtTimestamp(moment)) => request
                .shard_iterator_type(ShardIteratorType::AtTimestamp)
                .timestamp(DateTime::from_millis(moment.unix_ms)),
            Position::After(sequence) => request
                .shard_iterator_type(ShardIteratorType::AfterSequenceNumber)
                .starting_sequence_number(&*sequence.0),
        };
        let call = async {
            let _slot = shared.calls.acquire().await.expect("the semaphore is never closed");
            request.send().await.map_err(Failure::from)
        };
        let answer = self.unless_stopped(call).await?;
        Ok(answer.and_then(|answer| {
            answer.shard_iterator.ok_or_else(|| Failure {
                kind: FailureKind::Transient,
                message: "an answer to GetShardIterator without an iterator".to_owned(),
            })
        }))
    }

    /// A sequence number is refused when the stream has already deleted its record: what comes after
    /// it may be lost, and the oldest record there is comes next.
    fn refused_position(&mut self, failure: &Failure) -> Result<(), Break> {
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

    /// Counts a failure, waits as long as it asks for, and says what to do next.
    async fn recover(&mut self, failure: Failure) -> Result<AfterFailure, Break> {
        let counters = &self.shared.counters;
        let after = match failure.kind {
            FailureKind::NotFound => return Err(Break::Gone(failure.message)),
            // Permissions that were there and are gone may come back; those that never were don't.
            FailureKind::Denied if counters.answers.get() == 0 => {
                return Err(Break::Refused(format!(
                    "{}; allow `kinesis:GetShardIterator` and `kinesis:GetRecords` on the stream",
                    failure.message
                )));
            }
            FailureKind::IteratorExpired | FailureKind::Argument => {
                counters.iterators_replaced.add(1);
                self.iterators_refused += 1;
                if self.iterators_refused == 1 {
                    // The first is what a long wait downstream leads to. It must not wait again.
                    return Ok(AfterFailure::NewIterator);
                }
                AfterFailure::NewIterator
            }
            FailureKind::Throttled => {
                counters.throttled.add(1);
                AfterFailure::SameIterator
            }
            FailureKind::Denied | FailureKind::Key => {
                counters.denied.add(1);
                AfterFailure::SameIterator
            }
            FailureKind::PageExpired | FailureKind::Transient => {
                counters.retried.add(1);
                AfterFailure::SameIterator
            }
        };
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
        self.unless_stopped(sleep(delay)).await?;
        Ok(after)
    }

    async fn unless_stopped<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Break> {
        tokio::select! {
            biased;
            // An error means that the supervisor is gone, which is a stop as well.
            _ = self.stop.wait_for(|stop| *stop) => Err(Break::Stopped),
            done = work => Ok(done),
        }
    }
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterFailure {
    SameIterator,
    NewIterator,
}
