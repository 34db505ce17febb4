//! Which rows may teach which: folds by prompt.

use std::collections::{BTreeMap, BTreeSet};

use kit::Seed;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How prompts come to their folds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deal {
    /// In an order drawn from the seed and their ids, evenly.
    #[default]
    Drawn,
    /// In the order of the comparisons, one after the other: the prompt that comes as number i is in fold i mod
    /// `folds`.
    InTurn,
}

/// The fold of each prompt that has a gold label.
#[derive(Debug)]
pub struct Folds(BTreeMap<String, u32>);

impl Folds {
    /// Deals prompts out; they are given in the order of the comparisons, each once.
    pub fn deal(mut prompts: Vec<String>, folds: u32, deal: Deal, seed: Seed) -> Folds {
        if deal == Deal::Drawn {
            prompts.sort_by_cached_key(|prompt| (seed.derive("jury", prompt, 0), prompt.clone()));
        }
        Folds(prompts.into_iter().zip((0..folds).cycle()).collect())
    }

    /// The folds of a row's prompts: what has to be left out of the fit that speaks about it. None where no gold label
    /// is of either prompt.
    pub fn of(&self, prompts: [&str; 2]) -> BTreeSet<u32> {
        prompts.into_iter().filter_map(|prompt| self.0.get(prompt).copied()).collect()
    }
}

/// A fit as tables name it: `all`, or the folds that it has not seen.
pub fn name_of(left_out: &BTreeSet<u32>) -> String {
    if left_out.is_empty() {
        return "all".to_owned();
    }
    let folds: Vec<String> = left_out.iter().map(|fold| (fold + 1).to_string()).collect();
    format!("without fold {}", folds.join(" and "))
}
