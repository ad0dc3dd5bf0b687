//! Sets of ten million listed addresses: what it costs to see that an address is not among them, to find one
//! that is, to read a list and to build the set.
//!
//! `uniform` are addresses at random, the worst that a list can be; `clustered` are those of a twentieth of
//! all /24, as lists of infected hosts are. The memory of each is printed first.
#![expect(clippy::print_stdout, reason = "the memory of the sets")]

use std::fmt::Write as _;
use std::sync::OnceLock;

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use flowgauge::enrich::read_threat_list;
use flowgauge::net::{Addr, AddressSet, AddressSetBuilder, Prefix};

const ENTRIES: usize = 10_000_000;

/// Addresses that are looked for.
const PROBES: usize = 1 << 16;

/// How many contacts a detector sees at once.
const AT_ONCE: usize = 64;

fn main() {
    for make in [Make::Uniform, Make::Clustered, Make::V6] {
        let set = make.set();
        let bytes = set.bytes() as f64 / set.len() as f64;
        println!("{make:?}: {} entries, {} bytes, {bytes:.1} an entry", set.len(), set.bytes());
    }
    divan::main();
}

#[derive(Clone, Copy, Debug)]
enum Make {
    Uniform,
    Clustered,
    V6,
}

impl Make {
    fn entries(self) -> impl Iterator<Item = Prefix> {
        let mut numbers = Numbers(7);
        (0..ENTRIES).map(move |_| Prefix::of(self.entry(&mut numbers), 128))
    }

    fn entry(self, numbers: &mut Numbers) -> Addr {
        match self {
            Self::Uniform => Addr::v4(numbers.next()),
            Self::Clustered => {
                let block = u64::from(numbers.next() % (1 << 24) / 20) * 20 % (1 << 24);
                Addr::v4(u32::try_from(block).expect("24 bits") << 8 | numbers.next() >> 24)
            }
            Self::V6 => Addr::v6(0x2001 << 112 | u128::from(numbers.next()) << 64 | 1),
        }
    }

    /// The set, made once.
    fn set(self) -> &'static AddressSet {
        static SETS: [OnceLock<AddressSet>; 3] = [const { OnceLock::new() }; 3];
        SETS[self as usize].get_or_init(|| self.builder().build())
    }

    fn builder(self) -> AddressSetBuilder {
        let mut builder = AddressSetBuilder::new(ENTRIES);
        builder.begin_list("bench");
        for entry in self.entries() {
            builder.add(entry, None);
        }
        builder
    }

    /// Addresses at random, nearly none of which is listed.
    fn unlisted(self) -> Vec<Addr> {
        let mut numbers = Numbers(99);
        let addr = |_| match self {
            Self::Uniform | Self::Clustered => Addr::v4(numbers.next()),
            Self::V6 => Addr::v6(0x2a00 << 112 | u128::from(numbers.next()) << 64 | 1),
        };
        (0..PROBES).map(addr).collect()
    }
}

/// Numbers that look random (Marsaglia's xorshift), the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 32).expect("32 bits")
    }
}

/// One after the other, as a detector asks: all of a batch, then those that may be listed.
fn unlisted(bencher: Bencher<'_, '_>, make: Make) {
    let (set, probes) = (make.set(), make.unlisted());
    let found = probes.iter().filter(|addr| set.contains(**addr)).count();
    assert!(found < PROBES / 50, "{found} are listed");
    bencher.counter(ItemsCount::new(PROBES)).bench_local(|| {
        let mut found = 0;
        for batch in probes.chunks(AT_ONCE) {
            let mut suspects = 0_u64;
            for (bit, addr) in batch.iter().enumerate() {
                suspects |= u64::from(set.may_contain(*addr)) << bit;
            }
            while suspects != 0 {
                let addr = batch[suspects.trailing_zeros() as usize];
                suspects &= suspects - 1;
                found += usize::from(set.contains(addr));
            }
        }
        found
    });
}

#[divan::bench]
fn unlisted_uniform(bencher: Bencher<'_, '_>) {
    unlisted(bencher, Make::Uniform);
}

#[divan::bench]
fn unlisted_clustered(bencher: Bencher<'_, '_>) {
    unlisted(bencher, Make::Clustered);
}

#[divan::bench]
fn unlisted_v6(bencher: Bencher<'_, '_>) {
    unlisted(bencher, Make::V6);
}

/// Own addresses: the same few again and again.
#[divan::bench]
fn own_addresses(bencher: Bencher<'_, '_>) {
    let set = Make::Uniform.set();
    let mut numbers = Numbers(5);
    let probes: Vec<Addr> =
        (0..PROBES).map(|_| Addr::v4(0x0a00_0000 + numbers.next() % 1000)).collect();
    let count = || probes.iter().filter(|addr| set.contains(**addr)).count();
    bencher.counter(ItemsCount::new(PROBES)).bench_local(count);
}

#[divan::bench]
fn listed_uniform(bencher: Bencher<'_, '_>) {
    let set = Make::Uniform.set();
    let probes: Vec<Addr> =
        Make::Uniform.entries().step_by(ENTRIES / PROBES).map(|entry| entry.first()).collect();
    let count = || probes.iter().filter(|addr| set.contains(**addr)).count();
    assert_eq!(count(), probes.len());
    bencher.counter(ItemsCount::new(probes.len())).bench_local(count);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn build_uniform(bencher: Bencher<'_, '_>) {
    let counter = ItemsCount::new(ENTRIES);
    bencher
        .counter(counter)
        .with_inputs(|| Make::Uniform.builder())
        .bench_local_values(AddressSetBuilder::build);
}

/// What the judge does when a reload has put another set in its place.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn drop_uniform(bencher: Bencher<'_, '_>) {
    bencher.with_inputs(|| Make::Uniform.builder().build()).bench_local_values(drop);
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn read_plain(bencher: Bencher<'_, '_>) {
    let mut text = String::new();
    for entry in Make::Uniform.entries().take(ENTRIES / 10) {
        writeln!(text, "{entry}").expect("texts grow");
    }
    bencher.counter(BytesCount::of_str(&text)).bench_local(|| {
        let mut builder = AddressSetBuilder::new(ENTRIES);
        let report = read_threat_list("bench", &mut text.as_bytes(), &mut builder);
        black_box(builder);
        report.expect("it is plain").entries
    });
}
