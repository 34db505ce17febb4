//! The stage end to end on tables made here.

use calibrate::Calibrate;
use calibrate::fit::logit;
use harness::{Place, exchanged};
use kit::probability::sigmoid;
use kit::rows::{
    CalibratedVerdict, CalibrationRow, Comparison, Message, Pair, Reject, ReliabilityRow, Response, SummaryRow,
    TruthRow, Verdict,
};
use kit::{Outcome, Result, Seed, Stage};
use serde_json::{Value, json};

fn stage(settings: Value) -> Calibrate {
    serde_json::from_value(harness::with(json!({"verdicts": "v", "gold": "g"}), &settings)).unwrap()
}

fn run(place: &Place, name: &str, stage: &Calibrate) -> Result<Outcome> {
    place.stage(name, stage)
}

fn verdict(index: u64, p_hat: f64) -> Verdict {
    let (prompt, a, b) = (format!("p{}", index / 4), format!("r{index}a"), format!("r{index}b"));
    let text = |text: &str| vec![Message::new("text", text)];
    let row = Comparison {
        comparison_id: kit::ids::comparison_id((&prompt, &a), (&prompt, &b)),
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
        source_line: Some(index + 1),
    };
    Verdict { ab_p: Some(p_hat), ba_p: Some(p_hat), ..Verdict::of(row, p_hat, Some("j".to_owned())) }
}

fn uniform(index: u64, purpose: &str) -> f64 {
    (Seed(3).derive("test", purpose, index) >> 11) as f64 / (1u64 << 53) as f64
}

/// A judge whose log-odds are `sharpness` times the true ones, and hard gold labels drawn with the true probability.
fn judged(rows: u64, sharpness: f64) -> (Vec<Verdict>, Vec<Verdict>) {
    let truth = |index| 5.0 * (uniform(index, "logit") - 0.5);
    let verdicts = (0..rows).map(|index| verdict(index, sigmoid(sharpness * truth(index)))).collect();
    let gold = |index| verdict(index, f64::from(u8::from(uniform(index, "gold") < sigmoid(truth(index)))));
    (verdicts, (0..rows).map(gold).collect())
}

fn place(verdicts: Vec<Verdict>, gold: Vec<Verdict>) -> Place {
    Place::new().table("verdicts", verdicts).table("gold", gold)
}

fn value(place: &Place, name: &str, metric: &str) -> SummaryRow {
    let rows: Vec<SummaryRow> = place.rows(&format!("{name}/summary"));
    rows.into_iter().find(|row| row.metric == metric).unwrap_or_else(|| panic!("no {metric}"))
}

#[test]
fn an_over_confident_judge_is_corrected_on_rows_that_no_fit_has_seen() {
    let (verdicts, gold) = judged(4000, 3.0);
    let place = place(verdicts, gold[..500].to_vec());
    for method in ["temperature", "platt", "isotonic"] {
        let outcome = run(&place, method, &stage(json!({"method": method}))).unwrap();
        let ece = |labels: &str| value(&place, method, &format!("ece/{labels}")).value;
        assert!(
            ece("before") > 0.1 && ece("after") < 0.6 * ece("before"),
            "{method}: {} {}",
            ece("before"),
            ece("after")
        );
        for metric in ["brier/change", "log_loss/change"] {
            assert!(value(&place, method, metric).high.unwrap() < 0.0, "{method} {metric}");
        }
        assert_eq!((value(&place, method, "brier/after").rows, &outcome.figures["gold labels"]), (500, &json!(500)));
        let rows: Vec<CalibratedVerdict> = place.rows(&format!("{method}/verdicts"));
        assert_eq!(rows.len(), 4000);
        // Those without gold labels come nearer to the truth, too.
        let truth = |row: &CalibratedVerdict| sigmoid(logit(row.uncalibrated_p_hat) / 3.0);
        let error = |of: &dyn Fn(&CalibratedVerdict) -> f64| {
            rows[500..].iter().map(|row| (of(row) - truth(row)).abs()).sum::<f64>() / 3500.0
        };
        assert!(error(&|row| row.p_hat) < 0.4 * error(&|row| row.uncalibrated_p_hat), "{method}");
        let bins: Vec<ReliabilityRow> = place.rows(&format!("{method}/reliability"));
        for labels in ["before", "after"] {
            let counted: u64 = bins.iter().filter(|bin| bin.labels == labels).map(|bin| bin.rows).sum();
            assert_eq!(counted, 500);
        }
    }
    // The temperature is that of the judge.
    let fits: Vec<CalibrationRow> = place.rows("temperature/calibration");
    let all = fits.iter().find(|fit| fit.calibrator == "all").unwrap();
    assert!(all.converged && (all.scale.unwrap() - 1.0 / 3.0).abs() < 0.08, "{all:?}");
}

