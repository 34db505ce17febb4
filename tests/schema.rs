//! Pipeline files and their JSON Schema, as editors and validators see them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use jsonschema::Validator;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn halftone(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_halftone")).args(args).current_dir(folder).output().unwrap()
}

fn printed(folder: &Path, args: &[&str]) -> String {
    let output = halftone(folder, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&printed(&root(), &["schema"])).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// The misfits, one line each. Anchors and merges of YAML are expanded, as editors do.
fn misfits(validator: &Validator, text: &str) -> Vec<String> {
    let mut document: serde_yaml::Value = serde_yaml::from_str(text).unwrap();
    document.apply_merge().unwrap();
    let document: Value = serde_json::to_value(&document).unwrap();
    validator.iter_errors(&document).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "yaml") {
            found.push(path);
        }
    }
}

/// The pipelines in a Markdown text: blocks of YAML with a name and stages.
fn pipelines_in(text: &str) -> Vec<String> {
    let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter(|block| block.starts_with("name:") && block.contains("\nstages:")).map(str::to_owned).collect()
}

#[test]
fn every_pipeline_fits_its_schema() {
    let validator = validator();
    let mut found = Vec::new();
    files(&root().join("pipelines"), &mut found);
    assert!(found.len() > 8, "{found:?}");
    for path in found {
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(misfits(&validator, &text), Vec::<String>::new(), "{}", path.display());
        // Editors are told where the schema is.
        let schema = text.lines().next().unwrap().strip_prefix("# yaml-language-server: $schema=").unwrap();
        assert!(path.parent().unwrap().join(schema).is_file(), "{}", path.display());
    }
    let readme = pipelines_in(&std::fs::read_to_string(root().join("README.md")).unwrap());
    assert!(!readme.is_empty());
    readme.iter().for_each(|text| assert_eq!(misfits(&validator, text), Vec::<String>::new(), "{text}"));
}

#[test]
fn the_schema_beside_the_pipelines_is_that_of_this_version() {
    let written = std::fs::read_to_string(root().join("pipelines/schema.json")).unwrap();
    let fresh = printed(&root(), &["schema"]);
    assert!(written == fresh, "a configuration has changed: halftone schema > pipelines/schema.json");
}

/// A reference in every kind of place: a name, a seed, a kind, a mode, a word, a number, a list, an item of one, an
/// axis, a mapping, a merge, a whole stage.
const REFERENCES: &str = "\
name: \"all-${vars.name}\"
seed: \"${vars.seed}\"
vars:
  {name: places, seed: 3, kind: pairs, mode: world, many: 12, width: 16, file: ./data.jsonl, form: text, beta: 0.1,
   inputs: [data.pairs, data.holdout_pairs], whole: {kind: pairs, from: data.pairs}, share: 0.25,
   optimizer: &optimizer {lr: 1.0e-3, schedule: constant, warmup_steps: 0, weight_decay: 0.0, clip_norm: 1.0}}
