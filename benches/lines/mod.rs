//! Flow log lines for the benches: versions 2 and 5, the same from the same seed.
//!
//! The mix is that of an ordinary day: 94 % IPv4, 5 % IPv6, 1 % windows without data. It is written out
//! here, so that a change of the program's generator does not move the figures.

use std::fmt::Write;

/// Ports of services that are asked often.
const SERVICES: [u16; 8] = [443, 22, 53, 3_389, 8_080, 80, 123, 50_051];

/// Whole lines, `bytes_min` bytes or a line more.
pub(crate) fn version_2(bytes_min: usize) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut text = String::with_capacity(bytes_min + 256);
    while text.len() < bytes_min {
        push_line(&mut text, &mut random);
    }
    text.into_bytes()
}

/// The 29 fields of versions 2 to 5 in the order of AWS's table, `bytes_min` bytes or a line more.
#[expect(clippy::allow_attributes, reason = "not every bench asks for both versions")]
#[allow(dead_code)]
pub(crate) fn version_5(bytes_min: usize) -> Vec<u8> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut text = String::with_capacity(bytes_min + 512);
    while text.len() < bytes_min {
        push_line(&mut text, &mut random);
        let line_end = text.pop();
        assert_eq!(line_end, Some('\n'), "lines end in LF");
        let start = text.rfind('\n').map_or(0, |end| end + 1);
        let fields: Vec<String> = text[start..].split(' ').map(str::to_owned).collect();
        let (source, target) = (&fields[3], &fields[4]);
        let kind = if source.contains(':') { "IPv6" } else { "IPv4" };
        let (place, number) = (random.below(16), random.below(1 << 16) * 0x9e37_79b9);
        let flags = ["-", "2", "3", "18", "19", "0"][random.index(6)];
        let (direction, path) = [("ingress", "-"), ("egress", "8")][random.index(2)];
        writeln!(
            text,
            " vpc-0{place:016x} subnet-0{place:016x} i-{number:017x} {flags} {kind} {source} {target} \
             eu-central-1 euc1-az2 - - - AMAZON {direction} {path}"
        )
        .expect("a String takes all");
    }
    text.into_bytes()
}

fn push_line(text: &mut String, random: &mut Random) {
    let start = 1_767_225_600 + random.below(86_400);
    let end = start + 60;
    let interface = random.below(1 << 16) * 0x9e37_79b9;
    write!(text, "2 123456789012 eni-{interface:017x} ").expect("a String takes all");
    let kind = random.below(100);
    if kind == 0 {
        writeln!(text, "- - - - - - - {start} {end} - NODATA").expect("a String takes all");
        return;
    }
    if kind < 6 {
        let (source, host) = (random.below(1 << 16), random.below(1 << 12));
        write!(text, "2001:db8:{source:x}:12::{host:x} 2600:1f18:1234:ab00:{host:x}::{source:x} ")
    } else {
        let (source, host) = (random.below(1 << 32), random.below(1 << 16));
        let [a, b, c, d] = u32::try_from(source).expect("below 2^32").to_be_bytes();
        write!(text, "{a}.{b}.{c}.{d} 10.0.{}.{} ", host >> 8, host & 255)
    }
    .expect("a String takes all");
    let service = SERVICES[random.index(SERVICES.len())];
    let client = 1_024 + random.below(64_512);
    let protocol = if random.below(8) == 0 { 17 } else { 6 };
    let packets_bits = random.below(12);
    let packets = 1 + random.below(1 << packets_bits);
    let bytes = packets * (40 + random.below(1_460));
    let action = if random.below(10) == 0 { "REJECT" } else { "ACCEPT" };
    writeln!(text, "{client} {service} {protocol} {packets} {bytes} {start} {end} {action} OK")
        .expect("a String takes all");
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }
}
