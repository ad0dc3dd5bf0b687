//! Scans that are shared out: many sources try few ports or hosts each, so that none of them stands out.
//!
//! Three signs, each over one window and from outside sources that failed at least twice: many ports of one host; one port of
//! many hosts; and, where several sources try the same ports of a host at the same time, a scanner amid decoys
//! of which all but one address are made up. For the first two no source may have tried much more than the
//! others; whoever did is a scanner by itself, and left out. What is told of here is no port scan or sweep of
//! its sources as well.
//!
//! Sources that failed once don't count. A flood from made-up addresses consists of such sources, and so does
//! what reaches every public address all day.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::detector::Detector;
use super::episode::{Episodes, Sighting};
use super::known::{ANY_SERVER, Known, SharedScan};
use super::outcome::{EPHEMERAL_PORT_MIN, TCP, UDP};
use super::pane::{PaneView, Tried};
use super::recent_tries::{RecentTries, TRY_BYTES, Try};
use super::report::{CONTEXT_CONTACTS_MAX, Draft, LISTED_MAX, confidence, finding, spelled};
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_range};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Party, Severity};
use crate::net::Addr;
use crate::units::PaneIndex;

/// The fewest ports that tell a scan amid decoys.
const DECOY_PORTS_MIN: usize = 10;

/// How many sources are compared with the others, to find decoys.
const PIVOTS_MAX: usize = 8;

/// `[detectors.distributed_scan]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DistributedScanSettings {
    /// Whether to look for shared scans.
    pub enabled: bool,
    /// Distinct failed ports of one host over all sources, 2 to 65536.
    pub ports_min: u32,
    /// Sources that share them, 2 to 65536.
    pub port_sources_min: u32,
    /// Failed ports of one of these sources, or a third of all if that is more, 2 to 65536.
    pub ports_per_source_max: u32,
    /// Hosts on which one port failed over all sources, 2 to 65536.
    pub hosts_min: u32,
    /// Sources that share them, 2 to 65536.
    pub host_sources_min: u32,
    /// Hosts of one of these sources, or a third of all if that is more, 2 to 65536.
    pub hosts_per_source_max: u32,
    /// Sources that try the same ports of a host at the same time, 2 to 65536.
    pub decoys_min: u32,
    /// The window, 60 to 86400.
    pub window_seconds: u32,
    /// Failed attempts kept, 1000 to 1000000000; one takes about 120 bytes.
    pub tracked_max: u32,
}

impl Default for DistributedScanSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            ports_min: 60,
            port_sources_min: 6,
            ports_per_source_max: 44,
            hosts_min: 30,
            host_sources_min: 8,
            hosts_per_source_max: 11,
            decoys_min: 3,
            window_seconds: 1800,
            tracked_max: 1_000_000,
        }
    }
}

impl DistributedScanSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        for (field, value, default) in [
            ("ports_min", self.ports_min, usual.ports_min),
            ("port_sources_min", self.port_sources_min, usual.port_sources_min),
            ("ports_per_source_max", self.ports_per_source_max, usual.ports_per_source_max),
            ("hosts_min", self.hosts_min, usual.hosts_min),
            ("host_sources_min", self.host_sources_min, usual.host_sources_min),
            ("hosts_per_source_max", self.hosts_per_source_max, usual.hosts_per_source_max),
            ("decoys_min", self.decoys_min, usual.decoys_min),
        ] {
            check_range(field, value, 2..=65_536, default)?;
        }
        let windows = 60..=WINDOW_SECONDS_MAX;
        check_range("window_seconds", self.window_seconds, windows, usual.window_seconds)?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// The ways to share out a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    Vertical,
    Decoy,
    Horizontal,
}

impl Variant {
    const fn name(self) -> &'static str {
        match self {
            Self::Vertical => "vertical",
            Self::Decoy => "decoy",
            Self::Horizontal => "horizontal",
        }
    }

    const fn number(self) -> u8 {
        self as u8
    }
}

/// What one source tried of a host, or on a port: an episode's key is the host or [`ANY_SERVER`], the
/// protocol, the port or 0, and the variant.
type EpisodeKey = ((Addr, u8), (u16, u8));

/// The attempts of one source that belong together.
#[derive(Clone, Debug)]
struct Part<'a> {
    client: Addr,
    /// In the order of ports, or of hosts.
    tries: Vec<&'a Try>,
}

