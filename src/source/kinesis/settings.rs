//! What `[sources.NAME]` of type `kinesis` may say, checked while it is read.
//!
//! A [`KinesisSettings`] can be used as it is: every faulty value is refused by its `Deserialize`, so
//! that the message carries the place in the file.

use std::time::Duration;

use serde::Deserialize;

use crate::aws::AwsAccess;
use crate::units::checked::{URL_FORM, checked, duration_in, number_in, size_from, url};

pub use crate::units::Moment;

/// Least time between two reads of one shard: Kinesis allows five reads a second, for all readers
/// of the shard together.
pub const POLL_INTERVAL_MIN: Duration = Duration::from_millis(200);
const POLL_INTERVAL_MAX: Duration = Duration::from_mins(1);
const POLL_INTERVAL_DEFAULT: Duration = Duration::from_millis(250);
/// Most records that one read may return, by Kinesis' own limit.
pub const RECORDS_PER_CALL_LIMIT: u16 = 10_000;
/// One answer may hold 10 MiB.
const READ_AHEAD_BYTES_MIN: u64 = 16 << 20;
const READ_AHEAD_BYTES_DEFAULT: u64 = 128 << 20;
/// Kinesis sends an empty event about every five seconds when there are no records.
const SILENT_AFTER: Duration = Duration::from_secs(35);
const STALLED_AFTER_DEFAULT: Duration = Duration::from_mins(2);
const STALLED_AFTER_MIN: Duration = Duration::from_secs(10);
const STALLED_AFTER_MAX: Duration = Duration::from_hours(1);
const LIST_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const LIST_INTERVAL_MIN: Duration = Duration::from_secs(1);
const LIST_INTERVAL_MAX: Duration = Duration::from_mins(10);

/// How a stream is read.
///
/// ```toml
/// stream = "vpc-flow-logs"        # or stream_arn = "arn:aws:kinesis:…:stream/vpc-flow-logs"
/// region = "eu-central-1"         # default: the ARN's, AWS_REGION, or the profile's
/// endpoint = "http://…"           # default: the region's, or AWS_ENDPOINT_URL
/// profile = "security"            # default: AWS_PROFILE, or the standard credential chain
/// start = "trim_horizon"          # "latest", or { at_timestamp = "2026-01-01T00:00:00Z" }
/// poll_interval = "250ms"         # "200ms" to "60s"
/// records_per_call_max = 10000    # 1 to 10000
/// read_ahead_max = "128MiB"       # at least "16MiB"; payload fetched and not yet handed on
/// mode = "auto"                   # "polling", "fan_out"; auto: fan-out if a consumer is named
/// consumer = "flowgauge"          # or consumer_arn = "arn:…/consumer/flowgauge:1767225600"
/// deregister_consumer = false     # whether the end of a run takes the consumer off the stream
/// stalled_after = "2m"            # "10s" to "1h"; when a reader without an answer is started again
/// list_interval = "30s"           # "1s" to "10m"; between two listings, which audit what is read
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct KinesisSettings {
    /// The stream.
    pub stream: StreamAddress,
    /// Region, endpoint and profile.
    pub access: AwsAccess,
    /// Where the first read of the stream begins.
    pub start: StartPosition,
    /// Time between the starts of two reads of one shard; near the tip it grows up to a second.
    pub poll_interval: Duration,
    /// Most records asked for per read.
    pub records_per_call_max: u16,
    /// Payload bytes that may be fetched and not yet handed on, over all shards.
    pub read_ahead_bytes_max: u64,
    /// How records come.
    pub mode: ReadMode,
    /// After how long without a successful answer a reader is started again, and that is told.
    pub stalled_after: Duration,
    /// Time between two listings of shards, which find what nobody told of and audit what is read.
    pub list_interval: Duration,
}

/// How records come out of shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadMode {
    /// Asked for, time and again, out of the 2 MB a second that all pollers of a shard share.
    Polling,
    /// Pushed to a registered consumer, which has 2 MB a second of each shard for itself.
    FanOut(FanOut),
}

