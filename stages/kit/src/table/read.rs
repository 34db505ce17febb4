//! Reading tables: from the store and from files of other tools, row by row, with little memory.

use std::io::{Read, Seek, SeekFrom};
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array};
use arrow_cast::{CastOptions, cast, cast_with_options};
use arrow_schema::{DataType, Field, Fields, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::error::{Error, Result};
use crate::file::open_file;
use crate::table::row::Row;
use crate::table::watched::{Failure, Watched};

const ROWS_PER_BATCH: usize = 4096;
/// Row groups that one thread reads, where several read a table.
const GROUPS_AT_ONCE: usize = 8;
/// The longest footer of a Parquet file that is read, bytes.
const LARGEST_FOOTER: u32 = 256 << 20;
/// Rows of other tools may be long.
const ROWS_PER_FOREIGN_BATCH: usize = 512;

/// The Parquet files of a table: the path itself, or the `.parquet` files in the folder, by name.
///
/// # Errors
/// When there is none.
pub fn parts_of(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let entry = entry.map_err(Error::io(path))?.path();
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".parquet") && !name.starts_with('.') {
            parts.push(entry);
        }
    }
    if parts.is_empty() {
        return Err(Error::data(format!("{}: no .parquet file in this folder", path.display())));
    }
    parts.sort();
    Ok(parts)
}

/// The columns of a table on disk, from its first part: name and Arrow type.
///
/// # Errors
/// When the part is not Parquet.
pub fn columns_of(path: &Path) -> Result<Vec<(String, DataType)>> {
    let (_, schema) = part_schema(&parts_of(path)?[0])?;
    Ok(schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect())
}

/// The number of rows of a table on disk, from the footers of its parts.
///
/// # Errors
/// When a part is not Parquet.
pub fn rows_of(path: &Path) -> Result<u64> {
    parts_of(path)?.iter().map(|part| Ok(part_schema(part)?.0)).sum()
}

/// All rows of a table. For tables that may be large, [`RowReader`] reads them one batch at a time.
///
/// # Errors
/// As [`RowReader`].
pub fn read_rows<R: Row>(path: &Path) -> Result<Vec<R>> {
    RowReader::open(&[path])?.collect()
}

pub(crate) fn part_schema(path: &Path) -> Result<(u64, SchemaRef)> {
    let (builder, _) = open(path)?;
    Ok((builder.metadata().file_metadata().num_rows().max(0) as u64, builder.schema().clone()))
}

/// Parquet readers can panic on damaged files; here that is an error that names the file. What the system says is an
/// error of reading and not of the file.
fn guarded<T>(path: &Path, failure: &Failure, read: impl FnOnce() -> Result<T, String>) -> Result<T> {
    let torn = |text: String| match failure.take() {
        Some(source) => Error::Io { path: path.to_owned(), source },
        None => match unread_codec(&text) {
            Some(codec) => Error::data(format!(
                "{}: its columns are packed with {codec}; zstd, snappy, gzip and unpacked ones are read; write it anew, such \
                 as by pyarrow.parquet.write_table(table, file, compression=\"zstd\")",
                path.display()
            )),
            None => Error::data(format!("{}: not readable as Parquet: {text}", path.display())),
        },
    };
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(torn),
        Err(_) => Err(torn("the reader panicked, the file is damaged".to_owned())),
    }
}

/// The codec of a file's pages where it is one that is not built in, by what the reader says.
fn unread_codec(text: &str) -> Option<&str> {
    let named = ["Disabled feature at compile time: ", "The codec type "].iter().find_map(|it| text.split_once(it));
    named?.1.split_whitespace().next()
}

