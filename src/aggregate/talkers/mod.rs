//! Top talkers as a stream: the largest keys of every sliding window.
//!
//! ```text
//! rows ─► tables per open pane, in every shard ─► pane (merged over shards) ─► the last panes ─► a window's tops
//! ```
//!
//! A shard takes any share of the rows and keeps tables per open pane (`pane`, `shard`); what is closed is
//! merged over shards, and a window is made anew of its panes whenever one of them is the last one to come
//! (`window`). So windows slide by a pane, answers do not depend on who saw which row or in which order, and
//! nothing has to be taken off a sum. Tables are those of `top`: exact within their limit in memory, beyond it
//! with the bound of what any key may have lost. A pane that finds no memory at all adds all of its traffic to
//! the bound.

mod pane;
mod shard;
#[cfg(test)]
mod tests;
mod window;

use std::sync::Arc;

pub use pane::PaneTalkers;
pub use shard::ShardTalkers;
pub use window::{TalkerWindow, TalkerWindows};

use super::top::{TopPlan, TopSpec};
use crate::record::{FieldId, Slot};

/// A question for the largest keys of every window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TalkerSpec {
    /// The name in the configuration.
    pub name: String,
    /// Keys, metric and rows; without windows of its own.
    pub top: TopSpec,
    /// Length of a window; rounded up to whole panes.
    pub window_seconds: i64,
}

impl TalkerSpec {
    /// The columns that the question reads.
    pub fn slots(&self) -> impl Iterator<Item = Slot> {
        self.top.slots().chain([Slot::Known(FieldId::End)])
    }
}

/// The questions with one length of window, whose tables are kept together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    window_panes: i64,
    /// Which of the questions they are.
    members: Vec<usize>,
    plan: Arc<TopPlan>,
}

/// How the questions of a run are answered; the same in all shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TalkerPlan {
    specs: Vec<TalkerSpec>,
    pane_seconds: i64,
    groups: Vec<Group>,
}

impl TalkerPlan {
    /// The plan for these questions, on panes of `pane_seconds`.
    ///
    /// # Panics
    /// If a length is not positive.
    #[must_use]
    pub fn new(specs: Vec<TalkerSpec>, pane_seconds: i64) -> Self {
        assert!(pane_seconds > 0, "a pane has a length");
        let window_panes = |spec: &TalkerSpec| {
            assert!(spec.window_seconds > 0, "a window has a length");
            (spec.window_seconds - 1) / pane_seconds + 1
        };
        let mut lengths: Vec<i64> = specs.iter().map(window_panes).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let group = |length: i64| {
            let members: Vec<usize> =
                (0..specs.len()).filter(|index| window_panes(&specs[*index]) == length).collect();
            let tops: Vec<TopSpec> =
                members.iter().map(|index| specs[*index].top.clone()).collect();
            let plan = Arc::new(TopPlan::without_owners(&tops));
            Group { window_panes: length, members, plan }
        };
        let groups = lengths.into_iter().map(group).collect();
        Self { specs, pane_seconds, groups }
    }

    /// The questions.
    #[must_use]
    pub fn specs(&self) -> &[TalkerSpec] {
        &self.specs
    }

    /// How many panes the longest window has; 0 without a question.
    fn panes_max(&self) -> i64 {
        self.groups.iter().map(|group| group.window_panes).max().unwrap_or(0)
    }
}
