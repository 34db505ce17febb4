//! The built binary on damaged files: each ends the run with the code for what is at fault and names the place.

use std::path::Path;

use harness::{Project, stderr};
use kit::rows::Pair;

use crate::quickstart::quickstart;

/// Scores and evaluates pairs from files.
const PIPELINE: &str = "\
name: damage
seed: 1
stages:
  sorted: {kind: pairs, from: ./data/pairs}
  reference: {kind: reference, from: sorted, model: ./data/model}
";

/// A place with good pairs and a good model in `data/`.
fn with_data() -> Project {
    let place = Project::with_pipelines();
    let output = quickstart(&place, &["--until", "pairs"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for (port, name) in [("quickstart/pairs/pairs", "pairs"), ("quickstart/imitation/policy", "model")] {
        copy(&place.path(".halftone/runs").join(port), &place.path("data").join(name));
    }
    std::fs::write(place.path("damage.yaml"), PIPELINE).unwrap();
    place
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// Runs the pipeline, which has to stop with `code` and say every one of `words`.
fn fails(place: &Project, code: i32, words: &[&str]) {
    let output = place.command(&["run", "damage.yaml", "--device", "cpu"]).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn damaged_files_are_named_and_the_mended_ones_run() {
    let place = with_data();
    let part = place.path("data/pairs/part-00000.parquet");
    let good = std::fs::read(&part).unwrap();

    std::fs::write(&part, &good[..good.len() / 2]).unwrap();
    fails(&place, 65, &["data/pairs/part-00000.parquet", "not readable as Parquet"]);

    std::fs::write(&part, &good).unwrap();
    let mut rows: Vec<Pair> = kit::read_rows(&part).unwrap();
    assert!(rows.len() > 3);
    rows[2].p_hat = f64::NAN;
    kit::write_part(&part, &rows).unwrap();
    fails(&place, 65, &["data/pairs/part-00000.parquet", "row 3", "`p_hat`", "NaN"]);
    std::fs::write(&part, &good).unwrap();

    for (file, words) in [
        ("model.safetensors", &["data/model/model.safetensors"][..]),
        ("tokenizer.json", &["data/model/tokenizer.json"]),
        ("config.json", &["data/model/config.json"]),
    ] {
        let path = place.path("data/model").join(file);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &good[..good.len() * 2 / 3]).unwrap();
        fails(&place, 65, words);
        std::fs::remove_file(&path).unwrap();
        let output = place.command(&["run", "damage.yaml", "--device", "cpu"]).output().unwrap();
        assert!(stderr(&output).contains(file), "{file}: {}", stderr(&output));
        assert!(matches!(output.status.code(), Some(65 | 78)), "{file}: {:?}", output.status.code());
        std::fs::write(&path, &good).unwrap();
    }

    let output = place.command(&["run", "damage.yaml", "--device", "cpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

#[test]
fn a_damaged_result_in_the_store_is_found_and_made_again() {
    let place = Project::with_pipelines();
    let output = quickstart(&place, &["--until", "imitation"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let ports = place.ports("quickstart");
    let weights = place.path(".halftone/runs/quickstart/imitation/policy/model.safetensors");
    let weights = std::fs::canonicalize(weights).unwrap();
    let good = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &good[..good.len() - 8]).unwrap();
    let output = quickstart(&place, &["--until", "imitation"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(harness::ran(&output), std::collections::BTreeSet::from(["imitation".to_owned()]));
    assert_eq!(place.ports("quickstart"), ports);
}

#[test]
fn a_pipeline_file_that_is_no_yaml_is_refused_with_the_line() {
    let place = Project::with_pipelines();
    std::fs::write(place.path("damage.yaml"), "name: damage\nstages:\n  a: {kind: pairs\n  b: [\n").unwrap();
    fails(&place, 78, &["damage.yaml:"]);
    std::fs::write(place.path("damage.yaml"), PIPELINE.replace("kind: reference", "kind: referenz")).unwrap();
    fails(&place, 78, &["damage.yaml:5:", "referenz", "reference"]);
}

#[test]
fn a_broken_row_in_a_file_is_named_with_its_line() {
    let place = Project::with_pipelines();
    let rows = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n{\"prompt\": \"d\", \"chosen\": \"e\"\n";
    std::fs::create_dir_all(place.path("data")).unwrap();
    std::fs::write(place.path("data/pairs.jsonl"), rows).unwrap();
    let pipeline = "name: damage\nseed: 1\nstages:\n  data: {kind: ingest, files: ./data/pairs.jsonl, form: text}\n";
    std::fs::write(place.path("damage.yaml"), pipeline).unwrap();
    fails(&place, 65, &["pairs.jsonl:2"]);
}
