//! Beacons: an own host calls an outside service again and again, as if by a timer.
//!
//! ```text
//! answered contact ─► seen once? ─► entry of the pair: newest intervals and sizes ─► regularity ─► finding
//! ```
//!
//! A contact is the begin of a connection: client ports that were there before are the same connection. Of
//! several begins in a pane only the first and the last are known, so that they count as evenly spread; so
//! periods below a pane are seen as well as they can be. Services that many own hosts call are agents and updates.
//! DNS and NTP are timers by their nature and are left out.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::beacon_pair::{Calls, Seen};
use super::detector::Detector;
use super::episode::{Episodes, Sighting};
use super::outcome::{Outcome, TCP, UDP};
use super::pairs::{LOOK_UPS_AHEAD, OfPair, Pair, PairTable, short_time};
use super::pane::{PaneView, Tried};
use super::population::Population;
use super::regularity::{Scores, size_of_code};
use super::report::{Draft, finding};
use super::saved::Saved;
use super::seen_once::SeenOnce;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_range};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::units::{PaneIndex, UnixSeconds};

/// UDP ports whose clients ask at fixed times: DNS and NTP.
const TIMED_UDP_PORTS: [u16; 2] = [53, 123];

/// Contacts that carry more than this are transfers.
const CONTACT_BYTES_MAX: u64 = 100_000;

/// So many own hosts may share a service however few there are.
const SHARING_HOSTS_MIN: u64 = 3;

/// From this score on there is little else that it can be.
const HIGH_SCORE: f64 = 0.9;

/// How often pairs that have ended are looked for.
const EXPIRY_SECONDS: u32 = 3600;

/// How many pairs seen once are remembered for each that has an entry.
const ONCE_PER_ENTRY: usize = 2;

/// `[detectors.beacon]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BeaconSettings {
    /// Whether to look for beacons.
    pub enabled: bool,
    /// Contacts of one own host with one outside service, 5 to 10000.
    pub contacts_min: u32,
    /// How long they have to go on, 0 to 86400.
    pub duration_min_seconds: u32,
    /// The mean of the scores of intervals, sizes, hours and duration, in per cent, 1 to 100.
    pub score_min_percent: u32,
    /// After such a pause a pair begins anew, 3600 to 86400.
    pub window_seconds: u32,
    /// A service that more own hosts call than this is none to look at, in per cent, 0 to 100; three may
    /// always.
    pub prevalence_max_percent: u32,
    /// Pairs kept, 1000 to 1000000000; one takes about 160 bytes.
    pub tracked_max: u32,
}

impl Default for BeaconSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            contacts_min: 20,
            duration_min_seconds: 1800,
            score_min_percent: 70,
            window_seconds: 86_400,
            prevalence_max_percent: 2,
            tracked_max: 1_000_000,
        }
    }
}

impl BeaconSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        check_range("contacts_min", self.contacts_min, 5..=10_000, usual.contacts_min)?;
        check_range(
            "duration_min_seconds",
            self.duration_min_seconds,
            0..=WINDOW_SECONDS_MAX,
            usual.duration_min_seconds,
        )?;
        check_range("score_min_percent", self.score_min_percent, 1..=100, usual.score_min_percent)?;
        check_range(
            "window_seconds",
            self.window_seconds,
            3600..=WINDOW_SECONDS_MAX,
            usual.window_seconds,
        )?;
        check_range(
            "prevalence_max_percent",
            self.prevalence_max_percent,
            0..=100,
            usual.prevalence_max_percent,
        )?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct Beacon {
    settings: BeaconSettings,
    once: SeenOnce,
    pairs: PairTable<Calls>,
    own_hosts: Population,
    episodes: Episodes<Pair>,
    inexact_until: PaneIndex,
    /// When pairs that have ended were looked for.
    expired_at: u32,
}

