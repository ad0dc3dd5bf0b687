//! An interface as one that logs: since when, how steadily, and what was told of it.

use super::interfaces::{InterfacePane, load_place, save_place};
use super::saved::Saved;
use crate::aggregate::Place;
use crate::codec::{DecodeError, Decoder, Encoder};
use crate::net::Addr;
use crate::units::UnixSeconds;

/// How many times its longest silence so far an interface has to be silent.
const LONGER_THAN_USUAL: u64 = 4;

/// In how many panes something must have logged before its silences are known.
const LOGGED_PANES_MIN: u64 = 30;

/// Bytes that an interface takes beside its texts.
const LOGGER_BYTES: usize = 320;

/// How an interface's silence was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It logs, or is not silent for long.
    Nothing,
    /// In a finding of its own.
    Alone,
    /// In one with others.
    Together,
}

/// An interface, or all of them together, as one that logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rhythm {
    pub(super) first_start: UnixSeconds,
    pub(super) last_end: UnixSeconds,
    /// Panes with records of it.
    pub(super) logged_panes: u64,
    /// The longest silence that ended, in panes.
    pub(super) longest_panes: u64,
}

impl Rhythm {
    pub(super) const NONE: Self = Self {
        first_start: UnixSeconds::MAX,
        last_end: UnixSeconds::MIN,
        logged_panes: 0,
        longest_panes: 0,
    };

    /// Whether a silence of so many panes is longer than any that is usual.
    pub(super) fn is_unusual(
        &self,
        silent_panes: u64,
        silent_seconds: u32,
        pane_seconds: i64,
    ) -> bool {
        let shortest = u64::from(silent_seconds).div_ceil(pane_seconds.unsigned_abs().max(1));
        let usual = self.longest_panes.saturating_mul(LONGER_THAN_USUAL);
        self.logged_panes >= LOGGED_PANES_MIN && silent_panes > usual.max(shortest)
    }

    pub(super) fn log(&mut self, first_start: UnixSeconds, last_end: UnixSeconds) {
        self.first_start = self.first_start.min(first_start);
        self.last_end = self.last_end.max(last_end);
        self.logged_panes = self.logged_panes.saturating_add(1);
    }
}

impl Saved for Rhythm {
    const BYTES_MIN: usize = 32;

    fn save(&self, out: &mut Encoder) {
        self.first_start.save(out);
        self.last_end.save(out);
        out.u64(self.logged_panes);
        out.u64(self.longest_panes);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            first_start: UnixSeconds::load(from)?,
            last_end: UnixSeconds::load(from)?,
            logged_panes: from.u64()?,
            longest_panes: from.u64()?,
        })
    }
}

/// An interface that logged.
#[derive(Debug)]
pub(super) struct Logger {
    /// Which interface it is of all that ever were in the table.
    pub(super) serial: u64,
    pub(super) place: Place,
    pub(super) own: Option<Addr>,
    pub(super) rhythm: Rhythm,
    /// How many panes had records of any interface when it logged last.
    pub(super) last_tick: u64,
    pub(super) told: Told,
    /// SKIPDATA records of the episode.
    pub(super) skipped: u64,
    /// Latest `end` of one.
    pub(super) last_skip: UnixSeconds,
}

impl Logger {
    pub(super) fn new(serial: u64, interface: &InterfacePane, tick: u64) -> Self {
        Self {
            serial,
            place: interface.place.clone(),
            own: None,
            rhythm: Rhythm::NONE,
            last_tick: tick,
            told: Told::Nothing,
            skipped: 0,
            last_skip: UnixSeconds::MIN,
        }
    }

    /// Counts SKIPDATA records of a pane; after `quiet_seconds` without any it begins anew.
    pub(super) fn skip(
        &mut self,
        (_, to): (UnixSeconds, UnixSeconds),
        records: u32,
        quiet_seconds: u32,
    ) {
        let is_new = to.0.saturating_sub(self.last_skip.0) > i64::from(quiet_seconds);
        let before = if is_new { 0 } else { self.skipped };
        self.skipped = before.saturating_add(records.into());
        self.last_skip = self.last_skip.max(to);
    }

    /// Memory held, in bytes, with its name.
    pub(super) fn bytes(&self, name: &str) -> usize {
        let Place { interface_id, account_id, vpc_id, subnet_id } = &self.place;
        let texts = [interface_id, account_id, vpc_id, subnet_id];
        let texts = texts.into_iter().flatten().map(String::len);
        LOGGER_BYTES + name.len() + texts.sum::<usize>()
    }
}

impl Saved for Logger {
    const BYTES_MIN: usize = 70;

    fn save(&self, out: &mut Encoder) {
        out.u64(self.serial);
        save_place(&self.place, out);
        self.own.save(out);
        self.rhythm.save(out);
        out.u64(self.last_tick);
        out.u8(match self.told {
            Told::Nothing => 0,
            Told::Alone => 1,
            Told::Together => 2,
        });
        out.u64(self.skipped);
        self.last_skip.save(out);
    }

    fn load(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            serial: from.u64()?,
            place: load_place(from)?,
            own: Option::load(from)?,
            rhythm: Rhythm::load(from)?,
            last_tick: from.u64()?,
            told: match from.u8()? {
                0 => Told::Nothing,
                1 => Told::Alone,
                2 => Told::Together,
                _ => return Err(DecodeError::Invalid("what was told of an interface")),
            },
            skipped: from.u64()?,
            last_skip: UnixSeconds::load(from)?,
        })
    }
}
