//! The common part of judging with a model and judging through an endpoint.

use endpoint::Protocol;
use kit::rows::{Comparison, Reject, SummaryRow, Verdict};
use kit::{Context, Error, Outcome, Result, complete_port, id_of};
use serde_json::json;

use crate::completion::{Completion, Request};
use crate::config::{Judge, Orders};
use crate::mass::LowMass;
use crate::modes::Mode;
use crate::protocol::OneToken;
use crate::summary::Summary;
use crate::template::Template;
use crate::verdict::{Answer, p_hat};
use crate::work::{Wording, WorkList};

/// Mean label mass below which the numbers rest on a small part of what the judge would have said.
const LOW_MEAN: f64 = 0.2;

/// The inputs of judging with either judge.
pub(crate) struct Judging<'a> {
    pub(crate) stage: &'a Judge,
    pub(crate) context: &'a Context<'a>,
    pub(crate) work: WorkList,
    pub(crate) judge_id: String,
    pub(crate) low_mass: LowMass<'a>,
}

impl<'a> Judging<'a> {
    /// Reads the comparisons and makes the checks that need them, before weights are loaded or requests are sent.
    ///
    /// # Errors
    /// When they cannot be read, or when the first of a form cannot be worded.
    pub(crate) fn new(stage: &'a Judge, context: &'a Context<'a>, wording: &Wording) -> Result<Judging<'a>> {
        let judging = Judging::open(stage, context)?;
        for first in judging.work.first_of_each_form() {
            let _ = wording.word(first)?;
        }
        Ok(judging)
    }

    /// The same without a question about two sides.
    ///
    /// # Errors
    /// When the comparisons cannot be read.
    pub(crate) fn open(stage: &'a Judge, context: &'a Context<'a>) -> Result<Judging<'a>> {
        let work = WorkList::read(context)?;
        let low_mass = LowMass::new(stage, &work);
        Ok(Judging { stage, context, judge_id: judge_id(stage, context)?, work, low_mass })
    }
}

impl Judging<'_> {
    /// The outcome of the judging, over all shards.
    pub(crate) fn finish(&mut self, rejected: u64) -> Result<Outcome> {
        self.finish_with(rejected, Vec::new())
    }

    /// The same with further figures for the summary.
    pub(crate) fn finish_with(&mut self, rejected: u64, more: Vec<SummaryRow>) -> Result<Outcome> {
        let Judging { stage, context, work, low_mass, .. } = self;
        // Shards of other processes count too.
        low_mass.count_again(context)?;
        complete_port::<Verdict>(context, "verdicts")?;
        let summary = Summary::read(context)?;
        if let Some(mass) = summary.mean_mass().filter(|mass| *mass < LOW_MEAN) {
            context.warn(format!(
                "the judge gives both labels together only {mass:.4} of its probability; look at `form`, `labels` and the \
                 template's last line"
            ));
        }
        if stage.orders == Orders::One {
            context.warn(format!(
                "with `orders: one` every soft label carries the judge's bias for the first place{}; `orders: both` \
                 measures and removes it",
                summary.first_place()
            ));
        }
        if let Some((place, share)) = summary.fixed_place() {
            context.warn(format!(
                "in {share:.3} of its answers the judge prefers the response that it sees {place}, whichever that is; its \
                 labels say little about the responses: take a judge that reads them, and measure it with gold labels"
            ));
        }
        let mut writer = context.writer::<SummaryRow>("summary")?;
        writer.extend(summary.rows())?;
        let mut outcome = Outcome::default().balance("comparisons", work.rows, work.rows - rejected, rejected);
        for row in &more {
            outcome = outcome.figure(&row.metric, (row.value * 1e6).round() / 1e6);
        }
        writer.extend(more)?;
        writer.finish()?;
        Ok(summary.add_to(outcome))
    }
}

/// The judge: a digest of its folder, or its address and name, and of every setting that decides its numbers.
pub(crate) fn judge_id(stage: &Judge, context: &Context<'_>) -> Result<String> {
    let mut settings = json!({
        "labels": stage.labels, "form": stage.form, "debias": stage.debias, "orders": stage.orders,
        "asks_for": stage.asks_for, "special_text": stage.tokens.special_text,
        "too_long": stage.tokens.too_long, "max_tokens": stage.tokens.max_tokens,
    });
    let modes =
        [("rating", json!(stage.rating)), ("reasoning", json!(stage.reasoning)), ("rationale", json!(stage.rationale))];
    for (key, mode) in modes.into_iter().filter(|(_, mode)| !mode.is_null()) {
        settings[key] = mode;
    }
    if let Some(base) = stage.base {
        settings["base"] = json!(base);
    }
    let judge = match &stage.endpoint {
        // The request without a question says all that decides an answer.
        Some(endpoint) => {
            let empty = match stage.mode() {
                Mode::Reasoning(reasoning) => {
                    let request = Request { question: String::new(), sample: 0 };
                    endpoint.known_by(&Completion::new(reasoning), &request)
                }
                _ => endpoint.known_by(&OneToken::new(endpoint, &stage.labels), &String::new()),
            };
            format!("{} {empty}", endpoint.address(OneToken::PATH))
        }
        None => context.model("model")?.digest.to_string(),
    };
    Ok(id_of(&[judge, kit::canonical(&settings)]))
}

/// The reject for a comparison.
pub(crate) fn reject(row: &Comparison, reason: String, detail: String) -> Reject {
    Reject {
        input: "comparisons".to_owned(),
        row_id: row.comparison_id.clone(),
        reason,
        detail,
        source_file: row.source_file.clone(),
        source_line: row.source_line,
    }
}

/// The verdict on a comparison from the answers in the order a first, and in the other where it was asked.
pub(crate) fn verdict(
    stage: &Judge,
    comparison: &Comparison,
    template: &Template,
    (ab, ba): (Answer, Option<Answer>),
    judge_id: &str,
) -> Result<Verdict> {
    let p = match (ba, stage.debias) {
        (Some(ba), Some(debias)) => p_hat(ab, ba, debias),
        (None, _) => ab.p(),
        (Some(_), None) => return Err(Error::internal("two orders were judged and nothing says how to join them")),
    };
    Ok(Verdict {
        ab_logp_a: Some(ab.logp_a),
        ab_logp_b: Some(ab.logp_b),
        ab_mass: Some(ab.mass()),
        ab_p: Some(ab.p()),
        ba_logp_a: ba.map(|ba| ba.logp_a),
        ba_logp_b: ba.map(|ba| ba.logp_b),
        ba_mass: ba.map(|ba| ba.mass()),
        ba_p: ba.map(|ba| ba.p()),
        position_gap: ba.map(|ba| ab.p() - ba.p()),
        template: Some(template.id.clone()),
        ..Verdict::of(comparison.clone(), p, Some(judge_id.to_owned()))
    })
}
