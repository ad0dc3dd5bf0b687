//! What `[sources.NAME]` of type `cloudwatch_logs` may say, checked while it is read.

use std::time::Duration;

use serde::Deserialize;

use crate::aws::AwsAccess;
use crate::units::Moment;
use crate::units::checked::{URL_FORM, checked, duration_in, number_in, url};

/// Most log groups of one source: each holds pages of its own.
pub const LOG_GROUPS_MAX: usize = 64;
/// A flow log's record is named by when its interval began, and delivered up to 20 minutes later.
const LOOKBACK_DEFAULT: Duration = Duration::from_mins(30);
const LOOKBACK_MAX: Duration = Duration::from_hours(24);
const POLL_INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const POLL_INTERVAL_MIN: Duration = Duration::from_secs(1);
const POLL_INTERVAL_MAX: Duration = Duration::from_hours(1);
/// AWS grants an account 5 to 10 calls a second in a region, for everybody in it.
const CALLS_PER_SECOND_DEFAULT: u32 = 3;
const CALLS_PER_SECOND_LIMIT: u32 = 25;
/// What comes before a log group's name in its ARN.
const ARN_PART: &str = ":log-group:";

/// Which events of which log groups are read, and how fast.
///
/// ```toml
/// log_groups = ["/aws/vpc/flow-logs"]   # names or ARNs
/// stream_prefix = "eni-0123"            # default: all streams
/// filter_pattern = "REJECT"             # default: all events
/// region = "eu-central-1"               # default: the ARNs', AWS_REGION, or the profile's
/// endpoint = "http://…"                 # default: the region's, or AWS_ENDPOINT_URL
/// profile = "security"                  # default: AWS_PROFILE, or the standard credential chain
/// start = "2026-01-01T00:00:00Z"        # default: `lookback` ago
/// end = "2026-01-02T00:00:00Z"          # default: none, goes on for ever
/// lookback = "30m"                      # "0s" to "24h"
/// poll_interval = "30s"                 # "1s" to "1h"
/// calls_per_second_max = 3              # 1 to 25
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct CloudWatchSettings {
    /// The log groups; at least one.
    pub log_groups: Vec<LogGroup>,
    /// How the names of the streams begin that are read.
    pub stream_prefix: Option<String>,
    /// CloudWatch's own pattern for the events that are read.
    pub filter_pattern: Option<String>,
    /// Region, endpoint and profile.
    pub access: AwsAccess,
    /// Events with an earlier timestamp are left out.
    pub start: Option<Moment>,
    /// Events with this timestamp or a later one are left out.
    pub end: Option<Moment>,
    /// How long after its timestamp an event may come and still be found.
    pub lookback: Duration,
    /// Time between two looks for new events, once all old ones were read.
    pub poll_interval: Duration,
    /// Most calls in a second over all groups of the source.
    pub calls_per_second_max: u32,
}

impl CloudWatchSettings {
    /// The defaults for some log groups.
    #[must_use]
    pub fn of(log_groups: Vec<LogGroup>) -> Self {
        let region = log_groups.iter().find_map(LogGroup::region).map(str::to_owned);
        Self {
            log_groups,
            stream_prefix: None,
            filter_pattern: None,
            access: AwsAccess { region, ..AwsAccess::default() },
            start: None,
            end: None,
            lookback: LOOKBACK_DEFAULT,
            poll_interval: POLL_INTERVAL_DEFAULT,
            calls_per_second_max: CALLS_PER_SECOND_DEFAULT,
        }
    }

    /// How the input of a log group is called.
    #[must_use]
    pub fn input_name(&self, group: &LogGroup) -> String {
        match &self.stream_prefix {
            None => format!("cwl:{}", group.text()),
            Some(prefix) => format!("cwl:{}:{prefix}", group.text()),
        }
    }
}

/// A log group by name or by ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogGroup {
    /// A name, in the account of the credentials.
    Name(String),
    /// An ARN without `:*`, which may belong to another account.
    Arn(String),
}

