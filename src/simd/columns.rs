//! Columns, once for all instruction sets: one field of many lines to numbers, addresses or words.
//!
//! A kernel takes the usual form of its kind and judges every byte of it; a field of any other form is
//! *unfit* and left to plain code. Digits become numbers by multiplying and adding neighbours (Lemire's
//! and Muła's way); an address is first spread to four slots of four bytes by a shuffle that the places
//! of its dots choose (as in Lemire's `sse_inet_aton`), here with the dots and the blank behind it kept
//! in the slots, so that comparing those proves the whole shape.

use super::lanes::{Lanes, QUADS_MAX, Starts, WORDS_MAX};
use super::rows::{Judged, Number, Rows};

/// `0` in every byte: what is taken off, so that digits are 0 to 9.
const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);
const NINES: u64 = u64::from_le_bytes([9; 8]);

/// Where lanes begin that end with the field, `BYTES` long, in every `STEP`th row from `first` on.
#[expect(clippy::inline_always, reason = "it must unroll with its caller's loop")]
#[inline(always)]
fn starts_before_end<const BYTES: usize, const STEP: usize>(
    rows: &Rows<'_>,
    first: usize,
    column: usize,
    lanes: usize,
) -> Starts {
    let index = rows.index_before(first, column) + 1;
    let mut starts = [0; WORDS_MAX];
    for (lane, start) in starts[..lanes].iter_mut().enumerate() {
        *start = rows.separator_position(index + STEP * lane * rows.stride()) - BYTES;
    }
    starts
}

/// A byte after [`ZEROS`] is taken off.
const fn less_zero(byte: u8) -> u8 {
    byte.wrapping_sub(b'0')
}

/// Numbers of 1 to 7 digits that `N` holds; `-` is absent.
///
/// # Safety
/// The machine has the instruction set of `L`, and the caller is compiled for it.
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
pub(super) unsafe fn numbers<L: Lanes, N: Number>(
    rows: &Rows<'_>,
    column: usize,
    mut out: Option<&mut [N]>,
) -> Judged {
    let count = rows.count();
    if count < L::WORDS {
        return Judged::unfit(count);
    }
    let before = less_zero(Rows::byte_before(column));
    // SAFETY: the machine has the instruction set, as this function demands; `Rows` promises that the
    // eight bytes before the end of any of its fields exist.
    unsafe {
        let blank = L::same_word(u64::from_le_bytes([before; 8]));
        let absent_word = L::same_word(u64::from(u16::from_le_bytes([before, less_zero(b'-')])));
        let zeros = L::same_word(ZEROS);
        let nines = L::same_word(NINES);
        let pair_weights = L::same_word(u64::from_le_bytes([10, 1, 10, 1, 10, 1, 10, 1]));
        let four_weights = L::same_word(0x0001_0064_0001_0064);
        let eight_weight = L::same_word(10_000);
        // The blank must be within the word and not at its end.
        let first_byte = L::same_word(0xff);
        let outer_bytes = L::same_word(0xff00_0000_0000_00ff);
        let beyond = L::same_word(!N::LARGEST);

        let mut judged = Judged { absent: 0, unfit: 0 };
        let mut first = 0;
        while first < count {
            // The last group begins early enough to be whole: its first rows are judged twice.
            let at = first.min(count - L::WORDS);
            let text =
                L::words(rows.text(), &starts_before_end::<8, 1>(rows, at, column, L::WORDS));
            let digits = text.sub_bytes(zeros);
            // Every byte up to the last blank: what stands before the field.
            let mut foreign = digits.equal_bytes(blank);
            foreign = foreign.or(foreign.shift_right_words::<8>());
            foreign = foreign.or(foreign.shift_right_words::<16>());
            foreign = foreign.or(foreign.shift_right_words::<32>());
            let digits_only = digits.without(foreign);
            let pairs = digits_only.join_bytes(pair_weights);
            let fours = pairs.join_shorts(four_weights);
            let value = fours.mul_words(eight_weight).add_words(fours.shift_right_words::<32>());
            let fault = digits_only
                .sub_bytes_saturating(nines)
                .or(foreign.xor(first_byte).and(outer_bytes))
                .or(value.and(beyond));
            let is_absent = digits.shift_right_words::<48>().xor(absent_word).zero_words_mask();
            let fits = fault.zero_words_mask();
            if let Some(out) = &mut out {
                value.store_words(&mut out[at..]);
            }
            let all = (1 << L::WORDS) - 1;
            judged.absent |= is_absent << at;
            judged.unfit |= (all & !(fits | is_absent)) << at;
            first += L::WORDS;
        }
        judged
    }
}

