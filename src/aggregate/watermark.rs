//! How far event time has come: per input, and for the whole pipeline.
//!
//! An input's watermark is the greatest `end` it has shown less the allowed lateness ([`Lateness`]), and never
//! goes back. The pipeline's is the least of its inputs' that are neither finished nor silent. A record
//! behind its input's watermark is late: it counts in totals and tops and is left out of windows. Because
//! that rule only looks at what came before in the same input, it gives the same answer however the input
//! is cut into chunks and however many threads there are.
//!
//! Where all inputs have ended and more are to come, as with objects of a bucket, the one that came furthest counts as one
//! that is silent.
//!
//! An input that comes back from silence may find the pipeline's watermark ahead of its own; what is behind
//! it is late, and counted as such.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::lateness::{Habits, Lateness};
use super::route::{Rows, row_number};
use super::row_bits::least_and_greatest;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::framing::InputId;
use crate::record::ColumnView;
use crate::units::UnixSeconds;

/// What is known of an input's progress.
#[derive(Clone, Copy, Debug)]
struct InputProgress {
    latest_end: UnixSeconds,
    watermark: UnixSeconds,
    habits: Habits,
    last_data_at: Duration,
}

/// The fewest bytes of a saved input: its name's length, two moments, what it has shown.
const EARLIER_BYTES_MIN: usize = 8 + 2 * 8 + 4 + 1 + 8;

/// What a later run does with an input that is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InputFate {
    /// It opens an input of this name and goes on.
    GoesOn(Arc<str>),
    /// It opens it as one that was never open.
    BeginsAnew,
    /// It doesn't open it.
    Ended,
}

/// Settings of event time.
#[derive(Clone, Copy, Debug)]
pub struct TimeSettings {
    /// How far behind the newest record of its input a record may be.
    pub lateness: Lateness,
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
    /// Inputs of an earlier run that are not open again yet; they hold time back as they did.
    earlier: BTreeMap<Arc<str>, InputProgress>,
    expected_count: usize,
    /// Bounded inputs that were announced and are not open yet; while there is one, time stands still.
    unopened_count: usize,
    /// The input that ended furthest on, in this run.
    ended: Option<InputProgress>,
    current: UnixSeconds,
}

impl Watermarks {
    /// Watermarks before any input; `expected_inputs` are waited for before time moves.
    #[must_use]
    pub const fn new(settings: TimeSettings, expected_inputs: usize) -> Self {
        Self {
            settings,
            inputs: BTreeMap::new(),
            earlier: BTreeMap::new(),
            expected_count: expected_inputs,
            unopened_count: expected_inputs,
            ended: None,
            current: UnixSeconds::MIN,
        }
    }

    /// An input begins.
    pub fn open(&mut self, input: InputId, now: Duration) {
        self.unopened_count = self.unopened_count.saturating_sub(1);
        self.inputs.insert(input, InputProgress::new(now));
    }

    /// An input of an earlier run is open again and goes on from where it was.
    pub fn reopen(&mut self, name: &str, input: InputId, now: Duration) {
        match self.earlier.remove(name) {
            Some(progress) => {
                self.inputs.insert(input, InputProgress { last_data_at: now, ..progress });
            }
            None => self.open(input, now),
        }
    }

    /// An input ends and no longer holds others back.
    pub fn finish(&mut self, input: InputId) {
        let Some(progress) = self.inputs.remove(&input) else { return };
        let is_further = |known: InputProgress| progress.watermark > known.watermark;
        if self.ended.is_none_or(is_further) {
            self.ended = Some(progress);
        }
    }

