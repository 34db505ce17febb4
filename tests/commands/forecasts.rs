//! Forecasts of `plan` against the measured run.

use std::path::Path;

use serde_json::Value;

use harness::Project;

/// The quickstart, small enough to run here.
const SMALL: [&str; 18] = [
    "--set",
    "world.prompts=12",
    "--set",
    "world.holdout_prompts=6",
    "--set",
    "world.demonstrations=60",
    "--set",
    "world.judge_rows=60",
    "--set",
    "imitation.steps=3",
    "--set",
    "judge.steps=3",
    "--set",
    "verdicts.least_mass=0",
    "--set",
    "holdout_verdicts.least_mass=0",
    "--set",
    "policy.epochs=1",
];

/// A folder with the pipelines of the repository.
fn quickstart() -> Project {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let text = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let project = Project::new(&[("quickstart.yaml", &text("quickstart.yaml"))]);
    std::fs::create_dir_all(project.path("pipelines/templates")).unwrap();
    project.write("pipelines/templates/sandbox.jinja", &text("templates/sandbox.jinja"));
    project
}

fn plan(project: &Project, args: &[&str]) -> Value {
    let text = project.done(&[&["plan", "quickstart.yaml", "--json", "--device", "cpu"], args].concat());
    serde_json::from_str(&text).unwrap()
}

/// The forecasts by stage.
fn forecasts(plan: &Value) -> Vec<(String, Value)> {
    let stages = plan["stages"].as_array().unwrap().iter();
    stages.map(|stage| (stage["stage"].as_str().unwrap().to_owned(), stage["forecast"].clone())).collect()
}

/// Times and speeds are those of the machine.
fn redacted(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let line = match line.starts_with("time: ") {
            true => "time: [of this machine]".to_owned(),
            false => {
                let words = line.split(", ").map(|part| {
                    let time = part
                        .strip_prefix("about ")
                        .is_some_and(|rest| rest.ends_with(" s") || rest.ends_with(" min") || rest.ends_with(" h"));
                    if time { "[time]" } else { part }
                });
                let line = words.collect::<Vec<_>>().join(", ");
                match line.split_once("in all on cpu: about ") {
                    Some((_, rest)) => format!("in all on cpu: [time], {}", rest.split_once(", ").unwrap().1),
                    None => line,
                }
            }
        };
        lines.push(line);
    }
    lines.join("\n")
}

#[test]
fn a_fresh_plan_foretells_every_stage() {
    let project = quickstart();
    insta::assert_snapshot!(redacted(&project.done(&["plan", "quickstart.yaml", "--device", "cpu"])));
    assert!(!project.path(".halftone").exists(), "a plan makes no folder");
}

#[test]
fn what_is_foretold_bounds_what_comes() {
    let project = quickstart();
    let before = plan(&project, &SMALL);
    project.done(&[&["run", "quickstart.yaml", "--device", "cpu"], &SMALL[..]].concat());
    for (stage, foretold) in forecasts(&before) {
        if foretold.is_null() {
            assert_eq!(stage, "embeddings");
            continue;
        }
        // Forced, it is counted from the inputs that are there now.
        let now = plan(&project, &[&SMALL[..], &["--force", &stage, "--only", &stage]].concat());
        let counted = forecasts(&now).into_iter().find(|(name, _)| *name == stage).unwrap().1;
        assert_eq!(counted["counted"], true, "{stage}");
        let (rows, is) = (foretold["rows"]["value"].as_u64().unwrap(), foretold["rows"]["is"].as_str().unwrap());
        let came = counted["rows"]["value"].as_u64().unwrap();
        match is {
            "exact" => assert_eq!(rows, came, "{stage}"),
            "at_most" => assert!(rows >= came, "{stage}: {rows} foretold, {came} came"),
            _ => assert!(rows >= came / 2 && rows <= 2 * came, "{stage}: {rows} foretold, {came} came"),
        }
    }
    // Nothing is left to do, so nothing is foretold.
    let after = plan(&project, &SMALL);
    assert!(forecasts(&after).iter().all(|(_, forecast)| forecast.is_null()));
    assert_eq!(after["total"]["seconds"], Value::Null);
    assert!(project.path(".halftone/speed.json").exists(), "the speed is measured once");
}

#[test]
fn stages_that_hold_a_model_are_foretold_memory_and_time_and_on_a_gpu_no_time() {
    let project = quickstart();
    let holds_model = ["imitation", "judge", "samples", "verdicts", "reference", "policy", "evaluation"];
    let told = plan(&project, &[]);
    for (stage, forecast) in forecasts(&told).iter().filter(|(stage, _)| holds_model.contains(&stage.as_str())) {
        assert!(forecast["memory"].as_u64().unwrap() > 1 << 20, "{stage}: {forecast}");
        assert!(forecast["seconds"].as_f64().unwrap() > 0.0, "{stage}: {forecast}");
        assert!(forecast["tokens"]["value"].as_u64().unwrap() > 0, "{stage}: {forecast}");
    }
    let sum: f64 = forecasts(&told).iter().filter_map(|(_, forecast)| forecast["seconds"].as_f64()).sum();
    assert!((told["total"]["seconds"].as_f64().unwrap() - sum).abs() < 1e-6 * sum);
    assert_eq!(told["total"]["largest"], "judge");
}

