//! Byte kernels: where the separators of a block of lines stand. The only unsafe code of the program.
//!
//! ```text
//! text:       "2 1234 eni-1\n2 99"
//! separators:  1 6 12|LINE_END 14
//! ```
//!
//! Then, from lines of equally many fields to columns of values: a kernel goes down one field of 64
//! lines at a time, eight numbers to a register.
//!
//! Three floors: safe functions choose an instruction set, `separators` and `columns` hold the algorithms
//! over small traits (`block`, `lanes`), and one thin file per instruction set implements them. `scalar`
//! is the specification of separators; that of columns is plain code in `record::value`, to which every
//! kernel leaves the fields that it does not fit. Nothing here knows what a record is.
//!
//! Sketch: one pass over 64-byte blocks, two compares and a bit mask each, one 4-byte position out per
//! separator (a flow log line of 117 bytes has 14, so 48 bytes out for 100 bytes in); then 6 to 8
//! instructions a number and 16 an address. No allocation once the list of positions has grown.

#![expect(
    clippy::cast_possible_truncation,
    reason = "positions are below 2^31, as asserted at the door"
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod block;
#[cfg(test)]
mod column_tests;
mod columns;
mod deflate;
mod lanes;
mod memory;
mod quoted;
mod rows;
mod scalar;
mod separators;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod x86_64;

pub use deflate::{GzipDecoder, InflateFault};
pub use memory::{advise_huge_pages, populate, prefetch};
pub use quoted::QuotedCopier;
pub use rows::{Judged, Number, ROWS_MAX, Rows, Splitter, Word};

/// The bit that tells the position of a line end (LF) from that of a blank.
pub const LINE_END: u32 = 1 << 31;

/// An instruction set that the kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Plain code, one byte at a time; on every machine.
    Scalar,
    /// 16-byte registers; on every x86-64.
    Sse2,
    /// 32-byte registers, with the bit instructions of BMI1, BMI2 and POPCNT.
    Avx2,
    /// 64-byte registers with byte compression: AVX-512 F, BW, VL and VBMI2 (Intel since Ice Lake, AMD since
    /// Zen 4). Processors with an older AVX-512 use [`Isa::Avx2`].
    Avx512,
    /// 16-byte registers; on every 64-bit Arm.
    Neon,
}

impl Isa {
    /// Every instruction set, slowest first.
    pub const ALL: [Self; 5] = [Self::Scalar, Self::Neon, Self::Sse2, Self::Avx2, Self::Avx512];

    /// The fastest one that this machine has.
    #[must_use]
    pub fn detect() -> Self {
        Self::available().pop().expect("the scalar code runs everywhere")
    }

    /// Those that this machine has, slowest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Whether this machine has it. The answer is cached by the standard library.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Sse2 => x86_64::sse2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86_64::avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86_64::avx512::is_available(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => aarch64::neon::is_available(),
            #[expect(
                clippy::allow_attributes,
                reason = "whether the arm is reached depends on the target"
            )]
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The name that [`Isa::from_name`] reads.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Sse2 => "sse2",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// The instruction set of that name, whether the machine has it or not.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|isa| isa.name() == name)
    }
}

/// Appends the position of every blank (0x20) and line end (0x0A) of `text` to `out`, in order; line
/// ends carry [`LINE_END`].
///
/// `out` keeps what it held before and grows as needed; to write without asking at each position, it
/// also makes room for up to 1,024 entries that it may not fill.
///
/// ```
/// use flowgauge::simd::{Isa, LINE_END, separators};
///
/// let mut positions = Vec::new();
/// separators(Isa::detect(), b"2 OK\n", &mut positions);
/// assert_eq!(positions, [1, 4 | LINE_END]);
/// ```
///
/// # Panics
/// If `text` has 2 GiB or more, or if the machine does not have `isa`.
pub fn separators(isa: Isa, text: &[u8], out: &mut Vec<u32>) {
    assert!(text.len() < LINE_END as usize, "a block of lines is far below 2 GiB");
    append_separators(isa, text, 0, out);
}

/// As [`separators`], with `base` added to every position; says whether any two separators stand side
/// by side.
fn append_separators(isa: Isa, text: &[u8], base: u32, out: &mut Vec<u32>) -> bool {
    debug_assert!(text.len() + (base as usize) < LINE_END as usize);
    assert!(isa.is_available(), "this machine has no {}", isa.name());
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the machine has the instructions: `is_available` was asserted above.
        Isa::Sse2 => unsafe { x86_64::sse2::append_separators(text, base, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { x86_64::avx2::append_separators(text, base, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512 => unsafe { x86_64::avx512::append_separators(text, base, out) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon => unsafe { aarch64::neon::append_separators(text, base, out) },
        _ => scalar::append_separators(text, base, out),
    }
}
