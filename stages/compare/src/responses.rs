//! The input of a selection: the responses, their prompts, and the embeddings of those prompts.

use std::ops::Range;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use kit::rows::Embedding;
use kit::{Cell, Context, Digest, Error, Result};
use polars::prelude::{
    DataFrame, DataFrameJoinOps, IntoColumn, JoinArgs, JoinType, NamedFrom, PolarsResult, Series, SortOptions,
};

use crate::config::{Against, Compare, Within};

/// A response, without its text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    /// Its row in the inputs, numbered over `from` and `baseline`.
    pub row: u32,
    /// Its prompt, an index into the sorted ids.
    pub prompt: u32,
    /// The digest of its ids.
    pub key: u128,
    /// The digest of its text.
    pub text: u128,
    /// From the input `baseline`, or by the model that the others are set against.
    pub given: bool,
    /// From the input `baseline`.
    pub outside: bool,
    /// Its score.
    pub score: Option<f64>,
}

/// The distinct responses, by prompt.
#[derive(Debug, Default)]
pub(crate) struct Responses {
    /// The prompts' ids, sorted.
    pub prompts: Vec<String>,
    /// The responses, by prompt and id.
    pub list: Vec<Response>,
    /// Range of each prompt's responses in the list.
    pub ranges: Vec<Range<usize>>,
    /// The response id of each row.
    pub ids: Vec<String>,
    /// For a row that says the same as an earlier one: that row.
    pub duplicate_of: Vec<Option<u32>>,
}

/// A row as read.
struct RawRow {
    prompt_id: String,
    text: u128,
    given: bool,
    outside: bool,
    score: Option<f64>,
}

impl Responses {
    /// Reads the inputs `from` and `baseline`.
    ///
    /// # Errors
    /// When an input cannot be read, or an id stands for two texts.
    pub(crate) fn read(settings: &Compare, context: &Context<'_>) -> Result<Responses> {
        let wanted_model = match &settings.within {
            Some(Within::Against(Against::Model(name))) => Some(name.as_str()),
            _ => None,
        };
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        for (key, outside) in [("from", false), ("baseline", true)] {
            let columns = ["response_id", "prompt_id", "text", "score", "model"];
            for batch in context.batches::<kit::rows::Response>(&[key])?.only(&columns) {
                let batch = batch?;
                let text = |name: &str| batch.column(name).as_string::<i32>();
                let (prompts, responses, texts) = (text("prompt_id"), text("response_id"), text("text"));
                let models = text("model");
                for at in 0..batch.batch.num_rows() {
                    let model = models.is_valid(at).then(|| models.value(at));
                    let score: Option<f64> = <Option<f64> as Cell>::get(batch.column("score"), at).flatten();
                    if score.is_some_and(f64::is_nan) {
                        return Err(Error::data(format!("{}, column `score`: NaN, wanted a number", batch.place(at))));
                    }
                    rows.push(RawRow {
                        prompt_id: prompts.value(at).to_owned(),
                        text: number(Digest::of(texts.value(at).as_bytes())),
                        given: outside || (wanted_model.is_some() && model == wanted_model),
                        outside,
                        score,
                    });
                    ids.push(responses.value(at).to_owned());
                }
            }
        }
        if rows.len() > u32::MAX as usize {
            return Err(Error::data(format!("more than {} responses", u32::MAX)));
        }
        Responses::of(rows, ids)
    }

