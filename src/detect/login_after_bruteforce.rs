//! Guessed logins that may have worked: a client that guesses has a session unlike its guesses.
//!
//! Who guesses is what `ssh_bruteforce` and `rdp_bruteforce` have reported in their long window. A guess is short:
//! some packets of key exchange, a refusal. A session that carries far more, or a connection that lasts longer
//! than servers wait for a password, is a login, most likely. An outside client that guessed anywhere is
//! watched at all login services; an inside one only where it guessed, because it may be an admin's.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::detector::Detector;
use super::episode::{Episodes, Sighting};
use super::known::Guesser;
use super::outcome::{Outcome, TCP};
use super::pane::{PaneView, Tried};
use super::report::{Draft, finding, spelled};
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_range};
use crate::aggregate::{CLIENT_PORTS_MAX, ContactView};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// How much more a session carries than guesses, at least.
const TIMES_GUESS_MIN: u64 = 4;

/// Longest guess in packets of the client.
const GUESS_PACKETS_MAX: u64 = 40;

/// So many guesses have a mean that tells of the next ones.
const GUESSES_TELLING: u64 = 30;

/// A connection that lasts is seen in this many panes one after the other, at least.
const LASTING_PANES_MIN: u32 = 4;

/// How many panes a connection may be silent.
const SILENT_PANES_MAX: i64 = 1;

/// Connections of a pair that are followed.
const CONNECTIONS_MAX: usize = 16;

/// Bytes that a pair takes, with its connections.
const PAIR_BYTES: usize = 1024;

/// How long a login is told of as one.
const QUIET_SECONDS: u32 = 3600;

/// `[detectors.login_after_bruteforce]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoginAfterBruteforceSettings {
    /// Whether to look for logins of clients that guess.
    pub enabled: bool,
    /// Packets of the client beyond those of guesses, 2 to 1000000.
    pub session_packets_min: u32,
    /// How long a connection lasts, whatever it carries, 60 to 86400.
    pub session_seconds_min: u32,
    /// Pairs of hosts kept, 1000 to 1000000000; a pair takes about 1000 bytes.
    pub tracked_max: u32,
}

impl Default for LoginAfterBruteforceSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            session_packets_min: 40,
            session_seconds_min: 300,
            tracked_max: 100_000,
        }
    }
}

impl LoginAfterBruteforceSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        let packets = ("session_packets_min", self.session_packets_min);
        check_range(packets.0, packets.1, 2..=1_000_000, usual.session_packets_min)?;
        let seconds = ("session_seconds_min", self.session_seconds_min);
        check_range(seconds.0, seconds.1, 60..=WINDOW_SECONDS_MAX, usual.session_seconds_min)?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// A connection that goes on.
#[derive(Clone, Copy, Debug)]
struct Connection {
    start: UnixSeconds,
    last_pane: PaneIndex,
    /// Panes in which it was seen.
    panes: u32,
    /// What the client sent in panes with no other connection of the pair.
    packets: u64,
}

impl Saved for Connection {
    const BYTES_MIN: usize = 28;

    fn save(&self, out: &mut Encoder) {
        self.start.save(out);
        self.last_pane.save(out);
        out.u32(self.panes);
        out.u64(self.packets);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let (start, last_pane) = (UnixSeconds::load(from)?, PaneIndex::load(from)?);
        Ok(Self { start, last_pane, panes: from.u32()?, packets: from.u64()? })
    }
}

/// What sessions of a client that guesses look like at one service.
#[derive(Debug)]
struct Pair {
    last_pane: PaneIndex,
    guesses: u64,
    guess_packets: u64,
    /// By client port.
    connections: BTreeMap<u16, Connection>,
}

impl Saved for Pair {
    const BYTES_MIN: usize = 32;

    fn save(&self, out: &mut Encoder) {
        self.last_pane.save(out);
        out.u64(self.guesses);
        out.u64(self.guess_packets);
        self.connections.save(out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            last_pane: PaneIndex::load(from)?,
            guesses: from.u64()?,
            guess_packets: from.u64()?,
            connections: BTreeMap::load(from)?,
        })
    }
}

/// A session unlike guesses.
#[derive(Clone, Copy, Debug)]
struct Login {
    variant: &'static str,
    start: UnixSeconds,
    packets: u64,
    bytes: u64,
    guess_packets: u64,
}

/// Client, server and the service's port.
type PairKey = (Addr, (Addr, u16));

/// The detector's memory.
#[derive(Debug)]
pub(super) struct LoginAfterBruteforce {
    settings: LoginAfterBruteforceSettings,
    pairs: BTreeMap<PairKey, Pair>,
    episodes: Episodes<PairKey>,
    pairs_max: usize,
    evictions: u64,
}

