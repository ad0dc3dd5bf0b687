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
use super::pane::PaneView;
use super::report::{CONTEXT_CONTACTS_MAX, Draft, confidence, finding};
use super::settings::{SettingsError, check_range};
use crate::aggregate::ContactKey;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Party, Severity};
use crate::net::Addr;

/// Rates are measured over at least so many seconds, so that a burst is none, and over longer ones if the flows
/// took longer.
const RATE_SECONDS_MIN: i64 = 20;

/// Own hosts that call a service in vain are many more than those that attack it.
const OUTBOUND_FACTOR: u64 = 3;

/// Metrics and logs go to own hosts in flows that nobody answers.
const INSIDE_UDP_FACTOR: u64 = 10;

/// How long a target has to be left alone before the next flood is another one.
const QUIET_SECONDS: u32 = 3600;

/// A source of at least one in so many counts by itself.
const HEAVY_SHARE: u64 = 20;

/// The longest packet, in bytes: what few packets could be many bytes.
const PACKET_BYTES_MAX: u64 = 9001;

/// Cells of the sketch: half a megabyte, which a second level cache holds. A pane of half a million contacts then has a
/// score in each, far below what makes a flood.
const CELL_BITS: u32 = 15;

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
            icmp_packets_per_second_min: 200,
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
        let rate = u64::from(match group.way {
            Way::Ping => self.icmp_packets_per_second_min,
            Way::Flows => self.flows_per_second_max,
            Way::Volume => self.packets_per_second_max,
            Way::Opened | Way::Reflected => self.flows_per_second_min,
        });
        let is_inside = |addr| network.is_inside(addr);
        match (group.way, group.protocol) {
            (Way::Opened, _) if !is_inside(group.target) => rate * OUTBOUND_FACTOR,
            (Way::Opened, UDP) if is_inside(load.heaviest.1) => rate * INSIDE_UDP_FACTOR,
            _ => rate,
        }
    }
}

/// What all contacts send to the targets of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cell {
    /// Packets of short TCP flows, of other protocols that few answers came to, and of answers to nothing.
    short: u32,
    flows: u32,
    /// One-way packets.
    packets: u64,
}

impl Cell {
    fn add(&mut self, more: Self) {
        self.short = self.short.saturating_add(more.short);
        self.flows = self.flows.saturating_add(more.flows);
        self.packets = self.packets.saturating_add(more.packets);
    }

    fn max(self, other: Self) -> Self {
        Self {
            short: self.short.max(other.short),
            flows: self.flows.max(other.flows),
            packets: self.packets.max(other.packets),
        }
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
    /// The most of any cell.
    highest: Cell,
    episodes: Episodes<EpisodeKey>,
}

impl DosFlood {
    /// A detector without memory, whose table takes at most `bytes_max`.
    pub(super) fn new(settings: DosFloodSettings, bytes_max: usize) -> Self {
        let open_max = bytes_max / Episodes::<EpisodeKey>::entry_bytes();
        let open_max = open_max.min(settings.tracked_max as usize);
        Self {
            cells: Vec::new(),
            highest: Cell::default(),
            episodes: Episodes::new(QUIET_SECONDS, open_max),
            settings,
        }
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
            (is_over && load.is_mostly_short() && load.has_sources(group.way))
                .then_some((group, load, rate_min))
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
        drop_provoked(view, &mut floods);
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

    fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
    }

    fn watches(&self) -> bool {
        true
    }

