//! Durations and sizes as people write them, in configuration and on the command line, and as
//! messages write them back.

use std::fmt;
use std::num::NonZeroU64;
use std::time::Duration;

/// The forms that [`parse_duration`] reads, for messages.
pub const DURATION_FORMS: &str =
    "seconds, or a number with a unit like `500ms`, `60s`, `10m`, `1h`";

/// The forms that [`parse_size`] reads, for messages.
pub const SIZE_FORMS: &str = "bytes, or a number with a unit like `64KiB`, `512MiB`, `1GB`";

/// The forms that [`RateLimit::from_text`] reads, for messages.
pub const RATE_FORMS: &str = "bytes a second with a unit, like `50MiB/s`";

/// Reads whole seconds (`90`) or a whole number with `ms`, `s`, `m` or `h`; `None` for anything else.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let unit_ms = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(unit_ms).map(Duration::from_millis)
}

/// Reads bytes (`4096`) or a whole number with a decimal (`kB`, `MB`, `GB`) or binary (`KiB`, `MiB`,
/// `GiB`) unit; `None` for anything else.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let unit_bytes = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit_bytes)
}

/// How fast something may be read at most, in bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit(pub NonZeroU64);

impl RateLimit {
    /// Reads a size per second (`50MiB/s`), at least 1 byte; `None` for anything else.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let amount = text.strip_suffix("/s")?;
        // A bare number would be bytes to some readers and records to others.
        let (_, unit) = split_unit(amount)?;
        if unit.is_empty() {
            return None;
        }
        parse_size(amount).and_then(NonZeroU64::new).map(Self)
    }
}

/// Writes the limit so that [`RateLimit::from_text`] reads it back.
impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", size_text(self.0.get()))
    }
}

/// The number and what follows it; `None` unless the text starts with a digit.
fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.strip_prefix(' ').unwrap_or(unit)))
}

/// Writes a duration so that [`parse_duration`] reads it back, in the largest unit that is exact; one
/// minute is `60s`, as AWS names that aggregation interval.
///
/// Parts of a millisecond are left out.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    match duration.as_millis() {
        0 => "0s".to_owned(),
        ms if ms % 3_600_000 == 0 => format!("{}h", ms / 3_600_000),
        ms if ms % 60_000 == 0 && ms > 60_000 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// Writes a size so that [`parse_size`] reads it back, in the largest binary unit that is exact.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit_bytes, name) in UNITS {
        if bytes > 0 && bytes.is_multiple_of(unit_bytes) {
            return format!("{}{name}", bytes / unit_bytes);
        }
    }
    format!("{bytes}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_duration(text: &str, expected_ms: Option<u64>) {
        let read = parse_duration(text);
        assert_eq!(read, expected_ms.map(Duration::from_millis), "{text}");
        if let Some(duration) = read {
            assert_eq!(parse_duration(&duration_text(duration)), read, "{text}");
        }
    }

    fn check_size(text: &str, expected: Option<u64>) {
        let read = parse_size(text);
        assert_eq!(read, expected, "{text}");
        if let Some(bytes) = read {
            assert_eq!(parse_size(&size_text(bytes)), read, "{text}");
        }
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        check_duration("0", Some(0));
        check_duration("90", Some(90_000));
        check_duration("500ms", Some(500));
        check_duration("60s", Some(60_000));
        check_duration("10m", Some(600_000));
        check_duration("1 h", Some(3_600_000));
        for text in ["", "s", "-1s", "1.5s", "1d", "1H", "1h30m", " 1s", "99999999999999999999"] {
            check_duration(text, None);
        }
        check_duration("18446744073709551615h", None);
    }

    #[test]
    fn sizes_have_a_unit_or_are_bytes() {
        check_size("0", Some(0));
        check_size("4096", Some(4096));
        check_size("512MiB", Some(512 << 20));
        check_size("1GB", Some(1_000_000_000));
        check_size("64 KiB", Some(64 << 10));
        for text in ["", "MiB", "1mib", "1TB", "-1", "1.5GB", "18446744073709551615GB"] {
            check_size(text, None);
        }
    }

    #[test]
    fn rates_are_bytes_a_second() {
        let check = |text: &str, expected: Option<u64>| {
            let read = RateLimit::from_text(text);
            assert_eq!(read.map(|rate| rate.0.get()), expected, "{text}");
            if let Some(rate) = read {
                assert_eq!(RateLimit::from_text(&rate.to_string()), read, "{rate}");
            }
        };
        check("50MiB/s", Some(50 << 20));
        check("1 MB/s", Some(1_000_000));
        check("999B/s", Some(999));
        for text in ["", "/s", "50MiB", "50/s", "0B/s", "1 record/s", "-1B/s", "5 cats/s", "1B/m"] {
            check(text, None);
        }
    }

    #[test]
    fn messages_write_the_usual_form() {
        assert_eq!(duration_text(Duration::from_mins(1)), "60s");
        assert_eq!(duration_text(Duration::from_mins(10)), "10m");
        assert_eq!(duration_text(Duration::from_hours(24)), "24h");
        assert_eq!(duration_text(Duration::from_millis(1500)), "1500ms");
        assert_eq!(size_text(256 << 20), "256MiB");
        assert_eq!(size_text(1_000), "1000B");
    }
}
