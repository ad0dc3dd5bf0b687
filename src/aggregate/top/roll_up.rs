//! Sums of one table added to another whose key is the same or a part of it.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;

use super::TopSpec;
use super::gather::{is_narrow, narrow_bits};
use super::loss::Loss;
use super::sums::{Added, AnyKey, SumsBatch, TopTable};
use crate::aggregate::key::packed_fields;
use crate::aggregate::table::{Counts, Mixer, WideKey};
use crate::record::{FieldKind, Slot};

/// Told from the seed of tables, so that the keys of a part don't share a part of its slots.
const PART_SEED: u64 = 0x7061_7274_7061_7274;

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

/// Adds sums of keys to the table of a smaller key.
pub(super) struct RollUp<'a> {
    to: &'a mut TopTable,
    projection: Projection,
    part: Part,
    mixer: Mixer,
    hasher: FixedState,
    batch: SumsBatch,
    packed: Vec<u8>,
}

impl<'a> RollUp<'a> {
    /// From a table of `from` to `to`: the keys that belong to `part`.
    pub(super) fn new(from: &TopSpec, to: &'a mut TopTable, part: Part) -> Self {
        Self {
            projection: Projection::new(from, &to.spec),
            mixer: Mixer::with_seed(to.seed ^ PART_SEED),
            hasher: FixedState::with_seed(to.seed ^ PART_SEED),
            to,
            part,
            batch: SumsBatch::default(),
            packed: Vec::new(),
        }
    }

    /// From one table to one that it leaves entries to.
    pub(super) fn of_all(from: &TopSpec, to: &'a mut TopTable) -> Self {
        Self::new(from, to, Part { index: 0, count: 1 })
    }

    /// Adds the sums of a narrow key.
    pub(super) fn add_narrow(&mut self, key: u64, added: Added, from: Option<&Loss>) {
        let key = self.projection.of_narrow(key);
        if self.part.count == 1 || self.part.has(self.mixer.word(key)) {
            self.batch.narrow.push(key);
            self.batch.narrow_sums.push(added);
            self.take_if_full(from);
        }
    }

    /// Adds the sums of a packed key.
    pub(super) fn add_packed(&mut self, key: &[u8], added: Added, from: Option<&Loss>) {
        let Self { to, projection, part, mixer, hasher, batch, packed } = self;
        match projection.of_packed(key, packed) {
            Some(key) if part.has(mixer.word(key)) => {
                batch.narrow.push(key);
                batch.narrow_sums.push(added);
            }
            None if part.has(hasher.hash_one(&*packed)) => {
                batch.wide.push(WideKey::new(packed, || to.long_keys.insert(packed)));
                batch.wide_sums.push(added);
            }
            _ => {}
        }
        self.take_if_full(from);
    }

    fn take_if_full(&mut self, from: Option<&Loss>) {
        if self.batch.is_full() {
            self.finish(from);
        }
    }

    /// Adds what is still on the way; `from` is what the keys may have lost where they come from, if they
    /// are the same keys.
    pub(super) fn finish(&mut self, from: Option<&Loss>) {
        self.to.take(&mut self.batch, |added, counts, loss| {
            if let Some(from) = from {
                loss.take_over(counts.number, from, added.number);
            }
        });
        // Now, while no key on its way stands in what may be made anew.
        if self.to.is_full_with(SumsBatch::MOST) {
            self.to.purge(SumsBatch::MOST, &mut []);
        }
    }
}

impl TopTable {
    /// Adds the sums of a table whose key is the same or has this one's fields and more: those of the
    /// keys that belong to `part`.
    pub(super) fn roll_up(&mut self, from: &Self, part: Part) {
        let is_same_key = from.spec == self.spec;
        if is_same_key {
            self.loss.add_bound(&from.loss);
            if part.index == 0 {
                self.loss.add_evicted(&from.loss);
            }
        }
        let loss = Some(&from.loss).filter(|loss| is_same_key && loss.of_missing() > 0);
        let mut roll_up = RollUp::new(&from.spec, self, part);
        from.for_each(|key, counts| {
            let added = Added { sums: from.carries.sums(counts), number: counts.number, mark: 0 };
            match key {
                AnyKey::Narrow(key) => roll_up.add_narrow(key, added, loss),
                AnyKey::Wide(key) => roll_up.add_packed(from.packed(key), added, loss),
            }
        });
        roll_up.finish(loss);
    }

    /// Looks at all keys.
    pub(super) fn for_each(&self, mut look: impl FnMut(AnyKey<'_>, &Counts)) {
        self.narrow.for_each(|key, counts| look(AnyKey::Narrow(key), counts));
        self.wide.iter().for_each(|(key, counts)| look(AnyKey::Wide(key), counts));
    }
}

/// Where the fields of a key stand in another's.
pub(super) struct Projection {
    /// For each field of the smaller key: its place among the fields of the larger one.
    places: Vec<usize>,
    /// The larger key's fields.
    by: Vec<Slot>,
    /// For each field of the smaller key: how far right it stands in a larger one that is narrow, and
    /// its bits.
    narrow: Vec<(u32, u32)>,
    to_narrow: bool,
}

impl Projection {
    /// # Panics
    /// If a field of `to` is none of `from`.
    pub(super) fn new(from: &TopSpec, to: &TopSpec) -> Self {
        let place_of = |slot: &Slot| from.by.iter().position(|other| other == slot);
        let places: Vec<usize> = to
            .by
            .iter()
            .map(|slot| place_of(slot).expect("a question's fields are among its base's"))
            .collect();
        let right_of = |place: usize| from.by[place + 1..].iter().filter_map(narrow_bits).sum();
        let bits_of = |place: usize| narrow_bits(&from.by[place]).unwrap_or(0);
        let narrow = places.iter().map(|place| (right_of(*place), bits_of(*place))).collect();
        Self { places, by: from.by.clone(), narrow, to_narrow: is_narrow(to) }
    }

    /// The smaller key of a larger, narrow one.
    pub(super) fn of_narrow(&self, key: u64) -> u64 {
        self.narrow.iter().fold(0, |smaller, (right, bits)| {
            let field = key.checked_shr(*right).unwrap_or(0) & (u64::MAX >> (u64::BITS - bits));
            smaller.checked_shl(*bits).unwrap_or(0) | field
        })
    }

    /// Packs the smaller key of a larger, packed one, and returns it as a narrow one if it is.
    pub(super) fn of_packed(&self, key: &[u8], packed: &mut Vec<u8>) -> Option<u64> {
        packed.clear();
        for place in &self.places {
            let (_, field) =
                packed_fields(key, &self.by).nth(*place).expect("the key has all its fields");
            packed.extend_from_slice(field);
        }
        let slots = self.places.iter().map(|place| &self.by[*place]);
        if self.to_narrow { narrow_of(packed, slots) } else { None }
    }
}

/// The narrow key of packed fields; `None` if one of them is an IPv6 address.
fn narrow_of<'a>(packed: &[u8], slots: impl Iterator<Item = &'a Slot>) -> Option<u64> {
    packed_fields(packed, slots).try_fold(0_u64, |key, (slot, field)| {
        let value = match (slot.kind(), field) {
            (FieldKind::Addr, [4, bits @ ..]) => bits,
            (FieldKind::Addr, _) => return None,
            _ => field,
        };
        Some(value.iter().fold(key, |key, byte| key << 8 | u64::from(*byte)))
    })
}
