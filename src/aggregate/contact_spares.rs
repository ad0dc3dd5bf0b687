//! Memory of closed panes, kept for the panes to come.
//!
//! Touching fresh memory costs more than filling it: the kernel clears every page. So the tables of a pane
//! come back here when the detect stage is through with it. The lock is taken some times a pane, never per
//! record. What is kept was in use at one time, so the limit on contacts bounds it too.

use std::sync::{Mutex, MutexGuard};

use super::contact_index::ContactIndex;
use super::contact_set::Beside;
use super::contact_slot::ContactSlot;
use crate::simd;

/// Slots of a block: 8 MiB.
pub(super) const BLOCK_SLOTS: usize = 1 << 17;

/// Unused parts of contact sets.
#[derive(Debug, Default)]
pub(super) struct Spares(Mutex<Parts>);

#[derive(Debug, Default)]
struct Parts {
    blocks: Vec<Vec<ContactSlot>>,
    indexes: Vec<ContactIndex>,
    besides: Vec<Beside>,
}

impl Spares {
    /// An empty block with room for [`BLOCK_SLOTS`].
    pub(super) fn block(&self) -> Vec<ContactSlot> {
        let spare = self.parts().blocks.pop();
        spare.unwrap_or_else(|| {
            let mut block = Vec::with_capacity(BLOCK_SLOTS);
            simd::advise_huge_pages(block.spare_capacity_mut());
            block
        })
    }

    /// An empty index; a fresh one has room for `count`.
    pub(super) fn index(&self, count: usize) -> ContactIndex {
        let spare = self.parts().indexes.pop();
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
        self.parts().besides.pop().unwrap_or_default()
    }

    /// Takes the parts of a set.
    pub(super) fn take_back(
        &self,
        mut blocks: Vec<Vec<ContactSlot>>,
        index: ContactIndex,
        mut beside: Beside,
    ) {
        blocks.iter_mut().for_each(Vec::clear);
        beside.clear();
        let mut parts = self.parts();
        parts.blocks.append(&mut blocks);
        parts.indexes.push(index);
        parts.besides.push(beside);
    }

    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}
