//! Bodies of Firehose requests: any bytes, and a request around any bytes.
#![no_main]

use flowgauge::source::firehose::body::{BodyFault, RECORDS_MAX, Record, read};
use libfuzzer_sys::fuzz_target;

/// Nesting that both readers take.
const BRACKETS_MAX: usize = 60;

fn check(body: &[u8]) {
    let outcome = read(body);
    if let Ok(body) = &outcome {
        assert!((1..=RECORDS_MAX).contains(&body.records.len()));
        for record in &body.records {
            match record {
                Record::Base64(text) => assert!(!text.contains(&b'"') && !text.contains(&b'\\')),
                Record::Other(json) => assert!(!json.is_empty()),
            }
        }
    }
    let brackets = body.iter().filter(|byte| b"[{".contains(byte)).count();
    let is_json = serde_json::from_slice::<serde_json::Value>(body).is_ok();
    let is_broken = matches!(outcome, Err(BodyFault::NotJson { .. }));
    assert!(!(is_json && is_broken) || brackets > BRACKETS_MAX, "well-formed JSON is taken");
}

fuzz_target!(|input: (u8, &[u8])| {
    let (form, bytes) = input;
    let (before, after): (&[u8], &[u8]) = match form % 4 {
        0 => (b"", b""),
        1 => (b"{\"requestId\":\"a\",\"records\":[", b"]}"),
        2 => (b"{\"requestId\":\"a\",\"records\":[{\"data\":\"", b"\"}]}"),
        _ => (b"{\"records\":[{\"data\":\"\"}],", b"}"),
    };
    check(&[before, bytes, after].concat());
});
