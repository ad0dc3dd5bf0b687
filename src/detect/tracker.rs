//! A bounded table of keys, each with its distinct values over time.
//!
//! ```text
//! hash ─► index ─┬► once: keys with one attempt, oldest first ──full──► doorkeeper: a few bits of each
//!                └► tracked: keys with several ◄── a key that was in once, or that the doorkeeper knows
//! ```
//!
//! Most keys are only ever tried once, and a flood of spoofed sources consists of such keys. They have a
//! list of their own, where they take little room, and give way first, oldest first: an entry survives until as
//! many others have come as the list has room for. After that the doorkeeper knows the key for at least as many
//! departures as it is made for; when the key is seen again meanwhile, it is tracked from then on, without the
//! attempt that was lost. So a slow scanner is caught amid a flood of N keys per pane if its attempts are no
//! further apart than (room of once + room of the doorkeeper) / N panes.
//!
//! Of tracked keys those with the fewest values leave first, counted in powers of two, and of those with one
//! value the ones that never came back; among these the ones that were quiet longest; and among these by hash, so that nobody is spared for a low address. A key that
//! has several values therefore never leaves for one that has a single one.
//!
//! What leaves depends on the keys and their order alone, never on how tables have grown or where entries
//! lie; a table that was saved and loaded goes on as if nothing had happened.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::distinct::{Attempt, Distinct};
use super::doorkeeper::Doorkeeper;
use super::key_index::KeyIndex;
use super::once::{Once, TrackedKey};
use super::once_list::OnceList;
use super::table_limits::TableLimits;
use crate::aggregate::Blocks;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::units::PaneIndex;

/// Seed of the inner tables; their order never shows, so that it may be the same everywhere.
const SEED: u64 = 0x5f67_6175_6765;

/// How many look-ups wait for memory at once; see [`Tracker::prefetch`].
pub(super) const LOOK_UPS_AHEAD: usize = 64;

/// Values are counted in powers of two up to this one, when keys are compared for eviction.
const RANK_MAX: u8 = 10;

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
    /// Whether it was seen, left or was one attempt, and was seen again.
    has_returned: bool,
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

/// What keys take.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    keys: usize,
    values: usize,
    bytes: usize,
}

impl Load {
    const fn add(&mut self, other: Self) {
        self.keys += other.keys;
        self.values += other.values;
        self.bytes += other.bytes;
    }

    const fn subtract(&mut self, other: Self) {
        self.keys -= other.keys;
        self.values -= other.values;
        self.bytes -= other.bytes;
    }
}

/// Distinct values over time by key.
#[derive(Debug)]
pub(super) struct Tracker<K: TrackedKey> {
    hasher: FixedState,
    limits: TableLimits,
    /// Numbers of [`Position`]s by key.
    positions: KeyIndex,
    once: OnceList,
    tracked: Blocks<Tracked<K>, 12>,
    /// What all of `tracked` take.
    load: Load,
    /// How many of `tracked` were last seen in which pane, in the order of panes: of these a window has few,
    /// and the newest one comes last and is meant nearly always.
    by_last_pane: Vec<(PaneIndex, usize)>,
    doorkeeper: Doorkeeper,
    /// Keys that were not seen after it count as forgotten.
    expired: PaneIndex,
    evictions: u64,
    /// As many as had left early when the last pane ended.
    evictions_before: u64,
}

impl<K: TrackedKey> Tracker<K> {
    /// An empty table.
    pub(super) fn new(limits: TableLimits) -> Self {
        Self {
            hasher: FixedState::with_seed(SEED),
            limits,
            positions: KeyIndex::default(),
            once: OnceList::default(),
            tracked: Blocks::default(),
            load: Load::default(),
            by_last_pane: Vec::new(),
            doorkeeper: Doorkeeper::new(limits.remembered_max),
            expired: PaneIndex(i64::MIN),
            evictions: 0,
            evictions_before: 0,
        }
    }

