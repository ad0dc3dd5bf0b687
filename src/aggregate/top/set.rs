//! All tops of one shard, and how the shards' tops become answers.
//!
//! A question whose key is part of another's (`srcaddr` of `srcaddr,dstaddr`) is rolled up from it at
//! the end: there are fewer pairs than records. Only rows that lack the larger key are added to its own
//! table. Questions with few keys are in all shards. For both, the keys of all shards are dealt out
//! anew by hash, and each part is answered by itself, in parallel.

use std::sync::Arc;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use super::gather::Gather;
use super::plan::{RowsOf, TopPlan, TopRule};
use super::sums::{Part, TopTable};
use super::{TopAnswer, TopSpec, merge_answers};
use crate::aggregate::RoutedBatch;

/// The tops of one shard.
pub struct TopSet {
    plan: Arc<TopPlan>,
    seed: u64,
    tables: Vec<TopTable>,
    gather: Gather,
}

impl TopSet {
    /// Empty tables; `seed` should differ from run to run.
    #[must_use]
    pub fn new(specs: &[TopSpec], seed: u64) -> Self {
        let plan = Arc::new(TopPlan::new(specs));
        let tables = specs.iter().map(|spec| TopTable::new(spec.clone(), seed)).collect();
        Self { plan, seed, tables, gather: Gather::default() }
    }

    /// Adds the rows that are this shard's.
    pub fn add(&mut self, routed: &RoutedBatch, shard: usize) {
        if self.tables.is_empty() {
            return;
        }
        let batch = &routed.batch;
        self.gather.start(batch);
        for (rule, table) in self.plan.tops.iter().zip(&mut self.tables) {
            let unless = rule.base.map(|base| &self.plan.tops[base].spec);
            table.add(batch, &routed.top_rows(rule.rows, shard), unless, &mut self.gather);
        }
    }

    /// The answers to the questions of `shards`, which were all made for the same ones. Runs on the
    /// current rayon pool.
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

fn answer(shards: &[TopSet], top: usize, rule: &TopRule, seed: u64) -> TopAnswer {
    let tables = || shards.iter().map(|shard| &shard.tables[top]);
    let parts: Vec<TopAnswer> = match (rule.rows, rule.base) {
        (RowsOf::Rule(_), _) => {
            shards.into_par_iter().map(|shard| shard.tables[top].answer()).collect()
        }
        (RowsOf::AnyShard, None) if shards.len() == 1 => tables().map(TopTable::answer).collect(),
        (RowsOf::AnyShard, base) => {
            let part_answer = |index| {
                let part = Part { index, count: shards.len() };
                let mut whole = TopTable::new(rule.spec.clone(), seed);
                tables().for_each(|table| whole.roll_up(table, part));
                for base in
                    base.into_iter().flat_map(|base| shards.iter().map(move |s| &s.tables[base]))
                {
                    whole.roll_up(base, part);
                }
                whole.answer()
            };
            (0..shards.len()).into_par_iter().map(part_answer).collect()
        }
    };
    merge_answers(&rule.spec, parts)
}
