//! From where an input can be read on: what a snapshot keeps of each input, and a later run starts with.
//!
//! A position is that after a part of the input that was handed on whole; what follows it is read again,
//! nothing before it is. Inputs are told by their names, which outlive a run, unlike their numbers.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::file_range::read_up_to;
use super::finished::FinishedInputs;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::record::Layout;

/// A place in an input, between two of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position(Place);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Bytes(u64),
    Decoded(DecodedPlace),
    RowGroup(u64),
    Generated(u64),
    Shard(ShardPlace),
    /// Before a day of a listing.
    Day(i64),
    LogGroup(LogGroupPlace),
    Spooled(u64),
}

/// A place in what a compressed file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DecodedPlace {
    /// Bytes of text before it.
    pub(super) decoded_bytes: u64,
    /// What of the file counts as read, so that it is counted once.
    pub(super) bytes_read: u64,
}

/// A place in a shard of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardPlace {
    /// Before the oldest record that the stream still holds.
    Oldest,
    /// Before the first record that arrived at this moment or later, Unix milliseconds.
    Moment(i64),
    /// After the record with this sequence number, and all that was aggregated in it.
    After(Arc<str>),
}

/// A place in a log group: everything before a moment was taken, and some of what comes after it.
///
/// Events of a log group have no order that holds: late ones come between those that were read before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogGroupPlace {
    /// Unix milliseconds; events with an earlier timestamp are not asked for again.
    pub floor_ms: i64,
    /// The events since then that were taken.
    pub taken: TakenEvents,
}

/// Events of a log group, in runs that places share.
#[derive(Clone, Debug, Default)]
pub struct TakenEvents {
    /// Runs, each of which was taken whole.
    pub runs: Vec<Arc<[TakenEvent]>>,
}

/// An event of a log group that was taken: its timestamp and a digest of its id, as
/// `[milliseconds, high half, low half]`.
pub type TakenEvent = [u64; 3];

impl TakenEvents {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &TakenEvent> {
        self.runs.iter().flat_map(|run| run.iter())
    }
}

impl PartialEq for TakenEvents {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for TakenEvents {}

impl Position {
    /// After as many generated records.
    #[must_use]
    pub const fn generated(record_count: u64) -> Self {
        Self(Place::Generated(record_count))
    }

    /// How many generated records are before it, if the input is generated.
    #[must_use]
    pub const fn as_generated(&self) -> Option<u64> {
        match self.0 {
            Place::Generated(record_count) => Some(record_count),
            _ => None,
        }
    }

    /// A place in a shard.
    #[must_use]
    pub const fn in_shard(place: ShardPlace) -> Self {
        Self(Place::Shard(place))
    }

    /// The place in its shard, if the input is a shard.
    #[must_use]
    pub const fn as_shard(&self) -> Option<&ShardPlace> {
        match &self.0 {
            Place::Shard(place) => Some(place),
            _ => None,
        }
    }

    /// Before all keys of a day, which is numbered from 1970-01-01.
    #[must_use]
    pub const fn before_day(day: i64) -> Self {
        Self(Place::Day(day))
    }

    /// The day before which everything was listed and read, if the input is a listing.
    #[must_use]
    pub const fn as_day(&self) -> Option<i64> {
        match self.0 {
            Place::Day(day) => Some(day),
            _ => None,
        }
    }

    /// A place in a log group.
    #[must_use]
    pub const fn in_log_group(place: LogGroupPlace) -> Self {
        Self(Place::LogGroup(place))
    }

    /// The place in its log group, if the input is one.
    #[must_use]
    pub const fn as_log_group(&self) -> Option<&LogGroupPlace> {
        match &self.0 {
            Place::LogGroup(place) => Some(place),
            _ => None,
        }
    }

    /// At an offset of what a source wrote down before it acknowledged it.
    #[must_use]
    pub const fn spooled(offset: u64) -> Self {
        Self(Place::Spooled(offset))
    }