    /// What it was made with.
    pub(super) const fn limits(&self) -> TableLimits {
        self.limits
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
        for hashed in keys.clone() {
            self.positions.prefetch(hashed.hash);
            self.doorkeeper.prefetch(hashed.hash);
        }
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
        (self.last_pane(position) > self.expired).then(|| match position {
            Position::Once(position) => Cow::Owned(self.once_at(position).distinct::<K>()),
            Position::Tracked(position) => Cow::Borrowed(&self.tracked.get(position).distinct),
        })
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

    fn once_at(&self, position: usize) -> &Once {
        self.once.get(position).expect("the index names no key that has moved")
    }

    fn last_pane(&self, position: Position) -> PaneIndex {
        match position {
            Position::Once(position) => self.once_at(position).last_pane(),
            Position::Tracked(position) => self.tracked.get(position).last_pane,
        }
    }

    /// Adds what happened to the key in `pane`, which is not before any that was added, and returns how
    /// many values it has; see [`Distinct::add`].
    pub(super) fn add(
        &mut self,
        hashed: &Hashed<K>,
        pane: PaneIndex,
        expired: PaneIndex,
        attempts: &[Attempt<K::Value>],
    ) -> usize {
        self.make_room(attempts.len());
        let position = match self.position(hashed) {
            Some(Position::Tracked(position)) => position,
            Some(Position::Once(position)) => self.promote(hashed, position),
            None => match self.once_of(hashed, pane, expired, attempts) {
                Some(once) => {
                    let position = self.once.push(once);
                    self.positions.insert(hashed.hash, Position::Once(position).to_number());
                    return 1;
                }
                None => {
                    let has_returned = self.doorkeeper.has(hashed.hash);
                    let key = (hashed.key, has_returned);
                    let position = self.push_tracked(key, Distinct::default());
                    self.positions.insert(hashed.hash, Position::Tracked(position).to_number());
                    position
                }
            },
        };
        let tracked = self.tracked.get_mut(position);
        self.load.subtract(tracked.load());
        let last_pane = tracked.last_pane;
        if tracked.last_pane <= self.expired {
            tracked.distinct = Distinct::default();
        }
        tracked.distinct.add(pane, expired, attempts);
        tracked.last_pane = tracked.distinct.last_pane();
        self.load.add(tracked.load());
        let (value_count, now) = (tracked.distinct.len(), tracked.last_pane);
        if now != last_pane {
            *self.last_seen_in(last_pane) -= 1;
            *self.last_seen_in(now) += 1;
        }
        value_count
    }

    /// The form of a new key that has one attempt and was not seen lately.
    fn once_of(
        &self,
        hashed: &Hashed<K>,
        pane: PaneIndex,
        expired: PaneIndex,
        attempts: &[Attempt<K::Value>],
    ) -> Option<Once> {
        let [attempt] = attempts else { return None };
        let once = Once::of(&hashed.key, pane, attempt).filter(|_| pane > expired)?;
        (!self.doorkeeper.has(hashed.hash)).then_some(once)
    }

    /// Gives a key with one attempt room for any number of values.
    fn promote(&mut self, hashed: &Hashed<K>, from: usize) -> usize {
        let distinct = self.once_at(from).distinct::<K>();
        let to = self.push_tracked((hashed.key, true), distinct);
        self.once.mark_gone(from);
        let numbers = [Position::Once(from), Position::Tracked(to)].map(Position::to_number);
        self.positions.replace(hashed.hash, numbers[0], numbers[1]);
        to
    }

    fn push_tracked(
        &mut self,
        (key, has_returned): (K, bool),
        distinct: Distinct<K::Value>,
    ) -> usize {
        let last_pane = distinct.last_pane();
        let tracked = Tracked { key, last_pane, has_returned, distinct };
        self.load.add(tracked.load());
        *self.last_seen_in(tracked.last_pane) += 1;
        self.tracked.push(tracked, Blocks::<_, 12>::new_block);
        self.tracked.len() - 1
    }

    /// How many tracked keys were last seen in a pane.
    fn last_seen_in(&mut self, pane: PaneIndex) -> &mut usize {
        let list = &mut self.by_last_pane;
        let position = match list.last() {
            Some((newest, _)) if *newest == pane => list.len() - 1,
            _ => list.partition_point(|(listed, _)| *listed < pane),
        };
        if list.get(position).is_none_or(|(listed, _)| *listed != pane) {
            list.insert(position, (pane, 0));
        }
        &mut list[position].1
    }

    /// Forgets keys that were quiet since `expired`, and keys that are too many. Says whether any had to
    /// leave early since the last pane ended.
    pub(super) fn end_pane(&mut self, expired: PaneIndex) -> bool {
        self.expired = expired;
        while self.leave_from_once(usize::MAX, |once| once.last_pane() <= expired) {}
        let quiet = self.by_last_pane.iter().take_while(|(pane, _)| *pane <= expired);
        let expired_count: usize = quiet.map(|(_, count)| count).sum();
        if expired_count > self.tracked.len() / 4 {
            self.remove_tracked(|tracked| tracked.last_pane <= expired);
        }
        self.by_last_pane.retain(|(_, count)| *count > 0);
        self.make_room(0);
        let has_evicted = self.has_evicted();
        self.evictions_before = self.evictions;
        has_evicted
    }

    /// Whether any key had to leave early since the last pane ended.
    pub(super) const fn has_evicted(&self) -> bool {
        self.evictions > self.evictions_before
    }

    /// Makes room for some more values of one key.
    #[inline]
    fn make_room(&mut self, value_count: usize) {
        if self.is_over(value_count) {
            self.evict(value_count);
        }
    }

    const fn is_over(&self, more: usize) -> bool {
        self.is_once_over(more) || self.is_tracked_over(more)
    }

    /// Keys with one attempt take what is left of the values, and at least what the others may not take.
    const fn is_once_over(&self, more: usize) -> bool {
        let TableLimits { once_max, values_max, tracked_values_max, .. } = self.limits;
        let once = self.once.len();
        once >= once_max
            || (once > values_max - tracked_values_max
                && once + self.load.values + more > values_max)
    }

    const fn is_tracked_over(&self, more: usize) -> bool {
        let Load { keys, values, bytes } = self.load;
        values + more > self.limits.tracked_values_max
            || keys >= self.limits.tracked_keys_max
            || bytes + Tracked::<K>::bytes_of(more) > self.limits.tracked_bytes_max
    }

    #[inline(never)]
    fn evict(&mut self, more: usize) {
        let limits = self.limits;
        while self.is_once_over(more) {
            self.leave_from_once(limits.once_max / 64 + 1, |_| true);
        }
        if !self.is_tracked_over(more) {
            return;
        }
        let expired = self.expired;
        self.remove_tracked(|tracked| tracked.last_pane <= expired);
        // An eighth more leaves than must, so that a full table isn't searched at every key.
        let most = |limit: usize| limit - limit / 8;
        let is_goal = |load: &Load| {
            load.values + more <= most(limits.tracked_values_max)
                && load.keys <= most(limits.tracked_keys_max)
                && load.bytes + Tracked::<K>::bytes_of(more) <= most(limits.tracked_bytes_max)
        };
        while self.is_tracked_over(more) && self.tracked.len() > 0 {
            let before = self.tracked.len();
            self.evict_tracked(is_goal, true);
            if self.tracked.len() == before {
                self.evict_tracked(is_goal, false);
            }
        }
    }

    /// Removes up to `count_max` of the oldest keys with one attempt, or [`LOOK_UPS_AHEAD`], until one stays;
    /// says whether there may be more.
    fn leave_from_once(&mut self, count_max: usize, is_leaving: impl Fn(&Once) -> bool) -> bool {
        let (first, oldest) = self.once.oldest();
        let oldest = &oldest[..oldest.len().min(count_max).min(LOOK_UPS_AHEAD)];
        let leaving = oldest.iter().take_while(|once| is_leaving(once)).count();
        let mut hashes = [0; LOOK_UPS_AHEAD];
        for (hash, once) in hashes.iter_mut().zip(&oldest[..leaving]) {
            *hash = self.hasher.hash_one(once.key::<K>());
            self.positions.prefetch(*hash);
            self.doorkeeper.prefetch(*hash);
        }
        for (offset, (once, hash)) in oldest[..leaving].iter().zip(hashes).enumerate() {
            if once.is_gone() {
                continue;
            }
            self.positions.remove(hash, Position::Once(first + offset).to_number());
            if once.last_pane() > self.expired {
                self.doorkeeper.note(hash);
                self.evictions += 1;
            }
        }
        let may_be_more = leaving == oldest.len() && leaving > 0;
        self.once.remove_oldest(leaving);
        may_be_more
    }

    /// Removes the tracked keys that matter least, until the goal is reached or the lowest rank that had to
    /// be parted has been; without `may_part` all of that rank leave.
    fn evict_tracked(&mut self, is_goal: impl Fn(&Load) -> bool, may_part: bool) {
        let mut groups: BTreeMap<(u8, PaneIndex), Load> = BTreeMap::new();
        for tracked in self.tracked.iter() {
            groups.entry(tracked.rank()).or_default().add(tracked.load());
        }
        let mut staying = self.load;
        let mut parted = None;
        for (rank, group) in groups {
            let mut without = staying;
            without.subtract(group);
            parted = Some((rank, group, staying));
            if is_goal(&without) {
                break;
            }
            staying = without;
        }
        let Some((parted, group, staying)) = parted else { return };
        // By sixteenths of the hashes, as few as reach the goal if all are alike.
        let sixteenths = (1..16_usize).find(|sixteenths| {
            let part = |all: usize| all * sixteenths / 16;
            let mut without = staying;
            without.subtract(Load {
                keys: part(group.keys),
                values: part(group.values),
                bytes: part(group.bytes),
            });
            is_goal(&without)
        });
        // The hashes of a few keys may all lie elsewhere.
        let sixteenths = sixteenths.filter(|_| may_part && group.keys > 256);
        let hasher = self.hasher.clone();
        let is_leaving = |tracked: &Tracked<K>| {
            let rank = tracked.rank();
            let sixteenth = || (hasher.hash_one(tracked.key) >> 8 & 15) as usize;
            rank < parted || (rank == parted && sixteenths.is_none_or(|most| sixteenth() < most))
        };
        self.remove_tracked(is_leaving);
    }

    /// Removes tracked keys; those that have not expired count as evicted.
    fn remove_tracked(&mut self, is_leaving: impl Fn(&Tracked<K>) -> bool) {
        let mut position = 0;
        while position < self.tracked.len() {
            if !is_leaving(self.tracked.get(position)) {
                position += 1;
                continue;
            }
            let last = self.tracked.len() - 1;
            if position < last {
                let hash = self.hasher.hash_one(self.tracked.get(last).key);
                let numbers = [last, position].map(|at| Position::Tracked(at).to_number());
                let leaving = self.hasher.hash_one(self.tracked.get(position).key);
                self.positions.remove(leaving, numbers[1]);
                self.positions.replace(hash, numbers[0], numbers[1]);
            } else {
                let leaving = self.hasher.hash_one(self.tracked.get(position).key);
                self.positions.remove(leaving, Position::Tracked(position).to_number());
            }
            let tracked = self.tracked.swap_remove(position);
            self.load.subtract(tracked.load());
            *self.last_seen_in(tracked.last_pane) -= 1;
            if tracked.last_pane > self.expired {
                self.doorkeeper.note(self.hasher.hash_one(tracked.key));
                self.evictions += 1;
            }
        }
    }

    /// Keys that left early.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        let lists = self.load.bytes - self.load.keys * size_of::<Tracked<K>>();
        let blocks = self.tracked.len().next_multiple_of(Blocks::<Tracked<K>, 12>::BLOCK_LEN);
        self.positions.bytes()
            + self.once.bytes()
            + blocks * size_of::<Tracked<K>>()
            + lists
            + self.doorkeeper.bytes()
    }

