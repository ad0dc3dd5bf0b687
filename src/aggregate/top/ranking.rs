//! The largest rows of a table.

use std::collections::BinaryHeap;

use super::distinct::{DistinctValues, Tally};
use super::gather::pack_narrow;
use super::sums::{AnyKey, TopTable};
use super::{Candidate, TopAnswer, TopRow};
use crate::aggregate::key::{unpack, unpack_window};
use crate::aggregate::table::Counts;
use crate::aggregate::totals::Sums;

impl TopTable {
    /// The largest rows of this shard.
    pub(super) fn answer(&self) -> TopAnswer {
        let mut ranking = Ranking {
            table: self,
            tally: self.distinct.as_ref().map(|values| values.tally(self.last_number)),
            matching_count: 0,
            kept: BinaryHeap::new(),
        };
        self.narrow.for_each(|key, counts| ranking.offer(AnyKey::Narrow(key), counts));
        self.wide.iter().for_each(|(key, counts)| ranking.offer(AnyKey::Wide(key), counts));
        let Ranking { matching_count, kept, .. } = ranking;
        let rows = kept.into_sorted_vec().into_iter().map(|candidate| candidate.row);
        let rows: Vec<TopRow> = rows.collect();
        let of_rows = rows.iter().map(|row| row.error_bound).max().unwrap_or(0);
        TopAnswer {
            key_count: self.len() as u64,
            matching_count,
            evicted: self.loss.evicted(),
            estimated_count: self.distinct.as_ref().map_or(0, DistinctValues::sketch_count).into(),
            error_bound: self.loss.of_missing().max(of_rows),
            rows,
        }
    }

    fn row(&self, key: AnyKey<'_>, sums: Sums) -> TopRow {
        let mut narrow = Vec::new();
        let packed = match key {
            AnyKey::Narrow(key) => {
                pack_narrow(key, &self.spec.by, &mut narrow);
                &narrow
            }
            AnyKey::Wide(key) => self.packed(key),
        };
        let (window_start, packed) = if self.spec.window_seconds.is_some() {
            let (start, rest) = unpack_window(packed);
            (Some(start), rest)
        } else {
            (None, packed)
        };
        let key = unpack(packed, &self.spec.by);
        TopRow { window_start, key, sums, distinct: None, error_bound: 0 }
    }
}

/// The largest rows so far; the greatest of the heap is the first to leave.
struct Ranking<'a> {
    table: &'a TopTable,
    /// Of values, if that is the metric.
    tally: Option<Tally>,
    matching_count: u64,
    kept: BinaryHeap<Candidate>,
}

impl Ranking<'_> {
    fn offer(&mut self, key: AnyKey<'_>, counts: &Counts) {
        let spec = &self.table.spec;
        let sums = self.table.carries.sums(counts);
        let count = self.tally.as_ref().map(|tally| tally.of(counts));
        let distinct = count.map(|count| count.values);
        let value = spec.metric.value(&sums, distinct);
        if value < spec.metric_min {
            return;
        }
        self.matching_count += 1;
        let is_full = self.kept.len() == spec.rows_max;
        if spec.rows_max == 0
            || is_full && self.kept.peek().is_some_and(|worst| worst.value > value)
        {
            return;
        }
        let estimate_error = count.map_or(0, |count| u128::from(count.error));
        let error_bound = self.table.loss.of(counts.number) + estimate_error;
        let row = TopRow { distinct, error_bound, ..self.table.row(key, sums) };
        self.kept.push(Candidate { value, row });
        if is_full {
            self.kept.pop();
        }
    }
}
