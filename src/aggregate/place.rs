//! Where in the account a contact was seen: interface, account, VPC and subnet, each kept once.
//!
//! Contacts refer to places by number in a list that a shard's panes share, because the same interfaces come
//! again and again; a closed pane keeps the list as it was then. Of the many interfaces that may see a contact (both ends, NAT
//! gateways, load balancers) each contact keeps two, always the lowest by name, so that the choice
//! doesn't depend on the order of records. Entries of the table hold the usual texts themselves, so that a
//! place is found with one access to memory, which can be asked for ahead.

use std::sync::Arc;

use super::contact_hash::{folded, spread};
use super::contact_index::ContactIndex;
use crate::simd;

/// How many places a list keeps; contacts seen at further ones have no place.
const PLACES_MAX: usize = 1 << 18;

/// With more places than this, a new pane begins a new list, so that it has room for many of its own.
const PLACES_OLD_MAX: usize = 1 << 16;

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
    pub(super) fn to_place(self) -> Place {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let [interface_id, account_id, vpc_id, subnet_id] = self.0.map(|part| part.map(text));
        Place { interface_id, account_id, vpc_id, subnet_id }
    }
}

/// How much of a place's text its key holds: interface and account, or a bit more.
const KEY_TEXT_MAX: usize = 48;

/// What a place is looked for by: the lengths of the parts and as much of their text as fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PlaceKey {
    text: [u64; KEY_TEXT_MAX / 8],
    /// 0 for a record without place; the highest bit says [`Self::is_cut`].
    hash: u64,
    /// One byte for each part; 255 for one that is absent.
    lengths: u32,
}

const IS_CUT: u64 = 1 << 63;

const NO_KEY: PlaceKey = PlaceKey { text: [0; KEY_TEXT_MAX / 8], hash: 0, lengths: 0 };

impl PlaceKey {
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "masked to eight bits")]
    fn of(place: PlaceRef<'_>, seed: u64) -> Self {
        let mut key = NO_KEY;
        let mut is_cut = false;
        if place.0.iter().all(Option::is_none) {
            return key;
        }
        let mut text = [0; KEY_TEXT_MAX];
        let mut used = 0;
        for part in place.0 {
            let length = part.map_or(0, <[u8]>::len);
            let fits = length < 255 && used + length <= KEY_TEXT_MAX;
            match part {
                Some(part) if fits => copy_short(part, &mut text[used..]),
                Some(_) => is_cut = true,
                None => {}
            }
            let code = part.map_or(255, |part| (part.len() & 0xff) as u32);
            key.lengths = key.lengths << 8 | code;
            used += if fits { length } else { 0 };
        }
        let mut hash = seed ^ u64::from(key.lengths);
        for (word, eight) in key.text.iter_mut().zip(text.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*eight);
            hash = folded(hash ^ *word, 0xbf58_476d_1ce4_e5b9 ^ seed);
        }
        if is_cut {
            for part in place.0.into_iter().flatten() {
                hash = part.iter().fold(hash, |hash, byte| {
                    folded(hash ^ u64::from(*byte), 0x94d0_49bb_1331_11eb ^ seed)
                });
            }
        }
        key.hash = if is_cut { hash | IS_CUT } else { (hash & !IS_CUT).max(1) };
        key
    }

    /// Whether the texts have to be compared as well.
    const fn is_cut(&self) -> bool {
        self.hash & IS_CUT != 0
    }

    /// Whether the record has no place.
    pub(super) const fn is_none(&self) -> bool {
        self.hash == 0
    }
}

/// Copies `from` to the start of `to`: a few fixed moves and no call.
#[inline]
fn copy_short(from: &[u8], to: &mut [u8]) {
    let length = from.len();
    if let (Some(first), Some(last)) = (from.first_chunk::<16>(), from.last_chunk::<16>())
        && length <= 32
    {
        to[..16].copy_from_slice(first);
        to[length - 16..length].copy_from_slice(last);
    } else if let (Some(first), Some(last)) = (from.first_chunk::<8>(), from.last_chunk::<8>())
        && length <= 16
    {
        to[..8].copy_from_slice(first);
        to[length - 8..length].copy_from_slice(last);
    } else {
        to[..length].copy_from_slice(from);
    }
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
    pub(super) fn insert(&mut self, id: u32, places: &PlaceNames) {
        if self.0[0] == id || self.0[1] == id {
            return;
        }
        if let Some(free) = self.0.iter_mut().find(|slot| **slot == NO_PLACE) {
            *free = id;
            return;
        }
        let by_name = |id: &u32| places.name(*id);
        let highest = self.0.iter_mut().max_by_key(|id| by_name(id)).expect("there are two slots");
        if by_name(&id) < by_name(highest) {
            *highest = id;
        }
    }

    /// Adds the places of `other`; both refer to `places`.
    pub(super) fn merge(&mut self, other: Self, places: &PlaceNames) {
        other.iter().for_each(|id| self.insert(id, places));
    }

    /// The same places under the numbers that `number_of` says.
    pub(super) fn renumbered(
        self,
        places: &PlaceNames,
        number_of: impl Fn(u32) -> Option<u32>,
    ) -> Self {
        let mut renumbered = Self::default();
        for id in self.iter().filter_map(number_of) {
            renumbered.insert(id, places);
        }
        renumbered
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

/// The [`PlaceKey`] of a number, in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct KnownKey(PlaceKey);

const _: () = assert!(size_of::<KnownKey>() == 64);

/// Places by number.
#[derive(Clone, Debug, Default)]
pub struct PlaceNames {
    text: Vec<u8>,
    list: Vec<Texts>,
}

impl PlaceNames {
    /// The place with this number.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn place(&self, id: u32) -> Place {
        self.name(id).to_place()
    }

    /// All places in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = PlaceRef<'_>> {
        self.list.iter().map(|texts| self.name_at(*texts))
    }

    /// Adds a place under the next number.
    pub(super) fn push(&mut self, place: PlaceRef<'_>) -> Option<u32> {
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
        Some(id)
    }

    /// The place with this number, as records have it.
    #[inline]
    pub(super) fn name(&self, id: u32) -> PlaceRef<'_> {
        self.name_at(self.list[id as usize])
    }

    fn name_at(&self, Texts { start, ends }: Texts) -> PlaceRef<'_> {
        let mut from = start;
        PlaceRef(ends.map(|end| {
            (end != ABSENT).then(|| {
                let part = from..start + end as usize;
                from = part.end;
                &self.text[part]
            })
        }))
    }
}

