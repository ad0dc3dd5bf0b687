//! NEON: four registers of 16 bytes hold a block. Every 64-bit Arm has it.
//!
//! Arm has no instruction that takes one bit of each byte: a power of two is kept in every equal byte,
//! and pairwise additions bring eight of them into one byte, as simdjson does.

use std::arch::aarch64::{
    uint8x16_t, vandq_u8, vceqq_u8, vdupq_n_u8, vgetq_lane_u64, vld1q_u8, vpaddq_u8,
    vreinterpretq_u64_u8,
};
use std::arch::is_aarch64_feature_detected;

use crate::simd::block::{BLOCK_BYTES, Block};
use crate::simd::quoted;
use crate::simd::separators;

const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

/// Whether this machine has it. Big-endian machines order the lanes differently and use the twin.
pub(in crate::simd) fn is_available() -> bool {
    cfg!(target_endian = "little") && is_aarch64_feature_detected!("neon")
}

/// See [`crate::simd::append_separators`].
#[target_feature(enable = "neon")]
pub(in crate::simd) fn append_separators(text: &[u8], base: u32, out: &mut Vec<u32>) -> bool {
    // SAFETY: this function enables what `Registers` needs.
    unsafe { separators::separators::<Registers>(text, base, out) }
}

/// See [`crate::simd::QuotedCopier::copy`].
#[target_feature(enable = "neon")]
pub(in crate::simd) fn copy_quoted(from: &[u8], out: &mut Vec<u8>) -> usize {
    // SAFETY: this function enables what `Registers` needs.
    unsafe { quoted::copy::<Registers>(from, out) }
}

#[derive(Clone, Copy)]
struct Registers(uint8x16_t, uint8x16_t, uint8x16_t, uint8x16_t);

#[expect(clippy::inline_always, reason = "`Block` asks for it")]
impl Block for Registers {
    #[inline(always)]
    unsafe fn load(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let start = bytes.as_ptr();
        // SAFETY: four times 16 bytes are the 64 of `bytes`; the load takes any alignment; the machine
        // has NEON, as the trait demands.
        unsafe {
            Self(
                vld1q_u8(start),
                vld1q_u8(start.add(16)),
                vld1q_u8(start.add(32)),
                vld1q_u8(start.add(48)),
            )
        }
    }

    #[inline(always)]
    unsafe fn equal_mask(self, byte: u8) -> u64 {
        // SAFETY: the load reads the 16 bytes of `BITS`; the machine has NEON, as the trait demands.
        unsafe {
            let wanted = vdupq_n_u8(byte);
            let bits = vld1q_u8(BITS.as_ptr());
            let a = vandq_u8(vceqq_u8(self.0, wanted), bits);
            let b = vandq_u8(vceqq_u8(self.1, wanted), bits);
            let c = vandq_u8(vceqq_u8(self.2, wanted), bits);
            let d = vandq_u8(vceqq_u8(self.3, wanted), bits);
            let pairs = vpaddq_u8(vpaddq_u8(a, b), vpaddq_u8(c, d));
            vgetq_lane_u64::<0>(vreinterpretq_u64_u8(vpaddq_u8(pairs, pairs)))
        }
    }
}
