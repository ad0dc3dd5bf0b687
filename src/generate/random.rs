//! Random numbers that are the same on every machine: SplitMix64, weighted choice, Zipf ranks.
//!
//! SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014. Weighted
//! choice: Vose, "A linear algorithm for generating random numbers with a given distribution", 1991.
//! Floats are only added, multiplied, divided and square-rooted, which IEEE 754 rounds exactly.

const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finalizer, also used as a hash: a bijection on 64 bits.
pub(super) const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A hash of two numbers.
pub(super) const fn mix2(first: u64, second: u64) -> u64 {
    mix(mix(first.wrapping_add(INCREMENT)) ^ second.wrapping_mul(INCREMENT))
}

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: u64,
}

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        // Neighbouring seeds must not give neighbouring positions on the one cycle.
        Self { state: mix(seed.wrapping_add(INCREMENT)) }
    }

    /// Uniform over 64 bits.
    pub(super) const fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(INCREMENT);
        mix(self.state)
    }

    /// Uniform in `0..count`; 0 for a count of 0.
    pub(super) const fn below(&mut self, count: u64) -> u64 {
        scale(self.bits(), count).0
    }

    /// Uniform in `low..=high`.
    pub(super) const fn between(&mut self, low: u64, high: u64) -> u64 {
        debug_assert!(low <= high);
        low + self.below(high - low + 1)
    }

    /// Uniform in `0..count`, for small counts.
    #[expect(clippy::cast_possible_truncation, reason = "less than `count`")]
    pub(super) const fn below_u32(&mut self, count: u32) -> u32 {
        self.below(count as u64) as u32
    }

    /// Uniform in `low..=high`, for ports.
    #[expect(clippy::cast_possible_truncation, reason = "at most `high`")]
    pub(super) const fn port(&mut self, low: u16, high: u16) -> u16 {
        self.between(low as u64, high as u64) as u16
    }

    /// True once in `count` on average.
    pub(super) const fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// One of `items`.
    pub(super) fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[scale_index(self.bits(), items.len())]
    }

    /// Heavy-tailed: at least 1, twice as large half as often, never over `limit`.
    pub(super) const fn tail(&mut self, limit: u64) -> u64 {
        let shift = self.bits().leading_zeros();
        let octave = if shift > 40 { 1 << 40 } else { 1_u64 << shift };
        let value = octave + self.below(octave);
        if value < limit { value } else { limit }
    }
}

/// The one of `items` that a hash stands for.
pub(super) fn pick_by_hash<T: Copy>(items: &[T], hash: u64) -> T {
    items[scale_index(hash, items.len())]
}

/// `value / 2^64 * count`, rounded down.
#[expect(clippy::cast_possible_truncation, reason = "less than `count`")]
const fn scale_index(value: u64, count: usize) -> usize {
    scale(value, count as u64).0 as usize
}

/// `value / 2^64 * count` as whole part and fraction in units of `2^-64`.
#[expect(clippy::cast_possible_truncation, reason = "the halves of a 128-bit product")]
const fn scale(value: u64, count: u64) -> (u64, u64) {
    let product = value as u128 * count as u128;
    ((product >> 64) as u64, product as u64)
}

/// Draws an index in proportion to its weight, in constant time.
#[derive(Clone, Debug)]
pub(super) struct Weighted {
    /// Per slot: keep the slot below this fraction of `2^64`, otherwise take the other index.
    slots: Vec<(u64, usize)>,
}

impl Weighted {
    /// The choice among `weights`, of which at least one is positive.
    pub(super) fn new(weights: &[f64]) -> Self {
        let count = weights.len();
        let total: f64 = weights.iter().sum();
        assert!(total > 0.0, "weights need a positive sum");
        let mut scaled: Vec<f64> = weights.iter().map(|w| w * count as f64 / total).collect();
        let mut slots = vec![(u64::MAX, 0); count];
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..count).partition(|index| scaled[*index] < 1.0);
        while let (Some(low), Some(&high)) = (small.pop(), large.last()) {
            slots[low] = (fraction_bits(scaled[low]), high);
            scaled[high] -= 1.0 - scaled[low];
            if scaled[high] < 1.0 {
                large.pop();
                small.push(high);
            }
        }
        for (index, slot) in slots.iter_mut().enumerate() {
            if slot.0 == u64::MAX {
                slot.1 = index;
            }
        }
        Self { slots }
    }

    pub(super) fn draw(&self, random: &mut Random) -> usize {
        let (slot, fraction) = scale(random.bits(), self.slots.len() as u64);
        let slot = usize::try_from(slot).expect("less than the slot count");
        let (keep_below, other) = self.slots[slot];
        if fraction < keep_below { slot } else { other }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a fraction of 2^64, held at the ends by the cast"
)]
const fn fraction_bits(fraction: f64) -> u64 {
    (fraction * 18_446_744_073_709_551_616.0) as u64
}

