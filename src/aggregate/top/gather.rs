//! Keys of a batch's rows, a column at a time.
//!
//! The shape of a key is decided once per question, never per record. A key of numbers and IPv4
//! addresses that fits 64 bits is *narrow*: its fields stand side by side in one word. Rows whose
//! addresses are IPv6, and keys of any other shape, are *wide*: packed bytes. Which of the two a row is
//! depends on its key's value alone, so no key is in both tables.

use crate::aggregate::key::{AnyColumn, pack_window};
use crate::aggregate::route::{Rows, row_number};
use crate::aggregate::row_bits::{WORD_ROWS, places, where_not};
use crate::aggregate::table::{SHORT_TEXT_BYTES, WideKey};
use crate::aggregate::top::TopSpec;
use crate::net::Addr;
use crate::record::{ColumnView, FieldId, FieldKind, FlowBatch, LogStatus, Slot, TextView};
use crate::units::UnixSeconds;

/// Bits that a field takes in a narrow key; `None` if it can't be in one.
pub(in crate::aggregate) fn narrow_bits(slot: &Slot) -> Option<u32> {
    match slot.kind() {
        FieldKind::Addr | FieldKind::Int32 => Some(32),
        FieldKind::Port => Some(16),
        FieldKind::Protocol | FieldKind::Action | FieldKind::LogStatus => Some(8),
        FieldKind::Counter | FieldKind::Seconds => Some(64),
        FieldKind::Text => None,
    }
}

/// Whether keys of this question can be narrow.
pub(in crate::aggregate) fn is_narrow(spec: &TopSpec) -> bool {
    let bits = spec.by.iter().map(narrow_bits).sum::<Option<u32>>();
    spec.window_seconds.is_none() && bits.is_some_and(|bits| bits <= u64::BITS)
}

/// Packs a narrow key as [`AnyColumn::pack`] would pack its fields.
pub(in crate::aggregate) fn pack_narrow(key: u64, by: &[Slot], packed: &mut Vec<u8>) {
    let mut left: u32 = by.iter().filter_map(narrow_bits).sum();
    for slot in by {
        let bits = narrow_bits(slot).expect("the key is narrow");
        left -= bits;
        if slot.kind() == FieldKind::Addr {
            packed.push(4);
        }
        let value = key.checked_shr(left).unwrap_or(0).to_be_bytes();
        packed.extend_from_slice(&value[(u64::BITS - bits) as usize / 8..]);
    }
}

/// What is read off a batch for its questions; all of it is scratch that the next batch overwrites.
#[derive(Default)]
pub(in crate::aggregate) struct Gather {
    /// A bit for each row that stands for no traffic.
    no_traffic: Vec<u64>,
    /// Counters with 0 where they were absent, if they are in some row.
    bytes: Vec<u64>,
    packets: Vec<u64>,
    /// A bit for each row that has no key.
    skipped: Vec<u64>,
    /// A bit for each row that lacks a field of another key.
    lacking: Vec<u64>,
    /// Rows with a narrow key.
    rows: Vec<u32>,
    /// Their keys.
    keys: Vec<u64>,
    /// Rows with a wide key.
    wide_rows: Vec<u32>,
    /// Their keys.
    wide_keys: Vec<WideKey>,
    packed: Vec<u8>,
    hashes: Vec<u64>,
}

/// Keys of rows, and which rows they are.
#[derive(Clone, Copy)]
pub(in crate::aggregate) struct Keys<'a> {
    pub(in crate::aggregate) rows: &'a [u32],
    pub(in crate::aggregate) narrow: &'a [u64],
    pub(in crate::aggregate) wide_rows: &'a [u32],
    pub(in crate::aggregate) wide: &'a [WideKey],
}

/// A batch's counters; absent is 0.
#[derive(Clone, Copy)]
pub(super) struct Counters<'a> {
    pub(super) bytes: &'a [u64],
    pub(super) packets: &'a [u64],
}

impl Gather {
    /// Reads what all questions to `batch` share; to be called once before they are asked.
    pub(in crate::aggregate) fn start(&mut self, batch: &FlowBatch) {
        self.no_traffic.clear();
        self.no_traffic.resize(batch.rows().div_ceil(64), 0);
        if let Some(statuses) = batch.log_statuses() {
            mark_no_traffic(&statuses, &mut self.no_traffic);
        }
        fill_absent(batch.counters(FieldId::Bytes), batch.rows(), &mut self.bytes);
        fill_absent(batch.counters(FieldId::Packets), batch.rows(), &mut self.packets);
    }

    /// Has the rows whose bit is set passed over, until the next batch; a word for each 64 rows, or none.
    pub(in crate::aggregate) fn pass_over(&mut self, rows: &[u64]) {
        self.no_traffic.iter_mut().zip(rows).for_each(|(word, rows)| *word |= rows);
    }

