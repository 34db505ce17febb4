//! The page of runs on stage kinds without models, and sections of tables made by hand.

use std::path::Path;

use kit::rows::{
    AnnotatorRow, CalibratedVerdict, Comparison, Contrast, LeaderboardRow, Message, Pair, ReliabilityRow, Score,
    SummaryRow, TruthRow, Verdict, Vote,
};

use super::files::Found;
use super::{labels, margins, of_run, path, sources, training, write};
use crate::tests::World;

const PIPELINE: &str = "
name: test
stages:
  a: {kind: count, rows: 10}
  b: {kind: shout, from: a, how: {name: loud, marks: 2}, drop: '3'}
";

#[test]
fn a_run_with_the_same_results_leaves_the_report_alone() {
    let world = World::new();
    let (store, records) = (world.store(), world.records());
    let link = world.path("work/runs/test/report.html");
    let first = world.run(PIPELINE).record;
    assert_eq!(of_run(&store, &records, &first).unwrap(), link);
    assert_eq!(std::fs::read_link(&link).unwrap().to_str(), Some("1/report.html"));
    let text = std::fs::read_to_string(&link).unwrap();
    assert!(
        text.contains("<h1>test <span>run 1</span></h1>")
            && text.contains("Did it learn?")
            && text.contains("id=\"tables\""),
        "{text}"
    );
    // Nothing that the run does not have.
    assert!(!text.contains("id=\"labels\"") && !text.contains("id=\"training\""));

    let again = world.run(PIPELINE).record;
    of_run(&store, &records, &again).unwrap();
    assert!(!path(&records, &again).exists());
    assert_eq!(std::fs::read_link(&link).unwrap().to_str(), Some("1/report.html"));

    // Another setting, and back: nothing is computed the second time, but the linked report is of other results.
    let other = world.run(&PIPELINE.replace("marks: 2", "marks: 3")).record;
    of_run(&store, &records, &other).unwrap();
    let back = world.run(PIPELINE).record;
    of_run(&store, &records, &back).unwrap();
    assert_eq!(std::fs::read_link(&link).unwrap().to_str(), Some("4/report.html"));
}

