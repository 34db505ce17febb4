//! Matching, fitting, correcting and measuring.

use std::collections::{BTreeMap, BTreeSet};

use kit::rows::{CalibratedVerdict, CalibrationRow, ReliabilityRow, SummaryRow, Verdict};
use kit::{Context, Error, Outcome, Result};

use crate::config::{Calibrate, FEWEST};
use crate::fit::{Curve, Fit, Observation, SCALES};
use crate::folds::Folds;
use crate::gold::GoldLabels;
use crate::measure::{brier, expected_calibration_error, log_loss, reliability};

/// The 97.5 % point of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// A verdict with a gold label.
struct Known {
    observation: Observation,
    a_prompt: String,
    b_prompt: String,
    comparison: String,
}

pub(crate) fn calibrate(stage: &Calibrate, context: &Context<'_>) -> Result<Outcome> {
    let mut gold = GoldLabels::read(context)?;
    let mut known: Vec<Known> = Vec::new();
    let mut verdicts = 0_u64;
    for row in context.rows::<Verdict>("verdicts")? {
        let row = row?;
        verdicts += 1;
        if !(0.0..=1.0).contains(&row.p_hat) {
            let (id, p) = (row.comparison_id, row.p_hat);
            return Err(Error::data(format!("verdict `{id}`: `p_hat` is {p}, wanted a probability")));
        }
        if let Some(label) = gold.of(&row) {
            let observation = Observation { p_hat: row.p_hat, gold: label };
            known.push(Known {
                observation,
                a_prompt: row.a_prompt_id,
                b_prompt: row.b_prompt_id,
                comparison: row.comparison_id,
            });
        }
    }
    let matched = known.len();
    if let Some(max) = stage.max_gold {
        known = drawn(context, known, max as usize);
    }
    if (known.len() as u64) < FEWEST {
        let (of, have) = (gold.len(), known.len());
        return Err(Error::data(format!(
            "{have} of {of} gold labels match one of {verdicts} verdicts; at least {FEWEST} are needed to say what the \
             judge's probabilities are worth. Label more comparisons, or see that ids and texts agree with the verdicts'"
        )));
    }
    let prompts = known.iter().flat_map(|it| [it.a_prompt.clone(), it.b_prompt.clone()]).collect::<BTreeSet<_>>();
    if prompts.len() < stage.folds as usize {
        return Err(Error::data(format!(
            "the gold labels are of {} prompts, too few for {} folds by prompt; label more prompts or set `folds`",
            prompts.len(),
            stage.folds
        )));
    }
    let mut fits =
        Fits { stage, folds: Folds::deal(prompts, stage.folds, context.seed), known: &known, made: BTreeMap::new() };
    fits.prepare(BTreeSet::new())?;

    // Held-out figures: each gold label against the fit that saw none of its prompts'.
    let mut held_out = Vec::with_capacity(known.len());
    for it in &known {
        let left_out = fits.folds.of(&it.a_prompt, &it.b_prompt);
        let fit = fits.prepare(left_out)?;
        held_out.push(Observation { p_hat: fit.apply(it.observation.p_hat), ..it.observation });
    }

    let mut writer = context.writer::<CalibratedVerdict>("verdicts")?;
    for row in context.rows::<Verdict>("verdicts")? {
        let row = row?;
        let left_out = fits.folds.of(&row.a_prompt_id, &row.b_prompt_id);
        let name = name_of(&left_out);
        let p_hat = fits.prepare(left_out)?.apply(row.p_hat);
        writer.push(calibrated(row, p_hat, name))?;
    }
    writer.finish()?;

    let before: Vec<Observation> = known.iter().map(|it| it.observation).collect();
    let summary = write_measures(stage, context, &before, &held_out)?;
    let all = fits.made[&BTreeSet::new()].clone();
    let mut table = context.writer::<CalibrationRow>("calibration")?;
    table.extend(fits.made.iter().map(|(left_out, fit)| fit_row(stage, &name_of(left_out), fit)))?;
    table.finish()?;
    let rejects = gold.unmatched();
    let unmatched = rejects.len() as u64;
    context.write_rejects(rejects)?;
    tell(stage, context, &all);

    let mut outcome = Outcome::default()
        .balance("verdicts", verdicts, verdicts, 0)
        .balance("gold", gold.len() as u64, gold.len() as u64 - unmatched, unmatched)
        .figure("gold labels", known.len() as u64);
    if matched > known.len() {
        outcome = outcome.figure("gold labels left out", (matched - known.len()) as u64);
    }
    if let Curve::Logistic { scale, offset } = all.curve {
        outcome = outcome.figure("scale", rounded(scale));
        if offset != 0.0 {
            outcome = outcome.figure("offset", rounded(offset));
        }
    }
    for row in &summary {
        outcome = outcome.figure(&row.metric, rounded(row.value));
        if row.metric.starts_with("ece/") {
            outcome = outcome.headline(&row.metric, row.value, row.low.zip(row.high), "");
        }
    }
    Ok(outcome)
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

fn calibrated(row: Verdict, p_hat: f64, calibrator: String) -> CalibratedVerdict {
    CalibratedVerdict {
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
        ab_logp_a: row.ab_logp_a,
        ab_logp_b: row.ab_logp_b,
        ab_mass: row.ab_mass,
        ab_p: row.ab_p,
        ba_logp_a: row.ba_logp_a,
        ba_logp_b: row.ba_logp_b,
        ba_mass: row.ba_mass,
        ba_p: row.ba_p,
        position_gap: row.position_gap,
        bounded: row.bounded,
        p_hat,
        uncalibrated_p_hat: row.p_hat,
        calibrator,
        judge: row.judge,
        template: row.template,
        source_file: row.source_file,
        source_line: row.source_line,
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

fn write_measures(
    stage: &Calibrate,
    context: &Context<'_>,
    before: &[Observation],
    after: &[Observation],
) -> Result<Vec<SummaryRow>> {
    let mut table = context.writer::<ReliabilityRow>("reliability")?;
    let mut summary = Vec::new();
    for (labels, observations) in [("before", before), ("after", after)] {
        let bins = reliability(observations, stage.bins);
        table.extend(bins.iter().enumerate().map(|(index, bin)| ReliabilityRow {
            labels: labels.to_owned(),
            bin: index as u32,
            low: bin.low,
            high: bin.high,
            rows: bin.rows,
            mean_p: (bin.rows > 0).then_some(bin.mean_p),
            mean_gold: (bin.rows > 0).then_some(bin.mean_gold),
        }))?;
        summary.push(SummaryRow {
            metric: format!("ece/{labels}"),
            value: expected_calibration_error(&bins),
            low: None,
            high: None,
            rows: observations.len() as u64,
            note: format!(
                "expected calibration error over {} bins of [0.5, 1]; above 0 for any finite sample",
                stage.bins
            ),
        });
        summary.push(mean(&format!("brier/{labels}"), observations.iter().map(brier), "squared distance from gold"));
        summary.push(mean(
            &format!("log_loss/{labels}"),
            observations.iter().map(log_loss),
            "cross-entropy with gold, in nats",
        ));
    }
    table.finish()?;
    for (metric, of) in [("brier", brier as fn(&Observation) -> f64), ("log_loss", log_loss)] {
        let change = before.iter().zip(after).map(|(before, after)| of(after) - of(before));
        summary.push(mean(&format!("{metric}/change"), change, "after less before, row by row"));
    }
    summary.sort_by_key(|row| ["ece", "brier", "log_loss"].iter().position(|name| row.metric.starts_with(name)));
    let mut writer = context.writer::<SummaryRow>("summary")?;
    writer.extend(summary.clone())?;
    writer.finish()?;
    Ok(summary)
}

/// A mean with the normal interval; rows are taken as independent.
fn mean(metric: &str, values: impl Iterator<Item = f64>, note: &str) -> SummaryRow {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let value = values.iter().sum::<f64>() / n;
    let half = Z * (values.iter().map(|it| (it - value).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt();
    let note = format!("{note}; rows that the fit has not seen; normal interval");
    let (low, high) = (Some(value - half), Some(value + half));
    SummaryRow { metric: metric.to_owned(), value, low, high, rows: values.len() as u64, note }
}

fn tell(stage: &Calibrate, context: &Context<'_>, all: &Fit) {
    if all.converged {
        return;
    }
    let method = stage.method.name();
    context.warn(match all.curve {
        Curve::Logistic { scale, .. } if scale <= SCALES.0 => format!(
            "the gold labels do not agree with the judge more often than by chance: {method} makes every label about \
             0.5. See that gold means P(a better) as the verdicts do, and `asks_for` of the judge's template"
        ),
        _ => format!(
            "the gold labels agree with the judge (almost) without exception, so {method} finds no finite optimum and \
             stopped at a bound; more gold labels would help"
        ),
    });
}

fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
