//! Judging through an endpoint that fails in every way it can.

#[path = "../../../tests/harness/mod.rs"]
mod harness;
#[path = "../../../tests/harness/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::Place;
use judge::Judge;
use kit::rows::{Comparison, Message, Reject, SummaryRow, Verdict};
use kit::{Amount, Digest, Error, Event, Outcome, Result, Stage};
use serde_json::{Value, json};
use server::{Server, Treatment};

const KEY: &str = "sk-canary-4fd1c0ffee";

/// The sides of a question are told apart by their text.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> Files {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("sides.jinja"), "{{ prompt }}|{{ a }}|{{ b }}").unwrap();
        std::fs::write(folder.path().join("key"), format!("{KEY}\n")).unwrap();
        Files { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn stage(&self, url: &str, endpoint: Value, more: Value) -> Judge {
        let mut settings = json!({
            "url": url, "model": "stub", "api_key_file": self.path("key"), "concurrency": 4, "timeout_seconds": 0.5,
            "retries": 8, "backoff_seconds": 0.002, "max_rejects": 1.0,
        });
        settings.as_object_mut().unwrap().extend(endpoint.as_object().unwrap().clone());
        let mut all = json!({
            "comparisons": "data", "endpoint": settings, "template": self.path("sides.jinja"), "debias": "logit",
            "max_low_mass": 1.0,
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let stage: Judge = serde_json::from_value(all).unwrap();
        assert_eq!(stage.check(), []);
        stage
    }
}

fn comparisons(count: usize) -> Vec<Comparison> {
    let row = |number: usize| {
        let prompt = format!("p{:03}", number / 2);
        let (a, b) = (format!("a{number:03}"), format!("b{number:03}"));
        Comparison {
            comparison_id: kit::ids::comparison_id((&prompt, &a), (&prompt, &b)),
            form: "same".to_owned(),
            a_prompt_id: prompt.clone(),
            a_response_id: a.clone(),
            a_prompt: vec![Message::new("user", &prompt)],
            a_response: vec![Message::new("assistant", a + &".".repeat(number % 7))],
            b_prompt_id: prompt.clone(),
            b_response_id: b.clone(),
            b_prompt: vec![Message::new("user", &prompt)],
            b_response: vec![Message::new("assistant", b + &".".repeat(number % 5))],
            source_file: Some("data.jsonl".to_owned()),
            source_line: Some(number as u64 + 1),
        }
    };
    (0..count).map(row).collect()
}

fn place(rows: Vec<Comparison>) -> Place {
    Place::new().table("comparisons", rows)
}

fn run(place: &Place, name: &str, stage: &Judge) -> Result<Outcome> {
    let outcome = place.run(name, |context| stage.run(context))?;
    let balance = &outcome.balance[0];
    assert_eq!(balance.read, balance.kept + balance.rejected);
    assert_eq!(balance.rejected as usize, place.rows::<Reject>(&format!("{name}/rejects")).len());
    assert_eq!(balance.kept as usize, place.rows::<Verdict>(&format!("{name}/verdicts")).len());
    Ok(outcome)
}

/// A number in [0, 1) that depends on the words only.
fn draw(words: &[&str]) -> f64 {
    let digest = Digest::of(words.join("\n").as_bytes());
    f64::from(u32::from_le_bytes(digest.bytes()[..4].try_into().unwrap())) / 4_294_967_296.0
}

fn sides(question: &str) -> (&str, &str) {
    let mut parts = question.split('|').skip(1);
    (parts.next().unwrap(), parts.next().unwrap())
}

/// How much better a response is than another, in log-odds; antisymmetric.
fn logit(one: &str, other: &str) -> f64 {
    4.0 * (draw(&["quality", one]) - draw(&["quality", other]))
}

/// Log-probs of A and B with `mass` together and these log-odds, and what is left on another token.
fn top(logit: f64, mass: f64) -> Vec<(String, f64)> {
    let p = 1.0 / (1.0 + (-logit).exp());
    let entry = |token: &str, p: f64| (token.to_owned(), p.ln());
    let mut top = vec![entry("A", mass * p), entry("B", mass * (1.0 - p)), entry("The", 1.0 - mass)];
    top.sort_by(|one, other| other.1.total_cmp(&one.1));
    top
}

fn honest(question: &str) -> Treatment {
    if question == server::PROBE {
        return Treatment::Answer(top(0.0, 0.9));
    }
    let (first, second) = sides(question);
    Treatment::Answer(top(logit(first, second), 0.9))
}

fn summary(place: &Place, name: &str) -> BTreeMap<String, SummaryRow> {
    let rows = place.rows::<SummaryRow>(&format!("{name}/summary"));
    rows.into_iter().map(|row| (row.metric.clone(), row)).collect()
}

/// No file below a folder holds the text.
fn assert_nowhere(folder: &Path, text: &str) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_nowhere(&path, text);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(text.len()).any(|part| part == text.as_bytes()), "{}", path.display());
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

/// What a question always gets, by seed; nothing where it is answered well in the end.
fn lasting(seed: &str, question: &str) -> Option<(&'static str, Treatment)> {
    Some(match (draw(&["lasting", seed, question]) * 40.0) as u32 {
        0 => ("bad_answer", Treatment::Body(b"<html>this question is blocked</html>".to_vec())),
        1 => ("bad_answer", Treatment::Body(vec![b' '; 3 << 20])),
        2 => ("bad_answer", Treatment::Body(br#"{"choices": []}"#.to_vec())),
        3 => ("no_label", Treatment::Answer(vec![("The".to_owned(), -0.5), ("I".to_owned(), -1.5)])),
        4 => ("bad_answer", Treatment::Body(br#"{"choices": [{"logprobs": null}]}"#.to_vec())),
        5 => ("low_label_mass", Treatment::Answer(top(3.0, 0.01))),
        6 => {
            let said = json!({"error": {"message": format!("the key {KEY} cannot ask this\n")}});
            ("refused_by_endpoint", Treatment::Status(400, said.to_string(), None))
        }
        _ => return None,
    })
}

/// Faults that pass, until a question came five times.
fn passing(seed: &str, question: &str, before: usize) -> Option<Treatment> {
    if before > 4 {
        return None;
    }
    Some(match (draw(&["passing", seed, question, &before.to_string()]) * 16.0) as u32 {
        0 => Treatment::Status(429, "slow down".to_owned(), Some("0".to_owned())),
        1 => Treatment::Status(429, "slow down".to_owned(), Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned())),
        2 => Treatment::Status(500, String::new(), None),
        3 => Treatment::Status(503, "<html>".to_owned(), None),
        4 => Treatment::Reset,
        5 => Treatment::BreakOff,
        _ if draw(&["slow", seed, question, &before.to_string()]) < 0.02 => Treatment::Slow(Duration::from_millis(800)),
        _ => return None,
    })
}

#[test]
fn every_row_is_labelled_or_rejected_with_a_reason_whatever_the_endpoint_does() {
    for seed in ["1", "2", "3"] {
        let server = Server::start(move |question, before, _| {
            let lasting = lasting(seed, question).map(|(_, treatment)| treatment);
            passing(seed, question, before).or(lasting).unwrap_or_else(|| honest(question))
        });
        let files = Files::new();
        let stage = files.stage(&server.url, json!({}), json!({"shard_rows": 32}));
        let place = place(comparisons(120));
        let outcome = run(&place, "out", &stage).unwrap();
        let verdicts: Vec<Verdict> = place.rows("out/verdicts");
        let rejects: Vec<Reject> = place.rows("out/rejects");
        assert!(!rejects.is_empty() && verdicts.len() > 60, "{} {}", verdicts.len(), rejects.len());
        let mut reasons = BTreeMap::new();
        for row in comparisons(120) {
            let text = |messages: &[Message]| messages[0].content.clone();
            let (prompt, a, b) = (text(&row.a_prompt), text(&row.a_response), text(&row.b_response));
            let expected = [format!("{prompt}|{a}|{b}"), format!("{prompt}|{b}|{a}")]
                .iter()
                .find_map(|question| lasting(seed, question).map(|(reason, _)| reason));
            match expected {
                Some(reason) => {
                    let reject = rejects.iter().find(|reject| reject.row_id == row.comparison_id).unwrap();
                    assert_eq!((reject.reason.as_str(), reject.source_line), (reason, row.source_line));
                    *reasons.entry(reason).or_insert(0) += 1;
                }
                None => {
                    let verdict = verdicts.iter().find(|it| it.comparison_id == row.comparison_id).unwrap();
                    let p = 1.0 / (1.0 + (-logit(&a, &b)).exp());
                    assert!((verdict.p_hat - p).abs() < 1e-9, "{} {p}", verdict.p_hat);
                    assert!((verdict.ab_mass.unwrap() - 0.9).abs() < 1e-9 && verdict.bounded.is_none());
                }
            }
        }
        assert!(reasons.len() > 1, "the seed draws too few faults: {reasons:?}");
        let mut billed = server.billed();
        let answers = billed.len();
        billed.sort();
        billed.dedup();
        assert_eq!(billed.len(), answers, "an answered question was asked again");
        assert!(server.asked().len() > answers, "no request was repeated");
        assert!(server.asked().iter().all(|asked| asked.authorization == Some(format!("Bearer {KEY}"))));
        assert_nowhere(place.folder.path(), KEY);
        assert!(!format!("{:?} {outcome:?}", place.events.lock().unwrap()).contains(KEY));
        assert!(format!("{rejects:?}").contains("the key [the key] cannot ask this"));
    }
}

#[test]
fn concurrency_and_faults_change_no_byte() {
    let files = Files::new();
    let place = place(comparisons(40));
    let mut bytes = Vec::new();
    for (name, concurrency, seed) in [("one", 1, None), ("many", 16, Some("7"))] {
        let server = Server::start(move |question, before, _| {
            seed.and_then(|seed| passing(seed, question, before)).unwrap_or_else(|| honest(question))
        });
        // The address is part of the judge's name: it has to be the same for the bytes to be.
        let stage = files.stage(&server.url, json!({"concurrency": concurrency}), json!({"shard_rows": 16}));
        run(&place, name, &stage).unwrap();
        let rows = place.rows::<Verdict>(&format!("{name}/verdicts"));
        bytes.push(rows.into_iter().map(|row| Verdict { judge: None, ..row }).collect::<Vec<_>>());
    }
    assert_eq!(bytes[0], bytes[1]);
}

#[test]
fn what_was_answered_before_a_kill_is_not_asked_again() {
    let files = Files::new();
    let place = place(comparisons(60));
    // After 50 answers the endpoint hangs, until it is told to go on.
    let server = Server::start(|question, _, asked| {
        let billed = asked.iter().filter(|asked| asked.billed).count();
        let hung = asked.iter().filter(|asked| asked.treatment == Treatment::Hang).count();
        if billed >= 50 && hung < 4 {
            return Treatment::Hang;
        }
        honest(question)
    });
    let stage = files.stage(&server.url, json!({"timeout_seconds": 1.5, "retries": 0}), json!({"shard_rows": 20}));
    let out = place.folder.path().join("out");
    let killed = place.folder.path().join("killed");
    let before = std::thread::scope(|scope| {
        let running = scope.spawn(|| place.run("out", |context| stage.run(context)));
        while server.billed().len() < 50 {
            std::thread::sleep(Duration::from_millis(5));
        }
        // All answers have arrived, all workers hang: this is what a kill would leave.
        std::thread::sleep(Duration::from_millis(300));
        copy(&out, &killed);
        let before = server.billed();
        match running.join().unwrap() {
            Err(Error::Unreachable(text)) => assert!(text.contains("run again to go on"), "{text}"),
            other => panic!("{other:?}"),
        }
        before
    });
    assert_eq!(before.len(), 50);
    // A kill in the middle of a line.
    let journal = killed.join(".work/journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    bytes.extend(b"0123456789abcdef [\"torn");
    std::fs::write(&journal, bytes).unwrap();
    run(&place, "killed", &stage).unwrap();
    run(&place, "out", &stage).unwrap();
    assert_eq!(place.bytes("killed/verdicts"), place.bytes("out/verdicts"));
    assert_eq!(place.bytes("killed/rejects"), place.bytes("out/rejects"));
    let mut again: BTreeMap<String, usize> = BTreeMap::new();
    server.billed().into_iter().for_each(|question| *again.entry(question).or_insert(0) += 1);
    for question in &before {
        assert_eq!(again[question], 1, "{question}");
    }
    // The rest was asked once by either of the two that went on.
    assert_eq!(again.len(), 120);
    assert!(again.iter().filter(|(question, _)| !before.contains(question)).all(|(_, times)| *times == 2));
}

#[test]
fn the_numbers_are_those_of_a_model_in_this_process() {
    let files = Files::new();
    let place = place(comparisons(8)).model("model", "llama");
    let local: Judge = serde_json::from_value(json!({
        "comparisons": "data", "model": "models/llama", "template": files.path("sides.jinja"), "debias": "probability",
        "least_mass": 0.0,
    }))
    .unwrap();
    run(&place, "local", &local).unwrap();
    let known: Vec<Verdict> = place.rows("local/verdicts");
    let rows = known.clone();
    let server = Server::start(move |question, _, _| {
        let (first, second) = sides(question);
        let said = |row: &Verdict| (row.a_response[0].content.clone(), row.b_response[0].content.clone());
        let (a, b) = rows
            .iter()
            .find_map(|row| {
                let (a, b) = said(row);
                let found = if (first, second) == (a.as_str(), b.as_str()) {
                    (row.ab_logp_a, row.ab_logp_b)
                } else if (first, second) == (b.as_str(), a.as_str()) {
                    (row.ba_logp_b, row.ba_logp_a)
                } else {
                    return None;
                };
                Some((found.0.unwrap(), found.1.unwrap()))
            })
            .unwrap();
        Treatment::Answer(vec![("A".to_owned(), a), ("B".to_owned(), b)])
    });
    let remote = files.stage(&server.url, json!({}), json!({"debias": "probability", "least_mass": 0.0}));
    run(&place, "remote", &remote).unwrap();
    let remote: Vec<Verdict> = place.rows("remote/verdicts");
    assert_eq!(remote.len(), known.len());
    for (one, other) in known.into_iter().zip(remote) {
        assert_ne!(one.judge, other.judge);
        assert_eq!(Verdict { judge: None, ..one }, Verdict { judge: None, ..other });
    }
    let body = server.asked()[0].body.clone();
    let asked = (&body["logprobs"], &body["top_logprobs"], &body["max_tokens"], &body["temperature"]);
    assert_eq!(asked, (&json!(true), &json!(20), &json!(1), &json!(0)));
}

#[test]
fn a_label_outside_the_alternatives_is_bounded_and_flagged() {
    let server = Server::start(|question, _, _| match sides(question).0.starts_with('a') {
        true => Treatment::Answer(vec![("A".to_owned(), -0.05), ("The".to_owned(), -4.0), ("I".to_owned(), -6.5)]),
        false => Treatment::Answer(vec![("B".to_owned(), -0.2), ("A".to_owned(), -2.0), ("I".to_owned(), -6.5)]),
    });
    let files = Files::new();
    let place = place(comparisons(6));
    let outcome = run(&place, "out", &files.stage(&server.url, json!({"top_logprobs": 3}), json!({}))).unwrap();
    for row in place.rows::<Verdict>("out/verdicts") {
        assert_eq!(row.bounded.as_deref(), Some("ab_logp_b"));
        assert_eq!((row.ab_logp_a, row.ab_logp_b), (Some(-0.05), Some(-6.5)));
        assert_eq!((row.ba_logp_a, row.ba_logp_b), (Some(-0.2), Some(-2.0)));
        assert!(row.p_hat < 1.0);
    }
    assert_eq!(outcome.figures["share with a bounded label"], 1.0);
    assert_eq!(summary(&place, "out")["bounded"].value, 1.0);
}

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
    // What neither name satisfies is told.
    let server = Server::start_reading(move |_, _| {
        Treatment::Status(400, json!({"error": {"message": said}}).to_string(), None)
    });
    match run(&crate::place(comparisons(3)), "out", &files.stage(&server.url, json!({}), json!({}))) {
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
fn an_error_with_status_200_is_waited_for_and_never_kept() {
    let busy = json!({"error": {"message": "rate limit reached, try again in a minute", "code": 429}}).to_string();
    let all = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let requests = all.clone();
    let server =
        Server::start_reading(move |question, _| match requests.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0..10 => Treatment::Body(busy.clone().into_bytes()),
            _ if question == server::PROBE => honest(question),
            number if number % 3 == 0 => Treatment::Body(br#"{"choices": []}"#.to_vec()),
            number if number % 5 == 0 => Treatment::Body(br#"{"object": "error", "message": "overloaded"}"#.to_vec()),
            _ => honest(question),
        });
    let files = Files::new();
    let place = place(comparisons(12));
    let stage = |retries: u32| files.stage(&server.url, json!({"retries": retries}), json!({}));
    // While it lasts, each run ends with what the server says.
    for _ in 0..3 {
        match run(&place, "out", &stage(2)) {
            Err(Error::Unreachable(text)) => {
                assert!(text.contains("status 429: rate limit reached, try again"), "{text}")
            }
            other => panic!("{other:?}"),
        }
    }
    let outcome = run(&place, "out", &stage(30)).unwrap();
    assert_eq!((outcome.balance[0].kept, server.billed().len()), (12, 24));
}

#[test]
fn a_judge_that_says_something_else_gives_no_verdicts_and_stops_the_stage() {
    let answer = |tokens: &[(&str, f64)]| -> Treatment {
        Treatment::Answer(tokens.iter().map(|(token, p)| ((*token).to_owned(), p.ln())).collect())
    };
    for (tokens, reason, token) in [
        (&[("<think>", 0.9999), ("B", 5e-5), ("A", 2e-5)][..], "low_label_mass", "<think>"),
        (&[("**", 0.95), ("B", 0.007), ("A", 0.002)][..], "low_label_mass", "**"),
        (&[("a", 0.82), ("b", 0.16), ("A", 0.0009), ("B", 0.0001)][..], "low_label_mass", "a"),
        (&[("The", 0.9), ("I", 0.05)][..], "no_label", "The"),
    ] {
        let said = answer(tokens);
        let server = Server::start(move |question, _, _| {
            if question.contains("a000") || question.contains("a001") { said.clone() } else { honest(question) }
        });
        let files = Files::new();
        let place = place(comparisons(40));
        // A few are missing, and told.
        let outcome = run(&place, "out", &files.stage(&server.url, json!({}), json!({"max_low_mass": 0.1}))).unwrap();
        assert_eq!((outcome.balance[0].kept, outcome.figures["share below least_mass"].clone()), (38, json!(0.05)));
        let quoted = json!(token).to_string();
        assert_eq!(outcome.figures["likeliest tokens without a verdict"], json!({quoted.clone(): 2}));
        let summary = summary(&place, "out");
        assert_eq!((summary["label_mass/too_low"].value, summary["label_mass/too_low"].rows), (0.05, 40));
        assert_eq!(summary[&format!("first_token/{quoted}")].value, 1.0);
        for row in place.rows::<Reject>("out/rejects") {
            assert_eq!(row.reason, reason);
            assert!(row.detail.contains(&format!("the likeliest token is {quoted} with 0.")), "{}", row.detail);
        }
        // Many are no accident.
        match run(&place, "many", &files.stage(&server.url, json!({}), json!({"max_low_mass": 0.02}))) {
            Err(Error::Data(text)) => {
                assert!(text.contains("2 of 40 comparisons got no verdict") && text.contains(&quoted), "{text}");
                assert!(text.contains("allows 1 of them") && text.contains("enable_thinking"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        // What was answered is evidence, whatever is asked of it.
        let billed = server.billed().len();
        if reason == "low_label_mass" {
            let lower = files.stage(&server.url, json!({}), json!({"least_mass": 0.0, "max_low_mass": 0.0}));
            assert_eq!(run(&place, "many", &lower).unwrap().balance[0].kept, 40);
            assert_eq!(server.billed().len(), billed);
        }
    }
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
fn a_bias_for_the_first_place_is_removed_and_measured() {
    let offset = 0.8;
    for noise in [0.0, 0.6] {
        let server = Server::start(move |question, _, _| {
            let (first, second) = sides(question);
            let noise = noise * (draw(&["noise", question]) - 0.5);
            Treatment::Answer(top(logit(first, second) + offset + noise, 0.8))
        });
        let files = Files::new();
        let place = place(comparisons(100));
        run(&place, "out", &files.stage(&server.url, json!({}), json!({}))).unwrap();
        let summary = summary(&place, "out");
        let measured = &summary["position/offset"];
        if noise == 0.0 {
            for row in place.rows::<Verdict>("out/verdicts") {
                let p = 1.0 / (1.0 + (-logit(&row.a_response[0].content, &row.b_response[0].content)).exp());
                assert!((row.p_hat - p).abs() < 1e-6);
            }
            assert!((measured.value - offset).abs() < 1e-9);
        } else {
            assert!(measured.low.unwrap() < offset && offset < measured.high.unwrap(), "{measured:?}");
        }
        assert!(summary["position/gap"].low.unwrap() > 0.0 && summary["position/flip_rate"].value > 0.0);
        assert!((summary["label_mass"].value - 0.8).abs() < 1e-9);
        // One order cannot tell the bias from quality, but for many rows.
        let place = crate::place(comparisons(100));
        let one = files.stage(&server.url, json!({}), json!({"orders": "one", "debias": null}));
        run(&place, "out", &one).unwrap();
        let warned = place.events.lock().unwrap().iter().find_map(|event| match event {
            Event::Warned { text } => Some(text.clone()),
            _ => None,
        });
        let first = crate::summary(&place, "out")["position/first"].value;
        assert!(warned.unwrap().contains(&format!("estimated at {:+.3}", first - 0.5)));
        assert!((first - 0.65).abs() < 0.1, "{first}");
    }
}

#[test]
fn a_judge_that_likes_length_shows_in_the_summary() {
    let server = Server::start(|question, _, _| {
        let (first, second) = sides(question);
        Treatment::Answer(top(0.5 * (first.len() as f64 - second.len() as f64), 0.9))
    });
    let files = Files::new();
    let place = place(comparisons(70));
    let outcome = run(&place, "out", &files.stage(&server.url, json!({}), json!({}))).unwrap();
    let summary = summary(&place, "out");
    assert!(summary["length/longer"].low.unwrap() > 0.6 && summary["length/correlation"].low.unwrap() > 0.8);
    let curve: Vec<f64> =
        summary.iter().filter(|(name, _)| name.starts_with("length/longer/")).map(|(_, row)| row.value).collect();
    assert!(curve.len() > 2 && curve.windows(2).all(|pair| pair[0] < pair[1]), "{curve:?}");
    assert_eq!(summary["position/gap"].value, 0.0);
    assert!(outcome.figures["length correlation"].as_f64().unwrap() > 0.8);
}

#[test]
fn an_endpoint_that_stays_away_is_told_and_nothing_is_committed() {
    let files = Files::new();
    let place = place(comparisons(6));
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/v1", listener.local_addr().unwrap())
    };
    let busy = Server::start_reading(|_, _| Treatment::Status(429, "later".to_owned(), None));
    let patient = Server::start_reading(|_, _| Treatment::Status(429, "later".to_owned(), Some("3600".to_owned())));
    for (name, url) in [("gone", &gone), ("busy", &busy.url), ("patient", &patient.url)] {
        match run(&place, name, &files.stage(url, json!({"retries": 2}), json!({}))) {
            Err(Error::Unreachable(text)) => assert!(text.contains(url.as_str()), "{text}"),
            other => panic!("{other:?}"),
        }
        assert!(!place.folder.path().join(name).join("verdicts").exists());
    }
    assert_eq!((busy.probes().len(), busy.asked().len()), (3, 0));
    assert_eq!(patient.probes().len(), 1, "it asked to be left alone for an hour");
}

#[test]
fn a_question_that_always_fails_is_given_up_after_some_runs_and_holds_up_no_other() {
    let fails = |question: &str| draw(&["fails", question]) < 0.04;
    for treatment in [Treatment::Status(500, "boom".to_owned(), None), Treatment::Reset, Treatment::Hang] {
        let failing = treatment.clone();
        let server = Server::start(move |question, _, _| match fails(question) {
            true => failing.clone(),
            false => honest(question),
        });
        let files = Files::new();
        let place = place(comparisons(60));
        let stage = |most: f64| {
            let endpoint = json!({"retries": 1, "timeout_seconds": 1.0, "give_up_after": 3, "max_rejects": most});
            files.stage(&server.url, endpoint, json!({"shard_rows": 10}))
        };
        let all = |row: &Comparison| {
            let [prompt, a, b] = [&row.a_prompt, &row.a_response, &row.b_response].map(|it| it[0].content.clone());
            [format!("{prompt}|{a}|{b}"), format!("{prompt}|{b}|{a}")]
        };
        let questions: Vec<String> = comparisons(60).iter().flat_map(all).collect();
        let bad = questions.iter().filter(|question| fails(question)).count();
        let rows = comparisons(60).iter().filter(|row| all(row).iter().any(|question| fails(question))).count();
        assert!(bad > 1 && rows < 30, "{bad} {rows}");
        for this in 1..3 {
            match run(&place, "out", &stage(1.0)) {
                Err(Error::Unreachable(text)) => {
                    assert!(text.contains(&format!("failed to answer {bad} of them 2 times each")), "{text}");
                    assert!(text.contains(&format!("this was run {this} of them")), "{text}");
                }
                other => panic!("{other:?}"),
            }
            // All others are answered by the first run, and asked by no other.
            assert_eq!(server.billed().len(), questions.len() - bad);
        }
        // Too many of them are an error of the data, and are asked once more.
        match run(&place, "out", &stage(0.0)) {
            Err(Error::Data(text)) => assert!(text.contains("the last: server_error: "), "{text}"),
            other => panic!("{other:?}"),
        }
        let outcome = run(&place, "out", &stage(1.0)).unwrap();
        assert_eq!(outcome.balance[0].rejected as usize, rows);
        assert_eq!(server.billed().len(), questions.len() - bad);
        for reject in place.rows::<Reject>("out/rejects") {
            assert_eq!(reject.reason, "server_error");
            assert!(reject.detail.contains(" runs, while other questions were answered: "), "{}", reject.detail);
        }
    }
}

#[test]
fn a_question_that_is_answered_in_the_end_is_a_verdict() {
    let down = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let is_down = down.clone();
    let server = Server::start(move |question, _, _| {
        let broken = is_down.load(std::sync::atomic::Ordering::SeqCst) && draw(&["fails", question]) < 0.2;
        if broken { Treatment::Status(503, "overloaded".to_owned(), None) } else { honest(question) }
    });
    let files = Files::new();
    let place = place(comparisons(30));
    let stage = files.stage(&server.url, json!({"retries": 1}), json!({}));
    for _ in 0..2 {
        assert!(matches!(run(&place, "out", &stage), Err(Error::Unreachable(_))));
    }
    assert!(!place.folder.path().join("out/verdicts").exists(), "nothing is committed");
    down.store(false, std::sync::atomic::Ordering::SeqCst);
    let outcome = run(&place, "out", &stage).unwrap();
    assert_eq!((outcome.balance[0].kept, server.billed().len()), (30, 60));
}

#[test]
fn an_endpoint_that_is_down_as_a_whole_is_never_given_up() {
    let server = Server::start_reading(|_, _| Treatment::Status(500, "down".to_owned(), None));
    let settled = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let once = settled.clone();
    // The first request finds out what is taken; after it everything fails.
    let later = Server::start_reading(move |question, _| match once.swap(true, std::sync::atomic::Ordering::SeqCst) {
        false => honest(question),
        true => Treatment::Status(500, "down".to_owned(), None),
    });
    let files = Files::new();
    for url in [&server.url, &later.url] {
        let place = place(comparisons(6));
        let stage = files.stage(url, json!({"retries": 1, "give_up_after": 1}), json!({}));
        for _ in 0..3 {
            settled.store(false, std::sync::atomic::Ordering::SeqCst);
            match run(&place, "out", &stage) {
                Err(Error::Unreachable(text)) => assert!(text.contains("did not answer after 2 requests"), "{text}"),
                other => panic!("{other:?}"),
            }
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
fn too_many_garbage_answers_stop_the_stage() {
    let server = Server::start(|question, _, _| match draw(&["garbage", question]) < 0.5 {
        true => Treatment::Body(br#"{"choices": [{"message": {"content": "A"}, "logprobs": null}]}"#.to_vec()),
        false => honest(question),
    });
    let files = Files::new();
    let place = place(comparisons(30));
    for _ in 0..2 {
        match run(&place, "out", &files.stage(&server.url, json!({"max_rejects": 0.2}), json!({}))) {
            Err(Error::Data(text)) => {
                assert!(text.contains("allows 6; the last: bad_answer: ") && text.contains("log-probs"), "{text}");
                assert!(text.contains("these are asked again"), "{text}");
            }
            other => panic!("{other:?}"),
        }
    }
    let outcome = run(&place, "out", &files.stage(&server.url, json!({"max_rejects": 1.0}), json!({}))).unwrap();
    assert!(outcome.balance[0].rejected > 6);
    let mut billed = server.billed();
    let answers = billed.len();
    billed.sort();
    billed.dedup();
    assert_eq!(billed.len(), answers, "an answered question was asked again");
    assert!(server.asked().iter().any(|asked| !asked.billed && asked.before > 0), "no answer was kept as one");
}

#[test]
fn a_signal_ends_the_wait_for_a_slow_endpoint() {
    let server = Server::start_reading(|_, _| Treatment::Status(503, String::new(), Some("500".to_owned())));
    let files = Files::new();
    let place = place(comparisons(6));
    let began = Instant::now();
    let result = place.run("out", |context| {
        let interrupt = context.interrupt.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            interrupt.raise();
        });
        files.stage(&server.url, json!({}), json!({})).run(context)
    });
    assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
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
        let mut all = json!({"comparisons": "data", "endpoint": endpoint, "template": "helpful", "debias": "logit"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        findings(all)
    };
    let found = with(
        json!({"url": "http://user:secret@host/v1", "model": "", "api_key_env": "sk-secret", "top_logprobs": 21,
            "concurrency": 0, "max_rejects": 2.0, "body": {"temperature": 1}}),
        json!({"form": "text", "tokens": {"max_tokens": 9}}),
    );
    assert_eq!(found.len(), 9, "{found:#?}");
    assert!(!format!("{found:?}").contains("secret"));
    assert_eq!(with(json!({"url": "localhost:8000", "model": "m"}), json!({})).len(), 1);
    let found = with(json!({"url": "http://h/v1", "model": "m"}), json!({"model": "m/m"}));
    assert_eq!(found, ["endpoint: there is a `model` too; give one of the two judges"]);
    let neither = findings(json!({"comparisons": "data", "template": "helpful", "debias": "logit"}));
    assert_eq!(neither, [": needs `model` (a folder) or `endpoint` (a remote judge)"]);
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
