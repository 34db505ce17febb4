//! Writing a table from columns.

use std::path::Path;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_select::concat::concat_batches;

use crate::error::{Error, Result};
use crate::table::row::Row;
use crate::table::write::{ROWS_HELD, TableWriter, schema_of};

/// Writes a table as one stream of columns, in the bytes that a [`TableWriter`] gives the same rows.
pub struct ColumnWriter<R: Row> {
    writer: TableWriter<R>,
    /// Fewer rows than are encoded at once.
    held: Vec<RecordBatch>,
}

impl<R: Row> ColumnWriter<R> {
    /// A writer into an empty port folder.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn create(folder: &Path) -> Result<ColumnWriter<R>> {
        Ok(ColumnWriter { writer: TableWriter::create(folder)?, held: Vec::new() })
    }

    /// Adds some rows: the columns of [`Row::fields`], in order.
    ///
    /// # Errors
    /// When earlier rows could not be written.
    pub fn push(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let mut batch = RecordBatch::try_new(schema_of::<R>(), columns).map_err(internal)?;
        loop {
            let held: usize = self.held.iter().map(RecordBatch::num_rows).sum();
            let room = ROWS_HELD - held;
            if batch.num_rows() < room {
                self.held.push(batch);
                return Ok(());
            }
            self.held.push(batch.slice(0, room));
            batch = batch.slice(room, batch.num_rows() - room);
            self.send()?;
        }
    }

    /// Commits what is left; a table without rows has one empty part that shows its columns.
    ///
    /// # Errors
    /// When a row or the part could not be written.
    pub fn finish(mut self) -> Result<()> {
        self.send()?;
        self.writer.finish()
    }

    fn send(&mut self) -> Result<()> {
        let held = concat_batches(&schema_of::<R>(), &self.held).map_err(internal)?;
        self.held.clear();
        if held.num_rows() > 0 { self.writer.push_batch(held) } else { Ok(()) }
    }
}

fn internal(error: arrow_schema::ArrowError) -> Error {
    Error::internal(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::port::Table;
    use crate::table::rows::{Message, Prompt};
    use crate::table::write::{ROWS_PER_PART, read_port};

    #[test]
    fn columns_make_the_bytes_that_rows_make() {
        let folder = tempfile::tempdir().unwrap();
        let (by_rows, by_columns) = (folder.path().join("rows"), folder.path().join("columns"));
        // Texts of several pages a row group, in lists of several lengths; more rows than a part has.
        for rows in [0, 5, 3 * ROWS_HELD, ROWS_PER_PART + 1500] {
            let prompt = |number: usize| Prompt {
                prompt_id: format!("p{number}"),
                messages: vec![Message::new("user", "word ".repeat(number % 97)); number % 4],
                source_file: (!number.is_multiple_of(3)).then(|| "data.jsonl".to_owned()),
                source_line: (!number.is_multiple_of(5)).then_some(number as u64),
            };
            let rows: Vec<Prompt> = (0..rows).map(prompt).collect();
            let mut writer = TableWriter::create(&by_rows).unwrap();
            writer.extend(rows.clone()).unwrap();
            writer.finish().unwrap();
            let mut writer = ColumnWriter::<Prompt>::create(&by_columns).unwrap();
            let (mut rest, mut size) = (&rows[..], 1);
            while !rest.is_empty() {
                let (some, more) = rest.split_at(rest.len().min(size));
                writer.push(Prompt::to_arrays(some)).unwrap();
                (rest, size) = (more, size * 7 % 4999 + 1);
            }
            writer.finish().unwrap();
            let files = |folder| read_port(folder, Table::Prompts).unwrap();
            assert_eq!(files(&by_columns), files(&by_rows), "{} rows", rows.len());
        }
    }
}
