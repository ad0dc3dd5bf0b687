//! Any bytes as a record of a stream.
#![no_main]

use flowgauge_fuzz::check_record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| check_record(data.to_vec()));
