//! Judges in a GGUF file.

use harness::Place;
use judge::Judge;
use kit::Stage;
use kit::rows::{Rating, Reject, ScoredVerdict};
use serde_json::{Value, json};

use crate::material;

/// A GGUF file of the oracles' Llama beside its tokenizer.
fn judge() -> (tempfile::TempDir, Place) {
    let folder = tempfile::tempdir().unwrap();
    let model = harness::oracle("llama");
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(model.join(name), folder.path().join(name)).unwrap();
    }
    let file = folder.path().join("judge.gguf");
    harness::gguf::write_q8(&model, "llama", &file);
    let place = Place::new().table("comparisons", material::comparisons("same")).model("model", &file);
    (folder, place)
}

fn stage(more: Value) -> Judge {
    let all = json!({"comparisons": "data", "model": "models/judge.gguf", "template": "helpful", "max_low_mass": 1.0});
    serde_json::from_value(harness::with(all, &more)).unwrap()
}

#[test]
fn labels_that_get_too_little_are_said_with_the_token_that_comes_instead() {
    let (_folder, place) = judge();
    let outcome = place.stage("out", &stage(json!({"debias": "probability", "least_mass": 0.9}))).unwrap();
    assert_eq!(outcome.balance[0].rejected, 6);
    for row in place.rows::<Reject>("out/rejects") {
        assert!(row.detail.contains("the likeliest token is \""), "{}", row.detail);
    }
}

#[test]
fn responses_are_rated_nearly_as_by_the_model() {
    let levels = json!({"levels": [["1", " 1"], ["2", " 2"], ["3", " 3"]]});
    let rating = stage(json!({"template": "helpful-rating", "rating": levels, "least_mass": 0.0}));
    let (_folder, place) = judge();
    place.stage("eight", &rating).unwrap();
    let whole = Place::new().table("comparisons", material::comparisons("same")).model("model", "llama");
    whole.stage("whole", &rating).unwrap();
    let (eight, whole_rows) = (place.rows::<Rating>("eight/ratings"), whole.rows::<Rating>("whole/ratings"));
    assert_eq!(eight.len(), 12);
    for (eight, whole) in eight.iter().zip(&whole_rows) {
        assert!((eight.rating.unwrap() - whole.rating.unwrap()).abs() < 0.05, "{eight:?} {whole:?}");
    }
    assert_eq!(place.rows::<ScoredVerdict>("eight/verdicts").len(), 6);
}

#[test]
fn a_judge_that_writes_takes_a_gguf_file_too() {
    let takes = |stage: &Judge| stage.inputs().iter().find(|port| port.key == "model").unwrap().gguf;
    let rationale = json!({"rationale": {"temperature": 0.0, "max_tokens": 9, "ending": "\nAnswer:"}});
    assert!(takes(&stage(json!({}))) && takes(&stage(rationale)));
}
