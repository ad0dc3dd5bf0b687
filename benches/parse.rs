//! How fast lines become typed columns: every field of every line checked and kept, on one thread, text
//! in memory.
//!
//! `FLOWGAUGE_BENCH_FILE` names a file to parse beside the text made here; `FLOWGAUGE_ISA` leaves one
//! instruction set, for a profiler.

mod lines;

use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use flowgauge::record::{ColumnSet, FieldId, Layout, ParsedBlock, Parser, Text};
use flowgauge::simd::{Isa, advise_huge_pages};

/// Twice the third level cache of the machine on which the figures were taken.
const IN_MEMORY_BYTES: usize = 64 << 20;

/// Fits the second level cache together with the columns.
const IN_CACHE_BYTES: usize = 256 << 10;

/// What a worker takes at a time.
const PIECE_BYTES: usize = 1 << 20;

fn main() {
    divan::main();
}

fn isas() -> Vec<Isa> {
    match std::env::var("FLOWGAUGE_ISA") {
        Ok(name) => vec![Isa::from_name(&name).expect("FLOWGAUGE_ISA names an instruction set")],
        Err(_) => Isa::available(),
    }
}

#[divan::bench(args = isas(), sample_count = 20)]
fn version_2_in_memory(bencher: Bencher, isa: Isa) {
    run(bencher, isa, &lines::version_2(IN_MEMORY_BYTES), &Layout::default_v2());
}

#[divan::bench(args = isas())]
fn version_2_in_cache(bencher: Bencher, isa: Isa) {
    run(bencher, isa, &lines::version_2(IN_CACHE_BYTES), &Layout::default_v2());
}

#[divan::bench(args = isas(), sample_count = 20)]
fn version_5_in_memory(bencher: Bencher, isa: Isa) {
    let layout = Arc::new(Layout::of_fields(&FieldId::vpc_up_to(5)));
    run(bencher, isa, &lines::version_5(IN_MEMORY_BYTES), &layout);
}

#[divan::bench(args = isas(), sample_count = 10)]
fn file_in_memory(bencher: Bencher, isa: Isa) {
    let Some(path) = std::env::var_os("FLOWGAUGE_BENCH_FILE") else { return };
    let text = std::fs::read(path).expect("FLOWGAUGE_BENCH_FILE names a file");
    let first_line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let field_count = first_line.split(|byte| *byte == b' ').count();
    let layout = match field_count {
        29 => Arc::new(Layout::of_fields(&FieldId::vpc_up_to(5))),
        _ => Layout::default_v2(),
    };
    run(bencher, isa, &text, &layout);
}

fn run(bencher: Bencher, isa: Isa, text: &[u8], layout: &Arc<Layout>) {
    let line_count = memchr::memchr_iter(b'\n', text).count();
    let expected = byte_sum(text, layout);
    let bytes = BytesCount::of_slice(text);
    let text = Arc::new(Text::from(on_huge_pages(text)));
    let wanted: ColumnSet = FieldId::ALL.into_iter().collect();
    let mut parser = Parser::new(isa, wanted);
    let mut sum = 0;
    bencher.counter(bytes).counter(ItemsCount::new(line_count)).bench_local(|| {
        let mut block = ParsedBlock::default();
        let (mut start, mut rows) = (0, 0);
        sum = 0;
        while start < text.len() {
            let near = text.len().min(start + PIECE_BYTES);
            let end = memchr::memrchr(b'\n', &text[..near]).expect("lines are short") + 1;
            parser.parse_into(&text, start..end, layout, &mut block);
            for batch in block.batches.drain(..) {
                let counters = batch.counters(FieldId::Bytes).expect("it was asked for");
                sum += (0..batch.rows()).filter_map(|row| counters.get(row)).sum::<u64>();
                rows += batch.rows();
                parser.recycle(batch);
            }
            start = end;
        }
        assert_eq!(block.faults.total(), 0);
        rows
    });
    if sum > 0 {
        assert_eq!(sum, expected, "{} gives a wrong sum", isa.name());
    }
}

/// The text where the kernel was asked for pages of 2 MiB: a worker's buffers are used again and again, and
/// do not miss the address cache either.
fn on_huge_pages(text: &[u8]) -> Vec<u8> {
    let mut copy = vec![0; text.len()];
    advise_huge_pages(&mut copy);
    copy.copy_from_slice(text);
    copy
}

/// The sum of bytes by splitting and parsing with the standard library.
fn byte_sum(text: &[u8], layout: &Layout) -> u64 {
    let position = layout.position(FieldId::Bytes).expect("every version has it");
    let text = std::str::from_utf8(text).expect("the lines are ASCII");
    text.lines()
        .filter_map(|line| line.split(' ').nth(position))
        .filter_map(|field| field.parse::<u64>().ok())
        .sum()
}
