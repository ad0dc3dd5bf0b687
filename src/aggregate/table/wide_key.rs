//! Keys that do not fit 64 bits: packed bytes in five words.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A packed key, zero-padded: its length and its bytes if they are at most 36 (two IPv6 addresses and a
/// little), else where they are kept.
#[derive(Clone, Copy, Debug, Eq, FromBytes, Immutable, IntoBytes)]
#[repr(transparent)]
pub struct WideKey([u64; 5]);

impl PartialEq for WideKey {
    /// Word by word: what the derive makes is a call of `memcmp`, 5 % of the default report.
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
    }
}

/// Bytes of a text that [`WideKey::of_text`] takes.
pub(in crate::aggregate) const SHORT_TEXT_BYTES: usize = 32;

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

    /// The key of one text as its key packs it, length first, without a copy of unknown length.
    ///
    /// # Panics
    /// If the text has more than [`SHORT_TEXT_BYTES`].
    #[inline]
    pub(in crate::aggregate) fn of_text(text: &[u8]) -> Self {
        assert!(text.len() <= SHORT_TEXT_BYTES);
        let length = u32::try_from(text.len()).expect("32 at most");
        let mut words = [0; 5];
        words[0] = head(length + 4, length);
        let (eights, rest) = text.as_chunks::<8>();
        for (word, eight) in words[1..].iter_mut().zip(eights) {
            *word = u64::from_ne_bytes(*eight);
        }
        if !rest.is_empty() {
            // The last eight bytes, less those that came before: no byte goes through memory, where a
            // wide read of narrow writes would wait.
            let last = match text.last_chunk::<8>() {
                Some(eight) => u64::from_le_bytes(*eight) >> (64 - 8 * rest.len()),
                None => rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
            };
            words[1 + eights.len()] = last.to_le();
        }
        Self(words)
    }

    /// The words, for hashing and comparing.
    #[inline]
    pub(in crate::aggregate) const fn words(&self) -> &[u64; 5] {
        &self.0
    }

    /// Where the bytes are kept and how many they are, if they are not in the key.
    pub(in crate::aggregate) fn long(&self) -> Option<(u64, usize)> {
        let (length, bytes) = self.0.as_bytes().split_first_chunk().expect("40 bytes");
        let length = u32::from_ne_bytes(*length) as usize;
        let (place, _) = bytes.split_first_chunk().expect("36 bytes");
        (length > bytes.len()).then(|| (u64::from_ne_bytes(*place), length))
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

/// The first word of a key: its length, and the length of the text that it begins with.
fn head(length: u32, text_length: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..].copy_from_slice(&text_length.to_be_bytes());
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_key_however_it_is_made() {
        for length in 0..=SHORT_TEXT_BYTES {
            let text: Vec<u8> = (1..=u8::try_from(length).unwrap()).collect();
            let mut packed = u32::try_from(length).unwrap().to_be_bytes().to_vec();
            packed.extend_from_slice(&text);
            let key = WideKey::new(&packed, || unreachable!("it is short"));
            assert_eq!(WideKey::of_text(&text), key);
            assert_eq!(key.bytes(|_, _| unreachable!("it is short")), packed);
        }
    }
}
