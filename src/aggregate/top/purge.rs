//! What leaves a table at its limit: the half of the entries that may have the least of the metric.
//!
//! Each entry is ranked by the most that its key may have had: its value and what it may have lost. Half of
//! the entries go at once, ties by hash, so that a purge costs a few nanoseconds per key that came since
//! the last one, whatever comes. The bounds that this gives are told in `loss`. Entries of a table from which
//! others are rolled up leave their sums to those tables and are no loss to them.
//!
//! Where distinct values are counted, keys with many of them get a sketch first ([`SKETCH_VALUES_MIN`]).
//! If that makes room no key leaves; else keys leave until the values fit too. The tables of keys may take
//! half of the memory there.

use super::carries::Carries;
use super::distinct::{SKETCH_VALUES_MIN, Tally};
use super::loss::Loss;
use super::plan::TopPlan;
use super::roll_up::RollUp;
use super::sums::{Added, AnyKey, More, Narrow, TopTable};
use super::{Metric, TopSpec};
use crate::aggregate::table::{ByteSet, Counts, Key, Mixer, WideKey};

/// Makes room for more in the table of question `index`.
pub(super) fn purge(tables: &mut [TopTable], plan: &TopPlan, index: usize, more: More) {
    let (before, rest) = tables.split_at_mut(index);
    let (table, after) = rest.split_first_mut().expect("a question's table");
    let others = before.iter_mut().chain(after);
    let rules = plan.tops[..index].iter().chain(&plan.tops[index + 1..]);
    let spec = table.spec.clone();
    let mut derived: Vec<RollUp<'_>> = others
        .zip(rules)
        .filter(|(_, rule)| rule.base == Some(index))
        .map(|(other, _)| RollUp::of_all(&spec, other))
        .collect();
    table.purge(more, &mut derived);
    derived.iter_mut().for_each(|roll_up| roll_up.finish(None));
}

/// What entries are ranked by.
struct Survey<'a> {
    metric: &'a Metric,
    carries: &'a Carries,
    loss: &'a Loss,
    tally: Option<&'a Tally>,
}

impl Survey<'_> {
    /// The most that the key may have had.
    fn most(&self, counts: &Counts) -> u128 {
        let count = self.tally.map(|tally| tally.of(counts));
        let sums = self.carries.sums(counts);
        let value = self.metric.value(&sums, count.map(|count| count.values + count.error));
        value + self.loss.of(counts.number)
    }

    /// The same in 64 bits.
    fn rank(&self, counts: &Counts) -> u64 {
        u64::try_from(self.most(counts)).unwrap_or(u64::MAX)
    }
}

/// Which entries leave: those of less than `rank`, and those of just that whose hash is at most `tie`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    rank: u64,
    tie: u64,
}

impl Cut {
    fn takes(self, rank: u64, hash: impl FnOnce() -> u64) -> bool {
        rank < self.rank || rank == self.rank && hash() <= self.tie
    }
}

/// Numbers for the keys that stay.
struct Renumbering {
    last_sketched: u32,
    last_number: u32,
    /// The new number at the place of the old one, 0 if the key left; where values hang on it.
    numbers: Vec<u32>,
    carries: Carries,
    loss: Loss,
    /// Numbers and marks of the keys with sketches.
    marks: Vec<(u32, u32)>,
    left: u64,
    greatest: u128,
}

impl Renumbering {
    fn stay(&mut self, counts: &mut Counts, is_sketched: bool, survey: &Survey<'_>) {
        let last = if is_sketched { &mut self.last_sketched } else { &mut self.last_number };
        *last += 1;
        let (number, old) = (*last, counts.number);
        if is_sketched {
            self.marks.push((number, counts.mark));
        }
        if let Some(place) = self.numbers.get_mut(old as usize) {
            *place = number;
        }
        self.carries.take_over(number, survey.carries, old);
        self.loss.take_over(number, survey.loss, old);
        counts.number = number;
    }

    fn leave(&mut self, counts: &Counts, survey: &Survey<'_>) -> Added {
        self.left += 1;
        self.greatest = self.greatest.max(survey.most(counts));
        Added { sums: survey.carries.sums(counts), number: counts.number, mark: 0 }
    }
}

