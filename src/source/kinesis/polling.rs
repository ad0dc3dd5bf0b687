//! A shard's reader that asks: from an iterator, answer by answer, to the shard's end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::answer::{self, Answer};
use super::feed::weight;
use super::lineage::Shard;
use super::pacing::{self, Pace};
use super::reader::{Arrived, Break, Reader};
use super::retry::{Failure, FailureKind, jitter};

/// What has to be allowed for a reader that asks.
const ACTIONS: &str = "`kinesis:GetShardIterator` and `kinesis:GetRecords` on the stream";

/// A reader by GetRecords.
pub(super) struct PollingReader {
    reader: Reader,
    pace: Pace,
    /// Iterators refused since the last answer.
    iterators_refused: u32,
    next_call: Instant,
    last_call: Instant,
}

impl PollingReader {
    /// Asks at the pace of the settings.
    pub(super) fn new(reader: Reader) -> Self {
        let pace = Pace::new(reader.shared.settings.poll_interval);
        let now = Instant::now();
        Self { reader, pace, iterators_refused: 0, next_call: now, last_call: now }
    }

    /// Reads until the shard ends, or nothing more can be done: then the children that the service named
    /// at its end.
    pub(super) async fn read(mut self) -> Result<Vec<Shard>, Break> {
        let mut iterator = None;
        loop {
            let current = match iterator.take() {
                Some(current) => current,
                None => self.new_iterator().await?,
            };
            let next_call = self.next_call;
            self.reader.unless_stopped(sleep_until(next_call)).await?;
            let reserve_bytes = self.pace.reserve_bytes(self.last_call.elapsed());
            let budget = Arc::clone(&self.reader.shared.budget);
            let pulse = Arc::clone(&self.reader.pulse);
            let held_back = pulse.hold_back();
            let mut reservation = self.reader.unless_stopped(budget.reserve(reserve_bytes)).await?;
            drop(held_back);
            match self.get_records(&current).await? {
                Ok(answer) => {
                    iterator = answer.next_shard_iterator;
                    self.iterators_refused = 0;
                    self.set_pace(answer.bytes, answer.behind_ms, answer.records.is_empty());
                    reservation.settle(answer.records.iter().map(weight).sum());
                    let arrived = Arrived { records: answer.records, behind_ms: answer.behind_ms };
                    self.reader.hand_on(arrived, reservation).await?;
                    if iterator.is_none() {
                        return Ok(answer.child_shards);
                    }
                }
                Err(failure) => {
                    drop(reservation);
                    iterator = self.recover(failure, current).await?;
                }
            }
        }
    }

    fn set_pace(&mut self, bytes: u64, behind_ms: u64, empty: bool) {
        let idle_max = pacing::idle_interval_max(self.reader.shared.counters.shard_count());
        let answer = pacing::Answer { bytes, behind_ms, empty };
        self.next_call = self.last_call + self.pace.after(answer, idle_max, jitter());
    }

    async fn get_records(&mut self, iterator: &str) -> Result<Result<Answer, Failure>, Break> {
        let shared = Arc::clone(&self.reader.shared);
        let range = self.reader.hash_key_range();
        let call = async {
            let _slot = shared.calls.acquire().await.expect("the semaphore is never closed");
            let started = Instant::now();
            let request = shared
                .clients
                .polling()
                .get_records()
                .shard_iterator(iterator)
                .limit(i32::from(shared.settings.records_per_call_max))
                .set_stream_arn(shared.settings.stream.request_arn());
            (started, answer::get_records(request, range).await)
        };
        let (started, answer) = self.reader.unless_stopped(call).await?;
        self.last_call = started;
        self.next_call = started + self.reader.shared.settings.poll_interval;
        Ok(answer)
    }

    async fn new_iterator(&mut self) -> Result<String, Break> {
        loop {
            let asked_at_ms = self.reader.shared.clock.now().0.saturating_mul(1000);
            match self.get_shard_iterator().await? {
                Ok(iterator) => {
                    self.reader.pin_latest(asked_at_ms);
                    return Ok(iterator);
                }
                Err(failure) if failure.kind == FailureKind::Argument => {
                    self.reader.refused_position(&failure)?;
                }
                Err(failure) => self.reader.recover(failure, ACTIONS).await?,
            }
        }
    }

    async fn get_shard_iterator(&mut self) -> Result<Result<String, Failure>, Break> {
        let shared = Arc::clone(&self.reader.shared);
        let stream = &shared.settings.stream;
        let (iterator_type, number, moment) = self.reader.position.in_request();
        let request = shared
            .clients
            .polling()
            .get_shard_iterator()
            .set_stream_name(stream.request_name())
            .set_stream_arn(stream.request_arn())
            .shard_id(&**self.reader.id())
            .shard_iterator_type(iterator_type)
            .set_starting_sequence_number(number.map(str::to_owned))
            .set_timestamp(moment);
        let call = async {
            let _slot = shared.calls.acquire().await.expect("the semaphore is never closed");
            request.send().await.map_err(Failure::from)
        };
        let answer = self.reader.unless_stopped(call).await?;
        Ok(answer.and_then(|answer| {
            answer.shard_iterator.ok_or_else(|| Failure {
                kind: FailureKind::Transient,
                message: "an answer to GetShardIterator without an iterator".to_owned(),
            })
        }))
    }

    /// Deals with a failed read; the iterator, if it is still good.
    async fn recover(
        &mut self,
        failure: Failure,
        iterator: String,
    ) -> Result<Option<String>, Break> {
        let is_refused =
            matches!(failure.kind, FailureKind::IteratorExpired | FailureKind::Argument);
        if is_refused {
            self.iterators_refused += 1;
            if self.iterators_refused == 1 {
                // The first is what a long wait downstream leads to. It must not wait again.
                self.reader.shared.counters.iterators_replaced.add(1);
                return Ok(None);
            }
        }
        if failure.kind == FailureKind::Throttled {
            self.pace.throttled();
        }
        self.reader.recover(failure, ACTIONS).await?;
        Ok((!is_refused).then_some(iterator))
    }
}

/// How long a call may take from its start to the end of its answer.
pub(super) const CALL_TIME_MAX: Duration = Duration::from_secs(30);
