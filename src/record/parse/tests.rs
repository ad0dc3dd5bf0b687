//! The parser's two ways against each other: every instruction set, and every cut, gives what lines give
//! one by one.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;
use crate::record::layout::Slot;
use crate::record::{FaultKind, FieldId, FieldKind};

/// What a block holds, by value, whatever its batches are.
#[derive(Debug, PartialEq)]
struct Shown {
    rows: Vec<String>,
    headers: u64,
    lines: u64,
    faults: Faults,
    layout_after: Option<String>,
}

fn show(block: &ParsedBlock) -> Shown {
    Shown {
        rows: block.batches.iter().flat_map(rows_of).collect(),
        headers: block.header_count,
        lines: block.line_count,
        faults: block.faults.clone(),
        layout_after: block.layout_after.as_ref().map(|layout| layout.header()),
    }
}

fn rows_of(batch: &FlowBatch) -> Vec<String> {
    let mut rows = vec![String::new(); batch.rows()];
    for slot in batch.layout().slots() {
        let known = match slot {
            Slot::Known(field) => *field,
            Slot::Unknown(_) => FieldId::VpcId,
        };
        for (row, shown) in rows.iter_mut().enumerate() {
            macro_rules! value {
                ($column:expr) => {
                    $column.map(|column| column.get(row).map(|value| format!("{value:?}")))
                };
            }
            let value = match slot.kind() {
                FieldKind::Addr => value!(batch.addrs(known)),
                FieldKind::Port => value!(batch.ports(known)),
                FieldKind::Protocol => value!(batch.protocols()),
                FieldKind::Counter => value!(batch.counters(known)),
                FieldKind::Seconds => value!(batch.seconds(known)),
                FieldKind::Int32 => value!(batch.small_ints(known)),
                FieldKind::Action => value!(batch.actions()),
                FieldKind::LogStatus => value!(batch.log_statuses()),
                FieldKind::Text => value!(batch.texts(slot)),
            };
            write!(shown, "{}={value:?} ", slot.name()).unwrap();
        }
    }
    rows
}

fn all_columns(layout: &Layout) -> ColumnSet {
    let mut wanted: ColumnSet = FieldId::ALL.into_iter().collect();
    layout.slots().iter().for_each(|slot| wanted.insert_slot(slot));
    wanted
}

/// Every line by itself: the careful way only, as a line alone is too near to the ends of its text.
fn one_by_one(text: &[u8], layout: &Arc<Layout>) -> Shown {
    let mut layout = Arc::clone(layout);
    let mut all = ParsedBlock::default();
    let mut parser = Parser::new(Isa::Scalar, all_columns(&layout));
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let first_line = all.line_count;
        let block = parser.parse(&Arc::new(line.to_vec().into()), 0..line.len(), &layout);
        all.header_count += block.header_count;
        all.line_count += block.line_count;
        for sample in block.faults.samples() {
            let line = first_line + sample.line;
            all.faults.record(sample.kind, || FaultSample { line, ..sample.clone() });
        }
        all.batches.extend(block.batches);
        if let Some(after) = block.layout_after {
            layout = Arc::clone(&after);
            all.layout_after = Some(after);
        }
    }
    show(&all)
}

fn check(text: &[u8], layout: &Arc<Layout>) {
    let expected = one_by_one(text, layout);
    for isa in Isa::available() {
        let mut parser = Parser::new(isa, all_columns(layout));
        let got = parser.parse(&Arc::new(text.to_vec().into()), 0..text.len(), layout);
        assert_eq!(show(&got), expected, "{} on {}", isa.name(), text.escape_ascii());
        // Once more with columns that have served, in the middle of a longer text.
        got.batches.into_iter().for_each(|batch| parser.recycle(batch));
        let padded = [b"before 1.2.3.4 -\n", text, b"behind 1.2.3.4 -\n"].concat();
        let lines = 17..17 + text.len();
        let again = parser.parse(&Arc::new(padded.into()), lines, layout);
        assert_eq!(show(&again), expected, "{}", isa.name());
        // A job that wants nothing judges lines in the same way.
        let bare = Parser::new(isa, ColumnSet::new()).parse(
            &Arc::new(text.to_vec().into()),
            0..text.len(),
            layout,
        );
        assert_eq!(bare.faults, expected.faults);
        assert_eq!(bare.batches.iter().map(FlowBatch::rows).sum::<usize>(), expected.rows.len());
    }
}

const GOOD: [&str; 9] = [
    "2 123456789010 eni-1235b8ca 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK",
    "2 123456789010 eni-1235b8ca 172.31.9.69 172.31.9.12 49761 3389 6 20 4249 1418530010 1418530070 REJECT OK",
    "2 123456789010 eni-1235b8ca - - - - - - - 1431280876 1431280934 - NODATA",
    "2 123456789010 eni-1235b8ca - - - - - - - 1431280876 1431280934 - SKIPDATA",
    "2 123456789010 eni-1 2001:db8:1234:a100:8d6e:3477:df66:f105 2001:db8:1234:a102:3304:8879:34cf:4071 34892 22 6 54 8855 1477913708 1477913820 ACCEPT OK",
    "2 1 e ::1 ::ffff:1.2.3.4 0 65535 255 18446744073709551615 99999999 0 9223372036854775807 ACCEPT -",
    "2  123456789010 eni-1235b8ca 10.0.0.1 10.0.0.2 1 2 6 1 1 1418530010 1418530070 ACCEPT OK",
    "\t2 123456789010 eni-1235b8ca 10.0.0.1 10.0.0.2 1 2 6 1 1 1418530010 1418530070 ACCEPT OK\r",
    "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status",
];

