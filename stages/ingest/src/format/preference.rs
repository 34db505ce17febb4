//! TRL's preferences and their kin: a chosen and a rejected response under one prompt.

use kit::Message;
use serde_json::Value;

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::dialogue::dialogue;
use crate::messages::{Content, Split};
use crate::record::Record;
use crate::row::{Doubt, Row, number_in};
use crate::shared::is_dialogue;
use crate::tables::PAIRS;

const ELSEWHERE: Doubt = Doubt {
    figure: "prompt column is not in the messages",
    warning: "have a prompt column that is none of the messages their conversations begin with; the messages are used",
};
const TWICE: Doubt = Doubt {
    figure: "responses that begin with their prompt",
    warning: "have responses that both begin with the whole prompt, which a model then sees twice; take it out of them, or \
              leave the column out with `columns: {prompt: null}`",
};

pub const FORMAT: Known = Known {
    detect: |head| head.has(&[Chosen, Rejected]),
    needs: &[Chosen, Rejected],
    reads: &[
        Prompt,
        Input,
        System,
        Tools,
        Messages,
        Chosen,
        Rejected,
        PHat,
        Agreement,
        Weight,
        ChosenScore,
        RejectedScore,
        PairId,
        PromptId,
        ChosenResponseId,
        RejectedResponseId,
        ChosenModel,
        RejectedModel,
    ],
    row_id: Some(PairId),
    settle: |head, places| {
        // LLaMA-Factory: a conversation, and two messages that could go on with it.
        let one_message = |value: &Value| match value {
            Value::Array(items) => items.len() == 1,
            other => other.is_object(),
        };
        let goes_on = head.all(Chosen, one_message) && !places.contains_key(&Prompt);
        if !goes_on && !head.is_given(Messages) {
            places.remove(&Messages);
        }
        // A share of those who prefer the chosen side, and nothing else of that name.
        let share = |value: &Value| number_in(value).is_some_and(|share| (0.5..=1.0).contains(&share));
        let other = places.contains_key(&PHat) || !head.all(Agreement, share);
        if other && !head.is_given(Agreement) {
            places.remove(&Agreement);
        }
    },
    tables: |_| PAIRS.to_vec(),
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let said = sides(row)?;
    Ok(vec![row.preference(said)?])
}

/// The prompt, the chosen and the rejected response.
fn sides(row: &mut Row<'_>) -> Result<Split, BadRow> {
    let given = if row.columns.has(Prompt) {
        Some(row.whole_prompt(Prompt)?)
    } else if row.columns.has(Messages) {
        Some(row.said(Messages)?)
    } else {
        None
    };
    let (chosen, rejected) = (row.said(Chosen)?, row.said(Rejected)?);
    if std::mem::discriminant(&chosen) != std::mem::discriminant(&rejected) {
        return Err(BadRow::new("mixed_sides", "one of `chosen` and `rejected` is text and the other messages"));
    }
    Ok(match (given, chosen, rejected) {
        (None, chosen, rejected) => row.split_shared(chosen, rejected)?,
        // UltraFeedback: the conversations begin with the prompt, which stands in its column once more.
        (Some(Content::Text(prompt)), Content::Messages(chosen), Content::Messages(rejected))
            if chosen.len() > 1 && rejected.len() > 1 =>
        {
            let split = row.split_shared(Content::Messages(chosen), Content::Messages(rejected)).map_err(|bad| {
                BadRow { detail: "the conversations in `chosen` and `rejected` begin differently".to_owned(), ..bad }
            })?;
            let Content::Messages(shared) = &split.0 else { unreachable!("messages are split into messages") };
            row.compare_prompts(&prompt, shared);
            split
        }
        (Some(Content::Messages(prompt)), Content::Messages(chosen), Content::Messages(rejected))
            if chosen.len() > prompt.len()
                && rejected.len() > prompt.len()
                && chosen.starts_with(&prompt)
                && rejected.starts_with(&prompt) =>
        {
            let cut = |side: Vec<Message>| Content::Messages(side[prompt.len()..].to_vec());
            let (chosen, rejected) = (cut(chosen), cut(rejected));
            (Content::Messages(prompt), chosen, rejected)
        }
        (Some(Content::Text(prompt)), Content::Text(chosen), Content::Text(rejected)) => {
            repeated(row, prompt, chosen, rejected)?
        }
        (Some(prompt), chosen, rejected) => (prompt, chosen, rejected),
    })
}

/// A prompt beside texts, which perhaps begin with it once more.
fn repeated(row: &mut Row<'_>, prompt: String, chosen: String, rejected: String) -> Result<Split, BadRow> {
    if is_dialogue(&chosen) && is_dialogue(&rejected) {
        let split = row.split_dialogues(&chosen, &rejected)?;
        match &split.0 {
            Content::Messages(shared) => {
                let turns = dialogue(&prompt);
                let same = turns.as_ref().is_some_and(|turns| turns == shared);
                let prompt = if same { shared.last().map_or("", |last| &last.content) } else { prompt.as_str() };
                row.compare_prompts(prompt, shared);
            }
            Content::Text(shared) if shared.contains(prompt.trim()) => {}
            Content::Text(_) => row.doubt(ELSEWHERE),
        }
        return Ok(split);
    }
    let begins = |side: &str| {
        let rest = side.trim_start().strip_prefix(prompt.trim());
        rest.is_some_and(|rest| !rest.trim().is_empty() && !rest.starts_with(char::is_alphanumeric))
    };
    if !prompt.trim().is_empty() && begins(&chosen) && begins(&rejected) {
        row.doubt(TWICE);
    }
    let text = Content::Text;
    Ok((text(prompt), text(chosen), text(rejected)))
}

impl Row<'_> {
    /// Doubts a prompt that is none of the messages that both sides begin with.
    fn compare_prompts(&mut self, prompt: &str, shared: &[Message]) {
        if !shared.iter().any(|message| message.content.trim() == prompt.trim()) {
            self.doubt(ELSEWHERE);
        }
    }
}
