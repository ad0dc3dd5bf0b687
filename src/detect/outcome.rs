//! What became of a contact: answered, or failed in one of three ways.
//!
//! Flow logs show no packet order, no ACK and no ICMP type; what remains is who sent anything at all,
//! whether it was rejected, the OR of some TCP flags, and sizes. A packet without payload is at most
//! 60 bytes long over IPv4 (20 for IP, 40 for TCP with all usual options) and 80 over IPv6.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::detector::{Met, WATCHED_AT_ONCE};
use super::order::Sorter;
use super::pane::{MergedPane, Tried};
use crate::aggregate::{ContactKey, ContactView, Half, TCP_RST, TCP_SYN, Tally};
use crate::net::Addr;

/// From this port on a port alone doesn't say which end is the server: Linux gives clients ports from here on.
pub(super) const EPHEMERAL_PORT_MIN: u16 = 32_768;
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

/// The contacts of a pane that were tried; kept from pane to pane for the memory.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// In the order of keys.
    pub(super) tried: Vec<Tried>,
    unsorted: Vec<Tried>,
    doubtful: Vec<Tried>,
    other_traffic: OtherTraffic,
    sorter: Sorter,
}

impl Verdicts {
    /// Memory kept for the next pane, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        let contacts = self.tried.capacity() + self.unsorted.capacity() + self.doubtful.capacity();
        contacts * size_of::<Tried>() + self.sorter.bytes()
    }

    /// Judges the contacts of `pane`; `next` is the pane right after it, where answers may be. All contacts
    /// are shown to `watch` on the way, some at once.
    pub(super) fn judge(
        &mut self,
        pane: &MergedPane,
        next: Option<&MergedPane>,
        mut watch: impl FnMut(&[Met]),
    ) {
        let Self { tried, unsorted, doubtful, other_traffic, sorter } = self;
        let open = Vec::with_capacity(LOOK_UPS_AHEAD);
        let mut judge = Judge { next, open, doubtful, tried: unsorted };
        other_traffic.begin(pane);
        let mut met = Vec::with_capacity(WATCHED_AT_ONCE);
        for (first_number, shard) in pane.shards() {
            for (number, key, contact) in shard.contacts.iter() {
                other_traffic.note(&key);
                let number = first_number + number;
                let (forward, back) = (contact.forward(), contact.back());
                met.push(Met { number, key, forward, back });
                if met.len() == WATCHED_AT_ONCE {
                    watch(&met);
                    met.clear();
                }
                judge.take(number, &key, contact, (forward, back));
            }
            judge.look_up_answers();
        }
        watch(&met);
        unsorted.extend(doubtful.drain(..).filter(|ping| !other_traffic.has_pair(ping)));
        let key = |tried: &Tried| (tried.client, tried.server, tried.protocol, tried.port);
        let packed = |tried: &Tried| {
            let (client, server) = (tried.client.as_v4()?, tried.server.as_v4()?);
            let service = u64::from(tried.protocol) << 16 | u64::from(tried.port);
            Some(u128::from(client) << 88 | u128::from(server) << 56 | u128::from(service) << 32)
        };
        sorter.sort(unsorted, tried, packed, key);
    }
}

/// How many look-ups of answers wait for memory at once.
const LOOK_UPS_AHEAD: usize = 64;

/// Contacts on their way to a verdict.
struct Judge<'a, 'b> {
    next: Option<&'a MergedPane>,
    /// Contacts without an answer in their own pane.
    open: Vec<Open<'a>>,
    /// Unanswered ICMP, which may be a reply to other traffic.
    doubtful: &'b mut Vec<Tried>,
    tried: &'b mut Vec<Tried>,
}

struct Open<'a> {
    number: u32,
    key: ContactKey,
    contact: ContactView<'a>,
}

