//! From lines of text to a [`FlowBatch`]: split by the byte kernels, then every field checked by its
//! kind.
//!
//! Comes from framing as blocks of whole lines, goes to aggregation as columns. A line is judged by all
//! its fields, whatever columns the job keeps. Most lines have exactly one blank between fields and
//! take the straight path; whatever does not fit (runs of blanks, CR, padding, headers, faults) goes
//! to the careful path, which decides.

use std::ops::Range;
use std::sync::Arc;

use super::batch::{Column, ColumnSet, FlowBatch, Span, Values};
use super::fault::{FaultKind, FaultSample, Faults, SAMPLE_BYTES_MAX};
use super::field::FieldKind;
use super::layout::Layout;
use super::text::Text;
use super::value::{self, ValueFault};
use crate::simd::{self, Isa, LINE_END};

/// What a block of lines became.
#[derive(Debug, Default)]
pub struct ParsedBlock {
    /// The records, one batch per run of lines with one layout; in line order.
    pub batches: Vec<FlowBatch>,
    /// Header lines.
    pub header_count: u64,
    /// Lines of any kind, blank ones too; what line numbers are counted in.
    pub line_count: u64,
    /// Lines that were not taken.
    pub faults: Faults,
    /// The layout after the last line, if a header changed it.
    pub layout_after: Option<Arc<Layout>>,
}

/// A parser with its buffers; one per parse thread.
#[derive(Debug)]
pub struct Parser {
    isa: Isa,
    wanted: ColumnSet,
    separators: Vec<u32>,
}

/// What the careful path made of a line.
enum Careful {
    Record,
    Blank,
    Header(Option<Layout>),
    Fault(FaultKind, u16, String),
}

impl Parser {
    /// A parser that keeps the columns of `wanted`.
    #[must_use]
    pub const fn new(isa: Isa, wanted: ColumnSet) -> Self {
        Self { isa, wanted, separators: Vec::new() }
    }

    /// Parses the whole lines in `text[lines]`; `layout` holds for the first of them. The batches share
    /// the text.
    ///
    /// # Panics
    /// If the range is not empty and does not end in LF, or if the text is longer than 2 GiB.
    pub fn parse(
        &mut self,
        text: &Arc<Text>,
        lines: Range<usize>,
        layout: &Arc<Layout>,
    ) -> ParsedBlock {
        let mut block = ParsedBlock::default();
        if lines.is_empty() {
            return block;
        }
        assert!(text[lines.end - 1] == b'\n', "framing ends every line with LF");
        assert!(text.len() < LINE_END as usize, "framing keeps texts below 2 GiB");
        self.separators.clear();
        simd::separators(self.isa, &text[lines.clone()], &mut self.separators);
        let base = u32::try_from(lines.start).expect("within a text below 2 GiB");
        self.separators.iter_mut().for_each(|separator| *separator += base);
        let mut cursor = Cursor { next: 0, line_start: lines.start };
        let mut layout = Arc::clone(layout);
        loop {
            let (batch, header) = self.fill(text, &layout, &mut cursor, &mut block);
            if batch.rows > 0 {
                block.batches.push(batch);
            }
            let Some(header) = header else { break };
            layout = Arc::new(header);
            block.layout_after = Some(Arc::clone(&layout));
        }
        block
    }

    /// Reads lines until the text ends or a header declares another layout, which is returned.
    fn fill(
        &self,
        text: &Arc<Text>,
        layout: &Arc<Layout>,
        cursor: &mut Cursor,
        block: &mut ParsedBlock,
    ) -> (FlowBatch, Option<Layout>) {
        let separators = &self.separators[..];
        let kinds: Vec<FieldKind> = layout.slots().iter().map(super::Slot::kind).collect();
        let field_count = kinds.len();
        // A header could pass for a record only where nothing but text is asked for.
        let all_text = kinds.iter().all(|kind| *kind == FieldKind::Text);
        let mut batch = FlowBatch::new(Arc::clone(layout), &self.wanted);
        // A record has at least one separator per field, so this many rows are enough.
        batch.reset(Arc::clone(text), (separators.len() - cursor.next) / field_count);
        while cursor.next < separators.len() {
            let here = &separators[cursor.next..];
            let straight = is_one_line(here, field_count)
                && !(all_text && text[cursor.line_start].is_ascii_lowercase())
                && fill_row(&mut batch, &kinds, here, cursor.line_start, text);
            let line = block.line_count;
            block.line_count += 1;
            if straight {
                batch.rows += 1;
                cursor.line_start = (here[field_count - 1] & !LINE_END) as usize + 1;
                cursor.next += field_count;
                continue;
            }
            let used = 1 + here
                .iter()
                .position(|separator| separator & LINE_END != 0)
                .expect("the text ends in LF, which is in the list");
            let line_end = (here[used - 1] & !LINE_END) as usize;
            let bounds = (cursor.line_start, line_end);
            cursor.line_start = line_end + 1;
            cursor.next += used;
            match fill_row_carefully(&mut batch, &kinds, bounds, text) {
                Careful::Record => batch.rows += 1,
                Careful::Blank => {}
                Careful::Header(declared) => {
                    block.header_count += 1;
                    if let Some(declared) = declared {
                        return (batch, Some(declared));
                    }
                }
                Careful::Fault(kind, column, reason) => block.faults.record(kind, || {
                    let text = sample_text(&text[bounds.0..bounds.1]);
                    FaultSample { kind, line, column, reason, text }
                }),
            }
        }
        (batch, None)
    }
}

/// Where the parser is in a block: the next separator and the first byte of the line.
struct Cursor {
    next: usize,
    line_start: usize,
}

