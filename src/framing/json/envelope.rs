//! The fast way through a CloudWatch Logs subscription envelope.
//!
//! ```text
//! {"messageType":"DATA_MESSAGE","owner":…,"logEvents":[{"id":…,"timestamp":…,"message":"2 1234 …"},…]}
//! ```
//!
//! Members may come in any order. Messages are copied to the lines as they stand, unless they hold
//! escapes; everything else is passed over. One pass, no tree, no allocation. An event exactly as AWS writes
//! it is verified against that form in a few comparisons; whatever differs is read member by member.

use std::borrow::Cow;

use crate::framing::lines::LineBuffer;
use crate::simd::QuotedCopier;

use super::text::{RawText, string_inside};

/// Deepest nesting that is passed over, serde_json's limit.
const DEPTH_MAX: u32 = 128;

/// What stood in an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::framing) struct Envelope {
    /// Its length.
    pub(in crate::framing) length: usize,
    /// Whether it is a probe of the service rather than data; its messages were not taken.
    pub(in crate::framing) is_control: bool,
    /// Events that have no message, or one that is too long.
    pub(in crate::framing) bad_events: u64,
    /// Line ends in it, which stand between its tokens.
    pub(in crate::framing) line_ends: u64,
}

/// How reading an envelope ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::framing) enum EnvelopeEnd {
    /// Well.
    Whole(Envelope),
    /// It is some other document; nothing was taken.
    Other,
    /// It breaks off or is not JSON. Messages before that were taken, unless it was a control message.
    Broken,
}

