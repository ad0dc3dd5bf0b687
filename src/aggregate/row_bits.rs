//! Sets of rows of a batch as bits, 64 rows to a word, and scans of its columns.
//!
//! Plain code that the compiler can keep in registers: the build asks for no instruction set beyond
//! the machine's base, so a word of eight one-byte values is what one step looks at.

/// The bits of a word's rows.
pub(super) const WORD_ROWS: usize = 64;

/// The bits of rows whose value, as a byte, is not `byte`.
///
/// # Panics
/// If there are more than 64 values.
#[inline]
pub(super) fn where_not<T: Copy>(values: &[T], to_byte: impl Fn(T) -> u8, byte: u8) -> u64 {
    assert!(values.len() <= WORD_ROWS);
    let mut bits = 0;
    let (eights, rest) = values.as_chunks::<8>();
    for (index, eight) in eights.iter().enumerate() {
        let differing = u64::from_le_bytes(eight.map(&to_byte)) ^ u64::from_le_bytes([byte; 8]);
        bits |= nonzero_bytes(differing) << (index * 8);
    }
    for (index, value) in (eights.len() * 8..).zip(rest) {
        bits |= u64::from(to_byte(*value) != byte) << index;
    }
    bits
}

/// A bit for each byte that is not 0, the lowest for the lowest.
const fn nonzero_bytes(word: u64) -> u64 {
    const LOW_7: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let high = (((word & LOW_7) + LOW_7) | word) & !LOW_7;
    // Byte i has its bit at 8 i; the multiplication adds 56 - 7 i to that.
    (high >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// The places of the bits that are set, ascending.
pub(super) fn places(bits: u64) -> impl Iterator<Item = usize> {
    let mut left = bits;
    std::iter::from_fn(move || {
        let place = left.trailing_zeros() as usize;
        let found = left != 0;
        left &= left.wrapping_sub(1);
        found.then_some(place)
    })
}

/// The exact sum. Both halves of each number are summed apart, so that no step can overflow.
pub(super) fn sum(values: &[u64]) -> u128 {
    assert!(u32::try_from(values.len()).is_ok(), "a batch has far fewer than 2^32 rows");
    let (low, high) = values.iter().fold((0_u64, 0_u64), |(low, high), value| {
        (low + (value & 0xffff_ffff), high + (value >> 32))
    });
    u128::from(low) + (u128::from(high) << 32)
}

/// The least and the greatest value; `None` if there is none.
pub(super) fn least_and_greatest(values: &[i64]) -> Option<(i64, i64)> {
    // Four of each, because one comparison would wait for the one before.
    let mut least = [*values.first()?; 4];
    let mut greatest = least;
    let (fours, rest) = values.as_chunks::<4>();
    for four in fours {
        for lane in 0..4 {
            least[lane] = least[lane].min(four[lane]);
            greatest[lane] = greatest[lane].max(four[lane]);
        }
    }
    for value in rest {
        least[0] = least[0].min(*value);
        greatest[0] = greatest[0].max(*value);
    }
    Some((least.into_iter().min()?, greatest.into_iter().max()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn scans_equal_plain_loops(values in prop::collection::vec(any::<u64>(), 0..300), byte: u8) {
            let bytes: Vec<u8> = values.iter().map(|value| (value % 5) as u8 | byte & 0x80).collect();
            let byte = byte & 0x81;
            for bytes in bytes.chunks(WORD_ROWS) {
                let rows: Vec<usize> = places(where_not(bytes, |value| value, byte)).collect();
                let expected: Vec<usize> =
                    (0..bytes.len()).filter(|row| bytes[*row] != byte).collect();
                prop_assert_eq!(rows, expected);
            }

            prop_assert_eq!(sum(&values), values.iter().copied().map(u128::from).sum::<u128>());
            let signed: Vec<i64> = values.iter().map(|value| value.cast_signed()).collect();
            let plain = signed.iter().min().copied().zip(signed.iter().max().copied());
            prop_assert_eq!(least_and_greatest(&signed), plain);
        }
    }
}
