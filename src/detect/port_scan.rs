//! Vertical scans: one client tries many ports of one server and gets nowhere on most of them.
//!
//! Counted per client, server and protocol: distinct failed ports over three sliding windows, so that
//! slow scans are found too; a client that is answered on many ports as well is no scanner. A client
//! that scans several servers is reported once, as a block scan. Thresholds and their peers: Zeek takes
//! 15 failed ports in five minutes; longer windows and UDP are this program's addition.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::detector::Detector;
use super::distinct::{Attempt, Counts, Distinct};
use super::episode::{Episodes, Sighting};
use super::known::SharedScan;
use super::once::{Narrow, TrackedKey};
use super::outcome::{TCP, UDP};
use super::pane::{PaneView, Tried};
use super::report::{Draft, confidence, finding_of, spelled};
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_order, check_range};
use super::table_limits::TableLimits;
use super::tracker::{Hashed, LOOK_UPS_AHEAD, Tracker};
use crate::aggregate::TCP_SYN;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// Ports that `traceroute` sends UDP to, one after the other.
const TRACEROUTE_PORTS: std::ops::RangeInclusive<u16> = 33_434..=33_534;

/// How many servers of a block scan are remembered.
const BLOCK_SERVERS_MAX: usize = 4096;

/// Bytes that a remembered server of a block scan takes in a B-tree.
const BLOCK_SERVER_BYTES: usize = 32;

/// `[detectors.port_scan]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PortScanSettings {
    /// Whether to look for port scans.
    pub enabled: bool,
    /// Distinct failed ports of a host within `window_seconds`, 2 to 65536. Four fifths of it are enough
    /// within `medium_window_seconds`, two thirds within `slow_window_seconds`; the shortest window that
    /// has enough is the one reported.
    pub ports_min: u32,
    /// The short window, 60 to 86400.
    pub window_seconds: u32,
    /// The medium window, `window_seconds` to 86400.
    pub medium_window_seconds: u32,
    /// The long window, `medium_window_seconds` to 86400.
    pub slow_window_seconds: u32,
    /// Failed ports must be more than this many times the answered ones, 0 to 100.
    pub failed_per_answered_min: u32,
    /// From this many scanned hosts on, one finding stands for all of them, 2 to 65536.
    pub block_hosts_min: u32,
    /// Ports kept over all pairs of hosts, 1000 to 1000000000; a port takes about 60 bytes.
    pub tracked_max: u32,
}

impl Default for PortScanSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            ports_min: 15,
            window_seconds: 300,
            medium_window_seconds: 3600,
            slow_window_seconds: 14_400,
            failed_per_answered_min: 2,
            block_hosts_min: 3,
            tracked_max: 1_000_000,
        }
    }
}

impl PortScanSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        let windows = 60..=WINDOW_SECONDS_MAX;
        check_range("ports_min", self.ports_min, 2..=65_536, usual.ports_min)?;
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
            "failed_per_answered_min",
            self.failed_per_answered_min,
            0..=100,
            usual.failed_per_answered_min,
        )?;
        check_range("block_hosts_min", self.block_hosts_min, 2..=65_536, usual.block_hosts_min)?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }

    fn windows(&self) -> [Window; 3] {
        let ports_min = u64::from(self.ports_min);
        let share = |numerator: u64, denominator: u64| (ports_min * numerator / denominator).max(2);
        [
            Window { seconds: self.window_seconds, ports_min },
            Window { seconds: self.medium_window_seconds, ports_min: share(4, 5) },
            Window { seconds: self.slow_window_seconds, ports_min: share(2, 3) },
        ]
    }
}

#[derive(Clone, Copy, Debug)]
struct Window {
    seconds: u32,
    ports_min: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Pair {
    client: Addr,
    server: Addr,
    protocol: u8,
}

impl Saved for Pair {
    const BYTES_MIN: usize = 33;

