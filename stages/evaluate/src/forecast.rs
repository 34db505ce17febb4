//! The forecast of measuring, from what the inputs are expected to hold.

use kit::{Amount, Forecast, ForecastInputs, Outlook};
use lm::{Load, Purpose};
use tokens::cost;

use crate::config::Evaluate;

/// Memory for what is held of a verdict, bytes (measured).
const BYTES_PER_ROW: u64 = 100;

pub(crate) fn estimate(stage: &Evaluate, ahead: &ForecastInputs<'_>) -> Outlook {
    let given = ["pairs", "verdicts", "truth", "utilities"].into_iter().filter(|key| ahead.inputs.contains_key(key));
    let rows: Option<Vec<Amount>> = given.map(|key| ahead.rows(key)).collect();
    let Some(rows) = rows.and_then(|rows| rows.into_iter().reduce(Amount::plus)) else { return Outlook::default() };
    let mut forecast = Forecast::of_rows(rows);
    let Some(pairs) = ahead.input("pairs") else {
        let held = rows.value.saturating_mul(BYTES_PER_ROW);
        return Outlook::of(forecast.holding(held));
    };
    if let (Some(count), Some(prompt), Some(response)) = (pairs.rows, pairs.prompt_tokens, pairs.response_tokens) {
        let models = stage.models(ahead.table_of("reference")) as f64;
        let sides = 2.0 * count.value as f64 * models;
        let tokens = sides * (prompt + response);
        forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
        if let Some(model) = cost::model(ahead, "model", stage.precision()) {
            let load = Load { tokens, scored: sides * response, context: prompt + response / 2.0 };
            let tokens_at_once = (stage.tokens_per_batch as f64).min(tokens / models) as u64;
            cost::forward(&mut forecast, &model, load, Purpose::score(load, tokens_at_once));
        }
    }
    Outlook::of(forecast)
}
