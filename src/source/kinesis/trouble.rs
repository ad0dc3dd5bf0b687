//! Failures that pass: counted as they come, told in one line now and then.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::shared::Shared;

/// Time between two log lines about trouble that passes.
const TROUBLE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The last message about a failure that passes, kept until the next log line.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<String>>);

impl Trouble {
    /// Replaces the message.
    pub(super) fn note(&self, message: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Turns counts of failures that pass into a log line now and then.
pub(super) struct TroubleLog {
    next: Instant,
    throttled: u64,
    retried: u64,
    iterators_replaced: u64,
    subscriptions_broken: u64,
    denied: u64,
}

impl TroubleLog {
    /// A log that may write at once.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now,
            throttled: 0,
            retried: 0,
            iterators_replaced: 0,
            subscriptions_broken: 0,
            denied: 0,
        }
    }

    /// Writes if something happened and the last line is old enough.
    pub(super) fn write_if_due(&mut self, shared: &Shared) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let Some(last_error) = shared.trouble.take() else { return };
        let counters = &shared.counters;
        let since = |count: u64, last: &mut u64| count - std::mem::replace(last, count);
        let throttled = since(counters.throttled.get(), &mut self.throttled);
        let retried = since(counters.retried.get(), &mut self.retried);
        let replaced = since(counters.iterators_replaced.get(), &mut self.iterators_replaced);
        let broken = since(counters.subscriptions_broken.get(), &mut self.subscriptions_broken);
        let denied = since(counters.denied.get(), &mut self.denied);
        let source = &*shared.source_name;
        if denied > 0 {
            tracing::error!(
                source,
                denied,
                last_error,
                "reads are denied; check permissions, the clock of this machine and the stream's key, reading goes on once they allow it"
            );
        } else {
            tracing::warn!(
                source,
                throttled,
                retried,
                iterators_replaced = replaced,
                subscriptions_broken = broken,
                last_error,
                "reads failed and were made again"
            );
        }
        self.next = now + TROUBLE_LOG_INTERVAL;
    }
}
