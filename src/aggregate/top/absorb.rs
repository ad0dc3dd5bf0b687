//! Tops of another set added to this one: of another process, or of another division into shards.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::TopSpec;
use super::distinct::DistinctValues;
use super::gather::pack_narrow;
use super::plan::{RowsOf, TopPlan};
use super::purge::purge;
use super::set::TopSet;
use super::sums::{Added, AnyKey, More, SumsBatch, TopTable};
use crate::aggregate::key::{packed_addr, packed_fields};
use crate::aggregate::pair_hash;
use crate::aggregate::route::{OWNER_SEED, owner};
use crate::aggregate::table::{Counts, Key, Mixer, WideKey};
use crate::record::{FieldId, Slot};

/// A shard that takes over its keys from shards of another division.
#[derive(Clone, Copy, Debug)]
pub struct Heir {
    /// Its index.
    pub shard: usize,
    /// How many shards there are now.
    pub shard_count: usize,
    /// The seed of the [`Router`](crate::aggregate::Router) that deals rows out to them.
    pub router_seed: u64,
    /// Whether it takes over the keys that any shard may have: exactly one shard must.
    pub takes_shared: bool,
}

impl TopSet {
    /// Adds what `other`, a set of the same questions, has counted. In whatever order sets are put
    /// together, the answers are those of one set that saw all rows; if entries left, bounds add up.
    /// Sketches of distinct values are put together without loss only if both sets have the same seed.
    ///
    /// # Panics
    /// If the questions are not the same.
    pub fn absorb(&mut self, other: &Self) {
        self.absorb_keys(other, |_, _, _| true, true);
    }

    /// Adds those of the keys that `other`, a shard of another division, has counted, that belong to this
    /// one as `heir`. What the shards of the other division lost adds up, for they lost different keys.
    ///
    /// # Panics
    /// If the questions are not the same.
    pub fn absorb_owned(&mut self, other: &Self, heir: &Heir) {
        let owners = Owners::new(heir);
        let takes = |rows: RowsOf, table: &TopTable, key: AnyKey<'_>| match rows {
            RowsOf::AnyShard => heir.takes_shared,
            RowsOf::Rule(rule) => owners.owner_of(rule, table, key) == heir.shard,
        };
        self.absorb_keys(other, takes, heir.takes_shared);
    }

    fn absorb_keys(
        &mut self,
        other: &Self,
        takes: impl Fn(RowsOf, &TopTable, AnyKey<'_>) -> bool,
        counts_evicted: bool,
    ) {
        assert_eq!(self.plan, other.plan, "sets of the same questions");
        for (index, (rule, from)) in self.plan.tops.iter().zip(&other.tables).enumerate() {
            if rule.rows == RowsOf::AnyShard && !counts_evicted {
                continue;
            }
            let table = &mut self.tables[index];
            table.absorb(from, |key| takes(rule.rows, from, key));
            if counts_evicted {
                table.loss.add_evicted(&from.loss);
            }
        }
        self.purge_to_limit();
    }

    /// Has entries leave until the tables are within their limits.
    pub(super) fn purge_to_limit(&mut self) {
        for index in 0..self.tables.len() {
            // Each round at least halves what there is.
            for _ in 0..PURGES_MAX {
                if !self.tables[index].is_full_with(More::NONE) {
                    break;
                }
                purge(&mut self.tables, &self.plan, index, More::NONE);
            }
        }
    }
}

/// Purges of a table that took up another one.
const PURGES_MAX: usize = 4;

