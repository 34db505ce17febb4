//! Expected content of an input, before it exists: number of rows, lengths of texts, size of the model.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use crate::contract::forecast::Amount;
use crate::contract::port::Table;
use crate::error::{Error, Result};
use crate::table::ids::response_id;
use crate::table::parts::rows_of;
use crate::table::read::RowReader;
use crate::table::rows::{Comparison, Item, Message, Pair, Prompt, Response, Verdict};

/// Characters of a text in a token, where no tokenizer has seen it.
pub const CHARACTERS_PER_TOKEN: f64 = 4.0;
/// Bytes of a row's ids and numbers.
const BYTES_OF_REST: f64 = 100.0;
/// Rows from which the lengths of all are estimated.
const LOOKED_AT: usize = 256;

/// Expected content of a table or a model that does not exist yet, or that is not worth reading whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    /// The table it is.
    pub table: Table,
    /// Its rows.
    pub rows: Option<Amount>,
    /// The distinct prompts among them.
    pub prompts: Option<Amount>,
    /// The distinct responses among them.
    pub responses: Option<Amount>,
    /// Tokens of a prompt, on average.
    pub prompt_tokens: Option<f64>,
    /// Tokens of a response, on average.
    pub response_tokens: Option<f64>,
    /// The part of its rows whose sides have prompts of their own.
    pub joint: f64,
    /// A model's `config.json`; `{"gguf": PATH}` where it is such a file.
    pub model: Option<Value>,
}

impl Expected {
    /// Something of which nothing is known.
    pub fn unknown(table: Table) -> Expected {
        Expected {
            table,
            rows: None,
            prompts: None,
            responses: None,
            prompt_tokens: None,
            response_tokens: None,
            joint: 0.0,
            model: None,
        }
    }

    /// A table of which only the rows are known.
    pub fn of_rows(table: Table, rows: Amount) -> Expected {
        Expected { rows: Some(rows), ..Expected::unknown(table) }
    }

    /// A model.
    pub fn of_model(config: Option<Value>) -> Expected {
        Expected { model: config, ..Expected::unknown(Table::Model) }
    }

    /// The same texts in another table.
    pub fn turned_into(&self, table: Table, rows: Option<Amount>) -> Expected {
        Expected { table, rows, model: None, ..self.clone() }
    }

    /// The content of a path on disk: the rows of a table from the footers of its files, their lengths from the first
    /// of them, or a model's `config.json`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn on_disk(path: &Path, table: Table) -> Result<Expected> {
        match table {
            Table::Model => config_of(path).map(|config| Expected::of_model(Some(config))),
            Table::Pages => Ok(Expected::unknown(table)),
            _ => {
                let mut seen = Lengths::default();
                seen.look_at(path, table)?;
                Ok(seen.expected(table, Amount::exact(rows_of(path)?)))
            }
        }
    }

    /// Its size in bytes before compression, about: texts of [`CHARACTERS_PER_TOKEN`] characters a token, and
    /// [`BYTES_OF_REST`] for the other columns of a row. None for a model, for vectors, and where the rows are unknown.
    pub fn bytes(&self) -> Option<u64> {
        let sides = match self.table {
            Table::Model | Table::Pages | Table::Embeddings => return None,
            Table::Comparisons | Table::Verdicts | Table::Pairs => 2.0,
            Table::Prompts | Table::Responses | Table::Items => 1.0,
            _ => 0.0,
        };
        let tokens = self.prompt_tokens.unwrap_or(0.0) + self.response_tokens.unwrap_or(0.0);
        let row = BYTES_OF_REST + sides * tokens * CHARACTERS_PER_TOKEN;
        Some((self.rows?.value as f64 * row) as u64)
    }

    /// Several sources of one input, read in order.
    pub fn together(sources: &[Expected]) -> Option<Expected> {
        let (first, rest) = sources.split_first()?;
        Some(rest.iter().fold(first.clone(), |sum, next| {
            let both = |of: &dyn Fn(&Expected) -> Option<Amount>| Some(of(&sum)?.plus(of(next)?));
            let weight = |one: &Expected| one.rows.map_or(1.0, |rows| rows.value as f64).max(1.0);
            let (before, after) = (weight(&sum), weight(next));
            let mix = |a: f64, b: f64| (a * before + b * after) / (before + after);
            let mean = |of: &dyn Fn(&Expected) -> Option<f64>| Some(mix(of(&sum)?, of(next)?));
            Expected {
                table: sum.table,
                rows: both(&|one| one.rows),
                // Sources may share prompts.
                prompts: both(&|one| one.prompts).map(Amount::bounded),
                responses: both(&|one| one.responses).map(Amount::bounded),
                prompt_tokens: mean(&|one| one.prompt_tokens),
                response_tokens: mean(&|one| one.response_tokens),
                joint: mix(sum.joint, next.joint),
                model: None,
            }
        }))
    }
}

