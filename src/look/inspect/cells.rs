//! Cells of any Arrow column as JSON values.

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type, Int64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, make_array};
use arrow_cast::cast;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;
use kit::{Error, Result};
use serde_json::{Map, Number, Value};

/// The zone in which moments are shown.
const UTC: &str = "+00:00";

/// The rows of a batch, each a JSON object in the order of the columns.
///
/// # Errors
/// When a column's type has no values that can be shown.
pub fn rows(batch: &RecordBatch) -> Result<Vec<Vec<Value>>> {
    let columns: Vec<Vec<Value>> = batch.columns().iter().map(column).collect::<Result<_>>()?;
    Ok((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()).collect())
}

fn column(array: &ArrayRef) -> Result<Vec<Value>> {
    let unreadable = |error: arrow_schema::ArrowError| Error::data(error.to_string());
    let present = |value: fn(&ArrayRef, usize) -> Value, array: &ArrayRef| -> Vec<Value> {
        (0..array.len()).map(|row| if array.is_null(row) { Value::Null } else { value(array, row) }).collect()
    };
    Ok(match array.data_type() {
        DataType::Null => vec![Value::Null; array.len()],
        DataType::Boolean => present(|array, row| array.as_boolean().value(row).into(), array),
        DataType::Float16 => {
            present(|array, row| float(f64::from(array.as_primitive::<Float16Type>().value(row))), array)
        }
        // The shortest text of the f32 itself, not of its neighbour in f64.
        DataType::Float32 => present(
            |array, row| float(array.as_primitive::<Float32Type>().value(row).to_string().parse().unwrap_or(f64::NAN)),
            array,
        ),
        DataType::Float64 => present(|array, row| float(array.as_primitive::<Float64Type>().value(row)), array),
        kind if kind.is_unsigned_integer() => {
            let array = cast(array, &DataType::UInt64).map_err(unreadable)?;
            present(|array, row| array.as_primitive::<UInt64Type>().value(row).into(), &array)
        }
        kind if kind.is_signed_integer() => {
            let array = cast(array, &DataType::Int64).map_err(unreadable)?;
            present(|array, row| array.as_primitive::<Int64Type>().value(row).into(), &array)
        }
        DataType::Utf8 => present(|array, row| array.as_string::<i32>().value(row).into(), array),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            column(&cast(array, &DataType::Utf8).map_err(unreadable)?)?
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let items = column(lists.values())?;
            let offsets = lists.value_offsets();
            let list = |row: usize| items[offsets[row] as usize..offsets[row + 1] as usize].to_vec();
            (0..array.len()).map(|row| if array.is_null(row) { Value::Null } else { list(row).into() }).collect()
        }
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) => {
            column(&cast(array, &DataType::List(item.clone())).map_err(unreadable)?)?
        }
        DataType::Struct(fields) => {
            let array = array.as_struct();
            let columns: Vec<Vec<Value>> = array.columns().iter().map(column).collect::<Result<_>>()?;
            // Most messages have nothing but their role and content.
            let shown = |name: &str, cell: &Value| name != "extra" || !cell.is_null();
            let object = |row: usize| -> Map<String, Value> {
                let cells =
                    fields.iter().zip(&columns).map(|(field, column)| (field.name().clone(), column[row].clone()));
                cells.filter(|(name, cell)| shown(name, cell)).collect()
            };
            (0..array.len()).map(|row| if array.is_null(row) { Value::Null } else { object(row).into() }).collect()
        }
        // The moment is the same in every zone, and the names of zones are not known here: UTC.
        DataType::Timestamp(unit, Some(zone)) if **zone != *UTC => {
            let in_utc = DataType::Timestamp(*unit, Some(UTC.into()));
            let data = array.to_data().into_builder().data_type(in_utc).build().map_err(unreadable)?;
            column(&make_array(data))?
        }
        _ => {
            let formatter = ArrayFormatter::try_new(array, &FormatOptions::default()).map_err(unreadable)?;
            (0..array.len())
                .map(|row| if array.is_null(row) { Value::Null } else { formatter.value(row).to_string().into() })
                .collect()
        }
    })
}

/// JSON has no infinities; they are shown as text.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(value.to_string()), Value::Number)
}

/// The text of a cell that is text or a conversation.
pub fn is_text(cell: &Value) -> Option<String> {
    match cell {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) => {
            let contents: Option<Vec<&str>> = items.iter().map(|item| item.get("content")?.as_str()).collect();
            contents.filter(|contents| !contents.is_empty()).map(|contents| contents.join("\n"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::TimestampMillisecondArray;

    use super::*;

    #[test]
    fn moments_are_shown_in_utc_whatever_their_zone() {
        // 2026-07-01T10:30:00Z, which is another hour in each of these.
        let moments = || TimestampMillisecondArray::from(vec![Some(1_782_901_800_000), None]);
        for zone in ["UTC", "+00:00", "+05:30", "Europe/Zurich", "America/New_York", "no such zone"] {
            let array: ArrayRef = Arc::new(moments().with_timezone(zone));
            assert_eq!(column(&array).unwrap(), [Value::from("2026-07-01T10:30:00Z"), Value::Null], "{zone}");
        }
        let array: ArrayRef = Arc::new(moments());
        assert_eq!(column(&array).unwrap()[0], "2026-07-01T10:30:00");
    }
}