/// An enhanced fan-out consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanOut {
    /// Which.
    pub consumer: ConsumerAddress,
    /// Whether the end of a run takes it off the stream. It is kept over a fault.
    pub deregister: bool,
    /// A subscription that brings nothing for this long, not even an empty event, is made again.
    pub silent_after: Duration,
}

impl FanOut {
    /// A consumer that stays registered.
    #[must_use]
    pub fn of(consumer: ConsumerAddress) -> Self {
        Self { consumer, deregister: false, silent_after: SILENT_AFTER }
    }
}

/// A consumer by name or by ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerAddress {
    /// A name among the stream's consumers; registered if there is none of this name.
    Name(String),
    /// The ARN of one that is registered.
    Arn(String),
}

impl KinesisSettings {
    /// The defaults for a stream.
    #[must_use]
    pub fn of(stream: StreamAddress) -> Self {
        let region = stream.region().map(str::to_owned);
        Self {
            stream,
            access: AwsAccess { region, ..AwsAccess::default() },
            start: StartPosition::TrimHorizon,
            poll_interval: POLL_INTERVAL_DEFAULT,
            records_per_call_max: RECORDS_PER_CALL_LIMIT,
            read_ahead_bytes_max: READ_AHEAD_BYTES_DEFAULT,
            mode: ReadMode::Polling,
            stalled_after: STALLED_AFTER_DEFAULT,
            list_interval: LIST_INTERVAL_DEFAULT,
        }
    }
}

/// A stream by name or by ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamAddress {
    /// A name, in the account of the credentials.
    Name(String),
    /// An ARN, which may belong to another account.
    Arn(String),
}

impl StreamAddress {
    /// The stream's own name.
    #[must_use]
    pub fn stream_name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Arn(arn) => arn.rsplit_once(":stream/").map_or(arn, |(_, name)| name),
        }
    }

    /// The region that an ARN names.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        match self {
            Self::Name(_) => None,
            Self::Arn(arn) => arn.split(':').nth(3),
        }
    }

    /// The `StreamName` of a request.
    pub(super) fn request_name(&self) -> Option<String> {
        if let Self::Name(name) = self { Some(name.clone()) } else { None }
    }

    /// The `StreamARN` of a request.
    pub(super) fn request_arn(&self) -> Option<String> {
        if let Self::Arn(arn) = self { Some(arn.clone()) } else { None }
    }
}

/// Where reading begins in shards that exist when the source starts; shards that come into being
/// later are always read from their first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartPosition {
    /// At the oldest record that the stream still holds.
    #[default]
    TrimHorizon,
    /// After the newest record.
    Latest,
    /// At the first record that arrived at or after a moment (RFC 3339).
    AtTimestamp(Moment),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    stream: Option<String>,
    stream_arn: Option<String>,
    region: Option<String>,
    endpoint: Option<EndpointWritten>,
    profile: Option<String>,
    #[serde(default)]
    start: StartPosition,
    poll_interval: Option<IntervalWritten>,
    records_per_call_max: Option<RecordsWritten>,
    read_ahead_max: Option<SizeWritten>,
    #[serde(default)]
    mode: ModeWritten,
    consumer: Option<ConsumerName>,
    consumer_arn: Option<ConsumerArn>,
    #[serde(default)]
    deregister_consumer: bool,
    stalled_after: Option<StalledWritten>,
    list_interval: Option<ListIntervalWritten>,
}

impl TryFrom<Written> for KinesisSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let mut settings = Self::of(stream_address(written.stream, written.stream_arn)?);
        if let Some(region) = written.region {
            settings.access.region = Some(region);
        }
        settings.access.endpoint = written.endpoint.map(|endpoint| endpoint.0);
        settings.access.profile = written.profile;
        settings.start = written.start;
        if let Some(IntervalWritten(interval)) = written.poll_interval {
            settings.poll_interval = interval;
        }
        if let Some(RecordsWritten(records_max)) = written.records_per_call_max {
            settings.records_per_call_max = records_max;
        }
        if let Some(SizeWritten(bytes_max)) = written.read_ahead_max {
            settings.read_ahead_bytes_max = bytes_max;
        }
        if let Some(StalledWritten(limit)) = written.stalled_after {
            settings.stalled_after = limit;
        }
        if let Some(ListIntervalWritten(interval)) = written.list_interval {
            settings.list_interval = interval;
        }
        let consumer = consumer_address(written.consumer, written.consumer_arn, &settings.stream)?;
        settings.mode = read_mode(written.mode, consumer, written.deregister_consumer)?;
        Ok(settings)
    }
}