    /// The offset, if the input is a spool.
    #[must_use]
    pub const fn as_spooled(&self) -> Option<u64> {
        match self.0 {
            Place::Spooled(offset) => Some(offset),
            _ => None,
        }
    }

    /// In a plain file.
    pub(super) const fn bytes(offset: u64) -> Self {
        Self(Place::Bytes(offset))
    }

    pub(super) const fn as_bytes(&self) -> Option<u64> {
        match self.0 {
            Place::Bytes(offset) => Some(offset),
            _ => None,
        }
    }

    /// How many bytes of an input that is not compressed are before it, so that reading may begin there; 0 if
    /// reading has to begin at the start.
    #[must_use]
    pub const fn byte_offset(&self) -> u64 {
        match self.0 {
            Place::Bytes(offset) => offset,
            _ => 0,
        }
    }

    pub(super) const fn decoded(place: DecodedPlace) -> Self {
        Self(Place::Decoded(place))
    }

    pub(super) const fn as_decoded(&self) -> Option<DecodedPlace> {
        match self.0 {
            Place::Decoded(place) => Some(place),
            _ => None,
        }
    }

    /// Before a row group of a Parquet object.
    #[cfg(feature = "parquet")]
    pub(super) const fn row_group(index: u64) -> Self {
        Self(Place::RowGroup(index))
    }

    #[cfg(feature = "parquet")]
    pub(super) const fn as_row_group(&self) -> Option<u64> {
        match self.0 {
            Place::RowGroup(index) => Some(index),
            _ => None,
        }
    }

    /// The position that as many bytes of text come before this one; `None` if it doesn't count bytes.
    pub(super) fn before(&self, bytes: u64) -> Option<Self> {
        match self.0 {
            _ if bytes == 0 => Some(self.clone()),
            Place::Bytes(offset) => offset.checked_sub(bytes).map(Self::bytes),
            Place::Decoded(place) => {
                let decoded_bytes = place.decoded_bytes.checked_sub(bytes)?;
                Some(Self::decoded(DecodedPlace { decoded_bytes, ..place }))
            }
            _ => None,
        }
    }

    /// Saves it.
    pub fn save(&self, out: &mut Encoder) {
        match &self.0 {
            Place::Bytes(offset) => tagged(out, 0, *offset),
            Place::Decoded(place) => {
                tagged(out, 1, place.decoded_bytes);
                out.u64(place.bytes_read);
            }
            Place::RowGroup(index) => tagged(out, 2, *index),
            Place::Generated(record_count) => tagged(out, 3, *record_count),
            Place::Shard(ShardPlace::Oldest) => out.u8(4),
            Place::Shard(ShardPlace::Moment(unix_ms)) => {
                out.u8(5);
                out.i64(*unix_ms);
            }
            Place::Shard(ShardPlace::After(sequence_number)) => {
                out.u8(6);
                out.text(sequence_number);
            }
            Place::Day(day) => {
                out.u8(20);
                out.i64(*day);
            }
            Place::LogGroup(place) => {
                out.u8(LOG_GROUP_TAG);
                out.i64(place.floor_ms);
                let since_floor = |event: &&TakenEvent| event[0].cast_signed() >= place.floor_ms;
                let taken: Vec<TakenEvent> =
                    place.taken.iter().filter(since_floor).copied().collect();
                out.plain(&taken);
            }
            Place::Spooled(offset) => tagged(out, 7, *offset),
        }
    }

    /// What [`Self::save`] wrote.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self(match from.u8()? {
            0 => Place::Bytes(from.u64()?),
            1 => {
                let (decoded_bytes, bytes_read) = (from.u64()?, from.u64()?);
                Place::Decoded(DecodedPlace { decoded_bytes, bytes_read })
            }
            2 => Place::RowGroup(from.u64()?),
            3 => Place::Generated(from.u64()?),
            4 => Place::Shard(ShardPlace::Oldest),
            5 => Place::Shard(ShardPlace::Moment(from.i64()?)),
            6 => Place::Shard(ShardPlace::After(from.text()?.into())),
            20 => Place::Day(from.i64()?),
            LOG_GROUP_TAG => {
                let floor_ms = from.i64()?;
                let taken: Vec<TakenEvent> = from.plain()?;
                let runs = if taken.is_empty() { Vec::new() } else { vec![taken.into()] };
                Place::LogGroup(LogGroupPlace { floor_ms, taken: TakenEvents { runs } })
            }
            7 => Place::Spooled(from.u64()?),
            _ => return Err(DecodeError::Invalid("position")),
        }))
    }
}

