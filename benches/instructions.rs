//! Runs one stage once over fixed input, for `scripts/bench-instructions` to count its instructions.
//!
//! Instructions hardly change between runs, so a slower stage shows on a machine whose times do not.
//! Only what happens inside [`measured`], and in jobs of rayon's threads, is counted; input is made
//! before it. Counts are those of AVX2: valgrind 3.19 knows no AVX-512 and says so to the program,
//! which then takes the next best kernels.
//!
//! ```text
//! instructions --list        names of the stages
//! instructions STAGE         runs it, prints its name, records, checksum and instruction set
//! ```

#![expect(clippy::print_stdout, reason = "it is what scripts/bench-instructions reads")]

mod lines;
mod questions;

use std::hint::black_box;
use std::sync::Arc;

use flowgauge::aggregate::{
    CONTACT_BYTES_DEFAULT, CONTACT_COLUMNS, ContactTable, Metric, PaneContacts, RoutedBatch,
    Router, RowLists, TOTALS_COLUMNS, TopSet, TopSpec,
};
use flowgauge::detect::DetectorSet;
use flowgauge::framing::{BLOCK_BYTES, Limits, Payload, SourceRecord, deframe};
use flowgauge::generate::envelope::{DocumentCompression, Envelopes, Form};
use flowgauge::generate::{GenerateSettings, Generator};
use flowgauge::pipeline::{self, Detectors};
use flowgauge::record::{ColumnSet, FieldId, FlowBatch, Layout, Parser, Slot, Text};
use flowgauge::simd::{Isa, separators};
use questions::{Input, Question, RECORDS};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bytes of the lines that need no generator: about 90,000 records.
const LINES_BYTES: usize = 10 << 20;
/// Length of a pane.
const PANE_SECONDS: i64 = 60;
/// Seed of every table.
const SEED: u64 = 1;

/// A stage with its input made: records that it takes, and the work, which returns a checksum.
struct Stage {
    records: usize,
    work: Box<dyn FnMut() -> u64>,
}

impl Stage {
    fn new(records: usize, work: impl FnMut() -> u64 + 'static) -> Self {
        Self { records, work: Box::new(work) }
    }
}

