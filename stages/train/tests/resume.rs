//! A run that was stopped, however and wherever, ends with the same bytes as one that was not.

use crate::common;

use std::sync::atomic::{AtomicU64, Ordering};

use common::{Bench, config, embeddings, items, pairs, port_bytes, reference, reference_of_items};
use kit::rows::Metric;
use kit::{Error, Event, Interrupt, read_rows};
use serde_json::{Value, json};

fn bench() -> Bench {
    let mut pairs = pairs("pairs.jsonl");
    pairs.truncate(7);
    pairs[3].weight = 0.0;
    Bench::new()
        .table("from", &pairs[..6])
        .table("eval_pairs", &pairs[4..])
        .table("reference", &reference(&pairs))
        .table("embeddings", &embeddings())
}

/// Three batches a pass, the second pass cut short; shuffled, with warmup, decay and evaluations.
fn tiny(objective: Value) -> Value {
    let mut config = config(objective);
    config["batch"] = json!({"pairs": 2, "tokens_per_micro_batch": 160});
    config["optimizer"] =
        json!({"lr": 1e-3, "schedule": "cosine", "warmup_steps": 2, "weight_decay": 0.01, "clip_norm": 0.5});
    config.as_object_mut().unwrap().remove("epochs");
    config["steps"] = json!(5);
    config["eval_pairs"] = json!("held.out");
    config["eval_every"] = json!(2);
    config
}

/// Stops at every step by a signal, and goes on.
fn stopped_by_signals(bench: &Bench, config: &Value, entry: &str) {
    for stop in 1..5 {
        let interrupt = Interrupt::default();
        let raise = |event: Event| {
            if matches!(event, Event::Progressed { done, unit: "steps", .. } if done == stop) {
                interrupt.raise();
            }
        };
        assert!(matches!(bench.run(config, entry, &raise, &interrupt), Err(Error::Interrupted)), "stop {stop}");
    }
    bench.run_through(config, entry);
}

#[test]
fn signals_at_every_step_leave_no_trace() {
    let bench = bench();
    for objective in [json!({"name": "gdpo", "beta": 0.3}), json!({"name": "rpo", "beta": 0.3, "tau": 0.5})] {
        let config = tiny(objective);
        let name = config["objective"]["name"].as_str().unwrap();
        let (whole, stopped) = (format!("{name}-whole"), format!("{name}-stopped"));
        let first = bench.run_through(&config, &whole);
        stopped_by_signals(&bench, &config, &stopped);
        let (a, b) = (port_bytes(&bench.entry(&whole)), port_bytes(&bench.entry(&stopped)));
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        for (file, bytes) in &a {
            assert!(b[file] == *bytes, "{name}: {file} differs");
        }
        let again = bench.run_through(&config, &format!("{name}-again"));
        assert_eq!(first, again, "equal inputs give equal figures");
        assert_eq!(port_bytes(&bench.entry(&format!("{name}-again"))), a);
    }
}

#[test]
fn a_resumed_training_is_foretold_by_what_is_left() {
    let bench = bench();
    let config = tiny(json!({"name": "gdpo", "beta": 0.3}));
    let whole = bench.forecast(&config).unwrap();
    assert_eq!(whole.notes[0], "5 steps");
    let interrupt = Interrupt::default();
    let raise = |event: Event| {
        if matches!(event, Event::Progressed { done: 3, unit: "steps", .. }) {
            interrupt.raise();
        }
    };
    assert!(matches!(bench.run(&config, "forecast", &raise, &interrupt), Err(Error::Interrupted)));
    let left = bench.forecast(&config).unwrap();
    assert_eq!(left.notes[0], "5 steps, of which the checkpoint has 3");
    let tokens = |forecast: &kit::Forecast| forecast.tokens.unwrap().value as f64;
    assert!((tokens(&left) - 0.4 * tokens(&whole)).abs() <= 1.0, "{left:?} {whole:?}");
}

#[test]
fn signals_within_steps_leave_no_trace() {
    let bench = bench();
    let config = tiny(json!({"name": "gdpo", "beta": 0.3}));
    bench.run_through(&config, "whole");
    // Ever later signals, most of them between the micro-batches of a step or in an evaluation.
    let mut stops = 0;
    for delay in 0.. {
        let interrupt = Interrupt::default();
        let raise = interrupt.clone();
        let timer = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20 + 15 * delay));
            raise.raise();
        });
        let result = bench.run(&config, "stopped", &|_| (), &interrupt);
        timer.join().unwrap();
        match result {
            Err(Error::Interrupted) => stops += 1,
            result => {
                result.unwrap();
                break;
            }
        }
    }
    assert!(stops > 0, "no signal came in time");
    assert!(port_bytes(&bench.entry("stopped")) == port_bytes(&bench.entry("whole")));
}

