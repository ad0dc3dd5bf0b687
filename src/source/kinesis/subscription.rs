//! A shard's reader to which records are pushed: enhanced fan-out, subscription after subscription.
//!
//! A subscription lasts five minutes at most. The next begins after the last event's continuation number,
//! which moves on even where no records are, and what it repeats is left out. While the byte budget is
//! used up nobody looks into the connection: its window fills, and the service waits.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::types::StartingPosition;
use tokio::time::{Instant, sleep_until, timeout};

use super::clients::StreamSlot;
use super::events::{self, Event, Events};
use super::feed::weight;
use super::lineage::Shard;
use super::reader::{Arrived, Break, Position, Reader};
use super::retry::{Failure, FailureKind};
use super::sequence::SequenceNumber;

/// What has to be allowed for a reader of a consumer.
const ACTIONS: &str = "`kinesis:SubscribeToShard` on the consumer's ARN (`…/consumer/*`)";
/// Least time between two calls for one shard.
const CALL_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Least time from one subscription to the next: the service refuses a younger one.
const SUBSCRIPTION_INTERVAL_MIN: Duration = Duration::from_millis(5_100);

/// A reader by SubscribeToShard.
pub(super) struct SubscribedReader {
    reader: Reader,
    consumer_arn: Arc<str>,
    silent_after: Duration,
    next_call: Instant,
}

/// How a subscription came to its end.
enum End {
    /// The shard has no more.
    Shard(Vec<Shard>),
    /// The service ended it, as it does after five minutes.
    Expired,
    /// It brought nothing for too long.
    Silent,
    Failed(Failure),
}

impl SubscribedReader {
    /// A reader for a registered consumer.
    pub(super) fn new(reader: Reader, consumer_arn: Arc<str>, silent_after: Duration) -> Self {
        Self { reader, consumer_arn, silent_after, next_call: Instant::now() }
    }

    /// Reads until the shard ends, or nothing more can be done: then the children that the service named
    /// at its end.
    pub(super) async fn read(mut self) -> Result<Vec<Shard>, Break> {
        loop {
            let next_call = self.next_call;
            self.reader.unless_stopped(sleep_until(next_call)).await?;
            // One connection carries so many streams and no more; the place in it is kept meanwhile.
            let slot = self.reader.shared.clients.stream();
            let subscribed = self.subscribe(&slot).await?;
            let end = match subscribed {
                Ok(events) => self.follow(events).await?,
                Err(failure) => End::Failed(failure),
            };
            drop(slot);
            match end {
                End::Shard(children) => return Ok(children),
                End::Expired => {}
                End::Silent => {
                    self.reader.shared.counters.subscriptions_broken.add(1);
                    self.reader.shared.trouble.note(format!(
                        "a subscription brought nothing for {} seconds",
                        self.silent_after.as_secs()
                    ));
                }
                End::Failed(failure) if failure.kind == FailureKind::Argument => {
                    self.reader.refused_position(&failure)?;
                }
                End::Failed(failure) => self.reader.recover(failure, ACTIONS).await?,
            }
        }
    }

    async fn subscribe(&mut self, slot: &StreamSlot) -> Result<Result<Events, Failure>, Break> {
        let shared = Arc::clone(&self.reader.shared);
        let asked_at_ms = shared.clock.now().0.saturating_mul(1000);
        let (starting_type, number, moment) = self.reader.position.in_request();
        let position = StartingPosition::builder()
            .r#type(starting_type)
            .set_sequence_number(number.map(str::to_owned))
            .set_timestamp(moment)
            .build()
            .expect("the type is set");
        let request = slot
            .client()
            .subscribe_to_shard()
            .consumer_arn(&*self.consumer_arn)
            .shard_id(&**self.reader.id())
            .starting_position(position);
        let call = async {
            let _slot = shared.calls.acquire().await.expect("the semaphore is never closed");
            let started = Instant::now();
            (started, events::subscribe(request).await)
        };
        let (started, answer) = self.reader.unless_stopped(call).await?;
        let interval = if answer.is_ok() { SUBSCRIPTION_INTERVAL_MIN } else { CALL_INTERVAL_MIN };
        self.next_call = started + interval;
        if answer.is_ok() {
            shared.counters.subscriptions.add(1);
            self.reader.pin_latest(asked_at_ms);
        }
        Ok(answer)
    }

    /// Hands on what a subscription brings, to its end.
    async fn follow(&mut self, mut events: Events) -> Result<End, Break> {
        loop {
            let event = match self.next_event(&mut events).await? {
                Ok(event) => event,
                Err(end) => {
                    if let End::Failed(_) = end {
                        self.reader.shared.counters.subscriptions_broken.add(1);
                    }
                    return Ok(end);
                }
            };
            let Event { answer, continuation } = event;
            let weight = answer.records.iter().map(weight).sum();
            let reservation = self.reader.shared.budget.charge(weight);
            let arrived = Arrived { records: answer.records, behind_ms: answer.behind_ms };
            self.reader.hand_on(arrived, reservation).await?;
            let Some(continuation) = continuation else {
                return Ok(End::Shard(answer.child_shards));
            };
            self.reader.position = Position::After(SequenceNumber(continuation.into()));
        }
    }

    /// The next event, as soon as the budget lets it in.
    async fn next_event(&mut self, events: &mut Events) -> Result<Result<Event, End>, Break> {
        let budget = Arc::clone(&self.reader.shared.budget);
        let pulse = Arc::clone(&self.reader.pulse);
        let mut next = std::pin::pin!(events.next(self.reader.hash_key_range()));
        loop {
            if !budget.is_open() {
                let _held_back = pulse.hold_back();
                self.reader.unless_stopped(budget.opened()).await?;
            }
            let looked = timeout(self.silent_after, budget.while_open(next.as_mut()));
            return Ok(match self.reader.unless_stopped(looked).await? {
                Ok(None) => continue,
                Ok(Some(Ok(Some(event)))) => Ok(event),
                Ok(Some(Ok(None))) => Err(End::Expired),
                Ok(Some(Err(failure))) => Err(End::Failed(failure)),
                Err(_) => Err(End::Silent),
            });
        }
    }
}
