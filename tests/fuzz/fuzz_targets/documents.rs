//! Pieces of JSON inputs of strangers.
#![no_main]

use flowgauge::framing::{Limits, Payload, deframe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, &[u8])| {
    let (whole, bytes) = input;
    let limits = Limits { inflated_bytes_max: 1 << 20, ..Limits::default() };
    let payload = if whole {
        Payload::Documents(bytes.to_vec().into())
    } else {
        Payload::DocumentStart(bytes.to_vec().into())
    };
    let framed = deframe(payload, &limits);
    assert!(framed.lines.is_empty() || framed.lines.ends_with(b"\n"));
});