/// A scan over its thresholds.
#[derive(Debug)]
struct Trip<'a> {
    variant: Variant,
    /// The host, or [`ANY_SERVER`].
    server: Addr,
    protocol: u8,
    /// The port, or 0.
    port: u16,
    parts: Vec<Part<'a>>,
    /// Distinct ports or hosts.
    size: u64,
    threshold: u32,
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct DistributedScan {
    settings: DistributedScanSettings,
    tries: RecentTries,
    episodes: Episodes<EpisodeKey>,
    inexact_until: PaneIndex,
    /// The pane's attempts; kept for the memory.
    new: Vec<Try>,
    /// The pane's findings, from when it is prepared until it is taken.
    found: Vec<Finding>,
}

impl DistributedScan {
    /// A detector without memory, whose tables take at most `bytes_max`.
    pub(super) fn new(settings: DistributedScanSettings, bytes_max: usize) -> Self {
        let tracked_max = settings.tracked_max as usize;
        let open_max = tracked_max.min(bytes_max / 8 / Episodes::<EpisodeKey>::entry_bytes());
        Self {
            tries: RecentTries::new(tracked_max.min(bytes_max / 16 * 13 / TRY_BYTES)),
            episodes: Episodes::new(settings.window_seconds, open_max),
            inexact_until: PaneIndex(i64::MIN),
            new: Vec::new(),
            found: Vec::new(),
            settings,
        }
    }
}

/// The scans over their thresholds to which something was added in this pane.
fn trips<'a>(
    settings: &DistributedScanSettings,
    tries: &'a RecentTries,
    now: PaneIndex,
) -> Vec<Trip<'a>> {
    let mut of_hosts: Vec<(Addr, u8, Part<'_>)> = Vec::new();
    let mut of_ports: Vec<(u8, u16, Part<'_>)> = Vec::new();
    for of_client in tries.of_clients().filter(|tries| tries.len() > 1) {
        let client = of_client[0].client;
        let host = |attempt: &Try| (attempt.server, attempt.protocol);
        for tries in of_client.chunk_by(|one, other| host(one) == host(other)) {
            if tries.len() > 1 {
                let part = Part { client, tries: tries.iter().collect() };
                of_hosts.push((tries[0].server, tries[0].protocol, part));
            }
        }
        let mut tries: Vec<&Try> = of_client.iter().collect();
        // A stable sort: hosts stay in order.
        tries.sort_by_key(|attempt| (attempt.protocol, attempt.port));
        let service = |attempt: &Try| (attempt.protocol, attempt.port);
        for tries in tries.chunk_by(|one, other| service(one) == service(other)) {
            if tries.len() > 1 {
                let part = Part { client, tries: tries.to_vec() };
                of_ports.push((tries[0].protocol, tries[0].port, part));
            }
        }
    }
    let is_touched = |part: &Part<'_>| part.tries.iter().any(|attempt| attempt.pane == now);
    let mut trips = Vec::new();
    of_hosts.sort_by_key(|(server, protocol, part)| (*server, *protocol, part.client));
    for group in of_hosts.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
        let (server, protocol) = (group[0].0, group[0].1);
        if group.iter().any(|(.., part)| is_touched(part)) {
            let parts: Vec<_> = group.iter().map(|(.., part)| part.clone()).collect();
            trips.extend(trips_of_host(settings, (server, protocol), parts));
        }
    }
    of_ports.sort_by_key(|(protocol, port, part)| (*protocol, *port, part.client));
    for group in of_ports.chunk_by(|one, other| (one.0, one.1) == (other.0, other.1)) {
        let (protocol, port) = (group[0].0, group[0].1);
        if group.len() >= settings.host_sources_min as usize
            && group.iter().any(|(.., part)| is_touched(part))
        {
            let parts = group.iter().map(|(.., part)| part.clone()).collect();
            let host = |attempt: &Try| attempt.server;
            let (parts, size) = shared(parts, settings.hosts_per_source_max, host);
            if size >= u64::from(settings.hosts_min)
                && parts.len() >= settings.host_sources_min as usize
            {
                let (variant, server) = (Variant::Horizontal, ANY_SERVER);
                let threshold = settings.hosts_min;
                trips.push(Trip { variant, server, protocol, port, parts, size, threshold });
            }
        }
    }
    trips
}

