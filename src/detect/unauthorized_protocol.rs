//! Protocols and services that the operator's rules do not allow: each pair of hosts and service once per
//! hour.
//!
//! What is allowed is the operator's to say ([`ProtocolPolicy`](super::protocol_policy)); without a rule
//! nothing is reported: a VPC carries every IP protocol, and tunnels, routing protocols and old services all
//! have their places. A service that the internet tries in vain is what rules and security
//! groups are for, and everyday, so that such tries are reported only if they are asked for.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::detector::{Detector, Met};
use super::episode::Report;
use super::hourly::{Due, HOUR_SECONDS, Hourly, Noted};
use super::network::Network;
use super::outcome::{Outcome, TCP, UDP};
use super::pane::PaneView;
use super::protocol_policy::{Objection, RuleBits};
use super::report::{CONTEXT_CONTACTS_MAX, Draft, LISTED_MAX, finding};
use super::settings::{SettingsError, check_range};
use crate::aggregate::ContactKey;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Party, Severity};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// Protocols that people know by name.
const NAMES: &[(u8, &str)] = &[
    (1, "ICMP"),
    (2, "IGMP"),
    (4, "IPv4 in IP"),
    (6, "TCP"),
    (17, "UDP"),
    (33, "DCCP"),
    (41, "IPv6 in IP"),
    (47, "GRE"),
    (50, "ESP"),
    (51, "AH"),
    (58, "ICMPv6"),
    (88, "EIGRP"),
    (89, "OSPF"),
    (94, "IPIP"),
    (97, "EtherIP"),
    (103, "PIM"),
    (112, "VRRP"),
    (115, "L2TP"),
    (132, "SCTP"),
    (136, "UDP-Lite"),
];

/// `[detectors.unauthorized_protocol]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UnauthorizedProtocolSettings {
    /// Whether to report what the rules of the operator's context do not allow.
    pub enabled: bool,
    /// Whether services count that are tried from outside in vain: rejected, refused or unanswered.
    pub vain_from_outside: bool,
    /// Pairs of hosts and services kept, 1000 to 1000000000; each takes about 150 bytes.
    pub tracked_max: u32,
}

impl Default for UnauthorizedProtocolSettings {
    fn default() -> Self {
        Self { enabled: true, vain_from_outside: false, tracked_max: 200_000 }
    }
}

impl UnauthorizedProtocolSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// How far it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    Rejected,
    Passed,
    Answered,
}

impl Reach {
    const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Passed => "passed",
            Self::Answered => "answered",
        }
    }
}

/// Pair of hosts, protocol and port; the port is 0 where the protocol is the fault.
type Key = ((Addr, Addr), (u8, u16));

/// A contact that a rule objects to.
#[derive(Clone, Copy, Debug)]
struct Breach<'a> {
    key: Key,
    number: u32,
    objection: Objection,
    rule: &'a str,
    reach: Reach,
    flows: u32,
    rejected: u32,
    bytes: u64,
    first_start: UnixSeconds,
    last_end: UnixSeconds,
    /// Whether one of both ends is outside.
    is_exposed: bool,
}

impl Breach<'_> {
    const fn severity(&self) -> Severity {
        match (self.reach, self.is_exposed) {
            (Reach::Rejected, _) => Severity::Low,
            (Reach::Passed | Reach::Answered, false) => Severity::Medium,
            (Reach::Passed | Reach::Answered, true) => Severity::High,
        }
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct UnauthorizedProtocol {
    settings: UnauthorizedProtocolSettings,
    told: Hourly<Key>,
    /// Contacts of the pane that is judged next, by number.
    watched: Vec<u32>,
    /// The rules of places by their number, of one shard at a time.
    places: Vec<Option<RuleBits>>,
}

impl UnauthorizedProtocol {
    /// A detector without memory, whose table takes at most `bytes_max`.
    pub(super) fn new(settings: UnauthorizedProtocolSettings, bytes_max: usize) -> Self {
        let told = Hourly::new(settings.tracked_max, bytes_max);
        Self { settings, told, watched: Vec::new(), places: Vec::new() }
    }

    /// What rules object to, in the order of keys.
    fn breaches<'a>(&mut self, view: &PaneView<'a>) -> Vec<Breach<'a>> {
        let Self { settings, watched, places, .. } = self;
        watched.sort_unstable();
        let mut breaches = Vec::new();
        let mut from = 0;
        for (first, shard) in view.pane.shards() {
            let end = u32::try_from(shard.contacts.len()).expect("contacts are bounded") + first;
            let count = watched[from..].partition_point(|number| *number < end);
            let of_shard = &watched[from..from + count];
            from += count;
            places.clear();
            for number in of_shard {
                let (_, contact) = view.met(*number);
                let mut at_places = 0;
                for id in contact.places().iter() {
                    let position = id as usize;
                    if places.len() <= position {
                        places.resize(position + 1, None);
                    }
                    let rules = places[position].get_or_insert_with(|| {
                        view.network.protocols.rules_at(&shard.places.place(id))
                    });
                    at_places |= *rules;
                }
                breaches.extend(breach(settings, view, *number, at_places));
            }
        }
        watched.clear();
        breaches.sort_unstable_by_key(|breach| (breach.key, breach.number));
        breaches
    }
}

