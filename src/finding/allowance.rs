//! What the operator does not want to be told of: an entry of an allow list, and which findings it covers.

use super::{Finding, FindingKind};
use crate::net::{Addr, Prefix};
use crate::units::UnixSeconds;

/// Something that is wanted, and must not be told as if it were an attack.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Allowance {
    /// The entry for people, under which it is counted: why, in the operator's words, and whom it is about.
    pub label: String,
    /// Who does it; none means anybody.
    pub sources: Vec<Prefix>,
    /// To whom it is done; none means anybody.
    pub targets: Vec<Prefix>,
    /// On which ports; none means any.
    pub ports: Vec<u16>,
    /// What it is taken for.
    pub kinds: Vec<FindingKind>,
    /// It holds for what ends before this moment.
    pub until: Option<UnixSeconds>,
}

impl Allowance {
    /// Whether a finding is all about what is allowed: every actor, target and port of it. A finding that says
    /// none where the entry names some is not covered.
    #[must_use]
    pub fn covers(&self, finding: &Finding) -> bool {
        self.kinds.contains(&finding.kind)
            && self.until.is_none_or(|until| finding.last_seen < until)
            && are_all_within(&self.sources, &finding.actor.addrs)
            && are_all_within(&self.targets, &finding.target.addrs)
            && are_all(&self.ports, &finding.target.ports, |port| self.ports.contains(port))
    }
}

fn are_all_within(prefixes: &[Prefix], addrs: &[Addr]) -> bool {
    are_all(prefixes, addrs, |addr| prefixes.iter().any(|prefix| prefix.contains(*addr)))
}

fn are_all<A, F>(allowed: &[A], found: &[F], is_allowed: impl Fn(&F) -> bool) -> bool {
    allowed.is_empty() || (!found.is_empty() && found.iter().all(is_allowed))
}

#[cfg(test)]
mod tests {
    use super::super::{Party, Status};
    use super::*;

    fn prefixes(texts: &[&str]) -> Vec<Prefix> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn addrs(texts: &[&str]) -> Vec<Addr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn check(
        allowance: &Allowance,
        actors: &[&str],
        targets: &[&str],
        ports: &[u16],
        is_covered: bool,
    ) {
        let finding = Finding {
            actor: Party { addrs: addrs(actors), ports: Vec::new() },
            target: Party { addrs: addrs(targets), ports: ports.to_vec() },
            last_seen: UnixSeconds(100),
            ..Finding::counted(FindingKind::PortScan, Status::Open, 0)
        };
        assert_eq!(allowance.covers(&finding), is_covered, "{allowance:?} {finding:?}");
    }

    #[test]
    fn an_entry_covers_what_is_wholly_within() {
        let mut allowance = Allowance {
            label: "scanner".to_owned(),
            sources: prefixes(&["10.0.1.5", "10.0.2.0/24"]),
            kinds: vec![FindingKind::PortScan],
            ..Allowance::default()
        };
        check(&allowance, &["10.0.1.5"], &["10.1.0.1"], &[80], true);
        check(&allowance, &["10.0.1.5", "10.0.2.77"], &[], &[], true);
        check(&allowance, &["10.0.1.5", "10.0.3.77"], &[], &[], false);
        check(&allowance, &[], &["10.1.0.1"], &[], false);
        allowance.targets = prefixes(&["10.1.0.0/16"]);
        allowance.ports = vec![80, 443];
        check(&allowance, &["10.0.1.5"], &["10.1.0.1", "10.1.2.3"], &[80, 443], true);
        check(&allowance, &["10.0.1.5"], &["10.1.0.1", "10.2.2.3"], &[80], false);
        check(&allowance, &["10.0.1.5"], &["10.1.0.1"], &[80, 22], false);
        check(&allowance, &["10.0.1.5"], &["10.1.0.1"], &[], false);
        allowance.until = Some(UnixSeconds(100));
        check(&allowance, &["10.0.1.5"], &["10.1.0.1"], &[80], false);
        allowance.until = Some(UnixSeconds(101));
        check(&allowance, &["10.0.1.5"], &["10.1.0.1"], &[80], true);
        allowance.kinds = vec![FindingKind::HostSweep];
        check(&allowance, &["10.0.1.5"], &["10.1.0.1"], &[80], false);
    }
}
