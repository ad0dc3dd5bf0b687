//! A key with a single attempt, between IPv4 addresses, in half a cache line: what most keys of a tracker
//! ever are.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::distinct::{Attempt, Distinct};
use super::outcome::Outcome;
use super::saved::Saved;
use crate::net::Addr;
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
pub(super) trait TrackedKey: Copy + Ord + std::hash::Hash + Saved {
    /// What there are many of to one key.
    type Value: TrackedValue;

    /// Key and value in the narrow form, if they fit.
    fn narrow(&self, value: Self::Value) -> Option<Narrow>;

    /// What [`Self::narrow`] was made of.
    fn of_narrow(narrow: Narrow) -> (Self, Self::Value);
}

/// A value of a tracker, which is a number.
pub(super) trait TrackedValue: Copy + Ord + std::fmt::Debug {
    /// The number.
    fn to_bits(self) -> u128;

    /// The value that has a number.
    fn of_bits(bits: u128) -> Option<Self>;
}

impl TrackedValue for u16 {
    fn to_bits(self) -> u128 {
        self.into()
    }

    fn of_bits(bits: u128) -> Option<Self> {
        bits.try_into().ok()
    }
}

impl TrackedValue for Addr {
    fn to_bits(self) -> u128 {
        self.bits()
    }

    fn of_bits(bits: u128) -> Option<Self> {
        Some(Self::v6(bits))
    }
}

/// A key with one attempt in one pane.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C, align(32))]
pub(super) struct Once {
    client: u32,
    server: u32,
    port: u16,
    protocol: u8,
    /// By [`outcome_number`]; [`GONE`] once the key is elsewhere.
    outcome: u8,
    pane: u32,
    flows: u32,
    rejected: u32,
    first_start: u32,
    unused: u32,
}

const _: () = assert!(size_of::<Once>() == 32);

/// Instead of the number of an outcome.
const GONE: u8 = 0;

const OUTCOMES: [Outcome; 5] =
    [Outcome::Answered, Outcome::Bare, Outcome::Refused, Outcome::Unanswered, Outcome::Rejected];

/// 1 for the first of [`OUTCOMES`].
fn outcome_number(outcome: Outcome) -> Option<u8> {
    (1..).zip(OUTCOMES).find(|(_, listed)| *listed == outcome).map(|(number, _)| number)
}

impl Once {
    /// The attempt in this form, if it fits and is one.
    pub(super) fn of<K: TrackedKey>(
        key: &K,
        pane: PaneIndex,
        attempt: &Attempt<K::Value>,
    ) -> Option<Self> {
        let Narrow { client, server, port, protocol } = key.narrow(attempt.value)?;
        Some(Self {
            client,
            server,
            port,
            protocol,
            outcome: outcome_number(attempt.outcome)?,
            pane: u32::try_from(pane.0).ok()?,
            flows: attempt.flows,
            rejected: attempt.rejected,
            first_start: u32::try_from(attempt.first_start.0).ok()?,
            unused: 0,
        })
    }

    const fn narrow(&self) -> Narrow {
        let Self { client, server, port, protocol, .. } = *self;
        Narrow { client, server, port, protocol }
    }

    /// The outcome; none if the key is elsewhere, and in bytes that were never saved.
    pub(super) fn outcome(&self) -> Option<Outcome> {
        OUTCOMES.get(usize::from(self.outcome.wrapping_sub(1))).copied()
    }

    /// Says that the key is elsewhere.
    pub(super) const fn become_gone(&mut self) {
        self.outcome = GONE;
    }

    /// Whether the key is elsewhere.
    pub(super) const fn is_gone(&self) -> bool {
        self.outcome == GONE
    }

    pub(super) fn key<K: TrackedKey>(&self) -> K {
        K::of_narrow(self.narrow()).0
    }

    pub(super) fn last_pane(&self) -> PaneIndex {
        PaneIndex(self.pane.into())
    }

    /// The values of the key.
    pub(super) fn distinct<K: TrackedKey>(&self) -> Distinct<K::Value> {
        let attempt = Attempt {
            value: K::of_narrow(self.narrow()).1,
            outcome: self.outcome().expect("the key is here"),
            flows: self.flows,
            rejected: self.rejected,
            first_start: UnixSeconds(self.first_start.into()),
        };
        let mut distinct = Distinct::default();
        distinct.add(self.last_pane(), PaneIndex(i64::MIN), &[attempt]);
        distinct
    }
}
