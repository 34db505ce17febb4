//! The stage: its configuration and its ports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kit::{
    Ahead, Amount, Context, Error, Finding, Forecast, InputPort, Outcome, Outlook, OutputPort, Result, Stage, Table,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ahead;
use crate::column::Column;
use crate::files::Files;
use crate::format::{Form, Format};
use crate::layout::Layout;
use crate::pass::Pass;
use crate::source::SourceFile;
use crate::tables::{ALL, ports_of};

/// Reads data files and writes what they hold: `pairs`, `verdicts`, `comparisons`, `items`, `responses`, `prompts`,
/// `embeddings`; with `holdout`, each once more as `holdout_pairs` and so on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// A file or a list of files: JSON Lines (`.jsonl`), a JSON list (`.json`), Parquet, CSV or TSV; or a folder of
    /// files of one of these. Text may be packed with gzip or Zstandard, under any name. `*` and `?` in the last part
    /// of a path stand for any letters and for one; what fits is read in the order of the names. Paths are relative to
    /// the working directory.
    pub files: Files,
    /// How rows are read.
    #[serde(default)]
    pub format: Format,
    /// What the columns are called in the files, ours on the left: `{prompt: question, chosen: better}`. What stands
    /// here is never guessed. `null` leaves a column out that would be found: `{id: null}` where several rows share an
    /// `id`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<Column, Option<String>>,
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

impl Ingest {
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
        "3".to_owned()
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
        if self.form == Form::Text && self.columns.get(&Column::System).is_some_and(Option::is_some) {
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
        notes.extend(survey.layouts.iter().flat_map(Layout::warnings).map(|warning| format!("warning: {warning}")));
        let mut seen = BTreeSet::new();
        notes.retain(|note| seen.insert(note.clone()));
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
        let warnings: BTreeSet<String> = survey.layouts.iter().flat_map(Layout::warnings).collect();
        warnings.into_iter().for_each(|warning| context.warn(warning));
        if survey.layouts.iter().any(|layout| layout.plain) {
            let form = if self.form == Form::Text { "raw text (`form: text`)" } else { "messages (`form: chat`)" };
            context.note(format!("plain strings are taken as {form}"));
        }
        Pass::new(self, context, &survey)?.run(layouts)
    }
}
