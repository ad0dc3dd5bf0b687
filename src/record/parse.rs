//! From lines of text to a [`FlowBatch`]: split by the byte kernels, then every field checked by its
//! kind.
//!
//! ```text
//! Splitter ─► Rows, up to 64 lines ─► rows: each field down the lines, by kernel   ─► FlowBatch
//!         └─► any other line ───────► line: runs of blanks, CR, headers, faults ─┘
//! ```
//!
//! Comes from framing as whole lines, goes to aggregation as columns. A line is judged by all its fields,
//! whatever columns the job keeps. Lines that do not have exactly one blank between fields, or a field
//! that is not of its kind, are looked at one by one; the result of both ways is the same where both
//! can go.
//!
//! Sketch: 117 bytes of version 2 have 8 numbers, 2 addresses and 2 words. At 6, 16 and 3 instructions
//! each, with 40 for the separators, that is about 130 a line with AVX-512 and twice as many with AVX2, before
//! loads of positions and what is unusual: `benches/instructions.tsv` counts 606 with AVX2.

mod line;
mod rows;

use std::ops::Range;
use std::sync::Arc;

use super::batch::{BATCH_ROWS_MAX, ColumnSet, FlowBatch};
use super::fault::{FaultSample, Faults, SAMPLE_BYTES_MAX};
use super::field::FieldKind;
use super::layout::Layout;
use super::text::Text;
use crate::simd::{Isa, ROWS_MAX, Splitter};
use line::Line;

/// From so many faulty lines among [`ROWS_MAX`] on, as many are looked at one by one: kernels would judge the
/// same lines again and again.
const FAULTY_ROWS_MANY: u32 = 4;

/// Batches without a record that a parser keeps for later.
const SPARE_BATCHES_MAX: usize = 16;

/// What some lines became.
#[derive(Debug, Default)]
pub struct ParsedBlock {
    /// The records, in line order; a batch holds records of one layout, at most [`BATCH_ROWS_MAX`].
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
    spare: Vec<FlowBatch>,
}

impl Parser {
    /// A parser that keeps the columns of `wanted`.
    #[must_use]
    pub const fn new(isa: Isa, wanted: ColumnSet) -> Self {
        Self { isa, wanted, separators: Vec::new(), spare: Vec::new() }
    }

    /// Takes back a batch that is no longer read, so that its columns serve again.
    pub fn recycle(&mut self, mut batch: FlowBatch) {
        if self.spare.len() < SPARE_BATCHES_MAX {
            batch.clear();
            self.spare.push(batch);
        }
    }

    /// Parses the whole lines in `text[lines]`; `layout` holds for the first of them.
    ///
    /// # Panics
    /// If the lines are not empty and do not end in LF, or `text` has 2 GiB or more.
    pub fn parse(
        &mut self,
        text: &Arc<Text>,
        lines: Range<usize>,
        layout: &Arc<Layout>,
    ) -> ParsedBlock {
        let mut block = ParsedBlock::default();
        self.parse_into(text, lines, layout, &mut block);
        block
    }

    /// As [`Self::parse`], adding to `block`, whose memory is used again.
    ///
    /// # Panics
    /// As [`Self::parse`].
    pub fn parse_into(
        &mut self,
        text: &Arc<Text>,
        lines: Range<usize>,
        layout: &Arc<Layout>,
        block: &mut ParsedBlock,
    ) {
        let mut separators = std::mem::take(&mut self.separators);
        let mut splitter = Splitter::new(self.isa, text, lines.clone(), &mut separators);
        let mut layout = Arc::clone(layout);
        let mut bytes_left = lines.len();
        while !splitter.is_at_end() {
            let mut batch = self.spare_batch(&layout);
            // A record takes at least two bytes a field.
            let rows_max = (bytes_left / (2 * layout.field_count()) + 1).min(BATCH_ROWS_MAX);
            batch.reset(Arc::clone(text), rows_max.next_multiple_of(ROWS_MAX));
            let declared = fill(&mut batch, rows_max, &mut splitter, block);
            bytes_left = lines.end - splitter.line_start();
            if batch.rows > 0 {
                batch.release_unread_text();
                block.batches.push(batch);
            } else {
                self.recycle(batch);
            }
            if let Some(declared) = declared {
                layout = Arc::new(declared);
                block.layout_after = Some(Arc::clone(&layout));
            }
        }
        self.separators = separators;
    }

    fn spare_batch(&mut self, layout: &Arc<Layout>) -> FlowBatch {
        let is_alike = |batch: &FlowBatch| batch.layout == *layout;
        match self.spare.iter().rposition(is_alike) {
            Some(position) => self.spare.swap_remove(position),
            None => FlowBatch::new(Arc::clone(layout), &self.wanted),
        }
    }
}

/// Reads lines until the batch has `rows_max` records, the text ends, or a header declares another
/// layout, which is returned.
fn fill(
    batch: &mut FlowBatch,
    rows_max: usize,
    splitter: &mut Splitter<'_>,
    block: &mut ParsedBlock,
) -> Option<Layout> {
    let layout = Arc::clone(&batch.layout);
    let field_count = layout.field_count();
    // A header could pass for a record only where nothing but text is asked for.
    let is_all_text = layout.slots().iter().all(|slot| slot.kind() == FieldKind::Text);
    let mut one_by_one = 0;
    while batch.rows < rows_max && !splitter.is_at_end() {
        if one_by_one == 0 && !is_all_text {
            let rows = splitter.rows(field_count, rows_max - batch.rows);
            let count = rows.count();
            let faulty = rows::fill(batch, &rows);
            let taken = (faulty.trailing_zeros() as usize).min(count);
            splitter.skip_rows(field_count, taken);
            block.line_count += taken as u64;
            if count > 0 && taken == count {
                continue;
            }
            one_by_one = if faulty.count_ones() >= FAULTY_ROWS_MANY { ROWS_MAX } else { 1 };
        }
        one_by_one = one_by_one.saturating_sub(1);
        let Some(bounds) = splitter.next_line() else { break };
        let line = block.line_count;
        block.line_count += 1;
        match line::fill(batch, splitter.text(), bounds.clone()) {
            Line::Record => batch.rows += 1,
            Line::Blank => {}
            Line::Header(declared) => {
                block.header_count += 1;
                if declared.is_some() {
                    return declared;
                }
            }
            Line::Fault(kind, column, reason) => block.faults.record(kind, || {
                let text = &splitter.text()[bounds];
                FaultSample {
                    kind,
                    line,
                    column,
                    reason: reason.text(&batch.layout),
                    text: text[..text.len().min(SAMPLE_BYTES_MAX)].to_vec(),
                    length_bytes: text.len() as u64,
                }
            }),
        }
    }
    None
}

#[cfg(test)]
mod tests;
