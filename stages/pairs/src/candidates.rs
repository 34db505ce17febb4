//! Candidates for pairs, as the rules see them: ids and labels, without texts.

use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use kit::rows::{Pair, Verdict};
use kit::{BatchReader, Error, Result, Row, TableBatch};
use rayon::prelude::*;

use crate::draw::Key;

/// A row of the input: two sides and a label. Side 0 is `a` of a verdict and `chosen` of a pair.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    /// The pair's id if side 0 is chosen, and if side 1 is.
    pub keys: [Key; 2],
    /// The prompts of the sides.
    pub prompts: [Key; 2],
    /// The sides: prompt and response together.
    pub sides: [Key; 2],
    /// Each side under its own prompt.
    pub joint: bool,
    /// P(side 0 better).
    pub p_first: f64,
    /// The weight from the data; 1 for verdicts.
    pub weight: f64,
}

impl Candidate {
    /// The same for both orders of the sides.
    pub(crate) fn key(&self) -> Key {
        self.keys[0].min(self.keys[1])
    }
}

/// The columns of an input table that hold the sides, the label and the row's id.
pub(crate) struct Layout {
    /// The row's id.
    pub id: &'static str,
    /// Prompt id, response id, prompt and response of side 0.
    pub first: [&'static str; 4],
    /// The same of side 1.
    pub second: [&'static str; 4],
    /// The weight, where the table has one.
    pub weight: Option<&'static str>,
}

/// A table that pairs are made from.
pub(crate) trait Sides: Row {
    /// Places of its columns.
    const LAYOUT: Layout;
}

impl Sides for Verdict {
    const LAYOUT: Layout = Layout {
        id: "comparison_id",
        first: ["a_prompt_id", "a_response_id", "a_prompt", "a_response"],
        second: ["b_prompt_id", "b_response_id", "b_prompt", "b_response"],
        weight: None,
    };
}

impl Sides for Pair {
    const LAYOUT: Layout = Layout {
        id: "pair_id",
        first: ["chosen_prompt_id", "chosen_response_id", "chosen_prompt", "chosen"],
        second: ["rejected_prompt_id", "rejected_response_id", "rejected_prompt", "rejected"],
        weight: Some("weight"),
    };
}

/// The ids of all rows, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    text: String,
    ends: Vec<usize>,
}

impl Ids {
    /// Adds the id of the next row.
    pub(crate) fn push(&mut self, id: &str) {
        self.text.push_str(id);
        self.ends.push(self.text.len());
    }

    /// Adds the ids of the rows that follow.
    fn extend(&mut self, more: &Ids) {
        let before = self.text.len();
        self.text.push_str(&more.text);
        self.ends.extend(more.ends.iter().map(|end| before + end));
    }

    /// The id of a row.
    pub(crate) fn get(&self, row: u32) -> &str {
        let row = row as usize;
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.text[start..self.ends[row]]
    }
}

/// Reads the candidates of an input and the ids of its rows.
///
/// # Errors
/// When the input cannot be read, or a label, weight or form is not one; file and row are named.
pub(crate) fn read<R: Sides>(reader: BatchReader<R>) -> Result<(Vec<Candidate>, Ids)> {
    let layout = R::LAYOUT;
    let mut columns = vec![layout.id, "form", "p_hat"];
    columns.extend(layout.first[..2].iter().chain(&layout.second[..2]).copied().chain(layout.weight));
    let read = |reader: BatchReader<R>| {
        let (mut candidates, mut ids) = (Vec::new(), Ids::default());
        for batch in reader {
            let batch = batch?;
            candidates_of(&layout, &batch, &mut candidates)?;
            batch.column(layout.id).as_string::<i32>().iter().flatten().for_each(|id| ids.push(id));
        }
        Ok((candidates, ids))
    };
    let pieces: Vec<Result<_>> =
        reader.only(&columns).split()?.into_par_iter().map(|(_, reader)| read(reader)).collect();
    let (mut candidates, mut ids) = (Vec::new(), Ids::default());
    for piece in pieces {
        let (more, more_ids) = piece?;
        candidates.extend(more);
        ids.extend(&more_ids);
        if candidates.len() > u32::MAX as usize {
            return Err(Error::data(format!("{} has more than {} rows", R::TABLE, u32::MAX)));
        }
    }
    Ok((candidates, ids))
}

/// Adds the candidates of a batch.
fn candidates_of(layout: &Layout, batch: &TableBatch, into: &mut Vec<Candidate>) -> Result<()> {
    let text = |name: &str| batch.column(name).as_string::<i32>();
    let number = |name: &str| batch.column(name).as_primitive::<Float64Type>();
    let [a_prompts, a_responses] = [layout.first[0], layout.first[1]].map(text);
    let [b_prompts, b_responses] = [layout.second[0], layout.second[1]].map(text);
    let (forms, labels, weights) = (text("form"), number("p_hat"), layout.weight.map(number));
    let candidate = |row: usize| {
        let a = (a_prompts.value(row), a_responses.value(row));
        let b = (b_prompts.value(row), b_responses.value(row));
        let side = |side: (&str, &str)| side_key(side.0, side.1);
        let (p_first, weight) = (labels.value(row), weights.map_or(1.0, |weights| weights.value(row)));
        // NaN is in no range.
        if !(0.0..=1.0).contains(&p_first) {
            return Err(wrong(batch, row, "p_hat", &format!("{p_first}, wanted a probability in [0, 1]")));
        }
        if !(weight >= 0.0 && weight.is_finite()) {
            return Err(wrong(batch, row, "weight", &format!("{weight}, wanted a number of at least 0")));
        }
        let prompt = |id: &str| Key::made_of(&[id]);
        let a_prompt = prompt(a.0);
        Ok(Candidate {
            keys: [Key(kit::ids::pair_bits(a, b)), Key(kit::ids::pair_bits(b, a))],
            prompts: [a_prompt, if a.0 == b.0 { a_prompt } else { prompt(b.0) }],
            sides: [side(a), side(b)],
            joint: joint(forms.value(row), a.0 == b.0).map_err(|text| wrong(batch, row, "form", &text))?,
            p_first,
            weight,
        })
    };
    (0..batch.batch.num_rows()).try_for_each(|row| {
        into.push(candidate(row)?);
        Ok(())
    })
}

/// A side: prompt and response together.
pub(crate) fn side_key(prompt_id: &str, response_id: &str) -> Key {
    Key::made_of(&[prompt_id, response_id])
}

fn joint(form: &str, one_prompt: bool) -> Result<bool, String> {
    match form {
        "same" if one_prompt => Ok(false),
        "same" => Err("`same`, but the sides have different prompt ids; wanted `joint`".to_owned()),
        "joint" => Ok(true),
        other => Err(format!("`{other}`, wanted `same` or `joint`")),
    }
}

fn wrong(batch: &TableBatch, row: usize, column: &str, what: &str) -> Error {
    Error::data(format!("{}, column `{column}`: {what}", batch.place(row)))
}
