//! A line under construction: numbers, addresses and identifiers as flow logs write them.
//!
//! One fixed buffer per generator, so that a record costs no allocation; the standard library's
//! formatting costs several times the rest of a line.

use crate::net::Addr;

/// Longest line: all fields of all formats with their longest values take less than half of it.
const LINE_BYTES_MAX: usize = 8192;

const PAIRS: [[u8; 2]; 100] = decimal_pairs();
const OCTETS: [([u8; 4], usize); 256] = octets();
const HEX: &[u8; 16] = b"0123456789abcdef";

/// The bytes of one line.
#[derive(Clone, Debug)]
pub(super) struct LineText {
    bytes: Box<[u8; LINE_BYTES_MAX]>,
    length: usize,
}

impl LineText {
    pub(super) fn new() -> Self {
        Self { bytes: Box::new([0; LINE_BYTES_MAX]), length: 0 }
    }

    pub(super) const fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    pub(super) fn text(&mut self, text: &[u8]) {
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text);
        self.length += text.len();
    }

    /// Turns the blank after the last field into the line's LF.
    pub(super) fn end_line(&mut self) {
        debug_assert_eq!(self.as_bytes().last(), Some(&b' '));
        self.bytes[self.length - 1] = b'\n';
    }

    /// Decimal digits.
    pub(super) fn number(&mut self, value: u64) {
        let digits = value.checked_ilog10().unwrap_or(0) as usize + 1;
        let place = &mut self.bytes[self.length..self.length + digits];
        let (mut rest, mut at) = (value, digits);
        while rest >= 100 {
            at -= 2;
            place[at..at + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
            rest /= 100;
        }
        let last = PAIRS[(rest % 100) as usize];
        place[..at].copy_from_slice(&last[2 - at..]);
        self.length += digits;
    }

    /// Unix seconds; the settings keep them from being negative.
    pub(super) fn seconds(&mut self, value: i64) {
        self.number(u64::try_from(value).expect("generated moments are after 1970"));
    }

    /// `prefix`, then a digit 0 and 16 hexadecimal digits: the form of AWS's long identifiers.
    pub(super) fn identifier(&mut self, prefix: &[u8], number: u64) {
        self.text(prefix);
        self.byte(b'0');
        self.hex16(number);
    }

    /// 16 hexadecimal digits.
    pub(super) fn hex16(&mut self, number: u64) {
        let mut digits = [0; 16];
        for (index, byte) in number.to_be_bytes().into_iter().enumerate() {
            digits[2 * index] = HEX[usize::from(byte >> 4)];
            digits[2 * index + 1] = HEX[usize::from(byte & 15)];
        }
        self.text(&digits);
    }

    pub(super) fn addr(&mut self, addr: Addr) {
        match addr.as_v4() {
            Some(bits) => self.v4(bits),
            None => self.v6(addr.bits()),
        }
    }

    fn v4(&mut self, bits: u32) {
        for octet in bits.to_be_bytes() {
            let (text, length) = OCTETS[usize::from(octet)];
            self.bytes[self.length..self.length + 4].copy_from_slice(&text);
            self.length += length;
        }
        // Every octet came with a full stop.
        self.length -= 1;
    }

    /// The recommended text form of RFC 5952: the longest run of zero groups as `::`.
    fn v6(&mut self, bits: u128) {
        let bytes = bits.to_be_bytes();
        let group = |index: usize| u16::from_be_bytes([bytes[2 * index], bytes[2 * index + 1]]);
        let (run_start, run_length) = longest_zero_run(group);
        let mut index = 0;
        let mut separated = true;
        while index < 8 {
            if index == run_start && run_length > 1 {
                self.text(b"::");
                index += run_length;
                separated = true;
                continue;
            }
            if !separated {
                self.byte(b':');
            }
            self.hex_group(group(index));
            separated = false;
            index += 1;
        }
    }

    fn hex_group(&mut self, group: u16) {
        let nibbles = [group >> 12, group >> 8 & 15, group >> 4 & 15, group & 15];
        let leading = nibbles.iter().take(3).take_while(|nibble| **nibble == 0).count();
        for nibble in &nibbles[leading..] {
            self.byte(HEX[usize::from(*nibble)]);
        }
    }
}

/// Start and length of the first longest run of zero groups.
fn longest_zero_run(group: impl Fn(usize) -> u16) -> (usize, usize) {
    let (mut best_start, mut best_length, mut length) = (0, 0, 0);
    for index in 0..8 {
        length = if group(index) == 0 { length + 1 } else { 0 };
        if length > best_length {
            (best_start, best_length) = (index + 1 - length, length);
        }
    }
    (best_start, best_length)
}

#[expect(clippy::cast_possible_truncation, reason = "digits of numbers below 100")]
const fn decimal_pairs() -> [[u8; 2]; 100] {
    let mut pairs = [[0; 2]; 100];
    let mut value = 0;
    while value < 100 {
        pairs[value] = [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8];
        value += 1;
    }
    pairs
}

/// Each octet as digits with a full stop after them, and how many bytes that is.
#[expect(clippy::cast_possible_truncation, reason = "digits of numbers below 256")]
const fn octets() -> [([u8; 4], usize); 256] {
    let mut table = [([0; 4], 0); 256];
    let mut value = 0;
    while value < 256 {
        let (hundreds, tens, ones) =
            (b'0' + (value / 100) as u8, b'0' + (value / 10 % 10) as u8, b'0' + (value % 10) as u8);
        table[value] = match value {
            0..10 => ([ones, b'.', 0, 0], 2),
            10..100 => ([tens, ones, b'.', 0], 3),
            _ => ([hundreds, tens, ones, b'.'], 4),
        };
        value += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::super::random::Random;
    use super::*;

    fn check(write: impl Fn(&mut LineText), expected: &str) {
        let mut line = LineText::new();
        write(&mut line);
        assert_eq!(std::str::from_utf8(line.as_bytes()).unwrap(), expected);
    }

    #[test]
    fn numbers_are_decimal() {
        for value in [0, 7, 10, 42, 99, 100, 101, 999, 1_000, 65_535, 1_767_225_600, u64::MAX] {
            check(|line| line.number(value), &value.to_string());
        }
        check(|line| line.seconds(1_767_225_600), "1767225600");
    }

    #[test]
    fn addresses_are_what_the_library_writes() {
        let mut random = Random::new(3);
        for round in 0..2_000 {
            let bits = u32::try_from(random.bits() >> 32).unwrap();
            check(|line| line.addr(Addr::v4(bits)), &Ipv4Addr::from_bits(bits).to_string());
            let mut wide = (u128::from(random.bits()) << 64) | u128::from(random.bits());
            // Zero groups at random places, so that every run is met.
            for group in 0..8 {
                if random.one_in(1 + round % 4) {
                    wide &= !(0xffff << (16 * group));
                }
            }
            // The library writes the two embedded forms of IPv4 in dotted form.
            if wide >> 32 != 0 && wide >> 32 != 0xffff {
                check(|line| line.addr(Addr::v6(wide)), &Ipv6Addr::from_bits(wide).to_string());
            }
        }
    }

    #[test]
    fn identifiers_have_seventeen_digits() {
        check(|line| line.identifier(b"vpc-", 0xabc), "vpc-00000000000000abc");
    }
}
