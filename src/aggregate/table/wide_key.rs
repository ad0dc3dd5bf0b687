//! Keys that do not fit 64 bits: packed bytes in five words.

use zerocopy::{FromBytes, IntoBytes};

/// A packed key, zero-padded: its length and its bytes if they are at most 36 (two IPv6 addresses and a
/// little), else where they are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes)]
#[repr(transparent)]
pub struct WideKey([u64; 5]);

impl WideKey {
    /// The key of these bytes; `place_of_long` says where it keeps bytes that are too long.
    #[inline]
    pub(in crate::aggregate) fn new(bytes: &[u8], place_of_long: impl FnOnce() -> u64) -> Self {
        let length = u32::try_from(bytes.len()).expect("lines are far below 4 GiB");
        let mut words = [0; 5];
        let room: &mut [u8; 40] = zerocopy::transmute_mut!(&mut words);
        room[..4].copy_from_slice(&length.to_ne_bytes());
        match room[4..].get_mut(..bytes.len()) {
            Some(room) => room.copy_from_slice(bytes),
            None => room[4..12].copy_from_slice(&place_of_long().to_ne_bytes()),
        }
        Self(words)
    }

    /// The words, for hashing and comparing.
    #[inline]
    pub(in crate::aggregate) const fn words(&self) -> &[u64; 5] {
        &self.0
    }

    /// The bytes; `long` gives those that were kept elsewhere by place and length.
    pub(in crate::aggregate) fn bytes<'a>(
        &'a self,
        long: impl FnOnce(u64, usize) -> &'a [u8],
    ) -> &'a [u8] {
        let (length, bytes) = self.0.as_bytes().split_first_chunk().expect("40 bytes");
        let length = u32::from_ne_bytes(*length) as usize;
        match bytes.get(..length) {
            Some(bytes) => bytes,
            None => {
                let (place, _) = bytes.split_first_chunk().expect("36 bytes");
                long(u64::from_ne_bytes(*place), length)
            }
        }
    }
}
