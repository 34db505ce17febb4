//! Folds by prompt: the rows that a fit may learn from.

use std::collections::{BTreeSet, HashMap};

use kit::Seed;

use crate::config::Deal;

/// The fold of each prompt that has a gold label.
pub struct Folds {
    of: HashMap<String, u32>,
}

impl Folds {
    /// Deals prompts out evenly: in an order drawn from seed and id alone, or as they come. A prompt may come again.
    pub fn deal<'a>(prompts: impl Iterator<Item = &'a str>, folds: u32, deal: Deal, seed: Seed) -> Folds {
        let mut seen = BTreeSet::new();
        let mut prompts: Vec<&str> = prompts.filter(|prompt| seen.insert(*prompt)).collect();
        if deal == Deal::Drawn {
            prompts.sort_by_cached_key(|prompt| (seed.derive("calibrate", prompt, 0), prompt.to_owned()));
        }
        let dealt = prompts.into_iter().zip((0..folds).cycle());
        Folds { of: dealt.map(|(prompt, fold)| (prompt.to_owned(), fold)).collect() }
    }

    /// How many prompts were dealt.
    pub fn prompts(&self) -> usize {
        self.of.len()
    }

    /// The folds of a row's prompts: what must be left out of the fit that corrects it. None where no gold label is of
    /// either prompt.
    pub fn of(&self, a_prompt: &str, b_prompt: &str) -> BTreeSet<u32> {
        [a_prompt, b_prompt].into_iter().filter_map(|prompt| self.of.get(prompt).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_turn_goes_by_first_appearance() {
        let folds = Folds::deal(["b", "a", "b", "c", "d"].into_iter(), 3, Deal::InTurn, Seed(1));
        assert_eq!(folds.prompts(), 4);
        for (prompt, fold) in [("b", 0), ("a", 1), ("c", 2), ("d", 0)] {
            assert_eq!(folds.of(prompt, prompt), BTreeSet::from([fold]), "{prompt}");
        }
        assert_eq!(folds.of("a", "c"), BTreeSet::from([1, 2]));
        assert!(folds.of("x", "x").is_empty());
    }
}
