//! Stable identities of findings.

use std::fmt;

use sha2::{Digest, Sha256};

use super::FindingKind;
use crate::net::Addr;
use crate::units::UnixSeconds;

/// 128 bits that are the same whenever the same thing is found again, and differ otherwise.
///
/// The first half of SHA-256 over kind, actors, targets, ports and the start of the episode, each with
/// its length before it, so that no two lists of parts collide by concatenation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FindingId([u8; 16]);

impl FindingId {
    /// The identity of an episode of `kind` that began at `episode_start`.
    #[must_use]
    pub fn new(
        kind: FindingKind,
        actors: &[Addr],
        targets: &[Addr],
        ports: &[u16],
        episode_start: UnixSeconds,
    ) -> Self {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(kind.name().as_bytes());
        for list in [actors, targets] {
            let bytes: Vec<u8> = list.iter().flat_map(|addr| addr.bits().to_be_bytes()).collect();
            part(&bytes);
        }
        let port_bytes: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
        part(&port_bytes);
        part(&episode_start.0.to_be_bytes());
        let digest = hash.finalize();
        Self(digest[..16].try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The identity of an episode of `kind` and `variant` about these interfaces.
    #[must_use]
    pub fn of_interfaces(
        kind: FindingKind,
        variant: &str,
        interface_ids: &[&str],
        episode_start: UnixSeconds,
    ) -> Self {
        let mut hash = Sha256::new();
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        part(kind.name().as_bytes());
        part(variant.as_bytes());
        interface_ids.iter().for_each(|name| part(name.as_bytes()));
        part(&episode_start.0.to_be_bytes());
        let digest = hash.finalize();
        Self(digest[..16].try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The identity that was written as `text`: 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self::from_bits)
    }

    /// Its 128 bits, for snapshots.
    #[must_use]
    pub const fn bits(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// The identity of these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits.to_be_bytes())
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        let [a, b] = [1, 2].map(Addr::v4);
        let id = |actors: &[Addr], targets: &[Addr]| {
            FindingId::new(FindingKind::PortScan, actors, targets, &[], UnixSeconds(0))
        };
        assert_eq!(id(&[a], &[b]), id(&[a], &[b]));
        assert_ne!(id(&[a, b], &[]), id(&[a], &[b]));
        let text = id(&[a], &[b]).to_string();
        assert_eq!(FindingId::from_text(&text), Some(id(&[a], &[b])));
        for other in
            ["", &text[1..], &text.replace(|_| true, "A"), "+0000000000000000000000000000000"]
        {
            assert_eq!(FindingId::from_text(other), None, "{other}");
        }
    }
}
