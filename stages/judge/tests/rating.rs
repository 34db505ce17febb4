//! Judges that rate each response by itself, on a tiny model.

use std::collections::BTreeMap;

use harness::Place;
use judge::Judge;
use kit::rows::{Comparison, Message, Rating, Reject, ScoredVerdict, SummaryRow};
use kit::{Error, Outcome, Result, Stage};
use serde_json::{Value, json};

use crate::material;
use material::{comparisons, swapped};

fn stage(more: Value) -> Judge {
    let all = json!({"comparisons": "data", "model": "models/llama", "template": "helpful-rating", "least_mass": 0.0,
        "rating": {"levels": [["1", " 1"], ["2", " 2"], ["3", " 3"], ["4", " 4"]]}});
    serde_json::from_value(harness::with(all, &more)).unwrap()
}

fn criteria() -> Value {
    json!({"rating": {"levels": [["poor"], ["fair"], ["good"]], "criteria": [
        {"name": "help", "rubric": "poor: no help. good: all that was asked for.", "weight": 2},
        {"name": "honesty"},
    ]}})
}

fn place(rows: Vec<Comparison>) -> Place {
    Place::new().table("comparisons", rows).model("model", "llama")
}

fn run(place: &Place, name: &str, stage: &Judge) -> Result<Outcome> {
    place.stage(name, stage)
}

fn rated(rows: Vec<Comparison>, stage: &Judge) -> (Vec<ScoredVerdict>, Vec<Rating>) {
    let place = place(rows);
    run(&place, "out", stage).unwrap();
    (place.rows("out/verdicts"), place.rows("out/ratings"))
}

/// Comparisons of every response with every other of the first prompts, so that each stands in several.
fn tournament() -> Vec<Comparison> {
    let rows = comparisons("same");
    let mut all = rows.clone();
    for (one, other) in rows.iter().zip(rows.iter().skip(1)) {
        all.push(Comparison {
            comparison_id: format!("joint-{}", one.comparison_id),
            form: "joint".to_owned(),
            b_prompt_id: other.a_prompt_id.clone(),
            b_response_id: other.a_response_id.clone(),
            b_prompt: other.a_prompt.clone(),
            b_response: other.a_response.clone(),
            ..one.clone()
        });
    }
    all
}

#[test]
fn a_verdict_follows_from_the_two_distributions() {
    let (verdicts, ratings) = rated(tournament(), &stage(json!({})));
    // Each response once, in however many comparisons it stands.
    assert_eq!((verdicts.len(), ratings.len()), (11, 12));
    let map: BTreeMap<_, _> = ratings.iter().map(|row| ((&row.prompt_id, &row.response_id), row)).collect();
    assert_eq!(map.len(), 12);
    for row in &ratings {
        assert_eq!(row.levels.len(), 4);
        assert!((row.levels.iter().sum::<f64>() - 1.0).abs() < 1e-12 && row.mass.unwrap() < 1.0);
        let mean: f64 = row.levels.iter().zip(1..).map(|(p, level)| p * f64::from(level)).sum();
        assert!((row.rating.unwrap() - mean).abs() < 1e-12);
    }
    for row in &verdicts {
        let a = &map[&(&row.a_prompt_id, &row.a_response_id)].levels;
        let b = &map[&(&row.b_prompt_id, &row.b_response_id)].levels;
        let mut p = 0.0;
        for (i, a) in a.iter().enumerate() {
            for (j, b) in b.iter().enumerate() {
                p += a
                    * b
                    * if i > j {
                        1.0
                    } else if i == j {
                        0.5
                    } else {
                        0.0
                    };
            }
        }
        assert!((row.p_hat - p).abs() < 1e-14, "{} {p}", row.p_hat);
        assert!((row.log_odds.unwrap() - (p / (1.0 - p)).ln()).abs() < 1e-12);
        assert_eq!((row.ab_p, row.ab_logp_a, row.position_gap), (None, None, None));
    }
}

