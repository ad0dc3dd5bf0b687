//! What may be spoken where: rules for the whole network and for parts of it.
//!
//! Both ends of a contact answer for themselves. For each, the rules around it are asked from the nearest to
//! the widest: those that name its interface, then its block of addresses (the longest first), then its
//! subnet, then those that hold everywhere. The first that allows or forbids the service decides; of
//! those with a list of protocols, the nearest decides. Records name an interface and a subnet, but not
//! which end has them: between two own hosts, such rules count for both ends, and do not say what a server
//! may offer.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::outcome::{TCP, UDP};
use crate::aggregate::{ContactKey, Place};
use crate::net::{Addr, Prefix};

/// How many rules there may be: each has a bit.
const RULES_MAX: usize = 64;

/// Protocols with ports: TCP, UDP, DCCP, SCTP and UDP-Lite.
const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];

/// What may and may not be spoken in a part of the network; a list that is empty says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProtocolRule {
    /// What findings call it.
    pub name: String,
    /// Subnets by id. A rule without subnets, interfaces and blocks holds everywhere.
    pub subnets: Vec<String>,
    /// Network interfaces by id.
    pub interfaces: Vec<String>,
    /// Blocks of addresses.
    pub cidrs: Vec<Prefix>,
    /// Protocol numbers that may occur.
    pub allowed_protocols: Vec<u8>,
    /// Services by protocol and port that its hosts may offer, and that may be used whatever wider rules say.
    pub allowed_services: Vec<(u8, u16)>,
    /// Services that must not be used.
    pub forbidden_services: Vec<(u8, u16)>,
}

impl ProtocolRule {
    const fn is_everywhere(&self) -> bool {
        self.subnets.is_empty() && self.interfaces.is_empty() && self.cidrs.is_empty()
    }

    /// How near it is to its hosts; the greatest is the nearest.
    fn nearness(&self) -> (bool, Option<u8>, bool) {
        let longest = self.cidrs.iter().map(Prefix::length).max();
        (!self.interfaces.is_empty(), longest, !self.subnets.is_empty())
    }
}

/// More rules than there are bits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are {0} rules of protocols and services; at most 64 can be kept apart; merge some")]
pub struct TooManyRules(usize);

/// What is wrong with a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objection {
    /// The protocol is not among those that may occur.
    Protocol,
    /// The service is one that must not be used.
    Forbidden,
    /// The server offers what is not on its list.
    NotOffered,
}

/// Rules by bit.
pub(super) type RuleBits = u64;

/// The rules, ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolPolicy {
    /// The nearest first.
    rules: Vec<ProtocolRule>,
    /// Those that hold everywhere.
    everywhere: RuleBits,
    /// Those that name blocks, or interfaces whose address is known.
    by_address: Vec<(Prefix, RuleBits)>,
    /// A bit for each protocol to which a rule might object.
    protocols: [u64; 4],
    /// The same for each port of TCP and of UDP; empty if no rule names a service.
    services: [Vec<u64>; 2],
    /// Whether a rule might object to a service of other protocols.
    others: bool,
}

impl Default for ProtocolPolicy {
    fn default() -> Self {
        Self::new(Vec::new(), &BTreeMap::new()).expect("no rule is few enough")
    }
}

impl ProtocolPolicy {
    /// The policy of these rules, in a network where interfaces have these addresses.
    ///
    /// # Errors
    /// If there are more than 64 rules.
    pub fn new(
        mut rules: Vec<ProtocolRule>,
        interfaces: &BTreeMap<String, Addr>,
    ) -> Result<Self, TooManyRules> {
        if rules.len() > RULES_MAX {
            return Err(TooManyRules(rules.len()));
        }
        rules.sort_by_key(|rule| Reverse(rule.nearness()));
        let (mut everywhere, mut by_address) = (0, Vec::new());
        let mut protocols = [0_u64; 4];
        for (bit, rule) in rules.iter().enumerate() {
            let bit = 1 << bit;
            if rule.is_everywhere() {
                everywhere |= bit;
            }
            by_address.extend(rule.cidrs.iter().map(|block| (*block, bit)));
            let known = rule.interfaces.iter().filter_map(|name| interfaces.get(name));
            by_address.extend(known.map(|addr| (Prefix::of(*addr, 128), bit)));
            let allowed = &rule.allowed_protocols;
            let objected =
                (0..=u8::MAX).filter(|protocol| !allowed.is_empty() && !allowed.contains(protocol));
            for protocol in objected {
                protocols[usize::from(protocol >> 6)] |= 1 << (protocol & 63);
            }
        }
        let services = [TCP, UDP].map(|protocol| suspected_ports(&rules, protocol));
        let others = rules.iter().any(|rule| {
            let is_other = |service: &(u8, u16)| ![TCP, UDP].contains(&service.0);
            !rule.allowed_services.is_empty() || rule.forbidden_services.iter().any(is_other)
        });
        Ok(Self { rules, everywhere, by_address, protocols, services, others })
    }

