//! Lines of equally many fields, and their columns.
//!
//! ```text
//! text:  "2 1234 eni-1 …\n2 1234 eni-2 …\n…"
//!             └ Splitter ─► Rows (up to 64 lines) ─► numbers, addresses, words of one field
//! ```
//!
//! [`Splitter`] goes through a text in windows that stay in the first level cache. What it hands out as
//! [`Rows`] has been checked: every line has the same number of fields, and enough text lies around it
//! for kernels to read whole registers.

#[cfg(target_arch = "x86_64")]
use super::x86_64::{avx2_columns as avx2, avx512_columns as avx512, avx512_ipv6};
use super::{Isa, LINE_END, append_separators, prefetch};

/// Most lines that [`Rows`] holds: one bit each in a [`Judged`].
pub const ROWS_MAX: usize = 64;

/// Text that is searched for separators at a time.
const WINDOW_BYTES: usize = 16 * 1024;

/// Bytes that must lie before a line and behind it, so that kernels may read whole quads.
const MARGIN_BYTES: usize = 16;

const CACHE_LINE_BYTES: usize = 64;

const fn position_of(separator: u32) -> usize {
    (separator & !LINE_END) as usize
}

/// Goes through whole lines of a text.
#[derive(Debug)]
pub struct Splitter<'t> {
    isa: Isa,
    text: &'t [u8],
    /// Up to here separators are known.
    scanned: usize,
    /// Where the lines end.
    end: usize,
    /// The separator before the current line, then all known ones behind it.
    separators: &'t mut Vec<u32>,
    /// Index of the current line's first separator.
    next: usize,
    line_start: usize,
    /// Before this position, separators may stand side by side.
    adjacent_until: usize,
}

impl<'t> Splitter<'t> {
    /// A splitter of `text[lines]`; `scratch` is what it works in.
    ///
    /// # Panics
    /// If the lines are not empty and do not end in LF, if `text` has 2 GiB or more, or if the machine
    /// does not have `isa`.
    #[must_use]
    pub fn new(
        isa: Isa,
        text: &'t [u8],
        lines: std::ops::Range<usize>,
        scratch: &'t mut Vec<u32>,
    ) -> Self {
        assert!(text.len() < LINE_END as usize, "a text is far below 2 GiB");
        assert!(lines.is_empty() || text[lines.clone()].last() == Some(&b'\n'), "lines end in LF");
        scratch.clear();
        // The separator before the first line: its own position is asked for only with enough text
        // before it.
        scratch.push(lines.start.wrapping_sub(1) as u32 | LINE_END);
        Self {
            isa,
            text,
            scanned: lines.start,
            end: lines.end,
            separators: scratch,
            next: 1,
            line_start: lines.start,
            adjacent_until: 0,
        }
    }

    /// The next lines, as many up to `count_max` (and [`ROWS_MAX`]) as have `field_count` fields each with
    /// one separator behind every field, and enough text around them. None does not mean the end.
    ///
    /// # Panics
    /// If `field_count` is 0.
    pub fn rows(&mut self, field_count: usize, count_max: usize) -> Rows<'_> {
        assert!(field_count > 0, "a line has a field");
        let count_max = count_max.min(ROWS_MAX);
        let wanted = count_max * field_count;
        while self.separators.len() - self.next < wanted && self.scanned < self.end {
            self.scan();
        }
        let known = &self.separators[self.next - 1..];
        let mut count = 0;
        if self.line_start >= MARGIN_BYTES {
            count = regular_lines(&known[1..], field_count, count_max);
            while count > 0
                && position_of(known[count * field_count]) + MARGIN_BYTES >= self.text.len()
            {
                count -= 1;
            }
        }
        Rows {
            isa: self.isa,
            text: self.text,
            separators: &known[..=count * field_count],
            field_count,
            count,
            may_have_empty_fields: self.line_start < self.adjacent_until,
        }
    }

    /// Passes over the first `count` of the lines that [`Self::rows`] gave.
    pub fn skip_rows(&mut self, field_count: usize, count: usize) {
        if count == 0 {
            return;
        }
        self.next += field_count * count;
        let last = self.separators[self.next - 1];
        assert!(last & LINE_END != 0, "rows are whole lines");
        self.line_start = position_of(last) + 1;
    }

    /// The text that the lines are a part of.
    #[must_use]
    pub const fn text(&self) -> &'t [u8] {
        self.text
    }

    /// Where the next line begins.
    #[must_use]
    pub const fn line_start(&self) -> usize {
        self.line_start
    }

    /// Whether no line is left.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.line_start == self.end
    }

    /// Takes the next line, whatever it holds, and gives its place without its LF.
    pub fn next_line(&mut self) -> Option<std::ops::Range<usize>> {
        let mut from = self.next;
        let line_end = loop {
            let known = &self.separators[from..];
            if let Some(index) = known.iter().position(|separator| separator & LINE_END != 0) {
                self.next = from + index + 1;
                break position_of(known[index]);
            }
            if self.scanned == self.end {
                return None;
            }
            let looked_at = self.separators.len() - self.next;
            self.scan();
            from = self.next + looked_at;
        };
        let line = self.line_start..line_end;
        self.line_start = line_end + 1;
        Some(line)
    }

    /// Learns the separators of another window, and forgets those of lines that were passed.
    fn scan(&mut self) {
        let kept_from = self.next - 1;
        self.separators.drain(..kept_from);
        self.next = 1;
        let until = self.end.min(self.scanned + WINDOW_BYTES);
        let window = &self.text[self.scanned..until];
        let base = self.scanned as u32;
        let adjacent = append_separators(self.isa, window, base, self.separators);
        let is_separator = |byte: u8| byte == b' ' || byte == b'\n';
        // A line start right before the window counts as beside it: only a blank line has nothing to lose.
        let across = is_separator(window[0])
            && (self.scanned == self.line_start || is_separator(self.text[self.scanned - 1]));
        if adjacent || across {
            self.adjacent_until = until;
        }
        self.scanned = until;
        // The processor sees the stream of text stop at each window's end while its columns are made.
        let ahead = &self.text[until..self.end.min(until + WINDOW_BYTES)];
        for line in (0..ahead.len()).step_by(CACHE_LINE_BYTES) {
            prefetch(ahead, line);
        }
    }
}

