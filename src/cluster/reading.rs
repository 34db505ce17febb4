//! The cluster file, read and held against a pipeline.

use std::num::NonZeroUsize;
use std::path::Path;

use serde_json::Value;

use crate::cluster::config::{Cluster, Slurm, SlurmStage, seconds_of};
use crate::error::{Error, Result};
use crate::pipeline::graph::{Graph, Node};
use crate::pipeline::problem::{Problem, did_you_mean, once};
use crate::pipeline::settings::Settings;

/// Options of `sbatch` that the tasks depend on, without their dashes.
const OURS: [&str; 12] = [
    "array",
    "chdir",
    "dependency",
    "export",
    "export-file",
    "error",
    "job-name",
    "kill-on-invalid-dep",
    "no-requeue",
    "output",
    "requeue",
    "signal",
];

/// The JSON Schema of cluster files.
pub fn schema() -> Value {
    schemars::schema_for!(Cluster).to_value()
}

/// The names that a cluster file may call a stage by: its own, then that of its matrix.
pub fn names_of(node: &Node) -> Vec<&str> {
    std::iter::once(node.name.as_str()).chain(node.group.as_ref().map(|group| group.name.as_str())).collect()
}

/// Reads a cluster file for a pipeline.
///
/// # Errors
/// All problems with it, sorted by place: unknown keys and stages, values that cannot be, keys without effect.
pub fn load(file: &Path, graph: &Graph) -> Result<Cluster> {
    let settings = Settings::<Cluster>::load(file, &schema());
    let checked = settings.and_then(|settings| {
        let found = findings(&settings, graph);
        if found.is_empty() { Ok(settings.value) } else { Err(once(found)) }
    });
    checked.map_err(|problems| Error::Problems { file: file.to_owned(), problems })
}

fn findings(settings: &Settings<Cluster>, graph: &Graph) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut find = |path: &[&str], text: String| found.push(settings.at_key(path, text));
    match &settings.value {
        Cluster::Slurm(slurm) => {
            slurm_findings(slurm, &mut find);
            for (name, stage) in &slurm.stages {
                let keys = [("tasks", stage.tasks), ("at_once", stage.at_once)];
                stage_findings(graph, name, &keys, &mut find);
                rank_findings(graph, name, stage, &mut find);
            }
        }
        Cluster::Kubernetes(kubernetes) => {
            let stages = kubernetes.stages.iter();
            stages.for_each(|(name, of)| stage_findings(graph, name, &[("tasks", Some(of.tasks))], &mut find));
        }
        Cluster::Ray(ray) => {
            let stages = ray.stages.iter();
            stages.for_each(|(name, of)| stage_findings(graph, name, &[("tasks", Some(of.tasks))], &mut find));
        }
    }
    found
}

/// Findings about the entry of one stage.
fn stage_findings(
    graph: &Graph,
    name: &str,
    of_shards: &[(&str, Option<NonZeroUsize>)],
    find: &mut impl FnMut(&[&str], String),
) {
    let stages = graph.find_all(name);
    if stages.is_empty() {
        let known = graph.nodes.iter().flat_map(names_of);
        let near = did_you_mean(name, known);
        return find(&["stages", name], format!("the pipeline has no stage `{name}`{near}"));
    }
    if stages.iter().all(|stage| !graph.nodes[*stage].stage.is_row_wise()) {
        for (key, _) in of_shards.iter().filter(|(_, value)| value.is_some()) {
            let text = format!("without effect: `{name}` has no shards for other tasks and is one task");
            find(&["stages", name, *key], text);
        }
    }
}