/// A reader, and the record of its failure.
fn open(path: &Path) -> Result<(ParquetRecordBatchReaderBuilder<Watched>, Failure)> {
    let mut file = open_file(path)?;
    // The reader takes as much memory as the footer says that it has bytes.
    let mut end = [0; 8];
    let read = file.seek(SeekFrom::End(-8)).and_then(|_| file.read_exact(&mut end));
    let footer = u32::from_le_bytes(end[..4].try_into().expect("4 bytes"));
    if read.is_ok() && &end[4..] == b"PAR1" && footer > LARGEST_FOOTER {
        let text = format!("its footer claims {footer} bytes, at most {LARGEST_FOOTER} are read");
        return Err(Error::data(format!("{}: not readable as Parquet: {text}", path.display())));
    }
    let failure = Failure::default();
    let file = Watched::new(file, failure.clone());
    let builder =
        guarded(path, &failure, || ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| error.to_string()))?;
    Ok((builder, failure))
}

/// Number of rows of a Parquet file, by its footer.
///
/// # Errors
/// When it is not Parquet.
pub fn count_rows(file: &Path) -> Result<u64> {
    part_schema(file).map(|(rows, _)| rows)
}

/// The batches of one Parquet file of another tool, as they are; with `columns`, only those of them that it has.
///
/// # Errors
/// When it is not Parquet. What is wrong inside shows when it is read.
pub fn read_batches(
    file: &Path,
    columns: Option<&[&str]>,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let (builder, failure) = open(file)?;
    let mut builder = builder.with_batch_size(ROWS_PER_FOREIGN_BATCH);
    if let Some(wanted) = columns {
        let fields = builder.schema().fields().iter().enumerate();
        let indices: Vec<_> = fields.filter(|(_, field)| wanted.contains(&field.name().as_str())).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), indices.into_iter().map(|(i, _)| i));
        builder = builder.with_projection(mask);
    }
    let mut reader = Some(guarded(file, &failure, || builder.build().map_err(|error| error.to_string()))?);
    let file = file.to_owned();
    Ok(std::iter::from_fn(move || {
        let open = reader.as_mut()?;
        let batch = guarded(&file, &failure, || open.next().transpose().map_err(|error| error.to_string()));
        if batch.is_err() {
            // Nothing after a torn page is read.
            reader = None;
        }
        batch.transpose()
    }))
}

/// A batch of a table's rows in columns, and where they stand.
#[derive(Debug, Clone)]
pub struct TableBatch {
    /// The requested columns, in the types of the row type.
    pub batch: RecordBatch,
    /// The file they were read from.
    pub path: PathBuf,
    /// Rows of that file before this batch.
    pub before: u64,
}

impl TableBatch {
    /// Place of a row of the batch, for messages: file and row, from 1.
    pub fn place(&self, row: usize) -> String {
        format!("{}: row {}", self.path.display(), self.before + row as u64 + 1)
    }

    /// A column.
    ///
    /// # Panics
    /// When it was not requested.
    pub fn column(&self, name: &str) -> &ArrayRef {
        self.batch.column_by_name(name).expect("a requested column")
    }
}

/// The rows of one or more tables in columns, in order: for stages that decide on a few columns of large tables.
/// Values that may not be null are not.
pub struct BatchReader<R: Row> {
    pieces: std::vec::IntoIter<Piece>,
    piece: Option<OpenPiece>,
    fields: Vec<Field>,
    row: PhantomData<fn() -> R>,
}

/// A file that is being read.
struct OpenPiece {
    path: PathBuf,
    reader: ParquetRecordBatchReader,
    failure: Failure,
    /// Rows of the file before the next batch.
    before: u64,
}

/// A part of a file to read: some or all of its row groups.
struct Piece {
    path: PathBuf,
    /// Row groups; all of them where none are named.
    groups: Option<Range<usize>>,
    /// Rows of the file before them.
    before: u64,
}

impl<R: Row> BatchReader<R> {
    /// Opens tables: folders of parts, or single Parquet files, with all columns of the row type.
    ///
    /// # Errors
    /// When a path holds no Parquet file. What is wrong inside a file shows when it is read.
    pub fn open<P: AsRef<Path>>(tables: &[P]) -> Result<BatchReader<R>> {
        let mut pieces = Vec::new();
        for table in tables {
            pieces.extend(parts_of(table.as_ref())?.into_iter().map(|path| Piece { path, groups: None, before: 0 }));
        }
        Ok(BatchReader::of(pieces, R::fields()))
    }

