//! The pretended network: interfaces with addresses, names, roles and window phases, and the addresses
//! of the internet around it.

use super::random::{mix, mix2, pick_by_hash};
use super::settings::GenerateSettings;
use crate::net::Addr;

/// The number of an interface, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceIndex(pub u32);

impl InterfaceIndex {
    /// The NAT gateway: many clients behind one address.
    pub(super) const NAT_GATEWAY: Self = Self(0);
    /// The resolver: asked by everybody, asks many.
    pub(super) const RESOLVER: Self = Self(1);
    /// The monitoring poller: reaches every host on one port.
    pub(super) const POLLER: Self = Self(2);
    /// The host that is down and still polled.
    pub(super) const DEAD_HOST: Self = Self(3);
    /// The first interface of ordinary traffic.
    pub(super) const FIRST_ORDINARY: u32 = 4;

    pub(super) const fn slot(self) -> usize {
        self.0 as usize
    }
}

/// What an interface's host does for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Serves web clients of the internet.
    Web,
    /// Serves other hosts on one port.
    Service,
    /// Serves nobody.
    Worker,
}

/// Ports and protocols that internal services listen on.
const SERVICES: [(u16, u8); 13] = [
    (5432, 6),
    (3306, 6),
    (6379, 6),
    (9092, 6),
    (8080, 6),
    (9200, 6),
    (2049, 6),
    (11211, 6),
    (5671, 6),
    (389, 6),
    (8443, 6),
    (27017, 6),
    (514, 17),
];

#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) v4: Addr,
    pub(super) v6: Addr,
    /// `eni-` and 17 hexadecimal digits.
    pub(super) name: [u8; 21],
    pub(super) vpc: u16,
    pub(super) subnet: u8,
    pub(super) role: Role,
    /// Second within the aggregation window at which this interface's windows start.
    phase_seconds: u16,
    /// Of everything about the interface that no record's logic needs.
    pub(super) hash: u64,
}

impl Interface {
    /// The port and protocol that a host of role `Service` listens on.
    pub(super) fn service(&self) -> (u16, u8) {
        pick_by_hash(&SERVICES, self.hash)
    }

    /// Address in the wanted family.
    pub(super) const fn addr(&self, v6: bool) -> Addr {
        if v6 { self.v6 } else { self.v4 }
    }
}

/// The interfaces of a synthetic stream and the names around them.
#[derive(Clone, Debug)]
pub struct Network {
    interfaces: Vec<Interface>,
    /// Interfaces of role `Web`, over all VPCs.
    web: Vec<InterfaceIndex>,
    /// Interfaces of role `Service`, per VPC.
    services: Vec<Vec<InterfaceIndex>>,
    accounts: Vec<[u8; 12]>,
    seed: u64,
    window_seconds: i64,
}

/// Hosts that a /16 has room for with 250 addresses in each of 256 subnets.
const VPC_INTERFACES_MAX: u32 = 256 * 250;
const VPCS_MAX: u32 = 200;
const ACCOUNTS: u64 = 4;

const _: () = assert!(VPCS_MAX * VPC_INTERFACES_MAX >= 1_000_000, "room for every interface");

impl Network {
    pub(super) fn new(settings: &GenerateSettings) -> Self {
        let seed = mix2(settings.seed, 0x006e_6574);
        let window_seconds = i64::from(settings.aggregation_seconds);
        let vpc_count = (settings.interfaces / 64).clamp(1, VPCS_MAX);
        let interfaces: Vec<Interface> = (0..settings.interfaces)
            .map(|index| interface(seed, index, vpc_count, settings.aggregation_seconds))
            .collect();
        let mut web = Vec::new();
        let mut services = vec![Vec::new(); vpc_count as usize];
        for index in (InterfaceIndex::FIRST_ORDINARY..settings.interfaces).map(InterfaceIndex) {
            let interface = &interfaces[index.slot()];
            match interface.role {
                Role::Web => web.push(index),
                Role::Service => services[usize::from(interface.vpc)].push(index),
                Role::Worker => {}
            }
        }
        assert!(!web.is_empty() && services.iter().all(|list| !list.is_empty()));
        let account = |index| decimal12(100_000_000_000 + mix2(seed, index) % 899_999_999_999);
        let accounts = (0..ACCOUNTS).map(account).collect();
        Self { interfaces, web, services, accounts, seed, window_seconds }
    }