impl Detector for UnauthorizedProtocol {
    fn name(&self) -> &'static str {
        "unauthorized_protocol"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.told.renew_every(seconds);
    }

    fn watches(&self) -> bool {
        true
    }

    fn watch(&mut self, contacts: &[Met], network: &Network) {
        let policy = &*network.protocols;
        if policy.is_empty() {
            return;
        }
        let suspects =
            contacts.iter().filter(|met| policy.may_object(met.key.protocol, met.key.port));
        self.watched.extend(suspects.map(|met| met.number));
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let breaches = self.breaches(view);
        let of_keys: Vec<&[Breach<'_>]> =
            breaches.chunk_by(|one, other| one.key == other.key).collect();
        let seen: Vec<Noted<Key>> = of_keys.iter().map(|breaches| seen(breaches)).collect();
        let Due { told, crowd } = self.told.note(&seen);
        let first = out.len();
        let findings =
            told.iter().map(|(position, report)| key_finding(of_keys[*position], *report, view));
        out.extend(findings);
        if let Some((crowd, report)) = crowd {
            let crowd: Vec<&[Breach<'_>]> =
                crowd.iter().map(|position| of_keys[*position]).collect();
            out.push(crowd_finding(&crowd, report, view));
            out[first..].sort_by(|one, other| one.actor.addrs.cmp(&other.actor.addrs));
        }
        self.told.end_pane(view.index().end(view.pane_seconds));
    }

    fn evictions(&self) -> u64 {
        self.told.evictions()
    }

    fn bytes(&self) -> usize {
        self.told.bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.watched.capacity() * size_of::<u32>()
            + self.places.capacity() * size_of::<Option<RuleBits>>()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        self.told.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("protocols that are not allowed", 1..=1)?;
        self.told = self.told.load(from)?;
        Ok(())
    }
}

/// What the rules say against the contact with this number.
fn breach<'a>(
    settings: &UnauthorizedProtocolSettings,
    view: &PaneView<'a>,
    number: u32,
    at_places: RuleBits,
) -> Option<Breach<'a>> {
    let network = view.network;
    let (key, contact) = view.met(number);
    let ContactKey { client, server, protocol, port } = key;
    if network.is_exempt_actor(client) {
        return None;
    }
    let (forward, back) = (contact.forward().0, contact.back().0);
    if forward.flows == 0 {
        // A reply to what was said before, or stray packets of a service that is somebody else's.
        return None;
    }
    let (objection, rule) =
        network.protocols.objection(&key, at_places, |addr| network.is_inside(addr))?;
    let reach = match view.outcome_of(&key) {
        Outcome::Answered => Reach::Answered,
        Outcome::Rejected => Reach::Rejected,
        Outcome::NotTried if forward.flows == forward.rejected => Reach::Rejected,
        Outcome::NotTried | Outcome::Bare | Outcome::Refused | Outcome::Unanswered => Reach::Passed,
    };
    let is_service = objection != Objection::Protocol;
    let is_from_outside = !network.is_inside(client);
    if is_service && is_from_outside && reach < Reach::Answered && !settings.vain_from_outside {
        return None;
    }
    Some(Breach {
        key: ((client, server), (protocol, if is_service { port } else { 0 })),
        number,
        objection,
        rule,
        reach,
        flows: forward.flows.saturating_add(back.flows),
        rejected: forward.rejected.saturating_add(back.rejected),
        bytes: forward.bytes.saturating_add(back.bytes),
        first_start: contact.first_start(),
        last_end: contact.last_end(),
        is_exposed: is_from_outside || !network.is_inside(server),
    })
}

