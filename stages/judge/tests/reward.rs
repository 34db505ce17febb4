//! A reward model as judge: the stage end to end on a tiny model.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use harness::{Place, pairs};
use judge::Judge;
use kit::rows::{Comparison, Reject, Response, ScoredVerdict, SummaryRow};
use kit::{Amount, Outcome, Result, Stage};
use lm::{Decoder, Device};
use serde_json::{Value, json};

fn stage(settings: Value) -> Judge {
    let all = json!({"comparisons": "data", "reward": "models/reward"});
    serde_json::from_value(harness::with(all, &settings)).unwrap()
}

/// A reward model with the body of an oracle's language model.
fn reward_model(folder: &Path) -> PathBuf {
    let to = folder.join("reward");
    std::fs::create_dir_all(&to).unwrap();
    let base = harness::oracle("llama");
    Decoder::load(&base, &Device::Cpu).unwrap().into_reward_model(Some(5), None).unwrap().save(&to).unwrap();
    lm::copy_tokenizer(&base, &to).unwrap();
    to
}

/// The chosen against the rejected side of three pairs, and of each prompt the chosen side against a third response.
fn comparisons(form: &str) -> Vec<Comparison> {
    let mut rows: Vec<Comparison> = pairs(form, true)
        .into_iter()
        .take(3)
        .map(|row| Comparison {
            comparison_id: row.pair_id,
            form: row.form,
            a_prompt_id: row.chosen_prompt_id,
            a_response_id: row.chosen_response_id,
            a_prompt: row.chosen_prompt,
            a_response: row.chosen,
            b_prompt_id: row.rejected_prompt_id,
            b_response_id: row.rejected_response_id,
            b_prompt: row.rejected_prompt,
            b_response: row.rejected,
            source_file: row.source_file,
            source_line: row.source_line,
        })
        .collect();
    let third = rows.clone().into_iter().map(|mut row| {
        row.comparison_id.push_str("-third");
        row.b_response_id.push_str("-third");
        row.b_response[0].content.push_str(", or so");
        row
    });
    rows.extend(third.collect::<Vec<_>>());
    rows
}

/// Changes the bytes of the head in a folder's weights.
fn change_head(folder: &Path, change: impl FnOnce(&mut [u8])) {
    let path = folder.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let start = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..start]).unwrap();
    let at = |end: usize| start + header["score.weight"]["data_offsets"][end].as_u64().unwrap() as usize;
    change(&mut bytes[at(0)..at(1)]);
    std::fs::write(path, bytes).unwrap();
}

fn swapped(row: Comparison) -> Comparison {
    Comparison {
        a_prompt_id: row.b_prompt_id,
        a_response_id: row.b_response_id,
        a_prompt: row.b_prompt,
        a_response: row.b_response,
        b_prompt_id: row.a_prompt_id,
        b_response_id: row.a_response_id,
        b_prompt: row.a_prompt,
        b_response: row.a_response,
        ..row
    }
}

fn place(rows: Vec<Comparison>) -> Place {
    let place = Place::new().table("comparisons", rows);
    let model = reward_model(place.folder.path());
    place.model("reward", model)
}

fn run(place: &Place, name: &str, stage: &Judge) -> Result<Outcome> {
    place.stage(name, stage)
}

fn judged(rows: Vec<Comparison>, settings: Value) -> (Vec<ScoredVerdict>, Vec<Response>) {
    let place = place(rows);
    run(&place, "out", &stage(settings)).unwrap();
    (place.rows("out/verdicts"), place.rows("out/scores"))
}

