//! IPv6 addresses with AVX-512: one address to a register, whatever the lengths of its groups.
//!
//! The classes of all bytes are compared at once and the shape is proved on bit masks. Then the digits are
//! moved together and spread again, so that each group ends a slot of four, and neighbours are joined to
//! bytes. Only hexadecimal groups with at most one `::`; an address with an IPv4 part is left.

use std::arch::x86_64::{
    __m512i, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_shuffle_epi8, _mm_storeu_si128, _mm_sub_epi8,
    _mm256_cvtepi16_epi8, _mm256_maddubs_epi16, _mm256_set1_epi16, _mm512_castsi512_si128,
    _mm512_castsi512_si256, _mm512_cmpeq_epi8_mask, _mm512_loadu_si512,
    _mm512_mask_cmple_epu8_mask, _mm512_mask_sub_epi8, _mm512_maskz_compress_epi8,
    _mm512_maskz_expand_epi8, _mm512_maskz_loadu_epi8, _mm512_or_si512, _mm512_set1_epi8,
    _mm512_sub_epi8, _pext_u64,
};

/// Groups of an address.
const GROUPS: u32 = 8;

/// The longest text: eight groups of four digits and seven colons.
const BYTES_MAX: usize = 39;

const RAMP: [u8; 64] = {
    let mut ramp = [0; 64];
    let mut index = 0;
    while index < 64 {
        ramp[index] = index as u8;
        index += 1;
    }
    ramp
};

/// The number of the address that `field` is, if it has the usual form.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn ipv6(field: &[u8]) -> Option<u128> {
    let length = field.len();
    if !(2..=BYTES_MAX).contains(&length) {
        return None;
    }
    let all = (1_u64 << length) - 1;
    // SAFETY: the load touches only the bytes of the mask, which are those of `field`.
    let text = unsafe { _mm512_maskz_loadu_epi8(all, field.as_ptr().cast()) };
    let colons = _mm512_cmpeq_epi8_mask(text, _mm512_set1_epi8(b':'.cast_signed()));
    let decimal = _mm512_sub_epi8(text, _mm512_set1_epi8(b'0'.cast_signed()));
    let is_decimal = _mm512_mask_cmple_epu8_mask(all, decimal, _mm512_set1_epi8(9));
    let lower = _mm512_or_si512(text, _mm512_set1_epi8(0x20));
    let letter = _mm512_sub_epi8(lower, _mm512_set1_epi8(b'a'.cast_signed()));
    let is_letter = _mm512_mask_cmple_epu8_mask(all, letter, _mm512_set1_epi8(5));
    let digits = is_decimal | is_letter;
    let slots = slots(digits, colons, all)?;
    let value = _mm512_mask_sub_epi8(decimal, is_letter, letter, _mm512_set1_epi8(-10));
    let together = _mm512_maskz_compress_epi8(digits, value);
    let spread = _mm512_castsi512_si256(_mm512_maskz_expand_epi8(slots, together));
    let pairs = _mm256_maddubs_epi16(spread, _mm256_set1_epi16(0x0110));
    let mut bytes = [0; 16];
    // SAFETY: the store writes the 16 bytes of the array at any alignment.
    unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), _mm256_cvtepi16_epi8(pairs)) };
    Some(u128::from_be_bytes(bytes))
}

/// Where the digits go among the 32 of a whole address, if the shape is right.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,bmi1,bmi2,popcnt")]
fn slots(digits: u64, colons: u64, all: u64) -> Option<u64> {
    let gap = colons & colons >> 1;
    let gap_both = gap | gap << 1;
    let single = colons & !gap_both;
    let starts = digits & !(digits << 1);
    let ends = digits & !(digits >> 1);
    let count = starts.count_ones();
    // A single colon stands between digits.
    let is_well_placed = (single << 1 | single >> 1) & !digits == 0 && single & 1 == 0;
    let too_long = digits & digits >> 1 & digits >> 2 & digits >> 3 & digits >> 4;
    let is_full = if gap == 0 { count == GROUPS } else { count < GROUPS };
    if digits | colons != all
        || gap.count_ones() > 1
        || too_long != 0
        || !is_well_placed
        || !is_full
    {
        return None;
    }
    // SAFETY: the load reads the 64 bytes of the ramp at any alignment.
    let ramp: __m512i = unsafe { _mm512_loadu_si512(RAMP.as_ptr().cast()) };
    let first = _mm512_castsi512_si128(_mm512_maskz_compress_epi8(starts, ramp));
    let last = _mm512_castsi512_si128(_mm512_maskz_compress_epi8(ends, ramp));
    // Digits of each group but one, then a bit for each at the upper end of four.
    let lengths = _mm_sub_epi8(last, first);
    let tops = _mm_set_epi64x(0, 0x0f0e_0c08);
    let nibbles = _mm_cvtsi128_si64(_mm_shuffle_epi8(tops, lengths)).cast_unsigned();
    let packed = _pext_u64(nibbles, 0x0f0f_0f0f_0f0f_0f0f) & ((1 << (4 * count)) - 1);
    if gap == 0 {
        return Some(packed);
    }
    let before = (starts & (gap - 1)).count_ones();
    let before_mask = (1 << (4 * before)) - 1;
    Some(packed & before_mask | (packed & !before_mask) << (4 * (GROUPS - count)))
}
