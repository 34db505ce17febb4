//! `gc`: removes what recent runs do not need.

use std::path::Path;

use clap::Args;

use crate::error::{Error, Result};
use crate::progress::aligned;
use crate::store::{Attempt, Records, Store, garbage};
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
    print(&format!("{}{} {verb}, {}\n", aligned(&rows, &[1]), rows.len(), size(bytes)))
}
