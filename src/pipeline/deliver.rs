//! Delivery: findings to every sink, and a count of them by kind.

use std::collections::BTreeMap;

use crate::finding::{Finding, FindingKind};
use crate::sink::{Sink, SinkError};

/// The sinks of a run.
pub(super) struct Delivery {
    sinks: Vec<Box<dyn Sink>>,
    by_kind: BTreeMap<FindingKind, u64>,
    failure: Option<SinkError>,
}

/// What was delivered.
#[derive(Debug, Default)]
pub struct DeliveryReport {
    /// Findings by kind; an update counts as its finding did, once.
    pub by_kind: BTreeMap<FindingKind, u64>,
    /// The first sink that failed, which stopped the run.
    pub failure: Option<SinkError>,
}

impl Delivery {
    pub(super) const fn new(sinks: Vec<Box<dyn Sink>>) -> Self {
        Self { sinks, by_kind: BTreeMap::new(), failure: None }
    }

    /// Hands findings to every sink; false after a sink failed, when the run must stop.
    #[must_use]
    pub(super) fn deliver(&mut self, findings: &[Finding]) -> bool {
        for finding in findings.iter().filter(|finding| finding.revision == 0) {
            *self.by_kind.entry(finding.kind).or_default() += 1;
        }
        if !findings.is_empty() && self.failure.is_none() {
            self.failure = self.sinks.iter_mut().find_map(|sink| sink.write(findings).err());
        }
        self.failure.is_none()
    }

    pub(super) fn finish(mut self) -> DeliveryReport {
        if self.failure.is_none() {
            self.failure = self.sinks.iter_mut().find_map(|sink| sink.flush().err());
        }
        DeliveryReport { by_kind: self.by_kind, failure: self.failure }
    }
}
