//! Advice on the next step, from the measurements of a run: each sentence names an observation and a remedy.

use super::evidence::Evidence;
use super::evidence::STILL;
use super::view::{four, grouped};

/// A training on fewer pairs than these says little of an objective.
const FEW_PAIRS: u64 = 300;
/// An interval wider than this on either side does not separate settings.
const WIDE: f64 = 0.05;
/// A mean reward of chosen sides below this means that they became rarer.
const LOST: f64 = -0.5;
/// Sentences that are shown at most: who has ten things to do does none.
const MOST: usize = 6;

/// The observations that stand out, the most pressing first.
pub fn advice(evidence: &Evidence) -> Vec<String> {
    let mut all = Vec::new();
    labels(evidence, &mut all);
    training(evidence, &mut all);
    lengths(evidence, &mut all);
    measurement(evidence, &mut all);
    rejects(evidence, &mut all);
    all.truncate(MOST);
    all
}

fn labels(evidence: &Evidence, all: &mut Vec<String>) {
    for mass in evidence.named("judge", "label_mass").filter(|mass| mass.value < 0.5) {
        all.push(format!(
            "The judge of `{0}` would rather say something else than a label (mass {1}): look at what it is asked with \
             `halftone render PIPELINE {0}`, and at `form`, `labels` and the last line of the template.",
            mass.stage,
            four(mass.value)
        ));
    }
    for gap in evidence.named("judge", "position/gap").filter(|gap| gap.value.abs() > 0.05) {
        let place = if gap.value > 0.0 { "first" } else { "second" };
        all.push(format!(
            "The judge of `{}` prefers the {place} place by {}: keep `orders: both`; `debias: logit` removes a preference \
             that is the same for all rows, and a larger judge has less of it.",
            gap.stage,
            four(gap.value.abs())
        ));
    }
    for first in evidence.named("judge", "position/first") {
        if first.interval.is_some_and(|(low, high)| low > 0.55 || high < 0.45) {
            all.push(format!(
                "The judge of `{}` gives what it sees first {} on average and was asked in one order: `orders: both` \
                 measures the preference and takes it out.",
                first.stage,
                four(first.value)
            ));
        }
    }
    for longer in evidence.named("judge", "length/longer") {
        if longer.interval.is_some_and(|(low, _)| low > 0.6) {
            all.push(format!(
                "The judge of `{}` prefers the longer response ({} on average): say in the template that length is no \
                 merit, or compare responses of like length.",
                longer.stage,
                four(longer.value)
            ));
        }
    }
    for labels in &evidence.labels {
        if labels.pairs < FEW_PAIRS {
            all.push(format!(
                "`{}` has {} pairs, which are few: more prompts, or a larger `k` in `sample`, give more.",
                labels.table,
                grouped(labels.pairs)
            ));
        }
        if labels.near_half > 0.5 {
            all.push(format!(
                "Most labels of `{}` are within 0.1 of one half: the responses are too much alike for the judge. A higher \
                 `temperature`, a larger `k`, or `min_p_hat` in `pairs` give clearer pairs.",
                labels.table
            ));
        }
        if labels.certain > 0.8 && evidence.judged {
            all.push(format!(
                "Nearly all labels of `{}` are certain, so a soft objective is a hard one: `calibrate` with some gold \
                 labels says whether the judge is as right as it is sure.",
                labels.table
            ));
        }
    }
}

