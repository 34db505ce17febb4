//! Lists of structs as columns: the messages of a conversation, the losses of a mixture.

use std::sync::Arc;

use arrow_array::builder::{Float64Builder, ListBuilder, StringBuilder, StructBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, Field, Fields};

use crate::table::row::Cell;
use crate::table::rows::{LossPart, Message};

fn message_fields() -> Fields {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Fields::from(vec![text("role", false), text("content", false), text("extra", true)])
}

impl Cell for Vec<Message> {
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new("item", DataType::Struct(message_fields()), false)))
    }

    fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
        let message = StructBuilder::from_fields(message_fields(), 0);
        let mut lists =
            ListBuilder::new(message).with_field(Field::new("item", DataType::Struct(message_fields()), false));
        for cell in cells {
            for message in cell {
                let fields = lists.values();
                fields.field_builder::<StringBuilder>(0).expect("role is text").append_value(&message.role);
                fields.field_builder::<StringBuilder>(1).expect("content is text").append_value(&message.content);
                fields.field_builder::<StringBuilder>(2).expect("extra is text").append_option(message.extra.as_ref());
                fields.append(true);
            }
            lists.append(true);
        }
        Arc::new(lists.finish())
    }

    fn get(array: &dyn Array, row: usize) -> Option<Self> {
        if array.is_null(row) {
            return None;
        }
        let values = array.as_list::<i32>().value(row);
        let fields = values.as_struct();
        let [role, content, extra] = [0, 1, 2].map(|at| fields.column(at));
        let message = |i| {
            let (role, content) = (String::get(role, i)?, String::get(content, i)?);
            Some(Message { role, content, extra: Option::get(extra, i)? })
        };
        (0..fields.len()).map(message).collect()
    }
}

fn loss_part_fields() -> Fields {
    Fields::from(vec![Field::new("name", DataType::Utf8, false), Field::new("loss", DataType::Float64, false)])
}

impl Cell for Vec<LossPart> {
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new("item", DataType::Struct(loss_part_fields()), false)))
    }

    fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
        let part = StructBuilder::new(
            loss_part_fields(),
            vec![Box::new(StringBuilder::new()), Box::new(Float64Builder::new())],
        );
        let mut lists =
            ListBuilder::new(part).with_field(Field::new("item", DataType::Struct(loss_part_fields()), false));
        for cell in cells {
            for part in cell {
                let fields = lists.values();
                fields.field_builder::<StringBuilder>(0).expect("a name is text").append_value(&part.name);
                fields.field_builder::<Float64Builder>(1).expect("a loss is a number").append_value(part.loss);
                fields.append(true);
            }
            lists.append(true);
        }
        Arc::new(lists.finish())
    }

    fn get(array: &dyn Array, row: usize) -> Option<Self> {
        if array.is_null(row) {
            return None;
        }
        let values = array.as_list::<i32>().value(row);
        let fields = values.as_struct();
        let (name, loss) = (fields.column(0), fields.column(1));
        (0..fields.len()).map(|i| Some(LossPart { name: String::get(name, i)?, loss: f64::get(loss, i)? })).collect()
    }
}
