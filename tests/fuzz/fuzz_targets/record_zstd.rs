//! Zstandard records: whole, cut and damaged.
#![no_main]

use flowgauge_fuzz::check_record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], u16, u8)| {
    let (text, at, flip) = input;
    let mut data = zstd::bulk::compress(text, 1).expect("memory");
    let at = usize::from(at) % data.len();
    data[at] ^= flip;
    if flip == 1 {
        data.truncate(at);
    }
    check_record(data);
});