    fn save(&self, out: &mut Encoder) {
        self.client.save(out);
        self.server.save(out);
        out.u8(self.protocol);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (client, server) = (Addr::load(from)?, Addr::load(from)?);
        Ok(Self { client, server, protocol: from.u8()? })
    }
}

impl TrackedKey for Pair {
    type Value = u16;

    fn narrow(&self, port: u16) -> Option<Narrow> {
        let (client, server) = (self.client.as_v4()?, self.server.as_v4()?);
        Some(Narrow { client, server, port, protocol: self.protocol })
    }

    fn of_narrow(narrow: Narrow) -> (Self, u16) {
        let Narrow { client, server, port, protocol } = narrow;
        let (client, server) = (Addr::v4(client), Addr::v4(server));
        (Self { client, server, protocol }, port)
    }
}

/// A pair whose counts are over a threshold.
#[derive(Debug)]
struct Trip<'a> {
    pair: Pair,
    window: Window,
    before: PaneIndex,
    counts: Counts,
    variant: &'static str,
    last_seen: UnixSeconds,
    /// The pane's failed contacts of the pair.
    contacts: Vec<&'a Tried>,
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct PortScan {
    settings: PortScanSettings,
    tracker: Tracker<Pair>,
    episodes: Episodes<Pair>,
    block_episodes: Episodes<Addr>,
    /// Servers that each block scanner was seen to scan.
    blocks: BTreeMap<Addr, BTreeSet<Addr>>,
    /// How many servers are remembered over all block scanners.
    block_servers_max: usize,
    inexact_until: PaneIndex,
}

impl PortScan {
    /// A detector without memory, whose tables take at most `bytes_max`.
    pub(super) fn new(settings: PortScanSettings, bytes_max: usize) -> Self {
        let tracked_max = settings.tracked_max as usize;
        let quiet_seconds = settings.slow_window_seconds;
        let pairs_max = tracked_max.min(bytes_max / 8 / Episodes::<Pair>::entry_bytes());
        let blocks_max = tracked_max.min(bytes_max / 16 / Episodes::<Addr>::entry_bytes());
        Self {
            tracker: Tracker::new(TableLimits::new(tracked_max, bytes_max / 4 * 3)),
            episodes: Episodes::new(quiet_seconds, pairs_max),
            block_episodes: Episodes::new(quiet_seconds, blocks_max),
            blocks: BTreeMap::new(),
            block_servers_max: tracked_max.min(bytes_max / 16 / BLOCK_SERVER_BYTES),
            inexact_until: PaneIndex(i64::MIN),
            settings,
        }
    }

    fn block_servers(&self) -> usize {
        self.blocks.values().map(BTreeSet::len).sum()
    }

    /// Forgets servers of the block scanners that have most of them, if there are too many.
    fn bound_blocks(&mut self) {
        let mut each_max = BLOCK_SERVERS_MAX;
        while each_max > 1 && self.block_servers() > self.block_servers_max {
            each_max /= 2;
            for servers in self.blocks.values_mut() {
                while servers.len() > each_max {
                    servers.pop_last();
                }
            }
        }
    }

