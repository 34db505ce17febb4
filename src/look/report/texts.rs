//! The texts of prompts.

use std::collections::BTreeMap;

use kit::{Result, Table};

use super::files::Found;
use crate::look::inspect::is_text;

/// Rows of a table that are searched.
const ROWS: usize = 20_000;

/// Texts by id, of the wanted ones that the tables of a run have. `columns` names the id and the text of a table.
pub fn texts(
    found: &[Found],
    mut wanted: Vec<&str>,
    columns: impl Fn(Table) -> Option<[&'static str; 2]>,
) -> Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for (table, columns) in found.iter().filter_map(|table| Some((table, columns(table.table)?))) {
        wanted.retain(|id| !texts.contains_key(*id));
        if wanted.is_empty() {
            break;
        }
        for row in table.first(&columns, ROWS)? {
            if let Some(id) = row[0].as_str().filter(|id| wanted.contains(id)) {
                texts.insert(id.to_owned(), is_text(&row[1]).unwrap_or_default());
            }
        }
    }
    Ok(texts)
}
