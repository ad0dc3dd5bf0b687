//! Keys of talkers: any fields of a record packed into bytes, and unpacked for reports.
//!
//! Equal values give equal bytes, whatever their text was (`2001:DB8::1` and `2001:db8::1` are one
//! host). A record that lacks one of the fields (`-`, or not in its layout) has no key.

use std::fmt::Write as _;

use crate::net::Addr;
use crate::record::{Action, ColumnView, FieldKind, FlowBatch, LogStatus, Slot, TextView};
use crate::units::UnixSeconds;

/// A column of any kind, ready to be read by row.
#[derive(Clone, Copy, Debug)]
pub enum AnyColumn<'a> {
    /// Addresses.
    Addr(ColumnView<'a, Addr>),
    /// Ports.
    Port(ColumnView<'a, u16>),
    /// Protocol numbers.
    Protocol(ColumnView<'a, u8>),
    /// Counters.
    Counter(ColumnView<'a, u64>),
    /// Unix seconds.
    Seconds(ColumnView<'a, i64>),
    /// Small numbers.
    Int32(ColumnView<'a, u32>),
    /// Actions.
    Action(ColumnView<'a, Action>),
    /// Statuses.
    LogStatus(ColumnView<'a, LogStatus>),
    /// Text.
    Text(TextView<'a>),
}

impl<'a> AnyColumn<'a> {
    /// The column of `slot`; `None` if the batch doesn't have it.
    #[must_use]
    pub fn of(batch: &'a FlowBatch, slot: &Slot) -> Option<Self> {
        let Slot::Known(field) = slot else { return batch.texts(slot).map(Self::Text) };
        match slot.kind() {
            FieldKind::Addr => batch.addrs(*field).map(Self::Addr),
            FieldKind::Port => batch.ports(*field).map(Self::Port),
            FieldKind::Protocol => batch.protocols().map(Self::Protocol),
            FieldKind::Counter => batch.counters(*field).map(Self::Counter),
            FieldKind::Seconds => batch.seconds(*field).map(Self::Seconds),
            FieldKind::Int32 => batch.small_ints(*field).map(Self::Int32),
            FieldKind::Action => batch.actions().map(Self::Action),
            FieldKind::LogStatus => batch.log_statuses().map(Self::LogStatus),
            FieldKind::Text => batch.texts(slot).map(Self::Text),
        }
    }

    /// Sets the bits of rows whose value is absent, but for texts, which tell it row by row.
    pub(super) fn mark_absent(&self, marks: &mut [u64]) {
        let absent = match self {
            Self::Addr(column) => column.absent_words(),
            Self::Port(column) => column.absent_words(),
            Self::Protocol(column) => column.absent_words(),
            Self::Counter(column) => column.absent_words(),
            Self::Seconds(column) => column.absent_words(),
            Self::Int32(column) => column.absent_words(),
            Self::Action(column) => column.absent_words(),
            Self::LogStatus(column) => column.absent_words(),
            Self::Text(_) => &[],
        };
        marks.iter_mut().zip(absent).for_each(|(mark, absent)| *mark |= absent);
    }

    /// Appends the packed value of `row`; false if it is absent.
    #[must_use]
    pub fn pack(&self, row: usize, key: &mut Vec<u8>) -> bool {
        match self {
            Self::Addr(column) => column.get(row).is_some_and(|addr| {
                match addr.as_v4() {
                    Some(bits) => {
                        key.push(4);
                        key.extend_from_slice(&bits.to_be_bytes());
                    }
                    None => {
                        key.push(6);
                        key.extend_from_slice(&addr.bits().to_be_bytes());
                    }
                }
                true
            }),
            Self::Port(column) => put(key, column.get(row).map(u16::to_be_bytes)),
            Self::Protocol(column) => put(key, column.get(row).map(u8::to_be_bytes)),
            Self::Counter(column) => put(key, column.get(row).map(u64::to_be_bytes)),
            Self::Seconds(column) => put(key, column.get(row).map(i64::to_be_bytes)),
            Self::Int32(column) => put(key, column.get(row).map(u32::to_be_bytes)),
            Self::Action(column) => put(key, column.get(row).map(|action| [action as u8])),
            Self::LogStatus(column) => put(key, column.get(row).map(|status| [status as u8])),
            Self::Text(column) => column.get(row).is_some_and(|text| {
                let length = u32::try_from(text.len()).expect("lines are far below 4 GiB");
                key.extend_from_slice(&length.to_be_bytes());
                key.extend_from_slice(text);
                true
            }),
        }
    }
}

fn put<const N: usize>(key: &mut Vec<u8>, bytes: Option<[u8; N]>) -> bool {
    bytes.is_some_and(|bytes| {
        key.extend_from_slice(&bytes);
        true
    })
}

/// Appends the packed start of a window.
pub(super) fn pack_window(start: UnixSeconds, key: &mut Vec<u8>) {
    key.extend_from_slice(&start.0.to_be_bytes());
}

/// Takes the start of a window from the front of a packed key.
///
/// # Panics
/// If the key does not begin with one.
#[must_use]
pub(super) fn unpack_window(key: &[u8]) -> (UnixSeconds, &[u8]) {
    let (start, rest) = take(key);
    (UnixSeconds(i64::from_be_bytes(start)), rest)
}

/// The values of a packed key as report text, in the order of `slots`. Text that is not UTF-8 shows
/// U+FFFD.
///
/// # Panics
/// If `key` was not packed from columns of these kinds.
#[must_use]
pub(super) fn unpack(mut key: &[u8], slots: &[Slot]) -> Vec<String> {
    let mut values = Vec::with_capacity(slots.len());
    for slot in slots {
        let mut value = String::new();
        key = unpack_one(key, slot.kind(), &mut value);
        values.push(value);
    }
    assert!(key.is_empty(), "a key holds exactly the fields it was packed from");
    values
}

/// The fields of a packed key, as packed.
pub(super) fn packed_fields<'k, 's>(
    key: &'k [u8],
    slots: impl IntoIterator<Item = &'s Slot>,
) -> impl Iterator<Item = (&'s Slot, &'k [u8])> {
    let mut rest = key;
    slots.into_iter().map(move |slot| {
        let length = match slot.kind() {
            FieldKind::Addr if rest[0] == 4 => 1 + 4,
            FieldKind::Addr => 1 + 16,
            FieldKind::Port => 2,
            FieldKind::Protocol | FieldKind::Action | FieldKind::LogStatus => 1,
            FieldKind::Counter | FieldKind::Seconds => 8,
            FieldKind::Int32 => 4,
            FieldKind::Text => {
                let (length, _) = take(rest);
                4 + u32::from_be_bytes(length) as usize
            }
        };
        let (field, after) = rest.split_at(length);
        rest = after;
        (slot, field)
    })
}

/// The address of a packed field that holds one.
pub(super) fn packed_addr(field: &[u8]) -> Addr {
    match field {
        [4, bits @ ..] => Addr::v4(u32::from_be_bytes(take(bits).0)),
        _ => Addr::v6(u128::from_be_bytes(take(&field[1..]).0)),
    }
}

/// Whether these bytes are a packed key of these fields, behind the start of a window or not.
pub(super) fn is_packed(key: &[u8], slots: &[Slot], has_window: bool) -> bool {
    fn rest_of<'a>(key: &'a [u8], slot: &Slot) -> Option<&'a [u8]> {
        let length = match slot.kind() {
            FieldKind::Addr => match key.first()? {
                4 => 1 + 4,
                6 => 1 + 16,
                _ => return None,
            },
            FieldKind::Port => 2,
            FieldKind::Protocol | FieldKind::Action | FieldKind::LogStatus => 1,
            FieldKind::Counter | FieldKind::Seconds => 8,
            FieldKind::Int32 => 4,
            FieldKind::Text => 4 + u32::from_be_bytes(*key.first_chunk()?) as usize,
        };
        key.get(length..)
    }
    let fields = if has_window { key.get(8..) } else { Some(key) };
    let rest = slots.iter().fold(fields, |key, slot| rest_of(key?, slot));
    rest.is_some_and(<[u8]>::is_empty)
}

fn unpack_one<'a>(key: &'a [u8], kind: FieldKind, value: &mut String) -> &'a [u8] {
    fn show<'a, const N: usize, T: std::fmt::Display>(
        key: &'a [u8],
        value: &mut String,
        read: impl Fn([u8; N]) -> T,
    ) -> &'a [u8] {
        let (bytes, rest) = take(key);
        write!(value, "{}", read(bytes)).expect("writing to a String");
        rest
    }
    match kind {
        FieldKind::Addr if key[0] == 4 => {
            show(&key[1..], value, |bytes| Addr::v4(u32::from_be_bytes(bytes)))
        }
        FieldKind::Addr => show(&key[1..], value, |bytes| Addr::v6(u128::from_be_bytes(bytes))),
        FieldKind::Port => show(key, value, u16::from_be_bytes),
        FieldKind::Protocol => show(key, value, u8::from_be_bytes),
        FieldKind::Counter => show(key, value, u64::from_be_bytes),
        FieldKind::Seconds => show(key, value, i64::from_be_bytes),
        FieldKind::Int32 => show(key, value, u32::from_be_bytes),
        FieldKind::Action => show(key, value, |[code]| match code {
            code if code == Action::Accept as u8 => "ACCEPT",
            _ => "REJECT",
        }),
        FieldKind::LogStatus => show(key, value, |[code]| match code {
            code if code == LogStatus::Ok as u8 => "OK",
            code if code == LogStatus::NoData as u8 => "NODATA",
            _ => "SKIPDATA",
        }),
        FieldKind::Text => {
            let (length, rest) = take(key);
            let (text, rest) = rest.split_at(u32::from_be_bytes(length) as usize);
            value.push_str(&String::from_utf8_lossy(text));
            rest
        }
    }
}

fn take<const N: usize>(key: &[u8]) -> ([u8; N], &[u8]) {
    let (bytes, rest) = key.split_first_chunk().expect("a key holds the fields it was packed from");
    (*bytes, rest)
}
