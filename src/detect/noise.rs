//! How much is told of what is found: the table `[noise]` of the configuration.

use std::collections::BTreeMap;

use crate::finding::{FindingKind, Severity};

/// The settings of noise control.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoiseSettings {
    /// What matters less is only counted.
    pub min_severity: Severity,
    /// How long a finding that goes on is not renewed, unless it doubles in size, in seconds.
    pub suppress_seconds: u32,
    /// How many findings of a kind and severity an hour of the stream may tell; 0 is no limit.
    pub findings_per_hour_max: u32,
    /// What holds for single kinds in place of that.
    pub kinds: BTreeMap<FindingKind, KindNoise>,
}

/// What holds for one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindNoise {
    /// In place of the detector's severity.
    pub severity: Option<Severity>,
    /// In place of the one for all kinds.
    pub suppress_seconds: Option<u32>,
    /// In place of the one for all kinds.
    pub findings_per_hour_max: Option<u32>,
}

impl NoiseSettings {
    /// What `suppress_seconds` is without the key: as long as Zeek's, an hour.
    pub const SUPPRESS_SECONDS: u32 = 3600;

    /// What `findings_per_hour_max` is without the key: one in four seconds, far more than people read, and
    /// little enough for whatever takes findings.
    pub const FINDINGS_PER_HOUR_MAX: u32 = 1000;

    fn of(&self, kind: FindingKind) -> KindNoise {
        self.kinds.get(&kind).copied().unwrap_or_default()
    }

    /// The severity of a finding that a detector gives `severity`.
    pub(super) fn severity(&self, kind: FindingKind, severity: Severity) -> Severity {
        self.of(kind).severity.unwrap_or(severity)
    }

    /// How long a finding of the kind is not renewed, in seconds.
    pub(super) fn suppress_seconds(&self, kind: FindingKind) -> u32 {
        self.of(kind).suppress_seconds.unwrap_or(self.suppress_seconds)
    }

    /// How many findings of a kind and severity an hour may tell.
    pub(super) fn per_hour_max(&self, kind: FindingKind, severity: Severity) -> u32 {
        match self.of(kind).findings_per_hour_max.unwrap_or(self.findings_per_hour_max) {
            _ if severity == Severity::Critical => u32::MAX,
            0 => u32::MAX,
            most => most,
        }
    }
}

impl Default for NoiseSettings {
    fn default() -> Self {
        Self {
            min_severity: Severity::Low,
            suppress_seconds: Self::SUPPRESS_SECONDS,
            findings_per_hour_max: Self::FINDINGS_PER_HOUR_MAX,
            kinds: BTreeMap::new(),
        }
    }
}
