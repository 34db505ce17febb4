//! A file over a base, in every command that reads a pipeline file.

use harness::Project;

const BASE: &str = "\
name: base
seed: 17
vars: {model: models/policy}
stages:
  data: {kind: ingest, files: ./data.jsonl, form: text}
  pairs: {kind: pairs, from: data.pairs}
  reference: {kind: reference, from: pairs, model: '${vars.model}'}
  policy:
    kind: train
    from: pairs
    reference: reference
    model: '${vars.model}'
    objective: {name: dpo, beta: 0.3}
    optimizer: {lr: 1.0e-3, schedule: constant, warmup_steps: 0, weight_decay: 0.0, clip_norm: 1.0}
    batch: {pairs: 4, shuffle: true}
    steps: 1
  spare: {kind: pairs, from: data.pairs}
";

const EXPERIMENT: &str = "\
name: experiment
base: shared/base.yaml
stages:
  policy: {objective: {name: cdpo}}
  spare: null
";

fn project() -> Project {
    let row = |n: usize| format!("{{\"prompt\": \"p{n}\", \"chosen\": \"good\", \"rejected\": \"bad {n}\"}}\n");
    let data: String = (0..8).map(row).collect();
    let project = Project::new(&[("data.jsonl", &data), ("experiment.yaml", EXPERIMENT)]);
    std::fs::create_dir(project.path("shared")).unwrap();
    project.write("shared/base.yaml", BASE);
    std::fs::create_dir(project.path("models")).unwrap();
    let model = harness::oracle("llama");
    std::os::unix::fs::symlink(model, project.path("models/policy")).unwrap();
    project
}

#[test]
fn every_command_takes_a_file_over_a_base() {
    let project = project();
    let checked = project.done(&["check", "experiment.yaml"]);
    assert_eq!(checked, "experiment.yaml: 4 stages, nothing wrong\n");
    project.done(&["run", "shared/base.yaml", "--device", "cpu"]);
    // All but the objective is shared with the base, and nothing else is there.
    let plan = project.done(&["plan", "experiment.yaml", "--device", "cpu"]);
    let line = |stage: &str| plan.lines().find(|line| line.split_whitespace().next() == Some(stage));
    for stage in ["data", "pairs", "reference"] {
        assert!(line(stage).unwrap().contains("reuse"), "{plan}");
    }
    assert!(line("policy").unwrap().contains("never run") && line("spare").is_none(), "{plan}");
    let drawn = project.done(&["dag", "experiment.yaml", "--format", "mermaid"]);
    assert!(drawn.contains("policy") && !drawn.contains("spare"), "{drawn}");
    let rendered = project.done(&["render", "experiment.yaml", "reference", "-n", "1"]);
    assert!(rendered.contains("good"), "{rendered}");

    project.done(&["run", "experiment.yaml", "--device", "cpu"]);
    let status = project.done(&["status"]);
    assert!(status.contains("base") && status.contains("experiment"), "{status}");
    let diff = project.done(&["diff", "base", "experiment.yaml"]);
    assert!(diff.contains("objective.name") && diff.contains("cdpo"), "{diff}");
    // The record of the run asks nothing of the base.
    std::fs::remove_file(project.path("shared/base.yaml")).unwrap();
    let again = project.done(&["plan", ".halftone/runs/experiment/1/resolved.yaml", "--device", "cpu"]);
    assert!(!again.contains("never run") && again.matches("reuse").count() >= 4, "{again}");
}

#[test]
fn what_is_wrong_in_a_base_is_said_of_the_base() {
    let project = project();
    project.write("shared/base.yaml", &BASE.replace("pairs: 4", "pairs: none"));
    let said = project.fails(&["run", "experiment.yaml"], 78);
    assert_eq!(said, "error: shared/base.yaml:15:20: policy: got the text `none`, wanted a whole number\n");
    let said = project.fails(&["check", "experiment.yaml", "--set", "base=x.yaml"], 78);
    assert!(said.contains("--set base=x.yaml: "), "{said}");
}
