//! Reading tables: from the store and from files of other tools, row by row, with little memory.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::{Field, Schema};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReader;

use crate::contract::port::Table;
use crate::error::{Error, Result};
use crate::table::conform::conform;
use crate::table::parts::{guarded, open, parts_of};
use crate::table::row::Row;
use crate::table::watched::Failure;

const ROWS_PER_BATCH: usize = 4096;
/// Row groups that one thread reads, where several read a table.
const GROUPS_AT_ONCE: usize = 8;

/// All rows of a table. For tables that may be large, [`RowReader`] reads them one batch at a time.
///
/// # Errors
/// As [`RowReader`].
pub fn read_rows<R: Row>(path: &Path) -> Result<Vec<R>> {
    RowReader::open(&[path])?.collect()
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

    /// Its rows, also of another row type, which has some of these columns.
    ///
    /// # Errors
    /// When a value is null that may not be.
    ///
    /// # Panics
    /// When a column of the row type was not requested.
    pub fn rows<R: Row>(&self) -> Result<Vec<R>> {
        R::from_batch(&self.columns_of(R::fields())?).map_err(|missing| null_at(self, missing.row, missing.column))
    }

    fn columns_of(&self, fields: Vec<Field>) -> Result<RecordBatch> {
        let fields: Vec<Field> = fields.into_iter().map(|field| field.with_nullable(true)).collect();
        let columns = fields.iter().map(|field| self.column(field.name()).clone()).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns);
        batch.map_err(|error| Error::internal(format!("{}: {error}", self.path.display())))
    }
}

/// The rows of one or more tables in columns, in order: for stages that decide on a few columns of large tables.
/// Values that may not be null are not.
pub struct BatchReader {
    table: Table,
    pieces: std::vec::IntoIter<Piece>,
    piece: Option<OpenPiece>,
    fields: Vec<Field>,
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

impl BatchReader {
    /// Opens tables: folders of parts, or single Parquet files, with all columns of a row type.
    ///
    /// # Errors
    /// When a path holds no Parquet file. What is wrong inside a file shows when it is read.
    pub fn open<R: Row>(tables: &[&Path]) -> Result<BatchReader> {
        BatchReader::of(R::TABLE, tables, R::fields())
    }

    fn of(table: Table, paths: &[&Path], fields: Vec<Field>) -> Result<BatchReader> {
        let mut pieces = Vec::new();
        for path in paths {
            pieces.extend(parts_of(path)?.into_iter().map(|path| Piece { path, groups: None, before: 0 }));
        }
        Ok(BatchReader { table, pieces: pieces.into_iter(), piece: None, fields })
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }

    pub(super) fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Reads these columns only.
    ///
    /// # Panics
    /// When the row type has no such column.
    pub fn only(mut self, columns: &[&str]) -> BatchReader {
        let known = |name: &&str| self.fields.iter().any(|field| field.name() == name);
        assert!(columns.iter().all(known), "{} has not all of {columns:?}", self.table);
        self.fields.retain(|field| columns.contains(&field.name().as_str()));
        self
    }

    /// Readers of some row groups each, which several threads can read at once; with the rows of all tables before
    /// theirs. Together, in their order, they give what this reader gives.
    ///
    /// # Errors
    /// When a file is not Parquet.
    pub fn split(self) -> Result<Vec<(usize, BatchReader)>> {
        let (mut readers, mut rows) = (Vec::new(), 0);
        for piece in self.pieces {
            let (builder, _) = open(&piece.path)?;
            let groups = builder.metadata().row_groups();
            let mut before = 0;
            for start in (0..groups.len().max(1)).step_by(GROUPS_AT_ONCE) {
                let range = start..groups.len().min(start + GROUPS_AT_ONCE);
                let count: i64 = groups[range.clone()].iter().map(|group| group.num_rows().max(0)).sum();
                let pieces = vec![Piece { path: piece.path.clone(), groups: Some(range), before }].into_iter();
                let fields = self.fields.clone();
                readers.push((rows, BatchReader { table: self.table, pieces, piece: None, fields }));
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

impl Iterator for BatchReader {
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
    batches: BatchReader,
    rows: std::vec::IntoIter<R>,
}

impl<R: Row> RowReader<R> {
    /// Opens tables: folders of parts, or single Parquet files.
    ///
    /// # Errors
    /// When a path holds no Parquet file. What is wrong inside a file shows when it is read.
    pub fn open(tables: &[&Path]) -> Result<RowReader<R>> {
        Ok(RowReader { batches: BatchReader::open::<R>(tables)?, rows: Vec::new().into_iter() })
    }
}

impl<R: Row> Iterator for RowReader<R> {
    type Item = Result<R>;

    fn next(&mut self) -> Option<Result<R>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            match self.batches.next()?.and_then(|batch| batch.rows()) {
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

#[cfg(test)]
mod tests {
    use arrow_array::ListArray;
    use arrow_schema::Fields;

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
        let whole = BatchReader::open::<Prompt>(&[folder.path()]).unwrap().only(&["prompt_id"]);
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
