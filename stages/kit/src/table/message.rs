//! Messages of conversations, as chat templates take them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// One message of a conversation. Raw text that no chat template touches is a message with the role `text`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, ..., or `text`.
    pub role: String,
    /// The text; empty where a message has tool calls alone.
    pub content: String,
    /// The other fields that a chat template reads, as the text of a JSON object: `tool_calls` of an assistant,
    /// `tool_call_id` and `name` of a tool's answer, `reasoning_content`, `reasoning` or `thinking`; `"content": null`
    /// where the data has null in place of an empty text. The first message of a conversation has its `tools` too, the
    /// list that transformers takes beside the messages. Keys within stand in the order of the data, for `tojson` shows
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<String>,
}

impl Message {
    /// A message of text.
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        Message { role: role.to_owned(), content: content.into(), extra: None }
    }

    /// The fields of [`Message::extra`] by name.
    ///
    /// # Panics
    /// When `extra` is no JSON object, which no stage writes.
    pub fn extra_fields(&self) -> BTreeMap<String, JsonText> {
        let parse = |text: &String| serde_json::from_str(text).expect("`extra` is a JSON object");
        self.extra.as_ref().map(parse).unwrap_or_default()
    }

    /// The text for readers that know no tools: the content, and below it the tool calls as JSON.
    pub fn text(&self) -> Cow<'_, str> {
        match self.extra_fields().remove("tool_calls") {
            None => Cow::Borrowed(&self.content),
            Some(JsonText(calls)) if self.content.is_empty() => Cow::Owned(calls),
            Some(JsonText(calls)) => Cow::Owned(format!("{}\n{calls}", self.content)),
        }
    }
}

/// The text of any JSON value, without spaces; objects keep the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonText(pub String);

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<JsonText, D::Error> {
        let mut text = String::new();
        Writer(&mut text).deserialize(deserializer)?;
        Ok(JsonText(text))
    }
}

/// Writes what it reads.
struct Writer<'a>(&'a mut String);

impl Writer<'_> {
    fn scalar<E>(self, value: impl Serialize) -> Result<(), E> {
        *self.0 += &serde_json::to_string(&value).expect("text and numbers can be written as JSON");
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Writer<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Writer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.scalar(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.0.push('[');
        let start = self.0.len();
        loop {
            let end = self.0.len();
            if end > start {
                self.0.push(',');
            }
            if items.next_element_seed(Writer(self.0))?.is_none() {
                self.0.truncate(end);
                self.0.push(']');
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.push('{');
        let start = self.0.len();
        while let Some(name) = map.next_key::<String>()? {
            if self.0.len() > start {
                self.0.push(',');
            }
            Writer(self.0).scalar::<A::Error>(name)?;
            self.0.push(':');
            map.next_value_seed(Writer(self.0))?;
        }
        self.0.push('}');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_text_keeps_the_order_of_keys() {
        let text = r#"{"b":[],"a":[1,-2,2.5,"x\"y",null,true,{}],"10":{"z":[[]],"y":"ä"}}"#;
        let spaced = text.replace(',', " , ").replace(':', " :\n");
        assert_eq!(serde_json::from_str::<JsonText>(&spaced).unwrap().0, text);
        assert!(serde_json::from_str::<JsonText>("[1").is_err());
    }

    #[test]
    fn tool_calls_are_part_of_what_is_said() {
        let plain = Message::new("user", "q");
        assert_eq!((plain.text().as_ref(), plain.extra_fields().len()), ("q", 0));
        let calls = r#"[{"function":{"name":"f","arguments":{"b":1,"a":2}}}]"#;
        let extra = Some(format!(r#"{{"name":"n","tool_calls":{calls}}}"#));
        let call = Message { extra: extra.clone(), ..Message::new("assistant", "") };
        assert_eq!((call.text().as_ref(), call.extra_fields()["name"].0.as_str()), (calls, r#""n""#));
        assert_eq!(
            Message { extra, ..Message::new("assistant", "Let me see.") }.text(),
            format!("Let me see.\n{calls}")
        );
    }
}
