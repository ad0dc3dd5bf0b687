//! The settings of all detectors and how their ranges are checked. Each detector's own settings stand in
//! its file.

use std::ops::RangeInclusive;

use serde::Deserialize;

use super::amplification::AmplificationSettings;
use super::beacon::BeaconSettings;
use super::bruteforce::BruteforceSettings;
use super::capture_gap::CaptureGapSettings;
use super::distributed_scan::DistributedScanSettings;
use super::dos_flood::DosFloodSettings;
use super::exfiltration::ExfiltrationSettings;
use super::host_sweep::HostSweepSettings;
use super::login_after_bruteforce::LoginAfterBruteforceSettings;
use super::noise::NoiseSettings;
use super::port_scan::PortScanSettings;
use super::remote_access::RemoteAccessSettings;
use super::sg_nacl_misconfig::SgNaclMisconfigSettings;
use super::suspicious_ip::SuspiciousIpSettings;
use super::top_talker_change::TopTalkerChangeSettings;
use super::traffic_anomaly::TrafficAnomalySettings;
use super::unauthorized_protocol::UnauthorizedProtocolSettings;

/// The longest window that any detector may have: a day.
pub(super) const WINDOW_SECONDS_MAX: i64 = 86_400;

/// The tables `[detectors.*]` of the configuration; a table left out has its defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DetectSettings {
    /// Many ports of a host.
    pub port_scan: PortScanSettings,
    /// One port, or ICMP, over many hosts.
    pub host_sweep: HostSweepSettings,
    /// Scans that are shared out among many sources.
    pub distributed_scan: DistributedScanSettings,
    /// Guessing of SSH logins.
    pub ssh_bruteforce: BruteforceSettings,
    /// Guessing of RDP logins.
    pub rdp_bruteforce: BruteforceSettings,
    /// Guessed logins that may have worked.
    pub login_after_bruteforce: LoginAfterBruteforceSettings,
    /// Admin ports reached from outside.
    pub remote_access_attempt: RemoteAccessSettings,
    /// Floods of one host.
    pub dos_flood: DosFloodSettings,
    /// Data that leaves.
    pub exfiltration: ExfiltrationSettings,
    /// Calls as if by a timer.
    pub beacon: BeaconSettings,
    /// Addresses of threat lists.
    pub suspicious_ip: SuspiciousIpSettings,
    /// Protocols and services that the operator does not allow.
    pub unauthorized_protocol: UnauthorizedProtocolSettings,
    /// Own services that are abused to flood others.
    pub amplification: AmplificationSettings,
    /// Heavy hitters that come and go.
    pub top_talker_change: TopTalkerChangeSettings,
    /// Rules that reject what should pass.
    pub sg_nacl_misconfig: SgNaclMisconfigSettings,
    /// Interfaces with unusually much or little traffic.
    pub traffic_anomaly: TrafficAnomalySettings,
    /// Traffic that was not logged.
    pub capture_gap: CaptureGapSettings,
    /// How much is told of what is found; a table of its own in the configuration.
    #[serde(skip)]
    pub noise: NoiseSettings,
}

impl DetectSettings {
    /// Every fault, with the name of its table.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, SettingsError)> {
        [
            ("port_scan", self.port_scan.check()),
            ("host_sweep", self.host_sweep.check()),
            ("distributed_scan", self.distributed_scan.check()),
            ("ssh_bruteforce", self.ssh_bruteforce.check()),
            ("rdp_bruteforce", self.rdp_bruteforce.check()),
            ("login_after_bruteforce", self.login_after_bruteforce.check()),
            ("remote_access_attempt", self.remote_access_attempt.check()),
            ("dos_flood", self.dos_flood.check()),
            ("exfiltration", self.exfiltration.check()),
            ("beacon", self.beacon.check()),
            ("suspicious_ip", self.suspicious_ip.check()),
            ("unauthorized_protocol", self.unauthorized_protocol.check()),
            ("amplification", self.amplification.check()),
            ("top_talker_change", self.top_talker_change.check()),
            ("sg_nacl_misconfig", self.sg_nacl_misconfig.check()),
            ("traffic_anomaly", self.traffic_anomaly.check()),
            ("capture_gap", self.capture_gap.check()),
        ]
        .into_iter()
        .filter_map(|(table, result)| Some((table, result.err()?)))
        .collect()
    }
}

