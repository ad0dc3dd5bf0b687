//! What a Kinesis source counted, and how far its shards are behind: added to by its tasks, read by
//! whoever reports.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::metrics::{Count, Intake};

use super::pulse::Pulse;

/// Counts of one source since it was made. Each is exact; together they are not one moment.
#[derive(Debug, Default)]
pub struct KinesisCounters {
    /// Records handed on.
    pub records: Count,
    /// Payload bytes handed on.
    pub bytes: Count,
    /// GetRecords calls that were answered, and events of subscriptions.
    pub answers: Count,
    /// Calls that were refused because of a rate limit.
    pub throttled: Count,
    /// Calls that failed for another passing reason and were made again.
    pub retried: Count,
    /// Shard iterators that were refused and replaced.
    pub iterators_replaced: Count,
    /// Subscriptions that were made, the first of each shard as well.
    pub subscriptions: Count,
    /// Subscriptions that were refused because another one of the consumer is younger than five seconds.
    pub subscriptions_in_use: Count,
    /// Subscriptions that ended in a fault, or brought nothing for too long.
    pub subscriptions_broken: Count,
    /// Calls refused because of permissions or the stream's key, after reading had begun.
    pub denied: Count,
    /// Times that records were certainly or possibly lost, because the stream had already deleted
    /// them.
    pub losses: Count,
    /// Shards read to their end.
    pub shards_ended: Count,
    /// Readers that stood still or ended in a panic, and were started again from their positions.
    pub readers_retaken: Count,
    /// Times that open shards and hash keys did not fit what is read.
    pub audit_alarms: Count,
    shards: Mutex<BTreeMap<Arc<str>, Arc<Pulse>>>,
}

impl KinesisCounters {
    /// How far shards are behind the newest record of the stream, the slowest first, at most `count` of
    /// them.
    #[must_use]
    pub fn behind(&self, count: usize) -> Vec<(Arc<str>, Duration)> {
        let shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        let told = shards.iter().filter_map(|(id, pulse)| Some((Arc::clone(id), pulse.behind()?)));
        let mut behind: Vec<_> = told.collect();
        drop(shards);
        behind.sort_by_key(|(_, behind)| std::cmp::Reverse(*behind));
        behind.truncate(count);
        behind
    }

    /// Shards that are read now.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// All of it, as reports take it.
    #[must_use]
    pub fn intake(&self, source: &Arc<str>) -> Intake {
        Intake {
            source: Arc::clone(source),
            inputs: self.shard_count() as u64,
            behind: self.behind(Intake::INPUTS_MAX),
            totals: vec![
                ("records", self.records.get()),
                ("bytes", self.bytes.get()),
                ("answers", self.answers.get()),
                ("subscriptions", self.subscriptions.get()),
                ("shards_ended", self.shards_ended.get()),
            ],
            troubles: vec![
                ("throttled", self.throttled.get()),
                ("retried", self.retried.get()),
                ("iterators_replaced", self.iterators_replaced.get()),
                ("subscriptions_in_use", self.subscriptions_in_use.get()),
                ("subscriptions_broken", self.subscriptions_broken.get()),
                ("denied", self.denied.get()),
                ("losses", self.losses.get()),
                ("readers_retaken", self.readers_retaken.get()),
                ("audit_alarms", self.audit_alarms.get()),
            ],
        }
    }

    /// A reader of the shard starts.
    pub(super) fn watch(&self, shard: &Arc<str>, pulse: &Arc<Pulse>) {
        let mut shards = self.shards.lock().unwrap_or_else(PoisonError::into_inner);
        shards.insert(Arc::clone(shard), Arc::clone(pulse));
    }

    /// The shard is read no more.
    pub(super) fn forget(&self, shard: &str) {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).remove(shard);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_shards_come_first() {
        let counters = KinesisCounters::default();
        for (shard, behind_ms) in
            [("a", Some(1_000)), ("b", Some(3_000)), ("c", None), ("d", Some(0))]
        {
            let pulse = Arc::new(Pulse::new());
            behind_ms.into_iter().for_each(|behind_ms| pulse.answered(behind_ms));
            counters.watch(&shard.into(), &pulse);
        }
        let seconds = |count| -> Vec<(String, u64)> {
            let behind = counters.behind(count);
            behind.into_iter().map(|(id, behind)| (id.to_string(), behind.as_secs())).collect()
        };
        assert_eq!(seconds(2), [("b".to_owned(), 3), ("a".to_owned(), 1)]);
        counters.forget("b");
        assert_eq!(seconds(9), [("a".to_owned(), 1), ("d".to_owned(), 0)]);
        let intake = counters.intake(&"prod".into());
        assert_eq!((intake.inputs, intake.behind.len()), (3, 2));
    }
}
