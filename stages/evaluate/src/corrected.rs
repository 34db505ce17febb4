//! `measure: corrected_win_rate`: the win rate by a judge whose errors are known from gold labels (Rogan and Gladen).

use kit::rows::{SummaryRow, VerdictLabels, VerdictResponses};
use kit::{Context, Error, Finding, GoldLabel, Input, InputPort, Outcome, Result, SidesIndex, Table, Z};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::interval::share;
use crate::measured::{Found, Measured, figure};
use crate::sides::{self, Side, Sides, policys, reject};

/// The policy's win rate, corrected by how often the judge is right.
///
/// On the comparisons with `gold` labels (the calibration sample) q1 is the share of the policy's wins that the judge
/// sees, q0 the share of its losses; p is the share of wins that the judge gives in the test sample, the other
/// comparisons. The win rate is (p + q0 - 1) / (q0 + q1 - 1) (Rogan and Gladen 1978), cut to [0, 1]; its interval has
/// the uncertainty of both samples (arXiv 2511.21140). A verdict or label of exactly one half names no winner and is set
/// aside. Where q0 + q1 - 1 is not clearly above 0 the judge says too little to correct it, and the stage stops.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrectedWinRate {
    /// The judge's verdicts on the policy's responses against a baseline's, of both samples.
    pub verdicts: Input,
    /// Better labels of some of them: `verdicts` or `pairs`. They are matched by the comparison's id or by the ids of
    /// both sides, and turned where the sides are exchanged; several of one verdict are averaged.
    pub gold: Input,
    /// The baseline's `responses`: of each verdict the side that is not among them is the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Input>,
    /// The side of all verdicts that is the policy's, in place of `baseline`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_side: Option<Side>,
    /// Where all comparisons have gold labels, to see how right the correction is: rows of each gold table with a number
    /// (from 0) that leaves `test_every` - 1 when divided by it belong to the test sample, and their labels give
    /// `win_rate/gold` alone. At least 2: every second row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_every: Option<u64>,
    /// q0 + q1 - 1 is clearly above 0 where it is so by this many of its standard errors, both of (right + 1) / (rows +
    /// 2). At least 0: with 0 anything above 0 is enough, and the interval may be all of [0, 1].
    #[serde(default = "clearly")]
    pub standard_errors: f64,
}

/// The 97.5 % point of the normal distribution.
fn clearly() -> f64 {
    1.96
}

/// What the judge said and what is true, in counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    /// Test sample: verdicts, and those for the policy.
    test: [f64; 2],
    /// Calibration, gold for the policy: rows, and those that the judge gives it.
    wins: [f64; 2],
    /// Calibration, gold against it: rows, and those that the judge does not give it.
    losses: [f64; 2],
    /// Test rows with gold labels, and those that it gives the policy.
    gold: [f64; 2],
}

/// A share, with the rows that its variance rests on.
#[derive(Clone, Copy)]
struct Share {
    value: f64,
    rows: f64,
}

impl Share {
    fn of([rows, yes]: [f64; 2]) -> Share {
        Share { value: yes / rows, rows }
    }

    /// With so many rows added, half of them successes.
    fn widened([rows, yes]: [f64; 2], by: f64) -> Share {
        Share { value: (yes + by / 2.0) / (rows + by), rows: rows + by }
    }

    fn variance(self) -> f64 {
        self.value * (1.0 - self.value) / self.rows
    }
}

/// The judge's share of wins p, and its shares of right ones q1 and q0.
#[derive(Clone, Copy)]
struct Rates {
    p: Share,
    q1: Share,
    q0: Share,
}

impl Rates {
    fn of(counts: &Counts) -> Rates {
        Rates { p: Share::of(counts.test), q1: Share::of(counts.wins), q0: Share::of(counts.losses) }
    }

    /// z^2 rows added to the test sample and 2 to each of the others, as the adjusted interval has them.
    fn adjusted(counts: &Counts) -> Rates {
        Rates {
            p: Share::widened(counts.test, Z * Z),
            q1: Share::widened(counts.wins, 2.0),
            q0: Share::widened(counts.losses, 2.0),
        }
    }

