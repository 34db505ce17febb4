//! Matching, fitting, correcting and measuring.

use std::collections::BTreeSet;

use kit::rows::{CalibrationRow, VerdictResponses};
use kit::{Context, Error, Outcome, Result, Sides};

use crate::balance;
use crate::config::{Calibrate, FEWEST};
use crate::corrected;
use crate::figures::write_measures;
use crate::fit::{Curve, Fit, Label, Observation};
use crate::fits::Fits;
use crate::folds::Folds;
use crate::gold::GoldLabels;
use crate::margin::{Margin, Margins};
use crate::measure::Measured;

/// A verdict with a gold label.
struct Known {
    observation: Observation,
    /// The label as it was.
    before: Label,
    a_prompt: String,
    b_prompt: String,
    comparison: String,
}

/// The verdicts with gold labels, and counts of all.
struct Matched {
    known: Vec<Known>,
    verdicts: u64,
    /// Verdicts of a probability of 0 or 1, whose log-odds are cut.
    cut: u64,
}

pub(crate) fn calibrate(stage: &Calibrate, context: &Context<'_>) -> Result<Outcome> {
    let mut gold = GoldLabels::read(context)?;
    let margins = Margins::read(context)?;
    let Matched { mut known, verdicts, cut } = matched(context, &margins, &mut gold)?;
    let matches = known.len();
    if let Some(max) = stage.max_gold {
        known = drawn(context, known, max as usize);
    }
    check(&known, &gold, verdicts)?;
    let prompts = known.iter().flat_map(|it| [it.a_prompt.as_str(), it.b_prompt.as_str()]);
    let folds = Folds::deal(prompts, stage.folds, stage.deal, context.seed);
    if folds.prompts() < stage.folds as usize {
        return Err(Error::data(format!(
            "the gold labels are of {} prompts, too few for {} folds by prompt; label more prompts or set `folds`",
            folds.prompts(),
            stage.folds
        )));
    }
    let observations: Vec<Observation> = known.iter().map(|it| it.observation).collect();
    let side = balance::of(&observations);
    balance::check(stage, &side).map_err(Error::Data)?;
    let labels = known.iter().map(|it| (it.observation, [it.a_prompt.as_str(), it.b_prompt.as_str()]));
    let mut fits = Fits::new(stage.method, folds, labels);
    let all = fits.without(&BTreeSet::new())?.fit.clone();

    // Held-out figures: each gold label against the fit that saw none of its prompts'.
    let mut held_out = Vec::with_capacity(known.len());
    for it in &known {
        let left_out = fits.folds.of(&it.a_prompt, &it.b_prompt);
        let label = fits.without(&left_out)?.fit.apply(it.observation.z);
        held_out.push(Measured { label, gold: it.observation.gold });
    }

    corrected::write(context, &margins, &mut fits)?;

    let before: Vec<_> = known.iter().map(|it| Measured { label: it.before, gold: it.observation.gold }).collect();
    let summary = write_measures(stage, context, [&before, &held_out], balance::rows(&side, &all, &observations))?;
    let mut table = context.writer::<CalibrationRow>("calibration")?;
    table.extend(fits.made().map(|made| fit_row(stage, &made.name, &made.fit)))?;
    table.finish()?;
    let rejects = gold.unmatched();
    let unmatched = rejects.len() as u64;
    context.write_rejects(rejects)?;
    warn(stage, context, &all, &observations, cut);
    if let Some(text) = balance::warning(&side, &all) {
        context.warn(text);
    }

    let mut outcome = Outcome::default()
        .balance("verdicts", verdicts, verdicts, 0)
        .balance("gold", gold.len() as u64, gold.len() as u64 - unmatched, unmatched)
        .figure("gold labels", known.len() as u64);
    if matches > known.len() {
        outcome = outcome.figure("gold labels left out", (matches - known.len()) as u64);
    }
    if let Curve::Logistic { scale, offset } = all.curve {
        outcome = outcome.figure("scale", rounded(scale)).figure("temperature", rounded(1.0 / scale));
        if offset != 0.0 {
            outcome = outcome.figure("offset", rounded(offset));
        }
    }
    Ok(summary.iter().fold(outcome, |outcome, row| {
        let outcome = outcome.figure(&row.metric, rounded(row.value));
        match row.metric.starts_with("ece/") {
            true => outcome.headline(&row.metric, row.value, row.low.zip(row.high), ""),
            false => outcome,
        }
    }))
}

