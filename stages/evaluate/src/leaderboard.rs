//! `measure: leaderboard`: win rates of many models against one baseline.

use std::collections::BTreeMap;

use kit::rows::{LeaderboardRow, Reject, SizedVote, SummaryRow, VerdictLabels, VerdictResponses};
use kit::{Context, Error, Finding, Input, InputPort, Outcome, OutputPort, Result, RowReader, Table, Z};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::games::{Game, Games};
use crate::interval::{Estimate, mean};
use crate::length::{Controlled, lengths, ridge_finding};
use crate::measured::{Found, Measured, figure};
use crate::sides::{self, Side, Sides, policys, probability, reject};

/// Headlines of so many models, the first ones.
const SHOWN: usize = 6;

/// Ranks models by their win rates against one baseline, with paired intervals of the differences between them.
///
/// What was judged stands in `votes` (the annotator is the model, the comparison's id is the item), or in one table of
/// `verdicts` for each model (an item is a prompt). Several verdicts of a model on one item are averaged first. The
/// table `leaderboard` has a row for each model, `summary` also the difference of every two.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Leaderboard {
    /// Votes on each model's response against the baseline's, as `ingest` makes them: `annotator` is the model. Needs
    /// `policy_side`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<Input>,
    /// Verdicts on each model's responses against the baseline's: one table for each model, named by `names`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdicts: Option<Input>,
    /// A name for each table of `verdicts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The baseline's `responses`: of each verdict the side that is not among them is the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Input>,
    /// The side of all votes or verdicts that is the model's, `a` or `b`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_side: Option<Side>,
    /// With it each model also gets a length-controlled win rate, as `measure: length_controlled_win_rate` has it: the
    /// ridge on the factor of length, at least 0. `votes` need lengths for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_ridge: Option<f64>,
}

/// The items of a model, by name.
type Items = BTreeMap<String, Game>;

/// All models and the rows that were read.
#[derive(Default)]
struct Reading {
    models: BTreeMap<String, Games>,
    rejects: Vec<Reject>,
    read: u64,
}

impl Measured for Leaderboard {
    fn inputs(&self) -> Vec<InputPort> {
        let votes = self.votes.iter().map(|from| {
            let port = InputPort::new("votes", from, Table::Votes);
            let fix =
                "let `ingest` read the lengths, `columns: {length_0: ..., length_1: ...}`, or leave `length_ridge` out";
            if self.length_ridge.is_some() { port.needs("length_a").needs("length_b").fixed_by(fix) } else { port }
        });
        let verdicts = self.verdicts.iter().map(|from| InputPort::new("verdicts", from, Table::Verdicts));
        let baseline = self.baseline.iter().map(|from| InputPort::new("baseline", from, Table::Responses));
        votes.chain(verdicts).chain(baseline).collect()
    }

