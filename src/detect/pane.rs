//! One pane of all shards, and what detectors see of it.

use super::interfaces::InterfacePane;
use super::known::Known;
use super::network::Network;
use super::outcome::Outcome;
use super::suppress::Suppressor;
use crate::aggregate::{ContactKey, ContactView, PaneContacts, Place};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::{Context, FindingKind, Severity};
use crate::net::Addr;
use crate::units::{PaneIndex, UnixSeconds};

/// How many interfaces a finding names.
const INTERFACES_MAX: usize = 20;

/// The contacts of all shards in one pane, each key once.
#[derive(Debug)]
pub(super) struct MergedPane {
    pub(super) pane: PaneIndex,
    shards: Vec<PaneContacts>,
    /// Number of each shard's first contact among those of all.
    first_numbers: Vec<u32>,
    pub(super) newest_end: Option<UnixSeconds>,
    pub(super) refused_rows: u64,
}

impl MergedPane {
    /// Merges the shards' sets; the result doesn't depend on how contacts were spread over them.
    pub(super) fn merge(pane: PaneIndex, mut shards: Vec<PaneContacts>) -> Self {
        unite_strays(&mut shards);
        shards.iter_mut().for_each(orient);
        // A contact that was turned has another key, which another shard may have too.
        unite_strays(&mut shards);
        let mut first_numbers = Vec::with_capacity(shards.len());
        let mut count = 0;
        for shard in &shards {
            first_numbers.push(u32::try_from(count).expect("contacts are bounded far below"));
            count += shard.contacts.len();
        }
        Self {
            pane,
            first_numbers,
            newest_end: shards.iter().map(|shard| shard.newest_end).max(),
            refused_rows: shards.iter().map(|shard| shard.refused_rows).sum(),
            shards,
        }
    }

    /// Saves the shards, each by `save_shard`.
    pub(super) fn save(&self, out: &mut Encoder, save_shard: impl Fn(&PaneContacts, &mut Encoder)) {
        out.version(1);
        out.i64(self.pane.0);
        out.count(self.shards.len());
        self.shards.iter().for_each(|shard| save_shard(shard, out));
    }

    /// Loads what [`Self::save`] wrote; a shard is read by `load_shard`.
    pub(super) fn load(
        pane_seconds: i64,
        from: &mut Decoder<'_>,
        load_shard: impl Fn(&mut Decoder<'_>) -> Result<PaneContacts, DecodeError>,
    ) -> Result<Self, DecodeError> {
        from.version("waiting pane", 1..=1)?;
        let pane = PaneIndex(from.i64()?);
        let count = from.count(1)?;
        let mut shards = Vec::new();
        for _ in 0..count {
            let shard = load_shard(from)?;
            if (shard.pane, shard.pane_seconds) != (pane, pane_seconds) {
                return Err(DecodeError::Invalid("pane of a shard"));
            }
            shards.push(shard);
        }
        // Merging once more changes nothing: no key is in two shards, and no contact has to be turned.
        Ok(Self::merge(pane, shards))
    }

    /// Records that interfaces' tallies lack.
    pub(super) fn untallied_rows(&self) -> u64 {
        self.shards.iter().map(PaneContacts::untallied_rows).sum()
    }

    /// The shards, each with the number of its first contact.
    pub(super) fn shards(&self) -> impl Iterator<Item = (u32, &PaneContacts)> {
        self.first_numbers.iter().copied().zip(&self.shards)
    }

    /// The contact with this key.
    pub(super) fn find(&self, key: &ContactKey) -> Option<ContactView<'_>> {
        self.shards.iter().find_map(|shard| {
            let contacts = &shard.contacts;
            let number = contacts.find(contacts.hash(key), key)?;
            Some(contacts.contact(number))
        })
    }

    fn shard_of(&self, number: u32) -> (&PaneContacts, u32) {
        let shard = self.first_numbers.partition_point(|first| *first <= number) - 1;
        (&self.shards[shard], number - self.first_numbers[shard])
    }

    /// Where a contact was seen.
    fn places(&self, number: u32) -> impl Iterator<Item = (&PaneContacts, u32)> {
        let (shard, number) = self.shard_of(number);
        shard.contacts.contact(number).places().iter().map(move |id| (shard, id))
    }
}

/// Puts together the contacts of which several shards have a part: those of records that say other
/// addresses than the ones that they were routed by.
fn unite_strays(shards: &mut [PaneContacts]) {
    if shards.len() < 2 {
        return;
    }
    for owner in 0..shards.len() {
        let strays: Vec<u32> = shards[owner].contacts.strays().collect();
        for stray in strays {
            let key = shards[owner].contacts.key(stray);
            for other in (0..shards.len()).filter(|other| *other != owner) {
                let contacts = &shards[other].contacts;
                let Some(number) = contacts.find(contacts.hash(&key), &key) else { continue };
                let [to, from] = shards
                    .get_disjoint_mut([owner, other])
                    .expect("two different shards were asked for");
                from.move_contact(number, to);
            }
        }
    }
}

/// Where the ports don't tell the client and only one end sent, that end is the client.
fn orient(shard: &mut PaneContacts) {
    let contacts = &shard.contacts;
    let is_to_turn = |number: &u32| {
        let contact = contacts.contact(*number);
        contact.forward().0.flows == 0
            && contacts.key(*number).ends_are_alike(contact.client_ports())
    };
    let to_turn: Vec<u32> = contacts.odd().filter(is_to_turn).collect();
    shard.turn_contacts(&to_turn);
}

