//! A verdict taken apart: the questions of both orders, and every number from the labels' log-probs on.

use kit::rows::{Comparison, Verdict};
use kit::{Context, Fact, Result, Traced, Trail};
use serde_json::{Value, json};

use crate::judging::judge_id;
use crate::stage::{Judge, Orders};
use crate::verdict::{Answer, Debias, p_hat};
use crate::work::Wording;

/// The verdicts on a trail.
pub(crate) fn trace(stage: &Judge, context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let verdicts: Vec<Verdict> = trail.pairs_in(&[context.port("verdicts")])?;
    if verdicts.is_empty() {
        return Ok(Vec::new());
    }
    let paths: Vec<_> = context.sources("comparisons").iter().map(|source| &source.path).collect();
    let comparisons: Vec<Comparison> = trail.pairs_in(&paths)?;
    let wording = Wording::open(stage)?;
    let id = judge_id(stage, context)?;
    verdicts.iter().map(|verdict| of_verdict(stage, &wording, &id, &comparisons, verdict)).collect()
}

fn of_verdict(
    stage: &Judge,
    wording: &Wording,
    judge_id: &str,
    comparisons: &[Comparison],
    verdict: &Verdict,
) -> Result<Traced> {
    let read = comparisons.iter().find(|row| row.comparison_id == verdict.comparison_id);
    let comparison = comparison_of(verdict);
    let mut facts = vec![Fact::checked(
        "texts",
        "as judged",
        if read == Some(&comparison) { "as judged" } else { "not those of the row that was read" },
        "the verdict's texts and ids against the comparison's",
    )];
    match wording.word(&comparison)? {
        Ok(worded) => {
            let template = verdict.template.clone().map_or(Value::Null, Value::from);
            let from = "name and version, or file and digest of its text";
            facts.push(Fact::checked("template", template, worded.template.id.as_str(), from));
            facts.push(Fact::told("question, a first", worded.ab.as_str()).because("rendered again"));
            if let Some(ba) = &worded.ba {
                facts.push(Fact::told("question, b first", ba.as_str()).because("rendered again"));
            }
        }
        Err((_, detail)) => {
            facts.push(Fact::checked("question", "asked", "refused", &detail));
        }
    }
    let judge = verdict.judge.clone().map_or(Value::Null, Value::from);
    facts.push(Fact::checked("judge", judge, judge_id, "digest of the model and of what decides its answers"));
    facts.extend(numbers(stage, verdict));
    Ok(Traced { title: format!("verdict {}", verdict.comparison_id), facts })
}

/// From log-probs to `p_hat`, by the formulas of [`crate::verdict`].
fn numbers(stage: &Judge, verdict: &Verdict) -> Vec<Fact> {
    let mut facts = Vec::new();
    let answer = |a: Option<f64>, b: Option<f64>| Some(Answer { logp_a: a?, logp_b: b? });
    let ab = answer(verdict.ab_logp_a, verdict.ab_logp_b);
    let ba = answer(verdict.ba_logp_a, verdict.ba_logp_b);
    if let Some(bounded) = &verdict.bounded {
        let how = "the endpoint did not return these labels: their log-probs are upper bounds";
        facts.push(Fact::told("bounded", bounded.as_str()).because(how));
    }
    let orders = [
        ("ab", ab, verdict.ab_mass, verdict.ab_p, "a shown first"),
        ("ba", ba, verdict.ba_mass, verdict.ba_p, "b shown first"),
    ];
    for (order, answer, mass, p, shown) in orders {
        let Some(answer) = answer else { continue };
        facts.push(Fact::told(&format!("{order}_logp_a"), answer.logp_a).because(shown));
        facts.push(Fact::told(&format!("{order}_logp_b"), answer.logp_b).because(shown));
        let how = format!("exp({order}_logp_a) + exp({order}_logp_b): what the judge gave to both labels");
        facts.push(Fact::checked(&format!("{order}_mass"), json!(mass), answer.mass(), &how));
        let how = format!("sigmoid({order}_logp_a - {order}_logp_b)");
        facts.push(Fact::checked(&format!("{order}_p"), json!(p), answer.p(), &how));
    }
    if let (Some(ab), Some(ba)) = (ab, ba) {
        let gap = ab.p() - ba.p();
        let how = "ab_p - ba_p: above 0 the judge favours what it sees first";
        facts.push(Fact::checked("position_gap", json!(verdict.position_gap), gap, how));
    }
    let label = match (ab, ba, stage.debias) {
        (Some(ab), Some(ba), Some(debias)) if stage.orders == Orders::Both => {
            let how = match debias {
                Debias::Probability => "debias: probability, (ab_p + ba_p) / 2",
                Debias::Logit => "debias: logit, sigmoid of the mean of both orders' log-odds",
            };
            Some((p_hat(ab, ba, debias), how))
        }
        (Some(ab), None, None) => Some((ab.p(), "orders: one, ab_p")),
        _ => None,
    };
    facts.push(match label {
        Some((p, how)) => Fact::checked("p_hat", verdict.p_hat, p, how),
        None => Fact::checked("p_hat", verdict.p_hat, Value::Null, "the log-probs that it rests on are missing"),
    });
    facts
}

fn comparison_of(verdict: &Verdict) -> Comparison {
    let row = verdict.clone();
    Comparison {
        comparison_id: row.comparison_id,
        form: row.form,
        a_prompt_id: row.a_prompt_id,
        a_response_id: row.a_response_id,
        a_prompt: row.a_prompt,
        a_response: row.a_response,
        b_prompt_id: row.b_prompt_id,
        b_response_id: row.b_response_id,
        b_prompt: row.b_prompt,
        b_response: row.b_response,
        source_file: row.source_file,
        source_line: row.source_line,
    }
}
