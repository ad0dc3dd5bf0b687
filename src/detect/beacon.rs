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

    fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let now = short_time(view.index().start(view.pane_seconds));
        if now.saturating_sub(self.expired_at) >= EXPIRY_SECONDS {
            if let Some(expired) = now.checked_sub(self.settings.window_seconds) {
                self.pairs.expire(expired);
            }
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

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::beacon_pair::port_bit;
    use super::super::regularity::{History, KEPT, size_code};
    use super::super::scenarios::{addr, findings, reply, upload};
    use super::*;
    use crate::aggregate::ContactRow;
    use crate::net::Addr;

    const OWN: &str = "10.20.7.7";
    const SERVER: &str = "198.51.100.7";

    fn found(rows: &[ContactRow<'_>]) -> Vec<Finding> {
        let mut found = findings(rows, 3);
        found.retain(|finding| finding.kind == FindingKind::Beacon && finding.revision == 0);
        found
    }

    /// Variant and interval of the beacons.
    fn check(rows: &[ContactRow<'_>], expected: &[(&'static str, f64)]) {
        let found = found(rows);
        let found: Vec<_> = found
            .iter()
            .map(|finding| {
                let Some(Evidence::Word(variant)) = finding.evidence.get("variant") else {
                    panic!("no variant in {finding:?}")
                };
                let Evidence::Number(interval) = finding.evidence["interval_seconds"] else {
                    panic!("no interval in {finding:?}")
                };
                (*variant, interval)
            })
            .collect();
        assert_eq!(found, expected);
    }

    /// Calls with these pauses between them.
    fn calls(pauses: impl IntoIterator<Item = i64>) -> Vec<ContactRow<'static>> {
        let mut at = 0;
        let rows = pauses.into_iter().flat_map(|pause| {
            at += pause;
            upload(at, OWN, SERVER, 500)
        });
        with_other_ports(rows.collect())
    }

    /// Requests and their answers from eight ports in turn that aren't taken for one another.
    fn with_other_ports(mut rows: Vec<ContactRow<'static>>) -> Vec<ContactRow<'static>> {
        let mut bits = 0;
        let ports = (40_000..).filter(|port| {
            let is_new = bits & port_bit(*port) == 0;
            bits |= port_bit(*port);
            is_new
        });
        let ports: Vec<u16> = ports.take(8).collect();
        for (call, port) in rows.chunks_mut(2).zip(ports.into_iter().cycle()) {
            (call[0].src_port, call[1].dst_port) = (port, port);
        }
        rows
    }

    /// Parts of 1, evenly spread and mixed.
    fn parts(count: u32) -> impl Iterator<Item = f64> {
        (0..count).map(|n| f64::from(n * 13 % 31) / 30.0)
    }

    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    fn jittered(count: u32, period: f64, jitter: f64) -> Vec<ContactRow<'static>> {
        calls(parts(count).map(|part| (period * (1.0 + jitter * (2.0 * part - 1.0))) as i64))
    }

    #[test]
    fn a_beacon_begins_with_its_contacts() {
        check(&calls([300; 20]), &[]);
        check(&calls([300; 21]), &[("fixed", 300.0)]);
        check(&calls([60; 30]), &[]);
        check(&calls([60; 32]), &[("fixed", 60.0)]);
        check(&calls([3000; 24]), &[("fixed", 3000.0)]);
        let found = found(&calls([300; 21]));
        assert_eq!(
            found[0].title,
            "10.20.7.7 called 198.51.100.7 port 443 20 times, every 300 seconds"
        );
        assert_eq!(found[0].target.ports, [443]);
    }

    #[test]
    fn jitter_and_short_periods_hide_no_timer() {
        for (period, jitter) in [(60.0, 0.1), (140.0, 0.3), (600.0, 0.3), (900.0, 0.5)] {
            let found = found(&jittered(90, period, jitter));
            assert_eq!(found.len(), 1, "{period} {jitter}");
            let Evidence::Number(interval) = found[0].evidence["interval_seconds"] else {
                panic!()
            };
            assert!((interval / period - 1.0).abs() < 0.2, "{interval} for {period}");
        }
        // Two in each pane, seen as the first and the last.
        check(&calls([30; 120]), &[("fixed", 30.0)]);
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds")]
    fn chance_is_no_timer() {
        let chance = parts(200).map(|part| (-400.0 * (1.0 - part * 0.99).ln()) as i64 + 1);
        check(&calls(chance), &[]);
        let pages = (0..200).map(|n| if n % 10 == 0 { 1200 } else { 40 });
        check(&calls(pages), &[]);
        // Connections of one page.
        check(&calls((0..200).map(|n| if n % 4 == 0 { 300 } else { 1 })), &[("fixed", 303.0)]);
    }

    #[test]
    fn one_connection_is_one_contact() {
        let lasting = |protocol, tcp_flags| -> Vec<_> {
            let kept = |row| ContactRow { protocol, tcp_flags, ..row };
            let rows = calls([60; 60]).into_iter().map(kept);
            rows.enumerate()
                .map(|(n, row)| {
                    if n % 2 == 0 {
                        ContactRow { src_port: 50_001, ..row }
                    } else {
                        ContactRow { dst_port: 50_001, ..row }
                    }
                })
                .collect()
        };
        check(&lasting(6, Some(0)), &[]);
        check(&lasting(17, None), &[]);
    }

    #[test]
    fn agents_clocks_and_own_services_are_left_alone() {
        let changed = |change: fn(ContactRow<'static>) -> ContactRow<'static>| -> Vec<_> {
            calls([300; 40]).into_iter().map(change).collect()
        };
        fn ends(row: ContactRow<'static>, port: u16) -> ContactRow<'static> {
            let row = ContactRow { protocol: 17, tcp_flags: None, ..row };
            if row.dst_port == 443 {
                ContactRow { dst_port: port, ..row }
            } else {
                ContactRow { src_port: port, ..row }
            }
        }
        check(&changed(|row| ends(row, 123)), &[]);
        check(&changed(|row| ends(row, 53)), &[]);
        check(&changed(|row| ends(row, 4500)), &[("fixed", 300.0)]);
        let by = |owns: &[&str]| -> Vec<_> {
            let pairs = (1..40).flat_map(|n| owns.iter().map(move |own| (n * 300, *own)));
            pairs.flat_map(|(at, own)| upload(at, own, SERVER, 500)).collect()
        };
        check(&by(&["10.20.7.1", "10.20.7.2", "10.20.7.3"]), &[("fixed", 300.0); 3]);
        check(&by(&["10.20.7.1", "10.20.7.2", "10.20.7.3", "10.20.7.4"]), &[]);
        check(&by(&["10.20.0.100"]), &[]);
        check(&by(&["203.0.113.9"]), &[]);
        let inside: Vec<_> =
            (1..40).flat_map(|n| upload(n * 300, OWN, "10.20.5.60", 500)).collect();
        check(&inside, &[]);
        let transfers: Vec<_> =
            (1..40).flat_map(|n| upload(n * 300, OWN, SERVER, 200_000)).collect();
        check(&transfers, &[]);
        // Nobody answers.
        let calls: Vec<_> = calls([300; 40]).into_iter().step_by(2).collect();
        check(&calls, &[]);
    }

    /// Own hosts that beacon at some time, by lists of all their calls, at most one in a pane.
    fn plainly_beaconing(calls: &BTreeMap<u32, Vec<(u32, u64)>>) -> BTreeSet<Addr> {
        let is_beacon = |calls: &Vec<(u32, u64)>| {
            // The first is only noted.
            (1..calls.len()).any(|last| {
                let known = &calls[1..=last];
                let times: Vec<u32> = known.iter().map(|(at, _)| *at).collect();
                let seconds = times[times.len() - 1] - times[0];
                if known.len() < 20 || seconds < 1800 {
                    return false;
                }
                let newest = known.len() - KEPT.min(known.len() - 1);
                let intervals: Vec<u16> = (newest..known.len())
                    .map(|n| u16::try_from(times[n] - times[n - 1]).unwrap())
                    .collect();
                let sizes: Vec<u8> = known[newest..].iter().map(|(_, b)| size_code(*b)).collect();
                let hour = |at: u32| at / 3600;
                let hours = hour(times[times.len() - 1]) - hour(times[0]) + 1;
                let used: BTreeSet<u32> = times.iter().map(|at| hour(*at)).collect();
                let hours_used = u32::try_from(used.len()).unwrap();
                let (intervals, sizes) = (&intervals[..], &sizes[..]);
                let scores = Scores::of(&History { intervals, sizes, hours, hours_used, seconds });
                scores.is_timed() && scores.mean() >= 0.7
            })
        };
        let beacons = calls.iter().filter(|(_, calls)| is_beacon(calls));
        beacons.map(|(own, _)| Addr::v4(*own)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn lists_say_the_same(
            hosts in prop::collection::vec(
                (70_i64..400, 0_i64..200, prop::collection::vec((0_i64..101, 1_u64..4), 0..60)), 1..4,
            ),
        ) {
            let mut expected: BTreeMap<u32, Vec<(u32, u64)>> = BTreeMap::new();
            let mut rows = Vec::new();
            for (own, (period, jitter, pauses)) in (0x0a14_0701..).zip(&hosts) {
                let mut at = 0;
                let mut of_host = Vec::new();
                for (part, size) in pauses {
                    at += (period + period * jitter * (part - 50) / 10_000).max(61);
                    let [row, _] = upload(at, OWN, SERVER, size * 450);
                    let row = ContactRow { src: Addr::v4(own), ..row };
                    of_host.extend([row, reply(row, 0, 3, 400, 19)]);
                    expected.entry(own).or_default().push((u32::try_from(at).unwrap(), row.bytes));
                }
                rows.extend(with_other_ports(of_host));
            }
            prop_assert_eq!(rows.iter().filter(|row| row.dst == addr(SERVER)).count() * 2, rows.len());
            let found: BTreeSet<_> =
                found(&rows).iter().map(|finding| finding.actor.addrs[0]).collect();
            prop_assert_eq!(found, plainly_beaconing(&expected));
        }
    }
}
