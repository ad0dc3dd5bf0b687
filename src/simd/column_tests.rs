//! Differential tests of the column kernels: every instruction set of the machine against plain code.
//!
//! A kernel may leave any field as unfit. What it takes must be right, and it must take what its contract
//! says, if it takes anything.

#![expect(clippy::needless_range_loop, reason = "rows are asked for by number")]

use std::fmt::Write as _;

use proptest::prelude::*;

use super::{Isa, Judged, Number, ROWS_MAX, Rows, Splitter, Word};

/// Lines before and behind those that are looked at, so that all of these have enough text around them.
const PADDING: &str = "xxxxxxxxxxxxxxxx xxxxxxxxxxxxxxxx\n";

/// Calls `look` with rows of three fields, `fields` in the middle one and at both ends of the lines.
fn with_rows(fields: &[&[u8]], mut look: impl FnMut(Isa, &Rows<'_>, usize)) {
    for isa in Isa::available() {
        for column in 0..3 {
            let mut text = PADDING.as_bytes().to_vec();
            for field in fields {
                // So long that no kernel sees beyond the field beside the one it looks at.
                let mut line =
                    [b"aaaaaaaaaaaaaaaa".as_slice(), b"bbbbbbbbbbbbbbbb", b"cccccccccccccccc"];
                line[column] = field;
                text.extend_from_slice(&line.join(&b' '));
                text.push(b'\n');
            }
            let end = text.len();
            text.extend_from_slice(PADDING.as_bytes());
            let mut scratch = Vec::new();
            let mut splitter = Splitter::new(isa, &text, PADDING.len()..end, &mut scratch);
            let mut seen = 0;
            while seen < fields.len() {
                let rows = splitter.rows(3, ROWS_MAX);
                assert!(rows.count() > 0, "fields hold no separators");
                for row in 0..rows.count() {
                    assert_eq!(rows.field(row, column), fields[seen + row]);
                }
                look(isa, &rows, column);
                let count = rows.count();
                splitter.skip_rows(3, count);
                seen += count;
            }
            assert!(splitter.is_at_end());
        }
    }
}

/// Whether the kernel must take what fits its contract: there is one, and rows enough to fill any register.
fn must_take(isa: Isa, rows: &Rows<'_>) -> bool {
    matches!(isa, Isa::Avx2 | Isa::Avx512) && rows.count() >= 8
}

/// A field that does not fit is left; one that does is taken where it must be.
fn check_unfit(unfit: bool, fits: bool, must_take: bool, context: &str) {
    assert!(unfit || fits, "{context} was taken");
    assert!(!unfit || !fits || !must_take, "{context} was not taken");
}

fn check_numbers<N: Number + PartialEq + TryFrom<u64> + std::fmt::Debug>(fields: &[&[u8]]) {
    with_rows(fields, |isa, rows, column| {
        let mut values = vec![N::cut(0); ROWS_MAX];
        let judged = rows.numbers(column, Some(&mut values));
        assert_eq!(rows.numbers::<N>(column, None), judged);
        for row in 0..rows.count() {
            let field = rows.field(row, column);
            let value = std::str::from_utf8(field)
                .ok()
                .filter(|text| (1..=7).contains(&text.len()))
                .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|text| N::try_from(text.parse().unwrap()).ok());
            let (absent, unfit) = (judged.absent >> row & 1 == 1, judged.unfit >> row & 1 == 1);
            let context = format!("{} of {}", field.escape_ascii(), isa.name());
            let fits = value.is_some() || field == b"-";
            check_unfit(unfit, fits, must_take(isa, rows), &context);
            assert_eq!(absent, field == b"-" && !unfit, "{context}");
            if let (Some(value), false) = (value, unfit) {
                assert_eq!(values[row], value, "{context}");
            }
        }
        check_beyond(judged, rows);
    });
}

