//! Well-known sets with labels of their own, in the columns that their cards on the hub list.

use crate::common;

use common::{Data, Done, say};
use kit::Event;
use kit::rows::{Comparison, Item, Pair, Response, Verdict};
use serde_json::{Value, json};

fn ingest(rows: &[Value], more: Value) -> Done {
    let text: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    Data::of("a.jsonl", text).run(&["a.jsonl"], more).unwrap()
}

/// Both responses and P(the first better) of every verdict.
fn verdicts(done: &Done) -> Vec<(String, String, f64)> {
    let rows: Vec<Verdict> = done.rows("verdicts");
    rows.iter().map(|row| (say(&row.a_response), say(&row.b_response), row.p_hat)).collect()
}

fn told(all: &[(&str, &str, f64)]) -> Vec<(String, String, f64)> {
    all.iter().map(|(a, b, p)| (format!("assistant: {a}"), format!("assistant: {b}"), *p)).collect()
}

fn chat(turns: &[&str]) -> Value {
    let role = |at: usize| if at.is_multiple_of(2) { "user" } else { "assistant" };
    turns.iter().enumerate().map(|(at, text)| json!({"role": role(at), "content": text})).collect()
}

#[test]
fn ultrafeedback_as_it_was_collected() {
    let completion = |text: &str, overall: f64, fine: Value| {
        json!({"annotations": {"helpfulness": {"Rating": "5"}}, "custom_system_prompt": "s",
            "model": format!("m-{text}"), "principle": "honesty", "response": text, "critique": "c",
            "overall_score": overall, "fine-grained_score": fine})
    };
    let row = json!({"source": "evol_instruct", "instruction": "q", "models": ["m-a", "m-b", "m-c"],
        "completions": [completion("a", 10.0, json!(2.5)), completion("b", 1.0, json!(4.0)),
            completion("c", 7.0, json!(2.5))],
        "correct_answers": ["None"], "incorrect_answers": ["None"]});
    let done = ingest(&[row], json!({"form": "chat"}));
    // The mean of the four marks decides, not the overall score.
    assert_eq!(verdicts(&done), told(&[("a", "b", 0.0), ("a", "c", 0.5), ("b", "c", 1.0)]));
    assert_eq!(done.balance(), [3, 3, 0]);
    assert_eq!(done.outcome.figures["rows of the files"], 1);
    let responses: Vec<Response> = done.rows("responses");
    let scores: Vec<_> = responses.iter().map(|row| (row.text.as_str(), row.score, row.model.as_deref())).collect();
    assert_eq!(scores, [("a", Some(2.5), Some("m-a")), ("b", Some(4.0), Some("m-b")), ("c", Some(2.5), Some("m-c"))]);
    let pairs: Vec<Pair> = done.rows("pairs");
    assert_eq!(pairs.iter().filter(|pair| say(&pair.chosen) == "assistant: b").count(), 2);
}

/// As [`verdicts`], with the log-odds that scores made.
fn scored(done: &Done) -> Vec<(String, String, f64, f64)> {
    let rows: Vec<kit::rows::ScoredVerdict> = done.rows("verdicts");
    rows.iter().map(|row| (say(&row.a_response), say(&row.b_response), row.p_hat, row.log_odds.unwrap())).collect()
}

