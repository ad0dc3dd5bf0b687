//! Heavy hitters that come and go: a sender whose share of all bytes has jumped, or that was steady and is gone.
//!
//! What each address sent in a pane is counted exactly, for those with a fair part of it: a first walk over the
//! contacts adds bytes up in a few thousand buckets by hash, a second one looks only at addresses of buckets that
//! have enough. So memory does not grow with the number of addresses, and the rule is plain: a pane counts for a
//! sender in which it had at least a quarter of `share_min_percent` ([`KEPT_PER_SHARE`]). Sums of those panes over the
//! window are compared with those over the time before it. Who is heavy from time to time, such as a nightly backup,
//! is not new; who is heavy always is no change; a pane or two of heavy traffic are none either.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::detector::{Detector, Met};
use super::episode::{Episodes, Report, Sighting};
use super::network::Network;
use super::pane::{PaneView, Tried};
use super::report::{Draft, confidence, finding, spelled};
use super::saved::Saved;
use super::settings::{SettingsError, WINDOW_SECONDS_MAX, check_order, check_range};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Evidence, Finding, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{ByteCount, PaneIndex, UnixSeconds};

/// Buckets of the first walk: 16 kB, so that they stay in the nearest cache.
const BUCKETS: usize = 1 << 11;

/// A sender is kept for a pane in which it has this part of the share that is looked for.
const KEPT_PER_SHARE: u128 = 4;

/// Bytes that a kept sender takes, and a pane with what the tree leaves free.
const SENDER_BYTES: usize = size_of::<(Addr, u64)>();
const PANE_BYTES: usize = 96;

/// `[detectors.top_talker_change]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopTalkerChangeSettings {
    /// Whether to look for changes of the top talkers.
    pub enabled: bool,
    /// Share of all bytes in the window that makes a top talker, in per cent, 1 to 100.
    pub share_min_percent: u32,
    /// Bytes that it sends within the window, 0 to 1000000000000000.
    pub bytes_min: u64,
    /// How many times as great as before its share must be, or as little, 2 to 1000.
    pub factor_min: u32,
    /// The window, 60 to 86400; within it, half of the panes must show the change.
    pub window_seconds: u32,
    /// Time before the window that must have been seen, 60 to `baseline_seconds`.
    pub warm_up_seconds: u32,
    /// Time before the window that it is compared with, 60 to 86400.
    pub baseline_seconds: u32,
    /// Senders kept over all panes, 1000 to 1000000000; each takes 32 bytes.
    pub tracked_max: u32,
}

impl Default for TopTalkerChangeSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            share_min_percent: 20,
            bytes_min: 100_000_000,
            factor_min: 4,
            window_seconds: 600,
            warm_up_seconds: 3600,
            baseline_seconds: 86_400,
            tracked_max: 200_000,
        }
    }
}

impl TopTalkerChangeSettings {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), SettingsError> {
        let usual = Self::default();
        check_range("share_min_percent", self.share_min_percent, 1..=100, usual.share_min_percent)?;
        let written = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let bytes_max = 1_000_000_000_000_000;
        check_range("bytes_min", written(self.bytes_min), 0..=bytes_max, written(usual.bytes_min))?;
        check_range("factor_min", self.factor_min, 2..=1000, usual.factor_min)?;
        let windows = 60..=WINDOW_SECONDS_MAX;
        check_range("window_seconds", self.window_seconds, windows.clone(), usual.window_seconds)?;
        let warm_up = self.warm_up_seconds;
        check_range("warm_up_seconds", warm_up, windows.clone(), usual.warm_up_seconds)?;
        check_range("baseline_seconds", self.baseline_seconds, windows, usual.baseline_seconds)?;
        check_order(
            ("warm_up_seconds", self.warm_up_seconds),
            ("baseline_seconds", self.baseline_seconds),
        )?;
        check_range("tracked_max", self.tracked_max, 1000..=1_000_000_000, usual.tracked_max)
    }
}

/// What is kept of a pane.
#[derive(Debug, Default)]
struct Sent {
    /// All bytes.
    total: u64,
    /// Senders with a fair part of them, in the order of addresses.
    senders: Vec<(Addr, u64)>,
}

impl Sent {
    fn of(&self, addr: Addr) -> u64 {
        let found = self.senders.binary_search_by_key(&addr, |(sender, _)| *sender);
        found.map_or(0, |place| self.senders[place].1)
    }

