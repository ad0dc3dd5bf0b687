//! A bounded table of keys, each with its distinct values over time.
//!
//! The bound is on values over all keys, because they are what takes memory. At the bound the keys that
//! were quiet longest leave first, ties by key, so that what leaves doesn't depend on the table's inner
//! order; a flood of new keys pushes out old ones, never one that was just active. How many keys and values
//! were last seen in which pane is kept apart, so that the end of a pane costs nothing as long as few keys
//! have expired; these go when they are a quarter of all. Keys with one attempt have a list of their own,
//! where they take a quarter of the room; a key that gets another one moves.

use std::borrow::Cow;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::distinct::{Attempt, Distinct};
use super::key_index::KeyIndex;
use super::once::{Once, TrackedKey};
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
struct Tracked<K: TrackedKey> {
    key: K,
    /// That of `distinct`.
    last_pane: PaneIndex,
    distinct: Distinct<K::Value>,
}

/// Where a key is.
#[derive(Clone, Copy, Debug)]
enum Position {
    /// In [`Tracker::once`].
    Once(usize),
    /// In [`Tracker::tracked`].
    Tracked(usize),
}

impl Position {
    /// As it stands in the index.
    const fn to_number(self) -> usize {
        match self {
            Self::Once(position) => position << 1,
            Self::Tracked(position) => position << 1 | 1,
        }
    }

    const fn of_number(number: usize) -> Self {
        if number & 1 == 0 { Self::Once(number >> 1) } else { Self::Tracked(number >> 1) }
    }
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
pub(super) struct Tracker<K: TrackedKey> {
    hasher: FixedState,
    /// Numbers of [`Position`]s by key.
    positions: KeyIndex,
    /// `None` for a key that has moved to `tracked`.
    once: Blocks<Option<Once>, 16>,
    tracked: Blocks<Tracked<K>, 14>,
    /// In the order of panes, of which a window has few: the newest one comes last and is meant nearly
    /// always.
    by_last_pane: Vec<Quiet>,
    /// Keys that were not seen after it count as forgotten.
    expired: PaneIndex,
    values_max: usize,
    evictions: u64,
}

const _: () = assert!(size_of::<Option<Once>>() == 32);

impl<K: TrackedKey> Tracker<K> {
    /// An empty table that keeps at most `values_max` values between panes.
    pub(super) fn new(values_max: usize) -> Self {
        Self {
            hasher: FixedState::with_seed(SEED),
            positions: KeyIndex::default(),
            once: Blocks::default(),
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
            match self.positions.find(hashed.hash, |_| true).map(Position::of_number) {
                Some(Position::Once(likely)) => self.once.prefetch(likely),
                Some(Position::Tracked(likely)) => self.tracked.prefetch(likely),
                None => {}
            }
        }
    }

    /// Whether the key has values.
    pub(super) fn contains(&self, hashed: &Hashed<K>) -> bool {
        self.position(hashed).is_some_and(|position| self.last_pane(position) > self.expired)
    }

    /// The values of a key.
    pub(super) fn get(&self, key: &K) -> Option<Cow<'_, Distinct<K::Value>>> {
        let position = self.position(&self.hashed(*key))?;
        (self.last_pane(position) > self.expired).then(|| self.values(position))
    }

    #[inline]
    fn position(&self, hashed: &Hashed<K>) -> Option<Position> {
        let is_it = |number| match Position::of_number(number) {
            Position::Once(position) => {
                self.once.get(position).is_some_and(|once| once.key::<K>() == hashed.key)
            }
            Position::Tracked(position) => self.tracked.get(position).key == hashed.key,
        };
        self.positions.find(hashed.hash, is_it).map(Position::of_number)
    }

    fn once_at(&self, position: usize) -> Once {
        self.once.get(position).expect("the index names no key that has moved")
    }

    fn last_pane(&self, position: Position) -> PaneIndex {
        match position {
            Position::Once(position) => self.once_at(position).last_pane(),
            Position::Tracked(position) => self.tracked.get(position).last_pane,
        }
    }

