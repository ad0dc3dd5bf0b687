//! How fast state becomes durable: snapshots written and read, findings appended to the journal.
//!
//! The disk is that of the directory for temporary files (`TMPDIR`).

use std::sync::Arc;

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use flowgauge::checkpoint::disk::SystemDisk;
use flowgauge::checkpoint::{Journal, JournalSettings, Part, Snapshots, StateDirectory};
use flowgauge::codec::SEGMENT_BYTES;
use flowgauge::finding::{Finding, FindingId, FindingKind, Status};
use flowgauge::sink::encode::ndjson::encode;
use flowgauge::units::UnixSeconds;

const SNAPSHOT_BYTES: usize = 512 << 20;
const FINDINGS: usize = 10_000;
/// Why nothing fails here.
const WORKS: &str = "the disk has room";

fn main() {
    divan::main();
}

/// Tables as they are: keys and counters, half of the bytes zero, the rest without a pattern.
fn parts() -> Vec<Part> {
    let mut random = 1_u64;
    let mut segment = || {
        let mut bytes = Vec::with_capacity(SEGMENT_BYTES);
        while bytes.len() < SEGMENT_BYTES {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend((random >> 32).to_le_bytes());
        }
        bytes
    };
    let mut part = |index: usize| {
        let segments = (0..SNAPSHOT_BYTES / SEGMENT_BYTES / 2).map(|_| segment()).collect();
        Part { name: format!("shard-{index}"), segments }
    };
    vec![part(0), part(1)]
}

fn finding(number: u128) -> Finding {
    let id = FindingId::from_bits(number);
    Finding { id, ..Finding::counted(FindingKind::PortScan, Status::Open, 0) }
}

/// From segments in memory to a durable file under its name.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn snapshot_write(bencher: Bencher) {
    let parts = parts();
    let root = tempfile::tempdir().expect(WORKS);
    let directory = StateDirectory::open(Arc::new(SystemDisk), root.path()).expect(WORKS);
    let mut snapshots = Snapshots::open(directory, 1).expect(WORKS);
    bencher.counter(BytesCount::new(SNAPSHOT_BYTES)).bench_local(|| {
        let written = snapshots.write(snapshots.next_epoch(), UnixSeconds(0), &parts).expect(WORKS);
        assert!(written.bytes > SNAPSHOT_BYTES as u64);
    });
}

/// From a file in the system's memory to checked bytes.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn snapshot_read(bencher: Bencher) {
    let parts = parts();
    let root = tempfile::tempdir().expect(WORKS);
    let directory = StateDirectory::open(Arc::new(SystemDisk), root.path()).expect(WORKS);
    Snapshots::open(Arc::clone(&directory), 1)
        .expect(WORKS)
        .write(1, UnixSeconds(0), &parts)
        .expect(WORKS);
    let mut snapshots = Snapshots::open(directory, 1).expect(WORKS);
    bencher.counter(BytesCount::new(SNAPSHOT_BYTES)).bench_local(|| {
        let restored = snapshots.restore(|snapshot| {
            let lengths = snapshot.names().map(|name| Ok(snapshot.bytes(name)?.len()));
            lengths.sum::<Result<usize, _>>()
        });
        assert_eq!(restored.expect(WORKS).state.expect(WORKS).1, SNAPSHOT_BYTES);
    });
}

/// The checksum alone.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn checksum(bencher: Bencher) {
    let parts = parts();
    bencher.counter(BytesCount::new(SNAPSHOT_BYTES)).bench_local(|| {
        let mut hash = crc32fast::Hasher::new();
        parts.iter().flat_map(|part| &part.segments).for_each(|segment| hash.update(segment));
        hash.finalize()
    });
}

/// What compression would cost: parts are written as they are because this is slower than disks.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn zstd_level_1(bencher: Bencher) {
    let mut parts = parts();
    parts[0].segments.truncate(64);
    let segments = &parts[0].segments;
    bencher.counter(BytesCount::new(64 * SEGMENT_BYTES)).bench_local(|| {
        let packed =
            segments.iter().map(|segment| zstd::bulk::compress(segment, 1).expect(WORKS).len());
        packed.sum::<usize>()
    });
}

/// Findings in batches of a hundred, made durable at the end.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn journal_append(bencher: Bencher) {
    let root = tempfile::tempdir().expect(WORKS);
    let directory = StateDirectory::open(Arc::new(SystemDisk), root.path()).expect(WORKS);
    let settings = JournalSettings::default();
    let mut journal = Journal::open(directory, settings, encode, None).expect(WORKS);
    let mut next = 0;
    bencher.counter(ItemsCount::new(FINDINGS)).bench_local(|| {
        for _ in 0..FINDINGS / 100 {
            let mut batch: Vec<Finding> = (next..next + 100).map(finding).collect();
            next += 100;
            journal.append(&mut batch).expect(WORKS);
        }
        journal.sync().expect(WORKS);
        let mark = journal.mark();
        journal.forget_before(&mark);
    });
    assert_eq!(u128::from(journal.position().findings), next);
}

/// A start after which all findings may come again.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn journal_open(bencher: Bencher) {
    let root = tempfile::tempdir().expect(WORKS);
    let open = || {
        let directory = StateDirectory::open(Arc::new(SystemDisk), root.path()).expect(WORKS);
        Journal::open(directory, JournalSettings::default(), encode, None).expect(WORKS)
    };
    let mut journal = open();
    journal.append(&mut (0..FINDINGS as u128).map(finding).collect()).expect(WORKS);
    journal.sync().expect(WORKS);
    drop(journal);
    bencher.counter(ItemsCount::new(FINDINGS)).bench_local(|| {
        assert_eq!(open().counters().recovered, FINDINGS as u64);
    });
}
