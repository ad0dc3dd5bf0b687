//! Floods: so much is sent to one host that it can't serve others.
//!
//! What a contact sends to its target is put into groups: short flows to one port (SYN floods, UDP floods
//! with changing source ports), pings, answers that nobody asked for (reflection), and per host the one-way
//! volume and the flows from outside. A group that is fast enough within a pane is a flood, whoever the
//! sources are: they may be one, many, or made up.
//!
//! Nearly no pane has a flood, so contacts are first only added to the cells of a small sketch by their target;
//! exact counts are made for targets in cells that are high, and nothing is remembered but open episodes.

use std::collections::BTreeMap;

use hashbrown::HashMap;
use serde::Deserialize;

use super::detector::{Detector, Met};
use super::episode::{Episodes, Report, Sighting};
use super::flood_group::{Group, Load, Toward, Way, is_one_way};
use super::network::Network;
use super::outcome::{ICMP, ICMP_V6, TCP, UDP};
use super::pane::{Detail, PaneView};
use super::report::{Draft, confidence, finding};
use super::settings::{SettingsError, check_range};
use crate::aggregate::ContactKey;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Party, Severity};
use crate::net::Addr;

/// Rates are measured over at least so many seconds, so that a burst is none, and over longer ones if the flows
/// took longer.
const RATE_SECONDS_MIN: i64 = 20;

/// How long a target has to be left alone before the next flood is another one.
const QUIET_SECONDS: u32 = 3600;

/// A source of at least one in so many counts by itself.
const HEAVY_SHARE: u64 = 20;

/// The longest packet, in bytes: what few packets could be many bytes.
const PACKET_BYTES_MAX: u64 = 9001;

/// Contacts that a finding's context is taken from.
const CONTEXT_CONTACTS_MAX: usize = 1000;

/// Cells of the sketch: together they fit a second level cache.
const CELL_BITS: u32 = 13;

/// `[detectors.dos_flood]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DosFloodSettings {
    /// Whether to look for floods.
    pub enabled: bool,
    /// Flows of at most two packets to one port of a host, or packets that answer nothing, per second, 1 to
    /// 1000000.
    pub flows_per_second_min: u32,
    /// ICMP packets to a host per second, 1 to 100000000.
    pub icmp_packets_per_second_min: u32,
    /// Flows from outside to a host per second, whatever becomes of them, 1 to 100000000.
    pub flows_per_second_max: u32,
    /// One-way packets to a host per second, 1 to 1000000000.
    pub packets_per_second_max: u32,
    /// One-way megabits to a host per second, 1 to 10000000.
    pub megabits_per_second_max: u32,
    /// Floods remembered at once, 1000 to 1000000000; one takes about 150 bytes.
    pub tracked_max: u32,
}

impl Default for DosFloodSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            flows_per_second_min: 50,
            icmp_packets_per_second_min: 100,
            flows_per_second_max: 3500,
            packets_per_second_max: 20_000,
            megabits_per_second_max: 1000,
            tracked_max: 100_000,
        }
    }
}

impl DosFloodSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        check_range(
            "flows_per_second_min",
            self.flows_per_second_min,
            1..=1_000_000,
            usual.flows_per_second_min,
        )?;
        check_range(
            "icmp_packets_per_second_min",
            self.icmp_packets_per_second_min,
            1..=100_000_000,
            usual.icmp_packets_per_second_min,
        )?;
        check_range(
            "flows_per_second_max",
            self.flows_per_second_max,
            1..=100_000_000,
            usual.flows_per_second_max,
        )?;
        check_range(
            "packets_per_second_max",
            self.packets_per_second_max,
            1..=1_000_000_000,
            usual.packets_per_second_max,
        )?;
        check_range(
            "megabits_per_second_max",
            self.megabits_per_second_max,
            1..=10_000_000,
            usual.megabits_per_second_max,
        )?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }

    /// Bytes per second.
    const fn bytes_per_second_max(&self) -> u64 {
        self.megabits_per_second_max as u64 * 125_000
    }

    /// How fast a group must be to be a flood: its weight per second.
    fn rate_min(&self, group: &Group, network: &Network, load: &Load) -> u64 {
        let rate = match group.way {
            Way::Ping => self.icmp_packets_per_second_min,
            Way::Flows => self.flows_per_second_max,
            Way::Volume => self.packets_per_second_max,
            // Metrics and logs are sent to own hosts in flows that nobody answers.
            Way::Opened
                if group.protocol != TCP
                    && network.is_inside(group.target)
                    && network.is_inside(load.heaviest.1) =>
            {
                self.flows_per_second_max.max(self.flows_per_second_min)
            }
            Way::Opened | Way::Reflected => self.flows_per_second_min,
        };
        rate.into()
    }
}

