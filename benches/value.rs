//! How fast field texts become values, for the mix of texts that flow log lines hold.

mod lines;

use std::ops::Range;

use divan::Bencher;
use divan::counter::ItemsCount;
use flowgauge::net::Addr;
use flowgauge::record::value;

/// The bits of a `u64`.
const MASK_64: u128 = u64::MAX as u128;

/// Text that the fields are taken from: about 9,000 records.
const TEXT_BYTES: usize = 1 << 20;

fn main() {
    divan::main();
}

#[divan::bench]
fn counters(bencher: Bencher) {
    let parse = |token: &[u8]| value::number_u64(token).expect("the lines are well formed");
    run(bencher, &Fields::at(&[8, 9]), parse, |text| text.parse().expect("a number"));
}

#[divan::bench]
fn ports(bencher: Bencher) {
    let parse = |token: &[u8]| value::number_u16(token).expect("the lines are well formed").into();
    run(bencher, &Fields::at(&[5, 6]), parse, |text| text.parse().expect("a number"));
}

#[divan::bench]
fn seconds(bencher: Bencher) {
    let parse =
        |token: &[u8]| value::number_i63(token).expect("the lines are well formed").cast_unsigned();
    run(bencher, &Fields::at(&[10, 11]), parse, |text| text.parse().expect("a number"));
}

#[divan::bench]
fn ipv4_addresses(bencher: Bencher) {
    addresses(bencher, &Fields::at(&[3, 4]).having(b'.'));
}

#[divan::bench]
fn ipv6_addresses(bencher: Bencher) {
    addresses(bencher, &Fields::at(&[3, 4]).having(b':'));
}

#[divan::bench]
fn statuses(bencher: Bencher) {
    let parse = |token: &[u8]| value::log_status(token).expect("the lines are well formed") as u64;
    run(bencher, &Fields::at(&[13]), parse, |text| u64::from(text == "NODATA"));
}

fn addresses(bencher: Bencher, fields: &Fields) {
    let fold =
        |addr: Addr| u64::try_from((addr.bits() ^ addr.bits() >> 64) & MASK_64).expect("64 bits");
    let parse = |token: &[u8]| fold(value::addr(token).expect("the lines are well formed"));
    run(bencher, fields, parse, |text| fold(text.parse().expect("an address")));
}

/// Sums `parse` over all fields, and compares the sum with that of `expected`.
fn run(
    bencher: Bencher,
    fields: &Fields,
    parse: impl Fn(&[u8]) -> u64,
    expected: impl Fn(&str) -> u64,
) {
    let sum = || fields.tokens().fold(0u64, |sum, token| sum.wrapping_add(parse(token)));
    let text_of = |token| std::str::from_utf8(token).expect("the lines are ASCII");
    let expected_sum =
        fields.tokens().fold(0u64, |sum, token| sum.wrapping_add(expected(text_of(token))));
    assert_eq!(sum(), expected_sum);
    bencher.counter(ItemsCount::new(fields.places.len())).bench_local(sum);
}

/// Some fields of all lines, without those that are `-`.
struct Fields {
    text: Vec<u8>,
    places: Vec<Range<usize>>,
}

impl Fields {
    fn at(positions: &[usize]) -> Self {
        let text = lines::version_2(TEXT_BYTES);
        let mut places = Vec::new();
        let mut start = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            for (position, token) in line.split(|byte| matches!(byte, b' ' | b'\n')).enumerate() {
                if positions.contains(&position) && token != b"-" {
                    places.push(start..start + token.len());
                }
                start += token.len() + usize::from(position < 14);
            }
        }
        Self { text, places }
    }

    fn having(mut self, byte: u8) -> Self {
        self.places.retain(|place| self.text[place.clone()].contains(&byte));
        self
    }

    fn tokens(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| &self.text[place.clone()])
    }
}
