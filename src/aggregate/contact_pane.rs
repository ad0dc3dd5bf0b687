//! The contacts of one shard, or of one process, in one pane: what the detect stage gets, and what is saved,
//! sent elsewhere and merged.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::contact_hash::KeyHasher;
use super::contact_importance::Importance;
use super::contact_set::ContactSet;
use super::contact_spares::Spares;
use super::interface_tallies::InterfaceTallies;
use super::interface_tally::InterfaceTally;
use super::place::{Place, PlaceIds, PlaceNames, PlaceRef};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::units::{PaneIndex, UnixSeconds};

/// The first form has no tallies of interfaces.
const VERSION: u16 = 2;

/// The contacts of one shard in one pane, ready to be merged with those of other shards.
#[derive(Debug)]
pub struct PaneContacts {
    /// The pane, in units of the table's pane length.
    pub pane: PaneIndex,
    /// Length of the pane.
    pub pane_seconds: i64,
    /// The contacts.
    pub contacts: ContactSet,
    /// What the contacts' places refer to.
    pub places: Arc<PlaceNames>,
    /// Latest `end` of a record in the pane.
    pub newest_end: UnixSeconds,
    /// Rows whose contacts found no room, or had to leave: if not 0, counts are lower bounds.
    pub refused_rows: u64,
    /// Contacts that had to leave because memory was short; one that came again may have left again.
    pub evicted_contacts: u64,
    /// What interfaces logged, under the numbers of `places`.
    pub(super) tallies: InterfaceTallies,
    /// The seed of the contacts' hashes.
    pub(super) seed: u64,
    /// Numbers by place, once another shard's contact was moved here.
    place_numbers: HashMap<Place, u32>,
}

impl PaneContacts {
    /// A pane without contacts, for about `count_hint` of them and `tallied_max` places.
    pub(super) fn new(
        pane: PaneIndex,
        pane_seconds: i64,
        seed: u64,
        (count_hint, tallied_max): (usize, usize),
        spares: &Arc<Spares>,
    ) -> Self {
        let (hasher, pane_start) = (KeyHasher::new(seed), pane.start(pane_seconds));
        Self {
            pane,
            pane_seconds,
            contacts: ContactSet::new(hasher, pane_start, count_hint, spares),
            places: Arc::default(),
            newest_end: UnixSeconds::MIN,
            refused_rows: 0,
            evicted_contacts: 0,
            tallies: InterfaceTallies::new(pane, pane_seconds, tallied_max),
            seed,
            place_numbers: HashMap::new(),
        }
    }

