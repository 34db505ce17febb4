//! The lineage of a row, as text.

use kit::Message;
use serde_json::Value;

use super::columns::Text;
use super::follow::{Followed, StoredRow};
use crate::progress::aligned;

/// Values longer than this, or of several lines, stand on lines of their own.
const SHORT: usize = 60;
/// Rows of one table that are shown; the rest is counted.
const SHOWN: usize = 12;
/// Numbers of a list that are shown.
const NUMBERS: usize = 8;

/// The whole for a terminal. A value that is null is left out.
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
        for table in &stage.tables {
            let rows: Vec<StoredRow> = table.rows.iter().map(|row| shown(row, &followed.sides, shared)).collect();
            out.push_str(&format!("  {}\n", table.port));
            out.push_str(&match gathered(&rows).as_slice() {
                [row] => {
                    let width = row.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
                    row.0.iter().map(|(name, cell)| line(name, cell, width)).collect()
                }
                rows => lines(rows),
            });
            if let more @ 1.. = rows.len().saturating_sub(SHOWN) {
                out.push_str(&format!("    {more} more rows: `--json` has them\n"));
            }
        }
    }
    out.push('\n');
    followed.notes.iter().for_each(|note| out.push_str(&format!("{note}\n")));
    out
}

/// The columns of a row to show beside the sides: no nulls, no prompt that all sides share, and for the id of a
/// response its role.
fn shown(row: &StoredRow, sides: &[Text], shared: bool) -> StoredRow {
    let mut cells = Vec::new();
    for (name, cell) in row.0.iter().filter(|(_, cell)| !cell.is_null()) {
        if shared && name.ends_with("prompt_id") && row.0.iter().any(|(other, _)| other.ends_with("response_id")) {
            continue;
        }
        let role = sides.iter().find(|side| name.ends_with("response_id") && *cell == side.side.response_id);
        cells.push(match role {
            Some(side) => (name.trim_end_matches("_id").to_owned(), side.role.into()),
            None => (name.clone(), cell.clone()),
        });
    }
    StoredRow(cells)
}

/// Rows that differ in one column alone are one row with a list there, such as the steps of a pair.
fn gathered(rows: &[StoredRow]) -> Vec<StoredRow> {
    let columns = |row: &StoredRow| row.0.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let Some(first) = rows.first().filter(|first| rows.iter().all(|row| columns(row) == columns(first))) else {
        return rows.to_vec();
    };
    let differs = |place: &usize| rows.iter().any(|row| row.0[*place] != first.0[*place]);
    let differing: Vec<usize> = (0..first.0.len()).filter(differs).collect();
    let [place] = differing[..] else { return rows.to_vec() };
    let mut row = first.clone();
    row.0[place].1 = rows.iter().map(|row| row.0[place].1.clone()).collect();
    vec![row]
}

/// Several rows as a table.
fn lines(rows: &[StoredRow]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.0) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let cell = |row: &StoredRow, name: &str| {
        let found = row.0.iter().find(|(other, _)| other == name);
        found.map(|(_, cell)| plain(cell).replace('\n', " ")).unwrap_or_default()
    };
    let mut table = vec![names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()];
    table.extend(rows.iter().take(SHOWN).map(|row| names.iter().map(|name| cell(row, name)).collect()));
    aligned(&table, &[]).lines().map(|line| format!("    {line}\n")).collect()
}

fn line(name: &str, cell: &Value, width: usize) -> String {
    let value = plain(cell);
    if value.contains('\n') || value.chars().count() > SHORT {
        return block(name, &value, 4);
    }
    format!("    {name:width$}  {value}\n")
}

/// A name, and below it lines that are marked as a text's.
fn block(name: &str, text: &str, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let lines: String = text.lines().map(|line| format!("{pad}  | {line}\n")).collect();
    format!("{pad}{name}\n{lines}")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let mut words: Vec<String> = items.iter().take(NUMBERS).map(plain).collect();
            if items.len() > NUMBERS {
                words.push(format!("... ({})", items.len()));
            }
            words.join(", ")
        }
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
