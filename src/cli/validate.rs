//! `flowgauge validate`: says what a configuration would run, or everything that is wrong with it.
//!
//! Beyond the text of the file it looks at the files that are named in it: sources must have files,
//! context must be readable, directories of sinks must exist, certificates must fit their keys. Nothing is started or written.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::knowledge;
use crate::aggregate::TalkerSpec;
use crate::config::{
    ConfigError, ConfigFault, EnginePlan, FileMention, FileRole, Lateness, MemoryMax, Plan,
    SinkInput, SinkKind, SourceKind, read_file,
};
use crate::enrich::OperatorContext;
use crate::metrics::{MemoryLimit, MemoryOrigin};
use crate::net::AddressSetBuilder;
use crate::record::{FormatChoice, Slot};
#[cfg(feature = "cloudwatch")]
use crate::source::cloudwatch::{CloudWatchSettings, LogGroup};
#[cfg(feature = "firehose")]
use crate::source::firehose::tls_fault;
#[cfg(feature = "kinesis")]
use crate::source::kinesis::{ConsumerAddress, ReadMode};
#[cfg(feature = "s3")]
use crate::source::s3::Intake;
use crate::source::{DiscoverError, discover};
#[cfg(feature = "cloudwatch")]
use crate::units::Moment;
use crate::units::{ByteCount, duration_text};

/// Entries of threat lists that are read to see whether they can be: the most that may be configured.
const ENTRIES_MAX: usize = 100_000_000;

/// Arguments of `flowgauge validate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: flowgauge validate -c flowgauge.toml")]
pub(crate) struct ValidateArgs {
    /// The configuration to check.
    #[arg(short, long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Why `validate` did not say `ok`. Bad configuration and bad usage are one exit code, 2; a closed
/// output is a failure while running.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ValidateError {
    /// The configuration is unreadable or faulty; every fault is in the message.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The result could not be printed.
    #[error("cannot print the result")]
    Output(#[source] io::Error),
}

/// Runs the command.
pub(crate) fn run(args: &ValidateArgs) -> Result<(), Failure> {
    validate(args, &mut io::stdout().lock()).map_err(|error| match error {
        ValidateError::Config(fault) => Failure::usage(fault),
        ValidateError::Output(fault) => Failure::output(fault),
    })
}

/// Checks the configuration and prints `FILE: ok` and what would run to `out`.
///
/// # Errors
/// [`ValidateError::Config`] with every fault of the file.
pub(crate) fn validate(args: &ValidateArgs, out: &mut dyn Write) -> Result<(), ValidateError> {
    let mut reading = read_file(&args.config)?;
    let faults: Vec<ConfigFault> = reading.files().iter().filter_map(file_fault).collect();
    let references = reading.references().clone();
    for ConfigFault { line, column, message } in faults {
        reading.add_fault(ConfigFault { line, column, message: references.hide(&message) });
    }
    let plan = reading.into_plan()?;
    let mut summary = Vec::new();
    let printed = print_summary(&plan, &mut summary)
        .and_then(|()| writeln!(out, "{}: ok", args.config.display()))
        .and_then(|()| {
            out.write_all(references.hide(&String::from_utf8_lossy(&summary)).as_bytes())
        });
    printed.map_err(ValidateError::Output)
}

/// What is wrong with a file that the configuration names.
fn file_fault(mention: &FileMention) -> Option<ConfigFault> {
    let path = &mention.path;
    let message = match &mention.role {
        FileRole::Source => match discover(std::slice::from_ref(path)) {
            Ok(_) => return None,
            Err(DiscoverError::Unreadable { path, source }) => {
                format!("cannot look into `{}`: {source}", path.display())
            }
            Err(error) => error.to_string(),
        },
        FileRole::Context => match std::fs::read_to_string(path) {
            Ok(text) => {
                let reason = context_fault(&text)?;
                format!("context file `{}` is not usable: {reason}", path.display())
            }
            Err(error) => format!("cannot read context file `{}`: {error}", path.display()),
        },
        FileRole::ThreatList => {
            let mut nowhere = AddressSetBuilder::new(ENTRIES_MAX);
            format!("{:#}", knowledge::read_list(path, &mut nowhere).err()?)
        }
        FileRole::Sink if path.is_dir() => {
            format!("`{}` is a directory; name a file in it", path.display())
        }
        FileRole::Sink => absent_parent(path, "path")?,
        FileRole::State if path.is_dir() => return None,
        FileRole::State if path.exists() => {
            format!("`{}` is no directory; name one, for this process alone", path.display())
        }
        FileRole::State => absent_parent(path, "state_dir")?,
        #[cfg(feature = "firehose")]
        FileRole::Tls { key, files } => {
            let (faulty_key, message) = tls_fault(files)?;
            if faulty_key != *key {
                return None;
            }
            message
        }
    };
    Some(ConfigFault { line: mention.line, column: mention.column, message })
}

/// What to say if the directory that is to hold `path`, the value of `key`, does not exist.
fn absent_parent(path: &Path, key: &str) -> Option<String> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty())?;
    let directory_text = directory.display();
    let fault = format!("there is no directory `{directory_text}`; create it, or change `{key}`");
    (!directory.is_dir()).then_some(fault)
}

