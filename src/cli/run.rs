//! `run`: plan, run, and the end in few lines.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use clap::builder::FalseyValueParser;
use kit::Interrupt;

use super::file::{Choice, PipelineFile, load, store_of, warn};
use super::on;
use crate::engine::executor::{Executor, Here};
use crate::engine::forecast::{Forecaster, shortage};
use crate::engine::plan::{Decision, Planned, Planner};
use crate::engine::pool::Pool;
use crate::engine::run::{self, Options};
use crate::engine::{device, signals};
use crate::error::guarded;
use crate::error::{Error, Result};
use crate::hub;
use crate::hub::{Cache, ModelName};
use crate::look::report;
use crate::pipeline::graph::{Graph, Node};
use crate::pipeline::models;
use crate::progress::{
    Bars, Course, Detail, Event, Fetching, Json, Lines, Recorder, Reporter, Reporters, RunEvent, ending, summary,
};
use crate::store::{Access, Attempt, Records, Store};
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub file: PipelineFile,
    #[command(flatten)]
    pub choice: Choice,
    /// Device that models compute on: auto, cpu, cuda:N, or several such as cuda:0,cuda:1
    #[arg(long, default_value = "auto", env = "HALFTONE_DEVICE", hide_env_values = true)]
    pub device: String,
    /// Workers for each device: processes for shards of row-wise stages, threads for ranks of trainings
    #[arg(long, default_value_t = NonZeroUsize::MIN, value_name = "N")]
    pub jobs: NonZeroUsize,
    /// A cluster file: submit what is missing to its scheduler and leave; again, submit what is still missing
    #[arg(long, value_name = "CLUSTER", conflicts_with_all = ["jobs", "force", "stale", "no_wait", "verbose"])]
    pub on: Option<PathBuf>,
    /// Show the plan, as `plan` does, and run nothing
    #[arg(long, conflicts_with_all = ["no_wait", "jobs"])]
    pub dry_run: bool,
    /// Print every stage with all of its figures
    #[arg(short, long, env = "HALFTONE_VERBOSE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// Print errors alone
    #[arg(short, long, env = "HALFTONE_QUIET", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Print events as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
    /// Leave (exit 75) rather than wait where another run makes the same result
    #[arg(long)]
    pub no_wait: bool,
}

/// Fetches the models that the chosen stages read and that are not here. Says whether there were any.
///
/// A signal ends it at once; what arrived stays and is gone on with.
fn fetch(graph: &Graph, planned: &[Planned], detail: Detail) -> Result<bool> {
    let chosen = (0..planned.len()).filter(|stage| !matches!(planned[*stage].decision, Decision::Skip(_)));
    let mut names: Vec<&ModelName> = chosen.flat_map(|stage| graph.absent(stage)).collect();
    names.sort();
    names.dedup();
    let cache = Cache::of_user();
    for name in &names {
        let bar = (detail > Detail::Quiet).then(|| Fetching::new(name));
        let update = |file: &str, done, total| bar.iter().for_each(|bar| bar.update(file, done, total));
        hub::fetch(&cache, name, &mut |file, done, total| update(file, done, total))?;
        if cache.find(name).is_none() {
            return Err(kit::Error::internal(format!("`{name}` was fetched and is not in the cache")).into());
        }
    }
    Ok(!names.is_empty())
}

/// Runs a pipeline.
pub fn run(work: &Path, args: Run) -> Result<()> {
    run_with(work, args, None)
}

