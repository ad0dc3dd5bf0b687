//! One object's way to the pipeline: numbered chunks over a channel to the thread that emits them.

use tokio::sync::mpsc;

use crate::framing::{Chunk, ChunkData, ChunkEvent, InputId};

/// Chunks that may wait to be emitted, over all objects: few, since readers are ahead enough, and a drain lets through
/// what waits.
pub(super) const CHUNKS_WAITING_MAX: usize = 8;

/// The pipeline takes no more chunks.
#[derive(Debug)]
pub(super) struct Hangup;

/// Sends the chunks of one input in order.
#[derive(Debug)]
pub(super) struct Feed {
    input: InputId,
    event_count: u64,
    to: mpsc::Sender<Chunk>,
}

impl Feed {
    /// A feed whose first chunk will have number 0.
    pub(super) const fn new(input: InputId, to: mpsc::Sender<Chunk>) -> Self {
        Self { input, event_count: 0, to }
    }

    /// How many events were sent.
    pub(super) const fn event_count(&self) -> u64 {
        self.event_count
    }

    /// Sends an event.
    pub(super) async fn tell(&mut self, event: ChunkEvent) -> Result<(), Hangup> {
        let chunk = self.number(event);
        self.to.send(chunk).await.map_err(|_| Hangup)
    }

    /// Sends a piece.
    pub(super) async fn put(&mut self, piece: ChunkData) -> Result<(), Hangup> {
        self.tell(ChunkEvent::Data(piece)).await
    }

    /// Sends a piece from a thread that may block.
    pub(super) fn blocking_put(&mut self, piece: ChunkData) -> Result<(), Hangup> {
        let chunk = self.number(ChunkEvent::Data(piece));
        self.to.blocking_send(chunk).map_err(|_| Hangup)
    }

    fn number(&mut self, event: ChunkEvent) -> Chunk {
        let chunk = Chunk { input: self.input, sequence: self.event_count, event };
        self.event_count += 1;
        chunk
    }
}
