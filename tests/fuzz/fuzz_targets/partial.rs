//! Partials of strangers, sound as files and with anything in their parts: merged or refused, never a panic.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use flowgauge::aggregate::PaneContacts;
use flowgauge::checkpoint::disk::MemoryDisk;
use flowgauge::checkpoint::{Part, PartialReader, PartialWriter, StateDirectory};
use flowgauge::detect::{DetectSettings, Network};
use flowgauge::pipeline::{Detectors, MemoryPlan, merge};
use flowgauge::units::{PaneIndex, UnixSeconds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8], &[u8], &[u8])| {
    let (job, inputs, tops, contacts) = input;
    let path = Path::new("/partials");
    let disk = Arc::new(MemoryDisk::new(1));
    let directory = StateDirectory::open(Arc::clone(&disk) as _, path).unwrap();
    let mut writer = PartialWriter::new(directory).unwrap();
    let part =
        |name: &str, bytes: &[u8]| Part { name: name.to_owned(), segments: vec![bytes.to_vec()] };
    writer.pane(PaneIndex(0), UnixSeconds(0), &[part("shard-0", contacts)]).unwrap();
    let rest = [part("job", job), part("inputs", inputs), part("shard-0", tops)];
    writer.rest(UnixSeconds(0), &rest).unwrap();
    let reader = PartialReader::open(disk, path).unwrap();
    let _any = reader.pane(PaneIndex(0), |file| file.decode("shard-0", PaneContacts::load));
    let detectors = Detectors { settings: DetectSettings::default(), network: Network::default() };
    let _any = merge(&[("one".to_owned(), reader)], &detectors, MemoryPlan::of(1 << 30, 1, false));
});
