//! Rating responses through an endpoint: each question about a response is one request.

use std::ops::Range;

use endpoint::{Asking, Endpoint, Protocol, RequestResult, Unheard};
use kit::rows;
use kit::{Context, Error, Outcome, Result, RowReader, ShardOutput, Sharded, id_of, shard_ranges};

use crate::config::Judge;
use crate::judging::Judging;
use crate::level_tokens::{LevelAnswer, LevelTokens};
use crate::mass::{self, LOW_MASS, LowMass, NO_LABEL};
use crate::modes::Rating;
use crate::rated::{RatingQuestions, Response, responses};
use crate::rating::{self, Opinion};

/// The responses, and the workers that ask once a shard needs them.
pub(crate) struct RemoteRated<'a> {
    judging: Judging<'a>,
    questions: RatingQuestions<'a>,
    endpoint: &'a Endpoint,
    /// The number of responses to each prompt.
    groups: Vec<usize>,
    asking: Option<Asking<LevelTokens>>,
}

impl<'a> RemoteRated<'a> {
    /// # Errors
    /// When the comparisons cannot be read, or when the first response cannot be worded.
    pub(crate) fn new(
        stage: &'a Judge,
        rating: &'a Rating,
        endpoint: &'a Endpoint,
        context: &'a Context<'a>,
    ) -> Result<RemoteRated<'a>> {
        let judging = Judging::open(stage, context)?;
        let questions = RatingQuestions::open(stage, rating)?;
        let responses = responses(&judging.work)?;
        if let Some(first) = responses.first() {
            let _ = questions.word(first, &questions.criteria[0])?;
        }
        let groups = responses.chunk_by(|one, other| one.ids.0 == other.ids.0).map(<[_]>::len).collect();
        Ok(RemoteRated { judging, questions, endpoint, groups, asking: None })
    }

    /// Starts the workers, and finds out whether the levels are single tokens at the endpoint.
    fn open(&self) -> Result<Asking<LevelTokens>> {
        let context = self.judging.context;
        let protocol = LevelTokens::new(self.endpoint, self.questions.rating);
        let probes: Vec<(String, String)> =
            protocol.probes().into_iter().map(|probe| (known_by(self.endpoint, &protocol, &probe), probe)).collect();
        let mut asking = Asking::open(self.endpoint, LevelTokens::new(self.endpoint, self.questions.rating), context)?;
        if self.endpoint.batch.is_some() {
            // Nothing is answered at once: a level of several tokens shows in the answers alone.
            return Ok(asking);
        }
        let said = asking.ask(context, probes.clone(), |_, _| {})?;
        for (level, (id, _)) in probes.iter().enumerate() {
            if let Some(RequestResult::Answer(answer)) = said.get(id)
                && let Some(fault) = protocol.fault(level, answer)
            {
                return Err(Error::Pipeline(fault));
            }
        }
        Ok(asking)
    }
}

/// The id of a question.
fn known_by(endpoint: &Endpoint, protocol: &LevelTokens, question: &String) -> String {
    id_of(&[&endpoint.address(LevelTokens::PATH), &endpoint.known_by(protocol, question)])
}

impl Sharded for RemoteRated<'_> {
    fn unit(&self) -> &'static str {
        "responses"
    }

    /// There is one even where nothing is compared, so that every port is written.
    fn shards(&self) -> Vec<Range<usize>> {
        let shards = shard_ranges(self.groups.iter().copied(), self.judging.stage.shard_rows);
        if shards.is_empty() { std::iter::once(0..0).collect() } else { shards }
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        if self.asking.is_none() && !shard.is_empty() {
            self.asking = Some(self.open()?);
        }
        let (unit, shards) = (self.unit(), self.shards());
        let RemoteRated { judging, questions, endpoint, asking, .. } = self;
        let Judging { stage, context, work, .. } = judging;
        let Some(asking) = asking else { return output.write::<rows::Rating>("ratings", &[]) };
        let responses = responses(work)?;
        let protocol = LevelTokens::new(endpoint, questions.rating);
        let asked_about = |chosen: &Range<usize>| asked(questions, endpoint, &protocol, &responses[chosen.clone()]);
        let results = asking.ask_shard(context, unit, &shards, &shard, asked_about)?;
        let ids = asked_about(&shard)?;
        let all = responses.len() * questions.criteria.len();
        let mut low_mass = LowMass::among(stage, "ratings", all);
        let mut unheard = Unheard::new(endpoint, &protocol, all);
        let mut rows = Vec::new();
        let chosen = responses[shard].iter();
        let chosen = chosen.flat_map(|response| questions.criteria.iter().map(move |criterion| (response, criterion)));
        for ((response, criterion), (id, _)) in chosen.zip(&ids) {
            let opinion = opinion(stage, &results[id]);
            if let Opinion::Nothing(reason, detail) = &opinion {
                low_mass.count(reason, detail);
                unheard.count(reason, detail)?;
            }
            rows.push(rating::row(response.ids, criterion, questions.rating, opinion));
        }
        low_mass.check()?;
        output.write("ratings", &rows)
    }

    fn finish(&mut self, _rejected: u64) -> Result<Outcome> {
        let outcome = self.questions.finish(&mut self.judging)?;
        let context = self.judging.context;
        // Shards of earlier processes count too.
        let all = self.groups.iter().sum::<usize>() * self.questions.criteria.len();
        let protocol = LevelTokens::new(self.endpoint, self.questions.rating);
        let mut unheard = Unheard::new(self.endpoint, &protocol, all);
        for row in RowReader::<rows::Rating>::open(&[&context.port("ratings")])? {
            let row = row?;
            if let Some((reason, detail)) = row.reason.zip(row.detail) {
                unheard.count(&reason, &detail)?;
            }
        }
        Ok(Asking::bill(self.asking.as_ref(), self.endpoint, context)?.add_to(outcome))
    }
}

/// The questions about some responses, each with its id.
fn asked(
    questions: &RatingQuestions<'_>,
    endpoint: &Endpoint,
    protocol: &LevelTokens,
    responses: &[Response<'_>],
) -> Result<Vec<(String, String)>> {
    let mut asked = Vec::new();
    for response in responses {
        for criterion in &questions.criteria {
            let question = questions.word(response, criterion)?;
            asked.push((known_by(endpoint, protocol, &question), question));
        }
    }
    Ok(asked)
}

fn opinion(stage: &Judge, result: &RequestResult<LevelAnswer>) -> Opinion {
    let answer = match result {
        RequestResult::Nothing(reason, detail) => return Opinion::Nothing((*reason).to_owned(), detail.clone()),
        RequestResult::Answer(answer) => answer,
    };
    let likeliest = Some((answer.likeliest.0.as_str(), answer.likeliest.1.exp()));
    let returned: Vec<f64> = answer.levels.iter().flatten().copied().collect();
    if returned.is_empty() {
        let what = format!("no level is among the {} likeliest tokens", answer.alternatives);
        return Opinion::Nothing(NO_LABEL.to_owned(), mass::with_token(what, likeliest));
    }
    let mass: f64 = returned.iter().map(|logp| logp.exp()).sum();
    if mass < stage.least_mass {
        return Opinion::Nothing(LOW_MASS.to_owned(), mass::little(stage, "the levels", mass, likeliest));
    }
    let levels = answer.levels.iter().map(|level| level.unwrap_or(answer.bound)).collect();
    Opinion::Levels(levels, (answer.levels.len() - returned.len()) as u32)
}
