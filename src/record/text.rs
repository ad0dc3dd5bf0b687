//! Text that many share, and the buffers behind it, which go round.
//!
//! A block of lines is read into a buffer, parsed, and pointed into by batches until the last of them is
//! dropped, perhaps in another thread. The buffer then goes back to where the next block is read: memory
//! that was touched once is cheaper than fresh memory, which the kernel has to clear page by page.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Buffers that a pool keeps at most.
const BUFFERS_MAX: usize = 64;
/// Bytes of all the buffers that a pool keeps unless it is told otherwise: enough for one large object,
/// inflated.
pub const KEPT_TEXT_BYTES_DEFAULT: usize = 256 << 20;
/// A buffer is not used for something so many times smaller.
const SLACK: usize = 64;

/// A place where buffers wait to be used again.
#[derive(Clone)]
pub struct TextPool {
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    bytes_max: usize,
}

impl Default for TextPool {
    fn default() -> Self {
        Self::new(KEPT_TEXT_BYTES_DEFAULT)
    }
}

impl TextPool {
    /// A pool that keeps up to `bytes_max` bytes of buffers.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { kept: Arc::default(), bytes_max }
    }

    /// A buffer with room for `capacity` bytes. It may hold bytes of an earlier use, so that whoever
    /// overwrites them need not clear them first.
    #[must_use]
    pub fn take(&self, capacity: usize) -> Vec<u8> {
        let mut kept = self.kept();
        let fits = |buffer: &Vec<u8>| {
            buffer.capacity() >= capacity && buffer.capacity() / SLACK <= capacity
        };
        // The last one that came back is the likeliest to be in a cache still.
        match kept.iter().rposition(fits) {
            Some(index) => kept.remove(index),
            None => Vec::with_capacity(capacity),
        }
    }

    /// Takes a buffer back, unless enough of them wait.
    pub fn give_back(&self, buffer: Vec<u8>) {
        if buffer.capacity() == 0 {
            return;
        }
        let mut kept = self.kept();
        let kept_bytes: usize = kept.iter().map(Vec::capacity).sum();
        if kept.len() < BUFFERS_MAX
            && kept_bytes.saturating_add(buffer.capacity()) <= self.bytes_max
        {
            kept.push(buffer);
        }
    }

    /// Text in `bytes`, whose buffer comes back here in the end.
    #[must_use]
    pub fn text(&self, bytes: Vec<u8>) -> Text {
        Text { bytes, pool: Some(self.clone()) }
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        // Nothing in here is ever half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TextPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextPool").finish_non_exhaustive()
    }
}

/// Bytes of text whose buffer is used again when they are not needed any more.
#[derive(Default)]
pub struct Text {
    bytes: Vec<u8>,
    pool: Option<TextPool>,
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes, pool: None }
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.bytes.len())
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.give_back(std::mem::take(&mut self.bytes));
        }
    }
}

/// A piece of a text.
#[derive(Clone, Debug, Default)]
pub struct TextSlice {
    text: Arc<Text>,
    range: Range<usize>,
}

impl TextSlice {
    /// The bytes `range` of `text`.
    ///
    /// # Panics
    /// If they are not all there.
    #[must_use]
    pub fn new(text: Arc<Text>, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= text.len(), "the text has the range");
        Self { text, range }
    }

    /// The text that it is a piece of.
    #[must_use]
    pub const fn text(&self) -> &Arc<Text> {
        &self.text
    }

    /// Where it is in [`Self::text`].
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

impl From<Text> for TextSlice {
    fn from(text: Text) -> Self {
        let range = 0..text.len();
        Self { text: Arc::new(text), range }
    }
}

impl From<Vec<u8>> for TextSlice {
    fn from(bytes: Vec<u8>) -> Self {
        Text::from(bytes).into()
    }
}

impl Deref for TextSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text[self.range.clone()]
    }
}

impl PartialEq for TextSlice {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for TextSlice {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_last_reader_is_gone() {
        let pool = TextPool::default();
        let mut buffer = pool.take(100);
        buffer.extend_from_slice(b"1\n2\n");
        let whole = TextSlice::from(pool.text(buffer));
        let piece = TextSlice::new(Arc::clone(whole.text()), 2..4);
        assert_eq!((&whole[..], &piece[..]), (&b"1\n2\n"[..], &b"2\n"[..]));
        drop(whole);
        assert!(pool.take(100).is_empty(), "it is still read");
        drop(piece);
        assert_eq!(pool.take(100), b"1\n2\n");
    }

    #[test]
    fn what_a_pool_keeps_is_bounded_and_fits() {
        let pool = TextPool::default();
        (0..2 * BUFFERS_MAX).for_each(|_| pool.give_back(Vec::with_capacity(10)));
        assert_eq!(pool.kept().len(), BUFFERS_MAX);
        assert!(pool.take(11).capacity() >= 11);
        assert_eq!(pool.kept().len(), BUFFERS_MAX);
        let pool = TextPool::new(1 << 20);
        pool.give_back(Vec::with_capacity(1000));
        pool.give_back(Vec::new());
        assert!(pool.take(1000 / SLACK - 1).capacity() < 1000);
        assert_eq!(pool.kept().len(), 1);
        pool.give_back(Vec::with_capacity(1 << 20));
        assert_eq!(pool.kept().len(), 1);
    }
}
