//! Copies the inside of a JSON string while looking for its end.
//!
//! One pass over 64-byte blocks: each is written to the output whole, then cut back to where the first
//! quote, backslash or line end stands. A message of a flow log has two blocks, so that a search and a copy
//! of their own would cost more in calls than in work.

use super::Isa;
use super::block::{BLOCK_BYTES, Block};

/// Copies text from inside quotes, with an instruction set that was chosen once.
#[derive(Clone, Copy, Debug)]
pub struct QuotedCopier {
    isa: Isa,
    copy: unsafe fn(&[u8], &mut Vec<u8>) -> usize,
}

impl QuotedCopier {
    /// A copier for this machine.
    ///
    /// # Panics
    /// If the machine does not have `isa`.
    #[must_use]
    pub fn new(isa: Isa) -> Self {
        assert!(isa.is_available(), "this machine has no {}", isa.name());
        let copy: unsafe fn(&[u8], &mut Vec<u8>) -> usize = match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Sse2 => super::x86_64::sse2::copy_quoted,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::x86_64::avx2::copy_quoted,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => super::x86_64::avx512::copy_quoted,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => super::aarch64::neon::copy_quoted,
            _ => scalar,
        };
        Self { isa, copy }
    }

    /// The instruction set.
    #[must_use]
    pub const fn isa(self) -> Isa {
        self.isa
    }

    /// Appends the bytes of `from` before its first `"`, `\` or LF to `out`, all of them if there is none,
    /// and says how many they are.
    ///
    /// ```
    /// use flowgauge::simd::{Isa, QuotedCopier};
    ///
    /// let mut line = b"> ".to_vec();
    /// assert_eq!(QuotedCopier::new(Isa::detect()).copy(b"2 OK\"}", &mut line), 4);
    /// assert_eq!(line, b"> 2 OK");
    /// ```
    #[inline]
    pub fn copy(self, from: &[u8], out: &mut Vec<u8>) -> usize {
        // SAFETY: the machine has the instructions: `new` asserted it.
        unsafe { (self.copy)(from, out) }
    }
}

/// See [`QuotedCopier::copy`]; the twin of the others.
pub(super) fn scalar(from: &[u8], out: &mut Vec<u8>) -> usize {
    let is_end = |byte: &u8| matches!(byte, b'"' | b'\\' | b'\n');
    let length = from.iter().position(is_end).unwrap_or(from.len());
    out.extend_from_slice(&from[..length]);
    length
}

/// See [`QuotedCopier::copy`].
///
/// # Safety
/// The machine has the instruction set of `B`, and the caller is compiled for it.
#[expect(clippy::inline_always, reason = "it takes the caller's instruction set")]
#[inline(always)]
pub(super) unsafe fn copy<B: Block>(from: &[u8], out: &mut Vec<u8>) -> usize {
    let (blocks, tail) = from.as_chunks::<BLOCK_BYTES>();
    let mut copied = 0;
    for block in blocks {
        out.extend_from_slice(block);
        // SAFETY: the machine has the instruction set of `B`, as this function demands.
        let ends = unsafe {
            let block = B::load(block);
            block.equal_mask(b'"') | block.equal_mask(b'\\') | block.equal_mask(b'\n')
        };
        if ends != 0 {
            let kept = ends.trailing_zeros() as usize;
            out.truncate(out.len() - (BLOCK_BYTES - kept));
            return copied + kept;
        }
        copied += BLOCK_BYTES;
    }
    copied + scalar(tail, out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every instruction set copies what the twin copies, behind what was there.
    fn check(from: &[u8]) {
        let mut expected = vec![7];
        let length = scalar(from, &mut expected);
        for isa in Isa::available() {
            let mut out = vec![7];
            assert_eq!(QuotedCopier::new(isa).copy(from, &mut out), length, "{}", isa.name());
            assert_eq!(out, expected, "{}", isa.name());
        }
    }

    #[test]
    fn the_twin_stops_at_what_ends_or_escapes() {
        let copied = |from: &[u8]| scalar(from, &mut Vec::new());
        assert_eq!(copied(b"a b\"c"), 3);
        assert_eq!(copied(b"a\\\""), 1);
        assert_eq!(copied(b"\n"), 0);
        assert_eq!(copied(b"abc"), 3);
    }

    #[test]
    fn an_end_at_every_position_of_every_length() {
        let length_max = if cfg!(miri) { 70 } else { 200 };
        for length in (0..length_max).step_by(if cfg!(miri) { 23 } else { 1 }) {
            let mut text = vec![b'x'; length];
            check(&text);
            for position in 0..length {
                for end in *b"\"\\\n" {
                    text[position] = end;
                    check(&text);
                }
                text[position] = b'x';
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 8 } else { 256 }))]

        #[test]
        fn any_bytes(from in prop::collection::vec(any::<u8>(), 0..400)) {
            check(&from);
        }
    }
}
