//! One finding per happening: what is reported once, when again, and under which identity.
//!
//! Evidence of one key (such as actor and target) belongs to one episode until it has been quiet for the
//! detector's longest window. An episode is reported when it begins, when its size has doubled since the
//! last report, and once an hour, or as the settings say, while evidence comes in.
//!
//! A finding's identity is made of the key and of the start of its episode, so no two episodes of one key may
//! have the same start, whatever evidence they have in common. One that ended quietly saw nothing
//! within `quiet_seconds` before the next begins, so that one starts no earlier than that. One that had to
//! leave a full table started no later than any that left; later ones start after that moment. So no id
//! comes with the same revision twice, and nothing has to be remembered of episodes that are over.

use std::collections::BTreeMap;

use super::noise::NoiseSettings;
use super::saved::Saved;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::Status;
use crate::units::UnixSeconds;

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
    /// How long a report keeps further ones away that are not much larger.
    renew_seconds: i64,
    open_max: usize,
    evictions: u64,
    /// No episode starts at or before it any more: the latest start of those that left early.
    started_until: UnixSeconds,
}

impl<K: Copy + Ord> Episodes<K> {
    /// No episode; one ends when it was quiet for `quiet_seconds`, or when there are more than
    /// `open_max`.
    pub(super) const fn new(quiet_seconds: u32, open_max: usize) -> Self {
        let quiet_seconds = quiet_seconds as i64;
        let started_until = UnixSeconds::MIN;
        let renew_seconds = NoiseSettings::SUPPRESS_SECONDS as i64;
        let open = BTreeMap::new();
        Self { open, quiet_seconds, renew_seconds, open_max, evictions: 0, started_until }
    }

    /// Reports an episode that has not doubled again after `seconds`, from now on.
    pub(super) fn renew_every(&mut self, seconds: u32) {
        self.renew_seconds = seconds.into();
    }

    /// Takes evidence and says whether it has to be reported.
    pub(super) fn note(&mut self, key: K, sighting: Sighting) -> Option<Report> {
        let Sighting { first_seen, last_seen, size } = sighting;
        if let Some(episode) = self.open.get_mut(&key)
            && last_seen.0.saturating_sub(episode.last_seen.0) <= self.quiet_seconds
        {
            episode.last_seen = episode.last_seen.max(last_seen);
            let has_grown = size >= episode.reported_size.saturating_mul(2);
            let age = last_seen.0.saturating_sub(episode.reported_at.0);
            if !has_grown && age < self.renew_seconds {
                return None;
            }
            episode.revision = episode.revision.saturating_add(1);
            episode.reported_size = episode.reported_size.max(size);
            episode.reported_at = last_seen;
            let (revision, start) = (episode.revision, episode.start);
            return Some(Report { status: Status::Update, revision, start });
        }
        let start = first_seen
            .max(last_seen.saturating_add(-self.quiet_seconds))
            .max(self.started_until.saturating_add(1));
        let episode =
            Episode { start, revision: 0, reported_size: size, reported_at: last_seen, last_seen };
        self.open.insert(key, episode);
        Some(Report { status: Status::Open, revision: 0, start })
    }

    /// Whether there is an episode of this key.
    pub(super) fn is_open(&self, key: &K) -> bool {
        self.open.contains_key(key)
    }

    /// The keys of the episodes that have not been quiet too long until `now`, in order.
    pub(super) fn open_keys(&self, now: UnixSeconds) -> impl Iterator<Item = K> {
        let quiet_since = now.saturating_add(-self.quiet_seconds);
        let open = self.open.iter().filter(move |(_, episode)| episode.last_seen >= quiet_since);
        open.map(|(key, _)| *key)
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
            let episode = self.open.remove(key).expect("listed from the table");
            self.started_until = self.started_until.max(episode.start);
            self.evictions += 1;
        }
    }

    /// Memory held, in bytes: that of the entries, and what nodes of a B-tree leave free on average.
    pub(super) fn bytes(&self) -> usize {
        self.open.len() * Self::entry_bytes()
    }

    /// What an episode takes, in bytes.
    pub(super) const fn entry_bytes() -> usize {
        (size_of::<K>() + size_of::<Episode>()) * 3 / 2
    }

    /// Episodes that were forgotten early.
    pub(super) const fn evictions(&self) -> u64 {
        self.evictions
    }
}

impl<K: Copy + Ord + Saved> Episodes<K> {
    /// Saves the open episodes.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.evictions);
        out.i64(self.started_until.0);
        self.open.save(out);
    }

    /// Loads what [`Self::save`] wrote, with the limits of `self`; those that are too many leave when the next
    /// pane ends.
    pub(super) fn load(&self, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("episodes", 1..=1)?;
        let evictions = from.u64()?;
        let started_until = UnixSeconds(from.i64()?);
        let open = BTreeMap::load(from)?;
        let Self { quiet_seconds, renew_seconds, open_max, .. } = *self;
        Ok(Self { open, quiet_seconds, renew_seconds, open_max, evictions, started_until })
    }
}

impl Saved for Episode {
    const BYTES_MIN: usize = 36;

    fn save(&self, out: &mut Encoder) {
        self.start.save(out);
        out.u32(self.revision);
        out.u64(self.reported_size);
        self.reported_at.save(out);
        self.last_seen.save(out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            start: UnixSeconds::load(from)?,
            revision: from.u32()?,
            reported_size: from.u64()?,
            reported_at: UnixSeconds::load(from)?,
            last_seen: UnixSeconds::load(from)?,
        })
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
        let mut episodes = Episodes::new(60, 10);
        let seen =
            |at| Sighting { first_seen: UnixSeconds(0), last_seen: UnixSeconds(at), size: 9 };
        let starts = [0, 61].map(|at| episodes.note((), seen(at)).unwrap().start.0);
        assert_eq!(starts, [0, 1], "old evidence does not make it the same episode");
    }

    #[test]
    fn the_quietest_episodes_leave_first() {
        let mut episodes = Episodes::new(14_400, 2);
        for key in 0..4_u8 {
            let at = UnixSeconds(i64::from(key / 2));
            episodes.note(key, Sighting { first_seen: at, last_seen: at, size: 1 });
        }
        episodes.end_pane(UnixSeconds(60));
        let again = Sighting { first_seen: UnixSeconds(0), last_seen: UnixSeconds(60), size: 1 };
        let report = Some(Report { status: Status::Open, revision: 0, start: UnixSeconds(1) });
        assert_eq!(episodes.note(0, again), report, "not the start that it had");
        episodes.open.remove(&0);
        assert_eq!([0, 1, 2, 3].map(|key| episodes.is_open(&key)), [false, false, true, true]);
        assert_eq!(episodes.evictions(), 2);
    }
}
