//! `plan`: the stages that would run, with forecasts of memory and time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use kit::Interrupt;
use serde_json::{Value, json};

use super::file::{Choice, PipelineFile, load, remark, store_of, warn};
use super::forecasts::{Notes, Sum, Total, in_json};
use super::growth;
use super::on::{self, OnCluster};
use super::shown::{sentences, shown};
use crate::engine::forecast::{Forecaster, shortage};
use crate::engine::plan::{Decision, Planned, Planner};
use crate::error::Result;
use crate::hub;
use crate::pipeline::graph::Graph;
use crate::pipeline::models;
use crate::progress::aligned;
use crate::store::{Access, Records};
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    pub file: PipelineFile,
    #[command(flatten)]
    pub choice: Choice,
    /// Device that models would compute on: auto, cpu or cuda:N
    #[arg(long, default_value = "auto", env = "HALFTONE_DEVICE", hide_env_values = true)]
    pub device: String,
    /// The plan as JSON
    #[arg(long)]
    pub json: bool,
    /// What a run over so many rows needs, such as 1e9: rows, bytes, shards, hours and memory of each stage
    #[arg(long, value_name = "ROWS", value_parser = growth::rows, conflicts_with_all = ["on", "only", "from", "until"])]
    pub rows: Option<u64>,
    /// A cluster file: show the tasks that `run --on` would submit, too
    #[arg(long, value_name = "CLUSTER", conflicts_with_all = ["force", "stale"])]
    pub on: Option<PathBuf>,
    /// Write the scripts or manifests of these tasks into a folder; submit nothing
    #[arg(long, value_name = "FOLDER", requires = "on")]
    pub render: Option<PathBuf>,
}

/// Prints the plan.
pub fn plan(work: &Path, args: Plan) -> Result<()> {
    let graph = load(&args.file)?;
    warn(&graph);
    let store = store_of(work, &graph, Access::Look, &Interrupt::default())?;
    let records = Records::new(work);
    let planner = Planner::new(&graph, &store, &records, None)?;
    let selection = on::words(&args.choice);
    let planned = planner.plan(&args.choice.into())?;
    let runs = |stage: usize| planned[stage].decision.computes();
    remark(&graph, &models::check(&graph, runs)?);
    let cluster = args.on.as_ref().map(|file| OnCluster::of(file, &graph, &planned)).transpose()?;
    let mut forecaster = Forecaster::new(&planner, &planned, &args.device, work);
    if let Some(rows) = args.rows {
        return growth::grow(&planner, &planned, &mut forecaster, rows, args.json);
    }
    let forecasts = forecaster.all();
    let mut rows = Vec::new();
    let mut stages = Vec::new();
    let mut notes = Notes::default();
    for &stage in &graph.order {
        let (node, plan) = (&graph.nodes[stage], &planned[stage]);
        if let Decision::Depends(_) = plan.decision {
            for name in graph.absent(stage) {
                notes.add(&node.name, &format!("`{name}` will be fetched from {}", hub::endpoint()));
            }
        }
        let word = match &plan.decision {
            Decision::Reuse(_) => "reuse",
            Decision::Fetch(_) => "fetch",
            Decision::Stale(..) => "stale",
            Decision::Run(_) => "run",
            Decision::Depends(_) => "depends",
            Decision::Skip(_) => "skip",
        };
        let why = match &plan.decision {
            Decision::Run(reasons) => json!(reasons),
            Decision::Depends(on) => json!(on),
            Decision::Skip(why) | Decision::Stale(_, why) => json!([why]),
            Decision::Reuse(_) | Decision::Fetch(_) => json!([]),
        };
        let forecast = forecasts[stage].as_ref().and_then(|forecast| forecast.as_ref().ok());
        let forecast = forecast.map_or(Value::Null, in_json);
        let entry = plan.recipe.as_ref().map(|recipe| recipe.entry());
        stages.push(json!({"stage": node.name, "kind": node.kind, "decision": word, "why": why, "entry": entry, "forecast": forecast}));
    }
    let groups = shown(&graph, graph.order.iter().copied());
    let mut sums: Vec<(&str, Sum)> = Vec::new();
    let mut does_not_fit = Notes::default();
    for group in &groups {
        let mut words: Vec<String> = Vec::new();
        let mut sum: Option<Sum> = None;
        for forecast in group.members.iter().filter_map(|stage| forecasts[*stage].as_ref()) {
            match forecast {
                Ok(forecast) => {
                    forecast.forecast.notes.iter().for_each(|note| notes.add(&group.name, note));
                    let node = &graph.nodes[group.members[0]];
                    let short = shortage(&forecast.forecast, node, forecaster.device());
                    short.iter().for_each(|text| does_not_fit.add(&group.name, text));
                    let one = Sum::of(&forecast.forecast, forecast.time);
                    sum = Some(sum.map_or(one.clone(), |sum| sum.plus(one)));
                }
                Err(error) => words.push(format!("no forecast: {error}")),
            }
        }
        words.extend(sum.as_ref().map(Sum::words));
        words.dedup();
        sums.extend(sum.map(|sum| (group.name.as_str(), sum)));
        let decisions = sentences(&graph, group.members.iter().map(|stage| &planned[*stage].decision));
        rows.push(vec![group.title(), group.kind.to_owned(), decisions, words.join("; ")]);
    }
    // Digests that the plan computed are reused by the run.
    if work.exists() {
        store.stats().save()?;
    }
    let mut files = Vec::new();
    if let (Some(cluster), Some(folder)) = (&cluster, &args.render) {
        files = cluster.render(folder, work, &args.device, &selection)?;
    }
    let total = Total::of(&sums, &forecasts, &forecaster);
    if args.json {
        let short: Vec<&str> = does_not_fit.text.lines().collect();
        let mut plan = json!({
            "pipeline": graph.name, "stages": stages, "total": total.in_json(), "does_not_fit": short,
            "remote": graph.remote.as_ref().map(ToString::to_string),
        });
        if let Some(cluster) = &cluster {
            plan["on"] = cluster.in_json(&forecasts);
            plan["on"]["files"] = json!(files);
        }
        return print(&format!("{plan}\n"));
    }
    let counts = if groups.len() < graph.nodes.len() { counts(&graph, &planned) } else { String::new() };
    let mut text = aligned(&rows, &[]) + &notes.text + &counts + &total.text(&args.file.pipeline) + &does_not_fit.text;
    if let Some(cluster) = &cluster {
        text.push_str(&cluster.text(&forecasts));
        files.iter().for_each(|file| text.push_str(&format!("written: {}\n", file.display())));
    }
    print(&text)
}

/// Numbers of stages of each kind, and of those that may run: a matrix makes many of one line.
fn counts(graph: &Graph, planned: &[Planned]) -> String {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (node, plan) in graph.nodes.iter().zip(planned) {
        let count = kinds.entry(node.kind).or_default();
        count.0 += 1;
        count.1 += usize::from(plan.decision.computes());
    }
    let words = |(kind, (all, run)): (&&str, &(usize, usize))| match run {
        0 => format!("{all} {kind}"),
        run => format!("{all} {kind} ({run} to run)"),
    };
    format!("{} stages: {}\n", graph.nodes.len(), kinds.iter().map(words).collect::<Vec<_>>().join(", "))
}
