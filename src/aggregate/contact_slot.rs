//! A contact in one cache line.
//!
//! What not every contact has stands beside the slots and is named by number ([`Beside`]): IPv6 addresses,
//! client ports if there are more than three, counts of the other point of view where both ends'
//! interfaces logged. A record whose counts or times do not fit half the bits leaves the slot as it was and
//! says so; the contact then goes on in the wide form ([`Contact`]), which a slot becomes by
//! [`ContactSlot::to_contact`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::client_ports::ClientPorts;
use super::contact::{Contact, ContactKey, Side, Tally};
use super::contact_beside::{Beside, SlimTally};
use super::contact_row::Vantage;
use super::place::PlaceIds;
use crate::net::Addr;
use crate::units::UnixSeconds;

/// A key between two IPv4 addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NarrowKey {
    pub(super) client: u32,
    pub(super) server: u32,
    pub(super) port: u16,
    pub(super) protocol: u8,
}

impl NarrowKey {
    /// The key in this form, if it fits.
    pub(super) fn of(key: &ContactKey) -> Option<Self> {
        let (client, server) = (key.client.as_v4()?, key.server.as_v4()?);
        Some(Self { client, server, port: key.port, protocol: key.protocol })
    }

    pub(super) const fn to_key(self) -> ContactKey {
        let (client, server) = (Addr::v4(self.client), Addr::v4(self.server));
        ContactKey { client, server, protocol: self.protocol, port: self.port }
    }
}

/// What a record says of a contact, ends told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// Whether the client sent it.
    pub(super) from_client: bool,
    pub(super) rejected: bool,
    pub(super) vantage: Vantage,
    pub(super) tcp_flags: Option<u8>,
    pub(super) client_port: u16,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Not after `end`.
    pub(super) start: UnixSeconds,
    pub(super) end: UnixSeconds,
}

/// How many client ports a slot holds.
const PORTS_MAX: usize = 3;

/// Instead of a number of ports: they stand elsewhere.
const PORTS_ARE_WIDE: u8 = 0xff;

/// Beside TCP flags: that a record had the field.
const HAS_FLAGS: u8 = 0x80;

/// The slot's addresses stand elsewhere.
const KEY_IS_WIDE: u8 = 1;
/// The slot's counts are in the wide form.
const IS_WIDE: u8 = 2;
/// The contact has moved elsewhere.
const IS_GONE: u8 = 4;
/// A record came for it that the router could not know to be of this pair.
const IS_STRAY: u8 = 32;
/// One bit for each side: its records were made at egress.
const AT_EGRESS: [u8; 2] = [8, 16];

const CLIENT: usize = 0;
const SERVER: usize = 1;

/// A contact in one cache line; its times count from the start of its pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(64))]
pub(super) struct ContactSlot {
    client: u32,
    server: u32,
    port: u16,
    protocol: u8,
    state: u8,
    /// What the client and the server sent; in the wide form, [`Self::wide_number`].
    sides: [SlimTally; 2],
    first_start: i32,
    last_end: i32,
    places: PlaceIds,
    client_ports: [u16; PORTS_MAX],
    client_port_count: u8,
    tcp_flags: [u8; 2],
    /// Number of the counts of the other point of view, lowest byte first; [`NO_OTHER`].
    other: [u8; 3],
}

const NO_OTHER: [u8; 3] = [0xff; 3];

const _: () = assert!(size_of::<ContactSlot>() == 64);

impl ContactSlot {
    /// A slot without a key.
    pub(super) const EMPTY: Self = Self {
        client: 0,
        server: 0,
        port: 0,
        protocol: 0,
        state: 0,
        sides: [SlimTally::NONE; 2],
        first_start: i32::MAX,
        last_end: i32::MIN,
        places: PlaceIds::NONE,
        client_ports: [0; PORTS_MAX],
        client_port_count: 0,
        tcp_flags: [0; 2],
        other: NO_OTHER,
    };

    /// A slot without any record.
    pub(super) const fn new(key: NarrowKey) -> Self {
        let mut slot = Self::EMPTY;
        slot.set_key(key);
        slot
    }

    /// Gives an empty slot its key.
    #[inline]
    pub(super) const fn set_key(&mut self, key: NarrowKey) {
        let NarrowKey { client, server, port, protocol } = key;
        self.client = client;
        self.server = server;
        self.port = port;
        self.protocol = protocol;
    }

