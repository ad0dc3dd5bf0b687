//! One finding per happening: what is reported once, when again, and under which identity.
//!
//! Evidence of one key (such as actor and target) belongs to one episode until it has been quiet for the
//! detector's longest window. An episode is reported when it begins, when its size has doubled since the
//! last report, and once an hour while evidence comes in.

use std::collections::BTreeMap;

use crate::finding::Status;
use crate::units::UnixSeconds;

/// How long a report keeps further ones away that are not much larger.
const REPEAT_SECONDS: i64 = 3600;

#[derive(Debug)]
struct Episode {
    start: UnixSeconds,
    revision: u32,
    reported_size: u64,
    reported_at: UnixSeconds,
    last_seen: UnixSeconds,
}

/// Evidence that was found in one pane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    pub(super) first_seen: UnixSeconds,
    pub(super) last_seen: UnixSeconds,
    /// What has to double for a further report.
    pub(super) size: u64,
}

/// What to report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) status: Status,
    pub(super) revision: u32,
    /// When the episode began: part of the identity, and the finding's `first_seen`.
    pub(super) start: UnixSeconds,
}

/// The open episodes of a detector.
#[derive(Debug)]
pub(super) struct Episodes<K> {
    open: BTreeMap<K, Episode>,
    quiet_seconds: i64,
    open_max: usize,
    evictions: u64,
}

impl<K: Copy + Ord> Episodes<K> {
    /// No episode; one ends when it was quiet for `quiet_seconds`, or when there are more than
    /// `open_max`.
    pub(super) const fn new(quiet_seconds: u32, open_max: usize) -> Self {
        let quiet_seconds = quiet_seconds as i64;
        Self { open: BTreeMap::new(), quiet_seconds, open_max, evictions: 0 }
    }

    /// Takes evidence and says whether it has to be reported.
    pub(super) fn note(&mut self, key: K, sighting: Sighting) -> Option<Report> {
        let Sighting { first_seen, last_seen, size } = sighting;
        if let Some(episode) = self.open.get_mut(&key)
            && last_seen.0 - episode.last_seen.0 <= self.quiet_seconds
        {
            episode.last_seen = episode.last_seen.max(last_seen);
            let has_grown = size >= episode.reported_size.saturating_mul(2);
            if !has_grown && last_seen.0 - episode.reported_at.0 < REPEAT_SECONDS {
                return None;
            }
            episode.revision += 1;
            episode.reported_size = episode.reported_size.max(size);
            episode.reported_at = last_seen;
            let (revision, start) = (episode.revision, episode.start);
            return Some(Report { status: Status::Update, revision, start });
        }
        let episode = Episode {
            start: first_seen,
            revision: 0,
            reported_size: size,
            reported_at: last_seen,
            last_seen,
        };
        self.open.insert(key, episode);
        Some(Report { status: Status::Open, revision: 0, start: first_seen })
    }

    /// Whether there is an episode of this key.
    pub(super) fn is_open(&self, key: &K) -> bool {
        self.open.contains_key(key)
    }

    /// Forgets episodes that were quiet until `now`, and the quietest ones if there are too many.
    pub(super) fn end_pane(&mut self, now: UnixSeconds) {
        let quiet_since = now.saturating_add(-self.quiet_seconds);
        self.open.retain(|_, episode| episode.last_seen >= quiet_since);
        if self.open.len() <= self.open_max {
            return;
        }
        let excess = self.open.len() - (self.open_max - self.open_max / 10);
        let mut by_quiet: Vec<(UnixSeconds, K)> =
            self.open.iter().map(|(key, episode)| (episode.last_seen, *key)).collect();
        by_quiet.sort_unstable();
        for (_, key) in &by_quiet[..excess] {
            self.open.remove(key);
            self.evictions += 1;
        }
    }

    /// Episodes that were forgotten early.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sightings: &[(i64, u64)], expected: &[Option<(Status, u32, i64)>]) {
        let mut episodes = Episodes::new(14_400, 10);
        let got: Vec<_> = sightings
            .iter()
            .map(|(at, size)| {
                let at = UnixSeconds(*at);
                let report =
                    episodes.note((), Sighting { first_seen: at, last_seen: at, size: *size })?;
                Some((report.status, report.revision, report.start.0))
            })
            .collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn reports_come_at_the_start_on_doubling_and_every_hour() {
        check(
            &[(0, 15), (60, 20), (120, 30), (180, 59), (3719, 40), (3720, 40)],
            &[
                Some((Status::Open, 0, 0)),
                None,
                Some((Status::Update, 1, 0)),
                None,
                None,
                Some((Status::Update, 2, 0)),
            ],
        );
    }

    #[test]
    fn quiet_ends_an_episode() {
        check(
            &[(0, 15), (14_401, 15)],
            &[Some((Status::Open, 0, 0)), Some((Status::Open, 0, 14_401))],
        );
    }

    #[test]
    fn the_quietest_episodes_leave_first() {
        let mut episodes = Episodes::new(14_400, 2);
        for key in 0..4_u8 {
            let at = UnixSeconds(i64::from(key / 2));
            episodes.note(key, Sighting { first_seen: at, last_seen: at, size: 1 });
        }
        episodes.end_pane(UnixSeconds(60));
        assert_eq!([0, 1, 2, 3].map(|key| episodes.is_open(&key)), [false, false, true, true]);
        assert_eq!(episodes.evictions(), 2);
    }
}
