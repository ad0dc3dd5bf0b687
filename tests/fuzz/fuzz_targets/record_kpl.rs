//! KPL aggregates whose digest is right and whose inside is anything.
#![no_main]

use flowgauge_fuzz::check_record;
use libfuzzer_sys::fuzz_target;
use md5::{Digest as _, Md5};

fuzz_target!(|protobuf: &[u8]| {
    let mut data = b"\xf3\x89\x9a\xc2".to_vec();
    data.extend_from_slice(protobuf);
    data.extend_from_slice(&Md5::digest(protobuf));
    check_record(data);
});