/// A setting outside its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A number is too small or too great.
    #[error(
        "field `{field}` is `{value}`; it must be {least} to {most}; remove the line to use {default}"
    )]
    Range {
        /// Name of the field.
        field: &'static str,
        /// What it is.
        value: i64,
        /// The least that it may be.
        least: i64,
        /// The greatest that it may be.
        most: i64,
        /// What holds without the line.
        default: i64,
    },
    /// Windows that don't grow.
    #[error(
        "field `{shorter}` is `{shorter_value}` but `{longer}` is `{longer_value}`; the second must \
         not be shorter than the first; remove both lines to use the defaults"
    )]
    WindowOrder {
        /// Name of the window that must not be longer.
        shorter: &'static str,
        /// Its length.
        shorter_value: i64,
        /// Name of the window that must not be shorter.
        longer: &'static str,
        /// Its length.
        longer_value: i64,
    },
    /// A list that must not be empty.
    #[error("field `{field}` is empty; list at least one, or write `enabled = false`")]
    Empty {
        /// Name of the field.
        field: &'static str,
    },
}

/// Checks one number.
pub(super) fn check_range(
    field: &'static str,
    value: impl Into<i64>,
    range: RangeInclusive<i64>,
    default: impl Into<i64>,
) -> Result<(), SettingsError> {
    let (value, least, most) = (value.into(), *range.start(), *range.end());
    if range.contains(&value) {
        return Ok(());
    }
    Err(SettingsError::Range { field, value, least, most, default: default.into() })
}

/// Checks that windows grow.
pub(super) fn check_order(
    (shorter, shorter_value): (&'static str, u32),
    (longer, longer_value): (&'static str, u32),
) -> Result<(), SettingsError> {
    if shorter_value <= longer_value {
        return Ok(());
    }
    let (shorter_value, longer_value) = (shorter_value.into(), longer_value.into());
    Err(SettingsError::WindowOrder { shorter, shorter_value, longer, longer_value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let message = match toml::from_str::<DetectSettings>(text) {
            Err(error) => error.to_string(),
            Ok(settings) => settings
                .check()
                .first()
                .map(|(table, error)| format!("{table}: {error}"))
                .unwrap_or_default(),
        };
        assert!(message.contains(expected), "{text}: {message}");
        assert_eq!(message.is_empty(), expected.is_empty(), "{text}: {message}");
    }

    #[test]
    fn defaults_are_within_their_ranges() {
        check("", "");
        check("[port_scan]\nports_min = 25\n[ssh_bruteforce]\nenabled = false", "");
    }

    #[test]
    fn faults_say_what_to_write() {
        check(
            "[port_scan]\nports_min = 0",
            "port_scan: field `ports_min` is `0`; it must be 2 to 65536; remove the line to use 15",
        );
        check("[host_sweep]\nhost_min = 3", "unknown field `host_min`");
        check("[host_sweep]\nslow_window_seconds = 600", "must not be shorter");
        check("[rdp_bruteforce]\nports = []", "rdp_bruteforce: field `ports` is empty");
        check("[remote_access_attempt]\ntracked_max = 1", "`tracked_max` is `1`");
        check("[suspicious_ip]\nentries_max = 1", "`entries_max` is `1`");
        check("[unauthorized_protocol]\ntracked_max = 1", "`tracked_max` is `1`");
        check("[amplification]\nports = []", "amplification: field `ports` is empty");
        check("[amplification]\nratio_min = 1", "`ratio_min` is `1`");
        check("[amplification]\nbytes_per_minute_min = 1", "`bytes_per_minute_min` is `1`");
        check("[amplification]\nwindow_seconds = 59", "`window_seconds` is `59`");
        check("[dos_flood]\nflows_per_second_min = 0", "`flows_per_second_min` is `0`");
        check("[dos_flood]\nmegabits_per_second_max = 0", "it must be 1 to 10000000");
        check("[exfiltration]\nbytes_min = 1", "it must be 100000 to 1000000000000");
        check("[exfiltration]\nwindow_seconds = 60", "it must be 600 to 86400");
        check("[exfiltration]\nprevalence_max_percent = 101", "it must be 0 to 100");
        check("[beacon]\ncontacts_min = 4", "it must be 5 to 10000");
        check("[beacon]\nscore_min_percent = 0", "it must be 1 to 100");
        check("[beacon]\nwindow_seconds = 60", "it must be 3600 to 86400");
    }
}
