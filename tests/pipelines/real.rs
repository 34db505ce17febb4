//! The pipeline for models that people have, over a small one.

use harness::{Project, oracle, stderr};
use serde_json::Value;

#[test]
fn answers_are_judged_trained_on_and_held_against_the_start() {
    let place = Project::with_pipelines();
    let prompts = |column: &str, what: &str| -> String {
        (0..12).map(|n| format!("{{\"{column}\": \"{what} number {n}\"}}\n")).collect()
    };
    place.write("questions.jsonl", &prompts("instruction", "name the"));
    place.write("posts.jsonl", &prompts("prompt", "I lost my"));
    place.write("ask.jinja", "{{ a_prompt }} {{ a }} or {{ b_prompt }} {{ b }}? Answer:");
    let mut args = vec!["run".to_owned(), "pipelines/real/real.yaml".to_owned(), "--device=cpu".to_owned()];
    let model = oracle("llama").display().to_string();
    let models = ["policy", "judge", "referee", "encoder"].map(|name| format!("vars.{name}={model}"));
    let settings = [
        "vars.questions=./questions.jsonl",
        "vars.posts=./posts.jsonl",
        "vars.question=./ask.jinja",
        "vars.joint_question=./ask.jinja",
        "vars.max_tokens=6",
        "vars.adapter.rank=2",
        // The small model has labels among all else that it says.
        "verdicts.least_mass=0",
        "joint_verdicts.least_mass=0",
        "contest_verdicts.least_mass=0",
        "trained_verdicts.least_mass=0",
    ];
    for setting in models.iter().map(String::as_str).chain(settings) {
        args.extend(["--set".to_owned(), setting.to_owned()]);
    }
    let output = place.command(&args.iter().map(String::as_str).collect::<Vec<_>>()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for policy in ["gdpo", "rpo", "jpo"] {
        for judge in ["contest", "trained"] {
            let rows = place.done(&["inspect", &format!("{judge}_figures@{policy}.summary"), "--json", "-n", "99"]);
            let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let won = rows.iter().find(|row| row["metric"] == "win_rate").unwrap_or_else(|| panic!("{rows:?}"));
            assert!((0.0..=1.0).contains(&won["value"].as_f64().unwrap()), "{won}");
        }
    }
    let joint = place.done(&["inspect", "joint_pairs.pairs", "--json", "-n", "9999"]);
    let is_joint = |line: &&str| {
        let row: Value = serde_json::from_str(line).unwrap();
        row["chosen_prompt_id"] != row["rejected_prompt_id"]
    };
    let joint: Vec<&str> = joint.lines().filter(is_joint).collect();
    assert!(!joint.is_empty(), "pairs of two prompts are trained on");
}
