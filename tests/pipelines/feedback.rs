//! The pipelines of feedback on data made here, in the columns that their heads name.

use harness::{Project, stderr};
use kit::rows::{CalibrationRow, JuryVerdict, LeaderboardRow, Pair, SummaryRow};
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

/// A table of a stage, as `trace` shows it about a row.
fn traced(place: &Project, pipeline: &str, id: &str) -> impl Fn(&str, &str) -> Vec<Value> {
    let output = place.command(&["trace", id, "--pipeline", pipeline, "--json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let trace: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |list: &Value, key: &str, name: &str| -> Value {
        list.as_array().unwrap().iter().find(|it| it[key] == name).unwrap_or_else(|| panic!("no {name}")).clone()
    };
    move |stage, port| {
        of(&of(&trace["stages"], "stage", stage)["tables"], "port", port)["rows"].as_array().unwrap().clone()
    }
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
    let table = traced(&place, "pandalm", &pair.pair_id);
    let named = |row: &Value| (row["annotator"].as_str().unwrap().to_owned(), row["vote"].as_f64().unwrap());
    let said: Vec<(String, f64)> = table("data", "votes").iter().map(named).collect();
    assert_eq!(
        said,
        [("annotator1", 0.0), ("annotator2", 0.0), ("annotator3", 1.0)].map(|(who, it)| (who.to_owned(), it))
    );
    let verdict = table("jeffreys", "verdicts");
    assert_eq!((&verdict[0]["votes_a"], &verdict[0]["votes_b"]), (&json!(1.0), &json!(2.0)));
    // How each votes as it did here, where either side or neither is the better one.
    let habits = table("dawid_skene", "annotators");
    assert!(habits.iter().all(|row| row["measure"] == "matrix" && said.contains(&named(row))), "{habits:?}");
    assert_eq!(habits.len(), 9, "three votes under three truths");
}

#[test]
fn a_label_of_people_and_models_leads_back_to_each_of_them() {
    let place = Project::with_pipelines();
    let vote = |at: usize| {
        json!({"id": format!("c{at}"), "prompt": format!("say {at}"), "response_0": format!("{at} is fine"),
            "response_1": format!("it is {}", at % 7), "votes": {"anna": if at.is_multiple_of(3) { "B" } else { "A" },
            "ben": (["A", "B", "tie"][at % 3])}})
    };
    write(&place, "votes.jsonl", (0..40).map(vote));
    let model = harness::oracle("llama").display().to_string();
    let text = format!(
        r#"
name: sources
seed: 3
stages:
  data: {{kind: ingest, files: ./votes.jsonl, form: chat}}
  people: {{kind: jury, votes: data, comparisons: data, method: share}}
  better: {{kind: pairs, from: people, ties: drop}}
  reward_model:
    kind: train
    from: better
    model: "{model}"
    objective: {{name: reward}}
    optimizer: {{lr: 1.0e-3, schedule: constant}}
    batch: {{pairs: 8, shuffle: true}}
    steps: 2
  held_out: {{kind: evaluate, pairs: better, model: reward_model, objective: {{name: reward}}}}
  scored: {{kind: judge, comparisons: data, reward: reward_model}}
  asked: {{kind: judge, comparisons: data, model: "{model}", template: helpful, debias: logit, least_mass: 0}}
  labels:
    kind: jury
    votes: data
    verdicts: [scored, asked]
    comparisons: data
    gold: people
    method: stack
    ridge: 1
    folds: 2
  pairs: {{kind: pairs, from: labels, ties: drop}}
"#
    );
    std::fs::write(place.path("sources.yaml"), text).unwrap();
    let output = place.command(&["run", "sources.yaml", "--device", "cpu"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let accuracy: Vec<SummaryRow> = rows(&place, "sources/held_out/summary");
    assert!(accuracy.iter().any(|row| row.metric == "rewards/chosen"), "{accuracy:?}");
    let pair = rows::<Pair>(&place, "sources/pairs/pairs").remove(4);
    let table = traced(&place, "sources", &pair.pair_id);
    assert_eq!((table("data", "votes").len(), table("scored", "scores").len()), (2, 2));
    assert!(
        table("scored", "verdicts")[0]["log_odds"].is_number() && table("asked", "verdicts")[0]["ab_p"].is_number()
    );
    let fit = table("labels", "verdicts")[0]["fit"].clone();
    let parts = table("labels", "annotators");
    let names: Vec<&str> = parts.iter().map(|row| row["annotator"].as_str().unwrap()).collect();
    assert_eq!(names, ["anna", "asked.verdicts", "ben", "scored.verdicts"]);
    assert!(parts.iter().all(|row| row["measure"] == "weight" && row["fit"] == fit && row["value"].is_number()));
    // The record of the run is a pipeline, without the keys that a reward model does not read.
    let output = place.command(&["check", ".halftone/runs/sources/1/resolved.yaml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // A model of the other kind is found before anything runs, with the way on.
    let told = |setting: &str| stderr(&place.command(&["check", "sources.yaml", "--set", setting]).output().unwrap());
    let error = told("asked.model=reward_model");
    assert!(error.contains("it is a reward model") && error.contains("give it as `reward`"), "{error}");
    let error = told(&format!("scored.reward={model}"));
    assert!(error.contains("it is a language model") && error.contains("judges as `model`"), "{error}");
    let error = told("scored.orders=both");
    assert!(error.contains("without effect with `reward`"), "{error}");
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
            for (judge, every) in [
                ("GPT-4/Vanilla_NoRules", 6),
                ("ChatGPT/Vanilla_NoRules", 3),
                ("PaLM2/Vanilla", 4),
                ("GPT-4/Vanilla", 12),
            ] {
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
    // The judge of `vars.judge`, corrected by every second row.
    let corrected: Vec<SummaryRow> = rows(&place, "llmbar/win_rate/summary");
    let rows_of = |metric: &str| corrected.iter().find(|row| row.metric == metric).unwrap().rows;
    assert_eq!((rows_of("win_rate/corrected"), rows_of("win_rate/gold"), rows_of("judge/above_chance")), (30, 30, 30));
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

#[test]
fn models_judged_with_probabilities_become_a_leaderboard() {
    let place = Project::with_pipelines();
    let row = |(model, at): (&str, usize)| {
        let (preference, length) = match model {
            "baseline" => (1.5, 100),
            "wordy" => (1.2 + 0.06 * (at % 10) as f64 + 0.02 * (at % 3) as f64, 150 + 10 * (at % 10)),
            _ => (1.1 + 0.03 * (at % 7) as f64, 80 + at % 9),
        };
        json!({"model": model, "i": at, "len_1": 100, "len_2": length, "preference": preference})
    };
    let all = ["baseline", "wordy", "terse"].into_iter().flat_map(|model| (0..30).map(move |at| (model, at)));
    write(&place, "preferences.jsonl", all.map(row));
    run(&place, "alpacaeval", "./preferences.jsonl");
    let table: Vec<LeaderboardRow> = rows(&place, "alpacaeval/leaderboard/leaderboard");
    let names: Vec<_> = table.iter().map(|row| (row.rank, row.model.as_str())).collect();
    assert_eq!(names, [(1, "baseline"), (2, "wordy"), (3, "terse")]);
    let [baseline, wordy, _] = &table[..] else { panic!("{table:?}") };
    assert_eq!((baseline.win_rate, baseline.standard_error, baseline.draws), (0.5, Some(0.0), 30));
    assert_eq!((baseline.length_controlled, wordy.common, wordy.average_length), (Some(0.5), Some(30), Some(195.0)));
    // The longer its responses, the more it wins: at equal lengths it wins less.
    assert!(wordy.length_controlled.unwrap() < wordy.win_rate && wordy.difference.unwrap() < 0.0, "{wordy:?}");
    // The table is what the name of the stage means, and the summary is in the report.
    let output = place.command(&["inspect", "leaderboard", "--pipeline", "alpacaeval"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("wordy") && text.contains("discrete_win_rate"), "{text}");
    let output = place.command(&["report", "alpacaeval"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn judges_are_tested_against_people() {
    let place = Project::with_pipelines();
    let words = ["model_a", "model_b", "tie"];
    let row = |at: usize| {
        let truth = words[at % 3];
        let of =
            |every: usize, shift: usize| if (at + shift).is_multiple_of(every) { words[(at + 1) % 3] } else { truth };
        json!({"id": format!("q{at}"), "humans": {"anna": of(8, 0), "ben": of(8, 3), "cleo": of(8, 5)},
            "llms": {"good": of(10, 1), "bad": "model_a"}})
    };
    write(&place, "votes.jsonl", (0..90).map(row));
    run(&place, "alttest", "./votes.jsonl");
    let omega = |epsilon: &str, judge: &str| {
        let summary: Vec<SummaryRow> = rows(&place, &format!("alttest/test@{epsilon}/summary"));
        summary.iter().find(|row| row.metric == format!("omega/llms/{judge}")).unwrap().value
    };
    assert_eq!([omega("0.2", "good"), omega("0.2", "bad"), omega("0.3", "bad")], [1.0, 0.0, 0.0]);
    let rejects: Vec<kit::rows::Reject> = rows(&place, "alttest/test@0.2/rejects");
    assert!(rejects.is_empty(), "{rejects:?}");
}