/// Reads the envelope at the start of `bytes` and adds its messages to `lines`.
pub(in crate::framing) fn read_envelope(
    bytes: &[u8],
    line_bytes_max: usize,
    copier: QuotedCopier,
    lines: &mut LineBuffer,
) -> EnvelopeEnd {
    let before = lines.mark();
    let mut reader = Reader {
        bytes,
        at: 0,
        line_bytes_max,
        copier,
        line_ends: 0,
        bad_events: 0,
        has_events: false,
        message_type: None,
    };
    let end = reader.envelope(lines);
    let is_control = reader.message_type == Some(MessageType::Control);
    if is_control || end == Err(Stop::Other) {
        lines.set_back(before);
    }
    match end {
        Ok(()) if reader.has_events && reader.message_type != Some(MessageType::Unknown) => {
            let Reader { at, bad_events, line_ends, .. } = reader;
            let bad_events = if is_control { 0 } else { bad_events };
            EnvelopeEnd::Whole(Envelope { length: at, is_control, bad_events, line_ends })
        }
        Ok(()) | Err(Stop::Other) => {
            lines.set_back(before);
            EnvelopeEnd::Other
        }
        Err(Stop::Broken) => EnvelopeEnd::Broken,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageType {
    Data,
    Control,
    Unknown,
}

/// Why reading ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Other,
    Broken,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    line_bytes_max: usize,
    copier: QuotedCopier,
    line_ends: u64,
    bad_events: u64,
    has_events: bool,
    message_type: Option<MessageType>,
}

impl<'a> Reader<'a> {
    fn envelope(&mut self, lines: &mut LineBuffer) -> Result<(), Stop> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Err(Stop::Other);
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            if key.is("messageType") {
                self.message_type = Some(self.message_type_value()?);
            } else if key.is("logEvents") {
                self.has_events = true;
                self.events(lines)?;
            } else if self.message_type.is_none() && !self.has_events && !is_envelope_key(key) {
                return Err(Stop::Other);
            } else {
                self.pass_value()?;
            }
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn message_type_value(&mut self) -> Result<MessageType, Stop> {
        let text = self.string()?;
        Ok(match () {
            () if text.is("DATA_MESSAGE") => MessageType::Data,
            () if text.is("CONTROL_MESSAGE") => MessageType::Control,
            () => MessageType::Unknown,
        })
    }

    fn events(&mut self, lines: &mut LineBuffer) -> Result<(), Stop> {
        self.expect(b'[')?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            if self.aws_event(lines).is_none() {
                self.event(lines)?;
            }
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    /// Takes the message of an event that is exactly as AWS writes it.
    ///
    /// ```text
    /// {"id":"<56 digits>","timestamp":<13 digits>,"message":"…"}
    /// ```
    #[inline]
    fn aws_event(&mut self, lines: &mut LineBuffer) -> Option<()> {
        let rest = &self.bytes[self.at..];
        let (start, rest) = rest.split_first_chunk::<AWS_EVENT_START_BYTES>()?;
        let (id_key, start) = start.split_first_chunk::<7>()?;
        let (id, start) = start.split_first_chunk::<56>()?;
        let (timestamp_key, start) = start.split_first_chunk::<14>()?;
        let (timestamp, message_key) = start.split_first_chunk::<13>()?;
        let is_aws = id_key == b"{\"id\":\""
            && timestamp_key == b"\",\"timestamp\":"
            && message_key == b",\"message\":\""
            && are_digits(id)
            && are_digits(timestamp);
        if !is_aws {
            return None;
        }
        let taken = lines.push_last_string(self.copier, rest, self.line_bytes_max)?;
        self.at += AWS_EVENT_START_BYTES + taken;
        Some(())
    }

    /// Takes one event's message once the whole event has been read.
    fn event(&mut self, lines: &mut LineBuffer) -> Result<(), Stop> {
        self.expect(b'{')?;
        let mut message = None;
        if !self.take(b'}') {
            loop {
                let key = self.string()?;
                self.expect(b':')?;
                if key.is("message") && self.peek() == Some(b'"') {
                    message = Some(self.string()?);
                } else {
                    self.pass_value()?;
                }
                if self.take(b'}') {
                    break;
                }
                self.expect(b',')?;
            }
        }
        match message {
            None => self.bad_events += 1,
            Some(message) => match message.decoded().ok_or(Stop::Broken)? {
                Cow::Borrowed(line) if line.len() <= self.line_bytes_max => lines.push_line(line),
                Cow::Borrowed(_) => self.bad_events += 1,
                Cow::Owned(text) => {
                    lines.push_text(&text, self.line_bytes_max, |_| self.bad_events += 1);
                }
            },
        }
        Ok(())
    }

    /// Passes over any value: strictly as far as brackets, keys and separators go.
    fn pass_value(&mut self) -> Result<(), Stop> {
        let mut arrays = 0_u128;
        let mut depth = 0;
        loop {
            let opened = self.value_start()?;
            if let Some(opening) = opened {
                let is_array = opening == b'[';
                if !self.take(if is_array { b']' } else { b'}' }) {
                    depth += 1;
                    if depth > DEPTH_MAX {
                        return Err(Stop::Broken);
                    }
                    arrays = arrays << 1 | u128::from(is_array);
                    if !is_array {
                        self.key()?;
                    }
                    continue;
                }
            }
            // A value is complete: close what ends with it, then go to the next one.
            while depth > 0 && self.take(if arrays & 1 == 1 { b']' } else { b'}' }) {
                depth -= 1;
                arrays >>= 1;
            }
            if depth == 0 {
                return Ok(());
            }
            self.expect(b',')?;
            if arrays & 1 == 0 {
                self.key()?;
            }
        }
    }

    /// Passes over a scalar, or over an opening bracket, which it gives.
    fn value_start(&mut self) -> Result<Option<u8>, Stop> {
        match self.peek().ok_or(Stop::Broken)? {
            b'"' => self.string().map(|_| None),
            opening @ (b'{' | b'[') => {
                self.at += 1;
                Ok(Some(opening))
            }
            b'-' | b'0'..=b'9' | b'a'..=b'z' => {
                let scalar = &self.bytes[self.at..];
                let is_inside =
                    |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
                let length = scalar.iter().take_while(|byte| is_inside(byte)).count();
                self.at += length;
                Ok(None)
            }
            _ => Err(Stop::Broken),
        }
    }

    fn key(&mut self) -> Result<(), Stop> {
        self.string()?;
        self.expect(b':')
    }

    fn string(&mut self) -> Result<RawText<'a>, Stop> {
        self.expect(b'"')?;
        let (text, taken) = string_inside(&self.bytes[self.at..]).ok_or(Stop::Broken)?;
        self.at += taken;
        Ok(text)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Stop> {
        if self.take(byte) { Ok(()) } else { Err(Stop::Broken) }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// The next byte that is not blank.
    fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                return Some(byte);
            }
            self.line_ends += u64::from(byte == b'\n');
            self.at += 1;
        }
    }
}

