//! Records: the content of a row, whatever its format.

use kit::Message;

use crate::bad_row::BadRow;
use crate::ballot::Ballot;
use crate::column::Column;
use crate::dialogue::dialogue;
use crate::form::Form;
use crate::messages::{Content, Split, with_tools};
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
    /// Its author.
    pub model: Option<String>,
}

/// The content of a row.
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
        /// Log-odds of the label, where scores made it.
        log_odds: Option<f64>,
        /// Author of the label.
        judge: Option<String>,
        /// Its id, where the data gives one.
        id: Option<String>,
    },
    /// Votes on two responses.
    Votes {
        /// Both sides; absent where the row has their id alone.
        sides: Option<Box<[Side; 2]>>,
        /// The votes.
        ballots: Vec<Ballot>,
        /// The comparison's id, where the data gives one.
        id: Option<String>,
    },
    /// A response with a label of its own.
    Item {
        /// The response.
        side: Box<Side>,
        /// Degree to which it is good, in [0, 1].
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

/// A row's part in the records that all rows make together.
pub enum Part {
    /// It says this; at least one thing.
    Says(Vec<Record>),
    /// Its content stands in a record of another row.
    Elsewhere,
    /// It is left out, and that is no fault of its own.
    LeftOut(BadRow),
}

/// The roles that a response can begin with.
const ANSWERS: [&str; 3] = ["assistant", "tool", "text"];

/// The prompt of a side and its id.
pub type SidePrompt = (Vec<Message>, Option<String>);

/// Messages before the prompt of a row.
pub struct Before {
    system: Option<Message>,
    tools: Option<String>,
}

impl Row<'_> {
    /// Beside messages, plain strings are messages too.
    fn form_of(&self, said: &[&Content]) -> Form {
        let messages =
            |said: &&Content| matches!(said, Content::Messages(messages) if messages.iter().all(|m| m.role != "text"));
        if said.iter().any(messages) { Form::Chat } else { self.form }
    }

    /// The system message and the tools.
    pub fn before(&mut self) -> Result<Before, BadRow> {
        Ok(Before { system: self.system()?, tools: self.tools()? })
    }

    /// A prompt with what comes before it.
    fn opened(&mut self, before: &Before, prompt: Content, form: Form) -> Result<Vec<Message>, BadRow> {
        let prompt = match prompt {
            Content::Text(text) if form == Form::Chat => match dialogue(&text) {
                Some(turns) => {
                    self.counts.insert("prompts that are a dialogue as text, read as messages", 1);
                    turns
                }
                None => Content::Text(text).into_prompt(form),
            },
            said => said.into_prompt(form),
        };
        let prompt = with_system(&before.system, prompt);
        match &before.tools {
            Some(_) if prompt.iter().any(|message| message.role == "text") => Err(BadRow::new(
                "tools_of_text",
                "the row has `tools` and its prompt is raw text; `form: chat` takes strings as messages",
            )),
            Some(tools) => Ok(with_tools(prompt, tools)),
            None => Ok(prompt),
        }
    }

    /// A prompt and a response as messages, in one form.
    pub fn exchange(
        &mut self,
        before: &Before,
        prompt: Content,
        response: Content,
    ) -> Result<[Vec<Message>; 2], BadRow> {
        let form = self.form_of(&[&prompt, &response]);
        let response = response.behind(&prompt);
        Ok([self.opened(before, prompt, form)?, response.into_response(form)])
    }

    /// The prompt with what belongs to it, still text or messages.
    pub fn whole_prompt(&mut self, column: Column) -> Result<Content, BadRow> {
        let prompt = self.said(column)?;
        match (prompt, self.text(Column::Input)?) {
            (Content::Text(prompt), Some(input)) if !input.is_empty() => {
                Ok(Content::Text(format!("{prompt}\n{input}")))
            }
            (Content::Messages(_), Some(input)) if !input.is_empty() => {
                Err(BadRow::new("mixed_prompt", "the prompt is messages and `input` is text beside it"))
            }
            (prompt, _) => Ok(prompt),
        }
    }

    /// The prompt of a row that has no response.
    pub fn prompt(&mut self) -> Result<Vec<Message>, BadRow> {
        let prompt = self.whole_prompt(Column::Prompt)?;
        let before = self.before()?;
        self.opened(&before, prompt, self.form)
    }

    /// A conversation.
    pub fn conversation(&mut self) -> Result<Vec<Message>, BadRow> {
        match self.said(Column::Messages)? {
            messages @ Content::Messages(_) => {
                let before = self.before()?;
                self.opened(&before, messages, Form::Chat)
            }
            Content::Text(_) => Err(BadRow::value(self.name(Column::Messages), "text", "messages")),
        }
    }

    /// A pair under one prompt.
    pub fn preference(&mut self, (prompt, chosen, rejected): Split) -> Result<Record, BadRow> {
        let form = self.form_of(&[&prompt, &chosen, &rejected]);
        let before = self.before()?;
        let prompt = self.opened(&before, prompt, form)?;
        let id = self.id(Column::PromptId)?;
        self.pair(
            [(prompt.clone(), id.clone()), (prompt, id)],
            [chosen.into_response(form), rejected.into_response(form)],
        )
    }

    fn side(
        &mut self,
        (prompt, prompt_id): SidePrompt,
        response: Vec<Message>,
        [response_id, score, model]: [Column; 3],
    ) -> Result<Side, BadRow> {
        let (response_id, score, model) = (self.id(response_id)?, self.number(score)?, self.text(model)?);
        let side = self.plain_side(prompt, prompt_id, response)?;
        Ok(Side { response_id, score, model, ..side })
    }

    /// A response of which nothing more is known.
    pub fn plain_side(
        &self,
        prompt: Vec<Message>,
        prompt_id: Option<String>,
        response: Vec<Message>,
    ) -> Result<Side, BadRow> {
        if let Some(first) = response.first().filter(|first| !ANSWERS.contains(&first.role.as_str())) {
            let detail = format!(
                "the response begins with a message of the role `{}`, wanted `assistant` (or `tool`); where a column holds \
                 whole conversations, they have to begin with the prompt",
                first.role
            );
            return Err(BadRow::new("bad_roles", detail));
        }
        Ok(Side { prompt, prompt_id, response, response_id: None, score: None, model: None })
    }

    /// A chosen and a rejected response.
    pub fn pair(&mut self, [a, b]: [SidePrompt; 2], responses: [Vec<Message>; 2]) -> Result<Record, BadRow> {
        use Column::{ChosenModel, ChosenResponseId, ChosenScore, RejectedModel, RejectedResponseId, RejectedScore};
        let [chosen, rejected] = responses;
        let a = self.side(a, chosen, [ChosenResponseId, ChosenScore, ChosenModel])?;
        let b = self.side(b, rejected, [RejectedResponseId, RejectedScore, RejectedModel])?;
        let scored = self.scored(&a, &b, [ChosenScore, RejectedScore])?;
        let agreed = "a share of those who prefer the chosen side, in [0.5, 1]";
        let given = self.p_hat()?.or(self.number_of_all(Column::Agreement, 0.5, 1.0, agreed)?);
        let p_hat = scored.map(|(p_hat, _)| p_hat).or(given);
        Ok(Record::Pair {
            sides: Box::new([a, b]),
            p_hat: p_hat.unwrap_or(1.0),
            weight: self.weight()?,
            id: self.id(Column::PairId)?,
        })
    }

    /// Two responses side by side.
    pub fn comparison(
        &mut self,
        [a, b]: [SidePrompt; 2],
        responses: [Vec<Message>; 2],
        p_hat: Option<f64>,
    ) -> Result<Record, BadRow> {
        use Column::{Model0, Model1, ResponseId0, ResponseId1, Score0, Score1};
        let [first, second] = responses;
        let a = self.side(a, first, [ResponseId0, Score0, Model0])?;
        let b = self.side(b, second, [ResponseId1, Score1, Model1])?;
        let scored = self.scored(&a, &b, [Score0, Score1])?;
        Ok(Record::Comparison {
            sides: Box::new([a, b]),
            p_hat: scored.map(|(p_hat, _)| p_hat).or(p_hat),
            log_odds: scored.and_then(|(_, log_odds)| log_odds),
            weight: self.weight()?,
            judge: self.text(Column::Judge)?,
            id: self.id(Column::ComparisonId)?,
        })
    }

    /// The label that two scores make and its log-odds, where scores are to make labels.
    fn scored(&self, a: &Side, b: &Side, [of_a, of_b]: [Column; 2]) -> Result<Option<(f64, Option<f64>)>, BadRow> {
        let Some(scores) = self.columns.scaled() else { return Ok(None) };
        let first = a.score.ok_or_else(|| self.missing(of_a))?;
        let second = b.score.ok_or_else(|| self.missing(of_b))?;
        Ok(Some(scores.label(first - second)))
    }

    /// The completion with its label.
    pub fn item(&mut self, label: f64) -> Result<Record, BadRow> {
        let (prompt, response) = (self.whole_prompt(Column::Prompt)?, self.said(Column::Completion)?);
        let before = self.before()?;
        let [prompt, response] = self.exchange(&before, prompt, response)?;
        self.item_of(prompt, response, label)
    }

    /// A response with its label.
    pub fn item_of(&mut self, prompt: Vec<Message>, response: Vec<Message>, label: f64) -> Result<Record, BadRow> {
        let prompt = (prompt, self.id(Column::PromptId)?);
        let side = self.side(prompt, response, [Column::ResponseId, Column::Score, Column::Model])?;
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
