//! The spool on a disk that fails and forgets: what was acknowledged is counted once, whatever happens.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::checkpoint::disk::MemoryDisk;
use crate::checkpoint::disk::memory::{Fault, FaultRates, Loss};
use crate::source::firehose::body::Record;
use crate::source::firehose::frame::{Origin, pack};

const DIRECTORY: &str = "/state/spool/deliveries";
const LIMITS: SpoolLimits = SpoolLimits { bytes_max: 1 << 30, segment_bytes: 700 };

/// A request whose one record is its number; `size` records more make it several frames long.
fn request(number: u64, size: usize) -> Vec<Frame> {
    let text = base64_simd::STANDARD.encode_to_string(number.to_string());
    let filler = base64_simd::STANDARD.encode_to_string(vec![b'x'; 600_000]);
    let mut records = vec![Record::Base64(text.as_bytes())];
    records.extend(vec![Record::Base64(filler.as_bytes()); size]);
    let (name, request_hash) = (number.to_string(), u128::from(number));
    pack(&records, &Origin { request_hash, name: &name, arrival_ms: 1, wire_bytes: 9 })
}

fn open(disk: &MemoryDisk, resume_at: Option<u64>) -> Result<(Spool, Replay), SpoolError> {
    Spool::open(Arc::new(disk.clone()), Path::new(DIRECTORY), resume_at, LIMITS)
}

/// Request numbers and offsets of what is read again.
fn replayed(replay: &mut Replay) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    while let Some((frame, end)) = replay.next_frame().unwrap() {
        if frame.is_last() {
            found.push((u64::try_from(frame.request_hash()).unwrap(), end));
        }
    }
    found
}

fn put(spool: &mut Spool, numbers: &[u64]) -> Result<Vec<u64>, SpoolError> {
    let mut ends = Vec::new();
    for number in numbers {
        ends.extend(spool.write(&request(*number, 0))?.last());
    }
    spool.sync()?;
    numbers.iter().for_each(|number| spool.remember(u128::from(*number)));
    Ok(ends)
}

#[test]
fn what_is_in_no_snapshot_is_read_again() {
    let disk = MemoryDisk::new(1);
    let (mut spool, mut replay) = open(&disk, None).unwrap();
    assert!(replayed(&mut replay).is_empty());
    let ends = put(&mut spool, &[1, 2, 3]).unwrap();
    drop(spool);
    disk.restart(Loss::Power);
    let (spool, mut replay) = open(&disk, Some(ends[0])).unwrap();
    assert_eq!(replayed(&mut replay), [(2, ends[1]), (3, ends[2])]);
    assert!([1, 2, 3].into_iter().all(|number| spool.knows(number)) && !spool.knows(4));
    let (_, mut replay) = open(&disk, None).unwrap();
    assert_eq!(replayed(&mut replay).len(), 3, "a job that begins anew reads all");
}

#[test]
fn segments_go_when_snapshots_hold_them_and_ids_stay() {
    let disk = MemoryDisk::new(1);
    let (mut spool, _) = open(&disk, None).unwrap();
    let mut end = 0;
    for number in 0..40 {
        end = put(&mut spool, &[number]).unwrap()[0];
    }
    let bytes_before = spool.file_bytes();
    spool.trim(end - 1);
    assert!(spool.file_bytes() < bytes_before / 2);
    assert!(disk.list(Path::new(DIRECTORY)).unwrap().len() <= 2);
    drop(spool);
    // Also after a life in which nothing came.
    let (_, mut replay) = open(&disk, Some(end)).unwrap();
    assert!(replayed(&mut replay).is_empty());
    let (mut spool, mut replay) = open(&disk, Some(end)).unwrap();
    assert!(replayed(&mut replay).is_empty());
    assert!((0..40).all(|number| spool.knows(number)));
    let next = put(&mut spool, &[40]).unwrap()[0];
    assert!(next > end, "offsets go on");
    assert!(disk.list(Path::new(DIRECTORY)).unwrap().len() <= 2);
}

