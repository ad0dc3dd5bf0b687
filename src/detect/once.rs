//! A key with a single attempt, between IPv4 addresses, in half a cache line: what most keys of a tracker
//! ever are.

use super::distinct::{Attempt, Distinct};
use super::outcome::Outcome;
use crate::units::{PaneIndex, UnixSeconds};

/// A key and a value between two IPv4 addresses, in the words of a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Narrow {
    pub(super) client: u32,
    pub(super) server: u32,
    pub(super) port: u16,
    pub(super) protocol: u8,
}

/// A key of a tracker, which together with one of its values names a contact.
pub(super) trait TrackedKey: Copy + Ord + std::hash::Hash {
    /// What there are many of to one key.
    type Value: Copy + Ord + std::fmt::Debug;

    /// Key and value in the narrow form, if they fit.
    fn narrow(&self, value: Self::Value) -> Option<Narrow>;

    /// What [`Self::narrow`] was made of.
    fn of_narrow(narrow: Narrow) -> (Self, Self::Value);
}

/// A key with one attempt in one pane.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct Once {
    narrow: Narrow,
    outcome: Outcome,
    pane: u32,
    flows: u32,
    rejected: u32,
    first_start: u32,
}

const _: () = assert!(size_of::<Once>() == 32);

impl Once {
    /// The attempt in this form, if it fits and is one.
    pub(super) fn of<K: TrackedKey>(
        key: &K,
        pane: PaneIndex,
        attempt: &Attempt<K::Value>,
    ) -> Option<Self> {
        if attempt.outcome == Outcome::NotTried {
            return None;
        }
        Some(Self {
            narrow: key.narrow(attempt.value)?,
            outcome: attempt.outcome,
            pane: u32::try_from(pane.0).ok()?,
            flows: attempt.flows,
            rejected: attempt.rejected,
            first_start: u32::try_from(attempt.first_start.0).ok()?,
        })
    }

    pub(super) fn key<K: TrackedKey>(&self) -> K {
        K::of_narrow(self.narrow).0
    }

    pub(super) fn last_pane(&self) -> PaneIndex {
        PaneIndex(self.pane.into())
    }

    /// The values of the key.
    pub(super) fn distinct<K: TrackedKey>(&self) -> Distinct<K::Value> {
        let attempt = Attempt {
            value: K::of_narrow(self.narrow).1,
            outcome: self.outcome,
            flows: self.flows,
            rejected: self.rejected,
            first_start: UnixSeconds(self.first_start.into()),
        };
        let mut distinct = Distinct::default();
        distinct.add(self.last_pane(), PaneIndex(i64::MIN), &[attempt]);
        distinct
    }
}
