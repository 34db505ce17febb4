//! The stage: its configuration, its ports, and the pass over the files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kit::rows::Reject;
use kit::{
    Ahead, Amount, Context, Error, Event, Finding, Forecast, InputPort, Outcome, Outlook, OutputPort, Result, Stage,
    Table, Traced, Trail,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ahead;
use crate::bad_row::BadRow;
use crate::column::Column;
use crate::files::Files;
use crate::format::{Form, Format};
use crate::intake::{Intake, Taken};
use crate::layout::{Layout, layout};
use crate::ledger::Place;
use crate::record::{read, row_id};
use crate::source::SourceFile;
use crate::tables::{ALL, ports_of, tables_of};
use crate::trace;

/// Bad rows that a failure names one by one.
const NAMED: usize = 20;
/// Rows between two looks at whether to stop.
const ROWS_PER_LOOK: u64 = 1024;

/// Reads data files and writes what they hold: `pairs`, `verdicts`, `comparisons`, `items`, `responses`, `prompts`,
/// `embeddings`; with `holdout`, each once more as `holdout_pairs` and so on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// A file or a list of files: JSON Lines (`.jsonl`), a JSON list (`.json`), Parquet, CSV or TSV; or a folder of
    /// files of one of these. `*` and `?` in the last part of a path stand for any letters and for one; what fits is
    /// read in the order of the names. Paths are relative to the working directory.
    pub files: Files,
    /// How rows are read.
    #[serde(default)]
    pub format: Format,
    /// What the columns are called in the files, ours on the left: `{prompt: question, chosen: better}`. What stands
    /// here is never guessed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<Column, String>,
    /// What plain strings are: raw `text`, as in TRL, or the messages of a `chat`, which models see through their chat
    /// template. Values that are messages already stay messages.
    #[serde(default = "text")]
    pub form: Form,
    /// What becomes of rows that cannot be read or that contradict others: the stage fails and names them, or they go
    /// to the port `rejects`. Duplicates are no bad rows; they go there in any case.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// With `on_bad_row: reject`, the most bad rows to put up with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rejects: Option<u64>,
    /// The share of prompts to hold out, in (0, 1). A prompt's id decides, so that it falls to the same side in every
    /// file, order and pipeline. Joint pairs across the split are rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout: Option<f64>,
    /// Only so many rows, from the first on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
}

fn text() -> Form {
    Form::Text
}

/// What becomes of bad rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// The stage fails and names the first ones.
    #[default]
    Fail,
    /// They go to the port `rejects`, counted by reason.
    Reject,
}

/// The files with their layouts, and the tables they fill.
pub(crate) struct Survey {
    pub(crate) files: Vec<SourceFile>,
    pub(crate) layouts: Vec<Layout>,
    pub(crate) tables: Vec<Table>,
}

/// What stands in files, as far as their heads tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Not `auto`.
    pub format: Format,
    /// The tables that a run fills.
    pub tables: Vec<Table>,
    /// Whether the two sides of one of the first rows have different prompts.
    pub joint: bool,
    /// Whether rows carry a probability or a feedback for a label.
    pub labelled: bool,
    /// The format and its columns, in words.
    pub layout: String,
    /// Rows.
    pub rows: u64,
    /// Whether they were counted rather than estimated.
    pub counted: bool,
}

