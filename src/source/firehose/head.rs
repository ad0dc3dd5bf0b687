//! What the headers of a delivery say, checked.
//!
//! Header names come in any case. What Firehose itself always sends may be missing, because emulators and other
//! senders leave it out; what is there must be right.

use std::collections::BTreeMap;

use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;

use super::refusal::Refusal;

/// The access key.
pub(super) const KEY: &str = "x-amz-firehose-access-key";

const REQUEST_ID: &str = "X-Amz-Firehose-Request-Id";
const SOURCE_ARN: &str = "X-Amz-Firehose-Source-Arn";
const VERSION: &str = "X-Amz-Firehose-Protocol-Version";
const ATTRIBUTES: &str = "X-Amz-Firehose-Common-Attributes";

/// Firehose's limits of the common attributes.
const ATTRIBUTES_MAX: usize = 50;
const ATTRIBUTE_KEY_CHARS_MAX: usize = 256;
const ATTRIBUTE_VALUE_CHARS_MAX: usize = 1_024;

/// Bytes of common attributes that a log line shows.
const SHOWN_BYTES_MAX: usize = 1_024;

/// The headers of a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) request_id: Option<&'a str>,
    /// The delivery stream.
    pub(super) source_arn: Option<&'a str>,
    /// What the delivery stream was told to send with every request, for people.
    pub(super) attributes: Option<String>,
    pub(super) is_gzip: bool,
    pub(super) content_length: Option<u64>,
}

#[derive(Deserialize)]
struct AttributesWritten {
    #[serde(rename = "commonAttributes")]
    attributes: BTreeMap<String, String>,
}

impl<'a> Head<'a> {
    /// # Errors
    /// If a header says what can't be right.
    pub(super) fn read(headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let fault = |name, fault| Refusal::Header { name, fault };
        if let Some(version) = headers.get(VERSION)
            && version.as_bytes() != b"1.0"
        {
            return Err(fault(VERSION, "it must be 1.0"));
        }
        let request_id = text(headers, REQUEST_ID)?;
        let source_arn = text(headers, SOURCE_ARN)?;
        if source_arn.is_some_and(|arn| !arn.starts_with("arn:") || stream_name(arn).is_none()) {
            return Err(fault(SOURCE_ARN, "it must be the ARN of a delivery stream"));
        }
        Ok(Self {
            request_id,
            source_arn,
            attributes: attributes(headers)?,
            is_gzip: is_gzip(headers)?,
            content_length: headers
                .get(CONTENT_LENGTH)
                .and_then(|length| length.to_str().ok()?.parse().ok()),
        })
    }

    /// The id, if there is one, whatever else is wrong.
    pub(super) fn request_id_of(headers: &'a HeaderMap) -> Option<&'a str> {
        headers.get(REQUEST_ID)?.to_str().ok().filter(|id| id.len() <= 256)
    }

    /// The delivery stream's own name.
    pub(super) fn stream_name(&self) -> Option<&'a str> {
        self.source_arn.and_then(stream_name)
    }
}

fn stream_name(arn: &str) -> Option<&str> {
    arn.split_once(":deliverystream/").map(|(_, name)| name).filter(|name| !name.is_empty())
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, Refusal> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| (1..=512).contains(&text.len()));
    match text {
        Some(text) => Ok(Some(text)),
        None => Err(Refusal::Header { name, fault: "it must be 1 to 512 printable characters" }),
    }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    if let Some(form) = headers.get(CONTENT_TYPE) {
        let form = form.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        if !form.trim_ascii().eq_ignore_ascii_case(b"application/json") {
            return Err(Refusal::ContentType);
        }
    }
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None => Ok(false),
        Some(encoding) if encoding.eq_ignore_ascii_case(b"gzip") => Ok(true),
        Some(encoding) if encoding.eq_ignore_ascii_case(b"identity") => Ok(false),
        Some(_) => Err(Refusal::Encoding),
    }
}

