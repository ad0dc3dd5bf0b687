//! `flowgauge doctor`: takes a little of a source and says what it found, and what to put into the
//! configuration.
//!
//! Nothing is changed by looking: no position is kept, no message is deleted, no consumer registered.

mod needs;
mod report;
mod sample;
mod survey;
mod verdict;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::failure::Failure;
use super::job;
use super::output::{self, OutputFormat};
use super::signals::Signals;
#[cfg(feature = "aws")]
use crate::aws::{AwsAccess, FlowLog, FlowLogQuery, QueryClient, describe_flow_logs};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, EnginePlan, SourceKind, SourcePlan};
use crate::framing::Limits;
use crate::record::FormatChoice;
use crate::source::{FileSource, InputIds, STDIN, StopFlag, discover};
use crate::units::{DURATION_FORMS, SIZE_FORMS, parse_duration, parse_size};

use sample::{Sample, SampleLimits};
use verdict::Verdict;

/// Files of one list that are looked at; they are spread over it.
const FILES_MAX: usize = 16;
/// How much of a file is looked at to tell its wrapping.
const FILE_START_BYTES: u64 = 64 << 10;
/// How far back a stream is read that would be read from its oldest or after its newest record: at the oldest
/// nothing can be said of its lag, and after the newest nothing may come.
#[cfg(feature = "kinesis")]
const STREAM_LOOK_BACK_MS: i64 = 15 * 60 * 1_000;
/// How far back days are listed for a sample: today and yesterday.
#[cfg(feature = "s3")]
const LISTED_BACK_SECONDS: i64 = 24 * 60 * 60;

/// Look at a source: what it holds, what to put into the configuration, what is wrong
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 1 if a source can't be read, or if nothing that it holds is a flow log.

Examples:
  flowgauge doctor logs/                        files
  flowgauge doctor -c flowgauge.toml            every source of a configuration
  flowgauge doctor --vpc vpc-0123 --region eu-west-1
                                                the formats of a VPC's flow logs
  flowgauge doctor --flow-log fl-0123 -c flowgauge.toml --source prod
                                                read the source by that flow log's format")]
pub(crate) struct DoctorArgs {
    /// Files, directories, globs, or `-` for standard input
    #[arg(value_name = "PATH", required_unless_present_any = ["config", "flow_log", "vpc"])]
    paths: Vec<String>,
    /// Look at the sources of this configuration
    #[arg(short, long, value_name = "FILE", conflicts_with = "paths")]
    config: Option<PathBuf>,
    /// Only this source; may be repeated
    #[arg(long, value_name = "NAME", requires = "config")]
    source: Vec<String>,
    /// Order of the fields: auto (header, else AWS's default), v2 to v11, tgw, names, or a `LogFormat`
    #[arg(long, value_parser = FormatChoice::from_text)]
    format: Option<FormatChoice>,
    /// Take the format from this flow log, `fl-…` (ec2:DescribeFlowLogs)
    #[arg(long, value_name = "ID", conflicts_with = "format")]
    flow_log: Option<String>,
    /// Say the formats of the flow logs of this VPC, subnet or interface (ec2:DescribeFlowLogs)
    #[arg(long, value_name = "ID", conflicts_with = "flow_log")]
    vpc: Option<String>,
    /// Region of --flow-log and --vpc [default: AWS_REGION, or the profile's]
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Endpoint of EC2 for --flow-log and --vpc
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// AWS profile for --flow-log and --vpc
    #[arg(long, value_name = "NAME")]
    profile: Option<String>,
    /// How long each source is read at most
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = duration)]
    time: Duration,
    /// How much of each source is read at most
    #[arg(long, default_value = "16MiB", value_name = "SIZE", value_parser = size)]
    bytes: u64,
    /// Form of the report on standard output
    #[arg(short, long, value_enum, default_value_t)]
    output: OutputFormat,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| format!("it must be {DURATION_FORMS}"))
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).filter(|bytes| *bytes > 0).ok_or_else(|| format!("it must be {SIZE_FORMS}"))
}

/// Runs the command.
pub(crate) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let stop = StopFlag::default();
    let signals = Signals::listen(&stop)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let flow_logs = flow_logs(args)?;
    let format = match (&args.format, &args.flow_log, flow_logs.first()) {
        (Some(format), _, _) => Some(format.clone()),
        (None, Some(_), Some(log)) => Some(log.choice()?),
        _ => None,
    };
    let limits = SampleLimits { time: args.time, bytes: args.bytes };
    let mut verdicts = Vec::new();
    for subject in subjects(args)? {
        let look = Look { limits, stop: &stop, clock: &clock };
        let sample = look.sample(&subject)?;
        if signals.seen() {
            return Err(Failure::Interrupted);
        }
        verdicts.push(Verdict::new(&subject, &sample, format.as_ref(), clock.now()));
    }
    match args.output {
        OutputFormat::Json => output::write_text(&report::json(&verdicts, &flow_logs))?,
        OutputFormat::Text => output::write_text(&report::text(&verdicts, &flow_logs))?,
    }
    let is_bad = verdicts.iter().any(|verdict| !verdict.errors.is_empty());
    if is_bad { Err(Failure::Logged) } else { Ok(()) }
}

