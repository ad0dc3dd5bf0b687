//! `flowgauge run`: the stream job, until its sources end or a signal comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use crossbeam_channel::{Sender, bounded};

use super::failure::Failure;
use super::job::{self, Keeping, Request, Talkers};
use super::logs::Logs;
use super::output::{self, OutputFormat};
use super::reload::Reloader;
use super::report;
use super::signals::{Pace, Service, Signals};
use crate::aggregate::{Metric, TopSpec};
use crate::clock::{Clock, SystemClock};
use crate::config::reload::Changes;
use crate::config::{self, Plan, SinkInput};
use crate::metrics::StatsLine;
use crate::pipeline::{self, Control, Live, Summary};
use crate::source::StopFlag;
use crate::units::{DURATION_FORMS, RateLimit, parse_duration};

/// The configuration that is used if none is named and it exists.
const DEFAULT_CONFIG_PATH: &str = "flowgauge.toml";

/// Changes that may wait for the pipeline.
const CHANGES_MAX: usize = 16;

/// Rows of each top in the summary.
const TOP_ROWS: usize = 10;

/// Run the stream job: sources, detectors, sinks, until stopped
#[derive(Debug, Args)]
#[command(after_help = "\
Without -c, and without a flowgauge.toml in the current directory, a built-in demo runs: generated
traffic with planted attacks, findings on standard output.

The first SIGINT or SIGTERM drains: what was read is judged and delivered, a summary is printed, and the
exit code is 0. A second one ends the process at once, and so does a drain that takes longer than its
limit, with exit code 1.

Examples:
  flowgauge run
  flowgauge run -c flowgauge.toml
  flowgauge run -c flowgauge.toml --output json | tail -n 1")]
pub(crate) struct RunArgs {
    /// The configuration
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Form of the summary at the end: text on standard error, or one line of JSON on standard output
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    /// How long a drain may take before the process ends with what is saved [default: the
    /// configuration's, else 60s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    graceful_shutdown_limit: Option<Duration>,
    /// Read at most so many bytes a second over all sources, such as 50MiB/s
    #[arg(long, value_name = "RATE", value_parser = job::rate_limit)]
    rate_limit: Option<RateLimit>,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("it must be {DURATION_FORMS}"))
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs, logs: &Logs) -> Result<(), Failure> {
    let default = Path::new(DEFAULT_CONFIG_PATH);
    let config = args.config.as_deref().or_else(|| default.exists().then_some(default));
    let Some(path) = config else {
        output::write_note(
            "No configuration: running the demo (generated traffic with planted attacks). Ctrl-C ends it.\n",
        );
        return run_plan(args, logs, None, &Plan::demo());
    };
    let reading = config::read_file(path).map_err(Failure::usage)?;
    let references = reading.references().clone();
    let plan = reading.into_plan().map_err(Failure::usage)?;
    // What was taken from a secret's place is in no message, even if it is the path of a sink.
    run_plan(args, logs, config, &plan)
        .map_err(|failure| failure.hiding(|text| references.hide(text)))
}

