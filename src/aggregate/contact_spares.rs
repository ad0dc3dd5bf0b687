//! Memory of closed panes, kept for the panes to come.
//!
//! Touching fresh memory costs more than filling it: the kernel clears every page. So the tables of a pane
//! come back here when the detect stage is through with it. The lock is taken some times a pane, never per
//! record. What is kept was in use at one time, so the limit on contacts bounds it too.

use std::sync::{Mutex, MutexGuard};

use super::blocks::Blocks;
use super::contact_index::ContactIndex;
use super::contact_slot::{Beside, ContactSlot};

/// The slots of a pane, in blocks of 8 MiB.
pub(super) type Slots = Blocks<ContactSlot, 17>;

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
    /// An empty block.
    pub(super) fn block(&self) -> Vec<ContactSlot> {
        let spare = self.parts().blocks.pop();
        spare.unwrap_or_else(Slots::new_block)
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
    pub(super) fn take_back(&self, slots: Slots, index: ContactIndex, mut beside: Beside) {
        let mut blocks = slots.into_blocks();
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
