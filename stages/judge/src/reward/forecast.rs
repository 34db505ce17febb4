//! The forecast of scoring: from what the inputs are expected to hold, and counted from them.

use kit::{Amount, Context, Forecast, ForecastInputs, Outlook, Result, Table};
use lm::{Load, Purpose};
use tokens::cost;

use crate::config::Judge;
use crate::reward::work::{RewardWork, reader};

/// The forecast counted from the inputs; no weights are read.
pub(crate) fn count(judge: &Judge, context: &Context<'_>) -> Result<Forecast> {
    let work = RewardWork::read(context, &reader(judge, context)?)?;
    let responses = work.scored(0..work.tasks.len()).len();
    Ok(Forecast {
        rows: Amount::exact(work.rows),
        tokens: Some(Amount::exact(work.shared_tokens())),
        too_long: Some(Amount::exact(work.too_long)),
        notes: vec![format!("{responses} distinct responses")],
        ..Forecast::default()
    })
}

pub(crate) fn estimate(judge: &Judge, ahead: &ForecastInputs<'_>) -> Outlook {
    let Some(from) = ahead.input("comparisons") else { return Outlook::default() };
    let Some(rows) = from.rows else { return Outlook::default() };
    let responses = rows.times(2).bounded().up_to(from.responses.map_or(u64::MAX, |responses| responses.value));
    let mut forecast = Forecast::of_rows(rows).note(format!("{responses} distinct responses"));
    if let (Some(prompt), Some(response)) = (from.prompt_tokens, from.response_tokens) {
        let prompts = from.prompts.unwrap_or(responses).value.min(responses.value) as f64;
        let tokens = prompts * prompt + responses.value as f64 * response;
        forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
        if let Some(model) = cost::model(ahead, "reward", judge.precision()) {
            // The head gives one number for a text, which costs next to nothing.
            let load = Load { tokens, scored: 0.0, context: prompt + response / 2.0 };
            let shard = tokens * (judge.shard_rows as f64 / responses.value.max(1) as f64).min(1.0);
            let tokens_at_once = (judge.tokens_per_batch.on(&ahead.device) as u64).min(shard as u64);
            cost::forward(&mut forecast, &model, load, Purpose::score(load, tokens_at_once));
        }
    }
    let verdicts = from.turned_into(Table::Verdicts, Some(rows.bounded()));
    let scores = from.turned_into(Table::Responses, Some(responses));
    Outlook::of(forecast).port("verdicts", verdicts).port("scores", scores)
}
