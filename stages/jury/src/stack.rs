//! A logistic fit of gold labels to what the sources say, in log-odds.
//!
//! log-odds(a better) = sum over sources w_s z_s + w_length x + w_position. A source that says nothing of a comparison
//! adds nothing to it. The term of length takes up a liking for long responses, that of position one for the side that
//! stands first in the table; what is to be removed is in the fit and not in the answer.

use std::collections::{BTreeMap, BTreeSet};

use kit::probability::sigmoid;
use kit::{Error, Result};

use crate::bench::Bench;
use crate::config::{Jury, Term};
use crate::folds::{Folds, name_of};
use crate::logistic::{Fit, fit};
use crate::share::by_source;

/// The columns of each comparison: one for each source, then those of the terms.
#[derive(Debug)]
pub struct Evidence {
    /// The names of the columns.
    pub names: Vec<String>,
    rows: Vec<Vec<f64>>,
    ridge: Vec<f64>,
    /// Columns that are not in the answer.
    removed: Vec<bool>,
}

/// The answers of the fits for a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Stacked {
    /// Log-odds without the removed terms.
    pub log_odds: f64,
    /// P(a better) with them.
    pub unadjusted: f64,
    /// The fit's name.
    pub fit: String,
}

impl Evidence {
    /// Gathers it. The differences in length are in characters.
    pub fn of(stage: &Jury, bench: &Bench) -> Evidence {
        let width = bench.sources.len();
        let mut rows = vec![vec![0.0; width]; bench.ballots.len()];
        for (row, ballots) in rows.iter_mut().zip(&bench.ballots) {
            for (source, _, z) in by_source(ballots) {
                row[source.expect("all votes have names")] = z;
            }
        }
        let ridge = stage.ridge.unwrap_or(0.0);
        let mut evidence =
            Evidence { names: bench.sources.clone(), rows, ridge: vec![ridge; width], removed: vec![false; width] };
        if let Some(term) = stage.length {
            let lengths: Vec<f64> = bench.lengths.iter().map(|length| *length as f64).collect();
            let spread = (lengths.iter().map(|it| it * it).sum::<f64>() / lengths.len() as f64).sqrt();
            let column = lengths.iter().map(|it| if spread > 0.0 { (it / spread).tanh() } else { 0.0 });
            evidence.add("(length)", column.collect(), ridge, term);
        }
        if let Some(term) = stage.position {
            evidence.add("(position)", vec![1.0; bench.ballots.len()], 0.0, term);
        }
        evidence
    }

    fn add(&mut self, name: &str, column: Vec<f64>, ridge: f64, term: Term) {
        self.names.push(name.to_owned());
        self.rows.iter_mut().zip(column).for_each(|(row, value)| row.push(value));
        self.ridge.push(ridge);
        self.removed.push(term == Term::Remove);
    }

    /// The same without a column.
    fn without(&self, column: usize) -> Evidence {
        let drop = |values: &[f64]| {
            let kept = values.iter().enumerate().filter(|(at, _)| *at != column);
            kept.map(|(_, value)| *value).collect::<Vec<f64>>()
        };
        Evidence {
            names: Vec::new(),
            rows: self.rows.iter().map(|row| drop(row)).collect(),
            ridge: drop(&self.ridge),
            removed: (0..self.removed.len()).filter(|at| *at != column).map(|at| self.removed[at]).collect(),
        }
    }

    /// Log-odds without the removed terms, and with them.
    fn says(&self, at: usize, fit: &Fit) -> (f64, f64) {
        let row = &self.rows[at];
        let terms = row.iter().zip(&fit.factors).zip(&self.removed);
        let kept = terms.filter(|(_, removed)| !**removed).map(|((value, factor), _)| value * factor).sum();
        (kept, fit.log_odds(row))
    }
}

/// The fits, by the folds of prompts that they have not seen.
pub struct Stack<'a> {
    evidence: Evidence,
    gold: &'a [Option<f64>],
    prompts: &'a [[String; 2]],
    folds: &'a Folds,
    /// The fits that were made.
    pub made: BTreeMap<BTreeSet<u32>, Fit>,
}

impl<'a> Stack<'a> {
    /// No fit yet.
    pub fn new(evidence: Evidence, gold: &'a [Option<f64>], prompts: &'a [[String; 2]], folds: &'a Folds) -> Stack<'a> {
        Stack { evidence, gold, prompts, folds, made: BTreeMap::new() }
    }

    /// The joint answer of the sources for a comparison, by a fit that saw no gold label of its prompts.
    ///
    /// # Errors
    /// When no gold label is left to fit.
    pub fn of(&mut self, at: usize) -> Result<Stacked> {
        let left_out = self.left_out(at);
        let fit = self.prepared(&left_out)?.clone();
        let (log_odds, with) = self.evidence.says(at, &fit);
        Ok(Stacked { log_odds, unadjusted: sigmoid(with), fit: name_of(&left_out) })
    }

    fn left_out(&self, at: usize) -> BTreeSet<u32> {
        let [a, b] = &self.prompts[at];
        self.folds.of([a, b])
    }

    /// The fit to all gold labels but those of some folds.
    ///
    /// # Errors
    /// When none is left.
    pub fn prepared(&mut self, left_out: &BTreeSet<u32>) -> Result<&Fit> {
        if !self.made.contains_key(left_out) {
            let mut rows: Vec<&[f64]> = Vec::new();
            let mut targets = Vec::new();
            for (at, gold) in self.gold.iter().enumerate() {
                if let Some(gold) = gold
                    && self.left_out(at).is_disjoint(left_out)
                {
                    rows.push(&self.evidence.rows[at]);
                    targets.push(*gold);
                }
            }
            if rows.is_empty() {
                return Err(Error::data(format!(
                    "no gold label is left to fit without the prompts of {}; label comparisons of more prompts",
                    name_of(left_out)
                )));
            }
            let found = fit(&rows, &targets, &self.evidence.ridge);
            self.made.insert(left_out.clone(), found);
        }
        Ok(&self.made[left_out])
    }

    /// The names of the columns.
    pub fn names(&self) -> &[String] {
        &self.evidence.names
    }

    /// The log-odds of the comparisons with gold labels where a column is left out of the fits.
    ///
    /// # Errors
    /// As [`Stack::of`].
    pub fn without(&self, column: usize) -> Result<Vec<f64>> {
        let mut rest = Stack::new(self.evidence.without(column), self.gold, self.prompts, self.folds);
        let known = (0..self.gold.len()).filter(|at| self.gold[*at].is_some());
        known.map(|at| rest.of(at).map(|it| it.log_odds)).collect()
    }
}
