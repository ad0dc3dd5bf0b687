//! `flowgauge generate`: synthetic flow logs to a file, to standard output or to a Kinesis stream.
//!
//! Arguments become [`GenerateSettings`]; the lines come from a [`Generator`], wrapped by [`Envelopes`]
//! where another form than plain text is wanted. Labels are written at the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::failure::Failure;
#[cfg(feature = "kinesis")]
use crate::generate::envelope::KeyedPayload;
use crate::generate::envelope::{DocumentCompression, Envelopes, Form};
use crate::generate::{AttackKind, GenerateSettings, Generator, SettingsError};
use crate::record::Layout;
#[cfg(feature = "kinesis")]
use crate::sink::kinesis::{StreamTarget, StreamWriter};

const EXAMPLES: &str = "\
Examples:
  A million records with two attacks of each kind, and the truth about them:
    flowgauge generate --records 1m --attacks all=2 --labels labels.json -o flow.log
  Version 5 fields as an S3 object holds them:
    flowgauge generate --format v5 --header --gzip -o flow.log.gz
  CloudWatch Logs documents into a stream:
    flowgauge generate --records 100k --form cwl --stream vpc-flow-logs --region eu-west-1";

/// Make synthetic flow logs with planted, labelled attacks. One seed gives the same lines everywhere.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct GenerateArgs {
    /// Records to make; k, m and g stand for thousands, millions and billions, 0 for no end.
    #[arg(long, short = 'n', value_name = "COUNT", default_value = "1m", value_parser = count)]
    records: u64,

    /// Seed of all random numbers.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,

    /// Fields of a line: v2 to v11, tgw, field names, or a flow log's LogFormat string.
    #[arg(long, value_name = "FORMAT", default_value = "v2", value_parser = layout)]
    format: Arc<Layout>,

    /// Begin with a line that names the fields, as an S3 object does.
    #[arg(long, overrides_with = "no_header", conflicts_with = "stream")]
    header: bool,

    /// Begin with a record (the default).
    #[arg(long, overrides_with = "header")]
    no_header: bool,

    /// Share of IPv6 among records with traffic, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share)]
    ipv6: f64,

    /// Share of REJECT records in ordinary traffic, 0 to 1; attacks add theirs.
    #[arg(long, value_name = "SHARE", default_value_t = 0.035, value_parser = share)]
    reject: f64,

    /// Share of NODATA and SKIPDATA records, 0 to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    nodata: f64,

    /// Seconds by which records may come out of order, 0 to 3600.
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(0..=3_600))]
    disorder: u32,

    /// Network interfaces, 16 to 1m.
    #[arg(long, value_name = "COUNT", default_value = "20k", value_parser = interfaces)]
    interfaces: u32,

    /// Internet addresses of ordinary traffic, 16 to 100m.
    #[arg(long, value_name = "COUNT", default_value = "1m", value_parser = external)]
    external: u32,

    /// Skew of interfaces and addresses: rank r is drawn in proportion to 1 / r^SKEW; 0 to 3.
    #[arg(long, value_name = "SKEW", default_value_t = 1.0, value_parser = skew)]
    zipf: f64,

    /// Records per second of event time, 1 to 1g.
    #[arg(long, value_name = "COUNT", default_value = "10k", value_parser = rate)]
    rate: u64,

    /// Moment before which no record starts: Unix seconds or RFC 3339.
    #[arg(long, value_name = "TIME", default_value = "2026-01-01T00:00:00Z", value_parser = moment)]
    start: i64,

    /// Attacks to plant: KIND=COUNT, separated by commas; `all` stands for every kind. Kinds: port_scan,
    /// host_sweep, ssh_bruteforce, rdp_bruteforce, remote_access.
    #[arg(long, value_name = "LIST", default_value = "none", value_parser = attacks)]
    attacks: AttackCounts,

    /// Write the truth about attacks and look-alikes there as JSON.
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// Where the lines go; - is standard output.
    #[arg(long, short, value_name = "FILE", default_value = "-", conflicts_with = "stream")]
    output: PathBuf,

    /// Compress the output with gzip; a name that ends in .gz asks for it as well.
    #[arg(long, conflicts_with = "stream")]
    gzip: bool,

    /// How the lines are wrapped.
    #[arg(long, value_enum, default_value_t = WrapForm::Lines)]
    form: WrapForm,

    /// Put the records into this Kinesis stream.
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,

    /// AWS region of the stream.
    #[arg(long, value_name = "REGION", requires = "stream")]
    region: Option<String>,

    /// URL to use in place of the region's Kinesis endpoint.
    #[arg(long, value_name = "URL", requires = "stream")]
    endpoint: Option<String>,
}

