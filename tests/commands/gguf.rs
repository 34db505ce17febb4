//! Quantised models in GGUF files: a judge from its file to verdicts, a base from its file to a policy.

use serde_json::Value;

use harness::Project;

#[test]
fn a_judge_of_eight_bits_says_nearly_what_its_model_says() {
    let model = harness::oracle("llama");
    let rows: String = (0..12)
        .map(|n| format!("{{\"prompt\": \"say {n}\", \"chosen\": \" {n} it is\", \"rejected\": \" no {}\"}}\n", n * 7))
        .collect();
    let text = "name: test\nseed: 17\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: text}\n  \
                verdicts: {kind: judge, comparisons: data.comparisons, model: ./eight/judge.gguf, \
                template: ./question.jinja, form: text, labels: {first: [\" A\"], second: [\" B\"]}, debias: probability, least_mass: 0}\n";
    let project = Project::new(&[
        ("pipeline.yaml", text),
        ("question.jinja", "{{ prompt }} {{ a }} or {{ b }}? Answer:"),
        ("data.jsonl", &rows),
    ]);
    // The file stands beside the tokenizer.
    std::fs::create_dir(project.path("eight")).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::write(project.path("eight").join(name), std::fs::read(model.join(name)).unwrap()).unwrap();
    }
    harness::gguf::write_q8(&model, "llama", &project.path("eight/judge.gguf"));
    let verdicts = |args: &[&str]| -> Vec<Value> {
        project.done(&[&["run", "pipeline.yaml", "--device", "cpu"], args].concat());
        let text = project.done(&["inspect", "verdicts", "--json", "-n", "99"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let eight = verdicts(&[]);
    let whole = verdicts(&["--set", &format!("verdicts.model=\"{}\"", model.display())]);
    assert_eq!((eight.len(), whole.len()), (12, 12));
    let mut apart = 0.0_f64;
    for (eight, whole) in eight.iter().zip(&whole) {
        assert_eq!(eight["comparison_id"], whole["comparison_id"]);
        assert_ne!(eight["judge"], whole["judge"]);
        let logp = |row: &Value, of: &str| row[of].as_f64().unwrap();
        for column in ["ab_logp_a", "ab_logp_b", "ba_logp_a", "ba_logp_b"] {
            let difference = (logp(eight, column) - logp(whole, column)).abs();
            assert!(difference < 0.1, "{column}: {eight} {whole}");
            apart = apart.max(difference);
        }
        assert!((logp(eight, "p_hat") - logp(whole, "p_hat")).abs() < 0.02, "{eight} {whole}");
    }
    assert!(apart > 1e-6, "eight bits round: {apart}");

    // As a folder of numbers it says the same.
    let told = project.done(&["export", "model", "eight/judge.gguf", "--to", "folder"]);
    assert!(told.contains("folder holds eight/judge.gguf"), "{told}");
    let folder = verdicts(&["--set", "verdicts.model=./folder"]);
    for (eight, folder) in eight.iter().zip(&folder) {
        assert!((eight["ab_logp_a"].as_f64().unwrap() - folder["ab_logp_a"].as_f64().unwrap()).abs() < 1e-4);
    }

    // Without its tokenizer it is refused before anything runs, or told with the file that is missing.
    std::fs::remove_file(project.path("eight/tokenizer.json")).unwrap();
    let output = project.halftone(&["run", "pipeline.yaml", "--device", "cpu", "--force", "verdicts"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("tokenizer.json"), "{output:?}");
}

/// A reference, LoRA above it, samples and an evaluation of the policy, all over one file; then the same in four bits.
#[test]
fn a_policy_is_trained_over_a_file_and_over_four_bits() {
    let model = harness::oracle("llama");
    let rows: String = (0..12)
        .map(|n| format!("{{\"prompt\": \"say {n}\", \"chosen\": \" {n} it is\", \"rejected\": \" no {}\"}}\n", n * 7))
        .collect();
    let text = "name: test\nseed: 17\nstages:\n  data: {kind: ingest, files: ./data.jsonl, form: text}\n  \
                reference: {kind: reference, from: data.pairs, model: ./m/base.gguf}\n  \
                policy: {kind: train, from: data.pairs, model: ./m/base.gguf, reference: reference, \
                objective: {name: dpo, beta: 0.1}, adapter: {rank: 4, alpha: 8, targets: [all-linear]}, \
                optimizer: {lr: 1.0e-3}, batch: {pairs: 4}, epochs: 2}\n  \
                said: {kind: sample, from: data.pairs, model: policy, k: 1, temperature: 0, max_tokens: 4}\n  \
                held: {kind: evaluate, pairs: data.pairs, model: policy, reference: reference, beta: 0.1}\n";
    let project = Project::new(&[("pipeline.yaml", text), ("data.jsonl", &rows)]);
    std::fs::create_dir(project.path("m")).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::write(project.path("m").join(name), std::fs::read(model.join(name)).unwrap()).unwrap();
    }
    harness::gguf::write_q8(&model, "llama", &project.path("m/base.gguf"));
    project.done(&["check", "pipeline.yaml"]);
    project.done(&["plan", "pipeline.yaml", "--device", "cpu"]);
    project.done(&["run", "pipeline.yaml", "--device", "cpu"]);
    let first_loss = || -> f64 {
        let text = project.done(&["inspect", "policy.metrics", "--json", "-n", "1"]);
        serde_json::from_str::<Value>(text.lines().next().unwrap()).unwrap()["loss"].as_f64().unwrap()
    };
    // Policy and reference are the same at first.
    assert!((first_loss() - 2f64.ln()).abs() < 1e-6, "{}", first_loss());

    let whole = format!("\"{}\"", model.display());
    let over = |stages: &[&str], bits: u8| -> Vec<String> {
        let set = |key: String| ["--set".to_owned(), key];
        let models = ["reference", "policy"].map(|stage| format!("{stage}.model={whole}"));
        let bases = stages.iter().map(|stage| format!("{stage}.base={{bits: {bits}}}"));
        models.into_iter().chain(bases).flat_map(set).collect()
    };
    let run = |command: &str, stages: &[&str], bits: u8| {
        let set = over(stages, bits);
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        let device: &[&str] = if command == "run" { &["--device", "cpu"] } else { &[] };
        project.halftone(&[&[command, "pipeline.yaml"], device, &set[..]].concat())
    };
    let all = ["reference", "policy", "said", "held"];
    let output = run("run", &all, 4);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!((first_loss() - 2f64.ln()).abs() < 1e-6, "{}", first_loss());
    // Another form of the base is another reference, and no bits are refused before anything runs.
    let refusal = |output: std::process::Output| {
        assert!(!output.status.success());
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let text = refusal(run("check", &["policy", "said", "held"], 4));
    assert!(text.contains("f32 over 4 bits"), "{text}");
    let text = refusal(run("check", &all, 5));
    assert!(text.contains("got 5, wanted 4 or 8"), "{text}");
    let output = project.halftone(&[
        "check",
        "pipeline.yaml",
        "--set",
        "policy.base={bits: 4}",
        "--set",
        "reference.base={bits: 4}",
        "--set",
        "held.base={bits: 4}",
    ]);
    let text = refusal(output);
    assert!(text.contains("in few bits already: `bits: 4` has no effect"), "{text}");
}
