//! Laws of reading: what comes out does not depend on how the bytes came in, and damage costs only
//! what is damaged.

use std::io::{self, Cursor, Write};
use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;
use crate::framing::deframe::cut_lines;
use crate::framing::inflate::Inflater;
use crate::framing::json::is_separator;
use crate::framing::packed::Unpacked;
use crate::framing::position::DecodedPlace;
use crate::framing::{Deframer, Framed, deframe};
use crate::simd::Isa;

/// Hands out at most `step` bytes per read.
struct Dribble {
    data: Cursor<Vec<u8>>,
    step: usize,
}

impl Read for Dribble {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let wanted = self.step.min(out.len());
        self.data.read(&mut out[..wanted])
    }
}

#[derive(Debug, Default, PartialEq)]
struct Outcome {
    lines: Vec<u8>,
    long_lines: Vec<u64>,
    document_bytes: Vec<u8>,
    bytes_read: u64,
    payloads: usize,
    fault: Option<String>,
}

impl Outcome {
    /// Forgets how many payloads there were, and whether what stands between documents came before or
    /// after a cut, and how far was read before an input was given up.
    fn ignore_sizes(&mut self) {
        self.payloads = 0;
        if self.fault.is_some() {
            self.bytes_read = 0;
        }
        while self.document_bytes.pop_if(|last| is_separator(*last)).is_some() {}
    }
}

impl Outcome {
    fn take(&mut self, payload: Payload) {
        match payload {
            Payload::Lines(lines) => {
                assert!(lines.is_empty() || lines.ends_with(b"\n"));
                self.lines.extend_from_slice(&lines);
            }
            Payload::LongLine(line) => self.long_lines.push(line.length_bytes),
            Payload::Documents(bytes) | Payload::DocumentStart(bytes) => {
                self.document_bytes.extend_from_slice(&bytes);
            }
            Payload::FileRange(range) => {
                let mut deframer = Deframer::new(Isa::detect(), &limits());
                let documents = range.form == RangeForm::Documents;
                if documents {
                    let piece = range.load(0, &TextPool::default());
                    assert!(piece.is_last);
                    self.document_bytes.extend_from_slice(&piece.bytes);
                }
                let end = deframer.deframe(Payload::FileRange(range), &mut |part| {
                    self.bytes_read += part.bytes_read;
                    self.fault = part.input_fault.map(|fault| fault.to_string());
                    if !documents {
                        self.lines.extend_from_slice(&part.lines);
                        self.long_lines.extend(part.faults.iter().map(|_| part.bytes_decoded));
                    }
                    ControlFlow::Continue(())
                });
                assert!(end.is_continue());
            }
            Payload::Packed(file) => self.take_packed(&file),
            Payload::Records(records) => panic!("{records:?}"),
            #[cfg(feature = "parquet")]
            Payload::RowGroup(group) => panic!("{group:?}"),
        }
    }

    fn take_packed(&mut self, file: &PackedFile) {
        let (mut inflater, pool) = (Inflater::default(), TextPool::default());
        let (unpacked, bytes_read) = file.open(&mut inflater, None, &pool, &limits()).unwrap();
        match unpacked {
            Unpacked::Lines(lines, _) => {
                self.bytes_read += bytes_read;
                let [lines] = &lines[..] else { panic!("without threads there is one piece") };
                let end = cut_lines(lines, &limits(), &mut |part, _| {
                    self.lines.extend_from_slice(&part.lines);
                    self.long_lines.extend(part.faults.iter().map(|_| part.bytes_decoded));
                    ControlFlow::Continue(())
                });
                assert!(end.is_continue());
            }
            Unpacked::Documents(pieces) => {
                self.bytes_read += bytes_read;
                pieces.iter().for_each(|bytes| self.document_bytes.extend_from_slice(bytes));
            }
            Unpacked::Stream(packed) => {
                let inner =
                    read_all(InputReader::of_bytes(packed, DecodedPlace::default(), &limits()));
                *self = Self { payloads: self.payloads, ..inner };
            }
        }
    }
}

