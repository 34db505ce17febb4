//! Judges that write before they decide, on a tiny model: sampled answers with a pattern, and a rationale.

use std::collections::BTreeMap;

use harness::Place;
use judge::Judge;
use kit::rows::{Comparison, JudgeAnswer, Reject, SummaryRow, Verdict};
use kit::{Error, Outcome, Result, Stage};
use serde_json::{Value, json};

use crate::material;
use material::{comparisons, swapped};

/// A model of random weights says `e` and `a` often enough.
fn reasoning(more: Value) -> Value {
    let all = json!({"samples": 4, "temperature": 1.0, "max_tokens": 16, "pattern": "(a|e|o)", "take": "first",
        "ties": ["o"], "least_parsed": 0.25});
    harness::with(all, &more)
}

fn reasoner(block: Value, more: Value) -> Judge {
    let all = json!({"comparisons": "data", "model": "models/llama", "template": "helpful-reasoning",
        "debias": "probability", "reasoning": reasoning(block), "labels": {"first": ["a"], "second": ["e"]},
        "max_low_mass": 1.0});
    serde_json::from_value(harness::with(all, &more)).unwrap()
}

fn rationalist(block: Value, more: Value) -> Judge {
    let block = harness::with(json!({"temperature": 0.0, "max_tokens": 12, "ending": "\nThe better one is"}), &block);
    let all = json!({"comparisons": "data", "model": "models/llama", "template": "helpful-rationale",
        "debias": "probability", "rationale": block, "least_mass": 0.0});
    serde_json::from_value(harness::with(all, &more)).unwrap()
}

fn place(rows: Vec<Comparison>) -> Place {
    Place::new().table("comparisons", rows).model("model", "llama")
}

fn run(place: &Place, name: &str, stage: &Judge) -> Result<Outcome> {
    place.stage(name, stage)
}

fn both(rows: Vec<Comparison>, stage: &Judge) -> (Vec<Verdict>, Vec<JudgeAnswer>) {
    let place = place(rows);
    run(&place, "out", stage).unwrap();
    (place.rows("out/verdicts"), place.rows("out/answers"))
}

fn by_order(answers: &[JudgeAnswer]) -> BTreeMap<(String, String), Vec<&JudgeAnswer>> {
    let mut map = BTreeMap::<_, Vec<_>>::new();
    for answer in answers {
        map.entry((answer.comparison_id.clone(), answer.order.clone())).or_default().push(answer);
    }
    map
}

#[test]
fn a_verdict_follows_from_its_answers() {
    let place = place(comparisons("same"));
    let outcome = run(&place, "out", &reasoner(json!({}), json!({}))).unwrap();
    let (verdicts, answers): (Vec<Verdict>, Vec<JudgeAnswer>) = (place.rows("out/verdicts"), place.rows("out/answers"));
    let rejects: Vec<Reject> = place.rows("out/rejects");
    // Answers of comparisons without a verdict are there, too.
    assert_eq!((verdicts.len() + rejects.len(), answers.len()), (6, 6 * 2 * 4));
    assert!(verdicts.len() > 2, "{rejects:?}");
    let map = by_order(&answers);
    for row in &verdicts {
        let p = |order: &str| {
            let of = &map[&(row.comparison_id.clone(), order.to_owned())];
            assert_eq!(of.iter().map(|answer| answer.sample).collect::<Vec<_>>(), [0, 1, 2, 3]);
            let parsed: Vec<f64> = of.iter().filter_map(|answer| answer.p).collect();
            (parsed.iter().sum::<f64>() + 0.5) / (parsed.len() as f64 + 1.0)
        };
        let (ab, ba) = (p("ab"), p("ba"));
        assert!((row.ab_p.unwrap() - ab).abs() < 1e-14 && (row.ba_p.unwrap() - ba).abs() < 1e-14);
        assert!((row.p_hat - (ab + ba) / 2.0).abs() < 1e-14);
        assert!((row.position_gap.unwrap() - (ab - ba)).abs() < 1e-14);
        assert_eq!((row.ab_logp_a, row.ab_mass, row.ba_logp_b), (None, None, None));
        assert_eq!(row.template.as_deref(), Some("helpful-reasoning@1"));
    }
    for answer in &answers {
        let first = answer.text.chars().find(|letter| "aeo".contains(*letter));
        let named = first.map(|letter| ["a", "o", "e"].iter().position(|it| *it == letter.to_string()).unwrap());
        let p = named.map(|place| if answer.order == "ab" { 1.0 - place as f64 / 2.0 } else { place as f64 / 2.0 });
        assert_eq!(answer.p, p, "{answer:?}");
        assert!((1..=16).contains(&answer.tokens.unwrap()));
    }
    let summary: Vec<SummaryRow> = place.rows("out/summary");
    let of = |name: &str| summary.iter().find(|row| row.metric == name).unwrap();
    let count = |keep: fn(&&JudgeAnswer) -> bool| answers.iter().filter(keep).count() as f64 / 48.0;
    assert_eq!(of("answers/parsed").value, count(|answer| answer.p.is_some()));
    assert_eq!(of("answers/truncated").value, count(|answer| answer.finish.as_deref() == Some("length")));
    assert!(of("answers/truncated").value > 0.5 && of("answers/tokens").value > 8.0);
    assert!(outcome.figures.contains_key("answers/parsed"));
}