/// What all contacts send to the targets of a cell.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    /// Short TCP flows; packets of other protocols that few answers came to; packets that answer nothing.
    short: u32,
    flows: u32,
    /// One-way packets.
    packets: u64,
}

impl Cell {
    fn add(&mut self, short: u64, flows: u32, packets: u64) {
        let short = u32::try_from(short).unwrap_or(u32::MAX);
        self.short = self.short.saturating_add(short);
        self.flows = self.flows.saturating_add(flows);
        self.packets = self.packets.saturating_add(packets);
    }
}

/// A flood within a pane.
#[derive(Debug)]
struct Flood {
    group: Group,
    load: Load,
    /// Lower bound of the rate that it is over.
    rate_min: u64,
    /// Every port that is flooded in this way.
    ports: Vec<u16>,
    /// Sources that send a good part, in order.
    heavy: Vec<Addr>,
    /// What those send together.
    heavy_weight: u64,
    /// Some of its contacts: what says which one it is, and its number.
    contacts: Vec<((Addr, u16, u8), u32)>,
}

impl Flood {
    /// Keeps the contacts of the lowest sources, whatever order they come in.
    fn note_contact(&mut self, which: (Addr, u16, u8), number: u32) {
        self.contacts.push((which, number));
        if self.contacts.len() >= 2 * CONTEXT_CONTACTS_MAX {
            self.trim_contacts();
        }
    }

    fn trim_contacts(&mut self) {
        self.contacts.sort_unstable_by_key(|(which, _)| *which);
        self.contacts.truncate(CONTEXT_CONTACTS_MAX);
    }
}

/// Target, protocol and way: what makes an episode.
type EpisodeKey = (Addr, (u8, u8));

/// The detector's memory.
#[derive(Debug)]
pub(super) struct DosFlood {
    settings: DosFloodSettings,
    cells: Vec<Cell>,
    episodes: Episodes<EpisodeKey>,
}

impl DosFlood {
    /// A detector without memory, whose table takes at most `bytes_max`.
    pub(super) fn new(settings: DosFloodSettings, bytes_max: usize) -> Self {
        let open_max = bytes_max / Episodes::<EpisodeKey>::entry_bytes();
        let open_max = open_max.min(settings.tracked_max as usize);
        Self { cells: Vec::new(), episodes: Episodes::new(QUIET_SECONDS, open_max), settings }
    }

    /// Whether the targets of a cell may be flooded in a pane.
    fn is_high(&self, cell: Cell, rate_seconds: u64) -> bool {
        let settings = &self.settings;
        let least = |rate: u32| u64::from(rate) * rate_seconds;
        let short_min = settings.flows_per_second_min.min(settings.icmp_packets_per_second_min);
        let packets_min = u64::from(settings.packets_per_second_max)
            .min(settings.bytes_per_second_max() / PACKET_BYTES_MAX);
        u64::from(cell.short) >= least(short_min)
            || u64::from(cell.flows) >= least(settings.flows_per_second_max)
            || cell.packets >= packets_min * rate_seconds
    }

    /// The floods of a pane whose targets are in `is_high` cells.
    fn floods(&self, view: &PaneView<'_>, is_high: &[bool], rate_seconds: i64) -> Vec<Flood> {
        let network = view.network;
        let mut groups: HashMap<Group, Load, foldhash::fast::FixedState> = HashMap::default();
        walk(view, is_high, |_, toward| {
            for (group, part) in toward.parts(network) {
                groups.entry(group).or_default().add(toward, part);
            }
        });
        let over = |(group, load): (Group, Load)| {
            let rate_min = self.settings.rate_min(&group, network, &load);
            let seconds = load.seconds(rate_seconds);
            let is_over = load.weight >= rate_min.saturating_mul(seconds)
                || (group.way == Way::Volume
                    && load.bytes >= self.settings.bytes_per_second_max().saturating_mul(seconds));
            (is_over && load.is_mostly_short()).then_some((group, load, rate_min))
        };
        let mut over: Vec<_> = groups.into_iter().filter_map(over).collect();
        over.sort_unstable_by_key(|(group, load, _)| (group.episode(), !load.weight, group.port));
        let mut floods: Vec<Flood> = Vec::new();
        for (group, load, rate_min) in over {
            match floods.last_mut() {
                Some(flood) if flood.group.episode() == group.episode() => {
                    flood.ports.push(group.port);
                }
                // The volume says no more than the ways in which it came.
                Some(flood) if flood.group.target == group.target && group.way.is_total() => {}
                _ => floods.push(Flood {
                    ports: vec![group.port],
                    group,
                    load,
                    rate_min,
                    heavy: Vec::new(),
                    heavy_weight: 0,
                    contacts: Vec::new(),
                }),
            }
        }
        find_sources(view, is_high, &mut floods);
        floods.retain(|flood| !is_provoked(view, flood));
        floods
    }