    fn of(mut rows: Vec<RawRow>, ids: Vec<String>) -> Result<Responses> {
        let prompt_ids = rows.iter_mut().map(|row| std::mem::take(&mut row.prompt_id)).collect();
        let (prompts, prompt_of) = numbered(prompt_ids).map_err(internal)?;
        let mut list: Vec<Response> = rows
            .into_iter()
            .enumerate()
            .map(|(row, RawRow { text, given, outside, score, .. })| {
                let prompt = prompt_of[row];
                let key = kit::id_of(&[&prompts[prompt as usize], &ids[row]]);
                let key = u128::from_str_radix(&key, 16).expect("ids are hexadecimal digits");
                Response { row: row as u32, prompt, key, text, given, outside, score }
            })
            .collect();
        let place =
            |response: &Response| (response.prompt, &ids[response.row as usize], response.outside, response.row);
        list.sort_by(|a, b| place(a).cmp(&place(b)));
        let mut duplicate_of = vec![None; list.len()];
        let mut distinct: Vec<Response> = Vec::with_capacity(list.len());
        for response in list {
            match distinct.last() {
                Some(last) if last.key == response.key && last.text != response.text => {
                    return Err(Error::data(format!(
                        "response `{}` of prompt `{}` has two texts, in rows {} and {} of the input; give each its own id",
                        ids[response.row as usize],
                        prompts[response.prompt as usize],
                        last.row + 1,
                        response.row + 1
                    )));
                }
                // The baseline may say the same as the response it is compared with; that is found when they meet.
                Some(last) if last.key == response.key && last.outside == response.outside => {
                    duplicate_of[response.row as usize] = Some(last.row);
                }
                _ => distinct.push(response),
            }
        }
        let mut ranges = Vec::with_capacity(prompts.len());
        let mut start = 0;
        for prompt in 0..prompts.len() as u32 {
            let end = start + distinct[start..].iter().take_while(|response| response.prompt == prompt).count();
            ranges.push(start..end);
            start = end;
        }
        Ok(Responses { prompts, list: distinct, ranges, ids, duplicate_of })
    }
}

/// The sorted distinct ids, and the number of each id among them.
fn numbered(ids: Vec<String>) -> PolarsResult<(Vec<String>, Vec<u32>)> {
    if ids.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let distinct = Series::new("id".into(), &ids).unique()?.sort(SortOptions::default())?;
    let names: Vec<String> = distinct.str()?.iter().flatten().map(str::to_owned).collect();
    let numbers = matched(ids, &names)?.into_iter().map(|(_, number)| number).collect();
    Ok((names, numbers))
}

/// The embeddings of prompts.
#[derive(Debug, Default)]
pub(crate) struct Embeddings {
    /// The prompt of each row of the matrix, ascending.
    pub prompts: Vec<u32>,
    /// Row by row, each of unit length.
    pub matrix: Vec<f32>,
    /// Numbers in a row.
    pub width: usize,
}

impl Embeddings {
    /// Reads the embeddings of some prompts; those of others are passed over.
    ///
    /// # Errors
    /// When the input cannot be read, or its vectors differ in length, are not finite or are zero.
    pub(crate) fn read(context: &Context<'_>, prompts: &[String], wanted: &[bool]) -> Result<Embeddings> {
        let mut ids = Vec::new();
        for batch in context.batches::<Embedding>(&["embeddings"])?.only(&["prompt_id"]) {
            let batch = batch?;
            let column = batch.column("prompt_id").as_string::<i32>();
            ids.extend((0..column.len()).map(|at| column.value(at).to_owned()));
        }
        // Row of the input -> prompt.
        let mut prompt_of = vec![None; ids.len()];
        let mut first = vec![None; prompts.len()];
        for (row, prompt) in matched(ids, prompts).map_err(internal)? {
            if wanted[prompt as usize] && first[prompt as usize].is_none() {
                first[prompt as usize] = Some(row);
                prompt_of[row as usize] = Some(prompt);
            }
        }
        let order: Vec<u32> = (0..prompts.len() as u32).filter(|&prompt| first[prompt as usize].is_some()).collect();
        let mut place = vec![0; prompts.len()];
        order.iter().enumerate().for_each(|(at, &prompt)| place[prompt as usize] = at);
        let mut embeddings = Embeddings { prompts: order, matrix: Vec::new(), width: 0 };
        let mut row = 0;
        for batch in context.batches::<Embedding>(&["embeddings"])?.only(&["embedding"]) {
            let batch = batch?;
            let lists = batch.column("embedding").as_list::<i32>();
            for at in 0..batch.batch.num_rows() {
                if let Some(prompt) = prompt_of.get(row).copied().flatten() {
                    let values = lists.value(at);
                    let place = place[prompt as usize];
                    embeddings
                        .put(place, values.as_primitive::<Float32Type>().values())
                        .map_err(|what| Error::data(format!("{}, column `embedding`: {what}", batch.place(at))))?;
                }
                row += 1;
            }
        }
        Ok(embeddings)
    }

