//! Separators, once for all instruction sets: a bit mask per block, then its bits as positions.
//!
//! Listing bits in batches of a fixed size, written whether or not the mask has that many, follows
//! simdjson (Langdale and Lemire, "Parsing Gigabytes of JSON per Second", §3.2): the count of bits
//! varies from block to block, and a branch for each bit would be mispredicted.

use super::LINE_END;
use super::block::{BLOCK_BYTES, Block, Slots};

/// Blocks between two checks of the room in `out`.
const GROUP_BLOCKS: usize = 16;

/// Positions that are written without asking for more. A line of the default format has a separator
/// every 8 bytes.
const BATCH: usize = 8;

const _: () = assert!(BLOCK_BYTES.is_multiple_of(BATCH));

/// See [`super::append_separators`].
///
/// # Safety
/// The machine has the instruction set of `B`, and the caller is compiled for it.
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
pub(super) unsafe fn separators<B: Block>(text: &[u8], base: u32, out: &mut Vec<u32>) -> bool {
    let (blocks, tail) = text.as_chunks::<BLOCK_BYTES>();
    let mut base = base;
    let mut sides = Sides::default();
    for group in blocks.chunks(GROUP_BLOCKS) {
        // SAFETY: the machine has the instruction set of `B`, as this function demands.
        unsafe { group_separators::<B>(group, base, out, &mut sides) };
        base += (group.len() * BLOCK_BYTES) as u32;
    }
    if !tail.is_empty() {
        // Reading past the end of `text` could touch a page that isn't there; zeros are no separators.
        let mut padded = [0; BLOCK_BYTES];
        padded[..tail.len()].copy_from_slice(tail);
        // SAFETY: the machine has the instruction set of `B`, as this function demands.
        unsafe { group_separators::<B>(&[padded], base, out, &mut sides) };
    }
    sides.adjacent != 0
}

/// Notices separators side by side.
#[derive(Default)]
struct Sides {
    /// Bits of separators that have one on their left.
    adjacent: u64,
    /// 1 if the block before ended in a separator.
    carry: u64,
}

impl Sides {
    #[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
    #[inline(always)]
    const fn note(&mut self, separators: u64) {
        self.adjacent |= separators & (separators << 1 | self.carry);
        self.carry = separators >> 63;
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
    sides: &mut Sides,
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
        let separators = unsafe { block_separators::<B>(block, base, slots) };
        sides.note(separators);
        length += separators.count_ones() as usize;
        base += BLOCK_BYTES as u32;
    }
    debug_assert!(length <= out.capacity());
    // SAFETY: `length` entries fit, as above, and every round wrote those that it counted.
    unsafe { out.set_len(length) };
}

/// Writes the positions of one block to the front of `slots` and gives the mask of separators.
///
/// # Safety
/// As for [`separators`].
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
unsafe fn block_separators<B: Block>(
    bytes: &[u8; BLOCK_BYTES],
    base: u32,
    slots: &mut Slots,
) -> u64 {
    // SAFETY: the machine has the instruction set of `B`, as this function demands.
    let (line_ends, separators) = unsafe {
        let block = B::load(bytes);
        let line_ends = block.equal_mask(b'\n');
        let separators = line_ends | block.equal_mask(b' ');
        B::list(separators, line_ends, base, slots);
        (line_ends, separators)
    };
    debug_assert_eq!(line_ends & !separators, 0);
    separators
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
