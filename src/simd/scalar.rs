//! The twin of every vector instance: plain code that says what the answer is.
//!
//! It is the specification in the differential tests, what Miri runs, and what runs on machines for
//! which there is no vector instance.

use super::LINE_END;

/// See [`super::separators`].
pub(super) fn separators(text: &[u8], out: &mut Vec<u32>) {
    for (position, byte) in (0u32..).zip(text) {
        match byte {
            b' ' => out.push(position),
            b'\n' => out.push(position | LINE_END),
            _ => {}
        }
    }
}