#[test]
fn a_kill_costs_what_came_after_the_last_checkpoint() {
    let bench = bench();
    let mut config = tiny(json!({"name": "cdpo", "beta": 0.3}));
    bench.run_through(&config, "whole");
    config["checkpoint_every"] = json!(2);
    // The process dies in the middle of step 4: a panic takes the stage down without a word.
    for kill in [1, 3, 4] {
        let events = |event: Event| {
            if matches!(event, Event::Progressed { done, unit: "steps", .. } if done == kill) {
                std::panic::resume_unwind(Box::new("killed"));
            }
        };
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            bench.run(&config, "killed", &events, &Interrupt::default())
        }));
        assert!(killed.is_err(), "kill {kill}");
    }
    let resumed = AtomicU64::new(0);
    let events = |event: Event| {
        if let Event::Resumed { what } = event {
            assert_eq!(what, "step 2 of 5");
            resumed.fetch_add(1, Ordering::SeqCst);
        }
    };
    bench.run(&config, "killed", &events, &Interrupt::default()).unwrap();
    assert_eq!(resumed.load(Ordering::SeqCst), 1);
    assert!(port_bytes(&bench.entry("killed")) == port_bytes(&bench.entry("whole")));
}

/// Slow steps: what a kill costs is a matter of minutes, whatever the number of steps between checkpoints.
#[test]
fn checkpoints_come_by_time_as_well() {
    let bench = bench();
    let mut config = tiny(json!({"name": "dpo", "beta": 0.3}));
    let count = |config: &Value, entry: &str| {
        let count = AtomicU64::new(0);
        let events = |event: Event| {
            count.fetch_add(u64::from(matches!(event, Event::CheckpointWritten { .. })), Ordering::SeqCst);
        };
        bench.run(config, entry, &events, &Interrupt::default()).unwrap();
        count.into_inner()
    };
    config["checkpoint_every"] = json!(1000);
    assert_eq!(count(&config, "by-steps"), 0);
    // Due at once; the share of time that goes into it has its limit.
    config["checkpoint_minutes"] = json!(0.0);
    assert!(count(&config, "by-time") >= 1);
    assert_eq!(port_bytes(&bench.entry("by-steps")), port_bytes(&bench.entry("by-time")));
}

#[test]
fn items_with_kto_resume_too() {
    let mut pairs = pairs("pairs.jsonl");
    pairs.truncate(6);
    let items = items(&pairs);
    let bench = Bench::new().table("from", &items).table("reference", &reference_of_items(&items));
    let mut config = config(json!({"name": "kto", "beta": 0.3}));
    config["batch"] = json!({"items": 4, "tokens_per_micro_batch": 400});
    config["epochs"] = json!(2);
    bench.run_through(&config, "whole");
    stopped_by_signals(&bench, &config, "stopped");
    assert!(port_bytes(&bench.entry("whole")) == port_bytes(&bench.entry("stopped")));
}

#[test]
fn a_damaged_checkpoint_is_named_set_aside_and_computed_again() {
    let bench = bench();
    let config = tiny(json!({"name": "gdpo", "beta": 0.3}));
    bench.run_through(&config, "whole");
    let files = ["counters.json", "metrics.parquet", "steps.parquet", "splits.parquet", "state"];
    for (number, file) in files.into_iter().enumerate() {
        let entry = format!("damaged{number}");
        let interrupt = Interrupt::default();
        let raise = |event: Event| {
            if matches!(event, Event::Progressed { done: 3, unit: "steps", .. }) {
                interrupt.raise();
            }
        };
        assert!(matches!(bench.run(&config, &entry, &raise, &interrupt), Err(Error::Interrupted)));
        let checkpoint = ".work/checkpoints/000000000003";
        let mut path = bench.entry(&entry).join(checkpoint).join(file);
        if path.is_dir() {
            path = std::fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
        }
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let warned = std::sync::Mutex::new(Vec::new());
        let listen = |event: Event| {
            if let Event::Warned { text } = event {
                warned.lock().unwrap().push(text);
            }
        };
        bench.run(&config, &entry, &listen, &Interrupt::default()).unwrap();
        let warned = warned.into_inner().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(warned.iter().any(|text| text.contains(checkpoint) && text.contains(&name)), "{file}: {warned:?}");
        assert!(bench.entry(&format!("{entry}.damaged-1")).join(checkpoint).is_dir());
        assert!(port_bytes(&bench.entry(&entry)) == port_bytes(&bench.entry("whole")), "{file}");
    }
}

