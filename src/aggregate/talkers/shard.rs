//! The open panes of one shard.
//!
//! A batch is cut into the panes that its rows lie in, which are few; each pane's tables then take the batch
//! without the other rows. Memory is dealt out evenly over as many panes as have ever been open at once, 8 at
//! least: when there are more, all give half of theirs away. Panes beyond those that it is enough for
//! ([`QUESTION_BYTES_MIN`]) keep no keys, only what they refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::TalkerPlan;
use super::pane::PaneTalkers;
use crate::aggregate::route::RoutedBatch;
use crate::aggregate::row_bits::WORD_ROWS;
use crate::aggregate::top::RowsOf;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::record::{FieldId, LogStatus};
use crate::units::{PaneIndex, UnixSeconds};

/// Open panes that memory is dealt out for at first.
const PANES_MIN: usize = 8;

/// Less than this for a question of a pane would hold no batch.
const QUESTION_BYTES_MIN: usize = 256 << 10;

/// The talkers of one shard.
pub struct ShardTalkers {
    plan: Arc<TalkerPlan>,
    seed: u64,
    bytes_max: usize,
    /// Over how many panes memory is dealt out.
    shares: usize,
    open: BTreeMap<PaneIndex, PaneTalkers>,
    /// Panes before this one have been handed over.
    open_from: PaneIndex,
    late_rows: u64,
    cuts: Cuts,
}

/// The rows of a batch by pane; scratch.
#[derive(Default)]
struct Cuts {
    panes: Vec<PaneIndex>,
    /// For each of the panes, a bit for each row that is not in it.
    others: Vec<Vec<u64>>,
    /// Rows and the place of their pane above.
    rows: Vec<(u32, u32)>,
}

impl ShardTalkers {
    /// No open panes, whose tables hold at most `bytes_max` bytes together; `usize::MAX` is no limit. `seed` as
    /// for [`TopSet::new`](crate::aggregate::TopSet::new), the same for all shards.
    #[must_use]
    pub fn new(plan: Arc<TalkerPlan>, seed: u64, bytes_max: usize) -> Self {
        Self {
            plan,
            seed,
            bytes_max,
            shares: PANES_MIN,
            open: BTreeMap::new(),
            open_from: PaneIndex(i64::MIN),
            late_rows: 0,
            cuts: Cuts::default(),
        }
    }

    /// Adds a share of the batch's rows that no other shard adds. Rows without an `end` and late ones are in no
    /// window.
    pub fn add(&mut self, routed: &RoutedBatch, shard: usize) {
        let mut cuts = std::mem::take(&mut self.cuts);
        self.late_rows += cuts.cut(routed, shard, self.plan.pane_seconds, self.open_from);
        let batch = &routed.batch;
        let counters = [FieldId::Bytes, FieldId::Packets].map(|field| batch.counters(field));
        let [bytes, packets] = counters.map(|column| {
            move |row: u32| column.and_then(|column| column.get(row as usize)).unwrap_or(0)
        });
        for (place, pane) in (0..).zip(&cuts.panes) {
            let is_full = self.make_room(*pane);
            let (plan, seed, bytes_max) = (&self.plan, self.seed, self.pane_bytes());
            let open = self.open.entry(*pane);
            let open = open.or_insert_with(|| PaneTalkers::new(*pane, plan, seed, bytes_max));
            for (row, _) in cuts.rows.iter().filter(|(_, of)| *of == place) {
                let (bytes, packets) = (bytes(*row), packets(*row));
                if !is_full {
                    open.sizes.record(bytes);
                }
                let sums = [Some(&mut open.sums), is_full.then_some(&mut open.refused)];
                for sums in sums.into_iter().flatten() {
                    sums.flows += 1;
                    sums.packets += u128::from(packets);
                    sums.bytes += u128::from(bytes);
                }
            }
            if !is_full {
                let others = &cuts.others[place as usize];
                open.sets.iter_mut().for_each(|set| set.add_some(routed, shard, others));
            }
        }
        self.cuts = cuts;
    }

    /// The panes that are complete at `watermark`, oldest first.
    pub fn close_until(&mut self, watermark: UnixSeconds) -> Vec<PaneTalkers> {
        self.open_from = self.open_from.max(watermark.pane(self.plan.pane_seconds));
        let later = self.open.split_off(&self.open_from);
        std::mem::replace(&mut self.open, later).into_values().collect()
    }

    /// Every pane: the stream has ended.
    pub fn close_all(&mut self) -> Vec<PaneTalkers> {
        std::mem::take(&mut self.open).into_values().collect()
    }

    /// Takes over what another shard has; its rows are counted here from now on.
    pub fn absorb(&mut self, other: &Self) {
        self.open_from = self.open_from.max(other.open_from);
        self.late_rows += other.late_rows;
        for (pane, from) in &other.open {
            let _is_full = self.make_room(*pane);
            let (plan, seed, bytes_max) = (&self.plan, self.seed, self.pane_bytes());
            let open = self.open.entry(*pane);
            open.or_insert_with(|| PaneTalkers::new(*pane, plan, seed, bytes_max)).absorb(from);
        }
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.open.values().map(PaneTalkers::bytes).sum()
    }

