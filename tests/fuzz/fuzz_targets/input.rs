//! Files and pipes of strangers: read to their end whatever they hold, the same in pieces of any size.
#![no_main]

use std::io::Read;

use flowgauge::framing::{InputReader, Limits, Payload, deframe};
use libfuzzer_sys::fuzz_target;

/// Gives a few bytes at a time.
struct Slow {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
}

impl Read for Slow {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.step.min(buf.len()).min(self.bytes.len() - self.at);
        buf[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// All lines of an input, and whether it was read to its end.
fn lines(bytes: &[u8], step: usize) -> (Vec<u8>, bool) {
    let limits =
        Limits { inflated_bytes_max: 1 << 20, document_bytes_max: 1 << 16, ..Limits::default() };
    let slow = Slow { bytes: bytes.to_vec(), at: 0, step };
    let mut reader = InputReader::of_stream(Box::new(slow), &limits);
    let mut lines = Vec::new();
    loop {
        match reader.next_piece() {
            Ok(Some(piece)) => {
                if let Payload::Lines(text) = &piece.payload {
                    assert!(text.is_empty() || text.ends_with(b"\n"));
                }
                lines.extend_from_slice(&deframe(piece.payload, &limits).lines);
            }
            Ok(None) => return (lines, true),
            Err(_) => return (lines, false),
        }
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    assert_eq!(lines(bytes, usize::from(step) + 1), lines(bytes, usize::MAX));
});
