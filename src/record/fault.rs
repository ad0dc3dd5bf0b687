//! Why a line was not taken: a one-byte kind that is counted, and a sample of the line for people.

use std::fmt;

use crate::codec::{COUNT_MAX, DecodeError, Decoder, Encoder};

/// Why a line, or a record that should have held lines, was not taken.
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
    /// Every kind, in the order of their numbers.
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
            Self::Action => "not ACCEPT, REJECT or -",
            Self::LogStatus => "not OK, NODATA, SKIPDATA or -",
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

/// Bytes of a faulty line that a sample keeps.
pub const SAMPLE_BYTES_MAX: usize = 200;

/// Faulty lines that one block keeps as samples; the rest is only counted.
pub const SAMPLES_PER_BLOCK: usize = 8;

/// A line that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultSample {
    /// Why.
    pub kind: FaultKind,
    /// Number of the line within its block, from 0.
    pub line: u64,
    /// The field at fault, from 1; 0 if the line as a whole is.
    pub column: u16,
    /// What is wrong, with names and counts.
    pub reason: String,
    /// The first bytes of the line.
    pub text: Vec<u8>,
    /// How long the line is.
    pub length_bytes: u64,
}

/// Faults of a block: counts of all, samples of the first few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    counts: [u64; FaultKind::ALL.len()],
    samples: Vec<FaultSample>,
}

impl Faults {
    /// Counts a fault, and keeps what `sample` makes while there is room.
    pub fn record(&mut self, kind: FaultKind, sample: impl FnOnce() -> FaultSample) {
        self.counts[kind as usize] += 1;
        if self.samples.len() < SAMPLES_PER_BLOCK {
            self.samples.push(sample());
        }
    }

    /// Adds the counts of `other`, leaving samples alone.
    pub fn add_counts(&mut self, other: &Self) {
        for (count, added) in self.counts.iter_mut().zip(other.counts) {
            *count += added;
        }
    }

    /// Saves the counts; samples are none of a stream's state.
    pub fn save_counts(&self, out: &mut Encoder) {
        out.plain(&self.counts);
    }

    /// The counts that [`Self::save_counts`] wrote, or a version that knew fewer kinds.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn load_counts(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let saved: Vec<u64> = from.plain()?;
        let mut counts = [0; FaultKind::ALL.len()];
        let known = counts.get_mut(..saved.len()).ok_or(DecodeError::Invalid("faults"))?;
        known.copy_from_slice(&saved);
        if saved.iter().any(|count| *count > COUNT_MAX) {
            return Err(DecodeError::Invalid("faults"));
        }
        Ok(Self { counts, samples: Vec::new() })
    }

    /// Faults of one kind.
    #[must_use]
    pub const fn count(&self, kind: FaultKind) -> u64 {
        self.counts[kind as usize]
    }

    /// Faults of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The samples kept, in line order.
    #[must_use]
    pub fn samples(&self) -> &[FaultSample] {
        &self.samples
    }

    /// The samples kept, to be changed by who knows more of their origin.
    pub fn samples_mut(&mut self) -> &mut Vec<FaultSample> {
        &mut self.samples
    }
}
