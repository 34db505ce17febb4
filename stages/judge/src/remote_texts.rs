//! Judging with answers that an endpoint writes: each of them is one request.

use std::collections::BTreeMap;
use std::ops::Range;

use endpoint::{Asking, Endpoint, Protocol, RequestResult, Unheard};
use kit::rows::{JudgeAnswer, Reject};
use kit::{Error, Outcome, Result, ShardOutput, Sharded, complete_port, id_of};

use crate::answers::{self, Order, Written};
use crate::completion::{Completion, Request, Said};
use crate::judging::{Judging, reject, verdict};
use crate::mass::UNPARSED;
use crate::modes::Reasoning;
use crate::pattern::Pattern;
use crate::verdict::Answer;
use crate::work::{Refused, Unit, Worded, Wording};

/// The comparisons in words, and the workers that ask once a shard needs them.
pub(crate) struct RemoteTexts<'a> {
    judging: Judging<'a>,
    endpoint: &'a Endpoint,
    wording: Wording,
    reasoning: &'a Reasoning,
    pattern: Pattern<'a>,
    asking: Option<Asking<Completion>>,
    unheard: Unheard,
}

impl<'a> RemoteTexts<'a> {
    /// # Errors
    /// When the pattern is wrong.
    pub(crate) fn new(
        judging: Judging<'a>,
        endpoint: &'a Endpoint,
        wording: Wording,
        reasoning: &'a Reasoning,
    ) -> Result<RemoteTexts<'a>> {
        let pattern = Pattern::compile(reasoning, &judging.stage.labels).map_err(Error::Pipeline)?;
        let unheard = Unheard::new(endpoint, &Completion::new(reasoning), judging.work.comparisons().count());
        Ok(RemoteTexts { judging, endpoint, wording, reasoning, pattern, asking: None, unheard })
    }
}

impl Sharded for RemoteTexts<'_> {
    fn unit(&self) -> &'static str {
        "comparisons"
    }

    fn shards(&self) -> Vec<Range<usize>> {
        self.judging.work.shards(self.judging.stage.shard_rows)
    }

    fn compute(&mut self, shard: Range<usize>, output: &mut ShardOutput<'_>) -> Result<()> {
        let (unit, shards) = (self.unit(), self.shards());
        let RemoteTexts { judging, endpoint, wording, reasoning, pattern, asking, unheard } = self;
        let Judging { stage, context, work, judge_id, low_mass } = judging;
        let protocol = Completion::new(reasoning);
        let asking = match asking {
            Some(asking) => asking,
            None => asking.insert(Asking::open(endpoint, Completion::new(reasoning), context)?),
        };
        let questions = |chosen: &Range<usize>| {
            Questions::of(&work.units[chosen.clone()], endpoint, &protocol, wording, reasoning.samples)
        };
        let results = asking.ask_shard(context, unit, &shards, &shard, |chosen| {
            Ok(questions(chosen)?.requests.into_iter().collect())
        })?;
        let asked = questions(&shard)?;
        asked.refused.iter().for_each(|refused| output.reject(refused.clone()));
        let (mut verdicts, mut texts) = (Vec::new(), Vec::new());
        for (worded, orders) in &asked.worded {
            match conclude(reasoning, pattern, worded, orders, &results, &mut texts) {
                Ok(answers) => {
                    let row = verdict(stage, worded.comparison, worded.template, answers, judge_id)?;
                    verdicts.push(answers::without_log_probs(row));
                }
                Err((reason, detail)) => {
                    low_mass.count(&reason, &detail);
                    unheard.count(&reason, &detail)?;
                    output.reject(reject(worded.comparison, reason, detail));
                }
            }
        }
        low_mass.check()?;
        output.write("answers", &texts)?;
        output.write("verdicts", &verdicts)
    }

    fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        let context = self.judging.context;
        self.unheard.count_again(context)?;
        complete_port::<JudgeAnswer>(context, "answers")?;
        let more = answers::summary(context)?;
        let outcome = self.judging.finish_with(rejected, more)?;
        Ok(Asking::bill(self.asking.as_ref(), self.endpoint, context)?.add_to(outcome))
    }
}

/// The ids of an order's requests.
type OrderIds = (Order, Vec<String>);

/// The questions about some rows.
#[derive(Default)]
struct Questions<'a> {
    /// Comparisons in words, each with its orders.
    worded: Vec<(Worded<'a>, Vec<OrderIds>)>,
    /// The requests by their ids.
    requests: BTreeMap<String, Request>,
    /// Rows that are not asked.
    refused: Vec<Reject>,
}

impl<'a> Questions<'a> {
    fn of(
        units: &'a [Unit],
        endpoint: &Endpoint,
        protocol: &Completion,
        wording: &'a Wording,
        samples: usize,
    ) -> Result<Questions<'a>> {
        let mut all = Questions::default();
        for unit in units {
            let row = match unit {
                Unit::Judge(row) => row,
                Unit::Refuse(refused) => {
                    all.refused.push(refused.clone());
                    continue;
                }
            };
            let worded = match wording.word(row)? {
                Ok(worded) => worded,
                Err((reason, detail)) => {
                    all.refused.push(reject(row, reason, detail));
                    continue;
                }
            };
            let mut orders = Vec::new();
            for (question, order) in worded.questions().zip([Order::Ab, Order::Ba]) {
                let mut ids = Vec::new();
                for sample in 0..samples {
                    let request = Request { question: question.to_owned(), sample };
                    let body = endpoint.known_by(protocol, &request);
                    let id = id_of(&[&endpoint.address(Completion::PATH), &body, &sample.to_string()]);
                    all.requests.insert(id.clone(), request);
                    ids.push(id);
                }
                orders.push((order, ids));
            }
            all.worded.push((worded, orders));
        }
        Ok(all)
    }
}

/// Both orders' answers, or the reason and the detail why there is none. Adds the rows of all texts.
fn conclude(
    reasoning: &Reasoning,
    pattern: &Pattern<'_>,
    worded: &Worded<'_>,
    orders: &[OrderIds],
    results: &BTreeMap<String, RequestResult<Said>>,
    texts: &mut Vec<JudgeAnswer>,
) -> Result<(Answer, Option<Answer>), Refused> {
    let mut answers = Vec::new();
    for (order, ids) in orders {
        let mut written: Vec<Written> = Vec::new();
        let mut nothing = None;
        for id in ids {
            match &results[id] {
                RequestResult::Answer(said) => written.push(said.written(&reasoning.think)),
                RequestResult::Nothing(reason, detail) => {
                    let detail = format!("{}: {detail}", order.shown());
                    nothing = nothing.or(Some(((*reason).to_owned(), detail)));
                }
            }
        }
        let ps = answers::verdicts(pattern, *order, worded.template.asks_for, &written);
        let rows = written.iter().zip(&ps).enumerate();
        texts.extend(rows.map(|(at, (written, p))| answers::row(worded.comparison, *order, at, written, *p)));
        answers.push(match nothing {
            Some(nothing) => Err(nothing),
            None => answers::counted(reasoning, *order, &ps).map_err(|detail| (UNPARSED.to_owned(), detail)),
        });
    }
    let mut answers = answers.into_iter();
    let ab = answers.next().expect("the order a first is always asked")?;
    Ok((ab, answers.next().transpose()?))
}
