//! How fast keys are added to tables, and records to the default tops.

mod lines;

use std::collections::HashMap as StdMap;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use flowgauge::aggregate::{
    Counts, DenseTable, Metric, Mixer, NumberSet, Router, RowLists, SumTable, TOTALS_COLUMNS,
    TopSet, TopSpec, Totals, Upsert,
};
use flowgauge::codec::Encoder;
use flowgauge::record::{ColumnSet, FieldId, FlowBatch, Layout, Parser, Slot, TextSlice};
use flowgauge::simd::Isa;
use foldhash::quality::FixedState;
use hashbrown::HashMap;

/// Upserts of one pass.
const UPSERTS: usize = 2_000_000;

/// Keys of a batch, as many as a batch of records has rows.
const BATCH: usize = 4096;

fn main() {
    divan::main();
}

/// The last step of splitmix64: a different number for each number.
fn spread(number: u64) -> u64 {
    let z = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Draws from `distinct` keys, each key in them if there are enough draws.
fn draws(distinct: u64) -> Vec<u64> {
    (0..UPSERTS as u64).map(|i| spread(1 + spread(i ^ 0x5eed) % distinct)).collect()
}

fn filled(distinct: u64) -> (SumTable<u64>, u32) {
    let mut table = SumTable::new(Mixer::with_seed(1));
    let mut last_number = 0;
    let keys: Vec<u64> = (1..=distinct).map(spread).collect();
    add(&mut table, &keys, BATCH, &mut last_number);
    (table, last_number)
}

fn add(table: &mut impl Upsert<u64>, keys: &[u64], batch: usize, last_number: &mut u32) {
    let mut hashes = Vec::new();
    for keys in keys.chunks(batch) {
        table.upsert_all(keys, &mut hashes, last_number, |index, counts| {
            counts.flows = counts.flows.wrapping_add(1);
            counts.bytes = counts.bytes.wrapping_add(keys[index]);
        });
    }
}

/// That a table counts the draws as a map does.
fn check<'a>(keys: &[u64], counted: impl Iterator<Item = (u64, &'a Counts)>) {
    let mut model: StdMap<u64, (u32, u64)> = StdMap::new();
    for key in keys {
        let (flows, bytes) = model.entry(*key).or_default();
        (*flows, *bytes) = (*flows + 1, bytes.wrapping_add(*key));
    }
    let mut key_count = 0;
    for (key, counts) in counted {
        assert_eq!(model.get(&key), Some(&(counts.flows, counts.bytes)));
        key_count += 1;
    }
    assert_eq!(key_count, model.len());
}

/// Known keys, out of order.
#[divan::bench(args = [20_000, 1_000_000, 10_000_000], sample_count = 10, sample_size = 1)]
fn upserts(bencher: Bencher, distinct: u64) {
    batches_of(bencher, distinct, BATCH);
}

/// The same, in smaller batches, a million keys.
#[divan::bench(args = [16, 64, 512, 4096], sample_count = 10, sample_size = 1)]
fn upserts_by_batch(bencher: Bencher, batch: usize) {
    batches_of(bencher, 1_000_000, batch);
}

fn batches_of(bencher: Bencher, distinct: u64, batch: usize) {
    let keys = draws(distinct);
    let (mut table, mut last_number) = (SumTable::new(Mixer::with_seed(1)), 0);
    add(&mut table, &keys, batch, &mut last_number);
    check(&keys, table.iter().map(|(key, counts)| (*key, counts)));
    let (mut table, mut last_number) = filled(distinct);
    bencher
        .counter(ItemsCount::new(keys.len()))
        .bench_local(|| add(&mut table, &keys, batch, &mut last_number));
}

/// What a map of the library does with the same keys.
#[divan::bench(args = [20_000, 1_000_000, 10_000_000], sample_count = 10, sample_size = 1)]
fn upserts_hashbrown(bencher: Bencher, distinct: u64) {
    let keys = draws(distinct);
    let mut map: HashMap<u64, Counts, FixedState> = HashMap::with_hasher(FixedState::with_seed(1));
    for key in 1..=distinct {
        map.insert(spread(key), Counts::default());
    }
    bencher.counter(ItemsCount::new(keys.len())).bench_local(|| {
        for key in &keys {
            let counts = map.entry(*key).or_default();
            counts.flows = counts.flows.wrapping_add(1);
            counts.bytes = counts.bytes.wrapping_add(*key);
        }
    });
}

