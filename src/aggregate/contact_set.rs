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

use super::contact::{Contact, ContactKey, Tally};
use super::contact_hash::KeyHasher;
use super::contact_index::{ContactIndex, FreeEntry};
use super::contact_slot::{Beside, ContactSlot, NarrowKey, Sent};
use super::contact_spares::{Slots, Spares};
use super::place::{PlaceIds, PlaceNames};
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

    /// Adds a record to a contact between IPv4 addresses; `None` if there is none and `may_begin` is false.
    /// `likely` is what [`Self::prefetch_likely`] said of the hash.
    #[inline]
    pub(super) fn add_narrow(
        &mut self,
        hash: u64,
        likely: Result<u32, FreeEntry>,
        key: NarrowKey,
        sent: &Sent,
        may_begin: bool,
    ) -> Option<u32> {
        let found = match likely {
            Ok(number) if self.slot(number).has_key(&key) => Ok(number),
            Err(free) if self.index.is_free(free) => Err(free),
            _ => self.index.find_or_free(hash, |number| self.slot(number).has_key(&key)),
        };
        match found {
            Ok(number) => {
                self.add_to(number, sent);
                Some(number)
            }
            Err(free) if may_begin => {
                self.note_if_odd(key.protocol, key.port, sent.client_port);
                // Written where it stays: reading it back from the stack would wait for its parts.
                let number = self.push(hash, Some(free), ContactSlot::EMPTY);
                let slot = self.slots.get_mut(number as usize);
                slot.set_key(key);
                if !slot.try_add_first(self.pane_start, sent) {
                    self.widen(number).add(sent);
                }
                Some(number)
            }
            Err(_) => None,
        }
    }

    /// As [`Self::add_narrow`], for any other key.
    pub(super) fn add_wide(
        &mut self,
        hash: u64,
        key: ContactKey,
        sent: &Sent,
        may_begin: bool,
    ) -> Option<u32> {
        let number = match self.find_wide(hash, &key) {
            Some(number) => number,
            None if may_begin => {
                self.note_if_odd(key.protocol, key.port, sent.client_port);
                let slot = self.new_slot(&key);
                self.push(hash, None, slot)
            }
            None => return None,
        };
        self.add_to(number, sent);
        Some(number)
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
            let hashes = self.slots.iter().map(|slot| match slot.narrow_key() {
                Some(key) => self.hasher.narrow(&key),
                None => self.hasher.wide(&self.key_of(slot)),
            });
            index.grow(hashes);
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
    fn key_of(&self, slot: &ContactSlot) -> ContactKey {
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
            None => ContactView(Form::Slim { slot, set: self }),
            Some(wide) => ContactView(Form::Wide(&self.beside.contacts[wide as usize])),
        }
    }
}

impl Drop for ContactSet {
    fn drop(&mut self) {
        self.spares.take_back(
            std::mem::take(&mut self.slots),
            std::mem::take(&mut self.index),
            std::mem::take(&mut self.beside),
        );
    }
}

/// A contact by itself.
pub(super) struct Taken {
    pub(super) key: ContactKey,
    pub(super) contact: Contact,
    is_stray: bool,
}

fn number_of(count: usize) -> u32 {
    u32::try_from(count).expect("tables of contacts are bounded far below")
}

/// A contact, whichever form it has.
#[derive(Clone, Copy, Debug)]
pub struct ContactView<'a>(Form<'a>);

#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Slim { slot: &'a ContactSlot, set: &'a ContactSet },
    Wide(&'a Contact),
}

/// What one end sent: counts, and the OR of its TCP flags.
pub type Half = (Tally, Option<u8>);

impl<'a> ContactView<'a> {
    /// What the client sent, with traffic that both ends' interfaces logged taken once.
    #[must_use]
    #[inline]
    pub fn forward(&self) -> Half {
        match self.0 {
            Form::Slim { slot, set } => slot.forward(&set.beside),
            Form::Wide(contact) => (contact.forward.tally(), contact.forward.tcp_flags),
        }
    }

    /// What the server sent.
    #[must_use]
    #[inline]
    pub fn back(&self) -> Half {
        match self.0 {
            Form::Slim { slot, set } => slot.back(&set.beside),
            Form::Wide(contact) => (contact.back.tally(), contact.back.tcp_flags),
        }
    }

    /// Earliest `start`.
    #[must_use]
    pub fn first_start(&self) -> UnixSeconds {
        match self.0 {
            Form::Slim { slot, set } => slot.first_start(set.pane_start),
            Form::Wide(contact) => contact.first_start,
        }
    }

    /// Latest `end`.
    #[must_use]
    pub fn last_end(&self) -> UnixSeconds {
        match self.0 {
            Form::Slim { slot, set } => slot.last_end(set.pane_start),
            Form::Wide(contact) => contact.last_end,
        }
    }

    /// The client's ports, in order; see [`CLIENT_PORTS_MAX`](super::CLIENT_PORTS_MAX).
    #[must_use]
    pub fn client_ports(&self) -> &'a [u16] {
        match self.0 {
            Form::Slim { slot, set } => slot.ports(&set.beside),
            Form::Wide(contact) => contact.client_ports.as_slice(),
        }
    }

    /// Where it was seen.
    #[must_use]
    pub fn places(&self) -> PlaceIds {
        match self.0 {
            Form::Slim { slot, .. } => slot.places(),
            Form::Wide(contact) => contact.places,
        }
    }

    /// The contact by itself.
    #[must_use]
    pub fn to_contact(&self) -> Contact {
        match self.0 {
            Form::Slim { slot, set } => slot.to_contact(set.pane_start, &set.beside),
            Form::Wide(contact) => contact.clone(),
        }
    }
}
