//! The members of a large gzip file, inflated side by side.
//!
//! ```text
//! packed:  member │ member │ … │ member │ member │ …
//!          └──────── piece 1 ──┘└──────── piece 2 ──
//! ```
//!
//! Where a member begins is not written anywhere. Bytes that look like a header are tried: they begin a
//! member if one inflates from there with its checksum right. That is not enough, since a member may hold
//! another one as it is; so each piece must also end exactly where the next one begins, and end a line there.
//! Otherwise nothing was gained, and the file is inflated from its start.

use memchr::memmem;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::inflate::Inflater;
use super::sniff::{Form, form_of};
use crate::record::TextPool;

/// The fewest packed bytes of a piece: less is not worth the search.
const PIECE_BYTES_MIN: usize = 1 << 20;

/// How a member begins: the magic number and the only method there is.
const MEMBER_START: [u8; 3] = [0x1F, 0x8B, 8];

/// Flags that no member has, or whose checksum libdeflate does not look at.
const FLAGS_UNUSUAL: u8 = 0b1110_0010;

/// What the pieces of `packed` hold, in order, each but the last ending in LF; `None` if it has to be
/// inflated as a whole.
pub(super) fn side_by_side(
    packed: &[u8],
    buffers: &TextPool,
    threads: &ThreadPool,
    bytes_max: usize,
) -> Option<Vec<Vec<u8>>> {
    let count = threads.current_num_threads().min(packed.len() / PIECE_BYTES_MIN);
    let starts = piece_starts(packed, count, bytes_max);
    if starts.len() < 2 {
        return None;
    }
    let ends = starts[1..].iter().copied().chain([packed.len()]);
    let pieces: Vec<(usize, usize)> = starts.iter().copied().zip(ends).collect();
    let inflate = |(start, end): (usize, usize)| {
        let mut text = buffers.take(Inflater::room_for(&packed[start..end], bytes_max));
        text.clear();
        let whole =
            Inflater::default().members(&packed[start..], end - start, &mut text, bytes_max);
        if whole.is_none() {
            buffers.give_back(std::mem::take(&mut text));
        }
        whole.map(|()| text)
    };
    let texts: Vec<Option<Vec<u8>>> =
        threads.install(|| pieces.into_par_iter().map(inflate).collect());
    let all: Option<Vec<Vec<u8>>> = texts.into_iter().collect();
    let all = all?;
    let is_within = all.iter().map(Vec::len).sum::<usize>() <= bytes_max;
    let are_borders = all.windows(2).all(|two| is_border(form_of(&all[0]), &two[0], &two[1]));
    if is_within && are_borders {
        return Some(all);
    }
    all.into_iter().for_each(|text| buffers.give_back(text));
    None
}

/// Whether what comes before and behind can be read apart.
fn is_border(form: Form, before: &[u8], behind: &[u8]) -> bool {
    match form {
        Form::Text => before.ends_with(b"\n"),
        // A line that begins with a bracket behind a closed one is a new document, whatever came before.
        Form::Json => before.ends_with(b"}\n") && behind.starts_with(b"{"),
        _ => false,
    }
}

/// Where `count` pieces of about the same size begin, as far as members do; the first at 0.
fn piece_starts(packed: &[u8], count: usize, bytes_max: usize) -> Vec<usize> {
    let mut starts = vec![0];
    for index in 1..count {
        let wanted = packed.len() / count * index;
        let from = wanted.max(starts[starts.len() - 1] + 1);
        let until = packed.len() / count * (index + 1);
        if from < until
            && let Some(start) = member_start(packed, from, until, bytes_max)
        {
            starts.push(start);
        }
    }
    starts
}

/// The first place in `from..until` where a member begins; none if it does not end a line, because then
/// others don't either, and what is inflated side by side could not be read apart.
fn member_start(packed: &[u8], from: usize, until: usize, bytes_max: usize) -> Option<usize> {
    let mut inflater = Inflater::default();
    let mut text = Vec::new();
    let start = memmem::find_iter(&packed[from..until], &MEMBER_START).map(|at| from + at).find(
        |start| {
            let flags = packed.get(start + MEMBER_START.len());
            text.clear();
            flags.is_some_and(|flags| flags & FLAGS_UNUSUAL == 0)
                && inflater.one_member(&packed[*start..], &mut text, bytes_max).is_some()
        },
    )?;
    text.ends_with(b"\n").then_some(start)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rayon::ThreadPoolBuilder;

    use super::*;

    fn gzip(data: &[u8], level: flate2::Compression) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    /// Text that hardly packs.
    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 33).to_le_bytes()[0]
        };
        let mut text: Vec<u8> = (0..bytes).map(|_| next() % 64 + b' ').collect();
        text.push(b'\n');
        text
    }

    fn check(packed: &[u8], expected: Option<&[u8]>) {
        let threads = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let got = side_by_side(packed, &TextPool::default(), &threads, 64 << 20);
        assert!(got.as_ref().is_none_or(|pieces| pieces.len() > 1));
        assert!(got.map(|pieces| pieces.concat()).as_deref() == expected);
    }

    #[test]
    fn many_members_are_read_in_pieces() {
        let members: Vec<Vec<u8>> = (0..80).map(|seed| noise(100_000, seed)).collect();
        let fast = flate2::Compression::fast();
        let packed: Vec<u8> = members.iter().flat_map(|text| gzip(text, fast)).collect();
        check(&packed, Some(&members.concat()));
        let padded: Vec<u8> =
            members.iter().flat_map(|text| [gzip(text, fast), vec![0; 7]].concat()).collect();
        check(&padded, Some(&members.concat()));
        check(&packed[..packed.len() - 1], None);
        check(&[&packed[..], b"x"].concat(), None);
        check(&packed[..PIECE_BYTES_MIN], None);
    }

    #[test]
    fn one_member_is_read_as_a_whole_even_if_it_holds_others() {
        let fast = flate2::Compression::fast();
        check(&gzip(&noise(8_000_000, 1), fast), None);
        // Stored as they are, so that members stand within a member.
        let inner: Vec<u8> = (0..80).flat_map(|seed| gzip(&noise(100_000, seed), fast)).collect();
        check(&gzip(&inner, flate2::Compression::none()), None);
    }

    #[test]
    fn a_line_that_goes_over_a_border_is_read_as_a_whole() {
        let fast = flate2::Compression::fast();
        let cut = |seed| noise(100_000, seed)[..100_000].to_vec();
        let packed: Vec<u8> = (0..80).flat_map(|seed| gzip(&cut(seed), fast)).collect();
        check(&packed, None);
    }

    #[test]
    fn documents_are_told_apart_only_by_line() {
        let fast = flate2::Compression::fast();
        let document = |seed, end: &str| {
            let text = String::from_utf8(noise(100_000, seed)).expect("it is ASCII");
            let text = text.replace(['"', '\\', '\n'], "x");
            format!("{{\"message\":\"{text}\"}}{end}").into_bytes()
        };
        for (end, is_cut) in [("\n", true), ("", false)] {
            let documents: Vec<Vec<u8>> = (0..60).map(|seed| document(seed, end)).collect();
            let packed: Vec<u8> = documents.iter().flat_map(|text| gzip(text, fast)).collect();
            let whole = documents.concat();
            check(&packed, is_cut.then_some(&whole[..]));
        }
    }
}
