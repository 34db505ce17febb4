//! Messages as chat templates see them: a mapping of a role, a content and whatever else the data has.

use minijinja::value::{Value, ValueKind};

use crate::error::{Error, Result};
use crate::text::tokens::Turn;

/// The field of a first message that is none of its own: what templates take beside the messages.
const TOOLS: &str = "tools";

/// The names of a message's thoughts; transformers gives templates the first that exists by the first two names.
const THOUGHTS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// A message for a template, each of its texts through `mark`, and the tools that it names. Fields of null are left
/// out, as transformers does.
pub(crate) fn message(turn: &Turn, mark: &dyn Fn(&str) -> String) -> Result<(Value, Option<Value>)> {
    let mut fields =
        vec![("role".to_owned(), Value::from(turn.role)), ("content".to_owned(), mark(turn.content).into())];
    let mut tools = None;
    for (name, value) in extra(turn)? {
        let value = mapped(&value, mark)?;
        match name.as_str().unwrap_or_default() {
            TOOLS => tools = Some(value),
            "content" => fields[1].1 = value,
            name => fields.push((name.to_owned(), value)),
        }
    }
    fields.retain(|(_, value)| !value.is_none());
    let of = |wanted: &&str| fields.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    if let Some(thoughts) = THOUGHTS.iter().find_map(of) {
        let [content, thinking, _] = THOUGHTS;
        let own = of(&thinking).unwrap_or(thoughts.clone());
        fields.retain(|(name, _)| name != thinking);
        fields.insert(0, (thinking.to_owned(), own));
        match fields.iter_mut().find(|(name, _)| name == content) {
            Some((_, value)) => *value = thoughts,
            None => fields.push((content.to_owned(), thoughts)),
        }
    }
    Ok((Value::from_pairs(fields), tools.filter(|tools| !tools.is_none())))
}

/// Adds every text of a message but its role.
pub(crate) fn texts(turn: &Turn, out: &mut Vec<String>) -> Result<()> {
    out.push(turn.content.to_owned());
    for (_, value) in extra(turn)? {
        collect(&value, out)?;
    }
    Ok(())
}

/// The other fields of a message, in their order.
fn extra(turn: &Turn) -> Result<Vec<(Value, Value)>> {
    let Some(text) = turn.extra else { return Ok(Vec::new()) };
    let wrong =
        |what: &dyn std::fmt::Display| Error::input(format!("the fields of a message are no JSON object: {what}"));
    let fields: Value = serde_json::from_str(text).map_err(|error| wrong(&error))?;
    if fields.kind() != ValueKind::Map {
        return Err(wrong(&text));
    }
    pairs(&fields)
}

fn pairs(map: &Value) -> Result<Vec<(Value, Value)>> {
    let broken = |error: minijinja::Error| Error::internal(format!("a mapping of a message: {error}"));
    let keys = map.try_iter().map_err(broken)?;
    keys.map(|key| Ok((key.clone(), map.get_item(&key).map_err(broken)?))).collect()
}

fn items(list: &Value) -> Result<Vec<Value>> {
    let broken = |error: minijinja::Error| Error::internal(format!("a list of a message: {error}"));
    Ok(list.try_iter().map_err(broken)?.collect())
}

/// A value with each text in it, names of fields too, through `mark`.
fn mapped(value: &Value, mark: &dyn Fn(&str) -> String) -> Result<Value> {
    Ok(match value.kind() {
        ValueKind::String => Value::from(mark(value.as_str().unwrap_or_default())),
        ValueKind::Seq => items(value)?.iter().map(|item| mapped(item, mark)).collect::<Result<Vec<_>>>()?.into(),
        ValueKind::Map => {
            let pair = |(key, value): (Value, Value)| Ok((mapped(&key, mark)?, mapped(&value, mark)?));
            Value::from_pairs(pairs(value)?.into_iter().map(pair).collect::<Result<Vec<_>>>()?)
        }
        _ => value.clone(),
    })
}

fn collect(value: &Value, out: &mut Vec<String>) -> Result<()> {
    match value.kind() {
        ValueKind::String => out.push(value.as_str().unwrap_or_default().to_owned()),
        ValueKind::Seq => items(value)?.iter().try_for_each(|item| collect(item, out))?,
        ValueKind::Map => {
            for (key, value) in pairs(value)? {
                collect(&key, out)?;
                collect(&value, out)?;
            }
        }
        _ => {}
    }
    Ok(())
}
