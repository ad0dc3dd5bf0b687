//! The operator's context files: which addresses are own, allowed, or known to be bad.
//!
//! Read from JSON at start and on reload, merged over several files, handed as plain values to the
//! detectors. Every key may be left out; a key that isn't known is an error, because a misspelt
//! allow-list would otherwise be an empty one.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::allow::{self, WrittenAllowance};
use super::aws_ranges;
use crate::finding::Allowance;
use crate::net::{Addr, Prefix};

/// What is wrong with a context file.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Not a JSON object, an unknown key, or a value of the wrong type; the text says where.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A text that doesn't stand for what its key holds.
    #[error("key `{key}` of the operator context: `{text}` is not {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// What stands there.
        text: String,
        /// What is expected, with an example.
        wanted: &'static str,
    },
    /// An entry of `allow` that can't be used.
    #[error("entry {number} of `allow`: {fault}")]
    Allow {
        /// Which entry, from 1.
        number: usize,
        /// What is wrong with it, and what to write.
        fault: String,
    },
    /// A list of AWS's ranges that is of no use here.
    #[error(
        "this list of AWS's address ranges has no range of `ROUTE53_HEALTHCHECKS`; take \
             https://ip-ranges.amazonaws.com/ip-ranges.json as it is"
    )]
    NoHealthChecks,
}

/// A transport protocol and a port, written `tcp/23`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// IANA protocol number.
    pub protocol: u8,
    /// The server's port.
    pub port: u16,
}

impl FromStr for Service {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (protocol, port) = text.split_once('/').ok_or(())?;
        let protocol = match protocol {
            "tcp" => 6,
            "udp" => 17,
            number => number.parse().map_err(|_| ())?,
        };
        Ok(Self { protocol, port: port.parse().map_err(|_| ())? })
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            6 => write!(f, "tcp/{}", self.port),
            17 => write!(f, "udp/{}", self.port),
            number => write!(f, "{number}/{}", self.port),
        }
    }
}

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
    /// Services that its hosts may offer, and that may be used whatever wider rules say.
    pub allowed_services: Vec<Service>,
    /// Services that must not be used.
    pub forbidden_services: Vec<Service>,
}

/// What the operator knows. Lists are in order and without repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperatorContext {
    /// Own address ranges; none means that every address that isn't public is own.
    pub vpc_cidrs: Vec<Prefix>,
    /// Sources whose scans are wanted: `allowlisted_scanners` and `scanners`.
    pub allowlisted_scanners: Vec<Prefix>,
    /// Addresses known to be bad.
    pub threat_list: Vec<Prefix>,
    /// Protocol numbers that may occur; none means any.
    pub allowed_protocols: Vec<u8>,
    /// Services that must not be used.
    pub forbidden_services: Vec<Service>,
    /// Further rules for parts of the network, in the order of the files.
    pub protocol_rules: Vec<ProtocolRule>,
    /// Own name servers that answer whoever asks.
    pub resolvers: Vec<Prefix>,
    /// Addresses behind which many clients hide.
    pub nat_gateways: Vec<Prefix>,
    /// The primary private address of each interface.
    pub interfaces: BTreeMap<String, Addr>,
    /// What is wanted, and not told: entries of `allow`, and of the lists of well-known purposes.
    pub allow: Vec<Allowance>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Written {
    vpc_cidrs: Vec<String>,
    allowlisted_scanners: Vec<String>,
    threat_list: Vec<String>,
    allowed_protocols: Vec<u8>,
    forbidden_services: Vec<String>,
    protocol_rules: Vec<WrittenRule>,
    resolvers: Vec<String>,
    nat_gateways: Vec<String>,
    interfaces: BTreeMap<String, String>,
    scanners: Vec<String>,
    health_checkers: Vec<String>,
    load_balancers: Vec<String>,
    monitoring: Vec<String>,
    allow: Vec<WrittenAllowance>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenRule {
    name: Option<String>,
    subnets: Vec<String>,
    interfaces: Vec<String>,
    cidrs: Vec<String>,
    allowed_protocols: Vec<u8>,
    allowed_services: Vec<String>,
    forbidden_services: Vec<String>,
}

const BLOCK: &str = "an address or a CIDR block, such as `10.0.0.0/16`";
const SERVICE: &str = "a protocol and a port, such as `tcp/23`";

impl WrittenRule {
    /// The rule; the one at `position` of its list is called after that, unless it has a name.
    fn read(self, position: usize) -> Result<ProtocolRule, OperatorError> {
        const KEY: &str = "protocol_rules";
        let rule = ProtocolRule {
            name: self.name.unwrap_or_else(|| format!("protocol_rules[{position}]")),
            subnets: self.subnets,
            interfaces: self.interfaces,
            cidrs: parse_all(KEY, &self.cidrs, BLOCK)?,
            allowed_protocols: self.allowed_protocols,
            allowed_services: parse_all(KEY, &self.allowed_services, SERVICE)?,
            forbidden_services: parse_all(KEY, &self.forbidden_services, SERVICE)?,
        };
        if rule.allowed_protocols.is_empty()
            && rule.allowed_services.is_empty()
            && rule.forbidden_services.is_empty()
        {
            let wanted = "a rule, which has at least one of `allowed_protocols`, `allowed_services`, \
                          `forbidden_services`";
            return Err(OperatorError::Value { key: KEY, text: rule.name, wanted });
        }
        Ok(rule)
    }
}

impl OperatorContext {
    /// Reads one context file.
    ///
    /// # Errors
    /// If the text is not a JSON object, has an unknown key, or holds a value that can't be read.
    pub fn from_json(text: &str) -> Result<Self, OperatorError> {
        // A derived reader would take a list for the fields in their order.
        let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text)?;
        let written = if aws_ranges::is_ranges(&object) {
            Written { health_checkers: aws_ranges::health_checkers(text)?, ..Written::default() }
        } else {
            serde_json::from_str(text)?
        };
        let mut allow = allow::read(written.allow)?;
        let mut scanners = parse_all("allowlisted_scanners", &written.allowlisted_scanners, BLOCK)?;
        scanners.append(&mut parse_all("scanners", &written.scanners, BLOCK)?);
        let texts = [written.allowlisted_scanners, written.scanners].concat();
        allow.extend(allow::well_known("scanners", &scanners, &texts));
        for (key, list) in [
            ("health_checkers", &written.health_checkers),
            ("resolvers", &written.resolvers),
            ("nat_gateways", &written.nat_gateways),
            ("load_balancers", &written.load_balancers),
            ("monitoring", &written.monitoring),
        ] {
            allow.extend(allow::well_known(key, &parse_all(key, list, BLOCK)?, list));
        }
        let mut interfaces = BTreeMap::new();
        for (name, addr) in written.interfaces {
            interfaces.insert(name, parse("interfaces", &addr, "an address, such as `10.0.1.5`")?);
        }
        let rules = written.protocol_rules.into_iter().enumerate();
        let protocol_rules =
            rules.map(|(position, rule)| rule.read(position)).collect::<Result<_, _>>()?;
        let mut context = Self {
            vpc_cidrs: parse_all("vpc_cidrs", &written.vpc_cidrs, BLOCK)?,
            allowlisted_scanners: scanners,
            threat_list: parse_all("threat_list", &written.threat_list, BLOCK)?,
            allowed_protocols: written.allowed_protocols,
            forbidden_services: parse_all(
                "forbidden_services",
                &written.forbidden_services,
                SERVICE,
            )?,
            protocol_rules,
            resolvers: parse_all("resolvers", &written.resolvers, BLOCK)?,
            nat_gateways: parse_all("nat_gateways", &written.nat_gateways, BLOCK)?,
            interfaces,
            allow,
        };
        context.put_in_order();
        Ok(context)
    }

    /// Adds what another file says; where both name an interface, the other file wins.
    pub fn merge(&mut self, other: Self) {
        self.vpc_cidrs.extend(other.vpc_cidrs);
        self.allowlisted_scanners.extend(other.allowlisted_scanners);
        self.threat_list.extend(other.threat_list);
        self.allowed_protocols.extend(other.allowed_protocols);
        self.forbidden_services.extend(other.forbidden_services);
        self.protocol_rules.extend(other.protocol_rules);
        self.resolvers.extend(other.resolvers);
        self.nat_gateways.extend(other.nat_gateways);
        self.interfaces.extend(other.interfaces);
        self.allow.extend(other.allow);
        self.put_in_order();
    }

    fn put_in_order(&mut self) {
        sort_and_dedup(&mut self.vpc_cidrs);
        sort_and_dedup(&mut self.allowlisted_scanners);
        sort_and_dedup(&mut self.threat_list);
        sort_and_dedup(&mut self.allowed_protocols);
        sort_and_dedup(&mut self.forbidden_services);
        sort_and_dedup(&mut self.resolvers);
        sort_and_dedup(&mut self.nat_gateways);
        sort_and_dedup(&mut self.allow);
    }
}

