//! `check`: what edges between stages need, with the fix.

use harness::Project;

const ITEMS: &str = r#"{"prompt": "name a fruit", "completion": "an apple", "label": true}"#;
const PAIRS: &str = r#"{"prompt": "name a fruit", "chosen": "an apple", "rejected": "a stone"}"#;

fn check(stages: &str, wanted: &str) {
    let project = Project::new(&[("items.jsonl", ITEMS), ("pairs.jsonl", PAIRS)]);
    let model = harness::oracle("llama");
    let training = "model: \"${vars.model}\", optimizer: {lr: 0.1}, epochs: 1";
    let stages = stages.replace("TRAINING", training).replace("MODEL", "\"${vars.model}\"");
    project.write("x.yaml", &format!("name: x\nseed: 1\nvars: {{model: {}}}\nstages:\n{stages}", model.display()));
    let told = project.fails(&["check", "x.yaml"], 78);
    assert!(told.contains(wanted), "{told}");
}

#[test]
fn kto_on_plain_items_is_told_of_the_stage_between() {
    check(
        "  data: {kind: ingest, files: items.jsonl}
  reference: {kind: reference, from: data.items, model: MODEL}
  policy: {kind: train, from: data.items, reference: reference, objective: {name: kto, beta: 0.1}, batch: {items: 4}, TRAINING}
",
        "`data` does not write it: put `{kind: pairs, from: ..., write: items, kl_group: 16}` between",
    );
}

#[test]
fn two_precisions_are_found() {
    check(
        "  data: {kind: ingest, files: pairs.jsonl}
  reference: {kind: reference, from: data.pairs, model: MODEL, dtype: bf16}
  policy: {kind: train, from: data.pairs, reference: reference, objective: {name: dpo, beta: 0.1}, batch: {pairs: 4}, TRAINING}
",
        "`reference` has `dtype: bf16` and this stage `dtype: f32`; both have to have the same",
    );
}

#[test]
fn two_ways_to_tokens_are_found() {
    check(
        "  data: {kind: ingest, files: pairs.jsonl}
  reference: {kind: reference, from: data.pairs, model: MODEL, tokens: {max_tokens: 64}}
  policy: {kind: train, from: data.pairs, reference: reference, objective: {name: dpo, beta: 0.1}, batch: {pairs: 4}, TRAINING}
",
        "`reference` has `tokens: {max_tokens: 64, on_prefix_mismatch: stop",
    );
    check(
        "  data: {kind: ingest, files: pairs.jsonl}
  reference: {kind: reference, from: data.pairs, model: MODEL, max_tokens: 64}
",
        "unknown key `max_tokens`; it stands under `tokens`: `tokens: {max_tokens: ...}`",
    );
}

#[test]
fn a_batch_of_pairs_over_items_is_found() {
    check(
        "  data: {kind: ingest, files: items.jsonl}
  policy: {kind: train, from: data.items, objective: {name: sft}, batch: {pairs: 4}, TRAINING}
",
        "`data.items` holds items, `from` wants pairs",
    );
}

#[test]
fn a_model_is_no_reference_table() {
    check(
        "  data: {kind: ingest, files: pairs.jsonl}
  policy: {kind: train, from: data.pairs, reference: MODEL, objective: {name: dpo, beta: 0.1}, batch: {pairs: 4}, TRAINING}
",
        "name a stage of the kind `reference`, which scores the rows with this model",
    );
}

