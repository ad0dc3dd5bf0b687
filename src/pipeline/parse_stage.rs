//! The parse stage: a chunk in, routed batches and its share of the totals out.
//!
//! Pure but for its buffers, so that any worker may take any chunk. The layout that holds at the start
//! of a chunk comes with it; the sequencer checks afterwards that it was the right one.

use std::sync::Arc;

use crate::aggregate::{RoutedBatch, Router, RowLists, Totals};
use crate::framing::{
    self, BLOCK_BYTES, Chunk, ChunkData, ChunkEvent, InputFault, InputId, InputInfo, LayoutScope,
    Limits, Payload, RecordFault,
};
use crate::record::{FaultKind, FaultSample, Filter, FlowBatch, Layout, ParsedBlock, Parser};

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
    /// Lines of the input that the chunk spans.
    pub(super) line_count: u64,
    pub(super) bytes_read: u64,
    pub(super) bytes_decoded: u64,
    /// Set for lines that continue their input: how to check and carry the layout.
    pub(super) continued: Option<Continued>,
}

/// The layouts around lines that continue their input, and what framing gave, should the lines have
/// to be read again.
pub(super) struct Continued {
    pub(super) layout_before: Arc<Layout>,
    pub(super) layout_after: Arc<Layout>,
    unwrapped: Unwrapped,
}

/// A payload as framing left it, its lines in blocks that batches can share.
struct Unwrapped {
    runs: Vec<LineRun>,
    faults: Vec<RecordFault>,
    control: u64,
    bytes_decoded: u64,
    bytes_read: u64,
    /// Lines of the input, where the payload is lines or documents of one.
    input_lines: u64,
    numbering: Numbering,
}

/// Neighbouring lines that are read with one layout.
struct LineRun {
    scope: LayoutScope,
    first_line: u64,
    blocks: Vec<Arc<Vec<u8>>>,
}

