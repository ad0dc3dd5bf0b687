//! One field's text to its value: numbers, addresses, actions and statuses.
//!
//! The parser calls these with the bytes between two separators, after it has set `-` (no value)
//! aside. They are pure, allocate nothing and never panic. Which field holds what is not known
//! here: that is `field`'s table.
//!
//! Sketch: a record has 8 numbers and 2 addresses. Digits are taken eight at a time through one `u64`,
//! because a branch on each digit is mispredicted about once per field: lengths are random. Octets are
//! read digit by digit all the same: finding dots by word arithmetic took as long (`benches/README.md`).

use std::net::Ipv6Addr;

use super::batch::{Action, LogStatus};
use crate::net::Addr;

/// Why a field's text is not a value of its kind. One byte: faults are counted, not described.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ValueFault {
    /// Something else than decimal digits.
    Number,
    /// Decimal digits of a number that the field cannot hold.
    Range,
    /// Neither an IPv4 nor an IPv6 address.
    Address,
    /// Neither `ACCEPT` nor `REJECT`.
    Action,
    /// None of `OK`, `NODATA` and `SKIPDATA`.
    LogStatus,
}

const _: () = assert!(size_of::<Result<u8, ValueFault>>() == 2);

/// A decimal number of ASCII digits, with any number of leading zeros and no sign.
///
/// # Errors
/// [`ValueFault::Number`] if there is no digit or something else than digits, [`ValueFault::Range`] if
/// the number is 2^64 or more.
pub fn number_u64(token: &[u8]) -> Result<u64, ValueFault> {
    match token.len() {
        1..=8 => eight_digits(token),
        9..=16 => sixteen_digits(token),
        _ => long_number(token),
    }
}

/// A port: a number up to 65,535.
///
/// # Errors
/// Those of [`number_u64`], with the field's own range.
pub fn number_u16(token: &[u8]) -> Result<u16, ValueFault> {
    u16::try_from(number_u64(token)?).map_err(|_| ValueFault::Range)
}

/// A protocol: a number up to 255.
///
/// # Errors
/// Those of [`number_u64`], with the field's own range.
pub fn number_u8(token: &[u8]) -> Result<u8, ValueFault> {
    u8::try_from(number_u64(token)?).map_err(|_| ValueFault::Range)
}

/// A number that fits a signed 32-bit integer: up to 2^31 - 1.
///
/// # Errors
/// Those of [`number_u64`], with the field's own range.
pub fn number_i31(token: &[u8]) -> Result<u32, ValueFault> {
    match u32::try_from(number_u64(token)?) {
        Ok(number) if number <= i32::MAX.cast_unsigned() => Ok(number),
        _ => Err(ValueFault::Range),
    }
}

/// Unix seconds: a number that fits a signed 64-bit integer, up to 2^63 - 1.
///
/// # Errors
/// Those of [`number_u64`], with the field's own range.
pub fn number_i63(token: &[u8]) -> Result<i64, ValueFault> {
    i64::try_from(number_u64(token)?).map_err(|_| ValueFault::Range)
}

/// `0` in every byte.
const ZEROS: u64 = u64::from_le_bytes([b'0'; 8]);

/// The value of 1 to 8 digits.
fn eight_digits(token: &[u8]) -> Result<u64, ValueFault> {
    let word = padded_word(token);
    if is_digits(word) { Ok(digits_value(word)) } else { Err(ValueFault::Number) }
}

/// The value of 9 to 16 digits.
fn sixteen_digits(token: &[u8]) -> Result<u64, ValueFault> {
    let (Some(head), Some(tail)) = (token.first_chunk(), token.last_chunk()) else {
        return Err(ValueFault::Number);
    };
    // The two words overlap, unless there are 16 bytes: the shift drops what the tail has too.
    let missing_bits = 128 - 8 * token.len();
    let head = padding(missing_bits) | u64::from_le_bytes(*head) << missing_bits;
    let tail = u64::from_le_bytes(*tail);
    if is_digits(head) && is_digits(tail) {
        Ok(digits_value(head) * 100_000_000 + digits_value(tail))
    } else {
        Err(ValueFault::Number)
    }
}

/// As many bits of zeros, whole bytes of them but fewer than 8.
const fn padding(missing_bits: usize) -> u64 {
    ZEROS & ((1 << missing_bits) - 1)
}