impl TopTable {
    fn absorb(&mut self, other: &Self, takes: impl Fn(AnyKey<'_>) -> bool) {
        self.loss.add_bound(&other.loss);
        let place_count = if self.distinct.is_some() { other.last_number as usize + 1 } else { 0 };
        let mut places = Places {
            numbers: vec![0; place_count],
            marks: vec![0; place_count],
            values: Vec::new(),
            sketch_count: self.distinct.as_ref().map_or(0, DistinctValues::sketch_count),
        };
        let mut batch = SumsBatch::default();
        other.for_each(|key, counts| {
            if !takes(key) {
                return;
            }
            let sums = other.carries.sums(counts);
            let added = Added { sums, number: counts.number, mark: counts.mark };
            match key {
                AnyKey::Narrow(key) => {
                    batch.narrow.push(key);
                    batch.narrow_sums.push(added);
                }
                AnyKey::Wide(key) => {
                    let packed = other.packed(key);
                    batch.wide.push(WideKey::new(packed, || self.long_keys.insert(packed)));
                    batch.wide_sums.push(added);
                }
            }
            if batch.is_full() {
                self.take_others(&mut batch, other, &mut places);
            }
        });
        self.take_others(&mut batch, other, &mut places);
        self.absorb_values(other, places);
    }

    fn take_others(&mut self, batch: &mut SumsBatch, other: &Self, places: &mut Places) {
        self.take(batch, |added, counts, loss| {
            loss.take_over(counts.number, &other.loss, added.number);
            places.note(added, counts);
        });
    }

    fn absorb_values(&mut self, other: &Self, mut places: Places) {
        let (Some(mine), Some(others)) = (&self.distinct, &other.distinct) else { return };
        // Where others have a sketch there must be one here.
        let mut sketched = vec![false; self.last_number as usize + 1];
        let mut is_missing = false;
        for number in &places.numbers[1..=others.sketch_count() as usize] {
            sketched[*number as usize] |= *number != 0;
            is_missing |= *number != 0 && !mine.is_sketched(*number);
        }
        if is_missing {
            let has_many = |counts: &Counts| sketched[counts.number as usize];
            let numbers = self.rebuild(None, None, has_many, &mut []);
            places.numbers.iter_mut().for_each(|number| *number = numbers[*number as usize]);
            places.values.iter_mut().for_each(|(number, _)| *number = numbers[*number as usize]);
        }
        let mine = self.distinct.as_mut().expect("it was there above");
        mine.insert_values(&places.values);
        let lost = mine.absorb(others, &places.numbers, &places.marks);
        if lost > 0 {
            self.loss.add_to_all(lost.into());
        }
    }
}

/// Where the keys of the other table went, by their numbers there; empty if no values hang on it.
struct Places {
    numbers: Vec<u32>,
    /// The keys' marks here.
    marks: Vec<u32>,
    /// Values that stood in marks and don't here, with the number of the key here.
    values: Vec<(u32, u32)>,
    sketch_count: u32,
}

impl Places {
    fn note(&mut self, added: &Added, counts: &mut Counts) {
        let place = added.number as usize;
        let Some(number) = self.numbers.get_mut(place) else { return };
        *number = counts.number;
        if counts.mark == 0 {
            counts.mark = added.mark;
        }
        self.marks[place] = counts.mark;
        let is_in_mark = added.mark == counts.mark && counts.number > self.sketch_count;
        if added.mark != 0 && !is_in_mark {
            self.values.push((counts.number, added.mark - 1));
        }
    }
}

/// Which shard owns which key, as a router tells it.
struct Owners {
    heir: Heir,
    mixer: Mixer,
    hasher: FixedState,
}

impl Owners {
    fn new(heir: &Heir) -> Self {
        let seed = heir.router_seed ^ OWNER_SEED;
        let (mixer, hasher) = (Mixer::with_seed(seed), FixedState::with_seed(seed));
        Self { heir: *heir, mixer, hasher }
    }

    fn owner_of(&self, rule: usize, table: &TopTable, key: AnyKey<'_>) -> usize {
        let hash = if rule == TopPlan::PAIR_RULE {
            self.pair_hash(table, key)
        } else {
            match key {
                AnyKey::Narrow(key) => key.hash(&self.mixer),
                AnyKey::Wide(key) => {
                    let packed = table.packed(key);
                    WideKey::new(packed, || self.hasher.hash_one(packed)).hash(&self.mixer)
                }
            }
        };
        owner(hash, self.heir.shard_count).into()
    }

    fn pair_hash(&self, table: &TopTable, key: AnyKey<'_>) -> u64 {
        let TopSpec { by, window_seconds, .. } = &table.spec;
        let mut narrow = Vec::new();
        let packed = match key {
            AnyKey::Narrow(key) => {
                pack_narrow(key, by, &mut narrow);
                &narrow
            }
            AnyKey::Wide(key) => table.packed(key),
        };
        let fields = if window_seconds.is_some() { &packed[8..] } else { packed };
        let addr = |field| {
            packed_fields(fields, by)
                .find(|(slot, _)| **slot == Slot::Known(field))
                .map(|(_, packed)| packed_addr(packed))
                .expect("a key that pairs own has both addresses")
        };
        pair_hash(addr(FieldId::SrcAddr), addr(FieldId::DstAddr), self.heir.router_seed)
    }
}
