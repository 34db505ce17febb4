//! Keys of rows, from which the masks of dropout follow.
//!
//! A row's key is a function of the seed, the step and the tokens up to the row: sequences that begin alike share keys
//! as they share rows, and the cut into micro-batches and a second computation change nothing.

use crate::model::forest::Forest;
use crate::random::{fnv, mix};

/// A key for each of some rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowKeys(pub Vec<u64>);

impl RowKeys {
    /// The keys of all rows of a forest in a step.
    pub fn of(forest: &Forest, seed: u64, step: u64) -> RowKeys {
        let root = mix(mix(seed ^ fnv("dropout")) ^ mix(step));
        let mut keys = vec![0; forest.ids.len()];
        // Parents stand before their children.
        for segment in &forest.segments {
            let mut key = segment.above.last().map_or(root, |span| keys[span.row + span.len - 1]);
            let own = segment.own.row..segment.own.row + segment.own.len;
            for (row, id) in keys[own.clone()].iter_mut().zip(&forest.ids[own]) {
                key = mix(key ^ mix(u64::from(*id) + 1));
                *row = key;
            }
        }
        RowKeys(keys)
    }

    /// Those of some rows.
    pub fn taken(&self, rows: &[u32]) -> RowKeys {
        RowKeys(rows.iter().map(|&row| self.0[row as usize]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sequence;
    use crate::model::forest::{Want, forests};
    use std::collections::BTreeMap;

    /// Key and tokens up to each row, of sequences packed with a budget.
    fn keys(texts: &[&[u32]], budget: usize, seed: u64, step: u64) -> BTreeMap<Vec<u32>, u64> {
        let sequences: Vec<Sequence> = texts.iter().map(|ids| Sequence::new(ids.to_vec(), 1)).collect();
        let refs: Vec<&Sequence> = sequences.iter().collect();
        let mut all = BTreeMap::new();
        for forest in forests(&refs, Want::States, 100, budget).unwrap() {
            let keys = RowKeys::of(&forest, seed, step);
            for row in 0..forest.ids.len() {
                let ids: Vec<u32> = forest.path_rows(row).iter().map(|&row| forest.ids[row as usize]).collect();
                let known = *all.entry(ids).or_insert(keys.0[row]);
                assert_eq!(known, keys.0[row]);
            }
        }
        all
    }

    #[test]
    fn keys_follow_from_the_tokens_alone() {
        let texts: [&[u32]; 5] = [&[1, 2, 3, 4, 5], &[1, 2, 3, 9], &[1, 2, 8], &[7, 7, 7], &[1, 2, 3, 4, 6]];
        let together = keys(&texts, 1000, 3, 1);
        assert_eq!(together.len(), 11);
        for budget in [1, 4, 7] {
            assert_eq!(keys(&texts, budget, 3, 1), together);
        }
        for text in texts {
            for (ids, key) in keys(&[text], 1000, 3, 1) {
                assert_eq!(together[&ids], key);
            }
        }
        let mut distinct: Vec<u64> = together.values().copied().collect();
        for (seed, step) in [(3, 2), (4, 1)] {
            distinct.extend(keys(&texts, 1000, seed, step).values());
        }
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 33, "rows, steps and seeds have keys of their own");
    }
}
