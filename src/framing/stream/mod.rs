//! Reads one file or standard input as payloads: finds out what it is, decompresses it, and cuts it
//! into blocks of whole lines or whole documents.
//!
//! Runs on a source thread. Plain files are not read here beyond the borders of their ranges, Parquet objects
//! not beyond their footer, and compressed files that fit in memory not at all: the workers do it. What comes as
//! a stream is read once, into the buffer that it travels in; only the piece of a line at its end is copied to
//! the next.

mod documents;
mod feed;
mod lines;
mod ranges;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use super::chunk::{ChunkData, Payload, SourceRecord};
use super::fault::InputFault;
use super::file_range::RangeForm;
use super::gzip::GzipStream;
use super::limits::Limits;
use super::packed::PackedFile;
use super::position::{DecodedPlace, Position, ResumePoint};
use super::sniff::{Form, form_of, without_mark};
use super::zstandard::ZstdStream;
use crate::record::{TextPool, TextSlice};
use documents::DocumentCutter;
use feed::{Feed, Pace, Prefixed, RawCount, fault_of};
use lines::LineCutter;
use ranges::{NextRange, RANGE_BYTES, RangeCutter};

/// About how many bytes of text a payload has: enough to make a queue's hop cheap, few enough to stay in
/// a core's cache.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// Compression inside compression is undone once: shippers compress objects of compressed records.
const COMPRESSIONS_MAX: u32 = 2;

/// The place after an input that is one record.
const ONE_RECORD: u64 = 1;

/// Reads an input to its end.
pub struct InputReader {
    limits: Limits,
    pool: TextPool,
    raw_count: RawCount,
    reported_bytes: u64,
    /// Where to begin; taken when the input is opened.
    from: Option<Position>,
    places: Places,
    state: State,
}

/// How places in a stream are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Places {
    /// Not at all: what was read is gone.
    None,
    /// By bytes after decompression.
    Decoded,
    /// By bytes of the file, in which the stream begins here.
    InFile(u64),
    /// Like one of the two above: by bytes of the object if it is not compressed.
    InObject(u64),
}

enum State {
    File(File),
    Stream(Box<dyn Read + Send>, Pace),
    Ranges(RangeCutter),
    Packed(Option<PackedFile>),
    Lines(LineCutter),
    Documents(DocumentCutter),
    Records(Vec<SourceRecord>),
    #[cfg(feature = "parquet")]
    Parquet(super::parquet::RowGroups),
    Ended(Result<(), InputFault>),
}

impl InputReader {
    /// Reads a regular file. Payloads are as large as they should be.
    #[must_use]
    pub fn of_file(file: File, limits: &Limits) -> Self {
        Self { places: Places::Decoded, ..Self::new(State::File(file), limits) }
    }

    /// Reads on in a regular file.
    ///
    /// # Errors
    /// If it certainly is not the file that was read before.
    pub fn of_file_at(
        file: File,
        point: &ResumePoint,
        limits: &Limits,
    ) -> Result<Self, InputFault> {
        let position = point.position.clone();
        if let Some(start) = point.file_start
            && !start.is_of(&file)?
        {
            return Err(InputFault::replaced(&position, "it begins with other bytes"));
        }
        Ok(Self { from: Some(position), ..Self::of_file(file, limits) })
    }

    /// Reads what can be read only once: standard input, a FIFO, a socket. What has arrived in whole
    /// lines is handed on at once, so payloads may be small.
    #[must_use]
    pub fn of_stream(stream: Box<dyn Read + Send>, limits: &Limits) -> Self {
        Self::new(State::Stream(stream, Pace::AsItArrives), limits)
    }

    /// Reads an object that comes as a stream and can be read again from any place: from its start, or, of one
    /// that is not compressed, from the offset of `from` on ([`Position::byte_offset`]).
    #[must_use]
    pub fn of_object(
        stream: Box<dyn Read + Send>,
        from: Option<Position>,
        limits: &Limits,
    ) -> Self {
        let start = from.as_ref().map_or(0, Position::byte_offset);
        let from = from.filter(|position| position.as_bytes().is_none());
        let state = State::Stream(stream, Pace::InBlocks);
        Self { from, places: Places::InObject(start), ..Self::new(state, limits) }
    }

