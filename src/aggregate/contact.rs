//! Contacts: what a client and a service of a server sent each other within one pane.
//!
//! A contact gathers every record of both directions and of every interface that saw them. Merging is
//! associative and commutative, so that neither the order of records nor the number of shards shows.
//! Made by [`ContactTable`](super::ContactTable), judged by `detect`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::client_ports::ClientPorts;
use super::contact_row::Vantage;
use super::contact_slot::Sent;
use super::place::{PlaceIds, PlaceNames};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// Who talked to which service.
///
/// For protocols without ports, and for equal ports on both ends, which end is the client can't be
/// told from one record; then it is the lower address, until both sides have been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContactKey {
    /// The end that opened.
    pub client: Addr,
    /// The end that was opened to.
    pub server: Addr,
    /// IANA protocol number.
    pub protocol: u8,
    /// The server's port; 0 for protocols without ports.
    pub port: u16,
}

impl ContactKey {
    /// The key with client and server exchanged.
    #[must_use]
    pub const fn turned(self) -> Self {
        Self { client: self.server, server: self.client, ..self }
    }

    /// Whether the ports don't tell which end is the client of a contact with these client ports.
    #[must_use]
    pub fn ends_are_alike(&self, client_ports: &[u16]) -> bool {
        self.port == 0 || client_ports == [self.port]
    }
}

/// Counts of one direction as one vantage point saw them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Tally {
    /// Records.
    pub flows: u32,
    /// Records with action REJECT.
    pub rejected: u32,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Tally {
    fn merge(&mut self, other: Self) {
        self.flows = self.flows.saturating_add(other.flows);
        self.rejected = self.rejected.saturating_add(other.rejected);
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub(super) fn larger(self, other: Self) -> Self {
        Self {
            flows: self.flows.max(other.flows),
            rejected: self.rejected.max(other.rejected),
            packets: self.packets.max(other.packets),
            bytes: self.bytes.max(other.bytes),
        }
    }
}

/// What one end sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    at_ingress: Tally,
    at_egress: Tally,
    /// OR of the TCP flags, `None` if no record had the field.
    pub tcp_flags: Option<u8>,
}

impl Side {
    /// The counts, with traffic that both ends' interfaces logged taken once.
    ///
    /// Needs `flow-direction`: without it every record counts, twice inside a VPC.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.at_ingress.larger(self.at_egress)
    }

    /// Whether this end sent nothing.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        self.at_ingress.flows == 0 && self.at_egress.flows == 0
    }

    pub(super) const fn of(at_ingress: Tally, at_egress: Tally, tcp_flags: Option<u8>) -> Self {
        Self { at_ingress, at_egress, tcp_flags }
    }

    /// The counts at ingress and at egress.
    pub(super) const fn tallies(&self) -> [Tally; 2] {
        [self.at_ingress, self.at_egress]
    }

    fn merge(&mut self, other: &Self) {
        self.at_ingress.merge(other.at_ingress);
        self.at_egress.merge(other.at_egress);
        self.tcp_flags = match (self.tcp_flags, other.tcp_flags) {
            (Some(flags), Some(more)) => Some(flags | more),
            (flags, more) => flags.or(more),
        };
    }
}

/// What a client and a service of a server sent each other within one pane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// Client to server.
    pub forward: Side,
    /// Server to client.
    pub back: Side,
    /// Earliest `start`.
    pub first_start: UnixSeconds,
    /// Latest `end`.
    pub last_end: UnixSeconds,
    /// The client's ports, one per connection.
    pub client_ports: ClientPorts,
    /// Where it was seen.
    pub places: PlaceIds,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            forward: Side::default(),
            back: Side::default(),
            first_start: UnixSeconds::MAX,
            last_end: UnixSeconds::MIN,
            client_ports: ClientPorts::default(),
            places: PlaceIds::default(),
        }
    }
}

impl Contact {
    /// Adds a record.
    pub(super) fn add(&mut self, sent: &Sent) {
        let side = if sent.from_client { &mut self.forward } else { &mut self.back };
        let tally = match sent.vantage {
            Vantage::Egress => &mut side.at_egress,
            Vantage::Ingress | Vantage::Unknown => &mut side.at_ingress,
        };
        tally.merge(Tally {
            flows: 1,
            rejected: sent.rejected.into(),
            packets: sent.packets,
            bytes: sent.bytes,
        });
        if let Some(flags) = sent.tcp_flags {
            side.tcp_flags = Some(side.tcp_flags.unwrap_or(0) | flags);
        }
        self.client_ports.insert(sent.client_port);
        self.first_start = self.first_start.min(sent.start);
        self.last_end = self.last_end.max(sent.end);
    }

    /// Adds all of `other`; the places of both refer to `places`.
    pub(super) fn merge(&mut self, other: &Self, places: &PlaceNames) {
        self.forward.merge(&other.forward);
        self.back.merge(&other.back);
        self.first_start = self.first_start.min(other.first_start);
        self.last_end = self.last_end.max(other.last_end);
        self.client_ports.merge(&other.client_ports);
        self.places.merge(other.places, places);
    }

    /// Takes the other end for the client. For contacts whose ports don't tell the ends apart.
    pub(super) const fn flip(&mut self) {
        std::mem::swap(&mut self.forward, &mut self.back);
    }
}
