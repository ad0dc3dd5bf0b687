//! Names that were seen last, as many as there is room for.

use std::collections::{HashSet, VecDeque};

use sha2::{Digest, Sha256};

/// A set that forgets its oldest members when it is full.
#[derive(Debug)]
pub(super) struct Recent {
    /// By digest: names are long, and two with the same 128 bits are not to be expected.
    members: HashSet<u128>,
    order: VecDeque<u128>,
    members_max: usize,
}

impl Recent {
    pub(super) fn new(members_max: usize) -> Self {
        Self { members: HashSet::new(), order: VecDeque::new(), members_max }
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.members.contains(&digest(name))
    }

    pub(super) fn insert(&mut self, name: &str) {
        let member = digest(name);
        if !self.members.insert(member) {
            return;
        }
        self.order.push_back(member);
        if self.order.len() > self.members_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.members.remove(&oldest);
        }
    }
}

fn digest(name: &str) -> u128 {
    let digest = Sha256::digest(name);
    u128::from_be_bytes(digest[..16].try_into().expect("SHA-256 has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let mut recent = Recent::new(2);
        ["a", "b", "b", "c"].iter().for_each(|name| recent.insert(name));
        assert_eq!(["a", "b", "c"].map(|name| recent.contains(name)), [false, true, true]);
    }
}