fn training(evidence: &Evidence, all: &mut Vec<String>) {
    for training in &evidence.trainings {
        let Some((first, last)) = training.margin else { continue };
        let stage = &training.stage;
        if (last - first).abs() < STILL {
            all.push(format!(
                "`{stage}` hardly moved (margin {} to {}): a higher `optimizer.lr`, more `epochs`, or a larger `beta`.",
                four(first),
                four(last)
            ));
        }
        let held_out = evidence.named("evaluate", "accuracy").map(|figure| figure.value).next();
        let held_out = held_out.or(training.evaluations.last().and_then(|(.., accuracy)| *accuracy));
        if let (Some(own), Some(other)) = (training.accuracy, held_out)
            && own > 0.98
            && own - other > 0.1
        {
            all.push(format!(
                "The margins of `{stage}` are saturated: accuracy {} on its training pairs and {} on held-out ones. Fewer \
                 `epochs`, a lower `optimizer.lr` or a larger `beta`; more pairs help most.",
                four(own),
                four(other)
            ));
        }
        if let (Some(best), Some(end)) =
            (training.evaluations.iter().min_by(|a, b| a.1.total_cmp(&b.1)), training.evaluations.last())
            && training.evaluations.len() > 2
            && end.1 > best.1 * 1.02
        {
            all.push(format!(
                "The held-out loss of `{stage}` was least at step {} ({}) and is {} at the end: fewer `epochs`, or `steps: \
                 {}`.",
                grouped(best.0),
                four(best.1),
                four(end.1),
                best.0
            ));
        }
        if training.chosen.is_some_and(|chosen| chosen < LOST) && last > STILL {
            all.push(format!(
                "Under `{stage}` chosen responses lost probability too (reward {}): common, and a mixture with `sft`, or a \
                 larger `beta`, holds them.",
                four(training.chosen.unwrap_or_default())
            ));
        }
    }
}

fn lengths(evidence: &Evidence, all: &mut Vec<String>) {
    for lengths in &evidence.lengths {
        let times = lengths.after.1 / lengths.before.1;
        if !(0.87..=1.15).contains(&times) {
            let (word, why) = match times > 1.0 {
                true => {
                    ("longer", "check that what is better is not just more: `simpo` and `ipo_norm` count per token")
                }
                false => ("shorter", "check that nothing is missing from the answers"),
            };
            all.push(format!(
                "The policy's answers are {word} than before: {} tokens in `{}`, {} in `{}`; {why}.",
                four(lengths.before.1),
                lengths.before.0,
                four(lengths.after.1),
                lengths.after.0
            ));
        }
    }
    for (stage, share) in evidence.cut.iter().filter(|(_, share)| *share > 0.2) {
        all.push(format!("A share of {} of the responses of `{stage}` was cut: a larger `max_tokens`.", four(*share)));
    }
    for (stage, share) in evidence.loops.iter().filter(|(_, share)| *share > 0.1) {
        all.push(format!(
            "A share of {} of the responses of `{stage}` says the same again and again: a higher `temperature`, or less \
             training.",
            four(*share)
        ));
    }
}

fn measurement(evidence: &Evidence, all: &mut Vec<String>) {
    for figure in evidence.named("evaluate", "accuracy").chain(evidence.named("evaluate", "win_rate")).take(1) {
        let Some((low, high)) = figure.interval else { continue };
        let half = (high - low) / 2.0;
        if half > WIDE {
            // A share near one half has the widest interval: 1.96 sqrt(1/4 / n).
            all.push(format!(
                "`{}` knows {} to ± {}, from {} rows: about 385 rows give ± 0.05, 1537 rows ± 0.025.",
                figure.stage,
                figure.metric,
                four(half),
                grouped(figure.rows)
            ));
        }
    }
    let preference = evidence.trainings.iter().any(|training| training.margin.is_some());
    let measured = evidence.figures.iter().any(|figure| figure.kind == "evaluate");
    if preference && !measured {
        all.push(
            "Nothing measures the policy on pairs that it has not seen: `holdout: 0.1` in `ingest`, and a stage \
             `{kind: evaluate, model: policy, pairs: data.holdout_pairs, reference: ...}`."
                .to_owned(),
        );
    }
    let right = |figure: &&super::evidence::Figure| figure.metric.starts_with("truth/") || figure.kind == "calibrate";
    if evidence.judged && !evidence.figures.iter().any(|figure| right(&figure)) {
        all.push(
            "Nothing says whether the judge is right: some hundred gold labels in `calibrate` measure it, and correct it."
                .to_owned(),
        );
    }
}

