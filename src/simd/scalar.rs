//! Machines without vector instructions: eight bytes to an ordinary word.
//!
//! The tests hold every instance, this one too, against plain code that goes byte by byte.

use super::block::{BLOCK_BYTES, Block};
use super::separators;

/// See [`super::append_separators`].
pub(super) fn append_separators(text: &[u8], base: u32, out: &mut Vec<u32>) -> bool {
    // SAFETY: `Words` needs no instruction set.
    unsafe { separators::separators::<Words>(text, base, out) }
}

const WORD_COUNT: usize = BLOCK_BYTES / 8;

#[derive(Clone, Copy)]
struct Words([u64; WORD_COUNT]);

#[expect(clippy::inline_always, reason = "`Block` asks for it")]
impl Block for Words {
    #[inline(always)]
    unsafe fn load(bytes: &[u8; BLOCK_BYTES]) -> Self {
        let (words, _) = bytes.as_chunks::<8>();
        let mut block = [0; WORD_COUNT];
        for (word, bytes) in block.iter_mut().zip(words) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(block)
    }

    #[inline(always)]
    unsafe fn equal_mask(self, byte: u8) -> u64 {
        const LOW_SEVEN: u64 = u64::from_le_bytes([0x7f; 8]);
        // Moves the lowest bit of each byte to the top byte, in order.
        const GATHER: u64 = 0x0102_0408_1020_4080;
        let wanted = u64::from_le_bytes([byte; 8]);
        let mut mask = 0;
        for (index, word) in self.0.into_iter().enumerate() {
            let differing = word ^ wanted;
            // The top bit of each byte says whether any bit of the byte is set; nothing carries over.
            let set = ((differing & LOW_SEVEN) + LOW_SEVEN) | differing | LOW_SEVEN;
            let bits = (!set >> 7).wrapping_mul(GATHER) >> 56;
            mask |= bits << (8 * index);
        }
        mask
    }
}

/// Plain code that says what the answer is.
#[cfg(test)]
pub(super) fn plain_separators(text: &[u8], base: u32, out: &mut Vec<u32>) -> bool {
    let mut adjacent = false;
    let mut beside = false;
    for (position, byte) in (base..).zip(text) {
        let separator = match byte {
            b' ' => Some(position),
            b'\n' => Some(position | super::LINE_END),
            _ => None,
        };
        adjacent |= beside && separator.is_some();
        beside = separator.is_some();
        out.extend(separator);
    }
    adjacent
}
