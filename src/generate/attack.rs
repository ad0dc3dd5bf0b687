//! Planted attacks: when each one acts, and what one contact of it looks like in flow logs.
//!
//! A [`Schedule`] holds the attacks of one period in the order of their next contact. What was really
//! written is counted in a [`Tally`] per attack, so that labels never promise more than the lines hold.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::background::ephemeral;
use super::exchange::{AttackIndex, Exchange, Flow, ICMP, ICMP_V6, Leg, Outcome, Party, TCP, UDP};
use super::exchange::{FIN, RST, SYN, SYN_ACK};
use super::network::{InterfaceIndex, Network};
use super::random::{Random, mix2};
use super::settings::{ATTACK_SHARE_INVERSE, AttackKind, GenerateSettings};
use crate::net::Addr;

/// How an attack of its kind goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variant {
    /// A firewall in front of the target rejects nearly everything.
    Rejected,
    /// Everything is let through, and the hosts stay silent or refuse.
    OpenGroup,
    /// From one of our own hosts.
    Internal,
    /// ICMP echo requests.
    Icmp,
    /// Datagrams to one port.
    Datagrams,
    /// From the internet.
    External,
    /// One SSH client from the internet.
    Ssh,
    /// One RDP client from the internet.
    Rdp,
}

impl Variant {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::OpenGroup => "open_group",
            Self::Internal => "internal",
            Self::Icmp => "icmp",
            Self::Datagrams => "udp",
            Self::External => "external",
            Self::Ssh => "ssh",
            Self::Rdp => "rdp",
        }
    }

    /// Of 100 requests: how many are rejected, silently dropped, refused; the rest are answered.
    const fn fates(self) -> [u64; 3] {
        match self {
            Self::OpenGroup => [0, 78, 17],
            Self::Icmp => [60, 20, 0],
            Self::Internal => [82, 8, 7],
            _ => [88, 8, 1],
        }
    }
}

/// What one kind of attack may look like.
struct Range {
    variants: &'static [Variant],
    contacts: (u64, u64),
    seconds: (u64, u64),
}

const fn range_of(kind: AttackKind) -> Range {
    use Variant::{Datagrams, External, Icmp, Internal, OpenGroup, Rdp, Rejected, Ssh};
    let (variants, contacts, seconds): (&[Variant], _, _) = match kind {
        AttackKind::PortScan => (&[Rejected, OpenGroup, Internal], (120, 1_000), (5, 240)),
        AttackKind::HostSweep => {
            (&[Rejected, OpenGroup, Icmp, Datagrams, Internal], (60, 300), (5, 240))
        }
        AttackKind::SshBruteforce | AttackKind::RdpBruteforce => {
            (&[External, External, Internal], (60, 240), (60, 500))
        }
        AttackKind::RemoteAccess => (&[Ssh, Rdp], (3, 8), (60, 400)),
    };
    Range { variants, contacts, seconds }
}

/// Ports that sweeps look for; administration ports are left to the attacks on logins.
const SWEPT_PORTS: [u16; 6] = [445, 1433, 6379, 8080, 2375, 9200];
const SWEPT_UDP_PORTS: [u16; 3] = [161, 1900, 11211];
/// Fewest contacts after the records were shared out among the attacks.
const CONTACTS_MIN: u64 = 60;
/// Most records that one contact leaves: both directions at both ends.
const CONTACT_RECORDS_MAX: u64 = 4;

/// One planted attack.
#[derive(Clone, Debug)]
pub(super) struct Attack {
    pub(super) kind: AttackKind,
    pub(super) variant: Variant,
    pub(super) actor: Addr,
    pub(super) planned_contacts: u64,
    pub(super) tally: Tally,
    actor_interface: Option<InterfaceIndex>,
    targets: Vec<InterfaceIndex>,
    port: u16,
    protocol: u8,
    v6: bool,
    done: u64,
    first_ms: u64,
    span_ms: u64,
    salt: u64,
}

/// What was written of an attack.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) rejected_records: u64,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Earliest `start` and latest `end`, once there is a record.
    pub(super) span: Option<(i64, i64)>,
    pub(super) protocols: BTreeSet<u8>,
    pub(super) ports: BTreeSet<u16>,
    pub(super) hosts: BTreeSet<Addr>,
}

