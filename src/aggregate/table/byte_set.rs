//! A set of byte strings of any length: for what has no compact form.
//!
//! The strings stand one after the other in an arena, each behind its length, so that the arena alone is
//! the set: it is saved as it lies in memory, and the table of hashes is made anew.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::hash_table::{Entry, HashTable};

use crate::codec::{DecodeError, Decoder, Encoder};

/// Where a string stands in the arena.
#[derive(Clone, Copy, Debug)]
struct Stored {
    hash: u64,
    start: usize,
}

/// Bytes of the length before a string.
const LENGTH_BYTES: usize = size_of::<u32>();

/// Byte strings, each once, in one arena.
pub(in crate::aggregate) struct ByteSet {
    hasher: FixedState,
    table: HashTable<Stored>,
    arena: Vec<u8>,
}

impl ByteSet {
    pub(in crate::aggregate) fn new(seed: u64) -> Self {
        let hasher = FixedState::with_seed(seed);
        Self { hasher, table: HashTable::new(), arena: Vec::new() }
    }

    /// How many strings it holds.
    pub(in crate::aggregate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Takes `bytes` up if they are not in the set, and returns where they stand.
    pub(in crate::aggregate) fn insert(&mut self, bytes: &[u8]) -> u64 {
        let Self { hasher, table, arena } = self;
        let hash = hasher.hash_one(bytes);
        let is_same = |stored: &Stored| stored.hash == hash && at(arena, stored.start) == bytes;
        match table.entry(hash, is_same, |stored| stored.hash) {
            Entry::Occupied(stored) => stored.get().start as u64,
            Entry::Vacant(vacant) => {
                let length = u32::try_from(bytes.len()).expect("lines are far below 4 GiB");
                arena.extend_from_slice(&length.to_le_bytes());
                let start = arena.len();
                vacant.insert(Stored { hash, start });
                arena.extend_from_slice(bytes);
                start as u64
            }
        }
    }

    /// The string of `length` bytes at `place`.
    pub(in crate::aggregate) fn get(&self, place: u64, length: usize) -> &[u8] {
        let start = usize::try_from(place).expect("it was a length of the arena");
        &self.arena[start..start + length]
    }

    /// Whether a string of `length` bytes stands at `place`.
    pub(in crate::aggregate) fn has(&self, place: u64, length: usize) -> bool {
        let range = |start: usize| self.arena.get(start.checked_sub(LENGTH_BYTES)?..start);
        let before = usize::try_from(place).ok().and_then(range);
        let is_length =
            |bytes: &[u8]| u32::try_from(length).is_ok_and(|n| n.to_le_bytes() == bytes);
        before.is_some_and(is_length)
            && usize::try_from(place).is_ok_and(|start| start + length <= self.arena.len())
    }

    /// All strings, in the order in which they came.
    pub(in crate::aggregate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest: &[u8] = &self.arena;
        std::iter::from_fn(move || {
            let (length, after) = rest.split_first_chunk::<LENGTH_BYTES>()?;
            let (bytes, after) = after.split_at(u32::from_le_bytes(*length) as usize);
            rest = after;
            Some(bytes)
        })
    }

    /// Bytes of memory held.
    pub(in crate::aggregate) fn bytes(&self) -> usize {
        self.arena.capacity() + self.table.allocation_size()
    }

    /// Bytes of memory that it may hold before it grows twice. Hangs on what is in it alone.
    pub(in crate::aggregate) fn bytes_at_most(&self) -> usize {
        2 * self.arena.len() + 2 * self.len() * (size_of::<Stored>() + 1)
    }

    pub(in crate::aggregate) fn save(&self, out: &mut Encoder) {
        out.plain(&self.arena);
    }

    pub(in crate::aggregate) fn load(
        seed: u64,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let mut set = Self::new(seed);
        let mut rest = from.bytes()?;
        set.arena.reserve_exact(rest.len());
        while !rest.is_empty() {
            let (length, after) = rest.split_first_chunk().ok_or(DecodeError::Truncated)?;
            let length = u32::from_le_bytes(*length) as usize;
            let (bytes, after) = after.split_at_checked(length).ok_or(DecodeError::Truncated)?;
            set.insert(bytes);
            rest = after;
        }
        Ok(set)
    }
}

/// The string that begins at `start`.
fn at(arena: &[u8], start: usize) -> &[u8] {
    let (before, rest) = arena.split_at(start);
    let length = before.last_chunk().expect("a length stands before every string");
    &rest[..u32::from_le_bytes(*length) as usize]
}
