//! Finds the ends of JSON documents that follow each other, in pieces of any size.
//!
//! Documents may touch, be separated by blanks or commas, or be the elements of one array: brackets
//! and commas between documents are passed over, so an array of any length is read element by
//! element. Lines of text between documents are pieces of their own.
//!
//! A broken document must not swallow those after it. Two things that JSON never has end it: a raw
//! LF in a string, and a line that begins with `{` where no value may stand.

use memchr::{memchr, memchr3};

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::framing) enum Piece {
    /// Brackets are balanced; everything else is still to be checked.
    Document,
    /// The start of a document that never ends.
    Broken,
    /// A line of something else.
    Text,
}

/// The state of the search between two calls.
#[derive(Clone, Debug)]
pub(in crate::framing) struct Splitter {
    place: Place,
    depth: u32,
    /// One bit per open bracket, innermost lowest: 1 for `[`. Deeper than 128 only the resync rule
    /// gets less sure.
    arrays: u128,
    /// The last byte of the document that was not blank.
    last: u8,
    line_start: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Between,
    Text,
    Value,
    String,
    Escape,
}

impl Splitter {
    /// Before the first document.
    pub(in crate::framing) fn new() -> Self {
        Self { place: Place::Between, depth: 0, arrays: 0, last: 0, line_start: false }
    }

    /// Whether a piece has begun and not ended.
    pub(in crate::framing) fn open_piece(&self) -> Option<Piece> {
        match self.place {
            Place::Between => None,
            Place::Text => Some(Piece::Text),
            Place::Value | Place::String | Place::Escape => Some(Piece::Broken),
        }
    }

    /// Searches on in `bytes[from..]`; gives the index after the piece that ends there, if one does.
    pub(in crate::framing) fn next_end(
        &mut self,
        bytes: &[u8],
        from: usize,
    ) -> Option<(usize, Piece)> {
        let mut at = from;
        loop {
            let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
            match self.place {
                Place::Between => at += self.step_between(rest),
                Place::Text => {
                    at += memchr(b'\n', rest)? + 1;
                    self.place = Place::Between;
                    return Some((at, Piece::Text));
                }
                Place::Escape if rest[0] == b'\n' => return Some((at + 1, self.give_up())),
                Place::Escape => {
                    self.place = Place::String;
                    at += 1;
                }
                Place::String => {
                    let found = memchr3(b'"', b'\\', b'\n', rest)?;
                    at += found + 1;
                    match rest[found] {
                        b'"' => self.place = Place::Value,
                        b'\\' => self.place = Place::Escape,
                        _ => return Some((at, self.give_up())),
                    }
                }
                Place::Value => {
                    let (taken, ended) = self.step_value(rest);
                    at += taken;
                    if let Some(piece) = ended {
                        return Some((at, piece));
                    }
                }
            }
        }
    }

    /// Passes over what may stand between documents.
    fn step_between(&mut self, rest: &[u8]) -> usize {
        let skipped = rest.iter().take_while(|byte| is_separator(**byte)).count();
        match rest.get(skipped) {
            None => skipped,
            Some(b'{') => {
                *self = Self { place: Place::Value, depth: 1, ..Self::new() };
                self.last = b'{';
                skipped + 1
            }
            Some(_) => {
                self.place = Place::Text;
                skipped
            }
        }
    }

    /// Goes through a document up to the next string or its end.
    fn step_value(&mut self, rest: &[u8]) -> (usize, Option<Piece>) {
        for (index, &byte) in rest.iter().enumerate() {
            let line_start = std::mem::take(&mut self.line_start);
            match byte {
                b' ' | b'\t' | b'\r' => continue,
                b'\n' => {
                    self.line_start = true;
                    continue;
                }
                b'"' => {
                    self.last = byte;
                    self.place = Place::String;
                    return (index + 1, None);
                }
                b'{' if line_start && !self.value_may_stand_here() => {
                    return (index, Some(self.give_up()));
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    self.arrays = self.arrays << 1 | u128::from(byte == b'[');
                }
                b'}' | b']' => {
                    self.depth -= 1;
                    self.arrays >>= 1;
                    if self.depth == 0 {
                        self.place = Place::Between;
                        return (index + 1, Some(Piece::Document));
                    }
                }
                _ => {}
            }
            self.last = byte;
        }
        (rest.len(), None)
    }