/// Those of one host.
fn trips_of_host<'a>(
    settings: &DistributedScanSettings,
    (server, protocol): (Addr, u8),
    mut parts: Vec<Part<'a>>,
) -> Vec<Trip<'a>> {
    let port = |attempt: &Try| attempt.port;
    let trip = |variant, parts, size, threshold| Trip {
        variant,
        server,
        protocol,
        port: 0,
        parts,
        size,
        threshold,
    };
    let mut trips = Vec::new();
    if let Some(decoys) = take_decoys(&mut parts, settings.decoys_min as usize) {
        let size = distinct(&decoys, port);
        let threshold = u32::try_from(DECOY_PORTS_MIN).expect("a small number");
        trips.push(trip(Variant::Decoy, decoys, size, threshold));
    }
    let (parts, size) = shared(parts, settings.ports_per_source_max, port);
    if size >= u64::from(settings.ports_min) && parts.len() >= settings.port_sources_min as usize {
        trips.push(trip(Variant::Vertical, parts, size, settings.ports_min));
    }
    trips
}

/// Distinct ports or hosts of all parts.
fn distinct<T: Ord>(parts: &[Part<'_>], part_of: impl Fn(&Try) -> T) -> u64 {
    let tries = parts.iter().flat_map(|part| &part.tries);
    tries.map(|attempt| part_of(attempt)).collect::<BTreeSet<T>>().len() as u64
}

/// The parts that are not much larger than the others, and how many distinct ports or hosts these have.
fn shared<T: Ord>(
    mut parts: Vec<Part<'_>>,
    size_max: u32,
    part_of: impl Fn(&Try) -> T + Copy,
) -> (Vec<Part<'_>>, u64) {
    loop {
        let size = distinct(&parts, part_of);
        let each_max = u64::from(size_max).max(size / 3);
        let count = parts.len();
        parts.retain(|part| part.tries.len() as u64 <= each_max);
        if parts.len() == count {
            return (parts, size);
        }
    }
}

/// Takes out the sources that tried the same ports at the same time as each other, if there are enough.
fn take_decoys<'a>(parts: &mut Vec<Part<'a>>, decoys_min: usize) -> Option<Vec<Part<'a>>> {
    let many = |part: &&Part<'_>| part.tries.len() >= DECOY_PORTS_MIN;
    if parts.iter().filter(many).count() < decoys_min {
        return None;
    }
    let mut pivots: Vec<&Part<'_>> = parts.iter().filter(many).collect();
    pivots.sort_by_key(|part| std::cmp::Reverse(part.tries.len()));
    pivots.truncate(PIVOTS_MAX);
    let clients = pivots.into_iter().find_map(|pivot| {
        let alike = parts.iter().filter(many).filter(|part| is_alike(pivot, part));
        let clients: BTreeSet<Addr> = alike.map(|part| part.client).collect();
        (clients.len() >= decoys_min).then_some(clients)
    })?;
    Some(parts.extract_if(.., |part| clients.contains(&part.client)).collect())
}

/// Whether two sources tried nearly the same ports of a host within the same minutes.
fn is_alike(one: &Part<'_>, other: &Part<'_>) -> bool {
    let start = |part: &Part<'_>| part.tries.iter().map(|attempt| attempt.start.0).min();
    let last = |part: &Part<'_>| part.tries.iter().map(|attempt| attempt.pane.0).max();
    let is_near = |one: Option<i64>, other: Option<i64>, limit: u64| {
        one.zip(other).is_some_and(|(one, other)| one.abs_diff(other) <= limit)
    };
    if !is_near(start(one), start(other), 60) || !is_near(last(one), last(other), 1) {
        return false;
    }
    let ports: BTreeSet<u16> = one.tries.iter().map(|attempt| attempt.port).collect();
    let common = other.tries.iter().filter(|attempt| ports.contains(&attempt.port)).count();
    let all = one.tries.len() + other.tries.len() - common;
    common * 5 >= all * 4
}

impl Trip<'_> {
    fn tries(&self) -> impl Iterator<Item = &Try> {
        self.parts.iter().flat_map(|part| part.tries.iter().copied())
    }

    /// Whether a contact of the pane is part of it.
    fn has(&self, tried: &Tried) -> bool {
        tried.protocol == self.protocol
            && (self.server == ANY_SERVER || self.server == tried.server)
            && (self.port == 0 || self.port == tried.port)
            && self.parts.binary_search_by_key(&tried.client, |part| part.client).is_ok()
    }

    fn title(&self, hosts: usize, window_seconds: u32) -> String {
        let sources = self.parts.len();
        let protocol = if self.protocol == UDP { "UDP" } else { "TCP" };
        let within = spelled(window_seconds);
        match self.variant {
            Variant::Vertical => format!(
                "{sources} sources together tried {} {protocol} ports of {} within {within}",
                self.size, self.server
            ),
            Variant::Decoy => format!(
                "{sources} sources, all but one perhaps made up, tried the same {} {protocol} ports of {}",
                self.size, self.server
            ),
            Variant::Horizontal => format!(
                "{sources} sources together tried {protocol} port {} on {hosts} hosts within {within}",
                self.port
            ),
        }
    }
}

