//! What the operator's context allows: entries of `allow`, and lists of well-known purposes whose kinds of
//! findings come by themselves.

use serde::Deserialize;

use super::operator::OperatorError;
use crate::finding::{Allowance, FindingKind};
use crate::net::Prefix;
use crate::units::UnixSeconds;

/// Entries of `allow` that one file may have.
const ENTRIES_MAX: usize = 1000;

/// Longest purpose, in characters: it stands in reports.
const PURPOSE_CHARS_MAX: usize = 100;

/// Addresses that a label names before it says how many more there are.
const LABEL_ADDRS: usize = 2;

/// A purpose that hosts are known to have, and what they are taken for.
struct Purpose {
    name: &'static str,
    /// Kinds of findings of which such a host may be the actor.
    as_source: &'static [&'static str],
    /// Kinds of findings of which such a host may be the target.
    as_target: &'static [&'static str],
}

/// The well-known purposes. A name that is no kind of this program stands for nothing.
const PURPOSES: [Purpose; 6] = [
    Purpose {
        name: "scanners",
        as_source: &[
            "port_scan",
            "host_sweep",
            "distributed_scan",
            "ssh_bruteforce",
            "rdp_bruteforce",
            "remote_access_attempt",
            "unauthorized_protocol",
            "sg_nacl_misconfig",
        ],
        as_target: &[],
    },
    Purpose {
        name: "health_checkers",
        as_source: &[
            "port_scan",
            "host_sweep",
            "remote_access_attempt",
            "beacon",
            "sg_nacl_misconfig",
        ],
        as_target: &[],
    },
    Purpose { name: "resolvers", as_source: &["port_scan", "host_sweep"], as_target: &["beacon"] },
    Purpose {
        name: "nat_gateways",
        as_source: &[
            "port_scan",
            "host_sweep",
            "distributed_scan",
            "ssh_bruteforce",
            "rdp_bruteforce",
            "beacon",
            "top_talker_change",
        ],
        as_target: &["top_talker_change"],
    },
    Purpose {
        name: "load_balancers",
        as_source: &["port_scan", "host_sweep", "beacon", "top_talker_change"],
        as_target: &["top_talker_change"],
    },
    Purpose {
        name: "monitoring",
        as_source: &["port_scan", "host_sweep", "remote_access_attempt", "beacon"],
        as_target: &["beacon"],
    },
];

/// An entry of `allow` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenAllowance {
    purpose: String,
    #[serde(default)]
    sources: Vec<String>,
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    ports: Vec<u16>,
    #[serde(default)]
    kinds: Vec<String>,
    until: Option<String>,
}

/// The entries of a file.
pub(super) fn read(written: Vec<WrittenAllowance>) -> Result<Vec<Allowance>, OperatorError> {
    if written.len() > ENTRIES_MAX {
        let fault = format!("there are {}; a file may have {ENTRIES_MAX}", written.len());
        return Err(OperatorError::Allow { number: ENTRIES_MAX + 1, fault });
    }
    let mut allowances = Vec::new();
    for (number, entry) in (1..).zip(written) {
        let read = entry.read().map_err(|fault| OperatorError::Allow { number, fault })?;
        allowances.extend(read);
    }
    Ok(allowances)
}

/// What hosts of a well-known purpose are allowed.
pub(super) fn well_known(name: &str, prefixes: &[Prefix], texts: &[String]) -> Vec<Allowance> {
    let purpose = PURPOSES.iter().find(|purpose| purpose.name == name);
    let purpose = purpose.expect("only well-known purposes have a key");
    if prefixes.is_empty() {
        return Vec::new();
    }
    let label = format!("{name} {}", listed(texts));
    purpose.allowances(&Allowance { label, sources: prefixes.to_vec(), ..Allowance::default() })
}

impl Purpose {
    /// Entries for what its hosts may be as sources and as targets; `of` has them as sources.
    fn allowances(&self, of: &Allowance) -> Vec<Allowance> {
        let kinds = |names: &[&str]| -> Vec<FindingKind> {
            names.iter().filter_map(|name| FindingKind::from_name(name)).collect()
        };
        let as_source = Allowance { kinds: kinds(self.as_source), ..of.clone() };
        let as_target = Allowance {
            kinds: kinds(self.as_target),
            sources: of.targets.clone(),
            targets: of.sources.clone(),
            ..of.clone()
        };
        [as_source, as_target].into_iter().filter(|entry| !entry.kinds.is_empty()).collect()
    }
}