/// What breaches of one key come to.
fn seen(breaches: &[Breach<'_>]) -> Noted<Key> {
    let first = &breaches[0];
    let fold = |seen: Noted<_>, breach: &Breach<'_>| Noted {
        key: seen.key,
        reach: seen.reach.max(breach.reach as u8),
        first_seen: seen.first_seen.min(breach.first_start),
        last_seen: seen.last_seen.max(breach.last_end),
    };
    let (first_seen, last_seen) = (first.first_start, first.last_end);
    breaches.iter().fold(Noted { key: first.key, reach: 0, first_seen, last_seen }, fold)
}

/// `tcp/23`, or the protocol's name and number.
fn named((protocol, port): (u8, u16), objection: Objection) -> String {
    let name = NAMES.iter().find(|(number, _)| *number == protocol).map(|(_, name)| *name);
    match (protocol, objection) {
        (_, Objection::Protocol) => match name {
            Some(name) => format!("protocol {protocol} ({name})"),
            None => format!("protocol {protocol}"),
        },
        (TCP, _) => format!("tcp/{port}"),
        (UDP, _) => format!("udp/{port}"),
        _ => format!("{protocol}/{port}"),
    }
}

fn sum<'a, 'b: 'a>(
    breaches: impl Iterator<Item = &'a Breach<'b>>,
    of: impl Fn(&Breach<'b>) -> u64,
) -> Evidence {
    Evidence::Count(breaches.map(of).fold(0, u64::saturating_add))
}

