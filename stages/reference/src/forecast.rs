//! The forecast of scoring, from what the inputs are expected to hold.

use kit::{Amount, Expected, Forecast, ForecastInputs, Outlook, Table};
use lm::{Load, Purpose};
use tokens::cost;

use crate::config::Reference;

pub(crate) fn estimate(stage: &Reference, ahead: &ForecastInputs<'_>) -> Outlook {
    let Some(from) = ahead.input("from") else { return Outlook::default() };
    let Some(rows) = from.rows else { return Outlook::default() };
    let sides = rows.times(if from.table == Table::Pairs { 2 } else { 1 });
    let sequences = sides.bounded().up_to(from.responses.map_or(u64::MAX, |responses| responses.value));
    let mut forecast = Forecast::of_rows(rows).note(format!("{sequences} distinct sequences"));
    if let (Some(prompt), Some(response)) = (from.prompt_tokens, from.response_tokens) {
        let prompts = from.prompts.unwrap_or(sequences).value.min(sequences.value) as f64;
        let (of_prompts, of_responses) = (prompts * prompt, sequences.value as f64 * response);
        let tokens = of_prompts + of_responses;
        forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
        if let Some(model) = cost::model(ahead, "model", stage.precision()) {
            let scored = of_responses + if stage.prompt_part { of_prompts } else { 0.0 };
            let load = Load { tokens, scored, context: prompt + response / 2.0 };
            let shard = tokens * (stage.shard_rows as f64 / sequences.value.max(1) as f64).min(1.0);
            let tokens_at_once = (stage.tokens_per_batch.on(&ahead.device) as u64).min(shard as u64);
            cost::forward(&mut forecast, &model, load, Purpose::score(load, tokens_at_once));
        }
    }
    Outlook::of(forecast).port("reference", Expected::of_rows(Table::Reference, sequences))
}