impl<'a> Judge<'a, '_> {
    fn take(
        &mut self,
        number: u32,
        key: &ContactKey,
        contact: ContactView<'a>,
        (forward, back): (Half, Half),
    ) {
        if forward.0.flows == 0 {
            // What came back alone was not tried here.
            return;
        }
        if let Some(next) = self.next
            && back.0.flows == 0
        {
            for (_, shard) in next.shards() {
                shard.contacts.prefetch(shard.contacts.hash(key));
            }
            self.open.push(Open { number, key: *key, contact });
            if self.open.len() == LOOK_UPS_AHEAD {
                self.look_up_answers();
            }
            return;
        }
        self.decide(number, key, contact, forward, back);
    }

    fn look_up_answers(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        for (_, shard) in self.next.into_iter().flat_map(MergedPane::shards) {
            for Open { key, .. } in &open {
                shard.contacts.prefetch_contact(shard.contacts.hash(key));
            }
        }
        for Open { number, key, contact } in open.drain(..) {
            let answer = self.next.and_then(|next| answer_in(next, &key, contact));
            let back = answer.unwrap_or_else(|| contact.back());
            self.decide(number, &key, contact, contact.forward(), back);
        }
        self.open = open;
    }

    fn decide(
        &mut self,
        number: u32,
        key: &ContactKey,
        contact: ContactView<'_>,
        forward: Half,
        back: Half,
    ) {
        let outcome = outcome(key, forward, back);
        if outcome == Outcome::NotTried {
            return;
        }
        let tried = Tried {
            client: key.client,
            server: key.server,
            first_start: contact.first_start(),
            last_end: contact.last_end(),
            flows: forward.0.flows,
            rejected: forward.0.rejected,
            number,
            port: key.port,
            protocol: key.protocol,
            outcome,
        };
        if outcome == Outcome::Unanswered && is_icmp(key.protocol) {
            self.doubtful.push(tried);
        } else {
            self.tried.push(tried);
        }
    }
}

const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMP_V6)
}

/// What the server sent in the pane after the client had sent.
fn answer_in(next: &MergedPane, key: &ContactKey, contact: ContactView<'_>) -> Option<Half> {
    if let Some(later) = next.find(key)
        && later.back().0.flows > 0
    {
        return Some(later.back());
    }
    if !key.ends_are_alike(contact.client_ports()) {
        return None;
    }
    // An answer alone, between ends that are alike, looks like an attempt of the server.
    let later = next.find(&key.turned())?;
    let is_answer = later.back().0.flows == 0 && later.forward().0.rejected == 0;
    is_answer.then(|| later.forward())
}

/// The pairs of a pane that exchanged ICMP, and which of them exchanged anything else: then an unanswered
/// ICMP message is port unreachable or the like, a reply.
#[derive(Debug, Default)]
struct OtherTraffic {
    /// By pair; whether there was other traffic.
    pairs: HashMap<(Addr, Addr), bool, FixedState>,
    /// A bit for each of the pairs by a cheap hash: nearly all other pairs end here.
    may_be: Vec<u64>,
}

/// Bits of [`OtherTraffic::may_be`]: an eighth of a second level cache.
const PAIR_BITS: u32 = 20;

impl OtherTraffic {
    /// Begins with the pairs of a pane.
    fn begin(&mut self, pane: &MergedPane) {
        self.pairs.clear();
        self.may_be.clear();
        for (_, shard) in pane.shards() {
            for number in shard.contacts.odd() {
                let key = shard.contacts.key(number);
                if is_icmp(key.protocol) {
                    self.may_be.resize(1 << (PAIR_BITS - 6), 0);
                    let (word, bit) = pair_bit(key.client, key.server);
                    self.may_be[word] |= bit;
                    self.pairs.insert(unordered(key.client, key.server), false);
                }
            }
        }
    }

    #[inline]
    fn note(&mut self, key: &ContactKey) {
        let (word, bit) = pair_bit(key.client, key.server);
        if self.may_be.get(word).is_some_and(|bits| bits & bit != 0)
            && !is_icmp(key.protocol)
            && let Some(has_other) = self.pairs.get_mut(&unordered(key.client, key.server))
        {
            *has_other = true;
        }
    }

    fn has_pair(&self, tried: &Tried) -> bool {
        self.pairs[&unordered(tried.client, tried.server)]
    }
}

fn unordered(one: Addr, other: Addr) -> (Addr, Addr) {
    if one <= other { (one, other) } else { (other, one) }
}

/// Word and bit of a pair, the same in both directions.
#[expect(clippy::cast_possible_truncation, reason = "a hash of the lower bits")]
fn pair_bit(one: Addr, other: Addr) -> (usize, u64) {
    let sum = (one.bits() as u64).wrapping_add(other.bits() as u64);
    let position = sum.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - PAIR_BITS);
    ((position >> 6) as usize, 1 << (position & 63))
}

