//! Threat lists as their makers publish them: one address or block a line, columns, STIX 2.1 bundles, MISP
//! events.
//!
//! The form is told by the content. What can't be read is counted, and the first few are told with their
//! place; a file without a single address is an error. Readers take the text as it comes and keep nothing:
//! entries go to an [`AddressSetBuilder`], which says how much memory they take.

mod csv;
mod misp;
mod stix;

use std::io::{self, BufRead, Read};
use std::net::SocketAddr;

use serde::Deserialize;

use crate::net::{Added, AddressSetBuilder, Prefix};

/// How many faults are told.
const TOLD_MAX: usize = 5;

/// How much of a faulty text is told, in characters.
const TOLD_CHARS_MAX: usize = 60;

/// Longest line of a text.
const LINE_BYTES_MAX: u64 = 1 << 16;

/// Largest JSON document, which is read as a whole and takes some three times its size meanwhile: about half a
/// million indicators.
const JSON_BYTES_MAX: u64 = 256 << 20;

/// Why a file is no threat list.
#[derive(Debug, thiserror::Error)]
pub enum ThreatListError {
    /// It can't be read.
    #[error("cannot read it")]
    Unreadable(#[from] io::Error),
    /// It begins like JSON, and is none.
    #[error("it begins like JSON, but is none; a plain list has one address or CIDR block a line")]
    Json(#[from] serde_json::Error),
    /// JSON of an unknown form.
    #[error(
        "it is JSON, but neither a STIX bundle nor a MISP event nor a list of texts; convert it to one \
         address or CIDR block a line"
    )]
    Form,
    /// JSON that is too large to be read as a whole.
    #[error(
        "it is JSON of more than {JSON_BYTES_MAX} bytes; convert it to one address or CIDR block a line"
    )]
    Large,
    /// Nothing in it is an address.
    #[error("there is no address in it; {0}")]
    NoAddress(String),
}

/// What was read of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreatListReport {
    /// Addresses and blocks.
    pub entries: u64,
    /// Texts in the place of an address that are none, or cover too much.
    pub faults: u64,
    /// Entries for which there was no room.
    pub refused: u64,
    /// The first few faults, each with its place.
    pub told: Vec<String>,
}

/// Reads a list into `into`, where it stands under `name`.
///
/// # Errors
/// If it can't be read, has no known form, or not one address although it isn't empty.
pub fn read_threat_list(
    name: &str,
    from: &mut dyn BufRead,
    into: &mut AddressSetBuilder,
) -> Result<ThreatListReport, ThreatListError> {
    into.begin_list(name);
    let mut taker = Taker { into, report: ThreatListReport::default(), headers: 0 };
    match first_byte(from)? {
        Some(b'{' | b'[') => read_json(from, &mut taker)?,
        Some(_) => read_lines(from, &mut taker)?,
        None => {}
    }
    let Taker { report, headers, .. } = taker;
    if report.entries + report.refused > 0 {
        return Ok(report);
    }
    match (report.faults, headers) {
        (0, 0) => Ok(report),
        (0, _) => Err(ThreatListError::NoAddress("its columns have other things".to_owned())),
        _ => Err(ThreatListError::NoAddress(report.told.join("; "))),
    }
}

/// The first byte that is no space and no byte order mark, which stays where it is.
fn first_byte(from: &mut dyn BufRead) -> io::Result<Option<u8>> {
    loop {
        let buffer = from.fill_buf()?;
        let Some(first) = buffer.first().copied() else { return Ok(None) };
        if !first.is_ascii_whitespace() && !b"\xef\xbb\xbf".contains(&first) {
            return Ok(Some(first));
        }
        from.consume(1);
    }
}

/// Takes what may be entries, and counts.
struct Taker<'a> {
    into: &'a mut AddressSetBuilder,
    report: ThreatListReport,
    /// Lines of columns before the first with an address.
    headers: u64,
}

impl Taker<'_> {
    /// Takes the text of an entry that stands at `place`.
    fn take(&mut self, text: &str, valid_until: Option<i64>, place: impl FnOnce() -> String) {
        match entry(text) {
            Some(entry) => match self.into.add(entry, valid_until) {
                Added::Yes => self.report.entries += 1,
                Added::Full => self.report.refused += 1,
                Added::TooWide => self.fault(text, "covers too much", place),
            },
            None => self.fault(text, "is no address or CIDR block", place),
        }
    }

    fn fault(&mut self, text: &str, what: &str, place: impl FnOnce() -> String) {
        self.report.faults += 1;
        if self.report.told.len() < TOLD_MAX {
            let text: String = text.chars().take(TOLD_CHARS_MAX).collect();
            self.report.told.push(format!("{}: `{}` {what}", place(), text.escape_debug()));
        }
    }
}

