//! Addresses of threat lists, met in either direction: each pair of hosts once per hour.
//!
//! A listed address that comes in is mostly one of the many that knock everywhere; an own host that goes out
//! to one is what a list is for. So the direction counts most, then how far it came. Own addresses are
//! never reported, whatever a list says of them: lists of unroutable blocks have all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::detector::{Detector, Met, WATCHED_AT_ONCE};
use super::episode::Report;
use super::hourly::{Due, HOUR_SECONDS, Hourly, Noted};
use super::network::Network;
use super::outcome::Outcome;
use super::pane::PaneView;
use super::report::{CONTEXT_CONTACTS_MAX, Draft, LISTED_MAX, finding};
use super::settings::{SettingsError, check_range};
use crate::aggregate::ContactKey;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Party, Severity};
use crate::net::{Addr, AddressSet, Listed};
use crate::units::UnixSeconds;

/// Lists that a finding names.
const LISTS_MAX: usize = 8;

/// Bits of a word, one for each contact that is watched at once.
const _: () = assert!(WATCHED_AT_ONCE <= 64);

/// `[detectors.suspicious_ip]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SuspiciousIpSettings {
    /// Whether to look for listed addresses.
    pub enabled: bool,
    /// Files of threat lists, beside those of the operator's context.
    pub lists: Vec<PathBuf>,
    /// Addresses and blocks over all lists, 1000 to 100000000; one of IPv4 takes 9 bytes, of IPv6 21.
    pub entries_max: u32,
    /// Pairs of hosts kept, 1000 to 1000000000; a pair takes about 150 bytes.
    pub tracked_max: u32,
}

impl Default for SuspiciousIpSettings {
    fn default() -> Self {
        let (entries_max, tracked_max) = (20_000_000, 200_000);
        Self { enabled: true, lists: Vec::new(), entries_max, tracked_max }
    }
}

impl SuspiciousIpSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        check_range("entries_max", self.entries_max, 1000..=100_000_000, usual.entries_max)?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// What a pair of hosts did, the least of it first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    InRejected,
    InPassed,
    InAnswered,
    OutRejected,
    OutPassed,
    OutAnswered,
}

impl Reach {
    const fn of(is_outbound: bool, outcome: Outcome, is_rejected: bool) -> Self {
        let (rejected, passed, answered) = if is_outbound {
            (Self::OutRejected, Self::OutPassed, Self::OutAnswered)
        } else {
            (Self::InRejected, Self::InPassed, Self::InAnswered)
        };
        match outcome {
            Outcome::Answered => answered,
            Outcome::Rejected => rejected,
            Outcome::NotTried if is_rejected => rejected,
            Outcome::NotTried | Outcome::Bare | Outcome::Refused | Outcome::Unanswered => passed,
        }
    }

    const fn outcome(self) -> &'static str {
        match self {
            Self::InRejected | Self::OutRejected => "rejected",
            Self::InPassed | Self::OutPassed => "passed",
            Self::InAnswered | Self::OutAnswered => "answered",
        }
    }

    const fn is_outbound(self) -> bool {
        matches!(self, Self::OutRejected | Self::OutPassed | Self::OutAnswered)
    }

    const fn severity(self) -> Severity {
        match self {
            Self::InRejected => Severity::Low,
            // Nothing came of it, but a host of ours wanted to.
            Self::InPassed | Self::InAnswered | Self::OutRejected => Severity::Medium,
            Self::OutPassed | Self::OutAnswered => Severity::High,
        }
    }
}

/// A contact with a listed address.
#[derive(Clone, Copy, Debug)]
struct Hit {
    /// Who opened, and to whom.
    pair: (Addr, Addr),
    number: u32,
    reach: Reach,
    port: u16,
    flows: u32,
    rejected: u32,
    bytes: u64,
    first_start: UnixSeconds,
    last_end: UnixSeconds,
}