#[test]
fn scores_become_probabilities_by_their_difference() {
    let aspects = |help: &str, honest: &str| json!({"helpfulness": {"Rating": help}, "honesty": {"Rating": honest}});
    let completion = |text: &str, score: f64, aspects: Value| json!({"model": "m", "response": text, "overall_score": score, "annotations": aspects});
    let row = json!({"instruction": "q", "completions": [completion("a", 7.0, aspects("3", "1")),
        completion("b", 9.0, aspects("4", "2")), completion("c", 4.5, aspects("5", "N/A"))]});
    let rows = std::slice::from_ref(&row);
    let done = ingest(rows, json!({"form": "chat", "scores": {"scale": 0.5}}));
    // numpy: 1 / (1 + exp(-0.5 * d)) for d = -2, 2.5, 4.5
    let expected = [
        ("a", "b", 0.268_941_421_369_995_1, -1.0),
        ("a", "c", 0.777_299_861_174_691_2, 1.25),
        ("b", "c", 0.904_650_535_100_890_9, 2.25),
    ];
    let near = |found: &[(String, String, f64, f64)], expected: &[(&str, &str, f64, f64)]| {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, (a, b, p, z)) in found.iter().zip(expected) {
            assert_eq!([&found.0, &found.1], [&format!("assistant: {a}"), &format!("assistant: {b}")]);
            assert!((found.2 - p).abs() < 1e-12 && (found.3 - z).abs() < 1e-12, "{found:?}");
        }
    };
    near(&scored(&done), &expected);
    let of = |rows: &[Value], scores: Value| scored(&ingest(rows, json!({"form": "chat", "scores": scores})));
    near(&of(rows, json!({"scale": 0.5, "pairs": "best_worst"})), &expected[2..]);
    near(&of(rows, json!({"scale": 0.5, "pairs": "best_each"})), &[expected[0], expected[2]]);
    // Criteria with weights; a response without one of them is left out. 2 * 4 - 2 - (2 * 3 - 1) = 1
    let criteria = json!({"annotations.helpfulness.Rating": 2.0, "annotations.honesty.Rating": -1.0});
    let done = ingest(rows, json!({"form": "chat", "scores": {"scale": 1.0, "criteria": criteria}}));
    near(&scored(&done), &[("a", "b", 0.268_941_421_369_995_1, -1.0)]);
    assert_eq!(done.outcome.figures["responses without a score or rank are left out"], 1);
    let responses: Vec<Response> = done.rows("responses");
    assert_eq!(responses.iter().map(|row| row.score).collect::<Vec<_>>(), [Some(5.0), Some(6.0)]);
    // Without a scale the higher one is better, by the same rule.
    let hard = ingest(rows, json!({"form": "chat", "scores": {"pairs": "best_worst"}}));
    assert_eq!(verdicts(&hard), told(&[("b", "c", 1.0)]));
}

#[test]
fn scores_of_two_sides_and_of_rows() {
    let near = |found: f64, wanted: f64| assert!((found - wanted).abs() < 1e-12, "{found} {wanted}");
    // Any two responses with scores, whatever other label there is.
    let row = json!({"prompt": "q", "response_0": "a", "response_1": "b", "score_A": 3, "score_B": 1, "feedback": 1});
    let found = scored(&ingest(&[row], json!({"form": "chat", "scores": {"scale": 1}})));
    near(found[0].2, 0.880_797_077_977_882_4);
    // UltraFeedback binarized.
    let row = json!({"prompt": "q", "chosen": chat(&["q", "a"]), "rejected": chat(&["q", "b"]), "score_chosen": 4.0,
        "score_rejected": 5.0});
    let pairs: Vec<Pair> = ingest(&[row], json!({"scores": {"scale": 1}})).rows("pairs");
    near(pairs[0].p_hat, 0.731_058_578_630_004_9);
    assert_eq!(say(&pairs[0].chosen), "assistant: b");
    // HelpSteer's attributes, a response a row.
    let row = |text: &str, help: i32, long: i32| json!({"prompt": "q", "response": text, "helpfulness": help, "verbosity": long});
    let rows =
        [row("a", 4, 2), row("b", 1, 1), json!({"prompt": "other", "response": "c", "helpfulness": 1, "verbosity": 0})];
    let settings = json!({"form": "chat", "format": "scored",
        "scores": {"scale": 1, "criteria": {"helpfulness": 0.5, "verbosity": -0.25}}});
    let done = ingest(&rows, settings);
    let found = scored(&done);
    assert_eq!((found.len(), found[0].3), (1, 1.25));
    let rejected = done.rejects();
    assert_eq!(rejected, [(3, "nothing_to_compare".to_owned())]);
    // Reward models' scores by the comparison's id.
    let row = |who: &str, a: Value| json!({"pair": "x", "reward_model": who, "score_A": a, "score_B": 1.5});
    let settings =
        json!({"format": "votes", "columns": {"id": "pair", "annotator": "reward_model"}, "scores": {"scale": 2}});
    let votes: Vec<kit::rows::Vote> = ingest(&[row("r", json!(40.0))], settings.clone()).rows("votes");
    assert_eq!((votes[0].annotator.as_deref(), votes[0].log_odds, votes[0].vote), (Some("r"), Some(77.0), 1.0));
    // A score that is none has its row and file.
    let text = row("r", json!(40.0)).to_string() + "\n" + &row("s", json!(40.0)).to_string().replace("40.0", "NaN");
    let error = Data::of("a.jsonl", text).run(&["a.jsonl"], settings.clone()).err().unwrap();
    assert!(error.contains("a.jsonl:2: missing: column `score_A` is null, wanted a value"), "{error}");
    let found = |row: Value, more: Value| {
        let data = Data::of("a.jsonl", row.to_string());
        data.check(&["a.jsonl"], more).into_iter().map(|it| it.text).collect::<Vec<_>>().join("; ")
    };
    let mut unscaled = settings;
    unscaled.as_object_mut().unwrap().remove("scores");
    assert!(found(row("r", json!(1)), unscaled).contains("say how sure a point makes: `scores: {scale: 1}`"));
    let ranks = json!({"prompt": "q", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]});
    let error =
        Data::of("a.jsonl", ranks.to_string()).run(&["a.jsonl"], json!({"scores": {"scale": 1}})).err().unwrap();
    assert!(error.contains("no_score: `answers[0]` has a rank and no score"), "{error}");
    let plain = json!({"prompt": "q", "chosen": "a", "rejected": "b"});
    for (scores, expected) in [
        (json!({"scale": 1}), "`scale` has no effect: format `preference` finds no scores of both responses"),
        (json!({"pairs": "all"}), "`pairs` and `criteria` have no effect"),
        (json!({"scale": 0}), "got 0, wanted a number above 0"),
        (json!({}), "it says nothing; leave it out"),
    ] {
        assert!(found(plain.clone(), json!({"scores": scores})).contains(expected), "{scores}");
    }
    let alone = json!({"prompt": "q", "completion": "a"});
    assert!(found(alone, json!({"format": "scored"})).contains("needs a column of scores"));
}

