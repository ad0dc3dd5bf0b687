//! The sums of one top in one shard.
//!
//! Two tables, for narrow keys and wide ones (see `gather`). Slots hold the low bits of sums; what
//! passes them is carried beside the table, so that sums are exact whatever records claim.

use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::HashMap;

use super::distinct::{DistinctValues, column_of};
use super::gather::{Counters, Gather, pack_narrow};
use super::plan::is_dense;
use super::roll_up::Projection;
use super::{Candidate, Metric, TopAnswer, TopRow, TopSpec};
use crate::aggregate::key::{AnyColumn, unpack, unpack_window};
use crate::aggregate::route::Rows;
use crate::aggregate::table::{ByteSet, Counts, DenseTable, Mixer, SumTable, Upsert, WideKey};
use crate::aggregate::totals::Sums;
use crate::record::FlowBatch;

/// The sums of one top in one shard.
pub(super) struct TopTable {
    spec: TopSpec,
    seed: u64,
    narrow: Narrow,
    wide: SumTable<WideKey>,
    /// Wide keys with more bytes than a slot holds.
    long_keys: ByteSet,
    /// Of the keys of both tables.
    last_number: u32,
    carries: Carries,
    distinct: Option<DistinctValues>,
}

/// The table of narrow keys.
enum Narrow {
    Hashed(SumTable<u64>),
    /// Every possible key has a place.
    Dense(DenseTable),
}

impl Narrow {
    const fn len(&self) -> usize {
        match self {
            Self::Hashed(table) => table.len(),
            Self::Dense(table) => table.len(),
        }
    }

    fn for_each(&self, mut look: impl FnMut(u64, &Counts)) {
        match self {
            Self::Hashed(table) => table.iter().for_each(|(key, counts)| look(*key, counts)),
            Self::Dense(table) => table.iter().for_each(|(key, counts)| look(key, counts)),
        }
    }
}

/// What passed the width of slots, by number of the key.
#[derive(Default)]
pub(super) struct Carries(HashMap<u32, Sums>);

impl Carries {
    #[inline]
    pub(super) fn add(&mut self, counts: &mut Counts, packets: u64, bytes: u64) {
        let (bytes, bytes_carry) = counts.bytes.overflowing_add(bytes);
        let (packets, packets_carry) = packets.overflowing_add(u64::from(counts.packets));
        let [packets_low, packets_high] = halves(packets);
        counts.bytes = bytes;
        counts.packets = packets_low;
        counts.flows = counts.flows.wrapping_add(1);
        if bytes_carry || packets_carry || packets_high != 0 || counts.flows == 0 {
            self.keep(
                counts,
                bytes_carry,
                u64::from(packets_carry) << 32 | u64::from(packets_high),
            );
        }
    }

    /// Keeps multiples of 2^64 bytes and 2^32 packets and flows.
    #[cold]
    fn keep(&mut self, counts: &Counts, bytes: bool, packets: u64) {
        let carry = self.0.entry(counts.number).or_default();
        carry.bytes += u128::from(bytes) << 64;
        carry.packets += u128::from(packets) << 32;
        carry.flows += u64::from(counts.flows == 0) << 32;
    }

    pub(super) fn add_sums(&mut self, counts: &mut Counts, added: &Sums) {
        let [bytes, bytes_above] = wide_halves(u128::from(counts.bytes) + added.bytes);
        let [packets, packets_above] = wide_halves(u128::from(counts.packets) + added.packets);
        let [packets, packets_high] = halves(packets);
        let [flows, flows_high] = halves(u64::from(counts.flows) + added.flows);
        (counts.bytes, counts.packets, counts.flows) = (bytes, packets, flows);
        if bytes_above | packets_above | u64::from(packets_high | flows_high) != 0 {
            let carry = self.0.entry(counts.number).or_default();
            carry.bytes += u128::from(bytes_above) << 64;
            carry.packets += u128::from(packets_above) << 64 | u128::from(packets_high) << 32;
            carry.flows += u64::from(flows_high) << 32;
        }
    }

    pub(super) fn sums(&self, counts: &Counts) -> Sums {
        let mut sums = if self.0.is_empty() {
            Sums::default()
        } else {
            self.0.get(&counts.number).copied().unwrap_or_default()
        };
        sums.flows += u64::from(counts.flows);
        sums.packets += u128::from(counts.packets);
        sums.bytes += u128::from(counts.bytes);
        sums
    }
}

/// The low and the high half.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
#[inline]
const fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// The low and the high half.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
#[inline]
const fn wide_halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

/// Told from the seed of tables, so that the keys of a part don't share a part of its slots.
const PART_SEED: u64 = 0x7061_7274_7061_7274;

