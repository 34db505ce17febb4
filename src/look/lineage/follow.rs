//! From an id to every row of a run that is about the same responses.

use std::collections::BTreeSet;

use kit::Table;
use serde::Serialize;
use serde_json::Value;

use super::columns::{Ids, OWN, Side, Text, texts};
use super::graph::{Lineage, Link};
use crate::error::{Error, Result};
use crate::look::inspect::Rows;

/// The rows of a run about the sides of one row.
#[derive(Debug, Serialize)]
pub struct Followed {
    pub pipeline: String,
    pub run: u64,
    /// The id in full.
    pub id: String,
    /// Its two sides, or the one of an item or a response.
    pub sides: Vec<Text>,
    /// The stages that have rows about them, in the order of the work.
    pub stages: Vec<StageRows>,
    /// Remarks on the whole.
    pub notes: Vec<String>,
    /// Tables that are not what a later stage read, one line each.
    pub changed: Vec<String>,
}

/// A stage's rows.
#[derive(Debug, Serialize)]
pub struct StageRows {
    pub stage: String,
    pub kind: String,
    /// Its entry in the store.
    pub entry: String,
    /// The rows, table by table.
    pub tables: Vec<TableRows>,
}

/// Rows of one table as they are stored; conversations are left out, they stand in [`Followed::sides`].
#[derive(Debug, Serialize)]
pub struct TableRows {
    /// The output port.
    pub port: String,
    pub rows: Vec<StoredRow>,
}

/// The cells of a row by their columns, in the order of the table.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRow(pub Vec<(String, Value)>);

impl StoredRow {
    fn cell(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(column, _)| column == name).map(|(_, cell)| cell)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.cell(name).and_then(Value::as_str)
    }
}

impl Serialize for StoredRow {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, cell)| (name, cell)))
    }
}

/// The fewest characters of an id that are enough, if only one id begins with them.
const SHORTEST: usize = 6;

/// Follows a pair, an item, a comparison or a response, by its id or the beginning of it.
///
/// # Errors
/// When no table of the run has the id, or when a table cannot be read.
pub fn follow(lineage: &Lineage, pipeline: &str, run: u64, id: &str) -> Result<Followed> {
    let (id, sides) = begin(lineage, pipeline, run, id)?;
    let trail = Trail::of(lineage, &id, &sides)?;
    let mut stages = Vec::new();
    let mut judged = false;
    for link in &lineage.links {
        let mut tables = Vec::new();
        for (port, rows) in link.tables() {
            let rows = rows?;
            let Some(ids) = Ids::of(&rows) else { continue };
            let found = rows.matching(ids.names(), |cells| trail.holds(&ids, cells))?;
            if found.is_empty() {
                continue;
            }
            let stored = |row| {
                let names = rows.columns.iter().map(|(name, _)| name.clone());
                StoredRow(names.zip(row).filter(|(_, cell)| !is_conversation(cell)).collect())
            };
            let rows: Vec<StoredRow> = found.into_iter().map(|row| stored(row.cells)).collect();
            // Log-probs of labels may come with the data; other evidence is a judge's own.
            let asked = |(name, cell): &(String, Value)| name == "ab_logp_a" && !cell.is_null();
            judged |= link.kind == "judge" || rows.iter().flat_map(|row| &row.0).any(asked);
            tables.push(TableRows { port, rows });
        }
        if let Some(parts) = parts(link, &tables, &stages)? {
            tables.push(parts);
        }
        if !tables.is_empty() {
            let (stage, kind) = (link.name.clone(), link.kind.clone());
            stages.push(StageRows { stage, kind, entry: link.manifest.recipe.entry(), tables });
        }
    }
    let mut notes = Vec::new();
    if !judged {
        let what = if sides.len() == 1 { "this response" } else { "these sides" };
        notes.push(format!("no judge was asked about {what}: the label came with the data"));
    }
    let changed = lineage.links.iter().flat_map(|link| {
        link.changed.iter().map(move |port| format!("{}: `{port}` is not what this stage read", link.name))
    });
    let changed = changed.collect();
    Ok(Followed { pipeline: pipeline.to_owned(), run, id, sides, stages, notes, changed })
}

/// What each source counted for where several became one label: its factor in the fit that gave the label, or how it
/// votes where this side is the better one.
fn parts(link: &Link, tables: &[TableRows], before: &[StageRows]) -> Result<Option<TableRows>> {
    let Some((port, _)) = link.manifest.ports.iter().find(|(_, files)| files.table == Table::Annotators) else {
        return Ok(None);
    };
    let Some(verdict) = tables.iter().flat_map(|table| &table.rows).find(|row| row.text("judge").is_some()) else {
        return Ok(None);
    };
    let fit = verdict.text("fit");
    let said: BTreeSet<(&str, String)> = before
        .iter()
        .flat_map(|stage| &stage.tables)
        .flat_map(|table| &table.rows)
        .filter_map(|row| Some((row.text("annotator")?, side(row.cell("vote")?)?)))
        .collect();
    let rows = Rows::open(&link.folder.join(port))?;
    let wanted = |cells: &[&str]| match cells {
        ["weight", of] => fit == Some(*of),
        ["matrix", _] => fit.is_none(),
        _ => false,
    };
    let names: Vec<String> = rows.columns.iter().map(|(name, _)| name.clone()).collect();
    let found = rows.matching(&["measure", "fit"], wanted)?;
    let rows = found.into_iter().map(|row| StoredRow(names.iter().cloned().zip(row.cells).collect()));
    let of_votes = |row: &StoredRow| match row.cell("vote").and_then(side) {
        Some(vote) => row.text("annotator").is_some_and(|annotator| said.contains(&(annotator, vote))),
        None => true,
    };
    let rows: Vec<StoredRow> = rows.filter(of_votes).collect();
    Ok((!rows.is_empty()).then(|| TableRows { port: port.clone(), rows }))
}

