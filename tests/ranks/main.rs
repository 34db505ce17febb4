//! Trainings by several ranks, threads of a run or processes: the bytes are those of one.

mod hosts;
mod mpi;
mod nccl;
mod processes;
mod tcp;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Command;

use harness::{Project, stderr};
use kit::Digest;
use serde_json::{Value, json};

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
    optimizer: {lr: 1.0e-3, sharded: true}
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
  joint: {kind: ingest, files: ./joint.jsonl, form: text}
  joint_reference: {kind: reference, from: joint.pairs, model: world.model, prompt_part: true}
  jpo:
    kind: train
    from: joint.pairs
    reference: joint_reference
    model: world.model
    objective: {name: jpo, beta: 0.1}
    optimizer: {lr: 1.0e-3}
    batch: {pairs: 16, ranks: 4}
    steps: 4
  lora:
    kind: train
    from: world.preferences
    reference: reference
    model: world.model
    objective: {name: dpo, beta: 0.1}
    optimizer: {lr: 1.0e-3}
    adapter: {rank: 4, alpha: 8, targets: [q_proj, v_proj], dropout: 0.2}
    batch: {pairs: 16, ranks: 4}
    steps: 4
";

/// The trainings of the pipeline.
const TRAININGS: [&str; 5] = ["sft", "dpo", "rpo", "jpo", "lora"];

/// Pairs of two prompts, in chains of four that share prompts with the next.
fn joint() -> String {
    let row = |n: usize| {
        let (first, second) = (n % 4, (n + 1) % 4);
        let prompt = |at: usize| format!("name one tool: {} of {}", ["saw", "axe", "file", "nail"][at], n / 4);
        let (i_chosen, i_reject) = (prompt(first), prompt(second));
        let pair = json!({"i_chosen": i_chosen, "r_chosen": " saw", "i_reject": i_reject, "r_reject": " oak oak"});
        format!("{pair}\n")
    };
    (0..32).filter(|n| n % 4 < 3).map(row).collect()
}

/// A folder with the pipeline and its data.
fn files() -> Project {
    Project::new(&[("pipeline.yaml", PIPELINE), ("joint.jsonl", &joint())])
}

/// A folder with the pipeline, which one rank has run.
fn project() -> Project {
    let project = files();
    run_on_threads(&project, ".halftone", 1);
    project
}

/// Runs the pipeline without `--jobs`. With one thread, one rank does all; with more, threads train copies of the model.
fn run_on_threads(project: &Project, work: &str, threads: usize) {
    let mut run = project.command(&["run", "pipeline.yaml", "--work", work, "--quiet"]);
    let output = run.env("RAYON_NUM_THREADS", threads.to_string()).output().unwrap();
    assert!(output.status.success(), "{threads} threads: {}", stderr(&output));
}

/// Compares the store of a work folder with that of one rank, but for TensorBoard's files, which have times, and an
/// adapter's configuration, which names its base by the whole path, with the digest of it in the manifest.
#[track_caller]
fn same_bytes(project: &Project, work: &str) {
    const CONFIG: &str = "/policy/adapter_config.json";
    let store = |work: &str| -> BTreeMap<String, Digest> {
        let all = project.store(work);
        let adapters: Vec<String> = all.keys().filter_map(|name| Some(name.strip_suffix(CONFIG)?.to_owned())).collect();
        assert_eq!(adapters.len(), 1, "{work}");
        let differs = |name: &str| {
            adapters.iter().any(|of| name == format!("{of}{CONFIG}") || name == format!("{of}/manifest.json"))
        };
        all.into_iter().filter(|(name, _)| !name.contains("tensorboard") && !differs(name)).collect()
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
        assert_eq!(events.matches("workers compute").count(), if says.is_empty() { 0 } else { TRAININGS.len() });
        same_bytes(&project, jobs);
    }
}

#[test]
fn threads_that_train_copies_give_the_bytes_of_one() {
    let project = project();
    for threads in [2, 5] {
        let work = format!("threads-{threads}");
        run_on_threads(&project, &work, threads);
        same_bytes(&project, &work);
    }
}

#[test]
fn the_forecast_counts_the_sets_of_gradients() {
    let project = project();
    let memory = |ranks: u32| {
        let set = format!("rpo.batch.ranks={ranks}");
        let plan = project.done(&["plan", "pipeline.yaml", "--json", "--set", &set, "--set", "rpo.steps=7"]);
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let stage = plan["stages"].as_array().unwrap().iter().find(|stage| stage["stage"] == "rpo").unwrap();
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
    assert_eq!(stopped_after_a_checkpoint(project.command(&run("4")), "-TERM"), Some(75));
    project.done(&run("2"));
    same_bytes(&project, "stopped");
}

/// Starts a command that prints its events, and sends it a signal once a checkpoint is written; gives its exit code.
fn stopped_after_a_checkpoint(mut command: Command, signal: &str) -> Option<i32> {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"checkpoint_written\"")), "no checkpoint was written");
    send(signal, &child.id().to_string());
    lines.for_each(drop);
    child.wait().unwrap().code()
}

fn send(signal: &str, process: &str) {
    assert!(Command::new("kill").args([signal, process]).status().unwrap().success());
}

/// Begins another work folder with all that trainings read.
fn begin(project: &Project, work: &str) {
    for stage in ["reference", "embeddings", "joint_reference"] {
        project.done(&["run", "pipeline.yaml", "--quiet", "--until", stage, "--work", work]);
    }
}
