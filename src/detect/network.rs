//! What detectors need to know of the network, as plain values.

use std::collections::BTreeMap;

use crate::net::{Addr, Prefix};

/// Whose addresses are whose. The default knows nothing: then every address that isn't public is
/// inside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Own address ranges; none means that every address that isn't public is inside.
    pub inside: Vec<Prefix>,
    /// Sources whose scans are wanted.
    pub allowlisted: Vec<Prefix>,
    /// Addresses behind which many clients hide.
    pub nat_gateways: Vec<Prefix>,
    /// The primary private address of interfaces.
    pub interfaces: BTreeMap<String, Addr>,
}

impl Network {
    /// Whether an address is one of ours.
    #[must_use]
    pub fn is_inside(&self, addr: Addr) -> bool {
        if self.inside.is_empty() { !addr.is_public() } else { holds(&self.inside, addr) }
    }

    /// Whether what an address does must be left unjudged: a wanted scanner, or a gateway whose traffic
    /// is that of many hosts.
    #[must_use]
    pub fn is_exempt_actor(&self, addr: Addr) -> bool {
        holds(&self.allowlisted, addr) || holds(&self.nat_gateways, addr)
    }
}

fn holds(prefixes: &[Prefix], addr: Addr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(addr))
}