    fn is_heavy(&self, addr: Addr, share_percent: u32) -> bool {
        let bytes = self.of(addr);
        bytes > 0 && is_share(bytes.into(), self.total.into(), share_percent)
    }
}

fn is_share(part: u128, whole: u128, percent: u32) -> bool {
    part * 100 >= whole * u128::from(percent)
}

/// The panes of a span of time, and what one sender has of them.
#[derive(Clone, Copy, Debug, Default)]
struct Span {
    panes: u64,
    total: u128,
    bytes: u128,
    /// Panes in which the sender has the share that is looked for.
    heavy_panes: u64,
}

impl Span {
    fn of<'a>(panes: impl Iterator<Item = &'a Sent>, addr: Addr, share_percent: u32) -> Self {
        let mut span = Self::default();
        for sent in panes {
            span.panes += 1;
            span.total += u128::from(sent.total);
            span.bytes += u128::from(sent.of(addr));
            span.heavy_panes += u64::from(sent.is_heavy(addr, share_percent));
        }
        span
    }

    fn share_percent(&self) -> f64 {
        (self.bytes as f64 * 1000.0 / self.total.max(1) as f64).round() / 10.0
    }
}

/// Which way it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Rise,
    Fall,
}

impl Change {
    const fn variant(self) -> &'static str {
        match self {
            Self::Rise => "rise",
            Self::Fall => "fall",
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Rise => 0,
            Self::Fall => 1,
        }
    }
}

/// The detector's memory.
#[derive(Debug)]
pub(super) struct TopTalkerChange {
    settings: TopTalkerChangeSettings,
    /// The panes of the window and of the time that it is compared with.
    history: BTreeMap<PaneIndex, Sent>,
    sender_count: usize,
    senders_max: usize,
    bytes_max: usize,
    episodes: Episodes<(Addr, u8)>,
    evictions: u64,
    inexact_until: PaneIndex,
    /// Bytes by a hash of their sender; scratch.
    buckets: Vec<u64>,
    /// Senders of full buckets; scratch.
    listed: Vec<(Addr, u64)>,
}

impl TopTalkerChange {
    /// A detector without memory, whose tables take at most `bytes_max` between panes.
    pub(super) fn new(settings: TopTalkerChangeSettings, bytes_max: usize) -> Self {
        let open_max = bytes_max / 8 / Episodes::<(Addr, u8)>::entry_bytes();
        let senders_max = settings.tracked_max as usize;
        Self {
            history: BTreeMap::new(),
            sender_count: 0,
            senders_max,
            bytes_max: bytes_max / 8 * 7,
            episodes: Episodes::new(settings.baseline_seconds, open_max.min(senders_max)),
            evictions: 0,
            inexact_until: PaneIndex(i64::MIN),
            buckets: Vec::new(),
            listed: Vec::new(),
            settings,
        }
    }

    /// Takes up what was sent in the pane.
    fn take(&mut self, view: &PaneView<'_>) {
        let total = self.buckets.iter().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
        let Self { settings, buckets, listed, .. } = self;
        let is_kept = |bytes: u64| {
            let part = u128::from(bytes) * KEPT_PER_SHARE;
            bytes > 0 && is_share(part, total.into(), settings.share_min_percent)
        };
        let full: Vec<bool> = buckets.iter().map(|bytes| is_kept(*bytes)).collect();
        buckets.fill(0);
        if total > 0 {
            let contacts = view.pane.shards().flat_map(|(_, shard)| shard.contacts.iter());
            for (_, key, contact) in contacts {
                let mut list = |addr: Addr, bytes: u64| {
                    if full[bucket_of(addr)] && bytes > 0 {
                        listed.push((addr, bytes));
                    }
                };
                list(key.client, contact.forward().0.bytes);
                list(key.server, contact.back().0.bytes);
            }
        }
        listed.sort_unstable_by_key(|(addr, _)| *addr);
        let senders = listed.chunk_by(|one, other| one.0 == other.0).map(|of_one| {
            (of_one[0].0, of_one.iter().fold(0, |sum: u64, (_, bytes)| sum.saturating_add(*bytes)))
        });
        let senders: Vec<(Addr, u64)> = senders.filter(|(_, bytes)| is_kept(*bytes)).collect();
        listed.clear();
        self.sender_count += senders.len();
        if let Some(replaced) = self.history.insert(view.index(), Sent { total, senders }) {
            self.sender_count -= replaced.senders.len();
        }
    }

