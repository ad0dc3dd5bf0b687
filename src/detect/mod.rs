//! Detectors: contacts on event-time windows in, findings out.