impl Tally {
    pub(super) fn count(&mut self, flow: &Flow) {
        self.records += 1;
        self.rejected_records += u64::from(flow.rejected);
        self.packets += flow.packets;
        self.bytes += flow.bytes;
        let (start, end) = self.span.unwrap_or((flow.start, flow.end));
        self.span = Some((start.min(flow.start), end.max(flow.end)));
        self.protocols.insert(flow.protocol);
        if flow.request {
            self.hosts.insert(flow.dst);
            if matches!(flow.protocol, TCP | UDP) {
                self.ports.insert(flow.dst_port);
            }
        }
    }
}

/// The attacks of one period and which of them acts next.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    attacks: Vec<Attack>,
    /// Milliseconds of event time at which each attack acts next.
    due: BinaryHeap<Reverse<(u64, AttackIndex)>>,
    random: Random,
}

impl Schedule {
    /// Plans the attacks of the `period`-th period, which begins at `period_start_ms`.
    pub(super) fn plan(
        settings: &GenerateSettings,
        network: &Network,
        period: u64,
        period_start_ms: u64,
    ) -> Self {
        let mut random = Random::new(mix2(settings.seed ^ 0x6174_746b, period));
        let kinds = settings.attacks.iter();
        let kinds = kinds.flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count as usize));
        let mut attacks = Vec::new();
        for kind in kinds {
            let place = period.wrapping_mul(settings.attack_count()) + attacks.len() as u64;
            let attack = plan_attack(settings, network, kind, place, &mut random);
            attacks.push(Attack { first_ms: attack.first_ms + period_start_ms, ..attack });
        }
        let mut schedule = Self { attacks, due: BinaryHeap::new(), random };
        for index in 0..schedule.attacks.len() {
            let index = AttackIndex(u32::try_from(index).expect("settings allow 10,000 of a kind"));
            schedule.await_next_contact(index);
        }
        schedule
    }

    pub(super) fn attacks(&self) -> &[Attack] {
        &self.attacks
    }

    /// Notes that a record of the attack was written.
    pub(super) fn count(&mut self, index: AttackIndex, flow: &Flow) {
        self.attacks[index.0 as usize].tally.count(flow);
    }

    /// Appends the records of one contact, if one is due; its last packet is at `end`.
    pub(super) fn act(
        &mut self,
        network: &Network,
        now_ms: u64,
        end: i64,
        flows: &mut Vec<Flow>,
    ) -> bool {
        match self.due.peek() {
            Some(Reverse((due_ms, _))) if *due_ms <= now_ms => {}
            _ => return false,
        }
        let Some(Reverse((_, index))) = self.due.pop() else { return false };
        let attack = &mut self.attacks[index.0 as usize];
        let exchange = attack.contact(network, &mut self.random);
        Exchange { end, attack: Some(index), ..exchange }.record(network, flows);
        attack.done += 1;
        self.await_next_contact(index);
        true
    }

    fn await_next_contact(&mut self, index: AttackIndex) {
        let attack = &self.attacks[index.0 as usize];
        if attack.done < attack.planned_contacts {
            let gap_ms = attack.span_ms / attack.planned_contacts;
            let due_ms = attack.first_ms + attack.done * gap_ms + self.random.below(gap_ms.max(1));
            self.due.push(Reverse((due_ms, index)));
        }
    }
}

