//! `diff`: what two runs differ in.

use serde_json::Value;

use crate::judged::project;

#[test]
fn configuration_labels_and_figures_are_compared() {
    let project = project();
    project.done(&["run", "pipeline.yaml"]);
    let told = project.fails(&["diff"], 64);
    assert!(told.contains("`test` has one run, 1, that is done; there is nothing to compare it with"), "{told}");
    project.done(&["run", "pipeline.yaml", "--set", "verdicts.method=temperature"]);
    let told = project.done(&["diff"]);
    assert!(told.starts_with("test, run 1 and run 2\n"), "{told}");
    assert!(told.contains("  verdicts     method            platt"), "{told}");
    assert!(told.contains("the same labels: data.pairs, data.verdicts"), "{told}");

    let all: Value = serde_json::from_str(&project.done(&["diff", "1", "test:2", "--json"])).unwrap();
    let of = |key: &str, name: &str, value: &str| -> Value {
        all[key].as_array().unwrap().iter().find(|row| row[name] == value).unwrap().clone()
    };
    let differences = of("stages", "stage", "verdicts")["differences"].clone();
    assert_eq!(differences[0]["key"], "method");
    assert_eq!((&differences[0]["before"], &differences[0]["after"]), (&"platt".into(), &"temperature".into()));
    let pairs = of("labels", "table", "pairs");
    assert_eq!((&pairs["rows"], &pairs["only_first"], &pairs["only_second"]), (&100.into(), &0.into(), &0.into()));
    // Every label but one of exactly 1/2 moves; those that Platt's offset had turned over turn back, though a pair is
    // oriented anew in each run.
    let verdicts = of("labels", "table", "verdicts");
    assert!(verdicts["moved"].as_u64().unwrap() >= 99, "{verdicts}");
    assert_eq!((&pairs["flips"], &pairs["moved"]), (&verdicts["flips"], &verdicts["moved"]));
    assert!(verdicts["mean_change"].as_f64().unwrap() > 0.0);
    let figures = of("figures", "table", "figures.summary");
    for row in figures["rows"].as_array().unwrap() {
        let value = |key: &str| row[key].as_f64().unwrap();
        assert_eq!(value("difference"), value("second") - value("first"), "{row}");
    }
}

#[test]
fn rows_of_one_run_alone_are_counted() {
    let project = project();
    project.done(&["run", "pipeline.yaml", "--until", "pairs"]);
    project.done(&["run", "pipeline.yaml", "--until", "pairs", "--set", "data.limit=60"]);
    let all: Value = serde_json::from_str(&project.done(&["diff", "--json"])).unwrap();
    let data = all["labels"].as_array().unwrap().iter().find(|row| row["table"] == "data.verdicts").unwrap();
    assert_eq!((&data["rows"], &data["only_first"], &data["moved"]), (&60.into(), &40.into(), &0.into()));
}

#[test]
fn results_that_gc_removed_are_said() {
    let project = project();
    project.done(&["run", "pipeline.yaml"]);
    project.done(&["run", "pipeline.yaml", "--set", "verdicts.method=temperature"]);
    project.done(&["run", "pipeline.yaml", "--set", "verdicts.method=temperature"]);
    // The record of the first run stays as long as it may be asked for.
    let stages = std::fs::read(project.path(".halftone/runs/test/1/stages.json")).unwrap();
    project.done(&["gc", "--keep", "1"]);
    std::fs::create_dir_all(project.path(".halftone/runs/test/1")).unwrap();
    std::fs::write(project.path(".halftone/runs/test/1/stages.json"), stages).unwrap();
    let told = project.done(&["diff", "1", "3"]);
    assert!(told.contains("not compared, since `gc` removed them:\n  verdicts  of run 1 of test\n"), "{told}");
    assert!(told.contains("  verdicts     method            platt"), "{told}");
}

#[test]
fn runs_that_are_not_there_are_named() {
    let project = project();
    assert!(project.fails(&["diff"], 64).contains("nothing has run here"));
    project.done(&["run", "pipeline.yaml", "--until", "data"]);
    let told = project.fails(&["diff", "1", "7"], 64);
    assert!(told.contains("no run 7 of `test` in .halftone; there are 1"), "{told}");
    assert!(project.fails(&["diff", "tset:1"], 64).contains("did you mean `test`?"));
}
