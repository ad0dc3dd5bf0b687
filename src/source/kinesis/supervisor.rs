//! Starts a reader for every shard when it may be read, starts it again when it fails, and closes its
//! input at the end.
//!
//! The order of events on the channel is a promise. All inputs that can be read at the start are
//! opened before any is read; children are opened before their last parent is closed, so that event
//! time always has an input that holds it back.
//!
//! A reader that panics or stands still is taken down, and another goes on after the last record that was
//! handed on. An end that the service does not vouch for (no children named, or a shard that it suddenly
//! does not know) is believed only when a listing says the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use crate::framing::{ChunkEvent, InputFault, InputInfo, ResumePoint};
use crate::source::{InputIds, StopFlag};

use super::audit::{Audit, Misfit};
use super::beginning::Beginning;
use super::consumer::{Consumer, consumer, deregister};
use super::discovery::{first_listing, list_shards, refusal};
use super::feed::{Feed, Hangup, Outgoing};
use super::lineage::{Begin, Lineage, Shard, ShardId};
use super::pacing;
use super::polling::PollingReader;
use super::pulse::Pulse;
use super::reader::{Outcome, Position, Reader};
use super::retry::{Backoff, Failure, FailureKind, jitter};
use super::sequence::SequenceNumber;
use super::settings::{ReadMode, StartPosition};
use super::shared::{STOP_CHECK_INTERVAL, Shared};
use super::subscription::SubscribedReader;
use super::trouble::TroubleLog;

/// Listings in a row that say that a shard is closed, while its subscription is at the tip and does not end,
/// until the rest is polled. The service ends it within a second.
const UNENDED_LISTINGS_MAX: u32 = 2;
/// Least time between two listings, for whatever reason.
const RELIST_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Time between two looks for readers that stand still.
const STALL_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Longest wait before a reader is started again that did not get on.
const RETAKE_DELAY_MAX: Duration = Duration::from_mins(1);
/// How long the end of a run waits for the consumer to be deregistered.
const DEREGISTER_TIME_MAX: Duration = Duration::from_secs(5);

/// Why a source as a whole ended before it was told to.
pub(super) enum Fatal {
    /// The text says what was refused and what to do.
    Refused(String),
    /// The pipeline takes no more.
    HungUp,
}

impl From<Hangup> for Fatal {
    fn from(_: Hangup) -> Self {
        Self::HungUp
    }
}

/// Something that a task of the supervisor reports.
enum Report {
    Ended(ShardId, Outcome),
    Listed(Result<Vec<Shard>, Failure>),
    ListingStopped,
}

/// A shard whose input is open.
struct Running {
    shard: Shard,
    /// Where it is read from if nothing of it was handed on.
    first: ResumePoint,
    feed: Feed,
    pulse: Arc<Pulse>,
    task: AbortHandle,
    /// Times in a row that it was started again without having got on.
    fruitless_retakes: u32,
    last_at_retake: Option<SequenceNumber>,
    /// How its reader ended, until a listing says the same.
    doubted: Option<Outcome>,
    /// Listings in a row that said that its subscription should have ended.
    unended_listings: u32,
}

/// The task that owns all others of a source.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    beginning: Beginning,
    inputs: Arc<InputIds>,
    to: mpsc::Sender<Outgoing>,
    lineage: Lineage,
    audit: Audit,
    consumer: Option<Consumer>,
    tasks: JoinSet<Report>,
    running: BTreeMap<ShardId, Running>,
    shard_of_task: HashMap<Id, ShardId>,
    stop: watch::Sender<bool>,
    listing: bool,
    next_listing: Instant,
    last_listing: Instant,
    listing_backoff: Backoff,
}

impl Supervisor {
    /// A supervisor that sends what its readers read to `to`.
    pub(super) fn new(
        shared: Arc<Shared>,
        beginning: Beginning,
        inputs: Arc<InputIds>,
        to: mpsc::Sender<Outgoing>,
    ) -> Self {
        let now = Instant::now();
        let list_interval = shared.settings.list_interval;
        Self {
            shared,
            beginning,
            inputs,
            to,
            lineage: Lineage::default(),
            audit: Audit::default(),
            consumer: None,
            tasks: JoinSet::new(),
            running: BTreeMap::new(),
            shard_of_task: HashMap::new(),
            stop: watch::Sender::new(false),
            listing: false,
            next_listing: now + list_interval,
            last_listing: now,
            listing_backoff: Backoff::default(),
        }
    }

