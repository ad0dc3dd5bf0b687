//! Seeded hashes of contact keys.

use super::contact::ContactKey;
use super::contact_slot::NarrowKey;
use super::table::Mixer;

/// Hashes keys; two with the same seed agree.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyHasher(Mixer);

impl KeyHasher {
    pub(super) fn new(seed: u64) -> Self {
        Self(Mixer::with_seed(seed))
    }

    /// The hash of a key between two IPv4 addresses.
    #[inline]
    pub(super) const fn narrow(&self, key: &NarrowKey) -> u64 {
        let ends = (key.client as u64) << 32 | key.server as u64;
        self.0.two_words(ends, service(key.protocol, key.port))
    }

    /// The hash of any other key.
    #[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
    pub(super) const fn wide(&self, key: &ContactKey) -> u64 {
        let (client, server) = (key.client.bits(), key.server.bits());
        self.0.five_words(&[
            (client >> 64) as u64,
            client as u64,
            (server >> 64) as u64,
            server as u64,
            service(key.protocol, key.port),
        ])
    }
}

const fn service(protocol: u8, port: u16) -> u64 {
    (protocol as u64) << 16 | port as u64
}
