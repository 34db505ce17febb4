//! Demonstrations.

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::record::Record;
use crate::row::Row;
use crate::tables::ITEMS;

pub const FORMAT: Known = Known {
    detect: |head| head.has(&[Prompt, Completion]),
    needs: &[Prompt, Completion],
    reads: &[Prompt, Input, System, Tools, Completion, Weight, Score, ItemId, PromptId, ResponseId, Model],
    row_id: Some(ItemId),
    tables: |_| ITEMS.to_vec(),
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    Ok(vec![row.item(1.0)?])
}
