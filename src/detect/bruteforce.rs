//! Guessing of logins: a client opens session after session to a login service.
//!
//! A session is a client port, so neither the number of records nor a connection that lasts over many
//! panes counts as more than one. Only short answered sessions count. Three signs: many sessions to one
//! server within minutes; fewer per minute over hours; and a spray over several servers. Inside hosts
//! that reach many servers are management hosts and must show the first sign.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::detector::Detector;
use super::episode::{Episodes, Sighting};
use super::known::{Guesser, Known};
use super::outcome::{Outcome, TCP};
use super::pane::{PaneView, Tried};
use super::report::{Draft, confidence, finding_of, spelled};
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_order, check_range};
use crate::aggregate::{CLIENT_PORTS_MAX, ContactView};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// Longest session in packets from the client that may be a failed login: a handshake, a key exchange
/// and some six tries take about 30.
const SESSION_PACKETS_MAX: u64 = 40;

/// Longest session in bytes from the client that may be a failed login.
const SESSION_BYTES_MAX: u64 = 10_000;

/// How many servers of a spray must be tried in a window.
const SPRAY_SERVERS_MIN: usize = 3;

/// A service that can be reached and answers: whether a guess was right can't be seen.
const SEVERITY: Severity = Severity::High;

/// Bytes that a client takes without its sessions: its entry, and a node of its own for its servers.
const CLIENT_BYTES: usize = 768;

/// Bytes that a server of a client takes without its sessions.
const SERVER_BYTES: usize = 96;

/// `[detectors.ssh_bruteforce]` and `[detectors.rdp_bruteforce]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BruteforceSettings {
    /// Whether to look for guessed logins.
    pub enabled: bool,
    /// TCP ports of the login service; left out, 22 for SSH and 3389 for RDP.
    pub ports: Option<Vec<u16>>,
    /// Sessions to one server within `window_seconds`, 2 to 100000.
    pub sessions_min: u32,
    /// The short window, 60 to 86400.
    pub window_seconds: u32,
    /// Sessions to one server within `slow_window_seconds`, 2 to 100000.
    pub slow_sessions_min: u32,
    /// The long window, `window_seconds` to 86400.
    pub slow_window_seconds: u32,
    /// Sessions from one outside client to three or more servers within `window_seconds`, at least two
    /// to each on average, 2 to 100000.
    pub spray_sessions_min: u32,
    /// An inside client with sessions to more servers than this within `slow_window_seconds` is a
    /// management host, 1 to 65536.
    pub management_hosts_min: u32,
    /// Sessions kept over all pairs of hosts, 1000 to 1000000000; a session takes about 24 bytes.
    pub tracked_max: u32,
}

impl Default for BruteforceSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            ports: None,
            sessions_min: 8,
            window_seconds: 600,
            slow_sessions_min: 40,
            slow_window_seconds: 14_400,
            spray_sessions_min: 20,
            management_hosts_min: 8,
            tracked_max: 1_000_000,
        }
    }
}

impl BruteforceSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        let sessions = 2..=100_000;
        if self.ports.as_ref().is_some_and(Vec::is_empty) {
            return Err(SettingsError::Empty { field: "ports" });
        }
        check_range("sessions_min", self.sessions_min, sessions.clone(), usual.sessions_min)?;
        check_range(
            "slow_sessions_min",
            self.slow_sessions_min,
            sessions.clone(),
            usual.slow_sessions_min,
        )?;
        check_range(
            "spray_sessions_min",
            self.spray_sessions_min,
            sessions,
            usual.spray_sessions_min,
        )?;
        let windows = 60..=WINDOW_SECONDS_MAX;
        check_range("window_seconds", self.window_seconds, windows.clone(), usual.window_seconds)?;
        check_range(
            "slow_window_seconds",
            self.slow_window_seconds,
            windows,
            usual.slow_window_seconds,
        )?;
        check_order(
            ("window_seconds", self.window_seconds),
            ("slow_window_seconds", self.slow_window_seconds),
        )?;
        check_range(
            "management_hosts_min",
            self.management_hosts_min,
            1..=65_536,
            usual.management_hosts_min,
        )?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// The login services that are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Ssh,
    Rdp,
}

