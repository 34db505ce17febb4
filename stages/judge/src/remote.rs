//! Judging through an endpoint: each order of a comparison is one request.

use std::collections::BTreeMap;
use std::ops::Range;

use endpoint::{Asking, Endpoint, Protocol, RequestResult, Unheard};
use kit::rows::{Reject, Verdict};
use kit::{Outcome, Result, ShardOutput, Sharded, id_of};

use crate::config::Judge;
use crate::judging::{Judging, reject, verdict};
use crate::mass::{self, LOW_MASS, NO_LABEL};
use crate::protocol::OneToken;
use crate::reply::{self, LabelLogps};
use crate::template::AsksFor;
use crate::verdict::{Answer, Bounds};
use crate::work::{Unit, Worded, Wording};

/// The comparisons in words, and who asks once a shard needs it.
pub(crate) struct Remote<'a> {
    judging: Judging<'a>,
    endpoint: &'a Endpoint,
    wording: Wording,
    asking: Option<Asking<OneToken>>,
    unheard: Unheard,
}

impl<'a> Remote<'a> {
    pub(crate) fn new(judging: Judging<'a>, endpoint: &'a Endpoint, wording: Wording) -> Remote<'a> {
        let protocol = OneToken::new(endpoint, &judging.stage.labels);
        let unheard = Unheard::new(endpoint, &protocol, judging.work.comparisons().count());
        Remote { judging, endpoint, wording, asking: None, unheard }
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
        let (unit, shards) = (self.unit(), self.shards());
        let Remote { judging, endpoint, wording, asking, unheard } = self;
        let Judging { stage, context, work, judge_id, low_mass } = judging;
        let protocol = OneToken::new(endpoint, &stage.labels);
        let asking = match asking {
            Some(asking) => asking,
            None => asking.insert(Asking::open(endpoint, OneToken::new(endpoint, &stage.labels), context)?),
        };
        let questions = |shard: &Range<usize>| Questions::of(&work.units[shard.clone()], endpoint, &protocol, wording);
        let results = asking
            .ask_shard(context, unit, &shards, &shard, |shard| Ok(questions(shard)?.requests.into_iter().collect()))?;
        let Questions { worded, refused, .. } = &questions(&shard)?;
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
                    unheard.count(reason, &detail)?;
                    output.reject(reject(question.comparison, reason.to_owned(), detail));
                }
            }
        }
        low_mass.check()?;
        output.write("verdicts", &verdicts)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        self.unheard.count_again(self.judging.context)?;
        let outcome = self.judging.finish(rejected)?;
        Ok(Asking::bill(self.asking.as_ref(), self.endpoint, self.judging.context)?.add_to(outcome))
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