fn attributes(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let fault = |fault| Refusal::Header { name: ATTRIBUTES, fault };
    let Some(value) = headers.get(ATTRIBUTES) else { return Ok(None) };
    let AttributesWritten { attributes } = serde_json::from_slice(value.as_bytes())
        .map_err(|_| fault("it must be JSON with an object `commonAttributes` of texts"))?;
    let chars = |text: &str| text.chars().count();
    let fits = |(key, value): (&String, &String)| {
        (1..=ATTRIBUTE_KEY_CHARS_MAX).contains(&chars(key))
            && chars(value) <= ATTRIBUTE_VALUE_CHARS_MAX
    };
    if attributes.len() > ATTRIBUTES_MAX || !attributes.iter().all(fits) {
        return Err(fault("it has more or longer attributes than Firehose sends"));
    }
    let mut shown = serde_json::json!(attributes).to_string();
    shown.truncate(shown.floor_char_boundary(SHOWN_BYTES_MAX));
    Ok(Some(shown))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderName;

    use super::*;

    fn check(headers: &[(&str, &str)], expected: &Result<(), Refusal>) {
        let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
        let value = |value: &str| HeaderValue::from_str(value).unwrap();
        let headers = headers.iter().map(|(n, v)| (name(n), value(v))).collect();
        assert_eq!(&Head::read(&headers).map(drop), expected, "{headers:?}");
    }

    #[test]
    fn what_is_there_must_be_right() {
        check(&[], &Ok(()));
        check(
            &[
                (VERSION, "1.0"),
                (SOURCE_ARN, "arn:aws:firehose:eu-west-1:123456789012:deliverystream/flow"),
                (REQUEST_ID, "a-1"),
                (ATTRIBUTES, r#"{"commonAttributes":{"env":"prod","empty":""}}"#),
                ("content-type", "application/json; charset=utf-8"),
                ("content-encoding", "GZIP"),
            ],
            &Ok(()),
        );
        let fault = |name, fault| Err(Refusal::Header { name, fault });
        check(&[(VERSION, "2.0")], &fault(VERSION, "it must be 1.0"));
        let no_arn = fault(SOURCE_ARN, "it must be the ARN of a delivery stream");
        check(&[(SOURCE_ARN, "arn:aws:firehose:r:1:deliverystream/")], &no_arn);
        check(&[(SOURCE_ARN, "flow")], &no_arn);
        let no_text = fault(REQUEST_ID, "it must be 1 to 512 printable characters");
        check(&[(REQUEST_ID, "")], &no_text);
        check(&[(REQUEST_ID, &"a".repeat(513))], &no_text);
        check(&[("content-type", "text/plain")], &Err(Refusal::ContentType));
        check(&[("content-encoding", "br")], &Err(Refusal::Encoding));
    }

    #[test]
    fn attributes_have_firehose_s_limits() {
        let form = "it must be JSON with an object `commonAttributes` of texts";
        let limits = "it has more or longer attributes than Firehose sends";
        let faulty = |text: &str, fault| {
            check(&[(ATTRIBUTES, text)], &Err(Refusal::Header { name: ATTRIBUTES, fault }));
        };
        for text in ["", "{}", "{", r#"{"commonAttributes":{"a":1}}"#] {
            faulty(text, form);
        }
        let of = |pairs: &[(String, String)]| {
            let pairs: BTreeMap<_, _> = pairs.iter().cloned().collect();
            serde_json::json!({ "commonAttributes": pairs }).to_string()
        };
        let pair = |key: usize, value: usize| ("k".repeat(key), "v".repeat(value));
        check(&[(ATTRIBUTES, &of(&[pair(256, 1024)]))], &Ok(()));
        faulty(&of(&[pair(257, 1)]), limits);
        faulty(&of(&[pair(0, 1)]), limits);
        faulty(&of(&[pair(1, 1025)]), limits);
        let many: Vec<_> = (1..=51).map(|length| pair(length, 1)).collect();
        faulty(&of(&many), limits);
        check(&[(ATTRIBUTES, &of(&many[1..]))], &Ok(()));
    }
}