fn outcome(key: &ContactKey, (forward, forward_flags): Half, answer: Half) -> Outcome {
    let back = answer.0;
    if forward.flows == 0 {
        return Outcome::NotTried;
    }
    let headers = Headers::of(key);
    if back.flows > back.rejected {
        return match key.protocol {
            TCP if is_reset(answer, headers, forward) => Outcome::Refused,
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
    if forward_flags.is_some_and(|flags| flags & (TCP_RST | TCP_SYN) == TCP_RST) {
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
fn is_reset((back, flags): Half, headers: Headers, forward: Tally) -> bool {
    if !headers.are_all_of(forward) || back.packets > forward.packets {
        return false;
    }
    match flags {
        Some(flags) => flags & (TCP_RST | TCP_SYN) == TCP_RST && headers.are_all_of(back),
        None => back.bytes <= back.packets.saturating_mul(headers.shortest),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::scenarios::any_row;
    use super::*;
    use crate::aggregate::{CONTACT_BYTES_DEFAULT, ContactRow, ContactTable, pair_hash};
    use crate::units::PaneIndex;

    fn panes_of(rows: &[ContactRow<'_>], shard_count: u64) -> Vec<MergedPane> {
        let mut tables: Vec<_> = (0..shard_count)
            .map(|seed| ContactTable::new(60, seed, CONTACT_BYTES_DEFAULT))
            .collect();
        for row in rows {
            let shard = pair_hash(row.src, row.dst, 3) % shard_count;
            tables[usize::try_from(shard).unwrap()].add_row(row);
        }
        let mut panes: BTreeMap<PaneIndex, Vec<_>> = BTreeMap::new();
        for shard in tables.iter_mut().flat_map(ContactTable::close_all) {
            panes.entry(shard.pane).or_default().push(shard);
        }
        panes.into_iter().map(|(pane, shards)| MergedPane::merge(pane, shards)).collect()
    }

    fn listed(pane: &MergedPane) -> Vec<(ContactKey, ContactView<'_>)> {
        let contacts = pane.shards().flat_map(|(_, shard)| shard.contacts.iter());
        let mut listed: Vec<_> = contacts.map(|(_, key, contact)| (key, contact)).collect();
        listed.sort_by_key(|(key, _)| *key);
        listed
    }

    /// What the judge does, by walking through lists.
    fn plainly_judged(pane: &MergedPane, next: Option<&MergedPane>) -> Vec<(ContactKey, Outcome)> {
        let (contacts, later) = (listed(pane), next.map(listed).unwrap_or_default());
        let later = |wanted: ContactKey| {
            later.iter().find(|(key, _)| *key == wanted).map(|(_, contact)| *contact)
        };
        let judged = contacts.iter().map(|(key, contact)| {
            let (forward, mut back) = (contact.forward(), contact.back());
            if back.0.flows == 0 && forward.0.flows > 0 {
                let answer = later(*key).map(|later| later.back()).filter(|back| back.0.flows > 0);
                let turned = later(key.turned())
                    .filter(|_| key.ends_are_alike(contact.client_ports()))
                    .filter(|later| later.back().0.flows == 0 && later.forward().0.rejected == 0)
                    .map(|later| later.forward());
                back = answer.or(turned).unwrap_or(back);
            }
            let outcome = outcome(key, forward, back);
            let pair = unordered(key.client, key.server);
            let is_reply = is_icmp(key.protocol)
                && contacts.iter().any(|(other, _)| {
                    unordered(other.client, other.server) == pair && !is_icmp(other.protocol)
                });
            let is_no_ping = outcome == Outcome::Unanswered && is_reply;
            (*key, if is_no_ping { Outcome::NotTried } else { outcome })
        });
        judged.filter(|(_, outcome)| *outcome != Outcome::NotTried).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn lists_say_the_same(
            rows in prop::collection::vec(any_row(), 0..500), shard_count in 1_u64..4,
        ) {
            let panes = panes_of(&rows, shard_count);
            let mut verdicts = Verdicts::default();
            for (position, pane) in panes.iter().enumerate() {
                let next = panes.get(position + 1).filter(|next| next.pane.0 == pane.pane.0 + 1);
                verdicts.judge(pane, next, |_| ());
                let judged: Vec<_> = verdicts
                    .tried
                    .iter()
                    .map(|tried| {
                        let Tried { client, server, protocol, port, outcome, .. } = *tried;
                        (ContactKey { client, server, protocol, port }, outcome)
                    })
                    .collect();
                prop_assert_eq!(judged, plainly_judged(pane, next));
            }
        }
    }
}
