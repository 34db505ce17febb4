//! The command line: one file for each command.

mod cancel;
mod check;
mod dag;
mod diff;
mod doctor;
mod export;
mod file;
mod forecasts;
mod gc;
mod growth;
mod init;
mod inspect;
mod models;
mod on;
mod plan;
mod queue;
mod rank;
mod render;
mod report;
mod run;
mod schema;
mod shard;
mod shown;
mod status;
mod trace;
pub mod verify;

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::engine::signals;
use crate::error::{Error, Result, guarded};
use crate::exit;
use crate::store::WORK;
use crate::streams::{print, say_coloured, visible};

/// The version, and the commit where that is known.
pub const VERSION: &str = env!("HALFTONE_VERSION");

/// Soft preference labels in, a better language model out.
#[derive(Debug, Parser)]
#[command(name = "halftone", version = VERSION, about, max_term_width = 120, propagate_version = true)]
pub struct Cli {
    /// Folder for results and records
    #[arg(long, global = true, default_value = WORK, value_name = "FOLDER", env = "HALFTONE_WORK", hide_env_values = true)]
    pub work: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a first pipeline for your own data
    Init(init::Init),
    /// Run a pipeline; unchanged stages are reused
    Run(run::Run),
    /// Compute shards of one stage, beside other processes
    Shard(shard::Shard),
    /// Train as one of several processes, which mpirun or srun starts
    Rank(rank::Rank),
    /// List the stages that would run, and why
    Plan(plan::Plan),
    /// List all findings about a pipeline file
    Check(check::Check),
    /// Show the state of the latest run of each pipeline, or of one
    Status(status::Status),
    /// Cancel the tasks that `run --on` submitted to a cluster
    Cancel(cancel::Cancel),
    /// Draw a pipeline with the state of its stages
    Dag(dag::Dag),
    /// Look into a table
    Inspect(inspect::Inspect),
    /// Show the tokens that a stage will feed its model: the judge's questions, training sequences
    Render(render::Render),
    /// Show what every stage stored about a pair, an item, a comparison or a response
    Trace(trace::Trace),
    /// Write a run, or several runs side by side, as one HTML page
    Report(report::Report),
    /// Compare two runs: configuration, labels and figures
    Diff(diff::Diff),
    /// Write a result in a form that other tools read
    Export(export::Export),
    /// Read every file of the store and compare it with what was written
    Verify(verify::Verify),
    /// Remove what the last runs of each pipeline do not need
    Gc(gc::Gc),
    /// Print the JSON Schema of pipeline files, or the manual of one kind
    Schema(schema::Schema),
    /// List the kinds of stages
    Kinds,
    /// Describe model folders, GGUF files or models of the hub: family, size, memory, uses, refusals
    Models(models::Models),
    /// Describe this build, this machine and this work folder, for bug reports
    Doctor(doctor::Doctor),
    /// Print completions for a shell
    Completions(schema::Completions),
}

/// Runs the command line and gives the exit code.
pub fn main() -> i32 {
    let work = || {
        signals::survive_full_files().map_err(kit::Error::io("signals"))?;
        match Cli::try_parse() {
            Ok(cli) => dispatch(cli),
            Err(error) if error.use_stderr() => Err(Error::CommandLine(error)),
            // `--help` and `--version`
            Err(error) if std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() => {
                print(&error.render().ansi().to_string())
            }
            Err(error) => print(&error.to_string()),
        }
    };
    match guarded(work) {
        Err(Error::CommandLine(error)) => {
            // Lost talk changes nothing.
            let _ = error.print();
            exit::USAGE
        }
        Ok(()) => exit::DONE,
        Err(error) => {
            complain(&error.to_string());
            exit::code(&error)
        }
    }
}

fn dispatch(cli: Cli) -> Result<()> {
    let work = &cli.work;
    match cli.command {
        Command::Init(args) => init::init(work, args),
        Command::Run(args) => run::run(work, args),
        Command::Shard(args) => shard::shard(work, args),
        Command::Rank(args) => rank::rank(work, args),
        Command::Plan(args) => plan::plan(work, args),
        Command::Check(args) => check::check(args),
        Command::Status(args) => status::status(work, args),
        Command::Cancel(args) => cancel::cancel(work, args),
        Command::Dag(args) => dag::dag(work, args),
        Command::Inspect(args) => inspect::inspect(work, args),
        Command::Render(args) => render::render(work, args),
        Command::Trace(args) => trace::trace(work, args),
        Command::Report(args) => report::report(work, args),
        Command::Diff(args) => diff::diff(work, args),
        Command::Export(args) => export::export(work, args),
        Command::Verify(args) => verify::verify(work, args),
        Command::Gc(args) => gc::gc(work, args),
        Command::Schema(args) => schema::schema(args),
        Command::Kinds => schema::kinds(),
        Command::Models(args) => models::models(args),
        Command::Doctor(args) => doctor::doctor(work, args),
        Command::Completions(args) => schema::completions(args.shell),
    }
}

/// Prints an error on stderr, in red where there is colour; without secrets that a message repeats.
fn complain(text: &str) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (red, plain) = if colour { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
    for line in visible(&kit::redact(text)).lines() {
        say_coloured(&format!("{red}error{plain}: {line}"));
    }
}
