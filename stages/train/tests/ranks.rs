//! Trainings by several ranks: any number of them gives the same bytes, whatever stops them.

use crate::common;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Bench, config, embeddings, items, model, pairs, port_bytes, reference, reference_of_items};
use kit::rows::Metric;
use kit::{Collective, Context, Error, Event, Interrupt, Outcome, Ranked, Result, in_pools, read_rows};
use lm::DecoderConfig;
use serde_json::{Value, json};

/// Twelve pairs, some of which share their prompts, and held-out ones.
fn bench() -> Bench {
    let mut pairs = pairs("pairs.jsonl");
    pairs.truncate(14);
    Bench::new()
        .table("from", &pairs[..12])
        .table("eval_pairs", &pairs[10..])
        .table("reference", &reference(&pairs))
        .table("embeddings", &embeddings())
}

/// Two batches a pass, the second smaller; shuffled, with decay and evaluations.
fn ranked(objective: Value, ranks: usize) -> Value {
    let mut config = config(objective);
    config["batch"] = json!({"pairs": 8, "tokens_per_micro_batch": 160, "ranks": ranks});
    config["optimizer"] = json!({"lr": 1e-3, "weight_decay": 0.01, "clip_norm": 0.5});
    config.as_object_mut().unwrap().remove("epochs");
    config["steps"] = json!(3);
    config["eval_pairs"] = json!("held.out");
    config["eval_every"] = json!(2);
    config
}

fn adapted(mut config: Value) -> Value {
    config["adapter"] = json!({"rank": 2, "alpha": 4, "targets": ["all-linear"], "dropout": 0.3});
    config
}

fn by(bench: &Bench, config: &Value, ranks: usize, entry: &str) -> Result<Outcome> {
    bench.run_in_ranks(config, entry, ranks, &|_| (), &Interrupt::default())
}

/// With the optimizer's state in shares.
fn sharded(mut config: Value) -> Value {
    config["optimizer"]["sharded"] = json!(true);
    config
}

/// Compares what 2, 4 and 8 ranks write and say with what one does.
fn check(bench: &Bench, config: &Value) {
    let name = config["objective"].to_string();
    let alone = by(bench, config, 1, "alone").unwrap();
    let wanted = port_bytes(&bench.entry("alone"));
    let most = config["batch"]["ranks"].as_u64().unwrap();
    for ranks in [2, 4, 8].into_iter().filter(|ranks| *ranks <= most) {
        let outcome = by(bench, config, ranks as usize, "together").unwrap();
        let got = port_bytes(&bench.entry("together"));
        assert_eq!(got.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        for (file, bytes) in &wanted {
            assert!(got[file] == *bytes, "{name}: {file} differs with {ranks} ranks");
        }
        assert_eq!(outcome, alone, "{name}, {ranks} ranks");
        std::fs::remove_dir_all(bench.entry("together")).unwrap();
    }
    std::fs::remove_dir_all(bench.entry("alone")).unwrap();
}

#[test]
fn any_number_of_ranks_gives_the_same_bytes() {
    let bench = bench();
    for objective in [
        json!({"name": "dpo", "beta": 0.3}),
        json!({"name": "rpo", "beta": 0.3, "tau": 0.5}),
        json!([{"name": "gdpo", "beta": 0.3}, {"name": "sft", "weight": 0.2}]),
        json!({"name": "sft"}),
    ] {
        check(&bench, &ranked(objective.clone(), 8));
        check(&bench, &adapted(ranked(objective, 4)));
    }
}

#[test]
fn a_state_in_shares_gives_the_same_bytes() {
    let bench = bench();
    let config = ranked(json!({"name": "dpo", "beta": 0.3}), 8);
    check(&bench, &sharded(config.clone()));
    check(&bench, &sharded(adapted(config.clone())));
    // Those of a training without shares.
    by(&bench, &config, 2, "whole").unwrap();
    by(&bench, &sharded(config), 4, "shares").unwrap();
    assert!(port_bytes(&bench.entry("whole")) == port_bytes(&bench.entry("shares")));
}

/// A way to other ranks that counts the bytes that are sent.
struct Counting<'a> {
    ranks: &'a dyn Collective,
    sent: AtomicUsize,
}

