//! All tops of one shard, and how the shards' tops become answers.
//!
//! A question whose key is part of another's (`srcaddr` of `srcaddr,dstaddr`) is rolled up from it at
//! the end: there are fewer pairs than records. Only rows that lack the larger key are added to its own
//! table. Questions with few keys are in all shards. For both, the keys of all shards are dealt out
//! anew by hash, and each part is answered by itself, in parallel. With a limit in memory there are so many
//! parts that those under way take no more than a half of it beside the tables.
//!
//! A limit in memory is dealt out to the tables: by weight, after those whose size is known.

use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::gather::Gather;
use super::plan::{RowsOf, TopPlan, TopRule, is_dense};
use super::purge::purge;
use super::roll_up::Part;
use super::sums::{More, TopTable};
use super::{Metric, TopAnswer, TopSpec, merge_answers};
use crate::aggregate::RoutedBatch;
use crate::aggregate::table::DenseTable;

/// The tops of one shard.
pub struct TopSet {
    pub(super) plan: Arc<TopPlan>,
    pub(super) seed: u64,
    pub(super) bytes_max: usize,
    pub(super) tables: Vec<TopTable>,
    pub(super) gather: Gather,
}

impl TopSet {
    /// Empty tables. `seed` should differ from run to run, but sets that are to be put together should
    /// have the same ([`Self::absorb`]). Tables that hold `bytes_max` bytes together let the least important
    /// keys go rather than grow; `usize::MAX` is no limit. Less than about 2 MiB for each question can't be
    /// kept to, because a batch must find room.
    #[must_use]
    pub fn new(specs: &[TopSpec], seed: u64, bytes_max: usize) -> Self {
        Self::of(Arc::new(TopPlan::new(specs)), seed, bytes_max)
    }

    /// Empty tables of questions that were planned for before.
    pub(in crate::aggregate) fn of(plan: Arc<TopPlan>, seed: u64, bytes_max: usize) -> Self {
        let tables = plan.tops.iter().zip(Self::shares(&plan, bytes_max));
        let new = |(top, share): (&TopRule, _)| TopTable::new(top.spec.clone(), seed, share);
        let tables = tables.map(new).collect();
        Self { plan, seed, bytes_max, tables, gather: Gather::default() }
    }

    /// Goes on with another limit; what there is no room for any more leaves.
    pub(in crate::aggregate) fn limit(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        for (table, share) in self.tables.iter_mut().zip(Self::shares(&self.plan, bytes_max)) {
            table.bytes_max = share;
        }
        self.purge_to_limit();
    }

    /// How many bytes each table may hold.
    pub(super) fn shares(plan: &TopPlan, bytes_max: usize) -> Vec<usize> {
        if bytes_max == usize::MAX {
            return vec![usize::MAX; plan.tops.len()];
        }
        let fixed = plan.tops.iter().filter(|top| has_fixed_size(top)).count();
        let rest = bytes_max.saturating_sub(fixed * DenseTable::BYTES);
        let weights: Vec<usize> = (0..plan.tops.len()).map(|top| weight_of(plan, top)).collect();
        let all = weights.iter().sum::<usize>().max(1);
        let share = |(top, weight): (&TopRule, usize)| {
            if has_fixed_size(top) { usize::MAX } else { rest / all * weight }
        };
        plan.tops.iter().zip(weights).map(share).collect()
    }

