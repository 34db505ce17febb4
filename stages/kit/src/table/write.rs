//! Writing tables: Parquet parts that are committed whole, and the record of what a port holds.

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{Schema, SchemaRef};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::commit::{begin_file, commit_file, finish_file};
use crate::contract::port::Table;
use crate::digest::{Digest, digest_file};
use crate::error::{Error, Result};
use crate::table::row::Row;

/// Rows in a row group: small enough that reading a part needs little memory.
pub const ROWS_PER_GROUP: usize = 8192;
/// Rows in a part of a table that is written as one stream.
pub const ROWS_PER_PART: usize = 262_144;
/// Rows a table writer holds before they are encoded. A part is whole times as many.
pub(super) const ROWS_HELD: usize = 1024;
/// Batches of so many rows that wait to be encoded.
const BATCHES_ON_THEIR_WAY: usize = 2;

/// A committed file of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name within the port's folder.
    pub file: String,
    /// Rows, for a table.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Digest of the bytes.
    pub blake3: Digest,
}

impl Part {
    /// The fault of the file on disk; none where it is as it was committed.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn damage(&self, folder: &Path) -> Result<Option<String>> {
        let path = folder.join(&self.file);
        let size = match path.metadata() {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some("is missing".to_owned())),
            Err(source) => return Err(Error::Io { path, source }),
        };
        if size != self.bytes {
            return Ok(Some(format!("has {size} bytes, was written with {}", self.bytes)));
        }
        let other = digest_file(&path)? != self.blake3;
        Ok(other.then(|| "has other bytes than were written".to_owned()))
    }
}

/// The files of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFiles {
    /// The table it carries.
    pub table: Table,
    /// Rows over all parts.
    pub rows: u64,
    /// The columns with their types, for a table.
    pub columns: Vec<(String, String)>,
    /// The files, by name.
    pub parts: Vec<Part>,
}

impl PortFiles {
    /// The digest of the port's content: of the names and digests of its files.
    pub fn digest(&self) -> Digest {
        Digest::of_named(self.parts.iter().map(|part| (part.file.as_str(), part.blake3)))
    }
}

/// The Arrow schema of a row type.
pub fn schema_of<R: Row>() -> SchemaRef {
    Arc::new(Schema::new(R::fields()))
}

/// Writes and commits one part.
///
/// # Errors
/// When the file system refuses.
pub fn write_part<R: Row>(path: &Path, rows: &[R]) -> Result<Part> {
    write_batches(path, schema_of::<R>(), &mut rows.chunks(ROWS_PER_GROUP).map(batch_of))
}

/// Writes and commits one part of a port from columns: each item has the columns of [`Row::fields`], in order, for some
/// rows. A part should have [`ROWS_PER_PART`] rows, as [`TableWriter`] makes them, and each item [`ROWS_PER_GROUP`].
///
/// # Errors
/// The error of an item, or when the file system refuses.
pub fn write_columns<R: Row>(
    folder: &Path,
    part: usize,
    chunks: impl IntoIterator<Item = Result<Vec<ArrayRef>>>,
) -> Result<Part> {
    let mut batches = chunks.into_iter().map(|columns| batch(schema_of::<R>(), columns?));
    write_batches(&folder.join(part_name(part)), schema_of::<R>(), &mut batches)
}

fn write_batches(
    path: &Path,
    schema: SchemaRef,
    batches: &mut dyn Iterator<Item = Result<RecordBatch>>,
) -> Result<Part> {
    let rows = commit_file(path, |file| {
        let mut writer = parquet_writer(schema, file)?;
        let mut rows = 0;
        for batch in batches {
            let batch = batch?;
            writer.write(&batch).map_err(|error| write_error(path, error))?;
            rows += batch.num_rows() as u64;
        }
        writer.close().map_err(|error| write_error(path, error))?;
        Ok(rows)
    })?;
    part_record(path, rows)
}

fn parquet_writer<W: std::io::Write + Send>(schema: SchemaRef, file: W) -> Result<ArrowWriter<W>> {
    let internal = |error: parquet::errors::ParquetError| Error::internal(error.to_string());
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a level of zstd")))
        .set_created_by("halftone".to_owned())
        .set_max_row_group_row_count(Some(ROWS_PER_GROUP));
    let columns = ArrowSchemaConverter::new().convert(&schema).map_err(internal)?;
    for column in columns.columns().iter().filter(|column| mostly_differs(column.name())) {
        properties = properties.set_column_dictionary_enabled(column.path().clone(), false);
    }
    ArrowWriter::try_new(file, schema, Some(properties.build())).map_err(internal)
}

