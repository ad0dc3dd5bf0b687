//! Gzip records: whole, of several members, cut and damaged.
#![no_main]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use flowgauge_fuzz::check_record;
use libfuzzer_sys::fuzz_target;

fn packed(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

fuzz_target!(|input: (&[u8], &[u8], u16, u8)| {
    let (first, second, at, flip) = input;
    let mut data = packed(first);
    data.extend(packed(second));
    let at = usize::from(at) % data.len();
    data[at] ^= flip;
    if flip == 1 {
        data.truncate(at);
    }
    check_record(data);
});
