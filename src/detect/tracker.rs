//! A bounded table of keys, each with its distinct values over time.
//!
//! The bound is on values over all keys, because they are what takes memory. At the bound the keys that
//! were quiet longest leave first, ties by key, so that what leaves doesn't depend on the table's inner
//! order; a flood of new keys pushes out old ones, never one that was just active. How many keys and values
//! were last seen in which pane is kept apart, so that the end of a pane costs nothing as long as few keys
//! have expired; these go when they are a quarter of all.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::distinct::{Attempt, Distinct};
use crate::aggregate::Blocks;
use crate::units::PaneIndex;

/// Seed of the inner tables; their order never shows, so that it may be the same everywhere.
const SEED: u64 = 0x5f67_6175_6765;

#[derive(Debug)]
struct Tracked<K, T> {
    key: K,
    distinct: Distinct<T>,
}

/// Keys that were last seen in one pane, and their values.
#[derive(Clone, Copy, Debug, Default)]
struct Quiet {
    key_count: usize,
    value_count: usize,
}

/// Distinct values over time by key.
#[derive(Debug)]
pub(super) struct Tracker<K, T> {
    hasher: FixedState,
    /// Positions in `tracked` by key.
    positions: HashTable<u32>,
    tracked: Blocks<Tracked<K, T>, 14>,
    by_last_pane: BTreeMap<PaneIndex, Quiet>,
    /// Keys that were not seen after it count as forgotten.
    expired: PaneIndex,
    values_max: usize,
    evictions: u64,
}

impl<K: Copy + Ord + Hash, T: Copy + Ord> Tracker<K, T> {
    /// An empty table that keeps at most `values_max` values between panes.
    pub(super) fn new(values_max: usize) -> Self {
        Self {
            hasher: FixedState::with_seed(SEED),
            positions: HashTable::new(),
            tracked: Blocks::default(),
            by_last_pane: BTreeMap::new(),
            expired: PaneIndex(i64::MIN),
            values_max,
            evictions: 0,
        }
    }

    /// Whether the key has values.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The values of a key.
    pub(super) fn get(&self, key: &K) -> Option<&Distinct<T>> {
        let tracked = &self.tracked.get(self.position(key)?).distinct;
        (tracked.last_pane() > self.expired).then_some(tracked)
    }

