//! Distinct values over sliding windows of any length, exactly.
//!
//! For each value the set remembers in which pane it last failed and was last answered. A window that
//! ends with the current pane holds a value if its last pane lies in the window, so one set answers for
//! every window length; nothing is kept per pane. Most sets never see more than one attempt and keep just
//! that.

use super::outcome::Outcome;
use crate::units::{PaneIndex, UnixSeconds};

/// What happened with one value in one pane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt<T> {
    pub(super) value: T,
    pub(super) outcome: Outcome,
    pub(super) flows: u32,
    pub(super) rejected: u32,
    pub(super) first_start: UnixSeconds,
}

const NEVER: PaneIndex = PaneIndex(i64::MIN);

#[derive(Clone, Copy, Debug)]
pub(super) struct Entry<T> {
    value: T,
    failed_in: PaneIndex,
    bare_in: PaneIndex,
    answered_in: PaneIndex,
    first_start: UnixSeconds,
    flows: u32,
    rejected: u32,
    unanswered: u32,
    refused: u32,
}

impl<T: Copy> Entry<T> {
    fn of(value: T) -> Self {
        Self {
            value,
            failed_in: NEVER,
            bare_in: NEVER,
            answered_in: NEVER,
            first_start: UnixSeconds::MAX,
            flows: 0,
            rejected: 0,
            unanswered: 0,
            refused: 0,
        }
    }

    fn add(&mut self, pane: PaneIndex, attempt: &Attempt<T>) {
        match attempt.outcome {
            Outcome::Answered => self.answered_in = pane,
            Outcome::Bare => self.bare_in = pane,
            Outcome::Rejected => self.failed_in = pane,
            Outcome::Unanswered => {
                self.failed_in = pane;
                self.unanswered = self.unanswered.saturating_add(attempt.flows);
            }
            Outcome::Refused => {
                self.failed_in = pane;
                self.refused = self.refused.saturating_add(attempt.flows);
            }
            Outcome::NotTried => return,
        }
        self.first_start = self.first_start.min(attempt.first_start);
        self.flows = self.flows.saturating_add(attempt.flows);
        self.rejected = self.rejected.saturating_add(attempt.rejected);
    }

    fn last_pane(&self) -> PaneIndex {
        self.failed_in.max(self.bare_in).max(self.answered_in)
    }

    /// What the value counts as in the window after `before`: one answer outweighs failures.
    fn standing(&self, before: PaneIndex) -> Standing {
        if self.answered_in > before {
            Standing::Answered
        } else if self.failed_in > before {
            Standing::Failed
        } else if self.bare_in > before {
            Standing::Bare
        } else {
            Standing::Absent
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Answered,
    Failed,
    Bare,
    Absent,
}

/// Counts over one window. Flows are those of failed and bare values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Distinct values that failed and never were answered.
    pub(super) failed: u64,
    /// Distinct values of which only bare answers came.
    pub(super) bare: u64,
    /// Distinct values that were answered.
    pub(super) answered: u64,
    pub(super) flows: u64,
    pub(super) rejected: u64,
    pub(super) unanswered: u64,
    pub(super) refused: u64,
    /// Earliest start among failed and bare values.
    pub(super) first_seen: UnixSeconds,
}

/// Distinct values over sliding windows.
#[derive(Clone, Debug)]
pub(super) enum Distinct<T> {
    /// One attempt in one pane.
    Once(PaneIndex, Attempt<T>),
    /// In the order of values.
    Many(Vec<Entry<T>>),
}

impl<T> Default for Distinct<T> {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<T: Copy + Ord> Distinct<T> {
    /// Adds what happened in `pane`; `attempts` are in the order of values. Values that were not seen
    /// after `expired` leave.
    pub(super) fn add(&mut self, pane: PaneIndex, expired: PaneIndex, attempts: &[Attempt<T>]) {
        debug_assert!(attempts.is_sorted_by_key(|attempt| attempt.value));
        if self.len() == 0
            && pane > expired
            && let [attempt] = attempts
            && attempt.outcome != Outcome::NotTried
        {
            *self = Self::Once(pane, *attempt);
            return;
        }
        let mut merged = Vec::with_capacity(self.len() + attempts.len());
        let mut known = self.entries().peekable();
        for attempt in attempts {
            while let Some(entry) = known.next_if(|entry| entry.value < attempt.value) {
                merged.push(entry);
            }
            if let Some(entry) = known.next_if(|entry| entry.value == attempt.value) {
                merged.push(entry);
            } else if merged.last().is_none_or(|last: &Entry<T>| last.value != attempt.value) {
                merged.push(Entry::of(attempt.value));
            }
            merged.last_mut().expect("pushed above").add(pane, attempt);
        }
        merged.extend(known);
        merged.retain(|entry| entry.last_pane() > expired);
        merged.shrink_to(merged.len() * 2);
        *self = Self::Many(merged);
    }

