//! A set of names that remembers the newest so many of them, by their hashes.

use std::collections::{HashSet, VecDeque};

use sha2::{Digest as _, Sha256};

/// A hash so wide that two names of a lifetime never meet, also if somebody tries.
#[must_use]
pub fn name_hash(name: &[u8]) -> u128 {
    let digest = Sha256::digest(name);
    u128::from_le_bytes(digest[..16].try_into().expect("SHA-256 has 32 bytes"))
}

/// The newest hashes of names; about 50 bytes each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentHashes {
    count_max: usize,
    /// The oldest first.
    in_order: VecDeque<u128>,
    known: HashSet<u128>,
    forgotten_count: u64,
}

impl RecentHashes {
    /// None, with room for so many.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        let (in_order, known) = (VecDeque::new(), HashSet::new());
        Self { count_max, in_order, known, forgotten_count: 0 }
    }

    /// Adds a hash, for which the oldest is forgotten if there is no room; false if it is there already.
    pub fn insert(&mut self, hash: u128) -> bool {
        if !self.known.insert(hash) {
            return false;
        }
        self.in_order.push_back(hash);
        if self.in_order.len() > self.count_max
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
            self.forgotten_count += 1;
        }
        true
    }

    /// Whether it is remembered.
    #[must_use]
    pub fn contains(&self, hash: u128) -> bool {
        self.known.contains(&hash)
    }

    /// All of them, the oldest first, in two pieces.
    #[must_use]
    pub fn as_slices(&self) -> [&[u128]; 2] {
        self.in_order.as_slices().into()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_order.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_order.is_empty()
    }

    /// How many were forgotten since it was made.
    #[must_use]
    pub const fn forgotten_count(&self) -> u64 {
        self.forgotten_count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered() {
        let mut recent = RecentHashes::new(3);
        for (number, forgotten) in [(1, 0), (2, 0), (1, 0), (3, 0), (4, 1), (5, 2)] {
            recent.insert(name_hash(&[number]));
            assert_eq!(recent.forgotten_count(), forgotten);
        }
        let known = [1, 2, 3, 4, 5].map(|number| recent.contains(name_hash(&[number])));
        assert_eq!((known, recent.len()), ([false, false, true, true, true], 3));
    }
}