#[test]
fn exchanging_the_sides_mirrors_the_answers_and_gives_exactly_one_minus_p_hat() {
    for stage in [
        reasoner(json!({}), json!({})),
        rationalist(json!({}), json!({})),
        rationalist(json!({"temperature": 1.0}), json!({"debias": "logit"})),
    ] {
        let (one, one_texts) = both(comparisons("same"), &stage);
        let (other, other_texts) = both(comparisons("same").into_iter().map(swapped).collect(), &stage);
        assert!(one.len() == other.len() && one.len() > 2);
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(one.comparison_id, other.comparison_id);
            assert_eq!(one.p_hat, 1.0 - other.p_hat);
            assert_eq!((one.ab_logp_a, one.ba_logp_b), (other.ba_logp_b, other.ab_logp_a));
        }
        let (one_texts, other_texts) = (by_order(&one_texts), by_order(&other_texts));
        for ((id, order), texts) in &one_texts {
            let turned = if order == "ab" { "ba" } else { "ab" };
            let others = &other_texts[&(id.clone(), turned.to_owned())];
            let said = |texts: &[&JudgeAnswer]| texts.iter().map(|it| it.text.clone()).collect::<Vec<_>>();
            assert_eq!(said(texts), said(others));
        }
    }
}

#[test]
fn any_shards_give_the_same_bytes_and_batches_the_same_texts() {
    for stage in [reasoner, rationalist] {
        let rows = || comparisons("same");
        let all = place(rows());
        run(&all, "whole", &stage(json!({}), json!({"tokens_per_batch": 300}))).unwrap();
        let joined = |place: &Place, name: &str| -> (Vec<Verdict>, Vec<JudgeAnswer>) {
            (place.rows(&format!("{name}/verdicts")), place.rows(&format!("{name}/answers")))
        };
        for shard_rows in [1, 2, 4] {
            let name = format!("shards-{shard_rows}");
            run(&all, &name, &stage(json!({}), json!({"tokens_per_batch": 300, "shard_rows": shard_rows}))).unwrap();
            assert_eq!(joined(&all, &name), joined(&all, "whole"), "{shard_rows}");
        }
        // Batches of another size: the same texts, log-probs but for rounding.
        run(&all, "large", &stage(json!({}), json!({"tokens_per_batch": 100_000}))).unwrap();
        let (some, large) = (joined(&all, "whole"), joined(&all, "large"));
        let texts = |rows: &[JudgeAnswer]| rows.iter().map(|it| it.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&some.1), texts(&large.1));
        for (one, other) in some.0.iter().zip(&large.0) {
            assert!((one.p_hat - other.p_hat).abs() < 1e-4, "{} {}", one.p_hat, other.p_hat);
        }
    }
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bytes() {
    for stage in [reasoner, rationalist] {
        let stage = stage(json!({}), json!({"tokens_per_batch": 1}));
        let place = place(comparisons("same"));
        let whole = run(&place, "whole", &stage).unwrap();
        let (place, outcome, processes) = place.run_in_pieces("resumed", |context| stage.run(context));
        assert!(outcome == whole && processes > 3, "{processes}");
        for port in ["verdicts", "answers", "rejects", "summary"] {
            assert_eq!(place.bytes(&format!("whole/{port}")), place.bytes(&format!("resumed/{port}")), "{port}");
        }
    }
}

#[test]
fn draws_come_from_the_seed_and_one_more_changes_none_of_the_others() {
    let texts = |seed: u64, samples: u64| {
        let place = place(comparisons("same")).seeded(seed);
        run(&place, "out", &reasoner(json!({"samples": samples}), json!({}))).unwrap();
        let rows = place.rows::<JudgeAnswer>("out/answers").into_iter().filter(|answer| answer.sample < 2);
        rows.map(|answer| answer.text).collect::<Vec<_>>()
    };
    assert_eq!(texts(17, 2), texts(17, 3));
    assert_ne!(texts(17, 2), texts(18, 2));
    assert!(reasoner(json!({}), json!({})).draws() && !rationalist(json!({}), json!({})).draws());
}