    /// Reads the stream until `stop` is requested or nothing more can be done; then every input is
    /// closed.
    pub(super) async fn run(mut self, stop: &StopFlag) -> Result<(), Fatal> {
        let listed = first_listing(&self.shared, stop).await.map_err(Fatal::Refused)?;
        let Some(shards) = listed else { return Ok(()) };
        let settings = self.shared.settings.clone();
        if let ReadMode::FanOut(fan_out) = &settings.mode {
            let found = stop.unless_requested(consumer(&self.shared, fan_out)).await;
            let Some(found) = found else { return Ok(()) };
            self.consumer = Some(found.map_err(Fatal::Refused)?);
        }
        tracing::info!(
            source = &*self.shared.source_name,
            stream = settings.stream.stream_name(),
            shards = shards.len(),
            "reading the stream"
        );
        let gone = self.beginning.gone(&shards);
        self.beginning.adopt(shards, &mut self.lineage);
        self.last_listing = Instant::now();
        self.start_ready().await?;
        self.tell_gone(gone).await?;
        let outcome = self.watch(stop).await;
        self.stop.send_replace(true);
        if matches!(outcome, Err(Fatal::HungUp)) {
            return outcome;
        }
        self.close_all().await?;
        if let (ReadMode::FanOut(fan_out), Some(consumer), Ok(())) =
            (&settings.mode, &self.consumer, &outcome)
            && fan_out.deregister
        {
            let deregistered = timeout(DEREGISTER_TIME_MAX, deregister(&self.shared, consumer));
            if deregistered.await.is_err() {
                tracing::warn!(
                    consumer = &*consumer.arn,
                    "deregistering the consumer took too long"
                );
            }
        }
        outcome
    }

    async fn tell_gone(&mut self, gone: Vec<(Arc<str>, ResumePoint)>) -> Result<(), Fatal> {
        for (name, point) in gone {
            self.shared.counters.losses.add(1);
            tracing::error!(
                source = &*self.shared.source_name,
                input = &*name,
                position = %point.position,
                "a shard is gone before it was read to its end; its unread records are lost"
            );
            let fault = format!(
                "the stream no longer has the shard, which was read up to {} before; its unread records are lost",
                point.position
            );
            let mut info = InputInfo::new(name, self.beginning.format());
            info.resume = Some(point);
            let feed = Feed::new(self.inputs.next(), self.to.clone());
            feed.tell(ChunkEvent::Open(info)).await?;
            feed.tell(ChunkEvent::Close(Some(InputFault::Stream(fault)))).await?;
        }
        Ok(())
    }

    async fn start_ready(&mut self) -> Result<(), Fatal> {
        let mut opened = Vec::new();
        for (shard, begin) in self.lineage.take_ready() {
            let feed = Feed::new(self.inputs.next(), self.to.clone());
            let mut info =
                InputInfo::new(self.beginning.input_name(&shard.id), self.beginning.format());
            let now_ms = self.shared.clock.now().0.saturating_mul(1000);
            let first = self.beginning.first_point(&begin, now_ms);
            info.resume = Some(first.clone());
            feed.tell(ChunkEvent::Open(info)).await?;
            opened.push((shard, begin, first, feed));
        }
        for (shard, begin, first, feed) in opened {
            let position = match begin {
                Begin::Configured => Position::Start(self.shared.settings.start),
                Begin::FirstRecord => Position::Start(StartPosition::TrimHorizon),
                Begin::Resumed(point) => Position::of(&point),
            };
            let consumer = self.consumer.clone();
            let reader = self.reader(shard.clone(), position, &feed);
            let (pulse, task) = self.spawn(reader, consumer, Duration::ZERO);
            let id = Arc::clone(&shard.id);
            let running = Running {
                shard,
                first,
                feed,
                pulse,
                task,
                fruitless_retakes: 0,
                last_at_retake: None,
                doubted: None,
                unended_listings: 0,
            };
            self.running.insert(id, running);
        }
        Ok(())
    }

