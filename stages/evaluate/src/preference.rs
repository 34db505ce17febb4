//! Figures of held-out pairs.

use kit::probability::{Bin, calibration_error, cross_entropy, preferred, sigmoid};
use kit::rows::Score;

use crate::summary::{Summary, by_form};

/// Summarises scored pairs. With a `beta` the margins are rewards; where these are log-odds, P(chosen better) =
/// sigmoid(beta * margin) is set against the labels.
pub(crate) fn summarise(scores: &[Score], beta: Option<(f64, bool)>, summary: &mut Summary) {
    for (ending, rows) in by_form(scores, |row| &row.form) {
        let mut mean = |metric: &str, value: &dyn Fn(&Score) -> f64, note: &str| {
            summary.mean(&format!("{metric}{ending}"), rows.iter().map(|row| value(row)), note);
        };
        mean("margin", &|row| row.margin, "score of chosen less rejected, in nats");
        for (metric, value, note) in PARTS {
            let values: Vec<f64> = rows.iter().filter_map(|row| value(row)).collect();
            summary.mean(&format!("{metric}{ending}"), values.into_iter(), note);
        }
        let mut mean = |metric: &str, value: &dyn Fn(&Score) -> f64, note: &str| {
            summary.mean(&format!("{metric}{ending}"), rows.iter().map(|row| value(row)), note);
        };
        let soft = |row: &Score| if row.correct { row.p_hat } else { 1.0 - row.p_hat };
        mean("accuracy/soft", &soft, "p_hat of the side that the margin prefers");
        if let Some((beta, _)) = beta {
            mean("rewards/margins", &|row| beta * row.margin, &format!("margin times beta = {beta}"));
        }
        if let Some((beta, true)) = beta {
            let note = format!("sigmoid({beta} margin) against p_hat");
            mean("brier", &|row| (sigmoid(beta * row.margin) - row.p_hat).powi(2), &note);
            mean("log_loss", &|row| cross_entropy(beta * row.margin, row.p_hat), &note);
            let points = rows.iter().map(|row| preferred(sigmoid(beta * row.margin), row.p_hat));
            let error = calibration_error(&Bin::of(points, 0.5, BINS));
            let note = format!("expected calibration error of sigmoid({beta} margin) over {BINS} bins of [0.5, 1]");
            summary.point(&format!("ece{ending}"), error, rows.len(), &note);
        }
        let losses = rows.iter().filter_map(|row| row.loss);
        summary.mean(&format!("loss{ending}"), losses, "the objective's, unweighted");
        let correct = rows.iter().map(|row| row.correct);
        summary.share(&format!("accuracy{ending}"), correct, "margin above 0 for the chosen side");
    }
}

/// A column of the scores with the figure that is its mean.
type Part = (&'static str, fn(&Score) -> Option<f64>, &'static str);

/// The numbers of either side, where the rows have them.
const PARTS: [Part; 4] = [
    ("logps/chosen", |row| row.policy_chosen_logp, "policy, response part"),
    ("logps/rejected", |row| row.policy_rejected_logp, "policy, response part"),
    ("rewards/chosen", |row| row.chosen_reward, "the reward model's number"),
    ("rewards/rejected", |row| row.rejected_reward, "the reward model's number"),
];

/// Bins of the calibration error.
const BINS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn score(form: &str, p_hat: f64, margin: f64) -> Score {
        Score {
            pair_id: format!("{form}{margin}"),
            form: form.to_owned(),
            p_hat,
            chosen_reward: None,
            rejected_reward: None,
            policy_chosen_logp: Some(-10.0),
            policy_rejected_logp: Some(-12.0),
            policy_chosen_prompt_logp: None,
            policy_rejected_prompt_logp: None,
            reference_chosen_logp: None,
            reference_rejected_logp: None,
            reference_chosen_prompt_logp: None,
            reference_rejected_prompt_logp: None,
            margin,
            loss: None,
            correct: margin > 0.0,
        }
    }

    fn value(summary: &Summary, metric: &str) -> f64 {
        let row = summary.rows.iter().find(|row| row.metric == metric);
        row.unwrap_or_else(|| panic!("no {metric}")).value
    }

    #[test]
    fn figures_by_hand() {
        let mut summary = Summary::default();
        let scores = [score("same", 0.9, 2.0), score("same", 0.6, -1.0), score("joint", 0.8, 0.0)];
        summarise(&scores, Some((0.5, true)), &mut summary);
        assert!((value(&summary, "accuracy") - 1.0 / 3.0).abs() < 1e-12);
        assert!((value(&summary, "accuracy/same") - 0.5).abs() < 1e-12);
        // 0.9 right, 0.6 and 0.8 wrong.
        assert!((value(&summary, "accuracy/soft") - (0.9 + 0.4 + 0.2) / 3.0).abs() < 1e-12);
        assert!((value(&summary, "margin") - 1.0 / 3.0).abs() < 1e-12);
        assert!((value(&summary, "rewards/margins") - 0.5 / 3.0).abs() < 1e-12);
        // sigmoid(1) = 0.731059, sigmoid(-0.5) = 0.377541, sigmoid(0) = 0.5.
        let brier = (0.168_941f64.powi(2) + 0.222_459f64.powi(2) + 0.3f64.powi(2)) / 3.0;
        assert!((value(&summary, "brier") - brier).abs() < 1e-6);
        let log_loss = |p: f64, q: f64| -(p * q.ln() + (1.0 - p) * (1.0 - q).ln());
        let expected = (log_loss(0.9, 0.731_059) + log_loss(0.6, 0.377_541) + log_loss(0.8, 0.5)) / 3.0;
        assert!((value(&summary, "log_loss") - expected).abs() < 1e-5);
        // Each in a bin of its own: 0.731059 of 0.9, 1 - 0.377541 of 1 - 0.6, 0.5 of 0.5.
        assert!((value(&summary, "ece") - (0.168_941 + 0.222_459) / 3.0).abs() < 1e-6);
        assert!(summary.rows.iter().all(|row| row.metric != "loss" && !row.metric.starts_with("rewards/chosen")));
    }
}