/// A stage's name and how it is set up.
type Entry = (&'static str, fn() -> Stage);

const STAGES: [Entry; 13] = [
    ("split", split),
    ("parse_v2", parse_v2),
    ("parse_v5", parse_v5),
    ("frame_envelopes", frame_envelopes),
    ("frame_gzip", frame_gzip),
    ("top_sources", top_sources),
    ("pairs_distinct", pairs_distinct),
    ("contacts", contacts),
    ("detect", detect),
    ("run_parse", || run(Question::Parse)),
    ("run_sources", || run(Question::Sources)),
    ("run_pairs", || run(Question::Pairs)),
    ("run_report", || run(Question::Report)),
];

fn main() {
    let name = std::env::args().nth(1).unwrap_or_default();
    if let Some((name, set_up)) = STAGES.iter().find(|(stage, _)| *stage == name) {
        let mut stage = set_up();
        let checksum = measured(&mut *stage.work);
        let isa = Isa::detect().name();
        println!("{name}\t{}\t{checksum:016x}\t{isa}", stage.records);
    } else {
        // Also what `cargo bench` without a stage comes to.
        STAGES.iter().for_each(|(stage, _)| println!("{stage}"));
    }
}

/// The function that counting is bound to, by its name. It must stay a function of its own, and nothing
/// below it may have its name.
#[inline(never)]
fn measured(work: &mut dyn FnMut() -> u64) -> u64 {
    black_box(work())
}

/// Mixes a value into a checksum (the step of splitmix64).
const fn mix(checksum: u64, value: u64) -> u64 {
    let mixed = (checksum ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn line_count(text: &[u8]) -> usize {
    memchr::memchr_iter(b'\n', text).count()
}

/// Text in blocks as sources give them: whole lines, about [`BLOCK_BYTES`] each.
fn blocks(text: &[u8]) -> Vec<Arc<Text>> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let near = &rest[..BLOCK_BYTES.min(rest.len())];
        let end = 1 + memchr::memrchr(b'\n', near).expect("lines are far shorter than a block");
        blocks.push(Arc::new(rest[..end].to_vec().into()));
        rest = &rest[end..];
    }
    blocks
}

/// Generated lines of the end-to-end benches, in another layout if `format` says so.
fn generated(format: &str) -> Vec<u8> {
    let layout = Layout::from_text(format).expect("a preset");
    let settings = GenerateSettings { format: layout.into(), ..questions::settings() };
    let mut text = Vec::new();
    Generator::new(&settings).fill(&mut text, RECORDS);
    text
}

/// Typed columns of the generated lines.
fn generated_batches(columns: ColumnSet) -> Vec<FlowBatch> {
    let mut parser = Parser::new(Isa::detect(), columns);
    let layout = Layout::default_v2();
    blocks(&generated("v2"))
        .iter()
        .flat_map(|block| parser.parse(block, 0..block.len(), &layout).batches)
        .collect()
}

fn split() -> Stage {
    let text = lines::version_2(LINES_BYTES);
    let blocks = blocks(&text);
    let isa = Isa::detect();
    let mut positions = Vec::with_capacity(BLOCK_BYTES);
    Stage::new(line_count(&text), move || {
        blocks.iter().fold(0, |checksum, block| {
            positions.clear();
            separators(isa, block, &mut positions);
            mix(checksum, positions.len() as u64)
        })
    })
}

fn parse_v2() -> Stage {
    let text = lines::version_2(LINES_BYTES);
    parse(&text, Layout::default_v2())
}

fn parse_v5() -> Stage {
    let layout = Layout::from_text("v5").expect("a preset");
    parse(&generated("v5"), Arc::new(layout))
}

/// Parses with the columns of the totals, as for a report without tops.
fn parse(text: &[u8], layout: Arc<Layout>) -> Stage {
    let blocks = blocks(text);
    let records = line_count(text);
    let mut parser = Parser::new(Isa::detect(), TOTALS_COLUMNS.into_iter().collect());
    Stage::new(records, move || {
        let mut rows = 0;
        let mut checksum = 0;
        for block in &blocks {
            let batches = parser.parse(block, 0..block.len(), &layout).batches;
            rows += batches.iter().map(FlowBatch::rows).sum::<usize>();
            let last = batches.last().and_then(|batch| {
                batch.counters(FieldId::Bytes).and_then(|column| column.get(batch.rows() - 1))
            });
            checksum = mix(checksum, last.unwrap_or(0));
            batches.into_iter().for_each(|batch| parser.recycle(batch));
        }
        assert_eq!(rows, records);
        checksum
    })
}

/// CloudWatch Logs documents, one a line.
fn frame_envelopes() -> Stage {
    let documents = documents(DocumentCompression::Plain);
    let blocks = blocks(&documents.concat());
    frame(blocks.iter().map(|block| Payload::Documents(block.to_vec().into())).collect())
}

/// Records of a stream, each a CloudWatch Logs document in gzip.
fn frame_gzip() -> Stage {
    let records = documents(DocumentCompression::Gzip).into_iter().map(|data| SourceRecord {
        data: data.into(),
        sequence_number: "1".into(),
        arrival_ms: 0,
        hash_key_range: None,
    });
    let records: Vec<SourceRecord> = records.collect();
    frame(records.chunks(100).map(|records| Payload::Records(records.to_vec())).collect())
}

/// CloudWatch Logs documents that hold all generated lines.
fn documents(compression: DocumentCompression) -> Vec<Vec<u8>> {
    let mut generator = Generator::new(&questions::settings());
    let mut envelopes = Envelopes::new(Form::CloudWatch, compression);
    let mut documents = Vec::new();
    while envelopes.wrap(&mut generator, 50_000, &mut documents) > 0 {}
    documents.into_iter().map(|(_, document)| document).collect()
}

fn frame(mut payloads: Vec<Payload>) -> Stage {
    Stage::new(RECORDS, move || {
        let limits = Limits::default();
        let mut lines = 0;
        let mut checksum = 0;
        for payload in payloads.drain(..) {
            let framed = deframe(payload, &limits);
            assert!(framed.faults.is_empty());
            lines += line_count(&framed.lines);
            checksum = mix(checksum, framed.lines.len() as u64);
        }
        assert_eq!(lines, RECORDS);
        checksum
    })
}

fn top_sources() -> Stage {
    top(&[FieldId::SrcAddr], Metric::Bytes)
}

fn pairs_distinct() -> Stage {
    let metric = Metric::Distinct(Slot::Known(FieldId::DstPort));
    top(&[FieldId::SrcAddr, FieldId::DstAddr], metric)
}

fn top(by: &[FieldId], metric: Metric) -> Stage {
    let by = by.iter().copied().map(Slot::Known).collect();
    let spec = TopSpec { by, metric, rows_max: 10, metric_min: 0, window_seconds: None };
    let mut columns = ColumnSet::new();
    spec.slots().for_each(|slot| columns.insert_slot(&slot));
    let mut router = Router::new(std::slice::from_ref(&spec), false, 1, SEED);
    let batches: Vec<RoutedBatch> = generated_batches(columns)
        .into_iter()
        .map(|batch| router.route(batch, None, RowLists::default()))
        .collect();
    Stage::new(RECORDS, move || {
        let mut set = TopSet::new(std::slice::from_ref(&spec), SEED, usize::MAX);
        batches.iter().for_each(|routed| set.add(routed, 0));
        let answer = TopSet::answers(std::slice::from_ref(&set)).remove(0);
        assert_eq!(answer.rows.len(), 10);
        answer.rows.iter().fold(answer.key_count, |checksum, row| {
            mix(mix(checksum, row.sums.flows), row.distinct.unwrap_or(0))
        })
    })
}

/// Contacts of all records, handed over pane by pane.
fn contacts() -> Stage {
    let batches = generated_batches(CONTACT_COLUMNS.iter().copied().collect());
    Stage::new(RECORDS, move || {
        let panes = panes(&batches);
        panes.iter().fold(0, |checksum, pane| mix(checksum, pane.contacts.len() as u64))
    })
}

fn panes(batches: &[FlowBatch]) -> Vec<PaneContacts> {
    let mut table = ContactTable::new(PANE_SECONDS, SEED, CONTACT_BYTES_DEFAULT);
    batches.iter().for_each(|batch| table.add(batch, 0..batch.rows()));
    table.close_all()
}

/// All detectors over the panes of all records.
fn detect() -> Stage {
    let batches = generated_batches(CONTACT_COLUMNS.iter().copied().collect());
    let mut panes = panes(&batches);
    Stage::new(RECORDS, move || {
        let Detectors { settings, network, trials: _ } = questions::detectors();
        let mut detectors = DetectorSet::new(&settings, network, PANE_SECONDS);
        let mut findings = Vec::new();
        for contacts in panes.drain(..) {
            detectors.on_pane(contacts.pane, vec![contacts], &mut findings);
        }
        detectors.on_end(&mut findings);
        assert!(!findings.is_empty());
        findings.len() as u64
    })
}

/// A whole run on one thread, reading the file included.
fn run(question: Question) -> Stage {
    let input = Input::generate();
    let mut job = Some(input.job(question, 1));
    Stage::new(RECORDS, move || {
        let job = job.take().expect("a stage runs once");
        let report = pipeline::run(job).expect("a temporary file is read");
        input.check(question, &report);
        mix(0, u64::try_from(report.inputs.totals.bytes).unwrap_or(u64::MAX))
    })
}