    fn reader(&self, shard: Shard, position: Position, feed: &Feed) -> Reader {
        let stop = self.stop.subscribe();
        Reader::new(Arc::clone(&self.shared), shard, position, feed.clone(), stop)
    }

    /// Starts a reader after a delay, by polling if it has no consumer.
    fn spawn(
        &mut self,
        mut reader: Reader,
        consumer: Option<Consumer>,
        delay: Duration,
    ) -> (Arc<Pulse>, AbortHandle) {
        let (id, pulse) = (Arc::clone(reader.id()), Arc::clone(&reader.pulse));
        let silent_after = match &self.shared.settings.mode {
            ReadMode::FanOut(fan_out) => fan_out.silent_after,
            ReadMode::Polling => Duration::ZERO,
        };
        let its_id = Arc::clone(&id);
        let task = self.tasks.spawn(async move {
            let read = match (reader.unless_stopped(sleep(delay)).await, consumer) {
                (Err(stopped), _) => Err(stopped),
                (Ok(()), None) => PollingReader::new(reader).read().await,
                (Ok(()), Some(consumer)) => {
                    SubscribedReader::new(reader, consumer.arn, silent_after).read().await
                }
            };
            Report::Ended(its_id, Outcome::from(read))
        });
        self.shard_of_task.insert(task.id(), id);
        (pulse, task)
    }

