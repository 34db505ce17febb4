//! Scoring the work list, shard by shard.

use kit::rows::ReferenceRow;
use kit::{Context, Error, Outcome, Result, complete_port, run_shards};
use lm::{Decoder, Sequence};

use tokens::lm_error;

use crate::config::Reference;
use crate::work::{Task, Unit, WorkList};

pub(crate) fn score(stage: &Reference, context: &Context<'_>, work: &WorkList) -> Result<Outcome> {
    let mut decoder = None;
    let shards = work.shards(stage.shard_rows);
    let rejected = run_shards(context, "sequences", &shards, |shard, output| {
        // Loaded with the first shard that is not on disk yet.
        if decoder.is_none() {
            decoder = Some(load(stage, context)?);
        }
        let decoder = decoder.as_ref().expect("loaded above");
        let mut rows = Vec::new();
        for batch in work.batches(shard, stage.tokens_per_batch) {
            let end = batch.end;
            let units = &work.units[batch];
            let scored = scored(units);
            let log_probs = output.batch(|| log_probs(stage, decoder, &scored))?;
            rows.extend(scored.iter().zip(log_probs).map(|(scored, log_probs)| row(stage, scored, log_probs)));
            for unit in units {
                if let Task::Refuse(reject) = &unit.task {
                    output.reject(reject.clone());
                }
            }
            context.progress(end as u64, work.units.len() as u64, "sequences", String::new());
        }
        output.write("reference", &rows)
    })?;
    complete_port::<ReferenceRow>(context, "reference")?;
    Ok(Outcome::default()
        .balance("from", work.rows, work.rows - rejected, rejected)
        .figure("sequences", work.sequences())
        .figure("tokens, shared prefixes once", work.shared_tokens())
        .figure("cut on the left", work.counts.cut)
        .figure("escaped special text", work.counts.escaped)
        .figure("prompt is not a token prefix", work.counts.mismatched)
        .figure("prompt is written otherwise before an answer", work.counts.displaced))
}

fn load(stage: &Reference, context: &Context<'_>) -> Result<Decoder> {
    let device = lm::open_device(context.device).map_err(lm_error)?;
    stage.dtype.warning(&device).into_iter().for_each(|text| context.warn(text));
    Decoder::load_in(&context.model("model")?.path, &device, stage.dtype).map_err(lm_error)
}

/// A sequence to score, with its prompt's and its response's id.
type Scored<'a> = (&'a str, &'a str, &'a Sequence);

fn scored(units: &[Unit]) -> Vec<Scored<'_>> {
    let scored = units.iter().filter_map(|unit| match &unit.task {
        Task::Score { response_id, sequence } => Some((&*unit.prompt_id, &**response_id, sequence)),
        Task::Refuse(_) => None,
    });
    scored.collect()
}

/// The log-probs of each sequence's response and prompt.
fn log_probs(stage: &Reference, decoder: &Decoder, scored: &[Scored<'_>]) -> Result<Vec<(f64, f64)>> {
    let sequences: Vec<&Sequence> = scored.iter().map(|(_, _, sequence)| *sequence).collect();
    if sequences.is_empty() {
        return Ok(Vec::new());
    }
    let all = decoder.score(&sequences, stage.prompt_part, stage.tokens_per_batch).map_err(lm_error)?;
    let numbers = scored.iter().zip(all).map(|((prompt_id, response_id, _), log_probs)| {
        if !(log_probs.response.is_finite() && log_probs.prompt.is_finite()) {
            return Err(Error::data(format!(
                "the reference model gives response `{response_id}` under prompt `{prompt_id}` the log-prob {} ({} for \
                 the prompt): its weights overflow or hold values that are not numbers",
                log_probs.response, log_probs.prompt
            )));
        }
        Ok((log_probs.response, log_probs.prompt))
    });
    numbers.collect()
}

fn row(stage: &Reference, scored: &Scored<'_>, (response, prompt): (f64, f64)) -> ReferenceRow {
    let (prompt_id, response_id, sequence) = scored;
    ReferenceRow {
        prompt_id: (*prompt_id).to_owned(),
        response_id: (*response_id).to_owned(),
        completion_start: sequence.start as u32,
        logp: response,
        prompt_logp: stage.prompt_part.then_some(prompt),
        prompt_tokens: sequence.start as u32,
        completion_tokens: sequence.completion_tokens() as u32,
        dtype: Some(stage.dtype.name().to_owned()),
    }
}
