//! Where in the account a contact was seen: interface, account, VPC and subnet, kept once per pane.
//!
//! Contacts refer to places by number. Of the many interfaces that may see a contact (both ends, NAT
//! gateways, load balancers) each contact keeps two, always the lowest by name, so that the choice
//! doesn't depend on the order of records. The texts of all places stand one after the other in one
//! buffer, found by a hash that is made before, so that its entry can be fetched ahead.

use super::contact_hash::{folded, spread};
use crate::simd;

/// How many places a pane keeps; contacts seen at further ones have no place.
const PLACES_MAX: usize = 65_536;

/// An interface and what the records say about where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// `interface-id`
    pub interface_id: Option<String>,
    /// `account-id`
    pub account_id: Option<String>,
    /// `vpc-id`
    pub vpc_id: Option<String>,
    /// `subnet-id`
    pub subnet_id: Option<String>,
}

/// A place as it stands in a record; in the order of [`Place`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PlaceRef<'a>(pub(super) [Option<&'a [u8]>; 4]);

impl PlaceRef<'_> {
    /// A hash of all parts; 0 is that of a record without any.
    #[inline]
    pub(super) fn hash(&self, seed: u64) -> u64 {
        if self.0.iter().all(Option::is_none) {
            return 0;
        }
        let mut hash = seed;
        for part in self.0 {
            hash = match part {
                Some(text) => hash_of(text, hash),
                None => hash.rotate_left(7) ^ 1,
            };
        }
        spread(hash).max(1)
    }

    fn to_place(self) -> Place {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let [interface_id, account_id, vpc_id, subnet_id] = self.0.map(|part| part.map(text));
        Place { interface_id, account_id, vpc_id, subnet_id }
    }
}

/// A seeded hash of a text, sixteen bytes a step.
#[inline]
fn hash_of(text: &[u8], seed: u64) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    };
    let mut hash = seed ^ (text.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = text.as_chunks::<8>();
    for eight in words {
        hash = folded(hash ^ u64::from_le_bytes(*eight), 0xbf58_476d_1ce4_e5b9 ^ seed);
    }
    folded(hash ^ word(rest), 0x94d0_49bb_1331_11eb ^ seed)
}

/// The places of a contact: up to two numbers of a pane's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlaceIds([u32; 2]);

const NO_PLACE: u32 = u32::MAX;

impl Default for PlaceIds {
    fn default() -> Self {
        Self([NO_PLACE; 2])
    }
}

impl PlaceIds {
    /// The numbers, in no particular order.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        self.0.into_iter().filter(|id| *id != NO_PLACE)
    }

    /// Adds a place of `places`; of three the highest leaves.
    #[inline]
    pub(super) fn insert(&mut self, id: u32, places: &Places) {
        if self.0[0] == id || self.0[1] == id {
            return;
        }
        if let Some(free) = self.0.iter_mut().find(|slot| **slot == NO_PLACE) {
            *free = id;
            return;
        }
        let by_name = |id: &u32| places.text(*id);
        let highest = self.0.iter_mut().max_by_key(|id| by_name(id)).expect("there are two slots");
        if by_name(&id) < by_name(highest) {
            *highest = id;
        }
    }

    /// Adds the places of `other`; both refer to `places`.
    pub(super) fn merge(&mut self, other: Self, places: &Places) {
        other.iter().for_each(|id| self.insert(id, places));
    }

    /// These places of `from`, as numbers of `to`.
    pub(super) fn moved(self, from: &Places, to: &mut Places) -> Self {
        let mut moved = Self::default();
        for id in self.iter() {
            let place = from.text(id);
            if let Some(id) = to.id_of(place, place.hash(to.seed)) {
                moved.insert(id, to);
            }
        }
        moved
    }
}

/// Where a place's texts stand.
#[derive(Clone, Copy, Debug)]
struct Texts {
    start: usize,
    /// Ends of the parts, counted from `start`; [`ABSENT`] for a part that the records don't have.
    ends: [u32; 4],
}

const ABSENT: u32 = u32::MAX;

/// An entry of the table: free if `hash` is 0.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    hash: u64,
    id: u32,
}

/// The places of one pane, each with a number.
#[derive(Debug)]
pub struct Places {
    seed: u64,
    text: Vec<u8>,
    list: Vec<Texts>,
    /// A power of two, at most half in use.
    entries: Vec<Entry>,
}

impl Places {
    pub(super) fn new(seed: u64) -> Self {
        let entries = vec![Entry::default(); 64];
        Self { seed: spread(seed), text: Vec::new(), list: Vec::new(), entries }
    }

    /// The hash with which [`Self::id_of`] looks for a place.
    #[inline]
    pub(super) fn hash(&self, place: PlaceRef<'_>) -> u64 {
        place.hash(self.seed)
    }

