//! The HTTPS endpoint that Amazon Data Firehose delivers to.
//!
//! ```text
//! connections ─► intake: head, body, gzip, JSON ─► frames ─► writer: spool, sync ─► 200
//!                                                               └─► run() ─► emit
//! ```
//!
//! A small asynchronous runtime of its own serves the connections; a thread of it that may wait for the disk writes
//! the spool; the thread that calls [`FirehoseSource::run`] emits. The source has one input, the spool: what one request
//! after the other brought, in the order in which it became durable.
//!
//! A request is answered with 200 once it is in the spool, a few milliseconds after its last byte: to wait for the
//! next snapshot would take 10 seconds, for which everything had to be held in memory, and every connection open. Segments of
//! the spool are removed when a snapshot holds what they hold. Without a state directory there is no spool, and a request
//! is answered when its records were handed on.
//!
//! Memory: requests and what was taken out of them and is not emitted are limited by `memory_max`; what does not fit is
//! refused with 503 at once. A connection takes about 30 KiB while it is idle.

mod access;
pub mod body;
mod budget;
mod certificates;
mod counters;
mod frame;
mod head;
mod intake;
mod refusal;
mod server;
mod settings;
mod spool;
mod writer;

use std::collections::HashSet;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use crate::causes::with_causes;
use crate::checkpoint::disk::SystemDisk;
use crate::clock::Clock;
use crate::framing::{
    Chunk, ChunkData, ChunkEvent, InputId, InputInfo, Payload, Position, Positions, ResumePoint,
};
use crate::metrics::IntakeMeter;
use crate::record::FormatChoice;
use crate::source::service::{self, Threads, shut_down};
use crate::source::{Emit, InputIds, Settled, Source, SourceError, StopFlag};

use access::AccessKeys;
use budget::MemoryBudget;
use certificates::Certificates;
use frame::{FRAME_BYTES, Frame};
use intake::Intake;
use server::Server;
use spool::{Replay, Spool, SpoolLimits};
use writer::{Outgoing, Progress, Store, Taken, Writer, tell};

pub use certificates::tls_fault;
pub use counters::FirehoseCounters;
pub use settings::{FirehoseSettings, TlsFiles};

/// Requests that may wait for the disk; their memory counts against the budget.
const SUBMISSIONS_MAX: usize = 4_096;
/// The least that a request takes of the budget, and so how many may wait to be emitted.
const REQUEST_BYTES_MIN: u64 = 16 << 10;
/// For connections.
const THREADS: Threads = Threads { name: "firehose", cores_each: 2, max: 16, blocking_max: None };

/// An endpoint that takes deliveries for as long as it runs.
pub struct FirehoseSource {
    name: String,
    settings: FirehoseSettings,
    format: FormatChoice,
    /// Where the spool is; `None` without a state directory.
    spool_directory: Option<PathBuf>,
    inputs: Arc<InputIds>,
    clock: Arc<dyn Clock>,
    counters: Arc<FirehoseCounters>,
    positions: Arc<Positions>,
    settled: Arc<Settled>,
}