/// Evaluates at every step, keeps two policies, and moves so fast that it soon gets worse.
fn choosing(metric: &str) -> Value {
    let mut config = tiny(json!({"name": "gdpo", "beta": 0.3}));
    config["optimizer"]["lr"] = json!(0.02);
    config["eval_every"] = json!(1);
    config["best"] = json!({"metric": metric, "keep": 2});
    config
}

#[test]
fn the_policy_is_that_of_the_best_evaluation_wherever_it_was_stopped() {
    let bench = bench();
    for (metric, better) in [("eval_loss", -1.0), ("eval_rewards/margins", 1.0)] {
        let config = choosing(metric);
        let outcome = bench.run_through(&config, "whole");
        let metrics: Vec<Metric> = read_rows(&bench.entry("whole").join("metrics")).unwrap();
        let goodness = |row: &Metric| {
            let value = if better < 0.0 { row.eval_loss } else { row.eval_rewards_margins };
            better * value.unwrap()
        };
        let mut order: Vec<&Metric> = metrics.iter().collect();
        order.sort_by(|a, b| goodness(b).total_cmp(&goodness(a)));
        let (first, second) = (order[0].step, order[1].step);
        assert_eq!(outcome.figures["step of `policy`"], json!(first));
        assert_eq!(outcome.figures["step of `policy_2`"], json!(second));

        // A training that ends there, with the learning rates of the longer one, has the same weights.
        let mut constant = config.clone();
        constant["optimizer"]["schedule"] = json!("constant");
        let outcome = bench.run_through(&constant, "constant");
        let step = outcome.figures["step of `policy`"].as_u64().unwrap();
        let mut short = constant.clone();
        short.as_object_mut().unwrap().remove("best");
        short["steps"] = json!(step);
        bench.run_through(&short, "short");
        let weights = |entry: &str| std::fs::read(bench.entry(entry).join("policy/model.safetensors")).unwrap();
        assert!(weights("constant") == weights("short"), "{metric}");

        stopped_by_signals(&bench, &config, "stopped");
        assert!(port_bytes(&bench.entry("stopped")) == port_bytes(&bench.entry("whole")), "{metric}");
        for entry in ["whole", "constant", "short", "stopped"] {
            std::fs::remove_dir_all(bench.entry(entry)).unwrap();
        }
    }
}

#[test]
fn patience_ends_a_training_that_no_longer_helps() {
    let bench = bench();
    let mut config = choosing("eval_rewards/margins");
    config["steps"] = json!(12);
    // Nothing is better by so much: the first evaluation is the best, and two more are waited for.
    config["best"] = json!({"metric": "eval_rewards/margins", "patience": 2, "min_delta": 1e9});
    let outcome = bench.run_through(&config, "early");
    let metrics: Vec<Metric> = read_rows(&bench.entry("early").join("metrics")).unwrap();
    assert_eq!(metrics.len(), 3);
    assert_eq!(outcome.figures["steps"], json!(3));
    // Stopped at each step, it ends at the same one.
    for stop in 1..3 {
        let interrupt = Interrupt::default();
        let raise = |event: Event| {
            if matches!(event, Event::Progressed { done, unit: "steps", .. } if done == stop) {
                interrupt.raise();
            }
        };
        assert!(matches!(bench.run(&config, "stopped", &raise, &interrupt), Err(Error::Interrupted)));
    }
    bench.run_through(&config, "stopped");
    assert!(port_bytes(&bench.entry("stopped")) == port_bytes(&bench.entry("early")));
}

#[test]
fn a_damaged_policy_of_unfinished_work_is_computed_again() {
    let bench = bench();
    let config = choosing("eval_loss");
    bench.run_through(&config, "whole");
    let interrupt = Interrupt::default();
    let raise = |event: Event| {
        if matches!(event, Event::Progressed { done: 3, unit: "steps", .. }) {
            interrupt.raise();
        }
    };
    assert!(matches!(bench.run(&config, "damaged", &raise, &interrupt), Err(Error::Interrupted)));
    let best = bench.entry("damaged").join(".work/best");
    let mut flipped = 0;
    for folder in std::fs::read_dir(&best).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()) {
        let file = folder.join("model.safetensors");
        let mut bytes = std::fs::read(&file).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        flipped += 1;
    }
    assert!(flipped >= 2);
    bench.run_through(&config, "damaged");
    assert!(port_bytes(&bench.entry("damaged")) == port_bytes(&bench.entry("whole")));
}
