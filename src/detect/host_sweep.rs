//! Horizontal scans: one client tries one port, or pings, on many hosts.
//!
//! Two signs, each per client, protocol and port over sliding windows. Most of many targets fail: the
//! sweep of a closed port. Or, from outside only, nearly all of many targets answer and not a byte of
//! payload follows: the sweep of an open port, where a crawler would have asked for something. Inside
//! hosts that all fail on the same high port point to a missing rule, not to a scanner, and are left
//! out. The ports that a client sweeps become one finding.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::detector::Detector;
use super::distinct::{Attempt, Counts};
use super::episode::{Episodes, Sighting};
use super::known::{ANY_SERVER, SharedScan};
use super::once::{Narrow, TrackedKey};
use super::order::Sorter;
use super::outcome::{ICMP, ICMP_V6, Outcome, TCP, UDP};
use super::pane::{PaneView, Tried};
use super::report::{Draft, confidence, finding_of, spelled};
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_order, check_range};
use super::table_limits::TableLimits;
use super::tracker::{Hashed, LOOK_UPS_AHEAD, Tracker};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::simd;
use crate::units::{PaneIndex, UnixSeconds};

/// Ports below this one are swept for in attacks; above it, many inside sources that fail alike share
/// a misconfiguration.
const PREVALENCE_PORT_MIN: u16 = 1024;

/// How many targets of a sweep are asked for before they are read.
const TARGETS_AHEAD: usize = 4;

/// `[detectors.host_sweep]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostSweepSettings {
    /// Whether to look for sweeps.
    pub enabled: bool,
    /// Distinct hosts tried on one port, 2 to 65536.
    pub hosts_min: u32,
    /// The short window, 60 to 86400; the only one for sweeps that are answered.
    pub window_seconds: u32,
    /// The medium window, `window_seconds` to 86400.
    pub medium_window_seconds: u32,
    /// The long window, `medium_window_seconds` to 86400.
    pub slow_window_seconds: u32,
    /// Failed hosts among all that were tried, in per cent, 1 to 100.
    pub failed_share_min_percent: u32,
    /// When more inside clients than this fail on the same high port, it is not a sweep, 1 to 65536.
    pub prevalence_max: u32,
    /// Hosts kept over all clients and ports, 1000 to 1000000000; a host takes about 80 bytes.
    pub tracked_max: u32,
}

impl Default for HostSweepSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            hosts_min: 12,
            window_seconds: 300,
            medium_window_seconds: 3600,
            slow_window_seconds: 14_400,
            failed_share_min_percent: 50,
            prevalence_max: 6,
            tracked_max: 1_000_000,
        }
    }
}

impl HostSweepSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        let windows = 60..=WINDOW_SECONDS_MAX;
        check_range("hosts_min", self.hosts_min, 2..=65_536, usual.hosts_min)?;
        check_range("window_seconds", self.window_seconds, windows.clone(), usual.window_seconds)?;
        check_range(
            "slow_window_seconds",
            self.slow_window_seconds,
            windows,
            usual.slow_window_seconds,
        )?;
        let medium = ("medium_window_seconds", self.medium_window_seconds);
        check_order(("window_seconds", self.window_seconds), medium)?;
        check_order(medium, ("slow_window_seconds", self.slow_window_seconds))?;
        check_range(
            "failed_share_min_percent",
            self.failed_share_min_percent,
            1..=100,
            usual.failed_share_min_percent,
        )?;
        check_range("prevalence_max", self.prevalence_max, 1..=65_536, usual.prevalence_max)?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// Bytes that a failing inside client takes in its two B-trees, at most.
const FAILING_CLIENT_BYTES: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Sweep {
    client: Addr,
    protocol: u8,
    port: u16,
}

impl Saved for Sweep {
    const BYTES_MIN: usize = 19;

    fn save(&self, out: &mut Encoder) {
        self.client.save(out);
        out.u8(self.protocol);
        out.u16(self.port);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { client: Addr::load(from)?, protocol: from.u8()?, port: from.u16()? })
    }
}

impl TrackedKey for Sweep {
    type Value = Addr;

