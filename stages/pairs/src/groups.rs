//! Rows with equal keys, found by polars.

use kit::{Error, Result};
use polars::prelude::{DataFrame, GroupsType, IntoColumn, NamedFrom, Series};

use crate::draw::Key;

/// For each row the first row that has the same key.
///
/// # Errors
/// When polars fails.
pub(crate) fn first_rows(keys: &[Key]) -> Result<Vec<u32>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let internal = |error: polars::prelude::PolarsError| Error::internal(error.to_string());
    let (high, low): (Vec<u64>, Vec<u32>) = keys.iter().map(|key| key.numbers()).unzip();
    let columns = vec![Series::new("high".into(), high).into_column(), Series::new("low".into(), low).into_column()];
    let frame = DataFrame::new(keys.len(), columns).map_err(internal)?;
    let groups = frame.group_by(["high", "low"]).map_err(internal)?.into_groups();
    let mut first = vec![0; keys.len()];
    // The order of the groups depends on the number of threads, what is in them does not.
    let mut settle = |rows: &[u32]| {
        let least = *rows.iter().min().expect("a group has a row");
        rows.iter().for_each(|&row| first[row as usize] = least);
    };
    match groups.as_ref() {
        GroupsType::Idx(groups) => groups.all().iter().for_each(|rows| settle(rows)),
        GroupsType::Slice { groups, .. } => {
            groups.iter().for_each(|&[start, length]| settle(&(start..start + length).collect::<Vec<_>>()));
        }
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_keys_share_their_first_row() {
        let key = |name: &str| Key::made_of(&[name]);
        assert_eq!(first_rows(&[]).unwrap(), Vec::<u32>::new());
        let keys = ["b", "a", "b", "c", "a", "b"].map(key);
        assert_eq!(first_rows(&keys).unwrap(), [0, 1, 0, 3, 1, 0]);
        let many: Vec<_> = (0..5000_u32).map(|row| key(&(row % 700).to_string())).collect();
        assert_eq!(first_rows(&many).unwrap(), (0..5000).map(|row| row % 700).collect::<Vec<_>>());
    }
}