/// The finding of a scan, if it is to be told now.
fn report(
    trip: &Trip<'_>,
    episodes: &mut Episodes<EpisodeKey>,
    settings: &DistributedScanSettings,
    view: &PaneView<'_>,
    is_exact: bool,
) -> Option<Finding> {
    let contacts: Vec<&Tried> = trip
        .parts
        .iter()
        .flat_map(|part| of_client(view, part.client))
        .filter(|tried| tried.outcome.is_failed() && trip.has(tried))
        .take(CONTEXT_CONTACTS_MAX)
        .collect();
    let last_seen = contacts.iter().map(|tried| tried.last_end).max()?;
    let first_seen = trip.tries().map(|attempt| attempt.start).min().unwrap_or(last_seen);
    let sighting = Sighting { first_seen, last_seen, size: trip.size };
    let key = ((trip.server, trip.protocol), (trip.port, trip.variant.number()));
    let report = episodes.note(key, sighting)?;
    let draft = || {
        let hosts: BTreeSet<Addr> = trip.tries().map(|attempt| attempt.server).collect();
        let ports: BTreeSet<u16> = trip.tries().map(|attempt| attempt.port).collect();
        let rejected = trip.tries().filter(|attempt| attempt.is_rejected).count() as u64;
        let attempts = trip.tries().count() as u64;
        let most = trip.parts.iter().map(|part| part.tries.len()).max().unwrap_or(0) as u64;
        let variant = u16::from(trip.variant.number());
        Draft {
            severity: if rejected < attempts { Severity::Medium } else { Severity::Low },
            confidence: confidence(trip.size.max(trip.threshold.into()), trip.threshold.into()),
            title: trip.title(hosts.len(), settings.window_seconds),
            actor: trip.server,
            identity: (Vec::new(), vec![u16::from(trip.protocol), trip.port, variant]),
            evidence: BTreeMap::from([
                ("variant", Evidence::Word(trip.variant.name())),
                ("distinct_sources", Evidence::Count(trip.parts.len() as u64)),
                ("distinct_ports", Evidence::Count(ports.len() as u64)),
                ("distinct_hosts", Evidence::Count(hosts.len() as u64)),
                ("attempts", Evidence::Count(attempts)),
                ("rejected", Evidence::Count(rejected)),
                ("attempts_per_source_max", Evidence::Count(most)),
            ]),
            targets: hosts.into_iter().collect(),
            ports: ports.into_iter().collect(),
            last_seen,
            window_seconds: settings.window_seconds,
            context: view.context(contacts.iter().copied()),
            exact: is_exact,
        }
    };
    let mut finding = finding(FindingKind::DistributedScan, report, view, draft);
    if !finding.is_counted() {
        let clients = trip.parts.iter().map(|part| part.client).take(LISTED_MAX);
        finding.actor = Party { addrs: clients.collect(), ports: Vec::new() };
    }
    Some(finding)
}

/// The contacts of a client in a pane.
fn of_client<'a>(view: &PaneView<'a>, client: Addr) -> &'a [Tried] {
    let from = view.tried.partition_point(|tried| tried.client < client);
    let count = view.tried[from..].partition_point(|tried| tried.client == client);
    &view.tried[from..from + count]
}

/// Whether it failed as scans do: from outside, and not like a late answer of a service to its client.
fn is_of_shared_scans(view: &PaneView<'_>, tried: &Tried) -> bool {
    tried.outcome.is_failed()
        && matches!(tried.protocol, TCP | UDP)
        && view.network.is_inside(tried.server)
        && !view.network.is_inside(tried.client)
        && !view.network.is_exempt_actor(tried.client)
        && (tried.port < EPHEMERAL_PORT_MIN
            || view.contact(tried).client_ports().iter().any(|port| *port >= EPHEMERAL_PORT_MIN))
}

