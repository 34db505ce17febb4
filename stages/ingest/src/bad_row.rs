//! The reason and the detail of a row that is not taken.

/// Something wrong with one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// A short word that rows share.
    pub reason: &'static str,
    /// The value found and the value wanted.
    pub detail: String,
}

impl BadRow {
    /// A reason and its case.
    pub fn new(reason: &'static str, detail: impl Into<String>) -> BadRow {
        BadRow { reason, detail: detail.into() }
    }

    /// A value of a wrong type, or not in its range.
    pub fn value(column: &str, got: impl std::fmt::Display, wanted: &str) -> BadRow {
        BadRow::new("bad_value", format!("column `{column}` is {got}, wanted {wanted}"))
    }
}

impl std::fmt::Display for BadRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.detail)
    }
}

/// A JSON value as messages show it: its type, and itself where it is short.
pub fn shown(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => format!("the truth value {value}"),
        Value::Number(value) => format!("the number {value}"),
        Value::String(text) if text.chars().count() <= 40 => format!("the text {text:?}"),
        Value::String(text) => format!("a text of {} bytes", text.len()),
        Value::Array(items) => format!("a list of {}", items.len()),
        Value::Object(_) if is_infinite(value) => {
            format!("the number {}", if value.get("Infinity").is_some() { "Infinity" } else { "-Infinity" })
        }
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
    }
}

/// True where a value stands for an infinity, which JSON does not have and Python writes.
pub fn is_infinite(value: &serde_json::Value) -> bool {
    value.as_object().is_some_and(|it| it.len() == 1 && (it.contains_key("Infinity") || it.contains_key("-Infinity")))
}