#[test]
fn each_response_is_scored_once_and_verdicts_follow_from_the_scores() {
    for form in ["same", "joint"] {
        let (verdicts, scores) = judged(comparisons(form), json!({"scale": 3.0}));
        assert_eq!((verdicts.len(), scores.len()), (6, 9), "{form}");
        let of: BTreeMap<(&str, &str), f64> =
            scores.iter().map(|row| ((&*row.prompt_id, &*row.response_id), row.score.unwrap())).collect();
        assert_eq!(of.len(), 9);
        for row in &verdicts {
            let [a, b] = [(&*row.a_prompt_id, &*row.a_response_id), (&*row.b_prompt_id, &*row.b_response_id)];
            assert_eq!(row.log_odds, Some(3.0 * (of[&a] - of[&b])));
            let p = 1.0 / (1.0 + (-row.log_odds.unwrap()).exp());
            assert!((row.p_hat - p).abs() < 1e-15 && row.p_hat != 0.5, "{}", row.p_hat);
            assert_eq!((row.ab_logp_a, row.position_gap, &row.template), (None, None, &None));
            assert!(scores.iter().all(|score| score.model == row.judge && score.tokens > Some(0)));
        }
    }
}

#[test]
fn scores_are_those_of_the_whole_conversation_under_the_chat_template() {
    let rows = comparisons("same");
    let place = place(rows);
    run(&place, "out", &stage(json!({}))).unwrap();
    let folder = place.folder.path().join("reward");
    let decoder = Decoder::load_reward_model(&folder, &Device::Cpu, lm::Dtype::F32).unwrap();
    let text = lm::Text::load(&folder).unwrap();
    let rules = stage(json!({})).tokens.text_rules();
    for row in place.rows::<Response>("out/scores") {
        // All messages as a prompt, less what asks for one more answer.
        let all: Vec<_> = row.prompt.iter().chain(&row.messages).cloned().collect();
        let whole = text.prompt(&tokens::turns(&all), &rules, 4096).unwrap().unwrap();
        let spelled = text.spelled(&whole).unwrap().0;
        assert!(spelled.ends_with("<|im_start|>assistant\n"), "{spelled:?}");
        let ask = text.prompt(&[lm::Turn::new("text", "<|im_start|>assistant\n")], &lm_allow(rules), 4096);
        let ids = &whole.ids[..whole.ids.len() - ask.unwrap().unwrap().ids.len()];
        let wanted = decoder.rewards(&[ids], 4096).unwrap()[0];
        assert!((row.score.unwrap() - wanted).abs() < 1e-5, "{:?} {wanted}", row.score);
    }
}

fn lm_allow(rules: lm::TextRules) -> lm::TextRules {
    lm::TextRules { special_text: lm::SpecialText::Allow, ..rules }
}

#[test]
fn exchanging_the_sides_gives_exactly_one_minus_p_hat() {
    for form in ["same", "joint"] {
        let (one, scores) = judged(comparisons(form), json!({"scale": 20.0}));
        let (other, again) = judged(comparisons(form).into_iter().map(swapped).collect(), json!({"scale": 20.0}));
        for (one, other) in one.iter().zip(&other) {
            assert_eq!((&one.comparison_id, one.p_hat), (&other.comparison_id, 1.0 - other.p_hat));
        }
        let values = |rows: &[Response]| rows.iter().map(|row| row.score).collect::<Vec<_>>();
        assert_eq!(values(&scores), values(&again));
    }
}

#[test]
fn batches_and_shards_change_nothing() {
    let (all, _) = judged(comparisons("joint"), json!({}));
    let (some, _) = judged(comparisons("joint"), json!({"tokens_per_batch": 1, "shard_rows": 1}));
    assert_eq!(all.len(), some.len());
    for (one, other) in all.iter().zip(&some) {
        assert_eq!(one.comparison_id, other.comparison_id);
        assert!((one.log_odds.unwrap() - other.log_odds.unwrap()).abs() < 1e-5);
    }
}

#[test]
fn an_interrupted_run_goes_on_to_the_same_bytes() {
    let ports = ["verdicts", "scores", "summary", "rejects"];
    let stage = stage(json!({"tokens_per_batch": 1, "shard_rows": 4}));
    let mut rows = comparisons("same");
    rows.push(rows[0].clone());
    let place = place(rows);
    let whole = run(&place, "whole", &stage).unwrap();
    *place.stop_after.lock().unwrap() = Some(1);
    assert!(matches!(run(&place, "resumed", &stage), Err(kit::Error::Interrupted)));
    let place = place.restarted();
    assert_eq!(run(&place, "resumed", &stage).unwrap(), whole);
    for port in ports {
        assert_eq!(place.bytes(&format!("whole/{port}")), place.bytes(&format!("resumed/{port}")), "{port}");
    }
}

