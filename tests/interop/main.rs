//! Other tools read the files that halftone writes. Needs a Python with TRL 1.16:
//! `HALFTONE_PYTHON=/path/to/python cargo test --test interop`; `HALFTONE_REQUIRE=trl` makes its absence a failure.

use std::path::Path;
use std::process::{Command, Output};

use harness::{Requirement, missing, oracle};
use serde_json::{Value, json};

fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a script beside this file and gives the JSON of its last line.
fn python(python: &str, script: &str, args: &[&Path]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop").join(script);
    let output = Command::new(python).arg(script).args(args).env("HF_HUB_OFFLINE", "1").output().unwrap();
    serde_json::from_str(said(output).lines().last().unwrap()).unwrap()
}

/// A dataset with the reference's log-probs gives TRL's DPO the steps that it makes with its own.
#[test]
fn trl_trains_on_the_reference_columns() {
    let Ok(with_trl) = std::env::var("HALFTONE_PYTHON") else {
        return missing(Requirement::Trl, "HALFTONE_PYTHON names no Python with TRL 1.16");
    };
    let place = tempfile::tempdir().unwrap();
    let model = oracle("llama");
    let pipeline = json!({
        "name": "export",
        "stages": {
            "data": {"kind": "ingest", "files": oracle("pairs.jsonl"), "form": "text"},
            "reference": {"kind": "reference", "from": "data.pairs", "model": model},
        },
    });
    std::fs::write(place.path().join("pipeline.yaml"), pipeline.to_string()).unwrap();
    let halftone = |args: &[&str]| {
        said(Command::new(env!("CARGO_BIN_EXE_halftone")).args(args).current_dir(place.path()).output().unwrap())
    };
    halftone(&["run", "pipeline.yaml", "--device", "cpu"]);
    halftone(&["export", "dataset", "data.pairs", "--reference", "reference", "--to", "out"]);
    let losses = python(&with_trl, "trl_reference.py", &[&model, &place.path().join("out")]);
    let of = |which: &str| -> Vec<f64> {
        losses[which].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect()
    };
    let (given, own) = (of("given"), of("own"));
    assert_eq!((given.len(), own.len()), (4, 4));
    for (given, own) in given.iter().zip(&own) {
        assert!((given - own).abs() < 1e-4, "{losses}");
    }
    assert!((given[0] - 2f64.ln()).abs() < 1e-4, "where policy = reference: {losses}");
}
