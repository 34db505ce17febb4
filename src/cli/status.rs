//! `status`: the state of the latest runs.

use std::path::Path;

use clap::Args;
use clap::builder::FalseyValueParser;
use serde_json::Value;

use super::queue::Queue;
use crate::cluster::ledger::Ledger;
use crate::error::Result;
use crate::look::inspect::no_run;
use crate::look::runs::{pipeline_name, state_of};
use crate::progress::{ending, summary};
use crate::store::{Records, RunRecord, RunState, StageState};
use crate::streams::print;

#[derive(Debug, Args)]
pub struct Status {
    /// A pipeline's name or file; all of them if left out
    pub pipeline: Option<String>,
    /// Print every stage with all of its figures
    #[arg(short, long, env = "HALFTONE_VERBOSE", hide_env_values = true, value_parser = FalseyValueParser::new())]
    pub verbose: bool,
    /// The record of the latest run as JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints the latest run of each pipeline, or of one.
pub fn status(work: &Path, args: Status) -> Result<()> {
    let records = Records::new(work);
    let mut all = records.pipelines()?;
    let submitted = Ledger::pipelines(work)?;
    all.extend(submitted.iter().filter(|name| !all.contains(name)).cloned().collect::<Vec<_>>());
    let names = match &args.pipeline {
        Some(text) => {
            let name = pipeline_name(text)?;
            if !all.contains(&name) {
                return Err(no_run(&records, &name, None));
            }
            vec![name]
        }
        None => all,
    };
    let mut text = String::new();
    for name in names {
        if submitted.contains(&name) {
            let queue = Queue::of(work, &name)?;
            text.push_str(&if args.json { queue.in_json() } else { queue.text() });
        }
        let Some(mut record) = records.latest(&name)? else { continue };
        let killed = record.state == RunState::Running && !records.alive(&name, record.run);
        if args.json {
            text.push_str(&in_json(&record, killed));
            continue;
        }
        let state = state_of(&records, &record);
        let finished = record.finished.as_ref().map(|time| format!(", ended {time}")).unwrap_or_default();
        text.push_str(&format!("{name}, run {}, {state}; began {}{finished}\n", record.run, record.started));
        if killed {
            // Nobody was left to say so.
            record.state = RunState::Interrupted;
            let at_work = record.stages.values_mut().filter(|stage| matches!(stage.state, StageState::Running));
            at_work.for_each(|stage| stage.state = StageState::Interrupted);
        }
        text.push_str(&match args.verbose {
            true => summary(&record, &records),
            false => ending(&record, &records, work, true),
        });
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

/// The record as it stands on disk; a run whose process is gone is `killed`, and so are its stages at work.
fn in_json(record: &RunRecord, killed: bool) -> String {
    let mut value = serde_json::to_value(record).expect("a record can be written as JSON");
    if killed {
        value["state"] = "killed".into();
        let stages = value["stages"].as_object_mut().into_iter().flat_map(|stages| stages.values_mut());
        stages.filter(|stage| stage["state"] == "running").for_each(|stage| stage["state"] = Value::from("killed"));
    }
    format!("{value}\n")
}