    fn narrow(&self, server: Addr) -> Option<Narrow> {
        let (client, server) = (self.client.as_v4()?, server.as_v4()?);
        Some(Narrow { client, server, port: self.port, protocol: self.protocol })
    }

    fn of_narrow(narrow: Narrow) -> (Self, Addr) {
        let Narrow { client, server, port, protocol } = narrow;
        (Self { client: Addr::v4(client), protocol, port }, Addr::v4(server))
    }
}

/// A client and port whose counts are over a threshold.
#[derive(Debug)]
struct Trip<'a> {
    sweep: Sweep,
    window_seconds: u32,
    before: PaneIndex,
    counts: Counts,
    variant: &'static str,
    last_seen: UnixSeconds,
    /// The pane's contacts that tell of it.
    contacts: Vec<&'a Tried>,
}

/// One target of one sweep in a pane.
#[derive(Clone, Copy, Debug)]
struct Target {
    sweep: Sweep,
    server: Addr,
    /// Which of the pane's tried contacts tells of it.
    position: u32,
    /// That contact's.
    outcome: Outcome,
    /// Whether it is the contact's client, seen from its server.
    is_turned: bool,
}

impl Target {
    fn tried<'a>(&self, view: &PaneView<'a>) -> &'a Tried {
        &view.tried[self.position as usize]
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct HostSweep {
    settings: HostSweepSettings,
    tracker: Tracker<Sweep>,
    episodes: Episodes<(Addr, u8)>,
    /// Inside clients by the high port on which they failed, with the last pane.
    failing_inside: BTreeMap<(u8, u16), BTreeMap<Addr, PaneIndex>>,
    /// How many clients that is, over all ports, and how many it may be. Without all of them a missing rule may
    /// look like sweeps, which is the better mistake.
    failing_count: usize,
    failing_max: usize,
    inexact_until: PaneIndex,
    /// The pane's targets in the order of sweeps, and the same in any order; kept for their memory.
    targets: Vec<Target>,
    unsorted: Vec<Target>,
    sorter: Sorter,
}

impl HostSweep {
    /// A detector without memory, whose tables take at most `bytes_max`.
    pub(super) fn new(settings: HostSweepSettings, bytes_max: usize) -> Self {
        let tracked_max = settings.tracked_max as usize;
        let open_max = tracked_max.min(bytes_max / 8 / Episodes::<(Addr, u8)>::entry_bytes());
        Self {
            tracker: Tracker::new(TableLimits::new(tracked_max, bytes_max / 4 * 3)),
            episodes: Episodes::new(settings.slow_window_seconds, open_max),
            failing_inside: BTreeMap::new(),
            failing_max: bytes_max / 8 / FAILING_CLIENT_BYTES,
            failing_count: 0,
            inexact_until: PaneIndex(i64::MIN),
            targets: Vec::new(),
            unsorted: Vec::new(),
            sorter: Sorter::default(),
            settings,
        }
    }

