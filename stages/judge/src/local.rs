//! Judging with a model in this process, batch by batch.

use kit::{Context, Result, ShardOutput, run_shards};
use lm::{Decoder, GenerateRequest, SamplingRules, Sequence, Text};
use serde::{Deserialize, Serialize};

use crate::config::Judge;
use crate::judging::{reject, verdict};
use crate::labels::log_sum;
use crate::mass::{self, LOW_MASS, LowMass};
use crate::verdict::Answer;
use crate::work::{Asked, Question, Questions, Unit, Wording, WorkList};
use tokens::lm_error;

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
    let mut low_mass = LowMass::new(stage, work);
    let rejected = run_shards(context, "comparisons", &work.shards(stage.shard_rows), |shard, output| {
        if decoder.is_none() {
            let device = lm::open_device(context.device).map_err(lm_error)?;
            stage.dtype.warning(&device).into_iter().for_each(|text| context.warn(text));
            let model = &context.model("model")?.path;
            decoder = Some(Decoder::load_in(model, &device, stage.dtype).map_err(lm_error)?);
        }
        let decoder = decoder.as_ref().expect("loaded above");
        let judging = Judging { stage, decoder, text: questions.text() };
        let (start, total) = (shard.start, work.units.len() as u64);
        let mut verdicts = Vec::new();
        let mut batch = Batch::default();
        let mut finish = |batch: &mut Batch<'_>, output: &mut ShardOutput<'_>| -> Result<()> {
            let batch = std::mem::take(batch);
            if batch.asked.is_empty() {
                return Ok(());
            }
            let judged = output.batch(|| batch.judge(&judging))?;
            for (asked, judged) in batch.asked.iter().zip(judged) {
                let row = asked.comparison;
                match judged {
                    Judged::Verdict(ab, ba) => verdicts.push(verdict(stage, row, asked.template, (ab, ba), judge_id)?),
                    Judged::Rejected(reason, detail) => {
                        low_mass.count(&reason, &detail);
                        output.reject(reject(row, reason, detail));
                    }
                }
            }
            low_mass.check()
        };
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
                finish(&mut batch, output)?;
                context.progress((start + index + 1) as u64, total, "comparisons", String::new());
            }
        }
        finish(&mut batch, output)?;
        output.write("verdicts", &verdicts)
    })?;
    low_mass.count_again(context)?;
    Ok(rejected)
}

/// The token that the judge would begin with in place of a label, and its probability.
fn likeliest(decoder: &Decoder, text: &Text, sequence: &Sequence) -> Result<Option<(String, f64)>> {
    let rules = SamplingRules { temperature: 0.0, top_p: None, top_k: None, max_tokens: 1, stop: Vec::new() };
    let ids = &sequence.ids[..sequence.start];
    let request = GenerateRequest { ids, seeds: vec![0] };
    let generated = decoder.generate(text, &[request], &rules, ids.len() + 1).map_err(lm_error)?;
    let Some(first) = generated.first().and_then(|all| all.first()) else { return Ok(None) };
    let whole = Sequence { ids: [ids, &first.ids].concat(), ..sequence.clone() };
    let (_, token) = text.spelled(&whole).map_err(lm_error)?;
    Ok(Some((token, first.logp.exp())))
}

/// What judging a batch takes.
struct Judging<'a> {
    stage: &'a Judge,
    decoder: &'a Decoder,
    text: &'a Text,
}

/// What the judge said of a comparison.
#[derive(Serialize, Deserialize)]
enum Judged {
    /// The evidence in the order a first, and in the other where it was asked.
    Verdict(Answer, Option<Answer>),
    /// Nothing that is a verdict: reason and detail.
    Rejected(String, String),
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

    /// What is said of each comparison, in their order.
    fn judge(&self, judging: &Judging<'_>) -> Result<Vec<Judged>> {
        let Judging { stage, decoder, .. } = judging;
        let questions: Vec<&Question> = self.asked.iter().flat_map(Asked::questions).collect();
        let sequences: Vec<&Sequence> = questions.iter().flat_map(|question| &question.sequences).collect();
        let scores = decoder.score(&sequences, false, stage.tokens_per_batch).map_err(lm_error)?;
        let mut scores = scores.into_iter().map(|log_probs| log_probs.response);
        let judge = |asked: &Asked<'_>| {
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
            judging.judged(asked, ab.expect("the order a first is always asked"), ba)
        };
        self.asked.iter().map(judge).collect()
    }
}

impl Judging<'_> {
    fn judged(&self, asked: &Asked<'_>, ab: Answer, ba: Option<Answer>) -> Result<Judged> {
        if let Some(answer) = [Some(ab), ba].into_iter().flatten().find(|answer| !answer.is_finite()) {
            let detail = format!("the judge's log-probs for a and b are {} and {}", answer.logp_a, answer.logp_b);
            return Ok(Judged::Rejected("not_finite".to_owned(), detail));
        }
        let orders = [("a first", Some(ab), Some(&asked.ab)), ("b first", ba, asked.ba.as_ref())];
        let low = orders.into_iter().find_map(|(shown, answer, question)| {
            let mass = answer?.mass();
            (mass < self.stage.least_mass).then_some((shown, mass, question?))
        });
        let Some((shown, mass, question)) = low else { return Ok(Judged::Verdict(ab, ba)) };
        let likeliest = likeliest(self.decoder, self.text, &question.sequences[0])?;
        let likeliest = likeliest.as_ref().map(|(token, p)| (token.as_str(), *p));
        Ok(Judged::Rejected(LOW_MASS.to_owned(), mass::too_little(self.stage, shown, mass, likeliest)))
    }
}
