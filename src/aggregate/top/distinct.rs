//! Distinct values per key, exact.
//!
//! Ports, IPv4 addresses and other small values make one 64-bit number with the number of their key.
//! The first value of a key stands in its slot's mark, so that the many keys with one value need nothing
//! else. IPv6 addresses, texts and large numbers are kept as bytes.

use crate::aggregate::key::AnyColumn;
use crate::aggregate::table::{ByteSet, Counts, Mixer, NumberSet};
use crate::record::FlowBatch;

/// In [`DistinctValues::values`]: the row has no value.
const ABSENT: u64 = 1 << 32;

/// In [`DistinctValues::values`]: the value is not small.
const LARGE: u64 = 2 << 32;

/// The values that were seen with each key.
pub(super) struct DistinctValues {
    small: NumberSet,
    large: ByteSet,
    /// The value of each row of the batch: below 2^32, or one of the two above.
    values: Vec<u64>,
    /// Small values of the batch that may be unseen.
    pending: Vec<u64>,
    /// Key number and row of the batch's large values.
    pending_large: Vec<(u32, u32)>,
    packed: Vec<u8>,
}

impl DistinctValues {
    pub(super) fn new(mixer: Mixer, seed: u64) -> Self {
        Self {
            small: NumberSet::new(mixer),
            large: ByteSet::new(seed),
            values: Vec::new(),
            pending: Vec::new(),
            pending_large: Vec::new(),
            packed: Vec::new(),
        }
    }

    /// Reads the values of `rows`.
    pub(super) fn read(&mut self, column: &AnyColumn<'_>, rows: &[u32]) {
        let values = &mut self.values;
        values.clear();
        let rows = rows.iter().map(|row| *row as usize);
        match column {
            AnyColumn::Port(ports) => {
                let raw = ports.raw();
                let value = |row| if ports.is_absent(row) { ABSENT } else { u64::from(raw[row]) };
                values.extend(rows.map(value));
            }
            AnyColumn::Addr(addrs) => values.extend(rows.map(|row| match addrs.get(row) {
                None => ABSENT,
                Some(addr) => addr.as_v4().map_or(LARGE, u64::from),
            })),
            AnyColumn::Protocol(column) => {
                values.extend(rows.map(|row| column.get(row).map_or(ABSENT, u64::from)));
            }
            AnyColumn::Int32(column) => {
                values.extend(rows.map(|row| column.get(row).map_or(ABSENT, u64::from)));
            }
            AnyColumn::Action(column) => {
                values.extend(rows.map(|row| column.get(row).map_or(ABSENT, |code| code as u64)));
            }
            AnyColumn::LogStatus(column) => {
                values.extend(rows.map(|row| column.get(row).map_or(ABSENT, |code| code as u64)));
            }
            AnyColumn::Counter(_) | AnyColumn::Seconds(_) | AnyColumn::Text(_) => {
                values.extend(rows.map(|_| LARGE));
            }
        }
    }

    /// Notes the value at `index` of those that were read last, which stands in `row`.
    #[inline]
    pub(super) fn note(&mut self, index: usize, row: u32, counts: &mut Counts) {
        let value = self.values[index];
        match u32::try_from(value) {
            Ok(small) => {
                // The greatest value has no mark and is kept in the set.
                let mark = small.wrapping_add(1);
                if counts.mark == 0 && mark != 0 {
                    counts.mark = mark;
                } else if counts.mark != mark || mark == 0 {
                    self.pending.push(u64::from(counts.number) << 32 | value);
                }
            }
            Err(_) if value == LARGE => self.pending_large.push((counts.number, row)),
            Err(_) => {}
        }
    }

    /// Takes up what was noted.
    pub(super) fn settle(&mut self, column: &AnyColumn<'_>) {
        self.small.insert_all(&self.pending);
        self.pending.clear();
        for (number, row) in self.pending_large.drain(..) {
            self.packed.clear();
            self.packed.extend_from_slice(&number.to_be_bytes());
            if column.pack(row as usize, &mut self.packed) {
                self.large.insert(&self.packed);
            }
        }
    }

    /// How many values the sets hold for each key, by the key's number; the one in its mark not counted.
    pub(super) fn counts(&self, last_number: u32) -> Vec<u32> {
        let mut counts = vec![0; last_number as usize + 1];
        for number in self.small.iter() {
            counts[usize::try_from(number >> 32).expect("32 bits")] += 1;
        }
        for packed in self.large.iter() {
            let (number, _) = packed.split_first_chunk().expect("it begins with a number");
            counts[u32::from_be_bytes(*number) as usize] += 1;
        }
        counts
    }
}

/// The column of a question's values; `None` if it counts none, or if the batch does not have it.
pub(super) fn column_of<'a>(
    batch: &'a FlowBatch,
    metric: &crate::aggregate::Metric,
) -> Option<AnyColumn<'a>> {
    match metric {
        crate::aggregate::Metric::Distinct(slot) => AnyColumn::of(batch, slot),
        _ => None,
    }
}
