//! Field values from text (placeholder for the fast parsers).
use super::batch::{Action, LogStatus};
use crate::net::Addr;

/// Why a value could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueFault { /// Not digits.
 Number, /// Too large.
 Range, /// Not an address.
 Address, /// Not an action.
 Action, /// Not a status.
 LogStatus }

/// Any u64.
pub fn number_u64(token: &[u8]) -> Result<u64, ValueFault> {
    if token.is_empty() { return Err(ValueFault::Number); }
    let mut v: u64 = 0;
    for b in token {
        let d = b.wrapping_sub(b'0');
        if d > 9 { return Err(ValueFault::Number); }
        v = v.checked_mul(10).and_then(|v| v.checked_add(u64::from(d))).ok_or(ValueFault::Range)?;
    }
    Ok(v)
}
/// A number up to `max`.
pub fn number_below(token: &[u8], max: u64) -> Result<u64, ValueFault> {
    let v = number_u64(token)?;
    if v > max { Err(ValueFault::Range) } else { Ok(v) }
}
/// An address.
pub fn addr(token: &[u8]) -> Result<Addr, ValueFault> {
    std::str::from_utf8(token).ok().and_then(|t| t.parse().ok()).ok_or(ValueFault::Address)
}
/// An action.
pub fn action(token: &[u8]) -> Result<Action, ValueFault> {
    match token { b"ACCEPT" => Ok(Action::Accept), b"REJECT" => Ok(Action::Reject), _ => Err(ValueFault::Action) }
}
/// A status.
pub fn log_status(token: &[u8]) -> Result<LogStatus, ValueFault> {
    match token { b"OK" => Ok(LogStatus::Ok), b"NODATA" => Ok(LogStatus::NoData), b"SKIPDATA" => Ok(LogStatus::SkipData), _ => Err(ValueFault::LogStatus) }
}
