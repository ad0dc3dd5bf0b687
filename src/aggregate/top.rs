//! Top talkers: exact sums per key, any fields as key, any metric, the largest rows at the end.
//!
//! ```text
//!  arena:   …|04 0a000001|04 0a000002|…                    packed keys, one after the other
//!  entries: [{hash, place in arena, flows, packets, bytes}]  in order of arrival
//!  index:   hash table of entry numbers
//! ```
//!
//! One table per top and shard; a key lives in exactly one shard, so results of shards are simply put
//! together. The hash is seeded, because keys are addresses that attackers choose. About 60 bytes
//! plus the packed key (5 bytes per IPv4 address, 17 per IPv6) for each key.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use hashbrown::HashMap;
use hashbrown::hash_table::{Entry, HashTable};

use super::key::{AnyColumn, pack_window, unpack, unpack_window};
use super::totals::Sums;
use crate::record::{ColumnView, FieldId, FlowBatch, LogStatus, Slot};
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
}

/// The answer of one shard, or of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopAnswer {
    /// Keys seen.
    pub key_count: u64,
    /// Keys that reach the least value asked for.
    pub matching_count: u64,
    /// The largest rows, largest first, ties by key.
    pub rows: Vec<TopRow>,
}

/// Reads the keys of a batch's rows.
pub struct KeyReader<'a> {
    columns: Vec<AnyColumn<'a>>,
    window: Option<(ColumnView<'a, i64>, i64)>,
    statuses: Option<ColumnView<'a, LogStatus>>,
}

impl<'a> KeyReader<'a> {
    /// A reader for `spec`, or `None` if the batch lacks a field of the key.
    #[must_use]
    pub fn new(batch: &'a FlowBatch, spec: &TopSpec) -> Option<Self> {
        let columns =
            spec.by.iter().map(|slot| AnyColumn::of(batch, slot)).collect::<Option<Vec<_>>>()?;
        let window = match spec.window_seconds {
            None => None,
            Some(seconds) => Some((batch.seconds(FieldId::End)?, seconds)),
        };
        Some(Self { columns, window, statuses: batch.log_statuses() })
    }

    /// Replaces `key` by the packed key of `row`; false if the record has none, because it lacks a field
    /// or stands for no traffic.
    #[must_use]
    pub fn read(&self, row: usize, key: &mut Vec<u8>) -> bool {
        key.clear();
        let status = self.statuses.and_then(|column| column.get(row)).unwrap_or_default();
        if status != LogStatus::Ok {
            return false;
        }
        if let Some((ends, window_seconds)) = &self.window {
            let Some(end) = ends.get(row) else { return false };
            let window = UnixSeconds(end).pane(*window_seconds);
            pack_window(window.start(*window_seconds), key);
        }
        self.columns.iter().all(|column| column.pack(row, key))
    }
}

#[derive(Clone, Copy, Debug)]
struct TopEntry {
    hash: u64,
    key_start: usize,
    key_length: usize,
    distinct: u64,
    flows: u64,
    packets: u64,
    bytes: u64,
}

/// Where a counted (entry, value) pair stands.
#[derive(Clone, Copy, Debug)]
struct SeenValue {
    hash: u64,
    start: usize,
    length: usize,
}

/// The sums of one top in one shard.
pub struct TopTable {
    spec: TopSpec,
    hasher: foldhash::quality::FixedState,
    index: HashTable<usize>,
    entries: Vec<TopEntry>,
    arena: Vec<u8>,
    /// What passed 64 bits, by entry: multiples of 2^64 packets and bytes.
    carries: HashMap<usize, (u64, u64)>,
    /// Where the packed (entry, value) pairs that were counted stand, for `distinct`.
    seen: HashTable<SeenValue>,
    seen_arena: Vec<u8>,
    key: Vec<u8>,
}

impl TopTable {
    /// An empty table; `seed` should differ from run to run.
    #[must_use]
    pub fn new(spec: TopSpec, seed: u64) -> Self {
        Self {
            spec,
            hasher: foldhash::quality::FixedState::with_seed(seed),
            index: HashTable::new(),
            entries: Vec::new(),
            arena: Vec::new(),
            carries: HashMap::new(),
            seen: HashTable::new(),
            seen_arena: Vec::new(),
            key: Vec::new(),
        }
    }

    /// Adds the given rows; rows without a key are passed over.
    pub fn add(&mut self, batch: &FlowBatch, rows: impl Iterator<Item = usize>) {
        let Some(reader) = KeyReader::new(batch, &self.spec) else { return };
        let byte_counts = batch.counters(FieldId::Bytes);
        let packet_counts = batch.counters(FieldId::Packets);
        let distinct = match &self.spec.metric {
            Metric::Distinct(slot) => match AnyColumn::of(batch, slot) {
                Some(column) => Some(column),
                None => return,
            },
            _ => None,
        };
        let mut key = std::mem::take(&mut self.key);
        for row in rows {
            if !reader.read(row, &mut key) {
                continue;
            }
            let bytes = byte_counts.and_then(|column| column.get(row)).unwrap_or(0);
            let packets = packet_counts.and_then(|column| column.get(row)).unwrap_or(0);
            let number = self.upsert(&key, packets, bytes);
            if let Some(column) = &distinct {
                key.clear();
                key.extend_from_slice(&number.to_be_bytes());
                if column.pack(row, &mut key) && self.is_unseen(&key) {
                    self.entries[number].distinct += 1;
                }
            }
        }
        self.key = key;
    }

