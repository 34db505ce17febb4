//! Scoring the responses, shard by shard, and the verdicts that follow from the scores.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::probability::sigmoid;
use kit::rows::{Comparison, Message, Reject, Response, ScoredVerdict, SummaryRow, Verdict};
use kit::{Context, Error, Outcome, Result, RowReader, ShardOutput, Sharded, complete_port, id_of};
use lm::Decoder;
use serde_json::json;
use tokens::{lm_error, load_reward_model};

use crate::config::Judge;
use crate::reward::summary::RewardSummary;
use crate::reward::work::{RewardWork, Scored, Side, Task, reader};

/// The responses, and the reward model once a shard needs it.
pub(crate) struct Scoring<'a> {
    stage: &'a Judge,
    context: &'a Context<'a>,
    work: RewardWork,
    judge_id: String,
    decoder: Option<Decoder>,
}

impl<'a> Scoring<'a> {
    /// Reads the comparisons and makes the checks that need them, before weights are loaded.
    ///
    /// # Errors
    /// As [`RewardWork::read`].
    pub(crate) fn new(stage: &'a Judge, context: &'a Context<'a>) -> Result<Scoring<'a>> {
        let work = RewardWork::read(context, &reader(stage, context)?)?;
        Ok(Scoring { judge_id: judge_id(stage, context)?, stage, context, work, decoder: None })
    }

    fn row(&self, scored: &Scored, score: f64) -> Response {
        let Scored { comparison, side, sequence, k } = scored;
        let row = &self.work.comparisons[*comparison];
        let ((prompt_id, response_id), (prompt, messages)) = (side.ids(row), side.texts(row));
        Response {
            response_id: response_id.to_owned(),
            prompt_id: prompt_id.to_owned(),
            prompt: prompt.to_vec(),
            messages: messages.to_vec(),
            text: messages.iter().map(Message::text).collect::<Vec<_>>().join("\n"),
            k: *k,
            count: 1,
            logp: None,
            tokens: Some(sequence.completion_tokens() as u32),
            finish: None,
            score: Some(score),
            model: Some(self.judge_id.clone()),
            source_file: row.source_file.clone(),
            source_line: row.source_line,
        }
    }
}

impl Sharded for Scoring<'_> {
    fn unit(&self) -> &'static str {
        "responses"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.work.shards(self.stage.shard_rows)
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        if self.decoder.is_none() {
            self.decoder = Some(load_reward_model(self.context, "reward", self.stage.precision())?);
        }
        let Scoring { stage, context, work, decoder, .. } = &*self;
        let decoder = decoder.as_ref().expect("loaded above");
        let mut rows = Vec::new();
        let budget = stage.tokens_per_batch.on(context.device);
        for batch in work.batches(shard, budget) {
            let end = batch.end;
            for task in &work.tasks[batch.clone()] {
                if let Task::Refuse(reject) = task {
                    output.reject(Reject::clone(reject));
                }
            }
            let scored = work.scored(batch);
            if !scored.is_empty() {
                let scores = output.batch(|| scores(decoder, budget, &work.comparisons, &scored))?;
                rows.extend(scored.iter().zip(scores).map(|(scored, score)| self.row(scored, score)));
            }
            context.progress(end as u64, work.tasks.len() as u64, "responses", String::new());
        }
        output.write("scores", &rows)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        let Scoring { stage, context, work, judge_id, .. } = &*self;
        complete_port::<Response>(context, "scores")?;
        let mut scores: BTreeMap<(String, String), f64> = BTreeMap::new();
        for row in RowReader::<Response>::open(&[&context.port("scores")])? {
            let row = row?;
            let score = row.score.ok_or_else(|| Error::internal("a response without score in `scores`"))?;
            scores.insert((row.prompt_id, row.response_id), score);
        }
        let score = |side: Side, row: &Comparison| {
            let (prompt, response) = side.ids(row);
            let known = scores.get(&(prompt.to_owned(), response.to_owned()));
            known.copied().ok_or_else(|| Error::internal(format!("response `{response}` was not scored")))
        };
        let mut margins = Vec::new();
        let mut writer = context.writer::<ScoredVerdict>("verdicts")?;
        for (row, _) in work.comparisons.iter().zip(&work.kept).filter(|(_, kept)| **kept) {
            let margin = score(Side::A, row)? - score(Side::B, row)?;
            margins.push(margin);
            let log_odds = stage.scale() * margin;
            let verdict = Verdict::of(row.clone(), sigmoid(log_odds), Some(judge_id.clone()));
            writer.push(ScoredVerdict { log_odds: Some(log_odds), ..ScoredVerdict::from(verdict) })?;
        }
        writer.finish()?;
        let summary = RewardSummary::read(context, scores.into_values().collect(), margins)?;
        if let Some(text) = summary.warning() {
            context.warn(text);
        }
        let mut writer = context.writer::<SummaryRow>("summary")?;
        writer.extend(summary.rows())?;
        writer.finish()?;
        let outcome = Outcome::default()
            .balance("comparisons", work.rows, work.rows - rejected, rejected)
            .figure("tokens, shared prompts once", work.shared_tokens())
            .figure("comparisons with a cut or refused response", work.too_long);
        Ok(summary.add_to(outcome))
    }
}

/// The score of each response of a batch.
fn scores(decoder: &Decoder, budget: usize, comparisons: &[Comparison], scored: &[&Scored]) -> Result<Vec<f64>> {
    let texts: Vec<&[u32]> = scored.iter().map(|scored| scored.sequence.ids.as_slice()).collect();
    match decoder.rewards(&texts, budget) {
        Err(lm::Error::NotFinite(text)) => {
            // Which one it is, is not in the error of a batch.
            let fails = |scored: &&&Scored| decoder.rewards(&[scored.sequence.ids.as_slice()], usize::MAX).is_err();
            let named = scored.iter().find(fails).map(|scored| {
                let (prompt, response) = scored.side.ids(&comparisons[scored.comparison]);
                format!("response `{response}` under prompt `{prompt}`: ")
            });
            Err(Error::Data(format!("{}{text}", named.unwrap_or_default())))
        }
        other => other.map_err(lm_error),
    }
}

/// The judge: a digest of its folder and of every setting that decides its numbers.
fn judge_id(stage: &Judge, context: &Context<'_>) -> Result<String> {
    let mut settings = json!({"scale": stage.scale(), "tokens": stage.tokens, "dtype": stage.dtype});
    if let Some(base) = stage.base {
        settings["base"] = json!(base);
    }
    Ok(id_of(&[context.model("reward")?.digest.to_string(), kit::canonical(&settings)]))
}
