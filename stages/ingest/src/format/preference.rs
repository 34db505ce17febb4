//! TRL's preferences and their kin: a chosen and a rejected response under one prompt.

use serde_json::Value;

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::messages::{Said, Split, split_shared};
use crate::record::Record;
use crate::row::Row;
use crate::tables::PAIRS;

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
    let given = if row.layout.has(Prompt) {
        Some(row.whole_prompt(Prompt)?)
    } else if row.layout.has(Messages) {
        Some(row.said(Messages)?)
    } else {
        None
    };
    let (chosen, rejected) = (row.said(Chosen)?, row.said(Rejected)?);
    if std::mem::discriminant(&chosen) != std::mem::discriminant(&rejected) {
        return Err(BadRow::new("mixed_sides", "one of `chosen` and `rejected` is text and the other messages"));
    }
    Ok(match (given, chosen, rejected) {
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
            row.prompt_elsewhere = !shared.iter().any(|message| message.content.trim() == prompt.trim());
            split
        }
        (Some(Said::Messages(prompt)), Said::Messages(chosen), Said::Messages(rejected))
            if chosen.len() > prompt.len()
                && rejected.len() > prompt.len()
                && chosen.starts_with(&prompt)
                && rejected.starts_with(&prompt) =>
        {
            let cut = |side: Vec<kit::Message>| Said::Messages(side[prompt.len()..].to_vec());
            let (chosen, rejected) = (cut(chosen), cut(rejected));
            (Said::Messages(prompt), chosen, rejected)
        }
        (Some(prompt), chosen, rejected) => (prompt, chosen, rejected),
    })
}
