//! How often a shard is read, and how much an answer may bring: arithmetic on what answers said.
//!
//! Kinesis grants a shard's readers five calls and 2 MB a second together, and after an answer of 10 MB
//! none for five seconds. Behind the tip a reader uses its whole share; at the tip, where most calls bring
//! nothing, it leaves more and more of it to others, up to one call a second, or fewer where there are so
//! many shards that their empty answers would keep a core busy. Other readers of the shard show by
//! throttling: then it asks less often, and comes back slowly.

use std::time::Duration;

/// What a shard gives its polling readers per second.
const READ_BYTES_PER_SECOND: f64 = 2_000_000.0;
/// What a shard takes from its writers per second: at the tip no answer can bring more than what came
/// since the last.
const WRITE_BYTES_PER_SECOND: f64 = 1_000_000.0;
/// Longest time between reads that idleness alone leads to.
const IDLE_INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Reads a second that all idle shards of a source together may cause: 0.2 ms of a core each.
const IDLE_CALLS_PER_SECOND: u32 = 500;
/// By how much idle times differ, so that shards that began together do not stay in step.
const IDLE_JITTER: f64 = 0.2;
/// Longest interval that throttling alone leads to.
const SHARED_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// How much of it is taken back with every answer.
const SHARED_INTERVAL_STEP: Duration = Duration::from_millis(20);

/// The longest time between reads of an idle shard where as many shards are read.
pub(super) fn idle_interval_max(shard_count: usize) -> Duration {
    let shard_count = u32::try_from(shard_count).unwrap_or(u32::MAX);
    IDLE_INTERVAL_MAX.max(Duration::from_secs(1) * shard_count / IDLE_CALLS_PER_SECOND)
}

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
    pub(super) behind_ms: u64,
    /// Whether it held no record.
    pub(super) empty: bool,
}

/// The pace of one shard's reader.
#[derive(Debug)]
pub(super) struct Pace {
    poll_interval: Duration,
    /// What throttling makes of it.
    shared_interval: Duration,
    interval: Duration,
    last: Option<Answer>,
}

impl Pace {
    /// A pace that starts at full rate.
    pub(super) fn new(poll_interval: Duration) -> Self {
        let interval = poll_interval;
        Self { poll_interval, shared_interval: interval, interval, last: None }
    }

    /// Takes an answer; the least time from the start of its call to the start of the next. `jitter` is 0
    /// to 1.
    pub(super) fn after(&mut self, answer: Answer, idle_max: Duration, jitter: f64) -> Duration {
        let idle = answer.empty && answer.behind_ms == 0;
        let eased = self.shared_interval.saturating_sub(SHARED_INTERVAL_STEP);
        self.shared_interval = eased.max(self.poll_interval);
        self.last = Some(answer);
        if idle {
            self.interval = (self.interval * 2).min(idle_max.max(self.poll_interval));
            let waits = self.interval.max(self.shared_interval);
            return waits + waits.mul_f64(IDLE_JITTER * jitter);
        }
        self.interval = self.poll_interval;
        let paid = Duration::from_secs_f64(answer.bytes as f64 / READ_BYTES_PER_SECOND);
        self.shared_interval.max(paid)
    }

    /// Somebody else reads the shard as well, and there is not enough for all.
    pub(super) fn throttled(&mut self) {
        let limit = SHARED_INTERVAL_MAX.max(self.poll_interval);
        self.shared_interval = (self.shared_interval * 3 / 2).min(limit);
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

    fn waits(pace: &mut Pace, answers: &[(u64, u64)]) -> Vec<u64> {
        let after = |&(bytes, behind_ms)| {
            let answer = Answer { bytes, behind_ms, empty: bytes == 0 };
            let wait = pace.after(answer, idle_interval_max(1), 0.0);
            u64::try_from(wait.as_millis()).unwrap()
        };
        answers.iter().map(after).collect()
    }

    fn check(answers: &[(u64, u64)], expected_ms: &[u64]) {
        assert_eq!(waits(&mut Pace::new(POLL), answers), expected_ms);
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
        assert_eq!(waits(&mut pace, &[(0, 0)]), [5000]);
    }

    #[test]
    fn thousands_of_idle_shards_are_asked_less_often_and_not_in_step() {
        assert_eq!(idle_interval_max(500), Duration::from_secs(1));
        assert_eq!(idle_interval_max(2_000), Duration::from_secs(4));
        let mut pace = Pace::new(POLL);
        let idle = Answer { bytes: 0, behind_ms: 0, empty: true };
        for _ in 0..5 {
            pace.after(idle, idle_interval_max(2_000), 0.0);
        }
        assert_eq!(pace.after(idle, idle_interval_max(2_000), 0.0), Duration::from_secs(4));
        assert_eq!(pace.after(idle, idle_interval_max(2_000), 1.0), Duration::from_millis(4_800));
    }

    #[test]
    fn a_shard_that_others_read_too_is_shared() {
        let mut pace = Pace::new(POLL);
        pace.throttled();
        pace.throttled();
        assert_eq!(waits(&mut pace, &[(100, 9), (100, 9)]), [542, 522]);
        assert_eq!(waits(&mut pace, &[(100, 9); 20]).last(), Some(&250), "it comes back");
        (0..20).for_each(|_| pace.throttled());
        assert_eq!(waits(&mut pace, &[(100, 9)]), [1980]);
    }

    proptest! {
        #[test]
        fn limits_hold(
            answers in prop::collection::vec((0_u64..ANSWER_BYTES_MAX, 0_u64..100_000, 0..3), 1..50),
            since_ms in 0_u64..100_000,
            jitter in 0.0..=1.0_f64,
        ) {
            let mut pace = Pace::new(POLL);
            for (bytes, behind_ms, throttles) in answers {
                (0..throttles).for_each(|_| pace.throttled());
                let answer = Answer { bytes, behind_ms, empty: bytes == 0 };
                let wait = pace.after(answer, idle_interval_max(1), jitter);
                prop_assert!(wait >= POLL);
                prop_assert!(bytes as f64 / wait.as_secs_f64() <= READ_BYTES_PER_SECOND * 1.001);
                let reserve = pace.reserve_bytes(Duration::from_millis(since_ms));
                prop_assert!((RESERVE_BYTES_MIN..=ANSWER_BYTES_MAX).contains(&reserve));
            }
        }
    }
}
