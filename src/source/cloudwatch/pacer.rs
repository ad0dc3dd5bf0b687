//! The pace of calls over all log groups of a source: AWS's limit is one for the whole account.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Gives turns, no more in a second than it was made for.
#[derive(Debug)]
pub(super) struct Pacer {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Pacer {
    /// A pace of at most so many calls a second.
    pub(super) fn new(calls_per_second_max: u32) -> Self {
        assert!(calls_per_second_max > 0);
        let interval = Duration::from_secs(1) / calls_per_second_max;
        Self { interval, next: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn; those who ask are served in order.
    pub(super) async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            *next = at + self.interval;
            at
        };
        sleep_until(at).await;
    }

    /// Gives nobody a turn before this much time has passed.
    pub(super) fn hold(&self, delay: Duration) {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(Instant::now() + delay);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_spread() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let started = Instant::now();
            let pacer = Pacer::new(100);
            for _ in 0..5 {
                pacer.turn().await;
            }
            assert!(started.elapsed() >= Duration::from_millis(40));
            pacer.hold(Duration::from_millis(50));
            pacer.turn().await;
            assert!(started.elapsed() >= Duration::from_millis(90));
        });
    }
}
