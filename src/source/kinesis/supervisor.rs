//! Starts a reader for every shard when it may be read, and closes its input at the end.
//!
//! The order of events on the channel is a promise. All inputs that can be read at the start are
//! opened before any is read; children are opened before their last parent is closed, so that event
//! time always has an input that holds it back.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::clock::Clock;
use crate::framing::{
    ChunkEvent, InputFault, InputInfo, Position, Positions, ReadUntil, ResumePoint, ShardPlace,
};
use crate::record::FormatChoice;
use crate::source::{InputIds, StopFlag};

use super::budget::ByteBudget;
use super::counters::KinesisCounters;
use super::discovery::list_shards;
use super::feed::{Feed, Hangup, Outgoing};
use super::lineage::{Begin, Lineage, Shard, ShardId};
use super::retry::{Backoff, Failure, FailureKind, jitter};
use super::settings::{KinesisSettings, StartPosition};
use super::shard::{LATEST_MARGIN_MS, Outcome, ReaderEnd, ShardReader};

/// How soon a request to stop is seen.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// Time between two listings that look for shards nobody told of.
const RELIST_INTERVAL: Duration = Duration::from_secs(30);
/// Least time between two listings, for whatever reason.
const RELIST_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Tries of the first listing: about half a minute, in which a stream may finish being created.
const FIRST_LISTING_TRIES_MAX: u32 = 10;
/// Time between two log lines about trouble that passes.
const TROUBLE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What all readers of a source share.
pub(super) struct Shared {
    /// The name in the configuration.
    pub(super) source_name: Box<str>,
    /// How the stream is read.
    pub(super) settings: KinesisSettings,
    /// The service.
    pub(super) client: Client,
    /// Limits the answers in memory.
    pub(super) budget: Arc<ByteBudget>,
    /// Limits the calls, and so the connections, at one time.
    pub(super) calls: Semaphore,
    /// What was counted.
    pub(super) counters: Arc<KinesisCounters>,
    /// The last passing failure, for the log.
    pub(super) trouble: Trouble,
    /// Wall time, for the position of readers at the tip.
    pub(super) clock: Arc<dyn Clock>,
}

/// The last message about a failure that passes, kept until the next log line.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<String>>);

