//! The algorithm, once for all instruction sets: a bit mask per block, then its bits as positions.
//!
//! Listing bits in batches of a fixed size, written whether or not the mask has that many, follows
//! simdjson (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", §3.2): the count of bits
//! varies from block to block, and a branch for each bit would be mispredicted.

use super::LINE_END;
use super::vector::{BLOCK_BYTES, Block, Slots};

/// Blocks between two checks of the room in `out`.
const GROUP_BLOCKS: usize = 16;

/// Positions that are written without asking for more. A line of the default format has a separator
/// every 8 bytes.
const BATCH: usize = 8;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(BATCH));

/// See [`super::separators`].
///
/// # Safety
/// The machine has the instruction set of `B`, and the caller is compiled for it.
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
pub(super) unsafe fn separators<B: Block>(text: &[u8], out: &mut Vec<u32>) {
    let (blocks, tail) = text.as_chunks::<BLOCK_BYTES>();
    let mut base = 0;
    for group in blocks.chunks(GROUP_BLOCKS) {
        // SAFETY: the machine has the instruction set of `B`, as this function demands.
        unsafe { group_separators::<B>(group, base, out) };
        base += (group.len() * BLOCK_BYTES) as u32;
    }
    if !tail.is_empty() {
        // Reading past the end of `text` could touch a page that isn't there; zeros are no separators.
        let mut padded = [0; BLOCK_BYTES];
        padded[..tail.len()].copy_from_slice(tail);
        // SAFETY: the machine has the instruction set of `B`, as this function demands.
        unsafe { group_separators::<B>(&[padded], base, out) };
    }
}

/// Appends the positions of a few blocks, the first of which stands at `base`.
///
/// # Safety
/// As for [`separators`].
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
unsafe fn group_separators<B: Block>(
    blocks: &[[u8; BLOCK_BYTES]],
    mut base: u32,
    out: &mut Vec<u32>,
) {
    assert!(blocks.len() <= GROUP_BLOCKS);
    out.reserve(GROUP_BLOCKS * BLOCK_BYTES);
    let start = out.as_mut_ptr();
    let mut length = out.len();
    for block in blocks {
        // SAFETY: `length` grows by at most `BLOCK_BYTES` in each of at most `GROUP_BLOCKS` rounds, so
        // that before each round `BLOCK_BYTES` entries of the reserved ones are left behind it.
        let slots = unsafe { &mut *start.add(length).cast::<Slots>() };
        // SAFETY: the machine has the instruction set of `B`, as this function demands.
        length += unsafe { block_separators::<B>(block, base, slots) };
        base += BLOCK_BYTES as u32;
    }
    debug_assert!(length <= out.capacity());
    // SAFETY: `length` entries fit, as above, and every round wrote those that it counted.
    unsafe { out.set_len(length) };
}

/// Writes the positions of one block to the front of `slots` and says how many they are.
///
/// # Safety
/// As for [`separators`].
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
unsafe fn block_separators<B: Block>(
    bytes: &[u8; BLOCK_BYTES],
    base: u32,
    slots: &mut Slots,
) -> usize {
    // SAFETY: the machine has the instruction set of `B`, as this function demands.
    let (line_ends, separators) = unsafe {
        let block = B::load(bytes);
        let line_ends = block.equal_mask(b'\n');
        let separators = line_ends | block.equal_mask(b' ');
        B::list(separators, line_ends, base, slots);
        (line_ends, separators)
    };
    debug_assert_eq!(line_ends & !separators, 0);
    separators.count_ones() as usize
}

/// The portable form of [`Block::list`].
///
/// A table of the bits of each mask byte, as AVX2 could use it, is four times as fast on nothing but
/// separators and no faster on flow log lines.
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
pub(super) fn list_bits(separators: u64, line_ends: u64, base: u32, slots: &mut Slots) {
    let mut left = separators;
    for batch in slots.as_chunks_mut::<BATCH>().0 {
        for slot in batch {
            slot.write(base + left.trailing_zeros());
            left &= left.wrapping_sub(1);
        }
        if left == 0 {
            break;
        }
    }
    mark_line_ends(separators, line_ends, base, slots);
}

/// Puts [`LINE_END`] on those of the listed positions that have it.
///
/// `list_bits` could as well mark each position when it is written, but with that much to do for each,
/// the compiler gathers eight of them one by one into a vector register, which took half as long again.
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
pub(super) fn mark_line_ends(separators: u64, line_ends: u64, base: u32, slots: &mut Slots) {
    // Whether a block has a line end is a coin's toss, so the first is marked without a branch: a block
    // without one gets its first position written again. A second one is rare.
    let has_line_end = u32::from(line_ends != 0);
    let first = if line_ends == 0 { separators } else { line_ends };
    mark_lowest(first, has_line_end << 31, separators, base, slots);
    let mut left = line_ends & line_ends.wrapping_sub(1);
    while left != 0 {
        mark_lowest(left, LINE_END, separators, base, slots);
        left &= left.wrapping_sub(1);
    }
}

/// Writes the position of the lowest bit of `bits`, with `mark`, where that of `separators` stands.
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
fn mark_lowest(bits: u64, mark: u32, separators: u64, base: u32, slots: &mut Slots) {
    let below = (bits & bits.wrapping_neg()).wrapping_sub(1);
    let rank = (separators & below).count_ones() as usize;
    slots[rank % BLOCK_BYTES].write((base + bits.trailing_zeros()) | mark);
}

const _: () = assert!(LINE_END == 1 << 31, "`mark_line_ends` shifts a truth value there");
