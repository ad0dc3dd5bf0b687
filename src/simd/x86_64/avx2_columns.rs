//! The columns' side of AVX2: four words, or two quads.

#![expect(clippy::inline_always, reason = "`Lanes` asks for it")]

use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi32_si128, _mm_cvtsi64_si128, _mm_insert_epi64, _mm_loadu_si128,
    _mm256_add_epi64, _mm256_and_si256, _mm256_andnot_si256, _mm256_broadcastsi128_si256,
    _mm256_castsi256_pd, _mm256_cmpeq_epi8, _mm256_cmpeq_epi64, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_max_epu8, _mm256_movemask_epi8, _mm256_movemask_pd,
    _mm256_mul_epu32, _mm256_or_si256, _mm256_packus_epi32, _mm256_set_m128i, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srl_epi64, _mm256_storeu_si256,
    _mm256_sub_epi8, _mm256_subs_epu8, _mm256_unpackhi_epi64, _mm256_unpacklo_epi64,
    _mm256_xor_si256, _pdep_u32,
};

use crate::simd::columns;
use crate::simd::lanes::{Lanes, QUADS_MAX, Starts};
use crate::simd::rows::{Judged, Number, Rows};

/// See [`Rows::numbers`].
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn numbers<N: Number>(
    rows: &Rows<'_>,
    column: usize,
    out: Option<&mut [N]>,
) -> Judged {
    // SAFETY: this function enables what `Register` needs.
    unsafe { columns::numbers::<Register, N>(rows, column, out) }
}

/// See [`Rows::ten_digits`].
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn ten_digits(
    rows: &Rows<'_>,
    column: usize,
    out: Option<&mut [u64]>,
) -> Judged {
    // SAFETY: this function enables what `Register` needs.
    unsafe { columns::ten_digits::<Register>(rows, column, out) }
}

/// See [`Rows::ipv4`].
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn ipv4(rows: &Rows<'_>, column: usize, out: Option<&mut [u128]>) -> Judged {
    // SAFETY: this function enables what `Register` needs.
    unsafe { columns::ipv4::<Register>(rows, column, out) }
}

/// See [`Rows::words`].
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn words<const COUNT: usize>(
    rows: &Rows<'_>,
    column: usize,
    wanted: &[(u64, u64); COUNT],
) -> Option<[u64; COUNT]> {
    // SAFETY: this function enables what `Register` needs.
    unsafe { columns::words::<Register, COUNT>(rows, column, wanted) }
}

#[derive(Clone, Copy)]
struct Register(__m256i);

impl Lanes for Register {
    const WORDS: usize = 4;

    #[inline(always)]
    unsafe fn words(text: &[u8], starts: &Starts) -> Self {
        // SAFETY: the caller promises these bytes, and the loads take any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe { Self(_mm256_set_m128i(pair(text, starts, 2), pair(text, starts, 0))) }
    }

    #[inline(always)]
    unsafe fn quads(text: &[u8], starts: &Starts) -> Self {
        // SAFETY: the caller promises these bytes, and the loads take any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe { Self(_mm256_set_m128i(quad(text, starts[1]), quad(text, starts[0]))) }
    }

    #[inline(always)]
    unsafe fn quads_of(table: &[[u8; 16]; 256], indexes: [u8; QUADS_MAX]) -> Self {
        // SAFETY: each load reads the 16 bytes of a row at any alignment; the machine has the instruction
        // set, as the trait demands.
        unsafe { Self(_mm256_set_m128i(row(table, indexes[1]), row(table, indexes[0]))) }
    }

    #[inline(always)]
    unsafe fn same_quad(quad: [u8; 16]) -> Self {
        // SAFETY: the load reads the 16 bytes of `quad` at any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe { Self(_mm256_broadcastsi128_si256(_mm_loadu_si128(quad.as_ptr().cast()))) }
    }

