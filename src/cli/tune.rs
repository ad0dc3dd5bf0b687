//! `flowgauge tune`: how many findings of a kind there would have been at other thresholds.
//!
//! Files are read and parsed once. The detector stands side by side with itself, once for each value of each
//! threshold, and all of them judge the same panes. Memory is bounded as a run's: the trials share it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::failure::Failure;
use super::job::{self, Keeping, Request, Talkers};
use super::output::{self, OutputFormat};
use super::paths::Paths;
use super::signals::Signals;
use super::{explain, progress, report};
use crate::clock::{Clock, SystemClock};
use crate::config::{
    self, EnginePlan, Plan, Threshold, detector_table, detectors_with, thresholds,
};
use crate::detect::{DetectSettings, NoiseSettings, TrialOutcome, TrialPlan};
use crate::finding::FindingKind;
use crate::pipeline::{self, Detectors, RunReport};
use crate::record::{Filter, FormatChoice};
use crate::source::StopFlag;
use crate::units::{Grouped, UnixSeconds};

/// The name and version of the JSON form.
const TUNE_SCHEMA: &str = "flowgauge.tune/v1";

/// Values of a threshold, as shares of the one in force: numerators over [`LADDER_OVER`].
const LADDER: [u64; 7] = [1, 2, 3, 4, 6, 8, 16];
const LADDER_OVER: u64 = 4;

/// Most trials of a run: each is a detector with its tables.
const TRIALS_MAX: usize = 100;

/// Show how many findings of a kind there would be at each threshold, over past flow logs
#[derive(Debug, Args)]
#[command(after_help = "\
Each threshold of the kind is tried at a ladder of values, the others as they are; input is read once. Allow lists
and the least severity apply, the limit of findings an hour does not.

Examples:
  flowgauge tune port_scan logs/
  flowgauge tune host_sweep -c flowgauge.toml --since 2026-01-05 s3://flow-logs/AWSLogs/
  flowgauge tune ssh_bruteforce --setting sessions_min --values 4,6,8,12,20 'logs/**/*.gz'")]
pub(crate) struct TuneArgs {
    /// A kind of finding, such as `port_scan`
    #[arg(value_name = "KIND", value_parser = explain::kind)]
    kind: FindingKind,
    /// Files, directories, globs, `s3://BUCKET/PREFIX/`, or `-` for standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Form of what is written to standard output
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
    /// Only this key of the kind's table, windows too; may be repeated
    #[arg(long, value_name = "KEY")]
    setting: Vec<String>,
    /// Values to try in place of the ladder, separated by commas; with one --setting
    #[arg(long, value_name = "N[,N…]", value_delimiter = ',', requires = "setting")]
    values: Vec<u64>,
    /// Take detectors, context and engine settings from this configuration
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the operator knows (JSON: vpc_cidrs, scanners, allow, …), beside the configuration's; may be repeated
    #[arg(long, value_name = "FILE")]
    context: Vec<PathBuf>,
    /// Order of the fields: auto (header, else AWS's default), v2 to v11, tgw, names, or a `LogFormat`
    #[arg(long, default_value = "auto", value_parser = FormatChoice::from_text)]
    format: FormatChoice,
    /// Only records that end at or after this time (RFC 3339, date or Unix seconds)
    #[arg(long, value_name = "TIME", value_parser = UnixSeconds::from_text, allow_hyphen_values = true)]
    since: Option<UnixSeconds>,
    /// Only records that end before this time
    #[arg(long, value_name = "TIME", value_parser = UnixSeconds::from_text, allow_hyphen_values = true)]
    until: Option<UnixSeconds>,
    /// Only records for which this holds, such as 'dstport in (22, 3389)'
    #[arg(long = "where", value_name = "EXPR", value_parser = Filter::from_text)]
    condition: Option<Filter>,
    /// Threads for parsing and for state; 0 for one per core [default: the configuration's, else 0]
    #[arg(short = 'j', long, value_name = "N")]
    threads: Option<usize>,
}