    /// Adds the pane's attempts and returns the pairs over a threshold, in order.
    fn trips<'a>(&mut self, view: &PaneView<'a>) -> Vec<Trip<'a>> {
        let expired = view.before_window(self.settings.slow_window_seconds);
        let ports_min = self.settings.windows().map(|window| window.ports_min).into_iter().min();
        let ports_min = ports_min.expect("there are windows");
        let mut trips = Vec::new();
        let mut attempts = Vec::new();
        let mut groups = view
            .tried
            .chunk_by(|one, other| pair_of(one) == pair_of(other))
            .filter(|group| group.iter().any(is_of_port_scans));
        let mut ahead: Vec<(Hashed<Pair>, &[Tried])> = Vec::with_capacity(LOOK_UPS_AHEAD);
        loop {
            let hashed = |group: &'a [Tried]| (self.tracker.hashed(pair_of(&group[0])), group);
            ahead.extend(groups.by_ref().map(hashed).take(LOOK_UPS_AHEAD));
            if ahead.is_empty() {
                return trips;
            }
            self.tracker.prefetch(ahead.iter().map(|(pair, _)| pair));
            for (pair, group) in ahead.drain(..) {
                attempts.clear();
                attempts
                    .extend(group.iter().filter(|tried| is_of_port_scans(tried)).map(attempt_of));
                let failed_now = attempts.iter().any(|attempt| attempt.outcome.is_failed());
                if !(failed_now || self.tracker.contains(&pair))
                    || view.network.is_exempt_actor(pair.key.client)
                {
                    continue;
                }
                let count = self.tracker.add(&pair, view.index(), expired, &attempts);
                if failed_now
                    && count as u64 >= ports_min
                    && !view.known.is_shared_scan(shared_scan(pair.key))
                    && let Some(distinct) = self.tracker.get(&pair.key)
                {
                    trips.extend(trip(&self.settings, view, pair.key, group, &distinct));
                }
            }
        }
    }

    /// Reports what one client did in this pane: pair by pair, or as a block.
    fn report(&mut self, trips: &[Trip<'_>], view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let client = trips[0].pair.client;
        let mut servers: BTreeSet<Addr> = trips.iter().map(|trip| trip.pair.server).collect();
        if servers.len() < self.settings.block_hosts_min as usize
            && !self.block_episodes.is_open(&client)
        {
            out.extend(trips.iter().filter_map(|trip| self.pair_finding(trip, view)));
            return;
        }
        let block = self.blocks.entry(client).or_default();
        block.append(&mut servers);
        while block.len() > BLOCK_SERVERS_MAX {
            block.pop_last();
        }
        let (ports, flows) = trips.iter().fold((BTreeSet::new(), 0), |(mut ports, flows), trip| {
            ports.extend(self.ports_of(trip));
            (ports, flows + trip.counts.flows)
        });
        let block = &self.blocks[&client];
        let sum = |part: fn(&Counts) -> u64| trips.iter().map(|trip| part(&trip.counts)).sum();
        let last_seen = latest(trips);
        let sighting = Sighting {
            first_seen: trips.iter().map(|trip| trip.counts.first_seen).min().unwrap_or(last_seen),
            last_seen,
            size: block.len() as u64,
        };
        let Some(report) = self.block_episodes.note(client, sighting) else { return };
        let widest = trips.iter().max_by_key(|trip| trip.counts.failed).expect("not empty");
        let severity = severity(view, client, trips);
        let draft = || Draft {
            severity,
            confidence: confidence(widest.counts.failed, widest.window.ports_min),
            title: format!(
                "{client} tried {} ports on each of up to {} hosts within {}",
                ports.len(),
                block.len(),
                spelled(widest.window.seconds)
            ),
            actor: client,
            identity: (Vec::new(), Vec::new()),
            targets: block.iter().copied().collect(),
            ports: ports.iter().copied().collect(),
            last_seen,
            window_seconds: widest.window.seconds,
            evidence: evidence(&EvidenceParts {
                variant: "block",
                ports: ports.len() as u64,
                hosts: block.len() as u64,
                flows,
                rejected: sum(|counts| counts.rejected),
                unanswered: sum(|counts| counts.unanswered),
                refused: sum(|counts| counts.refused),
                answered: sum(|counts| counts.answered),
            }),
            context: view.context(contacts_of(trips)),
            exact: view.index() > self.inexact_until,
        };
        out.push(finding_of((FindingKind::PortScan, severity), report, view, draft));
    }

    fn pair_finding(&mut self, trip: &Trip<'_>, view: &PaneView<'_>) -> Option<Finding> {
        let Trip { pair, window, counts, .. } = trip;
        let sighting = Sighting {
            first_seen: counts.first_seen,
            last_seen: trip.last_seen,
            size: counts.failed,
        };
        let report = self.episodes.note(*pair, sighting)?;
        let tried = counts.failed + counts.bare;
        let severity = severity(view, pair.client, std::slice::from_ref(trip));
        let draft = || Draft {
            severity,
            confidence: confidence(counts.failed, window.ports_min),
            title: format!(
                "{} tried {tried} {} ports of {} within {}, {} of them in vain",
                pair.client,
                if pair.protocol == UDP { "UDP" } else { "TCP" },
                pair.server,
                spelled(window.seconds),
                counts.failed
            ),
            actor: pair.client,
            identity: (vec![pair.server], vec![u16::from(pair.protocol)]),
            targets: vec![pair.server],
            ports: self.ports_of(trip),
            last_seen: trip.last_seen,
            window_seconds: window.seconds,
            evidence: evidence(&EvidenceParts {
                variant: trip.variant,
                ports: tried,
                hosts: 1,
                flows: counts.flows,
                rejected: counts.rejected,
                unanswered: counts.unanswered,
                refused: counts.refused,
                answered: counts.answered,
            }),
            context: view.context(contacts_of(std::slice::from_ref(trip))),
            exact: view.index() > self.inexact_until,
        };
        Some(finding_of((FindingKind::PortScan, severity), report, view, draft))
    }

    fn ports_of(&self, trip: &Trip<'_>) -> Vec<u16> {
        let distinct = self.tracker.get(&trip.pair);
        distinct.map_or_else(Vec::new, |distinct| distinct.tried(trip.before).collect())
    }
}

