//! Byte kernels (placeholder).
/// Instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa { /// Scalar.
 Scalar }
impl Isa { /// Best.
 pub fn detect() -> Self { Self::Scalar } }
/// Flag of a line end.
pub const LINE_END: u32 = 1 << 31;
/// Separators.
pub fn separators(_isa: Isa, text: &[u8], out: &mut Vec<u32>) {
    for (i, b) in text.iter().enumerate() {
        if *b == b' ' { out.push(i as u32) } else if *b == b'\n' { out.push(i as u32 | LINE_END) }
    }
}
