//! From a plan to a job: opens sources and sinks, and supplies what only the edge of the program knows
//! (clock, seed, environment).

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use crossbeam_channel::Receiver;

use super::failure::Failure;
use super::remote;
use crate::aggregate::{Lateness, TimeSettings, TopSpec};
use crate::checkpoint::disk::SystemDisk;
use crate::checkpoint::{
    CheckpointError, DeadLetterSettings, DeadLetters, JournalSettings, PartialWriter, RemoteError,
    StateDirectory,
};
use crate::clock::Clock;
use crate::config::{self, EnginePlan, SinkKind, SinkPlan, SourceKind, SourcePlan};
use crate::detect::{DetectSettings, Network};
use crate::enrich::OperatorContext;
use crate::framing::Limits;
use crate::pipeline::{
    Control, Detectors, Job, JobState, Live, MemoryPlan, RunError, memory_bytes_min,
};
use crate::record::{FieldId, Filter, Slot};
use crate::simd::Isa;
use crate::sink::{FileSink, Sink, SinkError, StdoutSink, encode};
#[cfg(feature = "cloudwatch")]
use crate::source::cloudwatch::CloudWatchSource;
#[cfg(feature = "firehose")]
use crate::source::firehose::FirehoseSource;
#[cfg(feature = "kinesis")]
use crate::source::kinesis::KinesisSource;
#[cfg(feature = "s3")]
use crate::source::s3::S3Source;
use crate::source::{
    DemoSource, FileSource, InputIds, RateLimit, STDIN, Source, StopFlag, discover,
};
use crate::units::{self, ByteCount, UnixSeconds};

/// The tops of a report if none is asked for: by whom, to whom, between whom, which service, which
/// interface.
const DEFAULT_TOPS: [&[FieldId]; 5] = [
    &[FieldId::SrcAddr],
    &[FieldId::DstAddr],
    &[FieldId::SrcAddr, FieldId::DstAddr],
    &[FieldId::DstPort],
    &[FieldId::InterfaceId],
];

/// How far into the future a record may end before its clock is taken to be broken.
const FUTURE_MAX_SECONDS: i64 = 24 * 60 * 60;

/// The environment variable that forces the byte kernels, for bug reports: `scalar`, `sse2`, `avx2` …
const ISA_VARIABLE: &str = "FLOWGAUGE_ISA";

/// What the caller of [`build`] decides.
pub(crate) struct Request {
    pub(crate) engine: EnginePlan,
    pub(crate) inputs: Inputs,
    pub(crate) filter: Option<Filter>,
    pub(crate) tops: Vec<TopSpec>,
    pub(crate) detectors: Option<Detectors>,
    pub(crate) sinks: Vec<Box<dyn Sink>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: StopFlag,
    pub(crate) progress: Box<dyn FnMut(u64) + Send>,
    pub(crate) keeping: Keeping,
}

/// What is to outlive the run, beside findings.
pub(crate) struct Keeping {
    /// Where partials go.
    pub(crate) partials: Option<PathBuf>,
    pub(crate) state: Option<JobState>,
    /// What could not be read.
    pub(crate) dead_letters: Option<DeadLetters>,
    /// Changes while it runs.
    pub(crate) control: Receiver<Control>,
    /// Told how it stands.
    pub(crate) live: Arc<Live>,
}

impl Default for Keeping {
    fn default() -> Self {
        Self {
            partials: None,
            state: None,
            dead_letters: None,
            control: crossbeam_channel::never(),
            live: Arc::default(),
        }
    }
}

/// Opened sources.
pub(crate) struct Inputs {
    sources: Vec<Box<dyn Source>>,
    /// Inputs that are known beforehand; event time waits for them.
    expected_count: usize,
    /// Whether every input ends by itself.
    is_bounded: bool,
}

/// The keys of the default tops.
pub(crate) fn default_keys() -> Vec<Vec<Slot>> {
    let slots = |fields: &&[FieldId]| fields.iter().copied().map(Slot::Known).collect();
    DEFAULT_TOPS.iter().map(slots).collect()
}

