//! `check`: all that is wrong with a pipeline file.

use super::{load, remark, warn};
use crate::cli::{self, print};
use crate::error::Result;
use crate::models;

/// Checks a pipeline file.
pub fn check(args: cli::Check) -> Result<()> {
    let graph = load(&args.file)?;
    warn(&graph);
    remark(&graph, &models::check(&graph, |_| true)?);
    print(&format!("{}: {} stages, nothing wrong\n", args.file.pipeline.display(), graph.nodes.len()))
}
