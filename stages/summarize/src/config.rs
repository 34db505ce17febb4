//! The configuration of `summarize`: its field docs are the manual.

use std::collections::BTreeMap;

use kit::{Finding, Input};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Summarises the runs of a matrix: means over seeds, the best setting of each group, and paired comparisons.
///
/// Means have the t interval over the runs. A comparison takes the difference seed by seed and tests its mean with
/// Student's paired t; p-values are not corrected for their number.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Summarize {
    /// `summary` tables, one or several per run (such as one on development data and one on test data).
    pub from: Input,
    /// The labels of each table, in the order of `from`: `${labels.STAGE}` for all stages of a matrix (or some, with
    /// brackets as in `from`), a list of these where `from` is a list.
    pub labels: Vec<BTreeMap<String, String>>,
    /// The label that differs between repetitions of one setting: `seed`.
    pub over: String,
    /// The label whose values are compared: `objective`.
    pub compare: String,
    /// The values of `compare` that the others are compared with. Without it there are no differences.
    #[serde(default)]
    pub against: Vec<String>,
    /// Labels that separate comparisons, such as the training data: settings are compared within one value of each.
    #[serde(default)]
    pub within: Vec<String>,
    /// Choice of one setting of each value of `compare` among all its other labels. Without it, settings are compared
    /// with those of the same other labels.
    #[serde(default)]
    pub choose: Option<Choose>,
    /// The figures to report.
    pub metrics: Vec<String>,
}

/// Choice of a setting.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Choose {
    /// The figure that decides, by its mean over the runs. It should be of data that no reported figure is of.
    pub metric: String,
    /// Direction of the metric: the `highest` or the `lowest` value is best.
    pub best: Best,
}

/// Direction of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Best {
    /// More is better.
    Highest,
    /// Less is better.
    Lowest,
}

impl Summarize {
    /// Findings about the values.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.metrics.is_empty() {
            findings.push(Finding::at("metrics", "names no figure, so there is nothing to report"));
        }
        if self.labels.len() != self.from.0.len() {
            let (tables, labels) = (self.from.0.len(), self.labels.len());
            let text =
                format!("{labels} labels for {tables} tables; write `${{labels.STAGE}}` with the stage of `from`");
            findings.push(Finding::at("labels", text));
        }
        for (key, axes) in
            [("over", vec![&self.over]), ("compare", vec![&self.compare]), ("within", self.within.iter().collect())]
        {
            for axis in axes {
                if let Some(labels) = self.labels.iter().find(|labels| !labels.contains_key(axis)) {
                    let known: Vec<String> = labels.keys().map(|axis| format!("`{axis}`")).collect();
                    findings.push(Finding::at(key, format!("no label `{axis}`; the tables have {}", known.join(", "))));
                }
            }
        }
        for against in &self.against {
            if !self.labels.iter().any(|it| it.get(&self.compare) == Some(against)) {
                findings.push(Finding::at("against", format!("`{against}` is no value of `{}`", self.compare)));
            }
        }
        findings
    }
}
