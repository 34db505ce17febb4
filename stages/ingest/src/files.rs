//! The files of a configuration: one, or a list.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Paths as the pipeline file has them, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Files(pub Vec<String>);

impl<'de> Deserialize<'de> for Files {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Files, D::Error> {
        struct Paths;

        impl<'de> Visitor<'de> for Paths {
            type Value = Files;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path or a list of paths")
            }

            fn visit_str<E: Error>(self, path: &str) -> Result<Files, E> {
                Ok(Files(vec![path.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut paths: A) -> Result<Files, A::Error> {
                let mut list: Vec<String> = Vec::new();
                while let Some(path) = paths.next_element()? {
                    if list.contains(&path) {
                        return Err(A::Error::custom(format!("`{path}` stands twice in the list")));
                    }
                    list.push(path);
                }
                if list.is_empty() { Err(A::Error::custom("an empty list names no file")) } else { Ok(Files(list)) }
            }
        }

        deserializer.deserialize_any(Paths)
    }
}

impl JsonSchema for Files {
    fn schema_name() -> Cow<'static, str> {
        "Files".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a path or a list of paths",
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
        })
    }
}
