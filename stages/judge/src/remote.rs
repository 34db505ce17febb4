//! Judging through an endpoint: each order of a comparison is one request.

use std::collections::BTreeMap;
use std::ops::Range;

use endpoint::{Asking, BAD_ANSWER, Endpoint, Protocol, REFUSED, RequestResult, SERVER_ERROR};
use kit::rows::{Reject, Verdict};
use kit::{Error, Outcome, Result, RowReader, ShardOutput, Sharded, id_of};

use crate::config::Judge;
use crate::judging::{Judging, reject, verdict};
use crate::mass::{self, LOW_MASS, NO_LABEL};
use crate::protocol::OneToken;
use crate::reply::{self, LabelLogps};
use crate::template::AsksFor;
use crate::verdict::{Answer, Bounds};
use crate::work::{Unit, Worded, Wording};

/// Reasons of missing verdicts that the endpoint causes, not the judge.
const REASONS: [&str; 3] = [BAD_ANSWER, REFUSED, SERVER_ERROR];

/// The comparisons in words, and the workers that ask once a shard needs them.
pub(crate) struct Remote<'a> {
    judging: Judging<'a>,
    endpoint: &'a Endpoint,
    wording: Wording,
    asking: Option<Asking<OneToken>>,
    /// The most comparisons that may end without a verdict for [`REASONS`].
    limit: u64,
    /// Those that did in this process.
    unheard: u64,
}

impl<'a> Remote<'a> {
    pub(crate) fn new(judging: Judging<'a>, endpoint: &'a Endpoint, wording: Wording) -> Remote<'a> {
        let limit = (endpoint.max_rejects * judging.work.comparisons().count() as f64).ceil() as u64;
        Remote { judging, endpoint, wording, asking: None, limit, unheard: 0 }
    }

    fn open(&self) -> Result<Asking<OneToken>> {
        let Judging { stage, context, .. } = self.judging;
        let opened = Asking::open(self.endpoint, OneToken::new(self.endpoint, &stage.labels), context)?;
        if opened.remembered() > 0 {
            let what = format!("{} answered requests", opened.remembered());
            context.emit(kit::Event::Resumed { what });
        }
        Ok(opened)
    }
}

impl Sharded for Remote<'_> {
    fn unit(&self) -> &'static str {
        "comparisons"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.judging.work.shards(self.judging.stage.shard_rows)
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        if self.asking.is_none() {
            self.asking = Some(self.open()?);
        }
        let Remote { judging, endpoint, wording, asking, limit, unheard } = self;
        let Judging { stage, context, work, judge_id, low_mass } = judging;
        let asking = asking.as_mut().expect("opened above");
        let total = work.units.len() as u64;
        let ask = |asking: &mut Asking<OneToken>, shard: &Range<usize>, questions: &Questions<'_>| {
            let requests = questions.requests.clone();
            let (start, rows, count) = (shard.start, questions.worded.len(), requests.len().max(1));
            asking.ask(context, requests, |asking, results| {
                let detail = format!("{} answers, {} requests repeated", asking.answered, asking.repeated);
                context.progress((start + rows * results / count) as u64, total, "comparisons", detail);
            })
        };
        let protocol = OneToken::new(endpoint, &stage.labels);
        let questions = Questions::of(&work.units[shard.clone()], endpoint, &protocol, wording)?;
        let results = ask(asking, &shard, &questions)?;
        if asking.check().is_err() {
            // The answers of the shards to come are not held up by questions that fail here.
            for later in work.shards(stage.shard_rows).iter().filter(|later| later.start > shard.start) {
                let questions = Questions::of(&work.units[later.clone()], endpoint, &protocol, wording)?;
                ask(asking, later, &questions)?;
            }
        }
        asking.check()?;
        let Questions { worded, refused, .. } = &questions;
        refused.iter().for_each(|refused| output.reject(refused.clone()));
        let mut verdicts = Vec::new();
        for (question, ids) in worded {
            match both(stage, question, ids, &results) {
                Ok((ab, ba, bounds)) => {
                    let row = verdict(stage, question.comparison, question.template, (ab, ba), judge_id)?;
                    verdicts.push(Verdict { bounded: bounds.columns(), ..row });
                }
                Err((reason, detail)) => {
                    low_mass.count(reason, &detail);
                    *unheard += u64::from(REASONS.contains(&reason));
                    if unheard > limit {
                        return Err(too_many(endpoint, *unheard, *limit, reason, &detail));
                    }
                    output.reject(reject(question.comparison, reason.to_owned(), detail));
                }
            }
        }
        low_mass.check()?;
        output.write("verdicts", &verdicts)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        let (limit, mut unheard) = (self.limit, 0);
        // Shards of earlier processes count too.
        for row in RowReader::<Reject>::open(&[self.judging.context.port("rejects")])? {
            let row = row?;
            if REASONS.contains(&row.reason.as_str()) {
                unheard += 1;
                if unheard > limit {
                    return Err(too_many(self.endpoint, unheard, limit, &row.reason, &row.detail));
                }
            }
        }
        self.judging.finish(rejected)
    }
}

