//! Failed attempts of a window in one list, each contact once, in the order of keys.
//!
//! A pane's attempts come in the same order and are merged in, so there is nothing to hash or to look up, and
//! those of one client stand together. When there are too many, clients that tried once and clients that
//! tried very much leave before the others: a flood from made-up addresses consists of the former, and whoever
//! scans alone is one of the latter. Among these the oldest leave first, and then by hash of the client. In a
//! flood most don't even get in: of very many clients that are new and tried once only those do that a
//! doorkeeper knows, because they have come before.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::doorkeeper::Doorkeeper;
use super::saved::Saved;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// Seed of the hash that ties go by.
const SEED: u64 = 0x7472_6965_7300;

/// A client with more failed attempts than this is busy by itself.
const BUSY_TRIES: usize = 256;

/// With more clients of a pane than this that are new and tried once, only those get in that have come before.
const NEWCOMERS_MAX: usize = 4096;

/// How many clients that were kept out are remembered, at most.
const REMEMBERED_MAX: usize = 1 << 22;

/// A failed attempt; the later fields are no part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Try {
    pub(super) client: Addr,
    pub(super) server: Addr,
    /// Earliest start of the window.
    pub(super) start: UnixSeconds,
    /// The last pane in which it failed.
    pub(super) pane: PaneIndex,
    pub(super) port: u16,
    pub(super) protocol: u8,
    /// Whether a rule stopped it, in the last pane.
    pub(super) is_rejected: bool,
}

/// Memory of an attempt: its own, and that of the list that it is merged into.
pub(super) const TRY_BYTES: usize = 2 * size_of::<Try>();

impl Try {
    const fn key(&self) -> (Addr, Addr, u8, u16) {
        (self.client, self.server, self.protocol, self.port)
    }
}

impl Saved for Try {
    const BYTES_MIN: usize = 52;

    fn save(&self, out: &mut Encoder) {
        self.client.save(out);
        self.server.save(out);
        self.start.save(out);
        self.pane.save(out);
        out.u16(self.port);
        out.u8(self.protocol);
        out.bool(self.is_rejected);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            client: Addr::load(from)?,
            server: Addr::load(from)?,
            start: UnixSeconds::load(from)?,
            pane: PaneIndex::load(from)?,
            port: from.u16()?,
            protocol: from.u8()?,
            is_rejected: from.bool()?,
        })
    }
}

/// The list.
#[derive(Debug)]
pub(super) struct RecentTries {
    tries: Vec<Try>,
    /// What the list was before; kept for its memory.
    spare: Vec<Try>,
    tries_max: usize,
    /// Clients that were kept out.
    doorkeeper: Doorkeeper,
    /// Places of newcomers among a pane's attempts; kept for the memory.
    newcomers: Vec<usize>,
    evictions: u64,
}

impl RecentTries {
    /// An empty list of at most `tries_max` attempts, and at least one.
    pub(super) fn new(tries_max: usize) -> Self {
        Self {
            tries: Vec::new(),
            spare: Vec::new(),
            tries_max: tries_max.max(1),
            doorkeeper: Doorkeeper::new(tries_max.clamp(1, REMEMBERED_MAX)),
            newcomers: Vec::new(),
            evictions: 0,
        }
    }

    /// Takes clients out of a pane's attempts that are new and tried once, if there are very many of them. Says
    /// whether any were.
    pub(super) fn admit(&mut self, new: &mut Vec<Try>) -> bool {
        let Self { tries, doorkeeper, newcomers, evictions, .. } = self;
        newcomers.clear();
        let mut known = tries.iter().map(|attempt| attempt.client).peekable();
        let mut place = 0;
        for of_client in new.chunk_by(|one, other| one.client == other.client) {
            let client = of_client[0].client;
            while known.next_if(|known| *known < client).is_some() {}
            if of_client.len() == 1 && known.peek() != Some(&client) {
                newcomers.push(place);
            }
            place += of_client.len();
        }
        if newcomers.len() <= NEWCOMERS_MAX {
            return false;
        }
        let hasher = FixedState::with_seed(SEED);
        let (before, mut place) = (new.len(), 0);
        let mut newcomers = newcomers.iter().copied().peekable();
        new.retain(|attempt| {
            let is_newcomer = newcomers.next_if_eq(&place).is_some();
            place += 1;
            if !is_newcomer {
                return true;
            }
            let hash = hasher.hash_one(attempt.client);
            let has_come_before = doorkeeper.has(hash);
            if !has_come_before {
                doorkeeper.note(hash);
            }
            has_come_before
        });
        *evictions += (before - new.len()) as u64;
        new.len() < before
    }

    /// Adds what failed in a pane, in the order of keys, and forgets what did not fail after `expired`. Says
    /// whether anything else had to leave.
    pub(super) fn add(&mut self, new: &[Try], expired: PaneIndex) -> bool {
        debug_assert!(new.is_sorted_by(|one, next| one.key() < next.key()));
        let Self { tries, spare, .. } = self;
        spare.clear();
        let mut known = tries.iter().filter(|known| known.pane > expired).copied().peekable();
        for attempt in new {
            while let Some(before) = known.next_if(|known| known.key() < attempt.key()) {
                spare.push(before);
            }
            let mut attempt = *attempt;
            if let Some(same) = known.next_if(|known| known.key() == attempt.key()) {
                attempt.start = attempt.start.min(same.start);
            }
            spare.push(attempt);
        }
        spare.extend(known);
        std::mem::swap(tries, spare);
        let has_evicted = self.tries.len() > self.tries_max;
        if has_evicted {
            self.evict();
        }
        has_evicted
    }