/// Numbers by place.
#[derive(Debug)]
pub(super) struct Places {
    seed: u64,
    /// Shared with closed panes; copied if a place comes while there are some.
    names: Arc<PlaceNames>,
    keys: Vec<KnownKey>,
    numbers: ContactIndex,
}

impl Places {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed: spread(seed),
            names: Arc::default(),
            keys: Vec::new(),
            numbers: ContactIndex::default(),
        }
    }

    /// Whether a new pane should begin with an empty list.
    pub(super) fn is_old(&self) -> bool {
        self.names.list.len() > PLACES_OLD_MAX
    }

    pub(super) const fn names(&self) -> &Arc<PlaceNames> {
        &self.names
    }

    /// What [`Self::id_of`] looks for a place by.
    #[inline]
    pub(super) fn key(&self, place: PlaceRef<'_>) -> PlaceKey {
        PlaceKey::of(place, self.seed)
    }

    /// First step before many look-ups: asks for where [`Self::id_of`] will look.
    #[inline]
    pub(super) fn prefetch(&self, key: &PlaceKey) {
        self.numbers.prefetch(key.hash);
    }

    /// Second step: asks for what [`Self::id_of`] will compare.
    #[inline]
    pub(super) fn prefetch_name(&self, key: &PlaceKey) {
        if let Some(id) = self.numbers.likely(key.hash) {
            simd::prefetch(&self.keys, id as usize);
        }
    }

    /// The number of a place, if the record has one and the list has room.
    #[inline]
    pub(super) fn id_of<'a>(
        &mut self,
        key: &PlaceKey,
        place: impl Fn() -> PlaceRef<'a>,
    ) -> Option<u32> {
        if key.is_none() {
            return None;
        }
        let is_it = |id: u32| {
            self.keys[id as usize].0 == *key && (!key.is_cut() || self.names.name(id) == place())
        };
        self.numbers.find(key.hash, is_it).or_else(|| self.insert(key, place()))
    }

    #[cold]
    fn insert(&mut self, key: &PlaceKey, place: PlaceRef<'_>) -> Option<u32> {
        let id = Arc::make_mut(&mut self.names).push(place)?;
        if self.numbers.is_full() {
            self.numbers.grow(self.keys.iter().map(|known| known.0.hash));
        }
        self.numbers.insert(key.hash, id);
        self.keys.push(KnownKey(*key));
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> PlaceRef<'_> {
        PlaceRef([Some(name.as_bytes()), None, None, None])
    }

    fn id_of(places: &mut Places, place: PlaceRef<'_>) -> Option<u32> {
        let key = places.key(place);
        places.id_of(&key, || place)
    }

    #[test]
    fn a_place_keeps_its_number() {
        let mut places = Places::new(1);
        let ids: Vec<_> =
            ["a", "b", "a", "a", "b"].map(|name| id_of(&mut places, named(name))).into();
        assert_eq!(ids, [0, 1, 0, 0, 1].map(Some));
        assert_eq!(id_of(&mut places, PlaceRef::default()), None);
        assert_eq!(places.names.place(1).interface_id.as_deref(), Some("b"));
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
        assert_eq!(places.names.place(1), parts("a", "bc").to_place());
    }

    #[test]
    fn the_two_lowest_places_stay_in_any_order() {
        let mut places = Places::new(1);
        let [c, a, b] = ["c", "a", "b"].map(|name| id_of(&mut places, named(name)).unwrap());
        for order in [[a, b, c], [c, b, a], [b, c, a], [c, a, b]] {
            let mut kept = PlaceIds::default();
            for id in order {
                kept.insert(id, &places.names);
            }
            let mut kept: Vec<u32> = kept.iter().collect();
            kept.sort_unstable();
            assert_eq!(kept, [a, b]);
        }
    }
}