impl Hit {
    const fn listed(&self) -> Addr {
        if self.reach.is_outbound() { self.pair.1 } else { self.pair.0 }
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct SuspiciousIp {
    settings: SuspiciousIpSettings,
    /// By who opened, and to whom.
    pairs: Hourly<(Addr, Addr)>,
    /// Contacts of the pane that is judged next, by number.
    watched: Vec<u32>,
    hits: Vec<Hit>,
}

impl SuspiciousIp {
    /// A detector without memory, whose table takes at most `bytes_max`.
    pub(super) fn new(settings: SuspiciousIpSettings, bytes_max: usize) -> Self {
        let pairs = Hourly::new(settings.tracked_max, bytes_max);
        Self { settings, pairs, watched: Vec::new(), hits: Vec::new() }
    }
}

impl Detector for SuspiciousIp {
    fn name(&self) -> &'static str {
        "suspicious_ip"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.pairs.renew_every(seconds);
    }

    fn watches(&self) -> bool {
        true
    }

    fn watch(&mut self, contacts: &[Met], network: &Network) {
        let threats = &*network.threats;
        if threats.is_empty() {
            return;
        }
        // All are asked before any is looked at closer, so that the waits for memory fall together.
        let mut suspects = 0_u64;
        for (bit, Met { key, .. }) in contacts.iter().enumerate() {
            let is_suspect = threats.may_contain(key.client) | threats.may_contain(key.server);
            suspects |= u64::from(is_suspect) << bit;
        }
        while suspects != 0 {
            let Met { key, number, .. } = &contacts[suspects.trailing_zeros() as usize];
            suspects &= suspects - 1;
            if threats.contains(key.client) || threats.contains(key.server) {
                self.watched.push(*number);
            }
        }
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let Self { watched, hits, pairs, .. } = self;
        hits.extend(watched.drain(..).filter_map(|number| hit(view, number)));
        hits.sort_unstable_by_key(|hit| (hit.pair, hit.port, hit.number));
        let of_pairs: Vec<&[Hit]> = hits.chunk_by(|one, other| one.pair == other.pair).collect();
        let seen: Vec<Noted<(Addr, Addr)>> = of_pairs.iter().map(|hits| seen(hits)).collect();
        let Due { told, crowd } = pairs.note(&seen);
        let first = out.len();
        out.extend(
            told.iter().map(|(position, report)| pair_finding(of_pairs[*position], *report, view)),
        );
        if let Some((crowd, report)) = crowd {
            let crowd: Vec<&[Hit]> = crowd.iter().map(|position| of_pairs[*position]).collect();
            out.push(crowd_finding(&crowd, report, view));
            out[first..].sort_by(|one, other| one.actor.addrs.cmp(&other.actor.addrs));
        }
        hits.clear();
        pairs.end_pane(view.index().end(view.pane_seconds));
    }

    fn evictions(&self) -> u64 {
        self.pairs.evictions()
    }

    fn bytes(&self) -> usize {
        self.pairs.bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.watched.capacity() * size_of::<u32>() + self.hits.capacity() * size_of::<Hit>()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        self.pairs.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("listed addresses", 1..=1)?;
        self.pairs = self.pairs.load(from)?;
        Ok(())
    }
}

/// What the contact with this number says, if one end is listed and the other one is not to be left alone.
fn hit(view: &PaneView<'_>, number: u32) -> Option<Hit> {
    let network = view.network;
    let (key, contact) = view.met(number);
    let ContactKey { client, server, .. } = key;
    let (forward, back) = (contact.forward().0, contact.back().0);
    // Who sends alone has opened, whatever the ports say.
    let (opener, opened) = if forward.flows > 0 { (client, server) } else { (server, client) };
    if network.is_exempt_actor(opener) || network.is_exempt_actor(opened) {
        return None;
    }
    let first_start = contact.first_start();
    let is_bad = |addr: Addr| {
        !network.is_inside(addr) && lists_at(&network.threats, addr, first_start).next().is_some()
    };
    let is_inbound = is_bad(opener);
    let is_outbound = !is_inbound && is_bad(opened);
    if !is_inbound && !is_outbound {
        return None;
    }
    let sent = if forward.flows > 0 { forward } else { back };
    let is_rejected = sent.flows == sent.rejected;
    let outcome = if forward.flows > 0 { view.outcome_of(&key) } else { Outcome::NotTried };
    Some(Hit {
        pair: (opener, opened),
        number,
        reach: Reach::of(is_outbound, outcome, is_rejected),
        port: key.port,
        flows: forward.flows.saturating_add(back.flows),
        rejected: forward.rejected.saturating_add(back.rejected),
        bytes: forward.bytes.saturating_add(back.bytes),
        first_start,
        last_end: contact.last_end(),
    })
}

/// The entries around an address that are valid at a time of the records, the widest first.
fn lists_at(threats: &AddressSet, addr: Addr, at: UnixSeconds) -> impl Iterator<Item = Listed<'_>> {
    let listed = if threats.contains(addr) { threats.listed(addr) } else { Vec::new() };
    let is_valid = move |one: &Listed<'_>| one.valid_until_seconds.is_none_or(|end| at.0 < end);
    listed.into_iter().filter(is_valid)
}

