//! Effects of place and length on the judge, and its certainty: the table `summary` and the figures.
//!
//! Everything here stays the same when a and b are exchanged. Intervals are at 95 % and take rows as independent.

use kit::rows::{Message, SummaryRow, Verdict};
use kit::{Context, Outcome, Result, RowReader, Z, wilson};
use serde_json::json;

use crate::mass::Missing;

/// Groups of the length curve, with equally many verdicts in each.
const GROUPS: usize = 5;
/// A share of answers for one place above which the place and not the response decides.
const FIXED: f64 = 0.8;
/// Answers below which such a share is chance.
const FEW: u64 = 20;

/// The measurements over a table of verdicts.
#[derive(Default)]
pub(crate) struct Summary {
    verdicts: u64,
    mass: Mean,
    bounded: u64,
    gap: Mean,
    /// The size of that difference, whichever place it favours.
    apart: Mean,
    /// Answers with more than 1/2 for one side, and those of them whose side is shown first.
    decided: u64,
    firsts: u64,
    /// Half the difference of a's log-odds between the orders: what the first place adds to the log-odds.
    offset: Mean,
    flips: u64,
    /// P(what is shown first is better), where one order was asked.
    first: Mean,
    /// For sides of different lengths: by how many characters the longer one is longer, and P(it is better).
    lengths: Vec<(u64, f64)>,
    histogram: [u64; 10],
    /// Comparisons whose labels got too little.
    missing: Missing,
}

impl Summary {
    /// Reads the finished table, so that resumed shards count too.
    pub(crate) fn read(context: &Context<'_>) -> Result<Summary> {
        let mut summary = Summary { missing: Missing::read(context)?, ..Summary::default() };
        for row in RowReader::<Verdict>::open(&[&context.port("verdicts")])? {
            summary.add(&row?);
        }
        summary.lengths.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
        Ok(summary)
    }

    /// Adds P(a better) in the orders that were asked.
    fn add_places(&mut self, ab: Option<f64>, ba: Option<f64>) {
        if let (Some(ab), Some(ba)) = (ab, ba) {
            self.apart.add((ab - ba).abs());
        }
        // P(what is shown first is better).
        for first in ab.into_iter().chain(ba.map(|p| 1.0 - p)) {
            self.decided += u64::from(first != 0.5);
            self.firsts += u64::from(first > 0.5);
        }
    }

    fn add(&mut self, row: &Verdict) {
        self.verdicts += 1;
        self.bounded += u64::from(row.bounded.is_some());
        let masses: Vec<f64> = [row.ab_mass, row.ba_mass].into_iter().flatten().collect();
        if !masses.is_empty() {
            self.mass.add(masses.iter().sum::<f64>() / masses.len() as f64);
        }
        self.histogram[((row.p_hat * 10.0) as usize).min(9)] += 1;
        match (row.ab_p, row.ba_p) {
            (Some(ab), Some(ba)) => {
                self.gap.add(ab - ba);
                self.flips += u64::from((ab > 0.5 && ba < 0.5) || (ab < 0.5 && ba > 0.5));
                if let [Some(ab_a), Some(ab_b), Some(ba_a), Some(ba_b)] =
                    [row.ab_logp_a, row.ab_logp_b, row.ba_logp_a, row.ba_logp_b]
                {
                    self.offset.add(0.5 * ((ab_a - ab_b) - (ba_a - ba_b)));
                }
            }
            (Some(ab), None) => self.first.add(ab),
            _ => {}
        }
        self.add_places(row.ab_p, row.ba_p);
        let (a, b) = (characters(&row.a_response), characters(&row.b_response));
        if a != b {
            self.lengths.push((a.abs_diff(b), if a > b { row.p_hat } else { 1.0 - row.p_hat }));
        }
    }

    /// Mean probability of both labels together; nothing without verdicts.
    pub(crate) fn mean_mass(&self) -> Option<f64> {
        (self.mass.rows > 0.0).then(|| self.mass.value())
    }

