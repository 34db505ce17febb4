//! Judging with a model in this process, batch by batch.

use std::ops::Range;

use kit::rows::Reject;
use kit::{Outcome, Result, ShardOutput, Sharded};
use lm::{Decoder, Packed, Sequence, Text};
use serde::{Deserialize, Serialize};
use tokens::{lm_error, load_decoder, prepared_ahead};

use crate::config::Judge;
use crate::judging::{Judging, reject, verdict};
use crate::labels::log_sum;
use crate::mass::{self, LOW_MASS};
use crate::verdict::Answer;
use crate::work::{JudgeInput, Questions, Unit, Wording};

/// The comparisons as questions, and the model once a shard needs it.
pub(crate) struct Local<'a> {
    judging: Judging<'a>,
    questions: Questions<'a>,
    decoder: Option<Decoder>,
}

impl<'a> Local<'a> {
    /// # Errors
    /// When the first question of a form cannot be asked.
    pub(crate) fn new(judging: Judging<'a>, wording: Wording) -> Result<Local<'a>> {
        let questions = Questions::open(judging.stage, judging.context, wording)?;
        for first in judging.work.first_of_each_form() {
            let _ = questions.ask(first)?;
        }
        Ok(Local { judging, questions, decoder: None })
    }
}

impl Sharded for Local<'_> {
    fn unit(&self) -> &'static str {
        "comparisons"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.judging.work.shards(self.judging.stage.shard_rows)
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        if self.decoder.is_none() {
            let Judging { stage, context, .. } = &self.judging;
            self.decoder = Some(load_decoder(context, "model", stage.precision())?);
        }
        let Local { judging, questions, decoder } = self;
        let Judging { stage, context, work, judge_id, low_mass } = judging;
        let decoder = decoder.as_ref().expect("loaded above");
        let scorer =
            Scorer { stage, budget: stage.tokens_per_batch.on(context.device), decoder, text: questions.text() };
        let total = work.units.len() as u64;
        let mut verdicts = Vec::new();
        let batches = Batch::of(&scorer, questions, &work.units, shard);
        prepared_ahead(batches, |mut batch| {
            std::mem::take(&mut batch.refused).into_iter().for_each(|reject| output.reject(reject));
            let Some(packed) = &batch.packed else { return Ok(()) };
            let judged = output.batch(|| batch.judge(packed, &scorer))?;
            for (asked, judged) in batch.asked.iter().zip(judged) {
                let row = asked.comparison;
                match judged {
                    JudgeResult::Verdict(ab, ba) => {
                        verdicts.push(verdict(stage, row, asked.template, (ab, ba), judge_id)?)
                    }
                    JudgeResult::Rejected(reason, detail) => {
                        low_mass.count(&reason, &detail);
                        output.reject(reject(row, reason, detail));
                    }
                }
            }
            low_mass.check()?;
            context.progress(batch.end as u64, total, "comparisons", String::new());
            Ok(())
        })?;
        output.write("verdicts", &verdicts)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        self.judging.finish(rejected)
    }
}

/// The inputs of judging a batch.
struct Scorer<'a> {
    stage: &'a Judge,
    /// Tokens at once.
    budget: usize,
    decoder: &'a Decoder,
    text: &'a Text,
}

/// The judge's verdict on a comparison.
#[derive(Serialize, Deserialize)]
enum JudgeResult {
    /// The evidence in the order a first, and in the other where it was asked.
    Verdict(Answer, Option<Answer>),
    /// Nothing that is a verdict: reason and detail.
    Rejected(String, String),
}

/// Comparisons that are scored in one call.
#[derive(Default)]
struct Batch<'a> {
    asked: Vec<JudgeInput<'a>>,
    /// Their sequences as the model takes them; none where nothing is asked.
    packed: Option<Packed>,
    /// Rows before its end that cannot be asked.
    refused: Vec<Reject>,
    /// Where the next batch begins, in units.
    end: usize,
}

impl<'a> Batch<'a> {
    /// The batches of a shard, in words and tokens.
    fn of(
        scorer: &'a Scorer<'a>,
        questions: &'a Questions<'a>,
        units: &'a [Unit],
        shard: Range<usize>,
    ) -> impl Iterator<Item = Result<Batch<'a>>> + Send {
        let mut rest = shard;
        std::iter::from_fn(move || (!rest.is_empty()).then(|| Batch::next(scorer, questions, units, &mut rest)))
    }

    fn next(
        scorer: &Scorer<'_>,
        questions: &'a Questions<'a>,
        units: &'a [Unit],
        rest: &mut Range<usize>,
    ) -> Result<Batch<'a>> {
        let Scorer { budget, decoder, .. } = scorer;
        let (mut batch, mut tokens) = (Batch::default(), 0);
        while tokens < *budget
            && let Some(index) = rest.next()
        {
            batch.end = index + 1;
            let row = match &units[index] {
                Unit::Judge(row) => row,
                Unit::Refuse(reject) => {
                    batch.refused.push(reject.clone());
                    continue;
                }
            };
            match questions.ask(row)? {
                Ok(asked) => {
                    tokens += asked.shared_tokens();
                    batch.asked.push(asked);
                }
                Err((reason, detail)) => batch.refused.push(reject(row, reason, detail)),
            }
        }
        if !batch.asked.is_empty() {
            let questions = batch.asked.iter().flat_map(JudgeInput::questions);
            let sequences: Vec<&Sequence> = questions.flat_map(|question| &question.sequences).collect();
            batch.packed = Some(decoder.pack(&sequences, false, *budget).map_err(lm_error)?);
        }
        Ok(batch)
    }

    /// The verdict on each comparison, in their order.
    fn judge(&self, packed: &Packed, scorer: &Scorer<'_>) -> Result<Vec<JudgeResult>> {
        let scores = scorer.decoder.score_packed(packed).map_err(lm_error)?;
        let mut scores = scores.into_iter().map(|log_probs| log_probs.response);
        let judge = |asked: &JudgeInput<'_>| {
            // Answers come in the order of `questions`; the address of each tells which of them is a first.
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
            scorer.judged(asked, ab.expect("the order a first is always asked"), ba)
        };
        self.asked.iter().map(judge).collect()
    }
}

impl Scorer<'_> {
    fn judged(&self, asked: &JudgeInput<'_>, ab: Answer, ba: Option<Answer>) -> Result<JudgeResult> {
        if let Some(answer) = [Some(ab), ba].into_iter().flatten().find(|answer| !answer.is_finite()) {
            let detail = format!("the judge's log-probs for a and b are {} and {}", answer.logp_a, answer.logp_b);
            return Ok(JudgeResult::Rejected("not_finite".to_owned(), detail));
        }
        let orders = [("a first", Some(ab), Some(&asked.ab)), ("b first", ba, asked.ba.as_ref())];
        let low = orders.into_iter().find_map(|(shown, answer, question)| {
            let mass = answer?.mass();
            (mass < self.stage.least_mass).then_some((shown, mass, question?))
        });
        let Some((shown, mass, question)) = low else { return Ok(JudgeResult::Verdict(ab, ba)) };
        let sequence = &question.sequences[0];
        let (token, p) = mass::first_token(self.decoder, self.text, &sequence.ids[..sequence.start])?;
        let detail = mass::too_little(self.stage, shown, mass, Some((&token, p)));
        Ok(JudgeResult::Rejected(LOW_MASS.to_owned(), detail))
    }
}