impl LogGroup {
    /// The group that a text means.
    ///
    /// # Errors
    /// If it is neither a name nor an ARN; the text says what it must be.
    pub fn from_text(text: &str) -> Result<Self, &'static str> {
        if text.starts_with("arn:") {
            let arn = text.strip_suffix(":*").unwrap_or(text);
            let is_group = arn.split(':').nth(2) == Some("logs")
                && arn.split_once(ARN_PART).is_some_and(|(_, name)| is_name(name));
            let form = "it must be like `arn:aws:logs:REGION:ACCOUNT:log-group:NAME`";
            return if is_group { Ok(Self::Arn(arn.to_owned())) } else { Err(form) };
        }
        let form = "a log group's name has 1 to 512 of the characters `a-z`, `A-Z`, `0-9`, `_`, `-`, `/`, `.` and `#`";
        if is_name(text) { Ok(Self::Name(text.to_owned())) } else { Err(form) }
    }

    /// As it was written, without `:*`.
    #[must_use]
    pub fn text(&self) -> &str {
        let (Self::Name(text) | Self::Arn(text)) = self;
        text
    }

    /// The group's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Arn(arn) => arn.split_once(ARN_PART).map_or(arn, |(_, name)| name),
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
}

fn is_name(text: &str) -> bool {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'/' | b'.' | b'#');
    (1..=512).contains(&text.len()) && text.bytes().all(is_allowed)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    log_groups: Vec<LogGroupWritten>,
    stream_prefix: Option<String>,
    filter_pattern: Option<String>,
    region: Option<String>,
    endpoint: Option<EndpointWritten>,
    profile: Option<String>,
    start: Option<Moment>,
    end: Option<Moment>,
    lookback: Option<LookbackWritten>,
    poll_interval: Option<IntervalWritten>,
    calls_per_second_max: Option<CallsWritten>,
}

impl TryFrom<Written> for CloudWatchSettings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let groups: Vec<LogGroup> = written.log_groups.into_iter().map(|group| group.0).collect();
        if groups.is_empty() || groups.len() > LOG_GROUPS_MAX {
            return Err(format!("`log_groups` must name 1 to {LOG_GROUPS_MAX} log groups"));
        }
        if let Some(twice) =
            groups.iter().enumerate().find(|(i, group)| groups[..*i].contains(group))
        {
            return Err(format!("`log_groups` names `{}` twice; remove one", twice.1.text()));
        }
        let mut regions: Vec<&str> = groups.iter().filter_map(LogGroup::region).collect();
        regions.dedup();
        if regions.len() > 1 {
            return Err(format!(
                "`log_groups` names groups of `{}` and `{}`; write a source for each region",
                regions[0], regions[1]
            ));
        }
        match (written.start, written.end) {
            (None, Some(_)) => return Err("`end` is set, but not `start`; add it".to_owned()),
            (Some(start), Some(end)) if end <= start => {
                return Err("`end` is not after `start`; write a later moment".to_owned());
            }
            _ => {}
        }
        let defaults = Self::of(groups);
        Ok(Self {
            stream_prefix: written.stream_prefix.filter(|prefix| !prefix.is_empty()),
            filter_pattern: written.filter_pattern.filter(|pattern| !pattern.is_empty()),
            access: AwsAccess {
                region: written.region.or(defaults.access.region),
                endpoint: written.endpoint.map(|endpoint| endpoint.0),
                profile: written.profile,
                credentials: None,
            },
            start: written.start,
            end: written.end,
            lookback: written.lookback.map_or(defaults.lookback, |lookback| lookback.0),
            poll_interval: written.poll_interval.map_or(defaults.poll_interval, |every| every.0),
            calls_per_second_max: written
                .calls_per_second_max
                .map_or(defaults.calls_per_second_max, |calls| calls.0),
            log_groups: defaults.log_groups,
        })
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct LogGroupWritten(LogGroup);

impl TryFrom<String> for LogGroupWritten {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        LogGroup::from_text(&text).map(Self)
    }
}

checked!(EndpointWritten(String), |text: String| url(text), URL_FORM);

checked!(
    LookbackWritten(Duration),
    |text: String| duration_in(&text, &(Duration::ZERO..=LOOKBACK_MAX)),
    "it must be `0s` to `24h`"
);