#[test]
fn a_request_that_is_not_whole_was_never_acknowledged() {
    let disk = MemoryDisk::new(1);
    let (mut spool, _) = open(&disk, None).unwrap();
    let end = put(&mut spool, &[1]).unwrap()[0];
    let frames = request(2, 3);
    assert!(frames.len() > 2);
    spool.write(&frames[..2]).unwrap();
    spool.sync().unwrap();
    drop(spool);
    disk.restart(Loss::Process);
    let (mut spool, mut replay) = open(&disk, None).unwrap();
    assert_eq!(replayed(&mut replay), [(1, end)]);
    assert!(!spool.knows(2));
    put(&mut spool, &[2]).unwrap();
    let (_, mut replay) = open(&disk, None).unwrap();
    assert_eq!(replayed(&mut replay).iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn room_has_a_limit() {
    let disk = MemoryDisk::new(1);
    let limits = SpoolLimits { bytes_max: 2_000, segment_bytes: 700 };
    let open = || Spool::open(Arc::new(disk.clone()), Path::new(DIRECTORY), None, limits);
    let (mut spool, _) = open().unwrap();
    let mut number = 0;
    while spool.has_room() {
        put(&mut spool, &[number]).unwrap();
        number += 1;
    }
    assert!(spool.file_bytes() < 2_700);
    drop(spool);
    let (mut spool, _) = open().unwrap();
    assert!(!spool.has_room(), "also after a restart");
    spool.trim(u64::MAX);
    assert!(spool.has_room());
}

#[test]
fn what_was_refused_is_not_there_again_behind_the_next_segment() {
    let disk = MemoryDisk::new(1);
    let (mut spool, _) = open(&disk, None).unwrap();
    let first = put(&mut spool, &[1]).unwrap()[0];
    // As if the sync had failed, though all of it is on the disk, and nothing could be cut off.
    let refused = spool.write(&request(2, 0)).unwrap()[0];
    let path = Path::new(DIRECTORY).join(name_of(0));
    let content = disk.content(&path).unwrap();
    spool.abandon();
    let last = put(&mut spool, &[3, 2]).unwrap();
    disk.put(&path, &content);
    assert!(last[0] > refused);
    let (_, mut replay) = open(&disk, None).unwrap();
    assert_eq!(replayed(&mut replay), [(1, first), (3, last[0]), (2, last[1])]);
    let (spool, mut replay) = open(&disk, Some(last[0])).unwrap();
    assert_eq!(replayed(&mut replay), [(2, last[1])]);
    assert!(spool.knows(1) && spool.knows(2));
}

#[test]
fn a_segment_that_takes_the_name_of_an_empty_one_stays() {
    let disk = MemoryDisk::new(1);
    let (mut spool, _) = open(&disk, None).unwrap();
    spool.write(&request(1, 0)).unwrap();
    let path = Path::new(DIRECTORY).join(name_of(0));
    drop(spool);
    let head = Head::encode(0, 0, [&[], &[]]);
    disk.put(&path, &head);
    let (mut spool, _) = open(&disk, None).unwrap();
    let ends = put(&mut spool, &[1, 2]).unwrap();
    spool.trim(ends[0]);
    let (_, mut replay) = open(&disk, Some(ends[0])).unwrap();
    assert_eq!(replayed(&mut replay), [(2, ends[1])]);
}

/// What a client and an engine make of the spool.
struct World {
    disk: MemoryDisk,
    draw: u64,
    /// How often each request counts in the snapshot.
    counted: BTreeMap<u64, u32>,
    position: Option<u64>,
    acknowledged: Vec<u64>,
    pending: Vec<u64>,
    next_number: u64,
}

impl World {
    fn below(&mut self, limit: u64) -> u64 {
        self.draw = self.draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.draw >> 33) % limit
    }

    /// One process.
    fn live(&mut self, steps: u64) -> Result<(), SpoolError> {
        let (mut spool, mut replay) = open(&self.disk, self.position)?;
        let mut emitted = Vec::new();
        while let Some((frame, end)) = replay.next_frame()? {
            if frame.is_last() {
                emitted.push((u64::try_from(frame.request_hash()).unwrap(), end));
            }
        }
        for _ in 0..steps {
            match self.below(6) {
                0 => self.snapshot(&mut spool, &mut emitted),
                1 => self.disk.set_rates(FaultRates {
                    no_space_per_mille: 200,
                    io_per_mille: 200,
                    short_reads_per_mille: 200,
                }),
                2 => self.disk.set_rates(FaultRates::default()),
                _ => self.deliver(&mut spool, &mut emitted),
            }
        }
        if self.below(2) == 0 {
            self.snapshot(&mut spool, &mut emitted);
        }
        Ok(())
    }

    fn snapshot(&mut self, spool: &mut Spool, emitted: &mut Vec<(u64, u64)>) {
        for (number, end) in emitted.drain(..) {
            *self.counted.entry(number).or_default() += 1;
            self.position = Some(end);
        }
        if let Some(position) = self.position {
            spool.trim(position);
        }
    }

    /// Sends what was refused before, or something new.
    fn deliver(&mut self, spool: &mut Spool, emitted: &mut Vec<(u64, u64)>) {
        let count = 1 + self.below(3);
        while self.pending.len() < usize::try_from(count).unwrap() {
            self.pending.push(self.next_number);
            self.next_number += 1;
        }
        let numbers: Vec<u64> = self.pending.clone();
        let new: Vec<u64> =
            numbers.into_iter().filter(|number| !spool.knows(u128::from(*number))).collect();
        match put(spool, &new) {
            Ok(ends) => {
                emitted.extend(new.into_iter().zip(ends));
                self.acknowledged.append(&mut self.pending);
            }
            Err(_) => spool.abandon(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn acknowledged_requests_count_once_whatever_the_disk_does(seed in any::<u64>()) {
        let mut world = World {
            disk: MemoryDisk::new(seed),
            draw: seed,
            counted: BTreeMap::new(),
            position: None,
            acknowledged: Vec::new(),
            pending: Vec::new(),
            next_number: 0,
        };
        for _ in 0..6 {
            if world.below(3) == 0 {
                let at = world.below(40);
                world.disk.fail_at(at, Fault::Crash);
            }
            let steps = world.below(30);
            // A process that can't read its spool ends; the next tries again.
            let _ended_early = world.live(steps).is_err();
            let loss = if world.below(2) == 0 { Loss::Power } else { Loss::Process };
            world.disk.restart(loss);
            world.disk.set_rates(FaultRates::default());
        }
        let (mut spool, mut replay) = open(&world.disk, world.position).unwrap();
        let mut emitted = replayed(&mut replay);
        world.deliver(&mut spool, &mut emitted);
        world.snapshot(&mut spool, &mut emitted);
        prop_assert!(world.pending.is_empty());
        for number in &world.acknowledged {
            prop_assert_eq!(world.counted.get(number), Some(&1), "request {}", number);
        }
        prop_assert!(world.counted.values().all(|count| *count == 1), "{:?}", world.counted);
    }
}