/// 1 to 8 bytes as a little-endian word, as if zeros stood before them.
fn padded_word(token: &[u8]) -> u64 {
    debug_assert!((1..=8).contains(&token.len()));
    let missing_bits = 64 - 8 * token.len();
    let padding = padding(missing_bits);
    if let (Some(head), Some(tail)) = (token.first_chunk::<4>(), token.last_chunk::<4>()) {
        // The two halves overlap, unless there are 8 bytes, and agree where they do.
        let head = u64::from(u32::from_le_bytes(*head));
        let tail = u64::from(u32::from_le_bytes(*tail));
        return padding | head << missing_bits | tail << 32;
    }
    let byte = |index: usize| u64::from(token[index]) << (missing_bits + 8 * index);
    padding | byte(0) | byte(token.len() / 2) | byte(token.len() - 1)
}

/// Whether every byte of the word is an ASCII digit.
const fn is_digits(word: u64) -> bool {
    const HIGH: u64 = u64::from_le_bytes([0xf0; 8]);
    // `0` to `9` are 0x30 to 0x39: the high half is 3, and stays 3 after adding 6. The addition carries
    // into the next byte only from a byte that fails the first test.
    let plus_six = word.wrapping_add(u64::from_le_bytes([6; 8]));
    (word & HIGH) == ZEROS && (plus_six & HIGH) == ZEROS
}

/// The number that eight ASCII digits write, the first in the lowest byte.
const fn digits_value(word: u64) -> u64 {
    // Neighbours are joined: 8 digits, 4 pairs, 2 groups of four, 1 number.
    let digits = word.wrapping_sub(ZEROS);
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (fours * 10_000 + (fours >> 32)) & 0xffff_ffff
}

/// What [`number_u64`] leaves: no byte at all, or more than 16.
#[cold]
fn long_number(token: &[u8]) -> Result<u64, ValueFault> {
    if token.is_empty() || !token.iter().all(u8::is_ascii_digit) {
        return Err(ValueFault::Number);
    }
    token.iter().try_fold(0u64, |number, digit| {
        number
            .checked_mul(10)
            .and_then(|tens| tens.checked_add(u64::from(digit - b'0')))
            .ok_or(ValueFault::Range)
    })
}

/// An address: IPv4 in four decimal octets without leading zeros, or IPv6 in any form of RFC 4291 §2.2,
/// without a scope.
///
/// # Errors
/// [`ValueFault::Address`] if it is neither.
pub fn addr(token: &[u8]) -> Result<Addr, ValueFault> {
    match ipv4(token) {
        Some(bits) => Ok(Addr::v4(bits)),
        None => ipv6(token).map(Addr::v6).ok_or(ValueFault::Address),
    }
}

/// Groups of an IPv6 address.
const GROUPS: usize = 8;

/// The longest text of an IPv6 address: six groups and a whole IPv4 address.
const IPV6_BYTES_MAX: usize = 45;

/// IPv6 in groups of hexadecimal digits with at most one `::`; the standard library reads the rest.
fn ipv6(token: &[u8]) -> Option<u128> {
    let mut groups = [0u16; GROUPS];
    let mut count = 0;
    let starts_with_gap = token.starts_with(b"::");
    // How many groups stand before `::`.
    let mut gap = starts_with_gap.then_some(0);
    let mut group = 0;
    let mut digit_count = 0;
    for byte in if starts_with_gap { &token[2..] } else { token } {
        if let Some(digit) = char::from(*byte).to_digit(16) {
            group = group << 4 | digit;
            digit_count += 1;
        } else if *byte != b':' {
            return unusual_ipv6(token);
        } else if digit_count > 0 {
            *groups.get_mut(count)? = u16::try_from(group).ok()?;
            count += 1;
            (group, digit_count) = (0, 0);
        } else if gap.is_none() && count > 0 {
            gap = Some(count);
        } else {
            return None;
        }
        if digit_count > 4 {
            return None;
        }
    }
    if digit_count > 0 {
        *groups.get_mut(count)? = u16::try_from(group).ok()?;
        count += 1;
    } else if gap != Some(count) {
        return None;
    }
    match gap {
        None if count == GROUPS => {}
        // A gap stands for one group or more.
        Some(before) if count < GROUPS => groups[before..].rotate_right(GROUPS - count),
        _ => return None,
    }
    Some(Ipv6Addr::from(groups).to_bits())
}

/// An IPv6 address with an IPv4 address in it, or none at all.
#[cold]
fn unusual_ipv6(token: &[u8]) -> Option<u128> {
    if token.len() > IPV6_BYTES_MAX {
        return None;
    }
    std::str::from_utf8(token).ok()?.parse().ok().map(Ipv6Addr::to_bits)
}

