//! What a CloudWatch Logs source counted: added to by its tasks, read by whoever reports.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one source since it was made. Each is exact; together they are not one moment.
#[derive(Debug, Default)]
pub struct CloudWatchCounters {
    /// Events handed on.
    pub events: Count,
    /// Events that came again and were left out.
    pub repeated: Count,
    /// Calls that were answered.
    pub answers: Count,
    /// Calls that were refused because of a rate limit.
    pub throttled: Count,
    /// Calls that failed for another passing reason and were made again.
    pub retried: Count,
    /// Tokens of pages that were refused; their range was asked for again.
    pub tokens_replaced: Count,
    /// Times that more events were to be remembered than can be: later ones may be missed or, after a
    /// restart, come again.
    pub overfull: Count,
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
