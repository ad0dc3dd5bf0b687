//! `flowgauge analyze`: the engine over files, and a report at the end.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::job::{self, Keeping, Request, Talkers};
use super::output::{self, OutputFormat};
use super::paths::Paths;
use super::signals::Signals;
use super::{progress, report};
use crate::aggregate::{Metric, TalkerSpec, TopSpec};
use crate::clock::{Clock, SystemClock};
use crate::config::{EnginePlan, talkers};
use crate::detect::DetectSettings;
use crate::pipeline::{self, RunReport, Summary};
use crate::record::{Filter, FormatChoice, Slot};
use crate::source::StopFlag;
use crate::units::{DURATION_FORMS, RateLimit, UnixSeconds, parse_duration};

/// Report on flow log files: totals, top talkers, findings
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  flowgauge analyze logs/
  flowgauge analyze --by srcaddr,dstaddr --metric distinct:dstport --min 100 flow.log.gz
  flowgauge analyze --where 'action = REJECT and dstport in (22, 3389)' --findings alerts.ndjson 'logs/**/*.gz'
  flowgauge analyze --since 2026-01-31 s3://flow-logs/AWSLogs/123456789012/vpcflowlogs/eu-central-1/
  zcat flow.log.gz | flowgauge analyze --output json -")]
pub(crate) struct AnalyzeArgs {
    /// Files, directories, globs, `s3://BUCKET/PREFIX/`, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Form of the report on standard output
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    /// Write findings as NDJSON to a file, or `-` for standard output
    #[arg(long, value_name = "FILE", conflicts_with = "no_detect")]
    findings: Option<PathBuf>,
    /// Write the tops of every sliding window as NDJSON to a file, or `-` for standard output; keys and metric are
    /// those of --by and --metric
    #[arg(long, value_name = "FILE", conflicts_with_all = ["partials", "window"])]
    talkers: Option<PathBuf>,
    /// Length of the windows of --talkers
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = window_seconds, requires = "talkers")]
    talkers_window: i64,
    /// Write what was seen to a directory for `merge`, and judge nothing
    #[arg(long, value_name = "DIR", conflicts_with = "findings")]
    partials: Option<PathBuf>,
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
    #[arg(long, default_value = "bytes", value_parser = talkers::metric)]
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
    /// A threat list (addresses or CIDR blocks by line, CSV, STIX, MISP); may be repeated
    #[arg(long, value_name = "FILE", conflicts_with = "no_detect")]
    threat_list: Vec<PathBuf>,
    /// No detectors
    #[arg(long)]
    no_detect: bool,
    /// Where the time went, by stage, on standard error
    #[arg(long)]
    profile: bool,
    /// Read at most so many bytes a second, such as 50MiB/s
    #[arg(long, value_name = "RATE", value_parser = job::rate_limit)]
    rate_limit: Option<RateLimit>,
    /// Threads for parsing and for state; 0 for one per core
    #[arg(short = 'j', long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// The fields of one `--by`.
#[derive(Clone, Debug)]
struct KeyFields(Vec<Slot>);

fn key_fields(text: &str) -> Result<KeyFields, String> {
    talkers::key_fields(text).map(KeyFields)
}

fn window_seconds(text: &str) -> Result<i64, String> {
    let duration = parse_duration(text).ok_or_else(|| format!("it must be {DURATION_FORMS}"))?;
    match i64::try_from(duration.as_secs()) {
        Ok(seconds) if seconds > 0 => Ok(seconds),
        _ => Err("a window is at least 1s long".to_owned()),
    }
}

/// Runs the command.
pub(crate) fn run(args: &AnalyzeArgs) -> Result<(), Failure> {
    let engine = EnginePlan { threads: args.threads, ..EnginePlan::default() };
    let thread_count = engine.thread_count().get();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let paths = Paths::find(&args.paths, (args.since, args.until), &clock)?;
    let total_bytes = paths.total_bytes();
    let detectors = if args.no_detect {
        None
    } else {
        let mut settings = DetectSettings::default();
        settings.suspicious_ip.lists.clone_from(&args.threat_list);
        Some(job::detectors(&settings, &args.context)?)
    };
    let stop = StopFlag::default();
    let signals = Signals::listen(&stop)?;
    let inputs = paths.inputs(&args.format, &engine, &clock);
    let inputs = match args.rate_limit {
        Some(limit) => inputs.held(limit, &clock),
        None => inputs,
    };
    let job = job::build(Request {
        inputs,
        engine,
        filter: Filter::within(args.condition.clone(), job::event_time(args.since, args.until)),
        tops: tops(args),
        detectors,
        talkers: Talkers {
            specs: window_tops(args),
            sinks: job::line_sinks("talkers", args.talkers.as_deref())?,
        },
        sinks: job::line_sinks("findings", args.findings.as_deref())?,
        keeping: Keeping { partials: args.partials.clone(), ..Keeping::default() },
        clock,
        stop,
        progress: progress::bytes_bar(total_bytes),
    })?;
    let report = pipeline::run(job).map_err(job::run_failure)?;
    if signals.seen() {
        return Err(Failure::Interrupted);
    }
    warn_of_absent_fields(&report);
    if args.profile {
        output::write_note(&report::profile(&report));
    }
    match args.output {
        OutputFormat::Json => output::write_summary(&Summary::new(&report, thread_count))?,
        OutputFormat::Text => output::write_text(&report::text(&report, thread_count))?,
    }
    if report.inputs.failed.is_empty() { Ok(()) } else { Err(Failure::Logged) }
}

/// Names that AWS doesn't have may be fields of a custom format, or slips of the pen.
fn warn_of_absent_fields(report: &RunReport) {
    for (spec, _) in report.tops.iter().zip(&report.answers).filter(|(_, top)| top.key_count == 0) {
        for slot in spec.by.iter().filter(|slot| matches!(slot, Slot::Unknown(_))) {
            tracing::warn!(
                field = slot.name(),
                "no record has this field, and AWS documents none of that name; see `--by`"
            );
        }
    }
}

/// A question for every window for each of those for the whole, under the names of its fields.
fn window_tops(args: &AnalyzeArgs) -> Vec<TalkerSpec> {
    if args.talkers.is_none() {
        return Vec::new();
    }
    let spec = |top: TopSpec| {
        let name = top.by.iter().map(Slot::name).collect::<Vec<_>>().join("-");
        TalkerSpec { name, top, window_seconds: args.talkers_window }
    };
    tops(args).into_iter().map(spec).collect()
}

fn tops(args: &AnalyzeArgs) -> Vec<TopSpec> {
    if args.top == 0 {
        return Vec::new();
    }
    let keys = match args.by.as_slice() {
        [] => job::default_keys(),
        asked => asked.iter().map(|KeyFields(slots)| slots.clone()).collect(),
    };
    let spec = |by| TopSpec {
        by,
        metric: args.metric.clone(),
        rows_max: args.top,
        metric_min: args.min,
        window_seconds: args.window,
    };
    keys.into_iter().map(spec).collect()
}
