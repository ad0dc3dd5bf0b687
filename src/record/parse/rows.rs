//! Up to 64 lines of the usual form: each field down the lines, by the kernel of its kind.
//!
//! What a kernel does not fit (IPv6, long numbers, `SKIPDATA`, faults) goes through the parsers of `value`,
//! field by field; on machines without column kernels that is every field.

use zerocopy::{FromBytes as _, IntoBytes as _};

use super::store;
use crate::net::Addr;
use crate::record::batch::{Action, Column, FlowBatch, LogStatus, Span, Values};
use crate::record::field::FieldKind;
use crate::simd::{Judged, Rows, Word};

const ACTIONS: [Word; 2] = [Word::new("ACCEPT"), Word::new("REJECT")];
/// The third has one letter too many for a kernel, and is rare.
const STATUSES: [Word; 2] = [Word::new("OK"), Word::new("NODATA")];

/// Writes `rows` behind the batch's records, and says which of them are no records of this form. The
/// batch keeps those before the first such row.
pub(super) fn fill(batch: &mut FlowBatch, rows: &Rows<'_>) -> u64 {
    let first_row = batch.rows;
    let mut faulty = 0;
    for (position, slot) in batch.layout.slots().iter().enumerate() {
        let column = batch.columns[position].as_mut();
        faulty |= fill_column(slot.kind(), column, rows, position, first_row);
    }
    let taken = (faulty.trailing_zeros() as usize).min(rows.count());
    for column in batch.columns.iter_mut().flatten() {
        let absent = std::mem::take(&mut column.absent_now) & Rows::mask(taken);
        if absent != 0 {
            column.set_absent_bits(first_row, absent);
        }
    }
    batch.rows += taken;
    faulty
}

/// Judges one field of all rows, and keeps it if the job wants it; gives the faulty ones.
fn fill_column(
    kind: FieldKind,
    column: Option<&mut Column>,
    rows: &Rows<'_>,
    position: usize,
    first_row: usize,
) -> u64 {
    macro_rules! by_kernel {
        ($kernel:ident, $type:ty, $column:ident => $values:pat, $out:expr) => {
            match $column {
                Some(Column { values: $values, .. }) => rows.$kernel(position, Some($out)),
                _ => rows.$kernel::<$type>(position, None),
            }
        };
    }
    let mut column = column;
    let target = column.as_deref_mut();
    let judged = match kind {
        FieldKind::Port => {
            by_kernel!(numbers, u16, target => Values::U16(values), &mut values[first_row..])
        }
        FieldKind::Protocol => {
            by_kernel!(numbers, u8, target => Values::U8(values), &mut values[first_row..])
        }
        FieldKind::Int32 => {
            by_kernel!(numbers, u32, target => Values::U32(values), &mut values[first_row..])
        }
        FieldKind::Counter => {
            by_kernel!(numbers, u64, target => Values::U64(values), &mut values[first_row..])
        }
        FieldKind::Seconds => rows.ten_digits(position, seconds_from(target, first_row)),
        FieldKind::Addr => rows.ipv4(position, addrs_from(target, first_row)),
        FieldKind::Action => actions(target, rows, position, first_row),
        FieldKind::LogStatus => statuses(target, rows, position, first_row),
        FieldKind::Text => return texts(target, rows, position, first_row),
    };
    let mut absent = judged.absent;
    let mut faulty = 0;
    let mut unfit = judged.unfit;
    while unfit != 0 {
        let row = unfit.trailing_zeros() as usize;
        let (start, end) = rows.bounds(row, position);
        let span = Span::new(start, end);
        let field = rows.field(row, position);
        match store(kind, column.as_deref_mut(), first_row + row, field, span) {
            Ok(true) => {}
            Ok(false) => absent |= 1 << row,
            Err(_) => faulty |= 1 << row,
        }
        unfit &= unfit - 1;
    }
    if let Some(column) = column {
        column.absent_now = absent;
    }
    faulty
}

fn seconds_from(column: Option<&mut Column>, first_row: usize) -> Option<&mut [u64]> {
    let Some(Column { values: Values::I64(values), .. }) = column else { return None };
    let bytes = values[first_row..].as_mut_bytes();
    Some(<[u64]>::mut_from_bytes(bytes).expect("both are numbers of 64 bits"))
}

fn addrs_from(column: Option<&mut Column>, first_row: usize) -> Option<&mut [u128]> {
    let Some(Column { values: Values::Addr(values), .. }) = column else { return None };
    let values: &mut [Addr] = &mut values[first_row..];
    Some(<[u128]>::mut_from_bytes(values.as_mut_bytes()).expect("an address is such a number"))
}

fn actions(
    column: Option<&mut Column>,
    rows: &Rows<'_>,
    position: usize,
    first_row: usize,
) -> Judged {
    let Some([accepted, rejected]) = rows.words(position, &ACTIONS) else {
        return Judged { absent: 0, unfit: Rows::mask(rows.count()) };
    };
    if let Some(Column { values: Values::Action(values), .. }) = column {
        for (row, value) in values[first_row..][..rows.count()].iter_mut().enumerate() {
            *value = if rejected >> row & 1 == 1 { Action::Reject } else { Action::Accept };
        }
    }
    Judged { absent: 0, unfit: Rows::mask(rows.count()) & !(accepted | rejected) }
}

fn statuses(
    column: Option<&mut Column>,
    rows: &Rows<'_>,
    position: usize,
    first_row: usize,
) -> Judged {
    let Some([ok, no_data]) = rows.words(position, &STATUSES) else {
        return Judged { absent: 0, unfit: Rows::mask(rows.count()) };
    };
    if let Some(Column { values: Values::LogStatus(values), .. }) = column {
        for (row, value) in values[first_row..][..rows.count()].iter_mut().enumerate() {
            *value = if no_data >> row & 1 == 1 { LogStatus::NoData } else { LogStatus::Ok };
        }
    }
    Judged { absent: 0, unfit: Rows::mask(rows.count()) & !(ok | no_data) }
}

/// Text is anything that is not empty. At the end of a line it must not end in what the careful way
/// takes off there.
fn texts(column: Option<&mut Column>, rows: &Rows<'_>, position: usize, first_row: usize) -> u64 {
    let mut faulty = 0;
    if rows.may_have_empty_fields() {
        for row in 0..rows.count() {
            faulty |= u64::from(rows.field(row, position).is_empty()) << row;
        }
    }
    if rows.is_last_column(position) {
        for row in 0..rows.count() {
            let is_padded = rows.field(row, position).last().is_none_or(|byte| *byte <= b' ');
            faulty |= u64::from(is_padded) << row;
        }
    }
    if let Some(Column { values: Values::Text(spans), .. }) = column {
        for (row, span) in spans[first_row..][..rows.count()].iter_mut().enumerate() {
            let (start, end) = rows.bounds(row, position);
            *span = Span::new(start, end);
        }
    }
    faulty
}