    /// What was read off `batch`, for which [`Self::start`] and [`Self::read_keys`] were called.
    pub(super) fn parts<'a>(
        &'a mut self,
        batch: &'a FlowBatch,
    ) -> (Keys<'a>, Counters<'a>, &'a mut Vec<u64>) {
        let Self { rows, keys, wide_rows, wide_keys, bytes, packets, hashes, .. } = self;
        let keys = Keys { rows, narrow: keys, wide_rows, wide: wide_keys };
        let read = |field, filled: &'a [u64]| match batch.counters(field) {
            Some(column) if column.is_dense() => column.raw(),
            _ => filled,
        };
        let counters = Counters {
            bytes: read(FieldId::Bytes, bytes),
            packets: read(FieldId::Packets, packets),
        };
        (keys, counters, hashes)
    }

    /// The keys that [`Self::read_keys`] read last.
    pub(in crate::aggregate) fn keys(&self) -> Keys<'_> {
        let Self { rows, keys, wide_rows, wide_keys, .. } = self;
        Keys { rows, narrow: keys, wide_rows, wide: wide_keys }
    }

    /// Reads the keys of those of `among` that have one, but not one of `unless` too. `place_of_long`
    /// keeps wide keys of more bytes than they hold.
    pub(in crate::aggregate) fn read_keys(
        &mut self,
        batch: &FlowBatch,
        spec: &TopSpec,
        unless: Option<&TopSpec>,
        among: &Rows<'_>,
        place_of_long: impl FnMut(&[u8]) -> u64,
    ) {
        self.rows.clear();
        self.keys.clear();
        self.wide_rows.clear();
        self.wide_keys.clear();
        self.skipped.clear();
        self.skipped.extend_from_slice(&self.no_traffic);
        for slot in &spec.by {
            let Some(column) = AnyColumn::of(batch, slot) else { return };
            column.mark_absent(&mut self.skipped);
        }
        if let Some(unless) = unless {
            self.skip_keys_of(batch, unless);
        }
        if is_narrow(spec) {
            select(among, &self.skipped, &mut self.rows);
            self.keys.resize(self.rows.len(), 0);
            for slot in &spec.by {
                let column = AnyColumn::of(batch, slot).expect("it was there above");
                self.append_field(&column);
            }
        } else {
            select(among, &self.skipped, &mut self.wide_rows);
        }
        match spec.by.as_slice() {
            [slot] if spec.window_seconds.is_none() && slot.kind() == FieldKind::Text => {
                let texts = batch.texts(slot).expect("it was there above");
                self.pack_texts(texts, place_of_long);
            }
            _ => self.pack_wide(batch, spec, place_of_long),
        }
    }

    /// Skips the rows that have a key of `spec`, whose fields are typed.
    fn skip_keys_of(&mut self, batch: &FlowBatch, spec: &TopSpec) {
        let Self { skipped, lacking, .. } = self;
        lacking.clear();
        lacking.resize(skipped.len(), 0);
        for slot in &spec.by {
            match AnyColumn::of(batch, slot) {
                Some(column) => column.mark_absent(lacking),
                None => return,
            }
        }
        skipped.iter_mut().zip(lacking).for_each(|(skipped, lacking)| *skipped |= !*lacking);
    }

    /// Puts a field to the right of those that the narrow keys have.
    fn append_field(&mut self, column: &AnyColumn<'_>) {
        let Self { rows, keys, .. } = self;
        let keyed = rows.iter().map(|row| *row as usize).zip(keys.iter_mut());
        match column {
            AnyColumn::Addr(column) => self.append_addr(column.raw()),
            AnyColumn::Port(column) => {
                let values = column.raw();
                keyed.for_each(|(row, key)| *key = *key << 16 | u64::from(values[row]));
            }
            AnyColumn::Protocol(column) => {
                let values = column.raw();
                keyed.for_each(|(row, key)| *key = *key << 8 | u64::from(values[row]));
            }
            AnyColumn::Int32(column) => {
                let values = column.raw();
                keyed.for_each(|(row, key)| *key = *key << 32 | u64::from(values[row]));
            }
            AnyColumn::Action(column) => {
                let values = column.raw();
                keyed.for_each(|(row, key)| *key = *key << 8 | values[row] as u64);
            }
            AnyColumn::LogStatus(column) => {
                let values = column.raw();
                keyed.for_each(|(row, key)| *key = *key << 8 | values[row] as u64);
            }
            AnyColumn::Counter(column) => {
                let values = column.raw();
                keyed.for_each(|(row, key)| *key = values[row]);
            }
            AnyColumn::Seconds(column) => {
                let values = column.raw();
                keyed.for_each(|(row, key)| *key = values[row].cast_unsigned());
            }
            AnyColumn::Text(_) => unreachable!("a key with text is wide"),
        }
    }

    /// Puts an IPv4 address to the right of the narrow keys; rows with IPv6 become wide.
    fn append_addr(&mut self, addrs: &[Addr]) {
        let Self { rows, keys, wide_rows, .. } = self;
        let mut kept = 0;
        for index in 0..rows.len() {
            let row = rows[index];
            match addrs[row as usize].as_v4() {
                Some(bits) => {
                    keys[kept] = keys[index] << 32 | u64::from(bits);
                    rows[kept] = row;
                    kept += 1;
                }
                None => wide_rows.push(row),
            }
        }
        rows.truncate(kept);
        keys.truncate(kept);
    }

    /// Packs keys of one text.
    fn pack_texts(&mut self, texts: TextView<'_>, mut place_of_long: impl FnMut(&[u8]) -> u64) {
        let Self { wide_rows, wide_keys, packed, .. } = self;
        let mut kept = 0;
        for index in 0..wide_rows.len() {
            let row = wide_rows[index];
            let Some(text) = texts.get(row as usize) else { continue };
            wide_keys.push(if text.len() <= SHORT_TEXT_BYTES {
                WideKey::of_text(text)
            } else {
                packed.clear();
                assert!(AnyColumn::Text(texts).pack(row as usize, packed), "it has a text");
                WideKey::new(packed, || place_of_long(packed))
            });
            wide_rows[kept] = row;
            kept += 1;
        }
        wide_rows.truncate(kept);
    }

    fn pack_wide(
        &mut self,
        batch: &FlowBatch,
        spec: &TopSpec,
        mut place_of_long: impl FnMut(&[u8]) -> u64,
    ) {
        let Self { wide_rows, wide_keys, packed, .. } = self;
        if wide_rows.is_empty() {
            return;
        }
        let window = spec.window_seconds.map(|seconds| (batch.seconds(FieldId::End), seconds));
        if let Some((ends, _)) = window {
            let has_end = |row: &u32| ends.is_some_and(|ends| !ends.is_absent(*row as usize));
            wide_rows.retain(has_end);
        }
        let mut columns = [const { None }; COLUMNS_AT_HAND];
        let mut more = Vec::new();
        for (index, slot) in spec.by.iter().enumerate() {
            let column = AnyColumn::of(batch, slot).expect("it was there above");
            match columns.get_mut(index) {
                Some(place) => *place = Some(column),
                None => more.push(column),
            }
        }
        wide_rows.retain(|row| {
            let row = *row as usize;
            packed.clear();
            if let Some((Some(ends), seconds)) = window {
                let pane = UnixSeconds(ends.raw()[row]).pane(seconds);
                pack_window(pane.start(seconds), packed);
            }
            let has_key =
                columns.iter().flatten().chain(&more).all(|column| column.pack(row, packed));
            if has_key {
                wide_keys.push(WideKey::new(packed, || place_of_long(packed)));
            }
            has_key
        });
    }
}

