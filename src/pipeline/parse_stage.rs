//! The parse stage: a chunk in, routed batches and its share of the totals out.
//!
//! Pure but for its buffers, so that any worker may take any chunk. The layout that holds at the start
//! of a chunk comes with it; the sequencer checks afterwards that it was the right one.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use rayon::ThreadPool;

use crate::aggregate::{RoutedBatch, Router, RowLists, Totals};
use crate::clock::Clock;
use crate::framing::{
    BLOCK_BYTES, Chunk, ChunkEvent, Deframer, Framed, InputFault, InputId, InputInfo, LayoutScope,
    Limits, Position, RecordFault, Run,
};
use crate::metrics::{Profile, Stage, Stopwatch};
use crate::record::{
    FaultKind, FaultSample, Filter, FlowBatch, Layout, ParsedBlock, Parser, TextSlice,
};
use crate::simd::Isa;

/// What a parse worker needs; cloned for each of them.
#[derive(Clone)]
pub(super) struct ParseSettings {
    pub(super) isa: Isa,
    pub(super) limits: Limits,
    pub(super) filter: Option<Arc<Filter>>,
    pub(super) router: Router,
    /// Batches that were read by all, whose memory serves again.
    pub(super) used_batches: Receiver<UsedBatch>,
    pub(super) clock: Arc<dyn Clock>,
    /// Threads for the members of one compressed file, if the run has more than one.
    pub(super) pool: Option<Arc<ThreadPool>>,
}

/// What is left of a routed batch.
pub(super) type UsedBatch = (FlowBatch, RowLists);

/// A parse worker without its thread.
pub(super) struct ParseStage {
    deframer: Deframer,
    lines: LineStage,
}

/// The part of the stage that takes unwrapped lines.
struct LineStage {
    filter: Option<Arc<Filter>>,
    router: Router,
    parser: Parser,
    used_batches: Receiver<UsedBatch>,
    spare_lists: Vec<RowLists>,
    block: ParsedBlock,
    watch: Stopwatch,
}

/// A parsed chunk, or a part of a large one, on its way to the sequencer.
pub(super) struct ParsedChunk {
    pub(super) input: InputId,
    pub(super) sequence: u64,
    /// Number of the part within the chunk.
    pub(super) part: u32,
    /// Whether it is the chunk's last part.
    pub(super) is_last: bool,
    pub(super) event: ParsedEvent,
}

/// Takes the parts of a chunk as they are parsed.
pub(super) type EmitParsed<'a> = dyn FnMut(ParsedChunk) -> ControlFlow<()> + 'a;

/// What became of a chunk's event.
pub(super) enum ParsedEvent {
    Open(InputInfo),
    Data(Box<ParsedData>),
    Idle,
    Stop,
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
    /// From where the input can be read on after them.
    pub(super) position: Option<Position>,
    /// What ended the input early.
    pub(super) input_fault: Option<InputFault>,
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

/// A part of a payload as framing left it.
struct Unwrapped {
    runs: Vec<LineRun>,
    faults: Vec<RecordFault>,
    control: u64,
    bytes_decoded: u64,
    bytes_read: u64,
    lines: TextSlice,
    lines_are_input: bool,
    /// Lines of the input that are not in `lines`.
    input_lines: u64,
    input_fault: Option<InputFault>,
    numbering: Numbering,
}

/// Neighbouring lines that are read with one layout.
struct LineRun {
    scope: LayoutScope,
    first_line: u64,
    /// Where in the lines.
    bytes: Range<usize>,
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
    /// The first bytes.
    pub(super) text: Bytes,
    /// How many there were.
    pub(super) length_bytes: u64,
}

impl ParseStage {
    pub(super) fn new(settings: ParseSettings, parser: Parser) -> Self {
        let ParseSettings { isa, limits, filter, router, used_batches, clock, pool } = settings;
        let lines = LineStage {
            filter,
            router,
            parser,
            used_batches,
            spare_lists: Vec::new(),
            block: ParsedBlock::default(),
            watch: Stopwatch::start(clock),
        };
        let deframer = match &pool {
            Some(pool) => Deframer::with_threads(isa, &limits, pool),
            None => Deframer::new(isa, &limits),
        };
        Self { deframer, lines }
    }

