//! Parquet files of other tools, in whatever text and list types they use.

use std::collections::BTreeSet;
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::DataType;
use kit::Result;
use serde_json::{Value, json};

use super::cells::named;
use super::{Fields, SourceRow};
use crate::bad_row::BadRow;
use crate::column::is_known;

/// The rows of a Parquet file.
pub struct Rows {
    batches: Box<dyn Iterator<Item = Result<RecordBatch>>>,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    at: usize,
    /// Rows handed out.
    rows: u64,
    bytes_per_row: u64,
    /// The columns that are not read; in the first rows, which decide the format, they have their names.
    skipped: Option<Vec<String>>,
}

impl Rows {
    pub fn open(path: &Path, wanted: Option<BTreeSet<String>>, bytes: u64) -> Result<Rows> {
        let all = kit::columns_of(path)?;
        let read = |(name, kind): &(String, DataType)| match &wanted {
            Some(wanted) => wanted.contains(name),
            // Pictures and the like are left where they are, unless their name says that they are text.
            None => is_known(name) || !is_binary(kind),
        };
        let (read, skipped): (Vec<_>, Vec<_>) = all.into_iter().partition(read);
        let names: Vec<&str> = read.iter().map(|(name, _)| name.as_str()).collect();
        let batches = Box::new(kit::read_batches(path, Some(&names))?);
        let bytes_per_row = bytes / kit::count_rows(path)?.max(1);
        let skipped = wanted.is_none().then(|| skipped.into_iter().map(|(name, _)| name).collect());
        Ok(Rows { batches, batch: None, at: 0, rows: 0, bytes_per_row, skipped })
    }
}

impl Iterator for Rows {
    type Item = Result<SourceRow>;

    fn next(&mut self) -> Option<Result<SourceRow>> {
        loop {
            match &self.batch {
                Some(batch) if self.at < batch.num_rows() => {
                    let fields = match &self.skipped {
                        Some(skipped) => Ok(first(batch, self.at, skipped)),
                        None => row(batch, self.at),
                    };
                    self.at += 1;
                    self.rows += 1;
                    let (line, bytes) = (self.rows, self.bytes_per_row);
                    return Some(Ok(SourceRow { line, bytes, length: bytes, fields }));
                }
                _ => match self.batches.next()? {
                    Ok(batch) => (self.batch, self.at) = (Some(batch), 0),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}

fn row(batch: &RecordBatch, row: usize) -> Result<Fields, BadRow> {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    columns.map(|(field, column)| Ok((field.name().clone(), named(field.name(), field, column, row)?))).collect()
}

/// A row of those that decide the format: a cell that cannot be read gives no evidence, and is no empty one.
fn first(batch: &RecordBatch, row: usize, skipped: &[String]) -> Fields {
    let unread = |name: &str| if is_known(name) { Value::Null } else { json!({"unread": null}) };
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    let read = columns.map(|(field, column)| {
        let name = field.name();
        (name, named(name, field, column, row).unwrap_or_else(|_| unread(name)))
    });
    let skipped = skipped.iter().map(|name| (name, unread(name)));
    read.chain(skipped).map(|(name, value)| (name.clone(), value)).collect()
}

fn is_binary(kind: &DataType) -> bool {
    use DataType::{Binary, BinaryView, FixedSizeBinary, LargeBinary, List, Struct};
    match kind {
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => true,
        Struct(fields) => fields.iter().any(|field| is_binary(field.data_type())),
        List(item) => is_binary(item.data_type()),
        _ => false,
    }
}