#[test]
fn a_stop_within_a_shard_keeps_the_batches_that_were_scored() {
    let stage = stage(json!({"tokens_per_batch": 1}));
    let place = place(comparisons("same"));
    let whole = run(&place, "whole", &stage).unwrap();
    let (place, outcome, processes) = place.run_in_pieces("resumed", |context| stage.run(context));
    assert_eq!((outcome, processes), (whole, 3), "each process scored the responses of one prompt");
    for port in ["verdicts", "scores", "summary", "rejects"] {
        assert_eq!(place.bytes(&format!("whole/{port}")), place.bytes(&format!("resumed/{port}")), "{port}");
    }
}

#[test]
fn responses_that_are_too_long_reject_their_comparisons_and_are_foretold() {
    let mut rows = comparisons("same");
    rows[0].b_response[0].content.push_str(&" and so on".repeat(60));
    let place = place(rows);
    let settings = json!({"tokens": {"max_tokens": 150}});
    let forecast = place.run("forecast", |context| harness::counted(&stage(settings.clone()), context)).unwrap();
    let outcome = run(&place, "out", &stage(settings)).unwrap();
    assert_eq!((outcome.balance[0].kept, outcome.balance[0].rejected), (5, 1));
    assert_eq!(forecast.too_long, Some(Amount::exact(1)));
    assert!(forecast.tokens.unwrap().value > 0);
    let config = std::fs::read(place.folder.path().join("reward/config.json")).unwrap();
    let estimate = lm::Estimate::of(&serde_json::from_slice(&config).unwrap(), lm::Dtype::F32, "cpu").unwrap();
    assert!(estimate.forward(lm::Load { tokens: 10.0, scored: 0.0, context: 5.0 }) > 0.0);
    let rejects: Vec<Reject> = place.rows("out/rejects");
    assert_eq!((&*rejects[0].row_id, &*rejects[0].reason), ("same00", "too_long"));
    assert!(rejects[0].detail.starts_with("b: ") && rejects[0].detail.ends_with("the limit is 150"), "{rejects:?}");
    assert!(rejects[0].source_file.is_some());
    // Cut on the left it is scored.
    let cut = stage(json!({"tokens": {"max_tokens": 150, "too_long": "cut_left"}}));
    let outcome = run(&place, "cut", &cut).unwrap();
    assert_eq!(outcome.balance[0].rejected, u64::from(outcome.balance[0].kept == 5));
}

