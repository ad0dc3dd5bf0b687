//! AVX2: two registers of 32 bytes hold a block. Intel since Haswell, AMD since Excavator.

use std::arch::x86_64::{
    __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi8,
};

use crate::simd::block::{BLOCK_BYTES, Block};
use crate::simd::quoted;
use crate::simd::separators;

/// Whether this machine has it, and the bit instructions that make listing positions quick.
pub(in crate::simd) fn is_available() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
}

/// See [`crate::simd::append_separators`].
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn append_separators(text: &[u8], base: u32, out: &mut Vec<u32>) -> bool {
    // SAFETY: this function enables what `Registers` needs.
    unsafe { separators::separators::<Registers>(text, base, out) }
}

/// See [`crate::simd::QuotedCopier::copy`].
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn copy_quoted(from: &[u8], out: &mut Vec<u8>) -> usize {
    // SAFETY: this function enables what `Registers` needs.
    unsafe { quoted::copy::<Registers>(from, out) }
}

#[derive(Clone, Copy)]
struct Registers(__m256i, __m256i);

#[expect(clippy::inline_always, reason = "`Block` asks for it")]
impl Block for Registers {
    #[inline(always)]
    unsafe fn load(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let start = bytes.as_ptr().cast::<__m256i>();
        // SAFETY: twice 32 bytes are the 64 of `bytes`; the load takes any alignment; the machine has
        // AVX2, as the trait demands.
        unsafe { Self(_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))) }
    }

    #[inline(always)]
    unsafe fn equal_mask(self, byte: u8) -> u64 {
        // SAFETY: the machine has AVX2, as the trait demands.
        let (low, high) = unsafe {
            let wanted = _mm256_set1_epi8(byte.cast_signed());
            (
                _mm256_movemask_epi8(_mm256_cmpeq_epi8(self.0, wanted)).cast_unsigned(),
                _mm256_movemask_epi8(_mm256_cmpeq_epi8(self.1, wanted)).cast_unsigned(),
            )
        };
        u64::from(low) | u64::from(high) << 32
    }
}