/// Findings about the ranks of one stage.
fn rank_findings(graph: &Graph, name: &str, of: &SlurmStage, find: &mut impl FnMut(&[&str], String)) {
    let most = graph.find_all(name).into_iter().map(|stage| graph.nodes[stage].stage.most_ranks()).min();
    let Some(most) = most else { return };
    let (ranks, nodes) = (of.ranks.map_or(1, usize::from), of.nodes.map_or(1, usize::from));
    let mut at = |key: &str, text: String| find(&["stages", name, key], text);
    if of.ranks.is_some() && most == 1 {
        at("ranks", format!("without effect: `{name}` is done by one process; trainings have ranks by `batch.ranks`"));
    } else if !ranks.is_power_of_two() || ranks > most {
        at("ranks", format!("{ranks} ranks; wanted a power of two, at most `batch.ranks` of `{name}` ({most})"));
    }
    if !ranks.is_multiple_of(nodes) {
        at("nodes", format!("of {ranks} ranks there cannot be as many on each of {nodes} nodes"));
    }
}

fn slurm_findings(slurm: &Slurm, find: &mut impl FnMut(&[&str], String)) {
    texts(&[], &own_texts(slurm), &slurm.options, find);
    speed(&[], slurm.operations_per_second, find);
    for (name, stage) in &slurm.stages {
        let given = [
            ("account", &stage.account),
            ("partition", &stage.partition),
            ("qos", &stage.qos),
            ("constraint", &stage.constraint),
            ("gres", &stage.gres),
            ("time", &stage.time),
            ("memory", &stage.memory),
        ];
        let above = ["stages", name.as_str()];
        texts(&above, &given, &stage.options, find);
        speed(&above, stage.operations_per_second, find);
    }
    for (index, name) in slurm.environment.iter().enumerate() {
        let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if !begins || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            let text = format!("`{name}` is no name of an environment variable; values do not belong here");
            find(&["environment", &index.to_string()], text);
        }
    }
    for (key, words) in [("modules", &slurm.modules), ("container", &slurm.container), ("launcher", &slurm.launcher)] {
        for (index, word) in words.iter().enumerate().filter(|(_, word)| word.is_empty() || has_control(word)) {
            find(&[key, &index.to_string()], format!("`{word}` is no word in one line"));
        }
    }
    if slurm.launcher.is_empty() {
        find(&["launcher"], "wanted the words that start ranks, such as `[mpirun]`".to_owned());
    }
}

fn own_texts(slurm: &Slurm) -> [(&'static str, &Option<String>); 7] {
    [
        ("account", &slurm.account),
        ("partition", &slurm.partition),
        ("qos", &slurm.qos),
        ("constraint", &slurm.constraint),
        ("gres", &slurm.gres),
        ("time", &slurm.time),
        ("memory", &slurm.memory),
    ]
}

/// Findings about texts that become options of `sbatch`.
fn texts(
    above: &[&str],
    given: &[(&str, &Option<String>)],
    options: &[String],
    find: &mut impl FnMut(&[&str], String),
) {
    for (key, value) in given {
        let Some(value) = value else { continue };
        if value.is_empty() || has_control(value) || value.contains('"') {
            find(&[above, &[*key]].concat(), format!("`{value}` cannot be a value of an option"));
        } else if *key == "time" && value != "UNLIMITED" && seconds_of(value).is_none() {
            let text = format!("`{value}` is no time limit; wanted `\"2:00:00\"`, `1-12:00:00` or minutes in quotes");
            find(&[above, &[*key]].concat(), text);
        }
    }
    for (index, option) in options.iter().enumerate() {
        let index = index.to_string();
        let path = [above, &["options", index.as_str()]].concat();
        let name = option.trim_start_matches('-').split(['=', ' ']).next().unwrap_or_default();
        if !option.starts_with("--") || has_control(option) || option.contains('"') {
            find(&path, format!("`{option}` is no long option of sbatch, such as `--mail-type=FAIL`"));
        } else if OURS.contains(&name) {
            find(&path, format!("`--{name}` is set for each task and cannot be given"));
        }
    }
}

fn speed(above: &[&str], operations: Option<f64>, find: &mut impl FnMut(&[&str], String)) {
    if operations.is_some_and(|operations| operations.is_nan() || operations <= 0.0) {
        find(&[above, &["operations_per_second"]].concat(), "wanted a number above 0".to_owned());
    }
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}
