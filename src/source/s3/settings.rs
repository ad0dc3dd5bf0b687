//! What `[sources.NAME]` of type `s3` may say, checked while it is read.
//!
//! A [`S3Settings`] can be used as it is: every faulty value is refused by its `Deserialize`, so that the
//! message carries the place in the file.

use std::time::Duration;

use serde::Deserialize;

use super::url::is_bucket;
use crate::aws::AwsAccess;
use crate::units::UnixSeconds;
use crate::units::checked::{URL_FORM, checked, duration_in, number_in, size_from, url};

const PARALLEL_MAX: u16 = 64;
const PARALLEL_DEFAULT: u16 = 8;
const READ_AHEAD_BYTES_MIN: u64 = 64 << 20;
const READ_AHEAD_BYTES_DEFAULT: u64 = 256 << 20;
const VISIBILITY_MIN: Duration = Duration::from_secs(30);
/// What SQS allows.
const VISIBILITY_MAX: Duration = Duration::from_hours(12);
const VISIBILITY_DEFAULT: Duration = Duration::from_mins(2);
const POLL_INTERVAL_MIN: Duration = Duration::from_secs(1);
const POLL_INTERVAL_MAX: Duration = Duration::from_hours(24);
const POLL_INTERVAL_DEFAULT: Duration = Duration::from_mins(1);
const LATE_DAYS_MAX: u16 = 31;
const LATE_DAYS_DEFAULT: u16 = 1;

/// How objects are found and read.
///
/// ```toml
/// queue_url = "https://sqs.eu-central-1.amazonaws.com/123456789012/flow-logs"
/// visibility = "2m"               # "30s" to "12h"
/// # in place of queue_url:
/// bucket = "flow-logs"
/// prefix = "AWSLogs/"             # default: all of the bucket
/// poll_interval = "1m"            # "1s" to "24h"
/// since = "2026-01-01"            # default: everything
/// late_days = 1                   # 0 to 31
/// # with both:
/// region = "eu-central-1"         # default: the queue's, AWS_REGION, or the profile's
/// endpoint = "http://…"           # default: the region's, or AWS_ENDPOINT_URL
/// profile = "security"            # default: AWS_PROFILE, or the standard credential chain
/// parallel = 8                    # 1 to 64
/// read_ahead_max = "256MiB"       # at least "64MiB"
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct S3Settings {
    /// How objects are found.
    pub intake: Intake,
    /// Region, endpoint and profile.
    pub access: AwsAccess,
    /// Objects that are read at one time.
    pub parallel: u16,
    /// Bytes of objects that may be in memory and not yet parsed.
    pub read_ahead_bytes_max: u64,
}

/// How objects are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intake {
    /// A queue tells of them.
    Queue(QueueSettings),
    /// Keys are listed from time to time.
    Listing(ListingSettings),
}

/// A queue that is told of new objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// The queue's URL; requests go to its host.
    pub url: String,
    /// How long a message stays with this process before the queue gives it to another; extended while its
    /// objects are read.
    pub visibility: Duration,
}

/// A prefix that is listed from time to time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingSettings {
    /// The bucket.
    pub bucket: String,
    /// With what keys begin.
    pub prefix: String,
    /// Time between two listings.
    pub poll_interval: Duration,
    /// Objects of days before are left out.
    pub since: Option<UnixSeconds>,
    /// For how many days before today keys are looked for that appear late.
    pub late_days: u16,
}

impl QueueSettings {
    /// The queue's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    /// Where requests go: the URL without its path.
    pub(super) fn endpoint(&self) -> &str {
        let scheme_bytes = self.url.find("://").map_or(0, |at| at + 3);
        let host_bytes = self.url[scheme_bytes..].find('/');
        host_bytes.map_or(&self.url, |at| &self.url[..scheme_bytes + at])
    }

    /// The region that a queue of Amazon's has in its host name.
    fn region(&self) -> Option<&str> {
        let (_, host) = self.endpoint().split_once("://")?;
        let region = host.strip_prefix("sqs.")?.split('.').next()?;
        host.contains(".amazonaws.com").then_some(region)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    queue_url: Option<QueueUrlWritten>,
    visibility: Option<VisibilityWritten>,
    bucket: Option<BucketWritten>,
    prefix: Option<String>,
    poll_interval: Option<PollWritten>,
    since: Option<SinceWritten>,
    late_days: Option<LateDaysWritten>,
    region: Option<String>,
    endpoint: Option<EndpointWritten>,
    profile: Option<String>,
    parallel: Option<ParallelWritten>,
    read_ahead_max: Option<SizeWritten>,
}

impl TryFrom<Written> for S3Settings {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let parallel = written.parallel.map_or(PARALLEL_DEFAULT, |ParallelWritten(n)| n);
        let read_ahead_bytes_max =
            written.read_ahead_max.map_or(READ_AHEAD_BYTES_DEFAULT, |SizeWritten(bytes)| bytes);
        let mut region = written.region;
        let has_listing_key =
            written.prefix.is_some() || written.poll_interval.is_some() || written.since.is_some();
        let intake = match (written.queue_url, written.bucket) {
            (Some(QueueUrlWritten(url)), None) => {
                if has_listing_key || written.late_days.is_some() {
                    return Err("`prefix`, `poll_interval`, `since` and `late_days` go with `bucket`, not with `queue_url`; filter by prefix in the bucket's notification".to_owned());
                }
                let visibility =
                    written.visibility.map_or(VISIBILITY_DEFAULT, |VisibilityWritten(time)| time);
                let queue = QueueSettings { url, visibility };
                region = region.or_else(|| queue.region().map(str::to_owned));
                Intake::Queue(queue)
            }
            (None, Some(BucketWritten(bucket))) => {
                if written.visibility.is_some() {
                    return Err("`visibility` goes with `queue_url`, not with `bucket`; remove it"
                        .to_owned());
                }
                Intake::Listing(ListingSettings {
                    bucket,
                    prefix: written.prefix.unwrap_or_default(),
                    poll_interval: written
                        .poll_interval
                        .map_or(POLL_INTERVAL_DEFAULT, |PollWritten(interval)| interval),
                    since: written.since.map(|SinceWritten(since)| since),
                    late_days: written.late_days.map_or(LATE_DAYS_DEFAULT, |LateDaysWritten(n)| n),
                })
            }
            (Some(_), Some(_)) => {
                return Err("both `queue_url` and `bucket` are set; remove one".to_owned());
            }
            (None, None) => {
                return Err("neither `queue_url` nor `bucket` is set; add `queue_url = \"URL\"` of the SQS queue that is told of new objects, or `bucket = \"NAME\"` to list keys".to_owned());
            }
        };
        let endpoint = written.endpoint.map(|EndpointWritten(endpoint)| endpoint);
        let access = AwsAccess { region, endpoint, profile: written.profile, credentials: None };
        Ok(Self { intake, access, parallel, read_ahead_bytes_max })
    }
}

