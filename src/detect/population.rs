//! How many own hosts there are, about, as far as they have been seen.
//!
//! Linear counting (Whang, Vander-Zanden and Taylor): each host sets one bit of a bitmap, and the share of
//! clear bits tells how many set them; exact to a host for hundreds, to one in a hundred for tens of thousands.
//! Two bitmaps take turns every day, so that hosts that are gone stop to count within two.

use super::saved::Saved;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::net::Addr;

/// Bits of a bitmap.
const BITS: u32 = 16;

const WORDS: usize = 1 << (BITS - 6);

/// How long a bitmap is added to.
const TURN_SECONDS: i64 = 86_400;

/// The bitmaps; they take no memory before the first host.
#[derive(Debug, Default)]
pub(super) struct Population {
    now: Vec<u64>,
    before: Vec<u64>,
    turn: i64,
}

impl Population {
    /// Begins a pane that starts at a second of the stream. Panes come in order.
    pub(super) fn begin(&mut self, pane_start: i64) {
        let turn = pane_start.div_euclid(TURN_SECONDS);
        if turn > self.turn {
            std::mem::swap(&mut self.now, &mut self.before);
            if turn > self.turn + 1 {
                self.before.clear();
            }
            self.now.clear();
            self.turn = turn;
        }
    }

    /// Notes a host.
    #[expect(clippy::cast_possible_truncation, reason = "a hash, of which the upper bits are kept")]
    #[inline]
    pub(super) fn note(&mut self, host: Addr) {
        if self.now.is_empty() {
            self.now.resize(WORDS, 0);
        }
        let bits = host.bits();
        let folded = bits as u64 ^ ((bits >> 64) as u64).rotate_left(32);
        let mixed = (folded ^ folded >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        let bit = ((mixed ^ mixed >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> (64 - BITS);
        self.now[(bit >> 6) as usize] |= 1 << (bit & 63);
    }

    /// How many hosts were noted within one to two days.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
    pub(super) fn count(&self) -> u64 {
        let before = self.before.iter().copied().chain(std::iter::repeat(0));
        let set: u32 = if self.now.is_empty() {
            self.before.iter().map(|word| word.count_ones()).sum()
        } else {
            self.now.iter().zip(before).map(|(now, before)| (now | before).count_ones()).sum()
        };
        let all = f64::from(1_u32 << BITS);
        let clear = (all - f64::from(set)).max(1.0);
        (all * (all / clear).ln()).round() as u64
    }

    /// Memory held, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        (self.now.capacity() + self.before.capacity()) * size_of::<u64>()
    }
}

/// Saves the words that are not 0.
fn save_words(words: &[u64], out: &mut Encoder) {
    out.count(words.iter().filter(|word| **word != 0).count());
    for (position, word) in (0_u16..).zip(words).filter(|(_, word)| **word != 0) {
        out.u16(position);
        out.u64(*word);
    }
}

fn load_words(from: &mut Decoder<'_>) -> Result<Vec<u64>, DecodeError> {
    let count = from.count(10)?;
    let mut words = vec![0; if count == 0 { 0 } else { WORDS }];
    for _ in 0..count {
        let (position, word) = (from.u16()?, from.u64()?);
        *words.get_mut(usize::from(position)).ok_or(DecodeError::Invalid("host bitmap"))? = word;
    }
    Ok(words)
}

impl Saved for Population {
    const BYTES_MIN: usize = 16;

    fn save(&self, out: &mut Encoder) {
        out.i64(self.turn);
        save_words(&self.now, out);
        save_words(&self.before, out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let turn = from.i64()?;
        Ok(Self { turn, now: load_words(from)?, before: load_words(from)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_counted_and_forgotten() {
        let mut population = Population::default();
        for (hosts, slack) in [(1, 0), (20, 0), (500, 6), (20_000, 300)] {
            (0..hosts).for_each(|host| population.note(Addr::v4(0x0a14_0000 + host)));
            let counted = population.count();
            assert!(counted.abs_diff(hosts.into()) <= slack, "{counted} of {hosts}");
        }
        population.begin(TURN_SECONDS);
        let mut out = Encoder::default();
        population.save(&mut out);
        let bytes = out.into_bytes();
        population = Population::load(&mut Decoder::new(&bytes)).unwrap();
        assert!(population.count().abs_diff(20_000) <= 300);
        population.note(Addr::v4(1));
        population.begin(2 * TURN_SECONDS);
        assert_eq!(population.count(), 1);
        population.begin(9 * TURN_SECONDS);
        assert_eq!(population.count(), 0);
    }
}
