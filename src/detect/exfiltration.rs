//! Data that leaves: an own host sends far more to an outside host than it gets back.
//!
//! Only connections that the own host opened count: what a server answers is asked for. Per pair of hosts the
//! bytes of both directions are kept in six slots of the window, so that one transfer of a minute and a drip
//! over hours are the same sum. Destinations to which many own hosts send, or to which this one has sent for a
//! week, are services: backups, logs, mail.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::detector::{Detector, Met};
use super::episode::{Episodes, Sighting};
use super::network::Network;
use super::outcome::{EPHEMERAL_PORT_MIN, TCP, UDP};
use super::pairs::{OfPair, PackedPair, Pair, PairTable, short_time};
use super::pane::PaneView;
use super::population::Population;
use super::report::{Draft, confidence, finding, spelled};
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_range};
use crate::aggregate::TCP_SYN;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// Contacts with fewer bytes either way in a pane are left out: they are most contacts, and over four hours
/// less than a twentieth of what is looked for.
const CONTACT_BYTES_MIN: u64 = 4096;

/// Parts of the window.
const SLOTS: usize = 6;

/// What bytes of answers are counted in.
const BACK_UNIT_BYTES: u64 = 256;

/// What took longer is called a drip.
const DRIP_SECONDS_MIN: i64 = 1800;

/// So many own hosts may share a destination however few there are.
const SHARING_HOSTS_MIN: u64 = 3;

/// `[detectors.exfiltration]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExfiltrationSettings {
    /// Whether to look for data that leaves.
    pub enabled: bool,
    /// Bytes from one own host to one outside host within `window_seconds`, 100000 to 1000000000000.
    pub bytes_min: u64,
    /// The window, 600 to 86400.
    pub window_seconds: u32,
    /// Bytes sent per byte that comes back, 1 to 10000.
    pub out_per_in_min: u32,
    /// A destination that more own hosts use than this is a service, in per cent, 0 to 100; three may always.
    pub prevalence_max_percent: u32,
    /// A destination that the host has used for so long is none any more that is new, 3600 to 31536000.
    pub known_after_seconds: u32,
    /// Pairs of hosts kept, 1000 to 1000000000; one takes about 150 bytes.
    pub tracked_max: u32,
}

impl Default for ExfiltrationSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            bytes_min: 20_000_000,
            window_seconds: 14_400,
            out_per_in_min: 10,
            prevalence_max_percent: 2,
            known_after_seconds: 604_800,
            tracked_max: 1_000_000,
        }
    }
}

impl ExfiltrationSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        check_range(
            "bytes_min",
            number(self.bytes_min),
            100_000..=1_000_000_000_000,
            number(usual.bytes_min),
        )?;
        check_range(
            "window_seconds",
            self.window_seconds,
            600..=WINDOW_SECONDS_MAX,
            usual.window_seconds,
        )?;
        check_range("out_per_in_min", self.out_per_in_min, 1..=10_000, usual.out_per_in_min)?;
        check_range(
            "prevalence_max_percent",
            self.prevalence_max_percent,
            0..=100,
            usual.prevalence_max_percent,
        )?;
        check_range(
            "known_after_seconds",
            self.known_after_seconds,
            3600..=31_536_000,
            usual.known_after_seconds,
        )?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }

    /// Seconds of a slot.
    fn slot_seconds(&self) -> u32 {
        (self.window_seconds / 6).max(1)
    }
}

/// What a contact of the pane sent.
#[derive(Clone, Copy, Debug)]
struct Upload {
    client: Addr,
    server: Addr,
    out: u64,
    back: u64,
    number: u32,
    port: u16,
    protocol: u8,
    /// Whether the client surely opened it.
    is_opened: bool,
}

impl Upload {
    const fn pair(&self) -> Pair {
        Pair { client: self.client, server: self.server, protocol: 0, port: 0 }
    }
}

