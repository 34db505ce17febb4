//! `rank`: one stage by several processes, each a rank, that `mpirun`, `srun` or `torchrun` starts.

use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use clap::{Args, ValueEnum};
use kit::{Collective, Interrupt};

use super::file::{Choice, PipelineFile, load, one, store_of};
use super::run::{Run, run_with};
use crate::engine::executor::Here;
use crate::engine::launch::{self, Place};
use crate::engine::nccl::{Libraries, Over};
use crate::engine::plan::{Planner, Selection};
use crate::engine::ranks::{Meeting, Processes};
use crate::engine::run::Options;
use crate::engine::work::Work;
use crate::engine::{device, run, signals, tcp};
use crate::error::{Error, Result};
use crate::exit;
use crate::pipeline::models;
use crate::progress::Reporters;
use crate::store::{Access, Records};
use crate::streams::say;

#[derive(Debug, Args)]
pub struct Rank {
    #[command(flatten)]
    pub file: PipelineFile,
    /// A training; its inputs have to exist
    #[arg(long)]
    pub stage: String,
    /// Device that models compute on: auto, cpu, cuda:N, or one for each process of a machine such as cuda:0,cuda:1
    #[arg(long, default_value = "auto", env = "HALFTONE_DEVICE", hide_env_values = true)]
    pub device: String,
    /// How ranks speak; unless given nccl on GPUs, else mpi in a build with it, else tcp
    #[arg(long, env = "HALFTONE_TRANSPORT", hide_env_values = true)]
    pub transport: Option<Transport>,
    /// Ranks that were started; where the launcher knows of others it is an error
    #[arg(long, value_name = "N")]
    pub ranks: Option<usize>,
    /// Seconds that ranks wait for one that computes, at most; one that is gone or stopped is found after 30
    #[arg(long, default_value_t = NonZeroU32::new(1800).expect("above 0"), value_name = "SECONDS", env = "HALFTONE_PATIENCE", hide_env_values = true)]
    pub patience: NonZeroU32,
    /// Print errors alone
    #[arg(short, long)]
    pub quiet: bool,
    /// Print events as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
}

/// A way between ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// Connections of their own; ranks find each other by a file in the work folder
    Tcp,
    /// The MPI that the program was built with (feature `mpi`)
    Mpi,
    /// Large messages from GPU to GPU by NCCL, which has to be installed; small ones as with tcp
    Nccl,
}

/// The end of one rank ends all. Rank 0 has a record to write first.
const AFTER_RANK_0: Duration = Duration::from_secs(2);

/// Computes a stage as one of several ranks. Rank 0 has the store's work, and commits.
pub fn rank(work: &Path, args: Rank) -> Result<()> {
    let place = launch::own();
    let device = of_machine(&args.device, place.as_ref().map_or(0, |place| place.local));
    match args.transport.unwrap_or_else(|| usual(&device)) {
        Transport::Tcp => {
            let world = in_work_folder(work, &args, place)?;
            let result = fits(&world, &args).and_then(|()| compute(work, &args, &device, &world));
            ended(Box::new(world), result)
        }
        Transport::Mpi => over_mpi(work, &args, &device),
        Transport::Nccl => over_nccl(work, &args, &device, place),
    }
}

fn usual(device: &str) -> Transport {
    match (cfg!(feature = "cuda") && device.starts_with("cuda"), cfg!(feature = "mpi")) {
        (true, _) => Transport::Nccl,
        (false, true) => Transport::Mpi,
        (false, false) => Transport::Tcp,
    }
}

#[cfg(not(feature = "mpi"))]
fn over_mpi(_work: &Path, _args: &Rank, _device: &str) -> Result<()> {
    Err(Error::Usage("--transport mpi: this build has no MPI: build with `--features mpi`, or say `tcp`".to_owned()))
}

#[cfg(feature = "mpi")]
fn over_mpi(work: &Path, args: &Rank, device: &str) -> Result<()> {
    let world = crate::engine::mpi::World::join(patience(args))?;
    let result = fits(&world, args).and_then(|()| compute(work, args, device, &world));
    ended(Box::new(world), result)
}

fn over_nccl(work: &Path, args: &Rank, device: &str, place: Option<Place>) -> Result<()> {
    let local = place.as_ref().map_or(0, |place| place.local);
    let world = in_work_folder(work, args, place)?;
    let result = fits(&world, args).and_then(|()| {
        let libraries = Libraries::open().map_err(|error| Error::Usage(format!("--transport nccl: {error}")))?;
        let over = Over::join(libraries, &world, device, local, |done| world.wait(done))?;
        compute(work, args, device, &over)
    });
    ended(Box::new(world), result)
}

