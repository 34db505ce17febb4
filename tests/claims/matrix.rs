//! The claims' pipeline, and a small one of its kind from one end to the other.

use harness::{Project, stderr};
use kit::rows::ResultRow;

#[test]
fn the_claims_are_a_right_pipeline_of_at_most_250_trainings() {
    let place = Project::with_pipelines();
    let output = place.command(&["plan", "pipelines/claims/claims.yaml"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let plan = String::from_utf8(output.stdout).unwrap();
    let line = plan.lines().find(|line| line.contains(" stages: ")).unwrap();
    let count = line.split([':', ',']).find_map(|part| part.trim().split_once(" train")).unwrap().0;
    assert!((200..=250).contains(&count.parse::<u32>().unwrap()), "{line}");
    // One line for each stage of the file, whatever its matrix makes of it, and a few remarks.
    assert!(plan.lines().count() < 70 && plan.contains("policy (17 objective x 6 beta x 11 data x 5 seed)"), "{plan}");
    let output = place.command(&["dag", "pipelines/claims/claims.yaml", "--format", "mermaid"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(String::from_utf8(output.stdout).unwrap().lines().count() < 150);
}

const SMALL: &str = "
name: small
seed: 17
stages:
  world: {kind: sandbox, mode: world, prompts: 8, holdout_prompts: 6, demonstrations: 8, judge_rows: 8, model: {width: 16, layers: 1, heads: 2}}
  samples: {kind: sample, from: world.prompts, model: world.model, k: 3, temperature: 1.0, max_tokens: 4, matrix: {seed: [1, 2, 3]}, seed: '${matrix.seed}'}
  comparisons: {kind: compare, from: samples, within: all, matrix: {seed: [1, 2, 3]}}
  verdicts:
    kind: judge
    matrix: {seed: [1, 2, 3]}
    comparisons: comparisons
    model: world.model
    template: ./pipelines/templates/sandbox.jinja
    form: text
    labels: {first: [' A'], second: [' B']}
    debias: probability
    least_mass: 0
  pairs: {kind: pairs, from: verdicts, matrix: {seed: [1, 2, 3]}}
  reference: {kind: reference, from: pairs, model: world.model, matrix: {seed: [1, 2, 3]}}
  policy:
    kind: train
    matrix: &grid {objective: [dpo, gdpo], beta: [0.1, 1.0], seed: [1, 2, 3]}
    seed: '${matrix.seed}'
    from: pairs
    reference: reference
    model: world.model
    objective: {name: '${matrix.objective}', beta: '${matrix.beta}'}
    optimizer: {lr: 1.0e-2, schedule: constant, warmup_steps: 0, weight_decay: 0.0, clip_norm: 1.0}
    batch: {pairs: 8, shuffle: true}
    epochs: 1
  answers: {kind: sample, from: world.holdout_prompts, model: policy, k: 2, temperature: 1.0, max_tokens: 4, matrix: *grid, seed: '${matrix.seed}'}
  truth: {kind: sandbox, mode: truth, responses: answers, matrix: *grid}
  test: {kind: evaluate, utilities: truth, utility_names: [test], matrix: *grid}
  results:
    kind: summarize
    from: test
    labels: '${labels.test}'
    over: seed
    compare: objective
    choose: {metric: utility/test, best: highest}
    against: [dpo]
    metrics: [utility/test]
";

#[test]
fn a_matrix_of_trainings_ends_in_a_table_of_means_and_differences() {
    let place = Project::with_pipelines();
    std::fs::write(place.path("pipeline.yaml"), SMALL).unwrap();
    let output = place.command(&["run", "pipeline.yaml", "--device", "cpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains("policy x 12") && told.contains("utility/test: gdpo - dpo"), "{told}");
    let rows: Vec<ResultRow> = kit::read_rows(&place.path(".halftone/runs/small/results/results")).unwrap();
    let parts: Vec<(&str, &str, u64)> =
        rows.iter().map(|row| (row.part.as_str(), row.group.as_str(), row.runs)).collect();
    assert_eq!(
        parts,
        [
            ("mean", "dpo", 3),
            ("mean", "dpo", 3),
            ("mean", "gdpo", 3),
            ("mean", "gdpo", 3),
            ("best", "dpo", 3),
            ("best", "gdpo", 3),
            ("difference", "gdpo", 3)
        ]
    );
    // The difference is that of the chosen ones, seed by seed.
    for seed in 0..3 {
        assert!((rows[6].values[seed] - (rows[5].values[seed] - rows[4].values[seed])).abs() < 1e-12);
    }
    assert!(rows[..4].iter().any(|row| row.values[0] != row.values[1]), "seeds differ: {rows:?}");
}
