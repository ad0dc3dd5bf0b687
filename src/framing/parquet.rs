//! Parquet objects as flow logs deliver them to S3: columns by name, row groups as lines of text.
//!
//! Going through text costs a formatting pass but keeps one parser, one idea of what is malformed and
//! one set of counters for every form. A missing value is null or `-`; accounts stored as numbers get
//! their leading zeros back.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast;
use arrow_schema::{ArrowError, DataType, TimeUnit};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};

use crate::record::{FieldId, Layout, TextPool};

use super::cell;
use super::chunk::{ChunkData, Payload};
use super::fault::InputFault;
use super::framed::{Framed, FramedBuilder, LayoutScope};
use super::position::Position;
use crate::record::FaultKind;

/// Rows that are decoded at a time.
const BATCH_ROWS: usize = 8 * 1024;

/// One row group of a Parquet object.
#[derive(Clone, Debug)]
pub struct RowGroup {
    object: Arc<Object>,
    bytes: ObjectBytes,
    index: usize,
}

/// The row groups of one object, in order.
#[derive(Debug)]
pub(super) struct RowGroups {
    object: Arc<Object>,
    bytes: ObjectBytes,
    next_index: usize,
}

/// What a Parquet object says of itself at its end, for a source that then fetches its row groups one by one.
#[derive(Clone, Debug)]
pub struct Footer {
    object: Arc<Object>,
    length: u64,
}

#[derive(Debug)]
struct Object {
    metadata: ArrowReaderMetadata,
    columns: Vec<Column>,
    layout: Arc<Layout>,
    notes: Vec<String>,
}

/// A column that is read.
#[derive(Clone, Copy, Debug)]
struct Column {
    /// Its place among the schema's top-level columns.
    root: usize,
    storage: Storage,
    is_account: bool,
}

/// To what a column is brought before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Storage {
    Signed,
    Unsigned,
    Float,
    Text,
    /// Any unit of time; flow logs have whole seconds.
    Seconds,
}

impl Storage {
    fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Self::Signed,
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Self::Unsigned
            }
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::Null => Self::Text,
            DataType::Timestamp(..) => Self::Seconds,
            DataType::Dictionary(_, values) => Self::of(values)?,
            _ => return None,
        })
    }

    /// The column in the one array type of this storage.
    fn bring(self, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Signed => cast(array, &DataType::Int64),
            Self::Unsigned => cast(array, &DataType::UInt64),
            Self::Float => cast(array, &DataType::Float64),
            Self::Text => cast(array, &DataType::Binary),
            Self::Seconds => {
                cast(&cast(array, &DataType::Timestamp(TimeUnit::Second, None))?, &DataType::Int64)
            }
        }
    }
}

impl RowGroups {
    /// Reads the footer of a file.
    pub(super) fn of_file(file: File) -> Result<Self, InputFault> {
        let length = file.metadata()?.len();
        Self::open(ObjectBytes::File { file: Arc::new(file), length })
    }

    /// Reads the footer of an object in memory.
    pub(super) fn of_bytes(bytes: Bytes) -> Result<Self, InputFault> {
        Self::open(ObjectBytes::Memory(bytes))
    }

    fn open(bytes: ObjectBytes) -> Result<Self, InputFault> {
        let object = Arc::new(Object::open(&bytes)?);
        Ok(Self { object, bytes, next_index: 0 })
    }
}

/// How the end of an object says how long its footer is: a length, then the magic.
const FOOTER_TAIL_BYTES: u64 = 8;

impl Footer {
    /// How many bytes at the end of an object hold its footer, told by the last bytes of it, at least 8.
    #[must_use]
    pub fn bytes_at_end(tail: &[u8]) -> Option<u64> {
        let tail: &[u8; 8] = tail.last_chunk()?;
        let (length, magic) = tail.split_at(4);
        let length = u32::from_le_bytes(length.try_into().expect("half of 8 bytes"));
        (magic == b"PAR1").then_some(u64::from(length) + FOOTER_TAIL_BYTES)
    }

