//! Votes in the shapes that people have them.

use crate::common;

use common::{Data, Done, say};
use kit::Event;
use kit::rows::{Comparison, Prompt, Reject, Response, SizedVote, Vote};
use serde_json::{Value, json};

fn ingest(rows: &[Value], more: Value) -> Result<Done, String> {
    let text: String = rows.iter().map(|row| row.to_string() + "\n").collect();
    Data::of("a.jsonl", text).run(&["a.jsonl"], more)
}

/// The response of side a, who voted and how, for each vote.
fn votes(done: &Done) -> Vec<(String, String, f64)> {
    let comparisons: Vec<Comparison> = done.rows("comparisons");
    let rows: Vec<Vote> = done.rows("votes");
    let one = |row: &Vote| {
        let about = comparisons.iter().find(|it| it.comparison_id == row.comparison_id).unwrap();
        assert_eq!(row.weight, 1.0);
        (say(&about.a_response), row.annotator.clone().unwrap_or_default(), row.vote)
    };
    rows.iter().map(one).collect()
}

fn told(all: &[(&str, &str, f64)]) -> Vec<(String, String, f64)> {
    all.iter().map(|(a, who, vote)| (format!("text: {a}"), (*who).to_owned(), *vote)).collect()
}

fn row(number: u32, more: Value) -> Value {
    let mut row = json!({"prompt": "q", "response1": format!("a{number}"), "response2": format!("b{number}")});
    row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    row
}

#[test]
fn a_column_for_each_annotator() {
    let rows = [
        row(1, json!({"annotator1": 1, "annotator2": 2, "annotator10": 0})),
        row(2, json!({"annotator1": 2, "annotator2": null, "annotator10": "1"})),
    ];
    let done = ingest(&rows, json!({"votes": {"first": 1, "second": 2, "tie": 0}})).unwrap();
    assert_eq!(
        votes(&done),
        told(&[
            ("a1", "annotator1", 1.0),
            ("a1", "annotator2", 0.0),
            ("a1", "annotator10", 0.5),
            ("a2", "annotator1", 0.0),
            ("a2", "annotator10", 1.0)
        ])
    );
    assert_eq!((&done.outcome.figures["votes"], &done.outcome.figures["annotators"]), (&json!(5), &json!(3)));
    assert_eq!((done.rows::<Response>("responses").len(), done.rows::<Prompt>("prompts").len()), (4, 1));
    let layout = done.outcome.figures["columns"].as_str().unwrap();
    assert!(layout.contains("votes from `annotator1`, `annotator2`, `annotator10`"), "{layout}");
    assert!(layout.contains("a vote of 1 = the first; 2 = the second; 0 = a tie"), "{layout}");
    // Other names are given; where a value is on no scale the row is told with its column, and all others are taken.
    let rows = [row(1, json!({"anna": "A", "ben": "tie"})), row(2, json!({"anna": "B", "ben": "C"}))];
    let settings = json!({"columns": {"votes": ["anna", "ben"]}});
    let error = ingest(&rows, settings.clone()).err().unwrap();
    let wanted =
        "a.jsonl:2: outside_scale: column `ben` is c, which is not on the scale: a = the first; b = the second";
    assert!(error.contains("the values a, b, c, tie can mean several things"), "{error}");
    let mut many = vec![row(1, json!({"anna": "A", "ben": "tie"})); 50];
    (0..50).for_each(|at| many[at]["response1"] = json!(format!("a{at}")));
    many.push(rows[1].clone());
    let error = ingest(&many, settings.clone()).err().unwrap();
    assert!(error.contains(&wanted.replace(":2:", ":51:")), "{error}");
    let mut reject = settings;
    reject["on_bad_row"] = json!("reject");
    let done = ingest(&many, reject).unwrap();
    assert_eq!((done.rejects(), done.rows::<Vote>("votes").len()), (vec![(51, "outside_scale".to_owned())], 100));
}

