//! What several fuzz targets check.

use flowgauge::framing::{Limits, Payload, SourceRecord, deframe};

/// Unwraps one record and checks what holds for every result.
pub fn check_record(data: Vec<u8>) {
    let record = SourceRecord {
        data: data.into(),
        sequence_number: "49546986683135544286507457936321625675700192471156785154".into(),
        arrival_ms: 0,
        hash_key_range: Some((0, u128::MAX / 2)),
    };
    let limits = Limits { inflated_bytes_max: 1 << 20, ..Limits::default() };
    let framed = deframe(Payload::Records(vec![record]), &limits);
    assert!(framed.lines.is_empty() || framed.lines.ends_with(b"\n"));
    let covered: usize = framed.runs().map(|run| run.bytes.len()).sum();
    assert_eq!(covered, framed.lines.len());
}
