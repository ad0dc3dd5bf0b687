//! A gzip file or object that is inflated whole, on the worker that parses it.
//!
//! libdeflate is about twice as fast as a decoder that keeps a stream's state, but needs a member whole.
//! Objects of flow logs are small enough. Whatever is not plainly good members one after the other
//! (damage, an end in the middle, compression inside compression) is left to the streaming decoder, so
//! that there is one way to treat it.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;
use rayon::ThreadPool;

use super::fault::InputFault;
use super::file_range::read_up_to;
use super::inflate::Inflater;
use super::limits::Limits;
use super::members::side_by_side;
use super::position::DecodedPlace;
use super::sniff::{Form, form_of, without_mark};
use crate::record::{Text, TextPool, TextSlice};

/// A compressed file, still to be read, or a compressed object, still to be inflated.
#[derive(Clone, Debug)]
pub struct PackedFile {
    place: PackedPlace,
    /// Up to where its text was read before.
    from: DecodedPlace,
}

#[derive(Clone, Debug)]
enum PackedPlace {
    File { file: Arc<File>, length: usize },
    Memory(Bytes),
}

/// What a compressed file holds.
pub(super) enum Unpacked {
    /// Text, in pieces of whole lines, and whether a line end was added to the last.
    Lines(Vec<TextSlice>, bool),
    /// JSON, in pieces of whole documents.
    Documents(Vec<TextSlice>),
    /// The file as it is, for the streaming decoder.
    Stream(PackedBytes),
}

impl PackedFile {
    /// Takes a file that fits in memory.
    ///
    /// # Errors
    /// Any other file is given back.
    pub(super) fn of_gzip(file: File, limits: &Limits) -> Result<Self, Arc<File>> {
        let file = Arc::new(file);
        let length = file.metadata().ok().and_then(|metadata| usize::try_from(metadata.len()).ok());
        match length {
            Some(length) if length <= limits.packed_bytes_max => {
                let place = PackedPlace::File { file, length };
                Ok(Self { place, from: DecodedPlace::default() })
            }
            _ => Err(file),
        }
    }

    /// All of an object that is in memory, read up to `from` before.
    pub(super) const fn of_bytes(bytes: Bytes, from: DecodedPlace) -> Self {
        Self { place: PackedPlace::Memory(bytes), from }
    }

    /// How long it is, compressed.
    pub(super) const fn length_bytes(&self) -> u64 {
        match &self.place {
            PackedPlace::File { length, .. } => *length as u64,
            PackedPlace::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Leaves out what was read before.
    pub(super) const fn resume(&mut self, from: DecodedPlace) {
        self.from = from;
    }

    /// Where reading begins.
    pub(super) const fn from(&self) -> DecodedPlace {
        self.from
    }

    /// Reads and inflates the file, its members on `threads` if there are some; gives what it holds and how
    /// many bytes were read.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn open(
        &self,
        inflater: &mut Inflater,
        threads: Option<&ThreadPool>,
        pool: &TextPool,
        limits: &Limits,
    ) -> Result<(Unpacked, u64), InputFault> {
        let packed = self.packed_bytes(pool)?;
        let read_bytes = packed.as_ref().len() as u64;
        let bytes_max = limits.unpacked_bytes_max;
        let pieces = threads
            .and_then(|threads| side_by_side(packed.as_ref(), pool, threads, bytes_max))
            .or_else(|| whole(packed.as_ref(), inflater, pool, bytes_max).map(|text| vec![text]));
        let unpacked = pieces.and_then(|pieces| unpacked(pieces, pool));
        Ok((unpacked.unwrap_or(Unpacked::Stream(packed)), read_bytes))
    }

    fn packed_bytes(&self, pool: &TextPool) -> Result<PackedBytes, InputFault> {
        match &self.place {
            PackedPlace::File { file, length } => {
                let mut packed = pool.take(*length);
                packed.resize(*length, 0);
                let read_bytes = read_up_to(file, &mut packed, 0)?;
                packed.truncate(read_bytes);
                Ok(PackedBytes::Read(pool.text(packed)))
            }
            PackedPlace::Memory(bytes) => Ok(PackedBytes::Given(bytes.clone())),
        }
    }
}

/// Compressed bytes in memory.
pub(super) enum PackedBytes {
    /// Read from a file, into a buffer that goes round.
    Read(Text),
    /// As the source gave them.
    Given(Bytes),
}

impl AsRef<[u8]> for PackedBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Read(text) => text,
            Self::Given(bytes) => bytes,
        }
    }
}

fn whole(
    packed: &[u8],
    inflater: &mut Inflater,
    pool: &TextPool,
    bytes_max: usize,
) -> Option<Vec<u8>> {
    let mut text = pool.take(Inflater::room_for(packed, bytes_max));
    text.clear();
    if inflater.members(packed, packed.len(), &mut text, bytes_max).is_some() {
        return Some(text);
    }
    pool.give_back(text);
    None
}

/// What the pieces are; `None` if it is a form for the streaming decoder.
fn unpacked(mut pieces: Vec<Vec<u8>>, pool: &TextPool) -> Option<Unpacked> {
    let form = form_of(&pieces[0]);
    let mut end_added = false;
    if form == Form::Text
        && let Some(last) = pieces.last_mut()
        && last.last().is_some_and(|byte| *byte != b'\n')
    {
        last.push(b'\n');
        end_added = true;
    }
    let mut pieces = pieces.into_iter();
    let first = pieces.next().map(|text| after_mark(pool.text(text)));
    let slices = first.into_iter().chain(pieces.map(|text| pool.text(text).into())).collect();
    match form {
        Form::Text => Some(Unpacked::Lines(slices, end_added)),
        Form::Json => Some(Unpacked::Documents(slices)),
        _ => None,
    }
}

fn after_mark(text: Text) -> TextSlice {
    let mark_bytes = text.len() - without_mark(&text).len();
    let range = mark_bytes..text.len();
    TextSlice::new(Arc::new(text), range)
}
