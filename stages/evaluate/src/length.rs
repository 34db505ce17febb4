//! `measure: length_controlled_win_rate`: the win rate with the judge's liking for length taken out.

use kit::probability::sigmoid;
use kit::rows::{SummaryRow, VerdictLabels, VerdictResponses};
use kit::{Context, Error, Finding, Input, InputPort, Outcome, Result, Table, Z};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::games::{Game, Games, characters};
use crate::interval::mean;
use crate::logistic::{Fit, fit};
use crate::measured::{Found, Measured, figure};
use crate::sides::{self, Side, Sides, policys, reject};

/// The win rate that the policy would have if its responses were as long as the baseline's.
///
/// As AlpacaEval 2 does it (arXiv 2404.04475), a logistic fit of each P(policy better) to a constant and tanh(characters
/// of the policy's response less those of the baseline's, over the standard deviation of that): the win rate is
/// sigmoid(constant). AlpacaEval's further term for the difficulty of each instruction needs many models' results and is
/// not in it. Several verdicts on one prompt are averaged first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LengthControlledWinRate {
    /// Verdicts on the policy's responses against a baseline's.
    pub verdicts: Input,
    /// The baseline's `responses`: of each verdict the side that is not among them is the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Input>,
    /// The side of all verdicts that is the policy's, in place of `baseline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_side: Option<Side>,
    /// The ridge on the factor of length, at least 0: half of it times the squared factor is added to the sum of the
    /// cross-entropies. The constant is free. 0 adds nothing; 1 keeps a fit to few prompts from extremes.
    pub ridge: f64,
}

/// The fit to some games.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Controlled {
    pub(crate) fit: Fit,
    /// Standard deviation of the difference in length.
    pub(crate) spread: f64,
}

impl Controlled {
    /// The fit; none where games lack lengths or no optimum is within reach.
    pub(crate) fn of(games: &[Game], ridge: f64) -> Option<Controlled> {
        let differences: Vec<f64> =
            games.iter().map(|game| game.lengths.map(|it| it[0] - it[1])).collect::<Option<_>>()?;
        let spread = deviation(&differences);
        let term = |difference: &f64| if spread > 0.0 { (difference / spread).tanh() } else { 0.0 };
        let rows: Vec<(f64, f64)> = differences.iter().map(term).zip(games.iter().map(|game| game.win)).collect();
        Some(Controlled { fit: fit(&rows, ridge)?, spread })
    }

    /// The win rate at equal lengths.
    pub(crate) fn win_rate(&self) -> f64 {
        sigmoid(self.fit.constant)
    }

    /// Its interval, normal in log-odds.
    pub(crate) fn interval(&self) -> (f64, f64) {
        let half = Z * self.fit.error;
        (sigmoid(self.fit.constant - half), sigmoid(self.fit.constant + half))
    }
}

/// A finding about a ridge.
pub(crate) fn ridge_finding(key: &str, ridge: f64) -> Option<Finding> {
    let right = ridge >= 0.0 && ridge.is_finite();
    (!right).then(|| Finding::at(key, format!("got {ridge}, wanted a number of at least 0")))
}

impl Measured for LengthControlledWinRate {
    fn inputs(&self) -> Vec<InputPort> {
        let baseline = self.baseline.iter().map(|from| InputPort::new("baseline", from, Table::Responses));
        [InputPort::new("verdicts", &self.verdicts, Table::Verdicts)].into_iter().chain(baseline).collect()
    }

    fn check(&self) -> Vec<Finding> {
        let sides = sides::findings(self.baseline.as_ref(), self.policy_side);
        sides.into_iter().chain(ridge_finding("ridge", self.ridge)).collect()
    }