/// The values of `--form`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WrapForm {
    /// Flow log text, one record a line.
    Lines,
    /// CloudWatch Logs subscription documents.
    Cwl,
    /// Firehose's JSON records, one line each, without separators.
    Direct,
    /// KPL aggregates; for --stream only.
    Kpl,
    /// All of these in turn; for --stream only.
    Mixed,
}

impl WrapForm {
    const fn form(self) -> Form {
        match self {
            Self::Lines => Form::Lines,
            Self::Cwl => Form::CloudWatch,
            Self::Direct => Form::Direct,
            Self::Kpl => Form::Kpl,
            Self::Mixed => Form::Mixed,
        }
    }
}

/// The value of `--attacks`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct AttackCounts(BTreeMap<AttackKind, u32>);

/// Arguments that are fine one by one and wrong together.
#[derive(Debug, thiserror::Error)]
enum GenerateUsageError {
    /// Settings that do not fit each other.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A form without separators between its records.
    #[error("records of `--form {0}` cannot be told apart in a file; add `--stream NAME`")]
    NeedsStream(&'static str),
    /// A header where no plain text is.
    #[error(
        "`--header` goes with `--form lines` only; documents carry records without their header"
    )]
    HeaderInDocument,
}

/// Lines or wrapped lines that are made at a time.
const BATCH_LINES: usize = 20_000;
/// Bytes gathered before they go to the system; documents are much smaller.
const WRITE_BYTES: usize = 1 << 16;

/// Runs the command.
pub(crate) fn run(args: &GenerateArgs) -> Result<(), Failure> {
    let settings = args.settings().map_err(Failure::usage)?;
    let mut generator = Generator::new(&settings);
    let written = match &args.stream {
        Some(stream) => write_stream(&mut generator, args, stream),
        None => write_output(&mut generator, args),
    };
    written.and_then(|()| write_labels(&generator, args)).map_err(Failure::running)
}

impl GenerateArgs {
    /// The settings, checked as a whole.
    fn settings(&self) -> Result<GenerateSettings, GenerateUsageError> {
        if self.stream.is_none() {
            match self.form {
                WrapForm::Kpl => return Err(GenerateUsageError::NeedsStream("kpl")),
                WrapForm::Mixed => return Err(GenerateUsageError::NeedsStream("mixed")),
                WrapForm::Lines | WrapForm::Cwl | WrapForm::Direct => {}
            }
        }
        if self.header && self.form != WrapForm::Lines {
            return Err(GenerateUsageError::HeaderInDocument);
        }
        let settings = GenerateSettings {
            records: self.records,
            seed: self.seed,
            format: Arc::clone(&self.format),
            header: self.header,
            interfaces: self.interfaces,
            external_addresses: self.external,
            zipf: self.zipf,
            ipv6_share: self.ipv6,
            reject_share: self.reject,
            nodata_share: self.nodata,
            disorder_seconds: self.disorder,
            records_per_second: self.rate,
            start: self.start,
            attacks: self.attacks.0.clone(),
            ..GenerateSettings::default()
        };
        settings.check()?;
        Ok(settings)
    }

    fn output_name(&self) -> String {
        if self.output.as_os_str() == "-" {
            return "standard output".to_owned();
        }
        format!("`{}`", self.output.display())
    }
}

/// Writes text or documents to a file or to standard output. A reader that has seen enough ends it
/// quietly.
fn write_output(generator: &mut Generator, args: &GenerateArgs) -> anyhow::Result<()> {
    let written = open_output(args).and_then(|out| write_to(generator, args, out));
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.with_context(|| format!("cannot write to {}", args.output_name())),
    }
}

fn open_output(args: &GenerateArgs) -> io::Result<Box<dyn Write>> {
    if args.output.as_os_str() == "-" {
        return Ok(Box::new(BufWriter::with_capacity(WRITE_BYTES, io::stdout().lock())));
    }
    Ok(Box::new(BufWriter::with_capacity(WRITE_BYTES, File::create(&args.output)?)))
}

fn write_to(generator: &mut Generator, args: &GenerateArgs, out: Box<dyn Write>) -> io::Result<()> {
    let named_gzip = args.output.extension().is_some_and(|extension| extension == "gz");
    if args.gzip || named_gzip {
        let mut encoder = GzEncoder::new(out, Compression::fast());
        write_form(generator, args.form, &mut encoder)?;
        return encoder.finish()?.flush();
    }
    let mut out = out;
    write_form(generator, args.form, &mut out)?;
    out.flush()
}

