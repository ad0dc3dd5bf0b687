//! Windows against a naive model: lists of records, any order, any number of shards, restarts between.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::aggregate::top::{Metric, TopRow};
use crate::aggregate::totals::Sums;
use crate::aggregate::{Router, RowLists};
use crate::codec::{Decoder, Encoder};
use crate::record::{ColumnSet, FieldId, Layout, Parser, TextSlice};
use crate::simd::Isa;
use crate::units::{PaneIndex, UnixSeconds};

const PANE_SECONDS: i64 = 10;

/// One record; a source of 0 is absent.
#[derive(Clone, Copy, Debug)]
struct Flow {
    source: u16,
    target: u8,
    port: u16,
    bytes: u64,
    end: i64,
    has_data: bool,
}

impl Flow {
    fn line(self) -> String {
        let Self { source, target, port, bytes, end, has_data } = self;
        let source = match source {
            0 => "-".to_owned(),
            1 | 2 => format!("2001:db8::{source}"),
            _ => format!("10.0.{}.{}", source >> 8, source & 255),
        };
        let status = if has_data { "OK" } else { "NODATA" };
        format!(
            "2 1 eni-{target} {source} 10.9.9.{target} 1 {port} 6 1 {bytes} 1 {end} ACCEPT {status}\n"
        )
    }

    fn value_of(self, slot: &Slot) -> Option<String> {
        let line = self.line();
        let Slot::Known(field) = slot else { unreachable!("known fields only") };
        let place = Layout::default_v2().position(*field).unwrap();
        let token = line.split_whitespace().nth(place).unwrap();
        (token != "-").then(|| token.to_owned())
    }
}

/// What is compared of a window.
#[derive(Debug, PartialEq)]
struct Seen {
    name: String,
    span: (i64, i64),
    sums: Sums,
    key_count: u64,
    rows: Vec<(Vec<String>, Sums, Option<u64>)>,
    largest: u64,
}

fn seen(window: TalkerWindow) -> Seen {
    let row = |row: TopRow| (row.key, row.sums, row.distinct);
    Seen {
        name: window.spec.name,
        span: (window.start.0, window.end.0),
        sums: window.sums,
        key_count: window.answer.key_count,
        rows: window.answer.rows.into_iter().map(row).collect(),
        largest: window.sizes.unwrap().max,
    }
}

/// The windows by the most obvious means.
fn model(flows: &[Flow], specs: &[TalkerSpec]) -> Vec<Seen> {
    let flows: Vec<Flow> = flows.iter().copied().filter(|flow| flow.has_data).collect();
    let panes: BTreeSet<i64> = flows.iter().map(|flow| flow.end.div_euclid(PANE_SECONDS)).collect();
    let windows = panes.iter().flat_map(|last| specs.iter().map(move |spec| (*last, spec)));
    windows.map(|(last, spec)| window_of(&flows, last, spec)).collect()
}

fn window_of(flows: &[Flow], last: i64, spec: &TalkerSpec) -> Seen {
    let panes = (spec.window_seconds + PANE_SECONDS - 1) / PANE_SECONDS;
    let span = ((last + 1 - panes) * PANE_SECONDS, (last + 1) * PANE_SECONDS);
    let mut sums = Sums::default();
    let mut by_key: BTreeMap<Vec<String>, (Sums, BTreeSet<String>)> = BTreeMap::new();
    let mut largest = 0;
    for flow in flows.iter().filter(|flow| (span.0..span.1).contains(&flow.end)) {
        let add = |sums: &mut Sums| {
            sums.flows += 1;
            sums.packets += 1;
            sums.bytes += u128::from(flow.bytes);
        };
        add(&mut sums);
        largest = largest.max(flow.bytes);
        let key: Option<Vec<String>> = spec.top.by.iter().map(|slot| flow.value_of(slot)).collect();
        let Some(key) = key else { continue };
        let (sums, values) = by_key.entry(key).or_default();
        add(sums);
        if let Metric::Distinct(slot) = &spec.top.metric {
            values.extend(flow.value_of(slot));
        }
    }
    let key_count = by_key.len() as u64;
    let is_distinct = matches!(spec.top.metric, Metric::Distinct(_));
    let mut rows: Vec<_> = by_key
        .into_iter()
        .map(|(key, (sums, values))| (key, sums, is_distinct.then_some(values.len() as u64)))
        .collect();
    let value = |row: &(_, Sums, Option<u64>)| spec.top.metric.value(&row.1, row.2);
    rows.sort_by(|a, b| value(b).cmp(&value(a)).then_with(|| a.0.cmp(&b.0)));
    rows.truncate(spec.top.rows_max);
    Seen { name: spec.name.clone(), span, sums, key_count, rows, largest }
}

/// Shards, and who makes windows of what they close.
struct Run {
    parser: Parser,
    router: Router,
    shards: Vec<ShardTalkers>,
    windows: TalkerWindows,
    out: Vec<TalkerWindow>,
}

