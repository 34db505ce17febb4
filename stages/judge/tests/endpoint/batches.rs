//! Questions and answers in the files of a batch.

use std::path::PathBuf;

use super::*;

/// The lines of the request files of a folder, each with its file.
fn requests(folder: &Path) -> Vec<(PathBuf, Value)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("requests-"));
    paths.sort();
    let lines = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        text.lines().map(|line| (path.clone(), serde_json::from_str(line).unwrap())).collect::<Vec<_>>()
    };
    paths.into_iter().flat_map(lines).collect()
}

fn question(request: &Value) -> &str {
    request["body"]["messages"][0]["content"].as_str().unwrap()
}

/// The line of an answer file as OpenAI writes it.
fn answer(request: &Value) -> String {
    let Treatment::Answer(top) = honest(question(request)) else { panic!("it is honest") };
    let body: Value = serde_json::from_str(&server::completion(&top)).unwrap();
    let id = &request["custom_id"];
    format!(
        "{}\n",
        json!({"id": "b1", "custom_id": id, "response": {"status_code": 200, "request_id": "r", "body": body}, "error": null})
    )
}

fn failed(request: &Value, status: u16) -> String {
    let body = json!({"error": {"message": "it did not work", "type": "x"}});
    let id = &request["custom_id"];
    format!(
        "{}\n",
        json!({"id": "b1", "custom_id": id, "response": {"status_code": status, "body": body}, "error": null})
    )
}