/// The job of a request.
pub(crate) fn build(request: Request) -> Result<Job, Failure> {
    let Request { engine, inputs, filter, tops, detectors, sinks, .. } = request;
    let Request { clock, stop, progress, keeping, .. } = request;
    let now = clock.now();
    let (memory, partials) = (memory(&engine, keeping.state.is_some()), partials(&keeping)?);
    Ok(Job {
        sources: inputs.sources,
        expected_inputs: inputs.expected_count,
        thread_count: engine.thread_count().get(),
        queue_depth: engine.queue_depth,
        limits: limits(&engine),
        pane_seconds: whole_seconds(engine.pane),
        time: TimeSettings {
            lateness: lateness(engine.lateness),
            idle_after: (!inputs.is_bounded).then_some(engine.idle_after),
            latest_plausible_end: now.saturating_add(FUTURE_MAX_SECONDS),
        },
        filter,
        tops,
        detectors,
        sinks,
        isa: isa()?,
        seed: RandomState::new().hash_one(0_u8),
        clock,
        stop,
        progress,
        control: keeping.control,
        live: keeping.live,
        memory,
        partials,
        dead_letters: keeping.dead_letters,
        state: keeping.state,
    })
}

/// How much memory the tables of a run may take.
pub(crate) fn memory(engine: &EnginePlan, has_snapshots: bool) -> MemoryPlan {
    let (memory_bytes, _) = engine.memory_max.bytes(Path::new("/"));
    let threads = engine.thread_count().get() as u64;
    let least_bytes = memory_bytes_min(threads, has_snapshots);
    if memory_bytes < least_bytes {
        tracing::warn!(
            wanted = %ByteCount(memory_bytes.into()),
            taken = %ByteCount(least_bytes.into()),
            threads,
            "`memory_max` is too little for so many threads; raise it, or lower `threads`"
        );
    }
    MemoryPlan::of(memory_bytes, threads, has_snapshots)
}

fn partials(keeping: &Keeping) -> Result<Option<PartialWriter>, Failure> {
    let Some(path) = &keeping.partials else { return Ok(None) };
    let directory = StateDirectory::open(Arc::new(SystemDisk), path).map_err(Failure::usage)?;
    Ok(Some(PartialWriter::new(directory).map_err(Failure::usage)?))
}

/// Opens the state directory of a plan, if it has one.
pub(crate) fn state(
    engine: &EnginePlan,
    clock: &Arc<dyn Clock>,
) -> Result<Option<JobState>, Failure> {
    let Some(path) = &engine.state_dir else { return Ok(None) };
    let directory = StateDirectory::open(Arc::new(SystemDisk), path).map_err(Failure::usage)?;
    let journal = JournalSettings {
        file_bytes_max: engine.journal.file_bytes_max,
        files_max: engine.journal.files_max,
        ..JournalSettings::default()
    };
    let (encode, interval) = (encode::ndjson::encode, engine.checkpoint.interval);
    let remote = match &engine.checkpoint.remote {
        None => None,
        Some(plan) => Some(remote::settings(plan, clock)?),
    };
    Ok(Some(JobState { directory, journal, encode, interval, remote }))
}

/// Opens the dead letters of a plan: in its file, else in the state directory, if there is one.
pub(crate) fn dead_letters(
    engine: &EnginePlan,
    state: Option<&JobState>,
) -> Result<Option<DeadLetters>, Failure> {
    let total_bytes_max = engine.dead_letters.bytes_max;
    let settings = DeadLetterSettings::default();
    let file_bytes_max = settings.file_bytes_max.min(total_bytes_max);
    let settings = DeadLetterSettings { file_bytes_max, total_bytes_max, ..settings };
    let letters = match (&engine.dead_letters.path, state) {
        (Some(path), _) => DeadLetters::open_file(Arc::new(SystemDisk), path, settings),
        (None, Some(state)) => DeadLetters::open(Arc::clone(&state.directory), settings),
        (None, None) => return Ok(None),
    };
    letters.map(Some).map_err(Failure::usage)
}

fn lateness(configured: config::Lateness) -> Lateness {
    match configured {
        config::Lateness::Auto => Lateness::Detected,
        config::Lateness::Fixed(lateness) => Lateness::Fixed(whole_seconds(lateness)),
    }
}

fn whole_seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).expect("durations of a plan are below a day")
}

/// The framing limits of an engine.
pub(crate) fn limits(engine: &EnginePlan) -> Limits {
    let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Limits {
        line_bytes_max: bytes(engine.line_max_bytes),
        inflated_bytes_max: bytes(engine.inflated_max_bytes),
        ..Limits::default()
    }
}

