//! `plan`: what a run would do, and what it would take.

use std::collections::BTreeMap;
use std::path::Path;

use kit::Forecast;
use serde_json::{Value, json};

use super::shown::{sentences, shown};
use super::{load, size, warn};
use crate::cli::{self, print};
use crate::error::Result;
use crate::graph::Graph;
use crate::hub;
use crate::plan::{Decision, Planned, Planner};
use crate::report::aligned;
use crate::store::{Records, Store};

/// Prints the plan.
pub fn plan(work: &Path, args: cli::Plan) -> Result<()> {
    let graph = load(&args.file)?;
    warn(&graph);
    let (store, records) = (Store::open(work), Records::new(work));
    let planner = Planner { graph: &graph, store: &store, records: &records };
    let planned = planner.plan(&args.choice.into())?;
    let mut rows = Vec::new();
    let mut stages = Vec::new();
    let mut notes = String::new();
    let mut forecasts: Vec<Option<kit::Result<Forecast>>> = (0..graph.nodes.len()).map(|_| None).collect();
    for &stage in &graph.order {
        let (node, plan) = (&graph.nodes[stage], &planned[stage]);
        if let Decision::Depends(_) = plan.decision {
            for name in graph.absent(stage) {
                notes.push_str(&format!("{}: `{name}` will be fetched from {}\n", node.name, hub::endpoint()));
            }
        }
        if let Decision::Run(_) = plan.decision {
            forecasts[stage] = planner.forecast(stage, &planned, "cpu");
        }
        let word = match &plan.decision {
            Decision::Reuse(_) => "reuse",
            Decision::Stale(..) => "stale",
            Decision::Run(_) => "run",
            Decision::Depends(_) => "depends",
            Decision::Skip(_) => "skip",
        };
        let why = match &plan.decision {
            Decision::Run(reasons) => json!(reasons),
            Decision::Depends(on) => json!(on),
            Decision::Skip(why) | Decision::Stale(_, why) => json!([why]),
            Decision::Reuse(_) => json!([]),
        };
        let forecast = forecasts[stage].as_ref().and_then(|forecast| forecast.as_ref().ok());
        let forecast = forecast.map_or(Value::Null, |forecast| json!(forecast));
        let entry = plan.recipe.as_ref().map(|recipe| recipe.entry());
        stages.push(json!({"stage": node.name, "kind": node.kind, "decision": word, "why": why, "entry": entry, "forecast": forecast}));
    }
    let groups = shown(&graph, graph.order.iter().copied());
    for group in &groups {
        let name = &group.name;
        let mut told: Vec<String> = Vec::new();
        let mut sum: Option<Forecast> = None;
        for forecast in group.members.iter().filter_map(|stage| forecasts[*stage].take()) {
            match forecast {
                Ok(forecast) => {
                    for note in &forecast.notes {
                        let line = format!("{name}: {note}\n");
                        if !notes.contains(&line) {
                            notes.push_str(&line);
                        }
                    }
                    sum = Some(sum.map_or(forecast.clone(), |sum| added(sum, &forecast)));
                }
                Err(error) => told.push(format!("no forecast: {error}")),
            }
        }
        told.extend(sum.as_ref().map(words));
        told.dedup();
        let decisions = sentences(&graph, group.members.iter().map(|stage| &planned[*stage].decision));
        rows.push(vec![group.title(), group.kind.to_owned(), decisions, told.join("; ")]);
    }
    // What was hashed for the plan need not be hashed again for the run.
    if work.exists() {
        store.stats().save()?;
    }
    if args.json {
        return print(&format!("{}\n", json!({"pipeline": graph.name, "stages": stages})));
    }
    let counts = if groups.len() < graph.nodes.len() { counts(&graph, &planned) } else { String::new() };
    print(&(aligned(&rows, &[]) + &notes + &counts))
}

/// How many stages of each kind there are and how many of them may run: a matrix makes many of one line.
fn counts(graph: &Graph, planned: &[Planned]) -> String {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (node, plan) in graph.nodes.iter().zip(planned) {
        let count = kinds.entry(node.kind).or_default();
        count.0 += 1;
        count.1 += usize::from(matches!(plan.decision, Decision::Run(_) | Decision::Depends(_)));
    }
    let words = |(kind, (all, run)): (&&str, &(usize, usize))| match run {
        0 => format!("{all} {kind}"),
        run => format!("{all} {kind} ({run} to run)"),
    };
    format!("{} stages: {}\n", graph.nodes.len(), kinds.iter().map(words).collect::<Vec<_>>().join(", "))
}

/// Two forecasts of stages that run one after the other.
fn added(sum: Forecast, other: &Forecast) -> Forecast {
    let both = |a: Option<u64>, b: Option<u64>| a.or(b).map(|_| a.unwrap_or(0) + b.unwrap_or(0));
    Forecast {
        rows: sum.rows + other.rows,
        tokens: both(sum.tokens, other.tokens),
        too_long: both(sum.too_long, other.too_long),
        memory: sum.memory.max(other.memory),
        notes: sum.notes,
    }
}

pub fn words(forecast: &Forecast) -> String {
    let mut words = vec![format!("{} rows", forecast.rows)];
    words.extend(forecast.tokens.map(|tokens| format!("{tokens} tokens")));
    words.extend(forecast.too_long.filter(|rows| *rows > 0).map(|rows| format!("{rows} too long")));
    words.extend(forecast.memory.map(|bytes| format!("{} of memory", size(bytes))));
    words.join(", ")
}
