//! The contacts of one pane, each with a number.
//!
//! ```text
//! hash ─► index (4 bytes an entry) ─► slot (64 bytes) ─► what not every contact has
//! ```
//!
//! Slots lie one after the other in blocks, in the order of their first records: a contact costs one random
//! access to the index and one write to memory that was just written. Blocks and indexes come from a [`Spares`], and go back
//! when the set is dropped, so that in the steady state no fresh memory is touched.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::contact::{Contact, ContactKey};
use super::contact_beside::{Beside, grown};
use super::contact_hash::KeyHasher;
use super::contact_index::{ContactIndex, FreeEntry, NUMBERS_MAX};
use super::contact_slot::{ContactSlot, NarrowKey, Sent, number_of};
use super::contact_spares::{SMALL_BLOCK_LEN, Slots, Spares, slot_bytes};
use super::contact_view::ContactView;
use super::place::{PlaceIds, PlaceNames};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::units::UnixSeconds;

const ICMP: u8 = 1;
const ICMP_V6: u8 = 58;

/// How many slots ahead of the last one memory is asked for: writing waits for it as reading does.
const SLOTS_AHEAD: usize = 8;

/// The contacts of one pane.
#[derive(Debug)]
pub struct ContactSet {
    hasher: KeyHasher,
    pane_start: UnixSeconds,
    index: ContactIndex,
    slots: Slots,
    beside: Beside,
    /// Contacts whose ends were alike, or that are ICMP, when they began; no other may be.
    odd: Vec<u32>,
    /// Contacts that may have a part in another shard; see [`Self::mark_stray`].
    strays: Vec<u32>,
    spares: Arc<Spares>,
    /// What the spares were told that the set takes, once it was handed over.
    bytes_handed_over: usize,
}

impl ContactSet {
    pub(super) fn new(
        hasher: KeyHasher,
        pane_start: UnixSeconds,
        count_hint: usize,
        spares: &Arc<Spares>,
    ) -> Self {
        Self {
            hasher,
            pane_start,
            index: spares.index(count_hint),
            slots: Slots::default(),
            beside: spares.beside(),
            odd: Vec::new(),
            strays: Vec::new(),
            spares: Arc::clone(spares),
            bytes_handed_over: 0,
        }
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let lists = (self.odd.capacity() + self.strays.capacity()) * size_of::<u32>();
        self.slots.bytes() + self.index.bytes() + self.beside.bytes() + lists
    }

    /// Memory that the set takes with up to `more` further contacts, in bytes, as if none of it had been
    /// used before: the same for the same records, whatever was kept from other panes.
    #[inline]
    pub(super) fn bytes_needed(&self, more: usize) -> usize {
        let lists = (grown(self.odd.len()) + grown(self.strays.len())) * size_of::<u32>();
        slot_bytes(self.len() + more, self.spares.blocks_are_small())
            + self.index.bytes_with(more)
            + self.beside.bytes_needed()
            + lists
    }

    /// Tells the spares that the set leaves its table, so that they keep less memory.
    pub(super) fn hand_over(&mut self) {
        self.bytes_handed_over = self.bytes();
        self.spares.hand_over(self.bytes_handed_over);
    }

