//! The pipelines of feedback on data made here, in the columns that their heads name.

use harness::{Project, stderr};
use kit::rows::{CalibrationRow, JuryVerdict, Pair, SummaryRow};
use serde_json::{Value, json};

fn write(place: &Project, name: &str, rows: impl IntoIterator<Item = Value>) {
    let text: String = rows.into_iter().map(|row| row.to_string() + "\n").collect();
    std::fs::write(place.path(name), text).unwrap();
}

fn run(place: &Project, pipeline: &str, data: &str) {
    let file = format!("pipelines/feedback/{pipeline}.yaml");
    let data = format!("vars.data={data}");
    let output = place.command(&["run", &file, "--set", &data]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

fn rows<R: kit::Row>(place: &Project, port: &str) -> Vec<R> {
    kit::read_rows(&place.path(".halftone/runs").join(port)).unwrap()
}

#[test]
fn a_training_pair_leads_back_to_each_vote() {
    let place = Project::with_pipelines();
    let row = |(at, votes): (usize, [u32; 3])| {
        json!({"idx": at, "instruction": format!("Say {at}."), "input": "", "response1": format!("a{at}"),
            "response2": if at == 3 { String::new() } else { format!("b{at}") }, "annotator1": votes[0],
            "annotator2": votes[1], "annotator3": votes[2], "cmp_key": "m_n"})
    };
    let votes = [[1, 1, 1], [1, 1, 2], [2, 2, 2], [0, 1, 1], [0, 0, 0], [2, 2, 1]];
    write(&place, "votes.jsonl", votes.into_iter().enumerate().map(row));
    run(&place, "pandalm", "./votes.jsonl");
    let shares: Vec<JuryVerdict> = rows(&place, "pandalm/share/verdicts");
    let shares: Vec<f64> = shares.iter().map(|row| row.p_hat).collect();
    assert_eq!(shares, [1.0, 2.0 / 3.0, 0.0, 2.5 / 3.0, 0.5, 1.0 / 3.0]);
    let pairs: Vec<Pair> = rows(&place, "pandalm/pairs/pairs");
    let pair = pairs.iter().find(|pair| pair.comparison_id.as_deref() == Some("5")).unwrap();
    // Half a vote is added to either side: 2.5 of 4 for the second.
    assert_eq!((pair.chosen[0].content.as_str(), pair.p_hat), ("b5", 0.625));
    let output = place.command(&["trace", &pair.pair_id, "--pipeline", "pandalm", "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let trace: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |list: &Value, key: &str, name: &str| -> Value {
        list.as_array().unwrap().iter().find(|it| it[key] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    let table =
        |stage: &str, port: &str| of(&of(&trace["stages"], "stage", stage)["tables"], "port", port)["rows"].clone();
    let votes = table("data", "votes");
    let said: Vec<(&str, f64)> = votes
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["annotator"].as_str().unwrap(), row["vote"].as_f64().unwrap()))
        .collect();
    assert_eq!(said, [("annotator1", 0.0), ("annotator2", 0.0), ("annotator3", 1.0)]);
    let verdict = table("jeffreys", "verdicts");
    assert_eq!((&verdict[0]["votes_a"], &verdict[0]["votes_b"]), (&json!(1.0), &json!(2.0)));
}

#[test]
fn judges_and_ratings_meet_gold() {
    let place = Project::with_pipelines();
    std::fs::create_dir(place.path("data")).unwrap();
    let sets = ["natural", "neighbor", "gptinst", "gptout", "manual", "mtbench", "faireval", "llmeval2"];
    let (mut verdicts, mut ratings) = (Vec::new(), Vec::new());
    let right = |at: usize, every: usize, gold: u64| if at.is_multiple_of(every) { 3 - gold } else { gold };
    for set in sets {
        let gold = |at: usize| 1 + (at as u64 * 7 / 3) % 2;
        let row = |at: usize| {
            json!({"i": at, "input": format!("{set} {at}"), "output_1": format!("x{at}"),
                "output_2": format!("y{at} z"), "label": gold(at)})
        };
        write(&place, &format!("data/llmbar_{set}.jsonl"), (0..12).map(row));
        for at in 0..12 {
            for (judge, every) in [("GPT-4/Vanilla_NoRules", 6), ("ChatGPT/Vanilla_NoRules", 3), ("PaLM2/Vanilla", 4)] {
                let ba = (at != 5).then(|| right(at + 1, every, gold(at)));
                verdicts
                    .push(json!({"set": set, "i": at, "evaluator": judge, "ab": right(at, every, gold(at)), "ba": ba}));
            }
            let first = if gold(at) == 1 { 7 } else { 4 + at % 2 };
            ratings.push(json!({"set": set, "i": at, "evaluator": "GPT-4/Rating", "score_1": first, "score_2": 5}));
        }
    }
    write(&place, "data/llmbar_verdicts.jsonl", verdicts);
    write(&place, "data/llmbar_ratings.jsonl", ratings);
    run(&place, "llmbar", "./data");
    let stack: Vec<JuryVerdict> = rows(&place, "llmbar/stack/verdicts");
    assert_eq!((stack.len(), rows::<JuryVerdict>(&place, "llmbar/all_eight/verdicts").len()), (60, 96));
    let summary: Vec<SummaryRow> = rows(&place, "llmbar/stack/summary");
    let figure =
        |metric: &str| summary.iter().find(|row| row.metric == metric).unwrap_or_else(|| panic!("no {metric}"));
    assert!(figure("accuracy/jury").value > figure("accuracy/ChatGPT/Vanilla_NoRules/ab").value);
    assert_eq!((figure("accuracy/GPT-4/Rating").rows, figure("without/GPT-4/Rating").rows), (60, 60));
}

#[test]
fn scores_of_reward_models_are_calibrated() {
    let place = Project::with_pipelines();
    std::fs::create_dir(place.path("data")).unwrap();
    let first_wins = |at: usize| at.is_multiple_of(2);
    let row = |at: usize| {
        json!({"pair_id": format!("p{at}"), "question": format!("question {at}"), "response_A": format!("a{at}"),
            "response_B": format!("b{at}"), "label": if first_wins(at) { "A>B" } else { "B>A" }})
    };
    write(&place, "data/judgebench_gpt.jsonl", (0..60).map(row));
    // A model is right where its number does not divide the row's; the wider its scores, the less they mean.
    let models = [("Skywork-Reward-Gemma-2-27B", 7, 8.0), ("GRM", 5, 2.0), ("internlm2", 3, 1.0)];
    let scores = models.iter().flat_map(|&(model, every, width)| {
        (0..60).map(move |at| {
            let right = first_wins(at) != at.is_multiple_of(every);
            let score = if right { width } else { -width } + (at % 10) as f64 / 100.0;
            json!({"pair_id": format!("p{at}"), "reward_model": model, "score_A": score, "score_B": 0.0})
        })
    });
    write(&place, "data/judgebench_scores.jsonl", scores);
    run(&place, "judgebench", "./data");
    let summary: Vec<SummaryRow> = rows(&place, "judgebench/temperature/summary");
    let figure =
        |metric: &str| summary.iter().find(|row| row.metric == metric).unwrap_or_else(|| panic!("no {metric}")).value;
    // Right in 51 of 60 rows with log-odds of about 8: sigma(8 / T) = 0.85 has T = 8 / ln(0.85 / 0.15) = 4.61.
    let fits: Vec<CalibrationRow> = rows(&place, "judgebench/temperature/calibration");
    let scale = fits.iter().find(|fit| fit.calibrator == "all").and_then(|fit| fit.scale).unwrap();
    assert!((1.0 / scale - 8.0 / (0.85_f64 / 0.15).ln()).abs() < 0.01, "{scale}");
    assert!(figure("log_loss/after") < figure("log_loss/before"));
    let pairs: Vec<Pair> = rows(&place, "judgebench/pairs/pairs");
    assert_eq!(pairs.len(), 60);
}