impl TopTable {
    /// An empty table; `seed` should differ from run to run.
    pub(super) fn new(spec: TopSpec, seed: u64) -> Self {
        let mixer = Mixer::with_seed(seed);
        let is_distinct = matches!(spec.metric, Metric::Distinct(_));
        let narrow = if is_dense(&spec) {
            Narrow::Dense(DenseTable::default())
        } else {
            Narrow::Hashed(SumTable::new(mixer))
        };
        Self {
            spec,
            seed,
            narrow,
            wide: SumTable::new(mixer),
            long_keys: ByteSet::new(seed),
            last_number: 0,
            carries: Carries::default(),
            distinct: is_distinct.then(|| DistinctValues::new(mixer, seed)),
        }
    }

    /// Adds the given rows of the batch that `gather` was started with; rows without a key are passed
    /// over, and those with a key of `unless` too.
    pub(super) fn add(
        &mut self,
        batch: &FlowBatch,
        rows: &Rows<'_>,
        unless: Option<&TopSpec>,
        gather: &mut Gather,
    ) {
        let values = column_of(batch, &self.spec.metric);
        if self.distinct.is_some() && values.is_none() {
            return;
        }
        let long_keys = &mut self.long_keys;
        gather.read_keys(batch, &self.spec, unless, rows, |bytes| long_keys.insert(bytes));
        let (keys, counters, hashes) = gather.parts(batch);
        let mut adder = Adder {
            last_number: &mut self.last_number,
            carries: &mut self.carries,
            distinct: self.distinct.as_mut().zip(values),
            counters,
            hashes,
        };
        match &mut self.narrow {
            Narrow::Hashed(table) => adder.add(table, keys.narrow, keys.rows),
            Narrow::Dense(table) => adder.add(table, keys.narrow, keys.rows),
        }
        adder.add(&mut self.wide, keys.wide, keys.wide_rows);
    }

    /// Adds the sums of a table whose key is the same or has this one's fields and more: those of the
    /// keys that belong to `part`.
    pub(super) fn roll_up(&mut self, from: &Self, part: Part) {
        let projection = Projection::new(&from.spec, &self.spec);
        let mixer = Mixer::with_seed(self.seed ^ PART_SEED);
        let hasher = FixedState::with_seed(self.seed ^ PART_SEED);
        let mut batch = SumsBatch::default();
        from.narrow.for_each(|key, counts| {
            let key = projection.of_narrow(key);
            if part.has(mixer.word(key)) {
                batch.narrow.push(key);
                batch.narrow_sums.push(from.carries.sums(counts));
                self.take_if_full(&mut batch);
            }
        });
        for (key, counts) in from.wide.iter() {
            let packed = key.bytes(|place, length| from.long_keys.get(place, length));
            match projection.of_packed(packed, &mut batch.packed) {
                Some(key) if part.has(mixer.word(key)) => {
                    batch.narrow.push(key);
                    batch.narrow_sums.push(from.carries.sums(counts));
                }
                None if part.has(hasher.hash_one(&batch.packed)) => {
                    let packed = &batch.packed;
                    batch.wide.push(WideKey::new(packed, || self.long_keys.insert(packed)));
                    batch.wide_sums.push(from.carries.sums(counts));
                }
                _ => {}
            }
            self.take_if_full(&mut batch);
        }
        self.take(&mut batch);
    }

    fn take_if_full(&mut self, batch: &mut SumsBatch) {
        if batch.narrow.len().max(batch.wide.len()) >= ROLL_UP_KEYS {
            self.take(batch);
        }
    }

    fn take(&mut self, batch: &mut SumsBatch) {
        let Self { narrow, wide, last_number, carries, .. } = self;
        let sums = &batch.narrow_sums;
        let add = |index: usize, counts: &mut Counts| carries.add_sums(counts, &sums[index]);
        match narrow {
            Narrow::Hashed(table) => {
                table.upsert_all(&batch.narrow, &mut batch.hashes, last_number, add);
            }
            Narrow::Dense(table) => {
                table.upsert_all(&batch.narrow, &mut batch.hashes, last_number, add);
            }
        }
        let sums = &batch.wide_sums;
        let add = |index: usize, counts: &mut Counts| carries.add_sums(counts, &sums[index]);
        wide.upsert_all(&batch.wide, &mut batch.hashes, last_number, add);
        batch.clear();
    }

