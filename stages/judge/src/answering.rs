//! Judging with texts that a model in this process writes: sampled answers, or a rationale.

use std::ops::Range;

use kit::rows::{JudgeAnswer, Verdict};
use kit::{Context, Error, Outcome, Result, ShardOutput, Sharded, complete_port};
use lm::{Decoder, GenerateRequest, Generation, Sequence};
use serde::{Deserialize, Serialize};
use tokens::{lm_error, load_decoder};

use crate::answers::{self, Order, Written};
use crate::batches::{Batches, about};
use crate::config::Judge;
use crate::judging::{Judging, reject, verdict};
use crate::labels::log_sum;
use crate::mass::{self, LOW_MASS, UNPARSED};
use crate::modes::Mode;
use crate::modes::{Rationale, Reasoning};
use crate::pattern::{Named, Pattern};
use crate::rationale::labelled;
use crate::thoughts;
use crate::verdict::Answer;
use crate::work::{Question, Refused, Unit, Worded, Wording};
use crate::writing::{Prompt, Writing};

/// The comparisons in words, and the model once a shard needs it.
pub(crate) struct Answering<'a> {
    judging: Judging<'a>,
    wording: Wording,
    writing: Writing<'a>,
    way: Way<'a>,
    batches: Batches,
    decoder: Option<Decoder>,
}

/// The way from texts to a verdict.
enum Way<'a> {
    Reasoning(&'a Reasoning, Pattern<'a>),
    Rationale(&'a Rationale),
}

/// The judge's work on a comparison: its orders, or reason and detail of a refusal.
type Judged = Result<Vec<(Order, OrderResult)>, Refused>;

/// The judge's work on one order.
#[derive(Debug, Serialize, Deserialize)]
struct OrderResult {
    /// Answers, or one rationale.
    written: Vec<Written>,
    /// Behind a rationale: the log-probs of the labels that say "first is better" and "second is better".
    labels: Option<(f64, f64)>,
    /// The token that the judge would rather begin with, and its probability, where the labels got too little.
    instead: Option<(String, f64)>,
    /// The reason and the detail why the labels could not be scored.
    refused: Option<Refused>,
}

impl<'a> Answering<'a> {
    /// # Errors
    /// When the first question of a form cannot be asked, or when the labels cannot be distinguished.
    pub(crate) fn new(stage: &'a Judge, context: &'a Context<'a>, wording: Wording) -> Result<Answering<'a>> {
        let judging = Judging::new(stage, context, &wording)?;
        let writing = Writing::open(stage, context)?;
        let way = match stage.mode() {
            Mode::Reasoning(reasoning) => {
                Way::Reasoning(reasoning, Pattern::compile(reasoning, &stage.labels).map_err(Error::Pipeline)?)
            }
            Mode::Rationale(rationale) => Way::Rationale(rationale),
            Mode::Labels | Mode::Rating(_) => return Err(Error::internal("a judge that writes nothing")),
        };
        for first in judging.work.first_of_each_form() {
            let Ok(worded) = wording.word(first)? else { continue };
            let _ = writing.prompts(&worded)?;
            if let Way::Rationale(rationale) = way {
                let turn = (first.comparison_id.as_str(), writing.turn(&worded.ab));
                let _ = labelled(&writing.reader, &stage.labels, rationale, turn, "x")?;
            }
        }
        let batches = batches(&judging, stage)?;
        Ok(Answering { judging, wording, writing, way, batches, decoder: None })
    }
}

/// Batches of the comparisons, those of one prompt together.
fn batches(judging: &Judging<'_>, stage: &Judge) -> Result<Batches> {
    let (samples, rules) = stage.writing().ok_or_else(|| Error::internal("a judge that writes nothing"))?;
    let orders = stage.order_count() as usize;
    let of = |unit: &Unit| match unit {
        Unit::Judge(row) => {
            let question = about(&row.a_prompt) + about(&row.a_response) + about(&row.b_response);
            orders * (question + samples * rules.max_tokens)
        }
        Unit::Refuse(_) => 0,
    };
    let groups = judging.work.groups().map(|group| {
        let tokens = judging.work.units[group.clone()].iter().map(of).sum();
        (group, tokens)
    });
    Ok(Batches::cut(groups, stage.tokens_per_batch.everywhere()))
}

impl Sharded for Answering<'_> {
    fn unit(&self) -> &'static str {
        "comparisons"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.batches.shards(self.judging.stage.shard_rows)
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        let Answering { judging, wording, writing, way, batches, decoder } = self;
        let Judging { stage, context, work, judge_id, low_mass } = judging;
        if decoder.is_none() {
            *decoder = Some(load_decoder(context, "model", stage.precision())?);
        }
        let decoder = decoder.as_ref().expect("loaded above");
        let writer = Writer { stage, context, decoder, writing, way };
        let total = work.units.len() as u64;
        let (mut verdicts, mut texts) = (Vec::new(), Vec::new());
        for batch in batches.within(&shard) {
            let mut asked = Vec::new();
            for unit in &work.units[batch.clone()] {
                match unit {
                    Unit::Refuse(refused) => output.reject(refused.clone()),
                    Unit::Judge(row) => match wording.word(row)? {
                        Ok(worded) => asked.push(worded),
                        Err((reason, detail)) => output.reject(reject(row, reason, detail)),
                    },
                }
            }
            let judged = output.batch(|| writer.judge(&asked))?;
            for (worded, judged) in asked.iter().zip(judged) {
                let row = worded.comparison;
                let concluded = judged.and_then(|orders| writer.conclude(worded, &orders, &mut texts));
                match concluded {
                    Ok(answers) => {
                        let row = verdict(stage, row, worded.template, answers, judge_id)?;
                        verdicts.push(way.evident(row));
                    }
                    Err((reason, detail)) => {
                        low_mass.count(&reason, &detail);
                        output.reject(reject(row, reason, detail));
                    }
                }
            }
            low_mass.check()?;
            context.progress(batch.end as u64, total, "comparisons", String::new());
        }
        output.write("answers", &texts)?;
        output.write("verdicts", &verdicts)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        let context = self.judging.context;
        complete_port::<JudgeAnswer>(context, "answers")?;
        let more = answers::summary(context)?;
        self.judging.finish_with(rejected, more)
    }
}

