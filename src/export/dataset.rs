//! A dataset on disk: a folder with a split per table.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use kit::rows::{Item, Pair};
use kit::{RowReader, TableWriter};

use super::example::{Conversion, Example, Implicit, Preference, Prompted, Scored, Unpaired, WithTools};
use super::reference::Reference;
use super::text::{Conversation, Text, WithCalls};
use crate::error::{Error, Result};

/// The files of a dataset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Parquet
    Parquet,
    /// JSON Lines
    Jsonl,
}

/// Form of a pair's prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Prompt {
    /// In a column of its own
    Explicit,
    /// At the beginning of both sides, which may be two prompts
    Implicit,
}

/// A table that becomes a split.
pub struct Split {
    /// `train` or `test`.
    pub name: &'static str,
    /// The table as the user named it.
    pub given: String,
    /// Its folder or file.
    pub path: PathBuf,
}

/// Options of a dataset.
pub struct Options {
    /// Its files.
    pub format: Format,
    /// Form of a pair's prompt.
    pub prompt: Option<Prompt>,
    /// Log-probs of the pairs under the frozen reference, where they are to be written too.
    pub reference: Option<Reference>,
}

/// Rows of a split.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rows {
    /// Written.
    pub written: u64,
    /// Left out, for their label says neither yes nor no.
    pub undecided: u64,
    /// Left out, for the reference did not score them.
    pub unscored: u64,
}

/// The dataset that was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Dataset {
    /// TRL's words for it, such as `preference` and `conversational`.
    pub form: (&'static str, &'static str),
    /// Its columns.
    pub columns: Vec<String>,
    /// The rows of each split.
    pub rows: Vec<Rows>,
}

impl Dataset {
    /// Writes tables of pairs or items into a folder.
    ///
    /// # Errors
    /// When a table holds neither, holds no rows, or has a row that TRL has no form for; its id and the way out are
    /// named.
    pub fn write(splits: &[Split], options: &Options, folder: &Path) -> Result<Dataset> {
        let first = &splits[0];
        let (prompt, scored) = (options.prompt, options.reference.is_some());
        let shape = table_of(first)?;
        match shape {
            Shape::Pairs if scored && prompt == Some(Prompt::Implicit) => {
                return Err(Error::Usage(
                    "--reference goes with the explicit prompt: TRL takes log-probs of completions alone".to_owned(),
                ));
            }
            Shape::Items if scored => {
                return Err(Error::Usage(format!(
                    "`{}` holds items, and --reference goes with pairs: TRL takes `ref_chosen_logps` and \
                     `ref_rejected_logps`",
                    first.given
                )));
            }
            Shape::Items if prompt.is_some() => {
                return Err(Error::Usage(format!(
                    "`{}` holds items, whose prompt has a column of its own; leave out --prompt",
                    first.given
                )));
            }
            _ => {}
        }
        for split in splits {
            if table_of(split)? != shape {
                let first = &first.given;
                return Err(Error::Usage(format!("`{first}` and `{}` hold different kinds of rows", split.given)));
            }
        }
        let kind = match shape {
            Shape::Pairs => kind_of::<Pair>(splits)?,
            Shape::Items => kind_of::<Item>(splits)?,
        };
        let written = match kind {
            Kind::Raw => of_text::<String>(shape, splits, options, folder),
            Kind::Chat => of_text::<Conversation>(shape, splits, options, folder),
            Kind::Calls => match (shape, prompt) {
                (Shape::Pairs, Some(Prompt::Implicit)) => {
                    written::<WithTools<Implicit<WithCalls>>>(splits, options, folder)
                }
                (Shape::Pairs, _) if scored => written::<WithTools<Scored<WithCalls>>>(splits, options, folder),
                (Shape::Pairs, _) => written::<WithTools<Preference<WithCalls>>>(splits, options, folder),
                (Shape::Items, _) => written::<WithTools<Unpaired<WithCalls>>>(splits, options, folder),
            },
        };
        written.map(|(form, columns, rows)| Dataset { form, columns, rows })
    }
}

fn of_text<T: Text>(shape: Shape, splits: &[Split], options: &Options, folder: &Path) -> Result<Written> {
    match (shape, options.prompt) {
        (Shape::Pairs, Some(Prompt::Implicit)) => written::<Implicit<T>>(splits, options, folder),
        (Shape::Pairs, _) if options.reference.is_some() => written::<Scored<T>>(splits, options, folder),
        (Shape::Pairs, _) => written::<Preference<T>>(splits, options, folder),
        (Shape::Items, _) => written::<Unpaired<T>>(splits, options, folder),
    }
}

