//! Files and standard input: each file is one input, read in the order of the list.
//!
//! Several readers may share a list; each takes the next file, so that compressed files are inflated
//! side by side. Numbers of inputs follow the list, whoever reads them.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::{Emit, InputIds, Source, SourceError, StopFlag};
use crate::framing::{Chunk, ChunkEvent, InputFault, InputId, InputInfo, InputReader, Limits};
use crate::record::FormatChoice;

/// The path that means standard input.
pub const STDIN: &str = "-";

/// Reads files one after the other.
pub struct FileSource {
    files: Receiver<(InputId, PathBuf)>,
    format: FormatChoice,
    limits: Limits,
}

impl FileSource {
    /// `reader_count` sources (at most one per file) that share `files`.
    ///
    /// # Panics
    /// If there is no file.
    #[must_use]
    pub fn split(
        files: &[PathBuf],
        format: &FormatChoice,
        limits: &Limits,
        reader_count: usize,
        ids: &InputIds,
    ) -> Vec<Box<dyn Source>> {
        assert!(!files.is_empty(), "a list of files was checked before");
        let (queue, shared) = bounded(files.len());
        for file in files {
            queue.send((ids.next(), file.clone())).expect("the queue holds the whole list");
        }
        let reader =
            || Self { files: shared.clone(), format: format.clone(), limits: limits.clone() };
        (0..reader_count.clamp(1, files.len()))
            .map(|_| Box::new(reader()) as Box<dyn Source>)
            .collect()
    }
}

impl Source for FileSource {
    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        for (input, path) in &self.files {
            if stop.is_requested() {
                break;
            }
            let mut events = Events { input, sequence: 0, emit };
            if events.read(&path, self.format.clone(), &self.limits, stop).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// The events of one input, numbered.
struct Events<'a, 'b> {
    input: InputId,
    sequence: u64,
    emit: &'a mut Emit<'b>,
}

impl Events<'_, '_> {
    fn read(
        &mut self,
        path: &Path,
        format: FormatChoice,
        limits: &Limits,
        stop: &StopFlag,
    ) -> ControlFlow<()> {
        let is_stdin = path.as_os_str() == STDIN;
        let name: Arc<str> = if is_stdin { "stdin".into() } else { path.to_string_lossy().into() };
        self.send(ChunkEvent::Open(InputInfo { name, format }))?;
        let opened = if is_stdin {
            Ok(InputReader::of_stream(Box::new(std::io::stdin()), limits))
        } else {
            open(path, limits)
        };
        let fault = match opened {
            Err(fault) => Some(fault),
            Ok(mut reader) => loop {
                if stop.is_requested() {
                    break None;
                }
                match reader.next_piece() {
                    Ok(None) => break None,
                    Ok(Some(data)) => self.send(ChunkEvent::Data(data))?,
                    Err(fault) => break Some(fault),
                }
            },
        };
        self.send(ChunkEvent::Close(fault))
    }

    fn send(&mut self, event: ChunkEvent) -> ControlFlow<()> {
        let chunk = Chunk { input: self.input, sequence: self.sequence, event };
        self.sequence += 1;
        (self.emit)(chunk)
    }
}

fn open(path: &Path, limits: &Limits) -> Result<InputReader, InputFault> {
    let file = File::open(path)?;
    if file.metadata()?.is_file() {
        Ok(InputReader::of_file(file, limits))
    } else {
        Ok(InputReader::of_stream(Box::new(file), limits))
    }
}
