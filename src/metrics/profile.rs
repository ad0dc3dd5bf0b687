//! Where the time goes: seconds of work and bytes by stage.
//!
//! Every thread keeps a [`Profile`] of its own and reads the clock a few times a chunk; the profiles are
//! added up at the end. Waiting for another stage is in none of them.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;

/// A stage of the pipeline, in the order of a record's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Reading, inflating and unwrapping.
    Unwrap,
    /// Lines to typed columns.
    Parse,
    /// Totals, the condition, and which shard owns which row.
    Route,
    /// Order of chunks, late records.
    Sequence,
    /// Tables of talkers.
    Tops,
    /// Tables of contacts, and closing their panes.
    Contacts,
    /// Merging panes and asking the detectors.
    Judge,
    /// Copying the tables of shards for a snapshot.
    Save,
    /// Findings to the sinks.
    Deliver,
    /// The largest rows of the tops, at the end.
    Answer,
}

const STAGE_COUNT: usize = Stage::ALL.len();

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 10] = [
        Self::Unwrap,
        Self::Parse,
        Self::Route,
        Self::Sequence,
        Self::Tops,
        Self::Contacts,
        Self::Judge,
        Self::Save,
        Self::Deliver,
        Self::Answer,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unwrap => "unwrap",
            Self::Parse => "parse",
            Self::Route => "route",
            Self::Sequence => "sequence",
            Self::Tops => "tops",
            Self::Contacts => "contacts",
            Self::Judge => "judge",
            Self::Save => "save",
            Self::Deliver => "deliver",
            Self::Answer => "answer",
        }
    }
}

/// What one stage did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTime {
    /// Time that threads spent in it, added up.
    pub busy: Duration,
    /// Bytes of text that it took, as far as its input is text; what was read from outside for
    /// [`Stage::Unwrap`].
    pub bytes: u64,
}

/// Seconds and bytes by stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    stages: [StageTime; STAGE_COUNT],
}

impl Profile {
    /// Adds work of a stage.
    pub fn add(&mut self, stage: Stage, busy: Duration, bytes: u64) {
        let time = &mut self.stages[stage as usize];
        time.busy += busy;
        time.bytes += bytes;
    }

    /// Adds the work of another thread.
    pub fn merge(&mut self, other: &Self) {
        for (stage, time) in Stage::ALL.into_iter().zip(other.stages) {
            self.add(stage, time.busy, time.bytes);
        }
    }

    /// The stages that did anything, in order.
    pub fn stages(&self) -> impl Iterator<Item = (Stage, StageTime)> {
        Stage::ALL.into_iter().zip(self.stages).filter(|(_, time)| !time.busy.is_zero())
    }
}

/// Measures what follows one another on a thread.
pub struct Stopwatch {
    clock: Arc<dyn Clock>,
    last: Duration,
    profile: Profile,
}

impl Stopwatch {
    /// A stopwatch that runs.
    #[must_use]
    pub fn start(clock: Arc<dyn Clock>) -> Self {
        let last = clock.monotonic();
        Self { clock, last, profile: Profile::default() }
    }

    /// Leaves out what happened since the last lap, such as waiting.
    pub fn skip(&mut self) {
        self.last = self.clock.monotonic();
    }

    /// Counts the time since the last lap as work of `stage`, and gives it.
    pub fn lap(&mut self, stage: Stage, bytes: u64) -> Duration {
        let now = self.clock.monotonic();
        let busy = now.saturating_sub(self.last);
        self.last = now;
        self.profile.add(stage, busy, bytes);
        busy
    }

    /// The moment of the last lap.
    #[must_use]
    pub const fn last(&self) -> Duration {
        self.last
    }

    /// What was counted since this was last asked.
    pub fn take_profile(&mut self) -> Profile {
        std::mem::take(&mut self.profile)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn laps_are_counted_and_waiting_is_not() {
        let clock = Arc::new(ManualClock::default());
        let mut watch = Stopwatch::start(Arc::<ManualClock>::clone(&clock));
        let second = Duration::from_secs(1);
        clock.advance(second);
        assert_eq!(watch.lap(Stage::Parse, 10), second);
        clock.advance(second);
        watch.skip();
        clock.advance(second);
        assert_eq!(watch.lap(Stage::Tops, 0), second);
        let mut profile = watch.take_profile();
        clock.advance(second);
        watch.lap(Stage::Parse, 5);
        profile.merge(&watch.take_profile());
        let stages: Vec<_> = profile.stages().collect();
        let time = |busy, bytes| StageTime { busy, bytes };
        assert_eq!(stages, [(Stage::Parse, time(2 * second, 15)), (Stage::Tops, time(second, 0))]);
    }
}