/// How the place of a malformed record is told.
#[derive(Clone)]
enum Numbering {
    /// By its line in the input.
    Lines,
    /// By the stream record that it was in: first line and sequence number of each, in order.
    Records(Vec<(u64, Option<Arc<str>>)>),
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
                let unwrapped = self.unwrap(data);
                ParsedEvent::Data(Box::new(self.parse(unwrapped, layout)))
            }
        };
        ParsedChunk { input, sequence, event }
    }

    /// Parses lines again with the layout that turned out to hold.
    pub(super) fn process_again(&mut self, data: ParsedData, layout: &Arc<Layout>) -> ParsedData {
        match data.continued {
            None => data,
            Some(continued) => self.parse(continued.unwrapped, layout),
        }
    }

    fn unwrap(&self, data: ChunkData) -> Unwrapped {
        let has_lines = matches!(data.payload, Payload::Lines(_) | Payload::LongLine(_));
        let mut framed = framing::deframe(data.payload, &self.settings.limits);
        let numbering = if has_lines {
            Numbering::Lines
        } else {
            let starts = framed.segments.iter();
            Numbering::Records(starts.map(|s| (s.line_index, s.origin.clone())).collect())
        };
        for note in &framed.notes {
            tracing::debug!(note, "left out while unwrapping");
        }
        let whole = framed.lines.len();
        let is_one_block =
            |bytes: &std::ops::Range<usize>| *bytes == (0..whole) && whole <= 2 * BLOCK_BYTES;
        let spans: Vec<_> =
            framed.runs().map(|run| (run.scope.clone(), run.line_index, run.bytes)).collect();
        let lines = std::mem::take(&mut framed.lines);
        let runs = match spans.as_slice() {
            [(scope, first_line, bytes)] if is_one_block(bytes) => {
                let (scope, first_line) = (scope.clone(), *first_line);
                vec![LineRun { scope, first_line, blocks: vec![Arc::new(lines)] }]
            }
            _ => spans
                .into_iter()
                .map(|(scope, first_line, bytes)| LineRun {
                    scope,
                    first_line,
                    blocks: line_blocks(&lines[bytes]),
                })
                .collect(),
        };
        Unwrapped {
            runs,
            faults: framed.faults,
            control: framed.control,
            bytes_decoded: framed.bytes_decoded,
            bytes_read: data.bytes_read,
            input_lines: framed.input_lines,
            numbering,
        }
    }

    /// Parses what was unwrapped; `input_layout` holds at its first line, or at each of its records.
    fn parse(&mut self, unwrapped: Unwrapped, input_layout: &Arc<Layout>) -> ParsedData {
        let mut parsed = ParsedData {
            line_count: unwrapped.input_lines,
            bytes_read: unwrapped.bytes_read,
            bytes_decoded: unwrapped.bytes_decoded,
            ..ParsedData::default()
        };
        let mut layout_after = Arc::clone(input_layout);
        let mut continues = false;
        for run in &unwrapped.runs {
            let layout = match &run.scope {
                LayoutScope::Input => &layout_after,
                LayoutScope::Record => input_layout,
                LayoutScope::Fixed(layout) => layout,
            };
            let after = self.parse_blocks(run, &Arc::clone(layout), &unwrapped, &mut parsed);
            if run.scope == LayoutScope::Input {
                continues = true;
                layout_after = after;
            }
        }
        parsed.totals.control = unwrapped.control;
        for fault in &unwrapped.faults {
            count_fault(&mut parsed.totals, fault.kind);
            let has_line = unwrapped.input_lines > 0;
            parsed.samples.push(LineSample {
                record: fault.origin.clone(),
                line: has_line.then_some(fault.input_line),
                column: 0,
                reason: format!("{}: {}", fault.kind, fault.detail),
                text: fault.excerpt.clone(),
            });
        }
        if continues {
            let layout_before = Arc::clone(input_layout);
            parsed.continued = Some(Continued { layout_before, layout_after, unwrapped });
        }
        parsed
    }

    fn parse_blocks(
        &mut self,
        run: &LineRun,
        layout: &Arc<Layout>,
        unwrapped: &Unwrapped,
        parsed: &mut ParsedData,
    ) -> Arc<Layout> {
        let mut layout = Arc::clone(layout);
        let mut first_line = run.first_line;
        for text in &run.blocks {
            let block = self.parser.parse(text, &layout);
            if let Some(after) = &block.layout_after {
                layout = Arc::clone(after);
            }
            let block_lines = block.line_count;
            self.take_block(block, first_line, &unwrapped.numbering, parsed);
            first_line += block_lines;
        }
        layout
    }

    fn take_block(
        &mut self,
        block: ParsedBlock,
        first_line: u64,
        numbering: &Numbering,
        parsed: &mut ParsedData,
    ) {
        parsed.totals.headers += block.header_count;
        parsed.totals.faults.add_counts(&block.faults);
        for sample in block.faults.samples() {
            let line = first_line + sample.line;
            let (record, line) = match numbering {
                Numbering::Lines => (None, Some(line)),
                Numbering::Records(starts) => {
                    let after = starts.partition_point(|(start, _)| *start <= line);
                    (after.checked_sub(1).and_then(|index| starts[index].1.clone()), None)
                }
            };
            let FaultSample { column, reason, text, .. } = sample.clone();
            parsed.samples.push(LineSample { record, line, column, reason, text });
        }
        for batch in block.batches {
            let kept_rows = self.kept_rows(&batch);
            parsed.totals.add_batch(&batch, kept_rows.as_deref());
            parsed.batches.push(self.settings.router.route(batch, kept_rows, RowLists::default()));
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

/// Cuts lines into blocks that stay in the cache.
fn line_blocks(lines: &[u8]) -> Vec<Arc<Vec<u8>>> {
    let mut blocks = Vec::with_capacity(lines.len() / BLOCK_BYTES + 1);
    let mut rest = lines;
    while !rest.is_empty() {
        let near = BLOCK_BYTES.min(rest.len()) - 1;
        let length = memchr::memchr(b'\n', &rest[near..]).map_or(rest.len(), |at| near + at + 1);
        let (block, after) = rest.split_at(length);
        blocks.push(Arc::new(block.to_vec()));
        rest = after;
    }
    blocks
}
