//! The settings of all detectors and how their ranges are checked. Each detector's own settings stand in
//! its file.

use std::ops::RangeInclusive;

use serde::Deserialize;

use super::bruteforce::BruteforceSettings;
use super::capture_gap::CaptureGapSettings;
use super::host_sweep::HostSweepSettings;
use super::port_scan::PortScanSettings;
use super::remote_access::RemoteAccessSettings;
use super::traffic_anomaly::TrafficAnomalySettings;

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
    /// Guessing of SSH logins.
    pub ssh_bruteforce: BruteforceSettings,
    /// Guessing of RDP logins.
    pub rdp_bruteforce: BruteforceSettings,
    /// Admin ports reached from outside.
    pub remote_access_attempt: RemoteAccessSettings,
    /// Interfaces with unusually much or little traffic.
    pub traffic_anomaly: TrafficAnomalySettings,
    /// Traffic that was not logged.
    pub capture_gap: CaptureGapSettings,
}

impl DetectSettings {
    /// Every fault, with the name of its table.
    #[must_use]
    pub fn check(&self) -> Vec<(&'static str, SettingsError)> {
        [
            ("port_scan", self.port_scan.check()),
            ("host_sweep", self.host_sweep.check()),
            ("ssh_bruteforce", self.ssh_bruteforce.check()),
            ("rdp_bruteforce", self.rdp_bruteforce.check()),
            ("remote_access_attempt", self.remote_access_attempt.check()),
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
    }
}
