//! Millions of addresses and blocks, each of a named list, and the quick answer that one is not among them.
//!
//! ```text
//! IPv4: bitmap of blocks ─no─► not listed         16 bits for each entry, at most 16 MiB: one look
//!                        ─yes─► directory ─► entries of the address's /16, in order: a short search
//! IPv6: bitmap of hashed prefixes ─no─► not listed
//!                                 ─yes─► entries in order
//! ```
//!
//! Entries that lie within others are kept apart and looked at only to say of which lists an address is.
//! An IPv4 entry takes 7 bytes and its bits 2 (less beyond 8 million), an IPv6 entry 19 and 2; building takes 8 and
//! 32 for each entry beside. A set never changes: whoever has new lists builds another one and puts it in
//! its place. Where lists come from, and what an entry means, is `enrich`'s.

use std::ops::Range;

use super::{Addr, Prefix};

/// Bits of a bitmap for each entry: one in sixteen unlisted addresses of a random kind passes it.
const BITS_PER_ENTRY: usize = 16;

/// Powers of two between which the bits of a bitmap lie: 8 KiB to 16 MiB.
const BITMAP_LOG2: Range<u32> = 16..28;

/// An IPv6 prefix is hashed with as many bits at most: a site, of which everything is near.
const HASHED_LENGTH_MAX: u8 = 48;

/// Shortest blocks that are taken, in bits of their family: what covers more is a fault of its list.
const V4_LENGTH_MIN: u8 = 8;
const V6_LENGTH_MIN: u8 = 16;

/// The bits of an address of one family.
trait Bits: Copy + Ord + Default {
    const COUNT: u8;

    /// The first `length` bits; the others are zero.
    fn first(self, length: u8) -> Self;
}

impl Bits for u32 {
    const COUNT: u8 = 32;

    #[inline]
    fn first(self, length: u8) -> Self {
        self & Self::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
    }
}

impl Bits for u128 {
    const COUNT: u8 = 128;

    #[inline]
    fn first(self, length: u8) -> Self {
        self & super::mask(length)
    }
}

/// First address, length in bits of its family, list.
type Entry<B> = (B, u8, u16);

/// Entries of one family; those of the columns do not overlap, and are in order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Blocks<B> {
    starts: Vec<B>,
    lengths: Vec<u8>,
    lists: Vec<u16>,
    /// Entries within one of those, in order.
    covered: Vec<Entry<B>>,
}

impl<B: Bits> Blocks<B> {
    /// Takes entries in order, each once.
    fn of(count: usize, entries: impl Iterator<Item = Entry<B>>) -> Self {
        let mut blocks = Self {
            starts: Vec::with_capacity(count),
            lengths: Vec::with_capacity(count),
            lists: Vec::with_capacity(count),
            covered: Vec::new(),
        };
        for (start, length, list) in entries {
            if let (Some(last), Some(last_length)) = (blocks.starts.last(), blocks.lengths.last())
                && start.first(*last_length) == *last
            {
                blocks.covered.push((start, length, list));
                continue;
            }
            blocks.starts.push(start);
            blocks.lengths.push(length);
            blocks.lists.push(list);
        }
        blocks.starts.shrink_to_fit();
        blocks.lengths.shrink_to_fit();
        blocks.lists.shrink_to_fit();
        blocks.covered.shrink_to_fit();
        blocks
    }

    fn len(&self) -> usize {
        self.starts.len() + self.covered.len()
    }

    fn bytes(&self) -> usize {
        self.starts.capacity() * (size_of::<B>() + size_of::<u8>() + size_of::<u16>())
            + self.covered.capacity() * size_of::<Entry<B>>()
    }

    /// The outermost entry around `addr`, if the last one that starts no later is within or before `among`.
    #[inline]
    fn find(&self, among: Range<usize>, addr: B) -> Option<usize> {
        let before = among.start + self.starts[among].partition_point(|start| *start <= addr);
        let number = before.checked_sub(1)?;
        (addr.first(self.lengths[number]) == self.starts[number]).then_some(number)
    }

