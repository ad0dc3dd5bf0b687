//! Which shards there are, whose children they are, and which may be read.
//!
//! A split or a merge closes shards and opens their children. A producer's records move from the
//! parents to the children in that order, so a child is read only when every parent that is known has
//! been read to its end. Pure: listings and ends in, shards to start out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::framing::ResumePoint;

/// The id of a shard, such as `shardId-000000000000`.
pub(super) type ShardId = Arc<str>;

/// What a listing, or the last answer of a closed parent, says about a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// Its id.
    pub(super) id: ShardId,
    /// The shards that were split or merged into it.
    pub(super) parents: Vec<ShardId>,
    /// The hash keys that it takes, both ends inclusive.
    pub(super) hash_key_range: Option<(u128, u128)>,
    /// Whether it takes no more records.
    pub(super) closed: bool,
}

/// Where a shard is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// Where the settings say: it existed when the source started.
    Configured,
    /// At its first record: it came into being while the source ran.
    FirstRecord,
    /// Where an earlier run was.
    Resumed(ResumePoint),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Reading,
    Finished {
        /// Listings in a row that did not hold it.
        absent_listings: u8,
    },
}

#[derive(Debug)]
struct Known {
    shard: Shard,
    begin: Begin,
    state: State,
}

/// Listings in a row without a finished shard after which it is forgotten. One is not enough: a
/// shard that a single listing left out would be read again.
const ABSENT_LISTINGS_MAX: u8 = 10;

/// Every shard of a stream that still matters.
#[derive(Debug, Default)]
pub(super) struct Lineage {
    shards: BTreeMap<ShardId, Known>,
}

impl Lineage {
    /// Takes a shard if it is not known yet.
    pub(super) fn add(&mut self, shard: Shard, begin: Begin) {
        self.shards.entry(Arc::clone(&shard.id)).or_insert(Known {
            shard,
            begin,
            state: State::Waiting,
        });
    }

    /// Takes a shard that needs no reading if it is not known yet.
    pub(super) fn add_finished(&mut self, shard: Shard) {
        self.shards.entry(Arc::clone(&shard.id)).or_insert(Known {
            shard,
            begin: Begin::FirstRecord,
            state: State::Finished { absent_listings: 0 },
        });
    }

    /// Takes a whole listing made while the source runs, and forgets finished shards that listings
    /// have not held for a while.
    pub(super) fn relist(&mut self, listing: Vec<Shard>) {
        for known in self.shards.values_mut() {
            if let State::Finished { absent_listings } = &mut known.state {
                *absent_listings = absent_listings.saturating_add(1);
            }
        }
        for shard in listing {
            if let Some(Known { state: State::Finished { absent_listings }, .. }) =
                self.shards.get_mut(&shard.id)
            {
                *absent_listings = 0;
            }
            self.add(shard, Begin::FirstRecord);
        }
        self.shards.retain(|_, known| {
            !matches!(known.state, State::Finished { absent_listings } if absent_listings >= ABSENT_LISTINGS_MAX)
        });
    }

    /// Shards that may be read and have not been handed out, in order of their ids. A parent that is
    /// not known holds nothing back: its data has expired, or was never wanted.
    pub(super) fn take_ready(&mut self) -> Vec<(Shard, Begin)> {
        let holds_back = |id: &ShardId| {
            self.shards.get(id).is_some_and(|known| !matches!(known.state, State::Finished { .. }))
        };
        let ready: Vec<ShardId> = self
            .shards
            .values()
            .filter(|known| known.state == State::Waiting)
            .filter(|known| !known.shard.parents.iter().any(holds_back))
            .map(|known| Arc::clone(&known.shard.id))
            .collect();
        ready
            .into_iter()
            .filter_map(|id| {
                let known = self.shards.get_mut(&id)?;
                known.state = State::Reading;
                Some((known.shard.clone(), known.begin.clone()))
            })
            .collect()
    }

    /// Shards that are read, or wait for their parents.
    pub(super) fn unfinished(&self) -> BTreeSet<ShardId> {
        let is_unfinished = |known: &&Known| !matches!(known.state, State::Finished { .. });
        self.shards
            .values()
            .filter(is_unfinished)
            .map(|known| Arc::clone(&known.shard.id))
            .collect()
    }