#[test]
fn every_label_can_be_recomputed_from_the_tables_and_no_row_teaches_its_own_prompt() {
    let (verdicts, gold) = judged(400, 2.0);
    let place = place(verdicts, gold[..200].to_vec());
    run(&place, "out", &stage(json!({"method": "platt", "folds": 4}))).unwrap();
    let fits: Vec<CalibrationRow> = place.rows("out/calibration");
    let rows: Vec<CalibratedVerdict> = place.rows("out/verdicts");
    assert_eq!(
        fits.iter().map(|fit| fit.calibrator.as_str()).collect::<Vec<_>>(),
        ["all", "without fold 1", "without fold 2", "without fold 3", "without fold 4"]
    );
    for row in &rows {
        let fit = fits.iter().find(|fit| fit.calibrator == row.calibrator).unwrap();
        let log_odds = fit.scale.unwrap() * row.uncalibrated_log_odds.unwrap() + fit.offset.unwrap();
        assert_eq!((Some(log_odds), sigmoid(log_odds)), (row.log_odds, row.p_hat));
        assert_eq!(row.uncalibrated_log_odds, Some(logit(row.uncalibrated_p_hat)));
    }
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row.calibrator == "all", index >= 200, "{index}");
        let prompts_own = rows.iter().filter(|other| other.a_prompt_id == row.a_prompt_id);
        assert!(prompts_own.into_iter().all(|other| other.calibrator == row.calibrator));
    }
    // Each fold leaves out its own 50 labels.
    assert!(fits.iter().all(|fit| fit.rows == if fit.calibrator == "all" { 200 } else { 148 } || fit.rows == 152));
}

#[test]
fn a_calibrated_judge_is_left_nearly_alone() {
    let (verdicts, gold) = judged(4000, 1.0);
    let place = place(verdicts, gold);
    for method in ["temperature", "platt", "isotonic"] {
        run(&place, method, &stage(json!({"method": method}))).unwrap();
        let rows: Vec<CalibratedVerdict> = place.rows(&format!("{method}/verdicts"));
        let moved = rows.iter().map(|row| (row.p_hat - row.uncalibrated_p_hat).abs()).sum::<f64>() / 4000.0;
        assert!(moved < 0.025, "{method}: {moved}");
    }
}

#[test]
fn exchanging_sides_anywhere_mirrors_the_labels_and_nothing_else() {
    let (verdicts, gold) = judged(400, 2.0);
    let every_third = |rows: &[Verdict], of: usize| -> Vec<Verdict> {
        rows.iter().enumerate().map(|(index, row)| if index % 3 == of { exchanged(row) } else { row.clone() }).collect()
    };
    for method in ["temperature", "isotonic"] {
        let settings = stage(json!({"method": method}));
        let straight = place(verdicts.clone(), gold.clone());
        run(&straight, "out", &settings).unwrap();
        let turned = place(every_third(&verdicts, 0), every_third(&gold, 1));
        run(&turned, "out", &settings).unwrap();
        let straight: Vec<CalibratedVerdict> = straight.rows("out/verdicts");
        let turned: Vec<CalibratedVerdict> = turned.rows("out/verdicts");
        for (index, (one, other)) in straight.iter().zip(&turned).enumerate() {
            let expected = if index % 3 == 0 { 1.0 - one.p_hat } else { one.p_hat };
            assert_eq!(other.p_hat, expected, "{method} {index}");
        }
    }
}

#[test]
fn gold_comes_as_pairs_as_truth_and_by_text() {
    let (verdicts, gold) = judged(200, 2.0);
    let settings = stage(json!({"method": "temperature"}));
    let out = |place: Place| -> Vec<f64> {
        run(&place, "out", &settings).unwrap();
        place.rows::<CalibratedVerdict>("out/verdicts").into_iter().map(|row| row.p_hat).collect()
    };
    let expected = out(place(verdicts.clone(), gold.clone()));

    let pairs = gold.iter().map(|row| {
        let row = if row.p_hat < 0.5 { exchanged(row) } else { row.clone() };
        Pair {
            pair_id: format!("pair-{}", row.comparison_id),
            comparison_id: None,
            form: row.form,
            chosen_prompt_id: row.a_prompt_id,
            chosen_response_id: row.a_response_id,
            chosen_prompt: row.a_prompt,
            chosen: row.a_response,
            rejected_prompt_id: row.b_prompt_id,
            rejected_response_id: row.b_response_id,
            rejected_prompt: row.b_prompt,
            rejected: row.b_response,
            p_hat: row.p_hat,
            weight: 1.0,
            source_file: None,
            source_line: None,
        }
    });
    assert_eq!(
        out(Place::new().table("verdicts", verdicts.clone()).table("gold", pairs.collect::<Vec<_>>())),
        expected
    );

    let truth = gold.iter().zip(&verdicts).map(|(gold, verdict)| TruthRow {
        comparison_id: gold.comparison_id.clone(),
        form: gold.form.clone(),
        p_hat: 1.0 - verdict.p_hat,
        p_star: 1.0 - gold.p_hat,
    });
    assert_eq!(
        out(Place::new().table("verdicts", verdicts.clone()).table("gold", truth.collect::<Vec<_>>())),
        expected
    );

    // Responses with other ids in the gold file, under the comparison's id: told apart by their text.
    let renamed = gold.iter().enumerate().map(|(index, row)| {
        let row = if index % 2 == 0 { exchanged(row) } else { row.clone() };
        Verdict { a_response_id: format!("x{index}"), b_response_id: format!("y{index}"), ..row }
    });
    assert_eq!(out(place(verdicts, renamed.collect())), expected);
}