/// An address, a block, or an address with a port.
fn entry(text: &str) -> Option<Prefix> {
    let without_port = || {
        let socket: SocketAddr = text.parse().ok()?;
        Some(Prefix::of(socket.ip().into(), 128))
    };
    text.parse().ok().or_else(without_port)
}

/// Reads one entry a line, or columns; `#`, `;` and `//` begin comments.
fn read_lines(from: &mut dyn BufRead, taker: &mut Taker<'_>) -> io::Result<()> {
    let (mut line, mut number) = (Vec::new(), 0_u64);
    let mut columns = csv::Columns::default();
    loop {
        line.clear();
        if (&mut *from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        number += 1;
        if line.len() as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
            skip_line(from)?;
        }
        let text = String::from_utf8_lossy(&line);
        let text = csv::without_comment(&text);
        if text.is_empty() {
            continue;
        }
        match columns.entry(text) {
            Some(entry) => taker.take(entry, None, || format!("line {number}")),
            None => taker.headers += 1,
        }
    }
}

fn skip_line(from: &mut dyn BufRead) -> io::Result<()> {
    loop {
        let buffer = from.fill_buf()?;
        if buffer.is_empty() {
            return Ok(());
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffer.len(), |end| end + 1);
        from.consume(length);
        if end.is_some() {
            return Ok(());
        }
    }
}

/// An object in any of the forms; which one shows by what is there.
#[derive(Deserialize)]
struct Object {
    objects: Option<Vec<stix::Object>>,
    #[serde(rename = "Event")]
    event: Option<misp::Event>,
    response: Option<misp::Answer>,
}

/// Part of a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Text(String),
    Event(misp::Wrapped),
}

