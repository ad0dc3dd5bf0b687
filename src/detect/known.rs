//! What some detectors know of a judged pane before the others take it, so that one happening is one finding
//! and nothing is worked out twice.

use crate::net::Addr;

/// Instead of the server of a scan that goes over many.
pub(super) const ANY_SERVER: Addr = Addr::v6(0);

/// A part that one client had in a scan that is told of as distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SharedScan {
    pub(super) client: Addr,
    /// [`ANY_SERVER`] for a scan of one port of many hosts.
    pub(super) server: Addr,
    pub(super) protocol: u8,
    /// 0 for a scan of many ports of one host.
    pub(super) port: u16,
}

/// A client that guessed logins within the last hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Guesser {
    pub(super) client: Addr,
    /// The login service's port.
    pub(super) port: u16,
    /// The server that it guesses logins of; none if there are several.
    pub(super) server: Option<Addr>,
    /// Name of the login service.
    pub(super) service: &'static str,
}

/// What is known of a pane.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// In order.
    pub(super) shared_scans: Vec<SharedScan>,
    /// In order.
    pub(super) guessers: Vec<Guesser>,
}

impl Known {
    /// Forgets the pane before.
    pub(super) fn clear(&mut self) {
        self.shared_scans.clear();
        self.guessers.clear();
    }

    /// Puts in order what was noted.
    pub(super) fn sort(&mut self) {
        self.shared_scans.sort_unstable();
        self.shared_scans.dedup();
        self.guessers.sort_unstable();
        self.guessers.dedup();
    }

    /// Whether what the client did is told of as its part of a distributed scan.
    pub(super) fn is_shared_scan(&self, scan: SharedScan) -> bool {
        !self.shared_scans.is_empty() && self.shared_scans.binary_search(&scan).is_ok()
    }
}