/// A flow log as far as it is reported.
#[derive(Clone, Debug, serde::Serialize)]
struct KnownFlowLog {
    id: String,
    resource: String,
    traffic: String,
    destination: String,
    format: String,
    aggregation_interval_seconds: Option<u32>,
    /// Why it delivers nothing, if that is so.
    failure: Option<String>,
}

impl KnownFlowLog {
    fn choice(&self) -> Result<FormatChoice, Failure> {
        if self.format.is_empty() {
            return Err(Failure::running(anyhow::anyhow!(
                "the service did not say the format of flow log `{}`; give it by --format",
                self.id
            )));
        }
        FormatChoice::from_text(&self.format).map_err(Failure::running)
    }
}

#[cfg(feature = "aws")]
impl From<FlowLog> for KnownFlowLog {
    fn from(log: FlowLog) -> Self {
        let has_failed = log.deliver_logs_status == "FAILED";
        Self {
            id: log.flow_log_id,
            resource: log.resource_id,
            traffic: log.traffic_type,
            destination: if log.log_destination.is_empty() {
                log.log_group_name
            } else {
                log.log_destination
            },
            format: log.log_format,
            aggregation_interval_seconds: log.max_aggregation_interval,
            failure: has_failed.then_some(log.deliver_logs_error_message),
        }
    }
}

#[cfg(feature = "aws")]
fn flow_logs(args: &DoctorArgs) -> Result<Vec<KnownFlowLog>, Failure> {
    let query = match (&args.flow_log, &args.vpc) {
        (Some(id), _) => FlowLogQuery::Id(id.clone()),
        (None, Some(id)) => FlowLogQuery::Resource(id.clone()),
        (None, None) => return Ok(Vec::new()),
    };
    let access = AwsAccess {
        region: args.region.clone(),
        endpoint: args.endpoint.clone(),
        profile: args.profile.clone(),
        credentials: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::running)?;
    let found = runtime.block_on(async {
        let client = QueryClient::ec2(&access, Box::new(SystemClock::new())).await?;
        describe_flow_logs(&client, &query).await
    });
    let logs = found.map_err(Failure::running)?;
    if logs.is_empty() {
        let (FlowLogQuery::Id(id) | FlowLogQuery::Resource(id)) = &query else {
            return Ok(Vec::new());
        };
        return Err(Failure::running(anyhow::anyhow!(
            "there is no flow log of `{id}` in this region and account; check --region, or make one"
        )));
    }
    Ok(logs.into_iter().map(KnownFlowLog::from).collect())
}

#[cfg(not(feature = "aws"))]
fn flow_logs(args: &DoctorArgs) -> Result<Vec<KnownFlowLog>, Failure> {
    if args.flow_log.is_some() || args.vpc.is_some() {
        return Err(Failure::usage(anyhow::anyhow!(
            "--flow-log and --vpc ask AWS, which this build leaves out; build with the feature `aws`"
        )));
    }
    Ok(Vec::new())
}

/// Something to look at.
struct Subject {
    plan: SourcePlan,
    /// Whether the plan comes from a configuration.
    is_configured: bool,
}

fn subjects(args: &DoctorArgs) -> Result<Vec<Subject>, Failure> {
    if let Some(path) = &args.config {
        let plan = config::load(path).map_err(Failure::usage)?;
        if let Some(absent) =
            args.source.iter().find(|name| plan.sources.iter().all(|source| source.name != **name))
        {
            let names: Vec<&str> = plan.sources.iter().map(|source| source.name.as_str()).collect();
            return Err(Failure::usage(anyhow::anyhow!(
                "the configuration has no source `{absent}`; it has {}",
                names.join(", ")
            )));
        }
        let is_meant =
            |plan: &SourcePlan| args.source.is_empty() || args.source.contains(&plan.name);
        let plans = plan.sources.into_iter().filter(is_meant);
        return Ok(plans.map(|plan| Subject { plan, is_configured: true }).collect());
    }
    let (stdin, named): (Vec<&String>, Vec<&String>) =
        args.paths.iter().partition(|path| path.as_str() == STDIN);
    for path in &named {
        if file_start(Path::new(path)).is_some_and(|start| config::is_configuration(&start)) {
            return Err(Failure::usage(anyhow::anyhow!(
                "`{path}` looks like a flowgauge configuration, not like flow logs; look at its sources with `flowgauge doctor -c {path}`"
            )));
        }
    }
    let subject = |name: &str, kind| Subject {
        plan: SourcePlan {
            name: name.to_owned(),
            kind,
            format: FormatChoice::Auto,
            rate_limit: None,
        },
        is_configured: false,
    };
    let mut subjects = Vec::new();
    if !named.is_empty() {
        let paths = named.into_iter().map(PathBuf::from).collect();
        subjects.push(subject("files", SourceKind::File { paths }));
    }
    if !stdin.is_empty() {
        subjects.push(subject("stdin", SourceKind::Stdin));
    }
    Ok(subjects)
}