/// Decides everything about an attack; its time counts from the start of its period.
fn plan_attack(
    settings: &GenerateSettings,
    network: &Network,
    kind: AttackKind,
    place: u64,
    random: &mut Random,
) -> Attack {
    let range = range_of(kind);
    let variant = random.pick(range.variants);
    let period_records = settings.period_records();
    let records_each = period_records / ATTACK_SHARE_INVERSE / settings.attack_count();
    let ordinary = network.interface_count() - InterfaceIndex::FIRST_ORDINARY;
    let drawn = random.between(range.contacts.0, range.contacts.1);
    let contacts = drawn.min((records_each / CONTACT_RECORDS_MAX).max(CONTACTS_MIN));
    let target_count =
        if kind == AttackKind::HostSweep { contacts.min(u64::from(ordinary) * 3 / 4) } else { 1 };
    let contacts = if kind == AttackKind::HostSweep { target_count } else { contacts };

    let period_ms = period_records.saturating_mul(1_000) / settings.records_per_second;
    // Attacks may not crowd out the traffic around them: at most one record in four at a time.
    let least_ms = contacts * CONTACT_RECORDS_MAX * 4 * 1_000 / settings.records_per_second;
    let drawn_ms = random.between(range.seconds.0, range.seconds.1) * 1_000;
    let span_ms = drawn_ms.max(least_ms).min(period_ms * 6 / 10);
    let first_ms = period_ms / 20 + random.below((period_ms * 87 / 100 - span_ms).max(1));

    let (port, protocol) = match (kind, variant) {
        (AttackKind::SshBruteforce, _) | (_, Variant::Ssh) => (22, TCP),
        (AttackKind::RdpBruteforce, _) | (_, Variant::Rdp) => (3389, TCP),
        (_, Variant::Icmp) => (0, ICMP),
        (_, Variant::Datagrams) => (random.pick(&SWEPT_UDP_PORTS), UDP),
        _ => (random.pick(&SWEPT_PORTS), TCP),
    };
    let first_place = random.below(ordinary.into());
    let interface = |offset: u64| {
        let place = (first_place + offset) % u64::from(ordinary);
        let place = u32::try_from(place).expect("below the count of interfaces");
        InterfaceIndex(InterfaceIndex::FIRST_ORDINARY + place)
    };
    let targets: Vec<InterfaceIndex> = (0..target_count).map(interface).collect();
    let v6 = wants_v6(settings, random);
    let actor_interface = (variant == Variant::Internal).then(|| interface(target_count));
    let actor = match actor_interface {
        Some(interface) => network.interface(interface).addr(v6),
        None => network.external(outside_rank(settings, place), v6),
    };
    Attack {
        kind,
        variant,
        actor,
        planned_contacts: contacts,
        tally: Tally::default(),
        actor_interface,
        targets,
        port,
        protocol: if protocol == ICMP && v6 { ICMP_V6 } else { protocol },
        v6,
        done: 0,
        first_ms,
        span_ms,
        salt: random.bits(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "32 bits fit")]
fn wants_v6(settings: &GenerateSettings, random: &mut Random) -> bool {
    (random.below(1 << 32) as f64) < settings.ipv6_share * (1_u64 << 32) as f64
}

/// The rank of an attacker: behind every address of ordinary traffic. Endless streams come round after
/// a billion attacks.
fn outside_rank(settings: &GenerateSettings, place: u64) -> u32 {
    let offset = u32::try_from(place % 1_000_000_000).expect("below a billion");
    settings.external_addresses + offset
}

impl Attack {
    /// Whether the attacker is one of our own hosts.
    pub(super) const fn is_internal(&self) -> bool {
        self.actor_interface.is_some()
    }

    /// The next contact; its caller sets the time.
    fn contact(&self, network: &Network, random: &mut Random) -> Exchange {
        match self.kind {
            AttackKind::PortScan => {
                let port = self.scanned_port();
                self.probe(network, self.targets[0], port, random)
            }
            AttackKind::HostSweep => {
                let index = usize::try_from(self.done).expect("an index of the targets");
                self.probe(network, self.targets[index], self.port, random)
            }
            AttackKind::SshBruteforce => self.login(
                network,
                Leg {
                    packets: random.between(12, 22),
                    bytes: random.between(1_800, 3_200),
                    tcp_flags: SYN | FIN,
                },
                Leg {
                    packets: random.between(11, 20),
                    bytes: random.between(2_200, 3_600),
                    tcp_flags: SYN_ACK | FIN,
                },
                random.between(2, 6),
            ),
            AttackKind::RdpBruteforce => self.login(
                network,
                Leg {
                    packets: random.between(8, 15),
                    bytes: random.between(1_200, 2_500),
                    tcp_flags: SYN | FIN | RST,
                },
                Leg {
                    packets: random.between(7, 13),
                    bytes: random.between(1_500, 3_000),
                    tcp_flags: SYN_ACK | FIN,
                },
                random.between(1, 4),
            ),
            AttackKind::RemoteAccess => self.stay(network, random),
        }
    }

    /// Every second scan counts up from 1, the others jump; no port comes twice.
    const fn scanned_port(&self) -> u16 {
        const PORTS: u64 = 65_535;
        // Prime, and no divisor of the count of ports.
        const STRIDE: u64 = 24_571;
        let place = if self.salt.is_multiple_of(2) {
            self.done
        } else {
            self.salt % PORTS + self.done * STRIDE
        };
        low_16(1 + place % PORTS)
    }

    /// A port per contact that no other contact of the attack has.
    const fn client_port(&self, contact: u64) -> u16 {
        // 7,919 is a prime that does not divide the length of the range.
        low_16(32_768 + (self.salt % 28_232 + contact * 7_919) % 28_232)
    }

    fn client(&self, port: u16) -> Party {
        Party { addr: self.actor, port, interface: self.actor_interface }
    }

    fn probe(
        &self,
        network: &Network,
        target: InterfaceIndex,
        port: u16,
        random: &mut Random,
    ) -> Exchange {
        let [rejected, silent, refused] = self.variant.fates();
        let roll = random.below(100);
        let tcp = self.protocol == TCP;
        let syn = if tcp { SYN } else { 0 };
        let request = Leg { packets: 1, bytes: 44, tcp_flags: syn };
        let repeated = Leg { packets: 2, bytes: 88, tcp_flags: syn };
        let (request, outcome) = if roll < rejected {
            (if random.one_in(4) { repeated } else { request }, Outcome::Rejected)
        } else if roll < rejected + silent {
            (repeated, Outcome::Silent)
        } else if tcp && roll < rejected + silent + refused {
            (request, Outcome::Answered(Leg { packets: 1, bytes: 40, tcp_flags: RST }))
        } else if tcp {
            // A scanner that got its SYN-ACK resets the connection.
            let given_up = Leg { packets: 2, bytes: 84, tcp_flags: SYN | RST };
            (given_up, Outcome::Answered(Leg { packets: 1, bytes: 44, tcp_flags: SYN_ACK }))
        } else {
            (request, Outcome::Answered(request))
        };
        let ports = matches!(self.protocol, TCP | UDP);
        let client_port = if ports { ephemeral(random) } else { 0 };
        Exchange {
            client: self.client(client_port),
            server: Party::inside(network, target, self.v6, if ports { port } else { 0 }),
            protocol: self.protocol,
            request,
            outcome,
            end: 0,
            seconds: i64::from(request.packets > 1),
            attack: None,
        }
    }

    /// One attempt to log in: a short session that the server ends.
    fn login(&self, network: &Network, request: Leg, answer: Leg, seconds: u64) -> Exchange {
        Exchange {
            client: self.client(self.client_port(self.done)),
            server: Party::inside(network, self.targets[0], self.v6, self.port),
            protocol: TCP,
            request,
            outcome: Outcome::Answered(answer),
            end: 0,
            seconds: i64::try_from(seconds).expect("a few seconds"),
            attack: None,
        }
    }

    /// One window of a session that lasts for several.
    fn stay(&self, network: &Network, random: &mut Random) -> Exchange {
        let (request_flags, answer_flags) = match self.done {
            0 => (SYN, SYN_ACK),
            done if done + 1 == self.planned_contacts => (FIN, FIN),
            _ => (0, 0),
        };
        let packets = random.between(80, 600);
        let request =
            Leg { packets, bytes: packets * random.between(60, 120), tcp_flags: request_flags };
        let answer = Leg {
            packets: packets + random.below(200),
            bytes: packets * random.between(90, 900),
            tcp_flags: answer_flags,
        };
        let exchange = self.login(network, request, answer, random.between(20, 55));
        Exchange { client: self.client(self.client_port(0)), ..exchange }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "callers stay below 65,536")]
const fn low_16(port: u64) -> u16 {
    assert!(port <= u16::MAX as u64);
    port as u16
}
