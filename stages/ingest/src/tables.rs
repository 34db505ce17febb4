//! The output tables, once or, with a hold-out, twice.

use kit::rows::{Comparison, Embedding, Item, Pair, Prompt, Response, ScoredVerdict, SizedVote, Verdict, Vote};
use kit::{Context, Error, OutputPort, Result, Row, RowReader, Table, TableWriter};

use crate::ledger::{Ids, key};

/// The tables of pairs with a label.
pub const PAIRS: &[Table] = &[Table::Pairs, Table::Comparisons, Table::Responses, Table::Prompts];
/// The tables of responses by themselves.
pub const ITEMS: &[Table] = &[Table::Items, Table::Responses, Table::Prompts];

/// The tables of comparisons, with labels or without.
pub fn comparisons(labelled: bool) -> Vec<Table> {
    use Table::{Comparisons, Pairs, Prompts, Responses, Verdicts};
    match labelled {
        true => vec![Pairs, Verdicts, Comparisons, Responses, Prompts],
        false => vec![Comparisons, Responses, Prompts],
    }
}

/// All tables that some format fills.
pub const ALL: [Table; 8] = [
    Table::Pairs,
    Table::Verdicts,
    Table::Votes,
    Table::Comparisons,
    Table::Items,
    Table::Responses,
    Table::Prompts,
    Table::Embeddings,
];

/// The ports of some tables; with a hold-out, each once more for the rows held out.
pub fn ports_of(tables: &[Table], holdout: bool, without: impl Fn(Table) -> Vec<&'static str>) -> Vec<OutputPort> {
    let port = |name: String, table: Table| {
        without(table).into_iter().fold(OutputPort::named(name, table), OutputPort::without)
    };
    let mut ports: Vec<_> = tables.iter().map(|table| port(table.name().to_owned(), *table)).collect();
    if holdout {
        ports.extend(tables.iter().map(|table| port(format!("holdout_{table}"), *table)));
    }
    ports
}

/// The tables of one side of the split.
pub struct Tables {
    pub prompts: Option<TableWriter<Prompt>>,
    pub responses: Option<TableWriter<Response>>,
    pub comparisons: Option<TableWriter<Comparison>>,
    pub votes: Option<TableWriter<Vote>>,
    /// In place of `votes` where the data has lengths.
    pub sized: Option<TableWriter<SizedVote>>,
    pub verdicts: Option<TableWriter<Verdict>>,
    /// In place of `verdicts` where scores make labels.
    pub scored: Option<TableWriter<ScoredVerdict>>,
    pub pairs: Option<TableWriter<Pair>>,
    pub items: Option<TableWriter<Item>>,
    pub embeddings: Option<TableWriter<Embedding>>,
}

impl Tables {
    /// Writers for some tables under ports with a prefix.
    pub fn create(context: &Context<'_>, tables: &[Table], prefix: &str, [scored, sized]: [bool; 2]) -> Result<Tables> {
        fn open<R: Row>(context: &Context<'_>, tables: &[Table], prefix: &str) -> Result<Option<TableWriter<R>>> {
            let port = format!("{prefix}{}", R::TABLE);
            tables.contains(&R::TABLE).then(|| context.writer(&port)).transpose()
        }
        Ok(Tables {
            prompts: open(context, tables, prefix)?,
            responses: open(context, tables, prefix)?,
            comparisons: open(context, tables, prefix)?,
            votes: if sized { None } else { open(context, tables, prefix)? },
            sized: if sized { open(context, tables, prefix)? } else { None },
            verdicts: if scored { None } else { open(context, tables, prefix)? },
            scored: if scored { open(context, tables, prefix)? } else { None },
            pairs: open(context, tables, prefix)?,
            items: open(context, tables, prefix)?,
            embeddings: open(context, tables, prefix)?,
        })
    }

    /// Commits them all.
    pub fn finish(self) -> Result<()> {
        fn close<R: Row>(writer: Option<TableWriter<R>>) -> Result<()> {
            writer.map_or(Ok(()), TableWriter::finish)
        }
        close(self.prompts)?;
        close(self.responses)?;
        close(self.comparisons)?;
        close(self.votes)?;
        close(self.sized)?;
        close(self.verdicts)?;
        close(self.scored)?;
        close(self.pairs)?;
        close(self.items)?;
        close(self.embeddings)
    }
}

/// Writes a row where the table is wanted.
///
/// # Errors
/// When it cannot be written.
pub fn push<R: Row>(writer: &mut Option<TableWriter<R>>, row: R) -> Result<()> {
    writer.as_mut().map_or(Ok(()), |writer| writer.push(row))
}

/// Writes the responses once more, with their counts, which are known only at the end.
///
/// # Errors
/// When they cannot be read or written.
pub fn recount(context: &Context<'_>, port: &str, counts: &Ids) -> Result<()> {
    let (from, aside) = (context.port(port), context.scratch().join(port));
    std::fs::create_dir_all(context.scratch()).map_err(Error::io(context.scratch()))?;
    if aside.exists() {
        std::fs::remove_dir_all(&aside).map_err(Error::io(&aside))?;
    }
    std::fs::rename(&from, &aside).map_err(Error::io(&from))?;
    let mut writer = context.writer(port)?;
    for row in RowReader::<Response>::open(&[&aside])? {
        let mut row = row?;
        row.count = counts.counted(key(&row.response_id)).max(1);
        writer.push(row)?;
    }
    writer.finish()?;
    std::fs::remove_dir_all(&aside).map_err(Error::io(&aside))
}