/// Columns of a wide key that need no allocation.
const COLUMNS_AT_HAND: usize = 8;

/// Lists those of `among` whose bit is not set.
fn select(among: &Rows<'_>, skipped: &[u64], rows: &mut Vec<u32>) {
    match among {
        Rows::All(range) => {
            let (first, end) = (range.start, range.end);
            let words = skipped.iter().enumerate().take(end.div_ceil(WORD_ROWS));
            for (word, skipped) in words.skip(first / WORD_ROWS) {
                let base = word * WORD_ROWS;
                let mut kept = !skipped;
                if base < first {
                    kept &= u64::MAX << (first - base);
                }
                if end < base + WORD_ROWS {
                    kept &= !(u64::MAX << (end - base));
                }
                if kept == u64::MAX {
                    rows.extend(row_number(base)..row_number(base + WORD_ROWS));
                } else {
                    rows.extend(places(kept).map(|place| row_number(base + place)));
                }
            }
        }
        Rows::Listed(listed) => {
            let is_kept = |row: &u32| skipped[*row as usize / 64] >> (row % 64) & 1 == 0;
            rows.extend(listed.as_slice().iter().copied().filter(is_kept));
        }
    }
}

fn mark_no_traffic(statuses: &ColumnView<'_, LogStatus>, marks: &mut [u64]) {
    for (values, mark) in statuses.raw().chunks(WORD_ROWS).zip(marks.iter_mut()) {
        *mark = where_not(values, |status| status as u8, LogStatus::Ok as u8);
    }
    // A status that is absent stands for traffic.
    for (mark, absent) in marks.iter_mut().zip(statuses.absent_words()) {
        *mark &= !absent;
    }
}

/// Copies a counter column that has absent values, with 0 for them.
fn fill_absent(column: Option<ColumnView<'_, u64>>, rows: usize, filled: &mut Vec<u64>) {
    filled.clear();
    let Some(column) = column else {
        filled.resize(rows, 0);
        return;
    };
    if column.is_dense() {
        return;
    }
    filled.extend_from_slice(column.raw());
    for (word, absent) in column.absent_words().iter().enumerate() {
        places(*absent).for_each(|place| filled[word * WORD_ROWS + place] = 0);
    }
}
