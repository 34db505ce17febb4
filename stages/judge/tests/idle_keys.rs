//! Keys that a way to a verdict does not read: each is a finding, also with the value that it has anyway.

use judge::KIND;
use serde_json::{Value, json};

/// The keys that are found in a judge's settings.
fn found(settings: Value) -> Vec<String> {
    harness::keys_found(&KIND, &harness::with(json!({"comparisons": "data"}), &settings))
}

fn with(all: &Value, more: Value) -> Vec<String> {
    found(harness::with(all.clone(), &more))
}

const NONE: [&str; 0] = [];

#[test]
fn a_reward_model_is_asked_nothing() {
    let judge = json!({"reward": "models/x"});
    assert_eq!(with(&judge, json!({})), NONE);
    assert_eq!(with(&judge, json!({"tokens": {"max_tokens": 9}, "tokens_per_batch": 64, "dtype": "bf16"})), NONE);
    let labels = json!({"first": ["A"], "second": ["B"]});
    let defaults = json!({"form": "chat", "labels": labels, "least_mass": 0.05, "max_low_mass": 0.1, "orders": "both"});
    assert_eq!(with(&judge, defaults), ["form", "labels", "least_mass", "max_low_mass", "orders"]);
    assert_eq!(with(&judge, json!({"form": "text", "orders": "one"})), ["form", "orders"]);
    assert_eq!(with(&judge, json!({"template": null, "debias": null, "rating": null})), NONE);
}

#[test]
fn a_rating_knows_no_orders() {
    let rating = json!({"levels": [["1"], ["2"]]});
    let judge = json!({"model": "models/x", "template": "helpful-rating", "rating": rating});
    assert_eq!(with(&judge, json!({"least_mass": 0.05, "max_low_mass": 0.1, "form": "chat"})), NONE);
    assert_eq!(with(&judge, json!({"orders": "both"})), ["orders"]);
    let labels = json!({"first": ["x"], "second": ["y"]});
    assert_eq!(with(&judge, json!({"orders": "one", "labels": labels})), ["orders", "labels"]);
}

#[test]
fn reasoning_reads_no_log_probs() {
    let reasoning = json!({"samples": 2, "temperature": 1.0, "max_tokens": 9, "pattern": "(A|B)", "take": "last"});
    let all = json!({"template": "helpful-reasoning", "debias": "logit", "reasoning": reasoning});
    let judge = harness::with(all.clone(), &json!({"model": "models/x"}));
    assert_eq!(with(&judge, json!({"orders": "both", "labels": {"first": ["A"], "second": ["B"]}})), NONE);
    assert_eq!(with(&judge, json!({"least_mass": 0.05})), ["least_mass"]);
    let endpoint = json!({"url": "http://h/v1", "model": "m", "top_logprobs": 20});
    let far = harness::with(all, &json!({"endpoint": endpoint}));
    assert_eq!(with(&far, json!({"dtype": "f32"})), ["endpoint.top_logprobs", "dtype"]);
}

#[test]
fn an_endpoint_makes_the_tokens() {
    let endpoint = json!({"url": "http://h/v1", "model": "m", "top_logprobs": 20});
    let judge = json!({"template": "helpful", "debias": "logit", "endpoint": endpoint});
    assert_eq!(with(&judge, json!({"form": "chat", "least_mass": 0.05, "orders": "both"})), NONE);
    let defaults = json!({"tokens": {"too_long": "reject"}, "tokens_per_batch": 16384, "dtype": "f32"});
    assert_eq!(with(&judge, defaults), ["tokens", "tokens_per_batch", "dtype"]);
}
