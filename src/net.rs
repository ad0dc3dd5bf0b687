//! Network addresses as flow logs hold them: one 128-bit number for both families, and prefixes.
//!
//! The parser makes [`Addr`]s, the tables hash them, detectors ask which side is inside, and whether an
//! address is in an [`AddressSet`] of millions. What an address means belongs to `enrich`.

mod address_set;

pub use address_set::{Added, AddressSet, AddressSetBuilder, Listed};

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const V4_MAPPED: u128 = 0xffff_0000_0000;

/// An IPv4 or IPv6 address as one number.
///
/// IPv4 sits in the IPv4-mapped range `::ffff:0:0/96` (RFC 4291 §2.5.5.2), so that an IPv4-mapped
/// IPv6 text and its IPv4 text are the same host.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Addr(u128);

impl Addr {
    /// The IPv4 address with these 32 bits, most significant octet first.
    #[must_use]
    pub const fn v4(bits: u32) -> Self {
        Self(V4_MAPPED | bits as u128)
    }

    /// The address with these 128 bits.
    #[must_use]
    pub const fn v6(bits: u128) -> Self {
        Self(bits)
    }

    /// The 128 bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// The 32 bits, if this is an IPv4 address.
    #[must_use]
    pub const fn as_v4(self) -> Option<u32> {
        if self.0 >> 32 == V4_MAPPED >> 32 { Some((self.0 & 0xffff_ffff) as u32) } else { None }
    }

    /// Whether the address is outside every range that is never routed on the internet: private
    /// (RFC 1918, RFC 4193), shared (RFC 6598), loopback, link-local, multicast and unspecified.
    #[must_use]
    pub fn is_public(self) -> bool {
        match self.to_ip() {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                !(ip.is_private()
                    || ip.is_loopback()
                    || ip.is_link_local()
                    || ip.is_multicast()
                    || ip.is_broadcast()
                    || a == 0
                    || (a == 100 && (64..128).contains(&b)))
            }
            IpAddr::V6(ip) => {
                !(ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_unique_local()
                    || ip.is_unicast_link_local())
            }
        }
    }

    /// The address as the standard library's type.
    #[must_use]
    pub fn to_ip(self) -> IpAddr {
        match self.as_v4() {
            Some(bits) => IpAddr::V4(Ipv4Addr::from_bits(bits)),
            None => IpAddr::V6(Ipv6Addr::from_bits(self.0)),
        }
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::v4(ip.to_bits()),
            IpAddr::V6(ip) => Self::v6(ip.to_bits()),
        }
    }
}

impl FromStr for Addr {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<IpAddr>().map(Self::from)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.to_ip().fmt(f)
    }
}

/// What is wrong with the text of a [`Prefix`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The part before `/` is not an address.
    #[error(
        "`{0}` is not an IP address or CIDR block; write it as `10.0.0.0/8` or `2001:db8::/32`"
    )]
    Address(String),
    /// The part after `/` is not a length of that family.
    #[error(
        "`{0}` has no prefix length that fits its family; use 0 to 32 for IPv4, 0 to 128 for IPv6"
    )]
    Length(String),
}

/// A block of addresses in CIDR form; a plain address is a block of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    bits: u128,
    length: u8,
}

impl Prefix {
    /// Whether the block holds `addr`.
    #[must_use]
    pub const fn contains(&self, addr: Addr) -> bool {
        (addr.0 ^ self.bits) & mask(self.length) == 0
    }

    /// The block of the addresses that share the first `length` of 128 bits with `addr`.
    ///
    /// # Panics
    /// If `length` is over 128.
    #[must_use]
    pub const fn of(addr: Addr, length: u8) -> Self {
        assert!(length <= 128, "an address has 128 bits");
        Self { bits: addr.0 & mask(length), length }
    }

    /// The lowest address of the block.
    #[must_use]
    pub const fn first(&self) -> Addr {
        Addr(self.bits)
    }

    /// How many of an address's 128 bits are fixed; 96 more than a CIDR text says for IPv4.
    #[must_use]
    pub const fn length(&self) -> u8 {
        self.length
    }

    /// The first IPv4 address and how many of its 32 bits are fixed, if this is a block of IPv4.
    #[must_use]
    pub const fn as_v4(&self) -> Option<(u32, u8)> {
        match self.first().as_v4() {
            Some(first) if self.length >= 96 => Some((first, self.length - 96)),
            _ => None,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first();
        match (self.length, self.as_v4()) {
            (128, _) => first.fmt(f),
            (_, Some((_, length))) => write!(f, "{first}/{length}"),
            // The mapped range itself has to be told from the IPv4 addresses in it.
            (length, None) => write!(f, "{}/{length}", Ipv6Addr::from_bits(first.bits())),
        }
    }
}

const fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - length as u32) }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let ip: IpAddr = address.parse().map_err(|_| PrefixError::Address(text.to_owned()))?;
        let family_bits = if ip.is_ipv4() { 32 } else { 128 };
        let length: u8 = match length {
            None => family_bits,
            Some(digits) => digits
                .parse()
                .ok()
                .filter(|length| *length <= family_bits)
                .ok_or_else(|| PrefixError::Length(text.to_owned()))?,
        };
        let length = length + (128 - family_bits);
        Ok(Self { bits: Addr::from(ip).0 & mask(length), length })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(text: &str) -> Addr {
        text.parse().unwrap()
    }

    #[test]
    fn families_share_one_number_line() {
        assert_eq!(addr("::ffff:10.0.0.1"), addr("10.0.0.1"));
        assert_eq!(addr("10.0.0.1").to_string(), "10.0.0.1");
        assert_eq!(addr("2001:DB8:0::1").to_string(), "2001:db8::1");
        assert_eq!(addr("10.0.0.1").as_v4(), Some(0x0a00_0001));
        assert_eq!(addr("2001:db8::1").as_v4(), None);
    }

    #[test]
    fn prefixes_contain_their_block_only() {
        let check = |prefix: &str, inside: &str, expected: bool| {
            assert_eq!(prefix.parse::<Prefix>().unwrap().contains(addr(inside)), expected);
        };
        check("10.20.0.0/16", "10.20.255.1", true);
        check("10.20.0.0/16", "10.21.0.0", false);
        check("0.0.0.0/0", "203.0.113.1", true);
        check("0.0.0.0/0", "2001:db8::1", false);
        check("::/0", "203.0.113.1", true);
        check("203.0.113.9", "203.0.113.9", true);
        check("203.0.113.9", "203.0.113.8", false);
        check("2001:db8::/32", "2001:db8:1::", true);
    }

    #[test]
    fn faulty_prefixes_say_what_to_write() {
        assert_eq!("10.0.0/8".parse::<Prefix>(), Err(PrefixError::Address("10.0.0/8".into())));
        assert_eq!("10.0.0.0/33".parse::<Prefix>(), Err(PrefixError::Length("10.0.0.0/33".into())));
    }

    #[test]
    fn prefixes_are_written_as_they_are_read() {
        for text in
            ["10.0.0.0/8", "0.0.0.0/0", "203.0.113.9", "2001:db8::/32", "2001:db8::1", "::/0"]
        {
            assert_eq!(text.parse::<Prefix>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn public_means_routed_on_the_internet() {
        for (text, public) in [
            ("8.8.8.8", true),
            ("10.1.1.1", false),
            ("100.64.0.1", false),
            ("169.254.169.254", false),
            ("224.0.0.1", false),
            ("2600::1", true),
            ("fd00::1", false),
        ] {
            assert_eq!(addr(text).is_public(), public, "{text}");
        }
    }
}