    /// Writes the set. Its index is made anew when it is read.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.count(self.slots.len());
        self.slots.parts().for_each(|part| out.raw(part.as_bytes()));
        out.count(self.index.entry_count());
        out.plain(&self.odd);
        out.plain(&self.strays);
        self.beside.save(out);
    }

    /// Reads a set whose contacts' places are numbers below `place_count`. Its index gets the length that it
    /// had, if that is not more than `index_bytes_max` bytes.
    ///
    /// # Errors
    /// If the bytes are no set.
    pub(super) fn load(
        hasher: KeyHasher,
        pane_start: UnixSeconds,
        place_count: usize,
        index_bytes_max: usize,
        spares: &Arc<Spares>,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let count = from.count(size_of::<ContactSlot>())?;
        if count > NUMBERS_MAX {
            return Err(DecodeError::Invalid("number of contacts"));
        }
        let mut slots = Slots::default();
        while slots.len() < count {
            let part = (count - slots.len()).min(Slots::BLOCK_LEN);
            let mut block = spares.block();
            block.resize(part, ContactSlot::EMPTY);
            let bytes = from.raw(part * size_of::<ContactSlot>())?;
            block.as_mut_slice().as_mut_bytes().copy_from_slice(bytes);
            slots.push_block(block);
        }
        let entry_count = from.u64()?;
        let may_be_long = index_bytes_max / size_of::<u32>();
        let entry_count = usize::try_from(entry_count).unwrap_or(0);
        let index = if entry_count <= may_be_long {
            ContactIndex::with_entries(entry_count, count)
        } else {
            ContactIndex::for_count(count)
        };
        let mut set = Self {
            hasher,
            pane_start,
            index,
            slots,
            odd: from.plain()?,
            strays: from.plain()?,
            beside: Beside::load(place_count, from)?,
            spares: Arc::clone(spares),
            bytes_handed_over: 0,
        };
        let is_number = |number: &u32| (*number as usize) < count;
        let is_valid = |slot: &ContactSlot| slot.is_valid(&set.beside, place_count);
        if !set.odd.iter().chain(&set.strays).all(is_number) || !set.slots.iter().all(is_valid) {
            return Err(DecodeError::Invalid("contact"));
        }
        set.index_all();
        Ok(set)
    }

    /// Fills the empty index.
    fn index_all(&mut self) {
        let mut index = std::mem::take(&mut self.index);
        for (number, slot) in (0..).zip(self.slots.iter()) {
            index.insert(self.hash_of(slot), number);
        }
        self.index = index;
    }

    fn hash_of(&self, slot: &ContactSlot) -> u64 {
        match slot.narrow_key() {
            Some(key) => self.hasher.narrow(&key),
            None => self.hasher.wide(&self.key_of(slot)),
        }
    }

    /// The slots in the order of their numbers.
    pub(super) fn slots(&self) -> impl Iterator<Item = &ContactSlot> {
        self.slots.iter()
    }

    /// The lowest of a contact's client ports, 0 if there is none.
    pub(super) fn first_port(&self, slot: &ContactSlot) -> u16 {
        self.view(slot).client_ports().first().copied().unwrap_or(0)
    }

    /// How many records a contact stands for.
    pub(super) fn record_count(&self, slot: &ContactSlot) -> u64 {
        let view = self.view(slot);
        u64::from(view.forward().0.flows) + u64::from(view.back().0.flows)
    }

    /// Keeps the contacts for which `staying` holds, by number. They get new numbers, in the same order.
    pub(super) fn retain(&mut self, staying: &[bool]) {
        assert_eq!(staying.len(), self.slots.len());
        let from = std::mem::take(&mut self.beside);
        let mut odd = std::mem::take(&mut self.odd).into_iter().peekable();
        let mut strays = Vec::new();
        let (beside, odd_kept) = (&mut self.beside, &mut self.odd);
        let mut kept = 0;
        let unused = self.slots.retain(|number, slot| {
            let is_odd = odd.next_if_eq(&number_of(number)).is_some();
            if slot.is_gone() || !staying[number] {
                return None;
            }
            let mut slot = *slot;
            slot.move_beside(&from, beside);
            if is_odd {
                odd_kept.push(kept);
            }
            if slot.is_stray() {
                strays.push(kept);
            }
            kept += 1;
            Some(slot)
        });
        self.spares.take_blocks(unused);
        if self.spares.blocks_are_small() {
            self.slots.shrink(SMALL_BLOCK_LEN);
        }
        self.strays = strays;
        let count = self.slots.len();
        if self.index.bytes() > 2 * ContactIndex::bytes_for(count) {
            self.index = ContactIndex::for_count(count);
        } else {
            self.index.clear();
        }
        self.index_all();
    }

    /// Adds those contacts of another set for whose keys `is_wanted` holds, or merges them with those that
    /// have their keys; `places` are this set's, and `renumbered` makes them of the other set's.
    pub(super) fn absorb(
        &mut self,
        other: &Self,
        places: &PlaceNames,
        renumbered: impl Fn(PlaceIds) -> PlaceIds,
        is_wanted: impl Fn(&ContactKey) -> bool,
    ) {
        let stays_slim = self.pane_start == other.pane_start;
        for slot in other.slots.iter().filter(|slot| !slot.is_gone()) {
            let key = other.key_of(slot);
            if !is_wanted(&key) {
                continue;
            }
            let hash = self.hash(&key);
            if !stays_slim || slot.wide_number().is_some() || self.find(hash, &key).is_some() {
                let mut contact = other.view(slot).to_contact();
                contact.places = renumbered(contact.places);
                self.put(Taken { key, contact, is_stray: slot.is_stray() }, places);
                continue;
            }
            let mut slot = *slot;
            slot.move_beside(&other.beside, &mut self.beside);
            *slot.places_mut() = renumbered(slot.places());
            let client_port = slot.ports(&self.beside).first().copied().unwrap_or(0);
            self.note_if_odd(key.protocol, key.port, client_port);
            let number = self.push(hash, None, slot);
            if slot.is_stray() {
                self.strays.push(number);
            }
        }
    }

    /// How many numbers were given; contacts that were taken out count.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no contact was ever in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.len() == 0
    }

    /// The contact with this number.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn contact(&self, number: u32) -> ContactView<'_> {
        self.view(self.slot(number))
    }

    /// The key of a contact.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn key(&self, number: u32) -> ContactKey {
        self.key_of(self.slot(number))
    }

    /// All contacts with their numbers and keys, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, ContactKey, ContactView<'_>)> {
        (0..)
            .zip(self.slots.iter())
            .filter(|(_, slot)| !slot.is_gone())
            .map(|(number, slot)| (number, self.key_of(slot), self.view(slot)))
    }

    /// The contacts, in order, whose ends the ports may not tell apart, and all of ICMP.
    pub fn odd(&self) -> impl Iterator<Item = u32> {
        self.odd.iter().copied().filter(|number| !self.slot(*number).is_gone())
    }

    /// The contacts that may have parts in other shards.
    pub fn strays(&self) -> impl Iterator<Item = u32> {
        self.strays.iter().copied().filter(|number| !self.slot(*number).is_gone())
    }

    /// Says that a record of this contact was routed by other addresses than the contact's.
    pub(super) fn mark_stray(&mut self, number: u32) {
        if self.slots.get_mut(number as usize).become_stray() {
            self.strays.push(number);
        }
    }

    /// The hash by which [`Self::find`] looks for a key.
    #[must_use]
    #[inline]
    pub fn hash(&self, key: &ContactKey) -> u64 {
        match NarrowKey::of(key) {
            Some(key) => self.hasher.narrow(&key),
            None => self.hasher.wide(key),
        }
    }

    /// First step before many look-ups: asks for where [`Self::find`] will look.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.index.prefetch(hash);
    }

    /// Second step: asks for the contact that [`Self::find`] will compare.
    #[inline]
    pub fn prefetch_contact(&self, hash: u64) {
        self.prefetch_likely(hash).ok();
    }

    /// As [`Self::prefetch_contact`]; says which contact it is, or where a new one goes.
    #[inline]
    pub(super) fn prefetch_likely(&self, hash: u64) -> Result<u32, FreeEntry> {
        let likely = self.index.likely(hash)?;
        self.slots.prefetch(likely as usize);
        Ok(likely)
    }

    /// Third step before records are added: asks for what stands beside the contact of the second.
    #[inline]
    pub(super) fn prefetch_beside(&self, likely: u32) {
        self.slot(likely).prefetch_ports(&self.beside);
    }

    /// The number of the contact with this key and hash.
    #[must_use]
    #[inline]
    pub fn find(&self, hash: u64, key: &ContactKey) -> Option<u32> {
        match NarrowKey::of(key) {
            Some(key) => self.find_narrow(hash, &key),
            None => self.find_wide(hash, key),
        }
    }

    #[inline]
    fn find_narrow(&self, hash: u64, key: &NarrowKey) -> Option<u32> {
        self.index.find(hash, |number| self.slot(number).has_key(key))
    }

    fn find_wide(&self, hash: u64, key: &ContactKey) -> Option<u32> {
        self.index.find(hash, |number| {
            let slot = self.slot(number);
            slot.narrow_key().is_none() && !slot.is_gone() && self.key_of(slot) == *key
        })
    }

    /// Adds a record to a contact between IPv4 addresses, and says its number. `likely` is what [`Self::prefetch_likely`] said of the hash.
    #[inline]
    pub(super) fn add_narrow(
        &mut self,
        hash: u64,
        likely: Result<u32, FreeEntry>,
        key: NarrowKey,
        sent: &Sent,
    ) -> u32 {
        let found = match likely {
            Ok(number) if self.slot(number).has_key(&key) => Ok(number),
            Err(free) if self.index.is_free(free) => Err(free),
            _ => self.index.find_or_free(hash, |number| self.slot(number).has_key(&key)),
        };
        match found {
            Ok(number) => {
                self.add_to(number, sent);
                number
            }
            Err(free) => {
                self.note_if_odd(key.protocol, key.port, sent.client_port);
                // Written where it stays: reading it back from the stack would wait for its parts.
                let number = self.push(hash, Some(free), ContactSlot::EMPTY);
                let slot = self.slots.get_mut(number as usize);
                slot.set_key(key);
                if !slot.try_add_first(self.pane_start, sent) {
                    self.widen(number).add(sent);
                }
                number
            }
        }
    }

    /// As [`Self::add_narrow`], for any other key.
    pub(super) fn add_wide(&mut self, hash: u64, key: ContactKey, sent: &Sent) -> u32 {
        let number = match self.find_wide(hash, &key) {
            Some(number) => number,
            None => {
                self.note_if_odd(key.protocol, key.port, sent.client_port);
                let slot = self.new_slot(&key);
                self.push(hash, None, slot)
            }
        };
        self.add_to(number, sent);
        number
    }

    #[inline]
    fn add_to(&mut self, number: u32, sent: &Sent) {
        let slot = self.slots.get_mut(number as usize);
        if let Some(wide_number) = slot.wide_number() {
            self.beside.contacts[wide_number as usize].add(sent);
        } else if !slot.try_add(self.pane_start, sent, &mut self.beside) {
            self.widen(number).add(sent);
        }
    }

    /// An empty slot for a key of either kind.
    fn new_slot(&mut self, key: &ContactKey) -> ContactSlot {
        NarrowKey::of(key).map_or_else(
            || {
                let addrs_number = number_of(self.beside.addrs.len());
                self.beside.addrs.push([key.client, key.server]);
                ContactSlot::of_wide_key(addrs_number, key.protocol, key.port)
            },
            ContactSlot::new,
        )
    }

    /// Adds a place of `places` to a contact.
    #[inline]
    pub(super) fn add_place(&mut self, number: u32, place: u32, places: &PlaceNames) {
        let slot = self.slots.get_mut(number as usize);
        match slot.wide_number() {
            None => slot.places_mut().insert(place, places),
            Some(wide) => self.beside.contacts[wide as usize].places.insert(place, places),
        }
    }

    /// Takes a contact out. Its number stays given.
    pub(super) fn take(&mut self, number: u32) -> Taken {
        let (key, contact) = (self.key(number), self.contact(number).to_contact());
        let slot = self.slots.get_mut(number as usize);
        slot.become_gone();
        Taken { key, contact, is_stray: slot.is_stray() }
    }

    /// Puts a contact in, or merges it with the one that has its key; the places of both refer to `places`.
    pub(super) fn put(&mut self, taken: Taken, places: &PlaceNames) {
        let Taken { key, contact, is_stray } = taken;
        let hash = self.hash(&key);
        let number = match self.find(hash, &key) {
            Some(number) => {
                self.widen(number).merge(&contact, places);
                number
            }
            None => {
                let client_port = contact.client_ports.as_slice().first().copied().unwrap_or(0);
                self.note_if_odd(key.protocol, key.port, client_port);
                let mut slot = self.new_slot(&key);
                slot.become_wide(number_of(self.beside.contacts.len()));
                self.beside.contacts.push(contact);
                self.push(hash, None, slot)
            }
        };
        if is_stray {
            self.mark_stray(number);
        }
    }

    /// Takes for the client what was the server of these contacts. All are turned before the first one is
    /// merged with the contact that has its key, because they may take each other's.
    pub(super) fn turn(&mut self, numbers: &[u32], places: &PlaceNames) {
        for number in numbers {
            let slot = self.slots.get_mut(*number as usize);
            slot.turn(&mut self.beside);
        }
        for number in numbers {
            let slot = self.slot(*number);
            let (key, hash) = (self.key_of(slot), self.hash_of(slot));
            match self.find(hash, &key) {
                Some(same) if same == *number => {}
                Some(same) => {
                    let Taken { contact, is_stray, .. } = self.take(*number);
                    self.widen(same).merge(&contact, places);
                    if is_stray {
                        self.mark_stray(same);
                    }
                }
                // The entry under the old key finds nothing any more.
                None => self.insert_in_index(hash, *number),
            }
        }
    }

    /// The contact in its wide form, for good.
    fn widen(&mut self, number: u32) -> &mut Contact {
        let slot = self.slots.get_mut(number as usize);
        let wide_number = match slot.wide_number() {
            Some(wide_number) => wide_number,
            None => {
                let wide_number = number_of(self.beside.contacts.len());
                let contact = slot.to_contact(self.pane_start, &self.beside);
                self.beside.contacts.push(contact);
                slot.become_wide(wide_number);
                wide_number
            }
        };
        &mut self.beside.contacts[wide_number as usize]
    }

    /// Adds a contact, where looking for it ended in the index, if that is known.
    #[inline]
    fn push(&mut self, hash: u64, free: Option<FreeEntry>, slot: ContactSlot) -> u32 {
        let number = number_of(self.slots.len());
        match free {
            Some(free) if !self.index.is_full() => self.index.insert_at(free, hash, number),
            _ => self.insert_in_index(hash, number),
        }
        self.slots.push(slot, || self.spares.block());
        self.slots.prefetch_free(SLOTS_AHEAD);
        number
    }

    #[cold]
    fn insert_in_index(&mut self, hash: u64, number: u32) {
        if self.index.is_full() {
            let mut index = std::mem::take(&mut self.index);
            index.grow(self.slots.iter().map(|slot| self.hash_of(slot)));
            self.index = index;
        }
        self.index.insert(hash, number);
    }

    #[inline]
    fn note_if_odd(&mut self, protocol: u8, port: u16, client_port: u16) {
        if port == 0 || client_port == port || matches!(protocol, ICMP | ICMP_V6) {
            self.odd.push(number_of(self.slots.len()));
        }
    }

    #[inline]
    fn slot(&self, number: u32) -> &ContactSlot {
        self.slots.get(number as usize)
    }

    #[inline]
    pub(super) fn key_of(&self, slot: &ContactSlot) -> ContactKey {
        slot.narrow_key().map_or_else(
            || {
                let NarrowKey { client: addrs_number, protocol, port, .. } = slot.key();
                let [client, server] = self.beside.addrs[addrs_number as usize];
                ContactKey { client, server, protocol, port }
            },
            NarrowKey::to_key,
        )
    }

    #[inline]
    fn view<'a>(&'a self, slot: &'a ContactSlot) -> ContactView<'a> {
        match slot.wide_number() {
            None => ContactView::slim(slot, self.pane_start, &self.beside),
            Some(wide) => ContactView::wide(&self.beside.contacts[wide as usize]),
        }
    }
}

impl Drop for ContactSet {
    fn drop(&mut self) {
        self.spares.take_back(
            std::mem::take(&mut self.slots),
            std::mem::take(&mut self.index),
            std::mem::take(&mut self.beside),
            self.bytes_handed_over,
        );
    }
}

/// A contact by itself.
pub(super) struct Taken {
    pub(super) key: ContactKey,
    pub(super) contact: Contact,
    is_stray: bool,
}
