//! What passed the width of slots, so that sums are exact whatever records claim.

use hashbrown::HashMap;

use crate::aggregate::table::Counts;
use crate::aggregate::totals::Sums;
use crate::codec::{DecodeError, Decoder, Encoder};

/// What passed the width of slots, by number of the key.
#[derive(Default)]
pub(super) struct Carries(HashMap<u32, Sums>);

impl Carries {
    #[inline]
    pub(super) fn add(&mut self, counts: &mut Counts, packets: u64, bytes: u64) {
        let (bytes, bytes_carry) = counts.bytes.overflowing_add(bytes);
        let (packets, packets_carry) = packets.overflowing_add(u64::from(counts.packets));
        let [packets_low, packets_high] = halves(packets);
        counts.bytes = bytes;
        counts.packets = packets_low;
        counts.flows = counts.flows.wrapping_add(1);
        if bytes_carry || packets_carry || packets_high != 0 || counts.flows == 0 {
            self.keep(
                counts,
                bytes_carry,
                u64::from(packets_carry) << 32 | u64::from(packets_high),
            );
        }
    }

    /// Keeps multiples of 2^64 bytes and 2^32 packets and flows.
    #[cold]
    fn keep(&mut self, counts: &Counts, bytes: bool, packets: u64) {
        let carry = self.0.entry(counts.number).or_default();
        carry.bytes += u128::from(bytes) << 64;
        carry.packets += u128::from(packets) << 32;
        carry.flows += u64::from(counts.flows == 0) << 32;
    }

    pub(super) fn add_sums(&mut self, counts: &mut Counts, added: &Sums) {
        let [bytes, bytes_above] = wide_halves(u128::from(counts.bytes) + added.bytes);
        let [packets, packets_above] = wide_halves(u128::from(counts.packets) + added.packets);
        let [packets, packets_high] = halves(packets);
        let [flows, flows_high] = halves(u64::from(counts.flows) + added.flows);
        (counts.bytes, counts.packets, counts.flows) = (bytes, packets, flows);
        if bytes_above | packets_above | u64::from(packets_high | flows_high) != 0 {
            let carry = self.0.entry(counts.number).or_default();
            carry.bytes += u128::from(bytes_above) << 64;
            carry.packets += u128::from(packets_above) << 64 | u128::from(packets_high) << 32;
            carry.flows += u64::from(flows_high) << 32;
        }
    }

    pub(super) fn sums(&self, counts: &Counts) -> Sums {
        let mut sums = if self.0.is_empty() {
            Sums::default()
        } else {
            self.0.get(&counts.number).copied().unwrap_or_default()
        };
        sums.flows += u64::from(counts.flows);
        sums.packets += u128::from(counts.packets);
        sums.bytes += u128::from(counts.bytes);
        sums
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        self.0.allocation_size()
    }

    /// Bytes of memory that it may hold. Hangs on what is in it alone.
    pub(super) fn bytes_at_most(&self) -> usize {
        self.0.len() * 2 * (size_of::<(u32, Sums)>() + 1)
    }

    /// Takes over what is kept for a key of `others`, by its number here.
    pub(super) fn take_over(&mut self, number: u32, others: &Self, others_number: u32) {
        if let Some(carry) = others.0.get(&others_number) {
            self.0.insert(number, *carry);
        }
    }

    pub(super) fn save(&self, out: &mut Encoder) {
        let mut carries: Vec<(&u32, &Sums)> = self.0.iter().collect();
        carries.sort_unstable_by_key(|(number, _)| **number);
        out.count(carries.len());
        for (number, sums) in carries {
            out.u32(*number);
            out.u64(sums.flows);
            out.u128(sums.packets);
            out.u128(sums.bytes);
        }
    }

    /// Reads what was kept for the keys up to number `last_number`.
    pub(super) fn load(last_number: u32, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let count = from.count(SAVED_BYTES)?;
        let mut carries = HashMap::with_capacity(count);
        for _ in 0..count {
            let number = from.u32()?;
            let sums = Sums { flows: from.u64()?, packets: from.u128()?, bytes: from.u128()? };
            let is_plausible = sums.flows < 1 << 48
                && sums.packets < 1 << PLAUSIBLE_BITS
                && sums.bytes < 1 << PLAUSIBLE_BITS;
            if number == 0 || number > last_number || !is_plausible {
                return Err(DecodeError::Invalid("sum beyond 64 bits"));
            }
            carries.insert(number, sums);
        }
        Ok(Self(carries))
    }
}

/// Bytes of one saved carry.
const SAVED_BYTES: usize = 4 + 8 + 16 + 16;

/// Bits of sums of 2^48 records whose counters have 64 bits.
const PLAUSIBLE_BITS: u32 = 48 + u64::BITS;

/// The low and the high half.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
#[inline]
const fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

/// The low and the high half.
#[expect(clippy::cast_possible_truncation, reason = "the halves are wanted")]
#[inline]
const fn wide_halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}
