//! The expected content of the tables, from the number of rows of the files and the first of them.

use kit::{Amount, Expected, Forecast, Lengths, Message, Outlook, Result, Table};

use crate::config::Ingest;
use crate::reading::{join, read};
use crate::record::Part;
use crate::record::{Record, Side};
use crate::source::SourceFile;
use crate::survey::Survey;

/// Rows from which the lengths of all are estimated.
const LOOKED_AT: usize = 256;

pub(crate) fn estimate(stage: &Ingest, survey: &Survey) -> Result<Outlook> {
    let counts = survey.files.iter().map(SourceFile::count_rows).collect::<Result<Vec<_>>>()?;
    let rows = counts.iter().map(|(rows, _)| rows).sum::<u64>();
    let rows = if counts.iter().all(|(_, exact)| *exact) { Amount::exact(rows) } else { Amount::about(rows) };
    let rows = rows.up_to(stage.limit.unwrap_or(u64::MAX));
    let mut lengths = Lengths::default();
    let (mut looked_at, mut records) = (0, 0);
    let layout = &survey.layouts[0];
    let mut votes = 0;
    let mut look = |all: &[Record]| {
        records += all.len() as u64;
        votes += all.iter().map(votes_of).sum::<u64>();
        all.iter().for_each(|record| look_at(record, &mut lengths));
    };
    let mut together = Vec::new();
    for row in survey.files[0].rows(layout.wanted())?.take(LOOKED_AT) {
        looked_at += 1;
        let Ok(fields) = row?.fields else { continue };
        if layout.format.known().join.is_some() {
            together.push((fields, layout));
        } else if let Ok(reading) = read(fields, layout, stage.form) {
            look(&reading.records);
        }
    }
    for part in join(together, stage.form) {
        if let Ok(Part::Says(records)) = part {
            look(&records);
        }
    }
    // A row of several responses says several things.
    let rows = if records > looked_at { Amount::about(rows.value * records / looked_at) } else { rows };
    let outlook = Outlook::of(Forecast::of_rows(rows));
    Ok(survey.tables.iter().fold(outlook, |outlook, table| {
        let all = match table {
            Table::Votes => Expected::of_rows(*table, Amount::about(rows.value * votes / records.max(1))),
            _ => filled(&lengths, *table, rows),
        };
        let Some(share) = stage.holdout else { return outlook.port(table.name(), all) };
        let part = |share: f64| {
            let of = |amount: Amount| Amount::about((amount.value as f64 * share).round() as u64);
            Expected {
                rows: all.rows.map(of),
                prompts: all.prompts.map(of),
                responses: all.responses.map(of),
                ..all.clone()
            }
        };
        outlook.port(table.name(), part(1.0 - share)).port(format!("holdout_{table}"), part(share))
    }))
}

/// A table from so many rows of the files. Equal rows are one, so there may be less.
fn filled(lengths: &Lengths, table: Table, rows: Amount) -> Expected {
    let rows = rows.bounded();
    let all = lengths.expected(table, rows);
    let distinct = match table {
        Table::Prompts | Table::Embeddings => lengths.expected(Table::Items, rows).prompts,
        Table::Responses => lengths.expected(Table::Items, rows).responses,
        _ => return all,
    };
    let distinct = distinct.unwrap_or(rows);
    match table {
        Table::Responses => Expected { rows: Some(distinct), responses: Some(distinct), ..all },
        _ => Expected { rows: Some(distinct), prompts: Some(distinct), ..all },
    }
}

fn votes_of(record: &Record) -> u64 {
    match record {
        Record::Votes { ballots, .. } => ballots.len() as u64,
        _ => 0,
    }
}

fn look_at_sides([one, other]: &[Side; 2], lengths: &mut Lengths) {
    let ids = [&one.prompt, &other.prompt].map(|prompt| kit::ids::prompt_id(prompt));
    lengths.row(&[&ids[0], &ids[1]], &[&one.prompt, &other.prompt], &[&one.response, &other.response]);
}

fn look_at(record: &Record, lengths: &mut Lengths) {
    let id = |messages: &[Message]| kit::ids::prompt_id(messages);
    match record {
        Record::Pair { sides, .. } | Record::Comparison { sides, .. } => look_at_sides(sides, lengths),
        Record::Votes { sides: None, .. } => {}
        Record::Votes { sides: Some(sides), .. } => look_at_sides(sides, lengths),
        Record::Item { side, .. } => lengths.row(&[&id(&side.prompt)], &[&side.prompt], &[&side.response]),
        Record::Prompt { messages, .. } => lengths.row(&[&id(messages)], &[messages], &[]),
        Record::Embedding { messages: Some(messages), .. } => lengths.row(&[&id(messages)], &[messages], &[]),
        Record::Embedding { messages: None, .. } => {}
    }
}
