//! Keys that are told once an hour, and again when they come further.
//!
//! Of the keys that begin in one pane, those that came furthest are told one by one, so many and no
//! more; the others are one happening, told as such. So neither a flood from addresses that are made up nor
//! a list that is wrong fills the memory or buries the rest.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::episode::{Episodes, Report, Sighting};
use super::saved::Saved;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::units::UnixSeconds;

/// How long a key has to be quiet until it is told anew, and how often it is told while it isn't.
pub(super) const HOUR_SECONDS: u32 = 3600;

/// Keys of a pane that are told one by one although nothing was known of them.
const NEW_MAX: usize = 1000;

/// What of a key was seen in a pane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Noted<K> {
    pub(super) key: K,
    /// How far it came, 0 to 15.
    pub(super) reach: u8,
    pub(super) first_seen: UnixSeconds,
    pub(super) last_seen: UnixSeconds,
}

/// What is to be told of a pane.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// By position in the list of what was seen, in order.
    pub(super) told: Vec<(usize, Report)>,
    /// Positions of the others, in order, if they are to be told.
    pub(super) crowd: Option<(Vec<usize>, Report)>,
}

/// The keys.
#[derive(Debug)]
pub(super) struct Hourly<K> {
    /// None stands for all that are not told one by one.
    episodes: Episodes<Option<K>>,
}

impl<K: Copy + Ord> Hourly<K> {
    /// None yet, of `tracked_max` in at most `bytes_max` between panes.
    pub(super) fn new(tracked_max: u32, bytes_max: usize) -> Self {
        let room = bytes_max / Episodes::<Option<K>>::entry_bytes();
        let open_max = (tracked_max as usize).min(room).max(1);
        Self { episodes: Episodes::new(HOUR_SECONDS, open_max) }
    }

    /// How long a key is not told again that came no further, from now on.
    pub(super) fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
    }

    /// Takes what was seen in a pane, in the order of keys, each once.
    pub(super) fn note(&mut self, seen: &[Noted<K>]) -> Due {
        debug_assert!(seen.is_sorted_by(|one, next| one.key < next.key));
        let is_new = |position: &usize| !self.episodes.is_open(&Some(seen[*position].key));
        let mut new: Vec<usize> = (0..seen.len()).filter(is_new).collect();
        if new.len() > NEW_MAX {
            new.sort_by_key(|position| Reverse(seen[*position].reach));
            new = new.split_off(NEW_MAX);
            new.sort_unstable();
        } else {
            new.clear();
        }
        let crowd: BTreeSet<usize> = new.iter().copied().collect();
        let mut due = Due::default();
        for (position, Noted { key, reach, first_seen, last_seen }) in seen.iter().enumerate() {
            if crowd.contains(&position) {
                continue;
            }
            let (first_seen, last_seen, size) = (*first_seen, *last_seen, 1 << reach);
            let sighting = Sighting { first_seen, last_seen, size };
            let report = self.episodes.note(Some(*key), sighting);
            due.told.extend(report.map(|report| (position, report)));
        }
        let of_crowd = || new.iter().map(|position| &seen[*position]);
        if let (Some(first_seen), Some(last_seen)) = (
            of_crowd().map(|seen| seen.first_seen).min(),
            of_crowd().map(|seen| seen.last_seen).max(),
        ) {
            let sighting = Sighting { first_seen, last_seen, size: new.len() as u64 };
            due.crowd = self.episodes.note(None, sighting).map(|report| (new, report));
        }
        due
    }

    /// Forgets keys that were quiet for an hour until `now`, and the quietest if there are too many.
    pub(super) fn end_pane(&mut self, now: UnixSeconds) {
        self.episodes.end_pane(now);
    }

    pub(super) const fn evictions(&self) -> u64 {
        self.episodes.evictions()
    }

    pub(super) fn bytes(&self) -> usize {
        self.episodes.bytes()
    }
}

impl<K: Copy + Ord + Saved> Hourly<K> {
    pub(super) fn save(&self, out: &mut Encoder) {
        self.episodes.save(out);
    }

    /// Loads what [`Self::save`] wrote, with the limits of `self`.
    pub(super) fn load(&self, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { episodes: self.episodes.load(from)? })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::finding::Status;

    /// What is told of keys that were seen with a size and at a time, pane after pane and in the order of keys
    /// within each: plain lists, from which nothing ever leaves.
    pub(in crate::detect) fn plainly_told<K: Copy + PartialEq>(
        seen: impl Iterator<Item = (K, (u64, i64))>,
    ) -> Vec<(K, Status, u32, i64)> {
        struct Known<K> {
            key: K,
            size: u64,
            told_at: i64,
            last_seen: i64,
            revision: u32,
        }
        let mut known: Vec<Known<K>> = Vec::new();
        let mut told = Vec::new();
        for (key, (size, at)) in seen {
            let position =
                known.iter().position(|one| one.key == key && at - one.last_seen <= 3600);
            let Some(position) = position else {
                known.retain(|one| one.key != key);
                known.push(Known { key, size, told_at: at, last_seen: at, revision: 0 });
                told.push((key, Status::Open, 0, at));
                continue;
            };
            let one = &mut known[position];
            one.last_seen = one.last_seen.max(at);
            if size >= 2 * one.size || at - one.told_at >= 3600 {
                one.revision += 1;
                one.size = one.size.max(size);
                one.told_at = at;
                told.push((key, Status::Update, one.revision, at));
            }
        }
        told
    }

    fn seen(keys: std::ops::Range<u16>, reach: u8, at: i64) -> Vec<Noted<u16>> {
        let at = UnixSeconds(at);
        keys.map(|key| Noted { key, reach, first_seen: at, last_seen: at }).collect()
    }

    /// How many are told one by one, and how many together.
    fn check(
        hourly: &mut Hourly<u16>,
        seen: &[Noted<u16>],
        expected: (usize, Option<usize>),
    ) -> Due {
        let due = hourly.note(seen);
        let crowd = due.crowd.as_ref().map(|(crowd, _)| crowd.len());
        assert_eq!((due.told.len(), crowd), expected);
        hourly.end_pane(seen[0].last_seen);
        due
    }

    #[test]
    fn keys_are_told_once_an_hour_and_when_they_come_further() {
        let mut hourly = Hourly::new(100, usize::MAX);
        check(&mut hourly, &seen(0..3, 0, 0), (3, None));
        check(&mut hourly, &seen(0..3, 0, 60), (0, None));
        let due = check(&mut hourly, &seen(1..2, 1, 120), (1, None));
        assert_eq!((due.told[0].1.status, due.told[0].1.revision), (Status::Update, 1));
        check(&mut hourly, &seen(0..1, 0, 3600), (1, None));
        let due = check(&mut hourly, &seen(0..1, 0, 9000), (1, None));
        assert_eq!(due.told[0].1.status, Status::Open);
    }

    #[test]
    fn a_flood_is_one_happening() {
        let mut hourly = Hourly::new(100_000, usize::MAX);
        let mut keys = seen(0..1500, 0, 0);
        keys[1499].reach = 1;
        let due = check(&mut hourly, &keys, (1000, Some(500)));
        assert_eq!(due.told.last().map(|(position, _)| *position), Some(1499));
        // Those of the crowd are still unknown, and what is known is not told again.
        check(&mut hourly, &seen(0..1500, 0, 60), (500, None));
        check(&mut hourly, &seen(2000..5000, 0, 120), (1000, Some(2000)));
        let due = check(&mut hourly, &seen(6000..9000, 0, 3800), (1000, Some(2000)));
        assert_eq!(due.crowd.unwrap().1.status, Status::Open);
    }
}