    /// Bytes of memory that the tables hold. What is reserved and was never touched is not counted.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tables.iter().map(TopTable::bytes).sum()
    }

    /// About as many bytes as they take when they are saved.
    #[must_use]
    pub fn saved_bytes(&self) -> usize {
        self.tables.iter().map(TopTable::saved_bytes).sum()
    }

    /// Adds the rows that are this shard's.
    pub fn add(&mut self, routed: &RoutedBatch, shard: usize) {
        self.add_some(routed, shard, &[]);
    }

    /// The same without the rows whose bit is set in `passed_over`, a word for each 64 rows.
    pub(in crate::aggregate) fn add_some(
        &mut self,
        routed: &RoutedBatch,
        shard: usize,
        passed_over: &[u64],
    ) {
        if self.tables.is_empty() {
            return;
        }
        let batch = &routed.batch;
        let Self { plan, tables, gather, .. } = self;
        gather.start(batch);
        gather.pass_over(passed_over);
        for (index, rule) in plan.tops.iter().enumerate() {
            if !tables[index].counts_in(batch) {
                continue;
            }
            let unless = rule.base.map(|base| &plan.tops[base].spec);
            let rows = routed.top_rows(rule.rows, shard);
            tables[index].read(batch, &rows, unless, gather);
            let keys = gather.keys();
            let more = More { narrow: keys.narrow.len(), wide: keys.wide.len() };
            if tables[index].is_full_with(more) {
                purge(tables, plan, index, more);
                // Long keys stand elsewhere now.
                tables[index].read(batch, &rows, unless, gather);
            }
            tables[index].add(batch, gather);
        }
    }

    /// The answers to the questions of `shards`, which were all made for the same ones. Runs on the
    /// current rayon pool, and takes at most half as much memory again as the shards may hold.
    ///
    /// # Panics
    /// If there is no shard.
    #[must_use]
    pub fn answers(shards: &[Self]) -> Vec<TopAnswer> {
        let first = shards.first().expect("there is a shard");
        let rules = first.plan.tops.iter().enumerate();
        rules.map(|(top, rule)| answer(shards, top, rule, first.seed)).collect()
    }
}

/// Whether the table takes what it takes, whatever comes.
fn has_fixed_size(top: &TopRule) -> bool {
    is_dense(&top.spec) && !matches!(top.spec.metric, Metric::Distinct(_))
}

/// A question's part of the memory: more where values hang on keys and where others are rolled up from it,
/// which get what leaves it; less where keys are few.
fn weight_of(plan: &TopPlan, index: usize) -> usize {
    let top = &plan.tops[index];
    let is_base = plan.tops.iter().any(|other| other.base == Some(index));
    let is_distinct = matches!(top.spec.metric, Metric::Distinct(_));
    match (has_fixed_size(top), is_base || is_distinct) {
        (true, _) => 0,
        (false, true) => 8,
        (false, false) if top.rows == RowsOf::AnyShard && top.base.is_none() => 1,
        (false, false) => 4,
    }
}

/// Into how many parts the keys of a question are dealt out, which are in all shards.
fn part_count(shards: &[TopSet], top: usize, rule: &TopRule) -> usize {
    if has_fixed_size(rule) {
        return shards.len();
    }
    let bytes_max: usize =
        shards.iter().map(|shard| shard.bytes_max).fold(0, usize::saturating_add);
    let room = bytes_max / 2 / rayon::current_num_threads();
    let table_bytes =
        |table: usize| -> usize { shards.iter().map(|shard| shard.tables[table].bytes()).sum() };
    // A table that has just grown is half empty, and the one that it grew from may be there still.
    let bytes = 3 * (table_bytes(top) + rule.base.map_or(0, table_bytes));
    let parts = bytes.div_ceil(room.max(1)).min(PARTS_MAX);
    parts.max(shards.len())
}

/// Each part is a walk through the tables, so there are not more; a limit that would take more is one that
/// no batch can be added within.
const PARTS_MAX: usize = 64;

fn answer(shards: &[TopSet], top: usize, rule: &TopRule, seed: u64) -> TopAnswer {
    let tables = || shards.iter().map(|shard| &shard.tables[top]);
    let parts: Vec<TopAnswer> = match (rule.rows, rule.base) {
        (RowsOf::Rule(_), _) => {
            shards.into_par_iter().map(|shard| shard.tables[top].answer()).collect()
        }
        (RowsOf::AnyShard, None) if shards.len() == 1 => tables().map(TopTable::answer).collect(),
        (RowsOf::AnyShard, base) => {
            let count = part_count(shards, top, rule);
            let part_answer = |index| {
                let part = Part { index, count };
                let mut whole = TopTable::new(rule.spec.clone(), seed, usize::MAX);
                tables().for_each(|table| whole.roll_up(table, part));
                for base in
                    base.into_iter().flat_map(|base| shards.iter().map(move |s| &s.tables[base]))
                {
                    whole.roll_up(base, part);
                }
                whole.answer()
            };
            (0..count).into_par_iter().map(part_answer).collect()
        }
    };
    merge_answers(&rule.spec, parts)
}
