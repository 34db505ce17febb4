//! `gc`: removes what recent runs do not need.

use std::path::Path;

use clap::Args;

use crate::cluster::ledger::{Ledger, ours};
use crate::cluster::scheduler::Scheduler;
use crate::cluster::slurm::SlurmCommands;
use crate::error::{Error, Result};
use crate::progress::aligned;
use crate::store::{Attempt, Records, Shared, Store, garbage};
use crate::streams::print;
use crate::units::size;

#[derive(Debug, Args)]
pub struct Gc {
    /// List what would go, remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Runs of each pipeline whose results stay; the latest result of each stage stays in any case
    #[arg(long, default_value_t = 10, value_name = "RUNS")]
    pub keep: usize,
}

/// Lists what can go, and removes it unless the command only asks.
pub fn gc(work: &Path, args: Gc) -> Result<()> {
    if !work.exists() {
        return print(&format!("nothing in {}\n", work.display()));
    }
    let (store, records) = (Store::open(work), Records::new(work));
    // A run decides to use an entry before its record says so; while one is under way nothing is removed.
    let _alone = match (store.alone()?, args.dry_run) {
        (Attempt::Held(lock), _) => Some(lock),
        (Attempt::Busy(_), true) => None,
        (Attempt::Busy(owner), false) => return Err(Error::Locked { what: work.display().to_string(), owner }),
    };
    if !args.dry_run {
        nothing_queued(work)?;
    }
    let garbage = garbage(&store, &records, args.keep)?;
    let mut rows = Vec::new();
    let mut bytes = 0;
    for item in &garbage {
        bytes += item.bytes;
        if item.what != "lock" {
            rows.push(vec![item.what.to_owned(), size(item.bytes), item.path.display().to_string()]);
        }
        if !args.dry_run {
            item.remove()?;
        }
    }
    let verb = if args.dry_run { "would be removed" } else { "removed" };
    let shared = Shared::known(work)?.into_iter().map(|address| format!("{address} is left as it is\n"));
    let shared: String = shared.collect();
    print(&format!("{}{} {verb}, {}\n{shared}", aligned(&rows, &[1]), rows.len(), size(bytes)))
}

/// Shards that tasks on a cluster have computed belong to no run until the end of their stage.
fn nothing_queued(work: &Path) -> Result<()> {
    for name in Ledger::pipelines(work)? {
        let jobs = Ledger::new(work, &name).read()?;
        let queued = SlurmCommands.queued().map_err(|error| {
            let folder = Ledger::new(work, &name).folder().display().to_string();
            let text =
                format!("whether tasks of `{name}` are in the queue is unknown: {error}; without {folder} none are");
            kit::Error::Unreachable(text)
        })?;
        if !ours(&jobs.jobs, &queued).is_empty() {
            let what = format!("{}, with tasks of `{name}` in the queue of its cluster,", work.display());
            return Err(Error::Locked { what, owner: None });
        }
    }
    Ok(())
}
