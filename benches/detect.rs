//! How fast records become contacts, and contacts findings.

mod lines;

use divan::Bencher;
use divan::counter::ItemsCount;
use flowgauge::aggregate::{CONTACT_BYTES_DEFAULT, CONTACT_COLUMNS, ContactTable, PaneContacts};
use flowgauge::detect::{DetectSettings, DetectorSet, Network};
use flowgauge::finding::Finding;
use flowgauge::record::{ColumnSet, FlowBatch, Layout, LogStatus, Parser, TextSlice};
use flowgauge::simd::Isa;

/// About 640,000 records, nearly each of them a contact of its own.
const TEXT_BYTES: usize = 70 << 20;

/// What a source reads at a time.
const BLOCK_BYTES: usize = 1 << 20;

/// The lines are of one day from here on; with these panes that is one pane.
const PANE_SECONDS: i64 = 1_767_225_600;

const SEED: u64 = 7;

fn main() {
    divan::main();
}

/// Records of a pane to contacts, in memory that was not used before.
#[divan::bench(sample_count = 10)]
fn records_to_contacts(bencher: Bencher) {
    let batches = batches();
    let rows = batches.iter().map(with_traffic).sum::<usize>();
    bencher
        .counter(ItemsCount::new(rows))
        .with_inputs(|| ContactTable::new(PANE_SECONDS, SEED, CONTACT_BYTES_DEFAULT))
        .bench_local_values(|table| pane_of(table, &batches));
    let pane = pane_of(ContactTable::new(PANE_SECONDS, SEED, CONTACT_BYTES_DEFAULT), &batches);
    let counted: u32 = pane
        .contacts
        .iter()
        .map(|(_, _, contact)| contact.forward().0.flows + contact.back().0.flows)
        .sum();
    assert_eq!(counted as usize, rows, "every record is in a contact");
}

/// Contacts of a pane to findings; the counter is contacts.
#[divan::bench(sample_count = 10)]
fn contacts_to_findings(bencher: Bencher) {
    let batches = batches();
    let pane = || pane_of(ContactTable::new(PANE_SECONDS, SEED, CONTACT_BYTES_DEFAULT), &batches);
    bencher
        .counter(ItemsCount::new(pane().contacts.len()))
        .with_inputs(|| vec![pane()])
        .bench_local_values(|panes| findings(panes).len());
    let split: Vec<PaneContacts> = batches
        .iter()
        .take(2)
        .map(|batch| {
            pane_of(
                ContactTable::new(PANE_SECONDS, SEED, CONTACT_BYTES_DEFAULT),
                std::slice::from_ref(batch),
            )
        })
        .collect();
    let whole =
        pane_of(ContactTable::new(PANE_SECONDS, SEED, CONTACT_BYTES_DEFAULT), &batches[..2]);
    assert_eq!(findings(split).len(), findings(vec![whole]).len(), "shards do not show");
}

fn batches() -> Vec<FlowBatch> {
    let columns: ColumnSet = CONTACT_COLUMNS.iter().copied().collect();
    let mut parser = Parser::new(Isa::detect(), columns);
    let text = lines::version_2(TEXT_BYTES);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let line_bytes = text.len() / lines.len();
    let blocks =
        lines.chunks(BLOCK_BYTES / line_bytes).map(|block| TextSlice::from(block.concat()));
    blocks
        .flat_map(|block| parser.parse(block.text(), block.range(), &Layout::default_v2()).batches)
        .collect()
}

fn with_traffic(batch: &FlowBatch) -> usize {
    let statuses = batch.log_statuses().expect("a column of contacts");
    (0..batch.rows()).filter(|row| statuses.get(*row) == Some(LogStatus::Ok)).count()
}

fn pane_of(mut table: ContactTable, batches: &[FlowBatch]) -> PaneContacts {
    for batch in batches {
        table.add(batch, 0..batch.rows());
    }
    table.close_all().pop().expect("there is one pane")
}

fn findings(panes: Vec<PaneContacts>) -> Vec<Finding> {
    let mut detectors =
        DetectorSet::new(&DetectSettings::default(), Network::default(), PANE_SECONDS);
    let mut findings = Vec::new();
    detectors.on_pane(panes[0].pane, panes, &mut findings);
    detectors.on_end(&mut findings);
    findings
}