/// What a configuration says, if there is one.
struct Base {
    engine: EnginePlan,
    noise: NoiseSettings,
    context: Vec<PathBuf>,
    /// The kind's table.
    table: toml::Table,
}

impl Base {
    fn read(args: &TuneArgs) -> Result<Self, Failure> {
        let Some(path) = &args.config else {
            let Plan { engine, detectors, .. } = Plan::demo();
            let (noise, context, table) = (detectors.noise, Vec::new(), toml::Table::new());
            return Ok(Self { engine, noise, context, table });
        };
        let plan = config::load(path).map_err(Failure::usage)?;
        let text = std::fs::read_to_string(path).map_err(Failure::usage)?;
        Ok(Self {
            engine: plan.engine,
            noise: plan.detectors.noise,
            context: plan.context,
            table: detector_table(&text, args.kind),
        })
    }

    /// What a threshold is as things stand.
    fn in_force(&self, threshold: &Threshold) -> u64 {
        let written = self.table.get(threshold.name).and_then(toml::Value::as_integer);
        written.and_then(|value| u64::try_from(value).ok()).unwrap_or(threshold.default)
    }

    fn settings(
        &self,
        kind: FindingKind,
        changed: &[(&'static str, u64)],
    ) -> Result<DetectSettings, String> {
        let settings = detectors_with(kind, &self.table, changed)?;
        Ok(DetectSettings { noise: self.noise.clone(), ..settings })
    }
}

/// A threshold and what is tried of it.
struct Ladder {
    threshold: Threshold,
    in_force: u64,
    /// Values, each with the number of its trial.
    rungs: Vec<(u64, usize)>,
}

/// Everything that is tried.
struct Ladders {
    ladders: Vec<Ladder>,
    trials: Vec<DetectSettings>,
}

impl Ladders {
    fn new(args: &TuneArgs, base: &Base) -> Result<Self, Failure> {
        let unchanged = base.settings(args.kind, &[]).map_err(|fault| usage(&fault))?;
        let mut made = Self { ladders: Vec::new(), trials: vec![unchanged] };
        for threshold in asked(args)? {
            let in_force = base.in_force(&threshold);
            let mut rungs = Vec::new();
            for value in values(&args.values, &threshold, in_force) {
                match base.settings(args.kind, &[(threshold.name, value)]) {
                    Ok(settings) => rungs.push((value, made.number(settings))),
                    // A rung of the ladder may not go together with the rest; who asked for a value is told.
                    Err(fault) if args.values.contains(&value) => return Err(usage(&fault)),
                    Err(_) => {}
                }
            }
            made.ladders.push(Ladder { threshold, in_force, rungs });
        }
        if made.trials.len() > TRIALS_MAX {
            let count = made.trials.len();
            return Err(usage(&format!(
                "{count} trials are too many; name fewer --values, so that there are at most {TRIALS_MAX}"
            )));
        }
        Ok(made)
    }

    /// The number of the trial with these settings, which may be there already.
    fn number(&mut self, settings: DetectSettings) -> usize {
        let known = self.trials.iter().position(|trial| *trial == settings);
        known.unwrap_or_else(|| {
            self.trials.push(settings);
            self.trials.len() - 1
        })
    }
}

/// The thresholds that are asked for: all usual ones if none is named.
fn asked(args: &TuneArgs) -> Result<Vec<Threshold>, Failure> {
    let all = thresholds(args.kind);
    if args.setting.len() > 1 && !args.values.is_empty() {
        return Err(usage("--values are of one --setting; name one, or leave --values out"));
    }
    for name in &args.setting {
        if all.iter().all(|threshold| threshold.name != name) {
            let names: Vec<&str> = all.iter().map(|threshold| threshold.name).collect();
            let hint = match config::nearest(name, names.iter().copied()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("it has {}", names.join(", ")),
            };
            let kind = args.kind.name();
            return Err(usage(&format!("`{kind}` has no number `{name}`; {hint}")));
        }
    }
    let is_asked = |threshold: &Threshold| {
        let is_named = args.setting.iter().any(|name| name == threshold.name);
        is_named || (args.setting.is_empty() && threshold.is_usual)
    };
    Ok(all.into_iter().filter(is_asked).collect())
}

/// The values to try, in order, with the one in force and the default.
fn values(asked: &[u64], threshold: &Threshold, in_force: u64) -> BTreeSet<u64> {
    let ladder = LADDER.iter().map(|share| in_force.saturating_mul(*share).div_ceil(LADDER_OVER));
    let clamped = ladder.map(|value| value.clamp(threshold.min, threshold.max));
    let values: Vec<u64> = if asked.is_empty() { clamped.collect() } else { asked.to_vec() };
    values.into_iter().chain([in_force, threshold.default]).collect()
}

fn usage(fault: &str) -> Failure {
    Failure::usage(anyhow::anyhow!("{fault}"))
}

/// Runs the command.
pub(crate) fn run(args: &TuneArgs) -> Result<(), Failure> {
    let mut base = Base::read(args)?;
    base.context.extend(args.context.iter().cloned());
    let ladders = Ladders::new(args, &base)?;
    let engine = base.engine.clone();
    let engine = EnginePlan { threads: args.threads.unwrap_or(engine.threads), ..engine };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let detectors = job::detectors(&ladders.trials[0], &base.context)?;
    let plan = TrialPlan { kind: args.kind, settings: ladders.trials.clone() };
    let detectors = Detectors { trials: Some(plan), ..detectors };
    let paths = Paths::find(&args.paths, (args.since, args.until), &clock)?;
    let total_bytes = paths.total_bytes();
    let stop = StopFlag::default();
    let signals = Signals::listen(&stop)?;
    let job = job::build(Request {
        inputs: paths.inputs(&args.format, &engine, &clock),
        engine,
        filter: Filter::within(args.condition.clone(), job::event_time(args.since, args.until)),
        tops: Vec::new(),
        talkers: Talkers::default(),
        detectors: Some(detectors),
        sinks: Vec::new(),
        keeping: Keeping::default(),
        clock,
        stop,
        progress: progress::bytes_bar(total_bytes),
    })?;
    let report = pipeline::run(job).map_err(job::run_failure)?;
    if signals.seen() {
        return Err(Failure::Interrupted);
    }
    let answer = Answer::new(args.kind, &ladders.ladders, &report);
    match args.output {
        OutputFormat::Json => {
            let line = serde_json::to_string(&answer).map_err(Failure::running)?;
            output::write_text(&format!("{line}\n"))?;
        }
        OutputFormat::Text => output::write_text(&answer.text())?,
    }
    if report.inputs.failed.is_empty() { Ok(()) } else { Err(Failure::Logged) }
}

#[derive(Debug, Serialize)]
struct Answer {
    schema: &'static str,
    kind: &'static str,
    records: u64,
    first_start: Option<i64>,
    last_end: Option<i64>,
    hours: f64,
    /// With the settings in force.
    in_force: Row,
    settings: Vec<SettingAnswer>,
}

#[derive(Debug, Serialize)]
struct SettingAnswer {
    setting: &'static str,
    description: String,
    min: u64,
    max: u64,
    default: u64,
    in_force: u64,
    rows: Vec<ValueRow>,
}

#[derive(Debug, Serialize)]
struct ValueRow {
    value: u64,
    #[serde(flatten)]
    row: Row,
}

#[derive(Debug, Serialize)]
struct Row {
    findings: u64,
    updates: u64,
    per_hour: Option<f64>,
    /// Absent if they are more than are told apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    actors: Option<u64>,
    suppressed: u64,
    exact: bool,
}

impl Row {
    fn new(outcome: &TrialOutcome, hours: f64) -> Self {
        let TrialOutcome { findings, updates, actors, suppressed, evictions } = *outcome;
        let per_hour = (hours > 0.0).then(|| rounded(findings as f64 / hours));
        Self { findings, updates, per_hour, actors, suppressed, exact: evictions == 0 }
    }

    fn cells(&self) -> Vec<String> {
        let count = |count: u64| Grouped(count.into()).to_string();
        let per_hour = self.per_hour.map_or_else(String::new, |rate| format!("{rate:.2}"));
        let actors = self.actors.map_or_else(|| "over 10,000".to_owned(), count);
        let findings =
            format!("{}{}", if self.exact { "" } else { "at least " }, count(self.findings));
        vec![findings, count(self.updates), per_hour, actors, count(self.suppressed)]
    }
}

/// To a hundredth.
fn rounded(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

impl Answer {
    fn new(kind: FindingKind, ladders: &[Ladder], report: &RunReport) -> Self {
        let totals = &report.inputs.totals;
        let [first_start, last_end] =
            [totals.first_start, totals.last_end].map(|moment| moment.map(|moment| moment.0));
        let seconds =
            first_start.zip(last_end).map_or(0, |(first, last)| last.saturating_sub(first));
        let hours = rounded(seconds as f64 / 3600.0);
        let row = |number: usize| Row::new(&report.trials[number], hours);
        let settings = ladders.iter().map(|Ladder { threshold, in_force, rungs }| SettingAnswer {
            setting: threshold.name,
            description: threshold.description.clone(),
            min: threshold.min,
            max: threshold.max,
            default: threshold.default,
            in_force: *in_force,
            rows: rungs
                .iter()
                .map(|(value, number)| ValueRow { value: *value, row: row(*number) })
                .collect(),
        });
        Self {
            schema: TUNE_SCHEMA,
            kind: kind.name(),
            records: totals.records(),
            first_start,
            last_end,
            hours,
            in_force: row(0),
            settings: settings.collect(),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _infallible = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let count = |count: u64| Grouped(count.into());
        writeln!(
            out,
            "{}: {} findings with the settings in force, in {} records of {:.2} hours",
            self.kind,
            count(self.in_force.findings),
            count(self.records),
            self.hours
        )?;
        if self.settings.is_empty() {
            writeln!(
                out,
                "It has no threshold to tune; `flowgauge explain {}` says more.",
                self.kind
            )?;
        }
        for setting in &self.settings {
            let rows: Vec<Vec<String>> =
                setting.rows.iter().map(|row| setting.cells(row)).collect();
            let head = ["value", "", "findings", "updates", "per hour", "actors", "not told"];
            let title = format!("{}, {} to {}", setting.setting, setting.min, setting.max);
            report::write_table(out, &title, &head, 2, &rows)?;
        }
        Ok(())
    }
}

impl SettingAnswer {
    fn cells(&self, row: &ValueRow) -> Vec<String> {
        let mark = match (row.value == self.in_force, row.value == self.default) {
            (true, true) => "in force, default",
            (true, false) => "in force",
            (false, true) => "default",
            (false, false) => "",
        };
        let mut cells = vec![row.value.to_string(), mark.to_owned()];
        cells.extend(row.row.cells());
        cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(in_force: u64, asked: &[u64], expected: &[u64]) {
        let threshold = Threshold {
            name: "ports_min",
            description: String::new(),
            default: 15,
            min: 2,
            max: 100,
            is_usual: true,
        };
        let found: Vec<u64> = values(asked, &threshold, in_force).into_iter().collect();
        assert_eq!(found, expected, "{in_force} {asked:?}");
    }

    #[test]
    fn ladders_go_from_a_quarter_to_four_times() {
        check(15, &[], &[4, 8, 12, 15, 23, 30, 60]);
        check(3, &[], &[2, 3, 5, 6, 12, 15]);
        check(80, &[], &[15, 20, 40, 60, 80, 100]);
        check(15, &[9, 5], &[5, 9, 15]);
    }
}
