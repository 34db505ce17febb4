//! Sampling through an endpoint on the loopback interface.

use std::collections::BTreeMap;
use std::path::Path;

use harness::Place;
use harness::server::{PROBE, Server, Treatment};
use kit::rows::{Message, Prompt, Reject, Response};
use kit::{Error, Outcome, Result, Stage};
use sample::{KIND, Sample};
use serde_json::{Value, json};

fn stage(url: &str, endpoint: Value, more: Value) -> Sample {
    let settings = json!({"url": url, "model": "stub", "timeout_seconds": 5.0, "retries": 2, "backoff_seconds": 0.002});
    let all = json!({
        "from": "data", "endpoint": harness::with(settings, &endpoint), "k": 3, "temperature": 0.7, "max_tokens": 16,
    });
    let stage: Sample = serde_json::from_value(harness::with(all, &more)).unwrap();
    assert_eq!(stage.check(), []);
    stage
}

fn place(count: usize) -> Place {
    let prompt = |number: usize| Prompt {
        prompt_id: format!("p{number:02}"),
        messages: vec![Message::new("system", "Be brief."), Message::new("user", format!("question {number}"))],
        source_file: None,
        source_line: None,
    };
    Place::new().table("from", (0..count).map(prompt).collect())
}

fn choice(index: usize, text: &str, finish: &str) -> Value {
    json!({"index": index, "message": {"role": "assistant", "content": text}, "finish_reason": finish,
        "logprobs": {"content": [{"token": text, "logprob": -0.5}, {"token": ".", "logprob": -0.25}]}})
}

fn last(body: &Value) -> String {
    let messages = body["messages"].as_array().unwrap();
    messages.last().unwrap()["content"].as_str().unwrap().to_owned()
}

fn completion(choices: Vec<Value>) -> Value {
    let tokens = 2 * choices.len();
    json!({"choices": choices, "usage": {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}})
}

/// As many choices as are asked for; their text says what was asked and with which seed.
fn honest(body: &Value) -> Treatment {
    let count = body.get("n").and_then(Value::as_u64).unwrap_or(1) as usize;
    let text = |index: usize| format!("{} {} {index}", last(body), body["seed"]);
    Treatment::Reply(completion((0..count).map(|index| choice(index, &text(index), "stop")).collect()))
}

fn refuse(said: &str) -> Treatment {
    Treatment::Status(400, json!({"error": {"message": said}}).to_string(), None)
}

fn run(place: &Place, name: &str, stage: &Sample) -> Result<Outcome> {
    place.stage(name, stage)
}

fn rows(place: &Place, name: &str) -> Vec<Response> {
    place.rows(&format!("{name}/responses"))
}