impl Beacon {
    /// A detector without memory, whose tables take at most `bytes_max`.
    pub(super) fn new(settings: BeaconSettings, bytes_max: usize) -> Self {
        let tracked_max = settings.tracked_max as usize;
        let open_max = tracked_max.min(bytes_max / 8 / Episodes::<Pair>::entry_bytes());
        let pairs = PairTable::new(tracked_max, bytes_max / 4 * 3);
        Self {
            once: SeenOnce::new(pairs.entries_max() * ONCE_PER_ENTRY, bytes_max / 8),
            pairs,
            own_hosts: Population::default(),
            episodes: Episodes::new(settings.window_seconds, open_max),
            inexact_until: PaneIndex(i64::MIN),
            expired_at: 0,
            settings,
        }
    }

    /// How many own hosts a service may have that is looked at.
    fn sharing_max(&self) -> u64 {
        let percent = u64::from(self.settings.prevalence_max_percent);
        (self.own_hosts.count() * percent / 100).max(SHARING_HOSTS_MIN)
    }

    /// Adds a contact and returns what is known of its pair, if that may be a beacon.
    fn add(&mut self, hash: u64, tried: &Tried, view: &PaneView<'_>) -> Option<Calls> {
        let pair = pair_of(tried);
        let contact = view.contact(tried);
        let seen = Seen {
            first_start: short_time(tried.first_start),
            last_end: short_time(tried.last_end),
            ports: contact.client_ports(),
            bytes: contact.forward().0.bytes,
        };
        let pause_max = self.settings.window_seconds;
        let Some(calls) = self.pairs.get_mut(hash, &pair) else {
            if self.once.note(hash) {
                let expired = seen.first_start.saturating_sub(pause_max);
                self.pairs.insert(hash, Calls::new(pair, &seen), expired);
            }
            return None;
        };
        let lasting_seconds = u32::try_from(2 * view.pane_seconds).unwrap_or(u32::MAX);
        let is_new = if seen.first_start.saturating_sub(calls.last_seen) > pause_max {
            *calls = Calls::new(pair, &seen);
            true
        } else {
            calls.add(&seen, lasting_seconds)
        };
        let is_due = is_new
            && u32::from(calls.count) >= self.settings.contacts_min
            && calls.seconds() >= self.settings.duration_min_seconds;
        is_due.then_some(*calls)
    }

    fn report(&mut self, due: &Due<'_>, view: &PaneView<'_>) -> Option<Finding> {
        let Due { calls, tried } = due;
        let pair = calls.pair();
        let sharing = self.pairs.crowd(&pair);
        if sharing > self.sharing_max() {
            return None;
        }
        let scores = Scores::of(&calls.history());
        let score = scores.mean();
        let bytes = size_of_code(scores.size.median);
        if !scores.is_timed()
            || score * 100.0 < f64::from(self.settings.score_min_percent)
            || bytes > CONTACT_BYTES_MAX
        {
            return None;
        }
        let first_seen = UnixSeconds(calls.first_start.into()).min(tried.last_end);
        let sighting = Sighting { first_seen, last_seen: tried.last_end, size: calls.count.into() };
        let report = self.episodes.note(pair, sighting)?;
        let exact = view.index() > self.inexact_until;
        let own_hosts = self.own_hosts.count();
        let window_seconds = self.settings.window_seconds;
        let draft = || {
            let period = scores.interval.median;
            let jitter = scores.interval.deviation / period.max(1.0);
            let percent = |score: f64| Evidence::Number((score * 100.0).round());
            Draft {
                severity: if score >= HIGH_SCORE { Severity::High } else { Severity::Medium },
                confidence: score.min(1.0),
                title: format!(
                    "{} called {} port {} {} times, every {period:.0} seconds",
                    pair.client, pair.server, pair.port, calls.count
                ),
                actor: pair.client,
                identity: (vec![pair.server], vec![pair.protocol.into(), pair.port]),
                targets: vec![pair.server],
                ports: vec![pair.port],
                last_seen: tried.last_end,
                window_seconds,
                evidence: BTreeMap::from([
                    ("variant", Evidence::Word(if jitter < 0.02 { "fixed" } else { "jittered" })),
                    ("contacts", Evidence::Count(calls.count.into())),
                    ("duration_seconds", Evidence::Count(calls.seconds().into())),
                    ("interval_seconds", Evidence::Number(period.round())),
                    ("interval_deviation_percent", percent(jitter)),
                    ("bytes_per_contact", Evidence::Count(bytes)),
                    ("score_percent", percent(score)),
                    ("interval_score_percent", percent(scores.intervals)),
                    ("size_score_percent", percent(scores.sizes)),
                    ("hours_score_percent", percent(scores.hours)),
                    ("duration_score_percent", percent(scores.duration)),
                    ("hosts_with_this_destination", Evidence::Count(sharing)),
                    ("own_hosts", Evidence::Count(own_hosts)),
                ]),
                context: view.context([*tried].into_iter()),
                exact,
            }
        };
        Some(finding(FindingKind::Beacon, report, view, draft))
    }
}

