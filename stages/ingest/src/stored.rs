//! Lists and conversations that a table tool wrote as text.

use serde_json::Value;

use crate::source::read_value;

/// What a text holds.
#[derive(Debug, PartialEq)]
pub enum Stored {
    /// Text.
    Text,
    /// JSON messages.
    Messages(Value),
    /// Messages as Python prints them.
    Python,
}

/// Looks into a text: JSON that is one message or a list of messages stands for them.
pub fn look(text: &str) -> Stored {
    let trimmed = text.trim();
    if !trimmed.starts_with(['[', '{']) && !trimmed.starts_with("array([") {
        return Stored::Text;
    }
    match read_value(trimmed) {
        Ok(value) if crate::messages::is_messages(&value) => Stored::Messages(value),
        Ok(_) => Stored::Text,
        Err(_) if is_python(trimmed) => Stored::Python,
        Err(_) => Stored::Text,
    }
}

/// Whether a text begins as Python prints a list of messages: `[{'role': ...`.
fn is_python(text: &str) -> bool {
    let inner = text.trim_start_matches("array(").trim_start_matches('[').trim_start();
    let Some(key) = inner.strip_prefix('{').map(str::trim_start) else { return false };
    ["role", "content", "from", "value"].iter().any(|name| {
        let quoted = |quote: char| key.strip_prefix(quote).and_then(|key| key.strip_prefix(name)?.strip_prefix(quote));
        quoted('\'').or(quoted('"')).is_some_and(|rest| rest.trim_start().starts_with(':'))
    })
}

/// A list, also where it is JSON as text.
pub fn list_in(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items.clone()),
        Value::String(text) if text.trim_start().starts_with('[') => match read_value(text.trim()) {
            Ok(Value::Array(items)) => Some(items),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_python_and_from_text_that_looks_like_either() {
        let messages = r#"[{"role": "user", "content": "it's"}]"#;
        assert_eq!(look(&format!(" {messages}\n")), Stored::Messages(serde_json::from_str(messages).unwrap()));
        for python in [
            "[{'role': 'user', 'content': 'What?'}, {'role': 'assistant', 'content': \"It's three.\"}]",
            "[{'content': 'q', 'role': 'user'}\n {'content': 'a', 'role': 'assistant'}]",
            "array([{'content': 'q', 'role': 'user'}], dtype=object)",
            "{'from': 'human', 'value': None}",
            r#"[{"role": "user", "content": None}]"#,
        ] {
            assert_eq!(look(python), Stored::Python, "{python}");
        }
        for text in ["[1, 2]", "{\"a\": 1}", "[{'a': 1}]", "{ x", "[]", "[\"role\"]", "plain", "{'role'"] {
            assert_eq!(look(text), Stored::Text, "{text}");
        }
    }
}
