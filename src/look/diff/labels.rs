//! The labels of two runs, row by row.

use std::collections::BTreeMap;
use std::path::Path;

use kit::{Digest, Result, Table};
use serde::Serialize;
use serde_json::Value;

use super::{Found, Side, name, of_both};
use crate::look::inspect::Rows;

/// Labels that differ by less are the same.
const SAME: f64 = 1e-9;
/// The columns that name both sides of a verdict, then its label; and those of a pair.
const VERDICTS: [&str; 5] = ["a_prompt_id", "a_response_id", "b_prompt_id", "b_response_id", "p_hat"];
const PAIRS: [&str; 5] =
    ["chosen_prompt_id", "chosen_response_id", "rejected_prompt_id", "rejected_response_id", "p_hat"];

/// The differences between the labels of one table. A row is the same row in both runs where it is about the same two
/// responses, whichever of them stands first.
#[derive(Debug, Default, PartialEq, Serialize)]
pub struct Labels {
    pub table: String,
    /// True where both runs used one result.
    pub same_result: bool,
    /// Rows in both.
    pub rows: u64,
    /// Of these, rows with another `p_hat`.
    pub moved: u64,
    /// The mean of its change's size over the rows in both.
    pub mean_change: Option<f64>,
    /// Rows that prefer the other side now.
    pub flips: u64,
    /// Rows of the first run alone.
    pub only_first: u64,
    /// Rows of the second run alone.
    pub only_second: u64,
}

/// Compares every table of verdicts and pairs that is in both runs.
///
/// # Errors
/// When a table is torn.
pub fn labels(a: &Side<'_>, b: &Side<'_>) -> Result<Vec<Labels>> {
    let mut all = Vec::new();
    for (stage, port) in of_both([a, b], &[Table::Verdicts, Table::Pairs]) {
        let (Found::There { entry, path }, Found::There { entry: other, path: other_path }) =
            (a.find(&stage, &port), b.find(&stage, &port))
        else {
            continue;
        };
        let table = name(&stage, &port);
        all.push(match entry == other {
            true => Labels { table, same_result: true, rows: kit::rows_of(&path)?, ..Labels::default() },
            false => compared(table, &read(&path)?, &read(&other_path)?),
        });
    }
    Ok(all)
}

/// P(the first side better) by row; the sides in the order of their ids.
type Sides = BTreeMap<Digest, Vec<f64>>;

fn read(path: &Path) -> Result<Sides> {
    let has = |columns: &[&str], rows: &Rows| {
        columns.iter().all(|column| rows.columns.iter().any(|(name, _)| name == column))
    };
    let rows = Rows::open(path)?;
    let columns = if has(&VERDICTS, &rows) { VERDICTS } else { PAIRS };
    let mut all = Sides::new();
    rows.each_of(&columns, |cells| {
        let text = |at: usize| cells[at].as_str().unwrap_or_default();
        let (first, second) = ((text(0), text(1)), (text(2), text(3)));
        let (low, high) = if first <= second { (first, second) } else { (second, first) };
        if let Some(p) = cells[4].as_f64() {
            let p = if first <= second { p } else { 1.0 - p };
            let key = Digest::of_value(&Value::from(vec![low.0, low.1, high.0, high.1]));
            all.entry(key).or_default().push(p);
        }
    })?;
    Ok(all)
}

fn compared(table: String, a: &Sides, b: &Sides) -> Labels {
    let mut labels = Labels { table, ..Labels::default() };
    let mut sum = 0.0;
    for (key, old) in a {
        let new = b.get(key).map_or(&[][..], Vec::as_slice);
        for (old, new) in old.iter().zip(new) {
            labels.rows += 1;
            let change = (new - old).abs();
            sum += change;
            labels.moved += u64::from(change > SAME);
            labels.flips += u64::from((old - 0.5) * (new - 0.5) < 0.0);
        }
        labels.only_first += old.len().saturating_sub(new.len()) as u64;
        labels.only_second += new.len().saturating_sub(old.len()) as u64;
    }
    labels.only_second += b.iter().filter(|(key, _)| !a.contains_key(key)).map(|(_, it)| it.len() as u64).sum::<u64>();
    labels.mean_change = (labels.rows > 0).then(|| sum / labels.rows as f64);
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_matched_and_counted() {
        let side = |rows: &[(&str, &[f64])]| -> Sides {
            rows.iter().map(|(id, p)| (Digest::of(id.as_bytes()), p.to_vec())).collect()
        };
        let a =
            side(&[("same", &[0.7]), ("moved", &[0.6]), ("flipped", &[0.9]), ("gone", &[0.5]), ("twice", &[0.1, 0.2])]);
        let b = side(&[("same", &[0.7]), ("moved", &[0.8]), ("flipped", &[0.3]), ("new", &[0.5]), ("twice", &[0.1])]);
        let labels = compared("t".to_owned(), &a, &b);
        assert_eq!((labels.rows, labels.moved, labels.flips, labels.only_first, labels.only_second), (4, 2, 1, 2, 1));
        assert!((labels.mean_change.unwrap() - 0.2).abs() < 1e-12);
    }
}
