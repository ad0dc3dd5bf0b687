//! Reading an Amazon Kinesis data stream by polling its shards.
//!
//! A small asynchronous runtime of its own reads all shards, one task each; the thread that calls
//! [`KinesisSource::run`] takes the chunks out of a bounded channel and emits them. While `emit`
//! waits, the channel fills, then the byte budget, and the tasks stop asking: that is the whole
//! back-pressure. Nothing is written to the stream or beside it: positions
//! travel with the chunks, and come back as those to go on from.
//!
//! ```text
//! supervisor ─starts─► shard reader ─GetRecords─► pieces ─channel─► run() ─► emit
//!     ▲                     │ shard end, children
//!     └── ListShards ◄──────┘
//! ```
//!
//! Memory: payload that was fetched and not yet emitted is limited by `read_ahead_max`; while
//! an answer is being decoded it takes about 2.4 times its payload, for at most [`CALLS_MAX`] answers.

mod budget;
mod counters;
mod discovery;
mod feed;
mod lineage;
mod pacing;
mod permissions;
mod sequence;
mod settings;
mod shard;
mod supervisor;

use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};

use crate::aws::retry;
use crate::clock::Clock;
use crate::framing::Positions;
use crate::record::FormatChoice;
use crate::source::{Emit, InputIds, Source, SourceError, StopFlag};

use budget::ByteBudget;
use feed::Outgoing;
use supervisor::{Fatal, Shared, Supervisor, Trouble, unless_requested};

pub use counters::{Count, KinesisCounters};
pub use settings::{
    KinesisSettings, Moment, POLL_INTERVAL_MIN, RECORDS_PER_CALL_LIMIT, StartPosition,
    StreamAddress,
};

/// Most calls, and so connections, at one time.
pub const CALLS_MAX: usize = 128;
/// Chunks that may wait to be emitted; their payload counts against the byte budget.
const CHUNKS_WAITING_MAX: usize = 64;
/// Threads for network and decoding: one per four cores. One decodes about 100 MB a second.
const CORES_PER_THREAD: usize = 4;
const THREADS_MAX: usize = 8;
/// How long calls in flight may hold up the end of a run that nobody listens to any more.
const SHUTDOWN_WAIT_MAX: Duration = Duration::from_secs(1);

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
        SourceError::Refused { name: self.name.clone(), message }
    }

    fn runtime(&self) -> Result<Runtime, SourceError> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads((cores / CORES_PER_THREAD).clamp(1, THREADS_MAX))
            .thread_name("kinesis-read")
            .enable_all()
            .build()
            .map_err(|error| {
                self.refused(format!("cannot start its threads: {error}; raise the thread limit"))
            })
    }

    /// `None` if a stop was requested meanwhile.
    fn connect(&self, runtime: &Runtime, stop: &StopFlag) -> Result<Option<Client>, SourceError> {
        let loading = unless_requested(stop, self.settings.access.load());
        let Some(loaded) = runtime.block_on(loading) else { return Ok(None) };
        let config = loaded.map_err(|error| self.refused(error.to_string()))?;
        // The SDK's own retries would hide throttling from the pace and the counters, and sleep with
        // an iterator that runs out; the readers know better what to repeat, and when.
        let config = aws_sdk_kinesis::config::Builder::from(&config)
            .retry_config(RetryConfig::disabled())
            .build();
        Ok(Some(Client::from_conf(config)))
    }
}

impl Source for KinesisSource {
    fn resume(&mut self, positions: Arc<Positions>) {
        self.positions = positions;
    }

    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        let runtime = self.runtime()?;
        let Some(client) = self.connect(&runtime, stop)? else { return Ok(()) };
        let shared = Arc::new(Shared {
            source_name: self.name.as_str().into(),
            client,
            budget: ByteBudget::new(self.settings.read_ahead_bytes_max),
            calls: Semaphore::new(CALLS_MAX),
            counters: Arc::clone(&self.counters),
            trouble: Trouble::default(),
            clock: Arc::clone(&self.clock),
            settings: self.settings.clone(),
        });
        let (to, mut from) = mpsc::channel::<Outgoing>(CHUNKS_WAITING_MAX);
        let supervisor = Supervisor::new(
            shared,
            self.format.clone(),
            Arc::clone(&self.inputs),
            to,
            Arc::clone(&self.positions),
        );
        let stop = stop.clone();
        let supervised = runtime.spawn(async move { supervisor.run(&stop).await });

        while let Some(Outgoing { chunk, reservation }) = from.blocking_recv() {
            if emit(chunk).is_break() {
                drop(from);
                runtime.shutdown_timeout(SHUTDOWN_WAIT_MAX);
                return Ok(());
            }
            drop(reservation);
        }
        let outcome = runtime
            .block_on(supervised)
            .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        runtime.shutdown_timeout(SHUTDOWN_WAIT_MAX);
        match outcome {
            Ok(()) | Err(Fatal::HungUp) => Ok(()),
            Err(Fatal::Refused(message)) => Err(self.refused(message)),
        }
    }
}
