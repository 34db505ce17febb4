//! The stage against PyTorch's numbers, and what must not change them.

use std::collections::BTreeMap;

use harness::{Place, lines, oracles, pairs};
use kit::rows::{Item, Message, Pair, ReferenceRow, Reject};
use kit::{Amount, Outcome, Stage};
use reference::Reference;
use serde_json::{Value, json};

fn stage(settings: Value) -> Reference {
    serde_json::from_value(harness::with(json!({"from": "pairs", "model": "models/llama"}), &settings)).unwrap()
}

fn place(rows: Vec<Pair>) -> Place {
    Place::new().table("from", rows).model("model", "llama")
}

fn scored(place: &Place, name: &str, stage: &Reference) -> Vec<ReferenceRow> {
    let outcome = place.run(name, |context| stage.run(context)).unwrap();
    check_balance(place, name, &outcome);
    place.rows(&format!("{name}/reference"))
}

fn check_balance(place: &Place, name: &str, outcome: &Outcome) {
    let balance = &outcome.balance[0];
    assert_eq!(balance.read, balance.kept + balance.rejected);
    assert_eq!(balance.rejected as usize, place.rows::<Reject>(&format!("{name}/rejects")).len());
}

fn by_response(rows: &[ReferenceRow]) -> BTreeMap<&str, &ReferenceRow> {
    rows.iter().map(|row| (row.response_id.as_str(), row)).collect()
}

/// PyTorch's numbers at the tolerance of the oracles' README.
fn check_oracle(form: &str, chat: bool) {
    let rows = pairs(form, chat);
    let place = place(rows.clone());
    let scored = scored(&place, "out", &stage(json!({"prompt_part": true})));
    let scored = by_response(&scored);
    let text = std::fs::read_to_string(oracles().join("llama.json")).unwrap();
    let oracle: Value = serde_json::from_str(&text).unwrap();
    let oracle = &oracle[if form == "joint" { "joint" } else { "pairs" }][if chat { "chat" } else { "text" }];
    for (index, row) in rows.iter().enumerate() {
        for (side, id) in [("chosen", &row.chosen_response_id), ("rejected", &row.rejected_response_id)] {
            let (expected, got) = (&oracle[side][index], scored[id.as_str()]);
            let close = |got: f64, key: &str| (got - expected[key].as_f64().unwrap()).abs() < 1e-3;
            assert!(close(got.logp, "logp"), "{id}: {got:?}, wanted {}", expected["logp"]);
            assert!(
                close(got.prompt_logp.unwrap(), "prompt_logp"),
                "{id}: {got:?}, wanted {}",
                expected["prompt_logp"]
            );
            assert_eq!(got.prompt_tokens as usize, expected["prompt_ids"].as_array().unwrap().len());
            assert_eq!(got.completion_tokens as usize, expected["completion_ids"].as_array().unwrap().len());
            assert_eq!(got.completion_start, got.prompt_tokens);
        }
    }
}

#[test]
fn the_numbers_are_pytorchs() {
    for form in ["same", "joint"] {
        for chat in [true, false] {
            check_oracle(form, chat);
        }
    }
}

#[test]
fn each_distinct_sequence_is_scored_once() {
    // The joint rows consist of the sides of the same-prompt rows.
    let sides = |rows: &[Pair]| {
        rows.iter()
            .flat_map(|row| [row.chosen_response_id.clone(), row.rejected_response_id.clone()])
            .collect::<std::collections::BTreeSet<_>>()
    };
    let (same, joint) = (pairs("same", true), pairs("joint", true));
    let mut expected = sides(&same);
    expected.extend(sides(&joint));
    let rows: Vec<Pair> = same.iter().chain(&joint).chain(&same[..3]).cloned().collect();
    let place = place(rows);
    let rows = scored(&place, "out", &stage(json!({})));
    assert_eq!(rows.len(), expected.len());
    assert!(rows.iter().all(|row| row.prompt_logp.is_none()));
    assert!(rows.is_sorted_by_key(|row| (row.prompt_id.clone(), row.response_id.clone())));
}

