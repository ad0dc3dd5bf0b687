//! The parse stage: a chunk in, routed batches and its share of the totals out.
//!
//! Pure but for its buffers, so that any worker may take any chunk. The layout that holds at the start
//! of a chunk comes with it; the sequencer checks afterwards that it was the right one.

use std::sync::Arc;

use crate::aggregate::{RoutedBatch, Router, Totals};
use crate::framing::{self, Chunk, ChunkEvent, Framed, InputFault, InputId, InputInfo, Limits, Payload};
use crate::record::{FaultKind, FaultSample, Filter, FlowBatch, Layout, ParsedBlock, Parser};

/// Lines are parsed in blocks of about this size, so that a batch stays in the cache.
const BLOCK_BYTES: usize = framing::BLOCK_BYTES;

/// What a parse worker needs; cloned for each of them.
#[derive(Clone)]
pub(super) struct ParseSettings {
    pub(super) limits: Limits,
    pub(super) filter: Option<Arc<Filter>>,
    pub(super) router: Router,
}

/// A parse worker without its thread.
pub(super) struct ParseStage {
    settings: ParseSettings,
    parser: Parser,
}

/// A parsed chunk on its way to the sequencer.
pub(super) struct ParsedChunk {
    pub(super) input: InputId,
    pub(super) sequence: u64,
    pub(super) event: ParsedEvent,
}

/// What became of a chunk's event.
pub(super) enum ParsedEvent {
    Open(InputInfo),
    Data(Box<ParsedData>),
    Idle,
    Close(Option<InputFault>),
}

/// The records of a chunk and all that is counted about it.
#[derive(Default)]
pub(super) struct ParsedData {
    pub(super) batches: Vec<RoutedBatch>,
    /// All but `late`, which needs the order of chunks.
    pub(super) totals: Totals,
    pub(super) samples: Vec<LineSample>,
    pub(super) line_count: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_decoded: u64,
    /// Set for lines that continue their input: how to check and carry the layout.
    pub(super) continued: Option<Continued>,
}

/// The layouts around lines that continue their input, and the lines, should they have to be read
/// again.
pub(super) struct Continued {
    pub(super) layout_before: Arc<Layout>,
    pub(super) layout_after: Arc<Layout>,
    pub(super) blocks: Vec<Arc<Vec<u8>>>,
}

/// A sample of something that was not taken.
pub(super) struct LineSample {
    /// The sequence number of the stream record it was in.
    pub(super) record: Option<Arc<str>>,
    /// Line within the chunk, from 0, where lines are what the input has.
    pub(super) line: Option<u64>,
    pub(super) column: u16,
    pub(super) reason: String,
    pub(super) text: Vec<u8>,
}

impl ParseStage {
    pub(super) const fn new(settings: ParseSettings, parser: Parser) -> Self {
        Self { settings, parser }
    }

    /// Parses a chunk; `layout` holds at its first line.
    pub(super) fn process(&mut self, chunk: Chunk, layout: &Arc<Layout>) -> ParsedChunk {
        let Chunk { input, sequence, event } = chunk;
        let event = match event {
            ChunkEvent::Open(info) => ParsedEvent::Open(info),
            ChunkEvent::Idle => ParsedEvent::Idle,
            ChunkEvent::Close(fault) => ParsedEvent::Close(fault),
            ChunkEvent::Data(data) => {
                let continues = matches!(data.payload, Payload::Lines(_));
                let framed = framing::deframe(data.payload, &self.settings.limits);
                let mut parsed = self.parse_framed(framed, layout, continues);
                parsed.bytes_read = data.bytes_read;
                ParsedEvent::Data(Box::new(parsed))
            }
        };
        ParsedChunk { input, sequence, event }
    }

    /// Parses lines again with the layout that turned out to hold.
    pub(super) fn process_again(&mut self, data: ParsedData, layout: &Arc<Layout>) -> ParsedData {
        let Some(continued) = data.continued else { return data };
        let mut again = ParsedData {
            bytes_read: data.bytes_read,
            bytes_decoded: data.bytes_decoded,
            ..ParsedData::default()
        };
        again.totals.control = data.totals.control;
        let layout_after = self.parse_blocks(&continued.blocks, layout, &mut again);
        let layout_before = Arc::clone(layout);
        again.continued = Some(Continued { layout_before, layout_after, ..continued });
        again
    }

