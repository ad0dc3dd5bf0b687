//! What a user may set of a synthetic stream, with units, defaults and ranges.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use crate::record::Layout;

/// A kind of attack that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttackKind {
    /// One source, one host, hundreds of ports: rejected, silently dropped or refused, a few answered.
    PortScan,
    /// One source, one port (or ICMP), dozens to hundreds of hosts.
    HostSweep,
    /// One source that logs in over SSH again and again; short accepted sessions with answers.
    SshBruteforce,
    /// The same over RDP.
    RdpBruteforce,
    /// One outside client that reaches SSH or RDP of a host and stays for some windows.
    RemoteAccess,
}

impl AttackKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::PortScan,
        Self::HostSweep,
        Self::SshBruteforce,
        Self::RdpBruteforce,
        Self::RemoteAccess,
    ];

    /// The name in settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PortScan => "port_scan",
            Self::HostSweep => "host_sweep",
            Self::SshBruteforce => "ssh_bruteforce",
            Self::RdpBruteforce => "rdp_bruteforce",
            Self::RemoteAccess => "remote_access",
        }
    }

    /// The kind of finding that should report it, as labels name it.
    #[must_use]
    pub const fn finding_kind(self) -> &'static str {
        match self {
            Self::RemoteAccess => "remote_access_attempt",
            other => other.name(),
        }
    }

    /// The kind with this name in settings.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Records that one planted attack needs at least, so that it is one.
pub(super) const ATTACK_RECORDS_MIN: u64 = 150;
/// Attacks together take at most one record in this many.
pub(super) const ATTACK_SHARE_INVERSE: u64 = 3;

/// Everything that decides what a synthetic stream looks like.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateSettings {
    /// Records to make; 0 for a stream without end. Default 1,000,000.
    pub records: u64,
    /// Seed of all random numbers. Default 1.
    pub seed: u64,
    /// Fields of a line: `v2` to `v11`, `tgw`, names, or a LogFormat string; a name that AWS does not
    /// have gets `-`. Default `v2`.
    #[serde(deserialize_with = "layout_from_text")]
    pub format: Arc<Layout>,
    /// Whether the first line names the fields, as in an S3 object. Default false.
    pub header: bool,
    /// Network interfaces, 16 to 1,000,000. Default 20,000.
    pub interfaces: u32,
    /// Internet addresses of ordinary traffic, 16 to 100,000,000. Default 1,000,000.
    pub external_addresses: u32,
    /// Skew of both pools: rank r is drawn in proportion to 1 / r^skew; 0 (even) to 3. Default 1.
    pub zipf: f64,
    /// Share of IPv6 among records with traffic, 0 to 1. Default 0.05.
    pub ipv6_share: f64,
    /// Share of REJECT records in ordinary traffic, 0 to 1; attacks add theirs. Default 0.035.
    pub reject_share: f64,
    /// Share of NODATA (two thirds) and SKIPDATA records, 0 to 1. Default 0.01.
    pub nodata_share: f64,
    /// How many seconds a record's `end` may lie before the latest `end` written earlier, 0 to 3,600.
    /// Default 30.
    pub disorder_seconds: u32,
    /// Length of an aggregation window, 1 to 3,600 seconds. Default 60.
    pub aggregation_seconds: u32,
    /// Records per second of event time, 1 to 1,000,000,000. Default 10,000.
    pub records_per_second: u64,
    /// Unix second before which no record starts, 0 to 10,000,000,000. Default 1767225600
    /// (2026-01-01).
    pub start: i64,
    /// How many attacks of each kind to plant, 0 to 10,000 of a kind. Default none.
    pub attacks: BTreeMap<AttackKind, u32>,
    /// In a stream without end, the attacks are planted anew in every period of this many seconds of
    /// event time, 60 to 86,400. Default 600.
    pub attack_period_seconds: u32,
}

impl Default for GenerateSettings {
    fn default() -> Self {
        Self {
            records: 1_000_000,
            seed: 1,
            format: Layout::default_v2(),
            header: false,
            interfaces: 20_000,
            external_addresses: 1_000_000,
            zipf: 1.0,
            ipv6_share: 0.05,
            reject_share: 0.035,
            nodata_share: 0.01,
            disorder_seconds: 30,
            aggregation_seconds: 60,
            records_per_second: 10_000,
            start: 1_767_225_600,
            attacks: BTreeMap::new(),
            attack_period_seconds: 600,
        }
    }
}

