//! What the column kernels need from an instruction set with byte shuffles.
//!
//! A register is seen as 64-bit words or as 128-bit quads. Shuffles, and everything that widens or
//! narrows, stay within their quad, as on x86.

use super::rows::Number;

/// Words of the widest register.
pub(super) const WORDS_MAX: usize = 8;
/// Quads of the widest register.
pub(super) const QUADS_MAX: usize = WORDS_MAX / 2;

/// Where in a text the lanes of a register begin; as many as the register has.
///
/// An array and not a closure: a closure is a function of its own, without the caller's instruction set.
pub(super) type Starts = [usize; WORDS_MAX];

/// Fields of several lines, side by side in a register.
///
/// Every method must be `#[inline(always)]`: only inside a function that enables the instruction set
/// do they become single instructions. Arithmetic wraps.
///
/// # Safety
/// Of every method: the machine has the instruction set of the implementing type.
pub(super) trait Lanes: Copy {
    /// Words that a register holds.
    const WORDS: usize;
    /// Quads that a register holds.
    const QUADS: usize = Self::WORDS / 2;

    /// Word `i` is the 8 bytes of `text` from `starts[i]` on.
    ///
    /// # Safety
    /// Also, `text` has these bytes.
    unsafe fn words(text: &[u8], starts: &Starts) -> Self;

    /// Quad `i` is the 16 bytes of `text` from `starts[i]` on.
    ///
    /// # Safety
    /// Also, `text` has these bytes.
    unsafe fn quads(text: &[u8], starts: &Starts) -> Self;

    /// Quad `i` is `table[indexes[i]]`.
    unsafe fn quads_of(table: &[[u8; 16]; 256], indexes: [u8; QUADS_MAX]) -> Self;

    /// The same quad everywhere.
    unsafe fn same_quad(quad: [u8; 16]) -> Self;

    /// The same word everywhere.
    unsafe fn same_word(word: u64) -> Self;

    unsafe fn and(self, other: Self) -> Self;
    unsafe fn or(self, other: Self) -> Self;
    unsafe fn xor(self, other: Self) -> Self;
    /// `self` without the bits of `other`.
    unsafe fn without(self, other: Self) -> Self;

    unsafe fn sub_bytes(self, other: Self) -> Self;
    /// Differences below 0 are 0.
    unsafe fn sub_bytes_saturating(self, other: Self) -> Self;
    /// 0xFF in bytes that are equal, else 0.
    unsafe fn equal_bytes(self, other: Self) -> Self;
    /// A bit per byte that is equal.
    unsafe fn equal_bytes_mask(self, other: Self) -> u64;
    /// A bit per byte that is greater, as unsigned numbers.
    unsafe fn greater_bytes_mask(self, other: Self) -> u64;

    /// Each byte of `self` by its index in `indexes` within its quad, 0 where the index has the top bit.
    unsafe fn shuffle_bytes(self, indexes: Self) -> Self;

    /// Neighbouring bytes, times the signed bytes of `weights`, added to 16 bits.
    unsafe fn join_bytes(self, weights: Self) -> Self;
    /// Neighbouring 16-bit numbers, times those of `weights`, added to 32 bits.
    unsafe fn join_shorts(self, weights: Self) -> Self;
    /// Per quad, the 32-bit numbers of `self`, then those of `other`, as 16-bit numbers; they must fit.
    unsafe fn narrow_to_shorts(self, other: Self) -> Self;

    unsafe fn shift_right_words<const BITS: u32>(self) -> Self;
    /// The lower 32 bits of each word, times those of `other`.
    unsafe fn mul_words(self, other: Self) -> Self;
    unsafe fn add_words(self, other: Self) -> Self;
    /// Per quad, the lower word of `self`, then that of `other`.
    unsafe fn lower_words(self, other: Self) -> Self;
    /// Per quad, the upper word of `self`, then that of `other`.
    unsafe fn upper_words(self, other: Self) -> Self;
    /// A bit per word that is 0.
    unsafe fn zero_words_mask(self) -> u64;

    /// Writes each word, cut to the type, to the front of `out`.
    ///
    /// # Panics
    /// If `out` is shorter than a register has words.
    unsafe fn store_words<N: Number>(self, out: &mut [N]);

    /// Writes each quad to the front of `out`, first byte lowest.
    ///
    /// # Panics
    /// If `out` is shorter than a register has quads.
    unsafe fn store_quads(self, out: &mut [u128]);

    /// The lowest four bits that are set.
    unsafe fn lowest_four(bits: u16) -> u16;
}