    /// Whether there is no rule.
    pub(super) const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether any rule might object to a contact; few of the others pass.
    #[inline]
    pub(super) fn may_object(&self, protocol: u8, port: u16) -> bool {
        let has_port = |ports: &[u64]| {
            ports.get(usize::from(port >> 6)).is_some_and(|word| word >> (port & 63) & 1 == 1)
        };
        let is_service = match protocol {
            TCP => has_port(&self.services[0]),
            UDP => has_port(&self.services[1]),
            _ => self.others,
        };
        is_service || self.protocols[usize::from(protocol >> 6)] >> (protocol & 63) & 1 == 1
    }

    /// The rules that name this place.
    pub(super) fn rules_at(&self, place: &Place) -> RuleBits {
        let names =
            |list: &[String], name: Option<&String>| name.is_some_and(|name| list.contains(name));
        let is_named = |rule: &ProtocolRule| {
            names(&rule.interfaces, place.interface_id.as_ref())
                || names(&rule.subnets, place.subnet_id.as_ref())
        };
        let named = self.rules.iter().enumerate().filter(|(_, rule)| is_named(rule));
        named.fold(0, |bits, (bit, _)| bits | 1 << bit)
    }

    fn rules_of(&self, addr: Addr) -> RuleBits {
        let around = self.by_address.iter().filter(|(block, _)| block.contains(addr));
        around.fold(0, |bits, (_, bit)| bits | bit)
    }

    /// The first objection to a contact, with the name of its rule. `at_places` are the rules of the places
    /// where it was seen, and `is_inside` says which ends are own.
    pub(super) fn objection(
        &self,
        key: &ContactKey,
        at_places: RuleBits,
        is_inside: impl Fn(Addr) -> bool,
    ) -> Option<(Objection, &str)> {
        let (client_inside, server_inside) = (is_inside(key.client), is_inside(key.server));
        let of =
            |is_here: bool| if is_here || client_inside == server_inside { at_places } else { 0 };
        // Whose place it is can be told if only one end is own.
        let offered = if server_inside && !client_inside { at_places } else { 0 };
        let server = self.rules_of(key.server);
        let ends = [
            (server | of(server_inside), server | offered | self.everywhere),
            (self.rules_of(key.client) | of(client_inside), 0),
        ];
        // An outside end is bound by nothing, unless both are.
        let is_bound = [server_inside || !client_inside, client_inside];
        let mut bound = ends.into_iter().zip(is_bound).filter(|(_, is_bound)| *is_bound);
        bound.find_map(|((around, offering), _)| {
            self.objection_of_end(key, around | self.everywhere, offering)
        })
    }

    /// What the rules `around` an end object to; `offering` are those that say what it may offer.
    fn objection_of_end(
        &self,
        key: &ContactKey,
        around: RuleBits,
        offering: RuleBits,
    ) -> Option<(Objection, &str)> {
        let rules = || {
            let numbered = self.rules.iter().enumerate();
            numbered.filter(move |(bit, _)| around >> bit & 1 == 1)
        };
        let service = (key.protocol, key.port);
        for (bit, rule) in rules().filter(|_| WITH_PORTS.contains(&key.protocol)) {
            if rule.allowed_services.contains(&service) {
                return None;
            }
            if rule.forbidden_services.contains(&service) {
                return Some((Objection::Forbidden, &rule.name));
            }
            if !rule.allowed_services.is_empty() && offering >> bit & 1 == 1 {
                return Some((Objection::NotOffered, &rule.name));
            }
        }
        let (_, rule) = rules().find(|(_, rule)| !rule.allowed_protocols.is_empty())?;
        let is_allowed = rule.allowed_protocols.contains(&key.protocol);
        (!is_allowed).then_some((Objection::Protocol, rule.name.as_str()))
    }
}