fn run_plan(
    args: &RunArgs,
    logs: &Logs,
    config: Option<&Path>,
    plan: &Plan,
) -> Result<(), Failure> {
    logs.apply(&plan.log);
    for note in plan.notes().iter().filter(|_| config.is_some()) {
        tracing::warn!("{note}");
    }
    let engine = plan.engine.clone();
    let thread_count = engine.thread_count().get();
    let stop = StopFlag::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let live = Arc::new(Live::default());
    let (memory_max_bytes, _) = engine.memory_max.bytes(Path::new("/"));
    let pace = Arc::new(Pace::default());
    pace.set_drain_limit(args.graceful_shutdown_limit.unwrap_or(engine.shutdown_limit));
    pace.set_stats_interval(plan.log.stats_interval);
    let (control_out, control) = bounded(CHANGES_MAX);
    let mut reloader = Reloader {
        file: config.map(Path::to_path_buf),
        plan: plan.clone(),
        logs: logs.clone(),
        pace: Arc::clone(&pace),
        is_drain_limit_fixed: args.graceful_shutdown_limit.is_some(),
        apply: Box::new(move |changes, plan| change_stages(changes, plan, &control_out)),
    };
    let service = Service {
        pace,
        unfinished: unfinished(&live, &clock),
        on_hangup: Box::new(move || reloader.reload()),
        on_stats: Some(stats(&live, &clock, memory_max_bytes, logs)),
    };
    // Nothing to ask of it afterwards: a drained run is a success.
    let _signals = Signals::serve(&stop, service, logs)?;
    let spec = |by| TopSpec {
        by,
        metric: Metric::Bytes,
        rows_max: TOP_ROWS,
        metric_min: 0,
        window_seconds: None,
    };
    let state = job::state(&engine, &clock)?;
    let inputs = job::plan_inputs(&plan.sources, &engine, &clock)?;
    let inputs = match args.rate_limit {
        Some(limit) => inputs.held(limit, &clock),
        None => inputs,
    };
    let dead_letters = job::dead_letters(&engine, state.as_ref())?;
    let job = job::build(Request {
        inputs,
        filter: None,
        tops: job::default_keys().into_iter().map(spec).collect(),
        talkers: Talkers {
            specs: plan.talkers.clone(),
            sinks: job::plan_sinks(&plan.sinks, SinkInput::Talkers)?,
        },
        detectors: Some(job::detectors(&plan.detectors, &plan.context)?),
        engine,
        sinks: job::plan_sinks(&plan.sinks, SinkInput::Findings)?,
        clock,
        stop,
        progress: Box::new(|_| {}),
        keeping: Keeping { state, dead_letters, control, live, ..Keeping::default() },
    })?;
    tracing::info!(sources = plan.sources.len(), threads = thread_count, "started");
    let report = pipeline::run(job).map_err(job::run_failure)?;
    match args.output {
        OutputFormat::Json => output::write_summary(&Summary::new(&report, thread_count))?,
        OutputFormat::Text => output::write_note(&report::text(&report, thread_count)),
    }
    if report.inputs.failed.is_empty() { Ok(()) } else { Err(Failure::Logged) }
}

/// Puts into force within the pipeline what changed, or says what it can't take while it runs.
fn change_stages(changes: &Changes, plan: &Plan, control: &Sender<Control>) -> anyhow::Result<()> {
    let fixed = Changes {
        sinks: changes.sinks.clone(),
        rate_limits: changes.rate_limits.clone(),
        ..Changes::default()
    };
    anyhow::ensure!(fixed == Changes::default(), "{} need a restart", fixed.names().join(", "));
    let full = || anyhow::anyhow!("the changes before are not in force yet; try again");
    // The content of files may have changed where their names have not.
    let has_files = !plan.context.is_empty() || !plan.detectors.suspicious_ip.lists.is_empty();
    if changes.detectors.is_some() || changes.context.is_some() || has_files {
        let detectors = job::detectors(&plan.detectors, &plan.context);
        let detectors = detectors.map_err(Failure::into_error)?;
        control.try_send(Control::Detectors(Box::new(detectors))).map_err(|_| full())?;
    }
    if let Some(interval) = changes.checkpoint_interval {
        control.try_send(Control::CheckpointInterval(interval)).map_err(|_| full())?;
    }
    Ok(())
}

/// What a drain has left undone.
fn unfinished(live: &Arc<Live>, clock: &Arc<dyn Clock>) -> Box<dyn Fn() -> String + Send> {
    let (live, clock) = (Arc::clone(live), Arc::clone(clock));
    Box::new(move || {
        let queues = live.sample(&*clock, 0).queues;
        let waiting = queues.iter().filter(|queue| queue.waiting > 0);
        let waiting: Vec<String> =
            waiting.map(|queue| format!("{} in {}", queue.waiting, queue.stage)).collect();
        if waiting.is_empty() { "nothing waits in channels".to_owned() } else { waiting.join(", ") }
    })
}

/// Logs what happened since the last time, and how the run stands.
fn stats(
    live: &Arc<Live>,
    clock: &Arc<dyn Clock>,
    memory_max_bytes: u64,
    logs: &Logs,
) -> Box<dyn FnMut() + Send> {
    let (live, clock, logs) = (Arc::clone(live), Arc::clone(clock), logs.clone());
    let mut before = live.sample(&*clock, memory_max_bytes);
    Box::new(move || {
        let now = live.sample(&*clock, memory_max_bytes);
        logs.write_stats(&StatsLine::between(&before, &now));
        before = now;
    })
}
