//! `models`: a model by its files.

use std::path::Path;

use harness::Project;
use serde_json::Value;

/// Puts the small Llama of the oracles into a folder of the project.
fn copy_model(project: &Project, to: &str) {
    std::fs::create_dir(project.path(to)).unwrap();
    for entry in std::fs::read_dir(harness::oracles().join("llama")).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, project.path(to).join(Path::new(from.file_name().unwrap()))).unwrap();
    }
}

/// The row of a name, without it.
fn row<'t>(text: &'t str, name: &str) -> &'t str {
    let lines = text.lines().map(str::trim_start);
    lines.filter_map(|line| line.strip_prefix(name)).next().unwrap_or_else(|| panic!("{name}: {text}")).trim_start()
}

#[test]
fn a_language_model_is_described_with_its_uses_and_their_memory() {
    let project = Project::new(&[]);
    copy_model(&project, "m");
    let text = project.done(&["models", "m", "--device", "cpu"]);
    assert!(text.starts_with("m\n  family"), "{text}");
    assert_eq!(row(&text, "family"), "llama, language model");
    assert_eq!(row(&text, "size"), "170,432 parameters, 3 blocks of width 64");
    assert_eq!(row(&text, "heads"), "4 for queries, 2 for keys and values");
    assert!(row(&text, "weights").ends_with("KiB, stored as f32"), "{text}");
    assert_eq!(row(&text, "template"), "chat");
    assert!(text.contains("eos \"<|im_end|>\" (2)") && text.contains("pad \"<|endoftext|>\" (0)"), "{text}");
    let [score, train, adapter] = ["judge, reference", "train ", "train an adapter"].map(|name| row(&text, name));
    assert!(score.starts_with("yes, ") && score.ends_with("MiB"), "{text}");
    assert!(train.starts_with("yes, from ") && adapter.ends_with(", rank 16"), "{text}");
    assert!(row(&text, "over 4 bits").starts_with("yes, from ") && row(&text, "over 4 bits").ends_with(", rank 16"));
    assert!(row(&text, "embed").starts_with("yes, ") && row(&text, "embed").ends_with("MiB"), "{text}");
    assert_eq!(row(&text, "memory is for"), "4,096 tokens at once, f32, cpu");
    // More tokens take more; as JSON the same facts stand.
    let bytes = |tokens: &str| -> Vec<u64> {
        let told = project.done(&["models", "m", "--json", "--device", "cpu", "--tokens", tokens]);
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&told["form"]["parameters"], &told["refused"]["decoder"]), (&170_432.into(), &Value::Null));
        ["score", "generate", "train", "train_adapter"].map(|key| told["bytes"][key].as_u64().unwrap()).to_vec()
    };
    let (few, many) = (bytes("1000"), bytes("100000"));
    assert!(few.iter().zip(&many).all(|(few, many)| few < many), "{few:?} {many:?}");
    assert!(few[2] > few[3], "an adapter takes less than all weights: {few:?}");
}

#[test]
fn memory_is_estimated_for_a_device_that_is_elsewhere() {
    let project = Project::new(&[]);
    copy_model(&project, "m");
    let on =
        |more: &[&str]| project.done(&[&["models", "m", "--device", "cuda:3", "--tokens", "10000000"], more].concat());
    let text = on(&["--memory", "1"]);
    assert!(row(&text, "judge, reference").ends_with(": more than the 1.0 GiB of cuda:3"), "{text}");
    assert_eq!(row(&text, "memory is for"), "10,000,000 tokens at once, f32, cuda:3");
    let score = |dtype: &str| -> u64 {
        let told: Value = serde_json::from_str(&on(&["--json", "--dtype", dtype])).unwrap();
        told["bytes"]["score"].as_u64().unwrap()
    };
    assert!(score("bf16") < score("f32"));
    let wrong = project.fails(&["models", "m", "--device", "gpu"], 64);
    assert!(wrong.contains("--device gpu: there are `auto`, `cpu` and `cuda:0`"), "{wrong}");
}

#[test]
fn a_sentence_encoder_is_described_wherever_its_modules_are() {
    let bert = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/lm/tests/fixtures/bert");
    let modules = r#"[{"idx": 0, "name": "0", "path": "body", "type": "sentence_transformers.models.Transformer"}]"#;
    let project = Project::new(&[]);
    std::fs::create_dir_all(project.path("m/body")).unwrap();
    project.write("m/modules.json", modules);
    for entry in std::fs::read_dir(bert).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
        std::fs::copy(&entry, project.path("m/body").join(entry.file_name().unwrap())).unwrap();
    }
    std::fs::remove_file(project.path("m/body/modules.json")).ok();
    let text = project.done(&["models", "m", "--device", "cpu"]);
    assert_eq!(row(&text, "family"), "bert, sentence encoder");
    assert_eq!(row(&text, "weights"), "112.8 KiB");
    assert!(row(&text, "embed").starts_with("yes, ") && text.contains("memory is for"), "{text}");
    let judge = row(&text, "judge, sample, train");
    assert_eq!(judge, "no: a sentence encoder has no head for tokens: it embeds texts only");
    let bytes = |tokens: &str| -> u64 {
        let told = project.done(&["models", "m", "--json", "--device", "cpu", "--tokens", tokens]);
        serde_json::from_str::<Value>(&told).unwrap()["bytes"]["embed"].as_u64().unwrap()
    };
    assert!(bytes("1000") < bytes("100000"));
}