impl Ingest {
    /// What the files hold.
    ///
    /// # Errors
    /// Why they cannot be read.
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
            let differ = |(a, b)| layout.get(a).zip(layout.get(b)).is_some_and(|(a, b)| row.get(a) != row.get(b));
            prompts.into_iter().any(differ)
        };
        Ok(Found {
            format: layout.format,
            joint: head.iter().any(differ),
            labelled: layout.labelled(),
            layout: layout.to_string(),
            rows: counts.iter().map(|(rows, _)| rows).sum(),
            counted: counts.iter().all(|(_, exact)| *exact),
            tables: survey.tables,
        })
    }

    /// Looks at the heads of all files.
    fn survey(&self) -> std::result::Result<Survey, Finding> {
        let mut files = Vec::new();
        let mut layouts: Vec<Layout> = Vec::new();
        for name in &self.files.paths() {
            let at = |error: Error| match error {
                Error::Io { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                    Finding::at("files", format!("`{}` is not there", path.display()))
                }
                other => Finding::at("files", other.to_string()),
            };
            let found = SourceFile::find(name).map_err(at)?;
            // The parts of a folder are one table.
            let first = found.first().expect("a path is one file or a folder with some");
            let (head, bad) = first.head().map_err(|error| match error {
                Error::Data(_) => at(error).in_data(),
                other => at(other),
            })?;
            if head.is_empty() {
                let why =
                    bad.map_or("it holds no rows".to_owned(), |bad| format!("no row can be read; the first: {bad}"));
                return Err(Finding::at("files", format!("{}: {why}", first.name)).in_data());
            }
            let layout = layout(&head, self.format, &self.columns, self.form).map_err(|why| {
                let key = if why.starts_with("`columns:") { "columns" } else { "files" };
                Finding::at(key, format!("{}: {why}", first.name))
            })?;
            if let Some(other) = layouts.first().filter(|other| tables_of(other) != tables_of(&layout)) {
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
        let tables = tables_of(&layouts[0]);
        Ok(Survey { files, layouts, tables })
    }

    /// Columns of a table that stay empty.
    fn without(table: Table, layout: Option<&Layout>) -> Vec<&'static str> {
        let lacks = |columns: &[Column]| layout.is_some_and(|layout| !columns.iter().any(|column| layout.has(*column)));
        match table {
            Table::Responses => {
                let mut without = vec!["logp", "tokens", "finish"];
                let scores = [Column::Score, Column::ChosenScore, Column::RejectedScore];
                without.extend(lacks(&scores).then_some("score"));
                let models =
                    [Column::Model, Column::ChosenModel, Column::RejectedModel, Column::Model0, Column::Model1];
                without.extend(lacks(&models).then_some("model"));
                without
            }
            Table::Verdicts => vec![
                "ab_logp_a",
                "ab_logp_b",
                "ab_mass",
                "ab_p",
                "ba_logp_a",
                "ba_logp_b",
                "ba_mass",
                "ba_p",
                "position_gap",
                "bounded",
                "template",
            ],
            Table::Items => vec!["kl_response_id", "kl_response", "kl_group"],
            _ => Vec::new(),
        }
    }
}

impl Stage for Ingest {
    fn version(&self) -> String {
        "2".to_owned()
    }

    fn inputs(&self) -> Vec<InputPort> {
        Vec::new()
    }

    fn outputs(&self) -> Vec<OutputPort> {
        let survey = self.survey().ok();
        // Where the files cannot tell, `check` says why; a reference to any table is not a second mistake.
        let tables = survey.as_ref().map_or(ALL.to_vec(), |survey| survey.tables.clone());
        let layout = survey.as_ref().map(|survey| &survey.layouts[0]);
        let mut ports = ports_of(&tables, self.holdout.is_some(), |table| Ingest::without(table, layout));
        ports.push(OutputPort::new(Table::Rejects));
        ports
    }

    fn check(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(holdout) = self.holdout.filter(|share| !(*share > 0.0 && *share < 1.0)) {
            findings
                .push(Finding::at("holdout", format!("{holdout} is not in (0, 1); leave it out to hold out nothing")));
        }
        if self.limit == Some(0) {
            findings.push(Finding::at("limit", "0 reads nothing; leave it out to read all rows"));
        }
        if self.max_rejects.is_some() && self.on_bad_row == OnBadRow::Fail {
            findings.push(Finding::at("max_rejects", "has no effect with `on_bad_row: fail`"));
        }
        if self.form == Form::Text && self.columns.contains_key(&Column::System) {
            findings.push(Finding::at("columns.system", "a system message needs `form: chat`"));
        }
        // A file that is not there is found missing as every file that a configuration names.
        if self.files().iter().all(|file| file.exists()) {
            findings.extend(self.survey().err());
        }
        findings
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.paths().into_iter().map(PathBuf::from).collect()
    }