    /// Forgets what is too old, and the oldest panes if there is too much.
    fn forget(&mut self, view: &PaneView<'_>) {
        let TopTalkerChangeSettings { window_seconds, baseline_seconds, .. } = self.settings;
        let expired = view.before_window(window_seconds.saturating_add(baseline_seconds));
        while self.history.first_key_value().is_some_and(|(pane, _)| *pane <= expired) {
            self.remove_oldest();
        }
        while self.history.len() > 1
            && (self.sender_count > self.senders_max || self.history_bytes() > self.bytes_max)
        {
            self.evictions += self.remove_oldest() as u64;
            self.inexact_until = view.after_window(expired);
        }
    }

    /// How many senders it had.
    fn remove_oldest(&mut self) -> usize {
        let removed = self.history.pop_first().map_or(0, |(_, sent)| sent.senders.len());
        self.sender_count -= removed;
        removed
    }

    fn history_bytes(&self) -> usize {
        self.sender_count * SENDER_BYTES + self.history.len() * PANE_BYTES
    }

    /// The senders that have changed, in order, with the window and the time before.
    fn changes(&self, view: &PaneView<'_>) -> Vec<(Addr, Change, Span, Span)> {
        let settings = &self.settings;
        let before_window = view.before_window(settings.window_seconds);
        let window_panes = panes_of(settings.window_seconds, view.pane_seconds);
        let warm_up_panes = panes_of(settings.warm_up_seconds, view.pane_seconds);
        let window = || self.history.range(PaneIndex(before_window.0.saturating_add(1))..);
        let before = || self.history.range(..=before_window);
        let is_warm = before().count() as u64 >= warm_up_panes.div_ceil(2)
            && before().next().is_some_and(|(first, _)| {
                before_window.0.saturating_sub(first.0).saturating_add(1).unsigned_abs()
                    >= warm_up_panes
            });
        let has_enough = (window().count() as u64) >= window_panes.div_ceil(2);
        if !is_warm || !has_enough {
            return Vec::new();
        }
        let spans = |addr| {
            let share = settings.share_min_percent;
            let window = Span::of(window().map(|(_, sent)| sent), addr, share);
            (window, Span::of(before().map(|(_, sent)| sent), addr, share))
        };
        let listed = |sent: Option<(&PaneIndex, &Sent)>| -> Vec<Addr> {
            sent.map_or_else(Vec::new, |(_, sent)| {
                sent.senders.iter().map(|(addr, _)| *addr).collect()
            })
        };
        let risen = listed(window().next_back()).into_iter().filter_map(|addr| {
            let (window, before) = spans(addr);
            self.has_risen(window, before, window_panes).then_some((
                addr,
                Change::Rise,
                window,
                before,
            ))
        });
        let fallen = listed(before().next_back()).into_iter().filter_map(|addr| {
            let (window, before) = spans(addr);
            self.has_fallen(window, before).then_some((addr, Change::Fall, window, before))
        });
        let mut changes: Vec<_> = risen.chain(fallen).collect();
        changes.retain(|(addr, ..)| !view.network.is_exempt_actor(*addr));
        changes.sort_by_key(|(addr, change, ..)| (*addr, change.number()));
        changes
    }

    /// Heavy in half of the window and over all of it, with many times the share of before, and not heavy for as
    /// long at any time before.
    fn has_risen(&self, window: Span, before: Span, window_panes: u64) -> bool {
        let Self { settings, .. } = self;
        window.bytes >= u128::from(settings.bytes_min)
            && is_share(window.bytes, window.total, settings.share_min_percent)
            && window.heavy_panes >= window_panes.div_ceil(2)
            && is_times(window, before, settings.factor_min)
            && before.heavy_panes < window_panes.div_ceil(2)
    }

