//! A bounded table of keys, each with its distinct values over time.
//!
//! The bound is on values over all keys, because they are what takes memory. At the bound the keys that
//! were quiet longest leave first, ties by key, so that what leaves doesn't depend on the table's inner
//! order; a flood of new keys pushes out old ones, never one that was just active. How many keys and values
//! were last seen in which pane is kept apart, so that the end of a pane costs nothing as long as few keys
//! have expired; these go when they are a quarter of all.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::FixedState;

use super::distinct::{Attempt, Distinct};
use super::key_index::KeyIndex;
use crate::aggregate::Blocks;
use crate::units::PaneIndex;

/// Seed of the inner tables; their order never shows, so that it may be the same everywhere.
const SEED: u64 = 0x5f67_6175_6765;

/// How many look-ups wait for memory at once; see [`Tracker::prefetch`].
pub(super) const LOOK_UPS_AHEAD: usize = 64;

/// A key and its hash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hashed<K> {
    hash: u64,
    pub(super) key: K,
}

#[derive(Debug)]
struct Tracked<K, T> {
    key: K,
    /// That of `distinct`.
    last_pane: PaneIndex,
    distinct: Distinct<T>,
}

/// Keys that were last seen in one pane, and their values.
#[derive(Clone, Copy, Debug)]
struct Quiet {
    pane: PaneIndex,
    key_count: usize,
    value_count: usize,
}

