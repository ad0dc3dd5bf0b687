//! Sorting of contacts: by one integer each where both ends are IPv4, the few others by comparison.

use crate::simd;

/// How many items are asked for before they are moved.
const ITEMS_AHEAD: usize = 16;

/// Sorts; keeps its memory from pane to pane.
#[derive(Debug, Default)]
pub(super) struct Sorter {
    narrow: Vec<u128>,
    wide: Vec<u32>,
    order: Vec<u32>,
}

impl Sorter {
    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.narrow.capacity() * size_of::<u128>()
            + (self.wide.capacity() + self.order.capacity()) * size_of::<u32>()
    }

    /// Moves `items` to `sorted` in the order of `key`. `packed` says the same in the upper 96 bits of a
    /// number, for items that have such a number.
    pub(super) fn sort<T: Copy, K: Ord>(
        &mut self,
        items: &mut Vec<T>,
        sorted: &mut Vec<T>,
        packed: impl Fn(&T) -> Option<u128>,
        key: impl Fn(&T) -> K,
    ) {
        let Self { narrow, wide, order } = self;
        narrow.clear();
        wide.clear();
        order.clear();
        sorted.clear();
        narrow.reserve(items.len());
        order.reserve(items.len());
        sorted.reserve(items.len());
        for (position, item) in (0_u32..).zip(items.iter()) {
            match packed(item) {
                Some(packed) => narrow.push(packed | u128::from(position)),
                None => wide.push(position),
            }
        }
        let key = |position: u32| key(&items[position as usize]);
        narrow.sort_unstable();
        wide.sort_unstable_by_key(|position| key(*position));

        let mut wide = wide.iter().copied().peekable();
        for position in narrow.iter().copied().map(position_of) {
            while let Some(before) = wide.next_if(|wide| key(*wide) < key(position)) {
                order.push(before);
            }
            order.push(position);
        }
        order.extend(wide);
        sorted.extend(order.iter().enumerate().map(|(rank, position)| {
            if let Some(later) = order.get(rank + ITEMS_AHEAD) {
                simd::prefetch(items, *later as usize);
            }
            items[*position as usize]
        }));
        items.clear();
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the lower 32 bits are the position")]
const fn position_of(packed: u128) -> u32 {
    packed as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn comparing_says_the_same(items in prop::collection::vec(0_u32..500, 0..300)) {
            let mut expected = items.clone();
            expected.sort_unstable();
            let mut items = items;
            let mut sorted = Vec::new();
            // Some items have no number, wherever they belong.
            let packed = |item: &u32| (item % 7 > 2).then_some(u128::from(*item) << 32);
            Sorter::default().sort(&mut items, &mut sorted, packed, |item| *item);
            prop_assert_eq!(sorted, expected);
        }
    }
}
