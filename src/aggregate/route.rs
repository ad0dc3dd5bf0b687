//! Which shard owns which row: a seeded hash of the key, decided by the parse worker.
//!
//! A row belongs to one shard per question, because each question has its own key. With one shard no key
//! is hashed and no list is made.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::top::{KeyReader, TopSpec};
use crate::record::{FieldId, FlowBatch};

/// Rows of a batch by question and shard.
#[derive(Debug)]
pub struct RoutedBatch {
    /// The records.
    pub batch: FlowBatch,
    /// Rows that the job's filter keeps; `None` if it keeps all.
    kept_rows: Option<Vec<u32>>,
    /// `top_rows[top][shard]`; empty if there is one shard.
    top_rows: Vec<Vec<Vec<u32>>>,
    /// `contact_rows[shard]`; empty if there is one shard.
    contact_rows: Vec<Vec<u32>>,
    /// Rows behind the watermark, in order; they belong to no window.
    late_rows: Vec<u32>,
}

impl RoutedBatch {
    /// Marks rows (in order) as late.
    pub fn set_late_rows(&mut self, rows: Vec<u32>) {
        self.late_rows = rows;
    }

    /// The rows that the job's filter keeps.
    pub fn kept_rows(&self) -> Rows<'_> {
        self.rows(None)
    }

    /// The rows of a question that `shard` owns.
    pub fn top_rows(&self, top: usize, shard: usize) -> Rows<'_> {
        let list = self.top_rows.get(top).map(|shards| shards[shard].as_slice());
        self.rows(list)
    }

    /// The rows whose address pair `shard` owns, without the late ones.
    pub fn contact_rows(&self, shard: usize) -> impl Iterator<Item = usize> {
        let rows = self.rows(self.contact_rows.get(shard).map(Vec::as_slice));
        let is_late =
            |row: usize| self.late_rows.binary_search_by(|late| (*late as usize).cmp(&row)).is_ok();
        rows.filter(move |row| !is_late(*row))
    }

    fn rows<'a>(&'a self, list: Option<&'a [u32]>) -> Rows<'a> {
        match list.or(self.kept_rows.as_deref()) {
            Some(rows) => Rows::Listed(rows.iter()),
            None => Rows::All(0..self.batch.rows()),
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

/// Decides the owners of rows.
#[derive(Clone)]
pub struct Router {
    tops: Arc<[TopSpec]>,
    with_contacts: bool,
    shard_count: usize,
    seed: u64,
}

impl Router {
    /// A router over `shard_count` shards; every worker of a run uses the same seed.
    ///
    /// # Panics
    /// If there is no shard.
    #[must_use]
    pub fn new(tops: Arc<[TopSpec]>, with_contacts: bool, shard_count: usize, seed: u64) -> Self {
        assert!(shard_count > 0);
        Self { tops, with_contacts, shard_count, seed }
    }

    /// Lists the owners of the batch's rows.
    #[must_use]
    pub fn route(&self, batch: FlowBatch, kept_rows: Option<Vec<u32>>) -> RoutedBatch {
        let mut routed = RoutedBatch {
            batch,
            kept_rows,
            top_rows: Vec::new(),
            contact_rows: Vec::new(),
            late_rows: Vec::new(),
        };
        if self.shard_count > 1 {
            routed.top_rows = self.tops.iter().map(|spec| self.top_owners(spec, &routed)).collect();
            if self.with_contacts {
                routed.contact_rows = self.contact_owners(&routed);
            }
        }
        routed
    }

    fn top_owners(&self, spec: &TopSpec, routed: &RoutedBatch) -> Vec<Vec<u32>> {
        let mut owners = vec![Vec::new(); self.shard_count];
        let Some(reader) = KeyReader::new(&routed.batch, spec) else { return owners };
        let hasher = foldhash::quality::FixedState::with_seed(self.seed);
        let mut key = Vec::new();
        for row in routed.kept_rows() {
            if reader.read(row, &mut key) {
                owners[self.owner(hasher.hash_one(&key))].push(row_number(row));
            }
        }
        owners
    }

    fn contact_owners(&self, routed: &RoutedBatch) -> Vec<Vec<u32>> {
        let mut owners = vec![Vec::new(); self.shard_count];
        let batch = &routed.batch;
        let (Some(sources), Some(targets)) =
            (batch.addrs(FieldId::SrcAddr), batch.addrs(FieldId::DstAddr))
        else {
            return owners;
        };
        for row in routed.kept_rows() {
            if let (Some(source), Some(target)) = (sources.get(row), targets.get(row)) {
                let hash = super::pair_hash(source, target, self.seed);
                owners[self.owner(hash)].push(row_number(row));
            }
        }
        owners
    }

    /// Multiply-shift onto the shards: even for any count, and independent of the hash's low bits.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the product's high half is below the count"
    )]
    const fn owner(&self, hash: u64) -> usize {
        ((hash as u128 * self.shard_count as u128) >> 64) as usize
    }
}

/// A row's number in the lists of a [`RoutedBatch`].
pub(crate) fn row_number(row: usize) -> u32 {
    u32::try_from(row).expect("a batch has far fewer than 2^32 rows")
}