    /// Takes `start`s and `end`s of an input's next records in order, those in `rows`, and returns the rows
    /// that are behind the watermark. `starts` are missed only by what finds out the lateness.
    ///
    /// Most batches have none, which their least and greatest `end` show: if the least is not behind the
    /// watermark that the greatest makes, no row is behind any watermark on the way there.
    pub fn observe(
        &mut self,
        input: InputId,
        now: Duration,
        (starts, ends): (Option<ColumnView<'_, i64>>, &ColumnView<'_, i64>),
        rows: Rows<'_>,
    ) -> Vec<u32> {
        let Some(progress) = self.inputs.get_mut(&input) else {
            unreachable!("the sequencer opens an input before its data")
        };
        progress.last_data_at = now;
        let (settings, current) = (&self.settings, self.current);
        if ends.is_dense() && matches!(rows, Rows::All(_)) {
            let Some(bounds) = least_and_greatest(ends.raw()) else { return Vec::new() };
            if progress.pass(settings, current, (starts, ends.raw()), bounds) {
                return Vec::new();
            }
        }
        let start = |row| starts.and_then(|starts| starts.get(row));
        let times = rows.map(|row| (row_number(row), start(row), ends.get(row)));
        progress.observe_rows(settings, current, times)
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

    /// The newest plausible `end` that an input has shown.
    #[must_use]
    pub fn latest_end(&self, input: InputId) -> Option<UnixSeconds> {
        let progress = self.inputs.get(&input)?;
        (progress.latest_end > UnixSeconds::MIN).then_some(progress.latest_end)
    }

    /// Saves how far time has come, in the inputs that go on in a later run too.
    pub fn save(&self, fate_of: &dyn Fn(InputId) -> InputFate, out: &mut Encoder) {
        out.version(1);
        out.i64(self.current.0);
        out.count(self.expected_count);
        let mut named: BTreeMap<Arc<str>, &InputProgress> = BTreeMap::new();
        let mut anew_count = 0;
        for (input, progress) in &self.inputs {
            match fate_of(*input) {
                InputFate::GoesOn(name) => {
                    named.insert(name, progress);
                }
                InputFate::BeginsAnew => anew_count += 1,
                InputFate::Ended => {}
            }
        }
        named.extend(self.earlier.iter().map(|(name, progress)| (Arc::clone(name), progress)));
        out.count(self.unopened_count + anew_count);
        out.count(named.len());
        for (name, progress) in named {
            out.text(&name);
            out.i64(progress.latest_end.0);
            out.i64(progress.watermark.0);
            progress.habits.save(out);
        }
    }

    /// What was saved, to go on at wall time `now` with `expected_inputs`, counted as for [`Self::new`]
    /// whether they were finished before or not.
    ///
    /// # Errors
    /// If the bytes are none that [`Self::save`] wrote.
    pub fn load(
        settings: TimeSettings,
        expected_inputs: usize,
        now: Duration,
        from: &mut Decoder<'_>,
    ) -> Result<Self, DecodeError> {
        from.version("the watermarks", 1..=1)?;
        let current = UnixSeconds(from.i64()?);
        let counts = [from.u64()?, from.u64()?];
        let [expected_before, unopened_before] =
            counts.map(|count| usize::try_from(count).unwrap_or(usize::MAX));
        let mut earlier = BTreeMap::new();
        for _ in 0..from.count(EARLIER_BYTES_MIN)? {
            let name = Arc::from(from.text()?);
            let (latest_end, watermark) = (UnixSeconds(from.i64()?), UnixSeconds(from.i64()?));
            let habits = Habits::load(from)?;
            let progress =
                InputProgress { latest_end, watermark, habits, ..InputProgress::new(now) };
            earlier.insert(name, progress);
        }
        let unopened_count =
            unopened_before.saturating_add(expected_inputs).saturating_sub(expected_before);
        let (inputs, expected_count) = (BTreeMap::new(), expected_inputs);
        let ended = None;
        Ok(Self { settings, inputs, earlier, expected_count, unopened_count, ended, current })
    }

    fn least_of_active(&self, now: Duration) -> UnixSeconds {
        let mut least: Option<UnixSeconds> = None;
        let mut newest_of_idle = UnixSeconds::MIN;
        for progress in self.inputs.values().chain(self.earlier.values()) {
            match self.idle_watermark(progress, now) {
                Some(watermark) => newest_of_idle = newest_of_idle.max(watermark),
                None => {
                    least = Some(least.map_or(progress.watermark, |l| l.min(progress.watermark)));
                }
            }
        }
        let ended = self.ended.and_then(|progress| self.idle_watermark(&progress, now));
        least.unwrap_or_else(|| newest_of_idle.max(ended.unwrap_or(UnixSeconds::MIN)))
    }

    /// How far a silent input has come: its own time goes on with the wall, so that its last panes close too. `None`
    /// if it is not silent.
    fn idle_watermark(&self, progress: &InputProgress, now: Duration) -> Option<UnixSeconds> {
        let silent_for = now.saturating_sub(progress.last_data_at);
        if self.settings.idle_after.is_none_or(|limit| silent_for < limit) {
            return None;
        }
        let silent_seconds = i64::try_from(silent_for.as_secs()).unwrap_or(i64::MAX);
        let has_begun = progress.watermark > UnixSeconds::MIN;
        let come = progress.watermark.saturating_add(silent_seconds);
        Some(if has_begun { come } else { UnixSeconds::MIN })
    }
}

impl InputProgress {
    const fn new(now: Duration) -> Self {
        Self {
            latest_end: UnixSeconds::MIN,
            watermark: UnixSeconds::MIN,
            habits: Habits::unknown(),
            last_data_at: now,
        }
    }