    /// Reads a file's bytes that are in memory already, from `place` on.
    pub(super) fn of_bytes(
        bytes: impl AsRef<[u8]> + Send + 'static,
        place: DecodedPlace,
        limits: &Limits,
    ) -> Self {
        let stream = Box::new(std::io::Cursor::new(bytes));
        let state = State::Stream(stream, Pace::InBlocks);
        let from = Some(Position::decoded(place));
        Self { from, places: Places::Decoded, ..Self::new(state, limits) }
    }

    fn new(state: State, limits: &Limits) -> Self {
        let limits = limits.clone();
        let pool = TextPool::new(limits.kept_text_bytes_max);
        let raw_count = RawCount::default();
        let (from, places) = (None, Places::None);
        Self { limits, pool, raw_count, reported_bytes: 0, from, places, state }
    }

    /// The next piece, `None` at the end. The `bytes_read` of all pieces add up to what was read.
    ///
    /// # Errors
    /// What ended the input early. Everything before it has been handed out by then, and the next call
    /// gives `None`.
    pub fn next_piece(&mut self) -> Result<Option<ChunkData>, InputFault> {
        let end = match self.next_payload() {
            Ok(Some((payload, bytes_read))) => {
                let bytes_read = bytes_read + self.unreported_bytes();
                let position = self.position();
                return Ok(Some(ChunkData { payload, bytes_read, position }));
            }
            Ok(None) => Ok(()),
            Err(fault) => Err(fault),
        };
        let taken_bytes = self.taken_bytes();
        self.state = State::Ended(Ok(()));
        let bytes_read = self.unreported_bytes();
        if bytes_read == 0 {
            return end.map(|()| None);
        }
        // A trailer, or all of an input without a line, still counts as read.
        self.state = State::Ended(end);
        let position = taken_bytes.and_then(|taken_bytes| self.position_at(taken_bytes));
        let payload = Payload::Lines(TextSlice::default());
        Ok(Some(ChunkData { payload, bytes_read, position }))
    }

    fn unreported_bytes(&mut self) -> u64 {
        // A plain file is read a little ahead. What was taken of it counts, so that the rest counts once
        // if it is read again.
        let read_bytes = match (&self.state, self.places) {
            (State::Documents(cutter), Places::InFile(_)) => cutter.taken_bytes(),
            (State::Lines(cutter), Places::InFile(_)) => cutter.taken_bytes(),
            _ => self.raw_count.bytes(),
        };
        let unreported = read_bytes.saturating_sub(self.reported_bytes);
        self.reported_bytes += unreported;
        unreported
    }

    /// From where to read on after the last payload.
    fn position(&self) -> Option<Position> {
        match &self.state {
            State::Ranges(cutter) => cutter.taken_bytes().map(Position::bytes),
            #[cfg(feature = "parquet")]
            State::Parquet(groups) if self.places != Places::None => {
                Some(Position::row_group(groups.next_index()))
            }
            _ => self.taken_bytes().and_then(|taken_bytes| self.position_at(taken_bytes)),
        }
    }

    /// How much of a stream was handed on.
    fn taken_bytes(&self) -> Option<u64> {
        match &self.state {
            State::Lines(cutter) => Some(cutter.taken_bytes()),
            State::Documents(cutter) => Some(cutter.taken_bytes()),
            State::Records(_) => Some(ONE_RECORD),
            _ => None,
        }
    }

    fn position_at(&self, taken_bytes: u64) -> Option<Position> {
        match self.places {
            Places::None => None,
            Places::Decoded => Some(Position::decoded(DecodedPlace {
                decoded_bytes: taken_bytes,
                bytes_read: self.reported_bytes,
            })),
            Places::InFile(start) | Places::InObject(start) => {
                Some(Position::bytes(start + taken_bytes))
            }
        }
    }

