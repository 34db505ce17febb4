//! JSON values of rows. Lists of tools and of their calls stay text, so that their keys keep their order; what Python
//! writes for numbers that JSON does not have is understood.

use std::collections::BTreeSet;
use std::fmt;

use kit::JsonText;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::de::StrRead;
use serde_json::{Map, Value};

use super::Fields;
use super::lines::invalid_utf8;
use crate::bad_row::{BadRow, shown};

/// The names of the columns to keep; none for all.
pub type Wanted = Option<BTreeSet<String>>;

/// Fields whose lists and objects stay JSON text.
pub const KEPT_AS_TEXT: [&str; 2] = ["tool_calls", "tools"];

/// Reads an object with columns.
pub fn parse(text: &[u8], wanted: &Wanted) -> Result<Fields, BadRow> {
    if let Some(bad) = invalid_utf8(text) {
        return Err(bad);
    }
    let text = std::str::from_utf8(text).expect("checked above");
    read(text, |json| RowSeed(wanted).deserialize(json)).map_err(|error| {
        // The line within the row says nothing here; the column does.
        let full = error.to_string();
        let place = format!(" at line {} column {}", error.line(), error.column());
        let what = full.strip_suffix(&place).unwrap_or(&full);
        let rest = text.as_bytes().get(error.column().saturating_sub(1));
        let what = if what == "trailing characters" && matches!(rest, Some(b'{' | b',')) && text.starts_with('{') {
            "more behind the object; write one object a line: jq -c ."
        } else {
            what
        };
        if error.is_data() && !text.starts_with('{') {
            BadRow::new("not_an_object", what)
        } else {
            BadRow::new("bad_json", format!("{what}, at byte {} of {}", error.column(), text.len()))
        }
    })
}

/// Reads a value.
pub fn read_value(text: &str) -> Result<Value, serde_json::Error> {
    read(text, |json| ValueSeed.deserialize(json))
}

fn read<T>(
    text: &str,
    value: impl Fn(&mut serde_json::Deserializer<StrRead<'_>>) -> Result<T, serde_json::Error>,
) -> Result<T, serde_json::Error> {
    let strict = |text: &str| {
        let mut json = serde_json::Deserializer::from_str(text);
        value(&mut json).and_then(|value| json.end().map(|()| value))
    };
    strict(text).or_else(|error| match with_numbers_of_python(text) {
        Some(text) => strict(&text),
        None => Err(error),
    })
}

/// A text with `null` for NaN, and for infinities what neither columns of numbers nor of texts take; nothing where it
/// has none of them.
fn with_numbers_of_python(text: &str) -> Option<String> {
    let words = [("NaN", "null"), ("-Infinity", "{\"-Infinity\":null}"), ("Infinity", "{\"Infinity\":null}")];
    let (mut written, mut from, mut at) = (String::new(), 0, 0);
    let (mut quoted, bytes) = (false, text.as_bytes());
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            b'N' | b'I' | b'-' if !quoted => {
                if let Some((word, json)) = words.iter().find(|(word, _)| bytes[at..].starts_with(word.as_bytes())) {
                    written.push_str(&text[from..at]);
                    written.push_str(json);
                    from = at + word.len();
                    at = from - 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    (from > 0).then(|| written + &text[from..])
}

/// Reads an object and skips the values that are not read.
struct RowSeed<'a>(&'a Wanted);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with columns")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::new();
        while let Some(name) = map.next_key::<String>()? {
            if self.0.as_ref().is_some_and(|wanted| !wanted.contains(&name)) {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = member(&name, &mut map)?;
            if fields.contains_key(&name) {
                return Err(serde::de::Error::custom(format!("column `{name}` stands twice in the row")));
            }
            fields.insert(name, value);
        }
        Ok(fields)
    }
}

/// The value of a name.
fn member<'de, A: MapAccess<'de>>(name: &str, map: &mut A) -> Result<Value, A::Error> {
    if !KEPT_AS_TEXT.contains(&name) {
        return map.next_value_seed(ValueSeed);
    }
    let JsonText(text) = map.next_value()?;
    Ok(match text.as_bytes() {
        b"null" => Value::Null,
        // It is text in the file already.
        [b'"', ..] => serde_json::from_str(&text).expect("it was written as JSON"),
        _ => Value::String(text),
    })
}

struct ValueSeed;

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(ValueSeed)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = member(&name, &mut map)?;
            if fields.contains_key(&name) {
                return Err(serde::de::Error::custom(format!("`{name}` stands twice in an object")));
            }
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// A text that is JSON and begins so, without spaces.
pub fn json_text(place: &str, text: &str, begins: &str) -> Result<String, BadRow> {
    let what = if begins == "[" { "a JSON list" } else { "a JSON object" };
    let wrong = |got: String| BadRow::value(place, got, what);
    match serde_json::from_str(text) {
        Ok(JsonText(text)) if text.starts_with(begins) => Ok(text),
        Ok(_) => Err(wrong(shown(&Value::from(text)))),
        Err(error) => Err(wrong(format!("{} ({error})", shown(&Value::from(text))))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_python_are_null_or_refused() {
        let read = |text: &str| read_value(text).map(|value| value.to_string());
        assert_eq!(
            read(r#"{"a":NaN,"b":[-Infinity,Infinity],"c":"NaN \" NaN"}"#).unwrap(),
            r#"{"a":null,"b":[{"-Infinity":null},{"Infinity":null}],"c":"NaN \" NaN"}"#
        );
        assert!(read(r#"{"a":Nan}"#).is_err() && read(r#"{"a":NaN"#).is_err());
        let wanted = Some(BTreeSet::from(["a".to_owned()]));
        assert_eq!(parse(br#"{"a":1,"b":NaN}"#, &wanted).unwrap().len(), 1);
    }

    #[test]
    fn what_stands_twice_or_behind_a_row_is_refused() {
        let error = |text: &str| parse(text.as_bytes(), &None).unwrap_err().to_string();
        assert!(error(r#"{"a":1,"a":2}"#).contains("column `a` stands twice in the row"));
        assert!(
            error(r#"{"m":[{"role":"user","content":"p","content":"q"}]}"#)
                .contains("`content` stands twice in an object")
        );
        assert!(read_value(r#"[{"role":"user","role":"system","content":"q"}]"#).is_err());
        let behind = "bad_json: more behind the object; write one object a line: jq -c ., at byte 8 of 14";
        assert_eq!(error(r#"{"a":1}{"a":2}"#), behind);
        assert!(error(r#"{"a":1},"#).contains("write one object a line"));
        assert!(error(r#"{"a":1}]"#).contains("trailing characters"));
    }

    #[test]
    fn tool_calls_keep_the_order_of_their_keys() {
        let text = r#"{"m":[{"tool_calls":[{"b":{"z":1,"a":[]}}],"tools":"[{\"y\": 1, \"x\": 2}]","x":null}]}"#;
        let value = read_value(text).unwrap();
        assert_eq!(value["m"][0]["tool_calls"], r#"[{"b":{"z":1,"a":[]}}]"#);
        assert_eq!(value["m"][0]["tools"], r#"[{"y": 1, "x": 2}]"#);
    }
}
