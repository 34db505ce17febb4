//! The two kinds of text that TRL knows: strings, and conversations. Of these there are two forms: of role and content
//! alone, and with all other fields of messages.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, ListArray, StructArray};
use arrow_schema::{DataType, Field, Fields};
use kit::{Cell, JsonText, Message};
use serde::Serialize;

/// The role of raw text that no chat template touches.
const RAW: &str = "text";

/// A value in a row of JSON Lines.
pub trait Json {
    /// Its JSON text.
    fn json(&self) -> String;
}

macro_rules! plain {
    ($($type:ty)*) => { $(
        impl Json for $type {
            fn json(&self) -> String {
                quoted(self)
            }
        }
    )* };
}
plain!(f32 f64 bool String Option<String>);

fn quoted(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("text and numbers can be written as JSON")
}

/// The written form of a prompt or a response.
pub trait Text: Cell + Clone + Json + Send + 'static {
    /// TRL's name for a dataset of it.
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
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation(pub Vec<Message>);

impl Json for Conversation {
    fn json(&self) -> String {
        quoted(&self.0)
    }
}

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

/// A conversation whose messages have tool calls, names or thoughts too. Each is the text of a JSON object: a struct
/// would give every message the fields of all, and every call the arguments of all.
#[derive(Debug, Clone, PartialEq)]
pub struct WithCalls(Vec<String>);

impl Text for WithCalls {
    const NAME: &'static str = "conversational, with tool calls";

    fn of(messages: &[Message]) -> Option<WithCalls> {
        messages.iter().all(|message| message.role != RAW).then(|| WithCalls(messages.iter().map(object).collect()))
    }

    fn joined(mut self, response: WithCalls) -> WithCalls {
        self.0.extend(response.0);
        self
    }
}

/// A message as a JSON object, its own fields after role and content.
fn object(message: &Message) -> String {
    let mut fields = message.extra_fields();
    // Null stands among the other fields where the data has it.
    let content = fields.remove("content").map_or_else(|| quoted(&message.content), |JsonText(null)| null);
    let others = fields.iter().map(|(name, JsonText(value))| format!(",{}:{value}", quoted(name)));
    format!("{{\"role\":{},\"content\":{content}{}}}", quoted(&message.role), others.collect::<String>())
}

impl Json for WithCalls {
    fn json(&self) -> String {
        format!("[{}]", self.0.join(","))
    }
}

/// Text that readers of Arrow take as the JSON that it is.
fn json_item() -> Arc<Field> {
    let extension = [("ARROW:extension:name", "arrow.json"), ("ARROW:extension:metadata", "")];
    let extension: HashMap<String, String> =
        extension.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Arc::new(Field::new("item", DataType::Utf8, false).with_metadata(extension))
}

impl Cell for WithCalls {
    const NULLABLE: bool = false;

    fn data_type() -> DataType {
        DataType::List(json_item())
    }

    fn to_array<'a>(cells: impl Iterator<Item = &'a Self>) -> ArrayRef {
        let mut lists = ListBuilder::new(StringBuilder::new()).with_field(json_item());
        cells.for_each(|cell| lists.append_value(cell.0.iter().map(Some)));
        Arc::new(lists.finish())
    }

    fn get(array: &dyn Array, row: usize) -> Option<Self> {
        let items = (!array.is_null(row)).then(|| array.as_list::<i32>().value(row))?;
        (0..items.len()).map(|at| String::get(&items, at)).collect::<Option<_>>().map(WithCalls)
    }
}
