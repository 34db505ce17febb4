//! Embeddings of prompts.

use kit::Table;

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::record::Record;
use crate::row::Row;

pub const FORMAT: Known = Known {
    // Beside responses, embeddings are an addition.
    detect: |head| {
        let said = [Chosen, Rejected, Completion, Response0, Response1, Responses, Messages];
        head.has(&[Embedding]) && !said.iter().any(|column| head.has(&[*column]))
    },
    needs: &[Embedding],
    needs_one_of: &[&[PromptId], &[Prompt]],
    reads: &[PromptId, Prompt, Input, System, Tools, Embedding],
    row_id: Some(PromptId),
    tables: |places| match places.contains_key(&Prompt) {
        true => vec![Table::Embeddings, Table::Prompts],
        false => vec![Table::Embeddings],
    },
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let embedding = row.embedding()?;
    let messages = row.columns.has(Prompt).then(|| row.prompt()).transpose()?;
    let id = row.id(PromptId)?;
    if messages.is_none() && id.is_none() {
        return Err(row.missing(PromptId));
    }
    Ok(vec![Record::Embedding { messages, id, embedding }])
}
