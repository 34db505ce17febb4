//! Lists and conversations that a table tool wrote as text.

use serde_json::Value;

use crate::source::read_value;

/// The fields of a message that say who speaks and what, each with the name that ShareGPT has for it.
pub const SAID: [[&str; 2]; 2] = [["role", "from"], ["content", "value"]];

/// The content of a text.
#[derive(Debug, PartialEq)]
pub enum Stored {
    /// Text.
    Text,
    /// JSON messages.
    Messages(Value),
    /// Messages as Python prints them.
    Python,
    /// Messages as JSON, one after another.
    Lines,
    /// Messages as JSON that cannot be read, and why.
    Broken(String),
}

/// Looks into a text: JSON that is one message or a list of messages stands for them, also where it is written as a
/// JSON text once more.
pub fn look(text: &str) -> Stored {
    let trimmed = text.trim();
    if let Some(inner) = trimmed.strip_prefix('"').filter(|inner| inner.starts_with(['[', '{', '\\'])) {
        return match serde_json::from_str::<String>(trimmed) {
            Ok(inner) => look(&inner),
            Err(_) if is_begun(inner.replace('\\', "").trim_start_matches('"')) => {
                Stored::Broken("JSON as a text in JSON".to_owned())
            }
            Err(_) => Stored::Text,
        };
    }
    if !trimmed.starts_with(['[', '{']) && !trimmed.starts_with("array([") {
        return Stored::Text;
    }
    match read_value(trimmed) {
        Ok(value) if is_messages(&value) => Stored::Messages(value),
        Ok(_) => Stored::Text,
        Err(error) if is_begun(trimmed) => {
            let mut values = serde_json::Deserializer::from_str(trimmed).into_iter::<Value>();
            let python = ["None", "True", "False"].map(|word| format!(": {word}"));
            if values.all(|value| value.is_ok_and(|value| is_messages(&value))) {
                Stored::Lines
            } else if trimmed.starts_with("array(") || single(trimmed) || python.iter().any(|it| trimmed.contains(it)) {
                Stored::Python
            } else {
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default();
                Stored::Broken(format!("{what}, at line {} column {}", error.line(), error.column()))
            }
        }
        Err(_) => Stored::Text,
    }
}

/// True where the first quote is a single one.
fn single(text: &str) -> bool {
    text.find('\'').is_some_and(|at| !text[..at].contains('"'))
}

/// True where a text begins as a list of messages in JSON or as Python prints it: `[{'role': ...`.
fn is_begun(text: &str) -> bool {
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

/// True where a value is a message or a list of messages.
pub fn is_messages(value: &Value) -> bool {
    let is_message = |value: &Value| {
        let has =
            |names: &[&str; 2]| value.as_object().is_some_and(|it| names.iter().any(|name| it.contains_key(*name)));
        SAID.iter().all(has) || (has(&SAID[0]) && value.get("tool_calls").is_some())
    };
    match value {
        Value::Array(items) => !items.is_empty() && items.iter().all(is_message),
        value => is_message(value),
    }
}

/// True where a value is a list or an object, also where that is JSON as text.
pub fn is_structured(value: &Value) -> bool {
    matches!(opened(value), Value::Array(_) | Value::Object(_))
}

/// A value, read where it is a list or an object as JSON text.
pub fn opened(value: &Value) -> Value {
    match value {
        Value::String(text) if text.trim_start().starts_with(['[', '{']) => match read_value(text.trim()) {
            Ok(read @ (Value::Array(_) | Value::Object(_))) => read,
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

/// A truth value as 1 or 0, also where it is written as text.
pub fn truth_in(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::String(text) if text.trim().eq_ignore_ascii_case("true") => Some(1.0),
        Value::String(text) if text.trim().eq_ignore_ascii_case("false") => Some(0.0),
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
        assert_eq!(look(&serde_json::to_string(messages).unwrap()), look(messages));
        let twice = serde_json::to_string(&serde_json::to_string(messages).unwrap()).unwrap();
        assert_eq!(look(&twice), look(messages));
        let message = r#"{"role": "user", "content": "q"}"#;
        assert_eq!(look(&format!("{message}\n{message}")), Stored::Lines);
        for broken in [&messages[..20], &messages[..messages.len() - 1], "\"[{\\\"role\\\": \\\"us", &twice[..30]] {
            assert!(matches!(look(broken), Stored::Broken(_)), "{broken}: {:?}", look(broken));
        }
        for text in [
            "\"[sic]\" he said",
            "\"{\"",
            "[1, 2]",
            "{\"a\": 1}",
            "[{'a': 1}]",
            "{ x",
            "[]",
            "[\"role\"]",
            "plain",
            "{'role'",
        ] {
            assert_eq!(look(text), Stored::Text, "{text}");
        }
    }
}
