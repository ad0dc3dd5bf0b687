//! Distinct values per key: exact, until memory is short; then estimated for the keys that have many.
//!
//! Ports, IPv4 addresses and other small values make one 64-bit number with the number of their key.
//! The first value of a key stands in its slot's mark, so that the many keys with one value need nothing
//! else. IPv6 addresses, texts and large numbers are kept as bytes. Keys with the numbers 1 to
//! `sketch_count` have a sketch instead, which holds the value in their mark too.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::sketch::{self, REGISTERS};
use crate::aggregate::key::AnyColumn;
use crate::aggregate::table::{ByteSet, Counts, Mixer, NumberSet};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::record::FlowBatch;

/// In [`DistinctValues::values`]: the row has no value.
const ABSENT: u64 = 1 << 32;

/// In [`DistinctValues::values`]: the value is not small.
const LARGE: u64 = 2 << 32;

/// Told from the seeds of the sets.
const SKETCH_SEED: u64 = 0x736b_6574_6368_6573;

/// Values from which on a key gets a sketch when memory is short: in a set they take four times as much.
pub(super) const SKETCH_VALUES_MIN: u64 = 1024;

/// Bytes that a small value in a set takes, at most.
const VALUE_BYTES: u64 = 20;

/// Bytes that a large value in a set takes beside its own, at most.
const LARGE_VALUE_BYTES: u64 = 34;

/// The values that were seen with each key.
pub(super) struct DistinctValues {
    seed: u64,
    small: NumberSet,
    large: ByteSet,
    sketch_mixer: Mixer,
    sketch_hasher: FixedState,
    /// [`REGISTERS`] of each sketch.
    sketches: Vec<u8>,
    sketch_count: u32,
    /// The value of each row of the batch: below 2^32, or one of the two above.
    values: Vec<u64>,
    /// Small values of the batch that may be unseen.
    pending: Vec<u64>,
    /// The same, of keys with sketches.
    pending_sketched: Vec<u64>,
    /// Key number and row of the batch's large values.
    pending_large: Vec<(u32, u32)>,
    packed: Vec<u8>,
}