fn key_finding(breaches: &[Breach<'_>], report: Report, view: &PaneView<'_>) -> Finding {
    let draft = || {
        let farthest = breaches.iter().max_by_key(|breach| breach.reach).expect("a key has some");
        let Breach { key, objection, rule, reach, .. } = *farthest;
        let ((client, server), (protocol, port)) = key;
        let what = named((protocol, port), objection);
        let (variant, why) = match objection {
            Objection::Protocol => ("protocol", "is not among the protocols of"),
            Objection::Forbidden => ("forbidden_service", "is forbidden by"),
            Objection::NotOffered => ("service_not_allowed", "is not among the services of"),
        };
        let is_service = objection != Objection::Protocol;
        Draft {
            severity: farthest.severity(),
            confidence: 0.95,
            title: format!("{client} used {what} with {server}, which {why} rule `{rule}`"),
            actor: client,
            // Protocols have the numbers that no port has beside a port.
            identity: (vec![server], vec![port, protocol.into()]),
            targets: vec![server],
            ports: if is_service { vec![port] } else { Vec::new() },
            last_seen: breaches.iter().map(|breach| breach.last_end).max().unwrap_or(report.start),
            window_seconds: HOUR_SECONDS,
            evidence: BTreeMap::from([
                ("variant", Evidence::Word(variant)),
                ("outcome", Evidence::Word(reach.name())),
                ("protocol", Evidence::Count(protocol.into())),
                ("rule", Evidence::Text(rule.to_owned())),
                ("flows", sum(breaches.iter(), |breach| breach.flows.into())),
                ("rejected", sum(breaches.iter(), |breach| breach.rejected.into())),
                ("bytes", sum(breaches.iter(), |breach| breach.bytes)),
            ]),
            context: view.context_of(breaches.iter().map(|breach| breach.number)),
            exact: true,
        }
    };
    finding(FindingKind::UnauthorizedProtocol, report, view, draft)
}

/// One finding for what is too much of a pane to be told one by one.
fn crowd_finding(crowd: &[&[Breach<'_>]], report: Report, view: &PaneView<'_>) -> Finding {
    let breaches = || crowd.iter().flat_map(|breaches| *breaches);
    let addrs = |of: fn(&Breach<'_>) -> Addr| {
        let mut addrs: Vec<Addr> = breaches().map(of).collect();
        addrs.sort_unstable();
        addrs.dedup();
        addrs
    };
    let clients = addrs(|breach| breach.key.0.0);
    let draft = || {
        let servers = addrs(|breach| breach.key.0.1);
        let farthest = breaches().max_by_key(|breach| breach.reach).expect("a crowd has some");
        let mut ports: Vec<u16> =
            breaches().map(|breach| breach.key.1.1).filter(|port| *port > 0).collect();
        ports.sort_unstable();
        ports.dedup();
        let (client_count, server_count) = (clients.len(), servers.len());
        Draft {
            severity: farthest.severity(),
            confidence: 0.95,
            title: format!(
                "{client_count} more addresses used what no rule allows with {server_count} hosts"
            ),
            // No address: all crowds of an hour are one happening, whoever is in it.
            actor: Addr::v6(0),
            identity: (Vec::new(), Vec::new()),
            targets: servers,
            ports,
            last_seen: breaches().map(|breach| breach.last_end).max().unwrap_or(report.start),
            window_seconds: HOUR_SECONDS,
            evidence: BTreeMap::from([
                ("variant", Evidence::Word("crowd")),
                ("outcome", Evidence::Word(farthest.reach.name())),
                ("pairs", Evidence::Count(crowd.len() as u64)),
                ("distinct_sources", Evidence::Count(client_count as u64)),
                ("distinct_hosts", Evidence::Count(server_count as u64)),
                ("flows", sum(breaches(), |breach| breach.flows.into())),
                ("rejected", sum(breaches(), |breach| breach.rejected.into())),
                ("bytes", sum(breaches(), |breach| breach.bytes)),
            ]),
            context: view
                .context_of(breaches().take(CONTEXT_CONTACTS_MAX).map(|breach| breach.number)),
            exact: true,
        }
    };
    let mut finding = finding(FindingKind::UnauthorizedProtocol, report, view, draft);
    if !finding.is_counted() {
        let addrs = clients.into_iter().take(LISTED_MAX).collect();
        finding.actor = Party { addrs, ports: Vec::new() };
    }
    finding
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::super::hourly::tests::plainly_told;
    use super::super::scenarios::{answered, findings_with, host, network, rejected, syn};
    use super::*;
    use crate::aggregate::ContactRow;
    use crate::detect::{DetectSettings, ProtocolPolicy, ProtocolRule};
    use crate::record::Action;

    const OUTSIDE: &str = "203.0.113.9";
    const OWN: &str = "10.20.1.7";

    fn with_rules(rules: Vec<ProtocolRule>) -> Network {
        let protocols = ProtocolPolicy::new(rules, &BTreeMap::new()).unwrap();
        Network { protocols: Arc::new(protocols), ..network() }
    }

    fn global() -> ProtocolRule {
        ProtocolRule {
            name: "global".to_owned(),
            allowed_protocols: vec![1, 6, 17],
            forbidden_services: vec![(6, 23), (17, 69)],
            ..ProtocolRule::default()
        }
    }

    fn found(
        settings: &DetectSettings,
        rules: Vec<ProtocolRule>,
        rows: &[ContactRow<'_>],
    ) -> Vec<Finding> {
        let found = findings_with(settings, with_rules(rules), rows);
        found.into_iter().filter(|one| one.kind == FindingKind::UnauthorizedProtocol).collect()
    }

    /// Variant, outcome and severity of each finding.
    fn check(rows: &[ContactRow<'_>], expected: &[(&str, &str, Severity)]) {
        let web = ProtocolRule {
            name: "web".to_owned(),
            subnets: vec!["subnet-web".to_owned()],
            allowed_services: vec![(6, 443)],
            ..ProtocolRule::default()
        };
        let found = found(&DetectSettings::default(), vec![global(), web], rows);
        let word = |one: &Finding, name: &str| match one.evidence[name] {
            Evidence::Word(word) => word,
            ref other => panic!("{other:?}"),
        };
        let told: Vec<_> = found
            .iter()
            .map(|one| (word(one, "variant"), word(one, "outcome"), one.severity))
            .collect();
        assert_eq!(told, expected);
    }

    fn gre(row: ContactRow<'static>) -> ContactRow<'static> {
        ContactRow { protocol: 47, src_port: 0, dst_port: 0, tcp_flags: None, ..row }
    }

    #[test]
    fn protocols_count_whatever_became_of_them() {
        let row = gre(syn(10, OUTSIDE, host(5), 0));
        check(&[row], &[("protocol", "passed", Severity::High)]);
        check(&[rejected(row)], &[("protocol", "rejected", Severity::Low)]);
        check(&[gre(syn(10, OWN, host(5), 0))], &[("protocol", "passed", Severity::Medium)]);
    }

    #[test]
    fn services_count_if_they_are_used_or_tried_from_inside() {
        let telnet = |source| syn(10, source, host(5), 23);
        check(&answered(telnet(OUTSIDE), 0), &[("forbidden_service", "answered", Severity::High)]);
        check(&answered(telnet(OWN), 0), &[("forbidden_service", "answered", Severity::Medium)]);
        check(&[rejected(telnet(OWN))], &[("forbidden_service", "rejected", Severity::Low)]);
        check(&[rejected(telnet(OUTSIDE)), telnet("203.0.113.10")], &[]);
        let mut settings = DetectSettings::default();
        settings.unauthorized_protocol.vain_from_outside = true;
        assert_eq!(found(&settings, vec![global()], &[rejected(telnet(OUTSIDE))]).len(), 1);
    }

    #[test]
    fn what_is_allowed_is_left_alone() {
        let rows: Vec<_> = answered(syn(10, OUTSIDE, host(5), 443), 0).to_vec();
        check(&rows, &[]);
        check(&answered(syn(10, "10.20.5.99", host(5), 23), 0), &[]);
        let telnet = answered(syn(10, OUTSIDE, host(5), 23), 0);
        assert!(found(&DetectSettings::default(), Vec::new(), &telnet).is_empty());
        // A reply to what was said before.
        check(&telnet[1..], &[]);
    }

    #[test]
    fn a_subnet_has_its_own_list() {
        let web = |port, subnet| {
            let rows = answered(syn(10, OUTSIDE, host(5), port), 0);
            rows.map(|row| ContactRow { subnet_id: Some(subnet), ..row })
        };
        check(&web(443, b"subnet-web"), &[]);
        check(&web(80, b"subnet-web"), &[("service_not_allowed", "answered", Severity::High)]);
        check(&web(80, b"subnet-app"), &[]);
    }

    #[test]
    fn a_finding_names_protocol_and_rule() {
        let row = gre(syn(10, OUTSIDE, host(5), 0));
        let found = found(&DetectSettings::default(), vec![global()], &[row]);
        let title = "203.0.113.9 used protocol 47 (GRE) with 10.20.1.5, which is not among the \
                     protocols of rule `global`";
        assert_eq!(found[0].title, title);
        assert_eq!(found[0].evidence["rule"], Evidence::Text("global".to_owned()));
        assert!(found[0].target.ports.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn plain_lists_say_the_same(
            seen in prop::collection::vec(
                (0_i64..12_000, any::<bool>(), 0_u16..3, 0_u8..3, any::<bool>()), 0..60),
        ) {
            let rows: Vec<_> = seen
                .iter()
                .map(|(at, is_own, target, service, is_rejected)| {
                    let source = if *is_own { "10.20.7.7" } else { OUTSIDE };
                    let row = syn(*at, source, host(*target), [23, 443, 0][usize::from(*service)]);
                    let row = if *service == 2 { gre(row) } else { row };
                    if *is_rejected { rejected(row) } else { row }
                })
                .collect();
            let mut panes: BTreeMap<(i64, Key), (u64, i64)> = BTreeMap::new();
            for row in &rows {
                let key = ((row.src, row.dst), (row.protocol, row.dst_port));
                let is_from_outside = row.src == OUTSIDE.parse::<Addr>().unwrap();
                if row.dst_port == 443 || (row.dst_port == 23 && is_from_outside) {
                    continue;
                }
                // A pane in which anything was rejected and nothing answered is a rejection.
                let seen = panes.entry((row.end.0 / 60, key)).or_insert((2, i64::MIN));
                if row.action == Action::Reject {
                    seen.0 = 1;
                }
                seen.1 = seen.1.max(row.end.0);
            }
            let expected = plainly_told(panes.into_iter().map(|((_, key), seen)| (key, seen)));
            let found: Vec<_> = found(&DetectSettings::default(), vec![global()], &rows)
                .iter()
                .map(|one| {
                    let Evidence::Count(protocol) = one.evidence["protocol"] else { panic!() };
                    let port = one.target.ports.first().copied().unwrap_or(0);
                    let pair = (one.actor.addrs[0], one.target.addrs[0]);
                    let key = (pair, (u8::try_from(protocol).unwrap(), port));
                    (key, one.status, one.revision, one.last_seen.0)
                })
                .collect();
            prop_assert_eq!(found, expected);
        }
    }
}