/// A contact that was more than a one-way stream or a reply, with what most detectors ask of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    pub(super) client: Addr,
    pub(super) server: Addr,
    /// Earliest `start`.
    pub(super) first_start: UnixSeconds,
    /// Latest `end`.
    pub(super) last_end: UnixSeconds,
    /// Records that the client sent.
    pub(super) flows: u32,
    /// Those of them that were rejected.
    pub(super) rejected: u32,
    /// Which contact it is of the pane's.
    pub(super) number: u32,
    pub(super) port: u16,
    pub(super) protocol: u8,
    /// Never [`Outcome::NotTried`].
    pub(super) outcome: Outcome,
}

const _: () = assert!(size_of::<Tried>() == 64);

/// What will be read of findings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Detail {
    /// Everything.
    #[default]
    Full,
    /// How many there are of each kind.
    Counts,
}

/// What a detector sees of a judged pane.
#[derive(Debug)]
pub(super) struct PaneView<'a> {
    pub(super) pane: &'a MergedPane,
    /// In the order of keys.
    pub(super) tried: &'a [Tried],
    /// Those that logged anything, in the order of their names.
    pub(super) interfaces: &'a [InterfacePane],
    /// Records that `interfaces` lack.
    pub(super) untallied_rows: u64,
    pub(super) pane_seconds: i64,
    /// Newest `end` that the detect stage has read.
    pub(super) detected_at: UnixSeconds,
    pub(super) network: &'a Network,
    /// Empty until all detectors have prepared.
    pub(super) known: &'a Known,
    /// Whether no contact of the longest window was refused room.
    pub(super) exact: bool,
    pub(super) detail: Detail,
    pub(super) suppressor: &'a Suppressor,
}

impl<'a> PaneView<'a> {
    /// The number of the pane.
    pub(super) const fn index(&self) -> PaneIndex {
        self.pane.pane
    }

    /// Whether a finding has to be drafted: somebody will read it, or who it was decides whether anybody does.
    pub(super) fn wants_details(&self, kind: FindingKind, severity: Severity) -> bool {
        match self.detail {
            Detail::Full => self.suppressor.may_be_told(kind, severity),
            Detail::Counts => self.suppressor.depends_on_details(kind),
        }
    }

    /// When the pane ends.
    pub(super) const fn end(&self) -> UnixSeconds {
        self.index().end(self.pane_seconds)
    }

    /// The contact behind `tried`.
    pub(super) fn contact(&self, tried: &Tried) -> ContactView<'a> {
        self.contact_at(tried.number)
    }

    /// The contact with this number.
    pub(super) fn contact_at(&self, number: u32) -> ContactView<'a> {
        let (shard, number) = self.pane.shard_of(number);
        shard.contacts.contact(number)
    }

    /// A contact by its number, tried or not.
    pub(super) fn met(&self, number: u32) -> (ContactKey, ContactView<'a>) {
        let (shard, number) = self.pane.shard_of(number);
        (shard.contacts.key(number), shard.contacts.contact(number))
    }

    /// What became of a contact.
    pub(super) fn outcome_of(&self, key: &ContactKey) -> Outcome {
        let key_of = |tried: &Tried| ContactKey {
            client: tried.client,
            server: tried.server,
            protocol: tried.protocol,
            port: tried.port,
        };
        let position = self.tried.binary_search_by_key(key, key_of);
        position.map_or(Outcome::NotTried, |position| self.tried[position].outcome)
    }

    /// The pane before the window of `window_seconds` that ends with this pane.
    pub(super) fn before_window(&self, window_seconds: u32) -> PaneIndex {
        let panes = i64::from(window_seconds).div_euclid(self.pane_seconds)
            + i64::from(i64::from(window_seconds).rem_euclid(self.pane_seconds) > 0);
        PaneIndex(self.index().0.saturating_sub(panes))
    }

    /// Until when findings are inexact if something was lost now, of a window that began after `before`.
    pub(super) const fn after_window(&self, before: PaneIndex) -> PaneIndex {
        let panes = self.index().0.saturating_sub(before.0);
        PaneIndex(self.index().0.saturating_add(panes))
    }

    /// Where these contacts were seen, as far as all agree; interfaces are listed.
    pub(super) fn context<'t>(&self, contacts: impl Iterator<Item = &'t Tried>) -> Context {
        self.context_of(contacts.map(|tried| tried.number))
    }

    /// The same of contacts by their numbers, tried or not.
    pub(super) fn context_of(&self, numbers: impl Iterator<Item = u32>) -> Context {
        let mut places: Vec<Place> = numbers
            .flat_map(|number| self.pane.places(number))
            .map(|(shard, id)| shard.places.place(id))
            .collect();
        places.sort_unstable();
        places.dedup();
        let mut context = Context::default();
        let mut note = |name: &'static str, part: fn(&Place) -> Option<&str>| {
            let mut values = places.iter().map(part);
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
            places.into_iter().filter_map(|place| place.interface_id).collect();
        interfaces.dedup();
        interfaces.truncate(INTERFACES_MAX);
        context.interface_ids = interfaces;
        context
    }
}