impl DistinctValues {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            small: NumberSet::new(Mixer::with_seed(seed)),
            large: ByteSet::new(seed),
            sketch_mixer: Mixer::with_seed(seed ^ SKETCH_SEED),
            sketch_hasher: FixedState::with_seed(seed ^ SKETCH_SEED),
            sketches: Vec::new(),
            sketch_count: 0,
            values: Vec::new(),
            pending: Vec::new(),
            pending_sketched: Vec::new(),
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
                    if counts.number > self.sketch_count {
                        return;
                    }
                } else if counts.mark == mark && mark != 0 {
                    return;
                }
                let pair = u64::from(counts.number) << 32 | value;
                if counts.number > self.sketch_count {
                    self.pending.push(pair);
                } else {
                    self.pending_sketched.push(pair);
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
        let mut sketched = std::mem::take(&mut self.pending_sketched);
        for pair in sketched.drain(..) {
            let (number, value) = parts(pair);
            self.sketch_small(number, value);
        }
        self.pending_sketched = sketched;
        let mut large = std::mem::take(&mut self.pending_large);
        for (number, row) in large.drain(..) {
            self.packed.clear();
            self.packed.extend_from_slice(&number.to_be_bytes());
            if column.pack(row as usize, &mut self.packed) {
                let packed = std::mem::take(&mut self.packed);
                self.insert_large(&packed);
                self.packed = packed;
            }
        }
        self.pending_large = large;
    }

    /// Takes up a large value behind the number of its key.
    fn insert_large(&mut self, packed: &[u8]) {
        let (number, value) = numbered(packed);
        if number > self.sketch_count {
            self.large.insert(packed);
        } else {
            let hash = self.sketch_hasher.hash_one(value);
            sketch::add(self.registers_mut(number), hash);
        }
    }

    fn sketch_small(&mut self, number: u32, value: u32) {
        let hash = self.sketch_mixer.word(value.into());
        sketch::add(self.registers_mut(number), hash);
    }

    fn registers_mut(&mut self, number: u32) -> &mut [u8] {
        &mut self.sketches[registers_of(number)]
    }

    /// Whether the key with this number has a sketch.
    pub(super) const fn is_sketched(&self, number: u32) -> bool {
        number <= self.sketch_count
    }

    /// How many keys have a sketch.
    pub(super) const fn sketch_count(&self) -> u32 {
        self.sketch_count
    }

    /// How many values came with each key up to number `last_number`.
    pub(super) fn tally(&self, last_number: u32) -> Tally {
        let mut in_sets = vec![0; last_number as usize + 1];
        for pair in self.small.iter() {
            in_sets[parts(pair).0 as usize] += 1;
        }
        let mut large_bytes =
            if self.large.len() == 0 { Vec::new() } else { vec![0; in_sets.len()] };
        for packed in self.large.iter() {
            let number = numbered(packed).0 as usize;
            in_sets[number] += 1;
            large_bytes[number] += LARGE_VALUE_BYTES + 2 * packed.len() as u64;
        }
        let estimates = self.sketches.chunks(REGISTERS).map(sketch::estimate).collect();
        Tally { in_sets, large_bytes, estimates }
    }

    /// Gives keys new numbers: `numbers` has the new one at the place of the old one, 0 if the key left.
    /// Those up to `sketch_count` get sketches; `marks` are their numbers and marks.
    pub(super) fn renumber(&mut self, numbers: &[u32], sketch_count: u32, marks: &[(u32, u32)]) {
        let before = std::mem::replace(self, Self::new(self.seed));
        self.sketch_count = sketch_count;
        self.sketches = vec![0; sketch_count as usize * REGISTERS];
        for (old, registers) in before.sketches.chunks(REGISTERS).enumerate() {
            let number = numbers[old + 1];
            if number != 0 {
                self.registers_mut(number).copy_from_slice(registers);
            }
        }
        for (number, mark) in marks.iter().filter(|(_, mark)| *mark != 0) {
            self.sketch_small(*number, mark - 1);
        }
        let renumbered = before.small.iter().filter_map(|pair| {
            let (old, value) = parts(pair);
            Some((numbers[old as usize], value)).filter(|(number, _)| *number != 0)
        });
        let mut pending = Vec::new();
        for (number, value) in renumbered {
            self.insert_small(number, value, &mut pending);
        }
        drop(before.small);
        self.small.insert_all(&pending);
        let mut packed = Vec::new();
        for value in before.large.iter() {
            let (old, value) = numbered(value);
            let number = numbers[old as usize];
            if number != 0 {
                packed.clear();
                packed.extend_from_slice(&number.to_be_bytes());
                packed.extend_from_slice(value);
                self.insert_large(&packed);
            }
        }
    }

    fn insert_small(&mut self, number: u32, value: u32, pending: &mut Vec<u64>) {
        if number > self.sketch_count {
            pending.push(u64::from(number) << 32 | u64::from(value));
        } else {
            self.sketch_small(number, value);
        }
    }

    /// Takes up the values of others' keys: `numbers` has a key's number here at the place of its number
    /// there, 0 if it is not wanted; `marks` has its mark here at the same place. All keys that have a
    /// sketch there have one here. Returns how many values it may have lost for each key: sketches with
    /// different seeds can't be put together, so the one with less is dropped.
    pub(super) fn absorb(&mut self, other: &Self, numbers: &[u32], marks: &[u32]) -> u64 {
        let mut lost = 0;
        let same_hash = self.seed == other.seed;
        for (old, registers) in other.sketches.chunks(REGISTERS).enumerate() {
            let number = numbers[old + 1];
            if number == 0 {
                continue;
            }
            let mine = self.registers_mut(number);
            if same_hash {
                sketch::merge(mine, registers);
                continue;
            }
            let [here, there] = [sketch::estimate(mine), sketch::estimate(registers)];
            lost = lost.max(here.min(there) + sketch::error_of(here.min(there)));
            if here < there {
                mine.copy_from_slice(registers);
            }
        }
        let mut pending = Vec::new();
        for pair in other.small.iter() {
            let (old, value) = parts(pair);
            let (number, mark) = (numbers[old as usize], marks[old as usize]);
            if number != 0 && (mark == 0 || mark != value.wrapping_add(1)) {
                self.insert_small(number, value, &mut pending);
            }
        }
        self.small.insert_all(&pending);
        let mut packed = Vec::new();
        for value in other.large.iter() {
            let (old, value) = numbered(value);
            let number = numbers[old as usize];
            if number != 0 {
                packed.clear();
                packed.extend_from_slice(&number.to_be_bytes());
                packed.extend_from_slice(value);
                self.insert_large(&packed);
            }
        }
        lost
    }

    /// Takes up single small values, by number of their key.
    pub(super) fn insert_values(&mut self, values: &[(u32, u32)]) {
        let mut pending = Vec::new();
        for (number, value) in values {
            self.insert_small(*number, *value, &mut pending);
        }
        self.small.insert_all(&pending);
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        self.small.bytes() + self.large.bytes() + self.sketches.capacity()
    }

    /// Bytes of memory that it may hold once `more` values were noted. Hangs on what is in it alone.
    pub(super) fn bytes_with(&self, more: usize) -> usize {
        self.small.bytes_with(more) + self.large.bytes_at_most() + self.sketches.len()
    }

    pub(super) fn save(&self, out: &mut Encoder) {
        self.small.save(out);
        self.large.save(out);
        out.plain(&self.sketches);
    }

    /// Reads the values of keys with numbers up to `last_number`.
    pub(super) fn load(
        seed: u64,
        last_number: u32,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let mut values = Self::new(seed);
        values.small = NumberSet::load(Mixer::with_seed(seed), from)?;
        values.large = ByteSet::load(seed, from)?;
        values.sketches = from.plain()?;
        let sketch_count = values.sketches.len() / REGISTERS;
        values.sketch_count = u32::try_from(sketch_count).unwrap_or(u32::MAX);
        let is_number = |number: u32| number > values.sketch_count && number <= last_number;
        let is_valid = values.sketches.len().is_multiple_of(REGISTERS)
            && values.sketch_count <= last_number
            && values.small.iter().all(|pair| is_number(parts(pair).0))
            && values.large.iter().all(|packed| packed.len() >= 4 && is_number(numbered(packed).0));
        if is_valid { Ok(values) } else { Err(DecodeError::Invalid("distinct values")) }
    }
}

