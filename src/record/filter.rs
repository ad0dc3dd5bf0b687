//! Conditions on records: `action = REJECT and dstport in (22, 3389) and srcaddr in (10.0.0.0/8)`.
//!
//! ```text
//! or    = and ("or" and)*            and = not ("and" not)*         not = "not" not | "(" or ")" | test
//! test  = FIELD ("=" | "!=" | "<" | "<=" | ">" | ">=") VALUE | FIELD ["not"] "in" "(" VALUE ("," VALUE)* ")"
//! ```
//!
//! Fields have AWS's names. Values are numbers, addresses or CIDR blocks, words, RFC 3339 times for `start` and
//! `end`, or `-` for a field that is absent. A test on an absent field is false, but for `= -`.

use std::ops::RangeBounds;

use super::batch::FlowBatch;
use super::field::{FieldId, FieldKind};
use super::layout::Slot;
use crate::net::Prefix;

/// Why a condition could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "condition `{text}`: {reason} at character {at}; write it like `action = REJECT and dstport in (22, 3389)`"
)]
pub struct FilterError {
    text: String,
    reason: String,
    at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A value of the kind of the field that it is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Operand {
    Absent,
    Prefix(Prefix),
    Number(u64),
    Text(Box<[u8]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Any(Vec<Condition>),
    All(Vec<Condition>),
    Not(Box<Condition>),
    Test { slot: usize, order: Order, operand: Operand },
}

/// A condition on records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    slots: Vec<Slot>,
    condition: Condition,
}

impl Filter {
    /// The condition that a user wrote.
    ///
    /// # Errors
    /// If it is not of the form above, names something that is no field, or compares it with a value of
    /// another kind.
    pub fn from_text(text: &str) -> Result<Self, FilterError> {
        let mut reader = Reader { text, tokens: tokens(text), next: 0, slots: Vec::new() };
        let condition = reader.any()?;
        if reader.next < reader.tokens.len() {
            return Err(reader.fault("expected `and`, `or` or the end"));
        }
        Ok(Self { slots: reader.slots, condition })
    }

    /// Both this condition and `end` within `range` (Unix seconds).
    #[must_use]
    pub fn within(inner: Option<Self>, range: impl RangeBounds<i64>) -> Option<Self> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let mut filter =
            inner.unwrap_or(Self { slots: Vec::new(), condition: Condition::All(Vec::new()) });
        let slot = filter.slot_number(Slot::Known(FieldId::End));
        let test = |order, seconds: &i64| {
            let operand = Operand::Number(u64::try_from(*seconds).unwrap_or(0));
            Condition::Test { slot, order, operand }
        };
        let mut all = vec![filter.condition];
        match range.start_bound() {
            Included(start) => all.push(test(Order::GreaterOrEqual, start)),
            Excluded(start) => all.push(test(Order::Greater, start)),
            Unbounded => {}
        }
        match range.end_bound() {
            Included(end) => all.push(test(Order::LessOrEqual, end)),
            Excluded(end) => all.push(test(Order::Less, end)),
            Unbounded => {}
        }
        let is_everything = all == [Condition::All(Vec::new())];
        filter.condition = Condition::All(all);
        (!is_everything).then_some(filter)
    }

    /// The fields that the condition reads.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The rows for which the condition holds, ascending.
    #[must_use]
    pub fn rows(&self, batch: &FlowBatch) -> Vec<u32> {
        (0..u32::try_from(batch.rows()).expect("a batch has far fewer than 2^32 rows"))
            .filter(|row| self.holds(&self.condition, batch, *row as usize))
            .collect()
    }

    fn holds(&self, condition: &Condition, batch: &FlowBatch, row: usize) -> bool {
        match condition {
            Condition::Any(parts) => parts.iter().any(|part| self.holds(part, batch, row)),
            Condition::All(parts) => parts.iter().all(|part| self.holds(part, batch, row)),
            Condition::Not(part) => !self.holds(part, batch, row),
            Condition::Test { slot, order, operand } => {
                test(batch, &self.slots[*slot], row, *order, operand)
            }
        }
    }