    /// Takes the first record of a new slot if it fits: what [`Self::try_add`] does, without asking what
    /// the slot has.
    #[inline]
    pub(super) fn try_add_first(&mut self, pane_start: UnixSeconds, sent: &Sent) -> bool {
        let flags = sent.tcp_flags.map_or(0, |flags| flags | HAS_FLAGS);
        let (Some(start), Some(end), Ok(bytes), Ok(packets)) = (
            offset(pane_start, sent.start),
            offset(pane_start, sent.end),
            u32::try_from(sent.bytes),
            u32::try_from(sent.packets),
        ) else {
            return false;
        };
        if sent.tcp_flags.is_some_and(|flags| flags & HAS_FLAGS != 0) {
            return false;
        }
        let side = if sent.from_client { CLIENT } else { SERVER };
        self.sides[side] = SlimTally { bytes, packets, flows: 1, rejected: sent.rejected.into() };
        if sent.vantage == Vantage::Egress {
            self.state |= AT_EGRESS[side];
        }
        self.first_start = start;
        self.last_end = end;
        self.client_ports[0] = sent.client_port;
        self.client_port_count = 1;
        self.tcp_flags[side] = flags;
        true
    }

    /// A slot whose addresses stand elsewhere, under `addrs_number`.
    pub(super) fn of_wide_key(addrs_number: u32, protocol: u8, port: u16) -> Self {
        let mut slot = Self::new(NarrowKey { client: addrs_number, server: 0, port, protocol });
        slot.state = KEY_IS_WIDE;
        slot
    }

    pub(super) const fn become_wide(&mut self, wide_number: u32) {
        self.state |= IS_WIDE;
        self.sides[CLIENT].bytes = wide_number;
    }

    pub(super) const fn become_gone(&mut self) {
        self.state |= IS_GONE;
    }

    pub(super) const fn is_gone(&self) -> bool {
        self.state & IS_GONE != 0
    }

    /// Marks the contact as a stray; false if it was one.
    pub(super) const fn become_stray(&mut self) -> bool {
        let is_first = !self.is_stray();
        self.state |= IS_STRAY;
        is_first
    }

    pub(super) const fn is_stray(&self) -> bool {
        self.state & IS_STRAY != 0
    }

    /// The key, unless its addresses stand elsewhere.
    #[inline]
    pub(super) const fn narrow_key(&self) -> Option<NarrowKey> {
        if self.state & KEY_IS_WIDE == 0 { Some(self.key()) } else { None }
    }

    /// The slot's own part of the key; without [`Self::narrow_key`], `client` is the number of the addresses.
    #[inline]
    pub(super) const fn key(&self) -> NarrowKey {
        let Self { client, server, port, protocol, .. } = *self;
        NarrowKey { client, server, port, protocol }
    }

    /// Whether the slot's contact has this key.
    #[inline]
    pub(super) fn has_key(&self, key: &NarrowKey) -> bool {
        self.key() == *key && self.state & (KEY_IS_WIDE | IS_GONE) == 0
    }

    /// Where the contact is, if it has the wide form.
    #[inline]
    pub(super) const fn wide_number(&self) -> Option<u32> {
        if self.state & IS_WIDE != 0 { Some(self.sides[CLIENT].bytes) } else { None }
    }

    /// Adds a record if it fits.
    #[inline]
    pub(super) fn try_add(
        &mut self,
        pane_start: UnixSeconds,
        sent: &Sent,
        beside: &mut Beside,
    ) -> bool {
        let side = if sent.from_client { CLIENT } else { SERVER };
        let egress = if sent.vantage == Vantage::Egress { AT_EGRESS[side] } else { 0 };
        let flags = sent.tcp_flags.unwrap_or(0);
        let (Some(start), Some(end)) =
            (offset(pane_start, sent.start), offset(pane_start, sent.end))
        else {
            return false;
        };
        if flags & HAS_FLAGS != 0 {
            return false;
        }
        if self.sides[side].flows > 0 && self.state & AT_EGRESS[side] != egress {
            if !self.try_add_other(side, sent, beside) {
                return false;
            }
        } else {
            let Some(tally) = self.sides[side].with(sent) else { return false };
            self.sides[side] = tally;
            self.state |= egress;
        }
        self.insert_port(sent.client_port, &mut beside.ports);
        self.tcp_flags[side] |= sent.tcp_flags.map_or(0, |flags| flags | HAS_FLAGS);
        self.first_start = self.first_start.min(start);
        self.last_end = self.last_end.max(end);
        true
    }

    /// Adds to the counts of the point of view that is not the slot's.
    fn try_add_other(&mut self, side: usize, sent: &Sent, beside: &mut Beside) -> bool {
        if self.other == NO_OTHER {
            let [a, b, c, 0] = u32::try_from(beside.others.len()).unwrap_or(u32::MAX).to_le_bytes()
            else {
                return false;
            };
            if [a, b, c] == NO_OTHER {
                return false;
            }
            self.other = [a, b, c];
            beside.others.push([SlimTally::default(); 2]);
        }
        let other = &mut beside.others[self.other_number()][side];
        let tally = other.with(sent);
        *other = tally.unwrap_or(*other);
        tally.is_some()
    }

