//! Whole compressed records in memory: the fast decoder for good gzip members, the streaming one for
//! damage and for what is beyond a limit.

use std::io::{self, Read};

use super::gzip::GzipStream;
use super::zstandard::ZstdStream;
use crate::simd::{self, GzipDecoder, InflateFault};

/// Deflate's greatest possible ratio; a size field that claims more is forged.
const DEFLATE_RATIO_MAX: usize = 1032;
/// How much flow logs inflate at most as a rule; the usual is 3 to 6.
const RATIO_USUAL: usize = 8;
const ROOM_MIN_BYTES: usize = 4096;
/// From this size on, fresh memory is worth asking for in huge pages.
const HUGE_BYTES: usize = 4 << 20;
/// The flag of a member whose header has a checksum, which libdeflate does not look at.
const HEADER_CHECKSUM: u8 = 1 << 1;

/// What came out of a compressed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inflated {
    /// Everything.
    Whole,
    /// What came before damage.
    Cut,
    /// More than the limit; nothing is kept.
    TooLarge,
}

/// A decoder that is made once per worker.
#[derive(Debug, Default)]
pub struct Inflater {
    decoder: GzipDecoder,
}

impl Inflater {
    /// Inflates gzip of any number of members to at most `bytes_max`, into `out`, which is empty.
    pub fn gzip(&mut self, packed: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Inflated {
        debug_assert!(out.is_empty());
        match self.members(packed, packed.len(), out, bytes_max) {
            Some(()) => Inflated::Whole,
            None => {
                out.clear();
                read_to_limit(GzipStream::new(packed), out, bytes_max)
            }
        }
    }

    /// How large a buffer the members of `packed` are likely to need, bytes.
    #[must_use]
    pub fn room_for(packed: &[u8], bytes_max: usize) -> usize {
        // The last member says its size modulo 2^32, which may be forged.
        let claimed = packed.last_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize);
        let claimed = claimed.min(packed.len().saturating_mul(DEFLATE_RATIO_MAX));
        let usual = packed.len().saturating_mul(RATIO_USUAL);
        // One more, for the LF of a last line without one.
        claimed.max(usual).max(ROOM_MIN_BYTES).min(bytes_max) + 1
    }

    /// Inflates good members one after the other, with zero bytes for padding between and after them, until
    /// exactly `length` bytes of `packed` are used. `None` if there is anything else, or more than
    /// `bytes_max`.
    pub(super) fn members(
        &mut self,
        packed: &[u8],
        length: usize,
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Option<()> {
        let room = Self::room_for(&packed[..length], bytes_max);
        if out.capacity() < room {
            out.reserve_exact(room);
            if room >= HUGE_BYTES {
                simd::advise_huge_pages(out.spare_capacity_mut());
            }
        }
        let mut used = 0;
        while used < length {
            used += self.one_member(&packed[used..], out, bytes_max)?;
            used += packed[used..].iter().take_while(|byte| **byte == 0).count();
        }
        (used == length && length > 0).then_some(())
    }

    /// Inflates the good member at the start of `packed`, and gives its length.
    pub(super) fn one_member(
        &mut self,
        packed: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Option<usize> {
        if packed.get(3)? & HEADER_CHECKSUM != 0 {
            return None;
        }
        loop {
            let room = bytes_max - out.len();
            match self.decoder.member(packed, out, room) {
                Ok(taken) => return Some(taken),
                Err(InflateFault::NoRoom) if out.capacity() - out.len() < room => {
                    // As much room again as there was, and not only up to what is free already.
                    let doubled = 2 * (out.capacity() - out.len());
                    out.reserve(doubled.max(ROOM_MIN_BYTES).min(room));
                }
                Err(_) => return None,
            }
        }
    }
}

/// Inflates zstd of any number of frames to at most `bytes_max`, into `out`, which is empty.
pub(super) fn zstd(packed: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Inflated {
    match ZstdStream::new(packed) {
        Ok(stream) => read_to_limit(stream, out, bytes_max),
        Err(_) => Inflated::Cut,
    }
}

fn read_to_limit(stream: impl Read, out: &mut Vec<u8>, bytes_max: usize) -> Inflated {
    let mut limited = stream.take((bytes_max as u64).saturating_add(1));
    let end: io::Result<usize> = limited.read_to_end(out);
    if out.len() > bytes_max {
        out.clear();
        return Inflated::TooLarge;
    }
    match end {
        Ok(_) => Inflated::Whole,
        Err(_) => Inflated::Cut,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip_of(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn check(data: &[u8], bytes_max: usize, expected: Inflated, text: &[u8]) {
        let mut out = Vec::new();
        assert_eq!(Inflater::default().gzip(data, &mut out, bytes_max), expected);
        assert!(out == text);
    }

    #[test]
    fn members_padding_and_equal_members_are_all_read() {
        let one = gzip_of(b"one\n");
        check(&one, 4, Inflated::Whole, b"one\n");
        check(&[&one[..], &one].concat(), 100, Inflated::Whole, b"one\none\n");
        check(&[&one[..], &[0; 7]].concat(), 100, Inflated::Whole, b"one\n");
        check(&gzip_of(b""), 0, Inflated::Whole, &[]);
    }

    #[test]
    fn damage_keeps_what_came_before() {
        let one = gzip_of(b"one\n");
        check(&one[..one.len() - 3], 100, Inflated::Cut, b"one\n");
        check(&one[..10], 100, Inflated::Cut, &[]);
        check(&[&one[..], b"x"].concat(), 100, Inflated::Cut, b"one\n");
    }

    #[test]
    fn a_member_that_is_larger_than_the_last_one_says_finds_room() {
        let large = vec![b'x'; 3 << 20];
        let packed = [gzip_of(&large), gzip_of(b"1\n")].concat();
        check(&packed, 4 << 20, Inflated::Whole, &[&large[..], b"1\n"].concat());
        let mut forged = gzip_of(&large);
        let size_at = forged.len() - 4;
        forged[size_at..].copy_from_slice(&[1, 0, 0, 0]);
        check(&forged, 4 << 20, Inflated::Cut, &large);
    }

    #[test]
    fn the_limit_holds_for_bombs_and_for_forged_sizes() {
        let bomb = gzip_of(&vec![0; 1 << 20]);
        check(&bomb, 1 << 19, Inflated::TooLarge, &[]);
        check(&bomb, 1 << 20, Inflated::Whole, &vec![0; 1 << 20]);
        let mut forged = gzip_of(b"one\n");
        let size_at = forged.len() - 4;
        forged[size_at..].copy_from_slice(&u32::MAX.to_le_bytes());
        check(&forged, usize::MAX, Inflated::Cut, b"one\n");
    }

    #[test]
    fn zstd_frames_are_read_to_the_limit() {
        let one = ::zstd::encode_all(&b"one\n"[..], 1).unwrap();
        let twice = [&one[..], &one].concat();
        let check = |packed: &[u8], bytes_max, expected, text: &[u8]| {
            let mut out = Vec::new();
            assert_eq!((zstd(packed, &mut out, bytes_max), &out[..]), (expected, text));
        };
        check(&twice, 8, Inflated::Whole, b"one\none\n");
        check(&twice, 7, Inflated::TooLarge, b"");
        check(&one[..one.len() - 4], 8, Inflated::Cut, b"");
    }
}