    fn outputs(&self) -> Vec<OutputPort> {
        vec![OutputPort::new(Table::Leaderboard)]
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |key: &str, text: String| findings.push(Finding::at(key, text));
        match (&self.votes, &self.verdicts) {
            (None, None) => find("", "needs `votes`, or `verdicts` with `names`".to_owned()),
            (Some(_), Some(_)) => find("verdicts", "without effect: `votes` say who won".to_owned()),
            _ => {}
        }
        if self.votes.is_some() {
            if self.policy_side.is_none() {
                find(
                    "votes",
                    "needs `policy_side`, the side that is the model's: `a` where the vote is P(it is better)"
                        .to_owned(),
                );
            }
            for (key, given) in [("names", !self.names.is_empty()), ("baseline", self.baseline.is_some())] {
                if given {
                    find(
                        key,
                        "without effect: `votes` name the models themselves, and `policy_side` their side".to_owned(),
                    );
                }
            }
        }
        if let (Some(verdicts), None) = (&self.verdicts, &self.votes) {
            let (tables, names) = (verdicts.0.len(), self.names.len());
            if tables != names {
                let key = if names == 0 { "verdicts" } else { "names" };
                find(key, format!("{tables} tables and {names} names in `names`; give each table a name"));
            } else if tables < 2 {
                find(
                    "verdicts",
                    "one model has no others to be ranked among; give a table of verdicts for each".to_owned(),
                );
            }
            let mut names = self.names.clone();
            names.sort();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                find("names", "a name stands twice".to_owned());
            }
            findings.extend(sides::findings(self.baseline.as_ref(), self.policy_side));
        }
        findings.extend(self.length_ridge.and_then(|ridge| ridge_finding("length_ridge", ridge)));
        findings
    }

    fn counted(&self) -> &'static [&'static str] {
        &["votes", "verdicts"]
    }

    fn compute(&self, context: &Context<'_>) -> Result<Found> {
        let input = if self.votes.is_some() { "votes" } else { "verdicts" };
        let reading = if self.votes.is_some() { self.votes(context)? } else { self.verdicts(context)? };
        let Reading { models, rejects, read } = reading;
        let models: Vec<(String, Items)> = models.into_iter().map(|(name, games)| (name, games.finish())).collect();
        let models: Vec<(String, Items)> = models.into_iter().filter(|(_, items)| !items.is_empty()).collect();
        if models.len() < 2 {
            let found = models.first().map_or("none".to_owned(), |(name, _)| format!("`{name}` alone"));
            return Err(Error::data(format!(
                "a leaderboard ranks at least two models, and `{input}` ({read} rows) are on {found}; `annotator` of \
                 votes has to be the model. For one model's win rate leave `measure` out"
            )));
        }
        let (rows, figures) = self.rank(context, &models)?;
        let mut outcome = Outcome::default().balance(input, read, read - rejects.len() as u64, rejects.len() as u64);
        for row in rows.iter().take(SHOWN) {
            let interval = row.low.zip(row.high);
            outcome =
                outcome.headline(format!("win_rate/{}", row.model), row.win_rate, interval, "against the baseline");
        }
        let mut writer = context.writer::<LeaderboardRow>("leaderboard")?;
        writer.extend(rows)?;
        writer.finish()?;
        Ok(Found { figures, rejects, outcome })
    }
}

impl Leaderboard {
    fn votes(&self, context: &Context<'_>) -> Result<Reading> {
        let side = self.policy_side.expect("`votes` without `policy_side` are a finding");
        let mut reading = Reading::default();
        for row in context.rows::<SizedVote>("votes")? {
            let row = row?;
            reading.read += 1;
            let place = (&row.source_file, row.source_line);
            let vote = probability("vote", &row.comparison_id, place, row.vote)?;
            let mut refuse = |reason: &str, detail: &str| {
                reading.rejects.push(Reject {
                    input: "votes".to_owned(),
                    row_id: row.comparison_id.clone(),
                    reason: reason.to_owned(),
                    detail: detail.to_owned(),
                    source_file: row.source_file.clone(),
                    source_line: row.source_line,
                });
            };
            match row.annotator {
                None => refuse("no_annotator", "it names no annotator, which is the model here"),
                Some(_) if !(row.weight > 0.0 && row.weight.is_finite()) => {
                    refuse("no_weight", &format!("its weight is {}, wanted a number above 0", row.weight));
                }
                Some(model) => {
                    let lengths = row.length_a.zip(row.length_b);
                    let (win, lengths) = match side {
                        Side::A => (vote, lengths.map(|(a, b)| [a, b])),
                        Side::B => (1.0 - vote, lengths.map(|(a, b)| [b, a])),
                    };
                    reading.models.entry(model).or_default().add(row.comparison_id, win, row.weight, lengths);
                }
            }
        }
        Ok(reading)
    }

    fn verdicts(&self, context: &Context<'_>) -> Result<Reading> {
        let sides = Sides::read(context, self.policy_side)?;
        let mut reading = Reading::default();
        for (name, source) in self.names.iter().zip(context.sources("verdicts")) {
            let games = reading.models.entry(name.clone()).or_default();
            let responses = RowReader::<VerdictResponses>::open(&[&source.path])?;
            for (row, responses) in RowReader::<VerdictLabels>::open(&[&source.path])?.zip(responses) {
                let (row, responses) = (row?, responses?);
                reading.read += 1;
                match sides.of(&row) {
                    Ok(side) => {
                        let (win, lengths) = (policys(&row, side)?, lengths(&responses, side));
                        games.add(row.a_prompt_id, win, 1.0, Some(lengths));
                    }
                    Err(why) => reading.rejects.push(reject(row, "side_unclear", why)),
                }
            }
        }
        Ok(reading)
    }