impl FirehoseSource {
    /// A source called `name` with its one input out of `inputs`, whose lines have the layout `format` until a header
    /// says otherwise. It listens as soon as it runs.
    #[must_use]
    pub fn new(
        name: String,
        settings: FirehoseSettings,
        format: FormatChoice,
        inputs: Arc<InputIds>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            name,
            settings,
            format,
            spool_directory: None,
            inputs,
            clock,
            counters: Arc::default(),
            positions: Arc::default(),
            settled: Arc::default(),
        }
    }

    /// The same, which keeps what it acknowledged in a directory for this source alone.
    #[must_use]
    pub fn with_spool(self, directory: PathBuf) -> Self {
        Self { spool_directory: Some(directory), ..self }
    }

    /// What the source counts while it runs.
    #[must_use]
    pub fn counters(&self) -> Arc<FirehoseCounters> {
        Arc::clone(&self.counters)
    }

    fn refused(&self, message: String) -> SourceError {
        service::refused(&self.name, message)
    }

    fn listen(&self) -> Result<TcpListener, SourceError> {
        let address = self.settings.listen;
        let listening = TcpListener::bind(address)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        listening.map_err(|error| {
            self.refused(format!("cannot listen on `{address}`: {error}; change its `listen`"))
        })
    }

    fn tls(&self) -> Result<Option<(Arc<Certificates>, TlsAcceptor)>, SourceError> {
        let Some(files) = &self.settings.tls else { return Ok(None) };
        let certificates =
            Certificates::load(files.clone()).map_err(|error| self.refused(with_causes(&error)))?;
        let config =
            certificates.server_config().map_err(|error| self.refused(error.to_string()))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Some((certificates, acceptor)))
    }

    /// Opens the spool, if there is one, behind what snapshots hold.
    fn store(&self, resume_at: Option<u64>) -> Result<(Store, Option<Replay>), SourceError> {
        let Some(directory) = &self.spool_directory else {
            tracing::warn!(
                source = self.name,
                "without `engine.state_dir` deliveries are acknowledged when they were handed on, and are lost if the process is killed"
            );
            return Ok((Store::memory(), None));
        };
        let limits = SpoolLimits::new(self.settings.spool_bytes_max);
        let (spool, replay) = Spool::open(Arc::new(SystemDisk), directory, resume_at, limits)
            .map_err(|error| self.refused(with_causes(&error)))?;
        Ok((Store::Spool(Box::new(spool)), Some(replay)))
    }

    /// Starts the connections and the writer; gives what they hand on.
    fn start(
        &self,
        runtime: &Runtime,
        parts: (TcpListener, Option<(Arc<Certificates>, TlsAcceptor)>, Store),
        progress: &Arc<Progress>,
        stop: &StopFlag,
    ) -> Result<mpsc::Receiver<Outgoing>, SourceError> {
        let (listener, tls, store) = parts;
        let is_full = Arc::new(AtomicBool::new(false));
        let (submissions, submitted) = mpsc::channel(SUBMISSIONS_MAX);
        let places = self.settings.memory_bytes_max / REQUEST_BYTES_MIN + 1;
        let (outgoing, from) = mpsc::channel(usize::try_from(places).unwrap_or(usize::MAX >> 4));
        let writer = Writer {
            store,
            submissions: submitted,
            outgoing,
            progress: Arc::clone(progress),
            counters: Arc::clone(&self.counters),
            is_full: Arc::clone(&is_full),
        };
        let handle = runtime.handle().clone();
        drop(runtime.spawn_blocking(move || writer.run(&handle)));
        let intake = Arc::new(Intake {
            source_name: self.name.as_str().into(),
            path: self.settings.path.clone(),
            keys: AccessKeys::new(&self.settings.access_keys, self.settings.allow_anonymous),
            budget: MemoryBudget::new(self.settings.memory_bytes_max),
            submissions,
            counters: Arc::clone(&self.counters),
            clock: Arc::clone(&self.clock),
            is_full,
            is_stopping: AtomicBool::new(false),
            is_look: self.settings.is_look,
            senders: Mutex::new(HashSet::new()),
            trouble: Mutex::new(None),
        });
        let address = listener.local_addr().unwrap_or(self.settings.listen);
        let _entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|error| self.refused(format!("cannot listen on `{address}`: {error}")))?;
        tracing::info!(
            source = self.name,
            %address,
            tls = tls.is_some(),
            "listens for deliveries"
        );
        let connections_max = self.settings.connections_max;
        let server = Server { listener, tls, connections_max, intake };
        drop(runtime.spawn(server.serve(stop.clone())));
        Ok(from)
    }
}

impl Source for FirehoseSource {
    fn resume(&mut self, positions: Arc<Positions>) {
        self.positions = positions;
    }

    fn settled_by(&mut self, settled: Arc<Settled>) {
        self.settled = settled;
    }

