//! All of a run as a table, with every figure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use super::lines::head;
use crate::store::{Records, RunRecord, StageRecord, StageState, Travel};
use crate::units::spoken;

/// Rows of cells as lines with aligned columns. Columns whose number is in `right` are aligned to the right.
pub fn aligned(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let gap = " ".repeat(widths[column] - cell.chars().count());
            let cell = if right.contains(&column) { format!("{gap}{cell}") } else { format!("{cell}{gap}") };
            line.push_str(&cell);
            line.push_str("  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Longer lines of figures are broken.
pub(super) const WIDTH: usize = 110;

/// A run as a table: the state of each stage, its figures, and the folder of its results.
pub fn summary(record: &RunRecord, records: &Records) -> String {
    let titles = ["stage", "state", "read", "rows", "rejected", "time"].map(str::to_owned).to_vec();
    let mut rows = vec![titles];
    let mut facts_text = String::new();
    let mut groups: BTreeMap<&str, Vec<&StageRecord>> = BTreeMap::new();
    for (name, stage) in &record.stages {
        // Only the stages of a matrix have an `@` in their names.
        groups.entry(name.split('@').next().unwrap_or(name)).or_default().push(stage);
    }
    for name in &record.order {
        let Some(stage) = record.stages.get(name) else { continue };
        if let Some((group, _)) = name.split_once('@') {
            let Some(members) = groups.remove(group) else { continue };
            rows.push(line_of_group(group, &members));
            let whys = members.iter().filter(|stage| stage.state.word() == StageState::Failed.word());
            facts_text.extend(
                whys.filter_map(|stage| stage.why.as_ref()).map(|why| format!("{group}: failed: {}\n", head(why))),
            );
            continue;
        }
        let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
        let seconds = stage.seconds.map(|seconds| spoken(Duration::from_secs_f64(seconds))).unwrap_or_default();
        rows.push(vec![
            name.clone(),
            stage.state.word().to_owned(),
            number(stage.read),
            number(stage.rows),
            number(stage.rejected),
            seconds,
        ]);
        let figure = |(name, value): (&String, &Value)| format!("{name} {}", shown(value));
        let mut facts: Vec<String> = stage.figures.iter().map(figure).collect();
        if matches!(stage.state, StageState::Skipped | StageState::Failed | StageState::Stale | StageState::Interrupted)
        {
            facts.extend(stage.why.as_ref().map(|why| format!("{}: {}", stage.state.word(), head(why))));
        }
        if !facts.is_empty() {
            facts_text.push_str(&broken(name, &facts));
        }
    }
    let folder = records.pipeline(&record.pipeline);
    let (table, shared) = (aligned(&rows, &[2, 3, 4, 5]), travelled(record));
    format!("{table}{facts_text}{shared}results: {}/<stage>/<table>\n", folder.display())
}

/// All stages of a matrix in one line.
fn line_of_group(name: &str, members: &[&StageRecord]) -> Vec<String> {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    members.iter().for_each(|stage| *states.entry(stage.state.word()).or_default() += 1);
    let states: Vec<String> = states.into_iter().map(|(state, count)| format!("{count} {state}")).collect();
    let sum = |of: fn(&StageRecord) -> Option<u64>| {
        let all: Vec<u64> = members.iter().filter_map(|stage| of(stage)).collect();
        if all.is_empty() { String::new() } else { all.iter().sum::<u64>().to_string() }
    };
    let seconds: f64 = members.iter().filter_map(|stage| stage.seconds).sum();
    let time = if seconds > 0.0 { spoken(Duration::from_secs_f64(seconds)) } else { String::new() };
    let [read, rows, rejected] = [sum(|it| it.read), sum(|it| it.rows), sum(|it| it.rejected)];
    vec![format!("{name} x {}", members.len()), states.join(", "), read, rows, rejected, time]
}

/// The results in the shared store, in a line: fetched from it, pushed to it, and in both places before.
pub(super) fn travelled(record: &RunRecord) -> String {
    let mut text = String::new();
    let all = record.stages.values().filter_map(|stage| stage.shared.as_ref());
    let addresses: BTreeSet<&String> = all.clone().map(|(address, _)| address).collect();
    for address in addresses {
        let count = |of: Travel| all.clone().filter(|shared| shared.0 == *address && shared.1 == of).count();
        let words = [(Travel::Fetched, "fetched"), (Travel::Pushed, "pushed"), (Travel::There, "there before")];
        let words = words.map(|(of, word)| (count(of), word)).into_iter().filter(|(count, _)| *count > 0);
        let words: Vec<String> = words.map(|(count, word)| format!("{count} {word}")).collect();
        text.push_str(&format!("{address}: {}\n", words.join(", ")));
    }
    text
}

/// `name: fact, fact, ...` over as many lines as it takes.
pub(super) fn broken(name: &str, facts: &[String]) -> String {
    let mut lines = vec![format!("{name}: ")];
    for (index, fact) in facts.iter().enumerate() {
        let comma = if index + 1 < facts.len() { ", " } else { "" };
        let line = lines.last_mut().expect("there is a first line");
        if index > 0 && line.chars().count() + fact.chars().count() > WIDTH {
            lines.push(format!("  {fact}{comma}"));
        } else {
            line.push_str(&format!("{fact}{comma}"));
        }
    }
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// A figure with at most four significant digits.
fn shown(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if !value.is_u64() && !value.is_i64() => digits(number),
        _ => match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        },
    }
}

/// A number with at most four significant digits.
pub(super) fn digits(number: f64) -> String {
    // What rounding leaves of nothing.
    let number = if number.abs() < 1e-15 { 0.0 } else { number };
    let digits = if number == 0.0 { 1.0 } else { number.abs().log10().floor() + 1.0 };
    if !(-3.0..=6.0).contains(&digits) {
        return format!("{number:.3e}");
    }
    let text = format!("{number:.*}", (4.0 - digits).max(0.0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (value, wanted) in [
            (serde_json::json!(0.123456), "0.1235"),
            (serde_json::json!(12), "12"),
            (serde_json::json!(0.5), "0.5"),
            (serde_json::json!(1234.56), "1235"),
            (serde_json::json!(1e-9), "1.000e-9"),
            (serde_json::json!(2.776e-17), "0"),
            (serde_json::json!(-1e-17), "0"),
            (serde_json::json!("pairs"), "pairs"),
        ] {
            assert_eq!(shown(&value), wanted);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "1"], ["long", "23"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(aligned(&rows, &[1]), "a      1\nlong  23\n");
    }
}