    /// Parses a chunk; `layout` holds at its first line.
    pub(super) fn process(
        &mut self,
        chunk: Chunk,
        layout: &Arc<Layout>,
        emit: &mut EmitParsed<'_>,
    ) -> ControlFlow<()> {
        let Chunk { input, sequence, event } = chunk;
        let single = |event| ParsedChunk { input, sequence, part: 0, is_last: true, event };
        let data = match event {
            ChunkEvent::Open(info) => return emit(single(ParsedEvent::Open(info))),
            ChunkEvent::Idle => return emit(single(ParsedEvent::Idle)),
            ChunkEvent::Stop => return emit(single(ParsedEvent::Stop)),
            ChunkEvent::Close(fault) => return emit(single(ParsedEvent::Close(fault))),
            ChunkEvent::Data(data) => data,
        };
        let Self { deframer, lines } = self;
        let mut bytes_read = data.bytes_read;
        let mut layout = Arc::clone(layout);
        let mut part = 0;
        lines.watch.skip();
        deframer.deframe_until(data.payload, data.position.as_ref(), &mut |mut framed| {
            let is_last = !framed.more_follows;
            let position = framed.position.take();
            let mut unwrapped = Unwrapped::of_framed(framed);
            unwrapped.bytes_read += std::mem::take(&mut bytes_read);
            lines.watch.lap(Stage::Unwrap, unwrapped.bytes_read);
            let mut parsed = lines.parse(unwrapped, &layout);
            parsed.position = position;
            if let Some(continued) = &parsed.continued {
                layout = Arc::clone(&continued.layout_after);
            }
            let event = ParsedEvent::Data(Box::new(parsed));
            let chunk = ParsedChunk { input, sequence, part, is_last, event };
            part += 1;
            let goes_on = emit(chunk);
            lines.watch.skip();
            goes_on
        })
    }

    /// Parses lines again with the layout that turned out to hold.
    pub(super) fn process_again(&mut self, data: ParsedData, layout: &Arc<Layout>) -> ParsedData {
        match data.continued {
            None => data,
            Some(mut continued) => {
                continued.unwrapped.input_fault = data.input_fault;
                self.lines.watch.skip();
                let parsed = self.lines.parse(continued.unwrapped, layout);
                ParsedData { position: data.position, ..parsed }
            }
        }
    }

    /// Where the time went since this was last asked.
    pub(super) fn take_profile(&mut self) -> Profile {
        self.lines.watch.take_profile()
    }
}

impl Unwrapped {
    fn of_framed(framed: Framed) -> Self {
        let numbering = if framed.lines_are_input {
            Numbering::Lines
        } else {
            let starts = framed.segments.iter();
            Numbering::Records(starts.map(|s| (s.line_index, s.origin.clone())).collect())
        };
        for note in &framed.notes {
            tracing::debug!(note, "left out while unwrapping");
        }
        let run = |run: Run<'_>| LineRun {
            scope: run.scope.clone(),
            first_line: run.line_index,
            bytes: run.bytes,
        };
        Self {
            runs: framed.runs().map(run).collect(),
            faults: framed.faults,
            control: framed.control,
            bytes_decoded: framed.bytes_decoded,
            bytes_read: framed.bytes_read,
            lines: framed.lines,
            lines_are_input: framed.lines_are_input,
            input_lines: framed.input_lines,
            input_fault: framed.input_fault,
            numbering,
        }
    }
}

