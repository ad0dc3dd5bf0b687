//! `flowgauge run`: the stream job, until its sources end or a signal comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::job::{self, Keeping, Request};
use super::output::{self, OutputFormat};
use super::report;
use super::signals::Signals;
use crate::aggregate::{Metric, TopSpec};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Plan};
use crate::pipeline::{self, Summary};
use crate::source::StopFlag;

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
exit code is 0. A second one ends the process at once.

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
}

/// Runs the command.
pub(crate) fn run(args: &RunArgs) -> Result<(), Failure> {
    let plan = plan(args.config.as_deref())?;
    let engine = plan.engine.clone();
    let thread_count = engine.thread_count().get();
    let stop = StopFlag::default();
    // Nothing to do with it afterwards: a drained run is a success.
    let _signals = Signals::listen(&stop)?;
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

fn plan(config: Option<&Path>) -> Result<Plan, Failure> {
    let default = Path::new(DEFAULT_CONFIG_PATH);
    match config.or_else(|| default.exists().then_some(default)) {
        Some(path) => config::load(path).map_err(Failure::usage),
        None => {
            output::write_note(
                "No configuration: running the demo (generated traffic with planted attacks). Ctrl-C ends it.\n",
            );
            Ok(Plan::demo())
        }
    }
}
