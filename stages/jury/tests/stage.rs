//! The stage end to end on tables made here.

use harness::{Place, exchanged};
use jury::Jury;
use kit::rows::{AnnotatorRow, Comparison, JuryVerdict, Message, Reject, SummaryRow, Verdict, Vote};
use kit::{Event, Outcome, Result, Stage};
use serde_json::{Value, json};

fn stage(settings: Value) -> Jury {
    serde_json::from_value(harness::with(json!({"votes": "v", "comparisons": "c"}), &settings)).unwrap()
}

fn run(place: &Place, name: &str, stage: &Jury) -> Result<Outcome> {
    place.stage(name, stage)
}

fn comparison(number: usize) -> Comparison {
    let (prompt, a, b) = (format!("p{}", number / 2), format!("r{number}a"), format!("r{number}b"));
    let text = |text: &str| vec![Message::new("text", text)];
    Comparison {
        comparison_id: format!("c{number}"),
        form: "same".to_owned(),
        a_prompt: text(&prompt),
        b_prompt: text(&prompt),
        a_response: text(&a),
        b_response: text(&b),
        a_prompt_id: prompt.clone(),
        b_prompt_id: prompt,
        a_response_id: a,
        b_response_id: b,
        source_file: Some("data.jsonl".to_owned()),
        source_line: Some(number as u64 + 1),
    }
}

fn vote(number: usize, annotator: &str, vote: f64) -> Vote {
    Vote {
        comparison_id: format!("c{number}"),
        annotator: (!annotator.is_empty()).then(|| annotator.to_owned()),
        vote,
        log_odds: None,
        weight: 1.0,
        source_file: Some("votes.jsonl".to_owned()),
        source_line: Some(number as u64 + 1),
    }
}

fn verdict(row: Comparison, p_hat: f64) -> Verdict {
    Verdict::of(row, p_hat, Some("j".to_owned()))
}

/// Votes of three people on seven comparisons; 2 is none.
const VOTES: [[f64; 3]; 7] = [
    [1.0, 1.0, 1.0],
    [1.0, 1.0, 0.0],
    [0.0, 0.0, 0.0],
    [0.0, 0.5, 0.0],
    [1.0, 1.0, 2.0],
    [0.5, 0.5, 0.5],
    [2.0, 0.0, 0.0],
];

/// EM's results on them: maximum likelihood, and with one vote added to each cell.
const ML: [f64; 7] = [1.0, 1.0, 0.0, 0.0, 1.0, 0.5, 0.0];
const ADD_ONE: [f64; 7] =
    [0.777012374488, 0.728699282123, 0.454102954907, 0.42859183138, 0.730825960336, 0.392115524242, 0.508771775266];
const ROUNDS: [f64; 2] = [6.0, 456.0];
const LIKELIHOODS: [f64; 2] = [-10.325534177382883, -19.16884027378641];

fn votes(of: &[[f64; 3]]) -> Vec<Vote> {
    let names = ["anna", "ben", "cleo"];
    let row = |(number, row): (usize, &[f64; 3])| {
        let said = row.iter().zip(names).filter(|(it, _)| **it <= 1.0);
        said.map(|(it, name)| vote(number, name, *it)).collect::<Vec<_>>()
    };
    of.iter().enumerate().flat_map(row).collect()
}

fn place(votes: Vec<Vote>) -> Place {
    let place = Place::new().table("votes", votes);
    place.table("comparisons", (0..VOTES.len()).map(comparison).collect::<Vec<_>>())
}

fn labels(place: &Place, name: &str) -> Vec<f64> {
    place.rows::<JuryVerdict>(&format!("{name}/verdicts")).iter().map(|row| row.p_hat).collect()
}

fn near(got: &[f64], wanted: &[f64]) {
    assert_eq!(got.len(), wanted.len());
    assert!(got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < 1e-9), "{got:?}\n{wanted:?}");
}

fn near_by(got: &[f64], wanted: &[f64], within: f64) {
    assert_eq!(got.len(), wanted.len());
    assert!(got.iter().zip(wanted).all(|(got, wanted)| (got - wanted).abs() < within), "{got:?}\n{wanted:?}");
}