    pub(super) fn interface(&self, index: InterfaceIndex) -> &Interface {
        &self.interfaces[index.slot()]
    }

    pub(super) fn interface_count(&self) -> u32 {
        u32::try_from(self.interfaces.len()).expect("settings allow a million")
    }

    pub(super) fn web(&self) -> &[InterfaceIndex] {
        &self.web
    }

    /// The service that the `choice`-th habit of `client` leads to, in the same VPC.
    pub(super) fn service_of(&self, client: InterfaceIndex, choice: u64) -> InterfaceIndex {
        let interface = self.interface(client);
        let list = &self.services[usize::from(interface.vpc)];
        pick_by_hash(list, mix2(interface.hash, choice))
    }

    /// First second of the interface's window that holds `second`.
    pub(super) fn window_start(&self, index: InterfaceIndex, second: i64) -> i64 {
        let phase = i64::from(self.interface(index).phase_seconds);
        (second - phase).div_euclid(self.window_seconds) * self.window_seconds + phase
    }

    /// The `interface-id` of an interface.
    ///
    /// # Panics
    /// If the network has no such interface.
    #[must_use]
    pub fn interface_id(&self, index: InterfaceIndex) -> &str {
        std::str::from_utf8(&self.interface(index).name).expect("rendered from ASCII")
    }

    /// The `account-id` of an interface's owner.
    ///
    /// # Panics
    /// If the network has no such interface.
    #[must_use]
    pub fn account_id(&self, index: InterfaceIndex) -> &str {
        std::str::from_utf8(self.account_bytes(index)).expect("rendered from digits")
    }

    pub(super) fn account_bytes(&self, index: InterfaceIndex) -> &[u8; 12] {
        &self.accounts[usize::from(self.interface(index).vpc) % self.accounts.len()]
    }

    /// A number that stands for a VPC, subnet or gateway in its identifier.
    pub(super) fn identifier(&self, kind: IdentifierKind, number: u64) -> u64 {
        mix2(self.seed ^ kind as u64, number)
    }

    /// The internet address of `rank`; different ranks have different addresses.
    pub(super) fn external(&self, rank: u32, v6: bool) -> Addr {
        if v6 { external_v6(self.seed, rank) } else { external_v4(self.seed, rank) }
    }
}

/// What a number of [`Network::identifier`] is of.
#[derive(Clone, Copy, Debug)]
pub(super) enum IdentifierKind {
    Vpc = 1,
    Subnet,
    Gateway,
    Attachment,
}

fn interface(seed: u64, index: u32, vpc_count: u32, window_seconds: u32) -> Interface {
    let hash = mix2(seed ^ 0x0065_6e69, u64::from(index));
    let vpc = index % vpc_count;
    let place = index / vpc_count;
    let (subnet, host) = (place / 250, 4 + place % 250);
    let role = match place % 10 {
        0..=2 => Role::Web,
        3..=6 => Role::Service,
        _ => Role::Worker,
    };
    let host_bits = if hash.is_multiple_of(5) { u64::from(host) } else { mix(hash) };
    let v6 = (0x2600_1f14_u128 << 96)
        | (u128::from(vpc) << 80)
        | (u128::from(subnet) << 64)
        | u128::from(host_bits);
    Interface {
        v4: Addr::v4((10 << 24) | (vpc << 16) | (subnet << 8) | host),
        v6: Addr::v6(v6),
        name: interface_name(mix(hash ^ 0x6e61_6d65)),
        vpc: u16::try_from(vpc).expect("at most VPCS_MAX"),
        subnet: u8::try_from(subnet).expect("at most VPC_INTERFACES_MAX / 250"),
        role,
        phase_seconds: u16::try_from((hash >> 32) % u64::from(window_seconds))
            .expect("windows are at most an hour"),
        hash,
    }
}

