//! What a failed request to S3 means, and what a person can do about it.
//!
//! The one place where answers of S3, of the store and of the network are told apart. The store keeps S3's
//! answer as text within its errors, so codes are looked for in that.

use std::time::Duration;

use crate::causes::with_causes;

/// Why a request failed, as far as it decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Too many requests.
    Throttled,
    /// There is no such object, or it is not what was told of it any more.
    Gone,
    /// Permissions, credentials or keys: a person has to act.
    Denied,
    /// Nothing that trying again would change: no such bucket, another region.
    Refused,
    /// Anything that may pass: time-outs, resets, answers of the 500s.
    Transient,
}

/// A failed request.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// What it means.
    pub(super) kind: FailureKind,
    /// What was said, and what to do.
    pub(super) message: String,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked<'a> {
    /// An object of a bucket.
    Object(&'a str, &'a str),
    /// The keys of a bucket.
    Keys(&'a str),
}

impl Failure {
    /// What an error of the store means.
    pub(super) fn of(error: &object_store::Error, asked: Asked<'_>) -> Self {
        Self::of_text(&with_causes(error), asked)
    }

    fn of_text(said: &str, asked: Asked<'_>) -> Self {
        let code = between(said, "<Code>", "</Code>").unwrap_or_default();
        let reason = match between(said, "<Message>", "</Message>") {
            Some(message) => format!("{code}: {message}"),
            None => said.to_owned(),
        };
        let failure = |kind, message| Self { kind, message };
        let (what, action, resource) = asked.names();
        match code {
            "SlowDown"
            | "RequestLimitExceeded"
            | "TooManyRequests"
            | "ServiceUnavailable"
            | "ThrottlingException" => {
                failure(FailureKind::Throttled, format!("S3 asks to slow down ({reason})"))
            }
            "NoSuchKey" | "NoSuchVersion" => failure(
                FailureKind::Gone,
                format!(
                    "there is no such object any more; a lifecycle rule may have removed it ({reason})"
                ),
            ),
            "PreconditionFailed" => failure(
                FailureKind::Gone,
                "it was overwritten since it was told of; the newer one is told of apart"
                    .to_owned(),
            ),
            "NoSuchBucket" => failure(
                FailureKind::Refused,
                format!("there is no such bucket for {what} ({reason})"),
            ),
            "InvalidObjectState" => failure(
                FailureKind::Denied,
                "it is archived; restore it to a storage class that can be read at once".to_owned(),
            ),
            _ if code.starts_with("KMS") || said.contains("kms:Decrypt") => failure(
                FailureKind::Denied,
                format!(
                    "its key can't be used; allow `kms:Decrypt` on the bucket's KMS key ({reason})"
                ),
            ),
            "AccessDenied" | "AllAccessDisabled" | "AccountProblem" => failure(
                FailureKind::Denied,
                format!("access to {what} is denied; allow `{action}` on `{resource}` ({reason})"),
            ),
            "InvalidAccessKeyId"
            | "SignatureDoesNotMatch"
            | "ExpiredToken"
            | "InvalidToken"
            | "RequestTimeTooSkewed"
            | "TokenRefreshRequired" => failure(
                FailureKind::Denied,
                format!(
                    "the credentials are not accepted; renew them, and check the clock ({reason})"
                ),
            ),
            "PermanentRedirect"
            | "AuthorizationHeaderMalformed"
            | "IllegalLocationConstraintException" => {
                failure(FailureKind::Refused, other_region(said))
            }
            _ if said.contains("redirect without LOCATION") || said.contains("301 Moved") => {
                failure(FailureKind::Refused, other_region(said))
            }
            _ if has_status(said, "404") => {
                failure(FailureKind::Gone, format!("there is no {what} ({reason})"))
            }
            _ if has_status(said, "412") => failure(
                FailureKind::Gone,
                "it was overwritten since it was told of; the newer one is told of apart"
                    .to_owned(),
            ),
            _ if has_status(said, "403") || has_status(said, "401") => failure(
                FailureKind::Denied,
                format!("access to {what} is denied; allow `{action}` on `{resource}` ({reason})"),
            ),
            _ if has_status(said, "429") || has_status(said, "503") => {
                failure(FailureKind::Throttled, format!("S3 asks to slow down ({reason})"))
            }
            // Credentials that the chain can't give now may come back.
            _ => failure(FailureKind::Transient, reason),
        }
    }

    /// Whether it makes sense to ask again without a change by a person.
    pub(super) const fn may_pass(&self) -> bool {
        matches!(self.kind, FailureKind::Throttled | FailureKind::Transient)
    }
}

