//! Snapshots of strangers: never a panic; what was written is read, and with a bit changed it is refused.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use flowgauge::checkpoint::disk::MemoryDisk;
use flowgauge::checkpoint::{JournalMark, Part, RefusalReason, Snapshot, Snapshots, StateDirectory};
use flowgauge::units::UnixSeconds;
use libfuzzer_sys::fuzz_target;

const FILE: &str = "/state/snapshot-00000001.fgs";

fn open(disk: &MemoryDisk) -> Snapshots {
    let directory = StateDirectory::open(Arc::new(disk.clone()), Path::new("/state")).unwrap();
    Snapshots::open(directory, 1).unwrap()
}

fn read(snapshot: &Snapshot) -> Result<Vec<Vec<u8>>, RefusalReason> {
    for name in snapshot.names() {
        let _any = snapshot.decode(name, JournalMark::load);
    }
    snapshot.names().map(|name| snapshot.bytes(name)).collect()
}

fuzz_target!(|input: (&[u8], Vec<Vec<u8>>, u32)| {
    let (strange, contents, changed_bit) = input;
    let disk = MemoryDisk::new(1);
    disk.put(Path::new(FILE), strange);
    let _any = open(&disk).restore(read);

    let disk = MemoryDisk::new(1);
    let parts: Vec<Part> = contents
        .iter()
        .enumerate()
        .map(|(index, bytes)| Part { name: format!("part-{index}"), segments: vec![bytes.clone()] })
        .collect();
    open(&disk).write(1, UnixSeconds(0), &parts).unwrap();
    assert_eq!(open(&disk).restore(read).unwrap().state.unwrap().1, contents);
    let mut bytes = disk.content(Path::new(FILE)).unwrap();
    let bit = changed_bit as usize % (bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    disk.put(Path::new(FILE), &bytes);
    assert!(open(&disk).restore(read).is_err());
});
