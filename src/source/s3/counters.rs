//! What a source of objects counted: added to by its tasks, read by whoever reports.

use std::sync::Arc;

use crate::metrics::{Count, Intake};

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

impl S3Counters {
    /// All of it, as reports take it.
    #[must_use]
    pub fn intake(&self, source: &Arc<str>) -> Intake {
        Intake {
            source: Arc::clone(source),
            inputs: 1,
            behind: Vec::new(),
            totals: vec![
                ("objects", self.objects.get()),
                ("bytes", self.bytes.get()),
                ("messages", self.messages.get()),
                ("messages_deleted", self.messages_deleted.get()),
                ("repeated", self.repeated.get()),
                ("keys_listed", self.keys_listed.get()),
            ],
            troubles: vec![
                ("throttled", self.throttled.get()),
                ("retried", self.retried.get()),
                ("denied", self.denied.get()),
                ("gone", self.gone.get()),
                ("messages_left", self.messages_left.get()),
            ],
        }
    }
}