impl Asked<'_> {
    /// What it is, the IAM action that it takes, and on which resource.
    fn names(self) -> (String, &'static str, String) {
        match self {
            Self::Object(bucket, key) => {
                let resource = format!("arn:aws:s3:::{bucket}/*");
                (format!("object `s3://{bucket}/{key}`"), "s3:GetObject", resource)
            }
            Self::Keys(bucket) => {
                let resource = format!("arn:aws:s3:::{bucket}");
                (format!("bucket `{bucket}`"), "s3:ListBucket", resource)
            }
        }
    }
}

fn other_region(said: &str) -> String {
    match between(said, "<Region>", "</Region>") {
        Some(region) => {
            format!("the bucket is in another region; set `region` or `AWS_REGION` to `{region}`")
        }
        None => "the bucket is in another region; set `region` or `AWS_REGION` to the one that \
                 `aws s3api get-bucket-location` tells"
            .to_owned(),
    }
}

fn has_status(said: &str, status: &str) -> bool {
    between(said, "non-2xx status code: ", " ").is_some_and(|found| found.starts_with(status))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found)
}

/// Exponential waits over failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures_in_a_row: u32,
}

impl Backoff {
    /// How many failures there were.
    pub(super) const fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    /// Counts a failure and says how long to wait: between half and all of a time that doubles with every
    /// failure in a row, up to a limit. `jitter` is 0 to 1.
    pub(super) fn delay(&mut self, kind: FailureKind, jitter: f64) -> Duration {
        let (first, longest) = match kind {
            FailureKind::Throttled => (Duration::from_millis(500), Duration::from_secs(20)),
            FailureKind::Denied | FailureKind::Refused | FailureKind::Gone => {
                (Duration::from_secs(5), Duration::from_mins(1))
            }
            FailureKind::Transient => (Duration::from_millis(100), Duration::from_secs(10)),
        };
        let doublings = self.failures_in_a_row.min(16);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let whole = first.saturating_mul(1 << doublings).min(longest);
        (whole / 2).saturating_add((whole / 2).mul_f64(jitter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OBJECT: Asked<'static> = Asked::Object("logs", "a.gz");

    fn check(said: &str, asked: Asked<'_>, kind: FailureKind, hint: &str) {
        let failure = Failure::of_text(said, asked);
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains(hint), "{failure:?}");
    }

    fn answer(status: &str, code: &str, message: &str) -> String {
        format!(
            "Server returned non-2xx status code: {status}: <Error><Code>{code}</Code><Message>{message}</Message><Region>eu-west-1</Region></Error>"
        )
    }

    #[test]
    fn answers_are_told_apart() {
        let denied = answer("403 Forbidden", "AccessDenied", "Access Denied");
        check(&denied, OBJECT, FailureKind::Denied, "`s3:GetObject` on `arn:aws:s3:::logs/*`");
        check(&denied, Asked::Keys("logs"), FailureKind::Denied, "`s3:ListBucket`");
        let key = "User is not authorized to perform: kms:Decrypt on this resource";
        check(
            &answer("403 Forbidden", "AccessDenied", key),
            OBJECT,
            FailureKind::Denied,
            "KMS key",
        );
        let slow = answer("503 Slow Down", "SlowDown", "Please reduce your request rate.");
        check(&slow, OBJECT, FailureKind::Throttled, "slow down");
        let gone = answer("404 Not Found", "NoSuchKey", "The specified key does not exist.");
        check(&gone, OBJECT, FailureKind::Gone, "lifecycle");
        let moved = answer("301 Moved Permanently", "PermanentRedirect", "Use the endpoint");
        check(&moved, OBJECT, FailureKind::Refused, "`eu-west-1`");
        let bare = "Received redirect without LOCATION, this normally indicates";
        check(bare, OBJECT, FailureKind::Refused, "get-bucket-location");
        let status = "Server returned non-2xx status code: 403 Forbidden: ";
        check(status, OBJECT, FailureKind::Denied, "s3:GetObject");
        check(
            "error sending request: connection refused",
            OBJECT,
            FailureKind::Transient,
            "refused",
        );
        let token = answer("400 Bad Request", "ExpiredToken", "The provided token has expired.");
        check(&token, OBJECT, FailureKind::Denied, "renew");
    }

    #[test]
    fn waits_grow_to_a_limit() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> =
            (0..9).map(|_| backoff.delay(FailureKind::Transient, 1.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    }
}
