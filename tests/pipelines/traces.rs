//! `trace` and `render` on the small quickstart.

use std::process::Output;

use harness::{Project, stderr};
use kit::rows::{Comparison, Pair, Verdict};
use serde_json::Value;

use crate::quickstart::quickstart;

const RPO: [&str; 2] = ["--set", "policy.objective={name: rpo, beta: 0.5, tau: 0.5}"];

fn rows<R: kit::Row>(place: &Project, port: &str) -> Vec<R> {
    kit::read_rows(&place.path(".halftone/runs/quickstart").join(port)).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn traced(place: &Project, id: &str) -> Value {
    let output = place.command(&["trace", id, "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A column of all rows that a stage has in a table.
fn stored<'a>(trace: &'a Value, stage: &str, port: &str, column: &str) -> Vec<&'a Value> {
    let of = |list: &'a Value, key: &str, name: &str| list.as_array().unwrap().iter().find(|it| it[key] == name);
    let tables = of(&trace["stages"], "stage", stage).map(|stage| &stage["tables"]);
    let rows = tables.and_then(|tables| of(tables, "port", port)).map(|table| table["rows"].as_array().unwrap());
    rows.into_iter().flatten().map(|row| &row[column]).collect()
}

#[test]
fn a_pair_is_followed_from_its_prompt_to_the_steps() {
    let place = Project::with_pipelines();
    let output = quickstart(&place, &RPO).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let pair = rows::<Pair>(&place, "pairs/pairs").remove(3);
    let trace = traced(&place, &pair.pair_id);
    assert_eq!(trace["changed"], Value::Array(Vec::new()));
    assert_eq!(trace["sides"][0]["response"][0]["content"], pair.chosen[0].content.as_str());
    let comparison = pair.comparison_id.clone().unwrap();
    let verdict = rows::<Verdict>(&place, "verdicts/verdicts");
    let verdict = verdict.into_iter().find(|row| row.comparison_id == comparison).unwrap();
    for (stage, table, column, value) in [
        ("verdicts", "verdicts", "ab_p", verdict.ab_p.unwrap()),
        ("verdicts", "verdicts", "position_gap", verdict.position_gap.unwrap()),
        ("verdicts", "verdicts", "p_hat", verdict.p_hat),
        ("pairs", "pairs", "p_hat", pair.p_hat),
        ("pairs", "pairs", "weight", 1.0),
    ] {
        let found = stored(&trace, stage, table, column);
        assert_eq!(found.iter().map(|value| value.as_f64()).collect::<Vec<_>>(), [Some(value)], "{stage} {column}");
    }
    assert_eq!(stored(&trace, "reference", "reference", "logp").len(), 2);
    assert_eq!(stored(&trace, "policy", "steps", "step").len(), 1, "one epoch");
    let contrasts = stored(&trace, "policy", "contrasts", "weight");
    let all: Vec<kit::rows::Contrast> = rows(&place, "policy/contrasts");
    let ours = |row: &&kit::rows::Contrast| row.pair_id == pair.pair_id || row.rejected_pair_id == pair.pair_id;
    assert_eq!(contrasts.len(), all.iter().filter(ours).count());
    assert_eq!(stored(&trace, "world", "prompts", "prompt_id"), [pair.chosen_prompt_id.as_str()]);
    assert_eq!(stored(&trace, "truth_of_verdicts", "truth", "p_star").len(), 1);
    // Conversations stand with the sides alone.
    assert_eq!(stored(&trace, "pairs", "pairs", "chosen"), [&Value::Null]);

    // The comparison and either response lead to the same rows, and so does the beginning of an id.
    let by_comparison = traced(&place, &comparison);
    assert_eq!(by_comparison["stages"], trace["stages"]);
    assert_eq!(traced(&place, &pair.pair_id[..16])["id"], trace["id"]);
    let by_response = traced(&place, &pair.chosen_response_id);
    assert_eq!(by_response["sides"].as_array().unwrap().len(), 1);
    let pairs = rows::<Pair>(&place, "pairs/pairs");
    let with_it = |row: &&Pair| {
        let sides =
            [(&row.chosen_prompt_id, &row.chosen_response_id), (&row.rejected_prompt_id, &row.rejected_response_id)];
        let one = (by_response["sides"][0]["prompt_id"].as_str(), by_response["sides"][0]["response_id"].as_str());
        sides.iter().any(|side| one == (Some(side.0.as_str()), Some(side.1.as_str())))
    };
    assert_eq!(stored(&by_response, "pairs", "pairs", "pair_id").len(), pairs.iter().filter(with_it).count());
    let output = place.command(&["trace", "no-such-pair"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("`halftone inspect pairs --pipeline quickstart`"), "{}", stderr(&output));
    let text = stdout(&place.command(&["trace", &pair.pair_id]).output().unwrap());
    assert!(text.contains("position_gap") && text.contains("completion_tokens"), "{text}");
}

#[test]
fn what_a_model_will_see_is_shown_before_it_does() {
    let place = Project::with_pipelines();
    let render = |stage: &str| {
        let mut command = place.command(&["render", "pipelines/quickstart.yaml", stage, "-n", "3"]);
        crate::quickstart::SMALL.iter().for_each(|set| _ = command.args(["--set", set]));
        command.output().unwrap()
    };
    let early = render("verdicts");
    assert_eq!(early.status.code(), Some(64));
    assert!(
        stderr(&early).contains("halftone run pipelines/quickstart.yaml --until comparisons"),
        "{}",
        stderr(&early)
    );
    let none = render("pairs");
    assert!(stderr(&none).contains("feeds nothing to a model"), "{}", stderr(&none));

    let output = quickstart(&place, &["--until", "verdicts"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let comparison = rows::<Comparison>(&place, "comparisons/comparisons").remove(0);
    let output = render("verdicts");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains(&format!("--- comparison {}, a first\n", comparison.comparison_id)), "{text}");
    assert_eq!(text.matches(" first\n").count(), 6, "both orders of three: {text}");
    assert!(text.contains("[ A]"), "the label is what is scored: {text}");
    assert!(text.contains("all of it: "), "{text}");

    let output = render("imitation");
    let text = stdout(&output);
    assert!(text.contains("BOS token") && !text.contains("warning"), "{text}");
    let items: Vec<kit::rows::Item> = rows(&place, "world/demonstrations");
    let mask = format!("{}[{}", items[0].prompt[0].content, items[0].response[0].content);
    assert!(text.contains(&mask), "{mask} in {text}");
    // The reference reads pairs, which are not there yet.
    assert!(stderr(&render("reference")).contains("--until pairs"), "{}", stderr(&render("reference")));
}
