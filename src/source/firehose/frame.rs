//! Frames: up to about a mebibyte of one request's records, in the bytes that the spool keeps.
//!
//! ```text
//! payload length, CRC-32 of the rest │ head │ records, one after the other │ their lengths │ origin
//! ```
//!
//! Records are decoded straight into a frame, and are handed on as slices of it: between the body and the parser
//! each byte is written once. All numbers are little-endian.

use std::ops::Range;
use std::sync::Arc;

use base64_simd::STANDARD;
use bytes::Bytes;

use super::body::Record;
use crate::framing::SourceRecord;

/// Records of a frame, unless a single one is larger: what is parsed at once should stay in a cache.
pub(super) const FRAME_BYTES: usize = 1 << 20;

/// The length and the checksum of what follows.
const PREFIX_BYTES: usize = 8;

/// What precedes the records.
const HEAD_BYTES: usize = PREFIX_BYTES + 40;

/// No frame is longer: a larger length is not a frame's.
const FRAME_BYTES_MAX: usize = 256 << 20;

/// The only kind of frame so far.
const KIND_RECORDS: u8 = 1;

/// Most bytes of an origin.
const ORIGIN_BYTES_MAX: usize = 1024;

/// What the frames of one request have in common.
#[derive(Clone, Debug)]
pub(super) struct Origin<'a> {
    /// Tells the request from others.
    pub(super) request_hash: u128,
    /// How reports name where a bad record came from.
    pub(super) name: &'a str,
    /// When the request was made, Unix milliseconds.
    pub(super) arrival_ms: i64,
    /// How many bytes came over the network.
    pub(super) wire_bytes: u32,
}

/// A frame, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    bytes: Bytes,
}

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoFrame {
    /// They end before it does.
    Cut,
    /// They are something else.
    Damaged,
}

