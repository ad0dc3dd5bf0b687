//! Faults in what came from outside: of single lines (counted, sampled) and of whole inputs (reported).

use std::fmt;

/// Why a line, or a record that should have held lines, was not taken. One byte, counted per kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum FaultKind {
    /// Fewer or more fields than the layout has.
    FieldCount,
    /// Not a decimal number where one must stand.
    Number,
    /// A number outside the field's range.
    Range,
    /// Not an IPv4 or IPv6 address.
    Address,
    /// An action that is neither `ACCEPT` nor `REJECT`.
    Action,
    /// A status that is none of `OK`, `NODATA`, `SKIPDATA`.
    LogStatus,
    /// A line longer than the limit.
    LineTooLong,
    /// JSON that is broken, or that holds no flow log message.
    Json,
    /// A record in base64 that is cut short or damaged.
    Base64,
    /// A compressed record whose bytes are damaged.
    Compression,
    /// A record that inflates beyond the limit.
    TooLarge,
    /// A KPL aggregate whose digest or structure is wrong.
    KplAggregate,
    /// A record in a form in which flow logs never arrive.
    Unsupported,
    /// A Parquet row group that can't be read to its end.
    ParquetValue,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 14] = [
        Self::FieldCount,
        Self::Number,
        Self::Range,
        Self::Address,
        Self::Action,
        Self::LogStatus,
        Self::LineTooLong,
        Self::Json,
        Self::Base64,
        Self::Compression,
        Self::TooLarge,
        Self::KplAggregate,
        Self::Unsupported,
        Self::ParquetValue,
    ];

    /// A stable name for counters and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FieldCount => "field_count",
            Self::Number => "number",
            Self::Range => "range",
            Self::Address => "address",
            Self::Action => "action",
            Self::LogStatus => "log_status",
            Self::LineTooLong => "line_too_long",
            Self::Json => "json",
            Self::Base64 => "base64",
            Self::Compression => "compression",
            Self::TooLarge => "too_large",
            Self::KplAggregate => "kpl_aggregate",
            Self::Unsupported => "unsupported",
            Self::ParquetValue => "parquet_value",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FieldCount => "wrong number of fields",
            Self::Number => "not a number",
            Self::Range => "number out of range",
            Self::Address => "not an IP address",
            Self::Action => "not ACCEPT or REJECT",
            Self::LogStatus => "not OK, NODATA or SKIPDATA",
            Self::LineTooLong => "line too long",
            Self::Json => "JSON without a flow log message",
            Self::Base64 => "damaged base64",
            Self::Compression => "damaged compressed data",
            Self::TooLarge => "inflates beyond the limit",
            Self::KplAggregate => "damaged KPL aggregate",
            Self::Unsupported => "a form in which flow logs do not arrive",
            Self::ParquetValue => "damaged Parquet row group",
        })
    }
}

/// Why an input ended early or could not be used. What came before it was taken.
#[derive(Debug, thiserror::Error)]
pub enum InputFault {
    /// The operating system or the network refused.
    #[error("cannot read it")]
    Io(#[from] std::io::Error),
    /// Compressed data that breaks off or is damaged.
    #[error(
        "{format} data is damaged after {decoded_bytes} decoded bytes; the complete lines before that were read, {dropped_bytes} bytes of a broken line were left out"
    )]
    Damaged {
        /// `gzip` or `zstd`.
        format: &'static str,
        /// How much came out before the damage.
        decoded_bytes: u64,
        /// Bytes of the line that was cut.
        dropped_bytes: u64,
        /// What the decoder said.
        #[source]
        source: std::io::Error,
    },
    /// A document that grows beyond [`Limits::document_bytes_max`](super::Limits).
    #[error(
        "a JSON document is longer than {limit_bytes} bytes or never ends; the documents before it were read"
    )]
    EndlessDocument {
        /// The limit.
        limit_bytes: usize,
    },
    /// Parquet structure that can't be read.
    #[error("not a readable Parquet object: {0}")]
    Parquet(String),
    /// Parquet given to a build without it.
    #[error("it is Parquet, which this build leaves out; build with the feature `parquet`")]
    ParquetLeftOut,
    /// Something that is certainly not flow logs.
    #[error("it holds {0}, which is not a form in which flow logs arrive")]
    Unsupported(&'static str),
    /// A stream service refused for good.
    #[error("{0}")]
    Stream(String),
}

/// Compressed data that cannot be decoded further; travels inside an [`std::io::Error`].
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct DecodeFault {
    pub(super) format: &'static str,
    pub(super) reason: &'static str,
}

impl From<DecodeFault> for std::io::Error {
    fn from(fault: DecodeFault) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, fault)
    }
}
