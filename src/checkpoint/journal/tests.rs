//! What the journal promises, on a disk that behaves and on one that does not.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;
use crate::checkpoint::disk::memory::{Fault, Loss};
use crate::checkpoint::disk::{Disk, MemoryDisk};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{FindingId, FindingKind, Status};
use crate::units::UnixSeconds;

const SETTINGS: JournalSettings = JournalSettings {
    file_bytes_max: 400,
    total_bytes_max: 1 << 20,
    files_max: 1_000,
    known_max: 1_000,
};

fn finding(number: u32) -> Finding {
    let kind = FindingKind::PortScan;
    let id = FindingId::new(kind, &[], &[], &[], UnixSeconds((number / 3).into()));
    Finding { id, ..Finding::counted(kind, Status::Open, number % 3) }
}

fn findings(numbers: impl IntoIterator<Item = u32>) -> Vec<Finding> {
    numbers.into_iter().map(finding).collect()
}

fn encode(finding: &Finding, out: &mut Vec<u8>) {
    let line = format!("{{\"id\":\"{}\",\"revision\":{}}}\n", finding.id, finding.revision);
    out.extend_from_slice(line.as_bytes());
}

fn directory(disk: &MemoryDisk) -> Arc<StateDirectory> {
    StateDirectory::open(Arc::new(disk.clone()), Path::new("/state")).unwrap()
}

fn try_open(
    disk: &MemoryDisk,
    settings: JournalSettings,
    after: Option<&JournalMark>,
) -> Result<Journal, CheckpointError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let directory = StateDirectory::open(disk, Path::new("/state"))?;
    Journal::open(directory, settings, encode, after)
}

/// Writes those of some findings that are not there yet; how many.
fn append(journal: &mut Journal, numbers: impl IntoIterator<Item = u32>) -> usize {
    let mut findings = findings(numbers);
    journal.append(&mut findings).unwrap();
    findings.len()
}

fn open(disk: &MemoryDisk, after: Option<&JournalMark>) -> Journal {
    try_open(disk, SETTINGS, after).unwrap()
}

fn path(file: u64) -> PathBuf {
    Path::new("/state").join(format!("journal-{file:08}.ndjson"))
}

/// The findings behind a position, and everything else that its reader says.
fn read(journal: &Journal, position: Option<JournalPosition>) -> (Vec<(FindingId, u32)>, String) {
    let (mut keys, mut faults) = (Vec::new(), String::new());
    for line in journal.read_from(position) {
        match line {
            Ok(line) => {
                let text = format!("{{\"id\":\"{}\",\"revision\":{}}}\n", line.id, line.revision);
                assert_eq!(String::from_utf8(line.finding).unwrap(), text);
                keys.push((line.id, line.revision));
            }
            Err(fault) => writeln!(faults, "{fault}").unwrap(),
        }
    }
    (keys, faults)
}

fn keys(numbers: impl IntoIterator<Item = u32>) -> Vec<(FindingId, u32)> {
    findings(numbers).iter().map(|finding| (finding.id, finding.revision)).collect()
}

#[test]
fn findings_are_read_back_from_any_position() {
    let disk = MemoryDisk::new(1);
    let mut journal = open(&disk, None);
    let mut positions = vec![journal.sync().unwrap()];
    for number in 0..20 {
        let appended = append(&mut journal, [number]);
        assert_eq!(appended, 1);
        positions.push(journal.sync().unwrap());
    }
    assert!(positions[20].file > 3, "files were rotated");
    for (count, position) in (0..).zip(&positions) {
        assert_eq!(position.findings, u64::from(count));
        assert_eq!(read(&journal, Some(*position)), (keys(count..20), String::new()));
    }
    let next: Vec<JournalPosition> =
        journal.read_from(None).map(|line| line.unwrap().next).collect();
    assert_eq!(next[19], positions[20]);
    for (count, position) in (1..).zip(next) {
        assert_eq!(read(&journal, Some(position)), (keys(count..20), String::new()));
    }
}

#[test]
fn only_what_is_durable_is_read() {
    let disk = MemoryDisk::new(1);
    let mut journal = open(&disk, None);
    append(&mut journal, 0..2);
    journal.sync().unwrap();
    append(&mut journal, 2..3);
    assert_eq!(read(&journal, None).0, keys(0..2));
    assert_eq!(journal.position().findings, 3);
}

