//! Shards of stages in many processes: the bytes are those of one.

use std::io::{BufRead, BufReader};
use std::process::Command;
use std::time::Duration;

use harness::{Project, stderr};

const PIPELINE: &str = "
name: shards
seed: 17
stages:
  world: {kind: sandbox, mode: world, prompts: 48, holdout_prompts: 4, demonstrations: 64, judge_rows: 64}
  samples: {kind: sample, from: world.prompts, model: world.model, k: 2, temperature: 1.0, max_tokens: 6, shard_rows: 4}
  comparisons: {kind: compare, from: samples, within: all}
  reference: {kind: reference, from: world.demonstrations, model: world.model, shard_rows: 8}
  embeddings: {kind: embed, from: world.demonstrations, model: world.model, shard_rows: 8}
";

/// A folder with the pipeline, which one process has run.
fn project() -> Project {
    let project = Project::new(&[("pipeline.yaml", PIPELINE)]);
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    project
}

/// Begins another work folder with the world that `samples` reads.
fn begin(project: &Project, work: &str) {
    project.done(&["run", "pipeline.yaml", "--quiet", "--until", "world", "--work", work]);
}

fn shard<'a>(stage: &'a str, shards: &'a str, work: &'a str) -> Vec<&'a str> {
    vec!["shard", "pipeline.yaml", "--stage", stage, "--shards", shards, "--work", work]
}

/// Ends the pipeline in a work folder with a single thread and compares its store with that of the one process.
fn same_bytes(project: &Project, work: &str) {
    let mut run = project.command(&["run", "pipeline.yaml", "--quiet", "--work", work]);
    let output = run.env("RAYON_NUM_THREADS", "1").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(project.store(work), project.store(".halftone"));
}