/// How many lines at the front have `field_count` separators each, the last of them a line end.
fn regular_lines(separators: &[u32], field_count: usize, count_max: usize) -> usize {
    let count = count_max.min(separators.len() / field_count);
    let separators = &separators[..count * field_count];
    // Mostly all are regular, which is seen at once: as many line ends as lines, each where it belongs.
    let line_ends: u32 = separators.iter().map(|separator| separator / LINE_END).sum();
    let mut ends_in_place = separators.iter().skip(field_count - 1).step_by(field_count);
    if line_ends as usize == count && ends_in_place.all(|end| *end >= LINE_END) {
        return count;
    }
    let is_regular = |line: &[u32]| {
        let (inner, last) = line.split_at(field_count - 1);
        inner.iter().all(|separator| *separator < LINE_END) && last[0] >= LINE_END
    };
    separators.chunks_exact(field_count).position(|line| !is_regular(line)).unwrap_or(count)
}

/// What a kernel says of up to 64 fields, a bit per row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Fields that are `-`.
    pub absent: u64,
    /// Fields that the kernel does not take; nothing is said of them, and what stands in the column is
    /// meaningless.
    pub unfit: u64,
}

impl Judged {
    /// Nothing was taken of `count` rows.
    pub(super) const fn unfit(count: usize) -> Self {
        Self { absent: 0, unfit: Rows::mask(count) }
    }
}

/// A type of numbers that a column may hold.
pub trait Number: Copy {
    /// The largest number, all bits set up to some.
    const LARGEST: u64;

    /// The lower bits of a word.
    fn cut(word: u64) -> Self;
}

macro_rules! number {
    ($($type:ident)*) => {$(
        impl Number for $type {
            const LARGEST: u64 = $type::MAX as u64;

            #[inline]
            fn cut(word: u64) -> Self {
                word as Self
            }
        }
    )*};
}

number! { u8 u16 u32 u64 }

/// A word of up to 7 bytes to look for.
#[derive(Clone, Copy, Debug)]
pub struct Word(&'static [u8]);

impl Word {
    /// The word `text`.
    ///
    /// # Panics
    /// If it is empty or longer than 7 bytes.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        assert!(
            matches!(text.len(), 1..=7),
            "it must fit a register's word with the blank before it"
        );
        Self(text.as_bytes())
    }

    /// The word with the byte before it as the upper end of 8 bytes, and the mask of what counts.
    fn with_byte_before(self, before: u8) -> (u64, u64) {
        let mut bytes = [0; 8];
        let mut mask = [0; 8];
        let start = 7 - self.0.len();
        bytes[start] = before;
        bytes[start + 1..].copy_from_slice(self.0);
        mask[start..].fill(0xff);
        (u64::from_le_bytes(bytes), u64::from_le_bytes(mask))
    }
}

/// Up to 64 neighbouring lines that have the same number of fields.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'t> {
    isa: Isa,
    text: &'t [u8],
    /// One separator before the first line, then one behind every field. All are positions in `text`,
    /// in order, at least [`MARGIN_BYTES`] behind its start and before its end.
    separators: &'t [u32],
    field_count: usize,
    count: usize,
    may_have_empty_fields: bool,
}