    fn meter(&self) -> Option<IntakeMeter> {
        let (name, counters) = (Arc::from(self.name.as_str()), Arc::clone(&self.counters));
        Some(Arc::new(move || counters.intake(&name)))
    }

    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        let name: Arc<str> = format!("{}/firehose", self.name).into();
        let point = self.positions.point(&name).cloned();
        let resume_at = point.as_ref().and_then(|point| point.position.as_spooled());
        let (listener, tls) = (self.listen()?, self.tls()?);
        let (store, replay) = self.store(resume_at)?;
        let runtime = THREADS.start(&self.name)?;
        let input = self.inputs.next();
        let progress = Arc::new(Progress::new(self.settled.watch(input)));
        let from = self.start(&runtime, (listener, tls, store), &progress, stop)?;
        let mut info = InputInfo::new(name, self.format.clone());
        info.resume = point.or_else(|| {
            let position = Position::spooled(resume_at.unwrap_or(0));
            Some(ResumePoint { position, layout: self.format.initial_layout(), file_start: None })
        });
        let mut feed = Feed { input, event_count: 0, progress, emit };
        let outcome = feed.run(info, replay, from);
        shut_down(runtime);
        outcome.map_err(|error| self.refused(with_causes(&error)))
    }
}

/// The input's way to the pipeline.
struct Feed<'a, 'b> {
    input: InputId,
    event_count: u64,
    progress: Arc<Progress>,
    emit: &'a mut Emit<'b>,
}

impl Feed<'_, '_> {
    /// Emits what was acknowledged before, then what comes, until nothing comes any more.
    fn run(
        &mut self,
        info: InputInfo,
        replay: Option<Replay>,
        mut from: mpsc::Receiver<Outgoing>,
    ) -> Result<(), spool::SpoolError> {
        if self.emit(ChunkEvent::Open(info)).is_break() {
            return Ok(());
        }
        if let Some(mut replay) = replay {
            let mut replayed_count = 0_u64;
            while let Some((frame, end)) = replay.next_frame()? {
                replayed_count += frame.record_count() as u64;
                if self.emit_frames(&[(frame, end)]).is_break() {
                    return Ok(());
                }
            }
            if replayed_count > 0 {
                tracing::info!(
                    records = replayed_count,
                    "records that were acknowledged before were read from the spool"
                );
            }
        }
        while let Some(first) = from.blocking_recv() {
            if self.emit_requests(first, &mut from).is_break() {
                return Ok(());
            }
        }
        // There is nobody to tell that nobody listens.
        let _goes_on = self.emit(ChunkEvent::Stop);
        Ok(())
    }

    /// Emits a request, and those behind it as long as they are small: a chunk has its price.
    fn emit_requests(
        &mut self,
        first: Outgoing,
        from: &mut mpsc::Receiver<Outgoing>,
    ) -> ControlFlow<()> {
        let (mut frames, mut reservations, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = Some(first);
        let mut bytes = 0;
        while let Some(Outgoing { frames: more, reservation, answer }) = next.take() {
            bytes += more.iter().map(|(frame, _)| frame.bytes().len()).sum::<usize>();
            frames.extend(more);
            reservations.push(reservation);
            answers.extend(answer);
            if bytes < FRAME_BYTES {
                next = from.try_recv().ok();
            }
        }
        let mut rest = &frames[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(chunk_length(rest));
            self.emit_frames(now)?;
            rest = later;
        }
        answers.into_iter().for_each(|answer| tell(answer, Ok(Taken::New)));
        drop(reservations);
        ControlFlow::Continue(())
    }

    fn emit_frames(&mut self, frames: &[(Frame, u64)]) -> ControlFlow<()> {
        let end = frames.last().map_or(0, |(_, end)| *end);
        let mut records = Vec::with_capacity(frames.iter().map(|(f, _)| f.record_count()).sum());
        for (frame, _) in frames {
            records.extend(frame.records());
        }
        let bytes_read = frames.iter().map(|(frame, _)| frame.wire_bytes()).sum();
        let position = Some(Position::spooled(end));
        let data = ChunkData { payload: Payload::Records(records), bytes_read, position };
        self.emit(ChunkEvent::Data(data))?;
        self.progress.note(self.event_count, end);
        ControlFlow::Continue(())
    }

    fn emit(&mut self, event: ChunkEvent) -> ControlFlow<()> {
        let chunk = Chunk { input: self.input, sequence: self.event_count, event };
        self.event_count += 1;
        (self.emit)(chunk)
    }
}

/// How many frames make a chunk.
fn chunk_length(frames: &[(Frame, u64)]) -> usize {
    let mut bytes = 0;
    let fits = |(frame, _): &&(Frame, u64)| {
        bytes += frame.bytes().len();
        bytes <= FRAME_BYTES
    };
    frames.iter().take_while(fits).count().max(1)
}
