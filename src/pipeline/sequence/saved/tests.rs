//! Interrupted runs over files of every form: whatever the moment, what is saved and loaded ends as one run does.

use std::io::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crossbeam_channel::bounded;
use proptest::prelude::*;

use super::*;
use crate::aggregate::{Lateness, Router, TOTALS_COLUMNS};
use crate::clock::ManualClock;
use crate::framing::Limits;
use crate::generate::{GenerateSettings, Generator};
use crate::pipeline::layout_guess::LayoutGuess;
use crate::pipeline::parse_stage::{ParseSettings, ParsedChunk};
use crate::record::{FieldId, FormatChoice, Layout, Parser};
use crate::simd::Isa;
use crate::source::{FileSource, InputIds, StopFlag};
use crate::units::UnixSeconds;

const THREADS: usize = 3;

fn parse_stage() -> ParseStage {
    let isa = Isa::detect();
    let (_, used_batches) = bounded(1);
    let clock = Arc::new(ManualClock::default());
    let (filter, pool, limits) = (None, None, Limits::default());
    let router = Router::new(&[], true, 1, 1);
    let settings = ParseSettings { isa, limits, filter, router, used_batches, clock, pool };
    ParseStage::new(settings, Parser::new(isa, TOTALS_COLUMNS.into_iter().collect()))
}

fn time() -> TimeSettings {
    let latest_plausible_end = UnixSeconds(1_900_000_000);
    TimeSettings { lateness: Lateness::Detected, idle_after: None, latest_plausible_end }
}

/// Text with two layouts, a line that is none, and records that are late.
fn text(seed: u64, records: u64) -> Vec<u8> {
    let layout = Layout::from_text("v5").unwrap();
    let mut generator = Generator::new(&GenerateSettings {
        records,
        seed,
        format: Arc::new(layout.clone()),
        interfaces: 64,
        records_per_second: 20,
        disorder_seconds: 200,
        ..GenerateSettings::default()
    });
    let mut text = format!("{}\n", layout.header()).into_bytes();
    for round in 0..4 {
        generator.fill(&mut text, usize::try_from(records / 4).unwrap());
        text.extend_from_slice(format!("broken line {round}\r\n\n").as_bytes());
        if round == 1 {
            text.extend_from_slice(b"srcaddr dstaddr start end bytes\n");
            for row in 0..2_000 {
                let end = 1_767_225_600 + row;
                text.extend(format!("10.0.0.1 10.0.0.2 {} {end} 7\n", end - 5).bytes());
            }
            text.extend_from_slice(b"10.0.0.1 10.0.0.2 1 2 7\n");
            text.extend(format!("{}\n", layout.header()).bytes());
        }
    }
    text
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn envelopes(text: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').skip(1).collect();
    let mut out = Vec::new();
    for (number, lines) in lines.chunks(500).enumerate() {
        let events: Vec<String> = lines
            .iter()
            .map(|line| {
                let message = String::from_utf8_lossy(line);
                format!(r#"{{"id":"1","timestamp":1,"message":{message:?}}}"#)
            })
            .collect();
        let events = events.join(",");
        let end = if number % 3 == 0 { "\n" } else { "" };
        write!(
            out,
            r#"{{"messageType":"DATA_MESSAGE","owner":"1","logGroup":"g","logStream":"s","subscriptionFilters":[],"logEvents":[{events}]}}{end}"#
        )
        .unwrap();
    }
    out
}

/// Files of every form, made once; the folder goes with the last of them.
fn files() -> &'static (tempfile::TempDir, Vec<PathBuf>) {
    static FILES: OnceLock<(tempfile::TempDir, Vec<PathBuf>)> = OnceLock::new();
    FILES.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let plain = text(1, 12_000);
        let third = plain.len() / 3;
        let members = [gzip(&plain[..third]), gzip(&plain[third..])].concat();
        let without_end = &text(2, 6_000)[..];
        let without_end = &without_end[..without_end.len() - 7];
        let damaged = gzip(&text(3, 6_000));
        let zstd = zstd::bulk::compress(without_end, 1).unwrap();
        let contents: [(&str, &[u8]); 8] = [
            ("a.log", &plain),
            ("b.log.gz", &members),
            ("c.json", &envelopes(&text(4, 8_000))),
            ("d.zst", &zstd),
            ("e.log", &[b"\xEF\xBB\xBF", without_end].concat()),
            ("f.gz", &damaged[..damaged.len() - 1_000]),
            ("g.json.gz", &gzip(&envelopes(&text(5, 6_000)))),
            ("h.log.gz", &gzip(&gzip(&text(6, 6_000)))),
        ];
        let mut paths = vec![folder.path().join("missing.log")];
        for (name, content) in contents {
            paths.push(folder.path().join(name));
            std::fs::write(paths.last().unwrap(), content).unwrap();
        }
        (folder, paths)
    })
}

