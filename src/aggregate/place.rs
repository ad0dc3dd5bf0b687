//! Where in the account a contact was seen: interface, account, VPC and subnet, each kept once.
//!
//! Contacts refer to places by number in a list that a shard's panes share, because the same interfaces come
//! again and again; a closed pane keeps the list as it was then. Of the many interfaces that may see a contact (both ends, NAT
//! gateways, load balancers) each contact keeps two, always the lowest by name, so that the choice
//! doesn't depend on the order of records. Entries of the table hold the usual texts themselves, so that a
//! place is found with one access to memory, which can be asked for ahead.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::contact_index::ContactIndex;
use super::table::{fold, spread};
use crate::codec::{DecodeError, Decoder, Encoder};
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

/// How much of a place's text an entry of the table holds: interface, account and VPC.
const KEPT_TEXT_MAX: usize = 60;

/// What stands for an absent part in [`PlaceRef::lengths`].
const NO_LENGTH: u32 = 0xff;

/// The lengths of a place whose text is too long to be kept in an entry.
const IS_LONG: u32 = 0xfefe_fefe;

impl PlaceRef<'_> {
    /// A hash of the parts; 0 for a record without place.
    #[inline]
    pub(super) fn hash(&self, seeds: &PlaceSeeds) -> u64 {
        let mut hash = 0;
        for (part, seed) in self.0.iter().zip(&seeds.parts) {
            if let Some(part) = part {
                let (start, end) = both_ends(part);
                hash = fold(hash ^ start ^ seed, end ^ part.len() as u64 ^ seeds.ends).max(1);
            }
        }
        hash
    }

    /// One byte for the length of each part, or [`IS_LONG`].
    #[inline]
    fn lengths(&self) -> u32 {
        let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        if self.0.into_iter().map(length).sum::<usize>() > KEPT_TEXT_MAX {
            return IS_LONG;
        }
        self.0.iter().fold(0, |lengths, part| {
            let code = part.map_or(NO_LENGTH, |part| {
                u32::try_from(part.len()).expect("bounded by KEPT_TEXT_MAX")
            });
            lengths << 8 | code
        })
    }
}

/// What makes the hashes of places differ from one run to the next.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaceSeeds {
    parts: [u64; 4],
    ends: u64,
}

impl PlaceSeeds {
    fn new(seed: u64) -> Self {
        let number = |number: u64| spread(seed.wrapping_add(number << 32));
        Self { parts: [1, 2, 3, 4].map(number), ends: number(5) }
    }
}

/// The last sixteen bytes of a name in two words; those of one interface are elsewhere the same.
#[inline]
fn both_ends(name: &[u8]) -> (u64, u64) {
    let word = |eight: &[u8; 8]| u64::from_le_bytes(*eight);
    if let Some(sixteen) = name.last_chunk::<16>() {
        let (eights, _) = sixteen.as_chunks::<8>();
        return (word(&eights[0]), word(&eights[1]));
    }
    if let (Some(first), Some(last)) = (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        return (word(first), word(last));
    }
    let mut padded = [0; 8];
    padded[..name.len()].copy_from_slice(name);
    (0, word(&padded))
}

/// Whether two texts are the same; for the usual lengths a few loads and no call.
#[inline]
fn same_text(one: &[u8], other: &[u8]) -> bool {
    fn ends<const N: usize>(text: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        text.first_chunk().zip(text.last_chunk())
    }
    if one.len() != other.len() {
        return false;
    }
    match one.len() {
        16..=32 => ends::<16>(one) == ends::<16>(other),
        8..=15 => ends::<8>(one) == ends::<8>(other),
        _ => one == other,
    }
}

/// The places of a contact: up to two numbers of a pane's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PlaceIds([u32; 2]);

const NO_PLACE: u32 = u32::MAX;

impl Default for PlaceIds {
    fn default() -> Self {
        Self::NONE
    }
}

impl PlaceIds {
    /// No place.
    pub(super) const NONE: Self = Self([NO_PLACE; 2]);

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
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Texts {
    start: u64,
    /// Ends of the parts, counted from `start`; [`ABSENT`] for a part that the records don't have.
    ends: [u32; 4],
}

const ABSENT: u32 = u32::MAX;

/// What a place is known by, in one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct KnownPlace {
    /// [`PlaceRef::lengths`]
    lengths: u32,
    /// The parts one after the other, unless they are long.
    text: [u8; KEPT_TEXT_MAX],
}

