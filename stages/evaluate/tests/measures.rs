//! The measures that `measure` asks for, on small tables.

use evaluate::{KIND, Measure};
use harness::{Place, exchanged};
use kit::rows::{Comparison, LeaderboardRow, Message, Reject, SizedVote, SummaryRow, Verdict, Vote};
use kit::{Outcome, Result, Stage, Table};
use serde_json::{Value, json};

fn stage(settings: Value) -> Measure {
    serde_json::from_value(settings).unwrap()
}

fn run(place: &Place, settings: Value) -> Result<Outcome> {
    place.stage("out", &stage(settings))
}

fn figure(place: &Place, metric: &str) -> SummaryRow {
    let rows: Vec<SummaryRow> = place.rows("out/summary");
    let known: Vec<_> = rows.iter().map(|row| row.metric.clone()).collect();
    rows.into_iter().find(|row| row.metric == metric).unwrap_or_else(|| panic!("no {metric} in {known:?}"))
}

fn balanced(outcome: &Outcome) -> Vec<[u64; 3]> {
    outcome.balance.iter().map(|it| [it.read, it.kept, it.rejected]).collect()
}

fn reasons(place: &Place) -> Vec<String> {
    place.rows::<Reject>("out/rejects").into_iter().map(|row| format!("{}: {}", row.input, row.reason)).collect()
}

fn vote(item: usize, annotator: &str, vote: f64) -> Vote {
    Vote {
        comparison_id: format!("c{item:03}"),
        annotator: Some(annotator.to_owned()),
        vote,
        log_odds: None,
        weight: 1.0,
        source_file: Some("votes.jsonl".to_owned()),
        source_line: Some(item as u64 + 1),
    }
}

fn sized(item: usize, model: &str, win: f64, lengths: [f64; 2]) -> SizedVote {
    let Vote { comparison_id, annotator, vote, log_odds, weight, source_file, source_line } = vote(item, model, win);
    let [length_a, length_b] = lengths.map(Some);
    SizedVote { comparison_id, annotator, vote, log_odds, weight, length_a, length_b, source_file, source_line }
}

/// A verdict on prompt `number`: the policy's response, of side a, against a baseline's of five characters.
fn verdict(number: usize, p_hat: f64, answer: &str) -> Verdict {
    let message = |text: &str| vec![Message::new("user", text)];
    let prompt = format!("p{number:03}");
    let row = Comparison {
        comparison_id: format!("c{number:03}"),
        form: "same".to_owned(),
        a_prompt_id: prompt.clone(),
        a_response_id: format!("a{number}"),
        a_prompt: message(&prompt),
        a_response: message(answer),
        b_prompt_id: prompt.clone(),
        b_response_id: format!("b{number}"),
        b_prompt: message(&prompt),
        b_response: message("start"),
        source_file: None,
        source_line: None,
    };
    Verdict::of(row, p_hat, None)
}

