//! The command line.

use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use clap::builder::FalseyValueParser;
use clap::{Args, Parser, Subcommand};

use crate::commands;
use crate::error::{Error, Result, panic_text, system_error};
use crate::report::visible;
use crate::streams::{self, say_coloured};
use crate::trl::{Format, Prompt};
use crate::{exit, signals};

/// The folder for results and records where nobody names another.
pub const WORK: &str = ".halftone";
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
    Init(Init),
    /// Run a pipeline; what did not change is used again
    Run(Run),
    /// Say what a run would do with each stage, and why
    Plan(Plan),
    /// Find what is wrong with a pipeline file, all at once
    Check(Check),
    /// Say how the latest run of each pipeline, or of one, went or goes
    Status(Status),
    /// Draw a pipeline with the state of its stages
    Dag(Dag),
    /// Look into a table
    Inspect(Inspect),
    /// Show what a stage will feed its model: the judge's questions, the tokens that are trained on
    Render(Render),
    /// Follow a pair, an item or a comparison back to its source and forth to the steps that used it
    Trace(Trace),
    /// Write what a run did, or several runs side by side, as one HTML page
    Report(Report),
    /// Compare two runs: configuration, labels and figures
    Diff(Diff),
    /// Write a result in a form that other tools read
    Export(Export),
    /// Read every file of the store and compare it with what was written
    Verify(Verify),
    /// Remove what the last runs of each pipeline do not need
    Gc(Gc),
    /// Print the JSON Schema of pipeline files, or the manual of one kind
    Schema(Schema),
    /// List the kinds of stages
    Kinds,
    /// Say what this build, this machine and this work folder are like; for bug reports
    Doctor(Doctor),
    /// Print completions for a shell
    Completions(Completions),
}

#[derive(Debug, Args)]
pub struct Init {
    /// The new pipeline file
    #[arg(default_value = "pipeline.yaml")]
    pub file: PathBuf,
    /// Your data: JSON Lines, CSV or Parquet; its format decides what the pipeline does
    #[arg(long, value_name = "PATH")]
    pub data: Option<String>,
    /// Read nothing but prompts from the data, whatever else they hold; the model answers them
    #[arg(long)]
    pub prompts_only: bool,
    /// The model to train: a folder, or a name on the hub
    #[arg(long, value_name = "MODEL")]
    pub policy: Option<String>,
    /// A model that judges; pairs with labels are judged anew
    #[arg(long, value_name = "MODEL")]
    pub judge: Option<String>,
    /// A sentence encoder, for objectives that read embeddings
    #[arg(long, value_name = "MODEL")]
    pub encoder: Option<String>,
    /// What to train with [default: what suits the data]
    #[arg(long, value_name = "NAME")]
    pub objective: Option<String>,
    /// Write over a file that is there
    #[arg(long)]
    pub force: bool,
}

/// A pipeline file with overrides.
#[derive(Debug, Args)]
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
    /// This stage alone; what it reads has to be there
    #[arg(long, value_name = "STAGE", conflicts_with_all = ["from", "until"])]
    pub only: Option<String>,
    /// This stage and what follows from it
    #[arg(long, value_name = "STAGE")]
    pub from: Option<String>,
    /// This stage and what it needs
    #[arg(long, value_name = "STAGE")]
    pub until: Option<String>,
    /// Run this stage, or all stages of a matrix, even if its result could be used again
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// With --only or --from: take the latest results of stages that are out of date
    #[arg(long)]
    pub stale: bool,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub file: PipelineFile,
    #[command(flatten)]
    pub choice: Choice,
    /// Where models compute: auto, cpu or cuda:N
    #[arg(long, default_value = "auto", env = "HALFTONE_DEVICE", hide_env_values = true)]
    pub device: String,
    /// Say what a run would do, as `plan` does, and do nothing
    #[arg(long, conflicts_with = "no_wait")]
    pub dry_run: bool,
    /// Tell every stage and all of its figures
    #[arg(short, long, env = "HALFTONE_VERBOSE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// Print errors alone
    #[arg(short, long, env = "HALFTONE_QUIET", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub quiet: bool,
    /// Tell events as JSON lines on stdout
    #[arg(long)]
    pub json: bool,
    /// Leave (exit 75) rather than wait where another run makes the same result
    #[arg(long)]
    pub no_wait: bool,
}

#[derive(Debug, Args)]
pub struct Plan {
    #[command(flatten)]
    pub file: PipelineFile,
    #[command(flatten)]
    pub choice: Choice,
    /// Where models would compute: auto, cpu or cuda:N
    #[arg(long, default_value = "auto", env = "HALFTONE_DEVICE", hide_env_values = true)]
    pub device: String,
    /// The plan as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Check {
    #[command(flatten)]
    pub file: PipelineFile,
}

