//! The stage end to end on a tiny model.

use harness::{Place, pairs};
use kit::rows::{Prompt, Reject, Response};
use kit::{Amount, Outcome, Stage};
use sample::Sample;
use serde_json::{Value, json};

fn stage(settings: Value) -> Sample {
    let all = json!({"from": "data", "model": "models/llama", "k": 3, "temperature": 1.0, "max_tokens": 6});
    serde_json::from_value(harness::with(all, &settings)).unwrap()
}

fn prompts(count: usize, chat: bool) -> Vec<Prompt> {
    let rows = pairs("same", chat).into_iter().take(count);
    rows.map(|row| Prompt {
        prompt_id: row.chosen_prompt_id,
        messages: row.chosen_prompt,
        source_file: row.source_file,
        source_line: row.source_line,
    })
    .collect()
}

fn place(rows: Vec<Prompt>) -> Place {
    Place::new().table("from", rows).model("model", "llama")
}

fn run(place: &Place, name: &str, stage: &Sample) -> Outcome {
    place.stage(name, stage).unwrap()
}

fn sampled(place: &Place, name: &str, stage: &Sample) -> Vec<Response> {
    run(place, name, stage);
    place.rows(&format!("{name}/responses"))
}

fn texts(rows: &[Response]) -> Vec<(String, u32, String)> {
    rows.iter().map(|row| (row.prompt_id.clone(), row.k, row.text.clone())).collect()
}

#[test]
fn every_prompt_gets_its_samples() {
    let place = place(prompts(6, true));
    let outcome = run(&place, "out", &stage(json!({})));
    let rows: Vec<Response> = place.rows("out/responses");
    assert_eq!((outcome.balance[0].read, outcome.balance[1].read), (6, 18));
    assert_eq!(rows.iter().map(|row| u64::from(row.count)).sum::<u64>(), outcome.balance[1].kept);
    for row in &rows {
        assert_eq!((row.messages[0].role.as_str(), &row.messages[0].content), ("assistant", &row.text));
        assert!(row.tokens.unwrap() <= 6 && row.logp.unwrap() < 0.0 && row.score.is_none());
        assert!(matches!(row.finish.as_deref(), Some("eos" | "length")));
    }
    assert!(rows.is_sorted_by_key(|row| (row.prompt_id.clone(), row.k)));
}

#[test]
fn a_prompts_samples_depend_on_nothing_but_itself() {
    let few = sampled(&place(prompts(3, true)), "out", &stage(json!({})));
    let many = place(prompts(8, true));
    let all = sampled(&many, "all", &stage(json!({})));
    let cut = sampled(&many, "cut", &stage(json!({"tokens_per_batch": 60, "shard_rows": 2})));
    assert_eq!(texts(&all), texts(&cut));
    let expected: Vec<_> =
        texts(&all).into_iter().filter(|(id, ..)| few.iter().any(|row| row.prompt_id == *id)).collect();
    assert_eq!(texts(&few), expected);
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bytes() {
    let stage = stage(json!({"shard_rows": 2}));
    let place = place(prompts(7, true));
    let whole = run(&place, "whole", &stage);
    *place.stop_after.lock().unwrap() = Some(2);
    assert!(matches!(place.run("resumed", |context| stage.run(context)), Err(kit::Error::Interrupted)));
    let place = place.restarted();
    assert_eq!(run(&place, "resumed", &stage), whole);
    assert_eq!(place.bytes("whole/responses"), place.bytes("resumed/responses"));
}

#[test]
fn a_stop_within_a_shard_keeps_the_batches_that_were_answered() {
    let stage = stage(json!({"tokens_per_batch": 1}));
    let place = place(prompts(7, true));
    let whole = run(&place, "whole", &stage);
    let (place, outcome, processes) = place.run_in_pieces("resumed", |context| stage.run(context));
    assert_eq!((outcome, processes), (whole, 7), "each process answered one prompt");
    assert_eq!(place.bytes("whole/responses"), place.bytes("resumed/responses"));
}

#[test]
fn greedy_takes_raw_text_too_and_draws_nothing() {
    let greedy = stage(json!({"temperature": 0.0, "k": 1}));
    assert!(!greedy.draws() && stage(json!({})).draws());
    let rows = sampled(&place(prompts(2, false)), "out", &greedy);
    assert!(rows.iter().all(|row| row.messages[0].role == "text" && row.count == 1));
}

#[test]
fn prompts_of_any_table_are_answered_once() {
    let rows = pairs("joint", true);
    let place = Place::new().table("from", rows[..4].to_vec()).model("model", "llama");
    let outcome = run(&place, "out", &stage(json!({"k": 1})));
    // Four joint pairs stand on five prompts.
    assert_eq!((outcome.balance[0].read, outcome.balance[1].read), (4, 5));
}

#[test]
fn prompts_without_room_for_a_response_are_rejected_and_foretold() {
    let place = place(prompts(24, true));
    let stage = stage(json!({"k": 1, "max_tokens": 2, "tokens": {"max_tokens": 40}}));
    let outcome = run(&place, "out", &stage);
    let rejects: Vec<Reject> = place.rows("out/rejects");
    let refused = rejects.iter().filter(|reject| reject.reason == "too_long").count() as u64;
    assert!(refused > 0 && refused < 24);
    assert_eq!(outcome.balance[0].rejected, refused);
    let forecast = place.run("forecast", |context| harness::counted(&stage, context)).unwrap();
    assert_eq!((forecast.too_long, forecast.rows), (Some(Amount::exact(refused)), Amount::at_most(24 - refused)));
    let none = serde_json::from_value::<Sample>(
        json!({"from": "d", "model": "m/l", "k": 1, "temperature": 1.0, "max_tokens": 1024}),
    );
    let error = place.run("none", |context| none.unwrap().run(context)).unwrap_err().to_string();
    assert!(error.contains("1024 positions"), "{error}");
}

#[test]
fn settings_are_checked() {
    let keys =
        |settings| -> Vec<String> { stage(settings).check().iter().map(|finding| finding.path.join(".")).collect() };
    assert_eq!(
        keys(json!({"k": 0, "max_tokens": 0, "temperature": -1.0, "top_p": 1.5})),
        ["k", "max_tokens", "temperature", "top_p"]
    );
    assert_eq!(keys(json!({"temperature": 0.0, "top_k": 5})), ["top_k", "k"]);
    assert_eq!(keys(json!({"k": usize::MAX, "shard_rows": usize::MAX})), ["k"]);
    assert!(
        (sample::KIND.configure)(json!({"from": "a", "model": "m/x", "temperature": 1.0, "max_tokens": 5})).is_err()
    );
}

#[test]
fn the_version_stands_for_the_output() {
    let stage = stage(json!({"top_p": 0.9, "top_k": 50, "stop": ["e"]}));
    let rows = sampled(&place(prompts(4, true)), "out", &stage);
    let lines = rows.iter().map(|row| format!("{} {:?} {} {:?}", row.response_id, row.text, row.k, row.finish));
    harness::check_golden(&stage, lines, "1+lm4", "40dd108d8e23");
}
