//! What a shard, or all of them, have seen in one pane.

use super::TalkerPlan;
use crate::aggregate::flow_sizes::FlowSizes;
use crate::aggregate::top::TopSet;
use crate::aggregate::totals::Sums;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::units::PaneIndex;

/// The tables of one pane.
pub struct PaneTalkers {
    /// The pane, in units of the plan's pane length.
    pub pane: PaneIndex,
    /// All traffic of the pane, with or without a key.
    pub(super) sums: Sums,
    /// That part of it that found no room: keys may have had all of it.
    pub(super) refused: Sums,
    pub(super) sizes: FlowSizes,
    /// A set for each length of window.
    pub(super) sets: Vec<TopSet>,
}

impl PaneTalkers {
    /// A pane without traffic, whose tables hold at most `bytes_max` bytes.
    pub(super) fn new(pane: PaneIndex, plan: &TalkerPlan, seed: u64, bytes_max: usize) -> Self {
        let share = share_of_set(plan, bytes_max);
        let set =
            |group: &super::Group| TopSet::of(group.plan.clone(), seed, share(group.members.len()));
        let sets = plan.groups.iter().map(set).collect();
        Self {
            pane,
            sums: Sums::default(),
            refused: Sums::default(),
            sizes: FlowSizes::default(),
            sets,
        }
    }

    /// Goes on with another limit.
    pub(super) fn limit(&mut self, plan: &TalkerPlan, bytes_max: usize) {
        let share = share_of_set(plan, bytes_max);
        for (set, group) in self.sets.iter_mut().zip(&plan.groups) {
            set.limit(share(group.members.len()));
        }
    }

    /// Adds what another shard or process has seen of the pane.
    ///
    /// # Panics
    /// If it is another pane, or of other questions.
    pub fn absorb(&mut self, other: &Self) {
        assert_eq!(self.pane, other.pane, "parts of one pane");
        add(&mut self.sums, &other.sums);
        add(&mut self.refused, &other.refused);
        self.sizes += &other.sizes;
        self.sets.iter_mut().zip(&other.sets).for_each(|(set, other)| set.absorb(other));
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.sizes.bytes() + self.sets.iter().map(TopSet::bytes).sum::<usize>()
    }

    pub(super) fn saved_bytes(&self) -> usize {
        self.sizes.bytes() + self.sets.iter().map(TopSet::saved_bytes).sum::<usize>()
    }

    /// Writes the pane.
    pub fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.i64(self.pane.0);
        for sums in [&self.sums, &self.refused] {
            out.u64(sums.flows);
            out.u128(sums.packets);
            out.u128(sums.bytes);
        }
        self.sizes.save(out);
        self.sets.iter().for_each(|set| set.save(out));
    }

    /// Reads what [`Self::save`] wrote; `bytes_max` as for new tables.
    ///
    /// # Errors
    /// If the bytes are no pane of these questions.
    pub fn load(
        plan: &TalkerPlan,
        bytes_max: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        from.version("talkers of a pane", 1..=1)?;
        let pane = PaneIndex(from.i64()?);
        let mut sums =
            || Ok(Sums { flows: from.counted()?, packets: from.u128()?, bytes: from.u128()? });
        let (all, refused) = (sums()?, sums()?);
        let sizes = FlowSizes::load(from)?;
        let share = share_of_set(plan, bytes_max);
        let mut sets = Vec::new();
        for group in &plan.groups {
            sets.push(TopSet::load_of(group.plan.clone(), share(group.members.len()), from)?);
        }
        Ok(Self { pane, sums: all, refused, sizes, sets })
    }
}

/// The part of a limit that a set of so many questions has.
fn share_of_set(plan: &TalkerPlan, bytes_max: usize) -> impl Fn(usize) -> usize {
    let questions = plan.specs.len().max(1);
    move |members| {
        if bytes_max == usize::MAX { usize::MAX } else { bytes_max / questions * members }
    }
}

/// Adds sums.
pub(super) fn add(to: &mut Sums, from: &Sums) {
    to.flows += from.flows;
    to.packets += from.packets;
    to.bytes += from.bytes;
}
