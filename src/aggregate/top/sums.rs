//! The sums of one top in one shard.
//!
//! Two tables, for narrow keys and wide ones (see `gather`). Slots hold the low bits of sums; what
//! passes them is carried beside the table, so that sums are exact whatever records claim. What happens
//! when memory is short is in `purge`.

use super::carries::Carries;
use super::distinct::{DistinctValues, column_of};
use super::gather::{Counters, Gather};
use super::loss::Loss;
use super::plan::is_dense;
use super::{Metric, TopSpec};
use crate::aggregate::key::AnyColumn;
use crate::aggregate::route::Rows;
use crate::aggregate::table::{ByteSet, Counts, DenseTable, Mixer, SumTable, Upsert, WideKey};
use crate::aggregate::totals::Sums;
use crate::record::FlowBatch;

/// The sums of one top in one shard.
pub(super) struct TopTable {
    pub(super) spec: TopSpec,
    pub(super) seed: u64,
    /// Bytes from which on entries leave.
    pub(super) bytes_max: usize,
    pub(super) narrow: Narrow,
    pub(super) wide: SumTable<WideKey>,
    /// Wide keys with more bytes than a slot holds.
    pub(super) long_keys: ByteSet,
    /// Of the keys of both tables, which have all numbers from 1 on.
    pub(super) last_number: u32,
    pub(super) carries: Carries,
    pub(super) loss: Loss,
    pub(super) distinct: Option<DistinctValues>,
}

/// The table of narrow keys.
pub(super) enum Narrow {
    Hashed(SumTable<u64>),
    /// Every possible key has a place.
    Dense(DenseTable),
}

impl Narrow {
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Hashed(table) => table.len(),
            Self::Dense(table) => table.len(),
        }
    }

    pub(super) fn for_each(&self, mut look: impl FnMut(u64, &Counts)) {
        match self {
            Self::Hashed(table) => table.iter().for_each(|(key, counts)| look(*key, counts)),
            Self::Dense(table) => table.iter().for_each(|(key, counts)| look(key, counts)),
        }
    }

    const fn bytes(&self) -> usize {
        match self {
            Self::Hashed(table) => table.bytes(),
            Self::Dense(table) => table.bytes(),
        }
    }

    const fn saved_bytes(&self) -> usize {
        match self {
            Self::Hashed(table) => table.saved_bytes(),
            Self::Dense(table) => table.bytes(),
        }
    }

    const fn bytes_with(&self, more: usize) -> usize {
        match self {
            Self::Hashed(table) => table.bytes_with(more),
            Self::Dense(_) => DenseTable::BYTES,
        }
    }
}

/// A key of either table.
#[derive(Clone, Copy)]
pub(super) enum AnyKey<'a> {
    Narrow(u64),
    Wide(&'a WideKey),
}

/// Sums on their way from one table to another.
#[derive(Clone, Copy)]
pub(super) struct Added {
    pub(super) sums: Sums,
    /// The number of the key, and its mark, in the table that they come from.
    pub(super) number: u32,
    pub(super) mark: u32,
}

/// Some of them, with their keys.
#[derive(Default)]
pub(super) struct SumsBatch {
    pub(super) narrow: Vec<u64>,
    pub(super) narrow_sums: Vec<Added>,
    pub(super) wide: Vec<WideKey>,
    pub(super) wide_sums: Vec<Added>,
    hashes: Vec<u64>,
}

impl SumsBatch {
    /// Keys of either kind that go on at once.
    const KEYS: usize = 1024;

    /// All that it may hold.
    pub(super) const MOST: More = More { narrow: Self::KEYS, wide: Self::KEYS };

    pub(super) fn is_full(&self) -> bool {
        self.narrow.len().max(self.wide.len()) >= Self::KEYS
    }

    fn clear(&mut self) {
        self.narrow.clear();
        self.narrow_sums.clear();
        self.wide.clear();
        self.wide_sums.clear();
    }
}

