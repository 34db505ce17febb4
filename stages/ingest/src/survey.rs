//! The content of files, as far as their first rows show.

use std::collections::{BTreeMap, BTreeSet};

use kit::{Error, Finding, Result, Table};
use serde_json::{Map, Value};

use crate::advice::list;
use crate::ballot::tokens;
use crate::column::Column;
use crate::config::{Ingest, Kept};
use crate::format::Format;
use crate::layout::{Layout, layout};
use crate::scale::Scale;
use crate::source::SourceFile;

/// The files with their layouts, and the tables they fill.
pub(crate) struct Survey {
    pub(crate) files: Vec<SourceFile>,
    pub(crate) layouts: Vec<Layout>,
    pub(crate) tables: Vec<Table>,
}

/// The content of files, as far as their heads show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Not `auto`.
    pub format: Format,
    /// The tables that a run fills.
    pub tables: Vec<Table>,
    /// True where the two sides of one of the first rows have different prompts.
    pub joint: bool,
    /// True where rows carry a probability or a feedback for a label.
    pub labelled: bool,
    /// True where the first rows have several responses to one prompt, each in a row of its own without a label.
    pub several: bool,
    /// True where such responses have scores.
    pub scored: bool,
    /// The format and its columns, in words.
    pub layout: String,
    /// Rows.
    pub rows: u64,
    /// True where they were counted rather than estimated.
    pub counted: bool,
}

impl Ingest {
    /// The content of the files.
    ///
    /// # Errors
    /// The reason why they cannot be read.
    pub fn found(&self) -> std::result::Result<Found, Finding> {
        let survey = self.survey()?;
        let counts = survey.files.iter().map(SourceFile::count_rows).collect::<Result<Vec<_>>>();
        let counts = counts.map_err(|error| Finding::at("files", error.to_string()))?;
        let layout = &survey.layouts[0];
        let first = &survey.files[0];
        let (head, _) = first.head().map_err(|error| Finding::at("files", error.to_string()))?;
        // Formats with two prompts are used for pairs under one as well.
        let differ = |row: &Map<String, Value>| {
            let prompts = [(Column::ChosenPrompt, Column::RejectedPrompt), (Column::Prompt0, Column::Prompt1)];
            let differ = |(a, b)| {
                layout.columns.get(a).zip(layout.columns.get(b)).is_some_and(|(a, b)| row.get(a) != row.get(b))
            };
            prompts.into_iter().any(differ)
        };
        let alone = layout.format == Format::PromptCompletion;
        let columns = layout.columns.get(Column::Prompt).zip(layout.columns.get(Column::Completion)).filter(|_| alone);
        let several = columns.is_some_and(|(prompt, completion)| {
            let mut first = BTreeMap::new();
            head.iter().any(|row| {
                let completion = row.get(completion);
                *first.entry(row.get(prompt).map(Value::to_string)).or_insert(completion) != completion
            })
        });
        Ok(Found {
            format: layout.format,
            several,
            scored: several && layout.columns.get(Column::Score).is_some(),
            joint: head.iter().any(differ),
            labelled: layout.labelled(),
            layout: layout.to_string(),
            rows: counts.iter().map(|(rows, _)| rows).sum(),
            counted: counts.iter().all(|(_, exact)| *exact),
            tables: survey.tables,
        })
    }

    /// The meaning of the votes of a file: as given, or the only one that their values can have.
    fn scale(&self, layout: &Layout, head: &[Map<String, Value>]) -> std::result::Result<Option<Scale>, String> {
        if let Some(scale) = &self.votes {
            return Scale::given(scale).map(Some);
        }
        let tokens = tokens(&layout.columns.votes, head);
        if tokens.is_empty() { Ok(None) } else { Scale::found(&tokens).map(Some) }
    }

