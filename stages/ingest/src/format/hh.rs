//! Anthropic's HH transcripts.

use super::Known;
use crate::bad_row::BadRow;
use crate::column::Column::*;
use crate::dialogue::{is_transcript, split_dialogues};
use crate::messages::Content;
use crate::record::Record;
use crate::row::{Doubt, Row};
use crate::tables::PAIRS;

pub const FORMAT: Known = Known {
    detect: |head| {
        let transcripts = head.all(Chosen, |value| value.as_str().is_some_and(is_transcript));
        head.has(&[Chosen, Rejected]) && !head.has(&[Prompt]) && transcripts
    },
    needs: &[Chosen, Rejected],
    reads: &[
        Chosen,
        Rejected,
        PHat,
        Weight,
        ChosenScore,
        RejectedScore,
        PairId,
        PromptId,
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
    let (Content::Text(chosen), Content::Text(rejected)) = (row.said(Chosen)?, row.said(Rejected)?) else {
        return Err(BadRow::new("no_transcript", "`chosen` and `rejected` are messages, wanted transcripts"));
    };
    let (split, goes_on) = split_dialogues(&chosen, &rejected, row.form)?;
    if goes_on {
        row.doubt(GOES_ON);
    }
    Ok(vec![row.preference(split)?])
}

/// A response that is more than one turn.
const GOES_ON: Doubt = Doubt {
    figure: "responses that go on with the user's words",
    warning: "have a response that goes on with the user's words",
};
