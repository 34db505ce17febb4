//! The configuration of `ingest`: its field docs are the manual.

use std::collections::BTreeMap;

use kit::Finding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::files::Files;
use crate::form::Form;
use crate::format::Format;
use crate::names::Names;
use crate::scale::VoteScale;
use crate::scores::Scores;

/// Reads data files and writes what they hold: `pairs`, `verdicts`, `comparisons`, `items`, `responses`, `prompts`,
/// `votes`, `embeddings`; with `holdout`, each once more as `holdout_pairs` and so on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ingest {
    /// A file or a list of files: JSON Lines (`.jsonl`), a JSON list (`.json`), Parquet, CSV or TSV; or a folder of
    /// files of one of these. Text may be packed with gzip or Zstandard, under any name. `*` and `?` in the last part
    /// of a path stand for any letters and for one; what fits is read in the order of the names. Paths are relative to
    /// the working directory.
    pub files: Files,
    /// Format of the rows.
    #[serde(default)]
    pub format: Format,
    /// Names of the columns in the files, ours on the left: `{prompt: question, chosen: better}`. Columns named here
    /// are not guessed. `null` leaves a column out that would be found: `{id: null}` where several rows share an `id`.
    /// An id can be put together from columns, `{id: "natural/{i}"}`; `votes` can be several: `{votes: [anna, ben]}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<Column, Option<Names>>,
    /// Meaning of the values of votes: `{first: 1, second: 2, tie: 0}`. Without it the meaning is found where only one
    /// is possible, such as `A`, `B` and `tie`; the summary states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub votes: Option<VoteScale>,
    /// How scores become labels, and which responses to a prompt are compared: `{scale: 0.5, pairs: best_worst}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scores: Option<Scores>,
    /// The form of plain strings: raw `text`, as in TRL, or the messages of a `chat`, which models see through their
    /// chat template. Values that are messages already stay messages.
    #[serde(default = "text")]
    pub form: Form,
    /// Treatment of rows that cannot be read or that contradict others: the stage fails and names them, or they go to
    /// the port `rejects`. Duplicates are no bad rows; they go there in any case.
    #[serde(default)]
    pub on_bad_row: OnBadRow,
    /// With `on_bad_row: reject`, the most bad rows to put up with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rejects: Option<u64>,
    /// Rows to keep that else are set aside: `empty` (a response without a word), `identical` (both responses are the
    /// same text), `repeated` (the two responses of an earlier row, in either order; each row needs an id of its own).
    /// Without `repeated`, the votes of such rows are added to those of the earlier one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<Kept>,
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

/// Treatment of bad rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// The stage fails and names the first ones.
    #[default]
    Fail,
    /// They go to the port `rejects`, counted by reason.
    Reject,
}

/// Rows that are set aside unless they are to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kept {
    /// A response without a word.
    Empty,
    /// Both responses are the same text.
    Identical,
    /// The two responses of an earlier row.
    Repeated,
}

impl Ingest {
    /// Findings about the values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
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
        findings.extend(self.scores.iter().flat_map(Scores::findings));
        // A file that is not there is found missing as every file that a configuration names.
        if self.files.paths().iter().all(|file| std::path::Path::new(file).exists()) {
            findings.extend(self.survey().err());
        }
        findings
    }
}
