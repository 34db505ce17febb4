//! Texts and conversations: how values become messages, and where a prompt ends and its response begins.

use std::collections::BTreeMap;

use kit::{JsonText, Message};
use serde_json::{Map, Value};

use crate::bad_row::{BadRow, is_infinite, shown};
use crate::form::Form;
use crate::source::json_text;
use crate::stored::{SAID, Stored, is_messages, look};

/// The other fields of a message that chat templates read.
const EXTRA: [&str; 7] = ["tool_calls", "tool_call_id", "name", "reasoning_content", "reasoning", "thinking", "tools"];

/// A value that is a plain string or a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A plain string.
    Text(String),
    /// A list of messages, at least one.
    Messages(Vec<Message>),
}

impl Content {
    /// Reads a value: a string, or a list of `{role, content}` (ShareGPT's `{from, value}` too), also where a string is
    /// the JSON of such a list.
    ///
    /// # Errors
    /// When it is neither, or a message has parts that are not text.
    pub fn read(column: &str, value: Value) -> Result<Content, BadRow> {
        match value {
            Value::String(text) => match look(&text) {
                Stored::Text => plain(column, text).map(Content::Text),
                Stored::Messages(value) => Content::read(column, value),
                Stored::Lines => Err(BadRow::new(
                    "messages_apart",
                    format!("column `{column}` holds messages one after another, wanted a list of them: [.., ..]"),
                )),
                Stored::Broken(error) => Err(BadRow::new(
                    "broken_messages",
                    format!(
                        "column `{column}` holds messages as JSON that is cut off or broken: {error} of {} bytes",
                        text.len()
                    ),
                )),
                Stored::Python => Err(BadRow::new(
                    "python_list",
                    format!(
                        "column `{column}` holds messages as Python prints them, wanted JSON: write the file from the \
                         lists themselves, to_json(orient=\"records\", lines=True), or the column by json.dumps"
                    ),
                )),
            },
            Value::Array(items) if items.is_empty() => Err(BadRow::value(column, "an empty list", "messages")),
            Value::Array(items) => {
                let messages = items.into_iter().enumerate().map(|(i, item)| message(column, i, item));
                messages.collect::<Result<_, _>>().map(Content::Messages)
            }
            // LLaMA-Factory's preferences have one message and no list.
            Value::Object(_) if !is_infinite(&value) => Ok(Content::Messages(vec![message(column, 0, value)?])),
            other => Err(BadRow::value(column, shown(&other), "text or messages")),
        }
    }

    /// The response of a conversation that begins with its prompt; all of it where it does not.
    pub fn behind(self, prompt: &Content) -> Content {
        let Content::Messages(mut messages) = self else { return self };
        let asked = |text: &String| messages[0].role == "user" && messages[0].content.trim() == text.trim();
        let at = match prompt {
            Content::Text(text) => usize::from(messages.len() > 1 && asked(text)),
            Content::Messages(prompt) if messages.len() > prompt.len() && messages.starts_with(prompt) => prompt.len(),
            Content::Messages(_) => 0,
        };
        Content::Messages(messages.split_off(at))
    }

    /// As the prompt of a response.
    pub fn into_prompt(self, form: Form) -> Vec<Message> {
        self.into_messages(form, "user")
    }

    /// As the response to a prompt.
    pub fn into_response(self, form: Form) -> Vec<Message> {
        self.into_messages(form, "assistant")
    }

    fn into_messages(self, form: Form, role: &str) -> Vec<Message> {
        match (self, form) {
            (Content::Messages(messages), _) => messages,
            (Content::Text(text), Form::Text) => vec![Message::new("text", text)],
            (Content::Text(text), Form::Chat) => vec![Message::new(role, text)],
        }
    }
}

/// Text without NUL bytes: they are what is left of torn files, and models see them as odd tokens.
pub fn plain(column: &str, text: String) -> Result<String, BadRow> {
    match text.find('\0') {
        Some(at) => Err(BadRow::new("nul_byte", format!("column `{column}` has a NUL byte at byte {at}, wanted text"))),
        None => Ok(text),
    }
}

/// The fields of messages that are not read.
pub fn unread_fields(value: &Value) -> Vec<String> {
    let messages = match value {
        Value::Array(items) if is_messages(value) => items.iter().filter_map(Value::as_object).collect(),
        Value::Object(fields) if is_messages(value) => vec![fields],
        _ => Vec::new(),
    };
    let filled = messages.into_iter().flat_map(Map::iter).filter(|(_, value)| !value.is_null()).map(|(name, _)| name);
    let read = |name: &str| SAID.iter().flatten().chain(&EXTRA).any(|it| *it == name);
    filled.filter(|name| !read(name)).cloned().collect()
}

