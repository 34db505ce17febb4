//! Rows read by the format of their layout.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::bad_row::BadRow;
use crate::column::Column;
use crate::form::Form;
use crate::head::is_empty;
use crate::layout::Layout;
use crate::names::put_together;
use crate::record::{Part, Record};
use crate::row::{Counts, Doubt, Row};

/// The records of a row, and the counts about it.
pub struct Reading {
    /// The records; a row of several responses has several.
    pub records: Vec<Record>,
    /// Notes on how it was read, with their counts.
    pub counts: Counts,
    /// Doubts about how it was read.
    pub doubts: BTreeSet<Doubt>,
}

/// Reads a row.
///
/// # Errors
/// The row's fault.
pub fn read(fields: Map<String, Value>, layout: &Layout, form: Form) -> Result<Reading, BadRow> {
    let mut row = Row { fields, columns: &layout.columns, form, counts: Counts::new(), doubts: BTreeSet::new() };
    if let Some(name) = layout.late().find(|name| row.fields.get(*name).is_some_and(|value| !is_empty(value))) {
        let detail = match layout.empty.iter().any(|empty| empty == name) {
            true => format!(
                "column `{name}` is empty in the first rows of the file and was left out; say what it is, or that it is \
                 left out, with `columns:`, and `format:` where it is not clear then"
            ),
            false => {
                format!("column `{name}` is not in the first rows of the file, so it would count for some rows only")
            }
        };
        return Err(BadRow::new("late_column", detail));
    }
    let records = (layout.format.known().read)(&mut row)?;
    Ok(Reading { records, counts: row.counts, doubts: row.doubts })
}

/// The parts of rows that mean nothing alone, by their format's `join`: one for each, in their order.
pub fn join<'a>(rows: Vec<(Map<String, Value>, &'a Layout)>, form: Form) -> Vec<Result<Part, BadRow>> {
    let join = rows.first().and_then(|(_, layout)| layout.format.known().join);
    let row = |(fields, layout): (_, &'a Layout)| Row {
        fields,
        columns: &layout.columns,
        form,
        counts: Counts::new(),
        doubts: BTreeSet::new(),
    };
    let mut rows: Vec<Row<'_>> = rows.into_iter().map(row).collect();
    join.map_or_else(Vec::new, |join| join(&mut rows))
}

/// The id a row has of its own, for messages about rows that cannot be read.
pub fn row_id(fields: &Map<String, Value>, layout: &Layout) -> String {
    use Column::{ComparisonId, ItemId, MessageId, PairId, PromptId};
    let columns = [PairId, ComparisonId, ItemId, MessageId, PromptId].into_iter();
    let mut ids = columns.filter_map(|column| {
        let name = layout.columns.get(column)?;
        if layout.columns.composed.contains(&column) {
            return put_together(name, fields).ok();
        }
        match fields.get(name)? {
            Value::String(id) => Some(id.clone()),
            Value::Number(id) => Some(id.to_string()),
            _ => None,
        }
    });
    ids.next().unwrap_or_default()
}