fn write_form(generator: &mut Generator, form: WrapForm, out: &mut dyn Write) -> io::Result<()> {
    if form == WrapForm::Lines {
        return write_lines(generator, out);
    }
    let mut envelopes = Envelopes::new(form.form(), DocumentCompression::Plain);
    let mut payloads = Vec::new();
    while envelopes.wrap(generator, BATCH_LINES, &mut payloads) > 0 {
        for (_, payload) in payloads.drain(..) {
            out.write_all(&payload)?;
        }
    }
    Ok(())
}

fn write_lines(generator: &mut Generator, out: &mut dyn Write) -> io::Result<()> {
    // Small enough to be still in the cache when the lines are written out.
    const LINES: usize = 2_000;
    if let Some(header) = generator.header_line() {
        out.write_all(header.as_bytes())?;
    }
    let mut text = Vec::new();
    while generator.fill(&mut text, LINES) > 0 {
        out.write_all(&text)?;
        text.clear();
    }
    Ok(())
}

/// Wraps everything and hands it over in batches of payloads.
#[cfg(feature = "kinesis")]
fn put_all(
    generator: &mut Generator,
    form: Form,
    put: &mut dyn FnMut(Vec<KeyedPayload>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut envelopes = Envelopes::new(form, DocumentCompression::Gzip);
    loop {
        let mut payloads = Vec::new();
        if envelopes.wrap(generator, BATCH_LINES, &mut payloads) == 0 {
            return Ok(());
        }
        put(payloads)?;
    }
}

/// Puts everything into a Kinesis stream.
#[cfg(feature = "kinesis")]
fn write_stream(
    generator: &mut Generator,
    args: &GenerateArgs,
    stream: &str,
) -> anyhow::Result<()> {
    let target = StreamTarget {
        stream: stream.to_owned(),
        region: args.region.clone(),
        endpoint: args.endpoint.clone(),
    };
    let mut writer = StreamWriter::connect(&target)?;
    put_all(generator, args.form.form(), &mut |payloads| Ok(writer.put(payloads)?))
}

/// Says that this build has no streams.
#[cfg(not(feature = "kinesis"))]
fn write_stream(_: &mut Generator, _: &GenerateArgs, stream: &str) -> anyhow::Result<()> {
    anyhow::bail!(
        "this build cannot write to stream `{stream}`; build it with the feature `kinesis`"
    )
}

fn write_labels(generator: &Generator, args: &GenerateArgs) -> anyhow::Result<()> {
    let Some(path) = &args.labels else { return Ok(()) };
    let mut json = serde_json::to_vec_pretty(&generator.labels()).context("labels as JSON")?;
    json.push(b'\n');
    std::fs::write(path, json).with_context(|| format!("cannot write to `{}`", path.display()))
}

/// A count with an optional suffix.
fn count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'm' | 'M')) => (&text[..at], 1_000_000),
        Some((at, 'g' | 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let number: Option<u64> = digits.parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| "write a count like `500000`, `500k`, `2m` or `1g`".to_owned())
}

fn count_within(text: &str, low: u64, high: u64) -> Result<u64, String> {
    let number = count(text)?;
    if (low..=high).contains(&number) {
        return Ok(number);
    }
    Err(format!("it must be {low} to {high}"))
}

fn count_u32(text: &str, low: u64, high: u32) -> Result<u32, String> {
    let number = count_within(text, low, high.into())?;
    u32::try_from(number).map_err(|_| format!("it must be {low} to {high}"))
}

fn interfaces(text: &str) -> Result<u32, String> {
    count_u32(text, 16, 1_000_000)
}

fn external(text: &str) -> Result<u32, String> {
    count_u32(text, 16, 100_000_000)
}

fn rate(text: &str) -> Result<u64, String> {
    count_within(text, 1, 1_000_000_000)
}

fn share(text: &str) -> Result<f64, String> {
    float_within(text, 1.0)
}

fn skew(text: &str) -> Result<f64, String> {
    float_within(text, 3.0)
}

fn float_within(text: &str, high: f64) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number
        .filter(|number| (0.0..=high).contains(number))
        .ok_or_else(|| format!("it must be a number from 0 to {high}"))
}

fn layout(text: &str) -> Result<Arc<Layout>, String> {
    Layout::from_text(text).map(Arc::new).map_err(|error| error.to_string())
}

fn moment(text: &str) -> Result<i64, String> {
    let seconds = match text.parse::<i64>() {
        Ok(seconds) => Some(seconds),
        Err(_) => text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second),
    };
    seconds.filter(|seconds| (0..=10_000_000_000).contains(seconds)).ok_or_else(|| {
        "write Unix seconds, or a moment after 1970 like `2026-01-01T00:00:00Z`".to_owned()
    })
}