impl TopTable {
    /// An empty table; `seed` should differ from run to run.
    pub(super) fn new(spec: TopSpec, seed: u64, bytes_max: usize) -> Self {
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
            bytes_max,
            narrow,
            wide: SumTable::new(mixer),
            long_keys: ByteSet::new(seed),
            last_number: 0,
            carries: Carries::default(),
            loss: Loss::default(),
            distinct: is_distinct.then(|| DistinctValues::new(seed)),
        }
    }

    /// Has `gather` read the keys of the given rows of the batch that it was started with; rows without a
    /// key are passed over, and those with a key of `unless` too.
    pub(super) fn read(
        &mut self,
        batch: &FlowBatch,
        rows: &Rows<'_>,
        unless: Option<&TopSpec>,
        gather: &mut Gather,
    ) {
        let long_keys = &mut self.long_keys;
        gather.read_keys(batch, &self.spec, unless, rows, |bytes| long_keys.insert(bytes));
    }

    /// Whether the batch has what this question counts.
    pub(super) fn counts_in(&self, batch: &FlowBatch) -> bool {
        self.distinct.is_none() || column_of(batch, &self.spec.metric).is_some()
    }

    /// Adds the rows whose keys were read last.
    pub(super) fn add(&mut self, batch: &FlowBatch, gather: &mut Gather) {
        let values = column_of(batch, &self.spec.metric);
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

    /// Adds the sums of a batch and clears it; `note` is told where each went.
    pub(super) fn take(
        &mut self,
        batch: &mut SumsBatch,
        mut note: impl FnMut(&Added, &mut Counts, &mut Loss),
    ) {
        let Self { narrow, wide, last_number, carries, loss, .. } = self;
        let mut add = |added: &Added, counts: &mut Counts| {
            carries.add_sums(counts, &added.sums);
            note(added, counts, loss);
        };
        let sums = &batch.narrow_sums;
        let add_narrow = |index: usize, counts: &mut Counts| add(&sums[index], counts);
        match narrow {
            Narrow::Hashed(table) => {
                table.upsert_all(&batch.narrow, &mut batch.hashes, last_number, add_narrow);
            }
            Narrow::Dense(table) => {
                table.upsert_all(&batch.narrow, &mut batch.hashes, last_number, add_narrow);
            }
        }
        let sums = &batch.wide_sums;
        let add_wide = |index: usize, counts: &mut Counts| add(&sums[index], counts);
        wide.upsert_all(&batch.wide, &mut batch.hashes, last_number, add_wide);
        batch.clear();
    }

    /// The packed bytes of a wide key.
    pub(super) fn packed<'a>(&'a self, key: &'a WideKey) -> &'a [u8] {
        key.bytes(|place, length| self.long_keys.get(place, length))
    }

    /// How many keys it holds.
    pub(super) const fn len(&self) -> usize {
        self.narrow.len() + self.wide.len()
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        let distinct = self.distinct.as_ref().map_or(0, DistinctValues::bytes);
        let tables = self.narrow.bytes() + self.wide.bytes() + self.long_keys.bytes();
        tables + self.carries.bytes() + self.loss.bytes() + distinct
    }

    /// About as many bytes as it takes when it is saved.
    pub(super) fn saved_bytes(&self) -> usize {
        let keys = self.narrow.saved_bytes() + self.wide.saved_bytes();
        keys + (self.bytes() - self.key_bytes())
    }

    /// Bytes of the tables of keys.
    pub(super) const fn key_bytes(&self) -> usize {
        self.narrow.bytes() + self.wide.bytes()
    }

    /// Bytes of the tables of keys once there is room for more.
    pub(super) const fn key_bytes_with(&self, more: More) -> usize {
        self.narrow.bytes_with(more.narrow) + self.wide.bytes_with(more.wide)
    }

    /// Whether it might pass its limit if that many keys were added. Hangs on what is in it alone, and
    /// not on how it came there.
    pub(super) fn is_full_with(&self, more: More) -> bool {
        if self.bytes_max == usize::MAX {
            return false;
        }
        let keys = self.key_bytes_with(more);
        let beside = self.long_keys.bytes_at_most()
            + self.carries.bytes_at_most()
            + self.loss.bytes_in_use();
        match &self.distinct {
            None => keys + beside > self.bytes_max,
            Some(values) => {
                let values = values.bytes_with(more.narrow + more.wide);
                keys > self.bytes_max / 2 || keys + beside + values > self.bytes_max
            }
        }
    }
}

/// How many keys are to be added, at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct More {
    pub(super) narrow: usize,
    pub(super) wide: usize,
}

impl More {
    pub(super) const NONE: Self = Self { narrow: 0, wide: 0 };
}

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
