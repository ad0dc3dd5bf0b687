//! Faults of whole inputs: what came before them was taken, the rest could not be.

use super::position::Position;

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
    /// A file that is not what was read of it before.
    #[error(
        "it is not the file that was read up to {position} before: {reason}; to read it as a new one, give it another name"
    )]
    Replaced {
        /// Where reading was to go on.
        position: String,
        /// How it shows.
        reason: &'static str,
    },
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

impl InputFault {
    /// Whether what the input holds is at fault, rather than the way to it.
    #[must_use]
    pub const fn is_of_content(&self) -> bool {
        match self {
            Self::Damaged { .. }
            | Self::EndlessDocument { .. }
            | Self::Parquet(_)
            | Self::ParquetLeftOut
            | Self::Unsupported(_) => true,
            Self::Io(_) | Self::Replaced { .. } | Self::Stream(_) => false,
        }
    }

    /// A file in which there is no such position, and how that shows.
    pub(super) fn replaced(position: &Position, reason: &'static str) -> Self {
        Self::Replaced { position: position.to_string(), reason }
    }
}

impl From<DecodeFault> for std::io::Error {
    fn from(fault: DecodeFault) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, fault)
    }
}
