//! `status` of what was submitted to a cluster: what the store holds, what is in the queue, and what is neither.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::ledger::{Jobs, Ledger};
use crate::cluster::rendered::PIPELINE;
use crate::cluster::scheduler::Scheduler;
use crate::cluster::slurm::SlurmCommands;
use crate::cluster::tasks::Role;
use crate::cluster::view::{Tasks, view};
use crate::engine::plan::{Decision, Planner, Selection};
use crate::error::Result;
use crate::kinds::KINDS;
use crate::pipeline::check::check_file;
use crate::progress::aligned;
use crate::store::{Records, Store};

/// The tasks of a pipeline on a cluster.
pub struct Queue {
    name: String,
    jobs: Jobs,
    tasks: Vec<Tasks>,
    /// The shards of stages whose results are not there, true where they are committed.
    shards: BTreeMap<String, Vec<bool>>,
    /// The reason why the scheduler does not say what is in the queue.
    silent: Option<String>,
}

impl Queue {
    /// Of a pipeline that was submitted.
    ///
    /// # Errors
    /// When the records or the store cannot be read.
    pub fn of(work: &Path, name: &str) -> Result<Queue> {
        let ledger = Ledger::new(work, name);
        let jobs = ledger.read()?;
        let (queued, silent) = match SlurmCommands.queued() {
            Ok(queued) => (Some(queued), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let (mut whole, mut shards) = (BTreeSet::new(), BTreeMap::new());
        let last = jobs.jobs.iter().map(|job| job.submission).max().unwrap_or_default();
        // Without the variables that it names the pipeline cannot be read; then the queue alone is shown.
        if let Ok(graph) = check_file(&ledger.submission(last).join(PIPELINE), &[], KINDS) {
            let (store, records) = (Store::open(work), Records::new(work));
            let planned = Planner::new(&graph, &store, &records, None)?.plan(&Selection::default())?;
            for (node, plan) in graph.nodes.iter().zip(&planned) {
                if let Decision::Reuse(_) = plan.decision {
                    whole.insert(node.name.clone());
                } else if let Some(recipe) = &plan.recipe
                    && let Some(there) = kit::committed_shards(&store.partial(&recipe.entry(), false))?
                {
                    shards.insert(node.name.clone(), there);
                }
            }
            if planned.iter().all(|plan| matches!(plan.decision, Decision::Reuse(_) | Decision::Skip(_))) {
                whole.insert("report".to_owned());
            }
        }
        let tasks = view(&ledger, &jobs, queued.as_deref(), &whole, &shards);
        Ok(Queue { name: name.to_owned(), jobs, tasks, shards, silent })
    }

    /// For machines.
    pub fn in_json(&self) -> String {
        let of =
            |(name, shards): (&String, &Vec<bool>)| (name.clone(), json!({"there": count(shards), "of": shards.len()}));
        let shards: serde_json::Map<String, Value> = self.shards.iter().map(of).collect();
        let value = json!({
            "pipeline": self.name, "cluster": self.jobs.cluster, "tasks": self.tasks, "queue": self.silent.is_none(),
            "shards": shards,
        });
        format!("{value}\n")
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Some(why) = &self.silent {
            text.push_str(&format!("{}: the queue is unknown: {why}\n", self.name));
        }
        let row = |tasks: &Tasks| {
            let role = match tasks.role {
                Role::Whole | Role::Report => String::new(),
                role => format!(", {}", if role == Role::Parts { "parts" } else { "end" }),
            };
            let reason = tasks.reason.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            let states: Vec<String> = tasks.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
            let shards = self.shards.get(&tasks.name).filter(|_| tasks.role == Role::Parts);
            let words = |shards: &Vec<bool>| format!("{} of {} shards are there", count(shards), shards.len());
            let shards = shards.map(words).unwrap_or_default();
            vec![format!("{}{role}", tasks.name), format!("{}{reason}", states.join(", ")), shards]
        };
        let rows: Vec<Vec<String>> = self.tasks.iter().map(row).collect();
        if rows.is_empty() && self.silent.is_none() {
            return format!("{}: no task is in the queue, and none is missing\n", self.name);
        }
        if !rows.is_empty() {
            text.push_str(&format!("{} on {}:\n", self.name, self.jobs.cluster.display()));
            text.push_str(&aligned(&rows, &[]));
        }
        for failed in self.tasks.iter().filter_map(|tasks| tasks.failed.as_ref()) {
            text.push_str(&format!("{}:\n", failed.log.display()));
            failed.lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        let missing = |tasks: &Tasks| tasks.states.contains_key("ended") || tasks.states.contains_key("stuck");
        if self.tasks.iter().any(missing) {
            let (file, cluster) = (self.jobs.file.display(), self.jobs.cluster.display());
            text.push_str(&format!("`halftone run {file} --on {cluster}` submits what is missing\n"));
        }
        text
    }
}

fn count(shards: &[bool]) -> usize {
    shards.iter().filter(|there| **there).count()
}
