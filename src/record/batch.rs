//! Records as typed columns: what the parser fills and every later stage reads.
//!
//! ```text
//! text:     "2 1234 eni-1 10.0.0.1 …\n2 1234 eni-2 - …\n"        the lines themselves
//! SrcAddr:  [10.0.0.1, 0      ]  absent: 0b10                    typed fields: value + bit
//! Interface:[7..12,    31..36 ]                                  text fields: where in `text`
//! ```
//!
//! A batch holds only the columns that the job declared ([`ColumnSet`]). It is filled once, then
//! shared read-only; its buffers are made once and reused. A field that was `-` or that the layout
//! does not have is absent, never 0.

use std::sync::Arc;

use super::field::{FIELD_COUNT, FieldId, FieldKind};
use super::layout::{Layout, Slot};
use super::text::Text;
use crate::net::Addr;

/// The columns that a job needs. Lines are judged good or malformed by all fields regardless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnSet {
    known: u128,
    unknown: Vec<Box<str>>,
}

impl ColumnSet {
    /// No column: totals of lines only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field of the table.
    pub fn insert(&mut self, field: FieldId) {
        self.known |= 1 << field as u32;
    }

    /// Adds a column by header name, whether the table knows it or not.
    pub fn insert_slot(&mut self, slot: &Slot) {
        match slot {
            Slot::Known(field) => self.insert(*field),
            Slot::Unknown(name) if self.unknown.contains(name) => {}
            Slot::Unknown(name) => self.unknown.push(name.clone()),
        }
    }

    /// Whether the job reads what stands in `slot`.
    #[must_use]
    pub fn contains(&self, slot: &Slot) -> bool {
        match slot {
            Slot::Known(field) => self.known >> (*field as u32) & 1 == 1,
            Slot::Unknown(name) => self.unknown.contains(name),
        }
    }
}

impl FromIterator<FieldId> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = FieldId>>(fields: I) -> Self {
        let mut set = Self::new();
        fields.into_iter().for_each(|field| set.insert(field));
        set
    }
}

/// What the security group and network ACL did with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Action {
    /// `ACCEPT`
    #[default]
    Accept,
    /// `REJECT`
    Reject,
}

impl Action {
    /// The word in a record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "ACCEPT",
            Self::Reject => "REJECT",
        }
    }
}

/// Whether a record stands for traffic, for none, or for a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum LogStatus {
    /// `OK`, or no status in the record.
    #[default]
    Ok,
    /// `NODATA`: no traffic in the window.
    NoData,
    /// `SKIPDATA`: AWS lost records of this window.
    SkipData,
}

impl LogStatus {
    /// The word in a record.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::NoData => "NODATA",
            Self::SkipData => "SKIPDATA",
        }
    }
}

/// Where a text value stands in the batch's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

impl Span {
    #[expect(clippy::cast_possible_truncation, reason = "`reset` holds texts below 4 GiB")]
    pub(super) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
}

/// The values of one column, one variant per way of storing.
#[derive(Clone, Debug)]
pub(super) enum Values {
    Addr(Vec<Addr>),
    U16(Vec<u16>),
    U8(Vec<u8>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    Action(Vec<Action>),
    LogStatus(Vec<LogStatus>),
    Text(Vec<Span>),
}

impl Values {
    fn of_kind(kind: FieldKind) -> Self {
        match kind {
            FieldKind::Addr => Self::Addr(Vec::new()),
            FieldKind::Port => Self::U16(Vec::new()),
            FieldKind::Protocol => Self::U8(Vec::new()),
            FieldKind::Counter => Self::U64(Vec::new()),
            FieldKind::Seconds => Self::I64(Vec::new()),
            FieldKind::Int32 => Self::U32(Vec::new()),
            FieldKind::Action => Self::Action(Vec::new()),
            FieldKind::LogStatus => Self::LogStatus(Vec::new()),
            FieldKind::Text => Self::Text(Vec::new()),
        }
    }

    fn grow(&mut self, rows: usize) {
        fn grow<T: Clone>(values: &mut Vec<T>, rows: usize, filler: T) {
            if values.len() < rows {
                values.resize(rows, filler);
            }
        }
        match self {
            Self::Addr(values) => grow(values, rows, Addr::v6(0)),
            Self::U16(values) => grow(values, rows, 0),
            Self::U8(values) => grow(values, rows, 0),
            Self::U32(values) => grow(values, rows, 0),
            Self::U64(values) => grow(values, rows, 0),
            Self::I64(values) => grow(values, rows, 0),
            Self::Action(values) => grow(values, rows, Action::Accept),
            Self::LogStatus(values) => grow(values, rows, LogStatus::Ok),
            Self::Text(values) => grow(values, rows, Span::default()),
        }
    }
}

/// One stored column: values and a bit per absent one.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) values: Values,
    pub(super) absent: Vec<u64>,
    pub(super) absent_count: usize,
    /// Of the rows that are being written: bits that will be set if they are taken.
    pub(super) absent_now: u64,
}