    fn other_number(&self) -> usize {
        let [a, b, c] = self.other;
        usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16
    }

    /// Asks for the client's ports if they stand elsewhere.
    #[inline]
    pub(super) fn prefetch_ports(&self, beside: &Beside) {
        if self.client_port_count == PORTS_ARE_WIDE {
            ClientPorts::prefetch(&beside.ports, self.ports_number());
        }
    }

    #[inline]
    fn insert_port(&mut self, port: u16, wide_ports: &mut Vec<ClientPorts>) {
        if self.client_port_count == PORTS_ARE_WIDE {
            wide_ports[self.ports_number()].insert(port);
            return;
        }
        let count = usize::from(self.client_port_count);
        let ports = &self.client_ports[..count];
        if ports.contains(&port) {
            return;
        }
        if count == PORTS_MAX {
            self.move_ports(wide_ports);
            wide_ports[self.ports_number()].insert(port);
            return;
        }
        let position = ports.iter().filter(|other| **other < port).count();
        self.client_ports.copy_within(position..count, position + 1);
        self.client_ports[position] = port;
        self.client_port_count += 1;
    }

    #[cold]
    fn move_ports(&mut self, wide_ports: &mut Vec<ClientPorts>) {
        let number = number_of(wide_ports.len());
        let mut ports = ClientPorts::default();
        self.client_ports.iter().for_each(|port| ports.insert(*port));
        wide_ports.push(ports);
        self.set_ports_number(number);
        self.client_port_count = PORTS_ARE_WIDE;
    }

    const fn set_ports_number(&mut self, number: u32) {
        let [a, b, c, d] = number.to_le_bytes();
        self.client_ports = [u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]), 0];
    }

    fn ports_number(&self) -> usize {
        usize::from(self.client_ports[0]) | usize::from(self.client_ports[1]) << 16
    }

    pub(super) const fn places_mut(&mut self) -> &mut PlaceIds {
        &mut self.places
    }

    pub(super) const fn places(&self) -> PlaceIds {
        self.places
    }

    /// Whether everything that the slot refers to is there, as reading and adding to it take for granted.
    pub(super) fn is_valid(&self, beside: &Beside, place_count: usize) -> bool {
        let has_addrs = self.narrow_key().is_some() || is_below(self.client, beside.addrs.len());
        let counts_are_valid = match self.wide_number() {
            Some(wide_number) => is_below(wide_number, beside.contacts.len()),
            None => self.sides.iter().all(SlimTally::is_valid),
        };
        let has_ports = match self.client_port_count {
            PORTS_ARE_WIDE => self.ports_number() < beside.ports.len(),
            count => usize::from(count) <= PORTS_MAX,
        };
        let has_other = self.other == NO_OTHER || self.other_number() < beside.others.len();
        let has_places = self.places.iter().all(|id| is_below(id, place_count));
        has_addrs && counts_are_valid && has_ports && has_other && has_places
    }

    /// Moves what the slot has in `from` to `to`, where it gets other numbers.
    pub(super) fn move_beside(&mut self, from: &Beside, to: &mut Beside) {
        if self.narrow_key().is_none() {
            let addrs = from.addrs[self.client as usize];
            self.client = number_of(to.addrs.len());
            to.addrs.push(addrs);
        }
        if let Some(wide_number) = self.wide_number() {
            let contact = from.contacts[wide_number as usize].clone();
            self.become_wide(number_of(to.contacts.len()));
            to.contacts.push(contact);
            // What the slot had before it became wide isn't read any more.
            self.other = NO_OTHER;
            self.client_port_count = 0;
            return;
        }
        if self.client_port_count == PORTS_ARE_WIDE {
            let ports = from.ports[self.ports_number()];
            self.set_ports_number(number_of(to.ports.len()));
            to.ports.push(ports);
        }
        if self.other != NO_OTHER {
            let other = from.others[self.other_number()];
            let number = to.others.len();
            to.others.push(other);
            let [a, b, c, _] = number_of(number).to_le_bytes();
            self.other = [a, b, c];
        }
    }

    /// Takes for the client what was the server.
    pub(super) fn turn(&mut self, beside: &mut Beside) {
        if self.narrow_key().is_some() {
            std::mem::swap(&mut self.client, &mut self.server);
        } else {
            beside.addrs[self.client as usize].reverse();
        }
        if let Some(wide_number) = self.wide_number() {
            beside.contacts[wide_number as usize].flip();
            return;
        }
        self.sides.reverse();
        self.tcp_flags.reverse();
        let at_egress = AT_EGRESS.map(|bit| self.state & bit != 0);
        for (bit, is_set) in AT_EGRESS.into_iter().rev().zip(at_egress) {
            self.state = if is_set { self.state | bit } else { self.state & !bit };
        }
        if self.other != NO_OTHER {
            beside.others[self.other_number()].reverse();
        }
    }

    /// Bytes that the slot takes with what it has elsewhere.
    #[inline]
    pub(super) const fn weight(&self) -> usize {
        let mut weight = size_of::<Self>();
        if self.state & KEY_IS_WIDE != 0 {
            weight += size_of::<[Addr; 2]>();
        }
        if self.state & IS_WIDE != 0 {
            return weight + size_of::<Contact>();
        }
        if self.client_port_count == PORTS_ARE_WIDE {
            weight += size_of::<ClientPorts>();
        }
        weight
    }

    /// The client's ports, in order.
    pub(super) fn ports<'a>(&'a self, beside: &'a Beside) -> &'a [u16] {
        match self.client_port_count {
            PORTS_ARE_WIDE => beside.ports[self.ports_number()].as_slice(),
            count => &self.client_ports[..usize::from(count)],
        }
    }

    #[inline]
    pub(super) fn forward(&self, beside: &Beside) -> (Tally, Option<u8>) {
        (self.tally(CLIENT, beside), self.flags(CLIENT))
    }

    #[inline]
    pub(super) fn back(&self, beside: &Beside) -> (Tally, Option<u8>) {
        (self.tally(SERVER, beside), self.flags(SERVER))
    }

    #[inline]
    fn tally(&self, side: usize, beside: &Beside) -> Tally {
        let tally = self.sides[side].widened();
        if self.other == NO_OTHER { tally } else { tally.larger(self.other_tally(side, beside)) }
    }

    fn other_tally(&self, side: usize, beside: &Beside) -> Tally {
        if self.other == NO_OTHER {
            return Tally::default();
        }
        beside.others[self.other_number()][side].widened()
    }

    #[inline]
    const fn flags(&self, side: usize) -> Option<u8> {
        let flags = self.tcp_flags[side];
        if flags & HAS_FLAGS != 0 { Some(flags & !HAS_FLAGS) } else { None }
    }

    pub(super) fn first_start(&self, pane_start: UnixSeconds) -> UnixSeconds {
        pane_start.saturating_add(self.first_start.into())
    }

    pub(super) fn last_end(&self, pane_start: UnixSeconds) -> UnixSeconds {
        pane_start.saturating_add(self.last_end.into())
    }

    /// The contact in the wide form.
    pub(super) fn to_contact(self, pane_start: UnixSeconds, beside: &Beside) -> Contact {
        let side = |side: usize| {
            let (tally, other) = (self.sides[side].widened(), self.other_tally(side, beside));
            let at_egress = self.state & AT_EGRESS[side] != 0;
            let (ingress, egress) = if at_egress { (other, tally) } else { (tally, other) };
            Side::of(ingress, egress, self.flags(side))
        };
        let mut client_ports = ClientPorts::default();
        self.ports(beside).iter().for_each(|port| client_ports.insert(*port));
        Contact {
            forward: side(CLIENT),
            back: side(SERVER),
            first_start: self.first_start(pane_start),
            last_end: self.last_end(pane_start),
            client_ports,
            places: self.places,
        }
    }
}

