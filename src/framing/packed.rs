//! A gzip file that is inflated whole, on the worker that parses it.
//!
//! libdeflate is about twice as fast as a decoder that keeps a stream's state, but needs a member whole.
//! Objects of flow logs are small enough. Whatever is not plainly good members one after the other
//! (damage, an end in the middle, compression inside compression) is left to the streaming decoder, so
//! that there is one way to treat it.

use std::fs::File;
use std::sync::Arc;

use super::fault::InputFault;
use super::file_range::read_up_to;
use super::inflate::Inflater;
use super::limits::Limits;
use super::sniff::{Form, form_of, without_mark};
use crate::record::{Text, TextPool, TextSlice};

/// A compressed file, still to be read.
#[derive(Clone, Debug)]
pub struct PackedFile {
    file: Arc<File>,
    length: usize,
}

/// What a compressed file holds.
pub(super) enum Unpacked {
    /// Text, the last line with its LF.
    Lines(TextSlice),
    /// JSON.
    Documents(TextSlice),
    /// The file as it is, for the streaming decoder.
    Stream(Text),
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
            Some(length) if length <= limits.packed_bytes_max => Ok(Self { file, length }),
            _ => Err(file),
        }
    }

    /// Reads and inflates the file; gives what it holds and how many bytes were read.
    ///
    /// # Errors
    /// If the file can't be read.
    pub(super) fn open(
        &self,
        inflater: &mut Inflater,
        pool: &TextPool,
        limits: &Limits,
    ) -> Result<(Unpacked, u64), InputFault> {
        let mut packed = pool.take(self.length);
        packed.resize(self.length, 0);
        let read_bytes = read_up_to(&self.file, &mut packed, 0)?;
        packed.truncate(read_bytes);
        let mut text = pool.take(Inflater::room_for(&packed, limits.unpacked_bytes_max));
        text.clear();
        let unpacked = match inflater.members(&packed, &mut text, limits.unpacked_bytes_max) {
            Some(()) => match form_of(&text) {
                Form::Text => {
                    if text.last().is_some_and(|last| *last != b'\n') {
                        text.push(b'\n');
                    }
                    Some(Unpacked::Lines(after_mark(pool.text(std::mem::take(&mut text)))))
                }
                Form::Json => {
                    Some(Unpacked::Documents(after_mark(pool.text(std::mem::take(&mut text)))))
                }
                _ => None,
            },
            None => None,
        };
        pool.give_back(text);
        Ok((
            match unpacked {
                Some(unpacked) => {
                    pool.give_back(packed);
                    unpacked
                }
                None => Unpacked::Stream(pool.text(packed)),
            },
            read_bytes as u64,
        ))
    }
}

fn after_mark(text: Text) -> TextSlice {
    let mark_bytes = text.len() - without_mark(&text).len();
    let range = mark_bytes..text.len();
    TextSlice::new(Arc::new(text), range)
}
