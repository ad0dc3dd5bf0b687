//! Keys with one attempt, the oldest first: what comes last leaves last.
//!
//! ```text
//! order:  oldest block ─► … ─► newest block        each of BLOCK_LEN entries; a free block is used again
//! ```
//!
//! An entry stays where it was put, so that its position can stand in an index. One whose key gets a second
//! attempt is marked and its room comes free with that of its neighbours.

use std::collections::VecDeque;

use zerocopy::IntoBytes;

use super::once::Once;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::simd;

const BITS: u32 = 14;

/// Entries of a block.
const BLOCK_LEN: usize = 1 << BITS;

/// The list.
#[derive(Debug, Default)]
pub(super) struct OnceList {
    /// By number; those that are not in `order` are empty.
    blocks: Vec<Vec<Once>>,
    /// Numbers of blocks that have entries, the oldest first.
    order: VecDeque<usize>,
    free: Vec<usize>,
    /// How many entries of the oldest block have left.
    left: usize,
    len: usize,
}

impl OnceList {
    /// Entries that take room; marked ones count.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Appends an entry and returns its position.
    pub(super) fn push(&mut self, once: Once) -> usize {
        let newest = self.order.back().copied();
        let number = match newest {
            Some(number) if self.blocks[number].len() < BLOCK_LEN => number,
            _ => self.begin_block(),
        };
        self.blocks[number].push(once);
        self.len += 1;
        number << BITS | (self.blocks[number].len() - 1)
    }

    fn begin_block(&mut self) -> usize {
        let number = self.free.pop().unwrap_or_else(|| {
            self.blocks.push(Vec::new());
            self.blocks.len() - 1
        });
        if self.blocks[number].capacity() == 0 {
            let mut block = Vec::with_capacity(BLOCK_LEN);
            simd::advise_huge_pages(block.spare_capacity_mut());
            self.blocks[number] = block;
        }
        self.order.push_back(number);
        number
    }

    /// The entry at a position, unless it is marked.
    #[inline]
    pub(super) fn get(&self, position: usize) -> Option<&Once> {
        let once = &self.blocks[position >> BITS][position & (BLOCK_LEN - 1)];
        (!once.is_gone()).then_some(once)
    }

    /// Marks an entry: its key is elsewhere.
    pub(super) fn mark_gone(&mut self, position: usize) {
        self.blocks[position >> BITS][position & (BLOCK_LEN - 1)].become_gone();
    }

    /// Asks for the cache line of an entry.
    #[inline]
    pub(super) fn prefetch(&self, position: usize) {
        if let Some(block) = self.blocks.get(position >> BITS) {
            simd::prefetch(block, position & (BLOCK_LEN - 1));
        }
    }

    /// The oldest entries that lie side by side, with the position of the first.
    pub(super) fn oldest(&self) -> (usize, &[Once]) {
        let Some(number) = self.order.front() else { return (0, &[]) };
        (number << BITS | self.left, &self.blocks[*number][self.left..])
    }

    /// Removes the oldest `count` entries, of those that [`Self::oldest`] shows.
    pub(super) fn remove_oldest(&mut self, count: usize) {
        let Some(number) = self.order.front().copied() else { return };
        self.left += count;
        self.len -= count;
        if self.left == self.blocks[number].len() {
            self.order.pop_front();
            self.left = 0;
            if self.free.is_empty() {
                self.blocks[number].clear();
            } else {
                // One block to spare is enough.
                self.blocks[number] = Vec::new();
            }
            self.free.push(number);
        }
    }

    /// The entries in order, each with its position, marked ones left out.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Once)> {
        let of_block = |(rank, number): (usize, &usize)| {
            let from = if rank == 0 { self.left } else { 0 };
            let base = number << BITS;
            let entries = self.blocks[*number].iter().enumerate().skip(from);
            entries.map(move |(offset, once)| (base | offset, once))
        };
        let all = self.order.iter().enumerate().flat_map(of_block);
        all.filter(|(_, once)| !once.is_gone())
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.capacity() * size_of::<Once>()).sum()
    }

    /// Saves the list; marked entries too, because room is counted with them.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.count(self.len);
        for (rank, number) in self.order.iter().enumerate() {
            let from = if rank == 0 { self.left } else { 0 };
            out.raw(self.blocks[*number][from..].as_bytes());
        }
    }

    /// Loads what [`Self::save`] wrote.
    pub(super) fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("keys with one attempt", 1..=1)?;
        let mut list = Self::default();
        let mut oldest = 0;
        for once in from.plain::<Once>()? {
            let pane = once.last_pane().0;
            if (once.outcome().is_none() && !once.is_gone()) || pane < oldest {
                return Err(DecodeError::Invalid("attempt"));
            }
            oldest = pane;
            list.push(once);
        }
        Ok(list)
    }
}