    /// Saves the table as it stands between panes.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.i64(self.expired.0);
        out.u64(self.evictions);
        self.once.save(out);
        out.count(self.tracked.len());
        for tracked in self.tracked.iter() {
            tracked.key.save(out);
            out.bool(tracked.has_returned);
            tracked.distinct.save(out);
        }
        self.doorkeeper.save(out);
    }

    /// Loads what [`Self::save`] wrote; if that is more than the limits allow, some keys leave.
    pub(super) fn load(limits: TableLimits, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("tracked keys", 1..=1)?;
        let mut tracker = Self::new(limits);
        tracker.expired = PaneIndex(from.i64()?);
        tracker.evictions = from.u64()?;
        tracker.once = OnceList::load(from)?;
        for (position, once) in tracker.once.iter() {
            let hashed = tracker.hashed(once.key::<K>());
            if tracker.position(&hashed).is_some() {
                return Err(DecodeError::Invalid("set of keys"));
            }
            tracker.positions.insert(hashed.hash, Position::Once(position).to_number());
        }
        for _ in 0..from.count(K::BYTES_MIN + 9)? {
            let hashed = tracker.hashed(K::load(from)?);
            if tracker.position(&hashed).is_some() {
                return Err(DecodeError::Invalid("set of keys"));
            }
            let key = (hashed.key, from.bool()?);
            let position = tracker.push_tracked(key, Distinct::load(from)?);
            tracker.positions.insert(hashed.hash, Position::Tracked(position).to_number());
        }
        tracker.doorkeeper = Doorkeeper::load(limits.remembered_max, from)?;
        tracker.evictions_before = tracker.evictions;
        tracker.make_room(0);
        Ok(tracker)
    }
}