    /// The place that nearly every answer prefers, `first` or `second`, and the share of the answers that do; nothing
    /// where places do not decide, or where there are too few answers.
    pub(crate) fn fixed_place(&self) -> Option<(&'static str, f64)> {
        let first = share(self.firsts, self.decided);
        match self.decided >= FEW {
            true if first > FIXED => Some(("first", first)),
            true if 1.0 - first > FIXED => Some(("second", 1.0 - first)),
            _ => None,
        }
    }

    /// The estimate of the bias for the first place from one order: a fragment that continues a sentence, empty without
    /// data.
    pub(crate) fn first_place(&self) -> String {
        match self.first.interval() {
            None => String::new(),
            Some((low, high)) => {
                let bias = |value: f64| value - 0.5;
                format!(
                    ", estimated at {:+.3} (95 % interval {:+.3} to {:+.3}) if the better side is as often first as second",
                    bias(self.first.value()),
                    bias(low),
                    bias(high)
                )
            }
        }
    }

    /// The table, in the order in which a person reads it. What has no rows is left out.
    pub(crate) fn rows(&self) -> Vec<SummaryRow> {
        let mut rows = Vec::new();
        let normal = "normal interval";
        let mut add = |metric: String, value: f64, interval: Option<(f64, f64)>, count: u64, note: String| {
            if count > 0 {
                let (low, high) = (interval.map(|it| it.0), interval.map(|it| it.1));
                rows.push(SummaryRow { metric, value, low, high, rows: count, note });
            }
        };
        let mut mean = |metric: &str, mean: &Mean, note: &str| {
            let note = format!("{note}; {normal}");
            add(metric.to_owned(), mean.value(), mean.interval(), mean.rows as u64, note);
        };
        mean("label_mass", &self.mass, "probability of both labels together, where there is a verdict");
        mean(
            "position/gap",
            &self.gap,
            "P(a better) with a shown first less that with b first; above 0 the first place is favoured",
        );
        mean(
            "position/offset",
            &self.offset,
            "what the first place adds to the log-odds; `debias: logit` removes it exactly",
        );
        mean(
            "position/first",
            &self.first,
            "P(first is better) in the one order asked; 0.5 without bias, if sides stand at random",
        );
        mean("position/apart", &self.apart, "size of the same difference; 0 where the order changes nothing");
        add(
            "position/first_wins".to_owned(),
            share(self.firsts, self.decided),
            None,
            self.decided,
            "answers that prefer what they see first; 0.5 without bias, 1 from a judge that always says the first label"
                .to_owned(),
        );
        let both = self.gap.rows as u64;
        add(
            "position/flip_rate".to_owned(),
            share(self.flips, both),
            wilson(share(self.flips, both), both),
            both,
            "verdicts whose winner changes with the order; Wilson interval".to_owned(),
        );
        add(
            "bounded".to_owned(),
            share(self.bounded, self.verdicts),
            None,
            if self.bounded > 0 { self.verdicts } else { 0 },
            "verdicts with a label that the endpoint did not return".to_owned(),
        );
        let longer = Mean::of(self.lengths.iter().map(|(_, p)| *p));
        let count = self.lengths.len() as u64;
        let note = format!("P(the longer response is better), in characters; {normal}");
        add("length/longer".to_owned(), longer.value(), longer.interval(), count, note);
        if let Some(correlation) = self.length_correlation() {
            let note =
                "of P(a better) - 1/2 with the difference in characters, both about 0; Fisher interval".to_owned();
            add("length/correlation".to_owned(), correlation, fisher(correlation, count), count, note);
        }
        for group in groups(&self.lengths) {
            let mean = Mean::of(group.iter().map(|(_, p)| *p));
            let (from, to) = (group[0].0, group[group.len() - 1].0);
            let note = format!("P(the longer is better), longer by {from} to {to} characters; {normal}");
            let count = group.len() as u64;
            add(format!("length/longer/by_{from}_to_{to}"), mean.value(), mean.interval(), count, note);
        }
        let all = self.verdicts + self.missing.rows;
        add(
            "label_mass/too_low".to_owned(),
            share(self.missing.rows, all),
            wilson(share(self.missing.rows, all), all),
            if self.missing.rows > 0 { all } else { 0 },
            "comparisons without a verdict, as the judge says something else; Wilson interval".to_owned(),
        );
        for (token, count) in self.missing.commonest() {
            let note = "of those without a verdict: this token was the likeliest".to_owned();
            add(format!("first_token/{token}"), share(count, self.missing.rows), None, self.missing.rows, note);
        }
        rows
    }

