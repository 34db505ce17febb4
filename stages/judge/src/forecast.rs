//! The forecast of judging, from what the inputs are expected to hold.

use endpoint::Protocol;
use kit::{Amount, CHARACTERS_PER_TOKEN, Forecast, ForecastInputs, Outlook, Result, Table};
use lm::{Load, Purpose};
use tokens::cost;

use crate::config::Judge;
use crate::modes::Mode;
use crate::modes::Rating;
use crate::protocol::OneToken;
use crate::template::Form;
use crate::template::{Side, Template};

/// Tokens that a chat template adds to a question.
const FRAMING: f64 = 8.0;

pub(crate) fn estimate(judge: &Judge, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
    let Some(from) = ahead.input("comparisons") else { return Ok(Outlook::default()) };
    let Some(rows) = from.rows else { return Ok(Outlook::default()) };
    let mut forecast = Forecast::of_rows(rows);
    let verdicts = from.turned_into(Table::Verdicts, Some(rows.bounded()));
    if let Some(endpoint) = &judge.endpoint {
        forecast.requests = Some(rows.times(judge.order_count()).bounded());
        forecast = forecast.note(endpoint.destination(OneToken::PATH));
    }
    if let Mode::Rating(rating) = judge.mode() {
        let criteria = rating.questions().len() as u64;
        // A response stands in several comparisons where all pairs are made; at most in one row each side.
        let responses = from.responses.unwrap_or(rows.times(2)).bounded();
        if judge.endpoint.is_some() {
            forecast.requests = Some(responses.times(criteria));
        }
        if let (Some(prompt), Some(response)) = (from.prompt_tokens, from.response_tokens) {
            let count = responses.value as f64 * criteria as f64;
            let question = rating_wording(judge, rating)? + prompt + response;
            let load = Load { tokens: count * question, scored: count, context: question / 2.0 };
            forecast.tokens = Some(Amount::about(load.tokens.ceil() as u64));
            if let Some(model) = cost::model(ahead, "model", judge.precision()) {
                let tokens_at_once = (judge.tokens_per_batch.everywhere() as f64 + question).min(load.tokens) as u64;
                cost::forward(&mut forecast, &model, load, Purpose::score(load, tokens_at_once));
            }
        }
        return Ok(Outlook::of(forecast).port("verdicts", verdicts));
    }
    if let Some((samples, rules)) = judge.writing() {
        let texts = rows.times(judge.order_count() * samples as u64).bounded();
        forecast = forecast.note(format!("{texts} texts of at most {} tokens each are written", rules.max_tokens));
        if judge.endpoint.is_some() {
            forecast.requests = Some(texts);
        }
    }
    if let (Some(prompt), Some(response)) = (from.prompt_tokens, from.response_tokens) {
        let orders = judge.order_count() as f64;
        let wording = wording(judge, from.joint)?;
        let (prompts, responses) = (prompt * (1.0 + from.joint), 2.0 * response);
        let question = wording + prompts + responses;
        // Both orders share the beginning of the question. An endpoint is sent all of it each time.
        let tokens = match judge.endpoint {
            None => question + (orders - 1.0) * (responses + wording / 2.0),
            Some(_) => question * orders,
        } * rows.value as f64;
        if let Some((samples, rules)) = judge.writing() {
            let (asked, most) = (rows.value as f64 * orders, rules.max_tokens as f64);
            let written = asked * samples as f64 * most;
            // Behind a rationale the question is computed again.
            let again = if judge.rationale.is_some() { tokens + written } else { 0.0 };
            let all = tokens + written + again;
            forecast.tokens = Some(Amount::about(all.ceil() as u64));
            if let Some(model) = cost::model(ahead, "model", judge.precision()) {
                let load = Load { tokens: all, scored: asked + written, context: question + most / 2.0 };
                let tokens_at_once = (judge.tokens_per_batch.everywhere() as f64).min(tokens + written) as u64;
                let responses_at_once =
                    (judge.tokens_per_batch.everywhere() as f64 / most).ceil().min(asked * samples as f64) as u64;
                cost::forward(&mut forecast, &model, load, Purpose::Generate { tokens_at_once, responses_at_once });
            }
            return Ok(Outlook::of(forecast).port("verdicts", verdicts));
        }
        forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
        let cost = judge.endpoint.as_ref().and_then(|endpoint| {
            let requests = rows.times(judge.order_count());
            endpoint.cost_note(tokens.ceil() as u64, requests.value)
        });
        forecast.notes.extend(cost);
        if let Some(model) = cost::model(ahead, "model", judge.precision()) {
            let scored = rows.value as f64 * orders;
            let load = Load { tokens, scored, context: question / 2.0 };
            let shard = tokens * (judge.shard_rows as f64 / rows.value.max(1) as f64).min(1.0);
            let tokens_at_once =
                (judge.tokens_per_batch.on(&ahead.device) as f64 + question * orders).min(shard) as u64;
            cost::forward(&mut forecast, &model, load, Purpose::score(load, tokens_at_once));
        }
    }
    Ok(Outlook::of(forecast).port("verdicts", verdicts))
}

/// The same of the question about one response, by its first criterion.
fn rating_wording(judge: &Judge, rating: &Rating) -> Result<f64> {
    let Some(name) = &judge.template else { return Ok(0.0) };
    let asks_for = judge.asks_for.filter(|_| name.contains('/'));
    let template = Template::open(name, judge.task(), false, asks_for)?;
    let questions = rating.questions();
    let first = (questions[0].name.as_str(), questions[0].rubric.as_str());
    let text = template.render_rating(Side { prompt: &[], response: &[] }, first, &rating.levels, judge.form)?;
    let framing = if judge.form == Form::Chat { FRAMING } else { 0.0 };
    Ok(framing + text.chars().count() as f64 / CHARACTERS_PER_TOKEN)
}

/// About how many tokens the question has without what is asked about.
fn wording(judge: &Judge, joint: f64) -> Result<f64> {
    let of = |name: &Option<String>, is_joint: bool, share: f64| -> Result<f64> {
        let Some(name) = name.as_ref().filter(|_| share > 0.0) else { return Ok(0.0) };
        let asks_for = judge.asks_for.filter(|_| name.contains('/'));
        let empty = Side { prompt: &[], response: &[] };
        let text =
            Template::open(name, judge.task(), is_joint, asks_for)?.render(is_joint, empty, empty, judge.form)?;
        Ok(share * text.chars().count() as f64 / CHARACTERS_PER_TOKEN)
    };
    let framing = if judge.form == Form::Chat { FRAMING } else { 0.0 };
    Ok(framing + of(&judge.template, false, 1.0 - joint)? + of(&judge.joint_template, true, joint)?)
}