fn layout_from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Layout>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Layout::from_text(&text).map(Arc::new).map_err(serde::de::Error::custom)
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// A number outside its range.
    #[error("`{name}` is {value}; it must be {low} to {high}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What was written.
        value: String,
        /// The least allowed value.
        low: f64,
        /// The greatest allowed value.
        high: f64,
    },
    /// Two shares that leave less than nothing.
    #[error("`reject_share` and `nodata_share` add up to {0}; together they may be at most 1")]
    Shares(f64),
    /// More attacks than the stream has room for.
    #[error(
        "{attacks} attacks need at least {records_min} records{period}, and there are {records}; ask for fewer attacks, or raise `records` or `records_per_second`"
    )]
    TooManyAttacks {
        /// How many are asked for.
        attacks: u64,
        /// Records that they need around them.
        records_min: u64,
        /// Records that there are.
        records: u64,
        /// ` in each period` in a stream without end.
        period: &'static str,
    },
}

impl GenerateSettings {
    /// Checks every range.
    ///
    /// # Errors
    /// The first setting outside its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        range("interfaces", f64::from(self.interfaces), 16.0, 1e6)?;
        range("external_addresses", f64::from(self.external_addresses), 16.0, 1e8)?;
        range("zipf", self.zipf, 0.0, 3.0)?;
        range("ipv6_share", self.ipv6_share, 0.0, 1.0)?;
        range("reject_share", self.reject_share, 0.0, 1.0)?;
        range("nodata_share", self.nodata_share, 0.0, 1.0)?;
        range("disorder_seconds", f64::from(self.disorder_seconds), 0.0, 3_600.0)?;
        range("aggregation_seconds", f64::from(self.aggregation_seconds), 1.0, 3_600.0)?;
        range("records_per_second", self.records_per_second as f64, 1.0, 1e9)?;
        range("start", self.start as f64, 0.0, 1e10)?;
        range("attack_period_seconds", f64::from(self.attack_period_seconds), 60.0, 86_400.0)?;
        for count in self.attacks.values() {
            range("attacks", f64::from(*count), 0.0, 10_000.0)?;
        }
        let shares = self.reject_share + self.nodata_share;
        if shares > 1.0 {
            return Err(SettingsError::Shares(shares));
        }
        self.check_room_for_attacks()
    }

    fn check_room_for_attacks(&self) -> Result<(), SettingsError> {
        let attacks = self.attack_count();
        let records = self.period_records();
        let records_min = attacks * ATTACK_RECORDS_MIN * ATTACK_SHARE_INVERSE;
        if records >= records_min {
            return Ok(());
        }
        let period = if self.records == 0 { " in each period" } else { "" };
        Err(SettingsError::TooManyAttacks { attacks, records_min, records, period })
    }

    pub(super) fn attack_count(&self) -> u64 {
        self.attacks.values().map(|count| u64::from(*count)).sum()
    }

    /// Records over which the attacks are spread once.
    pub(super) fn period_records(&self) -> u64 {
        match self.records {
            0 => self.records_per_second * u64::from(self.attack_period_seconds),
            records => records,
        }
    }
}

fn range(name: &'static str, value: f64, low: f64, high: f64) -> Result<(), SettingsError> {
    // A NaN is inside no range.
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(SettingsError::Range { name, value: value.to_string(), low, high })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(toml: &str, expected: Result<(), &str>) {
        let settings = toml::from_str::<GenerateSettings>(toml).map_err(|error| error.to_string());
        let got = settings.and_then(|settings| settings.check().map_err(|error| error.to_string()));
        match (got, expected) {
            (Ok(()), Ok(())) => {}
            (Err(got), Err(expected)) => assert!(got.contains(expected), "{toml}: {got}"),
            (got, expected) => panic!("{toml}: {got:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn settings_are_checked_with_their_range() {
        check("", Ok(()));
        check("records = 0\nformat = 'v5'\nattacks = { port_scan = 3 }", Ok(()));
        check("format = '${srcaddr} ${brand-new}'", Ok(()));
        check("interfaces = 15", Err("`interfaces` is 15; it must be 16 to 1000000"));
        check("ipv6_share = 1.5", Err("`ipv6_share` is 1.5; it must be 0 to 1"));
        check("zipf = nan", Err("`zipf` is NaN"));
        check("reject_share = 0.7\nnodata_share = 0.7", Err("at most 1"));
        check("format = 'srcAddr'", Err("did you mean `srcaddr`"));
        check("attacks = { dragons = 1 }", Err("unknown variant `dragons`"));
        check("record = 1", Err("unknown field `record`"));
        check(
            "records = 1000\nattacks = { port_scan = 9 }",
            Err("9 attacks need at least 4050 records, and there are 1000"),
        );
    }
}
