//! Held-out pairs under policy and reference, or under a reward model.

use std::collections::BTreeMap;

use kit::rows::{ReferenceRow, Score};
use kit::{Batches, Context, Error, Result, Table};
use lm::{Decoder, LogProbs, Sequence};
use objective::{Batch, Edge, Mixture, SequenceLogps};
use tokens::{lm_error, load_decoder, load_reward_model};

use crate::config::Evaluate;
use crate::pairs::{PairTokens, Pairs, SideTokens};

/// Scores the pairs; the rows are sorted by pair id.
pub(crate) fn score(stage: &Evaluate, context: &Context<'_>, pairs: &Pairs) -> Result<Vec<Score>> {
    let models = stage.models(context.table_of("reference"));
    let policy = log_probs(stage, context, pairs, "model", (0, models))?;
    let reference = match context.table_of("reference") {
        _ if stage.of_rewards() => None,
        None => None,
        Some(Table::Model) => Some(log_probs(stage, context, pairs, "reference", (1, models))?),
        Some(_) => Some(look_up(stage, context, pairs)?),
    };
    let mut scores = Vec::with_capacity(pairs.kept.len());
    for (index, pair) in pairs.kept.iter().enumerate() {
        let sides = |table: &[(f64, f64)]| (table[2 * index], table[2 * index + 1]);
        scores.push(row(stage, pair, sides(&policy), reference.as_deref().map(sides))?);
    }
    scores.sort_by(|a, b| a.pair_id.cmp(&b.pair_id));
    Ok(scores)
}

/// (response, prompt) log-probs of every side under the model of an input, or (reward, 0). `(place, of)` counts models,
/// for progress.
fn log_probs(
    stage: &Evaluate,
    context: &Context<'_>,
    pairs: &Pairs,
    key: &str,
    (place, of): (u64, u64),
) -> Result<Vec<(f64, f64)>> {
    let load = if stage.of_rewards() { load_reward_model } else { load_decoder };
    let decoder = load(context, key, stage.precision())?;
    let total = 2 * pairs.kept.len() as u64;
    let mut result = Vec::new();
    let mut finished = Batches::open(context, &format!("{key}.jsonl"), key)?;
    for batch in batches(pairs, stage.tokens_per_batch) {
        let scored: Vec<(f64, f64)> = finished.next(|| score_batch(stage, &decoder, key, &batch))?;
        result.extend(scored);
        context.progress(place * total + result.len() as u64, of * total, "sequences", String::new());
    }
    Ok(result)
}

fn score_batch(stage: &Evaluate, decoder: &Decoder, key: &str, batch: &[&SideTokens]) -> Result<Vec<(f64, f64)>> {
    let positions = decoder.max_positions();
    if let Some(side) = batch.iter().find(|side| side.sequence.ids.len() > positions) {
        return Err(Error::Pipeline(format!(
            "response `{}` has {} tokens with its prompt and `{key}` {positions} positions; set `max_tokens`",
            side.response_id,
            side.sequence.ids.len()
        )));
    }
    if stage.of_rewards() {
        return reward_batch(stage, decoder, key, batch);
    }
    let sequences: Vec<&Sequence> = batch.iter().map(|side| &side.sequence).collect();
    let scored = decoder.score(&sequences, stage.prompt_part(), stage.tokens_per_batch).map_err(lm_error)?;
    let finite = batch.iter().zip(scored).map(|(side, LogProbs { response, prompt })| {
        if response.is_finite() && prompt.is_finite() {
            return Ok((response, prompt));
        }
        Err(Error::data(format!(
            "`{key}` gives response `{}` under prompt `{}` the log-prob {response} ({prompt} for the prompt): its weights \
             overflow or hold values that are not numbers",
            side.response_id, side.prompt_id
        )))
    });
    finite.collect()
}

fn reward_batch(stage: &Evaluate, decoder: &Decoder, key: &str, batch: &[&SideTokens]) -> Result<Vec<(f64, f64)>> {
    let texts: Vec<&[u32]> = batch.iter().map(|side| side.sequence.ids.as_slice()).collect();
    let rewards = decoder.rewards(&texts, stage.tokens_per_batch).map_err(|error| {
        let lm::Error::NotFinite(text) = &error else { return lm_error(error) };
        // Which one it is, is not in the error of a batch.
        let fails = |side: &&&SideTokens| decoder.rewards(&[side.sequence.ids.as_slice()], usize::MAX).is_err();
        let named = batch.iter().find(fails);
        let named = named.map(|side| format!("response `{}` under prompt `{}`: ", side.response_id, side.prompt_id));
        Error::data(format!("`{key}`: {}{text}", named.unwrap_or_default()))
    })?;
    Ok(rewards.into_iter().map(|reward| (reward, 0.0)).collect())
}

/// Cuts the sides into batches; a kill costs the one in work.
fn batches(pairs: &Pairs, budget: usize) -> Vec<Vec<&SideTokens>> {
    let mut batches: Vec<Vec<&SideTokens>> = Vec::new();
    let (mut tokens, mut prompt) = (usize::MAX, None);
    for side in pairs.sides() {
        // A prompt's sides stay together, so that the prompt is computed once.
        if tokens >= budget && prompt != Some(&side.prompt_id) {
            batches.push(Vec::new());
            tokens = 0;
        }
        prompt = Some(&side.prompt_id);
        tokens += side.sequence.ids.len();
        batches.last_mut().expect("the first side opens a batch").push(side);
    }
    batches
}