#[test]
fn a_finding_is_written_once() {
    let disk = MemoryDisk::new(1);
    let mut journal = open(&disk, None);
    let appended = append(&mut journal, [0, 1, 0]);
    assert_eq!(appended, 2);
    journal.sync().unwrap();
    let snapshot = journal.mark();
    append(&mut journal, 2..6);
    journal.sync().unwrap();
    drop(journal);
    for after in [None, Some(&snapshot)] {
        let mut journal = open(&disk, after);
        assert_eq!(journal.counters().recovered, if after.is_some() { 4 } else { 6 });
        let appended = append(&mut journal, 2..5);
        assert_eq!(appended, 0);
        assert_eq!(read(&journal, None).0, keys(0..6));
    }
    let mut journal = open(&disk, Some(&snapshot));
    append(&mut journal, 6..8);
    journal.sync().unwrap();
    assert_eq!(read(&journal, None), (keys(0..8), String::new()));
}

#[test]
fn what_a_snapshot_covers_is_forgotten() {
    let disk = MemoryDisk::new(1);
    let mut journal = open(&disk, None);
    append(&mut journal, 0..5);
    journal.sync().unwrap();
    let snapshot = journal.mark();
    append(&mut journal, 5..7);
    journal.forget_before(&snapshot);
    let appended = append(&mut journal, [4, 6]);
    assert_eq!(appended, 1);

    let mut journal =
        try_open(&MemoryDisk::new(1), JournalSettings { known_max: 3, ..SETTINGS }, None).unwrap();
    append(&mut journal, 0..5);
    assert_eq!(append(&mut journal, 0..5), 2, "the last three are known");
    assert!(journal.bytes() < 8192);
}

/// A snapshot that is taken while findings come again must not make those forgotten that have not yet.
#[test]
fn a_mark_keeps_what_has_not_come_again() {
    let disk = MemoryDisk::new(1);
    let mut journal = open(&disk, None);
    append(&mut journal, 0..10);
    journal.sync().unwrap();
    drop(journal);
    let mut journal = open(&disk, None);
    assert_eq!(append(&mut journal, 0..4), 0);
    journal.sync().unwrap();
    let mark = journal.mark();
    assert_eq!((mark.position.findings, mark.pending.len()), (10, 6));
    journal.forget_before(&mark);
    assert_eq!(append(&mut journal, [5]), 0);
    drop(journal);
    let mut out = Encoder::default();
    mark.save(&mut out);
    let bytes = out.into_bytes();
    let loaded = JournalMark::load(&mut Decoder::new(&bytes)).unwrap();
    assert_eq!(loaded, mark);
    let mut journal = open(&disk, Some(&loaded));
    assert_eq!(append(&mut journal, 4..12), 2);
    journal.sync().unwrap();
    assert_eq!(read(&journal, None), (keys(0..12), String::new()));
    assert!(journal.mark().pending.is_empty());

    for length in 0..bytes.len() {
        let cut = JournalMark::load(&mut Decoder::new(&bytes[..length]));
        assert_eq!(cut, Err(DecodeError::Truncated));
    }
    let swapped = JournalMark { pending: mark.pending.iter().rev().copied().collect(), ..mark };
    let mut out = Encoder::default();
    swapped.save(&mut out);
    assert!(JournalMark::load(&mut Decoder::new(&out.into_bytes())).is_err());
}

#[test]
fn a_damaged_line_hides_nothing() {
    let disk = MemoryDisk::new(1);
    let mut journal = open(&disk, None);
    append(&mut journal, 0..3);
    append(&mut journal, 3..6);
    journal.sync().unwrap();
    drop(journal);
    let mut bytes = disk.content(&path(1)).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[second + 10] ^= 1;
    disk.put(&path(1), &bytes);
    let journal = open(&disk, None);
    assert_eq!((journal.counters().damaged, journal.counters().torn_bytes), (1, 0));
    let (read, faults) = read(&journal, None);
    assert_eq!(read, keys([0, 2, 3, 4, 5]));
    let length = second;
    assert_eq!(
        faults,
        format!(
            "a finding in `/state/journal-00000001.ndjson` at byte {second} is damaged and was passed over ({length} bytes)\n\
             1 findings before finding 2 are no longer in the journal\n"
        )
    );
}

#[test]
fn a_torn_end_is_cut_off() {
    let disk = MemoryDisk::new(1);
    let mut journal = open(&disk, None);
    append(&mut journal, 0..2);
    journal.sync().unwrap();
    let synced = journal.mark();
    drop(journal);
    let sound = disk.content(&path(1)).unwrap();
    for torn in [&b"{\"id"[..], b"\0\0\0\0", b"x\ny\n", b"\n", &sound[..sound.len() / 2 - 1]] {
        for after in [None, Some(&synced), Some(&JournalMark::default())] {
            disk.put(&path(1), &[&sound, torn].concat());
            let mut journal = open(&disk, after);
            assert_eq!(journal.counters().torn_bytes, torn.len() as u64, "{torn:?}");
            assert_eq!(disk.content(&path(1)).unwrap(), sound);
            append(&mut journal, [2]);
            journal.sync().unwrap();
            assert_eq!(read(&journal, None), (keys(0..3), String::new()));
        }
    }
}