/// Reads the verdicts and finds the gold labels of each.
fn matched(context: &Context<'_>, margins: &Margins, gold: &mut GoldLabels) -> Result<Matched> {
    let mut matched = Matched { known: Vec::new(), verdicts: 0, cut: 0 };
    let mut mentioned = Vec::new();
    for margin in margins.verdicts(context)? {
        let margin = margin?;
        matched.cut += u64::from(margin.cut);
        if gold.mention(&margin.verdict) {
            mentioned.push((matched.verdicts, margin));
        }
        matched.verdicts += 1;
    }
    let sides = sides(context, gold, &mentioned)?;
    for ((_, margin), sides) in mentioned.into_iter().zip(sides) {
        if let Some(label) = gold.of(&margin.verdict, &sides) {
            matched.known.push(Known {
                observation: Observation { z: margin.z, gold: label },
                before: Label { p: margin.before, log_odds: Some(margin.z) },
                a_prompt: margin.verdict.a_prompt_id,
                b_prompt: margin.verdict.b_prompt_id,
                comparison: margin.verdict.comparison_id,
            });
        }
    }
    Ok(matched)
}

/// The sides of some verdicts, by their numbers. The texts of all are read only where some ids do not say how a gold
/// label is turned.
fn sides(context: &Context<'_>, gold: &GoldLabels, verdicts: &[(u64, Margin)]) -> Result<Vec<Sides>> {
    let by_ids: Vec<Sides> = verdicts.iter().map(|(_, margin)| Sides::of(&margin.verdict, None)).collect();
    let mut open = verdicts.iter().zip(&by_ids);
    if !open.any(|((_, margin), sides)| gold.ask_for_texts(&margin.verdict, sides)) {
        return Ok(by_ids);
    }
    let mut sides = Vec::new();
    let mut wanted = verdicts.iter().peekable();
    for (number, responses) in (0..).zip(context.rows::<VerdictResponses>("verdicts")?) {
        let responses = responses?;
        if let Some((_, margin)) = wanted.next_if(|verdict| verdict.0 == number) {
            sides.push(Sides::of(&margin.verdict, Some(&responses)));
        }
    }
    Ok(sides)
}

/// Refuses too few gold labels.
fn check(known: &[Known], gold: &GoldLabels, verdicts: u64) -> Result<()> {
    if (known.len() as u64) >= FEWEST {
        return Ok(());
    }
    let (of, have) = (gold.len(), known.len());
    Err(Error::data(format!(
        "{have} of {of} gold labels match one of {verdicts} verdicts; at least {FEWEST} are needed to say what the \
         judge's probabilities are worth. Label more comparisons, or see that ids and texts agree with the verdicts'"
    )))
}

/// Some of the gold labels, drawn by their comparison's id.
fn drawn(context: &Context<'_>, mut known: Vec<Known>, max: usize) -> Vec<Known> {
    known.sort_by_cached_key(|it| (context.seed.derive("calibrate/gold", &it.comparison, 0), it.comparison.clone()));
    known.truncate(max);
    known
}

fn fit_row(stage: &Calibrate, name: &str, fit: &Fit) -> CalibrationRow {
    let (scale, offset, knots) = match &fit.curve {
        Curve::Logistic { scale, offset } => (Some(*scale), Some(*offset), Vec::new()),
        Curve::Knots(knots) => (None, None, knots.clone()),
    };
    CalibrationRow {
        calibrator: name.to_owned(),
        method: stage.method.name().to_owned(),
        scale,
        offset,
        knot_logits: knots.iter().map(|knot| knot.0).collect(),
        knot_levels: knots.iter().map(|knot| knot.1).collect(),
        rows: fit.rows,
        newton_steps: fit.steps,
        converged: fit.converged,
    }
}

fn warn(stage: &Calibrate, context: &Context<'_>, all: &Fit, observations: &[Observation], cut: u64) {
    if cut > 0 {
        context.warn(format!(
            "{cut} verdicts have a probability of exactly 0 or 1, which has no log-odds; those of 1e-12 from it are taken. \
             Give the `scores` of the responses where the data has them"
        ));
    }
    if all.converged {
        return;
    }
    let method = stage.method.name();
    let agreement = observations.iter().map(|it| it.z * (it.gold - 0.5)).sum::<f64>();
    context.warn(match agreement <= 0.0 {
        true => format!(
            "the gold labels do not agree with the judge more often than by chance: {method} makes every label about \
             0.5. See that gold means P(a better) as the verdicts do, and `asks_for` of the judge's template"
        ),
        false => format!(
            "the gold labels agree with the judge (almost) without exception, so {method} finds no finite optimum and \
             stopped at a bound; more gold labels would help"
        ),
    });
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