    fn slot_number(&mut self, slot: Slot) -> usize {
        slot_number(&mut self.slots, slot)
    }
}

fn slot_number(slots: &mut Vec<Slot>, slot: Slot) -> usize {
    slots.iter().position(|other| *other == slot).unwrap_or_else(|| {
        slots.push(slot);
        slots.len() - 1
    })
}

fn test(batch: &FlowBatch, slot: &Slot, row: usize, order: Order, operand: &Operand) -> bool {
    let text = |expected: &[u8]| match slot {
        Slot::Known(FieldId::Action) => batch
            .actions()
            .and_then(|column| column.get(row))
            .is_some_and(|action| action.name().as_bytes() == expected),
        Slot::Known(FieldId::LogStatus) => batch
            .log_statuses()
            .and_then(|column| column.get(row))
            .is_some_and(|status| status.name().as_bytes() == expected),
        slot => batch.texts(slot).and_then(|column| column.get(row)) == Some(expected),
    };
    match operand {
        Operand::Absent => is_absent(batch, slot, row),
        Operand::Text(expected) => text(expected),
        Operand::Prefix(prefix) => match slot {
            Slot::Known(field) => batch
                .addrs(*field)
                .and_then(|column| column.get(row))
                .is_some_and(|addr| prefix.contains(addr)),
            Slot::Unknown(_) => false,
        },
        Operand::Number(expected) => number(batch, slot, row).is_some_and(|value| match order {
            Order::Equal => value == *expected,
            Order::Less => value < *expected,
            Order::LessOrEqual => value <= *expected,
            Order::Greater => value > *expected,
            Order::GreaterOrEqual => value >= *expected,
        }),
    }
}

fn number(batch: &FlowBatch, slot: &Slot, row: usize) -> Option<u64> {
    let Slot::Known(field) = slot else { return None };
    match field.kind() {
        FieldKind::Port => batch.ports(*field)?.get(row).map(u64::from),
        FieldKind::Protocol => batch.protocols()?.get(row).map(u64::from),
        FieldKind::Counter => batch.counters(*field)?.get(row),
        FieldKind::Seconds => batch.seconds(*field)?.get(row).and_then(|s| u64::try_from(s).ok()),
        FieldKind::Int32 => batch.small_ints(*field)?.get(row).map(u64::from),
        FieldKind::Addr | FieldKind::Action | FieldKind::LogStatus | FieldKind::Text => None,
    }
}

fn is_absent(batch: &FlowBatch, slot: &Slot, row: usize) -> bool {
    let Slot::Known(field) = slot else {
        return batch.texts(slot).is_none_or(|column| column.get(row).is_none());
    };
    match field.kind() {
        FieldKind::Addr => batch.addrs(*field).is_none_or(|column| column.is_absent(row)),
        FieldKind::Action => batch.actions().is_none_or(|column| column.is_absent(row)),
        FieldKind::LogStatus => batch.log_statuses().is_none_or(|column| column.is_absent(row)),
        FieldKind::Text => batch.texts(slot).is_none_or(|column| column.get(row).is_none()),
        _ => number(batch, slot, row).is_none(),
    }
}

/// A token and the character at which it stands, from 1.
type Token<'a> = (&'a str, usize);

fn tokens(text: &str) -> Vec<Token<'_>> {
    let is_sign = |c: char| matches!(c, '(' | ')' | ',' | '=' | '!' | '<' | '>');
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        let trimmed = rest.trim_start();
        let Some(first) = trimmed.chars().next() else { return tokens };
        let length = match first {
            '!' | '<' | '>' if trimmed[1..].starts_with('=') => 2,
            c if is_sign(c) => 1,
            '"' => trimmed[1..].find('"').map_or(trimmed.len(), |end| end + 2),
            _ => trimmed.find(|c: char| is_sign(c) || c.is_whitespace()).unwrap_or(trimmed.len()),
        };
        let at = text[..text.len() - trimmed.len()].chars().count() + 1;
        tokens.push((&trimmed[..length], at));
        rest = &trimmed[length..];
    }
}

