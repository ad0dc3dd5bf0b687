//! How long threads wait for the ones behind them: back-pressure, by channel.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is counted of the channels between two kinds of threads. Shared by all their senders.
#[derive(Debug, Default)]
pub struct ChannelMeter {
    sent: AtomicU64,
    waits: AtomicU64,
    waited_ns: AtomicU64,
    queued: AtomicU64,
    capacity: AtomicU64,
}

/// The state of a channel's meter at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackPressure {
    /// Messages sent.
    pub sent: u64,
    /// Messages that found the channel full.
    pub waits: u64,
    /// How long their senders waited, added up.
    pub waited: Duration,
    /// Messages in the channel when the last one was sent.
    pub queued: u64,
    /// Messages that one channel holds.
    pub capacity: u64,
}

impl ChannelMeter {
    /// Counts a message, how many were then in the channel, and how long its sender waited, if it did.
    pub fn count(&self, queued: usize, waited: Option<Duration>) {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.queued.store(queued as u64, Ordering::Relaxed);
        if let Some(waited) = waited {
            let ns = u64::try_from(waited.as_nanos()).unwrap_or(u64::MAX);
            self.waits.fetch_add(1, Ordering::Relaxed);
            self.waited_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn read(&self) -> BackPressure {
        BackPressure {
            sent: self.sent.load(Ordering::Relaxed),
            waits: self.waits.load(Ordering::Relaxed),
            waited: Duration::from_nanos(self.waited_ns.load(Ordering::Relaxed)),
            queued: self.queued.load(Ordering::Relaxed),
            capacity: self.capacity.load(Ordering::Relaxed),
        }
    }
}

/// The meters of a run, by the name of the channel (`sources→parse`).
#[derive(Clone, Debug, Default)]
pub struct ChannelMeters(BTreeMap<&'static str, Arc<ChannelMeter>>);

impl ChannelMeters {
    /// A new meter for channels that hold `capacity` messages each.
    pub fn add(&mut self, name: &'static str, capacity: usize) -> Arc<ChannelMeter> {
        let meter = Arc::new(ChannelMeter::default());
        meter.capacity.store(capacity as u64, Ordering::Relaxed);
        self.0.insert(name, Arc::clone(&meter));
        meter
    }

    /// What was counted so far, by name.
    #[must_use]
    pub fn read(&self) -> BTreeMap<&'static str, BackPressure> {
        self.0.iter().map(|(name, meter)| (*name, meter.read())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_told_from_sends() {
        let mut meters = ChannelMeters::default();
        let meter = meters.add("a→b", 4);
        meter.count(1, None);
        meter.count(4, Some(Duration::from_millis(3)));
        let waited = Duration::from_millis(3);
        let expected = BackPressure { sent: 2, waits: 1, waited, queued: 4, capacity: 4 };
        assert_eq!(meters.read(), BTreeMap::from([("a→b", expected)]));
    }
}
