//! The reference's log-probs of two responses, with their tokens counted again.

use kit::rows::{Item, Pair, ReferenceRow};
use kit::{Context, Fact, Result, Table, Traced, Trail};
use lm::Sequence;
use serde_json::{Value, json};

use crate::lm_error;
use crate::stage::Reference;
use crate::work::turns;

/// The reference rows of a trail.
pub(crate) fn trace(stage: &Reference, context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let rows: Vec<ReferenceRow> = trail.sides_in(&[context.port("reference")])?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let sequences = sequences(stage, context, trail)?;
    let traced = rows.into_iter().map(|row| {
        let is_row = |(side, sequence): &&(usize, Sequence)| {
            trail.side(&row.prompt_id, &row.response_id) == Some(*side)
                && sequence.start == row.completion_start as usize
                && sequence.completion_tokens() == row.completion_tokens as usize
        };
        let found = sequences.iter().find(is_row).map(|(_, sequence)| sequence);
        let again = |count: &dyn Fn(&Sequence) -> usize| found.map_or(Value::Null, |sequence| count(sequence).into());
        let how = "the row that was read, tokenised again";
        let mut facts = vec![
            Fact::told("logp", row.logp).because("sum over the completion's tokens"),
            Fact::checked("completion_start", row.completion_start, again(&|sequence| sequence.start), how),
            Fact::checked("completion_tokens", row.completion_tokens, again(&Sequence::completion_tokens), how),
        ];
        if row.prompt_logp.is_some() {
            facts.insert(
                1,
                Fact::told("prompt_logp", json!(row.prompt_logp)).because("all prompt tokens but the first"),
            );
        }
        Traced { title: format!("reference of response {}", row.response_id), facts }
    });
    Ok(traced.collect())
}

/// The tokens of the sides, from every row of `from` that has them.
fn sequences(stage: &Reference, context: &Context<'_>, trail: &Trail) -> Result<Vec<(usize, Sequence)>> {
    let (text, limit) = stage.text(context)?;
    let rules = stage.rules();
    let paths: Vec<_> = context.sources("from").iter().map(|source| &source.path).collect();
    let mut found = Vec::new();
    if context.table_of("from") == Some(Table::Items) {
        for item in trail.sides_in::<Item, _>(&paths)? {
            let side = trail.side(&item.prompt_id, &item.response_id);
            let tokenised = text.single(&turns(&item.prompt), &turns(&item.response), &rules, limit);
            found.extend(side.zip(tokenised.map_err(lm_error)?.ok()));
        }
        return Ok(found);
    }
    for pair in trail.pairs_in::<Pair, _>(&paths)? {
        let chosen = (&*turns(&pair.chosen_prompt), &*turns(&pair.chosen));
        let rejected = (&*turns(&pair.rejected_prompt), &*turns(&pair.rejected));
        if let Ok((chosen, rejected)) = text.pair(chosen, rejected, &rules, limit).map_err(lm_error)? {
            found.extend(trail.side(&pair.chosen_prompt_id, &pair.chosen_response_id).map(|side| (side, chosen)));
            found.extend(trail.side(&pair.rejected_prompt_id, &pair.rejected_response_id).map(|side| (side, rejected)));
        }
    }
    Ok(found)
}