fn is_below(number: u32, count: usize) -> bool {
    (number as usize) < count
}

/// The number of the next item of a list that has `count`.
///
/// # Panics
/// If it has 4 billion, which no memory for contacts has room for.
pub(super) fn number_of(count: usize) -> u32 {
    u32::try_from(count).expect("tables of contacts are bounded far below")
}

/// Seconds since the pane's start, if they fit.
fn offset(pane_start: UnixSeconds, moment: UnixSeconds) -> Option<i32> {
    i32::try_from(moment.0.checked_sub(pane_start.0)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_first_record_is_added_as_any_other(
            (from_client, rejected, egress) in any::<(bool, bool, bool)>(),
            tcp_flags: Option<u8>,
            client_port: u16,
            counts in prop::array::uniform2(prop_oneof![0..9_u64, any::<u32>().prop_map(u64::from), any::<u64>()]),
            times in prop::array::uniform2(prop_oneof![0..99_i64, any::<i64>()]),
        ) {
            let sent = Sent {
                from_client,
                rejected,
                vantage: if egress { Vantage::Egress } else { Vantage::Unknown },
                tcp_flags,
                client_port,
                packets: counts[0],
                bytes: counts[1],
                start: UnixSeconds(times[0].min(times[1])),
                end: UnixSeconds(times[1]),
            };
            let key = NarrowKey { client: 1, server: 2, port: 3, protocol: 4 };
            let (mut first, mut any) = (ContactSlot::new(key), ContactSlot::new(key));
            let fits = any.try_add(UnixSeconds(60), &sent, &mut Beside::default());
            prop_assert_eq!(first.try_add_first(UnixSeconds(60), &sent), fits);
            prop_assert_eq!(first, any);
        }
    }
}
