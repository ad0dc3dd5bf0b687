//! STIX 2.1: the addresses that the patterns of a bundle's indicators compare with.
//!
//! A pattern is read for comparisons of addresses alone: `ipv4-addr:value`, `ipv6-addr:value` and the ends of
//! `network-traffic`, by `=`, `IN` or `ISSUBSET`. What else must be true of a packet or a process can't be
//! seen in flow logs. Revoked indicators and negated comparisons list nothing.

use serde::Deserialize;

use super::Taker;
use crate::units::UnixSeconds;

/// An object of a bundle.
#[derive(Deserialize)]
pub(super) struct Object {
    #[serde(rename = "type")]
    kind: String,
    pattern: Option<String>,
    valid_until: Option<String>,
    #[serde(default)]
    revoked: bool,
}

/// Takes what the indicators of a bundle name.
pub(super) fn read(objects: &[Object], taker: &mut Taker<'_>) {
    let indicators = objects.iter().filter(|object| object.kind == "indicator");
    for (number, indicator) in (1..).zip(indicators) {
        let Some(pattern) = indicator.pattern.as_deref().filter(|_| !indicator.revoked) else {
            continue;
        };
        let place = || format!("indicator {number}");
        // One without an end is told from those of other indicators for the same address.
        let mut until = Some(i64::MAX);
        if let Some(text) = &indicator.valid_until {
            let whole_seconds = text.split('.').next().unwrap_or_default();
            let end = UnixSeconds::from_text(text);
            let end = end.or_else(|_| UnixSeconds::from_text(&format!("{whole_seconds}Z")));
            match end {
                Ok(end) => until = Some(end.0),
                Err(_) => taker.fault(text, "is no time; the indicator has no end", place),
            }
        }
        addresses(pattern, |address| taker.take(address, until, place));
    }
}

/// A part of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    /// Between quotes.
    Text(&'a str),
    /// A path, an operator by a word, `AND` and the like.
    Word(&'a str),
    Symbol(char),
}

/// Calls `found` with every address that the pattern compares with.
fn addresses(pattern: &str, mut found: impl FnMut(&str)) {
    let (mut is_address, mut is_negated, mut is_compared) = (false, false, false);
    for token in Tokens(pattern) {
        match token {
            Token::Text(text) if is_address && is_compared && !is_negated => found(text),
            Token::Text(_) | Token::Symbol('(' | ')' | ',') => {}
            Token::Symbol('=') | Token::Word("IN" | "ISSUBSET") => is_compared = true,
            Token::Symbol('!') | Token::Word("NOT") => is_negated = true,
            Token::Symbol(_) => (is_address, is_negated, is_compared) = (false, false, false),
            Token::Word(word) => {
                (is_address, is_negated, is_compared) = (is_path_of_address(word), false, false);
            }
        }
    }
}

fn is_path_of_address(path: &str) -> bool {
    matches!(
        path,
        "ipv4-addr:value"
            | "ipv6-addr:value"
            | "network-traffic:src_ref.value"
            | "network-traffic:dst_ref.value"
    )
}

struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.0 = self.0.trim_start();
        let first = self.0.chars().next()?;
        let rest = &self.0[first.len_utf8()..];
        if first == '\'' {
            // An address has no quote in it, so that what follows an escaped one doesn't matter.
            let end = rest.find('\'').unwrap_or(rest.len());
            self.0 = rest.get(end + 1..).unwrap_or_default();
            return Some(Token::Text(&rest[..end]));
        }
        let is_of_word = |char: char| char.is_alphanumeric() || "-_:.".contains(char);
        if !is_of_word(first) {
            self.0 = rest;
            return Some(Token::Symbol(first));
        }
        let end = self.0.find(|char| !is_of_word(char)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        Some(Token::Word(word))
    }
}
