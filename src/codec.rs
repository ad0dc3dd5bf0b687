//! State as bytes: what snapshots and partials are made of.
//!
//! Little-endian, without names or tags: each piece of state begins with its own version
//! ([`Encoder::version`]) and reads back what it wrote, in the same order. Columns of plain numbers are
//! copied as they lie in memory, because a snapshot must not hold the stream back longer than copying
//! takes. Reading never trusts a length: it is held against what is left before anything is allocated.

use std::ops::RangeInclusive;

use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::simd;

#[cfg(target_endian = "big")]
compile_error!("columns are written as they lie in memory, which must be little-endian");

/// Bytes of a segment of an encoding: large enough for huge pages.
pub const SEGMENT_BYTES: usize = 4 << 20;

/// Bytes of the first segment of an encoding, which is all that a small state takes.
const FIRST_SEGMENT_BYTES: usize = 64 << 10;

/// No count of anything that was read gets here; a greater one was not saved but made up, and could
/// overflow what it is added to.
pub const COUNT_MAX: u64 = 1 << 56;

/// Why bytes are not the state that they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("the saved state ends too early")]
    Truncated,
    /// Bytes are left over.
    #[error("the saved state has {0} bytes too many")]
    TooLong(usize),
    /// A value that no encoder writes.
    #[error("the saved state has no valid {0}")]
    Invalid(&'static str),
    /// Another version of the program wrote them, with a form that this one doesn't read.
    #[error("{what} was saved in form {found}; this version reads up to form {newest}")]
    Version {
        /// The piece of state.
        what: &'static str,
        /// The version that was found.
        found: u16,
        /// The newest known.
        newest: u16,
    },
}

/// Writes state. Memory is taken in segments, which may come from an encoding that was written before.
#[derive(Debug, Default)]
pub struct Encoder {
    full: Vec<Vec<u8>>,
    open: Vec<u8>,
    spares: Vec<Vec<u8>>,
}

impl Encoder {
    /// An encoder that uses these segments before it takes new ones.
    #[must_use]
    pub const fn with_spares(spares: Vec<Vec<u8>>) -> Self {
        Self { full: Vec::new(), open: Vec::new(), spares }
    }

    /// Begins a piece of state with the version of its form.
    pub fn version(&mut self, version: u16) {
        self.u16(version);
    }

    /// A number.
    pub fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    /// A truth value.
    pub fn bool(&mut self, value: bool) {
        self.u8(value.into());
    }

    /// A number.
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_le_bytes());
    }

    /// A number.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// A number.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// A number.
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_le_bytes());
    }

    /// A number.
    pub fn u128(&mut self, value: u128) {
        self.raw(&value.to_le_bytes());
    }

    /// How many items follow.
    pub fn count(&mut self, count: usize) {
        self.u64(count as u64);
    }

    /// Bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.raw(bytes);
    }

    /// Text with its length.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// A value that may be absent.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    /// Plain values with their count, as they lie in memory.
    pub fn plain<T: IntoBytes + Immutable>(&mut self, values: &[T]) {
        self.count(values.len());
        self.raw(values.as_bytes());
    }

    /// Bytes without their length.
    pub fn raw(&mut self, mut bytes: &[u8]) {
        loop {
            let room = self.open.capacity() - self.open.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.open.extend_from_slice(now);
            if later.is_empty() {
                return;
            }
            bytes = later;
            let is_first = self.open.capacity() == 0;
            let next = if is_first {
                Vec::with_capacity(FIRST_SEGMENT_BYTES)
            } else {
                self.spares.pop().map_or_else(new_segment, |mut spare| {
                    spare.clear();
                    spare
                })
            };
            let full = std::mem::replace(&mut self.open, next);
            if !full.is_empty() {
                self.full.push(full);
            }
        }
    }

    /// How much was written, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.full.iter().map(Vec::len).sum::<usize>() + self.open.len()
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was written, in segments.
    #[must_use]
    pub fn into_segments(self) -> Vec<Vec<u8>> {
        self.into_segments_and_spares().0
    }

    /// What was written, in segments, and those that were not needed for it.
    #[must_use]
    pub fn into_segments_and_spares(mut self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        (self.full, self.spares)
    }

    /// What was written, in one piece.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.into_segments().concat()
    }
}

fn new_segment() -> Vec<u8> {
    let mut segment = Vec::with_capacity(SEGMENT_BYTES);
    simd::advise_huge_pages(segment.spare_capacity_mut());
    segment
}

/// A segment whose memory is there, so that writing to it waits for nothing: the kernel takes ten times as
/// long to give fresh memory as copying takes.
#[must_use]
pub fn touched_segment() -> Vec<u8> {
    let mut segment = Vec::with_capacity(SEGMENT_BYTES);
    if !simd::populate(segment.spare_capacity_mut()) {
        segment.resize(SEGMENT_BYTES, 0);
        segment.clear();
    }
    segment
}

