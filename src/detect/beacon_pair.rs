//! What is kept of a pair that may beacon, in 128 bytes: the newest intervals and sizes, and the hours of a day.

use super::pairs::{OfPair, PackedPair, Pair};
use super::regularity::{History, KEPT, size_code};
use super::saved::Saved;
use crate::codec::{DecodeError, Decoder, Encoder};

/// Connections that begin closer to each other are one contact: a page, or a second try.
const APART_SECONDS_MIN: u32 = 5;

const HOUR_SECONDS: u32 = 3600;

/// IANA number of TCP.
const TCP: u8 = 6;

/// A contact of a pane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) first_start: u32,
    pub(super) last_end: u32,
    pub(super) ports: &'a [u16],
    /// What the client sent.
    pub(super) bytes: u64,
}

impl Seen<'_> {
    /// A bit for each client port.
    fn port_bits(&self) -> u64 {
        self.ports.iter().fold(0, |bits, port| bits | port_bit(*port))
    }
}

/// One of 64 bits by chance: ports that follow each other in whatever steps seldom share one.
pub(super) const fn port_bit(port: u16) -> u64 {
    let mixed = (port as u32).wrapping_mul(0x9e37_79b1);
    let mixed = (mixed ^ mixed >> 15).wrapping_mul(0x85eb_ca6b);
    1 << (mixed >> 26)
}

/// The contacts of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Calls {
    /// Of the client ports in the last pane that had any.
    port_bits: u64,
    pair: PackedPair,
    pub(super) first_start: u32,
    last_start: u32,
    pub(super) last_seen: u32,
    /// A bit for each of the last 32 hours, the lowest for that of `last_start`: whether a contact began in it.
    hours: u32,
    pub(super) count: u16,
    /// How many intervals and sizes there are, and where the next ones go.
    kept: u8,
    next: u8,
    intervals: [u16; KEPT],
    sizes: [u8; KEPT],
}

const _: () = assert!(size_of::<Calls>() <= 128);

impl Calls {
    /// After the first contact that counts.
    pub(super) fn new(pair: Pair, seen: &Seen<'_>) -> Self {
        Self {
            port_bits: seen.port_bits(),
            pair: PackedPair::of(pair),
            first_start: seen.first_start,
            last_start: seen.first_start,
            last_seen: seen.last_end.max(seen.first_start),
            hours: 1,
            count: 1,
            kept: 0,
            next: 0,
            intervals: [0; KEPT],
            sizes: [0; KEPT],
        }
    }

    /// Adds what a pane had, and says whether any connection began. UDP with the same ports goes on for
    /// `lasting_seconds` at most.
    pub(super) fn add(&mut self, seen: &Seen<'_>, lasting_seconds: u32) -> bool {
        let has_paused = seen.first_start > self.last_seen.saturating_add(lasting_seconds);
        let before = if self.pair().protocol != TCP && has_paused { 0 } else { self.port_bits };
        let new = seen.ports.iter().filter(|port| before & port_bit(**port) == 0).count();
        self.port_bits = seen.port_bits();
        self.last_seen = self.last_seen.max(seen.last_end);
        let Ok(new @ 1..) = u32::try_from(new) else { return false };
        let span = seen.last_end.saturating_sub(seen.first_start);
        let steps = new - 1;
        let size = size_code(seen.bytes / u64::from(new));
        if steps == 0 || span / steps < APART_SECONDS_MIN {
            self.push(seen.first_start, size);
        } else {
            (0..=steps).for_each(|step| self.push(seen.first_start + span * step / steps, size));
        }
        true
    }

    fn push(&mut self, start: u32, size: u8) {
        if start <= self.last_start {
            return;
        }
        let interval = u16::try_from(start - self.last_start).unwrap_or(u16::MAX);
        let at = usize::from(self.next);
        (self.intervals[at], self.sizes[at]) = (interval, size);
        self.next = (self.next + 1) % 20;
        self.kept = (self.kept + 1).min(20);
        let hours = start / HOUR_SECONDS - self.last_start / HOUR_SECONDS;
        self.hours = self.hours.checked_shl(hours).unwrap_or(0) | 1;
        self.last_start = start;
        self.count = self.count.saturating_add(1);
    }

    /// From the first to the last contact.
    pub(super) const fn seconds(&self) -> u32 {
        self.last_start.saturating_sub(self.first_start)
    }

    /// What regularity is judged by.
    pub(super) fn history(&self) -> History<'_> {
        let kept = usize::from(self.kept).clamp(1, KEPT);
        let first_hour = self.first_start.min(self.last_start) / HOUR_SECONDS;
        let hours = self.last_start / HOUR_SECONDS - first_hour + 1;
        History {
            intervals: &self.intervals[..kept],
            sizes: &self.sizes[..kept],
            hours: hours.min(32),
            hours_used: self.hours.count_ones(),
            seconds: self.seconds(),
        }
    }
}

impl Saved for Calls {
    const BYTES_MIN: usize = Pair::BYTES_MIN + 28 + 3 * KEPT;

    fn save(&self, out: &mut Encoder) {
        out.u64(self.port_bits);
        self.pair().save(out);
        for number in [self.first_start, self.last_start, self.last_seen, self.hours] {
            out.u32(number);
        }
        out.u16(self.count);
        out.u8(self.kept);
        out.u8(self.next);
        self.intervals.iter().for_each(|interval| out.u16(*interval));
        self.sizes.iter().for_each(|size| out.u8(*size));
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let port_bits = from.u64()?;
        let seen = Seen { first_start: 0, last_end: 0, ports: &[], bytes: 0 };
        let mut calls = Self { port_bits, ..Self::new(Pair::load(from)?, &seen) };
        calls.first_start = from.u32()?;
        calls.last_start = from.u32()?;
        calls.last_seen = from.u32()?;
        calls.hours = from.u32()?;
        calls.count = from.u16()?;
        calls.kept = from.u8()?;
        calls.next = from.u8()?;
        if usize::from(calls.kept) > KEPT || usize::from(calls.next) >= KEPT {
            return Err(DecodeError::Invalid("kept intervals"));
        }
        for interval in &mut calls.intervals {
            *interval = from.u16()?;
        }
        for size in &mut calls.sizes {
            *size = from.u8()?;
        }
        Ok(calls)
    }
}

impl OfPair for Calls {
    fn pair(&self) -> Pair {
        self.pair.pair()
    }

    /// By powers of two of contacts.
    fn rank(&self) -> u8 {
        u8::try_from(self.count.max(1).ilog2()).expect("below 16")
    }

    fn last_seen(&self) -> u32 {
        self.last_seen
    }
}
