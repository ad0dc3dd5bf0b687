//! How each question gets its rows: which shard adds a row, and what need not be added at all.

use super::gather::{is_narrow, narrow_bits};
use super::{Metric, TopSpec};
use crate::record::{FieldId, FieldKind, Slot};

/// Bits of a key whose every value may have a place of its own.
const DENSE_BITS_MAX: u32 = 16;

/// A rule by which rows have owners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::aggregate) enum OwnerRule {
    /// By address pair, the same for both directions; for contacts too.
    Pair {
        /// Whether a question needs it.
        for_tops: bool,
    },
    /// By the key of a question.
    Key(TopSpec),
}

/// Which of a batch's rows a shard adds to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::aggregate) enum RowsOf {
    /// Those that it owns by a rule, so that each key is in one shard.
    Rule(usize),
    /// Any share: keys are in all shards, and sums are put together at the end.
    AnyShard,
}

/// How one question is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::aggregate) struct TopRule {
    pub(in crate::aggregate) spec: TopSpec,
    pub(in crate::aggregate) rows: RowsOf,
    /// The question whose sums hold this one's too, for rows that have its key.
    pub(in crate::aggregate) base: Option<usize>,
}

/// How the questions of a run are answered; the same in routers and shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::aggregate) struct TopPlan {
    pub(in crate::aggregate) tops: Vec<TopRule>,
    pub(in crate::aggregate) rules: Vec<OwnerRule>,
}

impl TopPlan {
    /// The place of [`OwnerRule::Pair`] in `rules`.
    pub(in crate::aggregate) const PAIR_RULE: usize = 0;

    pub(in crate::aggregate) fn new(specs: &[TopSpec]) -> Self {
        let mut rules = vec![OwnerRule::Pair { for_tops: false }];
        let mut tops: Vec<TopRule> = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let base = base_of(index, specs);
            let rows = if base.is_some() || has_few_keys(spec) {
                RowsOf::AnyShard
            } else if [FieldId::SrcAddr, FieldId::DstAddr]
                .iter()
                .all(|field| spec.by.contains(&Slot::Known(*field)))
            {
                rules[Self::PAIR_RULE] = OwnerRule::Pair { for_tops: true };
                RowsOf::Rule(Self::PAIR_RULE)
            } else {
                rules.push(OwnerRule::Key(spec.clone()));
                RowsOf::Rule(rules.len() - 1)
            };
            tops.push(TopRule { spec: spec.clone(), rows, base });
        }
        Self { tops, rules }
    }
}

impl TopPlan {
    /// A plan in which no row has an owner: all keys are in all shards.
    pub(in crate::aggregate) fn without_owners(specs: &[TopSpec]) -> Self {
        let Self { mut tops, mut rules } = Self::new(specs);
        tops.iter_mut().for_each(|top| top.rows = RowsOf::AnyShard);
        rules.truncate(1);
        Self { tops, rules }
    }
}

/// The question that holds the sums of question `index`: the one with the most fields, all of them typed
/// and together narrow, and like it without windows. It has none itself: a base of it would be longer.
fn base_of(index: usize, specs: &[TopSpec]) -> Option<usize> {
    let spec = &specs[index];
    let is_plain = |spec: &TopSpec| {
        spec.window_seconds.is_none() && !matches!(spec.metric, Metric::Distinct(_))
    };
    let is_base = |base: &TopSpec| {
        is_plain(base)
            && is_narrow(base)
            && base.by.len() > spec.by.len()
            && spec.by.iter().all(|slot| base.by.contains(slot))
    };
    let bases = specs.iter().enumerate().filter(|(_, base)| is_plain(spec) && is_base(base));
    bases.max_by_key(|(_, base)| base.by.len()).map(|(index, _)| index)
}

/// Whether the keys are few enough for a table in each shard: small numbers, or names that AWS gives
/// and that are bounded by the size of the network. Distinct values can't be put together.
fn has_few_keys(spec: &TopSpec) -> bool {
    let is_name = |slot: &Slot| slot.kind() == FieldKind::Text;
    spec.window_seconds.is_none()
        && !matches!(spec.metric, Metric::Distinct(_))
        && (is_dense(spec) || spec.by.iter().all(is_name))
}

/// Whether every possible key may have a place of its own.
pub(super) fn is_dense(spec: &TopSpec) -> bool {
    let bits = spec.by.iter().map(narrow_bits).sum::<Option<u32>>();
    spec.window_seconds.is_none() && bits.is_some_and(|bits| bits <= DENSE_BITS_MAX)
}
