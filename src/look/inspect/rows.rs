//! The rows of a table on disk, of any columns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use arrow_schema::DataType;
use kit::{Error, Result};
use serde_json::{Map, Value};

use super::cells;

/// A table on disk.
pub struct Rows {
    /// Its parts, by name.
    pub parts: Vec<PathBuf>,
    pub columns: Vec<(String, DataType)>,
    /// Its number of rows.
    pub count: u64,
}

/// A row with its number, from 1.
pub struct Row {
    /// Its number in the table.
    pub number: u64,
    /// Its cells, in the order of the columns.
    pub cells: Vec<Value>,
}

impl Rows {
    /// Opens a folder of parts or a single file.
    ///
    /// # Errors
    /// When it is not Parquet.
    pub fn open(path: &Path) -> Result<Rows> {
        Ok(Rows { parts: kit::parts_of(path)?, columns: kit::columns_of(path)?, count: kit::rows_of(path)? })
    }

    /// The number of a column.
    ///
    /// # Errors
    /// When there is none of that name; the nearest is named.
    pub fn column(&self, name: &str) -> crate::error::Result<usize> {
        self.columns.iter().position(|(column, _)| column == name).ok_or_else(|| {
            let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
            let near = crate::pipeline::problem::did_you_mean(name, names.iter().copied());
            let near = if near.is_empty() { format!("; there are {}", names.join(", ")) } else { near };
            crate::error::Error::Usage(format!("there is no column `{name}`{near}"))
        })
    }

    /// Hands over the rows whose cells pass, until `take` has enough.
    ///
    /// # Errors
    /// When a part is torn.
    pub fn each(&self, passes: impl Fn(&[Value]) -> bool, mut take: impl FnMut(Row) -> bool) -> Result<()> {
        let mut number = 0;
        for part in &self.parts {
            for batch in kit::read_batches(part, None)? {
                for cells in cells::rows(&batch?)? {
                    number += 1;
                    if passes(&cells) && !take(Row { number, cells }) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// The first `limit` rows with the cells of these columns; a column that is not there has empty cells. Nothing else
    /// is read.
    ///
    /// # Errors
    /// When a part is torn.
    pub fn first(&self, columns: &[&str], limit: usize) -> Result<Vec<Vec<Value>>> {
        let mut rows = Vec::new();
        self.narrow(columns, limit, |cells| rows.push(cells))?;
        Ok(rows)
    }

    /// Hands over the cells of these columns of every row, as [`Rows::first`] does.
    ///
    /// # Errors
    /// When a part is torn.
    pub fn each_of(&self, columns: &[&str], take: impl FnMut(Vec<Value>)) -> Result<()> {
        self.narrow(columns, usize::MAX, take)
    }

    fn narrow(&self, columns: &[&str], limit: usize, mut take: impl FnMut(Vec<Value>)) -> Result<()> {
        let mut left = limit;
        for part in &self.parts {
            for batch in kit::read_batches(part, Some(columns))? {
                let batch = batch?;
                let schema = batch.schema();
                let places: Vec<Option<usize>> = columns.iter().map(|name| schema.index_of(name).ok()).collect();
                for mut cells in cells::rows(&batch.slice(0, batch.num_rows().min(left)))? {
                    left -= 1;
                    take(places.iter().map(|place| place.map_or(Value::Null, |at| cells[at].take())).collect());
                }
                if left == 0 {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The rows whose text columns are as wanted, with all of their cells. `wanted` gets the cells of `columns`; a null
    /// is an empty text. Other columns are read only where a part has such rows.
    ///
    /// # Errors
    /// When a part is torn.
    pub fn matching(&self, columns: &[&str], wanted: impl Fn(&[&str]) -> bool) -> Result<Vec<Row>> {
        let mut found = Vec::new();
        let mut before = 0;
        for part in &self.parts {
            let mut here = BTreeSet::new();
            let mut count = 0;
            for batch in kit::read_batches(part, Some(columns))? {
                let batch = batch?;
                let schema = batch.schema();
                let places: Vec<Option<usize>> = columns.iter().map(|name| schema.index_of(name).ok()).collect();
                for cells in cells::rows(&batch)? {
                    let text = |place: &Option<usize>| place.and_then(|at| cells[at].as_str()).unwrap_or_default();
                    let texts: Vec<&str> = places.iter().map(text).collect();
                    if wanted(&texts) {
                        here.insert(count);
                    }
                    count += 1;
                }
            }
            let mut first = 0;
            let batches = if here.is_empty() { None } else { Some(kit::read_batches(part, None)?) };
            for batch in batches.into_iter().flatten() {
                let batch = batch?;
                for &row in here.range(first..first + batch.num_rows()) {
                    let cells = cells::rows(&batch.slice(row - first, 1))?.remove(0);
                    found.push(Row { number: before + row as u64 + 1, cells });
                }
                first += batch.num_rows();
            }
            before += count as u64;
        }
        Ok(found)
    }

    /// A row as a JSON object.
    pub fn object(&self, row: &Row) -> Value {
        let pairs = self.columns.iter().zip(&row.cells).map(|((name, _), cell)| (name.clone(), cell.clone()));
        Value::Object(pairs.collect::<Map<_, _>>())
    }

    /// Bytes on disk.
    ///
    /// # Errors
    /// When a part is gone.
    pub fn bytes(&self) -> Result<u64> {
        self.parts.iter().map(|part| Ok(part.metadata().map_err(Error::io(part))?.len())).sum()
    }
}
