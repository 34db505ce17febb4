//! Training pairs to be read, from the least certain to the most certain.

use kit::{Result, Table};
use serde_json::Value;

use super::files::{self, Found, groups};
use super::view::{Example, Part, Section, four};
use crate::look::inspect::is_text;

/// Rows that examples are picked from, and how many are.
const ROWS: usize = 2000;
const SHOWN: usize = 5;
/// Longer texts are cut.
const LONGEST: usize = 1500;

/// Pairs of each stage that wrote some.
pub fn section(found: &[Found]) -> Result<Option<Section>> {
    let parts = files::parts(&groups(found, &[Table::Pairs]), pairs)?;
    Ok((!parts.is_empty()).then_some(Section {
        id: "examples",
        title: "Examples",
        note: "From the least certain label to the most certain one.",
        parts,
    }))
}

fn pairs(table: &Found) -> Result<Part> {
    let columns = ["p_hat", "form", "weight", "chosen_prompt", "chosen", "rejected_prompt", "rejected", "pair_id"];
    let mut rows = table.first(&columns, ROWS)?;
    let label = |row: &Vec<Value>| row[0].as_f64().unwrap_or(0.0);
    rows.sort_by(|a, b| label(a).total_cmp(&label(b)));
    let last = rows.len().saturating_sub(1);
    let mut picked: Vec<usize> = (0..SHOWN).map(|number| last * number / (SHOWN - 1)).collect();
    picked.dedup();
    Ok(Part {
        title: table.name(),
        facts: table.read_note(rows.len(), "pairs looked through"),
        examples: picked.into_iter().map(|at| example(&rows[at])).collect(),
        ..Part::default()
    })
}

fn example(row: &[Value]) -> Example {
    let text = |cell: &Value| short(is_text(cell).unwrap_or_default().trim(), LONGEST);
    let number = |cell: &Value| four(cell.as_f64().unwrap_or(f64::NAN));
    let mut facts = format!("p̂ {}", number(&row[0]));
    if row[2].as_f64().is_some_and(|weight| weight != 1.0) {
        facts.push_str(&format!(" · weight {}", number(&row[2])));
    }
    if let Some(form) = row[1].as_str().filter(|form| *form != "same") {
        facts.push_str(&format!(" · {form}"));
    }
    facts.push_str(&format!(" · {}", row[7].as_str().unwrap_or_default()));
    let texts = if row[3] == row[5] {
        vec![("prompt", text(&row[3])), ("chosen", text(&row[4])), ("rejected", text(&row[6]))]
    } else {
        vec![
            ("prompt of chosen", text(&row[3])),
            ("chosen", text(&row[4])),
            ("prompt of rejected", text(&row[5])),
            ("rejected", text(&row[6])),
        ]
    };
    Example { facts, texts }
}

/// The beginning of a text.
pub fn short(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}
