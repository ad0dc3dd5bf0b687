//! What the detectors see of a contact, in whichever form it is kept.

use super::contact::{Contact, Tally};
use super::contact_beside::Beside;
use super::contact_slot::ContactSlot;
use super::place::PlaceIds;
use crate::units::UnixSeconds;

/// A contact, whichever form it has.
#[derive(Clone, Copy, Debug)]
pub struct ContactView<'a>(Form<'a>);

#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Slim { slot: &'a ContactSlot, pane_start: UnixSeconds, beside: &'a Beside },
    Wide(&'a Contact),
}

/// What one end sent: counts, and the OR of its TCP flags.
pub type Half = (Tally, Option<u8>);

impl<'a> ContactView<'a> {
    /// A contact whose counts fit its slot.
    #[inline]
    pub(super) const fn slim(
        slot: &'a ContactSlot,
        pane_start: UnixSeconds,
        beside: &'a Beside,
    ) -> Self {
        Self(Form::Slim { slot, pane_start, beside })
    }

    /// A contact in the wide form.
    #[inline]
    pub(super) const fn wide(contact: &'a Contact) -> Self {
        Self(Form::Wide(contact))
    }

    /// What the client sent, with traffic that both ends' interfaces logged taken once.
    #[must_use]
    #[inline]
    pub fn forward(&self) -> Half {
        match self.0 {
            Form::Slim { slot, beside, .. } => slot.forward(beside),
            Form::Wide(contact) => (contact.forward.tally(), contact.forward.tcp_flags),
        }
    }

    /// What the server sent.
    #[must_use]
    #[inline]
    pub fn back(&self) -> Half {
        match self.0 {
            Form::Slim { slot, beside, .. } => slot.back(beside),
            Form::Wide(contact) => (contact.back.tally(), contact.back.tcp_flags),
        }
    }

    /// Earliest `start`.
    #[must_use]
    pub fn first_start(&self) -> UnixSeconds {
        match self.0 {
            Form::Slim { slot, pane_start, .. } => slot.first_start(pane_start),
            Form::Wide(contact) => contact.first_start,
        }
    }

    /// Latest `end`.
    #[must_use]
    pub fn last_end(&self) -> UnixSeconds {
        match self.0 {
            Form::Slim { slot, pane_start, .. } => slot.last_end(pane_start),
            Form::Wide(contact) => contact.last_end,
        }
    }

    /// The client's ports, in order; see [`CLIENT_PORTS_MAX`](super::CLIENT_PORTS_MAX).
    #[must_use]
    pub fn client_ports(&self) -> &'a [u16] {
        match self.0 {
            Form::Slim { slot, beside, .. } => slot.ports(beside),
            Form::Wide(contact) => contact.client_ports.as_slice(),
        }
    }

    /// Where it was seen.
    #[must_use]
    pub fn places(&self) -> PlaceIds {
        match self.0 {
            Form::Slim { slot, .. } => slot.places(),
            Form::Wide(contact) => contact.places,
        }
    }

    /// The contact by itself.
    #[must_use]
    pub fn to_contact(&self) -> Contact {
        match self.0 {
            Form::Slim { slot, pane_start, beside } => slot.to_contact(pane_start, beside),
            Form::Wide(contact) => contact.clone(),
        }
    }
}
