//! `run`: plan, run, and the table at the end.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use kit::Interrupt;

use super::{load, warn};
use crate::cli::{self, Choice};
use crate::error::{Error, Result};
use crate::graph::{Graph, Node};
use crate::hub::{Cache, ModelName};
use crate::plan::{Decision, Planned, Planner, Selection};
use crate::report::{Bars, Fetching, Happened, Json, Lines, Recorder, Reporter, Reporters, RunEvent, summary};
use crate::run::{Options, Run, STACK};
use crate::store::{Attempt, Records, Store};
use crate::{device, hub, models, page, signals};

impl From<Choice> for Selection {
    fn from(choice: Choice) -> Selection {
        let Choice { only, from, until, force, stale } = choice;
        Selection { only, from, until, force, stale }
    }
}

/// Fetches the models that the chosen stages read and that are not here. Says whether there were any.
///
/// A signal ends it at once; what arrived stays and is gone on with.
fn fetch(graph: &Graph, planned: &[Planned]) -> Result<bool> {
    let chosen = (0..planned.len()).filter(|stage| !matches!(planned[*stage].decision, Decision::Skip(_)));
    let mut names: Vec<&ModelName> = chosen.flat_map(|stage| graph.absent(stage)).collect();
    names.sort();
    names.dedup();
    let cache = Cache::of_user();
    for name in &names {
        let bar = Fetching::new(name);
        hub::fetch(&cache, name, &mut |file, done, total| bar.tell(file, done, total))?;
        if cache.find(name).is_none() {
            return Err(kit::Error::internal(format!("`{name}` was fetched and is not in the cache")).into());
        }
    }
    Ok(!names.is_empty())
}

/// Runs a pipeline.
pub fn run(work: &Path, args: cli::Run) -> Result<()> {
    let listener = signals::listen().map_err(kit::Error::io("signals"))?;
    let mut graph = load(&args.file)?;
    warn(&graph);
    device::check(&args.device)?;
    let mut options = Options {
        selection: args.choice.into(),
        device: "cpu".to_owned(),
        no_wait: args.no_wait,
        command: std::env::args().collect(),
    };
    if options.selection.stale && options.selection.only.is_none() && options.selection.from.is_none() {
        return Err(Error::Usage("--stale goes with --only or --from".to_owned()));
    }
    let (store, records) = (Store::open(work), Records::new(work));
    let Attempt::Held(_share) = store.share()? else {
        return Err(Error::Locked { what: format!("{} (gc)", work.display()), owner: None });
    };
    let mut planned = Planner::new(&graph, &store, &records, None)?.plan(&options.selection)?;
    if fetch(&graph, &planned)? {
        // With all models here, what decides a result is known.
        graph = load(&args.file)?;
        planned = Planner::new(&graph, &store, &records, None)?.plan(&options.selection)?;
    }
    let runs = |stage: usize| matches!(planned[stage].decision, Decision::Run(_) | Decision::Depends(_));
    // What is remarked on, the stages say themselves.
    models::check(&graph, runs)?;
    // Opening a GPU takes longer than a run in which everything is used again.
    let holds_model = |(node, plan): (&Node, &Planned)| {
        node.stage.needs_device() && matches!(plan.decision, Decision::Run(_) | Decision::Depends(_))
    };
    if graph.nodes.iter().zip(&planned).any(holds_model) {
        options.device = device::resolve(&args.device)?;
    }
    build_pool()?;
    let (number, _alive) = records.begin(&graph.name)?;
    let folder = records.run(&graph.name, number);
    let resolved = folder.join("resolved.yaml");
    std::fs::write(&resolved, crate::resolved::yaml(&graph)).map_err(kit::Error::io(&resolved))?;
    let terminal = std::io::stderr().is_terminal();
    let json = Arc::new(Json::default());
    let told: Box<dyn Reporter> = match (args.json, terminal) {
        (true, _) => Box::new(json.clone()),
        (false, true) => Box::new(Bars::new()),
        (false, false) => Box::new(Lines::default()),
    };
    let reporters = Arc::new(Reporters(vec![Box::new(Recorder::create(&folder.join("events.jsonl"))?), told]));
    let interrupt = Interrupt::default();
    let stopped = reporters.clone();
    listener.at_work(interrupt.clone(), move || stopped.tell(None, &Happened::Run(RunEvent::StopRequested)));
    let run = Run {
        graph: &graph,
        store: &store,
        records: &records,
        options: &options,
        reporter: &*reporters,
        interrupt: &interrupt,
    };
    let (record, result) = run.run(number, planned);
    if !args.json {
        cli::print(&summary(&record, &records))?;
    }
    if result.is_ok() {
        // A run that computed what was asked for is a good run, whatever becomes of its report.
        let line = match cli::guarded(|| Ok(page::of_run(&store, &records, &record)?)) {
            Ok(path) => format!("report: {}\n", path.display()),
            Err(error) => format!("no report: {error}\n"),
        };
        if !args.json {
            cli::print(&line)?;
        }
    }
    result?;
    json.written()
}

/// Builds the pool of threads that stages run in.
fn build_pool() -> Result<()> {
    let Err(error) = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global() else { return Ok(()) };
    // It may be there already; that the system gives no threads is what ends the run.
    match std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>()) {
        None => Ok(()),
        Some(source) => {
            let source = std::io::Error::new(source.kind(), source.to_string());
            Err(kit::Error::Io { path: "threads to compute with".into(), source }.into())
        }
    }
}
