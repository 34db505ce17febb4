//! The measurements over scores and verdicts: the table `summary` and the figures.

use kit::rows::SummaryRow;
use kit::{Context, Outcome, Result};

use crate::summary::{Mean, Summary};

/// The scores of all responses and the differences within comparisons, beside what is known of any judge.
pub(crate) struct RewardSummary {
    scores: Vec<f64>,
    margins: Mean,
    verdicts: Summary,
}

impl RewardSummary {
    /// Reads the finished verdicts. `margins` are score of a less score of b.
    pub(crate) fn read(context: &Context<'_>, scores: Vec<f64>, margins: Vec<f64>) -> Result<RewardSummary> {
        let margins = Mean::of(margins.into_iter().map(f64::abs));
        Ok(RewardSummary { scores, margins, verdicts: Summary::read(context)? })
    }

    /// A warning where the scores say nothing.
    pub(crate) fn warning(&self) -> Option<String> {
        let first = self.scores.first()?;
        let same = self.scores.len() > 1 && self.scores.iter().all(|score| score == first);
        same.then(|| {
            format!(
                "all {} responses have the score {first}: the reward model's head has learned nothing",
                self.scores.len()
            )
        })
    }

    /// The table, in the order in which a person reads it.
    pub(crate) fn rows(&self) -> Vec<SummaryRow> {
        let mut rows = Vec::new();
        let responses = self.scores.len() as u64;
        let mut add = |metric: &str, value: f64, interval: Option<(f64, f64)>, count: u64, note: &str| {
            if count > 0 {
                let (low, high) = (interval.map(|it| it.0), interval.map(|it| it.1));
                rows.push(SummaryRow {
                    metric: metric.to_owned(),
                    value,
                    low,
                    high,
                    rows: count,
                    note: note.to_owned(),
                });
            }
        };
        let mean = Mean::of(self.scores.iter().copied());
        add("score/mean", mean.value(), mean.interval(), responses, "over distinct responses; normal interval");
        let least = self.scores.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        add("score/min", least, None, responses, "the least score");
        add("score/max", most, None, responses, "the greatest score");
        let note = "size of the difference of scores within a comparison, before `scale`; normal interval";
        add("score/margin", self.margins.value(), self.margins.interval(), self.margins.rows(), note);
        rows.extend(self.verdicts.rows());
        rows
    }

    /// The outcome with the figures that are shown below a finished stage.
    pub(crate) fn add_to(&self, outcome: Outcome) -> Outcome {
        let mut outcome = self.verdicts.add_to(outcome).figure("responses scored", self.scores.len() as u64);
        for row in self.rows().into_iter().filter(|row| ["score/mean", "score/margin"].contains(&row.metric.as_str())) {
            let note = if row.metric == "score/margin" { "size of the difference within a comparison" } else { "" };
            outcome = outcome.headline(row.metric, row.value, row.low.zip(row.high), note);
        }
        outcome
    }
}