/// Why the text is not a context file.
fn context_fault(text: &str) -> Option<String> {
    OperatorContext::from_json(text).err().map(|error| error.to_string())
}

fn print_summary(plan: &Plan, out: &mut dyn Write) -> io::Result<()> {
    let engine = &plan.engine;
    writeln!(
        out,
        "engine: {} threads, panes of {}, lateness {}",
        engine.thread_count(),
        duration_text(engine.pane),
        match engine.lateness {
            Lateness::Auto => "auto".to_owned(),
            Lateness::Fixed(lateness) => duration_text(lateness),
        },
    )?;
    writeln!(out, "memory: {}", memory_text(engine.memory_max))?;
    writeln!(out, "state: {}", state_text(engine))?;
    for source in &plan.sources {
        let format = match &source.format {
            FormatChoice::Auto => "format auto".to_owned(),
            FormatChoice::Fixed(layout) => format!("format of {} fields", layout.field_count()),
        };
        let rate = source.rate_limit.map_or_else(String::new, |limit| format!(", at most {limit}"));
        writeln!(out, "source {}: {}, {format}{rate}", source.name, source_text(&source.kind))?;
    }
    for path in &plan.context {
        writeln!(out, "context: {}", path.display())?;
    }
    for talkers in &plan.talkers {
        let TalkerSpec { name, top, window_seconds } = talkers;
        let by: Vec<&str> = top.by.iter().map(Slot::name).collect();
        let metric = top.metric.name();
        writeln!(
            out,
            "talkers {name}: {} by {metric}, windows of {window_seconds} s",
            by.join(",")
        )?;
    }
    writeln!(out, "detectors: {}", plan.detectors.enabled().join(", "))?;
    for sink in &plan.sinks {
        let target = match &sink.kind {
            SinkKind::Stdout => "standard output".to_owned(),
            SinkKind::File { path } => format!("the end of {}", path.display()),
        };
        let word = |input| SinkInput::WORDS.iter().find(|(_, known)| *known == input);
        let words = sink.inputs.iter().filter_map(|input| word(*input)).map(|(word, _)| *word);
        let inputs = words.collect::<Vec<_>>().join(" and ");
        writeln!(out, "sink {}: {inputs} to {target}", sink.name)?;
    }
    for note in plan.notes() {
        writeln!(out, "note: {note}")?;
    }
    Ok(())
}

fn memory_text(memory_max: MemoryMax) -> String {
    let (bytes, limit) = memory_max.bytes(Path::new("/"));
    let most = format!("at most {}", ByteCount(bytes.into()));
    let of =
        |owner: &str, bytes: u64| format!("{most}, half of {owner} {}", ByteCount(bytes.into()));
    match (memory_max, limit) {
        (MemoryMax::Bytes(_), _) => most,
        (MemoryMax::Auto, None) => format!("{most}, as the system does not tell what there is"),
        (MemoryMax::Auto, Some(MemoryLimit { bytes, origin: MemoryOrigin::Machine })) => {
            of("the machine's", bytes)
        }
        (MemoryMax::Auto, Some(MemoryLimit { bytes, origin: MemoryOrigin::Cgroup })) => {
            of("the cgroup's", bytes)
        }
    }
}

fn state_text(engine: &EnginePlan) -> String {
    let Some(directory) = &engine.state_dir else { return "not saved".to_owned() };
    let interval = duration_text(engine.checkpoint.interval);
    let presence = if directory.is_dir() { "" } else { ", which will be created" };
    let copies = match &engine.checkpoint.remote {
        None => String::new(),
        Some(remote) => format!(", copied to {remote}"),
    };
    format!("saved every {interval} in {}{presence}{copies}", directory.display())
}