/// Distinct values over time by key.
#[derive(Debug)]
pub(super) struct Tracker<K, T> {
    hasher: FixedState,
    /// Positions in `tracked` by key.
    positions: KeyIndex,
    tracked: Blocks<Tracked<K, T>, 14>,
    /// In the order of panes, of which a window has few: the newest one comes last and is meant nearly
    /// always.
    by_last_pane: Vec<Quiet>,
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
            positions: KeyIndex::default(),
            tracked: Blocks::default(),
            by_last_pane: Vec::new(),
            expired: PaneIndex(i64::MIN),
            values_max,
            evictions: 0,
        }
    }

    /// The key with its hash.
    #[inline]
    pub(super) fn hashed(&self, key: K) -> Hashed<K> {
        Hashed { hash: self.hasher.hash_one(key), key }
    }

    /// Asks for the memory of keys that will be looked up, at best [`LOOK_UPS_AHEAD`] of them.
    pub(super) fn prefetch<'k>(&self, keys: impl Iterator<Item = &'k Hashed<K>> + Clone)
    where
        K: 'k,
    {
        keys.clone().for_each(|hashed| self.positions.prefetch(hashed.hash));
        for hashed in keys {
            if let Some(likely) = self.positions.find(hashed.hash, |_| true) {
                self.tracked.prefetch(likely);
            }
        }
    }

    /// Whether the key has values.
    pub(super) fn contains(&self, hashed: &Hashed<K>) -> bool {
        self.position(hashed).is_some_and(|position| !self.is_expired(position))
    }

    /// The values of a key.
    pub(super) fn get(&self, key: &K) -> Option<&Distinct<T>> {
        let position = self.position(&self.hashed(*key))?;
        (!self.is_expired(position)).then(|| &self.tracked.get(position).distinct)
    }

    fn is_expired(&self, position: usize) -> bool {
        self.tracked.get(position).last_pane <= self.expired
    }

    #[inline]
    fn position(&self, hashed: &Hashed<K>) -> Option<usize> {
        self.positions
            .find(hashed.hash, |position| self.tracked.get(position).key == hashed.key)
    }

    /// Adds what happened to the key in `pane` and returns its values; see [`Distinct::add`].
    pub(super) fn add(
        &mut self,
        hashed: &Hashed<K>,
        pane: PaneIndex,
        expired: PaneIndex,
        attempts: &[Attempt<T>],
    ) -> &Distinct<T> {
        let position = match self.position(hashed) {
            Some(position) => {
                self.count_out(position);
                if self.is_expired(position) {
                    self.tracked.get_mut(position).distinct = Distinct::default();
                }
                position
            }
            None => {
                let position = self.tracked.len();
                let (key, distinct) = (hashed.key, Distinct::default());
                let tracked = Tracked { key, last_pane: distinct.last_pane(), distinct };
                self.tracked.push(tracked, Blocks::<_, 14>::new_block);
                self.positions.insert(hashed.hash, position);
                position
            }
        };
        let tracked = self.tracked.get_mut(position);
        tracked.distinct.add(pane, expired, attempts);
        tracked.last_pane = tracked.distinct.last_pane();
        let (last_pane, value_count) = (tracked.last_pane, tracked.distinct.len());
        let quiet = self.quiet_in(last_pane);
        quiet.key_count += 1;
        quiet.value_count += value_count;
        &self.tracked.get(position).distinct
    }

    /// The counts of keys that were last seen in `pane`.
    fn quiet_in(&mut self, pane: PaneIndex) -> &mut Quiet {
        let list = &mut self.by_last_pane;
        let position = match list.last() {
            Some(newest) if newest.pane == pane => list.len() - 1,
            _ => list.partition_point(|quiet| quiet.pane < pane),
        };
        if list.get(position).is_none_or(|quiet| quiet.pane != pane) {
            list.insert(position, Quiet { pane, key_count: 0, value_count: 0 });
        }
        &mut list[position]
    }

    /// Takes a key out of the counts.
    fn count_out(&mut self, position: usize) {
        let Tracked { last_pane, distinct, .. } = self.tracked.get(position);
        let list = &mut self.by_last_pane;
        if let Ok(position) = list.binary_search_by_key(last_pane, |quiet| quiet.pane) {
            list[position].key_count -= 1;
            list[position].value_count -= distinct.len();
        }
    }

    /// Forgets keys that were quiet since `expired`, and the quietest ones if there are too many
    /// values. Says whether any had to leave early.
    pub(super) fn end_pane(&mut self, expired: PaneIndex) -> bool {
        self.expired = expired;
        self.by_last_pane.retain(|quiet| quiet.pane > expired);
        let key_count: usize = self.by_last_pane.iter().map(|quiet| quiet.key_count).sum();
        let value_count = self.by_last_pane.iter().map(|quiet| quiet.value_count).sum();
        let must_evict = value_count > self.values_max;
        if must_evict {
            self.evict(value_count);
        } else if self.tracked.len() - key_count > self.tracked.len() / 4 {
            self.remove_if(|tracked| tracked.last_pane <= expired);
        }
        must_evict
    }

    /// Removes the quietest keys. A tenth more leaves than must, so that a full table isn't sorted at
    /// every pane.
    fn evict(&mut self, mut value_count: usize) {
        let keep = self.values_max - self.values_max / 10;
        let mut until = self.expired;
        let mut leaving_panes = 0;
        for quiet in &self.by_last_pane {
            if value_count - quiet.value_count < keep {
                break;
            }
            until = quiet.pane;
            self.evictions += quiet.key_count as u64;
            value_count -= quiet.value_count;
            leaving_panes += 1;
        }
        self.by_last_pane.drain(..leaving_panes);
        self.remove_if(|tracked| tracked.last_pane <= until);
        let Some(partly) = self.by_last_pane.first().map(|quiet| quiet.pane) else { return };
        let is_partly = |tracked: &&Tracked<K, T>| tracked.last_pane == partly;
        let mut keys: Vec<K> =
            self.tracked.iter().filter(is_partly).map(|tracked| tracked.key).collect();
        keys.sort_unstable();
        let mut leaving = Vec::new();
        for key in keys {
            if value_count <= keep {
                break;
            }
            let position = self.position(&self.hashed(key)).expect("listed from the table");
            value_count -= self.tracked.get(position).distinct.len();
            self.count_out(position);
            self.evictions += 1;
            leaving.push(key);
        }
        self.remove_if(|tracked| {
            tracked.last_pane == partly && leaving.binary_search(&tracked.key).is_ok()
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
        for (position, tracked) in self.tracked.iter().enumerate() {
            self.positions.insert(self.hasher.hash_one(tracked.key), position);
        }
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
            tracker.add(&tracker.hashed(key), PaneIndex(pane), PaneIndex(-10), &attempts);
        }
        assert!(tracker.end_pane(PaneIndex(-10)));
        assert_eq!([3, 4, 5, 9].map(|key| tracker.get(&key).is_some()), [false, true, true, true]);
        assert_eq!(tracker.evictions(), 1);
        assert!(!tracker.end_pane(PaneIndex(1)));
        assert_eq!([4, 5, 9].map(|key| tracker.get(&key).is_some()), [false, false, true]);
    }
}
