//! Settings of components whose modules bring their own: the same names and form, so that a change of
//! imports replaces them.

use serde::Deserialize;

/// Settings of all detectors: `[detectors.KIND]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectSettings {
    /// Many ports of one host.
    pub port_scan: DetectorSettings,
    /// One port over many hosts.
    pub host_sweep: DetectorSettings,
    /// Password guessing over SSH.
    pub ssh_bruteforce: DetectorSettings,
    /// Password guessing over RDP.
    pub rdp_bruteforce: DetectorSettings,
    /// Administration ports reached from outside.
    pub remote_access_attempt: DetectorSettings,
}

/// Settings of one detector.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DetectorSettings {
    /// Whether it runs.
    pub enabled: bool,
    /// Length of its window.
    pub window_seconds: u32,
}

impl Default for DetectorSettings {
    fn default() -> Self {
        Self { enabled: true, window_seconds: 300 }
    }
}

/// Settings of a Kinesis source.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KinesisSettings {
    /// Name of the stream.
    pub stream: String,
    /// AWS region; the SDK's default chain if absent.
    pub region: Option<String>,
    /// Another endpoint than AWS's.
    pub endpoint: Option<String>,
    /// Where reading starts.
    #[serde(default)]
    pub start: KinesisStart,
}

/// Where reading of a stream starts.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KinesisStart {
    /// With the oldest record that the stream still has.
    #[default]
    TrimHorizon,
    /// With the next record.
    Latest,
}

/// Settings of the demo source.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DemoSettings {
    /// The seed of everything random.
    pub seed: u64,
    /// Records made in a second of wall time.
    pub records_per_second: u32,
}

impl Default for DemoSettings {
    fn default() -> Self {
        Self { seed: 1, records_per_second: 1_000 }
    }
}
