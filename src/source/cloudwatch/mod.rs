//! Reading log groups of Amazon CloudWatch Logs by FilterLogEvents: back-fills, and small groups that no
//! subscription serves.
//!
//! A small asynchronous runtime reads all groups, one task each; the thread that calls
//! [`CloudWatchSource::run`] takes the chunks out of a bounded channel and emits them, which is the
//! back-pressure. Nothing is written to the service.
//!
//! ```text
//! ranges ─which time─► group ─FilterLogEvents─► pages ─► taken: each event once ─channel─► run() ─► emit
//! ```
//!
//! Memory: a page (1 MB of messages) a group and eight in the channel, and the events that are
//! remembered so that none comes twice (`taken.rs`).

mod counters;
mod group;
mod pacer;
mod permissions;
mod ranges;
mod settings;
mod taken;

use std::sync::Arc;

use aws_sdk_cloudwatchlogs::Client;
use aws_sdk_cloudwatchlogs::config::retry::RetryConfig;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::framing::{Chunk, ChunkEvent, InputInfo, Positions};
use crate::metrics::IntakeMeter;
use crate::record::FormatChoice;
use crate::source::service::{self, Threads, shut_down};
use crate::source::{Emit, InputIds, Source, SourceError, StopFlag};

use group::{Feed, GroupReader, Outcome, first_place};
use pacer::Pacer;

pub use counters::CloudWatchCounters;
pub use settings::{CloudWatchSettings, LOG_GROUPS_MAX, LogGroup};

/// Pages that may wait to be emitted.
const CHUNKS_WAITING_MAX: usize = 8;
/// For the network; the service gives a few megabytes a second.
const THREADS: Threads =
    Threads { name: "cloudwatch-read", cores_each: 1, max: 1, blocking_max: None };

/// What all readers of a source share.
struct Shared {
    /// The name in the configuration.
    source_name: Box<str>,
    settings: CloudWatchSettings,
    client: Client,
    pacer: Pacer,
    counters: Arc<CloudWatchCounters>,
    clock: Arc<dyn Clock>,
}

/// Log groups, read from a moment on, up to another or for as long as they last.
pub struct CloudWatchSource {
    name: String,
    settings: CloudWatchSettings,
    format: FormatChoice,
    inputs: Arc<InputIds>,
    clock: Arc<dyn Clock>,
    counters: Arc<CloudWatchCounters>,
    positions: Arc<Positions>,
}

impl CloudWatchSource {
    /// A source called `name`; every log group becomes an input with an id out of `inputs`, and its lines
    /// have the layout `format`. Nothing is connected before `run`.
    #[must_use]
    pub fn new(
        name: String,
        settings: CloudWatchSettings,
        format: FormatChoice,
        inputs: Arc<InputIds>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            name,
            settings,
            format,
            inputs,
            clock,
            counters: Arc::default(),
            positions: Arc::default(),
        }
    }

    /// What the source counts while it runs.
    #[must_use]
    pub fn counters(&self) -> Arc<CloudWatchCounters> {
        Arc::clone(&self.counters)
    }

    fn refused(&self, message: String) -> SourceError {
        service::refused(&self.name, message)
    }

    /// `None` if a stop was requested meanwhile.
    fn connect(&self, runtime: &Runtime, stop: &StopFlag) -> Result<Option<Client>, SourceError> {
        let connected = service::connect(&self.name, &self.settings.access, runtime, stop)?;
        let Some(config) = connected else { return Ok(None) };
        // The readers know better what to repeat and when, and count it.
        let config = aws_sdk_cloudwatchlogs::config::Builder::from(&config)
            .retry_config(RetryConfig::disabled())
            .build();
        Ok(Some(Client::from_conf(config)))
    }

    /// Opens all inputs that are to be read, and starts their readers.
    async fn start(
        &self,
        shared: &Arc<Shared>,
        to: &mpsc::Sender<Chunk>,
        stop: &StopFlag,
    ) -> JoinSet<Outcome> {
        let mut opened = Vec::new();
        for group in &self.settings.log_groups {
            let name = self.settings.input_name(group);
            if self.positions.is_finished(&name) {
                continue;
            }
            let point = self.positions.point(&name);
            let place = match point.and_then(|point| point.position.as_log_group()) {
                Some(place) => place.clone(),
                None => {
                    let start_ms = self.settings.start.map(|start| start.unix_ms);
                    first_place(start_ms, self.clock.now_ms(), self.settings.lookback)
                }
            };
            let info = InputInfo {
                resume: point.cloned(),
                ..InputInfo::new(name.into(), self.format.clone())
            };
            let mut feed = Feed::new(self.inputs.next(), to.clone());
            if !feed.open(ChunkEvent::Open(info)).await {
                break;
            }
            opened.push((group.clone(), feed, place));
        }
        let mut readers = JoinSet::new();
        for (group, feed, place) in opened {
            let reader = GroupReader::new(Arc::clone(shared), group, feed, place, stop.clone());
            readers.spawn(reader.run());
        }
        readers
    }
}

impl Source for CloudWatchSource {
    fn resume(&mut self, positions: Arc<Positions>) {
        self.positions = positions;
    }

    fn meter(&self) -> Option<IntakeMeter> {
        let (name, counters) = (Arc::from(self.name.as_str()), Arc::clone(&self.counters));
        let group_count = self.settings.log_groups.len() as u64;
        Some(Arc::new(move || counters.intake(&name, group_count)))
    }

    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        let runtime = THREADS.start(&self.name)?;
        let Some(client) = self.connect(&runtime, stop)? else { return Ok(()) };
        let shared = Arc::new(Shared {
            source_name: self.name.as_str().into(),
            settings: self.settings.clone(),
            client,
            pacer: Pacer::new(self.settings.calls_per_second_max),
            counters: Arc::clone(&self.counters),
            clock: Arc::clone(&self.clock),
        });
        let waiting_max = CHUNKS_WAITING_MAX + self.settings.log_groups.len();
        let (to, mut from) = mpsc::channel::<Chunk>(waiting_max);
        // All inputs fit into the channel, so that this waits for nobody.
        let mut readers = runtime.block_on(self.start(&shared, &to, stop));
        drop(to);

        while let Some(chunk) = from.blocking_recv() {
            if emit(chunk).is_break() {
                drop(from);
                shut_down(runtime);
                return Ok(());
            }
        }
        let mut refused = None;
        while let Some(ended) = runtime.block_on(readers.join_next()) {
            let outcome =
                ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
            if let Outcome::Refused(message) = outcome {
                refused.get_or_insert(message);
            }
        }
        shut_down(runtime);
        refused.map_or(Ok(()), |message| Err(self.refused(message)))
    }
}
