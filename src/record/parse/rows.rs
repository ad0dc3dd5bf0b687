//! Up to 64 lines of the usual form: each field down the lines, by the kernel of its kind.
//!
//! What a kernel does not fit (IPv6, long numbers, `SKIPDATA`, faults) goes through the parsers of `value`,
//! field by field; on machines without column kernels that is every field.

use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::net::Addr;
use crate::record::batch::{Action, Column, FlowBatch, LogStatus, Span, Values};
use crate::record::field::FieldKind;
use crate::record::value::{self, ValueFault};
use crate::simd::{Judged, Rows, Word};

const ACTIONS: [Word; 2] = [Word::new("ACCEPT"), Word::new("REJECT")];
/// The third has one letter too many for a kernel, and is rare.
const STATUSES: [Word; 2] = [Word::new("OK"), Word::new("NODATA")];

/// Eight rows of a column of two words, by a bit for each.
macro_rules! choices {
    ($unset:expr, $set:expr) => {{
        let mut table = [[$unset; 8]; 256];
        let mut bits = 0;
        while bits < 256 {
            let mut row = 0;
            while row < 8 {
                if bits >> row & 1 == 1 {
                    table[bits][row] = $set;
                }
                row += 1;
            }
            bits += 1;
        }
        table
    }};
}

static EIGHT_ACTIONS: [[Action; 8]; 256] = choices!(Action::Accept, Action::Reject);
static EIGHT_STATUSES: [[LogStatus; 8]; 256] = choices!(LogStatus::Ok, LogStatus::NoData);

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
#[expect(clippy::needless_pass_by_value, reason = "a borrowed column is lent on, not copied")]
fn fill_column(
    kind: FieldKind,
    column: Option<&mut Column>,
    rows: &Rows<'_>,
    position: usize,
    first_row: usize,
) -> u64 {
    let (values, absent_now) = match column {
        Some(Column { values, absent_now, .. }) => (Some(values), Some(absent_now)),
        None => (None, None),
    };
    let field = Field { rows, position };
    macro_rules! target {
        ($variant:ident) => {
            match values {
                Some(Values::$variant(values)) => Some(&mut values[first_row..][..rows.count()]),
                _ => None,
            }
        };
    }
    macro_rules! numbers {
        ($variant:ident, $parse:path) => {{
            let mut target = target!($variant);
            let judged = rows.numbers(position, target.as_deref_mut());
            field.rest(judged, $parse, target)
        }};
    }
    let (absent, faulty) = match kind {
        FieldKind::Port => numbers!(U16, value::number_u16),
        FieldKind::Protocol => numbers!(U8, value::number_u8),
        FieldKind::Int32 => numbers!(U32, value::number_i31),
        FieldKind::Counter => numbers!(U64, value::number_u64),
        FieldKind::Seconds => {
            let mut target = target!(I64);
            let judged = rows.ten_digits(position, target.as_deref_mut().map(words_of));
            field.rest(judged, value::number_i63, target)
        }
        FieldKind::Addr => {
            let mut target = target!(Addr);
            let mut judged = rows.ipv4(position, target.as_deref_mut().map(bits_of));
            judged.unfit = field.ipv6(judged.unfit, target.as_deref_mut());
            field.rest(judged, value::addr, target)
        }
        FieldKind::Action => {
            let mut target = target!(Action);
            let judged = field.choose(&ACTIONS, &EIGHT_ACTIONS, target.as_deref_mut());
            field.rest(judged, value::action, target)
        }
        FieldKind::LogStatus => {
            let mut target = target!(LogStatus);
            let judged = field.choose(&STATUSES, &EIGHT_STATUSES, target.as_deref_mut());
            field.rest(judged, value::log_status, target)
        }
        FieldKind::Text => return field.texts(target!(Text)),
    };
    if let Some(absent_now) = absent_now {
        *absent_now = absent;
    }
    faulty
}

fn words_of(seconds: &mut [i64]) -> &mut [u64] {
    <[u64]>::mut_from_bytes(seconds.as_mut_bytes()).expect("both are numbers of 64 bits")
}

fn bits_of(addrs: &mut [Addr]) -> &mut [u128] {
    <[u128]>::mut_from_bytes(addrs.as_mut_bytes()).expect("an address is such a number")
}

/// One field of some lines.
#[derive(Clone, Copy)]
struct Field<'r, 't> {
    rows: &'r Rows<'t>,
    position: usize,
}

impl Field<'_, '_> {
    /// Judges what the kernel left; gives the rows that are absent and those that are faulty.
    #[inline]
    fn rest<T>(
        self,
        judged: Judged,
        parse: impl Fn(&[u8]) -> Result<T, ValueFault>,
        mut values: Option<&mut [T]>,
    ) -> (u64, u64) {
        let Judged { mut absent, mut unfit } = judged;
        let mut faulty = 0;
        while unfit != 0 {
            let row = unfit.trailing_zeros() as usize;
            let text = self.rows.field(row, self.position);
            if text == b"-" {
                absent |= 1 << row;
            } else {
                match parse(text) {
                    Ok(value) => {
                        if let Some(values) = &mut values {
                            values[row] = value;
                        }
                    }
                    Err(_) => faulty |= 1 << row,
                }
            }
            unfit &= unfit - 1;
        }
        (absent, faulty)
    }

    /// Takes IPv6 addresses of the usual form among `rows_left`, and gives what is still left.
    fn ipv6(self, rows_left: u64, mut values: Option<&mut [Addr]>) -> u64 {
        let (mut unfit, mut left) = (0, rows_left);
        while left != 0 {
            let row = left.trailing_zeros() as usize;
            match self.rows.ipv6(row, self.position) {
                None => unfit |= 1 << row,
                Some(bits) => {
                    if let Some(values) = &mut values {
                        values[row] = Addr::v6(bits);
                    }
                }
            }
            left &= left - 1;
        }
        unfit
    }

    /// Takes fields that are one of two words; `eight` is by bits of the second.
    fn choose<T: Copy>(
        self,
        words: &[Word; 2],
        eight: &[[T; 8]; 256],
        values: Option<&mut [T]>,
    ) -> Judged {
        let all = Rows::mask(self.rows.count());
        let Some([first, second]) = self.rows.words(self.position, words) else {
            return Judged { absent: 0, unfit: all };
        };
        if let Some(values) = values {
            for (values, bits) in values.chunks_mut(8).zip(second.to_le_bytes()) {
                values.copy_from_slice(&eight[usize::from(bits)][..values.len()]);
            }
        }
        Judged { absent: 0, unfit: all & !(first | second) }
    }

    /// Text is anything that is not empty. At the end of a line it must not end in what the careful
    /// way takes off there.
    fn texts(self, spans: Option<&mut [Span]>) -> u64 {
        let Self { rows, position } = self;
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
        if let Some(spans) = spans {
            for (row, span) in spans.iter_mut().enumerate() {
                let (start, end) = rows.bounds(row, position);
                *span = Span::new(start, end);
            }
        }
        faulty
    }
}