    fn entries(&self) -> impl Iterator<Item = Entry<T>> {
        let (once, many) = match self {
            Self::Once(pane, attempt) => {
                let mut entry = Entry::of(attempt.value);
                entry.add(*pane, attempt);
                (Some(entry), &[][..])
            }
            Self::Many(entries) => (None, entries.as_slice()),
        };
        once.into_iter().chain(many.iter().copied())
    }

    /// The last pane in which any value was seen.
    pub(super) fn last_pane(&self) -> PaneIndex {
        match self {
            Self::Once(pane, _) => *pane,
            Self::Many(entries) => entries.iter().map(Entry::last_pane).max().unwrap_or(NEVER),
        }
    }

    /// Number of values kept.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Once(..) => 1,
            Self::Many(entries) => entries.len(),
        }
    }

    /// Counts over the window after the pane `before`.
    pub(super) fn counts(&self, before: PaneIndex) -> Counts {
        let mut counts = Counts {
            failed: 0,
            bare: 0,
            answered: 0,
            flows: 0,
            rejected: 0,
            unanswered: 0,
            refused: 0,
            first_seen: UnixSeconds::MAX,
        };
        for entry in self.entries() {
            match entry.standing(before) {
                Standing::Absent => continue,
                Standing::Answered => {
                    counts.answered += 1;
                    continue;
                }
                Standing::Failed => counts.failed += 1,
                Standing::Bare => counts.bare += 1,
            }
            counts.flows += u64::from(entry.flows);
            counts.rejected += u64::from(entry.rejected);
            counts.unanswered += u64::from(entry.unanswered);
            counts.refused += u64::from(entry.refused);
            counts.first_seen = counts.first_seen.min(entry.first_start);
        }
        counts
    }

    /// The failed and bare values of the window after the pane `before`, in order.
    pub(super) fn tried(&self, before: PaneIndex) -> impl Iterator<Item = T> {
        let is_tried = move |entry: &Entry<T>| {
            matches!(entry.standing(before), Standing::Failed | Standing::Bare)
        };
        self.entries().filter(is_tried).map(|entry| entry.value)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn attempt(value: u16, outcome: Outcome) -> Attempt<u16> {
        Attempt { value, outcome, flows: 1, rejected: 0, first_start: UnixSeconds(0) }
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop::sample::select(vec![
            Outcome::Answered,
            Outcome::Bare,
            Outcome::Refused,
            Outcome::Unanswered,
            Outcome::Rejected,
            Outcome::NotTried,
        ])
    }

    proptest! {
        #[test]
        fn windows_agree_with_a_list_of_everything(
            panes in prop::collection::vec(
                prop::collection::btree_map(0_u16..12, any_outcome(), 0..8), 1..20),
            window in 1_i64..12,
        ) {
            const LONGEST: i64 = 12;
            let mut distinct = Distinct::default();
            for (pane, values) in panes.iter().enumerate() {
                let pane = PaneIndex(i64::try_from(pane).unwrap());
                let attempts: Vec<_> =
                    values.iter().map(|(value, outcome)| attempt(*value, *outcome)).collect();
                distinct.add(pane, PaneIndex(pane.0 - LONGEST), &attempts);

                let from = usize::try_from((pane.0 - window + 1).max(0)).unwrap();
                let until = usize::try_from(pane.0).unwrap();
                let mut seen: BTreeMap<u16, Vec<Outcome>> = BTreeMap::new();
                for values in &panes[from..=until] {
                    for (value, outcome) in values {
                        seen.entry(*value).or_default().push(*outcome);
                    }
                }
                let having = |wanted: fn(Outcome) -> bool| -> BTreeSet<u16> {
                    seen.iter()
                        .filter(|(_, all)| all.iter().any(|outcome| wanted(*outcome)))
                        .map(|(value, _)| *value)
                        .collect()
                };
                let answered = having(|outcome| outcome == Outcome::Answered);
                let failed = &having(Outcome::is_failed) - &answered;
                let bare = &(&having(|outcome| outcome == Outcome::Bare) - &answered) - &failed;

                let before = PaneIndex(pane.0 - window);
                let counts = distinct.counts(before);
                prop_assert_eq!(
                    (counts.failed, counts.bare, counts.answered),
                    (failed.len() as u64, bare.len() as u64, answered.len() as u64)
                );
                let tried: BTreeSet<u16> = distinct.tried(before).collect();
                prop_assert_eq!(tried, &failed | &bare);
            }
        }
    }
}
