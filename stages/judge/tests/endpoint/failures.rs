//! Endpoints that fail for good: when a question, a run or a stage is given up.

use super::*;

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
