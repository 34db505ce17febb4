//! Trees of Open Assistant. Replies to one message that people ranked are compared two by two.

use std::cmp::Ordering;

use kit::Message;
use serde_json::{Map, Value};

use super::Known;
use crate::bad_row::{BadRow, shown};
use crate::column::Column::Prompt;
use crate::record::{Record, Side};
use crate::row::Row;
use crate::tables::comparisons;

pub const FORMAT: Known = Known {
    detect: |head| head.all(Prompt, |value| value.get("replies").is_some() && value.get("text").is_some()),
    needs: &[Prompt],
    reads: &[Prompt],
    tables: |_| comparisons(true),
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let Value::Object(root) = row.need(Prompt)? else {
        return Err(BadRow::value(row.name(Prompt), "no message", "a message with `text` and `replies`"));
    };
    let mut records = Vec::new();
    replies(&root, &mut vec![message(&root)?], &mut records)?;
    Ok(records)
}

/// The comparisons among the replies to a message, and below them.
fn replies(node: &Map<String, Value>, path: &mut Vec<Message>, records: &mut Vec<Record>) -> Result<(), BadRow> {
    let nodes: Vec<&Map<String, Value>> = match node.get("replies") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_object).collect(),
        Some(other) => return Err(BadRow::value("replies", shown(other), "a list of messages")),
    };
    let mut ranked = Vec::new();
    for reply in &nodes {
        let reply_message = message(reply)?;
        if let (Some(rank), "assistant") = (reply.get("rank").and_then(Value::as_f64), reply_message.role.as_str()) {
            let side = Side {
                prompt: path.clone(),
                prompt_id: None,
                response: vec![reply_message],
                response_id: reply.get("message_id").and_then(Value::as_str).map(str::to_owned),
                score: None,
                model: reply.get("model_name").and_then(Value::as_str).map(str::to_owned),
            };
            ranked.push((rank, side));
        }
    }
    for (at, (rank, a)) in ranked.iter().enumerate() {
        for (other, b) in &ranked[at + 1..] {
            records.push(compared([a.clone(), b.clone()], [*rank, *other]));
        }
    }
    for reply in nodes {
        path.push(message(reply)?);
        replies(reply, path, records)?;
        path.pop();
    }
    Ok(())
}

/// A comparison of two replies to one message; the lower rank is the better one.
pub fn compared(sides: [Side; 2], [a, b]: [f64; 2]) -> Record {
    let p_hat = match a.partial_cmp(&b) {
        Some(Ordering::Less) => 1.0,
        Some(Ordering::Greater) => 0.0,
        _ => 0.5,
    };
    let (sides, p_hat) = (Box::new(sides), Some(p_hat));
    Record::Comparison { sides, p_hat, log_odds: None, weight: 1.0, judge: None, id: None }
}

/// A message of a tree.
pub fn said(role: &str, text: String) -> Message {
    Message::new(if role == "prompter" { "user" } else { role }, text)
}

fn message(node: &Map<String, Value>) -> Result<Message, BadRow> {
    let text = |name: &str| match node.get(name) {
        Some(Value::String(text)) => Ok(text.as_str()),
        other => Err(BadRow::value(name, other.map_or("missing".to_owned(), shown), "text")),
    };
    Ok(said(text("role")?, text("text")?.to_owned()))
}
