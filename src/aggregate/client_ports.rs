//! The distinct client ports of a contact: how many connections there were, whatever the number of
//! records that told of them.
//!
//! Exact up to [`CLIENT_PORTS_MAX`], then "at least that many". Which ports are kept does not depend
//! on the order of insertion or merging: always the lowest ones.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::simd;

/// How many ports a set keeps; a set of this length stands for "this many or more".
pub const CLIENT_PORTS_MAX: usize = 64;

/// A small ordered set of ports.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
// In this order, so that a set of few ports is in one cache line.
#[repr(C)]
pub struct ClientPorts {
    /// Of 16 bits, so that there is no gap.
    count: u16,
    ports: [u16; CLIENT_PORTS_MAX],
}

impl Default for ClientPorts {
    fn default() -> Self {
        Self { count: 0, ports: [0; CLIENT_PORTS_MAX] }
    }
}

impl std::fmt::Debug for ClientPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.as_slice().fmt(f)
    }
}

impl ClientPorts {
    /// The ports, in order.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[u16] {
        &self.ports[..usize::from(self.count)]
    }

    /// Number of ports kept.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the ports are as [`Self::insert`] leaves them.
    pub(super) fn is_valid(&self) -> bool {
        self.len() <= CLIENT_PORTS_MAX && self.as_slice().is_sorted_by(|one, next| one < next)
    }

    /// Asks for where [`Self::insert`] begins to look in the set `sets[number]`.
    #[inline]
    pub(super) fn prefetch(sets: &[Self], number: usize) {
        simd::prefetch(sets, number);
        if let Some(set) = sets.get(number) {
            simd::prefetch(&set.ports, CLIENT_PORTS_MAX - 1);
        }
    }

    /// Adds a port; at the limit the highest one leaves.
    #[inline]
    pub fn insert(&mut self, port: u16) {
        // A busy client's port is usually above those that are kept.
        if self.len() == CLIENT_PORTS_MAX && port > self.ports[CLIENT_PORTS_MAX - 1] {
            return;
        }
        let Err(position) = self.as_slice().binary_search(&port) else { return };
        let kept = self.len().min(CLIENT_PORTS_MAX - 1);
        self.ports.copy_within(position..kept, position + 1);
        self.ports[position] = port;
        self.count = u16::try_from(kept + 1).expect("bounded by CLIENT_PORTS_MAX");
        debug_assert!(self.as_slice().is_sorted());
    }

    /// Adds all ports of `other`.
    pub fn merge(&mut self, other: &Self) {
        other.as_slice().iter().for_each(|port| self.insert(*port));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn set_of(ports: &[u16]) -> ClientPorts {
        let mut set = ClientPorts::default();
        for port in ports {
            set.insert(*port);
        }
        set
    }

    proptest! {
        #[test]
        fn the_lowest_ports_are_kept_whatever_the_order(
            left in prop::collection::vec(0_u16..200, 0..150),
            right in prop::collection::vec(0_u16..200, 0..150),
        ) {
            let model: BTreeSet<u16> = left.iter().chain(&right).copied().collect();
            let expected: Vec<u16> = model.into_iter().take(CLIENT_PORTS_MAX).collect();
            let mut merged = set_of(&left);
            merged.merge(&set_of(&right));
            prop_assert_eq!(merged.as_slice(), &expected[..]);
            let mut other_way = set_of(&right);
            other_way.merge(&set_of(&left));
            prop_assert_eq!(other_way.as_slice(), &expected[..]);
            prop_assert_eq!(merged.is_empty(), expected.is_empty());
        }
    }
}
