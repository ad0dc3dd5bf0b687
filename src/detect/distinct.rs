//! Distinct values over sliding windows of any length, exactly.
//!
//! For each value the set remembers in which pane it last failed and was last answered. A window that
//! ends with the current pane holds a value if its last pane lies in the window, so one set answers for
//! every window length; nothing is kept per pane. Most sets never see more than one value and keep it
//! without a list.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::once::TrackedValue;
use super::outcome::Outcome;
use crate::codec::{DecodeError, Decoder, Encoder};
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

/// An [`Entry`] in saved state.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct SavedEntry {
    value: u128,
    failed_in: i64,
    bare_in: i64,
    answered_in: i64,
    first_start: i64,
    flows: u32,
    rejected: u32,
    unanswered: u32,
    refused: u32,
}

impl SavedEntry {
    fn of<T: TrackedValue>(entry: &Entry<T>) -> Self {
        Self {
            value: entry.value.to_bits(),
            failed_in: entry.failed_in.0,
            bare_in: entry.bare_in.0,
            answered_in: entry.answered_in.0,
            first_start: entry.first_start.0,
            flows: entry.flows,
            rejected: entry.rejected,
            unanswered: entry.unanswered,
            refused: entry.refused,
        }
    }

    fn entry<T: TrackedValue>(&self) -> Option<Entry<T>> {
        Some(Entry {
            value: T::of_bits(self.value)?,
            failed_in: PaneIndex(self.failed_in),
            bare_in: PaneIndex(self.bare_in),
            answered_in: PaneIndex(self.answered_in),
            first_start: UnixSeconds(self.first_start),
            flows: self.flows,
            rejected: self.rejected,
            unanswered: self.unanswered,
            refused: self.refused,
        })
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

/// With more attempts than this, a pane's attempts are merged instead of put in one by one.
const INSERTIONS_MAX: usize = 8;

/// Distinct values over sliding windows.
#[derive(Clone, Debug)]
pub(super) enum Distinct<T> {
    /// The usual case.
    One(Entry<T>),
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
        if let [attempt] = attempts
            && let Some(entry) = self.only_entry(attempt.value)
        {
            entry.add(pane, attempt);
            if entry.last_pane() <= expired {
                *self = Self::default();
            }
            return;
        }
        let mut list = match std::mem::take(self) {
            Self::One(entry) => {
                let mut list = Vec::with_capacity(1 + attempts.len());
                list.push(entry);
                list
            }
            Self::Many(list) => list,
        };
        if attempts.len() <= INSERTIONS_MAX {
            attempts.iter().for_each(|attempt| insert(&mut list, pane, attempt));
        } else {
            list = merged(&list, pane, attempts);
        }
        list.retain(|entry| entry.last_pane() > expired);
        *self = match list[..] {
            [entry] => Self::One(entry),
            _ => {
                list.shrink_to(list.len() * 2);
                Self::Many(list)
            }
        };
    }

    /// The entry of a value, if the set has no other value.
    fn only_entry(&mut self, value: T) -> Option<&mut Entry<T>> {
        if self.len() == 0 {
            *self = Self::One(Entry::of(value));
        }
        match self {
            Self::One(entry) if entry.value == value => Some(entry),
            _ => None,
        }
    }

    fn entries(&self) -> &[Entry<T>] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(entries) => entries,
        }
    }

    /// The last pane in which any value was seen.
    pub(super) fn last_pane(&self) -> PaneIndex {
        self.entries().iter().map(Entry::last_pane).max().unwrap_or(NEVER)
    }

    /// Number of values kept.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(entries) => entries.len(),
        }
    }

    /// The most memory that is held beside the set itself, in bytes. It follows from the values alone, so
    /// that what leaves a full table does not depend on how lists have grown.
    pub(super) const fn heap_bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(entries) => Self::heap_bytes_of(entries.len()),
        }
    }

    /// As [`Self::heap_bytes`], for a number of values.
    pub(super) const fn heap_bytes_of(value_count: usize) -> usize {
        2 * value_count * size_of::<Entry<T>>()
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
        self.entries().iter().filter(move |entry| is_tried(entry)).map(|entry| entry.value)
    }
}

impl<T: TrackedValue> Distinct<T> {
    /// Saves the set.
    pub(super) fn save(&self, out: &mut Encoder) {
        out.count(self.len());
        self.entries().iter().for_each(|entry| out.raw(SavedEntry::of(entry).as_bytes()));
    }

    /// Loads what [`Self::save`] wrote.
    pub(super) fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let saved = from.plain::<SavedEntry>()?;
        let entries: Option<Vec<Entry<T>>> = saved.iter().map(SavedEntry::entry).collect();
        let entries = entries.ok_or(DecodeError::Invalid("value of a key"))?;
        if !entries.is_sorted_by(|one, next| one.value < next.value) {
            return Err(DecodeError::Invalid("order of values"));
        }
        Ok(match entries[..] {
            [entry] => Self::One(entry),
            _ => Self::Many(entries),
        })
    }
}

/// Adds an attempt to a list in the order of values.
fn insert<T: Copy + Ord>(list: &mut Vec<Entry<T>>, pane: PaneIndex, attempt: &Attempt<T>) {
    let position = match list.binary_search_by_key(&attempt.value, |entry| entry.value) {
        Ok(position) => position,
        Err(position) => {
            if list.len() == list.capacity() {
                // Most lists stay short: half as much again wastes less than doubling.
                list.reserve_exact(list.len() / 2 + 1);
            }
            list.insert(position, Entry::of(attempt.value));
            position
        }
    };
    list[position].add(pane, attempt);
}

/// A list in the order of values with attempts in the same order added.
fn merged<T: Copy + Ord>(
    list: &[Entry<T>],
    pane: PaneIndex,
    attempts: &[Attempt<T>],
) -> Vec<Entry<T>> {
    let mut merged: Vec<Entry<T>> = Vec::with_capacity(list.len() + attempts.len());
    let mut known = list.iter().copied().peekable();
    for attempt in attempts {
        while let Some(entry) = known.next_if(|entry| entry.value <= attempt.value) {
            merged.push(entry);
        }
        if merged.last().is_none_or(|last| last.value != attempt.value) {
            merged.push(Entry::of(attempt.value));
        }
        merged.last_mut().expect("pushed above").add(pane, attempt);
    }
    merged.extend(known);
    merged
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
                prop::collection::btree_map(0_u16..12, any_outcome(), 0..12), 1..20),
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
