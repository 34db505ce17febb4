//! Ids, duplicates and the hold-out.

use crate::common;

use std::collections::BTreeSet;

use common::{Data, Done};
use kit::Event;
use kit::rows::{Comparison, Pair, Prompt, Reject, Response};
use serde_json::{Value, json};

fn ingest(rows: &[Value], more: Value) -> Result<Done, String> {
    let text: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    Data::of("a.jsonl", text).run(&["a.jsonl"], more)
}

fn row(prompt: &str, chosen: &str, rejected: &str) -> Value {
    json!({"prompt": prompt, "chosen": chosen, "rejected": rejected})
}

#[test]
fn one_id_with_two_texts_is_an_error_that_names_both_lines() {
    let rows = [
        json!({"prompt_id": "p", "prompt": "one", "chosen": "a", "rejected": "b"}),
        json!({"prompt_id": "p", "prompt": "two", "chosen": "a", "rejected": "b"}),
        json!({"prompt_id": "q", "prompt": "two", "chosen": "a", "rejected": "b"}),
    ];
    let error = ingest(&rows, json!({})).err().unwrap();
    let named = error.lines().nth(1).unwrap();
    assert!(named.starts_with("  a.jsonl:2: id_conflict: prompt id `p` stands for another text at "), "{error}");
    assert!(named.ends_with("a.jsonl:1"), "{error}");
    let done = ingest(&rows, json!({"on_bad_row": "reject"})).unwrap();
    assert_eq!(done.rejects(), [(2, "id_conflict".to_owned())]);
}

#[test]
fn row_and_response_ids_stand_for_one_thing_too() {
    let rows = [
        json!({"id": 1, "prompt": "p", "chosen": "a", "rejected": "b", "chosen_response_id": "r"}),
        json!({"id": 1, "prompt": "p", "chosen": "c", "rejected": "d", "chosen_response_id": "s"}),
        json!({"id": 2, "prompt": "p", "chosen": "e", "rejected": "f", "chosen_response_id": "r"}),
    ];
    let error = ingest(&rows, json!({})).err().unwrap();
    assert!(error.contains("a.jsonl:2: id_conflict: row id `1` stands for another text at "), "{error}");
    assert!(error.contains("if rows may share it, leave it out: `columns: {id: null}`"), "{error}");
    assert!(error.contains("a.jsonl:3: id_conflict: response id `r` stands for another text at "), "{error}");
    let both = json!({"chosen_prompt": "p", "chosen_prompt_id": "x", "chosen": "a",
        "rejected_prompt": "q", "rejected_prompt_id": "x", "rejected": "b"});
    let error = ingest(&[both], json!({})).err().unwrap();
    assert!(error.contains("id_conflict: both sides have one id and different texts"), "{error}");
}

#[test]
fn duplicates_are_set_aside_and_never_averaged() {
    let soft = |row: Value, p: f64| {
        let mut row = row;
        row["p_hat"] = p.into();
        row
    };
    let rows = [
        soft(row("p", "a", "b"), 0.9),
        soft(row("p", "a", "b"), 0.9),
        soft(row("p", "a", "b"), 0.7),
        soft(row("p", "b", "a"), 0.9),
        soft(row("p", "a", "a"), 0.9),
        soft(row("q", "a", "b"), 0.9),
        soft(row("p", "b", "a"), 1.0 - 0.9),
        soft(row("q", "a", ""), 0.9),
    ];
    let done = ingest(&rows, json!({})).unwrap();
    let reasons = [(2, "duplicate"), (3, "conflicting_label"), (4, "conflicting_label"), (5, "identical")];
    let reasons = [&reasons[..], &[(7, "reversed_duplicate"), (8, "empty")]].concat();
    let owned = |(line, reason): &(u64, &str)| (*line, (*reason).to_owned());
    assert_eq!(done.rejects(), reasons.iter().map(owned).collect::<Vec<_>>());
    assert_eq!(done.balance(), [8, 2, 6]);
    for reject in &done.rows::<Reject>("rejects")[..3] {
        assert!(reject.detail.contains("a.jsonl:1"), "{}", reject.detail);
    }
}

#[test]
fn many_pairs_of_one_prompt_all_stay() {
    let responses = ["a", "b", "c", "d"];
    let mut rows = Vec::new();
    for (i, a) in responses.iter().enumerate() {
        rows.extend(responses[i + 1..].iter().map(|b| row("p", a, b)));
    }
    let done = ingest(&rows, json!({})).unwrap();
    assert_eq!(done.rows::<Comparison>("comparisons").len(), 6);
    assert_eq!(done.rows::<Prompt>("prompts").len(), 1);
    let responses: Vec<_> = done.rows::<Response>("responses").iter().map(|r| (r.k, r.count)).collect();
    assert_eq!(responses, [(0, 1), (1, 1), (2, 1), (3, 1)]);
}

