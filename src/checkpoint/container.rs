//! The file of a snapshot: who wrote it, parts by name, and a trailer that proves them complete.
//!
//! ```text
//!  magic 8 │ form 2 │ byte order 2 │ length 4 │ head │ CRC-32 of all before 4
//!  bytes of the first part │ bytes of the second │ …
//!  table: for each part its name, length and CRC-32
//!  length of the table 8 │ length of the file 8 │ CRC-32 of the table and these 4 │ end mark 4
//! ```
//!
//! Every byte is under a checksum or compared, and the lengths must add up to the file's, so a file that
//! was cut, extended or changed anywhere is refused. Magic and form stay where they are in all forms.
//! The table comes last so that parts are written as they lie in memory, each byte looked at once. Before a large
//! part stands one of zeroes, so that it begins at a block of the disk and need not be copied on its way there.

use std::io;
use std::path::{Path, PathBuf};

use crate::codec::{DecodeError, Decoder, Encoder};
use crate::units::UnixSeconds;

use super::disk::{BLOCK_BYTES, Disk, DiskFile, DiskWriter, read_full};
use super::error::RefusalReason;

/// Like PNG's: damaged by any transfer that takes the file for text.
const MAGIC: [u8; 8] = *b"\x89FGS\r\n\x1a\n";

/// The newest form, which is written.
const FORM: u16 = 1;

/// Reads the same in the order of the machine that wrote it.
const BYTE_ORDER: u16 = 0xfeff;

/// Bytes before the head.
const PREFIX_BYTES: usize = 16;

/// A head is some dozens of bytes; more than this is damage.
const HEAD_BYTES_MAX: u32 = 1 << 16;

/// A table is some dozens of bytes for each part; more than this is damage.
const TABLE_BYTES_MAX: u64 = 1 << 24;

/// Bytes after the table.
const TRAILER_BYTES: u64 = 24;

/// The last bytes.
const END: [u8; 4] = *b"FGSE";

/// Parts from so many bytes on begin at a multiple of [`BLOCK_BYTES`].
const ALIGNED_BYTES_MIN: u64 = 1 << 20;

/// What a part is called that only fills the bytes before the next one, with the number of that.
const PADDING_PREFIX: &str = "padding-";

/// How much is read at a time to check a part.
const READ_BYTES: usize = 1 << 20;

/// A named piece of state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Unique in its snapshot.
    pub name: String,
    /// Its bytes, as [`Encoder::into_segments`] gives them.
    pub segments: Vec<Vec<u8>>,
}

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotHead {
    /// The job whose state it is: equal for configurations that may continue from each other's state.
    pub fingerprint: u128,
    /// The number of the barrier; later ones are greater.
    pub epoch: u64,
    /// Wall time when it was written.
    pub written_at: UnixSeconds,
    /// The version of the program that wrote it.
    pub program: String,
}

/// A snapshot on disk whose bytes are all as they were written.
#[derive(Debug)]
pub struct Snapshot {
    head: SnapshotHead,
    file: Box<dyn DiskFile>,
    parts: Vec<PartEntry>,
}

#[derive(Debug)]
struct PartEntry {
    name: String,
    offset_bytes: u64,
    length_bytes: u64,
    checksum: u32,
}

/// Writes a snapshot into an empty file; how many bytes it has.
pub(super) fn write(
    file: &mut dyn DiskWriter,
    head: &SnapshotHead,
    parts: &[Part],
) -> io::Result<u64> {
    let head = head_bytes(head);
    file.write(&head)?;
    let mut length_bytes = head.len() as u64;
    let (mut table, mut part_count) = (Encoder::default(), 0);
    for (index, part) in parts.iter().enumerate() {
        let part_bytes = part.segments.iter().map(|segment| segment.len() as u64).sum();
        let padding_bytes = length_bytes.next_multiple_of(BLOCK_BYTES as u64) - length_bytes;
        if part_bytes >= ALIGNED_BYTES_MIN && padding_bytes > 0 {
            let padding = &[0; BLOCK_BYTES][..usize::try_from(padding_bytes).expect("a block")];
            file.write(padding)?;
            table.text(&format!("{PADDING_PREFIX}{index}"));
            table.u64(padding_bytes);
            table.u32(crc32fast::hash(padding));
            length_bytes += padding_bytes;
            part_count += 1;
        }
        let mut checksum = crc32fast::Hasher::new();
        for segment in &part.segments {
            checksum.update(segment);
            file.write(segment)?;
        }
        table.text(&part.name);
        table.u64(part_bytes);
        table.u32(checksum.finalize());
        length_bytes += part_bytes;
        part_count += 1;
    }
    let mut whole_table = Encoder::default();
    whole_table.count(part_count);
    whole_table.raw(&table.into_bytes());
    let mut table = whole_table;
    let table_bytes = table.len() as u64;
    length_bytes += table_bytes + TRAILER_BYTES;
    table.u64(table_bytes);
    table.u64(length_bytes);
    let mut end = table.into_bytes();
    end.extend(crc32fast::hash(&end).to_le_bytes());
    end.extend(END);
    file.write(&end)?;
    Ok(length_bytes)
}