impl LoginAfterBruteforce {
    /// A detector without memory, whose tables take at most `bytes_max`.
    pub(super) fn new(settings: LoginAfterBruteforceSettings, bytes_max: usize) -> Self {
        let tracked_max = settings.tracked_max as usize;
        let open_max = tracked_max.min(bytes_max / 8 / Episodes::<PairKey>::entry_bytes());
        Self {
            pairs: BTreeMap::new(),
            episodes: Episodes::new(QUIET_SECONDS, open_max),
            pairs_max: tracked_max.min(bytes_max / 8 * 7 / PAIR_BYTES).max(1),
            evictions: 0,
            settings,
        }
    }

    /// Takes the sessions of a pair in this pane and says whether one of them is a login.
    fn on_sessions(&mut self, key: PairKey, tried: &Tried, view: &PaneView<'_>) -> Option<Login> {
        let Self { settings, pairs, .. } = self;
        let now = view.index();
        let contact = view.contact(tried);
        let pair = pairs.entry(key).or_insert_with(|| Pair {
            last_pane: now,
            guesses: 0,
            guess_packets: 0,
            connections: BTreeMap::new(),
        });
        pair.last_pane = now;
        pair.follow(now, contact);
        let (forward, _) = contact.forward();
        let goes_on = pair.uncount(contact);
        let sizes = pair.sizes(contact, settings);
        let Sizes { packets, guess_packets, beyond, packets_min, .. } = sizes;
        let login = |variant, start, packets| Login {
            variant,
            start,
            packets,
            bytes: forward.bytes,
            guess_packets,
        };
        if beyond > packets_min {
            return Some(login("larger", tried.first_start, beyond));
        }
        // Of one connection alone it is known what it carried since it began.
        if let [port] = contact.client_ports()
            && let Some(connection) = pair.connections.get_mut(port)
        {
            connection.packets = connection.packets.saturating_add(packets);
            if connection.packets > packets_min {
                return Some(login("larger", connection.start, connection.packets));
            }
        }
        let lasting = contact.client_ports().iter().filter_map(|port| {
            let connection = pair.connections.get(port)?;
            let seconds = tried.last_end.0.saturating_sub(connection.start.0);
            let is_lasting = connection.panes >= LASTING_PANES_MIN
                && seconds >= i64::from(settings.session_seconds_min);
            is_lasting.then_some(connection.start)
        });
        if let Some(start) = lasting.min() {
            return Some(login("longer", start, beyond));
        }
        if !goes_on {
            pair.guesses = pair.guesses.saturating_add(sizes.records);
            pair.guess_packets = pair.guess_packets.saturating_add(forward.packets);
        }
        None
    }

    fn report(
        &mut self,
        (client, (server, port)): PairKey,
        service: &'static str,
        login: Login,
        tried: &Tried,
        view: &PaneView<'_>,
    ) -> Option<Finding> {
        let last_seen = tried.last_end;
        let sighting = Sighting { first_seen: login.start, last_seen, size: login.packets };
        let report = self.episodes.note((client, (server, port)), sighting)?;
        let seconds = u64::try_from(last_seen.0.saturating_sub(login.start.0)).unwrap_or(0);
        let draft = || Draft {
            severity: Severity::Critical,
            confidence: if login.variant == "larger" { 0.8 } else { 0.7 },
            title: format!(
                "{client}, which guessed {service} logins, has a session with {server} unlike its guesses{}",
                match login.variant {
                    "larger" => format!(": {} packets", login.packets),
                    _ => format!(
                        ": it lasts for {}",
                        spelled(u32::try_from(seconds).unwrap_or(u32::MAX))
                    ),
                }
            ),
            actor: client,
            identity: (vec![server], vec![port]),
            targets: vec![server],
            ports: vec![port],
            last_seen,
            window_seconds: QUIET_SECONDS,
            evidence: BTreeMap::from([
                ("variant", Evidence::Word(login.variant)),
                ("service", Evidence::Word(service)),
                ("session_packets", Evidence::Count(login.packets)),
                ("session_bytes", Evidence::Count(login.bytes)),
                ("session_seconds", Evidence::Count(seconds)),
                ("packets_per_guess", Evidence::Count(login.guess_packets)),
            ]),
            context: view.context(std::iter::once(tried)),
            exact: true,
        };
        Some(finding(FindingKind::LoginAfterBruteforce, report, view, draft))
    }

