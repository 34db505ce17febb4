//! `check`: all findings about a pipeline file.

use clap::Args;

use super::file::{PipelineFile, load, remark, warn};
use crate::error::Result;
use crate::pipeline::models;
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub file: PipelineFile,
}

/// Checks a pipeline file.
pub fn check(args: Check) -> Result<()> {
    let graph = load(&args.file)?;
    warn(&graph);
    remark(&graph, &models::check(&graph, |_| true)?);
    print(&format!("{}: {} stages, nothing wrong\n", args.file.pipeline.display(), graph.nodes.len()))
}
