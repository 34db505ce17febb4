//! The tasks of a plan: what runs, and after what.

use crate::cluster::config::Cluster;
use crate::cluster::reading::names_of;
use crate::engine::plan::{Decision, Planned};
use crate::pipeline::graph::Graph;

/// The part of a stage's work that a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// All of it.
    Whole,
    /// Its shards, in equal parts.
    Parts,
    /// The end: the committed shards become the result.
    Seal,
    /// After all stages: links, record and report of the whole run.
    Report,
}

impl Role {
    /// The word for it, in names of files.
    pub fn word(self) -> &'static str {
        match self {
            Role::Whole => "whole",
            Role::Parts => "parts",
            Role::Seal => "seal",
            Role::Report => "report",
        }
    }
}

/// A task, or an array of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub role: Role,
    /// Name of the stage; of the last task, `report`.
    pub name: String,
    /// The stage's number; none for the report.
    pub stage: Option<usize>,
    /// Number of parts; 1 where it is not in parts.
    pub parts: usize,
    /// The tasks that it waits for: all of them end well first.
    pub after: Vec<usize>,
    /// Stages that it reads, with those whose results are there.
    pub reads: Vec<String>,
}

/// The tasks that make the results that a plan lacks, each after those it waits for. A stage reads results by their
/// content, so that its tasks wait for the whole results before it.
pub fn tasks(graph: &Graph, planned: &[Planned], parts_of: &dyn Fn(usize) -> usize) -> Vec<Task> {
    let mut tasks: Vec<Task> = Vec::new();
    let mut last: Vec<Option<usize>> = vec![None; graph.nodes.len()];
    for &stage in &graph.order {
        if !matches!(planned[stage].decision, Decision::Run(_) | Decision::Depends(_)) {
            continue;
        }
        let node = &graph.nodes[stage];
        let upstream = graph.upstream(stage);
        let after: Vec<usize> = upstream.iter().filter_map(|stage| last[*stage]).collect();
        let reads: Vec<String> = upstream.iter().map(|stage| graph.nodes[*stage].name.clone()).collect();
        let parts = if node.stage.is_row_wise() { parts_of(stage) } else { 1 };
        let task = |role, parts, after| Task {
            role,
            name: node.name.clone(),
            stage: Some(stage),
            parts,
            after,
            reads: reads.clone(),
        };
        match parts {
            1 => tasks.push(task(Role::Whole, 1, after)),
            parts => {
                tasks.push(task(Role::Parts, parts, after));
                tasks.push(task(Role::Seal, 1, vec![tasks.len() - 1]));
            }
        }
        last[stage] = Some(tasks.len() - 1);
    }
    if !tasks.is_empty() {
        let waited: Vec<usize> = tasks.iter().flat_map(|task| task.after.clone()).collect();
        let after = (0..tasks.len()).filter(|task| !waited.contains(task)).collect();
        let reads = tasks.iter().map(|task| task.name.clone()).collect();
        tasks.push(Task { role: Role::Report, name: "report".to_owned(), stage: None, parts: 1, after, reads });
    }
    tasks
}

/// As many parts of a stage as a cluster file gives it tasks.
pub fn parts_in(cluster: &Cluster, graph: &Graph, stage: usize) -> usize {
    cluster.tasks(&names_of(&graph.nodes[stage]))
}