fn isa() -> Result<Isa, Failure> {
    let Ok(name) = std::env::var(ISA_VARIABLE) else { return Ok(Isa::detect()) };
    let available = Isa::available();
    Isa::from_name(&name).filter(|isa| available.contains(isa)).ok_or_else(|| {
        let names: Vec<&str> = available.iter().map(|isa| isa.name()).collect();
        Failure::usage(anyhow::anyhow!(
            "{ISA_VARIABLE} is `{name}`, which this machine doesn't have; use one of {}, or unset it",
            names.join(", ")
        ))
    })
}

/// The range of `--since` and `--until`.
pub(crate) fn event_time(
    since: Option<UnixSeconds>,
    until: Option<UnixSeconds>,
) -> (Bound<i64>, Bound<i64>) {
    (
        since.map_or(Bound::Unbounded, |since| Bound::Included(since.0)),
        until.map_or(Bound::Unbounded, |until| Bound::Excluded(until.0)),
    )
}

/// The sources of a plan.
pub(crate) fn plan_inputs(
    plans: &[SourcePlan],
    engine: &EnginePlan,
    clock: &Arc<dyn Clock>,
) -> Result<Inputs, Failure> {
    let ids = Arc::new(InputIds::default());
    let mut inputs = Inputs { sources: Vec::new(), expected_count: 0, is_bounded: true };
    for plan in plans {
        let name = plan.name.clone();
        let first = inputs.sources.len();
        match &plan.kind {
            SourceKind::File { paths } => {
                let files = discover(paths).map_err(Failure::usage)?;
                let limits = limits(engine);
                let reader_count = engine.thread_count().get();
                let readers = FileSource::split(&files, &plan.format, &limits, reader_count, &ids);
                inputs.sources.extend(readers);
                inputs.expected_count += files.len();
            }
            SourceKind::Stdin => {
                let stdin = [PathBuf::from(STDIN)];
                let reader = FileSource::split(&stdin, &plan.format, &limits(engine), 1, &ids);
                inputs.sources.extend(reader);
                inputs.expected_count += 1;
                inputs.is_bounded = false;
            }
            SourceKind::Demo(settings) => {
                let layout = plan.format.initial_layout();
                let clock = Arc::clone(clock);
                let source = DemoSource::new(&name, settings, layout, &ids, clock);
                inputs.sources.push(Box::new(source));
                inputs.is_bounded = false;
            }
            #[cfg(feature = "kinesis")]
            SourceKind::Kinesis(settings) => {
                let format = plan.format.clone();
                let ids = Arc::clone(&ids);
                let clock = Arc::clone(clock);
                let source = KinesisSource::new(name, (**settings).clone(), format, ids, clock);
                inputs.sources.push(Box::new(source));
                inputs.is_bounded = false;
            }
            #[cfg(feature = "s3")]
            SourceKind::S3(settings) => {
                let read_as = (plan.format.clone(), limits(engine));
                let (ids, clock) = (Arc::clone(&ids), Arc::clone(clock));
                let source = S3Source::new(name, settings.clone(), read_as, ids, clock);
                inputs.sources.push(Box::new(source));
                inputs.is_bounded = false;
            }
            #[cfg(feature = "cloudwatch")]
            SourceKind::CloudWatch(settings) => {
                let format = plan.format.clone();
                let ids = Arc::clone(&ids);
                let clock = Arc::clone(clock);
                inputs.expected_count += settings.log_groups.len();
                inputs.is_bounded &= settings.end.is_some();
                let source = CloudWatchSource::new(name, settings.clone(), format, ids, clock);
                inputs.sources.push(Box::new(source));
            }
            #[cfg(feature = "firehose")]
            SourceKind::Firehose(settings) => {
                let (format, ids, clock) =
                    (plan.format.clone(), Arc::clone(&ids), Arc::clone(clock));
                let state_dir = engine.state_dir.as_ref().filter(|_| !settings.is_look);
                let spool = state_dir.map(|path| path.join("spool").join(&name));
                let source = FirehoseSource::new(name, settings.clone(), format, ids, clock);
                let source = match spool {
                    Some(spool) => source.with_spool(spool),
                    None => source,
                };
                inputs.sources.push(Box::new(source));
                inputs.is_bounded = false;
            }
        }
        if let Some(limit) = plan.rate_limit {
            let held = inputs.sources.split_off(first);
            inputs.sources.extend(hold(held, limit, clock));
        }
    }
    Ok(inputs)
}

