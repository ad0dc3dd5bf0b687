//! Reading an Amazon Kinesis data stream, shard by shard: by polling, or by enhanced fan-out.
//!
//! A small asynchronous runtime of its own reads all shards, one task each; the thread that calls
//! [`KinesisSource::run`] takes the chunks out of a bounded channel and emits them. While `emit`
//! waits, the channel fills, then the byte budget, and the tasks stop asking, or stop looking into their
//! connections: that is the whole back-pressure. Nothing is written to the stream or beside it, except
//! that a consumer may be registered: positions travel with the chunks, and come back as those to go on
//! from.
//!
//! ```text
//! supervisor ─starts, retakes─► shard reader ─GetRecords──────┐
//!     ▲                           │        ─SubscribeToShard──┴► pieces ─channel─► run() ─► emit
//!     └── ListShards, audit ◄─────┘ shard end, children
//! ```
//!
//! Memory: payload that was fetched and not yet emitted is limited by `read_ahead_max`; while
//! an answer is being read it takes about 2.4 times its payload, for at most [`CALLS_MAX`] answers, and a
//! subscription up to one event that is not whole. An idle shard costs 22 KiB by polling, 41 KiB by
//! fan-out (`benches/kinesis_replay.rs`).

mod answer;
mod audit;
mod beginning;
mod budget;
mod clients;
mod consumer;
mod counters;
mod discovery;
mod events;
mod feed;
mod lineage;
mod pacing;
mod permissions;
mod polling;
mod pulse;
mod reader;
mod sequence;
mod settings;
mod shared;
mod subscription;
mod supervisor;
mod trouble;

use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};

use crate::aws::retry;
use crate::clock::Clock;
use crate::framing::Positions;
use crate::metrics::IntakeMeter;
use crate::record::FormatChoice;
use crate::source::service::{self, Threads, shut_down};
use crate::source::{Emit, InputIds, Source, SourceError, StopFlag};

use beginning::Beginning;
use budget::ByteBudget;
use clients::Clients;
use feed::Outgoing;
use shared::Shared;
use supervisor::{Fatal, Supervisor};
use trouble::Trouble;

pub use counters::KinesisCounters;
pub use settings::{
    ConsumerAddress, FanOut, KinesisSettings, Moment, POLL_INTERVAL_MIN, RECORDS_PER_CALL_LIMIT,
    ReadMode, StartPosition, StreamAddress,
};

/// Most calls, and so connections, at one time.
pub const CALLS_MAX: usize = 128;
/// Chunks that may wait to be emitted; their payload counts against the byte budget.
const CHUNKS_WAITING_MAX: usize = 64;
/// For network and decoding; one reads more than a gigabyte a second.
const THREADS: Threads =
    Threads { name: "kinesis-read", cores_each: 4, max: 8, blocking_max: None };

/// A stream, read shard by shard from its start position on, for as long as it lasts.
pub struct KinesisSource {
    name: String,
    settings: KinesisSettings,
    format: FormatChoice,
    inputs: Arc<InputIds>,
    clock: Arc<dyn Clock>,
    counters: Arc<KinesisCounters>,
    positions: Arc<Positions>,
}

impl KinesisSource {
    /// A source called `name`; every shard becomes an input with an id out of `inputs`, and its lines
    /// have the layout `format` until a header says otherwise. Nothing is connected before `run`.
    #[must_use]
    pub fn new(
        name: String,
        settings: KinesisSettings,
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
    pub fn counters(&self) -> Arc<KinesisCounters> {
        Arc::clone(&self.counters)
    }

    fn refused(&self, message: String) -> SourceError {
        service::refused(&self.name, message)
    }

    /// `None` if a stop was requested meanwhile.
    fn connect(
        &self,
        runtime: &Runtime,
        stop: &StopFlag,
    ) -> Result<Option<Arc<Clients>>, SourceError> {
        let connected = service::connect(&self.name, &self.settings.access, runtime, stop)?;
        let Some(config) = connected else { return Ok(None) };
        Ok(Some(Clients::new(&config)))
    }
}

impl Source for KinesisSource {
    fn resume(&mut self, positions: Arc<Positions>) {
        self.positions = positions;
    }

    fn meter(&self) -> Option<IntakeMeter> {
        let (name, counters) = (Arc::from(self.name.as_str()), Arc::clone(&self.counters));
        Some(Arc::new(move || counters.intake(&name)))
    }

    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        let runtime = THREADS.start(&self.name)?;
        let Some(clients) = self.connect(&runtime, stop)? else { return Ok(()) };
        let shared = Arc::new(Shared {
            source_name: self.name.as_str().into(),
            clients,
            budget: ByteBudget::new(self.settings.read_ahead_bytes_max),
            calls: Semaphore::new(CALLS_MAX),
            counters: Arc::clone(&self.counters),
            trouble: Trouble::default(),
            clock: Arc::clone(&self.clock),
            settings: self.settings.clone(),
        });
        let (to, mut from) = mpsc::channel::<Outgoing>(CHUNKS_WAITING_MAX);
        let positions = Arc::clone(&self.positions);
        let beginning = Beginning::new(&shared, self.format.clone(), positions);
        let supervisor = Supervisor::new(shared, beginning, Arc::clone(&self.inputs), to);
        let stop = stop.clone();
        let supervised = runtime.spawn(async move { supervisor.run(&stop).await });

        while let Some(Outgoing { chunk, reservation }) = from.blocking_recv() {
            if emit(chunk).is_break() {
                drop(from);
                shut_down(runtime);
                return Ok(());
            }
            drop(reservation);
        }
        let outcome = runtime
            .block_on(supervised)
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        shut_down(runtime);
        match outcome {
            Ok(()) | Err(Fatal::HungUp) => Ok(()),
            Err(Fatal::Refused(message)) => Err(self.refused(message)),
        }
    }
}