fn waits(place: &Place, name: &str, stage: &Judge) -> String {
    match run(place, name, stage) {
        Err(Error::Waiting(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_batch_gives_the_bytes_that_live_requests_give() {
    let server = Server::start(|question, _, _| honest(question));
    let files = Files::new();
    let place = place(comparisons(10));
    let folder = place.folder.path().join("batch");
    // The key is not read: nothing is sent.
    let batch = json!({"batch": folder, "api_key_file": "/nowhere"});
    let stage = files.stage(&server.url, batch, json!({"shard_rows": 4}));
    let text = waits(&place, "out", &stage);
    let written = requests(&folder);
    assert_eq!(written.len(), 20, "one file has the questions of all shards");
    assert!(text.starts_with("20 requests wait for answers") && text.contains("under any other name"), "{text}");
    assert!(written.iter().all(|(path, _)| text.contains(&path.display().to_string())), "{text}");
    for (_, line) in &written {
        assert_eq!((&line["method"], &line["url"]), (&json!("POST"), &json!("/v1/chat/completions")));
        assert_eq!((&line["body"]["model"], &line["body"]["max_tokens"]), (&json!("stub"), &json!(1)));
    }
    // Again without an answer: the same files.
    assert_eq!(waits(&place, "out", &stage), text);
    assert_eq!(requests(&folder).len(), 20);
    // Any order, more than one file, one answer late, one torn, one line of something else.
    let mut lines: Vec<&Value> = written.iter().map(|(_, line)| line).collect();
    lines.reverse();
    let whole: String = lines[..12].iter().map(|line| answer(line)).collect();
    std::fs::write(folder.join("output-1.jsonl"), whole).unwrap();
    let mut rest: String = lines[12..17].iter().map(|line| answer(line)).collect();
    rest += "<html>busy</html>\n";
    rest += &answer(lines[17])[..60];
    std::fs::write(folder.join("output-2.jsonl"), rest).unwrap();
    std::fs::write(folder.join("errors.jsonl"), failed(lines[18], 503)).unwrap();
    let text = waits(&place, "out", &stage);
    assert!(text.starts_with("3 requests wait for answers"), "{text}");
    let warned = format!("{:?}", place.events.lock().unwrap());
    assert!(warned.contains("errors.jsonl, line 1: status 503: it did not work; 1 requests without an"), "{warned}");
    assert!(warned.contains("output-2.jsonl: 2 lines are no answers of a batch, the first of them line 6"), "{warned}");
    let missing: Vec<(PathBuf, Value)> =
        requests(&folder).into_iter().filter(|(path, _)| text.contains(&path.display().to_string())).collect();
    let mut asked: Vec<&str> = missing.iter().map(|(_, line)| question(line)).collect();
    let mut wanted: Vec<&str> = lines[17..].iter().map(|line| question(line)).collect();
    asked.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(asked, wanted);
    std::fs::write(folder.join("output-3.jsonl"), missing.iter().map(|(_, line)| answer(line)).collect::<String>())
        .unwrap();
    let outcome = run(&place, "out", &stage).unwrap();
    assert_eq!((outcome.balance[0].kept, server.asked().len()), (10, 0));
    assert_eq!(outcome.figures["tokens sent"], json!(20));
    let live = files.stage(&server.url, json!({}), json!({"shard_rows": 4}));
    assert_eq!(run(&place, "live", &live).unwrap(), outcome);
    assert_eq!(place.bytes("out/verdicts"), place.bytes("live/verdicts"));
}

#[test]
fn between_files_and_live_requests_nothing_is_asked_twice() {
    let server = Server::start(|question, _, _| honest(question));
    let files = Files::new();
    let place = place(comparisons(6));
    let folder = place.folder.path().join("batch");
    let batch = files.stage(&server.url, json!({"batch": folder}), json!({}));
    waits(&place, "out", &batch);
    let written = requests(&folder);
    std::fs::write(folder.join("out.jsonl"), written[..7].iter().map(|(_, line)| answer(line)).collect::<String>())
        .unwrap();
    waits(&place, "out", &batch);
    run(&place, "out", &files.stage(&server.url, json!({}), json!({}))).unwrap();
    let mut asked = server.billed();
    asked.sort();
    let mut wanted: Vec<String> = written[7..].iter().map(|(_, line)| question(line).to_owned()).collect();
    wanted.sort();
    assert_eq!(asked, wanted);
    // The other way: a run that was stopped live goes on in files.
    let server = Server::start(|question, _, _| match question.starts_with("p000") {
        true => honest(question),
        false => Treatment::Status(503, "down".to_owned(), None),
    });
    let live = files.stage(&server.url, json!({"retries": 0}), json!({}));
    assert!(matches!(run(&place, "other", &live), Err(Error::Unreachable(_))));
    let folder = place.folder.path().join("second");
    waits(&place, "other", &files.stage(&server.url, json!({"batch": folder}), json!({})));
    assert_eq!(requests(&folder).len(), 12 - server.billed().len());
    assert!(requests(&folder).iter().all(|(_, line)| !question(line).starts_with("p000")));
}

#[test]
fn answers_that_were_paid_for_serve_other_settings_and_other_work_folders() {
    let files = Files::new();
    let place = place(comparisons(3));
    let folder = place.folder.path().join("batch");
    let of = |debias: &str| files.stage("http://127.0.0.1:9/v1", json!({"batch": folder}), json!({"debias": debias}));
    waits(&place, "out", &of("logit"));
    let written = requests(&folder);
    // Named like a request file, and none.
    let name = written[0].0.file_name().unwrap().to_string_lossy().replace(".jsonl", "-out.jsonl");
    let answers: String = written.iter().map(|(_, line)| answer(line)).collect();
    std::fs::write(folder.join(name), format!("\u{feff}{answers}")).unwrap();
    // The same questions in a stage folder that knows nothing of them, and under another rule for both orders.
    run(&place, "elsewhere", &of("logit")).unwrap();
    run(&place, "other", &of("probability")).unwrap();
    run(&place, "out", &of("logit")).unwrap();
    assert_eq!(place.bytes("out/verdicts"), place.bytes("elsewhere/verdicts"));
    let files = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(files, 3, "requests, answers and the record: nothing was asked again");
    // A record that is damaged costs the answers, not the run.
    std::fs::write(folder.join(".asked.json"), "{").unwrap();
    match run(&place, "damaged", &of("logit")) {
        Err(Error::Data(text)) => assert!(text.contains("no request of this folder"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_of_another_run_are_refused_with_file_and_line() {
    let files = Files::new();
    let place = place(comparisons(3));
    let folder = place.folder.path().join("batch");
    let stage = files.stage("http://127.0.0.1:9/v1", json!({"batch": folder}), json!({}));
    waits(&place, "out", &stage);
    let written = requests(&folder);
    let mut other = written[0].1.clone();
    other["custom_id"] = json!("0123456789abcdef01234567");
    std::fs::write(folder.join("out.jsonl"), answer(&written[1].1) + &answer(&other)).unwrap();
    match run(&place, "out", &stage) {
        Err(Error::Data(text)) => {
            assert!(text.contains("out.jsonl, line 2: ") && text.contains("another run"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_a_batch_refuses_is_rejected_and_a_form_that_is_never_taken_is_left() {
    let files = Files::new();
    let place = place(comparisons(4));
    let folder = place.folder.path().join("batch");
    let stage = files.stage("http://127.0.0.1:9/v1", json!({"batch": folder}), json!({}));
    waits(&place, "out", &stage);
    // All of them: the endpoint takes another form.
    let first = requests(&folder);
    std::fs::write(folder.join("errors-1.jsonl"), first.iter().map(|(_, line)| failed(line, 400)).collect::<String>())
        .unwrap();
    let text = waits(&place, "out", &stage);
    let second: Vec<Value> = requests(&folder)
        .into_iter()
        .filter(|(path, _)| text.contains(&path.display().to_string()))
        .map(|(_, line)| line)
        .collect();
    assert_eq!(second.len(), 8);
    assert!(
        second
            .iter()
            .all(|line| line["body"]["max_completion_tokens"] == 1 && line["body"].get("max_tokens").is_none())
    );
    // One of them: the question is at fault.
    let mut answers: String = second[1..].iter().map(answer).collect();
    answers += &failed(&second[0], 400);
    std::fs::write(folder.join("out-2.jsonl"), answers).unwrap();
    let outcome = run(&place, "out", &stage).unwrap();
    let rejects: Vec<Reject> = place.rows("out/rejects");
    assert_eq!((outcome.balance[0].kept, rejects.len()), (3, 1));
    assert_eq!(rejects[0].reason, "refused_by_endpoint");
    assert!(rejects[0].detail.contains("out-2.jsonl, line 8: status 400: it did not work"), "{}", rejects[0].detail);
}

#[test]
fn a_secret_is_written_into_no_request_file() {
    let secret = "canary-b7c1d4e9a2";
    kit::keep_secret(secret, "${env:CANARY}");
    let files = Files::new();
    let place = place(comparisons(2));
    let folder = place.folder.path().join("batch");
    let endpoint = json!({"batch": folder, "body": {"user": secret}});
    match run(&place, "out", &files.stage("http://127.0.0.1:9/v1", endpoint, json!({}))) {
        Err(Error::Pipeline(text)) => assert!(text.contains("`endpoint.body`") && !text.contains(secret), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_nowhere(place.folder.path(), secret);
}
