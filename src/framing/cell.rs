//! Values of structured records (JSON rows, Parquet) written as the text that a flow log line has.
//!
//! A line's fields are separated by blanks and a lone `-` means no value, so both need care.

use std::io::Write;

use crate::record::FieldId;

/// Writes the sign for no value.
pub(super) fn write_missing(line: &mut Vec<u8>) {
    line.push(b'-');
}

/// Writes text. Nothing, `None` and `null`, which exports write for a missing value, become `-`; a byte
/// that would end the field is percent-encoded, as AWS does it in tag fields.
pub(super) fn write_text(line: &mut Vec<u8>, text: &[u8]) {
    if text.is_empty() || text == b"None" || text == b"null" {
        return write_missing(line);
    }
    for &byte in text {
        if byte <= b' ' || byte == 0x7F {
            write!(line, "%{byte:02X}").expect("a Vec takes everything");
        } else {
            line.push(byte);
        }
    }
}

/// Writes a whole number; an account is padded to its 12 digits.
pub(super) fn write_integer(line: &mut Vec<u8>, is_account: bool, value: i128) {
    if is_account && value >= 0 {
        write!(line, "{value:012}").expect("a Vec takes everything");
    } else {
        write!(line, "{value}").expect("a Vec takes everything");
    }
}

/// Writes a number that came as floating point: an integral one as the integer that it stands for,
/// any other as it is, which no field of AWS's takes.
pub(super) fn write_float(line: &mut Vec<u8>, is_account: bool, value: f64) {
    const EXACT_MAX: f64 = 1e18;
    if value.is_nan() {
        write_missing(line);
    } else if value.fract() == 0.0 && value.abs() < EXACT_MAX {
        #[expect(clippy::cast_possible_truncation, reason = "integral and within 1e18")]
        let value = value as i64;
        write_integer(line, is_account, value.into());
    } else {
        write!(line, "{value}").expect("a Vec takes everything");
    }
}

/// Whether the field holds an account id, which loses its leading zeros when it is stored as a number.
pub(super) const fn is_account(field: FieldId) -> bool {
    matches!(field, FieldId::AccountId | FieldId::TgwSrcVpcAccountId | FieldId::TgwDstVpcAccountId)
}

/// The header name for a column or member: `_` counts as `-`. `None` if no field is named so, or if it is
/// a partition of the delivery folders rather than a field.
pub(super) fn header_name(column: &str) -> Option<String> {
    const PARTITIONS: [&str; 7] =
        ["aws-account-id", "aws-service", "aws-region", "year", "month", "day", "hour"];
    let name = column.replace('_', "-");
    let mut bytes = name.bytes();
    let well_formed = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    (well_formed && !PARTITIONS.contains(&name.as_str())).then_some(name)
}

/// Whether these are the fields of a flow log: words such as `region` and `version` alone are not.
pub(super) fn are_flow_log_fields(mut names: impl Iterator<Item = Option<FieldId>>) -> bool {
    names.any(|field| {
        matches!(
            field,
            Some(
                FieldId::SrcAddr
                    | FieldId::DstAddr
                    | FieldId::PktSrcAddr
                    | FieldId::PktDstAddr
                    | FieldId::InterfaceId
                    | FieldId::TgwAttachmentId
                    | FieldId::LogStatus
            )
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn text_never_breaks_the_line() {
        let check = |text: &str, expected: &str| {
            assert_eq!(written(|line| write_text(line, text.as_bytes())), expected);
        };
        check("eni-1", "eni-1");
        check("", "-");
        check("None", "-");
        check("null", "-");
        check("-", "-");
        check("a b\n", "a%20b%0A");
        check("naïve", "naïve");
    }

    #[test]
    fn numbers_are_those_of_the_line() {
        assert_eq!(written(|line| write_integer(line, true, 12_345_678_910)), "012345678910");
        assert_eq!(written(|line| write_integer(line, false, -1)), "-1");
        assert_eq!(written(|line| write_float(line, false, 25238.0)), "25238");
        assert_eq!(written(|line| write_float(line, false, 0.5)), "0.5");
        assert_eq!(written(|line| write_float(line, false, f64::NAN)), "-");
        assert_eq!(written(|line| write_float(line, true, 42.0)), "000000000042");
    }

    #[test]
    fn names_are_brought_to_header_form() {
        assert_eq!(header_name("account_id").as_deref(), Some("account-id"));
        assert_eq!(header_name("brand_new").as_deref(), Some("brand-new"));
        for other in ["", "@timestamp", "Year", "year", "aws_region", "x_", "a.b"] {
            assert_eq!(header_name(other), None, "{other}");
        }
    }
}
