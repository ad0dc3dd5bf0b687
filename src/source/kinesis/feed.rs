//! One input's way to the pipeline: numbered chunks, each with the bytes that are set aside for it.
//!
//! How far a feed has come outlives the task that fills it: a reader that is aborted or panics has handed
//! on a chunk whole or not at all, and another goes on with the next number, after the same record. A
//! record is never cut, nor what was aggregated in it: a position is always between two records.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::framing::{
    Chunk, ChunkData, ChunkEvent, InputId, Payload, Position, ShardPlace, SourceRecord,
};

use super::budget::Reservation;
use super::sequence::SequenceNumber;

/// Most payload in one chunk, unless a single record is larger.
pub(super) const CHUNK_BYTES_MAX: u64 = 1 << 20;
/// Memory that a record takes besides its payload: its sequence number and its own fields.
const RECORD_OVERHEAD_BYTES: u64 = 160;

/// A chunk on its way to the thread that emits it.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// What is emitted.
    pub(super) chunk: Chunk,
    /// Given back once it was.
    pub(super) reservation: Option<Reservation>,
}

/// The pipeline takes no more chunks.
#[derive(Debug)]
pub(super) struct Hangup;

/// Sends the chunks of one input in order. Clones are the same feed; one at a time may send.
#[derive(Clone, Debug)]
pub(super) struct Feed {
    input: InputId,
    to: mpsc::Sender<Outgoing>,
    progress: Arc<Mutex<Progress>>,
}

/// How far a feed has come.
#[derive(Debug, Default)]
struct Progress {
    next_sequence: u64,
    /// The last record that was sent.
    last: Option<SequenceNumber>,
}

impl Feed {
    /// A feed whose first chunk will have number 0.
    pub(super) fn new(input: InputId, to: mpsc::Sender<Outgoing>) -> Self {
        Self { input, to, progress: Arc::default() }
    }

    /// The last record that was sent.
    pub(super) fn last(&self) -> Option<SequenceNumber> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner).last.clone()
    }

    /// Sends an event without payload.
    pub(super) async fn tell(&self, event: ChunkEvent) -> Result<(), Hangup> {
        self.send(event, None, None).await
    }

    /// Sends one piece of an answer.
    pub(super) async fn put(
        &self,
        records: Vec<SourceRecord>,
        reservation: Reservation,
    ) -> Result<(), Hangup> {
        let bytes_read = records.iter().map(|record| record.data.len() as u64).sum();
        let last = records.last().map(|last| Arc::clone(&last.sequence_number));
        let position = last.clone().map(ShardPlace::After).map(Position::in_shard);
        let data = ChunkData { payload: Payload::Records(records), bytes_read, position };
        self.send(ChunkEvent::Data(data), Some(reservation), last.map(SequenceNumber)).await
    }

    async fn send(
        &self,
        event: ChunkEvent,
        reservation: Option<Reservation>,
        last: Option<SequenceNumber>,
    ) -> Result<(), Hangup> {
        let permit = self.to.reserve().await.map_err(|_| Hangup)?;
        // Nothing waits from here on: sent and counted are one step.
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = Chunk { input: self.input, sequence: progress.next_sequence, event };
        permit.send(Outgoing { chunk, reservation });
        progress.next_sequence += 1;
        if last.is_some() {
            progress.last = last;
        }
        Ok(())
    }
}

/// The memory that a record takes.
pub(super) fn weight(record: &SourceRecord) -> u64 {
    record.data.len() as u64 + RECORD_OVERHEAD_BYTES
}

/// Cuts records into pieces of about a mebibyte, in order.
pub(super) fn pieces(records: Vec<SourceRecord>) -> Vec<Vec<SourceRecord>> {
    let mut pieces: Vec<Vec<SourceRecord>> = Vec::new();
    let mut room = 0;
    for record in records {
        let bytes = weight(&record);
        match pieces.last_mut() {
            Some(piece) if bytes <= room => {
                room -= bytes;
                piece.push(record);
            }
            _ => {
                room = CHUNK_BYTES_MAX.saturating_sub(bytes);
                pieces.push(vec![record]);
            }
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn records(sizes: &[usize]) -> Vec<SourceRecord> {
        sizes
            .iter()
            .enumerate()
            .map(|(index, size)| SourceRecord {
                data: Bytes::from(vec![0; *size]),
                sequence_number: index.to_string().into(),
                arrival_ms: 0,
                hash_key_range: None,
            })
            .collect()
    }

    fn check(sizes: &[usize], expected: &[usize]) {
        let counts: Vec<usize> = pieces(records(sizes)).iter().map(Vec::len).collect();
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_piece_is_a_mebibyte_or_one_record() {
        check(&[], &[]);
        check(&[100, 100], &[2]);
        check(&[600 << 10, 600 << 10, 100], &[1, 2]);
        check(&[10 << 20, 1, 10 << 20], &[1, 1, 1]);
    }

    proptest! {
        #[test]
        fn pieces_keep_every_record_in_order(sizes in prop::collection::vec(0_usize..800_000, 0..20)) {
            let pieces = pieces(records(&sizes));
            for piece in &pieces {
                prop_assert!(!piece.is_empty());
                let bytes: u64 = piece.iter().map(weight).sum();
                prop_assert!(piece.len() == 1 || bytes <= CHUNK_BYTES_MAX);
            }
            let numbers: Vec<String> =
                pieces.iter().flatten().map(|r| r.sequence_number.to_string()).collect();
            let expected: Vec<String> = (0..sizes.len()).map(|index| index.to_string()).collect();
            prop_assert_eq!(numbers, expected);
        }
    }
}
