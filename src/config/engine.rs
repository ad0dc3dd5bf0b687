//! `[engine]` as usable: limits and pace of a run, what is saved and where. Every limit stands here with
//! its default and range.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::metrics::{MemoryLimit, memory_limit};

use super::file::FileRole;
use super::reader::{TableReader, Text};
use super::remote::RemotePlan;

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
    /// Memory that the process may use.
    pub memory_max: MemoryMax,
    /// Length of a pane, in whole seconds: the step in which windows slide.
    pub pane: Duration,
    /// How far event time may run ahead of a record that still counts in its window.
    pub lateness: Lateness,
    /// After this much silence an input no longer holds the watermark back.
    pub idle_after: Duration,
    /// Chunks that may wait in each channel.
    pub queue_depth: usize,
    /// Most bytes that one compressed record may inflate to.
    pub inflated_max_bytes: u64,
    /// Longest line; a longer one is counted as malformed.
    pub line_max_bytes: u64,
    /// Where snapshots and the journal of findings are kept, in folders of the engine's; without it
    /// nothing is saved, and a restart begins anew.
    pub state_dir: Option<PathBuf>,
    /// When the state is saved.
    pub checkpoint: CheckpointPlan,
    /// How long the journal of findings grows.
    pub journal: JournalPlan,
    /// What happens to chunks that can't be read.
    pub dead_letters: DeadLetterPlan,
    /// How long a drain may take before the process ends with what is saved.
    pub shutdown_limit: Duration,
}

impl EnginePlan {
    /// Of [`Self::threads`].
    pub const THREADS: Limits<u64> = Limits { default: 0, min: 0, max: 1024 };
    /// Of [`Self::memory_max`] where it is a size. The default holds where `auto` finds nothing out.
    pub const MEMORY_MAX_BYTES: Limits<u64> =
        Limits { default: 1 << 30, min: 64 << 20, max: 1 << 44 };
    /// Of [`Self::pane`].
    pub const PANE: Limits<Duration> = Limits {
        default: Duration::from_mins(1),
        min: Duration::from_secs(1),
        max: Duration::from_hours(1),
    };
    /// Of [`Self::lateness`] where it is fixed. The default is where `auto` begins.
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
    /// Of [`Self::shutdown_limit`].
    pub const SHUTDOWN_LIMIT: Limits<Duration> = Limits {
        default: Duration::from_mins(1),
        min: Duration::from_secs(1),
        max: Duration::from_hours(24),
    };

    /// How many parse threads to start: the configured number, or one per core that the process may
    /// use.
    #[must_use]
    pub fn thread_count(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.threads)
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN)
    }

    /// Takes every key of `[engine]`; paths are noted in `files`.
    pub(super) fn read(engine: &mut TableReader<'_>, files: &mut Vec<(FileRole, Text)>) -> Self {
        let mut path = |table: &mut TableReader<'_>, key, role| {
            let text = table.text(key)?;
            let path = PathBuf::from(&text.content);
            files.push((role, text));
            Some(path)
        };
        let memory_max = engine.size_or_auto("memory_max", &Self::MEMORY_MAX_BYTES);
        let lateness = engine.seconds_or_auto("lateness", &Self::LATENESS);
        let mut plan = Self {
            threads: usize_from(engine.count("threads", &Self::THREADS)),
            memory_max: memory_max.map_or(MemoryMax::Auto, MemoryMax::Bytes),
            pane: engine.seconds("pane", &Self::PANE),
            lateness: lateness.map_or(Lateness::Auto, Lateness::Fixed),
            idle_after: engine.duration("idle_after", &Self::IDLE_AFTER),
            queue_depth: usize_from(engine.count("queue_depth", &Self::QUEUE_DEPTH)),
            inflated_max_bytes: engine.size("inflated_max", &Self::INFLATED_MAX_BYTES),
            line_max_bytes: engine.size("line_max", &Self::LINE_MAX_BYTES),
            state_dir: path(engine, "state_dir", FileRole::State),
            ..Self::default()
        };
        if let Some(mut table) = engine.table("checkpoint") {
            plan.checkpoint.interval = table.duration("interval", &CheckpointPlan::INTERVAL);
            plan.checkpoint.remote = RemotePlan::read(&mut table, plan.state_dir.is_some());
            engine.absorb(table);
        }
        if let Some(mut table) = engine.table("journal") {
            plan.journal = JournalPlan {
                file_bytes_max: table.size("file_bytes_max", &JournalPlan::FILE_BYTES_MAX),
                files_max: usize_from(table.count("files_max", &JournalPlan::FILES_MAX)),
            };
            engine.absorb(table);
        }
        if let Some(mut table) = engine.table("dead_letters") {
            plan.dead_letters = DeadLetterPlan {
                path: path(&mut table, "path", FileRole::Sink),
                bytes_max: table.size("bytes_max", &DeadLetterPlan::BYTES_MAX),
            };
            engine.absorb(table);
        }
        if let Some(mut table) = engine.table("shutdown") {
            plan.shutdown_limit = table.duration("limit", &Self::SHUTDOWN_LIMIT);
            engine.absorb(table);
        }
        plan
    }
}