    fn lateness_seconds(&self, settings: &TimeSettings) -> i64 {
        match settings.lateness {
            Lateness::Fixed(seconds) => seconds,
            Lateness::Detected => self.habits.lateness_seconds(self.latest_end),
        }
    }

    /// Whether records still can change the lateness.
    fn is_learning(&self, settings: &TimeSettings) -> bool {
        settings.lateness == Lateness::Detected && !self.habits.is_settled()
    }

    /// Takes a whole batch if none of its rows is late and none decides anything; otherwise leaves all as
    /// it was and says so.
    fn pass(
        &mut self,
        settings: &TimeSettings,
        current: UnixSeconds,
        (starts, ends): (Option<ColumnView<'_, i64>>, &[i64]),
        (least, greatest): (i64, i64),
    ) -> bool {
        if greatest > settings.latest_plausible_end.0 {
            return false;
        }
        let latest_before = self.latest_end;
        let mut after = *self;
        after.latest_end = latest_before.max(UnixSeconds(greatest));
        if self.is_learning(settings) {
            let latest = (latest_before, after.latest_end);
            if !after.habits.see_all(starts, ends, UnixSeconds(least), latest) {
                return false;
            }
        }
        after.advance(settings);
        if least < after.watermark.max(current).0 {
            return false;
        }
        *self = after;
        true
    }

    /// The rule, row by row: a record is late if it is behind what came before it and itself.
    fn observe_rows(
        &mut self,
        settings: &TimeSettings,
        current: UnixSeconds,
        times: impl Iterator<Item = (u32, Option<i64>, Option<i64>)>,
    ) -> Vec<u32> {
        let mut late = Vec::new();
        for (row, start, end) in times {
            let Some(end) = end.map(UnixSeconds) else { continue };
            if end > settings.latest_plausible_end {
                late.push(row);
                continue;
            }
            self.latest_end = self.latest_end.max(end);
            if self.is_learning(settings) {
                self.habits.see(start, end, self.latest_end);
            }
            self.advance(settings);
            if end < self.watermark.max(current) {
                late.push(row);
            }
        }
        late
    }

    fn advance(&mut self, settings: &TimeSettings) {
        let lateness_seconds = self.lateness_seconds(settings);
        self.watermark = self.watermark.max(self.latest_end.saturating_add(-lateness_seconds));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: InputId = InputId(0);
    const B: InputId = InputId(1);

    fn watermarks(expected_inputs: usize, idle_after: Option<Duration>) -> Watermarks {
        let latest_plausible_end = UnixSeconds(1_000_000);
        let lateness = Lateness::Fixed(100);
        Watermarks::new(
            TimeSettings { lateness, idle_after, latest_plausible_end },
            expected_inputs,
        )
    }

    fn observe(marks: &mut Watermarks, input: InputId, at: Duration, ends: &[i64]) -> Vec<u32> {
        let column = ColumnView::dense(ends);
        marks.observe(input, at, (None, &column), Rows::All(0..ends.len()))
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
                let rows = (0..).zip(ends).map(|(row, end)| (row, None, Some(*end)));
                let (settings, current) = (single.settings, single.current);
                let progress = single.inputs.get_mut(&A).unwrap();
                let expected = progress.observe_rows(&settings, current, rows);
                prop_assert_eq!(observe(&mut whole, A, Duration::ZERO, ends), expected);
                prop_assert_eq!(whole.advance(Duration::ZERO), single.advance(Duration::ZERO));
            }
        }
    }

    /// What a record has to do with time, and how it is told.
    #[derive(Clone, Copy, Debug)]
    struct Times {
        start: i64,
        end: i64,
    }

    /// The rule as it would be written for one record at a time and without limits of memory.
    #[derive(Default)]
    struct Naive {
        /// Everything that counts so far.
        seen: Vec<Times>,
        watermark: Option<i64>,
    }

