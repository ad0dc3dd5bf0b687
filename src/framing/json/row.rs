//! Flow log records as JSON objects: `{"srcaddr":"10.0.0.1","bytes":40,…}`, the rows of Athena exports
//! and of tools that convert Parquet.
//!
//! A row becomes a line in the order of its members, with the layout that their names make. Member
//! names may use `_` or `-`; members that cannot be fields are left out.

use std::borrow::Cow;
use std::sync::Arc;

use crate::framing::cell;
use crate::record::{FieldId, Layout};

use super::node::{Members, Node};

/// The layout of the row before, since rows of one origin have the same members.
#[derive(Debug, Default)]
pub(in crate::framing) struct LayoutMemo {
    keys: Vec<String>,
    columns: Vec<Column>,
    layout: Option<Arc<Layout>>,
}

#[derive(Debug)]
struct Column {
    member_index: usize,
    is_account: bool,
}

/// Writes the row to `line`, without LF, and gives its layout; `None` if the object is no flow log
/// record.
pub(in crate::framing) fn row_of(
    members: &Members<'_>,
    memo: &mut LayoutMemo,
    line: &mut Vec<u8>,
) -> Option<Arc<Layout>> {
    let same = memo.keys.len() == members.len()
        && memo.keys.iter().zip(members).all(|(known, (key, _))| known == key);
    if !same {
        *memo = LayoutMemo::of_members(members);
    }
    let layout = memo.layout.clone()?;
    for (position, column) in memo.columns.iter().enumerate() {
        if position > 0 {
            line.push(b' ');
        }
        write_cell(line, column.is_account, &members[column.member_index].1)?;
    }
    Some(layout)
}

impl LayoutMemo {
    fn of_members(members: &Members<'_>) -> Self {
        let keys = members.iter().map(|(key, _)| key.clone().into_owned()).collect();
        let mut names: Vec<String> = Vec::new();
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for (member_index, (key, value)) in members.iter().enumerate() {
            let Some(name) = cell::header_name(key) else { continue };
            let field = FieldId::from_name(name.as_bytes());
            let is_nested = matches!(value, Node::List(_) | Node::Object(_));
            if names.contains(&name) || (field.is_none() && is_nested) {
                continue;
            }
            names.push(name);
            fields.push(field);
            columns.push(Column { member_index, is_account: field.is_some_and(cell::is_account) });
        }
        let layout = cell::are_flow_log_fields(fields.into_iter())
            .then(|| Layout::from_text(&names.join(" ")).ok().map(Arc::new))
            .flatten();
        Self { keys, columns, layout }
    }
}

/// `None` if the value is one that no field has.
fn write_cell(line: &mut Vec<u8>, is_account: bool, value: &Node<'_>) -> Option<()> {
    match value {
        Node::Null => cell::write_missing(line),
        Node::Bool(value) => cell::write_text(line, if *value { b"true" } else { b"false" }),
        Node::Integer(value) => cell::write_integer(line, is_account, *value),
        Node::Float(value) => cell::write_float(line, is_account, *value),
        Node::Text(text) => cell::write_text(line, numeric_text(text).as_bytes()),
        Node::List(_) | Node::Object(_) => return None,
    }
    Some(())
}

/// Numbers that were written as text keep their form, but for a fraction of zero (`"443.0"`).
fn numeric_text(text: &str) -> Cow<'_, str> {
    match text.strip_suffix(".0") {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
            Cow::Borrowed(digits)
        }
        _ => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, expected: Option<(&str, &str)>) {
        let node = Node::parse(document.as_bytes()).unwrap();
        let Node::Object(members) = &node else { panic!("an object") };
        let mut line = Vec::new();
        let layout = row_of(members, &mut LayoutMemo::default(), &mut line);
        let got = layout.map(|layout| (layout.header(), String::from_utf8(line).unwrap()));
        let expected = expected.map(|(header, line)| (header.to_owned(), line.to_owned()));
        assert_eq!(got, expected, "{document}");
    }

    #[test]
    fn members_are_fields_by_name() {
        check(
            r#"{"account_id":12345678910,"srcaddr":"10.0.0.1","dst_port":1,"srcport":25238.0,"traffic_path":null,"action":"-"}"#,
            Some((
                "account-id srcaddr dst-port srcport traffic-path action",
                "012345678910 10.0.0.1 1 25238 - -",
            )),
        );
        check(
            r#"{"interface-id":"eni-1","log-status":"OK","@timestamp":"x","meta":{"a":1}}"#,
            Some(("interface-id log-status", "eni-1 OK")),
        );
        check(
            r#"{"srcaddr":"10.0.0.1","srcport":"443.0"}"#,
            Some(("srcaddr srcport", "10.0.0.1 443")),
        );
    }

    #[test]
    fn other_objects_are_not_rows() {
        check(r#"{"version":"0","region":"us-east-1","account":"1"}"#, None);
        check(r#"{"srcaddr":["10.0.0.1"],"dstaddr":"10.0.0.2"}"#, None);
        check("{}", None);
    }
}