#[test]
fn distilabel_generations_and_their_ratings() {
    let row = json!({"instruction": "q", "generations": ["a", "b", "c"], "generation_models": ["m", "n", "o"],
        "ratings": ["4", "5", null], "rationales": ["x", "y", "z"], "ultrafeedback_model": "gpt-4"});
    let done = ingest(std::slice::from_ref(&row), json!({"form": "chat"}));
    assert_eq!(verdicts(&done), told(&[("a", "b", 0.0)]));
    assert_eq!(done.outcome.figures["responses without a score or rank are left out"], 1);
    // Tables that a CSV tool wrote hold the lists as text.
    let text = Data::of("a.csv", "instruction,generations,ratings\nq,\"[\"\"a\"\", \"\"b\"\"]\",\"[4, 5]\"\n");
    assert_eq!(verdicts(&text.run(&["a.csv"], json!({"form": "chat"})).unwrap()), told(&[("a", "b", 0.0)]));
    let mut short = row;
    short["ratings"] = json!([4, 5]);
    let error = Data::of("a.jsonl", short.to_string()).run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("lengths_differ: `ratings` has 2 entries and `generations` 3"), "{error}");
}

#[test]
fn distilabel_preferences_name_their_prompt_input() {
    let row = json!({"system": "Be brief.", "input": "q", "chosen": "a", "rejected": "b", "generations": ["a", "b"],
        "order": ["chosen", "rejected"], "rating": [9, 2], "chosen_score": 9, "in_gsm8k_train": false});
    let done = ingest(&[row], json!({"form": "chat"}));
    let pair = done.rows::<Pair>("pairs").remove(0);
    assert_eq!([say(&pair.chosen_prompt), say(&pair.chosen)], ["system: Be brief. | user: q", "assistant: a"]);
    let warned = done.events.iter().any(|event| matches!(event, Event::Warned { text } if text.contains("`rating`")));
    assert!(warned, "{:?}", done.events);
    // FormatTextGenerationDPO.
    let row = json!({"instruction": "q", "prompt": "q", "prompt_id": "1", "chosen": chat(&["q", "a"]),
        "chosen_model": "m",
        "chosen_rating": 5, "rejected": chat(&["q", "b"]), "rejected_model": "n", "rejected_rating": 1});
    let scores: Vec<_> = ingest(&[row], json!({})).rows::<Response>("responses").iter().map(|row| row.score).collect();
    assert_eq!(scores, [Some(5.0), Some(1.0)]);
}

