//! One log group's reader: range by range, page by page, each event once.
//!
//! A range is done with when its last page was read. Until then everything that was taken of it is
//! remembered, in memory and in the positions, so that a page that is asked for again, a token that has
//! expired and a restart cost calls, never an event more or less.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_cloudwatchlogs::operation::filter_log_events::FilterLogEventsOutput;
use aws_sdk_cloudwatchlogs::types::FilteredLogEvent;
use bytes::Bytes;
use hashbrown::HashSet;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::aws::retry::{Backoff, Failure, FailureKind, jitter};
use crate::framing::{
    Chunk, ChunkData, ChunkEvent, InputFault, InputId, LogGroupPlace, Payload, Position,
    SourceRecord,
};
use crate::source::StopFlag;

use super::Shared;
use super::ranges::{Next, Range, Ranges};
use super::settings::LogGroup;
use super::taken::{EventMark, Full, Taken};

/// Tries to reach the service before anything was answered: about half a minute.
const FIRST_TRIES_MAX: u32 = 10;

/// Why a reader ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Everything up to the end was read, or nobody wants more.
    Done,
    /// The source is useless; the text says what was refused and what to do.
    Refused(String),
}

/// What interrupts reading.
enum Break {
    Stopped,
    HungUp,
    /// The group is gone.
    Gone(String),
    Refused(String),
}

/// A reader of one log group, whose input has been opened.
pub(super) struct GroupReader {
    shared: Arc<Shared>,
    group: LogGroup,
    feed: Feed,
    taken: Taken,
    ranges: Ranges,
    backoff: Backoff,
    /// Whether the service has answered for this group.
    is_known: bool,
    stop: StopFlag,
}

impl GroupReader {
    /// A reader that goes on at `place`.
    pub(super) fn new(
        shared: Arc<Shared>,
        group: LogGroup,
        feed: Feed,
        place: LogGroupPlace,
        stop: StopFlag,
    ) -> Self {
        let settings = &shared.settings;
        let lookback_ms = i64::try_from(settings.lookback.as_millis()).unwrap_or(i64::MAX);
        let ranges = Ranges::new(settings.end.map(|end| end.unix_ms), lookback_ms);
        Self {
            shared,
            group,
            feed,
            taken: Taken::at(place),
            ranges,
            backoff: Backoff::default(),
            is_known: false,
            stop,
        }
    }

    /// Reads until the end, a stop, or until nothing more can be done; then closes the input.
    pub(super) async fn run(mut self) -> Outcome {
        let (last, outcome) = match self.read().await {
            Ok(()) => (ChunkEvent::Close(None), Outcome::Done),
            Err(Break::Stopped) => (ChunkEvent::Stop, Outcome::Done),
            Err(Break::HungUp) => return Outcome::Done,
            Err(Break::Gone(message)) => {
                (ChunkEvent::Close(Some(InputFault::Stream(message))), Outcome::Done)
            }
            Err(Break::Refused(message)) => {
                tracing::error!(
                    source = &*self.shared.source_name,
                    error = message,
                    "a log group cannot be read"
                );
                let fault = InputFault::Stream(message.clone());
                (ChunkEvent::Close(Some(fault)), Outcome::Refused(message))
            }
        };
        // Whoever hung up needs no last word.
        let _is_heard = self.feed.send(last).await.is_ok();
        outcome
    }

    async fn read(&mut self) -> Result<(), Break> {
        loop {
            let now_ms = self.shared.clock.now_ms();
            let range = match self.ranges.next(self.taken.floor_ms(), now_ms) {
                Next::End => return Ok(()),
                Next::Ask(range) => range,
            };
            let Found { event_count, new_count } = self.read_range(range).await?;
            match range.until_ms {
                Some(until_ms) if !range.is_recent => {
                    self.ranges.found(event_count);
                    self.taken.raise_floor(until_ms);
                }
                _ => {
                    if new_count == 0 {
                        self.feed.send(ChunkEvent::Idle).await?;
                    }
                    let interval = self.shared.settings.poll_interval;
                    self.unless_stopped(sleep(interval)).await?;
                }
            }
        }
    }

