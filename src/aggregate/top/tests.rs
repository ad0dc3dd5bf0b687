//! Tops against a naive model: sorted maps of text, one shard or several, short keys and long ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::aggregate::Router;
use crate::record::{ColumnSet, Layout, Parser, TextSlice};
use crate::simd::Isa;

/// One record: source, interface, port, packets, bytes, whether it has data.
type Row = (u8, u8, u16, u64, u64, bool);

fn line(row: Row) -> String {
    let (source, interface, port, packets, bytes, has_data) = row;
    // Interfaces beyond the first few have names that do not fit into an entry.
    let padding = "x".repeat(usize::from(interface / 4) * 20);
    let source = match source {
        0 => "-".to_owned(),
        1..=3 => format!("2001:db8::{source}"),
        _ => format!("10.0.0.{source}"),
    };
    let status = if has_data { "OK" } else { "NODATA" };
    format!(
        "2 1 eni-{interface}{padding} {source} 10.9.9.9 1 {port} 6 {packets} {bytes} 1 2 ACCEPT {status}\n"
    )
}

/// The answer by the most obvious means.
fn model(rows: &[Row], spec: &TopSpec) -> TopAnswer {
    let mut sums: BTreeMap<Vec<String>, (Sums, BTreeSet<String>)> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.5) {
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
        sums.packets += u128::from(row.3);
        sums.bytes += u128::from(row.4);
        if let Metric::Distinct(slot) = &spec.metric {
            values.insert(token(slot));
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
            (value, TopRow { window_start: None, key, sums, distinct })
        })
        .filter(|(value, _)| *value >= spec.metric_min)
        .collect();
    let matching_count = rows.len() as u64;
    rows.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.key.cmp(&y.key)));
    let rows = rows.into_iter().take(spec.rows_max).map(|(_, row)| row).collect();
    TopAnswer { key_count, matching_count, rows }
}

/// The answer of `shard_count` tables that see the rows in batches of a few.
fn answer(rows: &[Row], spec: &TopSpec, shard_count: usize, seed: u64) -> TopAnswer {
    let columns = spec.slots().fold(ColumnSet::new(), |mut columns, slot| {
        columns.insert_slot(&slot);
        columns
    });
    let mut parser = Parser::new(Isa::detect(), columns);
    let router = Router::new(Arc::from([spec.clone()]), false, shard_count, seed);
    let mut tables: Vec<TopTable> =
        (0..shard_count).map(|_| TopTable::new(spec.clone(), seed)).collect();
    for some in rows.chunks(7) {
        let text: String = some.iter().copied().map(line).collect();
        let text = TextSlice::from(text.into_bytes());
        let block = parser.parse(text.text(), text.range(), &Layout::default_v2());
        for batch in block.batches {
            let routed = router.route(batch, None);
            for (shard, table) in tables.iter_mut().enumerate() {
                table.add(&routed.batch, routed.top_rows(0, shard));
            }
        }
    }
    merge_answers(spec, tables.iter().map(TopTable::answer).collect())
}

fn specs() -> impl Strategy<Value = TopSpec> {
    let fields = [FieldId::SrcAddr, FieldId::DstPort, FieldId::InterfaceId];
    let by = prop::sample::subsequence(fields.to_vec(), 1..=3);
    let metric = prop::sample::select(vec![
        Metric::Bytes,
        Metric::Packets,
        Metric::Flows,
        Metric::Distinct(Slot::Known(FieldId::DstPort)),
        Metric::Distinct(Slot::Known(FieldId::InterfaceId)),
    ]);
    (by, metric, 0_usize..6, 0_u128..4).prop_map(|(by, metric, rows_max, metric_min)| TopSpec {
        by: by.into_iter().map(Slot::Known).collect(),
        metric,
        rows_max,
        metric_min,
        window_seconds: None,
    })
}

proptest! {
    #[test]
    fn tops_equal_the_naive_model(
        rows in prop::collection::vec(
            (0_u8..9, 0_u8..20, 0_u16..5, any::<u64>(), prop::sample::select(vec![0, 1, u64::MAX]), prop::bool::weighted(0.9)),
            0..120,
        ),
        spec in specs(),
        shard_count in 1_usize..5,
        seed: u64,
    ) {
        prop_assert_eq!(answer(&rows, &spec, shard_count, seed), model(&rows, &spec));
    }
}