    async fn watch(&mut self, stop: &StopFlag) -> Result<(), Fatal> {
        let mut tick = interval(STOP_CHECK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut log = TroubleLog::new(Instant::now());
        let mut next_stall_check = Instant::now() + STALL_CHECK_INTERVAL;
        loop {
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    if stop.is_requested() {
                        return Ok(());
                    }
                    // Nobody may be left to send to: then nothing else would notice.
                    if self.to.is_closed() {
                        return Err(Fatal::HungUp);
                    }
                    log.write_if_due(&self.shared);
                    self.relist_if_due();
                    if Instant::now() >= next_stall_check {
                        self.take_down_stalled();
                        next_stall_check = Instant::now() + STALL_CHECK_INTERVAL;
                    }
                }
                Some(joined) = self.tasks.join_next_with_id() => match joined {
                    Ok((task, report)) => {
                        self.shard_of_task.remove(&task);
                        self.reported(report).await?;
                    }
                    Err(error) => self.failed(error),
                },
            }
        }
    }

    async fn reported(&mut self, report: Report) -> Result<(), Fatal> {
        match report {
            Report::Ended(id, outcome) => self.ended(&id, outcome).await,
            Report::Listed(listed) => self.listed(listed).await,
            Report::ListingStopped => Ok(()),
        }
    }

    /// A task panicked or was taken down.
    fn failed(&mut self, error: JoinError) {
        let Some(id) = self.shard_of_task.remove(&error.id()) else {
            std::panic::resume_unwind(error.into_panic());
        };
        if error.is_panic() {
            tracing::error!(
                source = &*self.shared.source_name,
                shard = &*id,
                "a reader panicked; it is started again from its position"
            );
        }
        self.retake(&id);
    }

    /// Takes down readers that had no answer for too long, though the pipeline would have taken it.
    fn take_down_stalled(&mut self) {
        let settings = &self.shared.settings;
        let idle_max = pacing::idle_interval_max(self.running.len());
        let limit = settings.stalled_after.max(settings.poll_interval.max(idle_max) * 3);
        for (id, running) in &self.running {
            let silence = running.pulse.silence();
            if running.doubted.is_none() && !running.task.is_finished() && silence > limit {
                tracing::error!(
                    source = &*self.shared.source_name,
                    shard = &**id,
                    seconds = silence.as_secs(),
                    "a reader had no answer for too long; it is started again from its position"
                );
                running.task.abort();
            }
        }
    }

    /// Another reader goes on where the last one was.
    fn retake(&mut self, id: &ShardId) {
        let mut running = self.running.remove(id).expect("an open shard has its entry");
        self.shared.counters.readers_retaken.add(1);
        let last = running.feed.last();
        let has_got_on = last != running.last_at_retake;
        running.fruitless_retakes = if has_got_on { 0 } else { running.fruitless_retakes + 1 };
        running.last_at_retake = last;
        let delay = match running.fruitless_retakes {
            0 | 1 => Duration::ZERO,
            times => Duration::from_secs(1 << times.min(6)).min(RETAKE_DELAY_MAX),
        };
        let position = Position::of(&running.first);
        running.doubted = None;
        let is_unended = running.unended_listings >= UNENDED_LISTINGS_MAX;
        let consumer = self.consumer.clone().filter(|_| !is_unended);
        let reader = self.reader(running.shard.clone(), position, &running.feed);
        (running.pulse, running.task) = self.spawn(reader, consumer, delay);
        self.running.insert(Arc::clone(id), running);
    }

    fn relist_if_due(&mut self) {
        let now = Instant::now();
        let soonest = self.last_listing + RELIST_INTERVAL_MIN;
        if self.listing || now < self.next_listing.max(soonest) {
            return;
        }
        self.listing = true;
        self.last_listing = now;
        self.next_listing = now + self.shared.settings.list_interval;
        let shared = Arc::clone(&self.shared);
        let mut stop = self.stop.subscribe();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => Report::ListingStopped,
                listed = list_shards(shared.clients.polling(), &shared.settings.stream) => {
                    Report::Listed(listed)
                }
            }
        });
    }

    async fn listed(&mut self, listed: Result<Vec<Shard>, Failure>) -> Result<(), Fatal> {
        self.listing = false;
        match listed {
            Ok(shards) => {
                self.listing_backoff.reset();
                self.settle_doubts(&shards).await?;
                self.take_down_unended(&shards);
                self.compare(&shards);
                Ok(())
            }
            // A stream that is deleted while it is read has no more to give.
            Err(failure) if failure.kind == FailureKind::NotFound => {
                let refusal = refusal(&self.shared.settings.stream, &failure);
                Err(Fatal::Refused(refusal.unwrap_or(failure.message)))
            }
            Err(failure) => {
                let delay = self.listing_backoff.delay(failure.kind, jitter());
                self.next_listing = Instant::now() + delay;
                let counters = &self.shared.counters;
                match failure.kind {
                    FailureKind::Throttled => counters.throttled.add(1),
                    FailureKind::Denied => counters.denied.add(1),
                    _ => counters.retried.add(1),
                }
                self.shared.trouble.note(failure.message);
                Ok(())
            }
        }
    }

    /// Believes what readers reported, or starts them again.
    async fn settle_doubts(&mut self, listing: &[Shard]) -> Result<(), Fatal> {
        let doubted: Vec<ShardId> = self
            .running
            .iter()
            .filter(|(_, running)| running.doubted.is_some())
            .map(|(id, _)| Arc::clone(id))
            .collect();
        let mut closed = Vec::new();
        for id in doubted {
            let listed = listing.iter().find(|shard| shard.id == id);
            let doubted = self.running.get_mut(&id).and_then(|running| running.doubted.take());
            let is_true = match &doubted {
                Some(Outcome::Missing(_)) => listed.is_none(),
                _ => listed.is_none_or(|shard| shard.closed),
            };
            match doubted {
                Some(outcome) if is_true => closed.push((id, outcome)),
                doubted => {
                    let said = match doubted {
                        Some(Outcome::Missing(message)) => message,
                        _ => "its end, and no children".to_owned(),
                    };
                    tracing::warn!(
                        source = &*self.shared.source_name,
                        shard = &*id,
                        said,
                        "a shard seemed to end, but the stream still lists it; it is read on"
                    );
                    self.retake(&id);
                }
            }
        }
        for (id, outcome) in &closed {
            self.tell_end(id, outcome);
            self.lineage.finish(id);
        }
        self.lineage.relist(listing.to_vec());
        self.start_ready().await?;
        for (id, outcome) in closed {
            self.close(&id, outcome).await?;
        }
        Ok(())
    }

    /// Takes down subscriptions that do not end though their shards are closed and they are at the tip: what
    /// is left is then polled, which tells the end.
    fn take_down_unended(&mut self, listing: &[Shard]) {
        if self.consumer.is_none() {
            return;
        }
        for shard in listing.iter().filter(|shard| shard.closed) {
            let Some(running) = self.running.get_mut(&shard.id) else { continue };
            let is_at_tip = running.pulse.behind() == Some(Duration::ZERO);
            running.unended_listings = if is_at_tip { running.unended_listings + 1 } else { 0 };
            if running.unended_listings == UNENDED_LISTINGS_MAX && running.doubted.is_none() {
                tracing::warn!(
                    source = &*self.shared.source_name,
                    shard = &*shard.id,
                    "a subscription does not end with its shard; the rest is polled"
                );
                running.task.abort();
            }
        }
    }

    /// Tells what of the stream is not read.
    fn compare(&mut self, listing: &[Shard]) {
        for misfit in self.audit.compare(listing, &self.lineage.unfinished()) {
            self.shared.counters.audit_alarms.add(1);
            let source = &*self.shared.source_name;
            match misfit {
                Misfit::Unread(shard) => tracing::error!(
                    source,
                    shard = &*shard,
                    "an open shard was read to an end that it does not have; restart the job to read it on"
                ),
                Misfit::Uncovered(from, to) => tracing::error!(
                    source,
                    from = %from,
                    to = %to,
                    "no shard of the listing takes these hash keys; records that are written there may be missing"
                ),
            }
        }
    }

    async fn ended(&mut self, id: &ShardId, outcome: Outcome) -> Result<(), Fatal> {
        match &outcome {
            Outcome::Ended(children) if !children.is_empty() => {
                self.tell_end(id, &outcome);
                self.lineage.finish(id);
                for child in children {
                    self.lineage.add(child.clone(), Begin::FirstRecord);
                }
                self.start_ready().await?;
                self.close(id, outcome).await
            }
            Outcome::Ended(_) | Outcome::Missing(_) => {
                self.running.get_mut(id).expect("an open shard has its entry").doubted =
                    Some(outcome);
                self.next_listing = Instant::now();
                Ok(())
            }
            Outcome::Refused(message) => {
                let message = message.clone();
                self.close(id, outcome).await?;
                Err(Fatal::Refused(message))
            }
            Outcome::HungUp => Err(Fatal::HungUp),
            Outcome::Stopped => self.close(id, outcome).await,
        }
    }

    fn tell_end(&self, id: &ShardId, outcome: &Outcome) {
        let source = &*self.shared.source_name;
        match outcome {
            Outcome::Ended(children) => {
                self.shared.counters.shards_ended.add(1);
                tracing::info!(
                    source,
                    shard = &**id,
                    children = children.len(),
                    "a closed shard was read to its end"
                );
            }
            Outcome::Missing(message) => {
                self.shared.counters.losses.add(1);
                tracing::error!(
                    source,
                    shard = &**id,
                    error = message,
                    "a shard is gone before it was read to its end; its unread records are lost"
                );
            }
            Outcome::Refused(_) | Outcome::Stopped | Outcome::HungUp => {}
        }
    }

    async fn close(&mut self, id: &ShardId, outcome: Outcome) -> Result<(), Fatal> {
        let running = self.running.remove(id).expect("an open shard has its entry");
        self.shared.counters.forget(id);
        let event = match outcome {
            Outcome::Ended(_) => ChunkEvent::Close(None),
            Outcome::Stopped => ChunkEvent::Stop,
            Outcome::Missing(message) | Outcome::Refused(message) => {
                ChunkEvent::Close(Some(InputFault::Stream(message)))
            }
            Outcome::HungUp => return Err(Fatal::HungUp),
        };
        Ok(running.feed.tell(event).await?)
    }

    /// Waits for all readers and closes their inputs. What nobody has confirmed goes on in a later run.
    async fn close_all(&mut self) -> Result<(), Fatal> {
        while let Some(joined) = self.tasks.join_next_with_id().await {
            let Ok((_, Report::Ended(id, outcome))) = joined else { continue };
            match outcome {
                Outcome::Ended(children) if children.is_empty() => {}
                Outcome::Missing(_) => {}
                outcome => self.close(&id, outcome).await?,
            }
        }
        let left: Vec<ShardId> = self.running.keys().cloned().collect();
        for id in left {
            self.close(&id, Outcome::Stopped).await?;
        }
        Ok(())
    }
}