#[test]
fn links_lead_to_the_tables_from_where_the_page_lies() {
    let world = World::new();
    let record = world.run(PIPELINE).record;
    for out in [path(&world.records(), &record), world.path("deep/er/page.html")] {
        write(&world.store(), &world.records(), &record, &out).unwrap();
        let text = std::fs::read_to_string(&out).unwrap().replace("&#x2f;", "/");
        let folder = out.parent().unwrap();
        let links: Vec<&str> = text.split("href=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let tables: Vec<&&str> = links.iter().filter(|link| link.ends_with('/')).collect();
        // Both tables, and the list of the row that was dropped.
        assert_eq!(tables.len(), 3, "{links:?}");
        assert!(tables.iter().all(|link| folder.join(link).join("part-00000.parquet").is_file()), "{links:?}");
    }
}

/// Rows as a port of a stage.
fn table<R: kit::Row>(folder: &Path, stage: &str, rows: Vec<R>) -> Found {
    let path = folder.join(stage);
    let mut writer = kit::TableWriter::create(&path).unwrap();
    let count = rows.len() as u64;
    writer.extend(rows).unwrap();
    writer.finish().unwrap();
    Found {
        stage: stage.to_owned(),
        port: R::TABLE.name().to_owned(),
        table: R::TABLE,
        path,
        rows: count,
        policy_step: None,
    }
}

fn verdict(number: usize, ab: f64, ba: f64, calibrated: f64) -> CalibratedVerdict {
    let message = |text: String| vec![Message::new("text", text)];
    let row = Comparison {
        comparison_id: format!("c{number}"),
        form: "same".to_owned(),
        a_prompt_id: "p".to_owned(),
        a_response_id: "a".to_owned(),
        a_prompt: message("prompt".to_owned()),
        a_response: message("x".repeat(number)),
        b_prompt_id: "p".to_owned(),
        b_response_id: "b".to_owned(),
        b_prompt: message("prompt".to_owned()),
        b_response: message("y".repeat(5)),
        source_file: None,
        source_line: None,
    };
    CalibratedVerdict {
        ab_mass: Some(0.9),
        ab_p: Some(ab),
        ba_mass: Some(0.7),
        ba_p: Some(ba),
        position_gap: Some(ab - ba),
        uncalibrated_p_hat: (ab + ba) / 2.0,
        calibrator: "all".to_owned(),
        ..CalibratedVerdict::from(Verdict::of(row, calibrated, None))
    }
}

#[test]
fn labels_tell_of_position_and_length() {
    let folder = tempfile::tempdir().unwrap();
    // One of four turns over with the order; ab - ba is 0.2 where it does and 0 elsewhere.
    let row = |number| match number % 4 {
        0 => verdict(number, 0.6, 0.4, 0.5),
        _ => verdict(number, 0.8, 0.8, 0.9),
    };
    let found = [table(folder.path(), "fixed", (0..40).map(row).collect())];
    let section = labels::section(&found).unwrap().unwrap();
    let part = &section.parts[0];
    assert_eq!(part.title, "fixed.verdicts");
    assert_eq!(
        part.facts,
        "40 labels · verdict turns over with the order: 0.2500 · position gap ab − ba: mean 0.0500, mean size 0.0500 · \
         label mass: mean 0.8000"
    );
    // Labels before and after debiasing and calibration, the map of both orders, and length.
    assert_eq!(part.figures.len(), 4);
}

#[test]
fn labels_tell_of_comparisons_whose_judge_said_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let row = |metric: &str, value, rows| SummaryRow {
        metric: metric.to_owned(),
        value,
        low: None,
        high: None,
        rows,
        note: String::new(),
    };
    let rows = [("label_mass/too_low", 0.2, 50), ("first_token/\"<think>\"", 0.9, 10), ("first_token/\"**\"", 0.1, 10)];
    table(folder.path(), "summary", rows.map(|(metric, value, count)| row(metric, value, count)).to_vec());
    let found = [table(folder.path(), "judge", (0..40).map(|number| verdict(number, 0.8, 0.8, 0.9)).collect())];
    let section = labels::section(&found).unwrap().unwrap();
    let said = "no verdict, since both labels got too little: 0.2000 of 50, it would rather say \"<think>\" 0.9000, \"**\" 0.1000";
    assert!(section.parts[0].facts.ends_with(said), "{}", section.parts[0].facts);
}

#[test]
fn sources_have_their_votes_agreement_weight_and_worth() {
    let folder = tempfile::tempdir().unwrap();
    let row = |annotator: &str, measure: &str, fit: Option<&str>, value| AnnotatorRow {
        annotator: annotator.to_owned(),
        measure: measure.to_owned(),
        truth: None,
        vote: None,
        fit: fit.map(str::to_owned),
        value,
        rows: 10,
    };
    let rows = vec![
        row("ann", "votes", None, 1234.0),
        row("ann", "agreement", None, 0.75),
        row("bob", "votes", None, 7.0),
        row("ann", "weight", Some("without fold 1"), 9.0),
        row("ann", "weight", Some("all"), 1.25),
        row("ann", "without", None, -0.5),
    ];
    let found = [table(folder.path(), "jury", rows)];
    let figure = |(metric, value): (&str, f64)| SummaryRow {
        metric: metric.to_owned(),
        value,
        low: None,
        high: None,
        rows: 10,
        note: String::new(),
    };
    let figures = [("accuracy/jury", 0.9), ("accuracy/ann", 0.8), ("ece/ann", 0.05), ("log_loss/ann", 0.4)];
    table(folder.path(), "summary", figures.map(figure).to_vec());
    let section = sources::section(&found).unwrap().unwrap();
    let [part] = &section.parts[..] else { panic!("one part") };
    assert_eq!((part.title.as_str(), part.facts.as_str()), ("jury.annotators", "2 sources"));
    let grid = serde_json::to_value(&part.table).unwrap();
    let cells = |row: usize| -> Vec<&str> {
        grid["rows"][row].as_array().unwrap().iter().map(|cell| cell["text"].as_str().unwrap()).collect()
    };
    let ann = ["ann", "1\u{202f}234", "0.7500", "", "0.8000", "0.0500", "0.4000", "1.2500", "\u{2212}0.5000"];
    assert_eq!(cells(0), ann);
    assert_eq!(cells(1), ["bob", "7", "", "", "", "", "", "", ""]);
    assert_eq!(grid["rows"][0][3]["track"][2], "75.00");
    assert_eq!(sources::leaderboards(&found).unwrap().map(|section| section.id), None);
}

