//! Which range of time to ask for next: pure arithmetic on what was found.
//!
//! ```text
//! start ── piece ── piece ────── piece ──► now − lookback ─────── now
//!          each read to its last page       asked for again and again
//! ```
//!
//! History is read in pieces that are held to about [`PIECE_EVENTS`] events, because all that was taken of a
//! piece is remembered until its last page was read: the order of events within it does not matter. What is
//! younger than `lookback` may still get late events, and is asked for at every look.

/// So many events a piece of history should have.
const PIECE_EVENTS: u64 = 50_000;
/// The first piece; later ones grow and shrink with what is found.
const PIECE_MS_FIRST: i64 = 10_000;
/// Flow logs have timestamps of whole seconds.
const PIECE_MS_MIN: i64 = 1_000;
const PIECE_MS_MAX: i64 = 86_400_000;
const GROWTH_MAX: i64 = 4;

/// A range of time to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    /// Unix milliseconds of its begin.
    pub(super) from_ms: i64,
    /// Unix milliseconds of its end, which does not belong to it; `None` for all that there is.
    pub(super) until_ms: Option<i64>,
    /// Whether late events may still come, so that it will be asked for again.
    pub(super) is_recent: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask for this.
    Ask(Range),
    /// All was read for good.
    End,
}

/// The plan of a log group.
#[derive(Clone, Debug)]
pub(super) struct Ranges {
    end_ms: Option<i64>,
    lookback_ms: i64,
    piece_ms: i64,
    /// Whether history was read up to what was recent then. Recent events come next: history grows by some
    /// milliseconds with every call, and would never let them.
    is_caught_up: bool,
}

impl Ranges {
    /// A plan up to `end_ms`, or without an end.
    pub(super) const fn new(end_ms: Option<i64>, lookback_ms: i64) -> Self {
        Self { end_ms, lookback_ms, piece_ms: PIECE_MS_FIRST, is_caught_up: false }
    }

    /// What to ask for, if everything before `floor_ms` is done with.
    pub(super) fn next(&mut self, floor_ms: i64, now_ms: i64) -> Next {
        if self.end_ms.is_some_and(|end_ms| floor_ms >= end_ms) {
            return Next::End;
        }
        let settled_ms = now_ms.saturating_sub(self.lookback_ms);
        let history_ms = self.end_ms.map_or(settled_ms, |end_ms| end_ms.min(settled_ms));
        let was_caught_up = std::mem::take(&mut self.is_caught_up);
        if !was_caught_up && floor_ms < history_ms {
            let until_ms = history_ms.min(floor_ms.saturating_add(self.piece_ms));
            self.is_caught_up = until_ms == settled_ms;
            let until_ms = Some(until_ms);
            return Next::Ask(Range { from_ms: floor_ms, until_ms, is_recent: false });
        }
        Next::Ask(Range { from_ms: floor_ms, until_ms: self.end_ms, is_recent: true })
    }

    /// Takes how many events a piece of history had.
    pub(super) fn found(&mut self, event_count: u64) {
        let wanted = if event_count == 0 {
            self.piece_ms.saturating_mul(GROWTH_MAX)
        } else {
            let scaled =
                i128::from(self.piece_ms) * i128::from(PIECE_EVENTS) / i128::from(event_count);
            i64::try_from(scaled).unwrap_or(i64::MAX)
        };
        let largest = self.piece_ms.saturating_mul(GROWTH_MAX).min(PIECE_MS_MAX);
        self.piece_ms = wanted.clamp(PIECE_MS_MIN, largest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 3_600_000;

    fn history(from_ms: i64, until_ms: i64) -> Next {
        Next::Ask(Range { from_ms, until_ms: Some(until_ms), is_recent: false })
    }

    #[test]
    fn history_comes_in_pieces_and_the_present_again_and_again() {
        let mut ranges = Ranges::new(None, HOUR_MS);
        let now_ms = 10 * HOUR_MS;
        assert_eq!(ranges.next(0, now_ms), history(0, 10_000));
        ranges.found(0);
        assert_eq!(ranges.next(10_000, now_ms), history(10_000, 50_000));
        ranges.found(500_000);
        assert_eq!(ranges.next(50_000, now_ms), history(50_000, 54_000));
        let near = 9 * HOUR_MS - 1_000;
        let recent = Range { from_ms: 9 * HOUR_MS, until_ms: None, is_recent: true };
        for _ in 0..2 {
            assert_eq!(ranges.next(near, now_ms), history(near, 9 * HOUR_MS));
            // However long that took.
            assert_eq!(ranges.next(9 * HOUR_MS, now_ms + 60_000), Next::Ask(recent));
        }
    }

    #[test]
    fn an_end_is_reached_once_nothing_late_can_come() {
        let mut ranges = Ranges::new(Some(5_000), HOUR_MS);
        assert_eq!(ranges.next(0, 10 * HOUR_MS), history(0, 5_000));
        assert_eq!(ranges.next(5_000, 10 * HOUR_MS), Next::End);
        let recent = Range { from_ms: 1_000, until_ms: Some(5_000), is_recent: true };
        assert_eq!(ranges.next(1_000, 4_000), Next::Ask(recent));
        assert_eq!(ranges.next(1_000, HOUR_MS + 2_000), history(1_000, 2_000));
    }

    #[test]
    fn pieces_stay_within_their_limits() {
        let mut ranges = Ranges::new(None, 0);
        for _ in 0..100 {
            ranges.found(0);
        }
        assert_eq!(ranges.piece_ms, PIECE_MS_MAX);
        for _ in 0..100 {
            ranges.found(u64::MAX);
        }
        assert_eq!(ranges.piece_ms, PIECE_MS_MIN);
    }
}