#[test]
fn the_oldest_files_make_room() {
    for settings in [
        JournalSettings { total_bytes_max: 1_300, ..SETTINGS },
        JournalSettings { files_max: 3, ..SETTINGS },
    ] {
        let disk = MemoryDisk::new(1);
        let mut journal = try_open(&disk, settings, None).unwrap();
        for number in 0..30 {
            append(&mut journal, [number]);
        }
        journal.sync().unwrap();
        let removed = journal.counters().files_removed;
        assert!(removed >= 4, "{removed}");
        let names = disk.list(Path::new("/state")).unwrap();
        assert!(names.len() <= 4, "{names:?}");
        let (read, faults) = read(&journal, None);
        let first = 30 - u32::try_from(read.len()).unwrap();
        assert_eq!(read, keys(first..30));
        assert_eq!(
            faults,
            format!("{first} findings before finding {first} are no longer in the journal\n")
        );
        let mut reader = journal.read_from(None);
        reader.next();
        disk.remove(&path(removed + 2)).unwrap();
        let faults = reader.filter(Result::is_err).count();
        assert_eq!(faults, 1, "a file that goes while it is read is missing");
    }
}

#[test]
fn positions_never_come_again() {
    let disk = MemoryDisk::new(1);
    let mut journal = open(&disk, None);
    append(&mut journal, 0..4);
    let position = journal.sync().unwrap();
    let mark = journal.mark();
    drop(journal);
    // Somebody has removed the journal: the snapshot and the sinks have its positions still.
    disk.remove(&path(1)).unwrap();
    let mut journal = open(&disk, Some(&mark));
    assert_eq!(journal.counters().missing, 4);
    assert!(journal.position() > position);
    append(&mut journal, 4..6);
    journal.sync().unwrap();
    assert_eq!(read(&journal, Some(position)), (keys(4..6), String::new()));
    drop(journal);
    let journal = open(&disk, None);
    assert_eq!(journal.position().findings, 6);
    let beyond = JournalPosition { file: 99, offset_bytes: 5, findings: 1_000 };
    assert_eq!(read(&journal, Some(beyond)).0, keys(4..6), "better twice than never");
}

#[test]
fn a_full_disk_is_waited_for() {
    let disk = MemoryDisk::new(1);
    let mut journal = open(&disk, None);
    append(&mut journal, 0..2);
    let before = disk.content(&path(1)).unwrap();
    disk.set_capacity_bytes(Some(before.len() as u64 + 30));
    for _ in 0..2 {
        let error = journal.append(&mut findings(2..4)).unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(error.to_string(), "cannot write `/state/journal-00000001.ndjson`");
        assert_eq!(disk.content(&path(1)).unwrap(), before);
    }
    disk.set_capacity_bytes(None);
    assert_eq!(append(&mut journal, 2..4), 2);
    journal.sync().unwrap();
    assert_eq!(read(&journal, None), (keys(0..4), String::new()));
}

/// What the test remembers of a run, to hold the journal against.
#[derive(Debug, Default)]
struct Model {
    /// Findings that were handed over, whatever came of it.
    tried: Vec<(FindingId, u32)>,
    /// Findings that are durable.
    synced: usize,
    snapshot: Option<JournalMark>,
}

/// Appends and syncs until a fault; true if there was none.
fn run(disk: &MemoryDisk, model: &mut Model, retry: bool) -> bool {
    let Ok(mut journal) = try_open(disk, SETTINGS, None) else { return false };
    for batch in 0..6 {
        let numbers = batch * 3..batch * 3 + 3;
        model.tried.extend(keys(numbers.clone()));
        let mut batch_findings = findings(numbers);
        let mut appended = journal.append(&mut batch_findings);
        if retry && appended.is_err() {
            appended = journal.append(&mut batch_findings);
        }
        if appended.is_err() {
            return false;
        }
        if batch % 2 == 1 {
            let mut synced = journal.sync();
            if retry && synced.is_err() {
                synced = journal.sync();
            }
            if synced.is_err() {
                return false;
            }
            model.synced = model.tried.len();
            if batch == 3 {
                model.snapshot = Some(journal.mark());
            }
        }
    }
    true
}

