//! Candidates for pairs, as the rules see them: ids and labels, without texts.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use kit::rows::{Pair, Verdict};
use kit::{BatchReader, Error, Result, Row, TableBatch, Texts};
use rayon::prelude::*;

use crate::config::{Pairs, Repeats, Write};
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

/// The rows of the input, column by column: of tens of millions only what the rules ask for is held.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Candidates {
    keys: Vec<[Key; 2]>,
    p_first: Vec<f64>,
    flags: Vec<u8>,
    /// The prompts, where the rules ask for them.
    prompts: Vec<[Key; 2]>,
    /// The sides, where they do.
    sides: Vec<[Key; 2]>,
    /// The weights, where the table has them.
    weights: Vec<f64>,
}

/// Each side under its own prompt.
const JOINT: u8 = 1;
/// Both sides are the same response.
const SAME: u8 = 2;

/// The columns that the rules ask for beside keys and labels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// The prompts: for caps, and for responses of other prompts.
    pub prompts: bool,
    /// The sides: for responses that stand in several pairs.
    pub sides: bool,
}

impl Wanted {
    /// What these settings ask for.
    pub(crate) fn of(settings: &Pairs) -> Wanted {
        let items = settings.write == Write::Items;
        Wanted {
            prompts: settings.cap_per_prompt.is_some() || (items && settings.kl_group.is_some()),
            sides: items && settings.repeats.unwrap_or(Repeats::Mean) == Repeats::Mean,
        }
    }
}

impl Candidates {
    /// The number of rows.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The pair's id if side 0 is chosen, and if side 1 is.
    pub(crate) fn keys(&self, row: u32) -> [Key; 2] {
        self.keys[row as usize]
    }

    /// The same for both orders of the sides.
    pub(crate) fn key(&self, row: u32) -> Key {
        let [first, second] = self.keys(row);
        first.min(second)
    }

    /// The prompts of the sides.
    pub(crate) fn prompts(&self, row: u32) -> [Key; 2] {
        self.prompts[row as usize]
    }

    /// The sides: prompt and response together.
    pub(crate) fn sides(&self, row: u32) -> [Key; 2] {
        self.sides[row as usize]
    }

    /// True where both sides are the same response.
    pub(crate) fn same(&self, row: u32) -> bool {
        self.flags[row as usize] & SAME > 0
    }

    /// True where each side is under its own prompt.
    pub(crate) fn joint(&self, row: u32) -> bool {
        self.flags[row as usize] & JOINT > 0
    }

    /// P(side 0 better).
    pub(crate) fn p_first(&self, row: u32) -> f64 {
        self.p_first[row as usize]
    }

    /// The weight from the data; 1 for verdicts.
    pub(crate) fn weight(&self, row: u32) -> f64 {
        self.weights.get(row as usize).copied().unwrap_or(1.0)
    }

    /// Of all columns the keys alone.
    pub(crate) fn into_keys(self) -> Candidates {
        Candidates { keys: self.keys, ..Candidates::default() }
    }

    /// Rows that are not filled yet.
    fn empty(rows: usize, wanted: Wanted, weighted: bool) -> Candidates {
        let keys = |wanted: bool| vec![[Key([0; 12]); 2]; if wanted { rows } else { 0 }];
        Candidates {
            keys: keys(true),
            p_first: vec![0.0; rows],
            flags: vec![0; rows],
            prompts: keys(wanted.prompts),
            sides: keys(wanted.sides),
            weights: vec![0.0; if weighted { rows } else { 0 }],
        }
    }

    fn slots(&mut self) -> Slots<'_> {
        Slots {
            keys: &mut self.keys,
            p_first: &mut self.p_first,
            flags: &mut self.flags,
            prompts: &mut self.prompts,
            sides: &mut self.sides,
            weights: &mut self.weights,
        }
    }

    /// All columns of some rows.
    #[cfg(test)]
    pub(crate) fn of(rows: &[Candidate]) -> Candidates {
        let mut candidates = Candidates::empty(rows.len(), Wanted { prompts: true, sides: true }, true);
        rows.iter().enumerate().for_each(|(at, row)| candidates.slots().put(at, row));
        candidates
    }
}

/// The places of consecutive rows.
struct Slots<'a> {
    keys: &'a mut [[Key; 2]],
    p_first: &'a mut [f64],
    flags: &'a mut [u8],
    prompts: &'a mut [[Key; 2]],
    sides: &'a mut [[Key; 2]],
    weights: &'a mut [f64],
}

impl<'a> Slots<'a> {
    /// The first so many, and the others.
    fn split(self, at: usize) -> (Slots<'a>, Slots<'a>) {
        fn two<T>(column: &mut [T], at: usize) -> (&mut [T], &mut [T]) {
            let at = at.min(column.len());
            column.split_at_mut(at)
        }
        let (keys, p_first, flags) = (two(self.keys, at), two(self.p_first, at), two(self.flags, at));
        let (prompts, sides, weights) = (two(self.prompts, at), two(self.sides, at), two(self.weights, at));
        (
            Slots {
                keys: keys.0,
                p_first: p_first.0,
                flags: flags.0,
                prompts: prompts.0,
                sides: sides.0,
                weights: weights.0,
            },
            Slots {
                keys: keys.1,
                p_first: p_first.1,
                flags: flags.1,
                prompts: prompts.1,
                sides: sides.1,
                weights: weights.1,
            },
        )
    }