fn rejects(evidence: &Evidence, all: &mut Vec<String>) {
    for (stage, rejected, read) in &evidence.rejected {
        let share = *rejected as f64 / (*read).max(1) as f64;
        if share > 0.05 {
            all.push(format!(
                "`{stage}` rejected {} of {} rows: `halftone inspect {stage}.rejects` says why.",
                grouped(*rejected),
                grouped(*read)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::evidence::{Figure, Labels, Lengths, Training};
    use super::*;

    fn judged(metric: &str, value: f64) -> Figure {
        Figure {
            stage: "verdicts".to_owned(),
            kind: "judge".to_owned(),
            metric: metric.to_owned(),
            value,
            interval: Some((value - 0.01, value + 0.01)),
            rows: 1000,
        }
    }

    fn check(evidence: Evidence, wanted: &str) {
        let all = advice(&evidence);
        assert!(all.iter().any(|sentence| sentence.contains(wanted)), "no `{wanted}` in {all:#?}");
    }

    #[test]
    fn what_stands_out_is_named_with_something_to_try() {
        let labels = |pairs, near_half, certain| Evidence {
            labels: vec![Labels { table: "pairs".to_owned(), pairs, near_half, certain }],
            judged: true,
            ..Evidence::default()
        };
        check(labels(50, 0.0, 0.0), "`pairs` has 50 pairs, which are few");
        check(labels(5000, 0.7, 0.0), "within 0.1 of one half");
        check(labels(5000, 0.0, 0.95), "a soft objective is a hard one");
        for (metric, value, wanted) in [
            ("label_mass", 0.2, "would rather say something else than a label (mass 0.2000)"),
            ("position/gap", 0.12, "prefers the first place by 0.1200"),
            ("position/gap", -0.12, "prefers the second place"),
            ("position/first", 0.7, "was asked in one order"),
            ("length/longer", 0.8, "prefers the longer response"),
        ] {
            check(Evidence { figures: vec![judged(metric, value)], ..Evidence::default() }, wanted);
        }
        let lengths = |after| Evidence {
            lengths: vec![Lengths { before: ("before".to_owned(), 10.0), after: ("after".to_owned(), after) }],
            ..Evidence::default()
        };
        check(lengths(15.0), "longer than before: 10.00 tokens in `before`, 15.00 in `after`");
        check(lengths(5.0), "shorter than before");
        let loops = |share| Evidence { loops: vec![("after".to_owned(), share)], ..Evidence::default() };
        check(loops(0.3), "0.3000 of the responses of `after` says the same again and again");
        assert!(advice(&loops(0.05)).is_empty());
        assert!(advice(&lengths(10.5)).is_empty());
        check(
            Evidence { rejected: vec![("reference".to_owned(), 20, 100)], ..Evidence::default() },
            "rejected 20 of 100",
        );
    }

    #[test]
    fn trainings_that_stand_still_or_saturate_are_named() {
        let training = |margin, accuracy, evaluations: &[(u64, f64, Option<f64>)]| Evidence {
            trainings: vec![Training {
                stage: "policy".to_owned(),
                margin: Some(margin),
                accuracy,
                evaluations: evaluations.to_vec(),
                ..Training::default()
            }],
            ..Evidence::default()
        };
        check(training((0.0, 0.001), None, &[]), "`policy` hardly moved");
        check(training((0.0, 9.0), Some(0.999), &[(10, 0.5, Some(0.7))]), "margins of `policy` are saturated");
        let evaluations = [(10, 0.5, None), (20, 0.45, None), (30, 0.6, None)];
        check(training((0.0, 2.0), None, &evaluations), "was least at step 20 (0.4500) and is 0.6000 at the end");
        check(training((0.0, 2.0), None, &[]), "Nothing measures the policy on pairs that it has not seen");
    }
}
