//! A bounded table of pairs of an own client and an outside service, and how many clients each service has.
//!
//! ```text
//! hash ─► index ─► entries: up to a limit; those of the lowest rank leave first, then the quietest
//!                  crowds: clients of each service, by a hash of the service
//! ```
//!
//! Pairs must be asked for in the same order whenever a history is read again, which the order of keys is; then
//! what leaves depends on the history alone. A crowd is never counted too low. It may be too high where two
//! services share a number, which happens to one in seventy of a full table.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::key_index::KeyIndex;
use super::saved::Saved;
use crate::aggregate::Blocks;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// Seed of the tables; their order never shows.
const SEED: u64 = 0x7061_6972;

/// Bytes of index and crowds per entry, growth included.
const BESIDE_BYTES: usize = 28;

/// The fewest crowds that are counted.
const CROWDS_MIN: usize = 64;

/// How many look-ups wait for memory at once.
pub(super) const LOOK_UPS_AHEAD: usize = 64;

/// Who sends to which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pair {
    pub(super) client: Addr,
    pub(super) server: Addr,
    /// 0 where all protocols and ports are meant.
    pub(super) protocol: u8,
    pub(super) port: u16,
}

impl Saved for Pair {
    const BYTES_MIN: usize = 35;

    fn save(&self, out: &mut Encoder) {
        self.client.save(out);
        self.server.save(out);
        out.u8(self.protocol);
        out.u16(self.port);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (client, server) = (Addr::load(from)?, Addr::load(from)?);
        Ok(Self { client, server, protocol: from.u8()?, port: from.u16()? })
    }
}

/// A pair as it stands in entries, which are as small as can be: an address by itself wants to lie at sixteen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PackedPair {
    client: [u8; 16],
    server: [u8; 16],
    port: u16,
    protocol: u8,
}

impl PackedPair {
    /// The pair in this form.
    pub(super) const fn of(pair: Pair) -> Self {
        let Pair { client, server, protocol, port } = pair;
        let [client, server] = [client.bits().to_ne_bytes(), server.bits().to_ne_bytes()];
        Self { client, server, port, protocol }
    }

    /// The pair.
    pub(super) fn pair(&self) -> Pair {
        let [client, server] = [self.client, self.server].map(u128::from_ne_bytes).map(Addr::v6);
        Pair { client, server, protocol: self.protocol, port: self.port }
    }
}

/// A time in four bytes, which reach to the year 2106; earlier and later ones are the first and the last.
pub(super) fn short_time(at: UnixSeconds) -> u32 {
    u32::try_from(at.0.max(0)).unwrap_or(u32::MAX)
}

/// What is kept of a pair.
pub(super) trait OfPair: Copy + Saved {
    fn pair(&self) -> Pair;

    /// What leaves a full table first has the least.
    fn rank(&self) -> u8;

    /// When it was seen last; see [`short_time`].
    fn last_seen(&self) -> u32;
}

/// The table.
#[derive(Debug)]
pub(super) struct PairTable<E> {
    hasher: FixedState,
    index: KeyIndex,
    entries: Blocks<E, 8>,
    /// Clients of services by hash; empty before the first entry.
    crowds: Vec<u16>,
    entries_max: usize,
    evictions: u64,
    /// As many as had left early when it was last asked.
    evictions_before: u64,
}

impl<E: OfPair> PairTable<E> {
    /// An empty table of at most `entries_max` entries in at most `bytes_max` bytes.
    pub(super) fn new(entries_max: usize, bytes_max: usize) -> Self {
        Self {
            hasher: FixedState::with_seed(SEED),
            index: KeyIndex::default(),
            entries: Blocks::default(),
            crowds: Vec::new(),
            entries_max: entries_max.min(bytes_max / (size_of::<E>() + BESIDE_BYTES)).max(8),
            evictions: 0,
            evictions_before: 0,
        }
    }

    /// The most entries.
    pub(super) const fn entries_max(&self) -> usize {
        self.entries_max
    }

    #[inline]
    pub(super) fn hash(&self, pair: &Pair) -> u64 {
        self.hasher.hash_one(pair)
    }

    /// Asks for the memory of pairs that will be looked up, at best [`LOOK_UPS_AHEAD`] of them.
    pub(super) fn prefetch(&self, hashes: impl Iterator<Item = u64> + Clone) {
        hashes.clone().for_each(|hash| self.index.prefetch(hash));
        for hash in hashes {
            if let Some(likely) = self.index.find(hash, |_| true) {
                self.entries.prefetch(likely);
            }
        }
    }