    /// An eighth more leaves than must, so that this is not to be done at every pane.
    #[inline(never)]
    fn evict(&mut self) {
        let stay = self.tries_max - self.tries_max / 8;
        let hasher = FixedState::with_seed(SEED);
        let mut ranks = Vec::with_capacity(self.tries.len());
        let mut position = 0_usize;
        for of_client in self.of_clients() {
            let is_telling = (2..=BUSY_TRIES).contains(&of_client.len());
            let hash = hasher.hash_one(of_client[0].client);
            for attempt in of_client {
                ranks.push((is_telling, attempt.pane, hash, position));
                position += 1;
            }
        }
        let leaving = self.tries.len() - stay;
        ranks.select_nth_unstable(leaving);
        let mut is_leaving = vec![false; self.tries.len()];
        for (.., position) in &ranks[..leaving] {
            is_leaving[*position] = true;
        }
        let mut is_leaving = is_leaving.into_iter();
        self.tries.retain(|_| !is_leaving.next().unwrap_or(false));
        self.evictions += leaving as u64;
        self.tries.shrink_to(self.tries_max);
        self.spare = Vec::new();
    }

    /// The attempts of each client, in order.
    pub(super) fn of_clients(&self) -> impl Iterator<Item = &[Try]> {
        self.tries.chunk_by(|one, other| one.client == other.client)
    }

    /// Attempts that left early.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.tries.len() * TRY_BYTES + self.doorkeeper.bytes()
    }

    /// Saves the list.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.evictions);
        self.doorkeeper.save(out);
        out.count(self.tries.len());
        self.tries.iter().for_each(|attempt| attempt.save(out));
    }

    /// Loads what [`Self::save`] wrote, with the limit of `self`; what is too much leaves with the next pane.
    pub(super) fn load(&self, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("recent attempts", 1..=1)?;
        let evictions = from.u64()?;
        let keys_max = self.tries_max.clamp(1, REMEMBERED_MAX);
        let doorkeeper = Doorkeeper::load(keys_max, from)?;
        let count = from.count(Try::BYTES_MIN)?;
        let mut tries = Vec::with_capacity(count);
        for _ in 0..count {
            tries.push(Try::load(from)?);
        }
        if !tries.is_sorted_by(|one, next| one.key() < next.key()) {
            return Err(DecodeError::Invalid("order of attempts"));
        }
        Ok(Self { tries, doorkeeper, evictions, ..Self::new(self.tries_max) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn attempt(client: u32, port: u16, pane: i64) -> Try {
        Try {
            client: Addr::v4(client),
            server: Addr::v4(9),
            start: UnixSeconds(pane * 60),
            pane: PaneIndex(pane),
            port,
            protocol: 6,
            is_rejected: false,
        }
    }

    proptest! {
        #[test]
        fn a_map_says_the_same(
            panes in prop::collection::vec(
                prop::collection::btree_set((0_u32..5, 0_u16..5), 0..12), 1..12),
        ) {
            let mut tries = RecentTries::new(usize::MAX);
            let mut model: BTreeMap<(u32, u16), (i64, i64)> = BTreeMap::new();
            for (pane, seen) in (0..).zip(&panes) {
                let new: Vec<_> =
                    seen.iter().map(|(client, port)| attempt(*client, *port, pane)).collect();
                let evicted = tries.add(&new, PaneIndex(pane - 4));
                prop_assert!(!evicted);
                model.retain(|_, (_, last)| *last > pane - 4);
                for key in seen {
                    model.entry(*key).or_insert((pane, pane)).1 = pane;
                }
                let expected: Vec<_> = model
                    .iter()
                    .map(|((client, port), (first, last))| Try {
                        start: UnixSeconds(first * 60),
                        ..attempt(*client, *port, *last)
                    })
                    .collect();
                prop_assert_eq!(&tries.tries, &expected);
            }
        }
    }

    #[test]
    fn in_a_flood_only_those_get_in_that_come_back() {
        let mut tries = RecentTries::new(100_000);
        let flood = |from: u32, count: u32, pane| -> Vec<_> {
            (from..from + count).map(|client| attempt(client, 7, pane)).collect()
        };
        let mut few = flood(100, 4096, 0);
        assert!(!tries.admit(&mut few));
        let mut new = flood(10_000, 5000, 0);
        new.extend([attempt(90_000, 1, 0), attempt(90_000, 2, 0)]);
        assert!(tries.admit(&mut new));
        // About one in thirty is taken for somebody who has come before.
        assert!((2..300).contains(&new.len()), "{}", new.len());
        let mut again = flood(10_000, 5000, 1);
        tries.admit(&mut again);
        assert_eq!(again.len(), 5000);
    }

    #[test]
    fn those_that_tell_nothing_leave_first() {
        let mut tries = RecentTries::new(400);
        let mut new: Vec<_> = (0..10).map(|port| attempt(1, port, 0)).collect();
        new.extend((0..300).map(|port| attempt(2, port, 0)));
        assert!(!tries.add(&new, PaneIndex(-9)));
        let singles: Vec<_> = (10..500).map(|client| attempt(client, 7, 1)).collect();
        assert!(tries.add(&singles, PaneIndex(-9)));
        assert_eq!((tries.tries.len(), tries.evictions()), (350, 450));
        assert_eq!(tries.of_clients().next().unwrap().len(), 10, "it tried several, not too many");
        assert_eq!(tries.bytes(), 350 * TRY_BYTES);
    }
}