impl Login {
    const fn usual_port(self) -> u16 {
        match self {
            Self::Ssh => 22,
            Self::Rdp => 3389,
        }
    }

    const fn kind(self) -> FindingKind {
        match self {
            Self::Ssh => FindingKind::SshBruteforce,
            Self::Rdp => FindingKind::RdpBruteforce,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ssh => "SSH",
            Self::Rdp => "RDP",
        }
    }
}

/// A session by its client port, and in which panes it was seen first and last.
#[derive(Clone, Copy, Debug)]
struct Session {
    port: u16,
    first_pane: PaneIndex,
    last_pane: PaneIndex,
    start: UnixSeconds,
}

/// The sessions of one pair, in the order of client ports.
#[derive(Debug, Default)]
struct Sessions {
    list: Vec<Session>,
    /// Whether a pane had more sessions than a contact counts.
    is_lower_bound: bool,
}

impl Saved for Sessions {
    const BYTES_MIN: usize = 9;

    fn save(&self, out: &mut Encoder) {
        out.bool(self.is_lower_bound);
        out.count(self.list.len());
        for Session { port, first_pane, last_pane, start } in &self.list {
            out.u16(*port);
            first_pane.save(out);
            last_pane.save(out);
            start.save(out);
        }
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let is_lower_bound = from.bool()?;
        let mut list: Vec<Session> = Vec::with_capacity(from.clone().count(26)?);
        for _ in 0..from.count(26)? {
            let port = from.u16()?;
            let (first_pane, last_pane) = (PaneIndex::load(from)?, PaneIndex::load(from)?);
            let start = UnixSeconds::load(from)?;
            if list.last().is_some_and(|last| last.port >= port) {
                return Err(DecodeError::Invalid("order of sessions"));
            }
            list.push(Session { port, first_pane, last_pane, start });
        }
        Ok(Self { list, is_lower_bound })
    }
}

impl Sessions {
    fn add(&mut self, pane: PaneIndex, expired: PaneIndex, contact: ContactView<'_>) {
        for port in contact.client_ports() {
            match self.list.binary_search_by_key(port, |session| session.port) {
                Ok(position) => self.list[position].last_pane = pane,
                Err(position) => {
                    let (first_pane, start) = (pane, contact.first_start());
                    let session = Session { port: *port, first_pane, last_pane: pane, start };
                    self.list.insert(position, session);
                }
            }
        }
        self.is_lower_bound |= contact.client_ports().len() >= CLIENT_PORTS_MAX;
        self.list.retain(|session| session.last_pane > expired);
    }

    /// Sessions that began after the pane `before`.
    fn begun(&self, before: PaneIndex) -> impl Iterator<Item = &Session> {
        self.list.iter().filter(move |session| session.first_pane > before)
    }
}

#[derive(Debug)]
struct Client {
    servers: BTreeMap<Addr, Sessions>,
    last_pane: PaneIndex,
}

impl Client {
    /// What tables are bounded by: sessions, and for servers without any at least one.
    fn size(&self) -> Size {
        let mut size = Size { sessions: 0, bytes: CLIENT_BYTES };
        for sessions in self.servers.values() {
            size.sessions += sessions.list.len().max(1);
            size.bytes += SERVER_BYTES + sessions.list.len() * 2 * size_of::<Session>();
        }
        size
    }
}

impl Saved for Client {
    const BYTES_MIN: usize = 16;

    fn save(&self, out: &mut Encoder) {
        self.last_pane.save(out);
        self.servers.save(out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { last_pane: PaneIndex::load(from)?, servers: BTreeMap::load(from)? })
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    sessions: usize,
    bytes: usize,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.sessions += other.sessions;
        self.bytes += other.bytes;
    }
}

