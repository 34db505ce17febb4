//! `export dataset`: what TRL reads. Its columns, types and forms are those of TRL 1.16's dataset formats.

use serde_json::{Value, json};

use harness::Project;

const SAME: &str = r#"{"prompt_id": "p1", "prompt": "name a fruit", "chosen": " an apple", "rejected": " a stone", "p_hat": 0.9}
{"prompt_id": "p2", "prompt": "name a fish", "chosen": " a trout", "rejected": " a horse", "p_hat": 0.5}
"#;
const JOINT: &str = r#"{"i_chosen": "name a fruit", "r_chosen": " an apple", "i_reject": "name a fish", "r_reject": " a horse"}
"#;

fn pipeline(form: &str) -> String {
    format!(
        "name: test\nstages:\n  data: {{kind: ingest, files: ./data.jsonl, form: {form}}}\n  \
         pairs: {{kind: pairs, from: data.pairs, ties: keep}}\n  \
         items: {{kind: pairs, from: data.pairs, ties: keep, write: items}}\n"
    )
}

fn project(form: &str, data: &str) -> Project {
    let project = Project::new(&[("pipeline.yaml", &pipeline(form)), ("data.jsonl", data)]);
    project.done(&["run", "pipeline.yaml"]);
    project
}

fn of<'a>(rows: &'a [Value], prompt: &Value) -> &'a Value {
    rows.iter().find(|row| row["prompt"] == *prompt).unwrap()
}

#[test]
fn pairs_are_trls_preference_with_an_explicit_prompt() {
    let text = project("text", SAME);
    let told = text.done(&["export", "dataset", "pairs", "--to", "out", "--format", "jsonl"]);
    assert!(told.contains("out: TRL's preference, standard\n  train 2 rows of pairs\n"), "{told}");
    let rows = text.lines("out/train.jsonl");
    let fruit = of(&rows, &json!("name a fruit"));
    assert_eq!((&fruit["chosen"], &fruit["rejected"]), (&json!(" an apple"), &json!(" a stone")));
    assert_eq!((&fruit["p_hat"], &fruit["weight"]), (&json!(0.9), &json!(1.0)));
    assert!(fruit["pair_id"].is_string() && fruit.as_object().unwrap().len() == 6, "{fruit}");

    let chat = project("chat", SAME);
    chat.done(&["export", "dataset", "data.pairs", "--to", "a/b/out", "--format", "jsonl", "--test", "pairs"]);
    let rows = chat.lines("a/b/out/train.jsonl");
    let fruit = of(&rows, &json!([{"role": "user", "content": "name a fruit"}]));
    assert_eq!(fruit["chosen"], json!([{"role": "assistant", "content": " an apple"}]));
    assert_eq!(chat.lines("a/b/out/test.jsonl").len(), 2);
}

#[test]
fn parquet_holds_what_json_lines_hold() {
    let project = project("chat", SAME);
    project.done(&["export", "dataset", "pairs", "--to", "parquet"]);
    project.done(&["export", "dataset", "pairs", "--to", "jsonl", "--format", "jsonl"]);
    let rows = project.done(&["inspect", "parquet/train", "--json", "-n", "9"]);
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows, project.lines("jsonl/train.jsonl"));
    // A folder that is there is never written over.
    let told = project.fails(&["export", "dataset", "pairs", "--to", "parquet"], 64);
    assert!(told.contains("`parquet` is there already"), "{told}");
}