fn read_json(from: &mut dyn BufRead, taker: &mut Taker<'_>) -> Result<(), ThreatListError> {
    let mut bytes = Vec::new();
    from.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > JSON_BYTES_MAX {
        return Err(ThreatListError::Large);
    }
    let fault = |error: serde_json::Error| {
        if error.is_data() { ThreatListError::Form } else { ThreatListError::Json(error) }
    };
    if bytes.trim_ascii_start().starts_with(b"[") {
        let items: Vec<Item> = serde_json::from_slice(&bytes).map_err(fault)?;
        for (number, item) in (1..).zip(items) {
            match item {
                Item::Text(text) => taker.take(text.trim(), None, || format!("text {number}")),
                Item::Event(event) => event.read(taker),
            }
        }
        return Ok(());
    }
    let Object { objects, event, response } = serde_json::from_slice(&bytes).map_err(fault)?;
    if objects.is_none() && event.is_none() && response.is_none() {
        return Err(ThreatListError::Form);
    }
    stix::read(&objects.unwrap_or_default(), taker);
    if let Some(event) = event {
        event.read(taker);
    }
    if let Some(response) = response {
        response.read(taker);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Addr;

    fn read(text: &str) -> Result<(Vec<String>, ThreatListReport), ThreatListError> {
        let mut builder = AddressSetBuilder::new(5);
        let report = read_threat_list("list", &mut text.as_bytes(), &mut builder)?;
        let set = builder.build();
        let probes = ["203.0.113.9", "203.0.113.10", "198.51.100.77", "2001:db8::5"];
        let found = probes.iter().flat_map(|addr| {
            set.listed(addr.parse::<Addr>().unwrap())
                .iter()
                .map(|one| match one.valid_until_seconds {
                    Some(end) if end != i64::MAX => format!("{} until {end}", one.entry),
                    _ => one.entry.to_string(),
                })
                .collect::<Vec<_>>()
        });
        Ok((found.collect(), report))
    }

    /// Which of the probes are listed, and how many texts could not be read.
    fn check(text: &str, expected: &[&str], faults: u64) {
        let (found, report) = read(text).unwrap();
        assert_eq!(found, expected, "{text}");
        assert_eq!(report.faults, faults, "{text}: {report:?}");
    }

    #[test]
    fn plain_lists() {
        check("", &[], 0);
        check("# nothing today\n\n", &[], 0);
        check(
            "\u{feff}203.0.113.9\r\n\n; x\n198.51.100.0/24 ; SBL1\n",
            &["203.0.113.9", "198.51.100.0/24"],
            0,
        );
        check(
            "203.0.113.9 # bad\n2001:db8::/32\nevil.example\n0.0.0.0/0",
            &["203.0.113.9", "2001:db8::/32"],
            2,
        );
        check("203.0.113.9:8080\n[2001:db8::5]:443", &["203.0.113.9", "2001:db8::5"], 0);
        check("[\"203.0.113.9\", \"x\"]", &["203.0.113.9"], 1);
    }

    #[test]
    fn columns() {
        check("first_seen,dst_ip,port\n2026-01-01,203.0.113.9,443\n", &["203.0.113.9"], 0);
        check("id,Src IP,IP Address\n1,203.0.113.9,203.0.113.10\n", &["203.0.113.10"], 0);
        check(
            "# \"a\",\"b\"\n\"x, y\",\"203.0.113.9\"\n\"z\",\"203.0.113.10\"\n",
            &["203.0.113.9", "203.0.113.10"],
            0,
        );
        check("score\tnetwork\n9\t198.51.100.0/24\n9\t?\n", &["198.51.100.0/24"], 1);
        check("2001:db8::/48|US\n203.0.113.9|NL", &["203.0.113.9", "2001:db8::/48"], 0);
    }

    #[test]
    fn stix_bundles() {
        let bundle = |indicators: &str| {
            format!(
                r#"{{"type":"bundle","id":"bundle--1","objects":[{{"type":"identity"}},{indicators}]}}"#
            )
        };
        let one = |pattern: &str, more: &str| {
            bundle(&format!(r#"{{"type":"indicator","id":"i--1","pattern":"{pattern}"{more}}}"#))
        };
        check(&one("[ipv4-addr:value = '203.0.113.9']", ""), &["203.0.113.9"], 0);
        check(
            &one(
                "[ipv4-addr:value IN ('203.0.113.9','203.0.113.10') OR ipv6-addr:value='2001:db8::5']",
                "",
            ),
            &["203.0.113.9", "203.0.113.10", "2001:db8::5"],
            0,
        );
        check(&one("[ipv4-addr:value ISSUBSET '198.51.100.0/24']", ""), &["198.51.100.0/24"], 0);
        check(&one("[network-traffic:dst_ref.value = '203.0.113.9']", ""), &["203.0.113.9"], 0);
        check(&one("[ipv4-addr:value != '203.0.113.9']", ""), &[], 0);
        check(&one("[domain-name:value = '203.0.113.9']", ""), &[], 0);
        check(
            &one("[ipv4-addr:value = '203.0.113.9']", r#","valid_until":"2026-01-01T00:00:00.5Z""#),
            &["203.0.113.9 until 1767225600"],
            0,
        );
        check(&one("[ipv4-addr:value = '203.0.113.9']", r#","revoked":true"#), &[], 0);
        check(
            &bundle(r#"{"type":"indicator","pattern":"[ipv4-addr:value IN ('203.0.113.9','x')]"}"#),
            &["203.0.113.9"],
            1,
        );
    }

    #[test]
    fn misp_events() {
        let attributes = r#"[{"type":"ip-dst","value":"203.0.113.9"},{"type":"ip-dst|port","value":"203.0.113.10|443"},
            {"type":"domain","value":"198.51.100.77"},{"type":"ip-src","value":"198.51.100.77","deleted":true}]"#;
        let expected = ["203.0.113.9", "203.0.113.10"];
        check(&format!(r#"{{"Event":{{"info":"x","Attribute":{attributes}}}}}"#), &expected, 0);
        check(&format!(r#"{{"Event":{{"Object":[{{"Attribute":{attributes}}}]}}}}"#), &expected, 0);
        check(
            &format!(r#"{{"response":[{{"Event":{{"Attribute":{attributes}}}}}]}}"#),
            &expected,
            0,
        );
        check(&format!(r#"{{"response":{{"Attribute":{attributes}}}}}"#), &expected, 0);
        check(&format!(r#"[{{"Event":{{"Attribute":{attributes}}}}}]"#), &expected, 0);
    }

    #[test]
    fn files_that_are_no_lists_say_why() {
        let fault = |text: &str| {
            let error = read(text).unwrap_err();
            format!("{error}")
        };
        assert!(fault("{").contains("begins like JSON"));
        assert!(fault("[1]").contains("neither a STIX bundle nor a MISP event"));
        assert!(fault("when,domain\n1,evil.example\n").contains("its columns have other things"));
        assert!(fault(r#"{"a": 1}"#).contains("neither a STIX bundle nor a MISP event"));
        assert_eq!(
            fault("evil.example\n"),
            "there is no address in it; line 1: `evil.example` is no address or CIDR block"
        );
    }

    #[test]
    fn what_there_is_no_room_for_is_counted() {
        let lines: Vec<String> = (0..9).map(|number| format!("203.0.113.{number}\n")).collect();
        let text = lines.concat();
        let (_, report) = read(&text).unwrap();
        assert_eq!((report.entries, report.refused, report.faults), (5, 4, 0));
    }

    #[test]
    fn an_endless_line_is_one_fault() {
        let text = format!("{}\n203.0.113.9\n", "x".repeat(1 << 18));
        check(&text, &["203.0.113.9"], 1);
    }
}
