//! Log lines on standard error: which, in which form, and how many of one kind.
//!
//! [`Logs::start`] takes what the command line says; [`Logs::apply`] adds what the configuration says,
//! again after a reload. What the command line says wins.

mod line;
mod throttle;

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::clock::{Clock, SystemClock};
use crate::config::{LogFormat, LogLevel, LogPlan};
use crate::metrics::StatsLine;

pub(crate) use line::Content;
use line::Look;
use throttle::{Suppressed, Throttle, Verdict, WINDOW};

/// Form of log lines, as the command line writes it.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum FormatArg {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What the command line says of logs; it goes before the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LogOptions {
    /// How often `-v` stands there.
    pub(crate) verbose: u8,
    /// Whether `-q` does.
    pub(crate) is_quiet: bool,
    /// `--log-format`.
    pub(crate) format: Option<FormatArg>,
}

impl LogOptions {
    /// The plan with what the command line says in it.
    fn over(self, plan: &LogPlan) -> LogPlan {
        let level = match (self.is_quiet, self.verbose) {
            (true, _) => LogLevel::Error,
            (false, 0) => plan.level,
            (false, 1) => LogLevel::Info,
            (false, _) => LogLevel::Debug,
        };
        let format = match self.format {
            None => plan.format,
            Some(FormatArg::Text) => LogFormat::Text,
            Some(FormatArg::Json) => LogFormat::Json,
        };
        LogPlan { format, level, ..*plan }
    }
}

/// The log of the process; clones write to the same.
#[derive(Clone)]
pub(crate) struct Logs(Arc<Shared>);

struct Shared {
    options: LogOptions,
    clock: Box<dyn Clock>,
    state: Mutex<State>,
    filter: Option<reload::Handle<EnvFilter, Registry>>,
}

struct State {
    look: Look,
    throttle: Throttle,
    out: Box<dyn Write + Send>,
}

impl Logs {
    /// Starts logging to standard error; `RUST_LOG` refines the level.
    pub(crate) fn start(options: LogOptions) -> Self {
        let plan = options.over(&LogPlan::default());
        let (filter, handle) = reload::Layer::new(env_filter(plan.level));
        let is_coloured = io::stderr().is_terminal();
        let clock = Box::new(SystemClock::new());
        let logs = Self::new(options, is_coloured, clock, Box::new(io::stderr()), Some(handle));
        tracing_subscriber::registry().with(filter).with(logs.clone()).init();
        logs
    }

    fn new(
        options: LogOptions,
        is_coloured: bool,
        clock: Box<dyn Clock>,
        out: Box<dyn Write + Send>,
        filter: Option<reload::Handle<EnvFilter, Registry>>,
    ) -> Self {
        let plan = options.over(&LogPlan::default());
        let look = Look { format: plan.format, is_coloured };
        let state = Mutex::new(State { look, throttle: Throttle::new(plan.rate_limit), out });
        Self(Arc::new(Shared { options, clock, state, filter }))
    }

    /// Takes what the configuration says, from the next event on.
    pub(crate) fn apply(&self, plan: &LogPlan) {
        let plan = self.0.options.over(plan);
        {
            let mut state = self.state();
            state.look.format = plan.format;
            state.throttle.set_events_max(plan.rate_limit);
        }
        if let Some(filter) = &self.0.filter {
            // The subscriber lives as long as the process.
            filter.reload(env_filter(plan.level)).expect("the subscriber is there");
        }
    }

    /// Writes a line whatever the level and the limits are.
    pub(crate) fn write(&self, level: Level, content: &Content) {
        self.state().write(self.0.clock.now_ms(), level, content);
    }

    /// Writes a line of statistics, if lines of level info are wanted: words in text, the whole of it as
    /// the field `stats` in JSON.
    pub(crate) fn write_stats(&self, line: &StatsLine) {
        if !tracing::enabled!(Level::INFO) {
            return;
        }
        let format = self.state().look.format;
        let content = match format {
            LogFormat::Text => Content::new(&line.to_string()),
            LogFormat::Json => {
                let fields = serde_json::to_value(line).expect("numbers, words and lists of them");
                Content::new("stats").with("stats", fields)
            }
        };
        self.write(Level::INFO, &content);
    }

    /// Says what was suppressed in windows that are over, for whoever comes by from time to time.
    pub(crate) fn tick(&self) {
        let mut state = self.state();
        let ended = state.throttle.take_ended(self.0.clock.monotonic());
        state.write_suppressed(self.0.clock.now_ms(), &ended);
    }

    /// Says what was suppressed so far, before the process ends.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        let all = state.throttle.take_all();
        state.write_suppressed(self.0.clock.now_ms(), &all);
    }

    /// A thread that panicked while it logged leaves nothing half done that matters.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn write(&mut self, unix_ms: i64, level: Level, content: &Content) {
        let line = line::line(self.look, unix_ms, level, content);
        // With standard error gone there is nobody to tell.
        let _written = self.out.write_all(line.as_bytes()).is_ok();
    }

    fn write_suppressed(&mut self, unix_ms: i64, all: &[Suppressed]) {
        for suppressed in all {
            let content = Content::new("suppressed similar messages")
                .with("count", suppressed.count)
                .with("within_seconds", WINDOW.as_secs())
                .with("like", suppressed.message.as_str());
            self.write(unix_ms, suppressed.level, &content);
        }
    }
}

