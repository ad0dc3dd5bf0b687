//! A bounded table of keys, each with its distinct values over time.
//!
//! The bound is on values over all keys, because they are what takes memory. At the bound the keys that
//! were quiet longest leave first, ties by key, so that what leaves doesn't depend on the table's inner
//! order; a flood of new keys pushes out old ones, never one that was just active.

use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::distinct::{Attempt, Distinct};
use crate::units::PaneIndex;

/// Seed of the inner tables; their order never shows, so that it may be the same everywhere.
const SEED: u64 = 0x5f67_6175_6765;

#[derive(Debug)]
struct Tracked<T> {
    distinct: Distinct<T>,
    last_pane: PaneIndex,
}

/// Distinct values over time by key.
#[derive(Debug)]
pub(super) struct Tracker<K, T> {
    keys: HashMap<K, Tracked<T>, FixedState>,
    value_count: usize,
    values_max: usize,
    evictions: u64,
}

impl<K: Copy + Ord + Hash, T: Copy + Ord> Tracker<K, T> {
    /// An empty table that keeps at most `values_max` values between panes.
    pub(super) fn new(values_max: usize) -> Self {
        let keys = HashMap::with_hasher(FixedState::with_seed(SEED));
        Self { keys, value_count: 0, values_max, evictions: 0 }
    }

    /// Whether the key has values.
    pub(super) fn contains(&self, key: &K) -> bool {
        self.keys.contains_key(key)
    }

    /// Adds what happened to `key` in `pane` and returns its values; see [`Distinct::add`].
    pub(super) fn add(
        &mut self,
        key: K,
        pane: PaneIndex,
        expired: PaneIndex,
        attempts: &[Attempt<T>],
    ) -> &Distinct<T> {
        let tracked = self
            .keys
            .entry(key)
            .or_insert_with(|| Tracked { distinct: Distinct::default(), last_pane: pane });
        let count_before = tracked.distinct.len();
        tracked.distinct.add(pane, expired, attempts);
        tracked.last_pane = pane;
        self.value_count = self.value_count + tracked.distinct.len() - count_before;
        &tracked.distinct
    }

    /// The values of a key.
    pub(super) fn get(&self, key: &K) -> Option<&Distinct<T>> {
        self.keys.get(key).map(|tracked| &tracked.distinct)
    }

    /// Forgets keys that were quiet since `expired`, and the quietest ones if there are too many
    /// values. Says whether any had to leave early.
    pub(super) fn end_pane(&mut self, expired: PaneIndex) -> bool {
        self.keys.retain(|_, tracked| tracked.last_pane > expired && tracked.distinct.len() > 0);
        self.value_count = self.keys.values().map(|tracked| tracked.distinct.len()).sum();
        if self.value_count <= self.values_max {
            return false;
        }
        // A tenth more leaves than must, so that a full table isn't sorted at every pane.
        let keep = self.values_max - self.values_max / 10;
        let mut by_quiet: Vec<(PaneIndex, K)> =
            self.keys.iter().map(|(key, tracked)| (tracked.last_pane, *key)).collect();
        by_quiet.sort_unstable();
        for (_, key) in by_quiet {
            if self.value_count <= keep {
                break;
            }
            let tracked = self.keys.remove(&key).expect("listed from the table");
            self.value_count -= tracked.distinct.len();
            self.evictions += 1;
        }
        true
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