    /// Reads the footer out of the last bytes of an object that is `length` bytes long.
    ///
    /// # Errors
    /// If it is none, or none of flow logs.
    pub fn of_tail(tail: Bytes, length: u64) -> Result<Self, InputFault> {
        let start = length.saturating_sub(tail.len() as u64);
        let bytes = ObjectBytes::Window { start, bytes: tail, length };
        Ok(Self { object: Arc::new(Object::open(&bytes)?), length })
    }

    /// How many row groups there are.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.object.metadata.metadata().num_row_groups()
    }

    /// Where in the object a row group is; `None` if its columns are said to be outside.
    #[must_use]
    pub fn range(&self, index: usize) -> Option<Range<u64>> {
        let group = self.object.metadata.metadata().row_group(index);
        let mut range: Option<Range<u64>> = None;
        for column in group.columns() {
            // The offsets are signed in the format; forged ones make the library panic.
            let (start, length) =
                without_panic(|| Ok::<_, ParquetError>(column.byte_range())).ok()?;
            let end = start.checked_add(length).filter(|end| *end <= self.length)?;
            range = Some(match range {
                Some(range) => range.start.min(start)..range.end.max(end),
                None => start..end,
            });
        }
        range
    }

    /// A row group whose bytes, those of [`Self::range`], are in memory.
    #[must_use]
    pub fn group(&self, index: usize, range: &Range<u64>, bytes: Bytes) -> RowGroup {
        let bytes = ObjectBytes::Window { start: range.start, bytes, length: self.length };
        RowGroup { object: Arc::clone(&self.object), bytes, index }
    }

    /// A row group as a payload, with what it and the footer cost, and the position after it.
    #[must_use]
    pub fn piece(&self, index: usize, range: &Range<u64>, bytes: Bytes) -> ChunkData {
        let group = self.group(index, range, bytes);
        let bytes_read = group.bytes_read();
        let position = Some(Position::row_group(index as u64 + 1));
        ChunkData { payload: Payload::RowGroup(group), bytes_read, position }
    }

    /// The first row group that is not before `position`.
    ///
    /// # Errors
    /// If it is a position in something else.
    pub fn first_group(&self, position: Option<&Position>) -> Result<usize, InputFault> {
        let Some(position) = position else { return Ok(0) };
        let index = position
            .as_row_group()
            .ok_or_else(|| InputFault::replaced(position, "it has another form"))?;
        usize::try_from(index)
            .ok()
            .filter(|index| *index <= self.group_count())
            .ok_or_else(|| InputFault::replaced(position, "it has fewer row groups"))
    }
}

impl RowGroups {
    /// The number of the next group.
    pub(super) const fn next_index(&self) -> u64 {
        self.next_index as u64
    }

    /// Goes on with the group `index`; `None` if there are fewer.
    pub(super) fn resume(&mut self, index: u64) -> Option<()> {
        let index = usize::try_from(index).ok()?;
        self.next_index = index;
        (index <= self.object.metadata.metadata().num_row_groups()).then_some(())
    }
}

impl Iterator for RowGroups {
    type Item = RowGroup;

    fn next(&mut self) -> Option<RowGroup> {
        let index = self.next_index;
        self.next_index += 1;
        (index < self.object.metadata.metadata().num_row_groups()).then(|| RowGroup {
            object: Arc::clone(&self.object),
            bytes: self.bytes.clone(),
            index,
        })
    }
}

impl Object {
    /// Reads the footer.
    fn open(bytes: &ObjectBytes) -> Result<Self, InputFault> {
        // The Arrow schema that writers embed only adds types that the storage types don't need.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = without_panic(|| ArrowReaderMetadata::load(bytes, options))
            .map_err(InputFault::Parquet)?;
        Self::plan(metadata)
    }

