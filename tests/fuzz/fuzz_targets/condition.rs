//! Conditions of strangers: no panic.
#![no_main]

use flowgauge::record::Filter;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Err(fault) = Filter::from_text(text) {
        assert!(!fault.to_string().is_empty());
    }
});