    impl Naive {
        fn lateness(&self) -> i64 {
            let interval = |times: &Times| times.end - times.start;
            let intervals = self.seen.iter().filter(|times| (0..=900).contains(&interval(times)));
            if intervals.clone().any(|times| interval(times) > 75) {
                return 600;
            }
            let latest = self.seen.iter().map(|times| times.end).max().unwrap();
            let span = intervals.clone().next().map_or(0, |first| latest - first.end);
            if intervals.count() < 4096 || span < 300 {
                return 600;
            }
            let mut newest = i64::MIN;
            let behind = self.seen.iter().map(|times| {
                newest = newest.max(times.end);
                newest - times.end
            });
            let disorder = behind.filter(|behind| *behind <= 600).max().unwrap();
            ((disorder + 29) / 30 * 60).clamp(120, 600)
        }

        fn is_late(&mut self, times: Times) -> bool {
            if times.end > 1_000_000 {
                return true;
            }
            self.seen.push(times);
            let latest = self.seen.iter().map(|times| times.end).max().unwrap();
            self.watermark = self.watermark.max(Some(latest - self.lateness()));
            times.end < self.watermark.unwrap()
        }
    }

    fn detected() -> Watermarks {
        let mut marks = watermarks(1, None);
        marks.settings.lateness = Lateness::Detected;
        marks.open(A, Duration::ZERO);
        marks
    }

    /// Late rows of a stream that is taken in batches of these sizes, by turns.
    fn late_of(marks: &mut Watermarks, stream: &[Times], sizes: &[usize]) -> Vec<bool> {
        let mut late = Vec::new();
        let (mut rest, mut sizes) = (stream, sizes.iter().cycle());
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
            rest = after;
            let starts: Vec<i64> = batch.iter().map(|times| times.start).collect();
            let ends: Vec<i64> = batch.iter().map(|times| times.end).collect();
            let columns = (Some(ColumnView::dense(&starts)), &ColumnView::dense(&ends));
            let rows = marks.observe(A, Duration::ZERO, columns, Rows::All(0..batch.len()));
            marks.advance(Duration::ZERO);
            late.extend((0..).take(batch.len()).map(|row| rows.contains(&row)));
        }
        late
    }

    /// Records that come at a pace of a second per `pace`, out of order by up to `disorder` seconds.
    fn steady(count: usize, pace: i64, disorder: i64, draws: &[u32]) -> Vec<Times> {
        let times = (0_i64..).zip(draws.iter().cycle()).map(|(index, draw)| {
            let draw = i64::from(*draw);
            let end = 10_000 + index / pace - draw % (disorder + 1);
            Times { start: end - draw / 1_000 % 61, end }
        });
        times.take(count).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn detected_lateness_is_that_of_one_record_after_the_other(
            draws in prop::collection::vec(any::<u32>(), 1..400),
            (disorder, pace) in (0_i64..400, 6_i64..16),
            odd in prop::collection::vec((3_900_usize..5_000, -1_000_i64..2_000, -700_i64..700), 0..4),
            sizes in prop::collection::vec(1_usize..900, 1..6),
        ) {
            let mut stream = steady(5_000, pace, disorder, &draws);
            for (place, interval, shift) in odd {
                let end = stream[place].end + shift;
                stream[place] = Times { start: end - interval, end };
            }
            let mut naive = Naive::default();
            let late = late_of(&mut detected(), &stream, &sizes);
            let expected: Vec<bool> = stream.iter().map(|times| naive.is_late(*times)).collect();
            prop_assert_eq!(late, expected);
        }
    }

    fn lateness_of(marks: &Watermarks) -> i64 {
        let progress = &marks.inputs[&A];
        progress.lateness_seconds(&marks.settings)
    }

    #[test]
    fn short_intervals_in_good_order_need_two_minutes() {
        let check = |stream: &[Times], expected: i64| {
            let mut marks = detected();
            late_of(&mut marks, stream, &[1_000]);
            assert_eq!(lateness_of(&marks), expected);
        };
        check(&steady(4_000, 10, 20, &[1, 7, 60_019]), 600);
        check(&steady(5_000, 100, 20, &[1, 7, 60_019]), 600);
        check(&steady(5_000, 10, 20, &[1, 7, 60_019]), 120);
        check(&steady(5_000, 10, 124, &[0, 124, 60_124]), 300);
        let mut long = steady(5_000, 10, 20, &[1, 7, 60_019]);
        long[100].start = long[100].end - 599;
        check(&long, 600);
    }

