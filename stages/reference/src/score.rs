//! Scoring the work list, shard by shard.

use std::ops::Range;

use kit::rows::ReferenceRow;
use kit::{Context, Error, Outcome, Result, ShardOutput, Sharded, complete_port};
use lm::{Decoder, Packed, Sequence};
use tokens::{lm_error, load_decoder, prepared_ahead};

use crate::config::Reference;
use crate::work::{Task, Unit, WorkList};

/// The distinct sequences, and the model once a shard needs it.
pub(crate) struct Scoring<'a> {
    stage: &'a Reference,
    context: &'a Context<'a>,
    work: WorkList,
    decoder: Option<Decoder>,
}

impl<'a> Scoring<'a> {
    pub(crate) fn new(stage: &'a Reference, context: &'a Context<'a>, work: WorkList) -> Scoring<'a> {
        Scoring { stage, context, work, decoder: None }
    }
}

impl Sharded for Scoring<'_> {
    fn unit(&self) -> &'static str {
        "sequences"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.work.shards(self.stage.shard_rows)
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        if self.decoder.is_none() {
            self.decoder = Some(load_decoder(self.context, "model", self.stage.precision())?);
        }
        let Scoring { stage, context, work, decoder } = self;
        let decoder = decoder.as_ref().expect("loaded above");
        let mut rows = Vec::new();
        let budget = stage.tokens_per_batch.on(context.device);
        let batches = work.batches(shard, budget).into_iter().map(|batch| {
            let scored = scored(&work.units[batch.clone()]);
            let packed = packed(stage, decoder, &scored, budget)?;
            Ok((batch, scored, packed))
        });
        prepared_ahead(batches, |(batch, scored, packed)| {
            let end = batch.end;
            let units = &work.units[batch];
            let log_probs = output.batch(|| log_probs(decoder, &scored, packed.as_ref()))?;
            rows.extend(scored.iter().zip(log_probs).map(|(scored, log_probs)| row(stage, scored, log_probs)));
            for unit in units {
                if let Task::Refuse(reject) = &unit.task {
                    output.reject(reject.clone());
                }
            }
            context.progress(end as u64, work.units.len() as u64, "sequences", String::new());
            Ok(())
        })?;
        output.write("reference", &rows)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        let work = &self.work;
        complete_port::<ReferenceRow>(self.context, "reference")?;
        Ok(Outcome::default()
            .balance("from", work.rows, work.rows - rejected, rejected)
            .figure("sequences", work.sequences())
            .figure("tokens, shared prefixes once", work.shared_tokens())
            .figure("cut on the left", work.counts.cut)
            .figure("escaped special text", work.counts.escaped)
            .figure("prompt is not a token prefix", work.counts.mismatched)
            .figure("prompt is written otherwise before an answer", work.counts.displaced))
    }
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

/// Sequences as the model takes them; none where there are none.
fn packed(stage: &Reference, decoder: &Decoder, scored: &[Scored<'_>], budget: usize) -> Result<Option<Packed>> {
    let sequences: Vec<&Sequence> = scored.iter().map(|(_, _, sequence)| *sequence).collect();
    if sequences.is_empty() {
        return Ok(None);
    }
    decoder.pack(&sequences, stage.prompt_part, budget).map(Some).map_err(lm_error)
}

/// The log-probs of each sequence's response and prompt.
fn log_probs(decoder: &Decoder, scored: &[Scored<'_>], packed: Option<&Packed>) -> Result<Vec<(f64, f64)>> {
    let Some(packed) = packed else { return Ok(Vec::new()) };
    let all = decoder.score_packed(packed).map_err(lm_error)?;
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
        dtype: Some(stage.precision().name()),
    }
}