const _: () = assert!(size_of::<KnownPlace>() == 64);

impl KnownPlace {
    fn of(place: PlaceRef<'_>) -> Self {
        let (lengths, mut text, mut used) = (place.lengths(), [0; KEPT_TEXT_MAX], 0);
        if lengths != IS_LONG {
            for part in place.0.into_iter().flatten() {
                text[used..used + part.len()].copy_from_slice(part);
                used += part.len();
            }
        }
        Self { lengths, text }
    }

    /// Whether this is `place`; `name` is asked for if the text is long.
    #[inline]
    fn is<'a>(&self, place: &PlaceRef<'_>, name: impl FnOnce() -> PlaceRef<'a>) -> bool {
        let lengths = place.lengths();
        if lengths != self.lengths {
            return false;
        }
        if lengths == IS_LONG {
            return name() == *place;
        }
        let mut used = 0;
        place.0.iter().flatten().all(|part| {
            let from = used;
            used += part.len();
            self.text.get(from..used).is_some_and(|known| same_text(known, part))
        })
    }
}

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
        self.list.push(Texts { start: start as u64, ends });
        Some(id)
    }

    /// How many places there are.
    pub(super) const fn len(&self) -> usize {
        self.list.len()
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.text.capacity() + self.list.capacity() * size_of::<Texts>()
    }

    /// Writes the places.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.bytes(&self.text);
        out.plain(&self.list);
    }

    /// Reads places.
    ///
    /// # Errors
    /// If the bytes are no list of places.
    pub(super) fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let text = from.bytes()?.to_vec();
        let list: Vec<Texts> = from.plain()?;
        let is_valid = |Texts { start, ends }: &Texts| {
            let ends = ends.iter().filter(|end| **end != ABSENT);
            let end = ends.clone().next_back().map_or(0, |end| u64::from(*end));
            let is_inside = start.checked_add(end).is_some_and(|end| end <= text.len() as u64);
            is_inside && ends.is_sorted()
        };
        if list.len() <= PLACES_MAX && list.iter().all(is_valid) {
            Ok(Self { text, list })
        } else {
            Err(DecodeError::Invalid("list of places"))
        }
    }

    /// The place with this number, as records have it.
    #[inline]
    pub(super) fn name(&self, id: u32) -> PlaceRef<'_> {
        self.name_at(self.list[id as usize])
    }

    fn name_at(&self, Texts { start, ends }: Texts) -> PlaceRef<'_> {
        let start = usize::try_from(start).expect("it points into the text");
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
    seeds: PlaceSeeds,
    bytes_max: usize,
    /// Shared with closed panes; copied if a place comes while there are some.
    names: Arc<PlaceNames>,
    known: Vec<KnownPlace>,
    numbers: ContactIndex,
}

impl Places {
    /// An empty list for about `bytes_max` bytes.
    pub(super) fn new(seed: u64, bytes_max: usize) -> Self {
        Self {
            seeds: PlaceSeeds::new(seed),
            bytes_max,
            names: Arc::default(),
            known: Vec::new(),
            numbers: ContactIndex::default(),
        }
    }

    /// Whether a new pane should begin with an empty list.
    pub(super) fn is_old(&self) -> bool {
        self.names.len() > PLACES_OLD_MAX || self.bytes_needed() > self.bytes_max / 4
    }

    /// Memory that this many places take when lists double, in bytes.
    fn bytes_needed(&self) -> usize {
        let entry = size_of::<Texts>() + size_of::<KnownPlace>() + 2 * size_of::<u32>();
        2 * (self.names.text.len() + self.names.len() * entry)
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let known = self.known.capacity() * size_of::<KnownPlace>();
        self.names.bytes() + known + self.numbers.bytes()
    }

    /// Writes the list.
    pub(super) fn save(&self, out: &mut Encoder) {
        self.names.save(out);
    }

    /// Reads a list, which was made with this `seed`.
    ///
    /// # Errors
    /// If the bytes are no list of places.
    pub(super) fn load(
        seed: u64,
        bytes_max: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let names = PlaceNames::load(from)?;
        let mut places = Self::new(seed, bytes_max);
        for name in names.iter() {
            places.insert_named(name.hash(&places.seeds), name, &names);
        }
        places.names = Arc::new(names);
        Ok(places)
    }