impl Detector for PortScan {
    fn name(&self) -> &'static str {
        "port_scan"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
        self.block_episodes.renew_every(seconds);
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let trips = self.trips(view);
        let expired = view.before_window(self.settings.slow_window_seconds);
        if self.tracker.has_evicted() {
            self.inexact_until = view.after_window(expired);
        }
        for of_client in trips.chunk_by(|one, other| one.pair.client == other.pair.client) {
            self.report(of_client, view, out);
        }
        if self.tracker.end_pane(expired) {
            self.inexact_until = view.after_window(expired);
        }
        let now = view.index().end(view.pane_seconds);
        self.episodes.end_pane(now);
        self.block_episodes.end_pane(now);
        self.blocks.retain(|client, _| self.block_episodes.is_open(client));
        self.bound_blocks();
    }

    fn evictions(&self) -> u64 {
        self.tracker.evictions() + self.episodes.evictions() + self.block_episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.tracker.bytes()
            + self.episodes.bytes()
            + self.block_episodes.bytes()
            + self.block_servers() * BLOCK_SERVER_BYTES
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        self.tracker.save(out);
        self.episodes.save(out);
        self.block_episodes.save(out);
        out.count(self.blocks.len());
        for (client, servers) in &self.blocks {
            client.save(out);
            out.count(servers.len());
            servers.iter().for_each(|server| server.save(out));
        }
        self.inexact_until.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("port scans", 1..=1)?;
        let tracker = Tracker::load(self.tracker.limits(), from)?;
        let episodes = self.episodes.load(from)?;
        let block_episodes = self.block_episodes.load(from)?;
        let mut blocks: BTreeMap<Addr, BTreeSet<Addr>> = BTreeMap::new();
        for _ in 0..from.count(Addr::BYTES_MIN + 8)? {
            let client = Addr::load(from)?;
            let count = from.count(Addr::BYTES_MIN)?;
            let servers: Result<_, _> = (0..count).map(|_| Addr::load(from)).collect();
            blocks.insert(client, servers?);
        }
        let inexact_until = PaneIndex::load(from)?;
        self.tracker = tracker;
        self.episodes = episodes;
        self.block_episodes = block_episodes;
        self.blocks = blocks;
        self.inexact_until = inexact_until;
        Ok(())
    }
}

fn is_of_port_scans(tried: &Tried) -> bool {
    match tried.protocol {
        TCP => true,
        UDP => !TRACEROUTE_PORTS.contains(&tried.port),
        _ => false,
    }
}