/// What hits of one pair come to.
fn seen(hits: &[Hit]) -> Noted<(Addr, Addr)> {
    let first = &hits[0];
    let fold = |seen: Noted<_>, hit: &Hit| Noted {
        key: seen.key,
        reach: seen.reach.max(hit.reach as u8),
        first_seen: seen.first_seen.min(hit.first_start),
        last_seen: seen.last_seen.max(hit.last_end),
    };
    let (first_seen, last_seen) = (first.first_start, first.last_end);
    let start = Noted { key: first.pair, reach: 0, first_seen, last_seen };
    hits.iter().fold(start, fold)
}

fn farthest(hits: &[Hit]) -> Reach {
    hits.iter().map(|hit| hit.reach).max().expect("a pair has hits")
}

fn sum<'a>(hits: impl Iterator<Item = &'a Hit>, of: impl Fn(&Hit) -> u64) -> Evidence {
    Evidence::Count(hits.map(of).fold(0, u64::saturating_add))
}

fn ports<'a>(hits: impl Iterator<Item = &'a Hit>) -> Vec<u16> {
    let mut ports: Vec<u16> = hits.map(|hit| hit.port).filter(|port| *port > 0).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn pair_finding(hits: &[Hit], report: Report, view: &PaneView<'_>) -> Finding {
    let draft = || {
        let (opener, opened) = hits[0].pair;
        let (reach, listed) = (farthest(hits), hits[0].listed());
        let began = hits.iter().map(|hit| hit.first_start).min().unwrap_or(report.start);
        let lists: Vec<Listed<'_>> = lists_at(&view.network.threats, listed, began).collect();
        let entry = lists.last().map(|one| one.entry.to_string()).unwrap_or_default();
        let mut names: Vec<&str> = lists.iter().map(|one| one.list).collect();
        names.sort_unstable();
        names.dedup();
        names.truncate(LISTS_MAX);
        let names = names.join(", ");
        let title = if reach.is_outbound() {
            format!("{opener} opened a connection to {opened}, which is on threat list `{names}`")
        } else {
            format!("{opener}, which is on threat list `{names}`, reached for {opened}")
        };
        Draft {
            severity: reach.severity(),
            confidence: 0.9,
            title,
            actor: opener,
            identity: (vec![opened], Vec::new()),
            targets: vec![opened],
            ports: ports(hits.iter()),
            last_seen: hits.iter().map(|hit| hit.last_end).max().unwrap_or(report.start),
            window_seconds: HOUR_SECONDS,
            evidence: BTreeMap::from([
                (
                    "variant",
                    Evidence::Word(if reach.is_outbound() { "outbound" } else { "inbound" }),
                ),
                ("outcome", Evidence::Word(reach.outcome())),
                ("list", Evidence::Text(names)),
                ("entry", Evidence::Text(entry)),
                ("flows", sum(hits.iter(), |hit| hit.flows.into())),
                ("rejected", sum(hits.iter(), |hit| hit.rejected.into())),
                ("bytes", sum(hits.iter(), |hit| hit.bytes)),
            ]),
            context: view.context_of(hits.iter().map(|hit| hit.number)),
            exact: true,
        }
    };
    finding(FindingKind::SuspiciousIp, report, view, draft)
}

/// One finding for the pairs of a pane that are too many to be told one by one.
fn crowd_finding(crowd: &[&[Hit]], report: Report, view: &PaneView<'_>) -> Finding {
    let hits = || crowd.iter().flat_map(|hits| *hits);
    let addrs = |of: fn(&Hit) -> Addr| {
        let mut addrs: Vec<Addr> = hits().map(of).collect();
        addrs.sort_unstable();
        addrs.dedup();
        addrs
    };
    let openers = addrs(|hit| hit.pair.0);
    let draft = || {
        let targets = addrs(|hit| hit.pair.1);
        let reach = hits().map(|hit| hit.reach).max().unwrap_or(Reach::InRejected);
        let (listed, pairs) = (addrs(Hit::listed).len(), crowd.len());
        Draft {
            severity: reach.severity(),
            confidence: 0.9,
            title: format!("{pairs} more pairs of hosts with {listed} addresses of threat lists"),
            // No address: all crowds of an hour are one happening, whoever is in it.
            actor: Addr::v6(0),
            identity: (Vec::new(), Vec::new()),
            targets,
            ports: ports(hits()),
            last_seen: hits().map(|hit| hit.last_end).max().unwrap_or(report.start),
            window_seconds: HOUR_SECONDS,
            evidence: BTreeMap::from([
                ("variant", Evidence::Word("crowd")),
                ("outcome", Evidence::Word(reach.outcome())),
                ("pairs", Evidence::Count(pairs as u64)),
                ("distinct_listed", Evidence::Count(listed as u64)),
                ("flows", sum(hits(), |hit| hit.flows.into())),
                ("rejected", sum(hits(), |hit| hit.rejected.into())),
                ("bytes", sum(hits(), |hit| hit.bytes)),
            ]),
            context: view.context_of(hits().take(CONTEXT_CONTACTS_MAX).map(|hit| hit.number)),
            exact: true,
        }
    };
    let mut finding = finding(FindingKind::SuspiciousIp, report, view, draft);
    if !finding.is_counted() {
        let addrs = openers.into_iter().take(LISTED_MAX).collect();
        finding.actor = Party { addrs, ports: Vec::new() };
    }
    finding
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::hourly::tests::plainly_told;
    use super::super::scenarios::{answered, findings_with, host, network, rejected, syn};
    use super::*;
    use crate::aggregate::ContactRow;
    use crate::detect::DetectSettings;
    use crate::finding::Status;
    use crate::net::{AddressSetBuilder, Prefix};

    const BAD: &str = "203.0.113.66";
    const OWN: &str = "10.20.1.7";

    /// A list's name and its entries.
    type List = (&'static str, &'static [(&'static str, Option<i64>)]);

    /// The network of the scenarios with these lists; entries may say until when they are valid.
    fn with_lists(lists: &[List]) -> Network {
        let mut builder = AddressSetBuilder::new(100);
        for (name, entries) in lists {
            builder.begin_list(name);
            for (entry, end) in *entries {
                builder.add(entry.parse::<Prefix>().unwrap(), *end);
            }
        }
        Network { threats: Arc::new(builder.build()), ..network() }
    }

    fn usual() -> Network {
        with_lists(&[
            ("wide", &[("203.0.113.64/26", None), ("10.0.0.0/8", None)]),
            ("near", &[(BAD, Some(1000))]),
            ("old", &[("198.51.100.1", Some(1000))]),
        ])
    }

    fn found(network: Network, rows: &[ContactRow<'_>]) -> Vec<Finding> {
        let mut settings = DetectSettings::default();
        settings.noise.findings_per_hour_max = 0;
        let found = findings_with(&settings, network, rows);
        found.into_iter().filter(|finding| finding.kind == FindingKind::SuspiciousIp).collect()
    }

    /// Variant, outcome, severity and lists of each finding.
    fn check(rows: &[ContactRow<'_>], expected: &[(&str, &str, Severity, &str)]) {
        let found = found(usual(), rows);
        let word = |finding: &Finding, name: &str| match &finding.evidence[name] {
            Evidence::Word(word) => (*word).to_owned(),
            Evidence::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        let told: Vec<_> = found
            .iter()
            .map(|one| {
                (word(one, "variant"), word(one, "outcome"), one.severity, word(one, "list"))
            })
            .collect();
        let told: Vec<_> =
            told.iter().map(|(a, b, c, d)| (a.as_str(), b.as_str(), *c, d.as_str())).collect();
        assert_eq!(told, expected);
    }

    fn own() -> Addr {
        OWN.parse().unwrap()
    }

    fn bad() -> Addr {
        BAD.parse().unwrap()
    }

    #[test]
    fn direction_and_outcome_make_the_severity() {
        const LISTS: &str = "near, wide";
        let row = |port| syn(10, BAD, own(), port);
        check(&[rejected(row(80))], &[("inbound", "rejected", Severity::Low, LISTS)]);
        check(&[row(80)], &[("inbound", "passed", Severity::Medium, LISTS)]);
        check(&answered(row(80), 0), &[("inbound", "answered", Severity::Medium, LISTS)]);
        let out = || syn(10, OWN, bad(), 443);
        check(&[rejected(out())], &[("outbound", "rejected", Severity::Medium, LISTS)]);
        check(&[out()], &[("outbound", "passed", Severity::High, LISTS)]);
        check(&answered(out(), 0), &[("outbound", "answered", Severity::High, LISTS)]);
        // Only what a listed server sent was seen.
        let [_, alone] = answered(out(), 0);
        check(&[alone], &[("inbound", "passed", Severity::Medium, LISTS)]);
    }

    #[test]
    fn own_and_unlisted_addresses_and_wanted_scanners_are_left_alone() {
        check(&[syn(10, "203.0.113.9", own(), 80)], &[]);
        check(&[syn(10, OWN, host(3), 80)], &[]);
        check(&[syn(10, "10.20.5.99", bad(), 80), syn(10, "10.20.0.100", bad(), 80)], &[]);
    }

    #[test]
    fn entries_end_by_the_time_of_records() {
        check(&[syn(1001, BAD, own(), 80)], &[("inbound", "passed", Severity::Medium, "wide")]);
        let old = |at| syn(at, "198.51.100.1", own(), 80);
        check(&[old(999)], &[("inbound", "passed", Severity::Medium, "old")]);
        check(&[old(1000)], &[]);
    }

    #[test]
    fn the_nearest_entry_and_what_passed_are_told() {
        let rows = [syn(10, BAD, own(), 80), rejected(syn(11, BAD, own(), 81))];
        let found = found(usual(), &rows);
        let evidence = &found[0].evidence;
        assert_eq!(evidence["entry"], Evidence::Text(BAD.to_owned()));
        assert_eq!(
            (&evidence["flows"], &evidence["rejected"]),
            (&Evidence::Count(2), &Evidence::Count(1))
        );
        assert_eq!(found[0].target.ports, [80, 81]);
        assert_eq!(
            (&found[0].actor.addrs[..], &found[0].target.addrs[..]),
            (&[bad()][..], &[own()][..])
        );
    }

    #[test]
    fn a_flood_of_listed_addresses_is_told_as_one() {
        let lists: &[List] = &[("wide", &[("9.0.0.0/8", None)])];
        let from = |number: u32| ContactRow {
            src: Addr::v4(0x0900_0000 + number),
            ..rejected(syn(10, BAD, own(), 80))
        };
        let found = found(with_lists(lists), &(0..1700).map(from).collect::<Vec<_>>());
        assert_eq!(found.len(), 1001);
        let crowd: Vec<_> =
            found.iter().filter(|one| one.evidence["variant"] == Evidence::Word("crowd")).collect();
        assert_eq!(crowd[0].evidence["pairs"], Evidence::Count(700));
        assert_eq!(crowd[0].actor.addrs.len(), 50);
        let ids: BTreeSet<_> = found.iter().map(|one| one.id).collect();
        assert_eq!(ids.len(), 1001);
    }

    /// Second, listed or own source, target and whether it was rejected; none is answered.
    fn any_rows() -> impl Strategy<Value = Vec<ContactRow<'static>>> {
        let row = (0_i64..12_000, 0_u16..4, 0_u16..3, prop::bool::weighted(0.7)).prop_map(
            |(at, source, target, is_rejected)| {
                let row = match source {
                    0 => syn(at, BAD, host(target), 443),
                    1 => syn(at, "203.0.113.67", host(target), 443),
                    2 => syn(at, "203.0.113.9", host(target), 443),
                    _ => ContactRow { src: host(target), ..syn(at, OWN, bad(), 443) },
                };
                if is_rejected { rejected(row) } else { row }
            },
        );
        prop::collection::vec(row, 0..60)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn plain_lists_say_the_same(rows in any_rows()) {
            let lists: &[List] = &[("l", &[("203.0.113.64/26", None)])];
            let mut panes: BTreeMap<(i64, (Addr, Addr)), (u64, i64)> = BTreeMap::new();
            for row in &rows {
                let is_out = row.dst == bad();
                if row.src == "203.0.113.9".parse::<Addr>().unwrap() {
                    continue;
                }
                // A pane in which anything was rejected and nothing answered is a rejection.
                let passed = if is_out { Reach::OutPassed } else { Reach::InPassed };
                let seen = panes
                    .entry((row.end.0 / 60, (row.src, row.dst)))
                    .or_insert((1 << passed as u8, i64::MIN));
                if row.action == crate::record::Action::Reject {
                    let denied = if is_out { Reach::OutRejected } else { Reach::InRejected };
                    seen.0 = 1 << denied as u8;
                }
                seen.1 = seen.1.max(row.end.0);
            }
            let expected = plainly_told(panes.into_iter().map(|((_, pair), seen)| (pair, seen)));
            let found: Vec<_> = found(with_lists(lists), &rows)
                .iter()
                .map(|one| {
                    let pair = (one.actor.addrs[0], one.target.addrs[0]);
                    (pair, one.status, one.revision, one.last_seen.0)
                })
                .collect();
            prop_assert!(found.iter().all(|one| one.1 != Status::Closed));
            prop_assert_eq!(found, expected);
        }
    }
}