/// What two hosts have sent each other lately.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Traffic {
    out: [u64; SLOTS],
    /// In [`BACK_UNIT_BYTES`], rounded up, or as many as fit.
    back: [u32; SLOTS],
    pair: PackedPair,
    first_seen: u32,
    last_seen: u32,
    /// Number of the newest slot, which stands at this modulo [`SLOTS`].
    slot: u32,
}

const _: () = assert!(size_of::<Traffic>() <= 128);

impl Traffic {
    const fn new(pair: Pair, slot: u32, first_seen: u32) -> Self {
        let (out, back, pair) = ([0; SLOTS], [0; SLOTS], PackedPair::of(pair));
        Self { out, back, pair, first_seen, last_seen: first_seen, slot }
    }

    /// Adds bytes in a slot that is not before any other.
    fn add(&mut self, slot: u32, out: u64, back: u64) {
        let steps = slot.saturating_sub(self.slot);
        for step in 1..=steps.min(6) {
            let at = place(slot - steps + step);
            (self.out[at], self.back[at]) = (0, 0);
        }
        self.slot = self.slot.max(slot);
        let at = place(self.slot);
        let back = u32::try_from(back.div_ceil(BACK_UNIT_BYTES)).unwrap_or(u32::MAX);
        self.out[at] = self.out[at].saturating_add(out);
        self.back[at] = self.back[at].saturating_add(back);
    }

    /// Puts everything into one slot.
    fn unite_in(&mut self, slot: u32) {
        let (out, back) = (self.bytes_out(), self.bytes_back());
        (self.out, self.back, self.slot) = ([0; SLOTS], [0; SLOTS], slot);
        self.add(slot, out, back);
    }

    fn bytes_out(&self) -> u64 {
        self.out.iter().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    fn bytes_back(&self) -> u64 {
        self.back.iter().map(|units| u64::from(*units) * BACK_UNIT_BYTES).sum()
    }

    /// When the oldest slot that was used began, or the pair was first seen.
    fn first_in_window(&self, slot_seconds: u32) -> u32 {
        let oldest = (0..6)
            .rev()
            .filter_map(|age| self.slot.checked_sub(age))
            .find(|slot| self.out[place(*slot)] > 0);
        oldest.unwrap_or(self.slot).saturating_mul(slot_seconds).max(self.first_seen)
    }
}

const fn place(slot: u32) -> usize {
    (slot % 6) as usize
}

impl Saved for Traffic {
    const BYTES_MIN: usize = Pair::BYTES_MIN + 12 * (SLOTS + 1);

    fn save(&self, out: &mut Encoder) {
        self.pair().save(out);
        self.out.iter().for_each(|bytes| out.u64(*bytes));
        self.back.iter().for_each(|units| out.u32(*units));
        out.u32(self.first_seen);
        out.u32(self.last_seen);
        out.u32(self.slot);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let mut traffic = Self::new(Pair::load(from)?, 0, 0);
        for bytes in &mut traffic.out {
            *bytes = from.u64()?;
        }
        for units in &mut traffic.back {
            *units = from.u32()?;
        }
        traffic.first_seen = from.u32()?;
        traffic.last_seen = from.u32()?;
        traffic.slot = from.u32()?;
        Ok(traffic)
    }
}

impl OfPair for Traffic {
    fn pair(&self) -> Pair {
        self.pair.pair()
    }

    /// By powers of two of what was sent.
    fn rank(&self) -> u8 {
        u8::try_from((self.bytes_out() / CONTACT_BYTES_MIN).max(1).ilog2()).expect("below 64")
    }