/// `config.json` of a model, or of the base of an adapter; the name of a GGUF file, whose head is read by who reads such
/// files.
fn config_of(folder: &Path) -> Result<Value> {
    let folder = models::base_of(folder).map_err(Error::of_base)?.unwrap_or_else(|| folder.to_owned());
    if folder.is_file() {
        return Ok(json!({"gguf": folder}));
    }
    let path = folder.join("config.json");
    let text = std::fs::read(&path).map_err(Error::io(&path))?;
    serde_json::from_slice(&text).map_err(|error| Error::data(format!("{}: {error}", path.display())))
}

/// Lengths of some rows, from which those of all are estimated.
#[derive(Debug, Default)]
pub struct Lengths {
    rows: usize,
    joint: usize,
    prompts: BTreeSet<String>,
    responses: BTreeSet<String>,
    prompt: (f64, f64),
    response: (f64, f64),
}

impl Lengths {
    /// A row, by the ids of its prompts, and its prompts and responses.
    pub fn row(&mut self, prompt_ids: &[&str], prompts: &[&[Message]], responses: &[&[Message]]) {
        self.rows += 1;
        self.joint += usize::from(prompt_ids.windows(2).any(|two| two[0] != two[1]));
        self.prompts.extend(prompt_ids.iter().map(|id| (*id).to_owned()));
        for (index, response) in responses.iter().enumerate() {
            let prompt = prompt_ids.get(index).or(prompt_ids.first()).copied().unwrap_or_default();
            self.responses.insert(response_id(prompt, response));
        }
        for (sum, texts) in [(&mut self.prompt, prompts), (&mut self.response, responses)] {
            texts.iter().for_each(|text| *sum = (sum.0 + tokens_of(text), sum.1 + 1.0));
        }
    }

    /// The expected content of a table of such rows.
    pub fn expected(&self, table: Table, rows: Amount) -> Expected {
        let mean = |(sum, count): (f64, f64)| (count > 0.0).then(|| sum / count);
        let share = |part: usize| part as f64 / self.rows.max(1) as f64;
        let distinct = |seen: usize| match seen {
            0 => None,
            _ => Some(Amount::about((rows.value as f64 * share(seen)).ceil() as u64)),
        };
        Expected {
            prompts: if table == Table::Prompts { Some(rows) } else { distinct(self.prompts.len()) },
            responses: if table == Table::Responses { Some(rows) } else { distinct(self.responses.len()) },
            prompt_tokens: mean(self.prompt),
            response_tokens: mean(self.response),
            joint: share(self.joint),
            ..Expected::of_rows(table, rows)
        }
    }

    fn look_at(&mut self, path: &Path, table: Table) -> Result<()> {
        fn head<R: crate::Row>(path: &Path) -> Result<Vec<R>> {
            RowReader::open(&[path])?.take(LOOKED_AT).collect()
        }
        match table {
            Table::Prompts => {
                for row in head::<Prompt>(path)? {
                    self.row(&[&row.prompt_id], &[&row.messages], &[]);
                }
            }
            Table::Responses => {
                for row in head::<Response>(path)? {
                    self.row(&[&row.prompt_id], &[&row.prompt], &[&row.messages]);
                }
            }
            Table::Items => {
                for row in head::<Item>(path)? {
                    self.row(&[&row.prompt_id], &[&row.prompt], &[&row.response]);
                }
            }
            Table::Comparisons => {
                for row in head::<Comparison>(path)? {
                    let (prompts, responses) = ([&*row.a_prompt, &*row.b_prompt], [&*row.a_response, &*row.b_response]);
                    self.row(&[&row.a_prompt_id, &row.b_prompt_id], &prompts, &responses);
                }
            }
            Table::Verdicts => {
                for row in head::<Verdict>(path)? {
                    let (prompts, responses) = ([&*row.a_prompt, &*row.b_prompt], [&*row.a_response, &*row.b_response]);
                    self.row(&[&row.a_prompt_id, &row.b_prompt_id], &prompts, &responses);
                }
            }
            Table::Pairs => {
                for row in head::<Pair>(path)? {
                    let ids = [&*row.chosen_prompt_id, &*row.rejected_prompt_id];
                    let prompts = [&*row.chosen_prompt, &*row.rejected_prompt];
                    self.row(&ids, &prompts, &[&row.chosen, &row.rejected]);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// About how many tokens messages make, a chat template included.
pub fn tokens_of(messages: &[Message]) -> f64 {
    let framing = |message: &Message| if message.role == "text" { 0.0 } else { 4.0 };
    let characters = |text: &str| text.chars().count() as f64 / CHARACTERS_PER_TOKEN;
    let extra = |message: &Message| message.extra.as_deref().map_or(0.0, characters);
    let one = |message: &Message| characters(&message.content) + extra(message) + framing(message);
    messages.iter().map(one).sum()
}
