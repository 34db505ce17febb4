//! Tables with conversations, a line each row: the columns that say most, four digits, texts cut to the width.

use serde_json::Value;

use super::cells::is_text;
use super::rows::{Row, Rows};
use crate::progress::aligned;

/// A line is no wider.
const WIDTH: usize = 120;
/// An id is cut to so many characters, which are enough for `trace`.
const ID: usize = 12;
/// A text has at least so much room.
const LEAST: usize = 16;

/// The columns shown of pairs, items, verdicts, comparisons, responses and prompts. A table is the first of these whose
/// first two columns it has.
const VIEWS: [&[&str]; 6] = [
    &["pair_id", "p_hat", "weight", "chosen_prompt", "rejected_prompt", "chosen", "rejected"],
    &["item_id", "label", "weight", "prompt", "response"],
    &[
        "comparison_id",
        "p_hat",
        "ab_p",
        "ba_p",
        "ab_mass",
        "ba_mass",
        "a_prompt",
        "b_prompt",
        "a_response",
        "b_response",
    ],
    &["comparison_id", "a_prompt", "b_prompt", "a_response", "b_response"],
    &["response_id", "messages", "tokens", "finish", "logp", "score", "text"],
    &["prompt_id", "messages"],
];
/// Prompts that are not shown beside an equal one.
const SECOND: [(&str, &str); 2] = [("a_prompt", "b_prompt"), ("chosen_prompt", "rejected_prompt")];

/// Rows as a table with a line each; `None` where it is none of the tables that are known.
pub fn compact(rows: &Rows, picked: &[Row]) -> Option<String> {
    let place = |name: &str| rows.columns.iter().position(|(column, _)| column == name);
    let view = VIEWS.iter().find(|view| view[..2].iter().all(|name| place(name).is_some()))?;
    let filled = |at: usize| picked.iter().any(|row| !row.cells[at].is_null());
    let repeats = |name: &str| {
        let first = SECOND.iter().find(|(_, second)| *second == name).and_then(|(first, _)| place(first));
        let both = first.zip(place(name));
        both.is_some_and(|(first, second)| picked.iter().all(|row| row.cells[first] == row.cells[second]))
    };
    let columns: Vec<(&str, usize)> = view
        .iter()
        .filter_map(|name| Some((*name, place(name)?)))
        .filter(|(name, at)| filled(*at) && !repeats(name))
        .collect();
    let is_long = |at: usize| picked.iter().any(|row| is_text(&row.cells[at]).is_some_and(|text| text.len() > ID));
    let texts: Vec<bool> = columns.iter().map(|(name, at)| !name.ends_with("_id") && is_long(*at)).collect();
    let cells = |row: &Row| -> Vec<String> { columns.iter().map(|(name, at)| cell(name, &row.cells[*at])).collect() };
    let mut lines: Vec<Vec<String>> = picked.iter().map(cells).collect();
    lines.insert(0, columns.iter().map(|(name, _)| (*name).to_owned()).collect());
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let plain: usize = (0..columns.len()).filter(|column| !texts[*column]).map(|column| width(column) + 2).sum();
    // Texts share what is left; what a short one does not need the others have.
    let mut long: Vec<(usize, usize)> =
        (0..columns.len()).filter(|column| texts[*column]).map(|column| (width(column), column)).collect();
    long.sort_unstable();
    let (mut left, mut count) = (WIDTH.saturating_sub(plain), long.len());
    for (wide, column) in long {
        let room = (left / count).saturating_sub(2).max(LEAST).min(wide.max(1));
        lines.iter_mut().for_each(|line| line[column] = cut(&line[column], room));
        (left, count) = (left.saturating_sub(room + 2), count - 1);
    }
    let numbers: Vec<usize> =
        (0..columns.len()).filter(|column| rows.columns[columns[*column].1].1.is_numeric()).collect();
    Some(aligned(&lines, &numbers))
}

fn cell(name: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) if name.ends_with("_id") => text.chars().take(ID).collect(),
        other => is_text(other)
            .map_or_else(|| other.to_string(), |text| text.split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

/// The beginning of a text that is longer than its column.
fn cut(text: &str, room: usize) -> String {
    match text.char_indices().nth(room) {
        Some(_) => text.chars().take(room - 1).chain(['…']).collect(),
        None => text.to_owned(),
    }
}
