//! What was planted, in the form that scores of detections are made from.

use serde::Serialize;

use super::attack::Attack;
use super::background::LookAlike;
use super::network::Network;
use super::settings::AttackKind;

/// The truth about a synthetic stream: its attacks, and the groups that only look like some.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Labels {
    /// Name of the set.
    pub set: &'static str,
    /// Earliest `start` of a record, Unix seconds.
    pub t_start: i64,
    /// Latest `end` of a record, Unix seconds.
    pub t_end: i64,
    /// Event time between them; at least a second, because rates are computed with it.
    pub hours: f64,
    /// Records written.
    pub records: u64,
    /// Records with action ACCEPT.
    pub accept: u64,
    /// Records with action REJECT.
    pub reject: u64,
    /// Sum of `packets`.
    pub packets: u64,
    /// Length of an aggregation window, seconds.
    pub aggregation_s: u32,
    /// What was planted, in order of time.
    pub attacks: Vec<AttackLabel>,
    /// What must not be reported.
    pub benign: Vec<BenignLabel>,
}

/// One planted attack, counted in the records that were written of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttackLabel {
    /// Unique within the stream.
    pub id: String,
    /// The kind of finding that should report it.
    pub kind: &'static str,
    /// How it went about it.
    pub variant: &'static str,
    /// Addresses that did it.
    pub actors: Vec<String>,
    /// Addresses that it was done to.
    pub targets: Vec<String>,
    /// Earliest `start` of its records, Unix seconds.
    pub start: i64,
    /// Latest `end` of its records, Unix seconds.
    pub end: i64,
    /// IANA numbers of its protocols.
    pub protocols: Vec<u8>,
    /// Distinct ports that it asked for.
    pub ports: usize,
    /// The lowest of them.
    pub port_list: Vec<u16>,
    /// Distinct addresses that it asked.
    pub hosts: usize,
    /// Sum of `packets`.
    pub packets: u64,
    /// Sum of `bytes`.
    pub bytes: u64,
    /// Its records, in both directions and at both ends.
    pub records: u64,
    /// Those with action REJECT.
    pub rejected_records: u64,
    /// Whether it came from one of our own hosts.
    pub internal: bool,
    /// Whether missing it is no fault: kinds that scores leave out, and attacks that were cut short.
    pub optional: bool,
    /// Other kinds that would be right.
    pub also: Vec<&'static str>,
}

/// A group of ordinary hosts that looks like an attack.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenignLabel {
    /// Unique within the stream.
    pub id: String,
    /// What it is.
    pub name: &'static str,
    /// Its addresses.
    pub actors: Vec<String>,
    /// Kinds that would be false.
    pub must_not: Vec<&'static str>,
    /// What it does.
    pub note: &'static str,
}

/// Contacts below which a sweep or scan is not worth a finding.
const CONTACTS_WORTH_REPORTING: usize = 20;
const PORT_LIST_MAX: usize = 12;

pub(super) fn attack_label(place: usize, attack: &Attack) -> Option<AttackLabel> {
    let tally = &attack.tally;
    let (start, end) = tally.span?;
    let breadth = tally.ports.len().max(tally.hosts.len());
    let optional = match attack.kind {
        // The kind has no place in scores, because every login from outside is right to report.
        AttackKind::RemoteAccess => true,
        AttackKind::PortScan | AttackKind::HostSweep => breadth < CONTACTS_WORTH_REPORTING,
        AttackKind::SshBruteforce | AttackKind::RdpBruteforce => {
            tally.records < 2 * CONTACTS_WORTH_REPORTING as u64
        }
    };
    let kind = attack.kind.finding_kind();
    let variant = attack.variant.name();
    Some(AttackLabel {
        id: format!("atk-{place:02}-{kind}-{variant}"),
        kind,
        variant,
        actors: vec![attack.actor.to_string()],
        targets: tally.hosts.iter().map(ToString::to_string).collect(),
        start,
        end,
        protocols: tally.protocols.iter().copied().collect(),
        ports: tally.ports.len(),
        port_list: tally.ports.iter().copied().take(PORT_LIST_MAX).collect(),
        hosts: tally.hosts.len(),
        packets: tally.packets,
        bytes: tally.bytes,
        records: tally.records,
        rejected_records: tally.rejected_records,
        internal: attack.is_internal(),
        optional,
        also: Vec::new(),
    })
}

pub(super) fn benign_label(network: &Network, group: &LookAlike) -> BenignLabel {
    let addrs = |index| {
        let interface = network.interface(index);
        [interface.v4.to_string(), interface.v6.to_string()]
    };
    BenignLabel {
        id: format!("ben-{}", group.name),
        name: group.name,
        actors: group.interfaces.iter().copied().flat_map(addrs).collect(),
        must_not: group.must_not.to_vec(),
        note: group.note,
    }
}