    /// Chooses the columns that are fields, by name.
    fn plan(metadata: ArrowReaderMetadata) -> Result<Self, InputFault> {
        let mut columns = Vec::new();
        let mut names: Vec<String> = Vec::new();
        let mut fields = Vec::new();
        let mut notes = Vec::new();
        for (root, column) in metadata.schema().fields().iter().enumerate() {
            let name = cell::header_name(column.name()).filter(|name| !names.contains(name));
            let storage = Storage::of(column.data_type());
            let (Some(name), Some(storage)) = (name, storage) else {
                notes.push(format!(
                    "column `{}` ({}) is not a flow log field and was left out",
                    column.name(),
                    column.data_type()
                ));
                continue;
            };
            let field = FieldId::from_name(name.as_bytes());
            names.push(name);
            fields.push(field);
            let is_account = field.is_some_and(cell::is_account);
            columns.push(Column { root, storage, is_account });
        }
        if !cell::are_flow_log_fields(fields.into_iter()) {
            return Err(InputFault::Parquet("none of its columns holds flow log addresses, interfaces or status; name columns like `srcaddr` and `interface_id`".to_owned()));
        }
        let layout = Layout::from_text(&names.join(" "))
            .map_err(|error| InputFault::Parquet(error.to_string()))?;
        Ok(Self { metadata, columns, layout: Arc::new(layout), notes })
    }

    fn compressed_bytes(&self, index: usize) -> u64 {
        u64::try_from(self.metadata.metadata().row_group(index).compressed_size()).unwrap_or(0)
    }
}

impl RowGroup {
    /// Bytes that reading it costs; the first also answers for the object's footer. 0 if the object
    /// is in memory already.
    pub(super) fn bytes_read(&self) -> u64 {
        let (ObjectBytes::File { length, .. } | ObjectBytes::Window { length, .. }) = &self.bytes
        else {
            return 0;
        };
        if self.index > 0 {
            return self.object.compressed_bytes(self.index);
        }
        let groups = self.object.metadata.metadata().num_row_groups();
        let others: u64 = (1..groups).map(|index| self.object.compressed_bytes(index)).sum();
        length.saturating_sub(others)
    }

    /// The rows as lines of the object's layout; rows before damage are kept.
    pub(super) fn deframe(&self) -> Framed {
        let mut builder = FramedBuilder::new(&TextPool::default(), 0);
        let scope = LayoutScope::Fixed(Arc::clone(&self.object.layout));
        builder.begin_segment(None, scope);
        if let Err(error) = without_panic(|| self.write_rows(&mut builder)) {
            builder.fault(FaultKind::ParquetValue, error, None, &[]);
        }
        if self.index == 0 {
            builder.framed.notes.clone_from(&self.object.notes);
        }
        builder.framed.bytes_decoded = builder.lines.len_bytes() as u64;
        builder.finish()
    }

    fn write_rows(&self, builder: &mut FramedBuilder) -> Result<(), ArrowError> {
        let roots = self.object.columns.iter().map(|column| column.root);
        let mask = ProjectionMask::roots(self.object.metadata.parquet_schema(), roots);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(
            self.bytes.clone(),
            self.object.metadata.clone(),
        )
        .with_row_groups(vec![self.index])
        .with_projection(mask)
        .with_batch_size(BATCH_ROWS)
        .build()?;
        for batch in reader {
            self.write_batch(&batch?, builder)?;
        }
        Ok(())
    }

    fn write_batch(
        &self,
        batch: &RecordBatch,
        builder: &mut FramedBuilder,
    ) -> Result<(), ArrowError> {
        let columns = &self.object.columns;
        // A projection keeps the schema's order, in which the columns were chosen.
        assert_eq!(batch.num_columns(), columns.len(), "the projection is the chosen columns");
        let arrays: Vec<ArrayRef> = columns
            .iter()
            .zip(batch.columns())
            .map(|(column, array)| column.storage.bring(array))
            .collect::<Result<_, _>>()?;
        let mut line = Vec::new();
        for row in 0..batch.num_rows() {
            line.clear();
            for (position, (column, array)) in columns.iter().zip(&arrays).enumerate() {
                if position > 0 {
                    line.push(b' ');
                }
                write_cell(&mut line, *column, array, row);
            }
            builder.lines.push_line(&line);
        }
        Ok(())
    }
}

