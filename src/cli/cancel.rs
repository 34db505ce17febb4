//! `cancel`: tasks on a cluster that were submitted from the work folder.

use std::path::Path;

use clap::Args;

use crate::cluster::ledger::Ledger;
use crate::cluster::rendered::ENVIRONMENT;
use crate::cluster::slurm::SlurmCommands;
use crate::cluster::submit;
use crate::error::{Error, Result};
use crate::look::runs::pipeline_name;
use crate::pipeline::problem::did_you_mean;
use crate::store::Attempt;
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Cancel {
    /// A pipeline's name or file; all of them if left out
    pub pipeline: Option<String>,
}

/// Cancels what `run --on` submitted. What is committed stays, and `run --on` goes on from there.
pub fn cancel(work: &Path, args: Cancel) -> Result<()> {
    let all = Ledger::pipelines(work)?;
    let names = match &args.pipeline {
        Some(text) => {
            let name = pipeline_name(text)?;
            if !all.contains(&name) {
                let near = did_you_mean(&name, all.iter().map(String::as_str));
                let text = format!("nothing was submitted for `{name}` from {}{near}", work.display());
                return Err(Error::Usage(text));
            }
            vec![name]
        }
        None => all,
    };
    let mut text = String::new();
    for name in names {
        let ledger = Ledger::new(work, &name);
        let Attempt::Held(_lock) = ledger.lock()? else {
            return Err(Error::Locked { what: format!("the submission of `{name}`"), owner: None });
        };
        let cancelled = submit::cancel(&ledger.read()?, &SlurmCommands)?;
        // Nobody reads the values now; the next submission writes them again.
        let environment = ledger.folder().join(ENVIRONMENT);
        match std::fs::remove_file(&environment) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(kit::Error::io(&environment)(error).into());
            }
            _ => {}
        }
        text.push_str(&match cancelled {
            0 => format!("{name}: no task is in the queue\n"),
            1 => format!("{name}: 1 task cancelled\n"),
            count => format!("{name}: {count} tasks cancelled\n"),
        });
    }
    if text.is_empty() {
        text = format!("nothing was submitted from {}\n", work.display());
    }
    print(&text)
}
