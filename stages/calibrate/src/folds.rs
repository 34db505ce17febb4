//! Folds by prompt: the rows that a fit may learn from.

use std::collections::{BTreeMap, BTreeSet};

use kit::Seed;

/// The fold of each prompt that has a gold label.
pub struct Folds {
    of: BTreeMap<String, u32>,
}

impl Folds {
    /// Deals prompts out evenly, in an order drawn from seed and id alone.
    pub fn deal(prompts: BTreeSet<String>, folds: u32, seed: Seed) -> Folds {
        let mut drawn: Vec<(u64, String)> =
            prompts.into_iter().map(|prompt| (seed.derive("calibrate", &prompt, 0), prompt)).collect();
        drawn.sort();
        Folds { of: drawn.into_iter().zip((0..folds).cycle()).map(|((_, prompt), fold)| (prompt, fold)).collect() }
    }

    /// The folds of a row's prompts: what must be left out of the fit that corrects it. None where no gold label is of
    /// either prompt.
    pub fn of(&self, a_prompt: &str, b_prompt: &str) -> BTreeSet<u32> {
        [a_prompt, b_prompt].into_iter().filter_map(|prompt| self.of.get(prompt).copied()).collect()
    }
}