impl Collective for Counting<'_> {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn exchange(&self, partner: usize, bytes: Vec<u8>) -> Result<Vec<u8>> {
        self.sent.fetch_add(bytes.len(), Ordering::Relaxed);
        self.ranks.exchange(partner, bytes)
    }
}

#[test]
fn a_rank_sends_less_than_twice_the_gradient_in_a_step() {
    let bench = bench();
    // Bytes of each rank in so many steps.
    let sent = |config: &Value, size: usize, steps: usize| -> Vec<usize> {
        let mut config = config.clone();
        config["steps"] = json!(steps);
        config.as_object_mut().unwrap().remove("eval_pairs");
        config.as_object_mut().unwrap().remove("eval_every");
        let sent = Mutex::new(vec![0; size]);
        let compute = |work: &dyn Ranked, context: &Context<'_>| {
            in_pools(size, 1, |ranks| {
                let counting = Counting { ranks, sent: AtomicUsize::new(0) };
                let outcome = work.compute(&context.of_rank(ranks.rank(), "cpu"), &counting);
                sent.lock().unwrap()[ranks.rank()] = counting.sent.into_inner();
                outcome
            })
        };
        bench.of_ranks(&config, "counted", &|_| (), &Interrupt::default(), compute).unwrap();
        std::fs::remove_dir_all(bench.entry("counted")).unwrap();
        sent.into_inner().unwrap()
    };
    let config = ranked(json!({"name": "dpo", "beta": 0.3}), 8);
    let gradient = 4 * DecoderConfig::from_folder(&model()).unwrap().parameter_count();
    for size in [2, 4, 8] {
        let share = gradient * (size - 1) / size;
        for (config, wanted) in [(config.clone(), 2 * share), (sharded(config.clone()), 3 * share)] {
            let (one, three) = (sent(&config, size, 1), sent(&config, size, 3));
            for (one, three) in one.into_iter().zip(three) {
                // Log-probs, lengths, and halves of odd counts come on top.
                let of_step = (three - one) / 2;
                assert!(of_step.abs_diff(wanted) < 4096, "{size} ranks: {of_step} bytes, wanted {wanted}");
            }
        }
    }
}

#[test]
fn ranks_of_pairs_of_two_prompts_give_the_same_bytes() {
    let pairs = &pairs("joint.jsonl")[..12];
    let bench = Bench::new().table("from", pairs).table("reference", &reference(pairs)).table("eval_pairs", pairs);
    let config = ranked(json!({"name": "jpo", "beta": 0.3}), 4);
    check(&bench, &config);
    check(&bench, &adapted(config));
}

#[test]
fn ranks_of_items_and_of_reward_models_give_the_same_bytes() {
    let rows = &pairs("pairs.jsonl")[..8];
    let items = items(rows);
    let of_items = Bench::new().table("from", &items).table("reference", &reference_of_items(&items));
    let mut kto = config(json!({"name": "kto", "beta": 0.3}));
    kto["batch"] = json!({"items": 8, "ranks": 4});
    check(&of_items, &kto);
    let mut reward = ranked(json!({"name": "reward"}), 4);
    reward.as_object_mut().unwrap().remove("reference");
    check(&Bench::new().table("from", rows).table("eval_pairs", rows), &reward);
}

#[test]
fn a_batch_with_fewer_prompts_than_ranks_leaves_some_idle() {
    for objective in [json!({"name": "dpo", "beta": 0.3}), json!({"name": "rpo", "beta": 0.3, "tau": 0.5})] {
        let mut config = ranked(objective, 8);
        config["batch"]["pairs"] = json!(2);
        check(&bench(), &config);
    }
}

#[test]
fn ranks_change_roundings_alone() {
    let bench = bench();
    for objective in [json!({"name": "dpo", "beta": 0.3}), json!({"name": "rpo", "beta": 0.3, "tau": 0.5})] {
        let metrics = |ranks: usize| -> Vec<Metric> {
            let entry = format!("{ranks}");
            by(&bench, &ranked(objective.clone(), ranks), 1, &entry).unwrap();
            let metrics = read_rows(&bench.entry(&entry).join("metrics")).unwrap();
            std::fs::remove_dir_all(bench.entry(&entry)).unwrap();
            metrics
        };
        let whole = metrics(1);
        for ranks in [2, 8] {
            for (whole, cut) in whole.iter().zip(metrics(ranks)) {
                let both = |of: fn(&Metric) -> Option<f64>| (of(whole).unwrap(), of(&cut).unwrap());
                for (whole, cut) in [both(|metric| metric.loss), both(|metric| metric.grad_norm)] {
                    assert!((whole - cut).abs() <= 1e-6 * whole.abs(), "{objective}, {ranks} ranks: {whole} {cut}");
                }
            }
        }
    }
}