/// True where most values of a column differ from one another, so that a dictionary of them would save nothing.
fn mostly_differs(column: &str) -> bool {
    column == "content" || column.ends_with("_id")
}

fn batch_of<R: Row>(rows: &[R]) -> Result<RecordBatch> {
    batch(schema_of::<R>(), R::to_arrays(rows))
}

fn batch(schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch> {
    RecordBatch::try_new(schema, columns).map_err(|error| Error::internal(error.to_string()))
}

fn write_error(path: &Path, error: parquet::errors::ParquetError) -> Error {
    // The writer wraps I/O errors such as a full disk; they keep their meaning.
    match error {
        parquet::errors::ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(source) => Error::Io { path: path.to_owned(), source: *source },
            Err(other) => Error::Io { path: path.to_owned(), source: std::io::Error::other(other.to_string()) },
        },
        other => Error::Io { path: path.to_owned(), source: std::io::Error::other(other.to_string()) },
    }
}

/// Size and digest of a file that is committed, or that a record will name.
///
/// # Errors
/// When the file cannot be read.
pub fn part_record(path: &Path, rows: u64) -> Result<Part> {
    let bytes = path.metadata().map_err(Error::io(path))?.len();
    let file = path.file_name().expect("a part has a name").to_string_lossy().into_owned();
    Ok(Part { file, rows, bytes, blake3: digest_file(path)? })
}

/// Writes a table as one stream of rows, in parts. Rows are encoded by a thread of the writer's own; it holds a few
/// rows and the compressed pages of one row group.
///
/// Without [`TableWriter::finish`] what is not committed yet is dropped.
pub struct TableWriter<R: Row> {
    /// Rows that are not on their way yet.
    rows: Vec<R>,
    stream: Stream,
}

impl<R: Row> TableWriter<R> {
    /// A writer into an empty port folder.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create(folder: &Path) -> Result<TableWriter<R>> {
        Ok(TableWriter { rows: Vec::new(), stream: Stream::create(folder, R::TABLE, schema_of::<R>())? })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// When an earlier one could not be written.
    pub fn push(&mut self, row: R) -> Result<()> {
        self.rows.push(row);
        if self.rows.len() < ROWS_HELD {
            return Ok(());
        }
        let rows = std::mem::replace(&mut self.rows, Vec::with_capacity(ROWS_HELD));
        self.stream.send(Work::Rows(Box::new(move || batch_of(&rows))))
    }

    /// Adds some rows.
    ///
    /// # Errors
    /// As [`TableWriter::push`].
    pub fn extend(&mut self, rows: impl IntoIterator<Item = R>) -> Result<()> {
        rows.into_iter().try_for_each(|row| self.push(row))
    }

    /// Commits what is left; a table without rows has one empty part that shows its columns.
    ///
    /// # Errors
    /// When a row or the part could not be written.
    pub fn finish(self) -> Result<()> {
        let TableWriter { rows, mut stream } = self;
        stream.send(Work::Last(Box::new(move || batch_of(&rows))))?;
        stream.join()
    }

    /// Adds rows in columns: as many as are encoded at once, but for the last ones.
    pub(super) fn push_batch(&mut self, batch: RecordBatch) -> Result<()> {
        self.stream.send(Work::Rows(Box::new(move || Ok(batch))))
    }
}

/// The rows of one type on their way to the thread that encodes them, whatever the type.
struct Stream {
    table: Table,
    /// The way to the thread, until it ends.
    way: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// A request to the thread of a writer: to make columns of at most [`ROWS_HELD`] rows, which no part's end cuts, and to
/// write them.
enum Work {
    Rows(Columns),
    /// There are no more after these.
    Last(Columns),
}

type Columns = Box<dyn FnOnce() -> Result<RecordBatch> + Send>;

impl Stream {
    fn create(folder: &Path, table: Table, schema: SchemaRef) -> Result<Stream> {
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(Error::io(folder))?;
        }
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let (way, work) = sync_channel(BATCHES_ON_THEIR_WAY);
        let mut parts = Parts { folder: folder.to_owned(), schema, open: None, committed: 0 };
        let thread = std::thread::Builder::new().name(format!("write {table}"));
        let thread = thread.spawn(move || {
            for work in work {
                match work {
                    Work::Rows(rows) => parts.append(&rows()?)?,
                    Work::Last(rows) => return parts.finish(&rows()?),
                }
            }
            Ok(())
        });
        Ok(Stream { table, way: Some(way), thread: Some(thread.map_err(Error::io(folder))?) })
    }

