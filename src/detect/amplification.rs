//! Own services that answer far more than they are asked, over UDP, to somebody outside: reflectors of an
//! attack on that address.
//!
//! Whoever sends a request with another's address makes the server send its answer there. What tells an abused
//! service from a used one is the ratio of answer to request, which the attack lives on, and the rate, which
//! no client of such services has. Both are judged over a window for each own host, outside peer and port; a rate
//! is taken over the time that the records say, and over a minute at least, so that neither records of ten
//! minutes nor short bursts count for more than they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::detector::{Detector, Met};
use super::episode::{Episodes, Sighting};
use super::network::Network;
use super::outcome::UDP;
use super::pane::PaneView;
use super::report::{Draft, confidence, finding, spelled};
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_range};
use crate::aggregate::{ContactKey, Tally};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{ByteCount, PaneIndex, UnixSeconds};

/// The shortest time that a rate is taken over.
const RATE_SECONDS_MIN: i64 = 60;

/// A peer of a pane that got less than this part of what a minute may have is not remembered.
const SHARE_KEPT: u64 = 8;

/// The port of name servers.
const DNS: u16 = 53;

/// Ports with services that are known to amplify (US-CERT TA14-017A and what was found since): QOTD, CharGEN,
/// DNS, portmap, NTP, NetBIOS, SNMP, CLDAP, SLP, RIP, SQL Server browser, SSDP, Apple remote desktop,
/// WS-Discovery, Sentinel, mDNS, CoAP, Ubiquiti discovery, Mitel, memcached, Plex, DHCPDiscover.
/// Left out are those whose everyday traffic is as lopsided: games, TFTP, STUN, VPNs.
const PORTS: [u16; 22] = [
    17, 19, 53, 111, 123, 137, 161, 389, 427, 520, 1434, 1900, 3283, 3702, 5093, 5353, 5683, 10001,
    10074, 11211, 32414, 37810,
];

/// Bytes that a pair takes without its panes.
const PAIR_BYTES: usize = 144;

/// `[detectors.amplification]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AmplificationSettings {
    /// Whether to look for amplifiers.
    pub enabled: bool,
    /// UDP ports of services that amplify.
    pub ports: Vec<u16>,
    /// Answered bytes must be more than this many times the requested ones, 2 to 10000.
    pub ratio_min: u32,
    /// Answered bytes a minute to one peer, 1000 to 1000000000.
    pub bytes_per_minute_min: u32,
    /// Over which both are judged, 60 to 86400.
    pub window_seconds: u32,
    /// Pairs of own host and peer kept, 1000 to 1000000000; a pair takes about 250 bytes.
    pub tracked_max: u32,
}

impl Default for AmplificationSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            ports: PORTS.to_vec(),
            ratio_min: 10,
            bytes_per_minute_min: 100_000,
            window_seconds: 120,
            tracked_max: 100_000,
        }
    }
}

impl AmplificationSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        if self.ports.is_empty() {
            return Err(SettingsError::Empty { field: "ports" });
        }
        let usual = Self::default();
        check_range("ratio_min", self.ratio_min, 2..=10_000, usual.ratio_min)?;
        check_range(
            "bytes_per_minute_min",
            self.bytes_per_minute_min,
            1000..=1_000_000_000,
            usual.bytes_per_minute_min,
        )?;
        let windows = 60..=WINDOW_SECONDS_MAX;
        check_range("window_seconds", self.window_seconds, windows, usual.window_seconds)?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// Own host, outside peer, port.
type Key = ((Addr, Addr), u16);

/// What an own host and a peer sent each other, in one pane or in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exchange {
    pane: PaneIndex,
    requested_bytes: u64,
    answered_bytes: u64,
    answered_packets: u64,
    first_start: UnixSeconds,
    last_end: UnixSeconds,
}

impl Exchange {
    fn merge(self, other: Self) -> Self {
        Self {
            pane: self.pane.max(other.pane),
            requested_bytes: self.requested_bytes.saturating_add(other.requested_bytes),
            answered_bytes: self.answered_bytes.saturating_add(other.answered_bytes),
            answered_packets: self.answered_packets.saturating_add(other.answered_packets),
            first_start: self.first_start.min(other.first_start),
            last_end: self.last_end.max(other.last_end),
        }
    }