fn check_ten_digits(fields: &[&[u8]]) {
    with_rows(fields, |isa, rows, column| {
        let mut values = vec![0; ROWS_MAX];
        let judged = rows.ten_digits(column, Some(&mut values));
        assert_eq!(rows.ten_digits(column, None), judged);
        for row in 0..rows.count() {
            let field = rows.field(row, column);
            let fits = field.len() == 10 && field.iter().all(u8::is_ascii_digit);
            let unfit = judged.unfit >> row & 1 == 1;
            let context = format!("{} of {}", field.escape_ascii(), isa.name());
            check_unfit(unfit, fits, must_take(isa, rows), &context);
            if !unfit {
                let value: u64 = std::str::from_utf8(field).unwrap().parse().unwrap();
                assert_eq!(values[row], value, "{context}");
            }
        }
        check_beyond(judged, rows);
    });
}

fn check_ipv4(fields: &[&[u8]]) {
    with_rows(fields, |isa, rows, column| {
        let mut values = vec![0; ROWS_MAX];
        let judged = rows.ipv4(column, Some(&mut values));
        assert_eq!(rows.ipv4(column, None), judged);
        assert_eq!(judged.absent, 0);
        for row in 0..rows.count() {
            let field = rows.field(row, column);
            let addr = std::str::from_utf8(field)
                .ok()
                .and_then(|text| text.parse::<std::net::Ipv4Addr>().ok());
            let unfit = judged.unfit >> row & 1 == 1;
            let context = format!("{} of {}", field.escape_ascii(), isa.name());
            check_unfit(unfit, addr.is_some(), must_take(isa, rows), &context);
            if let (false, Some(addr)) = (unfit, addr) {
                assert_eq!(values[row], addr.to_ipv6_mapped().to_bits(), "{context}");
            }
        }
        check_beyond(judged, rows);
    });
}

fn check_ipv6(fields: &[&[u8]]) {
    with_rows(fields, |isa, rows, column| {
        for row in 0..rows.count() {
            let field = rows.field(row, column);
            let addr = std::str::from_utf8(field)
                .ok()
                .and_then(|text| text.parse::<std::net::Ipv6Addr>().ok())
                .filter(|_| !field.contains(&b'.'))
                .map(std::net::Ipv6Addr::to_bits);
            let expected = addr.filter(|_| isa == Isa::Avx512);
            assert_eq!(rows.ipv6(row, column), expected, "{}", field.escape_ascii());
        }
    });
}

