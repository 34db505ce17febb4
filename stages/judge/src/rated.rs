//! Rating responses with a model in this process, each of them once.

use std::collections::BTreeMap;
use std::ops::Range;

use kit::rows::{self, ScoredVerdict};
use kit::{Context, Error, Message, Outcome, Result, ShardOutput, Sharded, complete_port};
use lm::{Decoder, LogProbs, Packed, Sequence, Turn};
use tokens::{SequenceReader, lm_error, load_decoder, prepared_ahead};

use crate::batches::{Batches, about};
use crate::config::Judge;
use crate::judging::{Judging, reject};
use crate::labels::{log_sum, sort};
use crate::mass::{self, LOW_MASS, LowMass};
use crate::modes::{Criterion, Rating};
use crate::rating::{self, Opinion, Ratings, verdict_row};
use crate::template::{Side, Template};
use crate::work::{Refused, Unit, WorkList};

/// A response that is compared.
pub(crate) struct Response<'a> {
    pub(crate) ids: (&'a str, &'a str),
    prompt: &'a [Message],
    response: &'a [Message],
}

/// The distinct responses of some comparisons, by their ids.
///
/// # Errors
/// When two texts have the ids of one response.
pub(crate) fn responses(work: &WorkList) -> Result<Vec<Response<'_>>> {
    let mut known = BTreeMap::new();
    for row in work.comparisons() {
        let a = (&row.a_prompt_id, &row.a_response_id, &row.a_prompt, &row.a_response);
        let b = (&row.b_prompt_id, &row.b_response_id, &row.b_prompt, &row.b_response);
        for (prompt_id, response_id, prompt, response) in [a, b] {
            let texts = known.entry((prompt_id.as_str(), response_id.as_str())).or_insert((prompt, response));
            if *texts != (prompt, response) {
                return Err(Error::data(format!(
                    "response `{response_id}` of prompt `{prompt_id}` has two different texts; one of them stands in \
                     comparison `{}`",
                    row.comparison_id
                )));
            }
        }
    }
    Ok(known.into_iter().map(|(ids, (prompt, response))| Response { ids, prompt, response }).collect())
}

/// Questions about one response.
pub(crate) struct RatingQuestions<'a> {
    pub(crate) stage: &'a Judge,
    pub(crate) rating: &'a Rating,
    pub(crate) template: Template,
    pub(crate) criteria: Vec<Criterion>,
}

impl<'a> RatingQuestions<'a> {
    /// # Errors
    /// When the template cannot be read.
    pub(crate) fn open(stage: &'a Judge, rating: &'a Rating) -> Result<RatingQuestions<'a>> {
        let name = stage.template.as_ref().ok_or_else(|| Error::internal("a rating without a template"))?;
        let asks_for = stage.asks_for.filter(|_| name.contains('/'));
        let template = Template::open(name, stage.task(), false, asks_for)?;
        Ok(RatingQuestions { stage, rating, template, criteria: rating.questions() })
    }

    /// The question by a criterion.
    ///
    /// # Errors
    /// When the template fails.
    pub(crate) fn word(&self, response: &Response<'_>, criterion: &Criterion) -> Result<String> {
        let side = Side { prompt: response.prompt, response: response.response };
        let criterion = (criterion.name.as_str(), criterion.rubric.as_str());
        self.template.render_rating(side, criterion, &self.rating.levels, self.stage.form)
    }

    /// The tokens of a question and of the levels behind it.
    ///
    /// # Errors
    /// When the levels cannot be distinguished, or when the rules say to stop at this response.
    pub(crate) fn tokens(
        &self,
        reader: &SequenceReader,
        response: &Response<'_>,
        question: &str,
    ) -> Result<Result<Spelled, Refused>> {
        let turn = Turn::new(self.stage.form.role(), question);
        let texts: Vec<&str> = self.rating.levels.iter().flatten().map(String::as_str).collect();
        match reader.continuations(&format!("response `{}`", response.ids.1), turn, &texts)? {
            Ok(mut sequences) => {
                let levels = self.rating.levels.iter().map(Vec::as_slice);
                let sorted = sort(levels, &mut sequences, "rating.levels").map_err(Error::Pipeline)?;
                Ok(Ok((sequences, sorted)))
            }
            Err(refusal) => Ok(Err((refusal.reason().to_owned(), refusal.to_string()))),
        }
    }

    /// The verdicts that follow from the finished table `ratings`, and the stage's outcome.
    ///
    /// # Errors
    /// When a table cannot be read or written.
    pub(crate) fn finish(&self, judging: &mut Judging<'_>) -> Result<Outcome> {
        let context = judging.context;
        complete_port::<rows::Rating>(context, "ratings")?;
        let ratings = Ratings::read(context)?;
        let mut verdicts = context.writer::<ScoredVerdict>("verdicts")?;
        let mut rejects = Vec::new();
        for unit in &judging.work.units {
            let row = match unit {
                Unit::Judge(row) => row,
                Unit::Refuse(refused) => {
                    rejects.push(refused.clone());
                    continue;
                }
            };
            match ratings.verdict(self.rating, self.template.asks_for, row) {
                Ok(balance) => verdicts.push(verdict_row(row, balance, &judging.judge_id, &self.template.id))?,
                Err((reason, detail)) => rejects.push(reject(row, reason, detail)),
            }
        }
        verdicts.finish()?;
        let rejected = rejects.len() as u64;
        context.write_rejects(rejects)?;
        judging.finish_with(rejected, ratings.summary(self.rating))
    }
}