/// The questions about some rows.
#[derive(Default)]
struct Questions<'a> {
    /// Comparisons in words, each with the digests of its requests.
    worded: Vec<(Worded<'a>, Vec<String>)>,
    /// The questions by the digests of their requests.
    requests: BTreeMap<String, String>,
    /// Rows that are not asked.
    refused: Vec<Reject>,
}

impl<'a> Questions<'a> {
    fn of(units: &'a [Unit], endpoint: &Endpoint, protocol: &OneToken, wording: &'a Wording) -> Result<Questions<'a>> {
        let mut all = Questions::default();
        for unit in units {
            let row = match unit {
                Unit::Judge(row) => row,
                Unit::Refuse(refused) => {
                    all.refused.push(refused.clone());
                    continue;
                }
            };
            match wording.word(row)? {
                Ok(question) => {
                    let ids = question.questions().map(|text| {
                        let text = text.to_owned();
                        let id = id_of(&[&endpoint.address(OneToken::PATH), &endpoint.known_by(protocol, &text)]);
                        all.requests.insert(id.clone(), text);
                        id
                    });
                    let ids = ids.collect();
                    all.worded.push((question, ids));
                }
                Err((reason, detail)) => all.refused.push(reject(row, reason, detail)),
            }
        }
        Ok(all)
    }
}

fn too_many(endpoint: &Endpoint, unheard: u64, limit: u64, reason: &str, detail: &str) -> Error {
    Error::Data(format!(
        "{unheard} comparisons got no verdict from {}, `max_rejects: {}` allows {limit}; the last: {reason}: {detail}. \
         The answers of others are kept; these are asked again when you run again",
        endpoint.shown(OneToken::PATH),
        endpoint.max_rejects
    ))
}

/// Both orders' answers, or why there is none.
type Both = (Answer, Option<Answer>, Bounds);

fn both(
    stage: &Judge,
    question: &Worded<'_>,
    ids: &[String],
    results: &BTreeMap<String, RequestResult<reply::Answer>>,
) -> Result<Both, (&'static str, String)> {
    let labels = |order: usize| {
        let shown = if order == 0 { "a first" } else { "b first" };
        match &results[&ids[order]] {
            RequestResult::Nothing(reason, detail) => Err((*reason, format!("{shown}: {detail}"))),
            RequestResult::Answer(answer) => {
                let likeliest = Some((answer.likeliest.0.as_str(), answer.likeliest.1.exp()));
                let Some(labels) = answer.labels else {
                    let what = format!("neither label is among the {} likeliest tokens", answer.alternatives);
                    return Err((NO_LABEL, mass::detail(shown, &what, likeliest)));
                };
                let mass = labels.first.exp() + labels.second.exp();
                if mass < stage.least_mass {
                    return Err((LOW_MASS, mass::too_little(stage, shown, mass, likeliest)));
                }
                Ok(labels)
            }
        }
    };
    let better_first = |labels: LabelLogps| match question.template.asks_for {
        AsksFor::Better => labels,
        AsksFor::Worse => LabelLogps {
            first: labels.second,
            second: labels.first,
            first_bounded: labels.second_bounded,
            second_bounded: labels.first_bounded,
        },
    };
    let ab = better_first(labels(0)?);
    let mut bounds = Bounds { ab_a: ab.first_bounded, ab_b: ab.second_bounded, ..Bounds::default() };
    let ba = match ids.len() {
        1 => None,
        _ => {
            let ba = better_first(labels(1)?);
            (bounds.ba_a, bounds.ba_b) = (ba.second_bounded, ba.first_bounded);
            Some(Answer { logp_a: ba.second, logp_b: ba.first })
        }
    };
    Ok((Answer { logp_a: ab.first, logp_b: ab.second }, ba, bounds))
}