struct Reader<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    next: usize,
    slots: Vec<Slot>,
}

impl<'a> Reader<'a> {
    fn fault(&self, reason: &str) -> FilterError {
        let end = self.text.chars().count() + 1;
        let at = self.tokens.get(self.next).map_or(end, |(_, at)| *at);
        FilterError { text: self.text.to_owned(), reason: reason.to_owned(), at }
    }

    fn take_if(&mut self, expected: &str) -> bool {
        let found = self
            .tokens
            .get(self.next)
            .is_some_and(|(token, _)| token.eq_ignore_ascii_case(expected));
        self.next += usize::from(found);
        found
    }

    fn take(&mut self, what: &str) -> Result<&'a str, FilterError> {
        let (token, _) =
            *self.tokens.get(self.next).ok_or_else(|| self.fault(&format!("expected {what}")))?;
        self.next += 1;
        Ok(token)
    }

    fn any(&mut self) -> Result<Condition, FilterError> {
        let mut parts = vec![self.all()?];
        while self.take_if("or") {
            parts.push(self.all()?);
        }
        Ok(Condition::Any(parts))
    }

    fn all(&mut self) -> Result<Condition, FilterError> {
        let mut parts = vec![self.not()?];
        while self.take_if("and") {
            parts.push(self.not()?);
        }
        Ok(Condition::All(parts))
    }

    fn not(&mut self) -> Result<Condition, FilterError> {
        if self.next > 256 {
            return Err(self.fault("too long a condition (256 tokens at most)"));
        }
        if self.take_if("not") {
            return Ok(Condition::Not(Box::new(self.not()?)));
        }
        if self.take_if("(") {
            let inner = self.any()?;
            return if self.take_if(")") { Ok(inner) } else { Err(self.fault("expected `)`")) };
        }
        self.test()
    }

    fn test(&mut self) -> Result<Condition, FilterError> {
        let name = self.take("a field name")?;
        let slot = Slot::from_name(name);
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || b"-0123456789".contains(&byte)) {
            self.next -= 1;
            return Err(self.fault("expected a field name such as `srcaddr`"));
        }
        let kind = slot.kind();
        let slot = slot_number(&mut self.slots, slot);
        let negated = self.take_if("not");
        if self.take_if("in") {
            return self.list(slot, kind, negated);
        }
        let order = match self.take("`=`, `!=`, `<`, `<=`, `>`, `>=` or `in`")? {
            "=" | "!=" => Order::Equal,
            "<" => Order::Less,
            "<=" => Order::LessOrEqual,
            ">" => Order::Greater,
            ">=" => Order::GreaterOrEqual,
            _ => {
                self.next -= 1;
                return Err(self.fault("expected `=`, `!=`, `<`, `<=`, `>`, `>=` or `in`"));
            }
        };
        let is_not_equal = self.tokens[self.next - 1].0 == "!=";
        let operand = self.operand(kind)?;
        if order != Order::Equal && !matches!(operand, Operand::Number(_)) {
            return Err(self.fault("only numbers and times can be less or greater"));
        }
        let test = Condition::Test { slot, order, operand };
        Ok(if is_not_equal || negated { but_present(slot, test) } else { test })
    }

    fn list(
        &mut self,
        slot: usize,
        kind: FieldKind,
        negated: bool,
    ) -> Result<Condition, FilterError> {
        let in_parentheses = self.take_if("(");
        let mut parts = Vec::new();
        loop {
            let operand = self.operand(kind)?;
            parts.push(Condition::Test { slot, order: Order::Equal, operand });
            if !in_parentheses || !self.take_if(",") {
                break;
            }
        }
        if in_parentheses && !self.take_if(")") {
            return Err(self.fault("expected `,` or `)`"));
        }
        let any = Condition::Any(parts);
        Ok(if negated { but_present(slot, any) } else { any })
    }

    fn operand(&mut self, kind: FieldKind) -> Result<Operand, FilterError> {
        let quoted = self.take("a value")?;
        let word = quoted.trim_matches('"');
        let operand = match kind {
            _ if quoted == "-" => Some(Operand::Absent),
            FieldKind::Addr => word.parse().ok().map(Operand::Prefix),
            FieldKind::Seconds => seconds(word).map(Operand::Number),
            FieldKind::Port | FieldKind::Protocol | FieldKind::Counter | FieldKind::Int32 => {
                word.parse().ok().map(Operand::Number)
            }
            FieldKind::Action | FieldKind::LogStatus => {
                Some(Operand::Text(word.to_ascii_uppercase().into_bytes().into()))
            }
            FieldKind::Text => Some(Operand::Text(word.as_bytes().into())),
        };
        operand.ok_or_else(|| {
            self.next -= 1;
            self.fault(match kind {
                FieldKind::Addr => "expected an IP address or CIDR block",
                FieldKind::Seconds => "expected Unix seconds or an RFC 3339 time",
                _ => "expected a number",
            })
        })
    }
}

