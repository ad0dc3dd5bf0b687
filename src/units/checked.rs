//! Values of settings that are checked while they are read, so that a fault has its place in the file.

use std::ops::RangeInclusive;
#[cfg(feature = "aws")]
use std::time::Duration;

#[cfg(feature = "aws")]
use super::parse_duration;
#[cfg(any(feature = "kinesis", feature = "s3", feature = "firehose"))]
use super::parse_size;

/// Declares the type of a value by how it is made of what is written, and what must be written where that gives
/// nothing: `checked!(Interval(Duration), |text: String| duration_in(&text, &RANGE), "it must be `1s` to `1h`")`.
macro_rules! checked {
    ($name:ident($value:ty), |$written:ident: $from:ty| $make:expr, $must:expr) => {
        struct $name($value);

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                let $written = <$from as serde::Deserialize>::deserialize(from)?;
                let value: Option<$value> = $make;
                value.map(Self).ok_or_else(|| serde::de::Error::custom($must))
            }
        }
    };
}

pub(crate) use checked;

/// The duration that a text says, if it is one of `range`.
#[cfg(feature = "aws")]
pub(crate) fn duration_in(text: &str, range: &RangeInclusive<Duration>) -> Option<Duration> {
    parse_duration(text).filter(|duration| range.contains(duration))
}

/// The bytes that a text says, if they are no fewer than `least`.
#[cfg(any(feature = "kinesis", feature = "s3", feature = "firehose"))]
pub(crate) fn size_from(text: &str, least: u64) -> Option<u64> {
    parse_size(text).filter(|bytes| *bytes >= least)
}

/// A number, if it is one of `range`.
pub(crate) fn number_in<T: PartialOrd>(number: T, range: &RangeInclusive<T>) -> Option<T> {
    range.contains(&number).then_some(number)
}

/// A text, if it is the URL of an endpoint.
#[cfg(feature = "aws")]
pub(crate) fn url(text: String) -> Option<String> {
    let is_url = text.starts_with("http://") || text.starts_with("https://");
    is_url.then_some(text)
}

/// What [`url`] takes.
#[cfg(feature = "aws")]
pub(crate) const URL_FORM: &str = "it must be a URL with `http://` or `https://`";