/// The number of a key and a small value of it.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
const fn parts(pair: u64) -> (u32, u32) {
    ((pair >> 32) as u32, pair as u32)
}

/// The number of a key and a large value of it.
fn numbered(packed: &[u8]) -> (u32, &[u8]) {
    let (number, value) = packed.split_first_chunk().expect("it begins with a number");
    (u32::from_be_bytes(*number), value)
}

/// Where the registers of a key's sketch stand.
fn registers_of(number: u32) -> std::ops::Range<usize> {
    let end = number as usize * REGISTERS;
    end - REGISTERS..end
}

/// How many values came with each key.
pub(super) struct Tally {
    /// Values in sets, by number of the key; the one in its mark not counted.
    in_sets: Vec<u32>,
    /// Bytes of large values, in the same way; empty if there are none.
    large_bytes: Vec<u64>,
    /// Of the keys with sketches, that with number 1 first.
    estimates: Vec<u64>,
}

/// How many values came with a key.
#[derive(Clone, Copy)]
pub(super) struct Count {
    pub(super) values: u64,
    /// How many more or fewer there may be.
    pub(super) error: u64,
    /// Bytes that the values take, about.
    pub(super) bytes: u64,
}

impl Tally {
    /// The count of the key with these counts.
    pub(super) fn of(&self, counts: &Counts) -> Count {
        let number = counts.number as usize;
        if let Some(values) = self.estimates.get(number - 1) {
            let bytes = REGISTERS as u64;
            return Count { values: *values, error: sketch::error_of(*values), bytes };
        }
        let in_set = u64::from(self.in_sets[number]);
        let values = in_set + u64::from(counts.mark != 0);
        let is_sketched_next = values >= SKETCH_VALUES_MIN;
        let large_bytes = self.large_bytes.get(number).copied().unwrap_or(0);
        let in_sets = in_set * VALUE_BYTES + large_bytes;
        let bytes = if is_sketched_next { REGISTERS as u64 } else { in_sets };
        Count { values, error: 0, bytes }
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