/// Numbers of exactly 10 digits, as Unix seconds are from 2001 to 2286.
///
/// # Safety
/// As for [`numbers`].
#[inline(always)]
pub(super) unsafe fn ten_digits<L: Lanes>(
    rows: &Rows<'_>,
    column: usize,
    mut out: Option<&mut [u64]>,
) -> Judged {
    /// Where the field begins in a quad that ends with it.
    const START: usize = 6;
    const WIDE: u16 = 10_000;

    let count = rows.count();
    if count < L::WORDS {
        return Judged::unfit(count);
    }
    let mut before = [0; 16];
    before[START - 1] = less_zero(Rows::byte_before(column));
    // SAFETY: the machine has the instruction set, as this function demands; `Rows` promises that the
    // 16 bytes before the end of any of its fields exist.
    unsafe {
        let zeros = L::same_word(ZEROS);
        let before = L::same_quad(before);
        let field = L::same_quad(filled(START, 16, 0xff));
        let blank_place = L::same_quad(filled(START - 1, START, 0xff));
        let nines = L::same_word(NINES);
        let pair_weights = L::same_word(u64::from_le_bytes([10, 1, 10, 1, 10, 1, 10, 1]));
        let four_weights = L::same_quad(shorts([0, 0, 0, 1, 100, 1, 100, 1]));
        let eight_weights = L::same_quad(shorts([0, 1, WIDE, 1, 0, 1, WIDE, 1]));
        let top_weight = L::same_word(100_000_000);

        let mut judged = Judged { absent: 0, unfit: 0 };
        let mut first = 0;
        while first < count {
            let at = first.min(count - L::WORDS);
            // Even rows, then odd ones: narrowing puts them side by side.
            let mut fours = [zeros; 2];
            let mut faults = [zeros; 2];
            for odd in 0..2 {
                let starts = starts_before_end::<16, 2>(rows, at + odd, column, L::QUADS);
                let text = L::quads(rows.text(), &starts).sub_bytes(zeros);
                let digits = text.and(field);
                faults[odd] =
                    digits.sub_bytes_saturating(nines).or(text.xor(before).and(blank_place));
                fours[odd] = digits.join_bytes(pair_weights).join_shorts(four_weights);
            }
            let parts = fours[0].narrow_to_shorts(fours[1]).join_shorts(eight_weights);
            let value = parts.mul_words(top_weight).add_words(parts.shift_right_words::<32>());
            let fault = faults[0].lower_words(faults[1]).or(faults[0].upper_words(faults[1]));
            if let Some(out) = &mut out {
                value.store_words(&mut out[at..]);
            }
            let all = (1 << L::WORDS) - 1;
            judged.unfit |= (all & !fault.zero_words_mask()) << at;
            first += L::WORDS;
        }
        judged
    }
}

/// `byte` from `start` to `end`, 0 elsewhere.
const fn filled(start: usize, end: usize, byte: u8) -> [u8; 16] {
    let mut quad = [0; 16];
    let mut index = start;
    while index < end {
        quad[index] = byte;
        index += 1;
    }
    quad
}

const fn shorts(numbers: [u16; 8]) -> [u8; 16] {
    let mut quad = [0; 16];
    let mut index = 0;
    while index < 8 {
        [quad[2 * index], quad[2 * index + 1]] = numbers[index].to_le_bytes();
        index += 1;
    }
    quad
}