    fn watch(&mut self, contacts: &[Met], _network: &Network) {
        if self.cells.is_empty() {
            self.cells = vec![Cell::default(); 1 << CELL_BITS];
        }
        let mut add = |target: Addr, short: u64, flows: u32, packets: u64| {
            let cell = &mut self.cells[cell_of(target)];
            cell.add(Cell { short: u32::try_from(short).unwrap_or(u32::MAX), flows, packets });
            self.highest = self.highest.max(*cell);
        };
        for Met { key, forward, back, .. } in contacts {
            let (forward, back) = (&forward.0, &back.0);
            if matches!(key.protocol, ICMP | ICMP_V6) {
                add(key.server, forward.packets, 0, forward.packets);
                add(key.client, back.packets, 0, back.packets);
            } else if forward.flows > 0 {
                let is_short = if key.protocol == TCP {
                    forward.packets <= 2 * u64::from(forward.flows)
                } else {
                    back.packets < forward.packets.div_ceil(2)
                };
                // As many packets as flows at least, which is what the rate is made of.
                let short = if is_short { forward.packets.max(forward.flows.into()) } else { 0 };
                let packets = if is_one_way(forward, back) { forward.packets } else { 0 };
                add(key.server, short, forward.flows, packets);
                if is_one_way(back, forward) {
                    add(key.client, 0, 0, back.packets);
                }
            } else {
                add(key.client, back.packets, 0, back.packets);
            }
        }
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let rate_seconds = RATE_SECONDS_MIN.min(view.pane_seconds);
        let least = rate_seconds.unsigned_abs();
        if self.is_high(self.highest, least) {
            let is_high: Vec<bool> =
                self.cells.iter().map(|cell| self.is_high(*cell, least)).collect();
            let floods = self.floods(view, &is_high, rate_seconds);
            let mut found: Vec<_> =
                floods.iter().filter_map(|flood| self.report(flood, view)).collect();
            // Floods are in the order of targets, which stays where the actors are the same.
            found.sort_by(|one, other| one.actor.addrs.cmp(&other.actor.addrs));
            out.append(&mut found);
        }
        if self.highest != Cell::default() {
            self.cells.fill(Cell::default());
            self.highest = Cell::default();
        }
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
                flood.heavy_weight = flood.heavy_weight.saturating_add(part.weight);
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

/// Leaves out pings that their target called for: ICMP errors answer packets of another protocol. One walk over the
/// contacts serves all floods.
fn drop_provoked(view: &PaneView<'_>, floods: &mut Vec<Flood>) {
    let pings = floods.iter().enumerate().filter(|(_, flood)| flood.group.way == Way::Ping);
    let mut pings: Vec<(Addr, usize)> = pings.map(|(at, flood)| (flood.group.target, at)).collect();
    if pings.is_empty() {
        return;
    }
    pings.sort_unstable();
    let mut called = vec![0_u64; floods.len()];
    for (_, shard) in view.pane.shards() {
        for (_, key, contact) in shard.contacts.iter() {
            if matches!(key.protocol, ICMP | ICMP_V6) {
                continue;
            }
            for (target, source) in [(key.client, key.server), (key.server, key.client)] {
                let first = pings.partition_point(|(of, _)| *of < target);
                let of_target = pings[first..].iter().take_while(|(of, _)| *of == target);
                for (_, at) in of_target {
                    if floods[*at].heavy.binary_search(&source).is_ok() {
                        let by =
                            if target == key.client { contact.forward() } else { contact.back() };
                        called[*at] = called[*at].saturating_add(by.0.packets);
                    }
                }
            }
        }
    }
    // Those packets may have come in earlier panes than the last error.
    let mut called = called.into_iter();
    floods.retain(|flood| {
        let called = called.next().unwrap_or(0);
        flood.group.way != Way::Ping || called < flood.load.weight / 10
    });
}

fn flood_finding(flood: &Flood, report: Report, view: &PaneView<'_>) -> Finding {
    let Flood { group, load, rate_min, .. } = flood;
    let are_known = flood.heavy_weight >= load.weight.div_ceil(2);
    let seconds = load.seconds(RATE_SECONDS_MIN.min(view.pane_seconds)).max(1);
    let rate = load.weight / seconds;
    let is_rejected = load.flows > 0 && load.rejected >= load.flows;
    let percent = u128::from(load.heaviest.0) * 100 / u128::from(load.weight.max(1));
    let percent = u64::try_from(percent).unwrap_or(u64::MAX);
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
            ("largest_source_percent", Evidence::Count(percent)),
            (group.way.rate_name(), Evidence::Count(rate)),
            ("threshold_per_second", Evidence::Count(*rate_min)),
        ]),
        context: view.context_of(flood.contacts.iter().map(|(_, number)| *number)),
        exact: true,
    };
    let mut finding = finding(FindingKind::DosFlood, report, view, draft);
    if !finding.is_counted() {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::scenarios::{OUTSIDE, addr, findings, host, rejected, reply, syn};
    use super::*;
    use crate::aggregate::ContactRow;
    use crate::units::UnixSeconds;

    /// Variant, actors, target and ports of all floods.
    fn check(rows: &[ContactRow<'_>], expected: &[(&str, &[&str], Addr, &[u16])]) {
        let found: Vec<_> = floods(rows)
            .iter()
            .map(|finding| {
                let Some(Evidence::Word(variant)) = finding.evidence.get("variant") else {
                    panic!("no variant in {finding:?}")
                };
                let actors: Vec<_> = finding.actor.addrs.iter().map(Addr::to_string).collect();
                (*variant, actors, finding.target.addrs[0], finding.target.ports.clone())
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(variant, actors, target, ports)| {
                let actors: Vec<_> = actors.iter().map(|actor| (*actor).to_owned()).collect();
                (*variant, actors, *target, ports.to_vec())
            })
            .collect();
        assert_eq!(found, expected);
    }

    fn floods(rows: &[ContactRow<'_>]) -> Vec<Finding> {
        let mut found = findings(rows, 3);
        found.retain(|finding| finding.kind == FindingKind::DosFlood && finding.revision == 0);
        found
    }

    /// Flows like `row` of subsequent ports, spread over `seconds`.
    fn flows(
        count: u16,
        seconds: i64,
        row: ContactRow<'static>,
    ) -> impl Iterator<Item = ContactRow<'static>> + Clone {
        (0..count).map(move |number| {
            let later = i64::from(number) * seconds / i64::from(count);
            ContactRow {
                src_port: 2000 + number,
                start: row.start.saturating_add(later),
                end: row.end.saturating_add(later),
                ..row
            }
        })
    }

    fn udp(row: ContactRow<'static>) -> ContactRow<'static> {
        ContactRow { protocol: 17, bytes: 900, tcp_flags: None, ..row }
    }

    #[test]
    fn a_flood_begins_at_its_rate() {
        let flood = |count, seconds, flags| -> Vec<_> {
            let row = ContactRow { tcp_flags: flags, ..syn(0, OUTSIDE, host(5), 80) };
            flows(count, seconds, row).collect()
        };
        let syn_flood: &[(_, &[_], _, &[_])] = &[("syn", &[OUTSIDE], host(5), &[80])];
        check(&flood(999, 5, Some(2)), &[]);
        check(&flood(1000, 5, Some(2)), syn_flood);
        check(&flood(1000, 5, None), syn_flood);
        check(&flood(2800, 59, Some(2)), &[]);
        check(&flood(3000, 59, Some(2)), syn_flood);
        check(&flood(1000, 5, Some(1)), &[("tcp", &[OUTSIDE], host(5), &[80])]);
        let answered = flood(1000, 5, Some(2)).into_iter();
        let answered = answered.flat_map(|row| [row, reply(row, 0, 1, 44, 18)]);
        check(&answered.collect::<Vec<_>>(), syn_flood);
    }

    #[test]
    fn sessions_and_what_is_left_of_them_are_no_flood() {
        let sessions = |count| {
            let row = ContactRow { packets: 6, bytes: 900, ..syn(0, OUTSIDE, host(5), 80) };
            flows(count, 30, row).flat_map(|row| [row, reply(row, 0, 6, 9000, 19)])
        };
        check(&sessions(5000).collect::<Vec<_>>(), &[]);
        let end = ContactRow { tcp_flags: Some(1), ..syn(0, "203.0.113.10", host(5), 80) };
        check(&sessions(2000).chain(flows(3000, 30, end)).collect::<Vec<_>>(), &[]);
    }

    #[test]
    fn udp_is_a_flood_where_nobody_answers() {
        let row = udp(syn(0, OUTSIDE, host(5), 80));
        let flood: Vec<_> = flows(1200, 10, row).collect();
        check(&flood, &[("udp", &[OUTSIDE], host(5), &[80])]);
        let answered = flood.iter().flat_map(|row| [*row, reply(*row, 0, 1, 300, 0)]);
        check(&answered.collect::<Vec<_>>(), &[]);
        let metrics = udp(syn(0, "10.20.7.7", host(5), 8125));
        check(&flows(3000, 50, metrics).collect::<Vec<_>>(), &[]);
        // The target's errors are no flood of the source.
        let asked = ContactRow { src_port: 0, dst_port: 0, ..row };
        let error = ContactRow { protocol: 1, packets: 6000, ..reply(asked, 0, 1, 576, 0) };
        let with_error: Vec<_> = flows(6000, 10, row).chain([error]).collect();
        check(&with_error, &[("udp", &[OUTSIDE], host(5), &[80])]);
    }

    #[test]
    fn pings_and_answers_to_nothing() {
        let row = syn(0, OUTSIDE, host(5), 0);
        let ping = ContactRow { protocol: 1, src_port: 0, tcp_flags: None, packets: 4000, ..row };
        let ping = ContactRow { bytes: 84 * 4000, end: UnixSeconds(10), ..ping };
        let flood: &[(_, &[_], _, &[_])] = &[("icmp", &[OUTSIDE], host(5), &[])];
        check(&[ping], flood);
        check(&[ping, reply(ping, 0, 4000, 84 * 4000, 0)], flood);
        check(&[ContactRow { packets: 3900, ..ping }], &[]);
        let reflected: Vec<_> = (0..40_u8)
            .map(|number| ContactRow {
                src: Addr::v4(0xcb00_7180 + u32::from(number)),
                src_port: 53,
                packets: 30,
                bytes: 90_000,
                ..udp(syn(i64::from(number % 9), OUTSIDE, host(5), 40_000))
            })
            .collect();
        check(&reflected, &[("reflected", &[], host(5), &[53])]);
        check(&reflected[..30], &[]);
    }

    #[test]
    fn caps_hold_whatever_is_sent() {
        let row = ContactRow { end: UnixSeconds(40), ..udp(syn(0, OUTSIDE, host(5), 5000)) };
        let stream = |packets, bytes| ContactRow { packets, bytes, ..row };
        let capped: &[(_, &[_], _, &[_])] = &[("volume", &[OUTSIDE], host(5), &[])];
        check(&[stream(799_000, 1 << 30)], &[]);
        check(&[stream(800_000, 1 << 30)], capped);
        check(&[stream(700_000, 5_000_000_000)], capped);
        let copy = ContactRow { protocol: 6, ..stream(8_000_000, 8_000_000_000) };
        check(&[copy, reply(copy, 0, 200_000, 8_000_000, 16)], &[]);
    }

    #[test]
    fn many_sources_are_counted_and_not_blamed() {
        let from = |src, at| ContactRow { src: Addr::v4(src), ..syn(at, OUTSIDE, host(5), 443) };
        let spoofed = (0..1500_u32).map(|n| from(0x0900_0000 + n * 77, i64::from(n % 10)));
        check(&spoofed.collect::<Vec<_>>(), &[("syn", &[], host(5), &[443])]);
        let bots = (0..4_u32).flat_map(|bot| flows(400, 10, from(0xcb00_7110 + bot, 0)));
        let actors = ["203.0.113.16", "203.0.113.17", "203.0.113.18", "203.0.113.19"];
        check(&bots.collect::<Vec<_>>(), &[("syn", &actors, host(5), &[443])]);
    }

    #[test]
    fn own_hosts_attack_and_scanners_draw_resets() {
        let target = addr("198.51.100.7");
        let out = |count, src| -> Vec<_> { flows(count, 10, syn(0, src, target, 80)).collect() };
        check(&out(2900, "10.20.7.7"), &[]);
        check(&out(3000, "10.20.7.7"), &[("syn", &["10.20.7.7"], target, &[80])]);
        check(&out(4000, "10.20.0.100"), &[]);
        for tcp_flags in [Some(4), None] {
            let reset =
                ContactRow { src: host(5), dst: addr(OUTSIDE), ..syn(3, OUTSIDE, host(5), 0) };
            let reset = |port: u16| ContactRow {
                src_port: 50_000 + port,
                dst_port: 42_030,
                tcp_flags,
                ..reset
            };
            check(&(0..5000_u16).map(reset).collect::<Vec<_>>(), &[]);
        }
    }

    #[test]
    fn rejected_floods_matter_less() {
        let flood: Vec<_> = flows(1000, 5, rejected(syn(0, OUTSIDE, host(5), 80))).collect();
        let found = floods(&flood);
        assert_eq!(found[0].severity, Severity::Medium);
        assert!(found[0].exact);
        let title = "203.0.113.9 flooded 10.20.1.5 port 80 with 1000 short TCP flows, 50 a second";
        assert_eq!(found[0].title, title);
    }

    /// Flows of one source to a port of a target.
    #[derive(Clone, Copy, Debug)]
    struct Burst {
        row: ContactRow<'static>,
        count: u16,
        seconds: i64,
        is_answered: bool,
    }

    fn any_burst() -> impl Strategy<Value = Burst> {
        (0_u32..3, 0_u16..3, 0_u16..2, 1_u16..1500, 0_i64..50, 1_u64..5, any::<bool>()).prop_map(
            |(source, target, port, count, seconds, packets, is_answered)| {
                let row = ContactRow {
                    src: Addr::v4(0xcb00_7110 + source),
                    packets,
                    bytes: packets * 44,
                    ..syn(0, OUTSIDE, host(target), 80 + port)
                };
                Burst { row, count, seconds, is_answered }
            },
        )
    }

    /// Targets and ports to which short flows are sent fast enough, by walking through lists of rows of one
    /// minute, all of which the source opened.
    fn plainly_flooded(rows: &[ContactRow<'_>]) -> BTreeSet<(Addr, u16)> {
        let service_of = |row: &ContactRow<'_>| (row.dst, row.dst_port);
        let services: BTreeSet<_> = rows.iter().map(service_of).collect();
        let sources: BTreeSet<_> = rows.iter().map(|row| row.src).collect();
        let is_flooded = |service: &(Addr, u16)| {
            let of_service = || rows.iter().filter(|row| service_of(row) == *service);
            let is_short = |source: &Addr| {
                let of_source = || of_service().filter(|row| row.src == *source);
                let packets: u64 = of_source().map(|row| row.packets).sum();
                packets <= 2 * of_source().count() as u64
            };
            let short: BTreeSet<_> = sources.iter().copied().filter(is_short).collect();
            let short = || of_service().filter(|row| short.contains(&row.src));
            let count = short().count() as u64;
            let first = short().map(|row| row.start.0).min().unwrap_or(0);
            let last = short().map(|row| row.end.0).max().unwrap_or(0);
            let others = of_service().count() as u64 - count;
            count >= 50 * (last - first).max(20).unsigned_abs() && count >= 2 * others
        };
        services.into_iter().filter(is_flooded).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn lists_say_the_same(bursts in prop::collection::vec(any_burst(), 1..10)) {
            let asked = |burst: &Burst| flows(burst.count, burst.seconds, burst.row);
            let rows: Vec<_> = bursts.iter().flat_map(asked).collect();
            let answers = bursts.iter().filter(|burst| burst.is_answered).flat_map(asked);
            let answers = answers.map(|row| reply(row, 0, 1, 44, 18));
            let all: Vec<_> = rows.iter().copied().chain(answers).collect();
            let found: BTreeSet<_> = floods(&all)
                .iter()
                .flat_map(|finding| {
                    let ports = finding.target.ports.clone();
                    ports.into_iter().map(|port| (finding.target.addrs[0], port))
                })
                .collect();
            prop_assert_eq!(found, plainly_flooded(&rows));
        }
    }
}
