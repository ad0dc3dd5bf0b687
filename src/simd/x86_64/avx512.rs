//! AVX-512 with VBMI2: one register holds a block, and byte compression lists positions without a loop.
//!
//! A ramp 0..64, with the top bit set at line ends, is compressed by the separator mask; sixteen
//! bytes of the result at a time become positions. Compression goes to a register and not to memory,
//! which Zen 4 does in microcode.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi32, _mm512_and_si512, _mm512_cmpeq_epi8_mask, _mm512_cvtepi8_epi32,
    _mm512_extracti32x4_epi32, _mm512_loadu_si512, _mm512_mask_add_epi8,
    _mm512_maskz_compress_epi8, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_storeu_si512,
};

use crate::simd::LINE_END;
use crate::simd::block::{BLOCK_BYTES, Block, Slots};
use crate::simd::quoted;
use crate::simd::separators;

/// Positions that one register holds.
const LANES: usize = 16;

/// The bits of an index within a block.
const INDEX_MASK: u32 = BLOCK_BYTES as u32 - 1;

const RAMP: [u8; BLOCK_BYTES] = {
    let mut ramp = [0; BLOCK_BYTES];
    let mut index = 0;
    while index < BLOCK_BYTES {
        ramp[index] = index as u8;
        index += 1;
    }
    ramp
};

/// Whether this machine has all that the instance uses.
pub(in crate::simd) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
}

/// See [`crate::simd::append_separators`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn append_separators(text: &[u8], base: u32, out: &mut Vec<u32>) -> bool {
    // SAFETY: this function enables what `Register` needs.
    unsafe { separators::separators::<Register>(text, base, out) }
}

/// See [`crate::simd::QuotedCopier::copy`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2,bmi1,bmi2,popcnt")]
pub(in crate::simd) fn copy_quoted(from: &[u8], out: &mut Vec<u8>) -> usize {
    // SAFETY: this function enables what `Register` needs.
    unsafe { quoted::copy::<Register>(from, out) }
}

#[derive(Clone, Copy)]
struct Register(__m512i);

#[expect(clippy::inline_always, reason = "`Block` asks for it")]
impl Block for Register {
    #[inline(always)]
    unsafe fn load(bytes: &[u8; BLOCK_BYTES]) -> Self {
        // SAFETY: the load reads the 64 bytes of `bytes` at any alignment; the machine has AVX-512 F,
        // as the trait demands.
        Self(unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) })
    }

    #[inline(always)]
    unsafe fn equal_mask(self, byte: u8) -> u64 {
        // SAFETY: the machine has AVX-512 F and BW, as the trait demands.
        unsafe { _mm512_cmpeq_epi8_mask(self.0, _mm512_set1_epi8(byte.cast_signed())) }
    }

    #[inline(always)]
    unsafe fn list(separators: u64, line_ends: u64, base: u32, slots: &mut Slots) {
        // SAFETY: the load reads the 64 bytes of `RAMP`; the machine has AVX-512 F, BW and VBMI2, as the
        // trait demands.
        let packed = unsafe {
            let ramp = _mm512_loadu_si512(RAMP.as_ptr().cast());
            let marked = _mm512_mask_add_epi8(ramp, line_ends, ramp, _mm512_set1_epi8(i8::MIN));
            _mm512_maskz_compress_epi8(separators, marked)
        };
        // SAFETY: as above.
        unsafe { store::<0>(packed, base, slots) };
        if separators.count_ones() as usize > LANES {
            // SAFETY: as above.
            unsafe {
                store::<1>(packed, base, slots);
                store::<2>(packed, base, slots);
                store::<3>(packed, base, slots);
            }
        }
    }
}

/// Turns quarter `QUARTER` of the compressed ramp into positions.
///
/// # Safety
/// The machine has AVX-512 F.
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
unsafe fn store<const QUARTER: i32>(packed: __m512i, base: u32, slots: &mut Slots) {
    let lanes = &mut slots.as_chunks_mut::<LANES>().0[QUARTER.unsigned_abs() as usize];
    // SAFETY: the store writes the 64 bytes of `lanes` at any alignment; the machine has AVX-512 F, as
    // this function demands.
    unsafe {
        let marked = _mm512_extracti32x4_epi32::<QUARTER>(packed);
        // Sign extension carries the mark of a line end to the top; the mask clears its copies between.
        let kept = _mm512_set1_epi32((LINE_END | INDEX_MASK).cast_signed());
        let indexes = _mm512_and_si512(_mm512_cvtepi8_epi32(marked), kept);
        let positions = _mm512_add_epi32(indexes, _mm512_set1_epi32(base.cast_signed()));
        _mm512_storeu_si512(lanes.as_mut_ptr().cast(), positions);
    }
}