impl WrittenAllowance {
    /// The entry, checked; a fault says what to write.
    fn read(self) -> Result<Vec<Allowance>, String> {
        let Self { purpose, sources, targets, ports, kinds, until } = self;
        let length = purpose.chars().count();
        if !(1..=PURPOSE_CHARS_MAX).contains(&length) || purpose.contains(char::is_control) {
            return Err(format!(
                "`purpose` must be 1 to {PURPOSE_CHARS_MAX} characters of text: say why this is wanted"
            ));
        }
        if sources.is_empty() && targets.is_empty() && ports.is_empty() {
            return Err(
                "it has none of `sources`, `targets` and `ports`; name some, or switch the \
                        detector off in the configuration"
                    .to_owned(),
            );
        }
        let mut label = purpose.clone();
        for (word, texts) in [("from", &sources), ("to", &targets)] {
            if !texts.is_empty() {
                label = format!("{label} {word} {}", listed(texts));
            }
        }
        let allowance = Allowance {
            label,
            sources: prefixes(&sources)?,
            targets: prefixes(&targets)?,
            ports,
            kinds: kinds.iter().map(|name| kind(name)).collect::<Result<_, _>>()?,
            until: until.map(|text| moment(&text)).transpose()?,
        };
        if !allowance.kinds.is_empty() {
            return Ok(vec![allowance]);
        }
        match PURPOSES.iter().find(|known| known.name == purpose) {
            Some(known) => Ok(known.allowances(&allowance)),
            None => Err(format!(
                "it has no `kinds`; name the kinds of findings that it keeps away, such as `port_scan`, or write one \
                 of these purposes: {}",
                PURPOSES.map(|known| known.name).join(", ")
            )),
        }
    }
}

fn prefixes(texts: &[String]) -> Result<Vec<Prefix>, String> {
    let read = |text: &String| {
        text.parse().map_err(|_| {
            format!("`{text}` is not an address or a CIDR block, such as `10.0.0.0/16`")
        })
    };
    let mut prefixes = texts.iter().map(read).collect::<Result<Vec<Prefix>, _>>()?;
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes)
}

fn kind(name: &str) -> Result<FindingKind, String> {
    FindingKind::from_name(name).ok_or_else(|| {
        let names: Vec<&str> = FindingKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("`{name}` is no kind of finding; kinds are {}", names.join(", "))
    })
}

fn moment(text: &str) -> Result<UnixSeconds, String> {
    UnixSeconds::from_text(text)
        .map_err(|_| format!("`until` is `{text}`; it must be a date, such as `2027-01-31`"))
}

