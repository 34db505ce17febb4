//! `export`: results in the forms that other tools read.

use std::path::Path;

use kit::Table;
pub use train::SavedDtype;
use train::is_gguf;

use crate::error::{Error, Result};
use crate::export::{Dataset, Options, Reference, Split};
use crate::export::{Format, Prompt};
use crate::look::inspect::{Target, resolve};
use crate::store::Records;
use crate::streams::print;
use crate::units::size;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub struct Export {
    #[command(subcommand)]
    pub what: ExportWhat,
}

#[derive(Debug, Subcommand)]
pub enum ExportWhat {
    /// A model as a Hugging Face folder of its own: a trained one, an adapter merged into its base, a GGUF file
    Model(ExportModel),
    /// Pairs or items as a dataset that TRL trains on as it is
    Dataset(ExportDataset),
}

#[derive(Debug, Args)]
pub struct ExportModel {
    /// A training stage of a pipeline's latest run (`policy`, or `policy.policy`), or the path of a model folder or of
    /// a GGUF file with a `tokenizer.json` beside it
    pub model: String,
    /// The new folder
    #[arg(long, value_name = "FOLDER")]
    pub to: PathBuf,
    /// The precision of the weights: `f32`, `bf16`, or `as_loaded` [default: that of the model's own files; f32 for
    /// a GGUF file, and where an adapter is merged, since bf16 would leave most of what it adds out]
    #[arg(long, value_parser = saved_dtype)]
    pub dtype: Option<SavedDtype>,
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

/// A precision by its name in pipeline files.
pub fn saved_dtype(name: &str) -> std::result::Result<SavedDtype, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

/// Exports a model or a dataset.
pub fn export(work: &Path, args: Export) -> Result<()> {
    match args.what {
        ExportWhat::Model(args) => model(work, args),
        ExportWhat::Dataset(args) => dataset(work, args),
    }
}

/// Writes a model as a Hugging Face folder of its own.
fn model(work: &Path, args: ExportModel) -> Result<()> {
    let records = Records::new(work);
    let text = &args.model;
    let folder = match Path::new(text) {
        file if is_gguf(file) && file.is_file() => file.to_owned(),
        _ => match resolve(text, &[Table::Model], args.pipeline.as_deref(), &records)? {
            Target::Model(folder) => folder,
            _ => {
                return Err(Error::Usage(format!("`{text}` is a table, not a model; name the `policy` of a training")));
            }
        },
    };
    whole(&args.to, |partial| Ok(train::export_model(&folder, partial, args.dtype)?))?;
    let mut bytes = 0;
    for entry in std::fs::read_dir(&args.to).map_err(kit::Error::io(&args.to))?.flatten() {
        bytes += entry.metadata().map_err(kit::Error::io(&entry.path()))?.len();
    }
    print(&format!("{} holds {text} ({})\n", args.to.display(), size(bytes)))
}

/// The steps by which TRL 1.16 takes stored reference log-probs.
const TAKEN: &str = "\
TRL computes reference log-probs anew and then finds two of each; it takes these where the trainer gives them back:
  class Scored(DPOTrainer):
      def _precompute_ref_logps(self, dataset, name, batch_size):
          return dataset
with DPOConfig(precompute_ref_log_probs=True); no reference model is held.
";

/// Writes pairs or items as a TRL dataset.
fn dataset(work: &Path, args: ExportDataset) -> Result<()> {
    let records = Records::new(work);
    let mut splits = Vec::new();
    for (name, given) in [("train", Some(&args.table)), ("test", args.test.as_ref())] {
        let Some(given) = given else { continue };
        let Target::Table(path) = resolve(given, &[Table::Pairs, Table::Items], args.pipeline.as_deref(), &records)?
        else {
            return Err(Error::Usage(format!("`{given}` is no table; name one of pairs or items")));
        };
        splits.push(Split { name, given: given.clone(), path });
    }
    let reference = match &args.reference {
        None => None,
        Some(given) => match resolve(given, &[Table::Reference], args.pipeline.as_deref(), &records)? {
            Target::Table(path) => Some(Reference::read(&path)?),
            _ => {
                return Err(Error::Usage(format!(
                    "--reference {given}: no table; name a stage of the kind `reference`"
                )));
            }
        },
    };
    let options = Options { format: args.format, prompt: args.prompt, reference };
    let dataset = whole(&args.to, |partial| Dataset::write(&splits, &options, partial))?;
    let (kind, text) = dataset.form;
    let mut lines = format!("{}: TRL's {kind}, {text}\n", args.to.display());
    for (split, rows) in splits.iter().zip(&dataset.rows) {
        lines.push_str(&format!("  {:5} {} rows of {}", split.name, rows.written, split.given));
        let left_out = [(rows.undecided, "labels of 1/2"), (rows.unscored, "that the reference did not score")];
        for (count, what) in left_out.into_iter().filter(|(count, _)| *count > 0) {
            lines.push_str(&format!("; {count} {what} left out"));
        }
        lines.push('\n');
    }
    lines.push_str(&format!("  columns: {}\n", dataset.columns.join(", ")));
    if options.reference.is_some() {
        lines.push_str(TAKEN);
    }
    lines.push_str("TRL's trainers take each label as certain; `p_hat` says how certain it is.\n");
    print(&lines)
}

/// Writes a folder that appears whole or not at all.
fn whole<T>(to: &Path, write: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let partial = beside(to)?;
    std::fs::create_dir_all(&partial).map_err(kit::Error::io(&partial))?;
    let written = write(&partial).and_then(|written| {
        std::fs::rename(&partial, to).map_err(kit::Error::io(to))?;
        Ok(written)
    });
    if written.is_err() {
        let _ = std::fs::remove_dir_all(&partial);
    }
    written
}

/// A folder to write into before it gets the name `to`, in the same place.
fn beside(to: &Path) -> Result<PathBuf> {
    if to.exists() {
        return Err(Error::Usage(format!("`{}` is there already; name a new folder, or remove it", to.display())));
    }
    let name = to.file_name().ok_or_else(|| Error::Usage(format!("`{}` is not the name of a folder", to.display())))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(kit::Error::io(parent))?;
    let partial = parent.join(format!(".{}.partial", name.to_string_lossy()));
    if partial.exists() {
        std::fs::remove_dir_all(&partial).map_err(kit::Error::io(&partial))?;
    }
    Ok(partial)
}
