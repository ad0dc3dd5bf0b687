//! What a run is asked to do, and what it reports.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use super::live::Live;
use super::memory::MemoryPlan;
use super::sequence::InputReport;
use super::snapshot::SnapshotReport;
use crate::aggregate::{
    CONTACT_COLUMNS, FlowSizes, TOTALS_COLUMNS, TalkerSpec, TalkerWindow, TimeSettings, TopAnswer,
    TopSpec,
};
use crate::checkpoint::{
    CheckpointError, DeadLetterCounters, DeadLetters, Encode, JournalCounters, JournalSettings,
    PartialWriter, RemoteSettings, StateDirectory,
};
use crate::clock::Clock;
use crate::detect::{DetectSettings, Network, Suppressed, TrialOutcome, TrialPlan};
use crate::finding::FindingKind;
use crate::framing::Limits;
use crate::metrics::{BackPressure, LatencyHistogram, Profile};
use crate::record::{ColumnSet, Filter};
use crate::simd::Isa;
use crate::sink::{Sink, SinkError};
use crate::source::{Source, SourceError, StopFlag};

/// A run, ready to be started. All limits are set; nothing is read from elsewhere.
pub struct Job {
    /// Where records come from.
    pub sources: Vec<Box<dyn Source>>,
    /// Inputs that the sources are known to open, before which event time must not move.
    pub expected_inputs: usize,
    /// Parse workers and state shards.
    pub thread_count: usize,
    /// Chunks that a channel holds.
    pub queue_depth: usize,
    /// Limits of framing.
    pub limits: Limits,
    /// Length of a pane.
    pub pane_seconds: i64,
    /// How event time moves.
    pub time: TimeSettings,
    /// Which records count; all without one.
    pub filter: Option<Filter>,
    /// Questions for the largest keys.
    pub tops: Vec<TopSpec>,
    /// Questions for the largest keys of every window.
    pub talkers: Vec<TalkerSpec>,
    /// Where the tops of windows go.
    pub talker_sinks: Vec<Box<dyn Sink>>,
    /// The detectors; none for totals alone.
    pub detectors: Option<Detectors>,
    /// Where findings go.
    pub sinks: Vec<Box<dyn Sink>>,
    /// The byte kernels to use.
    pub isa: Isa,
    /// Seed of every hash table; differs from run to run, because keys are chosen by attackers.
    pub seed: u64,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Told to stop from outside.
    pub stop: StopFlag,
    /// Told how many bytes were read, once per chunk.
    pub progress: Box<dyn FnMut(u64) + Send>,
    /// Changes while the run goes on.
    pub control: Receiver<Control>,
    /// Told how the run stands.
    pub live: Arc<Live>,
    /// How much memory the tables may take.
    pub memory: MemoryPlan,
    /// Where what was seen is written for another process to judge, in place of judging it here.
    pub partials: Option<PartialWriter>,
    /// Where what cannot be read is put aside; without it, it is only counted.
    pub dead_letters: Option<DeadLetters>,
    /// Where state is kept; without it the run begins with nothing and leaves nothing.
    pub state: Option<JobState>,
}

/// What detectors are made of.
#[derive(Clone, Debug)]
pub struct Detectors {
    /// What is looked for, and from which figures on.
    pub settings: DetectSettings,
    /// What is known of the network.
    pub network: Network,
    /// What is tried in place of looking for everything and telling it.
    pub trials: Option<TrialPlan>,
}

/// What may change while a run goes on.
#[derive(Clone, Debug)]
pub enum Control {
    /// Detectors go on with other settings and another network; what they remember stays.
    Detectors(Box<Detectors>),
    /// Time between snapshots.
    CheckpointInterval(Duration),
}

/// What makes a run outlive its process.
pub struct JobState {
    /// Where snapshots, the journal and cursors lie; no other process has it.
    pub directory: Arc<StateDirectory>,
    /// Limits of the journal.
    pub journal: JournalSettings,
    /// The form of a finding in the journal.
    pub encode: Encode,
    /// Time between snapshots.
    pub interval: Duration,
    /// Where they are copied to, so that another machine can go on.
    pub remote: Option<RemoteSettings>,
}

impl Job {
    /// The columns that the job's stages read.
    pub(super) fn columns(&self) -> ColumnSet {
        let mut columns: ColumnSet = TOTALS_COLUMNS.into_iter().collect();
        if self.detectors.is_some() {
            CONTACT_COLUMNS.iter().for_each(|field| columns.insert(*field));
        }
        self.tops.iter().flat_map(TopSpec::slots).for_each(|slot| columns.insert_slot(&slot));
        let of_talkers = self.talkers.iter().flat_map(TalkerSpec::slots);
        of_talkers.for_each(|slot| columns.insert_slot(&slot));
        if let Some(filter) = &self.filter {
            filter.slots().iter().for_each(|slot| columns.insert_slot(slot));
        }
        columns
    }
}

/// What a run did.
#[derive(Debug)]
pub struct RunReport {
    /// What was read, and its totals.
    pub inputs: InputReport,
    /// The questions asked.
    pub tops: Vec<TopSpec>,
    /// Their answers, in the same order.
    pub answers: Vec<TopAnswer>,
    /// How large flows are; not if nothing but totals was wanted.
    pub flow_sizes: Option<FlowSizes>,
    /// Tops of windows.
    pub talkers: TalkersReport,
    /// Findings by kind.
    pub findings_by_kind: BTreeMap<FindingKind, u64>,
    /// What noise control left out.
    pub suppressed: Suppressed,
    /// What trials would have told, in their order.
    pub trials: Vec<TrialOutcome>,
    /// How long the stages took per piece of work.
    pub latencies: Latencies,
    /// Where the time went.
    pub profile: Profile,
    /// Wall time from start to end.
    pub elapsed: Duration,
    /// What the journal did, if there is one.
    pub journal: Option<JournalCounters>,
    /// What became of dead letters, if they are put aside.
    pub dead_letters: Option<DeadLetterCounters>,
    /// What was saved.
    pub snapshots: SnapshotReport,
    /// How long stages waited for the ones behind them.
    pub back_pressure: BTreeMap<&'static str, BackPressure>,
}

/// What is said of windows at the end.
#[derive(Clone, Debug, Default)]
pub struct TalkersReport {
    /// Windows that were given, over all questions.
    pub windows: u64,
    /// The last one of each question, if there was one.
    pub last: Vec<TalkerWindow>,
}

/// Latencies of the stages that do the work.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// Unwrapping and parsing a chunk.
    pub parse: LatencyHistogram,
    /// Merging the panes of a shard and judging what that completes.
    pub judge: LatencyHistogram,
    /// Copying the tables of a shard for a snapshot, while it stands still.
    pub save: LatencyHistogram,
    /// From the arrival of the chunk that completed a pane to its findings being with the sinks.
    pub finding: LatencyHistogram,
}

/// Why a run failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A source could not go on.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A sink could not take findings.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] CheckpointError),
}