/// The first ones, and how many more there are.
fn listed(texts: &[String]) -> String {
    let mut parts: Vec<String> = texts.iter().take(LABEL_ADDRS).cloned().collect();
    if texts.len() > LABEL_ADDRS {
        parts.push(format!("{} more", texts.len() - LABEL_ADDRS));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::OperatorContext;
    use super::*;

    /// The labels of what a context allows, or what is wrong with it.
    fn check(text: &str, expected: Result<&[&str], &str>) {
        let context = OperatorContext::from_json(text);
        match (context, expected) {
            (Ok(context), Ok(labels)) => {
                let found: Vec<&str> =
                    context.allow.iter().map(|entry| entry.label.as_str()).collect();
                assert_eq!(found, labels, "{text}");
            }
            (Err(error), Err(fault)) => {
                let message = error.to_string();
                assert!(message.contains(fault), "{text}: {message}");
            }
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn entries_say_what_they_keep_away() {
        check(
            r#"{"allow": [{"purpose": "vulnerability scanner", "sources": ["10.0.1.5"],
                "targets": ["10.0.0.0/8"], "ports": [22], "kinds": ["port_scan", "host_sweep"],
                "until": "2027-01-01"}]}"#,
            Ok(&["vulnerability scanner from 10.0.1.5 to 10.0.0.0/8"]),
        );
        check(
            r#"{"health_checkers": ["10.0.1.0/24", "10.0.2.0/24", "10.0.3.0/24"]}"#,
            Ok(&["health_checkers 10.0.1.0/24, 10.0.2.0/24, 1 more"]),
        );
        check(
            r#"{"allow": [{"purpose": "scanners", "sources": ["10.0.1.5"]}]}"#,
            Ok(&["scanners from 10.0.1.5"]),
        );
    }

    #[test]
    fn faults_say_what_to_write() {
        let entry = |parts: &str| format!(r#"{{"allow": [{{"purpose": "x", {parts}}}]}}"#);
        check(r#"{"allow": [{"sources": ["10.0.1.5"]}]}"#, Err("missing field `purpose`"));
        check(
            r#"{"allow": [{"purpose": "\u001b[2J", "sources": ["10.0.1.5"], "kinds": ["port_scan"]}]}"#,
            Err("entry 1 of `allow`: `purpose` must be 1 to 100 characters"),
        );
        check(&entry(r#""kinds": ["port_scan"]"#), Err("none of `sources`, `targets` and `ports`"));
        check(&entry(r#""ports": [22]"#), Err("it has no `kinds`"));
        check(&entry(r#""ports": [70000], "kinds": ["port_scan"]"#), Err("70000"));
        check(
            &entry(r#""ports": [1], "kinds": ["portscan"]"#),
            Err("`portscan` is no kind of finding; kinds are port_scan, host_sweep"),
        );
        check(
            &entry(r#""sources": ["10.0.0.0/40"], "kinds": ["port_scan"]"#),
            Err("`10.0.0.0/40` is not an address or a CIDR block"),
        );
        check(
            &entry(r#""ports": [1], "kinds": ["port_scan"], "until": "soon""#),
            Err("`until` is `soon`; it must be a date"),
        );
        check(&entry(r#""kind": ["port_scan"]"#), Err("unknown field `kind`"));
        check(r#"{"allow": {}}"#, Err("expected a sequence"));
        let many = vec![r#"{"purpose": "x", "ports": [1], "kinds": ["port_scan"]}"#; 1001];
        check(&format!(r#"{{"allow": [{}]}}"#, many.join(",")), Err("there are 1001"));
    }

    /// A context with something of everything.
    const WHOLE: &str = r#"{"scanners": ["10.0.1.5"], "monitoring": ["10.0.1.0/24"], "allow": [
        {"purpose": "x\u00e9", "sources": ["10.0.1.5", "2001:db8::/32"], "targets": ["10.0.0.0/8"],
         "ports": [22, 443], "kinds": ["port_scan"], "until": "2027-01-01T00:00:00Z"}]}"#;

    proptest::proptest! {
        #[test]
        fn whatever_a_file_holds_is_read_or_refused(
            cuts in proptest::collection::vec((0_usize..1000, "[ -~]{0,6}"), 0..4),
        ) {
            let mut text = WHOLE.to_owned();
            for (at, other) in cuts {
                let at = at % text.len();
                if text.is_char_boundary(at) && text.is_char_boundary(at + 1) {
                    text.replace_range(at..=at, &other);
                }
            }
            if let Ok(context) = OperatorContext::from_json(&text) {
                let has_all = |entry: &Allowance| {
                    let is_limited = !(entry.sources.is_empty()
                        && entry.targets.is_empty()
                        && entry.ports.is_empty());
                    is_limited && !entry.kinds.is_empty() && !entry.label.is_empty()
                };
                proptest::prop_assert!(context.allow.iter().all(has_all), "{text}");
            }
        }
    }

    /// Kinds that findings have or will have; see the finding form.
    #[test]
    fn purposes_name_kinds() {
        let kinds = [
            "port_scan",
            "host_sweep",
            "distributed_scan",
            "ssh_bruteforce",
            "rdp_bruteforce",
            "remote_access_attempt",
            "unauthorized_protocol",
            "beacon",
            "sg_nacl_misconfig",
            "top_talker_change",
        ];
        for purpose in &PURPOSES {
            for name in purpose.as_source.iter().chain(purpose.as_target) {
                assert!(kinds.contains(name), "{}: {name}", purpose.name);
            }
        }
    }
}