/// What comes before a place in a log group.
const LOG_GROUP_TAG: u8 = 32;

fn tagged(out: &mut Encoder, tag: u8, number: u64) {
    out.u8(tag);
    out.u64(number);
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Bytes(offset) => write!(f, "byte {offset}"),
            Place::Decoded(place) => write!(f, "decoded byte {}", place.decoded_bytes),
            Place::RowGroup(index) => write!(f, "row group {index}"),
            Place::Generated(record_count) => write!(f, "generated record {record_count}"),
            Place::Shard(ShardPlace::Oldest) => write!(f, "the oldest record"),
            Place::Shard(ShardPlace::Moment(unix_ms)) => {
                write!(f, "the first record since Unix millisecond {unix_ms}")
            }
            Place::Shard(ShardPlace::After(sequence_number)) => {
                write!(f, "the record after {sequence_number}")
            }
            Place::Day(day) => write!(f, "day {day} since 1970-01-01"),
            Place::LogGroup(place) => {
                let taken_count = place.taken.iter().count();
                write!(
                    f,
                    "the events since Unix millisecond {}, without {taken_count} of them",
                    place.floor_ms
                )
            }
            Place::Spooled(offset) => write!(f, "spool offset {offset}"),
        }
    }
}

/// By how much of its start a file is known again: names, inodes and dates don't survive copies.
const FILE_START_BYTES: usize = 1024;

/// How a file begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStart {
    length: u32,
    digest: [u8; 16],
}

impl FileStart {
    /// How `file` begins now.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(file: &File) -> io::Result<Self> {
        let mut start = [0; FILE_START_BYTES];
        let length = read_up_to(file, &mut start, 0)?;
        Ok(Self::of_bytes(&start[..length]))
    }

    fn of_bytes(start: &[u8]) -> Self {
        let digest = Sha256::digest(start);
        let digest = digest[..16].try_into().expect("SHA-256 has 32 bytes");
        Self { length: u32::try_from(start.len()).expect("a file's start is short"), digest }
    }

    /// Whether `file` still begins so; it may have grown.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_of(&self, file: &File) -> io::Result<bool> {
        let mut start = [0; FILE_START_BYTES];
        let length = FILE_START_BYTES.min(self.length as usize);
        let read_bytes = read_up_to(file, &mut start[..length], 0)?;
        Ok(Self::of_bytes(&start[..read_bytes]) == *self)
    }

    fn save(&self, out: &mut Encoder) {
        out.u32(self.length);
        out.raw(&self.digest);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let length = from.u32()?;
        let digest = from.raw(16)?.try_into().expect("as many were asked for");
        Ok(Self { length, digest })
    }
}

/// With what an input is read on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Where.
    pub position: Position,
    /// The layout that holds there, for lines that continue the input.
    pub layout: Arc<Layout>,
    /// How the file began, if it is one.
    pub file_start: Option<FileStart>,
}

impl ResumePoint {
    /// Saves it.
    pub fn save(&self, out: &mut Encoder) {
        self.position.save(out);
        out.text(&self.layout.header());
        out.option(self.file_start, |out, start| start.save(out));
    }

    /// What [`Self::save`] wrote.
    ///
    /// # Errors
    /// If the bytes are something else.
    pub fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let position = Position::load(from)?;
        let layout = Layout::from_text(from.text()?).map_err(|_| DecodeError::Invalid("layout"))?;
        let file_start = from.option(FileStart::load)?;
        Ok(Self { position, layout: Arc::new(layout), file_start })
    }
}