/// A pair with enough contacts, and its newest.
struct Due<'a> {
    calls: Calls,
    tried: &'a Tried,
}

const fn pair_of(tried: &Tried) -> Pair {
    let Tried { client, server, protocol, port, .. } = *tried;
    Pair { client, server, protocol, port }
}

/// Whether it may be a beacon's, as far as this contact says.
fn is_call(tried: &Tried, view: &PaneView<'_>) -> bool {
    tried.outcome == Outcome::Answered
        && match tried.protocol {
            TCP => true,
            UDP => !TIMED_UDP_PORTS.contains(&tried.port),
            _ => false,
        }
        && !view.network.is_inside(tried.server)
        && tried.server.is_public()
        && view.network.is_inside(tried.client)
        && !view.network.is_exempt_actor(tried.client)
}

impl Detector for Beacon {
    fn name(&self) -> &'static str {
        "beacon"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let now = short_time(view.index().start(view.pane_seconds));
        if now.saturating_sub(self.expired_at) >= EXPIRY_SECONDS {
            self.pairs.expire(now.saturating_sub(self.settings.window_seconds));
            self.expired_at = now;
        }
        self.own_hosts.begin(i64::from(now));
        let mut due: Vec<Due<'_>> = Vec::new();
        let mut calls = view.tried.iter().filter(|tried| is_call(tried, view));
        let mut ahead: Vec<(u64, &Tried)> = Vec::with_capacity(LOOK_UPS_AHEAD);
        loop {
            let hashed = |tried| (self.pairs.hash(&pair_of(tried)), tried);
            ahead.extend(calls.by_ref().take(LOOK_UPS_AHEAD).map(hashed));
            if ahead.is_empty() {
                break;
            }
            self.pairs.prefetch(ahead.iter().map(|(hash, _)| *hash));
            for (hash, tried) in ahead.drain(..) {
                self.own_hosts.note(tried.client);
                let calls = self.add(hash, tried, view);
                due.extend(calls.map(|calls| Due { calls, tried }));
            }
        }
        if self.pairs.has_evicted() {
            let before = view.before_window(self.settings.window_seconds);
            self.inexact_until = view.after_window(before);
        }
        // Only now is it known who else calls the services.
        out.extend(due.iter().filter_map(|due| self.report(due, view)));
        self.episodes.end_pane(view.index().end(view.pane_seconds));
    }

    fn evictions(&self) -> u64 {
        self.pairs.evictions() + self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.once.bytes() + self.pairs.bytes() + self.own_hosts.bytes() + self.episodes.bytes()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        self.once.save(out);
        self.pairs.save(out);
        self.own_hosts.save(out);
        self.episodes.save(out);
        self.inexact_until.save(out);
        out.u32(self.expired_at);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("beacons", 1..=1)?;
        self.once = self.once.load(from)?;
        let empty = std::mem::replace(&mut self.pairs, PairTable::new(0, 0));
        self.pairs = empty.load(from)?;
        self.own_hosts = Population::load(from)?;
        self.episodes = self.episodes.load(from)?;
        self.inexact_until = PaneIndex::load(from)?;
        self.expired_at = from.u32()?;
        Ok(())
    }
}