/// What the stages after the sequencer were given: `end`s of rows that are not late.
type Given = BTreeMap<InputId, Vec<Option<i64>>>;

/// Reads on with a sequencer; parts arrive in an order that `draw` shuffles, and after `parts_max` of
/// them everything is dropped but the sequencer. True at the end.
fn go_on(
    sequencer: &mut Sequencer,
    files: &[PathBuf],
    parts_max: usize,
    mut draw: u64,
    given: &mut Given,
) -> bool {
    let ids = InputIds::default();
    let positions = Arc::new(sequencer.positions());
    let sources = FileSource::split(files, &FormatChoice::Auto, &Limits::default(), 1, &ids);
    let mut parser = parse_stage();
    let mut waiting: Vec<Vec<ParsedChunk>> = Vec::new();
    let mut taken_parts = 0;
    let mut take = |sequencer: &mut Sequencer, parts: Vec<ParsedChunk>| {
        for part in parts {
            if taken_parts == parts_max {
                return ControlFlow::Break(());
            }
            taken_parts += 1;
            let mut rows = Vec::new();
            let input = part.input;
            sequencer.accept(part, Duration::ZERO, &mut |routed| {
                let ends = routed.batch.seconds(FieldId::End).expect("a column of the job");
                rows.extend(routed.contact_rows(0).map(|row| ends.get(row)));
            });
            given.entry(input).or_default().extend(rows);
            sequencer.watermark(Duration::ZERO);
        }
        ControlFlow::Continue(())
    };
    let mut goes_on = ControlFlow::Continue(());
    for mut source in sources {
        source.resume(Arc::clone(&positions));
        let mut guess = LayoutGuess::default();
        let run = source.run(&StopFlag::default(), &mut |chunk| {
            let layout = guess.layout_for(&chunk);
            let mut parts = Vec::new();
            let end = parser.process(chunk, &layout, &mut |part| {
                parts.push(part);
                ControlFlow::Continue(())
            });
            assert!(end.is_continue());
            waiting.push(parts);
            if waiting.len() == THREADS {
                draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let next = usize::try_from(draw >> 33).unwrap() % THREADS;
                goes_on = take(sequencer, waiting.remove(next));
            }
            goes_on
        });
        run.unwrap();
    }
    for parts in waiting {
        if goes_on.is_continue() {
            goes_on = take(sequencer, parts);
        }
    }
    goes_on.is_continue()
}

/// The report of a run that is interrupted after so many parts, again and again.
fn outcome(files: &[PathBuf], interrupts: &[usize], draw: u64) -> String {
    let mut given = Given::new();
    let mut sequencer = Sequencer::new(parse_stage(), time(), files.len());
    let mut interrupts = interrupts.iter();
    loop {
        let parts_max = interrupts.next().copied().unwrap_or(usize::MAX);
        if go_on(&mut sequencer, files, parts_max, draw, &mut given) {
            break;
        }
        let mut out = Encoder::default();
        sequencer.save(&mut out);
        let bytes = out.into_bytes();
        let mut from = Decoder::new(&bytes);
        sequencer =
            Sequencer::load(parse_stage(), time(), files.len(), Duration::ZERO, &mut from).unwrap();
        from.finish().unwrap();
        let mut again = Encoder::default();
        sequencer.save(&mut again);
        assert!(again.into_bytes() == bytes, "saved again it is the same");
    }
    let report = sequencer.finish();
    format!("{report:#?}\n{given:?}")
}