fn attacks(text: &str) -> Result<AttackCounts, String> {
    let mut counts = BTreeMap::new();
    if text == "none" {
        return Ok(AttackCounts(counts));
    }
    for item in text.split(',') {
        let (name, number) = item.split_once('=').unwrap_or((item, "1"));
        let number = count_u32(number, 0, 10_000)?;
        if name == "all" {
            counts.extend(AttackKind::ALL.map(|kind| (kind, number)));
        } else if let Some(kind) = AttackKind::from_name(name) {
            counts.insert(kind, number);
        } else {
            let known = AttackKind::ALL.map(AttackKind::name).join(", ");
            return Err(format!("there is no attack `{name}`; there are {known}, all, none"));
        }
    }
    Ok(AttackCounts(counts))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: GenerateArgs,
    }

    fn settings(line: &str) -> Result<GenerateSettings, String> {
        let words = ["generate"].into_iter().chain(line.split_whitespace());
        let command = Command::try_parse_from(words).map_err(|error| error.to_string())?;
        command.args.settings().map_err(|error| error.to_string())
    }

    fn check_fault(line: &str, expected: &str) {
        let fault = settings(line).expect_err(line);
        assert!(fault.contains(expected), "{line}: {fault}");
    }

    #[test]
    fn without_arguments_the_documented_defaults_hold() {
        assert_eq!(settings("").unwrap(), GenerateSettings::default());
    }

    #[test]
    fn arguments_become_settings() {
        let got = settings(
            "-n 2m --format v5 --header --seed 7 --ipv6 0.5 --rate 1k --start 2026-02-01T00:00:00Z \
             --attacks all=2,host_sweep=5 --interfaces 300 --external 2k --zipf 0 --disorder 5",
        )
        .unwrap();
        assert_eq!((got.records, got.seed, got.header), (2_000_000, 7, true));
        assert_eq!((got.records_per_second, got.start), (1_000, 1_769_904_000));
        assert_eq!((got.interfaces, got.external_addresses), (300, 2_000));
        assert_eq!((got.format.field_count(), got.disorder_seconds), (29, 5));
        assert_eq!(got.attacks[&AttackKind::PortScan], 2);
        assert_eq!(got.attacks[&AttackKind::HostSweep], 5);
        assert!(!settings("--header --no-header").unwrap().header);
        assert_eq!(settings("--start 5").unwrap().start, 5);
    }

    #[test]
    fn faults_say_what_to_write() {
        check_fault("--records 1x", "write a count like");
        check_fault("--ipv6 1.5", "a number from 0 to 1");
        check_fault("--reject nan", "a number from 0 to 1");
        check_fault("--attacks dragons=1", "there is no attack `dragons`; there are port_scan");
        check_fault("--attacks port_scan=x", "write a count like");
        check_fault("--format srcAddr", "did you mean `srcaddr`");
        check_fault("--interfaces 4", "it must be 16 to 1000000");
        check_fault("--start yesterday", "write Unix seconds");
        check_fault("--reject 0.7 --nodata 0.7", "at most 1");
        check_fault("-n 100 --attacks all=1", "5 attacks need at least");
        check_fault("--form kpl", "add `--stream NAME`");
        check_fault("--form cwl --header", "`--form lines` only");
        check_fault("--stream s -o f", "cannot be used with");
        check_fault("--region r", "--stream");
    }

    fn written(line: &str) -> Vec<u8> {
        let words = ["generate"].into_iter().chain(line.split_whitespace());
        let args = Command::try_parse_from(words).unwrap().args;
        let mut generator = Generator::new(&args.settings().unwrap());
        let mut out = Vec::new();
        write_form(&mut generator, args.form, &mut out).unwrap();
        out
    }

    #[test]
    fn text_and_documents_hold_the_same_records() {
        let small = "-n 3k --interfaces 64 --external 1k";
        let text = String::from_utf8(written(&format!("{small} --header"))).unwrap();
        assert_eq!(text.lines().count(), 3_001);
        assert!(text.starts_with("version account-id "));
        let direct = written(&format!("{small} --form direct"));
        let documents = serde_json::Deserializer::from_slice(&direct);
        let messages = documents.into_iter::<BTreeMap<String, String>>();
        let lines: Vec<String> =
            messages.map(|document| document.unwrap()["message"].clone()).collect();
        assert!(lines.iter().eq(text.lines().skip(1)));
        let documents = written(&format!("{small} --form cwl"));
        let documents = serde_json::Deserializer::from_slice(&documents);
        let documents = documents.into_iter::<serde_json::Value>();
        let events: usize = documents
            .map(|document| document.unwrap()["logEvents"].as_array().unwrap().len())
            .sum();
        assert_eq!(events, 3_001, "one of them is the check of the destination");
    }
}
