//! The detectors on labelled flow logs: what they find, what they leave alone, and that neither shards
//! nor the order of records show.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like the test itself")]
#![expect(clippy::print_stdout, reason = "what was skipped, and the scorer's table")]

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use flate2::read::GzDecoder;
use flowgauge::aggregate::{
    CONTACT_BYTES_DEFAULT, ContactRow, ContactTable, PaneContacts, Vantage, pair_hash,
};
use flowgauge::detect::{DetectSettings, DetectorSet, Network, ProtocolPolicy, ProtocolRule};
use flowgauge::enrich::OperatorContext;
use flowgauge::finding::{Finding, FindingKind};
use flowgauge::net::{Addr, AddressSetBuilder};
use flowgauge::record::Action;
use flowgauge::sink::encode::ndjson;
use flowgauge::units::{PaneIndex, UnixSeconds};

use crate::labelled::{self, Scores, Traffic, traffic};

const PANE_SECONDS: i64 = 60;
/// Delivery delay of the labelled set: its lines come 15 to 95 s after their window has closed.
const LATENESS_SECONDS: i64 = 180;

fn data(path: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/labelled").join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is missing", path.display());
    None
}

fn unpacked(path: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

/// The rows of a log whose first line is its header.
fn rows(text: &str) -> Vec<ContactRow<'_>> {
    let mut lines = text.lines();
    let names: HashMap<&str, usize> =
        lines.next().unwrap().split(' ').enumerate().map(|(i, name)| (name, i)).collect();
    lines.filter_map(|line| row_of(&names, line)).collect()
}

fn row_of<'a>(names: &HashMap<&str, usize>, line: &'a str) -> Option<ContactRow<'a>> {
    let fields: Vec<&'a str> = line.split(' ').collect();
    let text = |name: &str| names.get(name).map(|i| fields[*i]).filter(|text| *text != "-");
    let number = |name: &str| text(name).map(|text| text.parse::<u64>().unwrap());
    let addr = |name: &str| text(name).map(|text| text.parse::<Addr>().unwrap());
    if text("log-status") != Some("OK") {
        return None;
    }
    let protocol = u8::try_from(number("protocol")?).unwrap();
    Some(ContactRow {
        src: addr("pkt-srcaddr").or(addr("srcaddr"))?,
        dst: addr("pkt-dstaddr").or(addr("dstaddr"))?,
        src_port: u16::try_from(number("srcport")?).unwrap(),
        dst_port: u16::try_from(number("dstport")?).unwrap(),
        protocol,
        packets: number("packets")?,
        bytes: number("bytes")?,
        start: UnixSeconds(number("start")?.cast_signed()),
        end: UnixSeconds(number("end")?.cast_signed()),
        action: if text("action") == Some("REJECT") { Action::Reject } else { Action::Accept },
        tcp_flags: number("tcp-flags")
            .filter(|_| protocol == 6)
            .map(|bits| u8::try_from(bits).unwrap()),
        vantage: match text("flow-direction") {
            Some("ingress") => Vantage::Ingress,
            Some("egress") => Vantage::Egress,
            _ => Vantage::Unknown,
        },
        interface_id: text("interface-id").map(str::as_bytes),
        account_id: text("account-id").map(str::as_bytes),
        vpc_id: text("vpc-id").map(str::as_bytes),
        subnet_id: text("subnet-id").map(str::as_bytes),
    })
}

