//! Memory of closed panes, kept for the panes to come.
//!
//! Touching fresh memory costs more than filling it: the kernel clears every page. So the tables of a pane
//! come back here when the detect stage is through with it. The lock is taken some times a pane, never per
//! record. What is kept is bounded together with the panes that were handed over and are still alive.

use std::sync::{Mutex, MutexGuard};

use super::blocks::Blocks;
use super::contact_beside::{Beside, grown};
use super::contact_index::ContactIndex;
use super::contact_slot::ContactSlot;

/// The slots of a pane, in blocks of 2 MiB.
pub(super) type Slots = Blocks<ContactSlot, 15>;

/// Slots that the first block of a pane begins with where memory is short.
pub(super) const SMALL_BLOCK_LEN: usize = 64;

/// Below this many bytes for everything, blocks begin small.
const SMALL_BYTES: usize = 64 << 20;

/// Memory that a list of `count` slots takes, in bytes.
#[inline]
pub(super) const fn slot_bytes(count: usize, blocks_are_small: bool) -> usize {
    let last = count % Slots::BLOCK_LEN;
    let full = count - last;
    let last = match (last, blocks_are_small) {
        (0, _) => 0,
        (last, true) if last < SMALL_BLOCK_LEN => SMALL_BLOCK_LEN,
        (last, true) => grown(last),
        (_, false) => Slots::BLOCK_LEN,
    };
    (full + last) * size_of::<ContactSlot>()
}

/// Unused parts of contact sets.
#[derive(Debug)]
pub(super) struct Spares {
    /// For what is kept and what was handed over.
    bytes_max: usize,
    blocks_are_small: bool,
    parts: Mutex<Parts>,
}

#[derive(Debug, Default)]
struct Parts {
    blocks: Vec<Vec<ContactSlot>>,
    indexes: Vec<ContactIndex>,
    besides: Vec<Beside>,
    /// Of what is kept.
    bytes: usize,
    /// Of the panes that were handed over and are still alive.
    bytes_handed_over: usize,
}

impl Spares {
    /// Spares that keep up to `bytes_max` bytes less those of panes that were handed over, for tables that
    /// may take `table_bytes_max`.
    pub(super) fn new(bytes_max: usize, table_bytes_max: usize) -> Self {
        let blocks_are_small = table_bytes_max < SMALL_BYTES;
        Self { bytes_max, blocks_are_small, parts: Mutex::default() }
    }

    /// Whether blocks begin small and grow.
    pub(super) const fn blocks_are_small(&self) -> bool {
        self.blocks_are_small
    }

    /// An empty block.
    pub(super) fn block(&self) -> Vec<ContactSlot> {
        let spare = {
            let mut parts = self.parts();
            let spare = parts.blocks.pop();
            parts.bytes -= spare.as_ref().map_or(0, block_bytes);
            spare
        };
        spare.unwrap_or_else(|| {
            if self.blocks_are_small {
                Vec::with_capacity(SMALL_BLOCK_LEN)
            } else {
                Slots::new_block()
            }
        })
    }

    /// Takes back blocks without items. Those that began small are not worth keeping.
    pub(super) fn take_blocks(&self, blocks: Vec<Vec<ContactSlot>>) {
        let mut parts = self.parts();
        for block in blocks {
            debug_assert!(block.is_empty());
            let bytes = block_bytes(&block);
            if !self.blocks_are_small && parts.has_room(bytes, self.bytes_max) {
                parts.bytes += bytes;
                parts.blocks.push(block);
            }
        }
    }

    /// An empty index with room for `count`. One that is kept is used if it is of just the length that a
    /// fresh one would have, so that what panes take doesn't depend on when others were dropped.
    pub(super) fn index(&self, count: usize) -> ContactIndex {
        let spare = {
            let mut parts = self.parts();
            let bytes = ContactIndex::bytes_for(count);
            let position = parts.indexes.iter().position(|index| index.bytes() == bytes);
            position.map(|position| {
                parts.bytes -= bytes;
                parts.indexes.swap_remove(position)
            })
        };
        spare.map_or_else(
            || ContactIndex::for_count(count),
            |mut index| {
                index.clear();
                index
            },
        )
    }

    /// Empty lists.
    pub(super) fn beside(&self) -> Beside {
        let mut parts = self.parts();
        let beside = parts.besides.pop().unwrap_or_default();
        parts.bytes -= beside.bytes();
        beside
    }

    /// Says that a pane was handed over that takes so much, for which spares may have to go.
    pub(super) fn hand_over(&self, bytes: usize) {
        let mut parts = self.parts();
        parts.bytes_handed_over += bytes;
        while !parts.has_room(0, self.bytes_max) {
            let Parts { blocks, indexes, besides, .. } = &mut *parts;
            let freed = match (indexes.pop(), blocks.pop(), besides.pop()) {
                (None, None, None) => return,
                (index, block, beside) => {
                    index.map_or(0, |index| index.bytes())
                        + block.map_or(0, |block| block_bytes(&block))
                        + beside.map_or(0, |beside| beside.bytes())
                }
            };
            parts.bytes -= freed;
        }
    }

    /// Takes the parts of a set, of which `bytes_handed_over` were told before.
    pub(super) fn take_back(
        &self,
        slots: Slots,
        index: ContactIndex,
        mut beside: Beside,
        bytes_handed_over: usize,
    ) {
        let mut blocks = slots.into_blocks();
        blocks.iter_mut().for_each(Vec::clear);
        beside.clear();
        self.parts().bytes_handed_over -= bytes_handed_over;
        self.take_blocks(blocks);
        let mut parts = self.parts();
        // An index of another length may never be asked for again: the oldest ones leave.
        while parts.indexes.len() >= INDEXES_MAX {
            let oldest = parts.indexes.remove(0);
            parts.bytes -= oldest.bytes();
        }
        if parts.has_room(index.bytes(), self.bytes_max) {
            parts.bytes += index.bytes();
            parts.indexes.push(index);
        }
        // Lists that a flood made long are seldom needed again.
        if beside.bytes() <= self.bytes_max / 64 && parts.has_room(beside.bytes(), self.bytes_max) {
            parts.bytes += beside.bytes();
            parts.besides.push(beside);
        }
    }

    /// Memory kept for panes to come, and of the panes that were handed over and are still alive, in bytes.
    pub(super) fn bytes(&self) -> [usize; 2] {
        let parts = self.parts();
        [parts.bytes, parts.bytes_handed_over]
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().expect("nothing panics while it holds the lock")
    }
}

/// How many indexes are kept: of the panes that the detect stage may drop before the next one is opened.
const INDEXES_MAX: usize = 16;

impl Parts {
    const fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        self.bytes + self.bytes_handed_over + bytes <= bytes_max
    }
}

fn block_bytes(block: &Vec<ContactSlot>) -> usize {
    block.capacity() * size_of::<ContactSlot>()
}
