//! A set of byte strings of any length: for what has no compact form.

use std::hash::BuildHasher;

use foldhash::quality::FixedState;
use hashbrown::hash_table::{Entry, HashTable};

/// Where a string stands in the arena.
#[derive(Clone, Copy, Debug)]
struct Stored {
    hash: u64,
    start: usize,
    length: usize,
}

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

    /// Takes `bytes` up if they are not in the set, and returns where they stand.
    pub(in crate::aggregate) fn insert(&mut self, bytes: &[u8]) -> u64 {
        let Self { hasher, table, arena } = self;
        let hash = hasher.hash_one(bytes);
        let is_same = |stored: &Stored| {
            stored.hash == hash
                && stored.length == bytes.len()
                && arena[stored.start..].starts_with(bytes)
        };
        match table.entry(hash, is_same, |stored| stored.hash) {
            Entry::Occupied(stored) => stored.get().start as u64,
            Entry::Vacant(vacant) => {
                let start = arena.len();
                vacant.insert(Stored { hash, start, length: bytes.len() });
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

    /// All strings, in no order.
    pub(in crate::aggregate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.table.iter().map(|stored| &self.arena[stored.start..stored.start + stored.length])
    }
}