/// Puts the records of a request into frames, the last of which says so.
pub(super) fn pack(records: &[Record<'_>], origin: &Origin<'_>) -> Vec<Frame> {
    let mut frames = Vec::new();
    let encoded_bytes: usize = records.iter().map(text_bytes).sum();
    let mut left_bytes = encoded_bytes / 4 * 3;
    let mut open = Builder::new(left_bytes);
    for record in records {
        let room = decoded_bytes_max(record);
        if open.data_bytes() > 0 && open.data_bytes() + room > FRAME_BYTES {
            frames.push(open.finish(origin, false));
            open = Builder::new(left_bytes);
        }
        let before = open.data_bytes();
        open.put(record);
        left_bytes = left_bytes.saturating_sub(open.data_bytes() - before);
    }
    frames.push(open.finish(origin, true));
    frames
}

const fn text_bytes(record: &Record<'_>) -> usize {
    match record {
        Record::Base64(text) | Record::Other(text) => text.len(),
    }
}

/// The most that a record may take in a frame: one that can't be decoded stays as it is, in an object.
const fn decoded_bytes_max(record: &Record<'_>) -> usize {
    match record {
        Record::Base64(text) => text.len() / 4 * 3,
        Record::Other(text) => text.len(),
    }
}

struct Builder {
    bytes: Vec<u8>,
    lengths: Vec<u32>,
}

impl Builder {
    fn new(data_bytes: usize) -> Self {
        // The lengths and the origin come behind the records.
        let data_bytes = data_bytes.min(FRAME_BYTES);
        let room = data_bytes + data_bytes / 8 + ORIGIN_BYTES_MAX;
        let mut bytes = Vec::with_capacity(HEAD_BYTES + room);
        bytes.resize(HEAD_BYTES, 0);
        Self { bytes, lengths: Vec::new() }
    }

    const fn data_bytes(&self) -> usize {
        self.bytes.len() - HEAD_BYTES
    }

    fn put(&mut self, record: &Record<'_>) {
        let start = self.bytes.len();
        match record {
            Record::Other(json) => self.bytes.extend_from_slice(json),
            Record::Base64(text) => {
                if STANDARD.decode_append(text, &mut self.bytes).is_err() {
                    // What framing makes of it, it makes of it wherever it stands.
                    self.bytes.truncate(start);
                    self.bytes.extend_from_slice(b"{\"data\":\"");
                    self.bytes.extend_from_slice(text);
                    self.bytes.extend_from_slice(b"\"}");
                }
            }
        }
        let length = u32::try_from(self.bytes.len() - start).expect("a body is far below 4 GiB");
        // There is nothing in an empty record, which is no fault of it.
        if length > 0 {
            self.lengths.push(length);
        }
    }

    fn finish(mut self, origin: &Origin<'_>, is_last: bool) -> Frame {
        let data_bytes = self.data_bytes();
        let name = &origin.name.as_bytes()[..origin.name.len().min(ORIGIN_BYTES_MAX)];
        for length in &self.lengths {
            self.bytes.extend_from_slice(&length.to_le_bytes());
        }
        self.bytes.extend_from_slice(name);
        let short = |length: usize| u32::try_from(length).expect("a body is far below 4 GiB");
        let name_bytes = u16::try_from(name.len()).expect("it was cut");
        let wire_bytes = if is_last { origin.wire_bytes } else { 0 };
        let mut head = Vec::with_capacity(HEAD_BYTES);
        head.extend_from_slice(&short(self.bytes.len() - PREFIX_BYTES).to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        head.extend_from_slice(&[KIND_RECORDS, u8::from(is_last)]);
        head.extend_from_slice(&name_bytes.to_le_bytes());
        head.extend_from_slice(&short(self.lengths.len()).to_le_bytes());
        head.extend_from_slice(&short(data_bytes).to_le_bytes());
        head.extend_from_slice(&wire_bytes.to_le_bytes());
        head.extend_from_slice(&origin.arrival_ms.to_le_bytes());
        head.extend_from_slice(&origin.request_hash.to_le_bytes());
        self.bytes[..HEAD_BYTES].copy_from_slice(&head);
        let checksum = crc32fast::hash(&self.bytes[PREFIX_BYTES..]);
        self.bytes[4..PREFIX_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Frame { bytes: self.bytes.into() }
    }
}

impl Frame {
    /// How long the frame is that begins with `prefix`; `None` if no frame begins so.
    pub(super) fn length_in(prefix: [u8; PREFIX_BYTES]) -> Option<usize> {
        let length = u32::from_le_bytes(array(&prefix, 0)) as usize + PREFIX_BYTES;
        (HEAD_BYTES..=FRAME_BYTES_MAX).contains(&length).then_some(length)
    }

    /// The frame that these bytes are.
    ///
    /// # Errors
    /// If they are none.
    pub(super) fn check(bytes: &Bytes) -> Result<Self, NoFrame> {
        let prefix: [u8; PREFIX_BYTES] = *bytes.first_chunk().ok_or(NoFrame::Cut)?;
        let length = Self::length_in(prefix).ok_or(NoFrame::Damaged)?;
        let checksum = u32::from_le_bytes(array(&prefix, 4));
        if bytes.len() < length {
            return Err(NoFrame::Cut);
        }
        let frame = Self { bytes: bytes.slice(..length) };
        let is_sound = crc32fast::hash(&frame.bytes[PREFIX_BYTES..]) == checksum
            && frame.bytes[PREFIX_BYTES] == KIND_RECORDS
            && frame.parts_fit();
        if is_sound { Ok(frame) } else { Err(NoFrame::Damaged) }
    }

    fn parts_fit(&self) -> bool {
        let parts = [self.data_bytes(), 4 * self.record_count(), self.name_bytes()];
        let records_bytes: usize = self.lengths().map(|length| length as usize).sum();
        HEAD_BYTES + parts.iter().sum::<usize>() == self.bytes.len()
            && records_bytes == self.data_bytes()
    }

    /// The bytes that the spool keeps.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it ends its request.
    pub(super) fn is_last(&self) -> bool {
        self.bytes[PREFIX_BYTES + 1] != 0
    }

    /// Tells the request from others.
    pub(super) fn request_hash(&self) -> u128 {
        u128::from_le_bytes(array(&self.bytes, PREFIX_BYTES + 24))
    }

    /// What came over the network for the request, if it is its last frame.
    pub(super) fn wire_bytes(&self) -> u64 {
        u32::from_le_bytes(array(&self.bytes, PREFIX_BYTES + 12)).into()
    }

    /// How many records there are.
    pub(super) fn record_count(&self) -> usize {
        u32::from_le_bytes(array(&self.bytes, PREFIX_BYTES + 4)) as usize
    }

    /// The records as the pipeline takes them, which share the frame's memory.
    pub(super) fn records(&self) -> impl Iterator<Item = SourceRecord> {
        let arrival_ms = i64::from_le_bytes(array(&self.bytes, PREFIX_BYTES + 16));
        let sequence_number: Arc<str> =
            String::from_utf8_lossy(&self.bytes[self.bytes.len() - self.name_bytes()..]).into();
        let mut at = HEAD_BYTES;
        self.lengths().map(move |length| {
            let range = at..at + length as usize;
            at = range.end;
            SourceRecord {
                data: self.bytes.slice(range),
                sequence_number: Arc::clone(&sequence_number),
                arrival_ms,
                hash_key_range: None,
            }
        })
    }

    fn data_bytes(&self) -> usize {
        u32::from_le_bytes(array(&self.bytes, PREFIX_BYTES + 8)) as usize
    }

    fn name_bytes(&self) -> usize {
        u16::from_le_bytes(array(&self.bytes, PREFIX_BYTES + 2)) as usize
    }

    fn lengths(&self) -> impl Iterator<Item = u32> + use<'_> {
        let range: Range<usize> = {
            let start = HEAD_BYTES + self.data_bytes();
            start..start + 4 * self.record_count()
        };
        let lengths = self.bytes.get(range).unwrap_or_default();
        lengths.chunks_exact(4).map(|length| u32::from_le_bytes(array(length, 0)))
    }
}

/// The `N` bytes at an offset.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("it was cut to this length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin<'static> {
        Origin { request_hash: 7, name: "flow-logs/a-1", arrival_ms: 1_000, wire_bytes: 99 }
    }

    fn data_of(frames: &[Frame]) -> Vec<Vec<u8>> {
        frames.iter().flat_map(Frame::records).map(|record| record.data.to_vec()).collect()
    }

    #[test]
    fn records_are_decoded_and_faulty_ones_kept_for_framing() {
        let records = [
            Record::Base64(b"MiAxMjM="),
            Record::Base64(b""),
            Record::Base64(b"MiAx!"),
            Record::Other(b"{\"dat\":1}"),
        ];
        let frames = pack(&records, &origin());
        let expected = [&b"2 123"[..], b"{\"data\":\"MiAx!\"}", b"{\"dat\":1}"];
        assert_eq!(data_of(&frames), expected);
        let [frame] = &frames[..] else { panic!("{frames:?}") };
        assert_eq!((frame.is_last(), frame.request_hash(), frame.wire_bytes()), (true, 7, 99));
        let record = frame.records().next().unwrap();
        assert_eq!((&*record.sequence_number, record.arrival_ms), ("flow-logs/a-1", 1_000));
    }

    #[test]
    fn large_requests_have_several_frames() {
        let text = STANDARD.encode_to_string(vec![b'x'; 400_000]);
        let records = vec![Record::Base64(text.as_bytes()); 5];
        let frames = pack(&records, &origin());
        let shapes: Vec<_> =
            frames.iter().map(|f| (f.record_count(), f.is_last(), f.wire_bytes())).collect();
        assert_eq!(shapes, [(2, false, 0), (2, false, 0), (1, true, 99)]);
        assert!(data_of(&frames).iter().all(|data| data.len() == 400_000));
    }

    #[test]
    fn a_frame_is_known_by_its_bytes() {
        let frames = pack(&[Record::Base64(b"MiAxMjM="), Record::Base64(b"MiAx")], &origin());
        let bytes = frames[0].bytes().to_vec();
        assert_eq!(Frame::check(&bytes.clone().into()), Ok(frames[0].clone()));
        for length in 0..bytes.len() {
            let cut = Bytes::copy_from_slice(&bytes[..length]);
            assert_eq!(Frame::check(&cut), Err(NoFrame::Cut), "{length}");
        }
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::check(&damaged.into()).is_err(), "{bit}");
        }
    }
}