impl Column {
    pub(super) fn set_absent(&mut self, row: usize) {
        self.absent[row / 64] |= 1 << (row % 64);
        self.absent_count += 1;
    }

    /// Marks row `first + i` as absent where bit `i` is set.
    pub(super) fn set_absent_bits(&mut self, first: usize, bits: u64) {
        let (word, shift) = (first / 64, first % 64);
        self.absent[word] |= bits << shift;
        let beyond = (bits >> 1) >> (63 - shift);
        if beyond != 0 {
            self.absent[word + 1] |= beyond;
        }
        self.absent_count += bits.count_ones() as usize;
    }

    /// Undoes what a line that turned out faulty left in `row`.
    pub(super) fn clear_absent(&mut self, row: usize) {
        let bit = 1 << (row % 64);
        if self.absent[row / 64] & bit != 0 {
            self.absent[row / 64] &= !bit;
            self.absent_count -= 1;
        }
    }

    fn reset(&mut self, rows: usize) {
        self.values.grow(rows);
        self.absent.clear();
        self.absent.resize(rows.div_ceil(64), 0);
        self.absent_count = 0;
        self.absent_now = 0;
    }
}

/// Most records that a batch holds: their columns stay in the second level cache.
pub const BATCH_ROWS_MAX: usize = 4096;

/// Records of one layout as columns.
#[derive(Clone, Debug)]
pub struct FlowBatch {
    pub(super) layout: Arc<Layout>,
    /// `None` if no column points into it.
    pub(super) text: Option<Arc<Text>>,
    pub(super) rows: usize,
    /// One per slot of the layout; `None` where the job doesn't need it.
    pub(super) columns: Vec<Option<Column>>,
}

impl FlowBatch {
    /// An empty batch for records of `layout` with the columns of `wanted`.
    #[must_use]
    pub fn new(layout: Arc<Layout>, wanted: &ColumnSet) -> Self {
        let column = |slot: &Slot| {
            wanted.contains(slot).then(|| Column {
                values: Values::of_kind(slot.kind()),
                absent: Vec::new(),
                absent_count: 0,
                absent_now: 0,
            })
        };
        let columns = layout.slots().iter().map(column).collect();
        Self { layout, text: None, rows: 0, columns }
    }

    /// Empties the batch and takes `text` as the lines that its text columns point into, with room
    /// for `rows_max` records.
    pub(super) fn reset(&mut self, text: Arc<Text>, rows_max: usize) {
        assert!(u32::try_from(text.len()).is_ok(), "a block of lines is far below 4 GiB");
        self.text = Some(text);
        self.rows = 0;
        self.columns.iter_mut().flatten().for_each(|column| column.reset(rows_max));
    }

    /// Forgets the records and lets go of their text; the memory of the columns stays.
    pub fn clear(&mut self) {
        self.text = None;
        self.rows = 0;
    }

    /// Lets go of the text if no column points into it: its buffer is then read into again while it is
    /// still in the cache.
    pub(super) fn release_unread_text(&mut self) {
        let is_text = |column: &Column| matches!(column.values, Values::Text(_));
        if !self.columns.iter().flatten().any(is_text) {
            self.text = None;
        }
    }

    /// Number of records.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The layout that the lines had.
    #[must_use]
    pub const fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    fn column(&self, field: FieldId) -> Option<&Column> {
        self.columns[self.layout.position(field)?].as_ref()
    }

