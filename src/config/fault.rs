//! What is wrong with a configuration file: every fault with its place and what to write instead.

use std::fmt;
use std::ops::Range;

/// One fault, at the line and column (both from 1, columns in characters) where to mend it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigFault {
    /// Line of the key or value.
    pub line: usize,
    /// Column of the key or value.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
}

impl ConfigFault {
    /// The fault at a byte offset of `text`.
    pub(super) fn at(text: &str, offset: usize, message: String) -> Self {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    }
}

/// Why no plan came out of a configuration file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file `{path}`")]
    Unreadable {
        /// The file.
        path: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file was read and is faulty.
    #[error("{0}")]
    Faults(FaultList),
}

/// All faults of one file in the order of their places, at least one; displays one a line as
/// `FILE:LINE:COLUMN: MESSAGE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultList {
    file: String,
    faults: Vec<ConfigFault>,
}

impl FaultList {
    /// The faults of `file`, sorted; `None` if there are none.
    #[must_use]
    pub fn new(file: &str, mut faults: Vec<ConfigFault>) -> Option<Self> {
        if faults.is_empty() {
            return None;
        }
        faults.sort();
        Some(Self { file: file.to_owned(), faults })
    }

    /// The faults, first place first.
    #[must_use]
    pub fn faults(&self) -> &[ConfigFault] {
        &self.faults
    }
}

impl fmt::Display for FaultList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            let newline = if index > 0 { "\n" } else { "" };
            let ConfigFault { line, column, message } = fault;
            write!(f, "{newline}{}:{line}:{column}: {message}", self.file)?;
        }
        Ok(())
    }
}

/// A fault while the file is still being read: its place as bytes of the text.
#[derive(Clone, Debug)]
pub(super) struct SpannedFault {
    /// Where the key or value stands.
    pub(super) span: Range<usize>,
    /// What is wrong and what to do.
    pub(super) message: String,
    /// Whether something is wrong, or something is not there.
    pub(super) kind: SpannedFaultKind,
}

/// Tells faults that a broken line elsewhere may have caused from those that stand for themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SpannedFaultKind {
    /// What is written is wrong.
    Wrong,
    /// Something required is not written.
    Missing,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, offset: usize, line: usize, column: usize) {
        let fault = ConfigFault::at(text, offset, String::new());
        assert_eq!((fault.line, fault.column), (line, column), "{text:?} at {offset}");
    }

    #[test]
    fn places_count_from_one_in_characters() {
        check("", 0, 1, 1);
        check("a = 1\nb = 2", 6, 2, 1);
        check("a = 1\nb = 2", 10, 2, 5);
        check("é = 1", 5, 1, 5);
        check("é", 1, 1, 1);
        check("a\n", 2, 2, 1);
    }
}