#[test]
fn the_distribution_is_that_of_labels_in_a_question_of_ones_own() {
    // The same numbers as a judge of two labels gives to the same text.
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    std::fs::write(path("rate.jinja"), "{{ prompt }}\n{{ response }}\nLevel:").unwrap();
    std::fs::write(path("pick.jinja"), "{{ prompt }}\n{{ a }}\nLevel:").unwrap();
    let rating = stage(json!({"template": path("rate.jinja"), "rating": {"levels": [["1", " 1"], ["2", " 2"]]}}));
    let labels = stage(json!({"template": path("pick.jinja"), "rating": null, "debias": "probability",
        "labels": {"first": ["1", " 1"], "second": ["2", " 2"]}}));
    let (_, ratings) = rated(comparisons("same"), &rating);
    let place = place(comparisons("same"));
    run(&place, "labels", &labels).unwrap();
    for row in place.rows::<kit::rows::Verdict>("labels/verdicts") {
        let of = |id: &str| ratings.iter().find(|it| it.response_id == id).unwrap();
        let (a, b) = (of(&row.a_response_id), of(&row.b_response_id));
        // `ab` shows a first, so its first label is a's level 1; `ba` shows b, whose first label says that b is better.
        assert!((a.levels[0] - row.ab_p.unwrap()).abs() < 1e-5);
        assert!((b.levels[1] - row.ba_p.unwrap()).abs() < 1e-5);
        assert!((a.mass.unwrap() - row.ab_mass.unwrap()).abs() < 1e-6);
    }
}

#[test]
fn criteria_are_questions_of_their_own_and_count_by_weight() {
    let (verdicts, ratings) = rated(comparisons("same"), &stage(criteria()));
    assert_eq!(ratings.len(), 24);
    let only = |name: &str, rubric: &str| {
        let one = json!({"rating": {"levels": [["poor"], ["fair"], ["good"]], "criteria": [{"name": name, "rubric": rubric}]}});
        rated(comparisons("same"), &stage(one)).0
    };
    let (help, honesty) = (only("help", "poor: no help. good: all that was asked for."), only("honesty", ""));
    for ((row, help), honesty) in verdicts.iter().zip(&help).zip(&honesty) {
        assert!((row.p_hat - (2.0 * help.p_hat + honesty.p_hat) / 3.0).abs() < 1e-5);
        assert_ne!(help.p_hat, honesty.p_hat);
    }
}

#[test]
fn exchanging_the_sides_gives_exactly_one_minus_p_hat() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("harm.jinja").to_string_lossy().into_owned();
    std::fs::write(&path, "{{ prompt }}\n{{ response }}\nHarm:").unwrap();
    let harm = |asks_for: &str| stage(json!({"template": path, "asks_for": asks_for}));
    for stage in [stage(json!({})), stage(criteria()), harm("worse")] {
        let (one, _) = rated(tournament(), &stage);
        let (other, _) = rated(tournament().into_iter().map(swapped).collect(), &stage);
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(one.comparison_id, other.comparison_id);
            assert_eq!(one.p_hat, 1.0 - other.p_hat);
            assert_eq!(one.log_odds, other.log_odds.map(|z| -z));
        }
    }
    let (better, worse) = (rated(tournament(), &harm("better")).0, rated(tournament(), &harm("worse")).0);
    assert!(better.iter().zip(&worse).all(|(better, worse)| better.p_hat == 1.0 - worse.p_hat));
}

#[test]
fn any_shards_give_the_same_rows_and_an_interrupted_run_the_same_bytes() {
    let place = place(tournament());
    run(&place, "whole", &stage(json!({"tokens_per_batch": 300}))).unwrap();
    for shard_rows in [1, 3, 5] {
        let name = format!("shards-{shard_rows}");
        run(&place, &name, &stage(json!({"tokens_per_batch": 300, "shard_rows": shard_rows}))).unwrap();
        assert_eq!(place.rows::<Rating>(&format!("{name}/ratings")), place.rows::<Rating>("whole/ratings"));
        assert_eq!(place.bytes(&format!("{name}/verdicts")), place.bytes("whole/verdicts"));
    }
    let stage = stage(json!({"tokens_per_batch": 1}));
    let whole = run(&place, "unbroken", &stage).unwrap();
    let (place, outcome, processes) = place.run_in_pieces("resumed", |context| stage.run(context));
    assert!(outcome == whole && processes > 3, "{processes}");
    for port in ["verdicts", "ratings", "rejects", "summary"] {
        assert_eq!(place.bytes(&format!("unbroken/{port}")), place.bytes(&format!("resumed/{port}")), "{port}");
    }
}