    /// A column of addresses; `None` if the layout or the job doesn't have it.
    #[must_use]
    pub fn addrs(&self, field: FieldId) -> Option<ColumnView<'_, Addr>> {
        let column = self.column(field)?;
        match &column.values {
            Values::Addr(values) => Some(ColumnView::new(values, column, self.rows)),
            _ => None,
        }
    }

    /// A column of ports; `None` if the layout or the job doesn't have it.
    #[must_use]
    pub fn ports(&self, field: FieldId) -> Option<ColumnView<'_, u16>> {
        let column = self.column(field)?;
        match &column.values {
            Values::U16(values) => Some(ColumnView::new(values, column, self.rows)),
            _ => None,
        }
    }

    /// The column of protocol numbers; `None` if the layout or the job doesn't have it.
    #[must_use]
    pub fn protocols(&self) -> Option<ColumnView<'_, u8>> {
        let column = self.column(FieldId::Protocol)?;
        match &column.values {
            Values::U8(values) => Some(ColumnView::new(values, column, self.rows)),
            _ => None,
        }
    }

    /// A column of small numbers (`tcp-flags`, `traffic-path`, `version`); `None` if the layout or the
    /// job doesn't have it.
    #[must_use]
    pub fn small_ints(&self, field: FieldId) -> Option<ColumnView<'_, u32>> {
        let column = self.column(field)?;
        match &column.values {
            Values::U32(values) => Some(ColumnView::new(values, column, self.rows)),
            _ => None,
        }
    }

    /// A column of counters; `None` if the layout or the job doesn't have it.
    #[must_use]
    pub fn counters(&self, field: FieldId) -> Option<ColumnView<'_, u64>> {
        let column = self.column(field)?;
        match &column.values {
            Values::U64(values) => Some(ColumnView::new(values, column, self.rows)),
            _ => None,
        }
    }

    /// A column of Unix seconds; `None` if the layout or the job doesn't have it.
    #[must_use]
    pub fn seconds(&self, field: FieldId) -> Option<ColumnView<'_, i64>> {
        let column = self.column(field)?;
        match &column.values {
            Values::I64(values) => Some(ColumnView::new(values, column, self.rows)),
            _ => None,
        }
    }

    /// The column of actions; `None` if the layout or the job doesn't have it.
    #[must_use]
    pub fn actions(&self) -> Option<ColumnView<'_, Action>> {
        let column = self.column(FieldId::Action)?;
        match &column.values {
            Values::Action(values) => Some(ColumnView::new(values, column, self.rows)),
            _ => None,
        }
    }

    /// The column of log statuses; `None` if the layout or the job doesn't have it.
    #[must_use]
    pub fn log_statuses(&self) -> Option<ColumnView<'_, LogStatus>> {
        let column = self.column(FieldId::LogStatus)?;
        match &column.values {
            Values::LogStatus(values) => Some(ColumnView::new(values, column, self.rows)),
            _ => None,
        }
    }

    /// A column of text; `None` if the layout or the job doesn't have it, or if it is typed.
    #[must_use]
    pub fn texts(&self, slot: &Slot) -> Option<TextView<'_>> {
        let position = match slot {
            Slot::Known(field) => self.layout.position(*field)?,
            Slot::Unknown(_) => self.layout.slots().iter().position(|other| other == slot)?,
        };
        match &self.columns[position].as_ref()?.values {
            Values::Text(spans) => {
                let text = self.text.as_deref().map_or(&[][..], |text| text);
                Some(TextView { spans: &spans[..self.rows], text })
            }
            _ => None,
        }
    }
}

const _: () = assert!(FIELD_COUNT <= u8::MAX as usize);

/// A typed column of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ColumnView<'a, T> {
    values: &'a [T],
    absent: &'a [u64],
    absent_count: usize,
}

impl<'a, T: Copy> ColumnView<'a, T> {
    fn new(values: &'a [T], column: &'a Column, rows: usize) -> Self {
        Self { values: &values[..rows], absent: &column.absent, absent_count: column.absent_count }
    }

    /// A column of these values, none of them absent.
    #[must_use]
    pub const fn dense(values: &'a [T]) -> Self {
        Self { values, absent: &[], absent_count: 0 }
    }

    /// The value of a row, `None` if it was `-`.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<T> {
        if self.is_absent(row) { None } else { Some(self.values[row]) }
    }

    /// Whether the field was `-` in this row.
    #[must_use]
    pub fn is_absent(&self, row: usize) -> bool {
        self.absent_count > 0 && self.absent[row / 64] >> (row % 64) & 1 == 1
    }

    /// Whether no row was `-`, so that [`Self::raw`] can be read as it is.
    #[must_use]
    pub const fn is_dense(&self) -> bool {
        self.absent_count == 0
    }

    /// A bit per row, set where the field was `-`; empty if it was in no row.
    #[must_use]
    pub fn absent_words(&self) -> &'a [u64] {
        if self.absent_count == 0 { &[] } else { &self.absent[..self.values.len().div_ceil(64)] }
    }

    /// All values; what stands in an absent row is meaningless.
    #[must_use]
    pub const fn raw(&self) -> &'a [T] {
        self.values
    }
}

/// A text column of a batch.
#[derive(Clone, Copy, Debug)]
pub struct TextView<'a> {
    spans: &'a [Span],
    text: &'a [u8],
}

impl<'a> TextView<'a> {
    /// The bytes of a row, `None` if they were `-`. Not necessarily UTF-8.
    #[must_use]
    pub fn get(&self, row: usize) -> Option<&'a [u8]> {
        let span = self.spans[row];
        match &self.text[span.start as usize..span.end as usize] {
            b"-" => None,
            bytes => Some(bytes),
        }
    }
}