impl std::ops::SubAssign for Size {
    fn sub_assign(&mut self, other: Self) {
        self.sessions -= other.sessions;
        self.bytes -= other.bytes;
    }
}

/// A pair, or a client's pairs together, over a threshold.
#[derive(Debug)]
struct Trip {
    servers: Vec<Addr>,
    sessions: u64,
    threshold: u32,
    window_seconds: u32,
    variant: &'static str,
    first_seen: UnixSeconds,
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct Bruteforce {
    login: Login,
    ports: Vec<u16>,
    settings: BruteforceSettings,
    clients: BTreeMap<Addr, Client>,
    /// By client and, unless it is a spray, server.
    episodes: Episodes<(Addr, Option<Addr>)>,
    clients_bytes_max: usize,
    evictions: u64,
    inexact_until: PaneIndex,
    /// The pane's findings, from when it is prepared until it is taken.
    found: Vec<Finding>,
}

impl Bruteforce {
    /// A detector without memory, whose tables take at most `bytes_max` between panes.
    pub(super) fn new(login: Login, settings: BruteforceSettings, bytes_max: usize) -> Self {
        let tracked_max = settings.tracked_max as usize;
        let entry_bytes = Episodes::<(Addr, Option<Addr>)>::entry_bytes();
        let open_max = tracked_max.min(bytes_max / 8 / entry_bytes);
        Self {
            login,
            ports: settings.ports.clone().unwrap_or_else(|| vec![login.usual_port()]),
            clients: BTreeMap::new(),
            episodes: Episodes::new(settings.slow_window_seconds, open_max),
            clients_bytes_max: bytes_max / 8 * 7,
            evictions: 0,
            inexact_until: PaneIndex(i64::MIN),
            found: Vec::new(),
            settings,
        }
    }

    fn size(&self) -> Size {
        let mut size = Size::default();
        self.clients.values().for_each(|client| size += client.size());
        size
    }

    fn is_login(&self, view: &PaneView<'_>, tried: &Tried) -> bool {
        tried.protocol == TCP
            && self.ports.contains(&tried.port)
            && tried.outcome == Outcome::Answered
            && !view.network.is_exempt_actor(tried.client)
            && is_short(view.contact(tried))
    }

    fn on_client(&mut self, logins: &[&Tried], view: &PaneView<'_>, out: &mut Vec<Finding>) {
        let client = logins[0].client;
        let expired = view.before_window(self.settings.slow_window_seconds);
        let state = self
            .clients
            .entry(client)
            .or_insert_with(|| Client { servers: BTreeMap::new(), last_pane: view.index() });
        state.last_pane = view.index();
        for login in logins {
            let sessions = state.servers.entry(login.server).or_default();
            sessions.add(view.index(), expired, view.contact(login));
        }
        let inside = view.network.is_inside(client);
        let trips = trips(&self.settings, state, inside, view, logins);
        let is_lower_bound = state.servers.values().any(|sessions| sessions.is_lower_bound);
        for trip in trips {
            out.extend(self.report(client, &trip, is_lower_bound, view, logins));
        }
    }

