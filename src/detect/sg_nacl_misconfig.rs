//! Rules that reject what should pass, from records alone.
//!
//! Two signs. Answers of a service are rejected on their way back: security groups let answers pass, so it is a
//! network ACL without the clients' ports. Or an inside client is rejected minute after minute on the same port
//! of the same host, which scanners are not and retrying programs are: a security group's rule is missing, most
//! likely. A client that was rejected on many ports of the host is left to the scan detectors.
//!
//! Which rule it is, only the rules themselves can tell; see `evidence` for what the records say.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;

use super::detector::{Detector, Met};
use super::episode::{Episodes, Sighting};
use super::network::Network;
use super::outcome::{TCP, UDP};
use super::pane::PaneView;
use super::report::{Draft, finding, spelled};
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_range};
use crate::aggregate::{ContactKey, TCP_SYN, Tally};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// Longest packet without payload, over IPv6.
const HEADERS_BYTES_MAX: u64 = 80;

/// Peers that are remembered of a service.
const PEERS_MAX: usize = 50;

/// With more answered clients than this for each rejected answer, a service works.
const ANSWERED_PER_REJECTED_MAX: usize = 4;

/// Bytes that a rejected service takes: its entry, its panes and its peers.
const REJECTED_BYTES: usize = 512;

/// Bytes that each remembered pane takes.
const PANE_BYTES: usize = 16;

/// `[detectors.sg_nacl_misconfig]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgNaclMisconfigSettings {
    /// Whether to look for rules that reject what should pass.
    pub enabled: bool,
    /// Panes in which an inside client was rejected on the same port of the same host, 2 to 1000.
    pub windows_min: u32,
    /// Rejected answers of a service: as many contacts of a pane, 2 to 1000.
    pub answers_min: u32,
    /// A client that was rejected on more ports of a host than this scans it, 1 to 65536.
    pub scanned_ports_max: u32,
    /// The window, 60 to 86400.
    pub window_seconds: u32,
    /// Rejected services kept, 1000 to 1000000000; one takes about 500 bytes.
    pub tracked_max: u32,
}

impl Default for SgNaclMisconfigSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            windows_min: 10,
            answers_min: 5,
            scanned_ports_max: 12,
            window_seconds: 14_400,
            tracked_max: 100_000,
        }
    }
}

impl SgNaclMisconfigSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        check_range("windows_min", self.windows_min, 2..=1000, usual.windows_min)?;
        check_range("answers_min", self.answers_min, 2..=1000, usual.answers_min)?;
        let ports = ("scanned_ports_max", self.scanned_ports_max);
        check_range(ports.0, ports.1, 1..=65_536, usual.scanned_ports_max)?;
        let windows = 60..=WINDOW_SECONDS_MAX;
        check_range("window_seconds", self.window_seconds, windows, usual.window_seconds)?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// What rejects, as far as records tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cause {
    SecurityGroup,
    NetworkAcl,
}

impl Cause {
    const fn name(self) -> &'static str {
        match self {
            Self::SecurityGroup => "security_group",
            Self::NetworkAcl => "network_acl",
        }
    }

    const fn variant(self) -> &'static str {
        match self {
            Self::SecurityGroup => "sg_rule_missing",
            Self::NetworkAcl => "nacl_return_blocked",
        }
    }
}

/// A contact of the pane of which a rule rejected something.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    /// Which contact it is of the pane's.
    number: u32,
    cause: Cause,
    /// Whose packets are rejected.
    sender: Addr,
    receiver: Addr,
    protocol: u8,
    port: u16,
    /// Whether an interface let pass what another one rejected.
    has_passed: bool,
}

/// Of a security group: the client, and the server of each; of a network ACL: the server, whose clients are
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Service {
    cause: Cause,
    sender: Addr,
    /// None for a network ACL.
    receiver: Option<Addr>,
    protocol: u8,
    port: u16,
}

impl Saved for Service {
    const BYTES_MIN: usize = 21;

    fn save(&self, out: &mut Encoder) {
        out.bool(self.cause == Cause::NetworkAcl);
        self.sender.save(out);
        self.receiver.save(out);
        out.u8(self.protocol);
        out.u16(self.port);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let cause = if from.bool()? { Cause::NetworkAcl } else { Cause::SecurityGroup };
        Ok(Self {
            cause,
            sender: Addr::load(from)?,
            receiver: Option::load(from)?,
            protocol: from.u8()?,
            port: from.u16()?,
        })
    }
}