impl Way<'_> {
    /// A verdict without columns that this way has no evidence for.
    fn evident(&self, row: Verdict) -> Verdict {
        match self {
            Way::Reasoning(..) => answers::without_log_probs(row),
            Way::Rationale(_) => row,
        }
    }
}

/// The inputs of writing about a batch.
struct Writer<'a> {
    stage: &'a Judge,
    context: &'a Context<'a>,
    decoder: &'a Decoder,
    writing: &'a Writing<'a>,
    way: &'a Way<'a>,
}

impl Writer<'_> {
    /// The judge's work on some comparisons, in their order.
    fn judge(&self, asked: &[Worded<'_>]) -> Result<Vec<Judged>> {
        let (samples, rules) = self.stage.writing().ok_or_else(|| Error::internal("a judge that writes nothing"))?;
        let prompts = asked.iter().map(|worded| self.writing.prompts(worded)).collect::<Result<Vec<_>>>()?;
        let all: Vec<&Prompt<'_>> = prompts.iter().flatten().flatten().collect();
        let seeds =
            |id: &str| (0..samples as u64).map(|sample| self.context.seed.derive("judge", id, sample)).collect();
        let requests =
            all.iter().map(|prompt| GenerateRequest { ids: &prompt.sequence.ids, seeds: seeds(&prompt.seed_id) });
        let requests: Vec<GenerateRequest<'_>> = requests.collect();
        let text = &self.writing.reader.text;
        let generated = self
            .decoder
            .generate(text, &requests, &rules, self.stage.tokens_per_batch.everywhere())
            .map_err(lm_error)?;
        let mut results = Vec::new();
        for (prompt, generations) in all.iter().zip(&generated) {
            let written = generations.iter().map(|generation| self.written(prompt, generation));
            let written = written.collect::<Result<Vec<_>>>()?;
            results.push(OrderResult { written, labels: None, instead: None, refused: None });
        }
        if let Way::Rationale(rationale) = self.way {
            self.score(rationale, asked, &prompts, &mut results)?;
        }
        let mut results = results.into_iter();
        let judged = prompts.into_iter().map(|prompts| {
            let orders = prompts?;
            Ok(orders.iter().map(|prompt| prompt.order).zip(results.by_ref()).collect())
        });
        Ok(judged.collect())
    }

    fn written(&self, prompt: &Prompt<'_>, generation: &Generation) -> Result<Written> {
        let (thoughts, text) = match self.way {
            Way::Rationale(_) => (None, Some(generation.text.clone())),
            Way::Reasoning(reasoning, _) => {
                let text = &self.writing.reader.text;
                let (marks, stop) = (&reasoning.think, &reasoning.stop);
                let parts = thoughts::of_generation(text, &prompt.sequence, generation, marks, stop)?;
                (parts.thoughts, parts.answer)
            }
        };
        let finish = Some(generation.finish.name().to_owned());
        Ok(Written { thoughts, text, tokens: Some(generation.ids.len() as u32), finish })
    }

    /// Reads the labels' log-probs behind each rationale.
    fn score(
        &self,
        rationale: &Rationale,
        asked: &[Worded<'_>],
        prompts: &[Result<Vec<Prompt<'_>>, Refused>],
        results: &mut [OrderResult],
    ) -> Result<()> {
        let reader = &self.writing.reader;
        let rows = asked.iter().zip(prompts);
        let rows = rows.flat_map(|(worded, prompts)| prompts.iter().flatten().map(move |prompt| (worded, prompt)));
        let mut questions: Vec<Option<Question>> = Vec::new();
        for ((worded, prompt), result) in rows.zip(results.iter_mut()) {
            let name = format!("comparison `{}`", worded.comparison.comparison_id);
            let turn = (name.as_str(), self.writing.turn(prompt.question));
            let written = result.written[0].text.as_deref().unwrap_or_default();
            match labelled(reader, &self.stage.labels, rationale, turn, written)? {
                Ok(question) => questions.push(Some(question)),
                Err((reason, detail)) => {
                    result.refused = Some((reason, format!("{}: {detail}", prompt.order.shown())));
                    questions.push(None);
                }
            }
        }
        let sequences: Vec<&Sequence> = questions.iter().flatten().flat_map(|question| &question.sequences).collect();
        let scores =
            self.decoder.score(&sequences, false, self.stage.tokens_per_batch.everywhere()).map_err(lm_error)?;
        let mut scores = scores.into_iter().map(|log_probs| log_probs.response);
        for (question, result) in questions.iter().zip(results) {
            let Some(question) = question else { continue };
            let log_probs: Vec<f64> = scores.by_ref().take(question.sequences.len()).collect();
            let (first, second) =
                (log_sum(&log_probs, &question.labels.first), log_sum(&log_probs, &question.labels.second));
            result.labels = Some((first, second)).filter(|_| first.is_finite() && second.is_finite());
            if result.labels.is_none() {
                let detail = format!("the judge's log-probs for the labels are {first} and {second}");
                result.refused = Some(("not_finite".to_owned(), detail));
            } else if first.exp() + second.exp() < self.stage.least_mass {
                let sequence = &question.sequences[0];
                let token = mass::first_token(self.decoder, &reader.text, &sequence.ids[..sequence.start])?;
                result.instead = Some(token);
            }
        }
        Ok(())
    }

    /// Both orders' answers, or the reason and the detail why there is none. Adds the rows of all texts.
    fn conclude(
        &self,
        worded: &Worded<'_>,
        orders: &[(Order, OrderResult)],
        texts: &mut Vec<JudgeAnswer>,
    ) -> Result<(Answer, Option<Answer>), Refused> {
        let (comparison, asks_for) = (worded.comparison, worded.template.asks_for);
        let mut answers = [None, None];
        for (at, order) in [Order::Ab, Order::Ba].into_iter().enumerate() {
            let Some((_, result)) = orders.iter().find(|(other, _)| *other == order) else { continue };
            let (ps, answer) = match self.way {
                Way::Reasoning(reasoning, pattern) => {
                    let ps = answers::verdicts(pattern, order, asks_for, &result.written);
                    let answer = answers::counted(reasoning, order, &ps);
                    (ps, answer.map_err(|detail| (UNPARSED.to_owned(), detail)))
                }
                Way::Rationale(_) => {
                    let answer = self.labelled(order, worded, result);
                    (vec![answer.as_ref().ok().map(|answer| answer.p())], answer)
                }
            };
            let rows = result.written.iter().zip(&ps).enumerate();
            texts.extend(rows.map(|(sample, (written, p))| answers::row(comparison, order, sample, written, *p)));
            answers[at] = Some(answer);
        }
        let [ab, ba] = answers;
        let ab = ab.expect("the order a first is always asked")?;
        Ok((ab, ba.transpose()?))
    }

    /// The labels behind a rationale, as an answer about a and b.
    fn labelled(&self, order: Order, worded: &Worded<'_>, result: &OrderResult) -> Result<Answer, Refused> {
        if let Some(refused) = &result.refused {
            return Err(refused.clone());
        }
        let (first, second) = result.labels.expect("labels that were not refused were scored");
        if let Some((token, p)) = &result.instead {
            let mass = first.exp() + second.exp();
            return Err((LOW_MASS.to_owned(), mass::too_little(self.stage, order.shown(), mass, Some((token, *p)))));
        }
        let first_is_a = order.p(Named::First, worded.template.asks_for) == 1.0;
        Ok(if first_is_a { Answer { logp_a: first, logp_b: second } } else { Answer { logp_a: second, logp_b: first } })
    }
}