    /// Adds the pane's attempts and returns the sweeps over a threshold, in order.
    fn trips<'a>(&mut self, view: &PaneView<'a>) -> Vec<Trip<'a>> {
        let expired = view.before_window(self.settings.slow_window_seconds);
        let mut attempts = Vec::new();
        let mut large = Vec::new();
        self.find_targets(view);
        let targets = std::mem::take(&mut self.targets);
        let mut groups = targets.chunk_by(|one, other| one.sweep == other.sweep);
        let mut ahead: Vec<(Hashed<Sweep>, &[Target])> = Vec::with_capacity(LOOK_UPS_AHEAD);
        loop {
            let hashed = |group| (self.tracker.hashed(sweep_of(group)), group);
            ahead.extend(groups.by_ref().map(hashed).take(LOOK_UPS_AHEAD));
            if ahead.is_empty() {
                break;
            }
            self.tracker.prefetch(ahead.iter().map(|(sweep, _)| sweep));
            for target in ahead.iter().flat_map(|(_, group)| group.iter().take(TARGETS_AHEAD)) {
                simd::prefetch(view.tried, target.position as usize);
            }
            for (hashed, group) in ahead.drain(..) {
                if !(is_suspect(view, group) || self.tracker.contains(&hashed)) {
                    continue;
                }
                attempts.clear();
                attempts.extend(group.iter().map(|target| attempt_of(target, view)));
                let count = self.tracker.add(&hashed, view.index(), expired, &attempts);
                if count >= self.settings.hosts_min as usize {
                    large.push(group);
                }
                if attempts.iter().any(|attempt| attempt.outcome.is_failed()) {
                    self.note_prevalence(view, hashed.key);
                }
            }
        }
        // Only now is the prevalence of this pane known.
        let trips = large.into_iter().filter_map(|group| self.trip(view, group)).collect();
        self.targets = targets;
        trips
    }

    /// Takes a client that failed on a port now, if many inside clients that do so tell of a missing rule.
    fn note_prevalence(&mut self, view: &PaneView<'_>, sweep: Sweep) {
        if sweep.port < PREVALENCE_PORT_MIN || !is_inside(view, sweep.client) {
            return;
        }
        let has_room = self.failing_count < self.failing_max;
        let clients = self.failing_inside.entry((sweep.protocol, sweep.port)).or_default();
        if let Some(last_pane) = clients.get_mut(&sweep.client) {
            *last_pane = view.index();
        } else if has_room && clients.len() <= self.settings.prevalence_max as usize {
            // More than the limit say no more than the limit does.
            clients.insert(sweep.client, view.index());
            self.failing_count += 1;
        }
    }

    /// The targets of all clients, in the order of sweeps.
    fn find_targets(&mut self, view: &PaneView<'_>) {
        for (position, tried) in (0..).zip(view.tried).filter(|(_, tried)| is_of_sweeps(tried)) {
            let mut add = |client: Addr, server: Addr, is_turned: bool| {
                let sweep = Sweep { client, protocol: tried.protocol, port: tried.port };
                let outcome = tried.outcome;
                self.unsorted.push(Target { sweep, server, position, outcome, is_turned });
            };
            add(tried.client, tried.server, false);
            if tried.port == 0 && view.contact(tried).back().0.flows > 0 {
                // Who of the two asked is unknown, so the answer counts for both.
                add(tried.server, tried.client, true);
            }
        }
        let packed = |target: &Target| {
            let (client, server) = (target.sweep.client.as_v4()?, target.server.as_v4()?);
            let service = u64::from(target.sweep.protocol) << 16 | u64::from(target.sweep.port);
            Some(u128::from(client) << 88 | u128::from(service) << 64 | u128::from(server) << 32)
        };
        let key = |target: &Target| (target.sweep, target.server);
        self.sorter.sort(&mut self.unsorted, &mut self.targets, packed, key);
    }

    /// The shortest window over its threshold.
    fn trip<'a>(&self, view: &PaneView<'a>, group: &[Target]) -> Option<Trip<'a>> {
        let sweep = group[0].sweep;
        let inside = is_inside(view, sweep.client);
        let concerns = |tried: &&Tried| {
            tried.outcome.is_failed() || (!inside && tried.outcome == Outcome::Bare)
        };
        let distinct = self.tracker.get(&sweep)?;
        let Sweep { client, protocol, port } = sweep;
        let shared = SharedScan { client, server: ANY_SERVER, protocol, port };
        if inside && self.is_prevalent(sweep) || view.known.is_shared_scan(shared) {
            return None;
        }
        let contacts: Vec<_> =
            group.iter().map(|target| target.tried(view)).filter(concerns).collect();
        let last_seen = contacts.iter().map(|tried| tried.last_end).max()?;
        let windows = [
            self.settings.window_seconds,
            self.settings.medium_window_seconds,
            self.settings.slow_window_seconds,
        ];
        let is_quick = |counts: &Counts| {
            last_seen.0.saturating_sub(counts.first_seen.0) <= self.settings.window_seconds.into()
        };
        windows.into_iter().enumerate().find_map(|(position, window_seconds)| {
            let before = view.before_window(window_seconds);
            let counts = distinct.counts(before);
            let variant = if self.is_failing(&counts, inside) {
                match sweep.protocol {
                    UDP => "udp",
                    ICMP | ICMP_V6 => "icmp",
                    _ if is_quick(&counts) => "fast",
                    _ => "slow",
                }
            } else if position == 0 && !inside && self.is_bare(&counts) {
                "accepted"
            } else {
                return None;
            };
            let contacts = contacts.clone();
            Some(Trip { sweep, window_seconds, before, counts, variant, last_seen, contacts })
        })
    }

    /// Whether many hosts were tried and most failed. Bare answers to an inside client are health
    /// checks and count as answers; those to an outside one are probes and count on neither side.
    fn is_failing(&self, counts: &Counts, inside: bool) -> bool {
        let answered = counts.answered + if inside { counts.bare } else { 0 };
        let share_percent = counts.failed * 100 / (counts.failed + answered).max(1);
        counts.failed >= u64::from(self.settings.hosts_min)
            && share_percent >= u64::from(self.settings.failed_share_min_percent)
    }

    /// Whether many hosts answered and almost never anything followed.
    fn is_bare(&self, counts: &Counts) -> bool {
        let tried = counts.failed + counts.bare;
        tried >= u64::from(self.settings.hosts_min) && tried >= 4 * counts.answered
    }

    fn is_prevalent(&self, sweep: Sweep) -> bool {
        self.failing_inside
            .get(&(sweep.protocol, sweep.port))
            .is_some_and(|clients| clients.len() > self.settings.prevalence_max as usize)
    }

    /// Reports what one client swept with one protocol in this pane.
    fn report(&mut self, trips: &[Trip<'_>], view: &PaneView<'_>) -> Option<Finding> {
        let widest = trips
            .iter()
            .max_by_key(|trip| trip.counts.failed + trip.counts.bare)
            .expect("chunks are not empty");
        let Sweep { client, protocol, .. } = widest.sweep;
        let hosts_of = |trip: &Trip<'_>| {
            let distinct = self.tracker.get(&trip.sweep);
            distinct.map_or_else(Vec::new, |distinct| distinct.tried(trip.before).collect())
        };
        let hosts: BTreeSet<Addr> = trips.iter().flat_map(hosts_of).collect();
        let ports: Vec<u16> =
            trips.iter().map(|trip| trip.sweep.port).filter(|port| *port != 0).collect();
        let sum = |part: fn(&Counts) -> u64| trips.iter().map(|trip| part(&trip.counts)).sum();
        let last_seen = trips.iter().map(|trip| trip.last_seen).max()?;
        let first_seen = trips.iter().map(|trip| trip.counts.first_seen).min()?;
        let size = trips.iter().map(|trip| trip.counts.failed + trip.counts.bare).sum();
        let sighting = Sighting { first_seen, last_seen, size };
        let report = self.episodes.note((client, protocol), sighting)?;
        let count = |count: u64| Evidence::Count(count);
        let severity = severity(view, client, trips);
        let draft = || Draft {
            severity,
            confidence: confidence(
                (widest.counts.failed + widest.counts.bare).max(u64::from(self.settings.hosts_min)),
                u64::from(self.settings.hosts_min),
            ),
            title: title(client, protocol, &ports, hosts.len(), widest.window_seconds),
            actor: client,
            identity: (Vec::new(), vec![u16::from(protocol)]),
            targets: hosts.iter().copied().collect(),
            last_seen,
            window_seconds: widest.window_seconds,
            evidence: BTreeMap::from([
                ("variant", Evidence::Word(widest.variant)),
                ("distinct_ports", count(ports.len() as u64)),
                ("distinct_hosts", count(hosts.len() as u64)),
                ("flows", count(sum(|counts| counts.flows))),
                ("rejected", count(sum(|counts| counts.rejected))),
                ("unanswered", count(sum(|counts| counts.unanswered))),
                ("refused", count(sum(|counts| counts.refused))),
                ("answered_hosts", count(sum(|counts| counts.answered + counts.bare))),
            ]),
            ports,
            context: view.context(trips.iter().flat_map(|trip| trip.contacts.iter().copied())),
            exact: view.index() > self.inexact_until,
        };
        Some(finding_of((FindingKind::HostSweep, severity), report, view, draft))
    }
}

