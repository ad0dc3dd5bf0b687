//! Durable state under fire: a small engine whose disk fails, tears and loses power at random, held
//! against what it would have done on a disk that does not.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use flowgauge::checkpoint::disk::memory::{Fault, FaultRates, Loss};
use flowgauge::checkpoint::disk::{Disk, MemoryDisk, SystemDisk};
use flowgauge::checkpoint::{
    CheckpointError, Cursors, Journal, JournalFault, JournalMark, JournalSettings, Part,
    RefusalReason, Restored, Snapshot, Snapshots, StateDirectory,
};
use flowgauge::codec::{DecodeError, Decoder, Encoder};
use flowgauge::finding::{Finding, FindingId, FindingKind, Status};
use flowgauge::sink::encode;
use flowgauge::units::UnixSeconds;

const STATE: &str = "/state";

/// Findings of a whole run.
const FINDINGS: u64 = 60;

const SETTINGS: JournalSettings = JournalSettings {
    file_bytes_max: 3_000,
    total_bytes_max: 1 << 20,
    files_max: 100,
    known_max: 1_000,
};

/// What is kept in snapshots: how far the input was read, a digest of it, where the journal was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    read: u64,
    digest: u64,
    journal: JournalMark,
}

impl State {
    fn step(&mut self) -> Finding {
        let finding = finding(self.read);
        self.digest = self.digest.wrapping_mul(31).wrapping_add(self.read);
        self.read += 1;
        finding
    }

    fn parts(&self) -> Vec<Part> {
        let mut numbers = Encoder::default();
        numbers.plain(&[self.read, self.digest]);
        let mut journal = Encoder::default();
        self.journal.save(&mut journal);
        [("numbers", numbers), ("journal", journal)]
            .map(|(name, out)| Part { name: name.to_owned(), segments: out.into_segments() })
            .into()
    }

    fn load(snapshot: &Snapshot) -> Result<Self, RefusalReason> {
        let journal = snapshot.decode("journal", JournalMark::load)?;
        let [read, digest] = snapshot.decode("numbers", |from: &mut Decoder<'_>| {
            let numbers = from.plain::<u64>()?;
            numbers.try_into().map_err(|_| DecodeError::Invalid("numbers"))
        })?;
        Ok(Self { read, digest, journal })
    }
}

fn finding(number: u64) -> Finding {
    let kind = FindingKind::PortScan;
    let start = UnixSeconds(i64::try_from(number / 2).expect("numbers are small"));
    let id = FindingId::new(kind, &[], &[], &[], start);
    Finding {
        id,
        ..Finding::counted(kind, Status::Open, u32::try_from(number % 2).expect("it is 0 or 1"))
    }
}

type Key = (FindingId, u32);

fn key(number: u64) -> Key {
    let finding = finding(number);
    (finding.id, finding.revision)
}

/// One life of the process, until its end or a fault that it does not survive.
fn live(
    disk: &MemoryDisk,
    random: &mut Random,
    received: &mut Vec<Key>,
) -> Result<State, CheckpointError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let directory = StateDirectory::open(disk, Path::new(STATE))?;
    let mut snapshots = Snapshots::open(Arc::clone(&directory), 1)?;
    let Restored { state: restored, .. } = snapshots.restore(State::load)?;
    let mut state = restored.as_ref().map(|(_, state)| state.clone()).unwrap_or_default();
    let after = restored.is_some().then_some(&state.journal);
    let mut journal =
        Journal::open(Arc::clone(&directory), SETTINGS, encode::ndjson::encode, after)?;
    let (mut cursors, refused) = Cursors::open(directory)?;
    assert!(refused.is_none(), "{refused:?}");
    settle(&journal, &mut cursors, received)?;
    while state.read < FINDINGS {
        let count = random.below(5).min(FINDINGS - state.read);
        let mut findings: Vec<Finding> = (0..count).map(|_| state.step()).collect();
        persist(|| journal.append(&mut findings))?;
        if random.below(3) > 0 && state.read < FINDINGS {
            continue;
        }
        persist(|| journal.sync().map(drop))?;
        state.journal = journal.mark();
        let epoch = snapshots.next_epoch();
        // A snapshot that cannot be written is tried again with the next barrier.
        if snapshots.write(epoch, UnixSeconds(0), &state.parts()).is_ok() {
            journal.forget_before(&state.journal);
        }
        settle(&journal, &mut cursors, received)?;
    }
    Ok(state)
}

/// Tries again as long as it may help.
fn persist(
    mut attempt: impl FnMut() -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    loop {
        match attempt() {
            Err(error) if error.is_retryable() => {}
            done => return done,
        }
    }
}

