//! The score of a held-out pair, its margin and loss computed again.

use kit::rows::{Pair, Score};
use kit::{Context, Fact, Result, Traced, Trail};
use serde_json::{Value, json};

use crate::pairs::Pairs;
use crate::scores::{Sides, row};
use crate::stage::Evaluate;

/// The scores of a trail's pairs.
pub(crate) fn trace(stage: &Evaluate, context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    if stage.pairs.is_none() {
        return Ok(Vec::new());
    }
    let paths: Vec<_> = context.sources("pairs").iter().map(|source| &source.path).collect();
    let pairs: Vec<Pair> = trail.pairs_in(&paths)?;
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    let is_pair = |id: &str| pairs.iter().any(|pair| pair.pair_id == id);
    let scores: Vec<Score> = kit::find(&[context.port("scores")], &["pair_id"], |cells| is_pair(cells[0]))?;
    let tokens = Pairs::of(stage, context, pairs.iter().cloned().map(Ok))?;
    let of_score = |score: Score| {
        let read = tokens.kept.iter().find(|pair| pair.pair_id == score.pair_id);
        let (policy, reference) = sides(&score);
        let again = read.map(|pair| row(stage, pair, policy, reference)).transpose()?;
        let number = |value: fn(&Score) -> Value| again.as_ref().map_or(Value::Null, value);
        let mut facts = vec![
            Fact::told("policy_chosen_logp", score.policy_chosen_logp),
            Fact::told("policy_rejected_logp", score.policy_rejected_logp),
        ];
        let others = [
            ("policy_chosen_prompt_logp", score.policy_chosen_prompt_logp),
            ("policy_rejected_prompt_logp", score.policy_rejected_prompt_logp),
            ("reference_chosen_logp", score.reference_chosen_logp),
            ("reference_rejected_logp", score.reference_rejected_logp),
            ("reference_chosen_prompt_logp", score.reference_chosen_prompt_logp),
            ("reference_rejected_prompt_logp", score.reference_rejected_prompt_logp),
        ];
        facts.extend(others.into_iter().filter_map(|(name, logp)| Some(Fact::told(name, logp?))));
        let how = "chosen less rejected, policy less reference (prompt parts where they are scored)";
        facts.push(Fact::checked("p_hat", score.p_hat, number(|row| row.p_hat.into()), "of the pair that was read"));
        facts.push(Fact::checked("margin", score.margin, number(|row| row.margin.into()), how));
        if score.loss.is_some() {
            facts.push(Fact::checked("loss", json!(score.loss), number(|row| json!(row.loss)), "the objective's"));
        }
        facts.push(Fact::checked("correct", score.correct, number(|row| row.correct.into()), "margin above 0"));
        Ok(Traced { title: format!("score of pair {}", score.pair_id), facts })
    };
    scores.into_iter().map(of_score).collect()
}

/// The stored log-probs of policy and reference.
fn sides(score: &Score) -> (Sides, Option<Sides>) {
    let part = |prompt: Option<f64>| prompt.unwrap_or(0.0);
    let policy = (
        (score.policy_chosen_logp, part(score.policy_chosen_prompt_logp)),
        (score.policy_rejected_logp, part(score.policy_rejected_prompt_logp)),
    );
    let reference = score.reference_chosen_logp.zip(score.reference_rejected_logp).map(|(chosen, rejected)| {
        let prompts = (part(score.reference_chosen_prompt_logp), part(score.reference_rejected_prompt_logp));
        ((chosen, prompts.0), (rejected, prompts.1))
    });
    (policy, reference)
}