impl<K: TrackedKey> Tracked<K> {
    fn load(&self) -> Load {
        let bytes = size_of::<Self>() + self.distinct.heap_bytes();
        Load { keys: 1, values: self.distinct.len(), bytes }
    }

    /// What a new key with some values takes at most.
    const fn bytes_of(value_count: usize) -> usize {
        if value_count == 0 {
            return 0;
        }
        size_of::<Self>() + Distinct::<K::Value>::heap_bytes_of(value_count)
    }

    /// What leaves first has the least.
    fn rank(&self) -> (u8, PaneIndex) {
        let value_count = self.distinct.len();
        if value_count <= 1 && !self.has_returned {
            return (0, self.last_pane);
        }
        let log = u8::try_from(value_count.max(1).ilog2()).expect("below 64");
        (1 + log.min(RANK_MAX), self.last_pane)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::once::Narrow;
    use super::super::outcome::Outcome;
    use super::super::saved::Saved;
    use super::*;
    use crate::units::UnixSeconds;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    struct Number(u32);

    impl Saved for Number {
        const BYTES_MIN: usize = 4;

        fn save(&self, out: &mut Encoder) {
            out.u32(self.0);
        }

        fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
            Ok(Self(from.u32()?))
        }
    }

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

    fn limits(values_max: usize) -> TableLimits {
        TableLimits::new(values_max, usize::MAX)
    }