    /// The largest rows of this shard.
    pub(super) fn answer(&self) -> TopAnswer {
        let key_count = (self.narrow.len() + self.wide.len()) as u64;
        let mut ranking = Ranking {
            table: self,
            distinct: self.distinct.as_ref().map(|values| values.counts(self.last_number)),
            matching_count: 0,
            kept: BinaryHeap::new(),
        };
        self.narrow.for_each(|key, counts| ranking.offer(AnyKey::Narrow(key), counts));
        self.wide.iter().for_each(|(key, counts)| ranking.offer(AnyKey::Wide(key), counts));
        let Ranking { matching_count, kept, .. } = ranking;
        let rows = kept.into_sorted_vec().into_iter().map(|candidate| candidate.row).collect();
        TopAnswer { key_count, matching_count, rows }
    }
}

/// A part of all keys, by hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) index: usize,
    pub(super) count: usize,
}

impl Part {
    fn has(self, hash: u64) -> bool {
        (u128::from(hash) * self.count as u128) >> 64 == self.index as u128
    }
}

/// Sums on their way from one table to another.
#[derive(Default)]
struct SumsBatch {
    narrow: Vec<u64>,
    narrow_sums: Vec<Sums>,
    wide: Vec<WideKey>,
    wide_sums: Vec<Sums>,
    hashes: Vec<u64>,
    packed: Vec<u8>,
}

impl SumsBatch {
    fn clear(&mut self) {
        self.narrow.clear();
        self.narrow_sums.clear();
        self.wide.clear();
        self.wide_sums.clear();
    }
}

/// Keys that are rolled up at once.
const ROLL_UP_KEYS: usize = 1024;

/// Adds keys of a batch to tables.
struct Adder<'a> {
    last_number: &'a mut u32,
    carries: &'a mut Carries,
    distinct: Option<(&'a mut DistinctValues, AnyColumn<'a>)>,
    counters: Counters<'a>,
    hashes: &'a mut Vec<u64>,
}

impl Adder<'_> {
    fn add<K>(&mut self, table: &mut impl Upsert<K>, keys: &[K], rows: &[u32]) {
        assert_eq!(keys.len(), rows.len());
        let Self { last_number, carries, distinct, counters, hashes } = self;
        let mut add = |index: usize, counts: &mut Counts| {
            let row = rows[index] as usize;
            carries.add(counts, counters.packets[row], counters.bytes[row]);
        };
        let Some((values, column)) = distinct else {
            table.upsert_all(keys, hashes, last_number, add);
            return;
        };
        values.read(column, rows);
        table.upsert_all(keys, hashes, last_number, |index, counts| {
            add(index, counts);
            values.note(index, rows[index], counts);
        });
        values.settle(column);
    }
}

/// A key of either table.
#[derive(Clone, Copy)]
enum AnyKey<'a> {
    Narrow(u64),
    Wide(&'a WideKey),
}

/// The largest rows so far; the greatest of the heap is the first to leave.
struct Ranking<'a> {
    table: &'a TopTable,
    /// Values that are not in marks, by number of the key.
    distinct: Option<Vec<u32>>,
    matching_count: u64,
    kept: BinaryHeap<Candidate>,
}

impl Ranking<'_> {
    fn offer(&mut self, key: AnyKey<'_>, counts: &Counts) {
        let spec = &self.table.spec;
        let sums = self.table.carries.sums(counts);
        let in_sets = self.distinct.as_ref().map(|in_sets| in_sets[counts.number as usize]);
        let distinct = in_sets.map(|in_sets| u64::from(in_sets) + u64::from(counts.mark != 0));
        let value = spec.metric.value(&sums, distinct);
        if value < spec.metric_min {
            return;
        }
        self.matching_count += 1;
        let is_full = self.kept.len() == spec.rows_max;
        if spec.rows_max == 0
            || is_full && self.kept.peek().is_some_and(|worst| worst.value > value)
        {
            return;
        }
        let row = self.table.row(key, sums, distinct);
        self.kept.push(Candidate { value, row });
        if is_full {
            self.kept.pop();
        }
    }
}

impl TopTable {
    fn row(&self, key: AnyKey<'_>, sums: Sums, distinct: Option<u64>) -> TopRow {
        let mut narrow = Vec::new();
        let packed = match key {
            AnyKey::Narrow(key) => {
                pack_narrow(key, &self.spec.by, &mut narrow);
                &narrow
            }
            AnyKey::Wide(key) => key.bytes(|place, length| self.long_keys.get(place, length)),
        };
        let (window_start, packed) = if self.spec.window_seconds.is_some() {
            let (start, rest) = unpack_window(packed);
            (Some(start), rest)
        } else {
            (None, packed)
        };
        TopRow { window_start, key: unpack(packed, &self.spec.by), sums, distinct }
    }
}