/// The side that a vote prefers, as the classes of a matrix have it.
fn side(vote: &Value) -> Option<String> {
    let vote = vote.as_f64()?;
    Some(match vote.total_cmp(&0.5) {
        std::cmp::Ordering::Greater => "1".to_owned(),
        std::cmp::Ordering::Equal => "1/2".to_owned(),
        std::cmp::Ordering::Less => "0".to_owned(),
    })
}

/// The ids that rows are searched by.
struct Trail {
    sides: Vec<Side>,
    /// Ids of comparisons, pairs and items about these sides.
    rows: BTreeSet<String>,
}

impl Trail {
    /// The sides of a row, and the ids of all rows about them.
    fn of(lineage: &Lineage, id: &str, texts: &[Text]) -> Result<Trail> {
        let sides = texts.iter().map(|text| text.side.clone()).collect();
        let mut trail = Trail { sides, rows: BTreeSet::from([id.to_owned()]) };
        let mut more = BTreeSet::new();
        for (_, rows) in lineage.links.iter().flat_map(Link::tables) {
            let rows = rows?;
            let Some(ids) = Ids::of(&rows) else { continue };
            let found = std::cell::RefCell::new(&mut more);
            rows.matching(ids.names(), |cells| {
                if !ids.sides(cells).is_empty() && trail.holds(&ids, cells) {
                    found.borrow_mut().extend(ids.rows(cells).into_iter().map(str::to_owned));
                }
                false
            })?;
        }
        trail.rows.extend(more);
        Ok(trail)
    }

    /// True where a row is about the same: both sides of a pair in either order, any side where one response is
    /// followed; a side of it; its prompt; or one of the rows by its id.
    fn holds(&self, ids: &Ids, cells: &[&str]) -> bool {
        match (self.sides.as_slice(), ids.sides(cells).as_slice()) {
            ([one, other], [a, b]) => (a, b) == (one, other) || (a, b) == (other, one),
            (sides, [_, ..]) => ids.sides(cells).iter().any(|side| sides.contains(side)),
            (sides, []) => {
                let prompt = ids.prompt(cells);
                let named = |id: &&str| self.rows.contains(*id) || sides.iter().any(|side| side.response_id == **id);
                prompt.is_some_and(|prompt| sides.iter().any(|side| side.prompt_id == prompt))
                    || ids.about(cells).iter().any(named)
            }
        }
    }
}

/// The row that an id means, by its sides.
fn begin(lineage: &Lineage, pipeline: &str, run: u64, id: &str) -> Result<(String, Vec<Text>)> {
    let means = |cell: &str| cell == id || (id.len() >= SHORTEST && cell.starts_with(id));
    let mut found: Vec<(String, Vec<Text>)> = Vec::new();
    for (_, rows) in lineage.links.iter().flat_map(Link::tables) {
        let rows = rows?;
        let Some(ids) = Ids::of(&rows) else { continue };
        let is_it = |cells: &[&str]| !ids.sides(cells).is_empty() && ids.own(cells).is_some_and(|(_, own)| means(own));
        for row in rows.matching(ids.names(), is_it)? {
            let sides = texts(&rows, &row);
            let own = OWN.iter().find_map(|name| rows.columns.iter().position(|(column, _)| column == name));
            let own = own.and_then(|place| row.cells[place].as_str()).unwrap_or_default().to_owned();
            if !sides.is_empty() && !found.iter().any(|(other, _)| *other == own) {
                found.push((own, sides));
            }
        }
    }
    if let Some(exact) = found.iter().position(|(other, _)| other == id) {
        return Ok(found.swap_remove(exact));
    }
    if found.len() > 1 {
        let all: BTreeSet<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
        let some: Vec<&str> = all.iter().copied().take(4).collect();
        let more = if all.len() > some.len() { ", ..." } else { "" };
        return Err(Error::Usage(format!("`{id}` can mean {}{more}; give more of it", some.join(", "))));
    }
    found.into_iter().next().ok_or_else(|| unknown(lineage, pipeline, run, id))
}

/// Columns with ids of pairs, items, comparisons and responses, the most important first.
const TABLES: [(Table, &str); 5] = [
    (Table::Pairs, "pair_id"),
    (Table::Items, "item_id"),
    (Table::Verdicts, "comparison_id"),
    (Table::Comparisons, "comparison_id"),
    (Table::Responses, "response_id"),
];

fn unknown(lineage: &Lineage, pipeline: &str, run: u64, id: &str) -> Error {
    let tables = lineage.links.iter().flat_map(|link| {
        link.manifest.ports.iter().filter(|(_, files)| files.rows > 0).filter_map(move |(port, files)| {
            let rank = TABLES.iter().position(|(table, _)| *table == files.table)?;
            let name = if link.name == *port { port.clone() } else { format!("{}.{port}", link.name) };
            Some((rank, std::cmp::Reverse(files.rows), name))
        })
    });
    // Of the first of these tables that there is, the largest.
    let hint = match tables.min() {
        Some((rank, _, name)) => {
            let column = TABLES[rank].1;
            format!("`halftone inspect {name} --pipeline {pipeline}` shows ids in the column `{column}`")
        }
        None => "this run has no table of pairs, items or comparisons yet; run the pipeline first".to_owned(),
    };
    Error::Usage(format!("no pair, item, comparison or response `{id}` in run {run} of `{pipeline}`; {hint}"))
}

/// True where a cell is a list of messages.
fn is_conversation(cell: &Value) -> bool {
    let first = cell.as_array().and_then(|items| items.first());
    first.is_some_and(|message| message.get("role").is_some() && message.get("content").is_some())
}
