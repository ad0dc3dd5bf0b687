//! What is to run, checked and complete: the only thing that starts a pipeline.
//!
//! A plan comes from a configuration file, from the command line of `analyze`, or is the built-in
//! demo. Every limit of the engine stands here with its default and range.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::detect::DetectSettings;
use crate::record::FormatChoice;
use crate::source::DemoSettings;
#[cfg(feature = "kinesis")]
use crate::source::kinesis::KinesisSettings;

/// Everything that a run needs to know.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Limits and pace of the whole.
    pub engine: EnginePlan,
    /// Where records come from; at least one.
    pub sources: Vec<SourcePlan>,
    /// What is looked for, and from which figures on.
    pub detectors: DetectSettings,
    /// Files that say what the operator knows of the network.
    pub context: Vec<PathBuf>,
    /// Where findings go; at least one.
    pub sinks: Vec<SinkPlan>,
}

impl Plan {
    /// What runs without a configuration: generated records, findings on standard output.
    #[must_use]
    pub fn demo() -> Self {
        Self {
            engine: EnginePlan::default(),
            sources: vec![SourcePlan {
                name: "demo".to_owned(),
                kind: SourceKind::Demo(DemoSettings::default()),
                format: FormatChoice::Auto,
            }],
            detectors: DetectSettings::default(),
            context: Vec::new(),
            sinks: vec![SinkPlan::stdout()],
        }
    }
}

/// A setting's default and the range in which it may lie, both ends included.
#[derive(Clone, Copy, Debug)]
pub struct Limits<T> {
    /// The value if the file has none.
    pub default: T,
    /// The least value.
    pub min: T,
    /// The greatest value.
    pub max: T,
}

/// Limits and pace of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnginePlan {
    /// Parse threads, and as many state shards; 0 is one per core.
    pub threads: usize,
    /// Length of a pane, in whole seconds: the step in which windows slide.
    pub pane: Duration,
    /// How far event time may run ahead of a record that still counts in its window; whole seconds. What
    /// each input shows without it.
    pub lateness: Option<Duration>,
    /// After this much silence an input no longer holds the watermark back.
    pub idle_after: Duration,
    /// Chunks that may wait in each channel.
    pub queue_depth: usize,
    /// Most bytes that one compressed record may inflate to.
    pub inflated_max_bytes: u64,
    /// Longest line; a longer one is counted as malformed.
    pub line_max_bytes: u64,
}

impl EnginePlan {
    /// Of [`Self::threads`].
    pub const THREADS: Limits<u64> = Limits { default: 0, min: 0, max: 1024 };
    /// Of [`Self::pane`].
    pub const PANE: Limits<Duration> = Limits {
        default: Duration::from_mins(1),
        min: Duration::from_secs(1),
        max: Duration::from_hours(1),
    };
    /// Of [`Self::lateness`] if it is set; the default is what holds until an input has shown another.
    pub const LATENESS: Limits<Duration> = Limits {
        default: Duration::from_mins(10),
        min: Duration::ZERO,
        max: Duration::from_hours(24),
    };
    /// Of [`Self::idle_after`].
    pub const IDLE_AFTER: Limits<Duration> = Limits {
        default: Duration::from_mins(1),
        min: Duration::from_secs(1),
        max: Duration::from_hours(1),
    };
    /// Of [`Self::queue_depth`].
    pub const QUEUE_DEPTH: Limits<u64> = Limits { default: 8, min: 1, max: 1024 };
    /// Of [`Self::inflated_max_bytes`].
    pub const INFLATED_MAX_BYTES: Limits<u64> =
        Limits { default: 256 << 20, min: 1 << 20, max: 64 << 30 };
    /// Of [`Self::line_max_bytes`].
    pub const LINE_MAX_BYTES: Limits<u64> =
        Limits { default: 16 << 20, min: 1 << 10, max: 1 << 30 };

    /// How many parse threads to start: the configured number, or one per core that the process may
    /// use.
    #[must_use]
    pub fn thread_count(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.threads)
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN)
    }
}

impl Default for EnginePlan {
    fn default() -> Self {
        Self {
            threads: usize_from(Self::THREADS.default),
            pane: Self::PANE.default,
            lateness: None,
            idle_after: Self::IDLE_AFTER.default,
            queue_depth: usize_from(Self::QUEUE_DEPTH.default),
            inflated_max_bytes: Self::INFLATED_MAX_BYTES.default,
            line_max_bytes: Self::LINE_MAX_BYTES.default,
        }
    }
}

/// A count within the limits above as an index.
pub(super) fn usize_from(count: u64) -> usize {
    usize::try_from(count).expect("limits of counts are far below 2^16")
}

/// One source.
#[derive(Clone, Debug)]
pub struct SourcePlan {
    /// The name in the configuration: `[a-z0-9_-]+`.
    pub name: String,
    /// Which kind, with its settings.
    pub kind: SourceKind,
    /// Which layout its lines have until a header says otherwise.
    pub format: FormatChoice,
}

/// The kinds of sources.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// Files, directories and patterns, as [`crate::source::discover`] takes them.
    File {
        /// At least one.
        paths: Vec<PathBuf>,
    },
    /// Standard input until its end.
    Stdin,
    /// Generated records with planted attacks.
    Demo(DemoSettings),
    /// A Kinesis data stream.
    #[cfg(feature = "kinesis")]
    Kinesis(KinesisSettings),
}

/// One sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkPlan {
    /// The name in the configuration: `[a-z0-9_-]+`.
    pub name: String,
    /// Which kind, with its settings.
    pub kind: SinkKind,
}

impl SinkPlan {
    /// The sink of a configuration that names none.
    #[must_use]
    pub fn stdout() -> Self {
        Self { name: "stdout".to_owned(), kind: SinkKind::Stdout }
    }
}

/// The kinds of sinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// Findings as lines of JSON on standard output.
    Stdout,
    /// Findings as lines of JSON at the end of a file.
    File {
        /// The file; its directory must exist.
        path: PathBuf,
    },
}