/// Draws ranks `0..count` about in proportion to `1 / (rank + 1)^skew`.
///
/// The first 16 ranks have their exact weight; after that, runs of ranks a sixteenth of their position
/// long share one, so that the table stays in the first-level cache whatever the count.
#[derive(Clone, Debug)]
pub(super) struct Zipf {
    runs: Vec<(u32, u32)>,
    choice: Weighted,
}

impl Zipf {
    pub(super) fn new(count: u32, skew: f64) -> Self {
        assert!(count > 0, "a rank needs at least one place");
        let mut runs = Vec::new();
        let mut weights = Vec::new();
        let mut first = 0;
        while first < count {
            let length = (first / 16).clamp(1, count - first);
            let middle = f64::from(first) + f64::from(length + 1) / 2.0;
            weights.push(f64::from(length) * inverse_power(middle, skew));
            runs.push((first, length));
            first += length;
        }
        Self { runs, choice: Weighted::new(&weights) }
    }

    pub(super) fn draw(&self, random: &mut Random) -> u32 {
        let (first, length) = self.runs[self.choice.draw(random)];
        if length == 1 { first } else { first + random.below_u32(length) }
    }
}

/// `base^-exponent` for a base of at least 1 and an exponent of at least 0, bit by bit.
fn inverse_power(base: f64, exponent: f64) -> f64 {
    let mut rest = log2(base) * exponent;
    let mut result = 1.0;
    while rest >= 1.0 {
        result /= 2.0;
        rest -= 1.0;
    }
    let (mut step, mut root) = (0.5, std::f64::consts::SQRT_2);
    for _ in 0..40 {
        if rest >= step {
            rest -= step;
            result /= root;
        }
        step /= 2.0;
        root = root.sqrt();
    }
    result
}

fn log2(value: f64) -> f64 {
    let (mut mantissa, mut sum) = (value, 0.0);
    while mantissa >= 2.0 {
        mantissa /= 2.0;
        sum += 1.0;
    }
    let mut step = 0.5;
    for _ in 0..40 {
        mantissa *= mantissa;
        if mantissa >= 2.0 {
            mantissa /= 2.0;
            sum += step;
        }
        step /= 2.0;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_the_published_one() {
        let mut random = Random { state: 1_234_567 };
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([random.bits(), random.bits()], expected);
    }

    #[test]
    fn powers_agree_with_the_library() {
        for (base, exponent) in [(1.0, 1.0), (2.0, 1.0), (10.0, 0.5), (123_456.0, 1.1), (7.0, 0.0)]
        {
            let expected = f64::powf(base, -exponent);
            assert!((inverse_power(base, exponent) / expected - 1.0).abs() < 1e-9, "{base}");
        }
    }

    #[test]
    fn weights_are_kept() {
        let choice = Weighted::new(&[1.0, 0.0, 3.0, 6.0]);
        let mut random = Random::new(1);
        let mut counts = [0_u32; 4];
        for _ in 0..100_000 {
            counts[choice.draw(&mut random)] += 1;
        }
        assert_eq!(counts[1], 0);
        for (index, share) in [(0, 10_000_u32), (2, 30_000), (3, 60_000)] {
            assert!(counts[index].abs_diff(share) < 1_000, "{counts:?}");
        }
    }

    #[test]
    fn ranks_follow_the_law_and_stay_inside() {
        let zipf = Zipf::new(1_000, 1.0);
        let mut random = Random::new(2);
        let mut counts = vec![0_u32; 1_000];
        for _ in 0..200_000 {
            counts[zipf.draw(&mut random) as usize] += 1;
        }
        // The sum of 1/k for k up to 1,000 is 7.485.
        assert!(counts[0].abs_diff(26_720) < 800, "{}", counts[0]);
        assert!(counts[1].abs_diff(13_360) < 600, "{}", counts[1]);
        let tail: u32 = counts[500..].iter().sum();
        assert!(tail.abs_diff(18_510) < 900, "{tail}");
        assert_eq!(Zipf::new(1, 2.0).draw(&mut random), 0);
    }
}