fn figure(place: &Place, name: &str, metric: &str) -> f64 {
    let rows: Vec<SummaryRow> = place.rows(&format!("{name}/summary"));
    rows.iter().find(|row| row.metric == metric).unwrap_or_else(|| panic!("no {metric}")).value
}

fn warnings(place: &Place) -> Vec<String> {
    let events = std::mem::take(&mut *place.events.lock().unwrap());
    let warned = events.into_iter().filter_map(|event| match event {
        Event::Warned { text } => Some(text),
        _ => None,
    });
    warned.collect()
}

/// Each method with what it needs.
fn methods() -> Vec<Value> {
    vec![
        json!({"method": "share"}),
        json!({"method": "beta", "a": 0.5}),
        json!({"method": "dawid_skene", "smoothing": 0}),
        json!({"method": "dawid_skene", "smoothing": 1}),
        json!({"method": "mean"}),
        json!({"method": "mean_log_odds"}),
    ]
}

#[test]
fn shares_and_their_evidence() {
    let place = place(votes(&VOTES));
    let outcome = run(&place, "share", &stage(json!({"method": "share"}))).unwrap();
    near(&labels(&place, "share"), &[1.0, 2.0 / 3.0, 0.0, 1.0 / 6.0, 1.0, 0.5, 0.0]);
    let rows: Vec<JuryVerdict> = place.rows("share/verdicts");
    let evidence = |row: &JuryVerdict| (row.votes_a, row.votes_tie, row.votes_b, row.sources);
    assert_eq!(evidence(&rows[1]), (2.0, 0.0, 1.0, 3));
    assert_eq!(evidence(&rows[4]), (2.0, 0.0, 0.0, 2));
    assert_eq!((rows[0].judge.as_deref(), rows[0].source_line), (Some("jury/share"), Some(1)));
    let metrics = ["sources", "votes", "unanimous", "all_ties", "split", "no_majority", "single"];
    assert_eq!(metrics.map(|it| figure(&place, "share", it)), [3.0, 19.0, 4.0, 1.0, 2.0, 0.0, 0.0]);
    assert_eq!(outcome.figures["split"], json!(2.0));
    // Anna and Ben agree on 5 of 6: chance is (3*3 + 1*2 + 2*1) / 36 = 13/36.
    let kappa = (5.0 / 6.0 - 13.0 / 36.0) / (1.0 - 13.0 / 36.0);
    near(&[figure(&place, "share", "cohen_kappa/anna~ben")], &[kappa]);
    near(&[figure(&place, "share", "exact_agreement/anna~ben")], &[5.0 / 6.0]);
    run(&place, "beta", &stage(json!({"method": "beta", "a": 0.5}))).unwrap();
    near(&labels(&place, "beta"), &[0.875, 2.5 / 4.0, 0.125, 0.25, 2.5 / 3.0, 0.5, 0.5 / 3.0]);
    let table: Vec<AnnotatorRow> = place.rows("share/annotators");
    let votes: Vec<_> =
        table.iter().filter(|row| row.measure == "votes").map(|row| (&*row.annotator, row.value)).collect();
    assert_eq!(votes, [("anna", 6.0), ("ben", 7.0), ("cleo", 6.0)]);
}