    /// Adds to the sums of `key` and returns the number of its entry.
    fn upsert(&mut self, key: &[u8], packets: u64, bytes: u64) -> usize {
        let hash = self.hasher.hash_one(key);
        let (entries, arena) = (&self.entries, &self.arena);
        let is_key = |number: &usize| {
            let entry = &entries[*number];
            entry.hash == hash && entry.key(arena) == key
        };
        let number = match self.index.entry(hash, is_key, |number| entries[*number].hash) {
            Entry::Occupied(occupied) => *occupied.get(),
            Entry::Vacant(vacant) => {
                let number = self.entries.len();
                vacant.insert(number);
                self.entries.push(TopEntry::new(hash, self.arena.len(), key.len()));
                self.arena.extend_from_slice(key);
                number
            }
        };
        let entry = &mut self.entries[number];
        entry.flows += 1;
        let (packets, packets_carry) = entry.packets.overflowing_add(packets);
        let (bytes, bytes_carry) = entry.bytes.overflowing_add(bytes);
        (entry.packets, entry.bytes) = (packets, bytes);
        if packets_carry || bytes_carry {
            let carry = self.carries.entry(number).or_default();
            carry.0 += u64::from(packets_carry);
            carry.1 += u64::from(bytes_carry);
        }
        number
    }

    /// Remembers a packed (entry, value) pair; false if it was there already.
    fn is_unseen(&mut self, pair: &[u8]) -> bool {
        let hash = self.hasher.hash_one(pair);
        let arena = &self.seen_arena;
        let is_pair = |seen: &SeenValue| {
            seen.hash == hash && arena[seen.start..].starts_with(pair) && seen.length == pair.len()
        };
        let Entry::Vacant(vacant) = self.seen.entry(hash, is_pair, |seen| seen.hash) else {
            return false;
        };
        vacant.insert(SeenValue { hash, start: self.seen_arena.len(), length: pair.len() });
        self.seen_arena.extend_from_slice(pair);
        true
    }

    /// The largest rows of this shard.
    #[must_use]
    pub fn answer(&self) -> TopAnswer {
        let mut answer = TopAnswer { key_count: self.entries.len() as u64, ..TopAnswer::default() };
        let mut kept: BinaryHeap<Candidate> = BinaryHeap::new();
        for (number, entry) in self.entries.iter().enumerate() {
            let sums = self.sums(number);
            let value = self.value(entry, &sums);
            if value < self.spec.metric_min {
                continue;
            }
            answer.matching_count += 1;
            let full = kept.len() == self.spec.rows_max;
            if self.spec.rows_max == 0
                || full && kept.peek().is_some_and(|worst| worst.value > value)
            {
                continue;
            }
            let row = self.row(entry, sums);
            kept.push(Candidate { value, row });
            if full {
                kept.pop();
            }
        }
        answer.rows = kept.into_sorted_vec().into_iter().map(|candidate| candidate.row).collect();
        answer
    }

    fn sums(&self, number: usize) -> Sums {
        let entry = &self.entries[number];
        let (packets, bytes) = self.carries.get(&number).copied().unwrap_or_default();
        Sums {
            flows: entry.flows,
            packets: u128::from(entry.packets) + (u128::from(packets) << 64),
            bytes: u128::from(entry.bytes) + (u128::from(bytes) << 64),
        }
    }

    fn value(&self, entry: &TopEntry, sums: &Sums) -> u128 {
        match self.spec.metric {
            Metric::Bytes => sums.bytes,
            Metric::Packets => sums.packets,
            Metric::Flows => u128::from(sums.flows),
            Metric::Distinct(_) => u128::from(entry.distinct),
        }
    }

    fn row(&self, entry: &TopEntry, sums: Sums) -> TopRow {
        let packed = entry.key(&self.arena);
        let (window_start, packed) = if self.spec.window_seconds.is_some() {
            let (start, rest) = unpack_window(packed);
            (Some(start), rest)
        } else {
            (None, packed)
        };
        let distinct = matches!(self.spec.metric, Metric::Distinct(_)).then_some(entry.distinct);
        TopRow { window_start, key: unpack(packed, &self.spec.by), sums, distinct }
    }
}

impl TopEntry {
    const fn new(hash: u64, key_start: usize, key_length: usize) -> Self {
        Self { hash, key_start, key_length, distinct: 0, flows: 0, packets: 0, bytes: 0 }
    }

    fn key<'a>(&self, arena: &'a [u8]) -> &'a [u8] {
        &arena[self.key_start..self.key_start + self.key_length]
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
        candidates.extend(shard.rows.into_iter().map(|row| {
            let value = match spec.metric {
                Metric::Bytes => row.sums.bytes,
                Metric::Packets => row.sums.packets,
                Metric::Flows => u128::from(row.sums.flows),
                Metric::Distinct(_) => u128::from(row.distinct.unwrap_or(0)),
            };
            Candidate { value, row }
        }));
    }
    candidates.sort_unstable();
    candidates.truncate(spec.rows_max);
    merged.rows = candidates.into_iter().map(|candidate| candidate.row).collect();
    merged
}