    fn bytes_per_minute(&self) -> u64 {
        let seconds = self.last_end.0.saturating_sub(self.first_start.0).max(RATE_SECONDS_MIN);
        let rate = u128::from(self.answered_bytes) * 60 / u128::from(seconds.unsigned_abs());
        u64::try_from(rate).unwrap_or(u64::MAX)
    }

    fn is_amplified(&self, settings: &AmplificationSettings) -> bool {
        let requested = self.requested_bytes.saturating_mul(settings.ratio_min.into());
        self.answered_bytes > requested
            && self.bytes_per_minute() >= u64::from(settings.bytes_per_minute_min)
    }
}

impl Saved for Exchange {
    const BYTES_MIN: usize = 48;

    fn save(&self, out: &mut Encoder) {
        self.pane.save(out);
        out.u64(self.requested_bytes);
        out.u64(self.answered_bytes);
        out.u64(self.answered_packets);
        self.first_start.save(out);
        self.last_end.save(out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            pane: PaneIndex::load(from)?,
            requested_bytes: from.u64()?,
            answered_bytes: from.u64()?,
            answered_packets: from.u64()?,
            first_start: UnixSeconds::load(from)?,
            last_end: UnixSeconds::load(from)?,
        })
    }
}

/// The exchanges of a pair in the panes of the window, the oldest first.
#[derive(Debug, Default)]
struct Exchanges(Vec<Exchange>);

impl Saved for Exchanges {
    const BYTES_MIN: usize = 8;

    fn save(&self, out: &mut Encoder) {
        out.count(self.0.len());
        self.0.iter().for_each(|exchange| exchange.save(out));
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = from.count(Exchange::BYTES_MIN)?;
        let list = (0..count).map(|_| Exchange::load(from)).collect::<Result<Vec<_>, _>>()?;
        let is_in_order = list.is_sorted_by(|one, next| one.pane < next.pane);
        if list.is_empty() || !is_in_order {
            return Err(DecodeError::Invalid("order of exchanges"));
        }
        Ok(Self(list))
    }
}

impl Exchanges {
    fn last_pane(&self) -> PaneIndex {
        self.0.last().map_or(PaneIndex(i64::MIN), |last| last.pane)
    }

