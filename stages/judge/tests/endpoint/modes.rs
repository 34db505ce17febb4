//! Ratings and sampled answers through an endpoint.

use kit::rows::{JudgeAnswer, Rating, ScoredVerdict};

use super::*;

fn rater(files: &Files, url: &str, levels: Value, more: Value) -> Judge {
    std::fs::write(files.folder.path().join("rate.jinja"), "{{ prompt }}|{{ response }}|rate").unwrap();
    let rating = json!({"template": files.path("rate.jinja"), "debias": null, "rating": {"levels": levels}});
    files.stage(url, json!({}), harness::with(rating, &more))
}

fn digits() -> Value {
    json!([["1", " 1"], ["2", " 2"], ["3", " 3"]])
}

/// Log-probs of levels 1 to 3 that depend on the response alone, and what is left on another token.
fn levels(response: &str, mass: f64) -> Vec<(String, f64)> {
    let raw: Vec<f64> = (1..=3).map(|level| 0.05 + draw(&["level", response, &level.to_string()])).collect();
    let sum: f64 = raw.iter().sum();
    let mut top: Vec<(String, f64)> =
        raw.iter().zip(1..).map(|(p, level)| (level.to_string(), (mass * p / sum).ln())).collect();
    top.push(("The".to_owned(), (1.0 - mass).ln()));
    top.sort_by(|one, other| other.1.total_cmp(&one.1));
    top
}

fn rated(question: &str) -> &str {
    question.split('|').nth(1).unwrap_or(question)
}

#[test]
fn responses_are_rated_once_each_and_never_paid_for_twice() {
    let server = Server::start(|question, _, _| Treatment::Answer(levels(rated(question), 0.9)));
    let files = Files::new();
    let place = place(comparisons(8));
    let stage = rater(&files, &server.url, digits(), json!({}));
    run_rated(&place, "out", &stage).unwrap();
    // Three levels are looked for, then sixteen responses are asked about.
    assert_eq!(server.billed().len(), 3 + 16);
    let ratings: Vec<Rating> = place.rows("out/ratings");
    assert_eq!(ratings.len(), 16);
    for row in place.rows::<ScoredVerdict>("out/verdicts") {
        let of = |messages: &[Message]| -> Vec<f64> {
            let top: BTreeMap<String, f64> = levels(&messages[0].content, 0.9).into_iter().collect();
            ["1", "2", "3"].map(|level| top[level].exp() / 0.9).into()
        };
        let (a, b) = (of(&row.a_response), of(&row.b_response));
        let p: f64 = a
            .iter()
            .enumerate()
            .flat_map(|(i, a)| b.iter().enumerate().map(move |(j, b)| (i, j, a * b)))
            .map(|(i, j, p)| {
                if i > j {
                    p
                } else if i == j {
                    0.5 * p
                } else {
                    0.0
                }
            })
            .sum();
        assert!((row.p_hat - p).abs() < 1e-9, "{} {p}", row.p_hat);
    }
    // The same answers serve another setting of the same folder.
    let again = rater(&files, &server.url, digits(), json!({"least_mass": 0.1}));
    std::fs::remove_dir_all(place.folder.path().join("out/.work/shards")).unwrap();
    run_rated(&place, "out", &again).unwrap();
    assert_eq!(server.billed().len(), 3 + 16);
}

fn run_rated(place: &Place, name: &str, stage: &Judge) -> Result<Outcome> {
    place.stage(name, stage)
}

#[test]
fn levels_that_were_not_returned_are_bounded() {
    let server =
        Server::start(|_, _, _| Treatment::Answer(vec![("2".to_owned(), 0.7f64.ln()), ("I".to_owned(), 0.1f64.ln())]));
    let files = Files::new();
    let place = place(comparisons(2));
    run_rated(&place, "out", &rater(&files, &server.url, digits(), json!({}))).unwrap();
    for row in place.rows::<Rating>("out/ratings") {
        assert_eq!(row.bounded, Some(2));
        // 0.2 is left for two levels, 0.1 each, and 0.7 for the one that was returned.
        assert!((row.levels[1] - 0.7 / 0.9).abs() < 1e-9 && (row.levels[0] - 0.1 / 0.9).abs() < 1e-9, "{row:?}");
    }
}

