//! `shard`: shards of one stage, beside other processes that compute others.

use std::path::Path;
use std::sync::Arc;

use clap::Args;
use kit::Interrupt;

use super::file::{PipelineFile, load, one, store_of};
use crate::engine::executor::Here;
use crate::engine::plan::{Decision, Planner, Selection};
use crate::engine::run::{Options, Run};
use crate::engine::shards::{Shards, ShardsOutcome};
use crate::engine::share::FetchOutcome;
use crate::engine::work::Work;
use crate::engine::{device, run, signals};
use crate::error::{Error, Result};
use crate::pipeline::models;
use crate::progress::{Course, Detail, Event, Json, Lines, Reporter, Reporters, RunEvent};
use crate::store::{Access, Attempt, Records};
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Shard {
    #[command(flatten)]
    pub file: PipelineFile,
    /// A row-wise stage: judge, sample, embed, reference, compare by embeddings; its inputs have to exist
    #[arg(long)]
    pub stage: String,
    /// Shards to compute, from 0: `3-7`, `0,3-7`, `2/16` (part 2 of 16 parts, from 0), or `all`
    #[arg(long, default_value = "all", value_name = "SHARDS")]
    pub shards: Shards,
    /// Device that models compute on: auto, cpu or cuda:N
    #[arg(long, default_value = "auto", env = "HALFTONE_DEVICE", hide_env_values = true)]
    pub device: String,
    /// Print errors alone
    #[arg(short, long)]
    pub quiet: bool,
    /// Print events as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
    /// Leave (exit 75) rather than wait where a run works on the stage
    #[arg(long)]
    pub no_wait: bool,
}

/// Computes shards of a stage. `run` ends the stage, once they are there.
pub fn shard(work: &Path, args: Shard) -> Result<()> {
    let listener = signals::listen().map_err(kit::Error::io("signals"))?;
    let graph = load(&args.file)?;
    device::check(&args.device)?;
    let stage = one(&graph, &args.stage)?;
    let node = &graph.nodes[stage];
    let interrupt = Interrupt::default();
    let (store, records) = (store_of(work, &graph, Access::Work, &interrupt)?, Records::new(work));
    let Attempt::Held(_share) = store.share()? else {
        return Err(Error::Locked { what: format!("{} (gc)", work.display()), owner: None });
    };
    let planner = Planner::new(&graph, &store, &records, None)?;
    let planned = planner.plan(&Selection { until: Some(node.name.clone()), ..Selection::default() })?;
    let results = |stage: usize| planned[stage].decision.manifest();
    if let Some(source) = graph.sources(stage).find(|source| results(*source).is_none()) {
        let source = &graph.nodes[source].name;
        let text = format!("`{}` reads `{source}`, which is not there yet: `halftone run --until {source}`", node.name);
        return Err(Error::Usage(text));
    }
    if let Some(name) = graph.absent(stage).next() {
        let text = format!("the model `{name}` of `{}` is not here yet: `halftone run` fetches it", node.name);
        return Err(Error::Usage(text));
    }
    models::check(&graph, |other| other == stage)?;
    let device = if node.stage.needs_device() { device::resolve(&args.device)? } else { "cpu".to_owned() };
    run::build_pool()?;
    let json = Arc::new(Json::default());
    let mut reporters: Vec<Box<dyn Reporter>> = Vec::new();
    match (args.json, args.quiet) {
        (true, _) => reporters.push(Box::new(json.clone())),
        (false, true) => {}
        (false, false) => reporters.push(Box::new(Lines::new(Course::new(Vec::new()), Detail::Short))),
    }
    let reporters = Arc::new(Reporters(reporters));
    let first = reporters.clone();
    listener.at_work(interrupt.clone(), move || first.report(None, &Event::Run(RunEvent::StopRequested)), || {});
    let options = Options { selection: Selection::default(), device, no_wait: args.no_wait, command: Vec::new() };
    let run = Run {
        graph: &graph,
        store: &store,
        records: &records,
        options: &options,
        executor: &Here,
        reporter: &*reporters,
        interrupt: &interrupt,
    };
    let failed = |source| Error::Stage { stage: node.name.clone(), source };
    let recipe = planner.inputs.recipe(stage, &results).map_err(failed)?;
    // A worker of a run goes on: the run holds the lock, and waits for its shards.
    let elsewhere = matches!(planned[stage].decision, Decision::Fetch(_))
        && matches!(store.lock_beside(&recipe.entry())?, Attempt::Held(_));
    if elsewhere {
        let text = format!("{}: the shared store has its whole result; `halftone run` fetches it\n", node.name);
        return if args.json || args.quiet { json.written() } else { print(&text) };
    }
    for source in graph.upstream(stage) {
        let (Decision::Fetch(manifest), Some(shared)) = (&planned[source].decision, store.shared()) else { continue };
        let source = &graph.nodes[source];
        if let FetchOutcome::Damaged = run.fetch(source, shared, manifest)? {
            let text =
                format!("the shared result of `{0}` is damaged: `halftone run --until {0}` computes it", source.name);
            return Err(failed(kit::Error::Data(text)));
        }
    }
    let outcome = Work::of(&run, &planner.inputs, stage, &recipe, &results).shards(&args.shards)?;
    store.stats().save()?;
    if !args.json && !args.quiet {
        print(&match outcome {
            None => format!("{}: its whole result is there\n", node.name),
            Some(ShardsOutcome { shards, chosen, computed }) => format!(
                "{}: {chosen} of {shards} shards are there, {computed} of them computed now; `halftone run` ends the \
                 stage once all are\n",
                node.name
            ),
        })?;
    }
    json.written()
}
