//! The hard scenarios of a first user that cross several stages, on the built binary. The others are held where their
//! parts lie:
//!
//! - 1, 2: kills during judging and training: `tests/pipelines/main.rs`, `stages/train/tests/resume.rs`.
//! - 3, swap the objective: `tests/pipelines/main.rs`; what decides nothing and a changed template: here.
//! - 5, a remote judge with faults: `stages/judge/tests/endpoint/`, `tests/services/main.rs`.
//! - 6, position bias: `stages/judge/tests/endpoint/`, `stages/judge/src/verdict.rs`.
//! - 7, calibration: `stages/calibrate/tests/stage.rs`, `tests/claims/calibration.rs`.
//! - 8, 9, broken rows and duplicates: here, and every case in `stages/ingest/tests`.
//! - 11, chat templates: `stages/lm/tests/text.rs`.
//! - 12, leaving for other tools: `tests/commands/export.rs`, `stages/lm/tests/lora.rs`, `stages/reference/tests/oracles.rs`.
//! - 15, two people and a full disk: `tests/engine.rs`.

use serde_json::Value;

use harness::Project;

/// A tiny language model of the oracles.
fn model() -> String {
    harness::oracle("llama").display().to_string()
}

/// The decisions of `plan`, by stage.
fn plan(project: &Project, args: &[&str]) -> Vec<(String, String)> {
    let text = project.done(&[&["plan", "pipeline.yaml", "--json"], args].concat());
    let plan: Value = serde_json::from_str(&text).unwrap();
    let of =
        |stage: &Value| (stage["stage"].as_str().unwrap().to_owned(), stage["decision"].as_str().unwrap().to_owned());
    plan["stages"].as_array().unwrap().iter().map(of).collect()
}