#[test]
fn shards_and_budgets_change_nothing() {
    let place = place(pairs("same", true));
    let all = scored(&place, "all", &stage(json!({"prompt_part": true})));
    for (name, budget, shard) in [("a", 40, 5), ("b", 300, 1), ("c", 100_000, 7)] {
        let settings = json!({"prompt_part": true, "tokens_per_batch": budget, "shard_rows": shard});
        let some = scored(&place, name, &stage(settings));
        assert_eq!(all.len(), some.len());
        for (one, other) in all.iter().zip(&some) {
            assert!((one.logp - other.logp).abs() < 2e-4, "{one:?} {other:?}");
            assert!((one.prompt_logp.unwrap() - other.prompt_logp.unwrap()).abs() < 2e-4, "{one:?} {other:?}");
            assert_eq!((&one.response_id, one.completion_start), (&other.response_id, other.completion_start));
        }
    }
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bytes() {
    let stage = stage(json!({"shard_rows": 8}));
    let place = place(pairs("same", true));
    scored(&place, "whole", &stage);
    *place.stop_after.lock().unwrap() = Some(2);
    let stopped = place.run("resumed", |context| stage.run(context));
    assert!(matches!(stopped, Err(kit::Error::Interrupted)));
    assert_eq!(place.bytes("resumed/reference").len(), 2);
    let place = place.restarted();
    scored(&place, "resumed", &stage);
    assert!(place.bytes("whole/reference").len() > 2);
    assert_eq!(place.bytes("whole/reference"), place.bytes("resumed/reference"));
    assert_eq!(place.bytes("whole/rejects"), place.bytes("resumed/rejects"));
}

#[test]
fn a_stop_within_a_shard_keeps_the_batches_that_were_scored() {
    let stage = stage(json!({"tokens_per_batch": 1, "prompt_part": true}));
    let place = place(pairs("same", true)[..5].to_vec());
    scored(&place, "whole", &stage);
    let (place, _, processes) = place.run_in_pieces("resumed", |context| stage.run(context));
    assert!(processes > 2, "{processes}");
    assert_eq!(place.bytes("whole/reference"), place.bytes("resumed/reference"));
}

#[test]
fn rows_that_are_too_long_are_rejected_by_name_and_foretold() {
    let place = place(pairs("same", true));
    let stage = stage(json!({"tokens": {"max_tokens": 90}}));
    let rows = scored(&place, "out", &stage);
    let rejects: Vec<Reject> = place.rows("out/rejects");
    assert!(!rejects.is_empty() && !rows.is_empty());
    assert!(rejects.iter().all(|reject| reject.reason == "too_long" && reject.source_line.is_some()));
    let forecast = place.run("forecast", |context| harness::counted(&stage, context)).unwrap();
    assert_eq!(forecast.too_long, Some(Amount::exact(rejects.len() as u64)));
    assert_eq!(forecast.rows, Amount::exact(24));
    let left: Vec<_> = rows.iter().map(|row| row.completion_start + row.completion_tokens).collect();
    assert!(left.iter().all(|tokens| *tokens <= 90));
    let stopped = place.run("error", |context| {
        serde_json::from_value::<Reference>(
            json!({"from": "pairs", "model": "m/llama", "tokens": {"max_tokens": 90, "too_long": "error"}}),
        )
        .unwrap()
        .run(context)
    });
    assert!(matches!(stopped, Err(kit::Error::Data(text)) if text.contains("pair `same")));
}

#[test]
fn the_mismatched_responses_of_kto_are_scored_under_the_items_prompt() {
    let rows = lines("pairs.jsonl");
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_owned();
    let item = |index: usize| {
        let (row, other) = (&rows[index], &rows[(index + 1) % rows.len()]);
        Item {
            item_id: format!("item{index}"),
            prompt_id: text(row, "prompt_id"),
            response_id: format!("r{index}"),
            prompt: vec![Message::new("user", text(row, "prompt"))],
            response: vec![Message::new("assistant", text(row, "chosen"))],
            label: 1.0,
            weight: 1.0,
            kl_response_id: Some(format!("kl{index}")),
            kl_response: Some(text(other, "chosen")),
            kl_group: Some(0),
            source_file: None,
            source_line: None,
        }
    };
    let place = Place::new().table("from", (0..6).map(item).collect()).model("model", "llama");
    let scored = scored(&place, "out", &stage(json!({})));
    assert_eq!(scored.len(), 12);
    let scored = by_response(&scored);
    // The same text under another prompt has another probability.
    assert_eq!(scored["kl0"].prompt_id, scored["r0"].prompt_id);
    assert!((scored["kl0"].logp - scored["r1"].logp).abs() > 1e-3);
}

#[test]
fn one_id_for_two_texts_is_an_error() {
    let mut rows = pairs("same", true);
    rows[1].chosen_prompt_id = rows[0].chosen_prompt_id.clone();
    rows[1].chosen_response_id = rows[0].chosen_response_id.clone();
    let first = (rows[0].chosen_prompt.clone(), rows[0].chosen.clone());
    // Another text of the same length in tokens cannot hide behind the id.
    rows[1].chosen_prompt = first.0;
    rows[1].chosen = vec![Message::new("assistant", first.1[0].content.replace("Mmm", "mmM"))];
    let result = place(rows).run("out", |context| stage(json!({})).run(context));
    match result {
        Err(kit::Error::Data(text)) => assert!(text.contains("two different texts"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_are_checked() {
    let findings = stage(json!({"tokens_per_batch": 0, "shard_rows": 0, "tokens": {"max_tokens": 0}})).check();
    assert_eq!(findings.len(), 3);
    let unknown = (reference::KIND.configure)(json!({"from": "a", "model": "m/x", "promt_part": true}));
    assert!(unknown.is_err());
}

#[test]
fn the_version_stands_for_the_output() {
    let stage = stage(json!({"prompt_part": true}));
    let place = place(pairs("same", true)[..8].to_vec());
    let rows = scored(&place, "out", &stage);
    let lines = rows.iter().map(|row| {
        let (logp, prompt_logp) = (row.logp, row.prompt_logp.unwrap());
        let sequence = (&row.response_id, row.completion_start, row.completion_tokens);
        format!("{sequence:?} {logp:.0} {prompt_logp:.0}")
    });
    harness::check_golden(&stage, lines, "4+lm4", "f79b0fbd2ab3");
}

/// The system message goes into the last message if that is the user's: before an answer it is nowhere.
const SYSTEM_LAST: &str = "{% if messages[0].role == 'system' %}{% set system = messages[0].content %}\
                           {% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}\
                           {% for m in rest %}{% if m.role == 'user' %}q: {% if loop.last and system is defined %}{{ system }} \
                           {% endif %}{{ m.content }} ?{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";

#[test]
fn a_prompt_that_is_another_before_an_answer_stops_the_stage() {
    let model = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(oracles().join("llama")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), model.path().join(file.file_name())).unwrap();
    }
    std::fs::write(model.path().join("chat_template.jinja"), SYSTEM_LAST).unwrap();
    let mut rows = pairs("same", true);
    rows.truncate(6);
    for row in &mut rows[..4] {
        let system = Message::new("system", "answer in few words");
        row.chosen_prompt.insert(0, system.clone());
        row.rejected_prompt.insert(0, system);
        let id = format!("{} under a system", row.chosen_prompt_id);
        (row.chosen_prompt_id, row.rejected_prompt_id) = (id.clone(), id);
    }
    let place = Place::new().table("from", rows.clone()).model("model", model.path());
    let with = |rule: &str| stage(json!({"tokens": {"on_prefix_mismatch": rule}}));
    let error = place.run("stop", |context| stage(json!({})).run(context)).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, kit::Error::Data(_)) && text.starts_with("4 of 6 rows cannot be scored"), "{text}");
    assert!(text.contains("on_prefix_mismatch: append"), "{text}");
    let forecast = place.run("forecast", |context| harness::counted(&stage(json!({})), context)).unwrap();
    assert!(forecast.notes.iter().any(|note| note.starts_with("4 rows whose prompt")), "{:?}", forecast.notes);
    let shown = place.run("render", |context| stage(json!({})).render(context, 5)).unwrap();
    assert!(shown[0].warnings[0].starts_with("the run will stop here: the chat template"), "{:?}", shown[0]);
    assert!(shown[4].warnings.is_empty(), "{:?}", shown[4]);

    let outcome = place.run("append", |context| with("append").run(context)).unwrap();
    assert_eq!(outcome.figures["prompt is written otherwise before an answer"], 8);
    let appended: Vec<ReferenceRow> = place.rows("append/reference");
    let kept = place.run("keep", |context| with("keep").run(context)).unwrap();
    assert_eq!(kept.figures["prompt is written otherwise before an answer"], 8);
    let kept: Vec<ReferenceRow> = place.rows("keep/reference");
    for (appended, kept) in appended.iter().zip(&kept).filter(|(row, _)| row.prompt_id.ends_with("a system")) {
        assert!(appended.completion_tokens < kept.completion_tokens, "{appended:?} {kept:?}");
        assert!(appended.completion_start > kept.completion_start);
    }
    let shown = place.run("render", |context| with("append").render(context, 1)).unwrap();
    let before: String = shown[0].pieces.iter().filter(|piece| !piece.scored).map(|piece| &*piece.text).collect();
    assert!(before.starts_with("q: answer in few words "), "{:?}", shown[0]);
    assert!(shown[0].warnings[0].contains("in another way when an answer follows"), "{:?}", shown[0]);
    let rejected = place.run("reject", |context| with("reject").run(context)).unwrap();
    assert_eq!((rejected.balance[0].kept, rejected.balance[0].rejected), (2, 4));
}