fn source_text(kind: &SourceKind) -> String {
    match kind {
        SourceKind::File { paths } => {
            let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
            format!("files of {}", paths.join(", "))
        }
        SourceKind::Stdin => "standard input".to_owned(),
        SourceKind::Demo(_) => "generated records".to_owned(),
        #[cfg(feature = "kinesis")]
        SourceKind::Kinesis(settings) => {
            let stream = settings.stream.stream_name();
            match &settings.mode {
                ReadMode::Polling => format!("Kinesis stream {stream}"),
                ReadMode::FanOut(fan_out) => match &fan_out.consumer {
                    ConsumerAddress::Name(name) => {
                        format!("Kinesis stream {stream} by fan-out to consumer {name}")
                    }
                    ConsumerAddress::Arn(arn) => {
                        format!("Kinesis stream {stream} by fan-out to {arn}")
                    }
                },
            }
        }
        #[cfg(feature = "s3")]
        SourceKind::S3(settings) => match &settings.intake {
            Intake::Queue(queue) => format!("objects of S3 that queue {} tells of", queue.name()),
            Intake::Listing(listing) => {
                format!("objects below s3://{}/{}", listing.bucket, listing.prefix)
            }
        },
        #[cfg(feature = "cloudwatch")]
        SourceKind::CloudWatch(settings) => {
            let groups: Vec<&str> = settings.log_groups.iter().map(LogGroup::text).collect();
            format!("CloudWatch log groups {}{}", groups.join(", "), range_text(settings))
        }
        #[cfg(feature = "firehose")]
        SourceKind::Firehose(settings) => {
            let scheme = if settings.tls.is_some() { "https" } else { "http" };
            format!("Firehose deliveries to {scheme}://{}{}", settings.listen, settings.path)
        }
    }
}

