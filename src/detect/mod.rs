//! Detectors: contacts on event-time windows in, findings out.
//!
//! ```text
//! PaneContacts of every shard ─► pane (merge) ─► outcome (judge, one pane behind) ─► detectors ─► Finding
//! ```
//!
//! One [`DetectorSet`] sees all shards' panes in order. A pane is judged when the one after it has been
//! merged, because an answer may come in the next pane. Every detector keeps its own sliding windows in
//! bounded tables, walks the contacts in the order of their keys, and knows no time but the records'; so
//! findings depend neither on the number of shards nor on the order of records within a pane.

mod bruteforce;
mod distinct;
mod episode;
mod host_sweep;
mod key_index;
mod network;
mod once;
mod order;
mod outcome;
mod pane;
mod port_scan;
mod remote_access;
mod report;
#[cfg(test)]
mod scenarios;
mod settings;
mod tracker;

pub use bruteforce::BruteforceSettings;
pub use host_sweep::HostSweepSettings;
pub use network::Network;
pub use port_scan::PortScanSettings;
pub use remote_access::RemoteAccessSettings;
pub use settings::{DetectSettings, SettingsError};

use crate::aggregate::PaneContacts;
use crate::finding::Finding;
use crate::units::{PaneIndex, UnixSeconds};
use bruteforce::{Bruteforce, Login};
use host_sweep::HostSweep;
use outcome::Verdicts;
use pane::{Detail, MergedPane, PaneView};
use port_scan::PortScan;
use remote_access::RemoteAccess;

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
            port_scan: PortScan::new(settings.port_scan.clone()),
            host_sweep: HostSweep::new(settings.host_sweep.clone()),
            ssh_bruteforce: Bruteforce::new(Login::Ssh, ssh),
            rdp_bruteforce: Bruteforce::new(Login::Rdp, rdp),
            remote_access: RemoteAccess::new(settings.remote_access_attempt.clone()),
            waiting: None,
            verdicts: Verdicts::default(),
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
            let next = (pane.0 == waiting.pane.0 + 1).then_some(&merged);
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
        let mut rest = Vec::new();
        rayon::join(
            || port_scan.on_pane(&view, out),
            || {
                host_sweep.on_pane(&view, &mut rest);
                ssh_bruteforce.on_pane(&view, &mut rest);
                rdp_bruteforce.on_pane(&view, &mut rest);
                remote_access.on_pane(&view, &mut rest);
            },
        );
        out.append(&mut rest);
    }
}