fn interface_name(number: u64) -> [u8; 21] {
    let mut name = *b"eni-00000000000000000";
    let digits = format!("{number:016x}");
    name[5..].copy_from_slice(digits.as_bytes());
    name
}

fn decimal12(number: u64) -> [u8; 12] {
    let digits = format!("{number:012}");
    digits.as_bytes().try_into().expect("the caller passes 12 digits")
}

/// First octets without any range that is never routed, kept for documentation, or multicast.
const PUBLIC_FIRST_OCTETS: [(u32, u32); 9] = [
    (1, 9),
    (11, 99),
    (101, 126),
    (128, 168),
    (170, 171),
    (173, 191),
    (193, 197),
    (199, 202),
    (204, 223),
];

const fn public_octet_count() -> u32 {
    let (mut count, mut index) = (0, 0);
    while index < PUBLIC_FIRST_OCTETS.len() {
        count += PUBLIC_FIRST_OCTETS[index].1 - PUBLIC_FIRST_OCTETS[index].0 + 1;
        index += 1;
    }
    count
}

fn external_v4(seed: u64, rank: u32) -> Addr {
    const COUNT: u32 = public_octet_count();
    const LOW: u32 = (1 << 24) - 1;
    // The first octet comes from the remainder and the others from the quotient; each step permutes its
    // range, so that no two ranks meet.
    let mut place = (rank % COUNT * 97 + 13) % COUNT;
    let offset = mix2(seed, u64::from(place)) & u64::from(LOW);
    let offset = u32::try_from(offset).expect("masked to 24 bits");
    let spread = (rank / COUNT).wrapping_add(offset) & LOW;
    let mixed = spread.wrapping_mul(0x009e_3779) & LOW;
    let low = ((mixed ^ (mixed >> 12)).wrapping_mul(0x0046_ca6b)) & LOW;
    for (first, last) in PUBLIC_FIRST_OCTETS {
        let length = last - first + 1;
        if place < length {
            return Addr::v4(((first + place) << 24) | low);
        }
        place -= length;
    }
    unreachable!("place is below the count of octets")
}

fn external_v6(seed: u64, rank: u32) -> Addr {
    let hash = mix2(seed ^ 0x7636, u64::from(rank));
    let low = if hash.is_multiple_of(4) { hash & 0xffff } else { mix(hash) };
    // The rank itself is in bits 64 to 95, so that no two ranks meet.
    Addr::v6((0x2a00_u128 << 112) | (u128::from(rank) << 64) | u128::from(low))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn network(interfaces: u32) -> Network {
        Network::new(&GenerateSettings { interfaces, ..GenerateSettings::default() })
    }

    #[test]
    fn addresses_are_distinct_and_on_their_side() {
        let network = network(20_000);
        let mut seen = HashSet::new();
        for interface in &network.interfaces {
            for v6 in [false, true] {
                assert!(seen.insert(interface.addr(v6)));
            }
            assert!(!interface.v4.is_public());
        }
        for rank in 0..20_000 {
            for v6 in [false, true] {
                let addr = network.external(rank, v6);
                assert!(addr.is_public(), "{addr}");
                assert!(seen.insert(addr), "{addr}");
            }
        }
    }

    #[test]
    fn every_size_has_every_role() {
        for interfaces in [16, 63, 64, 127, 128, 1_000] {
            let network = network(interfaces);
            assert_eq!(network.interface_count(), interfaces);
            assert!(!network.web().is_empty());
            let client = InterfaceIndex(interfaces - 1);
            let service = network.service_of(client, 3);
            assert_eq!(network.interface(service).vpc, network.interface(client).vpc);
        }
    }

    #[test]
    fn windows_hold_their_second() {
        let network = network(100);
        for index in (0..100).map(InterfaceIndex) {
            let start = network.window_start(index, 1_767_225_600);
            assert!((start..start + 60).contains(&1_767_225_600));
            assert_eq!(network.window_start(index, start), start);
            assert_eq!(network.window_start(index, start - 1), start - 60);
        }
    }
}