    /// Asks for all pages of a range.
    async fn read_range(&mut self, range: Range) -> Result<Found, Break> {
        let mut found = Found::default();
        let mut token: Option<String> = None;
        loop {
            let page = match self.call(range, token.as_deref()).await? {
                Ok(page) => page,
                Err(failure) if failure.kind == FailureKind::Argument && token.is_some() => {
                    // A token that has expired: the range begins anew, and what was taken is known.
                    self.shared.counters.tokens_replaced.add(1);
                    token = None;
                    found = Found { event_count: 0, ..found };
                    self.wait_after(&failure).await?;
                    continue;
                }
                Err(failure) => {
                    self.recover(failure).await?;
                    continue;
                }
            };
            self.backoff.reset();
            self.is_known = true;
            self.shared.counters.answers.add(1);
            let next = page.next_token.clone();
            found.event_count += page.events().len() as u64;
            found.new_count += self.take(page, range).await?;
            // The same token again would be the same page for ever.
            if next.is_none() || next == token {
                return Ok(found);
            }
            token = next;
        }
    }

    async fn call(
        &self,
        range: Range,
        token: Option<&str>,
    ) -> Result<Result<FilterLogEventsOutput, Failure>, Break> {
        let settings = &self.shared.settings;
        let request = match &self.group {
            LogGroup::Name(name) => self.shared.client.filter_log_events().log_group_name(name),
            LogGroup::Arn(arn) => self.shared.client.filter_log_events().log_group_identifier(arn),
        };
        let request = request
            .set_log_stream_name_prefix(settings.stream_prefix.clone())
            .set_filter_pattern(settings.filter_pattern.clone())
            .start_time(range.from_ms)
            // The service's end belongs to its range.
            .set_end_time(range.until_ms.map(|until_ms| until_ms - 1))
            .set_next_token(token.map(str::to_owned));
        // The future of a call is large, and would be part of all that wait for it.
        let call = Box::pin(async {
            self.shared.pacer.turn().await;
            request.send().await.map_err(Failure::from)
        });
        self.unless_stopped(call).await
    }

    /// Hands on what is new in a page; gives how many that were.
    async fn take(&mut self, page: FilterLogEventsOutput, range: Range) -> Result<u64, Break> {
        let listed = page.events.unwrap_or_default();
        let listed_count = listed.len() as u64;
        let events = self.not_yet_taken(listed);
        let new_count = events.len() as u64;
        self.shared.counters.repeated.add(listed_count - new_count);
        if events.is_empty() {
            return Ok(0);
        }
        let marks: Vec<EventMark> = events.iter().map(|(mark, _)| *mark).collect();
        let place = match self.taken.take(&marks) {
            Ok(place) => place,
            Err((place, full)) => self.overfull(&marks, range, place, full),
        };
        let records: Vec<SourceRecord> =
            events.into_iter().map(|(_, event)| source_record(event)).collect();
        let bytes_read = records.iter().map(|record| record.data.len() as u64).sum();
        let data = ChunkData {
            payload: Payload::Records(records),
            bytes_read,
            position: Some(Position::in_log_group(place)),
        };
        self.feed.send(ChunkEvent::Data(data)).await?;
        self.shared.counters.events.add(new_count);
        Ok(new_count)
    }

    /// The events that were not taken before, each once.
    fn not_yet_taken(&self, events: Vec<FilteredLogEvent>) -> Vec<(EventMark, FilteredLogEvent)> {
        let mut in_page = HashSet::new();
        let mut new = Vec::with_capacity(events.len());
        for event in events {
            let timestamp_ms = event.timestamp.unwrap_or(self.taken.floor_ms());
            let mark = EventMark::of(timestamp_ms, event.event_id().unwrap_or_default());
            // Without an id nothing tells an event from another.
            let is_named = event.event_id.is_some();
            let is_done = timestamp_ms < self.taken.floor_ms()
                || is_named && (self.taken.contains(mark) || !in_page.insert(mark.digest));
            if !is_done {
                new.push((mark, event));
            }
        }
        new
    }

    /// More events than can be remembered: of the recent ones the older half is done with; in history,
    /// these are handed on without being remembered.
    fn overfull(
        &mut self,
        marks: &[EventMark],
        range: Range,
        place: LogGroupPlace,
        _: Full,
    ) -> LogGroupPlace {
        self.shared.counters.overfull.add(1);
        if range.is_recent {
            self.taken.raise_floor(self.taken.median_ms() + 1);
            if let Ok(place) = self.taken.take(marks) {
                tracing::warn!(
                    source = &*self.shared.source_name,
                    log_group = self.group.text(),
                    "more events within `lookback` than can be remembered: late ones may be missed; \
                     shorten `lookback`, or read the group by a subscription"
                );
                return place;
            }
        }
        tracing::warn!(
            source = &*self.shared.source_name,
            log_group = self.group.text(),
            "more events within a second than can be remembered: a restart may count some twice"
        );
        place
    }

