//! Checks of configurations and data, apart from numbers.

use crate::common;

use common::{
    Bench, config, embeddings, items, pairs, port_bytes, reference, reference_in, reference_of_items, tokenise,
};
use kit::rows::{Item, Metric, Pair, Reject, StepRow};
use kit::{Amount, Error, Event, Interrupt, read_rows};
use lm::Dtype;
use serde_json::{Value, json};

fn findings(config: Value) -> Vec<String> {
    match (train::KIND.configure)(config) {
        Ok((stage, _)) => {
            stage.check().into_iter().map(|finding| format!("{}: {}", finding.path.join("."), finding.text)).collect()
        }
        Err(finding) => vec![format!("{}: {}", finding.path.join("."), finding.text)],
    }
}

fn first_rows(count: usize) -> Vec<Pair> {
    let mut rows = pairs("pairs.jsonl");
    rows.truncate(count);
    rows
}

fn fails(bench: &Bench, config: &Value) -> String {
    match bench.run(config, "failing", &|_| (), &Interrupt::default()) {
        Ok(_) => panic!("{config} went through"),
        Err(Error::Internal(text)) => panic!("{text}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_is_missing_or_without_effect_is_found_before_any_data() {
    let base = config(json!({"name": "dpo", "beta": 0.3}));
    assert_eq!(findings(base.clone()), Vec::<String>::new());
    let with = |key: &str, value: Value| {
        let mut config = base.clone();
        config[key] = value;
        findings(config).join("\n")
    };
    let without = |key: &str, objective: Value| {
        let mut config = config(objective);
        config.as_object_mut().unwrap().remove(key);
        findings(config).join("\n")
    };
    assert!(
        without("reference", json!({"name": "dpo", "beta": 0.3}))
            .starts_with("reference: `reference` is missing: `dpo`")
    );
    assert_eq!(without("reference", json!({"name": "simpo", "beta": 2, "gamma": 1})), "");
    assert!(
        without("embeddings", json!({"name": "rpo", "beta": 0.3, "tau": 0.5}))
            .starts_with("embeddings: `embeddings` is missing: `rpo`")
    );
    assert!(without("epochs", json!({"name": "dpo", "beta": 0.3})).contains("missing `epochs` or `steps`"));
    assert!(with("steps", json!(3)).contains("together with `epochs`"));
    assert!(with("objective", json!({"name": "dpo", "beta": -1})).starts_with("objective.beta: -1 is out of range"));
    assert!(with("objective", json!({"name": "dpo", "beta": 0.1, "tau": 1})).contains("unknown field `tau`"));
    let mixture = |part: Value| with("objective", json!([{"name": "dpo", "beta": 0.1}, part]));
    assert_eq!(mixture(json!({"name": "sft", "weight": 0.2})), "");
    assert!(mixture(json!({"name": "dpo", "beta": 0.2})).starts_with("objective.1.name: `dpo` stands here twice"));
    assert!(mixture(json!({"name": "sft", "weight": 0})).starts_with("objective.1.weight: 0 has no effect"));
    assert!(mixture(json!({"name": "kto", "beta": 0.2})).contains("a mixture reads one table"));
    assert!(
        mixture(json!({"name": "rpo", "beta": 0.2, "tau": 1})).starts_with("embeddings: `embeddings` is missing: ")
    );
    assert!(mixture(json!({"name": "sft", "wight": 2})).contains("unknown field `wight`"));
    assert!(with("allow_same_prompt", json!(true)).starts_with("allow_same_prompt: has no effect"));
    assert!(with("eval_every", json!(2)).starts_with("eval_every: has no effect"));
    let best = json!({"metric": "eval_loss"});
    assert!(with("best", best).starts_with("best: chooses among evaluations on held-out pairs: give `eval_pairs`"));
    let chosen = |best: Value| {
        let mut config = base.clone();
        (config["eval_pairs"], config["eval_every"], config["best"]) = (json!("held.out"), json!(2), best);
        findings(config).join("\n")
    };
    assert_eq!(chosen(json!({"metric": "eval_rewards/margins", "keep": 3, "patience": 2, "min_delta": 0.1})), "");
    assert!(chosen(json!({"metric": "loss"})).contains("unknown variant `loss`, expected one of `eval_loss`"));
    assert!(chosen(json!({"metric": "eval_loss", "keep": 0})).starts_with("best.keep: got 0, wanted 1 to 16"));
    assert!(chosen(json!({"metric": "eval_loss", "keep": 4, "patience": 2})).contains("at most `patience` + 1"));
    assert!(chosen(json!({"metric": "eval_loss", "patience": 0})).starts_with("best.patience: got 0"));
    assert!(chosen(json!({"metric": "eval_loss", "min_delta": 0.1})).contains("no effect without `patience`"));
    assert!(with("optimizer", json!({"lr": 1e-4, "min_lr": 1e-5})).contains("optimizer.min_lr: has no effect"));
    let low = json!({"lr": 1e-4, "min_lr": 1e-3, "schedule": "cosine"});
    assert!(with("optimizer", low).contains("optimizer.min_lr: 0.001 is out of range"));
    assert!(with("batch", json!({"shuffle": false})).contains("exactly one of"));
    assert!(with("batch", json!({"pairs": 2, "prompts": 2})).contains("got 2"));
    assert!(with("batch", json!({"items": 2})).contains("say `pairs: N`"));
    assert!(with("batch", json!({"pairs": 0})).contains("got 0"));
    assert!(with("epochs", json!(u64::MAX)).contains("epochs: got 18446744073709551615, wanted at most"));
    assert!(with("checkpoint_minutes", json!(-1)).contains("checkpoint_minutes: got -1"));
    assert!(with("model_adapter", json!("freeze")).starts_with("model_adapter: leaves nothing to train"));
    assert!(with("model_adapter", json!("stack")).contains("unknown variant `stack`"));
    let mut both = base.clone();
    (both["model_adapter"], both["adapter"]) =
        (json!("continue"), json!({"rank": 2, "alpha": 4, "targets": ["q_proj"]}));
    assert!(findings(both).join("\n").contains("leave `adapter` out, or say `merge` or `freeze`"));
    assert!(with("save", json!({"dtype": "f16"})).contains("unknown variant `f16`"));
    let wide = json!({"rank": 1_000_000_000_000_u64, "alpha": 8, "targets": ["q_proj"]});
    assert!(with("adapter", wide).contains("wanted at most 16384"));
    assert!(with("optimizer", json!({"lr": 0})).contains("optimizer.lr: 0 is out of range"));
    assert!(with("optimizer", json!({"lr": 1e-4, "clip": 1})).contains("unknown field `clip`"));
    assert!(with("memory", json!({"schedule": "keep", "budget_gib": 2})).contains("memory.budget_gib: has no effect"));
}

#[test]
fn inputs_that_the_objective_does_not_read_are_idle() {
    let idle = |objective: Value| -> Vec<&'static str> {
        let mut config = config(objective);
        config["embeddings"] = json!("embeddings");
        let (stage, _) = (train::KIND.configure)(config).unwrap();
        stage.inputs().into_iter().filter(|port| port.idle.is_some()).map(|port| port.key).collect()
    };
    assert_eq!(idle(json!({"name": "rpo", "beta": 0.3, "tau": 0.5})), Vec::<&str>::new());
    assert_eq!(idle(json!({"name": "rpo", "beta": 0.3, "weighting": "uniform"})), ["embeddings"]);
    assert_eq!(idle(json!({"name": "gdpo", "beta": 0.3})), ["embeddings"]);
    // A reference serves the metrics of an objective without one.
    assert_eq!(idle(json!({"name": "simpo", "beta": 0.3, "gamma": 1})), ["embeddings"]);
    assert_eq!(idle(json!({"name": "sft"})), ["reference", "embeddings"]);
}

#[test]
fn data_that_the_objective_cannot_mean_is_refused_with_the_fix() {
    let rows = first_rows(4);
    let bench =
        Bench::new().table("from", &rows).table("reference", &reference(&rows)).table("embeddings", &embeddings());
    let jpo = config(json!({"name": "jpo", "beta": 0.3}));
    assert!(fails(&bench, &jpo).contains("allow_same_prompt: true"));
    let joint = &pairs("joint.jsonl")[..4];
    let across = Bench::new().table("from", joint).table("reference", &reference(joint));
    assert!(fails(&across, &config(json!({"name": "gdpo", "beta": 0.3}))).contains("`gjpo`"));

    // The held-out pairs may share their prompts where the training pairs do not.
    let mut measured = jpo.clone();
    measured["eval_pairs"] = json!("held");
    let both = [&rows[..], joint].concat();
    let mixed = Bench::new().table("from", joint).table("eval_pairs", &rows).table("reference", &reference(&both));
    mixed.run_through(&measured, "out");

    // A reference of other rows, one of another precision, and one of other token rules.
    let mut rounded = reference(&rows);
    rounded.iter_mut().for_each(|row| row.dtype = Some("bf16".to_owned()));
    let rounded = Bench::new().table("from", &rows).table("reference", &rounded);
    let text = fails(&rounded, &config(json!({"name": "dpo", "beta": 0.3})));
    assert!(text.contains("computed in bf16") && text.contains("the same `dtype`"), "{text}");
    let other = Bench::new().table("from", &rows).table("reference", &reference(&rows[..3]));
    let dpo = config(json!({"name": "dpo", "beta": 0.3}));
    let text = fails(&other, &dpo);
    assert!(text.contains("no row for the chosen side of") && text.contains(&rows[3].pair_id), "{text}");
    let mut shifted = reference(&rows);
    shifted.iter_mut().for_each(|row| row.completion_start += 1);
    assert!(fails(&Bench::new().table("from", &rows).table("reference", &shifted), &dpo).contains("same tokenizer"));
    let mut unscored = reference(joint);
    unscored.iter_mut().for_each(|row| row.prompt_logp = None);
    let unscored = Bench::new().table("from", joint).table("reference", &unscored);
    assert!(fails(&unscored, &jpo).contains("prompt_part: true"));

    let bench =
        Bench::new().table("from", &rows).table("reference", &reference(&rows)).table("embeddings", &embeddings()[1..]);
    let text = fails(&bench, &config(json!({"name": "rpo", "beta": 0.3, "tau": 0.5})));
    assert!(text.contains("no row for prompt `p0`"), "{text}");
    let mut weighted = rows.clone();
    weighted[1].weight = 2.0;
    let weighted = Bench::new().table("from", &weighted).table("reference", &reference(&rows));
    assert!(fails(&weighted, &config(json!({"name": "aot", "beta": 0.3}))).contains("equal weights"));
}

#[test]
fn rows_that_cannot_be_trained_on_are_rejected_with_their_reason() {
    let mut rows = first_rows(8);
    let reference = reference(&rows);
    rows[0].chosen_prompt[0].content = "word ".repeat(2000);
    rows[0].rejected_prompt = rows[0].chosen_prompt.clone();
    rows[1].p_hat = 0.3;
    rows[2].weight = f64::NAN;
    rows[3].form = "sideways".to_owned();
    let bench = Bench::new().table("from", &rows).table("reference", &reference);
    let outcome = bench.run_through(&config(json!({"name": "dpo", "beta": 0.3})), "entry");
    let rejects: Vec<Reject> = read_rows(&bench.entry("entry").join("rejects")).unwrap();
    let reasons: Vec<&str> = rejects.iter().map(|reject| reject.reason.as_str()).collect();
    assert_eq!(reasons, ["too_long", "not_oriented", "bad_weight", "bad_form"]);
    assert_eq!(rejects[1].source_line, Some(2));
    let balance = &outcome.balance[0];
    assert_eq!((balance.read, balance.kept, balance.rejected), (8, 4, 4));
    // cDPO reads p_hat on either side of 0.5.
    let outcome = bench.run_through(&config(json!({"name": "cdpo", "beta": 0.3})), "soft");
    assert_eq!(outcome.balance[0].rejected, 3);
    rows.truncate(4);
    let bench = Bench::new().table("from", &rows).table("reference", &reference);
    assert!(fails(&bench, &config(json!({"name": "dpo", "beta": 0.3}))).contains("4 read, 4 rejected"));
}

#[test]
fn soft_labels_that_nobody_reads_are_said() {
    let rows = first_rows(4);
    let bench = Bench::new().table("from", &rows).table("reference", &reference(&rows));
    let notes = |objective: Value| {
        let notes = std::sync::Mutex::new(Vec::new());
        let events = |event: Event| {
            if let Event::Noted { text } = event {
                notes.lock().unwrap().push(text);
            }
        };
        bench.run(&config(objective), "entry", &events, &Interrupt::default()).unwrap();
        std::fs::remove_dir_all(bench.entry("entry")).unwrap();
        notes.into_inner().unwrap()
    };
    assert_eq!(
        notes(json!({"name": "dpo", "beta": 0.3})),
        ["`dpo` is direct preference optimization", "`dpo` takes every label as certain: 4 of 4 rows have a soft one"]
    );
    assert_eq!(notes(json!({"name": "gdpo", "beta": 0.3})).len(), 1);
}

#[test]
fn micro_batches_do_not_change_the_step() {
    let rows = pairs("pairs.jsonl");
    let bench =
        Bench::new().table("from", &rows).table("reference", &reference(&rows)).table("embeddings", &embeddings());
    for objective in [json!({"name": "gdpo", "beta": 0.3}), json!({"name": "rpo", "beta": 0.3, "tau": 0.5})] {
        let run = |budget: usize, entry: &str| -> Vec<Metric> {
            let mut config = config(objective.clone());
            config["batch"] = json!({"pairs": 8, "tokens_per_micro_batch": budget});
            bench.run_through(&config, entry);
            read_rows(&bench.entry(entry).join("metrics")).unwrap()
        };
        let name = objective["name"].as_str().unwrap();
        let (whole, cut) = (run(100_000, &format!("{name}-whole")), run(200, &format!("{name}-cut")));
        for (a, b) in whole.iter().zip(&cut) {
            assert!((a.loss.unwrap() - b.loss.unwrap()).abs() < 1e-4 * a.loss.unwrap(), "{a:?} {b:?}");
            assert!((a.grad_norm.unwrap() / b.grad_norm.unwrap() - 1.0).abs() < 1e-4, "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_batch_without_weight_makes_no_step_and_is_counted() {
    let mut rows = first_rows(6);
    rows[2].weight = 0.0;
    rows[3].weight = 0.0;
    let bench = Bench::new().table("from", &rows).table("reference", &reference(&rows));
    let mut config = config(json!({"name": "dpo", "beta": 0.3}));
    config["batch"] = json!({"pairs": 2, "shuffle": false});
    let outcome = bench.run_through(&config, "entry");
    assert_eq!(outcome.figures["steps"], 2);
    assert_eq!(outcome.figures["batches without weight (no step)"], 1);
    let metrics: Vec<Metric> = read_rows(&bench.entry("entry").join("metrics")).unwrap();
    assert_eq!(metrics.iter().map(|metric| metric.loss.is_some()).collect::<Vec<_>>(), [true, false, true]);
    let steps: Vec<StepRow> = read_rows(&bench.entry("entry").join("steps")).unwrap();
    assert_eq!(steps.iter().map(|row| row.step).collect::<Vec<_>>(), [1, 1, 3, 3]);
}

#[test]
fn the_figures_of_the_end_are_means_over_the_last_steps() {
    let rows = first_rows(5);
    let bench = Bench::new().table("from", &rows).table("reference", &reference(&rows));
    let mut config = config(json!({"name": "dpo", "beta": 0.3}));
    // Three steps a pass, the last of them on a single pair.
    config["batch"] = json!({"pairs": 2, "shuffle": false});
    config["epochs"] = json!(4);
    let outcome = bench.run_through(&config, "entry");
    let metrics: Vec<Metric> = read_rows(&bench.entry("entry").join("metrics")).unwrap();
    let mean = |of: fn(&Metric) -> Option<f64>| metrics[2..].iter().filter_map(of).sum::<f64>() / 10.0;
    for (name, wanted) in [
        ("loss", mean(|metric| metric.loss)),
        ("rewards/margins", mean(|metric| metric.rewards_margins)),
        ("rewards/accuracies", mean(|metric| metric.rewards_accuracies)),
    ] {
        let headline = outcome.headlines.iter().find(|headline| headline.name == name).unwrap();
        assert!((headline.value - wanted).abs() < 1e-12, "{headline:?}");
        assert_eq!(headline.note, "mean of the last 10 of 12 steps");
        assert_eq!(outcome.figures[&format!("{name}, mean of the last 10 of 12 steps")], headline.value);
    }
    assert_eq!(outcome.figures["loss, first step"], metrics[0].loss.unwrap());
}

#[test]
fn a_diverging_run_stops_and_names_step_and_rows() {
    let rows = first_rows(4);
    let mut broken = reference(&rows);
    broken.iter_mut().for_each(|row| row.logp = f64::NAN);
    let bench = Bench::new().table("from", &rows).table("reference", &broken);
    let text = fails(&bench, &config(json!({"name": "dpo", "beta": 0.3})));
    assert!(text.starts_with("step 1: ") && text.contains(&rows[0].pair_id), "{text}");
}

#[test]
fn the_objectives_on_items_and_demonstrations_train() {
    let rows = first_rows(6);
    let items = items(&rows);
    let demonstrations: Vec<Item> = items.iter().filter(|item| item.label > 0.5).cloned().collect();
    let bench = Bench::new()
        .table("from", &items)
        .table("reference", &reference_of_items(&items))
        .table("embeddings", &embeddings());
    let last = |objective: Value, bench: &Bench, size: usize| -> (Metric, Metric) {
        let mut config = config(objective);
        config["batch"] = json!({"items": size});
        config["epochs"] = json!(12);
        config["optimizer"]["lr"] = json!(1e-3);
        let entry = config["objective"]["name"].as_str().unwrap().to_owned();
        bench.run_through(&config, &entry);
        let metrics: Vec<Metric> = read_rows(&bench.entry(&entry).join("metrics")).unwrap();
        (metrics.first().unwrap().clone(), metrics.last().unwrap().clone())
    };
    let (first, end) = last(json!({"name": "kto", "beta": 0.3}), &bench, 12);
    assert!((first.loss.unwrap() - 0.5).abs() < 1e-6 && end.loss.unwrap() < 0.45, "{first:?} {end:?}");
    assert!(end.rewards_margins.unwrap() > 0.1 && end.rewards_accuracies.is_none());
    let unpaired = json!({"name": "rpo", "beta": 0.3, "tau": 0.5, "form": "unpaired"});
    let (first, end) = last(unpaired, &bench, 12);
    assert!((first.loss.unwrap() - std::f64::consts::LN_2).abs() < 1e-6 && end.loss < first.loss, "{first:?} {end:?}");
    let bench = Bench::new().table("from", &demonstrations);
    let (first, end) = last(json!({"name": "sft"}), &bench, 6);
    assert!(end.loss.unwrap() < first.loss.unwrap() - 0.1, "{first:?} {end:?}");
    assert!((first.loss.unwrap() + first.mean_token_logp.unwrap()).abs() < 1e-9);
}

#[test]
fn prompts_of_a_batch_bring_all_their_pairs_and_evaluation_is_on_the_held_out_ones() {
    let mut rows = first_rows(6);
    let mut twin = rows[0].clone();
    twin.pair_id = "twin".to_owned();
    twin.rejected = rows[1].rejected.clone();
    twin.rejected_response_id = "other".to_owned();
    rows.push(twin);
    let bench = Bench::new().table("from", &rows).table("reference", &reference(&rows)).table("eval_pairs", &rows[..3]);
    let mut config = config(json!({"name": "dpo", "beta": 0.3}));
    config["batch"] = json!({"prompts": 2, "shuffle": false});
    config["eval_pairs"] = json!("held.out");
    config["eval_every"] = json!(2);
    bench.run_through(&config, "entry");
    let steps: Vec<StepRow> = read_rows(&bench.entry("entry").join("steps")).unwrap();
    let first: Vec<&str> = steps.iter().filter(|row| row.step == 1).map(|row| row.row_id.as_str()).collect();
    assert_eq!(first, [rows[0].pair_id.as_str(), "twin", rows[1].pair_id.as_str()]);
    let metrics: Vec<Metric> = read_rows(&bench.entry("entry").join("metrics")).unwrap();
    assert_eq!(metrics.iter().map(|metric| metric.eval_loss.is_some()).collect::<Vec<_>>(), [false, true, true]);
    assert!(metrics.iter().all(|metric| metric.eval_loss.is_none_or(|loss| loss < std::f64::consts::LN_2)));
    // Event files lie beside the ports and are none of them.
    assert!(bench.entry("entry").join(".tensorboard").is_dir());
    assert!(port_bytes(&bench.entry("entry")).keys().all(|file| !file.contains("tfevents")));
}

#[test]
fn a_mixture_does_not_show_how_its_batches_were_cut_and_names_its_losses() {
    let rows = first_rows(6);
    let bench = Bench::new().table("from", &rows).table("eval_pairs", &rows).table("reference", &reference(&rows));
    let run = |objective: Value, budget: u64, entry: &str| -> Vec<Metric> {
        let mut config = config(objective);
        config["batch"] = json!({"pairs": 6, "tokens_per_micro_batch": budget, "shuffle": false});
        config["epochs"] = json!(2);
        config["eval_pairs"] = json!("held.out");
        config["eval_every"] = json!(1);
        bench.run_through(&config, entry);
        read_rows(&bench.entry(entry).join("metrics")).unwrap()
    };
    let near = |a: f64, b: f64| assert!((a - b).abs() < 2e-5 * b.abs(), "{a}, wanted {b}");
    let mixture = json!([{"name": "gdpo", "beta": 0.3}, {"name": "sft", "weight": 0.2}]);
    let (whole, cut) = (run(mixture.clone(), 16_384, "whole"), run(mixture, 160, "cut"));
    for (whole, cut) in whole.iter().zip(&cut) {
        for of in [|m: &Metric| m.loss.unwrap(), |m: &Metric| m.grad_norm.unwrap(), |m: &Metric| m.eval_loss.unwrap()] {
            near(of(cut), of(whole));
        }
        let names: Vec<&str> = whole.loss_parts.iter().map(|part| part.name.as_str()).collect();
        assert_eq!(names, ["gdpo", "sft"]);
        near(whole.loss_parts[0].loss + 0.2 * whole.loss_parts[1].loss, whole.loss.unwrap());
        assert!(whole.rewards_margins.is_some() && whole.mean_token_logp.is_some());
    }
    let alone = run(json!({"name": "gdpo", "beta": 0.3}), 16_384, "alone");
    near(whole[0].loss_parts[0].loss, alone[0].loss.unwrap());
    assert!(alone[0].loss_parts.is_empty());
    assert_ne!(whole[1].loss_parts[0].loss, alone[1].loss.unwrap(), "sft moved the policy too");
}

/// The rows of each step are part of a version: raise it in `Stage::version` when this digest changes.
#[test]
fn the_order_of_batches_is_that_of_the_version() {
    let rows = first_rows(7);
    let bench = Bench::new().table("from", &rows).table("reference", &reference(&rows));
    let mut config = config(json!({"name": "dpo", "beta": 0.3}));
    config["batch"] = json!({"pairs": 3});
    config["epochs"] = json!(2);
    bench.run_through(&config, "entry");
    let steps: Vec<StepRow> = read_rows(&bench.entry("entry").join("steps")).unwrap();
    let order: String = steps.iter().map(|row| format!("{} {}\n", row.step, row.row_id)).collect();
    let digest = kit::Digest::of(order.as_bytes());
    let (stage, _) = (train::KIND.configure)(config).unwrap();
    assert_eq!((stage.version().split('+').next().unwrap(), digest.short(16).as_str()), ("10", "44a6a46b7ee5a8dc"));
}

#[test]
fn the_forecast_counts_steps_tokens_and_what_is_too_long() {
    let mut rows = first_rows(6);
    let reference = reference(&rows);
    rows[0].chosen_prompt[0].content = "word ".repeat(2000);
    rows[0].rejected_prompt = rows[0].chosen_prompt.clone();
    let bench = Bench::new().table("from", &rows).table("reference", &reference);
    let forecast = bench.forecast(&config(json!({"name": "dpo", "beta": 0.3}))).unwrap();
    assert_eq!((forecast.rows, forecast.too_long), (Amount::exact(6), Some(Amount::exact(1))));
    assert_eq!(forecast.notes[0], "2 steps");
    assert!(forecast.notes[1].contains("0.6931"));
    let shared: usize = tokenise(&rows[1..])
        .iter()
        .map(|(chosen, rejected)| chosen.ids.len() + rejected.ids.len() - chosen.start)
        .sum();
    assert_eq!(forecast.tokens, Some(Amount::about(shared as u64)));
}

#[test]
fn half_precision_trains_and_saves_all_of_it() {
    let rows = first_rows(4);
    let bench = Bench::new().table("from", &rows).table("reference", &reference_in(&rows, Dtype::Bf16));
    let mut config = config(json!({"name": "dpo", "beta": 0.3}));
    config["dtype"] = json!("bf16");
    config["epochs"] = json!(3);
    bench.run_through(&config, "entry");
    let metrics: Vec<Metric> = read_rows(&bench.entry("entry").join("metrics")).unwrap();
    assert!(metrics[2].loss < metrics[0].loss, "{metrics:?}");
    let saved = |entry: &str| -> Value {
        let config = std::fs::read(bench.entry(entry).join("policy/config.json")).unwrap();
        serde_json::from_slice::<Value>(&config).unwrap()["dtype"].clone()
    };
    assert_eq!(saved("entry"), "float32");

    config["save"] = json!({"dtype": "bf16"});
    config["optimizer"]["lr"] = json!(1e-6);
    let warnings = std::sync::Mutex::new(Vec::new());
    let events = |event: Event| {
        if let Event::Warned { text } = event {
            warnings.lock().unwrap().push(text);
        }
    };
    let outcome = bench.run(&config, "half", &events, &Interrupt::default()).unwrap();
    assert_eq!(saved("half"), "bfloat16");
    let share = outcome.figures["share of changes left by `save.dtype`"].as_f64().unwrap();
    assert!(share > 0.0 && share < 0.9, "{share}");
    assert!(warnings.lock().unwrap().iter().any(|text| text.starts_with("`save.dtype` undoes the updates of")));
}

#[test]
fn what_is_wrong_with_an_adapter_is_found_before_any_data() {
    let with = |adapter: Value| {
        let mut config = config(json!({"name": "dpo", "beta": 0.3}));
        config["adapter"] = adapter;
        findings(config).join("\n")
    };
    assert_eq!(with(json!({"rank": 4, "alpha": 8, "targets": ["q_proj"], "dropout": 0.0})), "");
    assert_eq!(with(json!({"rank": 4, "alpha": 8, "targets": ["q_proj"], "dropout": 0.1})), "");
    for dropout in [1.0, -0.1] {
        let text = with(json!({"rank": 4, "alpha": 8, "targets": ["q_proj"], "dropout": dropout}));
        assert_eq!(text, format!("adapter.dropout: dropout is {dropout}; wanted 0 up to, but without, 1"));
    }
    assert!(with(json!({"rank": 4, "alpha": 8, "targets": ["query"]})).contains("there are `q_proj`, `k_proj`"));
    assert!(with(json!({"rank": 0, "alpha": 8, "targets": ["q_proj"]})).contains("rank is 0"));
    assert!(with(json!({"rank": 4, "targets": ["q_proj"]})).contains("missing field `alpha`"));
}