#[test]
fn answers_without_a_verdict_are_missing_and_too_many_stop_the_stage() {
    let never = json!({"pattern": "(never said)", "samples": 2});
    let place = place(comparisons("same"));
    let outcome = run(&place, "out", &reasoner(never.clone(), json!({}))).unwrap();
    assert_eq!((outcome.balance[0].kept, outcome.balance[0].rejected), (0, 6));
    for row in place.rows::<Reject>("out/rejects") {
        assert_eq!(row.reason, "unparsed");
        assert_eq!(row.detail, "a first: a verdict was found in 0 of 2 answers, `least_parsed: 0.25`");
    }
    assert_eq!(place.rows::<JudgeAnswer>("out/answers").len(), 6 * 2 * 2, "what it said can be read");
    match run(&place, "many", &reasoner(never, json!({"max_low_mass": 0.1}))) {
        Err(Error::Data(text)) => assert!(text.contains("`(never said)` finds one in less than"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_leaves_room_for_its_answer() {
    let place = place(comparisons("same"));
    match run(&place, "out", &reasoner(json!({"max_tokens": 100_000}), json!({}))) {
        Err(Error::Pipeline(text)) => assert!(text.contains("positions for question and answer together"), "{text}"),
        other => panic!("{other:?}"),
    }
    // A limit between the shortest question and the longest.
    let stage = |limit: usize| reasoner(json!({}), json!({"tokens": {"max_tokens": limit}}));
    let count = |limit: usize| {
        let forecast = place.run("forecast", |context| harness::counted(&stage(limit), context)).unwrap();
        forecast.too_long.unwrap().value
    };
    let limit = (200..1000).step_by(20).find(|limit| (1..6).contains(&count(*limit))).unwrap();
    run(&place, "short", &stage(limit)).unwrap();
    let rejects: Vec<Reject> = place.rows("short/rejects");
    assert_eq!(rejects.iter().filter(|row| row.reason == "too_long").count() as u64, count(limit));
}

#[test]
fn the_forecast_counts_what_is_written() {
    let place = place(comparisons("same"));
    let count = |stage: &Judge| place.run("forecast", |context| harness::counted(stage, context)).unwrap();
    let (few, many) = (count(&reasoner(json!({"samples": 2}), json!({}))), count(&reasoner(json!({}), json!({}))));
    assert_eq!(many.tokens.unwrap().value - few.tokens.unwrap().value, 6 * 2 * 2 * 16);
    assert!(many.notes[0].contains("48 texts of at most 16 tokens each"), "{:?}", many.notes);
    let rationale = count(&rationalist(json!({}), json!({})));
    assert!(rationale.notes[0].contains("12 texts of at most 12 tokens each"), "{:?}", rationale.notes);
}

#[test]
fn keys_that_cannot_work_are_found() {
    let check = |stage: &Judge, path: &str, words: &str| {
        let found = stage.check();
        let hit = found.iter().any(|it| it.path.join(".") == path && it.text.contains(words));
        assert!(hit, "{path}: {words}: {found:#?}");
    };
    let of = |block: Value| reasoner(block, json!({}));
    assert_eq!(of(json!({})).check(), []);
    check(&of(json!({"pattern": "(a"})), "reasoning.pattern", "is no regular expression");
    check(&of(json!({"pattern": "a"})), "reasoning.pattern", "captures nothing");
    check(&of(json!({"samples": 0})), "reasoning.samples", "got 0, wanted 1 to");
    check(&of(json!({"temperature": 0.0})), "reasoning.samples", "all answers to a question are equal");
    check(&of(json!({"ties": ["a"]})), "reasoning.ties", "stands for two verdicts");
    check(&of(json!({"least_parsed": 0.0})), "reasoning.least_parsed", "more than 0");
    check(&of(json!({"max_tokens": 0})), "reasoning.max_tokens", "at least 1");
    check(&reasoner(json!({}), json!({"template": "helpful"})), "template", "is for a judge without a mode");
    check(&reasoner(json!({}), json!({"debias": null})), "", "needs `debias`");
    let rationale = rationalist(json!({}), json!({}));
    assert_eq!(rationale.check(), []);
    check(&rationalist(json!({"ending": ""}), json!({})), "rationale.ending", "needs a text");
    check(&rationalist(json!({"top_p": 0.5}), json!({})), "rationale.top_p", "without effect: at temperature 0");
    let endpoint = json!({"model": null, "endpoint": {"url": "http://h/v1", "model": "m"}});
    check(&rationalist(json!({}), endpoint), "rationale", "needs `model`");
    let two = json!({"rationale": {"temperature": 0.0, "max_tokens": 2, "ending": "x"}});
    check(&reasoner(json!({}), two), "rationale", "there is a `reasoning` too");
    let alike = rationalist(json!({}), json!({"labels": {"first": ["A"], "second": ["AB"]}}));
    let error = alike.check_model("model", &harness::oracle("llama")).unwrap_err().to_string();
    assert!(error.contains("cannot be told apart"), "{error}");
}
