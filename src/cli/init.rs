//! `init`: a first pipeline for one's own data.

use std::path::Path;
use std::path::PathBuf;

use clap::Args;
use ingest::{Files, Form, Format, Found, Ingest, OnBadRow};
use kit::Table;
use train::Objective;

use crate::error::{Error, Result};
use crate::init::{Holds, Wish, in_line, possible, text};
use crate::kinds::KINDS;
use crate::pipeline::check::check_file;
use crate::pipeline::problem::did_you_mean;
use crate::streams::print;

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
    /// Objective to train with [default: what suits the data]
    #[arg(long, value_name = "NAME")]
    pub objective: Option<String>,
    /// Write over a file that is there
    #[arg(long)]
    pub force: bool,
}

/// Writes a pipeline file, and the schema by which editors check it.
pub fn init(work: &Path, args: Init) -> Result<()> {
    let path = &args.file;
    if path.exists() && !args.force {
        return Err(Error::Usage(format!(
            "`{}` is there already; name another file, or write over it with --force",
            path.display()
        )));
    }
    let found = args.data.as_deref().map(|data| found(data, args.prompts_only)).transpose()?;
    let holds = match &found {
        Some(found) => holds(found, args.objective.as_deref())?,
        None if args.prompts_only => Holds::Prompts,
        None => Holds::Pairs,
    };
    let voted = found.as_ref().filter(|found| found.tables.contains(&Table::Votes));
    let needs_judge = holds.needs_judge() && voted.is_none();
    let objective = objective(&args, holds)?;
    let judge = args.judge.clone().or(needs_judge.then(|| "./models/judge".to_owned()));
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |letter: char| if letter.is_ascii_alphanumeric() || "-_".contains(letter) { letter } else { '-' };
    let name: String = stem.chars().map(plain).collect();
    let name = name.trim_matches(['-', '_']);
    let wish = Wish {
        name: if name.is_empty() { "pipeline" } else { name }.to_owned(),
        file: path.display().to_string(),
        data: args.data.clone().unwrap_or_else(|| format!("./data/{}.jsonl", example(holds))),
        holds,
        found: found.as_ref().map(words),
        votes: voted.map(|found| found.rows),
        scored: holds == Holds::Pairs && found.as_ref().is_some_and(|found| found.scored),
        prompts_only: args.prompts_only,
        chat: args.policy.as_deref().is_none_or(may_have_template),
        policy: args.policy.as_deref().map_or("./models/policy".to_owned(), model),
        judge_chat: judge.as_deref().is_none_or(may_have_template),
        judge: judge.as_deref().map(model),
        encoder: args.encoder.as_deref().map_or("./models/encoder".to_owned(), model),
        objective,
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(kit::Error::io(parent))?;
    let name =
        path.file_name().ok_or_else(|| Error::Usage(format!("`{}` is not the name of a file", path.display())))?;
    let schema = work.join("schema.json");
    kit::commit::commit_bytes(&schema, super::schema::of_pipelines().as_bytes())?;
    let text = format!("# yaml-language-server: $schema={}\n{}", in_line(&way(parent, &schema)?), text(&wish));
    kit::commit::commit_bytes(&parent.join(name), text.as_bytes())?;
    print(&told(&wish, path))
}

/// The way to a file from a folder.
fn way(folder: &Path, file: &Path) -> Result<String> {
    let whole = |path: &Path| std::path::absolute(path).map_err(kit::Error::io(path));
    let (folder, file) = (whole(folder)?, whole(file)?);
    let shared = folder.components().zip(file.components()).take_while(|(one, other)| one == other).count();
    let up = folder.components().skip(shared).map(|_| "..".to_owned());
    let down = file.components().skip(shared).map(|part| part.as_os_str().to_string_lossy().into_owned());
    Ok(up.chain(down).collect::<Vec<_>>().join("/"))
}

/// The files that were written, and the steps that remain.
fn told(wish: &Wish, path: &Path) -> String {
    let mut told = String::new();
    if let Some(found) = &wish.found {
        told.push_str(&format!("{}: {}\n", in_line(&wish.data), in_line(found)));
    }
    let judge = if wish.judge.is_some() { " and a judge" } else { "" };
    let file = in_line(&wish.file);
    told.push_str(&format!("{file}: {}{judge}, objective {}\n", wish.holds_words(), wish.objective.name()));
    if wish.holds == Holds::Responses || wish.scored {
        told.push_str("to imitate the responses, without a label: --objective sft\n");
    }
    if !wish.chat {
        told.push_str(&format!("{} has no chat template: strings are raw text\n", wish.policy));
    }
    match check_file(path, &[], KINDS) {
        Ok(_) => told.push_str(&format!("next: halftone plan {file}\n")),
        Err(problems) => {
            told.push_str("still to be done:\n");
            told.extend(problems.iter().map(|problem| format!("  {}\n", problem.line(path))));
        }
    }
    told
}

/// The content of the data file.
fn found(data: &str, prompts_only: bool) -> Result<Found> {
    let ingest = Ingest {
        files: Files(vec![data.to_owned()]),
        format: if prompts_only { Format::Prompts } else { Format::Auto },
        columns: std::collections::BTreeMap::new(),
        votes: None,
        scores: None,
        keep: Vec::new(),
        form: Form::Chat,
        on_bad_row: OnBadRow::Fail,
        max_rejects: None,
        holdout: None,
        limit: None,
    };
    if !Path::new(data).exists() {
        return Err(Error::Usage(format!("--data {data}: there is no such file")));
    }
    ingest.found().map_err(|finding| kit::Error::data(finding.text).into())
}

fn holds(found: &Found, objective: Option<&str>) -> Result<Holds> {
    let has = |table| found.tables.contains(&table);
    let imitates = || possible(Holds::Demonstrations).iter().any(|it| Some(it.name()) == objective);
    Ok(if found.several && !imitates() {
        if found.scored { Holds::Pairs } else { Holds::Responses }
    } else if has(Table::Pairs) {
        if found.joint { Holds::JointPairs } else { Holds::Pairs }
    } else if has(Table::Comparisons) {
        if found.joint { Holds::JointComparisons } else { Holds::Comparisons }
    } else if has(Table::Items) {
        if found.labelled { Holds::Items } else { Holds::Demonstrations }
    } else if has(Table::Prompts) && !has(Table::Embeddings) {
        Holds::Prompts
    } else {
        let text = format!("the data hold {}, from which nothing can be trained", found.layout);
        return Err(Error::Usage(text));
    })
}

fn words(found: &Found) -> String {
    let about = if found.counted { "" } else { "about " };
    format!("{about}{} rows, {}", found.rows, found.layout)
}

fn example(holds: Holds) -> &'static str {
    if holds == Holds::Prompts { "prompts" } else { "pairs" }
}