    fn parse_framed(&mut self, framed: Framed, layout: &Arc<Layout>, continues: bool) -> ParsedData {
        let mut parsed =
            ParsedData { bytes_decoded: framed.bytes_decoded, ..ParsedData::default() };
        let layout = framed.layout.as_ref().unwrap_or(layout);
        let marks = framed.marks;
        let blocks = line_blocks(framed.lines);
        let layout_after = self.parse_blocks(&blocks, layout, &mut parsed);
        if continues {
            let layout_before = Arc::clone(layout);
            parsed.continued = Some(Continued { layout_before, layout_after, blocks });
        } else {
            if parsed.totals.headers > 0 && marks.len() > 1 {
                // A header inside a record binds that record only, so each is read on its own.
                let bytes_decoded = parsed.bytes_decoded;
                parsed = ParsedData { bytes_decoded, ..ParsedData::default() };
                for record in records_of(&blocks, &marks) {
                    self.parse_blocks(&[Arc::new(record)], layout, &mut parsed);
                }
            }
            for sample in &mut parsed.samples {
                let line = sample.line.take().unwrap_or(0);
                let after = marks.partition_point(|(start, _)| u64::from(*start) <= line);
                sample.record = after.checked_sub(1).map(|index| Arc::clone(&marks[index].1));
            }
        }
        parsed.totals.control += framed.control;
        for fault in framed.faults {
            let sample = LineSample {
                record: fault.origin,
                line: None,
                column: 0,
                reason: fault.detail,
                text: fault.excerpt,
            };
            count_fault(&mut parsed.totals, fault.kind);
            parsed.samples.push(sample);
        }
        parsed
    }

    fn parse_blocks(
        &mut self,
        blocks: &[Arc<Vec<u8>>],
        layout: &Arc<Layout>,
        parsed: &mut ParsedData,
    ) -> Arc<Layout> {
        let mut layout = Arc::clone(layout);
        for text in blocks {
            let block = self.parser.parse(text, &layout);
            if let Some(after) = &block.layout_after {
                layout = Arc::clone(after);
            }
            self.take_block(block, parsed);
        }
        layout
    }

    fn take_block(&self, block: ParsedBlock, parsed: &mut ParsedData) {
        let first_line = parsed.line_count;
        parsed.line_count += block.line_count;
        parsed.totals.headers += block.header_count;
        parsed.totals.faults.add_counts(&block.faults);
        parsed.samples.extend(block.faults.samples().iter().map(|sample| {
            let FaultSample { line, column, reason, text, .. } = sample.clone();
            LineSample { record: None, line: Some(first_line + line), column, reason, text }
        }));
        for batch in block.batches {
            let kept_rows = self.kept_rows(&batch);
            match &kept_rows {
                None => parsed.totals.add_batch(&batch, |_| true),
                Some(rows) => {
                    let is_kept = |row: usize| {
                        rows.binary_search_by(|kept| (*kept as usize).cmp(&row)).is_ok()
                    };
                    parsed.totals.add_batch(&batch, is_kept);
                }
            }
            parsed.batches.push(self.settings.router.route(batch, kept_rows));
        }
    }

    /// The rows that the filter keeps; `None` without a filter.
    fn kept_rows(&self, batch: &FlowBatch) -> Option<Vec<u32>> {
        self.settings.filter.as_ref().map(|filter| filter.rows(batch))
    }
}

fn count_fault(totals: &mut Totals, kind: FaultKind) {
    totals.faults.record(kind, || FaultSample {
        kind,
        line: 0,
        column: 0,
        reason: String::new(),
        text: Vec::new(),
    });
}

/// Cuts lines into blocks that stay in the cache; one block is handed on as it is.
fn line_blocks(lines: Vec<u8>) -> Vec<Arc<Vec<u8>>> {
    if lines.len() <= 2 * BLOCK_BYTES {
        return if lines.is_empty() { Vec::new() } else { vec![Arc::new(lines)] };
    }
    let mut blocks = Vec::with_capacity(lines.len() / BLOCK_BYTES + 1);
    let mut rest = &lines[..];
    while !rest.is_empty() {
        let near = BLOCK_BYTES.min(rest.len()) - 1;
        let length = memchr::memchr(b'\n', &rest[near..]).map_or(rest.len(), |at| near + at + 1);
        let (block, after) = rest.split_at(length);
        blocks.push(Arc::new(block.to_vec()));
        rest = after;
    }
    blocks
}

/// The lines of each stream record, cut at the marks.
fn records_of(blocks: &[Arc<Vec<u8>>], marks: &[(u32, Arc<str>)]) -> Vec<Vec<u8>> {
    let lines = blocks.iter().flat_map(|block| block.split_inclusive(|byte| *byte == b'\n'));
    let mut records: Vec<Vec<u8>> = Vec::with_capacity(marks.len());
    let mut marks = marks.iter().peekable();
    for (number, line) in (0_u32..).zip(lines) {
        while marks.next_if(|(start, _)| *start <= number).is_some() {
            records.push(Vec::new());
        }
        match records.last_mut() {
            Some(record) => record.extend_from_slice(line),
            None => records.push(line.to_vec()),
        }
    }
    records.retain(|record| !record.is_empty());
    records
}