checked!(
    IntervalWritten(Duration),
    |text: String| duration_in(&text, &(POLL_INTERVAL_MIN..=POLL_INTERVAL_MAX)),
    "it must be `1s` to `1h`"
);

checked!(
    CallsWritten(u32),
    |calls: u32| number_in(calls, &(1..=CALLS_PER_SECOND_LIMIT)),
    "it must be 1 to 25"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> CloudWatchSettings {
        CloudWatchSettings::of(vec![LogGroup::Name("/vpc/flow".into())])
    }

    fn check(text: &str, expected: Result<CloudWatchSettings, &str>) {
        match (toml::from_str::<CloudWatchSettings>(text), expected) {
            (Ok(settings), Ok(expected)) => assert_eq!(settings, expected, "{text}"),
            (Err(error), Err(expected)) => {
                let message = error.to_string();
                assert!(message.contains(expected), "{text}: {message}");
            }
            (got, _) => panic!("{text}: {got:?}"),
        }
    }

    #[test]
    fn a_group_is_enough() {
        check("log_groups = ['/vpc/flow']", Ok(flow()));
        let arn = "arn:aws:logs:eu-west-1:123456789012:log-group:/vpc/flow";
        let by_arn = CloudWatchSettings::of(vec![LogGroup::Arn(arn.into())]);
        assert_eq!(by_arn.access.region.as_deref(), Some("eu-west-1"));
        assert_eq!(by_arn.log_groups[0].name(), "/vpc/flow");
        check(&format!("log_groups = ['{arn}:*']"), Ok(by_arn));
    }

    #[test]
    fn everything_can_be_written() {
        let moment = |unix_ms| Some(Moment { unix_ms });
        check(
            "log_groups = ['/vpc/flow']\nstream_prefix = 'eni-1'\nfilter_pattern = 'REJECT'\n\
             region = 'eu-west-1'\nendpoint = 'http://127.0.0.1:4566'\nprofile = 'security'\n\
             start = '2026-01-01T00:00:00Z'\nend = 2026-01-01T01:00:00Z\nlookback = '0s'\n\
             poll_interval = '1s'\ncalls_per_second_max = 25",
            Ok(CloudWatchSettings {
                stream_prefix: Some("eni-1".into()),
                filter_pattern: Some("REJECT".into()),
                access: AwsAccess {
                    region: Some("eu-west-1".into()),
                    endpoint: Some("http://127.0.0.1:4566".into()),
                    profile: Some("security".into()),
                    credentials: None,
                },
                start: moment(1_767_225_600_000),
                end: moment(1_767_229_200_000),
                lookback: Duration::ZERO,
                poll_interval: Duration::from_secs(1),
                calls_per_second_max: 25,
                ..flow()
            }),
        );
    }

    #[test]
    fn faults_say_what_to_write() {
        check("", Err("missing field `log_groups`"));
        check("log_groups = []", Err("1 to 64 log groups"));
        check("log_groups = ['a b']", Err("a log group's name has"));
        check("log_groups = ['arn:aws:s3:::b']", Err("it must be like `arn:aws:logs:"));
        check("log_groups = ['a', 'a']", Err("names `a` twice"));
        let arn = |region: &str| format!("'arn:aws:logs:{region}:1:log-group:a'");
        let both = format!("log_groups = [{}, {}]", arn("r1"), arn("r2"));
        check(&both, Err("a source for each region"));
        check("log_groups = ['a']\nend = '2026-01-01T00:00:00Z'", Err("but not `start`"));
        check(
            "log_groups = ['a']\nstart = '2026-01-01T00:00:00Z'\nend = '2026-01-01T00:00:00Z'",
            Err("`end` is not after `start`"),
        );
        check("log_groups = ['a']\nstart = 'now'", Err("a moment with its offset"));
        check("log_groups = ['a']\nlookback = '25h'", Err("`0s` to `24h`"));
        check("log_groups = ['a']\npoll_interval = '0s'", Err("`1s` to `1h`"));
        check("log_groups = ['a']\ncalls_per_second_max = 26", Err("it must be 1 to 25"));
    }
}
