//! How late a record of an input may be, found out from the input's own records.
//!
//! Two things show it: how long the intervals are that records stand for (flow logs aggregate over 60 or
//! 600 seconds), and how far out of order they come. An input begins with the lateness of 600 s logs. Once
//! it has shown enough records, over enough event time, all of them of short intervals, twice the disorder
//! that it has shown is enough, but no less than two minutes. One long interval, or disorder that needs
//! more, and it goes back for good.
//!
//! Everything depends on the records before in the same input only, one by one, so that neither cuts nor
//! threads matter; a batch in which nothing is decided costs one pass over two columns.

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::record::ColumnView;
use crate::units::UnixSeconds;

/// How far behind the newest record of its input a record may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lateness {
    /// As many seconds, whatever the records show.
    Fixed(i64),
    /// What the records of each input show, between two minutes and ten.
    Detected,
}

/// What holds until an input has shown otherwise: the lateness for intervals of 600 seconds.
pub const LATENESS_SECONDS_MAX: i64 = 600;
/// The least that is ever detected: the lateness for intervals of 60 seconds.
pub const LATENESS_SECONDS_MIN: i64 = 120;

/// Longest interval in logs that aggregate over 60 s; they go over it by a second or two.
const SHORT_INTERVAL_SECONDS: i64 = 75;
/// Shortest interval that only logs that aggregate over 600 s have.
const LONG_INTERVAL_SECONDS: i64 = SHORT_INTERVAL_SECONDS + 1;
/// An interval longer than this is none of AWS's: its `start` is broken and says nothing.
const INTERVAL_SECONDS_MAX: i64 = 900;
/// Records with an interval before anything is decided.
const LEARNT_RECORDS: u32 = 4_096;
/// Event time before anything is decided: disorder of a length shows only over more than its length.
const LEARNT_SECONDS: i64 = 300;
/// Disorder is told in steps, so that most batches don't change it.
const STEP_SECONDS: i64 = 30;
const DISORDER_SECONDS_MIN: i64 = LATENESS_SECONDS_MIN / 2;
const DISORDER_SECONDS_MAX: i64 = LATENESS_SECONDS_MAX / 2;

const _: () = assert!(DISORDER_SECONDS_MIN % STEP_SECONDS == 0);
const _: () = assert!(DISORDER_SECONDS_MAX % STEP_SECONDS == 0);

/// What an input has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Habits {
    /// Records with a short interval, as far as they are counted.
    record_count: u32,
    /// `end` of the first of them.
    first_end: Option<UnixSeconds>,
    /// No less than the greatest disorder, in steps; the greatest there is once an interval was long.
    disorder_seconds: i64,
}

impl Habits {
    pub(super) const fn unknown() -> Self {
        Self { record_count: 0, first_end: None, disorder_seconds: DISORDER_SECONDS_MIN }
    }

    /// The lateness that fits, if `latest_end` is the newest `end`.
    pub(super) fn lateness_seconds(&self, latest_end: UnixSeconds) -> i64 {
        if self.is_learnt(latest_end) { 2 * self.disorder_seconds } else { LATENESS_SECONDS_MAX }
    }

    /// Whether no record can change anything any more.
    pub(super) const fn is_settled(&self) -> bool {
        self.disorder_seconds == DISORDER_SECONDS_MAX
    }

    fn is_learnt(&self, latest_end: UnixSeconds) -> bool {
        let shown = |first: UnixSeconds| latest_end.0.saturating_sub(first.0) >= LEARNT_SECONDS;
        self.record_count >= LEARNT_RECORDS && self.first_end.is_some_and(shown)
    }

    /// Takes a record: its `start`, if it has one, its `end`, and the newest `end` up to it.
    pub(super) fn see(&mut self, start: Option<i64>, end: UnixSeconds, latest_end: UnixSeconds) {
        let behind = latest_end.0.saturating_sub(end.0);
        if behind > self.disorder_seconds && behind <= LATENESS_SECONDS_MAX {
            let steps = behind.saturating_add(STEP_SECONDS - 1) / STEP_SECONDS;
            self.disorder_seconds = (steps * STEP_SECONDS).min(DISORDER_SECONDS_MAX);
        }
        let Some(interval) = start.map(|start| end.0.wrapping_sub(start)) else { return };
        match interval {
            0..=SHORT_INTERVAL_SECONDS => {
                self.first_end = self.first_end.or(Some(end));
                self.record_count = (self.record_count + 1).min(LEARNT_RECORDS);
            }
            LONG_INTERVAL_SECONDS..=INTERVAL_SECONDS_MAX => {
                self.disorder_seconds = DISORDER_SECONDS_MAX;
            }
            _ => {}
        }
    }

    /// Takes a batch if that changes nothing but how much was shown; otherwise leaves all as it was and
    /// says so. `least` is the least of `ends`; `latest_before` and `latest_end` are the newest `end`s before
    /// the batch and up to its end.
    pub(super) fn see_all(
        &mut self,
        starts: Option<ColumnView<'_, i64>>,
        ends: &[i64],
        least: UnixSeconds,
        (latest_before, latest_end): (UnixSeconds, UnixSeconds),
    ) -> bool {
        if latest_end.0.saturating_sub(least.0) > self.disorder_seconds {
            return false;
        }
        let Some(starts) = starts else { return true };
        if !starts.is_dense() || !are_short(starts.raw(), ends) {
            return false;
        }
        let row_count = u32::try_from(ends.len()).expect("a batch has far fewer than 2^32 rows");
        let first_end = self.first_end.or_else(|| ends.first().copied().map(UnixSeconds));
        let record_count = self.record_count.saturating_add(row_count).min(LEARNT_RECORDS);
        let after = Self { record_count, first_end, ..*self };
        // Where between its rows the lateness changes is for `see` to say.
        let decides = after.is_learnt(latest_end) && !self.is_learnt(latest_before);
        if !decides {
            *self = after;
        }
        !decides
    }

    pub(super) fn save(&self, out: &mut Encoder) {
        out.u32(self.record_count);
        out.option(self.first_end, |out, first| out.i64(first.0));
        out.i64(self.disorder_seconds);
    }

    pub(super) fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let record_count = from.u32()?;
        let first_end = from.option(Decoder::i64)?.map(UnixSeconds);
        let disorder_seconds = from.i64()?;
        let is_step = disorder_seconds % STEP_SECONDS == 0;
        let is_within = (DISORDER_SECONDS_MIN..=DISORDER_SECONDS_MAX).contains(&disorder_seconds);
        if record_count > LEARNT_RECORDS || !is_step || !is_within {
            return Err(DecodeError::Invalid("habits of an input"));
        }
        Ok(Self { record_count, first_end, disorder_seconds })
    }
}

/// Whether every interval is short: a difference out of bounds sets the sign of one of two numbers, which
/// needs no comparison, so that the loop is a few vector instructions.
fn are_short(starts: &[i64], ends: &[i64]) -> bool {
    assert_eq!(starts.len(), ends.len(), "a row has both");
    let signs = starts.iter().zip(ends).fold(0, |signs, (start, end)| {
        let interval = end.wrapping_sub(*start);
        signs | interval | SHORT_INTERVAL_SECONDS.wrapping_sub(interval)
    });
    signs >= 0
}
