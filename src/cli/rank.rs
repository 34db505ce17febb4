//! `rank`: one stage by several processes, each a rank, that `mpirun` or `srun` starts.

use std::num::NonZeroU32;
use std::path::Path;

use clap::Args;

use super::file::PipelineFile;
use crate::error::{Error, Result};

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
    /// Ranks that were started; where MPI knows of others it is an error
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

/// Computes a stage as one of several ranks. Rank 0 has the store's work, and commits.
#[cfg(not(feature = "mpi"))]
pub fn rank(_work: &Path, _args: Rank) -> Result<()> {
    let text = "this build has no MPI: build with `--features mpi`, or use `halftone run --jobs N` on one machine";
    Err(Error::Usage(text.to_owned()))
}

#[cfg(feature = "mpi")]
pub use with_mpi::rank;

#[cfg(feature = "mpi")]
mod with_mpi {
    use std::time::Duration;

    use kit::{Collective, Interrupt};

    use super::super::file::{Choice, load, one, store_of};
    use super::super::run::{Run, run_with};
    use super::*;
    use crate::engine::executor::Here;
    use crate::engine::mpi::World;
    use crate::engine::plan::{Planner, Selection};
    use crate::engine::ranks::Meeting;
    use crate::engine::run::Options;
    use crate::engine::work::Work;
    use crate::engine::{device, run, signals};
    use crate::exit;
    use crate::pipeline::models;
    use crate::progress::Reporters;
    use crate::store::{Access, Records};

    /// The end of one rank ends all. Rank 0 has a record to write first.
    const AFTER_RANK_0: Duration = Duration::from_secs(2);

    /// Computes a stage as one of several ranks. Rank 0 has the store's work, and commits.
    pub fn rank(work: &Path, args: Rank) -> Result<()> {
        let world = World::join(Duration::from_secs(args.patience.get().into()))?;
        let size = world.size();
        let result = if let Some(started) = args.ranks.filter(|started| *started != size) {
            let text = format!(
                "{started} ranks were started, and this one sees {size}: what starts them has to fit the MPI of this build"
            );
            Err(Error::Usage(text))
        } else if size.is_power_of_two() {
            let meeting = Meeting::of(&world);
            let device = of_machine(&args.device);
            meeting.end(match world.rank() {
                0 => lead(work, args, device, &meeting),
                _ => follow(work, args, device, &meeting),
            })
        } else {
            Err(Error::Usage(format!("{size} processes were started; wanted a power of two")))
        };
        match &result {
            // All have met such an end.
            Ok(()) | Err(Error::Kit(kit::Error::Interrupted)) => world.leave(),
            Err(error) => {
                if world.rank() > 0 {
                    std::thread::sleep(AFTER_RANK_0);
                }
                super::super::complain(&error.to_string());
                world.abort(exit::code(error));
            }
        }
        result
    }

    /// The device of this process among those of its machine, which share a list in turn.
    fn of_machine(devices: &str) -> String {
        let number = |key: &str| std::env::var(key).ok()?.parse::<usize>().ok();
        let local = number("OMPI_COMM_WORLD_LOCAL_RANK").or_else(|| number("SLURM_LOCALID"));
        let local = local.or_else(|| number("MPI_LOCALRANKID")).unwrap_or_default();
        let devices: Vec<&str> = devices.split(',').map(str::trim).collect();
        devices[local % devices.len()].to_owned()
    }

    /// Rank 0: a run of this stage alone.
    fn lead(work: &Path, args: Rank, device: String, meeting: &Meeting<'_>) -> Result<()> {
        let Rank { file, stage, quiet, json, .. } = args;
        let choice = Choice { only: Some(stage), from: None, until: None, force: Vec::new(), stale: false };
        let (jobs, on) = (std::num::NonZeroUsize::MIN, None);
        let (dry_run, verbose, no_wait) = (false, false, false);
        let run = Run { file, choice, device, jobs, on, dry_run, verbose, quiet, json, no_wait };
        run_with(work, run, Some(meeting))
    }

    /// Another rank.
    fn follow(work: &Path, args: Rank, device: String, meeting: &Meeting<'_>) -> Result<()> {
        let listener = signals::listen().map_err(kit::Error::io("signals"))?;
        let graph = load(&args.file)?;
        device::check(&device)?;
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
        let device = if node.stage.needs_device() { device::resolve(&device)? } else { "cpu".to_owned() };
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
}