#[test]
fn nectar_ranks_answers_under_a_transcript() {
    let answer = |text: &str, rank: f64| json!({"answer": text, "model": "m", "rank": rank});
    let row = json!({"prompt": "\n\nHuman: one?\n\nAssistant: 1.\n\nHuman: two?\n\nAssistant: ",
        "answers": [answer("a", 2.0), answer("b", 1.0)], "turns": 2, "num_responses": 2, "source": ["x"],
        "good_natured": true});
    let done = ingest(std::slice::from_ref(&row), json!({"form": "chat"}));
    assert_eq!(verdicts(&done), told(&[("a", "b", 0.0)]));
    let pair = done.rows::<Pair>("pairs").remove(0);
    assert_eq!(say(&pair.chosen_prompt), "user: one? | assistant: 1. | user: two?");
    assert_eq!(done.outcome.figures["prompts that are a dialogue as text, read as messages"], 1);
    let raw = ingest(&[row], json!({})).rows::<Pair>("pairs").remove(0);
    assert!(say(&raw.chosen_prompt).ends_with("Human: two?\n\nAssistant: "));
}

#[test]
fn completions_of_nemo_rl_are_messages_with_a_rank() {
    let completion =
        |text: &str, rank: u32| json!({"rank": rank, "completion": [{"role": "assistant", "content": text}]});
    let row = json!({"context": chat(&["q"]), "completions": [completion("a", 0), completion("b", 1)]});
    assert_eq!(verdicts(&ingest(&[row], json!({}))), told(&[("a", "b", 1.0)]));
}

#[test]
fn helpsteer_preferences_go_from_minus_three_to_three() {
    let row = |strength: i32| {
        json!({"domain": "general", "language": "english", "context": chat(&["q", "x", format!("{strength}").as_str()]),
            "response1": "a", "response2": "b", "overall_preference": strength,
            "individual_preference": [{"score": -3}]})
    };
    let done = ingest(&[row(-3), row(-2), row(0), row(3)], json!({"form": "chat"}));
    let p_hats: Vec<f64> = verdicts(&done).into_iter().map(|(.., p)| p).collect();
    assert_eq!(p_hats, [1.0, 5.0 / 6.0, 0.5, 0.0]);
    assert!(!done.events.iter().any(|event| matches!(event, Event::Warned { .. })), "{:?}", done.events);
    let second = json!({"split": "train", "prompt": "one?\n<extra_id_1>Assistant\n1.\n<extra_id_1>User\ntwo?",
        "response_1": "a", "response_2": "b", "preference_strength": 2, "preference_statement": "x"});
    let done = ingest(&[second], json!({"form": "chat"}));
    assert_eq!(verdicts(&done), told(&[("a", "b", 1.0 / 6.0)]));
    let pair = done.rows::<Pair>("pairs").remove(0);
    assert_eq!(
        (say(&pair.chosen), say(&pair.chosen_prompt)),
        ("assistant: b".to_owned(), "user: one? | assistant: 1. | user: two?".to_owned())
    );
    let marks = json!({"prompt": "q", "response": "a", "helpfulness": 3, "correctness": 4, "coherence": 4,
        "complexity": 1, "verbosity": 1});
    let done = ingest(&[marks], json!({}));
    let item = done.rows::<Item>("items").remove(0);
    assert_eq!((item.label, done.rows::<Response>("responses")[0].score), (0.75, Some(3.0)));
}

#[test]
fn safe_rlhf_says_which_response_is_better_and_warns_of_the_safer_one() {
    let row = |better: u32| {
        json!({"prompt": "q", "response_0": "a", "response_1": format!("b{better}"), "response_0_source": "Alpaca-7B",
            "is_response_0_safe": true, "is_response_1_safe": false, "better_response_id": better,
            "safer_response_id": 0})
    };
    let done = ingest(&[row(0), row(1)], json!({"form": "chat"}));
    assert_eq!(verdicts(&done), told(&[("a", "b0", 1.0), ("a", "b1", 0.0)]));
    let warning = done.events.iter().find_map(|event| match event {
        Event::Warned { text } => Some(text.as_str()),
        _ => None,
    });
    assert!(warning.unwrap().starts_with("what looks like labels is not read: `safer_response_id`;"), "{warning:?}");
    let safer = ingest(&[row(1)], json!({"columns": {"feedback": "safer_response_id"}}));
    assert_eq!(safer.rows::<Verdict>("verdicts")[0].p_hat, 1.0);
}