    fn position(&self, key: &K) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let is_it = |position: &u32| self.tracked.get(*position as usize).key == *key;
        self.positions.find(hash, is_it).map(|position| *position as usize)
    }

    /// Adds what happened to `key` in `pane` and returns its values; see [`Distinct::add`].
    pub(super) fn add(
        &mut self,
        key: K,
        pane: PaneIndex,
        expired: PaneIndex,
        attempts: &[Attempt<T>],
    ) -> &Distinct<T> {
        let position = match self.position(&key) {
            Some(position) => {
                self.count_out(position);
                position
            }
            None => {
                let position = self.tracked.len();
                let tracked = Tracked { key, distinct: Distinct::default() };
                self.tracked.push(tracked, Blocks::<_, 14>::new_block);
                self.insert_position(position);
                position
            }
        };
        let distinct = &mut self.tracked.get_mut(position).distinct;
        if distinct.last_pane() <= self.expired {
            *distinct = Distinct::default();
        }
        distinct.add(pane, expired, attempts);
        let distinct = &self.tracked.get(position).distinct;
        let quiet = self.by_last_pane.entry(distinct.last_pane()).or_default();
        quiet.key_count += 1;
        quiet.value_count += distinct.len();
        distinct
    }

    /// Takes a key out of the counts.
    fn count_out(&mut self, position: usize) {
        let distinct = &self.tracked.get(position).distinct;
        if let Some(quiet) = self.by_last_pane.get_mut(&distinct.last_pane()) {
            quiet.key_count -= 1;
            quiet.value_count -= distinct.len();
        }
    }

    fn insert_position(&mut self, position: usize) {
        let hash = self.hasher.hash_one(self.tracked.get(position).key);
        let position = u32::try_from(position).expect("values are bounded below 2^32");
        let rehash =
            |position: &u32| self.hasher.hash_one(self.tracked.get(*position as usize).key);
        self.positions.insert_unique(hash, position, rehash);
    }

    /// Forgets keys that were quiet since `expired`, and the quietest ones if there are too many
    /// values. Says whether any had to leave early.
    pub(super) fn end_pane(&mut self, expired: PaneIndex) -> bool {
        self.expired = expired;
        self.by_last_pane = self.by_last_pane.split_off(&PaneIndex(expired.0.saturating_add(1)));
        let mut live = Quiet::default();
        for quiet in self.by_last_pane.values() {
            live.key_count += quiet.key_count;
            live.value_count += quiet.value_count;
        }
        let must_evict = live.value_count > self.values_max;
        if must_evict {
            self.evict(live.value_count);
        } else if self.tracked.len() - live.key_count > self.tracked.len() / 4 {
            self.remove_if(|tracked| tracked.distinct.last_pane() <= expired);
        }
        must_evict
    }

    /// Removes the quietest keys. A tenth more leaves than must, so that a full table isn't sorted at
    /// every pane.
    fn evict(&mut self, mut value_count: usize) {
        let keep = self.values_max - self.values_max / 10;
        let mut until = self.expired;
        while let Some(entry) = self.by_last_pane.first_entry()
            && value_count - entry.get().value_count >= keep
        {
            until = *entry.key();
            self.evictions += entry.get().key_count as u64;
            value_count -= entry.remove().value_count;
        }
        self.remove_if(|tracked| tracked.distinct.last_pane() <= until);
        let Some((partly, _)) = self.by_last_pane.first_key_value() else { return };
        let partly = *partly;
        let is_partly = |tracked: &&Tracked<K, T>| tracked.distinct.last_pane() == partly;
        let mut keys: Vec<K> =
            self.tracked.iter().filter(is_partly).map(|tracked| tracked.key).collect();
        keys.sort_unstable();
        let mut leaving = Vec::new();
        for key in keys {
            if value_count <= keep {
                break;
            }
            let position = self.position(&key).expect("listed from the table");
            value_count -= self.tracked.get(position).distinct.len();
            self.count_out(position);
            self.evictions += 1;
            leaving.push(key);
        }
        self.remove_if(|tracked| {
            tracked.distinct.last_pane() == partly && leaving.binary_search(&tracked.key).is_ok()
        });
    }

    fn remove_if(&mut self, is_leaving: impl Fn(&Tracked<K, T>) -> bool) {
        let mut position = 0;
        while position < self.tracked.len() {
            if is_leaving(self.tracked.get(position)) {
                self.tracked.swap_remove(position);
            } else {
                position += 1;
            }
        }
        self.positions.clear();
        (0..self.tracked.len()).for_each(|position| self.insert_position(position));
    }

    /// Keys that left early.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Outcome;
    use super::*;
    use crate::units::UnixSeconds;

    #[test]
    fn the_quietest_keys_leave_first_and_ties_go_by_key() {
        let mut tracker: Tracker<u32, u16> = Tracker::new(10);
        let attempts: Vec<_> = (0..3)
            .map(|value| Attempt {
                value,
                outcome: Outcome::Rejected,
                flows: 1,
                rejected: 1,
                first_start: UnixSeconds(0),
            })
            .collect();
        for (key, pane) in [(5, 1), (4, 1), (3, 0), (9, 2)] {
            tracker.add(key, PaneIndex(pane), PaneIndex(-10), &attempts);
        }
        assert!(tracker.end_pane(PaneIndex(-10)));
        assert_eq!([3, 4, 5, 9].map(|key| tracker.contains(&key)), [false, true, true, true]);
        assert_eq!(tracker.evictions(), 1);
        assert!(!tracker.end_pane(PaneIndex(1)));
        assert_eq!([4, 5, 9].map(|key| tracker.contains(&key)), [false, false, true]);
    }
}