    /// Correlation about 0: the sign of both numbers depends on which side is called a, their product does not.
    fn length_correlation(&self) -> Option<f64> {
        let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
        for &(by, p) in &self.lengths {
            let (x, y) = (by as f64, p - 0.5);
            xy += x * y;
            xx += x * x;
            yy += y * y;
        }
        (xx > 0.0 && yy > 0.0).then(|| xy / (xx * yy).sqrt())
    }

    /// The outcome with the figures that are shown below a finished stage.
    pub(crate) fn add_to(&self, outcome: Outcome) -> Outcome {
        let round = |value: f64| (value * 1e6).round() / 1e6;
        let mut outcome = outcome;
        if self.verdicts > 0 {
            let bins = self.histogram.iter().enumerate();
            let bins: serde_json::Map<_, _> =
                bins.map(|(bin, rows)| (format!("{:.1}", bin as f64 / 10.0), json!(rows))).collect();
            outcome = outcome.figure("p_hat histogram, from", bins);
        }
        let commonest = self.missing.commonest();
        if !commonest.is_empty() {
            let tokens: serde_json::Map<_, _> =
                commonest.into_iter().map(|(token, count)| (token, json!(count))).collect();
            outcome = outcome.figure("likeliest tokens without a verdict", tokens);
        }
        for row in self.rows() {
            let name = match row.metric.as_str() {
                "label_mass" => "mean label mass",
                "label_mass/too_low" => "share below least_mass",
                "position/gap" => "mean position gap",
                "position/offset" => "mean position offset, log-odds",
                "position/first" => "mean P(first is better)",
                "position/apart" => "mean size of the position gap",
                "position/first_wins" => "share of answers for the first place",
                "position/flip_rate" => "flip rate (orders disagree)",
                "bounded" => "share with a bounded label",
                "length/longer" => "mean P(longer is better)",
                "length/correlation" => "length correlation",
                _ => continue,
            };
            outcome = outcome.figure(name, round(row.value));
            if ["label_mass", "position/gap", "position/first", "position/flip_rate"].contains(&row.metric.as_str()) {
                outcome = outcome.headline(&row.metric, row.value, row.low.zip(row.high), "");
            }
            if let ("position/gap" | "position/first", Some(low), Some(high)) = (row.metric.as_str(), row.low, row.high)
            {
                outcome = outcome.figure(&format!("{name}, 95 % interval"), vec![round(low), round(high)]);
            }
        }
        outcome
    }
}

fn characters(messages: &[Message]) -> u64 {
    messages.iter().map(|message| message.text().chars().count() as u64).sum()
}

/// A mean with its interval, from running sums (Welford's).
#[derive(Default)]
pub(crate) struct Mean {
    rows: f64,
    mean: f64,
    squares: f64,
}

impl Mean {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Mean {
        let mut mean = Mean::default();
        values.for_each(|value| mean.add(value));
        mean
    }

    fn add(&mut self, value: f64) {
        self.rows += 1.0;
        let before = value - self.mean;
        self.mean += before / self.rows;
        self.squares += before * (value - self.mean);
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows as u64
    }

    pub(crate) fn value(&self) -> f64 {
        self.mean
    }