    /// About as many bytes as it takes when it is saved.
    #[must_use]
    pub fn saved_bytes(&self) -> usize {
        self.open.values().map(PaneTalkers::saved_bytes).sum()
    }

    /// Rows that came for panes that had been handed over; they are in no window.
    #[must_use]
    pub const fn late_rows(&self) -> u64 {
        self.late_rows
    }

    /// Writes the open panes.
    pub fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.shares as u64);
        out.i64(self.open_from.0);
        out.u64(self.late_rows);
        out.count(self.open.len());
        self.open.values().for_each(|open| open.save(out));
    }

    /// Reads what [`Self::save`] wrote; the rest as in [`Self::new`].
    ///
    /// # Errors
    /// If the bytes are no talkers of these questions.
    pub fn load(
        plan: Arc<TalkerPlan>,
        seed: u64,
        bytes_max: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let mut talkers = Self::new(plan, seed, bytes_max);
        from.version("talkers of a shard", 1..=1)?;
        talkers.shares = usize::try_from(from.u64()?).unwrap_or(0).clamp(PANES_MIN, SHARES_MAX);
        talkers.open_from = PaneIndex(from.i64()?);
        talkers.late_rows = from.counted()?;
        for _ in 0..from.count(8)? {
            let open = PaneTalkers::load(&talkers.plan, talkers.pane_bytes(), from)?;
            if open.pane < talkers.open_from || talkers.open.insert(open.pane, open).is_some() {
                return Err(DecodeError::Invalid("pane of talkers"));
            }
        }
        Ok(talkers)
    }

    const fn pane_bytes(&self) -> usize {
        if self.bytes_max == usize::MAX { usize::MAX } else { self.bytes_max / self.shares }
    }

    /// Deals memory out anew if the pane is one too many; whether there is none for it.
    fn make_room(&mut self, pane: PaneIndex) -> bool {
        if self.bytes_max == usize::MAX {
            return false;
        }
        if let Some(open) = self.open.get(&pane) {
            return open.refused.flows > 0;
        }
        if self.open.len() < self.shares {
            return false;
        }
        let least_bytes = QUESTION_BYTES_MIN * self.plan.specs.len();
        if self.bytes_max / (self.shares * 2) < least_bytes || self.shares >= SHARES_MAX {
            return true;
        }
        self.shares *= 2;
        let bytes_max = self.pane_bytes();
        self.open.values_mut().for_each(|open| open.limit(&self.plan, bytes_max));
        false
    }
}

/// Panes that memory is ever dealt out for.
const SHARES_MAX: usize = 1 << 14;

impl Cuts {
    /// Finds the panes of the shard's rows, but for those before `open_from`, which it counts.
    fn cut(
        &mut self,
        routed: &RoutedBatch,
        shard: usize,
        pane_seconds: i64,
        open_from: PaneIndex,
    ) -> u64 {
        let Self { panes, others, rows } = self;
        panes.clear();
        rows.clear();
        let batch = &routed.batch;
        let Some(ends) = batch.seconds(FieldId::End) else { return 0 };
        let statuses = batch.log_statuses();
        let word_count = batch.rows().div_ceil(WORD_ROWS);
        let mut late_rows = 0;
        let mut late = routed.late_rows().iter().copied().peekable();
        // The pane that the row before lay in, from its first second to the one after its last.
        let (mut first, mut after, mut place) = (0, 0, 0);
        for row in routed.top_rows(RowsOf::AnyShard, shard) {
            while late.next_if(|late| (*late as usize) < row).is_some() {}
            let status = statuses.and_then(|statuses| statuses.get(row)).unwrap_or_default();
            let Some(end) = ends.get(row).filter(|_| status == LogStatus::Ok) else { continue };
            if late.next_if(|late| *late as usize == row).is_some() {
                continue;
            }
            if !(first..after).contains(&end) {
                let pane = UnixSeconds(end).pane(pane_seconds);
                if pane < open_from {
                    late_rows += 1;
                    continue;
                }
                (first, after) = (pane.start(pane_seconds).0, pane.end(pane_seconds).0);
                place = panes.iter().position(|known| *known == pane).unwrap_or_else(|| {
                    if others.len() == panes.len() {
                        others.push(Vec::new());
                    }
                    let others = &mut others[panes.len()];
                    others.clear();
                    others.resize(word_count, u64::MAX);
                    panes.push(pane);
                    panes.len() - 1
                });
            }
            others[place][row / WORD_ROWS] &= !(1 << (row % WORD_ROWS));
            let number = |index: usize| u32::try_from(index).expect("a batch has far fewer rows");
            rows.push((number(row), number(place)));
        }
        late_rows
    }
}