checked!(EndpointWritten(String), |text: String| url(text), URL_FORM);

checked!(
    IntervalWritten(Duration),
    |text: String| duration_in(&text, &(POLL_INTERVAL_MIN..=POLL_INTERVAL_MAX)),
    "it must be `200ms` to `60s`"
);

checked!(
    RecordsWritten(u16),
    |records: u16| number_in(records, &(1..=RECORDS_PER_CALL_LIMIT)),
    "it must be 1 to 10000"
);

checked!(
    SizeWritten(u64),
    |text: String| size_from(&text, READ_AHEAD_BYTES_MIN),
    "it must be at least `16MiB`"
);

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ModeWritten {
    #[default]
    Auto,
    Polling,
    FanOut,
}

checked!(
    ConsumerName(String),
    |text: String| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let is_name = (1..=128).contains(&text.len()) && text.bytes().all(is_allowed);
        is_name.then_some(text)
    },
    "it must be 1 to 128 letters, digits, `_`, `.` or `-`; an ARN goes into `consumer_arn`"
);

checked!(
    ConsumerArn(String),
    |text: String| {
        let is_arn = text.starts_with("arn:")
            && text.split(':').nth(2) == Some("kinesis")
            && text.split_once("/consumer/").is_some_and(|(_, consumer)| consumer.contains(':'));
        is_arn.then_some(text)
    },
    "it must be like `arn:aws:kinesis:eu-central-1:123456789012:stream/NAME/consumer/NAME:1767225600`"
);

checked!(
    StalledWritten(Duration),
    |text: String| duration_in(&text, &(STALLED_AFTER_MIN..=STALLED_AFTER_MAX)),
    "it must be `10s` to `1h`"
);

checked!(
    ListIntervalWritten(Duration),
    |text: String| duration_in(&text, &(LIST_INTERVAL_MIN..=LIST_INTERVAL_MAX)),
    "it must be `1s` to `10m`"
);

fn consumer_address(
    name: Option<ConsumerName>,
    arn: Option<ConsumerArn>,
    stream: &StreamAddress,
) -> Result<Option<ConsumerAddress>, String> {
    match (name, arn) {
        (None, None) => Ok(None),
        (Some(name), None) => Ok(Some(ConsumerAddress::Name(name.0))),
        (None, Some(ConsumerArn(arn))) => {
            let its_stream = StreamAddress::Arn(
                arn.split_once("/consumer/").map_or_else(String::new, |(of, _)| of.to_owned()),
            );
            if its_stream.stream_name() != stream.stream_name() {
                return Err(format!(
                    "`consumer_arn` belongs to stream `{}`, not to `{}`; name a consumer of the stream that is read",
                    its_stream.stream_name(),
                    stream.stream_name()
                ));
            }
            Ok(Some(ConsumerAddress::Arn(arn)))
        }
        (Some(_), Some(_)) => {
            Err("both `consumer` and `consumer_arn` are set; remove one of them".to_owned())
        }
    }
}

fn read_mode(
    mode: ModeWritten,
    consumer: Option<ConsumerAddress>,
    deregister: bool,
) -> Result<ReadMode, String> {
    match (mode, consumer) {
        (ModeWritten::FanOut, None) => Err(
            "`mode` is `fan_out` and no consumer is named; add `consumer = \"NAME\"`, which is registered if it does not exist, or `consumer_arn`"
                .to_owned(),
        ),
        (ModeWritten::Polling, Some(_)) => Err(
            "`mode` is `polling` and a consumer is named; remove the consumer, or set `mode` to `fan_out`"
                .to_owned(),
        ),
        (_, None) if deregister => Err(
            "`deregister_consumer` is set and no consumer is named; remove it, or add `consumer`"
                .to_owned(),
        ),
        (_, None) => Ok(ReadMode::Polling),
        (_, Some(consumer)) => {
            Ok(ReadMode::FanOut(FanOut { deregister, ..FanOut::of(consumer) }))
        }
    }
}

