//! What travels between the stages behind the sequencer.
//!
//! ```text
//! sequence ──Rows, Watermark, Barrier, End──► shard ──Panes, Barrier, End──► judge ──Findings, Talkers, Barrier──► deliver
//!     ├──────────────────────────── Letters ──────────────────────────────────────────────────────────────────►┤
//!     └──────────────── saved parts of every stage at a barrier ───────────────────────► checkpoint ◄──┘
//! ```
//!
//! A barrier cuts the stream at one place in every channel: what a stage has taken before it is in its
//! saved part, what comes after is not.

use std::sync::Arc;
use std::time::Duration;

use crate::aggregate::{PaneContacts, PaneTalkers, RoutedBatch, TalkerWindow};
use crate::codec::Encoder;
use crate::finding::Finding;
use crate::units::UnixSeconds;

use super::dead_letters::Letter;
use super::job::Detectors;
use super::parse_stage::ParsedChunk;

/// Number of a barrier and its snapshot; goes on over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Epoch(pub(super) u64);

/// What became of the snapshot of a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SnapshotFate {
    /// It is written, and what it holds is safe.
    Safe,
    /// It is written and being copied: this machine alone has it, and another fate follows.
    OnThisMachine,
    /// It could not be written, or is on this machine alone for good where there should be copies.
    Unsafe,
}

/// Parts of a chunk, and when the chunk came in.
pub(super) struct Parsed {
    /// By the monotonic clock, when the source handed the chunk over.
    pub(super) arrived: Duration,
    pub(super) parts: Vec<ParsedChunk>,
}

/// What becomes of open panes when the stream ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// No more will come: they are complete.
    Close,
    /// The stream goes on from the snapshot, in another process: they are not judged.
    Keep,
}

/// To each shard, the same for all.
#[derive(Clone)]
pub(super) enum ToShard {
    Rows(Arc<Vec<RoutedBatch>>),
    /// Panes up to here are complete; the chunk that moved time came in at `arrived`.
    Watermark {
        watermark: UnixSeconds,
        arrived: Duration,
    },
    Barrier(Epoch),
    /// The judge's detectors change here.
    Detectors(Arc<Detectors>),
    End(Ending),
}

/// Panes of one shard, up to a watermark.
pub(super) struct ShardPanes {
    pub(super) shard_index: usize,
    pub(super) watermark: UnixSeconds,
    pub(super) arrived: Option<Duration>,
    pub(super) panes: Vec<PaneContacts>,
    pub(super) talkers: Vec<PaneTalkers>,
}

/// To the judge, from each shard.
pub(super) enum ToJudge {
    Panes(ShardPanes),
    Barrier {
        shard_index: usize,
        epoch: Epoch,
    },
    /// From the first shard: detectors change here.
    Detectors(Arc<Detectors>),
    /// The shard sends no more.
    End(Ending),
}

/// To the deliverer.
pub(super) enum ToDeliver {
    /// Findings, and when the chunk came in that completed their pane.
    Findings {
        findings: Vec<Finding>,
        arrived: Option<Duration>,
    },
    /// Tops of windows, in the order of their ends.
    Talkers(Vec<TalkerWindow>),
    Barrier(Epoch),
    /// From the sequencer, past the stages between: what could not be read of what is before the next barrier.
    Letters(Vec<Letter>),
}

/// Whose state it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PartName {
    Inputs,
    Shard(usize),
    Judge,
    Delivery,
}

impl PartName {
    /// The name in the snapshot.
    pub(super) fn text(self) -> String {
        match self {
            Self::Inputs => "inputs".to_owned(),
            Self::Shard(index) => format!("shard-{index}"),
            Self::Judge => "judge".to_owned(),
            Self::Delivery => "delivery".to_owned(),
        }
    }
}

/// The state of one stage at a barrier.
#[derive(Debug)]
pub(super) struct SavedPart {
    pub(super) epoch: Epoch,
    pub(super) name: PartName,
    /// As [`Encoder::into_segments`](crate::codec::Encoder::into_segments) gives them.
    pub(super) segments: Vec<Vec<u8>>,
    /// Segments that were taken for it and not needed.
    pub(super) spares: Vec<Vec<u8>>,
    /// Findings before the barrier are with no sink but in the journal of this machine: another one could not go on.
    pub(super) needs_journal: bool,
}

impl SavedPart {
    /// The part of a stage that knows nothing of the journal.
    pub(super) fn new(epoch: Epoch, name: PartName, saved: Encoder) -> Self {
        let (segments, spares) = saved.into_segments_and_spares();
        Self { epoch, name, segments, spares, needs_journal: false }
    }
}
