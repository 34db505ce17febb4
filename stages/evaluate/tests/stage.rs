//! The stage end to end on tiny models.

use evaluate::{Evaluate, KIND};
use harness::{Place, lines, oracles, pairs};
use kit::rows::{Comparison, Message, ReferenceRow, Reject, Response, Score, SummaryRow, TruthRow, Utility, Verdict};
use kit::{Amount, Outcome, Result, Stage, Table};
use lm::{Decoder, Device};
use serde_json::{Value, json};
use tokens::{RowRules, SequenceReader};

fn stage(settings: Value) -> Evaluate {
    serde_json::from_value(settings).unwrap()
}

fn run(place: &Place, name: &str, stage: &Evaluate) -> Result<Outcome> {
    place.stage(name, stage)
}

fn value(place: &Place, name: &str, metric: &str) -> SummaryRow {
    let rows: Vec<SummaryRow> = place.rows(&format!("{name}/summary"));
    let known: Vec<_> = rows.iter().map(|row| row.metric.clone()).collect();
    rows.into_iter().find(|row| row.metric == metric).unwrap_or_else(|| panic!("no {metric} in {known:?}"))
}

/// PyTorch's log-probs of a side of the oracle pairs: (response, prompt).
fn oracle(model: &str, form: &str, side: &str, index: usize) -> (f64, f64) {
    let text = std::fs::read_to_string(oracles().join(format!("{model}.json"))).unwrap();
    let oracle: Value = serde_json::from_str(&text).unwrap();
    let row = &oracle[form]["chat"][side][index];
    (row["logp"].as_f64().unwrap(), row["prompt_logp"].as_f64().unwrap())
}

fn close(got: f64, expected: f64) {
    assert!((got - expected).abs() < 2e-3, "{got}, wanted {expected}");
}

#[test]
fn margins_are_differences_of_pytorchs_log_ratios() {
    // Qwen2's tokenizer is the same file as Llama's, so the one can stand for a reference of the other.
    let place = Place::new().table("pairs", pairs("same", true)).model("model", "llama").model("reference", "qwen2");
    let settings = json!({
        "pairs": "p", "model": "m/llama", "reference": "m/qwen2", "objective": {"name": "gdpo", "beta": 0.1},
    });
    run(&place, "out", &stage(settings)).unwrap();
    let scores: Vec<Score> = place.rows("out/scores");
    assert_eq!(scores.len(), 24);
    assert!(scores.is_sorted_by_key(|row| row.pair_id.clone()));
    let rows = lines("pairs.jsonl");
    let (mut correct, mut loss_sum) = (0, 0.0);
    for (index, score) in scores.iter().enumerate() {
        let ratio = |side| oracle("llama", "pairs", side, index).0 - oracle("qwen2", "pairs", side, index).0;
        let margin = ratio("chosen") - ratio("rejected");
        close(score.margin, margin);
        close(score.policy_chosen_logp.unwrap(), oracle("llama", "pairs", "chosen", index).0);
        close(score.reference_rejected_logp.unwrap(), oracle("qwen2", "pairs", "rejected", index).0);
        assert_eq!(score.policy_chosen_prompt_logp, None);
        let p_hat = rows[index]["p_hat"].as_f64().unwrap();
        let loss = (1.0 + (-0.1 * (2.0 * p_hat - 1.0) * margin).exp()).ln();
        close(score.loss.unwrap(), loss);
        loss_sum += loss;
        correct += usize::from(margin > 0.0);
    }
    close(value(&place, "out", "accuracy").value, correct as f64 / 24.0);
    close(value(&place, "out", "loss").value, loss_sum / 24.0);
    let accuracy = value(&place, "out", "accuracy");
    assert!(accuracy.low.unwrap() < accuracy.value && accuracy.value < accuracy.high.unwrap());
    assert!(value(&place, "out", "brier").value < 1.0);
}

