//! Journals of strangers: never a panic; what is sound is read, and what is appended is read back.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use flowgauge::checkpoint::disk::MemoryDisk;
use flowgauge::checkpoint::{
    Cursors, Journal, JournalMark, JournalPosition, JournalSettings, StateDirectory,
};
use flowgauge::finding::{Finding, FindingId, FindingKind, Status};
use flowgauge::sink::encode::ndjson::encode;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Vec<&[u8]>, u8, u16, u32, &[u8])| {
    let (files, file, offset_bytes, findings, cursors) = input;
    let disk = MemoryDisk::new(1);
    for (number, bytes) in (1..).zip(files) {
        disk.put(Path::new(&format!("/state/journal-{number:08}.ndjson")), bytes);
    }
    disk.put(Path::new("/state/cursors.json"), cursors);
    let directory = StateDirectory::open(Arc::new(disk), Path::new("/state")).unwrap();
    let position = JournalPosition {
        file: file.into(),
        offset_bytes: offset_bytes.into(),
        findings: findings.into(),
    };
    let (cursors, _refused) = Cursors::open(Arc::clone(&directory)).unwrap();
    let mark = JournalMark { position, ..JournalMark::default() };
    let settings = JournalSettings::default();
    let mut journal = Journal::open(directory, settings, encode, Some(&mark)).unwrap();
    for start in [None, Some(position), cursors.get("siem")] {
        journal.read_from(start).for_each(drop);
    }
    let before = journal.position();
    let finding = Finding {
        id: FindingId::from_bits(findings.into()),
        ..Finding::counted(FindingKind::PortScan, Status::Open, 0)
    };
    let mut list = vec![finding.clone(), finding];
    journal.append(&mut list).unwrap();
    journal.sync().unwrap();
    let read = journal.read_from(Some(before)).filter(Result::is_ok).count();
    assert!(list.len() <= 1 && read == list.len());
});