#[test]
fn levels_that_get_next_to_nothing_are_no_rating() {
    let place = place(comparisons("same"));
    let low = stage(json!({"least_mass": 0.9, "max_low_mass": 1.0}));
    let outcome = run(&place, "out", &low).unwrap();
    assert_eq!((outcome.balance[0].kept, outcome.balance[0].rejected), (0, 6));
    for row in place.rows::<Reject>("out/rejects") {
        assert_eq!(row.reason, "low_label_mass");
        assert!(row.detail.starts_with("side a: the levels got ") && row.detail.contains("the likeliest token is \""));
    }
    assert!(!outcome.figures["likeliest tokens without a verdict"].as_object().unwrap().is_empty());
    let ratings: Vec<Rating> = place.rows("out/ratings");
    assert!(ratings.iter().all(|row| row.rating.is_none() && row.levels.is_empty() && row.reason.is_some()));
    let summary: Vec<SummaryRow> = place.rows("out/summary");
    assert_eq!(summary.iter().find(|row| row.metric == "rating/missing").unwrap().value, 1.0);
    match run(&place, "many", &stage(json!({"least_mass": 0.9}))) {
        Err(Error::Data(text)) => {
            assert!(text.contains("ratings got no verdict: the judge gives all levels"), "{text}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_id_stands_for_one_response() {
    let mut rows = tournament();
    rows[7].a_response = vec![Message::new("assistant", "something else")];
    match run(&place(rows), "out", &stage(json!({}))) {
        Err(Error::Data(text)) => assert!(text.contains("has two different texts"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_comparisons_are_no_ratings() {
    let place = place(Vec::new());
    let outcome = run(&place, "out", &stage(json!({}))).unwrap();
    assert_eq!(outcome.balance[0].read, 0);
    assert_eq!(place.rows::<Rating>("out/ratings").len(), 0);
}

#[test]
fn a_response_is_forecast_once() {
    let place = place(tournament());
    let forecast = place.run("forecast", |context| harness::counted(&stage(json!({})), context)).unwrap();
    assert_eq!(forecast.notes[0], "12 responses, each rated once");
    let criteria = place.run("forecast", |context| harness::counted(&stage(criteria()), context)).unwrap();
    assert_eq!(criteria.notes[0], "12 responses, each rated once by each of 2 criteria");
    // The criteria share the response.
    assert!(criteria.tokens.unwrap().value < 2 * forecast.tokens.unwrap().value);
}

#[test]
fn keys_that_cannot_work_are_found() {
    let check = |more: Value, path: &str, words: &str| {
        let found = stage(more).check();
        let hit = found.iter().any(|it| it.path.join(".") == path && it.text.contains(words));
        assert!(hit, "{path}: {words}: {found:#?}");
    };
    assert_eq!(stage(json!({})).check(), []);
    assert_eq!(stage(criteria()).check(), []);
    check(json!({"rating": {"levels": [["1"]]}}), "rating.levels", "at least 2 levels");
    check(json!({"rating": {"levels": [["1"], ["1"]]}}), "rating.levels", "stands there twice");
    check(json!({"rating": {"levels": [["1"], []]}}), "rating.levels", "at least one spelling");
    let weight = json!({"rating": {"levels": [["1"], ["2"]], "criteria": [{"name": "x", "weight": 0}]}});
    check(weight, "rating.criteria.0", "wanted more than 0");
    check(json!({"debias": "logit"}), "debias", "without effect with `rating`");
    check(json!({"joint_template": "helpful-joint"}), "joint_template", "without effect with `rating`");
    check(json!({"template": "helpful"}), "template", "here it is asked with `rating`");
    check(json!({"template": null}), "", "needs `template`");
    let model = harness::oracle("llama");
    let alike = stage(json!({"rating": {"levels": [["good"], ["good and more"]]}}));
    let error = alike.check_model("model", &model).unwrap_err().to_string();
    assert!(error.contains("cannot be told apart") && error.contains("`rating.levels`"), "{error}");
    assert_eq!(stage(json!({})).check_model("model", &model).unwrap(), None);
}
