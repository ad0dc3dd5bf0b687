//! What a shard's reader shows of itself while it works: when it last had an answer, whether the pipeline
//! holds it back, and how far it is behind.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

const UNKNOWN: u64 = u64::MAX;

/// The signs of life of one reader; written by it, read by the audit and by reports.
#[derive(Debug)]
pub(super) struct Pulse {
    started: Instant,
    /// When the last good answer came, in ms since `started`; the time for which the pipeline held the
    /// reader back is added, because that is not its fault.
    last_sign_ms: AtomicU64,
    held_back: AtomicBool,
    behind_ms: AtomicU64,
}

impl Pulse {
    /// A reader that starts now.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            last_sign_ms: AtomicU64::new(0),
            held_back: AtomicBool::new(false),
            behind_ms: AtomicU64::new(UNKNOWN),
        }
    }

    /// A good answer came, so far from the tip of the shard.
    pub(super) fn answered(&self, behind_ms: u64) {
        self.behind_ms.store(behind_ms.min(UNKNOWN - 1), Ordering::Relaxed);
        self.last_sign_ms.store(milliseconds(self.started.elapsed()), Ordering::Relaxed);
    }

    /// The pipeline holds the reader back until the guard is dropped.
    pub(super) fn hold_back(&self) -> HeldBack<'_> {
        self.held_back.store(true, Ordering::Relaxed);
        HeldBack { pulse: self, since: Instant::now() }
    }

    /// How long there was no good answer; nothing while the pipeline holds the reader back.
    pub(super) fn silence(&self) -> Duration {
        if self.held_back.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        self.since_sign()
    }

    /// How far it is behind the tip of the shard, if an answer said so: by the answer, and by the time for
    /// which the pipeline has not taken it.
    pub(super) fn behind(&self) -> Option<Duration> {
        let behind_ms = self.behind_ms.load(Ordering::Relaxed);
        let held = self.held_back.load(Ordering::Relaxed);
        let waiting = if held { self.since_sign() } else { Duration::ZERO };
        (behind_ms != UNKNOWN).then(|| Duration::from_millis(behind_ms).saturating_add(waiting))
    }

    fn since_sign(&self) -> Duration {
        let last = Duration::from_millis(self.last_sign_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(last)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Lasts as long as the pipeline holds a reader back.
pub(super) struct HeldBack<'a> {
    pulse: &'a Pulse,
    since: Instant,
}

impl Drop for HeldBack<'_> {
    fn drop(&mut self) {
        self.pulse.last_sign_ms.fetch_add(milliseconds(self.since.elapsed()), Ordering::Relaxed);
        self.pulse.held_back.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_for_the_pipeline_is_lag_and_not_silence() {
        let mut pulse = Pulse::new();
        assert_eq!(pulse.behind(), None, "no answer has said so");
        pulse.started -= Duration::from_mins(1);
        assert!(pulse.silence() >= Duration::from_mins(1));
        pulse.answered(2_000);
        assert!(pulse.silence() < Duration::from_mins(1));
        assert_eq!(pulse.behind(), Some(Duration::from_secs(2)));

        let mut held = pulse.hold_back();
        held.since -= Duration::from_mins(1);
        assert_eq!(pulse.silence(), Duration::ZERO);
        drop(held);
        assert_eq!(pulse.silence(), Duration::ZERO, "it had no chance to ask");
        pulse.started -= Duration::from_mins(3);
        assert!(pulse.silence() >= Duration::from_mins(1), "what it was not held back is its own");
        let held = pulse.hold_back();
        assert!(pulse.behind() >= Some(Duration::from_secs(62)));
        drop(held);
        assert_eq!(pulse.behind(), Some(Duration::from_secs(2)));
    }
}