#[test]
fn a_level_of_several_tokens_is_told_before_the_first_response() {
    let server = Server::start(|question, _, _| {
        assert!(question.starts_with("Answer with this word or number alone: "), "{question}");
        let token = if question.ends_with("excellent") { "excell" } else { "poor" };
        Treatment::Answer(vec![(token.to_owned(), -0.1), ("The".to_owned(), -4.0)])
    });
    let files = Files::new();
    let stage = rater(&files, &server.url, json!([["poor"], ["excellent"]]), json!({}));
    match run_rated(&place(comparisons(4)), "out", &stage) {
        Err(Error::Pipeline(text)) => {
            assert!(text.contains("the level \"excellent\" is more than one token"), "{text}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.billed().len(), 2);
}

#[test]
fn a_judge_that_rates_in_other_words_gives_no_ratings() {
    let server = Server::start(|_, _, _| Treatment::Answer(vec![("Good".to_owned(), -0.1), ("I".to_owned(), -4.0)]));
    let files = Files::new();
    let place = place(comparisons(4));
    run_rated(&place, "out", &rater(&files, &server.url, digits(), json!({}))).unwrap();
    for row in place.rows::<Reject>("out/rejects") {
        assert_eq!(row.reason, "no_label");
        assert!(
            row.detail.contains("side a: no level is among the 2 likeliest tokens; the likeliest token is \"Good\"")
        );
    }
    match run_rated(&place, "many", &rater(&files, &server.url, digits(), json!({"max_low_mass": 0.1}))) {
        Err(Error::Data(text)) => assert!(text.contains("ratings got no verdict"), "{text}"),
        other => panic!("{other:?}"),
    }
}

fn reasoner(files: &Files, url: &str, block: Value, endpoint: Value, more: Value) -> Judge {
    let all = json!({"samples": 5, "temperature": 1.0, "max_tokens": 300, "pattern": r"\[\[(A|B|C)\]\]", "take": "last",
        "ties": ["C"]});
    let reasoning = json!({"debias": "probability", "reasoning": harness::with(all, &block)});
    files.stage(url, endpoint, harness::with(reasoning, &more))
}

/// The body of a chat completion with this message.
fn message(message: Value, finish: &str) -> Treatment {
    let body = json!({"choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": {"completion_tokens": 12}});
    Treatment::Body(body.to_string().into_bytes())
}

/// The `before`th answer to a question: a tie first, one that was cut off, then the better side.
fn thought(question: &str, before: usize) -> Treatment {
    let (first, second) = sides(question);
    let better = if logit(first, second) > 0.0 { "A" } else { "B" };
    match before {
        0 => message(json!({"content": "<think>[[A]] or [[B]]?</think>Equal: [[C]]"}), "stop"),
        1 => message(json!({"content": null, "reasoning_content": "[[A]] is long"}), "length"),
        2 => message(json!({"content": format!("[[{better}]]"), "reasoning": "[[C]]?"}), "stop"),
        _ => message(json!({"content": format!("Not [[C]] but [[{better}]]")}), "stop"),
    }
}

#[test]
fn answers_are_sampled_parsed_behind_their_thoughts_and_kept() {
    let server = Server::start(|question, before, _| thought(question, before));
    let files = Files::new();
    let place = place(comparisons(6));
    // One after the other, so that the server knows which answer of a question it gives.
    let stage = reasoner(&files, &server.url, json!({}), json!({"concurrency": 1}), json!({}));
    let outcome = run(&place, "out", &stage).unwrap();
    for row in place.rows::<Verdict>("out/verdicts") {
        let a_is_better = logit(&row.a_response[0].content, &row.b_response[0].content) > 0.0;
        // Four answers have a verdict: a tie and three for the better side.
        let p = if a_is_better { 4.0 / 5.0 } else { 1.0 / 5.0 };
        assert!((row.p_hat - p).abs() < 1e-12 && (row.ab_p.unwrap() - p).abs() < 1e-12, "{}", row.p_hat);
        assert_eq!(row.ab_logp_a, None);
    }
    let answers: Vec<JudgeAnswer> = place.rows("out/answers");
    assert_eq!(answers.len(), 6 * 2 * 5);
    assert_eq!(answers.iter().filter(|answer| answer.p.is_none()).count(), 12);
    assert!(
        answers.iter().any(|answer| answer.thoughts.as_deref() == Some("[[A]] or [[B]]?") && answer.p == Some(0.5))
    );
    assert_eq!(outcome.figures["answers/truncated"], json!(0.2));
    assert_eq!(outcome.figures["answers/parsed"], json!(0.8));
    let body = server.asked()[0].body.clone();
    assert_eq!((&body["temperature"], &body["max_tokens"], body.get("logprobs")), (&json!(1.0), &json!(300), None));
    // Nothing is asked again, and one more sample asks for that alone.
    let asked = server.asked().len();
    run(&place, "out", &stage).unwrap();
    assert_eq!(server.asked().len(), asked);
    let six = reasoner(&files, &server.url, json!({"samples": 6}), json!({"concurrency": 1}), json!({}));
    std::fs::remove_dir_all(place.folder.path().join("out/.work/shards")).unwrap();
    run(&place, "out", &six).unwrap();
    assert_eq!(server.asked().len(), asked + 12);
}

#[test]
fn keys_of_a_reasoning_endpoint_are_checked() {
    let files = Files::new();
    let check = |block: Value, body: Value, path: &str, words: &str| {
        let all = json!({"samples": 2, "temperature": 1.0, "max_tokens": 9, "pattern": "(A)", "take": "last"});
        let stage: Judge = serde_json::from_value(json!({
            "comparisons": "data", "template": files.path("sides.jinja"), "debias": "logit",
            "endpoint": {"url": "http://h/v1", "model": "m", "body": body}, "reasoning": harness::with(all, &block),
        }))
        .unwrap();
        let found = stage.check();
        assert!(found.iter().any(|it| it.path.join(".") == path && it.text.contains(words)), "{found:#?}");
    };
    check(json!({}), json!({"temperature": 0.3}), "endpoint.body.temperature", "is `reasoning.temperature`");
    check(json!({}), json!({"n": 4}), "endpoint.body.n", "is `reasoning.samples`");
    check(json!({"top_k": 5}), json!({}), "reasoning.top_k", "is no parameter of chat completions");
}