#[test]
fn shp_counts_votes() {
    let row = |label: u32| {
        json!({"post_id": "x", "domain": "askculinary_train", "upvote_ratio": 0.98, "history": format!("q{label}"),
            "c_root_id_A": "i",
            "c_root_id_B": "j", "score_A": 340, "score_B": 166, "human_ref_A": "a", "human_ref_B": "b", "labels": label,
            "seconds_difference": 1.0, "score_ratio": 2.05})
    };
    let done = ingest(&[row(1), row(0)], json!({"form": "chat"}));
    assert_eq!(verdicts(&done), told(&[("a", "b", 1.0), ("a", "b", 0.0)]));
    assert_eq!(done.rows::<Response>("responses")[0].score, Some(340.0));
}

#[test]
fn arena_battles_are_conversations_with_a_winner() {
    let row = |question: &str, winner: &str| {
        json!({"question_id": "x", "model_a": "m", "model_b": "n", "winner": winner, "judge": "arena_user_1",
            "conversation_a": chat(&[question, "a1", "more", "a2"]),
            "conversation_b": chat(&[question, "b1", "more", "b2"]),
            "turn": 2, "anony": true, "language": "English", "tstamp": 1.0,
            "toxic_chat_tag": {"x": {"flagged": false}}})
    };
    let done =
        ingest(&[row("q", "model_a"), row("r", "model_b"), row("s", "tie"), row("t", "tie (bothbad)")], json!({}));
    let p_hats: Vec<f64> = verdicts(&done).into_iter().map(|(.., p)| p).collect();
    assert_eq!(p_hats, [1.0, 0.0, 0.5, 0.5]);
    let comparison = done.rows::<Comparison>("comparisons").remove(0);
    assert_eq!(say(&comparison.a_prompt), "user: q");
    assert_eq!(say(&comparison.b_response), "assistant: b1 | user: more | assistant: b2");
    assert_eq!(done.rows::<Verdict>("verdicts")[0].judge.as_deref(), Some("arena_user_1"));
    let bad = Data::of("a.jsonl", row("q", "model_c").to_string()).run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(bad.contains("column `winner` is the text \"model_c\", wanted model_a, model_b or tie"), "{bad}");
}

#[test]
fn arena_lists_stand_in_text() {
    let header = "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n";
    let csv = [
        header,
        "30192,m,n,\"[\"\"q\"\",\"\"more\"\"]\",\"[\"\"a1\"\",\"\"a2\"\"]\",\"[\"\"b1\"\",null]\",0,1,0\n",
        "30193,m,n,\"[\"\"r\"\"]\",\"[\"\"a\"\"]\",\"[\"\"b\"\"]\",0,0,1\n",
    ]
    .concat();
    let done = Data::of("train.csv", &csv).run(&["train.csv"], json!({})).unwrap();
    let comparisons: Vec<Comparison> = done.rows("comparisons");
    assert_eq!(say(&comparisons[0].a_response), "assistant: a1 | user: more | assistant: a2");
    assert_eq!(say(&comparisons[0].b_response), "assistant: b1 | user: more | assistant: ");
    assert_eq!(comparisons[0].comparison_id, "30192");
    assert_eq!(verdicts(&done).into_iter().map(|(.., p)| p).collect::<Vec<_>>(), [0.0, 0.5]);
    let two = csv.replace("0,1,0\n", "1,1,0\n");
    let error = Data::of("train.csv", two).run(&["train.csv"], json!({})).err().unwrap();
    assert!(error.contains("are [1.0, 1.0, 0.0], wanted one 1"), "{error}");
}