    fn value_may_stand_here(&self) -> bool {
        match self.last {
            b'[' | b':' => true,
            b',' => self.arrays & 1 == 1,
            _ => false,
        }
    }

    fn give_up(&mut self) -> Piece {
        self.place = Place::Between;
        self.line_start = false;
        Piece::Broken
    }
}

/// Blanks, what stands between the elements of an array, byte order marks of concatenated files, the
/// record separator of RFC 7464, and padding.
pub(in crate::framing) fn is_separator(byte: u8) -> bool {
    matches!(
        byte,
        b' ' | b'\t' | b'\r' | b'\n' | b',' | b'[' | b']' | 0xEF | 0xBB | 0xBF | 0x1E | 0
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces(input: &[u8], step: usize) -> Vec<(Piece, String)> {
        let mut splitter = Splitter::new();
        let (mut seen, mut from, mut piece_from) = (0, 0, 0);
        let mut pieces = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        while seen < input.len() {
            seen = (seen + step).min(input.len());
            while let Some((end, piece)) = splitter.next_end(&input[..seen], from) {
                pieces.push((piece, text(&input[piece_from..end])));
                (from, piece_from) = (end, end);
            }
            from = seen;
        }
        if let Some(piece) = splitter.open_piece() {
            pieces.push((piece, text(&input[piece_from..])));
        }
        pieces
    }

    fn check(input: &str, expected: &[(Piece, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(p, text)| (*p, (*text).to_owned())).collect();
        for step in [1, 2, 7, input.len().max(1)] {
            assert_eq!(pieces(input.as_bytes(), step), expected, "{input:?} by {step}");
        }
    }

    #[test]
    fn documents_may_touch_or_stand_on_lines_or_in_an_array() {
        use Piece::Document;
        check("", &[]);
        check(r#"{"a":1}{"b":2}"#, &[(Document, r#"{"a":1}"#), (Document, r#"{"b":2}"#)]);
        check("{\"a\":1}\n{}\n", &[(Document, r#"{"a":1}"#), (Document, "\n{}")]);
        check("[{},\n{\"a\":[{}]}]", &[(Document, "[{}"), (Document, ",\n{\"a\":[{}]}")]);
    }

    #[test]
    fn brackets_and_quotes_in_strings_do_not_count() {
        check(r#"{"a":"}]\"{[\\"}"#, &[(Piece::Document, r#"{"a":"}]\"{[\\"}"#)]);
    }

    #[test]
    fn text_between_documents_is_told_apart() {
        check(
            "{} x\n{}",
            &[(Piece::Document, "{}"), (Piece::Text, " x\n"), (Piece::Document, "{}")],
        );
        check("2 1 -", &[(Piece::Text, "2 1 -")]);
    }

    #[test]
    fn a_broken_document_ends_where_the_next_begins() {
        use Piece::{Broken, Document};
        check("{\"a\":\"x\n{}", &[(Broken, "{\"a\":\"x\n"), (Document, "{}")]);
        check("{\"a\":1,\n{\"b\":2}", &[(Broken, "{\"a\":1,\n"), (Document, "{\"b\":2}")]);
        check("{\"a\":1\n{\"b\":2}", &[(Broken, "{\"a\":1\n"), (Document, "{\"b\":2}")]);
        check("{\"a\":\\\n{}", &[(Broken, "{\"a\":\\\n"), (Document, "{}")]);
        check("{\"a\":[\n{\"b\":2},\n{}]}", &[(Document, "{\"a\":[\n{\"b\":2},\n{}]}")]);
        check("{\"a\":", &[(Broken, "{\"a\":")]);
    }

    proptest! {
        #[test]
        fn any_split_of_the_input_gives_the_same_pieces(
            input in r#"[\[\]{}",:\\ \na]{0,80}"#, step in 1_usize..9,
        ) {
            let whole = pieces(input.as_bytes(), input.len().max(1));
            prop_assert_eq!(pieces(input.as_bytes(), step), whole);
        }
    }
}
