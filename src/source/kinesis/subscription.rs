//! A shard's reader to which records are pushed: enhanced fan-out, subscription after subscription.
//!
//! A subscription lasts five minutes at most. The next begins after the last event's continuation number,
//! which moves on even where no records are, and what it repeats is left out. While the byte budget is
//! used up nobody looks into the connection: its window fills, and the service waits.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::primitives::event_stream::EventReceiver;
use aws_sdk_kinesis::types::error::SubscribeToShardEventStreamError;
use aws_sdk_kinesis::types::{
    StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use tokio::time::{Instant, sleep_until, timeout};

use crate::framing::SourceRecord;

use super::clients::StreamSlot;
use super::discovery;
use super::feed::{source_record, weight};
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

type Events = EventReceiver<SubscribeToShardEventStream, SubscribeToShardEventStreamError>;

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
        let silent_after = self.silent_after;
        let call = async {
            let _slot = shared.calls.acquire().await.expect("the semaphore is never closed");
            let started = Instant::now();
            // The SDK waits for the first frame too, beyond its own time-out.
            let answer = match timeout(silent_after, request.send()).await {
                Ok(answer) => answer.map(|answer| answer.event_stream).map_err(Failure::from),
                Err(_) => Err(Failure {
                    kind: FailureKind::Transient,
                    message: "a subscription was not answered".to_owned(),
                }),
            };
            (started, answer)
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
            let children = event.child_shards.unwrap_or_default();
            let continuation = event.continuation_sequence_number;
            let range = self.reader.hash_key_range();
            let records: Vec<SourceRecord> =
                event.records.into_iter().map(|record| source_record(record, range)).collect();
            let reservation = self.reader.shared.budget.charge(records.iter().map(weight).sum());
            let behind_ms = u64::try_from(event.millis_behind_latest).unwrap_or(0);
            self.reader.hand_on(Arrived { records, behind_ms }, reservation).await?;
            if continuation.is_empty() {
                return Ok(End::Shard(children.into_iter().map(discovery::child).collect()));
            }
            self.reader.position = Position::After(SequenceNumber(continuation.into()));
        }
    }

    /// The next event, as soon as the budget lets it in.
    async fn next_event(
        &mut self,
        events: &mut Events,
    ) -> Result<Result<SubscribeToShardEvent, End>, Break> {
        let budget = Arc::clone(&self.reader.shared.budget);
        let pulse = Arc::clone(&self.reader.pulse);
        loop {
            let mut receive = std::pin::pin!(events.recv());
            let received = loop {
                if !budget.is_open() {
                    let _held_back = pulse.hold_back();
                    self.reader.unless_stopped(budget.opened()).await?;
                }
                let looked = timeout(self.silent_after, budget.while_open(receive.as_mut()));
                match self.reader.unless_stopped(looked).await? {
                    Ok(Some(received)) => break received,
                    Ok(None) => {}
                    Err(_) => return Ok(Err(End::Silent)),
                }
            };
            return Ok(match received {
                Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => Ok(event),
                // A kind of event that this version does not know.
                Ok(Some(_)) => continue,
                Ok(None) => Err(End::Expired),
                Err(error) => Err(End::Failed(error.into())),
            });
        }
    }
}
