//! Rows and schemas for people.

use serde_json::Value;

use super::rows::{Row, Rows};
use crate::progress::aligned;

/// Longer texts are cut; `--json` has all of them.
const LONGEST: usize = 600;

/// A row as lines, `column  value` each; conversations with a line per message.
pub fn pretty(rows: &Rows, row: &Row) -> String {
    let width = rows.columns.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = format!("row {}\n", row.number);
    for ((name, _), cell) in rows.columns.iter().zip(&row.cells) {
        if cell.is_null() {
            continue;
        }
        let gap = " ".repeat(width - name.chars().count());
        let indent = format!("\n  {}  ", " ".repeat(width));
        let shown = match messages(cell) {
            Some(messages) => {
                let lines: Vec<String> = messages
                    .iter()
                    .map(|(role, content, extra)| {
                        let text = format!("{role}: {}", cut(content).replace('\n', &format!("{indent}  ")));
                        extra.map_or(text.clone(), |extra| format!("{text}{indent}  {}", cut(extra)))
                    })
                    .collect();
                lines.join(&indent)
            }
            None => cut(&plain(cell)).replace('\n', &indent),
        };
        text.push_str(&format!("  {name}{gap}  {shown}\n"));
    }
    text
}

/// Wider tables are shown row by row.
const WIDTH: usize = 150;

/// Rows as a table with a line each, where every cell is a short text or a number; `None` where that would be too wide.
pub fn table(rows: &Rows, picked: &[Row]) -> Option<String> {
    let line = |row: &Row| row.cells.iter().map(short).collect::<Option<Vec<String>>>();
    let head = rows.columns.iter().map(|(name, _)| name.clone()).collect();
    let lines = std::iter::once(Some(head)).chain(picked.iter().map(line)).collect::<Option<Vec<_>>>()?;
    let numbers: Vec<usize> = (0..rows.columns.len()).filter(|&column| rows.columns[column].1.is_numeric()).collect();
    let text = aligned(&lines, &numbers);
    text.lines().all(|line| line.chars().count() <= WIDTH).then_some(text)
}

/// A cell in a table: numbers to six digits, texts of one line.
fn short(cell: &Value) -> Option<String> {
    match cell {
        Value::Null => Some(String::new()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) if number.is_f64() => Some(six_digits(number.as_f64()?)),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => (!text.contains('\n')).then(|| text.clone()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

fn six_digits(value: f64) -> String {
    // What rounding leaves of nothing, such as the end of an interval.
    let value = if value.abs() < 1e-15 { 0.0 } else { value };
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-4..1e6).contains(&magnitude) {
        return format!("{value:.5e}");
    }
    let whole_digits = if magnitude < 1.0 { 1 } else { magnitude.log10() as usize + 1 };
    format!("{value:.*}", 6_usize.saturating_sub(whole_digits).max(1))
}

/// The columns with their types.
pub fn schema_table(rows: &Rows) -> String {
    let lines: Vec<Vec<String>> = rows.columns.iter().map(|(name, kind)| vec![name.clone(), type_name(kind)]).collect();
    aligned(&lines, &[])
}

/// A type in few words: conversations are the commonest nested type.
fn type_name(kind: &arrow_schema::DataType) -> String {
    use arrow_schema::DataType::{FixedSizeList, LargeList, LargeUtf8, List, Struct, Utf8, Utf8View};
    match kind {
        Utf8 | LargeUtf8 | Utf8View => "text".to_owned(),
        List(item) | LargeList(item) | FixedSizeList(item, _) => match item.data_type() {
            Struct(fields) if ["role", "content"].iter().all(|name| fields.find(name).is_some()) => {
                "messages".to_owned()
            }
            other => format!("list of {}", type_name(other)),
        },
        Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|field| format!("{} {}", field.name(), type_name(field.data_type()))).collect();
            format!("struct of {}", fields.join(", "))
        }
        other => other.to_string().to_lowercase(),
    }
}

/// Role, content and the other fields of each message.
fn messages(cell: &Value) -> Option<Vec<(&str, &str, Option<&str>)>> {
    let items = cell.as_array().filter(|items| !items.is_empty())?;
    fn text<'a>(item: &'a Value, name: &str) -> Option<&'a str> {
        item.get(name)?.as_str()
    }
    let message = |item| Some((text(item, "role")?, text(item, "content")?, text(item, "extra")));
    items.iter().map(message).collect()
}

fn plain(cell: &Value) -> String {
    match cell {
        Value::String(text) => text.clone(),
        Value::Array(items) if items.len() > 12 && items.iter().all(Value::is_number) => {
            let first: Vec<String> = items[..8].iter().map(Value::to_string).collect();
            format!("[{}, ... {} numbers]", first.join(", "), items.len())
        }
        other => other.to_string(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} ... ({} characters; --json shows all)", &text[..end], text.chars().count()),
        None => text.to_owned(),
    }
}