fn read_all(mut reader: InputReader) -> Outcome {
    let mut outcome = Outcome::default();
    loop {
        match reader.next_piece() {
            Ok(None) => break,
            Err(fault) => {
                assert!(outcome.fault.is_none());
                outcome.fault = Some(fault.to_string());
            }
            Ok(Some(piece)) => {
                assert!(outcome.fault.is_none(), "the fault comes last");
                outcome.bytes_read += piece.bytes_read;
                outcome.payloads += 1;
                outcome.take(piece.payload);
            }
        }
    }
    assert!(matches!(reader.next_piece(), Ok(None)));
    outcome
}

fn limits() -> Limits {
    Limits { line_bytes_max: BLOCK_BYTES, document_bytes_max: 4 * BLOCK_BYTES, ..Limits::default() }
}

fn of_bytes(data: &[u8], step: usize) -> Outcome {
    let stream = Dribble { data: Cursor::new(data.to_vec()), step };
    read_all(InputReader::of_stream(Box::new(stream), &limits()))
}

fn of_file(data: &[u8]) -> Outcome {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    io::Seek::rewind(&mut file).unwrap();
    read_all(InputReader::of_file(file, &limits()))
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// The lines are the same however they are read and wrapped, and all bytes are accounted for.
fn check(text: &[u8], lines: &[u8]) {
    let zstd = zstd::encode_all(text, 1).unwrap();
    for wrapped in [text.to_vec(), gzip(text), zstd, gzip(&gzip(text))] {
        for outcome in [of_file(&wrapped), of_bytes(&wrapped, 1), of_bytes(&wrapped, 4096)] {
            assert_eq!(outcome.fault, None);
            assert_eq!(outcome.bytes_read, wrapped.len() as u64);
            assert_eq!(String::from_utf8_lossy(&outcome.lines), String::from_utf8_lossy(lines));
        }
    }
}

#[test]
fn lines_are_whole_and_end_in_lf() {
    check(b"", b"");
    check(b"2 1 -\n", b"2 1 -\n");
    check(b"2 1 -", b"2 1 -\n");
    check(b"a\r\n\n\nb", b"a\r\n\n\nb\n");
    check(b"\xEF\xBB\xBFversion srcaddr\n2 -\n", b"version srcaddr\n2 -\n");
    check(b"\n\n                    \n2 1\n", b"\n\n                    \n2 1\n");
}

#[test]
fn a_file_is_cut_into_blocks_of_whole_lines() {
    let text: Vec<u8> = (0..200_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    let outcome = of_file(&text);
    assert_eq!(outcome.lines, text);
    assert_eq!(outcome.payloads, text.len().div_ceil(RANGE_BYTES - 20));
    assert_eq!(of_bytes(&gzip(&text), 999).lines, text);
}

#[test]
fn a_line_beyond_the_limit_is_told_once_and_not_kept() {
    let long = vec![b'x'; 3 * BLOCK_BYTES];
    let at_limit = vec![b'y'; BLOCK_BYTES];
    let over = vec![b'z'; BLOCK_BYTES + 1];
    let text = [b"a\n", &long[..], b"\n", &at_limit, b"\n", &over, b"\nb\n", &long].concat();
    let expected = [b"a\n", &at_limit[..], b"\nb\n"].concat();
    let lengths = [long.len() as u64, over.len() as u64, long.len() as u64];
    for outcome in [of_file(&text), of_bytes(&text, 100_000), of_bytes(&text, 1 << 20)] {
        assert!(outcome.lines == expected, "{} bytes", outcome.lines.len());
        assert_eq!(outcome.long_lines, lengths);
    }
}

#[test]
fn damage_leaves_the_lines_before_it() {
    let text: Vec<u8> = (0..50_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    let packed = gzip(&text);
    let cut = &packed[..packed.len() / 2];
    for outcome in [of_file(cut), of_bytes(cut, 777)] {
        assert!(text.starts_with(&outcome.lines));
        assert!(outcome.lines.len() > text.len() / 4);
        assert!(outcome.lines.ends_with(b"\n"));
        assert_eq!(outcome.bytes_read, cut.len() as u64);
        let fault = outcome.fault.unwrap();
        assert!(fault.starts_with("gzip data is damaged after "), "{fault}");
    }
    let mut lines_read = of_bytes(&gzip(b"1\n2\nbroken"), 9).lines;
    assert_eq!(lines_read, b"1\n2\nbroken\n");
    let whole = gzip(b"1\n2\nbroken");
    lines_read = of_bytes(&whole[..whole.len() - 1], 9).lines;
    assert_eq!(lines_read, b"1\n2\n", "a line that may be cut is left out");
}

#[test]
fn other_forms_are_refused_by_name() {
    let check = |data: &[u8], expected: &str| {
        assert!(of_file(data).fault.unwrap().contains(expected), "{expected}");
        assert!(of_bytes(data, 3).fault.unwrap().contains(expected), "{expected}");
    };
    check(b"PK\x03\x04..........", "a zip archive");
    check(b"\xFF\xFE2\x00 \x001\x00", "UTF-16");
    check(&gzip(&gzip(&gzip(b"1\n"))), "compressed more than twice");
    check(b"PAR1 but no more than that", "Parquet");
}

#[test]
fn documents_are_whole_and_bounded() {
    let documents = "{\"message\":\"2 1 -\"}".repeat(100_000);
    for outcome in [of_file(documents.as_bytes()), of_bytes(documents.as_bytes(), 7000)] {
        assert_eq!(outcome.document_bytes.len(), documents.len());
        assert_eq!(outcome.fault, None);
        assert!(outcome.payloads > 5);
    }
    let endless = format!("{{}}{{\"a\":\"{}", "x".repeat(5 * BLOCK_BYTES));
    for outcome in [of_file(endless.as_bytes()), of_bytes(endless.as_bytes(), 65_536)] {
        assert_eq!(outcome.document_bytes, b"{}");
        assert!(outcome.fault.unwrap().contains("never ends"));
    }
}

#[test]
fn a_document_lost_with_its_file_gives_its_messages_and_one_fault() {
    let events = (0..5000).map(|n| format!("{{\"id\":\"{n}\",\"message\":\"2 {n} -\"}}"));
    let envelope = format!("{{\"logEvents\":[{}]}}", events.collect::<Vec<_>>().join(","));
    let packed = gzip(envelope.as_bytes());
    let stream = Cursor::new(packed[..packed.len() / 2].to_vec());
    let mut reader = InputReader::of_stream(Box::new(stream), &limits());
    let (mut lines, mut faults) = (Vec::new(), Vec::new());
    let fault = loop {
        match reader.next_piece() {
            Ok(Some(piece)) => {
                let more = deframe(piece.payload, &limits());
                lines.extend_from_slice(&more.lines);
                faults.extend(more.faults);
            }
            Ok(None) => panic!("the damage must be told"),
            Err(fault) => break fault,
        }
    };
    assert!(matches!(fault, InputFault::Damaged { format: "gzip", .. }));
    assert!(lines.starts_with(b"2 0 -\n2 1 -\n"));
    assert!(lines.len() > 10_000);
    assert_eq!(faults, []);
}

/// Lines, documents, damage: anything an input may hold.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        Just(b"2 123456789012 eni-1 - - - - - - - 1 2 - NODATA\n".to_vec()),
        Just(b"{\"message\":\"2 1 -\"}".to_vec()),
        Just(b"[{\"a\":\"}\"},\n".to_vec()),
        Just(b"{\"broken\":\"\n".to_vec()),
        Just(vec![b'x'; BLOCK_BYTES - 10]),
        "[a-z{}\\[\\]\", \\n]{0,30}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..30),
    ];
    (prop::collection::vec(part, 0..8), any::<bool>(), any::<Option<u16>>()).prop_map(
        |(parts, packed, cut)| {
            let mut data = parts.concat();
            if packed {
                data = gzip(&data);
            }
            if let Some(cut) = cut {
                data.truncate(usize::from(cut));
            }
            data
        },
    )
}

/// All that the ranges of a file give when they are unwrapped one by one.
fn of_ranges(data: &[u8], form: RangeForm, range_bytes: usize) -> Framed {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(data).unwrap();
    let limits = limits();
    let mut cutter = RangeCutter::new(Arc::new(file), form, 0, range_bytes, &limits);
    let mut whole = Framed::default();
    let mut deframer = Deframer::new(Isa::detect(), &limits);
    loop {
        match cutter.next_range().unwrap() {
            NextRange::End => return whole,
            NextRange::Payload(payload, bytes_read) => {
                whole.bytes_read += bytes_read;
                let end = deframer.deframe(payload, &mut |part| {
                    whole.append(part);
                    ControlFlow::Continue(())
                });
                assert!(end.is_continue());
            }
            NextRange::Unplannable(at) => {
                assert_eq!(form, RangeForm::Documents);
                let rest = data[usize::try_from(at).unwrap()..].to_vec();
                whole.bytes_read += rest.len() as u64;
                whole.append(deframe(Payload::Documents(rest.into()), &limits));
                return whole;
            }
        }
    }
}

#[test]
fn a_damaged_gzip_file_gives_what_a_stream_of_it_gives() {
    let text = b"2 123456789012 eni-1 - - - - - - - 1 2 - NODATA\n".repeat(3);
    let members = [&gzip(&text)[..], &[0; 3], &gzip(b"last line\nand more")].concat();
    assert_eq!(of_file(&members), Outcome { payloads: 1, ..of_bytes(&members, 9) });
    for at in 0..members.len() {
        for change in [0x01, 0x80, 0xFF] {
            let mut damaged = members.clone();
            damaged[at] ^= change;
            let (mut got, mut expected) = (of_file(&damaged), of_bytes(&damaged, 1 << 20));
            got.ignore_sizes();
            expected.ignore_sizes();
            assert_eq!(got, expected, "byte {at} xor {change}");
        }
        let cut = &members[..at];
        let (mut got, mut expected) = (of_file(cut), of_bytes(cut, 1 << 20));
        got.ignore_sizes();
        expected.ignore_sizes();
        assert_eq!(got, expected, "cut at {at}");
    }
}

#[test]
fn a_file_that_shrinks_gives_what_is_left() {
    let text: Vec<u8> = (0..300_000).flat_map(|n| format!("line {n}\n").into_bytes()).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&text).unwrap();
    let handle = file.try_clone().unwrap();
    let mut reader = InputReader::of_file(file, &limits());
    let first = reader.next_piece().unwrap().unwrap();
    let second = reader.next_piece().unwrap().unwrap();
    handle.set_len(RANGE_BYTES as u64 + 100).unwrap();
    let lines = [first, second].map(|piece| deframe(piece.payload, &limits()).lines).to_vec();
    let lines: Vec<u8> = lines.iter().flat_map(|lines| lines.to_vec()).collect();
    let left = &text[..RANGE_BYTES + 100];
    assert!(lines[..left.len()] == *left && lines[left.len()..].iter().all(|byte| *byte == b'\n'));
    assert!(reader.next_piece().unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a file holds and wherever its ranges end, they give what reading it as a stream gives.
    #[test]
    fn ranges_give_what_a_stream_gives(data in input(), range_bytes in 1_usize..400, large: bool) {
        let range_bytes = if large { range_bytes * 1024 } else { range_bytes };
        let stream = || Box::new(Cursor::new(data.clone()));
        let feed = |pace| Feed::without_mark(stream(), pace);
        let mut cutter = LineCutter::new(feed(Pace::InBlocks), BLOCK_BYTES, TextPool::default());
        let mut expected = Framed::default();
        while let Some(payload) = cutter.next_payload().unwrap() {
            expected.append(deframe(payload, &limits()));
        }
        let mark = data.len() - without_mark(&data).len();
        let got = of_ranges(&data[mark..], RangeForm::Lines, range_bytes);
        prop_assert_eq!(&got.lines, &expected.lines);
        prop_assert_eq!(&got.faults, &expected.faults);
        prop_assert_eq!(got.bytes_read, (data.len() - mark) as u64);
        let expected = deframe(Payload::Documents(data.clone().into()), &limits());
        let got = of_ranges(&data, RangeForm::Documents, range_bytes);
        prop_assert_eq!(&got.lines, &expected.lines);
        prop_assert_eq!(&got.faults, &expected.faults);
        prop_assert_eq!(got.input_lines, expected.input_lines);
        prop_assert_eq!(got.bytes_read, data.len() as u64);
    }

    /// How reads split the input changes nothing but the sizes of payloads.
    #[test]
    fn any_split_of_reads_gives_the_same_bytes(data in input(), step in 1_usize..5000) {
        let mut expected = of_file(&data);
        expected.ignore_sizes();
        for step in [step, 1 << 20] {
            let mut outcome = of_bytes(&data, step);
            outcome.ignore_sizes();
            prop_assert_eq!(&outcome, &expected);
        }
    }

    /// Blocks are cut where documents end: unwrapping block by block gives what the whole gives.
    #[test]
    fn documents_do_not_depend_on_blocks(
        parts in prop::collection::vec(document(), 1..12), step in 1_usize..200,
    ) {
        let data = parts.concat();
        let limits = limits();
        let whole = deframe(Payload::Documents(data.clone().into_bytes().into()), &limits);
        let stream = Dribble { data: Cursor::new(format!("{{}}{data}").into_bytes()), step };
        let mut reader = InputReader::of_stream(Box::new(stream), &limits);
        let (mut lines, mut control, mut faults) = (Vec::new(), 0, Vec::new());
        while let Some(piece) = reader.next_piece().unwrap() {
            let framed = deframe(piece.payload, &limits);
            lines.extend_from_slice(&framed.lines);
            control += framed.control;
            faults.extend(framed.faults.into_iter().map(|fault| fault.kind));
        }
        prop_assert_eq!(String::from_utf8(lines), String::from_utf8(whole.lines.to_vec()));
        prop_assert_eq!(control, whole.control);
        // The first document only makes sure that the input is read as JSON.
        let expected: Vec<_> =
            whole.faults.into_iter().map(|fault| fault.kind).collect();
        prop_assert_eq!(&faults[1..], &expected[..]);
    }
}

/// A document of a kind, good or broken, as it stands in a file.
fn document() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("{\"message\":\"2 1 -\"}"),
        Just("{\"message\":\"2 \\\"2\\\" -\"}\n"),
        Just(
            "{\"messageType\":\"DATA_MESSAGE\",\n \"logEvents\":[\n{\"message\":\"2 3 -\"},\n{\"message\":\"2 4 -\"}]}"
        ),
        Just("{\"logEvents\":[{\"message\":\"CWL\"}],\"messageType\":\"CONTROL_MESSAGE\"}\n"),
        Just("{\"srcaddr\":\"10.0.0.1\",\"bytes\":1}"),
        Just("[{\"body\":\"2 5 -\"},"),
        Just("\n]\n"),
        Just("\nnot JSON\n"),
        Just("{\"message\":\"2 6 -\n"),
        Just("{\"logEvents\":[{\"message\":\"2 7 -\"},{\"mess\n"),
        Just("{\"x\":1,\n"),
    ]
}
