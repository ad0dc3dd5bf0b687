//! Top talkers: sums per key, any fields as key, any metric, the largest rows at the end.
//!
//! What is asked ([`TopSpec`]) and answered ([`TopAnswer`]). The sums are in `sums`, one table per top and
//! shard; keys are read off batches in `gather`; `plan` says which shard adds which rows, and `set` puts
//! shards together. Answers are exact as long as the tables are within their limit in memory. At the
//! limit the least important keys leave (`purge`), and what any key may have lost is known (`loss`).

mod absorb;
mod carries;
mod distinct;
mod gather;
mod loss;
mod plan;
mod purge;
mod ranking;
mod roll_up;
mod saved;
mod set;
mod sketch;
mod sums;

use std::cmp::Ordering;

pub use absorb::Heir;
pub(super) use gather::Gather;
pub(super) use plan::{OwnerRule, RowsOf, TopPlan};
pub use set::TopSet;

use super::totals::Sums;
use crate::record::{FieldId, Slot};
use crate::units::UnixSeconds;

/// What rows are ranked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Sum of `bytes`.
    Bytes,
    /// Sum of `packets`.
    Packets,
    /// Number of records.
    Flows,
    /// Number of distinct values of a field.
    Distinct(Slot),
}

impl Metric {
    /// The name in the command line and in reports: `bytes`, `distinct:dstport`.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Bytes => "bytes".to_owned(),
            Self::Packets => "packets".to_owned(),
            Self::Flows => "flows".to_owned(),
            Self::Distinct(slot) => format!("distinct:{}", slot.name()),
        }
    }

    /// What a key with these sums is ranked by.
    pub(super) fn value(&self, sums: &Sums, distinct: Option<u64>) -> u128 {
        match self {
            Self::Bytes => sums.bytes,
            Self::Packets => sums.packets,
            Self::Flows => u128::from(sums.flows),
            Self::Distinct(_) => u128::from(distinct.unwrap_or(0)),
        }
    }
}

/// A question for the largest keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopSpec {
    /// The fields that make the key.
    pub by: Vec<Slot>,
    /// What to rank by.
    pub metric: Metric,
    /// Rows wanted.
    pub rows_max: usize,
    /// Least value of the metric that a row must have.
    pub metric_min: u128,
    /// If set, keys are counted apart for each window of this length, by the record's `end`.
    pub window_seconds: Option<i64>,
}

impl TopSpec {
    /// The columns that the question reads.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        let sums = [FieldId::Bytes, FieldId::Packets, FieldId::LogStatus].map(Slot::Known);
        let distinct = match &self.metric {
            Metric::Distinct(slot) => Some(slot.clone()),
            _ => None,
        };
        let window = self.window_seconds.map(|_| Slot::Known(FieldId::End));
        self.by.iter().cloned().chain(sums).chain(distinct).chain(window)
    }
}

/// One row of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopRow {
    /// The window, if the question has windows.
    pub window_start: Option<UnixSeconds>,
    /// The key's values in the order of the question.
    pub key: Vec<String>,
    /// Sums over the key's records.
    pub sums: Sums,
    /// Distinct values, if that is the metric.
    pub distinct: Option<u64>,
    /// How much more the key may have of the metric than the row says; all sums are at least as great as
    /// here. If its distinct values are estimated it may be as much less too, and more in one case of 300.
    pub error_bound: u128,
}

/// The answer of one shard, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopAnswer {
    /// Keys seen, less those that left.
    pub key_count: u64,
    /// Keys that reach the least value asked for.
    pub matching_count: u64,
    /// Entries that left because memory was short. A key that came back and left again counts twice.
    pub evicted: u64,
    /// Keys whose distinct values are estimated, because memory was short.
    pub estimated_count: u64,
    /// The greatest error of a row, and the most of the metric that a key without entry may have.
    pub error_bound: u128,
    /// The largest rows, largest first, ties by key.
    pub rows: Vec<TopRow>,
}

impl TopAnswer {
    /// Whether nothing was lost or estimated.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        self.evicted == 0 && self.estimated_count == 0 && self.error_bound == 0
    }
}

/// A row with its rank; the greatest candidate is the one to leave first.
#[derive(PartialEq, Eq)]
struct Candidate {
    value: u128,
    row: TopRow,
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        fn key(row: &TopRow) -> (&[String], Option<UnixSeconds>) {
            (&row.key, row.window_start)
        }
        other.value.cmp(&self.value).then_with(|| key(&self.row).cmp(&key(&other.row)))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Puts the answers of shards together; each key is in one shard only.
#[must_use]
pub fn merge_answers(spec: &TopSpec, shards: Vec<TopAnswer>) -> TopAnswer {
    let mut merged = TopAnswer::default();
    let mut candidates = Vec::new();
    for shard in shards {
        merged.key_count += shard.key_count;
        merged.matching_count += shard.matching_count;
        merged.evicted += shard.evicted;
        merged.estimated_count += shard.estimated_count;
        merged.error_bound = merged.error_bound.max(shard.error_bound);
        candidates.extend(shard.rows.into_iter().map(|row| {
            let value = spec.metric.value(&row.sums, row.distinct);
            Candidate { value, row }
        }));
    }
    candidates.sort_unstable();
    candidates.truncate(spec.rows_max);
    merged.rows = candidates.into_iter().map(|candidate| candidate.row).collect();
    merged
}

#[cfg(test)]
mod tests;