    fn bytes(&self) -> usize {
        PAIR_BYTES + self.0.len() * 2 * size_of::<Exchange>()
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct Amplification {
    settings: AmplificationSettings,
    /// A bit for each port.
    ports: Vec<u64>,
    /// Of any contact; less can't be remembered of a pair.
    contact_bytes_min: u64,
    pairs: BTreeMap<Key, Exchanges>,
    pairs_bytes_max: usize,
    episodes: Episodes<Key>,
    /// Contacts of the pane that is judged next, by number.
    watched: Vec<u32>,
    evictions: u64,
    inexact_until: PaneIndex,
}

impl Amplification {
    /// A detector without memory, whose tables take at most `bytes_max` between panes.
    pub(super) fn new(settings: AmplificationSettings, bytes_max: usize) -> Self {
        let mut ports = vec![0_u64; 1 << 10];
        for port in &settings.ports {
            ports[usize::from(port >> 6)] |= 1 << (port & 63);
        }
        let tracked_max = settings.tracked_max as usize;
        let open_max = tracked_max.min(bytes_max / 4 / Episodes::<Key>::entry_bytes());
        Self {
            ports,
            contact_bytes_min: u64::from(settings.bytes_per_minute_min) / SHARE_KEPT,
            pairs: BTreeMap::new(),
            pairs_bytes_max: bytes_max / 4 * 3,
            episodes: Episodes::new(settings.window_seconds.max(3600), open_max),
            watched: Vec::new(),
            evictions: 0,
            inexact_until: PaneIndex(i64::MIN),
            settings,
        }
    }

    /// What became of the pane's contacts, by pair.
    fn exchanges(&mut self, view: &PaneView<'_>) -> BTreeMap<Key, (Exchange, Vec<u32>)> {
        let mut exchanges: BTreeMap<Key, (Exchange, Vec<u32>)> = BTreeMap::new();
        self.watched.sort_unstable();
        for number in self.watched.drain(..) {
            let Some((key, exchange)) = exchange(view, number) else { continue };
            let entry = exchanges.entry(key);
            let (of_pair, numbers) = entry
                .and_modify(|entry| entry.0 = entry.0.merge(exchange))
                .or_insert_with(|| (exchange, Vec::new()));
            debug_assert_eq!(of_pair.pane, exchange.pane);
            numbers.push(number);
        }
        exchanges.retain(|_, (exchange, _)| exchange.answered_bytes >= self.contact_bytes_min);
        exchanges
    }

    fn on_pair(
        &mut self,
        key: Key,
        exchange: Exchange,
        numbers: &[u32],
        view: &PaneView<'_>,
    ) -> Option<Finding> {
        let before = view.before_window(self.settings.window_seconds);
        let exchanges = &mut self.pairs.entry(key).or_default().0;
        exchanges.retain(|exchange| exchange.pane > before);
        exchanges.push(exchange);
        let sum = exchanges.iter().copied().reduce(Exchange::merge)?;
        if !sum.is_amplified(&self.settings) {
            return None;
        }
        let (first_seen, last_seen) = (sum.first_start, sum.last_end);
        let sighting = Sighting { first_seen, last_seen, size: sum.answered_bytes };
        let report = self.episodes.note(key, sighting)?;
        let ((own, peer), port) = key;
        let draft = || {
            let rate = sum.bytes_per_minute();
            let factor = sum.answered_bytes as f64 / sum.requested_bytes.max(1) as f64;
            let title = format!(
                "{own} answered {peer} from UDP port {port} with {} for {} of requests within {}",
                ByteCount(sum.answered_bytes.into()),
                ByteCount(sum.requested_bytes.into()),
                spelled(self.settings.window_seconds)
            );
            Draft {
                severity: Severity::High,
                confidence: confidence(rate, self.settings.bytes_per_minute_min.into()),
                title,
                actor: peer,
                identity: (vec![own], vec![port]),
                targets: vec![own],
                ports: vec![port],
                last_seen,
                window_seconds: self.settings.window_seconds,
                evidence: BTreeMap::from([
                    ("variant", Evidence::Word("reflector")),
                    ("requested_bytes", Evidence::Count(sum.requested_bytes)),
                    ("answered_bytes", Evidence::Count(sum.answered_bytes)),
                    ("answered_packets", Evidence::Count(sum.answered_packets)),
                    // A tenth is all that a person reads.
                    ("ratio", Evidence::Number((factor * 10.0).round() / 10.0)),
                    ("ratio_min", Evidence::Count(self.settings.ratio_min.into())),
                    ("bytes_per_minute", Evidence::Count(rate)),
                ]),
                context: view.context_of(numbers.iter().copied()),
                exact: view.index() > self.inexact_until,
            }
        };
        Some(finding(FindingKind::Amplification, report, view, draft))
    }

    /// Forgets pairs that were quiet for the window, and the quietest if there are too many.
    fn forget(&mut self, view: &PaneView<'_>) {
        let expired = view.before_window(self.settings.window_seconds);
        self.pairs.retain(|_, exchanges| exchanges.last_pane() > expired);
        let tracked_max = self.settings.tracked_max as usize;
        let mut bytes: usize = self.pairs.values().map(Exchanges::bytes).sum();
        if self.pairs.len() <= tracked_max && bytes <= self.pairs_bytes_max {
            return;
        }
        let by_quiet: BTreeSet<(PaneIndex, Key)> =
            self.pairs.iter().map(|(key, exchanges)| (exchanges.last_pane(), *key)).collect();
        for (_, key) in by_quiet {
            if self.pairs.len() <= tracked_max - tracked_max / 10
                && bytes <= self.pairs_bytes_max - self.pairs_bytes_max / 10
            {
                break;
            }
            bytes -= self.pairs.remove(&key).expect("listed from the table").bytes();
            self.evictions += 1;
        }
        self.inexact_until = view.after_window(expired);
    }
}

impl Detector for Amplification {
    fn name(&self) -> &'static str {
        "amplification"
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

    fn watch(&mut self, contacts: &[Met], _: &Network) {
        for Met { number, key, forward, back } in contacts {
            if key.protocol == UDP
                && self.ports[usize::from(key.port >> 6)] >> (key.port & 63) & 1 == 1
            {
                // Either end may be the server where ports are equal. Little is kept too: there may be several contacts
                // of a pair.
                let (requested, answered) = (forward.0.bytes, back.0.bytes);
                if requested.max(answered) >= self.contact_bytes_min {
                    self.watched.push(*number);
                }
            }
        }
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let first = out.len();
        for (key, (exchange, numbers)) in self.exchanges(view) {
            out.extend(self.on_pair(key, exchange, &numbers, view));
        }
        // Pairs come in the order of own hosts.
        out[first..].sort_by(|one, other| one.actor.addrs.cmp(&other.actor.addrs));
        self.forget(view);
        self.episodes.end_pane(view.index().end(view.pane_seconds));
    }

    fn evictions(&self) -> u64 {
        self.evictions + self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.pairs.values().map(Exchanges::bytes).sum::<usize>() + self.episodes.bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.watched.capacity() * size_of::<u32>()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.evictions);
        self.pairs.save(out);
        self.episodes.save(out);
        self.inexact_until.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("amplifiers", 1..=1)?;
        let evictions = from.u64()?;
        let pairs = BTreeMap::load(from)?;
        let episodes = self.episodes.load(from)?;
        let inexact_until = PaneIndex::load(from)?;
        self.pairs = pairs;
        self.episodes = episodes;
        self.evictions = evictions;
        self.inexact_until = inexact_until;
        Ok(())
    }
}

/// Which pair a contact is of, and what was sent; none if no own host may have answered somebody outside.
fn exchange(view: &PaneView<'_>, number: u32) -> Option<(Key, Exchange)> {
    let network = view.network;
    let (key, contact) = view.met(number);
    let ContactKey { client, server, port, .. } = key;
    let (forward, back) = (contact.forward().0, contact.back().0);
    let is_served = |own: Addr, peer: Addr| network.is_inside(own) && !network.is_inside(peer);
    let (own, peer, requested, answered) = if is_served(server, client) {
        (server, client, forward, back)
    } else if is_served(client, server) && key.ends_are_alike(contact.client_ports()) {
        (client, server, back, forward)
    } else {
        return None;
    };
    if port == DNS && network.is_resolver(own) {
        return None;
    }
    // What was rejected reached nobody; of records of both kinds the share is unknown.
    let sent = |tally: Tally| if tally.flows > tally.rejected { tally } else { Tally::default() };
    let answered = sent(answered);
    let exchange = Exchange {
        pane: view.index(),
        requested_bytes: requested.bytes,
        answered_bytes: answered.bytes,
        answered_packets: answered.packets,
        first_start: contact.first_start(),
        last_end: contact.last_end(),
    };
    Some((((own, peer), port), exchange))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::hourly::tests::plainly_told;
    use super::super::scenarios::{findings_with, host, network, rejected, syn};
    use super::*;
    use crate::aggregate::ContactRow;
    use crate::detect::DetectSettings;

    const PEER: &str = "203.0.113.9";

    /// A request of 1,000 bytes from `PEER` to a port, and its answer.
    fn exchanged(at: i64, own: Addr, port: u16, answered_bytes: u64) -> [ContactRow<'static>; 2] {
        let request = ContactRow {
            protocol: 17,
            packets: 10,
            bytes: 1000,
            tcp_flags: None,
            ..syn(at, PEER, own, port)
        };
        let answer = ContactRow {
            src: request.dst,
            dst: request.src,
            src_port: request.dst_port,
            dst_port: request.src_port,
            bytes: answered_bytes,
            ..request
        };
        [request, answer]
    }

    fn found(network: Network, rows: &[ContactRow<'_>]) -> Vec<Finding> {
        let found = findings_with(&DetectSettings::default(), network, rows);
        found.into_iter().filter(|one| one.kind == FindingKind::Amplification).collect()
    }

    /// Ratio of each finding.
    fn check(rows: &[ContactRow<'_>], expected: &[f64]) {
        let found = found(network(), rows);
        let ratio = |one: &Finding| match one.evidence["ratio"] {
            Evidence::Number(ratio) => ratio,
            ref other => panic!("{other:?}"),
        };
        assert_eq!(found.iter().map(ratio).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn ratio_and_rate_are_both_needed() {
        check(&exchanged(10, host(5), 53, 100_000), &[100.0]);
        check(&exchanged(10, host(5), 53, 99_999), &[]);
        let asked = |requested: u64| {
            exchanged(10, host(5), 123, 200_000).map(|row| {
                let bytes = if row.dst_port == 123 { requested } else { row.bytes };
                ContactRow { bytes, ..row }
            })
        };
        check(&asked(20_000), &[]);
        check(&asked(19_999), &[10.0]);
    }

    #[test]
    fn other_services_inside_peers_and_rejected_answers_are_left_alone() {
        check(&exchanged(10, host(5), 443, 1_000_000), &[]);
        let inside = exchanged(10, host(5), 53, 1_000_000).map(|row| {
            let inside = |addr| if addr == host(5) { addr } else { host(6) };
            ContactRow { src: inside(row.src), dst: inside(row.dst), ..row }
        });
        check(&inside, &[]);
        let [request, answer] = exchanged(10, host(5), 53, 1_000_000);
        check(&[request, rejected(answer)], &[]);
        check(&exchanged(10, host(53), 53, 1_000_000), &[]);
        // What an own host gets from a server outside.
        let fetched = exchanged(10, host(5), 53, 1_000_000).map(|row| {
            let turned = |addr| if addr == host(5) { PEER.parse().unwrap() } else { host(5) };
            ContactRow { src: turned(row.src), dst: turned(row.dst), ..row }
        });
        check(&fetched, &[]);
    }

    #[test]
    fn a_resolver_is_left_alone_for_names_only() {
        let network = || Network { resolvers: vec!["10.20.1.5".parse().unwrap()], ..network() };
        assert!(found(network(), &exchanged(10, host(5), 53, 1_000_000)).is_empty());
        assert_eq!(found(network(), &exchanged(10, host(5), 123, 1_000_000)).len(), 1);
    }

    #[test]
    fn equal_ports_and_records_of_ten_minutes_are_judged_alike() {
        let alike = |own: Addr, peer: Addr| {
            exchanged(10, host(5), 123, 1_000_000).map(|row| {
                let addr = |addr| if addr == host(5) { own } else { peer };
                ContactRow {
                    src_port: 123,
                    dst_port: 123,
                    src: addr(row.src),
                    dst: addr(row.dst),
                    ..row
                }
            })
        };
        check(&alike(host(5), PEER.parse().unwrap()), &[1000.0]);
        check(&alike(host(5), Addr::v4(0x0101_0101)), &[1000.0]);
        let long = |bytes| {
            exchanged(0, host(5), 53, bytes).map(|row| ContactRow { end: UnixSeconds(600), ..row })
        };
        check(&long(999_999), &[]);
        check(&long(1_000_000), &[1000.0]);
    }

    #[test]
    fn a_burst_over_two_panes_is_one() {
        let mut rows = exchanged(50, host(5), 53, 60_000).to_vec();
        rows.extend(exchanged(70, host(5), 53, 60_000));
        check(&rows, &[60.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn plain_lists_say_the_same(
            seen in prop::collection::vec(
                (0_i64..9000, 0_u16..2, 0_usize..3, 0_u64..200_000), 0..60),
        ) {
            let rows: Vec<_> = seen
                .iter()
                .flat_map(|(at, own, port, bytes)| {
                    exchanged(*at, host(*own), [53, 123, 443][*port], *bytes)
                })
                .collect();
            // By pane and pair: requested and answered bytes, first and last second.
            let mut panes: BTreeMap<(i64, Key), (u64, u64, i64, i64)> = BTreeMap::new();
            for (at, own, port, bytes) in &seen {
                let key = ((host(*own), PEER.parse().unwrap()), [53, 123, 443][*port]);
                let sum = panes.entry((at / 60, key)).or_insert((0, 0, *at, *at));
                *sum = (sum.0 + 1000, sum.1 + bytes, sum.2.min(*at), sum.3.max(*at));
            }
            panes.retain(|(_, (_, port)), (_, answered, _, _)| *port != 443 && *answered >= 12_500);
            let tripped = panes.iter().filter_map(|((pane, key), now)| {
                let mut sum = *now;
                if let Some(before) = panes.get(&(pane - 1, *key)) {
                    sum = (sum.0 + before.0, sum.1 + before.1, sum.2.min(before.2), sum.3);
                }
                let seconds = u64::try_from((sum.3 - sum.2).max(60)).unwrap();
                let is_amplified = sum.1 > 10 * sum.0 && sum.1 * 60 / seconds >= 100_000;
                is_amplified.then_some((*key, (sum.1, sum.3)))
            });
            let expected = plainly_told(tripped);
            let found: Vec<_> = found(network(), &rows)
                .iter()
                .map(|one| {
                    let pair = (one.target.addrs[0], one.actor.addrs[0]);
                    ((pair, one.target.ports[0]), one.status, one.revision, one.last_seen.0)
                })
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