    /// Checks that the settings apply to a file.
    fn fits(&self, layout: &Layout) -> std::result::Result<(), Finding> {
        let format = layout.format.name();
        let has = |column| layout.columns.has(column);
        let wrong = |key: &str, text: String| Err(Finding::at(key, text));
        if self.votes.is_some() && layout.columns.votes.is_empty() {
            return wrong("votes", format!("it has no effect: format `{format}` reads no votes of that kind here"));
        }
        if self.holdout.is_some() && layout.format == Format::Votes && !has(Column::Response0) {
            return wrong("holdout", "it splits by prompt, and the file has votes without prompts".to_owned());
        }
        let scored = |columns: [Column; 2]| columns.into_iter().all(has);
        let of_both = scored([Column::Score0, Column::Score1]) || scored([Column::ChosenScore, Column::RejectedScore]);
        let several = matches!(layout.format, Format::Ranked | Format::Scored);
        if layout.format == Format::Votes
            && layout.columns.votes.is_empty()
            && !has(Column::VotesA)
            && layout.columns.scaled().is_none()
        {
            let text = "the scores of both responses become votes by their difference; say how sure a point makes: \
                        `scores: {scale: 1}`";
            return wrong("scores", text.to_owned());
        }
        if layout.format == Format::Scored
            && !has(Column::Score)
            && self.scores.as_ref().is_none_or(|scores| scores.criteria.is_empty())
        {
            let text = "format `scored` needs a column of scores, `columns: {score: THEIRS}`, or several with weights, \
                        `scores: {criteria: {THEIRS: 1}}`";
            return wrong("scores", text.to_owned());
        }
        if layout.columns.scaled().is_some() && !layout.columns.votes.is_empty() {
            let text = "`scale` has no effect beside votes; `columns: {votes: null}` leaves these out";
            return wrong("scores", text.to_owned());
        }
        if let Some(scores) = &self.scores {
            if !several && (scores.pairs.is_some() || !scores.criteria.is_empty()) {
                let text = format!(
                    "`pairs` and `criteria` have no effect: a row of format `{format}` has no several responses"
                );
                return wrong("scores", text);
            }
            if scores.scale.is_some() && !several && !of_both {
                let text = format!("`scale` has no effect: format `{format}` finds no scores of both responses here");
                return wrong("scores", text);
            }
        }
        let row_id = layout.format.known().row_id;
        if self.keep.contains(&Kept::Repeated) && !row_id.is_some_and(has) {
            return wrong(
                "keep",
                "`repeated` rows are distinguished by their ids; name them: `columns: {id: THEIRS}`".to_owned(),
            );
        }
        Ok(())
    }

    /// Looks at the heads of all files.
    pub(crate) fn survey(&self) -> std::result::Result<Survey, Finding> {
        let mut files = Vec::new();
        let mut layouts: Vec<Layout> = Vec::new();
        if let Some(name) = self.files.unreadable() {
            let text = format!("`{name}` fits and its name is not UTF-8 (shown with \u{fffd}); rename it");
            return Err(Finding::at("files", text));
        }
        for name in &self.files.paths() {
            let at = |error: Error| match &error {
                Error::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                    Finding::at("files", format!("`{}` is not there", path.display()))
                }
                Error::Data(_) => Finding::at("files", error.to_string()).in_data(),
                Error::Io { .. } => Finding::at("files", error.to_string()).in_system(),
                _ => Finding::at("files", error.to_string()),
            };
            let found = SourceFile::find(name).map_err(at)?;
            // The parts of a folder are one table.
            let first = found.first().expect("a path is one file or a folder with some");
            let (head, bad) = first.head().map_err(at)?;
            if head.is_empty() {
                let why =
                    bad.map_or("it holds no rows".to_owned(), |bad| format!("no row can be read; the first: {bad}"));
                return Err(Finding::at("files", format!("{}: {why}", first.name)).in_data());
            }
            let mut layout = layout(&head, self.format, &self.columns, self.form).map_err(|why| {
                let key = if why.starts_with("`columns:") { "columns" } else { "files" };
                Finding::at(key, format!("{}: {why}", first.name))
            })?;
            layout.columns.scale = self.scale(&layout, &head).map_err(|why| {
                let names = list(layout.columns.votes.iter().map(String::as_str));
                Finding::at("votes", format!("{}: the votes in {names}: {why}", first.name))
            })?;
            layout.columns.scores = self.scores.clone();
            let read: BTreeSet<String> = layout.criteria().map(str::to_owned).collect();
            layout.unread.retain(|name| !read.contains(name));
            self.fits(&layout)?;
            if let Some(other) = layouts.first().filter(|other| other.tables() != layout.tables()) {
                let text = format!(
                    "`{}` is {} and `{name}` is {}; read them in stages of their own",
                    self.files.paths()[0],
                    other.format.name(),
                    layout.format.name()
                );
                return Err(Finding::at("files", text));
            }
            layouts.extend(found.iter().map(|_| layout.clone()));
            files.extend(found);
        }
        let tables = layouts[0].tables();
        Ok(Survey { files, layouts, tables })
    }
}