impl Run {
    fn new(specs: &[TalkerSpec], shard_count: usize, bytes_max: usize) -> Self {
        let plan = Arc::new(TalkerPlan::new(specs.to_vec(), PANE_SECONDS));
        let columns = specs.iter().flat_map(TalkerSpec::slots);
        let columns = columns.fold(ColumnSet::new(), |mut columns, slot| {
            columns.insert_slot(&slot);
            columns
        });
        let shard = |_| ShardTalkers::new(Arc::clone(&plan), 7, bytes_max);
        Self {
            parser: Parser::new(Isa::detect(), columns),
            router: Router::new(&[], false, shard_count, 7),
            shards: (0..shard_count).map(shard).collect(),
            windows: TalkerWindows::new(Arc::clone(&plan), 7, bytes_max),
            out: Vec::new(),
        }
    }

    fn add(&mut self, flows: &[Flow]) {
        for some in flows.chunks(70) {
            let lines: String = some.iter().map(|flow| flow.line()).collect();
            let text = TextSlice::from(lines.into_bytes());
            let block = self.parser.parse(text.text(), text.range(), &Layout::default_v2());
            for batch in block.batches {
                let routed = self.router.route(batch, None, RowLists::default());
                for (index, shard) in self.shards.iter_mut().enumerate() {
                    shard.add(&routed, index);
                }
            }
        }
    }

    fn close(&mut self, watermark: Option<i64>) {
        let mut panes: BTreeMap<PaneIndex, Vec<PaneTalkers>> = BTreeMap::new();
        for shard in &mut self.shards {
            let closed = match watermark {
                Some(watermark) => shard.close_until(UnixSeconds(watermark)),
                None => shard.close_all(),
            };
            closed.into_iter().for_each(|pane| panes.entry(pane.pane).or_default().push(pane));
        }
        panes.into_values().for_each(|shards| self.windows.on_pane(shards, &mut self.out));
    }

    /// Saves everything and goes on from it with another number of shards.
    fn restart(&mut self, shard_count: usize, bytes_max: usize) {
        let (plan, seed, _) = self.windows.parts();
        let mut saved = Encoder::default();
        self.windows.save(&mut saved);
        self.shards.iter().for_each(|shard| shard.save(&mut saved));
        let saved = saved.into_bytes();
        let mut from = Decoder::new(&saved);
        let windows = TalkerWindows::load(Arc::clone(&plan), seed, bytes_max, &mut from).unwrap();
        let mut load =
            || ShardTalkers::load(Arc::clone(&plan), seed, bytes_max, &mut from).unwrap();
        let shards: Vec<ShardTalkers> = (0..self.shards.len()).map(|_| load()).collect();
        from.finish().unwrap();
        self.windows = windows;
        self.shards = shards;
        if shard_count != self.shards.len() {
            let new = |_| ShardTalkers::new(Arc::clone(&plan), seed, bytes_max);
            let mut now: Vec<ShardTalkers> = (0..shard_count).map(new).collect();
            self.shards.iter().for_each(|old| now[0].absorb(old));
            self.shards = now;
            self.router = Router::new(&[], false, shard_count, 7);
        }
    }
}

fn flows() -> impl Strategy<Value = Vec<Flow>> {
    let flow = (
        0_u16..9,
        0_u8..5,
        0_u16..4,
        prop_oneof![0_u64..3, Just(1 << 40)],
        970_i64..1120,
        prop::bool::weighted(0.9),
    );
    let flow = flow.prop_map(|(source, target, port, bytes, end, has_data)| Flow {
        source,
        target,
        port,
        bytes,
        end,
        has_data,
    });
    prop::collection::vec(flow, 0..200)
}