impl TopTable {
    /// Makes room for more. The sums of what leaves go to `derived`.
    pub(super) fn purge(&mut self, more: More, derived: &mut [RollUp<'_>]) {
        let tally = self.distinct.as_ref().map(|values| values.tally(self.last_number));
        let cut = match &tally {
            None => self.cut(self.len().div_ceil(2), None),
            Some(tally) => self.cut_of_values(tally, more),
        };
        let has_many = |counts: &Counts| {
            tally.as_ref().is_some_and(|tally| tally.of(counts).values >= SKETCH_VALUES_MIN)
        };
        self.rebuild(cut, tally.as_ref(), has_many, derived);
    }

    /// The cut that takes `leaving` entries.
    fn cut(&self, leaving: usize, tally: Option<&Tally>) -> Option<Cut> {
        let last = leaving.checked_sub(1)?;
        let survey = self.survey(tally);
        let mut ranks: Vec<u64> = Vec::with_capacity(self.len());
        self.for_each(|_, counts| ranks.push(survey.rank(counts)));
        let (_, rank, _) = ranks.select_nth_unstable(last);
        let rank = *rank;
        let below = ranks.iter().filter(|other| **other < rank).count();
        let ties = ranks.iter().filter(|other| **other == rank).count();
        let wanted = leaving - below;
        if wanted == ties {
            return Some(Cut { rank, tie: u64::MAX });
        }
        let mixer = Mixer::with_seed(self.seed);
        ranks.clear();
        self.for_each(|key, counts| {
            if survey.rank(counts) == rank {
                ranks.push(hash_of(key, &mixer));
            }
        });
        let (_, tie, _) = ranks.select_nth_unstable(wanted - 1);
        Some(Cut { rank, tie: *tie })
    }

    /// The cut that leaves a quarter of the memory free, once keys with many values have sketches.
    fn cut_of_values(&self, tally: &Tally, more: More) -> Option<Cut> {
        let survey = self.survey(Some(tally));
        let mixer = Mixer::with_seed(self.seed);
        let (now, later) = (self.key_bytes(), self.key_bytes_with(more));
        let is_keys_turn = later > now || now > self.bytes_max / 2;
        let mut staying = if is_keys_turn { self.len() / 2 } else { self.len() };
        let values_max = (self.bytes_max / 4 * 3).saturating_sub(now).max(self.bytes_max / 8);
        loop {
            let cut = self.cut(self.len() - staying, Some(tally));
            let mut bytes = 0;
            self.for_each(|key, counts| {
                let leaves =
                    cut.is_some_and(|cut| cut.takes(survey.rank(counts), || hash_of(key, &mixer)));
                bytes += if leaves { 0 } else { tally.of(counts).bytes };
            });
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            if staying == 0 || bytes <= values_max {
                return cut;
            }
            staying /= 2;
        }
    }

    fn survey<'a>(&'a self, tally: Option<&'a Tally>) -> Survey<'a> {
        let Self { spec, carries, loss, .. } = self;
        Survey { metric: &spec.metric, carries, loss, tally }
    }

    /// Gives the keys that `cut` does not take new numbers, and sketches to those for which `has_many`
    /// holds; returns the new numbers by the old ones if the metric is distinct values.
    pub(super) fn rebuild(
        &mut self,
        cut: Option<Cut>,
        tally: Option<&Tally>,
        has_many: impl Fn(&Counts) -> bool,
        derived: &mut [RollUp<'_>],
    ) -> Vec<u32> {
        let mixer = Mixer::with_seed(self.seed);
        let sketch_count = self.sketch_count_after(cut, tally, &has_many, &mixer);
        let Self { spec, seed, narrow, wide, long_keys, carries, loss, distinct, .. } = self;
        let TopSpec { metric, .. } = spec;
        let survey = Survey { metric, carries, loss, tally };
        let number_count = distinct.as_ref().map_or(0, |_| self.last_number as usize + 1);
        let mut next = Renumbering {
            last_sketched: 0,
            last_number: sketch_count,
            numbers: vec![0; number_count],
            carries: Carries::default(),
            loss: survey.loss.renumbered(),
            marks: Vec::new(),
            left: 0,
            greatest: 0,
        };
        let is_sketched = |counts: &Counts| {
            distinct.as_ref().is_some_and(|values| values.is_sketched(counts.number))
                || has_many(counts)
        };
        let leaves = |key: AnyKey<'_>, counts: &Counts| {
            cut.is_some_and(|cut| cut.takes(survey.rank(counts), || hash_of(key, &mixer)))
        };
        let keep_narrow = |key: u64, counts: &mut Counts| {
            if leaves(AnyKey::Narrow(key), counts) {
                let added = next.leave(counts, &survey);
                derived.iter_mut().for_each(|roll_up| roll_up.add_narrow(key, added, None));
                return false;
            }
            next.stay(counts, is_sketched(counts), &survey);
            true
        };
        match narrow {
            Narrow::Hashed(table) => {
                let mut keep_narrow = keep_narrow;
                table.retain(|key, counts| keep_narrow(*key, counts));
            }
            Narrow::Dense(table) => table.retain(keep_narrow),
        }
        wide.retain(|key, counts| {
            if leaves(AnyKey::Wide(key), counts) {
                let added = next.leave(counts, &survey);
                let packed = key.bytes(|place, length| long_keys.get(place, length));
                derived.iter_mut().for_each(|roll_up| roll_up.add_packed(packed, added, None));
                return false;
            }
            next.stay(counts, is_sketched(counts), &survey);
            true
        });
        if long_keys.len() > 0 {
            let mut staying = ByteSet::new(*seed);
            wide.rekey(|key| {
                if let Some((place, length)) = key.long() {
                    let bytes = long_keys.get(place, length);
                    *key = WideKey::new(bytes, || staying.insert(bytes));
                }
            });
            *long_keys = staying;
        }
        let Renumbering { last_number, numbers, carries, mut loss, marks, left, greatest, .. } =
            next;
        if left > 0 {
            loss.entries_left(left, greatest, last_number);
        }
        if let Some(values) = distinct {
            values.renumber(&numbers, sketch_count, &marks);
        }
        (self.carries, self.loss, self.last_number) = (carries, loss, last_number);
        assert_eq!(self.len(), last_number as usize, "every key that stays has a number");
        numbers
    }

    /// How many keys have a sketch when those that `cut` takes are gone.
    fn sketch_count_after(
        &self,
        cut: Option<Cut>,
        tally: Option<&Tally>,
        has_many: impl Fn(&Counts) -> bool,
        mixer: &Mixer,
    ) -> u32 {
        let Some(values) = &self.distinct else { return 0 };
        let survey = self.survey(tally);
        let mut count = 0;
        self.for_each(|key, counts| {
            let is_sketched = values.is_sketched(counts.number) || has_many(counts);
            let leaves = |cut: Cut| cut.takes(survey.rank(counts), || hash_of(key, mixer));
            count += u32::from(is_sketched && !cut.is_some_and(leaves));
        });
        count
    }
}

fn hash_of(key: AnyKey<'_>, mixer: &Mixer) -> u64 {
    match key {
        AnyKey::Narrow(key) => key.hash(mixer),
        AnyKey::Wide(key) => key.hash(mixer),
    }
}