/// (response, prompt) log-probs of every side from a `reference` table.
fn look_up(stage: &Evaluate, context: &Context<'_>, pairs: &Pairs) -> Result<Vec<(f64, f64)>> {
    let mut table = BTreeMap::new();
    for row in context.rows::<ReferenceRow>("reference")? {
        let row = row?;
        if let Some(other) = row.dtype.filter(|other| *other != stage.precision().name()) {
            return Err(Error::Pipeline(format!(
                "`reference` was computed in {other} and the policy would be in {}: give both stages the same `dtype` and `base`",
                stage.precision().name()
            )));
        }
        let key = (row.prompt_id, row.response_id, row.completion_start, row.completion_tokens);
        table.insert(key, (row.logp, row.prompt_logp));
    }
    let find = |side: &SideTokens| {
        let (start, length) = (side.sequence.start as u32, side.sequence.completion_tokens() as u32);
        let key = (side.prompt_id.clone(), side.response_id.clone(), start, length);
        let Some((logp, prompt)) = table.get(&key) else {
            return Err(Error::Pipeline(format!(
                "`reference` has no row for response `{}` under prompt `{}` with its completion at token {start}: \
                 compute it from these pairs with the same tokenizer and token rules, or give the reference model",
                side.response_id, side.prompt_id
            )));
        };
        match prompt {
            Some(prompt) => Ok((*logp, *prompt)),
            None if stage.prompt_part() => Err(Error::Pipeline(
                "`reference` has no `prompt_logp` and the objective scores prompts too: set `prompt_part: true` there"
                    .to_owned(),
            )),
            None => Ok((*logp, 0.0)),
        }
    };
    pairs.sides().map(find).collect()
}

/// (response, prompt) log-probs of the chosen and of the rejected side; of a reward model (reward, 0).
pub(crate) type Sides = ((f64, f64), (f64, f64));

pub(crate) fn row(stage: &Evaluate, pair: &PairTokens, policy: Sides, reference: Option<Sides>) -> Result<Score> {
    let joint = stage.prompt_part();
    let [chosen, rejected] = [
        logps(&pair.chosen, policy.0, reference.map(|sides| sides.0)),
        logps(&pair.rejected, policy.1, reference.map(|sides| sides.1)),
    ];
    let margin = match &stage.objective {
        Some(objective) => objective.lead().score(&chosen) - objective.lead().score(&rejected),
        None => {
            let log_ratio = |side: &SequenceLogps| side.policy.0 - side.reference.map_or(0.0, |reference| reference.0);
            log_ratio(&chosen) - log_ratio(&rejected)
        }
    };
    let loss = |objective| loss(objective, pair, [chosen, rejected]);
    let loss = stage.objective.as_ref().map(loss).transpose()?;
    let prompt = |side: (f64, f64)| joint.then_some(side.1);
    let (rewards, log_probs) = if stage.of_rewards() { (Some(policy), None) } else { (None, Some(policy)) };
    Ok(Score {
        pair_id: pair.pair_id.clone(),
        form: pair.form.clone(),
        p_hat: pair.p_hat,
        chosen_reward: rewards.map(|sides| sides.0.0),
        rejected_reward: rewards.map(|sides| sides.1.0),
        policy_chosen_logp: log_probs.map(|sides| sides.0.0),
        policy_rejected_logp: log_probs.map(|sides| sides.1.0),
        policy_chosen_prompt_logp: prompt(policy.0),
        policy_rejected_prompt_logp: prompt(policy.1),
        reference_chosen_logp: reference.map(|sides| sides.0.0),
        reference_rejected_logp: reference.map(|sides| sides.1.0),
        reference_chosen_prompt_logp: reference.and_then(|sides| prompt(sides.0)),
        reference_rejected_prompt_logp: reference.and_then(|sides| prompt(sides.1)),
        margin,
        loss,
        correct: margin > 0.0,
    })
}

fn logps(side: &SideTokens, policy: (f64, f64), reference: Option<(f64, f64)>) -> SequenceLogps {
    SequenceLogps {
        policy,
        reference,
        tokens: side.sequence.completion_tokens(),
        // The first token of a sequence is not predicted.
        prompt_tokens: side.sequence.start - 1,
    }
}

fn loss(objective: &Mixture, pair: &PairTokens, sides: [SequenceLogps; 2]) -> Result<f64> {
    let batch = Batch {
        sequences: sides.to_vec(),
        edges: vec![Edge { chosen: 0, rejected: 1, p_hat: pair.p_hat, weight: 1.0 }],
        ..Batch::default()
    };
    let evaluation = objective.evaluate(&batch);
    let (evaluation, _) = evaluation.map_err(|error| Error::data(format!("pair `{}`: {error}", pair.pair_id)))?;
    Ok(evaluation.loss)
}
