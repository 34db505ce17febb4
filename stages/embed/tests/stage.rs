//! The stage end to end, with a tiny decoder as encoder.

use embed::Embed;
use harness::{Place, pairs};
use kit::rows::{Embedding, Message, Prompt, Reject};
use kit::{Outcome, Stage};
use serde_json::{Value, json};

fn stage(settings: Value) -> Embed {
    serde_json::from_value(harness::with(json!({"from": "data", "model": "models/llama"}), &settings)).unwrap()
}

fn prompts() -> Vec<Prompt> {
    let rows = pairs("same", true).into_iter();
    rows.map(|row| Prompt {
        prompt_id: row.chosen_prompt_id,
        messages: row.chosen_prompt,
        source_file: None,
        source_line: None,
    })
    .collect()
}

fn run(place: &Place, name: &str, stage: &Embed) -> Outcome {
    place.stage(name, stage).unwrap()
}

fn embedded(place: &Place, name: &str, stage: &Embed) -> Vec<Embedding> {
    run(place, name, stage);
    place.rows(&format!("{name}/embeddings"))
}

fn cosine(a: &Embedding, b: &Embedding) -> f64 {
    a.embedding.iter().zip(&b.embedding).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[test]
fn embeddings_have_unit_length_and_batches_change_nothing() {
    let place = Place::new().table("from", prompts()).model("model", "llama");
    let all = embedded(&place, "all", &stage(json!({})));
    assert_eq!(all.len(), 24);
    assert!(all.is_sorted_by_key(|row| row.prompt_id.clone()));
    let some = embedded(&place, "some", &stage(json!({"tokens_per_batch": 64, "shard_rows": 5})));
    for (one, other) in all.iter().zip(&some) {
        assert_eq!(one.prompt_id, other.prompt_id);
        assert!((cosine(one, one) - 1.0).abs() < 1e-6);
        assert!((cosine(one, other) - 1.0).abs() < 1e-5);
    }
    assert!(cosine(&all[0], &all[1]) < 0.999_9);
}

#[test]
fn in_bf16_they_are_nearly_the_same() {
    let place = Place::new().table("from", prompts()).model("model", "llama");
    let exact = embedded(&place, "exact", &stage(json!({})));
    let rounded = embedded(&place, "rounded", &stage(json!({"dtype": "bf16"})));
    assert!(exact.iter().zip(&rounded).all(|(one, other)| (cosine(one, other) - 1.0).abs() < 1e-3));
    assert!(exact.iter().zip(&rounded).any(|(one, other)| one.embedding != other.embedding));
}

#[test]
fn the_prompts_of_both_sides_are_embedded_once() {
    let rows = pairs("joint", true)[..5].to_vec();
    let place = Place::new().table("from", rows).model("model", "llama");
    let outcome = run(&place, "out", &stage(json!({})));
    assert_eq!(place.rows::<Embedding>("out/embeddings").len(), 6);
    assert_eq!((outcome.balance[0].read, outcome.balance[0].kept), (5, 5));
}

#[test]
fn the_last_user_message_can_stand_for_the_prompt() {
    let messages = |last: &str| vec![Message::new("system", "Be brief."), Message::new(last, "Where is the sea?")];
    let prompt =
        |id: &str, messages| Prompt { prompt_id: id.to_owned(), messages, source_file: None, source_line: None };
    let alone = vec![Message::new("user", "Where is the sea?")];
    let rows =
        vec![prompt("a", messages("user")), prompt("b", alone), prompt("c", vec![Message::new("assistant", "Hello.")])];
    let place = Place::new().table("from", rows).model("model", "llama");
    let last = embedded(&place, "last", &stage(json!({"text": "last_user"})));
    assert!((cosine(&last[0], &last[1]) - 1.0).abs() < 1e-6);
    let rejects: Vec<Reject> = place.rows("last/rejects");
    assert_eq!((rejects.len(), rejects[0].row_id.as_str(), rejects[0].reason.as_str()), (1, "c", "no_text"));
    let all = embedded(&place, "all", &stage(json!({"text": "all"})));
    assert_eq!(all.len(), 3);
    assert!((cosine(&all[0], &all[1]) - 1.0).abs() > 1e-6);
}

#[test]
fn a_prefix_stands_before_each_text_and_the_folders_default_prompt_otherwise() {
    let row = |text: &str| Prompt {
        prompt_id: "p".to_owned(),
        messages: vec![Message::new("text", text)],
        source_file: None,
        source_line: None,
    };
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(harness::oracle("llama")).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    }
    let settings = json!({"prompts": {"query": "query: "}, "default_prompt_name": "query"});
    std::fs::write(folder.path().join("config_sentence_transformers.json"), settings.to_string()).unwrap();
    let vector = |text: &str, folder: &std::path::Path, settings: Value| {
        let place = Place::new().table("from", vec![row(text)]).model("model", folder);
        embedded(&place, "out", &stage(settings)).remove(0).embedding
    };
    let (bare, with_default) = (harness::oracle("llama"), folder.path());
    let wanted = vector("query: Where is the sea?", &bare, json!({}));
    assert_eq!(vector("Where is the sea?", &bare, json!({"prefix": "query: "})), wanted);
    assert_eq!(vector("Where is the sea?", with_default, json!({})), wanted);
    let plain = vector("Where is the sea?", &bare, json!({}));
    assert_ne!(plain, wanted);
    assert_eq!(vector("Where is the sea?", with_default, json!({"prefix": ""})), plain);
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bytes() {
    let stage = stage(json!({"shard_rows": 7}));
    let place = Place::new().table("from", prompts()).model("model", "llama");
    run(&place, "whole", &stage);
    *place.stop_after.lock().unwrap() = Some(1);
    assert!(matches!(place.run("resumed", |context| stage.run(context)), Err(kit::Error::Interrupted)));
    let place = place.restarted();
    run(&place, "resumed", &stage);
    assert_eq!(place.bytes("whole/embeddings").len(), 4);
    assert_eq!(place.bytes("whole/embeddings"), place.bytes("resumed/embeddings"));
}

#[test]
fn a_stop_within_a_shard_keeps_the_batches_that_were_embedded() {
    let row = |number: usize| Prompt {
        prompt_id: format!("p{number:04}"),
        messages: vec![Message::new("user", format!("Where is {number}?"))],
        source_file: None,
        source_line: None,
    };
    let stage = stage(json!({}));
    // More than two calls of the encoder, in one shard.
    let place = Place::new().table("from", (0..600).map(row).collect()).model("model", "llama");
    run(&place, "whole", &stage);
    let (place, _, processes) = place.run_in_pieces("resumed", |context| stage.run(context));
    assert!(processes > 2, "{processes}");
    assert_eq!(place.bytes("whole/embeddings"), place.bytes("resumed/embeddings"));
}

#[test]
fn the_version_stands_for_the_output() {
    let stage = stage(json!({}));
    let place = Place::new().table("from", prompts()[..6].to_vec()).model("model", "llama");
    let rows = embedded(&place, "out", &stage);
    let lines = rows.iter().map(|row| {
        let alike: Vec<_> = rows.iter().map(|other| format!("{:.2}", cosine(row, other))).collect();
        format!("{} {} {alike:?}", row.prompt_id, row.embedding.len())
    });
    harness::check_golden(&stage, lines, "2+lm4", "3b3cc2faeca1");
}
