//! Several responses to a prompt, each with a score or a rank: UltraFeedback, Nectar, distilabel and their kin.

use serde_json::{Map, Value};

use super::Known;
use crate::bad_row::{BadRow, shown};
use crate::column::Column::{self, *};
use crate::head::Head;
use crate::messages::Content;
use crate::record::{Record, Side};
use crate::row::{Row, number_in};
use crate::scores::{Scores, field};
use crate::stored::list_in;
use crate::tables::comparisons;

/// Keys of the text in an object of the list.
const TEXT: [&str; 6] = ["response", "answer", "completion", "text", "content", "generation"];
/// Keys of its score. UltraFeedback's mean of the four marks is the one that its binarized set was made by.
const SCORE: [&str; 5] = ["fine-grained_score", "overall_score", "score", "rating", "pm_score"];
/// Keys of the name of its model.
const MODEL: [&str; 2] = ["model", "model_name"];

pub const FORMAT: Known = Known {
    detect,
    needs: &[Prompt, Responses],
    reads: &[Prompt, Input, System, Tools, Responses, Scores, Ranks, Models, Weight, Judge, PromptId],
    tables: |_| comparisons(true),
    read,
    ..Known::NONE
};

fn detect(head: &Head<'_>) -> bool {
    let texts = |value: &Value| list_in(value).is_some_and(|list| list.iter().any(|item| !item.is_object()));
    let scored = |value: &Value| {
        let has = |item: &Value| item.as_object().is_some_and(|item| find(item, &SCORE).or(item.get("rank")).is_some());
        list_in(value).is_some_and(|list| list.iter().any(has))
    };
    let labels = [Scores, Ranks].iter().any(|labels| head.all(*labels, |value| list_in(value).is_some()));
    head.has(&[Prompt, Responses])
        && (head.values(Responses).any(scored) || (labels && head.values(Responses).any(texts)))
}

/// One of the responses.
struct Ranked {
    text: Content,
    /// Higher is better.
    worth: Option<f64>,
    score: Option<f64>,
    model: Option<String>,
}

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let value = row.need(Responses)?;
    let items = list_in(&value).ok_or_else(|| BadRow::value(row.name(Responses), shown(&value), "a list"))?;
    let (scores, ranks, models) =
        (beside(row, Scores, &items)?, beside(row, Ranks, &items)?, beside(row, Models, &items)?);
    let mut all = Vec::new();
    for (at, item) in items.into_iter().enumerate() {
        let of = |list: &Option<Vec<Value>>| list.as_ref().map(|list| list[at].clone());
        let ranked = one(row, at, item, [of(&scores), of(&ranks), of(&models)])?;
        match ranked.worth {
            Some(_) => all.push(ranked),
            None => row.count("responses without a score or rank are left out"),
        }
    }
    let prompt = row.whole_prompt(Prompt)?;
    let (before, id) = (row.before()?, row.id(PromptId)?);
    let (weight, judge) = (row.weight()?, row.text(Judge)?);
    let mut sides = Vec::new();
    for ranked in all {
        let [prompt, response] = row.exchange(&before, prompt.clone(), ranked.text)?;
        let mut side = row.plain_side(prompt, id.clone(), response)?;
        (side.score, side.model) = (ranked.score, ranked.model);
        sides.push((ranked.worth.expect("others were left out"), side));
    }
    Ok(compared(row, &sides, weight, judge))
}

/// The comparisons of responses to one prompt by how good each is, the higher the better.
pub fn compared(row: &Row<'_>, sides: &[(f64, Side)], weight: f64, judge: Option<String>) -> Vec<Record> {
    let scores = row.columns.scores.clone().unwrap_or_default();
    let worths: Vec<f64> = sides.iter().map(|(worth, _)| *worth).collect();
    let record = |(at, other): (usize, usize)| {
        let ((worth, a), (against, b)) = (&sides[at], &sides[other]);
        let (p_hat, log_odds) = scores.label(worth - against);
        let sides = Box::new([a.clone(), b.clone()]);
        Record::Comparison { sides, p_hat: Some(p_hat), log_odds, weight, judge: judge.clone(), id: None }
    };
    scores.compared(&worths).into_iter().map(record).collect()
}