    fn forecast(&self, _: &Context<'_>) -> Result<Forecast> {
        let survey = self.survey().map_err(|finding| Error::data(finding.text))?;
        let counts = survey.files.iter().map(SourceFile::count_rows).collect::<Result<Vec<_>>>()?;
        let rows = counts.iter().map(|(rows, _)| rows).sum::<u64>();
        let mut notes: Vec<String> = survey.layouts.iter().map(ToString::to_string).collect();
        notes.dedup();
        if counts.iter().any(|(_, exact)| !exact) {
            notes.push("rows estimated from the first ones".to_owned());
        }
        let exact = counts.iter().all(|(_, exact)| *exact) || self.limit.is_some_and(|limit| limit <= rows);
        let rows = self.limit.map_or(rows, |limit| rows.min(limit));
        let rows = if exact { Amount::exact(rows) } else { Amount::about(rows) };
        Ok(Forecast { rows, notes, ..Forecast::default() })
    }

    fn expect(&self, _: &Ahead) -> Result<Outlook> {
        let survey = self.survey().map_err(|finding| Error::data(finding.text))?;
        ahead::expect(self, &survey)
    }

    fn run(&self, context: &Context<'_>) -> Result<Outcome> {
        let survey = self.survey().map_err(|finding| Error::data(finding.text))?;
        let mut layouts: Vec<String> = survey.layouts.iter().map(ToString::to_string).collect();
        layouts.dedup();
        layouts.iter().for_each(|layout| context.note(layout.clone()));
        if survey.layouts.iter().any(|layout| layout.plain) {
            let form = if self.form == Form::Text { "raw text (`form: text`)" } else { "messages (`form: chat`)" };
            context.note(format!("plain strings are taken as {form}"));
        }
        let intake = Intake::new(context, &survey.files, &survey.tables, self.holdout)?;
        let mut pass = Pass {
            stage: self,
            context,
            survey: &survey,
            intake,
            rejects: context.writer("rejects")?,
            read: 0,
            reasons: BTreeMap::new(),
            bad: 0,
            named: Vec::new(),
            elsewhere: 0,
        };
        pass.files()?;
        pass.finish(layouts)
    }

    fn trace(&self, context: &Context<'_>, trail: &Trail) -> Result<Vec<Traced>> {
        trace::trace(context, trail)
    }
}

/// One pass over the files.
struct Pass<'a> {
    stage: &'a Ingest,
    context: &'a Context<'a>,
    survey: &'a Survey,
    intake: Intake<'a>,
    rejects: kit::TableWriter<Reject>,
    read: u64,
    /// Rejected rows by reason.
    reasons: BTreeMap<&'static str, u64>,
    /// Rows that are at fault.
    bad: u64,
    /// The first of them.
    named: Vec<String>,
    /// Rows whose prompt is not among their messages.
    elsewhere: u64,
}

