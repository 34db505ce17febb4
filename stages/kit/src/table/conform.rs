//! Columns of other tools in the types of ours.

use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array};
use arrow_cast::{CastOptions, cast, cast_with_options};
use arrow_schema::{DataType, Field, Fields};

use crate::error::{Error, Result};

/// The columns of some fields, in their order and types. Absent optional columns become nulls; other tools' text and
/// number types are cast where nothing is lost.
pub(super) fn conform(batch: &RecordBatch, fields: &[Field], path: &Path) -> Result<RecordBatch> {
    let columns = fields.iter().map(|field| conform_column(batch, field, path)).collect::<Result<Vec<_>>>()?;
    let fields: Vec<Field> = fields.iter().map(|field| field.clone().with_nullable(true)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(arrow_schema::Schema::new(fields)), columns, &options)
        .map_err(|error| Error::internal(format!("{}: {error}", path.display())))
}

fn conform_column(batch: &RecordBatch, field: &Field, path: &Path) -> Result<ArrayRef> {
    let Some(column) = batch.column_by_name(field.name()) else {
        return Ok(new_null_array(field.data_type(), batch.num_rows()));
    };
    if column.data_type() == field.data_type() {
        return Ok(column.clone());
    }
    let wrong = || {
        Error::data(format!(
            "{}: column `{}` is {}, wanted {}",
            path.display(),
            field.name(),
            column.data_type(),
            field.data_type()
        ))
    };
    if !alike(column.data_type(), field.data_type()) {
        return Err(wrong());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let column = arranged(column, field.data_type());
    cast_with_options(&column, field.data_type(), &options).map_err(|_| wrong())
}

/// A list of structs with the fields in the order wanted; those that may be null are null where the column lacks them.
fn arranged(column: &ArrayRef, wanted: &DataType) -> ArrayRef {
    let DataType::List(wanted) = wanted else { return column.clone() };
    let lists = items_of(column.data_type()).and_then(|item| cast(column, &DataType::List(item)).ok());
    let Some((lists, DataType::Struct(wanted))) = lists.map(|lists| (lists, wanted.data_type())) else {
        return column.clone();
    };
    let lists = lists.as_list::<i32>();
    let Some(structs) = lists.values().as_struct_opt() else { return column.clone() };
    let absent = |field: &Field| new_null_array(field.data_type(), structs.len());
    let column_of = |field: &Field| structs.column_by_name(field.name()).cloned().unwrap_or_else(|| absent(field));
    let columns: Vec<ArrayRef> = wanted.iter().map(|field| column_of(field)).collect();
    let nullable =
        |(field, column): (&Arc<Field>, &ArrayRef)| Field::new(field.name(), column.data_type().clone(), true);
    let fields = Fields::from_iter(wanted.iter().zip(&columns).map(nullable));
    let structs = StructArray::new(fields, columns, structs.nulls().cloned());
    let item = Arc::new(Field::new("item", structs.data_type().clone(), true));
    Arc::new(ListArray::new(item, lists.offsets().clone(), Arc::new(structs), lists.nulls().cloned()))
}

/// The items of a type that is a list.
fn items_of(data_type: &DataType) -> Option<Arc<Field>> {
    use DataType::{FixedSizeList, LargeList, List, ListView};
    match data_type {
        List(item) | LargeList(item) | FixedSizeList(item, _) | ListView(item) => Some(item.clone()),
        _ => None,
    }
}

/// True where a cast between the types keeps the meaning: text to text, number to number, list to list.
fn alike(got: &DataType, wanted: &DataType) -> bool {
    use DataType::{Boolean, Dictionary, LargeUtf8, Null, Struct, Utf8, Utf8View};
    match (got, wanted) {
        (Null, _) | (Boolean, Boolean) => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8) => true,
        (Dictionary(_, value), wanted) => alike(value, wanted),
        (Struct(got), Struct(wanted)) => {
            let fits = |wanted: &Field| match got.find(wanted.name()) {
                Some((_, got)) => alike(got.data_type(), wanted.data_type()),
                None => wanted.is_nullable(),
            };
            got.iter().all(|got| wanted.find(got.name()).is_some()) && wanted.iter().all(|wanted| fits(wanted))
        }
        (got, wanted) if got.is_integer() => wanted.is_integer() || wanted.is_floating(),
        (got, wanted) if got.is_floating() => wanted.is_floating(),
        (got, wanted) => {
            items_of(got).zip(items_of(wanted)).is_some_and(|(got, wanted)| alike(got.data_type(), wanted.data_type()))
        }
    }
}