#[test]
fn tulu_preferences_have_ratings_and_whole_conversations() {
    let row = json!({"id": "ai2-adapt-dev/x_1", "source": "x", "prompt": "q", "chosen": chat(&["q", "a"]),
        "rejected": chat(&["q", "b"]),
        "chosen_rating": 4.75, "rejected_rating": 2.0, "chosen_model": "m", "rejected_model": "n"});
    let done = ingest(&[row], json!({}));
    let pair = done.rows::<Pair>("pairs").remove(0);
    assert_eq!([say(&pair.chosen_prompt), say(&pair.chosen)], ["user: q", "assistant: a"]);
    let responses: Vec<Response> = done.rows("responses");
    assert_eq!((responses[0].score, responses[1].model.as_deref()), (Some(4.75), Some("n")));
}

#[test]
fn open_assistant_trees_compare_ranked_replies() {
    let node = |id: &str, role: &str, rank: Option<u32>, replies: Vec<Value>| {
        json!({"message_id": id, "text": format!("text {id}"), "role": role, "rank": rank, "lang": "en",
            "replies": replies})
    };
    let below = node(
        "p2",
        "prompter",
        None,
        vec![node("x", "assistant", Some(1), vec![]), node("y", "assistant", Some(0), vec![])],
    );
    let root = node(
        "p1",
        "prompter",
        None,
        vec![
            node("a", "assistant", Some(0), vec![below]),
            node("b", "assistant", Some(1), vec![]),
            node("c", "assistant", None, vec![]),
        ],
    );
    let lonely = node("p3", "prompter", None, vec![node("d", "assistant", Some(0), vec![])]);
    let tree = |root: Value| json!({"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": root});
    let done = ingest(&[tree(root), tree(lonely)], json!({}));
    assert_eq!(verdicts(&done), told(&[("text a", "text b", 1.0), ("text x", "text y", 0.0)]));
    let comparison = done.rows::<Comparison>("comparisons").remove(1);
    assert_eq!(say(&comparison.a_prompt), "user: text p1 | assistant: text a | user: text p2");
    assert_eq!(comparison.a_response_id, "x");
    assert_eq!((done.balance(), done.rejects()), ([3, 2, 1], vec![(2, "nothing_to_compare".to_owned())]));
}

/// A message as a row of the tables on the hub.
fn row(id: &str, parent: Option<&str>, role: &str, rank: Option<f64>) -> Value {
    json!({"message_id": id, "parent_id": parent, "user_id": "u", "created_date": "2023-02-05", "text": format!("text {id}"),
        "role": role, "lang": "en", "review_count": 3, "deleted": false, "rank": rank, "synthetic": false,
        "model_name": null, "message_tree_id": "p1", "tree_state": "ready_for_export",
        "emojis": {"name": ["+1"], "count": [2]}, "labels": {"name": ["spam"], "value": [0.0], "count": [3]}})
}

#[test]
fn open_assistant_rows_say_what_the_trees_say() {
    let rows = [
        row("p1", None, "prompter", None),
        row("a", Some("p1"), "assistant", Some(0.0)),
        row("p2", Some("a"), "prompter", Some(0.0)),
        row("x", Some("p2"), "assistant", Some(1.0)),
        row("y", Some("p2"), "assistant", Some(0.0)),
        row("b", Some("p1"), "assistant", Some(1.0)),
        row("c", Some("p1"), "assistant", None),
        row("z", Some("p2"), "assistant", Some(1.0)),
        row("p3", None, "prompter", None),
        row("d", Some("p3"), "assistant", Some(0.0)),
    ];
    let done = ingest(&rows, json!({}));
    assert_eq!(
        verdicts(&done),
        told(&[
            ("text x", "text y", 0.0),
            ("text a", "text b", 1.0),
            ("text x", "text z", 0.5),
            ("text y", "text z", 1.0)
        ])
    );
    let comparison = done.rows::<Comparison>("comparisons").remove(0);
    assert_eq!(say(&comparison.a_prompt), "user: text p1 | assistant: text a | user: text p2");
    assert_eq!((comparison.a_response_id.as_str(), comparison.source_line), ("x", Some(5)));
    // Each row is in a comparison, or in the table of rejects.
    let left = [7, 9, 10].map(|line| (line, "nothing_to_compare".to_owned()));
    assert_eq!((done.balance(), done.rejects()), ([7, 4, 3], left.to_vec()));
    assert_eq!(done.outcome.figures["rows of the files"], 10);
    let warned = |event: &Event| matches!(event, Event::Warned { text } if text.contains("labels"));
    assert!(!done.events.iter().any(warned), "{:?}", done.events);

    // A tree may go over several files, in any order.
    let data = Data::new();
    let text = |rows: &[Value]| rows.iter().map(|row| row.to_string() + "\n").collect::<String>();
    data.write("one.jsonl", text(&rows[4..])).write("two.jsonl", text(&rows[..4]));
    let parted = data.run(&["one.jsonl", "two.jsonl"], json!({})).unwrap();
    assert_eq!(parted.balance(), [7, 4, 3]);
    let ports = data.ports(&["one.jsonl"], json!({}));
    assert!(ports.iter().any(|port| port == "verdicts"), "{ports:?}");
}

