//! What detectors need to know of the network, as plain values.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::pane::Tried;
use super::protocol_policy::ProtocolPolicy;
use crate::finding::Allowance;
use crate::net::{Addr, AddressSet, Prefix};

/// Why attempts of a source are not judged, as [`Network::exempt_attempts`] says.
pub(super) const EXEMPTIONS: [&str; 2] = ["scanners", "nat_gateways"];

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
    /// Own name servers that answer whoever asks.
    pub resolvers: Vec<Prefix>,
    /// Addresses known to be bad; shared, because there may be millions.
    pub threats: Arc<AddressSet>,
    /// What may be spoken where.
    pub protocols: Arc<ProtocolPolicy>,
    /// What is wanted, and not told.
    pub allowances: Vec<Allowance>,
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

    /// Whether an own name server answers whoever asks.
    #[must_use]
    pub fn is_resolver(&self, addr: Addr) -> bool {
        holds(&self.resolvers, addr)
    }

    /// How many of `tried`, which is in the order of clients, are of exempt actors, and why.
    pub(super) fn exempt_attempts(
        &self,
        tried: &[Tried],
    ) -> impl Iterator<Item = (&'static str, u64)> {
        let lists = [&self.allowlisted, &self.nat_gateways];
        let mut counts = [0; 2];
        if lists.iter().any(|list| !list.is_empty()) {
            for of_client in tried.chunk_by(|one, other| one.client == other.client) {
                if let Some(number) = lists.iter().position(|list| holds(list, of_client[0].client))
                {
                    counts[number] += of_client.len() as u64;
                }
            }
        }
        EXEMPTIONS.into_iter().zip(counts).filter(|(_, count)| *count > 0)
    }
}

fn holds(prefixes: &[Prefix], addr: Addr) -> bool {
    prefixes.iter().any(|prefix| prefix.contains(addr))
}
