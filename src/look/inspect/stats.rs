//! The content of a table's columns, one line each.

use std::collections::BTreeMap;

use kit::Result;
use serde_json::{Value, json};

use super::cells::is_text;
use super::filter::{Filter, all};
use super::rows::Rows;
use crate::progress::aligned;

/// Different texts are counted up to here.
const MOST_DISTINCT: usize = 10_000;
/// Columns with at most this many different texts show how often each occurs.
const FEW: usize = 6;

/// The content of one column.
#[derive(Debug, Default)]
struct Column {
    rows: u64,
    nulls: u64,
    numbers: Vec<f64>,
    /// Characters of texts, lengths of lists.
    lengths: Vec<f64>,
    texts: BTreeMap<String, u64>,
    too_many: bool,
}

impl Column {
    fn add(&mut self, cell: &Value) {
        self.rows += 1;
        match cell {
            Value::Null => self.nulls += 1,
            Value::Number(number) => self.numbers.extend(number.as_f64()),
            Value::Bool(value) => self.count(value.to_string()),
            other => match is_text(other) {
                Some(text) => {
                    self.lengths.push(text.chars().count() as f64);
                    self.count(text);
                }
                None => self.lengths.extend(other.as_array().map(|items| items.len() as f64)),
            },
        }
    }

    fn count(&mut self, text: String) {
        if let Some(times) = self.texts.get_mut(&text) {
            *times += 1;
        } else if self.texts.len() < MOST_DISTINCT {
            self.texts.insert(text, 1);
        } else {
            self.too_many = true;
        }
    }

    /// The column as facts, for people and machines.
    fn facts(&self) -> Vec<(&'static str, Value)> {
        let mut facts = vec![("rows", json!(self.rows)), ("null", json!(self.nulls))];
        if !self.texts.is_empty() {
            facts.push((
                "distinct",
                if self.too_many { json!(format!("over {MOST_DISTINCT}")) } else { json!(self.texts.len()) },
            ));
            if self.texts.len() <= FEW && self.texts.keys().all(|text| text.chars().count() <= 40) {
                facts.push(("values", json!(self.texts)));
                return facts;
            }
        }
        let (values, what) = if self.numbers.is_empty() { (&self.lengths, "length") } else { (&self.numbers, "value") };
        if !values.is_empty() {
            let (mut low, mut high, mut sum) = (f64::INFINITY, f64::NEG_INFINITY, 0.0);
            for value in values {
                (low, high, sum) = (low.min(*value), high.max(*value), sum + value);
            }
            facts.push((what, json!({"min": low, "mean": sum / values.len() as f64, "max": high})));
            facts.push(("histogram", json!(histogram(values, low, high))));
        }
        facts
    }
}

/// Ten bins between the least and the greatest value, as blocks.
fn histogram(values: &[f64], low: f64, high: f64) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    if low >= high {
        return String::new();
    }
    let mut bins = [0_usize; 10];
    for value in values {
        bins[(((value - low) / (high - low) * 10.0) as usize).min(9)] += 1;
    }
    let most = bins.into_iter().max().unwrap_or(1).max(1);
    let block = |count: usize| if count == 0 { ' ' } else { BLOCKS[(count * 8 / most).clamp(1, 8) - 1] };
    bins.into_iter().map(block).collect()
}

/// The statistics of all columns over the rows that pass: a table, or JSON lines.
///
/// # Errors
/// When a part is torn.
pub fn stats_table(rows: &Rows, filters: &[Filter], as_json: bool) -> Result<String> {
    let mut columns: Vec<Column> = rows.columns.iter().map(|_| Column::default()).collect();
    rows.each(all(filters), |row| {
        columns.iter_mut().zip(&row.cells).for_each(|(column, cell)| column.add(cell));
        true
    })?;
    let mut lines = Vec::new();
    let mut text = String::new();
    for ((name, _), column) in rows.columns.iter().zip(&columns) {
        let facts = column.facts();
        if as_json {
            let mut object = serde_json::Map::new();
            object.insert("column".to_owned(), name.as_str().into());
            object.extend(facts.into_iter().map(|(name, value)| (name.to_owned(), value)));
            text.push_str(&format!("{}\n", Value::Object(object)));
            continue;
        }
        let texts: Vec<String> = facts.iter().filter_map(|(name, value)| fact(name, value)).collect();
        lines.push(vec![name.clone(), texts.join(", ")]);
    }
    Ok(if as_json {
        text
    } else {
        format!("{} rows\n{}", columns.first().map_or(0, |column| column.rows), aligned(&lines, &[]))
    })
}

fn fact(name: &str, value: &Value) -> Option<String> {
    match (name, value) {
        ("rows", _) => None,
        ("null", nulls) if *nulls == json!(0) => None,
        ("null", nulls) => Some(format!("{nulls} null")),
        ("histogram", Value::String(blocks)) if blocks.is_empty() => None,
        ("histogram", Value::String(blocks)) => Some(format!("|{blocks}|")),
        ("value" | "length", Value::Object(range)) => {
            let shown = |key: &str| short(range[key].as_f64().unwrap_or_default());
            let prefix = if name == "length" { "length " } else { "" };
            Some(format!("{prefix}{} to {}, mean {}", shown("min"), shown("max"), shown("mean")))
        }
        ("values", Value::Object(values)) => {
            let mut counts: Vec<(&String, u64)> =
                values.iter().map(|(text, count)| (text, count.as_u64().unwrap_or(0))).collect();
            counts.sort_by_key(|(text, count)| (std::cmp::Reverse(*count), (*text).clone()));
            Some(counts.into_iter().map(|(text, count)| format!("{text:?} {count}")).collect::<Vec<_>>().join(", "))
        }
        (name, value) => Some(format!("{} {name}", value.as_str().map_or(value.to_string(), str::to_owned))),
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_summed_up() {
        let mut column = Column::default();
        [json!(0.5), json!(1.0), json!(null), json!(0.75)].iter().for_each(|cell| column.add(cell));
        let texts: Vec<String> = column.facts().iter().filter_map(|(name, value)| fact(name, value)).collect();
        assert_eq!(texts, ["1 null", "0.5 to 1, mean 0.75", "|█    █   █|"]);
        let mut column = Column::default();
        ["same", "joint", "same"].iter().for_each(|text| column.add(&json!(text)));
        let texts: Vec<String> = column.facts().iter().filter_map(|(name, value)| fact(name, value)).collect();
        assert_eq!(texts, ["2 distinct", "\"same\" 2, \"joint\" 1"]);
    }
}
