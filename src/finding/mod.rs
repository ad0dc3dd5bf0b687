//! What a detector says, in the form in which every sink takes it.
//!
//! Schema `flowgauge.finding/v1`. A part that does not apply is absent from the JSON. Ids are stable:
//! the same evidence gives the same id in every run, so that a receiver may drop a repeat.

mod allowance;
mod id;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::net::Addr;
use crate::units::UnixSeconds;

pub use allowance::Allowance;
pub use id::FindingId;

/// The name and version of the finding form.
pub const FINDING_SCHEMA: &str = "flowgauge.finding/v1";

/// What was found.
#[expect(missing_docs, reason = "each variant is the `kind` of the finding form")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    PortScan,
    HostSweep,
    DistributedScan,
    SshBruteforce,
    RdpBruteforce,
    LoginAfterBruteforce,
    RemoteAccessAttempt,
    DosFlood,
    Exfiltration,
    Beacon,
    SuspiciousIp,
    UnauthorizedProtocol,
    Amplification,
    TopTalkerChange,
    SgNaclMisconfig,
    TrafficAnomaly,
    CaptureGap,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::PortScan,
        Self::HostSweep,
        Self::DistributedScan,
        Self::SshBruteforce,
        Self::RdpBruteforce,
        Self::LoginAfterBruteforce,
        Self::RemoteAccessAttempt,
        Self::DosFlood,
        Self::Exfiltration,
        Self::Beacon,
        Self::SuspiciousIp,
        Self::UnauthorizedProtocol,
        Self::Amplification,
        Self::TopTalkerChange,
        Self::SgNaclMisconfig,
        Self::TrafficAnomaly,
        Self::CaptureGap,
    ];

    /// The name in the finding form, in configuration and in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortScan => "port_scan",
            Self::HostSweep => "host_sweep",
            Self::DistributedScan => "distributed_scan",
            Self::SshBruteforce => "ssh_bruteforce",
            Self::RdpBruteforce => "rdp_bruteforce",
            Self::LoginAfterBruteforce => "login_after_bruteforce",
            Self::RemoteAccessAttempt => "remote_access_attempt",
            Self::DosFlood => "dos_flood",
            Self::Exfiltration => "exfiltration",
            Self::Beacon => "beacon",
            Self::SuspiciousIp => "suspicious_ip",
            Self::UnauthorizedProtocol => "unauthorized_protocol",
            Self::Amplification => "amplification",
            Self::TopTalkerChange => "top_talker_change",
            Self::SgNaclMisconfig => "sg_nacl_misconfig",
            Self::TrafficAnomaly => "traffic_anomaly",
            Self::CaptureGap => "capture_gap",
        }
    }

    /// The kind with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }
}

/// How much it matters.
#[expect(missing_docs, reason = "each variant is the `severity` of the finding form")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Low,
    Medium,
    High,
    Critical,
}

impl Severity {
    /// Every severity, the least first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The name in the finding form and in configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// Where a finding is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Raised for the first time.
    Open,
    /// Raised before; the evidence has grown.
    Update,
    /// Nothing new for a while.
    Closed,
}

/// One or several addresses and, for a target, the ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// The addresses, in order; one is written as `ip`, several as `ips`.
    pub addrs: Vec<Addr>,
    /// Ports concerned, in order; a sample if there are many.
    pub ports: Vec<u16>,
}

impl Party {
    /// A single address.
    #[must_use]
    pub fn of(addr: Addr) -> Self {
        Self { addrs: vec![addr], ports: Vec::new() }
    }
}

/// A number or word of evidence.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Evidence {
    /// A count, in the unit that its name says.
    Count(u64),
    /// A number with a fraction, in the unit that its name says.
    Number(f64),
    /// A word, such as the variant of a scan.
    Word(&'static str),
    /// A text that comes from outside, such as the name of a list.
    Text(String),
}

/// Where in the account it happened, as far as records or inventory say. Keys are AWS's field names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// `account-id`, `vpc-id`, `subnet-id`, `instance-id`, `service`.
    pub fields: BTreeMap<&'static str, String>,
    /// `interface-id`: the interfaces that saw it, in order.
    pub interface_ids: Vec<String>,
}

/// One finding.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Stable over runs; see [`FindingId`].
    pub id: FindingId,
    /// 0 for the first report, then counting up.
    pub revision: u32,
    /// Where it is in its life.
    pub status: Status,
    /// What was found.
    pub kind: FindingKind,
    /// How much it matters.
    pub severity: Severity,
    /// 0 to 1: how sure the detector is that it is what `kind` says.
    pub confidence: f64,
    /// One sentence for people.
    pub title: String,
    /// Who did it.
    pub actor: Party,
    /// To whom it was done.
    pub target: Party,
    /// Earliest `start` in the evidence.
    pub first_seen: UnixSeconds,
    /// Latest `end` in the evidence.
    pub last_seen: UnixSeconds,
    /// Stream time at which it was raised.
    pub detected_at: UnixSeconds,
    /// Length of the window that tripped it.
    pub window_seconds: u32,
    /// Measured figures, by name.
    pub evidence: BTreeMap<&'static str, Evidence>,
    /// Where it happened.
    pub context: Context,
    /// Whether the figures are exact counts rather than bounded estimates.
    pub exact: bool,
}

impl Finding {
    /// A finding that will only be counted: everything but its kind, status and revision is empty.
    #[must_use]
    pub fn counted(kind: FindingKind, status: Status, revision: u32) -> Self {
        Self {
            id: FindingId::default(),
            revision,
            status,
            kind,
            severity: Severity::Low,
            confidence: 0.0,
            title: String::new(),
            actor: Party::default(),
            target: Party::default(),
            first_seen: UnixSeconds::MIN,
            last_seen: UnixSeconds::MIN,
            detected_at: UnixSeconds::MIN,
            window_seconds: 0,
            evidence: BTreeMap::new(),
            context: Context::default(),
            exact: true,
        }
    }

    /// Whether there is no more of it than can be counted.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.title.is_empty()
    }
}