    pub(crate) fn interval(&self) -> Option<(f64, f64)> {
        if self.rows < 2.0 {
            return None;
        }
        let half = Z * (self.squares / (self.rows - 1.0) / self.rows).sqrt();
        Some((self.mean - half, self.mean + half))
    }
}

fn share(yes: u64, rows: u64) -> f64 {
    yes as f64 / rows as f64
}

/// Fisher's interval of a correlation.
fn fisher(correlation: f64, rows: u64) -> Option<(f64, f64)> {
    if rows <= 3 || correlation.abs() >= 1.0 {
        return None;
    }
    let half = Z / (rows as f64 - 3.0).sqrt();
    Some(((correlation.atanh() - half).tanh(), (correlation.atanh() + half).tanh()))
}

/// Sorted lengths in groups of nearly equal size; equal lengths stay together.
fn groups(lengths: &[(u64, f64)]) -> Vec<&[(u64, f64)]> {
    let mut groups = Vec::new();
    let mut start = 0;
    for number in 1..=GROUPS {
        let mut end = (lengths.len() * number / GROUPS).max(start);
        while end > start && end < lengths.len() && lengths[end].0 == lengths[end - 1].0 {
            end += 1;
        }
        if end > start {
            groups.push(&lengths[start..end]);
        }
        start = end;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_cover_all_and_keep_equal_lengths_together() {
        let lengths: Vec<(u64, f64)> = [1, 1, 1, 1, 2, 3, 4, 5, 6, 7].map(|by| (by, 0.5)).to_vec();
        let groups = groups(&lengths);
        assert_eq!(groups.iter().map(|group| group.len()).sum::<usize>(), lengths.len());
        assert_eq!(groups[0].len(), 4);
        assert!(groups.windows(2).all(|pair| pair[0].last().unwrap().0 < pair[1][0].0));
        assert!(super::groups(&[]).is_empty());
    }

    /// The measurements of verdicts with these P(a better) in either order.
    fn of_orders(orders: impl IntoIterator<Item = (f64, f64)>) -> Summary {
        let mut summary = Summary::default();
        orders.into_iter().for_each(|(ab, ba)| summary.add_places(Some(ab), Some(ba)));
        summary
    }

    #[test]
    fn a_judge_that_always_says_one_label_is_found() {
        // In the order ba the first place is b's.
        let first = of_orders((0..12).map(|_| (0.9, 0.2)));
        assert_eq!(first.fixed_place(), Some(("first", 1.0)));
        assert!((first.apart.value() - 0.7).abs() < 1e-12);
        assert_eq!(of_orders((0..12).map(|_| (0.2, 0.9))).fixed_place(), Some(("second", 1.0)));
        // It reads what it sees; it has no preference; it said too little.
        assert_eq!(of_orders((0..12).map(|_| (0.9, 0.8))).fixed_place(), None);
        assert_eq!(of_orders((0..12).map(|_| (0.5, 0.5))).fixed_place(), None);
        assert_eq!(of_orders((0..9).map(|_| (0.9, 0.2))).fixed_place(), None);
    }

    #[test]
    fn intervals_are_the_textbooks() {
        // 3 of 10: centre 0.492073 / 1.384146, half 1.416010 * 0.174939.
        let (low, high) = wilson(0.3, 10).unwrap();
        assert!((low - 0.107_791).abs() < 1e-6 && (high - 0.603_222).abs() < 1e-6, "{low} {high}");
        let mean = Mean::of([1.0, 2.0, 4.0].into_iter());
        let half = Z * (7.0f64 / 3.0 / 3.0).sqrt();
        assert!(
            (mean.value() - 7.0 / 3.0).abs() < 1e-12 && (mean.interval().unwrap().1 - 7.0 / 3.0 - half).abs() < 1e-12
        );
        let (low, high) = fisher(0.5, 28).unwrap();
        assert!((low - 0.156_018).abs() < 1e-3 && (high - 0.736_6).abs() < 1e-3, "{low} {high}");
    }
}
