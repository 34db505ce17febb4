//! Rows kept in columns, and tables written from them in another order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use arrow_select::interleave::interleave;
use rayon::prelude::*;

use crate::contract::context::Context;
use crate::error::{Error, Result};
use crate::table::read::BatchReader;
use crate::table::row::Row;
use crate::table::write::{ROWS_PER_GROUP, ROWS_PER_PART, write_columns};

/// Memory for the input rows of one window, bytes.
const WINDOW_BYTES: usize = 512 << 20;

/// Some rows of a table, read once into compact columns and given out in any order.
///
/// Rows go by their number in the table, from 0, over all its sources.
#[derive(Debug)]
pub struct CachedRows {
    columns: BTreeMap<String, Vec<ArrayRef>>,
    /// Row of the table -> how many cached rows come before it.
    ranks: Vec<u32>,
    /// The rank of the first row of each cached batch.
    starts: Vec<u32>,
}

impl CachedRows {
    /// Reads a table, by all threads, and holds the rows that are wanted, in the columns that the reader reads.
    ///
    /// # Errors
    /// When the table cannot be read, or has another number of rows than `wanted`.
    pub fn read<R: Row>(reader: BatchReader<R>, wanted: &[bool]) -> Result<CachedRows> {
        let changed = || Error::data(format!("{}: changed while read", R::TABLE));
        let pieces = reader.split()?;
        let read = |(first, reader): (usize, BatchReader<R>)| {
            let (mut row, mut kept) = (first, Vec::new());
            for batch in reader {
                let batch = batch?.batch;
                let keep = wanted.get(row..row + batch.num_rows()).ok_or_else(changed)?;
                row += batch.num_rows();
                if keep.contains(&true) {
                    let keep = BooleanArray::from(keep.to_vec());
                    kept.push(filter_record_batch(&batch, &keep).map_err(|error| Error::internal(error.to_string()))?);
                }
            }
            Ok((row, kept))
        };
        let pieces: Vec<Result<(usize, Vec<RecordBatch>)>> = pieces.into_par_iter().map(read).collect();
        let mut cached =
            CachedRows { columns: BTreeMap::new(), ranks: Vec::with_capacity(wanted.len()), starts: Vec::new() };
        let (mut rows, mut rank) = (0, 0);
        for piece in pieces {
            let (end, batches) = piece?;
            rows = end;
            for batch in batches {
                cached.starts.push(rank);
                rank += batch.num_rows() as u32;
                for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                    cached.columns.entry(field.name().clone()).or_default().push(column.clone());
                }
            }
        }
        let mut before = 0;
        for &keep in wanted {
            cached.ranks.push(before);
            before += u32::from(keep);
        }
        if rows == wanted.len() && rank == before { Ok(cached) } else { Err(changed()) }
    }

    /// A column at some rows, in their order.
    ///
    /// # Errors
    /// When the requested rows are more than one array can hold (2 GiB of text).
    ///
    /// # Panics
    /// When a row or column is not cached.
    pub fn gather(&self, column: &str, rows: &[u32]) -> Result<ArrayRef> {
        let places: Vec<_> = rows.iter().map(|&row| self.place(row)).collect();
        interleave(&self.arrays(&[column]), &places).map_err(|error| Error::data(format!("column `{column}`: {error}")))
    }

    /// A column at some rows, or the other column of the same type where the row says so.
    ///
    /// # Errors
    /// As [`CachedRows::gather`].
    ///
    /// # Panics
    /// As [`CachedRows::gather`].
    pub fn gather_either(&self, column: &str, other: &str, rows: &[(u32, bool)]) -> Result<ArrayRef> {
        let places = rows.iter().map(|&(row, other)| {
            let (batch, row) = self.place(row);
            (batch + if other { self.starts.len() } else { 0 }, row)
        });
        let places: Vec<_> = places.collect();
        interleave(&self.arrays(&[column, other]), &places)
            .map_err(|error| Error::data(format!("columns `{column}` and `{other}`: {error}")))
    }

    fn arrays(&self, columns: &[&str]) -> Vec<&dyn Array> {
        columns.iter().flat_map(|&column| self.columns[column].iter().map(AsRef::as_ref)).collect()
    }

    /// The batch a row is in, and its place there.
    fn place(&self, row: u32) -> (usize, usize) {
        let rank = self.ranks[row as usize];
        let batch = self.starts.partition_point(|&start| start <= rank) - 1;
        (batch, (rank - self.starts[batch]) as usize)
    }
}

