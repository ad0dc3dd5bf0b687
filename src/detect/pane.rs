//! One pane of all shards, and what detectors see of it.

use rayon::slice::ParallelSliceMut as _;

use super::network::Network;
use super::outcome::Outcome;
use crate::aggregate::{Contact, ContactKey, PaneContacts, Place};
use crate::finding::Context;
use crate::units::{PaneIndex, UnixSeconds};

/// How many interfaces a finding names.
const INTERFACES_MAX: usize = 20;

/// The contacts of all shards in one pane.
#[derive(Debug)]
pub(super) struct MergedPane {
    pub(super) pane: PaneIndex,
    /// In the order of keys, each key once.
    pub(super) contacts: Vec<(ContactKey, Contact)>,
    /// In order, so that numbers compare like names.
    places: Vec<Place>,
    pub(super) newest_end: Option<UnixSeconds>,
    pub(super) refused_rows: u64,
}

impl MergedPane {
    /// Merges the shards' tables; the result doesn't depend on how contacts were spread over them.
    pub(super) fn merge(pane: PaneIndex, shards: Vec<PaneContacts>) -> Self {
        let mut places: Vec<Place> =
            shards.iter().flat_map(|shard| shard.places.iter().cloned()).collect();
        places.sort_unstable();
        places.dedup();

        let mut contacts = Vec::with_capacity(shards.iter().map(|s| s.contacts.len()).sum());
        let newest_end = shards.iter().map(|shard| shard.newest_end).max();
        let refused_rows = shards.iter().map(|shard| shard.refused_rows).sum();
        for shard in shards {
            let new_ids: Vec<u32> = shard
                .places
                .iter()
                .map(|place| places.binary_search(place).expect("collected from all shards"))
                .map(|id| u32::try_from(id).expect("tables number their places in 32 bits"))
                .collect();
            for (key, mut contact) in shard.contacts {
                contact.places = contact.places.renumbered(&new_ids);
                contacts.push((key, contact));
            }
        }
        coalesce(&mut contacts, &places);
        if orient(&mut contacts) {
            coalesce(&mut contacts, &places);
        }
        debug_assert!(contacts.is_sorted_by(|(one, _), (other, _)| one < other));
        Self { pane, contacts, places, newest_end, refused_rows }
    }

    /// The contact with this key.
    pub(super) fn get(&self, key: &ContactKey) -> Option<&Contact> {
        let position = self.contacts.binary_search_by_key(key, |(key, _)| *key).ok()?;
        Some(&self.contacts[position].1)
    }
}

/// Puts contacts in the order of their keys and merges those of one key.
fn coalesce(contacts: &mut Vec<(ContactKey, Contact)>, places: &[Place]) {
    // Stable sorting finds the shards' tables as sorted runs and only merges them, large ones on the
    // threads of the pool that the caller is in.
    contacts.par_sort_by_key(|(key, _)| *key);
    contacts.dedup_by(|(later_key, later), (key, contact)| {
        let same = later_key == key;
        if same {
            contact.merge(later, places);
        }
        same
    });
}

/// Where the ports don't tell the client and only one end sent, that end is the client. Says whether
/// any contact was turned.
fn orient(contacts: &mut [(ContactKey, Contact)]) -> bool {
    let mut turned = false;
    for (key, contact) in contacts {
        if contact.forward.is_silent() && contact.ends_are_alike(key) {
            contact.flip(key);
            turned = true;
        }
    }
    turned
}

/// What a detector sees of a judged pane.
#[derive(Debug)]
pub(super) struct PaneView<'a> {
    pub(super) pane: &'a MergedPane,
    /// One per contact.
    pub(super) outcomes: &'a [Outcome],
    pub(super) pane_seconds: i64,
    /// Newest `end` that the detect stage has read.
    pub(super) detected_at: UnixSeconds,
    pub(super) network: &'a Network,
    /// Whether no contact of the longest window was refused room.
    pub(super) exact: bool,
}

impl<'a> PaneView<'a> {
    /// The number of the pane.
    pub(super) const fn index(&self) -> PaneIndex {
        self.pane.pane
    }

    /// The contacts with their outcomes, in the order of keys.
    pub(super) fn contacts(&self) -> impl Iterator<Item = Seen<'a>> + use<'a> {
        let contacts = self.pane.contacts.iter().zip(self.outcomes);
        contacts.map(|((key, contact), outcome)| Seen { key, contact, outcome: *outcome })
    }

    /// The pane before the window of `window_seconds` that ends with this pane.
    pub(super) fn before_window(&self, window_seconds: u32) -> PaneIndex {
        let panes = i64::from(window_seconds).div_euclid(self.pane_seconds)
            + i64::from(i64::from(window_seconds).rem_euclid(self.pane_seconds) > 0);
        PaneIndex(self.index().0.saturating_sub(panes))
    }

    /// Where these contacts were seen, as far as all agree; interfaces are listed.
    pub(super) fn context(&self, contacts: impl Iterator<Item = &'a Contact>) -> Context {
        let mut ids: Vec<u32> = contacts.flat_map(|contact| contact.places.iter()).collect();
        ids.sort_unstable();
        ids.dedup();
        let places: Vec<&Place> = ids.iter().map(|id| &self.pane.places[*id as usize]).collect();
        let mut context = Context::default();
        let mut note = |name: &'static str, part: fn(&Place) -> Option<&str>| {
            let mut values = places.iter().map(|place| part(place));
            if let Some(Some(first)) = values.next()
                && values.all(|value| value == Some(first))
            {
                context.fields.insert(name, first.to_owned());
            }
        };
        note("account-id", |place| place.account_id.as_deref());
        note("subnet-id", |place| place.subnet_id.as_deref());
        note("vpc-id", |place| place.vpc_id.as_deref());
        let mut interfaces: Vec<String> =
            places.iter().filter_map(|place| place.interface_id.clone()).collect();
        interfaces.dedup();
        interfaces.truncate(INTERFACES_MAX);
        context.interface_ids = interfaces;
        context
    }
}

/// A judged contact.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) key: &'a ContactKey,
    pub(super) contact: &'a Contact,
    pub(super) outcome: Outcome,
}