/// What was rejected of a service in the window.
#[derive(Clone, Debug)]
struct Rejected {
    /// The latest panes with a rejection, as many as the threshold is.
    panes: VecDeque<PaneIndex>,
    peers: BTreeMap<Addr, PaneIndex>,
    start: UnixSeconds,
    contacts: u64,
    /// Lowest and highest port of clients, whose answers were rejected.
    client_ports: (u16, u16),
    has_passed: bool,
}

impl Saved for Rejected {
    const BYTES_MIN: usize = 37;

    fn save(&self, out: &mut Encoder) {
        out.count(self.panes.len());
        self.panes.iter().for_each(|pane| pane.save(out));
        self.peers.save(out);
        self.start.save(out);
        out.u64(self.contacts);
        out.u16(self.client_ports.0);
        out.u16(self.client_ports.1);
        out.bool(self.has_passed);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = from.count(PaneIndex::BYTES_MIN)?;
        let panes: Result<VecDeque<_>, _> = (0..count).map(|_| PaneIndex::load(from)).collect();
        let panes = panes?;
        if panes.is_empty() {
            return Err(DecodeError::Invalid("panes of a rejected service"));
        }
        Ok(Self {
            panes,
            peers: BTreeMap::load(from)?,
            start: UnixSeconds::load(from)?,
            contacts: from.u64()?,
            client_ports: (from.u16()?, from.u16()?),
            has_passed: from.bool()?,
        })
    }
}

impl Rejected {
    fn last_pane(&self) -> PaneIndex {
        *self.panes.back().expect("it was made with one")
    }
}

/// What is reported together: the services of one sender on one port.
type EpisodeKey = ((u8, Addr), (u8, u16));

/// The detector's memory.
#[derive(Debug)]
pub(super) struct SgNaclMisconfig {
    settings: SgNaclMisconfigSettings,
    services: BTreeMap<Service, Rejected>,
    episodes: Episodes<EpisodeKey>,
    services_max: usize,
    evictions: u64,
    inexact_until: PaneIndex,
    /// Of the pane that is judged next; kept for the memory.
    refusals: Vec<Refusal>,
}

impl SgNaclMisconfig {
    /// A detector without memory, whose tables take at most `bytes_max`.
    pub(super) fn new(settings: SgNaclMisconfigSettings, bytes_max: usize) -> Self {
        let tracked_max = settings.tracked_max as usize;
        let open_max = tracked_max.min(bytes_max / 8 / Episodes::<EpisodeKey>::entry_bytes());
        let panes = settings.windows_min.max(settings.answers_min) as usize;
        let service_bytes = REJECTED_BYTES + panes * PANE_BYTES;
        Self {
            services: BTreeMap::new(),
            episodes: Episodes::new(settings.window_seconds, open_max),
            services_max: tracked_max.min(bytes_max / 8 * 7 / service_bytes).max(1),
            evictions: 0,
            inexact_until: PaneIndex(i64::MIN),
            refusals: Vec::new(),
            settings,
        }
    }

    fn service_bytes(&self) -> usize {
        REJECTED_BYTES
            + self.settings.windows_min.max(self.settings.answers_min) as usize * PANE_BYTES
    }

    fn service_of(refusal: &Refusal) -> Service {
        let Refusal { cause, sender, receiver, protocol, port, .. } = *refusal;
        let receiver = (cause == Cause::SecurityGroup).then_some(receiver);
        Service { cause, sender, receiver, protocol, port }
    }

