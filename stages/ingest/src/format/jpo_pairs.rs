//! Training pairs of JPO: each side has its own prompt.

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::record::Record;
use crate::row::Row;
use crate::tables::PAIRS;

pub const FORMAT: Known = Known {
    detect: |head| head.has(&[ChosenPrompt, Chosen, RejectedPrompt, Rejected]),
    needs: &[ChosenPrompt, Chosen, RejectedPrompt, Rejected],
    reads: &[
        ChosenPrompt,
        Chosen,
        RejectedPrompt,
        Rejected,
        System,
        Tools,
        PHat,
        Weight,
        ChosenScore,
        RejectedScore,
        PairId,
        ChosenPromptId,
        RejectedPromptId,
        ChosenResponseId,
        RejectedResponseId,
        ChosenModel,
        RejectedModel,
    ],
    row_id: Some(PairId),
    tables: |_| PAIRS.to_vec(),
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let (prompt_a, a) = (row.said(ChosenPrompt)?, row.said(Chosen)?);
    let (prompt_b, b) = (row.said(RejectedPrompt)?, row.said(Rejected)?);
    let ids = (row.id(ChosenPromptId)?, row.id(RejectedPromptId)?);
    let before = row.before()?;
    let [prompt_a, a] = row.exchange(&before, prompt_a, a)?;
    let [prompt_b, b] = row.exchange(&before, prompt_b, b)?;
    Ok(vec![row.pair([(prompt_a, ids.0), (prompt_b, ids.1)], [a, b])?])
}
