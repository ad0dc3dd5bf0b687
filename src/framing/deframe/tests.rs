//! What each form gives, what damage costs, and that nothing makes it panic or run away.

use std::io::Write;

use base64_simd::STANDARD;
use proptest::prelude::*;

use super::*;
use crate::framing::RecordFault;
use crate::record::FieldId;

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn base64(data: &[u8]) -> String {
    STANDARD.encode_to_string(data)
}

fn envelope(messages: &[&str]) -> Vec<u8> {
    let events: Vec<_> = messages.iter().map(|text| format!(r#"{{"message":"{text}"}}"#)).collect();
    format!(r#"{{"messageType":"DATA_MESSAGE","logEvents":[{}]}}"#, events.join(",")).into_bytes()
}

const CONTROL: &str = r#"{"messageType":"CONTROL_MESSAGE","logEvents":[{"message":"CWL"}]}"#;

fn record(data: &[u8], sequence_number: &str) -> SourceRecord {
    SourceRecord {
        data: Bytes::copy_from_slice(data),
        sequence_number: sequence_number.into(),
        arrival_ms: 0,
        hash_key_range: None,
    }
}

fn of_record(data: &[u8]) -> Framed {
    deframe(Payload::Records(vec![record(data, "1")]), &Limits::default())
}

fn kinds(faults: &[RecordFault]) -> Vec<FaultKind> {
    faults.iter().map(|fault| fault.kind).collect()
}

/// One record gives these lines and faults, and as documents of a file it does so too if it is JSON.
fn check(data: impl AsRef<[u8]>, lines: &str, faults: &[FaultKind]) {
    let data = data.as_ref();
    let mut ways = vec![of_record(data)];
    if form_of(data) == Form::Json {
        ways.push(deframe(Payload::Documents(data.to_vec().into()), &Limits::default()));
    }
    for framed in ways {
        assert_eq!(String::from_utf8_lossy(&framed.lines), lines);
        assert_eq!(kinds(&framed.faults), faults);
    }
}

#[test]
fn records_are_told_by_their_start() {
    check("", "", &[]);
    check("2 1 -", "2 1 -\n", &[]);
    check("2 1 -\r\n2 2 -\n", "2 1 -\r\n2 2 -\n", &[]);
    check("\u{FEFF}2 1 -\n", "2 1 -\n", &[]);
    check(r#"{"message":"2 1 -"}"#, "2 1 -\n", &[]);
    check(r#"{"message":"2 1 -"}{"message":"2 2 -"}"#, "2 1 -\n2 2 -\n", &[]);
    check(gzip(&envelope(&["a", "b"])), "a\nb\n", &[]);
    check(zstd::encode_all(&b"a\nb"[..], 1).unwrap(), "a\nb\n", &[]);
    check(gzip(&gzip(b"a")), "a\n", &[]);
    check([gzip(b"a\n"), gzip(b"b")].concat(), "a\nb\n", &[]);
    check("PAR1", "", &[FaultKind::Unsupported]);
    check(b"PK\x03\x04", "", &[FaultKind::Unsupported]);
}

#[test]
fn json_of_every_known_form_is_read() {
    let direct = r#"{"message":"2 1 -"}"#;
    check(r#" { "message" : "2 \"1\" -" , "id" : 7 } "#, "2 \"1\" -\n", &[]);
    check(r#"[{"message":"a"},{"body":"b"}]"#, "a\nb\n", &[]);
    check(r#"{"events":[{"message":"a","timestamp":1}],"nextToken":"x"}"#, "a\n", &[]);
    check(
        format!(r#"{{"awslogs":{{"data":"{}"}}}}"#, base64(&gzip(&envelope(&["a"])))),
        "a\n",
        &[],
    );
    check(
        format!(r#"{{"records":[{{"data":"{}"}},{{"data":""}}]}}"#, base64(b"a\nb")),
        "a\nb\n",
        &[],
    );
    check(
        format!(r#"{{"Records":[{{"kinesis":{{"data":"{}"}}}}]}}"#, base64(direct.as_bytes())),
        "2 1 -\n",
        &[],
    );
    check(format!(r#"{{"rawData":"{}","errorCode":"x"}}"#, base64(b"a")), "a\n", &[]);
    check(r#"{"Records":[{"messageId":"1","body":"{\"message\":\"a\"}"}]}"#, "a\n", &[]);
    check(r#"{"body":"[{\"message\":\"a\"}]"}"#, "a\n", &[]);
}

#[test]
fn control_messages_and_notifications_are_counted_and_not_read() {
    let control = |data: &[u8], expected: u64| {
        let framed = of_record(data);
        assert_eq!((framed.control, framed.lines.len(), framed.faults.len()), (expected, 0, 0));
    };
    control(CONTROL.as_bytes(), 1);
    control(&gzip(CONTROL.repeat(3).as_bytes()), 3);
    control(br#"{"x":1,"messageType":"CONTROL_MESSAGE"}"#, 1);
    control(br#"{"Records":[{"eventSource":"aws:s3"},{"eventSource":"aws:s3"}]}"#, 2);
    control(br#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#, 1);
    control(br#"{"source":"aws.s3","detail-type":"Object Created"}"#, 1);
    control(br#"{"Type":"Notification","Message":"{\"Event\":\"s3:TestEvent\"}"}"#, 1);
}

#[test]
fn damage_costs_one_fault_and_nothing_else() {
    use FaultKind::{Base64, Compression, Json, KplAggregate};
    let packed = gzip(&envelope(&["a", "b"]));
    check(&packed[..packed.len() - 4], "a\nb\n", &[Compression]);
    let cut_text = gzip(b"a\nb\nbroken line");
    check(&cut_text[..cut_text.len() - 1], "a\nb\n", &[Compression]);
    check(r#"{"message":"a"}{"message":{"message":"b"}"#, "a\n", &[Json]);
    check("{\"message\":\"a\n{\"message\":\"b\"}", "b\n", &[Json]);
    check(r#"{"messageType":"DATA_MESSAGE","logEvents":[{"message":"a"},{"mess"#, "a\n", &[Json]);
    check("{\"logEvents\":[{\"message\":\"a\"},\n{\"x\"\n{\"message\":\"b\"}", "a\nb\n", &[Json]);
    check("{}\nnot JSON\n{\"message\":\"a\"}", "not JSON\na\n", &[Json]);
    check("{\"CHANGE\":-0.23}", "", &[Json]);
    check(r#"{"records":[{"data":"YQ="},{"data":"YQ=="},{"data":"a"}]}"#, "a\n", &[Base64, Base64]);
    check(b"\xF3\x89\x9A\xC2\n2 1 -\n", "", &[KplAggregate]);
    check(r#"{"logEvents":[{"id":"1"},{"message":"a"}]}"#, "a\n", &[Json]);
}

#[test]
fn what_surrounds_a_bad_record_is_kept() {
    let records = [&b"1 a"[..], b"{", &gzip(b"b")[..9], b"2 c"]
        .iter()
        .zip(["1", "2", "3", "4"])
        .map(|(data, number)| record(data, number))
        .collect();
    let framed = deframe(Payload::Records(records), &Limits::default());
    assert_eq!(&framed.lines[..], b"1 a\n2 c\n");
    let faults: Vec<_> =
        framed.faults.iter().map(|fault| (fault.kind, fault.origin.as_deref().unwrap())).collect();
    assert_eq!(faults, [(FaultKind::Json, "2"), (FaultKind::Compression, "3")]);
    assert_eq!(framed.origin_of(0).map(|origin| &**origin), Some("1"));
    assert_eq!(framed.origin_of(1).map(|origin| &**origin), Some("4"));
    assert_eq!(framed.runs().count(), 1);
}

#[test]
fn a_header_binds_only_its_record() {
    let records = ["srcaddr dstaddr\n- -\n", "2 1 -", "2 2 -"];
    let records = records.iter().map(|data| record(data.as_bytes(), "1")).collect();
    let framed = deframe(Payload::Records(records), &Limits::default());
    let runs: Vec<_> = framed.runs().map(|run| run.bytes).collect();
    assert_eq!(runs, [0..20, 20..32]);
    assert!(framed.segments.iter().all(|segment| segment.scope == LayoutScope::Record));
}

#[test]
fn rows_have_the_layout_of_their_members() {
    let document = concat!(
        r#"{"srcaddr":"10.0.0.1","bytes":40}{"srcaddr":"10.0.0.2","bytes":41.0}"#,
        r#"{"message":"2 1 -"}{"interface_id":"eni-1","action":null}"#
    );
    let framed =
        deframe(Payload::Documents(document.as_bytes().to_vec().into()), &Limits::default());
    assert_eq!(&framed.lines[..], b"10.0.0.1 40\n10.0.0.2 41\n2 1 -\neni-1 -\n");
    let scopes: Vec<_> = framed.segments.iter().map(|s| (s.line_index, s.scope.clone())).collect();
    let fixed =
        |fields: &[FieldId]| LayoutScope::Fixed(Arc::new(crate::record::Layout::of_fields(fields)));
    assert_eq!(
        scopes,
        [
            (0, fixed(&[FieldId::SrcAddr, FieldId::Bytes])),
            (2, LayoutScope::Input),
            (3, fixed(&[FieldId::InterfaceId, FieldId::Action])),
        ]
    );
}

#[test]
fn faults_of_documents_tell_their_line_and_start() {
    let documents = "{\"message\":\"a\"}\n{\"x\":1}\n\n{\"y\":2}\n";
    let framed =
        deframe(Payload::Documents(documents.as_bytes().to_vec().into()), &Limits::default());
    let faults: Vec<_> =
        framed.faults.iter().map(|fault| (fault.input_line, &fault.excerpt[..])).collect();
    assert_eq!(faults, [(1, &b"{\"x\":1}"[..]), (3, b"{\"y\":2}")]);
    assert_eq!(framed.input_lines, 4);
}

#[test]
fn records_that_cannot_be_unwrapped_are_kept_in_part() {
    let mut packed = gzip(b"a");
    packed.truncate(15);
    packed.resize(100_000, 0xff);
    let records = (0..20).map(|number| record(&packed, &number.to_string())).collect();
    let framed = deframe(Payload::Records(records), &Limits::default());
    assert_eq!(framed.faults.len(), 20, "all are told");
    assert!(framed.faults.iter().all(|fault| fault.length_bytes == 100_000));
    assert_eq!(framed.faults[15].excerpt, packed[..64 << 10]);
    assert!(framed.faults[16].excerpt.is_empty(), "there is a limit for a payload");
}

#[test]
fn the_payloads_of_a_file_pass_through() {
    let limits = Limits::default();
    let lines = deframe(Payload::Lines(b"a\n\nb\n".to_vec().into()), &limits);
    assert!(lines.lines_are_input, "the parser counts them");
    assert_eq!((lines.input_lines, lines.bytes_decoded, lines.segments.len()), (0, 5, 1));
    assert_eq!(lines.segments[0].scope, LayoutScope::Input);
    let long = LongLine { length_bytes: 99, excerpt: b"xx".to_vec() };
    let long = deframe(Payload::LongLine(long), &limits);
    assert_eq!(kinds(&long.faults), [FaultKind::LineTooLong]);
    assert_eq!((long.input_lines, long.lines.len()), (1, 0));
    let start = envelope(&["a", "b"]);
    let cut = deframe(Payload::DocumentStart(start[..start.len() - 9].to_vec().into()), &limits);
    assert_eq!((&cut.lines[..], cut.faults), (&b"a\n"[..], vec![]));
}

#[test]
fn limits_hold_inside_records() {
    let limits = Limits { line_bytes_max: 10, inflated_bytes_max: 1000, ..Limits::default() };
    let of = |data: Vec<u8>| deframe(Payload::Records(vec![record(&data, "1")]), &limits);
    let long = of(b"a\n12345678901\nb".to_vec());
    assert_eq!(
        (&long.lines[..], kinds(&long.faults)),
        (&b"a\nb\n"[..], vec![FaultKind::LineTooLong])
    );
    let bomb = of(gzip(&[b'\n'; 1001]));
    assert_eq!((bomb.lines.len(), kinds(&bomb.faults)), (0, vec![FaultKind::TooLarge]));
    // The members of one record share its limit.
    let half = base64(&gzip(&[b'\n'; 600]));
    let twice =
        of(format!(r#"{{"records":[{{"data":"{half}"}},{{"data":"{half}"}}]}}"#).into_bytes());
    assert_eq!((twice.lines.len(), kinds(&twice.faults)), (600, vec![FaultKind::TooLarge]));
    let mut nested = b"a".to_vec();
    for _ in 0..9 {
        nested = gzip(&nested);
    }
    assert_eq!(kinds(&of(nested).faults), [FaultKind::Unsupported]);
}

#[test]
fn many_broken_documents_are_read_in_linear_time() {
    // Each of these would send a naive reader through the rest of the payload.
    for unit in
        ["{\"logEvents\":[{\"message\":\"a\"},\n", "{\"owner\":{\n", "{\"a\":[\n", "{", "[", "\""]
    {
        let hostile = unit.repeat((1 << 20) / unit.len());
        let framed = deframe(Payload::Documents(hostile.into_bytes().into()), &Limits::default());
        assert!(framed.faults.len() as u64 + framed.control <= 1 << 20);
    }
}

/// Bytes that get far: pieces of real forms, damaged and wrapped.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"{\"message\":\"2 1 -\"}".to_vec()),
        Just(envelope(&["a", "b\\u00e9"])),
        Just(CONTROL.as_bytes().to_vec()),
        Just(b"{\"srcaddr\":\"10.0.0.1\",\"bytes\":1e999}".to_vec()),
        Just(b"{\"records\":[{\"data\":\"".to_vec()),
        Just(b"\xF3\x89\x9A\xC2\x1A\x02\x08\x00".to_vec()),
        Just(b"version srcaddr\n".to_vec()),
        "[{}\\[\\]\",:\\\\ a-z0-9\\n]{0,20}".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    let pieces = prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat());
    pieces.prop_recursive(3, 8, 1, |inner| {
        prop_oneof![
            inner.clone().prop_map(|data| gzip(&data)),
            inner.clone().prop_map(|data| zstd::encode_all(&data[..], 1).unwrap()),
            inner.clone().prop_map(|data| {
                format!("{{\"Records\":[{{\"data\":\"{}\"}}]}}", base64(&data)).into_bytes()
            }),
            (inner, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut data, at, byte)| {
                if !data.is_empty() {
                    let at = at.index(data.len());
                    data[at] = byte;
                }
                data
            }),
        ]
    })
}

proptest! {
    #[test]
    fn anything_gives_whole_lines_and_never_a_panic(
        records in prop::collection::vec(hostile(), 1..4),
    ) {
        let limits = Limits { inflated_bytes_max: 1 << 16, ..Limits::default() };
        let payloads = [
            Payload::Documents(records[0].clone().into()),
            Payload::DocumentStart(records[0].clone().into()),
            Payload::Records(records.iter().map(|data| record(data, "7")).collect()),
        ];
        for payload in payloads {
            let framed = deframe(payload, &limits);
            prop_assert!(framed.lines.is_empty() || framed.lines.ends_with(b"\n"));
            let mut at = 0;
            let mut line_index = 0;
            for (index, segment) in framed.segments.iter().enumerate() {
                prop_assert_eq!((segment.offset, segment.line_index), (at, line_index));
                at = framed.segments.get(index + 1).map_or(framed.lines.len(), |next| next.offset);
                let lines = &framed.lines[segment.offset..at];
                prop_assert!(lines.ends_with(b"\n"));
                line_index += memchr::memchr_iter(b'\n', lines).count() as u64;
            }
            prop_assert_eq!(at, framed.lines.len());
        }
    }

    /// Records do not depend on their neighbours.
    #[test]
    fn records_are_unwrapped_one_by_one(records in prop::collection::vec(hostile(), 1..4)) {
        let limits = Limits::default();
        let of = |records: &[Vec<u8>]| {
            deframe(Payload::Records(records.iter().map(|data| record(data, "7")).collect()), &limits)
        };
        let together = of(&records);
        let apart: Vec<Framed> = records.iter().map(|data| of(std::slice::from_ref(data))).collect();
        prop_assert_eq!(
            &together.lines[..],
            &apart.iter().flat_map(|framed| framed.lines.to_vec()).collect::<Vec<u8>>()[..]
        );
        prop_assert_eq!(together.control, apart.iter().map(|framed| framed.control).sum::<u64>());
        prop_assert_eq!(
            kinds(&together.faults),
            apart.iter().flat_map(|framed| kinds(&framed.faults)).collect::<Vec<_>>()
        );
    }
}
