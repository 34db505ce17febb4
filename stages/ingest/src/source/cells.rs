//! Cells of Parquet files as JSON has them, in whatever types other tools write text and numbers.

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal32Type, Decimal64Type, Decimal128Type, Decimal256Type, Float16Type, Float32Type, Float64Type, Int8Type,
    Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, StructArray};
use arrow_schema::{DataType, Field, FieldRef, Fields};
use serde_json::{Number, Value, json};

use super::values::{KEPT_AS_TEXT, json_text, read_value};
use crate::bad_row::BadRow;

/// The name of the Arrow type of texts that are JSON.
const JSON: &str = "arrow.json";

fn is_json(field: &Field) -> bool {
    field.metadata().get("ARROW:extension:name").is_some_and(|name| name == JSON)
}

/// A cell of a column or member: lists of tools and of their calls become JSON text, and JSON becomes what it says.
pub fn named(column: &str, field: &Field, array: &ArrayRef, row: usize) -> Result<Value, BadRow> {
    use DataType::{FixedSizeList, LargeList, List, Struct};
    let kept = KEPT_AS_TEXT.contains(&field.name().as_str());
    let nested = matches!(array.data_type(), List(_) | LargeList(_) | FixedSizeList(..) | Struct(_));
    match kept && nested && !array.is_null(row) {
        true => json(column, field, array, row).map(Value::String),
        false if kept => value(column, array, row),
        false => cell(column, field, array, row),
    }
}

/// A cell of a column, a member or a list.
fn cell(column: &str, field: &Field, array: &dyn Array, row: usize) -> Result<Value, BadRow> {
    match value(column, array, row)? {
        Value::String(text) if is_json(field) => {
            read_value(&text).map_err(|error| BadRow::value(column, format!("JSON that is none ({error})"), "JSON"))
        }
        value => Ok(value),
    }
}

/// A cell. NaN is null, as in files of pandas; an infinity is what neither columns of numbers nor of texts take.
///
/// # Errors
/// When its type is neither text nor a number, a truth value, or lists and structs of them.
fn value(column: &str, array: &dyn Array, row: usize) -> Result<Value, BadRow> {
    if array.is_null(row) {
        return Ok(Value::Null);
    }
    let text = |text: &str| Ok(Value::String(text.to_owned()));
    let bytes = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Value::String(text.to_owned())),
        Err(_) => Err(BadRow::value(column, format!("{} bytes that are not UTF-8", bytes.len()), "text")),
    };
    let list = |item: &Field, items: ArrayRef| {
        let items = (0..items.len()).map(|at| cell(column, item, &items, at));
        items.collect::<Result<Vec<_>, _>>().map(Value::Array)
    };
    match array.data_type() {
        DataType::Null => Ok(Value::Null),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row)),
        DataType::Utf8View => text(array.as_string_view().value(row)),
        DataType::Binary => bytes(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => bytes(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => bytes(array.as_fixed_size_binary().value(row)),
        DataType::Boolean => Ok(Value::Bool(array.as_boolean().value(row))),
        DataType::Int8 => Ok(array.as_primitive::<Int8Type>().value(row).into()),
        DataType::Int16 => Ok(array.as_primitive::<Int16Type>().value(row).into()),
        DataType::Int32 => Ok(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Int64 => Ok(array.as_primitive::<Int64Type>().value(row).into()),
        DataType::UInt8 => Ok(array.as_primitive::<UInt8Type>().value(row).into()),
        DataType::UInt16 => Ok(array.as_primitive::<UInt16Type>().value(row).into()),
        DataType::UInt32 => Ok(array.as_primitive::<UInt32Type>().value(row).into()),
        DataType::UInt64 => Ok(array.as_primitive::<UInt64Type>().value(row).into()),
        DataType::Float16 => Ok(float(array.as_primitive::<Float16Type>().value(row).into())),
        DataType::Float32 => Ok(float(array.as_primitive::<Float32Type>().value(row).into())),
        DataType::Float64 => Ok(float(array.as_primitive::<Float64Type>().value(row))),
        DataType::Decimal32(..) => Ok(decimal(&array.as_primitive::<Decimal32Type>().value_as_string(row))),
        DataType::Decimal64(..) => Ok(decimal(&array.as_primitive::<Decimal64Type>().value_as_string(row))),
        DataType::Decimal128(..) => Ok(decimal(&array.as_primitive::<Decimal128Type>().value_as_string(row))),
        DataType::Decimal256(..) => Ok(decimal(&array.as_primitive::<Decimal256Type>().value_as_string(row))),
        DataType::List(item) => list(item, array.as_list::<i32>().value(row)),
        DataType::LargeList(item) => list(item, array.as_list::<i64>().value(row)),
        DataType::ListView(item) => list(item, array.as_list_view::<i32>().value(row)),
        DataType::LargeListView(item) => list(item, array.as_list_view::<i64>().value(row)),
        DataType::FixedSizeList(item, _) => list(item, array.as_fixed_size_list().value(row)),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = value(column, dictionary.keys(), row)?.as_u64().expect("keys of a dictionary count from 0");
            value(column, dictionary.values(), key as usize)
        }
        DataType::Struct(fields) => {
            let members = fields.iter().zip(array.as_struct().columns());
            let member =
                |(field, inner): (&FieldRef, &ArrayRef)| Ok((field.name().clone(), named(column, field, inner, row)?));
            members.map(member).collect::<Result<_, _>>().map(Value::Object)
        }
        other => Err(BadRow::value(column, format!("of the Parquet type {other}"), "text, numbers, lists or structs")),
    }
}

/// A cell as JSON text whose keys stand in the order of the columns. Absent members of structs are left out: Parquet
/// gives every call the arguments of all.
fn json(column: &str, field: &Field, array: &dyn Array, row: usize) -> Result<String, BadRow> {
    let items = |item: &Field, items: &dyn Array| {
        (0..items.len()).map(|at| json(column, item, items, at)).collect::<Result<Vec<_>, _>>()
    };
    Ok(match array.data_type() {
        _ if array.is_null(row) => "null".to_owned(),
        DataType::List(item) => format!("[{}]", items(item, &array.as_list::<i32>().value(row))?.join(",")),
        DataType::LargeList(item) => format!("[{}]", items(item, &array.as_list::<i64>().value(row))?.join(",")),
        DataType::FixedSizeList(item, _) => {
            format!("[{}]", items(item, &array.as_fixed_size_list().value(row))?.join(","))
        }
        DataType::Struct(fields) => format!("{{{}}}", members(column, fields, array.as_struct(), row)?.join(",")),
        _ => match value(column, array, row)? {
            // It is JSON already.
            Value::String(text) if is_json(field) => json_text(column, &text, "")?,
            value => value.to_string(),
        },
    })
}

fn members(column: &str, fields: &Fields, structs: &StructArray, row: usize) -> Result<Vec<String>, BadRow> {
    let present = fields.iter().zip(structs.columns()).filter(|(_, inner)| !inner.is_null(row));
    present
        .map(|(field, inner)| {
            Ok(format!("{}:{}", Value::from(field.name().as_str()), json(column, field, inner, row)?))
        })
        .collect()
}

fn float(number: f64) -> Value {
    match Number::from_f64(number) {
        Some(number) => Value::Number(number),
        None if number.is_nan() => Value::Null,
        None if number > 0.0 => json!({"Infinity": null}),
        None => json!({"-Infinity": null}),
    }
}

fn decimal(text: &str) -> Value {
    match text.parse::<i64>() {
        Ok(whole) => whole.into(),
        Err(_) => float(text.parse().expect("a decimal is a number")),
    }
}
