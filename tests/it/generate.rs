//! Generated flow logs as a user gets them: the same bytes for the same seed, and labels that agree
//! with the lines.

use std::collections::{BTreeMap, BTreeSet};

use flowgauge::generate::{AttackKind, AttackLabel, GenerateSettings, Generator, Labels};
use flowgauge::record::{FieldId, Layout};

const RECORDS: u64 = 200_000;

fn settings() -> GenerateSettings {
    GenerateSettings {
        records: RECORDS,
        interfaces: 5_000,
        external_addresses: 50_000,
        seed: 11,
        format: Layout::from_text("v5").expect("a preset").into(),
        attacks: AttackKind::ALL.into_iter().map(|kind| (kind, 3)).collect(),
        ..GenerateSettings::default()
    }
}

fn generate(settings: &GenerateSettings) -> (String, Labels) {
    let mut generator = Generator::new(settings);
    let mut text = Vec::new();
    // Uneven pieces: how lines are asked for must not change them.
    let mut pieces = [1, 999, 20_000].into_iter().cycle();
    while generator.fill(&mut text, pieces.next().expect("endless")) > 0 {}
    (String::from_utf8(text).expect("flow logs are ASCII"), generator.labels())
}

/// One parsed line.
struct Record<'a> {
    fields: Vec<&'a str>,
    layout: &'a Layout,
}

impl<'a> Record<'a> {
    fn text(&self, field: FieldId) -> &'a str {
        self.fields[self.layout.position(field).expect("a field of version 5")]
    }

    fn number(&self, field: FieldId) -> i64 {
        self.text(field).parse().unwrap_or_else(|_| panic!("{} of {:?}", field.name(), self.fields))
    }

    /// Whether it is of this attack: between its actor and one of its targets, with its ports.
    fn is_of(&self, attack: &AttackLabel, targets: &BTreeSet<&str>) -> bool {
        let actor = attack.actors[0].as_str();
        let [src, dst] = [FieldId::SrcAddr, FieldId::DstAddr].map(|field| self.text(field));
        let asks = src == actor && targets.contains(dst);
        let answers = dst == actor && targets.contains(src);
        let port = |field| self.text(field).parse::<u16>().expect("a port");
        let is_asked = |port: u16| match attack.ports {
            0 => port == 0,
            1 => attack.port_list == [port],
            _ => true,
        };
        (asks && is_asked(port(FieldId::DstPort))) || (answers && is_asked(port(FieldId::SrcPort)))
    }
}

#[test]
fn two_runs_give_the_same_bytes_and_labels() {
    let (first, second) = (generate(&settings()), generate(&settings()));
    assert!(first.0 == second.0, "the same seed gave different lines");
    assert_eq!(first.1, second.1);
    let other = generate(&GenerateSettings { seed: 12, ..settings() });
    assert!(first.0 != other.0, "different seeds gave the same lines");
}

#[test]
fn labels_agree_with_the_lines() {
    let settings = settings();
    let (text, labels) = generate(&settings);
    let records: Vec<Record<'_>> = text
        .lines()
        .map(|line| Record { fields: line.split(' ').collect(), layout: &settings.format })
        .collect();
    let counted = |wanted: &dyn Fn(&Record<'_>) -> bool| {
        records.iter().filter(|record| wanted(record)).count() as u64
    };
    assert_eq!(labels.records, RECORDS);
    assert_eq!(labels.records, records.len() as u64);
    assert_eq!(labels.accept, counted(&|record| record.text(FieldId::Action) == "ACCEPT"));
    assert_eq!(labels.reject, counted(&|record| record.text(FieldId::Action) == "REJECT"));
    assert_eq!(labels.t_start, records.iter().map(|r| r.number(FieldId::Start)).min().unwrap());
    assert_eq!(labels.t_end, records.iter().map(|r| r.number(FieldId::End)).max().unwrap());

    assert_eq!(labels.attacks.len(), 15);
    let by_kind = |kind: AttackKind| {
        labels.attacks.iter().filter(|attack| attack.kind == kind.finding_kind()).count()
    };
    assert!(AttackKind::ALL.into_iter().all(|kind| by_kind(kind) == 3));
    for attack in &labels.attacks {
        check_attack(attack, &records);
    }
}

