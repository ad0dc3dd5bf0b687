//! Why a request is not taken, and what its sender is told: the one place that knows statuses.
//!
//! Only 200 is success to Firehose. It repeats whatever is refused, with the same id, for as long as its retry
//! duration says; but not what is refused with 413.

use hyper::StatusCode;

use super::body::BodyFault;

/// Most bytes of a body after inflating: 64 MiB by Firehose's own limit, and something for white space.
pub(super) const BODY_BYTES_MAX: usize = (64 << 20) + (1 << 20);

/// Why a request is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("there is nothing at this path; check the URL of the endpoint")]
    Path,
    #[error("records are delivered with POST")]
    Method,
    #[error("the request has no access key; enter the endpoint's key in the delivery stream")]
    NoKey,
    #[error("the access key is not one of this endpoint's")]
    WrongKey,
    #[error("header `{name}`: {fault}")]
    Header { name: &'static str, fault: &'static str },
    #[error("the body is encoded as something else than gzip")]
    Encoding,
    #[error("the body is not said to be application/json")]
    ContentType,
    #[error("the body is longer than {BODY_BYTES_MAX} bytes, as it is sent or inflated")]
    TooLarge,
    #[error("the gzip of the body is damaged or breaks off")]
    Gzip,
    #[error("{0}")]
    Body(#[from] BodyFault),
    #[error("the body has another `requestId` than the header")]
    OtherId,
    #[error("the body came too slowly")]
    Slow,
    #[error("the body broke off")]
    Cut,
    #[error("there is no memory for the request at the moment; send it again")]
    NoMemory,
    #[error("the spool has no room at the moment; send it again")]
    SpoolFull,
    #[error("the request could not be stored; send it again")]
    Unwritten,
    #[error("the endpoint is going down; send it again")]
    Stopping,
    #[error("somebody only looks at what is delivered; send it again")]
    Looked,
}

/// What a refusal means to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Unauthorized,
    Rejected,
    Full,
    Unwritten,
    Cut,
}

impl Refusal {
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Path => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoKey | Self::WrongKey => StatusCode::UNAUTHORIZED,
            Self::Header { .. } | Self::Gzip | Self::Body(_) | Self::OtherId | Self::Cut => {
                StatusCode::BAD_REQUEST
            }
            Self::Encoding | Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::NoMemory | Self::SpoolFull | Self::Unwritten | Self::Stopping | Self::Looked => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    pub(super) const fn cause(&self) -> Cause {
        match self {
            Self::NoKey | Self::WrongKey => Cause::Unauthorized,
            Self::NoMemory | Self::SpoolFull | Self::Stopping | Self::Looked => Cause::Full,
            Self::Unwritten => Cause::Unwritten,
            Self::Slow | Self::Cut => Cause::Cut,
            _ => Cause::Rejected,
        }
    }

    /// Whether the sender is told to come back after a while.
    pub(super) fn is_passing(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }
}