    /// Adds a refusal; says nothing of thresholds.
    fn note(&mut self, refusal: &Refusal, view: &PaneView<'_>) {
        let now = view.index();
        let panes_max = match refusal.cause {
            Cause::SecurityGroup => self.settings.windows_min,
            Cause::NetworkAcl => self.settings.answers_min,
        };
        let contact = view.contact_at(refusal.number);
        let expired = view.before_window(self.settings.window_seconds);
        let service = self.services.entry(Self::service_of(refusal)).or_insert_with(|| Rejected {
            panes: VecDeque::new(),
            peers: BTreeMap::new(),
            start: contact.first_start(),
            contacts: 0,
            client_ports: (u16::MAX, 0),
            has_passed: false,
        });
        // Each answer counts; of requests only whether there was one in a pane.
        if refusal.cause == Cause::NetworkAcl || service.panes.back() != Some(&now) {
            service.panes.push_back(now);
        }
        while service.panes.len() > panes_max as usize || service.panes[0] <= expired {
            service.panes.pop_front();
        }
        service.peers.retain(|_, last_pane| *last_pane > expired);
        if service.peers.len() < PEERS_MAX || service.peers.contains_key(&refusal.receiver) {
            service.peers.insert(refusal.receiver, now);
        }
        service.start = service.start.min(contact.first_start());
        service.contacts = service.contacts.saturating_add(1);
        // Two interfaces that saw a request say the same as two records of it.
        let is_seen_twice = contact.places().iter().count() > 1;
        service.has_passed |=
            refusal.has_passed || refusal.cause == Cause::SecurityGroup && is_seen_twice;
        for port in contact.client_ports() {
            let (lowest, highest) = service.client_ports;
            service.client_ports = (lowest.min(*port), highest.max(*port));
        }
    }

    /// Whether a client was rejected on more ports of a host than programs use.
    fn is_scan(&self, service: &Service) -> bool {
        let ports = |protocol, port| Service { protocol, port, ..*service };
        let on_host = self.services.range(ports(0, 0)..=ports(u8::MAX, u16::MAX));
        on_host.take(self.settings.scanned_ports_max as usize + 1).count()
            > self.settings.scanned_ports_max as usize
    }

    fn is_over(&self, service: &Service) -> bool {
        let rejected = &self.services[service];
        match service.receiver {
            None => rejected.panes.len() >= self.settings.answers_min as usize,
            Some(_) => {
                rejected.panes.len() >= self.settings.windows_min as usize && !self.is_scan(service)
            }
        }
    }

    /// The finding of one sender and port, of which these services are over their thresholds.
    fn report(
        &mut self,
        services: &[Service],
        refusals: &[Refusal],
        view: &PaneView<'_>,
    ) -> Option<Finding> {
        let Service { cause, sender, protocol, port, .. } = services[0];
        let of_services = |refusal: &&Refusal| services.contains(&Self::service_of(refusal));
        let contacts: Vec<u32> =
            refusals.iter().filter(of_services).map(|refusal| refusal.number).collect();
        let last_seen = contacts.iter().map(|number| view.contact_at(*number).last_end()).max()?;
        let all: Vec<&Rejected> = services.iter().map(|service| &self.services[service]).collect();
        let count: u64 = all.iter().map(|rejected| rejected.contacts).sum();
        let first_seen = all.iter().map(|rejected| rejected.start).min()?;
        let peers: BTreeSet<Addr> =
            all.iter().flat_map(|rejected| rejected.peers.keys().copied()).collect();
        let has_passed = all.iter().any(|rejected| rejected.has_passed);
        let lowest = all.iter().map(|rejected| rejected.client_ports.0).min()?;
        let highest = all.iter().map(|rejected| rejected.client_ports.1).max()?;
        let key = ((cause as u8, sender), (protocol, port));
        // Reported anew when there are twice as many hosts, or hourly.
        let sighting = Sighting { first_seen, last_seen, size: peers.len() as u64 };
        let report = self.episodes.note(key, sighting)?;
        let exact = view.index() > self.inexact_until;
        let window_seconds = self.settings.window_seconds;
        let draft = || {
            let service = match protocol {
                TCP => format!("TCP port {port}"),
                UDP => format!("UDP port {port}"),
                _ => format!("protocol {protocol}"),
            };
            let hosts = match peers.len() {
                1 => peers.first().map_or_else(String::new, Addr::to_string),
                count => format!("{count} hosts"),
            };
            let within = spelled(window_seconds);
            let title = match cause {
                Cause::SecurityGroup => format!(
                    "{sender} was rejected again and again on {service} of {hosts} within {within}; \
                     a security group may lack a rule"
                ),
                Cause::NetworkAcl => format!(
                    "answers of {sender} from {service} to {hosts} were rejected; a network ACL does \
                     not let them back"
                ),
            };
            let mut evidence = BTreeMap::from([
                ("variant", Evidence::Word(cause.variant())),
                ("likely_cause", Evidence::Word(cause.name())),
                ("rejected_contacts", Evidence::Count(count)),
                ("distinct_hosts", Evidence::Count(peers.len() as u64)),
            ]);
            let direction = match cause {
                // One interface let it go, so it was the other one that took it not in.
                _ if has_passed => "ingress",
                Cause::SecurityGroup => "unknown",
                Cause::NetworkAcl => "egress",
            };
            evidence.insert("direction", Evidence::Word(direction));
            if cause == Cause::NetworkAcl && lowest <= highest {
                evidence.insert("client_port_min", Evidence::Count(lowest.into()));
                evidence.insert("client_port_max", Evidence::Count(highest.into()));
            }
            Draft {
                severity: match cause {
                    Cause::SecurityGroup => Severity::Low,
                    Cause::NetworkAcl => Severity::Medium,
                },
                confidence: match cause {
                    Cause::SecurityGroup => 0.7,
                    Cause::NetworkAcl => 0.95,
                },
                title,
                actor: sender,
                identity: (Vec::new(), vec![cause as u16, u16::from(protocol), port]),
                targets: peers.iter().copied().collect(),
                ports: if port == 0 { Vec::new() } else { vec![port] },
                last_seen,
                window_seconds,
                evidence,
                context: view.context_of(contacts.iter().copied()),
                exact,
            }
        };
        Some(finding(FindingKind::SgNaclMisconfig, report, view, draft))
    }

