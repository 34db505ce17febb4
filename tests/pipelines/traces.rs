//! `trace` and `render` on the small quickstart.

use std::process::Output;

use kit::TableWriter;
use kit::rows::{Comparison, Pair, Verdict};
use serde_json::Value;

use crate::place::{Place, stderr};

const RPO: [&str; 2] = ["--set", "policy.objective={name: rpo, beta: 0.3, tau: 0.5}"];

fn rows<R: kit::Row>(place: &Place, port: &str) -> Vec<R> {
    kit::read_rows(&place.path(".halftone/runs/quickstart").join(port)).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn traced(place: &Place, id: &str) -> Value {
    let output = place.halftone(&["trace", id, "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The facts of all rows of a stage, by name.
fn facts<'a>(trace: &'a Value, stage: &str, name: &str) -> Vec<&'a Value> {
    let stages = trace["stages"].as_array().unwrap();
    let Some(stage) = stages.iter().find(|found| found["stage"] == stage) else { return Vec::new() };
    let rows = stage["rows"].as_array().unwrap().iter().flat_map(|row| row["facts"].as_array().unwrap());
    rows.filter(|fact| fact["name"] == name).collect()
}

#[test]
fn a_pair_is_followed_from_its_prompt_to_the_steps_and_a_changed_number_is_seen() {
    let place = Place::new();
    let output = place.quickstart(&RPO).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let pair = rows::<Pair>(&place, "pairs/pairs").remove(3);
    let trace = traced(&place, &pair.pair_id);
    assert_eq!(trace["disagreements"], Value::Array(Vec::new()));
    assert_eq!(trace["sides"][0]["response"][0]["content"], pair.chosen[0].content.as_str());
    let comparison = pair.comparison_id.clone().unwrap();
    let verdict = rows::<Verdict>(&place, "verdicts/verdicts");
    let verdict = verdict.into_iter().find(|row| row.comparison_id == comparison).unwrap();
    for (stage, name, value) in [
        ("verdicts", "ab_p", verdict.ab_p.unwrap()),
        ("verdicts", "position_gap", verdict.position_gap.unwrap()),
        ("verdicts", "p_hat", verdict.p_hat),
        ("pairs", "p_hat", pair.p_hat),
        ("pairs", "weight", 1.0),
    ] {
        let fact = facts(&trace, stage, name)[0];
        assert_eq!(fact["stored"].as_f64(), Some(value), "{stage} {name}");
        assert!((fact["recomputed"].as_f64().unwrap() - value).abs() < 1e-9, "{stage} {name}");
    }
    let question = facts(&trace, "verdicts", "question, b first")[0]["stored"].as_str().unwrap();
    let (a, b) = (&verdict.a_response[0].content, &verdict.b_response[0].content);
    assert!(question.find(b.as_str()).unwrap() <= question.rfind(a.as_str()).unwrap(), "{question}");
    assert_eq!(facts(&trace, "reference", "logp").len(), 2);
    let steps = facts(&trace, "policy", "steps")[0];
    assert_eq!(steps["stored"].as_array().unwrap().len(), 1, "one epoch");
    assert_eq!(steps["stored"], steps["recomputed"]);
    let contrasts = trace["stages"].as_array().unwrap().iter().find(|it| it["stage"] == "policy").unwrap().to_string();
    assert!(contrasts.contains("contrast weight in step"), "{contrasts}");
    assert!(!facts(&trace, "world", "text").is_empty(), "the prompt comes from the world");
    assert!(!facts(&trace, "truth_of_verdicts", "p_star").is_empty());

    // The comparison leads to the same rows, and so does the beginning of an id.
    let by_comparison = traced(&place, &comparison);
    assert_eq!(by_comparison["rows"], trace["rows"]);
    assert_eq!(traced(&place, &pair.pair_id[..16])["id"], trace["id"]);
    let output = place.halftone(&["trace", "no-such-pair"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(stderr(&output).contains("`halftone inspect pairs --pipeline quickstart`"), "{}", stderr(&output));
    let text = stdout(&place.halftone(&["trace", &pair.pair_id]).output().unwrap());
    assert!(text.contains("values computed again from stored columns: all agree"), "{text}");

    // A number that does not follow from the others.
    let folder = std::fs::canonicalize(place.path(".halftone/runs/quickstart/verdicts/verdicts")).unwrap();
    let mut verdicts: Vec<Verdict> = kit::read_rows(&folder).unwrap();
    verdicts.iter_mut().find(|row| row.comparison_id == comparison).unwrap().position_gap = Some(0.9);
    std::fs::remove_dir_all(&folder).unwrap();
    let mut writer = TableWriter::create(&folder).unwrap();
    writer.extend(verdicts).unwrap();
    writer.finish().unwrap();
    let output = place.halftone(&["trace", &pair.pair_id]).output().unwrap();
    assert_eq!(output.status.code(), Some(65), "{}", stdout(&output));
    assert!(stderr(&output).contains(&format!("verdicts: verdict {comparison}: position_gap")), "{}", stderr(&output));
    assert!(stdout(&output).contains("[COMPUTED AGAIN:"), "{}", stdout(&output));
}

#[test]
fn what_a_model_will_see_is_shown_before_it_does() {
    let place = Place::new();
    let render = |stage: &str| {
        let mut command = place.halftone(&["render", "pipelines/quickstart.yaml", stage, "-n", "3"]);
        crate::place::SMALL.iter().for_each(|set| _ = command.args(["--set", set]));
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

    let output = place.quickstart(&["--until", "verdicts"]).output().unwrap();
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