    fn report(
        &mut self,
        client: Addr,
        trip: &Trip,
        is_lower_bound: bool,
        view: &PaneView<'_>,
        logins: &[&Tried],
    ) -> Option<Finding> {
        let of_trip = |login: &&Tried| trip.servers.binary_search(&login.server).is_ok();
        let of_trip = || logins.iter().copied().filter(of_trip);
        let server = match trip.servers[..] {
            [server] => Some(server),
            _ => None,
        };
        let last_seen = of_trip().map(|login| login.last_end).max()?;
        let sighting = Sighting { first_seen: trip.first_seen, last_seen, size: trip.sessions };
        let report = self.episodes.note((client, server), sighting)?;
        let service = self.login.name();
        let whom = match server {
            Some(server) => server.to_string(),
            None => format!("{} hosts", trip.servers.len()),
        };
        let flows: u64 = of_trip().map(|login| u64::from(login.flows)).sum();
        let packets: u64 = of_trip().map(|login| view.contact(login).forward().0.packets).sum();
        let ports: BTreeSet<u16> = of_trip().map(|login| login.port).collect();
        let draft = || Draft {
            severity: SEVERITY,
            confidence: confidence(trip.sessions, trip.threshold.into()),
            title: format!(
                "{client} opened {} short {service} sessions to {whom} within {}",
                trip.sessions,
                spelled(trip.window_seconds)
            ),
            actor: client,
            identity: (server.into_iter().collect(), Vec::new()),
            targets: trip.servers.clone(),
            ports: ports.into_iter().collect(),
            last_seen,
            window_seconds: trip.window_seconds,
            evidence: BTreeMap::from([
                ("variant", Evidence::Word(trip.variant)),
                ("sessions", Evidence::Count(trip.sessions)),
                ("distinct_hosts", Evidence::Count(trip.servers.len() as u64)),
                ("flows", Evidence::Count(flows)),
                ("packets_per_flow", Evidence::Count(packets / flows.max(1))),
            ]),
            context: view.context(of_trip()),
            exact: !is_lower_bound && view.index() > self.inexact_until,
        };
        Some(finding_of((self.login.kind(), SEVERITY), report, view, draft))
    }

    /// Notes the clients of open episodes.
    fn note_guessers(&self, view: &PaneView<'_>, known: &mut Known) {
        let now = view.index().end(view.pane_seconds);
        for (client, server) in self.episodes.open_keys(now) {
            let service = self.login.name();
            let guesser = |port: &u16| Guesser { client, port: *port, server, service };
            known.guessers.extend(self.ports.iter().map(guesser));
        }
    }

    /// Forgets clients that were quiet for the long window, and the quietest ones if there are too many
    /// sessions.
    fn forget(&mut self, view: &PaneView<'_>) {
        let expired = view.before_window(self.settings.slow_window_seconds);
        self.clients.retain(|_, client| client.last_pane > expired);
        let sessions_max = self.settings.tracked_max as usize;
        let bytes_max = self.clients_bytes_max;
        let mut size = self.size();
        if size.sessions <= sessions_max && size.bytes <= bytes_max {
            return;
        }
        let mut by_quiet: Vec<(PaneIndex, Addr)> =
            self.clients.iter().map(|(addr, client)| (client.last_pane, *addr)).collect();
        by_quiet.sort_unstable();
        for (_, addr) in by_quiet {
            if size.sessions <= sessions_max - sessions_max / 10
                && size.bytes <= bytes_max - bytes_max / 10
            {
                break;
            }
            let client = self.clients.remove(&addr).expect("listed from the table");
            size -= client.size();
            self.evictions += 1;
        }
        self.inexact_until = view.after_window(expired);
    }
}

impl Detector for Bruteforce {
    fn name(&self) -> &'static str {
        self.login.kind().name()
    }

    fn is_on(&self) -> bool {
        self.settings.enabled
    }

    fn renew_every(&mut self, seconds: u32) {
        self.episodes.renew_every(seconds);
    }

    /// All the work is done here, so that whoever looks for guesses that worked knows who guesses.
    fn prepare(&mut self, view: &PaneView<'_>, known: &mut Known) {
        let logins: Vec<&Tried> =
            view.tried.iter().filter(|tried| self.is_login(view, tried)).collect();
        let mut found = std::mem::take(&mut self.found);
        for of_client in logins.chunk_by(|one, other| one.client == other.client) {
            self.on_client(of_client, view, &mut found);
        }
        self.found = found;
        self.note_guessers(view, known);
        self.forget(view);
        self.episodes.end_pane(view.index().end(view.pane_seconds));
    }

    fn on_pane(&mut self, _view: &PaneView<'_>, out: &mut Vec<Finding>) {
        out.append(&mut self.found);
    }

