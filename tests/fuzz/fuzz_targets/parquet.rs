//! Parquet objects of strangers.
#![no_main]

use std::io::{Seek as _, Write as _};

use flowgauge::framing::{InputReader, Limits, deframe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: {
    // The Parquet reader panics on some damaged objects; framing turns that into a fault, and the
    // fuzzer's own hook must not take it for a finding.
    std::panic::set_hook(Box::new(|_| {}));
}, |bytes: &[u8]| {
    let mut file = tempfile::tempfile().expect("a temporary file");
    file.write_all(bytes).expect("a temporary file");
    file.rewind().expect("a temporary file");
    let limits = Limits::default();
    let mut reader = InputReader::of_file(file, &limits);
    while let Ok(Some(piece)) = reader.next_piece() {
        std::hint::black_box(deframe(piece.payload, &limits));
    }
});