    /// Forgets pairs whose client no longer counts as guessing, and the quietest ones if there are too many.
    fn forget(&mut self, guessers: &[Guesser]) {
        let is_guessing =
            |client: &Addr| guessers.binary_search_by_key(client, |g| g.client).is_ok();
        self.pairs.retain(|(client, _), _| is_guessing(client));
        if self.pairs.len() <= self.pairs_max {
            return;
        }
        let excess = self.pairs.len() - (self.pairs_max - self.pairs_max / 10);
        let mut ranks: Vec<_> =
            self.pairs.iter().map(|(key, pair)| (pair.last_pane, *key)).collect();
        ranks.sort_unstable();
        for (_, key) in &ranks[..excess] {
            self.pairs.remove(key);
            self.evictions += 1;
        }
    }
}

/// How often the pane's records tell of the same: without directions, traffic that both ends logged has two
/// records, nearly always in the same pane.
fn copies(contact: ContactView<'_>) -> u64 {
    let (flows, ports) = (u64::from(contact.forward().0.flows), contact.client_ports().len());
    if ports < CLIENT_PORTS_MAX { (flows / ports.max(1) as u64).max(1) } else { 1 }
}

/// How large the sessions of a pane are beside guesses.
struct Sizes {
    records: u64,
    /// What the client sent.
    packets: u64,
    /// The mean of guesses, by record.
    guess_packets: u64,
    /// What it sent beyond guesses.
    beyond: u64,
    /// How much of that a login has at least.
    packets_min: u64,
}

impl Pair {
    fn sizes(&self, contact: ContactView<'_>, settings: &LoginAfterBruteforceSettings) -> Sizes {
        let (forward, copies) = (contact.forward().0, copies(contact));
        // Guesses are measured by record; one over the border of two windows has two as well.
        let records = u64::from(forward.flows).max(contact.client_ports().len() as u64).max(1);
        let guess_packets = self.guess_packets.div_ceil(self.guesses.max(1));
        // All but one session are taken for guesses: as large as those seen, or, while these are few, as guesses
        // may be at most.
        let usual = match self.guesses {
            GUESSES_TELLING.. => guess_packets,
            _ => guess_packets.max(GUESS_PACKETS_MAX),
        };
        let of_guesses = usual.saturating_mul(records - 1);
        Sizes {
            records,
            packets: forward.packets / copies,
            guess_packets,
            beyond: forward.packets.saturating_sub(of_guesses) / copies,
            // Guesses differ, and many of them differ from their mean by more than one session.
            packets_min: u64::from(settings.session_packets_min)
                .max(TIMES_GUESS_MIN.saturating_mul(guess_packets))
                .saturating_add(of_guesses / 4),
        }
    }

    /// Takes back that a connection which goes on, alone in this pane, was counted as a guess; says whether it is
    /// one that goes on.
    fn uncount(&mut self, contact: ContactView<'_>) -> bool {
        let [port] = contact.client_ports() else { return false };
        let Some(connection) = self.connections.get(port) else { return false };
        if connection.panes == 2 && connection.packets > 0 {
            let copies = copies(contact);
            self.guesses = self.guesses.saturating_sub(copies);
            self.guess_packets =
                self.guess_packets.saturating_sub(copies.saturating_mul(connection.packets));
        }
        connection.panes > 1
    }

    /// Follows the connections of a pane.
    fn follow(&mut self, now: PaneIndex, contact: ContactView<'_>) {
        self.connections.retain(|_, connection| {
            now.0.saturating_sub(connection.last_pane.0) <= SILENT_PANES_MAX + 1
        });
        for port in contact.client_ports() {
            if self.connections.len() >= CONNECTIONS_MAX && !self.connections.contains_key(port) {
                continue;
            }
            let start = contact.first_start();
            let new = Connection { start, last_pane: now, panes: 0, packets: 0 };
            let connection = self.connections.entry(*port).or_insert(new);
            connection.last_pane = now;
            connection.panes = connection.panes.saturating_add(1);
        }
    }
}

/// Whether a session with `server` tells something of these episodes of one client.
fn is_watched(guessers: &[Guesser], server: Addr, port: u16, inside: bool) -> Option<&'static str> {
    let of_port = guessers.iter().filter(|guesser| guesser.port == port);
    let mut telling =
        of_port.filter(|guesser| !inside || guesser.server.is_none_or(|guessed| guessed == server));
    telling.next().map(|guesser| guesser.service)
}