/// IPv4 addresses, as numbers of the IPv4-mapped range of IPv6.
///
/// # Safety
/// As for [`numbers`].
#[inline(always)]
pub(super) unsafe fn ipv4<L: Lanes>(
    rows: &Rows<'_>,
    column: usize,
    mut out: Option<&mut [u128]>,
) -> Judged {
    /// Bit 0 of every quad's 16 bits.
    const QUAD_STARTS: u64 = 0x0001_0001_0001_0001;
    /// Bit 15 of them: what stands there, behind the longest address, can't be an octet's first digit.
    const QUAD_ENDS: u64 = QUAD_STARTS << 15;
    const DOT: u8 = less_zero(b'.');
    /// The last byte of each slot holds what follows the octet.
    const ENDS: [u8; 16] = [0, 0, 0, 0xff, 0, 0, 0, 0xff, 0, 0, 0, 0xff, 0, 0, 0, 0xff];
    const DIGITS_MAX: [u8; 16] = [9, 9, 9, 255, 9, 9, 9, 255, 9, 9, 9, 255, 9, 9, 9, 255];
    /// The lowest byte of each slot, the last slot first, below a place for the prefix.
    const PACK: [u8; 16] = [12, 8, 4, 0, N, N, N, N, N, N, N, N, N, N, N, N];
    const MAPPED_PREFIX: [u8; 16] = filled(4, 6, 0xff);

    let count = rows.count();
    if count < L::QUADS {
        return Judged::unfit(count);
    }
    let after = less_zero(rows.byte_after(column));
    let ends = [0, 0, 0, DOT, 0, 0, 0, DOT, 0, 0, 0, DOT, 0, 0, 0, after];
    // SAFETY: the machine has the instruction set, as this function demands; `Rows` promises that the
    // 16 bytes from the start of any of its fields on exist.
    unsafe {
        let zeros = L::same_word(ZEROS);
        let nines = L::same_word(NINES);
        let nought = L::same_word(0);
        let wanted_ends = L::same_quad(ends);
        let end_places = L::same_quad(ENDS);
        let digits_max = L::same_quad(DIGITS_MAX);
        let pair_weights =
            L::same_quad([100, 10, 1, 0, 100, 10, 1, 0, 100, 10, 1, 0, 100, 10, 1, 0]);
        let ones = L::same_quad(shorts([1; 8]));
        let beyond_octet = L::same_word(0xffff_ff00_ffff_ff00);
        let pack = L::same_quad(PACK);
        let mapped_prefix = L::same_quad(MAPPED_PREFIX);

        let mut judged = Judged { absent: 0, unfit: 0 };
        let mut first = 0;
        while first < count {
            let at = first.min(count - L::QUADS);
            let mut starts = [0; WORDS_MAX];
            let index = rows.index_before(at, column);
            for (lane, start) in starts[..L::QUADS].iter_mut().enumerate() {
                *start = rows.separator_position(index + lane * rows.stride()) + 1;
            }
            let text = L::quads(rows.text(), &starts);
            let digits = text.sub_bytes(zeros);
            let other = digits.greater_bytes_mask(nines);
            let mut patterns = [0; QUADS_MAX];
            for (lane, pattern) in patterns[..L::QUADS].iter_mut().enumerate() {
                #[expect(clippy::cast_possible_truncation, reason = "16 bits belong to a quad")]
                let other = (other >> (16 * lane)) as u16;
                *pattern = pattern_index(L::lowest_four(other));
            }
            let slots = digits.shuffle_bytes(L::quads_of(&PATTERNS, patterns));
            let octets = slots.join_bytes(pair_weights).join_shorts(ones);
            let fault = slots
                .sub_bytes_saturating(digits_max)
                .or(slots.xor(wanted_ends).and(end_places))
                .or(octets.and(beyond_octet));
            // A 0 that begins an octet and has a digit behind it. What follows the address is seen
            // too, and may make it unfit for nothing.
            let zero = digits.equal_bytes_mask(nought);
            let leading_zero = (other << 1 | QUAD_STARTS) & zero & !(other >> 1) & !QUAD_ENDS;
            let value = octets.shuffle_bytes(pack).or(mapped_prefix);
            if let Some(out) = &mut out {
                value.store_quads(&mut out[at..]);
            }
            // Both words of a quad, as one bit a quad: no branch, because in mixed traffic every few
            // addresses one is unfit, and which is unforeseeable.
            let fine = fault.zero_words_mask();
            let fine = fine & fine >> 1 & 0b0101_0101;
            let fine = (fine | fine >> 1) & 0b0011_0011;
            let fine = (fine | fine >> 2) & 0b0000_1111;
            let all = (1 << L::QUADS) - 1;
            judged.unfit |= (all & !fine) << at;
            if leading_zero != 0 {
                for lane in 0..L::QUADS {
                    let has_one = (leading_zero >> (16 * lane)).trailing_zeros() < 16;
                    judged.unfit |= u64::from(has_one) << (at + lane);
                }
            }
            first += L::QUADS;
        }
        judged
    }
}

