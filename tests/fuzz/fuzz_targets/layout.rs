//! Formats and header lines of strangers: no panic, and what is understood is written back the same.
#![no_main]

use flowgauge::record::Layout;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(layout) = Layout::from_header(bytes) {
        assert_eq!(Layout::from_header(layout.header().as_bytes()), Some(layout));
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(layout) = Layout::from_text(text) {
        assert_eq!(Layout::from_text(&layout.header()), Ok(layout));
    }
});
