//! What was followed, as text.

use kit::{Fact, Message};
use serde_json::Value;

use super::follow::{Followed, Text};

/// Values longer than this, or of several lines, stand on lines of their own.
const SHORT: usize = 60;

/// The whole for a terminal.
pub fn text(followed: &Followed) -> String {
    let mut out = format!("{} in run {} of {}\n", followed.id, followed.run, followed.pipeline);
    let first = &followed.sides[0].prompt;
    let shared = followed.sides.iter().all(|side| side.prompt == *first);
    if shared {
        out.push_str(&block("prompt", &said(first), 0));
    }
    for side in &followed.sides {
        let Text { role, prompt, response, .. } = side;
        if !shared {
            out.push_str(&block(&format!("prompt of {role}"), &said(prompt), 0));
        }
        out.push_str(&block(role, &said(response), 0));
    }
    for stage in &followed.stages {
        out.push_str(&format!("\n{} ({}, {})\n", stage.stage, stage.kind, stage.entry));
        for row in &stage.rows {
            out.push_str(&format!("  {}\n", row.title));
            let width = row.facts.iter().map(|fact| fact.name.chars().count()).max().unwrap_or(0);
            row.facts.iter().for_each(|fact| out.push_str(&line(fact, width)));
        }
        out.extend(stage.error.iter().map(|error| format!("  cannot be followed: {error}\n")));
    }
    out.push('\n');
    followed.notes.iter().for_each(|note| out.push_str(&format!("{note}\n")));
    let (again, wrong) = (followed.recomputed, followed.disagreements.len());
    out.push_str(&match wrong {
        0 => format!("{again} values computed again from stored columns: all agree\n"),
        _ => format!("{again} values computed again from stored columns: {wrong} do not agree\n"),
    });
    out
}

fn line(fact: &Fact, width: usize) -> String {
    let value = plain(&fact.stored);
    if value.contains('\n') || value.chars().count() > SHORT {
        let how = if fact.how.is_empty() { String::new() } else { format!(" ({})", fact.how) };
        return block(&format!("{}{how}", fact.name), &value, 4);
    }
    let mut words = vec![format!("    {:width$}  {value}", fact.name)];
    match &fact.recomputed {
        Some(_) if fact.agrees() => words.push("[again the same]".to_owned()),
        Some(again) => words.push(format!("[COMPUTED AGAIN: {}]", plain(again))),
        None => {}
    }
    if !fact.how.is_empty() {
        words.push(fact.how.clone());
    }
    words.join("  ") + "\n"
}

/// A name, and below it lines that are marked as a text's.
fn block(name: &str, text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let lines: String = text.lines().map(|line| format!("{pad}  | {line}\n")).collect();
    format!("{pad}{name}\n{lines}")
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A conversation; raw text as it is.
fn said(messages: &[Message]) -> String {
    match messages {
        [one] => one.text().into_owned(),
        several => several.iter().map(|it| format!("{}: {}", it.role, it.text())).collect::<Vec<_>>().join("\n"),
    }
}