    fn reloaded(tracker: &Tracker<Number>) -> Tracker<Number> {
        let mut out = Encoder::default();
        tracker.save(&mut out);
        let bytes = out.into_bytes();
        let mut from = Decoder::new(&bytes);
        let loaded = Tracker::load(tracker.limits, &mut from).unwrap();
        from.finish().unwrap();
        loaded
    }

    #[test]
    fn keys_with_one_attempt_leave_first_then_the_smallest_then_the_quietest() {
        let mut tracker: Tracker<Number> = Tracker::new(limits(40));
        let attempts: Vec<_> = (0..8).map(|value| attempt(value, Outcome::Rejected)).collect();
        let add = |tracker: &mut Tracker<Number>, key, pane, count| {
            let hashed = tracker.hashed(Number(key));
            tracker.add(&hashed, PaneIndex(pane), PaneIndex(-10), &attempts[..count]);
        };
        // Keys that are multiples of five are tracked from the start.
        for (key, pane, count) in [(1, 0, 4), (6, 1, 2), (5, 2, 1), (2, 2, 2), (3, 3, 1), (4, 4, 1)]
        {
            add(&mut tracker, key, pane, count);
        }
        assert!(!tracker.end_pane(PaneIndex(-10)));
        let kept = |tracker: &Tracker<Number>| -> Vec<u32> {
            (1..=10).filter(|key| tracker.get(&Number(*key)).is_some()).collect()
        };
        assert_eq!(kept(&tracker), [1, 2, 3, 4, 5, 6]);
        for (key, count) in [(7, 8), (8, 8), (9, 5), (10, 2)] {
            add(&mut tracker, key, 4, count);
        }
        assert_eq!(kept(&tracker), [1, 3, 4, 7, 8, 9, 10], "a quarter is for single attempts");
        assert_eq!(tracker.evictions(), 3);
        for key in (11..29).filter(|key| key % 5 > 0) {
            add(&mut tracker, key, 4, 1);
        }
        assert_eq!(kept(&tracker), [1, 7, 8, 9, 10], "they push out none but their like");
        assert_eq!(tracker.evictions(), 7);
        add(&mut tracker, 7, 5, 1);
        assert!(tracker.end_pane(PaneIndex(-10)));
        assert!(!tracker.end_pane(PaneIndex(4)));
        assert_eq!(kept(&tracker), [7]);
        assert_eq!(tracker.evictions(), 8, "room is made before it is known to be needed");
    }

