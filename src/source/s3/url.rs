//! `s3://bucket/key` as users write it: an object, a prefix of whole folders, or a pattern.

use std::fmt;

use glob::{MatchOptions, Pattern, PatternError};

/// How such a URL begins.
pub const S3_SCHEME: &str = "s3://";

const PATTERN_CHARACTERS: [char; 3] = ['*', '?', '['];

/// Objects of one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Url {
    /// The bucket.
    pub bucket: String,
    /// An object's key, the beginning of keys, or a pattern; empty for all of the bucket.
    pub key: String,
}

/// Why a text is no such URL.
#[derive(Debug, thiserror::Error)]
pub enum S3UrlError {
    /// No bucket, or one with characters that no bucket has.
    #[error(
        "`{0}` names no bucket; write `s3://BUCKET/PREFIX/`, with 3 to 63 of `a-z`, `0-9`, `.` and `-` in BUCKET"
    )]
    Bucket(String),
    /// A pattern with broken syntax.
    #[error("`{url}` is not a pattern: {source}; write `[*]` for a literal `*`")]
    Pattern {
        /// As written.
        url: String,
        /// What is wrong.
        #[source]
        source: PatternError,
    },
}

impl S3Url {
    /// Reads `s3://…`.
    ///
    /// # Errors
    /// If there is no bucket in it, or a broken pattern behind it.
    pub fn from_text(text: &str) -> Result<Self, S3UrlError> {
        let no_bucket = || S3UrlError::Bucket(text.to_owned());
        let rest = text.strip_prefix(S3_SCHEME).ok_or_else(no_bucket)?;
        let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
        if !is_bucket(bucket) {
            return Err(no_bucket());
        }
        let url = Self { bucket: bucket.to_owned(), key: key.to_owned() };
        url.pattern()?;
        Ok(url)
    }

    /// The pattern, if it is one.
    pub(super) fn pattern(&self) -> Result<Option<Pattern>, S3UrlError> {
        if !self.key.contains(PATTERN_CHARACTERS) {
            return Ok(None);
        }
        let broken = |source| S3UrlError::Pattern { url: self.to_string(), source };
        Pattern::new(&self.key).map(Some).map_err(broken)
    }

    /// With what all keys begin that it can mean.
    pub(super) fn prefix(&self) -> &str {
        self.key.split(PATTERN_CHARACTERS).next().unwrap_or_default()
    }
}

impl fmt::Display for S3Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{S3_SCHEME}{}/{}", self.bucket, self.key)
    }
}

/// How patterns match keys: as they match paths of files.
pub(super) const MATCH_OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Whether a text may be a bucket's name; access point aliases look the same.
pub(super) fn is_bucket(name: &str) -> bool {
    let is_allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    (3..=63).contains(&name.len()) && name.bytes().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(&str, &str, &str)>) {
        let url = S3Url::from_text(text).ok();
        let parts = url.as_ref().map(|url| (&*url.bucket, &*url.key, url.prefix()));
        assert_eq!(parts, expected, "{text}");
    }

    #[test]
    fn urls_are_read() {
        check("s3://logs", Some(("logs", "", "")));
        check("s3://logs/AWSLogs/1/", Some(("logs", "AWSLogs/1/", "AWSLogs/1/")));
        check("s3://my.logs/a/**/*.gz", Some(("my.logs", "a/**/*.gz", "a/")));
        check("s3:///key", None);
        check("s3://UPPER/key", None);
        check("s3://logs/a[", None);
        check("logs/a", None);
    }
}