/// The index of nothing, to a shuffle.
const N: u8 = 0x80;

const PATTERN_COUNT: usize = 256;

/// Shuffles that bring each octet of an address, with the byte behind it, to the end of its slot, by
/// [`pattern_index`] of where those bytes are.
static PATTERNS: [[u8; 16]; PATTERN_COUNT] = {
    let mut patterns = [[N; 16]; PATTERN_COUNT];
    let mut lengths = 0;
    while lengths < 81 {
        let octet_lengths =
            [lengths / 27 % 3 + 1, lengths / 9 % 3 + 1, lengths / 3 % 3 + 1, lengths % 3 + 1];
        let mut shuffle = [N; 16];
        let mut ends = 0_u16;
        let mut place = 0;
        let mut octet = 0;
        while octet < 4 {
            let length = octet_lengths[octet];
            let mut index = 0;
            while index <= length {
                shuffle[4 * octet + 3 - length + index] = (place + index) as u8;
                index += 1;
            }
            ends |= 1 << (place + length);
            place += length + 1;
            octet += 1;
        }
        let entry = &mut patterns[pattern_index(ends) as usize];
        assert!(entry[3] == N, "no two patterns share an index");
        *entry = shuffle;
        lengths += 1;
    }
    patterns
};

/// A number for each of the 81 ways in which the four bytes behind the octets may lie. The multiplier was
/// found by trial; that no two collide is asserted where the table is made.
const fn pattern_index(ends: u16) -> u8 {
    ((ends as u32).wrapping_mul(0x372d_a969) >> 24) as u8
}

/// Fields that are `word`, a bit per row.
///
/// `word` is the 8 bytes that end with the field, as far as `mask` goes: the field and the byte before it.
///
/// # Safety
/// As for [`numbers`].
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
pub(super) unsafe fn words<L: Lanes, const COUNT: usize>(
    rows: &Rows<'_>,
    column: usize,
    wanted: &[(u64, u64); COUNT],
) -> Option<[u64; COUNT]> {
    let count = rows.count();
    if count < L::WORDS {
        return None;
    }
    let mut found = [0; COUNT];
    let mut first = 0;
    while first < count {
        let at = first.min(count - L::WORDS);
        // SAFETY: the machine has the instruction set, as this function demands; `Rows` promises that
        // the eight bytes before the end of any of its fields exist.
        unsafe {
            let text =
                L::words(rows.text(), &starts_before_end::<8, 1>(rows, at, column, L::WORDS));
            for (found, (word, mask)) in found.iter_mut().zip(wanted) {
                let differing = text.xor(L::same_word(*word)).and(L::same_word(*mask));
                *found |= differing.zero_words_mask() << at;
            }
        }
        first += L::WORDS;
    }
    Some(found)
}
