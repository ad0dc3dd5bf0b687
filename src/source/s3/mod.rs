//! Reading objects of Amazon S3: a list of them to its end, or new ones for as long as they come.
//!
//! A small asynchronous runtime of its own reads several objects at a time, one task each; the thread that calls
//! `run` takes the chunks out of a bounded channel and emits them. While `emit` waits, the channel fills, then
//! the byte budget, and the tasks stop asking: that is the whole back-pressure. Every object is an input; nothing is
//! written to the bucket.
//!
//! ```text
//! arguments ─► objects ───────────┐
//! queue ──► notification ─► keeper ├─► library ─ranges─► pieces ─channel─► run() ─► emit
//! listing ──► days, keys ─────────┘
//! ```
//!
//! What was read is known by the object's name and etag ([`S3Object::name`]): within a run by a bounded memory
//! here, over runs by the engine's positions.

mod counters;
mod failure;
mod feed;
mod layout;
mod list;
mod listing;
mod notification;
mod object;
mod parts;
mod permissions;
mod queue;
mod readers;
mod settings;
mod sqs;
mod store;
mod url;

use std::sync::Arc;

use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::framing::{Chunk, InputInfo, Limits, Positions};
use crate::metrics::IntakeMeter;
use crate::record::FormatChoice;
use crate::source::service::{Threads, connect, refused, shut_down};
use crate::source::{Emit, InputIds, Settled, Source, SourceError, StopFlag};

use feed::CHUNKS_WAITING_MAX;
use listing::Listing;
use object::Library;
use queue::Keeper;
use store::{Patience, Store};

pub use counters::S3Counters;
pub use list::{ObjectsSource, S3ListError, discover_objects};
pub use notification::{Told, read_notification};
pub use object::S3Object;
pub use settings::{Intake, ListingSettings, QueueSettings, S3Settings};
pub use url::{S3_SCHEME, S3Url, S3UrlError};

/// Threads for the network at most, one per two cores; TLS decodes some hundred MB a second on each.
const THREADS_MAX: usize = 8;

/// New objects of a bucket, for as long as they come.
pub struct S3Source {
    name: String,
    settings: S3Settings,
    format: FormatChoice,
    limits: Limits,
    inputs: Arc<InputIds>,
    clock: Arc<dyn Clock>,
    counters: Arc<S3Counters>,
    positions: Arc<Positions>,
    settled: Option<Arc<Settled>>,
}

/// Why a source as a whole ended before it was told to.
enum Fatal {
    /// The text says what was refused and what to do.
    Refused(String),
    /// The pipeline takes no more.
    HungUp,
}

/// What those who find objects share with those who read them.
struct Desk {
    source_name: Arc<str>,
    library: Arc<Library>,
    format: FormatChoice,
    inputs: Arc<InputIds>,
    clock: Arc<dyn Clock>,
    counters: Arc<S3Counters>,
    positions: Arc<Positions>,
    settled: Option<Arc<Settled>>,
    parallel: usize,
    to: mpsc::Sender<Chunk>,
    stop: StopFlag,
}

impl S3Source {
    /// A source called `name`; every object becomes an input with an id out of `inputs`, and its lines have the
    /// layout `format` until a header says otherwise. Nothing is connected before `run`.
    #[must_use]
    pub fn new(
        name: String,
        settings: S3Settings,
        (format, limits): (FormatChoice, Limits),
        inputs: Arc<InputIds>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            name,
            settings,
            format,
            limits,
            inputs,
            clock,
            counters: Arc::default(),
            positions: Arc::default(),
            settled: None,
        }
    }

    /// What the source counts while it runs.
    #[must_use]
    pub fn counters(&self) -> Arc<S3Counters> {
        Arc::clone(&self.counters)
    }
}

impl Source for S3Source {
    fn resume(&mut self, positions: Arc<Positions>) {
        self.positions = positions;
    }

    fn settled_by(&mut self, settled: Arc<Settled>) {
        self.settled = Some(settled);
    }

    fn meter(&self) -> Option<IntakeMeter> {
        let (name, counters) = (Arc::from(self.name.as_str()), Arc::clone(&self.counters));
        Some(Arc::new(move || counters.intake(&name)))
    }

    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        let Self { name, settings, format, limits, inputs, clock, counters, positions, settled } =
            *self;
        let S3Settings { intake, access, parallel, read_ahead_bytes_max } = settings;
        let parallel = usize::from(parallel);
        let runtime = runtime(&name, parallel)?;
        let Some(config) = connect(&name, &access, &runtime, stop)? else { return Ok(()) };
        let (to, from) = mpsc::channel(CHUNKS_WAITING_MAX);
        let store = Store::new(
            config.clone(),
            Patience::UntilStopped,
            Arc::clone(&counters),
            Arc::clone(&clock),
            stop.clone(),
        );
        let desk = Desk {
            source_name: name.as_str().into(),
            library: Arc::new(Library::new(store, limits, read_ahead_bytes_max, stop.clone())),
            format,
            inputs,
            clock,
            counters,
            positions,
            settled,
            parallel,
            to,
            stop: stop.clone(),
        };
        let found = runtime.spawn(async move {
            match intake {
                Intake::Queue(queue) => Keeper::new(Arc::new(desk), queue, &config).run().await,
                Intake::Listing(listing) => Listing::new(Arc::new(desk), listing).run().await,
            }
        });
        hand_on(&name, runtime, from, found, emit)
    }
}

/// A runtime that reads so many objects at a time.
fn runtime(name: &str, parallel: usize) -> Result<Runtime, SourceError> {
    // One cuts each object, and names of hosts are looked up on such threads too.
    let blocking_max = Some(parallel + THREADS_MAX);
    Threads { name: "s3-read", cores_each: 2, max: THREADS_MAX, blocking_max }.start(name)
}

/// Emits what comes over the channel until it is closed, and tells how finding ended.
fn hand_on(
    name: &str,
    runtime: Runtime,
    mut from: mpsc::Receiver<Chunk>,
    found: tokio::task::JoinHandle<Result<(), Fatal>>,
    emit: &mut Emit<'_>,
) -> Result<(), SourceError> {
    while let Some(chunk) = from.blocking_recv() {
        if emit(chunk).is_break() {
            drop(from);
            shut_down(runtime);
            return Ok(());
        }
    }
    let outcome = runtime
        .block_on(found)
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    shut_down(runtime);
    match outcome {
        Ok(()) | Err(Fatal::HungUp) => Ok(()),
        Err(Fatal::Refused(message)) => Err(refused(name, message)),
    }
}

impl Desk {
    /// What is said of an object when it is opened, with where it goes on.
    fn info(&self, name: &Arc<str>) -> InputInfo {
        InputInfo {
            resume: self.positions.point(name).cloned(),
            ..InputInfo::new(Arc::clone(name), self.format.clone())
        }
    }
}