#[test]
fn good_lines_in_any_company() {
    let layout = Layout::default_v2();
    for good in GOOD {
        check(format!("{good}\n").repeat(70).as_bytes(), &layout);
        let mut text = format!("{}\n", GOOD[0]).repeat(69);
        for at in [0, 1, 30, 63, 64, 68] {
            let line_bytes = GOOD[0].len() + 1;
            text.insert_str(at * line_bytes, &format!("{good}\n"));
            check(text.as_bytes(), &layout);
            text = format!("{}\n", GOOD[0]).repeat(69);
        }
    }
    check(format!("{}\n", GOOD.join("\n")).repeat(40).as_bytes(), &layout);
}

#[test]
fn every_field_out_of_range_in_the_middle_of_good_lines() {
    let layout = Layout::default_v2();
    let fields: Vec<&str> = GOOD[0].split(' ').collect();
    for position in 0..fields.len() {
        for bad in
            ["", "-", "x", "256", "65536", "4294967296", "1.2.3.256", "01.2.3.4", "accept", "OKAY"]
        {
            let mut changed = fields.clone();
            changed[position] = bad;
            let mut lines = vec![GOOD[0].to_owned(); 40];
            lines[11] = changed.join(" ");
            lines[39] = changed.join(" ");
            check(format!("{}\n", lines.join("\n")).as_bytes(), &layout);
        }
    }
}

#[test]
fn lines_of_an_export_are_records_without_their_time() {
    let layout = Layout::default_v2();
    let exported = format!("2026-01-01T00:00:00.000Z {}\n", GOOD[0]);
    let mixed = [exported.as_str(), GOOD[0], "\n", exported.as_str()].concat();
    for text in [exported.repeat(150), mixed.repeat(40)] {
        check(text.as_bytes(), &layout);
        let shown = one_by_one(text.as_bytes(), &layout);
        let plain = one_by_one(format!("{}\n", GOOD[0]).as_bytes(), &layout);
        assert_eq!(shown.rows.len(), text.lines().count());
        // Where text stands is another place, what it says is the same.
        assert!(shown.rows.iter().all(|row| *row == plain.rows[0]));
    }
    // Only before a whole record.
    check(b"2026-01-01T00:00:00.000Z 2 1\n", &layout);
}

#[test]
fn files_of_windows_and_padded_files_are_read() {
    let layout = Layout::default_v2();
    check(format!("{}\r\n", GOOD[0]).repeat(200).as_bytes(), &layout);
    check(format!("{}\0\0\n", GOOD[0]).repeat(10).as_bytes(), &layout);
    check(b"\n".repeat(300).as_slice(), &layout);
    check(format!("{}\n\n", GOOD[0]).repeat(100).as_bytes(), &layout);
}

#[test]
fn other_layouts_and_changes_between_them() {
    let names = ["v5", "tgw", "interface-id action", "vpc-id brand-new", "bytes srcaddr region"];
    for name in names {
        let layout = Arc::new(Layout::from_text(name).unwrap());
        let line: Vec<&str> = layout
            .slots()
            .iter()
            .map(|slot| match slot.kind() {
                FieldKind::Addr => "10.0.0.1",
                FieldKind::Action => "REJECT",
                FieldKind::LogStatus => "OK",
                FieldKind::Text => "text",
                FieldKind::Seconds => "1418530010",
                _ => "17",
            })
            .collect();
        let line = format!("{}\n", line.join(" "));
        let text = [
            line.repeat(70),
            format!("{}\n", layout.header()),
            line.repeat(9),
            format!("{}\n", GOOD[8]),
            format!("{}\n", GOOD[0]).repeat(66),
            format!("{}\n", layout.header()),
            line.repeat(65),
        ]
        .concat();
        check(text.as_bytes(), &layout);
        check(text.replace('\n', "\t\r\n").as_bytes(), &layout);
    }
}

#[test]
fn more_records_than_a_batch_holds() {
    let layout = Layout::default_v2();
    let line = format!("{}\n", GOOD[0]);
    let count = 2 * BATCH_ROWS_MAX + 3;
    let text = Arc::new(line.repeat(count).into_bytes().into());
    let block =
        Parser::new(Isa::detect(), all_columns(&layout)).parse(&text, 0..text.len(), &layout);
    let rows: Vec<usize> = block.batches.iter().map(FlowBatch::rows).collect();
    assert_eq!(rows, [BATCH_ROWS_MAX, BATCH_ROWS_MAX, 3]);
    assert_eq!(block.line_count, count as u64);
    assert_eq!(block.faults.count(FaultKind::FieldCount), 0);
}

fn any_line() -> impl Strategy<Value = String> {
    let field = "-|[0-9]{1,11}|[0-9]{1,3}(\\.[0-9]{1,3}){3}|ACCEPT|REJECT|OK|NODATA|[ -~]{0,9}";
    prop_oneof![
        8 => prop::sample::select(GOOD.to_vec()).prop_map(str::to_owned),
        4 => (prop::sample::select(GOOD[..6].to_vec()), 0_usize..14, field).prop_map(
            |(good, position, field)| {
                let mut fields: Vec<&str> = good.split(' ').collect();
                fields[position] = &field;
                fields.join(" ")
            }
        ),
        1 => prop::collection::vec(field, 0..16).prop_map(|fields| fields.join(" ")),
        1 => "[ -~\t\r]{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 200 }))]

    #[test]
    fn any_lines(lines in prop::collection::vec(any_line(), 1..150)) {
        let text = format!("{}\n", lines.join("\n"));
        check(text.as_bytes(), &Layout::default_v2());
    }

    #[test]
    fn any_bytes(mut text in prop::collection::vec(any::<u8>(), 0..600)) {
        text.push(b'\n');
        check(&text, &Layout::default_v2());
        check(&text, &Arc::new(Layout::from_text("vpc-id bytes").unwrap()));
    }
}
