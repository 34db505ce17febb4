//! `check`: what edges between stages need, with the fix.

use std::path::Path;

use crate::project::Project;

const ITEMS: &str = r#"{"prompt": "name a fruit", "completion": "an apple", "label": true}"#;
const PAIRS: &str = r#"{"prompt": "name a fruit", "chosen": "an apple", "rejected": "a stone"}"#;

fn check(stages: &str, wanted: &str) {
    let project = Project::new(&[("items.jsonl", ITEMS), ("pairs.jsonl", PAIRS)]);
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/oracles/llama");
    let training = "model: \"${vars.model}\", optimizer: {lr: 0.1}, epochs: 1";
    let stages = stages.replace("TRAINING", training).replace("MODEL", "\"${vars.model}\"");
    project.write("x.yaml", &format!("name: x\nseed: 1\nvars: {{model: {}}}\nstages:\n{stages}", model.display()));
    let told = project.fails(&["check", "x.yaml"], 78);
    assert!(told.contains(wanted), "{told}");
}

#[test]
fn kto_on_plain_items_is_told_of_the_stage_between() {
    check(
        "  data: {kind: ingest, files: items.jsonl}
  reference: {kind: reference, from: data.items, model: MODEL}
  policy: {kind: train, from: data.items, reference: reference, objective: {name: kto, beta: 0.1}, batch: {items: 4}, TRAINING}
",
        "`data` does not write it: put `{kind: pairs, from: ..., write: items, kl_group: 16}` between",
    );
}

#[test]
fn two_precisions_are_found() {
    check(
        "  data: {kind: ingest, files: pairs.jsonl}
  reference: {kind: reference, from: data.pairs, model: MODEL, dtype: bf16}
  policy: {kind: train, from: data.pairs, reference: reference, objective: {name: dpo, beta: 0.1}, batch: {pairs: 4}, TRAINING}
",
        "`reference` has `dtype: bf16` and this stage `dtype: f32`; both have to have the same",
    );
}

#[test]
fn the_best_response_needs_scores() {
    check(
        "  data: {kind: ingest, files: pairs.jsonl}
  comparisons: {kind: compare, from: data.responses, within: {against: best}}
",
        "column `score` missing in input `from`; `data` does not write it: `against: best` goes by scores",
    );
}
