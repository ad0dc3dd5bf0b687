//! A panic in any thread takes the run down loudly, after what was found has been made durable.

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flowgauge::aggregate::{Lateness, TimeSettings};
use flowgauge::checkpoint::disk::SystemDisk;
use flowgauge::checkpoint::{JournalSettings, StateDirectory};
use flowgauge::clock::SystemClock;
use flowgauge::detect::{DetectSettings, Network};
use flowgauge::finding::Finding;
use flowgauge::framing::{Chunk, ChunkData, ChunkEvent, InputId, InputInfo, Limits, Payload};
use flowgauge::pipeline::{self, Detectors, Job, JobState, MemoryPlan};
use flowgauge::record::FormatChoice;
use flowgauge::simd::Isa;
use flowgauge::sink::{Sink, SinkError, encode};
use flowgauge::source::{Emit, Source, SourceError, StopFlag};
use flowgauge::units::UnixSeconds;

use super::journal;

/// A scan, and some minutes later records that complete its window, over and over until told to stop.
struct Scans;

impl Source for Scans {
    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        let id = InputId(0);
        let mut sequence = 0;
        let mut send = |event| {
            let chunk = Chunk { input: id, sequence, event };
            sequence += 1;
            emit(chunk)
        };
        let mut end = send(ChunkEvent::Open(InputInfo::new("scans".into(), FormatChoice::Auto)));
        let mut now = 1_767_225_600;
        while end.is_continue() && !stop.is_requested() {
            now += 400;
            let probe = |port| {
                let actor = now / 400 % 200;
                format!(
                    "2 123456789012 eni-1 203.0.113.{actor} 10.0.0.5 50000 {port} 6 1 44 {now} {now} REJECT OK\n"
                )
            };
            let text: String = (1000..1030).map(probe).collect();
            let data = ChunkData {
                bytes_read: text.len() as u64,
                payload: Payload::Lines(text.into_bytes().into()),
                position: None,
            };
            end = send(ChunkEvent::Data(data));
        }
        let _broken_off = matches!(end, ControlFlow::Break(()));
        Ok(())
    }
}

/// Panics when it is given findings for the third time.
struct Fragile(u32);

impl Sink for Fragile {
    fn name(&self) -> &'static str {
        "fragile"
    }

    fn write(&mut self, _: &[Finding], _: &[u8]) -> Result<(), SinkError> {
        self.0 += 1;
        assert!(self.0 < 3, "a fault of the program");
        Ok(())
    }

    fn write_again(&mut self, _: &[Vec<u8>]) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn run(state: &Path, sink: Box<dyn Sink>) {
    let directory = StateDirectory::open(Arc::new(SystemDisk), state).expect("a directory");
    let job = Job {
        sources: vec![Box::new(Scans)],
        expected_inputs: 0,
        thread_count: 2,
        queue_depth: 2,
        limits: Limits::default(),
        pane_seconds: 60,
        time: TimeSettings {
            lateness: Lateness::Fixed(60),
            idle_after: Some(Duration::from_mins(1)),
            latest_plausible_end: UnixSeconds::MAX,
        },
        filter: None,
        tops: Vec::new(),
        talkers: Vec::new(),
        talker_sinks: Vec::new(),
        detectors: Some(Detectors {
            settings: DetectSettings::default(),
            network: Network::default(),
            trials: None,
        }),
        sinks: vec![sink],
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
        state: Some(JobState {
            remote: None,
            directory,
            journal: JournalSettings::default(),
            encode: encode::ndjson::encode,
            interval: Duration::from_millis(10),
        }),
    };
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| pipeline::run(job)));
    let payload = outcome.expect_err("the panic goes on in the thread that called");
    assert_eq!(payload.downcast_ref::<&str>(), Some(&"a fault of the program"));
}

#[test]
fn a_panic_ends_the_run_and_keeps_what_was_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let state = directory.path().join("state");
    run(&state, Box::new(Fragile(0)));
    let first = journal(&state);
    assert!(first.len() >= 3, "what was found before is in the journal: {}", first.len());
    // The next run goes on from there, and meets the same end.
    run(&state, Box::new(Fragile(0)));
    assert!(journal(&state).len() > first.len());
}
