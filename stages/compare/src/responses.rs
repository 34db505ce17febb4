//! The input of a selection: the responses, their prompts, and the embeddings of those prompts.

use std::collections::HashMap;
use std::ops::Range;

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::Float32Type;
use kit::rows::Embedding;
use kit::{Cell, Context, Digest, Error, Result, Texts};
use polars::prelude::{ChunkUnique, StringChunkedBuilder};
use rayon::prelude::*;

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
    pub prompts: Texts,
    /// The responses, by prompt and id.
    pub list: Vec<Response>,
    /// Range of each prompt's responses in the list.
    pub ranges: Vec<Range<usize>>,
    /// The response id of each row.
    pub ids: Texts,
    /// For rows that say the same as an earlier one: that row.
    pub duplicate_of: HashMap<u32, u32>,
}

/// The rows as read: what the list holds of each, but for its prompt and key, and the ids.
#[derive(Default)]
struct Read {
    list: Vec<Response>,
    prompt_ids: Texts,
    ids: Texts,
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
        let rows = context.count_rows_of(&["from", "baseline"])? as usize;
        if rows > u32::MAX as usize {
            return Err(Error::data(format!("more than {} responses", u32::MAX)));
        }
        let mut read = Read { list: Vec::with_capacity(rows), ..Read::default() };
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
                    let given = outside || (wanted_model.is_some() && model == wanted_model);
                    read.push([prompts.value(at), responses.value(at)], texts.value(at), given, outside, score);
                }
            }
        }
        read.into_responses()
    }

    /// The responses of a prompt that are of the input `from`.
    pub(crate) fn inside(&self, prompt: u32) -> impl Iterator<Item = u32> + Clone {
        let range = self.ranges[prompt as usize].clone();
        (range.start as u32..range.end as u32).filter(|&at| !self.list[at as usize].outside)
    }
}

impl Read {
    fn push(&mut self, ids: [&str; 2], text: &str, given: bool, outside: bool, score: Option<f64>) {
        let row = self.list.len() as u32;
        let text = number(&Digest::of(text.as_bytes()).bytes()[..16]);
        self.list.push(Response { row, prompt: 0, key: 0, text, given, outside, score });
        self.prompt_ids.push(ids[0]);
        self.ids.push(ids[1]);
    }

    fn into_responses(self) -> Result<Responses> {
        let Read { mut list, prompt_ids, ids } = self;
        list.par_iter_mut().for_each(|response| {
            response.key = number(&kit::id_bits(&[prompt_ids.get(response.row), ids.get(response.row)]));
        });
        let place = |response: &Response| {
            let row = response.row;
            (prompt_ids.get(row), ids.get(row), response.outside, row)
        };
        list.par_sort_unstable_by(|a, b| place(a).cmp(&place(b)));
        let mut responses = Responses::default();
        let mut distinct = 0;
        for at in 0..list.len() {
            let id = prompt_ids.get(list[at].row);
            if distinct == 0 || prompt_ids.get(list[distinct - 1].row) != id {
                responses.prompts.push(id);
                responses.ranges.push(distinct..distinct);
            } else {
                let (last, response) = (&list[distinct - 1], &list[at]);
                if last.key == response.key && last.text != response.text {
                    return Err(Error::data(format!(
                        "response `{}` of prompt `{id}` has two texts, in rows {} and {} of the input; give each its own id",
                        ids.get(response.row),
                        last.row + 1,
                        response.row + 1
                    )));
                }
                // The baseline may say the same as the response it is compared with; that is found when they meet.
                if last.key == response.key && last.outside == response.outside {
                    responses.duplicate_of.insert(response.row, last.row);
                    continue;
                }
            }
            list[at].prompt = responses.prompts.len() as u32 - 1;
            list.swap(distinct, at);
            distinct += 1;
            responses.ranges.last_mut().expect("its prompt has a range").end = distinct;
        }
        list.truncate(distinct);
        Ok(Responses { list, ids, ..responses })
    }
}

/// The prompts that are searched: those with embeddings. Their vectors are read when they are needed.
#[derive(Debug, Default)]
pub(crate) struct Embedded {
    /// The prompts, ascending.
    pub prompts: Vec<u32>,
    /// Row of the input -> place among the prompts, where it is the first row of one of them.
    places: Vec<Option<u32>>,
}