fn stream_address(name: Option<String>, arn: Option<String>) -> Result<StreamAddress, String> {
    match (name, arn) {
        (Some(name), None) if name.starts_with("arn:") => {
            Err(format!("`stream` is the ARN `{name}`; write it as `stream_arn`"))
        }
        (Some(name), None) if name.is_empty() => {
            Err("`stream` is empty; write the stream's name".to_owned())
        }
        (Some(name), None) => Ok(StreamAddress::Name(name)),
        (None, Some(arn)) => {
            let parts: Vec<&str> = arn.splitn(6, ':').collect();
            let well_formed = matches!(
                parts[..],
                ["arn", _, "kinesis", region, _, resource]
                    if !region.is_empty() && resource.len() > "stream/".len()
                        && resource.starts_with("stream/")
            );
            if well_formed {
                Ok(StreamAddress::Arn(arn))
            } else {
                Err(format!(
                    "`stream_arn` is `{arn}`; it must be like `arn:aws:kinesis:eu-central-1:123456789012:stream/NAME`"
                ))
            }
        }
        (Some(_), Some(_)) => {
            Err("both `stream` and `stream_arn` are set; remove one of them".to_owned())
        }
        (None, None) => Err("neither `stream` nor `stream_arn` is set; set one of them".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<KinesisSettings, &str>) {
        match (toml::from_str::<KinesisSettings>(text), expected) {
            (Ok(settings), Ok(expected)) => assert_eq!(settings, expected, "{text}"),
            (Err(error), Err(part)) => {
                assert!(error.to_string().contains(part), "{text}: {error}");
            }
            (outcome, expected) => panic!("{text}: {outcome:?} instead of {expected:?}"),
        }
    }

    fn flow() -> KinesisSettings {
        KinesisSettings::of(StreamAddress::Name("flow".into()))
    }

    #[test]
    fn the_least_is_a_stream() {
        check("stream = 'flow'", Ok(flow()));
        let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/flow";
        let by_arn = KinesisSettings::of(StreamAddress::Arn(arn.into()));
        assert_eq!(by_arn.access.region.as_deref(), Some("eu-west-1"));
        assert_eq!(by_arn.stream.stream_name(), "flow");
        check(&format!("stream_arn = '{arn}'"), Ok(by_arn));
    }

    #[test]
    fn everything_can_be_written() {
        check(
            "stream = 'flow'\nregion = 'eu-west-1'\nendpoint = 'http://127.0.0.1:4566'\n\
             profile = 'security'\nstart = 'latest'\npoll_interval = '1s'\n\
             records_per_call_max = 500\nread_ahead_max = '32MiB'",
            Ok(KinesisSettings {
                access: AwsAccess {
                    region: Some("eu-west-1".into()),
                    endpoint: Some("http://127.0.0.1:4566".into()),
                    profile: Some("security".into()),
                    credentials: None,
                },
                start: StartPosition::Latest,
                poll_interval: Duration::from_secs(1),
                records_per_call_max: 500,
                read_ahead_bytes_max: 32 << 20,
                ..flow()
            }),
        );
    }

    #[test]
    fn a_consumer_means_fan_out() {
        let fan_out = |consumer, deregister| KinesisSettings {
            mode: ReadMode::FanOut(FanOut { deregister, ..FanOut::of(consumer) }),
            ..flow()
        };
        let named = || ConsumerAddress::Name("gauge".into());
        check("stream = 'flow'\nconsumer = 'gauge'", Ok(fan_out(named(), false)));
        check(
            "stream = 'flow'\nmode = 'fan_out'\nconsumer = 'gauge'\nderegister_consumer = true",
            Ok(fan_out(named(), true)),
        );
        let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/flow/consumer/gauge:1767225600";
        check(
            &format!("stream = 'flow'\nconsumer_arn = '{arn}'"),
            Ok(fan_out(ConsumerAddress::Arn(arn.into()), false)),
        );
        check("stream = 'flow'\nmode = 'auto'", Ok(flow()));
        check("stream = 'flow'\nmode = 'polling'", Ok(flow()));
        check("stream = 'flow'\nmode = 'fan_out'", Err("add `consumer = \"NAME\"`"));
        check("stream = 'flow'\nmode = 'polling'\nconsumer = 'x'", Err("remove the consumer"));
        check("stream = 'flow'\nderegister_consumer = true", Err("no consumer is named"));
        check("stream = 'flow'\nconsumer = 'a b'", Err("1 to 128 letters"));
        check("stream = 'flow'\nconsumer_arn = 'arn:aws:kinesis:r:1:stream/a'", Err("like `arn:"));
        check(
            &format!("stream = 'other'\nconsumer_arn = '{arn}'"),
            Err("belongs to stream `flow`, not to `other`"),
        );
        check(
            &format!("stream = 'flow'\nconsumer = 'a'\nconsumer_arn = '{arn}'"),
            Err("remove one of them"),
        );
    }

    #[test]
    fn stalls_and_listings_have_ranges() {
        let after =
            |seconds| KinesisSettings { stalled_after: Duration::from_secs(seconds), ..flow() };
        check("stream = 'flow'\nstalled_after = '10s'", Ok(after(10)));
        check("stream = 'flow'\nstalled_after = '1h'", Ok(after(3_600)));
        for wrong in ["'9s'", "'61m'"] {
            check(&format!("stream = 'flow'\nstalled_after = {wrong}"), Err("`10s` to `1h`"));
        }
        let listed =
            |seconds| KinesisSettings { list_interval: Duration::from_secs(seconds), ..flow() };
        check("stream = 'flow'\nlist_interval = '1s'", Ok(listed(1)));
        check("stream = 'flow'\nlist_interval = '10m'", Ok(listed(600)));
        check("stream = 'flow'\nlist_interval = '999ms'", Err("`1s` to `10m`"));
    }

    #[test]
    fn a_start_is_a_word_or_a_moment() {
        let at = |unix_ms| KinesisSettings {
            start: StartPosition::AtTimestamp(Moment { unix_ms }),
            ..flow()
        };
        check("stream = 'flow'\nstart = 'trim_horizon'", Ok(flow()));
        for moment in ["'2026-01-01T00:00:00Z'", "2026-01-01T01:00:00+01:00"] {
            check(
                &format!("stream = 'flow'\nstart = {{ at_timestamp = {moment} }}"),
                Ok(at(1_767_225_600_000)),
            );
        }
        check(
            "stream = 'flow'\nstart = { at_timestamp = '2026-01-01' }",
            Err("a moment with its offset"),
        );
        check("stream = 'flow'\nstart = 'newest'", Err("unknown variant `newest`"));
    }

    #[test]
    fn intervals_have_a_unit() {
        let every = |ms| KinesisSettings { poll_interval: Duration::from_millis(ms), ..flow() };
        check("stream = 'flow'\npoll_interval = '200ms'", Ok(every(200)));
        check("stream = 'flow'\npoll_interval = '60s'", Ok(every(60_000)));
        for wrong in ["'199ms'", "'61s'", "'fast'"] {
            check(&format!("stream = 'flow'\npoll_interval = {wrong}"), Err("`200ms` to `60s`"));
        }
    }

    #[test]
    fn faults_say_what_to_write() {
        check("", Err("neither `stream` nor `stream_arn` is set"));
        check("stream = 'a'\nstream_arn = 'b'", Err("remove one of them"));
        check("stream = 'arn:aws:kinesis:r:1:stream/a'", Err("write it as `stream_arn`"));
        check("stream_arn = 'arn:aws:sqs:r:1:a'", Err("it must be like `arn:aws:kinesis"));
        check("stream = 'a'\nendpoint = 'localhost'", Err("a URL with `http://`"));
        check("stream = 'a'\nrecords_per_call_max = 10001", Err("must be 1 to 10000"));
        check("stream = 'a'\nread_ahead_max = '1MiB'", Err("at least `16MiB`"));
        check("stream = 'a'\nshard = 1", Err("unknown field `shard`"));
    }
}