#[derive(Debug, Args)]
pub struct Status {
    /// A pipeline's name or file; all of them if left out
    pub pipeline: Option<String>,
    /// Tell every stage and all of its figures
    #[arg(short, long, env = "HALFTONE_VERBOSE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// The record of the latest run as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Dag {
    #[command(flatten)]
    pub file: PipelineFile,
    /// How to draw it
    #[arg(long, value_enum, default_value_t = commands::DagForm::Ascii)]
    pub format: commands::DagForm,
}

#[derive(Debug, Args)]
pub struct Inspect {
    /// `stage.port` or `stage` of a pipeline's latest run, or a path: a Parquet file or a folder of them
    pub table: String,
    /// What to show
    #[arg(value_enum, default_value_t = commands::View::Head)]
    pub view: commands::View,
    /// The pipeline whose latest run is meant, if it is not the one that ran last
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// The run's number [default: the latest]
    #[arg(long, value_name = "N")]
    pub run: Option<u64>,
    /// Rows to show [default: 5, or 20 where a row fits a line]
    #[arg(short = 'n', long)]
    pub rows: Option<usize>,
    /// Only rows with this value in this column; several must all hold
    #[arg(long, value_name = "COLUMN=VALUE")]
    pub r#where: Vec<String>,
    /// Every column with all of its digits, one row under the other
    #[arg(long, conflicts_with = "json")]
    pub wide: bool,
    /// Rows as JSON lines
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Render {
    #[command(flatten)]
    pub file: PipelineFile,
    /// A stage that feeds a model: judge, train, reference, sample
    pub stage: String,
    /// Rows of its input to show, from the first on
    #[arg(short = 'n', long, default_value_t = 2)]
    pub rows: usize,
    /// Texts with token ids as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Trace {
    /// The id of a pair, an item or a comparison, or the beginning of one (from 6 characters on)
    pub id: String,
    /// The pipeline that is meant, if it is not the one that ran last: its name or file
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// The run's number [default: the latest]
    #[arg(long, value_name = "N")]
    pub run: Option<u64>,
    /// All of it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Report {
    /// A pipeline's name or file; the pipeline that ran last if left out
    pub pipeline: Option<String>,
    /// The run's number [default: the latest]
    #[arg(long, value_name = "N")]
    pub run: Option<u64>,
    /// Runs side by side in one page: numbers of runs of the pipeline, `PIPELINE:N`, or names for the latest of each
    #[arg(long, value_name = "RUN", num_args = 2.., conflicts_with = "run")]
    pub compare: Vec<String>,
    /// The HTML file [default: report.html in the folder of the run; of several runs, in the folder of the first's pipeline]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Diff {
    /// A run: its number, `PIPELINE:N`, or a pipeline's name or file for its latest [default: of the last two that are done, the earlier]
    #[arg(value_name = "RUN_A")]
    pub first: Option<String>,
    /// The run to compare it with [default: the latest; without RUN_A, the latest that is done]
    #[arg(value_name = "RUN_B")]
    pub second: Option<String>,
    /// The pipeline whose runs the numbers mean, if it is not the one that ran last
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
    /// All of it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Export {
    #[command(subcommand)]
    pub what: ExportWhat,
}

#[derive(Debug, Subcommand)]
pub enum ExportWhat {
    /// A trained model as a Hugging Face folder of its own; an adapter is merged into its base
    Model(ExportModel),
    /// Pairs or items as a dataset that TRL trains on as it is
    Dataset(ExportDataset),
}

#[derive(Debug, Args)]
pub struct ExportModel {
    /// A training stage of a pipeline's latest run (`policy`, or `policy.policy`), or the path of a model folder
    pub model: String,
    /// The new folder
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// The precision of the weights: `f32`, `bf16`, or `as_loaded` [default: that of the model's own files; f32 where an
    /// adapter is merged, since bf16 would leave most of what it adds out]
    #[arg(long, value_parser = commands::saved_dtype)]
    pub dtype: Option<commands::SavedDtype>,
    /// The pipeline whose latest run is meant, if it is not the one that ran last
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
}

#[derive(Debug, Args)]
pub struct ExportDataset {
    /// Pairs or items: `stage.port` or `stage` of a pipeline's latest run, or a path
    pub table: String,
    /// The new folder
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// A second table, such as held-out pairs: the split `test`
    #[arg(long, value_name = "TABLE")]
    pub test: Option<String>,
    /// A stage that scored the pairs with the frozen reference: adds the columns `ref_chosen_logps` and
    /// `ref_rejected_logps`. TRL 1.16 takes them in place of computing its own from a DPOTrainer whose
    /// `_precompute_ref_logps` gives the dataset back as it is, with `precompute_ref_log_probs=True`
    #[arg(long, value_name = "STAGE")]
    pub reference: Option<String>,
    /// The files
    #[arg(long, value_enum, default_value_t = Format::Parquet)]
    pub format: Format,
    /// Where the prompt of a pair stands [default: explicit]. Pairs of two prompts need `implicit`: DPOTrainer takes it
    /// where the text is raw (its loss is then that of JPO), RewardTrainer also takes conversations
    #[arg(long, value_enum)]
    pub prompt: Option<Prompt>,
    /// The pipeline whose latest run is meant, if it is not the one that ran last
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// Only the latest run of this pipeline
    #[arg(long, value_name = "NAME")]
    pub pipeline: Option<String>,
}

#[derive(Debug, Args)]
pub struct Gc {
    /// List what would go, remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Runs of each pipeline whose results stay; the latest result of each stage stays in any case
    #[arg(long, default_value_t = 10, value_name = "RUNS")]
    pub keep: usize,
}

#[derive(Debug, Args)]
pub struct Schema {
    /// A kind: its keys with their documentation
    pub kind: Option<String>,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// All of it as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Runs the command line and gives the exit code.
pub fn main() -> i32 {
    let work = || {
        signals::survive_full_files().map_err(kit::Error::io("signals"))?;
        match Cli::try_parse() {
            Ok(cli) => run(cli),
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

/// Does something that must not panic; if it does, that is an error like others.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic_text(&*panic);
        Err(system_error(&text).map_or(Error::Bug(text), Error::Kit))
    })
}

fn run(cli: Cli) -> Result<()> {
    let work = &cli.work;
    match cli.command {
        Command::Init(args) => commands::init(work, args),
        Command::Run(args) => commands::run(work, args),
        Command::Plan(args) => commands::plan(work, args),
        Command::Check(args) => commands::check(args),
        Command::Status(args) => commands::status(work, args),
        Command::Dag(args) => commands::dag(work, args),
        Command::Inspect(args) => commands::inspect(work, args),
        Command::Render(args) => commands::render(work, args),
        Command::Trace(args) => commands::trace(work, args),
        Command::Report(args) => commands::report(work, args),
        Command::Diff(args) => commands::diff(work, args),
        Command::Export(args) => commands::export(work, args),
        Command::Verify(args) => commands::verify(work, args),
        Command::Gc(args) => commands::gc(work, args),
        Command::Schema(args) => commands::schema(args),
        Command::Kinds => commands::kinds(),
        Command::Doctor(args) => commands::doctor(work, args),
        Command::Completions(args) => commands::completions(args.shell),
    }
}

/// Prints an error on stderr, in red where there is colour; without secrets that somebody repeated.
fn complain(text: &str) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (red, plain) = if colour { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
    for line in visible(&kit::redact(text)).lines() {
        say_coloured(&format!("{red}error{plain}: {line}"));
    }
}

/// Prints a result on stdout. A reader that has enough (`| head`) is not an error.
pub fn print(text: &str) -> Result<()> {
    printed(streams::print(text))
}

/// Prints a result that has colours; what they are put around has to be [`visible`] before.
pub fn print_coloured(text: &str) -> Result<()> {
    printed(streams::print_coloured(text))
}

fn printed(result: std::io::Result<()>) -> Result<()> {
    result.map_err(|source| kit::Error::Io { path: "stdout".into(), source }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_bug_to_report() {
        let row = 7;
        let error = guarded(|| -> Result<()> { panic!("row {row}") }).unwrap_err();
        assert_eq!(exit::code(&error), exit::INTERNAL);
        insta::assert_snapshot!(error.to_string(), @r"
        row 7
        this is a bug in halftone; please report it with the lines above, the command and `halftone --version`
        ");
        assert_eq!(guarded(|| Ok(3)).unwrap(), 3);
        // A library that makes a panic of what the system says.
        let full = guarded(|| -> Result<()> {
            let spawned: std::io::Result<()> = std::hint::black_box(Err(std::io::Error::from_raw_os_error(11)));
            spawned.expect("could not spawn threads");
            Ok(())
        });
        assert_eq!(exit::code(&full.unwrap_err()), exit::IO);
        // What no system says of its own accord is a bug.
        let absent = guarded(|| -> Result<()> {
            std::fs::File::open("/nowhere").unwrap();
            Ok(())
        });
        assert_eq!(exit::code(&absent.unwrap_err()), exit::INTERNAL);
    }
}
