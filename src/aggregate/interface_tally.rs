//! What one interface logged in a pane, or over several panes of the same time.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::contact_slot::Sent;
use crate::net::Addr;
use crate::units::UnixSeconds;

/// Records, and what they count.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowCounts {
    /// `bytes`
    pub bytes: u64,
    /// `packets`
    pub packets: u64,
    /// Records.
    pub flows: u32,
    /// Those of them that were rejected.
    pub rejected: u32,
}

impl FlowCounts {
    #[inline]
    pub(super) const fn of(sent: &Sent) -> Self {
        Self { bytes: sent.bytes, packets: sent.packets, flows: 1, rejected: sent.rejected as u32 }
    }

    /// These and `other` together; no count goes beyond its type.
    #[inline]
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(other.bytes),
            packets: self.packets.saturating_add(other.packets),
            flows: self.flows.saturating_add(other.flows),
            rejected: self.rejected.saturating_add(other.rejected),
        }
    }

    /// What is left of these without `other`.
    const fn minus(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            packets: self.packets.saturating_sub(other.packets),
            flows: self.flows.saturating_sub(other.flows),
            rejected: self.rejected.saturating_sub(other.rejected),
        }
    }
}

/// An address that may be the interface's own, and what it sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) addr: u32,
    pub(super) sent: FlowCounts,
}

/// The IPv4 address at the interface's end of records.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub(super) struct Own(pub(super) u32);

impl Own {
    pub(super) const NONE: Self = Self(0);
    pub(super) const SEVERAL: Self = Self(u32::MAX);

    /// What all records say, if they say the same.
    #[inline]
    pub(super) fn and(self, other: Self) -> Self {
        if self == Self::NONE || self == other {
            other
        } else if other == Self::NONE {
            self
        } else {
            Self::SEVERAL
        }
    }
}

/// What one interface logged in a pane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceTally {
    /// Records whose `flow-direction` says that the interface received.
    pub received: FlowCounts,
    /// Records whose `flow-direction` says that the interface sent.
    pub sent: FlowCounts,
    /// IPv4 records without `flow-direction`.
    pub undirected: FlowCounts,
    /// IPv6 records without `flow-direction`.
    pub undirected_wide: FlowCounts,
    /// In order; none if no address is in all undirected records.
    pub(super) candidates: Vec<Candidate>,
    /// NODATA records.
    pub nodata_records: u32,
    /// SKIPDATA records.
    pub skipdata_records: u32,
    /// Earliest `start` and latest `end` of SKIPDATA records.
    pub skipped: Option<(UnixSeconds, UnixSeconds)>,
    /// Earliest `start` of any record.
    pub first_start: UnixSeconds,
    /// Latest `end` of any record.
    pub last_end: UnixSeconds,
    pub(super) own: Own,
    /// The longest time from `start` to `end`: no longer than the aggregation interval, and nearly as long if
    /// there is much traffic.
    pub span_seconds: u32,
}

impl InterfaceTally {
    /// Addresses that all undirected records have in common: one, unless there was only one peer, or
    /// the interface passes on what others send.
    pub fn candidates(&self) -> impl Iterator<Item = Addr> {
        self.candidates.iter().map(|candidate| Addr::v4(candidate.addr))
    }

    /// The address that all records with `flow-direction` say is the interface's.
    #[must_use]
    pub const fn directed_own(&self) -> Option<Addr> {
        match self.own {
            Own::NONE | Own::SEVERAL => None,
            Own(bits) => Some(Addr::v4(bits)),
        }
    }

    /// What was received and sent, if that can be told with `own` for the interface's address. IPv6 records
    /// without direction are in neither.
    #[must_use]
    pub fn directions(&self, own: Option<Addr>) -> Option<[FlowCounts; 2]> {
        if self.undirected.flows == 0 {
            return Some([self.received, self.sent]);
        }
        let own = own?.as_v4()?;
        let candidate = self.candidates.iter().find(|candidate| candidate.addr == own)?;
        let received = self.undirected.minus(candidate.sent);
        Some([self.received.plus(received), self.sent.plus(candidate.sent)])
    }

    /// Traffic in any direction.
    #[must_use]
    pub const fn traffic(&self) -> FlowCounts {
        self.received.plus(self.sent).plus(self.undirected).plus(self.undirected_wide)
    }

    /// Adds what the same interface logged in the same pane elsewhere.
    pub fn merge(&mut self, other: &Self) {
        let (was_empty, is_empty) = (self.undirected.flows == 0, other.undirected.flows == 0);
        if was_empty {
            self.candidates.clone_from(&other.candidates);
        } else if !is_empty {
            self.candidates.retain_mut(|candidate| {
                let of_other = other.candidates.iter().find(|other| other.addr == candidate.addr);
                let sent = of_other.map(|other| candidate.sent.plus(other.sent));
                candidate.sent = sent.unwrap_or_default();
                sent.is_some()
            });
        }
        for (counts, others) in [
            (&mut self.received, other.received),
            (&mut self.sent, other.sent),
            (&mut self.undirected, other.undirected),
            (&mut self.undirected_wide, other.undirected_wide),
        ] {
            *counts = counts.plus(others);
        }
        self.nodata_records = self.nodata_records.saturating_add(other.nodata_records);
        self.skipdata_records = self.skipdata_records.saturating_add(other.skipdata_records);
        self.skipped = match (self.skipped, other.skipped) {
            (Some(one), Some(other)) => Some((one.0.min(other.0), one.1.max(other.1))),
            (one, other) => one.or(other),
        };
        self.first_start = self.first_start.min(other.first_start);
        self.last_end = self.last_end.max(other.last_end);
        self.own = self.own.and(other.own);
        self.span_seconds = self.span_seconds.max(other.span_seconds);
    }
}

/// What a record says of its interface beside traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// NODATA: there was no traffic.
    NoData,
    /// SKIPDATA: records were lost.
    SkipData,
}