#[test]
fn models_are_ranked_with_paired_differences() {
    let wins = [("strong", [0.9, 0.8, 0.5, 0.7]), ("weak", [0.4, 0.3, 0.5, 0.1])];
    let mut rows: Vec<SizedVote> = wins
        .iter()
        .flat_map(|(model, wins)| wins.iter().enumerate().map(|(item, win)| sized(item, model, *win, [30.0, 20.0])))
        .collect();
    // The third model has one item that nobody else has, and its second vote on an item is averaged with the first.
    rows.extend([sized(3, "new", 0.6, [10.0, 20.0]), sized(9, "new", 0.9, [40.0, 20.0])]);
    rows.push(sized(9, "new", 0.5, [60.0, 20.0]));
    rows.push(SizedVote { annotator: None, ..sized(1, "", 0.5, [1.0; 2]) });
    rows.push(SizedVote { weight: 0.0, ..sized(1, "weak", 0.5, [1.0; 2]) });
    let place = Place::new().table("votes", rows);
    let settings = json!({"measure": "leaderboard", "votes": "v", "policy_side": "a"});
    let outcome = run(&place, settings).unwrap();
    assert_eq!(balanced(&outcome), [[13, 11, 2]]);
    assert_eq!(reasons(&place), ["votes: no_annotator", "votes: no_weight"]);
    let table: Vec<LeaderboardRow> = place.rows("out/leaderboard");
    let names: Vec<_> = table.iter().map(|row| (row.rank, row.model.as_str(), row.items)).collect();
    assert_eq!(names, [(1, "strong", 4), (2, "new", 2), (3, "weak", 4)]);
    let [strong, new, weak] = &table[..] else { panic!("{table:?}") };
    // 0.9, 0.8, 0.5, 0.7: mean 0.725, squares 0.0875, error sqrt(0.0875 / 3 / 4).
    assert!((strong.win_rate - 0.725).abs() < 1e-12, "{strong:?}");
    assert!((strong.standard_error.unwrap() - (0.0875f64 / 12.0).sqrt()).abs() < 1e-12, "{strong:?}");
    assert_eq!((strong.wins, strong.draws, strong.losses, strong.discrete_win_rate), (3, 1, 0, 0.875));
    assert_eq!((strong.difference, strong.average_length), (None, Some(30.0)));
    assert!((new.win_rate - 0.65).abs() < 1e-12, "{new:?}");
    assert_eq!((new.common, new.average_length), (Some(1), Some(30.0)));
    // Over four common items: -0.5, -0.5, 0, -0.6: mean -0.4, squares 0.22; one of the two intervals is paired.
    assert!((weak.difference.unwrap() + 0.4).abs() < 1e-12, "{weak:?}");
    let half = (weak.difference_high.unwrap() - weak.difference_low.unwrap()) / 2.0;
    assert!((half - 1.959_964 * (0.22f64 / 12.0).sqrt()).abs() < 1e-6, "{weak:?}");
    let between = figure(&place, "difference/strong-weak");
    assert!((between.value - 0.4).abs() < 1e-12 && between.rows == 4, "{between:?}");
    assert_eq!(outcome.headlines[0].name, "win_rate/strong");
    assert!(outcome.figures.keys().all(|key| !key.starts_with("difference/")));
    // The other side is the model's: 0.3, 0.55 and 0.275 are what is left to win.
    run(&place, json!({"measure": "leaderboard", "votes": "v", "policy_side": "b"})).unwrap();
    let turned: Vec<LeaderboardRow> = place.rows("out/leaderboard");
    assert_eq!((turned[0].model.as_str(), turned[2].model.as_str()), ("weak", "strong"));
    assert!((turned[2].win_rate - 0.275).abs() < 1e-12 && turned[2].average_length == Some(20.0), "{turned:?}");
}

#[test]
fn a_model_that_wins_by_length_falls_behind_at_equal_lengths() {
    let sigmoid = |x: f64| 1.0 / (1.0 + f64::exp(-x));
    let rows = |model: &'static str, own: f64, longer: f64| {
        (0..40).map(move |item| {
            let difference = longer + (item % 5) as f64 * 10.0;
            // As the judge sees it: worth, and 2 tanh(difference / 20) for length.
            sized(item, model, sigmoid(own + 2.0 * (difference / 20.0).tanh()), [100.0 + difference, 100.0])
        })
    };
    let place = Place::new().table("votes", rows("wordy", -0.5, 0.0).chain(rows("terse", 0.5, -40.0)).collect());
    run(&place, json!({"measure": "leaderboard", "votes": "v", "policy_side": "a", "length_ridge": 0.0})).unwrap();
    let table: Vec<LeaderboardRow> = place.rows("out/leaderboard");
    assert_eq!(table[0].model, "wordy");
    let controlled: Vec<f64> = table.iter().map(|row| row.length_controlled.unwrap()).collect();
    assert!(controlled[0] < 0.5 && controlled[1] > 0.5, "{table:?}");
    let row = figure(&place, "length_controlled_win_rate/terse");
    assert!(row.low.unwrap() < row.value && row.value < row.high.unwrap(), "{row:?}");
    // Without lengths there is nothing to control, and the check says where they come from.
    let needs =
        stage(json!({"measure": "leaderboard", "votes": "v", "policy_side": "a", "length_ridge": 0.0})).inputs();
    assert_eq!(needs[0].columns, ["length_a", "length_b"]);
    assert!(needs[0].fix.as_ref().unwrap().contains("length_0"), "{needs:?}");
}

#[test]
fn tables_of_verdicts_are_ranked_too() {
    let table = |wins: [f64; 3]| wins.into_iter().enumerate().map(|(at, p)| verdict(at, p, "an answer")).collect();
    let place = Place::new().table("verdicts", table([0.2, 0.9, 0.6])).table("verdicts", table([0.9, 0.9, 0.6]));
    let settings = json!({"measure": "leaderboard", "verdicts": ["v.one", "v.two"], "names": ["one", "two"],
        "policy_side": "a"});
    let outcome = run(&place, settings).unwrap();
    assert_eq!(balanced(&outcome), [[6, 6, 0]]);
    let rows: Vec<LeaderboardRow> = place.rows("out/leaderboard");
    assert_eq!((rows[0].model.as_str(), rows[1].model.as_str()), ("two", "one"));
    // "an answer" is nine characters.
    assert!((rows[0].win_rate - 0.8).abs() < 1e-12 && rows[0].average_length == Some(9.0), "{rows:?}");
}

