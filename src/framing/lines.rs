//! The buffer of flow log lines that deframing fills: every line ends in LF and is counted.

use memchr::memchr_iter;

use crate::simd::QuotedCopier;

/// Lines of text one after the other.
#[derive(Debug, Default)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    count: u64,
    header_like: bool,
}

/// A moment of a [`LineBuffer`] to which it can be set back.
#[derive(Clone, Copy, Debug)]
pub(super) struct LineMark {
    bytes: usize,
    count: u64,
}

impl LineBuffer {
    /// An empty buffer in the memory of another.
    pub(super) fn in_buffer(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes, ..Self::default() }
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Number of lines.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether a line since the last call may be a header.
    pub(super) fn take_header_like(&mut self) -> bool {
        std::mem::take(&mut self.header_like)
    }

    pub(super) fn mark(&self) -> LineMark {
        LineMark { bytes: self.bytes.len(), count: self.count }
    }

    /// Forgets every line after `mark`.
    pub(super) fn set_back(&mut self, mark: LineMark) {
        debug_assert!(mark.bytes <= self.bytes.len());
        self.bytes.truncate(mark.bytes);
        self.count = mark.count;
    }

    /// Adds one line without LF in it; nothing if it is empty.
    pub(super) fn push_line(&mut self, line: &[u8]) {
        debug_assert!(!line.contains(&b'\n'));
        let Some(first) = line.first() else { return };
        self.header_like |= may_begin_header(*first);
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
        self.count += 1;
    }

    /// Adds the JSON string that begins `from`, without its opening quote, as a line, if it needs no decoding
    /// and is followed by the end of its object. Gives how many bytes it took with that; otherwise nothing
    /// is added.
    #[inline]
    pub(super) fn push_last_string(
        &mut self,
        copier: QuotedCopier,
        from: &[u8],
        line_bytes_max: usize,
    ) -> Option<usize> {
        let before = self.bytes.len();
        let length = copier.copy(from, &mut self.bytes);
        if length == 0 || length > line_bytes_max || !from[length..].starts_with(b"\"}") {
            self.bytes.truncate(before);
            return None;
        }
        self.header_like |= may_begin_header(from[0]);
        self.bytes.push(b'\n');
        self.count += 1;
        Some(length + 2)
    }

    /// Adds text of any number of lines, the last with or without LF; lines longer than
    /// `line_bytes_max` are left out and handed to `too_long`.
    pub(super) fn push_text(
        &mut self,
        text: &[u8],
        line_bytes_max: usize,
        mut too_long: impl FnMut(&[u8]),
    ) {
        let mut kept_from = 0;
        let mut line_from = 0;
        let ends = memchr_iter(b'\n', text)
            .chain(text.last().filter(|b| **b != b'\n').map(|_| text.len()));
        for end in ends {
            if end - line_from > line_bytes_max {
                self.bytes.extend_from_slice(&text[kept_from..line_from]);
                too_long(&text[line_from..end]);
                kept_from = (end + 1).min(text.len());
            } else {
                self.header_like |=
                    may_begin_header(text[line_from..].first().copied().unwrap_or(b'\n'));
                self.count += 1;
            }
            line_from = end + 1;
        }
        self.bytes.extend_from_slice(&text[kept_from..]);
        if self.bytes.last().is_some_and(|last| *last != b'\n') {
            self.bytes.push(b'\n');
        }
    }
}

/// Whether a line with this first byte may be a header: field names are lower case, and blanks or a
/// byte order mark may stand before them.
fn may_begin_header(first: u8) -> bool {
    first.is_ascii_lowercase() || matches!(first, b' ' | b'\t' | 0xEF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &[u8], line_bytes_max: usize, expected: &[u8], count: u64, left_out: usize) {
        let mut buffer = LineBuffer::default();
        let mut too_long = 0;
        buffer.push_text(text, line_bytes_max, |_| too_long += 1);
        assert_eq!(buffer.count(), count);
        assert_eq!(buffer.into_bytes(), expected);
        assert_eq!(too_long, left_out);
    }

    #[test]
    fn text_becomes_whole_lines() {
        check(b"", 9, b"", 0, 0);
        check(b"a", 9, b"a\n", 1, 0);
        check(b"a\n", 9, b"a\n", 1, 0);
        check(b"a\r\n\nb", 9, b"a\r\n\nb\n", 3, 0);
    }

    #[test]
    fn lines_beyond_the_limit_are_left_out() {
        check(b"123\n1234\n12", 3, b"123\n12\n", 2, 1);
        check(b"1234", 3, b"", 0, 1);
        check(b"1\n1234", 3, b"1\n", 1, 1);
        check(b"1234\n1\n1234\n", 3, b"1\n", 1, 2);
    }

    #[test]
    fn lines_that_may_be_headers_are_noticed() {
        for (text, expected) in [("2 1\n3 4", false), ("2 1\nversion", true), ("- -", false)] {
            let mut buffer = LineBuffer::default();
            buffer.push_text(text.as_bytes(), 99, |_| ());
            assert_eq!(buffer.take_header_like(), expected, "{text}");
            assert!(!buffer.take_header_like());
        }
    }
}
