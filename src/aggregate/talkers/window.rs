//! The last panes of all shards, and the windows that end with them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::pane::{PaneTalkers, add};
use super::{Group, TalkerPlan, TalkerSpec};
use crate::aggregate::flow_sizes::{FlowSizes, SizeQuantiles};
use crate::aggregate::top::{TopAnswer, TopSet};
use crate::aggregate::totals::Sums;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::units::{PaneIndex, UnixSeconds};

/// The largest keys of one window.
#[derive(Clone, Debug)]
pub struct TalkerWindow {
    /// The question.
    pub spec: TalkerSpec,
    /// First second of the window.
    pub start: UnixSeconds,
    /// First second after it.
    pub end: UnixSeconds,
    /// All traffic of the window, with or without a key.
    pub sums: Sums,
    /// How large its flows are.
    pub sizes: Option<SizeQuantiles>,
    /// The rows, largest first, and what they may have lost.
    pub answer: TopAnswer,
}

/// The panes that windows are made of.
pub struct TalkerWindows {
    plan: Arc<TalkerPlan>,
    seed: u64,
    bytes_max: usize,
    /// In order.
    panes: VecDeque<PaneTalkers>,
    /// Windows that were given, over all questions.
    given: u64,
}

impl TalkerWindows {
    /// No panes yet. The tables of panes take at most half of `bytes_max` bytes, those of the window that is made of
    /// them as much; `usize::MAX` is no limit.
    #[must_use]
    pub const fn new(plan: Arc<TalkerPlan>, seed: u64, bytes_max: usize) -> Self {
        Self { plan, seed, bytes_max, panes: VecDeque::new(), given: 0 }
    }

    /// Takes what all shards have seen of a pane and appends the windows that end with it, in the order of the
    /// questions. There are none if nothing was seen.
    ///
    /// # Panics
    /// If panes come out of order.
    pub fn on_pane(&mut self, shards: Vec<PaneTalkers>, out: &mut Vec<TalkerWindow>) {
        let mut shards = shards.into_iter();
        let Some(mut merged) = shards.next() else { return };
        merged.limit(&self.plan, self.pane_bytes());
        shards.for_each(|shard| merged.absorb(&shard));
        if merged.sums.flows == 0 {
            return;
        }
        let last = merged.pane;
        assert!(self.panes.back().is_none_or(|before| before.pane < last), "panes come in order");
        let oldest = PaneIndex(last.0.saturating_sub(self.plan.panes_max() - 1));
        while self.panes.pop_front_if(|pane| pane.pane < oldest).is_some() {}
        self.panes.push_back(merged);
        let first = out.len();
        self.windows(out);
        self.given += (out.len() - first) as u64;
    }

    /// Appends the windows that end with the last pane.
    pub fn windows(&self, out: &mut Vec<TalkerWindow>) {
        let mut windows = Vec::new();
        for (index, group) in self.plan.groups.iter().enumerate() {
            self.windows_of(index, group, &mut windows);
        }
        windows.sort_unstable_by_key(|(member, _)| *member);
        out.extend(windows.into_iter().map(|(_, window)| window));
    }

    /// Windows given so far, over all questions.
    #[must_use]
    pub const fn given(&self) -> u64 {
        self.given
    }

    /// What it was made of: plan, seed, limit in bytes.
    #[must_use]
    pub fn parts(&self) -> (Arc<TalkerPlan>, u64, usize) {
        (Arc::clone(&self.plan), self.seed, self.bytes_max)
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.panes.iter().map(PaneTalkers::bytes).sum()
    }

    fn windows_of(&self, index: usize, group: &Group, out: &mut Vec<(usize, TalkerWindow)>) {
        let Some(last) = self.panes.back() else { return };
        let first = PaneIndex(last.pane.0.saturating_sub(group.window_panes - 1));
        let panes = || self.panes.iter().filter(|pane| pane.pane >= first);
        let (mut sums, mut refused) = (Sums::default(), Sums::default());
        let mut sizes = FlowSizes::default();
        for pane in panes() {
            add(&mut sums, &pane.sums);
            add(&mut refused, &pane.refused);
            sizes += &pane.sizes;
        }
        let answers = if panes().count() == 1 {
            TopSet::answers(std::slice::from_ref(&last.sets[index]))
        } else {
            let limit = self.half() / self.plan.specs.len().max(1);
            let limit = limit.saturating_mul(group.members.len());
            let limit = if self.bytes_max == usize::MAX { usize::MAX } else { limit };
            let mut window = TopSet::of(Arc::clone(&group.plan), self.seed, limit);
            panes().for_each(|pane| window.absorb(&pane.sets[index]));
            TopSet::answers(&[window])
        };
        let pane_seconds = self.plan.pane_seconds;
        for (member, mut answer) in group.members.iter().zip(answers) {
            let spec = self.plan.specs[*member].clone();
            let lost = spec.top.metric.value(&refused, Some(refused.flows));
            answer.error_bound += lost;
            answer.rows.iter_mut().for_each(|row| row.error_bound += lost);
            let window = TalkerWindow {
                spec,
                start: first.start(pane_seconds),
                end: last.pane.end(pane_seconds),
                sums,
                sizes: sizes.quantiles(),
                answer,
            };
            out.push((*member, window));
        }
    }

    const fn half(&self) -> usize {
        if self.bytes_max == usize::MAX { usize::MAX } else { self.bytes_max / 2 }
    }

    fn pane_bytes(&self) -> usize {
        let panes_max = usize::try_from(self.plan.panes_max()).unwrap_or(usize::MAX);
        if self.bytes_max == usize::MAX { usize::MAX } else { self.half() / panes_max.max(1) }
    }

    /// Writes the panes.
    pub fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.given);
        out.count(self.panes.len());
        self.panes.iter().for_each(|pane| pane.save(out));
    }

    /// Reads what [`Self::save`] wrote; the rest as in [`Self::new`].
    ///
    /// # Errors
    /// If the bytes are no panes of these questions.
    pub fn load(
        plan: Arc<TalkerPlan>,
        seed: u64,
        bytes_max: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        let mut windows = Self::new(plan, seed, bytes_max);
        from.version("windows of talkers", 1..=1)?;
        windows.given = from.counted()?;
        for _ in 0..from.count(8)? {
            let pane = PaneTalkers::load(&windows.plan, windows.pane_bytes(), from)?;
            if windows.panes.back().is_some_and(|before| before.pane >= pane.pane) {
                return Err(DecodeError::Invalid("order of panes"));
            }
            windows.panes.push_back(pane);
        }
        Ok(windows)
    }
}