    fn send(&mut self, work: Work) -> Result<()> {
        match &self.way {
            Some(way) if way.send(work).is_ok() => Ok(()),
            // The thread ends early where it failed, and gives the reason once.
            _ => self.join().and_then(|()| Err(Error::internal(format!("{} were not written", self.table)))),
        }
    }

    /// Waits for the thread.
    fn join(&mut self) -> Result<()> {
        self.way = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(panic)) => resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.way = None;
        // Nothing is written behind the back of whoever comes next. The reason was reported, or another one was.
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// The parts of a table, of which at most the last one is not committed.
struct Parts {
    folder: PathBuf,
    schema: SchemaRef,
    open: Option<OpenPart>,
    committed: usize,
}

/// A part that is being written; a kill leaves nothing of it.
struct OpenPart {
    writer: ArrowWriter<NamedTempFile>,
    path: PathBuf,
    rows: usize,
}

impl Parts {
    fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut part = match self.open.take() {
            Some(part) => part,
            None => {
                let path = self.folder.join(part_name(self.committed));
                OpenPart { writer: parquet_writer(self.schema.clone(), begin_file(&path)?)?, path, rows: 0 }
            }
        };
        part.writer.write(rows).map_err(|error| write_error(&part.path, error))?;
        part.rows += rows.num_rows();
        let full = part.rows == ROWS_PER_PART;
        self.open = Some(part);
        if full { self.commit() } else { Ok(()) }
    }

    fn finish(mut self, rows: &RecordBatch) -> Result<()> {
        if rows.num_rows() > 0 || (self.committed == 0 && self.open.is_none()) {
            self.append(rows)?;
        }
        self.commit()
    }

    /// Commits the open part.
    fn commit(&mut self) -> Result<()> {
        if let Some(OpenPart { writer, path, .. }) = self.open.take() {
            finish_file(writer.into_inner().map_err(|error| write_error(&path, error))?, &path)?;
            self.committed += 1;
        }
        Ok(())
    }
}

/// The name of a part by its number.
pub(crate) fn part_name(index: usize) -> String {
    format!("part-{index:05}.parquet")
}

/// Takes stock of a finished port folder: every file with its size and digest; for a table, its rows and columns.
///
/// # Errors
/// When a file cannot be read, or a table's parts disagree.
pub fn read_port(folder: &Path, table: Table) -> Result<PortFiles> {
    let mut parts = Vec::new();
    let mut columns = Vec::new();
    if matches!(table, Table::Model | Table::Pages) {
        for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
            let path = entry.map_err(Error::io(folder))?.path();
            if path.is_file() && !path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                parts.push(part_record(&path, 0)?);
            }
        }
    } else {
        for path in crate::table::parts::parts_of(folder)? {
            let (rows, schema) = crate::table::parts::part_schema(&path)?;
            columns =
                schema.fields().iter().map(|field| (field.name().clone(), field.data_type().to_string())).collect();
            parts.push(part_record(&path, rows)?);
        }
    }
    parts.sort_by(|a, b| a.file.cmp(&b.file));
    Ok(PortFiles { table, rows: parts.iter().map(|part| part.rows).sum(), columns, parts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::rows::Prompt;

    fn prompts(count: usize) -> impl Iterator<Item = Prompt> {
        (0..count).map(|number| Prompt {
            prompt_id: format!("p{number}"),
            messages: Vec::new(),
            source_file: None,
            source_line: None,
        })
    }

    #[test]
    fn an_unfinished_table_leaves_its_whole_parts_only() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TableWriter::create(folder.path()).unwrap();
        writer.extend(prompts(ROWS_PER_PART + 3 * ROWS_HELD)).unwrap();
        drop(writer);
        let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
        assert_eq!(files, ["part-00000.parquet"]);
        assert_eq!(crate::table::parts::rows_of(folder.path()).unwrap(), ROWS_PER_PART as u64);
    }

    #[test]
    fn what_the_file_system_refuses_is_told_by_push_or_finish() {
        let folder = tempfile::tempdir().unwrap();
        let port = folder.path().join("prompts");
        let refused = |rows: usize| {
            let mut writer = TableWriter::create(&port).unwrap();
            std::fs::remove_dir_all(&port).unwrap();
            std::fs::write(&port, "not a folder").unwrap();
            let error = writer.extend(prompts(rows)).and_then(|()| writer.finish()).unwrap_err();
            std::fs::remove_file(&port).unwrap();
            error
        };
        for rows in [0, 1, 10 * ROWS_HELD] {
            assert!(matches!(refused(rows), Error::Io { .. }), "{rows} rows");
        }
    }
}
