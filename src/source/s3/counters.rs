//! What a source of objects counted: added to by its tasks, read by whoever reports.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of one source since it was made. Each is exact; together they are not one moment.
#[derive(Debug, Default)]
pub struct S3Counters {
    /// Objects read to their end.
    pub objects: Count,
    /// Bytes fetched.
    pub bytes: Count,
    /// Requests that were refused because of a rate limit.
    pub throttled: Count,
    /// Requests that failed for another passing reason and were made again.
    pub retried: Count,
    /// Requests refused because of permissions, credentials or keys.
    pub denied: Count,
    /// Objects that were told of and are not there any more.
    pub gone: Count,
    /// Messages received from the queue.
    pub messages: Count,
    /// Messages deleted, because all their objects are safe.
    pub messages_deleted: Count,
    /// Objects told of again that were read already.
    pub repeated: Count,
    /// Messages left to the queue: they can't be read, or an object of theirs can't.
    pub messages_left: Count,
    /// Keys listed.
    pub keys_listed: Count,
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
