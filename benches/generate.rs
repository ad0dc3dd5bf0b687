//! How fast synthetic lines are made: it bounds every test and benchmark that feeds on them.

use flowgauge::generate::{GenerateSettings, Generator};
use flowgauge::record::Layout;

fn main() {
    divan::main();
}

/// Lines of one iteration.
const LINES: usize = 100_000;

#[divan::bench(args = ["v2", "v5", "v11"], sample_count = 20)]
fn lines(bencher: divan::Bencher<'_, '_>, format: &str) {
    let settings = GenerateSettings {
        records: 0,
        format: Layout::from_text(format).expect("a preset").into(),
        ..GenerateSettings::default()
    };
    let mut generator = Generator::new(&settings);
    let mut text = Vec::new();
    bencher.counter(divan::counter::ItemsCount::new(LINES)).bench_local(|| {
        text.clear();
        assert_eq!(generator.fill(&mut text, LINES), LINES);
    });
}
