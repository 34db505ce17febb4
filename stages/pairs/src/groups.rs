//! Rows with equal keys.

use std::collections::HashMap;

use rayon::prelude::*;

use crate::draw::Key;

/// Rows are parted by the first byte of their keys, so that the tables of keys are small.
const PARTS: usize = 256;

/// For each of some rows the first row that has the same key.
pub(crate) fn first_rows(rows: usize, key: impl Fn(u32) -> Key + Sync) -> Vec<u32> {
    let rows = rows as u32;
    let part = |row: u32| usize::from(key(row).0[0]);
    let mut ends = vec![0; PARTS];
    (0..rows).for_each(|row| ends[part(row)] += 1);
    (1..PARTS).for_each(|part| ends[part] += ends[part - 1]);
    let starts: Vec<usize> = std::iter::once(0).chain(ends.iter().copied()).take(PARTS).collect();
    let mut next = starts.clone();
    // In each part the rows stay in their order.
    let mut order = vec![0; rows as usize];
    for row in 0..rows {
        let next = &mut next[part(row)];
        order[*next] = row;
        *next += 1;
    }
    let seen_before = |part: usize| -> Vec<(u32, u32)> {
        let rows = &order[starts[part]..ends[part]];
        let mut first: HashMap<Key, u32> = HashMap::with_capacity(rows.len());
        let met = rows.iter().map(|&row| (row, *first.entry(key(row)).or_insert(row)));
        met.filter(|(row, first)| row != first).collect()
    };
    let again: Vec<Vec<(u32, u32)>> = (0..PARTS).into_par_iter().map(seen_before).collect();
    let mut first: Vec<u32> = (0..rows).collect();
    again.into_iter().flatten().for_each(|(row, earlier)| first[row as usize] = earlier);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_share_their_first_row() {
        let first_rows = |keys: &[Key]| first_rows(keys.len(), |row| keys[row as usize]);
        let key = |name: &str| Key::made_of(&[name]);
        assert_eq!(first_rows(&[]), Vec::<u32>::new());
        let keys = ["b", "a", "b", "c", "a", "b"].map(key);
        assert_eq!(first_rows(&keys), [0, 1, 0, 3, 1, 0]);
        let many: Vec<_> = (0..5000_u32).map(|row| key(&(row % 700).to_string())).collect();
        assert_eq!(first_rows(&many), (0..5000).map(|row| row % 700).collect::<Vec<_>>());
    }
}