    /// q0 + q1 - 1: 1 for a judge that is always right, 0 for one that knows nothing.
    fn above_chance(&self) -> f64 {
        self.q0.value + self.q1.value - 1.0
    }

    /// Its standard error.
    fn above_chance_error(&self) -> f64 {
        (self.q0.variance() + self.q1.variance()).sqrt()
    }

    /// The corrected win rate, not cut to [0, 1].
    fn corrected(&self) -> f64 {
        (self.p.value + self.q0.value - 1.0) / self.above_chance()
    }

    /// Its standard error by the delta method, of both samples.
    fn error(&self) -> f64 {
        let rate = self.corrected();
        let variance =
            self.p.variance() + (1.0 - rate).powi(2) * self.q0.variance() + rate.powi(2) * self.q1.variance();
        variance.sqrt() / self.above_chance().abs()
    }

    /// The ends of the interval, where these rates are adjusted ones.
    fn interval(&self) -> (f64, f64) {
        let rate = self.corrected();
        let shift = 2.0 * Z * Z * (rate * self.q1.variance() - (1.0 - rate) * self.q0.variance());
        let (centre, half) = (rate + shift, Z * self.error());
        ((centre - half).clamp(0.0, 1.0), (centre + half).clamp(0.0, 1.0))
    }
}

impl Measured for CorrectedWinRate {
    fn inputs(&self) -> Vec<InputPort> {
        let baseline = self.baseline.iter().map(|from| InputPort::new("baseline", from, Table::Responses));
        let verdicts = InputPort::new("verdicts", &self.verdicts, Table::Verdicts);
        let gold = InputPort::new("gold", &self.gold, Table::Verdicts).or(Table::Pairs);
        [verdicts, gold].into_iter().chain(baseline).collect()
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings: Vec<Finding> =
            sides::findings(self.baseline.as_ref(), self.policy_side).into_iter().collect();
        if let Some(every) = self.test_every.filter(|every| *every < 2) {
            findings.push(Finding::at("test_every", format!("got {every}, wanted at least 2: every second row")));
        }
        if !(self.standard_errors >= 0.0 && self.standard_errors.is_finite()) {
            let text = format!("got {}, wanted a number of at least 0", self.standard_errors);
            findings.push(Finding::at("standard_errors", text));
        }
        findings
    }

    fn counted(&self) -> &'static [&'static str] {
        &["verdicts", "gold"]
    }

    fn compute(&self, context: &Context<'_>) -> Result<Found> {
        let sides = Sides::read(context, self.policy_side)?;
        let mut found = Found::default();
        let (mut index, mut judged, mut verdicts) = (SidesIndex::default(), Vec::new(), 0);
        let rows = context.rows::<VerdictLabels>("verdicts")?;
        for (row, responses) in rows.zip(context.rows::<VerdictResponses>("verdicts")?) {
            let (row, responses) = (row?, responses?);
            verdicts += 1;
            match sides.of(&row) {
                Ok(side) => match policys(&row, side)? {
                    0.5 => found.rejects.push(reject(row, "tie", "a p_hat of exactly one half names no winner")),
                    p => {
                        index.add(&row.comparison_id, kit::Sides::of(&row, Some(&responses)));
                        judged.push(Judged { side, wins: p > 0.5, gold: Gold::default() });
                    }
                },
                Err(why) => found.rejects.push(reject(row, "side_unclear", why)),
            }
        }
        let unclear = found.rejects.len() as u64;
        let labels = GoldLabel::read(context)?;
        let gold = labels.len() as u64;
        for label in labels {
            let at = index.find(label.comparison.as_deref(), &label.sides);
            match at.map(|(at, exchanged)| (at, label.p_of(exchanged))) {
                Some((_, 0.5)) => {
                    found.rejects.push(label.reject("tie", "a gold label of exactly one half names no winner"));
                }
                Some((at, p_a)) => {
                    let it: &mut Judged = &mut judged[at];
                    it.gold.sum += if it.side == Side::A { p_a } else { 1.0 - p_a };
                    it.gold.labels += 1.0;
                    it.gold.test |= self.test_every.is_some_and(|every| label.number % every == every - 1);
                }
                None => {
                    let detail =
                        "no verdict with a winner has this comparison's id and sides, or the ids of both sides";
                    found.rejects.push(label.reject("no_verdict", detail));
                }
            }
        }
        let unmatched = found.rejects.len() as u64 - unclear;
        let counts = count(&judged);
        self.refuse(&counts, verdicts, gold)?;
        let (plain, adjusted) = (Rates::of(&counts), Rates::adjusted(&counts));
        let (value, interval) = (plain.corrected().clamp(0.0, 1.0), adjusted.interval());
        let note = "by a judge whose errors gold labels show";
        found.outcome = Outcome::default()
            .balance("verdicts", verdicts, verdicts - unclear, unclear)
            .balance("gold", gold, gold - unmatched, unmatched)
            .headline("win_rate/corrected", value, Some(interval), note);
        found.figures = figures(&counts, &plain, value, interval);
        Ok(found)
    }
}

