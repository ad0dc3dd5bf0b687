//! Detectors: contacts on event-time windows in, findings out.
//!
//! ```text
//! PaneContacts of every shard ─► pane (merge) ─► outcome (judge, one pane behind) ─► detectors ─► Finding
//! ```
//!
//! One [`DetectorSet`] sees all shards' panes in order. A pane is judged when the one after it has been
//! merged, because an answer may come in the next pane. Every detector keeps its own sliding windows in
//! bounded tables, walks the contacts in the order of their keys, and knows no time but the records'; so
//! findings depend neither on the number of shards nor on the order of records within a pane. The
//! findings of a pane come detector by detector, in the order of [`DetectorSet`]'s fields, and those of a
//! detector in the order of their actors.

mod bruteforce;
mod distinct;
mod doorkeeper;
mod episode;
mod host_sweep;
mod key_index;
mod network;
mod once;
mod once_list;
mod order;
mod outcome;
mod pane;
mod port_scan;
mod remote_access;
mod report;
mod saved;
#[cfg(test)]
mod scenarios;
mod settings;
#[cfg(test)]
mod state_tests;
mod table_limits;
mod tracker;

pub use bruteforce::BruteforceSettings;
pub use host_sweep::HostSweepSettings;
pub use network::Network;
pub use port_scan::PortScanSettings;
pub use remote_access::RemoteAccessSettings;
pub use settings::{DetectSettings, SettingsError};

use crate::aggregate::PaneContacts;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::Finding;
use crate::units::{PaneIndex, UnixSeconds};
use bruteforce::{Bruteforce, Login};
use host_sweep::HostSweep;
use outcome::Verdicts;
use pane::{Detail, MergedPane, PaneView};
use port_scan::PortScan;
use remote_access::RemoteAccess;

/// Bytes of a detector that has no limit of its own.
const NO_LIMIT: usize = usize::MAX;

/// All detectors and the pane that waits for its successor.
#[derive(Debug)]
pub struct DetectorSet {
    pane_seconds: i64,
    network: Network,
    port_scan: PortScan,
    host_sweep: HostSweep,
    ssh_bruteforce: Bruteforce,
    rdp_bruteforce: Bruteforce,
    remote_access: RemoteAccess,
    waiting: Option<MergedPane>,
    verdicts: Verdicts,
    /// Findings of a pane before they are put in order; kept for the memory, which costs more to get anew at each
    /// pane than the findings.
    later: Vec<Finding>,
    detail: Detail,
    newest_end: UnixSeconds,
    /// Up to this pane, windows may hold panes whose contact tables were full.
    inexact_until: PaneIndex,
}

impl DetectorSet {
    /// Detectors without memory, for panes of `pane_seconds`.
    ///
    /// # Panics
    /// If `pane_seconds` is not positive.
    #[must_use]
    pub fn new(settings: &DetectSettings, network: Network, pane_seconds: i64) -> Self {
        assert!(pane_seconds > 0, "a pane has a length");
        let ssh = settings.ssh_bruteforce.clone();
        let rdp = settings.rdp_bruteforce.clone();
        Self {
            pane_seconds,
            network,
            port_scan: PortScan::new(settings.port_scan.clone(), NO_LIMIT),
            host_sweep: HostSweep::new(settings.host_sweep.clone(), NO_LIMIT),
            ssh_bruteforce: Bruteforce::new(Login::Ssh, ssh, NO_LIMIT),
            rdp_bruteforce: Bruteforce::new(Login::Rdp, rdp, NO_LIMIT),
            remote_access: RemoteAccess::new(settings.remote_access_attempt.clone(), NO_LIMIT),
            waiting: None,
            verdicts: Verdicts::default(),
            later: Vec::new(),
            detail: Detail::Full,
            newest_end: UnixSeconds::MIN,
            inexact_until: PaneIndex(i64::MIN),
        }
    }

    /// The same detectors, whose findings will only be counted: they say their kind and revision, no more.
    #[must_use]
    pub const fn for_counts(mut self) -> Self {
        self.detail = Detail::Counts;
        self
    }

    /// The same detectors, without memory yet, whose tables take at most `bytes_max` together. `tracked_max`
    /// of the settings still bounds the entries of each.
    ///
    /// Three eighths are for port scans, as much for host sweeps, an eighth for remote access, a sixteenth for
    /// each of the two guessed logins. The contacts of the pane that waits for its successor are not
    /// counted, nor is what judging one takes ([`Self::scratch_bytes`]); both follow the limit of contacts.
    #[must_use]
    pub fn with_bytes_max(self, bytes_max: usize) -> Self {
        let sixteenth = bytes_max / 16;
        Self {
            port_scan: self.port_scan.emptied(6 * sixteenth),
            host_sweep: self.host_sweep.emptied(6 * sixteenth),
            ssh_bruteforce: self.ssh_bruteforce.emptied(sixteenth),
            rdp_bruteforce: self.rdp_bruteforce.emptied(sixteenth),
            remote_access: self.remote_access.emptied(2 * sixteenth),
            ..self
        }
    }

