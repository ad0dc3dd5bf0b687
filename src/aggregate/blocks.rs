//! A list that grows without moving what it has: blocks of a fixed number of items.
//!
//! Doubling a vector of many megabytes touches as much fresh memory again, and copies; both cost more than
//! what the tables do with their items.

use crate::simd;

/// A list of `T` in blocks of `1 << BITS`.
#[derive(Debug)]
pub(crate) struct Blocks<T, const BITS: u32> {
    /// Every block but the last is full; none is empty.
    blocks: Vec<Vec<T>>,
}

impl<T, const BITS: u32> Default for Blocks<T, BITS> {
    fn default() -> Self {
        Self { blocks: Vec::new() }
    }
}

impl<T, const BITS: u32> Blocks<T, BITS> {
    /// Items of a block.
    pub(crate) const BLOCK_LEN: usize = 1 << BITS;

    /// A block of its own, empty.
    pub(crate) fn new_block() -> Vec<T> {
        let mut block = Vec::with_capacity(Self::BLOCK_LEN);
        simd::advise_huge_pages(block.spare_capacity_mut());
        block
    }

    /// Number of items.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self.blocks.split_last() {
            Some((last, full)) => full.len() * Self::BLOCK_LEN + last.len(),
            None => 0,
        }
    }

    /// Appends an item; `block` makes a block if the last one is full.
    #[inline]
    pub(crate) fn push(&mut self, item: T, block: impl FnOnce() -> Vec<T>) {
        match self.blocks.last_mut() {
            Some(last) if last.len() < Self::BLOCK_LEN => last.push(item),
            _ => {
                let mut block = block();
                block.push(item);
                self.blocks.push(block);
            }
        }
    }

    /// Takes the last item.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let last = self.blocks.last_mut()?;
        let item = last.pop();
        if last.is_empty() {
            self.blocks.pop();
        }
        item
    }

    /// Removes an item; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, position: usize) -> T {
        let last = self.pop().expect("there is an item to remove");
        if position == self.len() { last } else { std::mem::replace(self.get_mut(position), last) }
    }

    /// The item at `position`.
    #[inline]
    pub(crate) fn get(&self, position: usize) -> &T {
        &self.blocks[position >> BITS][position & (Self::BLOCK_LEN - 1)]
    }

    /// The item at `position`.
    #[inline]
    pub(crate) fn get_mut(&mut self, position: usize) -> &mut T {
        &mut self.blocks[position >> BITS][position & (Self::BLOCK_LEN - 1)]
    }

    /// Asks for the cache line of an item.
    #[inline]
    pub(crate) fn prefetch(&self, position: usize) {
        if let Some(block) = self.blocks.get(position >> BITS) {
            simd::prefetch(block, position & (Self::BLOCK_LEN - 1));
        }
    }

    /// Asks for the cache line of an item that will be the `ahead`-th to be appended.
    #[inline]
    pub(crate) fn prefetch_free(&self, ahead: usize) {
        if let Some(block) = self.blocks.last() {
            simd::prefetch(block, block.len() + ahead);
        }
    }

    /// The items in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.blocks.iter().flatten()
    }

    /// The blocks, each a part of the items in order.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[T]> {
        self.blocks.iter().map(Vec::as_slice)
    }

    /// Memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.capacity() * size_of::<T>()).sum()
    }

    /// Appends a block that is not empty to full ones.
    pub(crate) fn push_block(&mut self, block: Vec<T>) {
        assert!(!block.is_empty() && block.len() <= Self::BLOCK_LEN);
        assert!(self.blocks.last().is_none_or(|last| last.len() == Self::BLOCK_LEN));
        self.blocks.push(block);
    }

    /// Makes of each item, by its position, what it becomes, if it stays; in order. Takes the blocks that are
    /// not needed any more, without their items.
    pub(crate) fn retain(
        &mut self,
        mut become_it: impl FnMut(usize, &T) -> Option<T>,
    ) -> Vec<Vec<T>> {
        let mut kept = 0;
        for position in 0..self.len() {
            if let Some(item) = become_it(position, self.get(position)) {
                *self.get_mut(kept) = item;
                kept += 1;
            }
        }
        let mut unused = self.blocks.split_off(kept.div_ceil(Self::BLOCK_LEN));
        unused.iter_mut().for_each(Vec::clear);
        if let Some(last) = self.blocks.last_mut() {
            last.truncate(kept - (kept - 1) / Self::BLOCK_LEN * Self::BLOCK_LEN);
        }
        unused
    }

    /// Gives back memory of the last block, so that it has the length that it gets by doubling from `len_min`.
    pub(crate) fn shrink(&mut self, len_min: usize) {
        if let Some(last) = self.blocks.last_mut() {
            last.shrink_to(last.len().next_power_of_two().max(len_min));
        }
    }

    /// Takes the blocks.
    pub(crate) fn into_blocks(self) -> Vec<Vec<T>> {
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_vector_says_the_same(steps in prop::collection::vec((0_u8..4, 0_usize..100), 0..200)) {
            let mut model: Vec<usize> = Vec::new();
            let mut blocks: Blocks<usize, 2> = Blocks::default();
            for (step, value) in steps {
                if step > 0 || model.is_empty() {
                    model.push(value);
                    blocks.push(value, Blocks::<usize, 2>::new_block);
                } else {
                    let position = value % model.len();
                    prop_assert_eq!(blocks.swap_remove(position), model.swap_remove(position));
                }
                prop_assert_eq!(blocks.len(), model.len());
                prop_assert!(blocks.iter().eq(&model));
                prop_assert!((0..model.len()).all(|i| *blocks.get(i) == model[i]));
            }
            model.retain(|value| value % 3 > 0);
            let unused = blocks.retain(|_, value| (value % 3 > 0).then_some(*value));
            prop_assert!(unused.iter().all(Vec::is_empty));
            prop_assert_eq!(blocks.len(), model.len());
            prop_assert!(blocks.iter().eq(&model));
            prop_assert!(blocks.parts().flatten().eq(&model));
        }
    }
}