#[test]
fn margins_stand_by_their_source() {
    let folder = tempfile::tempdir().unwrap();
    let vote = |number: usize| {
        let wide = number.is_multiple_of(2);
        let log_odds = if wide { number as f64 - 9.0 } else { 0.5 };
        Vote {
            comparison_id: format!("c{number}"),
            annotator: Some(if wide { "wide" } else { "narrow" }.to_owned()),
            vote: if log_odds > 0.0 { 1.0 } else { 0.0 },
            log_odds: Some(log_odds),
            weight: 1.0,
            source_file: None,
            source_line: None,
        }
    };
    let calibrated = |number: usize| CalibratedVerdict {
        log_odds: Some(if number == 0 { f64::INFINITY } else { 2.0 }),
        uncalibrated_log_odds: Some(6.0),
        ..verdict(number, 0.9, 0.9, 0.9)
    };
    let folder = folder.path();
    let found = [
        table(folder, "votes", (0..20).map(vote).collect()),
        table(folder, "calibrated", (0..3).map(calibrated).collect()),
        table(folder, "plain", (0..3).map(|number| verdict(number, 0.8, 0.8, 0.9)).collect()),
    ];
    let section = margins::section(&found).unwrap().unwrap();
    let titles: Vec<&str> = section.parts.iter().map(|part| part.title.as_str()).collect();
    assert_eq!(titles, ["votes", "calibrated.verdicts"]);
    let grid = serde_json::to_value(&section.parts[0].table).unwrap();
    let texts = |row: usize| -> Vec<&str> {
        grid["rows"][row].as_array().unwrap().iter().map(|cell| cell["text"].as_str().unwrap()).collect()
    };
    assert_eq!(texts(0), ["narrow", "10", "0.5000", "0.5000", "0.5000", "0.5000", "0.5000"]);
    // -9, -7, ... 9.
    assert_eq!(texts(1), ["wide", "10", "0", "5.0000", "5.0000", "9.0000", "9.0000"]);
    // What is not finite is no margin.
    let grid = serde_json::to_value(&section.parts[1].table).unwrap();
    assert_eq!((&grid["rows"][0][0]["text"], &grid["rows"][0][1]["text"]), (&"after calibration".into(), &"2".into()));
    assert_eq!((&grid["rows"][1][0]["text"], &grid["rows"][1][1]["text"]), (&"before calibration".into(), &"3".into()));
    let figure = serde_json::to_value(&section.parts[0].figures[0]).unwrap();
    assert_eq!(figure["legend"][1][1], "wide");
    assert!(margins::section(&found[2..]).unwrap().is_none());
}