impl Pass<'_> {
    fn files(&mut self) -> Result<()> {
        let total = self.survey.files.iter().map(|file| file.bytes).sum();
        let mut done = 0;
        for (number, (file, layout)) in self.survey.files.iter().zip(&self.survey.layouts).enumerate() {
            for row in file.rows(layout)? {
                if self.stage.limit.is_some_and(|limit| self.read == limit) {
                    return Ok(());
                }
                let row = row?;
                self.read += 1;
                done += row.bytes;
                if self.read.is_multiple_of(ROWS_PER_LOOK) {
                    self.context.interrupt.check()?;
                    self.context.progress(done, total, "bytes", format!("{} rows", self.read));
                }
                let place = Place { file: number as u32, line: row.line };
                let (id, reading) = match row.fields {
                    Ok(fields) => (row_id(&fields, layout), read(fields, layout, self.stage.form)),
                    Err(bad) => (String::new(), Err(bad)),
                };
                let taken = match reading {
                    Err(bad) => Taken::Bad(bad),
                    Ok(reading) => {
                        self.elsewhere += u64::from(reading.prompt_elsewhere);
                        self.intake.take(reading.record, place)?
                    }
                };
                match taken {
                    Taken::Kept => {}
                    Taken::SetAside(why) => self.reject(why, id, file, row.line)?,
                    Taken::Bad(why) => {
                        self.bad += 1;
                        if self.named.len() < NAMED {
                            self.named.push(format!("{}:{}: {why}", file.name, row.line));
                        }
                        if self.stage.max_rejects.is_some_and(|most| self.bad > most) {
                            return Err(self.too_many());
                        }
                        self.reject(why, id, file, row.line)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn reject(&mut self, why: BadRow, row_id: String, file: &SourceFile, line: u64) -> Result<()> {
        *self.reasons.entry(why.reason).or_insert(0) += 1;
        self.rejects.push(Reject {
            input: "files".to_owned(),
            row_id,
            reason: why.reason.to_owned(),
            detail: why.detail,
            source_file: Some(file.name.clone()),
            source_line: Some(line),
        })
    }

    fn too_many(&self) -> Error {
        let most = self.stage.max_rejects.unwrap_or_default();
        let text = format!("more than {most} bad rows (`max_rejects`) within {} rows; the first:", self.read);
        Error::data(format!("{text}\n  {}", self.named.join("\n  ")))
    }

    fn finish(self, layouts: Vec<String>) -> Result<Outcome> {
        let names: Vec<&str> = self.stage.files.0.iter().map(String::as_str).collect();
        let names = names.join(", ");
        if self.stage.on_bad_row == OnBadRow::Fail && self.bad > 0 {
            let more = self.bad - self.named.len() as u64;
            let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
            return Err(Error::data(format!(
                "{} of {} rows cannot be taken:\n  {}{more}\nmend them, or go on without them with `on_bad_row: reject`",
                self.bad,
                self.read,
                self.named.join("\n  ")
            )));
        }
        let rejected: u64 = self.reasons.values().sum();
        let kept = self.read - rejected;
        if kept == 0 {
            let why: Vec<String> = self.reasons.iter().map(|(reason, rows)| format!("{rows} {reason}")).collect();
            let why = if self.read == 0 { "there are none".to_owned() } else { why.join(", ") };
            let first = self.named.first().map_or(String::new(), |first| format!("; the first: {first}"));
            return Err(Error::data(format!("{names}: no row is left to go on with: {why}{first}")));
        }
        self.rejects.finish()?;
        for (reason, rows) in &self.reasons {
            self.context.emit(Event::RowsRejected { reason: (*reason).to_owned(), rows: *rows });
        }
        let (counts, prompts, responses) = self.intake.finish(self.context)?;
        let mut outcome = Outcome::default().balance("files", self.read, kept, rejected);
        outcome = outcome.figure("columns", layouts.join("\n"));
        if self.survey.layouts.iter().any(|layout| layout.plain) {
            let form = if self.stage.form == Form::Text { "raw text" } else { "messages of a chat" };
            outcome = outcome.figure("plain strings are", form);
        }
        if prompts > 0 {
            outcome = outcome.figure("prompts", prompts);
        }
        if responses > 0 {
            outcome = outcome.figure("responses", responses);
        }
        for (form, rows) in counts.forms {
            outcome = outcome.figure(&format!("{form}-prompt pairs"), rows);
        }
        for (name, rows) in [("turned around, p_hat below 1/2", counts.reoriented), ("ties", counts.ties)] {
            if rows > 0 {
                outcome = outcome.figure(name, rows);
            }
        }
        if self.elsewhere > 0 {
            outcome = outcome.figure("prompt column is not in the messages", self.elsewhere);
            self.context.warn(format!(
                "{} rows have a prompt column that is none of the messages their conversations begin with; the messages \
                 are used",
                self.elsewhere
            ));
        }
        if let Some(share) = self.stage.holdout {
            outcome = outcome.figure("held out", counts.held_out);
            if counts.on_both_sides > 0 {
                outcome = outcome.figure("prompts on both sides of the split", counts.on_both_sides);
                self.context.warn(format!(
                    "{} prompts have several ids, of which some are held out and some not: what is held out was seen in \
                     training. Give one prompt one id",
                    counts.on_both_sides
                ));
            }
            if counts.held_out == 0 || counts.held_out == kept {
                let side = if counts.held_out == 0 { "no row" } else { "every row" };
                self.context.warn(format!("`holdout: {share}` holds out {side}: there are too few prompts to split"));
            }
        }
        Ok(outcome)
    }
}
