//! What became of a contact: answered, or failed in one of three ways.
//!
//! Flow logs show no packet order, no ACK and no ICMP type; what remains is who sent anything at all,
//! whether it was rejected, the OR of some TCP flags, and sizes. A packet without payload is at most
//! 60 bytes long over IPv4 (20 for IP, 40 for TCP with all usual options) and 80 over IPv6.

use super::pane::MergedPane;
use crate::aggregate::{Contact, ContactKey, Side, TCP_RST, TCP_SYN, Tally};
use crate::net::Addr;

/// IANA number of TCP.
pub(super) const TCP: u8 = 6;
/// IANA number of UDP.
pub(super) const UDP: u8 = 17;
/// IANA number of ICMP.
pub(super) const ICMP: u8 = 1;
/// IANA number of ICMP for IPv6.
pub(super) const ICMP_V6: u8 = 58;

/// What became of a contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server sent something that isn't a refusal.
    Answered,
    /// The server answered and no payload went either way: a probe, or a health check.
    Bare,
    /// The server refused with a reset.
    Refused,
    /// Nothing came back.
    Unanswered,
    /// A security group or network ACL rejected it.
    Rejected,
    /// Not an attempt of the client: late packets, streams that go one way, replies.
    NotTried,
}

impl Outcome {
    /// Whether the client tried and got nowhere.
    pub(super) const fn is_failed(self) -> bool {
        matches!(self, Self::Refused | Self::Unanswered | Self::Rejected)
    }
}

/// The outcome of each contact of `pane`; `next` is the pane right after it, where answers may be.
pub(super) fn judge(pane: &MergedPane, next: Option<&MergedPane>) -> Vec<Outcome> {
    let outcome_of = |(key, contact): &(ContactKey, Contact)| {
        let answer = if contact.back.is_silent() && !contact.forward.is_silent() {
            next.and_then(|next| answer_in(next, key, contact)).unwrap_or(&contact.back)
        } else {
            &contact.back
        };
        let outcome = outcome(key, contact, answer);
        if outcome == Outcome::Unanswered && is_icmp(key) && has_other_traffic(pane, key) {
            // Port unreachable and the like: a reply to traffic of another protocol.
            return Outcome::NotTried;
        }
        outcome
    };
    pane.contacts.iter().map(outcome_of).collect()
}

const fn is_icmp(key: &ContactKey) -> bool {
    matches!(key.protocol, ICMP | ICMP_V6)
}

/// What the server sent in the pane after the client had sent.
fn answer_in<'a>(next: &'a MergedPane, key: &ContactKey, contact: &Contact) -> Option<&'a Side> {
    if let Some(later) = next.get(key)
        && !later.back.is_silent()
    {
        return Some(&later.back);
    }
    if !contact.ends_are_alike(key) {
        return None;
    }
    // An answer alone, between ends that are alike, looks like an attempt of the server.
    let turned = ContactKey { client: key.server, server: key.client, ..*key };
    let later = next.get(&turned)?;
    let is_answer = later.back.is_silent() && later.forward.tally().rejected == 0;
    is_answer.then_some(&later.forward)
}

/// Whether the two ends of an ICMP contact exchanged anything else in the pane.
fn has_other_traffic(pane: &MergedPane, key: &ContactKey) -> bool {
    let talked = |client: Addr, server: Addr| {
        let from = pane.contacts.partition_point(|(k, _)| (k.client, k.server) < (client, server));
        pane.contacts[from..]
            .iter()
            .take_while(|(other, _)| (other.client, other.server) == (client, server))
            .any(|(other, _)| !is_icmp(other))
    };
    talked(key.server, key.client) || talked(key.client, key.server)
}

fn outcome(key: &ContactKey, contact: &Contact, answer: &Side) -> Outcome {
    let forward = contact.forward.tally();
    let back = answer.tally();
    if forward.flows == 0 {
        return Outcome::NotTried;
    }
    let headers = Headers::of(key);
    if back.flows > back.rejected {
        return match key.protocol {
            TCP if is_reset(answer, headers, forward, back) => Outcome::Refused,
            TCP if headers.are_all_of(forward)
                && headers.are_all_of(back)
                && forward.packets.max(back.packets) <= 4 * u64::from(forward.flows) =>
            {
                Outcome::Bare
            }
            _ => Outcome::Answered,
        };
    }
    if back.flows > 0 {
        // The replies were rejected: a network ACL without the way back, not the client's failure.
        return Outcome::NotTried;
    }
    if contact.forward.tcp_flags.is_some_and(|flags| flags & (TCP_RST | TCP_SYN) == TCP_RST) {
        return Outcome::NotTried;
    }
    if forward.rejected > 0 {
        return Outcome::Rejected;
    }
    let is_probe = match key.protocol {
        TCP => headers.are_all_of(forward) && forward.packets <= 8 * u64::from(forward.flows),
        UDP => forward.packets <= 4 * u64::from(forward.flows),
        _ => true,
    };
    if is_probe { Outcome::Unanswered } else { Outcome::NotTried }
}

/// Lengths of packets that carry nothing.
#[derive(Clone, Copy)]
struct Headers {
    /// The longest packet without payload.
    longest: u64,
    /// A packet without payload or TCP options, as resets are and SYN-ACKs never are.
    shortest: u64,
}

impl Headers {
    const fn of(key: &ContactKey) -> Self {
        match key.server.as_v4() {
            Some(_) => Self { longest: 60, shortest: 40 },
            None => Self { longest: 80, shortest: 60 },
        }
    }

    /// Whether no packet carried payload.
    const fn are_all_of(self, tally: Tally) -> bool {
        tally.bytes <= tally.packets.saturating_mul(self.longest)
    }
}

/// Whether all that the server sent were resets.
fn is_reset(answer: &Side, headers: Headers, forward: Tally, back: Tally) -> bool {
    if !headers.are_all_of(forward) || back.packets > forward.packets {
        return false;
    }
    match answer.tcp_flags {
        Some(flags) => flags & (TCP_RST | TCP_SYN) == TCP_RST && headers.are_all_of(back),
        None => back.bytes <= back.packets.saturating_mul(headers.shortest),
    }
}
