//! `measure: alternative_annotator`: the test of a judge in place of a person.

use std::collections::{BTreeMap, BTreeSet};

use kit::rows::{Reject, SummaryRow, Vote};
use kit::{Context, Error, Finding, Input, InputPort, Outcome, Result, Table, Z};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::interval::share;
use crate::measured::{Found, Measured, figure};
use crate::sides::probability;
use crate::student;

/// Tests whether each judge may stand for a human annotator (the alternative annotator test, arXiv 2501.10970).
///
/// Each person in turn is left out and compared with the judge, on the comparisons that another person voted on too: who
/// agrees with more of the others? rho is the share of comparisons where the judge does at least as well, the mean over
/// persons. A person is beaten where the judge's advantage is clear at a cost of `epsilon`: a one-sided t-test of (person
/// at least as good) - (judge at least as good) < epsilon, rejected by Benjamini and Yekutieli's procedure over all
/// persons. omega is the share of persons beaten; from 1/2 on the judge passes. Votes are equal or not: how far apart
/// they are does not count, and each counts once, whatever its weight.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlternativeAnnotator {
    /// Votes of people and of judges on the same comparisons, as `ingest` makes them.
    pub votes: Input,
    /// Annotators that are people, by name; `*` stands for any letters. All others are judges to be tested.
    pub humans: Vec<String>,
    /// Cost-benefit penalty in [0, 1]: how much worse than a person a judge may be for being cheaper. The paper takes 0.2
    /// for experts, 0.15 for skilled people and 0.1 for crowd workers.
    pub epsilon: f64,
    /// The rate of false discoveries that the procedure allows, in (0, 1).
    #[serde(default = "false_discoveries")]
    pub false_discoveries: f64,
    /// A person with fewer comparisons is not compared with the judge, but stays among the others. At least 2; the paper
    /// takes 30.
    #[serde(default = "least_rows")]
    pub least_rows: u32,
}

fn false_discoveries() -> f64 {
    0.05
}

fn least_rows() -> u32 {
    30
}

/// Votes by comparison, then by annotator.
type Votes = BTreeMap<String, BTreeMap<String, f64>>;

/// A person against a judge.
#[derive(Debug, Clone, PartialEq)]
struct Duel {
    human: String,
    /// Comparisons, with whether the judge and whether the person agrees at least as well with the others.
    rows: Vec<(String, bool, bool)>,
    p_value: f64,
}

impl Duel {
    /// The share of comparisons where the judge agrees at least as well.
    fn rho(&self) -> f64 {
        self.judge() as f64 / self.rows.len() as f64
    }

    fn judge(&self) -> u64 {
        self.rows.iter().filter(|row| row.1).count() as u64
    }

    fn person(&self) -> u64 {
        self.rows.iter().filter(|row| row.2).count() as u64
    }
}

impl Measured for AlternativeAnnotator {
    fn inputs(&self) -> Vec<InputPort> {
        vec![InputPort::new("votes", &self.votes, Table::Votes)]
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |wrong: bool, key: &str, text: String| {
            if wrong {
                findings.push(Finding::at(key, text));
            }
        };
        find(
            self.humans.is_empty(),
            "humans",
            "an empty list names nobody; name the people, such as `[humans/*]`".to_owned(),
        );
        let epsilon = self.epsilon;
        find(!(0.0..=1.0).contains(&epsilon), "epsilon", format!("got {epsilon}, wanted a number in [0, 1]"));
        let rate = self.false_discoveries;
        find(!(rate > 0.0 && rate < 1.0), "false_discoveries", format!("got {rate}, wanted a number in (0, 1)"));
        find(self.least_rows < 2, "least_rows", format!("got {}, wanted at least 2", self.least_rows));
        findings
    }