#[test]
fn the_length_of_responses_is_taken_out_of_a_win_rate() {
    // Half of the responses are longer than the baseline's by four characters and win, of the others half win.
    let rows = (0..80).map(|at| match at % 2 {
        0 => verdict(at, 0.9, "123456789"),
        _ => verdict(at, if at % 4 == 1 { 0.7 } else { 0.3 }, "12345"),
    });
    let place = Place::new().table("verdicts", rows.collect());
    let settings = json!({"measure": "length_controlled_win_rate", "verdicts": "v", "policy_side": "a", "ridge": 0.0});
    let outcome = run(&place, settings.clone()).unwrap();
    let (plain, controlled) = (figure(&place, "win_rate/soft"), figure(&place, "win_rate/length_controlled"));
    assert!((plain.value - 0.7).abs() < 1e-9 && plain.rows == 80, "{plain:?}");
    // At equal lengths half is won: the fit is exact, as two lengths have two means.
    assert!((controlled.value - 0.5).abs() < 1e-9, "{controlled:?}");
    assert!((figure(&place, "length/difference").value - 2.0).abs() < 1e-12);
    assert_eq!(outcome.headlines[0].name, "win_rate/length_controlled");
    let mut ridge = settings.clone();
    ridge["ridge"] = json!(10.0);
    run(&place, ridge).unwrap();
    let pulled = figure(&place, "win_rate/length_controlled").value;
    assert!(pulled > 0.51 && pulled < 0.7, "{pulled}");
    let won = Place::new().table("verdicts", (0..9).map(|at| verdict(at, 1.0, "x")).collect());
    let error = run(&won, settings).unwrap_err().to_string();
    assert!(error.contains("no optimum") && error.contains("9 prompts"), "{error}");
}

/// Verdicts of a judge that is right on every row but each `wrong`-th, and gold: two of three are wins.
fn judged(rows: usize, wrong: usize) -> [Vec<Verdict>; 2] {
    let gold = |at: usize| f64::from(u8::from(!at.is_multiple_of(3)));
    let judge = |at: usize| if at % wrong == wrong - 1 { 1.0 - gold(at) } else { gold(at) };
    [
        (0..rows).map(|at| verdict(at, judge(at), "x")).collect(),
        (0..rows).map(|at| verdict(at, gold(at), "x")).collect(),
    ]
}

