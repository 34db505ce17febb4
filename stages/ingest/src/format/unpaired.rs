//! TRL's unpaired preferences: a response with a label of its own.

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::record::Record;
use crate::row::Row;
use crate::tables::ITEMS;

pub const FORMAT: Known = Known {
    detect: |head| head.has(&[Prompt, Completion, Label]),
    needs: &[Prompt, Completion, Label],
    reads: &[Prompt, Input, System, Tools, Completion, Label, Weight, Score, ItemId, PromptId, ResponseId, Model],
    row_id: Some(ItemId),
    tables: |_| ITEMS.to_vec(),
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let label = row.label()?;
    Ok(vec![row.item(label)?])
}