impl Embedded {
    /// Finds those of the wanted prompts; others are passed over.
    ///
    /// # Errors
    /// When the input cannot be read.
    pub(crate) fn read(context: &Context<'_>, prompts: &Texts, wanted: &[bool]) -> Result<Embedded> {
        let rows = context.count_rows_of(&["embeddings"])? as usize;
        let mut ids = StringChunkedBuilder::new("prompt_id".into(), rows);
        for batch in context.batches::<Embedding>(&["embeddings"])?.only(&["prompt_id"]) {
            batch?.column("prompt_id").as_string::<i32>().iter().for_each(|id| ids.append_option(id));
        }
        let ids = ids.finish();
        let mut places = vec![None; ids.len()];
        for row in ids.arg_unique().map_err(|error| Error::internal(error.to_string()))?.into_no_null_iter() {
            let prompt = ids.get(row as usize).and_then(|id| prompts.find(id));
            places[row as usize] = prompt.filter(|prompt| wanted[*prompt as usize]);
        }
        let mut order: Vec<u32> = places.iter().flatten().copied().collect();
        order.sort_unstable();
        let mut place = vec![0; prompts.len()];
        order.iter().enumerate().for_each(|(at, &prompt)| place[prompt as usize] = at as u32);
        places.iter_mut().flatten().for_each(|prompt| *prompt = place[*prompt as usize]);
        Ok(Embedded { prompts: order, places })
    }

    /// Their vectors.
    ///
    /// # Errors
    /// When the input cannot be read, or its vectors differ in length, are not finite or are zero.
    pub(crate) fn vectors(&self, context: &Context<'_>) -> Result<Vectors> {
        let mut vectors = Vectors::default();
        let mut row = 0;
        for batch in context.batches::<Embedding>(&["embeddings"])?.only(&["embedding"]) {
            let batch = batch?;
            let lists = batch.column("embedding").as_list::<i32>();
            for at in 0..batch.batch.num_rows() {
                if let Some(place) = self.places.get(row).copied().flatten() {
                    let values = lists.value(at);
                    let values = values.as_primitive::<Float32Type>().values();
                    vectors
                        .put(place as usize, values, self.prompts.len())
                        .map_err(|what| Error::data(format!("{}, column `embedding`: {what}", batch.place(at))))?;
                }
                row += 1;
            }
        }
        Ok(vectors)
    }
}

/// Vectors of unit length.
#[derive(Debug, Default)]
pub(crate) struct Vectors {
    /// Row by row.
    pub matrix: Vec<f32>,
    /// Numbers in a row.
    pub width: usize,
}

impl Vectors {
    fn put(&mut self, place: usize, values: &[f32], rows: usize) -> Result<(), String> {
        if self.width == 0 {
            self.width = values.len();
            self.matrix = vec![0.0; self.width * rows];
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

/// The number that some bytes are, the first one the greatest.
fn number(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Responses given as `prompt/id/text`; those with `!` in front are given ones.
    pub(crate) fn responses(list: &[&str]) -> Result<Responses> {
        let mut read = Read::default();
        for (at, response) in list.iter().enumerate() {
            let parts: Vec<_> = response.trim_start_matches('!').split('/').collect();
            read.push([parts[0], parts[1]], parts[2], response.starts_with('!'), false, Some(at as f64));
        }
        read.into_responses()
    }

    #[test]
    fn responses_are_ordered_by_prompt_and_id() {
        let found = responses(&["q/2/x", "p/b/x", "q/1/y", "p/a/y", "q/2/x"]).unwrap();
        assert_eq!(found.prompts, ["p", "q"].into_iter().collect());
        assert_eq!(found.list.iter().map(|response| response.row).collect::<Vec<_>>(), [3, 1, 2, 0]);
        assert_eq!(found.ranges, [0..2, 2..4]);
        assert_eq!(found.duplicate_of, HashMap::from([(4, 0)]));
        assert!(responses(&[]).unwrap().list.is_empty());
    }

    #[test]
    fn one_id_with_two_texts_is_an_error() {
        let error = responses(&["q/2/x", "p/2/x", "q/2/y"]).unwrap_err().to_string();
        assert!(error.starts_with("response `2` of prompt `q` has two texts, in rows 1 and 3"), "{error}");
    }
}
