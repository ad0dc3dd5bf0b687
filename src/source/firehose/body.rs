//! The body of a delivery request, read in one pass without a tree.
//!
//! ```text
//! {"requestId":"…","timestamp":1767225600000,"records":[{"data":"MiAxMjM0…"},…]}
//! ```
//!
//! Only where things stand is found out here; nothing is copied. What is wrong with a single record is left to those
//! who unwrap records, so that it is counted there like any other; what is wrong with the request as a whole is a
//! [`BodyFault`], and nothing of it is taken.

/// Most records of one request, by Firehose's own limit.
pub const RECORDS_MAX: usize = 10_000;

/// Most bytes of a request id; Firehose's have 36.
const REQUEST_ID_BYTES_MAX: usize = 256;

/// Deepest nesting that is passed over.
const DEPTH_MAX: usize = 64;

/// What a body says.
#[derive(Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// Tells a delivery from others, and stays the same when it is tried again.
    pub request_id: &'a str,
    /// When the request was made, Unix milliseconds.
    pub timestamp_ms: Option<i64>,
    /// The records, in order.
    pub records: Vec<Record<'a>>,
}

/// A record as it stands in the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// What stands between the quotes of `data`, without escapes: base64, if it is in order.
    Base64(&'a [u8]),
    /// Something else than an object with such a member: the JSON of the whole record.
    Other(&'a [u8]),
}

/// Why a body is no delivery request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// It is not JSON, or breaks off.
    #[error("the body is not well-formed JSON at byte {offset}")]
    NotJson {
        /// Where, from 0.
        offset: usize,
    },
    /// It is JSON of another form.
    #[error("the body is not a JSON object")]
    NotObject,
    /// A member is missing.
    #[error("the body has no `{0}`")]
    Missing(&'static str),
    /// A member is there twice, so that nobody can say which holds.
    #[error("the body has `{0}` twice")]
    Twice(&'static str),
    /// A member has a value that it can't have.
    #[error("`{name}` in the body must be {form}")]
    Form {
        /// The member.
        name: &'static str,
        /// What it must be.
        form: &'static str,
    },
    /// There are no records.
    #[error("`records` in the body is empty; a request has 1 to {RECORDS_MAX} records")]
    NoRecords,
    /// There are too many records.
    #[error("`records` in the body has more than {RECORDS_MAX} records")]
    TooManyRecords,
}

/// Reads a body.
///
/// # Errors
/// If it is no delivery request.
pub fn read(bytes: &[u8]) -> Result<Body<'_>, BodyFault> {
    let mut reader = Reader { bytes, at: 0 };
    let mut found = Found::default();
    if reader.peek().ok_or(BodyFault::NotJson { offset: reader.at })? != b'{' {
        reader.pass_value()?;
        reader.end()?;
        return Err(BodyFault::NotObject);
    }
    reader.object(&mut |reader, name| found.member(reader, name))?;
    reader.end()?;
    found.finish()
}

/// Members that were found.
#[derive(Default)]
struct Found<'a> {
    request_id: Option<&'a str>,
    timestamp: Option<Timestamp>,
    records: Option<Vec<Record<'a>>>,
}

/// A timestamp, which may be null.
struct Timestamp(Option<i64>);

/// Takes the value of a member, whose name it is given.
type TakeMember<'r, 'a> = dyn FnMut(&mut Reader<'a>, &'a [u8]) -> Result<(), BodyFault> + 'r;

impl<'a> Found<'a> {
    fn member(&mut self, reader: &mut Reader<'a>, name: &[u8]) -> Result<(), BodyFault> {
        match name {
            b"requestId" => once(&mut self.request_id, "requestId", reader.request_id()?),
            b"timestamp" => once(&mut self.timestamp, "timestamp", reader.timestamp()?),
            b"records" => once(&mut self.records, "records", reader.records()?),
            _ => reader.pass_value(),
        }
    }

    fn finish(self) -> Result<Body<'a>, BodyFault> {
        let request_id = self.request_id.ok_or(BodyFault::Missing("requestId"))?;
        let records = self.records.ok_or(BodyFault::Missing("records"))?;
        if records.is_empty() {
            return Err(BodyFault::NoRecords);
        }
        Ok(Body { request_id, timestamp_ms: self.timestamp.and_then(|time| time.0), records })
    }
}

