//! The names of a column in the files.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// The name of a column, or the names of several that hold the same: votes can stand in a column for each annotator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// The first one.
    pub fn first(&self) -> &str {
        &self.0[0]
    }

    /// All of them, at least one.
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

impl From<&str> for Names {
    fn from(name: &str) -> Names {
        Names(vec![name.to_owned()])
    }
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
        struct NamesVisitor;
        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the name of a column, or for `votes` a list of names")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Names, E> {
                Ok(Names::from(name))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Names, A::Error> {
                let mut names: Vec<String> = Vec::new();
                while let Some(name) = items.next_element::<String>()? {
                    if names.contains(&name) {
                        return Err(Error::custom(format!("column `{name}` stands twice in the list")));
                    }
                    names.push(name);
                }
                match names.is_empty() {
                    true => Err(Error::custom("an empty list names no column; `null` leaves it out")),
                    false => Ok(Names(names)),
                }
            }
        }
        deserializer.deserialize_any(NamesVisitor)
    }
}

impl JsonSchema for Names {
    fn schema_name() -> Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "The name of a column. For `votes` a list names a column for each annotator. For ids a text \
                            with names in braces is put together: `natural/{i}`.",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        })
    }
}

/// The columns that a text such as `natural/{i}` is put together from; none where it is a plain name.
pub fn parts(text: &str) -> Vec<&str> {
    let pieces = text.split('{').skip(1);
    pieces.filter_map(|piece| piece.split_once('}')).map(|(name, _)| name).filter(|name| !name.is_empty()).collect()
}

/// The text with the values of a row in place of the columns.
///
/// # Errors
/// The column that the row has no text or whole number in.
pub fn put_together<'a>(text: &'a str, fields: &Map<String, Value>) -> Result<String, &'a str> {
    let mut made = text.to_owned();
    for name in parts(text) {
        let value = match fields.get(name) {
            Some(Value::String(value)) if !value.is_empty() => value.clone(),
            Some(Value::Number(value)) if value.is_i64() || value.is_u64() => value.to_string(),
            _ => return Err(name),
        };
        made = made.replacen(&format!("{{{name}}}"), &value, 1);
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_put_together_from_columns() {
        let fields = serde_json::json!({"set": "natural", "i": 7, "x": null, "half": 0.5});
        let fields = fields.as_object().unwrap();
        assert_eq!(put_together("{set}/{i}", fields), Ok("natural/7".to_owned()));
        assert_eq!(put_together("llmbar-{i}-{i}", fields), Ok("llmbar-7-7".to_owned()));
        for wrong in ["x", "half", "gone"] {
            assert_eq!(put_together(&format!("{{i}}/{{{wrong}}}"), fields), Err(wrong));
        }
        assert_eq!(
            (parts("{a}-{b}"), parts("plain"), parts("{}"), parts("{a")),
            (vec!["a", "b"], vec![], vec![], vec![])
        );
    }
}