    /// Decides what a failure means.
    async fn recover(&mut self, failure: Failure) -> Result<(), Break> {
        let group = self.group.text();
        let message = &failure.message;
        match failure.kind {
            FailureKind::NotFound if self.is_known => {
                return Err(Break::Gone(format!("log group `{group}` is gone: {message}")));
            }
            FailureKind::NotFound => {
                return Err(Break::Refused(format!(
                    "there is no log group `{group}` ({message}); check `log_groups`, `region` and the account"
                )));
            }
            FailureKind::Denied | FailureKind::Signature if !self.is_known => {
                return Err(Break::Refused(format!(
                    "{message}; allow `logs:FilterLogEvents` on log group `{group}`"
                )));
            }
            FailureKind::Argument => {
                return Err(Break::Refused(format!(
                    "log group `{group}` refused the call: {message}; check `stream_prefix` and `filter_pattern`"
                )));
            }
            _ if !self.is_known && self.backoff.failures_in_a_row() >= FIRST_TRIES_MAX => {
                return Err(Break::Refused(format!(
                    "cannot read log group `{group}` after {FIRST_TRIES_MAX} tries: {message}; check the network, `region` and `endpoint`"
                )));
            }
            _ => {}
        }
        self.wait_after(&failure).await
    }

    async fn wait_after(&mut self, failure: &Failure) -> Result<(), Break> {
        let delay = self.backoff.delay(failure.kind, jitter());
        let counters = &self.shared.counters;
        if failure.kind == FailureKind::Throttled {
            counters.throttled.add(1);
            // The limit is the account's: other groups would only be refused too.
            self.shared.pacer.hold(delay);
        } else {
            counters.retried.add(1);
        }
        let (source, log_group) = (&*self.shared.source_name, self.group.text());
        let (tries, error) = (self.backoff.failures_in_a_row(), failure.message.as_str());
        if failure.kind == FailureKind::Denied {
            tracing::error!(
                source,
                log_group,
                tries,
                error,
                "reading is denied; it goes on once it is allowed"
            );
        } else {
            tracing::warn!(source, log_group, tries, error, "a call failed and is made again");
        }
        self.unless_stopped(sleep(delay)).await
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, Break> {
        self.stop.unless_requested(work).await.ok_or(Break::Stopped)
    }
}

/// What a range held.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    event_count: u64,
    new_count: u64,
}

/// Sends the events of one input in order.
pub(super) struct Feed {
    input: InputId,
    sequence: u64,
    to: mpsc::Sender<Chunk>,
}

impl Feed {
    /// A feed whose first event has number 0.
    pub(super) const fn new(input: InputId, to: mpsc::Sender<Chunk>) -> Self {
        Self { input, sequence: 0, to }
    }

    async fn send(&mut self, event: ChunkEvent) -> Result<(), Break> {
        let chunk = Chunk { input: self.input, sequence: self.sequence, event };
        self.to.send(chunk).await.map_err(|_| Break::HungUp)?;
        self.sequence += 1;
        Ok(())
    }

    /// Sends the first event. `false` if nobody listens.
    pub(super) async fn open(&mut self, event: ChunkEvent) -> bool {
        self.send(event).await.is_ok()
    }
}

fn source_record(event: FilteredLogEvent) -> SourceRecord {
    SourceRecord {
        data: Bytes::from(event.message.unwrap_or_default().into_bytes()),
        sequence_number: Arc::from(event.event_id.unwrap_or_default()),
        arrival_ms: event.ingestion_time.unwrap_or_default(),
        hash_key_range: None,
    }
}

/// Where a group is read from if it was not read before.
pub(super) fn first_place(start_ms: Option<i64>, now_ms: i64, lookback: Duration) -> LogGroupPlace {
    let lookback_ms = i64::try_from(lookback.as_millis()).unwrap_or(i64::MAX);
    let floor_ms = start_ms.unwrap_or_else(|| now_ms.saturating_sub(lookback_ms)).max(0);
    LogGroupPlace { floor_ms, ..LogGroupPlace::default() }
}
