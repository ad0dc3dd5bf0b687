//! What a Firehose source counted: added to by its tasks, read by whoever reports.

use std::sync::Arc;

use crate::metrics::{Count, Intake};

/// Counts of one source since it was made. Each is exact; together they are not one moment.
#[derive(Debug, Default)]
pub struct FirehoseCounters {
    /// Requests taken.
    pub requests: Count,
    /// Records in them.
    pub records: Count,
    /// Requests that were taken before and sent again; they are answered and not counted again.
    pub repeated: Count,
    /// Requests refused because of their key.
    pub unauthorized: Count,
    /// Requests refused because they can't be right, or are too large.
    pub rejected: Count,
    /// Requests refused for want of memory, or room in the spool.
    pub refused_full: Count,
    /// Requests that could not be written to the spool.
    pub unwritten: Count,
    /// Requests whose bodies broke off or took too long.
    pub cut: Count,
    /// Connections taken.
    pub connections: Count,
    /// Connections closed at once, because there were too many.
    pub connections_refused: Count,
    /// Connections on which TLS did not come about.
    pub handshakes_failed: Count,
}

impl FirehoseCounters {
    /// All of it, as reports take it.
    #[must_use]
    pub fn intake(&self, source: &Arc<str>) -> Intake {
        Intake {
            source: Arc::clone(source),
            inputs: 1,
            behind: Vec::new(),
            totals: vec![
                ("requests", self.requests.get()),
                ("records", self.records.get()),
                ("repeated", self.repeated.get()),
                ("connections", self.connections.get()),
            ],
            troubles: vec![
                ("unauthorized", self.unauthorized.get()),
                ("rejected", self.rejected.get()),
                ("refused_full", self.refused_full.get()),
                ("unwritten", self.unwritten.get()),
                ("cut", self.cut.get()),
                ("connections_refused", self.connections_refused.get()),
                ("handshakes_failed", self.handshakes_failed.get()),
            ],
        }
    }
}
