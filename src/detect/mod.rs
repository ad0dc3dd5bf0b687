//! Detectors: contacts on event-time windows in, findings out.

/// Placeholder.
pub struct DetectorSet;
impl DetectorSet {
    /// Placeholder.
    pub fn on_pane(&mut self, _p: crate::units::PaneIndex, _s: Vec<crate::aggregate::PaneContacts>, _o: &mut Vec<crate::finding::Finding>) {}
    /// Placeholder.
    pub fn on_end(&mut self, _o: &mut Vec<crate::finding::Finding>) {}
}
