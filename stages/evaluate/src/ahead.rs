//! What will have to be measured, before it is there.

use kit::{Ahead, Amount, Forecast, Outlook, Table, Work};
use lm::{Estimate, Load, Purpose};

use crate::stage::Evaluate;

pub(crate) fn expect(stage: &Evaluate, ahead: &Ahead) -> Outlook {
    let given = ["pairs", "verdicts", "truth", "utilities"].into_iter().filter(|key| ahead.inputs.contains_key(key));
    let rows: Option<Vec<Amount>> = given.map(|key| ahead.rows(key)).collect();
    let Some(rows) = rows.and_then(|rows| rows.into_iter().reduce(Amount::plus)) else { return Outlook::default() };
    let mut forecast = Forecast::of_rows(rows);
    let Some(pairs) = ahead.input("pairs") else { return Outlook::of(forecast) };
    if let (Some(count), Some(prompt), Some(response)) = (pairs.rows, pairs.prompt_tokens, pairs.response_tokens) {
        let models = if ahead.table_of("reference") == Some(Table::Model) { 2.0 } else { 1.0 };
        let sides = 2.0 * count.value as f64 * models;
        let tokens = sides * (prompt + response);
        forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
        let model = ahead.model("model").and_then(|config| Estimate::of(config, stage.dtype, &ahead.device).ok());
        if let Some(model) = model {
            let load = Load { tokens, scored: sides * response, context: prompt + response / 2.0 };
            forecast.work = Some(Work { operations: model.forward(load), width: model.width() });
            let tokens_at_once = (stage.tokens_per_batch as f64).min(tokens / models) as u64;
            forecast.memory = Some(model.bytes(Purpose::Score { tokens_at_once }));
        }
    }
    Outlook::of(forecast)
}
