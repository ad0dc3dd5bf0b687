//! One line by itself: the careful way, which decides whatever the kernels leave.

use std::ops::Range;

use crate::record::batch::{Column, FlowBatch, Span, Values};
use crate::record::fault::FaultKind;
use crate::record::field::FieldKind;
use crate::record::layout::Layout;
use crate::record::value::{self, ValueFault};

/// What a line is.
pub(super) enum Line {
    /// A record, written to the batch's next row.
    Record,
    Blank,
    /// A header, with the layout that it declares if that is another than the batch's.
    Header(Option<Layout>),
    /// Not taken: why, which field from 1 (0: the line), and what to tell.
    Fault(FaultKind, u16, Reason),
}

/// What to say of a faulty line, once somebody asks.
#[derive(Clone, Copy)]
pub(super) enum Reason {
    FieldCount(usize),
    Field(usize, FaultKind),
}

impl Reason {
    pub(super) fn text(self, layout: &Layout) -> String {
        match self {
            Self::FieldCount(count) => {
                format!("{count} fields where the layout has {}", layout.field_count())
            }
            Self::Field(position, kind) => format!("{}: {kind}", layout.slots()[position].name()),
        }
    }
}

/// Writes the line at `bounds` of the batch's `text` into its next row, if it is a record.
pub(super) fn fill(batch: &mut FlowBatch, text: &[u8], bounds: Range<usize>) -> Line {
    let Range { mut start, mut end } = bounds;
    // CR of files from Windows, NUL padding of preallocated files, stray blanks.
    while start < end && matches!(text[end - 1], b' ' | b'\t' | b'\r' | 0) {
        end -= 1;
    }
    while start < end && matches!(text[start], b' ' | b'\t') {
        start += 1;
    }
    if start == end {
        return Line::Blank;
    }
    let line = &text[start..end];
    if let Some(layout) = Layout::from_header(line) {
        let same = layout == *batch.layout;
        return Line::Header((!same).then_some(layout));
    }
    let token_count = line.split(|byte| *byte == b' ').filter(|token| !token.is_empty()).count();
    let field_count = batch.layout.field_count();
    if token_count == field_count + 1
        && let Some(time_bytes) = export_time_bytes(line)
    {
        start += time_bytes;
    } else if token_count != field_count {
        return Line::Fault(FaultKind::FieldCount, 0, Reason::FieldCount(token_count));
    }
    let row = batch.rows;
    let mut token_start = start;
    for (position, slot) in batch.layout.slots().iter().enumerate() {
        while text[token_start] == b' ' {
            token_start += 1;
        }
        let length = memchr::memchr(b' ', &text[token_start..end]).unwrap_or(end - token_start);
        let token_end = token_start + length;
        let span = Span::new(token_start, token_end);
        let token = &text[token_start..token_end];
        let mut column = batch.columns[position].as_mut();
        match (store(slot.kind(), column.as_deref_mut(), row, token, span), column) {
            (Ok(false), Some(column)) => column.set_absent(row),
            (Ok(_), _) => {}
            (Err(fault), _) => {
                let columns = batch.columns[..position].iter_mut().flatten();
                columns.for_each(|column| column.clear_absent(row));
                let kind = FaultKind::from(fault);
                let column = u16::try_from(position + 1).expect("layouts are far shorter");
                return Line::Fault(kind, column, Reason::Field(position, kind));
            }
        }
        token_start = token_end;
    }
    Line::Record
}

/// How long the time is that an export of CloudWatch Logs to S3 writes before each event, if the line begins
/// with one: `2026-01-01T00:00:00.000Z`.
fn export_time_bytes(line: &[u8]) -> Option<usize> {
    const SECONDS: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let length = memchr::memchr(b' ', line)?;
    let (time, fraction) = line[..length].strip_suffix(b"Z")?.split_at_checked(SECONDS.len())?;
    let is_digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
    let fits = |(byte, form): (&u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        _ => byte == form,
    };
    let is_time = time.iter().zip(SECONDS).all(fits)
        && (fraction.is_empty() || fraction.strip_prefix(b".").is_some_and(is_digits));
    is_time.then_some(length)
}

/// Checks a field's text by its kind and, if the job keeps the column, stores the value. `Ok(false)` says
/// that the field is `-`, which the caller has to note.
#[expect(clippy::needless_pass_by_value, reason = "a borrowed column is lent on, not copied")]
fn store(
    kind: FieldKind,
    column: Option<&mut Column>,
    row: usize,
    token: &[u8],
    span: Span,
) -> Result<bool, ValueFault> {
    macro_rules! keep {
        ($variant:ident, $value:expr) => {
            if let Some(Column { values: Values::$variant(values), .. }) = column {
                values[row] = $value;
            }
        };
    }
    if token == b"-" && kind != FieldKind::Text {
        return Ok(false);
    }
    match kind {
        FieldKind::Addr => {
            let addr = value::addr(token)?;
            keep!(Addr, addr);
        }
        FieldKind::Port => {
            let port = value::number_u16(token)?;
            keep!(U16, port);
        }
        FieldKind::Protocol => {
            let protocol = value::number_u8(token)?;
            keep!(U8, protocol);
        }
        FieldKind::Counter => {
            let count = value::number_u64(token)?;
            keep!(U64, count);
        }
        FieldKind::Seconds => {
            let seconds = value::number_i63(token)?;
            keep!(I64, seconds);
        }
        FieldKind::Int32 => {
            let number = value::number_i31(token)?;
            keep!(U32, number);
        }
        FieldKind::Action => {
            let action = value::action(token)?;
            keep!(Action, action);
        }
        FieldKind::LogStatus => {
            let status = value::log_status(token)?;
            keep!(LogStatus, status);
        }
        FieldKind::Text if token.is_empty() => return Err(ValueFault::Number),
        FieldKind::Text => keep!(Text, span),
    }
    Ok(true)
}

impl From<ValueFault> for FaultKind {
    fn from(fault: ValueFault) -> Self {
        match fault {
            ValueFault::Number => Self::Number,
            ValueFault::Range => Self::Range,
            ValueFault::Address => Self::Address,
            ValueFault::Action => Self::Action,
            ValueFault::LogStatus => Self::LogStatus,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_an_export_is_known() {
        let check = |line: &str, expected| {
            assert_eq!(export_time_bytes(line.as_bytes()), expected, "{line}");
        };
        check("2026-01-01T00:00:00.000Z 2 1", Some(24));
        check("2026-01-01T00:00:00Z 2 1", Some(20));
        check("2026-01-01T00:00:00.000Z", None);
        check("2026-01-01T00:00:00.0x0Z 2", None);
        check("2026-01-01 00:00:00Z 2", None);
        check("2 123456789012 eni-1", None);
        check(" 2", None);
    }
}
