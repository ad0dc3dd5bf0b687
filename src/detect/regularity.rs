//! How regular the contacts of a pair are, by RITA's method: the mean of four scores.
//!
//! Intervals and sizes are each scored by Bowley's skewness, which is 0 if quartiles lie evenly around the median,
//! and by the median absolute deviation. The third score is how many of the hours between the first and the last
//! contact had any, the fourth how long it went on. All look at quantiles, so that a few contacts that are lost
//! or late change little.

/// The newest intervals and sizes that are kept of a pair.
pub(super) const KEPT: usize = 20;

/// Sizes are told apart by an eighth of an octave, 9 per cent.
const STEPS_PER_OCTAVE: f64 = 8.0;

/// How long contacts have to go on for the full score.
const FULL_SECONDS: f64 = 14_400.0;

/// Intervals are regular at most up to this deviation from the median, in parts of it: a jitter of 60 per
/// cent either way has half of that.
const DEVIATION_MAX: f64 = 0.3;

/// Nor may the middle four fifths of them lie further apart than this many medians. Intervals of chance lie
/// three apart.
const SPREAD_MAX: f64 = 1.1;

/// A size as it is kept.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 8 * 64 / 2")]
pub(super) fn size_code(bytes: u64) -> u8 {
    let code = (bytes.max(1) as f64).log2() * STEPS_PER_OCTAVE;
    code.round().min(255.0) as u8
}

/// The size that is kept as `code`, in bytes.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 2 to the 32nd")]
pub(super) fn size_of_code(code: f64) -> u64 {
    (code / STEPS_PER_OCTAVE).exp2().round() as u64
}

/// How the values of a list lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    /// Median of the distances from the median.
    pub(super) deviation: f64,
    /// Bowley's.
    pub(super) skewness: f64,
    /// Between the first and the last tenth.
    pub(super) middle: f64,
}

impl Spread {
    /// Of a list that is not empty; its order is lost.
    pub(super) fn of(values: &mut [f64]) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let median = quantile(values, 0.5);
        let [low, high] = [0.25, 0.75].map(|part| quantile(values, part));
        let middle = quantile(values, 0.9) - quantile(values, 0.1);
        // Where the quartiles are next to each other there is nothing to be skewed.
        let skewness = if high - low < 1e-9 || median <= low || median >= high {
            0.0
        } else {
            (low + high - 2.0 * median) / (high - low)
        };
        values.iter_mut().for_each(|value| *value = (*value - median).abs());
        values.sort_unstable_by(f64::total_cmp);
        Self { median, deviation: quantile(values, 0.5), skewness, middle }
    }

    /// 1 for values that are all alike, down to 0; `scale` is the deviation that has no score.
    fn score(&self, scale: f64) -> f64 {
        let by_deviation = 1.0 - (self.deviation / scale).min(1.0);
        (1.0 - self.skewness.abs()).midpoint(by_deviation)
    }
}

/// Of values in order, between two of them where it must be.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a short list")]
fn quantile(values: &[f64], part: f64) -> f64 {
    let at = part * (values.len() - 1) as f64;
    let (below, above) = (values[at.floor() as usize], values[at.ceil() as usize]);
    (above - below).mul_add(at.fract(), below)
}

/// What the scores are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct History<'a> {
    /// In seconds; not empty.
    pub(super) intervals: &'a [u16],
    /// By [`size_code`]; not empty.
    pub(super) sizes: &'a [u8],
    /// Hours from the first to the last contact, with both.
    pub(super) hours: u32,
    /// Those of them that had contacts.
    pub(super) hours_used: u32,
    /// From the first to the last contact.
    pub(super) seconds: u32,
}

/// The four scores, 0 to 1 each, and what they are of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scores {
    pub(super) interval: Spread,
    pub(super) size: Spread,
    pub(super) intervals: f64,
    pub(super) sizes: f64,
    pub(super) hours: f64,
    pub(super) duration: f64,
}

impl Scores {
    /// Of a history.
    pub(super) fn of(history: &History<'_>) -> Self {
        let mut intervals = [0.0; KEPT];
        let intervals = filled(&mut intervals, history.intervals.iter().map(|s| f64::from(*s)));
        let mut sizes = [0.0; KEPT];
        let sizes = filled(&mut sizes, history.sizes.iter().map(|code| f64::from(*code)));
        let (interval, size) = (Spread::of(intervals), Spread::of(sizes));
        // With intervals of more than an hour, one contact per interval is all there can be.
        let possible = (f64::from(history.hours) * 3600.0 / interval.median.max(3600.0)).max(1.0);
        Self {
            interval,
            size,
            intervals: interval.score(interval.median.max(1.0)),
            sizes: size.score(STEPS_PER_OCTAVE),
            hours: (f64::from(history.hours_used) / possible).min(1.0),
            duration: (f64::from(history.seconds) / FULL_SECONDS).min(1.0),
        }
    }

    /// The mean.
    pub(super) fn mean(&self) -> f64 {
        (self.intervals + self.sizes + self.hours + self.duration) / 4.0
    }

    /// Whether the intervals alone are as even as a timer with jitter makes them, whatever the other scores.
    pub(super) fn is_timed(&self) -> bool {
        let Spread { median, deviation, middle, .. } = self.interval;
        deviation <= DEVIATION_MAX * median && middle <= SPREAD_MAX * median
    }
}

fn filled(buffer: &mut [f64; KEPT], values: impl Iterator<Item = f64>) -> &mut [f64] {
    let mut count = 0;
    for (place, value) in buffer.iter_mut().zip(values) {
        *place = value;
        count += 1;
    }
    &mut buffer[..count]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(intervals: &[u16], is_timed: bool, mean: std::ops::Range<f64>) {
        let sizes = [size_code(473); KEPT];
        let seconds = intervals.iter().map(|s| u32::from(*s)).sum::<u32>();
        let hours = seconds / 3600 + 1;
        let history = History { intervals, sizes: &sizes, hours, hours_used: hours, seconds };
        let scores = Scores::of(&history);
        assert_eq!(scores.is_timed(), is_timed, "{scores:?}");
        assert!(mean.contains(&scores.mean()), "{} of {scores:?}", scores.mean());
    }

    #[test]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds")]
    fn timers_are_told_from_chance() {
        check(&[60; KEPT], true, 0.75..0.78);
        check(&[3600; KEPT], true, 0.98..1.01);
        // A jitter of 30 per cent, evenly.
        let jittered: [u16; KEPT] =
            std::array::from_fn(|i| 420 + 18 * ((u16::try_from(i).unwrap() * 7) % 20));
        check(&jittered, true, 0.7..0.95);
        // Two of twenty were lost.
        let mut lost = [600; KEPT];
        (lost[3], lost[11]) = (1200, 1200);
        check(&lost, true, 0.9..1.0);
        // Exponential.
        let chance: [u16; KEPT] =
            std::array::from_fn(|i| (-600.0 * (1.0 - (i as f64 + 0.5) / 20.0).ln()) as u16);
        check(&chance, false, 0.4..0.9);
        check(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 600], false, 0.2..0.9);
    }

    #[test]
    fn sizes_stand_for_nine_per_cent() {
        for bytes in [1, 40, 473, 1500, 100_000, 4_000_000_000] {
            let kept = size_of_code(size_code(bytes).into());
            assert!(kept.abs_diff(bytes) <= bytes / 20, "{kept} for {bytes}");
        }
    }
}
