//! Lines of strangers under any layout: every instruction set gives the same records, and every line is
//! counted once.
#![no_main]

use std::sync::Arc;

use flowgauge::record::{ColumnSet, FieldId, Layout, Parser, TextSlice};
use flowgauge::simd::Isa;
use libfuzzer_sys::fuzz_target;

const FORMATS: [&str; 8] = [
    "v2",
    "v5",
    "v11",
    "tgw",
    "srcaddr dstaddr bytes",
    "instance-id region new-field",
    "end",
    "log-status action protocol tcp-flags",
];

fuzz_target!(|input: (u8, &[u8])| {
    let (choice, lines) = input;
    let mut text = lines.to_vec();
    if !text.is_empty() && text.last() != Some(&b'\n') {
        text.push(b'\n');
    }
    let format = FORMATS[usize::from(choice) % FORMATS.len()];
    let layout = Arc::new(Layout::from_text(format).expect("a known format"));
    let wanted: ColumnSet = FieldId::ALL.into_iter().collect();
    let line_count = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    let text = TextSlice::from(text);
    let mut expected = None;
    for isa in Isa::available() {
        let block = Parser::new(isa, wanted.clone()).parse(text.text(), text.range(), &layout);
        let rows: u64 = block.batches.iter().map(|batch| batch.rows() as u64).sum();
        assert_eq!(block.line_count, line_count);
        assert!(rows + block.faults.total() + block.header_count <= line_count);
        let shown = format!("{block:?}");
        assert_eq!(*expected.get_or_insert_with(|| shown.clone()), shown, "{}", isa.name());
    }
});
