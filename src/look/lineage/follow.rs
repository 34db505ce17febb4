//! From an id to everything that the stages of a run know of it.

use std::collections::BTreeSet;

use kit::rows::{Comparison, Item, Pair, Reject, Verdict};
use kit::{Fact, Message, Side, Table, Traced, Trail, find};
use serde::Serialize;

use super::graph::{Lineage, Link};
use crate::error::{Error, Result};

/// What came of following an id.
#[derive(Debug, Serialize)]
pub struct Followed {
    /// The pipeline.
    pub pipeline: String,
    /// The run.
    pub run: u64,
    /// The id in full.
    pub id: String,
    /// Its two sides, or the one of an item.
    pub sides: Vec<Text>,
    /// Ids of other rows about the same sides.
    pub rows: Vec<String>,
    /// What each stage knows, in the order of the work; stages that know nothing are left out.
    pub stages: Vec<StageTrace>,
    /// What is worth saying of the whole.
    pub notes: Vec<String>,
    /// Values that were computed again.
    pub recomputed: usize,
    /// What does not agree, one line each.
    pub disagreements: Vec<String>,
}

/// A side in full.
#[derive(Debug, Clone, Serialize)]
pub struct Text {
    /// `a` and `b`, `chosen` and `rejected`, or `response`.
    pub role: &'static str,
    /// Its ids.
    #[serde(flatten)]
    pub side: Side,
    /// The prompt.
    pub prompt: Vec<Message>,
    /// The response.
    pub response: Vec<Message>,
}

