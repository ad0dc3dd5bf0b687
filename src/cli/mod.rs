//! What users type: arguments, reports, exit codes.
//!
//! Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 failed while
//! running, 2 bad usage or configuration (nothing was started), 130 interrupted.

mod analyze;
mod crash;
mod doctor;
mod explain;
mod failure;
mod generate;
mod iam;
mod init;
mod job;
mod knowledge;
mod logs;
mod merge;
mod output;
mod paths;
mod progress;
mod reload;
mod remote;
mod replay;
mod report;
mod run;
mod signals;
mod tune;
mod validate;

use clap::{Parser, Subcommand};

use logs::{LogOptions, Logs};

/// Reads VPC Flow Logs once, while they flow, and turns them into findings, talkers and totals.
#[derive(Debug, Parser)]
#[command(name = "flowgauge", version, max_term_width = 100, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 done, 1 failed while running, 2 bad usage or configuration, 130 interrupted.

Examples:
  flowgauge run                                  the demo: generated traffic with planted attacks
  flowgauge analyze logs/                        a report on files
  flowgauge replay -c flowgauge.toml archive/    what the stream job would have found in them
  flowgauge generate --records 1m -o flow.log    synthetic flow logs")]
struct Arguments {
    /// Log more: -v for the run's life cycle, -vv for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Log only errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Form of the log lines on standard error [default: the configuration's, else text]
    #[arg(long, global = true, value_enum)]
    log_format: Option<logs::FormatArg>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Analyze(analyze::AnalyzeArgs),
    Replay(replay::ReplayArgs),
    Tune(tune::TuneArgs),
    Merge(merge::MergeArgs),
    Validate(validate::ValidateArgs),
    Doctor(doctor::DoctorArgs),
    Explain(explain::ExplainArgs),
    Init(init::InitArgs),
    Generate(generate::GenerateArgs),
    Iam(iam::IamArgs),
}

/// Runs the program with the process's arguments and returns its exit code.
#[must_use]
pub fn main() -> u8 {
    // clap prints help and usage errors itself and exits with 0 or 2.
    let arguments = Arguments::parse();
    let logs = Logs::start(LogOptions {
        verbose: arguments.verbose,
        is_quiet: arguments.quiet,
        format: arguments.log_format,
    });
    crash::install(&logs);
    let outcome = match arguments.command {
        Command::Run(args) => run::run(&args, &logs),
        Command::Analyze(args) => analyze::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Validate(args) => validate::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Iam(args) => iam::run(&args),
    };
    logs.finish();
    match outcome {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    }
}
