//! What a Kinesis source counted: added to by its tasks, read by whoever reports.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one source since it was made. Each is exact; together they are not one moment.
#[derive(Debug, Default)]
pub struct KinesisCounters {
    /// Records handed on.
    pub records: Count,
    /// Payload bytes handed on.
    pub bytes: Count,
    /// GetRecords calls that were answered.
    pub answers: Count,
    /// Calls that were refused because of a rate limit.
    pub throttled: Count,
    /// Calls that failed for another passing reason and were made again.
    pub retried: Count,
    /// Shard iterators that were refused and replaced.
    pub iterators_replaced: Count,
    /// Calls refused because of permissions or the stream's key, after reading had begun.
    pub denied: Count,
    /// Times that records were certainly or possibly lost, because the stream had already deleted
    /// them.
    pub losses: Count,
    /// Shards read to their end.
    pub shards_ended: Count,
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
