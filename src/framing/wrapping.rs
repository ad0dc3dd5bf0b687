//! How flow log lines are wrapped, for people: told by the start of a payload, nothing is kept of it.

use std::io::Read;

use bytes::Bytes;

use super::kpl::{self, Aggregate};
use super::sniff::{Form, form_of, without_mark};
use crate::record::Layout;

/// How far in a document the names of members are looked for that tell it.
const LOOK_BYTES: usize = 4 << 10;
/// How much of a compressed payload is inflated for a look inside.
const INFLATED_BYTES: u64 = 64 << 10;
/// Wrappings that are followed; AWS's own deliveries have at most three.
const WRAPPINGS_MAX: usize = 6;

/// The wrappings of what begins like `start`, outermost first; the last is what holds the lines.
#[must_use]
pub fn wrappings(start: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut bytes = Bytes::copy_from_slice(start);
    while found.len() < WRAPPINGS_MAX {
        let (name, inside) = match form_of(&bytes) {
            Form::Gzip => ("gzip", Some(begin_of(flate2::read::MultiGzDecoder::new(&bytes[..])))),
            Form::Zstd => {
                let decoder = zstd::stream::read::Decoder::new(&bytes[..]);
                ("zstd", decoder.ok().map(begin_of))
            }
            Form::KplAggregate => ("KPL aggregate", first_of_aggregate(&bytes)),
            Form::Parquet => ("Parquet", None),
            Form::Foreign(name) => (name, None),
            Form::Json => (document_name(without_mark(&bytes)), None),
            Form::Text => (text_name(without_mark(&bytes)), None),
        };
        found.push(name);
        match inside {
            Some(inside) if !inside.is_empty() => bytes = inside,
            _ => break,
        }
    }
    found
}

/// The first bytes; what is damaged or cut short ends them.
fn begin_of(reader: impl Read) -> Bytes {
    let mut begin = Vec::new();
    // `read_to_end` keeps what it has read before a fault.
    let _is_whole = reader.take(INFLATED_BYTES).read_to_end(&mut begin).is_ok();
    begin.into()
}

fn first_of_aggregate(bytes: &Bytes) -> Option<Bytes> {
    match kpl::unpack(bytes, None) {
        Ok(Aggregate::Records(records)) => records.into_iter().next(),
        Ok(Aggregate::Elsewhere) | Err(_) => None,
    }
}

fn document_name(document: &[u8]) -> &'static str {
    let begin = &document[..document.len().min(LOOK_BYTES)];
    let has = |name: &str| memchr::memmem::find(begin, format!("\"{name}\"").as_bytes()).is_some();
    if has("messageType") || has("logEvents") {
        "CloudWatch Logs subscription"
    } else if has("awslogs") {
        "Lambda event of a CloudWatch Logs subscription"
    } else if has("rawData") {
        "Firehose backup"
    } else if has("requestId") && has("records") {
        "Firehose request"
    } else if has("eventId") || has("ingestionTime") {
        "CloudWatch Logs events"
    } else if has("message") {
        "Firehose record"
    } else {
        "JSON rows"
    }
}

fn text_name(text: &[u8]) -> &'static str {
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    if Layout::from_header(first).is_some() {
        return "text with a header";
    }
    let token = first.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_time = std::str::from_utf8(token)
        .is_ok_and(|token| token.contains('T') && token.parse::<jiff::Timestamp>().is_ok());
    if is_time { "CloudWatch Logs export" } else { "text" }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LINE: &[u8] = b"2 123456789012 eni-1 10.0.0.1 10.0.0.2 1 2 6 1 40 1 2 ACCEPT OK";

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn check(start: &[u8], expected: &[&str]) {
        assert_eq!(wrappings(start), expected);
    }

    #[test]
    fn wrappings_are_told_from_the_outside_in() {
        check(LINE, &["text"]);
        check(b"version srcaddr dstaddr\n2 1 2", &["text with a header"]);
        check(b"2026-01-01T00:00:00.000Z 2 1", &["CloudWatch Logs export"]);
        check(&gzip(LINE), &["gzip", "text"]);
        let envelope = br#"{"messageType":"DATA_MESSAGE","owner":"1","logEvents":[]}"#;
        check(&gzip(envelope), &["gzip", "CloudWatch Logs subscription"]);
        check(&gzip(&gzip(envelope)), &["gzip", "gzip", "CloudWatch Logs subscription"]);
        check(br#"{"message":"2 1"}"#, &["Firehose record"]);
        check(br#"{"requestId":"1","timestamp":1,"records":[{"data":""}]}"#, &["Firehose request"]);
        check(br#"[{"srcaddr":"1"}]"#, &["JSON rows"]);
        check(b"PAR1", &["Parquet"]);
        check(b"PK\x03\x04", &["a zip archive"]);
    }

    #[test]
    fn a_start_may_be_cut_anywhere() {
        let packed = gzip(LINE);
        for length in 0..packed.len() {
            assert!(!wrappings(&packed[..length]).is_empty());
        }
    }
}