    fn report(&mut self, flood: &Flood, view: &PaneView<'_>) -> Option<Finding> {
        let Flood { group, load, .. } = flood;
        let sighting =
            Sighting { first_seen: load.first_start, last_seen: load.last_end, size: load.weight };
        let report = self.episodes.note(group.episode(), sighting)?;
        Some(flood_finding(flood, report, view))
    }
}

impl Detector for DosFlood {
    fn name(&self) -> &'static str {
        "dos_flood"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn watches(&self) -> bool {
        true
    }

    fn watch(&mut self, contacts: &[Met], _network: &Network) {
        if self.cells.is_empty() {
            self.cells.resize(1 << CELL_BITS, Cell::default());
        }
        for Met { key, forward, back, .. } in contacts {
            let (forward, back) = (&forward.0, &back.0);
            if matches!(key.protocol, ICMP | ICMP_V6) {
                self.cells[cell_of(key.server)].add(forward.packets, 0, forward.packets);
                self.cells[cell_of(key.client)].add(back.packets, 0, back.packets);
            } else if forward.flows > 0 {
                let short = if key.protocol != TCP {
                    if back.packets < forward.packets.div_ceil(2) { forward.packets } else { 0 }
                } else if forward.packets <= 2 * u64::from(forward.flows) {
                    forward.flows.into()
                } else {
                    0
                };
                let packets = if is_one_way(forward, back) { forward.packets } else { 0 };
                self.cells[cell_of(key.server)].add(short, forward.flows, packets);
                if is_one_way(back, forward) {
                    self.cells[cell_of(key.client)].add(0, 0, back.packets);
                }
            } else {
                self.cells[cell_of(key.client)].add(back.packets, 0, back.packets);
            }
        }
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let rate_seconds = RATE_SECONDS_MIN.min(view.pane_seconds);
        let least = rate_seconds.unsigned_abs();
        if self.cells.iter().any(|cell| self.is_high(*cell, least)) {
            let is_high: Vec<bool> =
                self.cells.iter().map(|cell| self.is_high(*cell, least)).collect();
            let floods = self.floods(view, &is_high, rate_seconds);
            let mut found: Vec<_> =
                floods.iter().filter_map(|flood| self.report(flood, view)).collect();
            // Floods are in the order of targets, which stays where the actors are the same.
            found.sort_by(|one, other| one.actor.addrs.cmp(&other.actor.addrs));
            out.append(&mut found);
        }
        self.cells.fill(Cell::default());
        self.episodes.end_pane(view.index().end(view.pane_seconds));
    }

    fn evictions(&self) -> u64 {
        self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.episodes.bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Cell>()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        self.episodes.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("floods", 1..=1)?;
        self.episodes = self.episodes.load(from)?;
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a hash, of which the upper bits are kept")]
const fn cell_of(addr: Addr) -> usize {
    let bits = addr.bits();
    let folded = bits as u64 ^ (bits >> 64) as u64;
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - CELL_BITS)) as usize
}

/// Shows what was sent to targets in high cells by sources that are judged, with the numbers of contacts.
fn walk(view: &PaneView<'_>, is_high: &[bool], mut see: impl FnMut(u32, &Toward)) {
    let network = view.network;
    let is_candidate =
        |key: &ContactKey| is_high[cell_of(key.server)] || is_high[cell_of(key.client)];
    for (first_number, shard) in view.pane.shards() {
        for (number, key, contact) in shard.contacts.iter() {
            if !is_candidate(&key) {
                continue;
            }
            let is_own = network.is_inside(key.client) || network.is_inside(key.server);
            for toward in Toward::of(&key, contact, network).into_iter().flatten() {
                if is_own
                    && is_high[cell_of(toward.target)]
                    && !network.is_exempt_actor(toward.source)
                {
                    see(first_number + number, &toward);
                }
            }
        }
    }
}

/// Finds who sends a good part of each flood.
fn find_sources(view: &PaneView<'_>, is_high: &[bool], floods: &mut [Flood]) {
    if floods.is_empty() {
        return;
    }
    walk(view, is_high, |number, toward| {
        for (group, part) in toward.parts(view.network) {
            let episode = group.episode();
            let Ok(at) = floods.binary_search_by_key(&episode, |flood| flood.group.episode())
            else {
                continue;
            };
            let flood = &mut floods[at];
            if flood.group != group || part.weight == 0 {
                continue;
            }
            if part.weight >= flood.load.weight.div_ceil(HEAVY_SHARE) {
                flood.heavy.push(toward.source);
                flood.heavy_weight += part.weight;
            }
            flood.note_contact(toward.which(), number);
        }
    });
    for flood in floods {
        flood.trim_contacts();
        flood.heavy.sort_unstable();
        flood.heavy.dedup();
        flood.ports.sort_unstable();
        flood.ports.retain(|port| *port != 0);
    }
}