impl Rows<'_> {
    /// Number of lines.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Whether separators may stand side by side in these lines.
    #[must_use]
    pub const fn may_have_empty_fields(&self) -> bool {
        self.may_have_empty_fields
    }

    /// The lowest `count` bits.
    #[must_use]
    pub const fn mask(count: usize) -> u64 {
        if count == ROWS_MAX { u64::MAX } else { (1 << count) - 1 }
    }

    /// Where in the text a field begins and ends.
    #[must_use]
    #[inline]
    pub fn bounds(&self, row: usize, column: usize) -> (usize, usize) {
        (self.field_start(row, column), self.field_end(row, column))
    }

    /// The bytes of a field.
    #[must_use]
    #[inline]
    pub fn field(&self, row: usize, column: usize) -> &[u8] {
        let (start, end) = self.bounds(row, column);
        &self.text[start..end]
    }

    pub(super) const fn text(&self) -> &[u8] {
        self.text
    }

    /// At least [`MARGIN_BYTES`] and at most the text's length less [`MARGIN_BYTES`].
    #[inline]
    pub(super) fn field_end(&self, row: usize, column: usize) -> usize {
        position_of(self.separators[row * self.field_count + column + 1])
    }

    /// Within the same bounds as [`Self::field_end`].
    #[inline]
    pub(super) fn field_start(&self, row: usize, column: usize) -> usize {
        position_of(self.separators[row * self.field_count + column]) + 1
    }

    /// Where in the list the separator before a field is; the one behind it comes next, that of the next row
    /// [`Self::stride`] later.
    #[inline]
    pub(super) const fn index_before(&self, row: usize, column: usize) -> usize {
        row * self.field_count + column
    }

    /// Separators of a row.
    #[inline]
    pub(super) const fn stride(&self) -> usize {
        self.field_count
    }

    /// The position of a separator, within the bounds that [`Self::field_end`] has; that before the first
    /// row may be one less.
    ///
    /// Its index is checked, although it is known to be right: without that the compiler turns the loads
    /// of some rows into gathers, which takes half as long again for everything.
    ///
    /// # Panics
    /// If there is no such separator.
    #[inline]
    pub(super) fn separator_position(&self, index: usize) -> usize {
        position_of(self.separators[index])
    }

    /// The byte that stands before every field of a column.
    pub(super) const fn byte_before(column: usize) -> u8 {
        if column == 0 { b'\n' } else { b' ' }
    }

    /// Whether line ends stand behind the fields of a column.
    #[must_use]
    pub const fn is_last_column(&self, column: usize) -> bool {
        column + 1 == self.field_count
    }

    /// The byte that stands behind every field of a column.
    pub(super) const fn byte_after(&self, column: usize) -> u8 {
        if self.is_last_column(column) { b'\n' } else { b' ' }
    }

    fn check<T>(&self, column: usize, out: Option<&[T]>) {
        assert!(column < self.field_count, "the lines have this field");
        assert!(out.is_none_or(|out| out.len() >= self.count), "the column has room");
    }

    /// Takes numbers of 1 to 7 digits, whatever zeros they begin with, that `N` holds.
    ///
    /// # Panics
    /// If the lines don't have that column, or `out` has no room.
    pub fn numbers<N: Number>(&self, column: usize, out: Option<&mut [N]>) -> Judged {
        self.check(column, out.as_deref());
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `Splitter` would have refused.
            Isa::Avx512 => unsafe { avx512::numbers(self, column, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::numbers(self, column, out) },
            _ => Judged::unfit(self.count),
        }
    }

    /// Takes numbers of exactly 10 digits.
    ///
    /// # Panics
    /// As [`Self::numbers`].
    pub fn ten_digits(&self, column: usize, out: Option<&mut [u64]>) -> Judged {
        self.check(column, out.as_deref());
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `Splitter` would have refused.
            Isa::Avx512 => unsafe { avx512::ten_digits(self, column, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::ten_digits(self, column, out) },
            _ => Judged::unfit(self.count),
        }
    }

    /// Takes IPv4 addresses, as numbers of the IPv4-mapped range `::ffff:0:0/96`.
    ///
    /// # Panics
    /// As [`Self::numbers`].
    pub fn ipv4(&self, column: usize, out: Option<&mut [u128]>) -> Judged {
        self.check(column, out.as_deref());
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `Splitter` would have refused.
            Isa::Avx512 => unsafe { avx512::ipv4(self, column, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::ipv4(self, column, out) },
            _ => Judged::unfit(self.count),
        }
    }

    /// The number of an IPv6 address in groups of hexadecimal digits with at most one `::`. `None` says
    /// nothing of the field but that the kernel does not take it.
    #[must_use]
    #[inline]
    pub fn ipv6(&self, row: usize, column: usize) -> Option<u128> {
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `Splitter` would have refused.
            Isa::Avx512 => unsafe { avx512_ipv6::ipv6(self.field(row, column)) },
            _ => None,
        }
    }

    /// The rows whose field is each of `words`; `None` if the kernel does not take these lines.
    ///
    /// # Panics
    /// If the lines don't have that column.
    #[must_use]
    pub fn words<const COUNT: usize>(
        &self,
        column: usize,
        words: &[Word; COUNT],
    ) -> Option<[u64; COUNT]> {
        self.check::<u8>(column, None);
        let before = Self::byte_before(column);
        let wanted = words.map(|word| word.with_byte_before(before));
        match self.isa {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the machine has the instructions: `Splitter` would have refused.
            Isa::Avx512 => unsafe { avx512::words(self, column, &wanted) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { avx2::words(self, column, &wanted) },
            _ => None,
        }
    }
}
