//! Tables against maps of the standard library: random keys, keys that share slots, growth.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// A key made of a number, for each kind of table.
fn wide(number: u64) -> WideKey {
    WideKey::new(&number.to_be_bytes(), || unreachable!("eight bytes are short"))
}

/// Numbers whose hashes end in the same ten bits, as an attacker who knew the seed would choose them.
fn colliding(hash: impl Fn(u64) -> u64, ending: u64) -> impl Iterator<Item = u64> {
    (1..).filter(move |number| hash(*number) & 0x3ff == ending)
}

/// Adds the numbers in batches and compares with a map.
fn check<K: Key>(table: &mut impl Upsert<K>, key: impl Fn(u64) -> K, numbers: &[u64]) -> u32 {
    let mut model: HashMap<u64, (u64, u32)> = HashMap::new();
    let mut seen: HashMap<u64, u32> = HashMap::new();
    let (mut hashes, mut last_number) = (Vec::new(), 0);
    for batch in numbers.chunks(1000) {
        let keys: Vec<K> = batch.iter().map(|number| key(*number)).collect();
        let mut updates = 0;
        table.upsert_all(&keys, &mut hashes, &mut last_number, |index, counts| {
            assert_eq!(index, updates);
            updates += 1;
            let number = *seen.entry(batch[index]).or_insert(counts.number);
            assert_eq!(number, counts.number, "a key keeps its number");
            counts.bytes += batch[index];
            counts.flows += 1;
            let (bytes, flows) = model.entry(batch[index]).or_default();
            *bytes += batch[index];
            *flows += 1;
            assert_eq!((counts.bytes, counts.flows), (*bytes, *flows));
        });
        assert_eq!(updates, batch.len());
    }
    assert_eq!(last_number as usize, model.len());
    last_number
}

fn check_all(numbers: &[u64], seed: u64) {
    let mixer = Mixer::with_seed(seed);
    let mut narrow = SumTable::new(mixer);
    let key_count = check(&mut narrow, |number| number, numbers);
    assert_eq!(narrow.len(), key_count as usize);
    let keys: BTreeSet<u64> = narrow.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, numbers.iter().copied().collect());

    let mut table = SumTable::new(mixer);
    check(&mut table, wide, numbers);
    assert_eq!(table.iter().count(), key_count as usize);

    let mut dense = DenseTable::default();
    let small: Vec<u64> = numbers.iter().map(|number| number & 0xffff).collect();
    let small_count = check(&mut dense, |number| number, &small);
    assert_eq!(dense.iter().count(), small_count as usize);

    let mut set = NumberSet::new(mixer);
    let nonzero: Vec<u64> = numbers.iter().copied().filter(|number| *number != 0).collect();
    nonzero.chunks(777).for_each(|numbers| set.insert_all(numbers));
    let expected: BTreeSet<u64> = nonzero.iter().copied().collect();
    assert_eq!(set.len(), expected.len());
    assert_eq!(set.iter().collect::<BTreeSet<u64>>(), expected);
}

proptest! {
    #[test]
    fn tables_equal_maps(
        numbers in prop::collection::vec(prop_oneof![0_u64..50, 0_u64..5000, any::<u64>()], 0..5000),
        seed: u64,
    ) {
        check_all(&numbers, seed);
    }
}

#[test]
fn keys_that_share_a_slot_are_told_apart() {
    let mixer = Mixer::with_seed(5);
    for ending in [0, 1, 0x200, 0x3fe, 0x3ff] {
        let narrow: Vec<u64> = colliding(|n| mixer.word(n), ending).take(600).collect();
        check_all(&narrow, 5);
        let wide_keys = colliding(|n| wide(n).hash(&mixer), ending);
        check_all(&wide_keys.take(600).collect::<Vec<u64>>(), 5);
    }
}

/// Past the sizes at which tables begin to reserve memory, and leave what they reserved.
#[test]
fn large_tables_keep_their_keys() {
    let numbers: Vec<u64> =
        (0..1_500_000_u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
    check_all(&numbers, 11);
}