/// A sink that takes everything behind its cursor.
fn settle(
    journal: &Journal,
    cursors: &mut Cursors,
    received: &mut Vec<Key>,
) -> Result<(), CheckpointError> {
    let cursor = cursors.get("siem");
    let mut settled = cursor.unwrap_or_default();
    for line in journal.read_from(cursor) {
        match line {
            Ok(line) => {
                received.push((line.id, line.revision));
                settled = line.next;
            }
            Err(JournalFault::Io(error)) => return Err(error),
            // Holes that a power loss left in what was not durable: it was written again behind them.
            Err(JournalFault::Damaged { .. } | JournalFault::Missing { .. }) => {}
        }
    }
    cursors.set("siem", settled);
    persist(|| cursors.save())
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// Damages the newest of two snapshots, as a bad sector would.
fn damage_newest(disk: &MemoryDisk, random: &mut Random) {
    let names = disk.list(Path::new(STATE)).unwrap_or_default();
    let snapshots: Vec<&String> =
        names.iter().filter(|name| name.strip_suffix(".fgs").is_some()).collect();
    let [.., _, newest] = snapshots[..] else { return };
    let path = Path::new(STATE).join(newest);
    let mut bytes = disk.content(&path).expect("it was listed");
    let at = usize::try_from(random.below(bytes.len() as u64)).expect("it is an index");
    bytes[at] ^= 1 << random.below(8);
    disk.put(&path, &bytes);
}

/// Lives until a whole run succeeds; how many lives it took.
fn simulate(seed: u64) -> u64 {
    let mut random = Random(seed);
    let disk = MemoryDisk::new(seed);
    let mut received = Vec::new();
    for life in 1.. {
        if life < 40 {
            let operations = 1 + random.below(200);
            disk.fail_at(operations, if random.below(4) == 0 { Fault::Io } else { Fault::Crash });
            disk.set_rates(FaultRates {
                no_space_per_mille: 20,
                io_per_mille: 2,
                short_reads_per_mille: 300,
            });
        }
        let done = live(&disk, &mut random, &mut received);
        let is_power_loss = random.below(2) == 0;
        disk.restart(if is_power_loss { Loss::Power } else { Loss::Process });
        if let Ok(state) = done {
            check_end(&disk, &state, &received, seed);
            return life;
        }
        if random.below(4) == 0 {
            damage_newest(&disk, &mut random);
        }
    }
    unreachable!("later lives meet no fault")
}

fn check_end(disk: &MemoryDisk, state: &State, received: &[Key], seed: u64) {
    let mut expected = State::default();
    let expected_keys: BTreeSet<Key> =
        (0..FINDINGS).map(|_| expected.step()).map(|it| (it.id, it.revision)).collect();
    assert_eq!((state.read, state.digest), (expected.read, expected.digest), "seed {seed}");
    let directory =
        StateDirectory::open(Arc::new(disk.clone()), Path::new(STATE)).expect("the disk behaves");
    let journal =
        Journal::open(directory, SETTINGS, encode::ndjson::encode, None).expect("the disk behaves");
    let lines: Vec<Key> = journal
        .read_from(None)
        .filter_map(Result::ok)
        .map(|line| (line.id, line.revision))
        .collect();
    let distinct: BTreeSet<Key> = lines.iter().copied().collect();
    assert_eq!(lines.len(), distinct.len(), "seed {seed}: a finding is there twice");
    assert!(distinct == expected_keys, "seed {seed}: the journal has {} findings", distinct.len());
    let received: BTreeSet<Key> = received.iter().copied().collect();
    assert!(received == expected_keys, "seed {seed}: the sink has {} findings", received.len());
}

#[test]
fn nothing_is_lost_or_doubled_whatever_the_disk_does() {
    let lives: u64 = (0..500).map(simulate).sum();
    println!("{lives} lives");
    assert!(lives > 2_000, "most runs met a fault: {lives} lives");
}

#[test]
fn the_journal_is_read_by_anybody_who_reads_json() {
    let root = tempfile::tempdir().unwrap();
    let directory = StateDirectory::open(Arc::new(SystemDisk), root.path()).unwrap();
    let encode = encode::ndjson::encode;
    let mut journal = Journal::open(directory, SETTINGS, encode, None).unwrap();
    let findings: Vec<Finding> = (0..4).map(finding).collect();
    journal.append(&mut findings.clone()).unwrap();
    journal.sync().unwrap();
    let text = std::fs::read_to_string(root.path().join("journal-00000001.ndjson")).unwrap();
    assert_eq!(text.lines().count(), 4);
    for (number, line) in (0..).zip(text.lines()) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["schema"], "flowgauge.finding/v1");
        assert_eq!(value["id"], key(number).0.to_string());
        assert_eq!(value["seq"], number);
        let checksum = value["crc32"].as_str().unwrap();
        assert!(line.ends_with(&format!(",\"crc32\":\"{checksum}\"}}")));
    }
    for (line, finding) in journal.read_from(None).zip(&findings) {
        let mut expected = Vec::new();
        encode(finding, &mut expected);
        assert_eq!(line.unwrap().finding, expected);
    }
}
