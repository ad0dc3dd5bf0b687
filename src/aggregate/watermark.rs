//! How far event time has come: per input, and for the whole pipeline.
//!
//! An input's watermark is the greatest `end` it has shown less the allowed lateness. The pipeline's is the
//! least of its inputs' that are neither finished nor silent. A record behind its input's
//! watermark is late: it counts in totals and tops and is left out of windows. Because that rule
//! only looks at what came before in the same input, it gives the same answer however the input
//! is cut into chunks and however many threads there are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::route::{Rows, row_number};
use super::row_bits::least_and_greatest;
use crate::framing::InputId;
use crate::record::ColumnView;
use crate::units::UnixSeconds;

/// What is known of an input's progress.
#[derive(Clone, Copy, Debug)]
struct InputProgress {
    latest_end: UnixSeconds,
    finished: bool,
    last_data_at: Duration,
}

/// Settings of event time.
#[derive(Clone, Copy, Debug)]
pub struct TimeSettings {
    /// How far behind the newest record of its input a record may be.
    pub lateness_seconds: i64,
    /// Wall time after which a silent input no longer holds the others back; `None` for bounded inputs,
    /// which are never silent, only slow.
    pub idle_after: Option<Duration>,
    /// Records that end later than this do not move time: a broken clock must not close every window.
    pub latest_plausible_end: UnixSeconds,
}

/// The watermarks of a run.
#[derive(Debug)]
pub struct Watermarks {
    settings: TimeSettings,
    inputs: BTreeMap<InputId, InputProgress>,
    /// Bounded inputs that were announced and are not open yet; while there is one, time stands still.
    unopened_count: usize,
    current: UnixSeconds,
}

impl Watermarks {
    /// Watermarks before any input; `expected_inputs` are waited for before time moves.
    #[must_use]
    pub const fn new(settings: TimeSettings, expected_inputs: usize) -> Self {
        Self {
            settings,
            inputs: BTreeMap::new(),
            unopened_count: expected_inputs,
            current: UnixSeconds::MIN,
        }
    }

    /// An input begins.
    pub fn open(&mut self, input: InputId, now: Duration) {
        self.unopened_count = self.unopened_count.saturating_sub(1);
        let progress =
            InputProgress { latest_end: UnixSeconds::MIN, finished: false, last_data_at: now };
        self.inputs.insert(input, progress);
    }

    /// An input ends and no longer holds others back.
    pub fn finish(&mut self, input: InputId) {
        if let Some(progress) = self.inputs.get_mut(&input) {
            progress.finished = true;
        }
    }

    /// Takes `end`s of an input's next records in order, those in `rows`, and returns the rows that are
    /// behind the watermark.
    ///
    /// Most batches have none, which their least and greatest `end` show: if the least is not behind the
    /// watermark that the greatest makes, no row is behind any watermark on the way there.
    pub fn observe(
        &mut self,
        input: InputId,
        now: Duration,
        ends: &ColumnView<'_, i64>,
        rows: Rows<'_>,
    ) -> Vec<u32> {
        let Some(progress) = self.inputs.get_mut(&input) else {
            unreachable!("the sequencer opens an input before its data")
        };
        progress.last_data_at = now;
        let (settings, current) = (&self.settings, self.current);
        if ends.is_dense() && matches!(rows, Rows::All(_)) {
            let Some((least, greatest)) = least_and_greatest(ends.raw()) else { return Vec::new() };
            let latest_end = progress.latest_end.max(UnixSeconds(greatest));
            let watermark = latest_end.saturating_add(-settings.lateness_seconds).max(current);
            if greatest <= settings.latest_plausible_end.0 && least >= watermark.0 {
                progress.latest_end = latest_end;
                return Vec::new();
            }
        }
        observe_rows(progress, settings, current, rows.map(|row| (row_number(row), ends.get(row))))
    }

    /// The pipeline's watermark at wall time `now`: every pane that ends by it is complete. Never
    /// goes back.
    pub fn advance(&mut self, now: Duration) -> UnixSeconds {
        if self.unopened_count == 0 {
            self.current = self.current.max(self.least_of_active(now));
        }
        self.current
    }

    /// The watermark that was last given out.
    #[must_use]
    pub const fn current(&self) -> UnixSeconds {
        self.current
    }

    fn least_of_active(&self, now: Duration) -> UnixSeconds {
        let mut least: Option<UnixSeconds> = None;
        let mut newest_of_idle = UnixSeconds::MIN;
        for progress in self.inputs.values().filter(|progress| !progress.finished) {
            let silent_for = now.saturating_sub(progress.last_data_at);
            if self.settings.idle_after.is_some_and(|limit| silent_for >= limit) {
                // A silent input's own time goes on with the wall, so that its last panes close too.
                let silent_seconds = i64::try_from(silent_for.as_secs()).unwrap_or(i64::MAX);
                if progress.latest_end > UnixSeconds::MIN {
                    newest_of_idle =
                        newest_of_idle.max(progress.latest_end.saturating_add(silent_seconds));
                }
            } else {
                least = Some(least.map_or(progress.latest_end, |l| l.min(progress.latest_end)));
            }
        }
        match least.unwrap_or(newest_of_idle) {
            UnixSeconds::MIN => UnixSeconds::MIN,
            end => end.saturating_add(-self.settings.lateness_seconds),
        }
    }
}