    /// The next payload and the bytes that it costs beyond those that `raw_count` knows of.
    fn next_payload(&mut self) -> Result<Option<(Payload, u64)>, InputFault> {
        loop {
            let payload = match &mut self.state {
                State::File(_) | State::Stream(..) => {
                    self.open()?;
                    continue;
                }
                State::Ranges(cutter) => match cutter.next_range()? {
                    NextRange::Payload(payload, bytes_read) => {
                        return Ok(Some((payload, bytes_read)));
                    }
                    NextRange::End => None,
                    NextRange::Unplannable(at) => {
                        let rest = OffsetReader { file: Arc::clone(cutter.file()), at };
                        self.places = Places::InFile(at);
                        self.state = self.documents(Box::new(rest))?;
                        continue;
                    }
                },
                State::Packed(file) => file.take().map(Payload::Packed),
                State::Lines(cutter) => cutter.next_payload()?,
                State::Documents(cutter) => cutter.next_payload()?,
                State::Records(records) if records.is_empty() => None,
                State::Records(records) => Some(Payload::Records(std::mem::take(records))),
                #[cfg(feature = "parquet")]
                State::Parquet(groups) => {
                    return Ok(groups.next().map(|group| {
                        let bytes_read = group.bytes_read();
                        (Payload::RowGroup(group), bytes_read)
                    }));
                }
                State::Ended(end) => {
                    std::mem::replace(end, Ok(()))?;
                    None
                }
            };
            return Ok(payload.map(|payload| (payload, 0)));
        }
    }

    /// Finds out what the input is.
    fn open(&mut self) -> Result<(), InputFault> {
        let ended = State::Ended(Ok(()));
        self.state = match std::mem::replace(&mut self.state, ended) {
            State::File(file) => self.open_file(file)?,
            State::Stream(stream, pace) => self.open_stream(stream, pace)?,
            other => other,
        };
        let Some(position) = self.from.take() else { return Ok(()) };
        self.pass(&position)
    }

    /// Passes over what was read before.
    fn pass(&mut self, position: &Position) -> Result<(), InputFault> {
        let other_form = || InputFault::replaced(position, "it has another form");
        match &mut self.state {
            State::Ranges(cutter) => {
                let offset = position.as_bytes().ok_or_else(other_form)?;
                if offset > cutter.file().metadata()?.len() {
                    return Err(InputFault::replaced(position, "it is shorter"));
                }
                cutter.resume(offset);
                return Ok(());
            }
            #[cfg(feature = "parquet")]
            State::Parquet(groups) => {
                let index = position.as_row_group().ok_or_else(other_form)?;
                groups
                    .resume(index)
                    .ok_or_else(|| InputFault::replaced(position, "it has fewer row groups"))?;
                // What was read to find them counted with the first.
                self.reported_bytes = if index > 0 { self.raw_count.bytes() } else { 0 };
                return Ok(());
            }
            _ => {}
        }
        let place = position.as_decoded().ok_or_else(other_form)?;
        match &mut self.state {
            State::Packed(Some(file)) => file.resume(place),
            State::Lines(cutter) => cutter.skip(place.decoded_bytes)?,
            State::Documents(cutter) => cutter.skip(place.decoded_bytes)?,
            State::Records(records) if place.decoded_bytes > 0 => records.clear(),
            _ => {}
        }
        self.reported_bytes = place.bytes_read;
        Ok(())
    }

    fn open_file(&mut self, mut file: File) -> Result<State, InputFault> {
        let start = feed::read_start(&mut file);
        if file.metadata()?.len() < start.len() as u64 {
            // Files that the kernel makes up when they are read have no length.
            self.places = Places::None;
            return self.open_stream(Box::new(Prefixed::new(start, file)), Pace::InBlocks);
        }
        let mark_bytes = (start.len() - without_mark(&start).len()) as u64;
        match form_of(&start) {
            #[cfg(feature = "parquet")]
            Form::Parquet => super::parquet::RowGroups::of_file(file).map(State::Parquet),
            #[cfg(not(feature = "parquet"))]
            Form::Parquet => Err(InputFault::ParquetLeftOut),
            Form::Text => Ok(self.ranges(file, RangeForm::Lines, mark_bytes)),
            Form::Json => Ok(self.ranges(file, RangeForm::Documents, mark_bytes)),
            Form::Gzip => match PackedFile::of_gzip(file, &self.limits) {
                Ok(packed) => Ok(State::Packed(Some(packed))),
                Err(file) => {
                    self.open_stream(Box::new(OffsetReader { file, at: 0 }), Pace::InBlocks)
                }
            },
            _ => self.open_stream(Box::new(Prefixed::new(start, file)), Pace::InBlocks),
        }
    }