    /// All entries around `addr`, the widest first; `outermost` is the number of the first.
    fn around(&self, outermost: usize, addr: B) -> impl Iterator<Item = Entry<B>> {
        let length = self.lengths[outermost];
        let first = (self.starts[outermost], length, self.lists[outermost]);
        let within = (length..=B::COUNT).flat_map(move |length| {
            let wanted = (addr.first(length), length);
            let from = self.covered.partition_point(|entry| (entry.0, entry.1) < wanted);
            let is_wanted = move |entry: &&Entry<B>| (entry.0, entry.1) == wanted;
            self.covered[from..].iter().take_while(is_wanted).copied()
        });
        std::iter::once(first).chain(within)
    }
}

/// Bits, of which there is a power of two.
#[derive(Debug, PartialEq, Eq)]
struct Bitmap {
    words: Vec<u64>,
    log2: u32,
}

impl Bitmap {
    fn for_entries(count: usize) -> Self {
        let wanted = (count * BITS_PER_ENTRY).next_power_of_two().ilog2();
        let log2 = wanted.clamp(BITMAP_LOG2.start, BITMAP_LOG2.end - 1);
        Self { words: vec![0; 1 << (log2 - 6)], log2 }
    }

    #[inline]
    fn get(&self, bit: usize) -> bool {
        self.words[bit >> 6] >> (bit & 63) & 1 == 1
    }

    fn set(&mut self, bit: usize) {
        self.words[bit >> 6] |= 1 << (bit & 63);
    }

    /// The bit of an IPv4 address: its first bits.
    #[inline]
    const fn of_v4(&self, addr: u32) -> usize {
        (addr >> (32 - self.log2)) as usize
    }

    /// The bit of the first `length` bits of an IPv6 address.
    #[inline]
    fn of_v6(&self, addr: u128, length: u8) -> usize {
        let prefix = u64::try_from(addr.first(length) >> 64).expect("64 bits are left");
        let hash = (prefix ^ u64::from(length)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        usize::try_from(hash >> (64 - self.log2)).expect("a bitmap is in memory")
    }
}

/// An entry around an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The address or block as it is listed.
    pub entry: Prefix,
    /// The name of the list.
    pub list: &'a str,
    /// Unix seconds from which on the entry says nothing any more, if the list says so.
    pub valid_until_seconds: Option<i64>,
}

/// The set; see the module. Looking for an address that is in none of the lists takes one or two accesses to
/// memory.
#[derive(Debug, PartialEq, Eq)]
pub struct AddressSet {
    v4: Blocks<u32>,
    /// Where the entries of each /16 begin in `v4`, and where those of the last end.
    v4_directory: Vec<u32>,
    v4_bitmap: Bitmap,
    v6: Blocks<u128>,
    v6_bitmap: Bitmap,
    /// The lengths with which prefixes stand in `v6_bitmap`.
    v6_lengths: Vec<u8>,
    lists: Vec<String>,
    /// By entry and list, in order; entries without an end are not among them.
    ends: Vec<(Prefix, u16, i64)>,
}

impl Default for AddressSet {
    fn default() -> Self {
        AddressSetBuilder::new(0).build()
    }
}