#[test]
fn scores_that_are_no_numbers_stop_with_the_response_named() {
    let place = place(comparisons("same"));
    change_head(&place.folder.path().join("reward"), |head| head[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    match run(&place, "out", &stage(json!({}))) {
        Err(kit::Error::Data(text)) => {
            assert!(text.starts_with("response `") && text.contains("under prompt `"), "{text}");
            assert!(text.contains("NaN") && text.contains("weights may be damaged or have diverged"), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_head_that_learned_nothing_is_warned_of() {
    let place = place(comparisons("same"));
    change_head(&place.folder.path().join("reward"), |head| head.fill(0));
    run(&place, "out", &stage(json!({}))).unwrap();
    let warned = |event: &kit::Event| matches!(event, kit::Event::Warned { text } if text.contains("learned nothing"));
    assert!(place.events.lock().unwrap().iter().any(warned));
    let summary: Vec<SummaryRow> = place.rows("out/summary");
    let value = |metric: &str| summary.iter().find(|row| row.metric == metric).map(|row| (row.value, row.rows));
    assert_eq!((value("score/mean"), value("score/margin")), (Some((0.0, 9)), Some((0.0, 6))));
    assert_eq!(value("label_mass"), None);
}

#[test]
fn texts_of_one_id_that_differ_are_an_error() {
    let mut rows = comparisons("same");
    rows[3].a_response[0].content.push('!');
    match run(&place(rows), "out", &stage(json!({}))) {
        Err(kit::Error::Data(text)) => assert!(text.contains("stand for two different texts"), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_of_other_judges_are_findings() {
    let findings = |settings| -> Vec<String> {
        stage(settings).check().iter().map(|finding| format!("{}: {}", finding.path.join("."), finding.text)).collect()
    };
    assert_eq!(findings(json!({"scale": 0.2})), Vec::<String>::new());
    let found = findings(json!({"model": "models/judge", "endpoint": {"url": "http://127.0.0.1", "model": "m"},
        "template": "helpful", "debias": "probability", "scale": 0.0, "shard_rows": 0}));
    let keys: Vec<&str> = found.iter().map(|text| text.split_once(": ").unwrap().0).collect();
    assert_eq!(keys, ["model", "endpoint", "template", "debias", "scale", "shard_rows"], "{found:#?}");
    assert!(found[2].contains("a reward model is asked nothing"), "{found:#?}");
    assert!(found[3].contains("there is no order of presentation"), "{found:#?}");
    let settings = json!({"comparisons": "data", "model": "m", "template": "helpful", "debias": "logit", "scale": 2.0});
    let language: Judge = serde_json::from_value(settings).unwrap();
    assert!(language.check()[0].text.contains("only a reward model's scores"), "{:?}", language.check());
}

#[test]
fn what_is_no_reward_model_is_found_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let model = reward_model(folder.path());
    let stage = stage(json!({}));
    assert_eq!(stage.check_model("reward", &model).unwrap(), None);
    let fault = |model: &Path| stage.check_model("reward", model).unwrap_err().to_string();
    let language = fault(&harness::oracle("llama"));
    assert!(
        language.contains("it is a language model, which gives no number for a text; it judges as `model`"),
        "{language}"
    );
    // And the other way: each port says what to do with the other kind.
    let settings = json!({"comparisons": "data", "model": "m/x", "template": "helpful", "debias": "logit"});
    let asked: Judge = serde_json::from_value(settings).unwrap();
    let error = asked.check_model("model", &model).unwrap_err().to_string();
    assert!(error.contains("it is a reward model") && error.contains("give it as `reward`"), "{error}");
    for (stage, key, kind) in [(&asked, "model", lm::REWARD_MODEL), (&stage, "reward", lm::LANGUAGE_MODEL)] {
        let port = stage.inputs().into_iter().find(|port| port.key == key).unwrap();
        assert!(port.refuses.iter().any(|(of, value, _)| *of == "model" && value == kind), "{key}: {port:?}");
    }
    let copy = |name: &str| {
        let to = folder.path().join(name);
        std::fs::create_dir(&to).unwrap();
        for entry in std::fs::read_dir(&model).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
        }
        to
    };
    let two = copy("two");
    let mut config: Value = serde_json::from_slice(&std::fs::read(two.join("config.json")).unwrap()).unwrap();
    config["id2label"] = json!({"0": "bad", "1": "good"});
    std::fs::write(two.join("config.json"), config.to_string()).unwrap();
    assert!(fault(&two).contains("the model has 2 outputs; a reward model has one"), "{}", fault(&two));
    let headless = copy("headless");
    let body = harness::oracle("llama/model.safetensors");
    std::fs::copy(body, headless.join("model.safetensors")).unwrap();
    assert!(fault(&headless).contains("tensor score.weight is missing"), "{}", fault(&headless));
    let bare = copy("bare");
    std::fs::remove_file(bare.join("chat_template.jinja")).unwrap();
    assert!(stage.check_model("reward", &bare).unwrap().unwrap().contains("chat template"));
}

#[test]
fn the_version_stands_for_the_output() {
    let stage = stage(json!({}));
    let place = place(comparisons("same").into_iter().chain(comparisons("joint")).collect());
    run(&place, "out", &stage).unwrap();
    let verdicts = place.rows::<ScoredVerdict>("out/verdicts");
    let verdicts = verdicts.iter().map(|row| format!("{} {:.3}", row.comparison_id, row.log_odds.unwrap()));
    let scores = place.rows::<Response>("out/scores");
    let scores = scores.iter().map(|row| format!("{} {} {:.3}", row.response_id, row.k, row.score.unwrap()));
    harness::check_golden(&stage, verdicts.chain(scores), "5+lm4", "ca08b8ff02c2");
}
