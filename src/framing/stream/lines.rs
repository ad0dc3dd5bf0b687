//! Cuts text into blocks of whole lines.

use memchr::{memchr, memrchr};

use crate::framing::chunk::{LongLine, Payload};
use crate::framing::fault::InputFault;
use crate::framing::framed::EXCERPT_BYTES;

use super::BLOCK_BYTES;
use super::feed::{Feed, Filled, Pace, fault_of};
use crate::record::TextPool;

/// How a block grows when a line does not fit in it.
const GROWTH_BYTES: usize = 64 * 1024;
/// Room for the LF of a last line without one, and for the probe at the end of a file.
const SPARE_BYTES: usize = 64;

/// The lines of an input.
///
/// ```text
/// block:  whole lines … LF │ begun line
///                lines_end ┘           └ scanned
/// ```
pub(super) struct LineCutter {
    feed: Feed,
    line_bytes_max: usize,
    pool: TextPool,
    block: Vec<u8>,
    /// Up to where LFs were looked for.
    scanned: usize,
    /// After the last LF, 0 if there is none.
    lines_end: usize,
    /// What of the current line was dropped because it is too long.
    long_line: Option<LongLine>,
    end: Option<Filled>,
}

impl LineCutter {
    pub(super) fn new(feed: Feed, line_bytes_max: usize, pool: TextPool) -> Self {
        // Within a block no line but the first can be longer than a block, so only that is measured.
        let line_bytes_max = line_bytes_max.max(BLOCK_BYTES);
        Self {
            feed,
            line_bytes_max,
            block: empty_block(&pool, 0),
            pool,
            scanned: 0,
            lines_end: 0,
            long_line: None,
            end: None,
        }
    }

    /// How many bytes of the input were handed on or passed.
    pub(super) fn taken_bytes(&self) -> u64 {
        let begun_long = self.long_line.as_ref().map_or(0, |line| line.length_bytes);
        self.feed.decoded_bytes() - self.block.len() as u64 - begun_long
    }

    /// Passes over the first bytes of the input, before anything was read.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), InputFault> {
        self.feed.skip(bytes)
    }

    pub(super) fn next_payload(&mut self) -> Result<Option<Payload>, InputFault> {
        loop {
            if let Some(payload) = self.scan() {
                return Ok(Some(payload));
            }
            if self.lines_end > 0 && self.block_is_due() {
                let lines = self.cut();
                return Ok(Some(Payload::Lines(self.pool.text(lines).into())));
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

    /// Looks at what was filled in; gives a line that is too long when its end is known.
    fn scan(&mut self) -> Option<Payload> {
        let unseen = &self.block[self.scanned..];
        if self.lines_end == 0 {
            match memchr(b'\n', unseen) {
                Some(at) => {
                    let first_bytes = self.scanned + at;
                    if self.long_line.is_some() || first_bytes > self.line_bytes_max {
                        self.drop_line_start(first_bytes);
                        self.block.drain(..=0);
                        return self.long_line.take().map(Payload::LongLine);
                    }
                }
                None if self.long_line.is_some() || self.block.len() > self.line_bytes_max => {
                    self.drop_line_start(self.block.len());
                }
                None => {}
            }
        }
        if let Some(at) = memrchr(b'\n', &self.block[self.scanned..]) {
            self.lines_end = self.scanned + at + 1;
        }
        self.scanned = self.block.len();
        None
    }

    /// Drops the first bytes of the block, which belong to a line that is too long.
    fn drop_line_start(&mut self, count: usize) {
        let long_line = self.long_line.get_or_insert_with(|| LongLine {
            length_bytes: 0,
            excerpt: self.block[..count.min(EXCERPT_BYTES)].to_vec(),
        });
        long_line.length_bytes += count as u64;
        self.block.drain(..count);
        self.scanned = 0;
    }

    /// Takes the whole lines; what follows them begins the next block.
    fn cut(&mut self) -> Vec<u8> {
        let begun = &self.block[self.lines_end..];
        let mut next = empty_block(&self.pool, begun.len());
        next.extend_from_slice(begun);
        self.scanned = next.len();
        self.block.truncate(self.lines_end);
        self.lines_end = 0;
        std::mem::replace(&mut self.block, next)
    }

    fn finish(&mut self, end: Filled) -> Result<Option<Payload>, InputFault> {
        debug_assert_eq!(self.lines_end, 0, "whole lines were handed on before");
        match end {
            Filled::Failed(error) => {
                let dropped = self.long_line.take().map_or(0, |line| line.length_bytes)
                    + self.block.len() as u64;
                Err(fault_of(error, self.feed.decoded_bytes(), dropped))
            }
            Filled::End | Filled::More => {
                // The last line, which lacks its LF; the next call finds nothing.
                self.end = Some(Filled::End);
                if let Some(line) = self.long_line.take() {
                    return Ok(Some(Payload::LongLine(line)));
                }
                if self.block.is_empty() {
                    return Ok(None);
                }
                self.scanned = 0;
                self.block.push(b'\n');
                let lines = std::mem::take(&mut self.block);
                Ok(Some(Payload::Lines(self.pool.text(lines).into())))
            }
        }
    }
}

fn empty_block(pool: &TextPool, begun_bytes: usize) -> Vec<u8> {
    let mut block = pool.take(begun_bytes.max(BLOCK_BYTES) + SPARE_BYTES);
    block.clear();
    block
}