fn sort_and_dedup<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

fn parse<T: FromStr>(
    key: &'static str,
    text: &str,
    wanted: &'static str,
) -> Result<T, OperatorError> {
    text.parse().map_err(|_| OperatorError::Value { key, text: text.to_owned(), wanted })
}

fn parse_all<T: FromStr>(
    key: &'static str,
    texts: &[String],
    wanted: &'static str,
) -> Result<Vec<T>, OperatorError> {
    texts.iter().map(|text| parse(key, text, wanted)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let message = OperatorContext::from_json(text).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn every_key_is_optional() {
        assert_eq!(OperatorContext::from_json("{}").unwrap(), OperatorContext::default());
    }

    #[test]
    fn files_add_up() {
        let mut context = OperatorContext::from_json(
            r#"{"vpc_cidrs": ["10.0.0.0/8"], "forbidden_services": ["tcp/23", "udp/69"],
                "interfaces": {"eni-1": "10.0.0.1"}, "allowed_protocols": [17, 6]}"#,
        )
        .unwrap();
        context.merge(
            OperatorContext::from_json(
                r#"{"vpc_cidrs": ["10.0.0.0/8", "fd00::/8"], "interfaces": {"eni-1": "10.0.0.2"}}"#,
            )
            .unwrap(),
        );
        assert_eq!(context.vpc_cidrs.len(), 2);
        assert_eq!(context.allowed_protocols, [6, 17]);
        assert_eq!(context.interfaces["eni-1"].to_string(), "10.0.0.2");
        let services: Vec<_> = context.forbidden_services.iter().map(Service::to_string).collect();
        assert_eq!(services, ["tcp/23", "udp/69"]);
    }

    #[test]
    fn faults_name_the_key_and_the_value() {
        check(r#"{"vpc_cidr": []}"#, "unknown field `vpc_cidr`, expected one of `vpc_cidrs`");
        check(r#"{"nat_gateways": ["10.0.0"]}"#, "key `nat_gateways`");
        check(r#"{"forbidden_services": ["telnet"]}"#, "`telnet` is not a protocol and a port");
        check(r#"{"protocol_rules": [{"subnet": []}]}"#, "unknown field `subnet`");
        check(r#"{"protocol_rules": [{"cidrs": ["10.0.0.0/8"]}]}"#, "at least one of");
        check(r#"{"protocol_rules": [{"allowed_services": ["x"]}]}"#, "`x` is not a protocol");
        check("[]", "expected a map");
        check("{", "EOF");
    }
}