    /// Heavy in nine of ten panes before, and now with a fraction of that, while the others go on.
    fn has_fallen(&self, window: Span, before: Span) -> bool {
        let Self { settings, .. } = self;
        let others = |span: Span| span.total - span.bytes;
        before.bytes * u128::from(window.panes)
            >= u128::from(settings.bytes_min) * u128::from(before.panes)
            && is_share(before.bytes, before.total, settings.share_min_percent)
            && before.heavy_panes * 10 >= before.panes * 9
            && is_times(before, window, settings.factor_min)
            && others(window) * u128::from(before.panes) * 2
                >= others(before) * u128::from(window.panes)
    }

    fn report(
        &self,
        (addr, change, window, before): (Addr, Change, Span, Span),
        report: Report,
        view: &PaneView<'_>,
    ) -> Finding {
        let settings = &self.settings;
        let (now_percent, before_percent) = (window.share_percent(), before.share_percent());
        let draft = || {
            let span = spelled(settings.window_seconds);
            let bytes = ByteCount(if change == Change::Rise { window.bytes } else { before.bytes });
            let title = match change {
                Change::Rise => format!(
                    "{addr} became a top talker: it sent {bytes}, {now_percent} % of all bytes, within {span}; before it was {before_percent} %"
                ),
                Change::Fall => format!(
                    "{addr} is no top talker any more: {now_percent} % of all bytes within {span}; before it was {before_percent} %"
                ),
            };
            let peer = main_peer(addr, view);
            let (high, low) = match change {
                Change::Rise => (now_percent, before_percent),
                Change::Fall => (before_percent, now_percent),
            };
            let least = f64::from(settings.factor_min) * low.max(0.1);
            let count = |bytes: u128| Evidence::Count(u64::try_from(bytes).unwrap_or(u64::MAX));
            Draft {
                severity: match (change, view.network.is_inside(addr)) {
                    (Change::Rise, true) => Severity::Medium,
                    _ => Severity::Low,
                },
                confidence: confidence(scaled(high.max(least)), scaled(least)),
                title,
                actor: addr,
                identity: (Vec::new(), vec![change.number().into()]),
                targets: peer.into_iter().map(|(peer, _)| peer).collect(),
                ports: peer.into_iter().map(|(_, port)| port).filter(|port| *port > 0).collect(),
                last_seen: last_seen(view),
                window_seconds: settings.window_seconds,
                evidence: BTreeMap::from([
                    ("variant", Evidence::Word(change.variant())),
                    ("bytes", count(window.bytes)),
                    ("total_bytes", count(window.total)),
                    ("share_percent", Evidence::Number(now_percent)),
                    ("baseline_share_percent", Evidence::Number(before_percent)),
                    ("baseline_bytes", count(before.bytes)),
                    ("baseline_panes", Evidence::Count(before.panes)),
                    ("heavy_panes", Evidence::Count(window.heavy_panes)),
                ]),
                context: view.context(of_sender(addr, view)),
                exact: view.index() > self.inexact_until,
            }
        };
        finding(FindingKind::TopTalkerChange, report, view, draft)
    }
}

/// Whether the share of `one` is so many times that of `other`.
fn is_times(one: Span, other: Span, factor: u32) -> bool {
    one.bytes.saturating_mul(other.total.max(1))
        >= other.bytes.saturating_mul(one.total.max(1)).saturating_mul(factor.into())
}

/// Tenths, for a confidence.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "per cents times at most 1000"
)]
fn scaled(percent: f64) -> u64 {
    (percent * 10.0).ceil() as u64
}

fn panes_of(seconds: u32, pane_seconds: i64) -> u64 {
    u64::from(seconds).div_ceil(pane_seconds.unsigned_abs().max(1))
}

/// The end of the pane that was judged, or of its newest record.
fn last_seen(view: &PaneView<'_>) -> UnixSeconds {
    view.pane.newest_end.unwrap_or_else(|| view.index().start(view.pane_seconds))
}

/// The contacts that an address is an end of.
fn of_sender<'a>(addr: Addr, view: &'a PaneView<'_>) -> impl Iterator<Item = &'a Tried> {
    view.tried.iter().filter(move |tried| tried.client == addr || tried.server == addr)
}

