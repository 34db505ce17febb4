//! The first reading of a pipeline file: its values.

use serde::de::{Deserialize, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_yaml::value::{Tag, TaggedValue};

use super::spans::{Place, Spans};
use crate::pipeline::problem::{At, Fault, Problem};

/// Larger pipeline files are refused before they are read.
pub const MAX_BYTES: u64 = 1 << 20;

/// Values and places of a text. Merge keys (`<<`) are resolved; a mapping's own keys win over merged ones, and earlier
/// merged mappings over later ones.
///
/// # Errors
/// As [`Spans::read`]; and values that JSON cannot hold: tags, infinities.
pub fn read(text: &str) -> Result<(Value, Spans), Problem> {
    let spans = Spans::read(text)?;
    let value = parse(text).map_err(|error| {
        let place = error.location().map(|at| Place { line: at.line(), column: at.column() });
        Problem {
            at: place.map_or(At::File, At::Place),
            stage: None,
            text: format!("not YAML: {error}"),
            fault: Fault::Pipeline,
        }
    })?;
    let mut path = Vec::new();
    let value = json(value, &mut path).map_err(|text| Problem {
        at: spans.of_value(&path),
        stage: None,
        text,
        fault: Fault::Pipeline,
    })?;
    Ok((value, spans))
}

/// The value of a `--set`.
///
/// # Errors
/// When the text is not YAML, as a sentence.
pub fn read_value(text: &str) -> Result<Value, String> {
    let (value, spans) = read(text).map_err(|problem| problem.text)?;
    spans.duplicates.into_iter().next().map_or(Ok(value), |problem| Err(problem.text))
}

/// The values of a text. Of a key that stands twice the first counts, so that one mistake does not hide all others.
///
/// # Errors
/// When it is not YAML.
pub fn parse(text: &str) -> serde_yaml::Result<serde_yaml::Value> {
    serde_yaml::from_str(text).map(|First(value)| value)
}

/// A value in which the first of equal keys counts.
struct First(serde_yaml::Value);

impl<'de> Deserialize<'de> for First {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<First, D::Error> {
        deserializer.deserialize_any(FirstVisitor).map(First)
    }
}

struct FirstVisitor;

impl<'de> Visitor<'de> for FirstVisitor {
    type Value = serde_yaml::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(serde_yaml::Value::Null)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(serde_yaml::Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<Self::Value, D::Error> {
        value.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list = serde_yaml::Sequence::new();
        while let Some(First(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut mapping = serde_yaml::Mapping::new();
        while let Some((First(key), First(value))) = entries.next_entry()? {
            mapping.entry(key).or_insert(value);
        }
        Ok(mapping.into())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, data: A) -> Result<Self::Value, A::Error> {
        let (tag, content) = data.variant::<String>()?;
        let First(value) = content.newtype_variant()?;
        Ok(serde_yaml::Value::Tagged(Box::new(TaggedValue { tag: Tag::new(tag), value })))
    }
}

/// On an error `path` leads to the value.
fn json(value: serde_yaml::Value, path: &mut Vec<String>) -> Result<Value, String> {
    Ok(match value {
        serde_yaml::Value::Null => Value::Null,
        serde_yaml::Value::Bool(value) => Value::Bool(value),
        serde_yaml::Value::String(text) => Value::String(text),
        serde_yaml::Value::Number(number) => Value::Number(json_number(&number)?),
        serde_yaml::Value::Sequence(items) => {
            let mut list = Vec::with_capacity(items.len());
            for (index, item) in items.into_iter().enumerate() {
                path.push(index.to_string());
                list.push(json(item, path)?);
                path.pop();
            }
            Value::Array(list)
        }
        serde_yaml::Value::Mapping(mapping) => Value::Object(json_object(mapping, path)?),
        serde_yaml::Value::Tagged(tagged) => return Err(format!("the tag `{}` has no meaning here", tagged.tag)),
    })
}

fn json_number(number: &serde_yaml::Number) -> Result<Number, String> {
    let converted = if let Some(value) = number.as_u64() {
        Some(Number::from(value))
    } else if let Some(value) = number.as_i64() {
        Some(Number::from(value))
    } else {
        number.as_f64().and_then(Number::from_f64)
    };
    converted.ok_or_else(|| format!("{number} is not a number to compute with"))
}

fn json_object(mapping: serde_yaml::Mapping, path: &mut Vec<String>) -> Result<Map<String, Value>, String> {
    let mut object = Map::new();
    let mut merged = Vec::new();
    for (key, value) in mapping {
        let key = match key {
            serde_yaml::Value::String(text) => text,
            serde_yaml::Value::Number(number) => number.to_string(),
            serde_yaml::Value::Bool(value) => value.to_string(),
            _ => return Err("a key has to be plain text".to_owned()),
        };
        path.push(key.clone());
        let value = json(value, path)?;
        if key == "<<" && !value.as_str().is_some_and(|text| text.starts_with("${")) {
            merged.push(value);
        } else {
            object.insert(key, value);
        }
        path.pop();
    }
    for value in merged {
        let several = match value {
            Value::Array(several) => several,
            one => vec![one],
        };
        for one in several {
            let Value::Object(one) = one else {
                path.push("<<".to_owned());
                return Err("`<<` merges a mapping or a list of mappings".to_owned());
            };
            for (key, value) in one {
                object.entry(key).or_insert(value);
            }
        }
    }
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn merges_nest_and_own_keys_win() {
        let text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, y: 2}\nc: {<<: [*b, {x: 9, z: 3}], w: 5e-7}\n";
        assert_eq!(read(text).unwrap().0["c"], json!({"x": 1, "y": 2, "z": 3, "w": 5e-7}));
    }

    #[test]
    fn what_json_cannot_hold_is_refused_with_its_place() {
        for (text, wanted) in
            [("a:\n  b: [1, .inf]", "not a number"), ("a:\n  b: !x 3", "tag `!x`"), ("a:\n  <<: 3", "merges a mapping")]
        {
            let problem = read(text).unwrap_err();
            assert!(problem.text.contains(wanted), "{problem:?}");
            assert!(matches!(problem.at, At::Place(Place { line: 2, .. })), "{problem:?}");
        }
    }
}