    fn forget(&mut self, view: &PaneView<'_>) {
        let expired = view.before_window(self.settings.window_seconds);
        if self.services.len() <= self.services_max {
            return;
        }
        let excess = self.services.len() - (self.services_max - self.services_max / 10);
        // Services that were rejected once are those of scanners.
        let mut ranks: Vec<_> = self
            .services
            .iter()
            .map(|(service, rejected)| (rejected.contacts > 1, rejected.last_pane(), *service))
            .collect();
        ranks.sort_unstable();
        for (.., service) in &ranks[..excess] {
            self.services.remove(service);
            self.evictions += 1;
        }
        self.inexact_until = view.after_window(expired);
    }
}

/// Whether no packet carried payload.
const fn is_headers(tally: Tally) -> bool {
    tally.bytes <= tally.packets.saturating_mul(HEADERS_BYTES_MAX)
}

/// What a rule rejected of a contact, if anything that points to the rule.
fn refusal_of(met: &Met, network: &Network) -> Option<Refusal> {
    let Met { number, key, forward: (forward, flags), back: (back, _) } = *met;
    if forward.rejected == 0 && back.rejected == 0 {
        return None;
    }
    let ContactKey { client, server, protocol, port } = key;
    let refusal = |cause, sender, receiver, tally: Tally| Refusal {
        number,
        cause,
        sender,
        receiver,
        protocol,
        port,
        has_passed: tally.flows > tally.rejected,
    };
    // Without directions, what one end let go and the other one rejected counts twice.
    let is_all = |tally: Tally| {
        tally.rejected > 0
            && (tally.rejected == tally.flows
                || tally.rejected.saturating_mul(2) == tally.flows && is_headers(tally))
    };
    let is_none = |tally: Tally| tally.rejected == 0 && tally.flows > 0;
    // Late packets of a session that worked are rejected too; those of a handshake carry SYN and no payload.
    let is_request = |tally: Tally| is_none(tally) && (protocol != TCP || is_headers(tally));
    let is_handshake = flags.is_none_or(|flags| protocol != TCP || flags & TCP_SYN != 0);
    if is_request(forward) && is_handshake && is_all(back) && network.is_inside(server) {
        return Some(refusal(Cause::NetworkAcl, server, client, back));
    }
    if port == 0 && is_request(back) && is_all(forward) && network.is_inside(client) {
        // Which of two ends without ports asked is unknown; the one whose packets passed did.
        return Some(refusal(Cause::NetworkAcl, client, server, forward));
    }
    let is_lost = forward.rejected > 0 && back.flows == 0;
    let is_between_own = network.is_inside(client) && network.is_inside(server);
    (is_lost && is_between_own && !network.is_exempt_actor(client))
        .then(|| refusal(Cause::SecurityGroup, client, server, forward))
}