impl AddressSet {
    /// How many entries there are; those of several lists count for each.
    #[must_use]
    pub fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory held, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let words = self.v4_bitmap.words.capacity() + self.v6_bitmap.words.capacity();
        self.v4.bytes()
            + self.v6.bytes()
            + self.v4_directory.capacity() * size_of::<u32>()
            + words * size_of::<u64>()
            + self.ends.capacity() * size_of::<(Prefix, u16, i64)>()
    }

    /// Whether the address may be listed: true for all that are, and for few others.
    ///
    /// Made for many addresses one after the other: no step depends on the one before, so that the
    /// processor waits for the memory of many at once.
    #[must_use]
    #[inline]
    pub fn may_contain(&self, addr: Addr) -> bool {
        match addr.as_v4() {
            Some(addr) => self.v4_bitmap.get(self.v4_bitmap.of_v4(addr)),
            None => self
                .v6_lengths
                .iter()
                .any(|length| self.v6_bitmap.get(self.v6_bitmap.of_v6(addr.bits(), *length))),
        }
    }

    /// Whether the address, or a block around it, is listed. An IPv4 address is never in a block of IPv6.
    #[must_use]
    #[inline]
    pub fn contains(&self, addr: Addr) -> bool {
        self.may_contain(addr) && self.is_in_blocks(addr)
    }

    fn is_in_blocks(&self, addr: Addr) -> bool {
        match addr.as_v4() {
            Some(addr) => self.find_v4(addr).is_some(),
            None => self.v6.find(0..self.v6.starts.len(), addr.bits()).is_some(),
        }
    }

    /// The entries around an address, the widest first.
    #[must_use]
    pub fn listed(&self, addr: Addr) -> Vec<Listed<'_>> {
        let entries: Vec<(Prefix, u16)> = match addr.as_v4() {
            Some(bits) => {
                let around = |number| {
                    let prefix = |(_, length, list)| (Prefix::of(addr, length + 96), list);
                    self.v4.around(number, bits).map(prefix).collect()
                };
                self.find_v4(bits).map(around).unwrap_or_default()
            }
            None => {
                let around = |number| {
                    let prefix = |(_, length, list)| (Prefix::of(addr, length), list);
                    self.v6.around(number, addr.bits()).map(prefix).collect()
                };
                let found = self.v6.find(0..self.v6.starts.len(), addr.bits());
                found.map(around).unwrap_or_default()
            }
        };
        let listed = |(entry, list): (Prefix, u16)| {
            let end = self.ends.binary_search_by_key(&(entry, list), |end| (end.0, end.1)).ok();
            let valid_until_seconds = end.map(|number| self.ends[number].2);
            Listed { entry, list: &self.lists[usize::from(list)], valid_until_seconds }
        };
        entries.into_iter().map(listed).collect()
    }

    fn find_v4(&self, addr: u32) -> Option<usize> {
        let sixteen = (addr >> 16) as usize;
        let among = self.v4_directory[sixteen] as usize..self.v4_directory[sixteen + 1] as usize;
        self.v4.find(among, addr)
    }
}

/// What happened to an entry that a list was to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is part of the set.
    Yes,
    /// It covers more of the internet than any list can mean: IPv4 blocks have at least 8 fixed bits, IPv6
    /// blocks 16.
    TooWide,
    /// There is no room for more entries.
    Full,
}

/// Entries on their way to a set.
#[derive(Debug)]
pub struct AddressSetBuilder {
    /// First address, length and list in one number.
    v4: Vec<u64>,
    v6: Vec<Entry<u128>>,
    lists: Vec<String>,
    ends: Vec<(Prefix, u16, i64)>,
    entries_max: usize,
}

impl AddressSetBuilder {
    /// Room for `entries_max` entries, of which nothing is taken yet.
    #[must_use]
    pub const fn new(entries_max: usize) -> Self {
        Self { v4: Vec::new(), v6: Vec::new(), lists: Vec::new(), ends: Vec::new(), entries_max }
    }

    /// Begins a list; what is added from now on belongs to it. After 65,536 lists, further ones go by the
    /// name of the last.
    pub fn begin_list(&mut self, name: &str) {
        if u16::try_from(self.lists.len()).is_ok() {
            self.lists.push(name.to_owned());
        }
    }

    /// Adds an entry to the list that was begun last. Of several ends of an entry the latest holds.
    ///
    /// # Panics
    /// If no list was begun.
    pub fn add(&mut self, entry: Prefix, valid_until_seconds: Option<i64>) -> Added {
        let list = self.lists.len().checked_sub(1).expect("a list was begun");
        let list = u16::try_from(list).expect("bounded by `begin_list`");
        let is_too_wide = match entry.as_v4() {
            Some((_, length)) => length < V4_LENGTH_MIN,
            None => entry.length() < V6_LENGTH_MIN,
        };
        if is_too_wide {
            return Added::TooWide;
        }
        if self.v4.len() + self.v6.len() >= self.entries_max {
            return Added::Full;
        }
        match entry.as_v4() {
            Some((first, length)) => {
                self.v4.push(u64::from(first) << 32 | u64::from(length) << 16 | u64::from(list));
            }
            None => self.v6.push((entry.first().bits(), entry.length(), list)),
        }
        if let Some(end) = valid_until_seconds {
            self.ends.push((entry, list, end));
        }
        Added::Yes
    }

