//! Battles of Chatbot Arena and their kin: two conversations and a vote.

use serde_json::Value;

use super::Known;
use crate::bad_row::{BadRow, shown};
use crate::column::Column::{self, *};
use crate::head::Head;
use crate::messages::Content;
use crate::record::Record;
use crate::row::Row;
use crate::stored::{is_messages, list_in};
use crate::tables::comparisons;

const ONE_OF_THREE: [Column; 3] = [WinnerModelA, WinnerModelB, WinnerTie];

pub const FORMAT: Known = Known {
    detect,
    needs: &[Response0, Response1],
    reads: &[
        Prompt,
        System,
        Tools,
        Response0,
        Response1,
        Winner,
        WinnerModelA,
        WinnerModelB,
        WinnerTie,
        Weight,
        Judge,
        ComparisonId,
        PromptId,
        ResponseId0,
        ResponseId1,
        Model0,
        Model1,
    ],
    row_id: Some(ComparisonId),
    tables: |places| comparisons([Winner, WinnerModelA].iter().any(|label| places.contains_key(label))),
    read,
    ..Known::NONE
};

fn detect(head: &Head<'_>) -> bool {
    let conversations = [Response0, Response1].iter().all(|side| head.all(*side, is_messages));
    let voted = head.has(&[Winner]) || head.has(&ONE_OF_THREE);
    let lists = head.all(Prompt, |value| list_in(value).is_some_and(|list| list.iter().all(Value::is_string)));
    head.has(&[Response0, Response1]) && (voted || lists || (conversations && !head.has(&[Prompt])))
}

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let prompt = if row.columns.has(Prompt) { Some(row.need(Prompt)?) } else { None };
    let (prompt, a, b) = match prompt.as_ref().map(list_in) {
        Some(Some(prompts)) if prompts.iter().all(Value::is_string) => {
            let mut side = |column: Column| {
                let answers = row.need(column)?;
                let answers = list_in(&answers).ok_or_else(|| {
                    BadRow::value(row.name(column), shown(&answers), "a list of texts as the prompts")
                })?;
                turns(row.name(column), &prompts, &answers)
            };
            let (a, b) = (side(Response0)?, side(Response1)?);
            row.split_shared(a, b)?
        }
        None => {
            let (a, b) = (row.said(Response0)?, row.said(Response1)?);
            row.split_shared(a, b).map_err(|bad| match bad.reason {
                "no_shared_prompt" => {
                    BadRow { detail: "there is no prompt column, and both sides begin differently".to_owned(), ..bad }
                }
                _ => bad,
            })?
        }
        Some(_) => {
            let prompt = prompt.expect("it was just looked at");
            (row.read_said(Prompt, prompt)?, row.said(Response0)?, row.said(Response1)?)
        }
    };
    let before = row.before()?;
    let [prompt_a, a] = row.exchange(&before, prompt.clone(), a)?;
    let [prompt_b, b] = row.exchange(&before, prompt, b)?;
    let p_hat = vote(row)?;
    let id = row.id(PromptId)?;
    Ok(vec![row.comparison([(prompt_a, id.clone()), (prompt_b, id)], [a, b], p_hat)?])
}

/// A conversation of prompts and the answers to them.
fn turns(column: &str, prompts: &[Value], answers: &[Value]) -> Result<Content, BadRow> {
    if prompts.len() != answers.len() {
        let detail = format!("column `{column}` has {} answers to {} prompts", answers.len(), prompts.len());
        return Err(BadRow::new("lengths_differ", detail));
    }
    let message = |(at, value): (usize, &Value)| match value {
        Value::String(text) => Ok(kit::Message::new(if at.is_multiple_of(2) { "user" } else { "assistant" }, text)),
        // A model that gave no answer.
        Value::Null => Ok(kit::Message::new("assistant", "")),
        other => Err(BadRow::value(column, format!("a list with {}", shown(other)), "a list of texts")),
    };
    let all = prompts.iter().zip(answers).flat_map(|(prompt, answer)| [prompt, answer]);
    all.enumerate().map(message).collect::<Result<_, _>>().map(Content::Messages)
}

/// P(the first better), where there was a vote.
fn vote(row: &mut Row<'_>) -> Result<Option<f64>, BadRow> {
    if row.columns.has(Winner) {
        let winner = row.text(Winner)?.ok_or_else(|| row.missing(Winner))?;
        return match winner.trim().to_lowercase().as_str() {
            "model_a" | "a" => Ok(Some(1.0)),
            "model_b" | "b" => Ok(Some(0.0)),
            "tie" | "both_bad" | "bothbad" => Ok(Some(0.5)),
            text if text.starts_with("tie") => Ok(Some(0.5)),
            text => Err(BadRow::value(row.name(Winner), format!("the text {text:?}"), "model_a, model_b or tie")),
        };
    }
    if !row.columns.has(WinnerModelA) {
        return Ok(None);
    }
    let mut votes = [0.0; 3];
    for (vote, column) in votes.iter_mut().zip(ONE_OF_THREE) {
        *vote = row.number_of_all(column, 0.0, 1.0, "0 or 1")?.ok_or_else(|| row.missing(column))?;
    }
    match votes {
        [1.0, 0.0, 0.0] => Ok(Some(1.0)),
        [0.0, 1.0, 0.0] => Ok(Some(0.0)),
        [0.0, 0.0, 1.0] => Ok(Some(0.5)),
        other => {
            let detail = format!("`winner_model_a`, `winner_model_b` and `winner_tie` are {other:?}, wanted one 1");
            Err(BadRow::new("bad_value", detail))
        }
    }
}