/// A question with each spelling of the levels behind it, and the spellings of each level by their numbers.
type Spelled = (Vec<Sequence>, Vec<Vec<usize>>);

/// The responses, and the model once a shard needs it.
pub(crate) struct Rated<'a> {
    judging: Judging<'a>,
    questions: RatingQuestions<'a>,
    reader: SequenceReader,
    batches: Batches,
    responses: usize,
    decoder: Option<Decoder>,
}

impl<'a> Rated<'a> {
    /// # Errors
    /// When the first question cannot be asked.
    pub(crate) fn new(stage: &'a Judge, rating: &'a Rating, context: &'a Context<'a>) -> Result<Rated<'a>> {
        let judging = Judging::open(stage, context)?;
        let questions = RatingQuestions::open(stage, rating)?;
        let reader = rating_reader(stage, context)?;
        let responses = responses(&judging.work)?;
        if let (Some(first), Some(criterion)) = (responses.first(), questions.criteria.first()) {
            let _ = questions.tokens(&reader, first, &questions.word(first, criterion)?)?;
        }
        let (batches, count) = (batches(&responses, stage, questions.criteria.len()), responses.len());
        drop(responses);
        Ok(Rated { judging, questions, reader, batches, responses: count, decoder: None })
    }
}

/// The tokenizer for questions about one response.
pub(crate) fn rating_reader(stage: &Judge, context: &Context<'_>) -> Result<SequenceReader> {
    SequenceReader::open(&context.model("model")?.path, stage.tokens.text_rules(), stage.tokens.max_tokens)
}

/// Batches of the responses, those of one prompt together.
fn batches(responses: &[Response<'_>], stage: &Judge, criteria: usize) -> Batches {
    let mut start = 0;
    let groups = responses.chunk_by(|one, other| one.ids.0 == other.ids.0).map(|group| {
        let range = start..start + group.len();
        start = range.end;
        let responses: usize = group.iter().map(|response| about(response.response) + criteria).sum();
        (range, about(group[0].prompt) + responses)
    });
    Batches::cut(groups, stage.tokens_per_batch.everywhere())
}

impl Sharded for Rated<'_> {
    fn unit(&self) -> &'static str {
        "responses"
    }

    /// There is one even where nothing is compared, so that every port is written.
    fn shards(&self) -> Vec<Range<usize>> {
        let shards = self.batches.shards(self.judging.stage.shard_rows);
        if shards.is_empty() { std::iter::once(0..0).collect() } else { shards }
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        let Rated { judging, questions, reader, batches, responses: total, decoder } = self;
        let Judging { stage, context, work, .. } = judging;
        if decoder.is_none() && !shard.is_empty() {
            *decoder = Some(load_decoder(context, "model", stage.precision())?);
        }
        let responses = responses(work)?;
        let mut low_mass = LowMass::among(stage, "ratings", *total * questions.criteria.len());
        let mut rows = Vec::new();
        let (questions, reader, decoder) = (&*questions, &*reader, decoder.as_ref());
        let asked = batches.within(&shard).map(|batch| {
            let decoder = decoder.expect("loaded for a shard with responses");
            Ok((Asked::new(questions, reader, decoder, &responses[batch.clone()])?, batch))
        });
        prepared_ahead(asked, |(asked, batch)| {
            let chosen = &responses[batch.clone()];
            let decoder = decoder.expect("loaded for a shard with responses");
            let opinions = output.batch(|| asked.opinions(questions, reader, decoder))?;
            let asked = chosen.iter().flat_map(|response| questions.criteria.iter().map(move |it| (response, it)));
            for ((response, criterion), opinion) in asked.zip(opinions) {
                if let Opinion::Nothing(reason, detail) = &opinion {
                    low_mass.count(reason, detail);
                }
                rows.push(rating::row(response.ids, criterion, questions.rating, opinion));
            }
            low_mass.check()?;
            context.progress(batch.end as u64, *total as u64, "responses", String::new());
            Ok(())
        })?;
        output.write("ratings", &rows)
    }

    fn finish(&mut self, _rejected: u64) -> Result<Outcome> {
        self.questions.finish(&mut self.judging)
    }
}

