//! The order of rows in batches.

use std::collections::BTreeMap;

use kit::{Error, Result, Seed};

use crate::config::BatchOptions;
use crate::dataset::{Dataset, Example};

/// The rows in units that stay together (a row, a prompt's rows, a KTO group), and how units fill batches.
pub(crate) struct Order {
    units: Vec<Vec<usize>>,
    size: usize,
    /// True where `size` counts rows (and units may exceed it) rather than units.
    by_rows: bool,
    shuffle: Option<Seed>,
}

impl Order {
    /// The order of a data set; without `shuffle` every pass is in file order.
    pub(crate) fn new(dataset: &Dataset, batch: &BatchOptions, groups: bool, seed: Option<Seed>) -> Result<Order> {
        let rows = 0..dataset.examples.len();
        let mut by_rows = false;
        let (units, size) = match (batch.prompts, batch.pairs.or(batch.items)) {
            (Some(prompts), _) => (gathered(rows, |row| Ok(dataset.examples[row].prompt()))?, prompts),
            (None, Some(size)) if groups => {
                by_rows = true;
                let group = |row: usize| match &dataset.examples[row] {
                    Example::Item { group: Some(group), .. } => Ok(*group),
                    example => Err(Error::data(format!(
                        "`from`: item `{}` has no `kl_group`; the items of kto come from a `pairs` stage that makes \
                         them with mismatched responses",
                        example.id()
                    ))),
                };
                (gathered(rows, group)?, size)
            }
            (None, Some(size)) => (rows.map(|row| vec![row]).collect(), size),
            (None, None) => return Err(Error::Pipeline("`batch` needs `pairs`, `prompts` or `items`".to_owned())),
        };
        Ok(Order { units, size, by_rows, shuffle: seed })
    }

    /// The batches of a pass (from 0), each in the order its rows are seen.
    pub(crate) fn pass(&self, pass: u64) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..self.units.len()).collect();
        if let Some(seed) = self.shuffle {
            // A key for each unit, drawn for this pass; equal keys fall back on the unit's number.
            let purpose = format!("train/pass-{pass}");
            order.sort_by_cached_key(|&unit| (seed.derive(&purpose, "", unit as u64), unit));
        }
        let mut batches = Vec::new();
        let (mut batch, mut units): (Vec<usize>, usize) = (Vec::new(), 0);
        for unit in order {
            batch.extend(&self.units[unit]);
            units += 1;
            if (if self.by_rows { batch.len() } else { units }) >= self.size {
                batches.push(std::mem::take(&mut batch));
                units = 0;
            }
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
        batches
    }
}

/// Rows gathered by a key, in the order of its first row.
fn gathered<K: Ord>(rows: std::ops::Range<usize>, key: impl Fn(usize) -> Result<K>) -> Result<Vec<Vec<usize>>> {
    let mut places = BTreeMap::new();
    let mut units: Vec<Vec<usize>> = Vec::new();
    for row in rows {
        let place = *places.entry(key(row)?).or_insert_with(|| {
            units.push(Vec::new());
            units.len() - 1
        });
        units[place].push(row);
    }
    Ok(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(units: Vec<Vec<usize>>, size: usize, by_rows: bool, shuffle: Option<u64>) -> Order {
        Order { units, size, by_rows, shuffle: shuffle.map(Seed) }
    }

    #[test]
    fn a_pass_sees_every_row_once_and_has_its_own_order() {
        let order = order((0..10).map(|row| vec![row]).collect(), 4, false, Some(3));
        let passes: Vec<_> = (0..3).map(|pass| order.pass(pass)).collect();
        for pass in &passes {
            assert_eq!(pass.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
            let mut rows = pass.concat();
            rows.sort();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
        assert_ne!(passes[0], passes[1]);
        assert_ne!(passes[1], passes[2]);
        assert_eq!(passes[1], order.pass(1));
    }

    #[test]
    fn without_shuffling_rows_come_as_they_stand() {
        assert_eq!(
            order((0..5).map(|row| vec![row]).collect(), 2, false, None).pass(7),
            [vec![0, 1], vec![2, 3], vec![4]]
        );
    }

    #[test]
    fn units_stay_whole() {
        let units = vec![vec![0, 3], vec![1], vec![2, 4, 5]];
        assert_eq!(order(units.clone(), 2, false, None).pass(0), [vec![0, 3, 1], vec![2, 4, 5]]);
        assert_eq!(order(units, 3, true, None).pass(0), [vec![0, 3, 1], vec![2, 4, 5]]);
        assert_eq!(gathered(0..5, |row| Ok(row % 2)).unwrap(), [vec![0, 2, 4], vec![1, 3]]);
    }
}
