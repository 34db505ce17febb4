//! Adapters against PEFT (fixtures/make_lora.py), and the laws they keep.

use crate::common;

use candle_core::Tensor;
use common::{Scored, numbers, oracle};
use lm::{AdamW, DType, Decoder, Device, LogProbs, Lora, Memory, Sequence, Text, Training};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    harness::root().join("stages/lm/tests/fixtures/lora")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn sequences() -> Vec<Sequence> {
    let numbers = numbers("llama");
    let of = |side: &str| numbers["pairs"]["chat"][side].iter().map(Scored::sequence).collect::<Vec<_>>();
    of("chosen").into_iter().chain(of("rejected")).collect()
}

fn scores(decoder: &Decoder) -> Vec<f64> {
    let sequences = sequences();
    let scored = decoder.score(&sequences.iter().collect::<Vec<_>>(), false, 4096).unwrap();
    scored.iter().map(|scored| scored.response).collect()
}

fn of_peft(what: &str) -> Vec<f64> {
    of_peft_in(&fixture(), what)
}

fn of_peft_in(folder: &Path, what: &str) -> Vec<f64> {
    let numbers = json(&folder.join("numbers.json"));
    let side =
        |side: &str| numbers[what][side].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<f64>>();
    [side("chosen"), side("rejected")].concat()
}

