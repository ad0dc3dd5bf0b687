//! However an input is cut into chunks, and however many threads there are: the same totals, tops, samples
//! and findings.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use flowgauge::aggregate::{Lateness, Metric, TimeSettings, TopSpec};
use flowgauge::clock::{Clock, SystemClock};
use flowgauge::detect::{DetectSettings, Network};
use flowgauge::finding::Finding;
use flowgauge::framing::{Chunk, ChunkData, ChunkEvent, InputId, InputInfo, Limits, Payload};
use flowgauge::generate::{AttackKind, GenerateSettings, Generator};
use flowgauge::pipeline::{self, Detectors, Job, MemoryPlan, Summary};
use flowgauge::record::{FieldId, FormatChoice, Layout, Slot};
use flowgauge::simd::Isa;
use flowgauge::sink::{Sink, SinkError, encode};
use flowgauge::source::{Emit, Source, SourceError, StopFlag};
use flowgauge::units::UnixSeconds;
use proptest::prelude::*;

use crate::program::without_throughput;

/// Emits inputs whose pieces were cut beforehand, one after the other or in turns.
struct CutSource {
    inputs: Vec<Vec<Vec<u8>>>,
    in_turns: bool,
}

impl Source for CutSource {
    fn run(self: Box<Self>, _: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        let _broken_off = self.emit_all(emit).is_break();
        Ok(())
    }
}