fn once<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), BodyFault> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(BodyFault::Twice(name)),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    const fn broken(&self) -> BodyFault {
        BodyFault::NotJson { offset: self.at }
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn take(&mut self, wanted: u8) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, wanted: u8) -> Result<(), BodyFault> {
        if self.take(wanted) { Ok(()) } else { Err(self.broken()) }
    }

    fn end(&mut self) -> Result<(), BodyFault> {
        if self.peek().is_none() { Ok(()) } else { Err(self.broken()) }
    }

    /// What stands between the quotes of the string here, and whether it has escapes.
    fn string(&mut self) -> Result<(&'a [u8], bool), BodyFault> {
        self.expect(b'"')?;
        let start = self.at;
        let mut has_escapes = false;
        loop {
            let rest = &self.bytes[self.at..];
            let Some(found) = memchr::memchr2(b'"', b'\\', rest) else {
                self.at = self.bytes.len();
                return Err(self.broken());
            };
            self.at += found + 1;
            if rest[found] == b'"' {
                return Ok((&self.bytes[start..self.at - 1], has_escapes));
            }
            has_escapes = true;
            self.escape()?;
        }
    }

    /// Passes over an escape, whose backslash was passed before.
    fn escape(&mut self) -> Result<(), BodyFault> {
        let is_escape = match self.bytes.get(self.at) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => true,
            Some(b'u') => {
                let digits = self.bytes.get(self.at + 1..self.at + 5);
                self.at += 4;
                digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            }
            _ => false,
        };
        if !is_escape {
            self.at = self.at.min(self.bytes.len());
            return Err(self.broken());
        }
        self.at += 1;
        Ok(())
    }

    /// Reads an object whose members' values `member` takes.
    fn object(&mut self, member: &mut TakeMember<'_, 'a>) -> Result<(), BodyFault> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let (name, _) = self.string()?;
            self.expect(b':')?;
            member(self, name)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn request_id(&mut self) -> Result<&'a str, BodyFault> {
        const FAULT: BodyFault = BodyFault::Form {
            name: "requestId",
            form: "a string of 1 to 256 bytes without escapes and control characters",
        };
        if self.peek() != Some(b'"') {
            self.pass_value()?;
            return Err(FAULT);
        }
        let (bytes, has_escapes) = self.string()?;
        // Its answer repeats it as it stands.
        let is_plain = !has_escapes && bytes.iter().all(|byte| *byte >= b' ');
        let has_length = (1..=REQUEST_ID_BYTES_MAX).contains(&bytes.len());
        let text = std::str::from_utf8(bytes).ok().filter(|_| is_plain && has_length);
        text.ok_or(FAULT)
    }

    fn timestamp(&mut self) -> Result<Timestamp, BodyFault> {
        self.peek();
        let start = self.at;
        self.pass_value()?;
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        match text.parse() {
            Ok(milliseconds) => Ok(Timestamp(Some(milliseconds))),
            Err(_) if text == "null" => Ok(Timestamp(None)),
            Err(_) => {
                Err(BodyFault::Form { name: "timestamp", form: "a whole number of milliseconds" })
            }
        }
    }

    fn records(&mut self) -> Result<Vec<Record<'a>>, BodyFault> {
        if self.peek() != Some(b'[') {
            self.pass_value()?;
            return Err(BodyFault::Form { name: "records", form: "a list" });
        }
        self.at += 1;
        let mut records = Vec::new();
        if self.take(b']') {
            return Ok(records);
        }
        loop {
            if records.len() == RECORDS_MAX {
                return Err(BodyFault::TooManyRecords);
            }
            let record = match self.usual_record() {
                Some(record) => record,
                None => self.record()?,
            };
            records.push(record);
            if self.take(b']') {
                return Ok(records);
            }
            self.expect(b',')?;
        }
    }

    /// A record exactly as Firehose writes it.
    fn usual_record(&mut self) -> Option<Record<'a>> {
        const START: &[u8] = b"{\"data\":\"";
        self.peek();
        let inside = self.bytes[self.at..].strip_prefix(START)?;
        let length = memchr::memchr(b'"', inside)?;
        if inside.get(length + 1) != Some(&b'}')
            || memchr::memchr(b'\\', &inside[..length]).is_some()
        {
            return None;
        }
        self.at += START.len() + length + 2;
        Some(Record::Base64(&inside[..length]))
    }

    fn record(&mut self) -> Result<Record<'a>, BodyFault> {
        let is_object = self.peek() == Some(b'{');
        let start = self.at;
        let mut data = None;
        if is_object {
            self.object(&mut |reader, name| {
                if name != b"data" || data.is_some() || reader.peek() != Some(b'"') {
                    return reader.pass_value();
                }
                let (text, has_escapes) = reader.string()?;
                data = Some(text).filter(|_| !has_escapes);
                Ok(())
            })?;
        } else {
            self.pass_value()?;
        }
        Ok(data.map_or(Record::Other(&self.bytes[start..self.at]), Record::Base64))
    }

    /// Passes over any value.
    fn pass_value(&mut self) -> Result<(), BodyFault> {
        // What is open: `true` for an object.
        let mut open: Vec<bool> = Vec::new();
        loop {
            match self.peek() {
                Some(b'{' | b'[') if open.len() == DEPTH_MAX => return Err(self.broken()),
                Some(b'{') => {
                    self.at += 1;
                    if !self.take(b'}') {
                        open.push(true);
                        self.name()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    if !self.take(b']') {
                        open.push(false);
                        continue;
                    }
                }
                Some(b'"') => drop(self.string()?),
                _ => self.bare_value()?,
            }
            loop {
                let Some(is_object) = open.last() else { return Ok(()) };
                if self.take(if *is_object { b'}' } else { b']' }) {
                    open.pop();
                    continue;
                }
                self.expect(b',')?;
                if *is_object {
                    self.name()?;
                }
                break;
            }
        }
    }

    fn name(&mut self) -> Result<(), BodyFault> {
        self.string()?;
        self.expect(b':')
    }

    /// Passes over a number or a word.
    fn bare_value(&mut self) -> Result<(), BodyFault> {
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
        let length = self.bytes[self.at..].iter().take_while(is_part).count();
        let text = &self.bytes[self.at..self.at + length];
        let is_value = matches!(text, b"true" | b"false" | b"null")
            || serde_json::from_slice::<serde_json::Number>(text).is_ok();
        if !is_value {
            return Err(self.broken());
        }
        self.at += length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expected: Result<(&str, Option<i64>, &[Record<'_>]), &str>) {
        match (read(text.as_bytes()), expected) {
            (Ok(body), Ok((request_id, timestamp_ms, records))) => {
                assert_eq!((body.request_id, body.timestamp_ms), (request_id, timestamp_ms));
                assert_eq!(body.records, records, "{text}");
            }
            (Err(fault), Err(expected)) => assert_eq!(fault.to_string(), expected, "{text}"),
            (outcome, _) => panic!("{text}: {outcome:?}"),
        }
    }

    #[test]
    fn a_request_is_read_however_it_is_written() {
        let both = [Record::Base64(b"MiAx"), Record::Base64(b"")];
        check(
            r#"{"requestId":"a-1","timestamp":1578090901599,"records":[{"data":"MiAx"},{"data":""}]}"#,
            Ok(("a-1", Some(1_578_090_901_599), &both)),
        );
        check(
            "\r\n{ \"records\" : [ { \"data\" : \"MiAx\" , \"x\" : [ { } ] } ,\n{\"data\":\"\"} ] ,\
             \"more\":{\"a\":[1,-2.5e3,true,null,\"\\u00e9\\\"\"],\"b\":{}}, \"timestamp\":null,\
             \"requestId\":\"\u{e9}\" } ",
            Ok(("\u{e9}", None, &both)),
        );
        check(r#"{"requestId":"a","records":[{"data":"MiAx"}]}"#, Ok(("a", None, &both[..1])));
    }

    #[test]
    fn records_that_are_not_in_order_are_kept_as_they_stand() {
        let others = [
            r#"{"data":"ab\/c"}"#,
            r#"{"data":5}"#,
            r#"{"dat":"MiAx"}"#,
            "{}",
            "null",
            "5",
            r#""MiAx""#,
            r#"[{"data":"MiAx"}]"#,
        ];
        let body = format!(r#"{{"requestId":"a","records":[{}]}}"#, others.join(","));
        let expected = others.map(|other| Record::Other(other.as_bytes()));
        check(&body, Ok(("a", None, &expected)));
        check(
            r#"{"requestId":"a","records":[{"data":"!"}]}"#,
            Ok(("a", None, &[Record::Base64(b"!")])),
        );
    }

    #[test]
    fn what_is_no_request_is_a_fault() {
        let broken = |at| format!("the body is not well-formed JSON at byte {at}");
        for (text, at) in [
            ("", 0),
            ("  ", 2),
            ("{", 1),
            ("nul", 0),
            ("{\"requestId\":\"a\",\"records\":[{\"data\":\"MiAx", 41),
            ("{\"requestId\":\"a\",\"records\":[{\"data\":\"MiAx\"}", 43),
            ("{\"requestId\":\"a\",\"records\":[{\"data\":\"MiAx\"},]}", 44),
            ("{\"requestId\":\"a\" \"records\":[]}", 17),
            ("{\"requestId\":\"a\",\"records\":[{}]} x", 33),
            ("{\"a\":01}", 5),
            ("{\"a\":\"\\x\"}", 7),
            ("{\"a\":\"\\u12\"}", 11),
            ("{a:1}", 1),
        ] {
            check(text, Err(&broken(at)));
        }
        check("[]", Err("the body is not a JSON object"));
        check("5", Err("the body is not a JSON object"));
        check("{}", Err("the body has no `requestId`"));
        check(r#"{"requestId":"a"}"#, Err("the body has no `records`"));
        check(r#"{"requestId":"a","requestId":"a"}"#, Err("the body has `requestId` twice"));
        check(r#"{"records":[],"records":[]}"#, Err("the body has `records` twice"));
        check(r#"{"requestId":"a","records":{}}"#, Err("`records` in the body must be a list"));
        check(
            r#"{"requestId":"a","records":[]}"#,
            Err("`records` in the body is empty; a request has 1 to 10000 records"),
        );
        let id = "`requestId` in the body must be a string of 1 to 256 bytes without escapes and control characters";
        for wrong in ["5", "null", "\"\"", "\"\\n\"", &format!("\"{}\"", "a".repeat(257))] {
            check(&format!(r#"{{"requestId":{wrong}}}"#), Err(id));
        }
        let time = "`timestamp` in the body must be a whole number of milliseconds";
        for wrong in ["\"1578090901599\"", "1.5", "true", "[]"] {
            check(&format!(r#"{{"timestamp":{wrong}}}"#), Err(time));
        }
    }

    #[test]
    fn counts_and_depth_have_limits() {
        let body = |count: usize| {
            let records = vec![r#"{"data":""}"#; count].join(",");
            format!(r#"{{"requestId":"a","records":[{records}]}}"#)
        };
        assert_eq!(read(body(RECORDS_MAX).as_bytes()).unwrap().records.len(), RECORDS_MAX);
        assert_eq!(read(body(RECORDS_MAX + 1).as_bytes()), Err(BodyFault::TooManyRecords));
        let nested = |depth| format!("{{\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        check(&nested(DEPTH_MAX), Err("the body has no `requestId`"));
        check(&nested(DEPTH_MAX + 1), Err("the body is not well-formed JSON at byte 69"));
    }

    proptest! {
        #[test]
        fn what_serde_takes_is_taken_and_the_other_way_round(
            text in "[ {}\\[\\],:\"0-9a-z\\\\\\-.]{0,24}",
            place in 0_usize..4,
        ) {
            let body = match place {
                0 => text,
                1 => format!(r#"{{"x":{text},"requestId":"a","records":[1]}}"#),
                2 => format!(r#"{{"requestId":"a","records":[{text}]}}"#),
                _ => format!(r#"{{"requestId":"a","records":[{{"data":"{text}"}}]}}"#),
            };
            let is_json = serde_json::from_str::<serde_json::Value>(&body).is_ok();
            let is_broken = matches!(read(body.as_bytes()), Err(BodyFault::NotJson { .. }));
            prop_assert_eq!(is_json, !is_broken, "{}", body);
        }
    }
}