stages:
  world:
    kind: sandbox
    mode: \"${vars.mode}\"
    prompts: \"${vars.many}\"
    holdout_prompts: 8
    demonstrations: 96
    judge_rows: 96
    model: {width: \"${vars.width}\", layers: 1, heads: 2}
  data: {kind: ingest, files: [\"${vars.file}\"], form: \"${vars.form}\", holdout: \"${vars.share}\"}
  pairs: {kind: \"${vars.kind}\", from: \"${vars.inputs}\"}
  more: \"${vars.whole}\"
  reference: {kind: reference, from: pairs, model: world.model}
  policy:
    kind: train
    matrix: {objective: [dpo, gdpo], beta: {low: \"${vars.beta}\", high: 0.3}, batch: {small: {pairs: 4, shuffle: true}}}
    from: pairs
    reference: reference
    model: world.model
    objective: {name: \"${matrix.objective}\", beta: \"${matrix.beta}\"}
    optimizer: {<<: *optimizer, lr: 2.0e-3}
    batch: \"${matrix.batch}\"
    epochs: 1
";

/// A folder with data for [`REFERENCES`].
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let row = |row: usize| format!("{{\"prompt\": \"p{row}\", \"chosen\": \"good\", \"rejected\": \"bad {row}\"}}\n");
    std::fs::write(folder.path().join("data.jsonl"), (0..20).map(row).collect::<String>()).unwrap();
    folder
}

#[test]
fn the_schema_takes_a_reference_wherever_the_engine_does() {
    let folder = folder();
    std::fs::write(folder.path().join("p.yaml"), REFERENCES).unwrap();
    printed(folder.path(), &["check", "p.yaml"]);
    assert_eq!(misfits(&validator(), REFERENCES), Vec::<String>::new());
}

#[test]
fn the_schema_refuses_what_the_engine_refuses() {
    let (folder, validator) = (folder(), validator());
    for (good, bad) in [
        ("holdout_prompts: 8", "holdout_promts: 8"),
        ("holdout_prompts: 8", "holdout_prompts: many"),
        ("demonstrations: 96", "demonstrations: [96]"),
        ("kind: reference", "kind: referenz"),
        ("epochs: 1", "epochs: soon"),
        ("objective: {name: \"${matrix.objective}\", ", "objective: {name: dpoo, "),
        ("lr: 2.0e-3", "rl: 2.0e-3"),
        ("seed: \"${vars.seed}\"", "seed: -1"),
        ("stages:", "steps: 3\nstages:"),
        ("    from: pairs\n", ""),
    ] {
        assert!(REFERENCES.contains(good), "{good}");
        let text = REFERENCES.replacen(good, bad, 1);
        std::fs::write(folder.path().join("p.yaml"), &text).unwrap();
        let output = halftone(folder.path(), &["check", "p.yaml"]);
        assert_eq!(output.status.code(), Some(78), "{bad}");
        assert!(!misfits(&validator, &text).is_empty(), "{bad}");
    }
}

#[test]
fn over_a_base_a_file_shows_what_it_changes() {
    let (folder, validator) = (folder(), validator());
    std::fs::write(folder.path().join("base.yaml"), REFERENCES).unwrap();
    let text =
        "name: x\nbase: base.yaml\nseed: 3\nstages:\n  policy: {epochs: 2, objective: {beta: 1.0}}\n  more: null\n";
    std::fs::write(folder.path().join("p.yaml"), text).unwrap();
    printed(folder.path(), &["check", "p.yaml"]);
    assert_eq!(misfits(&validator, text), Vec::<String>::new());
    assert_eq!(misfits(&validator, "name: x\nbase: base.yaml\n"), Vec::<String>::new());
    for (good, bad) in [
        ("name: x\n", ""),
        ("base: base.yaml", "base: [base.yaml]"),
        ("base: base.yaml\n", ""),
        ("more: null", "more: 3"),
        ("more: null", "more: {kind: trian}"),
        ("seed: 3", "sede: 3"),
    ] {
        let text = text.replacen(good, bad, 1);
        std::fs::write(folder.path().join("p.yaml"), &text).unwrap();
        assert_eq!(halftone(folder.path(), &["check", "p.yaml"]).status.code(), Some(78), "{text}");
        assert!(!misfits(&validator, &text).is_empty(), "{text}");
    }
}

#[test]
fn what_init_writes_names_its_schema_and_fits_it() {
    let folder = folder();
    for (file, args) in [("p.yaml", &[][..]), ("deep/er/p.yaml", &["--objective", "rpo"])] {
        printed(folder.path(), &[&["init", file, "--data", "./data.jsonl"], args].concat());
        let text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert_eq!(misfits(&validator(), &text), Vec::<String>::new(), "{file}");
        let schema = text.lines().next().unwrap().strip_prefix("# yaml-language-server: $schema=").unwrap();
        let schema = folder.path().join(file).parent().unwrap().join(schema);
        assert_eq!(std::fs::read_to_string(schema).unwrap(), printed(folder.path(), &["schema"]));
    }
}
