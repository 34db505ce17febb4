//! What a row says, whatever its format.

use kit::Message;
use serde_json::{Map, Value};

use crate::bad_row::BadRow;
use crate::column::Column;
use crate::format::{Form, Format};
use crate::layout::Layout;
use crate::messages::{Said, split_shared, split_transcripts};
use crate::row::Row;

/// A response to a prompt, as a row has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Side {
    /// The prompt.
    pub prompt: Vec<Message>,
    /// The prompt's id, where the data gives one.
    pub prompt_id: Option<String>,
    /// The response.
    pub response: Vec<Message>,
    /// The response's id, where the data gives one.
    pub response_id: Option<String>,
    /// A score from the data.
    pub score: Option<f64>,
    /// Who wrote it.
    pub model: Option<String>,
}

/// What a row says.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A labelled pair: the first side is the chosen one if `p_hat` is at least 1/2.
    Pair {
        /// Both sides.
        sides: Box<[Side; 2]>,
        /// P(first side better).
        p_hat: f64,
        /// Weight in the loss.
        weight: f64,
        /// Its id, where the data gives one.
        id: Option<String>,
    },
    /// Two responses to be compared, perhaps with a judge's label.
    Comparison {
        /// Both sides.
        sides: Box<[Side; 2]>,
        /// P(first side better).
        p_hat: Option<f64>,
        /// Weight in the loss.
        weight: f64,
        /// Who gave the label.
        judge: Option<String>,
        /// Its id, where the data gives one.
        id: Option<String>,
    },
    /// A response with a label of its own.
    Item {
        /// The response.
        side: Box<Side>,
        /// How good it is, in [0, 1].
        label: f64,
        /// Weight in the loss.
        weight: f64,
        /// Its id, where the data gives one.
        id: Option<String>,
    },
    /// A prompt.
    Prompt {
        /// The messages.
        messages: Vec<Message>,
        /// Its id, where the data gives one.
        id: Option<String>,
    },
    /// The embedding of a prompt.
    Embedding {
        /// The prompt, where the row has it.
        messages: Option<Vec<Message>>,
        /// The prompt's id, where the data gives one.
        id: Option<String>,
        /// Unit length.
        embedding: Vec<f32>,
    },
}

/// A row, and something to count about it.
pub struct Reading {
    /// What it says.
    pub record: Record,
    /// Whether its `prompt` is none of the messages that its conversations begin with.
    pub prompt_elsewhere: bool,
}