    fn counted(&self) -> &'static [&'static str] {
        &["verdicts"]
    }

    fn compute(&self, context: &Context<'_>) -> Result<Found> {
        let sides = Sides::read(context, self.policy_side)?;
        let (mut games, mut rejects, mut read) = (Games::default(), Vec::new(), 0);
        let rows = context.rows::<VerdictLabels>("verdicts")?;
        for (row, responses) in rows.zip(context.rows::<VerdictResponses>("verdicts")?) {
            let (row, responses) = (row?, responses?);
            read += 1;
            match sides.of(&row) {
                Ok(side) => {
                    let (win, lengths) = (policys(&row, side)?, lengths(&responses, side));
                    games.add(row.a_prompt_id, win, 1.0, Some(lengths));
                }
                Err(why) => rejects.push(reject(row, "side_unclear", why)),
            }
        }
        let games: Vec<Game> = games.finish().into_values().collect();
        if games.is_empty() {
            return Err(Error::data(format!(
                "none of {read} verdicts is on the policy's response against the baseline's, so there is no win rate"
            )));
        }
        let Some(controlled) = Controlled::of(&games, self.ridge) else {
            return Err(Error::data(format!(
                "the fit to {} prompts has no optimum: (almost) all are won, all are lost, or the longer response always \
                 wins or loses. More prompts would help; where length says it all, a `ridge` of 1 does",
                games.len()
            )));
        };
        let outcome =
            Outcome::default().balance("verdicts", read, read - rejects.len() as u64, rejects.len() as u64).headline(
                "win_rate/length_controlled",
                controlled.win_rate(),
                Some(controlled.interval()),
                "at equal lengths",
            );
        Ok(Found { figures: figures(&games, &controlled), rejects, outcome })
    }
}

/// Characters of the policy's response and of the baseline's.
pub(crate) fn lengths(row: &VerdictResponses, side: Side) -> [f64; 2] {
    let [a, b] = [characters(&row.a_response), characters(&row.b_response)];
    if side == Side::A { [a, b] } else { [b, a] }
}

fn figures(games: &[Game], controlled: &Controlled) -> Vec<SummaryRow> {
    let rows = games.len() as u64;
    let of = |metric: &str, value: &dyn Fn(&Game) -> f64, note: &str| {
        let estimate = mean(&games.iter().map(value).collect::<Vec<_>>()).expect("there are games");
        figure(metric, estimate.value, estimate.interval, rows, format!("{note}; normal interval"))
    };
    let difference = |game: &Game| game.lengths.map_or(0.0, |it| it[0] - it[1]);
    vec![
        figure(
            "win_rate/length_controlled",
            controlled.win_rate(),
            Some(controlled.interval()),
            rows,
            "P(policy better) at equal lengths; normal interval in log-odds",
        ),
        of("win_rate/soft", &|game| game.win, "mean probability that the policy's response is better"),
        of("length/difference", &difference, "characters of the policy's response less those of the baseline's"),
        figure("length/spread", controlled.spread, None, rows, "standard deviation of that difference"),
        figure(
            "length/factor",
            controlled.fit.slope,
            None,
            rows,
            "factor of tanh(difference / spread) in the log-odds; above 0 the judge likes length",
        ),
    ]
}

/// The standard deviation of a sample; 0 for one value.
fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (n - 1.0).max(1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_liking_for_length_is_taken_out() {
        // log-odds 0.2 + 1.5 tanh(difference / spread), most responses longer than the baseline's.
        let lengths: Vec<f64> = (0..40).map(|at| f64::from(at % 7) * 30.0 - 40.0).collect();
        let spread = deviation(&lengths);
        let game = |length: &f64| Game {
            win: sigmoid(0.2 + 1.5 * (length / spread).tanh()),
            lengths: Some([100.0 + length, 100.0]),
        };
        let games: Vec<Game> = lengths.iter().map(game).collect();
        let found = Controlled::of(&games, 0.0).unwrap();
        assert!((found.win_rate() - sigmoid(0.2)).abs() < 1e-9 && (found.fit.slope - 1.5).abs() < 1e-8, "{found:?}");
        let plain = games.iter().map(|game| game.win).sum::<f64>() / 40.0;
        assert!(plain > found.win_rate() + 0.08, "{plain}");
        // Exchanged sides mirror it.
        let turned: Vec<Game> = games
            .iter()
            .map(|game| Game { win: 1.0 - game.win, lengths: game.lengths.map(|[policy, base]| [base, policy]) })
            .collect();
        let mirrored = Controlled::of(&turned, 0.0).unwrap();
        assert!((mirrored.win_rate() + found.win_rate() - 1.0).abs() < 1e-9, "{mirrored:?}");
        // Equal lengths: the plain win rate.
        let equal: Vec<Game> = games.iter().map(|game| Game { lengths: Some([9.0, 9.0]), ..*game }).collect();
        assert!((Controlled::of(&equal, 0.0).unwrap().win_rate() - plain).abs() < 1e-9);
        let unknown: Vec<Game> = games.iter().map(|game| Game { lengths: None, ..*game }).collect();
        assert_eq!(Controlled::of(&unknown, 0.0), None);
    }
}