fn pair_of(tried: &Tried) -> Pair {
    Pair { client: tried.client, server: tried.server, protocol: tried.protocol }
}

const fn shared_scan(Pair { client, server, protocol }: Pair) -> SharedScan {
    SharedScan { client, server, protocol, port: 0 }
}

fn attempt_of(tried: &Tried) -> Attempt<u16> {
    Attempt {
        value: tried.port,
        outcome: tried.outcome,
        flows: tried.flows,
        rejected: tried.rejected,
        first_start: tried.first_start,
    }
}

/// The shortest window over its threshold.
fn trip<'a>(
    settings: &PortScanSettings,
    view: &PaneView<'a>,
    pair: Pair,
    group: &'a [Tried],
    distinct: &Distinct<u16>,
) -> Option<Trip<'a>> {
    settings.windows().into_iter().find_map(|window| {
        let before = view.before_window(window.seconds);
        let counts = distinct.counts(before);
        let answered_max = counts.answered * u64::from(settings.failed_per_answered_min);
        if counts.failed < window.ports_min || counts.failed <= answered_max {
            return None;
        }
        let is_failed = |tried: &&Tried| is_of_port_scans(tried) && tried.outcome.is_failed();
        let contacts: Vec<_> = group.iter().filter(is_failed).collect();
        let last_seen = contacts.iter().map(|tried| tried.last_end).max()?;
        let span_seconds = last_seen.0.saturating_sub(counts.first_seen.0);
        let variant = match pair.protocol {
            UDP => "udp",
            _ if is_stealthy(view, &contacts) => "stealth",
            _ if span_seconds <= settings.window_seconds.into() => "fast",
            _ => "slow",
        };
        Some(Trip { pair, window, before, counts, variant, last_seen, contacts })
    })
}

/// Whether most attempts came without SYN: FIN, NULL and Xmas scans.
fn is_stealthy(view: &PaneView<'_>, contacts: &[&Tried]) -> bool {
    let is_without_syn = |tried: &&&Tried| {
        let (_, flags) = view.contact(tried).forward();
        flags.is_some_and(|flags| flags & TCP_SYN == 0)
    };
    contacts.iter().filter(is_without_syn).count() * 2 > contacts.len()
}

/// Own hosts should never scan; a scan that no rule stopped shows more than one that all rules did.
fn severity(view: &PaneView<'_>, client: Addr, trips: &[Trip<'_>]) -> Severity {
    let passed = |trip: &Trip<'_>| {
        let Counts { unanswered, refused, answered, bare, .. } = trip.counts;
        unanswered + refused + answered + bare > 0
    };
    if view.network.is_inside(client) {
        Severity::High
    } else if trips.iter().any(passed) {
        Severity::Medium
    } else {
        Severity::Low
    }
}

fn latest(trips: &[Trip<'_>]) -> UnixSeconds {
    trips.iter().map(|trip| trip.last_seen).max().expect("reported trips are not empty")
}

fn contacts_of<'a>(trips: &[Trip<'a>]) -> impl Iterator<Item = &'a Tried> {
    trips.iter().flat_map(|trip| trip.contacts.iter().copied())
}

struct EvidenceParts {
    variant: &'static str,
    ports: u64,
    hosts: u64,
    flows: u64,
    rejected: u64,
    unanswered: u64,
    refused: u64,
    answered: u64,
}

fn evidence(parts: &EvidenceParts) -> BTreeMap<&'static str, Evidence> {
    BTreeMap::from([
        ("variant", Evidence::Word(parts.variant)),
        ("distinct_ports", Evidence::Count(parts.ports)),
        ("distinct_hosts", Evidence::Count(parts.hosts)),
        ("flows", Evidence::Count(parts.flows)),
        ("rejected", Evidence::Count(parts.rejected)),
        ("unanswered", Evidence::Count(parts.unanswered)),
        ("refused", Evidence::Count(parts.refused)),
        ("answered_ports", Evidence::Count(parts.answered)),
    ])
}