#[test]
fn models_stand_on_a_leaderboard() {
    let folder = tempfile::tempdir().unwrap();
    let first = LeaderboardRow {
        rank: 1,
        model: "m".to_owned(),
        win_rate: 0.7,
        standard_error: Some(0.05),
        low: Some(0.6),
        high: Some(0.8),
        discrete_win_rate: 0.75,
        wins: 3,
        draws: 0,
        losses: 1,
        items: 4,
        difference: None,
        difference_low: None,
        difference_high: None,
        common: None,
        average_length: None,
        length_controlled: Some(0.65),
        length_controlled_low: None,
        length_controlled_high: None,
    };
    let (low, high) = (Some(-0.3), Some(-0.1));
    let second = LeaderboardRow {
        rank: 2,
        model: "n".to_owned(),
        difference: Some(-0.2),
        difference_low: low,
        difference_high: high,
        ..first.clone()
    };
    let found = [table(folder.path(), "board", vec![first, second])];
    let section = sources::leaderboards(&found).unwrap().unwrap();
    let grid = serde_json::to_value(&section.parts[0].table).unwrap();
    let texts: Vec<&str> =
        grid["rows"][1].as_array().unwrap().iter().map(|cell| cell["text"].as_str().unwrap()).collect();
    let behind = "\u{2212}0.2000 (\u{2212}0.3000 to \u{2212}0.1000)";
    assert_eq!(texts, ["2", "n", "0.7000 (0.6000 to 0.8000)", "", "0.7500", "0.6500", behind, "4"]);
}

#[test]
fn reliability_is_measured_against_truth_and_gold() {
    let folder = tempfile::tempdir().unwrap();
    let truth = |number: usize, p_hat, p_star| TruthRow {
        comparison_id: format!("c{number}"),
        form: "same".to_owned(),
        p_hat,
        p_star,
    };
    let bin = |labels: &str, rows, mean_p, mean_gold| ReliabilityRow {
        labels: labels.to_owned(),
        bin: 0,
        low: 0.5,
        high: 1.0,
        rows,
        mean_p,
        mean_gold,
        gold_low: None,
        gold_high: None,
    };
    let found = [
        // Half of the labels are 0.1 too high, the others right.
        table(
            folder.path(),
            "truth",
            (0..20).map(|row| truth(row, [0.75, 0.25][row % 2], [0.65, 0.25][row % 2])).collect(),
        ),
        table(
            folder.path(),
            "gold",
            vec![
                bin("before", 30, Some(0.9), Some(0.7)),
                bin("before", 10, Some(0.6), Some(0.6)),
                bin("after", 40, Some(0.7), Some(0.7)),
                bin("after", 0, None, None),
            ],
        ),
    ];
    let section = labels::reliability(&found).unwrap().unwrap();
    assert_eq!(section.parts[0].facts, "20 labels · expected calibration error 0.0500");
    assert_eq!(
        section.parts[1].facts,
        "expected calibration error before: 0.1500 · expected calibration error after: 0"
    );
}

