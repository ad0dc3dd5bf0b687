//! Tops against a naive model: sorted maps of text, one shard or several, short keys and long ones.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use super::carries::Carries;
use super::*;
use crate::aggregate::table::Counts;
use crate::aggregate::{Router, RowLists};
use crate::codec::{Decoder, Encoder};
use crate::record::{ColumnSet, Layout, Parser, TextSlice};
use crate::simd::Isa;

mod truth;

/// One record: source, interface, target, port, packets, bytes, whether it has data.
type Row = (u8, u8, u8, u16, u64, u64, bool);

fn line(row: Row) -> String {
    let (source, interface, target, port, packets, bytes, has_data) = row;
    // Interfaces beyond the first few have names that do not fit into an entry.
    let padding = "x".repeat(usize::from(interface / 4) * 20);
    let source = match source {
        0 => "-".to_owned(),
        1..=3 => format!("2001:db8::{source}"),
        4 => "255.255.255.255".to_owned(),
        _ => format!("10.0.0.{source}"),
    };
    let target = match target {
        0 => "-".to_owned(),
        1 => "2001:db8::1".to_owned(),
        _ => format!("10.9.9.{target}"),
    };
    let port = if port == 4 { "-".to_owned() } else { (port * 21845).to_string() };
    let status = if has_data { "OK" } else { "NODATA" };
    format!(
        "2 1 eni-{interface}{padding} {source} {target} 1 {port} 6 {packets} {bytes} 1 2 ACCEPT {status}\n"
    )
}

/// The answer by the most obvious means.
fn model(rows: &[Row], spec: &TopSpec) -> TopAnswer {
    let mut sums: BTreeMap<Vec<String>, (Sums, BTreeSet<String>)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.6) {
        let line = line(*row);
        let tokens: Vec<&str> = line.split_whitespace().collect();
        let layout = Layout::default_v2();
        let token = |slot: &Slot| {
            let Slot::Known(field) = slot else { unreachable!("known fields only") };
            tokens[layout.position(*field).unwrap()].to_owned()
        };
        let key: Vec<String> = spec.by.iter().map(token).collect();
        if key.iter().any(|value| value == "-") {
            continue;
        }
        let (sums, values) = sums.entry(key).or_default();
        sums.flows += 1;
        sums.packets += u128::from(row.4);
        sums.bytes += u128::from(row.5);
        if let Metric::Distinct(slot) = &spec.metric {
            values.extend(Some(token(slot)).filter(|value| value != "-"));
        }
    }
    let key_count = sums.len() as u64;
    let mut rows: Vec<(u128, TopRow)> = sums
        .into_iter()
        .map(|(key, (sums, values))| {
            let distinct = values.len() as u64;
            let (value, distinct) = match spec.metric {
                Metric::Bytes => (sums.bytes, None),
                Metric::Packets => (sums.packets, None),
                Metric::Flows => (u128::from(sums.flows), None),
                Metric::Distinct(_) => (u128::from(distinct), Some(distinct)),
            };
            (value, TopRow { window_start: None, key, sums, distinct, error_bound: 0 })
        })
        .filter(|(value, _)| *value >= spec.metric_min)
        .collect();
    let matching_count = rows.len() as u64;
    rows.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.key.cmp(&y.key)));
    let rows = rows.into_iter().take(spec.rows_max).map(|(_, row)| row).collect();
    TopAnswer { key_count, matching_count, rows, ..TopAnswer::default() }
}

/// The columns that `specs` read.
fn columns(specs: &[TopSpec]) -> ColumnSet {
    specs.iter().flat_map(TopSpec::slots).fold(ColumnSet::new(), |mut columns, slot| {
        columns.insert_slot(&slot);
        columns
    })
}

/// Shards that see rows in batches of a few.
struct Shards {
    parser: Parser,
    router: Router,
    sets: Vec<TopSet>,
}

impl Shards {
    fn new(specs: &[TopSpec], shard_count: usize, seed: u64, bytes_max: usize) -> Self {
        let sets = (0..shard_count).map(|_| TopSet::new(specs, seed, bytes_max)).collect();
        Self::of(specs, sets, seed)
    }

    fn of(specs: &[TopSpec], sets: Vec<TopSet>, router_seed: u64) -> Self {
        let parser = Parser::new(Isa::detect(), columns(specs));
        let router = Router::new(specs, false, sets.len(), router_seed);
        Self { parser, router, sets }
    }

    fn add(&mut self, rows: &[Row]) {
        let lines = rows.iter().copied().map(line);
        self.add_lines(&lines.collect::<Vec<String>>());
    }

