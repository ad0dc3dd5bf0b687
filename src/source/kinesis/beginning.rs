//! Where each shard is read from when a source starts: the settings, and how far an earlier run came.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::framing::{Position, Positions, ReadUntil, ResumePoint, ShardPlace};
use crate::record::FormatChoice;

use super::lineage::{Begin, Lineage, Shard, ShardId};
use super::reader::LATEST_MARGIN_MS;
use super::settings::StartPosition;
use super::shared::Shared;

/// What is known before the first record is read.
pub(super) struct Beginning {
    /// The stream's own name.
    stream: String,
    start: StartPosition,
    format: FormatChoice,
    /// How far shards were read before.
    positions: Arc<Positions>,
}

impl Beginning {
    /// By the settings, after what earlier runs have read.
    pub(super) fn new(shared: &Shared, format: FormatChoice, positions: Arc<Positions>) -> Self {
        let stream = shared.settings.stream.stream_name().to_owned();
        Self { stream, start: shared.settings.start, format, positions }
    }

    /// What the inputs' lines are.
    pub(super) fn format(&self) -> FormatChoice {
        self.format.clone()
    }

    /// How a shard is called as an input.
    pub(super) fn input_name(&self, shard: &str) -> Arc<str> {
        format!("{}/{shard}", self.stream).into()
    }

    /// The shards that exist at the start. From the tip only open shards matter: a closed one will
    /// never have anything new.
    pub(super) fn adopt(&self, shards: Vec<Shard>, lineage: &mut Lineage) {
        let from_the_tip = self.start == StartPosition::Latest;
        let later = self.later(&shards);
        // A moment applies to children as much as to their parents: what they hold before it is not
        // wanted either.
        for shard in shards {
            match self.positions.get(&self.input_name(&shard.id)) {
                Some(ReadUntil::End) => lineage.add_finished(shard),
                Some(ReadUntil::Point(point)) => {
                    lineage.add(shard, Begin::Resumed(point.clone()));
                }
                None if later.contains(&shard.id) => lineage.add(shard, Begin::FirstRecord),
                None if from_the_tip && shard.closed => lineage.add_finished(shard),
                None => lineage.add(shard, Begin::Configured),
            }
        }
    }

    /// Shards that came out of ones that were read before: all of them is new.
    fn later(&self, shards: &[Shard]) -> BTreeSet<ShardId> {
        let mut later: BTreeSet<ShardId> = BTreeSet::new();
        loop {
            let is_read = |id: &ShardId| self.positions.get(&self.input_name(id)).is_some();
            let is_later = |shard: &&Shard| {
                !later.contains(&shard.id)
                    && shard.parents.iter().any(|parent| is_read(parent) || later.contains(parent))
            };
            let found: Vec<ShardId> =
                shards.iter().filter(is_later).map(|shard| Arc::clone(&shard.id)).collect();
            if found.is_empty() {
                return later;
            }
            later.extend(found);
        }
    }

    /// Inputs that were not read to their end and are not in the stream any more.
    pub(super) fn gone(&self, shards: &[Shard]) -> Vec<(Arc<str>, ResumePoint)> {
        let start = self.input_name("");
        let is_listed = |name: &str| shards.iter().any(|shard| name[start.len()..] == *shard.id);
        let before = self.positions.beginning_with(&start);
        let gone = before.filter_map(|(name, until)| match until {
            ReadUntil::Point(point) if !is_listed(name) => Some((Arc::clone(name), point.clone())),
            _ => None,
        });
        gone.collect()
    }

    /// Where a shard is read from, for a run after this one, or for a reader that takes over. From the
    /// tip it is a moment a little before `now_ms`.
    pub(super) fn first_point(&self, begin: &Begin, now_ms: i64) -> ResumePoint {
        let place = match (begin, self.start) {
            (Begin::Resumed(point), _) => return point.clone(),
            (Begin::FirstRecord, _) | (Begin::Configured, StartPosition::TrimHorizon) => {
                ShardPlace::Oldest
            }
            (Begin::Configured, StartPosition::AtTimestamp(moment)) => {
                ShardPlace::Moment(moment.unix_ms)
            }
            (Begin::Configured, StartPosition::Latest) => {
                ShardPlace::Moment(now_ms.saturating_sub(LATEST_MARGIN_MS))
            }
        };
        let layout = self.format.initial_layout();
        ResumePoint { position: Position::in_shard(place), layout, file_start: None }
    }
}
