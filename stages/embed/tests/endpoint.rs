//! Embedding through an endpoint on the loopback interface.

use embed::{Embed, KIND};
use harness::Place;
use harness::server::{Server, Treatment};
use kit::rows::{Embedding, Message, Prompt, Reject};
use kit::{Error, Outcome, Result, Stage};
use serde_json::{Value, json};

fn stage(url: &str, endpoint: Value, more: Value) -> Embed {
    let settings = json!({"url": url, "model": "stub", "timeout_seconds": 5.0, "retries": 1, "backoff_seconds": 0.002});
    let all = json!({"from": "data", "endpoint": harness::with(settings, &endpoint), "texts_per_request": 4});
    let stage: Embed = serde_json::from_value(harness::with(all, &more)).unwrap();
    assert_eq!(stage.check(), []);
    stage
}

fn place(count: usize) -> Place {
    let prompt = |number: usize| Prompt {
        prompt_id: format!("p{number:02}"),
        messages: vec![Message::new("user", format!("text {number}"))],
        source_file: None,
        source_line: None,
    };
    Place::new().table("from", (0..count).map(prompt).collect())
}

fn number(text: &str) -> f64 {
    text.split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(1.0)
}

fn texts(body: &Value) -> Vec<String> {
    body["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Vectors of length 3, in the wrong order.
fn reply(body: &Value, vector: impl Fn(&str) -> Value) -> Treatment {
    let entry =
        |(index, text): (usize, &String)| json!({"object": "embedding", "index": index, "embedding": vector(text)});
    let mut data: Vec<Value> = texts(body).iter().enumerate().map(entry).collect();
    data.reverse();
    let tokens = 5 * data.len();
    Treatment::Reply(
        json!({"object": "list", "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}),
    )
}

fn honest(body: &Value) -> Treatment {
    reply(body, |text| json!([number(text), 1.0, 2.0]))
}

fn run(place: &Place, name: &str, stage: &Embed) -> Result<Outcome> {
    place.stage(name, stage)
}

#[test]
fn texts_go_in_batches_and_come_back_as_unit_vectors() {
    let server = Server::start_reading(|_, body| honest(body));
    let place = place(10);
    let priced = stage(&server.url, json!({"price": {"input": 20.0}}), json!({}));
    let outcome = run(&place, "out", &priced).unwrap();
    assert_eq!((server.asked().len(), server.probes().len()), (3, 1));
    assert!(server.asked().iter().all(|asked| asked.path == "/v1/embeddings"));
    for (number, row) in place.rows::<Embedding>("out/embeddings").iter().enumerate() {
        assert_eq!(row.prompt_id, format!("p{number:02}"));
        let length = ((number * number) as f64 + 5.0).sqrt();
        let expected = [number as f64 / length, 1.0 / length, 2.0 / length];
        assert!(row.embedding.iter().zip(expected).all(|(got, wanted)| (f64::from(*got) - wanted).abs() < 1e-6));
    }
    // 10 texts of 5 tokens, at 20 a million.
    assert_eq!((&outcome.figures["tokens sent"], &outcome.figures["cost"]), (&json!(50), &json!("0.0010 USD")));
    // Another number of texts in a request is the same question.
    run(&place, "out", &stage(&server.url, json!({}), json!({"texts_per_request": 7}))).unwrap();
    assert_eq!(server.asked().len(), 3);
}

#[test]
fn vectors_that_cannot_be_right_stop_the_stage_with_their_prompt() {
    type Fault = fn(&Value) -> Treatment;
    let faults: [(Fault, &str); 4] = [
        (
            |body| reply(body, |text| if number(text) == 6.0 { json!([null, 1, 2]) } else { json!([1, 1, 2]) }),
            "no number for prompt `p06`",
        ),
        (
            |body| reply(body, |text| if number(text) == 6.0 { json!([1, 2]) } else { json!([1, 1, 2]) }),
            "length 2 for prompt `p06`",
        ),
        (
            |body| match texts(body).len() {
                4 => honest(&json!({"input": ["text 0"]})),
                _ => honest(body),
            },
            "gave 1 vectors for 4 texts",
        ),
        (|body| reply(body, |_| json!("AACAPw==")), "no list of numbers"),
    ];
    for (fault, words) in faults {
        let server = Server::start_reading(move |_, body| fault(body));
        match run(&place(8), "out", &stage(&server.url, json!({"concurrency": 1}), json!({}))) {
            Err(Error::Data(text)) => assert!(text.contains(words) && text.contains("/v1/embeddings"), "{text}"),
            other => panic!("{words}: {other:?}"),
        }
    }
    let server = Server::start_reading(|_, body| honest(body));
    match run(&place(8), "out", &stage(&server.url, json!({}), json!({"dimensions": 256}))) {
        Err(Error::Data(text)) => {
            assert!(text.contains("length 3") && text.contains("`dimensions` says 256"), "{text}")
        }
        other => panic!("{other:?}"),
    }
    assert!(server.asked().is_empty(), "the probe finds it");
    // A server that knows no dimensions says so.
    let server = Server::start_reading(|_, body| match body.get("dimensions") {
        Some(_) => {
            Treatment::Status(400, json!({"error": {"message": "does not support matryoshka"}}).to_string(), None)
        }
        None => honest(body),
    });
    match run(&place(8), "out", &stage(&server.url, json!({}), json!({"dimensions": 3}))) {
        Err(Error::Pipeline(text)) => {
            assert!(text.contains("`dimensions: 3`") && text.contains("matryoshka"), "{text}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_text_that_is_refused_is_found_among_the_others_and_rejected() {
    let server = Server::start_reading(|_, body| match texts(body).iter().any(|text| number(text) == 5.0) {
        true => Treatment::Status(400, json!({"error": {"message": "8193 tokens, at most 8192"}}).to_string(), None),
        false => honest(body),
    });
    let place = place(8);
    let outcome = run(&place, "out", &stage(&server.url, json!({"max_rejects": 0.2}), json!({}))).unwrap();
    let rejects: Vec<Reject> = place.rows("out/rejects");
    assert_eq!(
        (rejects.len(), rejects[0].row_id.as_str(), rejects[0].reason.as_str()),
        (1, "p05", "refused_by_endpoint")
    );
    assert!(rejects[0].detail.contains("8193 tokens"));
    assert_eq!((outcome.balance[1].read, outcome.balance[1].kept), (8, 7));
    assert_eq!(place.rows::<Embedding>("out/embeddings").len(), 7);
}

#[test]
fn an_endpoint_that_is_away_is_returned_to_and_no_vector_is_paid_for_twice() {
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = down.clone();
    let server = Server::start_reading(move |_, body| {
        let late = texts(body).iter().any(|text| number(text) >= 4.0);
        if late && is_down.load(std::sync::atomic::Ordering::SeqCst) { Treatment::Reset } else { honest(body) }
    });
    let place = place(12);
    let stage = stage(&server.url, json!({}), json!({"shard_rows": 4}));
    assert!(matches!(run(&place, "out", &stage), Err(Error::Unreachable(_))));
    assert_eq!(server.billed().len(), 1);
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    run(&place, "out", &stage).unwrap();
    run(&place, "whole", &stage).unwrap();
    assert_eq!(place.bytes("out/embeddings"), place.bytes("whole/embeddings"));
    let first = server.asked().iter().filter(|asked| asked.billed && asked.question.contains("text 0")).count();
    assert_eq!(first, 2, "once by either run");
}

#[test]
fn vectors_come_from_a_batch_as_they_come_live() {
    let server = Server::start_reading(|_, body| honest(body));
    let place = place(7);
    let folder = place.folder.path().join("batch");
    let batched = stage(&server.url, json!({"batch": folder}), json!({"texts_per_request": 3}));
    let written = |name: &str| -> Vec<Value> {
        let stopped = run(&place, name, &batched);
        let Err(Error::Waiting(told)) = stopped else { panic!("{stopped:?}") };
        let mut requests = Vec::new();
        for entry in std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if told.contains(&entry.display().to_string()) {
                let text = std::fs::read_to_string(entry).unwrap();
                requests.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
            }
        }
        requests
    };
    let requests = written("out");
    assert_eq!(requests.iter().map(|line| texts(&line["body"]).len()).collect::<Vec<_>>(), [3, 3, 1]);
    for line in &requests {
        assert_eq!((&line["method"], &line["url"]), (&json!("POST"), &json!("/v1/embeddings")));
        assert_eq!(line["body"]["model"], "stub");
    }
    let answer = |line: &Value| {
        let Treatment::Reply(body) = honest(&line["body"]) else { panic!("it is honest") };
        json!({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": null})
    };
    let refused = |line: &Value| {
        let body = json!({"error": {"message": "a text is too long"}});
        json!({"custom_id": line["custom_id"], "response": {"status_code": 400, "body": body}, "error": null})
    };
    // The last first, none of the second; the first is refused as a whole, so its texts are asked about one by one.
    std::fs::write(folder.join("a.jsonl"), format!("{}\n{}\n", answer(&requests[2]), refused(&requests[0]))).unwrap();
    let again = written("out");
    let mut sizes: Vec<usize> = again.iter().map(|line| texts(&line["body"]).len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 1, 3]);
    let text: String = again.iter().rev().map(|line| format!("{}\n", answer(line))).collect();
    std::fs::write(folder.join("b.jsonl"), text).unwrap();
    run(&place, "out", &batched).unwrap();
    run(&place, "live", &stage(&server.url, json!({}), json!({}))).unwrap();
    assert_eq!(place.rows::<Embedding>("out/embeddings"), place.rows::<Embedding>("live/embeddings"));
    // A vector for a text too few is no answer to all of them.
    let mut foreign = answer(&again[0]);
    foreign["custom_id"] = json!("0123456789abcdef01234567");
    std::fs::write(folder.join("c.jsonl"), format!("\n{foreign}\n")).unwrap();
    let stopped = run(&place, "other", &batched);
    assert!(matches!(&stopped, Err(Error::Data(text)) if text.contains("c.jsonl, line 2: ")), "{stopped:?}");
}

#[test]
fn settings_are_checked() {
    let findings = |settings: Value| harness::keys_found(&KIND, &harness::with(json!({"from": "data"}), &settings));
    assert_eq!(findings(json!({})), [""]);
    assert_eq!(
        findings(json!({"model": "m/x", "dimensions": 3, "texts_per_request": 9})),
        ["dimensions", "texts_per_request"]
    );
    let endpoint = json!({"url": "http://h/v1", "model": "m", "body": {"dimensions": 3}});
    assert_eq!(
        findings(json!({"endpoint": endpoint, "texts_per_request": 0, "dtype": "bf16"})),
        ["texts_per_request", "endpoint.body.dimensions", "dtype"]
    );
    // The value that a key has anyway is as idle as another.
    let endpoint = json!({"url": "http://h/v1", "model": "m", "top_logprobs": 20});
    assert_eq!(findings(json!({"endpoint": endpoint, "dtype": "f32"})), ["dtype", "endpoint.top_logprobs"]);
    assert_eq!(findings(json!({"model": "m/x", "dimensions": null, "texts_per_request": 64})), ["texts_per_request"]);
}
