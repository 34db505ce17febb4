//! A pipeline file on the command line, and a choice of its stages.

use std::path::{Path, PathBuf};

use clap::Args;
use kit::Interrupt;

use crate::engine::plan::Selection;
use crate::error::{Error, Result};
use crate::kinds::KINDS;
use crate::pipeline::check::check_file;
use crate::pipeline::graph::Graph;
use crate::pipeline::problem::{Problem, did_you_mean};
use crate::remote;
use crate::store::{Access, Shared, Store};
use crate::streams::say;

/// A pipeline file with overrides.
#[derive(Debug, Clone, Args)]
pub struct PipelineFile {
    /// The pipeline file
    pub pipeline: PathBuf,
    /// Give a value: `seed=3`, `vars.x=..`, `stage.key=<yaml>`
    #[arg(long, value_name = "A.B=YAML")]
    pub set: Vec<String>,
}

/// A choice of stages.
#[derive(Debug, Args)]
pub struct Choice {
    /// This stage alone; its inputs have to exist
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["from", "until"])]
    pub only: Option<String>,
    /// This stage and the stages after it
    #[arg(long, value_name = "STAGE")]
    pub from: Option<String>,
    /// This stage and the stages before it
    #[arg(long, value_name = "STAGE")]
    pub until: Option<String>,
    /// Run this stage, or all stages of a matrix, even if its result could be reused
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// With --only or --from: take the latest results of stages that are out of date
    #[arg(long)]
    pub stale: bool,
}

impl From<Choice> for Selection {
    fn from(choice: Choice) -> Selection {
        let Choice { only, from, until, force, stale } = choice;
        Selection { only, from, until, force, stale }
    }
}

/// The checked pipeline of a command line.
pub(super) fn load(args: &PipelineFile) -> Result<Graph> {
    check_file(&args.pipeline, &args.set, KINDS)
        .map_err(|problems| Error::Problems { file: args.pipeline.clone(), problems })
}

/// The store of a work folder, with the one that the pipeline shares with others. Transfers end when `interrupt` is
/// raised.
///
/// # Errors
/// When the shared store cannot be reached, or refuses.
pub(super) fn store_of(work: &Path, graph: &Graph, access: Access, interrupt: &Interrupt) -> Result<Store> {
    let store = Store::open(work);
    let Some(address) = &graph.remote else { return Ok(store) };
    Ok(store.sharing(Shared::open(remote::open(address, interrupt.clone())?, work, access)?))
}

/// The stage of this name.
pub(super) fn one(graph: &Graph, name: &str) -> Result<usize> {
    match graph.find_all(name)[..] {
        [] => {
            let near = did_you_mean(name, graph.nodes.iter().map(|node| node.name.as_str()));
            Err(Error::Usage(format!("there is no stage `{name}`{near}")))
        }
        [one] => Ok(one),
        [first, ..] => {
            let first = &graph.nodes[first].name;
            Err(Error::Usage(format!("`{name}` is a matrix of stages; name one of them, such as `{first}`")))
        }
    }
}

/// Says on stderr what is not wrong with a pipeline and hardly meant.
pub(super) fn warn(graph: &Graph) {
    graph.warnings.iter().for_each(|warning| say(&format!("warning: {}", warning.line(&graph.file))));
}

/// Says on stderr what is hardly meant on this machine.
pub(super) fn remark(graph: &Graph, remarks: &[Problem]) {
    remarks.iter().for_each(|remark| say(&format!("warning: {}", remark.line(&graph.file))));
}
