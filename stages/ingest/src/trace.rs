//! Where rows came from: file and line, and what stands there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;

use kit::rows::{Comparison, Item, Pair, Response, Verdict};
use kit::{Context, Fact, Result, Traced, Trail, ids};

/// A line is shown up to so many characters.
const SHOWN: usize = 400;

/// The rows of a trail in all tables that were written.
pub(crate) fn trace(context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
    let mut traced = Vec::new();
    // Rows of one line show it once.
    let mut lines = BTreeSet::new();
    for held_out in ["", "holdout_"] {
        let port = |table: &str| {
            let folder = context.port(&format!("{held_out}{table}"));
            if folder.is_dir() { vec![folder] } else { Vec::new() }
        };
        let note = if held_out.is_empty() { "" } else { ", held out" };
        let mut add = |what: &str, id: &str, mut facts: Vec<Fact>, source: (&Option<String>, Option<u64>)| {
            let shown = source.0.clone().zip(source.1);
            let again = shown.is_some() && !lines.insert(shown);
            facts.extend(place(source, !again));
            traced.push(Traced { title: format!("{what} {id}{note}"), facts });
        };
        for row in trail.pairs_in::<Pair, _>(&port("pairs"))? {
            let made = ids::pair_id(
                (&row.chosen_prompt_id, &row.chosen_response_id),
                (&row.rejected_prompt_id, &row.rejected_response_id),
            );
            let how = if row.pair_id == made { "digest of both sides' ids" } else { "from the data" };
            let facts = vec![
                Fact::told("pair_id", row.pair_id.as_str()).because(how),
                Fact::told("p_hat", row.p_hat).because("P(chosen better): from the data, or 1 where it says none"),
                Fact::told("weight", row.weight),
            ];
            add("pair", &row.pair_id, facts, (&row.source_file, row.source_line));
        }
        for row in trail.pairs_in::<Verdict, _>(&port("verdicts"))? {
            let facts = vec![Fact::told("p_hat", row.p_hat).because("P(a better) in the data")];
            add("verdict", &row.comparison_id, facts, (&row.source_file, row.source_line));
        }
        for row in trail.pairs_in::<Comparison, _>(&port("comparisons"))? {
            add("comparison", &row.comparison_id, Vec::new(), (&row.source_file, row.source_line));
        }
        for row in trail.sides_in::<Item, _>(&port("items"))? {
            let facts = vec![Fact::told("label", row.label), Fact::told("weight", row.weight)];
            add("item", &row.item_id, facts, (&row.source_file, row.source_line));
        }
        for row in trail.sides_in::<Response, _>(&port("responses"))? {
            let made = ids::response_id(&row.prompt_id, &row.messages);
            let how = if row.response_id == made { "digest of its prompt's id and its text" } else { "from the data" };
            let facts = vec![Fact::told("response_id", row.response_id.as_str()).because(how)];
            add("response", &row.response_id, facts, (&row.source_file, row.source_line));
        }
    }
    Ok(traced)
}

/// The file and line, and the beginning of the line where the file is text and still there.
fn place((file, line): (&Option<String>, Option<u64>), with_line: bool) -> Vec<Fact> {
    let (Some(file), Some(line)) = (file, line) else {
        return vec![Fact::told("source", "unknown").because("the row names no file")];
    };
    let mut facts = vec![Fact::told("source", format!("{file}:{line}"))];
    let path = Path::new(file);
    if !path.is_file() {
        facts[0].how = "the file is not there any more, seen from this folder".to_owned();
    } else if with_line
        && path.extension().is_some_and(|end| end == "jsonl")
        && let Some(Ok(text)) = std::fs::File::open(path)
            .ok()
            .and_then(|file| BufReader::new(file).lines().nth(usize::try_from(line).ok()?.checked_sub(1)?))
    {
        let shown = match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{} ...", &text[..end]),
            None => text,
        };
        facts.push(Fact::told("line", shown));
    }
    facts
}
