//! What could not be read, on its way to where it is put aside.
//!
//! Letters leave the sequencer, where lines have their numbers and inputs their names, and go straight to the
//! deliverer. It has them before the barrier that follows them, and makes them durable before the snapshot of that
//! barrier can be. What is read again after a restart may leave its letters again.

use std::sync::Arc;

use bytes::Bytes;

use super::parse_stage::LineSample;
use crate::causes::with_causes;
use crate::checkpoint::{CheckpointError, DeadLetter, DeadLetterCounters, DeadLetters};
use crate::clock::Clock;
use crate::framing::{InputFault, Position};

/// A line, a record or the rest of an input that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    input: Arc<str>,
    /// A sequence number, a line from 1, or empty.
    position: String,
    reason: String,
    /// The first bytes.
    payload: Bytes,
    length_bytes: u64,
}

impl Letter {
    /// Of a record or a line, in a chunk that begins after `lines_before` lines of its input.
    pub(super) fn of_sample(input: &Arc<str>, lines_before: u64, sample: &LineSample) -> Self {
        let position = match (&sample.record, sample.line) {
            (Some(sequence_number), _) => sequence_number.to_string(),
            (None, Some(line)) => (lines_before + line + 1).to_string(),
            (None, None) => String::new(),
        };
        Self {
            input: Arc::clone(input),
            position,
            reason: sample.reason.clone(),
            payload: sample.text.clone(),
            length_bytes: sample.length_bytes,
        }
    }

    /// Of an input that goes no further, if the fault lies in what it holds. Its bytes stay where they are.
    pub(super) fn of_fault(
        input: &Arc<str>,
        position: Option<&Position>,
        fault: &InputFault,
    ) -> Option<Self> {
        fault.is_of_content().then(|| Self {
            input: Arc::clone(input),
            position: position.map(Position::to_string).unwrap_or_default(),
            reason: with_causes(fault),
            payload: Bytes::new(),
            length_bytes: 0,
        })
    }
}

/// Puts letters aside; whatever the disk does, the stream goes on.
pub(super) struct LetterBox {
    letters: DeadLetters,
    clock: Arc<dyn Clock>,
    failed: u64,
}

impl LetterBox {
    pub(super) fn new(letters: DeadLetters, clock: Arc<dyn Clock>) -> Self {
        Self { letters, clock, failed: 0 }
    }

    pub(super) fn put(&mut self, letters: &[Letter]) {
        let time = self.clock.now();
        let dropped_before = self.letters.counters().dropped;
        for letter in letters {
            let written = self.letters.write(&DeadLetter {
                time,
                input: &letter.input,
                position: &letter.position,
                reason: &letter.reason,
                payload: &letter.payload,
                length_bytes: letter.length_bytes,
            });
            if let Err(error) = written {
                self.failed += 1;
                tell_failure(&error);
            }
        }
        let dropped = self.letters.counters().dropped;
        if dropped > dropped_before {
            tracing::warn!(
                dropped,
                "there is no room for more dead letters; they are only counted"
            );
        }
    }

    /// Makes them durable, as far as the disk lets it.
    pub(super) fn sync(&mut self) {
        if let Err(error) = self.letters.sync() {
            tell_failure(&error);
        }
    }

    /// Makes them durable, says how many there were, and counts those that could not be written among the dropped.
    pub(super) fn finish(mut self) -> DeadLetterCounters {
        self.sync();
        let counters = self.letters.counters();
        let counters = DeadLetterCounters { dropped: counters.dropped + self.failed, ..counters };
        if counters != DeadLetterCounters::default() {
            let DeadLetterCounters { written, dropped, cut } = counters;
            tracing::warn!(written, dropped, cut, "what could not be read was put aside");
        }
        counters
    }
}

fn tell_failure(error: &CheckpointError) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "dead letters could not be written; the stream goes on"
    );
}