#[test]
fn a_pipe_is_no_pipeline_file() {
    let project = Project::new(&[]);
    let pipe = project.path("x.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let told = project.fails(&["check", "x.yaml"], 78);
    assert!(told.contains("is a pipe, wanted a file"), "{told}");
}

#[test]
fn the_best_response_needs_scores() {
    check(
        "  data: {kind: ingest, files: pairs.jsonl}
  comparisons: {kind: compare, from: data.responses, within: {against: best}}
",
        "column `score` missing in input `from`; `data` does not write it: `against: best` goes by scores",
    );
}

/// Model folders that lack something or have too much, each with a part of the message about it.
#[test]
fn models_that_cannot_be_used_are_found_before_anything_runs() {
    let oracle = harness::oracle("llama");
    let project = Project::new(&[("pairs.jsonl", PAIRS)]);
    let text = "name: x\nseed: 1\nstages:\n  data: {kind: ingest, files: ./pairs.jsonl, form: chat}\n  \
                reference: {kind: reference, from: data.pairs, model: ./m}\n";
    project.write("x.yaml", text);
    let model = project.path("m");
    let fresh = || {
        let _ = std::fs::remove_dir_all(&model);
        std::fs::create_dir(&model).unwrap();
        for file in std::fs::read_dir(&oracle).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
        }
    };
    let found = |wanted: &str| {
        let told = project.fails(&["check", "x.yaml"], 65);
        assert!(told.contains("x.yaml:5:57: reference: ") && told.contains(wanted), "{wanted}: {told}");
        let planned = project.fails(&["plan", "x.yaml"], 65);
        assert!(planned.contains(wanted), "{planned}");
        // And it is what a run says, before its first stage.
        let ran = project.fails(&["run", "x.yaml", "--device", "cpu"], 65);
        assert!(ran.contains(wanted), "{ran}");
        assert!(!project.path(".halftone/runs/x/1").exists(), "nothing ran");
    };
    let config = |key: &str, value: serde_json::Value| {
        let path = model.join("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(path, config.to_string()).unwrap();
    };
    let remove = |name: &str| std::fs::remove_file(model.join(name)).unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(model.join(name), text).unwrap();
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";

    fresh();
    assert!(project.done(&["check", "x.yaml"]).contains("nothing wrong"));
    config("model_type", "qwen3_moe".into());
    found("`model_type` is \"qwen3_moe\"");
    fresh();
    config("quantization_config", serde_json::json!({"bits": 4}));
    found("quantization_config");
    fresh();
    config("rope_parameters", serde_json::json!({"rope_type": "proportional", "rope_theta": 1e4}));
    found("`rope_type` is \"proportional\"");
    fresh();
    config("max_position_embeddings", 0.into());
    found("`max_position_embeddings` is 0");
    fresh();
    config("architectures", serde_json::json!(["LlamaForSequenceClassification"]));
    config("id2label", serde_json::json!({"0": "bad", "1": "good"}));
    found("the model has 2 outputs; a reward model has one");
    fresh();
    remove("tokenizer.json");
    found("tokenizer.json: is not there; transformers makes it of other files");
    fresh();
    remove("model.safetensors");
    found("no model.safetensors and no model.safetensors.index.json here");
    fresh();
    let index = br#"{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}"#;
    remove("model.safetensors");
    write("model.safetensors.index.json", index);
    found("model-00001-of-00002.safetensors`, which is not there");
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        fresh();
        write(name, pointer);
        found("a Git LFS pointer, not the file itself");
    }
    fresh();
    let weights = std::fs::read(model.join("model.safetensors")).unwrap();
    write("model.safetensors", &weights[..weights.len() - 10]);
    found("not a whole safetensors file");
    fresh();
    config("intermediate_size", 64.into());
    found("config.json wants");
    fresh();
    config("num_hidden_layers", 9.into());
    found("is missing");
    fresh();
    remove("chat_template.jinja");
    found("has no chat template");
    write("chat_template.jinja", b"{% for %}");
    found("not a chat template");
    // Templates that fail whatever the messages are.
    write("chat_template.jinja", b"{{ messages[0].content | shout }}");
    found("chat_template.jinja: rendering the chat template: unknown filter");
    write("chat_template.jinja", b"<|far|>{{ messages[0].content }}");
    let mut tokenizer: serde_json::Value =
        serde_json::from_slice(&std::fs::read(model.join("tokenizer.json")).unwrap()).unwrap();
    let mut far = tokenizer["added_tokens"][0].clone();
    (far["id"], far["content"]) = (640.into(), "<|far|>".into());
    tokenizer["added_tokens"].as_array_mut().unwrap().push(far);
    write("tokenizer.json", tokenizer.to_string().as_bytes());
    found("the tokenizer's token \"<|far|>\" has the id 640, and the model's `vocab_size` is 640");
    remove("chat_template.jinja");
    write(
        "tokenizer_config.json",
        br#"{"eos_token": "</s>", "chat_template": [{"name": "rag", "template": "x"}, {"name": "tool_use", "template": "x"}]}"#,
    );
    found("none is named `default`");
    // Raw text needs no template; where the form of the data is open, it is said.
    fresh();
    remove("chat_template.jinja");
    project.write("x.yaml", &text.replace("form: chat", "form: text"));
    let output = project.halftone(&["check", "x.yaml"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && told.contains("warning: ") && told.contains("has no chat template"), "{told}");
}

#[test]
fn an_unknown_name_under_columns_has_its_nearest() {
    for (columns, word, text) in [
        ("{promt: context}", "promt", "unknown value `promt`; did you mean `prompt`?"),
        ("{prompt: context, respnse_0: a}", "respnse_0", "unknown value `respnse_0`; did you mean `response_0`?"),
        ("{zzz: context}", "zzz", "unknown value `zzz`; wanted `prompt`, `input`, "),
    ] {
        let line = format!("  data: {{kind: ingest, files: pairs.jsonl, columns: {columns}}}\n");
        check(&line, &format!("x.yaml:5:{}: data: {text}", line.find(word).unwrap() + 1));
    }
    check(
        "  data: {kind: ingest, files: pairs.jsonl, columns: {prompt: contex}}\n",
        "`columns: prompt`: there is no column `contex`; found `chosen`, `prompt`, `rejected`",
    );
}

#[test]
fn words_of_the_machine_need_not_be_utf_8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let odd = OsStr::from_bytes(b"w\xff");
    let project = Project::new(&[("pairs.jsonl", PAIRS)]);
    project.write("x.yaml", "name: x\nstages:\n  data: {kind: ingest, files: pairs.jsonl}\n");
    let output = project.command(&["run", "x.yaml", "--work"]).arg(odd).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", harness::stderr(&output));
    assert!(std::path::Path::new(project.folder()).join(odd).join("runs/x/1").is_dir());
    project.write("x.yaml", "name: x\nstages:\n  data: {kind: ingest, files: \"${env:ODD}\"}\n");
    let output = project.command(&["check", "x.yaml"]).env("ODD", odd).output().unwrap();
    let said = harness::stderr(&output);
    assert!(said.contains("the environment variable `ODD` is no text in UTF-8"), "{said}");
}