#[cfg(feature = "cloudwatch")]
fn range_text(settings: &CloudWatchSettings) -> String {
    let text = |word: &str, moment: Option<Moment>| {
        moment.map_or_else(String::new, |moment| format!(" {word} {}", moment.text()))
    };
    format!("{}{}", text("from", settings.start), text("until", settings.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Validates `text` in a directory with `logs/a.log`, `context.json`, `list.json` (not an
    /// object) and `certificate.pem`; `ROOT` in `text` stands for the directory, and again in the result.
    fn check(text: &str, expected: Result<&str, &str>) {
        let root = tempfile::tempdir().unwrap();
        let root_text = root.path().to_str().unwrap().to_owned();
        std::fs::create_dir(root.path().join("logs")).unwrap();
        std::fs::write(root.path().join("logs/a.log"), "x\n").unwrap();
        std::fs::write(root.path().join("context.json"), "{}").unwrap();
        std::fs::write(root.path().join("list.json"), "[]").unwrap();
        let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        std::fs::write(root.path().join("certificate.pem"), certificate).unwrap();
        let config = root.path().join("f.toml");
        std::fs::write(&config, text.replace("ROOT", &root_text)).unwrap();
        let mut out = Vec::new();
        let result = validate(&ValidateArgs { config }, &mut out)
            .map(|()| String::from_utf8(out).unwrap().replace(&root_text, "ROOT"));
        let result = result.map_err(|error| error.to_string().replace(&root_text, "ROOT"));
        assert_eq!(result.as_deref().map_err(String::as_str), expected);
    }

    #[test]
    fn a_good_file_says_what_would_run() {
        check(
            "[engine]\nthreads = 2\nmemory_max = '2GB'\nlateness = 120\n\
             [sources.logs]\ntype = 'file'\npaths = ['ROOT/logs', 'ROOT/l*/*.log']\n\
             [sources.demo]\ntype = 'demo'\nformat = 'v2'\nrate_limit = '1000B/s'\n[enrich]\ncontext = ['ROOT/context.json']\n\
             [detectors.port_scan]\nenabled = false\n\
             [sinks.out]\ntype = 'file'\npath = 'ROOT/out.ndjson'\n",
            Ok("ROOT/f.toml: ok\n\
                engine: 2 threads, panes of 60s, lateness 2m\n\
                memory: at most 2.00 GB\n\
                state: not saved\n\
                source logs: files of ROOT/logs, ROOT/l*/*.log, format auto\n\
                source demo: generated records, format of 14 fields, at most 1000B/s\n\
                context: ROOT/context.json\n\
                detectors: host_sweep, distributed_scan, ssh_bruteforce, rdp_bruteforce, \
                login_after_bruteforce, remote_access_attempt, dos_flood, exfiltration, beacon, \
                suspicious_ip, unauthorized_protocol, amplification, top_talker_change, \
                sg_nacl_misconfig, traffic_anomaly, capture_gap\n\
                sink out: findings to the end of ROOT/out.ndjson\n\
                note: `engine.state_dir` is not set: nothing is saved, and a restart begins anew\n"),
        );
    }

    #[test]
    fn state_needs_a_place() {
        let file = |state_dir: &str| {
            format!(
                "[engine]\nthreads = 1\nmemory_max = '64MiB'\n{state_dir}\n[sources.in]\ntype = 'stdin'\n"
            )
        };
        let detectors = "detectors: port_scan, host_sweep, distributed_scan, ssh_bruteforce, rdp_bruteforce, \
                         login_after_bruteforce, remote_access_attempt, dos_flood, exfiltration, beacon, \
                         suspicious_ip, unauthorized_protocol, amplification, top_talker_change, \
                         sg_nacl_misconfig, traffic_anomaly, capture_gap";
        let expected = |state: &str| {
            format!(
                "ROOT/f.toml: ok\nengine: 1 threads, panes of 60s, lateness auto\n\
                 memory: at most 67.1 MB\nstate: saved every 10s in {state}\n\
                 source in: standard input, format auto\n{detectors}\n\
                 sink stdout: findings to standard output\n"
            )
        };
        let present = file("state_dir = 'ROOT/logs'");
        check(&present, Ok(&expected("ROOT/logs")));
        let creatable = file("state_dir = 'ROOT/new'");
        check(&creatable, Ok(&expected("ROOT/new, which will be created")));
        check(
            &file("state_dir = 'ROOT/list.json'"),
            Err(
                "ROOT/f.toml:4:1: `ROOT/list.json` is no directory; name one, for this process alone",
            ),
        );
        check(
            &file("state_dir = 'ROOT/no/state'"),
            Err(
                "ROOT/f.toml:4:1: there is no directory `ROOT/no`; create it, or change `state_dir`",
            ),
        );
    }

    #[test]
    fn faults_of_the_file_and_of_what_it_names_come_together() {
        check(
            "[engine]\npane = 0\n[sources.logs]\ntype = 'file'\npaths = ['ROOT/logs',\n 'ROOT/absent']\n\
             [enrich]\ncontext = [\n 'ROOT/none.json',\n 'ROOT/list.json']\n\
             [sinks.out]\ntype = 'file'\npath = 'ROOT/no/out.ndjson'\n",
            Err(
                "ROOT/f.toml:2:1: field `engine.pane` is `0`; it must be 1s to 1h; remove the line to use 60s\n\
                 ROOT/f.toml:6:2: no such file or directory: `ROOT/absent`\n\
                 ROOT/f.toml:9:2: cannot read context file `ROOT/none.json`: No such file or directory (os error 2)\n\
                 ROOT/f.toml:10:2: context file `ROOT/list.json` is not usable: invalid type: sequence, expected a map at line 1 column 0\n\
                 ROOT/f.toml:13:1: there is no directory `ROOT/no`; create it, or change `path`",
            ),
        );
    }

    #[test]
    fn a_sink_needs_a_file() {
        check(
            "[sources.demo]\ntype = 'demo'\n[sinks.out]\ntype = 'file'\npath = 'ROOT/logs'\n",
            Err("ROOT/f.toml:5:1: `ROOT/logs` is a directory; name a file in it"),
        );
    }

    #[cfg(feature = "firehose")]
    #[test]
    fn an_endpoint_needs_its_certificate() {
        let hint = |key| {
            format!(
                "let `{key}` name the file, and let the user that runs flowgauge read it: No such file or directory (os error 2)"
            )
        };
        let file = |certificate: &str| {
            format!(
                "[sources.in]\ntype = 'firehose_http'\naccess_keys = 'hunter2'\n\
                 certificate = '{certificate}'\nprivate_key = 'ROOT/none.pem'\n"
            )
        };
        check(
            &file("ROOT/absent.pem"),
            Err(&format!(
                "ROOT/f.toml:4:1: cannot read `ROOT/absent.pem`; {}",
                hint("certificate")
            )),
        );
        check(
            &file("ROOT/certificate.pem"),
            Err(&format!("ROOT/f.toml:5:1: cannot read `ROOT/none.pem`; {}", hint("private_key"))),
        );
    }

    #[test]
    fn an_absent_file_is_named() {
        let args = ValidateArgs { config: "/absent/f.toml".into() };
        let error = validate(&args, &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "cannot read the configuration file `/absent/f.toml`");
    }
}