fn check(files: &[PathBuf], interrupts: &[usize], draw: u64) {
    let (expected, got) = (outcome(files, &[], draw), outcome(files, interrupts, draw));
    if expected != got {
        let differing = expected.lines().zip(got.lines()).find(|(a, b)| a != b);
        let shown = differing.map(|(a, b)| (&a[..a.len().min(400)], &b[..b.len().min(400)]));
        panic!("interrupted after {interrupts:?}: {shown:?}");
    }
}

#[test]
fn the_files_hold_what_matters() {
    let (_, paths) = files();
    let report = outcome(paths, &[], 1);
    for part in ["late_by_input: {\n", "missing.log", "f.gz", "broken line"] {
        assert!(report.contains(part), "{part}: {}", &report[..report.len().min(4_000)]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn interrupted_runs_end_as_whole_ones(
        interrupts in prop::collection::vec(0_usize..80, 1..5),
        draw in any::<u64>(),
    ) {
        check(&files().1, &interrupts, draw);
    }

    #[test]
    fn damaged_bytes_are_refused_or_harmless(
        parts_max in 0_usize..60,
        flip in any::<u32>(),
        length in any::<u32>(),
    ) {
        let paths = &files().1;
        let mut sequencer = Sequencer::new(parse_stage(), time(), paths.len());
        go_on(&mut sequencer, paths, parts_max, 7, &mut Given::new());
        let mut out = Encoder::default();
        sequencer.save(&mut out);
        let mut bytes = out.into_bytes();
        let load = |bytes: &[u8]| {
            let from = &mut Decoder::new(bytes);
            Sequencer::load(parse_stage(), time(), paths.len(), Duration::ZERO, from)
        };
        prop_assert!(load(&bytes[..length as usize % bytes.len()]).is_err());
        let bit = flip as usize % (8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(mut damaged) = load(&bytes) {
            go_on(&mut damaged, paths, usize::MAX, 7, &mut Given::new());
            damaged.finish();
        }
    }
}

#[test]
fn the_first_form_is_read() {
    let mut out = Encoder::default();
    out.version(1);
    (0..3).for_each(|_| out.u64(0));
    Totals::default().save(&mut out);
    out.count(0);
    out.count(2);
    ["a.log", "stream/shardId-000000000000"].into_iter().for_each(|name| out.text(name));
    (0..3).for_each(|_| out.count(0));
    Watermarks::new(time(), 0).save(&|_| InputFate::Ended, &mut out);
    let bytes = out.into_bytes();
    let mut from = Decoder::new(&bytes);
    let sequencer = Sequencer::load(parse_stage(), time(), 0, Duration::ZERO, &mut from).unwrap();
    from.finish().unwrap();
    let positions = sequencer.positions();
    let names = ["a.log", "b.log", "stream/shardId-000000000000"];
    assert_eq!(names.map(|name| positions.is_finished(name)), [true, false, true]);
}

#[test]
fn a_file_that_was_replaced_is_a_fault() {
    let check = |replace: &dyn Fn(&Path), expected: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        std::fs::write(&path, text(1, 12_000)).unwrap();
        let files = [path.clone()];
        let interrupted = |parts_max| {
            let mut sequencer = Sequencer::new(parse_stage(), time(), 1);
            go_on(&mut sequencer, &files, parts_max, 1, &mut Given::new());
            sequencer
        };
        let has_records = |sequencer: &Sequencer| sequencer.report.totals.records() > 0;
        let sequencer = (1..100).map(interrupted).find(has_records).unwrap();
        let records = sequencer.report.totals.records();
        let mut out = Encoder::default();
        sequencer.save(&mut out);
        let bytes = out.into_bytes();
        let from = &mut Decoder::new(&bytes);
        let mut later = Sequencer::load(parse_stage(), time(), 1, Duration::ZERO, from).unwrap();
        replace(&path);
        go_on(&mut later, &files, usize::MAX, 1, &mut Given::new());
        let report = later.finish();
        assert_eq!(report.totals.records(), records);
        assert!(report.failed[0].message.contains(expected), "{}", report.failed[0].message);
    };
    check(&|path| std::fs::write(path, text(2, 12_000)).unwrap(), "it begins with other bytes");
    check(
        &|path| std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(2_000).unwrap(),
        "it is shorter",
    );
    check(&|path| std::fs::remove_file(path).unwrap(), "cannot read it");
}