#[test]
fn a_list_an_object_and_json_as_text() {
    let rows = [row(1, json!({"votes": ["A", "tie", "B"]})), row(2, json!({"votes": ["B", null]}))];
    let expected = told(&[("a1", "1", 1.0), ("a1", "2", 0.5), ("a1", "3", 0.0), ("a2", "1", 0.0)]);
    assert_eq!(votes(&ingest(&rows, json!({})).unwrap()), expected);
    let text =
        "prompt,response1,response2,votes\nq,a1,b1,\"[\"\"A\"\",\"\"tie\"\",\"\"B\"\"]\"\nq,a2,b2,\"[\"\"B\"\"]\"\n";
    assert_eq!(votes(&Data::of("a.csv", text).run(&["a.csv"], json!({})).unwrap()), expected);
    let rows = [row(1, json!({"humans": {"author_4": "model_a", "expert_24": "tie"}}))];
    let done = ingest(&rows, json!({"columns": {"votes": "humans"}})).unwrap();
    assert_eq!(votes(&done), told(&[("a1", "author_4", 1.0), ("a1", "expert_24", 0.5)]));
    // As HelpSteer 3 has them, from -3 to 3.
    let each = json!([{"score": -2, "reasoning": "x"}, {"score": 3, "annotator": "u7"}, {"score": 0}]);
    let rows = [row(1, json!({"overall_preference": -1, "individual_preference": each}))];
    let settings = json!({"columns": {"votes": "individual_preference"}, "votes": {"first": -3, "second": 3}});
    let done = ingest(&rows, settings).unwrap();
    assert_eq!(votes(&done), told(&[("a1", "1", 5.0 / 6.0), ("a1", "u7", 0.0), ("a1", "3", 0.5)]));
    let error = ingest(&rows, json!({"columns": {"votes": "individual_preference"}})).err().unwrap();
    assert!(error.contains("`votes: {first: -2, second: 3}` or `votes: {first: 3, second: -2}`"), "{error}");
}

#[test]
fn a_row_for_each_vote() {
    let vote = |number, who: &str, vote: &str| row(number, json!({"annotator": who, "vote": vote}));
    let mut turned = vote(1, "cleo", "first");
    turned["response1"] = json!("b1");
    turned["response2"] = json!("a1");
    let rows = [vote(1, "anna", "first"), vote(2, "anna", "second"), vote(1, "ben", "tie"), turned];
    let done = ingest(&rows, json!({})).unwrap();
    // The last one saw them the other way round.
    let expected = [("a1", "anna", 1.0), ("a2", "anna", 0.0), ("a1", "ben", 0.5), ("a1", "cleo", 0.0)];
    assert_eq!(votes(&done), told(&expected));
    assert_eq!((done.rows::<Comparison>("comparisons").len(), done.balance()), (2, [4, 4, 0]));
    // Without texts: the comparison's id and two columns of votes.
    let rows = [
        json!({"set": "s", "i": 0, "judge_name": "gpt", "ab": 1, "ba": 2}),
        json!({"set": "t", "i": 0, "judge_name": "gpt", "ab": null, "ba": 2}),
        json!({"set": "t", "i": null, "judge_name": "gpt", "ab": 1, "ba": 1}),
    ];
    let columns = json!({"id": "{set}/{i}", "annotator": "judge_name", "votes": ["ab", "ba"]});
    let settings = json!({"format": "votes", "columns": columns, "on_bad_row": "reject"});
    let done = ingest(&rows, settings.clone()).unwrap();
    let found: Vec<Vote> = done.rows("votes");
    let found: Vec<_> =
        found.iter().map(|it| (it.comparison_id.as_str(), it.annotator.as_deref().unwrap(), it.vote)).collect();
    assert_eq!(found, [("s/0", "gpt/ab", 1.0), ("s/0", "gpt/ba", 0.0), ("t/0", "gpt/ba", 0.0)]);
    assert_eq!(done.rows::<Reject>("rejects")[0].detail, "column `i`, of which the id `{set}/{i}` is made, has none");
    let data = Data::of("a.jsonl", rows[0].to_string());
    assert_eq!(data.ports(&["a.jsonl"], settings.clone()), ["votes", "rejects"]);
    let mut held_out = settings;
    held_out["holdout"] = json!(0.5);
    assert!(data.check(&["a.jsonl"], held_out)[0].text.contains("votes without prompts"));
}

#[test]
fn votes_without_texts_may_have_lengths() {
    let rows = [
        json!({"i": 0, "model": "m", "len_1": 10, "len_2": 25, "preference": 1.75}),
        json!({"i": 1, "model": "m", "len_1": 10, "len_2": null, "preference": 1.0}),
        json!({"i": 2, "model": "m", "len_1": -1, "len_2": 3, "preference": 1.0}),
    ];
    let columns = json!({"id": "{i}", "annotator": "model", "votes": "preference", "length_0": "len_2",
        "length_1": "len_1"});
    let settings = json!({"format": "votes", "columns": columns, "votes": {"first": 2, "second": 1},
        "on_bad_row": "reject"});
    let done = ingest(&rows, settings.clone()).unwrap();
    let found: Vec<SizedVote> = done.rows("votes");
    let found: Vec<_> = found.iter().map(|it| (it.vote, it.length_a, it.length_b)).collect();
    assert_eq!((found, done.balance()), (vec![(0.75, Some(25.0), Some(10.0))], [3, 1, 2]));
    let details: Vec<String> = done.rows::<Reject>("rejects").into_iter().map(|row| row.detail).collect();
    assert!(details[0].contains("len_2") && details[1].contains("-1"), "{details:?}");
    // One length alone is no pair of lengths.
    let mut one = settings;
    one["columns"].as_object_mut().unwrap().remove("length_1");
    assert!(ingest(&rows[..1], one).is_err());
}

