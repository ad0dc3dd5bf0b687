//! Which shard owns which row: a seeded hash of the key, decided by the parse worker.
//!
//! Rows are listed once per *rule of ownership*, not per question: contacts and all questions whose key
//! has both addresses share the list by address pair. Questions with few keys, and those that are
//! rolled up from another, need no list: each shard takes a share of the rows, and the shares are put
//! together at the end (`top::TopPlan` decides). With one shard no key is hashed and no list is made.
//!
//! Only row numbers are handed on. A shard has to read the columns anyway, and to hash a key again
//! takes about a nanosecond, less than to write hashes in one core's cache and to read them in another's.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::FixedState;

use super::table::{Key, Mixer};
use super::top::{Gather, OwnerRule, RowsOf, TopPlan, TopSpec};
use crate::net::Addr;
use crate::record::{FieldId, FlowBatch, Slot};

/// Rows of a batch by question and shard.
#[derive(Debug)]
pub struct RoutedBatch {
    /// The records.
    pub batch: FlowBatch,
    /// Rows that the job's filter keeps; `None` if it keeps all.
    kept_rows: Option<Vec<u32>>,
    lists: RowLists,
    /// Rows behind the watermark, in order; they belong to no window.
    late_rows: Vec<u32>,
}

/// The rows of each shard, by rule of ownership; with its buffers, to be used again.
#[derive(Debug, Default)]
pub struct RowLists {
    /// How many shards the rows are for; 0 before the first batch.
    shard_count: usize,
    by_rule: Vec<ShardRows>,
}

/// The rows of one rule, those of the first shard first.
#[derive(Debug, Default)]
struct ShardRows {
    rows: Vec<u32>,
    /// Where each shard's rows end.
    ends: Vec<usize>,
}

impl ShardRows {
    fn of(&self, shard: usize) -> &[u32] {
        let start = if shard == 0 { 0 } else { self.ends[shard - 1] };
        &self.rows[start..self.ends[shard]]
    }
}

impl RoutedBatch {
    /// Rows behind the watermark, in order.
    pub(super) fn late_rows(&self) -> &[u32] {
        &self.late_rows
    }

    /// Marks rows (in order) as late.
    pub fn set_late_rows(&mut self, rows: Vec<u32>) {
        self.late_rows = rows;
    }

    /// The rows that the job's filter keeps.
    pub fn kept_rows(&self) -> Rows<'_> {
        match &self.kept_rows {
            Some(rows) => Rows::Listed(rows.iter()),
            None => Rows::All(0..self.batch.rows()),
        }
    }

    /// The rows of a question that `shard` is to add.
    pub(super) fn top_rows(&self, rows: RowsOf, shard: usize) -> Rows<'_> {
        match rows {
            RowsOf::Rule(rule) => self.rule_rows(rule, shard),
            RowsOf::AnyShard => self.share(shard),
        }
    }

    /// The rows whose address pair `shard` owns, and its share of those without addresses; not the late ones.
    pub fn contact_rows(&self, shard: usize) -> impl Iterator<Item = usize> {
        let is_late =
            |row: usize| self.late_rows.binary_search_by(|late| (*late as usize).cmp(&row)).is_ok();
        self.rule_rows(TopPlan::PAIR_RULE, shard).filter(move |row| !is_late(*row))
    }

    /// The batch and the buffers, for use by other records.
    #[must_use]
    pub fn into_parts(mut self) -> (FlowBatch, RowLists) {
        self.batch.clear();
        (self.batch, self.lists)
    }

    fn rule_rows(&self, rule: usize, shard: usize) -> Rows<'_> {
        match self.lists.shard_count {
            0 | 1 => self.kept_rows(),
            _ => Rows::Listed(self.lists.by_rule[rule].of(shard).iter()),
        }
    }

    /// A part of the rows that is no other shard's.
    fn share(&self, shard: usize) -> Rows<'_> {
        let shard_count = self.lists.shard_count.max(1);
        let share = |rows: usize| rows * shard / shard_count..rows * (shard + 1) / shard_count;
        match &self.kept_rows {
            Some(rows) => Rows::Listed(rows[share(rows.len())].iter()),
            None => Rows::All(share(self.batch.rows())),
        }
    }
}

/// Row numbers of a batch, ascending.
pub enum Rows<'a> {
    /// Every row.
    All(std::ops::Range<usize>),
    /// These rows.
    Listed(std::slice::Iter<'a, u32>),
}

impl Iterator for Rows<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        match self {
            Self::All(range) => range.next(),
            Self::Listed(rows) => rows.next().map(|row| *row as usize),
        }
    }
}

/// Decides the owners of rows; one per parse worker.
pub struct Router {
    plan: Arc<TopPlan>,
    with_contacts: bool,
    shard_count: usize,
    seed: u64,
    mixer: Mixer,
    gather: Gather,
    owners: Vec<u16>,
}

impl Clone for Router {
    /// A router with buffers of its own.
    fn clone(&self) -> Self {
        let (plan, mixer) = (Arc::clone(&self.plan), self.mixer);
        let (gather, owners) = (Gather::default(), Vec::new());
        Self { plan, mixer, gather, owners, ..*self }
    }
}

/// Told from the seed of tables, so that the keys of a shard don't share a part of its slots.
pub(super) const OWNER_SEED: u64 = 0x6f77_6e65_7273_6869;

/// The mark of a row without owner.
const NOBODY: u16 = u16::MAX;