/// From nothing to so many keys, the memory's first touch counted.
#[divan::bench(args = [20_000, 1_000_000, 10_000_000], sample_count = 5, sample_size = 1)]
fn filling(bencher: Bencher, distinct: u64) {
    bencher.counter(ItemsCount::new(distinct)).bench_local(|| filled(distinct));
}

/// From nothing to so many keys in a map of the library.
#[divan::bench(args = [20_000, 1_000_000, 10_000_000], sample_count = 5, sample_size = 1)]
fn filling_hashbrown(bencher: Bencher, distinct: u64) {
    bencher.counter(ItemsCount::new(distinct)).bench_local(|| {
        let mut map: HashMap<u64, Counts, FixedState> =
            HashMap::with_hasher(FixedState::with_seed(1));
        for key in 1..=distinct {
            map.entry(spread(key)).or_default().flows += 1;
        }
        map
    });
}

/// Keys of 16 bits, each with a place of its own.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn upserts_dense(bencher: Bencher) {
    let keys: Vec<u64> = draws(1 << 20).iter().map(|key| key & 0xffff).collect();
    let (mut table, mut last_number) = (DenseTable::default(), 0);
    add(&mut table, &keys, BATCH, &mut last_number);
    check(&keys, table.iter());
    bencher
        .counter(ItemsCount::new(keys.len()))
        .bench_local(|| add(&mut table, &keys, BATCH, &mut last_number));
}

/// Numbers that a set holds.
#[divan::bench(args = [20_000, 1_000_000, 10_000_000], sample_count = 10, sample_size = 1)]
fn distinct_values(bencher: Bencher, distinct: u64) {
    let keys = draws(distinct);
    let mut set = NumberSet::new(Mixer::with_seed(1));
    keys.chunks(BATCH).for_each(|keys| set.insert_all(keys));
    let expected: std::collections::HashSet<u64> = keys.iter().copied().collect();
    assert_eq!(set.len(), expected.len());
    bencher
        .counter(ItemsCount::new(keys.len()))
        .bench_local(|| keys.chunks(BATCH).for_each(|keys| set.insert_all(keys)));
}

/// The five tops of `analyze`, and their batches.
fn default_tops() -> (Vec<TopSpec>, Vec<FlowBatch>) {
    use FieldId::{DstAddr, DstPort, InterfaceId, SrcAddr};
    let by: [&[FieldId]; 5] =
        [&[SrcAddr], &[DstAddr], &[SrcAddr, DstAddr], &[DstPort], &[InterfaceId]];
    let tops: Vec<TopSpec> = by
        .into_iter()
        .map(|by| TopSpec {
            by: by.iter().copied().map(Slot::Known).collect(),
            metric: Metric::Bytes,
            rows_max: 10,
            metric_min: 0,
            window_seconds: None,
        })
        .collect();
    let mut columns: ColumnSet = TOTALS_COLUMNS.into_iter().collect();
    tops.iter().flat_map(TopSpec::slots).for_each(|slot| columns.insert_slot(&slot));
    let mut parser = Parser::new(Isa::detect(), columns);
    let text = TextSlice::from(lines::version_2(1 << 20));
    (tops, parser.parse(text.text(), text.range(), &Layout::default_v2()).batches)
}

/// All five in one shard, or routed to two of them; nanoseconds for both shards together.
#[divan::bench(args = [1, 2])]
fn tops(bencher: Bencher, shard_count: usize) {
    let (specs, mut batches) = default_tops();
    let rows: usize = batches.iter().map(FlowBatch::rows).sum();
    let mut router = Router::new(&specs, false, shard_count, 1);
    let mut shards: Vec<TopSet> =
        (0..shard_count).map(|_| TopSet::new(&specs, 1, usize::MAX)).collect();
    let mut lists = RowLists::default();
    let mut pass = |shards: &mut Vec<TopSet>| {
        for batch in &mut batches {
            let filler = FlowBatch::new(Arc::clone(batch.layout()), &ColumnSet::new());
            let mut routed =
                router.route(std::mem::replace(batch, filler), None, std::mem::take(&mut lists));
            shards.iter_mut().enumerate().for_each(|(index, shard)| shard.add(&routed, index));
            // Before it is cleared.
            std::mem::swap(batch, &mut routed.batch);
            (_, lists) = routed.into_parts();
        }
    };
    pass(&mut shards);
    for (spec, answer) in specs.iter().zip(TopSet::answers(&shards)) {
        assert_eq!(answer.key_count, key_count(spec), "{:?}", spec.by);
    }
    bencher.counter(ItemsCount::new(rows)).bench_local(|| pass(&mut shards));
}

