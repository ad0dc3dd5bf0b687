//! A moment in milliseconds, as services write and configurations say it.

use serde::Deserialize;

/// A moment in Unix milliseconds, written as RFC 3339 text or as a TOML date-time with an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "MomentWritten")]
pub struct Moment {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub unix_ms: i64,
}

impl Moment {
    /// The moment in RFC 3339, as far as that can say it.
    #[must_use]
    pub fn text(self) -> String {
        jiff::Timestamp::from_millisecond(self.unix_ms).map_or_else(
            |_| format!("Unix millisecond {}", self.unix_ms),
            |moment| moment.to_string(),
        )
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum MomentWritten {
    Text(String),
    Toml(toml::value::Datetime),
}

impl TryFrom<MomentWritten> for Moment {
    type Error = &'static str;

    fn try_from(written: MomentWritten) -> Result<Self, Self::Error> {
        let text = match written {
            MomentWritten::Text(text) => text,
            MomentWritten::Toml(datetime) => datetime.to_string(),
        };
        text.parse::<jiff::Timestamp>()
            .map(|timestamp| Self { unix_ms: timestamp.as_millisecond() })
            .map_err(|_| "it must be a moment with its offset, like `2026-01-01T00:00:00Z`")
    }
}
