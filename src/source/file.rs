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
use crate::framing::{
    Chunk, ChunkEvent, FileStart, InputFault, InputId, InputInfo, InputReader, Limits, Positions,
};
use crate::record::FormatChoice;

/// The path that means standard input.
pub const STDIN: &str = "-";

/// Reads files one after the other.
pub struct FileSource {
    files: Receiver<(InputId, PathBuf)>,
    format: FormatChoice,
    limits: Limits,
    positions: Arc<Positions>,
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
        let reader = || Self {
            files: shared.clone(),
            format: format.clone(),
            limits: limits.clone(),
            positions: Arc::default(),
        };
        (0..reader_count.clamp(1, files.len()))
            .map(|_| Box::new(reader()) as Box<dyn Source>)
            .collect()
    }
}

impl Source for FileSource {
    fn resume(&mut self, positions: Arc<Positions>) {
        self.positions = positions;
    }

    fn run(self: Box<Self>, stop: &StopFlag, emit: &mut Emit<'_>) -> Result<(), SourceError> {
        for (input, path) in &self.files {
            if stop.is_requested() {
                break;
            }
            let mut events = Events { input, sequence: 0, emit };
            if self.read(&path, stop, &mut events).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl FileSource {
    fn read(&self, path: &Path, stop: &StopFlag, events: &mut Events<'_, '_>) -> ControlFlow<()> {
        let mut info = InputInfo::new(name_of(path), self.format.clone());
        if self.positions.is_finished(&info.name) {
            return ControlFlow::Continue(());
        }
        let opened = self.open(path, &mut info);
        events.send(ChunkEvent::Open(info))?;
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(fault) => return events.send(ChunkEvent::Close(Some(fault))),
        };
        loop {
            if stop.is_requested() {
                return events.send(ChunkEvent::Stop);
            }
            match reader.next_piece() {
                Ok(Some(data)) => events.send(ChunkEvent::Data(data))?,
                Ok(None) => return events.send(ChunkEvent::Close(None)),
                Err(fault) => return events.send(ChunkEvent::Close(Some(fault))),
            }
        }
    }

    /// Opens an input where it goes on, and says so in `info`.
    fn open(&self, path: &Path, info: &mut InputInfo) -> Result<InputReader, InputFault> {
        if path.as_os_str() == STDIN {
            return Ok(InputReader::of_stream(Box::new(std::io::stdin()), &self.limits));
        }
        info.resume = self.positions.point(&info.name).cloned();
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            info.resume = None;
            return Ok(InputReader::of_stream(Box::new(file), &self.limits));
        }
        info.file_start = Some(FileStart::of(&file)?);
        match &info.resume {
            Some(point) => InputReader::of_file_at(file, point, &self.limits),
            None => Ok(InputReader::of_file(file, &self.limits)),
        }
    }
}

/// How an input is called, in this run and in those after it.
fn name_of(path: &Path) -> Arc<str> {
    if path.as_os_str() == STDIN { "stdin".into() } else { path.to_string_lossy().into() }
}

/// The events of one input, numbered.
struct Events<'a, 'b> {
    input: InputId,
    sequence: u64,
    emit: &'a mut Emit<'b>,
}

impl Events<'_, '_> {
    fn send(&mut self, event: ChunkEvent) -> ControlFlow<()> {
        let chunk = Chunk { input: self.input, sequence: self.sequence, event };
        self.sequence += 1;
        (self.emit)(chunk)
    }
}
