//! Every instruction set of the machine finds the separators that the scalar twin finds.
#![no_main]

use flowgauge::simd::{Isa, separators};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let mut expected = Vec::new();
    separators(Isa::Scalar, text, &mut expected);
    for isa in Isa::available() {
        let mut found = Vec::new();
        separators(isa, text, &mut found);
        assert_eq!(found, expected, "{}", isa.name());
    }
});