impl LineStage {
    /// Parses what was unwrapped; `input_layout` holds at its first line, or at each of its records.
    fn parse(&mut self, mut unwrapped: Unwrapped, input_layout: &Arc<Layout>) -> ParsedData {
        let mut parsed = ParsedData {
            line_count: unwrapped.input_lines,
            bytes_read: unwrapped.bytes_read,
            bytes_decoded: unwrapped.bytes_decoded,
            input_fault: unwrapped.input_fault.take(),
            ..ParsedData::default()
        };
        for (batch, lists) in self.used_batches.try_iter() {
            self.parser.recycle(batch);
            self.spare_lists.push(lists);
        }
        let mut layout_after = Arc::clone(input_layout);
        let mut continues = false;
        for run in &unwrapped.runs {
            let layout = match &run.scope {
                LayoutScope::Input => Arc::clone(&layout_after),
                LayoutScope::Record => Arc::clone(input_layout),
                LayoutScope::Fixed(layout) => Arc::clone(layout),
            };
            let after = self.parse_run(run, layout, &unwrapped, &mut parsed);
            if run.scope == LayoutScope::Input {
                continues = true;
                layout_after = after;
            }
        }
        parsed.totals.control = unwrapped.control;
        let has_line = unwrapped.lines_are_input || unwrapped.input_lines > 0;
        for fault in &unwrapped.faults {
            count_fault(&mut parsed.totals, fault.kind);
            parsed.samples.push(LineSample {
                record: fault.origin.clone(),
                line: has_line.then_some(fault.input_line),
                column: 0,
                reason: format!("{}: {}", fault.kind, fault.detail),
                text: fault.excerpt.clone(),
                length_bytes: fault.length_bytes,
            });
        }
        if continues {
            let layout_before = Arc::clone(input_layout);
            parsed.continued = Some(Continued { layout_before, layout_after, unwrapped });
        }
        parsed
    }

    /// Parses a run in blocks, and gives the layout after it.
    fn parse_run(
        &mut self,
        run: &LineRun,
        mut layout: Arc<Layout>,
        unwrapped: &Unwrapped,
        parsed: &mut ParsedData,
    ) -> Arc<Layout> {
        let lines = &unwrapped.lines;
        let base = lines.range().start;
        let mut first_line = run.first_line;
        for block in line_blocks(lines, run.bytes.clone()) {
            let range = base + block.start..base + block.end;
            self.parser.parse_into(lines.text(), range, &layout, &mut self.block);
            self.watch.lap(Stage::Parse, block.len() as u64);
            if let Some(after) = self.block.layout_after.take() {
                layout = after;
            }
            let block_lines = self.block.line_count;
            if unwrapped.lines_are_input {
                parsed.line_count += block_lines;
            }
            self.take_block(first_line, &unwrapped.numbering, parsed);
            self.watch.lap(Stage::Route, 0);
            first_line += block_lines;
        }
        layout
    }

    /// Adds the parsed block to `parsed`, and leaves it empty.
    fn take_block(&mut self, first_line: u64, numbering: &Numbering, parsed: &mut ParsedData) {
        let block = &mut self.block;
        parsed.totals.headers += std::mem::take(&mut block.header_count);
        block.line_count = 0;
        let faults = std::mem::take(&mut block.faults);
        parsed.totals.faults.add_counts(&faults);
        for sample in faults.samples() {
            let line = first_line + sample.line;
            let (record, line) = match numbering {
                Numbering::Lines => (None, Some(line)),
                Numbering::Records(starts) => {
                    let after = starts.partition_point(|(start, _)| *start <= line);
                    (after.checked_sub(1).and_then(|index| starts[index].1.clone()), None)
                }
            };
            let FaultSample { column, reason, text, length_bytes, .. } = sample.clone();
            let text = Bytes::from(text);
            parsed.samples.push(LineSample { record, line, column, reason, text, length_bytes });
        }
        for batch in block.batches.drain(..) {
            let kept_rows = self.filter.as_ref().map(|filter| filter.rows(&batch));
            parsed.totals.add_batch(&batch, kept_rows.as_deref());
            let lists = self.spare_lists.pop().unwrap_or_default();
            parsed.batches.push(self.router.route(batch, kept_rows, lists));
        }
    }
}

fn count_fault(totals: &mut Totals, kind: FaultKind) {
    totals.faults.record(kind, || FaultSample {
        kind,
        line: 0,
        column: 0,
        reason: String::new(),
        text: Vec::new(),
        length_bytes: 0,
    });
}

/// The lines in `bytes` in blocks that stay in the cache.
fn line_blocks(lines: &[u8], bytes: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut start = bytes.start;
    std::iter::from_fn(move || {
        if start == bytes.end {
            return None;
        }
        // A rest that is little longer than a block is not worth a cut.
        let end = if bytes.end - start <= 2 * BLOCK_BYTES {
            bytes.end
        } else {
            let near = start + BLOCK_BYTES - 1;
            near + 1 + memchr::memchr(b'\n', &lines[near..bytes.end]).expect("lines end in LF")
        };
        Some(std::mem::replace(&mut start, end)..end)
    })
}
