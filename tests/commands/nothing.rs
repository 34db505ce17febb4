//! Messages of commands whose target does not exist.

use harness::Project;

const PIPELINE: &str = "
name: test
seed: 17
stages:
  data: {kind: ingest, files: ./data.jsonl}
  pairs: {kind: pairs, from: data.pairs, ties: keep}
  more: {kind: pairs, from: pairs, ties: drop}
";
const GOOD: &str = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}\n";

fn project() -> Project {
    Project::new(&[("pipeline.yaml", PIPELINE), ("data.jsonl", GOOD)])
}

const LOOKS: [&[&str]; 5] = [
    &["inspect", "pairs"],
    &["report"],
    &["diff"],
    &["trace", "abcdef"],
    &["export", "dataset", "pairs", "--to", "out"],
];

#[test]
fn an_empty_folder_says_what_to_do() {
    let empty = Project::new(&[]);
    for args in LOOKS {
        let told = empty.fails(args, 64);
        assert!(
            told.contains("nothing has run here: there is no folder `.halftone`; `halftone init my.yaml"),
            "{told}"
        );
    }
    // A pipeline that is here is named, and runs in a folder above.
    let project = project();
    let told = project.fails(&["report"], 64);
    assert!(told.contains("run a pipeline first: `halftone run pipeline.yaml`"), "{told}");
    project.done(&["run", "pipeline.yaml"]);
    std::fs::create_dir(project.path("below")).unwrap();
    let below = std::process::Command::new(env!("CARGO_BIN_EXE_halftone"))
        .args(["inspect", "pairs"])
        .current_dir(project.path("below"))
        .output()
        .unwrap();
    let told = String::from_utf8(below.stderr).unwrap();
    assert!(told.contains("there are runs in `../.halftone`: say `--work ../.halftone`"), "{told}");
}

#[test]
fn after_a_failed_run_the_last_good_one_is_named() {
    let project = project();
    project.write("data.jsonl", "{\"prompt\": \"a\", \"chosen\": 7, \"rejected\": \"c\"}\n");
    project.fails(&["run", "pipeline.yaml"], 65);
    let told = project.fails(&["inspect", "pairs"], 64);
    let wanted =
        "stage `pairs` has no result: pending, it has not run; run 1 failed at `data`; no run before it was done";
    assert!(told.contains(wanted), "{told}");
    assert!(project.fails(&["trace", "abcdef"], 64).contains("run 1 failed at `data`"));
    assert!(project.fails(&["diff"], 64).contains("`test` has no two runs that are done; run 1 failed at `data`"));
    assert!(project.says(&["report"]).starts_with("note: run 1 failed at `data`"));

    project.write("data.jsonl", GOOD);
    project.done(&["run", "pipeline.yaml"]);
    project.write("data.jsonl", "{\"prompt\": \"a\", \"chosen\": 7, \"rejected\": \"c\"}\n");
    project.fails(&["run", "pipeline.yaml"], 65);
    // The rows are of the run before, and a note states it.
    let told = project.says(&["inspect", "pairs"]);
    assert!(told.starts_with("note: run 3 has not come to `pairs`: this is the result of an earlier run"), "{told}");
    assert!(told.contains("run 3 failed at `data`; the last good run is 2: `--run 2`"), "{told}");
    assert_eq!(project.says(&["inspect", "pairs", "--run", "2"]), "");
    assert!(project.says(&["report"]).contains("the last good run is 2"));
    assert_eq!(project.says(&["report", "--run", "2"]), "");
    let told = project.fails(&["trace", "abcdef"], 64);
    assert!(told.contains("run 3 failed at `data`; the last good run is 2: `--run 2`"), "{told}");
}

#[test]
fn two_good_runs_are_compared_although_a_third_failed() {
    let project = project();
    project.done(&["run", "pipeline.yaml"]);
    project.done(&["run", "pipeline.yaml", "--set", "pairs.ties=drop"]);
    project.write("data.jsonl", "{\"prompt\": \"a\", \"chosen\": 7, \"rejected\": \"c\"}\n");
    project.fails(&["run", "pipeline.yaml"], 65);
    assert!(project.done(&["diff"]).starts_with("test, run 1 and run 2\n"));
    assert!(project.says(&["diff"]).starts_with("note: run 3 failed at `data`; the last good run is 2"));
}

#[test]
fn wrong_names_of_tables_give_the_nearest() {
    let project = project();
    project.done(&["run", "pipeline.yaml"]);
    for (name, wanted) in [
        ("pars", "did you mean `pairs`?"),
        ("data.pars", "stage `data` has no output `pars`; did you mean `pairs`?"),
        ("dta.pairs", "did you mean `data.pairs`?"),
        ("reject", "there are `data.rejects`, `pairs.rejects`, `more.rejects`"),
        ("zzzzzz", "it has data, pairs, more"),
        (".halftone/runs/test/pairs/pars", "did you mean `.halftone/runs/test/pairs/pairs`?"),
        ("no/where", "there is no `no/where`; there is no folder `no` either"),
    ] {
        let told = project.fails(&["inspect", name], 64);
        assert!(told.contains(wanted), "{name}: {told}");
    }
    let told = project.fails(&["inspect", "pairs", "--pipeline", "tset"], 64);
    assert!(told.contains("no run of `tset` in .halftone; did you mean `test`?"), "{told}");
    assert!(
        project.fails(&["inspect", "pairs", "--run", "7"], 64).contains("no run 7 of `test` in .halftone; there are 1")
    );
}

#[test]
fn an_unset_variable_is_one_error() {
    let project = project();
    let text = "
name: test
seed: 17
vars: {model: '${env:HALFTONE_TEST_UNSET}/model'}
stages:
  data: {kind: ingest, files: ./data.jsonl}
  reference: {kind: reference, from: data.pairs, model: '${vars.model}'}
  policy:
    kind: train
    from: data.pairs
    reference: reference
    model: '${vars.model}'
    objective: {name: dpo, beta: '${env:HALFTONE_TEST_UNSET}'}
    optimizer: {lr: 1.0e-5}
    batch: {pairs: 4}
    epochs: 1
  after: {kind: sample, from: data.prompts, model: policy, k: '${env:HALFTONE_TEST_UNSET}', max_tokens: 4, temperature: 1.0}
";
    project.write("unset.yaml", text);
    let told = project.fails(&["check", "unset.yaml"], 78);
    assert_eq!(told.matches("error").count(), 1, "{told}");
    assert!(told.contains("unset.yaml:4:"), "{told}");
    assert!(told.contains("the environment variable `HALFTONE_TEST_UNSET` is not set (5 values need it)"), "{told}");
}

#[test]
fn a_knob_of_another_objective_says_whose_it_is() {
    let project = project();
    let text = PIPELINE.to_owned()
        + "  policy: {kind: train, from: pairs, model: ./model, objective: {name: dpo, beta: 0.1, tau: 0.5}, \
           optimizer: {lr: 1.0e-5}, batch: {pairs: 4}, epochs: 1}\n";
    project.write("knob.yaml", &text);
    let told = project.fails(&["check", "knob.yaml"], 78);
    assert!(told.contains("policy: unknown key `tau`: `discopop` and `rpo` read it, `dpo` does not"), "{told}");
    assert!(told.contains("policy: `reference` is missing: `dpo` measures against the frozen reference"), "{told}");
}