    fn of(pieces: Vec<Piece>, fields: Vec<Field>) -> BatchReader<R> {
        BatchReader { pieces: pieces.into_iter(), piece: None, fields, row: PhantomData }
    }

    /// Reads these columns only.
    ///
    /// # Panics
    /// When the row type has no such column.
    pub fn only(mut self, columns: &[&str]) -> BatchReader<R> {
        let known = |name: &&str| self.fields.iter().any(|field| field.name() == name);
        assert!(columns.iter().all(known), "{} has not all of {columns:?}", R::TABLE);
        self.fields.retain(|field| columns.contains(&field.name().as_str()));
        self
    }

    /// Readers of some row groups each, which several threads can read at once; with the rows of all tables before
    /// theirs. Together, in their order, they give what this reader gives.
    ///
    /// # Errors
    /// When a file is not Parquet.
    pub fn split(self) -> Result<Vec<(usize, BatchReader<R>)>> {
        let (mut readers, mut rows) = (Vec::new(), 0);
        for piece in self.pieces {
            let (builder, _) = open(&piece.path)?;
            let groups = builder.metadata().row_groups();
            let mut before = 0;
            for start in (0..groups.len().max(1)).step_by(GROUPS_AT_ONCE) {
                let range = start..groups.len().min(start + GROUPS_AT_ONCE);
                let count: i64 = groups[range.clone()].iter().map(|group| group.num_rows().max(0)).sum();
                let piece = Piece { path: piece.path.clone(), groups: Some(range), before };
                readers.push((rows, BatchReader::of(vec![piece], self.fields.clone())));
                before += count as u64;
                rows += count as usize;
            }
        }
        Ok(readers)
    }

    fn read(&mut self) -> Result<Option<TableBatch>> {
        loop {
            if let Some(OpenPiece { path, reader, failure, before }) = &mut self.piece {
                match guarded(path, failure, || reader.next().transpose().map_err(|error| error.to_string()))? {
                    Some(batch) => {
                        let batch = conform(&batch, &self.fields, path)?;
                        let batch = TableBatch { batch, path: path.clone(), before: *before };
                        *before += batch.batch.num_rows() as u64;
                        check_nulls(&batch, &self.fields)?;
                        return Ok(Some(batch));
                    }
                    None => self.piece = None,
                }
            } else if let Some(Piece { path, groups, before }) = self.pieces.next() {
                let (builder, failure) = open(&path)?;
                let mut builder = builder.with_batch_size(ROWS_PER_BATCH);
                if let Some(groups) = groups {
                    builder = builder.with_row_groups(groups.collect());
                }
                let wanted: Vec<&str> = self.fields.iter().map(|field| field.name().as_str()).collect();
                let columns = builder.schema().fields().iter().enumerate();
                let columns = columns.filter(|(_, field)| wanted.contains(&field.name().as_str())).map(|(i, _)| i);
                let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
                let found: Vec<_> =
                    builder.schema().fields().iter().map(|field| format!("`{}`", field.name())).collect();
                let missing = |field: &&Field| builder.schema().column_with_name(field.name()).is_none();
                if let Some(field) = self.fields.iter().filter(|field| !field.is_nullable()).find(missing) {
                    let (name, found) = (field.name(), found.join(", "));
                    return Err(Error::data(format!("{}: column `{name}` missing; found {found}", path.display())));
                }
                let build = || builder.with_projection(mask).build().map_err(|error| error.to_string());
                let reader = guarded(&path, &failure, build)?;
                self.piece = Some(OpenPiece { path, reader, failure, before });
            } else {
                return Ok(None);
            }
        }
    }
}

impl<R: Row> Iterator for BatchReader<R> {
    type Item = Result<TableBatch>;

