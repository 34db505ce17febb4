//! The comparisons, and the votes of each source on them.

use std::collections::{BTreeMap, BTreeSet};

use kit::rows::{ComparedResponses, Message, Reject, VerdictLabels, VerdictResponses, Vote};
use kit::{Context, Error, Result, RowReader, Sides, SidesIndex};

use crate::config::Jury;

/// The vote of a source on a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Ballot {
    /// Its number among the sources; nothing for votes without a name.
    pub source: Option<usize>,
    /// P(a better) by it.
    pub vote: f64,
    /// The log-odds of that, where they are known without being cut.
    pub log_odds: Option<f64>,
    /// Votes that it stands for, above 0.
    pub weight: f64,
}

impl Ballot {
    /// The side that it prefers, as a vote: 1, 1/2 or 0.
    pub fn side(&self) -> f64 {
        match self.vote.total_cmp(&0.5) {
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Less => 0.0,
        }
    }
}

/// All that was read.
#[derive(Debug, Default)]
pub struct Bench {
    /// The comparisons.
    pub index: SidesIndex,
    /// The votes on each.
    pub ballots: Vec<Vec<Ballot>>,
    /// The prompts of each comparison, of a and of b.
    pub prompts: Vec<[String; 2]>,
    /// Characters of the response of a less those of b, by comparison.
    pub lengths: Vec<i64>,
    /// The names of the sources, sorted.
    pub sources: Vec<String>,
    /// Rows about no comparison, or of no source.
    pub rejects: Vec<Reject>,
    /// Rows of each input.
    pub read: BTreeMap<&'static str, u64>,
}

/// The input that the comparisons are read from.
pub fn base(stage: &Jury) -> &'static str {
    if stage.comparisons.is_some() { "comparisons" } else { "verdicts" }
}

/// A ballot before the sources have numbers.
struct Said {
    at: usize,
    source: Option<String>,
    vote: f64,
    log_odds: Option<f64>,
    weight: f64,
}

impl Bench {
    /// Reads the inputs.
    ///
    /// # Errors
    /// When they cannot be read, or a vote is no probability.
    pub fn read(stage: &Jury, context: &Context<'_>) -> Result<Bench> {
        let mut bench = Bench::default();
        bench.comparisons(stage, context)?;
        let mut said = Vec::new();
        bench.votes(stage, context, &mut said)?;
        bench.verdicts(stage, context, &mut said)?;
        let names: BTreeSet<&String> = said.iter().filter_map(|it| it.source.as_ref()).collect();
        bench.sources = names.into_iter().cloned().collect();
        bench.ballots = vec![Vec::new(); bench.index.len()];
        for it in said {
            let number = |name: String| bench.sources.binary_search(&name).expect("all names were gathered");
            let source = it.source.map(number);
            bench.ballots[it.at].push(Ballot { source, vote: it.vote, log_odds: it.log_odds, weight: it.weight });
        }
        // The order of rows does not matter.
        for ballots in &mut bench.ballots {
            ballots.sort_by(|one, other| {
                one.source
                    .cmp(&other.source)
                    .then(one.vote.total_cmp(&other.vote))
                    .then(one.weight.total_cmp(&other.weight))
            });
        }
        Ok(bench)
    }

    fn comparisons(&mut self, stage: &Jury, context: &Context<'_>) -> Result<()> {
        let base = base(stage);
        for row in context.rows::<ComparedResponses>(base)? {
            let row = row?;
            let sides = Sides::from(&row);
            // Several judges' tables hold the same comparisons.
            let known = base == "verdicts" && self.index.find(Some(&row.comparison_id), &sides).is_some();
            if !known && self.index.by_id(&row.comparison_id).is_none() {
                self.index.add(&row.comparison_id, sides);
                self.lengths.push(characters(&row.a_response) - characters(&row.b_response));
                self.prompts.push([row.a_prompt_id, row.b_prompt_id]);
            } else if base == "comparisons" {
                let detail = "an earlier row has this comparison's id".to_owned();
                self.reject(base, row.comparison_id, "duplicate", detail, (row.source_file, row.source_line));
            }
            if base == "comparisons" {
                *self.read.entry(base).or_insert(0) += 1;
            }
        }
        Ok(())
    }