/// Sources that nobody has heard of for a long time, in tables of 32 MiB together: one top, or all five
/// with the pairs rolled down.
#[divan::bench(args = [1, 5], sample_count = 5, sample_size = 1)]
fn flood(bencher: Bencher, top_count: usize) {
    let (mut specs, _) = default_tops();
    specs.truncate(top_count);
    let mut columns: ColumnSet = TOTALS_COLUMNS.into_iter().collect();
    specs.iter().flat_map(TopSpec::slots).for_each(|slot| columns.insert_slot(&slot));
    let line = |i: u64| {
        let [a, b, c, d, ..] = spread(i).to_le_bytes();
        format!("2 1 eni-1 {a}.{b}.{c}.{d} 10.0.0.{} 9 80 6 1 40 1 2 REJECT OK\n", i % 200)
    };
    let text: String = (0..4_000_000).map(line).collect();
    let text = TextSlice::from(text.into_bytes());
    let mut parser = Parser::new(Isa::detect(), columns);
    let mut batches = parser.parse(text.text(), text.range(), &Layout::default_v2()).batches;
    let rows: usize = batches.iter().map(FlowBatch::rows).sum();
    let mut router = Router::new(&specs, false, 1, 1);
    let mut set = TopSet::new(&specs, 1, 32 << 20);
    let mut lists = RowLists::default();
    let mut pass = |set: &mut TopSet| {
        for batch in &mut batches {
            let filler = FlowBatch::new(Arc::clone(batch.layout()), &ColumnSet::new());
            let mut routed =
                router.route(std::mem::replace(batch, filler), None, std::mem::take(&mut lists));
            set.add(&routed, 0);
            // Before it is cleared.
            std::mem::swap(batch, &mut routed.batch);
            (_, lists) = routed.into_parts();
        }
    };
    pass(&mut set);
    bencher.counter(ItemsCount::new(rows)).bench_local(|| pass(&mut set));
    assert!(set.bytes() <= 32 << 20);
    let answers = TopSet::answers(&[set]);
    assert!(!answers[0].is_exact());
}

/// The five tops' tables into segments that were used before.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn saving(bencher: Bencher) {
    let (specs, mut batches) = default_tops();
    let mut router = Router::new(&specs, false, 1, 1);
    let mut set = TopSet::new(&specs, 1, usize::MAX);
    let mut lists = RowLists::default();
    for batch in batches.drain(..) {
        let routed = router.route(batch, None, std::mem::take(&mut lists));
        set.add(&routed, 0);
        (_, lists) = routed.into_parts();
    }
    let mut spares = Vec::new();
    let mut save = |set: &TopSet| {
        let mut out = Encoder::with_spares(std::mem::take(&mut spares));
        set.save(&mut out);
        let length = out.len();
        spares = out.into_segments();
        length
    };
    save(&set);
    let length = save(&set);
    bencher.counter(BytesCount::new(length)).bench_local(|| save(&set));
}

/// How many keys the lines have, by splitting them.
fn key_count(spec: &TopSpec) -> u64 {
    let text = String::from_utf8(lines::version_2(1 << 20)).expect("the lines are ASCII");
    let layout = Layout::default_v2();
    let places: Vec<usize> = spec
        .by
        .iter()
        .filter_map(|slot| match slot {
            Slot::Known(field) => layout.position(*field),
            Slot::Unknown(_) => None,
        })
        .collect();
    let keys = text.lines().filter(|line| line.ends_with(" OK")).map(|line| {
        let tokens: Vec<&str> = line.split(' ').collect();
        places.iter().map(|place| tokens[*place].to_owned()).collect::<Vec<String>>()
    });
    keys.collect::<std::collections::HashSet<_>>().len() as u64
}

/// Totals of the same lines.
#[divan::bench]
fn totals(bencher: Bencher) {
    let (_, batches) = default_tops();
    let rows: usize = batches.iter().map(FlowBatch::rows).sum();
    let mut totals = Totals::default();
    batches.iter().for_each(|batch| totals.add_batch(batch, None));
    assert_eq!(totals.records(), rows as u64);
    bencher
        .counter(ItemsCount::new(rows))
        .bench_local(|| batches.iter().for_each(|batch| totals.add_batch(batch, None)));
}
