//! Judges of every way on one tiny model, and the stages that read their verdicts.

use serde_json::Value;

use harness::Project;

const PIPELINE: &str = r#"
name: ways
seed: 17
vars: {judge: ./judge}
stages:
  data: {kind: ingest, files: ./data.jsonl, form: text}
  labels: &judge
    kind: judge
    comparisons: data.comparisons
    model: "${vars.judge}"
    form: text
    template: helpful
    debias: probability
    least_mass: 0
  rating:
    kind: judge
    comparisons: data.comparisons
    model: "${vars.judge}"
    form: text
    template: helpful-rating
    least_mass: 0
    rating: {levels: [[" 1"], [" 2"], [" 3"]]}
  reasoning:
    kind: judge
    comparisons: data.comparisons
    model: "${vars.judge}"
    form: text
    template: helpful-reasoning
    debias: probability
    labels: {first: [a], second: [e]}
    max_low_mass: 1
    reasoning: {samples: 6, temperature: 1, max_tokens: 16, pattern: "(a|e)", take: first, least_parsed: 0.1}
  rationale:
    <<: *judge
    template: helpful-rationale
    rationale: {temperature: 0, max_tokens: 8, ending: "\nThe better one is"}
  jury: {kind: jury, verdicts: [labels, rating, reasoning, rationale], method: mean_log_odds}
  calibrated_rating: {kind: calibrate, verdicts: rating, gold: data.pairs, folds: 2}
  calibrated_reasoning: {kind: calibrate, verdicts: reasoning, gold: data.pairs, folds: 2}
  pairs: {kind: pairs, from: [rating, reasoning, rationale, jury], ties: keep}
"#;

#[test]
fn every_way_to_a_verdict_feeds_juries_calibration_and_pairs() {
    let rows: String = (0..40)
        .map(|n| {
            format!("{{\"prompt\": \"say {n}\", \"chosen\": \" {n} it is\", \"rejected\": \" no {}\"}}\n", n * 7 + 1)
        })
        .collect();
    let project = Project::new(&[("pipeline.yaml", PIPELINE), ("data.jsonl", &rows)]);
    std::os::unix::fs::symlink(harness::oracle("llama"), project.path("judge")).unwrap();
    project.done(&["check", "pipeline.yaml"]);
    project.done(&["run", "pipeline.yaml", "--device", "cpu"]);
    let lines = |port: &str| -> Vec<Value> {
        let text = project.done(&["inspect", port, "--json", "-n", "999"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    assert_eq!((lines("rating.verdicts").len(), lines("rating.ratings").len()), (40, 80));
    assert_eq!((lines("reasoning.answers").len(), lines("rationale.answers").len()), (40 * 2 * 6, 40 * 2));
    let reasoned = lines("reasoning.verdicts").len();
    assert!(reasoned >= 30, "{reasoned}");
    assert_eq!(lines("jury.verdicts").len(), 40);
    assert_eq!(
        (lines("calibrated_rating.verdicts").len(), lines("calibrated_reasoning.verdicts").len()),
        (40, reasoned)
    );
    // What was written about a pair is shown with it.
    let id = lines("rationale.answers")[0]["comparison_id"].as_str().unwrap().to_owned();
    let traced = project.done(&["trace", &id]);
    assert!(!traced.contains("no judge was asked"), "{traced}");

    // Labels that the tokenizer cannot tell apart are found before anything runs, as is a pattern that is none.
    let alike = ["--set", "rating.rating.levels=[[\"good\"], [\"good and more\"]]"];
    let said = project.fails(&[&["check", "pipeline.yaml"][..], &alike].concat(), 65);
    assert!(said.contains("cannot be told apart"), "{said}");
    let said = project.fails(&["check", "pipeline.yaml", "--set", "reasoning.reasoning.pattern=(a"], 78);
    assert!(said.contains("is no regular expression"), "{said}");
}
