//! The questions that the end-to-end benches ask: a generated file, the job that `flowgauge analyze`
//! builds for each question, and the answers that plain code gives.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Write;
use std::sync::Arc;

use flowgauge::aggregate::{Lateness, Metric, TimeSettings, TopSpec};
use flowgauge::clock::SystemClock;
use flowgauge::config::EnginePlan;
use flowgauge::detect::{DetectSettings, Network};
use flowgauge::framing::Limits;
use flowgauge::generate::{AttackKind, GenerateSettings, Generator};
use flowgauge::pipeline::{Detectors, Job, MemoryPlan, RunReport};
use flowgauge::record::{FieldId, FormatChoice, Slot};
use flowgauge::simd::Isa;
use flowgauge::source::{FileSource, InputIds, StopFlag};
use flowgauge::units::UnixSeconds;
use tempfile::NamedTempFile;

/// Records of the generated file.
pub(crate) const RECORDS: usize = 200_000;
/// Distinct ports from which on a pair is in the answer.
const PORTS_MIN: u128 = 100;
/// Length of a pane.
const PANE_SECONDS: i64 = 60;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// Totals alone: `--top 0 --no-detect`.
    Parse,
    /// Sources with most bytes: `--by srcaddr --no-detect`.
    Sources,
    /// Pairs of addresses with at least 100 distinct ports: `--by srcaddr,dstaddr --metric
    /// distinct:dstport --min 100 --no-detect`.
    Pairs,
    /// The report without options: five tops and all detectors.
    Report,
}

impl Question {
    fn tops(self) -> Vec<TopSpec> {
        use FieldId::{DstAddr, DstPort, InterfaceId, SrcAddr};
        let by_bytes = |fields: &[FieldId]| top(fields, Metric::Bytes, 0);
        match self {
            Self::Parse => Vec::new(),
            Self::Sources => vec![by_bytes(&[SrcAddr])],
            Self::Pairs => {
                let metric = Metric::Distinct(Slot::Known(DstPort));
                vec![top(&[SrcAddr, DstAddr], metric, PORTS_MIN)]
            }
            Self::Report => {
                let keys: [&[FieldId]; 5] =
                    [&[SrcAddr], &[DstAddr], &[SrcAddr, DstAddr], &[DstPort], &[InterfaceId]];
                keys.into_iter().map(by_bytes).collect()
            }
        }
    }
}

fn top(fields: &[FieldId], metric: Metric, metric_min: u128) -> TopSpec {
    TopSpec {
        by: fields.iter().copied().map(Slot::Known).collect(),
        metric,
        rows_max: 10,
        metric_min,
        window_seconds: None,
    }
}

/// Detectors with default settings that know nothing of the network.
pub(crate) fn detectors() -> Detectors {
    Detectors { settings: DetectSettings::default(), network: Network::default(), trials: None }
}

/// What the generated lines are: some minutes of event time, so that panes close on the way, with two
/// attacks of each kind.
pub(crate) fn settings() -> GenerateSettings {
    GenerateSettings {
        records: RECORDS as u64,
        records_per_second: 1_000,
        attacks: AttackKind::ALL.into_iter().map(|kind| (kind, 2)).collect(),
        ..GenerateSettings::default()
    }
}

/// The generated lines in a file, and what they answer.
pub(crate) struct Input {
    file: NamedTempFile,
    answers: Answers,
}

/// The answers by plain code.
struct Answers {
    bytes: u128,
    source_count: u64,
    top_source: (String, u128),
    /// Pairs with at least [`PORTS_MIN`] ports.
    pair_count: u64,
}

impl Input {
    pub(crate) fn generate() -> Self {
        let mut text = Vec::new();
        let count = Generator::new(&settings()).fill(&mut text, RECORDS);
        assert_eq!(count, RECORDS);
        let mut file = NamedTempFile::new().expect("a temporary file can be made");
        file.write_all(&text).expect("a temporary file can be written");
        let answers = Answers::of(std::str::from_utf8(&text).expect("flow logs are ASCII"));
        Self { file, answers }
    }

