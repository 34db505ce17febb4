//! Numbers and labels of answers, and what a summary says about a judge.

use super::*;

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
        // A few are missing, with a warning.
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
        // Answers are evidence under any setting.
        let billed = server.billed().len();
        if reason == "low_label_mass" {
            let lower = files.stage(&server.url, json!({}), json!({"least_mass": 0.0, "max_low_mass": 0.0}));
            assert_eq!(run(&place, "many", &lower).unwrap().balance[0].kept, 40);
            assert_eq!(server.billed().len(), billed);
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
        // One order cannot separate the bias from quality, but for many rows.
        let place = super::place(comparisons(100));
        let one = files.stage(&server.url, json!({}), json!({"orders": "one", "debias": null}));
        run(&place, "out", &one).unwrap();
        let warned = place.events.lock().unwrap().iter().find_map(|event| match event {
            Event::Warned { text } => Some(text.clone()),
            _ => None,
        });
        let first = super::summary(&place, "out")["position/first"].value;
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