#[test]
fn too_few_labels_are_refused_with_their_number() {
    let (verdicts, gold) = judged(200, 2.0);
    let elsewhere: Vec<Verdict> = (1000..1100).map(|index| verdict(index, 1.0)).collect();
    let gold = [&gold[..29], &elsewhere[..]].concat();
    let place = place(verdicts, gold);
    let error = run(&place, "out", &stage(json!({"method": "temperature"}))).unwrap_err();
    assert!(matches!(error, kit::Error::Data(_)));
    let text = error.to_string();
    assert!(text.starts_with("29 of 129 gold labels match one of 200 verdicts; at least 30 are needed"), "{text}");
    let findings = stage(json!({"method": "temperature", "max_gold": 10, "folds": 1, "bins": 0})).check();
    assert_eq!(findings.len(), 3, "{findings:?}");
    let findings = stage(json!({"method": "temperature", "bins": u32::MAX})).check();
    assert_eq!(findings[0].text, "got 4294967295, wanted 1 to 10000");
}

#[test]
fn what_matches_nothing_is_rejected_and_what_is_no_probability_refused() {
    let (verdicts, mut gold) = judged(60, 2.0);
    gold.push(verdict(1000, 1.0));
    let matching = place(verdicts.clone(), gold.clone());
    run(&matching, "out", &stage(json!({"method": "temperature", "max_gold": 40}))).unwrap();
    let rejects: Vec<Reject> = matching.rows("out/rejects");
    assert_eq!(rejects.iter().map(|it| it.reason.as_str()).collect::<Vec<_>>(), ["no_verdict"]);
    assert_eq!(value(&matching, "out", "ece/after").rows, 40);
    gold[3].p_hat = 1.5;
    let error = run(&place(verdicts, gold), "out", &stage(json!({"method": "temperature"}))).unwrap_err().to_string();
    assert!(error.contains("(data.jsonl:4): got 1.5, wanted a probability"), "{error}");
}

#[test]
fn the_output_is_what_the_version_says() {
    let (verdicts, gold) = judged(200, 2.0);
    let place = place(verdicts, gold);
    let settings = stage(json!({"method": "temperature"}));
    run(&place, "out", &settings).unwrap();
    let rows: Vec<CalibratedVerdict> = place.rows("out/verdicts");
    let lines = rows.iter().map(|row| format!("{} {:.6} {}", row.comparison_id, row.p_hat, row.calibrator));
    harness::check_golden(&settings, lines, "4", "0ed15b0222c8");
}

/// The responses of some verdicts with the scores that a function gives to (index, side).
fn scored(verdicts: &[Verdict], score: impl Fn(usize, usize) -> Option<f64>) -> Vec<Response> {
    let sides = verdicts.iter().enumerate().flat_map(|(index, row)| {
        let a = (0, &row.a_prompt_id, &row.a_response_id, &row.a_prompt, &row.a_response);
        let b = (1, &row.b_prompt_id, &row.b_response_id, &row.b_prompt, &row.b_response);
        [a, b].map(|side| (index, side))
    });
    let row = |(index, (side, prompt_id, response_id, prompt, messages)): (usize, (usize, &String, &String, _, _))| {
        let (prompt, messages): (&Vec<Message>, &Vec<Message>) = (prompt, messages);
        Response {
            response_id: response_id.clone(),
            prompt_id: prompt_id.clone(),
            prompt: prompt.clone(),
            messages: messages.clone(),
            text: String::new(),
            k: 0,
            count: 1,
            logp: None,
            tokens: None,
            finish: None,
            score: score(index, side),
            model: None,
            source_file: Some("scores.jsonl".to_owned()),
            source_line: Some(index as u64 + 1),
        }
    };
    sides.map(row).collect()
}