#[test]
fn a_reference_is_wrong_once_and_has_its_nearest_in_full() {
    check("  data: {kind: ingest, files: \"${vars.modle}\"}\n", "unknown variable `modle`; did you mean `model`?");
    let project = Project::new(&[("pairs.jsonl", PAIRS)]);
    let stages = "stages:\n  data: {kind: ingest, files: \"${vars.a.b.d}\"}\n";
    project.write("x.yaml", &format!("name: x\nvars: {{a: {{b: {{c: pairs.jsonl}}}}}}\n{stages}"));
    let told = project.fails(&["check", "x.yaml"], 78);
    assert!(told.contains("unknown variable `a.b.d`; did you mean `a.b.c`?"), "{told}");
    let twice = |level: usize| format!("  v{level}: [\"${{vars.v{0}}}\", \"${{vars.v{0}}}\"]\n", level - 1);
    let vars: String = (1..40).map(twice).collect();
    let stages = "stages:\n  data: {kind: ingest, files: \"${vars.v39}\"}\n";
    project.write("x.yaml", &format!("name: x\nvars:\n  v0: x\n{vars}{stages}"));
    let told = project.fails(&["check", "x.yaml"], 78);
    assert_eq!(told.matches("the references of this file stand for more than").count(), 1, "{told}");
}

#[test]
fn an_adapter_of_an_earlier_stage_needs_a_word_on_what_becomes_of_it() {
    let training = |adapter: &str| {
        format!(
            "  first: {{kind: train, from: data.items, objective: {{name: sft}}, batch: {{items: 4}}, model: MODEL, optimizer: \
             {{lr: 0.1}}, epochs: 1{adapter}}}\n"
        )
    };
    let data = "  data: {kind: ingest, files: items.jsonl}\n";
    let second = |more: &str| {
        training("")
            .replace("first", "second")
            .replace("MODEL", "first")
            .replace("epochs: 1", &format!("epochs: 1{more}"))
    };
    let lora = ", adapter: {rank: 2, alpha: 4, targets: [q_proj]}";
    check(
        &[data, &training(lora), &second("")].concat(),
        "second: `first.policy`: `model` is an adapter; say what becomes of it: `model_adapter: continue`",
    );
    check(
        &[data, &training(""), &second(", model_adapter: continue")].concat(),
        "second: `first.policy`: `model_adapter` has no effect: `model` is no adapter",
    );
}

#[test]
fn numbers_below_zero_pipes_and_devices_are_called_so() {
    check(
        "  data: {kind: ingest, files: pairs.jsonl, limit: -1}\n",
        "data: got the number -1, wanted a whole number from 0 up",
    );
    let project = Project::new(&[]);
    let told = project.fails(&["check", "-"], 78);
    assert!(told.contains("a pipeline is read from a file, not from standard input"), "{told}");
    let told = project.fails(&["inspect", "/dev/null"], 65);
    assert!(told.contains("/dev/null is a device, wanted a file"), "{told}");
}
