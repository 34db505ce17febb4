//! Following two responses through the stages: what each stage knows of them, its numbers computed again.

use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_schema::Schema;
use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::table::held::Held;
use crate::table::read::BatchReader;
use crate::table::row::Row;
use crate::table::rows::{CalibratedVerdict, Comparison, Item, Pair, Prompt, ReferenceRow, Response, Utility, Verdict};

/// A response by the ids of its prompt and its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Side {
    /// The prompt.
    pub prompt_id: String,
    /// The response.
    pub response_id: String,
}

/// The two responses that are followed, or one of them twice where it goes its way alone as an item; and the comparisons and pairs that are known to be about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trail {
    /// The sides, as the row where the trail began has them.
    pub sides: [Side; 2],
    /// Ids of comparisons, pairs and items about these sides.
    pub rows: Vec<String>,
}

/// A row that a stage has of a trail, in words and numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Traced {
    /// What the facts are of, such as `verdict 3f2a`.
    pub title: String,
    /// What is known, in the order of reading.
    pub facts: Vec<Fact>,
}

/// One value of a row, beside the same computed again where that is possible.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fact {
    /// What it is: the column, or a few words.
    pub name: String,
    /// As it is stored.
    pub stored: Value,
    /// As it comes out of what else is stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recomputed: Option<Value>,
    /// How it was computed, or what it means.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub how: String,
}

/// Numbers agree up to this, relative where they are above 1: sums may be taken in another order.
const ROUNDING: f64 = 1e-9;

impl Fact {
    /// A value that nothing else stored can tell.
    pub fn told(name: &str, stored: impl Into<Value>) -> Fact {
        Fact { name: name.to_owned(), stored: stored.into(), recomputed: None, how: String::new() }
    }

    /// A value and the same computed again.
    pub fn checked(name: &str, stored: impl Into<Value>, again: impl Into<Value>, how: &str) -> Fact {
        Fact { name: name.to_owned(), stored: stored.into(), recomputed: Some(again.into()), how: how.to_owned() }
    }

    /// Adds what a reader should know of it.
    pub fn because(self, how: impl Into<String>) -> Fact {
        Fact { how: how.into(), ..self }
    }

    /// Whether what was computed again is what is stored.
    pub fn agrees(&self) -> bool {
        let Some(again) = &self.recomputed else { return true };
        match (self.stored.as_f64(), again.as_f64()) {
            (Some(stored), Some(again)) => (stored - again).abs() <= ROUNDING * stored.abs().max(1.0),
            _ => self.stored == *again,
        }
    }
}

/// A row about two responses.
pub trait TwoSided: Row {
    /// The columns of prompt id and response id of the first side, then of the second.
    const SIDES: [&'static str; 4];
}

/// A row about one response.
pub trait OneSided: Row {
    /// The columns of prompt id and response id.
    const SIDE: [&'static str; 2];
}

const OF_COMPARISON: [&str; 4] = ["a_prompt_id", "a_response_id", "b_prompt_id", "b_response_id"];

impl TwoSided for Comparison {
    const SIDES: [&'static str; 4] = OF_COMPARISON;
}

impl TwoSided for Verdict {
    const SIDES: [&'static str; 4] = OF_COMPARISON;
}

impl TwoSided for CalibratedVerdict {
    const SIDES: [&'static str; 4] = OF_COMPARISON;
}

impl TwoSided for Pair {
    const SIDES: [&'static str; 4] =
        ["chosen_prompt_id", "chosen_response_id", "rejected_prompt_id", "rejected_response_id"];
}

impl OneSided for Response {
    const SIDE: [&'static str; 2] = ["prompt_id", "response_id"];
}

impl OneSided for ReferenceRow {
    const SIDE: [&'static str; 2] = ["prompt_id", "response_id"];
}

impl OneSided for Item {
    const SIDE: [&'static str; 2] = ["prompt_id", "response_id"];
}

impl OneSided for Utility {
    const SIDE: [&'static str; 2] = ["prompt_id", "response_id"];
}

impl Trail {
    /// The number of a side: 0 or 1.
    pub fn side(&self, prompt_id: &str, response_id: &str) -> Option<usize> {
        self.sides.iter().position(|side| side.prompt_id == prompt_id && side.response_id == response_id)
    }

    /// Whether one response is followed by itself.
    pub fn is_single(&self) -> bool {
        self.sides[0] == self.sides[1]
    }

    /// The rows of some tables that are about both sides, whichever comes first; all that one response is in where it is
    /// followed by itself.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn pairs_in<R: TwoSided, P: AsRef<Path>>(&self, tables: &[P]) -> Result<Vec<R>> {
        let [one, other] = &self.sides;
        find(tables, &R::SIDES, |cells| {
            let is = |side: &Side, at: usize| cells[at] == side.prompt_id && cells[at + 1] == side.response_id;
            match self.is_single() {
                true => is(one, 0) || is(one, 2),
                false => is(one, 0) && is(other, 2) || is(other, 0) && is(one, 2),
            }
        })
    }

