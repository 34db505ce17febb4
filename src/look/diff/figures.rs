//! The figures of two runs side by side: summaries, results of matrices, and where a training ended.

use std::collections::BTreeMap;
use std::path::Path;

use kit::{Result, Table};
use serde::Serialize;

use super::{Found, Side, name, of_both};
use crate::look::inspect::Rows;

/// The figures of one table.
#[derive(Debug, Serialize)]
pub struct Figures {
    pub table: String,
    /// True where both runs used one result.
    pub same_result: bool,
    /// A note on the figures, where their names do not say enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The figures in the order of the table.
    pub rows: Vec<Figure>,
}

/// One figure in both runs.
#[derive(Debug, PartialEq, Serialize)]
pub struct Figure {
    pub name: String,
    /// In the first run.
    pub first: Option<f64>,
    /// In the second run.
    pub second: Option<f64>,
    /// The second value less the first.
    pub difference: Option<f64>,
}

/// Compares every table of figures that is in either run.
///
/// # Errors
/// When a table is torn.
pub fn figures(a: &Side<'_>, b: &Side<'_>) -> Result<Vec<Figures>> {
    let mut all = Vec::new();
    for (stage, port) in of_both([a, b], &[Table::Summary, Table::Results, Table::Metrics]) {
        let (entries, mut tables) = ([a, b].map(|side| side.find(&stage, &port)), [const { Vec::new() }; 2]);
        let mut ends = Vec::new();
        for (table, found) in tables.iter_mut().zip(&entries) {
            if let Found::There { path, .. } = found {
                let (figures, end) = read(path)?;
                *table = figures;
                ends.extend(end);
            }
        }
        ends.dedup();
        let note = (!ends.is_empty()).then(|| {
            format!("means of the last {} steps; of evaluations and what is counted the last value", ends.join(" and "))
        });
        let same_result =
            matches!(&entries, [Found::There { entry, .. }, Found::There { entry: other, .. }] if entry == other);
        let [first, second] = tables;
        all.push(Figures { table: name(&stage, &port), same_result, note, rows: side_by_side(&first, &second) });
    }
    Ok(all)
}

/// Figures by name.
type Named = Vec<(String, f64)>;

/// The figures of a table. Of a training, the ends of its columns ([`kit::end_mean`]), and how many of its steps these
/// are means over.
fn read(path: &Path) -> Result<(Named, Option<String>)> {
    let rows = Rows::open(path)?;
    let names: Vec<&str> = rows.columns.iter().map(|(name, _)| name.as_str()).collect();
    let has = |column: &str| names.contains(&column);
    let keys: &[&str] = match (has("part") && has("group"), has("metric")) {
        (true, _) => &["part", "block", "metric", "group", "setting", "against", "value"],
        (_, true) => &["metric", "value"],
        _ => &[],
    };
    let mut all: Vec<(String, f64)> = Vec::new();
    if keys.is_empty() {
        let mut values: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
        rows.each_of(&names, |cells| {
            let numbers = cells.iter().enumerate().filter_map(|(at, cell)| Some((at, cell.as_f64()?)));
            numbers.for_each(|(at, value)| values.entry(at).or_default().push(value));
        })?;
        let end = |(at, values): (usize, Vec<f64>)| {
            let mean = kit::end_mean(&values).filter(|_| kit::is_mean_at_end(names[at])).map(|(mean, _)| mean);
            Some((names[at].to_owned(), mean.or(values.last().copied())?))
        };
        let steps = rows.count as usize;
        let over = format!("{} of {steps}", kit::last_steps(steps));
        return Ok((values.into_iter().filter_map(end).collect(), Some(over)));
    }
    rows.each_of(keys, |cells| {
        let (value, words) = cells.split_last().expect("there are keys");
        let words: Vec<&str> = words.iter().filter_map(|cell| cell.as_str()).filter(|word| !word.is_empty()).collect();
        all.extend(value.as_f64().map(|value| (words.join(" "), value)));
    })?;
    Ok((all, None))
}

fn side_by_side(first: &[(String, f64)], second: &[(String, f64)]) -> Vec<Figure> {
    let value = |of: &[(String, f64)], name: &str| of.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let mut names: Vec<&String> = first.iter().map(|(name, _)| name).collect();
    names.extend(second.iter().map(|(name, _)| name).filter(|name| value(first, name).is_none()));
    let figure = |name: &String| {
        let (first, second) = (value(first, name), value(second, name));
        let difference = first.zip(second).map(|(first, second)| second - first);
        Figure { name: name.clone(), first, second, difference }
    };
    names.into_iter().map(figure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_one_run_alone_are_shown() {
        let of =
            |rows: &[(&str, f64)]| rows.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect::<Vec<_>>();
        let rows = side_by_side(&of(&[("accuracy", 0.5), ("gone", 1.0)]), &of(&[("new", 2.0), ("accuracy", 0.75)]));
        let differences: Vec<(&str, Option<f64>)> =
            rows.iter().map(|row| (row.name.as_str(), row.difference)).collect();
        assert_eq!(differences, [("accuracy", Some(0.25)), ("gone", None), ("new", None)]);
    }
}