    fn counted(&self) -> &'static [&'static str] {
        &["votes"]
    }

    fn compute(&self, context: &Context<'_>) -> Result<Found> {
        let mut found = Found::default();
        let mut rows = Vec::new();
        let mut people: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let (mut seen, mut read) = (BTreeSet::new(), 0);
        for row in context.rows::<Vote>("votes")? {
            let row = row?;
            read += 1;
            probability("vote", &row.comparison_id, (&row.source_file, row.source_line), row.vote)?;
            let Some(name) = row.annotator.clone() else {
                found.rejects.push(refused(row, "no_annotator", "it names nobody, and the test compares annotators"));
                continue;
            };
            if !seen.insert((row.comparison_id.clone(), name.clone())) {
                found.rejects.push(refused(row, "duplicate", "the same annotator voted on it before"));
                continue;
            }
            if self.is_human(&name) {
                people.entry(row.comparison_id.clone()).or_default().insert(name.clone());
            }
            rows.push((name, row));
        }
        let (mut humans, mut judges) = (Votes::new(), BTreeMap::<String, BTreeMap<String, f64>>::new());
        let mut names = BTreeSet::new();
        for (name, row) in rows {
            let is_human = self.is_human(&name);
            names.extend(is_human.then(|| name.clone()));
            if people.get(&row.comparison_id).map_or(0, BTreeSet::len) < 2 {
                found.rejects.push(refused(row, "no_two_people", "fewer than two people voted on it"));
            } else if is_human {
                humans.entry(row.comparison_id).or_default().insert(name, row.vote);
            } else {
                judges.entry(name).or_default().insert(row.comparison_id, row.vote);
            }
        }
        self.enough(&names, &humans, &judges)?;
        let mut outcome =
            Outcome::default().balance("votes", read, read - found.rejects.len() as u64, found.rejects.len() as u64);
        for (judge, votes) in &judges {
            let duels = self.duels(context, judge, votes, &humans, &names)?;
            let rows = self.figures(judge, &duels);
            for row in &rows[..2] {
                outcome =
                    outcome.headline(&row.metric, row.value, row.low.zip(row.high), format!("at {}", self.epsilon));
            }
            found.figures.extend(rows);
        }
        found.outcome = outcome;
        Ok(found)
    }
}

fn refused(row: Vote, reason: &str, detail: &str) -> Reject {
    Reject {
        input: "votes".to_owned(),
        row_id: row.comparison_id,
        reason: reason.to_owned(),
        detail: detail.to_owned(),
        source_file: row.source_file,
        source_line: row.source_line,
    }
}

impl AlternativeAnnotator {
    fn is_human(&self, name: &str) -> bool {
        self.humans.iter().any(|pattern| kit::fits(pattern, name))
    }

    /// The errors of votes that allow no test.
    fn enough(
        &self,
        names: &BTreeSet<String>,
        humans: &Votes,
        judges: &BTreeMap<String, BTreeMap<String, f64>>,
    ) -> Result<()> {
        let patterns = self.humans.join(", ");
        let known: Vec<&str> = names.iter().map(String::as_str).collect();
        let problem = if names.len() < 2 {
            format!(
                "`humans: [{patterns}]` fits {}, and the test compares a judge with at least two people; see the names in \
                 the column `annotator` of `votes`",
                if known.is_empty() { "nobody".to_owned() } else { format!("`{}` alone", known[0]) }
            )
        } else if humans.is_empty() {
            format!("no comparison has votes of two people: {} never overlap", known.join(", "))
        } else if judges.is_empty() {
            format!(
                "no annotator but people voted on what two people voted on; `humans: [{patterns}]` fits {}, and the others \
                 are the judges",
                known.join(", ")
            )
        } else {
            return Ok(());
        };
        Err(Error::data(problem))
    }

    /// A judge against each person.
    fn duels(
        &self,
        context: &Context<'_>,
        judge: &str,
        votes: &BTreeMap<String, f64>,
        humans: &Votes,
        names: &BTreeSet<String>,
    ) -> Result<Vec<Duel>> {
        let (mut duels, mut few) = (Vec::new(), Vec::new());
        for human in names {
            let rows: Vec<(String, bool, bool)> = humans
                .iter()
                .filter_map(|(comparison, people)| {
                    let (own, judges) = (people.get(human)?, votes.get(comparison)?);
                    let agreeing =
                        |vote: &f64| people.iter().filter(|(other, said)| *other != human && *said == vote).count();
                    let (judges, own) = (agreeing(judges), agreeing(own));
                    Some((comparison.clone(), judges >= own, own >= judges))
                })
                .collect();
            if rows.len() < self.least_rows as usize {
                few.push(format!("`{human}` ({})", rows.len()));
                continue;
            }
            let number = |yes: bool| f64::from(u8::from(yes));
            let differences: Vec<f64> = rows.iter().map(|row| number(row.2) - number(row.1)).collect();
            let p_value = student::below(&differences, self.epsilon);
            duels.push(Duel { human: human.clone(), rows, p_value });
        }
        let least = self.least_rows;
        if duels.is_empty() {
            return Err(Error::data(format!(
                "nobody shares {least} comparisons with `{judge}` and another person: {}; more votes are needed, or a lower \
                 `least_rows`",
                few.join(", ")
            )));
        }
        if !few.is_empty() {
            context.warn(format!(
                "`{judge}` is not compared with {}: fewer than {least} comparisons in common (`least_rows`)",
                few.join(", ")
            ));
        }
        Ok(duels)
    }

