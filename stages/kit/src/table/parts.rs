//! The Parquet files of a table: which there are, how they are opened, and what their footers say.

use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_schema::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Error, Result};
use crate::file::open_file;
use crate::table::watched::{Failure, Watched};

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

pub(crate) fn part_schema(path: &Path) -> Result<(u64, SchemaRef)> {
    let (builder, _) = open(path)?;
    Ok((builder.metadata().file_metadata().num_rows().max(0) as u64, builder.schema().clone()))
}

/// Parquet readers can panic on damaged files; here that is an error that names the file. What the system says is an
/// error of reading and not of the file.
pub(super) fn guarded<T>(path: &Path, failure: &Failure, read: impl FnOnce() -> Result<T, String>) -> Result<T> {
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
pub(super) fn open(path: &Path) -> Result<(ParquetRecordBatchReaderBuilder<Watched>, Failure)> {
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