    fn put(&mut self, place: usize, values: &[f32]) -> Result<(), String> {
        if self.width == 0 {
            self.width = values.len();
            self.matrix = vec![0.0; self.width * self.prompts.len()];
        }
        let norm = values.iter().map(|&value| f64::from(value) * f64::from(value)).sum::<f64>().sqrt();
        if values.len() != self.width {
            return Err(format!("{} numbers, wanted {} as in the rows before", values.len(), self.width));
        }
        if !(norm > 0.0 && norm.is_finite()) {
            return Err("a vector without direction, wanted finite numbers that are not all 0".to_owned());
        }
        let row = &mut self.matrix[place * self.width..][..self.width];
        row.iter_mut().zip(values).for_each(|(to, &value)| *to = (f64::from(value) / norm) as f32);
        Ok(())
    }
}

/// Pairs (row, prompt) where the id of the row is that of the prompt, by row.
fn matched(ids: Vec<String>, prompts: &[String]) -> PolarsResult<Vec<(u32, u32)>> {
    if ids.is_empty() || prompts.is_empty() {
        return Ok(Vec::new());
    }
    let frame = |name: &str, ids: &[String]| {
        let numbers = Series::new(name.into(), (0..ids.len() as u32).collect::<Vec<u32>>()).into_column();
        DataFrame::new(ids.len(), vec![Series::new("id".into(), ids).into_column(), numbers])
    };
    let inner = JoinArgs::new(JoinType::Inner);
    let joined = frame("row", &ids)?.join(&frame("number", prompts)?, ["id"], ["id"], inner, None)?;
    let (rows, numbers) = (joined.column("row")?.u32()?, joined.column("number")?.u32()?);
    let mut pairs: Vec<(u32, u32)> = rows.into_no_null_iter().zip(numbers.into_no_null_iter()).collect();
    pairs.sort_unstable();
    Ok(pairs)
}

fn number(digest: Digest) -> u128 {
    u128::from_be_bytes(digest.bytes()[..16].try_into().expect("16 bytes"))
}

fn internal(error: polars::prelude::PolarsError) -> Error {
    Error::internal(error.to_string())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Responses given as `prompt/id/text`; those with `!` in front are given ones.
    pub(crate) fn responses(list: &[&str]) -> Result<Responses> {
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        for (at, response) in list.iter().enumerate() {
            let parts: Vec<_> = response.trim_start_matches('!').split('/').collect();
            rows.push(RawRow {
                prompt_id: parts[0].to_owned(),
                text: number(Digest::of(parts[2].as_bytes())),
                given: response.starts_with('!'),
                outside: false,
                score: Some(at as f64),
            });
            ids.push(parts[1].to_owned());
        }
        Responses::of(rows, ids)
    }

    #[test]
    fn responses_are_ordered_by_prompt_and_id() {
        let found = responses(&["q/2/x", "p/b/x", "q/1/y", "p/a/y", "q/2/x"]).unwrap();
        assert_eq!(found.prompts, ["p", "q"]);
        assert_eq!(found.list.iter().map(|response| response.row).collect::<Vec<_>>(), [3, 1, 2, 0]);
        assert_eq!(found.ranges, [0..2, 2..4]);
        assert_eq!(found.duplicate_of, [None, None, None, None, Some(0)]);
        assert!(responses(&[]).unwrap().list.is_empty());
    }

    #[test]
    fn one_id_with_two_texts_is_an_error() {
        let error = responses(&["q/2/x", "p/2/x", "q/2/y"]).unwrap_err().to_string();
        assert!(error.starts_with("response `2` of prompt `q` has two texts, in rows 1 and 3"), "{error}");
    }
}
