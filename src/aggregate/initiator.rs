//! Who opened a connection, judged from one record alone.
//!
//! Both directions of a connection must come to the same answer, because each arrives in its own
//! record, perhaps at another interface. Evidence in order: TCP flags (SYN without ACK is the client's,
//! SYN-ACK the server's), a REJECT (whoever is refused began), and last the ports (the service port
//! is the server's). The rules and their reasons: Zeek and SiLK infer the same way from flows; flow
//! logs never show an ACK by itself, so a record with flags 0 says nothing.

use crate::record::Action;

/// SYN, as flow logs write it.
pub(crate) const TCP_SYN: u8 = 2;
/// RST, as flow logs write it.
pub(crate) const TCP_RST: u8 = 4;
/// ACK, as flow logs write it: only beside SYN.
pub(super) const TCP_ACK: u8 = 16;

/// Ports above the well-known range and below the ephemeral one that belong to services often enough to decide a tie.
const REGISTERED_SERVICES: [u16; 38] = [
    1080, 1194, 1433, 1521, 1723, 1883, 2049, 2181, 2375, 2376, 3128, 3268, 3306, 3389, 4222, 4789,
    5060, 5432, 5601, 5671, 5672, 5900, 5985, 5986, 6379, 6443, 6881, 7946, 8080, 8443, 9000, 9090,
    9092, 9100, 9200, 9300, 11211, 27017,
];

/// What a record says about its two ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    /// Whether the source's address is not above the destination's.
    pub(super) source_is_lower: bool,
    pub(super) src_port: u16,
    pub(super) dst_port: u16,
    pub(super) action: Action,
    pub(super) tcp_flags: Option<u8>,
}

/// Whether the record's source is the client.
///
/// Where nothing tells the ends apart (ICMP, equal ports) the lower address counts as the client, for
/// both directions: the sides keep what each one sent, and a reader that sees both can do better.
#[inline]
pub(super) fn source_is_client(ends: Ends) -> bool {
    if ends.src_port == 0 && ends.dst_port == 0 {
        return ends.source_is_lower;
    }
    if let Some(flags) = ends.tcp_flags
        && flags & TCP_SYN != 0
    {
        return flags & TCP_ACK == 0;
    }
    let (src_rank, dst_rank) = (port_rank(ends.src_port), port_rank(ends.dst_port));
    if ends.action == Action::Reject {
        // A stateless network ACL refuses replies: those go from a service, of whichever port below the
        // ephemeral ones, to an ephemeral port.
        return !(src_rank < RANK_EPHEMERAL && dst_rank == RANK_EPHEMERAL);
    }
    let order = |rank: u8, port: u16| u32::from(rank) << 17 | u32::from(port) << 1;
    // Equal ports leave it to the addresses.
    let src_order = order(src_rank, ends.src_port) | u32::from(ends.source_is_lower);
    order(dst_rank, ends.dst_port) < src_order
}

#[cfg(test)]
const RANK_REGISTERED: u8 = 1;
const RANK_EPHEMERAL: u8 = 3;

/// One bit for each port of [`REGISTERED_SERVICES`].
static IS_REGISTERED: [u64; 1024] = {
    let mut bits = [0; 1024];
    let mut i = 0;
    while i < REGISTERED_SERVICES.len() {
        let port = REGISTERED_SERVICES[i] as usize;
        bits[port / 64] |= 1 << (port % 64);
        i += 1;
    }
    bits
};

/// How unlikely it is that a service listens on `port`: 0 for the well-known range.
#[inline]
fn port_rank(port: u16) -> u8 {
    let is_registered = IS_REGISTERED[usize::from(port / 64)] >> (port % 64) & 1 == 1;
    // Without branches: which end is the server's is a toss-up.
    u8::from(port > 1023) * 2 + u8::from(port > 32767) - u8::from(is_registered)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(ports: (u16, u16), action: Action, tcp_flags: Option<u8>, expected: bool) {
        let (src_port, dst_port) = ports;
        let ends = Ends { source_is_lower: true, src_port, dst_port, action, tcp_flags };
        assert_eq!(source_is_client(ends), expected, "{ends:?}");
    }

    #[test]
    fn registered_services_rank_behind_the_well_known() {
        for port in 0..=u16::MAX {
            let expected = match port {
                0..=1023 => 0,
                _ if REGISTERED_SERVICES.contains(&port) => RANK_REGISTERED,
                1024..=32767 => 2,
                _ => RANK_EPHEMERAL,
            };
            assert_eq!(port_rank(port), expected, "{port}");
        }
    }

    #[test]
    fn flags_decide_before_ports() {
        check((22, 50000), Action::Accept, Some(TCP_SYN), true);
        check((50000, 22), Action::Accept, Some(TCP_SYN | TCP_ACK), false);
        check((50000, 22), Action::Accept, Some(0), true);
        check((22, 50000), Action::Accept, Some(TCP_RST), false);
    }

    #[test]
    fn the_refused_side_began_unless_it_replied() {
        check((50000, 61000), Action::Reject, None, true);
        check((61000, 50000), Action::Reject, None, true);
        check((443, 50000), Action::Reject, None, false);
        check((9443, 50000), Action::Reject, None, false);
        check((9443, 50000), Action::Reject, Some(TCP_SYN), true);
        check((443, 8080), Action::Reject, None, true);
        check((22, 50000), Action::Reject, Some(TCP_SYN), true);
    }

    #[test]
    fn service_ports_are_servers() {
        check((50000, 443), Action::Accept, None, true);
        check((8080, 2000), Action::Accept, None, false);
        check((2000, 40000), Action::Accept, None, false);
    }

    proptest! {
        #[test]
        fn both_directions_agree(
            src in 0_u32..4, dst in 0_u32..4, src_port in 0_u16.., dst_port in 0_u16..,
            flags in prop::option::of(Just(0_u8)),
        ) {
            prop_assume!((src, src_port) != (dst, dst_port) && src != dst);
            let there = Ends {
                source_is_lower: src <= dst, src_port, dst_port,
                action: Action::Accept, tcp_flags: flags,
            };
            let back = Ends {
                source_is_lower: dst <= src, src_port: dst_port, dst_port: src_port, ..there
            };
            prop_assert_ne!(source_is_client(there), source_is_client(back));
        }
    }
}