/// What a stage knows.
#[derive(Debug, Serialize)]
pub struct StageTrace {
    /// The stage.
    pub stage: String,
    /// Its kind.
    pub kind: String,
    /// Its entry in the store.
    pub entry: String,
    /// The rows.
    pub rows: Vec<Traced>,
    /// Why it could not be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Where ids of pairs, items and comparisons stand.
const TABLES: [Table; 4] = [Table::Pairs, Table::Items, Table::Verdicts, Table::Comparisons];
/// So much of an id is enough, if it is the only one that begins like this.
const SHORTEST: usize = 6;

/// Follows a pair, an item or a comparison, by its id or the beginning of it.
///
/// # Errors
/// When no table of the run has the id, or when a table cannot be read.
pub fn follow(lineage: &Lineage, pipeline: &str, run: u64, id: &str) -> Result<Followed> {
    let (id, sides) = begin(lineage, pipeline, run, id)?;
    let ends = [sides.first(), sides.last()].map(|text| text.expect("a row has a side").side.clone());
    let mut trail = Trail { sides: ends, rows: Vec::new() };
    let judged = gather(lineage, &mut trail)?;
    let mut stages = Vec::new();
    let mut disagreements = Vec::new();
    let mut recomputed = 0;
    for link in &lineage.links {
        let (mut rows, error) = match link.with(|context| link.stage.trace(context, &trail)) {
            Ok(rows) => (rows, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        if rows.iter().flat_map(|row| &row.facts).all(|fact| fact.name != LEFT_OUT) {
            rows.extend(rejected(link, &trail)?);
        }
        if rows.is_empty() && error.is_none() {
            continue;
        }
        let name = &link.name;
        disagreements.extend(link.changed.iter().map(|port| format!("{name}: `{port}` is not what this stage read")));
        disagreements.extend(error.iter().map(|error| format!("{name}: {error}")));
        for row in &rows {
            recomputed += row.facts.iter().filter(|fact| fact.recomputed.is_some()).count();
            let differing = row.facts.iter().filter(|fact| !fact.agrees());
            disagreements.extend(differing.map(|fact| format!("{name}: {}: {}", row.title, fact.name)));
        }
        let entry = link.manifest.recipe.entry();
        stages.push(StageTrace { stage: name.clone(), kind: link.kind.clone(), entry, rows, error });
    }
    let mut notes = Vec::new();
    if !judged {
        let what = if trail.is_single() { "this response" } else { "these sides" };
        notes.push(format!("no judge was asked about {what}: the label came with the data"));
    }
    let rows = trail.rows;
    Ok(Followed { pipeline: pipeline.to_owned(), run, id, sides, rows, stages, notes, recomputed, disagreements })
}

/// How a row that goes no further is told.
const LEFT_OUT: &str = "left out";

/// The row that an id means.
fn begin(lineage: &Lineage, pipeline: &str, run: u64, id: &str) -> Result<(String, Vec<Text>)> {
    let means = |cells: &[&str]| cells[0] == id || (id.len() >= SHORTEST && cells[0].starts_with(id));
    let mut found: Vec<(String, Vec<Text>)> = Vec::new();
    for link in &lineage.links {
        for (table, port) in link.ports(&TABLES) {
            let tables = [port];
            found.extend(match table {
                Table::Pairs => find::<Pair, _>(&tables, &["pair_id"], means)?.into_iter().map(of_pair).collect(),
                Table::Items => find::<Item, _>(&tables, &["item_id"], means)?.into_iter().map(of_item).collect(),
                Table::Verdicts => {
                    let rows = find::<Verdict, _>(&tables, &["comparison_id"], means)?;
                    rows.into_iter().map(of_verdict).collect::<Vec<_>>()
                }
                _ => {
                    let rows = find::<Comparison, _>(&tables, &["comparison_id"], means)?;
                    rows.into_iter().map(of_comparison).collect::<Vec<_>>()
                }
            });
        }
    }
    if let Some(exact) = found.iter().position(|(other, _)| other == id) {
        return Ok(found.swap_remove(exact));
    }
    let all: BTreeSet<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
    if all.len() > 1 {
        let some: Vec<&str> = all.iter().copied().take(4).collect();
        let more = if all.len() > some.len() { ", ..." } else { "" };
        return Err(Error::Usage(format!("`{id}` can mean {}{more}; give more of it", some.join(", "))));
    }
    found.into_iter().next().ok_or_else(|| unknown(lineage, pipeline, run, id))
}

fn unknown(lineage: &Lineage, pipeline: &str, run: u64, id: &str) -> Error {
    let tables = lineage.links.iter().flat_map(|link| {
        let ports = link.manifest.ports.iter().filter(|(_, files)| TABLES.contains(&files.table) && files.rows > 0);
        ports.map(move |(port, files)| {
            let name = if link.name == *port { port.clone() } else { format!("{}.{port}", link.name) };
            (files.table, files.rows, name)
        })
    });
    // Of the first of these tables that there is, the largest.
    let rank = |(table, rows, _): &(Table, u64, String)| {
        (TABLES.iter().position(|other| other == table), std::cmp::Reverse(*rows))
    };
    let hint = match tables.min_by_key(rank).map(|(table, _, name)| (table, name)) {
        Some((table, name)) => {
            let column = match table {
                Table::Pairs => "pair_id",
                Table::Items => "item_id",
                _ => "comparison_id",
            };
            format!("`halftone inspect {name} --pipeline {pipeline}` shows ids in the column `{column}`")
        }
        None => "this run has no table of pairs, items or comparisons yet; run the pipeline first".to_owned(),
    };
    Error::Usage(format!("no pair, item or comparison `{id}` in run {run} of `{pipeline}`; {hint}"))
}

/// Puts the ids of all rows about the sides into the trail. Whether a judge's log-probs are among them.
fn gather(lineage: &Lineage, trail: &mut Trail) -> Result<bool> {
    let (mut ids, mut judged) = (BTreeSet::new(), false);
    for link in &lineage.links {
        for (table, port) in link.ports(&[Table::Pairs, Table::Verdicts, Table::Comparisons, Table::Items]) {
            let tables = [port];
            match table {
                Table::Pairs => {
                    for pair in trail.pairs_in::<Pair, _>(&tables)? {
                        ids.insert(pair.pair_id);
                        ids.extend(pair.comparison_id);
                    }
                }
                Table::Verdicts => {
                    for verdict in trail.pairs_in::<Verdict, _>(&tables)? {
                        judged |= verdict.ab_logp_a.is_some();
                        ids.insert(verdict.comparison_id);
                    }
                }
                Table::Items => ids.extend(trail.sides_in::<Item, _>(&tables)?.into_iter().map(|item| item.item_id)),
                _ => ids.extend(trail.pairs_in::<Comparison, _>(&tables)?.into_iter().map(|row| row.comparison_id)),
            }
        }
    }
    trail.rows = ids.into_iter().collect();
    Ok(judged)
}

/// The rows of a trail that a stage rejected.
fn rejected(link: &Link, trail: &Trail) -> Result<Vec<Traced>> {
    let mut traced = Vec::new();
    for (_, port) in link.ports(&[Table::Rejects]) {
        let is_ours = |cells: &[&str]| {
            trail.rows.iter().any(|id| id == cells[0]) || trail.sides.iter().any(|side| side.response_id == cells[0])
        };
        for reject in find::<Reject, _>(&[port], &["row_id"], is_ours)? {
            let facts = vec![Fact::told(LEFT_OUT, reject.reason).because(reject.detail)];
            traced.push(Traced { title: format!("row {} of `{}`", reject.row_id, reject.input), facts });
        }
    }
    Ok(traced)
}

fn text(role: &'static str, ids: (String, String), prompt: Vec<Message>, response: Vec<Message>) -> Text {
    Text { role, side: Side { prompt_id: ids.0, response_id: ids.1 }, prompt, response }
}

fn of_pair(row: Pair) -> (String, Vec<Text>) {
    let chosen = text("chosen", (row.chosen_prompt_id, row.chosen_response_id), row.chosen_prompt, row.chosen);
    let rejected =
        text("rejected", (row.rejected_prompt_id, row.rejected_response_id), row.rejected_prompt, row.rejected);
    (row.pair_id, vec![chosen, rejected])
}

fn of_item(row: Item) -> (String, Vec<Text>) {
    (row.item_id, vec![text("response", (row.prompt_id, row.response_id), row.prompt, row.response)])
}

fn of_verdict(row: Verdict) -> (String, Vec<Text>) {
    let a = text("a", (row.a_prompt_id, row.a_response_id), row.a_prompt, row.a_response);
    (row.comparison_id, vec![a, text("b", (row.b_prompt_id, row.b_response_id), row.b_prompt, row.b_response)])
}

fn of_comparison(row: Comparison) -> (String, Vec<Text>) {
    let a = text("a", (row.a_prompt_id, row.a_response_id), row.a_prompt, row.a_response);
    (row.comparison_id, vec![a, text("b", (row.b_prompt_id, row.b_response_id), row.b_prompt, row.b_response)])
}
