//! The bytes of an input as the cutters take them: counted, without byte order mark, at the pace that
//! suits where they come from.

use std::io::{self, ErrorKind, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::framing::fault::{DecodeFault, InputFault};
use crate::framing::position::{DecodedPlace, Position};
use crate::framing::sniff::{SNIFF_BYTES, without_mark};

/// How far blanks before the first byte that tells the form are followed.
const BLANK_START_BYTES: usize = 4096;

/// How much to wait for before handing on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Full blocks.
    InBlocks,
    /// Whatever one read gives: the rest may come much later.
    AsItArrives,
}

/// Counts what is read from outside, below any decompression.
#[derive(Clone, Debug, Default)]
pub(super) struct RawCount(Arc<AtomicU64>);

impl RawCount {
    pub(super) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn counting<R: Read>(&self, read: R) -> impl Read + use<R> {
        Counting { read, count: self.clone() }
    }
}

struct Counting<R> {
    read: R,
    count: RawCount,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read_bytes = self.read.read(out)?;
        self.count.0.fetch_add(read_bytes as u64, Ordering::Relaxed);
        Ok(read_bytes)
    }
}

/// Bytes that were looked at, then the rest.
pub(super) struct Prefixed<R> {
    start: io::Cursor<Vec<u8>>,
    rest: R,
}

impl<R: Read> Prefixed<R> {
    pub(super) fn new(start: Vec<u8>, rest: R) -> Self {
        Self { start: io::Cursor::new(start), rest }
    }
}

impl<R: Read> Read for Prefixed<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.start.read(out)? {
            0 => self.rest.read(out),
            taken => Ok(taken),
        }
    }
}

/// The first bytes, enough to tell the form. An error is not lost: decoders repeat theirs, and the
/// next read asks the system again.
pub(super) fn read_start(read: &mut impl Read) -> Vec<u8> {
    let mut start = Vec::new();
    let mut buffer = [0; SNIFF_BYTES];
    while start.len() < SNIFF_BYTES
        || (start.len() < BLANK_START_BYTES && without_mark(&start).trim_ascii_start().is_empty())
    {
        let wanted = SNIFF_BYTES - if start.len() < SNIFF_BYTES { start.len() } else { 0 };
        match read.read(&mut buffer[..wanted]) {
            Ok(0) => break,
            Ok(taken) => start.extend_from_slice(&buffer[..taken]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    start
}

/// What [`Feed::fill`] gave.
#[derive(Debug)]
pub(super) enum Filled {
    /// There may be more.
    More,
    /// That was all.
    End,
    /// There is more, but it can't be read.
    Failed(io::Error),
}

/// The decoded bytes of an input.
pub(super) struct Feed {
    read: Box<dyn Read + Send>,
    pace: Pace,
    mark_passed: bool,
    decoded_bytes: u64,
}

impl Feed {
    /// A feed that leaves out a byte order mark at the start.
    pub(super) fn without_mark(read: Box<dyn Read + Send>, pace: Pace) -> Self {
        Self { read, pace, mark_passed: false, decoded_bytes: 0 }
    }

    pub(super) fn pace(&self) -> Pace {
        self.pace
    }

    pub(super) fn decoded_bytes(&self) -> u64 {
        self.decoded_bytes
    }

    /// Passes over the first `bytes`, which were taken before.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), InputFault> {
        let copied = io::copy(&mut self.read.by_ref().take(bytes), &mut io::sink());
        let passed_bytes = copied.map_err(|error| fault_of(error, self.decoded_bytes, 0))?;
        self.decoded_bytes += passed_bytes;
        self.mark_passed |= passed_bytes > 0;
        if passed_bytes < bytes {
            let place = DecodedPlace { decoded_bytes: bytes, bytes_read: 0 };
            let position = Position::decoded(place);
            return Err(InputFault::replaced(&position, "it ends before that"));
        }
        Ok(())
    }

    /// Appends up to `wanted_bytes` to `block`.
    pub(super) fn fill(&mut self, block: &mut Vec<u8>, wanted_bytes: usize) -> Filled {
        debug_assert!(wanted_bytes > 0);
        let before = block.len();
        let mut filled = self.read_into(block, wanted_bytes);
        self.decoded_bytes += (block.len() - before) as u64;
        if !self.mark_passed {
            // The start may come in single bytes.
            while matches!(filled, Filled::More) && block.len() < 3 {
                let more_from = block.len();
                filled = self.read_into(block, wanted_bytes);
                self.decoded_bytes += (block.len() - more_from) as u64;
            }
            self.mark_passed = true;
            let mark_bytes = block.len() - without_mark(block).len();
            block.drain(..mark_bytes);
        }
        filled
    }

    fn read_into(&mut self, block: &mut Vec<u8>, wanted_bytes: usize) -> Filled {
        let before = block.len();
        match self.pace {
            Pace::InBlocks => {
                // Reads into spare capacity, which needs no zeroing first.
                match self.read.by_ref().take(wanted_bytes as u64).read_to_end(block) {
                    Ok(taken) if taken < wanted_bytes => Filled::End,
                    Ok(_) => Filled::More,
                    Err(error) => Filled::Failed(error),
                }
            }
            Pace::AsItArrives => {
                block.resize(before + wanted_bytes, 0);
                let taken = loop {
                    match self.read.read(&mut block[before..]) {
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        taken => break taken,
                    }
                };
                block.truncate(before + *taken.as_ref().unwrap_or(&0));
                match taken {
                    Ok(0) => Filled::End,
                    Ok(_) => Filled::More,
                    Err(error) => Filled::Failed(error),
                }
            }
        }
    }
}

/// The fault that an error while reading means.
pub(super) fn fault_of(error: io::Error, decoded_bytes: u64, dropped_bytes: u64) -> InputFault {
    let decode_fault =
        error.get_ref().and_then(|inner| inner.downcast_ref::<DecodeFault>()).copied();
    match decode_fault {
        Some(DecodeFault { format, .. }) => {
            InputFault::Damaged { format, decoded_bytes, dropped_bytes, source: error }
        }
        None => InputFault::Io(error),
    }
}