    /// The set. Takes about a tenth of a second for a million entries.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the parts of a packed number")]
    pub fn build(self) -> AddressSet {
        let Self { mut v4, mut v6, lists, mut ends, entries_max: _ } = self;
        v4.sort_unstable();
        v4.dedup();
        let unpacked = |entry: &u64| ((entry >> 32) as u32, (entry >> 16) as u8, *entry as u16);
        let v4 = Blocks::of(v4.len(), v4.iter().map(unpacked));
        v6.sort_unstable();
        v6.dedup();
        let v6 = Blocks::of(v6.len(), v6.into_iter());
        // The latest end of each entry comes first and stays.
        ends.sort_unstable_by_key(|(entry, list, end)| (*entry, *list, std::cmp::Reverse(*end)));
        ends.dedup_by_key(|(entry, list, _)| (*entry, *list));
        let (v6_bitmap, v6_lengths) = v6_bitmap(&v6);
        AddressSet {
            v4_directory: directory(&v4.starts),
            v4_bitmap: v4_bitmap(&v4),
            v4,
            v6,
            v6_bitmap,
            v6_lengths,
            lists,
            ends,
        }
    }
}

fn directory(starts: &[u32]) -> Vec<u32> {
    let mut directory = vec![0_u32; (1 << 16) + 1];
    for start in starts {
        directory[(start >> 16) as usize + 1] += 1;
    }
    let mut sum = 0;
    for count in &mut directory {
        sum += *count;
        *count = sum;
    }
    directory
}

fn v4_bitmap(blocks: &Blocks<u32>) -> Bitmap {
    let mut bitmap = Bitmap::for_entries(blocks.starts.len());
    for (start, length) in blocks.starts.iter().zip(&blocks.lengths) {
        let last = start | u32::MAX.checked_shr((*length).into()).unwrap_or(0);
        (bitmap.of_v4(*start)..=bitmap.of_v4(last)).for_each(|bit| bitmap.set(bit));
    }
    bitmap
}