fn rows(project: &Project, table: &str) -> Vec<Value> {
    let text = project.done(&["inspect", table, "--json", "-n", "1000"]);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn scenario_3_comments_and_the_order_of_keys_run_nothing_and_a_template_runs_the_judge_and_what_follows() {
    let judged = format!(
        "name: test\nseed: 17\nstages:\n  data: {{kind: ingest, files: ./data.jsonl, form: chat}}\n  \
         verdicts: {{kind: judge, comparisons: data.comparisons, model: \"{}\", template: ./question.jinja, form: text, \
         labels: {{first: [\" A\"], second: [\" B\"]}}, debias: probability, least_mass: 0}}\n  \
         pairs: {{kind: pairs, from: verdicts, ties: keep}}\n",
        model()
    );
    let project = Project::new(&[
        ("pipeline.yaml", &judged),
        ("question.jinja", "{{ prompt }} {{ a }} or {{ b }}? Answer:"),
        ("data.jsonl", "{\"prompt\": \"name a fruit\", \"chosen\": \"an apple\", \"rejected\": \"a stone\"}\n"),
    ]);
    project.done(&["run", "pipeline.yaml", "--device", "cpu"]);
    // A stage alone means its main table, not the summary beside it.
    assert_eq!(project.done(&["inspect", "verdicts"]), project.done(&["inspect", "verdicts.verdicts"]));
    project.write(
        "pipeline.yaml",
        &judged
            .replace("from: verdicts, ties: keep", "ties:   keep, from: verdicts")
            .replace("stages:", "# a comment\nstages:"),
    );
    assert!(plan(&project, &[]).iter().all(|(_, decision)| decision == "reuse"));
    project.write("question.jinja", "Which is better, {{ prompt }} {{ a }} or {{ b }}? Answer:");
    let decisions = plan(&project, &[]);
    let of = |stage: &str| decisions.iter().find(|(name, _)| name == stage).unwrap().1.clone();
    assert_eq!((of("data"), of("verdicts"), of("pairs")), ("reuse".into(), "run".into(), "depends".into()));
}

#[test]
fn scenario_4_unpaired_data_with_rpo_whatever_the_micro_batches() {
    // Seven of ten are good, and the last prompt has none but bad ones.
    let rows_of = |n: usize| {
        let label = n % 10 < 7 && n < 18;
        format!("{{\"prompt\": \"say {}\", \"completion\": \" so {n} it is\", \"label\": {label}}}\n", n / 2)
    };
    let data: String = (0..20).map(rows_of).collect();
    let text = format!(
        "name: test\nseed: 17\nstages:\n  data: {{kind: ingest, files: ./data.jsonl, form: text}}\n  \
         reference: {{kind: reference, from: data.items, model: &m \"{}\"}}\n  \
         embeddings: {{kind: embed, from: data.items, model: *m}}\n  \
         policy:\n    kind: train\n    from: data.items\n    reference: reference\n    embeddings: embeddings\n    \
         model: *m\n    objective: {{name: rpo, form: unpaired, beta: 0.1, tau: 0.5}}\n    \
         optimizer: {{lr: 1.0e-4, schedule: constant, warmup_steps: 0, weight_decay: 0.0, clip_norm: 1.0}}\n    \
         batch: {{items: 20, shuffle: true, tokens_per_micro_batch: 4096}}\n    steps: 3\n",
        model()
    );
    let project = Project::new(&[("pipeline.yaml", &text), ("data.jsonl", &data)]);
    project.done(&["run", "pipeline.yaml", "--device", "cpu"]);
    let losses = |project: &Project| -> Vec<f64> {
        rows(project, "policy.metrics").iter().filter_map(|row| row["loss"].as_f64()).collect()
    };
    let whole = losses(&project);
    assert!((whole[0] - std::f64::consts::LN_2).abs() < 1e-5 && whole[2] < whole[0], "{whole:?}");
    // The ids in `steps` are those of items, and each is followed to its line and its steps.
    let step = &rows(&project, "policy.steps")[0];
    let trace: Value =
        serde_json::from_str(&project.done(&["trace", step["row_id"].as_str().unwrap(), "--json"])).unwrap();
    assert_eq!((trace["sides"].as_array().unwrap().len(), &trace["sides"][0]["role"]), (1, &"response".into()));
    let stages: Vec<&str> =
        trace["stages"].as_array().unwrap().iter().map(|stage| stage["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["data", "reference", "embeddings", "policy"]);
    let report = std::fs::read_to_string(project.path(".halftone/runs/test/report.html")).unwrap();
    let contrasts = report.split_once("id=\"contrasts\"").unwrap().1;
    assert!(contrasts.contains("data-label=\"prompt\">say "), "the prompts of items stand in the contrasts");
    project.done(&["run", "pipeline.yaml", "--device", "cpu", "--set", "policy.batch.tokens_per_micro_batch=48"]);
    let cut = losses(&project);
    assert_eq!(whole.len(), cut.len());
    assert!(whole.iter().zip(&cut).all(|(a, b)| (a - b).abs() < 1e-4), "{whole:?} {cut:?}");
    // A batch without a good one is no step with a loss of 0 that has no gradient: it is counted.
    let bad: String =
        (0..6).map(|n| format!("{{\"prompt\": \"p {n}\", \"completion\": \" no {n}\", \"label\": false}}\n")).collect();
    project.write("data.jsonl", &bad);
    let output = project.halftone(&["run", "pipeline.yaml", "--device", "cpu"]);
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        told.contains("policy: warning: 3 batches without chosen or without rejected items made no step"),
        "{told}"
    );
}

#[test]
fn scenario_8_broken_rows_fail_with_their_place_or_are_counted() {
    let good = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}";
    let lines = [good, "{\"prompt\": \"a\", \"cho", "[]", "{\"prompt\": \"a\", \"chosen\": null, \"rejected\": \"c\"}"];
    let text = "name: test\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: text}\n";
    let project = Project::new(&[("pipeline.yaml", text), ("data.jsonl", &lines.join("\r\n"))]);
    let told = project.fails(&["run", "pipeline.yaml"], 65);
    assert!((2..=4).all(|line| told.contains(&format!("data.jsonl:{line}"))), "{told}");
    project.done(&["run", "pipeline.yaml", "--set", "data.on_bad_row=reject"]);
    assert_eq!((rows(&project, "data.pairs").len(), rows(&project, "data.rejects").len()), (1, 3));
}

#[test]
fn scenario_9_one_id_with_two_texts_is_an_error_that_names_both_lines() {
    let row = |chosen: &str| {
        format!("{{\"prompt_id\": \"p\", \"prompt\": \"{chosen}\", \"chosen\": \"b\", \"rejected\": \"c\"}}\n")
    };
    let text = "name: test\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: text}\n";
    let project = Project::new(&[("pipeline.yaml", text), ("data.jsonl", &(row("one") + &row("two")))]);
    let told = project.fails(&["run", "pipeline.yaml"], 65);
    assert!(told.contains("data.jsonl:1") && told.contains("data.jsonl:2"), "{told}");
}

#[test]
fn scenario_10_what_is_too_long_is_foretold_and_then_rejected_or_an_error() {
    let row = |n: usize, times: usize| {
        format!(
            "{{\"prompt\": \"say {n} {}\", \"chosen\": \" yes\", \"rejected\": \" no\"}}\n",
            "and so on ".repeat(times)
        )
    };
    let data: String = (0..6).map(|n| row(n, if n == 5 { 3000 } else { 1 })).collect();
    let text = format!(
        "name: test\nstages:\n  data: {{kind: ingest, files: ./data.jsonl, form: text}}\n  \
         reference: {{kind: reference, from: data.pairs, model: \"{}\", tokens: {{too_long: reject}}}}\n",
        model()
    );
    let project = Project::new(&[("pipeline.yaml", &text), ("data.jsonl", &data)]);
    project.done(&["run", "pipeline.yaml", "--until", "data"]);
    let told = project.done(&["plan", "pipeline.yaml"]);
    assert!(told.contains("1 too long"), "{told}");
    let failing = ["run", "pipeline.yaml", "--device", "cpu", "--set", "reference.tokens.too_long=error"];
    project.fails(&failing, 65);
    project.done(&["run", "pipeline.yaml", "--device", "cpu"]);
    let rejects = rows(&project, "reference.rejects");
    assert!(rejects.len() == 1 && rejects[0]["reason"] == "too_long", "{rejects:?}");
}

#[test]
fn scenario_13_an_objective_over_pairs_that_it_cannot_mean_is_refused_with_the_fix() {
    let joint = "{\"i_chosen\": \"a fruit\", \"r_chosen\": \" an apple\", \"i_reject\": \"a fish\", \"r_reject\": \" a horse\"}\n";
    let text = format!(
        "name: test\nseed: 17\nstages:\n  data: {{kind: ingest, files: ./data.jsonl, form: text}}\n  \
         reference: {{kind: reference, from: data.pairs, model: &m \"{}\", prompt_part: true}}\n  \
         policy:\n    kind: train\n    from: data.pairs\n    reference: reference\n    model: *m\n    \
         objective: {{name: dpo, beta: 0.1}}\n    \
         optimizer: {{lr: 1.0e-4, schedule: constant, warmup_steps: 0, weight_decay: 0.0, clip_norm: 1.0}}\n    \
         batch: {{pairs: 1}}\n    steps: 1\n",
        model()
    );
    let project = Project::new(&[("pipeline.yaml", &text), ("data.jsonl", joint)]);
    let told = project.fails(&["run", "pipeline.yaml", "--device", "cpu"], 78);
    assert!(told.contains("1 of 1 pairs are joint (two prompts): train on them with `jpo`"), "{told}");
    // It is known once the data are read: nothing was scored for it.
    let status = project.done(&["status", "--json"]);
    assert!(!project.path(".halftone/runs/test/reference").exists(), "{status}");
    project.done(&["run", "pipeline.yaml", "--device", "cpu", "--set", "policy.objective.name=gjpo"]);
    let loss = rows(&project, "policy.metrics")[0]["loss"].as_f64().unwrap();
    assert!((loss - std::f64::consts::LN_2).abs() < 1e-5, "{loss}");
}

#[test]
fn decisions_of_an_evaluation_give_its_win_rate() {
    let between = "<SEP>".repeat(4);
    let decision = |number: usize| {
        let word = ["model", "model", "model", "gold", "equal"][number % 5];
        (format!("say {number}{between}gold {number}{between}answer {number}"), Value::from(word))
    };
    let run: serde_json::Map<String, Value> = (0..50).map(decision).collect();
    let pipeline = "name: test\nstages:\n  data: {kind: ingest, files: ./verdicts.json, form: text}\n  \
                    wins: {kind: evaluate, verdicts: data.verdicts, policy_side: a, ties: half}\n";
    let file = serde_json::json!({"dove": run}).to_string();
    let project = Project::new(&[("pipeline.yaml", pipeline), ("verdicts.json", &file)]);
    project.done(&["run", "pipeline.yaml"]);
    let metrics = rows(&project, "wins.summary");
    let of = |name: &str| metrics.iter().find(|row| row["metric"] == name).unwrap()["value"].as_f64().unwrap();
    // 30 wins, 10 losses and 10 ties.
    assert!((of("win_rate") - 0.7).abs() < 1e-12 && (of("win_rate/ties") - 0.2).abs() < 1e-12, "{metrics:?}");
}