#[test]
fn a_language_model_among_modules_is_named() {
    let project = Project::new(&[]);
    std::fs::create_dir(project.path("m")).unwrap();
    copy_model(&project, "m/body");
    let modules = r#"[{"idx": 0, "name": "0", "path": "body", "type": "sentence_transformers.models.Transformer"}]"#;
    project.write("m/modules.json", modules);
    let text = project.done(&["models", "m", "--device", "cpu"]);
    assert_eq!(row(&text, "family"), "llama, sentence encoder");
    let judge = row(&text, "judge, sample, train");
    assert_eq!(judge, "no: modules.json makes it a sentence encoder; the language model is m/body");
    assert_eq!(row(&project.done(&["models", "m/body"]), "family"), "llama, language model");
}

#[test]
fn a_model_that_cannot_be_used_says_why_and_others_are_described() {
    let project = Project::new(&[]);
    for name in ["whole", "weightless", "strange"] {
        copy_model(&project, name);
    }
    std::fs::remove_file(project.path("weightless/model.safetensors")).unwrap();
    let config = std::fs::read_to_string(project.path("strange/config.json")).unwrap();
    project.write("strange/config.json", &config.replace("\"llama\"", "\"mamba\""));
    let text = project.done(&["models", "weightless", "strange", "whole"]);
    let parts: Vec<&str> = text.split("\n\n").collect();
    assert_eq!(parts.len(), 3, "{text}");
    assert_eq!(row(parts[0], "family"), "llama, not computed here");
    assert!(row(parts[0], "judge, sample, train").contains("no model.safetensors"), "{text}");
    assert_eq!(row(parts[1], "family"), "mamba, not computed here");
    let reason = row(parts[1], "judge, sample, train");
    assert!(reason.starts_with("no: config.json: ") && reason.contains("mamba"), "{text}");
    assert_eq!(row(parts[2], "family"), "llama, language model");
}

#[test]
fn a_template_that_fails_says_why() {
    let project = Project::new(&[]);
    copy_model(&project, "m");
    project.write("m/chat_template.jinja", "{{ messages | shout }}");
    let text = project.done(&["models", "m"]);
    let wanted = "fails: chat_template.jinja: rendering the chat template: unknown filter";
    assert!(row(&text, "template").starts_with(wanted), "{text}");
    let told: Value = serde_json::from_str(&project.done(&["models", "m", "--json"])).unwrap();
    assert!(told["chat_template"]["fails"].as_str().unwrap().contains("shout"), "{told}");
}

#[test]
fn weights_in_few_bits_are_frozen_beneath_an_adapter() {
    let project = Project::new(&[]);
    copy_model(&project, "m");
    harness::gguf::write_q8(&harness::oracle("llama"), "llama", &project.path("m/eight.gguf"));
    let nf4 = Path::new(env!("CARGO_MANIFEST_DIR")).join("stages/lm/tests/fixtures/few-bits/nf4");
    for (model, family) in [
        ("m/eight.gguf", "llama, GGUF file, a language model in few bits"),
        (nf4.to_str().unwrap(), "llama, language model"),
    ] {
        let text = project.done(&["models", model, "--device", "cpu"]);
        assert_eq!(row(&text, "family"), family);
        assert_eq!(row(&text, "train "), "no: weights in few bits are frozen; an adapter over them is trained");
        assert!(row(&text, "train an adapter").starts_with("yes, from ") && row(&text, "sample").starts_with("yes, "));
        assert!(!text.contains("over 4 bits"), "{text}");
        let told: Value = serde_json::from_str(&project.done(&["models", model, "--json", "--device", "cpu"])).unwrap();
        assert_eq!((&told["few_bits"], &told["bytes"]["train_adapter_over_4_bits"]), (&true.into(), &Value::Null));
    }
}

#[test]
fn what_is_no_model_is_an_error() {
    let project = Project::new(&[("notes.txt", "hello")]);
    std::fs::create_dir(project.path("folder")).unwrap();
    for (name, code, wanted) in [
        ("absent", 64, "there is no file or folder `absent`"),
        ("org/absent", 64, "no such model in the cache"),
        ("folder", 65, "folder: no model: it has no config.json"),
        ("notes.txt", 65, "notes.txt: no model: it has no config.json"),
    ] {
        let text = project.fails(&["models", name], code);
        assert!(text.contains(wanted), "{text}");
    }
    project.fails(&["models"], 64);
}