/// Runs a pipeline; `executor` computes in place of what the command line says.
pub fn run_with(work: &Path, args: Run, executor: Option<&dyn Executor>) -> Result<()> {
    if args.dry_run {
        let Run { file, choice, device, json, on, .. } = args;
        return super::plan::plan(work, super::plan::Plan { file, choice, device, json, rows: None, on, render: None });
    }
    let detail = Detail::of(args.quiet, args.verbose);
    let devices: Vec<&str> = args.device.split(',').map(str::trim).collect();
    devices.iter().try_for_each(|device| device::check(device))?;
    if devices.len() * args.jobs.get() > 1 && args.file.pipeline == Path::new("-") {
        let text = "several processes read the pipeline, so it has to be a file and not `-`";
        return Err(Error::Usage(text.to_owned()));
    }
    if args.on.is_some() && devices.len() > 1 {
        return Err(Error::Usage("--on: each task has one device; give --device one word".to_owned()));
    }
    let listener = signals::listen().map_err(kit::Error::io("signals"))?;
    let mut graph = load(&args.file)?;
    if detail > Detail::Quiet {
        warn(&graph);
    }
    let selection = on::words(&args.choice);
    let mut options = Options {
        selection: args.choice.into(),
        device: "cpu".to_owned(),
        no_wait: args.no_wait,
        command: std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect(),
    };
    if options.selection.stale && options.selection.only.is_none() && options.selection.from.is_none() {
        return Err(Error::Usage("--stale goes with --only or --from".to_owned()));
    }
    let interrupt = Interrupt::default();
    let (store, records) = (store_of(work, &graph, Access::Work, &interrupt)?, Records::new(work));
    let Attempt::Held(_share) = store.share()? else {
        return Err(Error::Locked { what: format!("{} (gc)", work.display()), owner: None });
    };
    let mut planned = Planner::new(&graph, &store, &records, None)?.plan(&options.selection)?;
    if fetch(&graph, &planned, detail)? {
        // With all models here, what decides a result is known.
        graph = load(&args.file)?;
        planned = Planner::new(&graph, &store, &records, None)?.plan(&options.selection)?;
    }
    let runs = |stage: usize| planned[stage].decision.computes();
    // The stages report their remarks themselves.
    models::check(&graph, runs)?;
    if let Some(file) = &args.on {
        let submitted = on::submit_to(file, &graph, &planned, &store, devices[0], &selection)?;
        store.stats().save()?;
        // Where nothing is missing, the run below takes up all results and writes the report.
        if !submitted.tasks.is_empty() {
            return match (args.json, detail) {
                (true, _) => print(&format!("{}\n", on::submitted_json(&submitted))),
                (false, Detail::Quiet) => Ok(()),
                (false, _) => print(&on::submitted_text(&submitted, &graph, file)),
            };
        }
    }
    // Opening a GPU takes longer than a run in which everything is used again. What cannot be fetched is computed.
    let holds_model = |(node, plan): (&Node, &Planned)| {
        node.stage.needs_device() && (plan.decision.computes() || matches!(plan.decision, Decision::Fetch(_)))
    };
    if graph.nodes.iter().zip(&planned).any(holds_model) {
        options.device = device::resolve(devices[0])?;
    }
    run::build_pool()?;
    let (course, short) = foreseen(&graph, &store, &records, &planned, (&options.device, args.jobs.get()))?;
    let (number, _alive) = records.begin(&graph.name)?;
    let folder = records.run(&graph.name, number);
    let resolved = folder.join("resolved.yaml");
    std::fs::write(&resolved, crate::engine::resolved::yaml(&graph)).map_err(kit::Error::io(&resolved))?;
    let terminal = std::io::stderr().is_terminal();
    let json = Arc::new(Json::default());
    let mut reporters: Vec<Box<dyn Reporter>> = vec![Box::new(Recorder::create(&folder.join("events.jsonl"))?)];
    match (args.json, detail, terminal) {
        (true, ..) => reporters.push(Box::new(json.clone())),
        (false, Detail::Quiet, _) => {}
        (false, _, true) => reporters.push(Box::new(Bars::new(course, detail))),
        (false, _, false) => reporters.push(Box::new(Lines::new(course, detail))),
    }
    let reporters = Arc::new(Reporters(reporters));
    for (stage, text) in short {
        reporters.report(Some(&stage), &Event::Work(kit::Event::Warned { text }));
    }
    let (first, last) = (reporters.clone(), (records.clone(), graph.name.clone()));
    listener.at_work(
        interrupt.clone(),
        move || first.report(None, &Event::Run(RunEvent::StopRequested)),
        move || last.0.mark_interrupted(&last.1, number),
    );
    let here: Box<dyn Executor> = match devices.len() * args.jobs.get() {
        1 => Box::new(Here),
        workers => Box::new(Pool {
            workers: devices
                .iter()
                .flat_map(|device| std::iter::repeat_n((*device).to_owned(), args.jobs.get()))
                .collect(),
            threads: (rayon::current_num_threads() / workers).max(1),
            file: args.file.pipeline.clone(),
            set: args.file.set.clone(),
            work: work.to_owned(),
        }),
    };
    let run = run::Run {
        graph: &graph,
        store: &store,
        records: &records,
        options: &options,
        executor: executor.unwrap_or(&*here),
        reporter: &*reporters,
        interrupt: &interrupt,
    };
    let (record, result) = run.run(number, planned);
    let print_text = |text: &str| if args.json { Ok(()) } else { print(text) };
    match detail {
        Detail::Quiet => {}
        Detail::Short => print_text(&ending(&record, &records, work, false))?,
        Detail::Full => print_text(&summary(&record, &records))?,
    }
    if result.is_ok() {
        // A run that computed every requested result is a good run, even where its report fails.
        let line = match guarded(|| Ok(report::of_run(&store, &records, &record)?)) {
            Ok(path) => format!("report: {}\n", path.display()),
            Err(error) => format!("no report: {error}\n"),
        };
        if detail > Detail::Quiet {
            print_text(&line)?;
        }
    }
    result?;
    json.written()
}

/// The stages with their forecasts, estimated without reading their inputs; and those for which the memory is too
/// small, with a sentence each.
fn foreseen(
    graph: &Graph,
    store: &Store,
    records: &Records,
    planned: &[Planned],
    (device, jobs): (&str, usize),
) -> Result<(Course, Vec<(String, String)>)> {
    let planner = Planner::new(graph, store, records, None)?;
    let mut forecaster = Forecaster::new(&planner, planned, device, store.root());
    forecaster.jobs = jobs;
    let forecasts = forecaster.estimates();
    let mut short = Vec::new();
    let mut course = Vec::new();
    for &stage in &graph.order {
        let (node, forecast) =
            (&graph.nodes[stage], forecasts[stage].as_ref().and_then(|forecast| forecast.as_ref().ok()));
        // A stage outside the selection is no part of the progress.
        if !matches!(planned[stage].decision, Decision::Skip(_)) {
            course.push((node.name.clone(), forecast.and_then(|forecast| forecast.time)));
        }
        let text = forecast.and_then(|forecast| shortage(&forecast.forecast, node, device));
        short.extend(text.map(|text| (node.name.clone(), text)));
    }
    Ok((Course::new(course), short))
}