    #[test]
    fn a_flood_of_single_attempts_hides_no_slow_key() {
        const FLOOD_KEYS: u32 = 50_000;
        let mut tracker: Tracker<Number> = Tracker::new(limits(10_000));
        let mut fresh = 1_000_000..;
        let (mut sizes, mut inserted) = (Vec::new(), 0_u64);
        for pane in (0..20).map(PaneIndex) {
            let flood: Vec<u32> = fresh.by_ref().take(FLOOD_KEYS as usize).collect();
            // The slow one comes amid the flood.
            for (position, key) in flood.into_iter().enumerate() {
                let hashed = tracker.hashed(Number(key));
                let attempts = [attempt(80, Outcome::Unanswered)];
                tracker.add(&hashed, pane, PaneIndex(-300), &attempts);
                inserted += 1;
                if position == 20_000 {
                    let hashed = tracker.hashed(Number(7));
                    inserted += u64::from(!tracker.contains(&hashed));
                    let value = u16::try_from(pane.0).unwrap();
                    let attempts = [attempt(value, Outcome::Unanswered)];
                    sizes.push(tracker.add(&hashed, pane, PaneIndex(-300), &attempts));
                }
            }
            assert!(tracker.end_pane(PaneIndex(-300)));
            assert!(tracker.once.len() + tracker.load.values <= 10_000);
            tracker = reloaded(&tracker);
        }
        assert!(*sizes.last().unwrap() >= 12, "{sizes:?}");
        assert!(sizes[5..].is_sorted_by(|one, next| one < next), "{sizes:?}");
        let held = tracker.once.iter().count() + tracker.tracked.len();
        assert_eq!(tracker.evictions(), inserted - held as u64);
    }

    #[test]
    fn a_table_stays_within_its_bytes() {
        const BYTES_MAX: usize = 8 << 20;
        let mut tracker: Tracker<Number> = Tracker::new(TableLimits::new(usize::MAX, BYTES_MAX));
        let attempts: Vec<_> = (0..40).map(|value| attempt(value, Outcome::Rejected)).collect();
        for pane in 0..10 {
            for number in 0..60_000 {
                // One attempt, two, many.
                let count = [1, 1, 1, 2, 3, 40][number as usize % 6];
                let hashed = tracker.hashed(Number(pane * 60_000 + number));
                let attempts = &attempts[..count];
                tracker.add(&hashed, PaneIndex(pane.into()), PaneIndex(-300), attempts);
                if number % 1000 == 0 {
                    assert!(tracker.bytes() <= BYTES_MAX, "{}", tracker.bytes());
                }
            }
            tracker.end_pane(PaneIndex(-300));
        }
        assert!(tracker.bytes() > BYTES_MAX / 3, "{}", tracker.bytes());
        assert!(tracker.bytes() <= BYTES_MAX);
    }