/// Every operation is once the last, or fails once: nothing durable is lost, nothing is there twice, and going
/// on fills what is missing.
#[test]
fn no_moment_loses_or_repeats_a_finding() {
    for seed in 0..20 {
        for (fault, loss, retry) in [
            (Fault::Crash, Loss::Power, false),
            (Fault::Crash, Loss::Process, false),
            (Fault::NoSpace, Loss::Power, true),
            (Fault::NoSpace, Loss::Power, false),
            (Fault::Io, Loss::Power, true),
            (Fault::Io, Loss::Process, false),
        ] {
            for fail_at in 0.. {
                let disk = MemoryDisk::new(seed * 1_000 + fail_at);
                let mut model = Model::default();
                disk.fail_at(fail_at, fault);
                let done = run(&disk, &mut model, retry);
                let is_past = disk.operations() <= fail_at;
                disk.restart(loss);
                let place = format!("seed {seed}, {fault:?} at {fail_at}, {loss:?}, retry {retry}");
                check_recovery(&disk, &model, &place);
                if is_past {
                    assert!(done);
                    break;
                }
            }
        }
    }
}

fn check_recovery(disk: &MemoryDisk, model: &Model, place: &str) {
    let mut journal = open(disk, model.snapshot.as_ref());
    let (there, _) = read(&journal, None);
    assert!(there.len() >= model.synced, "{place}");
    assert_eq!(there[..model.synced], model.tried[..model.synced], "{place}");
    let numbers: Vec<usize> = there
        .iter()
        .map(|key| model.tried.iter().position(|tried| tried == key).expect("it was handed over"))
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{place}: {numbers:?}");

    let covered = model.snapshot.as_ref().map_or(0, |mark| mark.position.findings);
    let again = findings(u32::try_from(covered).unwrap()..18);
    journal.append(&mut again.clone()).unwrap();
    journal.sync().unwrap();
    let mut all = read(&journal, None).0;
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!((all.len(), count), (18, 18), "{place}");
}

proptest! {
    /// Any bytes in the place of its files: the journal opens, reads what is sound and goes on.
    #[test]
    fn strange_bytes_are_passed_over(
        files in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..4),
        sound in prop::collection::vec(any::<bool>(), 4),
        file in 0_u64..5, offset_bytes in 0_u64..300, findings_before in 0_u64..9,
    ) {
        let disk = MemoryDisk::new(1);
        directory(&disk);
        let mut line = Vec::new();
        encode(&finding(100), &mut line);
        line::close(&mut line, 0, 5);
        for (number, (bytes, is_sound)) in (1..).zip(files.iter().zip(sound)) {
            let content = if is_sound { [bytes, &b"\n"[..], &line, bytes].concat() } else { bytes.clone() };
            disk.put(&path(number), &content);
        }
        let position = JournalPosition { file, offset_bytes, findings: findings_before };
        let mark = JournalMark { position, pending: Vec::new() };
        for after in [Some(&mark), None] {
            let mut journal = open(&disk, after);
            read(&journal, after.map(|mark| mark.position));
            prop_assert_eq!(append(&mut journal, [1, 2]),
                if after.is_some() { 2 } else { 0 });
            let end = journal.sync().unwrap();
            prop_assert_eq!(end.findings, journal.position().findings);
        }
    }

    /// Batches of any size with repeats, syncs, restarts and forgetting against a list.
    #[test]
    fn the_journal_is_a_list_without_repeats(
        steps in prop::collection::vec((0_u32..4, 0_u32..40, 0_u32..12), 1..40),
        file_bytes_max in 1_u64..2_000,
    ) {
        let disk = MemoryDisk::new(1);
        let settings = JournalSettings { file_bytes_max, ..SETTINGS };
        let mut journal = try_open(&disk, settings, None).unwrap();
        let mut model: Vec<(FindingId, u32)> = Vec::new();
        for (kind, start, count) in steps {
            match kind {
                0 => {
                    journal.sync().unwrap();
                    drop(journal);
                    disk.restart(Loss::Power);
                    journal = try_open(&disk, settings, None).unwrap();
                }
                1 => {
                    journal.sync().unwrap();
                    prop_assert_eq!(&read(&journal, None).0, &model);
                }
                _ => {
                    let before = model.len();
                    for key in keys(start..start + count) {
                        if !model.contains(&key) {
                            model.push(key);
                        }
                    }
                    let appended = append(&mut journal, start..start + count);
                    prop_assert_eq!(appended, model.len() - before);
                }
            }
        }
    }
}
