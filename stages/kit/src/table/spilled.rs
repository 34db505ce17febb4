//! Rows of a table sorted into files by who needs them.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, RecordBatch, UInt32Array};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use arrow_select::interleave::interleave_record_batch;
use rayon::prelude::*;

use crate::contract::context::Context;
use crate::error::{Error, Result};
use crate::table::cached_rows::CachedRows;
use crate::table::read::BatchReader;

/// Rows that a thread sorts at once, bytes.
const SORTED_BYTES: usize = 16 << 20;
/// Of zstd: the quickest.
const LEVEL: i32 = 1;
/// The column with the number of a row; no table has one of that name.
const NUMBER: &str = "row number";

/// A file of rows for each of some buckets: a row of compressed frames, each with rows as a stream of Arrow. A file is open
/// while a frame is added or read, so that however many buckets there are, each thread has one open.
pub(super) struct Spilled {
    folder: PathBuf,
    schema: SchemaRef,
    /// Held while a frame is added.
    buckets: Vec<Mutex<()>>,
}

impl Spilled {
    /// Reads a table once, by all threads, and writes each row into the files of the buckets that need it.
    ///
    /// # Errors
    /// When the table cannot be read or has other rows than are needed, or a file cannot be written.
    pub(super) fn write(
        context: &Context<'_>,
        table: BatchReader,
        mut needs: Vec<(u32, u32)>,
        buckets: usize,
    ) -> Result<Spilled> {
        let (name, schema) = (table.table(), numbered(table.fields()));
        let locks = (0..buckets).map(|_| Mutex::new(())).collect();
        let spilled = Spilled { folder: context.scratch().join("spilled"), schema, buckets: locks };
        spilled.remove()?;
        std::fs::create_dir_all(&spilled.folder).map_err(Error::io(&spilled.folder))?;
        for path in (0..buckets).map(|bucket| spilled.file(bucket)) {
            File::create(&path).map_err(Error::io(&path))?;
        }
        needs.par_sort_unstable();
        needs.dedup();
        let sort = |(first, reader): (usize, BatchReader)| -> Result<usize> {
            let (mut row, mut batches, mut bytes) = (first, Vec::new(), 0);
            let mut reader = reader.peekable();
            while let Some(batch) = reader.next() {
                context.interrupt.check()?;
                let batch = numbers(batch?.batch, row, &spilled.schema)?;
                row += batch.num_rows();
                bytes += batch.get_array_memory_size();
                batches.push(batch);
                if bytes >= SORTED_BYTES || reader.peek().is_none() {
                    spilled.sort(&needs, &batches)?;
                    (batches, bytes) = (Vec::new(), 0);
                }
            }
            Ok(row - first)
        };
        let read: Vec<Result<usize>> = table.split()?.into_par_iter().map(sort).collect();
        let rows = read.into_iter().sum::<Result<usize>>()?;
        if needs.last().is_some_and(|need| need.0 as usize >= rows) {
            return Err(Error::data(format!("{name}: changed while read")));
        }
        Ok(spilled)
    }

    /// Adds the rows of some consecutive batches to the buckets that need them.
    fn sort(&self, needs: &[(u32, u32)], batches: &[RecordBatch]) -> Result<()> {
        let mut places: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.buckets.len()];
        for (at, batch) in batches.iter().enumerate() {
            let rows = batch.column(0).as_primitive::<UInt32Type>();
            let (Some(first), Some(last)) = (rows.values().first(), rows.values().last()) else { continue };
            let from = needs.partition_point(|need| need.0 < *first);
            for (row, bucket) in needs[from..].iter().take_while(|need| need.0 <= *last) {
                places[*bucket as usize].push((at, (row - first) as usize));
            }
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        for (bucket, places) in places.iter().enumerate().filter(|(_, places)| !places.is_empty()) {
            let rows = interleave_record_batch(&batches, places).map_err(|error| Error::internal(error.to_string()))?;
            self.add(bucket, &rows)?;
        }
        Ok(())
    }

    fn add(&self, bucket: usize, rows: &RecordBatch) -> Result<()> {
        let path = self.file(bucket);
        let stream = StreamWriter::try_new(Vec::new(), &self.schema);
        let stream = stream.and_then(|mut stream| stream.write(rows).and_then(|()| stream.into_inner()));
        let stream = stream.map_err(|error| wrong(&path, error))?;
        let frame = zstd::bulk::compress(&stream, LEVEL).map_err(Error::io(&path))?;
        let _alone = self.buckets[bucket].lock().expect("no thread panics while it writes");
        let file = OpenOptions::new().append(true).open(&path);
        file.and_then(|mut file| file.write_all(&frame)).map_err(Error::io(&path))
    }

    /// The rows of a bucket, once: its file is gone then.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read(&self, bucket: usize) -> Result<CachedRows> {
        let path = self.file(bucket);
        let frames = File::open(&path).and_then(zstd::Decoder::new).map_err(Error::io(&path))?;
        let (mut frames, mut cached) = (BufReader::new(frames), CachedRows::default());
        while !frames.fill_buf().map_err(Error::io(&path))?.is_empty() {
            for batch in StreamReader::try_new(&mut frames, None).map_err(|error| wrong(&path, error))? {
                let mut batch = batch.map_err(|error| wrong(&path, error))?;
                let rows = batch.remove_column(0);
                cached.add(rows.as_primitive::<UInt32Type>().values(), &batch);
            }
        }
        std::fs::remove_file(&path).map_err(Error::io(&path))?;
        Ok(cached.sorted())
    }

    /// Removes the files.
    ///
    /// # Errors
    /// When the file system refuses.
    pub(super) fn remove(&self) -> Result<()> {
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&self.folder)(error)),
            _ => Ok(()),
        }
    }

    fn file(&self, bucket: usize) -> PathBuf {
        self.folder.join(format!("{bucket:05}.arrows"))
    }
}

/// The columns of a table behind the number of the row.
fn numbered(fields: &[Field]) -> SchemaRef {
    let number = Field::new(NUMBER, DataType::UInt32, false);
    // Read columns may have nulls by their type, though those that may not be null have none.
    let fields = fields.iter().map(|field| field.clone().with_nullable(true));
    Arc::new(Schema::new([number].into_iter().chain(fields).collect::<Vec<_>>()))
}

fn numbers(batch: RecordBatch, first: usize, schema: &SchemaRef) -> Result<RecordBatch> {
    let rows: UInt32Array = (first as u32..).take(batch.num_rows()).collect::<Vec<u32>>().into();
    let columns = [Arc::new(rows) as ArrayRef].into_iter().chain(batch.columns().iter().cloned()).collect();
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| Error::internal(error.to_string()))
}

fn wrong(path: &Path, error: ArrowError) -> Error {
    match error {
        ArrowError::IoError(_, source) => Error::Io { path: path.to_owned(), source },
        other => Error::internal(format!("{}: {other}", path.display())),
    }
}