    #[test]
    fn other_bytes_are_refused() {
        let mut tracker: Tracker<Number> = Tracker::new(limits(40));
        for key in 0..30 {
            let attempts = [attempt(1, Outcome::Rejected), attempt(2, Outcome::Answered)];
            let hashed = tracker.hashed(Number(key));
            tracker.add(&hashed, PaneIndex(1), PaneIndex(0), &attempts[..=(key as usize % 2)]);
        }
        let mut out = Encoder::default();
        tracker.save(&mut out);
        let bytes = out.into_bytes();
        for length in 0..bytes.len() {
            let loaded = Tracker::<Number>::load(limits(40), &mut Decoder::new(&bytes[..length]));
            assert!(loaded.is_err(), "{length} bytes of {}", bytes.len());
        }
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let loaded = Tracker::<Number>::load(limits(40), &mut Decoder::new(&bytes));
            if let Ok(mut loaded) = loaded {
                let hashed = loaded.hashed(Number(3));
                let attempts = [attempt(5, Outcome::Bare)];
                loaded.add(&hashed, PaneIndex(2), PaneIndex(0), &attempts);
                loaded.end_pane(PaneIndex(1));
            }
        }
    }

    /// The same as a map of sets, without any regard for memory or time.
    #[derive(Default)]
    struct Model {
        keys: BTreeMap<Number, Distinct<u16>>,
        expired: Option<PaneIndex>,
    }

    impl Model {
        fn is_live(&self, distinct: &Distinct<u16>) -> bool {
            self.expired.is_none_or(|expired| distinct.last_pane() > expired)
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
            values_max in prop::sample::select(vec![12_usize, 30, 1000]),
            reload_at in 0_usize..15,
        ) {
            const LONGEST: i64 = 5;
            let mut tracker: Tracker<Number> = Tracker::new(limits(values_max));
            let mut twin: Tracker<Number> = Tracker::new(limits(values_max));
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
                    prop_assert_eq!(value_count, twin.add(hashed, pane, expired, &attempts));
                    let distinct = model.keys.entry(hashed.key).or_default();
                    distinct.add(pane, expired, &attempts);
                    if tracker.evictions() == 0 {
                        prop_assert_eq!(value_count, distinct.len());
                    }
                    prop_assert!(value_count <= distinct.len());
                }
                prop_assert_eq!(tracker.end_pane(expired), twin.end_pane(expired));
                prop_assert_eq!(tracker.evictions(), twin.evictions());
                prop_assert!(tracker.once.len() + tracker.load.values <= values_max);
                model.expired = Some(expired);
                model.keys.retain(|_, distinct| distinct.last_pane() > expired);
                for key in (0..40).map(Number) {
                    let counts_in = |distinct: &Distinct<u16>| distinct.counts(PaneIndex(pane.0 - 3));
                    let counts = tracker.get(&key).map(|distinct| counts_in(&distinct));
                    prop_assert_eq!(twin.get(&key).map(|distinct| counts_in(&distinct)), counts);
                    prop_assert_eq!(tracker.contains(&tracker.hashed(key)), counts.is_some());
                    let live = model.keys.get(&key).filter(|distinct| model.is_live(distinct));
                    if tracker.evictions() == 0 {
                        prop_assert_eq!(counts, live.map(counts_in));
                    }
                    prop_assert!(live.is_some() || counts.is_none());
                }
                if usize::try_from(pane.0).unwrap() == reload_at {
                    tracker = reloaded(&tracker);
                }
            }
            prop_assert_eq!(values_max == 1000, values_max == 1000 && tracker.evictions() == 0);
        }
    }
}