fn objective(args: &Init, holds: Holds) -> Result<Objective> {
    let possible = possible(holds);
    let Some(name) = &args.objective else {
        // Who has an encoder wants what reads it.
        let reads = possible.iter().find(|objective| objective.needs_similarities() && args.encoder.is_some());
        return Ok(*reads.unwrap_or(&possible[0]));
    };
    if let Some(objective) = possible.iter().find(|objective| objective.name() == name) {
        return Ok(*objective);
    }
    let names = possible.iter().map(Objective::name).collect::<Vec<_>>().join(", ");
    if !Objective::all().iter().any(|facts| facts.name == name) {
        let near = did_you_mean(name, Objective::all().iter().map(|facts| facts.name));
        let near = if near.is_empty() { format!("; possible: {names}") } else { near };
        return Err(Error::Usage(format!("--objective {name}: there is no such objective{near}")));
    }
    let asks = crate::init::possible(Holds::Prompts).iter().any(|objective| objective.name() == name);
    let hint = match asks && args.data.is_some() {
        true => format!(
            "; with --prompts-only the model answers the prompts of the data, a judge labels the answers, and {name} is \
             computed on these"
        ),
        false => String::new(),
    };
    let text = format!("--objective {name} cannot be computed on {}{hint}; possible: {names}", holds.words());
    Err(Error::Usage(text))
}

/// A model as a reference in a pipeline file: a path there has a `/`.
fn model(text: &str) -> String {
    if !text.contains('/') && Path::new(text).exists() { format!("./{text}") } else { text.to_owned() }
}

/// True where a model may have a chat template: all but local folders without one.
fn may_have_template(model: &str) -> bool {
    let folder = Path::new(model);
    let config = || std::fs::read_to_string(folder.join("tokenizer_config.json")).unwrap_or_default();
    !folder.is_dir() || folder.join("chat_template.jinja").is_file() || config().contains("\"chat_template\"")
}
