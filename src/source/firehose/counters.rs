//! What a Firehose source counted: added to by its tasks, read by whoever reports.

use std::sync::atomic::{AtomicU64, Ordering};

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

/// A count that many tasks add to.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