#[test]
fn open_assistant_rows_that_fit_in_no_tree_are_named() {
    let rows = [
        row("p", None, "prompter", None),
        row("a", Some("p"), "assistant", Some(0.0)),
        row("b", Some("p"), "assistant", Some(1.0)),
        row("a", Some("p"), "assistant", Some(0.0)),
        row("b", Some("p"), "assistant", Some(7.0)),
        row("lost", Some("gone"), "assistant", Some(0.0)),
        row("below", Some("lost"), "prompter", None),
        row("own", Some("own"), "prompter", None),
        json!({"message_id": "mute", "parent_id": "p", "text": null, "role": "assistant", "rank": 2.0}),
        row("after", Some("mute"), "prompter", None),
    ];
    let done = ingest(&rows, json!({"on_bad_row": "reject"}));
    assert_eq!(verdicts(&done), told(&[("text a", "text b", 1.0)]));
    let reasons = [
        (4, "duplicate"),
        (5, "id_conflict"),
        (6, "missing_parent"),
        (7, "missing_parent"),
        (8, "circle"),
        (9, "missing"),
        (10, "missing_parent"),
    ];
    assert_eq!(done.rejects(), reasons.map(|(line, reason)| (line, reason.to_owned())));
    assert_eq!(done.balance(), [8, 1, 7]);
    let text: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    let error = Data::of("a.jsonl", text).run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("a.jsonl:6: missing_parent: message `gone` above it is not in the files"), "{error}");
    let unranked = json!({"message_id": "a", "parent_id": null, "text": "t", "role": "prompter"});
    let found = Data::of("a.jsonl", unranked.to_string()).check(&["a.jsonl"], json!({}));
    assert!(found[0].text.contains("format `open_assistant_rows` needs `rank`"), "{found:?}");
}

/// Warnings of a run.
fn warnings<'a>(done: &'a Done) -> Vec<&'a str> {
    let text = |event: &'a Event| match event {
        Event::Warned { text } => Some(text.as_str()),
        _ => None,
    };
    done.events.iter().filter_map(text).collect()
}

#[test]
fn numbers_and_truth_values_are_read_where_they_are_text() {
    let of = |label: Value| {
        let mut row = json!({"prompt": "q", "response_0": "a", "response_1": "b"});
        row.as_object_mut().unwrap().extend(label.as_object().unwrap().clone());
        row
    };
    for (label, p_hat) in [
        (json!({"overall_preference": "-3"}), 1.0),
        (json!({"overall_preference": " +3 "}), 0.0),
        (json!({"overall_preference": "0.0"}), 0.5),
        (json!({"better_response_id": "1"}), 0.0),
        (json!({"p_hat": "0.75"}), 0.75),
        (json!({"labels": true}), 1.0),
        (json!({"labels": "False"}), 0.0),
        (json!({"winner_model_a": false, "winner_model_b": "true", "winner_tie": "0"}), 0.0),
    ] {
        let done = ingest(&[of(label.clone())], json!({"form": "chat"}));
        assert_eq!(verdicts(&done), told(&[("a", "b", p_hat)]), "{label}");
    }
    let labels =
        ["True", "false", "1", " 0.25 "].map(|label| json!({"prompt": "q", "completion": label, "label": label}));
    let items: Vec<Item> = ingest(&labels, json!({"form": "chat"})).rows("items");
    assert_eq!(items.iter().map(|item| item.label).collect::<Vec<_>>(), [1.0, 0.0, 1.0, 0.25]);
    let row = json!({"prompt": "q", "chosen": "a", "rejected": "b", "agreement": "0.8"});
    assert_eq!(ingest(&[row], json!({})).rows::<Pair>("pairs")[0].p_hat, 0.8);
    let csv = "prompt,chosen,rejected,agreement\nq,a,b,0.8\n";
    let done = Data::of("a.csv", csv).run(&["a.csv"], json!({})).unwrap();
    assert_eq!(done.rows::<Pair>("pairs")[0].p_hat, 0.8);
    for (label, why) in [
        (json!({"feedback": true}), "column `feedback` is the truth value true, wanted a number"),
        (json!({"feedback": "inf"}), "column `feedback` is the text \"inf\", wanted a number"),
        (json!({"overall_preference": "70%"}), "column `overall_preference` is the text \"70%\", wanted a number"),
        // The places 1 and 2 in a column of ids, which begin at 0.
        (
            json!({"better_response_id": 2}),
            "column `better_response_id` is 2, wanted 0 (the first) or 1 (the second); for 1 and 2 name it `columns: \
             {preference: better_response_id}`",
        ),
    ] {
        let error = Data::of("a.jsonl", of(label).to_string()).run(&["a.jsonl"], json!({})).err().unwrap();
        assert!(error.contains(why), "{error}");
    }
    let places =
        ingest(&[of(json!({"better_response_id": 2}))], json!({"columns": {"preference": "better_response_id"}}));
    assert_eq!(verdicts(&places)[0].2, 0.0);
}