/// `test` is false and the field is there; `!= -` alone asks for presence.
fn but_present(slot: usize, test: Condition) -> Condition {
    let absent = Condition::Test { slot, order: Order::Equal, operand: Operand::Absent };
    Condition::Not(Box::new(Condition::Any(vec![test, absent])))
}

fn seconds(word: &str) -> Option<u64> {
    let parsed = crate::units::UnixSeconds::from_text(word).ok()?;
    u64::try_from(parsed.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Layout, Parser, TextSlice};
    use crate::simd::Isa;

    const LINES: &str = "\
        2 123456789012 eni-1 10.0.0.1 192.0.2.1 40000 22 6 1 40 100 160 REJECT OK\n\
        2 123456789012 eni-2 10.1.0.1 192.0.2.1 40000 443 6 9 4000 100 170 ACCEPT OK\n\
        2 123456789012 eni-1 - - - - - - - 100 180 - NODATA\n";

    fn check(text: &str, expected: &[u32]) {
        let filter = Filter::from_text(text).unwrap();
        let columns =
            filter.slots().iter().fold(crate::record::ColumnSet::new(), |mut columns, slot| {
                columns.insert_slot(slot);
                columns
            });
        let mut parser = Parser::new(Isa::detect(), columns);
        let lines = TextSlice::from(LINES.as_bytes().to_vec());
        let block = parser.parse(lines.text(), lines.range(), &Layout::default_v2());
        assert_eq!(filter.rows(&block.batches[0]), expected, "{text}");
    }

    #[test]
    fn conditions_choose_rows() {
        check("action = REJECT", &[0]);
        check("action != REJECT", &[1]);
        check("action = reject or dstport = 443", &[0, 1]);
        check("srcaddr in (10.0.0.0/16, 192.0.2.0/24)", &[0]);
        check("srcaddr not in 10.0.0.0/16", &[1]);
        check("bytes >= 40 and not (bytes > 40)", &[0]);
        check("interface-id = eni-1", &[0, 2]);
        check("srcaddr = -", &[2]);
        check("srcaddr != -", &[0, 1]);
        check("end > 1970-01-01T00:02:45Z", &[1, 2]);
        check("log-status = NODATA", &[2]);
        check("(dstport=22 or dstport=443) and packets<5", &[0]);
    }

    #[test]
    fn faults_point_at_the_place() {
        let fault = |text: &str| Filter::from_text(text).unwrap_err().to_string();
        assert!(fault("dstport = ssh").contains("expected a number at character 11"));
        assert!(fault("srcaddr = 10.0.0").contains("expected an IP address"));
        assert!(fault("dstport = 22 and").contains("expected a field name at character 17"));
        assert!(fault("srcaddr < 10.0.0.1").contains("only numbers"));
        assert!(fault("(dstport = 22").contains("expected `)`"));
        assert!(fault("dstport = 22 dstport = 23").contains("expected `and`"));
        assert!(fault(&"(".repeat(10_000)).contains("too long"));
    }
}
