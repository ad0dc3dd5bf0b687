//! `flowgauge merge`: one report from what several processes have seen of a stream.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;

use super::failure::Failure;
use super::job;
use super::output::{self, OutputFormat};
use super::report;
use crate::checkpoint::PartialReader;
use crate::checkpoint::disk::SystemDisk;
use crate::clock::{Clock as _, SystemClock};
use crate::config::EnginePlan;
use crate::detect::DetectSettings;
use crate::pipeline::{self, RunReport, Summary};
use crate::sink::encode;

/// Put together what several `analyze --partials` have seen, as if one had seen it all
#[derive(Debug, Args)]
#[command(after_help = "\
The directories may be given in any order. The result is that of one process that read everything, as
long as none of them ran out of memory.

Examples:
  flowgauge analyze --partials one/ half-a.log.gz
  flowgauge analyze --partials two/ half-b.log.gz
  flowgauge merge one/ two/ --findings alerts.ndjson")]
pub(crate) struct MergeArgs {
    /// Directories that `analyze --partials` wrote
    #[arg(required = true, value_name = "DIR")]
    partials: Vec<PathBuf>,
    /// Form of the report on standard output
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    /// Write findings as NDJSON to a file, or `-` for standard output
    #[arg(long, value_name = "FILE")]
    findings: Option<PathBuf>,
    /// What the operator knows (JSON: vpc_cidrs, allowlisted_scanners, …); may be repeated
    #[arg(long, value_name = "FILE")]
    context: Vec<PathBuf>,
}

/// Runs the command.
pub(crate) fn run(args: &MergeArgs) -> Result<(), Failure> {
    let detectors = job::detectors(&DetectSettings::default(), &args.context)?;
    let open = |path: &PathBuf| {
        let name = path.display().to_string();
        let reader = PartialReader::open(Arc::new(SystemDisk), path)
            .with_context(|| {
                format!("`{name}` must be a directory that `analyze --partials` wrote")
            })
            .map_err(Failure::Usage)?;
        Ok((name, reader))
    };
    let partials = args.partials.iter().map(open).collect::<Result<Vec<_>, Failure>>()?;
    let mut sinks = job::line_sinks("findings", args.findings.as_deref())?;
    let clock = SystemClock::new();
    let memory = job::memory(&EnginePlan::default(), false);
    let (report, findings) =
        pipeline::merge(&partials, &detectors, memory).map_err(Failure::running)?;
    let mut lines = Vec::new();
    findings.iter().for_each(|finding| encode::ndjson::encode(finding, &mut lines));
    for sink in &mut sinks {
        let written = sink.write(&findings, &lines).and_then(|()| sink.flush());
        written.map_err(|error| job::run_failure(error.into()))?;
    }
    let report = RunReport { elapsed: clock.monotonic(), ..report };
    match args.output {
        OutputFormat::Json => output::write_summary(&Summary::new(&report, 1))?,
        OutputFormat::Text => output::write_text(&report::text(&report, 1))?,
    }
    if report.inputs.failed.is_empty() { Ok(()) } else { Err(Failure::Logged) }
}
