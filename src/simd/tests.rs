//! Differential tests of separators: every instruction set of the machine against plain code.

use proptest::prelude::*;

use super::scalar::plain_separators;
use super::{Isa, LINE_END, append_separators, separators};

/// The longest text of the exhaustive tests: a few blocks and a tail.
const LENGTH_MAX: usize = if cfg!(miri) { 70 } else { 4 * 64 + 3 };

fn positions(isa: Isa, text: &[u8]) -> Vec<u32> {
    // What `out` holds must stay, so it starts with something.
    let mut out = vec![7];
    separators(isa, text, &mut out);
    assert_eq!(out.remove(0), 7);
    out
}

fn check(text: &[u8]) {
    let mut expected = vec![7];
    let adjacent = plain_separators(text, 0, &mut expected);
    expected.remove(0);
    for isa in Isa::available() {
        assert_eq!(positions(isa, text), expected, "{} on {text:?}", isa.name());
        let mut moved = Vec::new();
        let found_adjacent = append_separators(isa, text, 1000, &mut moved);
        assert_eq!(found_adjacent, adjacent, "{} on {text:?}", isa.name());
        assert!(moved.into_iter().eq(expected.iter().map(|separator| separator + 1000)));
    }
}

#[test]
fn blanks_and_line_ends_only_are_found() {
    let all_bytes: Vec<u8> = (0..=u8::MAX).collect();
    assert_eq!(positions(Isa::Scalar, &all_bytes), [0x0a | LINE_END, 0x20]);
    assert_eq!(positions(Isa::Scalar, b" \n\n "), [0, 1 | LINE_END, 2 | LINE_END, 3]);
    check(&all_bytes);
}

#[test]
fn every_length_without_separators_and_full_of_them() {
    for length in 0..=LENGTH_MAX {
        check(&vec![b'x'; length]);
        check(&vec![b' '; length]);
        check(&vec![b'\n'; length]);
    }
}

#[test]
fn a_separator_at_every_position_of_every_length() {
    let step = if cfg!(miri) { 23 } else { 1 };
    for length in (0..=LENGTH_MAX).step_by(step) {
        let mut text = vec![b'x'; length];
        for position in 0..length {
            for separator in [b' ', b'\n'] {
                text[position] = separator;
                check(&text);
            }
            text[position] = b'x';
        }
    }
}

#[test]
fn bytes_that_differ_from_separators_by_one_bit() {
    for separator in [b' ', b'\n'] {
        let text: Vec<u8> = (0..130)
            .map(|index| if index % 9 == 8 { separator } else { separator ^ 1 << (index % 9) })
            .collect();
        check(&text);
    }
}

#[test]
fn every_alignment() {
    let line = b"2 123456789010 eni-1235b8ca 172.31.16.139 172.31.16.21 20641 22 6 20 4249 1418530010 1418530070 ACCEPT OK\n";
    let text = line.repeat(if cfg!(miri) { 2 } else { 5 });
    for start in (0..64).step_by(if cfg!(miri) { 21 } else { 1 }) {
        check(&text[start..]);
    }
}

#[test]
fn room_is_made_over_many_groups_of_blocks() {
    let blanks = vec![b' '; if cfg!(miri) { 2_100 } else { 100_003 }];
    for isa in Isa::available() {
        let found = positions(isa, &blanks);
        assert!(found.iter().copied().eq(0..u32::try_from(blanks.len()).unwrap()));
    }
}

#[test]
fn nothing_behind_the_text_is_counted() {
    let text = b"a b".to_vec();
    let longer = [text.as_slice(), &[b' '; 100]].concat();
    for isa in Isa::available() {
        assert_eq!(positions(isa, &longer[..text.len()]), [1]);
    }
}

#[test]
fn names_lead_back_to_their_instruction_set() {
    for isa in Isa::ALL {
        assert_eq!(Isa::from_name(isa.name()), Some(isa));
    }
    assert_eq!(Isa::from_name("avx3"), None);
    assert!(Isa::detect().is_available());
    assert_eq!(Isa::available().first(), Some(&Isa::Scalar));
}

#[test]
#[should_panic(expected = "this machine has no")]
fn an_instruction_set_that_the_machine_lacks_is_refused() {
    let lacking = Isa::ALL.into_iter().find(|isa| !isa.is_available());
    separators(lacking.expect("no machine has both NEON and SSE2"), b"", &mut Vec::new());
}

#[cfg(all(unix, not(miri)))]
#[test]
fn a_text_that_ends_where_memory_ends() {
    let page = EndOfMemory::new();
    for length in 0..=LENGTH_MAX {
        check(page.last_bytes(length));
    }
}

/// A page of blanks and line ends with an unreadable page behind it.
#[cfg(all(unix, not(miri)))]
pub(super) struct EndOfMemory {
    start: *mut libc::c_void,
    page_bytes: usize,
}

#[cfg(all(unix, not(miri)))]
impl EndOfMemory {
    pub(super) fn new() -> Self {
        // SAFETY: `sysconf` has no conditions; the mapping is fresh, of two pages, and only its first
        // page is written.
        unsafe {
            let page_bytes = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap();
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(std::ptr::null_mut(), 2 * page_bytes, protection, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            let bytes = start.cast::<u8>();
            for offset in 0..page_bytes {
                bytes.add(offset).write(if offset % 7 == 6 { b'\n' } else { b' ' });
            }
            assert_eq!(
                libc::mprotect(bytes.add(page_bytes).cast(), page_bytes, libc::PROT_NONE),
                0
            );
            Self { start, page_bytes }
        }
    }

    /// The last bytes of memory, with `text` written there.
    pub(super) fn with_end(&mut self, text: &[u8]) -> &[u8] {
        assert!(text.len() <= self.page_bytes);
        // SAFETY: the last `text.len()` bytes of the first page are writable and lent to nobody else, as
        // `self` is borrowed for good; `text` is other memory.
        unsafe {
            let start = self.start.cast::<u8>().add(self.page_bytes - text.len());
            start.copy_from_nonoverlapping(text.as_ptr(), text.len());
        }
        self.last_bytes(text.len())
    }

    fn last_bytes(&self, length: usize) -> &[u8] {
        assert!(length <= self.page_bytes);
        // SAFETY: the last `length` bytes of the first page are written, and mapped while `self` lives.
        unsafe {
            let start = self.start.cast::<u8>().add(self.page_bytes - length);
            std::slice::from_raw_parts(start, length)
        }
    }
}

#[cfg(all(unix, not(miri)))]
impl Drop for EndOfMemory {
    fn drop(&mut self) {
        // SAFETY: `new` mapped these two pages, and no slice of them outlives `self`.
        assert_eq!(unsafe { libc::munmap(self.start, 2 * self.page_bytes) }, 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_bytes(text in prop::collection::vec(any::<u8>(), 0..700)) {
        check(&text);
    }

    #[test]
    fn random_separators(text in prop::collection::vec(prop::sample::select(b" \nx*\x0b!".to_vec()), 0..700)) {
        check(&text);
    }
}
