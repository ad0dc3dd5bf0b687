//! Objects written with Arrow's writer, read back as lines.

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{
    Float64Array, Int32Array, Int64Array, StringArray, StructArray, TimestampMillisecondArray,
    UInt16Array,
};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use proptest::prelude::*;

use super::*;

fn written(columns: Vec<(&str, ArrayRef)>, rows_per_group: usize) -> Bytes {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap();
    let properties =
        WriterProperties::builder().set_max_row_group_row_count(Some(rows_per_group)).build();
    let mut object = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut object, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    object.into()
}

fn check(columns: Vec<(&str, ArrayRef)>, header: &str, lines: &str) -> Vec<String> {
    let object = written(columns, 2);
    let mut got = String::new();
    let mut notes = Vec::new();
    for group in RowGroups::of_bytes(object).unwrap() {
        let framed = group.deframe();
        assert_eq!(framed.faults, []);
        let [segment] = &framed.segments[..] else { panic!("{:?}", framed.segments) };
        let LayoutScope::Fixed(layout) = &segment.scope else { panic!("{segment:?}") };
        assert_eq!(layout.header(), header);
        got.push_str(std::str::from_utf8(&framed.lines).unwrap());
        notes.extend(framed.notes);
    }
    assert_eq!(got, lines);
    notes
}

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

#[test]
fn columns_are_read_by_name_in_any_width() {
    let notes = check(
        vec![
            ("account_id", Arc::new(Int64Array::from(vec![Some(12_345_678_910), None, Some(7)]))),
            ("interface-id", texts(&[Some("eni-1"), Some("-"), Some("None")])),
            ("srcaddr", texts(&[Some("10.0.0.1"), None, Some("null")])),
            ("srcport", Arc::new(UInt16Array::from(vec![Some(443), None, Some(0)]))),
            ("dstport", texts(&[Some("22"), Some(""), Some("x y")])),
            ("protocol", Arc::new(Float64Array::from(vec![Some(6.0), None, Some(17.0)]))),
            ("bytes", Arc::new(Int32Array::from(vec![Some(1), None, Some(-1)]))),
            ("start", Arc::new(TimestampMillisecondArray::from(vec![Some(5000), None, Some(0)]))),
        ],
        "account-id interface-id srcaddr srcport dstport protocol bytes start",
        "012345678910 eni-1 10.0.0.1 443 22 6 1 5\n\
         - - - - - - - -\n\
         000000000007 - - 0 x%20y 17 -1 0\n",
    );
    assert_eq!(notes, [] as [String; 0]);
}

#[test]
fn partitions_and_nested_columns_are_left_out_with_a_note() {
    let nested = StructArray::from(vec![(
        Arc::new(arrow_schema::Field::new("a", DataType::Int32, true)),
        Arc::new(Int32Array::from(vec![1])) as ArrayRef,
    )]);
    let notes = check(
        vec![
            ("aws-region", texts(&[Some("us-east-1")])),
            ("srcaddr", texts(&[Some("10.0.0.1")])),
            ("tags", Arc::new(nested)),
            ("src_addr_name", texts(&[Some("host")])),
            ("Weird Name", texts(&[Some("x")])),
            ("year", texts(&[Some("2026")])),
        ],
        "srcaddr src-addr-name",
        "10.0.0.1 host\n",
    );
    assert_eq!(notes.len(), 4);
    assert!(notes[1].starts_with("column `tags` (Struct"), "{notes:?}");
}

#[test]
fn dictionaries_are_unpacked() {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    builder.append_value("ACCEPT");
    builder.append_null();
    builder.append_value("ACCEPT");
    check(
        vec![
            ("srcaddr", texts(&[Some("a"), Some("b"), Some("c")])),
            ("action", Arc::new(builder.finish())),
        ],
        "srcaddr action",
        "a ACCEPT\nb -\nc ACCEPT\n",
    );
}

#[test]
fn objects_that_are_no_flow_logs_are_refused() {
    let other = written(vec![("region", texts(&[Some("us-east-1")]))], 9);
    let fault = RowGroups::of_bytes(other).unwrap_err();
    assert!(fault.to_string().contains("srcaddr"), "{fault}");
    assert!(RowGroups::of_bytes(Bytes::from_static(b"PAR1....PAR1")).is_err());
    assert!(RowGroups::of_bytes(Bytes::new()).is_err());
}

#[test]
fn a_file_costs_its_length_in_all() {
    let ports: Vec<i32> = (0..1000).collect();
    let addresses: Vec<String> = ports.iter().map(|n| format!("10.0.0.{}", n % 256)).collect();
    let object = written(
        vec![
            ("srcaddr", Arc::new(StringArray::from(addresses))),
            ("srcport", Arc::new(Int32Array::from(ports))),
        ],
        300,
    );
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, &object).unwrap();
    let groups: Vec<_> = RowGroups::of_file(file).unwrap().collect();
    assert_eq!(groups.len(), 4);
    assert_eq!(groups.iter().map(RowGroup::bytes_read).sum::<u64>(), object.len() as u64);
    let in_memory = RowGroups::of_bytes(object).unwrap();
    for (from_file, from_memory) in groups.iter().zip(in_memory) {
        assert_eq!(from_file.deframe().lines, from_memory.deframe().lines);
        assert_eq!(from_memory.bytes_read(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Damage anywhere gives faults, not a panic.
    #[test]
    fn damaged_objects_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let rows: Vec<i64> = (0..50).collect();
        let object = written(vec![
            ("srcaddr", Arc::new(StringArray::from(vec!["10.0.0.1"; 50]))),
            ("bytes", Arc::new(Int64Array::from(rows))),
        ], 20);
        let mut object = object.to_vec();
        for (place, byte) in damage {
            let place = place.index(object.len());
            object[place] = byte;
        }
        if let Ok(groups) = RowGroups::of_bytes(object.into()) {
            for group in groups {
                group.deframe();
            }
        }
    }
}
