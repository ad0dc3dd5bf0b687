//! SSE2: four registers of 16 bytes hold a block. Every x86-64 has it.

use std::arch::x86_64::{
    __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8,
};

use crate::simd::block::{BLOCK_BYTES, Block};
use crate::simd::quoted;
use crate::simd::separators;

/// Whether this machine has it.
pub(in crate::simd) fn is_available() -> bool {
    is_x86_feature_detected!("sse2")
}

/// See [`crate::simd::append_separators`].
#[target_feature(enable = "sse2")]
pub(in crate::simd) fn append_separators(text: &[u8], base: u32, out: &mut Vec<u32>) -> bool {
    // SAFETY: this function enables what `Registers` needs.
    unsafe { separators::separators::<Registers>(text, base, out) }
}

/// See [`crate::simd::QuotedCopier::copy`].
#[target_feature(enable = "sse2")]
pub(in crate::simd) fn copy_quoted(from: &[u8], out: &mut Vec<u8>) -> usize {
    // SAFETY: this function enables what `Registers` needs.
    unsafe { quoted::copy::<Registers>(from, out) }
}

#[derive(Clone, Copy)]
struct Registers(__m128i, __m128i, __m128i, __m128i);

#[expect(clippy::inline_always, reason = "`Block` asks for it")]
impl Block for Registers {
    #[inline(always)]
    unsafe fn load(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let start = bytes.as_ptr().cast::<__m128i>();
        // SAFETY: four times 16 bytes are the 64 of `bytes`; the load takes any alignment; the machine
        // has SSE2, as the trait demands.
        unsafe {
            Self(
                _mm_loadu_si128(start),
                _mm_loadu_si128(start.add(1)),
                _mm_loadu_si128(start.add(2)),
                _mm_loadu_si128(start.add(3)),
            )
        }
    }

    #[inline(always)]
    unsafe fn equal_mask(self, byte: u8) -> u64 {
        // SAFETY: the machine has SSE2, as the trait demands.
        let (a, b, c, d) = unsafe {
            let wanted = _mm_set1_epi8(byte.cast_signed());
            (
                _mm_movemask_epi8(_mm_cmpeq_epi8(self.0, wanted)).cast_unsigned(),
                _mm_movemask_epi8(_mm_cmpeq_epi8(self.1, wanted)).cast_unsigned(),
                _mm_movemask_epi8(_mm_cmpeq_epi8(self.2, wanted)).cast_unsigned(),
                _mm_movemask_epi8(_mm_cmpeq_epi8(self.3, wanted)).cast_unsigned(),
            )
        };
        u64::from(a | b << 16) | u64::from(c | d << 16) << 32
    }
}
