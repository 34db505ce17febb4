//! The fits: to all gold labels, and without those of some folds of prompts.

use std::collections::{BTreeMap, BTreeSet};

use kit::{Error, Result};

use crate::fit::{Fit, Method, Observation};
use crate::folds::Folds;

/// The fits, each made on first use.
pub struct Fits {
    method: Method,
    /// The fold of each prompt.
    pub folds: Folds,
    /// The gold labels, each with the folds of its prompts.
    known: Vec<(Observation, BTreeSet<u32>)>,
    made: BTreeMap<BTreeSet<u32>, Made>,
}

/// A fit, and its name in the column `calibrator`.
pub struct Made {
    /// The fit.
    pub fit: Fit,
    /// Its name.
    pub name: String,
}

impl Fits {
    /// Of gold labels, each with both its prompts.
    pub fn new<'a>(method: Method, folds: Folds, known: impl Iterator<Item = (Observation, [&'a str; 2])>) -> Fits {
        let known = known.map(|(observation, [a, b])| (observation, folds.of(a, b))).collect();
        Fits { method, folds, known, made: BTreeMap::new() }
    }

    /// The fit to all gold labels but those of some folds.
    ///
    /// # Errors
    /// When no gold label is left.
    pub fn without(&mut self, left_out: &BTreeSet<u32>) -> Result<&Made> {
        if !self.made.contains_key(left_out) {
            let stays = self.known.iter().filter(|it| it.1.is_disjoint(left_out));
            let rows: Vec<Observation> = stays.map(|it| it.0).collect();
            let name = name_of(left_out);
            if rows.is_empty() {
                return Err(Error::data(format!(
                    "no gold label is left to fit without the prompts of {name}; label joint comparisons of more prompts"
                )));
            }
            self.made.insert(left_out.clone(), Made { fit: Fit::new(self.method, &rows), name });
        }
        Ok(&self.made[left_out])
    }

    /// All that were made, that to all gold labels first.
    pub fn made(&self) -> impl Iterator<Item = &Made> {
        self.made.values()
    }
}

fn name_of(left_out: &BTreeSet<u32>) -> String {
    if left_out.is_empty() {
        return "all".to_owned();
    }
    let folds: Vec<String> = left_out.iter().map(|fold| (fold + 1).to_string()).collect();
    format!("without fold {}", folds.join(" and "))
}