    fn next(&mut self) -> Option<Result<TableBatch>> {
        let batch = self.read();
        if batch.is_err() {
            // Nothing after a torn part is read.
            self.pieces = Vec::new().into_iter();
            self.piece = None;
        }
        batch.transpose()
    }
}

/// The rows of one or more tables, in order.
pub struct RowReader<R: Row> {
    batches: BatchReader<R>,
    rows: std::vec::IntoIter<R>,
}

impl<R: Row> RowReader<R> {
    /// Opens tables: folders of parts, or single Parquet files.
    ///
    /// # Errors
    /// When a path holds no Parquet file. What is wrong inside a file shows when it is read.
    pub fn open<P: AsRef<Path>>(tables: &[P]) -> Result<RowReader<R>> {
        Ok(RowReader { batches: BatchReader::open(tables)?, rows: Vec::new().into_iter() })
    }
}

impl<R: Row> Iterator for RowReader<R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            let rows = match self.batches.next()? {
                Ok(batch) => {
                    R::from_batch(&batch.batch).map_err(|missing| null_at(&batch, missing.row, missing.column))
                }
                Err(error) => Err(error),
            };
            match rows {
                Ok(rows) => self.rows = rows.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn null_at(batch: &TableBatch, row: usize, column: &str) -> Error {
    Error::data(format!("{}, column `{column}`: null, wanted a value", batch.place(row)))
}

/// Refuses nulls where a value has to be, inside lists too.
fn check_nulls(batch: &TableBatch, fields: &[Field]) -> Result<()> {
    for field in fields {
        let column = batch.column(field.name());
        let lists = column.as_list_opt::<i32>();
        let wrong = |row: usize| {
            if column.is_null(row) {
                !field.is_nullable()
            } else {
                lists.is_some_and(|lists| holds_null(&lists.value(row)))
            }
        };
        let suspicious =
            (column.null_count() > 0 && !field.is_nullable()) || lists.is_some_and(|lists| holds_null(lists.values()));
        if suspicious && let Some(row) = (0..column.len()).find(|&row| wrong(row)) {
            return Err(null_at(batch, row, field.name()));
        }
    }
    Ok(())
}

fn holds_null(values: &ArrayRef) -> bool {
    let inside = |structs: &StructArray| {
        let columns = structs.fields().iter().zip(structs.columns());
        columns.filter(|(field, _)| !field.is_nullable()).any(|(_, column)| holds_null(column))
    };
    values.null_count() > 0 || values.as_struct_opt().is_some_and(inside)
}

/// The columns of some fields, in their order and types. Absent optional columns become nulls; other tools' text and
/// number types are cast where nothing is lost.
fn conform(batch: &RecordBatch, fields: &[Field], path: &Path) -> Result<RecordBatch> {
    let columns = fields.iter().map(|field| conform_column(batch, field, path)).collect::<Result<Vec<_>>>()?;
    let fields: Vec<Field> = fields.iter().map(|field| field.clone().with_nullable(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(arrow_schema::Schema::new(fields)), columns, &options)
        .map_err(|error| Error::internal(format!("{}: {error}", path.display())))
}

fn conform_column(batch: &RecordBatch, field: &Field, path: &Path) -> Result<ArrayRef> {
    let Some(column) = batch.column_by_name(field.name()) else {
        return Ok(new_null_array(field.data_type(), batch.num_rows()));
    };
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    let wrong = || {
        Error::data(format!(
            "{}: column `{}` is {}, wanted {}",
            path.display(),
            field.name(),
            column.data_type(),
            field.data_type()
        ))
    };
    if !alike(column.data_type(), field.data_type()) {
        return Err(wrong());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let column = arranged(column, field.data_type());
    cast_with_options(&column, field.data_type(), &options).map_err(|_| wrong())
}

/// A list of structs with the fields in the order wanted; those that may be null are null where the column lacks them.
fn arranged(column: &ArrayRef, wanted: &DataType) -> ArrayRef {
    let DataType::List(wanted) = wanted else { return column.clone() };
    let lists = items_of(column.data_type()).and_then(|item| cast(column, &DataType::List(item)).ok());
    let Some((lists, DataType::Struct(wanted))) = lists.map(|lists| (lists, wanted.data_type())) else {
        return column.clone();
    };
    let lists = lists.as_list::<i32>();
    let Some(structs) = lists.values().as_struct_opt() else { return column.clone() };
    let absent = |field: &Field| new_null_array(field.data_type(), structs.len());
    let column_of = |field: &Field| structs.column_by_name(field.name()).cloned().unwrap_or_else(|| absent(field));
    let columns: Vec<ArrayRef> = wanted.iter().map(|field| column_of(field)).collect();
    let nullable =
        |(field, column): (&Arc<Field>, &ArrayRef)| Field::new(field.name(), column.data_type().clone(), true);
    let fields = Fields::from_iter(wanted.iter().zip(&columns).map(nullable));
    let structs = StructArray::new(fields, columns, structs.nulls().cloned());
    let item = Arc::new(Field::new("item", structs.data_type().clone(), true));
    Arc::new(ListArray::new(item, lists.offsets().clone(), Arc::new(structs), lists.nulls().cloned()))
}

/// The items of a type that is a list.
fn items_of(data_type: &DataType) -> Option<Arc<Field>> {
    use DataType::{FixedSizeList, LargeList, List, ListView};
    match data_type {
        List(item) | LargeList(item) | FixedSizeList(item, _) | ListView(item) => Some(item.clone()),
        _ => None,
    }
}

/// True where a cast between the types keeps the meaning: text to text, number to number, list to list.
fn alike(got: &DataType, wanted: &DataType) -> bool {
    use DataType::{Boolean, Dictionary, LargeUtf8, Null, Struct, Utf8, Utf8View};
    match (got, wanted) {
        (Null, _) | (Boolean, Boolean) => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8) => true,
        (Dictionary(_, value), wanted) => alike(value, wanted),
        (Struct(got), Struct(wanted)) => {
            let fits = |wanted: &Field| match got.find(wanted.name()) {
                Some((_, got)) => alike(got.data_type(), wanted.data_type()),
                None => wanted.is_nullable(),
            };
            got.iter().all(|got| wanted.find(got.name()).is_some()) && wanted.iter().all(|wanted| fits(wanted))
        }
        (got, wanted) if got.is_integer() => wanted.is_integer() || wanted.is_floating(),
        (got, wanted) if got.is_floating() => wanted.is_floating(),
        (got, wanted) => {
            items_of(got).zip(items_of(wanted)).is_some_and(|(got, wanted)| alike(got.data_type(), wanted.data_type()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::rows::{Message, Prompt, Response};
    use crate::table::write::{TableWriter, write_part};

    fn prompt(number: usize) -> Prompt {
        Prompt {
            prompt_id: format!("p{number}"),
            messages: vec![
                Message::new("user", format!("question {number}")),
                Message::new("assistant", "é\n\"quoted\""),
            ],
            source_file: number.is_multiple_of(2).then(|| "data.jsonl".to_owned()),
            source_line: Some(number as u64 + 1),
        }
    }

    #[test]
    fn rows_come_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<_> = (0..10_000).map(prompt).collect();
        let mut writer = TableWriter::create(&folder.path().join("prompts")).unwrap();
        writer.extend(rows.clone()).unwrap();
        writer.finish().unwrap();
        assert_eq!(read_rows::<Prompt>(&folder.path().join("prompts")).unwrap(), rows);
    }

    #[test]
    fn messages_of_tables_without_extra_fields_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part-00000.parquet");
        let mut rows = vec![prompt(0), prompt(1)];
        rows[1].messages[1].extra = Some(r#"{"name":"f"}"#.to_owned());
        let write = |keep: &[usize]| {
            let batch =
                RecordBatch::try_new(crate::table::write::schema_of::<Prompt>(), Prompt::to_arrays(&rows)).unwrap();
            let lists = batch.column(1).as_list::<i32>();
            let structs = lists.values().as_struct();
            let fields = keep.iter().map(|at| structs.fields()[*at].clone()).collect::<Fields>();
            let columns = keep.iter().map(|at| structs.column(*at).clone()).collect();
            let structs: ArrayRef = Arc::new(StructArray::new(fields, columns, None));
            let item = Arc::new(Field::new("element", structs.data_type().clone(), true));
            let lists: ArrayRef = Arc::new(ListArray::new(item, lists.offsets().clone(), structs, None));
            let columns = [("prompt_id", batch.column(0).clone()), ("messages", lists)];
            let batch = RecordBatch::try_from_iter(columns).unwrap();
            let file = std::fs::File::create(&path).unwrap();
            let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
            writer.write(&batch).unwrap();
            writer.close().unwrap();
            read_rows::<Prompt>(folder.path()).map(|rows| rows.into_iter().map(|row| row.messages).collect::<Vec<_>>())
        };
        let messages: Vec<_> = rows.iter().map(|row| row.messages.clone()).collect();
        assert_eq!(write(&[0, 1, 2]).unwrap(), messages);
        // The order of fields is that of whoever wrote the file.
        assert_eq!(write(&[2, 1, 0]).unwrap(), messages);
        let mut plain = messages.clone();
        plain[1][1].extra = None;
        assert_eq!(write(&[0, 1]).unwrap(), plain);
        let error = write(&[0]).unwrap_err().to_string();
        assert!(error.contains("column `messages` is List"), "{error}");
    }

    #[test]
    fn pieces_read_apart_are_the_table() {
        let folder = tempfile::tempdir().unwrap();
        // Two files of several row groups, one of none, one of a single one.
        let rows: Vec<_> = (0..200_000).map(prompt).collect();
        let cuts = [0..150_000, 150_000..150_000, 150_000..150_001, 150_001..200_000];
        for (part, cut) in cuts.iter().enumerate() {
            write_part(&folder.path().join(format!("part-{part:05}.parquet")), &rows[cut.clone()]).unwrap();
        }
        let whole = BatchReader::<Prompt>::open(&[folder.path()]).unwrap().only(&["prompt_id"]);
        let mut row = 0;
        let pieces = whole.split().unwrap();
        assert!(pieces.len() > 4);
        for (first, piece) in pieces {
            assert_eq!(first, row);
            for batch in piece {
                let batch = batch.unwrap();
                let ids = batch.column("prompt_id").as_string::<i32>();
                for at in 0..batch.batch.num_rows() {
                    assert_eq!(ids.value(at), rows[row].prompt_id);
                    let part = cuts.iter().position(|cut| cut.contains(&row)).unwrap();
                    let place = format!("part-{part:05}.parquet: row {}", row - cuts[part].start + 1);
                    assert!(batch.place(at).ends_with(&place), "{} is not {place}", batch.place(at));
                    row += 1;
                }
            }
        }
        assert_eq!(row, rows.len());
    }

    #[test]
    fn equal_rows_make_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<_> = (0..100).map(prompt).collect();
        let first = write_part(&folder.path().join("a/part-00000.parquet"), &rows).unwrap();
        let second = write_part(&folder.path().join("b/part-00000.parquet"), &rows).unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn a_missing_column_is_named() {
        let folder = tempfile::tempdir().unwrap();
        write_part(&folder.path().join("part-00000.parquet"), &[prompt(1)]).unwrap();
        let error = read_rows::<Response>(folder.path()).unwrap_err().to_string();
        assert!(error.contains("column `response_id` missing; found `prompt_id`, `messages`"), "{error}");
    }

    #[test]
    fn a_torn_file_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part-00000.parquet");
        write_part(&path, &(0..100).map(prompt).collect::<Vec<_>>()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for length in (0..whole.len()).step_by(97) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read_rows::<Prompt>(folder.path()).unwrap_err();
            assert!(matches!(error, Error::Data(_)) && error.to_string().contains("part-00000.parquet"), "{error}");
        }
    }
}
