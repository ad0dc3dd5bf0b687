//! `flowgauge replay`: what the detectors of a stream job would have found in its history.
//!
//! The stages of `run` over files, in event time: neither the clock nor the pace of reading has a say, so
//! findings are those that the stream gave, or would have given with other settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;

use super::failure::Failure;
use super::job::{self, Keeping, Request};
use super::output;
use super::paths::Paths;
use super::signals::Signals;
use super::{progress, report};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, EnginePlan, Plan};
use crate::detect::DetectSettings;
use crate::pipeline;
use crate::record::{Filter, FormatChoice};
use crate::source::{STDIN, StopFlag};
use crate::units::UnixSeconds;

/// Find in past flow logs what the stream job finds: the same findings, byte for byte
#[derive(Debug, Args)]
#[command(after_help = "\
Findings are lines of JSON; what was read is summed up on standard error. With -c, detectors, context and the
pace of event time are those of a configuration; its sources, sinks, state and dead letters are left alone.

Examples:
  flowgauge replay -c flowgauge.toml 'archive/2026/01/**/*.gz' > findings.ndjson
  flowgauge replay --context network.json --since 2026-01-05 --until 2026-01-06 s3://flow-logs/AWSLogs/")]
pub(crate) struct ReplayArgs {
    /// Files, directories, globs, `s3://BUCKET/PREFIX/`, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Take detectors, context and engine settings from this configuration
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write findings to a file in place of standard output
    #[arg(long, value_name = "FILE", default_value = STDIN, hide_default_value = true)]
    findings: PathBuf,
    /// Order of the fields: auto (header, else AWS's default), v2 to v11, tgw, names, or a `LogFormat`
    #[arg(long, default_value = "auto", value_parser = FormatChoice::from_text)]
    format: FormatChoice,
    /// Only records that end at or after this time (RFC 3339, date or Unix seconds)
    #[arg(long, value_name = "TIME", value_parser = UnixSeconds::from_text, allow_hyphen_values = true)]
    since: Option<UnixSeconds>,
    /// Only records that end before this time
    #[arg(long, value_name = "TIME", value_parser = UnixSeconds::from_text, allow_hyphen_values = true)]
    until: Option<UnixSeconds>,
    /// What the operator knows (JSON: vpc_cidrs, allowlisted_scanners, …), beside the configuration's; may
    /// be repeated
    #[arg(long, value_name = "FILE")]
    context: Vec<PathBuf>,
    /// A threat list (addresses or CIDR blocks by line, CSV, STIX, MISP), beside the configuration's; may be
    /// repeated
    #[arg(long, value_name = "FILE")]
    threat_list: Vec<PathBuf>,
    /// Threads for parsing and for state; 0 for one per core [default: the configuration's, else 0]
    #[arg(short = 'j', long, value_name = "N")]
    threads: Option<usize>,
}

/// What a replay takes from a configuration.
struct Settings {
    engine: EnginePlan,
    detectors: DetectSettings,
    context: Vec<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &ReplayArgs) -> Result<(), Failure> {
    let Settings { engine, mut detectors, mut context } = settings(args.config.as_deref())?;
    let engine = EnginePlan { threads: args.threads.unwrap_or(engine.threads), ..engine };
    let thread_count = engine.thread_count().get();
    context.extend(args.context.iter().cloned());
    detectors.suspicious_ip.lists.extend(args.threat_list.iter().cloned());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let paths = Paths::find(&args.paths, (args.since, args.until), &clock)?;
    let total_bytes = paths.total_bytes();
    let stop = StopFlag::default();
    let signals = Signals::listen(&stop)?;
    let job = job::build(Request {
        inputs: paths.inputs(&args.format, &engine, &clock),
        engine,
        filter: Filter::within(None, job::event_time(args.since, args.until)),
        tops: Vec::new(),
        detectors: Some(job::detectors(&detectors, &context)?),
        talkers: job::Talkers::default(),
        sinks: job::line_sinks("findings", Some(&args.findings))?,
        keeping: Keeping::default(),
        clock,
        stop,
        progress: progress::bytes_bar(total_bytes),
    })?;
    let report = pipeline::run(job).map_err(job::run_failure)?;
    if signals.seen() {
        return Err(Failure::Interrupted);
    }
    output::write_note(&report::text(&report, thread_count));
    if report.inputs.failed.is_empty() { Ok(()) } else { Err(Failure::Logged) }
}

fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    let Some(path) = config else {
        let (engine, detectors) = (EnginePlan::default(), DetectSettings::default());
        return Ok(Settings { engine, detectors, context: Vec::new() });
    };
    let Plan { engine, detectors, context, .. } = config::load(path).map_err(Failure::usage)?;
    Ok(Settings { engine, detectors, context })
}
