//! The two kinds of text that TRL knows: strings, and conversations.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, StructArray};
use arrow_schema::{DataType, Field, Fields};
use kit::{Cell, Message};
use serde::Serialize;

/// The role of raw text that no chat template touches.
const RAW: &str = "text";

/// What a prompt or a response is written as.
pub trait Text: Cell + Clone + Serialize + Send + 'static {
    /// What TRL calls a dataset of it.
    const NAME: &'static str;

    /// Some messages in this form; nothing where they are of the other.
    fn of(messages: &[Message]) -> Option<Self>;
    /// A prompt with its response.
    fn joined(self, response: Self) -> Self;
}

impl Text for String {
    const NAME: &'static str = "standard";

    fn of(messages: &[Message]) -> Option<String> {
        messages.iter().all(|message| message.role == RAW).then(|| messages.iter().map(|it| &*it.content).collect())
    }

    fn joined(self, response: String) -> String {
        self + &response
    }
}

/// A conversation of role and content alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Conversation(pub Vec<Message>);

impl Text for Conversation {
    const NAME: &'static str = "conversational";

    fn of(messages: &[Message]) -> Option<Conversation> {
        messages.iter().all(|message| message.role != RAW).then(|| Conversation(messages.to_vec()))
    }

    fn joined(mut self, response: Conversation) -> Conversation {
        self.0.extend(response.0);
        self
    }
}

fn fields() -> Fields {
    Fields::from(["role", "content"].map(|name| Field::new(name, DataType::Utf8, false)).to_vec())
}

impl Cell for Conversation {
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::List(Arc::new(Field::new("item", DataType::Struct(fields()), false)))
    }

    fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
        let lists = Vec::<Message>::to_array(cells.map(|cell| &cell.0));
        let lists = lists.as_list::<i32>();
        let columns = lists.values().as_struct().columns()[..fields().len()].to_vec();
        let structs = StructArray::new(fields(), columns, None);
        let item = Arc::new(Field::new("item", structs.data_type().clone(), false));
        Arc::new(ListArray::new(item, lists.offsets().clone(), Arc::new(structs), None))
    }

    fn get(array: &dyn Array, row: usize) -> Option<Self> {
        let messages = (!array.is_null(row)).then(|| array.as_list::<i32>().value(row))?;
        let [role, content] = [0, 1].map(|at| messages.as_struct().column(at).clone());
        let message = |at| Some(Message::new(&String::get(&role, at)?, String::get(&content, at)?));
        (0..messages.len()).map(message).collect::<Option<_>>().map(Conversation)
    }
}