fn sample_text(line: &[u8]) -> Vec<u8> {
    line[..line.len().min(SAMPLE_BYTES_MAX)].to_vec()
}

/// Whether the next line has exactly `field_count` fields with one separator after each.
fn is_one_line(separators: &[u32], field_count: usize) -> bool {
    if separators.len() < field_count {
        return false;
    }
    let (inner, last) = (&separators[..field_count - 1], separators[field_count - 1]);
    inner.iter().fold(0, |seen, separator| seen | separator) & LINE_END == 0 && last & LINE_END != 0
}

/// Writes a line of the usual form into the batch's next row; false leaves the row as it was.
fn fill_row(
    batch: &mut FlowBatch,
    kinds: &[FieldKind],
    separators: &[u32],
    line_start: usize,
    text: &[u8],
) -> bool {
    let line_end = (separators[kinds.len() - 1] & !LINE_END) as usize;
    if line_end == line_start || text[line_end - 1] <= b' ' {
        return false;
    }
    let row = batch.rows;
    let mut start = line_start;
    for (position, kind) in kinds.iter().enumerate() {
        let end = (separators[position] & !LINE_END) as usize;
        let span = Span::new(start, end);
        if store(*kind, batch.columns[position].as_mut(), row, &text[start..end], span).is_err() {
            undo(batch, position, row);
            return false;
        }
        start = end + 1;
    }
    true
}

/// Takes back what the first `columns` columns were told about `row`.
fn undo(batch: &mut FlowBatch, columns: usize, row: usize) {
    batch.columns[..columns].iter_mut().flatten().for_each(|column| column.clear_absent(row));
}

fn fill_row_carefully(
    batch: &mut FlowBatch,
    kinds: &[FieldKind],
    bounds: (usize, usize),
    text: &[u8],
) -> Careful {
    let (mut start, mut end) = bounds;
    // CR of files from Windows, NUL padding of preallocated files, stray blanks.
    while start < end && matches!(text[end - 1], b' ' | b'\t' | b'\r' | 0) {
        end -= 1;
    }
    while start < end && matches!(text[start], b' ' | b'\t') {
        start += 1;
    }
    if start == end {
        return Careful::Blank;
    }
    let line = &text[start..end];
    if let Some(layout) = Layout::from_header(line) {
        let same = layout == *batch.layout;
        return Careful::Header((!same).then_some(layout));
    }
    let token_count = line.split(|byte| *byte == b' ').filter(|token| !token.is_empty()).count();
    if token_count != kinds.len() {
        let reason = format!("{token_count} fields where the layout has {}", kinds.len());
        return Careful::Fault(FaultKind::FieldCount, 0, reason);
    }
    let row = batch.rows;
    let mut token_start = start;
    for (position, kind) in kinds.iter().enumerate() {
        while text[token_start] == b' ' {
            token_start += 1;
        }
        let length = memchr::memchr(b' ', &text[token_start..end]).unwrap_or(end - token_start);
        let token_end = token_start + length;
        let span = Span::new(token_start, token_end);
        let token = &text[token_start..token_end];
        if let Err(fault) = store(*kind, batch.columns[position].as_mut(), row, token, span) {
            undo(batch, position, row);
            let name = batch.layout.slots()[position].name();
            let kind = FaultKind::from(fault);
            let column = u16::try_from(position + 1).expect("layouts are far shorter");
            return Careful::Fault(kind, column, format!("{name}: {kind}"));
        }
        token_start = token_end;
    }
    Careful::Record
}

impl From<ValueFault> for FaultKind {
    fn from(fault: ValueFault) -> Self {
        match fault {
            ValueFault::Number => Self::Number,
            ValueFault::Range => Self::Range,
            ValueFault::Address => Self::Address,
            ValueFault::Action => Self::Action,
            ValueFault::LogStatus => Self::LogStatus,
        }
    }
}

/// Checks a field's text by its kind and, if the job keeps the column, stores the value.
#[inline]
fn store(
    kind: FieldKind,
    column: Option<&mut Column>,
    row: usize,
    token: &[u8],
    span: Span,
) -> Result<(), ValueFault> {
    macro_rules! keep {
        ($variant:ident, $value:expr) => {
            if let Some(Column { values: Values::$variant(values), .. }) = column {
                values[row] = $value;
            }
        };
    }
    if token == b"-" {
        match column {
            Some(Column { values: Values::Text(spans), .. }) => spans[row] = span,
            Some(column) => column.set_absent(row),
            None => {}
        }
        return Ok(());
    }
    match kind {
        FieldKind::Addr => {
            let addr = value::addr(token)?;
            keep!(Addr, addr);
        }
        FieldKind::Port => {
            let port = value::number_u16(token)?;
            keep!(U16, port);
        }
        FieldKind::Protocol => {
            let protocol = value::number_u8(token)?;
            keep!(U8, protocol);
        }
        FieldKind::Counter => {
            let count = value::number_u64(token)?;
            keep!(U64, count);
        }
        FieldKind::Seconds => {
            let seconds = value::number_i63(token)?;
            keep!(I64, seconds);
        }
        FieldKind::Int32 => {
            let number = value::number_i31(token)?;
            keep!(U32, number);
        }
        FieldKind::Action => {
            let action = value::action(token)?;
            keep!(Action, action);
        }
        FieldKind::LogStatus => {
            let status = value::log_status(token)?;
            keep!(LogStatus, status);
        }
        FieldKind::Text if token.is_empty() => return Err(ValueFault::Number),
        FieldKind::Text => keep!(Text, span),
    }
    Ok(())
}