/// The questions about some responses, in their order, each by every criterion.
struct Asked {
    questions: Vec<Result<Spelled, Refused>>,
    /// Their sequences as the model takes them.
    packed: Packed,
}

impl Asked {
    fn new(
        questions: &RatingQuestions<'_>,
        reader: &SequenceReader,
        decoder: &Decoder,
        responses: &[Response<'_>],
    ) -> Result<Asked> {
        let mut asked = Vec::new();
        for response in responses {
            for criterion in &questions.criteria {
                asked.push(questions.tokens(reader, response, &questions.word(response, criterion)?)?);
            }
        }
        let sequences: Vec<&Sequence> = asked.iter().flatten().flat_map(|(sequences, _)| sequences).collect();
        let packed =
            decoder.pack(&sequences, false, questions.stage.tokens_per_batch.everywhere()).map_err(lm_error)?;
        Ok(Asked { questions: asked, packed })
    }

    fn opinions(
        &self,
        questions: &RatingQuestions<'_>,
        reader: &SequenceReader,
        decoder: &Decoder,
    ) -> Result<Vec<Opinion>> {
        let scores = decoder.score_packed(&self.packed).map_err(lm_error)?;
        opinions(questions.stage, reader, decoder, &self.questions, scores)
    }
}

/// The opinions that follow from the scores of all questions' sequences.
fn opinions(
    stage: &Judge,
    reader: &SequenceReader,
    decoder: &Decoder,
    asked: &[Result<Spelled, Refused>],
    scores: Vec<LogProbs>,
) -> Result<Vec<Opinion>> {
    let mut scores = scores.into_iter().map(|log_probs| log_probs.response);
    let mut opinions = Vec::new();
    for asked in asked {
        let (sequences, sorted) = match asked {
            Ok(asked) => asked,
            Err((reason, detail)) => {
                opinions.push(Opinion::Nothing(reason.clone(), detail.clone()));
                continue;
            }
        };
        let log_probs: Vec<f64> = scores.by_ref().take(sequences.len()).collect();
        let levels: Vec<f64> = sorted.iter().map(|spellings| log_sum(&log_probs, spellings)).collect();
        if let Some(wrong) = levels.iter().find(|logp| !logp.is_finite()) {
            opinions.push(Opinion::Nothing("not_finite".to_owned(), format!("the log-prob of a level is {wrong}")));
            continue;
        }
        let mass: f64 = levels.iter().map(|logp| logp.exp()).sum();
        if mass < stage.least_mass {
            let first = &sequences[0];
            let (token, p) = mass::first_token(decoder, &reader.text, &first.ids[..first.start])?;
            let detail = mass::little(stage, "the levels", mass, Some((&token, p)));
            opinions.push(Opinion::Nothing(LOW_MASS.to_owned(), detail));
            continue;
        }
        opinions.push(Opinion::Levels(levels, 0));
    }
    Ok(opinions)
}