    fn last_seen(&self) -> u32 {
        self.last_seen
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct Exfiltration {
    settings: ExfiltrationSettings,
    pairs: PairTable<Traffic>,
    own_hosts: Population,
    episodes: Episodes<(Addr, Addr)>,
    inexact_until: PaneIndex,
    /// The slot of the last pane.
    slot: u32,
    /// The next pane's contacts; kept for the memory.
    uploads: Vec<Upload>,
}

impl Exfiltration {
    /// A detector without memory, whose tables take at most `bytes_max`.
    pub(super) fn new(settings: ExfiltrationSettings, bytes_max: usize) -> Self {
        let tracked_max = settings.tracked_max as usize;
        let open_max = tracked_max.min(bytes_max / 8 / Episodes::<(Addr, Addr)>::entry_bytes());
        Self {
            pairs: PairTable::new(tracked_max, bytes_max / 8 * 7),
            own_hosts: Population::default(),
            episodes: Episodes::new(settings.window_seconds, open_max),
            inexact_until: PaneIndex(i64::MIN),
            slot: 0,
            uploads: Vec::new(),
            settings,
        }
    }

    /// How many own hosts a destination may have that is no service.
    fn sharing_max(&self) -> u64 {
        let percent = u64::from(self.settings.prevalence_max_percent);
        (self.own_hosts.count() * percent / 100).max(SHARING_HOSTS_MIN)
    }

    /// Adds what a pair of hosts sent in the pane.
    fn add(&mut self, uploads: &[Upload], view: &PaneView<'_>) -> Option<Traffic> {
        let pair = uploads[0].pair();
        let pane_start = view.index().start(view.pane_seconds);
        let hash = self.pairs.hash(&pair);
        let now = short_time(pane_start);
        let known_since = now.saturating_sub(self.settings.known_after_seconds);
        if self.pairs.get_mut(hash, &pair).is_none() {
            if !uploads.iter().any(|upload| upload.is_opened) {
                return None;
            }
            let first = uploads
                .iter()
                .map(|upload| view.contact_at(upload.number).first_start())
                .min()
                .unwrap_or(pane_start);
            let traffic = Traffic::new(pair, self.slot, short_time(first));
            self.pairs.insert(hash, traffic, known_since);
        }
        let slot = self.slot;
        let traffic = self.pairs.get_mut(hash, &pair)?;
        if traffic.last_seen < known_since {
            *traffic = Traffic::new(pair, slot, now);
        }
        for upload in uploads {
            traffic.add(slot, upload.out, upload.back);
        }
        traffic.last_seen = now;
        Some(*traffic)
    }

    fn is_leaving(&self, traffic: &Traffic, now: u32) -> bool {
        let out = traffic.bytes_out();
        let back = traffic.bytes_back().saturating_mul(self.settings.out_per_in_min.into());
        out >= self.settings.bytes_min
            && out > back
            && now.saturating_sub(traffic.first_seen) < self.settings.known_after_seconds
    }

    fn report(
        &mut self,
        traffic: &Traffic,
        uploads: &[Upload],
        view: &PaneView<'_>,
    ) -> Option<Finding> {
        let pair = traffic.pair();
        let Pair { client, server, .. } = pair;
        let (out, back) = (traffic.bytes_out(), traffic.bytes_back());
        let sharing = self.pairs.crowd(&pair);
        if sharing > self.sharing_max() {
            return None;
        }
        let contacts = || uploads.iter().map(|upload| view.contact_at(upload.number));
        let last_seen = contacts().map(|contact| contact.last_end()).max()?;
        let first_seen = UnixSeconds(traffic.first_in_window(self.settings.slot_seconds()).into())
            .min(last_seen);
        let report =
            self.episodes.note((client, server), Sighting { first_seen, last_seen, size: out })?;
        let mut ports: Vec<u16> = uploads.iter().map(|upload| upload.port).collect();
        ports.sort_unstable();
        ports.dedup();
        let window_seconds = self.settings.window_seconds;
        let exact = view.index() > self.inexact_until;
        let (bytes_min, own_hosts) = (self.settings.bytes_min, self.own_hosts.count());
        let is_drip = last_seen.0.saturating_sub(first_seen.0) >= DRIP_SECONDS_MIN;
        let draft = || Draft {
            severity: Severity::High,
            confidence: confidence(out, bytes_min),
            title: format!(
                "{client} sent {:.1} MB to {server} within {} and got {:.1} MB back",
                out as f64 / 1e6,
                spelled(window_seconds),
                back as f64 / 1e6
            ),
            actor: client,
            identity: (vec![server], Vec::new()),
            targets: vec![server],
            ports,
            last_seen,
            window_seconds,
            evidence: BTreeMap::from([
                ("variant", Evidence::Word(if is_drip { "drip" } else { "bulk" })),
                ("bytes_out", Evidence::Count(out)),
                ("bytes_in", Evidence::Count(back)),
                ("threshold_bytes", Evidence::Count(bytes_min)),
                ("hosts_with_this_destination", Evidence::Count(sharing)),
                ("own_hosts", Evidence::Count(own_hosts)),
                (
                    "first_contact",
                    Evidence::Text(UnixSeconds(traffic.first_seen.into()).to_string()),
                ),
            ]),
            context: view.context_of(uploads.iter().map(|upload| upload.number)),
            exact,
        };
        Some(finding(FindingKind::Exfiltration, report, view, draft))
    }
}

impl Detector for Exfiltration {
    fn name(&self) -> &'static str {
        "exfiltration"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
    }

    fn watches(&self) -> bool {
        true
    }

    fn watch(&mut self, contacts: &[Met], network: &Network) {
        for Met { number, key, forward: (forward, flags), back: (back, _) } in contacts {
            if forward.bytes.max(back.bytes) < CONTACT_BYTES_MIN
                || !matches!(key.protocol, TCP | UDP)
                || forward.flows <= forward.rejected
                || !network.is_inside(key.client)
            {
                continue;
            }
            self.own_hosts.note(key.client);
            if network.is_inside(key.server)
                || !key.server.is_public()
                || network.is_exempt_actor(key.client)
            {
                continue;
            }
            let has_syn = flags.is_some_and(|flags| flags & TCP_SYN != 0);
            self.uploads.push(Upload {
                client: key.client,
                server: key.server,
                out: forward.bytes,
                back: back.bytes,
                number: *number,
                port: key.port,
                protocol: key.protocol,
                is_opened: has_syn || key.port < EPHEMERAL_PORT_MIN,
            });
        }
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let mut uploads = std::mem::take(&mut self.uploads);
        uploads.sort_unstable_by_key(|upload| {
            (upload.client, upload.server, upload.port, upload.protocol)
        });
        let pane_start = view.index().start(view.pane_seconds);
        let now = short_time(pane_start);
        let slot = (now / self.settings.slot_seconds()).max(self.slot);
        if slot > self.slot
            && let Some(expired) = now.checked_sub(self.settings.known_after_seconds)
        {
            self.pairs.expire(expired);
        }
        self.slot = slot;
        let mut leaving = Vec::new();
        for of_pair in uploads.chunk_by(|one, other| one.pair() == other.pair()) {
            if let Some(traffic) = self.add(of_pair, view)
                && self.is_leaving(&traffic, now)
            {
                leaving.push((traffic, of_pair));
            }
        }
        if self.pairs.has_evicted() {
            let before = view.before_window(self.settings.window_seconds);
            self.inexact_until = view.after_window(before);
        }
        // Only now is it known who else uses the destinations.
        for (traffic, of_pair) in leaving {
            out.extend(self.report(&traffic, of_pair, view));
        }
        uploads.clear();
        self.uploads = uploads;
        self.episodes.end_pane(view.index().end(view.pane_seconds));
        self.own_hosts.begin(view.index().end(view.pane_seconds).0);
    }

    fn evictions(&self) -> u64 {
        self.pairs.evictions() + self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.pairs.bytes() + self.own_hosts.bytes() + self.episodes.bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.uploads.capacity() * size_of::<Upload>()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        self.pairs.save(out);
        self.own_hosts.save(out);
        self.episodes.save(out);
        self.inexact_until.save(out);
        out.u32(self.slot);
        out.u32(self.settings.slot_seconds());
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("exfiltration", 1..=1)?;
        let empty = std::mem::replace(&mut self.pairs, PairTable::new(0, 0));
        let mut pairs = empty.load(from)?;
        let own_hosts = Population::load(from)?;
        let episodes = self.episodes.load(from)?;
        let inexact_until = PaneIndex::load(from)?;
        let (slot, slot_seconds) = (from.u32()?, from.u32()?);
        let renumbered = |slot: u32| {
            let start = u64::from(slot) * u64::from(slot_seconds);
            let number = start / u64::from(self.settings.slot_seconds());
            u32::try_from(number).unwrap_or(u32::MAX)
        };
        if slot_seconds != self.settings.slot_seconds() {
            pairs.change_all(|traffic| traffic.unite_in(renumbered(traffic.slot)));
        }
        self.slot = renumbered(slot);
        self.pairs = pairs;
        self.own_hosts = own_hosts;
        self.episodes = episodes;
        self.inexact_until = inexact_until;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::scenarios::{OUTSIDE, addr, findings, host, reply, syn, upload};
    use super::*;
    use crate::aggregate::ContactRow;

    const OWN: &str = "10.20.7.7";
    const STORE: &str = "198.51.100.7";

    fn found(rows: &[ContactRow<'_>]) -> Vec<Finding> {
        let mut found = findings(rows, 3);
        found.retain(|finding| finding.kind == FindingKind::Exfiltration && finding.revision == 0);
        found
    }

    /// Variant, actor and target of what leaves.
    fn check(rows: &[ContactRow<'_>], expected: &[(&str, &str, &str)]) {
        let found = found(rows);
        let found: Vec<_> = found
            .iter()
            .map(|finding| {
                let Some(Evidence::Word(variant)) = finding.evidence.get("variant") else {
                    panic!("no variant in {finding:?}")
                };
                let name = |addrs: &[Addr]| addrs[0].to_string();
                (*variant, name(&finding.actor.addrs), name(&finding.target.addrs))
            })
            .collect();
        let expected: Vec<_> =
            expected.iter().map(|(word, a, t)| (*word, (*a).to_owned(), (*t).to_owned())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn much_at_once_and_little_for_long_are_the_same_sum() {
        check(&upload(10, OWN, STORE, 19_999_999), &[]);
        check(&upload(10, OWN, STORE, 20_000_000), &[("bulk", OWN, STORE)]);
        let drip = |count: i64, every| -> Vec<_> {
            (0..count).flat_map(|n| upload(n * every, OWN, STORE, 250_000)).collect()
        };
        check(&drip(79, 100), &[]);
        check(&drip(80, 100), &[("drip", OWN, STORE)]);
        check(&drip(80, 400), &[]);
        let found = found(&drip(80, 100));
        assert_eq!(found[0].evidence["bytes_out"], Evidence::Count(20_000_000));
        assert_eq!(found[0].first_seen, UnixSeconds(0));
        assert_eq!(
            found[0].title,
            "10.20.7.7 sent 20.0 MB to 198.51.100.7 within 4 hours and got 0.0 MB back"
        );
    }

    #[test]
    fn who_opened_and_what_came_back_matter() {
        let [sent, _] = upload(10, OWN, STORE, 30_000_000);
        check(&[sent, reply(sent, 0, 3000, 3_000_000, 19)], &[]);
        let request = ContactRow { bytes: 900, ..syn(10, OUTSIDE, host(5), 443) };
        check(&[request, reply(request, 0, 30_000, 40_000_000, 19)], &[]);
        // An own server's data port, without flags.
        let data = ContactRow { dst_port: 41_000, src_port: 50_000, tcp_flags: None, ..sent };
        check(&[data], &[]);
        check(&[ContactRow { tcp_flags: Some(2), ..data }], &[("bulk", OWN, STORE)]);
    }

    #[test]
    fn own_private_and_exempt_ends_are_left_alone() {
        for (from, to) in
            [(OWN, "10.20.5.60"), (OWN, "10.99.0.1"), ("10.20.0.100", STORE), (OUTSIDE, STORE)]
        {
            check(&upload(10, from, to, 90_000_000), &[]);
        }
    }

    #[test]
    fn what_many_or_long_since_use_is_a_service() {
        let by = |count: usize| -> Vec<_> {
            let hosts = ["10.20.7.1", "10.20.7.2", "10.20.7.3", "10.20.7.4"];
            hosts[..count].iter().flat_map(|own| upload(10, own, STORE, 90_000_000)).collect()
        };
        assert_eq!(found(&by(3)).len(), 3);
        check(&by(4), &[]);
        let day = 86_400;
        let daily: Vec<_> = (1..9).flat_map(|n| upload(n * day, OWN, STORE, 9000)).collect();
        let then = |days: i64| {
            let last = upload(days * day + 60, OWN, STORE, 90_000_000);
            daily.iter().copied().chain(last).collect::<Vec<_>>()
        };
        check(&then(8), &[]);
        check(&daily, &[]);
        check(&then(16), &[("bulk", OWN, STORE)]);
    }

    /// Pairs from which enough leaves at some time, by lists of all that was sent.
    fn plainly_leaving(sent: &[(u32, u32, i64, u64)]) -> BTreeSet<(Addr, Addr)> {
        let mut panes: BTreeMap<i64, BTreeMap<(u32, u32), u64>> = BTreeMap::new();
        for (own, store, at, bytes) in sent {
            *panes.entry(at / 60).or_default().entry((*own, *store)).or_default() += bytes;
        }
        let mut leaving = BTreeSet::new();
        let mut before: Vec<(i64, (u32, u32), u64)> = Vec::new();
        for (pane, pairs) in panes {
            let slot = pane * 60 / 2400;
            let counted = pairs.into_iter().filter(|(_, bytes)| *bytes >= 4096);
            let counted: Vec<_> = counted.map(|(pair, bytes)| (slot, pair, bytes)).collect();
            before.extend(&counted);
            for (_, pair, _) in counted {
                let of_pair =
                    before.iter().filter(|(at, other, _)| *other == pair && *at > slot - 6);
                let sum: u64 = of_pair.map(|(.., bytes)| bytes).sum();
                let to_store = before.iter().filter(|(_, other, _)| other.1 == pair.1);
                let owns: BTreeSet<u32> = to_store.map(|(_, (own, _), _)| *own).collect();
                if sum >= 20_000_000 && owns.len() <= 3 {
                    leaving.insert((own_host(pair.0), store(pair.1)));
                }
            }
        }
        leaving
    }

    fn own_host(number: u32) -> Addr {
        Addr::v4(0x0a14_0701 + number)
    }

    fn store(number: u32) -> Addr {
        Addr::v4(0xc633_6401 + number)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn lists_say_the_same(
            sent in prop::collection::vec(
                (0_u32..5, 0_u32..2, 0_i64..30_000, prop::sample::select(vec![
                    3000_u64, 5000, 2_000_000, 7_000_000, 11_000_000,
                ])),
                0..60,
            ),
        ) {
            let rows: Vec<_> = sent
                .iter()
                .flat_map(|(own, to, at, bytes)| {
                    let [row, _] = upload(*at, OWN, STORE, *bytes);
                    let row = ContactRow { src: own_host(*own), dst: store(*to), ..row };
                    [row, reply(row, 0, 3, 400, 19)]
                })
                .collect();
            let found: BTreeSet<_> = found(&rows)
                .iter()
                .map(|finding| (finding.actor.addrs[0], finding.target.addrs[0]))
                .collect();
            prop_assert_eq!(found, plainly_leaving(&sent));
        }
    }

    #[test]
    fn other_slots_keep_the_sum() {
        let pair = Pair { client: addr(OWN), server: addr(STORE), protocol: 0, port: 0 };
        let mut traffic = Traffic::new(pair, 10, 24_000);
        (10..14).for_each(|slot| traffic.add(slot, 100, 256));
        traffic.unite_in(2);
        assert_eq!((traffic.bytes_out(), traffic.bytes_back(), traffic.slot), (400, 1024, 2));
        traffic.add(8, 1, 0);
        assert_eq!(traffic.bytes_out(), 1);
    }
}