/// Counts the attack in the lines. Internal actors have ordinary traffic as well, which only a scan of
/// all ports of a target could be mistaken for; their targets are in other VPCs.
fn check_attack(attack: &AttackLabel, records: &[Record<'_>]) {
    let targets: BTreeSet<&str> = attack.targets.iter().map(String::as_str).collect();
    let own: Vec<&Record<'_>> = records
        .iter()
        .filter(|record| record.text(FieldId::LogStatus) == "OK" && record.is_of(attack, &targets))
        .collect();
    let sum = |field| own.iter().map(|record| record.number(field)).sum::<i64>();
    let rejected = own.iter().filter(|record| record.text(FieldId::Action) == "REJECT").count();
    let id = &attack.id;
    assert_eq!(attack.records, own.len() as u64, "{id}");
    assert_eq!(attack.rejected_records, rejected as u64, "{id}");
    assert_eq!(i64::try_from(attack.packets), Ok(sum(FieldId::Packets)), "{id}");
    assert_eq!(i64::try_from(attack.bytes), Ok(sum(FieldId::Bytes)), "{id}");
    assert_eq!(own.iter().map(|r| r.number(FieldId::Start)).min(), Some(attack.start), "{id}");
    assert_eq!(own.iter().map(|r| r.number(FieldId::End)).max(), Some(attack.end), "{id}");

    let asking = own.iter().filter(|record| attack.actors[0] == record.text(FieldId::SrcAddr));
    let mut ports_per_host: BTreeMap<&str, BTreeSet<i64>> = BTreeMap::new();
    for record in asking {
        let ports = ports_per_host.entry(record.text(FieldId::DstAddr)).or_default();
        ports.insert(record.number(FieldId::DstPort));
    }
    assert_eq!(attack.hosts, ports_per_host.len(), "{id}");
    match attack.kind {
        "port_scan" => {
            let ports = ports_per_host.values().next().map_or(0, BTreeSet::len);
            assert_eq!((attack.hosts, attack.ports), (1, ports), "{id}");
            assert!(ports >= 100, "{id}: {ports}");
        }
        "host_sweep" => assert!(attack.hosts >= 50, "{id}: {}", attack.hosts),
        "ssh_bruteforce" | "rdp_bruteforce" => {
            let from_server =
                own.iter().filter(|record| record.text(FieldId::DstAddr) == attack.actors[0]);
            assert_eq!(from_server.count() * 2, own.len(), "{id}: every login is answered");
            assert_eq!(rejected, 0, "{id}");
        }
        _ => {
            assert!(!attack.internal && rejected == 0, "{id}");
            assert!([[22], [3389]].iter().any(|port| attack.port_list == *port), "{id}");
        }
    }
}

#[test]
fn only_attacks_reach_administration_ports_from_outside() {
    let quiet = GenerateSettings { attacks: BTreeMap::new(), ..settings() };
    let (text, labels) = generate(&quiet);
    assert!(labels.attacks.is_empty());
    let admin = text.lines().filter(|line| {
        let fields: Vec<&str> = line.split(' ').collect();
        ["22", "3389"].contains(&fields[6])
    });
    assert_eq!(admin.count(), 0);
}

#[test]
fn no_ordinary_source_looks_like_a_scan() {
    let quiet = GenerateSettings { attacks: BTreeMap::new(), reject_share: 0.2, ..settings() };
    let (text, _) = generate(&quiet);
    let mut ports: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    let mut hosts: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(" REJECT ")) {
        let fields: Vec<&str> = line.split(' ').collect();
        let (src, dst, port) = (fields[3], fields[4], fields[6]);
        ports.entry((src, dst)).or_default().insert(port);
        hosts.entry((src, port)).or_default().insert(dst);
    }
    assert!(ports.len() > 10_000);
    assert!(ports.values().all(|ports| ports.len() <= 2));
    assert!(hosts.values().all(|hosts| hosts.len() <= 2));
}