/// Reads a row.
///
/// # Errors
/// What is wrong with it.
pub fn read(fields: Map<String, Value>, layout: &Layout, form: Form) -> Result<Reading, BadRow> {
    let mut row = Row { fields, layout, form };
    if let Some(name) = layout.late().find(|name| row.fields.get(*name).is_some_and(|value| !value.is_null())) {
        return Err(BadRow::new(
            "late_column",
            format!("column `{name}` is not in the first rows of the file, so it would count for some rows only"),
        ));
    }
    let mut prompt_elsewhere = false;
    let record = match layout.format {
        Format::Auto => unreachable!("a layout has a format"),
        Format::Preference | Format::Hh => {
            let ([prompt, chosen, rejected], elsewhere) = row.preference()?;
            prompt_elsewhere = elsewhere;
            let prompt_id = row.id(Column::PromptId)?;
            row.pair([(prompt.clone(), prompt_id.clone()), (prompt, prompt_id)], [chosen, rejected])?
        }
        Format::JpoPairs => {
            let (prompt_a, a) = (row.said(Column::ChosenPrompt)?, row.said(Column::Chosen)?);
            let (prompt_b, b) = (row.said(Column::RejectedPrompt)?, row.said(Column::Rejected)?);
            let ids = (row.id(Column::ChosenPromptId)?, row.id(Column::RejectedPromptId)?);
            let system = row.system()?;
            let (prompt_a, a) = row.exchange(&system, prompt_a, a);
            let (prompt_b, b) = row.exchange(&system, prompt_b, b);
            row.pair([(prompt_a, ids.0), (prompt_b, ids.1)], [a, b])?
        }
        Format::JpoJudge => row.comparison()?,
        Format::Unpaired => {
            let label = row.label()?;
            row.item(label)?
        }
        Format::PromptCompletion => row.item(1.0)?,
        Format::Conversations => {
            let mut prompt = row.conversation()?;
            if prompt.last().is_none_or(|last| last.role != "assistant") || prompt.len() < 2 {
                let detail = "the conversation does not end with a prompt and an assistant's message";
                return Err(BadRow::new("no_response", detail));
            }
            let response = prompt.split_off(prompt.len() - 1);
            let side =
                row.side(prompt, response, [Column::PromptId, Column::ResponseId, Column::Score, Column::Model])?;
            Record::Item { side: Box::new(side), label: 1.0, weight: row.weight()?, id: row.id(Column::ItemId)? }
        }
        Format::Prompts => {
            let messages = if layout.has(Column::Prompt) { row.prompt()? } else { row.conversation()? };
            if messages.last().is_some_and(|last| last.role == "assistant") {
                return Err(BadRow::new("has_response", "the prompt ends with an assistant's message"));
            }
            Record::Prompt { messages, id: row.id(Column::PromptId)? }
        }
        Format::Embeddings => {
            let embedding = row.embedding()?;
            let messages = layout.has(Column::Prompt).then(|| row.prompt()).transpose()?;
            let id = row.id(Column::PromptId)?;
            if messages.is_none() && id.is_none() {
                return Err(row.missing(Column::PromptId));
            }
            Record::Embedding { messages, id, embedding }
        }
    };
    Ok(Reading { record, prompt_elsewhere })
}

/// The id a row has of its own, for messages about rows that cannot be read.
pub fn row_id(fields: &Map<String, Value>, layout: &Layout) -> String {
    use Column::{ComparisonId, ItemId, PairId, PromptId};
    let names = [PairId, ComparisonId, ItemId, PromptId].into_iter().filter_map(|column| layout.get(column));
    let mut ids = names.filter_map(|name| match fields.get(name)? {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    });
    ids.next().unwrap_or_default()
}

/// The roles that a response can begin with.
const ANSWERS: [&str; 3] = ["assistant", "tool", "text"];

/// The prompt of a side and its id.
type SidePrompt = (Vec<Message>, Option<String>);