#[test]
fn a_judges_errors_are_taken_out_of_its_win_rate() {
    let [verdicts, gold] = judged(120, 4);
    let settings = json!({"measure": "corrected_win_rate", "verdicts": "v", "gold": "g", "policy_side": "a"});
    // Gold of the first 60 calibrates: of 40 wins the judge sees 30, of 20 losses 15.
    let place = Place::new().table("verdicts", verdicts.clone()).table("gold", gold[..60].to_vec());
    let outcome = run(&place, settings.clone()).unwrap();
    assert_eq!(balanced(&outcome), [[120, 120, 0], [60, 60, 0]]);
    let shares = ["judge/sensitivity", "judge/specificity", "win_rate/judged"].map(|it| figure(&place, it));
    assert_eq!(shares.each_ref().map(|row| row.rows), [40, 20, 60]);
    assert!(shares.iter().zip([0.75, 0.75, 35.0 / 60.0]).all(|(row, it)| (row.value - it).abs() < 1e-12), "{shares:?}");
    let corrected = figure(&place, "win_rate/corrected");
    assert!((corrected.value - 2.0 / 3.0).abs() < 1e-12, "{corrected:?}");
    let width = |row: &SummaryRow| row.high.unwrap() - row.low.unwrap();
    assert!(width(&corrected) > 1.8 * width(&shares[2]), "both samples are uncertain: {corrected:?}");
    assert_eq!(outcome.headlines[0].name, "win_rate/corrected");
    // Gold of exchanged sides says the same, and the other side's rate is what is missing to 1.
    let turned: Vec<Verdict> = gold[..60].iter().map(exchanged).collect();
    let place = Place::new().table("verdicts", verdicts.clone()).table("gold", turned);
    run(&place, settings.clone()).unwrap();
    assert_eq!(figure(&place, "win_rate/corrected"), corrected);
    let mut other = settings.clone();
    other["policy_side"] = json!("b");
    run(&place, other).unwrap();
    assert!((figure(&place, "win_rate/corrected").value + corrected.value - 1.0).abs() < 1e-12);
    // Where all have gold, every second row is kept for the test and shows how right it is.
    let place = Place::new().table("verdicts", verdicts.clone()).table("gold", gold.clone());
    let mut held_out = settings.clone();
    held_out["test_every"] = json!(2);
    run(&place, held_out).unwrap();
    assert_eq!((figure(&place, "win_rate/judged").rows, figure(&place, "win_rate/gold").rows), (60, 60));
    assert!((figure(&place, "win_rate/gold").value - 2.0 / 3.0).abs() < 1e-12);
    let error = run(&place, settings.clone()).unwrap_err().to_string();
    assert!(error.contains("all verdicts have gold labels") && error.contains("test_every: 2"), "{error}");
    // Ties name no winner on either side, and gold about other comparisons is set aside.
    let mut rows = verdicts;
    rows[100].p_hat = 0.5;
    let mut labels = gold[..60].to_vec();
    labels[3].p_hat = 0.5;
    labels.push(verdict(500, 1.0, "other"));
    let place = Place::new().table("verdicts", rows).table("gold", labels);
    let outcome = run(&place, settings).unwrap();
    assert_eq!(balanced(&outcome), [[120, 119, 1], [61, 59, 2]]);
    assert_eq!(reasons(&place), ["verdicts: tie", "gold: tie", "gold: no_verdict"]);
}

#[test]
fn a_judge_not_clearly_better_than_chance_is_refused() {
    // Wrong on every second row: q0 and q1 are about one half.
    let [verdicts, gold] = judged(240, 2);
    let settings = json!({"measure": "corrected_win_rate", "verdicts": "v", "gold": "g", "policy_side": "a"});
    let place = Place::new().table("verdicts", verdicts).table("gold", gold[..120].to_vec());
    let error = run(&place, settings.clone()).unwrap_err().to_string();
    assert!(error.contains("not clearly better than chance") && error.contains("standard errors"), "{error}");
    // Right three times out of four, but known from 8 rows only: more is needed by the default rule, enough for 0.
    let [verdicts, gold] = judged(120, 4);
    let place = Place::new().table("verdicts", verdicts.clone()).table("gold", gold[..8].to_vec());
    assert!(run(&place, settings.clone()).unwrap_err().to_string().contains("label more comparisons"));
    let mut any = settings.clone();
    any["standard_errors"] = json!(0.0);
    run(&place, any).unwrap();
    // No losses among the gold labels, and none at all that match.
    let wins = gold[..60].iter().filter(|row| row.p_hat == 1.0).cloned().collect();
    let place = Place::new().table("verdicts", verdicts.clone()).table("gold", wins);
    let error = run(&place, settings.clone()).unwrap_err().to_string();
    assert!(error.contains("of 40 gold labels 40 match") && error.contains("0 let it lose"), "{error}");
    let other = vec![verdict(500, 1.0, "other")];
    let place = Place::new().table("verdicts", verdicts.clone()).table("gold", other);
    assert!(run(&place, settings.clone()).unwrap_err().to_string().contains("of 1 gold labels 0 match"));
    let mut damaged = verdicts;
    damaged[7].p_hat = f64::NAN;
    let place = Place::new().table("verdicts", damaged).table("gold", gold);
    let error = run(&place, settings).unwrap_err().to_string();
    assert!(error.contains("comparison `c007`") && error.contains("`p_hat` is NaN"), "{error}");
}

/// Three people and a judge on the same items: the people agree on all but each `split`-th item, where one is alone.
fn panel(items: usize, split: usize) -> Vec<Vote> {
    let people = ["people/anna", "people/ben", "people/cleo"];
    (0..items)
        .flat_map(|item| {
            let truth = [1.0, 0.0, 0.5][item % 3];
            let alone = (item % split == split - 1).then(|| (item / split) % 3);
            let said = move |at: usize| {
                if alone == Some(at) { 1.0 - truth + f64::from(u8::from(truth == 0.5)) / 2.0 } else { truth }
            };
            let votes = people.into_iter().enumerate().map(move |(at, name)| vote(item, name, said(at)));
            let judge = if item % 10 == 9 { 1.0 - truth } else { truth };
            votes.chain([
                vote(item, "judges/good", judge),
                vote(item, "judges/bad", if item % 3 == 0 { 1.0 } else { 0.25 }),
            ])
        })
        .collect()
}