#[test]
fn a_remote_judge_is_foretold_requests_and_no_time() {
    let rows: String = (0..8)
        .map(|n| format!("{{\"prompt\": \"say {n}\", \"chosen\": \" yes {n}\", \"rejected\": \" no {n}\"}}\n"))
        .collect();
    let text = "name: test\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: text}\n  \
                verdicts: {kind: judge, comparisons: data.comparisons, template: helpful, debias: probability, \
                endpoint: {url: \"http://127.0.0.1:9/v1\", model: m}}\n";
    let project = Project::new(&[("quickstart.yaml", text), ("data.jsonl", &rows)]);
    let told = forecasts(&plan(&project, &[]));
    let verdicts = &told[1].1;
    assert_eq!(verdicts["rows"], serde_json::json!({"value": 8, "is": "at_most"}));
    assert_eq!(verdicts["requests"], serde_json::json!({"value": 16, "is": "at_most"}));
    assert!(verdicts["tokens"]["value"].as_u64().unwrap() > 16);
    assert_eq!((&verdicts["seconds"], &verdicts["memory"]), (&Value::Null, &Value::Null));
}

#[test]
fn too_few_gold_labels_are_foretold() {
    let row = |n: usize| format!("{{\"prompt\": \"say {n}\", \"chosen\": \" yes {n}\", \"rejected\": \" no {n}\"}}\n");
    let text = "name: test\nseed: 1\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: text}\n  \
                gold: {kind: ingest, files: ./gold.jsonl, form: text}\n  \
                verdicts: {kind: judge, comparisons: data.comparisons, template: helpful, debias: probability, \
                endpoint: {url: \"http://127.0.0.1:9/v1\", model: m}}\n  \
                calibrated: {kind: calibrate, verdicts: verdicts, gold: gold.pairs, method: temperature}\n";
    let (data, gold): (String, String) = ((0..40).map(row).collect(), (0..10).map(row).collect());
    let project = Project::new(&[("quickstart.yaml", text), ("data.jsonl", &data), ("gold.jsonl", &gold)]);
    let told = project.done(&["plan", "quickstart.yaml"]);
    assert!(told.contains("calibrated: at most 10 gold labels are too few: 30 at least"), "{told}");
}

#[test]
fn a_plan_of_more_rows_scales_what_a_small_run_took() {
    let pipeline = "name: growth\nseed: 1\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: text}\n  \
                    pairs: {kind: pairs, from: data.pairs, ties: drop}\n";
    let row = |row: usize| {
        let label = if row.is_multiple_of(4) { 0.5 } else { 0.75 };
        format!("{{\"prompt\": \"p{row}\", \"chosen\": \"good\", \"rejected\": \"bad\", \"p_hat\": {label}}}\n")
    };
    let data: String = (0..400).map(row).collect();
    let project = Project::new(&[("growth.yaml", pipeline), ("data.jsonl", &data)]);
    project.done(&["run", "growth.yaml"]);
    let grown = |rows: &str| -> Value {
        serde_json::from_str(&project.done(&["plan", "growth.yaml", "--rows", rows, "--json"])).unwrap()
    };
    let (once, much) = (grown("400"), grown("4e8"));
    assert_eq!((&much["known_rows"], &much["rows"]), (&400.into(), &400_000_000.into()));
    for (stage, rows) in [(0, 400_u64), (1, 400)] {
        let (once, much) = (&once["stages"][stage], &much["stages"][stage]);
        assert_eq!(once["pace"]["from"], "measured", "{once}");
        assert_eq!(
            (once["rows"]["value"].as_u64(), much["rows"]["value"].as_u64()),
            (Some(rows), Some(rows * 1_000_000))
        );
        let ratio = |key: &str| much[key].as_f64().unwrap() / once[key].as_f64().unwrap();
        assert!((ratio("seconds") / 1e6 - 1.0).abs() < 0.01 && (ratio("bytes") / 1e6 - 1.0).abs() < 0.01, "{much}");
    }
    let text = project.done(&["plan", "growth.yaml", "--rows", "4e8"]);
    assert!(
        text.contains("CPU-hours") && text.contains("time of data, pairs: at the pace of the newest run"),
        "{text}"
    );
    for rows in ["0", "1.5", "many"] {
        project.fails(&["plan", "growth.yaml", "--rows", rows], 64);
    }
}
