//! Whole compressed records in memory: the fast decoder when a record is what it seems, the streaming
//! one for several members, padding and damage.

use std::io::{self, Read};

use libdeflater::Decompressor;
use memchr::memmem;

use super::gzip::GzipStream;
use super::zstandard::ZstdStream;

/// Deflate's greatest possible ratio; a size field that claims more is forged.
const DEFLATE_RATIO_MAX: usize = 1032;
const GZIP_FRAME_BYTES: usize = 18;
const GZIP_MAGIC: [u8; 3] = [0x1F, 0x8B, 0x08];

/// What came out of a compressed record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Inflated {
    /// Everything.
    Whole(Vec<u8>),
    /// What came before damage.
    Cut(Vec<u8>),
    /// More than the limit; nothing is kept.
    TooLarge,
}

/// A decoder that is made once per payload.
pub(super) struct Inflater {
    whole: Decompressor,
}

impl Inflater {
    pub(super) fn new() -> Self {
        Self { whole: Decompressor::new() }
    }

    /// Inflates gzip of any number of members to at most `bytes_max`.
    pub(super) fn gzip(&mut self, data: &[u8], bytes_max: usize) -> Inflated {
        match self.single_member(data, bytes_max) {
            Some(inflated) => Inflated::Whole(inflated),
            None => read_to_limit(GzipStream::new(data), bytes_max),
        }
    }

    /// Inflates data that is one intact member of the size that it says, which is what AWS writes.
    fn single_member(&mut self, data: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
        let rest = data.get(GZIP_FRAME_BYTES..)?;
        // Another magic may be the next member; inside compressed data it is chance and only slow.
        if memmem::find(rest, &GZIP_MAGIC).is_some() {
            return None;
        }
        let size = u32::from_le_bytes(*data.last_chunk::<4>()?);
        let size = usize::try_from(size).ok()?;
        if size > bytes_max.min(data.len().saturating_mul(DEFLATE_RATIO_MAX)) {
            return None;
        }
        let mut inflated = vec![0; size];
        let written = self.whole.gzip_decompress(data, &mut inflated).ok()?;
        (written == size).then_some(inflated)
    }
}

/// Inflates zstd of any number of frames to at most `bytes_max`.
pub(super) fn zstd(data: &[u8], bytes_max: usize) -> Inflated {
    match ZstdStream::new(data) {
        Ok(stream) => read_to_limit(stream, bytes_max),
        Err(_) => Inflated::Cut(Vec::new()),
    }
}

fn read_to_limit(stream: impl Read, bytes_max: usize) -> Inflated {
    let mut inflated = Vec::new();
    let mut limited = stream.take((bytes_max as u64).saturating_add(1));
    let end: io::Result<usize> = limited.read_to_end(&mut inflated);
    if inflated.len() > bytes_max {
        return Inflated::TooLarge;
    }
    match end {
        Ok(_) => Inflated::Whole(inflated),
        Err(_) => Inflated::Cut(inflated),
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

    fn check(data: &[u8], bytes_max: usize, expected: &Inflated) {
        assert_eq!(Inflater::new().gzip(data, bytes_max), *expected);
    }

    #[test]
    fn members_padding_and_equal_members_are_all_read() {
        let one = gzip_of(b"one\n");
        check(&one, 4, &Inflated::Whole(b"one\n".to_vec()));
        check(&[&one[..], &one].concat(), 100, &Inflated::Whole(b"one\none\n".to_vec()));
        check(&[&one[..], &[0; 7]].concat(), 100, &Inflated::Whole(b"one\n".to_vec()));
        check(&gzip_of(b""), 0, &Inflated::Whole(Vec::new()));
    }

    #[test]
    fn damage_keeps_what_came_before() {
        let one = gzip_of(b"one\n");
        check(&one[..one.len() - 3], 100, &Inflated::Cut(b"one\n".to_vec()));
        check(&one[..10], 100, &Inflated::Cut(Vec::new()));
        check(&[&one[..], b"x"].concat(), 100, &Inflated::Cut(b"one\n".to_vec()));
    }

    #[test]
    fn the_limit_holds_for_bombs_and_for_forged_sizes() {
        let bomb = gzip_of(&vec![0; 1 << 20]);
        check(&bomb, 1 << 19, &Inflated::TooLarge);
        check(&bomb, 1 << 20, &Inflated::Whole(vec![0; 1 << 20]));
        let mut forged = gzip_of(b"one\n");
        let size_at = forged.len() - 4;
        forged[size_at..].copy_from_slice(&u32::MAX.to_le_bytes());
        check(&forged, usize::MAX, &Inflated::Cut(b"one\n".to_vec()));
    }

    #[test]
    fn zstd_frames_are_read_to_the_limit() {
        let one = ::zstd::encode_all(&b"one\n"[..], 1).unwrap();
        let twice = [&one[..], &one].concat();
        assert_eq!(zstd(&twice, 8), Inflated::Whole(b"one\none\n".to_vec()));
        assert_eq!(zstd(&twice, 7), Inflated::TooLarge);
        assert_eq!(zstd(&one[..one.len() - 4], 8), Inflated::Cut(Vec::new()));
    }
}