#[test]
fn jpo_adds_the_prompt_part() {
    let place = Place::new().table("pairs", pairs("joint", true)).model("model", "llama").model("reference", "qwen2");
    let settings = json!({
        "pairs": "p", "model": "m/llama", "reference": "m/qwen2", "objective": {"name": "jpo", "beta": 0.1},
    });
    run(&place, "out", &stage(settings)).unwrap();
    for (index, score) in place.rows::<Score>("out/scores").iter().enumerate() {
        let part = |model, side| {
            let (response, prompt) = oracle(model, "joint", side, index);
            response + prompt
        };
        let ratio = |side| part("llama", side) - part("qwen2", side);
        close(score.margin, ratio("chosen") - ratio("rejected"));
        close(score.policy_chosen_prompt_logp.unwrap(), oracle("llama", "joint", "chosen", index).1);
    }
    let dpo = json!({
        "pairs": "p", "model": "m/llama", "reference": "m/qwen2", "objective": {"name": "dpo", "beta": 0.1},
    });
    match run(&place, "dpo", &stage(dpo)) {
        Err(kit::Error::Pipeline(text)) => assert!(text.contains("joint"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_policy_is_its_own_reference_at_margin_zero() {
    let place = Place::new().table("pairs", pairs("same", true)).model("model", "llama").model("reference", "llama");
    let settings = json!({
        "pairs": "p", "model": "m/llama", "reference": "m/llama", "objective": {"name": "dpo", "beta": 0.1},
    });
    run(&place, "out", &stage(settings)).unwrap();
    close(value(&place, "out", "loss").value, std::f64::consts::LN_2);
    assert_eq!(value(&place, "out", "margin").value, 0.0);
}

#[test]
fn objectives_that_divide_by_length_are_measured_per_token() {
    let place = Place::new().table("pairs", pairs("same", true)).model("model", "llama");
    let simpo = json!({"name": "simpo", "beta": 2.0, "gamma": 1.0});
    let settings = |objective: &Value| json!({"pairs": "p", "model": "m/llama", "objective": objective});
    run(&place, "simpo", &stage(settings(&simpo))).unwrap();
    let text = std::fs::read_to_string(oracles().join("llama.json")).unwrap();
    let oracle: Value = serde_json::from_str(&text).unwrap();
    let mean = |side: &str, index: usize| {
        let row = &oracle["pairs"]["chat"][side][index];
        row["logp"].as_f64().unwrap() / row["completion_ids"].as_array().unwrap().len() as f64
    };
    let scores: Vec<Score> = place.rows("simpo/scores");
    for (index, score) in scores.iter().enumerate() {
        close(score.margin, mean("chosen", index) - mean("rejected", index));
        close(score.loss.unwrap(), (1.0 + (1.0 - 2.0 * score.margin).exp()).ln());
    }
    // A mixture's margin is that of its part that compares, its loss the sum.
    let sft = json!({"name": "sft", "weight": 0.5});
    run(&place, "mixed", &stage(settings(&json!([sft, simpo])))).unwrap();
    for (index, (mixed, plain)) in place.rows::<Score>("mixed/scores").iter().zip(&scores).enumerate() {
        assert_eq!(mixed.margin, plain.margin);
        close(mixed.loss.unwrap(), plain.loss.unwrap() - 0.5 * mean("chosen", index));
    }
    // The odds ratio's beta is a weight, so nothing is made a probability with it.
    run(&place, "orpo", &stage(settings(&json!({"name": "orpo", "beta": 0.1})))).unwrap();
    close(value(&place, "orpo", "margin").value, value(&place, "simpo", "margin").value);
    value(&place, "simpo", "brier");
    let rows: Vec<SummaryRow> = place.rows("orpo/summary");
    assert!(rows.iter().all(|row| !["brier", "log_loss"].contains(&row.metric.as_str())));
}

#[test]
fn a_reward_model_is_measured_on_held_out_pairs() {
    let folder = tempfile::tempdir().unwrap();
    let base = harness::oracle("llama");
    let model = Decoder::load(&base, &Device::Cpu).unwrap().into_reward_model(Some(5), None).unwrap();
    model.save(folder.path()).unwrap();
    lm::copy_tokenizer(&base, folder.path()).unwrap();
    let rows = pairs("same", true);
    let place = Place::new().table("pairs", rows.clone()).model("model", folder.path());
    let settings = json!({
        "pairs": "p", "model": "m/reward", "objective": {"name": "reward"}, "reference": "m/llama",
        "tokens_per_batch": 500,
    });
    let stage = stage(settings.clone());
    // A reference is not read; a language model is no reward model.
    let reference = stage.inputs().into_iter().find(|input| input.key == "reference").unwrap();
    assert_eq!(reference.idle.as_deref(), Some("`reward` measures no log-ratio"));
    assert_eq!(stage.check_model("model", folder.path()).unwrap(), None);
    let error = stage.check_model("model", &base).unwrap_err().to_string();
    assert!(error.contains("it is a language model"), "{error}");
    assert_eq!(harness::findings(&KIND, &settings), [""; 0]);
    run(&place, "out", &stage).unwrap();
    let reader = SequenceReader::of_reward_model(folder.path(), RowRules::default().text_rules(), None).unwrap();
    let scores: Vec<Score> = place.rows("out/scores");
    let (mut right, mut log_loss, mut brier) = (0, 0.0, 0.0);
    for (row, score) in rows.iter().zip(&scores) {
        let sides = reader.pair(row).unwrap().unwrap();
        let wanted = model.rewards(&[&sides[0].ids, &sides[1].ids], 9999).unwrap();
        for (got, wanted) in [score.chosen_reward, score.rejected_reward].into_iter().zip(&wanted) {
            assert!((got.unwrap() - wanted).abs() < 1e-5, "{got:?}, wanted {wanted}");
        }
        assert_eq!((score.policy_chosen_logp, score.reference_chosen_logp), (None, None));
        let (margin, p) = (score.margin, row.p_hat);
        assert_eq!(margin, score.chosen_reward.unwrap() - score.rejected_reward.unwrap());
        let better = 1.0 / (1.0 + (-margin).exp());
        let loss = -p * better.ln() - (1.0 - p) * (1.0 - better).ln();
        assert!((score.loss.unwrap() - loss).abs() < 1e-9);
        right += usize::from(margin > 0.0);
        (log_loss, brier) = (log_loss + loss / 24.0, brier + (better - p).powi(2) / 24.0);
    }
    let figure = |metric| value(&place, "out", metric).value;
    assert_eq!(figure("accuracy"), right as f64 / 24.0);
    assert!((figure("log_loss") - log_loss).abs() < 1e-9 && (figure("loss") - log_loss).abs() < 1e-9);
    assert!((figure("brier") - brier).abs() < 1e-9 && figure("ece") > 0.0);
    assert!((figure("margin") - (figure("rewards/chosen") - figure("rewards/rejected"))).abs() < 1e-9);
    let rows: Vec<SummaryRow> = place.rows("out/summary");
    assert!(rows.iter().all(|row| !row.metric.starts_with("logps")), "{rows:?}");
    let forecast = place.run("forecast", |context| harness::counted(&stage, context)).unwrap();
    assert_eq!(forecast.rows, Amount::exact(24));
    // Numbers that are none are named.
    let file = folder.path().join("model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let head = start + header["score.weight"]["data_offsets"][0].as_u64().unwrap() as usize;
    bytes[head..head + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, bytes).unwrap();
    match run(&place, "broken", &stage) {
        Err(kit::Error::Data(text)) => assert!(text.contains("`model`: response `") && text.contains("NaN"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reference_table_stands_for_the_reference_model() {
    let by_model = Place::new().table("pairs", pairs("same", true)).model("model", "llama").model("reference", "qwen2");
    let settings = json!({"pairs": "p", "model": "m/llama", "reference": "r", "tokens_per_batch": 500});
    run(&by_model, "out", &stage(settings.clone())).unwrap();
    let scores: Vec<Score> = by_model.rows("out/scores");
    let text = std::fs::read_to_string(oracles().join("qwen2.json")).unwrap();
    let oracle: Value = serde_json::from_str(&text).unwrap();
    let rows = pairs("same", true);
    let row = |index: usize, side: &str| {
        let row = &oracle["pairs"]["chat"][side][index];
        let count = |key: &str| row[key].as_array().unwrap().len() as u32;
        let pair = &rows[index];
        let response = if side == "chosen" { &pair.chosen_response_id } else { &pair.rejected_response_id };
        ReferenceRow {
            prompt_id: pair.chosen_prompt_id.clone(),
            response_id: response.clone(),
            completion_start: count("prompt_ids"),
            logp: row["logp"].as_f64().unwrap(),
            prompt_logp: None,
            prompt_tokens: count("prompt_ids"),
            completion_tokens: count("completion_ids"),
            dtype: None,
        }
    };
    let table: Vec<_> = (0..24).flat_map(|index| [row(index, "chosen"), row(index, "rejected")]).collect();
    let by_table = Place::new().table("pairs", rows.clone()).model("model", "llama").table("reference", table.clone());
    run(&by_table, "out", &stage(settings.clone())).unwrap();
    for (one, other) in scores.iter().zip(by_table.rows::<Score>("out/scores")) {
        close(one.margin, other.margin);
    }
    let mut rounded = table.clone();
    rounded[5].dtype = Some("bf16".to_owned());
    let other = Place::new().table("pairs", rows.clone()).model("model", "llama").table("reference", rounded);
    let error = run(&other, "out", &stage(settings.clone())).unwrap_err().to_string();
    assert!(error.contains("computed in bf16") && error.contains("the same `dtype`"), "{error}");
    let lacking = Place::new().table("pairs", rows).model("model", "llama").table("reference", table[1..].to_vec());
    match run(&lacking, "out", &stage(settings)) {
        Err(kit::Error::Pipeline(text)) => assert!(text.contains("`reference` has no row for response"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pairs_that_are_too_long_are_rejected_and_foretold() {
    let place = Place::new().table("pairs", pairs("same", true)).model("model", "llama");
    let stage = stage(json!({"pairs": "p", "model": "m/llama", "tokens": {"max_tokens": 90}}));
    let outcome = run(&place, "out", &stage).unwrap();
    assert!(outcome.balance[0].rejected > 0 && outcome.balance[0].kept > 0);
    let forecast = place.run("forecast", |context| harness::counted(&stage, context)).unwrap();
    assert_eq!(forecast.too_long, Some(Amount::exact(outcome.balance[0].rejected)));
}

#[test]
fn a_stop_keeps_the_batches_that_were_scored() {
    let place = Place::new().table("pairs", pairs("same", true)[..4].to_vec()).model("model", "llama");
    let stage = stage(json!({"pairs": "p", "model": "m/llama", "tokens_per_batch": 1}));
    let whole = run(&place, "whole", &stage).unwrap();
    let (place, outcome, processes) = place.run_in_pieces("resumed", |context| stage.run(context));
    assert!(processes > 2, "{processes}");
    assert_eq!(outcome, whole);
    for port in ["scores", "summary", "rejects"] {
        assert_eq!(place.bytes(&format!("whole/{port}")), place.bytes(&format!("resumed/{port}")));
    }
}

fn verdict(index: usize, p_hat: f64) -> Verdict {
    let message = |text: &str| vec![Message::new("user", text)];
    let row = Comparison {
        comparison_id: format!("c{index}"),
        form: "same".to_owned(),
        a_prompt_id: "p".to_owned(),
        a_response_id: "a".to_owned(),
        a_prompt: message("p"),
        a_response: message("a"),
        b_prompt_id: "p".to_owned(),
        b_response_id: "b".to_owned(),
        b_prompt: message("p"),
        b_response: message("b"),
        source_file: None,
        source_line: None,
    };
    Verdict { ab_p: Some(0.9), ba_p: Some(if index == 0 { 0.1 } else { 0.9 }), ..Verdict::of(row, p_hat, None) }
}

#[test]
fn verdicts_become_win_rates() {
    let rows = [0.5, 0.9, 0.8, 0.3].into_iter().enumerate().map(|(index, p)| verdict(index, p)).collect();
    let place = Place::new().table("verdicts", rows);
    for (ties, side, rate) in
        [("win", "a", 0.75), ("half", "a", 0.625), ("loss", "a", 0.5), ("win", "b", 0.5), ("loss", "b", 0.25)]
    {
        let name = format!("{ties}-{side}");
        let stage = stage(json!({"verdicts": "v", "ties": ties, "policy_side": side}));
        assert!(!stage.needs_device());
        assert!(stage.outputs().iter().all(|output| output.table != Table::Scores));
        run(&place, &name, &stage).unwrap();
        assert_eq!(value(&place, &name, "win_rate").value, rate);
        let soft = if side == "a" { 0.625 } else { 0.375 };
        assert!((value(&place, &name, "win_rate/soft").value - soft).abs() < 1e-12);
        assert_eq!(value(&place, &name, "win_rate/ties").value, 0.25);
        assert_eq!(value(&place, &name, "win_rate/orders_disagree").value, 0.25);
        assert_eq!(value(&place, &name, "win_rate/decisive").rows, 3);
    }
}

#[test]
fn orders_that_disagree_are_ties_where_that_is_asked_for() {
    // The first verdict leans to a, and its orders disagree.
    let rows = [0.55, 0.9, 0.8, 0.3].into_iter().enumerate().map(|(index, p)| verdict(index, p)).collect();
    let place = Place::new().table("verdicts", rows);
    let with = |ties: &str, tie_when: &str| {
        stage(json!({"verdicts": "v", "ties": ties, "policy_side": "a", "tie_when": tie_when}))
    };
    for (ties, when, rate) in
        [("half", "half", 0.75), ("half", "orders_disagree", 0.625), ("loss", "orders_disagree", 0.5)]
    {
        let name = format!("{ties}-{when}");
        run(&place, &name, &with(ties, when)).unwrap();
        assert_eq!(value(&place, &name, "win_rate").value, rate, "{name}");
        let ties = if when == "half" { 0.0 } else { 0.25 };
        assert_eq!(value(&place, &name, "win_rate/ties").value, ties, "{name}");
    }
    let place = Place::new().table("verdicts", vec![Verdict { ba_p: None, ..verdict(1, 0.9) }]);
    let error = run(&place, "one", &with("half", "orders_disagree")).unwrap_err().to_string();
    assert!(error.contains("verdict `c1` has no probabilities of both orders"), "{error}");
}

#[test]
fn what_the_judge_left_undecided_and_what_says_the_same_are_ties() {
    let reject = |input: &str, reason: &str| Reject {
        input: input.to_owned(),
        row_id: format!("r{reason}"),
        reason: reason.to_owned(),
        detail: String::new(),
        source_file: None,
        source_line: None,
    };
    let rejects = vec![reject("comparisons", "no_label"), reject("comparisons", "duplicate"), reject("other", "x")];
    // Equal ids on both sides: the policy said word for word what the baseline said.
    let same = Verdict { b_response_id: "a".to_owned(), ..verdict(0, 0.5) };
    let place = Place::new().table("verdicts", vec![same, verdict(1, 0.9)]).table("undecided", rejects);
    let base = json!({"verdicts": "v", "undecided": "r", "ties": "loss", "policy_side": "a"});
    run(&place, "out", &stage(base)).unwrap();
    let of = |metric: &str| (value(&place, "out", metric).value, value(&place, "out", metric).rows);
    assert_eq!((of("win_rate"), of("win_rate/ties")), ((1.0 / 3.0, 3), (2.0 / 3.0, 3)));
    assert_eq!((of("win_rate/undecided"), of("win_rate/soft")), ((1.0 / 3.0, 3), (0.7, 2)));
}

#[test]
fn intervals_of_win_rates_can_come_from_a_bootstrap_over_prompts() {
    // Four verdicts of each prompt, which agree: the rows are not independent.
    let rows = (0..40).flat_map(|prompt| {
        let p = if prompt % 4 == 0 { 0.2 } else { 0.8 };
        (0..4).map(move |index| Verdict { a_prompt_id: format!("p{prompt}"), ..verdict(prompt * 4 + index, p) })
    });
    let place = Place::new().table("verdicts", rows.collect());
    let base = json!({"verdicts": "v", "ties": "half", "policy_side": "a"});
    let with = |bootstrap: Value| {
        let mut settings = base.clone();
        settings["bootstrap"] = bootstrap;
        stage(settings)
    };
    run(&place, "plain", &with(Value::Null)).unwrap();
    assert!(with(json!(1000)).draws() && !with(Value::Null).draws());
    run(&place, "drawn", &with(json!(1000))).unwrap();
    let (plain, drawn) = (value(&place, "plain", "win_rate"), value(&place, "drawn", "win_rate"));
    assert_eq!((drawn.value, drawn.rows), (plain.value, plain.rows));
    assert!(drawn.note.ends_with("; bootstrap over prompts"), "{drawn:?}");
    let width = |row: &SummaryRow| row.high.unwrap() - row.low.unwrap();
    // Twice as wide, for a quarter of the rows is new.
    assert!((width(&drawn) / width(&plain) - 2.0).abs() < 0.3, "{} {}", width(&drawn), width(&plain));
    assert_eq!(with(json!(10)).check().len(), 1);
}

#[test]
fn the_baselines_responses_tell_the_sides_apart() {
    let response = |id: &str| Response {
        response_id: id.to_owned(),
        prompt_id: "p".to_owned(),
        prompt: vec![Message::new("user", "p")],
        messages: vec![Message::new("assistant", id)],
        text: id.to_owned(),
        k: 0,
        count: 1,
        logp: None,
        tokens: None,
        finish: None,
        score: None,
        model: None,
        source_file: None,
        source_line: None,
    };
    let between = |index: usize, a: &str, b: &str, p_hat| Verdict {
        a_response_id: a.to_owned(),
        b_response_id: b.to_owned(),
        ..verdict(index, p_hat)
    };
    let verdicts = vec![
        between(0, "new1", "base1", 0.9),
        between(1, "base1", "new2", 0.2),
        between(2, "base1", "base2", 0.9),
        between(3, "new1", "new2", 0.9),
        between(4, "base1", "base1", 0.5),
    ];
    let place = Place::new().table("verdicts", verdicts).table("baseline", vec![response("base1"), response("base2")]);
    let outcome = run(&place, "out", &stage(json!({"verdicts": "v", "baseline": "b", "ties": "half"}))).unwrap();
    assert_eq!((outcome.balance[0].kept, outcome.balance[0].rejected), (3, 2));
    // Two wins, and a tie where both said the same.
    assert!((value(&place, "out", "win_rate").value - 2.5 / 3.0).abs() < 1e-12);
    assert!((value(&place, "out", "win_rate/soft").value - 2.2 / 3.0).abs() < 1e-12);
}

#[test]
fn the_sandboxs_truth_becomes_figures() {
    let truth = |index: usize, form: &str, p_hat, p_star| TruthRow {
        comparison_id: format!("c{index}"),
        form: form.to_owned(),
        p_hat,
        p_star,
    };
    let truth = vec![
        truth(0, "same", 0.6, 0.7),
        truth(1, "same", 0.2, 0.4),
        truth(2, "joint", 0.9, 0.8),
        truth(3, "joint", 0.6, 0.4),
    ];
    let utility = |prompt: &str, utility, count| Utility {
        response_id: format!("{prompt}{utility}"),
        prompt_id: prompt.to_owned(),
        utility,
        count,
        model: None,
    };
    let place = Place::new()
        .table("truth", truth)
        .table("utilities", vec![utility("p0", 0.0, 3), utility("p0", 1.0, 1), utility("p1", 0.5, 1)])
        .table("utilities", vec![utility("p0", 0.75, 2), utility("p1", 1.0, 1), utility("p2", 1.0, 1)]);
    let settings = json!({"truth": "t", "utilities": ["u.before", "u.after"], "utility_names": ["before", "after"]});
    run(&place, "out", &stage(settings)).unwrap();
    let check = |metric: &str, expected: f64, rows: u64| {
        let row = value(&place, "out", metric);
        assert!((row.value - expected).abs() < 1e-12 && row.rows == rows, "{row:?}");
    };
    check("truth/mean_abs_error", 0.15, 4);
    check("truth/mean_abs_error/joint", 0.15, 2);
    check("truth/agreement", 0.75, 4);
    check("utility/before", (0.25 + 0.5) / 2.0, 2);
    check("utility/after", (0.75 + 1.0 + 1.0) / 3.0, 3);
    check("utility/after-before", 0.5, 2);
    // Sums of products around 0.575 on both sides: 0.1375 / sqrt(0.2475 * 0.1275).
    assert!((value(&place, "out", "truth/correlation").value - 0.774_036).abs() < 1e-5);
}

#[test]
fn settings_are_checked() {
    let found = |settings| harness::findings(&KIND, &settings);
    assert_eq!(found(json!({})).len(), 1);
    let idle = json!({"truth": "t", "tokens_per_batch": 65536, "dtype": "f32", "tie_when": "half"});
    assert_eq!(harness::keys_found(&KIND, &idle), ["dtype", "tokens_per_batch", "tie_when"]);
    let findings = found(json!({"pairs": "p", "objective": {"name": "dpo", "beta": -1.0}}));
    assert_eq!(findings.len(), 3, "{findings:#?}");
    let findings = found(json!({"truth": "t", "beta": 0.1, "ties": "win", "utility_names": ["x"]}));
    assert_eq!(findings.len(), 3, "{findings:#?}");
    let findings = found(json!({"verdicts": "v", "utilities": ["a", "b"], "utility_names": ["x", "x", "y"]}));
    assert_eq!(findings.len(), 4, "{findings:#?}");
    let rpo =
        json!({"pairs": "p", "model": "m/x", "reference": "r", "objective": {"name": "rpo", "beta": 0.1, "tau": 0.5}});
    assert!(found(rpo)[0].contains("whole batch"));
}

#[test]
fn the_version_stands_for_the_output() {
    let place = Place::new()
        .table("pairs", pairs("same", true)[..8].to_vec())
        .model("model", "llama")
        .model("reference", "qwen2")
        .table("verdicts", [0.5, 0.9, 0.8, 0.3].into_iter().enumerate().map(|(index, p)| verdict(index, p)).collect());
    let stage = stage(json!({
        "pairs": "p", "model": "m/llama", "reference": "m/qwen2", "objective": {"name": "cdpo", "beta": 0.1},
        "verdicts": "v", "ties": "half", "policy_side": "a",
    }));
    run(&place, "out", &stage).unwrap();
    let rows = place.rows::<SummaryRow>("out/summary");
    let lines = rows.iter().map(|row| {
        let ends = [Some(row.value), row.low, row.high].map(|end| end.map(|end| format!("{end:.2}")));
        format!("{} {ends:?} {} {}", row.metric, row.rows, row.note)
    });
    harness::check_golden(&stage, lines, "8+lm4+objective1", "e4c872984b1a");
}
