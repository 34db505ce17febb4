//! Rows as Rust structs, columns as Arrow arrays, and the way between them.

use std::sync::Arc;

use arrow_array::builder::{Float32Builder, Float64Builder, ListBuilder, UInt32Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float32Array, Float64Array, RecordBatch, StringArray, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field};

use crate::contract::port::Table;

/// A row type of a table.
pub trait Row: Sized + Send + 'static {
    /// The table it belongs to.
    const TABLE: Table;
    /// The columns, in order; a nullable one is optional in files that come from elsewhere.
    fn fields() -> Vec<Field>;
    /// The columns of some rows.
    fn to_arrays(rows: &[Self]) -> Vec<ArrayRef>;
    /// The rows of a batch that has every column of [`Row::fields`] in its type.
    ///
    /// # Errors
    /// The row number in the batch and the column where a value is missing.
    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>, Missing>;
}

/// A null where a value has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The row's number in its batch.
    pub row: usize,
    /// The column.
    pub column: &'static str,
}

/// A value in a column.
pub trait Cell: Sized {
    /// True where the column may hold nulls.
    const NULLABLE: bool;
    /// The Arrow type of the column.
    fn data_type() -> DataType;
    /// A column of cells.
    fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef
    where
        Self: 'a;
    /// The cell at a row of a column of [`Cell::data_type`]; nothing where it is null and may not be.
    fn get(array: &dyn Array, row: usize) -> Option<Self>;
}

macro_rules! plain_cell {
    ($type:ty, $data_type:expr, $array:ty, $get:expr) => {
        impl Cell for $type {
            const NULLABLE: bool = false;
            fn data_type() -> DataType {
                $data_type
            }
            fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(<$array>::from(cells.cloned().collect::<Vec<$type>>()))
            }
            fn get(array: &dyn Array, row: usize) -> Option<Self> {
                let get: fn(&dyn Array, usize) -> $type = $get;
                (!array.is_null(row)).then(|| get(array, row))
            }
        }
        impl Cell for Option<$type> {
            const NULLABLE: bool = true;
            fn data_type() -> DataType {
                $data_type
            }
            fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
                Arc::new(cells.cloned().collect::<Vec<Option<$type>>>().into_iter().collect::<$array>())
            }
            fn get(array: &dyn Array, row: usize) -> Option<Self> {
                Some(<$type as Cell>::get(array, row))
            }
        }
    };
}

plain_cell!(String, DataType::Utf8, StringArray, |array, row| array.as_string::<i32>().value(row).to_owned());
plain_cell!(f64, DataType::Float64, Float64Array, |array, row| array.as_primitive::<Float64Type>().value(row));
plain_cell!(f32, DataType::Float32, Float32Array, |array, row| array.as_primitive::<Float32Type>().value(row));
plain_cell!(u32, DataType::UInt32, UInt32Array, |array, row| array.as_primitive::<UInt32Type>().value(row));
plain_cell!(u64, DataType::UInt64, UInt64Array, |array, row| array.as_primitive::<UInt64Type>().value(row));
plain_cell!(bool, DataType::Boolean, BooleanArray, |array, row| array.as_boolean().value(row));

macro_rules! list_cell {
    ($type:ty, $data_type:expr, $builder:ty, $arrow:ty) => {
        impl Cell for Vec<$type> {
            const NULLABLE: bool = false;
            fn data_type() -> DataType {
                DataType::List(Arc::new(Field::new("item", $data_type, false)))
            }
            fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
                let mut lists = ListBuilder::new(<$builder>::new()).with_field(Field::new("item", $data_type, false));
                for cell in cells {
                    lists.values().append_slice(cell);
                    lists.append(true);
                }
                Arc::new(lists.finish())
            }
            fn get(array: &dyn Array, row: usize) -> Option<Self> {
                let values = (!array.is_null(row)).then(|| array.as_list::<i32>().value(row))?;
                (values.null_count() == 0).then(|| values.as_primitive::<$arrow>().values().to_vec())
            }
        }
    };
}

list_cell!(f32, DataType::Float32, Float32Builder, Float32Type);
list_cell!(f64, DataType::Float64, Float64Builder, Float64Type);
list_cell!(u32, DataType::UInt32, UInt32Builder, UInt32Type);

/// Declares the row types of tables: a struct, its columns and the way to and from Arrow.
macro_rules! rows {
    ($(
        $(#[$doc:meta])*
        $name:ident in $table:ident {
            $( $(#[$field_doc:meta])* $field:ident $(as $column:literal)? : $type:ty, )*
        }
    )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $( $(#[$field_doc])* pub $field: $type, )* }

        impl $crate::table::row::Row for $name {
            const TABLE: $crate::contract::port::Table = $crate::contract::port::Table::$table;

            fn fields() -> Vec<arrow_schema::Field> {
                vec![ $( arrow_schema::Field::new(
                    rows!(@column $field $($column)?),
                    <$type as $crate::table::row::Cell>::data_type(),
                    <$type as $crate::table::row::Cell>::NULLABLE,
                ), )* ]
            }

            fn to_arrays(rows: &[Self]) -> Vec<arrow_array::ArrayRef> {
                vec![ $( <$type as $crate::table::row::Cell>::to_array(rows.iter().map(|row| &row.$field)), )* ]
            }

            fn from_batch(batch: &arrow_array::RecordBatch) -> Result<Vec<Self>, $crate::table::row::Missing> {
                (0..batch.num_rows()).map(|row| {
                    let mut columns = batch.columns().iter();
                    Ok($name { $( $field: {
                        let column = columns.next().expect("a batch has the columns of its schema");
                        <$type as $crate::table::row::Cell>::get(column, row)
                            .ok_or($crate::table::row::Missing { row, column: rows!(@column $field $($column)?) })?
                    }, )* })
                }).collect()
            }
        }
    )* };
    (@column $field:ident $column:literal) => { $column };
    (@column $field:ident) => { stringify!($field) };
}
pub(crate) use rows;