fn alternative() -> Value {
    json!({"measure": "alternative_annotator", "votes": "v", "humans": ["people/*"], "epsilon": 0.2})
}

#[test]
fn a_judge_that_agrees_as_people_do_passes() {
    let place = Place::new().table("votes", panel(90, 6));
    let outcome = run(&place, alternative()).unwrap();
    assert_eq!(balanced(&outcome), [[450, 450, 0]]);
    let (good, bad) = (figure(&place, "omega/judges/good"), figure(&place, "omega/judges/bad"));
    assert_eq!((good.value, good.rows, bad.value), (1.0, 3, 0.0));
    assert!(good.note.contains("it passes") && bad.note.contains("it does not pass"), "{good:?}");
    let rho = figure(&place, "rho/judges/good");
    assert!(rho.value > 0.85 && rho.low.unwrap() < rho.value && rho.high.unwrap() > rho.value, "{rho:?}");
    let each = ["anna", "ben", "cleo"].map(|name| figure(&place, &format!("rho/judges/good/people/{name}")).value);
    assert!((each.iter().sum::<f64>() / 3.0 - rho.value).abs() < 1e-12, "{each:?}");
    assert!(figure(&place, "p_value/judges/good/people/anna").value < 0.01);
    // A judge gives nothing up for being cheap: its cost decides.
    let mut strict = alternative();
    strict["epsilon"] = json!(0.0);
    run(&place, strict).unwrap();
    assert_eq!(figure(&place, "omega/judges/good").value, 0.0);
    assert_eq!(outcome.headlines.len(), 4);
}

#[test]
fn votes_that_allow_no_comparison_are_set_aside_or_refused() {
    let mut rows = panel(60, 6);
    // Only Anna saw these two.
    rows.extend([vote(90, "people/anna", 1.0), vote(91, "people/anna", 1.0), vote(90, "judges/good", 1.0)]);
    rows.push(vote(0, "judges/good", 0.0));
    rows.push(Vote { annotator: None, ..vote(1, "", 1.0) });
    // Dora shares ten items: too few to be compared, and still one of the others.
    rows.extend((0..10).map(|item| vote(item, "people/dora", 1.0)));
    let place = Place::new().table("votes", rows.clone());
    let outcome = run(&place, alternative()).unwrap();
    assert_eq!(balanced(&outcome), [[315, 310, 5]]);
    let mut found = reasons(&place);
    found.sort();
    let two = "votes: no_two_people";
    assert_eq!(found, ["votes: duplicate", "votes: no_annotator", two, two, two]);
    assert_eq!(figure(&place, "omega/judges/good").rows, 3);
    let refused = |rows: Vec<Vote>, settings: Value| {
        let place = Place::new().table("votes", rows);
        run(&place, settings).unwrap_err().to_string()
    };
    let mut nobody = alternative();
    nobody["humans"] = json!(["humans/*"]);
    let error = refused(rows.clone(), nobody);
    assert!(error.contains("`humans: [humans/*]` fits nobody"), "{error}");
    let mut all = alternative();
    all["humans"] = json!(["*"]);
    assert!(refused(rows.clone(), all).contains("no annotator but people"), "all are people");
    let mut one = alternative();
    one["humans"] = json!(["people/anna"]);
    assert!(refused(rows.clone(), one).contains("fits `people/anna` alone"));
    let apart = (0..80).flat_map(|item| {
        let person = if item % 2 == 0 { "people/anna" } else { "people/ben" };
        [vote(item, person, 1.0), vote(item, "judges/good", 1.0)]
    });
    assert!(refused(apart.collect(), alternative()).contains("people/anna, people/ben never overlap"));
    let error = refused(panel(20, 6), alternative());
    assert!(error.contains("nobody shares 30 comparisons") && error.contains("`people/anna` (20)"), "{error}");
    let mut damaged = rows;
    damaged[4].vote = f64::NAN;
    let error = refused(damaged, alternative());
    assert!(error.contains("(votes.jsonl:1)") && error.contains("`vote` is NaN"), "{error}");
}

