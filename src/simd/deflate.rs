//! Gzip members that are whole in memory, by libdeflate.
//!
//! It stands here because it is unsafe: the crate around libdeflate leaves out the one call that says
//! how much of its input a member took, without which members in a row can't be told apart.

use std::mem::MaybeUninit;
use std::ptr::NonNull;

use libdeflate_sys as sys;

/// Why a member could not be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InflateFault {
    /// It holds more than there is room for.
    NoRoom,
    /// It breaks off, it is damaged, or it is no gzip.
    BadData,
}

/// An inflater with its tables; one per thread is enough.
#[derive(Debug)]
pub struct GzipDecoder(NonNull<sys::libdeflate_decompressor>);

// SAFETY: the decoder is memory that belongs to this value alone; libdeflate keeps nothing per thread.
unsafe impl Send for GzipDecoder {}

impl GzipDecoder {
    /// A decoder.
    ///
    /// # Panics
    /// If there is no memory for it.
    #[must_use]
    pub fn new() -> Self {
        // SAFETY: it asks for nothing; what it gives is checked.
        let decoder = unsafe { sys::libdeflate_alloc_decompressor() };
        Self(NonNull::new(decoder).expect("there is memory for a few kilobytes"))
    }

    /// Inflates the member at the start of `packed`, whose checksum and size are checked, into the
    /// spare capacity of `out`, of which it takes at most `bytes_max`. Gives the length of the member.
    ///
    /// # Errors
    /// If the member is not good or does not fit; `out` then holds what it held before.
    pub fn member(
        &mut self,
        packed: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<usize, InflateFault> {
        let spare: &mut [MaybeUninit<u8>] = out.spare_capacity_mut();
        let room = spare.len().min(bytes_max);
        let (mut taken, mut given) = (0, 0);
        // SAFETY: input and output are slices of these lengths that don't overlap, as one is borrowed
        // for writing; libdeflate only writes to the output; the decoder is alive and nobody else's.
        let result = unsafe {
            sys::libdeflate_gzip_decompress_ex(
                self.0.as_ptr(),
                packed.as_ptr().cast(),
                packed.len(),
                spare.as_mut_ptr().cast(),
                room,
                &raw mut taken,
                &raw mut given,
            )
        };
        match result {
            sys::libdeflate_result_LIBDEFLATE_SUCCESS => {
                assert!(
                    given <= room && taken <= packed.len(),
                    "libdeflate stays within its buffers"
                );
                let length = out.len() + given;
                // SAFETY: the capacity is larger by `room`, and libdeflate wrote the first `given` bytes.
                unsafe { out.set_len(length) };
                Ok(taken)
            }
            sys::libdeflate_result_LIBDEFLATE_INSUFFICIENT_SPACE => Err(InflateFault::NoRoom),
            _ => Err(InflateFault::BadData),
        }
    }
}

impl Default for GzipDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for GzipDecoder {
    fn drop(&mut self) {
        // SAFETY: it was made by the call that belongs to this one, and is used no more.
        unsafe { sys::libdeflate_free_decompressor(self.0.as_ptr()) };
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    #[cfg_attr(miri, ignore = "libdeflate is C")]
    fn a_member_says_how_much_it_took() {
        let (one, two) = (gzip(b"one\n"), gzip(b"two\n"));
        let both = [&one[..], &two].concat();
        let mut decoder = GzipDecoder::new();
        let mut out = Vec::with_capacity(8);
        let taken = decoder.member(&both, &mut out, 4).unwrap();
        assert_eq!((taken, &out[..]), (one.len(), &b"one\n"[..]));
        assert_eq!(decoder.member(&both[taken..], &mut out, 99), Ok(two.len()));
        assert_eq!(out, b"one\ntwo\n");
    }

    #[test]
    #[cfg_attr(miri, ignore = "libdeflate is C")]
    fn room_and_damage_are_told_and_leave_the_output() {
        let packed = gzip(b"some text\n");
        let mut decoder = GzipDecoder::new();
        let mut out = b"kept".to_vec();
        out.reserve_exact(100);
        assert_eq!(decoder.member(&packed, &mut out, 9), Err(InflateFault::NoRoom));
        for cut in 0..packed.len() {
            let end = decoder.member(&packed[..cut], &mut out, 99);
            assert_eq!(end, Err(InflateFault::BadData), "{cut}");
        }
        assert_eq!(out, b"kept");
    }
}
