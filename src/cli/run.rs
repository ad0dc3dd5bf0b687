//! `flowgauge run`: the stream job, until its sources end or a signal comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::crash::Crash;
use super::failure::Failure;
use super::job::{self, Keeping, Request};
use super::logs::Logs;
use super::output::{self, OutputFormat};
use super::reload::Reloader;
use super::report;
use super::signals::{Pace, Service, Signals};
use crate::aggregate::{Metric, TopSpec};
use crate::clock::{Clock, SystemClock};
use crate::config::reload::Changes;
use crate::config::{self, Plan};
use crate::pipeline::{self, Summary};
use crate::source::StopFlag;
use crate::units::{DURATION_FORMS, parse_duration};

/// The configuration that is used if none is named and it exists.
const DEFAULT_CONFIG_PATH: &str = "flowgauge.toml";

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
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("it must be {DURATION_FORMS}"))
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs, logs: &Logs, _crash: &Crash) -> Result<(), Failure> {
    let default = Path::new(DEFAULT_CONFIG_PATH);
    let config = args.config.as_deref().or_else(|| default.exists().then_some(default));
    let plan = plan(config)?;
    logs.apply(&plan.log);
    for note in plan.notes().iter().filter(|_| config.is_some()) {
        tracing::warn!("{note}");
    }
    let engine = plan.engine.clone();
    let thread_count = engine.thread_count().get();
    let stop = StopFlag::default();
    let pace = Arc::new(Pace::default());
    pace.set_drain_limit(args.graceful_shutdown_limit.unwrap_or(engine.shutdown_limit));
    pace.set_stats_interval(plan.log.stats_interval);
    let mut reloader = Reloader {
        file: config.map(Path::to_path_buf),
        plan: plan.clone(),
        logs: logs.clone(),
        pace: Arc::clone(&pace),
        is_drain_limit_fixed: args.graceful_shutdown_limit.is_some(),
        apply: Box::new(refuse_changes_of_stages),
    };
    let service = Service {
        pace,
        unfinished: Box::new(|| "records that were read are not judged and delivered".to_owned()),
        on_hangup: Box::new(move || reloader.reload()),
        on_stats: None,
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
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let state = job::state(&engine)?;
    let job = job::build(Request {
        inputs: job::plan_inputs(&plan.sources, &engine, &clock)?,
        filter: None,
        tops: job::default_keys().into_iter().map(spec).collect(),
        detectors: Some(job::detectors(&plan.detectors, &plan.context)?),
        engine,
        sinks: job::plan_sinks(&plan.sinks)?,
        clock,
        stop,
        progress: Box::new(|_| {}),
        keeping: Keeping { state, ..Keeping::default() },
    })?;
    tracing::info!(sources = plan.sources.len(), threads = thread_count, "started");
    let report = pipeline::run(job).map_err(job::run_failure)?;
    match args.output {
        OutputFormat::Json => output::write_summary(&Summary::new(&report, thread_count))?,
        OutputFormat::Text => output::write_note(&report::text(&report, thread_count)),
    }
    if report.inputs.failed.is_empty() { Ok(()) } else { Err(Failure::Logged) }
}

/// The stages take no new settings yet.
fn refuse_changes_of_stages(changes: &Changes, _: &Plan) -> anyhow::Result<()> {
    let of_the_edge =
        Changes { log: changes.log, shutdown_limit: changes.shutdown_limit, ..Changes::default() };
    anyhow::ensure!(*changes == of_the_edge, "{} need a restart", changes.names().join(", "));
    Ok(())
}

fn plan(config: Option<&Path>) -> Result<Plan, Failure> {
    match config {
        Some(path) => config::load(path).map_err(Failure::usage),
        None => {
            output::write_note(
                "No configuration: running the demo (generated traffic with planted attacks). Ctrl-C ends it.\n",
            );
            Ok(Plan::demo())
        }
    }
}
