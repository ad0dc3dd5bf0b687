//! The native form of a finding: one JSON object per line, schema `flowgauge.finding/v1`.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::finding::{
    Context, Evidence, FINDING_SCHEMA, Finding, FindingKind, Party, Severity, Status,
};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// Appends the finding as one line, ended by a line feed. Parts that don't apply are left out.
///
/// # Panics
/// Never: every part of a finding has a JSON form, and memory takes all bytes.
pub fn encode(finding: &Finding, out: &mut Vec<u8>) {
    let line = Line {
        schema: FINDING_SCHEMA,
        id: finding.id.to_string(),
        revision: finding.revision,
        status: finding.status,
        kind: finding.kind,
        severity: finding.severity,
        confidence: (finding.confidence * 1000.0).round() / 1000.0,
        title: &finding.title,
        actor: party(&finding.actor),
        target: party(&finding.target),
        first_seen: Text(finding.first_seen),
        last_seen: Text(finding.last_seen),
        detected_at: Text(finding.detected_at),
        window_seconds: finding.window_seconds,
        evidence: &finding.evidence,
        context: (finding.context != Context::default()).then_some(ContextMap(&finding.context)),
        exact: finding.exact,
    };
    serde_json::to_writer(&mut *out, &line).expect("a finding has a JSON form");
    out.push(b'\n');
}

/// The form's parts in its order.
#[derive(Serialize)]
struct Line<'a> {
    schema: &'static str,
    id: String,
    revision: u32,
    status: Status,
    kind: FindingKind,
    severity: Severity,
    confidence: f64,
    title: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<PartyForm<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<PartyForm<'a>>,
    first_seen: Text<UnixSeconds>,
    last_seen: Text<UnixSeconds>,
    detected_at: Text<UnixSeconds>,
    window_seconds: u32,
    evidence: &'a BTreeMap<&'static str, Evidence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<ContextMap<'a>>,
    exact: bool,
}

#[derive(Serialize)]
struct PartyForm<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<Text<Addr>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ips: Vec<Text<Addr>>,
    #[serde(skip_serializing_if = "<[u16]>::is_empty")]
    ports: &'a [u16],
}

fn party(party: &Party) -> Option<PartyForm<'_>> {
    let (ip, ips) = match party.addrs[..] {
        [] if party.ports.is_empty() => return None,
        [addr] => (Some(Text(addr)), Vec::new()),
        ref addrs => (None, addrs.iter().copied().map(Text).collect()),
    };
    Some(PartyForm { ip, ips, ports: &party.ports })
}

/// Anything that is written as the text it displays.
struct Text<T>(T);

impl<T: std::fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

struct ContextMap<'a>(&'a Context);

impl Serialize for ContextMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in &self.0.fields {
            map.serialize_entry(name, value)?;
        }
        if !self.0.interface_ids.is_empty() {
            map.serialize_entry("interface-id", &self.0.interface_ids)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::finding::FindingId;

    /// Compares with `tests/golden/ndjson/<case>.out`; `UPDATE_GOLDEN=1` writes it.
    fn check(case: &str, finding: &Finding) {
        let mut line = Vec::new();
        encode(finding, &mut line);
        let line = String::from_utf8(line).unwrap();
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/ndjson")
            .join(format!("{case}.out"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &line).unwrap();
        }
        assert_eq!(line, std::fs::read_to_string(&path).unwrap(), "{case}");
    }

    fn scan() -> Finding {
        let actor = "203.0.113.9".parse().unwrap();
        let target = "10.0.1.5".parse().unwrap();
        let start = UnixSeconds(1_767_225_600);
        Finding {
            id: FindingId::new(FindingKind::PortScan, &[actor], &[target], &[], start),
            revision: 0,
            status: Status::Open,
            kind: FindingKind::PortScan,
            severity: Severity::Medium,
            confidence: 0.923_456,
            title: "203.0.113.9 tried 118 ports of 10.0.1.5".to_owned(),
            actor: Party::of(actor),
            target: Party { addrs: vec![target], ports: vec![22, 23] },
            first_seen: start,
            last_seen: UnixSeconds(1_767_225_660),
            detected_at: UnixSeconds(1_767_225_720),
            window_seconds: 300,
            evidence: BTreeMap::from([
                ("distinct_ports", Evidence::Count(118)),
                ("variant", Evidence::Word("fast")),
            ]),
            context: Context {
                fields: BTreeMap::from([("account-id", "012345678910".to_owned())]),
                interface_ids: vec!["eni-1".to_owned()],
            },
            exact: true,
        }
    }

    #[test]
    fn a_scan_of_one_host() {
        check("port_scan", &scan());
    }

    #[test]
    fn parts_that_do_not_apply_are_absent() {
        let targets = ["10.0.1.5", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        let finding = Finding {
            status: Status::Update,
            revision: 3,
            confidence: 1.0,
            title: "quotes \" and \u{1} controls are escaped".to_owned(),
            actor: Party::default(),
            target: Party { addrs: targets.to_vec(), ports: Vec::new() },
            evidence: BTreeMap::new(),
            context: Context::default(),
            exact: false,
            ..scan()
        };
        check("absent_parts", &finding);
    }
}
