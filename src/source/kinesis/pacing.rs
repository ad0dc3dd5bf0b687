//! How often a shard is read, and how much an answer may bring: arithmetic on what answers said.
//!
//! Kinesis grants a shard's readers five calls and 2 MB a second together. Behind the tip a reader
//! uses its whole share; at the tip, where most calls bring nothing, it leaves more and more of it to
//! others, up to one call a second.

use std::time::Duration;

/// What a shard gives its polling readers per second.
const READ_BYTES_PER_SECOND: f64 = 2_000_000.0;
/// What a shard takes from its writers per second: at the tip no answer can bring more than what came
/// since the last.
const WRITE_BYTES_PER_SECOND: f64 = 1_000_000.0;
/// Longest time between reads that idleness alone leads to.
const IDLE_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Most payload that one answer holds.
pub(super) const ANSWER_BYTES_MAX: u64 = 10 << 20;
const RESERVE_BYTES_MIN: u64 = 64 << 10;
const RESERVE_BEHIND_BYTES_MIN: u64 = 1 << 20;

/// An answer, as far as it decides when to ask again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// Payload in it.
    pub(super) bytes: u64,
    /// How far it was from the tip; `MillisBehindLatest`.
    pub(super) behind_ms: i64,
    /// Whether it held no record.
    pub(super) empty: bool,
}

/// The pace of one shard's reader.
#[derive(Debug)]
pub(super) struct Pace {
    poll_interval: Duration,
    interval: Duration,
    last: Option<Answer>,
}

impl Pace {
    /// A pace that starts at full rate.
    pub(super) fn new(poll_interval: Duration) -> Self {
        Self { poll_interval, interval: poll_interval, last: None }
    }

    /// Takes an answer; the least time from the start of its call to the start of the next.
    pub(super) fn after(&mut self, answer: Answer) -> Duration {
        let idle = answer.empty && answer.behind_ms == 0;
        self.interval = if idle {
            (self.interval * 2).min(IDLE_INTERVAL_MAX.max(self.poll_interval))
        } else {
            self.poll_interval
        };
        self.last = Some(answer);
        self.interval.max(Duration::from_secs_f64(answer.bytes as f64 / READ_BYTES_PER_SECOND))
    }

    /// How many bytes to set aside for the next answer, `since_last` after the last call.
    pub(super) fn reserve_bytes(&self, since_last: Duration) -> u64 {
        match self.last {
            None => ANSWER_BYTES_MAX,
            Some(Answer { behind_ms: 0, .. }) => {
                let arrived = WRITE_BYTES_PER_SECOND * since_last.as_secs_f64();
                // Held at the most an answer can hold, which fits.
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let arrived = arrived.min(ANSWER_BYTES_MAX as f64) as u64;
                arrived.max(RESERVE_BYTES_MIN)
            }
            Some(answer) => {
                answer.bytes.saturating_mul(2).clamp(RESERVE_BEHIND_BYTES_MIN, ANSWER_BYTES_MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLL: Duration = Duration::from_millis(250);

    fn check(answers: &[(u64, i64)], expected_ms: &[u64]) {
        let mut pace = Pace::new(POLL);
        let waits: Vec<u64> = answers
            .iter()
            .map(|&(bytes, behind_ms)| pace.after(Answer { bytes, behind_ms, empty: bytes == 0 }))
            .map(|wait| u64::try_from(wait.as_millis()).unwrap())
            .collect();
        assert_eq!(waits, expected_ms);
    }

    #[test]
    fn idleness_slows_and_anything_else_quickens() {
        check(&[(0, 0), (0, 0), (0, 0), (0, 0)], &[500, 1000, 1000, 1000]);
        check(&[(0, 0), (0, 0), (100, 0), (0, 0)], &[500, 1000, 250, 500]);
        // An empty answer behind the tip is a gap in the shard, not idleness.
        check(&[(0, 60_000), (0, 60_000)], &[250, 250]);
    }

    #[test]
    fn large_answers_are_paid_for_in_time() {
        check(&[(400_000, 1000), (2_000_000, 1000), (10_000_000, 1000)], &[250, 1000, 5000]);
    }

    #[test]
    fn an_interval_longer_than_idleness_stays() {
        let mut pace = Pace::new(Duration::from_secs(5));
        let idle = Answer { bytes: 0, behind_ms: 0, empty: true };
        assert_eq!(pace.after(idle), Duration::from_secs(5));
    }

    proptest! {
        #[test]
        fn limits_hold(
            answers in prop::collection::vec((0_u64..ANSWER_BYTES_MAX, 0_i64..100_000), 1..50),
            since_ms in 0_u64..100_000,
        ) {
            let mut pace = Pace::new(POLL);
            for (bytes, behind_ms) in answers {
                let wait = pace.after(Answer { bytes, behind_ms, empty: bytes == 0 });
                prop_assert!(wait >= POLL);
                prop_assert!(bytes as f64 / wait.as_secs_f64() <= READ_BYTES_PER_SECOND * 1.001);
                let reserve = pace.reserve_bytes(Duration::from_millis(since_ms));
                prop_assert!((RESERVE_BYTES_MIN..=ANSWER_BYTES_MAX).contains(&reserve));
            }
        }
    }
}
