//! What a failed call means and how long to wait before the next.
//!
//! The one place where errors of AWS's services, of the SDK and of the network are told apart.

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::causes::with_causes;

/// Why a call failed, as far as it decides what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// Too many calls or bytes: wait, keep the iterator or token.
    Throttled,
    /// The iterator is older than five minutes: get another.
    IteratorExpired,
    /// A value was refused: an iterator or token that the server does not know, or a sequence number
    /// that is older than the stream's data.
    Argument,
    /// A page of a listing is older than five minutes: list from the start.
    PageExpired,
    /// What was asked for does not exist.
    NotFound,
    /// Credentials or permissions.
    Denied,
    /// The signature, which is refused as well when the clock of this machine is wrong: the SDK has then
    /// learned by how much, and signs the next call with the service's time.
    Signature,
    /// The consumer has another subscription to the shard, or made one less than five seconds ago.
    InUse,
    /// The stream's encryption key can't be used.
    Key,
    /// Anything that may pass: time-outs, resets, answers of the 500s.
    Transient,
}

/// A failed call.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What it means.
    pub(crate) kind: FailureKind,
    /// What was said, causes included.
    pub(crate) message: String,
}

impl<E, R> From<SdkError<E, R>> for Failure
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    fn from(error: SdkError<E, R>) -> Self {
        let kind = error.code().map_or(FailureKind::Transient, kind_of_code);
        let message = match (error.code(), error.message()) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (Some(code), None) => code.to_owned(),
            (None, _) => with_causes(&error),
        };
        Self { kind, message }
    }
}

/// What an error code of a service means.
pub(crate) fn kind_of_code(code: &str) -> FailureKind {
    match code {
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "Throttling"
        | "TooManyRequestsException"
        | "KMSThrottlingException" => FailureKind::Throttled,
        "ExpiredIteratorException" => FailureKind::IteratorExpired,
        "ExpiredNextTokenException" => FailureKind::PageExpired,
        "InvalidArgumentException" | "InvalidParameterException" | "ValidationException" => {
            FailureKind::Argument
        }
        "ResourceNotFoundException" => FailureKind::NotFound,
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed" => {
            FailureKind::Signature
        }
        "ResourceInUseException" => FailureKind::InUse,
        "AccessDeniedException"
        | "AccessDenied"
        | "AuthFailure"
        | "UnauthorizedOperation"
        | "UnrecognizedClientException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidClientTokenId"
        | "ExpiredTokenException"
        | "OptInRequired" => FailureKind::Denied,
        code if code.starts_with("KMS") => FailureKind::Key,
        _ => FailureKind::Transient,
    }
}

/// Exponential waits over failures in a row.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures_in_a_row: u32,
}

impl Backoff {
    /// Something succeeded.
    #[cfg(any(feature = "kinesis", feature = "cloudwatch", test))]
    pub(crate) fn reset(&mut self) {
        self.failures_in_a_row = 0;
    }

    /// How many failures there were since the last success.
    pub(crate) fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    /// Counts a failure and says how long to wait: between half and all of a time that doubles with
    /// every failure in a row, up to a limit. `jitter` is 0 to 1.
    pub(crate) fn delay(&mut self, kind: FailureKind, jitter: f64) -> Duration {
        debug_assert!((0.0..=1.0).contains(&jitter));
        let (first, longest) = limits(kind);
        let doublings = self.failures_in_a_row.min(16);
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let whole = first.saturating_mul(1 << doublings).min(longest);
        (whole / 2).saturating_add((whole / 2).mul_f64(jitter))
    }
}

fn limits(kind: FailureKind) -> (Duration, Duration) {
    match kind {
        FailureKind::Throttled => (Duration::from_secs(1), Duration::from_secs(10)),
        // Between half of it and all: five seconds at least.
        FailureKind::InUse => (Duration::from_secs(10), Duration::from_secs(20)),
        // People have to act; asking often does not help them.
        FailureKind::Denied | FailureKind::Key => (Duration::from_secs(5), Duration::from_mins(1)),
        _ => (Duration::from_millis(100), Duration::from_secs(10)),
    }
}

/// A number from 0 to 1 that differs from call to call, so that many shards do not retry in step.
pub(crate) fn jitter() -> f64 {
    let bits = RandomState::new().build_hasher().finish();
    f64::from((bits >> 32) as u32) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(code: &str, expected: FailureKind) {
        assert_eq!(kind_of_code(code), expected, "{code}");
    }

    #[test]
    fn codes_are_told_apart() {
        check("ProvisionedThroughputExceededException", FailureKind::Throttled);
        check("KMSThrottlingException", FailureKind::Throttled);
        check("KMSDisabledException", FailureKind::Key);
        check("ExpiredIteratorException", FailureKind::IteratorExpired);
        check("ResourceNotFoundException", FailureKind::NotFound);
        check("AccessDeniedException", FailureKind::Denied);
        check("InternalFailure", FailureKind::Transient);
        check("ResourceInUseException", FailureKind::InUse);
        check("InvalidSignatureException", FailureKind::Signature);
    }

    proptest! {
        #[test]
        fn waits_grow_and_stay_within_their_limits(jitter in 0.0..=1.0_f64, failures in 1_u32..40) {
            for kind in [FailureKind::Throttled, FailureKind::Key, FailureKind::InUse, FailureKind::Transient] {
                let (first, longest) = limits(kind);
                let mut backoff = Backoff::default();
                let mut previous_floor = Duration::ZERO;
                for _ in 0..failures {
                    let floor = Backoff { ..backoff }.delay(kind, 0.0);
                    let delay = backoff.delay(kind, jitter);
                    prop_assert!(delay >= first / 2 && delay <= longest);
                    prop_assert!(floor >= previous_floor && floor <= delay);
                    previous_floor = floor;
                }
                prop_assert_eq!(backoff.failures_in_a_row(), failures);
                backoff.reset();
                prop_assert!(backoff.delay(kind, 1.0) <= first);
            }
        }
    }

    #[test]
    fn jitter_is_a_fraction_that_varies() {
        let drawn: Vec<f64> = (0..16).map(|_| jitter()).collect();
        assert!(drawn.iter().all(|value| (0.0..=1.0).contains(value)));
        assert!(drawn.iter().any(|value| value.to_bits() != drawn[0].to_bits()));
    }
}