/// A list beside that of the responses.
fn beside(row: &mut Row<'_>, column: Column, items: &[Value]) -> Result<Option<Vec<Value>>, BadRow> {
    let Some(value) = row.take(column) else { return Ok(None) };
    let list = list_in(&value).ok_or_else(|| BadRow::value(row.name(column), shown(&value), "a list"))?;
    if list.len() != items.len() {
        let (name, responses) = (row.name(column), row.name(Responses));
        let detail = format!("`{name}` has {} entries and `{responses}` {}", list.len(), items.len());
        return Err(BadRow::new("lengths_differ", detail));
    }
    Ok(Some(list))
}

fn one(row: &mut Row<'_>, at: usize, item: Value, beside: [Option<Value>; 3]) -> Result<Ranked, BadRow> {
    let place = format!("{}[{at}]", row.name(Responses));
    let [mut score, mut rank, mut model] = beside;
    let text = match item {
        // A message is a response by itself.
        Value::Object(item) if !item.contains_key("role") => {
            let made = weighted(row, &place, &item)?;
            score = made.or(score).or_else(|| find(&item, &SCORE).cloned());
            rank = rank.or_else(|| item.get("rank").cloned());
            model = model.or_else(|| find(&item, &MODEL).cloned());
            let text = find(&item, &TEXT).cloned();
            text.ok_or_else(|| BadRow::value(&place, format!("without `{}`", TEXT[0]), "an object with a text"))?
        }
        other => other,
    };
    let score = number(&place, score)?;
    let rank = number(&place, rank)?;
    if score.is_none() && rank.is_some() && row.columns.scaled().is_some() {
        let detail = format!("`{place}` has a rank and no score, and ranks have no distances for `scale`");
        return Err(BadRow::new("no_score", detail));
    }
    let worth = score.or(rank.map(|rank| -rank));
    let model = model.and_then(|model| model.as_str().map(str::to_owned));
    Ok(Ranked { text: row.read_said_at(&place, text)?, worth, score, model })
}

/// The sum of the criteria times their weights; null where one of them has no value (`N/A`), nothing where none are asked
/// for.
fn weighted(row: &Row<'_>, place: &str, item: &Map<String, Value>) -> Result<Option<Value>, BadRow> {
    let Some(scores) = row.columns.scores.as_ref().filter(|scores| !scores.criteria.is_empty()) else {
        return Ok(None);
    };
    let item = Value::Object(item.clone());
    weighted_sum(scores, |name| field(&item, name), place).map(|sum| Some(sum.map_or(Value::Null, Value::from)))
}

/// The sum of the criteria times their weights; nothing where one of them has no value.
///
/// # Errors
/// Where a criterion is missing or is no number.
pub fn weighted_sum<'a>(
    scores: &Scores,
    of: impl Fn(&str) -> Option<&'a Value>,
    place: &str,
) -> Result<Option<f64>, BadRow> {
    let mut sum = Some(0.0);
    for (name, weight) in &scores.criteria {
        let value =
            of(name).ok_or_else(|| BadRow::new("missing", format!("criterion `{name}` is missing in `{place}`")))?;
        let value = number(&format!("{place}.{name}"), Some(value.clone()))?;
        sum = sum.zip(value).map(|(sum, value)| sum + weight * value);
    }
    Ok(sum)
}

fn find<'a>(item: &'a Map<String, Value>, names: &[&str]) -> Option<&'a Value> {
    names.iter().filter_map(|name| item.get(*name)).find(|value| !value.is_null())
}

/// A number, also where it is written as text.
fn number(place: &str, value: Option<Value>) -> Result<Option<f64>, BadRow> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
    let number = match &value {
        Value::String(text) if ["", "n/a", "none", "nan"].contains(&text.trim().to_lowercase().as_str()) => {
            return Ok(None);
        }
        value => number_in(value),
    };
    number.map(Some).ok_or_else(|| BadRow::value(place, format!("scored with {}", shown(&value)), "a number"))
}