impl Default for EnginePlan {
    fn default() -> Self {
        Self {
            threads: usize_from(Self::THREADS.default),
            memory_max: MemoryMax::Auto,
            pane: Self::PANE.default,
            lateness: Lateness::Auto,
            idle_after: Self::IDLE_AFTER.default,
            queue_depth: usize_from(Self::QUEUE_DEPTH.default),
            inflated_max_bytes: Self::INFLATED_MAX_BYTES.default,
            line_max_bytes: Self::LINE_MAX_BYTES.default,
            state_dir: None,
            checkpoint: CheckpointPlan::default(),
            journal: JournalPlan::default(),
            dead_letters: DeadLetterPlan::default(),
            shutdown_limit: Self::SHUTDOWN_LIMIT.default,
        }
    }
}

/// A count within the limits above as an index.
fn usize_from(count: u64) -> usize {
    usize::try_from(count).expect("limits of counts are far below 2^16")
}

/// How much memory the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryMax {
    /// Half of what the machine has or of what the process's cgroup allows, whichever is less.
    Auto,
    /// This many bytes.
    Bytes(u64),
}

impl MemoryMax {
    /// The number of bytes, and for [`Self::Auto`] the limit of which it is half, if the system tells
    /// one. `root` is `/` outside tests.
    #[must_use]
    pub fn bytes(self, root: &Path) -> (u64, Option<MemoryLimit>) {
        let limits = EnginePlan::MEMORY_MAX_BYTES;
        match self {
            Self::Bytes(bytes) => (bytes, None),
            Self::Auto => match memory_limit(root) {
                None => (limits.default, None),
                Some(limit) => ((limit.bytes / 2).clamp(limits.min, limits.max), Some(limit)),
            },
        }
    }
}

/// How far event time may run ahead of a record that still counts in its window; later ones count in
/// totals only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// By the aggregation interval that an input's records show.
    Auto,
    /// The same for every input, in whole seconds.
    Fixed(Duration),
}

impl Lateness {
    /// What holds while nothing is known of an input: the fixed lateness, or the widest that a flow
    /// log asks for.
    #[must_use]
    pub const fn at_first(self) -> Duration {
        match self {
            Self::Auto => EnginePlan::LATENESS.default,
            Self::Fixed(lateness) => lateness,
        }
    }
}

/// When the state is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointPlan {
    /// Time between two snapshots.
    pub interval: Duration,
    /// Where snapshots are copied to, so that another machine can go on.
    pub remote: Option<RemotePlan>,
}

impl CheckpointPlan {
    /// Of [`Self::interval`].
    pub const INTERVAL: Limits<Duration> = Limits {
        default: Duration::from_secs(10),
        min: Duration::from_millis(100),
        max: Duration::from_hours(1),
    };
}

impl Default for CheckpointPlan {
    fn default() -> Self {
        Self { interval: Self::INTERVAL.default, remote: None }
    }
}

/// How much of the journal of findings is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPlan {
    /// A file that is longer is closed, and the next one begun.
    pub file_bytes_max: u64,
    /// Files kept; the oldest is removed when there are more.
    pub files_max: usize,
}

impl JournalPlan {
    /// Of [`Self::file_bytes_max`].
    pub const FILE_BYTES_MAX: Limits<u64> =
        Limits { default: 64 << 20, min: 1 << 20, max: 4 << 30 };
    /// Of [`Self::files_max`].
    pub const FILES_MAX: Limits<u64> = Limits { default: 16, min: 2, max: 1024 };
}

impl Default for JournalPlan {
    fn default() -> Self {
        Self {
            file_bytes_max: Self::FILE_BYTES_MAX.default,
            files_max: usize_from(Self::FILES_MAX.default),
        }
    }
}

/// What happens to what can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterPlan {
    /// The file to which they go, with origin and reason; without it they go into
    /// [`EnginePlan::state_dir`], and without that they are only counted.
    pub path: Option<PathBuf>,
    /// When they are this long altogether, further ones are only counted.
    pub bytes_max: u64,
}

impl DeadLetterPlan {
    /// Of [`Self::bytes_max`].
    pub const BYTES_MAX: Limits<u64> = Limits { default: 64 << 20, min: 1 << 20, max: 64 << 30 };
}

impl Default for DeadLetterPlan {
    fn default() -> Self {
        Self { path: None, bytes_max: Self::BYTES_MAX.default }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MemoryOrigin;

    fn check_memory(meminfo: Option<&str>, expected_bytes: u64) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("proc")).unwrap();
        if let Some(text) = meminfo {
            std::fs::write(root.path().join("proc/meminfo"), text).unwrap();
        }
        let (bytes, limit) = MemoryMax::Auto.bytes(root.path());
        assert_eq!(bytes, expected_bytes, "{meminfo:?}");
        let origin = meminfo.map(|_| MemoryOrigin::Machine);
        assert_eq!(limit.map(|limit| limit.origin), origin);
        assert_eq!(MemoryMax::Bytes(5).bytes(root.path()), (5, None));
    }

    #[test]
    fn auto_is_half_of_what_there_is() {
        check_memory(Some("MemTotal: 8388608 kB\n"), 4 << 30);
        check_memory(Some("MemTotal: 1024 kB\n"), 64 << 20);
        check_memory(None, 1 << 30);
    }

    #[test]
    fn auto_lateness_begins_wide() {
        assert_eq!(Lateness::Auto.at_first(), Duration::from_mins(10));
        assert_eq!(Lateness::Fixed(Duration::ZERO).at_first(), Duration::ZERO);
    }
}
