//! What an earlier process left: the parts of a snapshot, on their way back into the stages.

use super::deliver::Delivery;
use super::judge::Judge;
use super::message::PartName;
use super::sequence::Sequencer;
use crate::checkpoint::{Epoch, Snapshot};
use crate::codec::{DecodeError, Decoder, Encoder};

/// What must be known before any part is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunHeader {
    /// Of every hash table and of the routing of rows.
    pub(super) seed: u64,
    pub(super) shard_count: usize,
}

impl RunHeader {
    pub(super) fn save(&self, out: &mut Encoder) {
        out.version(1);
        out.u64(self.seed);
        out.count(self.shard_count);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version("run", 1..=1)?;
        let (seed, shard_count) = (from.u64()?, from.count(1)?);
        if shard_count == 0 {
            return Err(DecodeError::Invalid("number of shards"));
        }
        Ok(Self { seed, shard_count })
    }
}

/// The state of a run at a barrier.
pub struct Restored {
    pub(super) epoch: Epoch,
    pub(super) seed: u64,
    pub(super) shards: Vec<Vec<u8>>,
    inputs: Vec<u8>,
    judge: Vec<u8>,
    delivery: Vec<u8>,
}

impl Restored {
    /// The parts of a snapshot.
    ///
    /// # Errors
    /// If one is missing, or there is one too many.
    pub fn of(snapshot: Snapshot) -> Result<Self, DecodeError> {
        let Snapshot { epoch, mut parts, .. } = snapshot;
        let mut take = |name: PartName| {
            parts.remove(&name.text()).ok_or(DecodeError::Invalid("set of parts"))
        };
        let inputs = take(PartName::Inputs)?;
        let RunHeader { seed, shard_count } = RunHeader::load(&mut Decoder::new(&inputs))?;
        let shards: Result<Vec<_>, _> =
            (0..shard_count).map(|index| take(PartName::Shard(index))).collect();
        let (judge, delivery) = (take(PartName::Judge)?, take(PartName::Delivery)?);
        let shards = shards?;
        Ok(Self { epoch, seed, shards, inputs, judge, delivery })
    }

    pub(super) fn load_inputs(&self, sequencer: &mut Sequencer) -> Result<(), DecodeError> {
        let mut from = Decoder::new(&self.inputs);
        RunHeader::load(&mut from)?;
        sequencer.load(&mut from)?;
        from.finish()
    }

    pub(super) fn load_judge(&self, judge: &mut Judge) -> Result<(), DecodeError> {
        let mut from = Decoder::new(&self.judge);
        judge.load(&mut from)?;
        from.finish()
    }

    pub(super) fn load_delivery(&self, delivery: &mut Delivery) -> Result<(), DecodeError> {
        let mut from = Decoder::new(&self.delivery);
        delivery.load(&mut from)?;
        from.finish()
    }
}
