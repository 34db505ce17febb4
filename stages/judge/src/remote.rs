//! Judging through an endpoint: each order of a comparison is one request.

use std::collections::BTreeMap;

use kit::rows::{Reject, Verdict};
use kit::{Context, Error, Result, RowReader, id_of, run_shards};

use crate::asking::Asking;
use crate::endpoint::Endpoint;
use crate::judging::{reject, verdict};
use crate::reply::{Heard, LabelLogps};
use crate::stage::Judge;
use crate::template::AsksFor;
use crate::verdict::{Answer, Bounds};
use crate::work::{Unit, Worded, Wording, WorkList};

/// Why a row can end without a verdict by what the endpoint said.
const REASONS: [&str; 3] = ["bad_answer", "no_label", "refused_by_endpoint"];

/// Judges every shard that is not judged yet. Gives the number of rejected rows.
pub(crate) fn judge(
    stage: &Judge,
    endpoint: &Endpoint,
    context: &Context<'_>,
    work: &WorkList,
    wording: &Wording,
    judge_id: &str,
) -> Result<u64> {
    let total = work.units.len() as u64;
    let limit = (endpoint.max_rejects * work.comparisons().count() as f64).ceil() as u64;
    let mut asking: Option<Asking> = None;
    let mut unheard = 0;
    let rejected = run_shards(context, "comparisons", &work.shards(stage.shard_rows), |shard, output| {
        let asking = match &mut asking {
            Some(asking) => asking,
            None => {
                let opened = Asking::open(endpoint, &stage.labels, &context.scratch().join("journal"))?;
                if opened.remembered() > 0 {
                    let what = format!("{} answered requests", opened.remembered());
                    context.emit(kit::Event::Resumed { what });
                }
                asking.insert(opened)
            }
        };
        let start = shard.start as u64;
        let mut worded: Vec<(Worded<'_>, Vec<String>)> = Vec::new();
        let mut requests = BTreeMap::new();
        for unit in &work.units[shard] {
            let row = match unit {
                Unit::Judge(row) => row,
                Unit::Refuse(refused) => {
                    output.reject(refused.clone());
                    continue;
                }
            };
            match wording.word(row)? {
                Ok(question) => {
                    let ids = question.questions().map(|text| {
                        let body = endpoint.request(text);
                        let id = id_of(&[&endpoint.address(), &body]);
                        requests.insert(id.clone(), body);
                        id
                    });
                    let ids = ids.collect();
                    worded.push((question, ids));
                }
                Err((reason, detail)) => output.reject(reject(row, reason, detail)),
            }
        }
        let count = requests.len().max(1);
        let rows = worded.len();
        let heard = asking.ask(context, requests, |asking, heard| {
            let detail = format!("{} answers, {} requests repeated", asking.answered, asking.repeated);
            context.progress(start + (rows * heard / count) as u64, total, "comparisons", detail);
        })?;
        let mut verdicts = Vec::new();
        for (question, ids) in &worded {
            match both(question, ids, &heard) {
                Ok((ab, ba, bounds)) => {
                    let row = verdict(stage, question.comparison, question.template, (ab, ba), judge_id)?;
                    verdicts.push(Verdict { bounded: bounds.columns(), ..row });
                }
                Err((reason, detail)) => {
                    unheard += 1;
                    if unheard > limit {
                        return Err(too_many(endpoint, unheard, limit, &reason, &detail));
                    }
                    output.reject(reject(question.comparison, reason, detail));
                }
            }
        }
        output.write("verdicts", &verdicts)
    })?;
    // Shards of earlier processes count too.
    let mut unheard = 0;
    for row in RowReader::<Reject>::open(&[context.port("rejects")])? {
        let row = row?;
        if REASONS.contains(&row.reason.as_str()) {
            unheard += 1;
            if unheard > limit {
                return Err(too_many(endpoint, unheard, limit, &row.reason, &row.detail));
            }
        }
    }
    Ok(rejected)
}

fn too_many(endpoint: &Endpoint, unheard: u64, limit: u64, reason: &str, detail: &str) -> Error {
    Error::Data(format!(
        "{unheard} comparisons got no verdict from {}, `max_rejects: {}` allows {limit}; the last: {reason}: {detail}. \
         Its answers are kept and not asked for again, but with `--force`",
        endpoint.address(),
        endpoint.max_rejects
    ))
}

/// Both orders' answers, or why there is none.
type Both = (Answer, Option<Answer>, Bounds);

fn both(question: &Worded<'_>, ids: &[String], heard: &BTreeMap<String, Heard>) -> Result<Both, (String, String)> {
    let labels = |order: usize| match &heard[&ids[order]] {
        Heard::Labels(labels) => Ok(*labels),
        Heard::Nothing(reason, detail) => {
            let order = if order == 0 { "a first" } else { "b first" };
            Err((reason.clone(), format!("{order}: {detail}")))
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