    #[test]
    fn a_broken_start_says_nothing() {
        for start in [-5, i64::MIN, i64::MAX, 1_767_225_600, 0] {
            let mut stream = steady(5_000, 10, 20, &[1, 7, 60_019]);
            stream[4_900].start = start;
            let mut marks = detected();
            late_of(&mut marks, &stream, &[1_000]);
            assert_eq!(lateness_of(&marks), 120, "start {start}");
        }
    }

    #[test]
    fn going_back_to_ten_minutes_keeps_what_is_not_behind_the_watermark() {
        let mut stream = steady(5_000, 10, 20, &[1, 7, 60_019]);
        let newest = stream.iter().map(|times| times.end).max().unwrap();
        let mut marks = detected();
        late_of(&mut marks, &stream, &[500]);
        assert_eq!(marks.advance(Duration::ZERO), UnixSeconds(newest - 120));
        stream = vec![
            Times { start: newest - 500, end: newest },
            Times { start: newest - 30, end: newest + 300 },
            Times { start: newest - 500, end: newest - 100 },
            Times { start: newest - 500, end: newest - 121 },
        ];
        assert_eq!(late_of(&mut marks, &stream, &[4]), [false, false, false, true]);
        assert_eq!(marks.advance(Duration::ZERO), UnixSeconds(newest - 120));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn saving_and_loading_changes_nothing(
            draws in prop::collection::vec(any::<u32>(), 1..400),
            (disorder, cut) in (0_i64..200, 0_usize..5_000),
            (flip, length) in (any::<u16>(), any::<u16>()),
        ) {
            let stream = steady(5_000, 10, disorder, &draws);
            let mut whole = detected();
            whole.expected_count = 1;
            late_of(&mut whole, &stream[..cut], &[300]);
            let mut out = Encoder::default();
            whole.save(&|_| InputFate::GoesOn("a".into()), &mut out);
            let mut bytes = out.into_bytes();
            let settings = whole.settings;
            let load = |bytes: &[u8]| {
                Watermarks::load(settings, 1, Duration::ZERO, &mut Decoder::new(bytes))
            };
            let mut loaded = load(&bytes).unwrap();
            prop_assert_eq!(loaded.advance(Duration::ZERO), whole.current());
            loaded.reopen("a", A, Duration::ZERO);
            let rest = &stream[cut..];
            prop_assert_eq!(late_of(&mut loaded, rest, &[777]), late_of(&mut whole, rest, &[777]));
            prop_assert_eq!(loaded.current(), whole.current());
            prop_assert!(load(&bytes[..usize::from(length) % bytes.len()]).is_err());
            let bit = usize::from(flip) % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(mut flipped) = load(&bytes) {
                flipped.reopen("a", A, Duration::ZERO);
                late_of(&mut flipped, rest, &[777]);
            }
        }
    }

    #[test]
    fn without_starts_nothing_is_found_out() {
        let mut marks = detected();
        let ends: Vec<i64> = steady(9_000, 10, 20, &[1, 7]).iter().map(|times| times.end).collect();
        observe(&mut marks, A, Duration::ZERO, &ends);
        assert_eq!(lateness_of(&marks), 600);
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
    fn after_the_last_input_time_goes_on_as_after_silence() {
        let mut marks = watermarks(0, Some(Duration::from_mins(1)));
        for (input, end) in [(A, 1010), (B, 1000)] {
            marks.open(input, Duration::ZERO);
            observe(&mut marks, input, Duration::ZERO, &[end]);
            marks.finish(input);
        }
        assert_eq!(marks.advance(Duration::from_secs(59)), UnixSeconds::MIN);
        assert_eq!(marks.advance(Duration::from_mins(1)), UnixSeconds(970));
        marks.open(A, Duration::from_secs(70));
        assert_eq!(marks.advance(Duration::from_secs(80)), UnixSeconds(970), "A holds it back");
    }

    #[test]
    fn a_broken_clock_does_not_move_time() {
        let mut marks = watermarks(1, None);
        marks.open(A, Duration::ZERO);
        assert_eq!(observe(&mut marks, A, Duration::ZERO, &[1000, i64::MAX, 950]), [1]);
        assert_eq!(marks.advance(Duration::ZERO), UnixSeconds(900));
    }
}