fn head_bytes(head: &SnapshotHead) -> Vec<u8> {
    let mut body = Encoder::default();
    body.u128(head.fingerprint);
    body.u64(head.epoch);
    body.i64(head.written_at.0);
    body.text(&head.program);
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= HEAD_BYTES_MAX);
    let mut out = Encoder::default();
    out.raw(&MAGIC);
    out.u16(FORM);
    out.u16(BYTE_ORDER);
    out.u32(length.expect("the name of a version is short"));
    out.raw(&body.into_bytes());
    let mut bytes = out.into_bytes();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Reads the head alone; also how many bytes it takes.
pub(super) fn read_head(
    file: &dyn DiskFile,
    length_bytes: u64,
) -> Result<(SnapshotHead, u64), RefusalReason> {
    let cut_short = RefusalReason::CutShort { length_bytes };
    let mut prefix = [0; PREFIX_BYTES];
    if read_full(file, 0, &mut prefix).map_err(RefusalReason::Io)? < PREFIX_BYTES {
        return Err(cut_short);
    }
    let mut from = Decoder::new(&prefix);
    if from.raw(MAGIC.len()) != Ok(&MAGIC) {
        return Err(RefusalReason::Foreign);
    }
    let damaged = |_: DecodeError| RefusalReason::Damaged { what: "head".to_owned() };
    let form = from.u16().map_err(damaged)?;
    let byte_order = from.u16().map_err(damaged)?;
    if byte_order == BYTE_ORDER.swap_bytes() {
        return Err(RefusalReason::ByteOrder);
    }
    if form > FORM {
        return Err(RefusalReason::Newer { found: form, newest: FORM });
    }
    let body_bytes = from.u32().map_err(damaged)?;
    if form == 0 || byte_order != BYTE_ORDER || body_bytes > HEAD_BYTES_MAX {
        return Err(RefusalReason::Damaged { what: "head".to_owned() });
    }
    let mut rest = vec![0; body_bytes as usize + 4];
    if read_full(file, PREFIX_BYTES as u64, &mut rest).map_err(RefusalReason::Io)? < rest.len() {
        return Err(cut_short);
    }
    let (body, checksum) = rest.split_at(body_bytes as usize);
    let mut hash = crc32fast::Hasher::new();
    hash.update(&prefix);
    hash.update(body);
    if hash.finalize().to_le_bytes() != checksum {
        return Err(RefusalReason::Damaged { what: "head".to_owned() });
    }
    let head = head_form_1(body).map_err(damaged)?;
    Ok((head, (PREFIX_BYTES + rest.len()) as u64))
}

fn head_form_1(body: &[u8]) -> Result<SnapshotHead, DecodeError> {
    let mut from = Decoder::new(body);
    let head = SnapshotHead {
        fingerprint: from.u128()?,
        epoch: from.u64()?,
        written_at: UnixSeconds(from.i64()?),
        program: from.text()?.to_owned(),
    };
    from.finish()?;
    Ok(head)
}

impl Snapshot {
    /// Opens a file and checks every byte of it.
    pub(super) fn open(
        disk: &dyn Disk,
        path: &Path,
        fingerprint: u128,
    ) -> Result<Self, RefusalReason> {
        let file = disk.open(path).map_err(RefusalReason::Io)?;
        let length_bytes = file.length().map_err(RefusalReason::Io)?;
        let (head, head_bytes) = read_head(file.as_ref(), length_bytes)?;
        if head.fingerprint != fingerprint {
            let (found, expected) = (head.fingerprint, fingerprint);
            return Err(RefusalReason::OtherJob { found, expected });
        }
        let parts = read_table(file.as_ref(), head_bytes, length_bytes)?;
        let snapshot = Self { head, file, parts };
        let mut buffer = vec![0; READ_BYTES];
        for part in &snapshot.parts {
            snapshot.check(part, &mut buffer)?;
        }
        Ok(snapshot)
    }

    /// What it says about itself.
    #[must_use]
    pub const fn head(&self) -> &SnapshotHead {
        &self.head
    }