#[test]
fn scores_are_corrected_by_their_difference_and_nothing_is_cut() {
    let (verdicts, gold) = judged(300, 3.0);
    // The labels of the table are hard; what counts is the difference of the scores, up to 100 times the log-odds.
    let hard: Vec<Verdict> = verdicts.iter().map(|row| Verdict { p_hat: row.p_hat.round(), ..row.clone() }).collect();
    let run_with = |factor: f64| {
        let score = |index: usize, side: usize| {
            let z = factor * logit(verdicts[index].p_hat);
            Some(if side == 0 { z + 3.0 } else { 3.0 })
        };
        let place = place(hard.clone(), gold.clone()).table("scores", scored(&hard, score));
        run(&place, "out", &stage(json!({"scores": "s", "folds": 3}))).unwrap();
        place
    };
    let (plain, large) = (run_with(1.0), run_with(100.0));
    let rows = |place: &Place| place.rows::<CalibratedVerdict>("out/verdicts");
    for (index, (one, other)) in rows(&plain).iter().zip(&rows(&large)).enumerate() {
        assert!((one.p_hat - other.p_hat).abs() < 1e-9, "{index}: {} {}", one.p_hat, other.p_hat);
        let z = logit(verdicts[index].p_hat);
        assert!((one.uncalibrated_log_odds.unwrap() - z).abs() < 1e-9);
        assert!((other.uncalibrated_log_odds.unwrap() - 100.0 * z).abs() < 1e-6);
    }
    // Where a score saturates the probability the loss is that of the log-odds: far above the 13.8 of a cut at 1e-6.
    let loss = |place: &Place, labels: &str| value(place, "out", &format!("log_loss/{labels}")).value;
    assert!(loss(&large, "before") > 30.0 && (loss(&large, "after") - loss(&plain, "after")).abs() < 1e-9);
}

#[test]
fn scores_that_are_missing_no_numbers_or_at_odds_are_named() {
    let (verdicts, gold) = judged(60, 3.0);
    let told = |rows: Vec<Response>| {
        let place = place(verdicts.clone(), gold.clone()).table("scores", rows);
        run(&place, "out", &stage(json!({"scores": "s"}))).unwrap_err().to_string()
    };
    let text = told(scored(&verdicts, |index, side| (index != 7 || side == 0).then_some(1.0)));
    assert!(text.contains("(data.jsonl:8): response `r7b` has no `score` in `scores`"), "{text}");
    let text = told(scored(&verdicts, |index, _| Some(if index == 7 { f64::NAN } else { 1.0 })));
    assert!(text.contains("response `r7a` (scores.jsonl:8): `score` is NaN, wanted a finite number"), "{text}");
    let twice = [scored(&verdicts, |_, _| Some(1.0)), scored(&verdicts, |_, _| Some(2.0))].concat();
    let text = told(twice);
    assert!(text.contains("response `r0a` (scores.jsonl:1) has two scores in `scores`, 1 and 2"), "{text}");
}

#[test]
fn gold_of_one_side_alone_has_no_offset() {
    let (verdicts, gold) = judged(60, 2.0);
    let gold: Vec<Verdict> = gold.into_iter().map(|row| Verdict { p_hat: 1.0, ..row }).collect();
    let place = place(verdicts, gold);
    let text = run(&place, "out", &stage(json!({"method": "platt"}))).unwrap_err().to_string();
    assert!(text.contains("all 60 gold labels say that side a is better"), "{text}");
    run(&place, "temperature", &stage(json!({}))).unwrap();
    assert_eq!(value(&place, "temperature", "gold/side_a").value, 1.0);
}

#[test]
fn log_odds_that_a_table_stores_are_taken() {
    let (verdicts, gold) = judged(100, 2.0);
    let rows: Vec<CalibratedVerdict> = {
        let place = place(verdicts.clone(), gold.clone());
        run(&place, "out", &stage(json!({}))).unwrap();
        place.rows("out/verdicts")
    };
    // What was calibrated once is calibrated again from its log-odds, which lie beyond what a probability holds.
    let far = |row: CalibratedVerdict| CalibratedVerdict { log_odds: row.log_odds.map(|z| 50.0 * z), ..row };
    let again = Place::new().table("verdicts", rows.iter().cloned().map(far).collect()).table("gold", gold);
    run(&again, "out", &stage(json!({}))).unwrap();
    for (before, after) in rows.iter().zip(again.rows::<CalibratedVerdict>("out/verdicts")) {
        assert_eq!(after.uncalibrated_log_odds, before.log_odds.map(|z| 50.0 * z));
    }
    for row in &rows {
        assert!((row.log_odds.unwrap() - logit(row.p_hat)).abs() < 1e-9);
    }
}