/// Reads state in the order in which it was written.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    /// A decoder of the bytes of one encoding.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The version of a piece of state called `what`, which must be one of `known`.
    ///
    /// # Errors
    /// If it is another one.
    pub fn version(
        &mut self,
        what: &'static str,
        known: RangeInclusive<u16>,
    ) -> Result<u16, DecodeError> {
        let found = self.u16()?;
        if known.contains(&found) {
            Ok(found)
        } else {
            Err(DecodeError::Version { what, found, newest: *known.end() })
        }
    }

    /// A number.
    ///
    /// # Errors
    /// If the bytes end before it.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(self.array::<1>()?[0])
    }

    /// A truth value.
    ///
    /// # Errors
    /// If the bytes end before it, or it is none.
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Invalid("truth value")),
        }
    }

    /// A number.
    ///
    /// # Errors
    /// If the bytes end before it.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A number.
    ///
    /// # Errors
    /// If the bytes end before it.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A number.
    ///
    /// # Errors
    /// If the bytes end before it.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A number of things that were counted.
    ///
    /// # Errors
    /// If the bytes end before it, or it is greater than [`COUNT_MAX`].
    pub fn counted(&mut self) -> Result<u64, DecodeError> {
        Some(self.u64()?).filter(|count| *count <= COUNT_MAX).ok_or(DecodeError::Invalid("count"))
    }

    /// A number.
    ///
    /// # Errors
    /// If the bytes end before it.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A number.
    ///
    /// # Errors
    /// If the bytes end before it.
    pub fn u128(&mut self) -> Result<u128, DecodeError> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// How many items of at least `item_bytes_min` bytes each follow.
    ///
    /// # Errors
    /// If there is no room for them in the bytes that are left.
    pub fn count(&mut self, item_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u64()?).map_err(|_| DecodeError::Truncated)?;
        match count.checked_mul(item_bytes_min) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(DecodeError::Truncated),
        }
    }

    /// How many items follow, in groups of `group` each of which takes at least `group_bytes_min` bytes.
    ///
    /// # Errors
    /// If they don't fill groups, or there is no room for them in the bytes that are left.
    pub fn count_of_groups(
        &mut self,
        group: usize,
        group_bytes_min: usize,
    ) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.u64()?).map_err(|_| DecodeError::Truncated)?;
        if count % group != 0 {
            return Err(DecodeError::Invalid("count"));
        }
        match (count / group).checked_mul(group_bytes_min) {
            Some(bytes) if bytes <= self.rest.len() => Ok(count),
            _ => Err(DecodeError::Truncated),
        }
    }

    /// Bytes with their length.
    ///
    /// # Errors
    /// If the bytes end before them.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.count(1)?;
        self.raw(length)
    }

    /// Text with its length.
    ///
    /// # Errors
    /// If the bytes end before it, or it is not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Invalid("text"))
    }

    /// A value that may be absent.
    ///
    /// # Errors
    /// If the bytes end before it, or `read` fails.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// Plain values with their count.
    ///
    /// # Errors
    /// If the bytes end before them.
    pub fn plain<T: FromBytes + IntoBytes>(&mut self) -> Result<Vec<T>, DecodeError> {
        let count = self.count(size_of::<T>())?;
        let mut values = T::new_vec_zeroed(count).map_err(|_| DecodeError::Truncated)?;
        let bytes = self.raw(count * size_of::<T>())?;
        values.as_mut_slice().as_mut_bytes().copy_from_slice(bytes);
        Ok(values)
    }

    /// The next `length` bytes.
    ///
    /// # Errors
    /// If the bytes end before them.
    pub fn raw(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (now, rest) = self.rest.split_at_checked(length).ok_or(DecodeError::Truncated)?;
        self.rest = rest;
        Ok(now)
    }

    /// Whether all was read.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// Ends reading.
    ///
    /// # Errors
    /// If bytes are left.
    pub const fn finish(self) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::TooLong(left)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let bytes = self.raw(N)?;
        Ok(bytes.try_into().expect("it was asked for as long as it is"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut out = Encoder::default();
        out.version(3);
        out.u8(7);
        out.bool(true);
        out.i64(-5);
        out.u128(u128::MAX);
        out.text("eni-1");
        out.option(Some(9_u32), Encoder::u32);
        out.option(None, Encoder::u32);
        let column: Vec<u64> = (0..400_000).collect();
        out.plain(&column);
        let bytes = out.into_bytes();
        let mut read = Decoder::new(&bytes);
        assert_eq!(read.version("test", 1..=3), Ok(3));
        assert_eq!(read.u8(), Ok(7));
        assert_eq!(read.bool(), Ok(true));
        assert_eq!(read.i64(), Ok(-5));
        assert_eq!(read.u128(), Ok(u128::MAX));
        assert_eq!(read.text(), Ok("eni-1"));
        assert_eq!(read.option(Decoder::u32), Ok(Some(9)));
        assert_eq!(read.option(Decoder::u32), Ok(None));
        assert_eq!(read.plain::<u64>(), Ok(column));
        assert_eq!(read.finish(), Ok(()));
    }

    #[test]
    fn segments_are_used_again() {
        let mut out = Encoder::default();
        out.raw(&vec![1; 3 * SEGMENT_BYTES + 1]);
        let segments = out.into_segments();
        assert_eq!(segments.len(), 4);
        let mut out = Encoder::with_spares(segments);
        out.raw(&[2; 10]);
        assert_eq!(out.len(), 10);
        let (segments, spares) = out.into_segments_and_spares();
        assert_eq!((segments.concat(), spares.len()), (vec![2; 10], 4));
    }

    #[test]
    fn lengths_are_not_trusted() {
        let mut out = Encoder::default();
        out.u64(u64::MAX);
        let bytes = out.into_bytes();
        assert_eq!(Decoder::new(&bytes).plain::<u64>(), Err(DecodeError::Truncated));
        assert_eq!(Decoder::new(&bytes).bytes(), Err(DecodeError::Truncated));
        assert_eq!(
            Decoder::new(&[9, 0]).version("totals", 1..=2),
            Err(DecodeError::Version { what: "totals", found: 9, newest: 2 })
        );
        assert_eq!(Decoder::new(&[1]).finish(), Err(DecodeError::TooLong(1)));
    }
}