/// Writes a port whose rows are made of rows of the inputs: `entries` in their order, each from the input rows it
/// `needs`, numbered from 0 over all sources of the inputs `keys`. `columns` makes the output's columns for some
/// entries from the cached rows. Memory is that of a window of entries, however many there are.
///
/// # Errors
/// When an input cannot be read or the port not written, or what `columns` gives, or when a signal asks to stop.
pub fn write_gathered<R: Row, O: Row, E>(
    context: &Context<'_>,
    keys: &[&'static str],
    port: &str,
    entries: &[E],
    needs: impl Fn(&E) -> [Option<u32>; 2],
    columns: impl Fn(&CachedRows, &[E]) -> Result<Vec<ArrayRef>> + Sync,
) -> Result<()>
where
    E: Sync,
{
    let folder = context.port(port);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
    }
    let rows = context.count_rows_of(keys)? as usize;
    let hold = |entries: &[E]| {
        let mut wanted = vec![false; rows];
        entries.iter().flat_map(&needs).flatten().for_each(|row| wanted[row as usize] = true);
        CachedRows::read(context.batches::<R>(keys)?, &wanted)
    };
    let done = AtomicU64::new(0);
    let group = |cached: &CachedRows, start: usize| {
        context.interrupt.check()?;
        let chunk = &entries[start..entries.len().min(start + ROWS_PER_GROUP)];
        let made = columns(cached, chunk);
        let done = done.fetch_add(chunk.len() as u64, Ordering::Relaxed) + chunk.len() as u64;
        context.progress(done, entries.len() as u64, "rows", String::new());
        made
    };
    let window = window_of::<R>(context, keys)?;
    let starts_of =
        |part: usize| (part * ROWS_PER_PART..entries.len().min((part + 1) * ROWS_PER_PART)).step_by(ROWS_PER_GROUP);
    let parts = entries.len().div_ceil(ROWS_PER_PART).max(1);
    if window < ROWS_PER_PART {
        let mut cached: Option<(usize, CachedRows)> = None;
        let mut from_window = |start: usize| {
            let from = start - start % window;
            if cached.as_ref().is_none_or(|(held_from, _)| *held_from != from) {
                cached = None;
                cached = Some((from, hold(&entries[from..entries.len().min(from + window)])?));
            }
            group(&cached.as_ref().expect("just filled").1, start)
        };
        for part in 0..parts {
            write_columns::<O>(&folder, part, starts_of(part).map(&mut from_window))?;
        }
        return Ok(());
    }
    // Parts whose rows are cached together are written side by side.
    let at_once = window / ROWS_PER_PART;
    for first in (0..parts).step_by(at_once) {
        let together = first..parts.min(first + at_once);
        let until = entries.len().min(together.end * ROWS_PER_PART);
        let cached = hold(&entries[first * ROWS_PER_PART..until])?;
        let write = |part| write_columns::<O>(&folder, part, starts_of(part).map(|start| group(&cached, start)));
        together.into_par_iter().map(write).collect::<Vec<_>>().into_iter().try_for_each(|part| part.map(drop))?;
    }
    Ok(())
}