#[test]
fn counts_have_no_annotators() {
    let counted = |rows: &[Value], more: Value| -> Vec<(Option<String>, f64, f64)> {
        let votes: Vec<Vote> = ingest(rows, more).unwrap().rows("votes");
        votes.into_iter().map(|it| (it.annotator, it.vote, it.weight)).collect()
    };
    let expected = [(None, 1.0, 3.0), (None, 0.5, 1.0), (None, 1.0, 0.5), (None, 0.0, 1.5)];
    let rows =
        [row(1, json!({"votes_a": 3, "votes_b": 0, "ties": 1})), row(2, json!({"votes_a": 0.5, "votes_b": 1.5}))];
    assert_eq!(counted(&rows, json!({})), expected);
    let rows = [row(1, json!({"votes": {"a": 3, "b": 0, "tie": 1}})), row(2, json!({"votes": {"A": 0.5, "B": 1.5}}))];
    let mut found = counted(&rows, json!({}));
    found[..2].sort_by(|one, other| other.1.total_cmp(&one.1));
    assert_eq!(found[..2], expected[..2]);
    let error = ingest(&[row(1, json!({"votes_a": -1, "votes_b": 2}))], json!({})).err().unwrap();
    assert!(error.contains("a.jsonl:1: bad_value: column `votes_a` is -1, wanted a number of votes"), "{error}");
    // A weight is of every vote of its row.
    let rows = [row(1, json!({"votes": ["A", "B"], "weight": 2.0}))];
    assert_eq!(counted(&rows, json!({})).iter().map(|it| it.2).collect::<Vec<_>>(), [2.0, 2.0]);
}

#[test]
fn a_scale_that_can_mean_two_things_is_asked_for() {
    let finding = |votes: Value, more: Value| {
        let data = Data::of("a.jsonl", row(1, json!({"votes": votes})).to_string());
        data.check(&["a.jsonl"], more).into_iter().map(|it| (it.path, data.short(&it.text))).collect::<Vec<_>>()
    };
    let found = finding(json!([1, 2, 0]), json!({}));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, ["votes"]);
    assert_eq!(
        found[0].1,
        "a.jsonl: the votes in `votes`: the values 0, 1, 2 can mean several things; say which is which: `votes: \
         {first: 1, second: 2, tie: 0}`, or counted from 0 `votes: {first: 0, second: 1, tie: 2}`"
    );
    assert_eq!(finding(json!([1, 2, 0]), json!({"votes": {"first": 1, "second": 2, "tie": 0}})), []);
    let twice = finding(json!([1, 2, 0]), json!({"votes": {"first": 1, "second": 1}}));
    assert!(twice[0].1.contains("`1` stands for two things"), "{twice:?}");
    let empty = finding(json!([1, 2, 0]), json!({"votes": {"first": [], "second": 1}}));
    assert!(empty[0].1.contains("an empty list says nothing"), "{empty:?}");
    // A format without votes refuses the setting.
    let data = Data::of("a.jsonl", r#"{"prompt":"q","chosen":"a","rejected":"b"}"#);
    let found = data.check(&["a.jsonl"], json!({"votes": {"first": 1, "second": 2}}));
    assert!(found[0].text.contains("has no effect: format `preference`"), "{found:?}");
    let found = data.check(&["a.jsonl"], json!({"columns": {"prompt": ["prompt", "chosen"]}}));
    assert!(found[0].text.contains("only `votes` can stand in several columns"), "{found:?}");
    let found = data.check(&["a.jsonl"], json!({"keep": ["repeated"]}));
    assert!(found[0].text.contains("name them: `columns: {id: THEIRS}`"), "{found:?}");
}

#[test]
fn a_share_of_annotators_is_the_label() {
    let row = |agreement: Value| json!({"prompt": "q", "chosen": "a", "rejected": "b", "pair_agreement": agreement});
    let done = ingest(&[row(json!(0.75))], json!({})).unwrap();
    assert_eq!(done.rows::<kit::rows::Pair>("pairs")[0].p_hat, 0.75);
    assert!(done.outcome.figures["columns"].as_str().unwrap().contains("agreement from `pair_agreement`"));
    // A kappa or a percentage is none, and said to be unread.
    for other in [json!(0.2), json!(75), json!("high")] {
        let done = ingest(&[row(other)], json!({})).unwrap();
        assert_eq!(done.rows::<kit::rows::Pair>("pairs")[0].p_hat, 1.0);
        let warned = |event: &Event| matches!(event, Event::Warned { text } if text.contains("`pair_agreement`"));
        assert!(done.events.iter().any(warned), "{:?}", done.events);
    }
    let settings = json!({"columns": {"agreement": "pair_agreement"}});
    let error = ingest(&[row(json!(0.2))], settings).err().unwrap();
    assert!(error.contains("a.jsonl:1: bad_value: column `pair_agreement` is 0.2, wanted a share of those"), "{error}");
}