/// A bit for each port of a protocol that a rule forbids, or that one with a list of services leaves out.
fn suspected_ports(rules: &[ProtocolRule], protocol: u8) -> Vec<u64> {
    let mut ports = Vec::new();
    for rule in rules {
        let of = |list: &[(u8, u16)]| -> Vec<u16> {
            list.iter().filter(|service| service.0 == protocol).map(|service| service.1).collect()
        };
        let forbidden = of(&rule.forbidden_services);
        if forbidden.is_empty() && rule.allowed_services.is_empty() {
            continue;
        }
        ports.resize(1 << 10, 0_u64);
        if !rule.allowed_services.is_empty() {
            let mut left_out = vec![u64::MAX; 1 << 10];
            for port in of(&rule.allowed_services) {
                left_out[usize::from(port >> 6)] &= !(1 << (port & 63));
            }
            ports.iter_mut().zip(left_out).for_each(|(word, more)| *word |= more);
        }
        for port in forbidden {
            ports[usize::from(port >> 6)] |= 1 << (port & 63);
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    fn rule(name: &str) -> ProtocolRule {
        ProtocolRule { name: name.to_owned(), ..ProtocolRule::default() }
    }

    /// Everywhere TCP, UDP and ICMP, and no Telnet; a subnet with GRE, a block that offers HTTPS alone, and an
    /// interface with Telnet.
    fn policy() -> ProtocolPolicy {
        let rules = vec![
            ProtocolRule {
                allowed_protocols: vec![1, 6, 17],
                forbidden_services: vec![(6, 23)],
                ..rule("all")
            },
            ProtocolRule {
                subnets: vec!["subnet-vpn".to_owned()],
                allowed_protocols: vec![47],
                ..rule("vpn")
            },
            ProtocolRule {
                cidrs: vec!["10.20.1.0/24".parse().unwrap()],
                allowed_services: vec![(6, 443)],
                ..rule("web")
            },
            ProtocolRule {
                interfaces: vec!["eni-old".to_owned()],
                allowed_services: vec![(6, 23), (6, 443)],
                ..rule("old")
            },
        ];
        let interfaces = BTreeMap::from([("eni-old".to_owned(), addr("10.20.1.9"))]);
        ProtocolPolicy::new(rules, &interfaces).unwrap()
    }

    /// Who objects to a contact that was seen in a subnet.
    fn check(
        client: &str,
        server: &str,
        (protocol, port): (u8, u16),
        subnet: &str,
        expected: &str,
    ) {
        let policy = policy();
        let key = ContactKey { client: addr(client), server: addr(server), protocol, port };
        let place = Place { subnet_id: Some(subnet.to_owned()), ..Place::default() };
        let own: Prefix = "10.20.0.0/16".parse().unwrap();
        let objection = policy.objection(&key, policy.rules_at(&place), |addr| own.contains(addr));
        let told = objection.map(|(objection, rule)| format!("{objection:?} {rule}"));
        assert_eq!(told.unwrap_or_default(), expected, "{key:?}");
        assert!(expected.is_empty() || policy.may_object(protocol, port), "{key:?}");
    }

    #[test]
    fn the_nearest_rule_decides() {
        const OUT: &str = "203.0.113.9";
        check(OUT, "10.20.3.1", (6, 80), "", "");
        check(OUT, "10.20.3.1", (47, 0), "", "Protocol all");
        check(OUT, "10.20.3.1", (6, 23), "", "Forbidden all");
        check("10.20.3.1", OUT, (6, 23), "", "Forbidden all");
        check(OUT, "10.20.3.1", (47, 0), "subnet-vpn", "");
        check(OUT, "10.20.3.1", (6, 80), "subnet-vpn", "Protocol vpn");
        check(OUT, "10.20.1.1", (6, 443), "", "");
        check(OUT, "10.20.1.1", (6, 80), "", "NotOffered web");
        check("10.20.3.1", "10.20.1.1", (6, 80), "", "NotOffered web");
        check("10.20.1.1", OUT, (6, 80), "", "");
        check(OUT, "10.20.1.1", (1, 0), "", "");
        check(OUT, "10.20.1.9", (6, 23), "", "");
        check(OUT, "10.20.1.9", (6, 22), "", "NotOffered old");
        check("10.20.3.1", "10.20.1.9", (6, 23), "", "Forbidden all");
    }

    #[test]
    fn few_contacts_are_looked_at() {
        let policy = policy();
        assert!(!policy.may_object(1, 0) || policy.rules.len() > 1);
        let all = ProtocolRule { forbidden_services: vec![(17, 69)], ..rule("all") };
        let policy = ProtocolPolicy::new(vec![all], &BTreeMap::new()).unwrap();
        assert!(policy.may_object(17, 69));
        assert!(
            !policy.may_object(17, 68) && !policy.may_object(6, 69) && !policy.may_object(47, 0)
        );
        assert!(!ProtocolPolicy::default().may_object(6, 23));
    }

    #[test]
    fn rules_have_a_limit() {
        let rules = vec![rule("x"); 65];
        assert_eq!(ProtocolPolicy::new(rules, &BTreeMap::new()), Err(TooManyRules(65)));
    }
}