    #[inline]
    fn position(&self, hash: u64, pair: &Pair) -> Option<usize> {
        self.index.find(hash, |position| self.entries.get(position).pair() == *pair)
    }

    /// The entry of a pair.
    pub(super) fn get_mut(&mut self, hash: u64, pair: &Pair) -> Option<&mut E> {
        let position = self.position(hash, pair)?;
        Some(self.entries.get_mut(position))
    }

    /// Adds an entry of a pair that has none. If the table is full, an eighth of it leaves, those first that
    /// were not seen after `expired`.
    pub(super) fn insert(&mut self, hash: u64, entry: E, expired: u32) {
        if self.entries.len() >= self.entries_max {
            self.evict(expired);
        }
        self.put(hash, entry);
    }

    fn put(&mut self, hash: u64, entry: E) {
        if self.entries.len() * 2 >= self.crowds.len() {
            self.count_crowds((self.crowds.len() * 2).max(CROWDS_MIN));
        }
        let crowd = self.crowd_at(&entry.pair());
        self.crowds[crowd] = self.crowds[crowd].saturating_add(1);
        self.index.insert(hash, self.entries.len());
        self.entries.push(entry, Blocks::<E, 8>::new_block);
    }

    /// Counts the crowds anew, in a list of a length that is a power of two.
    fn count_crowds(&mut self, len: usize) {
        self.crowds = vec![0; len];
        for position in 0..self.entries.len() {
            let crowd = self.crowd_at(&self.entries.get(position).pair());
            self.crowds[crowd] = self.crowds[crowd].saturating_add(1);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "masked to the length")]
    fn crowd_at(&self, pair: &Pair) -> usize {
        let service = (pair.server, pair.protocol, pair.port);
        self.hasher.hash_one(service) as usize & (self.crowds.len() - 1)
    }

    /// Changes every entry, whose pair must stay.
    pub(super) fn change_all(&mut self, mut change: impl FnMut(&mut E)) {
        (0..self.entries.len()).for_each(|position| change(self.entries.get_mut(position)));
    }

    /// How many clients the pair's service has, or more.
    pub(super) fn crowd(&self, pair: &Pair) -> u64 {
        if self.crowds.is_empty() { 0 } else { self.crowds[self.crowd_at(pair)].into() }
    }

    /// Forgets pairs that were not seen after `expired`.
    pub(super) fn expire(&mut self, expired: u32) {
        self.remove(|entry| entry.last_seen() <= expired);
    }

    #[inline(never)]
    fn evict(&mut self, expired: u32) {
        self.expire(expired);
        let staying = self.entries_max - self.entries_max / 8;
        let Some(leaving) = self.entries.len().checked_sub(staying).filter(|count| *count > 0)
        else {
            return;
        };
        // By hash among equals, so that nobody is spared for a low address.
        let order = |entry: &E| {
            let pair = entry.pair();
            (entry.rank(), entry.last_seen(), self.hash(&pair), pair)
        };
        let mut orders: Vec<_> = self.entries.iter().map(order).collect();
        let (_, last, _) = orders.select_nth_unstable(leaving - 1);
        let last = *last;
        let hasher = self.hasher.clone();
        let before = self.entries.len();
        self.remove(|entry| {
            let pair = entry.pair();
            (entry.rank(), entry.last_seen(), hasher.hash_one(pair), pair) <= last
        });
        self.evictions += (before - self.entries.len()) as u64;
    }

    fn remove(&mut self, is_leaving: impl Fn(&E) -> bool) {
        let mut position = 0;
        while position < self.entries.len() {
            let entry = *self.entries.get(position);
            if !is_leaving(&entry) {
                position += 1;
                continue;
            }
            let crowd = self.crowd_at(&entry.pair());
            self.crowds[crowd] = self.crowds[crowd].saturating_sub(1);
            self.index.remove(self.hash(&entry.pair()), position);
            let last = self.entries.len() - 1;
            if position < last {
                let moved = self.hash(&self.entries.get(last).pair());
                self.index.replace(moved, last, position);
            }
            self.entries.swap_remove(position);
        }
    }

    /// Whether any pair had to leave early since the last call.
    pub(super) const fn has_evicted(&mut self) -> bool {
        let has_evicted = self.evictions > self.evictions_before;
        self.evictions_before = self.evictions;
        has_evicted
    }

