//! JSON strings as bytes: where they end, and what their escapes stand for.

use std::borrow::Cow;

use memchr::{memchr, memchr3};

/// The inside of the string whose opening quote is before `bytes`, and how many bytes it takes with its
/// closing quote. `None` if it never closes, or holds a raw LF, which JSON forbids, also after a
/// backslash.
pub(super) fn string_inside(bytes: &[u8]) -> Option<(RawText<'_>, usize)> {
    let mut at = 0;
    let mut has_escapes = false;
    loop {
        at += memchr3(b'"', b'\\', b'\n', &bytes[at..])?;
        match bytes[at] {
            b'"' => return Some((RawText { inside: &bytes[..at], has_escapes }, at + 1)),
            b'\\' if bytes.get(at + 1).is_some_and(|escaped| *escaped != b'\n') => {
                has_escapes = true;
                at += 2;
            }
            _ => return None,
        }
    }
}

/// A JSON string as it stands in the document.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawText<'a> {
    inside: &'a [u8],
    has_escapes: bool,
}

impl<'a> RawText<'a> {
    /// The text; copied only if it holds escapes. `None` if one of them means nothing.
    pub(super) fn decoded(self) -> Option<Cow<'a, [u8]>> {
        if self.has_escapes {
            unescape(self.inside).map(Cow::Owned)
        } else {
            Some(Cow::Borrowed(self.inside))
        }
    }

    /// Whether the string is `text`, which holds nothing that needs an escape.
    pub(super) fn is(self, text: &str) -> bool {
        match self.decoded() {
            Some(decoded) => *decoded == *text.as_bytes(),
            None => false,
        }
    }
}

/// How a document of the form `{"message":"…"}` begins, exactly as VPC flow logs write it to Firehose.
pub(in crate::framing) const DIRECT_START: &[u8] = b"{\"message\":\"";

fn unescape(escaped: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(backslash) = memchr(b'\\', rest) {
        text.extend_from_slice(&rest[..backslash]);
        let escape = *rest.get(backslash + 1)?;
        rest = &rest[backslash + 2..];
        let plain = match escape {
            b'"' | b'\\' | b'/' => escape,
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'b' => 0x08,
            b'f' => 0x0C,
            b'u' => {
                let (character, taken) = unescape_utf16(rest)?;
                text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[taken..];
                continue;
            }
            _ => return None,
        };
        text.push(plain);
    }
    text.extend_from_slice(rest);
    Some(text)
}

/// The character of the four hex digits after `\u`, or of a surrogate pair of two such escapes, and how many bytes that takes. A lone surrogate gives the
/// replacement character: the field that holds it is odd, the rest of the line is not.
fn unescape_utf16(rest: &[u8]) -> Option<(char, usize)> {
    let first = code_unit(rest)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 4));
    }
    let second = rest.get(4..).and_then(|more| more.strip_prefix(b"\\u")).and_then(code_unit);
    match (first, second) {
        (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
            let code_point = 0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00);
            Some((char::from_u32(code_point)?, 10))
        }
        _ => Some((char::REPLACEMENT_CHARACTER, 4)),
    }
}

fn code_unit(digits: &[u8]) -> Option<u32> {
    let mut unit = 0;
    for digit in digits.get(..4)? {
        unit = unit << 4 | char::from(*digit).to_digit(16)?;
    }
    Some(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_mean_what_json_says() {
        let check = |inside: &str, expected: Option<&str>| {
            let quoted = format!("{inside}\" rest");
            let (raw, taken) = string_inside(quoted.as_bytes()).unwrap();
            assert_eq!(taken, inside.len() + 1);
            assert_eq!(raw.decoded().as_deref(), expected.map(str::as_bytes), "{inside}");
        };
        check("", Some(""));
        check("plain", Some("plain"));
        check(r#"\" \\ \/ \n\t\r\b\f"#, Some("\" \\ / \n\t\r\u{8}\u{c}"));
        check(r"\u0041\u00e9\ud83d\ude00", Some("Aé😀"));
        check(r"\ud83d x", Some("\u{FFFD} x"));
        check(r"\ud83d\u0041", Some("\u{FFFD}A"));
        check(r"\x", None);
        check(r"\u12", None);
    }

    #[test]
    fn strings_that_do_not_end_are_none() {
        for input in ["", "abc", "abc\n\"", "abc\\", "abc\\\""] {
            assert!(string_inside(input.as_bytes()).is_none(), "{input:?}");
        }
    }
}