impl Trouble {
    /// Replaces the message.
    pub(super) fn note(&self, message: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

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
    Ended(Box<ReaderEnd>),
    Listed(Result<Vec<Shard>, Failure>),
    ListingStopped,
}

/// The task that owns all others of a source.
pub(super) struct Supervisor {
    shared: Arc<Shared>,
    format: FormatChoice,
    inputs: Arc<InputIds>,
    to: mpsc::Sender<Outgoing>,
    lineage: Lineage,
    /// How far shards were read before.
    positions: Arc<Positions>,
    tasks: JoinSet<Report>,
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
        format: FormatChoice,
        inputs: Arc<InputIds>,
        to: mpsc::Sender<Outgoing>,
        positions: Arc<Positions>,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            format,
            inputs,
            to,
            lineage: Lineage::default(),
            positions,
            tasks: JoinSet::new(),
            stop: watch::Sender::new(false),
            listing: false,
            next_listing: now + RELIST_INTERVAL,
            last_listing: now,
            listing_backoff: Backoff::default(),
        }
    }

    /// Reads the stream until `stop` is requested or nothing more can be done; then every input is
    /// closed.
    pub(super) async fn run(mut self, stop: &StopFlag) -> Result<(), Fatal> {
        let Some(shards) = self.first_listing(stop).await? else { return Ok(()) };
        let gone = self.gone(&shards);
        self.adopt(shards);
        self.start_ready().await?;
        self.tell_gone(gone).await?;
        let outcome = self.watch(stop).await;
        self.stop.send_replace(true);
        if matches!(outcome, Err(Fatal::HungUp)) {
            return outcome;
        }
        while let Some(report) = self.next_report().await {
            if let Report::Ended(end) = report {
                close(*end).await?;
            }
        }
        outcome
    }

    /// `None` if a stop was requested meanwhile.
    async fn first_listing(&mut self, stop: &StopFlag) -> Result<Option<Vec<Shard>>, Fatal> {
        let stream = self.shared.settings.stream.clone();
        loop {
            let listing = list_shards(&self.shared.client, &stream);
            let Some(listed) = unless_requested(stop, listing).await else { return Ok(None) };
            let failure = match listed {
                Ok(shards) => {
                    self.listing_backoff.reset();
                    return Ok(Some(shards));
                }
                Err(failure) => failure,
            };
            let delay = self.listing_backoff.delay(failure.kind, jitter());
            let tries = self.listing_backoff.failures_in_a_row();
            if let Some(refusal) = self.refusal(&failure) {
                return Err(Fatal::Refused(refusal));
            }
            if tries >= FIRST_LISTING_TRIES_MAX {
                return Err(Fatal::Refused(format!(
                    "cannot list the shards of stream `{}` after {tries} tries: {}; check the network, `region` and `endpoint`",
                    stream.stream_name(),
                    failure.message
                )));
            }
            tracing::warn!(
                source = &*self.shared.source_name,
                tries,
                error = failure.message,
                "cannot list the stream's shards yet"
            );
            if unless_requested(stop, sleep(delay)).await.is_none() {
                return Ok(None);
            }
        }
    }

    /// What to tell if a failed listing shows that the source is useless.
    fn refusal(&self, failure: &Failure) -> Option<String> {
        let name = self.shared.settings.stream.stream_name();
        match failure.kind {
            FailureKind::NotFound => Some(format!(
                "there is no stream `{name}` ({}); check `stream`, `region` and the account of the credentials",
                failure.message
            )),
            FailureKind::Denied => Some(format!(
                "no access to stream `{name}` ({}); check the credentials, and allow `kinesis:ListShards`, `kinesis:GetShardIterator` and `kinesis:GetRecords` on it",
                failure.message
            )),
            FailureKind::Argument => Some(format!(
                "stream `{name}` was refused ({}); check `stream` or `stream_arn`",
                failure.message
            )),
            _ => None,
        }
    }

    /// The shards that exist at the start. From the tip only open shards matter: a closed one will
    /// never have anything new.
    fn adopt(&mut self, shards: Vec<Shard>) {
        tracing::info!(
            source = &*self.shared.source_name,
            stream = self.shared.settings.stream.stream_name(),
            shards = shards.len(),
            "reading the stream"
        );
        let from_the_tip = self.shared.settings.start == StartPosition::Latest;
        let later = self.later(&shards);
        // A moment applies to children as much as to their parents: what they hold before it is not
        // wanted either.
        for shard in shards {
            match self.positions.get(&self.input_name(&shard.id)) {
                Some(ReadUntil::End) => self.lineage.add_finished(shard),
                Some(ReadUntil::Point(point)) => {
                    self.lineage.add(shard, Begin::Resumed(point.clone()));
                }
                None if later.contains(&shard.id) => self.lineage.add(shard, Begin::FirstRecord),
                None if from_the_tip && shard.closed => self.lineage.add_finished(shard),
                None => self.lineage.add(shard, Begin::Configured),
            }
        }
        self.last_listing = Instant::now();
    }

    fn input_name(&self, shard: &str) -> Arc<str> {
        format!("{}/{shard}", self.shared.settings.stream.stream_name()).into()
    }

    /// Shards that came out of ones that were read before: all of them is new.
    fn later(&self, shards: &[Shard]) -> BTreeSet<ShardId> {
        let mut later: BTreeSet<ShardId> = BTreeSet::new();
        loop {
            let is_read = |id: &ShardId| self.positions.get(&self.input_name(id)).is_some();
            let is_later = |shard: &&Shard| {
                !later.contains(&shard.id)
                    && shard.parents.iter().any(|parent| is_read(parent) || later.contains(parent))
            };
            let found: Vec<ShardId> =
                shards.iter().filter(is_later).map(|shard| Arc::clone(&shard.id)).collect();
            if found.is_empty() {
                return later;
            }
            later.extend(found);
        }
    }

    /// Inputs that were not read to their end and are not in the stream any more.
    fn gone(&self, shards: &[Shard]) -> Vec<(Arc<str>, ResumePoint)> {
        let start = self.input_name("");
        let is_listed = |name: &str| shards.iter().any(|shard| name[start.len()..] == *shard.id);
        let before = self.positions.beginning_with(&start);
        let gone = before.filter_map(|(name, until)| match until {
            ReadUntil::Point(point) if !is_listed(name) => Some((Arc::clone(name), point.clone())),
            _ => None,
        });
        gone.collect()
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
            let mut info = InputInfo::new(name, self.format.clone());
            info.resume = Some(point);
            let mut feed = Feed::new(self.inputs.next(), self.to.clone());
            feed.tell(ChunkEvent::Open(info)).await?;
            feed.tell(ChunkEvent::Close(Some(InputFault::Stream(fault)))).await?;
        }
        Ok(())
    }

    /// Where a shard is read from, for a run after this one.
    fn first_point(&self, begin: &Begin) -> ResumePoint {
        let place = match (begin, self.shared.settings.start) {
            (Begin::Resumed(point), _) => return point.clone(),
            (Begin::FirstRecord, _) | (Begin::Configured, StartPosition::TrimHorizon) => {
                ShardPlace::Oldest
            }
            (Begin::Configured, StartPosition::AtTimestamp(moment)) => {
                ShardPlace::Moment(moment.unix_ms)
            }
            (Begin::Configured, StartPosition::Latest) => {
                let now_ms = self.shared.clock.now().0.saturating_mul(1000);
                ShardPlace::Moment(now_ms.saturating_sub(LATEST_MARGIN_MS))
            }
        };
        let layout = self.format.initial_layout();
        ResumePoint { position: Position::in_shard(place), layout, file_start: None }
    }

    async fn start_ready(&mut self) -> Result<(), Fatal> {
        let mut opened = Vec::new();
        for (shard, begin) in self.lineage.take_ready() {
            let mut feed = Feed::new(self.inputs.next(), self.to.clone());
            let mut info = InputInfo::new(self.input_name(&shard.id), self.format.clone());
            info.resume = Some(self.first_point(&begin));
            feed.tell(ChunkEvent::Open(info)).await?;
            opened.push((shard, begin, feed));
        }
        for (shard, begin, feed) in opened {
            let stop = self.stop.subscribe();
            let reader = ShardReader::new(Arc::clone(&self.shared), shard, begin, feed, stop);
            self.tasks.spawn(async move { Report::Ended(Box::new(reader.run().await)) });
        }
        Ok(())
    }

    async fn watch(&mut self, stop: &StopFlag) -> Result<(), Fatal> {
        let mut tick = interval(STOP_CHECK_INTERVAL);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut log = TroubleLog::new(Instant::now());
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
                }
                Some(report) = self.next_report() => match report {
                    Report::Ended(end) => self.ended(*end).await?,
                    Report::Listed(listed) => self.listed(listed).await?,
                    Report::ListingStopped => {}
                },
            }
        }
    }

    async fn next_report(&mut self) -> Option<Report> {
        let joined = self.tasks.join_next().await?;
        Some(joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
    }

    fn relist_if_due(&mut self) {
        let now = Instant::now();
        let soonest = self.last_listing + RELIST_INTERVAL_MIN;
        if self.listing || now < self.next_listing.max(soonest) {
            return;
        }
        self.listing = true;
        self.last_listing = now;
        self.next_listing = now + RELIST_INTERVAL;
        let shared = Arc::clone(&self.shared);
        let mut stop = self.stop.subscribe();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => Report::ListingStopped,
                listed = list_shards(&shared.client, &shared.settings.stream) => {
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
                self.lineage.relist(shards);
                self.start_ready().await
            }
            // A stream that is deleted while it is read has no more to give.
            Err(failure) if failure.kind == FailureKind::NotFound => {
                Err(Fatal::Refused(self.refusal(&failure).unwrap_or(failure.message)))
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

    async fn ended(&mut self, end: ReaderEnd) -> Result<(), Fatal> {
        match &end.outcome {
            Outcome::Ended(children) => {
                tracing::info!(
                    source = &*self.shared.source_name,
                    shard = &*end.id,
                    children = children.len(),
                    "a closed shard was read to its end"
                );
                self.shared.counters.shards_ended.add(1);
                self.lineage.finish(&end.id);
                if children.is_empty() {
                    self.next_listing = Instant::now();
                }
                for child in children {
                    self.lineage.add(child.clone(), Begin::FirstRecord);
                }
            }
            Outcome::Gone(message) => {
                self.shared.counters.losses.add(1);
                tracing::error!(
                    source = &*self.shared.source_name,
                    shard = &*end.id,
                    error = message,
                    "a shard is gone before it was read to its end; its unread records are lost"
                );
                self.lineage.finish(&end.id);
                self.next_listing = Instant::now();
            }
            Outcome::Refused(message) => {
                let message = message.clone();
                close(end).await?;
                return Err(Fatal::Refused(message));
            }
            Outcome::HungUp => return Err(Fatal::HungUp),
            Outcome::Stopped => {}
        }
        self.start_ready().await?;
        close(end).await?;
        Ok(())
    }
}

async fn close(end: ReaderEnd) -> Result<(), Hangup> {
    let mut feed = end.feed;
    let event = match end.outcome {
        Outcome::Ended(_) => ChunkEvent::Close(None),
        Outcome::Stopped => ChunkEvent::Stop,
        Outcome::Gone(message) | Outcome::Refused(message) => {
            ChunkEvent::Close(Some(InputFault::Stream(message)))
        }
        Outcome::HungUp => return Err(Hangup),
    };
    feed.tell(event).await
}

/// Does the work, or gives it up when a stop is requested.
pub(super) fn unless_requested<T>(
    stop: &StopFlag,
    work: impl Future<Output = T>,
) -> impl Future<Output = Option<T>> {
    stop.unless_requested(work)
}

/// Turns counts of failures that pass into a log line now and then.
struct TroubleLog {
    next: Instant,
    throttled: u64,
    retried: u64,
    iterators_replaced: u64,
    denied: u64,
}

impl TroubleLog {
    fn new(now: Instant) -> Self {
        Self { next: now, throttled: 0, retried: 0, iterators_replaced: 0, denied: 0 }
    }

    fn write_if_due(&mut self, shared: &Shared) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let Some(last_error) = shared.trouble.take() else { return };
        let counters = &shared.counters;
        let since = |count: u64, last: &mut u64| count - std::mem::replace(last, count);
        let throttled = since(counters.throttled.get(), &mut self.throttled);
        let retried = since(counters.retried.get(), &mut self.retried);
        let replaced = since(counters.iterators_replaced.get(), &mut self.iterators_replaced);
        let denied = since(counters.denied.get(), &mut self.denied);
        let source = &*shared.source_name;
        if denied > 0 {
            tracing::error!(
                source,
                denied,
                last_error,
                "reads are denied; check permissions and the stream's key, reading goes on once they allow it"
            );
        } else {
            tracing::warn!(
                source,
                throttled,
                retried,
                iterators_replaced = replaced,
                last_error,
                "reads failed and were made again"
            );
        }
        self.next = now + TROUBLE_LOG_INTERVAL;
    }
}