    fn values(&self, position: Position) -> Cow<'_, Distinct<K::Value>> {
        match position {
            Position::Once(position) => Cow::Owned(self.once_at(position).distinct::<K>()),
            Position::Tracked(position) => Cow::Borrowed(&self.tracked.get(position).distinct),
        }
    }

    fn value_count(&self, position: Position) -> usize {
        match position {
            Position::Once(_) => 1,
            Position::Tracked(position) => self.tracked.get(position).distinct.len(),
        }
    }

    /// Adds what happened to the key in `pane` and returns how many values it has; see [`Distinct::add`].
    pub(super) fn add(
        &mut self,
        hashed: &Hashed<K>,
        pane: PaneIndex,
        expired: PaneIndex,
        attempts: &[Attempt<K::Value>],
    ) -> usize {
        let position = match self.position(hashed) {
            Some(position) => {
                self.count_out(position);
                let position = self.with_room(hashed, position);
                let tracked = self.tracked.get_mut(position);
                if tracked.last_pane <= self.expired {
                    tracked.distinct = Distinct::default();
                }
                tracked.add(pane, expired, attempts);
                Position::Tracked(position)
            }
            None => {
                let position = self.insert(hashed.key, pane, expired, attempts);
                self.positions.insert(hashed.hash, position.to_number());
                position
            }
        };
        let value_count = self.value_count(position);
        let quiet = self.quiet_in(self.last_pane(position));
        quiet.key_count += 1;
        quiet.value_count += value_count;
        value_count
    }

    /// Makes sure that a key can have any number of values.
    fn with_room(&mut self, hashed: &Hashed<K>, position: Position) -> usize {
        let from = match position {
            Position::Tracked(position) => return position,
            Position::Once(position) => position,
        };
        let to = self.tracked.len();
        let once = self.once_at(from);
        let (last_pane, distinct) = (once.last_pane(), once.distinct::<K>());
        let tracked = Tracked { key: hashed.key, last_pane, distinct };
        self.tracked.push(tracked, Blocks::<_, 14>::new_block);
        *self.once.get_mut(from) = None;
        let to_number = Position::Tracked(to).to_number();
        self.positions.replace(hashed.hash, position.to_number(), to_number);
        to
    }

    /// Puts a new key into one of the lists.
    fn insert(
        &mut self,
        key: K,
        pane: PaneIndex,
        expired: PaneIndex,
        attempts: &[Attempt<K::Value>],
    ) -> Position {
        if let [attempt] = attempts
            && pane > expired
            && let Some(once) = Once::of(&key, pane, attempt)
        {
            self.once.push(Some(once), Blocks::<_, 16>::new_block);
            return Position::Once(self.once.len() - 1);
        }
        let distinct = Distinct::default();
        let mut tracked = Tracked { key, last_pane: distinct.last_pane(), distinct };
        tracked.add(pane, expired, attempts);
        self.tracked.push(tracked, Blocks::<_, 14>::new_block);
        Position::Tracked(self.tracked.len() - 1)
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
    fn count_out(&mut self, position: Position) {
        let (last_pane, value_count) = (self.last_pane(position), self.value_count(position));
        let list = &mut self.by_last_pane;
        if let Ok(position) = list.binary_search_by_key(&last_pane, |quiet| quiet.pane) {
            list[position].key_count -= 1;
            list[position].value_count -= value_count;
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
        } else {
            let listed = self.once.len() + self.tracked.len();
            if listed - key_count > listed / 4 {
                self.remove_if(|_, last_pane| last_pane <= expired);
            }
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
        self.remove_if(|_, last_pane| last_pane <= until);
        let Some(partly) = self.by_last_pane.first().map(|quiet| quiet.pane) else { return };
        let mut keys: Vec<K> =
            self.keys().filter(|(_, last_pane)| *last_pane == partly).map(|(key, _)| key).collect();
        keys.sort_unstable();
        let mut leaving = Vec::new();
        for key in keys {
            if value_count <= keep {
                break;
            }
            let position = self.position(&self.hashed(key)).expect("listed from the table");
            value_count -= self.value_count(position);
            self.count_out(position);
            self.evictions += 1;
            leaving.push(key);
        }
        self.remove_if(|key, last_pane| last_pane == partly && leaving.binary_search(key).is_ok());
    }

    /// All keys, each with its last pane.
    fn keys(&self) -> impl Iterator<Item = (K, PaneIndex)> {
        let once = self.once.iter().flatten().map(|once| (once.key(), once.last_pane()));
        once.chain(self.tracked.iter().map(|tracked| (tracked.key, tracked.last_pane)))
    }

    fn remove_if(&mut self, is_leaving: impl Fn(&K, PaneIndex) -> bool) {
        let is_once_leaving =
            |once: &Option<Once>| once.is_none_or(|once| is_leaving(&once.key(), once.last_pane()));
        retain(&mut self.once, |once| !is_once_leaving(once));
        retain(&mut self.tracked, |tracked| !is_leaving(&tracked.key, tracked.last_pane));
        self.positions.clear();
        for (position, once) in self.once.iter().flatten().enumerate() {
            let hash = self.hasher.hash_one(once.key::<K>());
            self.positions.insert(hash, Position::Once(position).to_number());
        }
        for (position, tracked) in self.tracked.iter().enumerate() {
            let hash = self.hasher.hash_one(tracked.key);
            self.positions.insert(hash, Position::Tracked(position).to_number());
        }
    }

    /// Keys that left early.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }
}

impl<K: TrackedKey> Tracked<K> {
    fn add(&mut self, pane: PaneIndex, expired: PaneIndex, attempts: &[Attempt<K::Value>]) {
        self.distinct.add(pane, expired, attempts);
        self.last_pane = self.distinct.last_pane();
    }
}

fn retain<T, const BITS: u32>(list: &mut Blocks<T, BITS>, is_staying: impl Fn(&T) -> bool) {
    let mut position = 0;
    while position < list.len() {
        if is_staying(list.get(position)) {
            position += 1;
        } else {
            list.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::once::Narrow;
    use super::super::outcome::Outcome;
    use super::*;
    use crate::units::UnixSeconds;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Number(u32);

    impl TrackedKey for Number {
        type Value = u16;

        fn narrow(&self, port: u16) -> Option<Narrow> {
            // Some keys don't fit.
            let narrow = Narrow { client: self.0, server: 0, port, protocol: 0 };
            (!self.0.is_multiple_of(5)).then_some(narrow)
        }

        fn of_narrow(narrow: Narrow) -> (Self, u16) {
            (Self(narrow.client), narrow.port)
        }
    }

    fn attempt(value: u16, outcome: Outcome) -> Attempt<u16> {
        Attempt { value, outcome, flows: 1, rejected: 1, first_start: UnixSeconds(0) }
    }

    #[test]
    fn the_quietest_keys_leave_first_and_ties_go_by_key() {
        let mut tracker: Tracker<Number> = Tracker::new(10);
        let attempts = [0, 1, 2].map(|value| attempt(value, Outcome::Rejected));
        for (key, pane) in [(5, 1), (4, 1), (3, 0), (9, 2)] {
            tracker.add(&tracker.hashed(Number(key)), PaneIndex(pane), PaneIndex(-10), &attempts);
        }
        let kept = |tracker: &Tracker<Number>, keys: &[u32]| -> Vec<bool> {
            keys.iter().map(|key| tracker.get(&Number(*key)).is_some()).collect()
        };
        assert!(tracker.end_pane(PaneIndex(-10)));
        assert_eq!(kept(&tracker, &[3, 4, 5, 9]), [false, true, true, true]);
        assert_eq!(tracker.evictions(), 1);
        assert!(!tracker.end_pane(PaneIndex(1)));
        assert_eq!(kept(&tracker, &[4, 5, 9]), [false, false, true]);
    }

    /// The same as a map of sets, without any regard for memory or time.
    #[derive(Default)]
    struct Model {
        keys: BTreeMap<Number, Distinct<u16>>,
        expired: Option<PaneIndex>,
        evictions: u64,
    }

    impl Model {
        fn is_live(&self, distinct: &Distinct<u16>) -> bool {
            self.expired.is_none_or(|expired| distinct.last_pane() > expired)
        }

        fn end_pane(&mut self, expired: PaneIndex, values_max: usize) -> bool {
            self.expired = Some(expired);
            self.keys.retain(|_, distinct| distinct.last_pane() > expired);
            let mut value_count: usize = self.keys.values().map(Distinct::len).sum();
            if value_count <= values_max {
                return false;
            }
            let mut by_quiet: Vec<(PaneIndex, Number)> =
                self.keys.iter().map(|(key, distinct)| (distinct.last_pane(), *key)).collect();
            by_quiet.sort_unstable();
            for (_, key) in by_quiet {
                if value_count <= values_max - values_max / 10 {
                    break;
                }
                value_count -= self.keys[&key].len();
                self.keys.remove(&key);
                self.evictions += 1;
            }
            true
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_map_of_sets(
            panes in prop::collection::vec(
                prop::collection::btree_map(
                    0_u32..40,
                    prop::collection::btree_map(0_u16..4, any::<bool>(), 1..4),
                    0..20,
                ),
                1..15,
            ),
            values_max in 10_usize..80,
        ) {
            const LONGEST: i64 = 5;
            let mut tracker: Tracker<Number> = Tracker::new(values_max);
            let mut model = Model::default();
            for (pane, keys) in (0..).map(PaneIndex).zip(&panes) {
                let expired = PaneIndex(pane.0 - LONGEST);
                let hashed: Vec<_> =
                    keys.keys().map(|key| tracker.hashed(Number(*key))).collect();
                tracker.prefetch(hashed.iter());
                for (hashed, values) in hashed.iter().zip(keys.values()) {
                    let attempts: Vec<_> = values
                        .iter()
                        .map(|(value, failed)| {
                            let outcome =
                                if *failed { Outcome::Refused } else { Outcome::Answered };
                            attempt(*value, outcome)
                        })
                        .collect();
                    let value_count = tracker.add(hashed, pane, expired, &attempts);
                    let distinct = model.keys.entry(hashed.key).or_default();
                    distinct.add(pane, expired, &attempts);
                    prop_assert_eq!(value_count, distinct.len());
                }
                prop_assert_eq!(
                    tracker.end_pane(expired),
                    model.end_pane(expired, values_max)
                );
                prop_assert_eq!(tracker.evictions(), model.evictions);
                for key in (0..40).map(Number) {
                    let counts_in = |distinct: &Distinct<u16>| distinct.counts(PaneIndex(pane.0 - 3));
                    let live = model.keys.get(&key).filter(|distinct| model.is_live(distinct));
                    prop_assert_eq!(
                        tracker.get(&key).map(|distinct| counts_in(&distinct)),
                        live.map(counts_in)
                    );
                    prop_assert_eq!(tracker.contains(&tracker.hashed(key)), live.is_some());
                }
            }
        }
    }
}
