//! Zstandard as a stream: frames one after the other.

use std::io::{self, BufRead, BufReader, Read};

use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::fault::DecodeFault;

const INPUT_BYTES: usize = 64 * 1024;
/// How much of a frame the decoder wants to see first.
const FRAME_START_BYTES: usize = 5;

/// Reads what the zstd frames in `R` hold.
///
/// The decoder is given no more input per step than it asked for: then each step decodes one block,
/// and an error costs nothing of the blocks before it.
pub(super) struct ZstdStream<R> {
    input: BufReader<R>,
    decoder: Decoder<'static>,
    wanted_bytes: usize,
    phase: Phase,
}

enum Phase {
    Frame,
    BetweenFrames,
    End,
    Damaged,
}

impl<R: Read> ZstdStream<R> {
    /// A stream whose first byte begins a frame.
    ///
    /// # Errors
    /// If there is no memory for a decoder.
    pub(super) fn new(input: R) -> io::Result<Self> {
        Ok(Self {
            input: BufReader::with_capacity(INPUT_BYTES, input),
            decoder: Decoder::new()?,
            wanted_bytes: FRAME_START_BYTES,
            phase: Phase::Frame,
        })
    }

    fn read_frame(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.input.fill_buf()?;
        let offered = &available[..available.len().min(self.wanted_bytes.max(1))];
        let mut input = InBuffer::around(offered);
        let mut output = OutBuffer::around(out);
        let step = self.decoder.run(&mut input, &mut output);
        let (consumed, produced) = (input.pos(), output.pos());
        self.input.consume(consumed);
        match step {
            Ok(0) => self.phase = Phase::BetweenFrames,
            Ok(_) if consumed + produced == 0 => self.phase = Phase::Damaged,
            Ok(wanted) => self.wanted_bytes = wanted,
            Err(_) => self.phase = Phase::Damaged,
        }
        Ok(produced)
    }
}

impl<R: Read> Read for ZstdStream<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !out.is_empty() {
            match self.phase {
                Phase::End => return Ok(0),
                Phase::Damaged => {
                    let reason = "it breaks off or is wrong";
                    return Err(DecodeFault { format: "zstd", reason }.into());
                }
                Phase::BetweenFrames if self.input.fill_buf()?.is_empty() => {
                    self.phase = Phase::End;
                }
                Phase::BetweenFrames => {
                    self.decoder.reinit()?;
                    self.wanted_bytes = FRAME_START_BYTES;
                    self.phase = Phase::Frame;
                }
                Phase::Frame => {
                    let produced = self.read_frame(out)?;
                    if produced > 0 {
                        return Ok(produced);
                    }
                }
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expected: &[u8], damaged: bool) {
        let mut out = Vec::new();
        let end = ZstdStream::new(input).unwrap().read_to_end(&mut out);
        assert_eq!(out, expected);
        assert_eq!(end.is_err(), damaged);
    }

    #[test]
    fn frames_follow_each_other() {
        let one = zstd::encode_all(&b"one\n"[..], 1).unwrap();
        let two = zstd::encode_all(&b"two\n"[..], 1).unwrap();
        check(&one, b"one\n", false);
        check(&[&one[..], &two].concat(), b"one\ntwo\n", false);
        check(&[&one[..], b"junk"].concat(), b"one\n", true);
        check(&one[..6], b"", true);
    }

    #[test]
    fn whole_blocks_before_a_break_come_out() {
        let text: Vec<u8> = (0..200_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let packed = zstd::encode_all(&text[..], 1).unwrap();
        let mut out = Vec::new();
        let cut = &packed[..packed.len() / 2];
        ZstdStream::new(cut).unwrap().read_to_end(&mut out).unwrap_err();
        assert!(out.len() > text.len() / 4, "{} of {} bytes", out.len(), text.len());
        assert!(text.starts_with(&out));
    }
}
