//! Responses with a score each, one a row: those to one prompt are compared.

use std::collections::HashMap;

use super::ranked::{compared, weighted_sum};
use super::{Known, Part};
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::record::{Record, Side};
use crate::row::Row;
use crate::scores::field;
use crate::tables::comparisons;

pub const FORMAT: Known = Known {
    // A score beside a completion does not say that it is to be compared.
    detect: |_| false,
    needs: &[Prompt, Completion],
    reads: &[Prompt, Input, System, Tools, Completion, Score, PromptId, ResponseId, Model],
    tables: |_| comparisons(true),
    join: Some(join),
    ..Known::NONE
};

fn join(rows: &mut [Row<'_>]) -> Vec<Result<Part, BadRow>> {
    let sides: Vec<Result<Option<(f64, Side)>, BadRow>> = rows.iter_mut().map(side).collect();
    let mut by_prompt: HashMap<String, Vec<usize>> = HashMap::new();
    let mut prompts: Vec<String> = Vec::new();
    for (at, side) in sides.iter().enumerate() {
        if let Ok(Some((_, side))) = side {
            let prompt = side.prompt_id.clone().unwrap_or_else(|| kit::ids::prompt_id(&side.prompt));
            let known = by_prompt.entry(prompt.clone()).or_default();
            if known.is_empty() {
                prompts.push(prompt);
            }
            known.push(at);
        }
    }
    let mut parts: Vec<Result<Part, BadRow>> = sides
        .iter()
        .map(|side| match side {
            Err(bad) => Err(bad.clone()),
            Ok(Some(_)) => Ok(Part::Elsewhere),
            Ok(None) => Ok(Part::LeftOut(BadRow::new("no_score", "its score is null; NaN counts as null"))),
        })
        .collect();
    for prompt in prompts {
        let places = &by_prompt[&prompt];
        let all: Vec<(f64, Side)> = places
            .iter()
            .map(|at| sides[*at].as_ref().expect("it was read").clone().expect("it has a score"))
            .collect();
        let last = *places.last().expect("a prompt has a response");
        let records = compared(&rows[last], &all, 1.0, None);
        parts[last] = Ok(match records.is_empty() {
            true => {
                let detail = "no other response to its prompt has a score";
                Part::LeftOut(BadRow::new("nothing_to_compare", detail))
            }
            false => Part::Says(records),
        });
    }
    parts
}

/// A response with how good it is; nothing where it has no score.
fn side(row: &mut Row<'_>) -> Result<Option<(f64, Side)>, BadRow> {
    let scores = row.columns.scores.clone().unwrap_or_default();
    let made = match scores.criteria.is_empty() {
        true => row.number(Score)?,
        false => {
            let fields = serde_json::Value::Object(row.fields.clone());
            weighted_sum(&scores, |name| field(&fields, name), "the row")?
        }
    };
    let Some(score) = made else { return Ok(None) };
    match row.item(0.0)? {
        Record::Item { side, .. } => Ok(Some((score, Side { score: Some(score), ..*side }))),
        _ => unreachable!("a response is an item"),
    }
}