/// Stops at every step by a signal, and goes on with other ranks.
fn stopped_by_signals(bench: &Bench, config: &Value, entry: &str, ranks: &[usize]) {
    for (stop, ranks) in (1..).zip(ranks) {
        let interrupt = Interrupt::default();
        let raise = |event: Event| {
            if matches!(event, Event::Progressed { done, unit: "steps", .. } if done == stop) {
                interrupt.raise();
            }
        };
        let stopped = bench.run_in_ranks(config, entry, *ranks, &raise, &interrupt);
        assert!(matches!(stopped, Err(Error::Interrupted)), "stop {stop}: {stopped:?}");
        let checkpoint = bench.entry(entry).join(format!(".work/checkpoints/{stop:012}"));
        assert!(checkpoint.is_dir(), "a signal writes a checkpoint at its step");
    }
}

#[test]
fn a_training_goes_on_with_another_number_of_ranks() {
    let bench = bench();
    for objective in [json!({"name": "dpo", "beta": 0.3}), json!({"name": "rpo", "beta": 0.3, "tau": 0.5})] {
        let mut config = adapted(ranked(objective, 4));
        config["steps"] = json!(5);
        config["best"] = json!({"metric": "eval_loss", "keep": 2, "patience": 2});
        by(&bench, &config, 1, "whole").unwrap();
        for config in [config.clone(), sharded(config)] {
            stopped_by_signals(&bench, &config, "stopped", &[4, 1, 2, 4]);
            by(&bench, &config, 2, "stopped").unwrap();
            assert!(port_bytes(&bench.entry("stopped")) == port_bytes(&bench.entry("whole")));
            std::fs::remove_dir_all(bench.entry("stopped")).unwrap();
        }
        std::fs::remove_dir_all(bench.entry("whole")).unwrap();
    }
}

#[test]
fn patience_ends_all_ranks_at_the_same_step() {
    let bench = bench();
    let mut config = ranked(json!({"name": "dpo", "beta": 0.3}), 4);
    config["steps"] = json!(12);
    config["best"] = json!({"metric": "eval_rewards/margins", "patience": 2, "min_delta": 1e9});
    check(&bench, &config);
}

#[test]
fn a_diverging_training_stops_all_ranks_with_the_words_of_one() {
    let bench = bench();
    for objective in [json!({"name": "dpo", "beta": 0.3}), json!({"name": "rpo", "beta": 0.3, "tau": 0.5})] {
        let mut config = ranked(objective, 4);
        config["optimizer"] = json!({"lr": 1e30, "clip_norm": null});
        let words = [1, 2, 4].map(|ranks| match by(&bench, &config, ranks, &format!("diverging-{ranks}")) {
            Err(Error::Data(text)) => text,
            other => panic!("{other:?}"),
        });
        assert!(words[0].starts_with("step 2: "), "{}", words[0]);
        assert!(words.iter().all(|text| *text == words[0]), "{words:?}");
    }
}

#[test]
fn one_rank_is_the_default_and_its_number_is_a_power_of_two() {
    let mut config = config(json!({"name": "dpo", "beta": 0.3}));
    let findings = |config: &Value| -> Vec<String> {
        let (stage, _) = (train::KIND.configure)(config.clone()).unwrap();
        stage.check().into_iter().map(|finding| format!("{}: {}", finding.path.join("."), finding.text)).collect()
    };
    let settings = |config: &Value| (train::KIND.configure)(config.clone()).unwrap().1;
    let plain = settings(&config);
    config["batch"]["ranks"] = json!(1);
    assert_eq!((settings(&config), findings(&config)), (plain, vec![]));
    let one = "optimizer.sharded: without effect: one rank holds all of the state; say `batch.ranks`";
    assert_eq!(findings(&sharded(config.clone())), [one]);
    for ranks in [0, 3, 128] {
        config["batch"]["ranks"] = json!(ranks);
        assert_eq!(findings(&config), [format!("batch.ranks: got {ranks}, wanted a power of two from 1 to 64")]);
    }
}
