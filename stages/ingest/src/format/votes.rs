//! Votes of people or judges on two responses: a column for each, a list, an object, counts, or a row for each.

use kit::Table;

use super::Known;
use super::jpo_judge::{LABELS, sides};
use crate::bad_row::BadRow;
use crate::ballot::Ballot;
use crate::column::Column::{self, *};
use crate::head::Head;
use crate::record::Record;
use crate::row::Row;
use crate::stored::is_structured;

pub const FORMAT: Known = Known {
    detect,
    needs_one_of: &[&[Prompt, Response0, Response1], &[Prompt0, Prompt1, Response0, Response1], &[ComparisonId]],
    reads: &[
        Prompt,
        Prompt0,
        Prompt1,
        Input,
        System,
        Tools,
        Response0,
        Response1,
        Votes,
        Annotator,
        VotesA,
        VotesB,
        VotesTie,
        Weight,
        ComparisonId,
        PromptId,
        PromptId0,
        PromptId1,
        ResponseId0,
        ResponseId1,
        Score0,
        Score1,
        Length0,
        Length1,
        Model0,
        Model1,
    ],
    row_id: Some(ComparisonId),
    tables: |places| match places.contains_key(&Response0) {
        true => vec![Table::Votes, Table::Comparisons, Table::Responses, Table::Prompts],
        false => vec![Table::Votes],
    },
    read,
    ..Known::NONE
};

/// Two responses without another label, and votes that cannot be something else: `votes` as one number may be how many
/// people liked a post.
fn detect(head: &Head<'_>) -> bool {
    if head.is_given(Votes) {
        return !head.votes().is_empty();
    }
    let labels = LABELS.iter().chain(&[Winner, WinnerModelA]);
    let labelled = labels.into_iter().any(|label: &Column| head.find(*label).is_some());
    let votes = head.votes();
    let each = votes.len() > 1;
    let listed = head.all(Votes, is_structured) || (head.has(&[Annotator]) && head.values(Votes).next().is_some());
    head.has(&[Response0, Response1]) && !labelled && (each || listed || head.has(&[VotesA, VotesB]))
}

fn read(row: &mut Row<'_>) -> Result<Vec<Record>, BadRow> {
    let scaled = row.columns.scaled().is_some();
    let (sides, id, weight, scored) = match row.columns.has(Response0) {
        true => match sides(row)? {
            Record::Comparison { sides, id, weight, p_hat, log_odds, .. } => {
                (Some(sides), id, weight, p_hat.zip(log_odds))
            }
            _ => unreachable!("two responses are a comparison"),
        },
        false => {
            let id = row.id(ComparisonId)?;
            let id = id.ok_or_else(|| row.missing(ComparisonId))?;
            let scored = if scaled { Some(row.scores_of_both()?) } else { None };
            (None, Some(id), row.weight()?, scored)
        }
    };
    let lengths = row.lengths()?;
    let mut ballots = match scored {
        Some((vote, log_odds)) => {
            let annotator = row.annotator()?;
            vec![Ballot { annotator, vote, log_odds: Some(log_odds), weight, lengths: None }]
        }
        None => row.ballots(weight)?,
    };
    ballots.iter_mut().for_each(|ballot| ballot.lengths = lengths);
    if ballots.is_empty() {
        row.count("rows without a vote");
    }
    Ok(vec![Record::Votes { sides, ballots, id }])
}
