//! The forecast of judging, from what the inputs are expected to hold.

use endpoint::Protocol;
use kit::{Ahead, Amount, CHARACTERS_PER_TOKEN, Forecast, Outlook, Result, Table};
use lm::{Load, Purpose};
use tokens::cost;

use crate::config::Judge;
use crate::protocol::OneToken;
use crate::template::Form;
use crate::template::{Side, Template};

/// Tokens that a chat template adds to a question.
const FRAMING: f64 = 8.0;

pub(crate) fn estimate(judge: &Judge, ahead: &Ahead<'_>) -> Result<Outlook> {
    let Some(from) = ahead.input("comparisons") else { return Ok(Outlook::default()) };
    let Some(rows) = from.rows else { return Ok(Outlook::default()) };
    let mut forecast = Forecast::of_rows(rows);
    let verdicts = from.turned_into(Table::Verdicts, Some(rows.bounded()));
    if let Some(endpoint) = &judge.endpoint {
        forecast.requests = Some(rows.times(judge.order_count()).bounded());
        forecast = forecast
            .note(format!("requests go to {}; nothing is asked before the run", endpoint.shown(OneToken::PATH)));
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
        forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
        let cost = judge.endpoint.as_ref().and_then(|endpoint| {
            let requests = rows.times(judge.order_count());
            endpoint.cost_note(tokens.ceil() as u64, requests.value)
        });
        forecast.notes.extend(cost);
        if let Some(model) = cost::model(ahead, "model", judge.dtype) {
            let scored = rows.value as f64 * orders;
            let load = Load { tokens, scored, context: question / 2.0 };
            let shard = tokens * (judge.shard_rows as f64 / rows.value.max(1) as f64).min(1.0);
            let tokens_at_once = (judge.tokens_per_batch as f64 + question * orders).min(shard) as u64;
            cost::forward(&mut forecast, &model, load, Purpose::Score { tokens_at_once });
        }
    }
    Ok(Outlook::of(forecast).port("verdicts", verdicts))
}

/// About how many tokens the question has without what is asked about.
fn wording(judge: &Judge, joint: f64) -> Result<f64> {
    let of = |name: &Option<String>, is_joint: bool, share: f64| -> Result<f64> {
        let Some(name) = name.as_ref().filter(|_| share > 0.0) else { return Ok(0.0) };
        let asks_for = judge.asks_for.filter(|_| name.contains('/'));
        let empty = Side { prompt: &[], response: &[] };
        let text = Template::open(name, is_joint, asks_for)?.render(is_joint, empty, empty, judge.form)?;
        Ok(share * text.chars().count() as f64 / CHARACTERS_PER_TOKEN)
    };
    let framing = if judge.form == Form::Chat { FRAMING } else { 0.0 };
    Ok(framing + of(&judge.template, false, 1.0 - joint)? + of(&judge.joint_template, true, joint)?)
}
