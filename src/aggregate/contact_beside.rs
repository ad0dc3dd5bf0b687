//! What not every contact has, for the slots of one pane: IPv6 addresses, client ports if there are more
//! than three, counts of a second point of view, and contacts whose counts don't fit a slot.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::client_ports::ClientPorts;
use super::contact::{Contact, Side, Tally};
use super::contact_slot::Sent;
use super::place::PlaceIds;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// What doesn't fit the slots of a pane, by number.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Client and server.
    pub(super) addrs: Vec<[Addr; 2]>,
    pub(super) contacts: Vec<Contact>,
    pub(super) ports: Vec<ClientPorts>,
    pub(super) others: Vec<[SlimTally; 2]>,
}

impl Beside {
    /// Empties the lists and keeps their memory.
    pub(super) fn clear(&mut self) {
        self.addrs.clear();
        self.contacts.clear();
        self.ports.clear();
        self.others.clear();
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.addrs.capacity() * size_of::<[Addr; 2]>()
            + self.contacts.capacity() * size_of::<Contact>()
            + self.ports.capacity() * size_of::<ClientPorts>()
            + self.others.capacity() * size_of::<[SlimTally; 2]>()
    }

    /// Memory that lists of these lengths take when they grow from nothing, in bytes: unlike
    /// [`Self::bytes`] it says nothing of whose memory is used again.
    #[inline]
    pub(super) const fn bytes_needed(&self) -> usize {
        grown(self.addrs.len()) * size_of::<[Addr; 2]>()
            + grown(self.contacts.len()) * size_of::<Contact>()
            + grown(self.ports.len()) * size_of::<ClientPorts>()
            + grown(self.others.len()) * size_of::<[SlimTally; 2]>()
    }

    /// Writes the lists.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.plain(&self.addrs);
        out.plain(&self.ports);
        out.plain(&self.others);
        out.count(self.contacts.len());
        for contact in &self.contacts {
            out.raw(PlainContact::of(contact).as_bytes());
        }
    }

    /// Reads the lists of contacts whose places are numbers below `place_count`.
    ///
    /// # Errors
    /// If the bytes are no such lists.
    pub(super) fn load(place_count: usize, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let addrs = from.plain()?;
        let ports: Vec<ClientPorts> = from.plain()?;
        let others: Vec<[SlimTally; 2]> = from.plain()?;
        let contacts: Vec<PlainContact> = from.plain()?;
        let contacts = contacts.iter().map(|contact| contact.to_contact(place_count)).collect();
        let contacts: Option<Vec<Contact>> = contacts;
        let is_valid = ports.iter().all(ClientPorts::is_valid)
            && others.iter().flatten().all(SlimTally::is_valid);
        match contacts {
            Some(contacts) if is_valid => Ok(Self { addrs, contacts, ports, others }),
            _ => Err(DecodeError::Invalid("part of a contact")),
        }
    }
}

/// How long a vector gets that grows by doubling until `len` items fit.
#[inline]
pub(super) const fn grown(len: usize) -> usize {
    if len == 0 { 0 } else { len.next_power_of_two() }
}

/// One side's counts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(super) struct SlimTally {
    pub(super) bytes: u32,
    pub(super) packets: u32,
    pub(super) flows: u16,
    pub(super) rejected: u16,
}

impl SlimTally {
    pub(super) const NONE: Self = Self { bytes: 0, packets: 0, flows: 0, rejected: 0 };

    /// The counts with one more record, if they fit.
    #[inline]
    pub(super) fn with(self, sent: &Sent) -> Option<Self> {
        Some(Self {
            bytes: u32::try_from(sent.bytes.checked_add(self.bytes.into())?).ok()?,
            packets: u32::try_from(sent.packets.checked_add(self.packets.into())?).ok()?,
            flows: self.flows.checked_add(1)?,
            rejected: self.rejected + u16::from(sent.rejected),
        })
    }

    #[inline]
    pub(super) fn widened(self) -> Tally {
        Tally {
            flows: self.flows.into(),
            rejected: self.rejected.into(),
            packets: self.packets.into(),
            bytes: self.bytes.into(),
        }
    }

    /// Whether no more records were rejected than there were: then counting can't overflow.
    pub(super) const fn is_valid(&self) -> bool {
        self.rejected <= self.flows
    }
}

/// A contact as it is saved.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct PlainContact {
    /// Of the client at ingress and egress, and of the server.
    tallies: [Tally; 4],
    first_start: i64,
    last_end: i64,
    places: PlaceIds,
    /// Of the client and the server; [`NO_FLAGS`].
    flags: [u16; 2],
    client_ports: ClientPorts,
    unused: [u8; 2],
}

const NO_FLAGS: u16 = u16::MAX;

impl PlainContact {
    fn of(contact: &Contact) -> Self {
        let [forward, back] = [contact.forward.tallies(), contact.back.tallies()];
        let flags = |side: &Side| side.tcp_flags.map_or(NO_FLAGS, u16::from);
        Self {
            tallies: [forward[0], forward[1], back[0], back[1]],
            first_start: contact.first_start.0,
            last_end: contact.last_end.0,
            places: contact.places,
            flags: [flags(&contact.forward), flags(&contact.back)],
            client_ports: contact.client_ports,
            unused: [0; 2],
        }
    }

    fn to_contact(&self, place_count: usize) -> Option<Contact> {
        let side = |side: usize| {
            let flags = match self.flags[side] {
                NO_FLAGS => None,
                flags => Some(u8::try_from(flags).ok()?),
            };
            Some(Side::of(self.tallies[side * 2], self.tallies[side * 2 + 1], flags))
        };
        let has_places = self.places.iter().all(|id| (id as usize) < place_count);
        if !has_places || !self.client_ports.is_valid() {
            return None;
        }
        Some(Contact {
            forward: side(0)?,
            back: side(1)?,
            first_start: UnixSeconds(self.first_start),
            last_end: UnixSeconds(self.last_end),
            client_ports: self.client_ports,
            places: self.places,
        })
    }
}
