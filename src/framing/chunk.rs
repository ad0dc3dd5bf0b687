//! What travels from sources to parse workers: raw bytes with their origin and order.
//!
//! A source announces an *input* (a file, a shard), sends its data in order, and closes it. Every
//! event of an input has the next number of that input, because parse workers take events in
//! parallel and the sequencer puts them back in order.

use std::sync::Arc;

use bytes::Bytes;

use crate::record::{FormatChoice, Layout, TextSlice};

use super::fault::InputFault;
use super::file_range::FileRange;
use super::packed::PackedFile;
use super::position::{FileStart, Position, ResumePoint};

/// The number of an input within one run, in the order in which a source names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputId(pub u32);

/// What a source says about an input before its first bytes.
#[derive(Clone, Debug)]
pub struct InputInfo {
    /// How messages and samples name it: a path, `stdin`, `stream/shardId-000000000000`.
    pub name: Arc<str>,
    /// Which layout its lines have until a header says otherwise.
    pub format: FormatChoice,
    /// How it begins, if it is a file.
    pub file_start: Option<FileStart>,
    /// From where it is read, if its beginning was read before or is left out.
    pub resume: Option<ResumePoint>,
}

impl InputInfo {
    /// An input that is read from its start.
    #[must_use]
    pub const fn new(name: Arc<str>, format: FormatChoice) -> Self {
        Self { name, format, file_start: None, resume: None }
    }

    /// The layout at the first line that is read.
    #[must_use]
    pub fn first_layout(&self) -> Arc<Layout> {
        match &self.resume {
            Some(point) => Arc::clone(&point.layout),
            None => self.format.initial_layout(),
        }
    }
}

/// One event of an input.
#[derive(Debug)]
pub struct Chunk {
    /// The input.
    pub input: InputId,
    /// Number of the event within the input, from 0 without gaps.
    pub sequence: u64,
    /// What happened.
    pub event: ChunkEvent,
}

/// What can happen to an input.
#[derive(Debug)]
pub enum ChunkEvent {
    /// The input exists; always its first event.
    Open(InputInfo),
    /// Data that continues the input.
    Data(ChunkData),
    /// The input is silent but alive (sent by live sources so that lag can be told from silence).
    Idle,
    /// No more data in this run, though the input goes on: reading was told to stop. Always its last event.
    Stop,
    /// No more data; `Some` if what ended it was a fault. Always its last event.
    Close(Option<InputFault>),
}

/// A piece of an input and how much was read from outside for it.
#[derive(Debug)]
pub struct ChunkData {
    /// The bytes and how they are framed.
    pub payload: Payload,
    /// Bytes read from disk or network for this piece, before any decompression; without those that
    /// only its worker will read, which are in [`Framed::bytes_read`](super::Framed).
    pub bytes_read: u64,
    /// From where the input can be read on after this piece; `None` if it can't be, or if unwrapping tells
    /// ([`Framed::position`](super::Framed)).
    pub position: Option<Position>,
}

/// Bytes, and what is known of their framing.
#[derive(Debug)]
pub enum Payload {
    /// Whole lines of flow log text that continue the input: a header in one piece binds the next.
    /// Every line ends in LF.
    Lines(TextSlice),
    /// One line longer than [`Limits::line_bytes_max`](super::Limits); it was not kept.
    LongLine(LongLine),
    /// Whole JSON documents that continue the input (CloudWatch Logs envelopes, Firehose records),
    /// or lines of text between them.
    Documents(TextSlice),
    /// The start of a document whose rest was lost with the input. Whole messages in it count; the
    /// loss itself is what the input's fault says.
    DocumentStart(TextSlice),
    /// Whole lines or documents of a plain file, still to be read.
    FileRange(FileRange),
    /// All of a compressed file, still to be read.
    Packed(PackedFile),
    /// Records that stand for themselves: each is sniffed on its own.
    Records(Vec<SourceRecord>),
    /// One row group of a Parquet object.
    #[cfg(feature = "parquet")]
    RowGroup(super::parquet::RowGroup),
}

impl Payload {
    /// Bytes of a file that its worker will read; 0 if all is in memory.
    #[must_use]
    pub const fn unread_bytes(&self) -> u64 {
        match self {
            Self::FileRange(range) => range.length as u64 + range.passed_bytes,
            Self::Packed(file) => file.length_bytes(),
            _ => 0,
        }
    }

    /// The first line of a payload of lines, for a look at what layout they may have.
    #[must_use]
    pub fn first_line(&self) -> Option<Vec<u8>> {
        match self {
            Self::Lines(lines) => lines.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec),
            Self::FileRange(range) => range.first_line(),
            _ => None,
        }
    }
}

/// What is kept of a line that is too long to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongLine {
    /// How long it was, without its LF.
    pub length_bytes: u64,
    /// How it begins.
    pub excerpt: Vec<u8>,
}

/// One record of a stream service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRecord {
    /// The payload as the producer put it.
    pub data: Bytes,
    /// The number that the stream gave it; a decimal of up to 128 bits and more.
    pub sequence_number: Arc<str>,
    /// When the stream took it, Unix milliseconds.
    pub arrival_ms: i64,
    /// The shard's hash key range, both ends inclusive, for the rules of KPL aggregates.
    pub hash_key_range: Option<(u128, u128)>,
}
