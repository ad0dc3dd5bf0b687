//! Cuts JSON into blocks of whole documents.

use crate::framing::chunk::Payload;
use crate::framing::fault::InputFault;
use crate::framing::json::{Piece, Splitter, is_separator};

use super::BLOCK_BYTES;
use super::feed::{Feed, Filled, Pace, fault_of};
use crate::record::{TextPool, TextSlice};

const GROWTH_BYTES: usize = 64 * 1024;

/// The documents of an input, and lines of text between them.
pub(super) struct DocumentCutter {
    feed: Feed,
    document_bytes_max: usize,
    pool: TextPool,
    block: Vec<u8>,
    splitter: Splitter,
    scanned: usize,
    /// After the last piece that is whole, 0 if there is none.
    pieces_end: usize,
    end: Option<Filled>,
}

impl DocumentCutter {
    pub(super) fn new(feed: Feed, document_bytes_max: usize, pool: TextPool) -> Self {
        Self {
            feed,
            document_bytes_max,
            pool,
            block: Vec::new(),
            splitter: Splitter::new(),
            scanned: 0,
            pieces_end: 0,
            end: None,
        }
    }

    /// How many bytes of the input were handed on.
    pub(super) fn taken_bytes(&self) -> u64 {
        self.feed.decoded_bytes() - self.block.len() as u64
    }

    /// Passes over the first bytes of the input, before anything was read.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), InputFault> {
        self.feed.skip(bytes)
    }

    pub(super) fn next_payload(&mut self) -> Result<Option<Payload>, InputFault> {
        loop {
            self.scan();
            if self.pieces_end > 0 && self.block_is_due() {
                return Ok(Some(Payload::Documents(self.cut())));
            }
            if self.block.len() - self.pieces_end > self.document_bytes_max {
                return Err(InputFault::EndlessDocument { limit_bytes: self.document_bytes_max });
            }
            if let Some(end) = self.end.take() {
                return self.finish(end);
            }
            let wanted = BLOCK_BYTES.checked_sub(self.block.len()).filter(|room| *room > 0);
            match self.feed.fill(&mut self.block, wanted.unwrap_or(GROWTH_BYTES)) {
                Filled::More => {}
                end => self.end = Some(end),
            }
        }
    }

    fn block_is_due(&self) -> bool {
        self.block.len() >= BLOCK_BYTES
            || self.end.is_some()
            || self.feed.pace() == Pace::AsItArrives
    }

    fn scan(&mut self) {
        while let Some((end, _)) = self.splitter.next_end(&self.block, self.scanned) {
            (self.scanned, self.pieces_end) = (end, end);
        }
        self.scanned = self.block.len();
        if self.splitter.open_piece().is_none() {
            self.pieces_end = self.scanned;
        }
    }

    fn cut(&mut self) -> TextSlice {
        let begun = &self.block[self.pieces_end..];
        let mut next = self.pool.take(begun.len().max(BLOCK_BYTES) + GROWTH_BYTES);
        next.clear();
        next.extend_from_slice(begun);
        self.scanned = next.len();
        self.block.truncate(self.pieces_end);
        self.pieces_end = 0;
        self.pool.text(std::mem::replace(&mut self.block, next)).into()
    }

    fn finish(&mut self, end: Filled) -> Result<Option<Payload>, InputFault> {
        let rest = std::mem::take(&mut self.block);
        (self.scanned, self.pieces_end) = (0, 0);
        let open_piece = self.splitter.open_piece();
        self.splitter = Splitter::new();
        match end {
            Filled::Failed(error) if open_piece == Some(Piece::Broken) => {
                self.end = Some(Filled::Failed(error));
                Ok(Some(Payload::DocumentStart(self.pool.text(rest).into())))
            }
            Filled::Failed(error) => {
                let between = rest.iter().take_while(|byte| is_separator(**byte)).count();
                let dropped = (rest.len() - between) as u64;
                Err(fault_of(error, self.feed.decoded_bytes(), dropped))
            }
            Filled::End | Filled::More if rest.is_empty() => Ok(None),
            Filled::End | Filled::More => {
                self.end = Some(Filled::End);
                Ok(Some(Payload::Documents(self.pool.text(rest).into())))
            }
        }
    }
}