/// Whether the target called for it: ICMP errors answer packets of another protocol.
fn is_provoked(view: &PaneView<'_>, flood: &Flood) -> bool {
    let Flood { group, load, heavy, .. } = flood;
    if group.way != Way::Ping {
        return false;
    }
    let mut called = 0;
    for (_, shard) in view.pane.shards() {
        for (_, key, contact) in shard.contacts.iter() {
            let by = if key.client == group.target && heavy.contains(&key.server) {
                contact.forward().0
            } else if key.server == group.target && heavy.contains(&key.client) {
                contact.back().0
            } else {
                continue;
            };
            if !matches!(key.protocol, ICMP | ICMP_V6) {
                called += by.packets;
            }
        }
    }
    // Those packets may have come in earlier panes than the last error.
    called >= load.weight / 10
}

fn flood_finding(flood: &Flood, report: Report, view: &PaneView<'_>) -> Finding {
    let Flood { group, load, rate_min, .. } = flood;
    let are_known = flood.heavy_weight >= load.weight.div_ceil(2);
    let seconds = load.seconds(RATE_SECONDS_MIN.min(view.pane_seconds)).max(1);
    let rate = load.weight / seconds;
    let is_rejected = load.flows > 0 && load.rejected >= load.flows;
    let draft = || Draft {
        severity: if is_rejected { Severity::Medium } else { Severity::High },
        confidence: confidence(rate.max(*rate_min), *rate_min),
        title: title(flood, are_known, rate),
        // The target is what makes the identity; sources may change, or be made up.
        actor: group.target,
        identity: (Vec::new(), vec![group.protocol.into(), group.way.number().into()]),
        targets: vec![group.target],
        ports: flood.ports.clone(),
        last_seen: load.last_end,
        window_seconds: u32::try_from(view.pane_seconds).unwrap_or(u32::MAX),
        evidence: BTreeMap::from([
            ("variant", Evidence::Word(group.variant(load))),
            ("flows", Evidence::Count(load.flows)),
            ("packets", Evidence::Count(load.packets)),
            ("bytes", Evidence::Count(load.bytes)),
            ("rejected", Evidence::Count(load.rejected)),
            ("distinct_sources", Evidence::Count(load.sources)),
            ("largest_source", Evidence::Text(load.heaviest.1.to_string())),
            ("largest_source_percent", Evidence::Count(load.heaviest.0 * 100 / load.weight.max(1))),
            (group.way.rate_name(), Evidence::Count(rate)),
            ("threshold_per_second", Evidence::Count(*rate_min)),
        ]),
        context: view.context_of(flood.contacts.iter().map(|(_, number)| *number)),
        exact: true,
    };
    let mut finding = finding(FindingKind::DosFlood, report, view, draft);
    if view.detail == Detail::Full {
        let addrs = if are_known { flood.heavy.clone() } else { Vec::new() };
        finding.actor = Party { addrs, ports: Vec::new() };
    }
    finding
}

fn title(flood: &Flood, are_known: bool, rate: u64) -> String {
    let Flood { group, load, .. } = flood;
    let who = match (&flood.heavy[..], are_known) {
        ([source], true) => source.to_string(),
        (sources, true) => format!("{} sources", sources.len()),
        (_, false) => format!("{} sources", load.sources),
    };
    let target = group.target;
    let protocol = match group.protocol {
        TCP => "TCP",
        UDP => "UDP",
        _ => "other",
    };
    match group.way {
        Way::Opened => format!(
            "{who} flooded {target} port {} with {} short {protocol} flows, {rate} a second",
            group.port, load.weight
        ),
        Way::Ping => {
            format!("{who} flooded {target} with {} ICMP packets, {rate} a second", load.weight)
        }
        Way::Reflected => format!(
            "{who} flooded {target} with {} {protocol} answers from port {} that it had not asked \
             for, {rate} a second",
            load.weight, group.port
        ),
        Way::Volume => format!(
            "{who} flooded {target} with {} one-way packets of {} bytes in all, {rate} a second",
            load.packets, load.bytes
        ),
        Way::Flows => {
            format!(
                "{who} flooded {target} with {} flows from outside, {rate} a second",
                load.flows
            )
        }
    }
}