fn ipv4(token: &[u8]) -> Option<u32> {
    let mut bits = 0;
    let mut rest = token;
    for dots_left in [true, true, true, false] {
        let (octet, length) = octet(rest)?;
        bits = bits << 8 | octet;
        rest = &rest[length..];
        if dots_left {
            rest = rest.strip_prefix(b".")?;
        }
    }
    rest.is_empty().then_some(bits)
}

fn octet(text: &[u8]) -> Option<(u32, usize)> {
    let digit = |index: usize| {
        let digit = u32::from(text.get(index)?.wrapping_sub(b'0'));
        (digit < 10).then_some(digit)
    };
    let first = digit(0)?;
    match (digit(1), digit(2)) {
        (None, _) => Some((first, 1)),
        _ if first == 0 => None,
        (Some(second), None) => Some((first * 10 + second, 2)),
        (Some(second), Some(third)) => {
            let octet = first * 100 + second * 10 + third;
            (octet <= 255).then_some((octet, 3))
        }
    }
}

/// `ACCEPT` or `REJECT`.
///
/// # Errors
/// [`ValueFault::Action`] for any other text.
pub fn action(token: &[u8]) -> Result<Action, ValueFault> {
    match token {
        b"ACCEPT" => Ok(Action::Accept),
        b"REJECT" => Ok(Action::Reject),
        _ => Err(ValueFault::Action),
    }
}

