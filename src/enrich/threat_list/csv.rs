//! Lines of a list: which part of them is the address.
//!
//! The column is found by the header's name for it, or by the first line that has an address; it is the same
//! for all lines after that.

/// Names of the column, the best first; compared without case, spaces and underscores.
const NAMES: &[&str] = &[
    "ip",
    "ipaddress",
    "ipaddr",
    "address",
    "addr",
    "dstip",
    "destinationip",
    "srcip",
    "sourceip",
    "ipdst",
    "ipsrc",
    "cidr",
    "network",
    "netblock",
    "prefix",
    "subnet",
    "indicator",
    "iocvalue",
    "ioc",
    "value",
    "host",
];

/// What may stand between columns. A semicolon begins a comment, after which no list has its addresses.
const DELIMITERS: [char; 3] = [',', '\t', '|'];

/// What is known of the columns so far.
#[derive(Debug, Default)]
pub(super) struct Columns {
    delimiter: Option<char>,
    column: Option<usize>,
}

impl Columns {
    /// The part of a line that should be an entry; none for a header. `line` is not empty and has no comment.
    pub(super) fn entry<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let delimiter = match self.delimiter {
            Some(delimiter) => delimiter,
            None => match line.chars().find(|char| DELIMITERS.contains(char)) {
                Some(delimiter) => *self.delimiter.insert(delimiter),
                None => return Some(unquoted(line)),
            },
        };
        if let Some(column) = self.column {
            return Some(Cells { rest: Some(line), delimiter }.nth(column).unwrap_or(line));
        }
        let cells = || Cells { rest: Some(line), delimiter };
        if let Some((column, cell)) =
            cells().enumerate().find(|(_, cell)| super::entry(cell).is_some())
        {
            self.column = Some(column);
            return Some(cell);
        }
        let plain = |cell: &str| -> String {
            let letters = cell.chars().filter(char::is_ascii_alphanumeric);
            letters.map(|char| char.to_ascii_lowercase()).collect()
        };
        let names: Vec<String> = cells().map(plain).collect();
        let of_name = |name: &&str| names.iter().position(|cell| cell == name);
        self.column = NAMES.iter().find_map(of_name);
        // Before there is a column, a line without an address is a header or a title.
        None
    }
}

/// The line up to a comment, without spaces at its ends.
pub(super) fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with("//") {
        return "";
    }
    // Within quotes it may be part of a text.
    let end = if line.contains('"') {
        if line.starts_with(['#', ';']) { Some(0) } else { None }
    } else {
        line.find(['#', ';'])
    };
    end.map_or(line, |end| line[..end].trim_end())
}

fn unquoted(cell: &str) -> &str {
    let cell = cell.trim();
    cell.strip_prefix('"').and_then(|cell| cell.strip_suffix('"')).unwrap_or(cell).trim()
}

/// The cells of a line.
struct Cells<'a> {
    rest: Option<&'a str>,
    delimiter: char,
}

impl<'a> Iterator for Cells<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let mut is_quoted = false;
        let end = rest.find(|char| {
            is_quoted ^= char == '"';
            !is_quoted && char == self.delimiter
        });
        let (cell, rest) = match end {
            Some(end) => (&rest[..end], Some(&rest[end + 1..])),
            None => (rest, None),
        };
        self.rest = rest;
        Some(unquoted(cell))
    }
}