impl<S: Subscriber> Layer<S> for Logs {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let (now, unix_ms) = (self.0.clock.monotonic(), self.0.clock.now_ms());
        // Every place in the code has metadata of its own, which never moves.
        let site = std::ptr::from_ref(metadata).addr();
        let level = *metadata.level();
        let verdict = {
            let mut state = self.state();
            let ended = state.throttle.take_ended(now);
            state.write_suppressed(unix_ms, &ended);
            state.throttle.judge(site, level, now)
        };
        // Values write themselves with the lock released: if one panics, the hook logs that.
        match verdict {
            Verdict::Write => {
                let content = Content::of(event);
                self.state().write(unix_ms, level, &content);
            }
            Verdict::SuppressFirst => {
                let message = Content::of(event).message;
                self.state().throttle.describe(site, message);
            }
            Verdict::Suppress => {}
        }
    }
}

fn env_filter(level: LogLevel) -> EnvFilter {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    EnvFilter::builder().with_default_directive(level.into()).from_env_lossy()
}

/// A log into memory.
#[cfg(test)]
pub(crate) mod memory {
    use super::*;
    use crate::clock::ManualClock;

    /// What was written.
    #[derive(Clone, Default)]
    pub(crate) struct Written(Arc<Mutex<Vec<u8>>>);

    impl Written {
        pub(crate) fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Shown(Arc<ManualClock>);

    impl Clock for Shown {
        fn now(&self) -> crate::units::UnixSeconds {
            self.0.now()
        }

        fn monotonic(&self) -> std::time::Duration {
            self.0.monotonic()
        }
    }

    /// A log, the clock that drives it, and what it writes.
    pub(crate) fn logs(options: LogOptions) -> (Logs, Arc<ManualClock>, Written) {
        let (clock, written) = (Arc::new(ManualClock::default()), Written::default());
        let shown = Box::new(Shown(Arc::clone(&clock)));
        let logs = Logs::new(options, false, shown, Box::new(written.clone()), None);
        (logs, clock, written)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn flood(count: u32) {
        for index in 0..count {
            tracing::warn!(index, "bad line");
        }
    }

    #[test]
    fn a_flood_is_some_lines_and_a_count() {
        let (logs, clock, written) = memory::logs(LogOptions::default());
        let subscriber = tracing_subscriber::registry().with(logs.clone());
        tracing::subscriber::with_default(subscriber, || {
            flood(1_000_000);
            let first = written.take();
            assert_eq!(first.lines().count(), 10, "{first}");
            assert!(
                first.starts_with("1970-01-01T00:00:00.000Z  WARN bad line index=0\n"),
                "{first}"
            );
            clock.advance(Duration::from_secs(9));
            tracing::warn!(name = "a b", "another place");
            assert_eq!(written.take().lines().count(), 1);
            clock.advance(Duration::from_secs(1));
            logs.tick();
            logs.tick();
            let told = "1970-01-01T00:00:10.000Z  WARN suppressed similar messages count=999990 \
                        within_seconds=10 like=\"bad line\"\n";
            assert_eq!(written.take(), told);
            flood(12);
            assert_eq!(written.take().lines().count(), 10);
            logs.finish();
            assert!(written.take().contains("count=2 "));
        });
    }

    #[test]
    fn statistics_are_words_or_fields() {
        use crate::metrics::{StatsLine, StatsSample};

        let (logs, _, written) = memory::logs(LogOptions::default());
        let line = StatsLine::between(&StatsSample::default(), &StatsSample::default());
        let subscriber = tracing_subscriber::registry().with(logs.clone());
        tracing::subscriber::with_default(subscriber, || {
            logs.write_stats(&line);
            let text = written.take();
            assert!(
                text.ends_with("  INFO 0 records/s, 0 B/s, 0 malformed, 0 late, 0 findings\n"),
                "{text}"
            );
            logs.apply(&LogPlan { format: LogFormat::Json, ..LogPlan::default() });
            logs.write_stats(&line);
            let object: serde_json::Value = serde_json::from_str(&written.take()).unwrap();
            assert_eq!(
                (&object["message"], &object["stats"]["late"]),
                (&"stats".into(), &0.into())
            );
        });
        let off = tracing_subscriber::registry().with(LevelFilter::WARN).with(logs.clone());
        tracing::subscriber::with_default(off, || logs.write_stats(&line));
        assert_eq!(written.take(), "");
    }

    #[test]
    fn the_command_line_goes_before_the_configuration() {
        let plan =
            LogPlan { format: LogFormat::Json, level: LogLevel::Error, ..LogPlan::default() };
        let check = |options: LogOptions, level, format| {
            let LogPlan { level: over, format: shown, .. } = options.over(&plan);
            assert_eq!((over, shown), (level, format), "{options:?}");
        };
        let none = LogOptions::default();
        check(none, LogLevel::Error, LogFormat::Json);
        check(LogOptions { verbose: 1, ..none }, LogLevel::Info, LogFormat::Json);
        check(LogOptions { verbose: 3, ..none }, LogLevel::Debug, LogFormat::Json);
        let format = Some(FormatArg::Text);
        check(LogOptions { is_quiet: true, format, ..none }, LogLevel::Error, LogFormat::Text);
    }

    #[test]
    fn a_new_configuration_holds_from_the_next_event_on() {
        let (logs, _, written) = memory::logs(LogOptions::default());
        let subscriber = tracing_subscriber::registry().with(logs.clone());
        tracing::subscriber::with_default(subscriber, || {
            logs.apply(&LogPlan { format: LogFormat::Json, rate_limit: 2, ..LogPlan::default() });
            flood(5);
            let lines = written.take();
            let lines: Vec<serde_json::Value> =
                lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(lines.len(), 2);
            assert_eq!((&lines[1]["message"], &lines[1]["index"]), (&"bad line".into(), &1.into()));
        });
    }
}