    fn evictions(&self) -> u64 {
        self.evictions + self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.size().bytes + self.episodes.bytes()
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.evictions);
        self.clients.save(out);
        self.episodes.save(out);
        self.inexact_until.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("guessed logins", 1..=1)?;
        let evictions = from.u64()?;
        let clients = BTreeMap::load(from)?;
        let episodes = self.episodes.load(from)?;
        let inexact_until = PaneIndex::load(from)?;
        self.clients = clients;
        self.episodes = episodes;
        self.evictions = evictions;
        self.inexact_until = inexact_until;
        Ok(())
    }
}

/// What of a client is over a threshold: a spray, or else pairs.
fn trips(
    settings: &BruteforceSettings,
    client: &Client,
    inside: bool,
    view: &PaneView<'_>,
    logins: &[&Tried],
) -> Vec<Trip> {
    let before = view.before_window(settings.window_seconds);
    let before_slow = view.before_window(settings.slow_window_seconds);
    let reached = |sessions: &Sessions, before| sessions.begun(before).next().is_some();
    let servers_reached = client.servers.values().filter(|s| reached(s, before_slow)).count();
    let is_management = inside && servers_reached > settings.management_hosts_min as usize;

    let touched: BTreeSet<Addr> = logins.iter().map(|login| login.server).collect();
    let mut pairs: Vec<Trip> = Vec::new();
    for server in &touched {
        let sessions = &client.servers[server];
        let fast = (settings.window_seconds, before, settings.sessions_min, "fast");
        let slow = (settings.slow_window_seconds, before_slow, settings.slow_sessions_min, "slow");
        let tripped = [Some(fast), (!is_management).then_some(slow)].into_iter().flatten().find(
            |(_, before, sessions_min, _)| {
                sessions.begun(*before).count() >= *sessions_min as usize
            },
        );
        if let Some((window_seconds, before, threshold, variant)) = tripped {
            pairs.push(Trip {
                servers: vec![*server],
                sessions: sessions.begun(before).count() as u64,
                threshold,
                window_seconds,
                variant,
                first_seen: first_start(sessions, before),
            });
        }
    }

    let recent: Vec<(Addr, &Sessions)> = client
        .servers
        .iter()
        .filter(|(_, sessions)| reached(sessions, before))
        .map(|(server, sessions)| (*server, sessions))
        .collect();
    let sessions: usize = recent.iter().map(|(_, sessions)| sessions.begun(before).count()).sum();
    let many_pairs = pairs.len() >= SPRAY_SERVERS_MIN;
    let many_tries = !inside
        && sessions >= settings.spray_sessions_min as usize
        && recent.len() >= SPRAY_SERVERS_MIN
        && sessions >= 2 * recent.len();
    if !(many_pairs || many_tries) || recent.len() < SPRAY_SERVERS_MIN {
        return pairs;
    }
    vec![Trip {
        servers: recent.iter().map(|(server, _)| *server).collect(),
        sessions: sessions as u64,
        threshold: settings.spray_sessions_min.min(u32::try_from(sessions).unwrap_or(u32::MAX)),
        window_seconds: settings.window_seconds,
        variant: "spray",
        first_seen: recent
            .iter()
            .map(|(_, sessions)| first_start(sessions, before))
            .min()
            .expect("several servers were reached"),
    }]
}

/// Whether all of a contact's sessions may be failed logins.
fn is_short(contact: ContactView<'_>) -> bool {
    let (forward, _) = contact.forward();
    // Traffic that both ends logged may count twice, which the limits leave room for.
    let sessions = (contact.client_ports().len() as u64).max(forward.flows.into());
    forward.packets <= SESSION_PACKETS_MAX * sessions
        && forward.bytes <= SESSION_BYTES_MAX * sessions
}

fn first_start(sessions: &Sessions, before: PaneIndex) -> UnixSeconds {
    sessions.begun(before).map(|session| session.start).min().unwrap_or(UnixSeconds::MAX)
}
