//! Requests, headers and settings, and the key in none of what is kept.

use super::*;

#[test]
fn a_model_that_wants_the_newer_name_of_the_limit_is_asked_by_it() {
    let said =
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.";
    let server = Server::start_reading(move |question, body| match body.get("max_tokens") {
        Some(_) => Treatment::Status(400, json!({"error": {"message": said}}).to_string(), None),
        None => honest(question),
    });
    let files = Files::new();
    let place = place(comparisons(30));
    let outcome = run(&place, "out", &files.stage(&server.url, json!({"retries": 0}), json!({}))).unwrap();
    assert_eq!((outcome.balance[0].kept, server.billed().len()), (30, 60));
    let (newer, older): (Vec<_>, Vec<_>) =
        server.asked().into_iter().partition(|asked| asked.body.get("max_completion_tokens") == Some(&json!(1)));
    assert_eq!((newer.len(), older.len(), server.probes().len()), (60, 0, 2), "it is found out once, beforehand");
    // An endpoint that accepts neither name is an error.
    let server = Server::start_reading(move |_, _| {
        Treatment::Status(400, json!({"error": {"message": said}}).to_string(), None)
    });
    match run(&super::place(comparisons(3)), "out", &files.stage(&server.url, json!({}), json!({}))) {
        Err(Error::Pipeline(text)) => {
            assert!(text.contains("does not take a request for one token") && text.contains(said), "{text}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((server.probes().len(), server.asked().len()), (4, 0));
}

#[test]
fn what_an_endpoint_takes_is_settled_beforehand_and_not_by_words_in_a_later_error() {
    // No temperature but its own, and an error about the length of one question that names both limits.
    let long = "max_tokens or max_completion_tokens of 1 does not fit: 4200 input tokens, the context has 4096";
    let server = Server::start_reading(move |question, body| match body.get("temperature") {
        Some(_) => Treatment::Status(400, "temperature 0 is not supported with this model".to_owned(), None),
        None if question == server::PROBE => Treatment::Answer(vec![("I".to_owned(), -0.1)]),
        None if question.contains("a003") => Treatment::Status(400, long.to_owned(), None),
        None if question.contains("a005") => Treatment::Status(403, "flagged by moderation".to_owned(), None),
        None => honest(question),
    });
    let files = Files::new();
    let place = place(comparisons(12));
    run(&place, "out", &files.stage(&server.url, json!({}), json!({}))).unwrap();
    let rejects: Vec<Reject> = place.rows("out/rejects");
    assert_eq!(rejects.len(), 2);
    for (row, words) in rejects.iter().zip([long, "flagged by moderation"]) {
        assert_eq!(row.reason, "refused_by_endpoint");
        assert!(row.detail.contains(words), "{}", row.detail);
    }
    assert_eq!(server.probes().len(), 3);
    assert!(server.asked().iter().all(|asked| asked.body.get("max_tokens") == Some(&json!(1))));
}

#[test]
fn a_query_a_key_header_and_further_headers_reach_the_endpoint() {
    let server = Server::start_reading(|question, _| honest(question));
    let files = Files::new();
    let url = format!("{}/?api-version=2024-10-21&code={KEY}x", server.url);
    let endpoint = json!({"api_key_header": "api-key", "headers": {"X-Project": "judges", "X-Trace": "1"}});
    let place = place(comparisons(4));
    run(&place, "out", &files.stage(&url, endpoint, json!({}))).unwrap();
    for asked in server.asked().iter().chain(&server.probes()) {
        assert_eq!(asked.path, format!("/v1/chat/completions?api-version=2024-10-21&code={KEY}x"));
        assert_eq!((asked.headers["api-key"].as_str(), &asked.authorization), (KEY, &None));
        assert_eq!((asked.headers["x-project"].as_str(), asked.headers["x-trace"].as_str()), ("judges", "1"));
    }
    let stage = files.stage(&url, json!({"body": {"stream": false}}), json!({}));
    let forecast = place.run("forecast", |context| harness::counted(&stage, context)).unwrap();
    assert!(!format!("{forecast:?}").contains(KEY), "{forecast:?}");
    assert_nowhere(&place.folder.path().join("out"), KEY);
}

#[test]
fn a_key_is_not_repeated_however_it_is_written() {
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent: String = KEY.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let escaped: String = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    // `printf 'Bearer %s' KEY | base64`
    let base64 = "QmVhcmVyIHNrLWNhbmFyeS00ZmQxYzBmZmVl";
    for said in [hex, percent, escaped, base64.to_owned(), KEY.to_owned()] {
        for in_json in [true, false] {
            let words = said.clone();
            let body = if in_json {
                format!(r#"{{"error": {{"message": "bad {words}!"}}}}"#)
            } else {
                format!("bad {words}!")
            };
            let server = Server::start(move |question, _, _| match question.contains("a000") {
                true => Treatment::Status(400, body.clone(), None),
                false => honest(question),
            });
            let files = Files::new();
            let place = place(comparisons(2));
            run(&place, "out", &files.stage(&server.url, json!({}), json!({}))).unwrap();
            let rejects: Vec<Reject> = place.rows("out/rejects");
            assert!(rejects[0].detail.ends_with("status 400: bad [the key]!"), "{said}: {}", rejects[0].detail);
        }
    }
}

#[test]
fn a_wrong_key_or_address_stops_at_once_without_showing_the_key() {
    for (status, words) in
        [(401, "the key is not accepted"), (403, "the key"), (404, "ends in `/v1`"), (302, "redirects")]
    {
        let said = json!({"error": {"message": format!("Incorrect API key provided: {KEY}")}}).to_string();
        let server = Server::start_reading(move |_, _| Treatment::Status(status, said.clone(), None));
        let files = Files::new();
        let place = place(comparisons(60));
        match run(&place, "out", &files.stage(&server.url, json!({}), json!({}))) {
            Err(Error::Pipeline(text)) => assert!(text.contains(words) && !text.contains(KEY), "{text}"),
            other => panic!("{other:?}"),
        }
        assert_eq!((server.probes().len(), server.asked().len()), (1, 0));
        assert_nowhere(place.folder.path(), KEY);
    }
}

#[test]
fn settings_are_checked_and_nothing_is_asked_before_the_run() {
    let server = Server::start(|question, _, _| honest(question));
    let files = Files::new();
    let place = place(comparisons(6));
    let stage = files.stage(&server.url, json!({}), json!({}));
    let forecast = place.run("forecast", |context| harness::counted(&stage, context)).unwrap();
    assert_eq!((forecast.rows, forecast.requests), (Amount::exact(6), Some(Amount::at_most(12))));
    assert!(forecast.notes[0].starts_with("requests go to http://127.0.0.1"));
    assert!(server.asked().is_empty());
    let findings = |settings: Value| -> Vec<String> {
        let stage: Judge = serde_json::from_value(settings).unwrap();
        stage.check().iter().map(|finding| format!("{}: {}", finding.path.join("."), finding.text)).collect()
    };
    let with = |endpoint: Value, more: Value| {
        let all = json!({"comparisons": "data", "endpoint": endpoint, "template": "helpful", "debias": "logit"});
        findings(harness::with(all, &more))
    };
    let found = with(
        json!({"url": "http://user:secret@host/v1", "model": "", "api_key_env": "sk-secret", "top_logprobs": 21,
            "concurrency": 0, "max_rejects": 2.0, "body": {"temperature": 1}}),
        json!({"form": "text", "tokens": {"max_tokens": 9}}),
    );
    assert_eq!(found.len(), 8, "{found:#?}");
    assert!(!format!("{found:?}").contains("secret"));
    assert_eq!(with(json!({"url": "localhost:8000", "model": "m"}), json!({})).len(), 1);
    let found = with(json!({"url": "http://h/v1", "model": "m"}), json!({"model": "m/m"}));
    assert_eq!(found, ["endpoint: there is a `model` too; give one of the two judges"]);
    let neither = findings(json!({"comparisons": "data", "template": "helpful", "debias": "logit"}));
    assert_eq!(neither, [": needs `model` (a folder), `endpoint` (a remote judge) or `reward` (a reward model)"]);
    let unset: Judge = serde_json::from_value(json!({
        "comparisons": "data", "template": "helpful", "debias": "logit",
        "endpoint": {"url": server.url, "model": "m", "api_key_env": "HALFTONE_TEST_UNSET"},
    }))
    .unwrap();
    match run(&place, "out", &unset) {
        Err(Error::Pipeline(text)) => {
            assert!(text.contains("`HALFTONE_TEST_UNSET`") && text.contains("not set"), "{text}")
        }
        other => panic!("{other:?}"),
    }
}