/// Entries in a window: whole row groups, as many as fit into [`WINDOW_BYTES`] by the size of the first rows of each
/// source.
fn window_of<R: Row>(context: &Context<'_>, keys: &[&'static str]) -> Result<usize> {
    let (mut rows, mut bytes) = (0, 0);
    for source in keys.iter().flat_map(|key| context.sources(key)) {
        if let Some(batch) = BatchReader::<R>::open(&[&source.path])?.next().transpose()? {
            rows += batch.batch.num_rows();
            bytes += batch.batch.get_array_memory_size();
        }
    }
    let groups = (WINDOW_BYTES / (bytes / rows.max(1)).max(1)) / ROWS_PER_GROUP;
    Ok(groups.max(1) * ROWS_PER_GROUP)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::rows::{Embedding, Message, Prompt};
    use crate::table::write::{TableWriter, write_columns};

    #[test]
    fn rows_come_out_in_the_order_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let rows: Vec<_> = (0..9000_u64)
            .map(|number| Prompt {
                prompt_id: format!("p{number}"),
                messages: vec![Message::new("user", format!("m{number}")); (number % 3) as usize],
                source_file: Some(format!("f{number}")),
                source_line: (number % 5 > 0).then_some(number),
            })
            .collect();
        let mut writer = TableWriter::create(folder.path()).unwrap();
        writer.extend(rows.clone()).unwrap();
        writer.finish().unwrap();
        let wanted: Vec<_> = rows.iter().map(|row| row.source_line.is_none_or(|line| line % 7 > 0)).collect();
        let cached = CachedRows::read(BatchReader::<Prompt>::open(&[folder.path()]).unwrap(), &wanted).unwrap();
        let order: Vec<u32> = (0..9000).map(|row| (row * 7919) % 9000).filter(|&row| wanted[row as usize]).collect();
        let columns = ["prompt_id", "messages", "source_file", "source_line"];
        let gathered = columns.iter().map(|column| cached.gather(column, &order).unwrap()).collect();
        let out = tempfile::tempdir().unwrap();
        write_columns::<Prompt>(out.path(), 0, [Ok(gathered)]).unwrap();
        let read = crate::table::read::read_rows::<Prompt>(out.path()).unwrap();
        assert!(read.iter().zip(&order).all(|(row, &at)| *row == rows[at as usize]));
        let either: Vec<_> = order.iter().map(|&row| (row, row % 2 == 0)).collect();
        let either = cached.gather_either("prompt_id", "source_file", &either).unwrap();
        let text = arrow_array::cast::AsArray::as_string::<i32>(&either);
        for (place, &at) in order.iter().enumerate() {
            let row = &rows[at as usize];
            let expected = if at % 2 == 0 { row.source_file.clone().unwrap() } else { row.prompt_id.clone() };
            assert_eq!(text.value(place), expected);
        }
    }

    #[test]
    fn only_some_columns_are_read_and_their_nulls_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part-00000.parquet");
        let schema = arrow_schema::Schema::new(vec![
            arrow_schema::Field::new("prompt_id", arrow_schema::DataType::Utf8, true),
            arrow_schema::Field::new("embedding", <Vec<f32> as crate::table::row::Cell>::data_type(), true),
        ]);
        let ids = arrow_array::StringArray::from(vec![Some("a"), None]);
        let embeddings = <Vec<f32> as crate::table::row::Cell>::to_array([vec![1.0_f32], vec![0.5]].iter());
        let batch = RecordBatch::try_new(schema.into(), vec![std::sync::Arc::new(ids), embeddings]).unwrap();
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let mut reader = BatchReader::<Embedding>::open(&[&path]).unwrap().only(&["embedding"]);
        assert_eq!(reader.next().unwrap().unwrap().batch.num_columns(), 1);
        let mut reader = BatchReader::<Embedding>::open(&[&path]).unwrap().only(&["prompt_id"]);
        let error = reader.next().unwrap().unwrap_err().to_string();
        assert!(error.ends_with("part-00000.parquet: row 2, column `prompt_id`: null, wanted a value"), "{error}");
        assert!(reader.next().is_none());
    }
}