/// How subjects are looked at.
struct Look<'a> {
    limits: SampleLimits,
    stop: &'a StopFlag,
    clock: &'a Arc<dyn Clock>,
}

impl Look<'_> {
    fn sample(&self, subject: &Subject) -> Result<Sample, Failure> {
        match &subject.plan.kind {
            SourceKind::File { paths } => self.sample_files(paths, &subject.plan.format),
            _ => {
                let plan = self.for_a_look(subject.plan.clone());
                let engine = EnginePlan::default();
                let inputs = job::plan_inputs(&[plan], &engine, self.clock)?;
                Sample::take(inputs.into_sources(), self.limits, self.stop)
            }
        }
    }

    /// The beginnings of some files, spread over the list.
    fn sample_files(&self, paths: &[PathBuf], format: &FormatChoice) -> Result<Sample, Failure> {
        let files = discover(paths).map_err(Failure::usage)?;
        let count = files.len().min(FILES_MAX);
        let some: Vec<PathBuf> =
            (0..count).map(|index| files[index * files.len() / count].clone()).collect();
        let share = SampleLimits { bytes: self.limits.bytes.div_ceil(count as u64), ..self.limits };
        let ids = InputIds::default();
        let sources = some
            .iter()
            .flat_map(|file| {
                let one = std::slice::from_ref(file);
                FileSource::split(one, format, &Limits::default(), 1, &ids)
            })
            .collect();
        let mut sample = Sample::take(sources, share, self.stop)?;
        for file in &some {
            if let Some(start) = file_start(file) {
                sample.see_wrapping(&start);
            }
        }
        sample.is_cut |= count < files.len();
        Ok(sample)
    }

    /// A plan that soon gives something, of what is new.
    #[cfg_attr(
        not(any(feature = "kinesis", feature = "s3")),
        expect(clippy::unused_self, reason = "no kind is left whose look depends on the time")
    )]
    fn for_a_look(&self, mut plan: SourcePlan) -> SourcePlan {
        match &mut plan.kind {
            SourceKind::File { .. } | SourceKind::Stdin | SourceKind::Demo(_) => {}
            #[cfg(feature = "kinesis")]
            SourceKind::Kinesis(settings) => {
                use crate::source::kinesis::{Moment, ReadMode, StartPosition};
                // A consumer has one subscription to a shard: a look must not take it from the job.
                settings.mode = ReadMode::Polling;
                if !matches!(settings.start, StartPosition::AtTimestamp(_)) {
                    let unix_ms = self.clock.now_ms().saturating_sub(STREAM_LOOK_BACK_MS);
                    settings.start = StartPosition::AtTimestamp(Moment { unix_ms });
                }
            }
            #[cfg(feature = "firehose")]
            SourceKind::Firehose(settings) => settings.is_look = true,
            // Nobody tells the source what is safe, so it gives all messages back.
            #[cfg(feature = "s3")]
            SourceKind::S3(settings) => {
                if let crate::source::s3::Intake::Listing(listing) = &mut settings.intake {
                    let today = self.clock.now();
                    listing.since =
                        listing.since.max(Some(today.saturating_add(-LISTED_BACK_SECONDS)));
                }
            }
            #[cfg(feature = "cloudwatch")]
            SourceKind::CloudWatch(settings) => {
                settings.poll_interval = Duration::from_secs(1);
            }
        }
        plan
    }
}

/// The first bytes of a regular file; what can be read only once is left alone.
fn file_start(path: &Path) -> Option<Vec<u8>> {
    let file = File::open(path)
        .ok()
        .filter(|file| file.metadata().is_ok_and(|metadata| metadata.is_file()))?;
    let mut start = Vec::new();
    file.take(FILE_START_BYTES).read_to_end(&mut start).ok()?;
    (!start.is_empty()).then_some(start)
}
