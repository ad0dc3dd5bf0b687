//! The columns' side of AVX-512: eight words, or four quads.

#![expect(clippy::inline_always, reason = "`Lanes` asks for it")]

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm256_set_m128i, _mm512_add_epi64, _mm512_and_si512,
    _mm512_andnot_si512, _mm512_broadcast_i32x4, _mm512_castsi256_si512, _mm512_cmpeq_epi8_mask,
    _mm512_cmpgt_epu8_mask, _mm512_inserti64x4, _mm512_madd_epi16, _mm512_maddubs_epi16,
    _mm512_movm_epi8, _mm512_mul_epu32, _mm512_or_si512, _mm512_packus_epi32, _mm512_set1_epi64,
    _mm512_shuffle_epi8, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_sub_epi8, _mm512_subs_epu8,
    _mm512_testn_epi64_mask, _mm512_unpackhi_epi64, _mm512_unpacklo_epi64, _mm512_xor_si512,
    _pdep_u32,
};

use super::avx2_columns::{pair, quad, row};
use crate::simd::columns;
use crate::simd::lanes::{Lanes, QUADS_MAX, Starts};
use crate::simd::rows::{Judged, Number, Rows};

/// See [`Rows::numbers`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn numbers<N: Number>(
    rows: &Rows<'_>,
    column: usize,
    out: Option<&mut [N]>,
) -> Judged {
    // SAFETY: this function enables what `Register` needs.
    unsafe { columns::numbers::<Register, N>(rows, column, out) }
}

/// See [`Rows::ten_digits`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn ten_digits(
    rows: &Rows<'_>,
    column: usize,
    out: Option<&mut [u64]>,
) -> Judged {
    // SAFETY: this function enables what `Register` needs.
    unsafe { columns::ten_digits::<Register>(rows, column, out) }
}

/// See [`Rows::ipv4`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn ipv4(rows: &Rows<'_>, column: usize, out: Option<&mut [u128]>) -> Judged {
    // SAFETY: this function enables what `Register` needs.
    unsafe { columns::ipv4::<Register>(rows, column, out) }
}

/// See [`Rows::words`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn words<const COUNT: usize>(
    rows: &Rows<'_>,
    column: usize,
    wanted: &[(u64, u64); COUNT],
) -> Option<[u64; COUNT]> {
    // SAFETY: this function enables what `Register` needs.
    unsafe { columns::words::<Register, COUNT>(rows, column, wanted) }
}

#[derive(Clone, Copy)]
struct Register(__m512i);

impl Lanes for Register {
    const WORDS: usize = 8;

    #[inline(always)]
    unsafe fn words(text: &[u8], starts: &Starts) -> Self {
        // SAFETY: the caller promises these bytes, and the loads take any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe {
            let low = _mm256_set_m128i(pair(text, starts, 2), pair(text, starts, 0));
            let high = _mm256_set_m128i(pair(text, starts, 6), pair(text, starts, 4));
            Self(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
        }
    }

    #[inline(always)]
    unsafe fn quads(text: &[u8], starts: &Starts) -> Self {
        // SAFETY: the caller promises these bytes, and the loads take any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe {
            let low = _mm256_set_m128i(quad(text, starts[1]), quad(text, starts[0]));
            let high = _mm256_set_m128i(quad(text, starts[3]), quad(text, starts[2]));
            Self(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
        }
    }

    #[inline(always)]
    unsafe fn quads_of(table: &[[u8; 16]; 256], indexes: [u8; QUADS_MAX]) -> Self {
        // SAFETY: each load reads the 16 bytes of a row at any alignment; the machine has the instruction
        // set, as the trait demands.
        unsafe {
            let low = _mm256_set_m128i(row(table, indexes[1]), row(table, indexes[0]));
            let high = _mm256_set_m128i(row(table, indexes[3]), row(table, indexes[2]));
            Self(_mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high))
        }
    }

    #[inline(always)]
    unsafe fn same_quad(quad: [u8; 16]) -> Self {
        // SAFETY: the load reads the 16 bytes of `quad` at any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe { Self(_mm512_broadcast_i32x4(_mm_loadu_si128(quad.as_ptr().cast()))) }
    }

    #[inline(always)]
    unsafe fn same_word(word: u64) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_set1_epi64(word.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn and(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_and_si512(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn or(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_or_si512(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_xor_si512(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn without(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_andnot_si512(other.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn sub_bytes(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_sub_epi8(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn sub_bytes_saturating(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_subs_epu8(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn equal_bytes(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_movm_epi8(_mm512_cmpeq_epi8_mask(self.0, other.0))) }
    }

    #[inline(always)]
    unsafe fn equal_bytes_mask(self, other: Self) -> u64 {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { _mm512_cmpeq_epi8_mask(self.0, other.0) }
    }

    #[inline(always)]
    unsafe fn greater_bytes_mask(self, other: Self) -> u64 {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { _mm512_cmpgt_epu8_mask(self.0, other.0) }
    }

    #[inline(always)]
    unsafe fn shuffle_bytes(self, indexes: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_shuffle_epi8(self.0, indexes.0)) }
    }

    #[inline(always)]
    unsafe fn join_bytes(self, weights: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_maddubs_epi16(self.0, weights.0)) }
    }

    #[inline(always)]
    unsafe fn join_shorts(self, weights: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_madd_epi16(self.0, weights.0)) }
    }

    #[inline(always)]
    unsafe fn narrow_to_shorts(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_packus_epi32(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn shift_right_words<const BITS: u32>(self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_srli_epi64::<BITS>(self.0)) }
    }

    #[inline(always)]
    unsafe fn mul_words(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_mul_epu32(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn add_words(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_add_epi64(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn lower_words(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_unpacklo_epi64(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn upper_words(self, other: Self) -> Self {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { Self(_mm512_unpackhi_epi64(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn zero_words_mask(self) -> u64 {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { u64::from(_mm512_testn_epi64_mask(self.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn store_words<N: Number>(self, out: &mut [N]) {
        let mut words = [0_u64; 8];
        // SAFETY: the store writes the 64 bytes of `words` at any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), self.0) };
        for (out, word) in out[..8].iter_mut().zip(words) {
            *out = N::cut(word);
        }
    }

    #[inline(always)]
    unsafe fn store_quads(self, out: &mut [u128]) {
        let out = &mut out[..Self::QUADS];
        // SAFETY: the store writes the 64 bytes of `out` at any alignment; the machine has the
        // instruction set, as the trait demands.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), self.0) };
    }

    #[inline(always)]
    unsafe fn lowest_four(bits: u16) -> u16 {
        // SAFETY: the machine has the instruction set, as the trait demands.
        unsafe { _pdep_u32(0b1111, u32::from(bits)) as u16 }
    }
}