/// Bytes of an event of AWS's before its message.
const AWS_EVENT_START_BYTES: usize = 7 + 56 + 14 + 13 + 12;

/// Whether all bytes, at least eight, are digits; eight at a time.
#[inline]
fn are_digits<const N: usize>(bytes: &[u8; N]) -> bool {
    const ZEROS: u64 = u64::from_ne_bytes([b'0'; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0xF0; 8]);
    // Six more than 9 leaves the column of the digits.
    const SIX: u64 = u64::from_ne_bytes([6; 8]);
    let differs = |word: u64| ((word ^ ZEROS) | (word.wrapping_add(SIX) ^ ZEROS)) & HIGH;
    let mut bad = differs(u64::from_ne_bytes(*bytes.last_chunk().expect("there are eight")));
    for word in bytes.as_chunks().0 {
        bad |= differs(u64::from_ne_bytes(*word));
    }
    bad == 0
}

/// Whether a document whose first members have this key may be an envelope.
fn is_envelope_key(key: RawText<'_>) -> bool {
    ["owner", "logGroup", "logStream", "subscriptionFilters", "policyLevel"]
        .iter()
        .any(|known| key.is(known))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::simd::Isa;

    fn copier() -> QuotedCopier {
        QuotedCopier::new(Isa::detect())
    }

    fn read(input: &[u8]) -> (EnvelopeEnd, String) {
        let mut lines = LineBuffer::default();
        let end = read_envelope(input, 1 << 20, copier(), &mut lines);
        (end, String::from_utf8(lines.into_bytes()).unwrap())
    }

    fn check(input: &str, lines: &str, is_control: bool) {
        let (end, got) = read(input.as_bytes());
        let whole = Envelope { length: input.len(), is_control, bad_events: 0, line_ends: 0 };
        assert_eq!((end, got.as_str()), (EnvelopeEnd::Whole(whole), lines), "{input}");
    }

    #[test]
    fn members_come_in_any_order() {
        check(
            r#"{"messageType":"DATA_MESSAGE","logEvents":[{"id":"1","message":"a b"},{"message":"c","timestamp":2}]}"#,
            "a b\nc\n",
            false,
        );
        check(
            r#"{ "logEvents" : [ { "message" : "a" , "extractedFields" : { "x" : [ ] , "y" : { } } } ] , "owner" : null , "messageType" : "DATA_MESSAGE" }"#,
            "a\n",
            false,
        );
        check(r#"{"messageType":"DATA_MESSAGE","logEvents":[]}"#, "", false);
        check(r#"{"owner":"1","logEvents":[{"message":"a"}]}"#, "a\n", false);
    }

    #[test]
    fn only_ten_characters_are_digits() {
        for at in 0..13 {
            for byte in 0..=u8::MAX {
                let mut digits = *b"1767225620000";
                digits[at] = byte;
                assert_eq!(are_digits(&digits), byte.is_ascii_digit(), "{byte} at {at}");
            }
        }
    }

    #[test]
    fn a_control_message_gives_no_line_wherever_it_says_so() {
        check(r#"{"messageType":"CONTROL_MESSAGE","logEvents":[{"message":"CWL"}]}"#, "", true);
        check(r#"{"logEvents":[{"message":"CWL"}],"messageType":"CONTROL_MESSAGE"}"#, "", true);
    }

    #[test]
    fn escapes_are_decoded_and_end_of_line_is_not_doubled() {
        check(r#"{"logEvents":[{"message":"a\tb\n"},{"message":"\u0063"}]}"#, "a\tb\nc\n", false);
    }

    #[test]
    fn other_documents_are_left_to_the_longer_way() {
        for input in [
            r#"{"message":"a"}"#,
            "{}",
            r#"{"owner":"1"}"#,
            r#"{"messageType":"X","logEvents":[]}"#,
        ] {
            assert_eq!(read(input.as_bytes()), (EnvelopeEnd::Other, String::new()), "{input}");
        }
    }

    #[test]
    fn messages_before_a_break_are_kept() {
        for input in [
            r#"{"messageType":"DATA_MESSAGE","logEvents":[{"message":"a"},{"mess"#,
            r#"{"logEvents":[{"message":"a"}}"#,
            r#"{"logEvents":[{"message":"a"},]"#,
            r#"{"logEvents":[{"message":"a"},{"message":"\x"}]}"#,
            r#"{"logEvents":[{"message":"a"}],"x":[1"#,
        ] {
            assert_eq!(read(input.as_bytes()), (EnvelopeEnd::Broken, "a\n".into()), "{input}");
        }
    }

    #[test]
    fn events_without_a_message_are_counted() {
        let input = br#"{"logEvents":[{"id":"1"},{"message":7},{}]}"#;
        let (end, lines) = read(input);
        let whole =
            Envelope { length: input.len(), is_control: false, bad_events: 3, line_ends: 0 };
        assert_eq!((end, lines.as_str()), (EnvelopeEnd::Whole(whole), ""));
    }

    /// Text of a message, with what makes JSON hard.
    fn message() -> impl Strategy<Value = String> {
        prop_oneof![
            "2 [0-9]{12} eni-[0-9a-f]{8} - - - - - - - 1 2 - NODATA",
            r#"[a-z"\\/ \t\u{e9}\u{1F600}{}\[\]:,]{1,20}"#,
        ]
    }

    /// The inside of a string, good or bad.
    fn raw_message() -> impl Strategy<Value = String> {
        prop_oneof![
            "2 [0-9]{12} eni-[0-9a-f]{8,90} - - - - - - - 1 2 - NODATA",
            "version account-id [a-z ]{0,9}",
            r#"[a-z\\n"/ ]{0,12}"#,
            r"\PC{0,70}",
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9_f64).prop_map(Value::from),
            message().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"]{1,4}", inner, 0..4)
                    .prop_map(|map| { Value::Object(map.into_iter().collect()) }),
            ]
        })
    }

    proptest! {
        /// The reader agrees with serde_json on envelopes of any order, spacing and content.
        #[test]
        fn agrees_with_serde_json(
            messages in prop::collection::vec((message(), any_value()), 0..5),
            members in prop::collection::vec(any_value(), 4),
            order in Just((0..4_usize).collect::<Vec<_>>()).prop_shuffle(),
            is_control in any::<bool>(),
            pretty in any::<bool>(),
            escape_all in any::<bool>(),
        ) {
            let events: Vec<Value> = messages
                .iter()
                .map(|(text, extra)| json!({"extractedFields": extra, "id": "1", "message": text}))
                .collect();
            let kind = if is_control { "CONTROL_MESSAGE" } else { "DATA_MESSAGE" };
            let parts = [
                ("logGroup", members[0].clone()),
                ("messageType", json!(kind)),
                ("logEvents", json!(events)),
                ("owner", members[1].clone()),
            ];
            let print = |value: &Value| {
                let text = if pretty {
                    serde_json::to_string_pretty(value).unwrap()
                } else {
                    value.to_string()
                };
                if escape_all { escape_non_ascii(&text) } else { text }
            };
            let body: Vec<String> = order
                .iter()
                .map(|index| format!("\"{}\" : {}", parts[*index].0, print(&parts[*index].1)))
                .collect();
            let input = format!("{{{}}}", body.join(",\n"));
            let oracle: Value = serde_json::from_str(&input).unwrap();
            let mut expected = String::new();
            if !is_control {
                for event in oracle["logEvents"].as_array().unwrap() {
                    expected.push_str(event["message"].as_str().unwrap());
                    expected.push('\n');
                }
            }
            let (end, lines) = read(input.as_bytes());
            let line_ends = memchr::memchr_iter(b'\n', input.as_bytes()).count() as u64;
            let whole = Envelope { length: input.len(), is_control, bad_events: 0, line_ends };
            prop_assert_eq!(end, EnvelopeEnd::Whole(whole));
            prop_assert_eq!(lines, expected);
        }

        /// An event exactly of AWS's form gives what the same event with a blank in it gives, which is read
        /// member by member; so do events that nearly are.
        #[test]
        fn the_form_of_aws_is_read_as_any_other(
            events in prop::collection::vec(
                ("[0-9]{56}|[0-9]{55}[a-f\\\\\"]|[0-9]{57}", "[0-9]{13}|[0-9]{12}|1e5", raw_message(), 0..9_u8),
                1..6,
            ),
            limit in prop_oneof![Just(40_usize), Just(1 << 20)],
            noise in any::<Option<(prop::sample::Index, u8)>>(),
        ) {
            let event = |(id, timestamp, message, end): &(String, String, String, u8)| {
                let end = match end {
                    0 => ",\"x\":1}",
                    1 => " }",
                    _ => "}",
                };
                format!("{{\"id\":\"{id}\",\"timestamp\":{timestamp},\"message\":\"{message}\"{end}")
            };
            let events: Vec<String> = events.iter().map(event).collect();
            let mut exact = events.join(",").into_bytes();
            if let Some((at, byte)) = noise {
                let at = at.index(exact.len());
                exact[at] = byte;
            }
            let mut blank = Vec::new();
            for (index, byte) in exact.iter().enumerate() {
                blank.push(*byte);
                if exact[index..].starts_with(b"{\"id\":\"") {
                    blank.push(b' ');
                }
            }
            let wrap = |events: &[u8]| [b"{\"logEvents\":[", events, b"]}"].concat();
            let result = |input: &[u8]| {
                let mut lines = LineBuffer::default();
                let end = read_envelope(input, limit, copier(), &mut lines);
                let end = match end {
                    EnvelopeEnd::Whole(envelope) => Some((envelope.is_control, envelope.bad_events)),
                    EnvelopeEnd::Other => None,
                    EnvelopeEnd::Broken => Some((true, u64::MAX)),
                };
                (end, lines.count(), lines.take_header_like(), lines.into_bytes())
            };
            prop_assert_eq!(result(&wrap(&exact)), result(&wrap(&blank)));
        }

        #[test]
        fn never_panics_and_never_reads_past_a_cut(cut in 0_usize..120, noise in any::<u8>()) {
            let mut input = br#"{"messageType":"DATA_MESSAGE","x":[{"a":1e5},null],"logEvents":[{"message":"a\u0041","y":{"z":[]}},{"message":"b"}]}"#.to_vec();
            let cut = cut.min(input.len() - 1);
            prop_assert!(!matches!(read(&input[..cut]).0, EnvelopeEnd::Whole(_)));
            input[cut] = noise;
            let mut lines = LineBuffer::default();
            read_envelope(&input, 1 << 20, copier(), &mut lines);
        }
    }

    fn escape_non_ascii(text: &str) -> String {
        let mut escaped = String::new();
        for character in text.chars() {
            if character.is_ascii() {
                escaped.push(character);
            } else {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(escaped, "\\u{unit:04x}").unwrap();
                }
            }
        }
        escaped
    }
}
