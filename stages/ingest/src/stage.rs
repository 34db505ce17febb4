//! The stage contract of `ingest`: ports, checks, forecast, run.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kit::rows::Verdict;
use kit::{
    Amount, Context, Error, Finding, Forecast, ForecastInputs, InputPort, Job, Outcome, Outlook, OutputPort, Result,
    Stage, Table,
};

use crate::column::Column;
use crate::config::Ingest;
use crate::forecast;
use crate::form::Form;
use crate::layout::Layout;
use crate::pass::Pass;
use crate::source::SourceFile;
use crate::tables::{ALL, ports_of};

impl Ingest {
    /// Columns of a table that stay empty.
    fn without(table: Table, layout: Option<&Layout>) -> Vec<&'static str> {
        let lacks =
            |columns: &[Column]| layout.is_some_and(|layout| !columns.iter().any(|column| layout.columns.has(*column)));
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
            Table::Verdicts => Verdict::OF_QUESTIONS.to_vec(),
            Table::Votes => {
                let log_odds = layout.is_some_and(|layout| layout.columns.scaled().is_none());
                let lengths = lacks(&[Column::Length0]);
                let columns = [("log_odds", log_odds), ("length_a", lengths), ("length_b", lengths)];
                columns.into_iter().filter(|(_, lacking)| *lacking).map(|(column, _)| column).collect()
            }
            Table::Items => vec!["kl_response_id", "kl_response", "kl_group"],
            _ => Vec::new(),
        }
    }
}

impl Ingest {
    fn compute(&self, context: &Context<'_>) -> Result<Outcome> {
        let survey = self.survey().map_err(fault)?;
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

impl Ingest {
    /// The forecast counted from the inputs; no work is done.
    fn count(&self, _: &Context<'_>) -> Result<Forecast> {
        let survey = self.survey().map_err(fault)?;
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

    /// The same from what the inputs are expected to hold, and what the ports will.
    fn estimate(&self) -> Result<Outlook> {
        let survey = self.survey().map_err(fault)?;
        forecast::estimate(self, &survey)
    }
}

/// The failure of a run that meets a finding: of the system where that could not read a file, else of the data.
fn fault(finding: Finding) -> Error {
    match finding.text.split_once(": ") {
        Some((path, text)) if finding.in_system => Error::io(path)(std::io::Error::other(text.to_owned())),
        _ => Error::data(finding.text),
    }
}

impl Stage for Ingest {
    fn version(&self) -> String {
        "7".to_owned()
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
        self.findings()
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.paths().into_iter().map(PathBuf::from).collect()
    }

    fn forecast(&self, ahead: &ForecastInputs<'_>) -> Result<Outlook> {
        ahead.counted(self.estimate(), |context| self.count(context))
    }

    fn job<'a>(&'a self, context: &'a Context<'a>) -> Result<Job<'a>> {
        Ok(Job::whole(move || self.compute(context)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_cannot_read_is_no_fault_of_the_data() {
        let of_system = fault(Finding::at("files", "my/rows.jsonl: Input/output error (os error 5)").in_system());
        assert!(matches!(&of_system, Error::Io { path, .. } if path.ends_with("rows.jsonl")), "{of_system:?}");
        assert_eq!(of_system.to_string(), "my/rows.jsonl: Input/output error (os error 5)");
        assert!(matches!(fault(Finding::at("files", "my/rows.jsonl: no rows")), Error::Data(_)));
    }
}