#[test]
fn held_out_pairs_are_counted_by_label_and_form() {
    let folder = tempfile::tempdir().unwrap();
    let score = |number: usize, form: &str, p_hat: f64, margin: f64| Score {
        pair_id: format!("p{number}"),
        form: form.to_owned(),
        p_hat,
        chosen_reward: None,
        rejected_reward: None,
        policy_chosen_logp: Some(-1.0),
        policy_rejected_logp: Some(-2.0),
        policy_chosen_prompt_logp: None,
        policy_rejected_prompt_logp: None,
        reference_chosen_logp: None,
        reference_rejected_logp: None,
        reference_chosen_prompt_logp: None,
        reference_rejected_prompt_logp: None,
        margin,
        loss: None,
        correct: margin > 0.0,
    };
    let rows = vec![
        score(0, "same", 0.55, -1.0),
        score(1, "same", 0.55, 1.0),
        score(2, "same", 0.95, 2.0),
        score(3, "joint", 0.75, 4.0),
    ];
    let section = training::scores(&[table(folder.path(), "held", rows)]).unwrap().unwrap();
    let grid = serde_json::to_value(section.parts[0].table.as_ref().unwrap()).unwrap();
    let lines: Vec<String> = grid["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| [0, 1, 2, 3, 7].map(|cell| row[cell]["text"].as_str().unwrap().to_owned()).join(" | "))
        .collect();
    assert_eq!(
        lines,
        [
            "joint | 0.7 to 0.8 | 1 | 1.0000 | 4.0000",
            "joint | all | 1 | 1.0000 | 4.0000",
            "same | 0.5 to 0.6 | 2 | 0.5000 | 0",
            "same | 0.9 to 1.0 | 1 | 1.0000 | 2.0000",
            "same | all | 3 | 0.6667 | 0.6667",
        ]
    );
}

#[test]
fn a_matrix_has_a_line_for_each_member_and_what_is_left_out_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let row = |number| verdict(number, 0.8, 0.6, 0.7);
    let mut found: Vec<Found> = ["judge@a-1", "judge@a-2", "judge@b-1"]
        .map(|stage| table(folder.path(), stage, (0..30).map(row).collect()))
        .into();
    found.extend((0..7).map(|number| table(folder.path(), &format!("other{number}"), vec![row(number)])));
    let section = labels::section(&found).unwrap().unwrap();
    let titles: Vec<&str> = section.parts.iter().map(|part| part.title.as_str()).collect();
    assert_eq!(titles[..3], ["judge.verdicts × 3", "judge@a-1.verdicts", "other0.verdicts"]);
    let grid = serde_json::to_value(section.parts[0].table.as_ref().unwrap()).unwrap();
    let members: Vec<&str> =
        grid["rows"].as_array().unwrap().iter().map(|row| row[0]["text"].as_str().unwrap()).collect();
    assert_eq!(members, ["judge@a-1", "judge@a-2", "judge@b-1"]);
    assert!(grid["rows"][2][1]["text"].as_str().unwrap().starts_with("30 labels · verdict turns over"), "{grid}");
    let more = &section.parts.last().unwrap().facts;
    assert_eq!(more, "and 2 more, which are not shown: other5.verdicts, other6.verdicts");
}

#[test]
fn contrasts_name_the_prompts_of_both_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let message = |text: &str| vec![Message::new("user", text)];
    let pair = |id: &str, prompt: &str| Pair {
        pair_id: id.to_owned(),
        comparison_id: None,
        form: "same".to_owned(),
        chosen_prompt_id: id.to_owned(),
        chosen_response_id: format!("{id}c"),
        chosen_prompt: message(prompt),
        chosen: message("yes"),
        rejected_prompt_id: id.to_owned(),
        rejected_response_id: format!("{id}r"),
        rejected_prompt: message(prompt),
        rejected: message("no"),
        p_hat: 0.75,
        weight: 1.0,
        source_file: None,
        source_line: None,
    };
    let contrast = |row: &str, column: &str, weight| Contrast {
        step: 9,
        pair_id: row.to_owned(),
        rejected_pair_id: column.to_owned(),
        weight,
        similarity: 0.5,
    };
    let found = [
        table(folder.path(), "pairs", vec![pair("1", "red things"), pair("2", "blue things")]),
        table(folder.path(), "policy", vec![contrast("1", "1", 0.9), contrast("1", "2", 0.1), contrast("2", "1", 0.2)]),
    ];
    let section = training::contrasts(&found).unwrap().unwrap();
    let grid = serde_json::to_value(section.parts[0].table.as_ref().unwrap()).unwrap();
    let rows = grid["rows"].as_array().unwrap();
    let cells = |row: &serde_json::Value| [0, 1, 3].map(|cell| row[cell]["text"].as_str().unwrap().to_owned());
    // The strongest first, and a pair is no contrast to itself.
    assert_eq!(rows.len(), 2);
    assert_eq!(cells(&rows[0]), ["blue things", "red things", "0.2000"]);
    assert_eq!(cells(&rows[1]), ["red things", "blue things", "0.1000"]);
}