fn message(column: &str, index: usize, value: Value) -> Result<Message, BadRow> {
    let place = format!("{column}[{index}]");
    let Value::Object(mut fields) = value else {
        return Err(BadRow::value(&place, shown(&value), "a message {role, content}"));
    };
    let mut extra = extra(&place, index, &mut fields)?;
    let calls = extra.contains_key("tool_calls");
    let mut take = |names: [&str; 2]| names.into_iter().find_map(|name| fields.remove(name));
    let without = |name: &str| BadRow::value(&place, format!("without `{name}`"), "a message {role, content}");
    let role = match take(SAID[0]).ok_or_else(|| without("role"))? {
        Value::String(role) => role,
        other => return Err(BadRow::value(&format!("{place}.role"), shown(&other), "text")),
    };
    let inner = format!("{place}.content");
    let mut content = match take(SAID[1]) {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => parts.into_iter().map(|part| text_part(&inner, part)).collect::<Result<_, _>>()?,
        // A message that calls tools may be empty.
        Some(Value::Null) if calls => {
            extra.insert("content".to_owned(), "null".to_owned());
            String::new()
        }
        None if calls => String::new(),
        Some(other) => return Err(BadRow::value(&inner, shown(&other), "text")),
        None => return Err(without("content")),
    };
    let role = match role.as_str() {
        "human" | "prompter" => "user".to_owned(),
        "gpt" => "assistant".to_owned(),
        "observation" => "tool".to_owned(),
        // ShareGPT's calls: the JSON of a name and arguments in place of text.
        "function_call" => {
            let call = json_text(&inner, &std::mem::take(&mut content), "{")?;
            extra.insert("tool_calls".to_owned(), format!(r#"[{{"type":"function","function":{call}}}]"#));
            "assistant".to_owned()
        }
        _ => role,
    };
    Ok(Message { role, content: plain(&inner, content)?, extra: object(extra) })
}

/// The fields of a message beside role and content, each as JSON text.
fn extra(place: &str, index: usize, fields: &mut Map<String, Value>) -> Result<BTreeMap<String, String>, BadRow> {
    let mut extra = BTreeMap::new();
    for name in EXTRA {
        // The tools of a conversation stand in its first message.
        if name == "tools" && index > 0 {
            continue;
        }
        let at = format!("{place}.{name}");
        let text = match fields.remove(name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) if matches!(name, "tool_calls" | "tools") => match json_text(&at, &text, "[")? {
                list if list == "[]" => continue,
                list => list,
            },
            Some(Value::String(text)) => Value::String(plain(&at, text)?).to_string(),
            Some(other) => return Err(BadRow::value(&at, shown(&other), "text")),
        };
        extra.insert(name.to_owned(), text);
    }
    Ok(extra)
}

/// Fields as the text of a JSON object; nothing where there are none.
fn object(fields: BTreeMap<String, String>) -> Option<String> {
    let text = |(name, value): (&String, &String)| format!("{}:{value}", Value::from(name.as_str()));
    (!fields.is_empty()).then(|| format!("{{{}}}", fields.iter().map(text).collect::<Vec<_>>().join(",")))
}

/// A conversation with its tools, which stand in its first message; `tools` is a JSON list.
pub fn with_tools(mut messages: Vec<Message>, tools: &str) -> Vec<Message> {
    if let Some(first) = messages.first_mut() {
        let mut extra: BTreeMap<_, _> =
            first.extra_fields().into_iter().map(|(name, JsonText(text))| (name, text)).collect();
        extra.insert("tools".to_owned(), tools.to_owned());
        first.extra = object(extra);
    }
    messages
}

/// A part of a message's content as OpenAI's files have them: `{"type": "text", "text": ...}`.
fn text_part(place: &str, part: Value) -> Result<String, BadRow> {
    match part {
        Value::Object(mut fields) if fields.get("type").is_none_or(|kind| kind == "text") => {
            match fields.remove("text") {
                Some(Value::String(text)) => Ok(text),
                _ => Err(BadRow::value(place, "a part without text", "parts of text")),
            }
        }
        other => Err(BadRow::value(place, shown(&other), "parts of text")),
    }
}

/// The role of the last message of a value that is a conversation.
pub fn last_role(value: &Value) -> Option<String> {
    match Content::read("", value.clone()) {
        Ok(Content::Messages(messages)) => messages.last().map(|message| message.role.clone()),
        Ok(Content::Text(_)) => None,
        // One of its messages is at fault; what kind of rows these are is clear all the same.
        Err(_) => Some(value.as_array()?.last()?.get(SAID[0][0])?.as_str()?.to_owned()),
    }
}

/// A prompt, and the chosen and the rejected response to it.
pub type Split = (Content, Content, Content);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::read_value;

    #[test]
    fn messages_of_other_tools_are_understood() {
        let read = |json: &str| Content::read("chosen", read_value(json).unwrap());
        let expected = Content::Messages(vec![Message::new("user", "q"), Message::new("assistant", "a")]);
        assert_eq!(read(r#"[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]"#).unwrap(), expected);
        let parts = r#"[{"role":"user","content":[{"type":"text","text":"q"}]},{"role":"assistant","content":"a","tool_calls":null}]"#;
        assert_eq!(read(parts).unwrap(), expected);
        let one = Content::Messages(vec![Message::new("assistant", "a")]);
        assert_eq!(read(r#"{"from":"gpt","value":"a"}"#).unwrap(), one);
        for (json, detail) in [
            (r#"[{"role":"user","content":null}]"#, "column `chosen[0].content` is null, wanted text"),
            (r#"[{"role":"user"}]"#, "column `chosen[0]` is without `content`, wanted a message {role, content}"),
            (r#"["q"]"#, "column `chosen[0]` is the text \"q\", wanted a message {role, content}"),
            (
                r#"[{"role":"assistant","content":"","tool_calls":"f(1)"}]"#,
                "column `chosen[0].tool_calls` is the text \"f(1)\" (expected ident at line 1 column 2), wanted a JSON list",
            ),
            (
                r#"[{"role":"assistant","content":"","tool_calls":{"id":1}}]"#,
                "column `chosen[0].tool_calls` is the text \"{\\\"id\\\":1}\", wanted a JSON list",
            ),
            (r#"[{"role":"tool","content":"","name":5}]"#, "column `chosen[0].name` is the number 5, wanted text"),
            (r#"[]"#, "column `chosen` is an empty list, wanted messages"),
            (r#"17"#, "column `chosen` is the number 17, wanted text or messages"),
        ] {
            assert_eq!(read(json).unwrap_err().detail, detail);
        }
    }

    #[test]
    fn tool_calls_are_kept_as_transformers_takes_them() {
        let one = |json: &str| match Content::read("messages", read_value(json).unwrap()).unwrap() {
            Content::Messages(mut messages) => messages.remove(0),
            Content::Text(text) => panic!("{text}"),
        };
        let call = r#"{"type":"function","function":{"name":"f","arguments":{"z":1,"a":[2.5,null]}}}"#;
        let check = |json: String, [role, content, extra]: [&str; 3]| {
            let message = one(&json);
            assert_eq!((message.role.as_str(), message.content.as_str()), (role, content), "{json}");
            assert_eq!(message.extra.unwrap_or_default(), extra, "{json}");
        };
        let calls = format!(r#""tool_calls":[{call}]"#);
        let with_null = format!(r#"{{"content":null,{calls}}}"#);
        check(format!(r#"[{{"role":"assistant","content":null,{calls}}}]"#), ["assistant", "", &with_null]);
        check(format!(r#"[{{"role":"assistant",{calls}}}]"#), ["assistant", "", &format!("{{{calls}}}")]);
        let text = format!(
            r#"[{{"role":"assistant","content":"Wait.","tool_calls":{},"weight":0}}]"#,
            Value::from(format!("[ {call} ]"))
        );
        check(text, ["assistant", "Wait.", &format!("{{{calls}}}")]);
        let answer = r#"[{"role":"tool","tool_call_id":"c1","name":"f","content":"3","tool_calls":[]}]"#;
        check(answer.to_owned(), ["tool", "3", r#"{"name":"f","tool_call_id":"c1"}"#]);
        check(
            r#"{"role":"assistant","content":"a","reasoning_content":"r"}"#.to_owned(),
            ["assistant", "a", r#"{"reasoning_content":"r"}"#],
        );
        let call = r#"[{"from":"function_call","value":"{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": 2}}"}]"#;
        check(
            call.to_owned(),
            [
                "assistant",
                "",
                r#"{"tool_calls":[{"type":"function","function":{"name":"f","arguments":{"b":1,"a":2}}}]}"#,
            ],
        );
        check(r#"[{"from":"observation","value":"3"}]"#.to_owned(), ["tool", "3", ""]);
        let messages = with_tools(vec![one(r#"{"role":"user","content":"q","name":"Ann"}"#)], "[1]");
        assert_eq!(messages[0].extra.as_deref(), Some(r#"{"name":"Ann","tools":[1]}"#));
        assert_eq!(
            unread_fields(&read_value(r#"[{"role":"user","content":"q","weight":0,"x":null}]"#).unwrap()),
            ["weight"]
        );
    }
}
