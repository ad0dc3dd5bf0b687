//! Quantities that would be easy to swap: event time in seconds, pane numbers, byte counts.
//!
//! Everything that measures something in flowgauge either has one of these types or says its unit in
//! the last word of its name. Formatting for people (RFC 3339, `1.2 GB`) lives here too, so that
//! every report writes the same quantity in the same way. So does reading what people write
//! (`10m`, `512MiB`).

#[cfg(any(feature = "aws", feature = "firehose"))]
pub(crate) mod checked;
mod moment;
mod quantity;

use std::fmt;

pub use moment::Moment;
pub use quantity::{
    DURATION_FORMS, RATE_FORMS, RateLimit, SIZE_FORMS, duration_text, parse_duration, parse_size,
    size_text,
};

/// A moment of event time: whole seconds since 1970-01-01T00:00:00Z, as flow logs write `start` and
/// `end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(pub i64);

impl UnixSeconds {
    /// The moment before every other.
    pub const MIN: Self = Self(i64::MIN);
    /// The moment after every other.
    pub const MAX: Self = Self(i64::MAX);

    /// This moment moved by `seconds`, held at the ends of the range.
    #[must_use]
    pub const fn saturating_add(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// The moment that a user wrote: Unix seconds, an RFC 3339 time, or a date (midnight UTC).
    ///
    /// # Errors
    /// If it is none of these.
    pub fn from_text(text: &str) -> Result<Self, MomentError> {
        let fault = || MomentError(text.to_owned());
        if let Ok(seconds) = text.parse() {
            return Ok(Self(seconds));
        }
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Ok(Self(moment.as_second()));
        }
        let date: jiff::civil::Date = text.parse().map_err(|_| fault())?;
        let midnight = jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0));
        midnight.map(|moment| Self(moment.as_second())).map_err(|_| fault())
    }

    /// The pane of `pane_seconds` that holds this moment.
    ///
    /// # Panics
    /// If `pane_seconds` is not positive.
    #[must_use]
    pub const fn pane(self, pane_seconds: i64) -> PaneIndex {
        assert!(pane_seconds > 0);
        PaneIndex(self.0.div_euclid(pane_seconds))
    }
}

/// Writes RFC 3339 in UTC with whole seconds (`2026-01-01T00:00:00Z`); a moment outside the years
/// -9999 to 9999 is held at that end.
impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lowest = jiff::Timestamp::MIN.as_second() + 1;
        let highest = jiff::Timestamp::MAX.as_second();
        let held = self.0.clamp(lowest, highest);
        let moment = jiff::Timestamp::from_second(held).expect("clamped into the range above");
        write!(f, "{}", moment.strftime("%Y-%m-%dT%H:%M:%SZ"))
    }
}

/// A text that is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a time; write `2026-01-31T12:00:00Z`, `2026-01-31` or Unix seconds")]
pub struct MomentError(String);

/// The number of a pane: event time divided by the pane's length, rounded down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PaneIndex(pub i64);

impl PaneIndex {
    /// First second of the pane.
    #[must_use]
    pub const fn start(self, pane_seconds: i64) -> UnixSeconds {
        UnixSeconds(self.0.saturating_mul(pane_seconds))
    }

    /// First second after the pane.
    #[must_use]
    pub const fn end(self, pane_seconds: i64) -> UnixSeconds {
        UnixSeconds(self.0.saturating_add(1).saturating_mul(pane_seconds))
    }
}

/// A count of bytes; displays in decimal units (`1.17 GB`), as network and storage prices do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(pub u128);

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
        let mut unit = 0;
        let mut scaled = self.0 as f64;
        while scaled >= 999.5 && unit + 1 < UNITS.len() {
            scaled /= 1000.0;
            unit += 1;
        }
        match (unit, scaled) {
            (0, _) => write!(f, "{} B", self.0),
            (_, s) if s < 9.995 => write!(f, "{s:.2} {}", UNITS[unit]),
            (_, s) if s < 99.95 => write!(f, "{s:.1} {}", UNITS[unit]),
            (_, s) => write!(f, "{s:.0} {}", UNITS[unit]),
        }
    }
}

/// A count written with a comma between groups of three digits: `1,234,567`.
#[derive(Clone, Copy, Debug)]
pub struct Grouped(pub u128);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() + digits.len() / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad_integral(true, "", &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: impl fmt::Display, expected: &str) {
        assert_eq!(value.to_string(), expected);
    }

    #[test]
    fn moments_are_rfc_3339_and_never_panic() {
        check(UnixSeconds(1_767_225_600), "2026-01-01T00:00:00Z");
        check(UnixSeconds(-1), "1969-12-31T23:59:59Z");
        assert!(UnixSeconds::MAX.to_string().starts_with("9999-12-3"));
        assert!(UnixSeconds::MIN.to_string().starts_with("-9999"));
    }

    #[test]
    fn byte_counts_use_decimal_units() {
        check(ByteCount(0), "0 B");
        check(ByteCount(999), "999 B");
        check(ByteCount(1_000), "1.00 kB");
        check(ByteCount(999_600), "1.00 MB");
        check(ByteCount(1_169_976_329), "1.17 GB");
    }

    #[test]
    fn counts_are_grouped() {
        check(Grouped(0), "0");
        check(Grouped(999), "999");
        check(Grouped(1_000), "1,000");
        check(Grouped(12_345_678), "12,345,678");
    }

    #[test]
    fn panes_round_down_on_both_sides_of_the_epoch() {
        assert_eq!(UnixSeconds(119).pane(60), PaneIndex(1));
        assert_eq!(UnixSeconds(-1).pane(60), PaneIndex(-1));
        assert_eq!(PaneIndex(1).start(60), UnixSeconds(60));
        assert_eq!(PaneIndex(1).end(60), UnixSeconds(120));
    }
}