impl Detector for LoginAfterBruteforce {
    fn name(&self) -> &'static str {
        "login_after_bruteforce"
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let guessers = &view.known.guessers;
        for guessers in guessers.chunk_by(|one, other| one.client == other.client) {
            let client = guessers[0].client;
            let inside = view.network.is_inside(client);
            let from = view.tried.partition_point(|tried| tried.client < client);
            let of_client = view.tried[from..].iter().take_while(|tried| tried.client == client);
            for tried in of_client {
                if tried.protocol == TCP
                    && tried.outcome == Outcome::Answered
                    && let Some(service) = is_watched(guessers, tried.server, tried.port, inside)
                {
                    let key = (client, (tried.server, tried.port));
                    if let Some(login) = self.on_sessions(key, tried, view) {
                        out.extend(self.report(key, service, login, tried, view));
                    }
                }
            }
        }
        self.forget(guessers);
        self.episodes.end_pane(view.index().end(view.pane_seconds));
    }

    fn evictions(&self) -> u64 {
        self.evictions + self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.pairs.len() * PAIR_BYTES + self.episodes.bytes()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.evictions);
        self.pairs.save(out);
        self.episodes.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("logins after guesses", 1..=1)?;
        let evictions = from.u64()?;
        let pairs = BTreeMap::load(from)?;
        self.episodes = self.episodes.load(from)?;
        self.pairs = pairs;
        self.evictions = evictions;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::scenarios::{OUTSIDE, check, findings, host, reply, sessions, syn};
    use super::*;
    use crate::aggregate::ContactRow;
    use crate::finding::Status;

    const FAST: (&str, &str, Status) = ("ssh_bruteforce", "fast", Status::Open);
    const TRIED: (&str, &str, Status) = ("remote_access_attempt", "answered", Status::Open);

    /// A part of a connection, of so many packets.
    fn part(
        at: i64,
        src: &str,
        server: Addr,
        client_port: u16,
        packets: u64,
    ) -> Vec<ContactRow<'static>> {
        let opened = syn(at, src, server, 22);
        let row = ContactRow { src_port: client_port, packets, bytes: packets * 150, ..opened };
        vec![row, reply(row, 0, packets, packets * 200, 18)]
    }

    fn guesses() -> Vec<ContactRow<'static>> {
        sessions(12, 5, OUTSIDE, host(5), 22)
    }

    #[test]
    fn a_session_unlike_the_guesses_is_a_login() {
        check(&guesses(), &[FAST, TRIED]);
        let login = |variant| ("login_after_bruteforce", variant, Status::Open);
        let with = |parts: Vec<Vec<ContactRow<'static>>>| -> Vec<_> {
            guesses().into_iter().chain(parts.into_iter().flatten()).collect()
        };
        check(
            &with(vec![part(400, OUTSIDE, host(5), 40_001, 300)]),
            &[FAST, TRIED, login("larger")],
        );
        // At another server too, and grown over minutes.
        let elsewhere = |i: i64| part(400 + i * 60, OUTSIDE, host(6), 40_001, 25);
        check(&with((0..3).map(elsewhere).collect()), &[FAST, TRIED, TRIED, login("larger")]);
        let idle = |i: i64| part(400 + i * 60, OUTSIDE, host(5), 40_001, 2);
        check(&with((0..7).map(idle).collect()), &[FAST, TRIED, login("longer")]);
        // Of somebody else it says nothing.
        let other = part(400, "203.0.113.77", host(5), 40_001, 300);
        check(&with(vec![other]), &[FAST, TRIED, TRIED]);
        check(&part(400, "10.20.7.7", host(5), 40_001, 300), &[]);
    }

    #[test]
    fn an_inside_guesser_is_watched_where_it_guessed() {
        const INSIDE: &str = "10.20.7.7";
        let rows = |server| -> Vec<_> {
            let guesses = sessions(12, 5, INSIDE, host(5), 22);
            guesses.into_iter().chain(part(400, INSIDE, server, 40_001, 300)).collect()
        };
        let login = ("login_after_bruteforce", "larger", Status::Open);
        check(&rows(host(5)), &[FAST, login]);
        check(&rows(host(6)), &[FAST]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn guesses_alone_are_no_login_and_a_large_session_is(
            sizes in prop::collection::vec(7_u64..27, 20..120), every in 1_i64..20, login_packets in 200_u64..2000,
        ) {
            let mut rows = Vec::new();
            for (number, packets) in (0_u16..).zip(&sizes) {
                rows.extend(part(i64::from(number) * every, OUTSIDE, host(5), 50_000 + number, *packets));
            }
            let logins = |rows: &[ContactRow<'static>]| {
                let found = findings(rows, 2);
                found.iter().filter(|f| f.kind == FindingKind::LoginAfterBruteforce).count()
            };
            let is_found = findings(&rows, 2).iter().any(|f| f.kind == FindingKind::SshBruteforce);
            prop_assert_eq!(logins(&rows), 0);
            let end = i64::try_from(sizes.len()).unwrap() * every;
            rows.extend(part(end + 120, OUTSIDE, host(5), 40_001, login_packets));
            prop_assert_eq!(logins(&rows), usize::from(is_found));
        }
    }
}