    fn figures(&self, judge: &str, duels: &[Duel]) -> Vec<SummaryRow> {
        let (people, epsilon) = (duels.len() as u64, self.epsilon);
        let p_values: Vec<f64> = duels.iter().map(|duel| duel.p_value).collect();
        let beaten = discoveries(&p_values, self.false_discoveries);
        let omega = beaten as f64 / people as f64;
        let passes = if omega >= 0.5 { "passes" } else { "does not pass" };
        let note = format!("share of {people} people beaten at epsilon = {epsilon}; it {passes} (from 1/2 on)");
        let (rho, interval) = advantage(duels);
        let comparisons: BTreeSet<&str> = duels.iter().flat_map(|duel| &duel.rows).map(|row| row.0.as_str()).collect();
        let mut rows = vec![
            figure(format!("omega/{judge}"), omega, None, people, note),
            figure(
                format!("rho/{judge}"),
                rho,
                interval,
                comparisons.len() as u64,
                "share of comparisons where it agrees with the other people at least as well as the person left out, \
                 mean over people; normal interval over comparisons",
            ),
        ];
        for duel in duels {
            let (name, n) = (format!("{judge}/{}", duel.human), duel.rows.len() as u64);
            let of = |yes: u64| share(yes, n).expect("a duel has rows");
            let (judge, person) = (of(duel.judge()), of(duel.person()));
            let note = "comparisons where the judge agrees at least as well; Wilson interval";
            rows.push(figure(format!("rho/{name}"), judge.value, judge.interval, n, note));
            let note = "comparisons where the person agrees at least as well; Wilson interval";
            rows.push(figure(format!("person/{name}"), person.value, person.interval, n, note));
            let note = format!("of the test that the person's advantage is below {epsilon}");
            rows.push(figure(format!("p_value/{name}"), duel.p_value, None, n, note));
        }
        rows
    }
}

/// The mean of the persons' rho, and its normal interval: comparisons are drawn, and one that several persons share
/// counts for each of them.
fn advantage(duels: &[Duel]) -> (f64, Option<(f64, f64)>) {
    let people = duels.len() as f64;
    let rho = duels.iter().map(Duel::rho).sum::<f64>() / people;
    let mut pulls: BTreeMap<&str, f64> = BTreeMap::new();
    for duel in duels {
        let (own, rows) = (duel.rho(), duel.rows.len() as f64);
        for (comparison, judge, _) in &duel.rows {
            *pulls.entry(comparison).or_default() += (f64::from(u8::from(*judge)) - own) / (people * rows);
        }
    }
    let n = pulls.len() as f64;
    let half = Z * (pulls.values().map(|pull| pull * pull).sum::<f64>() * n / (n - 1.0)).sqrt();
    (rho, (n > 1.0).then(|| ((rho - half).max(0.0), (rho + half).min(1.0))))
}

/// How many of these tests Benjamini and Yekutieli's procedure rejects: the largest i whose i-th smallest p-value is at
/// most i rate / (m (1 + 1/2 + ... + 1/m)).
fn discoveries(p_values: &[f64], rate: f64) -> usize {
    let m = p_values.len();
    let harmonic: f64 = (1..=m).map(|i| 1.0 / i as f64).sum();
    let mut sorted = p_values.to_vec();
    sorted.sort_by(f64::total_cmp);
    (1..=m).rev().find(|i| sorted[i - 1] <= *i as f64 * rate / (m as f64 * harmonic)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_procedure_steps_up() {
        // m = 3: thresholds i 0.05 / (3 * 11/6) = 0.00909, 0.01818, 0.02727.
        assert_eq!(discoveries(&[0.02, 0.5, 0.001], 0.05), 1);
        // The largest is small enough, so all are rejected, the second above its own threshold too.
        assert_eq!(discoveries(&[0.02, 0.027, 0.001], 0.05), 3);
        assert_eq!(discoveries(&[0.02, 0.03, 0.01], 0.05), 0);
        assert_eq!(discoveries(&[0.04], 0.05), 1);
    }

    #[test]
    fn the_interval_of_rho_counts_a_comparison_once() {
        let rows = |shift: usize| {
            (0..40).map(move |at| (format!("c{}", at + shift), at % 4 != 0, at % 2 == 0)).collect::<Vec<_>>()
        };
        let duel = |human: &str, shift| Duel { human: human.to_owned(), rows: rows(shift), p_value: 0.5 };
        let width = |duels: &[Duel]| {
            let (rho, interval) = advantage(duels);
            assert!((rho - 0.75).abs() < 1e-12);
            interval.map(|(low, high)| high - low).unwrap()
        };
        // One person: that of a mean of 40 values.
        let one = width(&[duel("anna", 0)]);
        assert!((one - 2.0 * Z * (0.75f64 * 0.25 / 39.0).sqrt()).abs() < 1e-12, "{one}");
        // Two persons on the same comparisons say no more; on others they do.
        assert!((width(&[duel("anna", 0), duel("ben", 0)]) - one).abs() < 1e-12);
        let apart = width(&[duel("anna", 0), duel("ben", 40)]);
        assert!((apart - 2.0 * Z * (0.75f64 * 0.25 / 79.0).sqrt()).abs() < 1e-12, "{apart}");
    }
}