/// The gold labels of a verdict.
#[derive(Default)]
struct Gold {
    /// Sum of P(policy better), and its labels.
    sum: f64,
    labels: f64,
    /// True where it belongs to the test sample all the same.
    test: bool,
}

/// A verdict with a winner.
struct Judged {
    side: Side,
    /// The judge lets the policy win.
    wins: bool,
    gold: Gold,
}

fn count(judged: &[Judged]) -> Counts {
    let mut counts = Counts::default();
    let add = |counts: &mut [f64; 2], yes: bool| {
        counts[0] += 1.0;
        counts[1] += f64::from(u8::from(yes));
    };
    for Judged { wins, gold, .. } in judged {
        let truth = (gold.labels > 0.0).then(|| gold.sum / gold.labels);
        match truth {
            Some(truth) if !gold.test && truth > 0.5 => add(&mut counts.wins, *wins),
            Some(truth) if !gold.test && truth < 0.5 => add(&mut counts.losses, !*wins),
            // Labels that contradict each other say as much as none.
            _ => add(&mut counts.test, *wins),
        }
        if let Some(truth) = truth.filter(|truth| gold.test && *truth != 0.5) {
            add(&mut counts.gold, truth > 0.5);
        }
    }
    counts
}

impl CorrectedWinRate {
    /// The errors of samples that say too little.
    fn refuse(&self, counts: &Counts, verdicts: u64, gold: u64) -> Result<()> {
        let [wins, losses, test] = [counts.wins[0], counts.losses[0], counts.test[0]];
        if wins == 0.0 || losses == 0.0 {
            let held_out = if self.test_every.is_some() { ", those of the test sample left out" } else { "" };
            return Err(Error::data(format!(
                "of {gold} gold labels {wins} match one of {verdicts} verdicts and let the policy win, and {losses} let it \
                 lose{held_out}; both are needed to know the judge's errors. Label more comparisons, or see that ids and \
                 texts agree with the verdicts'"
            )));
        }
        if test == 0.0 {
            return Err(Error::data(
                "all verdicts have gold labels, so there is nothing to correct: the share of gold is the win rate. To see \
                 how right the correction is, keep some for the test with `test_every: 2`",
            ));
        }
        // A share of 0 or 1 of few rows has no variance of its own.
        let (plain, adjusted) = (Rates::of(counts), Rates::adjusted(counts));
        let (above, error) = (adjusted.above_chance(), adjusted.above_chance_error());
        let least = self.standard_errors * error;
        if above > least && above > 0.0 && plain.above_chance() > 0.0 {
            return Ok(());
        }
        Err(Error::data(format!(
            "the judge is not clearly better than chance, so its win rate cannot be corrected: it sees {:.3} of {wins} wins \
             and {:.3} of {losses} losses, q0 + q1 - 1 is {:.3}; with one right and one wrong verdict added to each it is \
             {above:.3}, wanted above {least:.3} ({} standard errors). Take a better judge, or label more comparisons",
            plain.q1.value,
            plain.q0.value,
            plain.above_chance(),
            self.standard_errors,
        )))
    }
}