impl Router {
    /// A router over `shard_count` shards; every worker of a run uses the same seed.
    ///
    /// # Panics
    /// If there is no shard, or 65,535 of them.
    #[must_use]
    pub fn new(tops: &[TopSpec], with_contacts: bool, shard_count: usize, seed: u64) -> Self {
        assert!(shard_count > 0 && shard_count < usize::from(NOBODY));
        Self {
            plan: Arc::new(TopPlan::new(tops)),
            with_contacts,
            shard_count,
            seed,
            mixer: Mixer::with_seed(seed ^ OWNER_SEED),
            gather: Gather::default(),
            owners: Vec::new(),
        }
    }

    /// Lists the owners of the batch's rows in `lists`, which may come from a batch before.
    #[must_use]
    pub fn route(
        &mut self,
        batch: FlowBatch,
        kept_rows: Option<Vec<u32>>,
        lists: RowLists,
    ) -> RoutedBatch {
        let mut routed = RoutedBatch { batch, kept_rows, lists, late_rows: Vec::new() };
        let mut lists = std::mem::take(&mut routed.lists);
        lists.shard_count = self.shard_count;
        if self.shard_count > 1 {
            let plan = Arc::clone(&self.plan);
            lists.by_rule.resize_with(plan.rules.len(), ShardRows::default);
            let has_keys = plan.rules.iter().any(|rule| matches!(rule, OwnerRule::Key(_)));
            if has_keys {
                self.gather.start(&routed.batch);
            }
            for (rule, list) in plan.rules.iter().zip(&mut lists.by_rule) {
                match rule {
                    OwnerRule::Pair { for_tops } if *for_tops || self.with_contacts => {
                        self.own_pairs(&routed);
                    }
                    OwnerRule::Pair { .. } => self.owners.clear(),
                    OwnerRule::Key(spec) => self.own_keys(&routed, spec),
                }
                sort_by_owner(&self.owners, self.shard_count, list);
            }
        }
        routed.lists = lists;
        routed
    }

    fn own_pairs(&mut self, routed: &RoutedBatch) {
        let batch = &routed.batch;
        self.owners.clear();
        let (Some(sources), Some(targets)) =
            (batch.addrs(FieldId::SrcAddr), batch.addrs(FieldId::DstAddr))
        else {
            return;
        };
        self.owners.resize(batch.rows(), NOBODY);
        // NODATA and SKIPDATA have no addresses, but an interface, which any shard may count.
        let interfaces = batch.texts(&Slot::Known(FieldId::InterfaceId));
        let hasher = FixedState::with_seed(self.seed ^ OWNER_SEED);
        let owner_of_silence = |row: usize| {
            let interface = interfaces.and_then(|interfaces| interfaces.get(row));
            interface.map_or(NOBODY, |name| owner(hasher.hash_one(name), self.shard_count))
        };
        let owner_of = |row: usize| {
            let hash = super::pair_hash(sources.raw()[row], targets.raw()[row], self.seed);
            owner(hash, self.shard_count)
        };
        if routed.kept_rows.is_none() && sources.is_dense() && targets.is_dense() {
            let rows = self.owners.iter_mut().enumerate();
            rows.for_each(|(row, place)| *place = owner_of(row));
            return;
        }
        for row in routed.kept_rows() {
            let has_pair = !sources.is_absent(row) && !targets.is_absent(row);
            self.owners[row] = if has_pair { owner_of(row) } else { owner_of_silence(row) };
        }
    }

    fn own_keys(&mut self, routed: &RoutedBatch, spec: &TopSpec) {
        let batch = &routed.batch;
        self.owners.clear();
        self.owners.resize(batch.rows(), NOBODY);
        let hasher = FixedState::with_seed(self.seed ^ OWNER_SEED);
        let hash_of_long = |bytes: &[u8]| hasher.hash_one(bytes);
        self.gather.read_keys(batch, spec, None, &routed.kept_rows(), hash_of_long);
        let keys = self.gather.keys();
        for (row, key) in keys.rows.iter().zip(keys.narrow) {
            self.owners[*row as usize] = owner(key.hash(&self.mixer), self.shard_count);
        }
        for (row, key) in keys.wide_rows.iter().zip(keys.wide) {
            self.owners[*row as usize] = owner(key.hash(&self.mixer), self.shard_count);
        }
    }
}

/// The shard that owns an address pair; every worker of a run uses the same seed.
///
/// # Panics
/// If there is no shard, or 65,535 of them.
#[must_use]
pub fn pair_owner(src: Addr, dst: Addr, shard_count: usize, seed: u64) -> usize {
    assert!(shard_count > 0 && shard_count < usize::from(NOBODY));
    owner(super::pair_hash(src, dst, seed), shard_count).into()
}

/// Multiply-shift onto the shards: even for any count.
#[expect(clippy::cast_possible_truncation, reason = "the product's high half is below the count")]
pub(super) const fn owner(hash: u64, shard_count: usize) -> u16 {
    ((hash as u128 * shard_count as u128) >> 64) as u16
}

/// Lists the rows of each owner, in order.
fn sort_by_owner(owners: &[u16], shard_count: usize, list: &mut ShardRows) {
    let ShardRows { rows, ends } = list;
    ends.clear();
    ends.resize(shard_count + 1, 0);
    // The last place counts rows without owner, which are not listed.
    let place_of = |owner: u16| usize::from(owner).min(shard_count);
    owners.iter().for_each(|owner| ends[place_of(*owner)] += 1);
    let mut start = 0;
    for end in ends.iter_mut() {
        (start, *end) = (start + *end, start);
    }
    rows.clear();
    rows.resize(owners.len(), 0);
    for (row, owner) in (0_u32..).zip(owners) {
        let end = &mut ends[place_of(*owner)];
        rows[*end] = row;
        *end += 1;
    }
}

/// A row's number in the lists of a [`RoutedBatch`].
pub(super) fn row_number(row: usize) -> u32 {
    u32::try_from(row).expect("a batch has far fewer than 2^32 rows")
}