    /// Pairs that left early.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.index.bytes() + self.entries.bytes() + self.crowds.capacity() * size_of::<u16>()
    }

    /// Saves the table.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.evictions);
        // Which services share a number depends on it.
        out.u8(u8::try_from(self.crowds.len().checked_ilog2().unwrap_or(0)).expect("below 64"));
        out.count(self.entries.len());
        self.entries.iter().for_each(|entry| entry.save(out));
    }

    /// Loads what [`Self::save`] wrote into an empty table, which may have room for fewer.
    pub(super) fn load(mut self, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("pairs", 1..=1)?;
        self.evictions = from.u64()?;
        let crowd_bits = u32::from(from.u8()?);
        for _ in 0..from.count(E::BYTES_MIN)? {
            let entry = E::load(from)?;
            let pair = entry.pair();
            let hash = self.hash(&pair);
            if self.position(hash, &pair).is_some() {
                return Err(DecodeError::Invalid("set of pairs"));
            }
            self.put(hash, entry);
        }
        let crowds_max = self.entries_max.saturating_mul(4).max(CROWDS_MIN);
        match 1_usize.checked_shl(crowd_bits) {
            Some(len) if len > self.crowds.len() && len <= crowds_max => self.count_crowds(len),
            _ => {}
        }
        self.evictions_before = self.evictions;
        if self.entries.len() > self.entries_max {
            self.evict(0);
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Counted {
        pair: Pair,
        count: u8,
        last_seen: u32,
    }

    impl Saved for Counted {
        const BYTES_MIN: usize = 40;

        fn save(&self, out: &mut Encoder) {
            self.pair.save(out);
            out.u8(self.count);
            out.u32(self.last_seen);
        }

        fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
            let (pair, count) = (Pair::load(from)?, from.u8()?);
            Ok(Self { pair, count, last_seen: from.u32()? })
        }
    }

    impl OfPair for Counted {
        fn pair(&self) -> Pair {
            self.pair
        }

        fn rank(&self) -> u8 {
            self.count
        }

        fn last_seen(&self) -> u32 {
            self.last_seen
        }
    }

    fn pair(client: u32, port: u16) -> Pair {
        Pair { client: Addr::v4(client), server: Addr::v4(99), protocol: 6, port }
    }

    fn reloaded(table: &PairTable<Counted>) -> PairTable<Counted> {
        let mut out = Encoder::default();
        table.save(&mut out);
        let bytes = out.into_bytes();
        let mut from = Decoder::new(&bytes);
        let empty = PairTable::new(table.entries_max, usize::MAX);
        let loaded = empty.load(&mut from).unwrap();
        from.finish().unwrap();
        loaded
    }

    proptest! {
        #[test]
        fn lists_say_the_same(steps in prop::collection::vec((0_u32..40, 0_u16..3), 0..300)) {
            let mut table: PairTable<Counted> = PairTable::new(20, usize::MAX);
            let mut model: BTreeMap<Pair, Counted> = BTreeMap::new();
            for (now, (client, port)) in (1_u32..).zip(steps) {
                let key = pair(client, port);
                let hash = table.hash(&key);
                if let Some(entry) = table.get_mut(hash, &key) {
                    (entry.count, entry.last_seen) = (entry.count + 1, now);
                    model.insert(key, *entry);
                } else {
                    if model.len() >= 20 {
                        let mut order: Vec<_> =
                            model.values().map(|e| (e.count, e.last_seen, e.pair)).collect();
                        order.sort_unstable();
                        order.truncate(model.len() - 18);
                        model.retain(|pair, _| order.iter().all(|(.., leaving)| leaving != pair));
                    }
                    let entry = Counted { pair: key, count: 1, last_seen: now };
                    table.insert(hash, entry, 0);
                    model.insert(key, entry);
                }
                if now % 50 == 0 {
                    table = reloaded(&table);
                }
                if now % 70 == 0 {
                    table.expire(now - 20);
                    model.retain(|_, entry| entry.last_seen > now - 20);
                }
                prop_assert_eq!(table.entries.len(), model.len());
                for (key, entry) in &model {
                    let hash = table.hash(key);
                    prop_assert_eq!(table.get_mut(hash, key).copied(), Some(*entry));
                    let clients = model.keys().filter(|other| other.port == key.port).count();
                    prop_assert!(table.crowd(key) >= clients as u64);
                }
                prop_assert_eq!(table.crowds.iter().map(|c| usize::from(*c)).sum::<usize>(), model.len());
            }
        }
    }
}
