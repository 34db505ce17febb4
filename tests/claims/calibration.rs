//! Gold labels from a file beside a judge's.

use std::collections::BTreeSet;
use std::io::Write;

use harness::{Project, ran, stderr};
use kit::rows::{CalibratedVerdict, Comparison, Message, Pair};
use serde_json::json;

const PIPELINE: &str = "
name: calibration
seed: 17
stages:
  world: {kind: sandbox, mode: world, prompts: 12, holdout_prompts: 0, demonstrations: 8, judge_rows: 8, model: {width: 16, layers: 1, heads: 2}}
  samples: {kind: sample, from: world.prompts, model: world.model, k: 4, temperature: 1.0, max_tokens: 4}
  comparisons: {kind: compare, from: samples, within: all}
  verdicts:
    kind: judge
    comparisons: comparisons
    model: world.model
    template: ./pipelines/templates/sandbox.jinja
    form: text
    labels: {first: [\" A\"], second: [\" B\"]}
    debias: probability
    least_mass: 0
  gold: {kind: ingest, files: ./gold.jsonl, form: text}
  calibrated: {kind: calibrate, verdicts: verdicts, gold: gold.verdicts, method: temperature}
  pairs: {kind: pairs, from: calibrated}
";

/// A file of gold labels for the first comparisons, as a person would write it; every third with its sides exchanged.
fn write_gold(place: &Project, rows: usize, odd: usize) {
    let comparisons: Vec<Comparison> =
        kit::read_rows(&place.path(".halftone/runs/calibration/comparisons/comparisons")).unwrap();
    assert!(comparisons.len() > rows);
    let mut file = std::fs::File::create(place.path("gold.jsonl")).unwrap();
    let text = |messages: &[Message]| messages[0].content.clone();
    for (index, row) in comparisons.iter().take(rows).enumerate() {
        let mut sides = [text(&row.a_response), text(&row.b_response)];
        if index % 3 == 0 {
            sides.reverse();
        }
        let line = json!({"prompt": text(&row.a_prompt), "response_0": sides[0], "response_1": sides[1], "feedback": usize::from(index % odd == 0)});
        writeln!(file, "{line}").unwrap();
    }
}

#[test]
fn new_gold_labels_run_the_calibration_and_what_follows_and_not_the_judge() {
    let place = Project::with_pipelines();
    std::fs::write(place.path("pipeline.yaml"), PIPELINE).unwrap();
    let line = json!({"prompt": "p", "response_0": "a", "response_1": "b", "feedback": 0});
    std::fs::write(place.path("gold.jsonl"), format!("{line}\n")).unwrap();
    let run = |args: &[&str]| {
        let output = place.command(&["run", "pipeline.yaml", "--json", "--device", "cpu"]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        ran(&output)
    };
    run(&["--until", "verdicts"]);
    write_gold(&place, 40, 2);
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(run(&[]), named(&["gold", "calibrated", "pairs"]));
    let before = place.ports("calibration");
    write_gold(&place, 40, 5);
    assert_eq!(run(&[]), named(&["gold", "calibrated", "pairs"]));
    let after = place.ports("calibration");
    assert_eq!(before["verdicts/verdicts"], after["verdicts/verdicts"]);
    assert_ne!(before["calibrated/verdicts"], after["calibrated/verdicts"]);

    // A label is followed through its correction to the line of the gold label.
    let pair = kit::read_rows::<Pair>(&place.path(".halftone/runs/calibration/pairs/pairs")).unwrap().remove(0);
    let trace = |args: &[&str]| {
        let output = place.command(&["trace", &pair.pair_id]).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let followed: serde_json::Value = serde_json::from_str(&trace(&["--json"])).unwrap();
    let stages = followed["stages"].as_array().unwrap();
    let corrected = &stages.iter().find(|stage| stage["stage"] == "calibrated").unwrap()["tables"][0]["rows"][0];
    let known =
        kit::read_rows::<CalibratedVerdict>(&place.path(".halftone/runs/calibration/calibrated/verdicts")).unwrap();
    let known = known.into_iter().find(|row| Some(&row.comparison_id) == pair.comparison_id.as_ref()).unwrap();
    assert_eq!(corrected["p_hat"].as_f64(), Some(known.p_hat));
    assert_eq!(corrected["uncalibrated_p_hat"].as_f64(), Some(known.uncalibrated_p_hat));
    assert_eq!(corrected["calibrator"], known.calibrator.as_str());

    // Too few of them end the run with the data's exit code and their number.
    write_gold(&place, 20, 2);
    let output = place.command(&["run", "pipeline.yaml", "--device", "cpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("20 of 20 gold labels match"), "{}", stderr(&output));
}