    fn add_lines(&mut self, lines: &[String]) {
        let mut lists = RowLists::default();
        for some in lines.chunks(70) {
            let text = TextSlice::from(some.concat().into_bytes());
            let block = self.parser.parse(text.text(), text.range(), &Layout::default_v2());
            for batch in block.batches {
                let routed = self.router.route(batch, None, lists);
                for (index, set) in self.sets.iter_mut().enumerate() {
                    set.add(&routed, index);
                }
                (_, lists) = routed.into_parts();
            }
        }
    }

    fn answers(&self) -> Vec<TopAnswer> {
        TopSet::answers(&self.sets)
    }
}

fn saved(set: &TopSet) -> Vec<u8> {
    let mut out = Encoder::default();
    set.save(&mut out);
    out.into_bytes()
}

fn loaded(specs: &[TopSpec], bytes_max: usize, bytes: &[u8]) -> TopSet {
    let mut from = Decoder::new(bytes);
    let set = TopSet::load(specs, bytes_max, &mut from).unwrap();
    from.finish().unwrap();
    set
}

/// The answers of `shard_count` shards that see the rows in batches of a few.
fn answers(rows: &[Row], specs: &[TopSpec], shard_count: usize, seed: u64) -> Vec<TopAnswer> {
    let mut shards = Shards::new(specs, shard_count, seed, usize::MAX);
    shards.add(rows);
    shards.answers()
}

fn specs() -> impl Strategy<Value = TopSpec> {
    let fields = [
        FieldId::SrcAddr,
        FieldId::DstAddr,
        FieldId::DstPort,
        FieldId::InterfaceId,
        FieldId::Protocol,
        FieldId::Bytes,
    ];
    let by = prop::sample::subsequence(fields.to_vec(), 1..=4).prop_shuffle();
    let distinct = |field| Metric::Distinct(Slot::Known(field));
    let metric = prop::sample::select(vec![
        Metric::Bytes,
        Metric::Packets,
        Metric::Flows,
        distinct(FieldId::DstPort),
        distinct(FieldId::SrcAddr),
        distinct(FieldId::InterfaceId),
        distinct(FieldId::Packets),
    ]);
    (by, metric, 0_usize..6, 0_u128..4).prop_map(|(by, metric, rows_max, metric_min)| TopSpec {
        by: by.into_iter().map(Slot::Known).collect(),
        metric,
        rows_max,
        metric_min,
        window_seconds: None,
    })
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let bytes = prop::sample::select(vec![0, 1, u64::MAX]);
    let packets = prop::sample::select(vec![0, 1, u64::from(u32::MAX), u64::MAX]);
    let row = (0_u8..12, 0_u8..20, 0_u8..6, 0_u16..5, packets, bytes, prop::bool::weighted(0.9));
    prop::collection::vec(row, 0..200)
}

proptest! {
    #[test]
    fn tops_equal_the_naive_model(
        rows in rows(),
        specs in prop::collection::vec(specs(), 1..4),
        shard_count in 1_usize..6,
        seed: u64,
    ) {
        let expected: Vec<TopAnswer> = specs.iter().map(|spec| model(&rows, spec)).collect();
        prop_assert_eq!(answers(&rows, &specs, shard_count, seed), expected);
    }
}