#[test]
fn one_model_is_no_leaderboard() {
    let settings = json!({"measure": "leaderboard", "votes": "v", "policy_side": "a"});
    let place = Place::new().table("votes", (0..5).map(|item| vote(item, "only", 0.7)).collect());
    let error = run(&place, settings.clone()).unwrap_err().to_string();
    assert!(error.contains("at least two models") && error.contains("`only` alone"), "{error}");
    // Models without a common item are ranked, and the missing difference is said.
    let rows = (0..6).map(|item| vote(item, if item < 3 { "one" } else { "two" }, 0.5 + item as f64 / 20.0));
    let place = Place::new().table("votes", rows.collect());
    run(&place, settings.clone()).unwrap();
    let rows: Vec<LeaderboardRow> = place.rows("out/leaderboard");
    assert_eq!((rows[1].difference, rows[1].common, rows[1].average_length), (None, None, None));
    let place = Place::new().table("votes", vec![vote(0, "one", 1.5), vote(0, "two", 0.5)]);
    let error = run(&place, settings).unwrap_err().to_string();
    assert!(error.contains("`vote` is 1.5"), "{error}");
}

#[test]
fn settings_are_checked() {
    let found = |settings| -> Vec<String> {
        let findings = stage(settings).check();
        findings.iter().map(|finding| format!("{}: {}", finding.path.join("."), finding.text)).collect()
    };
    assert_eq!(found(json!({"measure": "leaderboard"})).len(), 1);
    assert_eq!(found(json!({"measure": "leaderboard", "votes": "v"})).len(), 1);
    let findings =
        found(json!({"measure": "leaderboard", "votes": "v", "verdicts": "w", "names": ["x"], "policy_side": "a",
            "baseline": "b", "length_ridge": -1.0}));
    assert_eq!(findings.len(), 4, "{findings:#?}");
    assert_eq!(found(json!({"measure": "leaderboard", "verdicts": ["v", "w"], "names": ["x", "x"]})).len(), 2);
    assert_eq!(found(json!({"measure": "leaderboard", "verdicts": "v", "names": ["x"], "policy_side": "a"})).len(), 1);
    let findings = found(json!({"measure": "corrected_win_rate", "verdicts": "v", "gold": "g", "test_every": 1,
        "standard_errors": -1.0}));
    assert_eq!(findings.len(), 3, "{findings:#?}");
    let findings =
        found(json!({"measure": "length_controlled_win_rate", "verdicts": "v", "policy_side": "a", "baseline": "b",
            "ridge": -0.5}));
    assert_eq!(findings.len(), 2, "{findings:#?}");
    let findings = found(json!({"measure": "alternative_annotator", "votes": "v", "humans": [], "epsilon": 2.0,
        "false_discoveries": 0.0, "least_rows": 1}));
    assert_eq!(findings.len(), 4, "{findings:#?}");
}

#[test]
fn the_key_measure_chooses_the_stage() {
    let of = |settings: Value| (KIND.configure)(settings).map(|(stage, _)| stage.outputs());
    let tables = |settings| -> Vec<Table> { of(settings).ok().unwrap().iter().map(|port| port.table).collect() };
    assert_eq!(tables(json!({"truth": "t"})), [Table::Summary, Table::Rejects]);
    let leaderboard = json!({"measure": "leaderboard", "votes": "v", "policy_side": "a"});
    assert_eq!(tables(leaderboard), [Table::Leaderboard, Table::Summary, Table::Rejects]);
    // A wrong value of the plain form is found at its place.
    let finding = of(json!({"truth": "t", "tokens_per_batch": -1})).err().unwrap();
    assert_eq!(finding.path, ["tokens_per_batch"]);
    let schema = (KIND.schema)().to_value();
    let forms = schema["anyOf"].as_array().unwrap();
    assert_eq!(forms.len(), 5);
    assert!(forms[0]["properties"]["pairs"].is_object() && forms[0]["properties"]["measure"].is_null());
    assert_eq!(forms[4]["properties"]["measure"]["const"], "leaderboard");
}

#[test]
fn the_version_stands_for_the_output() {
    let place = Place::new().table("votes", panel(90, 6));
    let stage = stage(alternative());
    place.stage("out", &stage).unwrap();
    let lines = place.rows::<SummaryRow>("out/summary").into_iter().map(|row| {
        let ends = [Some(row.value), row.low, row.high].map(|end| end.map(|end| format!("{end:.6}")));
        format!("{} {ends:?} {} {}", row.metric, row.rows, row.note)
    });
    harness::check_golden(&stage, lines, "3", "56ceb1bb0743");
}
