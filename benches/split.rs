//! How fast each instruction set lists the separators of flow log text, and what a byte search does.

mod lines;

use divan::Bencher;
use divan::counter::BytesCount;
use flowgauge::simd::{Isa, LINE_END, separators};

/// What a source reads at a time.
const BLOCK_BYTES: usize = 1 << 20;

fn main() {
    divan::main();
}

#[divan::bench(args = Isa::available())]
fn flow_log_lines(bencher: Bencher, isa: Isa) {
    run(bencher, isa, &lines::version_2(BLOCK_BYTES));
}

#[divan::bench(args = Isa::available())]
fn nothing_but_separators(bencher: Bencher, isa: Isa) {
    run(bencher, isa, &b" \n".repeat(BLOCK_BYTES / 2));
}

#[divan::bench(args = Isa::available())]
fn no_separator(bencher: Bencher, isa: Isa) {
    run(bencher, isa, &vec![b'x'; BLOCK_BYTES]);
}

#[divan::bench]
fn memchr2_flow_log_lines(bencher: Bencher) {
    let text = lines::version_2(BLOCK_BYTES);
    let mut positions = Vec::new();
    bencher.counter(BytesCount::of_slice(&text)).bench_local(|| {
        positions.clear();
        positions.extend(memchr::memchr2_iter(b' ', b'\n', &text));
        positions.len()
    });
    assert_eq!(positions.len(), expected(&text).len());
}

fn run(bencher: Bencher, isa: Isa, text: &[u8]) {
    let mut positions = Vec::new();
    bencher.counter(BytesCount::of_slice(text)).bench_local(|| {
        positions.clear();
        separators(isa, text, &mut positions);
        positions.len()
    });
    assert!(positions == expected(text), "{} gives a wrong answer", isa.name());
}

/// The answer by another way than the kernels'.
fn expected(text: &[u8]) -> Vec<u32> {
    let entry = |(position, byte): (u32, &u8)| match byte {
        b' ' => Some(position),
        b'\n' => Some(position | LINE_END),
        _ => None,
    };
    (0..).zip(text).filter_map(entry).collect()
}
