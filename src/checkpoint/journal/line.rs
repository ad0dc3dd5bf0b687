//! A line of the journal: a finding as its encoder wrote it, its number, and a checksum.
//!
//! ```text
//! {"schema":"flowgauge.finding/v1", … ,"seq":41,"crc32":"9ae0daaf"}
//! ```
//!
//! The checksum is that of `zlib.crc32` over everything before `,"crc32"`. Without the last two members
//! the line is the finding again, byte for byte.

use std::io::Write as _;

use serde::Deserialize;

use crate::finding::FindingId;

use super::position::FINDINGS_MAX;

const SEQ: &[u8] = b",\"seq\":";
const CHECKSUM: &[u8] = b",\"crc32\":\"";
const END: &[u8] = b"\"}\n";
const CHECKSUM_BYTES: usize = 8;

/// What tells a finding from all others.
pub(super) type Key = (FindingId, u32);

/// A sound line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parsed<'a> {
    /// How many findings were written before.
    pub(super) seq: u64,
    pub(super) key: Key,
    /// The finding's object but for its closing brace.
    pub(super) open_object: &'a [u8],
}

/// Makes a journal line of the finding's line that was written to `out` from `start` on.
pub(super) fn close(out: &mut Vec<u8>, start: usize, seq: u64) {
    assert!(out[start..].ends_with(b"}\n"), "a finding is an object on a line of its own");
    out.truncate(out.len() - 2);
    out.extend_from_slice(SEQ);
    write!(out, "{seq}").expect("memory takes all bytes");
    let checksum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(CHECKSUM);
    write!(out, "{checksum:08x}").expect("memory takes all bytes");
    out.extend_from_slice(END);
}

/// Reads a line back; `None` if it is not as it was written.
pub(super) fn parse(line: &[u8]) -> Option<Parsed<'_>> {
    let (rest, checksum) = line.strip_suffix(END)?.split_last_chunk::<CHECKSUM_BYTES>()?;
    let body = rest.strip_suffix(CHECKSUM)?;
    if format!("{:08x}", crc32fast::hash(body)).as_bytes() != checksum {
        return None;
    }
    let digits = body.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    let (rest, seq) = body.split_at(body.len() - digits);
    let open_object = rest.strip_suffix(SEQ)?;
    let seq = std::str::from_utf8(seq).ok()?.parse().ok().filter(|seq| *seq < FINDINGS_MAX)?;
    let key = key_of(&line[..line.len() - 1])?;
    Some(Parsed { seq, key, open_object })
}

fn key_of(object: &[u8]) -> Option<Key> {
    #[derive(Deserialize)]
    struct Identity<'a> {
        id: &'a str,
        revision: u32,
    }
    let identity: Identity<'_> = serde_json::from_slice(object).ok()?;
    Some((FindingId::from_text(identity.id)?, identity.revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINDING: &str = "{\"id\":\"00112233445566778899aabbccddeeff\",\"revision\":3}\n";

    fn line() -> Vec<u8> {
        let mut line = b"before\n".to_vec();
        line.extend_from_slice(FINDING.as_bytes());
        close(&mut line, 7, 41);
        line.split_off(7)
    }

    #[test]
    fn a_line_holds_its_finding() {
        let line = line();
        let parsed = parse(&line).unwrap();
        assert_eq!((parsed.seq, parsed.key.1), (41, 3));
        assert_eq!(parsed.key.0.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(parsed.open_object, FINDING.trim_end().trim_end_matches('}').as_bytes());
    }

    #[test]
    fn a_changed_line_is_not_taken() {
        let line = line();
        for at in 0..line.len() {
            for bit in 0..8 {
                let mut changed = line.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(parse(&changed), None, "bit {bit} of byte {at}");
            }
            assert_eq!(parse(&line[..at]), None);
        }
    }
}