/// Drops the rejected answers of services that answer far more clients than they don't: those are late packets.
/// `refusals` are in the order of services.
fn drop_working(refusals: &mut Vec<Refusal>, view: &PaneView<'_>) {
    let place = |refusal: &Refusal| (refusal.sender, refusal.protocol, refusal.port);
    let mut answers: BTreeMap<(Addr, u8, u16), [usize; 2]> = BTreeMap::new();
    let mut ports: Vec<u16> = Vec::new();
    for refusal in refusals.iter().filter(|refusal| refusal.cause == Cause::NetworkAcl) {
        answers.entry(place(refusal)).or_default()[0] += 1;
        ports.push(refusal.port);
    }
    if ports.is_empty() {
        return;
    }
    ports.sort_unstable();
    ports.dedup();
    for tried in view.tried.iter().filter(|tried| !tried.outcome.is_failed()) {
        if ports.binary_search(&tried.port).is_ok()
            && let Some(counts) = answers.get_mut(&(tried.server, tried.protocol, tried.port))
        {
            counts[1] += 1;
        }
    }
    refusals.retain(|refusal| {
        refusal.cause == Cause::SecurityGroup || {
            let [rejected, answered] = answers[&place(refusal)];
            answered <= ANSWERED_PER_REJECTED_MAX * rejected
        }
    });
}

impl Detector for SgNaclMisconfig {
    fn name(&self) -> &'static str {
        "sg_nacl_misconfig"
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

    fn watch(&mut self, contacts: &[Met], network: &Network) {
        self.refusals.extend(contacts.iter().filter_map(|met| refusal_of(met, network)));
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let expired = view.before_window(self.settings.window_seconds);
        self.services.retain(|_, rejected| rejected.last_pane() > expired);
        let mut refusals = std::mem::take(&mut self.refusals);
        refusals.sort_unstable_by_key(|refusal| (Self::service_of(refusal), refusal.receiver));
        drop_working(&mut refusals, view);
        for refusal in &refusals {
            self.note(refusal, view);
        }
        let mut services: Vec<Service> = refusals.iter().map(Self::service_of).collect();
        services.dedup();
        services.retain(|service| self.is_over(service));
        let place =
            |service: &Service| (service.sender, service.cause, service.protocol, service.port);
        services.sort_by_key(place);
        for group in services.chunk_by(|one, other| place(one) == place(other)) {
            out.extend(self.report(group, &refusals, view));
        }
        refusals.clear();
        self.refusals = refusals;
        self.forget(view);
        self.episodes.end_pane(view.index().end(view.pane_seconds));
    }

    fn evictions(&self) -> u64 {
        self.evictions + self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.services.len() * self.service_bytes() + self.episodes.bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.refusals.capacity() * size_of::<Refusal>()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.evictions);
        self.services.save(out);
        self.episodes.save(out);
        self.inexact_until.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("rejected services", 1..=1)?;
        let evictions = from.u64()?;
        let services = BTreeMap::load(from)?;
        let episodes = self.episodes.load(from)?;
        self.inexact_until = PaneIndex::load(from)?;
        self.services = services;
        self.episodes = episodes;
        self.evictions = evictions;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::scenarios::{OUTSIDE, answered, check, host, rejected, reply, syn};
    use super::super::{DetectSettings, DetectorSet};
    use crate::aggregate::{CONTACT_BYTES_DEFAULT, ContactRow, ContactTable};
    use crate::finding::{FindingKind, Status};
    use crate::record::Action;

    const CLIENT: &str = "10.20.7.7";

    /// A request that is let in, and its answer that is not let out.
    fn blocked(at: i64, port: u16, client_port: u16) -> [ContactRow<'static>; 2] {
        let request = ContactRow { src_port: client_port, ..syn(at, CLIENT, host(5), port) };
        [request, ContactRow { action: Action::Reject, ..reply(request, 0, 1, 60, 18) }]
    }