#[test]
fn k_responses_of_a_prompt_are_one_request() {
    let server = Server::start_reading(|_, body| honest(body));
    let place = place(4);
    let outcome = run(&place, "out", &stage(&server.url, json!({}), json!({"top_p": 0.9, "stop": ["\n"]}))).unwrap();
    let responses = rows(&place, "out");
    assert_eq!((responses.len(), server.asked().len(), server.probes().len()), (12, 4, 1));
    assert_eq!((outcome.balance[0].read, outcome.balance[1].kept), (4, 12));
    let body = &server.asked()[0].body;
    assert_eq!(
        (&body["n"], &body["top_p"], &body["stop"], &body["max_tokens"]),
        (&json!(3), &json!(0.9), &json!(["\n"]), &json!(16))
    );
    assert!(body["seed"].as_u64().unwrap() < 1 << 31 && body["messages"][0]["role"] == "system");
    for row in &responses {
        assert_eq!((row.logp, row.tokens, row.finish.as_deref()), (Some(-0.75), Some(2), Some("stop")));
        assert_eq!(row.messages, [Message::new("assistant", row.text.clone())]);
    }
    // Four answers of ten tokens sent and six answered each; the probe is not among them.
    assert_eq!((&outcome.figures["tokens sent"], &outcome.figures["tokens answered"]), (&json!(40), &json!(24)));
    // More draws ask for the new ones alone.
    let _ = run(&place, "out", &stage(&server.url, json!({}), json!({"top_p": 0.9, "stop": ["\n"]}))).unwrap();
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn an_endpoint_without_n_seed_and_logprobs_is_asked_for_one_at_a_time() {
    let server = Server::start_reading(|_, body| {
        for name in ["n", "seed", "logprobs"] {
            if body.get(name).is_some() {
                return refuse(&format!("unknown parameter: {name}"));
            }
        }
        let text = format!("{} {}", last(body), harness_number(body));
        Treatment::Reply(completion(vec![json!({"message": {"content": text}, "finish_reason": "length"})]))
    });
    let place = place(3);
    run(&place, "out", &stage(&server.url, json!({}), json!({}))).unwrap();
    assert_eq!(server.asked().len(), 9);
    let responses = rows(&place, "out");
    assert_eq!(responses.iter().map(|row| row.count).sum::<u32>(), 9);
    for row in responses {
        assert_eq!((row.logp, row.tokens, row.finish.as_deref()), (None, Some(2), Some("length")));
    }
    let warned = format!("{:?}", place.events.lock().unwrap());
    assert!(warned.contains("without `logprobs`, without `seed`, without `n`"), "{warned}");
    // One that ignores `n` is found out too.
    let server =
        Server::start_reading(|_, body| match honest(&json!({"messages": body["messages"], "seed": body["seed"]})) {
            Treatment::Reply(reply) => Treatment::Reply(reply),
            other => other,
        });
    let place = crate::place(2);
    run(&place, "out", &stage(&server.url, json!({}), json!({}))).unwrap();
    assert!(server.asked().iter().all(|asked| asked.body.get("n").is_none()));
    assert_eq!((server.asked().len(), rows(&place, "out").len()), (6, 6));
}

fn harness_number(body: &Value) -> usize {
    body.to_string().len()
}

#[test]
fn a_parameter_that_decides_results_is_not_given_up() {
    let server = Server::start_reading(|_, body| match body.get("top_k") {
        Some(_) => refuse("Unrecognized request argument supplied: top_k"),
        None => honest(body),
    });
    match run(&place(2), "out", &stage(&server.url, json!({}), json!({"top_k": 5}))) {
        Err(Error::Pipeline(text)) => {
            assert!(text.contains("`top_k`") && text.contains("argument supplied: top_k"), "{text}");
            assert_eq!(text.matches("argument supplied").count(), 1, "equal refusals are said once: {text}");
        }
        other => panic!("{other:?}"),
    }
    assert!(server.asked().is_empty(), "no question before the probe is answered");
}

#[test]
fn empty_answers_are_rejected_and_refused_prompts_too() {
    let server = Server::start_reading(|_, body| match last(body).as_str() {
        "question 1" => Treatment::Reply(completion(
            [("", "content_filter"), ("good", "stop"), (" \n", "length")]
                .iter()
                .enumerate()
                .map(|(index, (text, finish))| choice(index, text, finish))
                .collect(),
        )),
        "question 2" => refuse("this model's maximum context length is 4096 tokens"),
        _ => honest(body),
    });
    let place = place(4);
    let outcome = run(&place, "out", &stage(&server.url, json!({"max_rejects": 0.5}), json!({}))).unwrap();
    let rejects: Vec<Reject> = place.rows("out/rejects");
    let seen: Vec<_> = rejects.iter().map(|row| (row.row_id.as_str(), row.reason.as_str())).collect();
    let refused = "refused_by_endpoint";
    assert_eq!(
        seen,
        [
            ("p01#0", "empty_response"),
            ("p01#2", "empty_response"),
            ("p02#0", refused),
            ("p02#1", refused),
            ("p02#2", refused)
        ]
    );
    assert!(rejects[0].detail.ends_with("no text, ended by content_filter"), "{}", rejects[0].detail);
    assert!(rejects[2].detail.contains("maximum context length"));
    assert_eq!((outcome.balance[1].read, outcome.balance[1].kept), (12, 7));
    match run(&place, "strict", &stage(&server.url, json!({"max_rejects": 0.1}), json!({}))) {
        Err(Error::Data(text)) => assert!(text.contains("3 responses got no answer") && text.contains("allows 2")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_server_that_goes_away_is_returned_to_and_no_answer_is_paid_for_twice() {
    let whole = Server::start_reading(|_, body| honest(body));
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = down.clone();
    let server = Server::start_reading(move |question, body| {
        let number: usize = last(body).split(' ').nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
        if question != PROBE && number >= 5 && is_down.load(std::sync::atomic::Ordering::SeqCst) {
            return Treatment::Status(503, "down".to_owned(), None);
        }
        honest(body)
    });
    let place = place(8);
    let of = |url: &str| stage(url, json!({"concurrency": 1}), json!({"shard_rows": 3}));
    match run(&place, "out", &of(&server.url)) {
        Err(Error::Unreachable(text)) => assert!(text.contains("What was answered is kept"), "{text}"),
        other => panic!("{other:?}"),
    }
    let before = server.billed().len();
    assert_eq!(before, 5);
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    let resumed = run(&place, "out", &of(&server.url)).unwrap();
    let mut billed: BTreeMap<String, usize> = BTreeMap::new();
    server
        .asked()
        .iter()
        .filter(|asked| asked.billed)
        .for_each(|asked| *billed.entry(last(&asked.body)).or_default() += 1);
    assert!(billed.len() == 8 && billed.values().all(|times| *times == 1), "{billed:?}");
    // The same rows as without a break; the address is part of the model's name.
    let unbroken = run(&place, "whole", &of(&whole.url)).unwrap();
    assert_eq!(resumed, unbroken);
    let plain = |name: &str| -> Vec<Response> {
        rows(&place, name).into_iter().map(|row| Response { model: None, ..row }).collect()
    };
    assert_eq!(plain("out"), plain("whole"));
}

#[test]
fn a_limit_of_cost_stops_before_it_is_passed_and_a_higher_one_goes_on() {
    let server = Server::start_reading(|_, body| honest(body));
    let place = place(10);
    // 10 tokens sent and 6 answered: 16 millionths a request at these prices, about 150 before it is sent.
    let priced = |most: Value| {
        let price = json!({"input": 1.0, "output": 1.0, "currency": "EUR"});
        stage(&server.url, json!({"price": price, "max_cost": most, "concurrency": 1}), json!({}))
    };
    match run(&place, "out", &priced(json!(2e-4))) {
        Err(Error::Waiting(text)) => {
            assert!(
                text.contains("`max_cost: 0.0002`") && text.contains("EUR") && text.contains("run again"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    }
    let first = server.billed().len();
    assert!(first > 0 && first < 10, "{first}");
    let outcome = run(&place, "out", &priced(json!(1.0))).unwrap();
    assert_eq!(server.billed().len(), 10, "nothing is asked twice");
    assert_eq!(outcome.figures["cost"], json!("0.0002 EUR"));
    let forecast = place.run("forecast", |context| harness::counted(&priced(json!(null)), context)).unwrap();
    assert!(
        forecast.notes.iter().any(|note| note.contains("EUR for") && note.contains("4 characters a token")),
        "{forecast:?}"
    );
}

#[test]
fn a_server_that_counts_no_tokens_is_charged_by_the_forecast() {
    let server = Server::start_reading(|_, body| match honest(body) {
        Treatment::Reply(reply) => Treatment::Reply(json!({"choices": reply["choices"]})),
        other => other,
    });
    let price = json!({"input": 0.0, "output": 1000.0});
    let endpoint = json!({"price": price, "max_cost": 0.2, "concurrency": 1});
    let place = place(10);
    let stopped = run(&place, "out", &stage(&server.url, endpoint, json!({})));
    assert!(matches!(stopped, Err(Error::Waiting(_))), "{stopped:?}");
    // 48 tokens each at a thousandth: the probe and three questions fit.
    assert_eq!(server.billed().len(), 3);
    let warned = format!("{:?}", place.events.lock().unwrap());
    assert!(warned.contains("it states no `usage`"), "{warned}");
}

fn lines(folder: &Path, request: bool) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("requests-") == request {
            let text = std::fs::read_to_string(&path).unwrap();
            all.extend(text.lines().map(|line| (name.clone(), serde_json::from_str(line).unwrap())));
        }
    }
    all
}

#[test]
fn responses_come_from_a_batch_as_they_come_live() {
    let server = Server::start_reading(|_, body| honest(body));
    let place = place(4);
    let folder = place.folder.path().join("batch");
    let batched = stage(&server.url, json!({"batch": folder}), json!({}));
    assert!(matches!(run(&place, "out", &batched), Err(Error::Waiting(_))));
    let requests = lines(&folder, true);
    assert_eq!(requests.len(), 4);
    let answers: String = requests
        .iter()
        .map(|(_, line)| {
            let Treatment::Reply(body) = honest(&line["body"]) else { panic!("it is honest") };
            format!(
                "{}\n",
                json!({"custom_id": line["custom_id"], "response": {"status_code": 200, "body": body}, "error": null})
            )
        })
        .collect();
    std::fs::write(folder.join("answers.jsonl"), answers).unwrap();
    run(&place, "out", &batched).unwrap();
    run(&place, "live", &stage(&server.url, json!({}), json!({}))).unwrap();
    assert_eq!(rows(&place, "out"), rows(&place, "live"));
}

#[test]
fn a_reply_of_another_model_is_a_warning() {
    let server = Server::start_reading(|_, body| {
        let Treatment::Reply(reply) = honest(body) else { panic!("it is honest") };
        Treatment::Reply(harness::with(reply, &json!({"model": "some-other"})))
    });
    let place = place(2);
    run(&place, "out", &stage(&server.url, json!({}), json!({}))).unwrap();
    let warned = format!("{:?}", place.events.lock().unwrap());
    assert!(warned.contains("its reply is of the model `some-other`, asked for `stub`"), "{warned}");
}

/// The line of an answer to a request; vLLM leaves the body of a refused one empty.
fn answered(request: &Value, status: u64, body: &Value, error: &Value) -> String {
    let response = json!({"status_code": status, "request_id": "r", "body": body});
    format!("{}\n", json!({"id": "b", "custom_id": request["custom_id"], "response": response, "error": error}))
}

#[test]
fn a_batch_without_n_and_seed_asks_for_each_response_by_itself() {
    let place = place(2);
    let folder = place.folder.path().join("batch");
    let batched = stage("http://127.0.0.1:9/v1", json!({"batch": folder}), json!({"k": 3}));
    let written = |known: &[Value]| -> Vec<Value> {
        assert!(matches!(run(&place, "out", &batched), Err(Error::Waiting(_))));
        lines(&folder, true).into_iter().map(|(_, line)| line).filter(|line| !known.contains(line)).collect()
    };
    let refuse = |name: &str, requests: &[Value]| {
        let error = json!({"object": "error", "message": "unknown parameter", "code": 400});
        let text: String = requests.iter().map(|line| answered(line, 400, &Value::Null, &error)).collect();
        std::fs::write(folder.join(name), text).unwrap();
    };
    // A form after the other is refused, until one without `n` and without `seed` is taken.
    let mut known = Vec::new();
    let open = loop {
        let new = written(&known);
        let body = &new[0]["body"];
        let bare = body.get("n").is_none() && body.get("seed").is_none();
        if bare && new.len() == 6 {
            break new;
        }
        assert!(known.len() < 200, "no form is left");
        refuse(&format!("errors-{}.jsonl", known.len()), &new);
        known.extend(new);
    };
    let ids: std::collections::BTreeSet<&str> = open.iter().map(|line| line["custom_id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 6, "equal bodies are requests of their own");
    assert_eq!(open[0]["body"], open[1]["body"]);
    // Out of order, one twice, one that failed first and one that its time ran out for.
    let body = |number: usize| completion(vec![choice(0, &format!("answer {number}"), "stop")]);
    let mut text: String = (1..5).rev().map(|at| answered(&open[at], 200, &body(at), &Value::Null)).collect();
    text += &answered(&open[2], 200, &body(2), &Value::Null);
    text += &answered(&open[2], 500, &json!({"error": {"message": "late"}}), &Value::Null);
    let expired = json!({"code": "batch_expired", "message": "the completion window expired"});
    text += &format!("{}\n", json!({"custom_id": open[0]["custom_id"], "response": null, "error": expired}));
    text += &format!("{}\n", json!({"custom_id": open[5]["custom_id"], "response": null, "error": expired}));
    std::fs::write(folder.join("output.jsonl"), text).unwrap();
    known.extend(open.clone());
    let before = lines(&folder, true).len();
    assert!(matches!(run(&place, "out", &batched), Err(Error::Waiting(text)) if text.starts_with("2 requests wait")));
    let warned = format!("{:?}", place.events.lock().unwrap());
    assert!(warned.contains("the completion window expired; 2 requests without an answer are asked again"), "{warned}");
    assert_eq!(lines(&folder, true).len(), before + 2);
    let text: String = [0, 5].iter().map(|at| answered(&open[*at], 200, &body(*at), &Value::Null)).collect();
    std::fs::write(folder.join("output-2.jsonl"), text).unwrap();
    run(&place, "out", &batched).unwrap();
    let responses = rows(&place, "out");
    assert_eq!(responses.iter().map(|row| row.count).sum::<u32>(), 6);
}

#[test]
fn settings_are_checked() {
    let findings = |settings: Value| -> Vec<String> {
        let all = json!({"from": "data", "k": 1, "temperature": 1.0, "max_tokens": 4});
        harness::keys_found(&KIND, &harness::with(all, &settings))
    };
    assert_eq!(findings(json!({})), [""]);
    assert_eq!(findings(json!({"model": "m/x", "endpoint": {"url": "http://h/v1", "model": "m"}})), ["endpoint"]);
    let endpoint = json!({"url": "http://h/v1", "model": "m", "top_logprobs": 3, "body": {"seed": 1}, "max_cost": 1.0});
    assert_eq!(
        findings(json!({"endpoint": endpoint, "dtype": "bf16"})),
        ["endpoint.body.seed", "endpoint.max_cost", "dtype", "endpoint.top_logprobs"]
    );
    // The value that a key has anyway is as idle as another.
    let endpoint = json!({"url": "http://h/v1", "model": "m", "top_logprobs": 20});
    let tokens = json!({"too_long": "reject"});
    assert_eq!(
        findings(json!({"endpoint": endpoint, "tokens": tokens, "tokens_per_batch": 16384})),
        ["tokens", "tokens_per_batch", "endpoint.top_logprobs"]
    );
    let raw = Prompt {
        prompt_id: "raw".to_owned(),
        messages: vec![Message::new("text", "Once")],
        source_file: None,
        source_line: None,
    };
    let server = Server::start_reading(|_, body| honest(body));
    let place = Place::new().table("from", vec![raw]);
    run(&place, "out", &stage(&server.url, json!({}), json!({}))).unwrap();
    let rejects: Vec<Reject> = place.rows("out/rejects");
    assert_eq!((rejects[0].row_id.as_str(), rejects[0].reason.as_str()), ("raw", "raw_text"));
}