#[test]
fn dawid_and_skene() {
    let place = place(votes(&VOTES));
    for (name, smoothing) in [("ml", 0), ("add_one", 1)] {
        run(&place, name, &stage(json!({"method": "dawid_skene", "smoothing": smoothing}))).unwrap();
    }
    // The figures come from these lines of Python over classes (1, 1/2, 0), with s = 0 and s = 1:
    //   P = shares of votes; loop: pi = (s + P.sum(0)) / (3 s + 7); T[k][c, v] = s + sum P[i, c] of votes v, / row sum;
    //   P[i] = pi * prod_k T[k][:, v], / sum; until abs(P - before).max() < 1e-10
    near(&labels(&place, "ml"), &ML);
    near(&labels(&place, "add_one"), &ADD_ONE);
    let found = |name: &str, metric: &str| figure(&place, name, &format!("dawid_skene/{metric}"));
    assert_eq!([found("ml", "iterations"), found("add_one", "iterations")], ROUNDS);
    near(&[found("ml", "log_likelihood"), found("add_one", "log_likelihood")], &LIKELIHOODS);
    let table: Vec<AnnotatorRow> = place.rows("add_one/annotators");
    let matrix: Vec<_> = table.iter().filter(|row| row.measure == "matrix").collect();
    assert_eq!(matrix.len(), 27);
    for row in &matrix {
        let of_truth = matrix.iter().filter(|it| it.annotator == row.annotator && it.truth == row.truth);
        assert!((of_truth.map(|it| it.value).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}

#[test]
fn laws_of_every_method() {
    let straight = place(votes(&VOTES));
    // Other names in another order, rows in another order.
    let renamed = |name: &str| match name {
        "anna" => "zoe",
        "ben" => "abel",
        _ => "mia",
    };
    let mut rows: Vec<Vote> = votes(&VOTES);
    rows.iter_mut().for_each(|row| row.annotator = row.annotator.as_deref().map(|it| renamed(it).to_owned()));
    rows.reverse();
    let permuted = place(rows);
    // All sides exchanged.
    let mirrored = VOTES.map(|row| row.map(|it| if it > 1.0 { it } else { 1.0 - it }));
    let mirrored = place(votes(&mirrored));
    // A vote twice is a vote of weight two.
    let mut rows = votes(&VOTES);
    rows.push(rows[3].clone());
    let twice = place(rows);
    let mut rows = votes(&VOTES);
    rows[3].weight = 2.0;
    rows.push(Vote { weight: 0.0, ..rows[0].clone() });
    let weighted = place(rows);
    // One annotator alone is what it says.
    let alone = place(votes(&VOTES.map(|[a, _, _]| [a, 2.0, 2.0])));
    for (number, settings) in methods().into_iter().enumerate() {
        let (name, stage) = (format!("out{number}"), stage(settings.clone()));
        for place in [&straight, &permuted, &mirrored, &twice, &weighted] {
            run(place, &name, &stage).unwrap();
        }
        let expected = labels(&straight, &name);
        near(&labels(&permuted, &name), &expected);
        near(&labels(&mirrored, &name), &expected.iter().map(|p| 1.0 - p).collect::<Vec<_>>());
        near(&labels(&weighted, &name), &labels(&twice, &name));
        let again = place(votes(&VOTES));
        run(&again, &name, &stage).unwrap();
        assert_eq!(again.bytes(&format!("{name}/verdicts")), straight.bytes(&format!("{name}/verdicts")), "{settings}");
        if settings["method"] == "dawid_skene" {
            // From votes that nobody else gave too, nothing is learnt of the annotator.
            let error = run(&alone, &name, &stage).unwrap_err().to_string();
            assert!(error.contains("all votes are of one annotator, `anna`, and `dawid_skene` learns"), "{error}");
            let apart = place(vec![vote(0, "anna", 1.0), vote(1, "ben", 0.0)]);
            let error = run(&apart, &name, &stage).unwrap_err().to_string();
            assert!(error.contains("no two of 2 annotators voted on the same comparison"), "{error}");
            continue;
        }
        let outcome = run(&alone, &name, &stage).unwrap();
        if !["beta", "mean_log_odds"].contains(&settings["method"].as_str().unwrap()) {
            near(&labels(&alone, &name), &[1.0, 1.0, 0.0, 0.0, 1.0, 0.5]);
        }
        // Nobody voted on the last comparison.
        let rejects: Vec<Reject> = alone.rows(&format!("{name}/rejects"));
        assert_eq!((rejects.len(), rejects[0].row_id.as_str(), rejects[0].reason.as_str()), (1, "c6", "no_vote"));
        assert_eq!(outcome.figures["verdicts"], 6);
        let warned = warnings(&alone);
        assert!(warned.iter().any(|text| text.contains("all votes are of one source, `anna`")), "{warned:?}");
    }
}

#[test]
fn several_judges_are_matched_by_ids_and_turned() {
    let first: Vec<Verdict> = (0..5).map(|at| verdict(comparison(at), 0.9)).collect();
    let mut second: Vec<Verdict> = (1..6).map(|at| exchanged(&verdict(comparison(at), 0.5))).collect();
    // Another id for the same sides.
    second[0].comparison_id = "x".to_owned();
    let place = Place::new().table("verdicts", first).table("verdicts", second);
    let settings =
        |method: &str| -> Jury { serde_json::from_value(json!({"verdicts": ["j", "k"], "method": method})).unwrap() };
    run(&place, "mean", &settings("mean")).unwrap();
    // Sources of a test have one name; the first comparison and the last have one judge.
    near(&labels(&place, "mean"), &[0.9, 0.7, 0.7, 0.7, 0.7, 0.5]);
    // With votes beside them.
    let place = place.table("votes", vec![vote(0, "anna", 0.0)]);
    let mut both = settings("mean_log_odds");
    both.votes = Some(kit::Input(vec!["v".to_owned()]));
    run(&place, "both", &both).unwrap();
    let rows: Vec<JuryVerdict> = place.rows("both/verdicts");
    // (ln 9 - ln(1e6 - 1)) / 2
    let z = (9f64.ln() - (999_999f64).ln()) / 2.0;
    near(&[rows[0].log_odds.unwrap(), rows[0].p_hat], &[z, 1.0 / (1.0 + (-z).exp())]);
    assert_eq!((rows[0].votes_a, rows[0].votes_b, rows[0].sources), (1.0, 1.0, 2));
}

/// Comparisons of 60 prompts whose gold follows from two sources that know something, and a third that knows nothing;
/// longer responses are preferred by gold.
fn learnt() -> (Vec<Comparison>, Vec<Vote>, Vec<Verdict>) {
    let wave = |at: usize, speed: f64| (at as f64 * speed).sin();
    let lengths = |at: usize| [20 + at % 7 * 10, 20 + at % 5 * 12];
    let longer = |at: usize| lengths(at)[0] as f64 - lengths(at)[1] as f64;
    let spread = ((0..120).map(|at| longer(at).powi(2)).sum::<f64>() / 120.0).sqrt();
    let (mut comparisons, mut said, mut gold) = (Vec::new(), Vec::new(), Vec::new());
    for at in 0..120 {
        let mut row = comparison(at);
        row.a_response[0].content = "x".repeat(lengths(at)[0]);
        row.b_response[0].content = "x".repeat(lengths(at)[1]);
        let (one, other) = (2.0 * wave(at, 1.7), 2.0 * wave(at, 2.9));
        let truth = one + 0.5 * other + 0.9 * (longer(at) / spread).tanh() + 0.4;
        gold.push(verdict(row.clone(), 1.0 / (1.0 + (-truth).exp())));
        for (name, z) in [("one", one), ("other", other), ("noise", 2.0 * wave(at, 0.9))] {
            said.push(Vote { log_odds: Some(z), ..vote(at, name, 1.0 / (1.0 + (-z).exp())) });
        }
        comparisons.push(row);
    }
    (comparisons, said, gold)
}

#[test]
fn a_stack_learns_what_sources_are_worth() {
    let (comparisons, said, gold) = learnt();
    let place = |said: Vec<Vote>, gold: Vec<Verdict>| {
        Place::new().table("votes", said).table("comparisons", comparisons.clone()).table("gold", gold)
    };
    let settings = |more: Value| stage(harness::with(json!({"method": "stack", "gold": "g", "ridge": 0.0}), &more));
    let terms = json!({"length": "remove", "position": "remove", "folds": 4});
    let all = place(said.clone(), gold.clone());
    let outcome = run(&all, "out", &settings(terms.clone())).unwrap();
    let table: Vec<AnnotatorRow> = all.rows("out/annotators");
    let weight = |name: &str| {
        let of =
            |row: &&AnnotatorRow| row.measure == "weight" && row.annotator == name && row.fit.as_deref() == Some("all");
        table.iter().find(of).unwrap().value
    };
    let weights = ["one", "other", "noise", "(length)", "(position)"].map(weight);
    near_by(&weights, &[1.0, 0.5, 0.0, 0.9, 0.4], 1e-7);
    let without = |name: &str| figure(&all, "out", &format!("without/{name}"));
    assert!(without("one") > without("other") && without("other") > 0.01 && without("noise").abs() < 1e-9);
    assert!(figure(&all, "out", "log_loss/jury") > 0.0 && outcome.figures.contains_key("accuracy/one"));
    // What is removed is in no answer, and what the answer was with it stands beside.
    let rows: Vec<JuryVerdict> = all.rows("out/verdicts");
    let of = |name: &str, fit: &str| {
        let row = table
            .iter()
            .find(|row| row.measure == "weight" && row.annotator == name && row.fit.as_deref() == Some(fit));
        row.unwrap().value
    };
    for (row, votes) in rows.iter().zip(said.chunks(3)) {
        let fit = row.fit.as_deref().unwrap();
        assert!(fit.starts_with("without fold "), "{fit}");
        let z: f64 = votes.iter().map(|it| it.log_odds.unwrap() * of(it.annotator.as_deref().unwrap(), fit)).sum();
        near(&[row.log_odds.unwrap(), row.p_hat], &[z, 1.0 / (1.0 + (-z).exp())]);
        assert_ne!(row.unadjusted_p_hat, Some(row.p_hat));
    }
    // With the terms kept, the answer is gold's.
    run(&all, "kept", &settings(json!({"length": "keep", "position": "keep"}))).unwrap();
    let kept: Vec<JuryVerdict> = all.rows("kept/verdicts");
    near_by(
        &kept.iter().map(|it| it.p_hat).collect::<Vec<_>>(),
        &gold.iter().map(|it| it.p_hat).collect::<Vec<_>>(),
        1e-7,
    );
    let noted = std::mem::take(&mut *all.events.lock().unwrap());
    let position =
        |event: &Event| matches!(event, Event::Noted { text } if text.starts_with("the term of position, 0."));
    assert!(noted.iter().any(position), "{noted:?}");
    // No label teaches its own prompt: another label of one prompt changes nothing for it, and something for others.
    let mut other = gold.clone();
    for row in &mut other[..2] {
        row.p_hat = 0.0;
    }
    let changed = place(said.clone(), other);
    run(&changed, "out", &settings(terms)).unwrap();
    let changed: Vec<JuryVerdict> = changed.rows("out/verdicts");
    assert_eq!([changed[0].p_hat, changed[1].p_hat], [rows[0].p_hat, rows[1].p_hat]);
    assert!(changed[2..].iter().zip(&rows[2..]).any(|(one, other)| one.p_hat != other.p_hat));
    // Exchanged sides mirror the answer where no constant is in it.
    let turned = |it: &Vote| Vote { vote: 1.0 - it.vote, log_odds: it.log_odds.map(|z| -z), ..it.clone() };
    let mirrored = gold.iter().map(|row| Verdict { p_hat: 1.0 - row.p_hat, ..row.clone() }).collect();
    let mirrored = place(said.iter().map(turned).collect(), mirrored);
    for (name, place) in [("straight", &all), ("mirrored", &mirrored)] {
        run(place, name, &settings(json!({"deal": "in_turn"}))).unwrap();
    }
    let expected: Vec<f64> = labels(&all, "straight").iter().map(|p| 1.0 - p).collect();
    near_by(&labels(&mirrored, "mirrored"), &expected, 1e-7);
}

#[test]
fn a_stack_wants_gold_and_names() {
    let (comparisons, said, gold) = learnt();
    let of = |said: Vec<Vote>, gold: Vec<Verdict>, more: Value| {
        let place = Place::new().table("votes", said).table("comparisons", comparisons.clone()).table("gold", gold);
        let settings = harness::with(json!({"method": "stack", "gold": "g", "ridge": 1.0}), &more);
        run(&place, "out", &stage(settings)).map(|outcome| (place, outcome))
    };
    let few = of(said.clone(), gold[..29].to_vec(), json!({})).err().unwrap().to_string();
    assert!(
        few.contains("29 comparisons have both a gold label and something said about them; `stack` wants at least 30")
    );
    let folds = of(said.clone(), gold[..40].to_vec(), json!({"folds": 21})).err().unwrap().to_string();
    assert!(folds.contains("the gold labels are of 20 prompts, too few for 21 folds"), "{folds}");
    let nobody = said.iter().map(|it| Vote { annotator: None, ..it.clone() }).collect();
    assert!(of(nobody, gold.clone(), json!({})).err().unwrap().to_string().contains("some votes have no annotator"));
    let wrong = vec![Verdict { p_hat: 1.2, ..gold[3].clone() }];
    let error = of(said.clone(), wrong, json!({})).err().unwrap().to_string();
    assert_eq!(error, "p_hat of the gold label `c3` (data.jsonl:4): got 1.2, wanted a probability");
    // Gold is matched by its sides, turned where they are exchanged; what is about nothing is set aside.
    let mut rows: Vec<Verdict> = gold.iter().map(exchanged).collect();
    rows.push(verdict(comparison(500), 0.5));
    let (turned, _) = of(said.clone(), rows, json!({"deal": "in_turn"})).unwrap();
    let (straight, _) = of(said, gold, json!({"deal": "in_turn"})).unwrap();
    near_by(&labels(&turned, "out"), &labels(&straight, "out"), 1e-9);
    assert_eq!(turned.rows::<Reject>("out/rejects")[0].reason, "no_comparison");
    let found = |settings: Value| -> Vec<String> {
        let stage: Jury = serde_json::from_value(settings).unwrap();
        stage.check().into_iter().map(|it| it.text).collect()
    };
    let base = json!({"verdicts": "v", "method": "stack", "ridge": 1});
    assert!(found(base.clone())[0].contains("learns from `gold` labels"));
    let base = harness::with(base, &json!({"gold": "g"}));
    assert!(found(harness::with(base.clone(), &json!({"folds": 1})))[0].contains("wanted at least 2"));
    assert!(found(harness::with(base, &json!({"ridge": null})))[0].contains("needs `ridge`"));
    let mean = json!({"verdicts": "v", "method": "mean", "length": "keep", "deal": "drawn"});
    assert_eq!(found(mean).len(), 2);
}

#[test]
fn every_method_is_held_against_gold() {
    let gold: Vec<Verdict> =
        [1.0, 1.0, 0.0, 1.0].iter().enumerate().map(|(at, p)| verdict(comparison(at), *p)).collect();
    let place = place(votes(&VOTES)).table("gold", gold);
    run(&place, "out", &stage(json!({"method": "share", "gold": "g"}))).unwrap();
    // Labels 1, 2/3, 0 and 1/6 against 1, 1, 0 and 1; Ben says 1, 1, 0 and a tie.
    near(&[figure(&place, "out", "accuracy/jury"), figure(&place, "out", "accuracy/ben")], &[0.75, 3.5 / 4.0]);
    near(&[figure(&place, "out", "brier/jury")], &[(1.0 / 9.0 + 25.0 / 36.0) / 4.0]);
}

#[test]
fn what_cannot_be_used_is_told() {
    let findings = |settings: Value| -> Vec<String> {
        let stage: Jury = serde_json::from_value(settings).unwrap();
        stage.check().into_iter().map(|it| format!("{}: {}", it.path.join("."), it.text)).collect()
    };
    for (settings, expected) in [
        (json!({"method": "share"}), "neither `votes` nor `verdicts`"),
        (json!({"votes": "v", "method": "share"}), "votes: `votes` are about comparisons"),
        (json!({"verdicts": "v", "method": "beta"}), "needs `a`: 0.5"),
        (json!({"verdicts": "v", "method": "beta", "a": 0}), "a: got 0"),
        (json!({"verdicts": "v", "method": "share", "a": 1}), "a: has no effect with `method: share`; `beta` reads it"),
        (json!({"verdicts": "v", "method": "dawid_skene"}), "needs `smoothing`"),
        (json!({"verdicts": "v", "method": "dawid_skene", "smoothing": -1}), "smoothing: got -1"),
        (json!({"verdicts": "v", "method": "mean", "only": []}), "only: an empty list"),
    ] {
        let found = findings(settings.clone());
        assert!(found.len() == 1 && found[0].contains(expected), "{settings}: {found:?}");
    }
    let share = stage(json!({"method": "share"}));
    let error = |rows: Vec<Vote>, stage: &Jury| run(&place(rows), "out", stage).unwrap_err().to_string();
    let wrong = error(vec![vote(0, "anna", 1.5)], &share);
    assert_eq!(wrong, "comparison `c0` (votes.jsonl:1): `vote` is 1.5, wanted a vote in [0, 1]");
    assert!(error(vec![vote(2, "anna", f64::NAN)], &share).contains("(votes.jsonl:3): `vote` is NaN"));
    let weight = Vote { weight: -1.0, ..vote(2, "anna", 1.0) };
    assert!(error(vec![weight], &share).contains("`weight` is -1, wanted a weight of at least 0"));
    let none = error(vec![vote(99, "anna", 1.0)], &share);
    assert!(none.contains("nothing of 8 rows says anything") && none.contains("no row of `comparisons` has"), "{none}");
    let unnamed = error(vec![vote(0, "", 1.0)], &stage(json!({"method": "dawid_skene", "smoothing": 0})));
    assert!(unnamed.contains("some votes have no annotator"), "{unnamed}");
    // Votes on what is not there, votes of nobody to listen to, a comparison twice.
    let rows = vec![vote(0, "anna", 1.0), vote(99, "anna", 1.0), vote(1, "ben", 0.0), vote(1, "bea", 1.0)];
    let place = place(rows).table("comparisons", vec![comparison(0)]);
    run(&place, "out", &stage(json!({"method": "share", "only": ["anna", "be?n", "b*a"]}))).unwrap();
    let rejects: Vec<Reject> = place.rows("out/rejects");
    let found: Vec<_> = rejects.iter().map(|it| (&*it.input, &*it.row_id, &*it.reason)).collect();
    assert_eq!(
        found[..3],
        [("comparisons", "c0", "duplicate"), ("votes", "c99", "no_comparison"), ("votes", "c1", "not_asked")]
    );
    near(&labels(&place, "out"), &[1.0, 1.0]);
}

#[test]
fn doubtful_votes_are_warned_of() {
    let many: Vec<usize> = (0..40).collect();
    let told = |rows: Vec<Vote>| {
        let place =
            Place::new().table("votes", rows).table("comparisons", many.iter().map(|at| comparison(*at)).collect());
        run(&place, "out", &stage(json!({"method": "dawid_skene", "smoothing": 1}))).unwrap();
        warnings(&place)
    };
    let of = |name: &str, said: fn(usize) -> bool| -> Vec<Vote> {
        many.iter().map(|at| vote(*at, name, f64::from(u8::from(said(*at))))).collect()
    };
    // Two that are one, one that is their opposite, one that knows nothing.
    let mut rows = of("judge/ab", |at| at % 2 == 0);
    rows.extend(of("judge/ba", |at| at % 2 == 0));
    rows.extend(of("contrary", |at| at % 2 == 1));
    rows.extend(of("coin", |at| at % 4 < 2));
    let warned = told(rows).join("\n");
    assert!(warned.contains("agree little (Krippendorff's alpha -0.15") || warned.contains("agree little"), "{warned}");
    assert!(
        warned.contains("nearly one, by Cohen's kappa far above that of all: `judge/ab` and `judge/ba` (1.00)"),
        "{warned}"
    );
    assert!(warned.contains("less often than by chance (mean kappa): `contrary` (-0.67)"), "{warned}");
    // One who voted where nobody else did.
    let mut rows: Vec<Vote> = of("anna", |at| at % 2 == 0).into_iter().take(30).collect();
    rows.extend(of("ben", |at| at % 2 == 0).into_iter().take(30));
    rows.extend(of("far", |at| at % 2 == 0).into_iter().skip(30));
    let warned = told(rows);
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].starts_with("`far` voted on nothing that another source voted on"), "{warned:?}");
    // People who agree are not suspected.
    let mut rows = of("anna", |at| at % 2 == 0);
    rows.extend(of("ben", |at| at % 2 == 0 || at == 1));
    rows.extend(of("cleo", |at| at % 2 == 0 && at != 2));
    assert_eq!(told(rows), [""; 0]);
}

#[test]
fn the_output_is_what_the_version_says() {
    let place = place(votes(&VOTES));
    let settings = stage(json!({"method": "dawid_skene", "smoothing": 1}));
    run(&place, "golden", &settings).unwrap();
    let rows: Vec<JuryVerdict> = place.rows("golden/verdicts");
    let lines = rows.iter().map(|row| format!("{} {:.6}", row.comparison_id, row.p_hat));
    harness::check_golden(&settings, lines, "2", "b54979d5d3a4");
}
