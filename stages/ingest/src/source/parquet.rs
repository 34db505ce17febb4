//! Parquet files of other tools, in whatever text and list types they use.

use std::collections::BTreeSet;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, RecordBatch};
use arrow_schema::DataType;
use kit::Result;
use serde_json::{Number, Value};

use super::{Fields, SourceRow};
use crate::bad_row::BadRow;

/// The rows of a Parquet file.
pub struct Rows {
    batches: Box<dyn Iterator<Item = Result<RecordBatch>>>,
    batch: Option<RecordBatch>,
    /// The next row of the batch.
    at: usize,
    /// Rows handed out.
    rows: u64,
    bytes_per_row: u64,
}

impl Rows {
    pub fn open(path: &Path, wanted: Option<BTreeSet<String>>, bytes: u64) -> Result<Rows> {
        let names: Option<Vec<&str>> = wanted.as_ref().map(|names| names.iter().map(String::as_str).collect());
        let batches = Box::new(kit::read_batches(path, names.as_deref())?);
        let bytes_per_row = bytes / kit::count_rows(path)?.max(1);
        Ok(Rows { batches, batch: None, at: 0, rows: 0, bytes_per_row })
    }
}

impl Iterator for Rows {
    type Item = Result<SourceRow>;

    fn next(&mut self) -> Option<Result<SourceRow>> {
        loop {
            match &self.batch {
                Some(batch) if self.at < batch.num_rows() => {
                    let fields = row(batch, self.at);
                    self.at += 1;
                    self.rows += 1;
                    return Some(Ok(SourceRow { line: self.rows, bytes: self.bytes_per_row, fields }));
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
    columns.map(|(field, column)| Ok((field.name().clone(), value(field.name(), column, row)?))).collect()
}

/// A cell as JSON has it.
fn value(column: &str, array: &dyn Array, row: usize) -> Result<Value, BadRow> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let text = |text: &str| Ok(Value::String(text.to_owned()));
    let float = |number: f64| match Number::from_f64(number) {
        Some(number) => Ok(Value::Number(number)),
        None => Err(BadRow::value(column, number, "a finite number")),
    };
    let list = |items: &dyn Array| (0..items.len()).map(|i| value(column, items, i)).collect::<Result<_, _>>();
    match array.data_type() {
        DataType::Null => Ok(Value::Null),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row)),
        DataType::Utf8View => text(array.as_string_view().value(row)),
        DataType::Boolean => Ok(Value::Bool(array.as_boolean().value(row))),
        DataType::Int8 => Ok(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Ok(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Ok(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Ok(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::UInt8 => Ok(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Ok(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Ok(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Ok(array.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Float32 => float(array.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => float(array.as_primitive::<Float64Type>().value(row)),
        DataType::List(_) => list(&array.as_list::<i32>().value(row)).map(Value::Array),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row)).map(Value::Array),
        DataType::FixedSizeList(..) => list(&array.as_fixed_size_list().value(row)).map(Value::Array),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = value(column, dictionary.keys(), row)?.as_u64().expect("keys of a dictionary count from 0");
            value(column, dictionary.values(), key as usize)
        }
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            columns.map(|(field, inner)| Ok((field.name().clone(), value(column, inner, row)?))).collect()
        }
        other => Err(BadRow::value(column, format!("of the Parquet type {other}"), "text, numbers, lists or structs")),
    }
}
