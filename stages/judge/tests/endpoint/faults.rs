//! Faults that pass, and kills.

use super::*;

/// The lasting treatment of a question, by seed; none where it is answered well in the end.
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
    // After 50 answers the endpoint hangs, until it is released.
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
fn packed_answers_are_unpacked_within_bounds_or_named() {
    use std::io::Write;
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let deflate = |bytes: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let answer = server::completion(&[("A".to_owned(), -0.1), ("B".to_owned(), -3.0)]).into_bytes();
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let broken = gzip(&answer)[..40].to_vec();
    for (encoding, body, wanted) in [
        ("gzip", gzip(&answer), ""),
        ("x-gzip", gzip(&answer), ""),
        ("deflate", deflate(&answer), ""),
        ("deflate, gzip", gzip(&deflate(&answer)), ""),
        ("", gzip(&answer), ""),
        // Unpacked on the way, and the header left.
        ("gzip", answer.clone(), ""),
        ("identity", answer.clone(), ""),
        ("gzip", bomb, "longer than 1048576 bytes"),
        ("gzip", broken, "the answer broke off"),
        ("br", answer.clone(), "packed as `br`, which was not asked for"),
    ] {
        let server = Server::start_reading(move |_, _| Treatment::Packed(encoding, body.clone()));
        let files = Files::new();
        let place = place(comparisons(2));
        match run(&place, "out", &files.stage(&server.url, json!({"retries": 1}), json!({}))) {
            Ok(_) => assert_eq!(wanted, "", "{encoding}"),
            Err(Error::Unreachable(text)) => assert!(!wanted.is_empty() && text.contains(wanted), "{encoding}: {text}"),
            other => panic!("{encoding}: {other:?}"),
        }
    }
}