#[test]
fn other_labels_come_first() {
    // How many people liked a post is no vote on two responses.
    let data = Data::of("a.jsonl", row(1, json!({"votes": 12})).to_string());
    assert_eq!(data.ports(&["a.jsonl"], json!({})), ["comparisons", "responses", "prompts", "rejects"]);
    let data = Data::of("a.jsonl", row(1, json!({"feedback": 1, "annotator1": 1, "annotator2": 2})).to_string());
    assert!(data.ports(&["a.jsonl"], json!({})).contains(&"verdicts".to_owned()));
    let settings = json!({"columns": {"votes": ["annotator1", "annotator2"]}});
    assert_eq!(data.ports(&["a.jsonl"], settings)[0], "votes");
}

#[test]
fn rows_about_the_same_responses_are_one_comparison_or_each_its_own() {
    let of = |number, id: u32, vote: &str| row(number, json!({"idx": id, "votes": [vote]}));
    let mut turned = of(1, 2, "A");
    turned["response1"] = json!("b1");
    turned["response2"] = json!("a1");
    let mut empty = of(2, 3, "A");
    empty["response1"] = json!(" ");
    let rows = [of(1, 0, "A"), of(1, 1, "B"), turned, empty];
    let done = ingest(&rows, json!({})).unwrap();
    assert_eq!(votes(&done), told(&[("a1", "1", 1.0), ("a1", "1", 0.0), ("a1", "1", 0.0)]));
    assert_eq!((done.balance(), done.rejects()), ([4, 3, 1], vec![(4, "empty".to_owned())]));
    let noted = |event: &Event| matches!(event, Event::Noted { text } if text.starts_with("2 rows are about the two"));
    assert!(done.events.iter().any(noted), "{:?}", done.events);
    let keep = json!({"columns": {"id": "idx"}, "keep": ["repeated", "empty"]});
    let done = ingest(&rows, keep).unwrap();
    let comparisons: Vec<Comparison> = done.rows("comparisons");
    assert_eq!(comparisons.iter().map(|it| it.comparison_id.as_str()).collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    assert_eq!(done.rows::<Vote>("votes").iter().map(|it| it.vote).collect::<Vec<_>>(), [1.0, 0.0, 1.0, 1.0]);
    assert_eq!(done.balance(), [4, 4, 0]);
}

#[test]
fn labelled_rows_are_kept_in_the_same_way() {
    let of = |id: u32, a: &str, b: &str| json!({"id": id, "prompt": "q", "output_1": a, "output_2": b, "label": 1});
    let rows = [of(0, "x", "y"), of(1, "y", "x"), of(2, "x", "x"), of(3, "", "z"), of(0, "u", "v")];
    let columns = json!({"preference": "label"});
    let reject = json!({"columns": columns, "on_bad_row": "reject"});
    assert_eq!(ingest(&rows, reject).unwrap().balance(), [5, 1, 4]);
    let keep = json!({"columns": columns, "on_bad_row": "reject", "keep": ["repeated", "identical", "empty"]});
    let done = ingest(&rows, keep).unwrap();
    // One id for other texts is still wrong.
    assert_eq!((done.balance(), done.rejects()), ([5, 4, 1], vec![(5, "id_conflict".to_owned())]));
    let pairs: Vec<kit::rows::Pair> = done.rows("pairs");
    let ids: std::collections::BTreeSet<&str> = pairs.iter().map(|pair| pair.pair_id.as_str()).collect();
    assert_eq!((pairs.len(), ids.len()), (4, 4));
}

#[test]
fn a_hold_out_takes_votes_with_their_prompts() {
    let rows: Vec<Value> = (0..60)
        .map(|at| {
            let mut row = row(at, json!({"votes": ["A", "B"]}));
            row["prompt"] = json!(format!("q{at}"));
            row
        })
        .collect();
    let done = ingest(&rows, json!({"holdout": 0.4})).unwrap();
    let ids = |port: &str| -> std::collections::BTreeSet<String> {
        done.rows::<Comparison>(port).into_iter().map(|it| it.comparison_id).collect()
    };
    let voted = |port: &str| -> std::collections::BTreeSet<String> {
        done.rows::<Vote>(port).into_iter().map(|it| it.comparison_id).collect()
    };
    assert_eq!(ids("comparisons"), voted("votes"));
    assert_eq!(ids("holdout_comparisons"), voted("holdout_votes"));
    assert!(!ids("comparisons").is_empty() && !ids("holdout_comparisons").is_empty());
}