    /// Memory that the detectors' tables hold, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.port_scan.bytes()
            + self.host_sweep.bytes()
            + self.ssh_bruteforce.bytes()
            + self.rdp_bruteforce.bytes()
            + self.remote_access.bytes()
    }

    /// Memory kept for judging the next pane, in bytes: some 250 for each contact of the largest pane.
    #[must_use]
    pub fn scratch_bytes(&self) -> usize {
        self.verdicts.bytes() + self.host_sweep.scratch_bytes()
    }

    /// The pane that waits for its successor.
    #[must_use]
    pub fn waiting_pane(&self) -> Option<PaneIndex> {
        self.waiting.as_ref().map(|waiting| waiting.pane)
    }

    /// Saves what the detectors remember, and the waiting pane, whose shards `save_shard` writes. Detectors
    /// that are off have nothing to save.
    pub fn save(&self, out: &mut Encoder, save_shard: impl Fn(&PaneContacts, &mut Encoder)) {
        out.version(1);
        out.i64(self.pane_seconds);
        out.i64(self.newest_end.0);
        out.i64(self.inexact_until.0);
        out.option(self.port_scan.if_on(), |out, detector| detector.save(out));
        out.option(self.host_sweep.if_on(), |out, detector| detector.save(out));
        out.option(self.ssh_bruteforce.if_on(), |out, detector| detector.save(out));
        out.option(self.rdp_bruteforce.if_on(), |out, detector| detector.save(out));
        out.option(self.remote_access.if_on(), |out, detector| detector.save(out));
        out.option(self.waiting.as_ref(), |out, waiting| waiting.save(out, save_shard));
    }

    /// Loads what [`Self::save`] wrote into detectors without memory, which may have other settings: what
    /// there is no room for any more leaves by the usual rules, thresholds apply to what is remembered, and
    /// detectors that were off then or are off now start empty. A shard of the waiting pane is read by
    /// `load_shard`.
    ///
    /// # Errors
    /// If the bytes are no such state, or panes had another length.
    pub fn load(
        self,
        from: &mut Decoder<'_>,
        load_shard: impl Fn(&mut Decoder<'_>) -> Result<PaneContacts, DecodeError>,
    ) -> Result<Self, DecodeError> {
        from.version("detectors", 1..=1)?;
        if from.i64()? != self.pane_seconds {
            return Err(DecodeError::Invalid("pane length, which must be that of the settings"));
        }
        Ok(Self {
            newest_end: UnixSeconds(from.i64()?),
            inexact_until: PaneIndex(from.i64()?),
            port_scan: load_if(from, self.port_scan, PortScan::load)?,
            host_sweep: load_if(from, self.host_sweep, HostSweep::load)?,
            ssh_bruteforce: load_if(from, self.ssh_bruteforce, Bruteforce::load)?,
            rdp_bruteforce: load_if(from, self.rdp_bruteforce, Bruteforce::load)?,
            remote_access: load_if(from, self.remote_access, RemoteAccess::load)?,
            waiting: from.option(|from| MergedPane::load(self.pane_seconds, from, load_shard))?,
            ..self
        })
    }

    /// Takes what all shards have of a pane (none is fine) and judges the pane before it.
    ///
    /// # Panics
    /// If panes come out of order, or with another length than promised.
    pub fn on_pane(&mut self, pane: PaneIndex, shards: Vec<PaneContacts>, out: &mut Vec<Finding>) {
        for shard in &shards {
            assert_eq!((shard.pane, shard.pane_seconds), (pane, self.pane_seconds));
        }
        let merged = MergedPane::merge(pane, shards);
        if let Some(newest_end) = merged.newest_end {
            self.newest_end = self.newest_end.max(newest_end);
        }
        if let Some(waiting) = self.waiting.take() {
            assert!(waiting.pane < pane, "panes come in order, each once");
            let next = (Some(pane.0) == waiting.pane.0.checked_add(1)).then_some(&merged);
            self.judge(&waiting, next, out);
        }
        self.waiting = Some(merged);
    }

    /// Judges the last pane: no more will come.
    pub fn on_end(&mut self, out: &mut Vec<Finding>) {
        if let Some(waiting) = self.waiting.take() {
            self.judge(&waiting, None, out);
        }
    }

    /// Entries that left tables because those were full, over all detectors.
    #[must_use]
    pub const fn evictions(&self) -> u64 {
        self.port_scan.evictions()
            + self.host_sweep.evictions()
            + self.ssh_bruteforce.evictions()
            + self.rdp_bruteforce.evictions()
            + self.remote_access.evictions()
    }

    fn judge(&mut self, pane: &MergedPane, next: Option<&MergedPane>, out: &mut Vec<Finding>) {
        if pane.refused_rows > 0 {
            let longest = settings::WINDOW_SECONDS_MAX / self.pane_seconds;
            self.inexact_until = PaneIndex(pane.pane.0.saturating_add(longest));
        }
        self.verdicts.judge(pane, next);
        let view = PaneView {
            pane,
            tried: &self.verdicts.tried,
            pane_seconds: self.pane_seconds,
            detected_at: self.newest_end,
            network: &self.network,
            exact: pane.pane > self.inexact_until,
            detail: self.detail,
        };
        // The two that cost most side by side, where the caller's pool has threads; findings stay in order.
        let Self { port_scan, host_sweep, ssh_bruteforce, rdp_bruteforce, remote_access, .. } =
            self;
        let rest = &mut self.later;
        rayon::join(
            || port_scan.on_pane(&view, out),
            || {
                host_sweep.on_pane(&view, rest);
                ssh_bruteforce.on_pane(&view, rest);
                rdp_bruteforce.on_pane(&view, rest);
                remote_access.on_pane(&view, rest);
            },
        );
        out.append(rest);
    }
}

/// A detector with what was saved of it, if anything was.
fn load_if<T>(
    from: &mut Decoder<'_>,
    empty: T,
    load: impl FnOnce(T, &mut Decoder<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    if from.bool()? { load(empty, from) } else { Ok(empty) }
}