    fn put(&mut self, at: usize, row: &Candidate) {
        self.keys[at] = row.keys;
        self.p_first[at] = row.p_first;
        let same = if row.sides[0] == row.sides[1] { SAME } else { 0 };
        self.flags[at] = same | if row.joint { JOINT } else { 0 };
        self.prompts.get_mut(at).into_iter().for_each(|slot| *slot = row.prompts);
        self.sides.get_mut(at).into_iter().for_each(|slot| *slot = row.sides);
        self.weights.get_mut(at).into_iter().for_each(|slot| *slot = row.weight);
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

/// The ids of some rows of a table.
#[derive(Debug, Default)]
pub(crate) struct Names {
    ids: Texts,
    /// Row -> how many rows with an id come before it; empty where no row has one.
    ranks: Vec<u32>,
}

impl Names {
    /// Reads the ids of the wanted rows.
    ///
    /// # Errors
    /// When the input cannot be read, or has other rows than before.
    pub(crate) fn read<R: Sides>(reader: BatchReader, wanted: &[bool]) -> Result<Names> {
        if !wanted.contains(&true) {
            return Ok(Names::default());
        }
        let column = R::LAYOUT.id;
        let read = |(mut row, reader): (usize, BatchReader)| {
            let mut ids = Texts::default();
            for batch in reader {
                let batch = batch?;
                let of = batch.column(column).as_string::<i32>();
                let keep = wanted.get(row..row + of.len()).ok_or_else(changed::<R>)?;
                keep.iter().enumerate().filter(|(_, keep)| **keep).for_each(|(at, _)| ids.push(of.value(at)));
                row += of.len();
            }
            Ok(ids)
        };
        let pieces: Vec<Result<Texts>> = reader.only(&[column]).split()?.into_par_iter().map(read).collect();
        let mut names = Names::default();
        for piece in pieces {
            names.ids.append(&piece?);
        }
        let mut before = 0;
        names.ranks.reserve_exact(wanted.len());
        for &keep in wanted {
            names.ranks.push(before);
            before += u32::from(keep);
        }
        if names.ids.len() == before as usize { Ok(names) } else { Err(changed::<R>()) }
    }

    /// The id of a row that was wanted.
    pub(crate) fn get(&self, row: u32) -> &str {
        self.ids.get(self.ranks[row as usize])
    }
}

fn changed<R: Row>() -> Error {
    Error::data(format!("{}: changed while read", R::TABLE))
}

/// Reads the candidates of an input of so many rows, by all threads.
///
/// # Errors
/// When the input cannot be read, or a label, weight or form is not one; file and row are named.
pub(crate) fn read<R: Sides>(reader: BatchReader, rows: usize, wanted: Wanted) -> Result<Candidates> {
    if rows > u32::MAX as usize {
        return Err(Error::data(format!("{} has more than {} rows", R::TABLE, u32::MAX)));
    }
    let layout = R::LAYOUT;
    let mut columns = vec!["form", "p_hat"];
    columns.extend(layout.first[..2].iter().chain(&layout.second[..2]).copied().chain(layout.weight));
    let mut candidates = Candidates::empty(rows, wanted, layout.weight.is_some());
    let pieces = reader.only(&columns).split()?;
    let ends: Vec<usize> = pieces.iter().skip(1).map(|(first, _)| *first).chain([rows]).collect();
    let mut rest = candidates.slots();
    let mut work = Vec::new();
    for ((first, reader), end) in pieces.into_iter().zip(ends) {
        let (slots, after) = rest.split(end.checked_sub(first).ok_or_else(changed::<R>)?);
        rest = after;
        work.push((reader, slots));
    }
    let read = |(reader, mut slots): (BatchReader, Slots<'_>)| {
        let mut at = 0;
        for batch in reader {
            let batch = batch?;
            if at + batch.batch.num_rows() > slots.keys.len() {
                return Err(changed::<R>());
            }
            candidates_of(&layout, &batch, |row| {
                slots.put(at, &row);
                at += 1;
            })?;
        }
        if at == slots.keys.len() { Ok(()) } else { Err(changed::<R>()) }
    };
    // The first error by place, whatever thread met it.
    let read: Vec<Result<()>> = work.into_par_iter().map(read).collect();
    read.into_iter().collect::<Result<()>>()?;
    Ok(candidates)
}

/// Gives the candidates of a batch.
fn candidates_of(layout: &Layout, batch: &TableBatch, mut into: impl FnMut(Candidate)) -> Result<()> {
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
        into(candidate(row)?);
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
