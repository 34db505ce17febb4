//! `schema`, `kinds` and `completions`: for editors, readers and shells.

use clap::Args;
use clap::CommandFactory;
use serde_json::Value;

use super::Cli;
use crate::error::{Error, Result};
use crate::kinds::KINDS;
use crate::pipeline;
use crate::pipeline::problem::did_you_mean;
use crate::progress::aligned;
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Schema {
    /// A kind: its keys with their documentation
    pub kind: Option<String>,
    /// The JSON Schema of cluster files, for `run --on` and `plan --on`
    #[arg(long, conflicts_with = "kind")]
    pub cluster: bool,
}

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Prints the schema of pipeline files, or of one kind's configuration.
pub fn schema(args: Schema) -> Result<()> {
    let text = match &args.kind {
        None if args.cluster => pretty(&crate::cluster::reading::schema()),
        None => of_pipelines(),
        Some(name) => {
            let kind = KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
                let near = did_you_mean(name, KINDS.iter().map(|kind| kind.name));
                Error::Usage(format!("there is no kind `{name}`{near}"))
            })?;
            pretty(&(kind.schema)().to_value())
        }
    };
    print(&text)
}

/// The text of the schema of pipeline files.
pub(super) fn of_pipelines() -> String {
    pretty(&pipeline::json_schema(KINDS))
}

fn pretty(schema: &Value) -> String {
    format!("{}\n", serde_json::to_string_pretty(schema).expect("a schema can be written as JSON"))
}

/// Prints the kinds.
pub fn kinds() -> Result<()> {
    let rows: Vec<Vec<String>> = KINDS.iter().map(|kind| vec![kind.name.to_owned(), kind.about.to_owned()]).collect();
    print(&aligned(&rows, &[]))
}

/// Prints a shell's completions.
pub fn completions(shell: clap_complete::Shell) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "halftone", &mut text);
    print(&String::from_utf8_lossy(&text))
}