impl CutSource {
    fn emit_all(&self, emit: &mut Emit<'_>) -> ControlFlow<()> {
        let mut next_sequence = vec![0; self.inputs.len()];
        let mut send = |input: usize, event: ChunkEvent| {
            let sequence = next_sequence[input];
            next_sequence[input] += 1;
            let id = InputId(u32::try_from(input).expect("few inputs"));
            emit(Chunk { input: id, sequence, event })
        };
        let open = |input: usize| {
            let name: Arc<str> = format!("input-{input}").into();
            ChunkEvent::Open(InputInfo::new(name, FormatChoice::Auto))
        };
        let data = |piece: &Vec<u8>| {
            let bytes_read = piece.len() as u64;
            ChunkEvent::Data(ChunkData {
                payload: Payload::Lines(piece.clone().into()),
                bytes_read,
                position: None,
            })
        };
        if self.in_turns {
            for input in 0..self.inputs.len() {
                send(input, open(input))?;
            }
            let longest = self.inputs.iter().map(Vec::len).max().unwrap_or(0);
            for turn in 0..longest {
                for (input, pieces) in self.inputs.iter().enumerate() {
                    if let Some(piece) = pieces.get(turn) {
                        send(input, data(piece))?;
                    }
                }
            }
            for input in 0..self.inputs.len() {
                send(input, ChunkEvent::Close(None))?;
            }
        } else {
            for (input, pieces) in self.inputs.iter().enumerate() {
                send(input, open(input))?;
                for piece in pieces {
                    send(input, data(piece))?;
                }
                send(input, ChunkEvent::Close(None))?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// Keeps findings as lines.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Sink for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn write(&mut self, findings: &[Finding], _: &[u8]) -> Result<(), SinkError> {
        let mut lines = self.0.lock().expect("nobody panics with it");
        findings.iter().for_each(|finding| encode::ndjson::encode(finding, &mut lines));
        Ok(())
    }

    fn write_again(&mut self, _: &[Vec<u8>]) -> Result<(), SinkError> {
        unreachable!("there was no run before")
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Summary and findings of a run over the given pieces.
fn outcome(inputs: Vec<Vec<Vec<u8>>>, in_turns: bool, thread_count: usize) -> (String, String) {
    let kept = Kept::default();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let top = |by: &[FieldId], metric| TopSpec {
        by: by.iter().copied().map(Slot::Known).collect(),
        metric,
        rows_max: 20,
        metric_min: 0,
        window_seconds: None,
    };
    let distinct_ports = Metric::Distinct(Slot::Known(FieldId::DstPort));
    let report = pipeline::run(Job {
        expected_inputs: inputs.len(),
        sources: vec![Box::new(CutSource { inputs, in_turns })],
        thread_count,
        queue_depth: 2,
        limits: Limits::default(),
        pane_seconds: 60,
        time: TimeSettings {
            lateness: Lateness::Fixed(120),
            idle_after: None,
            latest_plausible_end: UnixSeconds::MAX,
        },
        filter: None,
        tops: vec![
            top(&[FieldId::SrcAddr], Metric::Bytes),
            top(&[FieldId::InterfaceId, FieldId::DstPort], Metric::Flows),
            top(&[FieldId::SrcAddr, FieldId::DstAddr], distinct_ports),
        ],
        talkers: Vec::new(),
        talker_sinks: Vec::new(),
        detectors: Some(Detectors {
            settings: DetectSettings::default(),
            network: Network::default(),
            trials: None,
        }),
        sinks: vec![Box::new(kept.clone())],
        isa: Isa::detect(),
        seed: thread_count as u64,
        clock,
        stop: StopFlag::default(),
        progress: Box::new(|_| {}),
        control: crossbeam_channel::never(),
        live: Arc::default(),
        memory: MemoryPlan::UNLIMITED,
        partials: None,
        dead_letters: None,
        state: None,
    })
    .expect("nothing fails as a whole");
    let summary = serde_json::to_value(Summary::new(&report, thread_count)).expect("JSON");
    let findings = kept.0.lock().expect("nobody panics with it").clone();
    (
        without_throughput(summary).to_string(),
        String::from_utf8(findings).expect("findings are UTF-8"),
    )
}

/// Two inputs with attacks, headers that repeat and change the layout, and bad lines.
fn inputs(seed: u64) -> Vec<Vec<u8>> {
    ["v2", "v5"]
        .into_iter()
        .map(|format| {
            let layout = Arc::new(Layout::from_text(format).expect("a preset"));
            let mut generator = Generator::new(&GenerateSettings {
                records: 4_000,
                seed,
                format: Arc::clone(&layout),
                interfaces: 64,
                records_per_second: 10,
                disorder_seconds: 150,
                attacks: AttackKind::ALL.into_iter().map(|kind| (kind, 1)).collect(),
                ..GenerateSettings::default()
            });
            let mut text = format!("{}\n", layout.header()).into_bytes();
            for round in 0..4 {
                generator.fill(&mut text, 1_000);
                match round {
                    0 => text.extend_from_slice(b"broken line\n\n"),
                    1 => text.extend(format!("{}\n", layout.header()).bytes()),
                    2 => {
                        text.extend_from_slice(
                            b"srcaddr dstaddr end bytes\n10.0.0.1 10.0.0.2 1767225700 7\n",
                        );
                        text.extend(format!("{}\n", layout.header()).bytes());
                    }
                    _ => {}
                }
            }
            text
        })
        .collect()
}

/// Cuts text at line ends near the given places.
fn cut(text: &[u8], places: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut ends: Vec<usize> = places
        .iter()
        .map(|place| {
            let near = place.index(text.len());
            text[near..]
                .iter()
                .position(|byte| *byte == b'\n')
                .map_or(text.len(), |at| near + at + 1)
        })
        .chain([text.len()])
        .collect();
    ends.sort_unstable();
    ends.dedup();
    let mut start = 0;
    ends.into_iter().map(|end| text[std::mem::replace(&mut start, end)..end].to_vec()).collect()
}

/// Records in an order in which none is more than 100 seconds behind another before it.
fn shuffled(lines: &[&[u8]], end_place: usize, seed: u64) -> Vec<u8> {
    let mut draw = seed;
    let mut keyed: Vec<(i64, &[u8])> = Vec::new();
    for line in lines {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let end = line.split(|byte| *byte == b' ').nth(end_place);
        let end = end.and_then(|end| std::str::from_utf8(end).ok()?.parse::<i64>().ok());
        let delay = i64::try_from(draw >> 33).expect("31 bits") % 100;
        keyed.push((end.expect("the generator's lines are records") + delay, line));
    }
    keyed.sort_by_key(|(moment, _)| *moment);
    keyed.into_iter().flat_map(|(_, line)| line).copied().collect()
}

#[test]
fn order_within_the_lateness_changes_no_finding() {
    let layout = Layout::default_v2();
    let mut generator = Generator::new(&GenerateSettings {
        records: 20_000,
        format: Arc::clone(&layout),
        interfaces: 64,
        records_per_second: 20,
        attacks: AttackKind::ALL.into_iter().map(|kind| (kind, 1)).collect(),
        ..GenerateSettings::default()
    });
    let mut text = Vec::new();
    generator.fill(&mut text, 20_000);
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let end_place = layout.position(FieldId::End).expect("the default layout has it");
    let of_order =
        |seed, threads| outcome(vec![vec![shuffled(&lines, end_place, seed)]], false, threads);
    let (summary, findings) = of_order(0, 1);
    let is_none_late = summary.replace(": ", ":").contains("\"late\":0");
    assert!(is_none_late, "{summary}");
    assert!(findings.lines().count() > 5, "{findings}");
    for (seed, threads) in [(1, 1), (2, 3)] {
        let (other_summary, other_findings) = of_order(seed, threads);
        assert_eq!(other_findings, findings);
        assert_eq!(other_summary, summary);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_and_threads_change_nothing(
        seed in 1_u64..4,
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        in_turns: bool,
        thread_count in 1_usize..6,
    ) {
        let whole: Vec<Vec<Vec<u8>>> = inputs(seed).into_iter().map(|text| vec![text]).collect();
        let pieces = inputs(seed).iter().map(|text| cut(text, &places)).collect();
        let expected = outcome(whole, false, 1);
        prop_assert!(!expected.1.is_empty(), "the planted attacks are found");
        prop_assert_eq!(outcome(pieces, in_turns, thread_count), expected);
    }
}