#[test]
fn labels_that_all_prefer_one_side_are_a_warning() {
    let rows = |label: &dyn Fn(usize) -> Value| -> Vec<Value> {
        (0..10)
            .map(|i| json!({"prompt": format!("q{i}"), "response_0": "a", "response_1": "b", "feedback": label(i)}))
            .collect()
    };
    // 1 and 2 for the first and the second.
    let done = ingest(&rows(&|i| json!(1 + i % 2)), json!({}));
    let found = warnings(&done);
    assert!(
        found[0].starts_with("of 10 labels none prefers the first response, 5 prefer the second and 5 neither;"),
        "{found:?}"
    );
    assert!(found[0].contains("`columns: {preference: THEIRS}`"), "{found:?}");
    for label in [&|i| json!(i % 3) as Value, &|_| json!(2)] as [&dyn Fn(usize) -> Value; 2] {
        assert_eq!(warnings(&ingest(&rows(label), json!({}))), Vec::<&str>::new());
    }
}

#[test]
fn truth_values_beside_responses_without_labels_are_a_warning() {
    let row = |safe: Value| json!({"prompt": "q", "response": "a", "is_safe": safe, "category": {"x": true}});
    for safe in [json!(false), json!("True")] {
        let done = ingest(&[row(safe)], json!({}));
        let found = warnings(&done);
        assert!(found[0].starts_with("what looks like labels is not read: `is_safe`; if it is"), "{found:?}");
        assert_eq!(found.len(), 1, "{found:?}");
    }
    let named = ingest(&[row(json!("True"))], json!({"columns": {"label": "is_safe"}}));
    assert_eq!(named.rows::<Item>("items")[0].label, 1.0);
}

#[test]
fn conversations_with_a_wrong_message_are_conversations() {
    let wrong = json!({"role": "tool", "content": {"result": 3}});
    let row = json!({"messages": [chat(&["q"])[0], wrong, {"role": "assistant", "content": "a"}]});
    let data = Data::of("a.jsonl", row.to_string());
    assert!(data.ports(&["a.jsonl"], json!({})).contains(&"items".to_owned()));
    let error = data.run(&["a.jsonl"], json!({})).err().unwrap();
    assert!(error.contains("column `messages[1].content` is an object of 1 fields, wanted text"), "{error}");
}

#[test]
fn responses_that_are_whole_conversations_lose_the_prompt() {
    let rows = [
        json!({"instruction": "q", "generations": [chat(&["q", "a"]), chat(&["q", "b"])], "ratings": [5, 3]}),
        json!({"prompt": chat(&["q", "x", "y"]), "response_0": chat(&["q", "x", "y", "a"]),
            "response_1": chat(&["q", "x", "y", "b"]), "feedback": 0}),
    ];
    for row in rows {
        let done = ingest(&[row], json!({"form": "chat"}));
        assert_eq!(verdicts(&done), told(&[("a", "b", 1.0)]));
    }
}
