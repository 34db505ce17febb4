//! Prompts alone.

use kit::Table;

use super::Known;
use crate::advice::several;
use crate::bad_row::BadRow;
use crate::column::Column::{Input, Messages, Prompt, PromptId, System, Tools};
use crate::record::Record;
use crate::row::Row;

pub const FORMAT: Known = Known {
    // Several responses to each prompt are worth a word.
    detect: |head| head.has(&[Messages]) || (head.has(&[Prompt]) && !several(head)),
    needs_one_of: &[&[Prompt], &[Messages]],
    reads: &[Prompt, Input, System, Tools, Messages, PromptId],
    row_id: Some(PromptId),
    settle: |_, places| {
        if places.contains_key(&Prompt) {
            places.remove(&Messages);
        }
    },
    tables: |_| vec![Table::Prompts],
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let messages = if row.columns.has(Prompt) { row.prompt()? } else { row.conversation()? };
    if messages.last().is_some_and(|last| last.role == "assistant") {
        return Err(BadRow::new("has_response", "the prompt ends with an assistant's message"));
    }
    Ok(vec![Record::Prompt { messages, id: row.id(PromptId)? }])
}
