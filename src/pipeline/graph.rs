//! A pipeline whose stages are configured and whose references are resolved: what the plan and the runner work on.

use std::path::PathBuf;
use std::sync::Arc;

use kit::{OutputPort, Stage, Table};
use serde_json::Value;

use crate::hub::ModelName;
use crate::pipeline::Group;
use crate::pipeline::problem::{At, Problem};
use crate::remote::Address;

/// A checked pipeline.
pub struct Graph {
    /// The pipeline file.
    pub file: PathBuf,
    /// The pipeline's name.
    pub name: String,
    pub seed: Option<u64>,
    /// The store that is shared with others. It decides no result.
    pub remote: Option<Address>,
    /// The stages, in the order of the file.
    pub nodes: Vec<Node>,
    /// The stages' numbers, each after those it reads from; otherwise in the order of the file.
    pub order: Vec<usize>,
    /// Warnings: settings that are allowed and rarely intended.
    pub warnings: Vec<Problem>,
    /// The same, of stages on this machine.
    pub remarks: Vec<Problem>,
}

/// A configured stage.
pub struct Node {
    /// Its name in the pipeline.
    pub name: String,
    pub kind: &'static str,
    /// The stage.
    pub stage: Box<dyn Stage>,
    /// Its configuration after defaults.
    pub settings: Value,
    /// The settings that go to a server and came from the environment: the keys that lead to each, and its text with
    /// `${env:X}` for what came from there.
    pub named: Vec<(Vec<String>, Arc<str>)>,
    /// The seed it draws from: its own, or the pipeline's.
    pub seed: Option<u64>,
    /// The matrix it is one combination of.
    pub group: Option<Group>,
    /// Sources of its inputs.
    pub inputs: Vec<Edge>,
    /// Its output ports.
    pub outputs: Vec<OutputPort>,
}

/// An input of a stage with its sources.
#[derive(Debug, Clone)]
pub struct Edge {
    /// The input's key.
    pub key: &'static str,
    /// The reason why it is not read, where it is not.
    pub idle: Option<String>,
    /// The sources, in order; all of one table.
    pub sources: Vec<Origin>,
    /// Its place in the file.
    pub at: At,
}

/// Origin of one source of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A port of another stage.
    Port {
        /// The stage's number.
        stage: usize,
        /// The port's name.
        port: String,
        /// The table it carries.
        table: Table,
    },
    /// A model that is to be fetched from the hub before it can be planned with.
    Hub { name: ModelName },
    /// A file or folder.
    Path {
        /// As the pipeline file names it.
        path: PathBuf,
        /// The table that the stage reads it as.
        table: Table,
    },
}

impl Origin {
    /// The table that flows along the edge.
    pub fn table(&self) -> Table {
        match self {
            Origin::Port { table, .. } | Origin::Path { table, .. } => *table,
            Origin::Hub { .. } => Table::Model,
        }
    }
}

impl Node {
    /// Settings in which those that go to a server are replaced where they came from the environment: `write` takes the
    /// value and its text with names.
    pub fn with_names(&self, mut settings: Value, write: impl Fn(&Value, &str) -> String) -> Value {
        for (path, text) in &self.named {
            let found = path.iter().try_fold(&mut settings, |value, key| match value {
                Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?),
                other => other.get_mut(key),
            });
            if let Some(value) = found {
                *value = Value::String(write(value, text));
            }
        }
        settings
    }
}

impl Graph {
    /// The number of a stage.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The numbers of the stages that a name means: a stage, or all stages of a matrix.
    pub fn find_all(&self, name: &str) -> Vec<usize> {
        let of_group = |node: &Node| node.group.as_ref().is_some_and(|group| group.name == name);
        (0..self.nodes.len()).filter(|stage| self.nodes[*stage].name == name || of_group(&self.nodes[*stage])).collect()
    }

    /// The stages that a stage reads from, without idle inputs; in order, each once.
    pub fn upstream(&self, stage: usize) -> Vec<usize> {
        let mut found = Vec::new();
        for other in self.sources(stage) {
            if !found.contains(&other) {
                found.push(other);
            }
        }
        found
    }

    /// The stages whose results a stage reads, one for each port of theirs that it reads.
    pub fn sources(&self, stage: usize) -> impl Iterator<Item = usize> {
        let read = self.nodes[stage].inputs.iter().filter(|edge| edge.idle.is_none());
        read.flat_map(|edge| &edge.sources)
            .filter_map(|origin| if let Origin::Port { stage, .. } = origin { Some(*stage) } else { None })
    }

    /// The models that a stage reads and that are to be fetched first.
    pub fn absent(&self, stage: usize) -> impl Iterator<Item = &ModelName> {
        let read = self.nodes[stage].inputs.iter().filter(|edge| edge.idle.is_none());
        read.flat_map(|edge| &edge.sources)
            .filter_map(|origin| if let Origin::Hub { name } = origin { Some(name) } else { None })
    }

    /// A stage and everything it needs.
    pub fn needs(&self, stage: usize) -> Vec<bool> {
        let mut needed = vec![false; self.nodes.len()];
        let mut open = vec![stage];
        while let Some(stage) = open.pop() {
            if !std::mem::replace(&mut needed[stage], true) {
                open.extend(self.upstream(stage));
            }
        }
        needed
    }

    /// A stage and everything that reads, directly or not, what it writes.
    pub fn follows(&self, stage: usize) -> Vec<bool> {
        let mut following = vec![false; self.nodes.len()];
        following[stage] = true;
        for &later in &self.order {
            if self.upstream(later).iter().any(|&earlier| following[earlier]) {
                following[later] = true;
            }
        }
        following
    }

    /// For each stage that feeds only inputs that nobody reads: why.
    pub fn idle_stages(&self) -> Vec<Option<String>> {
        let mut idle: Vec<Option<String>> = vec![None; self.nodes.len()];
        // The readers of each stage with the input that reads it: there may be thousands of stages.
        let mut fed: Vec<Vec<(usize, &Edge)>> = vec![Vec::new(); self.nodes.len()];
        for (reader, node) in self.nodes.iter().enumerate() {
            for edge in &node.inputs {
                for origin in &edge.sources {
                    let Origin::Port { stage, .. } = origin else { continue };
                    if fed[*stage].last().is_none_or(|(last, other)| *last != reader || other.key != edge.key) {
                        fed[*stage].push((reader, edge));
                    }
                }
            }
        }
        for &stage in self.order.iter().rev() {
            let mut reasons = Vec::new();
            let mut read = false;
            for (reader, edge) in &fed[stage] {
                let name = &self.nodes[*reader].name;
                match (&edge.idle, &idle[*reader]) {
                    (Some(why), _) => reasons.push(format!("`{name}` does not read `{}`: {why}", edge.key)),
                    (None, Some(_)) => reasons.push(format!("it feeds only `{name}`, which is skipped")),
                    (None, None) => read = true,
                }
            }
            if !read && !reasons.is_empty() {
                idle[stage] = Some(reasons.join("; "));
            }
        }
        idle
    }
}
