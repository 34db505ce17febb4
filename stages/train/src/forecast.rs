//! The forecast of a training from what its inputs are expected to hold.

use kit::{Amount, Expected, Forecast, ForecastInputs, Outlook, Table, Work, ranks};
use lm::{Load, Lora, Purpose};
use tokens::cost;

use crate::best;
use crate::check::MOST_KEPT;
use crate::config::{ModelAdapter, Train};

/// Bytes that a row takes beside its tokens: its ids and its place in the tables.
const ROW_BYTES: f64 = 900.0;
/// Bytes of a token in memory.
const TOKEN_BYTES: f64 = 4.0;

pub(crate) fn estimate(stage: &Train, ahead: &ForecastInputs<'_>) -> Outlook {
    let kept = stage.best.map_or(1, |best| best.keep.min(MOST_KEPT));
    let policies = |outlook: Outlook| {
        let expected = || Expected::of_model(ahead.model("model").cloned());
        (0..kept).fold(outlook, |outlook, rank| outlook.port(best::port(rank), expected()))
    };
    let Some((from, rows)) = ahead.input("from").and_then(|from| Some((from.clone(), from.rows?))) else {
        return policies(Outlook::default());
    };
    let count = rows.value as f64;
    // A batch is of so many rows, or of all the rows of so many prompts.
    let batch = &stage.batch;
    let per_prompt = count / from.prompts.map_or(count, |prompts| prompts.value as f64).max(1.0);
    let in_batch = match (batch.prompts, batch.pairs.or(batch.items)) {
        (Some(prompts), _) => prompts as f64 * per_prompt,
        (None, size) => size.unwrap_or(1) as f64,
    }
    .min(count.max(1.0));
    let in_pass = (count / in_batch).ceil().max(1.0);
    let steps = match (stage.steps, stage.epochs) {
        (Some(steps), _) => steps as f64,
        (None, epochs) => in_pass * epochs.unwrap_or(1) as f64,
    };
    let steps_are = if stage.steps.is_some() { Amount::exact(0) } else { rows };
    let mut forecast = Forecast::of_rows(rows).note(format!("{} steps", steps_are.with(steps as u64)));
    if let (Some(prompt), Some(response)) = (from.prompt_tokens, from.response_tokens) {
        let items = from.table == Table::Items;
        // Both sides of a pair share their prompt; a prompt's rows share it where they are in one batch.
        let (prompts, responses) = match (items, batch.prompts) {
            (true, None) => (1.0, 1.0),
            (true, Some(_)) => (1.0 / per_prompt, 1.0),
            (false, None) => (1.0 + from.joint, 2.0),
            (false, Some(_)) => ((1.0 + from.joint) / per_prompt, 2.0),
        };
        let responses = responses + f64::from(u8::from(stage.objective.needs_kl()));
        let row_tokens = prompts * prompt + responses * response;
        let tokens = steps * in_batch * row_tokens;
        forecast.tokens = Some(Amount::about(tokens.ceil() as u64));
        if let Some(model) = cost::model(ahead, "model", stage.precision()) {
            let prompt_part = if stage.objective.needs_prompt_part() { prompts * prompt } else { 0.0 };
            // A reward model's head gives one number for a text, which costs next to nothing.
            let heads = if stage.objective.needs_rewards() { 0.0 } else { responses * response + prompt_part };
            let scored = steps * in_batch * heads;
            let load = Load { tokens, scored, context: prompt + response / 2.0 };
            let batch_tokens = (in_batch * row_tokens).ceil() as u64;
            let lora = match (&stage.adapter, stage.model_adapter) {
                (Some(adapter), _) => adapter.lora().ok(),
                // Its form stands in its folder, which may not be there yet.
                (None, Some(ModelAdapter::Continue)) => Lora::new(16, 1.0, &["all-linear".to_owned()]).ok(),
                _ => None,
            };
            let operations = model.forward_and_backward(load, stage.kept(1), batch_tokens, lora.is_some());
            forecast.work = Some(Work { operations, width: model.width() });
            // Each rank of the device has a model, its share of the batch and its sets of gradients; the rows are there once.
            let ranks = ranks(batch.ranks, ahead.jobs);
            let batch_tokens = batch_tokens.div_ceil(ranks as u64);
            let purpose = Purpose::Train {
                memory: stage.kept(ranks),
                batch_tokens,
                tokens_at_once: (batch.tokens_per_micro_batch as u64).min(batch_tokens),
                shares: if stage.optimizer.sharded { ranks as u64 } else { 1 },
                gradient_sets: u64::from((batch.ranks / ranks).max(1).ilog2()) + 1,
                adapter: lora.as_ref(),
            };
            let data = count * (ROW_BYTES + TOKEN_BYTES * responses * (prompt + response));
            forecast.memory = Some(ranks as u64 * model.bytes(purpose) + data as u64);
        }
    }
    policies(Outlook::of(forecast))
        .port("metrics", Expected::of_rows(Table::Metrics, steps_are.with(steps as u64)))
        .port("steps", Expected::of_rows(Table::Steps, Amount::about((steps * in_batch) as u64)))
}
