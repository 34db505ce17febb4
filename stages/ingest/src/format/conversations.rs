//! Demonstrations as conversations, which end with the response.

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::messages::last_role;
use crate::record::Record;
use crate::row::Row;
use crate::tables::ITEMS;

pub const FORMAT: Known = Known {
    detect: |head| head.values(Messages).any(|value| last_role(value).is_some_and(|role| role == "assistant")),
    needs: &[Messages],
    reads: &[Messages, System, Tools, Label, Weight, Score, ItemId, PromptId, ResponseId, Model],
    row_id: Some(ItemId),
    tables: |_| ITEMS.to_vec(),
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let mut prompt = row.conversation()?;
    if prompt.last().is_none_or(|last| last.role != "assistant") || prompt.len() < 2 {
        let detail = "the conversation does not end with a prompt and an assistant's message";
        return Err(BadRow::new("no_response", detail));
    }
    let response = prompt.split_off(prompt.len() - 1);
    let label = if row.columns.has(Label) { row.label()? } else { 1.0 };
    Ok(vec![row.item_of(prompt, response, label)?])
}
