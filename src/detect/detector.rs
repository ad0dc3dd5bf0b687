//! What the set asks of every detector.

use std::fmt;

use super::known::Known;
use super::network::Network;
use super::pane::PaneView;
use crate::aggregate::{ContactKey, Half};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::finding::Finding;

/// How many contacts are shown to [`Detector::watch`] at once: few enough to stay in the nearest cache.
pub(super) const WATCHED_AT_ONCE: usize = 64;

/// A contact as it is met in the walk over a pane, before it is judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Met {
    /// Which contact it is of the pane's.
    pub(super) number: u32,
    pub(super) key: ContactKey,
    /// What the client sent.
    pub(super) forward: Half,
    /// What the server sent.
    pub(super) back: Half,
}

/// One detector: its windows, and what it makes of a pane.
pub(super) trait Detector: fmt::Debug + Send {
    /// The name of its settings' table, under which its state is saved.
    fn name(&self) -> &'static str;

    /// Whether it looks for anything.
    fn is_on(&self) -> bool;

    /// How long it does not report an episode again that has not doubled, from now on.
    fn renew_every(&mut self, seconds: u32);

    /// Whether [`Self::watch`] wants to be called.
    fn watches(&self) -> bool {
        false
    }

    /// Sees contacts of the pane that is judged next, those among them that were never tried too, in an order
    /// that must not show: what is kept of them is put in order in [`Self::on_pane`].
    fn watch(&mut self, _contacts: &[Met], _network: &Network) {}

    /// Sees a judged pane before any detector takes it, and notes what the others should know.
    fn prepare(&mut self, _view: &PaneView<'_>, _known: &mut Known) {}

    /// Takes a judged pane and appends what it finds, in the order of actors.
    fn on_pane(&mut self, view: &PaneView<'_>, out: &mut Vec<Finding>);

    /// Entries that left tables because those were full.
    fn evictions(&self) -> u64;

    /// Memory held between panes, in bytes.
    fn bytes(&self) -> usize;

    /// Memory kept for the next pane, in bytes.
    fn scratch_bytes(&self) -> usize {
        0
    }

    /// Saves what it remembers.
    fn save(&self, out: &mut Encoder);

    /// Loads what [`Self::save`] wrote into a detector without memory, which may have other settings.
    fn load(&mut self, from: &mut Decoder<'_>) -> Result<(), DecodeError>;
}