#[test]
fn shards_of_many_processes_and_a_pool_give_the_bytes_of_one() {
    let project = project();
    begin(&project, "parts");
    let mut parts: Vec<_> =
        ["0/3", "1/3", "2/3"].map(|part| project.command(&shard("samples", part, "parts")).spawn().unwrap()).into();
    // Two that want the same, and one that comes late.
    parts.extend([(); 2].map(|()| project.command(&shard("samples", "all", "parts")).spawn().unwrap()));
    for part in parts {
        let output = part.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let late = project.done(&shard("samples", "3-7", "parts"));
    assert!(late.contains("5 of 12 shards are there, 0 of them computed now"), "{late}");
    same_bytes(&project, "parts");
    assert!(project.done(&shard("samples", "0", "parts")).contains("its whole result is there"));

    let events = project.done(&["run", "pipeline.yaml", "--work", "pool", "--jobs", "3", "--json"]);
    let committed = |stage: &str| {
        let is = |line: &&str| line.contains("\"shard_committed\"") && line.contains(&format!("\"{stage}\""));
        events.lines().filter(is).count()
    };
    assert_eq!((committed("samples"), committed("reference")), (12, 8), "{events}");
    same_bytes(&project, "pool");
}

#[test]
fn workers_killed_at_any_moment_lose_a_shard_at_most() {
    let project = project();
    begin(&project, "killed");
    let mut killed = 0;
    for round in 0..12 {
        let mut children = ["0/2", "1/2"].map(|part| project.start(&shard("samples", part, "killed")));
        std::thread::sleep(Duration::from_millis(40 * round));
        for child in &mut children {
            killed += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    assert!(killed >= 4, "{killed} of 24 were killed before they were done");
    same_bytes(&project, "killed");
}

/// Starts a command that prints its events, and sends it SIGTERM once a shard is committed; gives its exit code.
fn stopped_after_a_shard(project: &Project, args: &[&str]) -> Option<i32> {
    let mut child = project.command(&[args, &["--json"]].concat()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("\"shard_committed\"")), "no shard was committed");
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    lines.for_each(drop);
    child.wait().unwrap().code()
}

#[test]
fn a_signal_stops_a_worker_and_a_run_with_its_workers() {
    // Many shards, so that none of the two is done when the signal comes.
    let project = Project::new(&[("pipeline.yaml", &PIPELINE.replace("prompts: 48,", "prompts: 1000,"))]);
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    begin(&project, "stopped");
    assert_eq!(stopped_after_a_shard(&project, &shard("samples", "all", "stopped")), Some(75));
    let run = ["run", "pipeline.yaml", "--work", "stopped", "--jobs", "2"];
    assert_eq!(stopped_after_a_shard(&project, &run), Some(75));
    same_bytes(&project, "stopped");
}

/// Prompts that are more than one shard of a search.
const NEAR: &str = "
name: near
seed: 5
stages:
  data: {kind: ingest, files: ./responses.jsonl, form: text, on_bad_row: fail}
  places: {kind: ingest, files: ./places.jsonl, form: text, on_bad_row: fail}
  met: {kind: compare, from: data.responses, embeddings: places.embeddings, joint: {nearest: 2},
        neighbours: {ivf: {lists: 40, probes: 3}}}
";

#[test]
fn nearest_prompts_searched_by_killed_processes_are_those_of_one() {
    let (mut responses, mut places) = (String::new(), String::new());
    for prompt in 0..20_000_u32 {
        responses.push_str(&format!("{{\"prompt\": \"{prompt}\", \"response\": \"x\"}}\n"));
        let place: Vec<f64> = (0..8).map(|at| f64::from(prompt * 8 + at).powi(2).sin()).collect();
        places.push_str(&format!("{{\"prompt\": \"{prompt}\", \"embedding\": {place:?}}}\n"));
    }
    let files = [("pipeline.yaml", NEAR), ("responses.jsonl", &responses), ("places.jsonl", &places)];
    let project = Project::new(&files);
    project.done(&["run", "pipeline.yaml", "--quiet"]);
    for stage in ["data", "places"] {
        project.done(&["run", "pipeline.yaml", "--quiet", "--until", stage, "--work", "killed"]);
    }
    let mut killed = 0;
    for round in 0..8 {
        let mut children = ["0/2", "1/2"].map(|part| project.start(&shard("met", part, "killed")));
        std::thread::sleep(Duration::from_millis(100 * round));
        for child in &mut children {
            killed += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
    assert!(killed >= 2, "{killed} of 16 were killed before they were done");
    let there = project.done(&shard("met", "0-1", "killed"));
    assert!(there.contains("2 of 3 shards are there"), "{there}");
    same_bytes(&project, "killed");
    // A pool leaves it to one process, which takes all threads.
    project.done(&["run", "pipeline.yaml", "--quiet", "--work", "pool", "--jobs", "2"]);
    same_bytes(&project, "pool");
}

#[test]
fn what_cannot_be_computed_in_shards_is_refused() {
    let project = project();
    let early = project.fails(&shard("samples", "all", "none"), 64);
    assert!(early.contains("`samples` reads `world`, which is not there yet: `halftone run --until world`"), "{early}");
    begin(&project, "begun");
    let beyond = project.fails(&shard("samples", "3-12", "begun"), 78);
    assert!(beyond.contains("there is no shard 12; the last one is 11"), "{beyond}");
    let wrong = project.fails(&shard("samples", "3-", "begun"), 64);
    assert!(wrong.contains("`3-` is no choice of shards"), "{wrong}");
    project.done(&["run", "pipeline.yaml", "--quiet", "--until", "samples", "--work", "begun"]);
    let whole = project.fails(&shard("comparisons", "all", "begun"), 78);
    assert!(whole.contains("works on whole tables"), "{whole}");
    assert!(project.fails(&shard("sampels", "all", "begun"), 64).contains("did you mean `samples`?"));
    let devices = project.fails(&["run", "pipeline.yaml", "--device", "cpu,gpu"], 64);
    assert!(devices.contains("--device gpu"), "{devices}");
}