proptest! {
    /// With entries leaving all the time, or never.
    #[test]
    fn what_was_loaded_goes_on_as_what_was_saved(
        rows in rows(),
        later in rows(),
        specs in prop::collection::vec(specs(), 1..4),
        shard_count in 1_usize..3,
        bytes_max in prop::sample::select(vec![usize::MAX, 40_000, 400_000, 1_500_000]),
        seed: u64,
    ) {
        let mut shards = Shards::new(&specs, shard_count, seed, bytes_max);
        shards.add(&rows);
        let sets = shards.sets.iter().map(|set| loaded(&specs, bytes_max, &saved(set))).collect();
        let mut after = Shards::of(&specs, sets, seed);
        prop_assert_eq!(shards.answers(), after.answers());
        shards.add(&later);
        after.add(&later);
        prop_assert_eq!(shards.answers(), after.answers());
        for (set, after) in shards.sets.iter().zip(&after.sets) {
            prop_assert_eq!(saved(set), saved(after));
        }
    }

    #[test]
    fn damaged_bytes_are_refused_or_harmless(
        rows in rows(),
        specs in prop::collection::vec(specs(), 1..3),
        bytes_max in prop::sample::select(vec![usize::MAX, 40_000]),
        places in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
        value: u8,
        length: prop::sample::Index,
    ) {
        let mut shards = Shards::new(&specs, 1, 1, bytes_max);
        shards.add(&rows);
        let bytes = saved(&shards.sets[0]);
        let short = &bytes[..length.index(bytes.len())];
        prop_assert!(TopSet::load(&specs, bytes_max, &mut Decoder::new(short)).is_err());
        // Most bytes are vacant slots, so those that say something are hit.
        let said: Vec<usize> = (0..bytes.len()).filter(|place| bytes[*place] != 0).collect();
        for place in places {
            let mut damaged = bytes.clone();
            damaged[said[place.index(said.len())]] = value;
            if let Ok(set) = TopSet::load(&specs, bytes_max, &mut Decoder::new(&damaged)) {
                let mut shards = Shards::of(&specs, vec![set], 1);
                shards.add(&rows);
                shards.answers();
            }
        }
    }

    #[test]
    fn sets_put_together_are_one_that_saw_all(
        rows in rows(),
        specs in prop::collection::vec(specs(), 1..4),
        set_count in 1_usize..5,
        deal in prop::collection::vec(0_usize..5, 200),
        seeds in prop::collection::vec(any::<u64>(), 5),
    ) {
        let mut parts = vec![Vec::new(); set_count];
        rows.iter().zip(deal).for_each(|(row, part)| parts[part % set_count].push(*row));
        let mut whole = TopSet::new(&specs, seeds[4], usize::MAX);
        for (part, seed) in parts.iter().zip(seeds) {
            let mut shards = Shards::new(&specs, 1, seed, usize::MAX);
            shards.add(part);
            whole.absorb(&shards.sets[0]);
        }
        let expected: Vec<TopAnswer> = specs.iter().map(|spec| model(&rows, spec)).collect();
        prop_assert_eq!(TopSet::answers(&[whole]), expected);
    }

    #[test]
    fn another_number_of_shards_goes_on_with_what_was_counted(
        rows in rows(),
        later in rows(),
        specs in prop::collection::vec(specs(), 1..4),
        before in 1_usize..4,
        now in 1_usize..4,
        seed: u64,
    ) {
        let mut shards = Shards::new(&specs, before, seed, usize::MAX);
        shards.add(&rows);
        let heir = |shard| Heir {
            shard,
            shard_count: now,
            router_seed: seed,
            takes_shared: shard == 0,
        };
        let sets = (0..now).map(|shard| {
            let mut set = TopSet::new(&specs, seed, usize::MAX);
            shards.sets.iter().for_each(|other| set.absorb_owned(other, &heir(shard)));
            set
        });
        let mut shards = Shards::of(&specs, sets.collect(), seed);
        shards.add(&later);
        let rows = [rows, later].concat();
        let expected: Vec<TopAnswer> = specs.iter().map(|spec| model(&rows, spec)).collect();
        prop_assert_eq!(shards.answers(), expected);
    }
}

/// Two of the default questions can be rolled up from a third; the answers must not show it.
#[test]
fn rolled_up_tops_equal_counted_ones() {
    let by = |fields: &[FieldId]| TopSpec {
        by: fields.iter().copied().map(Slot::Known).collect(),
        metric: Metric::Bytes,
        rows_max: 100,
        metric_min: 0,
        window_seconds: None,
    };
    let specs = [
        by(&[FieldId::SrcAddr]),
        by(&[FieldId::DstAddr]),
        by(&[FieldId::SrcAddr, FieldId::DstAddr]),
        by(&[FieldId::DstPort]),
    ];
    let plan = TopPlan::new(&specs);
    assert_eq!(
        plan.tops.iter().map(|top| top.base).collect::<Vec<_>>(),
        [Some(2), Some(2), None, None]
    );
    let rows: Vec<Row> = (0..4000_u32)
        .map(|i| {
            let (source, target) = ((i * 7 % 12) as u8, (i * 5 % 6) as u8);
            (source, 1, target, (i % 5) as u16, u64::from(i), u64::MAX - u64::from(i), i % 9 != 0)
        })
        .collect();
    for shard_count in 1..4 {
        let answers = answers(&rows, &specs, shard_count, 3);
        for (spec, answer) in specs.iter().zip(answers) {
            assert_eq!(answer, model(&rows, spec), "{:?}, {shard_count} shards", spec.by);
        }
    }
}

#[test]
fn flows_pass_32_bits() {
    let mut counts =
        Counts { flows: u32::MAX, packets: u32::MAX, bytes: u64::MAX, number: 1, mark: 0 };
    let mut carries = Carries::default();
    carries.add(&mut counts, u64::MAX, u64::MAX);
    let sums = carries.sums(&counts);
    assert_eq!(sums.flows, 1 << 32);
    assert_eq!(sums.packets, u128::from(u32::MAX) + u128::from(u64::MAX));
    assert_eq!(sums.bytes, 2 * u128::from(u64::MAX));
    carries.add_sums(
        &mut counts,
        &Sums { flows: u64::from(u32::MAX), packets: 1 << 100, bytes: 1 << 99 },
    );
    let more = carries.sums(&counts);
    assert_eq!(more.flows, sums.flows + u64::from(u32::MAX));
    assert_eq!((more.packets, more.bytes), (sums.packets + (1 << 100), sums.bytes + (1 << 99)));
}
