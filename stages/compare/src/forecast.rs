//! The forecast number of comparisons, from the expected content of the inputs.

use kit::{Amount, Expected, Forecast, ForecastInputs, Outlook, Table};

use crate::config::{Against, Compare, Joint, Within};
use crate::search::shards;

/// Memory for what is held of a response, of a comparison, and of an embedding of 384 numbers, bytes (measured).
const BYTES_PER_RESPONSE: u64 = 120;
const BYTES_PER_COMPARISON: u64 = 48;
const BYTES_PER_VECTOR: u64 = 1800;

pub(crate) fn estimate(stage: &Compare, ahead: &ForecastInputs<'_>) -> Outlook {
    let Some(from) = ahead.input("from") else { return Outlook::default() };
    let (Some(responses), Some(prompts)) = (from.rows, from.prompts) else { return Outlook::default() };
    let baseline = ahead.rows("baseline").filter(|_| stage.has_baseline());
    let read = baseline.map_or(responses, |baseline| responses.plus(baseline));
    let is = responses.is.and(prompts.is);
    let per_prompt = responses.value as f64 / prompts.value.max(1) as f64;
    let all = responses.value as f64 * (per_prompt - 1.0).max(0.0) / 2.0;
    let within = match &stage.within {
        None => 0.0,
        Some(Within::All) => all,
        Some(Within::Random(each)) => all.min(prompts.value as f64 * f64::from(*each)),
        Some(Within::Against(Against::Best)) => responses.value.saturating_sub(prompts.value) as f64,
        // Somewhere between none and all of the others.
        Some(Within::Against(Against::Model(_))) => all,
        Some(Within::Against(Against::Baseline)) => {
            let each = baseline.map_or(0.0, |baseline| baseline.value as f64 / prompts.value.max(1) as f64);
            responses.value as f64 * each
        }
    };
    let joint = match stage.joint {
        None => 0.0,
        Some(Joint::Random(each) | Joint::Nearest(each)) => prompts.value as f64 * f64::from(each),
    };
    let mut most = (within + joint).ceil() as u64;
    if let Some(cap) = stage.cap_per_prompt {
        most = most.min(prompts.value.saturating_mul(cap.into()));
    }
    most = most.min(stage.budget.unwrap_or(u64::MAX));
    let rows = Amount { value: most, is }.bounded();
    let comparisons = Expected {
        responses: Some(read.up_to(rows.value.saturating_mul(2))),
        joint: if within + joint > 0.0 { joint / (within + joint) } else { 0.0 },
        ..from.turned_into(Table::Comparisons, Some(rows))
    };
    let mut forecast = Forecast::of_rows(read).note(format!("{rows} comparisons"));
    let mut held = read.value.saturating_mul(BYTES_PER_RESPONSE).saturating_add(kit::held_bytes(&from));
    held = held.saturating_add(rows.value.saturating_mul(BYTES_PER_COMPARISON));
    if let Some(vectors) = ahead.rows("embeddings").filter(|_| stage.needs_embeddings()) {
        let searched = vectors.value.saturating_mul(BYTES_PER_VECTOR);
        held = held.saturating_add(searched);
        forecast.shards = Some(shards(vectors.value, stage.lists(vectors.value).is_some()));
        forecast = forecast.note("memory: by embeddings of 384 numbers");
    }
    Outlook::of(forecast.holding(held)).port("comparisons", comparisons)
}
