//! Stores that several machines share: a folder, a bucket of a local S3, and everything that goes wrong on the way.

mod bucket;
mod faults;
mod folder;
mod load;

use std::process::Output;

use harness::{Project, stderr};

/// Tables alone: they are computed in no time.
pub const TABLES: &str = "\
name: shared
seed: 17
stages:
  data: {kind: ingest, files: ./data.jsonl, holdout: 0.1}
  pairs: {kind: pairs, from: data.pairs, ties: keep}
  held: {kind: pairs, from: data.holdout_pairs, ties: keep}
  twice: {kind: pairs, from: [pairs, held], ties: drop}
";

/// A folder with a pipeline over `rows` rows that shares a store.
pub fn machine(pipeline: &str, address: &str, rows: usize) -> Project {
    let project = Project::new(&[("pipeline.yaml", &format!("store: {{remote: \"{address}\"}}\n{pipeline}"))]);
    let line = |row: usize| {
        let line = serde_json::json!({"prompt": format!("question {}", row / 3), "p_hat": 0.5 + (row % 50) as f64 / 100.0,
            "chosen": format!("answer {row} {}", "and so on ".repeat(row % 7)), "rejected": format!("silence {row}")});
        format!("{line}\n")
    };
    project.write("data.jsonl", &(0..rows).map(line).collect::<String>());
    project
}

/// A run with its events.
pub const RUN: [&str; 3] = ["run", "pipeline.yaml", "--json"];

/// All that a command said.
pub fn all(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(output))
}
