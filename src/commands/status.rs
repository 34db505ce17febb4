//! `status`: how the latest runs went or go.

use std::path::Path;

use super::pipeline_name;
use crate::cli::{self, print};
use crate::error::{Error, Result};
use crate::problem::did_you_mean;
use crate::report::summary;
use crate::store::{Records, RunState};

/// Prints the latest run of each pipeline, or of one.
pub fn status(work: &Path, args: cli::Status) -> Result<()> {
    let records = Records::new(work);
    let all = records.pipelines()?;
    let names = match &args.pipeline {
        Some(text) => {
            let name = pipeline_name(text)?;
            if !all.contains(&name) {
                let near = did_you_mean(&name, all.iter().map(String::as_str));
                return Err(Error::Usage(format!("no run of `{name}` in {}{near}", work.display())));
            }
            vec![name]
        }
        None => all,
    };
    let mut text = String::new();
    for name in names {
        let Some(record) = records.latest(&name)? else { continue };
        if args.json {
            text.push_str(&serde_json::to_string(&record).expect("a record can be written as JSON"));
            text.push('\n');
            continue;
        }
        let state = match record.state {
            RunState::Running if records.alive(&name, record.run) => "is running",
            RunState::Running => "was killed",
            RunState::Done => "is done",
            RunState::Failed => "failed",
            RunState::Interrupted => "was interrupted",
        };
        let finished = record.finished.as_ref().map(|time| format!(", ended {time}")).unwrap_or_default();
        text.push_str(&format!("{name}, run {}, {state}; began {}{finished}\n", record.run, record.started));
        text.push_str(&summary(&record, &records));
        text.push('\n');
    }
    if text.is_empty() {
        if args.json {
            return Ok(());
        }
        text = format!("no runs in {}\n", work.display());
    }
    print(&format!("{}\n", text.trim_end()))
}