fn check_words(fields: &[&[u8]], words: [&'static str; 3]) {
    with_rows(fields, |isa, rows, column| match rows.words(column, &words.map(Word::new)) {
        None => assert!(!must_take(isa, rows)),
        Some(found) => {
            for (found, word) in found.into_iter().zip(words) {
                for row in 0..ROWS_MAX {
                    let is_word = row < rows.count() && rows.field(row, column) == word.as_bytes();
                    assert_eq!(found >> row & 1 == 1, is_word, "{word}, {}", isa.name());
                }
            }
        }
    });
}

/// Nothing is said of rows that are not there.
fn check_beyond(judged: Judged, rows: &Rows<'_>) {
    assert_eq!((judged.absent | judged.unfit) & !Rows::mask(rows.count()), 0);
}

fn check_all(fields: &[&[u8]]) {
    check_numbers::<u8>(fields);
    check_numbers::<u16>(fields);
    check_numbers::<u32>(fields);
    check_numbers::<u64>(fields);
    check_ten_digits(fields);
    check_ipv4(fields);
    check_ipv6(fields);
    check_words(fields, ["OK", "NODATA", "x"]);
}

fn borrowed(fields: &[String]) -> Vec<&[u8]> {
    fields.iter().map(String::as_bytes).collect()
}

#[test]
fn numbers_of_every_length_and_range() {
    let mut fields = Vec::new();
    for length in 1..=20 {
        fields.push("9".repeat(length));
        fields.push(format!("{:0>length$}", 7));
        fields.push("12345678901234567890"[..length].to_owned());
    }
    fields.extend([255, 256, 65_535, 65_536, 9_999_999, 10_000_000].map(|n: u64| n.to_string()));
    fields.extend(["-", "--", "-1", "1-", "+1", "", "a"].map(str::to_owned));
    fields.retain(|field| !field.is_empty());
    check_all(&borrowed(&fields));
}

#[test]
fn every_byte_in_every_place() {
    let places = if cfg!(miri) { 0..1 } else { 0..14 };
    for (good, place) in ["1234567", "1767225678", "10.11.12.13", "2001:db8::1a:0", "OK", "-"]
        .into_iter()
        .flat_map(|good| places.clone().map(move |place| (good, place)))
        .filter(|(good, place)| *place < good.len())
    {
        let fields: Vec<Vec<u8>> = (0..=u8::MAX)
            .filter(|byte| !matches!(byte, b' ' | b'\n'))
            .map(|byte| {
                let mut field = good.as_bytes().to_vec();
                field[place] = byte;
                field
            })
            .collect();
        check_all(&fields.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}

#[test]
fn octets_of_every_value_in_every_place() {
    let octets = if cfg!(miri) { 250..262 } else { 0..1_050 };
    for place in 0..4 {
        let mut fields = Vec::new();
        for octet in octets.clone() {
            let mut parts = ["7".to_owned(), "42".to_owned(), "201".to_owned(), "0".to_owned()];
            parts[place] = octet.to_string();
            fields.push(parts.join("."));
            parts[place] = format!("{octet:02}");
            fields.push(parts.join("."));
            parts[place] = format!("{octet:03}");
            fields.push(parts.join("."));
        }
        check_ipv4(&borrowed(&fields));
    }
}

#[test]
fn groups_of_every_length_and_gaps_in_every_place() {
    let group = |index: usize| ["1", "fF", "a0b", "9cDe"][index % 4];
    let mut fields = vec!["::".to_owned(), ":".to_owned(), ":::".to_owned()];
    for shift in 0..4 {
        for count in 1..=9 {
            let groups: Vec<&str> = (0..count).map(|index| group(index + shift)).collect();
            fields.push(groups.join(":"));
            fields.push(format!(":{}", groups.join(":")));
            fields.push(format!("{}:", groups.join(":")));
            for gap in 0..=count {
                let (before, behind) = (groups[..gap].join(":"), groups[gap..].join(":"));
                fields.push(format!("{before}::{behind}"));
                fields.push(format!("{before}:::{behind}"));
                fields.push(format!("{before}::{behind}::"));
                fields.push(format!("{before}::{behind}:"));
                fields.push(format!(":{before}::{behind}"));
            }
        }
    }
    fields.extend(["12345::", "::12345", "1::g", "::ffff:1.2.3.4", "::1%e"].map(str::to_owned));
    check_ipv6(&borrowed(&fields));
}

#[test]
fn shapes_that_are_no_addresses() {
    let fields: Vec<String> = [
        "1.2.3",
        "1.2.3.4.5",
        "1.2.3.",
        ".1.2.3",
        "1..2.3",
        "...",
        "....",
        ".",
        "1.2.3.4.",
        "1,2,3,4",
        "1.2.3/4",
        "1.2.3:4",
        "255.255.255.255",
        "0.0.0.0",
        "255.255.255.2555",
        "1234.1.1.1",
        "1.1234.1.1",
        "::1",
        "2001:db8::1",
        "-",
        "1.2.3.4-",
        "-1.2.3.4",
        "1.2.3.-",
        "111111111111111",
        "1111111111111111",
        "1.111111111111111111",
        "01.2.3.4",
        "1.2.3.00",
    ]
    .map(str::to_owned)
    .into();
    check_all(&borrowed(&fields));
}

#[test]
fn what_follows_an_address_never_makes_a_wrong_one_right() {
    // The same line again and again, so that rows fill a register; what comes behind varies.
    for behind in ["0", "00", "1.2.3.4", "0.0.0.0", "00.0.0.0", "5", "-"] {
        for addr in ["1.2.3.4", "01.2.3.4", "1.2.3.04", "10.20.30.40", "255.255.255.255", "1.2.3"] {
            let mut text = PADDING.to_owned();
            for _ in 0..16 {
                writeln!(text, "{addr} {behind}").unwrap();
            }
            let end = text.len();
            text.push_str(PADDING);
            for isa in Isa::available() {
                let mut scratch = Vec::new();
                let mut splitter =
                    Splitter::new(isa, text.as_bytes(), PADDING.len()..end, &mut scratch);
                let rows = splitter.rows(2, ROWS_MAX);
                let mut values = vec![0; ROWS_MAX];
                let judged = rows.ipv4(0, Some(&mut values));
                for row in (0..rows.count()).filter(|row| judged.unfit >> row & 1 == 0) {
                    let parsed: std::net::Ipv4Addr = addr.parse().expect("it was taken");
                    assert_eq!(values[row], parsed.to_ipv6_mapped().to_bits());
                }
            }
        }
    }
}

#[test]
fn any_number_of_rows() {
    for count in 1..=ROWS_MAX + 9 {
        let fields: Vec<String> = (0..count).map(|index| (index * 37).to_string()).collect();
        check_numbers::<u64>(&borrowed(&fields));
        let fields: Vec<String> = (0..count).map(|index| format!("10.0.{index}.1")).collect();
        check_ipv4(&borrowed(&fields));
    }
}

#[cfg(all(unix, not(miri)))]
#[test]
fn nothing_behind_the_text_is_read() {
    let mut page = super::tests::EndOfMemory::new();
    let lines = "1767225678 10.0.0.1 1\n".repeat(40);
    for extra in 0..40 {
        let text = page.with_end(&lines.as_bytes()[extra..]);
        let start = lines.len() - 22 * 38 - extra;
        for isa in Isa::available() {
            let mut scratch = Vec::new();
            let mut splitter = Splitter::new(isa, text, start..text.len(), &mut scratch);
            while !splitter.is_at_end() {
                let rows = splitter.rows(3, ROWS_MAX);
                let _ = rows.ten_digits(0, None);
                let _ = rows.ipv4(1, None);
                let _ = rows.numbers::<u16>(2, None);
                let count = rows.count();
                splitter.skip_rows(3, count);
                if count == 0 {
                    splitter.next_line();
                }
            }
        }
    }
}

/// Fields as flow logs have them, and things that come near.
fn any_field() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[0-9]{1,12}".prop_map(String::into_bytes),
        "[0-9]{1,3}(\\.[0-9]{1,3}){2,4}".prop_map(String::into_bytes),
        "-|OK|NODATA|SKIPDATA|ACCEPT|x".prop_map(String::into_bytes),
        "[0-9.:-]{1,18}".prop_map(String::into_bytes),
        "[0-9a-fA-F:]{1,40}".prop_map(String::into_bytes),
        "([0-9a-f]{1,4}:){1,7}(:[0-9a-f]{1,4}){0,4}[0-9a-f]{0,4}".prop_map(String::into_bytes),
        prop::collection::vec(
            any::<u8>().prop_filter("no separator", |byte| !matches!(byte, b' ' | b'\n')),
            1..20
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

    #[test]
    fn any_fields(fields in prop::collection::vec(any_field(), 1..150)) {
        check_all(&fields.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }

    #[test]
    fn a_splitter_goes_through_any_text_once(
        text in "[a \n]{0,200}(\n)", from in 0_usize..40, field_count in 1_usize..5,
        with_rows in any::<bool>(),
    ) {
        let text = text.as_bytes();
        let from = from.min(text.len());
        for isa in Isa::available() {
            let mut scratch = Vec::new();
            let mut splitter = Splitter::new(isa, text, from..text.len(), &mut scratch);
            let mut lines: Vec<&[u8]> = Vec::new();
            while !splitter.is_at_end() {
                let rows = splitter.rows(field_count, ROWS_MAX);
                let count = if with_rows { rows.count() } else { 0 };
                for row in 0..count {
                    let fields: Vec<&[u8]> =
                        (0..field_count).map(|column| rows.field(row, column)).collect();
                    let line_start = rows.bounds(row, 0).0;
                    let line_end = rows.bounds(row, field_count - 1).1;
                    prop_assert_eq!(fields.join(&b' '), &text[line_start..line_end]);
                    prop_assert!(rows.may_have_empty_fields() || fields.iter().all(|f| !f.is_empty()));
                    lines.push(&text[line_start..line_end]);
                }
                splitter.skip_rows(field_count, count);
                if count == 0 {
                    let line = splitter.next_line().expect("not at the end");
                    lines.push(&text[line]);
                }
            }
            let expected: Vec<&[u8]> =
                text[from..].strip_suffix(b"\n").map_or_else(Vec::new, |inside| {
                    inside.split(|byte| *byte == b'\n').collect()
                });
            prop_assert_eq!(lines, expected);
        }
    }
}