    fn ranges(&self, file: File, form: RangeForm, mark_bytes: u64) -> State {
        let file = Arc::new(file);
        State::Ranges(RangeCutter::new(file, form, mark_bytes, RANGE_BYTES, &self.limits))
    }

    /// The rest of a plain file of documents.
    fn documents(&self, rest: Box<dyn Read + Send>) -> Result<State, InputFault> {
        let rest = Box::new(self.raw_count.counting(rest));
        self.open_plain(Form::Json, rest, Pace::InBlocks)
    }

    fn open_stream(
        &mut self,
        stream: Box<dyn Read + Send>,
        pace: Pace,
    ) -> Result<State, InputFault> {
        let mut read: Box<dyn Read + Send> = Box::new(self.raw_count.counting(stream));
        for compression in 0..=COMPRESSIONS_MAX {
            let start = feed::read_start(&mut read);
            let form = form_of(&start);
            let rest: Box<dyn Read + Send> = Box::new(Prefixed::new(start, read));
            read = match form {
                Form::Gzip | Form::Zstd if compression == COMPRESSIONS_MAX => {
                    return Err(InputFault::Unsupported("data compressed more than twice"));
                }
                Form::Gzip => Box::new(GzipStream::new(rest)),
                Form::Zstd => Box::new(ZstdStream::new(rest)?),
                form => {
                    if let Places::InObject(start) = self.places {
                        self.places = match form {
                            Form::Text | Form::Json if compression == 0 => Places::InFile(start),
                            _ => Places::Decoded,
                        };
                    }
                    return self.open_plain(form, rest, pace);
                }
            };
        }
        unreachable!("the last round returns")
    }

    fn open_plain(
        &self,
        form: Form,
        read: Box<dyn Read + Send>,
        pace: Pace,
    ) -> Result<State, InputFault> {
        match form {
            Form::Text => {
                let feed = Feed::without_mark(read, pace);
                let pool = self.pool.clone();
                Ok(State::Lines(LineCutter::new(feed, self.limits.line_bytes_max, pool)))
            }
            Form::Json => {
                let feed = Feed::without_mark(read, pace);
                let bytes_max = self.limits.document_bytes_max;
                Ok(State::Documents(DocumentCutter::new(feed, bytes_max, self.pool.clone())))
            }
            Form::KplAggregate => {
                let limit_bytes = self.limits.document_bytes_max;
                let data = read_whole(read, limit_bytes)?
                    .ok_or(InputFault::EndlessDocument { limit_bytes })?;
                // A record that was saved to a file has lost what the stream knew of it.
                Ok(State::Records(vec![SourceRecord {
                    data: data.into(),
                    sequence_number: Arc::from("0"),
                    arrival_ms: 0,
                    hash_key_range: None,
                }]))
            }
            #[cfg(feature = "parquet")]
            Form::Parquet => {
                let limit_bytes = self.limits.object_bytes_max;
                let data = read_whole(read, limit_bytes)?.ok_or_else(|| {
                    InputFault::Parquet(format!(
                        "it has more than {limit_bytes} bytes and comes from where nothing can be read twice; give it as an uncompressed file"
                    ))
                })?;
                super::parquet::RowGroups::of_bytes(data.into()).map(State::Parquet)
            }
            #[cfg(not(feature = "parquet"))]
            Form::Parquet => Err(InputFault::ParquetLeftOut),
            Form::Foreign(name) => Err(InputFault::Unsupported(name)),
            Form::Gzip | Form::Zstd => unreachable!("the caller undoes compression"),
        }
    }
}

/// Reads a file from some place on, whatever others read of it.
struct OffsetReader {
    file: Arc<File>,
    at: u64,
}

impl Read for OffsetReader {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read_bytes = self.file.read_at(out, self.at)?;
        self.at += read_bytes as u64;
        Ok(read_bytes)
    }
}

/// All that is left of `read`, `None` if it is more than `bytes_max`.
fn read_whole(read: Box<dyn Read + Send>, bytes_max: usize) -> Result<Option<Vec<u8>>, InputFault> {
    let mut data = Vec::new();
    read.take(bytes_max as u64 + 1)
        .read_to_end(&mut data)
        .map_err(|error| fault_of(error, data.len() as u64, 0))?;
    Ok((data.len() <= bytes_max).then_some(data))
}

#[cfg(test)]
mod tests;