/// To whom it sent most in the pane, and the service's port.
fn main_peer(addr: Addr, view: &PaneView<'_>) -> Option<(Addr, u16)> {
    let mut by_peer: BTreeMap<(Addr, u16), u64> = BTreeMap::new();
    for (_, shard) in view.pane.shards() {
        for (_, key, contact) in shard.contacts.iter() {
            let sent = [
                (key.client, key.server, contact.forward().0.bytes),
                (key.server, key.client, contact.back().0.bytes),
            ];
            for (_, peer, bytes) in sent.into_iter().filter(|(from, _, _)| *from == addr) {
                let sum = by_peer.entry((peer, key.port)).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
    }
    let most = by_peer.into_iter().filter(|(_, bytes)| *bytes > 0);
    most.max_by_key(|(key, bytes)| (*bytes, std::cmp::Reverse(*key))).map(|(key, _)| key)
}

/// Where the bytes of a sender are added up first.
#[expect(clippy::cast_possible_truncation, reason = "the product's high bits are below the count")]
fn bucket_of(addr: Addr) -> usize {
    let bits = addr.bits();
    let folded = (bits as u64) ^ ((bits >> 64) as u64).rotate_left(32);
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BUCKETS.ilog2())) as usize
}

impl Detector for TopTalkerChange {
    fn name(&self) -> &'static str {
        FindingKind::TopTalkerChange.name()
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

    fn watch(&mut self, contacts: &[Met], _: &Network) {
        self.buckets.resize(BUCKETS, 0);
        for met in contacts {
            let sent = [(met.key.client, met.forward.0.bytes), (met.key.server, met.back.0.bytes)];
            for (addr, bytes) in sent {
                let bucket = &mut self.buckets[bucket_of(addr)];
                *bucket = bucket.saturating_add(bytes);
            }
        }
    }

    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>) {
        self.buckets.resize(BUCKETS, 0);
        self.take(view);
        self.forget(view);
        for change in self.changes(view) {
            let (addr, which, window, before) = change;
            let size = if which == Change::Rise { window.bytes } else { before.bytes };
            let size = u64::try_from(size).unwrap_or(u64::MAX);
            let last_seen = last_seen(view);
            let first_seen = view
                .before_window(self.settings.window_seconds)
                .end(view.pane_seconds)
                .min(last_seen);
            let sighting = Sighting { first_seen, last_seen, size };
            if let Some(report) = self.episodes.note((addr, which.number()), sighting) {
                out.push(self.report(change, report, view));
            }
        }
        self.episodes.end_pane(view.index().end(view.pane_seconds));
    }

    fn evictions(&self) -> u64 {
        self.evictions + self.episodes.evictions()
    }

    fn bytes(&self) -> usize {
        self.history_bytes() + self.episodes.bytes()
    }

    fn scratch_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<u64>() + self.listed.capacity() * SENDER_BYTES
    }

    fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.evictions);
        self.inexact_until.save(out);
        out.count(self.history.len());
        for (pane, sent) in &self.history {
            pane.save(out);
            out.u64(sent.total);
            out.count(sent.senders.len());
            for (addr, bytes) in &sent.senders {
                addr.save(out);
                out.u64(*bytes);
            }
        }
        self.episodes.save(out);
    }

    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError> {
        from.version("changes of top talkers", 1..=1)?;
        let evictions = from.u64()?;
        let inexact_until = PaneIndex::load(from)?;
        let mut history: BTreeMap<PaneIndex, Sent> = BTreeMap::new();
        for _ in 0..from.count(24)? {
            let pane = PaneIndex::load(from)?;
            if history.last_key_value().is_some_and(|(last, _)| *last >= pane) {
                return Err(DecodeError::Invalid("order of panes"));
            }
            let total = from.u64()?;
            let mut senders: Vec<(Addr, u64)> = Vec::new();
            for _ in 0..from.count(24)? {
                let (addr, bytes) = (Addr::load(from)?, from.u64()?);
                if senders.last().is_some_and(|(last, _)| *last >= addr) || bytes > total {
                    return Err(DecodeError::Invalid("senders of a pane"));
                }
                senders.push((addr, bytes));
            }
            let sum = senders.iter().map(|(_, bytes)| u128::from(*bytes)).sum::<u128>();
            if sum > total.into() {
                return Err(DecodeError::Invalid("senders of a pane"));
            }
            history.insert(pane, Sent { total, senders });
        }
        self.episodes = self.episodes.load(from)?;
        self.sender_count = history.values().map(|sent| sent.senders.len()).sum();
        (self.history, self.evictions, self.inexact_until) = (history, evictions, inexact_until);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