/// Runs the stages as a stream would, a watermark step every thousand records.
fn run(rows: &[ContactRow<'_>], shard_count: u64, network: &Network) -> (Vec<Finding>, u64) {
    let mut tables: Vec<_> = (0..shard_count)
        .map(|shard| ContactTable::new(PANE_SECONDS, shard, CONTACT_BYTES_DEFAULT))
        .collect();
    let mut detectors = DetectorSet::new(&DetectSettings::default(), network.clone(), PANE_SECONDS);
    let mut findings = Vec::new();
    let mut newest = i64::MIN;
    for chunk in rows.chunks(1000) {
        for row in chunk {
            let shard = pair_hash(row.src, row.dst, 0) % shard_count;
            tables[usize::try_from(shard).unwrap()].add_row(row);
            newest = newest.max(row.end.0);
        }
        let watermark = UnixSeconds(newest - LATENESS_SECONDS);
        let closed = tables.iter_mut().flat_map(|table| table.close_until(watermark)).collect();
        detect(&mut detectors, closed, &mut findings);
    }
    let closed = tables.iter_mut().flat_map(ContactTable::close_all).collect();
    detect(&mut detectors, closed, &mut findings);
    detectors.on_end(&mut findings);
    (findings, tables.iter().map(ContactTable::late_rows).sum())
}

fn detect(detectors: &mut DetectorSet, closed: Vec<PaneContacts>, findings: &mut Vec<Finding>) {
    let mut panes: BTreeMap<PaneIndex, Vec<PaneContacts>> = BTreeMap::new();
    for shard in closed {
        panes.entry(shard.pane).or_default().push(shard);
    }
    for (pane, shards) in panes {
        detectors.on_pane(pane, shards, findings);
    }
}

fn ndjson_of(findings: &[Finding]) -> Vec<u8> {
    let mut lines = Vec::new();
    for finding in findings {
        ndjson::encode(finding, &mut lines);
    }
    lines
}

fn network() -> Option<Network> {
    let text = std::fs::read_to_string(data("context.json")?).unwrap();
    let context = OperatorContext::from_json(&text).unwrap();
    let mut threats = AddressSetBuilder::new(1000);
    threats.begin_list("threat_list");
    for entry in &context.threat_list {
        threats.add(*entry, None);
    }
    let services = context.forbidden_services.iter();
    let global = ProtocolRule {
        name: "global".to_owned(),
        allowed_protocols: context.allowed_protocols,
        forbidden_services: services.map(|service| (service.protocol, service.port)).collect(),
        ..ProtocolRule::default()
    };
    Some(Network {
        threats: Arc::new(threats.build()),
        protocols: Arc::new(ProtocolPolicy::new(vec![global], &context.interfaces).unwrap()),
        inside: context.vpc_cidrs,
        allowlisted: context.allowlisted_scanners,
        nat_gateways: context.nat_gateways,
        allowances: context.allow,
        interfaces: context.interfaces,
        ..Network::default()
    })
}

/// The scorer's figures, if Python is there.
fn score(lines: &[u8], log: &str) -> Option<serde_json::Value> {
    let labels = data("labels.json")?;
    let context = data("context.json")?;
    let scorer = labels.parent().unwrap().join("../../tools/score_detections.py");
    let folder = tempfile::tempdir().unwrap();
    let findings = folder.path().join("findings.ndjson");
    let figures = folder.path().join("figures.json");
    std::fs::write(&findings, lines).unwrap();
    let output = Command::new("python3")
        .arg(&scorer)
        .args([&labels, &findings])
        .arg("--allowlist")
        .arg(&context)
        .arg("--verbose")
        .arg("--json")
        .arg(&figures)
        .output();
    let Ok(output) = output else {
        println!("skipped: no python3");
        return None;
    };
    println!("{log}\n{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&std::fs::read(&figures).unwrap()).unwrap())
}

/// Kinds that must be found, and not be found where there is none. A kind that is new belongs here.
const SCORED_KINDS: &[&str] = &[
    "port_scan",
    "host_sweep",
    "distributed_scan",
    "ssh_bruteforce",
    "rdp_bruteforce",
    "dos_flood",
    "exfiltration",
    "beacon",
    "amplification",
    "sg_nacl_misconfig",
];

/// Those that are found only where the operator says what to look for.
const TOLD_KINDS: &[&str] = &["suspicious_ip", "unauthorized_protocol"];

/// Those of them that only traffic of our own making has labels of.
const ALSO_SCORED_KINDS: &[&str] = &["login_after_bruteforce"];

/// Seeds of the traffic of our own making.
const SEEDS: [u64; 3] = [1, 7, 2026];

fn check(log: &str, precision_min: f64, recall_min: f64) {
    let (Some(path), Some(network)) = (data(log), network()) else { return };
    let text = unpacked(&path);
    let rows = rows(&text);
    for (network, context) in [(network, "with context"), (Network::default(), "without context")] {
        let (findings, late_rows) = run(&rows, 1, &network);
        assert_eq!(late_rows, 0);
        let lines = ndjson_of(&findings);
        let (sharded, _) = run(&rows, 3, &network);
        assert!(lines == ndjson_of(&sharded), "three shards find something else than one");
        // The labelled guesses are all in vain.
        let is_login = |finding: &Finding| finding.kind == FindingKind::LoginAfterBruteforce;
        assert!(!findings.iter().any(is_login), "{log} {context}");

        let Some(figures) = score(&lines, &format!("{log}, {context}")) else { return };
        let told = if context == "with context" { TOLD_KINDS } else { &[] };
        for kind in SCORED_KINDS.iter().chain(told) {
            let figure = |name: &str| figures["kinds"][kind][name].as_f64().unwrap_or(0.0);
            assert!(figure("precision") >= precision_min, "{log} {context} {kind}");
            assert!(figure("recall") >= recall_min, "{log} {context} {kind}");
        }
    }
}

#[test]
fn attacks_are_found_in_version_5_records() {
    check("flow-v5.log.gz", 0.95, 0.95);
}

#[test]
fn attacks_are_found_in_default_records() {
    check("flow-v2.log.gz", 0.95, 0.95);
}

/// Traffic of our own making: the figures of all seeds together, from one version of the records, with what the
/// operator knows or without.
fn check_own(records: fn(&Traffic) -> &str, has_context: bool, name: &str) -> Scores {
    let mut all = Scores::default();
    for seed in SEEDS {
        let traffic = traffic(seed);
        let rows = rows(records(&traffic));
        let network = if has_context { traffic.network.clone() } else { Network::default() };
        let (findings, late_rows) = run(&rows, 2, &network);
        assert_eq!(late_rows, 0);
        let scores = labelled::score(&traffic, &findings);
        println!("{name}, seed {seed}: {} records\n\n{scores}", rows.len());
        assert_eq!(scores.lookalikes, [], "{name}, seed {seed}");
        all.add(&scores);
    }
    println!("{name}, all seeds, context {has_context}\n\n{all}");
    for kind in SCORED_KINDS.iter().chain(ALSO_SCORED_KINDS) {
        let score = &all.kinds[kind];
        assert!(score.precision() >= 0.95, "{name} {kind}: {score:?}");
        assert!(score.recall() >= 0.95, "{name} {kind}: {score:?}");
        // Somebody who guesses in vain has not logged in.
        assert!(*kind != "login_after_bruteforce" || score.side_hits == 0, "{name}: {score:?}");
    }
    assert!(all.scan_family.f1() >= 0.97, "{name}: {:?}", all.scan_family);
    all
}

#[test]
fn attacks_are_found_in_other_traffic() {
    for has_context in [true, false] {
        let v5 = check_own(|traffic| &traffic.v5, has_context, "version 5");
        let v2 = check_own(|traffic| &traffic.v2, has_context, "version 2");
        for kind in SCORED_KINDS {
            let (v5, v2) = (v5.kinds[kind].f1(), v2.kinds[kind].f1());
            assert!(v2 >= v5 - 0.03, "{kind}: {v5} from version 5, {v2} from version 2");
        }
    }
}