impl Detector for HostSweep {
    fn name(&self) -> &'static str {
        "host_sweep"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let trips = self.trips(view);
        let expired = view.before_window(self.settings.slow_window_seconds);
        if self.tracker.has_evicted() {
            self.inexact_until = view.after_window(expired);
        }
        let actor_of = |trip: &Trip<'_>| (trip.sweep.client, trip.sweep.protocol);
        for of_client in trips.chunk_by(|one, other| actor_of(one) == actor_of(other)) {
            out.extend(self.report(of_client, view));
        }
        if self.tracker.end_pane(expired) {
            self.inexact_until = view.after_window(expired);
        }
        self.episodes.end_pane(view.index().end(view.pane_seconds));
        self.failing_inside.retain(|_, clients| {
            clients.retain(|_, last_pane| *last_pane > expired);
            !clients.is_empty()
        });
        self.failing_count = self.failing_inside.values().map(BTreeMap::len).sum();
    }

    fn evictions(&self) -> u64 {
        self.tracker.evictions() + self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.tracker.bytes() + self.episodes.bytes() + self.failing_count * FAILING_CLIENT_BYTES
    }

    fn scratch_bytes(&self) -> usize {
        (self.targets.capacity() + self.unsorted.capacity()) * size_of::<Target>()
            + self.sorter.bytes()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        self.tracker.save(out);
        self.episodes.save(out);
        self.failing_inside.save(out);
        self.inexact_until.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("host sweeps", 1..=1)?;
        let tracker = Tracker::load(self.tracker.limits(), from)?;
        let episodes = self.episodes.load(from)?;
        let failing_inside: BTreeMap<_, BTreeMap<Addr, PaneIndex>> = BTreeMap::load(from)?;
        let failing_count = failing_inside.values().map(BTreeMap::len).sum();
        let inexact_until = PaneIndex::load(from)?;
        self.tracker = tracker;
        self.episodes = episodes;
        self.failing_inside = failing_inside;
        self.failing_count = failing_count;
        self.inexact_until = inexact_until;
        Ok(())
    }
}

