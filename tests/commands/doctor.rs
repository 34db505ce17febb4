//! `doctor`: what a bug report needs.

use std::process::Command;

use serde_json::Value;

use harness::Project;

#[test]
fn build_machine_and_work_folder_are_told_and_no_secrets() {
    let project = Project::new(&[]);
    let text = project.done(&["doctor"]);
    for wanted in
        ["halftone ", "libraries", "candle-core 0.", "processor", "memory", "gpu", "work folder", "model cache"]
    {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(
        text.contains(".halftone, not there yet; ") && text.contains("for a bug report: paste the lines above"),
        "{text}"
    );
    assert!(!project.path(".halftone").exists(), "it makes no folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_halftone"));
    let output = command
        .args(["doctor", "--json"])
        .current_dir(project.path("."))
        .env("HF_TOKEN", "hf_secret")
        .env("HALFTONE_WORK", "here")
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let environment = told["environment"].to_string();
    assert!(environment.contains("HF_TOKEN is set") && environment.contains("HALFTONE_WORK=here"), "{environment}");
    assert!(!told.to_string().contains("hf_secret"));
    let version = project.done(&["--version"]);
    assert!(version.starts_with("halftone 0."), "{version}");
    assert!(
        told["halftone"][0].as_str().unwrap().starts_with(version.trim().trim_start_matches("halftone ")),
        "{told}"
    );
}

#[test]
fn the_latest_runs_are_told() {
    let data = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n";
    let pipeline = "name: test\nstages:\n  data: {kind: ingest, files: ./data.jsonl}\n";
    let project = Project::new(&[("pipeline.yaml", pipeline), ("data.jsonl", data)]);
    project.done(&["run", "pipeline.yaml"]);
    let text = project.done(&["doctor"]);
    assert!(text.contains(": 1 results, 0 unfinished or set aside, "), "{text}");
    assert!(text.contains("test: run 1, is done, began "), "{text}");
}
