//! Gzip as a stream: members one after the other, as S3 objects and log shippers write them.
//!
//! Unlike a plain reader this one hands out every byte that was decoded before damage, and takes zero
//! bytes after a member for padding, as `gzip` does.

use std::io::{self, BufRead, BufReader, Read};

use flate2::{Decompress, FlushDecompress, Status};

use super::fault::DecodeFault;

const INPUT_BYTES: usize = 64 * 1024;
const WINDOW_BITS: u8 = 15;

/// Reads what the gzip members in `R` hold.
pub(super) struct GzipStream<R> {
    input: BufReader<R>,
    member: Decompress,
    phase: Phase,
}

enum Phase {
    Member,
    BetweenMembers,
    End,
    Damaged(&'static str),
}

impl<R: Read> GzipStream<R> {
    /// A stream whose first byte begins a member.
    pub(super) fn new(input: R) -> Self {
        Self {
            input: BufReader::with_capacity(INPUT_BYTES, input),
            member: Decompress::new_gzip(WINDOW_BITS),
            phase: Phase::Member,
        }
    }

    fn read_member(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let input = self.input.fill_buf()?;
        let at_end = input.is_empty();
        let (in_before, out_before) = (self.member.total_in(), self.member.total_out());
        let status = self.member.decompress(input, out, FlushDecompress::None);
        let consumed = index(self.member.total_in() - in_before);
        let produced = index(self.member.total_out() - out_before);
        self.input.consume(consumed);
        match status {
            Ok(Status::StreamEnd) => self.phase = Phase::BetweenMembers,
            Ok(Status::Ok | Status::BufError) if consumed + produced == 0 => {
                self.phase = Phase::Damaged(if at_end {
                    "it ends in the middle"
                } else {
                    "the decoder cannot go on"
                });
            }
            Ok(Status::Ok | Status::BufError) => {}
            Err(_) => self.phase = Phase::Damaged("the data or its checksum is wrong"),
        }
        Ok(produced)
    }

    fn begin_next_member(&mut self) -> io::Result<()> {
        let input = self.input.fill_buf()?;
        let padding = input.iter().take_while(|byte| **byte == 0).count();
        match input.get(padding) {
            None if input.is_empty() => self.phase = Phase::End,
            None => {}
            Some(0x1F) => {
                self.member = Decompress::new_gzip(WINDOW_BITS);
                self.phase = Phase::Member;
            }
            Some(_) => self.phase = Phase::Damaged("other bytes follow the last member"),
        }
        self.input.consume(padding);
        Ok(())
    }
}

impl<R: Read> Read for GzipStream<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !out.is_empty() {
            match self.phase {
                Phase::End => return Ok(0),
                Phase::Damaged(reason) => {
                    return Err(DecodeFault { format: "gzip", reason }.into());
                }
                Phase::BetweenMembers => self.begin_next_member()?,
                Phase::Member => {
                    let produced = self.read_member(out)?;
                    if produced > 0 {
                        return Ok(produced);
                    }
                }
            }
        }
        Ok(0)
    }
}

fn index(count: u64) -> usize {
    usize::try_from(count).expect("one step stays within a buffer")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// What comes out, and how it ends if not well.
    fn check(input: &[u8], expected: &[u8], reason: Option<&str>) {
        let mut out = Vec::new();
        let end = GzipStream::new(input).read_to_end(&mut out);
        assert_eq!(out, expected);
        assert_eq!(end.err().map(|error| error.to_string()).as_deref(), reason);
    }

    #[test]
    fn members_follow_each_other_with_padding_between_or_after() {
        let one = gzip(b"one\n");
        let two = gzip(b"two\n");
        check(&one, b"one\n", None);
        check(&[&one[..], &two].concat(), b"one\ntwo\n", None);
        check(&[&one[..], &[0; 512]].concat(), b"one\n", None);
        check(&[&one[..], &[0; 3], &two, &[0; 9]].concat(), b"one\ntwo\n", None);
        check(&gzip(b""), b"", None);
    }

    #[test]
    fn damage_is_told_after_everything_before_it() {
        let one = gzip(b"one\n");
        check(&one[..one.len() - 1], b"one\n", Some("it ends in the middle"));
        check(&one[..5], b"", Some("it ends in the middle"));
        check(&[&one[..], b"junk"].concat(), b"one\n", Some("other bytes follow the last member"));
        let mut wrong_checksum = one.clone();
        wrong_checksum[one.len() - 8] ^= 1;
        check(&wrong_checksum, b"one\n", Some("the data or its checksum is wrong"));
    }

    #[test]
    fn decoded_bytes_before_damage_inside_a_member_come_out() {
        let text: Vec<u8> = (0..20_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
        let mut packed = gzip(&text);
        let middle = packed.len() / 2;
        packed[middle..middle + 64].fill(0xFF);
        let mut out = Vec::new();
        let error = GzipStream::new(&packed[..]).read_to_end(&mut out).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let same = out.iter().zip(&text).take_while(|(a, b)| a == b).count();
        assert!(same > text.len() / 3, "{same} of {} bytes", text.len());
    }
}
