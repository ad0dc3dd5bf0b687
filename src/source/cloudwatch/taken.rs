//! Which events of a log group were handed on, so that none comes twice: not at the border of two pages,
//! not when a range is asked for again, not after a restart.
//!
//! Only events of the range that may be asked for again are kept, and at most [`TAKEN_MAX`] of them: about
//! 60 bytes each.

use std::sync::Arc;

use hashbrown::HashMap;
use md5::{Digest as _, Md5};

use crate::framing::{LogGroupPlace, TakenEvent, TakenEvents};

/// Most events of one log group that are remembered.
pub(super) const TAKEN_MAX: usize = 1_000_000;
/// Runs that a place may have; more are put together.
const RUNS_MAX: usize = 256;

/// The events that were taken at and after a moment.
#[derive(Debug)]
pub(super) struct Taken {
    place: LogGroupPlace,
    known: HashMap<u128, i64>,
    limit: usize,
}

/// An event by its timestamp and the digest of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventMark {
    pub(super) timestamp_ms: i64,
    pub(super) digest: u128,
}

impl EventMark {
    /// The mark of an event.
    pub(super) fn of(timestamp_ms: i64, event_id: &str) -> Self {
        let digest = u128::from_be_bytes(Md5::digest(event_id).into());
        Self { timestamp_ms, digest }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the halves of a number of 128 bits")]
    const fn stored(self) -> TakenEvent {
        let [high, low] = [(self.digest >> 64) as u64, self.digest as u64];
        [self.timestamp_ms.cast_unsigned(), high, low]
    }

    fn from_stored([timestamp, high, low]: TakenEvent) -> Self {
        let digest = u128::from(high) << 64 | u128::from(low);
        Self { timestamp_ms: timestamp.cast_signed(), digest }
    }
}

/// That no more events can be remembered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Taken {
    /// Goes on at a place.
    pub(super) fn at(place: LogGroupPlace) -> Self {
        Self::with_limit(place, TAKEN_MAX)
    }

    fn with_limit(place: LogGroupPlace, limit: usize) -> Self {
        let marks = place.taken.iter().copied().map(EventMark::from_stored);
        let known = marks.map(|mark| (mark.digest, mark.timestamp_ms)).collect();
        Self { place, known, limit }
    }

    /// Everything before this moment is done with.
    pub(super) const fn floor_ms(&self) -> i64 {
        self.place.floor_ms
    }

    /// Whether an event was taken.
    pub(super) fn contains(&self, mark: EventMark) -> bool {
        self.known.contains_key(&mark.digest)
    }

    /// Takes events that were not taken before, and gives the place after them.
    ///
    /// # Errors
    /// [`Full`] if there are more than can be remembered; the place then knows of none of these.
    pub(super) fn take(
        &mut self,
        marks: &[EventMark],
    ) -> Result<LogGroupPlace, (LogGroupPlace, Full)> {
        if self.known.len() + marks.len() > self.limit {
            return Err((self.place.clone(), Full));
        }
        self.known.extend(marks.iter().map(|mark| (mark.digest, mark.timestamp_ms)));
        let run: Arc<[TakenEvent]> = marks.iter().map(|mark| mark.stored()).collect();
        let runs = &mut self.place.taken.runs;
        runs.push(run);
        if runs.len() > RUNS_MAX {
            self.gather();
        }
        Ok(self.place.clone())
    }

    /// Everything before a moment is done with; it never goes back.
    pub(super) fn raise_floor(&mut self, floor_ms: i64) {
        if floor_ms <= self.place.floor_ms {
            return;
        }
        self.place.floor_ms = floor_ms;
        let count_before = self.known.len();
        self.known.retain(|_, timestamp_ms| *timestamp_ms >= floor_ms);
        if self.known.len() < count_before {
            self.gather();
        }
    }

    /// The moment since which half of the events were taken.
    pub(super) fn median_ms(&self) -> i64 {
        let mut timestamps: Vec<i64> = self.known.values().copied().collect();
        let middle = timestamps.len() / 2;
        if timestamps.is_empty() {
            return self.place.floor_ms;
        }
        *timestamps.select_nth_unstable(middle).1
    }

    /// Puts all runs together.
    fn gather(&mut self) {
        let marks = self.known.iter();
        let stored = marks.map(|(digest, timestamp_ms)| {
            EventMark { timestamp_ms: *timestamp_ms, digest: *digest }.stored()
        });
        let run: Arc<[TakenEvent]> = stored.collect();
        let runs = if run.is_empty() { Vec::new() } else { vec![run] };
        self.place.taken = TakenEvents { runs };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(timestamp_ms: i64) -> EventMark {
        EventMark::of(timestamp_ms, &timestamp_ms.to_string())
    }

    fn taken(limit: usize) -> Taken {
        Taken::with_limit(LogGroupPlace::default(), limit)
    }

    #[test]
    fn what_was_taken_is_known_after_a_restart() {
        let mut before = taken(9);
        before.take(&[mark(1), mark(2)]).unwrap();
        let place = before.take(&[mark(-3), mark(4)]).unwrap();
        let after = Taken::at(place);
        for timestamp_ms in [1, 2, -3, 4] {
            assert!(after.contains(mark(timestamp_ms)), "{timestamp_ms}");
        }
        assert!(!after.contains(mark(5)));
        assert_eq!(after.known.len(), 4);
    }

    #[test]
    fn what_is_before_the_floor_is_forgotten() {
        let mut taken = taken(9);
        taken.take(&[mark(10), mark(20), mark(30)]).unwrap();
        taken.raise_floor(20);
        taken.raise_floor(15);
        assert_eq!((taken.floor_ms(), taken.known.len()), (20, 2));
        assert!(!taken.contains(mark(10)) && taken.contains(mark(20)));
        let place = taken.take(&[mark(40)]).unwrap();
        assert_eq!(Taken::at(place).known.len(), 3);
    }

    #[test]
    fn the_limit_is_kept() {
        let mut taken = taken(4);
        taken.take(&[mark(10), mark(20), mark(30)]).unwrap();
        let (place, _) = taken.take(&[mark(40), mark(50)]).unwrap_err();
        assert_eq!(Taken::at(place).known.len(), 3);
        assert_eq!(taken.median_ms(), 20);
        taken.raise_floor(taken.median_ms() + 1);
        taken.take(&[mark(40), mark(50)]).unwrap();
        assert_eq!(taken.known.len(), 3);
    }

    #[test]
    fn many_runs_become_one() {
        let mut taken = taken(10_000);
        for timestamp_ms in 0..1_000 {
            let place = taken.take(&[mark(timestamp_ms)]).unwrap();
            assert!(place.taken.runs.len() <= RUNS_MAX);
            assert_eq!(place.taken.iter().count(), taken.known.len());
        }
    }
}