    /// The names of its parts, in the order in which they were written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names = self.parts.iter().map(|part| part.name.as_str());
        names.filter(|name| !name.starts_with(PADDING_PREFIX))
    }

    /// Makes state of a part, which must be read to its end. The part's bytes are in memory only
    /// meanwhile.
    ///
    /// # Errors
    /// If there is no such part, or `read` fails, or leaves bytes.
    pub fn decode<T>(
        &self,
        name: &str,
        read: impl FnOnce(&mut Decoder<'_>) -> Result<T, DecodeError>,
    ) -> Result<T, RefusalReason> {
        let bytes = self.bytes(name)?;
        let mut from = Decoder::new(&bytes);
        let state = read(&mut from).and_then(|state| from.finish().map(|()| state));
        state.map_err(|error| RefusalReason::Part { name: name.to_owned(), error })
    }

    /// The bytes of a part.
    ///
    /// # Errors
    /// If there is no such part, or it cannot be read.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>, RefusalReason> {
        let part = self.parts.iter().find(|part| part.name == name);
        let part = part.ok_or_else(|| RefusalReason::Missing { name: name.to_owned() })?;
        let length = usize::try_from(part.length_bytes).expect("it was read before");
        let mut bytes = vec![0; length];
        let count = read_full(self.file.as_ref(), part.offset_bytes, &mut bytes);
        // The file was sound a moment ago, yet what state is made of is what was read now.
        if count.map_err(RefusalReason::Io)? < length || crc32fast::hash(&bytes) != part.checksum {
            return Err(part.damaged());
        }
        Ok(bytes)
    }

    fn check(&self, part: &PartEntry, buffer: &mut [u8]) -> Result<(), RefusalReason> {
        let mut hash = crc32fast::Hasher::new();
        let mut offset_bytes = part.offset_bytes;
        let end = part.offset_bytes + part.length_bytes;
        while offset_bytes < end {
            let left = usize::try_from(end - offset_bytes).unwrap_or(usize::MAX);
            let into_length = left.min(buffer.len());
            let into = &mut buffer[..into_length];
            let count = read_full(self.file.as_ref(), offset_bytes, into);
            if count.map_err(RefusalReason::Io)? < into.len() {
                return Err(part.damaged());
            }
            hash.update(into);
            offset_bytes += into.len() as u64;
        }
        if hash.finalize() == part.checksum { Ok(()) } else { Err(part.damaged()) }
    }
}

impl PartEntry {
    fn damaged(&self) -> RefusalReason {
        RefusalReason::Damaged { what: format!("part `{}`", self.name) }
    }
}

fn read_table(
    file: &dyn DiskFile,
    head_bytes: u64,
    length_bytes: u64,
) -> Result<Vec<PartEntry>, RefusalReason> {
    let damaged = || RefusalReason::Damaged { what: "table of parts".to_owned() };
    let cut_short = || RefusalReason::CutShort { length_bytes };
    let trailer_at = length_bytes.checked_sub(TRAILER_BYTES).filter(|at| *at >= head_bytes);
    let trailer_at = trailer_at.ok_or_else(cut_short)?;
    let mut trailer = [0; 24];
    let count = read_full(file, trailer_at, &mut trailer).map_err(RefusalReason::Io)?;
    if count < trailer.len() || !trailer.ends_with(&END) {
        return Err(cut_short());
    }
    let mut from = Decoder::new(&trailer);
    let mut number = || from.u64().map_err(|_| damaged());
    let (table_bytes, written_bytes) = (number()?, number()?);
    let data_end = trailer_at.checked_sub(table_bytes).filter(|at| *at >= head_bytes);
    let data_end = data_end.filter(|_| table_bytes <= TABLE_BYTES_MAX).ok_or_else(damaged)?;
    let table_length = usize::try_from(table_bytes).map_err(|_| damaged())?;
    let mut table = vec![0; table_length];
    if read_full(file, data_end, &mut table).map_err(RefusalReason::Io)? < table.len() {
        return Err(cut_short());
    }
    let mut hash = crc32fast::Hasher::new();
    hash.update(&table);
    hash.update(&trailer[..16]);
    if hash.finalize().to_le_bytes() != trailer[16..20] || written_bytes != length_bytes {
        return Err(damaged());
    }
    table_form_1(&table, head_bytes, data_end).ok_or_else(damaged)
}

/// The parts of a table, if they fill the bytes between head and table.
fn table_form_1(table: &[u8], head_bytes: u64, data_end: u64) -> Option<Vec<PartEntry>> {
    let mut from = Decoder::new(table);
    let count = from.count(20).ok()?;
    let mut parts: Vec<PartEntry> = Vec::with_capacity(count);
    let mut offset_bytes = head_bytes;
    for _ in 0..count {
        let name = from.text().ok()?.to_owned();
        let length_bytes = from.u64().ok()?;
        let checksum = from.u32().ok()?;
        parts.push(PartEntry { name, offset_bytes, length_bytes, checksum });
        offset_bytes = offset_bytes.checked_add(length_bytes).filter(|end| *end <= data_end)?;
    }
    from.finish().ok()?;
    (offset_bytes == data_end).then_some(parts)
}

const _: () = assert!(PREFIX_BYTES == MAGIC.len() + 2 + 2 + 4);
const _: () = assert!(TRAILER_BYTES == 8 + 8 + 4 + END.len() as u64);

/// The name of the file of a snapshot, in which epochs sort.
pub(super) fn file_name(epoch: u64) -> String {
    format!("snapshot-{epoch:08}.fgs")
}

/// Where the file of a snapshot lies.
pub(super) fn path_in(directory: &Path, epoch: u64) -> PathBuf {
    directory.join(file_name(epoch))
}
