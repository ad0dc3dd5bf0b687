//! `[log]` as usable: which events are logged, in which form, how many of one kind, and how often the
//! line of statistics comes.

use std::time::Duration;

use super::engine::Limits;
use super::reader::TableReader;

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPlan {
    /// Form of the lines.
    pub format: LogFormat,
    /// The least important level that is logged.
    pub level: LogLevel,
    /// Events that one place in the code may log within ten seconds; more are counted and said in one
    /// line. 0 is no limit.
    pub rate_limit: u32,
    /// Time between two lines of statistics, which are of level info; zero is none.
    pub stats_interval: Duration,
}

impl LogPlan {
    /// Of [`Self::rate_limit`].
    pub const RATE_LIMIT: Limits<u64> = Limits { default: 10, min: 0, max: 1_000_000 };
    /// Of [`Self::stats_interval`].
    pub const STATS_INTERVAL: Limits<Duration> = Limits {
        default: Duration::from_mins(1),
        min: Duration::ZERO,
        max: Duration::from_hours(24),
    };

    /// Takes every key of `[log]`.
    pub(super) fn read(table: &mut TableReader<'_>) -> Self {
        let rate_limit = table.count("rate_limit", &Self::RATE_LIMIT);
        Self {
            format: table.word("format", &LogFormat::WORDS).unwrap_or_default(),
            level: table.word("level", &LogLevel::WORDS).unwrap_or_default(),
            rate_limit: u32::try_from(rate_limit).expect("its limit is below 2^32"),
            stats_interval: table.duration("stats_interval", &Self::STATS_INTERVAL),
        }
    }
}

impl Default for LogPlan {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            level: LogLevel::default(),
            rate_limit: u32::try_from(Self::RATE_LIMIT.default).expect("its limit is below 2^32"),
            stats_interval: Self::STATS_INTERVAL.default,
        }
    }
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl LogFormat {
    /// As configurations write it.
    pub const WORDS: [(&'static str, Self); 2] = [("text", Self::Text), ("json", Self::Json)];
}

/// Importance of a log line, most important first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Data was lost, or a person must act.
    Error,
    /// Something went wrong and was mended.
    #[default]
    Warn,
    /// Life cycle and statistics.
    Info,
    /// Steps within, at most one per batch.
    Debug,
    /// Everything, of the libraries too.
    Trace,
}

impl LogLevel {
    /// As configurations write it.
    pub const WORDS: [(&'static str, Self); 5] = [
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
        ("trace", Self::Trace),
    ];
}
