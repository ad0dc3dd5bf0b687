//! Whether what is read fits what the stream has: pure, listings and readers in, alarms out.
//!
//! A listing may catch the stream in the middle of a reshard, so only what three in a row say is true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::lineage::{Shard, ShardId};

/// Audits in a row that must see the same before it is told.
const SIGHTINGS_MIN: u32 = 3;

/// Something that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Misfit {
    /// The stream takes records into a shard that nobody reads or is about to read.
    Unread(ShardId),
    /// No open shard takes the hash keys from the first to the second.
    Uncovered(u128, u128),
}

/// Compares listings with what is read, one after the other.
#[derive(Debug, Default)]
pub(super) struct Audit {
    sightings: BTreeMap<Misfit, u32>,
}

impl Audit {
    /// Takes a listing and the shards that are read or wait for their parents; what is to be told now, once
    /// for as long as it lasts.
    pub(super) fn compare(&mut self, listing: &[Shard], read: &BTreeSet<ShardId>) -> Vec<Misfit> {
        let open = || listing.iter().filter(|shard| !shard.closed);
        let mut misfits: BTreeSet<Misfit> = open()
            .filter(|shard| !read.contains(&shard.id))
            .map(|shard| Misfit::Unread(Arc::clone(&shard.id)))
            .collect();
        // What is still read from closed parents takes its keys until the children are open.
        let ranges = listing
            .iter()
            .filter(|shard| !shard.closed || read.contains(&shard.id))
            .map(|shard| shard.hash_key_range)
            .collect::<Option<Vec<_>>>();
        misfits.extend(ranges.into_iter().flat_map(holes));
        self.sightings.retain(|misfit, _| misfits.contains(misfit));
        let mut told = Vec::new();
        for misfit in misfits {
            let count = self.sightings.entry(misfit.clone()).or_default();
            *count = count.saturating_add(1);
            if *count == SIGHTINGS_MIN {
                told.push(misfit);
            }
        }
        told
    }
}

/// The keys that no range holds, as ranges. One key at the end of a range counts as held: an emulator is
/// off by one there, and the service has no shard of one key.
fn holes(mut ranges: Vec<(u128, u128)>) -> Vec<Misfit> {
    ranges.sort_unstable();
    let mut holes = Vec::new();
    let mut first_free = Some(0_u128);
    for (start, end) in ranges {
        let Some(free) = first_free else { break };
        if start > free.saturating_add(1) {
            holes.push(Misfit::Uncovered(free, start - 1));
        }
        first_free = if end == u128::MAX { None } else { Some(free.max(end + 1)) };
    }
    if let Some(free) = first_free.filter(|free| *free < u128::MAX) {
        holes.push(Misfit::Uncovered(free, u128::MAX));
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: u128 = 1 << 127;

    fn shard(id: &str, range: (u128, u128), closed: bool) -> Shard {
        Shard { id: id.into(), parents: Vec::new(), hash_key_range: Some(range), closed }
    }

    fn check(listing: &[Shard], read: &[&str], expected: &[Misfit]) {
        let read = read.iter().map(|id| ShardId::from(*id)).collect();
        let mut audit = Audit::default();
        for _ in 1..SIGHTINGS_MIN {
            assert_eq!(audit.compare(listing, &read), [], "once may be a reshard");
        }
        assert_eq!(audit.compare(listing, &read), expected);
        assert_eq!(audit.compare(listing, &read), [], "told once");
        assert_eq!(audit.compare(&[shard("x", (0, u128::MAX), true)], &read), []);
        for _ in 1..SIGHTINGS_MIN {
            audit.compare(listing, &read);
        }
        assert_eq!(audit.compare(listing, &read), expected, "it came again");
    }

    #[test]
    fn an_open_shard_has_a_reader() {
        let listing = [shard("a", (0, HALF - 1), false), shard("b", (HALF, u128::MAX), false)];
        check(&listing, &["a", "b"], &[]);
        check(&listing, &["a"], &[Misfit::Unread("b".into())]);
        let after_split =
            [shard("p", (0, u128::MAX), true), listing[0].clone(), listing[1].clone()];
        check(&after_split, &["a", "b"], &[]);
    }

    #[test]
    fn every_hash_key_has_an_open_shard() {
        let low = shard("a", (0, HALF - 1), false);
        check(std::slice::from_ref(&low), &["a"], &[Misfit::Uncovered(HALF, u128::MAX)]);
        check(
            &[low.clone(), shard("c", (HALF + 9, u128::MAX), false)],
            &["a", "c"],
            &[Misfit::Uncovered(HALF, HALF + 8)],
        );
        // Its children are not there yet.
        check(&[low.clone(), shard("p", (HALF, u128::MAX), true)], &["a", "p"], &[]);
        check(
            &[low.clone(), shard("off by one", (HALF + 1, u128::MAX - 1), false)],
            &["a", "off by one"],
            &[],
        );
        let unknown = Shard { hash_key_range: None, ..shard("u", (0, 0), false) };
        check(&[low, unknown], &["a", "u"], &[]);
    }
}