    pub(super) const fn names(&self) -> &Arc<PlaceNames> {
        &self.names
    }

    /// The hash by which [`Self::id_of`] looks for a place, and first step before many look-ups: asks for
    /// where it will look.
    #[inline]
    pub(super) fn hash(&self, place: &PlaceRef<'_>) -> u64 {
        let hash = place.hash(&self.seeds);
        self.numbers.prefetch(hash);
        hash
    }

    /// Second step: asks for what [`Self::id_of`] will compare, and says what it is.
    #[inline]
    pub(super) fn prefetch_likely(&self, hash: u64) -> Option<u32> {
        let likely = self.numbers.likely(hash).ok()?;
        simd::prefetch(&self.known, likely as usize);
        Some(likely)
    }

    /// The number of a place, if the record has one and the list has room. `likely` is what
    /// [`Self::prefetch_likely`] said of the hash.
    #[inline]
    pub(super) fn id_of(
        &mut self,
        hash: u64,
        likely: Option<u32>,
        place: &PlaceRef<'_>,
    ) -> Option<u32> {
        if hash == 0 {
            return None;
        }
        let is_it = |id: u32| self.known[id as usize].is(place, || self.names.name(id));
        if let Some(id) = likely
            && is_it(id)
        {
            return likely;
        }
        self.numbers.find(hash, is_it).or_else(|| self.insert(hash, *place))
    }

    #[cold]
    fn insert(&mut self, hash: u64, place: PlaceRef<'_>) -> Option<u32> {
        if self.bytes_needed() >= self.bytes_max {
            return None;
        }
        let id = Arc::make_mut(&mut self.names).push(place)?;
        let names = Arc::clone(&self.names);
        self.insert_named(hash, place, &names);
        Some(id)
    }

    /// Makes the next place of `names` one that can be found.
    fn insert_named(&mut self, hash: u64, place: PlaceRef<'_>, names: &PlaceNames) {
        let number = self.known.len();
        if self.numbers.is_full() {
            let seeds = &self.seeds;
            self.numbers.grow(names.iter().take(number).map(|name| name.hash(seeds)));
        }
        self.numbers.insert(hash, u32::try_from(number).expect("bounded by PLACES_MAX"));
        self.known.push(KnownPlace::of(place));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str) -> PlaceRef<'_> {
        PlaceRef([Some(name.as_bytes()), None, None, None])
    }

    fn id_of(places: &mut Places, place: PlaceRef<'_>) -> Option<u32> {
        let hash = places.hash(&place);
        places.id_of(hash, places.prefetch_likely(hash), &place)
    }

    #[test]
    fn a_place_keeps_its_number() {
        let mut places = Places::new(1, 1 << 24);
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
        let mut places = Places::new(1, 1 << 24);
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

    proptest! {
        /// Parts of all lengths that are compared in different ways, few of each, so that they come again.
        #[test]
        fn a_map_of_names_says_the_same(
            rows in prop::collection::vec(
                [(); 4].map(|()| prop::option::of((prop::sample::select(vec![
                    0_usize, 1, 7, 8, 15, 16, 17, 21, 32, 33, 60, 61, 300,
                ]), 0_usize..3))),
                0..300,
            ),
        ) {
            let text = |(length, kind): (usize, usize)| {
                let mut text = vec![b'x'; length];
                // The same but for one byte, which is the first, the middle or the last.
                if let Some(byte) = text.get_mut(kind * length.saturating_sub(1) / 2) {
                    *byte = b'y';
                }
                text
            };
            let mut places = Places::new(1, 1 << 24);
            let mut model: Vec<[Option<Vec<u8>>; 4]> = Vec::new();
            for row in rows {
                let parts = row.map(|part| part.map(text));
                let id = id_of(&mut places, PlaceRef(parts.each_ref().map(Option::as_deref)));
                if parts.iter().all(Option::is_none) {
                    prop_assert_eq!(id, None);
                    continue;
                }
                let expected = model.iter().position(|known| *known == parts);
                let expected = expected.unwrap_or_else(|| {
                    model.push(parts);
                    model.len() - 1
                });
                prop_assert_eq!(id, Some(u32::try_from(expected).unwrap()));
            }
        }
    }

    #[test]
    fn the_two_lowest_places_stay_in_any_order() {
        let mut places = Places::new(1, 1 << 24);
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
