//! An estimate of how many different values came, from the hashes of the values: HyperLogLog.
//!
//! 4,096 registers of a byte (Flajolet et al. 2007); the estimate is Ertl's improved raw estimator ("New
//! cardinality estimation algorithms for HyperLogLog sketches", 2017, algorithm 6), which needs no tables of
//! biases and holds from 0 to any number. The standard error is 1.04 / √4096 = 1.625 %. The hash is seeded,
//! so that nobody can choose values that it takes for more or fewer.

/// Registers of a sketch, one byte each.
pub(super) const REGISTERS: usize = 1 << REGISTER_BITS;

const REGISTER_BITS: u32 = 12;

/// Bits of a hash that make a rank; the rank is one more at most.
const RANK_BITS: u32 = u64::BITS - REGISTER_BITS;

/// Thrice the standard error: 99.7 % of estimates are at least that close.
const ERROR_MAX: f64 = 3.0 * 1.04 / 64.0;

/// Takes up the value with this hash.
#[inline]
pub(super) fn add(registers: &mut [u8], hash: u64) {
    let register = usize::try_from(hash >> RANK_BITS).expect("12 bits");
    let rank = ((hash << REGISTER_BITS) | (1 << (REGISTER_BITS - 1))).leading_zeros() + 1;
    let rank = u8::try_from(rank).expect("at most 53");
    registers[register] = registers[register].max(rank);
}

/// Takes up the values of another sketch with the same hash.
pub(super) fn merge(registers: &mut [u8], other: &[u8]) {
    registers.iter_mut().zip(other).for_each(|(mine, other)| *mine = (*mine).max(*other));
}

/// How many different values came, about.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub(super) fn estimate(registers: &[u8]) -> u64 {
    let count = REGISTERS as f64;
    let mut histogram = [0_u32; RANK_BITS as usize + 2];
    for rank in registers {
        histogram[usize::from(*rank).min(RANK_BITS as usize + 1)] += 1;
    }
    let [empty, ranks @ .., full] = &histogram;
    let from_ranks = ranks
        .iter()
        .rev()
        .fold(count * tau(1.0 - f64::from(*full) / count), |z, n| 0.5 * (z + f64::from(*n)));
    let z = from_ranks + count * sigma(f64::from(*empty) / count);
    (count * count / (2.0 * std::f64::consts::LN_2 * z)).round() as u64
}

/// How far an estimate may be off, either way, with 99.7 % confidence.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub(super) fn error_of(estimate: u64) -> u64 {
    (estimate as f64 * (ERROR_MAX / (1.0 - ERROR_MAX))).ceil() as u64
}

/// What registers without a value stand for.
#[expect(clippy::float_cmp, reason = "until it does not change")]
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z == before {
            return z;
        }
    }
}

/// What registers at the highest rank stand for.
#[expect(clippy::float_cmp, reason = "until it does not change")]
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z == before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::table::Mixer;

    /// Over 40 seeds, from few values to many: unbiased, and as close as is said.
    #[test]
    fn estimates_are_as_close_as_stated() {
        let counts = [0_u64, 1, 10, 1_000, 5_000, 20_000, 100_000];
        let (mut beyond, mut sums) = (0, [0.0; 7]);
        for seed in 0..40 {
            let mixer = Mixer::with_seed(seed);
            let mut registers = vec![0; REGISTERS];
            let mut number = 0;
            for (place, count) in counts.into_iter().enumerate() {
                while number < count {
                    add(&mut registers, mixer.word(number));
                    number += 1;
                }
                let estimate = estimate(&registers);
                beyond += usize::from(estimate.abs_diff(count) > error_of(estimate));
                sums[place] += estimate as f64 - count as f64;
            }
        }
        assert!(beyond <= 3, "{beyond} of 280");
        for (sum, count) in sums.into_iter().zip(counts) {
            // The mean of 40 has a sixth of the error of one.
            assert!((sum / 40.0).abs() <= 0.5 * ERROR_MAX * count as f64, "{count}: {sum}");
        }
    }

    #[test]
    fn merged_sketches_are_one_that_saw_all() {
        let mixer = Mixer::with_seed(9);
        let [mut all, mut one, mut other] = [(); 3].map(|()| vec![0; REGISTERS]);
        for number in 0..30_000 {
            let hash = mixer.word(number);
            add(&mut all, hash);
            add(if number % 3 == 0 { &mut one } else { &mut other }, hash);
        }
        merge(&mut one, &other);
        assert_eq!(one, all);
        add(&mut one, 0);
        add(&mut one, u64::MAX);
        assert_eq!((one[0], one[REGISTERS - 1] >= 1), (53, true));
    }
}
