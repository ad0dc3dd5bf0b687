//! Sums for keys that are small numbers: a place for each, no hash.

use zerocopy::FromZeros;

use super::{AHEAD, Counts, Upsert};
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::simd;

/// How many keys a [`DenseTable`] takes: 0 to this less 1.
const KEYS: usize = 1 << 16;

/// Sums per 16-bit key.
#[derive(Debug, Default)]
pub struct DenseTable {
    /// [`KEYS`] of them, or none before the first key; a number of 0 is a key that did not come.
    counts: Vec<Counts>,
    len: usize,
}

impl DenseTable {
    /// How many keys it holds.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory in use once there are keys.
    pub(in crate::aggregate) const BYTES: usize = KEYS * size_of::<Counts>();

    /// Bytes of memory in use.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.counts.len() * size_of::<Counts>()
    }

    /// Keeps the keys for which `keep` holds, which may change their counts.
    pub(in crate::aggregate) fn retain(&mut self, mut keep: impl FnMut(u64, &mut Counts) -> bool) {
        for (key, counts) in (0..).zip(&mut self.counts) {
            if counts.number != 0 && !keep(key, counts) {
                *counts = Counts::default();
                self.len -= 1;
            }
        }
    }

    /// Writes the table.
    pub(in crate::aggregate) fn save(&self, out: &mut Encoder) {
        out.plain(&self.counts);
    }

    /// Reads a table.
    pub(in crate::aggregate) fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let counts: Vec<Counts> = from.plain()?;
        if !counts.is_empty() && counts.len() != KEYS {
            return Err(DecodeError::Invalid("table of small keys"));
        }
        let len = counts.iter().filter(|counts| counts.number != 0).count();
        Ok(Self { counts, len })
    }

    /// All keys with their counts, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Counts)> {
        (0..).zip(&self.counts).filter(|(_, counts)| counts.number != 0)
    }
}

impl Upsert<u64> for DenseTable {
    /// # Panics
    /// If a key has more than 16 bits.
    fn upsert_all(
        &mut self,
        keys: &[u64],
        _hashes: &mut Vec<u64>,
        last_number: &mut u32,
        mut update: impl FnMut(usize, &mut Counts),
    ) {
        if self.counts.is_empty() && !keys.is_empty() {
            self.counts = Counts::new_vec_zeroed(KEYS).expect("memory for a table");
        }
        for (index, key) in keys.iter().enumerate() {
            if let Some(later) = keys.get(index + AHEAD) {
                simd::prefetch(&self.counts, place_of(*later));
            }
            let place = place_of(*key);
            let counts = &mut self.counts[place];
            if counts.number == 0 {
                *last_number += 1;
                counts.number = *last_number;
                self.len += 1;
            }
            update(index, counts);
        }
    }
}

#[inline]
fn place_of(key: u64) -> usize {
    usize::try_from(key).expect("a key of 16 bits")
}
