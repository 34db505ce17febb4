//! Trainings by several ranks, threads of a run: the bytes are those of one.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Command;

use harness::Project;
use kit::Digest;
use serde_json::Value;

const PIPELINE: &str = "
name: ranks
seed: 17
stages:
  world: {kind: sandbox, mode: world, prompts: 24, holdout_prompts: 4, demonstrations: 64, preferences: 64, judge_rows: 64}
  reference: {kind: reference, from: world.preferences, model: world.model}
  embeddings: {kind: embed, from: world.preferences, model: world.model}
  sft:
    kind: train
    from: world.demonstrations
    model: world.model
    objective: {name: sft}
    optimizer: {lr: 1.0e-3}
    batch: {items: 16, ranks: 4}
    steps: 6
    checkpoint_every: 2
  dpo:
    kind: train
    from: world.preferences
    reference: reference
    model: world.model
    objective: {name: dpo, beta: 0.1}
    optimizer: {lr: 1.0e-3}
    batch: {pairs: 16, ranks: 4}
    steps: 30
    checkpoint_every: 2
  rpo:
    kind: train
    from: world.preferences
    reference: reference
    embeddings: embeddings
    model: world.model
    objective: {name: rpo, beta: 0.1, tau: 0.5}
    optimizer: {lr: 1.0e-3}
    batch: {pairs: 16, ranks: 4}
    steps: 6
    checkpoint_every: 2
";

/// A folder with the pipeline, which one rank has run.
fn project() -> Project {
    let project = Project::new(&[("pipeline.yaml", PIPELINE)]);
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    project
}

/// Compares the store of a work folder with that of one rank, but for TensorBoard's files, which have times.
#[track_caller]
fn same_bytes(project: &Project, work: &str) {
    let store = |work: &str| -> BTreeMap<String, Digest> {
        project.store(work).into_iter().filter(|(name, _)| !name.contains("tensorboard")).collect()
    };
    let (got, wanted) = (store(work), store(".halftone"));
    assert_eq!(got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    let differing: Vec<&String> =
        wanted.iter().filter(|(name, digest)| got[*name] != **digest).map(|(name, _)| name).collect();
    assert!(differing.is_empty(), "{work}: {differing:?}");
}

#[test]
fn a_run_with_several_workers_gives_the_bytes_of_one() {
    let project = project();
    for (jobs, says) in
        [("2", ""), ("3", "2 of 3 workers compute: a power of two, at most `batch.ranks` (4)"), ("4", "")]
    {
        let events = project.done(&["run", "pipeline.yaml", "--work", jobs, "--jobs", jobs, "--json"]);
        assert!(events.contains(says), "{events}");
        assert_eq!(events.matches("workers compute").count(), if says.is_empty() { 0 } else { 3 });
        same_bytes(&project, jobs);
    }
}

#[test]
fn the_forecast_counts_the_sets_of_gradients() {
    let project = project();
    let memory = |ranks: u32| {
        let set = format!("dpo.batch.ranks={ranks}");
        let plan = project.done(&["plan", "pipeline.yaml", "--json", "--set", &set, "--set", "dpo.steps=7"]);
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let stage = plan["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "dpo").unwrap();
        stage["forecast"]["memory"].as_u64().unwrap()
    };
    // One device holds log2(ranks) more sets.
    let set = memory(2) - memory(1);
    assert!(set > 1_000_000, "{set} bytes");
    assert_eq!((memory(4) - memory(1), memory(64) - memory(1)), (2 * set, 6 * set));
}

#[test]
fn a_signal_stops_all_ranks_and_the_run_goes_on_with_others() {
    let project = project();
    let run = |jobs| ["run", "pipeline.yaml", "--work", "stopped", "--jobs", jobs, "--json"];
    assert_eq!(stopped_after_a_checkpoint(project.command(&run("4"))), Some(75));
    project.done(&run("2"));
    same_bytes(&project, "stopped");
}

/// Starts a command that prints its events, and sends it SIGTERM once a checkpoint is written; gives its exit code.
fn stopped_after_a_checkpoint(mut command: Command) -> Option<i32> {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"checkpoint_written\"")), "no checkpoint was written");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    lines.for_each(drop);
    child.wait().unwrap().code()
}