    /// A shard was read to its end, or is gone.
    ///
    /// # Panics
    /// If it was not handed out before.
    pub(super) fn finish(&mut self, id: &ShardId) {
        let known = self.shards.get_mut(id).expect("only known shards are read");
        assert_eq!(known.state, State::Reading, "{id} ends once");
        known.state = State::Finished { absent_listings: 0 };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shard(id: u32, parents: &[u32]) -> Shard {
        Shard {
            id: name(id),
            parents: parents.iter().copied().map(name).collect(),
            hash_key_range: None,
            closed: false,
        }
    }

    fn name(id: u32) -> ShardId {
        format!("shardId-{id:012}").into()
    }

    fn check(lineage: &mut Lineage, expected: &[u32]) {
        let ready: Vec<ShardId> =
            lineage.take_ready().into_iter().map(|(shard, _)| shard.id).collect();
        assert_eq!(ready, expected.iter().copied().map(name).collect::<Vec<_>>());
    }

    #[test]
    fn a_split_waits_for_its_parent() {
        let mut lineage = Lineage::default();
        for shard in [shard(1, &[0]), shard(2, &[0]), shard(0, &[])] {
            lineage.add(shard, Begin::Configured);
        }
        check(&mut lineage, &[0]);
        check(&mut lineage, &[]);
        lineage.finish(&name(0));
        check(&mut lineage, &[1, 2]);
    }

    #[test]
    fn a_merge_waits_for_both_parents() {
        let mut lineage = Lineage::default();
        lineage.relist(vec![shard(0, &[]), shard(1, &[])]);
        check(&mut lineage, &[0, 1]);
        lineage.finish(&name(0));
        lineage.add(shard(2, &[0, 1]), Begin::FirstRecord);
        check(&mut lineage, &[]);
        lineage.add(shard(2, &[0, 1]), Begin::FirstRecord);
        lineage.finish(&name(1));
        check(&mut lineage, &[2]);
    }

    #[test]
    fn unknown_and_unwanted_parents_hold_nothing_back() {
        let mut lineage = Lineage::default();
        lineage.add(shard(5, &[4]), Begin::Configured);
        lineage.add_finished(shard(6, &[]));
        lineage.add(shard(7, &[6]), Begin::FirstRecord);
        check(&mut lineage, &[5, 7]);
    }

    #[test]
    fn finished_shards_are_forgotten_only_after_many_listings() {
        let mut lineage = Lineage::default();
        lineage.relist(vec![shard(0, &[])]);
        check(&mut lineage, &[0]);
        lineage.finish(&name(0));
        lineage.relist(Vec::new());
        lineage.relist(vec![shard(0, &[])]);
        check(&mut lineage, &[]);
        for _ in 0..ABSENT_LISTINGS_MAX {
            assert_eq!(lineage.shards.len(), 1);
            lineage.relist(Vec::new());
        }
        assert!(lineage.shards.is_empty());
    }

    proptest! {
        /// Whatever the history of splits and merges and the order of ends: every shard is handed out
        /// once, and never before its parents have ended.
        #[test]
        fn every_shard_once_and_after_its_parents(
            history in prop::collection::vec((any::<bool>(), any::<u32>()), 0..40),
            listed_first in 0_usize..60,
            order in any::<u64>(),
        ) {
            let shards = resharded(&history);
            let mut lineage = Lineage::default();
            let split = listed_first.min(shards.len());
            for shard in &shards[..split] {
                lineage.add(shard.clone(), Begin::Configured);
            }
            let mut reading: Vec<Shard> = Vec::new();
            let mut ended: BTreeSet<ShardId> = BTreeSet::new();
            let mut handed_out = BTreeSet::new();
            let mut draw = order;
            let mut relisted = false;
            loop {
                for (shard, begin) in lineage.take_ready() {
                    prop_assert!(handed_out.insert(shard.id.clone()));
                    prop_assert_eq!(begin == Begin::Configured, shards[..split].contains(&shard));
                    for parent in &shard.parents {
                        prop_assert!(ended.contains(parent));
                    }
                    reading.push(shard);
                }
                if reading.is_empty() {
                    if relisted {
                        break;
                    }
                    lineage.relist(shards.clone());
                    relisted = true;
                    continue;
                }
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = usize::try_from(draw >> 33).unwrap() % reading.len();
                let shard = reading.swap_remove(at);
                lineage.finish(&shard.id);
                ended.insert(shard.id);
            }
            prop_assert_eq!(handed_out.len(), shards.len());
        }
    }

    /// Starts with two shards; `true` splits an open shard, `false` merges two.
    fn resharded(history: &[(bool, u32)]) -> Vec<Shard> {
        let mut shards = vec![shard(0, &[]), shard(1, &[])];
        let mut open = vec![0_u32, 1];
        for (split, pick) in history {
            let next = u32::try_from(shards.len()).unwrap();
            let parent = open.remove(*pick as usize % open.len());
            if *split || open.is_empty() {
                shards.extend([shard(next, &[parent]), shard(next + 1, &[parent])]);
                open.extend([next, next + 1]);
            } else {
                let adjacent = open.remove(*pick as usize % open.len());
                shards.push(shard(next, &[parent, adjacent]));
                open.push(next);
            }
        }
        shards
    }
}