fn v6_bitmap(blocks: &Blocks<u128>) -> (Bitmap, Vec<u8>) {
    let mut bitmap = Bitmap::for_entries(blocks.starts.len());
    let mut lengths = Vec::new();
    for (start, length) in blocks.starts.iter().zip(&blocks.lengths) {
        let length = (*length).min(HASHED_LENGTH_MAX);
        bitmap.set(bitmap.of_v6(*start, length));
        if !lengths.contains(&length) {
            lengths.push(length);
        }
    }
    (bitmap, lengths)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn set_of(lists: &[(&str, &[&str])]) -> AddressSet {
        let mut builder = AddressSetBuilder::new(100);
        for (name, entries) in lists {
            builder.begin_list(name);
            for entry in *entries {
                assert_eq!(builder.add(prefix(entry), None), Added::Yes);
            }
        }
        builder.build()
    }

    fn check(set: &AddressSet, addr: &str, expected: &[(&str, &str)]) {
        let addr: Addr = addr.parse().unwrap();
        let listed = set.listed(addr);
        let listed: Vec<_> = listed.iter().map(|one| (one.entry.to_string(), one.list)).collect();
        let listed: Vec<_> = listed.iter().map(|(entry, list)| (entry.as_str(), *list)).collect();
        assert_eq!(listed, expected, "{addr}");
        assert_eq!(set.contains(addr), !expected.is_empty(), "{addr}");
    }

    #[test]
    fn every_list_around_an_address_is_told() {
        let set = set_of(&[
            ("wide", &["198.51.100.0/24", "2001:db8::/32"]),
            ("near", &["198.51.100.7", "198.51.100.0/28", "2001:db8::1", "203.0.113.9"]),
            ("same", &["203.0.113.9"]),
        ]);
        check(
            &set,
            "198.51.100.7",
            &[("198.51.100.0/24", "wide"), ("198.51.100.0/28", "near"), ("198.51.100.7", "near")],
        );
        check(&set, "198.51.100.255", &[("198.51.100.0/24", "wide")]);
        check(&set, "198.51.101.0", &[]);
        check(&set, "203.0.113.9", &[("203.0.113.9", "near"), ("203.0.113.9", "same")]);
        check(&set, "2001:db8::1", &[("2001:db8::/32", "wide"), ("2001:db8::1", "near")]);
        check(&set, "2001:db9::1", &[]);
        assert_eq!(set.len(), 7);
        check(&AddressSet::default(), "10.0.0.1", &[]);
        check(&AddressSet::default(), "::1", &[]);
    }

    #[test]
    fn blocks_that_begin_in_another_directory_entry_are_found() {
        let set = set_of(&[("a", &["12.0.0.0/8", "255.255.255.255", "8.0.0.0"])]);
        check(&set, "12.255.0.1", &[("12.0.0.0/8", "a")]);
        check(&set, "255.255.255.255", &[("255.255.255.255", "a")]);
        check(&set, "8.0.0.0", &[("8.0.0.0", "a")]);
    }

    #[test]
    fn what_is_too_wide_or_too_much_is_left_out() {
        let mut builder = AddressSetBuilder::new(1);
        builder.begin_list("a");
        assert_eq!(builder.add(prefix("0.0.0.0/7"), None), Added::TooWide);
        assert_eq!(builder.add(prefix("::/15"), None), Added::TooWide);
        assert_eq!(builder.add(prefix("1.0.0.0/8"), Some(5)), Added::Yes);
        assert_eq!(builder.add(prefix("2.0.0.0/8"), None), Added::Full);
    }

    #[test]
    fn the_latest_end_holds() {
        let mut builder = AddressSetBuilder::new(9);
        builder.begin_list("a");
        for end in [5, 9, 7] {
            builder.add(prefix("1.2.3.4"), Some(end));
        }
        builder.add(prefix("1.2.3.0/24"), None);
        let set = builder.build();
        let ends: Vec<_> = set
            .listed("1.2.3.4".parse().unwrap())
            .iter()
            .map(|one| one.valid_until_seconds)
            .collect();
        assert_eq!(ends, [None, Some(9)]);
    }

    /// Addresses that are near each other, so that blocks nest and addresses hit.
    fn any_addr() -> impl Strategy<Value = Addr> {
        prop_oneof![
            (0_u32..4, 0_u32..4, 0_u32..600)
                .prop_map(|(a, b, c)| Addr::v4((a + 9) << 24 | b << 16 | c)),
            (0_u128..3, 0_u128..3, 0_u128..300)
                .prop_map(|(a, b, c)| Addr::v6(0x2001 << 112 | a << 96 | b << 80 | c)),
        ]
    }

    fn any_entry() -> impl Strategy<Value = (Prefix, u16)> {
        (any_addr(), 0_u8..=120, 0_u16..4).prop_map(|(addr, shorter, list)| {
            let shortest = if addr.as_v4().is_some() { 96 + V4_LENGTH_MIN } else { V6_LENGTH_MIN };
            // Most are single addresses.
            let length = if shorter > 60 { 128 } else { (128 - shorter).max(shortest) };
            (Prefix::of(addr, length), list)
        })
    }

    proptest! {
        #[test]
        fn a_plain_list_says_the_same(
            entries in prop::collection::vec(any_entry(), 0..200),
            addrs in prop::collection::vec(any_addr(), 0..300),
        ) {
            let mut builder = AddressSetBuilder::new(1000);
            for list in 0..4 {
                builder.begin_list(&list.to_string());
                for (entry, _) in entries.iter().filter(|(_, of)| *of == list) {
                    builder.add(*entry, None);
                }
            }
            let set = builder.build();
            let firsts = entries.iter().map(|(entry, _)| entry.first());
            for addr in addrs.iter().copied().chain(firsts) {
                let around = |(entry, _): &&(Prefix, u16)| {
                    entry.as_v4().is_some() == addr.as_v4().is_some() && entry.contains(addr)
                };
                let mut expected: Vec<(u8, String)> = entries
                    .iter()
                    .filter(around)
                    .map(|(entry, list)| (entry.length(), list.to_string()))
                    .collect();
                expected.sort_unstable();
                expected.dedup();
                let listed = set.listed(addr);
                let listed: Vec<_> =
                    listed.iter().map(|one| (one.entry.length(), one.list.to_owned())).collect();
                prop_assert_eq!(&listed, &expected);
                prop_assert_eq!(set.contains(addr), !expected.is_empty());
                prop_assert!(set.may_contain(addr) || expected.is_empty());
            }
        }
    }
}