fn worst(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

fn load(folder: &Path) -> Decoder {
    Decoder::load(folder, &Device::Cpu).unwrap()
}

fn lora(targets: &[&str]) -> Lora {
    Lora::new(4, 8.0, &targets.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
}

fn fresh(targets: &[&str]) -> Decoder {
    let mut decoder = load(&oracle("llama"));
    decoder.add_adapter(&lora(targets), 17).unwrap();
    decoder
}

#[test]
fn an_adapter_of_peft_gives_its_numbers() {
    let adapter = scores(&load(&fixture()));
    let off = worst(&adapter, &of_peft("adapter"));
    assert!(off < 1e-3, "off by {off}");
    let base = of_peft("base");
    let moved = worst(&adapter, &base);
    assert!(moved > 1.0, "the adapter moves nothing: {moved}");
    let off = worst(&scores(&load(&fixture()).without_adapter()), &base);
    assert!(off < 1e-3, "the base without its adapter is off by {off}");
}

#[test]
fn merged_weights_are_the_adapter() {
    let decoder = load(&fixture());
    let adapter = scores(&decoder);
    let merged = decoder.merged().unwrap();
    assert!(merged.adapter().is_none());
    // f32 sums of some hundred log-probs of about 6 nats each.
    for (merged, adapter) in scores(&merged).iter().zip(&adapter) {
        assert!((merged - adapter).abs() <= 1e-5 * adapter.abs(), "{merged}, wanted {adapter}");
    }
    // The folder that export writes is a model of its own, with the base's dtype and files.
    let to = tempfile::tempdir().unwrap();
    lm::export(&fixture(), to.path(), None).unwrap();
    assert_eq!(lm::base_of(to.path()).unwrap(), None);
    assert!(worst(&scores(&load(to.path())), &scores(&merged)) == 0.0);
    assert_eq!(json(&to.path().join("config.json")), json(&oracle("llama").join("config.json")));
    Text::load(to.path()).unwrap();
}

#[test]
fn a_fresh_adapter_changes_nothing_at_all() {
    let base = scores(&load(&oracle("llama")));
    for targets in [&["all-linear"][..], &["q_proj", "v_proj"], &["up_proj"]] {
        assert_eq!(scores(&fresh(targets)), base, "{targets:?}");
    }
}

#[test]
fn a_saved_adapter_is_the_same_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = load(&fixture());
    decoder.save_adapter(folder.path(), &oracle("llama")).unwrap();
    let again = load(folder.path());
    assert_eq!(again.adapter(), decoder.adapter());
    assert_eq!(scores(&again), scores(&decoder));
    assert!(decoder.save(folder.path()).is_err(), "an adapter is not a whole model");
    // The tokenizer and the ends of text are the base's where the folder has none.
    assert_eq!(Text::load(folder.path()).unwrap().eos_ids(), Text::load(&oracle("llama")).unwrap().eos_ids());
    let config = json(&folder.path().join("adapter_config.json"));
    for (key, value) in json(&fixture().join("adapter_config.json")).as_object().unwrap() {
        let same = [
            "r",
            "lora_alpha",
            "lora_dropout",
            "bias",
            "peft_type",
            "task_type",
            "fan_in_fan_out",
            "modules_to_save",
            "inference_mode",
        ];
        assert!(!same.contains(&key.as_str()) || config[key] == *value, "{key}: {config}");
    }
}

#[test]
fn dropout_stands_in_the_folder_and_changes_no_scores() {
    let folder = tempfile::tempdir().unwrap();
    let decoder = fresh(&["q_proj"]);
    let mut dropping = load(&oracle("llama"));
    dropping.add_adapter(&Lora { dropout: 0.25, ..lora(&["q_proj"]) }, 17).unwrap();
    dropping.save_adapter(folder.path(), &oracle("llama")).unwrap();
    assert_eq!(json(&folder.path().join("adapter_config.json"))["lora_dropout"], 0.25);
    let again = load(folder.path());
    assert_eq!(again.adapter().unwrap().dropout, 0.25);
    assert_eq!(scores(&again), scores(&decoder));
    // Over an old one it is that of the adapter that was trained.
    let mut over = again.with_base_adapter(false).unwrap();
    over.add_adapter(&Lora { dropout: 0.5, ..lora(&["v_proj"]) }, 17).unwrap();
    let joined = tempfile::tempdir().unwrap();
    over.save_adapter(joined.path(), &oracle("llama")).unwrap();
    assert_eq!(load(joined.path()).adapter().unwrap().dropout, 0.5);
    let error = load(&oracle("llama")).add_adapter(&Lora { dropout: 1.0, ..lora(&["q_proj"]) }, 17).unwrap_err();
    assert!(error.to_string().contains("dropout is 1; wanted 0 up to, but without, 1"), "{error}");
}

/// PEFT looks for a path from the folder that it is called in, and for a name in the hub's cache.
#[test]
fn a_base_is_named_so_that_it_is_found_from_anywhere() {
    let place = tempfile::tempdir().unwrap();
    let named = |base: &Path| {
        let folder = tempfile::tempdir_in(place.path()).unwrap();
        load(&fixture()).save_adapter(folder.path(), base).unwrap();
        let config = json(&folder.path().join("adapter_config.json"));
        (config["base_model_name_or_path"].clone(), config["revision"].clone(), folder)
    };
    let (name, revision, _) = named(&oracle("llama"));
    assert_eq!((Path::new(name.as_str().unwrap()), revision), (&*oracle("llama").canonicalize().unwrap(), Value::Null));
    let snapshot = place.path().join("hub/models--org--small-model/snapshots/0a1b2c");
    std::fs::create_dir_all(&snapshot).unwrap();
    let (name, revision, _) = named(&snapshot);
    assert_eq!((name, revision), (json!("org/small-model"), json!("0a1b2c")));

    // A store that was moved: the way inside it leads, whatever path the configuration names.
    let (.., folder) = named(&oracle("llama"));
    for name in
        ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    {
        let to = place.path().join("base");
        std::fs::create_dir_all(&to).unwrap();
        std::fs::copy(oracle("llama").join(name), to.join(name)).unwrap();
    }
    let mut config = json(&folder.path().join("adapter_config.json"));
    config["base_model_name_or_path"] = json!("/nowhere/base");
    std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    assert!(lm::base_of(folder.path()).unwrap_err().to_string().contains("is not there"));
    std::fs::write(folder.path().join(lm::BASE_INSIDE), "../base\n").unwrap();
    assert_eq!(lm::base_of(folder.path()).unwrap(), Some(folder.path().join("../base")));
    assert_eq!(scores(&load(folder.path())), scores(&load(&fixture())));
}

#[test]
fn rank_stabilised_scaling_and_whole_modules_are_those_of_peft() {
    let folder = fixture().with_file_name("lora-modules");
    let decoder = load(&folder);
    let form = decoder.adapter().unwrap();
    assert!(form.rslora && (form.scale() - 6.0 / 2f64.sqrt()).abs() < 1e-12, "{form:?}");
    let off = worst(&scores(&decoder), &of_peft_in(&folder, "adapter"));
    assert!(off < 1e-3, "off by {off}");
    let off = worst(&scores(&decoder.merged().unwrap()), &of_peft_in(&folder, "merged"));
    assert!(off < 1e-3, "merged: off by {off}");
    // An adapter over the same base cannot hold whole modules.
    let error = load(&folder).with_base_adapter(false).unwrap_err().to_string();
    assert!(error.contains("holds whole modules (`model.") && error.contains("halftone export model"), "{error}");
    // What is written says so, too.
    let mut fresh = load(&oracle("llama"));
    fresh.add_adapter(&Lora { rslora: true, ..lora(&["q_proj"]) }, 17).unwrap();
    let to = tempfile::tempdir().unwrap();
    fresh.save_adapter(to.path(), &oracle("llama")).unwrap();
    assert_eq!(json(&to.path().join("adapter_config.json"))["use_rslora"], true);
    assert_eq!(load(to.path()).adapter().unwrap().scale(), 4.0);
}

#[test]
fn a_saved_head_or_table_is_no_longer_tied() {
    let base = load(&oracle("llama"));
    assert!(base.config().tied);
    let table = candle_core::safetensors::load(oracle("llama").join("model.safetensors"), &Device::Cpu).unwrap();
    let table = &table["model.embed_tokens.weight"];
    let with = |name: &str, factor: f64| {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors =
            candle_core::safetensors::load(fixture().join("adapter_model.safetensors"), &Device::Cpu).unwrap();
        tensors.insert(name.to_owned(), (table * factor).unwrap());
        candle_core::safetensors::save(&tensors, folder.path().join("adapter_model.safetensors")).unwrap();
        let mut config = json(&fixture().join("adapter_config.json"));
        config["base_model_name_or_path"] = oracle("llama").to_str().unwrap().into();
        std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        Decoder::load(folder.path(), &Device::Cpu)
    };
    let tied = scores(&load(&fixture()));
    for name in ["base_model.model.lm_head.weight", "base_model.model.model.embed_tokens.weight"] {
        let same = with(name, 1.0).unwrap();
        assert!(!same.config().tied);
        assert_eq!(scores(&same), tied, "{name}");
        assert!(worst(&scores(&with(name, 2.0).unwrap()), &tied) > 0.1, "{name}");
    }
    let error = with("base_model.model.model.visual.weight", 1.0).unwrap_err().to_string();
    assert!(error.contains("has no place in the base model"), "{error}");
}

#[test]
fn an_adapter_over_another_is_saved_as_one() {
    for merged in [true, false] {
        let mut decoder = load(&fixture()).with_base_adapter(merged).unwrap();
        let old = scores(&decoder);
        assert!(worst(&old, &scores(&load(&fixture()))) < 1e-3, "merged: {merged}");
        decoder.add_adapter(&Lora { rslora: true, ..lora(&["q_proj", "down_proj"]) }, 17).unwrap();
        let mut training = training(decoder, 4096, Memory::Keep);
        let trained = training.gradients().unwrap();
        assert_eq!(trained.len(), 2 * 2 * 3, "the old one is frozen");
        for _ in 0..3 {
            step(&mut training);
        }
        let after = scores(training.decoder());
        assert!(worst(&after, &old) > 0.01);
        let folder = tempfile::tempdir().unwrap();
        training.save_adapter(folder.path(), lm::SavedDtype::F32, &oracle("llama")).unwrap();
        let config = json(&folder.path().join("adapter_config.json"));
        assert_eq!((&config["r"], &config["lora_alpha"]), (&json!(8), &json!(8)));
        let off = worst(&scores(&load(folder.path())), &after);
        assert!(off < 1e-3, "merged {merged}: off by {off}");
    }
}

#[test]
fn forms_that_are_not_computed_are_refused() {
    let copy = |change: &dyn Fn(&mut Value)| {
        let folder = tempfile::tempdir().unwrap();
        let mut config = json(&fixture().join("adapter_config.json"));
        config["base_model_name_or_path"] = oracle("llama").to_str().unwrap().into();
        change(&mut config);
        std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        std::fs::copy(fixture().join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors"))
            .unwrap();
        let early = lm::check_decoder(folder.path()).err().map(|error| error.to_string());
        match Decoder::load(folder.path(), &Device::Cpu) {
            Ok(_) => early.unwrap_or_default(),
            Err(error) => {
                assert_eq!(early, Some(error.to_string()));
                error.to_string()
            }
        }
    };
    assert_eq!(copy(&|_| ()), "");
    let check = |key: &str, value: Value, said: &str| {
        let text = copy(&|config| config[key] = value.clone());
        assert!(text.contains(said), "{key}: {text}");
    };
    check("use_dora", true.into(), "`use_dora` is true");
    check("peft_type", "IA3".into(), "`peft_type`");
    check("alora_invocation_tokens", serde_json::json!([1, 2]), "`alora_invocation_tokens`");
    check("kasa_config", serde_json::json!({"beta": 1e-4}), "`kasa_config`");
    // The base beneath such an adapter is another one than that of the folder.
    for begun in ["pissa", "pissa_niter_4", "olora", "loftq", "corda"] {
        check("init_lora_weights", begun.into(), "`init_lora_weights`");
    }
    for plain in [json!("gaussian"), json!("eva"), json!("orthogonal"), json!(false), Value::Null] {
        assert_eq!(copy(&|config| config["init_lora_weights"] = plain.clone()), "", "{plain}");
    }
    check("bias", "all".into(), "`bias`");
    check("r", 3.into(), "and `r` in adapter_config.json is 3");
    check(
        "target_modules",
        serde_json::json!(["o_proj"]),
        "is of none of `target_modules` in adapter_config.json: o_proj",
    );
    let missing = "`modules_to_save` of adapter_config.json names `lm_head`, and no tensor of it is here";
    check("modules_to_save", serde_json::json!(["lm_head"]), missing);
    check("lora_dropout", json!(1.0), "`lora_dropout` is 1.0; this is not computed here, wanted 0 up to");
    check("rank_pattern", serde_json::json!({"q_proj": 2}), "`rank_pattern`");
    check("base_model_name_or_path", "no/such/model".into(), "`no/such/model` is not there");
    check("base_model_name_or_path", Value::Null, "`base_model_name_or_path` is missing");
    check("base_model_name_or_path", fixture().to_str().unwrap().into(), "is an adapter itself");
    check("base_model_name_or_path", oracle("qwen3").to_str().unwrap().into(), "want");
    let refused = |rank, alpha, targets: &[&str]| {
        Lora::new(rank, alpha, &targets.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .unwrap_err()
            .to_string()
    };
    assert!(refused(4, 8.0, &["query"]).contains("there are `q_proj`, `k_proj`"));
    assert!(refused(4, 8.0, &["q_proj", "q_proj"]).contains("twice"));
    assert!(refused(4, 8.0, &["all-linear", "q_proj"]).contains("all of them"));
    assert!(refused(0, 8.0, &["q_proj"]).contains("rank is 0"));
    assert!(refused(4, 0.0, &["q_proj"]).contains("alpha is 0"));
    assert!(refused(4, 8.0, &[]).contains("no linear layer"));
}

/// Whatever the tensors are, `check` has the words that reading would have.
#[test]
fn an_adapter_that_does_not_fit_its_base_is_refused_before_it_is_read() {
    type Tensors = HashMap<String, Tensor>;
    let changed = |change: &dyn Fn(&mut Tensors)| {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors =
            candle_core::safetensors::load(fixture().join("adapter_model.safetensors"), &Device::Cpu).unwrap();
        change(&mut tensors);
        candle_core::safetensors::save(&tensors, folder.path().join("adapter_model.safetensors")).unwrap();
        let mut config = json(&fixture().join("adapter_config.json"));
        config["base_model_name_or_path"] = oracle("llama").to_str().unwrap().into();
        config["target_modules"] = ".*".into();
        std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        let early = lm::check_decoder(folder.path()).unwrap_err().to_string();
        assert_eq!(Decoder::load(folder.path(), &Device::Cpu).unwrap_err().to_string(), early);
        early
    };
    let zeros = |shape: (usize, usize)| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let block = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight";
    let half = changed(&|tensors| drop(tensors.remove(block).unwrap()));
    assert!(half.contains(&format!("tensor {block} is missing")), "{half}");
    let narrow = changed(&|tensors| drop(tensors.insert(block.to_owned(), zeros((4, 7)))));
    assert!(narrow.contains("is [4, 7]; the base wants [4, 64]"), "{narrow}");
    for name in [
        "lm_head.lora_A.weight",
        "lm_head.base_layer.weight",
        "model.embed_tokens.lora_embedding_A",
        "model.layers.9.mlp.up_proj.lora_A.weight",
    ] {
        let name = format!("base_model.model.{name}");
        let placeless = changed(&|tensors| drop(tensors.insert(name.clone(), zeros((4, 64)))));
        assert!(placeless.contains(&format!("tensor {name} is beside no linear layer")), "{placeless}");
    }
    let head = "base_model.model.lm_head.weight";
    let wide = changed(&|tensors| drop(tensors.insert(head.to_owned(), zeros((9, 64)))));
    assert!(wide.contains(&format!("tensor {head} is [9, 64]; the base wants [")), "{wide}");
    let bytes = Tensor::zeros((4, 64), DType::U8, &Device::Cpu).unwrap();
    let odd = changed(&|tensors| drop(tensors.insert(block.to_owned(), bytes.clone())));
    assert!(odd.contains("is U8; wanted F32, F16, BF16 or F64"), "{odd}");
    assert!(changed(&HashMap::clear).contains("no adapter of any linear layer in here"));
}

/// As with `layers_to_transform`: what is not there adds nothing, and stays away when the adapter is trained on and saved.
#[test]
fn an_adapter_of_some_blocks_is_read_trained_on_and_written() {
    let part = |zeros: bool, listed: Value| {
        let folder = tempfile::tempdir().unwrap();
        let mut tensors =
            candle_core::safetensors::load(fixture().join("adapter_model.safetensors"), &Device::Cpu).unwrap();
        match zeros {
            true => tensors.iter_mut().filter(|(name, _)| name.contains("layers.1.")).for_each(|(name, tensor)| {
                if name.contains("lora_B") {
                    *tensor = tensor.zeros_like().unwrap();
                }
            }),
            false => tensors.retain(|name, _| !name.contains("layers.1.")),
        }
        candle_core::safetensors::save(&tensors, folder.path().join("adapter_model.safetensors")).unwrap();
        let mut config = json(&fixture().join("adapter_config.json"));
        config["base_model_name_or_path"] = oracle("llama").to_str().unwrap().into();
        config["layers_to_transform"] = listed;
        std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
        folder
    };
    let some = part(false, json!([0, 2]));
    lm::check_decoder(some.path()).unwrap();
    let decoder = load(some.path());
    assert_eq!(scores(&decoder), scores(&load(part(true, Value::Null).path())));
    let mut training = training(decoder, 4096, Memory::Keep);
    let before = training.gradients().unwrap().len();
    step(&mut training);
    let to = tempfile::tempdir().unwrap();
    training.save_adapter(to.path(), lm::SavedDtype::F32, &oracle("llama")).unwrap();
    let targets = json(&to.path().join("adapter_config.json"))["target_modules"].as_array().unwrap().clone();
    assert_eq!(targets.len() * 2, before, "whole names: {targets:?}");
    assert!(targets.contains(&json!("model.layers.0.self_attn.q_proj")));
    assert_eq!(scores(&load(to.path())), scores(training.decoder()));
    // Over it a fresh one of all blocks has all of them.
    let mut over = load(some.path()).with_base_adapter(false).unwrap();
    let old = scores(&over);
    over.add_adapter(&lora(&["q_proj"]), 17).unwrap();
    let joined = tempfile::tempdir().unwrap();
    over.save_adapter(joined.path(), &oracle("llama")).unwrap();
    assert!(worst(&scores(&load(joined.path())), &old) < 1e-3);
    // Where nothing says that some are left out, one that is not there is lost.
    let lost = lm::check_decoder(part(false, Value::Null).path()).unwrap_err().to_string();
    assert!(lost.contains("layers.1.") && lost.contains("is missing"), "{lost}");
}

fn training(decoder: Decoder, budget: usize, memory: Memory) -> Training {
    Training::new(decoder, AdamW::default(), Some(1.0), memory, budget).unwrap()
}

/// A step that makes the first rows likelier and the others less.
fn step(training: &mut Training) -> f64 {
    let sequences: Vec<Sequence> = sequences().into_iter().step_by(6).collect();
    let n = sequences.len();
    training.forward(&sequences.iter().collect::<Vec<_>>(), false).unwrap();
    let slopes: Vec<LogProbs> =
        (0..n).map(|i| LogProbs { response: if i < n / 2 { -0.01 } else { 0.01 }, prompt: 0.0 }).collect();
    training.backward(&slopes).unwrap();
    training.step(1e-3).unwrap()
}

#[test]
fn the_adapter_alone_is_trained_and_micro_batches_do_not_show() {
    let mut whole = training(fresh(&["all-linear"]), 4096, Memory::Keep);
    let gradients = whole.gradients().unwrap();
    assert_eq!(gradients.len(), 2 * 7 * 3);
    assert!(gradients.iter().all(|(name, _)| name.contains(".lora_")), "frozen weights have no gradient");
    let mut cut = training(fresh(&["all-linear"]), 100, Memory::TwoPass);
    let before = scores(whole.decoder());
    for _ in 0..3 {
        let (a, b) = (step(&mut whole), step(&mut cut));
        assert!((a - b).abs() < 1e-4 * a, "{a}, {b}");
    }
    let after = scores(whole.decoder());
    assert!(worst(&after, &scores(cut.decoder())) < 1e-3);
    assert!(worst(&after, &before) > 0.1);
    assert_eq!(scores(&whole.into_decoder().without_adapter()), before, "the base stays as it was");
}

#[test]
fn resumed_is_unbroken_and_its_state_holds_the_adapter_alone() {
    for (dtype, dropout) in [(DType::F32, 0.0), (DType::F32, 0.2), (DType::BF16, 0.2)] {
        let start = || {
            let mut decoder = Decoder::load_as(&oracle("llama"), &Device::Cpu, dtype).unwrap();
            decoder.add_adapter(&Lora { dropout, ..lora(&["q_proj", "down_proj"]) }, 17).unwrap();
            training(decoder, 4096, Memory::Boundaries)
        };
        let folder = tempfile::tempdir().unwrap();
        let mut whole = start();
        step(&mut whole);
        whole.save_state(folder.path()).unwrap();
        let size = std::fs::metadata(folder.path().join("training_state.safetensors")).unwrap().len();
        let base = std::fs::metadata(oracle("llama").join("model.safetensors")).unwrap().len();
        assert!(size < base / 4, "{size} bytes of state, {base} of weights");
        step(&mut whole);
        let mut resumed = start();
        resumed.load_state(folder.path()).unwrap();
        step(&mut resumed);
        let bytes = |training: &Training| {
            let to = tempfile::tempdir().unwrap();
            training.decoder().save_adapter(to.path(), &oracle("llama")).unwrap();
            std::fs::read(to.path().join("adapter_model.safetensors")).unwrap()
        };
        assert!(bytes(&whole) == bytes(&resumed), "{dtype:?}, dropout {dropout}");
    }
}