fn write_cell(line: &mut Vec<u8>, column: Column, array: &ArrayRef, row: usize) {
    if array.is_null(row) {
        return cell::write_missing(line);
    }
    match column.storage {
        Storage::Signed | Storage::Seconds => {
            let value = array.as_primitive::<Int64Type>().value(row);
            cell::write_integer(line, column.is_account, value.into());
        }
        Storage::Unsigned => {
            let value = array.as_primitive::<UInt64Type>().value(row);
            cell::write_integer(line, column.is_account, value.into());
        }
        Storage::Float => {
            let value = array.as_primitive::<Float64Type>().value(row);
            cell::write_float(line, column.is_account, value);
        }
        Storage::Text => cell::write_text(line, array.as_binary::<i32>().value(row)),
    }
}

/// Runs the Parquet decoder, which asserts what damaged objects do not hold.
///
/// Lines are added whole between its steps, so what was written before stays good.
fn without_panic<T, E: ToString>(decode: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the decoder could not make sense of it".to_owned()),
    }
}

/// Where an object's bytes are. Several workers read row groups of one object at a time, so a file is read
/// by places, without the position that its handles share.
#[derive(Clone, Debug)]
enum ObjectBytes {
    File {
        file: Arc<File>,
        length: u64,
    },
    Memory(Bytes),
    /// Some of it, from `start` on.
    Window {
        start: u64,
        bytes: Bytes,
        length: u64,
    },
}

impl ObjectBytes {
    /// The bytes of the window from `at` on; none outside.
    fn window_from(start: u64, bytes: &Bytes, at: u64) -> &[u8] {
        let skipped = at.checked_sub(start).and_then(|skipped| usize::try_from(skipped).ok());
        skipped.and_then(|skipped| bytes.get(skipped..)).unwrap_or_default()
    }
}

impl Length for ObjectBytes {
    fn len(&self) -> u64 {
        match self {
            Self::File { length, .. } | Self::Window { length, .. } => *length,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }
}

impl ChunkReader for ObjectBytes {
    type T = BufReader<ObjectCursor>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        Ok(BufReader::new(ObjectCursor { bytes: self.clone(), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.len()) {
            return Err(ParquetError::EOF("a column chunk ends outside the object".to_owned()));
        }
        match self {
            Self::Memory(bytes) => {
                let start = usize::try_from(start).expect("checked against a length in memory");
                Ok(bytes.slice(start..start + length))
            }
            Self::File { file, .. } => {
                let mut buffer = vec![0; length];
                file.read_exact_at(&mut buffer, start)?;
                Ok(buffer.into())
            }
            Self::Window { start: window_start, bytes, .. } => {
                let from = Self::window_from(*window_start, bytes, start);
                let outside = || ParquetError::EOF("a column is outside its row group".to_owned());
                Ok(bytes.slice_ref(from.get(..length).ok_or_else(outside)?))
            }
        }
    }
}

/// A place in an object from which to read on.
pub struct ObjectCursor {
    bytes: ObjectBytes,
    at: u64,
}

impl Read for ObjectCursor {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let taken = match &self.bytes {
            ObjectBytes::Memory(bytes) => {
                let start = usize::try_from(self.at).unwrap_or(usize::MAX).min(bytes.len());
                (&bytes[start..]).read(out)?
            }
            ObjectBytes::File { file, .. } => file.read_at(out, self.at)?,
            ObjectBytes::Window { start, bytes, .. } => {
                ObjectBytes::window_from(*start, bytes, self.at).read(out)?
            }
        };
        self.at += taken as u64;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
