//! What bytes are, told by how they begin.

/// A form in which flow logs arrive, or one in which they certainly don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Gzip,
    Zstd,
    Parquet,
    KplAggregate,
    Json,
    Text,
    /// Named for people.
    Foreign(&'static str),
}

/// How many bytes [`form_of`] needs at most, blanks before JSON aside.
pub(super) const SNIFF_BYTES: usize = 12;

/// The magic number of a KPL aggregate.
pub(super) const KPL_MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

const FOREIGN: [(&[u8], &str); 8] = [
    (b"PK\x03\x04", "a zip archive"),
    (b"\xFD7zXZ\x00", "xz data"),
    (b"\x04\x22\x4D\x18", "LZ4 data"),
    (b"\xFF\x06\x00\x00sNaPpY", "Snappy data"),
    (b"\xFF\xFE", "UTF-16 text"),
    (b"\xFE\xFF", "UTF-16 text"),
    (b"\x7FELF", "a program"),
    (b"SQLite form", "a database"),
];

/// The form of bytes that begin like `start`.
pub(super) fn form_of(start: &[u8]) -> Form {
    if start.starts_with(&[0x1F, 0x8B]) {
        return Form::Gzip;
    }
    if start.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
        return Form::Zstd;
    }
    if start.starts_with(b"PAR1") {
        return Form::Parquet;
    }
    if start.starts_with(&KPL_MAGIC) {
        return Form::KplAggregate;
    }
    // A text line may begin with `BZh`; the digit and the block magic tell.
    if start.starts_with(b"BZh") && start.get(4..10) == Some(b"1AY&SY") {
        return Form::Foreign("bzip2 data");
    }
    if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| start.starts_with(magic)) {
        return Form::Foreign(name);
    }
    match without_mark(start).trim_ascii_start().first() {
        Some(b'{' | b'[') => Form::Json,
        _ => Form::Text,
    }
}

/// The bytes after a byte order mark, if there is one.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_told_by_their_start() {
        let check = |start: &[u8], expected| assert_eq!(form_of(start), expected, "{start:?}");
        check(b"", Form::Text);
        check(b"2 123456789012 eni-1", Form::Text);
        check(b"\x1F\x8B\x08", Form::Gzip);
        check(b"\x28\xB5\x2F\xFD", Form::Zstd);
        check(b"PAR1", Form::Parquet);
        check(b"\xF3\x89\x9A\xC2", Form::KplAggregate);
        check(b" \r\n{", Form::Json);
        check(b"\xEF\xBB\xBF[", Form::Json);
        check(b"PK\x03\x04", Form::Foreign("a zip archive"));
        check(b"BZh91AY&SY", Form::Foreign("bzip2 data"));
        check(b"BZh9 is text", Form::Text);
    }
}