impl Row<'_> {
    /// Beside messages, plain strings are messages too.
    fn form_of(&self, said: &[&Said]) -> Form {
        let messages =
            |said: &&Said| matches!(said, Said::Messages(messages) if messages.iter().all(|m| m.role != "text"));
        if said.iter().any(messages) { Form::Chat } else { self.form }
    }

    /// A prompt and a response as messages, in one form.
    fn exchange(&self, system: &Option<Message>, prompt: Said, response: Said) -> (Vec<Message>, Vec<Message>) {
        let form = self.form_of(&[&prompt, &response]);
        (with_system(system, prompt.into_prompt(form)), response.into_response(form))
    }

    /// The prompt with what belongs to it, still text or messages.
    fn whole_prompt(&mut self, column: Column) -> Result<Said, BadRow> {
        let prompt = self.said(column)?;
        match (prompt, self.text(Column::Input)?) {
            (Said::Text(prompt), Some(input)) if !input.is_empty() => Ok(Said::Text(format!("{prompt}\n{input}"))),
            (Said::Messages(_), Some(input)) if !input.is_empty() => {
                Err(BadRow::new("mixed_prompt", "the prompt is messages and `input` is text beside it"))
            }
            (prompt, _) => Ok(prompt),
        }
    }

    fn prompt(&mut self) -> Result<Vec<Message>, BadRow> {
        let prompt = self.whole_prompt(Column::Prompt)?;
        Ok(with_system(&self.system()?, prompt.into_prompt(self.form)))
    }

    fn conversation(&mut self) -> Result<Vec<Message>, BadRow> {
        match self.said(Column::Messages)? {
            Said::Messages(messages) => Ok(with_system(&self.system()?, messages)),
            Said::Text(_) => Err(BadRow::value(self.name(Column::Messages), "text", "messages")),
        }
    }

    /// The prompt, the chosen and the rejected response; and whether the prompt column is not among the messages.
    fn preference(&mut self) -> Result<([Vec<Message>; 3], bool), BadRow> {
        let given = if self.layout.has(Column::Prompt) {
            Some(self.whole_prompt(Column::Prompt)?)
        } else if self.layout.has(Column::Messages) {
            Some(self.said(Column::Messages)?)
        } else {
            None
        };
        let (chosen, rejected) = (self.said(Column::Chosen)?, self.said(Column::Rejected)?);
        if std::mem::discriminant(&chosen) != std::mem::discriminant(&rejected) {
            return Err(BadRow::new("mixed_sides", "one of `chosen` and `rejected` is text and the other messages"));
        }
        let mut elsewhere = false;
        let (prompt, chosen, rejected) = match (given, chosen, rejected) {
            (_, Said::Text(chosen), Said::Text(rejected)) if self.layout.format == Format::Hh => {
                split_transcripts(&chosen, &rejected, self.form)?
            }
            (_, _, _) if self.layout.format == Format::Hh => {
                return Err(BadRow::new("no_transcript", "`chosen` and `rejected` are messages, wanted transcripts"));
            }
            (None, chosen, rejected) => split_shared(chosen, rejected)?,
            // UltraFeedback: the conversations begin with the prompt, which stands in its column once more.
            (Some(Said::Text(prompt)), Said::Messages(chosen), Said::Messages(rejected))
                if chosen.len() > 1 && rejected.len() > 1 =>
            {
                let split = split_shared(Said::Messages(chosen), Said::Messages(rejected)).map_err(|bad| BadRow {
                    detail: "the conversations in `chosen` and `rejected` begin differently".to_owned(),
                    ..bad
                })?;
                let Said::Messages(shared) = &split.0 else { unreachable!("messages are split into messages") };
                elsewhere = !shared.iter().any(|message| message.content.trim() == prompt.trim());
                split
            }
            (Some(Said::Messages(prompt)), Said::Messages(chosen), Said::Messages(rejected))
                if chosen.len() > prompt.len()
                    && rejected.len() > prompt.len()
                    && chosen.starts_with(&prompt)
                    && rejected.starts_with(&prompt) =>
            {
                let cut = |side: Vec<Message>| Said::Messages(side[prompt.len()..].to_vec());
                let (chosen, rejected) = (cut(chosen), cut(rejected));
                (Said::Messages(prompt), chosen, rejected)
            }
            (Some(prompt), chosen, rejected) => (prompt, chosen, rejected),
        };
        let form = self.form_of(&[&prompt, &chosen, &rejected]);
        let prompt = with_system(&self.system()?, prompt.into_prompt(form));
        Ok(([prompt, chosen.into_response(form), rejected.into_response(form)], elsewhere))
    }

    fn side(
        &mut self,
        prompt: Vec<Message>,
        response: Vec<Message>,
        [prompt_id, response_id, score, model]: [Column; 4],
    ) -> Result<Side, BadRow> {
        if let Some(first) = response.first().filter(|first| !ANSWERS.contains(&first.role.as_str())) {
            let detail = format!(
                "the response begins with a message of the role `{}`, wanted `assistant` (or `tool`); where a column holds \
                 whole conversations, they have to begin with the prompt",
                first.role
            );
            return Err(BadRow::new("bad_roles", detail));
        }
        Ok(Side {
            prompt,
            prompt_id: self.id(prompt_id)?,
            response,
            response_id: self.id(response_id)?,
            score: self.number(score)?,
            model: self.text(model)?,
        })
    }

    fn pair(&mut self, prompts: [SidePrompt; 2], responses: [Vec<Message>; 2]) -> Result<Record, BadRow> {
        use Column::{ChosenModel, ChosenResponseId, ChosenScore, RejectedModel, RejectedResponseId, RejectedScore};
        let [(prompt_a, id_a), (prompt_b, id_b)] = prompts;
        let [a, b] = responses;
        let a = Side {
            prompt_id: id_a,
            ..self.side(prompt_a, a, [Column::PromptId, ChosenResponseId, ChosenScore, ChosenModel])?
        };
        let b = Side {
            prompt_id: id_b,
            ..self.side(prompt_b, b, [Column::PromptId, RejectedResponseId, RejectedScore, RejectedModel])?
        };
        Ok(Record::Pair {
            sides: Box::new([a, b]),
            p_hat: self.p_hat()?.unwrap_or(1.0),
            weight: self.weight()?,
            id: self.id(Column::PairId)?,
        })
    }

    fn comparison(&mut self) -> Result<Record, BadRow> {
        use Column::{Feedback, Model0, Model1, Preference, Prompt0, Prompt1, PromptId, PromptId0, PromptId1, Score};
        let (a, b) = (self.said(Column::Response0)?, self.said(Column::Response1)?);
        let prompts = if self.layout.has(Column::Prompt) {
            let (prompt, id) = (self.whole_prompt(Column::Prompt)?, self.id(PromptId)?);
            [(prompt.clone(), id.clone()), (prompt, id)]
        } else {
            [(self.said(Prompt0)?, self.id(PromptId0)?), (self.said(Prompt1)?, self.id(PromptId1)?)]
        };
        let system = self.system()?;
        let [(prompt_a, id_a), (prompt_b, id_b)] = prompts;
        let (prompt_a, a) = self.exchange(&system, prompt_a, a);
        let (prompt_b, b) = self.exchange(&system, prompt_b, b);
        let columns = |response_id, model| [PromptId, response_id, Score, model];
        let a = self.side(prompt_a, a, columns(Column::ResponseId0, Model0))?;
        let b = self.side(prompt_b, b, columns(Column::ResponseId1, Model1))?;
        let sides = Box::new([Side { prompt_id: id_a, ..a }, Side { prompt_id: id_b, ..b }]);
        let p_hat = match self.number_of_all(Feedback, 0.0, 2.0, "0 (the first), 1 (the second) or 2 (equal)")? {
            Some(0.0) => Some(1.0),
            Some(1.0) => Some(0.0),
            Some(2.0) => Some(0.5),
            Some(other) => {
                return Err(BadRow::value(self.name(Feedback), other, "0 (the first), 1 (the second) or 2 (equal)"));
            }
            None => {
                let preference = self.number_of_all(Preference, 1.0, 2.0, "from 1 (the first) to 2 (the second)")?;
                preference.map(|preference| 2.0 - preference)
            }
        };
        Ok(Record::Comparison {
            sides,
            p_hat: self.p_hat()?.or(p_hat),
            weight: self.weight()?,
            judge: self.text(Column::Judge)?,
            id: self.id(Column::ComparisonId)?,
        })
    }

    fn item(&mut self, label: f64) -> Result<Record, BadRow> {
        let (prompt, response) = (self.whole_prompt(Column::Prompt)?, self.said(Column::Completion)?);
        let (prompt, response) = {
            let system = self.system()?;
            self.exchange(&system, prompt, response)
        };
        let columns = [Column::PromptId, Column::ResponseId, Column::Score, Column::Model];
        let side = self.side(prompt, response, columns)?;
        Ok(Record::Item { side: Box::new(side), label, weight: self.weight()?, id: self.id(Column::ItemId)? })
    }
}

fn with_system(system: &Option<Message>, prompt: Vec<Message>) -> Vec<Message> {
    match system {
        // Some files have the system message in both places.
        Some(system) if prompt.first() != Some(system) => std::iter::once(system.clone()).chain(prompt).collect(),
        _ => prompt,
    }
}
