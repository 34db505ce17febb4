//! The forecast of sampling, from what the inputs are expected to hold.

use endpoint::{Completions, Protocol};
use kit::{Amount, Expected, Forecast, ForecastInputs, Outlook, Table};
use lm::{Load, Purpose};
use tokens::cost;

use crate::config::Sample;

pub(crate) fn estimate(stage: &Sample, ahead: &ForecastInputs<'_>) -> Outlook {
    let Some(from) = ahead.input("from") else { return Outlook::default() };
    let Some(prompts) = from.prompts else { return Outlook::default() };
    let rows = prompts.times(stage.k as u64).bounded();
    let mut forecast = Forecast::of_rows(rows).note(format!("at most {} tokens each response", stage.max_tokens));
    if let Some(endpoint) = &stage.endpoint {
        forecast.requests = Some(rows);
        forecast = forecast.note(endpoint.destination(Completions::PATH));
    }
    if let Some(prompt_tokens) = from.prompt_tokens {
        let (count, most) = (prompts.value as f64, stage.max_tokens as f64);
        let (of_prompts, of_responses) = (count * prompt_tokens, count * stage.k as f64 * most);
        let all = of_prompts + of_responses;
        forecast.tokens = Some(Amount::about(all.ceil() as u64));
        // Each answer may be a request of its own, with the whole prompt.
        let (sent, answered) = ((of_prompts * stage.k as f64).ceil() as u64, of_responses.ceil() as u64);
        forecast.notes.extend(stage.endpoint.as_ref().and_then(|endpoint| endpoint.cost_note(sent, answered)));
        if let Some(model) = cost::model(ahead, "model", stage.precision()) {
            let load = Load { tokens: all, scored: count + of_responses, context: prompt_tokens + most / 2.0 };
            // Within a shard.
            let shard = stage.shard_rows as f64 * (prompt_tokens + stage.k as f64 * most);
            let tokens_at_once = (stage.tokens_per_batch as f64).min(shard).min(all) as u64;
            let responses_at_once = (stage.shard_rows.saturating_mul(stage.k) as u64).min(rows.value);
            cost::forward(&mut forecast, &model, load, Purpose::Generate { tokens_at_once, responses_at_once });
        }
    }
    let responses = Expected {
        prompts: Some(prompts),
        responses: Some(rows),
        prompt_tokens: from.prompt_tokens,
        response_tokens: Some(stage.max_tokens as f64),
        ..Expected::of_rows(Table::Responses, rows)
    };
    Outlook::of(forecast).port("responses", responses)
}