/// The rule, row by row: a record is late if it is behind what came before it and itself.
fn observe_rows(
    progress: &mut InputProgress,
    settings: &TimeSettings,
    current: UnixSeconds,
    ends: impl Iterator<Item = (u32, Option<i64>)>,
) -> Vec<u32> {
    let mut late = Vec::new();
    for (row, end) in ends {
        let Some(end) = end.map(UnixSeconds) else { continue };
        if end > progress.latest_end && end <= settings.latest_plausible_end {
            progress.latest_end = end;
        }
        let watermark = progress.latest_end.saturating_add(-settings.lateness_seconds).max(current);
        if end < watermark || end > settings.latest_plausible_end {
            late.push(row);
        }
    }
    late
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: InputId = InputId(0);
    const B: InputId = InputId(1);

    fn watermarks(expected_inputs: usize, idle_after: Option<Duration>) -> Watermarks {
        let latest_plausible_end = UnixSeconds(1_000_000);
        let settings = TimeSettings { lateness_seconds: 100, idle_after, latest_plausible_end };
        Watermarks::new(settings, expected_inputs)
    }

    fn observe(marks: &mut Watermarks, input: InputId, at: Duration, ends: &[i64]) -> Vec<u32> {
        let column = ColumnView::dense(ends);
        marks.observe(input, at, &column, Rows::All(0..ends.len()))
    }

    proptest! {
        #[test]
        fn whole_batches_equal_single_rows(
            batches in prop::collection::vec(
                prop::collection::vec(
                    prop_oneof![3 => 1000_i64..1090, 1 => 0_i64..2000, 1 => 999_990_i64..1_000_010],
                    0..20,
                ),
                1..6,
            ),
        ) {
            let (mut whole, mut single) = (watermarks(1, None), watermarks(1, None));
            whole.open(A, Duration::ZERO);
            single.open(A, Duration::ZERO);
            for ends in &batches {
                let rows = (0..).zip(ends.iter().copied().map(Some));
                let (settings, current) = (single.settings, single.current);
                let progress = single.inputs.get_mut(&A).unwrap();
                let expected = observe_rows(progress, &settings, current, rows);
                prop_assert_eq!(observe(&mut whole, A, Duration::ZERO, ends), expected);
                prop_assert_eq!(whole.advance(Duration::ZERO), single.advance(Duration::ZERO));
            }
        }
    }

    #[test]
    fn lateness_is_judged_by_what_came_before_in_the_same_input() {
        let mut marks = watermarks(1, None);
        marks.open(A, Duration::ZERO);
        assert_eq!(observe(&mut marks, A, Duration::ZERO, &[1000, 900, 899, 1100, 950]), [2, 4]);
    }

    #[test]
    fn cuts_do_not_matter() {
        let ends = [1000, 900, 899, 1100, 950, 1005, 2000, 1899, 1901];
        let mut whole = watermarks(1, None);
        whole.open(A, Duration::ZERO);
        let expected = observe(&mut whole, A, Duration::ZERO, &ends);
        for cut in 0..ends.len() {
            let mut marks = watermarks(1, None);
            marks.open(A, Duration::ZERO);
            let mut late = observe(&mut marks, A, Duration::ZERO, &ends[..cut]);
            marks.advance(Duration::ZERO);
            let rest = observe(&mut marks, A, Duration::ZERO, &ends[cut..]);
            late.extend(rest.into_iter().map(|row| row + u32::try_from(cut).unwrap()));
            assert_eq!(late, expected, "cut at {cut}");
        }
    }

    #[test]
    fn the_slowest_active_input_holds_the_pipeline() {
        let mut marks = watermarks(2, None);
        marks.open(A, Duration::ZERO);
        observe(&mut marks, A, Duration::ZERO, &[1000]);
        assert_eq!(marks.advance(Duration::ZERO), UnixSeconds::MIN, "B is not open yet");
        marks.open(B, Duration::ZERO);
        observe(&mut marks, B, Duration::ZERO, &[500]);
        assert_eq!(marks.advance(Duration::ZERO), UnixSeconds(400));
        marks.finish(B);
        assert_eq!(marks.advance(Duration::ZERO), UnixSeconds(900));
    }

    #[test]
    fn silence_stops_holding_back_and_time_goes_on() {
        let mut marks = watermarks(0, Some(Duration::from_mins(1)));
        marks.open(A, Duration::ZERO);
        marks.open(B, Duration::ZERO);
        observe(&mut marks, A, Duration::ZERO, &[1000]);
        assert_eq!(marks.advance(Duration::from_secs(59)), UnixSeconds::MIN);
        observe(&mut marks, A, Duration::from_mins(1), &[1010]);
        assert_eq!(marks.advance(Duration::from_mins(1)), UnixSeconds(910), "B is silent");
        assert_eq!(marks.advance(Duration::from_secs(220)), UnixSeconds(1070), "all are silent");
    }

    #[test]
    fn a_broken_clock_does_not_move_time() {
        let mut marks = watermarks(1, None);
        marks.open(A, Duration::ZERO);
        assert_eq!(observe(&mut marks, A, Duration::ZERO, &[1000, i64::MAX, 950]), [1]);
        assert_eq!(marks.advance(Duration::ZERO), UnixSeconds(900));
    }
}
