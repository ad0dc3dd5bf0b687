//! What the search for separators needs from an instruction set.

use std::mem::MaybeUninit;

use super::separators;

/// Bytes that are looked at in one step: as many as a `u64` mask has bits.
pub(super) const BLOCK_BYTES: usize = 64;

/// Room for the positions of one block in which every byte is a separator.
pub(super) type Slots = [MaybeUninit<u32>; BLOCK_BYTES];

/// The registers that together hold one block.
///
/// Every method must be `#[inline(always)]`: only inside a function that enables the instruction set
/// do they become single instructions.
pub(super) trait Block: Copy {
    /// Takes the bytes of a block into registers.
    ///
    /// # Safety
    /// The machine has the instruction set of the implementing type.
    unsafe fn load(bytes: &[u8; BLOCK_BYTES]) -> Self;

    /// A mask whose bit `i` says whether byte `i` of the block is `byte`.
    ///
    /// # Safety
    /// The machine has the instruction set of the implementing type.
    unsafe fn equal_mask(self, byte: u8) -> u64;

    /// Writes `base` plus the index of each bit of `separators` to the front of `slots`, in order,
    /// with [`super::LINE_END`] where `line_ends` has the bit too. What it writes behind those is
    /// meaningless. `base` is a multiple of [`BLOCK_BYTES`].
    ///
    /// # Safety
    /// The machine has the instruction set of the implementing type.
    #[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
    #[inline(always)]
    unsafe fn list(separators: u64, line_ends: u64, base: u32, slots: &mut Slots) {
        separators::list_bits(separators, line_ends, base, slots);
    }
}