    /// The job of a question, with a fixed seed so that every run takes the same steps.
    pub(crate) fn job(&self, question: Question, thread_count: usize) -> Job {
        let engine = EnginePlan::default();
        let limits = Limits::default();
        let files = [self.file.path().to_owned()];
        let ids = InputIds::default();
        Job {
            sources: FileSource::split(&files, &FormatChoice::Auto, &limits, thread_count, &ids),
            expected_inputs: files.len(),
            thread_count,
            queue_depth: engine.queue_depth,
            limits,
            pane_seconds: PANE_SECONDS,
            time: TimeSettings {
                // Less than a live stream's, so that panes of the short file close before its end.
                lateness: Lateness::Fixed(PANE_SECONDS),
                idle_after: None,
                latest_plausible_end: UnixSeconds::MAX,
            },
            filter: None,
            tops: question.tops(),
            talkers: Vec::new(),
            talker_sinks: Vec::new(),
            detectors: (question == Question::Report).then(detectors),
            sinks: Vec::new(),
            isa: Isa::detect(),
            seed: 1,
            clock: Arc::new(SystemClock::new()),
            stop: StopFlag::default(),
            progress: Box::new(|_| {}),
            control: crossbeam_channel::never(),
            live: Arc::default(),
            memory: MemoryPlan::UNLIMITED,
            partials: None,
            dead_letters: None,
            state: None,
        }
    }

    /// Compares what a run reports with the answers by plain code.
    pub(crate) fn check(&self, question: Question, report: &RunReport) {
        let (totals, answers) = (&report.inputs.totals, &self.answers);
        assert_eq!((totals.records(), totals.faults.total()), (RECORDS as u64, 0), "{question:?}");
        assert_eq!(totals.bytes, answers.bytes, "{question:?}");
        match question {
            Question::Parse => assert!(report.answers.is_empty()),
            Question::Sources | Question::Report => {
                let answer = &report.answers[0];
                assert_eq!(answer.key_count, answers.source_count, "{question:?}");
                let (source, bytes) = &answers.top_source;
                assert_eq!(answer.rows[0].key, [source.as_str()], "{question:?}");
                assert_eq!(answer.rows[0].sums.bytes, *bytes, "{question:?}");
            }
            Question::Pairs => assert_eq!(report.answers[0].matching_count, answers.pair_count),
        }
        if question == Question::Report {
            let found: BTreeSet<_> = report.findings_by_kind.keys().map(|k| k.name()).collect();
            let planted: BTreeSet<_> = AttackKind::ALL.map(AttackKind::finding_kind).into();
            assert!(found.is_superset(&planted), "found {found:?}");
        }
    }
}

impl Answers {
    fn of(text: &str) -> Self {
        let mut bytes_by_source: BTreeMap<&str, u128> = BTreeMap::new();
        let mut ports_by_pair: HashMap<(&str, &str), HashSet<&str>> = HashMap::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            if fields[3] == "-" {
                continue;
            }
            let bytes: u128 = fields[9].parse().expect("a record with traffic has a byte count");
            *bytes_by_source.entry(fields[3]).or_default() += bytes;
            ports_by_pair.entry((fields[3], fields[4])).or_default().insert(fields[6]);
        }
        let top =
            bytes_by_source.iter().max_by_key(|(_, bytes)| **bytes).expect("there is traffic");
        let is_answer = |ports: &&HashSet<&str>| ports.len() as u128 >= PORTS_MIN;
        let pair_count = ports_by_pair.values().filter(is_answer).count() as u64;
        assert!(pair_count > 0, "the planted scans reach enough ports");
        Self {
            bytes: bytes_by_source.values().sum(),
            source_count: bytes_by_source.len() as u64,
            top_source: ((*top.0).to_owned(), *top.1),
            pair_count,
        }
    }
}