fn specs() -> impl Strategy<Value = Vec<TalkerSpec>> {
    let fields = [FieldId::SrcAddr, FieldId::DstAddr, FieldId::DstPort, FieldId::InterfaceId];
    let by = prop::sample::subsequence(fields.to_vec(), 1..=3).prop_shuffle();
    let metric = prop::sample::select(vec![
        Metric::Bytes,
        Metric::Flows,
        Metric::Distinct(Slot::Known(FieldId::DstPort)),
        Metric::Distinct(Slot::Known(FieldId::InterfaceId)),
    ]);
    let spec = (by, metric, 1_usize..6, prop::sample::select(vec![1_i64, 10, 25, 30, 60]));
    let specs = prop::collection::vec(spec, 1..4);
    specs.prop_map(|specs| {
        let spec =
            |(index, (by, metric, rows_max, window_seconds)): (usize, (Vec<FieldId>, _, _, _))| {
                let by = by.into_iter().map(Slot::Known).collect();
                let top = TopSpec { by, metric, rows_max, metric_min: 0, window_seconds: None };
                TalkerSpec { name: format!("{index}"), top, window_seconds }
            };
        specs.into_iter().enumerate().map(spec).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn windows_equal_the_naive_model(
        flows in flows(),
        specs in specs(),
        shard_count in 1_usize..5,
    ) {
        let mut run = Run::new(&specs, shard_count, usize::MAX);
        run.add(&flows);
        run.close(None);
        prop_assert!(run.out.iter().all(|window| window.answer.is_exact()));
        prop_assert_eq!(run.windows.given(), run.out.len() as u64);
        let seen: Vec<Seen> = run.out.into_iter().map(seen).collect();
        prop_assert_eq!(seen, model(&flows, &specs));
    }

    /// Records come in order of time, panes close on the way, and a process takes over from another.
    #[test]
    fn windows_do_not_depend_on_when_panes_close_and_processes_end(
        mut flows in flows(),
        specs in specs(),
        shard_counts in (1_usize..4, 1_usize..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        flows.sort_by_key(|flow| flow.end);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(flows.len() + 1)).collect();
        cuts.sort_unstable();
        let mut run = Run::new(&specs, shard_counts.0, usize::MAX);
        let mut from = 0;
        for cut in cuts {
            run.add(&flows[from..cut]);
            from = cut;
            run.close(flows.get(cut).map(|next| next.end));
            run.restart(shard_counts.1, usize::MAX);
        }
        run.add(&flows[from..]);
        run.close(None);
        let seen: Vec<Seen> = run.out.into_iter().map(seen).collect();
        prop_assert_eq!(seen, model(&flows, &specs));
    }
}

/// Many senders, some of them heavy, over some panes; each pane's in another order than their size.
fn busy(count: u64, panes: i64) -> Vec<Flow> {
    let flow = |index: u64| {
        let source = u16::try_from(3 + index * 7919 % 6000).unwrap();
        let bytes = if source % 500 == 3 { 1_000_000 } else { 40 + index % 100 };
        let end = 1000 + i64::try_from(index).unwrap() % (panes * PANE_SECONDS);
        Flow { source, target: 1, port: source % 7, bytes, end, has_data: true }
    };
    (0..count).map(flow).collect()
}

fn check_bounded(metric: &Metric, shard_count: usize, bytes_max: usize, panes: i64) {
    let top = |rows_max| TopSpec {
        by: vec![Slot::Known(FieldId::SrcAddr)],
        metric: metric.clone(),
        rows_max,
        metric_min: 0,
        window_seconds: None,
    };
    let spec = |rows_max| TalkerSpec {
        name: "senders".to_owned(),
        top: top(rows_max),
        window_seconds: 3 * PANE_SECONDS,
    };
    let flows = busy(30_000, panes);
    let truth = model(&flows, &[spec(usize::MAX)]);
    let mut run = Run::new(&[spec(20)], shard_count, bytes_max);
    let (first, later) = flows.split_at(flows.len() / 2);
    run.add(first);
    run.restart(shard_count, bytes_max);
    run.add(later);
    run.close(None);
    assert_eq!(run.out.len(), truth.len());
    assert!(run.out.iter().any(|window| !window.answer.is_exact()), "memory was short");
    for (window, truth) in run.out.iter().zip(&truth) {
        assert_eq!((window.sums, window.end.0), (truth.sums, truth.span.1));
        let of_row = |(key, sums, distinct): &(Vec<String>, Sums, Option<u64>)| {
            (key.clone(), metric.value(sums, *distinct))
        };
        let mut truth: BTreeMap<Vec<String>, u128> = truth.rows.iter().map(of_row).collect();
        for row in &window.answer.rows {
            let true_value = truth.remove(&row.key).unwrap();
            let value = metric.value(&row.sums, row.distinct);
            assert!(row.error_bound <= window.answer.error_bound);
            assert!(value <= true_value && true_value <= value + row.error_bound, "{row:?}");
        }
        let last = window.answer.rows.last().map_or(0, |row| metric.value(&row.sums, row.distinct));
        let unlisted = truth.values().max().copied().unwrap_or(0);
        let bound = window.answer.error_bound;
        assert!(
            unlisted <= last + bound,
            "{unlisted} of a key that is not listed: {last} + {bound}"
        );
    }
}

#[test]
fn errors_are_within_their_bounds_where_memory_is_short() {
    check_bounded(&Metric::Bytes, 1, 1 << 18, 4);
    check_bounded(&Metric::Bytes, 3, 1 << 18, 4);
    check_bounded(&Metric::Flows, 2, 1 << 18, 12);
}

#[test]
fn panes_without_memory_add_their_traffic_to_the_bound() {
    check_bounded(&Metric::Bytes, 1, 2 << 20, 20);
    check_bounded(&Metric::Bytes, 2, 1, 20);
}

#[test]
fn late_rows_are_in_no_window() {
    let specs = [TalkerSpec {
        name: "senders".to_owned(),
        top: TopSpec {
            by: vec![Slot::Known(FieldId::SrcAddr)],
            metric: Metric::Bytes,
            rows_max: 5,
            metric_min: 0,
            window_seconds: None,
        },
        window_seconds: 20,
    }];
    let flow = |end: i64| Flow {
        source: 9,
        target: 1,
        port: 1,
        bytes: 5,
        end: 1000 + end,
        has_data: true,
    };
    let mut run = Run::new(&specs, 1, usize::MAX);
    run.add(&[flow(5)]);
    run.close(Some(1010));
    run.add(&[flow(9), flow(10)]);
    run.close(None);
    let flows: Vec<u64> = run.out.iter().map(|window| window.sums.flows).collect();
    assert_eq!((flows.as_slice(), run.shards[0].late_rows()), (&[1, 2][..], 1));
}
