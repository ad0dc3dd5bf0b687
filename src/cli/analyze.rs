//! `flowgauge analyze`: the engine over files, and a report at the end.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::output::{self, OutputFormat};
use super::signals::Signals;
use super::{job, progress, report};
use crate::aggregate::{Metric, TimeSettings, TopSpec};
use crate::clock::{Clock, SystemClock};
use crate::framing::Limits;
use crate::pipeline::{self, Job, Summary};
use crate::record::{FieldId, Filter, FormatChoice, Layout, Slot};
use crate::sink::Sink;
use crate::source::StopFlag;
use crate::source::discover::discover;
use crate::source::file::FileSource;
use crate::units::{UnixSeconds, duration_from_text};

/// Report on flow log files: totals, top talkers, findings
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flowgauge analyze logs/
  flowgauge analyze --by srcaddr,dstaddr --metric distinct:dstport --min 100 flow.log.gz
  flowgauge analyze --where 'action = REJECT and dstport in (22, 3389)' --findings alerts.ndjson 'logs/**/*.gz'
  zcat flow.log.gz | flowgauge analyze --output json -")]
pub(crate) struct AnalyzeArgs {
    /// Files, directories, globs, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Form of the report on standard output
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    /// Write findings as NDJSON to a file, or `-` for standard output
    #[arg(long, value_name = "FILE", conflicts_with = "no_detect")]
    findings: Option<String>,
    /// Order of the fields: auto (header, else AWS's default), v2 to v11, tgw, names, or a `LogFormat`
    #[arg(long, default_value = "auto", value_parser = FormatChoice::from_text)]
    format: FormatChoice,
    /// Rows of each top; 0 for none
    #[arg(long, default_value_t = 10, value_name = "N")]
    top: usize,
    /// Fields to rank by, separated by commas; may be repeated for several tops
    #[arg(long, value_name = "FIELD[,FIELD…]", value_parser = key_fields)]
    by: Vec<KeyFields>,
    /// What to rank by: bytes, packets, flows or distinct:FIELD
    #[arg(long, default_value = "bytes", value_parser = metric)]
    metric: Metric,
    /// Only rows whose metric is at least this
    #[arg(long, default_value_t = 0, value_name = "N")]
    min: u128,
    /// Count tops apart for each window of this length, such as 5m, by the records' end
    #[arg(long, value_name = "DURATION", value_parser = window_seconds)]
    window: Option<i64>,
    /// Only records that end at or after this time (RFC 3339, date or Unix seconds)
    #[arg(long, value_name = "TIME", value_parser = UnixSeconds::from_text, allow_hyphen_values = true)]
    since: Option<UnixSeconds>,
    /// Only records that end before this time
    #[arg(long, value_name = "TIME", value_parser = UnixSeconds::from_text, allow_hyphen_values = true)]
    until: Option<UnixSeconds>,
    /// Only records for which this holds, such as 'action = REJECT and dstport in (22, 3389)'
    #[arg(long = "where", value_name = "EXPR", value_parser = Filter::from_text)]
    condition: Option<Filter>,
    /// What the operator knows (JSON: vpc_cidrs, allowlisted_scanners, …); may be repeated
    #[arg(long, value_name = "FILE", conflicts_with = "no_detect")]
    context: Vec<PathBuf>,
    /// No detectors
    #[arg(long)]
    no_detect: bool,
    /// Threads for parsing and for state; 0 for one per core
    #[arg(short = 'j', long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// The fields of one `--by`.
#[derive(Clone, Debug)]
struct KeyFields(Vec<Slot>);

fn key_fields(text: &str) -> Result<KeyFields, String> {
    let layout = Layout::from_text(&text.replace(',', " ")).map_err(|error| error.to_string())?;
    Ok(KeyFields(layout.slots().to_vec()))
}

fn metric(text: &str) -> Result<Metric, String> {
    match text {
        "bytes" => Ok(Metric::Bytes),
        "packets" => Ok(Metric::Packets),
        "flows" => Ok(Metric::Flows),
        _ => {
            let field = text.strip_prefix("distinct:").ok_or_else(|| {
                "it must be `bytes`, `packets`, `flows` or `distinct:FIELD`".to_owned()
            })?;
            let KeyFields(mut slots) = key_fields(field)?;
            match (slots.pop(), slots.is_empty()) {
                (Some(slot), true) => Ok(Metric::Distinct(slot)),
                _ => Err("`distinct:` takes one field".to_owned()),
            }
        }
    }
}

fn window_seconds(text: &str) -> Result<i64, String> {
    let duration = duration_from_text(text).map_err(|error| error.to_string())?;
    match i64::try_from(duration.as_secs()) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("a window is at least 1s long".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn run(args: &AnalyzeArgs) -> Result<(), Failure> {
    let thread_count = job::thread_count(args.threads);
    let files = discover(&args.paths).map_err(Failure::usage)?;
    let network = job::network(&args.context)?;
    let detectors = (!args.no_detect).then(|| job::detectors(&job::default_detectors(), network));
    let total_bytes = files.iter().map(|file| file.size_bytes).sum();
    let stop = StopFlag::default();
    let signals = Signals::listen(&stop)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let expected_inputs = files.len();
    let limits = Limits::default();
    let since_until = (
        args.since.map_or(std::ops::Bound::Unbounded, |s| std::ops::Bound::Included(s.0)),
        args.until.map_or(std::ops::Bound::Unbounded, |s| std::ops::Bound::Excluded(s.0)),
    );
    let job = Job {
        sources: FileSource::split(files, &args.format, limits.clone(), thread_count),
        expected_inputs,
        thread_count,
        queue_depth: job::QUEUE_DEPTH,
        limits,
        pane_seconds: job::PANE_SECONDS,
        time: TimeSettings {
            lateness_seconds: job::LATENESS_SECONDS,
            idle_after: None,
            latest_plausible_end: job::latest_plausible_end(&*clock),
        },
        filter: Filter::within(args.condition.clone(), since_until),
        tops: tops(args),
        detectors,
        sinks: sinks(args)?,
        isa: job::isa()?,
        seed: job::seed(),
        clock,
        stop,
        progress: progress::bytes_bar(total_bytes),
    };
    let report = match pipeline::run(job) {
        Ok(report) => report,
        Err(error) => return Err(job::run_failure(error)),
    };
    if signals.seen() {
        return Err(Failure::Interrupted);
    }
    match args.output {
        OutputFormat::Json => output::write_summary(&Summary::new(&report, thread_count))?,
        OutputFormat::Text => output::write_text(&report::text(&report, thread_count))?,
    }
    if report.inputs.failed.is_empty() { Ok(()) } else { Err(Failure::Logged) }
}

fn tops(args: &AnalyzeArgs) -> Vec<TopSpec> {
    let by: Vec<Vec<Slot>> = if args.by.is_empty() {
        job::DEFAULT_TOPS.iter().map(|fields| known(fields)).collect()
    } else {
        args.by.iter().map(|fields| fields.0.clone()).collect()
    };
    let spec = |by| TopSpec {
        by,
        metric: args.metric.clone(),
        rows_max: args.top,
        metric_min: args.min,
        window_seconds: args.window,
    };
    if args.top == 0 { Vec::new() } else { by.into_iter().map(spec).collect() }
}

fn known(fields: &[FieldId]) -> Vec<Slot> {
    fields.iter().copied().map(Slot::Known).collect()
}

fn sinks(args: &AnalyzeArgs) -> Result<Vec<Box<dyn Sink>>, Failure> {
    match args.findings.as_deref() {
        None => Ok(Vec::new()),
        Some("-") => Ok(vec![job::stdout_sink()]),
        Some(path) => Ok(vec![job::new_file_sink(path)?]),
    }
}