    fn without_flags(rows: &[ContactRow<'static>]) -> Vec<ContactRow<'static>> {
        let stripped = |row: &ContactRow<'static>| ContactRow { tcp_flags: None, ..*row };
        rows.iter().map(stripped).collect()
    }

    #[test]
    fn rejected_answers_point_to_a_network_acl() {
        for port in [443, 9443] {
            let blocked = |count| -> Vec<_> {
                (0..count).flat_map(|i| blocked(i * 70, port, 50_000)).collect()
            };
            let found = [("sg_nacl_misconfig", "nacl_return_blocked", Status::Open)];
            check(&blocked(4), &[]);
            check(&blocked(5), &found);
            check(&without_flags(&blocked(5)), &found);
        }
    }

    #[test]
    fn late_packets_of_a_service_that_works_are_left_alone() {
        let mut rows: Vec<_> = (0..6).flat_map(|i| blocked(i * 70, 443, 50_000)).collect();
        for i in 0..6 {
            rows.extend((0..5).flat_map(|client| {
                let row =
                    ContactRow { src: host(100 + client), ..syn(i * 70, CLIENT, host(5), 443) };
                answered(row, 0)
            }));
        }
        check(&without_flags(&rows), &[]);
    }

    #[test]
    fn an_inside_client_that_tries_on_lacks_a_rule() {
        let tries = |count: i64, src: &'static str, ports: u16| -> Vec<_> {
            let minute = move |i| {
                (0..ports).map(move |port| rejected(syn(i * 60, src, host(5), 5432 + port)))
            };
            (0..count).flat_map(minute).collect()
        };
        check(&tries(9, CLIENT, 1), &[]);
        check(&tries(10, CLIENT, 1), &[("sg_nacl_misconfig", "sg_rule_missing", Status::Open)]);
        check(&tries(10, OUTSIDE, 1), &[]);
        check(&tries(10, "10.20.5.99", 13), &[]);
        check(&tries(10, CLIENT, 13), &[("port_scan", "fast", Status::Open)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Which clients are over the threshold in which pane, by walking through a list of all refusals.
        #[test]
        fn a_list_says_the_same(
            tries in prop::collection::vec((0_i64..30, 0_u16..3, 0_u16..3, 0_u16..4), 0..120),
        ) {
            const WINDOW_PANES: i64 = 6;
            let mut settings = DetectSettings::default();
            settings.sg_nacl_misconfig.windows_min = 3;
            settings.sg_nacl_misconfig.scanned_ports_max = 2;
            settings.sg_nacl_misconfig.window_seconds = 360;
            let mut table = ContactTable::new(60, 1, CONTACT_BYTES_DEFAULT);
            for (pane, client, server, port) in &tries {
                let row = rejected(syn(pane * 60 + 5, CLIENT, host(50 + server), 9000 + port));
                table.add_row(&ContactRow { src: host(100 + client), ..row });
            }
            let network = super::super::scenarios::network();
            let mut detectors = DetectorSet::new(&settings, network, 60);
            let mut out = Vec::new();
            for shard in table.close_all() {
                detectors.on_pane(shard.pane, vec![shard], &mut out);
            }
            detectors.on_end(&mut out);
            let mut found: Vec<_> = out
                .iter()
                .filter(|finding| finding.kind == FindingKind::SgNaclMisconfig)
                .filter(|finding| finding.status == Status::Open)
                .map(|finding| (finding.actor.addrs[0], finding.target.ports[0]))
                .collect();
            found.sort_unstable();
            found.dedup();
            let mut expected = Vec::new();
            for now in 0..30_i64 {
                let recent: Vec<_> = tries
                    .iter()
                    .filter(|(pane, ..)| (now - WINDOW_PANES + 1..=now).contains(pane))
                    .collect();
                for (pane, client, server, port) in &recent {
                    let mine = |other: &&&(i64, u16, u16, u16)| (other.1, other.2) == (*client, *server);
                    let panes: BTreeSet<i64> = recent
                        .iter()
                        .filter(mine)
                        .filter(|other| other.3 == *port)
                        .map(|other| other.0)
                        .collect();
                    let ports: BTreeSet<u16> =
                        recent.iter().filter(mine).map(|other| other.3).collect();
                    if *pane == now && panes.len() >= 3 && ports.len() <= 2 {
                        expected.push((host(100 + client), 9000 + port));
                    }
                }
            }
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(found, expected);
        }
    }
}