checked!(
    QueueUrlWritten(String),
    |text: String| {
        let has_queue = text.split('/').filter(|part| !part.is_empty()).count() >= 4;
        url(text).filter(|_| has_queue)
    },
    "it must be the queue's URL, like `https://sqs.eu-central-1.amazonaws.com/123456789012/NAME`"
);

checked!(
    BucketWritten(String),
    |text: String| is_bucket(&text).then_some(text),
    "it must be a bucket's name alone, such as `flow-logs`"
);

checked!(EndpointWritten(String), |text: String| url(text), URL_FORM);

checked!(
    VisibilityWritten(Duration),
    |text: String| duration_in(&text, &(VISIBILITY_MIN..=VISIBILITY_MAX)),
    "it must be `30s` to `12h`"
);

checked!(
    PollWritten(Duration),
    |text: String| duration_in(&text, &(POLL_INTERVAL_MIN..=POLL_INTERVAL_MAX)),
    "it must be `1s` to `24h`"
);

checked!(
    SinceWritten(UnixSeconds),
    |text: String| UnixSeconds::from_text(&text).ok(),
    "it must be a date, like `2026-01-01`, or a moment in RFC 3339"
);

checked!(
    LateDaysWritten(u16),
    |days: u16| number_in(days, &(0..=LATE_DAYS_MAX)),
    "it must be 0 to 31"
);

checked!(
    ParallelWritten(u16),
    |count: u16| number_in(count, &(1..=PARALLEL_MAX)),
    "it must be 1 to 64"
);

checked!(
    SizeWritten(u64),
    |text: String| size_from(&text, READ_AHEAD_BYTES_MIN),
    "it must be at least `64MiB`"
);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<S3Settings, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_queue_names_its_region_and_endpoint() {
        let url = "https://sqs.eu-west-3.amazonaws.com/123456789012/flow-logs";
        let settings = read(&format!("queue_url = '{url}'")).unwrap();
        assert_eq!(settings.access.region.as_deref(), Some("eu-west-3"));
        let Intake::Queue(queue) = settings.intake else { panic!("it is a queue") };
        assert_eq!(queue.endpoint(), "https://sqs.eu-west-3.amazonaws.com");
        assert_eq!(queue.name(), "flow-logs");
        let local = read("queue_url = 'http://127.0.0.1:4566/000000000000/q'").unwrap();
        assert_eq!(local.access.region, None);
        let Intake::Queue(queue) = local.intake else { panic!("it is a queue") };
        assert_eq!(queue.endpoint(), "http://127.0.0.1:4566");
    }

    fn check_fault(text: &str, expected: &str) {
        let fault = read(text).expect_err(text);
        assert!(fault.contains(expected), "{fault}");
    }

    #[test]
    fn faults_say_what_to_write() {
        check_fault("", "neither `queue_url` nor `bucket`");
        check_fault("queue_url = 'http://h/1/q'\nbucket = 'logs'", "remove one");
        check_fault("queue_url = 'http://h/1/q'\nprefix = 'a/'", "go with `bucket`");
        check_fault("bucket = 'logs'\nvisibility = '1m'", "goes with `queue_url`");
        check_fault("bucket = 's3://logs/'", "name alone");
        check_fault("queue_url = 'flow-logs'", "the queue's URL");
        check_fault("bucket = 'logs'\nsince = 'soon'", "a date");
        check_fault("bucket = 'logs'\nparallel = 0", "1 to 64");
        check_fault("bucket = 'logs'\nread_ahead_max = '1MiB'", "64MiB");
    }

    #[test]
    fn a_listing_has_defaults() {
        let settings = read("bucket = 'logs'").unwrap();
        let expected = ListingSettings {
            bucket: "logs".to_owned(),
            prefix: String::new(),
            poll_interval: Duration::from_mins(1),
            since: None,
            late_days: 1,
        };
        assert_eq!(settings.intake, Intake::Listing(expected));
        assert_eq!((settings.parallel, settings.read_ahead_bytes_max), (8, 256 << 20));
    }
}