    /// The rows of some tables that are about one of the sides.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn sides_in<R: OneSided, P: AsRef<Path>>(&self, tables: &[P]) -> Result<Vec<R>> {
        find(tables, &R::SIDE, |cells| self.side(cells[0], cells[1]).is_some())
    }

    /// The rows of prompts of the sides.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn prompts_in<P: AsRef<Path>>(&self, tables: &[P]) -> Result<Vec<Prompt>> {
        find(tables, &["prompt_id"], |cells| self.sides.iter().any(|side| side.prompt_id == cells[0]))
    }
}

/// The rows of some tables whose text columns (which may not be null) are as wanted. Other columns are read only where
/// there are such rows.
///
/// # Errors
/// When a table cannot be read.
pub fn find<R: Row, P: AsRef<Path>>(
    tables: &[P],
    columns: &[&str],
    wanted: impl Fn(&[&str]) -> bool,
) -> Result<Vec<R>> {
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<bool> = Vec::new();
    for batch in BatchReader::<R>::open(tables)?.only(columns) {
        let batch = batch?;
        let texts: Vec<_> = columns.iter().map(|name| batch.column(name).as_string::<i32>()).collect();
        found.extend((0..batch.batch.num_rows()).map(|row| {
            let cells: Vec<&str> = texts.iter().map(|text| text.value(row)).collect();
            wanted(&cells)
        }));
    }
    let rows: Vec<u32> = (0..).zip(&found).filter(|(_, found)| **found).map(|(row, _)| row).collect();
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let held = Held::read(BatchReader::<R>::open(tables)?, &found)?;
    let fields = R::fields();
    let arrays = fields.iter().map(|field| held.gather(field.name(), &rows)).collect::<Result<_>>()?;
    let wrong = |text: String| Error::internal(format!("rows of {}: {text}", R::TABLE));
    let batch = RecordBatch::try_new(Schema::new(fields).into(), arrays).map_err(|error| wrong(error.to_string()))?;
    R::from_batch(&batch).map_err(|missing| wrong(format!("column `{}` is empty", missing.column)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::rows::Message;
    use crate::table::write::TableWriter;

    fn pair(chosen: &str, rejected: &str) -> Pair {
        let text = |text: &str| vec![Message::new("user", text)];
        Pair {
            pair_id: format!("{chosen}{rejected}"),
            comparison_id: None,
            form: "same".to_owned(),
            chosen_prompt_id: "p".to_owned(),
            chosen_response_id: chosen.to_owned(),
            chosen_prompt: text("p"),
            chosen: text(chosen),
            rejected_prompt_id: "p".to_owned(),
            rejected_response_id: rejected.to_owned(),
            rejected_prompt: text("p"),
            rejected: text(rejected),
            p_hat: 0.75,
            weight: 1.0,
            source_file: None,
            source_line: Some(3),
        }
    }

    #[test]
    fn rows_of_a_trail_are_found_whichever_side_comes_first() {
        let folder = tempfile::tempdir().unwrap();
        let rows = [pair("x", "y"), pair("x", "z"), pair("y", "x"), pair("z", "z")];
        let mut writer = TableWriter::create(folder.path()).unwrap();
        writer.extend(rows.clone()).unwrap();
        writer.finish().unwrap();
        let side = |id: &str| Side { prompt_id: "p".to_owned(), response_id: id.to_owned() };
        let trail = Trail { sides: [side("x"), side("y")], rows: Vec::new() };
        assert_eq!(trail.pairs_in::<Pair, _>(&[folder.path()]).unwrap(), [rows[0].clone(), rows[2].clone()]);
        let elsewhere = Trail { sides: [side("x"), side("?")], rows: Vec::new() };
        assert!(elsewhere.pairs_in::<Pair, _>(&[folder.path()]).unwrap().is_empty());
        assert!(trail.pairs_in::<Pair, &Path>(&[]).unwrap().is_empty());
        // A response by itself: every row that it is in.
        let single = Trail { sides: [side("y"), side("y")], rows: Vec::new() };
        assert_eq!(single.pairs_in::<Pair, _>(&[folder.path()]).unwrap(), [rows[0].clone(), rows[2].clone()]);
    }

    #[test]
    fn what_differs_is_seen_and_rounding_is_not() {
        assert!(Fact::told("logp", -3.5).agrees());
        assert!(Fact::checked("p", 0.3, 0.1 + 0.2, "").agrees());
        assert!(!Fact::checked("p", 0.3, 0.300001, "").agrees());
        assert!(!Fact::checked("p", 0.3, f64::NAN, "").agrees());
        assert!(!Fact::checked("side", "a", "b", "").agrees());
        assert!(!Fact::checked("mass", Value::Null, 0.5, "").agrees());
    }
}