    fn votes(&mut self, stage: &Jury, context: &Context<'_>, said: &mut Vec<Said>) -> Result<()> {
        if stage.votes.is_none() {
            return Ok(());
        }
        for row in context.rows::<Vote>("votes")? {
            let row = row?;
            *self.read.entry("votes").or_insert(0) += 1;
            let place = (row.source_file, row.source_line);
            if !(0.0..=1.0).contains(&row.vote) {
                return Err(wrong("vote", &row.comparison_id, &place, row.vote, "a vote in [0, 1]"));
            }
            if !(row.weight >= 0.0 && row.weight.is_finite()) {
                return Err(wrong("weight", &row.comparison_id, &place, row.weight, "a weight of at least 0"));
            }
            if let Some(z) = row.log_odds.filter(|z| z.is_nan()) {
                return Err(wrong("log_odds", &row.comparison_id, &place, z, "a number"));
            }
            let name = row.annotator.clone().unwrap_or_default();
            if !listened_to(stage, &name) {
                let detail = format!("`only` does not name `{name}`");
                self.reject("votes", row.comparison_id, "not_asked", detail, place);
                continue;
            }
            let Some(at) = self.index.by_id(&row.comparison_id) else {
                let detail = format!("no row of `{}` has this comparison's id", base(stage));
                self.reject("votes", row.comparison_id, "no_comparison", detail, place);
                continue;
            };
            if row.weight > 0.0 {
                let Vote { annotator: source, vote, log_odds, weight, .. } = row;
                said.push(Said { at, source, vote, log_odds, weight });
            }
        }
        Ok(())
    }

    fn verdicts(&mut self, stage: &Jury, context: &Context<'_>, said: &mut Vec<Said>) -> Result<()> {
        for source in context.sources("verdicts") {
            let responses = RowReader::<VerdictResponses>::open(&[&source.path])?;
            for (row, responses) in RowReader::<VerdictLabels>::open(&[&source.path])?.zip(responses) {
                let (row, responses) = (row?, responses?);
                *self.read.entry("verdicts").or_insert(0) += 1;
                let place = (row.source_file.clone(), row.source_line);
                if !(0.0..=1.0).contains(&row.p_hat) {
                    return Err(wrong("p_hat", &row.comparison_id, &place, row.p_hat, "a probability"));
                }
                if let Some(z) = row.log_odds.filter(|z| z.is_nan()) {
                    return Err(wrong("log_odds", &row.comparison_id, &place, z, "a number"));
                }
                if !listened_to(stage, &source.name) {
                    let detail = format!("`only` does not name `{}`", source.name);
                    self.reject("verdicts", row.comparison_id, "not_asked", detail, place);
                    continue;
                }
                let sides = Sides::of(&row, Some(&responses));
                let Some((at, turned)) = self.index.find(Some(&row.comparison_id), &sides) else {
                    let detail = "no comparison has this id with the same sides, or the ids of both sides".to_owned();
                    self.reject("verdicts", row.comparison_id, "no_comparison", detail, place);
                    continue;
                };
                let vote = if turned { 1.0 - row.p_hat } else { row.p_hat };
                let log_odds = row.log_odds.map(|z| if turned { -z } else { z });
                said.push(Said { at, source: Some(source.name.clone()), vote, log_odds, weight: 1.0 });
            }
        }
        Ok(())
    }

    /// Takes note of a row that is left out.
    pub fn reject(
        &mut self,
        input: &str,
        row_id: String,
        reason: &str,
        detail: String,
        (source_file, source_line): (Option<String>, Option<u64>),
    ) {
        let (input, reason) = (input.to_owned(), reason.to_owned());
        self.rejects.push(Reject { input, row_id, reason, detail, source_file, source_line });
    }
}

fn characters(messages: &[Message]) -> i64 {
    messages.iter().map(|message| message.text().chars().count() as i64).sum()
}

/// A value that cannot be, with its place.
pub fn wrong(column: &str, id: &str, (file, line): &(Option<String>, Option<u64>), got: f64, wanted: &str) -> Error {
    let place = file.as_ref().map(|file| line.map_or(file.clone(), |line| format!("{file}:{line}")));
    let place = place.map_or(String::new(), |place| format!(" ({place})"));
    Error::data(format!("comparison `{id}`{place}: `{column}` is {got}, wanted {wanted}"))
}

fn listened_to(stage: &Jury, name: &str) -> bool {
    stage.only.as_ref().is_none_or(|only| only.iter().any(|pattern| kit::fits(pattern, name)))
}