    /// Memory held, in bytes; the list of places may be shared with other panes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.contacts.bytes() + self.places.bytes() + self.tallies.bytes()
    }

    /// What each interface logged, in no order; an interface whose records don't agree on account, VPC or
    /// subnet comes several times. Records without `interface-id` are left out. The number is that of
    /// the place in `places`.
    pub fn interfaces(&self) -> impl Iterator<Item = (&[u8], u32, InterfaceTally)> {
        self.tallies.iter().filter_map(|(place, tally)| {
            let [interface, ..] = self.places.name(place).0;
            Some((interface?, place, tally))
        })
    }

    /// Records that interfaces' tallies lack, because there were too many places.
    #[must_use]
    pub const fn untallied_rows(&self) -> u64 {
        self.tallies.refused_rows()
    }

    /// Writes the pane with its places.
    pub fn save(&self, out: &mut Encoder) {
        out.version(VERSION);
        out.i64(self.pane_seconds);
        self.places.save(out);
        self.save_contacts(out);
        self.tallies.save(out);
    }

    /// Reads a pane. What its memory was taken from doesn't know of it any more: it is freed when the pane is
    /// dropped.
    ///
    /// # Errors
    /// If the bytes are no pane.
    pub fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let form = from.version("the contacts of a pane", 1..=VERSION)?;
        let pane_seconds = from.i64()?;
        if pane_seconds <= 0 {
            return Err(DecodeError::Invalid("length of a pane"));
        }
        let places = PlaceNames::load(from)?;
        let spares = Arc::new(Spares::new(0, 0));
        let mut pane = Self::load_contacts(pane_seconds, places.len(), 0, &spares, from)?;
        if form > 1 {
            pane.load_tallies(places.len(), usize::MAX, from)?;
        }
        pane.places = Arc::new(places);
        Ok(pane)
    }

    /// Writes the pane without its places and tallies.
    pub(super) fn save_contacts(&self, out: &mut Encoder) {
        out.i64(self.pane.0);
        out.u64(self.seed);
        out.i64(self.newest_end.0);
        out.u64(self.refused_rows);
        out.u64(self.evicted_contacts);
        self.contacts.save(out);
    }

    /// Reads the tallies of a pane with `place_count` places, and takes no more than `tallied_max`.
    pub(super) fn load_tallies(
        &mut self,
        place_count: usize,
        tallied_max: usize,
        from: &mut Decoder<'_>,
    ) -> Result<(), DecodeError> {
        let empty = InterfaceTallies::new(self.pane, self.pane_seconds, tallied_max);
        self.tallies = empty.load(place_count, from)?;
        Ok(())
    }

    /// Reads a pane without its places, of which there are `place_count`, and without tallies.
    pub(super) fn load_contacts(
        pane_seconds: i64,
        place_count: usize,
        index_bytes_max: usize,
        spares: &Arc<Spares>,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let (pane, seed) = (PaneIndex(from.i64()?), from.u64()?);
        let pane_start = pane.0.checked_mul(pane_seconds).map(UnixSeconds);
        let pane_start = pane_start.ok_or(DecodeError::Invalid("number of a pane"))?;
        let (newest_end, refused_rows) = (UnixSeconds(from.i64()?), from.u64()?);
        let evicted_contacts = from.u64()?;
        let hasher = KeyHasher::new(seed);
        let contacts =
            ContactSet::load(hasher, pane_start, place_count, index_bytes_max, spares, from)?;
        Ok(Self {
            pane,
            pane_seconds,
            contacts,
            places: Arc::default(),
            newest_end,
            refused_rows,
            evicted_contacts,
            tallies: InterfaceTallies::new(pane, pane_seconds, usize::MAX),
            seed,
            place_numbers: HashMap::new(),
        })
    }

    /// Takes the contacts of the same pane that another process or shard saw, any keys of which may be here
    /// too. Merged in any order, panes say what one that saw all their records says. (That holds for what is
    /// bounded too: the lowest client ports and the lowest places by name are kept; only if panes name more
    /// places than a list holds, which of them are known depends on the order.)
    ///
    /// # Panics
    /// If it is another pane, or of another length.
    pub fn merge(&mut self, other: &Self) {
        assert_eq!((self.pane, self.pane_seconds), (other.pane, other.pane_seconds));
        let numbers: Vec<Option<u32>> =
            other.places.iter().map(|place| self.place_number(place)).collect();
        let places = &self.places;
        let number_of = |id: u32| numbers[id as usize];
        let renumbered = |ids: PlaceIds| ids.renumbered(places, number_of);
        self.contacts.absorb(&other.contacts, places, renumbered, |_| true);
        self.tallies.merge(&other.tallies, number_of);
        self.note_rows_of(other);
    }

    /// Counts the rows of another pane that are not in its contacts.
    pub(super) fn note_rows_of(&mut self, other: &Self) {
        self.newest_end = self.newest_end.max(other.newest_end);
        self.refused_rows = self.refused_rows.saturating_add(other.refused_rows);
        self.evicted_contacts = self.evicted_contacts.saturating_add(other.evicted_contacts);
    }

    /// Moves a contact to the set of another shard, where its key may be already.
    pub fn move_contact(&mut self, number: u32, to: &mut Self) {
        let mut taken = self.contacts.take(number);
        let numbers: Vec<(u32, Option<u32>)> = taken
            .contact
            .places
            .iter()
            .map(|id| (id, to.place_number(self.places.name(id))))
            .collect();
        let number_of =
            |id| numbers.iter().find(|(from, _)| *from == id).and_then(|(_, number)| *number);
        taken.contact.places = taken.contact.places.renumbered(&to.places, number_of);
        to.contacts.put(taken, &to.places);
    }

    /// The number of another shard's place.
    fn place_number(&mut self, place: PlaceRef<'_>) -> Option<u32> {
        if self.place_numbers.is_empty() {
            self.place_numbers.extend(self.places.iter().map(PlaceRef::to_place).zip(0..));
        }
        match self.place_numbers.entry(place.to_place()) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(unknown) => {
                let number = Arc::make_mut(&mut self.places).push(place)?;
                Some(*unknown.insert(number))
            }
        }
    }

    /// Takes for the client what was the server of these contacts.
    pub fn turn_contacts(&mut self, numbers: &[u32]) {
        self.contacts.turn(numbers, &self.places);
    }
}

/// What left some panes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lost {
    pub(super) contacts: u64,
    /// Records of these contacts.
    pub(super) rows: u64,
}

/// Lets the least important contacts of these panes leave, so that about `kept_of_65536` of their bytes stay.
pub(super) fn thin(
    panes: &mut [&mut PaneContacts],
    importance: &mut Importance,
    kept_of_65536: u64,
) -> Lost {
    let mut lost = Lost::default();
    let sets: Vec<&ContactSet> = panes.iter().map(|pane| &pane.contacts).collect();
    let ranks = importance.ranks(&sets);
    let bytes = (u128::from(ranks.bytes()) * u128::from(kept_of_65536)) >> 16;
    let bytes = u64::try_from(bytes).expect("a part of what there is");
    let cut = importance.cut(&sets, &ranks, bytes);
    let mut ranks = ranks.iter();
    let mut staying = Vec::new();
    for pane in panes {
        let mut of_pane = Lost::default();
        staying.clear();
        let set = &pane.contacts;
        for (slot, rank) in set.slots().zip(&mut ranks) {
            let stays = cut.keeps(rank, || importance.place_in_rank(set, slot, rank));
            staying.push(stays);
            if !stays && !slot.is_gone() {
                of_pane.rows += set.record_count(slot);
                of_pane.contacts += 1;
            }
        }
        pane.contacts.retain(&staying);
        pane.refused_rows += of_pane.rows;
        pane.evicted_contacts += of_pane.contacts;
        lost.rows += of_pane.rows;
        lost.contacts += of_pane.contacts;
    }
    lost
}
