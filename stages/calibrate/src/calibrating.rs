//! Matching, fitting, correcting and measuring.

use std::collections::{BTreeMap, BTreeSet};

use kit::rows::{CalibratedVerdict, CalibrationRow};
use kit::{Context, Error, Outcome, Result};

use crate::balance;
use crate::config::{Calibrate, FEWEST};
use crate::figures::write_measures;
use crate::fit::{Curve, Fit, Label, Observation};
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
    let Matched { mut known, verdicts, cut } = matched(stage, context, &margins, &mut gold)?;
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
    let mut fits = Fits { stage, folds, known: &known, made: BTreeMap::new() };
    fits.prepare(BTreeSet::new())?;

    // Held-out figures: each gold label against the fit that saw none of its prompts'.
    let mut held_out = Vec::with_capacity(known.len());
    for it in &known {
        let left_out = fits.folds.of(&it.a_prompt, &it.b_prompt);
        let label = fits.prepare(left_out)?.apply(it.observation.z);
        held_out.push(Measured { label, gold: it.observation.gold });
    }

    let mut writer = context.writer::<CalibratedVerdict>("verdicts")?;
    for margin in margins.verdicts(context)? {
        let margin = margin?;
        let left_out = fits.folds.of(&margin.verdict.a_prompt_id, &margin.verdict.b_prompt_id);
        let name = name_of(&left_out);
        let label = fits.prepare(left_out)?.apply(margin.z);
        let before = before(stage, &margin);
        writer.push(calibrated(margin, before, label, name))?;
    }
    writer.finish()?;

    let all = fits.made[&BTreeSet::new()].clone();
    let before: Vec<_> = known.iter().map(|it| Measured { label: it.before, gold: it.observation.gold }).collect();
    let summary = write_measures(stage, context, [&before, &held_out], balance::rows(&side, &all, &observations))?;
    let mut table = context.writer::<CalibrationRow>("calibration")?;
    table.extend(fits.made.iter().map(|(left_out, fit)| fit_row(stage, &name_of(left_out), fit)))?;
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
fn matched(stage: &Calibrate, context: &Context<'_>, margins: &Margins, gold: &mut GoldLabels) -> Result<Matched> {
    let mut matched = Matched { known: Vec::new(), verdicts: 0, cut: 0 };
    for margin in margins.verdicts(context)? {
        let margin = margin?;
        matched.verdicts += 1;
        matched.cut += u64::from(margin.cut);
        if let Some(label) = gold.of(&margin.verdict) {
            matched.known.push(Known {
                observation: Observation { z: margin.z, gold: label },
                before: Label { p: before(stage, &margin), log_odds: Some(margin.z) },
                a_prompt: margin.verdict.a_prompt_id,
                b_prompt: margin.verdict.b_prompt_id,
                comparison: margin.verdict.comparison_id,
            });
        }
    }
    Ok(matched)
}

/// The probability before: of the scores where they were given, else the verdict's own.
fn before(stage: &Calibrate, margin: &Margin) -> f64 {
    if stage.scores.is_some() { Label::of(margin.z).p } else { margin.verdict.p_hat }
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

/// The fits, each made on first use.
struct Fits<'a> {
    stage: &'a Calibrate,
    folds: Folds,
    known: &'a [Known],
    made: BTreeMap<BTreeSet<u32>, Fit>,
}

impl Fits<'_> {
    /// The fit to all gold labels but those of some folds.
    fn prepare(&mut self, left_out: BTreeSet<u32>) -> Result<&Fit> {
        if !self.made.contains_key(&left_out) {
            let stays = |it: &&Known| self.folds.of(&it.a_prompt, &it.b_prompt).is_disjoint(&left_out);
            let rows: Vec<Observation> = self.known.iter().filter(stays).map(|it| it.observation).collect();
            if rows.is_empty() {
                return Err(Error::data(format!(
                    "no gold label is left to fit without the prompts of {}; label joint comparisons of more prompts",
                    name_of(&left_out)
                )));
            }
            self.made.insert(left_out.clone(), Fit::new(self.stage.method, &rows));
        }
        Ok(&self.made[&left_out])
    }
}

/// As the `calibrator` column names a fit.
fn name_of(left_out: &BTreeSet<u32>) -> String {
    if left_out.is_empty() {
        return "all".to_owned();
    }
    let folds: Vec<String> = left_out.iter().map(|fold| (fold + 1).to_string()).collect();
    format!("without fold {}", folds.join(" and "))
}

/// Some of the gold labels, drawn by their comparison's id.
fn drawn(context: &Context<'_>, mut known: Vec<Known>, max: usize) -> Vec<Known> {
    known.sort_by_cached_key(|it| (context.seed.derive("calibrate/gold", &it.comparison, 0), it.comparison.clone()));
    known.truncate(max);
    known
}

fn calibrated(margin: Margin, before: f64, label: Label, calibrator: String) -> CalibratedVerdict {
    let Margin { verdict, z, .. } = margin;
    CalibratedVerdict {
        p_hat: label.p,
        log_odds: label.log_odds,
        uncalibrated_p_hat: before,
        uncalibrated_log_odds: Some(z),
        calibrator,
        ..CalibratedVerdict::from(verdict)
    }
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