fn figures(counts: &Counts, plain: &Rates, value: f64, interval: (f64, f64)) -> Vec<SummaryRow> {
    let test = counts.test[0] as u64;
    let of = |metric: &str, [rows, yes]: [f64; 2], note: &str| {
        let estimate = share(yes as u64, rows as u64)?;
        Some(figure(metric, estimate.value, estimate.interval, estimate.rows, format!("{note}; Wilson interval")))
    };
    let note = "P(policy better) with the judge's errors taken out; interval of test and calibration sample";
    let mut rows = vec![figure("win_rate/corrected", value, Some(interval), test, note)];
    let note = "the same, not cut to [0, 1]";
    rows.push(figure("win_rate/corrected/uncut", plain.corrected(), None, test, note));
    let note = "its standard error by the delta method, of test and calibration sample";
    rows.push(figure("win_rate/corrected/standard_error", plain.error(), None, test, note));
    rows.extend(of("win_rate/judged", counts.test, "share of the test sample that the judge gives the policy"));
    rows.extend(of("win_rate/gold", counts.gold, "share of the test sample that gold gives the policy"));
    rows.extend(of("judge/sensitivity", counts.wins, "q1: share of the policy's wins that the judge sees"));
    rows.extend(of("judge/specificity", counts.losses, "q0: share of the policy's losses that the judge sees"));
    let (above, half) = (plain.above_chance(), Z * plain.above_chance_error());
    let labels = (counts.wins[0] + counts.losses[0]) as u64;
    let note = "q0 + q1 - 1: 1 for a judge that is always right, 0 for one that knows nothing; normal interval";
    rows.push(figure("judge/above_chance", above, Some((above - half, above + half)), labels, note));
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(counts: [[f64; 2]; 3], wanted: [f64; 4]) {
        let [test, wins, losses] = counts;
        let counts = Counts { test, wins, losses, gold: [0.0; 2] };
        let plain = Rates::of(&counts);
        let (low, high) = Rates::adjusted(&counts).interval();
        let got = [plain.corrected(), plain.error(), low, high];
        for (got, wanted) in got.into_iter().zip(wanted) {
            assert!((got - wanted).abs() < 1e-6, "{got}, wanted {wanted} of {counts:?}");
        }
    }

    #[test]
    fn corrected_rates_and_intervals() {
        // Worked out with numpy from the same formulas: rate, standard error, low, high.
        check(
            [[50.0, 19.0], [25.0, 24.0], [25.0, 25.0]],
            [0.395_833_333_333, 0.073_307_484_396_3, 0.236_636_159_449, 0.557_460_237_618],
        );
        // A rate above 1 is shown uncut, its interval is cut.
        check([[23.0, 16.0], [10.0, 6.0], [13.0, 12.0]], [1.182_864_450_13, 0.396_284_026_343, 0.544_386_840_768, 1.0]);
    }

    #[test]
    fn with_the_same_rows_in_both_roles_the_correction_is_exact() {
        // 30 wins, of which the judge sees 22; 20 losses, of which it sees 17: it gives 22 + 3 wins of 50.
        let counts = Counts { test: [50.0, 25.0], wins: [30.0, 22.0], losses: [20.0, 17.0], gold: [0.0; 2] };
        assert!((Rates::of(&counts).corrected() - 0.6).abs() < 1e-12);
        // The other side's rate is what is missing to 1.
        let turned = Counts { test: [50.0, 25.0], wins: [20.0, 17.0], losses: [30.0, 22.0], gold: [0.0; 2] };
        assert!((Rates::of(&turned).corrected() - 0.4).abs() < 1e-12);
        let (low, high) = Rates::adjusted(&counts).interval();
        let (other_low, other_high) = Rates::adjusted(&turned).interval();
        assert!((low + other_high - 1.0).abs() < 1e-12 && (high + other_low - 1.0).abs() < 1e-12);
        // A judge that is always right, on many rows: the test sample's uncertainty alone is left.
        let sure = Counts { test: [100.0, 30.0], wins: [1e9, 1e9], losses: [1e9, 1e9], gold: [0.0; 2] };
        assert!((Rates::of(&sure).error() - (0.3f64 * 0.7 / 100.0).sqrt()).abs() < 1e-9);
    }
}