#[test]
fn a_prompt_falls_to_one_side_whatever_the_order() {
    let mut rows: Vec<Value> =
        (0..400).map(|i| row(&format!("p{}", i % 200), &format!("a{i}"), &format!("b{i}"))).collect();
    let done = ingest(&rows, json!({"holdout": 0.25})).unwrap();
    let prompts = |done: &Done, port: &str| -> BTreeSet<String> {
        done.rows::<Pair>(port).into_iter().map(|pair| pair.chosen_prompt_id).collect()
    };
    let (kept, held) = (prompts(&done, "pairs"), prompts(&done, "holdout_pairs"));
    assert!(kept.is_disjoint(&held));
    assert_eq!(kept.len() + held.len(), 200);
    assert!((30..=70).contains(&held.len()), "{} of 200 prompts are held out", held.len());
    assert_eq!(done.rows::<Prompt>("holdout_prompts").len(), held.len());
    assert_eq!(done.rows::<Response>("holdout_responses").len(), held.len() * 4);
    rows.reverse();
    let again = ingest(&rows, json!({"holdout": 0.25})).unwrap();
    assert_eq!(prompts(&again, "holdout_pairs"), held);
    // A smaller share is part of a larger one.
    let less = ingest(&rows, json!({"holdout": 0.1})).unwrap();
    assert!(prompts(&less, "holdout_pairs").is_subset(&held));
}

#[test]
fn one_prompt_under_several_ids_on_both_sides_is_told() {
    let rows: Vec<Value> =
        (0..40).map(|i| json!({"prompt_id": i, "prompt": "p", "chosen": "a", "rejected": "b"})).collect();
    let done = ingest(&rows, json!({"holdout": 0.5})).unwrap();
    assert!(done.outcome.figures["prompts on both sides of the split"].as_u64().unwrap() > 0);
    let several_ids = |event: &Event| matches!(event, Event::Warned { text } if text.contains("have several ids"));
    assert!(done.events.iter().any(several_ids));
}

#[test]
fn joint_pairs_across_the_split_are_rejected() {
    let joint = |i: usize| {
        json!({"chosen_prompt": format!("p{i}"), "chosen": "a",
            "rejected_prompt": format!("p{}", i + 1), "rejected": "b"})
    };
    let rows: Vec<Value> = (0..200).map(joint).collect();
    let done = ingest(&rows, json!({"holdout": 0.5})).unwrap();
    let (kept, held): (Vec<Pair>, Vec<Pair>) = (done.rows("pairs"), done.rows("holdout_pairs"));
    let prompts = |pairs: &[Pair]| -> BTreeSet<String> {
        pairs.iter().flat_map(|pair| [pair.chosen_prompt_id.clone(), pair.rejected_prompt_id.clone()]).collect()
    };
    assert!(prompts(&kept).is_disjoint(&prompts(&held)));
    let rejects = done.rejects();
    assert!(rejects.iter().all(|(_, reason)| reason == "across_split"));
    assert_eq!(kept.len() + held.len() + rejects.len(), 200);
    assert!((60..=140).contains(&rejects.len()), "{}", rejects.len());
}

#[test]
fn equal_files_make_equal_bytes() {
    let rows: Vec<Value> = (0..300).map(|i| row(&format!("p{i}"), &format!("a{i}"), "b")).collect();
    let text: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    let data = Data::of("a.jsonl", text);
    let digests = || -> Vec<_> {
        let done = data.run(&["a.jsonl"], json!({"holdout": 0.2})).unwrap();
        let port = |name: &str| kit::digest_folder(&done.folder().join(name)).unwrap();
        ["pairs", "holdout_pairs", "comparisons", "responses", "prompts", "rejects"].map(port).into()
    };
    assert_eq!(digests(), digests());
}

#[test]
fn an_id_that_rows_share_can_be_left_out() {
    let rows = [
        json!({"id": "p", "prompt": "p", "chosen": "a", "rejected": "b"}),
        json!({"id": "p", "prompt": "p", "chosen": "a", "rejected": "c"}),
    ];
    for name in ["id", "pair_id"] {
        let done = ingest(&rows, json!({"columns": {name: null}})).unwrap();
        let pairs: Vec<Pair> = done.rows("pairs");
        assert_eq!(pairs.len(), 2);
        assert!(pairs.iter().all(|pair| pair.pair_id.len() == 24), "ids are made");
        assert!(done.outcome.figures["columns"].as_str().unwrap().ends_with("; left out: id"));
    }
}