/// The form of a table's text.
enum Kind {
    /// Strings.
    Raw,
    /// Conversations of role and content.
    Chat,
    /// Conversations of which some have tool calls, tools, names or thoughts.
    Calls,
}

/// The kind of text of some splits: of the first row, and whether any message has more than role and content.
fn kind_of<R: Prompted>(splits: &[Split]) -> Result<Kind> {
    let mut kind = None;
    for split in splits {
        let mut rows = 0;
        for row in RowReader::<R>::open(&[&split.path])? {
            let row = row?;
            rows += 1;
            let messages = row.messages();
            if messages.iter().flat_map(|messages| *messages).any(|message| message.extra.is_some()) {
                return Ok(Kind::Calls);
            }
            let response = messages.last().expect("a row has a response");
            kind.get_or_insert_with(|| if Conversation::of(response).is_some() { Kind::Chat } else { Kind::Raw });
        }
        if rows == 0 {
            return Err(kit::Error::data(format!("`{}` has no rows", split.given)).into());
        }
    }
    Ok(kind.expect("each split has rows"))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Pairs,
    Items,
}

/// The shape of a table, by its columns.
fn table_of(split: &Split) -> Result<Shape> {
    let columns = kit::columns_of(&split.path)?;
    let has = |name: &str| columns.iter().any(|(column, _)| column == name);
    match (has("pair_id") && has("chosen_prompt"), has("item_id") && has("response")) {
        (true, _) => Ok(Shape::Pairs),
        (_, true) => Ok(Shape::Items),
        _ => {
            let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
            Err(Error::Usage(format!(
                "`{}` holds neither pairs nor items but {}; name a table of the kind `pairs`",
                split.given,
                names.join(", ")
            )))
        }
    }
}

type Written = ((&'static str, &'static str), Vec<String>, Vec<Rows>);

fn written<E: Example>(splits: &[Split], options: &Options, folder: &Path) -> Result<Written> {
    let none = Reference::default();
    let reference = options.reference.as_ref().unwrap_or(&none);
    let mut rows = Vec::new();
    for split in splits {
        let mut out = Out::<E>::create(folder, split.name, options.format)?;
        let (mut number, mut counts) = (0, Rows::default());
        for row in RowReader::<E::From>::open(&[&split.path])? {
            let row = row?;
            number += 1;
            match E::of(&row, reference) {
                Ok(Conversion::Example(example)) => out.push(example)?,
                Ok(Conversion::Undecided) => counts.undecided += 1,
                Ok(Conversion::Unscored) => counts.unscored += 1,
                Err(text) => {
                    let place = format!("`{}`, row {number} ({})", split.given, E::id(&row));
                    return Err(kit::Error::data(format!("{place}: {text}")).into());
                }
            }
        }
        counts.written = number - counts.undecided - counts.unscored;
        if counts.written == 0 {
            let what = match counts.unscored {
                0 => "has no rows with a label that says yes or no",
                _ => "has no rows that the reference has scored",
            };
            return Err(kit::Error::data(format!("`{}` {what}", split.given)).into());
        }
        out.finish()?;
        rows.push(counts);
    }
    Ok(((E::NAME, E::TEXT), E::fields().iter().map(|field| field.name().clone()).collect(), rows))
}

/// The files of a split. `datasets` takes a folder of that name, or a file.
enum Out<E: Example> {
    Parquet(Box<TableWriter<E>>),
    Jsonl(BufWriter<File>, PathBuf),
}

impl<E: Example> Out<E> {
    fn create(folder: &Path, name: &str, format: Format) -> Result<Out<E>> {
        Ok(match format {
            Format::Parquet => Out::Parquet(Box::new(TableWriter::create(&folder.join(name))?)),
            Format::Jsonl => {
                let path = folder.join(format!("{name}.jsonl"));
                Out::Jsonl(BufWriter::new(File::create(&path).map_err(kit::Error::io(&path))?), path)
            }
        })
    }

    fn push(&mut self, example: E) -> Result<()> {
        match self {
            Out::Parquet(writer) => Ok(writer.push(example)?),
            Out::Jsonl(writer, path) => {
                let members: Vec<String> =
                    example.members().into_iter().map(|(name, json)| format!("\"{name}\":{json}")).collect();
                Ok(writeln!(writer, "{{{}}}", members.join(",")).map_err(kit::Error::io(&*path))?)
            }
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Out::Parquet(writer) => Ok(writer.finish()?),
            Out::Jsonl(mut writer, path) => {
                Ok(writer.flush().and_then(|()| writer.get_ref().sync_all()).map_err(kit::Error::io(&path))?)
            }
        }
    }
}