impl Detector for DistributedScan {
    fn name(&self) -> &'static str {
        "distributed_scan"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
    }

    /// All the work is done here, so that the detectors of single scanners know which ones to leave out.
    fn prepare(&mut self, view: &PaneView<'_>, known: &mut Known) {
        let now = view.index();
        let expired = view.before_window(self.settings.window_seconds);
        self.new.clear();
        self.new.extend(view.tried.iter().filter(|tried| is_of_shared_scans(view, tried)).map(
            |tried| Try {
                client: tried.client,
                server: tried.server,
                start: tried.first_start,
                pane: now,
                port: tried.port,
                protocol: tried.protocol,
                is_rejected: tried.rejected > 0,
            },
        ));
        let has_refused = self.tries.admit(&mut self.new);
        if self.tries.add(&self.new, expired) || has_refused {
            self.inexact_until = view.after_window(expired);
        }
        if !self.new.is_empty() {
            let Self { settings, tries, episodes, found, .. } = self;
            let is_exact = now > self.inexact_until;
            for trip in trips(settings, tries, now) {
                let Trip { server, protocol, port, .. } = trip;
                let shared =
                    |part: &Part<'_>| SharedScan { client: part.client, server, protocol, port };
                known.shared_scans.extend(trip.parts.iter().map(shared));
                found.extend(report(&trip, episodes, settings, view, is_exact));
            }
            found.sort_by(|one, other| one.actor.addrs.cmp(&other.actor.addrs));
        }
        self.episodes.end_pane(now.end(view.pane_seconds));
    }

    fn on_pane(&mut self, _view: &PaneView<'_>, out: &mut Vec<Finding>) {
        out.append(&mut self.found);
    }

    fn evictions(&self) -> u64 {
        self.tries.evictions() + self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.tries.bytes() + self.episodes.bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.new.capacity() * size_of::<Try>()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        self.tries.save(out);
        self.episodes.save(out);
        out.i64(self.inexact_until.0);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("distributed scans", 1..=1)?;
        let tries = self.tries.load(from)?;
        let episodes = self.episodes.load(from)?;
        self.inexact_until = PaneIndex(from.i64()?);
        self.tries = tries;
        self.episodes = episodes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scenarios::{check, host, rejected, syn};
    use super::*;
    use crate::aggregate::ContactRow;
    use crate::finding::Status;
    use crate::units::UnixSeconds;

    fn source(number: u32) -> Addr {
        Addr::v4(0x0900_0000 + number)
    }

    fn probe(at: i64, number: u32, server: Addr, port: u16) -> ContactRow<'static> {
        ContactRow { src: source(number), ..rejected(syn(at, "203.0.113.9", server, port)) }
    }

    /// Each of so many sources tries as many ports of its own of one host.
    fn vertical(sources: u32, each: u16) -> Vec<ContactRow<'static>> {
        let ports = |number: u32| (0..each).map(move |port| (number, port));
        let probe = |(number, port): (u32, u16)| {
            let first = 7000 + u16::try_from(number).unwrap() * each;
            probe(i64::from(port), number, host(5), first + port)
        };
        (0..sources).flat_map(ports).map(probe).collect()
    }

    /// Each of so many sources tries one port of as many hosts of its own.
    fn horizontal(sources: u32, each: u16) -> Vec<ContactRow<'static>> {
        let hosts = |number: u32| (0..each).map(move |place| (number, place));
        let probe = |(number, place): (u32, u16)| {
            let first = u16::try_from(number).unwrap() * each;
            probe(i64::from(place) * 4, number, host(first + place), 445)
        };
        (0..sources).flat_map(hosts).map(probe).collect()
    }

    #[test]
    fn shared_ports_of_a_host_are_one_finding() {
        check(&vertical(6, 9), &[]);
        check(&vertical(6, 10), &[("distributed_scan", "vertical", Status::Open)]);
        // Five sources are those that they are.
        check(&vertical(5, 12), &[("port_scan", "fast", Status::Open); 5]);
        check(&vertical(80, 1), &[]);
    }

    #[test]
    fn shared_hosts_of_a_port_are_one_finding() {
        check(&horizontal(8, 4), &[("distributed_scan", "horizontal", Status::Open)]);
        check(&horizontal(8, 14), &[("distributed_scan", "horizontal", Status::Open)]);
        check(&horizontal(7, 5), &[]);
        check(&horizontal(60, 1), &[]);
    }

    #[test]
    fn a_scan_amid_decoys_is_one_finding() {
        let scan =
            |number: u32, at: i64| (0..20).map(move |port| probe(at, number, host(5), 7000 + port));
        let together: Vec<_> = (0..4).flat_map(|number| scan(number, 10)).collect();
        check(&together, &[("distributed_scan", "decoy", Status::Open)]);
        let apart: Vec<_> =
            (0..4).flat_map(|number| scan(number, i64::from(number) * 300)).collect();
        check(&apart, &[("port_scan", "fast", Status::Open); 4]);
    }

    #[test]
    fn late_answers_of_services_are_no_scan() {
        let rows: Vec<_> = vertical(8, 10)
            .into_iter()
            .map(|row| ContactRow {
                src_port: 9000,
                dst_port: row.dst_port + 33_000,
                tcp_flags: None,
                ..row
            })
            .collect();
        check(&rows, &[]);
    }

    type Seen = BTreeMap<(u32, u16, u16), i64>;

    /// Who shares what, by walking through lists; `of` says what belongs together and what is counted.
    fn plainly(
        seen: &Seen,
        (size_min, sources_min, each_max): (usize, usize, usize),
        of: fn(&(u32, u16, u16)) -> (u16, u16),
        now: i64,
    ) -> Vec<(u16, Vec<u32>)> {
        let groups: BTreeSet<u16> = seen.keys().map(|key| of(key).0).collect();
        let mut found = Vec::new();
        for group in groups {
            let of_group: Vec<_> = seen.iter().filter(|(key, _)| of(key).0 == group).collect();
            let mut sources: BTreeSet<u32> = of_group.iter().map(|(key, _)| key.0).collect();
            let tries =
                |source: u32| of_group.iter().filter(move |(key, _)| key.0 == source).count();
            sources.retain(|source| tries(*source) > 1);
            let is_touched =
                of_group.iter().any(|(key, pane)| sources.contains(&key.0) && **pane == now);
            loop {
                let mine = of_group.iter().filter(|(key, _)| sources.contains(&key.0));
                let size = mine.map(|(key, _)| of(key).1).collect::<BTreeSet<u16>>().len();
                let large: Vec<u32> = sources
                    .iter()
                    .copied()
                    .filter(|source| tries(*source) > each_max.max(size / 3))
                    .collect();
                if large.is_empty() {
                    if is_touched && size >= size_min && sources.len() >= sources_min {
                        found.push((group, sources.into_iter().collect()));
                    }
                    break;
                }
                large.iter().for_each(|source| {
                    sources.remove(source);
                });
            }
        }
        found
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn lists_say_the_same(
            panes in prop::collection::vec(
                prop::collection::btree_set((0_u32..6, 0_u16..4, 0_u16..8), 0..50), 1..8),
        ) {
            const WINDOW_PANES: i64 = 3;
            let settings = DistributedScanSettings {
                ports_min: 5,
                port_sources_min: 2,
                ports_per_source_max: 3,
                hosts_min: 3,
                host_sources_min: 2,
                hosts_per_source_max: 2,
                decoys_min: 65_536,
                ..DistributedScanSettings::default()
            };
            let mut tries = RecentTries::new(usize::MAX);
            let mut seen = Seen::new();
            for (now, new) in (0_i64..).zip(&panes) {
                let attempt = |(client, server, port): &(u32, u16, u16)| Try {
                    client: source(*client),
                    server: host(*server),
                    start: UnixSeconds(now * 60),
                    pane: PaneIndex(now),
                    port: *port,
                    protocol: TCP,
                    is_rejected: true,
                };
                let attempts: Vec<Try> = new.iter().map(attempt).collect();
                tries.add(&attempts, PaneIndex(now - WINDOW_PANES));
                seen.retain(|_, pane| *pane > now - WINDOW_PANES);
                seen.extend(new.iter().map(|key| (*key, now)));
                let mut found: Vec<(bool, Addr, u16, Vec<Addr>)> = trips(&settings, &tries, PaneIndex(now))
                    .iter()
                    .map(|trip| {
                        let clients = trip.parts.iter().map(|part| part.client).collect();
                        (trip.variant == Variant::Horizontal, trip.server, trip.port, clients)
                    })
                    .collect();
                found.sort();
                let clients = |numbers: Vec<u32>| numbers.into_iter().map(source).collect();
                let hosts = plainly(&seen, (5, 2, 3), |key| (key.1, key.2), now);
                let ports = plainly(&seen, (3, 2, 2), |key| (key.2, key.1), now);
                let mut expected: Vec<(bool, Addr, u16, Vec<Addr>)> = hosts
                    .into_iter()
                    .map(|(server, numbers)| (false, host(server), 0, clients(numbers)))
                    .chain(ports.into_iter().map(|(port, numbers)| (true, ANY_SERVER, port, clients(numbers))))
                    .collect();
                expected.sort();
                prop_assert_eq!(found, expected);
            }
        }
    }
}