fn is_inside(view: &PaneView<'_>, addr: Addr) -> bool {
    view.network.is_inside(addr)
}

fn is_of_sweeps(tried: &Tried) -> bool {
    matches!(tried.protocol, TCP | UDP | ICMP | ICMP_V6)
}

const fn sweep_of(group: &[Target]) -> Sweep {
    group[0].sweep
}

/// Whether the client tried something in vain or barely.
fn is_suspect(view: &PaneView<'_>, group: &[Target]) -> bool {
    let client = group[0].sweep.client;
    let tells = |target: &Target| {
        !target.is_turned
            && match target.outcome {
                Outcome::Bare => !is_inside(view, client),
                outcome => outcome.is_failed(),
            }
    };
    group.iter().any(tells) && !view.network.is_exempt_actor(client)
}

fn attempt_of(target: &Target, view: &PaneView<'_>) -> Attempt<Addr> {
    let tried = target.tried(view);
    Attempt {
        value: target.server,
        outcome: tried.outcome,
        flows: tried.flows,
        rejected: tried.rejected,
        first_start: tried.first_start,
    }
}

/// Own hosts should never sweep; a sweep that no rule stopped shows more than one that all rules did.
fn severity(view: &PaneView<'_>, client: Addr, trips: &[Trip<'_>]) -> Severity {
    let passed = |trip: &Trip<'_>| {
        let Counts { unanswered, refused, answered, bare, .. } = trip.counts;
        unanswered + refused + answered + bare > 0
    };
    if is_inside(view, client) {
        Severity::High
    } else if trips.iter().any(passed) {
        Severity::Medium
    } else {
        Severity::Low
    }
}

fn title(client: Addr, protocol: u8, ports: &[u16], hosts: usize, window_seconds: u32) -> String {
    let what = match (protocol, ports) {
        (ICMP | ICMP_V6, _) => "ICMP".to_owned(),
        (UDP, [port]) => format!("UDP port {port}"),
        (UDP, ports) => format!("{} UDP ports", ports.len()),
        (_, [port]) => format!("TCP port {port}"),
        (_, ports) => format!("{} TCP ports", ports.len()),
    };
    format!("{client} tried {what} on {hosts} hosts within {}", spelled(window_seconds))
}
