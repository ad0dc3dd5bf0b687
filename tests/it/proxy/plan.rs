//! What goes wrong with which call: drawn from a seed, within limits that let every run end.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::Duration;

/// A way for a call to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FaultKind {
    /// It is passed on late.
    Delay,
    /// The connection is reset; the call is not passed on.
    Reset,
    /// The connection stays open and nothing is said for a while; the call is not passed on.
    HalfOpen,
    /// It is refused because of a rate limit.
    Throttled,
    /// It is answered with status 500.
    Internal,
    /// It is answered with status 503.
    Unavailable,
    /// An iterator is refused as too old.
    IteratorExpired,
    /// It is passed on, and the connection is closed in place of the answer.
    Lost,
    /// The connection is closed within the head of the answer.
    CutHead,
    /// The connection is closed within the body of the answer, or after some of a stream's bytes.
    CutBody,
    /// A stream is ended in due form, anywhere in it.
    EndedEarly,
    /// The answer comes in small pieces, with pauses.
    Drip,
}

/// How often something goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) kind: FaultKind,
    /// Of a thousand calls.
    pub(crate) per_mille: u64,
    /// Most calls of one operation that it happens to one after the other.
    pub(crate) in_a_row_max: u32,
}

/// The faults of a run.
pub(crate) struct FaultPlan {
    seed: u64,
    rates: Vec<Rate>,
    /// Most calls of one operation that go wrong one after the other, in whatever way.
    in_a_row_max: u32,
    /// How long a half-open connection stays so.
    pub(crate) half_open: Duration,
    operations: BTreeMap<String, Operation>,
    /// What went wrong so far.
    pub(super) done: BTreeMap<FaultKind, u64>,
}

#[derive(Default)]
struct Operation {
    calls: u64,
    in_a_row: u32,
    last: Option<(FaultKind, u32)>,
}

/// What is to happen to a call.
pub(super) struct Drawn {
    pub(super) fault: Option<FaultKind>,
    /// For places and lengths within the fault.
    pub(super) dice: Dice,
}

impl FaultPlan {
    /// Faults at these rates.
    pub(crate) fn new(seed: u64, rates: Vec<Rate>) -> Self {
        Self {
            seed,
            rates,
            in_a_row_max: 3,
            half_open: Duration::from_secs(1),
            operations: BTreeMap::new(),
            done: BTreeMap::new(),
        }
    }

    /// Every kind of fault that a service may show, at rates that differ from seed to seed.
    pub(crate) fn everything(seed: u64) -> Self {
        use FaultKind::{
            CutBody, CutHead, Delay, Drip, EndedEarly, HalfOpen, Internal, IteratorExpired, Lost,
            Reset, Throttled, Unavailable,
        };
        let kinds = [
            Delay,
            Reset,
            Throttled,
            Internal,
            Unavailable,
            IteratorExpired,
            Lost,
            CutHead,
            CutBody,
            EndedEarly,
            Drip,
        ];
        let mut dice = Dice::new(seed);
        let mut rates: Vec<Rate> = kinds
            .into_iter()
            .map(|kind| Rate { kind, per_mille: dice.below(50), in_a_row_max: 2 })
            .collect();
        rates.push(Rate { kind: HalfOpen, per_mille: dice.below(10), in_a_row_max: 1 });
        Self::new(seed, rates)
    }

    /// What is to happen to the next call of an operation. The same seed gives the n-th call of an
    /// operation the same draw, however calls of different operations meet.
    pub(super) fn draw(&mut self, name: &str) -> Drawn {
        let operation = self.operations.entry(name.to_owned()).or_default();
        let mut hasher = crc32fast::Hasher::new();
        hasher.write(name.as_bytes());
        let mut dice = Dice::new(
            self.seed
                ^ (u64::from(hasher.finalize()) << 32)
                ^ operation.calls.wrapping_mul(0x9e37_79b9),
        );
        operation.calls += 1;
        let roll = dice.below(1000);
        let mut reached = 0;
        let drawn = self.rates.iter().find(|rate| {
            reached += rate.per_mille;
            roll < reached
        });
        let repeats = |kind| match operation.last {
            Some((last, count)) if last == kind => count,
            _ => 0,
        };
        let fault = drawn
            .filter(|_| operation.in_a_row < self.in_a_row_max)
            .filter(|rate| repeats(rate.kind) < rate.in_a_row_max)
            .map(|rate| rate.kind);
        operation.last = fault.map(|kind| (kind, repeats(kind) + 1));
        operation.in_a_row = if fault.is_some() { operation.in_a_row + 1 } else { 0 };
        if let Some(kind) = fault {
            *self.done.entry(kind).or_default() += 1;
        }
        Drawn { fault, dice }
    }
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`; 0 if that is 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next().checked_rem(end).unwrap_or(0)
    }

    /// A place before `length`.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }
}
