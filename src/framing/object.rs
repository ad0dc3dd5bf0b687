//! Objects of a store: which bytes of one have to be fetched, told by how it begins.
//!
//! A source fetches, framing cuts: gzip that fits in memory goes to its worker as it is, row groups of Parquet
//! one by one, and everything else as a stream ([`InputReader::of_object`](super::InputReader)).

use bytes::Bytes;

use super::chunk::{ChunkData, Payload};
use super::fault::InputFault;
use super::packed::PackedFile;
use super::position::{DecodedPlace, Position};
use super::sniff::{Form, form_of};

/// In what pieces an object is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectForm {
    /// Gzip: as a whole ([`packed_object`]) if it fits in memory, else as a stream.
    Gzip,
    /// Parquet: its footer, then its row groups, in any order.
    Parquet,
    /// From start to end.
    Stream,
}

impl ObjectForm {
    /// The form of an object that begins like `start`; 12 bytes are enough.
    #[must_use]
    pub fn of(start: &[u8]) -> Self {
        match form_of(start) {
            Form::Gzip => Self::Gzip,
            Form::Parquet => Self::Parquet,
            _ => Self::Stream,
        }
    }
}

/// A gzip object in memory as the one piece of its input, without what was read of it before.
///
/// # Errors
/// If the position is one in something else.
pub fn packed_object(bytes: Bytes, from: Option<&Position>) -> Result<ChunkData, InputFault> {
    let from = match from {
        None => DecodedPlace::default(),
        Some(position) => position
            .as_decoded()
            .ok_or_else(|| InputFault::replaced(position, "it has another form"))?,
    };
    // Its worker counts what it reads, as of a file.
    let payload = Payload::Packed(PackedFile::of_bytes(bytes, from));
    Ok(ChunkData { payload, bytes_read: 0, position: None })
}
