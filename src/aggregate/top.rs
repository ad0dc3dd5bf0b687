//! Top talkers: exact sums per key, any fields as key, any metric, the largest rows at the end.
//!
//! ```text
//!  hash table of entries: {packed key, flows, packets, bytes, distinct, number}
//!                           └ up to 36 bytes in the entry, longer ones in an arena
//! ```
//!
//! One table per top and shard; a key lives in exactly one shard, so results of shards are simply put
//! together. The hash is seeded, because keys are addresses that attackers choose. 72 bytes for each
//! key, two IPv6 addresses included: one look-up costs the table's two cache misses and no more.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::hash::BuildHasher;

use foldhash::quality::FixedState;
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

/// Bytes of a packed key that an entry holds itself: two IPv6 addresses and a little.
const INLINE_KEY_BYTES: usize = 36;

/// A packed key: zero-padded here if it is short, else its place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct StoredKey {
    length: u32,
    bytes: [u8; INLINE_KEY_BYTES],
}

impl StoredKey {
    /// The short key; a long one has only its length here.
    fn of(key: &[u8]) -> Self {
        let length = u32::try_from(key.len()).expect("lines are far below 4 GiB");
        let mut bytes = [0; INLINE_KEY_BYTES];
        if let Some(room) = bytes.get_mut(..key.len()) {
            room.copy_from_slice(key);
        }
        Self { length, bytes }
    }

    const fn is_long(&self) -> bool {
        self.length as usize > INLINE_KEY_BYTES
    }

    /// Moves a long key to the end of the arena.
    fn store(&mut self, key: &[u8], arena: &mut Vec<u8>) {
        if self.is_long() {
            self.bytes[..8].copy_from_slice(&(arena.len() as u64).to_le_bytes());
            arena.extend_from_slice(key);
        }
    }

    fn read<'a>(&'a self, arena: &'a [u8]) -> &'a [u8] {
        let length = self.length as usize;
        if self.is_long() {
            let place = u64::from_le_bytes(self.bytes[..8].try_into().expect("eight bytes"));
            let start = usize::try_from(place).expect("it was a length of the arena");
            &arena[start..start + length]
        } else {
            &self.bytes[..length]
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct TopEntry {
    key: StoredKey,
    /// In order of arrival, for what is kept beside the table.
    number: u32,
    flows: u64,
    packets: u64,
    bytes: u64,
    distinct: u32,
}

const _: () = assert!(size_of::<TopEntry>() == 72);

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
    hasher: FixedState,
    table: HashTable<TopEntry>,
    arena: Vec<u8>,
    /// What passed 64 bits, by number of the entry: multiples of 2^64 packets and bytes.
    carries: HashMap<u32, (u64, u64)>,
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
            hasher: FixedState::with_seed(seed),
            table: HashTable::new(),
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
            let entry = upsert(&mut self.table, &mut self.arena, &self.hasher, &key);
            entry.flows += 1;
            let (packets, packets_carry) = entry.packets.overflowing_add(packets);
            let (bytes, bytes_carry) = entry.bytes.overflowing_add(bytes);
            (entry.packets, entry.bytes) = (packets, bytes);
            if packets_carry || bytes_carry {
                let carry = self.carries.entry(entry.number).or_default();
                carry.0 += u64::from(packets_carry);
                carry.1 += u64::from(bytes_carry);
            }
            if let Some(column) = &distinct {
                key.clear();
                key.extend_from_slice(&entry.number.to_be_bytes());
                if column.pack(row, &mut key)
                    && is_unseen(&mut self.seen, &mut self.seen_arena, &self.hasher, &key)
                {
                    entry.distinct += 1;
                }
            }
        }
        self.key = key;
    }

    /// The largest rows of this shard.
    #[must_use]
    pub fn answer(&self) -> TopAnswer {
        let mut answer = TopAnswer { key_count: self.table.len() as u64, ..TopAnswer::default() };
        let mut kept: BinaryHeap<Candidate> = BinaryHeap::new();
        for entry in &self.table {
            let sums = self.sums(entry);
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

    fn sums(&self, entry: &TopEntry) -> Sums {
        let (packets, bytes) = self.carries.get(&entry.number).copied().unwrap_or_default();
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
        let packed = entry.key.read(&self.arena);
        let (window_start, packed) = if self.spec.window_seconds.is_some() {
            let (start, rest) = unpack_window(packed);
            (Some(start), rest)
        } else {
            (None, packed)
        };
        let distinct =
            matches!(self.spec.metric, Metric::Distinct(_)).then_some(u64::from(entry.distinct));
        TopRow { window_start, key: unpack(packed, &self.spec.by), sums, distinct }
    }
}

/// The entry of `key`, made if there is none.
fn upsert<'t>(
    table: &'t mut HashTable<TopEntry>,
    arena: &mut Vec<u8>,
    hasher: &FixedState,
    key: &[u8],
) -> &'t mut TopEntry {
    let mut wanted = StoredKey::of(key);
    let number = u32::try_from(table.len()).expect("memory ends long before 2^32 keys");
    let is_key = |entry: &TopEntry| {
        if wanted.is_long() {
            entry.key.length == wanted.length && entry.key.read(arena) == key
        } else {
            entry.key == wanted
        }
    };
    let rehash = |entry: &TopEntry| hasher.hash_one(entry.key.read(arena));
    match table.entry(hasher.hash_one(key), is_key, rehash) {
        Entry::Occupied(occupied) => occupied.into_mut(),
        Entry::Vacant(vacant) => {
            wanted.store(key, arena);
            let sums =
                TopEntry { key: wanted, number, flows: 0, packets: 0, bytes: 0, distinct: 0 };
            vacant.insert(sums).into_mut()
        }
    }
}

/// Remembers a packed (entry, value) pair; false if it was there already.
fn is_unseen(
    seen: &mut HashTable<SeenValue>,
    arena: &mut Vec<u8>,
    hasher: &FixedState,
    pair: &[u8],
) -> bool {
    let hash = hasher.hash_one(pair);
    let is_pair = |value: &SeenValue| {
        value.hash == hash && value.length == pair.len() && arena[value.start..].starts_with(pair)
    };
    let Entry::Vacant(vacant) = seen.entry(hash, is_pair, |value| value.hash) else {
        return false;
    };
    vacant.insert(SeenValue { hash, start: arena.len(), length: pair.len() });
    arena.extend_from_slice(pair);
    true
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

#[cfg(test)]
mod tests;