/// `OK`, `NODATA` or `SKIPDATA`.
///
/// # Errors
/// [`ValueFault::LogStatus`] for any other text.
pub fn log_status(token: &[u8]) -> Result<LogStatus, ValueFault> {
    match token {
        b"OK" => Ok(LogStatus::Ok),
        b"NODATA" => Ok(LogStatus::NoData),
        b"SKIPDATA" => Ok(LogStatus::SkipData),
        _ => Err(ValueFault::LogStatus),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::prelude::*;

    use super::*;

    fn check_number(text: &str, expected: Result<u64, ValueFault>) {
        assert_eq!(number_u64(text.as_bytes()), expected, "{text:?}");
    }

    /// Any of the functions that hold less than a `u64`.
    fn check_range<T>(parse: fn(&[u8]) -> Result<T, ValueFault>, max: u64)
    where
        T: TryFrom<u64> + PartialEq + std::fmt::Debug,
    {
        assert_eq!(parse(b"0").ok(), T::try_from(0).ok());
        assert_eq!(parse(max.to_string().as_bytes()).ok(), T::try_from(max).ok());
        assert_eq!(parse((max + 1).to_string().as_bytes()), Err(ValueFault::Range));
        assert_eq!(parse(u64::MAX.to_string().as_bytes()), Err(ValueFault::Range));
        assert_eq!(parse(b"1x"), Err(ValueFault::Number));
    }

    fn check_addr(text: &[u8]) {
        let parsed = std::str::from_utf8(text).ok().and_then(|text| text.parse::<IpAddr>().ok());
        let expected = parsed.map(Addr::from).ok_or(ValueFault::Address);
        assert_eq!(addr(text), expected, "{}", text.escape_ascii());
    }

    #[test]
    fn numbers_of_every_length_have_their_value() {
        check_number("0", Ok(0));
        for length in 1..=19 {
            let digits = &"1234567890123456789"[..length];
            check_number(digits, Ok(digits.parse().unwrap()));
        }
        check_number("18446744073709551615", Ok(u64::MAX));
        check_number("9999999999999999", Ok(9_999_999_999_999_999));
    }

    #[test]
    fn leading_zeros_change_nothing() {
        for zeros in 0..40 {
            check_number(&format!("{}42", "0".repeat(zeros)), Ok(42));
        }
    }

    #[test]
    fn what_is_not_digits_is_no_number() {
        for text in
            ["", "-", "+5", "-5", "1.5", " 1", "1 ", "1e3", "0x1f", "1_000", "５", "1:", "1/"]
        {
            check_number(text, Err(ValueFault::Number));
        }
        check_number("99999999999999999999999999x", Err(ValueFault::Number));
    }

    #[test]
    fn numbers_beyond_the_type_are_out_of_range() {
        check_number("18446744073709551616", Err(ValueFault::Range));
        check_number("99999999999999999999", Err(ValueFault::Range));
        check_number(&"9".repeat(100), Err(ValueFault::Range));
        check_range(number_u16, 65_535);
        check_range(number_u8, 255);
        check_range(number_i31, 2_147_483_647);
        check_range(number_i63, 9_223_372_036_854_775_807);
    }

    #[test]
    fn every_byte_in_every_place_of_a_number_is_judged() {
        for length in 1..=17 {
            for place in 0..length {
                let mut token = vec![b'5'; length];
                for byte in 0..=u8::MAX {
                    token[place] = byte;
                    let is_number = number_u64(&token).is_ok();
                    assert_eq!(is_number, byte.is_ascii_digit(), "{}", token.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn addresses_are_those_of_the_standard_library() {
        for text in [
            "0.0.0.0",
            "255.255.255.255",
            "10.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "1.2.3.",
            ".1.2.3",
            "1..2.3",
            "256.0.0.1",
            "1.2.3.256",
            "1.2.3.999",
            "01.2.3.4",
            "1.2.3.04",
            "1.2.3.00",
            "1.2.3.4 ",
            " 1.2.3.4",
            "1.2.3.4/32",
            "1.2.3.1000",
            "0x1.2.3.4",
            "::",
            "::1",
            "2001:DB8::1",
            "::ffff:10.0.0.1",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7:8:9",
            "1::2::3",
            "12345::",
            "fe80::1%eth0",
            "[::1]",
            "1:2:3:4:5:6:1.2.3.4",
            "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255",
            "",
            "-",
            "x",
            "localhost",
            "1234567",
            "2001:db8::1::",
            ":1:2:3:4:5:6:7",
            "１.2.3.4",
        ] {
            check_addr(text.as_bytes());
        }
        check_addr(&[0xff; 9]);
        check_addr(&[b'1'; 400]);
    }

    #[test]
    fn every_octet_in_every_place() {
        for place in 0..4 {
            for octet in 0..=1_100 {
                let mut octets = [7, 42, 201, 0];
                octets[place] = octet;
                check_addr(octets.map(|octet| octet.to_string()).join(".").as_bytes());
                check_addr(octets.map(|octet| format!("{octet:02}")).join(".").as_bytes());
            }
        }
    }

    #[test]
    fn words_are_exact() {
        assert_eq!(action(b"ACCEPT"), Ok(Action::Accept));
        assert_eq!(action(b"REJECT"), Ok(Action::Reject));
        assert_eq!(log_status(b"OK"), Ok(LogStatus::Ok));
        assert_eq!(log_status(b"NODATA"), Ok(LogStatus::NoData));
        assert_eq!(log_status(b"SKIPDATA"), Ok(LogStatus::SkipData));
        for other in [b"".as_slice(), b"accept", b"ACCEPT ", b"REJECTED", b"ok", b"O", b"NODATA\0"]
        {
            assert_eq!(action(other), Err(ValueFault::Action));
            assert_eq!(log_status(other), Err(ValueFault::LogStatus));
        }
    }

    /// A byte of an address text, or one that never is.
    fn address_byte() -> impl Strategy<Value = u8> {
        prop::sample::select(b"0123456789.:afAF%-/x \xff".to_vec())
    }

    fn mutated(text: String, edits: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
        let mut bytes = text.into_bytes();
        for (place, byte, how) in edits {
            let place = place.index(bytes.len() + 1);
            match how {
                0 => bytes.insert(place, *byte),
                1 if place < bytes.len() => bytes[place] = *byte,
                _ if place < bytes.len() => drop(bytes.remove(place)),
                _ => {}
            }
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 16 } else { 1024 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn written_numbers_are_read_back(number in any::<u64>(), shift in 0u32..64, width in 0usize..25) {
            let number = number >> shift;
            check_number(&format!("{number:0width$}"), Ok(number));
        }

        #[test]
        fn any_bytes_are_a_number_when_std_says_so(token in "[0-9]{0,22}[-+0-9x:/]{0,2}[0-9]{0,8}") {
            let digits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_digit());
            let expected = match token.parse::<u64>() {
                _ if !digits => Err(ValueFault::Number),
                parsed => parsed.map_err(|_| ValueFault::Range),
            };
            check_number(&token, expected);
        }

        #[test]
        fn ipv4_texts_and_their_neighbours(
            ip in any::<Ipv4Addr>(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), address_byte(), 0u8..3), 0..4),
        ) {
            check_addr(&mutated(ip.to_string(), &edits));
        }

        #[test]
        fn ipv6_texts_and_their_neighbours(
            ip in any::<Ipv6Addr>(),
            kept in any::<u8>(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), address_byte(), 0u8..3), 0..4),
        ) {
            // Groups of zeros make the short forms.
            let mut groups = ip.segments();
            for (index, group) in groups.iter_mut().enumerate() {
                *group = if kept >> index & 1 == 1 { *group >> (index * 2) } else { 0 };
            }
            check_addr(&mutated(Ipv6Addr::from(groups).to_string(), &edits));
        }

        #[test]
        fn address_like_texts(text in prop::collection::vec(address_byte(), 0..48)) {
            check_addr(&text);
        }
    }
}
