//! HelpSteer: responses with marks from 0 to 4.

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::record::Record;
use crate::row::Row;
use crate::tables::ITEMS;

pub const FORMAT: Known = Known {
    detect: |head| head.has(&[Prompt, Completion, Helpfulness]) && !head.has(&[Label]),
    needs: &[Prompt, Completion, Helpfulness],
    reads: &[Prompt, System, Tools, Completion, Helpfulness, Weight, ItemId, PromptId, ResponseId, Model],
    row_id: Some(ItemId),
    tables: |_| ITEMS.to_vec(),
    read,
    ..Known::NONE
};

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let mark = row.number_of_all(Helpfulness, 0.0, 4.0, "a mark from 0 to 4")?;
    let mark = mark.ok_or_else(|| row.missing(Helpfulness))?;
    let mut item = row.item(mark / 4.0)?;
    if let Record::Item { side, .. } = &mut item {
        side.score = Some(mark);
    }
    Ok(vec![item])
}