    /// Asks for the entry that [`Self::id_of`] will look at.
    #[inline]
    pub(super) fn prefetch(&self, hash: u64) {
        simd::prefetch(&self.entries, self.first_position(hash));
    }

    /// The number of a place, if the record has one and the list has room.
    #[inline]
    pub(super) fn id_of(&mut self, place: PlaceRef<'_>, hash: u64) -> Option<u32> {
        if hash == 0 {
            return None;
        }
        let mask = self.entries.len() - 1;
        let mut position = self.first_position(hash);
        loop {
            let entry = self.entries[position & mask];
            if entry.hash == hash && self.text(entry.id) == place {
                return Some(entry.id);
            }
            if entry.hash == 0 {
                return self.insert(place, hash);
            }
            position += 1;
        }
    }

    #[cold]
    fn insert(&mut self, place: PlaceRef<'_>, hash: u64) -> Option<u32> {
        if self.list.len() >= PLACES_MAX {
            return None;
        }
        let id = u32::try_from(self.list.len()).expect("bounded by PLACES_MAX");
        let start = self.text.len();
        let ends = place.0.map(|part| match part {
            None => ABSENT,
            Some(text) => {
                self.text.extend_from_slice(text);
                u32::try_from(self.text.len() - start).expect("a record is far below 4 GiB")
            }
        });
        self.list.push(Texts { start, ends });
        if self.list.len() * 2 > self.entries.len() {
            let grown = vec![Entry::default(); self.entries.len() * 2];
            for entry in std::mem::replace(&mut self.entries, grown) {
                if entry.hash != 0 {
                    self.place_entry(entry);
                }
            }
        }
        self.place_entry(Entry { hash, id });
        Some(id)
    }

    fn place_entry(&mut self, entry: Entry) {
        let mask = self.entries.len() - 1;
        let mut position = self.first_position(entry.hash);
        while self.entries[position].hash != 0 {
            position = (position + 1) & mask;
        }
        self.entries[position] = entry;
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to the table's length")]
    fn first_position(&self, hash: u64) -> usize {
        hash as usize & (self.entries.len() - 1)
    }

    /// The place with this number, as records have it.
    #[inline]
    fn text(&self, id: u32) -> PlaceRef<'_> {
        let Texts { start, ends } = self.list[id as usize];
        let mut from = start;
        PlaceRef(ends.map(|end| {
            (end != ABSENT).then(|| {
                let part = from..start + end as usize;
                from = part.end;
                &self.text[part]
            })
        }))
    }

    /// The place with this number.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn place(&self, id: u32) -> Place {
        self.text(id).to_place()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> PlaceRef<'_> {
        PlaceRef([Some(name.as_bytes()), None, None, None])
    }

    fn id_of(places: &mut Places, place: PlaceRef<'_>) -> Option<u32> {
        let hash = places.hash(place);
        places.id_of(place, hash)
    }

    #[test]
    fn a_place_keeps_its_number() {
        let mut places = Places::new(1);
        let ids: Vec<_> = ["a", "b", "a", "a", "b"].map(|name| id_of(&mut places, named(name))).into();
        assert_eq!(ids, [0, 1, 0, 0, 1].map(Some));
        assert_eq!(id_of(&mut places, PlaceRef::default()), None);
        assert_eq!(places.place(1).interface_id.as_deref(), Some("b"));
    }

    #[test]
    fn parts_are_told_apart_and_many_places_fit() {
        let parts = |one: &'static str, other: &'static str| {
            PlaceRef([Some(one.as_bytes()), None, Some(other.as_bytes()), None])
        };
        let mut places = Places::new(1);
        for place in [parts("ab", "c"), parts("a", "bc"), parts("abc", ""), named("abc")] {
            id_of(&mut places, place);
        }
        let names: Vec<String> = (0..1000).map(|number| format!("eni-{number:017}")).collect();
        for _ in 0..2 {
            for (number, name) in (4..).zip(&names) {
                assert_eq!(id_of(&mut places, named(name)), Some(number));
            }
        }
        assert_eq!(places.place(1), parts("a", "bc").to_place());
    }

    #[test]
    fn the_two_lowest_places_stay_in_any_order() {
        let mut places = Places::new(1);
        let [c, a, b] = ["c", "a", "b"].map(|name| id_of(&mut places, named(name)).unwrap());
        for order in [[a, b, c], [c, b, a], [b, c, a], [c, a, b]] {
            let mut kept = PlaceIds::default();
            for id in order {
                kept.insert(id, &places);
            }
            let mut kept: Vec<u32> = kept.iter().collect();
            kept.sort_unstable();
            assert_eq!(kept, [a, b]);
        }
    }
}
