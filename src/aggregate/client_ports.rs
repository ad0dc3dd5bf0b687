//! The distinct client ports of a contact: how many connections there were, whatever the number of
//! records that told of them.
//!
//! Exact up to [`CLIENT_PORTS_MAX`], then "at least that many". Which ports are kept does not depend
//! on the order of insertion or merging: always the lowest ones.

/// How many ports a set keeps; a set of this length stands for "this many or more".
pub const CLIENT_PORTS_MAX: usize = 64;

const INLINE: usize = 3;

/// A small ordered set of ports; up to three need no allocation, as most contacts have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientPorts {
    inline: [u16; INLINE],
    /// Stays at the full count after spilling.
    inline_count: u8,
    /// All ports, once they are more than fit inline.
    spilled: Vec<u16>,
}

impl ClientPorts {
    /// The ports, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[u16] {
        if self.spilled.is_empty() {
            &self.inline[..usize::from(self.inline_count)]
        } else {
            &self.spilled
        }
    }

    /// Number of ports kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inline_count == 0
    }

    /// Whether ports may be missing.
    #[must_use]
    pub fn is_saturated(&self) -> bool {
        self.len() >= CLIENT_PORTS_MAX
    }

    /// Adds a port; at the limit the highest one leaves.
    pub fn insert(&mut self, port: u16) {
        let Err(position) = self.as_slice().binary_search(&port) else { return };
        let count = self.len();
        if count < INLINE {
            self.inline.copy_within(position..count, position + 1);
            self.inline[position] = port;
            self.inline_count += 1;
        } else if position < CLIENT_PORTS_MAX {
            if self.spilled.is_empty() {
                self.spilled.extend_from_slice(&self.inline);
                self.inline = [0; INLINE];
            }
            if count == CLIENT_PORTS_MAX {
                self.spilled.pop();
            }
            self.spilled.insert(position, port);
        }
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
