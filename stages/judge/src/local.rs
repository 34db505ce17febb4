//! Judging with a model in this process, batch by batch.

use kit::rows::{Reject, Verdict};
use kit::{Context, Result, run_shards};
use lm::{Decoder, Sequence};

use crate::judging::{reject, verdict};
use crate::labels::log_sum;
use crate::lm_error;
use crate::stage::Judge;
use crate::verdict::Answer;
use crate::work::{Asked, Question, Questions, Unit, Wording, WorkList};

/// Judges every shard that is not judged yet. Gives the number of rejected rows.
pub(crate) fn judge(
    stage: &Judge,
    context: &Context<'_>,
    work: &WorkList,
    wording: &Wording,
    judge_id: &str,
) -> Result<u64> {
    let questions = Questions::open(stage, context, wording)?;
    // What only the data can tell is told before the weights are loaded.
    for first in work.first_of_each_form() {
        let _ = questions.ask(first)?;
    }
    let mut decoder = None;
    run_shards(context, "comparisons", &work.shards(stage.shard_rows), |shard, output| {
        if decoder.is_none() {
            let device = lm::open_device(context.device).map_err(lm_error)?;
            stage.dtype.warning(&device).into_iter().for_each(|text| context.warn(text));
            let model = &context.model("model")?.path;
            decoder = Some(Decoder::load_in(model, &device, stage.dtype).map_err(lm_error)?);
        }
        let decoder = decoder.as_ref().expect("loaded above");
        let (start, total) = (shard.start, work.units.len() as u64);
        let mut verdicts = Vec::new();
        let mut batch = Batch::default();
        for (index, unit) in work.units[shard].iter().enumerate() {
            let row = match unit {
                Unit::Judge(row) => row,
                Unit::Refuse(reject) => {
                    output.reject(reject.clone());
                    continue;
                }
            };
            match questions.ask(row)? {
                Ok(asked) => batch.push(asked),
                Err((reason, detail)) => output.reject(reject(row, reason, detail)),
            }
            if batch.tokens >= stage.tokens_per_batch {
                context.interrupt.check()?;
                batch.finish(stage, decoder, judge_id, &mut verdicts, |reject| output.reject(reject))?;
                context.progress((start + index + 1) as u64, total, "comparisons", String::new());
            }
        }
        batch.finish(stage, decoder, judge_id, &mut verdicts, |reject| output.reject(reject))?;
        output.write("verdicts", &verdicts)
    })
}

/// Comparisons that are scored in one call.
#[derive(Default)]
struct Batch<'a> {
    asked: Vec<Asked<'a>>,
    tokens: usize,
}

impl<'a> Batch<'a> {
    fn push(&mut self, asked: Asked<'a>) {
        self.tokens += asked.shared_tokens();
        self.asked.push(asked);
    }

    fn finish(
        &mut self,
        stage: &Judge,
        decoder: &Decoder,
        judge_id: &str,
        verdicts: &mut Vec<Verdict>,
        mut refuse: impl FnMut(Reject),
    ) -> Result<()> {
        let batch = std::mem::take(self);
        let questions: Vec<&Question> = batch.asked.iter().flat_map(Asked::questions).collect();
        let sequences: Vec<&Sequence> = questions.iter().flat_map(|question| &question.sequences).collect();
        if sequences.is_empty() {
            return Ok(());
        }
        let scores = decoder.score(&sequences, false, stage.tokens_per_batch).map_err(lm_error)?;
        let mut scores = scores.into_iter().map(|log_probs| log_probs.response);
        for asked in &batch.asked {
            // Answers come in the order of `questions`; which of them is a first, its address tells.
            let (mut ab, mut ba) = (None, None);
            for question in asked.questions() {
                let log_probs: Vec<f64> = scores.by_ref().take(question.sequences.len()).collect();
                let (better, worse) = asked.template.better(&question.labels);
                let (first, second) = (log_sum(&log_probs, better), log_sum(&log_probs, worse));
                if std::ptr::eq(question, &raw const asked.ab) {
                    ab = Some(Answer { logp_a: first, logp_b: second });
                } else {
                    ba = Some(Answer { logp_a: second, logp_b: first });
                }
            }
            let ab = ab.expect("the order a first is always asked");
            match [Some(ab), ba].into_iter().flatten().find(|answer| !answer.is_finite()) {
                None => verdicts.push(verdict(stage, asked.comparison, asked.template, (ab, ba), judge_id)?),
                Some(answer) => refuse(reject(
                    asked.comparison,
                    "not_finite".to_owned(),
                    format!("the judge's log-probs for a and b are {} and {}", answer.logp_a, answer.logp_b),
                )),
            }
        }
        Ok(())
    }
}