    #[inline(always)]
    unsafe fn same_word(word: u64) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_set1_epi64x(word.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_and_si256(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_or_si256(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_xor_si256(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn without(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_andnot_si256(other.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn sub_bytes(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_sub_epi8(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub_bytes_saturating(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_subs_epu8(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn equal_bytes(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_cmpeq_epi8(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn equal_bytes_mask(self, other: Self) -> u64 {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe {
            let equal = _mm256_cmpeq_epi8(self.0, other.0);
            u64::from(_mm256_movemask_epi8(equal).cast_unsigned())
        }
    }

    #[inline(always)]
    unsafe fn greater_bytes_mask(self, other: Self) -> u64 {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe {
            let not_greater = _mm256_cmpeq_epi8(_mm256_max_epu8(self.0, other.0), other.0);
            u64::from(!_mm256_movemask_epi8(not_greater).cast_unsigned())
        }
    }

    #[inline(always)]
    unsafe fn shuffle_bytes(self, indexes: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_shuffle_epi8(self.0, indexes.0)) }
    }

    #[inline(always)]
    unsafe fn join_bytes(self, weights: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_maddubs_epi16(self.0, weights.0)) }
    }

    #[inline(always)]
    unsafe fn join_shorts(self, weights: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_madd_epi16(self.0, weights.0)) }
    }

    #[inline(always)]
    unsafe fn narrow_to_shorts(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_packus_epi32(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn shift_right_words<const BITS: u32>(self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe {
            let count = _mm_cvtsi32_si128(BITS.cast_signed());
            Self(_mm256_srl_epi64(self.0, count))
        }
    }

    #[inline(always)]
    unsafe fn mul_words(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_mul_epu32(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn add_words(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_add_epi64(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn lower_words(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_unpacklo_epi64(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn upper_words(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm256_unpackhi_epi64(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn zero_words_mask(self) -> u64 {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe {
            let zero = _mm256_cmpeq_epi64(self.0, _mm256_setzero_si256());
            u64::from(_mm256_movemask_pd(_mm256_castsi256_pd(zero)).cast_unsigned())
        }
    }

    #[inline(always)]
    unsafe fn store_words<N: Number>(self, out: &mut [N]) {
        let mut words = [0_u64; 4];
        // SAFETY: the store writes the 32 bytes of `words` at any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), self.0) };
        for (out, word) in out[..4].iter_mut().zip(words) {
            *out = N::cut(word);
        }
    }

    #[inline(always)]
    unsafe fn store_quads(self, out: &mut [u128]) {
        let out = &mut out[..Self::QUADS];
        // SAFETY: the store writes the 32 bytes of `out` at any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe { _mm256_storeu_si256(out.as_mut_ptr().cast(), self.0) };
    }

    #[inline(always)]
    unsafe fn lowest_four(bits: u16) -> u16 {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { _pdep_u32(0b1111, u32::from(bits)) as u16 }
    }
}

/// The words that begin at `starts[first]` and at the start behind it.
///
/// # Safety
/// `text` has these bytes; the machine has SSE4.1.
#[inline(always)]
pub(super) unsafe fn pair(text: &[u8], starts: &Starts, first: usize) -> __m128i {
    let start = text.as_ptr();
    // SAFETY: the caller promises these bytes, read at any alignment, and the instruction set.
    unsafe {
        let low = start.add(starts[first]).cast::<i64>().read_unaligned();
        let high = start.add(starts[first + 1]).cast::<i64>().read_unaligned();
        _mm_insert_epi64::<1>(_mm_cvtsi64_si128(low), high)
    }
}

/// The quad that begins at `start`.
///
/// # Safety
/// `text` has these bytes.
#[inline(always)]
pub(super) unsafe fn quad(text: &[u8], start: usize) -> __m128i {
    // SAFETY: the caller promises these bytes; the load takes any alignment.
    unsafe { _mm_loadu_si128(text.as_ptr().add(start).cast()) }
}

/// A row of a table.
#[inline(always)]
pub(super) fn row(table: &[[u8; 16]; 256], index: u8) -> __m128i {
    // SAFETY: the load reads the 16 bytes of the row, at any alignment; every x86-64 has SSE2.
    unsafe { _mm_loadu_si128(table[usize::from(index)].as_ptr().cast()) }
}