/// Sources that share a limit.
fn hold(
    sources: Vec<Box<dyn Source>>,
    limit: units::RateLimit,
    clock: &Arc<dyn Clock>,
) -> impl Iterator<Item = Box<dyn Source>> {
    let limit = RateLimit::new(limit.0.get(), Arc::clone(clock));
    sources.into_iter().map(move |source| limit.hold(source))
}

impl Inputs {
    /// Sources that end by themselves, of so many inputs.
    pub(crate) fn bounded(sources: Vec<Box<dyn Source>>, count: usize) -> Self {
        Self { sources, expected_count: count, is_bounded: true }
    }

    /// These and another source that ends by itself, of so many inputs.
    #[cfg(feature = "s3")]
    pub(crate) fn and(mut self, source: Box<dyn Source>, count: usize) -> Self {
        self.sources.push(source);
        self.expected_count += count;
        self
    }

    /// The sources alone, for who reads a little of them.
    pub(crate) fn into_sources(self) -> Vec<Box<dyn Source>> {
        self.sources
    }

    /// The same inputs, read no faster than this altogether.
    pub(crate) fn held(mut self, limit: units::RateLimit, clock: &Arc<dyn Clock>) -> Self {
        self.sources = hold(self.sources, limit, clock).collect();
        self
    }
}

/// Reads the value of `--rate-limit`.
pub(crate) fn rate_limit(text: &str) -> Result<units::RateLimit, String> {
    units::RateLimit::from_text(text).ok_or_else(|| format!("it must be {}", units::RATE_FORMS))
}

/// The sinks of a plan, opened.
pub(crate) fn plan_sinks(plans: &[SinkPlan]) -> Result<Vec<Box<dyn Sink>>, Failure> {
    plans
        .iter()
        .map(|plan| match &plan.kind {
            SinkKind::Stdout => Ok(stdout_sink(&plan.name)),
            SinkKind::File { path } => file_sink(&plan.name, path),
        })
        .collect()
}

/// Findings to a file that holds nothing else, or to standard output for `-`.
pub(crate) fn finding_sinks(path: Option<&Path>) -> Result<Vec<Box<dyn Sink>>, Failure> {
    match path {
        None => Ok(Vec::new()),
        Some(path) if path.as_os_str() == STDIN => Ok(vec![stdout_sink("findings")]),
        Some(path) => {
            // A report describes one run: what an earlier run left in the file does not belong.
            match std::fs::File::create(path) {
                Ok(_) => Ok(vec![file_sink("findings", path)?]),
                Err(error) => Err(Failure::usage(
                    anyhow::Error::new(error)
                        .context(format!("cannot write findings to `{}`", path.display())),
                )),
            }
        }
    }
}

/// Findings to standard output.
pub(crate) fn stdout_sink(name: &str) -> Box<dyn Sink> {
    Box::new(StdoutSink::new(name.to_owned()))
}

/// Findings to the end of a file.
pub(crate) fn file_sink(name: &str, path: &Path) -> Result<Box<dyn Sink>, Failure> {
    let sink = FileSink::open(name.to_owned(), path);
    Ok(Box::new(sink.map_err(Failure::usage)?))
}

/// Detectors that know what the context files say.
pub(crate) fn detectors(
    settings: &DetectSettings,
    context_files: &[PathBuf],
) -> Result<Detectors, Failure> {
    let mut operator = OperatorContext::default();
    for path in context_files {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read context file `{}`", path.display()))
            .map_err(Failure::Usage)?;
        let one = OperatorContext::from_json(&text)
            .with_context(|| format!("context file `{}`", path.display()))
            .map_err(Failure::Usage)?;
        operator.merge(one);
    }
    let network = Network {
        inside: operator.vpc_cidrs,
        allowlisted: operator.allowlisted_scanners,
        nat_gateways: operator.nat_gateways,
        interfaces: operator.interfaces,
    };
    Ok(Detectors { settings: settings.clone(), network })
}

/// How a failed run is told.
pub(crate) fn run_failure(error: RunError) -> Failure {
    match error {
        RunError::Sink(SinkError::Closed { .. }) => Failure::OutputClosed,
        // Nothing was started.
        RunError::State(CheckpointError::Remote(
            owned @ (RemoteError::Owned { .. }
            | RemoteError::OtherJob { .. }
            | RemoteError::TwoRuns { .. }),
        )) => Failure::usage(owned),
        other => Failure::running(other),
    }
}