#[test]
fn items_are_trls_unpaired_preference_and_undecided_ones_are_counted() {
    let project = project("text", SAME);
    let told = project.done(&["export", "dataset", "items", "--to", "out", "--format", "jsonl"]);
    assert!(told.contains("train 2 rows of items; 2 labels of 1/2 left out"), "{told}");
    let rows = project.lines("out/train.jsonl");
    let labels: Vec<(&str, bool)> =
        rows.iter().map(|row| (row["completion"].as_str().unwrap(), row["label"].as_bool().unwrap())).collect();
    assert!(labels.contains(&(" an apple", true)) && labels.contains(&(" a stone", false)), "{labels:?}");
    assert!(rows.iter().all(|row| row["p_hat"].is_f64() && row["item_id"].is_string()));
    // From its id the item leads to the rows that its label is the mean of.
    let told = project.done(&["trace", rows[0]["item_id"].as_str().unwrap()]);
    assert!(told.contains("name a fruit") && told.contains("label") && told.contains("p_hat"), "{told}");
    let told = project.fails(&["export", "dataset", "items", "--to", "other", "--prompt", "implicit"], 64);
    assert!(told.contains("leave out --prompt"), "{told}");
}

#[test]
fn pairs_of_two_prompts_need_the_implicit_form() {
    let project = project("text", JOINT);
    let told = project.fails(&["export", "dataset", "data.pairs", "--to", "out"], 65);
    assert!(told.contains("`data.pairs`, row 1 (") && told.contains("`--prompt implicit` writes both sides"), "{told}");
    assert!(!project.path("out").exists() && !project.path(".out.partial").exists());
    let implicit = ["export", "dataset", "data.pairs", "--to", "out", "--prompt", "implicit", "--format", "jsonl"];
    project.done(&implicit);
    let row = &project.lines("out/train.jsonl")[0];
    assert_eq!(row["chosen"], "name a fruit an apple");
    assert_eq!(row["rejected"], "name a fish a horse");
    assert!(row.get("prompt").is_none(), "{row}");
}

#[test]
fn what_is_no_pair_is_refused() {
    let project = project("text", SAME);
    let told = project.fails(&["export", "dataset", "pairs.rejects", "--to", "out"], 64);
    assert!(told.contains("`pairs.rejects` holds neither pairs nor items but input, row_id"), "{told}");
    let told = project.fails(&["export", "dataset", "pairs", "--to", "out", "--test", "items"], 64);
    assert!(told.contains("`pairs` and `items` hold different kinds of rows"), "{told}");
}

#[test]
fn reference_log_probs_go_along() {
    let model = harness::oracle("llama");
    let text = format!(
        "{}  reference: {{kind: reference, from: data.pairs, model: \"{}\", tokens: {{max_tokens: 60, too_long: reject}}}}\n",
        pipeline("text"),
        model.display()
    );
    let long = serde_json::json!({"prompt": "why ".repeat(200), "chosen": " so", "rejected": " no", "p_hat": 0.9});
    let project = Project::new(&[("pipeline.yaml", &text), ("data.jsonl", &format!("{SAME}{long}\n"))]);
    project.done(&["run", "pipeline.yaml", "--device", "cpu"]);
    let export = ["export", "dataset", "data", "--reference", "reference", "--to"];
    let told = project.done(&[&export[..], &["out", "--format", "jsonl"]].concat());
    assert!(told.contains("train 2 rows of data; 1 that the reference did not score left out"), "{told}");
    // The steps by which TRL takes them; tests/interop tries them.
    assert!(told.contains("def _precompute_ref_logps(self, dataset, name, batch_size)"), "{told}");
    let scored: Vec<Value> = project
        .done(&["inspect", "reference", "--json", "-n", "9"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for row in project.lines("out/train.jsonl") {
        for side in ["chosen", "rejected"] {
            let logp = row[format!("ref_{side}_logps")].as_f64().unwrap();
            let near = |scored: &&Value| (scored["logp"].as_f64().unwrap() - logp).abs() < 1e-4;
            assert!(logp < 0.0 && scored.iter().any(|scored| near(&scored)), "{row}");
        }
    }
    project.done(&[&export[..], &["parquet"]].concat());
    let schema = project.done(&["inspect", "parquet/train", "schema"]);
    let of = |name: &str| schema.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_owned();
    assert!(of("ref_chosen_logps").contains("float32") && of("ref_rejected_logps").contains("float32"), "{schema}");
    let told = project.fails(&["export", "dataset", "items", "--reference", "reference", "--to", "other"], 64);
    assert!(told.contains("--reference goes with pairs"), "{told}");
}
