//! What each interface logged in a pane, over all shards, and findings about interfaces.

use std::collections::BTreeMap;

use super::network::Network;
use super::pane::{Detail, MergedPane, PaneView};
use crate::aggregate::{FlowCounts, InterfaceTally, Place};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Context, Evidence, Finding, FindingId, FindingKind, Party, Severity, Status};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// How many interfaces a finding names.
const INTERFACES_MAX: usize = 20;

/// An interface that logged in the pane.
#[derive(Clone, Debug)]
pub(super) struct InterfacePane {
    /// `interface-id`
    pub(super) name: String,
    /// The lowest by name of the places that records say.
    pub(super) place: Place,
    /// Its address: told by the operator, or else as far as this pane shows it.
    pub(super) own: Option<Addr>,
    pub(super) tally: InterfaceTally,
}

impl InterfacePane {
    /// What it received and sent; `learned` is its address as earlier panes showed it.
    pub(super) fn directions(&self, learned: Option<Addr>) -> Option<[FlowCounts; 2]> {
        let of = |own: Option<Addr>| self.tally.directions(own);
        of(self.own).or_else(|| of(learned))
    }
}

/// The interfaces of all shards, each once, in the order of their names.
pub(super) fn interfaces(pane: &MergedPane, network: &Network) -> Vec<InterfacePane> {
    let shards = pane.shards().flat_map(|(_, shard)| {
        shard.interfaces().map(move |(name, place, tally)| (name, shard.places.place(place), tally))
    });
    let mut list: Vec<(&[u8], Place, InterfaceTally)> = shards.collect();
    list.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
    // The first of a name has the lowest place.
    list.dedup_by(|later, first| {
        let is_same = later.0 == first.0;
        if is_same {
            first.2.merge(&later.2);
        }
        is_same
    });
    let list = list.into_iter().map(|(name, place, tally)| {
        let name = String::from_utf8_lossy(name).into_owned();
        let own = own_addr(&name, &tally, network);
        InterfacePane { name, place, own, tally }
    });
    list.collect()
}

/// What the operator told, if records don't contradict; otherwise the address that is always at the
/// interface's end, or the only one that all records have in
/// common, or of two the one that is inside.
fn own_addr(name: &str, tally: &InterfaceTally, network: &Network) -> Option<Addr> {
    let told = network.interfaces.get(name).copied();
    let candidates: Vec<Addr> = tally.candidates().collect();
    if told.is_some_and(|told| candidates.is_empty() || candidates.contains(&told)) {
        return told;
    }
    if let Some(own) = tally.directed_own().filter(|_| candidates.is_empty()) {
        return Some(own);
    }
    let only = |list: &[Addr]| if let [addr] = *list { Some(addr) } else { None };
    let inside: Vec<Addr> =
        candidates.iter().copied().filter(|addr| network.is_inside(*addr)).collect();
    only(&candidates).or_else(|| only(&inside))
}

/// Writes a place.
pub(super) fn save_place(place: &Place, out: &mut Encoder) {
    let Place { interface_id, account_id, vpc_id, subnet_id } = place;
    for text in [interface_id, account_id, vpc_id, subnet_id] {
        out.option(text.as_ref(), |out, text| out.text(text));
    }
}

/// Reads what [`save_place`] wrote.
pub(super) fn load_place(from: &mut Decoder<'_>) -> Result<Place, DecodeError> {
    let mut text = || from.option(|from| from.text().map(str::to_owned));
    let (interface_id, account_id) = (text()?, text()?);
    Ok(Place { interface_id, account_id, vpc_id: text()?, subnet_id: text()? })
}

/// What is to be said of interfaces.
#[derive(Debug)]
pub(super) struct InterfaceDraft<'a> {
    pub(super) variant: &'static str,
    pub(super) severity: Severity,
    pub(super) confidence: f64,
    pub(super) title: String,
    /// The interfaces that tell it from others of the variant, unless it is about whichever there are.
    pub(super) identity: Vec<&'a str>,
    /// By name, in order; the first ones are listed.
    pub(super) interfaces: Vec<(&'a str, &'a Place)>,
    /// Tells this episode from others with that identity.
    pub(super) start: UnixSeconds,
    pub(super) actor: Option<Addr>,
    pub(super) target: Option<Addr>,
    pub(super) first_seen: UnixSeconds,
    pub(super) last_seen: UnixSeconds,
    pub(super) window_seconds: u32,
    pub(super) evidence: BTreeMap<&'static str, Evidence>,
    pub(super) exact: bool,
}

/// The finding of `kind`; where only counts are read, nothing is drafted.
pub(super) fn finding<'a>(
    kind: FindingKind,
    revision: u32,
    view: &PaneView<'_>,
    draft: impl FnOnce() -> InterfaceDraft<'a>,
) -> Finding {
    let status = if revision == 0 { Status::Open } else { Status::Update };
    if view.detail == Detail::Counts {
        return Finding::counted(kind, status, revision);
    }
    let mut draft = draft();
    draft.evidence.insert("variant", Evidence::Word(draft.variant));
    let party = |addr: Option<Addr>| addr.map(Party::of).unwrap_or_default();
    Finding {
        id: FindingId::of_interfaces(kind, draft.variant, &draft.identity, draft.start),
        revision,
        status,
        kind,
        severity: draft.severity,
        confidence: draft.confidence,
        title: draft.title,
        actor: party(draft.actor),
        target: party(draft.target),
        first_seen: draft.first_seen.min(draft.last_seen),
        last_seen: draft.last_seen,
        detected_at: view.detected_at,
        window_seconds: draft.window_seconds,
        evidence: draft.evidence,
        context: context(&draft.interfaces),
        exact: draft.exact && view.untallied_rows == 0,
    }
}

/// Where the interfaces are, as far as all agree.
fn context(interfaces: &[(&str, &Place)]) -> Context {
    let mut context = Context::default();
    type Part = fn(&Place) -> Option<&str>;
    let parts: [(&'static str, Part); 3] = [
        ("account-id", |place| place.account_id.as_deref()),
        ("subnet-id", |place| place.subnet_id.as_deref()),
        ("vpc-id", |place| place.vpc_id.as_deref()),
    ];
    for (name, part) in parts {
        let mut values = interfaces.iter().map(|(_, place)| part(place));
        if let Some(Some(first)) = values.next()
            && values.all(|value| value == Some(first))
        {
            context.fields.insert(name, first.to_owned());
        }
    }
    let names = interfaces.iter().take(INTERFACES_MAX);
    context.interface_ids = names.map(|(name, _)| (*name).to_owned()).collect();
    context
}