/// How far an input was read before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadUntil {
    /// Up to here; it is open.
    Point(ResumePoint),
    /// To its end; it is not read again.
    End,
}

/// How far inputs were read before, by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    named: BTreeMap<Arc<str>, ReadUntil>,
    /// Others, which ended.
    finished: Option<FinishedInputs>,
}

impl Positions {
    /// How far an input was read, `None` if it was not.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ReadUntil> {
        let is_finished = || self.finished.as_ref().is_some_and(|names| names.contains(name));
        self.named.get(name).or_else(|| is_finished().then_some(&ReadUntil::End))
    }

    /// Where an input goes on, `None` if it was not read before or not to be read again.
    #[must_use]
    pub fn point(&self, name: &str) -> Option<&ResumePoint> {
        match self.named.get(name) {
            Some(ReadUntil::Point(point)) => Some(point),
            Some(ReadUntil::End) | None => None,
        }
    }

    /// Whether an input was read to its end.
    #[must_use]
    pub fn is_finished(&self, name: &str) -> bool {
        self.get(name) == Some(&ReadUntil::End)
    }

    /// All inputs whose names begin like this, in order, without those that ended.
    pub fn beginning_with<'a>(
        &'a self,
        start: &'a str,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a ReadUntil)> {
        self.named.iter().filter(move |(name, _)| name.starts_with(start))
    }

    /// These, and those that ended.
    #[must_use]
    pub fn with_finished(self, finished: FinishedInputs) -> Self {
        Self { finished: Some(finished), ..self }
    }
}

impl FromIterator<(Arc<str>, ReadUntil)> for Positions {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, ReadUntil)>>(inputs: I) -> Self {
        Self { named: inputs.into_iter().collect(), finished: None }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn positions_are_saved_and_shown() {
        let check = |position: Position, shown: &str| {
            assert_eq!(position.to_string(), shown);
            let layout = Layout::default_v2();
            let point =
                ResumePoint { position, layout, file_start: Some(FileStart::of_bytes(b"2 ")) };
            let mut out = Encoder::default();
            point.save(&mut out);
            let bytes = out.into_bytes();
            assert_eq!(ResumePoint::load(&mut Decoder::new(&bytes)), Ok(point));
            for length in 0..bytes.len() {
                assert!(ResumePoint::load(&mut Decoder::new(&bytes[..length])).is_err());
            }
        };
        check(Position::bytes(7), "byte 7");
        let place = DecodedPlace { decoded_bytes: 9, bytes_read: 5 };
        check(Position::decoded(place), "decoded byte 9");
        check(Position(Place::RowGroup(3)), "row group 3");
        check(Position::before_day(20_454), "day 20454 since 1970-01-01");
        check(Position::generated(11), "generated record 11");
        check(Position::spooled(13), "spool offset 13");
        check(Position::in_shard(ShardPlace::Oldest), "the oldest record");
        check(
            Position::in_shard(ShardPlace::Moment(1_000)),
            "the first record since Unix millisecond 1000",
        );
        check(Position::in_shard(ShardPlace::After("49".into())), "the record after 49");
        let runs = vec![Arc::from([[1_000, 1, 2], [1_001, 3, 4]])];
        check(
            Position::in_log_group(LogGroupPlace { floor_ms: 1_000, taken: TakenEvents { runs } }),
            "the events since Unix millisecond 1000, without 2 of them",
        );
    }

    #[test]
    fn a_file_is_known_again_by_its_start() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"2 1 eni-1\n").unwrap();
        let start = FileStart::of(&file).unwrap();
        file.write_all(&[b'x'; 5_000]).unwrap();
        assert!(start.is_of(&file).unwrap(), "it grew");
        let longer = FileStart::of(&file).unwrap();
        assert!(longer.is_of(&file).unwrap());
        file.set_len(5).unwrap();
        assert!(!start.is_of(&file).unwrap(), "it was cut");
        assert!(!FileStart::of_bytes(b"2 2").is_of(&file).unwrap());
    }
}