/// Joins the others by a file in the work folder.
fn in_work_folder(work: &Path, args: &Rank, place: Option<Place>) -> Result<tcp::World> {
    let place = place.ok_or_else(|| {
        let text = "nothing says which rank this is: start the ranks with `mpirun`, `srun` or `torchrun`, or give each \
                    the variables RANK, WORLD_SIZE and LOCAL_RANK";
        Error::Usage(text.to_owned())
    })?;
    if place.rank >= place.size {
        return Err(Error::Usage(format!("rank {} of {} ranks was started", place.rank, place.size)));
    }
    let say = |text: &str| {
        if !args.quiet {
            say(text);
        }
    };
    Ok(tcp::World::join(&work.join("ranks"), &args.stage, &place, patience(args), &say)?)
}

fn patience(args: &Rank) -> Duration {
    Duration::from_secs(args.patience.get().into())
}

/// Refuses a number of ranks that cannot work.
fn fits(ranks: &dyn Collective, args: &Rank) -> Result<()> {
    let size = ranks.size();
    match args.ranks.filter(|started| *started != size) {
        Some(started) => Err(Error::Usage(format!(
            "{started} ranks were started, and this one sees {size}: what starts them has to fit the transport"
        ))),
        None if !size.is_power_of_two() => {
            Err(Error::Usage(format!("{size} processes were started; wanted a power of two")))
        }
        None => Ok(()),
    }
}

fn compute(work: &Path, args: &Rank, device: &str, ranks: &dyn Collective) -> Result<()> {
    let meeting = Meeting::of(ranks);
    meeting.end(match ranks.rank() {
        0 => lead(work, args, device, &meeting),
        _ => follow(work, args, device, &meeting),
    })
}

/// Leaves the others after a good end, and ends them after another one.
fn ended(world: Box<dyn Processes>, result: Result<()>) -> Result<()> {
    match &result {
        // All have met such an end.
        Ok(()) | Err(Error::Kit(kit::Error::Interrupted)) => world.leave(),
        Err(error) => {
            if world.rank() > 0 {
                std::thread::sleep(AFTER_RANK_0);
            }
            super::complain(&error.to_string());
            world.abort(exit::code(error));
        }
    }
    result
}

/// The device of this process among those of its machine, which share a list or all GPUs in turn.
fn of_machine(devices: &str, local: usize) -> String {
    let words: Vec<&str> = devices.split(',').map(str::trim).collect();
    match words[local % words.len()] {
        "auto" => local.checked_rem(device::gpus()).map_or("auto".to_owned(), |number| format!("cuda:{number}")),
        word => word.to_owned(),
    }
}

/// Rank 0: a run of this stage alone.
fn lead(work: &Path, args: &Rank, device: &str, meeting: &Meeting<'_>) -> Result<()> {
    let Rank { file, stage, quiet, json, .. } = args;
    let choice = Choice { only: Some(stage.clone()), from: None, until: None, force: Vec::new(), stale: false };
    let (jobs, on) = (std::num::NonZeroUsize::MIN, None);
    let (dry_run, verbose, no_wait) = (false, false, false);
    let (file, device) = (file.clone(), device.to_owned());
    let run = Run { file, choice, device, jobs, on, dry_run, verbose, quiet: *quiet, json: *json, no_wait };
    run_with(work, run, Some(meeting))
}

/// Another rank.
fn follow(work: &Path, args: &Rank, device: &str, meeting: &Meeting<'_>) -> Result<()> {
    let listener = signals::listen().map_err(kit::Error::io("signals"))?;
    let graph = load(&args.file)?;
    device::check(device)?;
    let stage = one(&graph, &args.stage)?;
    let node = &graph.nodes[stage];
    let interrupt = Interrupt::default();
    let (store, records) = (store_of(work, &graph, Access::Look, &interrupt)?, Records::new(work));
    let planner = Planner::new(&graph, &store, &records, None)?;
    let planned = planner.plan(&Selection { until: Some(node.name.clone()), ..Selection::default() })?;
    let results = |stage: usize| planned[stage].decision.manifest();
    if let Some(source) = graph.sources(stage).find(|source| results(*source).is_none()) {
        let source = &graph.nodes[source].name;
        let text = format!("`{}` reads `{source}`, which is not there yet", node.name);
        return Err(Error::Usage(text));
    }
    models::check(&graph, |other| other == stage)?;
    let device = if node.stage.needs_device() { device::resolve(device)? } else { "cpu".to_owned() };
    run::build_pool()?;
    listener.at_work(interrupt.clone(), || (), || ());
    let options = Options { selection: Selection::default(), device, no_wait: false, command: Vec::new() };
    let run = run::Run {
        graph: &graph,
        store: &store,
        records: &records,
        options: &options,
        executor: &Here,
        reporter: &Reporters(Vec::new()),
        interrupt: &interrupt,
    };
    let failed = |source| Error::Stage { stage: node.name.clone(), source };
    let recipe = planner.inputs.recipe(stage, &results).map_err(failed)?;
    Work::of(&run, &planner.inputs, stage, &recipe, &results).follow(meeting)
}
