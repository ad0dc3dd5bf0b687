//! Seeded hashes of contact keys.
//!
//! Multiplications of 64 by 64 bits whose halves are folded together, as in wyhash and foldhash: the seed
//! goes into every step, so that keys can't be chosen to collide.

use super::contact::ContactKey;
use super::contact_slot::NarrowKey;

/// Hashes keys; two with the same seed agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyHasher {
    seeds: [u64; 3],
}

impl KeyHasher {
    pub(super) const fn new(seed: u64) -> Self {
        let first = spread(seed ^ 0x9e37_79b9_7f4a_7c15);
        let second = spread(first ^ 0xbf58_476d_1ce4_e5b9);
        Self { seeds: [first, second, spread(second ^ 0x94d0_49bb_1331_11eb)] }
    }

    /// The hash of a key between two IPv4 addresses.
    #[inline]
    pub(super) fn narrow(&self, key: &NarrowKey) -> u64 {
        let ends = u64::from(key.client) << 32 | u64::from(key.server);
        self.finished(folded(ends ^ self.seeds[0], service(key.protocol, key.port) ^ self.seeds[1]))
    }

    /// The hash of any other key.
    #[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
    pub(super) fn wide(&self, key: &ContactKey) -> u64 {
        let mut hash = self.seeds[2] ^ service(key.protocol, key.port);
        for addr in [key.client, key.server] {
            let (high, low) = ((addr.bits() >> 64) as u64, addr.bits() as u64);
            hash = folded(high ^ self.seeds[0] ^ hash, low ^ self.seeds[1]);
        }
        self.finished(hash)
    }

    const fn finished(&self, hash: u64) -> u64 {
        folded(hash ^ self.seeds[2], 0x9e37_79b9_7f4a_7c15)
    }
}

const fn service(protocol: u8, port: u16) -> u64 {
    (protocol as u64) << 16 | port as u64
}

/// Both halves of the product, as one.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
pub(super) const fn folded(one: u64, other: u64) -> u64 {
    let product = one as u128 * other as u128;
    (product as u64) ^ (product >> 64) as u64
}

/// The last step of splitmix64.
pub(super) const fn spread(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}
