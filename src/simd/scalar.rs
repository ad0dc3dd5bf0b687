//! The twin of every vector instance: plain code that says what the answer is.
//!
//! It is the specification in the differential tests, what Miri runs, and what runs on machines for
//! which there is no vector instance.

use super::LINE_END;

/// See [`super::append_separators`].
pub(super) fn append_separators(text: &[u8], base: u32, out: &mut Vec<u32>) -> bool {
    let mut adjacent = false;
    let mut beside = false;
    for (position, byte) in (base..).zip(text) {
        let separator = match byte {
            b' ' => Some(position),
            b'\n' => Some(position | LINE_END),
            _ => None,
        };
        adjacent |= beside && separator.is_some();
        beside = separator.is_some();
        out.extend(separator);
    }
    adjacent
}
