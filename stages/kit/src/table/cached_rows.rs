//! Rows kept in columns, and given out in any order.

use std::collections::BTreeMap;

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch};
use arrow_select::filter::filter_record_batch;
use arrow_select::interleave::interleave;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::table::read::BatchReader;

/// Some rows of a table, read once into compact columns and given out in any order.
///
/// Rows go by their number in the table, from 0, over all its sources.
#[derive(Debug, Default)]
pub struct CachedRows {
    columns: BTreeMap<String, Vec<ArrayRef>>,
    batches: usize,
    /// The rows with their places, by row.
    rows: Vec<(u32, Place)>,
}

/// Some rows, and their batch.
type Kept = (Vec<u32>, RecordBatch);

/// The place of a cached row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    batch: u32,
    at: u32,
}

impl CachedRows {
    /// Reads a table, by all threads, and holds the rows that are wanted, in the columns that the reader reads.
    ///
    /// # Errors
    /// When the table cannot be read, or has another number of rows than `wanted`.
    pub fn read(reader: BatchReader, wanted: &[bool]) -> Result<CachedRows> {
        let table = reader.table();
        let changed = || Error::data(format!("{table}: changed while read"));
        let pieces = reader.split()?;
        let read = |(first, reader): (usize, BatchReader)| {
            let (mut row, mut kept) = (first, Vec::new());
            for batch in reader {
                let batch = batch?.batch;
                let keep = wanted.get(row..row + batch.num_rows()).ok_or_else(changed)?;
                if keep.contains(&true) {
                    let rows: Vec<u32> = (row as u32..).zip(keep).filter(|row| *row.1).map(|row| row.0).collect();
                    let keep = BooleanArray::from(keep.to_vec());
                    let batch = filter_record_batch(&batch, &keep);
                    kept.push((rows, batch.map_err(|error| Error::internal(error.to_string()))?));
                }
                row += batch.num_rows();
            }
            Ok((row, kept))
        };
        let pieces: Vec<Result<(usize, Vec<Kept>)>> = pieces.into_par_iter().map(read).collect();
        let mut cached = CachedRows::default();
        let mut rows = 0;
        for piece in pieces {
            let (end, batches) = piece?;
            rows = end;
            batches.into_iter().for_each(|(rows, batch)| cached.add(&rows, &batch));
        }
        if rows == wanted.len() { Ok(cached.sorted()) } else { Err(changed()) }
    }

    /// Adds a batch, whose rows these are.
    pub(super) fn add(&mut self, rows: &[u32], batch: &RecordBatch) {
        let number = self.batches as u32;
        self.batches += 1;
        self.rows.extend(rows.iter().zip(0..).map(|(row, at)| (*row, Place { batch: number, at })));
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            self.columns.entry(field.name().clone()).or_default().push(column.clone());
        }
    }

    /// With all rows added, so that they can be found.
    pub(super) fn sorted(mut self) -> CachedRows {
        self.rows.sort_unstable();
        self
    }

    /// The places of some rows, in their order.
    ///
    /// # Panics
    /// When a row is not cached.
    pub fn places(&self, rows: impl IntoIterator<Item = u32>) -> Vec<Place> {
        let find = |row: u32| self.rows.binary_search_by_key(&row, |known| known.0).expect("the row is cached");
        rows.into_iter().map(|row| self.rows[find(row)].1).collect()
    }

    /// A column at some places, in their order.
    ///
    /// # Errors
    /// When the requested rows are more than one array can hold (2 GiB of text).
    ///
    /// # Panics
    /// When a column is not cached.
    pub fn gather(&self, column: &str, places: &[Place]) -> Result<ArrayRef> {
        let places: Vec<_> = places.iter().map(|place| (place.batch as usize, place.at as usize)).collect();
        interleave(&self.arrays(&[column]), &places).map_err(|error| Error::data(format!("column `{column}`: {error}")))
    }

    /// A column at some places, or the other column of the same type where it says so beside the place.
    ///
    /// # Errors
    /// As [`CachedRows::gather`].
    ///
    /// # Panics
    /// As [`CachedRows::gather`].
    pub fn gather_either(&self, column: &str, other: &str, places: &[(Place, bool)]) -> Result<ArrayRef> {
        let places = places
            .iter()
            .map(|&(place, other)| (place.batch as usize + if other { self.batches } else { 0 }, place.at as usize));
        let places: Vec<_> = places.collect();
        interleave(&self.arrays(&[column, other]), &places)
            .map_err(|error| Error::data(format!("columns `{column}` and `{other}`: {error}")))
    }

    fn arrays(&self, columns: &[&str]) -> Vec<&dyn Array> {
        columns.iter().flat_map(|&column| self.columns[column].iter().map(AsRef::as_ref)).collect()
    }
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
        let cached = CachedRows::read(BatchReader::open::<Prompt>(&[folder.path()]).unwrap(), &wanted).unwrap();
        let order: Vec<u32> = (0..9000).map(|row| (row * 7919) % 9000).filter(|&row| wanted[row as usize]).collect();
        let columns = ["prompt_id", "messages", "source_file", "source_line"];
        let places = cached.places(order.iter().copied());
        let gathered = columns.iter().map(|column| cached.gather(column, &places).unwrap()).collect();
        let out = tempfile::tempdir().unwrap();
        write_columns::<Prompt>(out.path(), 0, [Ok(gathered)]).unwrap();
        let read = crate::table::read::read_rows::<Prompt>(out.path()).unwrap();
        assert!(read.iter().zip(&order).all(|(row, &at)| *row == rows[at as usize]));
        let either: Vec<_> = places.into_iter().zip(&order).map(|(place, row)| (place, row % 2 == 0)).collect();
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
        let mut reader = BatchReader::open::<Embedding>(&[&path]).unwrap().only(&["embedding"]);
        assert_eq!(reader.next().unwrap().unwrap().batch.num_columns(), 1);
        let mut reader = BatchReader::open::<Embedding>(&[&path]).unwrap().only(&["prompt_id"]);
        let error = reader.next().unwrap().unwrap_err().to_string();
        assert!(error.ends_with("part-00000.parquet: row 2, column `prompt_id`: null, wanted a value"), "{error}");
        assert!(reader.next().is_none());
    }
}