    /// The rows by rank, and the figures.
    fn rank(
        &self,
        context: &Context<'_>,
        models: &[(String, Items)],
    ) -> Result<(Vec<LeaderboardRow>, Vec<SummaryRow>)> {
        let mut ranked: Vec<(Estimate, &str, &Items)> = Vec::new();
        for (name, items) in models {
            let wins: Vec<f64> = items.values().map(|game| game.win).collect();
            ranked.push((mean(&wins).expect("models without items were left out"), name, items));
        }
        // The names decide between equal win rates.
        ranked.sort_by(|one, other| other.0.value.total_cmp(&one.0.value).then(one.1.cmp(other.1)));
        let first = ranked[0].2;
        let mut rows = Vec::new();
        for (place, (estimate, name, items)) in ranked.iter().enumerate() {
            let games: Vec<Game> = items.values().copied().collect();
            let difference = if place > 0 { paired(items, first) } else { None };
            let mut row = row(place, name, estimate, &games, difference);
            if let Some(ridge) = self.length_ridge {
                let controlled = Controlled::of(&games, ridge);
                if controlled.is_none() {
                    context.warn(format!(
                        "`{name}` has no length-controlled win rate: some of its items lack lengths, or the fit has no \
                         optimum, as where all are won or lost"
                    ));
                }
                row.length_controlled = controlled.map(|it| it.win_rate());
                row.length_controlled_low = controlled.map(|it| it.interval().0);
                row.length_controlled_high = controlled.map(|it| it.interval().1);
            }
            rows.push(row);
        }
        let mut figures = figures(&rows);
        for (place, (_, high, items)) in ranked.iter().enumerate() {
            for (_, low, others) in &ranked[place + 1..] {
                match paired(items, others) {
                    Some(it) => figures.push(figure(
                        format!("difference/{high}-{low}"),
                        it.value,
                        it.interval,
                        it.rows,
                        "mean difference over the items that both have; paired normal interval",
                    )),
                    None => {
                        context.warn(format!("`{high}` and `{low}` have no item in common, so there is no difference"))
                    }
                }
            }
        }
        Ok((rows, figures))
    }
}

/// The mean of the second's win probabilities taken from the first's, over the items that both have.
fn paired(items: &Items, others: &Items) -> Option<Estimate> {
    let differences: Vec<f64> =
        items.iter().filter_map(|(item, game)| Some(game.win - others.get(item)?.win)).collect();
    mean(&differences)
}

fn row(place: usize, name: &str, estimate: &Estimate, games: &[Game], difference: Option<Estimate>) -> LeaderboardRow {
    let count = |wanted: fn(f64) -> bool| games.iter().filter(|game| wanted(game.win)).count() as u64;
    let (wins, draws, losses) = (count(|win| win > 0.5), count(|win| win == 0.5), count(|win| win < 0.5));
    let items = games.len() as f64;
    let lengths: Option<Vec<f64>> = games.iter().map(|game| game.lengths.map(|lengths| lengths[0])).collect();
    LeaderboardRow {
        rank: place as u32 + 1,
        model: name.to_owned(),
        win_rate: estimate.value,
        standard_error: estimate.interval.map(|(low, high)| (high - low) / (2.0 * Z)),
        low: estimate.interval.map(|it| it.0),
        high: estimate.interval.map(|it| it.1),
        discrete_win_rate: (wins as f64 + 0.5 * draws as f64) / items,
        wins,
        draws,
        losses,
        items: games.len() as u64,
        difference: difference.map(|it| it.value),
        difference_low: difference.and_then(|it| it.interval).map(|it| it.0),
        difference_high: difference.and_then(|it| it.interval).map(|it| it.1),
        common: difference.map(|it| it.rows),
        average_length: lengths.map(|lengths| lengths.iter().sum::<f64>() / items),
        length_controlled: None,
        length_controlled_low: None,
        length_controlled_high: None,
    }
}

fn figures(rows: &[LeaderboardRow]) -> Vec<SummaryRow> {
    let mut figures = Vec::new();
    for row in rows {
        let note = "mean probability that its response is better than the baseline's; normal interval";
        figures.push(figure(format!("win_rate/{}", row.model), row.win_rate, row.low.zip(row.high), row.items, note));
    }
    for row in rows {
        let note = "share of items won, draws half";
        figures.push(figure(format!("discrete_win_rate/{}", row.model), row.discrete_win_rate, None, row.items, note));
    }
    for row in rows {
        let Some(value) = row.length_controlled else { continue };
        let interval = row.length_controlled_low.zip(row.length_controlled_high);
        let note = "P(its response is better) at equal lengths; normal interval in log-odds";
        figures.push(figure(format!("length_controlled_win_rate/{}", row.model), value, interval, row.items, note));
    }
    figures
}
